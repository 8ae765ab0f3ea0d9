use engine::Tensor;
use serde::{Deserialize, Serialize};

use super::{Miner, Seen};
use crate::objective::{Distance, Masks, Mined};

/// Per anchor one positive and one negative, or all of a side.
///
/// An easy positive is the nearest, a hard one the farthest; a hard negative the nearest, an easy one the farthest. A
/// semihard negative is the nearest that is farther than the chosen positive, a semihard positive the farthest that is
/// nearer than the chosen negative. If both sides choose one, anchors that lack either are left out.
///
/// Use it with easy positives where items of a class differ, with hard ones where they are alike.
///
/// Reference: `BatchEasyHardMiner` of pytorch-metric-learning; Xuan, Stylianou, Pless 2020 (1904.04370).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchEasyHardMiner {
    /// Default `easy`.
    pub pos_strategy: Strategy,
    /// Default `semihard`. Not `semihard` where `pos_strategy` is `semihard` or `all`, and the other way round.
    pub neg_strategy: Strategy,
    /// Distances that a chosen positive may have, as `[smallest, largest]`. Default: any. `all` ignores it.
    pub allowed_pos_range: Option<[f64; 2]>,
    /// Distances that a chosen negative may have. Default: any. `all` ignores it.
    pub allowed_neg_range: Option<[f64; 2]>,
    /// How it measures. Default `l2`, between normalised vectors.
    pub distance: Distance,
}

/// Which positives or negatives of an anchor are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The one that is easiest to tell.
    Easy,
    /// The hardest that still is on the right side of the other choice.
    Semihard,
    /// The one that is hardest to tell.
    Hard,
    /// Every one.
    All,
}

impl Default for BatchEasyHardMiner {
    fn default() -> Self {
        BatchEasyHardMiner {
            pos_strategy: Strategy::Easy,
            neg_strategy: Strategy::Semihard,
            allowed_pos_range: None,
            allowed_neg_range: None,
            distance: Distance::L2,
        }
    }
}

/// A candidate and its distance.
type Choice = (usize, f32);

impl BatchEasyHardMiner {
    /// Whether a distance (smaller is closer) lies in a range that is given in the distance's own direction.
    fn allows(&self, range: Option<[f64; 2]>, distance: f32) -> bool {
        let value = self.distance.threshold(f64::from(distance));
        range.is_none_or(|[smallest, largest]| smallest <= value && value <= largest)
    }

    fn positive(&self, candidates: &[Choice], nearer_than: Option<f32>) -> Option<Choice> {
        let allowed = candidates.iter().filter(|(_, d)| self.allows(self.allowed_pos_range, *d));
        let allowed = allowed.filter(|(_, d)| nearer_than.is_none_or(|limit| *d < limit));
        match self.pos_strategy {
            Strategy::Easy => nearest(allowed),
            _ => farthest(allowed),
        }
    }

    fn negative(&self, candidates: &[Choice], farther_than: Option<f32>) -> Option<Choice> {
        let allowed = candidates.iter().filter(|(_, d)| self.allows(self.allowed_neg_range, *d));
        let allowed = allowed.filter(|(_, d)| farther_than.is_none_or(|limit| *d > limit));
        match self.neg_strategy {
            Strategy::Easy => farthest(allowed),
            _ => nearest(allowed),
        }
    }

    /// What an anchor takes of its positives and negatives.
    fn choose(&self, positives: Vec<Choice>, negatives: Vec<Choice>) -> (Vec<Choice>, Vec<Choice>) {
        let one = |choice: Option<Choice>| choice.into_iter().collect();
        match (self.pos_strategy, self.neg_strategy) {
            (Strategy::All, Strategy::All) => (positives, negatives),
            (Strategy::All, _) => (positives, one(self.negative(&negatives, None))),
            (_, Strategy::All) => (one(self.positive(&positives, None)), negatives),
            (Strategy::Semihard, _) => {
                let negative = self.negative(&negatives, None);
                both(negative.and_then(|(_, limit)| self.positive(&positives, Some(limit))), negative)
            }
            (_, Strategy::Semihard) => {
                let positive = self.positive(&positives, None);
                both(positive, positive.and_then(|(_, limit)| self.negative(&negatives, Some(limit))))
            }
            _ => both(self.positive(&positives, None), self.negative(&negatives, None)),
        }
    }
}

fn both(positive: Option<Choice>, negative: Option<Choice>) -> (Vec<Choice>, Vec<Choice>) {
    match (positive, negative) {
        (Some(positive), Some(negative)) => (vec![positive], vec![negative]),
        _ => (Vec::new(), Vec::new()),
    }
}

/// The first of the nearest.
fn nearest<'c>(choices: impl Iterator<Item = &'c Choice>) -> Option<Choice> {
    choices.copied().reduce(|best, next| if next.1 < best.1 { next } else { best })
}

/// The first of the farthest.
fn farthest<'c>(choices: impl Iterator<Item = &'c Choice>) -> Option<Choice> {
    choices.copied().reduce(|best, next| if next.1 > best.1 { next } else { best })
}

impl Miner for BatchEasyHardMiner {
    fn distance(&self) -> Distance {
        self.distance
    }

    fn mine(&self, seen: &Seen<'_>) -> Mined {
        let Seen { distances, labels, .. } = *seen;
        let columns = distances.columns();
        let shape = distances.shape();
        let mut pairs = Masks { positives: Tensor::zeros(shape), negatives: Tensor::zeros(shape) };
        let (positives, negatives) = (pairs.positives.data_mut(), pairs.negatives.data_mut());
        for a in 0..distances.rows() {
            let row = a * columns..(a + 1) * columns;
            let marked = |mask: &Tensor| -> Vec<Choice> {
                let candidates = distances.data()[row.clone()].iter().zip(&mask.data()[row.clone()]).enumerate();
                candidates.filter(|(_, (_, mask))| **mask != 0.0).map(|(c, (d, _))| (c, *d)).collect()
            };
            let chosen = self.choose(marked(&labels.positives), marked(&labels.negatives));
            chosen.0.iter().for_each(|(p, _)| positives[row.start + p] = 1.0);
            chosen.1.iter().for_each(|(n, _)| negatives[row.start + n] = 1.0);
        }
        Mined::Pairs(pairs)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if let (Strategy::Semihard, Strategy::Semihard | Strategy::All) | (Strategy::All, Strategy::Semihard) =
            (self.pos_strategy, self.neg_strategy)
        {
            let problem = "`semihard` needs the other side to choose one by `easy` or `hard`";
            problems.push(("neg_strategy", problem.to_owned()));
        }
        for (key, range) in
            [("allowed_pos_range", self.allowed_pos_range), ("allowed_neg_range", self.allowed_neg_range)]
        {
            if let Some([smallest, largest]) = range
                && smallest > largest
            {
                problems.push((key, format!("expected [smallest, largest], got [{smallest}, {largest}]")));
            }
        }
        problems
    }
}
