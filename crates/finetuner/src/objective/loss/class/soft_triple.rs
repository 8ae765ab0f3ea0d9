use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::softmax::{CrossEntropy, Logits};
use super::{class_count, classes, reduce, rows};
use crate::error::Result;
use crate::objective::loss::{Batch, Loss};
use crate::objective::{Distance, Initial, LossParameter, Needs, Reducer, Sizes, registry};

/// A softmax over classes of several centres each, whose similarity is a soft maximum over the centres.
///
/// ```text
/// h_c = sum over centres j of softmax_j(s_cj / gamma) s_cj
/// loss = -ln(e^(la (h_own - margin)) / (e^(la (h_own - margin)) + sum over c != own of e^(la h_c)))
/// ```
///
/// The centres `[num_classes centers_per_class, dimension]`, those of a class one after the other, start uniformly
/// within `1 / sqrt(num_classes centers_per_class)` and are learned by `loss_optimizer`; a miner's tuples become weights
/// of the rows. `weight_regularizer = SparseCentersRegularizer` draws the centres of a class together.
///
/// Use it for classes that fall into several clusters.
///
/// Reference: `SoftTripleLoss` of pytorch-metric-learning; Qian et al. 2019 (1909.05235).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SoftTripleLoss {
    /// Classes of the data or more. Default: those of the data.
    pub num_classes: Option<usize>,
    /// Checked against the model. Default: the model's.
    pub embedding_size: Option<usize>,
    /// Default 10.
    pub centers_per_class: usize,
    /// Factor on the similarities. Default 20.
    pub la: f64,
    /// Temperature of the soft maximum. Default 0.1.
    pub gamma: f64,
    /// Default 0.01.
    pub margin: f64,
    /// A similarity. Default `cosine`.
    pub distance: Distance,
    /// Over the rows. Default `mean`.
    pub reducer: Reducer,
}

impl Default for SoftTripleLoss {
    fn default() -> Self {
        SoftTripleLoss {
            num_classes: None,
            embedding_size: None,
            centers_per_class: 10,
            la: 20.0,
            gamma: 0.1,
            margin: 0.01,
            distance: Distance::Cosine,
            reducer: Reducer::Mean,
        }
    }
}

impl Loss for SoftTripleLoss {
    fn needs(&self) -> Needs {
        Needs::Classes
    }

    fn parameters(&self, sizes: &Sizes) -> Result<Vec<LossParameter>> {
        let count = class_count(self.num_classes, self.embedding_size, sizes)? * self.centers_per_class;
        // Kaiming's uniform initialisation with a = sqrt 5 of a layer `[dimension, centres]`.
        let initial = Initial::Uniform { bound: 1.0 / (count.max(1) as f64).sqrt() };
        Ok(vec![LossParameter::vectors("centers", count, sizes, initial)])
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let centres = batch.parameter(0)?;
        let classes = classes(batch, centres.value().rows() / self.centers_per_class)?;
        let logits =
            SoftMaximum { centres: self.centers_per_class, gamma: self.gamma, la: self.la, margin: self.margin };
        let losses = rows(tape, self.distance, batch.embeddings, centres, CrossEntropy { classes, logits })?;
        reduce(tape, batch, &losses, &self.reducer)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let none = (self.centers_per_class == 0).then(|| ("centers_per_class", "expected 1 or more, got 0".to_owned()));
        let direction = (!self.distance.inverted())
            .then(|| ("distance", "expected a similarity, as in `cosine` or `dot`".to_owned()));
        let positive = [registry::positive("la", self.la), registry::positive("gamma", self.gamma)];
        positive.into_iter().chain([none, direction]).flatten().collect()
    }
}

struct SoftMaximum {
    centres: usize,
    gamma: f64,
    la: f64,
    margin: f64,
}

impl SoftMaximum {
    /// The shares of a class's centres and their mean similarity.
    fn of(&self, s: &[f64]) -> (Vec<f64>, f64) {
        let largest = s.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut shares: Vec<f64> = s.iter().map(|s| ((s - largest) / self.gamma).exp()).collect();
        let sum: f64 = shares.iter().sum();
        shares.iter_mut().for_each(|share| *share /= sum);
        let mean = shares.iter().zip(s).map(|(share, s)| share * s).sum();
        (shares, mean)
    }
}

impl Logits for SoftMaximum {
    fn logits(&self, class: usize, x: &[f64]) -> Vec<f64> {
        let mut logits: Vec<f64> = x.chunks(self.centres).map(|s| self.la * self.of(s).1).collect();
        logits[class] -= self.la * self.margin;
        logits
    }

    fn backward(&self, _: usize, x: &[f64], dz: &[f64], dx: &mut [f64]) {
        for ((s, dz), dx) in x.chunks(self.centres).zip(dz).zip(dx.chunks_mut(self.centres)) {
            let (shares, mean) = self.of(s);
            for ((s, share), dx) in s.iter().zip(shares).zip(dx) {
                *dx += self.la * dz * share * (1.0 + (s - mean) / self.gamma);
            }
        }
    }
}
