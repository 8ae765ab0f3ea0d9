use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::{Error, Result};
use crate::objective::{Distance, Initial, LossParameter, Needs, Reducer, Sizes};

/// Embeddings like a teacher's.
///
/// ```text
/// loss = mean over columns of mean over rows of 1 - cos(x, t) | mean over dimensions of (x - t)^2 | norm(x - t)
/// ```
///
/// for `distance_metric` `cosine`, `mse` and `l2`. The teacher is the run's `guide`, with its own tokenizer; any texts will
/// do, and nothing needs to be known of them. Student and teacher must have one width, or `projection_dim` that of the
/// teacher: x is then W x + b, which is learned with the model and forgotten afterwards.
///
/// Use it to give a smaller model the embeddings of a larger one.
///
/// Reference: `EmbedDistillLoss` of sentence-transformers; Kim et al. 2023 (2301.12005).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmbedDistillLoss {
    /// Default `cosine`.
    pub distance_metric: DistillMetric,
    /// Compare every column with the teacher's embedding of the first one, as for texts and their translations. Default
    /// false.
    pub broadcast: bool,
    /// The teacher's width, where the student's is another. Default none.
    pub projection_dim: Option<usize>,
}

/// How student and teacher are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DistillMetric {
    /// `1 - cos(x, t)`
    Cosine,
    /// The mean over dimensions of `(x - t)^2`.
    Mse,
    /// `norm(x - t)`
    L2,
}

impl Default for EmbedDistillLoss {
    fn default() -> Self {
        EmbedDistillLoss { distance_metric: DistillMetric::Cosine, broadcast: false, projection_dim: None }
    }
}

impl Loss for EmbedDistillLoss {
    fn needs(&self) -> Needs {
        Needs::Guide
    }

    fn needs_guide(&self) -> bool {
        true
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        distill(tape, batch, self.distance_metric, self.broadcast)
    }

    fn parameters(&self, sizes: &Sizes) -> Result<Vec<LossParameter>> {
        projection(self.projection_dim, sizes)
    }
}

/// Embeddings like a teacher's, in every number.
///
/// ```text
/// loss = mean over columns of mean over rows and dimensions of (x - t)^2
/// ```
///
/// `EmbedDistillLoss` with `distance_metric` `mse`. Texts with their translations and `broadcast` make a model
/// multilingual: both are to be where the teacher has the text.
///
/// Use it to give a model the embeddings of a teacher, values and all, as in teaching it another language.
///
/// Reference: `MSELoss` of sentence-transformers; Reimers, Gurevych 2020 (2004.09813).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MSELoss {
    /// Compare every column with the teacher's embedding of the first one. Default false.
    pub broadcast: bool,
    /// The teacher's width, where the student's is another: see [`EmbedDistillLoss`]. Default none.
    pub projection_dim: Option<usize>,
}

impl Loss for MSELoss {
    fn needs(&self) -> Needs {
        Needs::Guide
    }

    fn needs_guide(&self) -> bool {
        true
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        distill(tape, batch, DistillMetric::Mse, self.broadcast)
    }

    fn parameters(&self, sizes: &Sizes) -> Result<Vec<LossParameter>> {
        projection(self.projection_dim, sizes)
    }
}

/// A linear layer to the teacher's width, with torch's initial values.
fn projection(width: Option<usize>, sizes: &Sizes) -> Result<Vec<LossParameter>> {
    let Some(width) = width else { return Ok(Vec::new()) };
    if width == 0 {
        return Err(Error::spec("loss_options.projection_dim", "expected 1 or more, got 0"));
    }
    let initial = Initial::Uniform { bound: 1.0 / (sizes.dimension.max(1) as f64).sqrt() };
    let weight = LossParameter::vectors("projection.weight", width, sizes, initial);
    Ok(vec![weight, LossParameter::learned("projection.bias", &[width], initial)])
}

fn distill(tape: &mut Tape<'_>, batch: &Batch<'_>, metric: DistillMetric, broadcast: bool) -> Result<Var> {
    let columns = &batch.layout.columns;
    let mut teacher = batch.guide()?.clone();
    if broadcast {
        let of_column = |rows: &usize| teacher.data()[..rows * teacher.columns()].iter().copied();
        teacher = Tensor::from_vec(columns.iter().flat_map(of_column).collect(), teacher.shape())?;
    }
    let student = match batch.parameters {
        [] => batch.embeddings.clone(),
        _ => tape.linear(batch.embeddings, batch.parameter(0)?, Some(batch.parameter(1)?))?,
    };
    let (student_width, teacher_width) = (student.value().columns(), teacher.columns());
    if student_width != teacher_width {
        let problem = format!(
            "gives embeddings of {teacher_width} numbers, but they are compared with {student_width}; take the loss option \
             `projection_dim={teacher_width}`"
        );
        return Err(Error::spec("guide", problem));
    }
    let teacher = tape.constant(teacher);
    let (distance, scale, shift) = match metric {
        DistillMetric::Cosine => (Distance::Cosine, -1.0, 1.0),
        DistillMetric::Mse => {
            (Distance::Euclidean { normalize: false, squared: true }, -1.0 / teacher_width as f64, 0.0)
        }
        DistillMetric::L2 => (Distance::Euclidean { normalize: false, squared: false }, -1.0, 0.0),
    };
    // Larger is closer, so the sign changes.
    let values = distance.paired(tape, &student, &teacher)?;
    let losses = tape.affine(&values, scale, shift)?;
    let share = |rows: &usize| std::iter::repeat_n(1.0 / (columns.len() * rows) as f32, *rows);
    let weights = Tensor::from_vec(columns.iter().flat_map(share).collect(), losses.value().shape())?;
    Reducer::Sum.reduce(tape, &losses, Some(&weights))
}
