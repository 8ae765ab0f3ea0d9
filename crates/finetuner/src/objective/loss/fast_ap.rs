use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::anchor::Candidate;
use crate::objective::reducer::Of;
use crate::objective::{Distance, Needs, Reducer};

/// Average precision of each anchor's ranking, made smooth by histograms of distances.
///
/// ```text
/// loss(i) = 1 - (1 / positives) sum over bins b of h+_b H+_b / H_b
/// ```
///
/// h+ is the histogram of the positive distances, h that of all, each distance shared between the two nearest of
/// `num_bins` + 1 nodes over [0, 2^power]; H their running sums. Anchors without positives are left out. A miner weights
/// anchors by how often it chooses them.
///
/// Use it where average precision is the aim and batches are large.
///
/// Reference: `FastAPLoss` of pytorch-metric-learning; Cakir et al. 2019 (CVPR).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FastAPLoss {
    /// Default 10.
    pub num_bins: usize,
    /// `l2`, between normalised vectors, with any `power`. Default `l2_squared`.
    pub distance: Distance,
    /// Over the anchors. Default `mean`.
    pub reducer: Reducer,
}

impl Default for FastAPLoss {
    fn default() -> Self {
        FastAPLoss {
            num_bins: 10,
            distance: Distance::Euclidean { normalize: true, squared: true },
            reducer: Reducer::Mean,
        }
    }
}

impl Loss for FastAPLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let bins = self.num_bins;
        let width = 2f64.powf(self.distance.l2_power().unwrap_or(1.0)) / bins as f64;
        // The lower of the two nodes that share a distance, and the other's part.
        let place = move |candidate: &Candidate| {
            let place = (candidate.distance / width).clamp(0.0, bins as f64);
            let node = (place as usize).min(bins - 1);
            (node, place - node as f64)
        };
        let weights = batch.anchor_weights(tape);
        let pairs = batch.labelled_pairs();
        batch.per_anchor(tape, self.distance, &self.reducer, Of::Elements, pairs, move |anchor, terms| {
            if anchor.positives.is_empty() {
                return;
            }
            let (mut positives, mut all) = (vec![0.0; bins + 1], vec![0.0; bins + 1]);
            for (candidates, is_positive) in [(&anchor.positives, true), (&anchor.negatives, false)] {
                for (node, part) in candidates.iter().map(place) {
                    for (node, part) in [(node, 1.0 - part), (node + 1, part)] {
                        all[node] += part;
                        positives[node] += if is_positive { part } else { 0.0 };
                    }
                }
            }
            // Per node the derivatives of the precision by its histograms, from the last to the first.
            let (running, running_all) = (running_sums(&positives), running_sums(&all));
            let (mut precision, mut by_positive, mut by_all) = (0.0, vec![0.0; bins + 1], vec![0.0; bins + 1]);
            let (mut later_positive, mut later_all) = (0.0, 0.0);
            for node in (0..=bins).rev().filter(|&node| positives[node] > 0.0 || node == 0 || running_all[node] > 0.0) {
                if running_all[node] > 0.0 {
                    let share = running[node] / running_all[node];
                    precision += positives[node] * share;
                    later_positive += positives[node] / running_all[node];
                    later_all -= positives[node] * share / running_all[node];
                    by_positive[node] = share;
                }
                by_positive[node] += later_positive;
                by_all[node] = later_all;
            }
            let weight = weights[anchor.row];
            let count = anchor.positives.len() as f64;
            if terms.add(1.0, weight * (1.0 - precision / count)) {
                for (candidates, is_positive) in [(&anchor.positives, 1.0), (&anchor.negatives, 0.0)] {
                    for candidate in candidates {
                        let (node, part) = place(candidate);
                        // At a node itself the slopes of both sides cancel.
                        if part > 0.0 && part < 1.0 {
                            let by = |node: usize| is_positive * by_positive[node] + by_all[node];
                            terms.slope(candidate, -weight / count * (by(node + 1) - by(node)) / width);
                        }
                    }
                }
            }
        })
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.num_bins == 0 {
            problems.push(("num_bins", "expected at least 1".to_owned()));
        }
        if self.distance.l2_power().is_none() {
            problems.push(("distance", "expected `l2` between normalised vectors, whose range is known".to_owned()));
        }
        problems
    }
}

fn running_sums(values: &[f64]) -> Vec<f64> {
    let running = values.iter().scan(0.0, |sum, value| {
        *sum += value;
        Some(*sum)
    });
    running.collect()
}
