use std::sync::{Arc, OnceLock};

use engine::function::RowFunction;
use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::{Distance, LossParameter, Masks, Mined, Needs, Sizes};

/// Triplets weighted by how hard they are among all triplets so far.
///
/// ```text
/// z = d(a, p) - d(a, n)
/// h = how many z fall to each node min_val + r width, width = 2 abs(min_val) / num_bins, each z split between two nodes
/// H = (1 - momentum) H + momentum h, after the first batch H = h; then divided by its sum
/// loss = mean over triplets of z sum over r <= floor((z - min_val) / width) of H_r
/// ```
///
/// H is remembered from step to step and has no gradient; values outside of the nodes count for the nearest one. All
/// triplets are evaluated exactly in memory that grows with the square of the batch.
///
/// Use it for classes or views when no margin is to be tuned.
///
/// Reference: `DynamicSoftMarginLoss` of pytorch-metric-learning; Zhang, Rusinkiewicz 2019 (ICCV).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DynamicSoftMarginLoss {
    /// The first node, below 0. Default -2.
    pub min_val: f64,
    /// Default 10.
    pub num_bins: usize,
    /// How much each triplet of a batch counts beside the whole histogram so far. Default 0.01.
    pub momentum: f64,
}

impl Default for DynamicSoftMarginLoss {
    fn default() -> Self {
        DynamicSoftMarginLoss { min_val: -2.0, num_bins: 10, momentum: 0.01 }
    }
}

impl Loss for DynamicSoftMarginLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn parameters(&self, _: &Sizes) -> Result<Vec<LossParameter>> {
        Ok(vec![LossParameter::remembered("histogram", &[self.num_bins + 1], 0.0)])
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let (device, before) = (tape.device(), batch.parameter(0)?.value());
        let (rows, others) = (batch.embeddings.value(), batch.others().value());
        let labels = batch.masks();
        let mined = batch.mine(tape, &labels);
        let found = Nodes {
            triplets: Triplets { mined, labels },
            min: self.min_val,
            width: 2.0 * self.min_val.abs() / self.num_bins as f64,
            last: self.num_bins,
            found: (0..rows.rows()).map(|_| OnceLock::new()).collect(),
        };
        let l2 = Distance::L2.similarity();
        device.similarity_rows(l2, 1.0, rows, others, &found);
        let mut counts = vec![0.0; self.num_bins + 1];
        for nodes in found.found.iter().filter_map(OnceLock::get) {
            counts.iter_mut().zip(nodes).for_each(|(count, more)| *count += more);
        }
        let triplets: f64 = counts.iter().sum();
        let mut histogram: Vec<f64> = before.data().iter().map(|&share| f64::from(share)).collect();
        if triplets > 0.0 {
            let momentum = if histogram.iter().all(|share| *share == 0.0) { 1.0 } else { self.momentum };
            let moved = histogram.iter_mut().zip(&counts);
            moved.for_each(|(share, count)| *share = (1.0 - momentum) * *share + momentum * count);
            let sum: f64 = histogram.iter().sum();
            histogram.iter_mut().for_each(|share| *share /= sum);
            let stored = histogram.iter().map(|share| *share as f32).collect();
            batch.remember(0, Tensor::from_vec(stored, before.shape())?);
        }
        let mut sum = 0.0;
        let cumulated = histogram.iter().map(|share| {
            sum += share;
            sum
        });
        let weighted = Weighted { cumulated: cumulated.collect(), nodes: found };
        let (losses, _) = tape.similarity_rows(l2, 1.0, batch.embeddings, batch.others(), Arc::new(weighted))?;
        let total = tape.sum(&losses, None)?;
        Ok(tape.affine(&total, 1.0 / triplets.max(1.0), 0.0)?)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if !(self.min_val < 0.0 && self.min_val.is_finite()) {
            problems.push(("min_val", format!("expected a number below 0, got {}", self.min_val)));
        }
        if self.num_bins == 0 {
            problems.push(("num_bins", "expected 1 or more, got 0".to_owned()));
        }
        if !(0.0..=1.0).contains(&self.momentum) {
            problems.push(("momentum", format!("expected a share from 0 to 1, got {}", self.momentum)));
        }
        problems
    }
}

/// The chosen triplets, anchor by anchor.
struct Triplets {
    mined: Mined,
    labels: Masks,
}

impl Triplets {
    /// Calls `visit` with positive and negative of every triplet of an anchor.
    fn visit(&self, a: usize, mut visit: impl FnMut(usize, usize)) {
        let columns = self.labels.positives.columns();
        let marked = |mask: &Tensor| -> Vec<usize> {
            let row = &mask.data()[a * columns..(a + 1) * columns];
            (0..columns).filter(|&c| row[c] != 0.0).collect()
        };
        let masks = match &self.mined {
            Mined::Triplets(triplets) => {
                let own = triplets.iter().filter(|triplet| triplet[0] as usize == a);
                return own.for_each(|[_, p, n]| visit(*p as usize, *n as usize));
            }
            Mined::Pairs(pairs) => pairs,
            _ => &self.labels,
        };
        let negatives = marked(&masks.negatives);
        for p in marked(&masks.positives) {
            for &n in &negatives {
                if self.mined.keeps(a, p, n) {
                    visit(p, n);
                }
            }
        }
    }
}

/// How many of each anchor's triplets fall to each node.
struct Nodes {
    triplets: Triplets,
    min: f64,
    width: f64,
    last: usize,
    /// By anchor, so that sums do not depend on the order of threads.
    found: Vec<OnceLock<Vec<f64>>>,
}

impl Nodes {
    /// The node at or below z, and how far z lies towards the next one.
    fn place(&self, z: f64) -> (usize, f64) {
        let place = ((z - self.min) / self.width).clamp(0.0, self.last as f64);
        (place as usize, place.fract())
    }
}

impl RowFunction for Nodes {
    fn row(&self, row: usize, x: &[f64], _: Option<&mut [f64]>) -> (f64, f64) {
        let mut nodes = vec![0.0; self.last + 1];
        self.triplets.visit(row, |p, n| {
            let (node, share) = self.place(x[p] - x[n]);
            nodes[node] += 1.0 - share;
            if share > 0.0 {
                nodes[node + 1] += share;
            }
        });
        self.found[row].get_or_init(|| nodes);
        (0.0, 0.0)
    }
}

/// The sum over an anchor's triplets of z times the share of triplets that are no harder.
struct Weighted {
    nodes: Nodes,
    cumulated: Vec<f64>,
}

impl RowFunction for Weighted {
    fn row(&self, row: usize, x: &[f64], mut gradient: Option<&mut [f64]>) -> (f64, f64) {
        let (mut sum, mut count) = (0.0, 0.0);
        self.nodes.triplets.visit(row, |p, n| {
            let z = x[p] - x[n];
            let weight = self.cumulated[self.nodes.place(z).0];
            sum += weight * z;
            count += 1.0;
            if let Some(gradient) = &mut gradient {
                gradient[p] += weight;
                gradient[n] -= weight;
            }
        });
        (sum, count)
    }
}
