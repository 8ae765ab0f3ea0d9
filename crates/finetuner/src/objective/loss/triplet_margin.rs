use std::ops::Range;
use std::sync::Arc;

use engine::function::{Binary, MatrixFunction, TripletRule, TripletShape, Unary};
use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::row_blocks::row_blocks;
use super::{Batch, Loss, MINED, Miner, Reference};
use crate::error::Result;
use crate::objective::anchor::{Within, logistic, softplus};
use crate::objective::miner::key_of;
use crate::objective::reducer::Of;
use crate::objective::{BatchLayout, Distance, Masks, Mined, Needs, Reducer};

/// Positives nearer than negatives, by a margin.
///
/// ```text
/// loss(a, p, n) = max(0, d(a, p) - d(a, n) + margin)
/// ```
///
/// All triplets of a batch are evaluated exactly, those of some anchors at a time; with `swap`, drawn triplets, other miners
/// than `TripletMarginMiner` or reducers that look at classes, in memory that grows with the square of the batch.
///
/// Use it for classes or a label graph, with a miner that leaves the easy triplets out; the original's default.
///
/// Reference: `TripletMarginLoss` of pytorch-metric-learning; Schroff, Kalenichenko, Philbin 2015 (1503.03832).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TripletMarginLoss {
    /// Default 0.05.
    pub margin: f64,
    /// Use the nearer of `d(a, n)` and `d(p, n)` (Balntas et al. 2016). Default false.
    pub swap: bool,
    /// `ln(1 + e^v)` in place of `max(0, v)`. Default false.
    pub smooth_loss: bool,
    /// `all`, or how many random triplets to draw per anchor where no miner chooses them. Default `all`.
    pub triplets_per_anchor: TripletsPerAnchor,
    /// Default `l2`, between normalised vectors.
    pub distance: Distance,
    /// Default `avg_non_zero`.
    pub reducer: Reducer,
}

/// How many triplets of an anchor are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum TripletsPerAnchor {
    /// Every one.
    All,
    /// This many, drawn at random with replacement. The draw is a function of the batch, so a repeated step repeats it.
    Random(u32),
}

impl TryFrom<Value> for TripletsPerAnchor {
    type Error = String;

    fn try_from(value: Value) -> std::result::Result<Self, String> {
        match (value.as_str(), value.as_u64().map(u32::try_from)) {
            (Some("all"), _) => Ok(TripletsPerAnchor::All),
            (_, Some(Ok(count))) if count > 0 => Ok(TripletsPerAnchor::Random(count)),
            _ => Err(format!("expected `all` or a number of at least 1, got {value}")),
        }
    }
}

impl From<TripletsPerAnchor> for Value {
    fn from(count: TripletsPerAnchor) -> Value {
        match count {
            TripletsPerAnchor::All => "all".into(),
            TripletsPerAnchor::Random(count) => count.into(),
        }
    }
}

impl Default for TripletMarginLoss {
    fn default() -> Self {
        TripletMarginLoss {
            margin: 0.05,
            swap: false,
            smooth_loss: false,
            triplets_per_anchor: TripletsPerAnchor::All,
            distance: Distance::L2,
            reducer: Reducer::AvgNonZero,
        }
    }
}

impl Loss for TripletMarginLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn matrices(&self, miner: Option<&dyn Miner>) -> usize {
        let by_margin = miner.is_none_or(|miner| miner.chooses_by_margin());
        match self.takes_anchors_alone() && by_margin {
            true => 0,
            false => miner.map_or(4, |_| MINED),
        }
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let rows = batch.embeddings.value().rows();
        let blocks = row_blocks(rows, rows);
        let by_margin = batch.miner.is_none_or(|miner| miner.chooses_by_margin());
        if blocks.len() > 1 && self.takes_anchors_alone() && batch.reference.is_none() && by_margin {
            return self.in_blocks(tape, batch, blocks);
        }
        let distances = self.distance.distances(tape, batch.embeddings, batch.others())?;
        let labels = batch.masks();
        let classes = &batch.layout.labels[..];
        match batch.mined(tape, self.distance, distances.value(), &labels) {
            Mined::Everything if let TripletsPerAnchor::Random(count) = self.triplets_per_anchor => {
                let triplets = draw(batch.embeddings.value(), &labels, count);
                self.over_list(tape, &distances, &triplets, classes)
            }
            chosen @ Mined::Angles { .. } => {
                let function = ChosenTriplets {
                    chosen,
                    pairs: labels,
                    within: Within(self.reducer.bounds(Of::Triplets)),
                    margin: self.margin,
                    swap: self.swap && batch.reference.is_none(),
                    smooth: self.smooth_loss,
                };
                let (sums, counts) = tape.matrix_rows(&distances, Arc::new(function))?;
                self.reducer.of_rows(tape, &sums, &counts, Of::Triplets, classes)
            }
            Mined::Triplets(triplets) => self.over_list(tape, &distances, &triplets, classes),
            mined => {
                let (sums, counts) = self.over_masks(tape, &distances, &mined, &labels)?;
                self.reducer.of_rows(tape, &sums, &counts, Of::Triplets, classes)
            }
        }
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        self.reducer.triplet_problems()
    }
}

impl TripletMarginLoss {
    /// Whether what an anchor adds depends on no other anchor, and all of it is added up.
    fn takes_anchors_alone(&self) -> bool {
        !self.swap && self.triplets_per_anchor == TripletsPerAnchor::All && self.reducer.adds_up()
    }

    /// The loss of some anchors at a time among all rows, so that no matrix is whole.
    fn in_blocks(&self, tape: &mut Tape<'_>, batch: &Batch<'_>, blocks: Vec<Range<usize>>) -> Result<Var> {
        let labels = &batch.layout.labels;
        let over = (blocks, Of::Triplets, &labels[..]);
        self.reducer.of_blocks(tape, &[batch.embeddings], over, |tape, inputs, rows| {
            let anchors = tape.row_range(&inputs[0], rows.clone())?;
            let own = (rows.start as u32..rows.end as u32).collect();
            let reference = Reference { embeddings: inputs[0].clone(), labels: labels.clone(), own };
            let layout = BatchLayout::labelled(&labels[rows]);
            let part = Batch {
                embeddings: &anchors,
                layout: &layout,
                reference: Some(&reference),
                memories: Default::default(),
                ..*batch
            };
            let distances = self.distance.distances(tape, &anchors, part.others())?;
            let labels = part.masks();
            let mined = part.mined(tape, self.distance, distances.value(), &labels);
            self.over_masks(tape, &distances, &mined, &labels)
        })
    }

    /// Each anchor's sum of the losses that count, and their number, where masks and bounds say which triplets there are.
    fn over_masks(&self, tape: &mut Tape<'_>, distances: &Var, mined: &Mined, labels: &Masks) -> Result<(Var, Var)> {
        let all = (f64::NEG_INFINITY, f64::INFINITY);
        let ((low, high), mining, pairs) = match mined {
            Mined::Everything => (all, None, labels),
            Mined::Pairs(pairs) => (all, None, pairs),
            Mined::Interval { low, high, distance, distances: mining } => {
                ((*low, *high), (*distance != self.distance).then_some(mining), labels)
            }
            Mined::Angles { .. } | Mined::Triplets(_) => {
                let expected = "pairs, or triplets by how much farther the negative is";
                return Err(engine::Error::shape("objective", expected, "triplets one by one").into());
            }
        };
        let shape = if self.smooth_loss { TripletShape::Softplus } else { TripletShape::Hinge };
        let (above, below) = self.reducer.bounds(Of::Triplets);
        let rule = TripletRule { low, high, margin: self.margin, shape, swap: self.swap, above, below };
        Ok(tape.triplets(rule, distances, mining, &pairs.positives, &pairs.negatives)?)
    }

    fn over_list(&self, tape: &mut Tape<'_>, distances: &Var, triplets: &[[u32; 3]], classes: &[u32]) -> Result<Var> {
        let pairs = |i: usize, j: usize| -> Arc<[[u32; 2]]> { triplets.iter().map(|t| [t[i], t[j]]).collect() };
        let positive = tape.gather(distances, pairs(0, 1))?;
        let mut negative = tape.gather(distances, pairs(0, 2))?;
        if self.swap {
            let other = tape.gather(distances, pairs(1, 2))?;
            negative = tape.binary(Binary::Minimum, &negative, &other)?;
        }
        let apart = tape.subtract(&positive, &negative)?;
        let violation = tape.affine(&apart, 1.0, self.margin)?;
        let shape = if self.smooth_loss { Unary::Softplus { scale: 1.0 } } else { Unary::Relu };
        let losses = tape.unary(shape, &violation)?;
        let labels: Vec<u32> = triplets.iter().map(|[a, ..]| classes[*a as usize]).collect();
        self.reducer.reduce_labelled(tape, &losses, None, Of::Triplets, &labels)
    }
}

/// Random triplets of every anchor that has a positive and a negative.
pub(super) fn draw(embeddings: &Tensor, labels: &Masks, count: u32) -> Vec<[u32; 3]> {
    let key = key_of(embeddings);
    let columns = labels.positives.columns();
    let mut triplets = Vec::new();
    for a in 0..labels.positives.rows() {
        let marked = |mask: &Tensor| -> Vec<u32> {
            let row = &mask.data()[a * columns..(a + 1) * columns];
            (0..columns as u32).filter(|&c| row[c as usize] != 0.0).collect()
        };
        let (positives, negatives) = (marked(&labels.positives), marked(&labels.negatives));
        if positives.is_empty() || negatives.is_empty() {
            continue;
        }
        let key = key.part(a as u64);
        let pick = |from: &[u32], counter: u64| from[(key.uniform(counter) * from.len() as f64) as usize];
        for i in 0..u64::from(count) {
            triplets.push([a as u32, pick(&positives, 2 * i), pick(&negatives, 2 * i + 1)]);
        }
    }
    triplets
}

/// The losses of triplets that are chosen one by one, without listing them.
struct ChosenTriplets {
    chosen: Mined,
    pairs: Masks,
    within: Within,
    margin: f64,
    swap: bool,
    smooth: bool,
}

impl ChosenTriplets {
    /// Every triplet of an anchor that counts: its positive and negative, its loss and the slope of that, and whether
    /// the negative's distance is that to the positive.
    fn each(&self, a: usize, x: &Tensor, mut visit: impl FnMut(usize, usize, f64, f64, bool)) {
        let columns = x.columns();
        let at = |row: usize, column: usize| f64::from(x.data()[row * columns + column]);
        let marked = |mask: &Tensor| -> Vec<usize> {
            (0..columns).filter(|column| mask.data()[a * columns + column] != 0.0).collect()
        };
        let negatives = marked(&self.pairs.negatives);
        for p in marked(&self.pairs.positives) {
            for &n in negatives.iter().filter(|&&n| self.chosen.keeps(a, p, n)) {
                let swapped = self.swap && at(p, n) < at(a, n);
                let v = at(a, p) - if swapped { at(p, n) } else { at(a, n) } + self.margin;
                let (loss, slope) = match self.smooth {
                    true => (softplus(v), logistic(v)),
                    false => (v.max(0.0), f64::from(u8::from(v > 0.0))),
                };
                if self.within.holds(loss) {
                    visit(p, n, loss, slope, swapped);
                }
            }
        }
    }
}

impl MatrixFunction for ChosenTriplets {
    fn row(&self, row: usize, x: &Tensor) -> (f64, f64) {
        let (mut sum, mut count) = (0.0, 0.0);
        self.each(row, x, |_, _, loss, _, _| (sum, count) = (sum + loss, count + 1.0));
        (sum, count)
    }

    fn gradient(&self, row: usize, x: &Tensor, dy: &[f32], gradient: &mut [f64]) {
        self.each(row, x, |p, n, _, slope, swapped| {
            gradient[p] += f64::from(dy[row]) * slope;
            gradient[n] -= if swapped { 0.0 } else { f64::from(dy[row]) * slope };
        });
        let anchors = (0..dy.len()).filter(|&a| self.swap && self.pairs.positives.data()[a * x.columns() + row] != 0.0);
        for a in anchors {
            self.each(a, x, |p, n, _, slope, swapped| {
                gradient[n] -= if swapped && p == row { f64::from(dy[a]) * slope } else { 0.0 };
            });
        }
    }
}
