use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::anchor::{Anchor, logistic, softplus};
use crate::objective::reducer::Of;
use crate::objective::{Distance, Needs, Reducer, registry};

/// Easy positive, hard negative: an anchor's nearest positive against its nearest negative, so that a class may stay
/// spread out.
///
/// ```text
/// loss(i) = ln(1 + e^((s_in - s_ip) / sigma)),  p the positive of largest, n the negative of largest s
/// ```
///
/// Anchors without a positive or a negative are left out.
///
/// Use it for classes whose items look different from one another: each is drawn to its nearest only.
///
/// Reference: Xuan, Stylianou, Pless 2020 (1904.04370).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EPHN {
    /// Temperature. Default 0.1.
    pub sigma: f64,
    /// Default `cosine`; distances are negated.
    pub distance: Distance,
    /// Over the anchors. Default `mean`.
    pub reducer: Reducer,
}

impl Default for EPHN {
    fn default() -> Self {
        EPHN { sigma: 0.1, distance: Distance::Cosine, reducer: Reducer::Mean }
    }
}

impl Loss for EPHN {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        easy_positive(tape, batch, self, false)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        registry::positive("sigma", self.sigma).into_iter().collect()
    }
}

/// Easy positive, semihard negative: [`EPHN`] with the nearest negative that is not nearer than the positive. Anchors
/// without one are left out.
///
/// Use it as `EPHN` on noisier labels: the hardest negatives are left alone.
///
/// Reference: Xuan, Stylianou, Pless 2020 (1904.04370).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EPSHN(pub EPHN);

impl Loss for EPSHN {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        easy_positive(tape, batch, &self.0, true)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        self.0.problems()
    }
}

fn easy_positive(tape: &mut Tape<'_>, batch: &Batch<'_>, options: &EPHN, semihard: bool) -> Result<Var> {
    let sigma = options.sigma;
    let pairs = batch.pairs(tape, false);
    batch.per_anchor(tape, options.distance, &options.reducer, Of::Elements, pairs, move |anchor, terms| {
        let Some(p) = Anchor::nearest(&anchor.positives) else { return };
        let allowed = anchor.negatives.iter().filter(|n| !semihard || n.distance >= p.distance);
        let Some(n) = Anchor::nearest(&allowed.copied().collect::<Vec<_>>()) else { return };
        let z = (p.distance - n.distance) / sigma;
        if terms.add(1.0, softplus(z)) {
            terms.slope(&p, logistic(z) / sigma);
            terms.slope(&n, -logistic(z) / sigma);
        }
    })
}
