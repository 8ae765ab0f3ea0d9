use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::triplet_margin::{TripletsPerAnchor, draw};
use super::{Batch, Loss, MINED, Miner};
use crate::error::{Error, Result};
use crate::objective::anchor::{Candidate, Pairs};
use crate::objective::reducer::{Of, divided};
use crate::objective::{Distance, Initial, LossParameter, Mined, Needs, Reducer, Sizes};

/// Positives nearer than a boundary and negatives farther, by a margin; the boundary may be learned.
///
/// ```text
/// loss = sum over triplets of (max(0, d_ap - beta + margin) + max(0, beta - d_an + margin)) / how many of both are > 0
///      + nu beta, where beta is learned; with one for each class reduced over triplets as the rest is
/// ```
///
/// With a similarity the differences change sign, and beta is a similarity. Memory grows with the batch, not with its
/// triplets.
///
/// Use it for classes, with `DistanceWeightedMiner`, as its authors did.
///
/// Reference: `MarginLoss` of pytorch-metric-learning; Wu et al. 2017 (1706.07567).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MarginLoss {
    /// Default 0.2.
    pub margin: f64,
    /// Weight of beta itself, where it is learned. Default 0.
    pub nu: f64,
    /// The boundary, or where it begins. Default 1.2.
    pub beta: f64,
    /// `all`, or how many random triplets to draw per anchor where no miner chooses them. Default `all`.
    pub triplets_per_anchor: TripletsPerAnchor,
    /// Learn the boundary. Default false.
    pub learn_beta: bool,
    /// A boundary for each of so many classes; the number of classes of the training data. Default one for all.
    pub num_classes: Option<usize>,
    /// Default `l2`, between normalised vectors.
    pub distance: Distance,
    /// `divisor`, `mean`, `sum` or `class_weighted`, over triplets. Default `divisor`.
    pub reducer: Reducer,
}

impl MarginLoss {
    /// The pairs, and whether they are counted by triplets already.
    fn pairs(&self, tape: &Tape<'_>, batch: &Batch<'_>) -> (Pairs, bool) {
        let labels = batch.masks();
        let mined = match (batch.mine(tape, &labels), self.triplets_per_anchor) {
            (Mined::Everything, TripletsPerAnchor::Random(count)) => {
                Mined::Triplets(draw(batch.embeddings.value(), &labels, count))
            }
            (mined, _) => mined,
        };
        let joined = !matches!(mined, Mined::Everything | Mined::Pairs(_));
        (Pairs::Mined(mined.pairs(tape.device(), &labels)), joined)
    }
}

impl Default for MarginLoss {
    fn default() -> Self {
        MarginLoss {
            margin: 0.2,
            nu: 0.0,
            beta: 1.2,
            triplets_per_anchor: TripletsPerAnchor::All,
            learn_beta: false,
            num_classes: None,
            distance: Distance::L2,
            reducer: Reducer::Divisor,
        }
    }
}

impl Loss for MarginLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn parameters(&self, sizes: &Sizes) -> Result<Vec<LossParameter>> {
        if !self.learn_beta {
            return Ok(Vec::new());
        }
        if let Some(classes) = self.num_classes.filter(|&classes| classes != sizes.classes) {
            let problem = format!("expected {}, the classes of the training data, got {classes}", sizes.classes);
            return Err(Error::spec("loss_options.num_classes", problem));
        }
        let shape = [self.num_classes.unwrap_or(1)];
        Ok(vec![LossParameter::learned("beta", &shape, Initial::Constant(self.beta))])
    }

    fn matrices(&self, miner: Option<&dyn Miner>) -> usize {
        3 + miner.map_or(0, |_| MINED)
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let labels = &batch.layout.labels;
        let learned = if self.learn_beta { Some(batch.parameter(0)?) } else { None };
        let place = |row: usize| if self.num_classes.is_some() { labels[row] as usize } else { 0 };
        let boundary = |row: usize| learned.map_or(self.beta, |beta| f64::from(beta.value().data()[place(row)]));
        let boundaries: Vec<f64> = (0..labels.len()).map(|row| self.distance.threshold(boundary(row))).collect();
        let (pairs, joined) = self.pairs(tape, batch);
        let (margin, distance) = (self.margin, self.distance);
        let beta = boundaries.clone();
        let times = move |anchor: &[Candidate]| if joined { 1.0 } else { anchor.iter().map(|c| c.weight).sum() };
        let (positive, positives) =
            batch.anchor_rows(tape, distance, (0.0, f64::INFINITY), pairs.clone(), move |anchor, terms| {
                let times = times(&anchor.negatives);
                for p in anchor.positives.iter().filter(|_| times > 0.0) {
                    if terms.add(times * p.weight, p.distance - beta[anchor.row] + margin) {
                        terms.slope(p, times * p.weight);
                    }
                }
            })?;
        let (negative, negatives) =
            batch.anchor_rows(tape, distance, (0.0, f64::INFINITY), pairs.clone(), move |anchor, terms| {
                let times = times(&anchor.positives);
                for n in anchor.negatives.iter().filter(|_| times > 0.0) {
                    if terms.add(times * n.weight, boundaries[anchor.row] - n.distance + margin) {
                        terms.slope(n, -times * n.weight);
                    }
                }
            })?;
        let mut sums = tape.add(&positive, &negative)?;
        if let Some(beta) = learned {
            // Sums as if the boundary were a number; its own part is linear in it: so many times its change.
            let active = tape.subtract(&negatives, &positives)?;
            let own = tape.reshape(beta, &[beta.value().len(), 1])?;
            let places = (0..labels.len()).map(|row| [place(row) as u32, 0]).collect();
            let own = tape.gather(&own, places)?;
            let fixed = tape.constant(own.value().clone());
            let change = tape.subtract(&own, &fixed)?;
            let change = tape.multiply(&change, &active)?;
            let change = tape.affine(&change, self.distance.threshold(1.0), 0.0)?;
            sums = tape.add(&sums, &change)?;
        }
        let of_classes = learned.filter(|_| self.nu != 0.0 && self.num_classes.is_some());
        let triplets = if self.reducer.divides() && of_classes.is_none() {
            None
        } else {
            let all = (f64::NEG_INFINITY, f64::INFINITY);
            let (_, triplets) = batch.anchor_rows(tape, distance, all, pairs, move |anchor, terms| {
                let times = times(&anchor.negatives);
                anchor.positives.iter().for_each(|p| {
                    terms.add(times * p.weight, 0.0);
                });
            })?;
            Some(triplets)
        };
        let reduce = |tape: &mut Tape<'_>, sums: &Var| match &triplets {
            Some(triplets) if !self.reducer.divides() => {
                self.reducer.of_rows(tape, sums, triplets, Of::Triplets, labels)
            }
            _ => {
                let sum = tape.sum(sums, None)?;
                let counts = tape.add(&positives, &negatives)?;
                divided(tape, &sum, &counts)
            }
        };
        let mut loss = reduce(tape, &sums)?;
        // Boundaries of classes count once for each triplet of theirs, a single one once.
        let penalty = match (of_classes, &triplets) {
            (Some(beta), Some(triplets)) => {
                let own = tape.reshape(beta, &[beta.value().len(), 1])?;
                let own = tape.gather(&own, (0..labels.len()).map(|row| [place(row) as u32, 0]).collect())?;
                let own = tape.multiply(&own, triplets)?;
                Some(reduce(tape, &own)?)
            }
            _ => learned.filter(|_| self.nu != 0.0).cloned(),
        };
        if let Some(penalty) = penalty {
            let penalty = tape.affine(&penalty, self.nu, 0.0)?;
            loss = tape.add(&loss, &penalty)?;
        }
        Ok(loss)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let allowed = [Reducer::Divisor, Reducer::Mean, Reducer::Sum];
        if !allowed.contains(&self.reducer) && !matches!(self.reducer, Reducer::ClassWeighted { .. }) {
            let problem = "expected `divisor`, `mean`, `sum` or `class_weighted`: triplets are not listed one by one";
            problems.push(("reducer", problem.to_owned()));
        }
        if self.num_classes.is_some() && !self.learn_beta {
            problems.push(("num_classes", "has a use only with `learn_beta`".to_owned()));
        }
        problems
    }
}
