use engine::device::UpdateKind;
use serde::{Deserialize, Serialize};

use super::{Check, Rule, at_least_zero, below_one};

/// Stochastic gradient descent with momentum.
///
/// ```text
/// g = gradient + weight_decay w
/// v = momentum v + (1 - dampening) g, on the first step v = g
/// w -= lr v, with nesterov lr (g + momentum v)
/// ```
///
/// Use it for image encoders with a schedule; transformers learn better with Adam.
///
/// Reference: `torch.optim.SGD`; Sutskever et al. 2013.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sgd {
    /// Default 0.
    pub momentum: f32,
    /// Of the gradient's part in the momentum. Default 0.
    pub dampening: f32,
    /// Look ahead along the momentum. Default false.
    pub nesterov: bool,
    /// Added to the gradient. Default 0.
    pub weight_decay: f32,
}

impl Default for Sgd {
    fn default() -> Self {
        Sgd { momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.0 }
    }
}

impl Rule for Sgd {
    fn kind(&self) -> UpdateKind {
        UpdateKind::Sgd { momentum: self.momentum, dampening: self.dampening, nesterov: self.nesterov }
    }

    fn decay(&self) -> (f32, bool) {
        (self.weight_decay, false)
    }

    fn checks(&self) -> Vec<Check> {
        vec![
            below_one("momentum", self.momentum),
            (self.nesterov && (self.momentum == 0.0 || self.dampening != 0.0))
                .then(|| ("nesterov", "needs a momentum and no dampening".to_owned())),
            at_least_zero("weight_decay", self.weight_decay),
        ]
    }
}

/// Gradient descent with a rate that falls.
///
/// ```text
/// eta = lr / (1 + lambd lr (t - 1))^alpha
/// w = w (1 - lambd eta) - eta g
/// ```
///
/// The average of the weights that torch keeps from step `t0` on is read by nothing and is not kept.
///
/// Use it where a run of the original used it.
///
/// Reference: `torch.optim.ASGD`; Polyak, Juditsky 1992.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Asgd {
    /// Default 1e-4.
    pub lambd: f32,
    /// Default 0.75.
    pub alpha: f32,
    /// Added to the gradient. Default 0.
    pub weight_decay: f32,
}

impl Default for Asgd {
    fn default() -> Self {
        Asgd { lambd: 1e-4, alpha: 0.75, weight_decay: 0.0 }
    }
}

impl Rule for Asgd {
    fn kind(&self) -> UpdateKind {
        UpdateKind::Asgd { lambd: self.lambd, alpha: self.alpha }
    }

    fn decay(&self) -> (f32, bool) {
        (self.weight_decay, false)
    }

    fn checks(&self) -> Vec<Check> {
        vec![
            at_least_zero("lambd", self.lambd),
            at_least_zero("alpha", self.alpha),
            at_least_zero("weight_decay", self.weight_decay),
        ]
    }
}

/// A step of its own for every weight, by the sign of its gradient alone.
///
/// ```text
/// step = lr at first; times etas[1] where the gradient keeps its sign, times etas[0] where it changes, within step_sizes
/// w -= sign(g) step, nothing where the sign changed
/// ```
///
/// Use it on whole data sets in one batch, not on small ones.
///
/// Reference: `torch.optim.Rprop`; Riedmiller, Braun 1993.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rprop {
    /// Factors of the step on a change of sign and without one. Default (0.5, 1.2).
    pub etas: (f32, f32),
    /// The shortest and the longest step. Default (1e-6, 50).
    pub step_sizes: (f32, f32),
}

impl Default for Rprop {
    fn default() -> Self {
        Rprop { etas: (0.5, 1.2), step_sizes: (1e-6, 50.0) }
    }
}

impl Rule for Rprop {
    fn kind(&self) -> UpdateKind {
        UpdateKind::Rprop { etas: self.etas, step_sizes: self.step_sizes }
    }

    fn checks(&self) -> Vec<Check> {
        vec![
            (self.step_sizes.0 > self.step_sizes.1 || self.step_sizes.0 < 0.0)
                .then(|| ("step_sizes", "expected the shortest, then the longest".to_owned())),
            (!(self.etas.0 > 0.0 && self.etas.0 < 1.0 && self.etas.1 > 1.0))
                .then(|| ("etas", "expected a number between 0 and 1, then one above 1".to_owned())),
        ]
    }
}
