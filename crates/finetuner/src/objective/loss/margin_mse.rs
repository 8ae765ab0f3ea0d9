use engine::function::Unary;
use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::{Distance, Needs, Reducer};

/// The student's margins between positive and negatives against a teacher's.
///
/// ```text
/// loss = mean over queries and negatives of ((s(q, p) - s(q, n)) - (t(q, p) - t(q, n)))^2
/// ```
///
/// The teacher, often a cross-encoder, is in the data: its margins or its scores.
///
/// Use it for triplets whose margins a cross-encoder has scored, such as synthesised data.
///
/// Reference: `MarginMSELoss` of sentence-transformers; Hofstätter et al. 2020 (2010.02666).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MarginMSELoss {
    /// Of vectors as they are; a teacher's logits are unbounded, so a cosine seldom fits. Default `dot`.
    pub similarity_fct: Distance,
}

impl Default for MarginMSELoss {
    fn default() -> Self {
        MarginMSELoss { similarity_fct: Distance::Dot }
    }
}

impl Loss for MarginMSELoss {
    fn needs(&self) -> Needs {
        Needs::TeacherScores
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let teacher = batch.teacher_scores()?;
        let margins: Vec<f32> = (1..teacher.columns())
            .flat_map(|j| (0..teacher.rows()).map(move |i| (i, j)))
            .map(|(i, j)| {
                let row = &teacher.data()[i * teacher.columns()..];
                (f64::from(row[0]) - f64::from(row[j])) as f32
            })
            .collect();
        let (anchors, positives, negatives) = batch.triplets(tape)?;
        let positive = self.similarity_fct.paired(tape, &anchors, &positives)?;
        let negative = self.similarity_fct.paired(tape, &anchors, &negatives)?;
        let student = tape.subtract(&positive, &negative)?;
        let teacher = tape.constant(Tensor::from_vec(margins, student.value().shape())?);
        let difference = tape.subtract(&student, &teacher)?;
        let losses = tape.unary(Unary::Square, &difference)?;
        Reducer::Mean.reduce(tape, &losses, None)
    }
}
