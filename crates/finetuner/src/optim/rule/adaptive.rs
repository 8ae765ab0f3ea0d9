use engine::device::UpdateKind;
use serde::{Deserialize, Serialize};

use super::{Check, Rule, at_least_zero, below_one};

/// A rate for every weight that falls with its squared gradients.
///
/// ```text
/// G = G + g^2
/// w -= lr / (1 + (t - 1) lr_decay) g / (sqrt(G) + eps)
/// ```
///
/// Use it for weights that are seldom needed; steps only become smaller.
///
/// Reference: `torch.optim.Adagrad`; Duchi et al. 2011.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Adagrad {
    /// Default 0.
    pub lr_decay: f32,
    /// Where G starts. Default 0.
    pub initial_accumulator_value: f32,
    /// Default 1e-10.
    pub eps: f32,
    /// Added to the gradient. Default 0.
    pub weight_decay: f32,
}

impl Default for Adagrad {
    fn default() -> Self {
        Adagrad { lr_decay: 0.0, initial_accumulator_value: 0.0, eps: 1e-10, weight_decay: 0.0 }
    }
}

impl Rule for Adagrad {
    fn kind(&self) -> UpdateKind {
        UpdateKind::Adagrad {
            lr_decay: self.lr_decay,
            initial_accumulator_value: self.initial_accumulator_value,
            eps: self.eps,
        }
    }

    fn decay(&self) -> (f32, bool) {
        (self.weight_decay, false)
    }

    fn checks(&self) -> Vec<Check> {
        vec![
            at_least_zero("lr_decay", self.lr_decay),
            at_least_zero("initial_accumulator_value", self.initial_accumulator_value),
            at_least_zero("eps", self.eps),
            at_least_zero("weight_decay", self.weight_decay),
        ]
    }
}

/// Steps of the size of earlier steps.
///
/// ```text
/// E = rho E + (1 - rho) g^2      d = sqrt(D + eps) / sqrt(E + eps) g      D = rho D + (1 - rho) d^2
/// w -= lr d
/// ```
///
/// Use it with a learning rate near 1.
///
/// Reference: `torch.optim.Adadelta`; Zeiler 2012 (1212.5701).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Adadelta {
    /// Decay of both means. Default 0.9.
    pub rho: f32,
    /// Default 1e-6.
    pub eps: f32,
    /// Added to the gradient. Default 0.
    pub weight_decay: f32,
}

impl Default for Adadelta {
    fn default() -> Self {
        Adadelta { rho: 0.9, eps: 1e-6, weight_decay: 0.0 }
    }
}

impl Rule for Adadelta {
    fn kind(&self) -> UpdateKind {
        UpdateKind::Adadelta { rho: self.rho, eps: self.eps }
    }

    fn decay(&self) -> (f32, bool) {
        (self.weight_decay, false)
    }

    fn checks(&self) -> Vec<Check> {
        vec![
            below_one("rho", self.rho),
            at_least_zero("eps", self.eps),
            at_least_zero("weight_decay", self.weight_decay),
        ]
    }
}

/// Gradients by their recent size.
///
/// ```text
/// v = alpha v + (1 - alpha) g^2, centred less the square of the mean gradient
/// w -= lr g / (sqrt(v) + eps), or lr b with momentum, b = momentum b + g / (sqrt(v) + eps)
/// ```
///
/// Use it as Adam without a mean of the gradients.
///
/// Reference: `torch.optim.RMSprop`; Hinton 2012.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RmsProp {
    /// Decay of the squared gradients. Default 0.99.
    pub alpha: f32,
    /// Default 1e-8.
    pub eps: f32,
    /// Default 0.
    pub momentum: f32,
    /// Take the square of the mean gradient off. Default false.
    pub centered: bool,
    /// Added to the gradient. Default 0.
    pub weight_decay: f32,
}

impl Default for RmsProp {
    fn default() -> Self {
        RmsProp { alpha: 0.99, eps: 1e-8, momentum: 0.0, centered: false, weight_decay: 0.0 }
    }
}

impl Rule for RmsProp {
    fn kind(&self) -> UpdateKind {
        UpdateKind::RmsProp { alpha: self.alpha, eps: self.eps, momentum: self.momentum, centered: self.centered }
    }

    fn decay(&self) -> (f32, bool) {
        (self.weight_decay, false)
    }

    fn checks(&self) -> Vec<Check> {
        vec![
            below_one("alpha", self.alpha),
            below_one("momentum", self.momentum),
            at_least_zero("eps", self.eps),
            at_least_zero("weight_decay", self.weight_decay),
        ]
    }
}
