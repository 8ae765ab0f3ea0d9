use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::clip::two_columns;
use super::{Batch, Inner, Loss, Miner, NamedLoss, Reference};
use crate::error::{Error, Result, nearest};
use crate::objective::{BatchLayout, LossParameter, Needs, Sampler, Sizes};
use crate::spec::Options;

/// A loss of labels over pairs: the two sides of a pair are two views of one thing, and have one label.
///
/// Symmetric, it is the inner loss of both sides together; else the first sides are compared with the second ones alone.
/// Pairs that share a text share their label, so a known match is no negative.
///
/// Use it to give pairs of views to a loss that wants labels.
///
/// Reference: `SelfSupervisedLoss` of pytorch-metric-learning.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SelfSupervisedLoss {
    /// The inner loss by name: one of pairs or triplets of labels. No default.
    pub loss: String,
    /// Its options. Default none.
    pub loss_options: Options,
    /// Default true.
    pub symmetric: bool,
    #[serde(skip)]
    inner: Inner,
}

/// Those of pytorch-metric-learning.
const SUPPORTED: [&str; 13] = [
    "AngularLoss",
    "CircleLoss",
    "ContrastiveLoss",
    "GeneralizedLiftedStructureLoss",
    "IntraPairVarianceLoss",
    "LiftedStructureLoss",
    "MultiSimilarityLoss",
    "NTXentLoss",
    "SignalToNoiseRatioContrastiveLoss",
    "SupConLoss",
    "TripletMarginLoss",
    "NCALoss",
    "TupletMarginLoss",
];

impl Default for SelfSupervisedLoss {
    fn default() -> Self {
        SelfSupervisedLoss {
            loss: String::new(),
            loss_options: Options::new(),
            symmetric: true,
            inner: Inner::default(),
        }
    }
}

impl Loss for SelfSupervisedLoss {
    fn needs(&self) -> Needs {
        Needs::Pairs
    }

    fn matrices(&self, miner: Option<&dyn Miner>) -> usize {
        self.inner.matrices(miner)
    }

    fn mines(&self) -> bool {
        self.inner.mines()
    }

    fn sampler(&self) -> Sampler {
        Sampler::Random
    }

    fn complete(&mut self) -> Result<()> {
        let named =
            NamedLoss { loss: self.loss.clone(), loss_options: self.loss_options.clone(), ..Default::default() };
        self.inner = Inner::new(&named, "loss_options.")?;
        if SUPPORTED.contains(&self.loss.as_str()) {
            return Ok(());
        }
        let known = nearest(&self.loss, SUPPORTED);
        let problem = format!("`{}` does not compare rows with others by label{known}", self.loss);
        Err(Error::spec("loss_options.loss", problem))
    }

    fn parameters(&self, sizes: &Sizes) -> Result<Vec<LossParameter>> {
        self.inner.parameters(sizes, "")
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let (first, second) = two_columns(tape, batch)?;
        let (count, pairs) = (first.value().rows(), first.value().rows() + second.value().rows());
        let labels = &batch.layout.labels;
        if self.symmetric {
            let embeddings = tape.row_range(batch.embeddings, 0..pairs)?;
            let layout = BatchLayout::labelled(&labels[..pairs]);
            let views = Batch { embeddings: &embeddings, layout: &layout, memories: Default::default(), ..*batch };
            return self.inner.compute(tape, &views, 0);
        }
        let reference = Reference { embeddings: second, labels: labels[count..pairs].to_vec(), own: Vec::new() };
        let layout = BatchLayout::labelled(&labels[..count]);
        let views = Batch {
            embeddings: &first,
            layout: &layout,
            reference: Some(&reference),
            memories: Default::default(),
            ..*batch
        };
        self.inner.compute(tape, &views, 0)
    }
}
