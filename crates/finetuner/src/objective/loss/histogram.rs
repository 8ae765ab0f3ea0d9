use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::anchor::{Anchor, Candidate, Pairs};
use crate::objective::reducer::Of;
use crate::objective::{Distance, Needs, Reducer, registry};

/// The chance that a negative pair is more alike than a positive one, from histograms of both kinds.
///
/// ```text
/// loss = sum over bins r of h-_r sum over q <= r of h+_q
/// ```
///
/// h+ and h- are the histograms of the cosines of positive and of negative pairs, each unordered pair once, on nodes
/// -1, -1 + delta … 1; every cosine is shared between the two nodes beside it. Only pairs of triplets count: an anchor
/// needs a positive and a negative. There is no reducer.
///
/// Use it for classes in large batches when no margin is to be tuned.
///
/// Reference: `HistogramLoss` of pytorch-metric-learning; Ustinova, Lempitsky 2016 (1611.00822).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HistogramLoss {
    /// Bins between -1 and 1. Default 100, or 2 / delta.
    pub n_bins: Option<u32>,
    /// Width of a bin, in place of `n_bins`. Default 2 / n_bins.
    pub delta: Option<f64>,
    /// A similarity from -1 to 1. Default `cosine`.
    pub distance: Distance,
}

impl Default for HistogramLoss {
    fn default() -> Self {
        HistogramLoss { n_bins: None, delta: None, distance: Distance::Cosine }
    }
}

impl Loss for HistogramLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let delta = self.delta.unwrap_or(2.0 / f64::from(self.n_bins.unwrap_or(100)));
        let pairs = batch.pairs(tape, false);
        let once = Once::new(&pairs, batch.layout.labels.len(), batch.reference.is_none());
        // First all histograms, a row's at a time, then what each pair does to the loss.
        let rows: Arc<Mutex<BTreeMap<usize, Bins>>> = Arc::default();
        let (sink, chosen) = (rows.clone(), once.clone());
        batch.anchor_rows(tape, self.distance, ALL, pairs.clone(), move |anchor, _| {
            let bins = Bins::of(anchor, &chosen, delta);
            sink.lock().unwrap_or_else(PoisonError::into_inner).insert(anchor.row, bins);
        })?;
        let rows = std::mem::take(&mut *rows.lock().unwrap_or_else(PoisonError::into_inner));
        let bins = rows.into_values().fold(Bins::empty(delta), Bins::plus);
        // By node, how the loss grows with a positive and with a negative there.
        let (positives, negatives) = (bins.positives.0.max(1.0), bins.negatives.0.max(1.0));
        let nodes = bins.positives.1.len();
        let by_negative: Vec<f64> =
            (0..nodes).map(|r| bins.positives.1[..=r].iter().sum::<f64>() / positives).collect();
        let by_positive: Vec<f64> = (0..nodes).map(|q| bins.negatives.1[q..].iter().sum::<f64>() / negatives).collect();
        let of = Of::Pairs;
        batch.per_anchor(tape, self.distance, &Reducer::Sum, of, pairs, move |anchor, terms| {
            for p in anchor.positives.iter().filter(|p| once.takes(anchor.row, p, true)) {
                let (node, _) = place(p, delta, nodes);
                terms.slope(p, -(by_positive[node + 1] - by_positive[node]) / delta / positives);
            }
            for n in anchor.negatives.iter().filter(|n| once.takes(anchor.row, n, false)) {
                let (node, part) = place(n, delta, nodes);
                let step = by_negative[node + 1] - by_negative[node];
                terms.add(1.0, (by_negative[node] + part * step) / negatives);
                terms.slope(n, -step / delta / negatives);
            }
        })
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems: Vec<_> =
            self.delta.and_then(|delta| registry::positive("delta", delta)).into_iter().collect();
        if self.n_bins == Some(0) {
            problems.push(("n_bins", "expected at least 1".to_owned()));
        }
        if let (Some(bins), Some(delta)) = (self.n_bins, self.delta)
            && (2.0 / f64::from(bins) - delta).abs() > 1e-9
        {
            problems.push((
                "delta",
                format!("expected 2 / n_bins, which is {}; give one of the two", 2.0 / f64::from(bins)),
            ));
        }
        if self.distance != Distance::Cosine {
            problems.push(("distance", "expected `cosine`: the bins lie between -1 and 1".to_owned()));
        }
        problems
    }
}

const ALL: (f64, f64) = (f64::NEG_INFINITY, f64::INFINITY);

/// The lower of the two nodes that share a cosine, and the other's part of it. Distances are negated cosines.
fn place(candidate: &Candidate, delta: f64, nodes: usize) -> (usize, f64) {
    let place = ((1.0 - candidate.distance) / delta).clamp(0.0, (nodes - 1) as f64);
    let node = (place as usize).min(nodes - 2);
    (node, place - node as f64)
}

/// Which pairs count: each unordered one once, and only those of anchors that have a positive and a negative.
#[derive(Clone)]
struct Once {
    pairs: Pairs,
    anchors: Vec<bool>,
    symmetric: bool,
}

impl Once {
    fn new(pairs: &Pairs, rows: usize, symmetric: bool) -> Self {
        Once { pairs: pairs.clone(), anchors: (0..rows).map(|row| pairs.has_triplet(row)).collect(), symmetric }
    }

    fn takes(&self, row: usize, candidate: &Candidate, positive: bool) -> bool {
        let lists = |row: usize, column: usize| {
            let weights = self.pairs.weights(row, column);
            self.anchors[row] && (if positive { weights.0 } else { weights.1 }) != 0.0
        };
        let other = candidate.column;
        lists(row, other) && !(self.symmetric && other < row && lists(other, row))
    }
}

/// How many positive and negative pairs there are, and how many lie at each node.
struct Bins {
    positives: (f64, Vec<f64>),
    negatives: (f64, Vec<f64>),
}

impl Bins {
    fn empty(delta: f64) -> Self {
        let nodes = (2.0 / delta).round() as usize + 1;
        Bins { positives: (0.0, vec![0.0; nodes]), negatives: (0.0, vec![0.0; nodes]) }
    }

    fn of(anchor: &Anchor<'_>, once: &Once, delta: f64) -> Self {
        let mut bins = Bins::empty(delta);
        for (candidates, positive) in [(&anchor.positives, true), (&anchor.negatives, false)] {
            let (count, nodes) = if positive { &mut bins.positives } else { &mut bins.negatives };
            for candidate in candidates.iter().filter(|candidate| once.takes(anchor.row, candidate, positive)) {
                let (node, part) = place(candidate, delta, nodes.len());
                *count += 1.0;
                nodes[node] += 1.0 - part;
                nodes[node + 1] += part;
            }
        }
        bins
    }

    fn plus(mut self, other: Bins) -> Self {
        for (to, from) in [(&mut self.positives, other.positives), (&mut self.negatives, other.negatives)] {
            to.0 += from.0;
            to.1.iter_mut().zip(from.1).for_each(|(to, from)| *to += from);
        }
        self
    }
}
