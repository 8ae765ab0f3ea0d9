use std::sync::{Arc, OnceLock};

use engine::function::RowFunction;
use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::clip::two_columns;
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
/// With `aligned` the two columns of pairs are compared instead, one z a pair and no matrix held: `d(a, n)` is then the
/// least distance of either side of the pair from the other side of one that does not match it.
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
    /// Compare the two sides of pairs, such as views, and not all rows by label. Default false.
    pub aligned: bool,
}

impl Default for DynamicSoftMarginLoss {
    fn default() -> Self {
        DynamicSoftMarginLoss { min_val: -2.0, num_bins: 10, momentum: 0.01, aligned: false }
    }
}

impl Loss for DynamicSoftMarginLoss {
    fn needs(&self) -> Needs {
        if self.aligned { Needs::Pairs } else { Needs::Labels }
    }

    fn parameters(&self, _: &Sizes) -> Result<Vec<LossParameter>> {
        Ok(vec![LossParameter::remembered("histogram", &[self.num_bins + 1], 0.0)])
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        if self.aligned {
            return self.compute_aligned(tape, batch);
        }
        let (device, before) = (tape.device(), batch.parameter(0)?.value());
        let (rows, others) = (batch.embeddings.value(), batch.others().value());
        let labels = batch.masks();
        let mined = batch.mine(tape, &labels);
        let found = Found {
            triplets: Triplets { mined, labels },
            nodes: self.nodes(),
            found: (0..rows.rows()).map(|_| OnceLock::new()).collect(),
        };
        let l2 = Distance::L2.similarity();
        device.similarity_rows(l2, 1.0, rows, others, &found);
        let mut counts = vec![0.0; self.num_bins + 1];
        for nodes in found.found.iter().filter_map(OnceLock::get) {
            counts.iter_mut().zip(nodes).for_each(|(count, more)| *count += more);
        }
        let triplets: f64 = counts.iter().sum();
        let weighted = Weighted { cumulated: self.cumulated(batch, before, &counts)?, found };
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

impl DynamicSoftMarginLoss {
    fn nodes(&self) -> Nodes {
        Nodes { min: self.min_val, width: 2.0 * self.min_val.abs() / self.num_bins as f64, last: self.num_bins }
    }

    /// The histogram so far with the triplets of this batch, remembered, and summed up from the first node on.
    fn cumulated(&self, batch: &Batch<'_>, before: &Tensor, counts: &[f64]) -> Result<Vec<f64>> {
        let triplets: f64 = counts.iter().sum();
        let mut histogram: Vec<f64> = before.data().iter().map(|&share| f64::from(share)).collect();
        if triplets > 0.0 {
            let momentum = if histogram.iter().all(|share| *share == 0.0) { 1.0 } else { self.momentum };
            let moved = histogram.iter_mut().zip(counts);
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
        Ok(cumulated.collect())
    }

    fn compute_aligned(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let (first, second) = two_columns(tape, batch)?;
        let count = first.value().rows();
        let labels = &batch.layout.labels[..count];
        let l2 = Distance::L2.similarity();
        let nearest = |from: &Tensor, to: &Tensor| -> Vec<Option<(f64, u32)>> {
            let nearest = Nearest { labels, found: (0..count).map(|_| OnceLock::new()).collect() };
            tape.device().similarity_rows(l2, 1.0, from, to, &nearest);
            nearest.found.iter().map(|found| found.get().copied().flatten()).collect()
        };
        // Pairs without another that does not match them teach nothing.
        let (mut rows, mut negatives) = (Vec::new(), [Vec::new(), Vec::new()]);
        let sides = [nearest(first.value(), second.value()), nearest(second.value(), first.value())];
        for (row, (of_first, of_second)) in (0u32..).zip(sides[0].iter().zip(&sides[1])) {
            let (Some(of_first), Some(of_second)) = (of_first, of_second) else { continue };
            let negative = if of_first.0 <= of_second.0 { [row, of_first.1] } else { [of_second.1, row] };
            rows.push(row);
            negatives.iter_mut().zip(negative).for_each(|(side, row)| side.push(row));
        }
        let rows: Arc<[u32]> = rows.into();
        let mut distances = |of_first: Arc<[u32]>, of_second: Arc<[u32]>| -> Result<Var> {
            let (a, b) = (tape.rows(&first, of_first)?, tape.rows(&second, of_second)?);
            Ok(tape.paired_similarities(l2, &a, &b)?)
        };
        let positives = distances(rows.clone(), rows.clone())?;
        let [of_first, of_second] = negatives;
        let negatives = distances(of_first.into(), of_second.into())?;
        let z = tape.subtract(&positives, &negatives)?;

        let nodes = self.nodes();
        let mut counts = vec![0.0; self.num_bins + 1];
        z.value().data().iter().for_each(|&z| nodes.count(f64::from(z), &mut counts));
        let cumulated = self.cumulated(batch, batch.parameter(0)?.value(), &counts)?;
        let weights = z.value().data().iter().map(|&z| cumulated[nodes.place(f64::from(z)).0] as f32).collect();
        let weights = Tensor::from_vec(weights, z.value().shape())?;
        let total = tape.sum(&z, Some(&weights))?;
        Ok(tape.affine(&total, 1.0 / rows.len().max(1) as f64, 0.0)?)
    }
}

/// The nearest of all rows that do not match a row, with its distance.
struct Nearest<'l> {
    labels: &'l [u32],
    found: Vec<OnceLock<Option<(f64, u32)>>>,
}

impl RowFunction for Nearest<'_> {
    fn row(&self, row: usize, x: &[f64], _: Option<&mut [f64]>) -> (f64, f64) {
        let others = (0u32..).zip(x).filter(|(other, _)| self.labels[*other as usize] != self.labels[row]);
        self.found[row].get_or_init(|| others.map(|(other, x)| (*x, other)).min_by(|a, b| a.0.total_cmp(&b.0)));
        (0.0, 0.0)
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

/// The nodes of the histogram.
#[derive(Debug, Clone, Copy)]
struct Nodes {
    min: f64,
    width: f64,
    last: usize,
}

impl Nodes {
    /// The node at or below z, and how far z lies towards the next one.
    fn place(&self, z: f64) -> (usize, f64) {
        let place = ((z - self.min) / self.width).clamp(0.0, self.last as f64);
        (place as usize, place.fract())
    }

    /// Splits one z between two nodes.
    fn count(&self, z: f64, counts: &mut [f64]) {
        let (node, share) = self.place(z);
        counts[node] += 1.0 - share;
        if share > 0.0 {
            counts[node + 1] += share;
        }
    }
}

/// How many of each anchor's triplets fall to each node.
struct Found {
    triplets: Triplets,
    nodes: Nodes,
    /// By anchor, so that sums do not depend on the order of threads.
    found: Vec<OnceLock<Vec<f64>>>,
}

impl RowFunction for Found {
    fn row(&self, row: usize, x: &[f64], _: Option<&mut [f64]>) -> (f64, f64) {
        let mut counts = vec![0.0; self.nodes.last + 1];
        self.triplets.visit(row, |p, n| self.nodes.count(x[p] - x[n], &mut counts));
        self.found[row].get_or_init(|| counts);
        (0.0, 0.0)
    }
}

/// The sum over an anchor's triplets of z times the share of triplets that are no harder.
struct Weighted {
    found: Found,
    cumulated: Vec<f64>,
}

impl RowFunction for Weighted {
    fn row(&self, row: usize, x: &[f64], mut gradient: Option<&mut [f64]>) -> (f64, f64) {
        let (mut sum, mut count) = (0.0, 0.0);
        self.found.triplets.visit(row, |p, n| {
            let z = x[p] - x[n];
            let weight = self.cumulated[self.found.nodes.place(z).0];
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
