use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::anchor::{log_sum_exp, logistic, softplus};
use crate::objective::reducer::Of;
use crate::objective::{Distance, Needs, Reducer, registry};

/// Each positive pair against the negatives of its anchor; the anchor's other positives are left out.
///
/// ```text
/// loss(a, p) = -ln(e^(s_ap / temperature) / (e^(s_ap / temperature) + sum over negatives n of e^(s_an / temperature)))
/// ```
///
/// Use it for views or classes with many negatives in a batch; larger batches make it better.
///
/// Reference: `NTXentLoss` of pytorch-metric-learning; Chen et al. 2020 (2002.05709). Also known as `NTXLoss`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NTXentLoss {
    /// Default 0.07.
    pub temperature: f64,
    /// Default `cosine`; distances are negated.
    pub distance: Distance,
    /// Over the positive pairs. Default `mean`.
    pub reducer: Reducer,
}

impl Default for NTXentLoss {
    fn default() -> Self {
        NTXentLoss { temperature: 0.07, distance: Distance::Cosine, reducer: Reducer::Mean }
    }
}

impl Loss for NTXentLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let scale = 1.0 / self.temperature;
        let pairs = batch.pairs(tape, self.reducer.counts_repetitions());
        batch.per_anchor(tape, self.distance, &self.reducer, Of::Pairs, pairs, move |anchor, terms| {
            // -ln(e^s / (e^s + sum)) = softplus(ln sum - s)
            let negatives = log_sum_exp(anchor.negatives.iter().map(|n| (-scale * n.distance, n.weight)));
            let mut pushed = 0.0;
            for p in &anchor.positives {
                let z = negatives + scale * p.distance;
                if terms.add(p.weight, softplus(z)) {
                    let slope = p.weight * scale * logistic(z);
                    terms.slope(p, slope);
                    pushed += slope;
                }
            }
            for n in anchor.negatives.iter().filter(|_| pushed != 0.0) {
                terms.slope(n, -pushed * n.weight * (-scale * n.distance - negatives).exp());
            }
        })
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        registry::positive("temperature", self.temperature).into_iter().collect()
    }
}

/// SimCLR's loss over two views of every example: each row against all others, the other view is its positive.
///
/// ```text
/// loss(i) = -ln(e^(s_ij / temperature) / sum over k != i of e^(s_ik / temperature)), j the other view of i
/// ```
///
/// Where a label has more than two rows, an anchor's other positives are left out, as in [`NTXentLoss`], which it is
/// but for the default temperature; the original refuses such batches.
///
/// Use it to repeat runs of the original's version 0.4.1.
///
/// Reference: `NTXentLoss` of Finetuner 0.4.1; Chen et al. 2020 (2002.05709).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FinetunerNTXentLoss {
    /// Default 0.1.
    pub temperature: f64,
}

impl Default for FinetunerNTXentLoss {
    fn default() -> Self {
        FinetunerNTXentLoss { temperature: 0.1 }
    }
}

impl Loss for FinetunerNTXentLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn mines(&self) -> bool {
        false
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        NTXentLoss { temperature: self.temperature, ..NTXentLoss::default() }.compute(tape, batch)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        registry::positive("temperature", self.temperature).into_iter().collect()
    }
}
