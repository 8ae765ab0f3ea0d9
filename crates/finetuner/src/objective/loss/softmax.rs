use engine::function::Unary;
use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::{Error, Result};
use crate::objective::{Initial, LossParameter, Needs, Reducer, Sizes};

/// The class of a pair, told by a linear classifier from what the two embeddings are side by side and apart.
///
/// ```text
/// z = W [u; v; abs(u - v)] + b
/// loss = mean over pairs of ln(sum over c of e^z_c) - z_own
/// ```
///
/// `W [num_labels, 3 dimension]` and `b [num_labels]` start as torch's linear layers, are learned by `loss_optimizer`, and
/// are forgotten afterwards: the embeddings are what is kept.
///
/// Use it for pairs with a class, such as entailment, neutral and contradiction; where matches are known,
/// `MultipleNegativesRankingLoss` gives better embeddings.
///
/// Reference: `SoftmaxLoss` of sentence-transformers; Reimers, Gurevych 2019 (1908.10084).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SoftmaxLoss {
    /// Classes of the data or more. Default: those of the data.
    pub num_labels: Option<usize>,
    /// Checked against the model. Default: the model's.
    pub embedding_dimension: Option<usize>,
    /// The classifier sees u and v. Default true.
    pub concatenation_sent_rep: bool,
    /// It sees abs(u - v). Default true.
    pub concatenation_sent_difference: bool,
    /// It sees u v, element by element. Default false.
    pub concatenation_sent_multiplication: bool,
}

impl Default for SoftmaxLoss {
    fn default() -> Self {
        SoftmaxLoss {
            num_labels: None,
            embedding_dimension: None,
            concatenation_sent_rep: true,
            concatenation_sent_difference: true,
            concatenation_sent_multiplication: false,
        }
    }
}

impl SoftmaxLoss {
    /// How many vectors the classifier sees of a pair.
    fn vectors(&self) -> usize {
        2 * usize::from(self.concatenation_sent_rep)
            + usize::from(self.concatenation_sent_difference)
            + usize::from(self.concatenation_sent_multiplication)
    }
}

impl Loss for SoftmaxLoss {
    fn needs(&self) -> Needs {
        Needs::PairClasses
    }

    fn parameters(&self, sizes: &Sizes) -> Result<Vec<LossParameter>> {
        if let Some(given) = self.embedding_dimension.filter(|given| *given != sizes.dimension) {
            let problem = format!("the model's embeddings have {}, got {given}; leave it out", sizes.dimension);
            return Err(Error::spec("loss_options.embedding_dimension", problem));
        }
        let classes = self.num_labels.unwrap_or(sizes.classes);
        if classes < sizes.classes {
            let problem = format!("the training data holds {} classes, got {classes}; leave it out", sizes.classes);
            return Err(Error::spec("loss_options.num_labels", problem));
        }
        let inputs = self.vectors() * sizes.dimension;
        let initial = Initial::Uniform { bound: 1.0 / (inputs.max(1) as f64).sqrt() };
        let weight = LossParameter::learned("classifier.weight", &[classes, inputs], initial);
        Ok(vec![weight, LossParameter::learned("classifier.bias", &[classes], initial)])
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let (first, second, classes) = batch.scored_pairs(tape)?;
        let mut seen = Vec::new();
        if self.concatenation_sent_rep {
            seen.extend([first.clone(), second.clone()]);
        }
        if self.concatenation_sent_difference {
            let apart = tape.subtract(&first, &second)?;
            seen.push(tape.unary(Unary::Abs, &apart)?);
        }
        if self.concatenation_sent_multiplication {
            seen.push(tape.multiply(&first, &second)?);
        }
        let seen = tape.side_by_side(&seen.iter().collect::<Vec<_>>())?;
        let logits = tape.linear(&seen, batch.parameter(0)?, Some(batch.parameter(1)?))?;
        let mut own = Tensor::zeros(logits.value().shape());
        let count = own.columns();
        for (row, class) in own.data_mut().chunks_mut(count.max(1)).zip(classes) {
            match row.get_mut(*class as usize) {
                Some(own) if class.fract() == 0.0 && *class >= 0.0 => *own = 1.0,
                _ => {
                    let expected = format!("classes below {count}");
                    return Err(engine::Error::shape("objective", expected, class.to_string()).into());
                }
            }
        }
        let losses = tape.cross_entropy(&logits, None, &own, 1.0)?;
        Reducer::Mean.reduce(tape, &losses, None)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let problem = "leaves nothing for the classifier to see; set one of the three to true".to_owned();
        (self.vectors() == 0).then_some(("concatenation_sent_rep", problem)).into_iter().collect()
    }
}
