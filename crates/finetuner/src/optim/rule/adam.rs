use engine::device::UpdateKind;
use serde::{Deserialize, Serialize};

use super::{Check, Rule, at_least_zero, betas};

/// Adam: a step for every weight by the mean and the spread of its gradients.
///
/// ```text
/// g = gradient + weight_decay w
/// m = beta1 m + (1 - beta1) g      v = beta2 v + (1 - beta2) g^2
/// w -= lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
/// ```
///
/// Use it where nothing is known of the task: it is the default.
///
/// Reference: `torch.optim.Adam`; Kingma, Ba 2015 (1412.6980); Reddi et al. 2018 for `amsgrad`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Adam {
    /// Decay of the two moments. Default (0.9, 0.999).
    pub betas: (f32, f32),
    /// Default 1e-8.
    pub eps: f32,
    /// Added to the gradient. Default 0.
    pub weight_decay: f32,
    /// Divide by the largest second moment so far. Default false.
    pub amsgrad: bool,
}

impl Default for Adam {
    fn default() -> Self {
        Adam { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0, amsgrad: false }
    }
}

impl Rule for Adam {
    fn kind(&self) -> UpdateKind {
        UpdateKind::Adam { beta1: self.betas.0, beta2: self.betas.1, eps: self.eps, amsgrad: self.amsgrad }
    }

    fn decay(&self) -> (f32, bool) {
        (self.weight_decay, false)
    }

    fn checks(&self) -> Vec<Check> {
        vec![betas(self.betas), at_least_zero("eps", self.eps), at_least_zero("weight_decay", self.weight_decay)]
    }
}

/// Adam whose weight decay shrinks the weights themselves.
///
/// ```text
/// w = w (1 - lr weight_decay), then as Adam without weight decay
/// ```
///
/// Use it with weight decay: its strength then does not depend on the gradients.
///
/// Reference: `torch.optim.AdamW`; Loshchilov, Hutter 2019 (1711.05101).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamW {
    /// Decay of the two moments. Default (0.9, 0.999).
    pub betas: (f32, f32),
    /// Default 1e-8.
    pub eps: f32,
    /// Default 0.01.
    pub weight_decay: f32,
    /// Divide by the largest second moment so far. Default false.
    pub amsgrad: bool,
}

impl Default for AdamW {
    fn default() -> Self {
        AdamW { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.01, amsgrad: false }
    }
}

impl Rule for AdamW {
    fn kind(&self) -> UpdateKind {
        UpdateKind::Adam { beta1: self.betas.0, beta2: self.betas.1, eps: self.eps, amsgrad: self.amsgrad }
    }

    fn decay(&self) -> (f32, bool) {
        (self.weight_decay, true)
    }

    fn checks(&self) -> Vec<Check> {
        vec![betas(self.betas), at_least_zero("eps", self.eps), at_least_zero("weight_decay", self.weight_decay)]
    }
}

/// Adam that begins with momentum alone until the spread of the gradients is known well enough.
///
/// ```text
/// r = 2 / (1 - beta2) - 1 - 2 t beta2^t / (1 - beta2^t), R its first two terms
/// w -= lr m / (1 - beta1^t) sqrt((r - 4) (r - 2) R / ((R - 4) (R - 2) r)) sqrt(1 - beta2^t) / (sqrt(v) + eps) where r > 5
/// w -= lr m / (1 - beta1^t) otherwise
/// ```
///
/// Use it in place of a warm-up.
///
/// Reference: `torch.optim.RAdam`; Liu et al. 2020 (1908.03265).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RAdam {
    /// Decay of the two moments. Default (0.9, 0.999).
    pub betas: (f32, f32),
    /// Default 1e-8.
    pub eps: f32,
    /// Default 0.
    pub weight_decay: f32,
    /// Shrink the weights as AdamW does. Default false.
    pub decoupled_weight_decay: bool,
}

impl Default for RAdam {
    fn default() -> Self {
        RAdam { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0, decoupled_weight_decay: false }
    }
}

impl Rule for RAdam {
    fn kind(&self) -> UpdateKind {
        UpdateKind::RAdam { beta1: self.betas.0, beta2: self.betas.1, eps: self.eps }
    }

    fn decay(&self) -> (f32, bool) {
        (self.weight_decay, self.decoupled_weight_decay)
    }

    fn checks(&self) -> Vec<Check> {
        vec![betas(self.betas), at_least_zero("eps", self.eps), at_least_zero("weight_decay", self.weight_decay)]
    }
}

/// Adam with Nesterov's momentum.
///
/// ```text
/// mu_t = beta1 (1 - 0.96^(t momentum_decay) / 2)    M_t = mu_1 mu_2 ... mu_t
/// w -= lr ((1 - mu_t) / (1 - M_t) g + mu_(t+1) / (1 - M_(t+1)) m) / (sqrt(v / (1 - beta2^t)) + eps)
/// ```
///
/// Use it as Adam; it looks one step ahead.
///
/// Reference: `torch.optim.NAdam`; Dozat 2016.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NAdam {
    /// Decay of the two moments. Default (0.9, 0.999).
    pub betas: (f32, f32),
    /// Default 1e-8.
    pub eps: f32,
    /// Default 0.
    pub weight_decay: f32,
    /// Default 0.004.
    pub momentum_decay: f32,
    /// Shrink the weights as AdamW does. Default false.
    pub decoupled_weight_decay: bool,
}

impl Default for NAdam {
    fn default() -> Self {
        NAdam {
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.0,
            momentum_decay: 0.004,
            decoupled_weight_decay: false,
        }
    }
}

impl Rule for NAdam {
    fn kind(&self) -> UpdateKind {
        UpdateKind::NAdam {
            beta1: self.betas.0,
            beta2: self.betas.1,
            eps: self.eps,
            momentum_decay: self.momentum_decay,
        }
    }

    fn decay(&self) -> (f32, bool) {
        (self.weight_decay, self.decoupled_weight_decay)
    }

    fn checks(&self) -> Vec<Check> {
        vec![
            betas(self.betas),
            at_least_zero("momentum_decay", self.momentum_decay),
            at_least_zero("eps", self.eps),
            at_least_zero("weight_decay", self.weight_decay),
        ]
    }
}

/// Adam by the largest of the recent gradients.
///
/// ```text
/// m = beta1 m + (1 - beta1) g      u = max(beta2 u, abs(g) + eps)
/// w -= lr / (1 - beta1^t) m / u
/// ```
///
/// Use it where few gradients are large, as in embeddings of rare words.
///
/// Reference: `torch.optim.Adamax`; Kingma, Ba 2015 (1412.6980).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Adamax {
    /// Decay of the moment and of the norm. Default (0.9, 0.999).
    pub betas: (f32, f32),
    /// Default 1e-8.
    pub eps: f32,
    /// Added to the gradient. Default 0.
    pub weight_decay: f32,
}

impl Default for Adamax {
    fn default() -> Self {
        Adamax { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0 }
    }
}

impl Rule for Adamax {
    fn kind(&self) -> UpdateKind {
        UpdateKind::Adamax { beta1: self.betas.0, beta2: self.betas.1, eps: self.eps }
    }

    fn decay(&self) -> (f32, bool) {
        (self.weight_decay, false)
    }

    fn checks(&self) -> Vec<Check> {
        vec![betas(self.betas), at_least_zero("eps", self.eps), at_least_zero("weight_decay", self.weight_decay)]
    }
}
