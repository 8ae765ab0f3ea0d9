use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::{Distance, Needs, Reducer, registry};

/// The student's distribution over the documents of a query against a teacher's.
///
/// ```text
/// loss = student_temperature^2 mean over queries of KL(softmax(t / teacher_temperature) || softmax(s / student_temperature))
/// ```
///
/// `t` are the teacher's scores of the positive and the negatives (margins do as well: a softmax does not see what is
/// added to all), `s` the student's similarities. Match `teacher_temperature` to the spread of the teacher's scores.
///
/// Use it where a teacher, such as a cross-encoder, has scored several candidates of each query.
///
/// Reference: `DistillKLDivLoss` of sentence-transformers; Lin, Yang, Lin 2020 (2010.11386).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DistillKLDivLoss {
    /// Of vectors as they are. Default `dot`.
    pub similarity_fct: Distance,
    /// Of both, unless one has its own. Default 1.
    pub temperature: f64,
    /// Default `temperature`.
    pub student_temperature: Option<f64>,
    /// Default `temperature`.
    pub teacher_temperature: Option<f64>,
}

impl Default for DistillKLDivLoss {
    fn default() -> Self {
        DistillKLDivLoss {
            similarity_fct: Distance::Dot,
            temperature: 1.0,
            student_temperature: None,
            teacher_temperature: None,
        }
    }
}

impl Loss for DistillKLDivLoss {
    fn needs(&self) -> Needs {
        Needs::TeacherScores
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let student_temperature = self.student_temperature.unwrap_or(self.temperature);
        let teacher = batch.teacher_scores()?;
        let (rows, candidates) = (teacher.rows(), teacher.columns());
        let queries = batch.column(tape, 0)?;
        let mut scores = Vec::new();
        for column in 1..=candidates {
            let documents = batch.column(tape, column)?;
            let similarities = self.similarity_fct.paired(tape, &queries, &documents)?;
            scores.push(tape.reshape(&similarities, &[rows, 1])?);
        }
        let scores = tape.side_by_side(&scores.iter().collect::<Vec<_>>())?;
        let (targets, weights) = distributions(&teacher, self.teacher_temperature.unwrap_or(self.temperature))?;
        let losses = tape.cross_entropy(&scores, Some(&weights), &targets, 1.0 / student_temperature)?;
        let mean = Reducer::Mean.reduce(tape, &losses, None)?;
        Ok(tape.affine(&mean, student_temperature * student_temperature, 0.0)?)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let temperatures = [
            ("temperature", Some(self.temperature)),
            ("student_temperature", self.student_temperature),
            ("teacher_temperature", self.teacher_temperature),
        ];
        temperatures.into_iter().filter_map(|(key, value)| registry::positive(key, value?)).collect()
    }
}

/// The softmax `p` of each row, and in every element of the row e^(sum p ln p): as weights of a cross-entropy they take
/// the teacher's own entropy off before anything is rounded.
pub(super) fn distributions(scores: &Tensor, temperature: f64) -> Result<(Tensor, Tensor)> {
    let (mut targets, mut weights) = (Vec::new(), Vec::new());
    for row in scores.data().chunks_exact(scores.columns().max(1)) {
        let scaled: Vec<f64> = row.iter().map(|score| f64::from(*score) / temperature).collect();
        let largest = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scaled.iter().map(|x| (x - largest).exp()).sum();
        let logs: Vec<f64> = scaled.iter().map(|x| x - largest - sum.ln()).collect();
        // p ln p is 0 where p is.
        let negative_entropy: f64 = logs.iter().map(|log| log.exp() * log.max(-1e3)).sum();
        targets.extend(logs.iter().map(|log| log.exp() as f32));
        weights.extend(logs.iter().map(|_| negative_entropy.exp() as f32));
    }
    Ok((Tensor::from_vec(targets, scores.shape())?, Tensor::from_vec(weights, scores.shape())?))
}
