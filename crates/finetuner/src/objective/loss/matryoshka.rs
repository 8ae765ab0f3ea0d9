use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Batch, Inner, Loss, Miner, NamedLoss};
use crate::error::{Error, Result};
use crate::objective::miner::key_of;
use crate::objective::{BatchLayout, LossParameter, Needs, Role, Sampler, Sizes};
use crate::spec::Options;

/// Any loss at several widths of the embedding, so that its first elements alone are an embedding, too.
///
/// ```text
/// loss = sum over dimensions d of weight_d inner(x[1..d] / norm(x[1..d]))
/// ```
///
/// Vectors that the inner loss learns are cut as the embeddings are. On the command line:
/// `loss=MultipleNegativesRankingLoss,matryoshka_dims=256+128+64`. Without the full width among them, that of the model
/// is not trained.
///
/// Use it where embeddings will be cut short to save room: their first numbers learn to stand alone.
///
/// Reference: `MatryoshkaLoss` of sentence-transformers; Kusupati et al. 2022 (2205.13147).
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MatryoshkaLoss {
    /// The inner loss by name. No default.
    pub loss: String,
    /// Its options. Default none.
    pub loss_options: Options,
    /// Widths, at most the model's: a list, or numbers joined by `+`. No default.
    pub matryoshka_dims: Dimensions,
    /// One number per width. Default: 1 each.
    pub matryoshka_weights: Option<Vec<f64>>,
    /// How many of the widths, drawn anew, a batch sees; -1 for all. Default -1.
    pub n_dims_per_step: i64,
    #[serde(skip)]
    inner: Inner,
}

/// Widths of an embedding.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value")]
pub struct Dimensions(pub Vec<usize>);

impl TryFrom<Value> for Dimensions {
    type Error = String;

    fn try_from(value: Value) -> std::result::Result<Self, String> {
        let whole = |number: Option<u64>| number.map(|number| number as usize).filter(|number| *number > 0);
        let read: Option<Vec<usize>> = match &value {
            Value::Number(one) => whole(one.as_u64()).map(|one| vec![one]),
            Value::Array(numbers) => numbers.iter().map(|number| whole(number.as_u64())).collect(),
            Value::String(text) => text.split('+').map(|number| whole(number.trim().parse().ok())).collect(),
            _ => None,
        };
        read.map(Dimensions).ok_or_else(|| format!("expected whole numbers above 0, as in `256+128+64`, got {value}"))
    }
}

impl Default for MatryoshkaLoss {
    fn default() -> Self {
        MatryoshkaLoss {
            loss: String::new(),
            loss_options: Options::new(),
            matryoshka_dims: Dimensions::default(),
            matryoshka_weights: None,
            n_dims_per_step: -1,
            inner: Inner::default(),
        }
    }
}

impl Loss for MatryoshkaLoss {
    fn needs(&self) -> Needs {
        self.inner.needs()
    }

    fn matrices(&self, miner: Option<&dyn Miner>) -> usize {
        self.inner.matrices(miner)
    }

    fn mines(&self) -> bool {
        self.inner.mines()
    }

    fn needs_guide(&self) -> bool {
        self.inner.needs_guide()
    }

    fn sampler(&self) -> Sampler {
        self.inner.sampler()
    }

    fn complete(&mut self) -> Result<()> {
        if self.loss == "MatryoshkaLoss" {
            let problem = "is this loss again; list all widths in one `matryoshka_dims`";
            return Err(Error::spec("loss_options.loss", problem));
        }
        if self.loss == "SoftmaxLoss" {
            let problem = "has a classifier of embeddings of one width";
            return Err(Error::spec("loss_options.loss", problem));
        }
        let named =
            NamedLoss { loss: self.loss.clone(), loss_options: self.loss_options.clone(), ..Default::default() };
        self.inner = Inner::new(&named, "loss_options.")?;
        Ok(())
    }

    fn parameters(&self, sizes: &Sizes) -> Result<Vec<LossParameter>> {
        if let Some(wide) = self.matryoshka_dims.0.iter().find(|width| **width > sizes.dimension) {
            let problem = format!("expected widths of at most the model's {}, got {wide}", sizes.dimension);
            return Err(Error::spec("loss_options.matryoshka_dims", problem));
        }
        let parameters = self.inner.parameters(sizes, "")?;
        if parameters.iter().any(|parameter| parameter.role == Role::Remembered) {
            let problem = format!("`{}` remembers batches, and would mix those of all widths", self.loss);
            return Err(Error::spec("loss_options.loss", problem));
        }
        Ok(parameters)
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let spans = |parameter: &LossParameter| matches!(parameter.role, Role::Learned { spans_embedding: true, .. });
        let spans: Vec<bool> = self.inner.parameters(batch.sizes, "")?.iter().map(spans).collect();
        let mut total: Option<Var> = None;
        for (width, weight) in self.widths(batch.embeddings.value()) {
            let cut = tape.column_range(batch.embeddings, 0..width)?;
            let embeddings = tape.normalize(&cut)?;
            let mut parameters = Vec::with_capacity(batch.parameters.len());
            for (place, parameter) in batch.parameters.iter().enumerate() {
                let cut = spans.get(place) == Some(&true);
                parameters.push(if cut { tape.column_range(parameter, 0..width)? } else { parameter.clone() });
            }
            let layout = self.cut_guide(batch.layout, batch.embeddings.value().columns(), width)?;
            let narrow = Batch {
                embeddings: &embeddings,
                layout: layout.as_ref().unwrap_or(batch.layout),
                parameters: &parameters,
                memories: Default::default(),
                ..*batch
            };
            let loss = self.inner.compute(tape, &narrow, 0)?;
            let loss = tape.affine(&loss, weight, 0.0)?;
            total = Some(match total {
                Some(total) => tape.add(&total, &loss)?,
                None => loss,
            });
        }
        total.ok_or_else(|| Error::spec("loss_options.matryoshka_dims", "expected one width or more"))
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let (count, mut problems) = (self.matryoshka_dims.0.len(), Vec::new());
        if count == 0 {
            problems.push(("matryoshka_dims", "expected one width or more, as in `256+128+64`".to_owned()));
        }
        if let Some(weights) = self.matryoshka_weights.as_ref().filter(|weights| weights.len() != count) {
            problems.push(("matryoshka_weights", format!("expected {count}, one per width, got {}", weights.len())));
        }
        if self.n_dims_per_step == 0 || self.n_dims_per_step < -1 {
            let problem = format!("expected -1 for all, or 1 or more, got {}", self.n_dims_per_step);
            problems.push(("n_dims_per_step", problem));
        }
        problems
    }
}

impl MatryoshkaLoss {
    /// A guide whose vectors are themselves what is to be learnt is cut, too, where it has the model's width.
    fn cut_guide(&self, layout: &BatchLayout, full: usize, width: usize) -> Result<Option<BatchLayout>> {
        match &layout.guide {
            Some(guide) if ["EmbedDistillLoss", "MSELoss"].contains(&self.loss.as_str()) && guide.columns() == full => {
                let data = guide.data().chunks(full).flat_map(|row| &row[..width]).copied().collect();
                let guide = Some(Tensor::from_vec(data, &[guide.rows(), width])?);
                Ok(Some(BatchLayout { guide, ..layout.clone() }))
            }
            _ => Ok(None),
        }
    }

    /// The widths that a batch sees, the largest first, with their weights. Which are drawn depends on the embeddings.
    fn widths(&self, embeddings: &Tensor) -> Vec<(usize, f64)> {
        let weight = |place: usize| self.matryoshka_weights.as_ref().map_or(1.0, |weights| weights[place]);
        let mut widths: Vec<_> =
            self.matryoshka_dims.0.iter().enumerate().map(|(place, width)| (*width, weight(place))).collect();
        if let Ok(count) = usize::try_from(self.n_dims_per_step) {
            let mut key = key_of(embeddings);
            while widths.len() > count {
                key = key.part(0);
                widths.remove((key.uniform(0) * widths.len() as f64) as usize);
            }
        }
        widths.sort_by_key(|(width, _)| std::cmp::Reverse(*width));
        widths
    }
}
