use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Inner, Loss, NamedLoss, Reference};
use crate::error::{Error, Result, nearest};
use crate::objective::{LossParameter, Needs, Sampler, Sizes};
use crate::spec::Options;

/// A loss of labels between the rows of the batch and those of the last batches, which are remembered.
///
/// The batch takes the oldest places of a ring of `memory_size` rows; then the inner loss compares its rows with all
/// remembered ones, but for each row itself. Remembered rows have no gradient, so the first batch gives the value of the
/// plain loss and about half of its gradient.
///
/// No row is ever compared with itself, nor is a place in the memory taken for a row of the batch, as happens in the
/// reference with `NCALoss` and `LiftedStructureLoss`.
///
/// Use it where batches are small and the model changes slowly: earlier batches serve as negatives. The gradient cache,
/// which needs no memory of stale rows, is the alternative.
///
/// Reference: `CrossBatchMemory` of pytorch-metric-learning; Wang et al. 2020 (1912.06798).
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CrossBatchMemory {
    /// The inner loss by name: one of pairs or triplets of labels. No default.
    pub loss: String,
    /// Its options. Default none.
    pub loss_options: Options,
    /// Remembered rows; as many as the rows of a batch or more. Default 1024.
    pub memory_size: usize,
    /// Chooses among the pairs of a row and a remembered one. Default none.
    pub miner: Option<String>,
    /// Options of the miner. Default none.
    pub miner_options: Options,
    /// Checked against the model. Default: the model's.
    pub embedding_size: Option<usize>,
    #[serde(skip)]
    inner: Inner,
}

/// Those of pytorch-metric-learning.
const SUPPORTED: [&str; 14] = [
    "AngularLoss",
    "CircleLoss",
    "ContrastiveLoss",
    "GeneralizedLiftedStructureLoss",
    "IntraPairVarianceLoss",
    "LiftedStructureLoss",
    "MarginLoss",
    "MultiSimilarityLoss",
    "NCALoss",
    "NTXentLoss",
    "SignalToNoiseRatioContrastiveLoss",
    "SupConLoss",
    "TripletMarginLoss",
    "TupletMarginLoss",
];

impl Default for CrossBatchMemory {
    fn default() -> Self {
        CrossBatchMemory {
            loss: String::new(),
            loss_options: Options::new(),
            memory_size: 1024,
            miner: None,
            miner_options: Options::new(),
            embedding_size: None,
            inner: Inner::default(),
        }
    }
}

/// The tensors that are remembered, before those of the inner loss.
const ROWS: usize = 0;
const LABELS: usize = 1;
/// The next place to write, and how many are filled.
const PLACE: usize = 2;
const OWN: usize = 3;

impl Loss for CrossBatchMemory {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn mines(&self) -> bool {
        false
    }

    fn sampler(&self) -> Sampler {
        self.inner.sampler()
    }

    fn complete(&mut self) -> Result<()> {
        let named = NamedLoss {
            loss: self.loss.clone(),
            loss_options: self.loss_options.clone(),
            miner: self.miner.clone(),
            miner_options: self.miner_options.clone(),
        };
        self.inner = Inner::new(&named, "loss_options.")?;
        if SUPPORTED.contains(&self.loss.as_str()) {
            return Ok(());
        }
        let known = nearest(&self.loss, SUPPORTED);
        let problem = format!("`{}` does not compare rows with others by label{known}", self.loss);
        Err(Error::spec("loss_options.loss", problem))
    }

    fn parameters(&self, sizes: &Sizes) -> Result<Vec<LossParameter>> {
        if let Some(given) = self.embedding_size.filter(|given| *given != sizes.dimension) {
            let problem = format!("the model's embeddings have {}, got {given}; leave it out", sizes.dimension);
            return Err(Error::spec("loss_options.embedding_size", problem));
        }
        let mut all = vec![
            LossParameter::remembered("memory/rows", &[self.memory_size, sizes.dimension], 0.0),
            LossParameter::remembered("memory/labels", &[self.memory_size], 0.0),
            LossParameter::remembered("memory/place", &[2], 0.0),
        ];
        all.extend(self.inner.parameters(sizes, "")?);
        Ok(all)
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let (size, count, width) = (self.memory_size, batch.layout.rows(), batch.embeddings.value().columns());
        if count > size {
            let problem = format!("expected at least the {count} rows of a batch, got {size}");
            return Err(Error::spec("loss_options.memory_size", problem));
        }
        let mut rows = batch.parameter(ROWS)?.value().clone();
        let mut labels = batch.parameter(LABELS)?.value().clone();
        let mut place = batch.parameter(PLACE)?.value().clone();
        let (next, filled) = (place.data()[0] as usize, place.data()[1] as usize);
        let own: Vec<u32> = (0..count).map(|row| ((next + row) % size) as u32).collect();
        for (row, &at) in own.iter().enumerate() {
            let at = at as usize;
            let from = &batch.embeddings.value().data()[row * width..(row + 1) * width];
            rows.data_mut()[at * width..(at + 1) * width].copy_from_slice(from);
            // Exact up to 2^24 labels.
            labels.data_mut()[at] = batch.layout.labels[row] as f32;
        }
        let filled = (filled + count).min(size);
        place.data_mut().copy_from_slice(&[((next + count) % size) as f32, filled as f32]);

        let remembered = Tensor::from_vec(rows.data()[..filled * width].to_vec(), &[filled, width])?;
        let reference = Reference {
            embeddings: tape.constant(remembered),
            labels: labels.data()[..filled].iter().map(|label| *label as u32).collect(),
            own,
        };
        for (index, tensor) in [(ROWS, rows), (LABELS, labels), (PLACE, place)] {
            batch.remember(index, tensor);
        }
        let against = Batch { reference: Some(&reference), memories: Default::default(), ..*batch };
        let loss = self.inner.compute(tape, &against, OWN)?;
        against.into_memories().into_iter().for_each(|(index, tensor)| batch.remember(index, tensor));
        Ok(loss)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let none = self.memory_size == 0;
        none.then(|| ("memory_size", "expected 1 or more, got 0".to_owned())).into_iter().collect()
    }
}
