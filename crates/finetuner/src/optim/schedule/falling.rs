use serde::{Deserialize, Serialize};

use super::{Curve, Position};

/// One rate.
///
/// ```text
/// factor = 1
/// ```
///
/// Use it for short runs, and where the rate is small enough for the last step.
///
/// Reference: `get_constant_schedule_with_warmup` of transformers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Constant {}

impl Curve for Constant {
    fn factor(&self, _: Position) -> f64 {
        1.0
    }
}

/// A straight line to 0.
///
/// ```text
/// factor = 1 - p
/// ```
///
/// Use it where nothing is known of the task, with a warm-up of a tenth.
///
/// Reference: `get_linear_schedule_with_warmup` of transformers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Linear {}

impl Curve for Linear {
    fn factor(&self, at: Position) -> f64 {
        1.0 - at.progress()
    }
}

/// A power of what is left.
///
/// ```text
/// factor = ((rate - lr_end) (1 - p)^power + lr_end) / rate
/// ```
///
/// Use it where the last rate is to be above 0, or the fall steep at first.
///
/// Reference: `get_polynomial_decay_schedule_with_warmup` of transformers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Polynomial {
    /// The last rate. Default 1e-7.
    pub lr_end: f64,
    /// Default 1.
    pub power: f64,
}

impl Default for Polynomial {
    fn default() -> Self {
        Polynomial { lr_end: 1e-7, power: 1.0 }
    }
}

impl Curve for Polynomial {
    fn factor(&self, at: Position) -> f64 {
        let rate = at.learning_rate;
        ((rate - self.lr_end) * (1.0 - at.progress()).powf(self.power) + self.lr_end) / rate
    }
}

/// One by the root of the steps.
///
/// ```text
/// factor = sqrt(timescale / (s + timescale - w))    s steps, w of warm-up
/// ```
///
/// Use it where the end of training is not known before.
///
/// Reference: `get_inverse_sqrt_schedule` of transformers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InverseSqrt {
    /// In steps. Default: those of the warm-up, else 10,000.
    pub timescale: Option<usize>,
}

impl Curve for InverseSqrt {
    fn factor(&self, at: Position) -> f64 {
        let timescale = self.timescale.unwrap_or(if at.warmup == 0 { 10_000 } else { at.warmup }) as f64;
        (timescale / (at.after_warmup() + timescale)).sqrt()
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let none = self.timescale == Some(0);
        none.then(|| ("timescale", "expected 1 or more, got 0".to_owned())).into_iter().collect()
    }
}

/// A factor at regular distances.
///
/// ```text
/// factor = gamma^floor((s - w) / step_size)
/// ```
///
/// Use it as recipes for image encoders do.
///
/// Reference: `StepLR` of torch, by steps and not epochs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Step {
    /// Steps between two falls. Default: a third of those after warm-up.
    pub step_size: Option<usize>,
    /// Default 0.1.
    pub gamma: f64,
}

impl Default for Step {
    fn default() -> Self {
        Step { step_size: None, gamma: 0.1 }
    }
}

impl Curve for Step {
    fn factor(&self, at: Position) -> f64 {
        let size = self.step_size.map_or((at.length() / 3.0).ceil(), |size| size as f64).max(1.0);
        self.gamma.powf((at.after_warmup() / size).floor())
    }
}

/// A factor after some steps.
///
/// ```text
/// factor = gamma^(number of milestones <= s - w)
/// ```
///
/// Use it as recipes for image encoders do.
///
/// Reference: `MultiStepLR` of torch, by steps and not epochs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MultiStep {
    /// Steps after warm-up, rising. No default.
    pub milestones: Vec<usize>,
    /// Default 0.1.
    pub gamma: f64,
}

impl Default for MultiStep {
    fn default() -> Self {
        MultiStep { milestones: Vec::new(), gamma: 0.1 }
    }
}

impl Curve for MultiStep {
    fn factor(&self, at: Position) -> f64 {
        let passed = self.milestones.iter().filter(|milestone| **milestone as f64 <= at.after_warmup()).count();
        self.gamma.powi(passed as i32)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let none = self.milestones.is_empty();
        none.then(|| ("milestones", "expected one step or more, as in `[100, 200]`".to_owned())).into_iter().collect()
    }
}

/// The same factor every step.
///
/// ```text
/// factor = gamma^(s - w)
/// ```
///
/// Use it with a factor just below 1.
///
/// Reference: `ExponentialLR` of torch, by steps and not epochs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Exponential {
    /// Default 0.999.
    pub gamma: f64,
}

impl Default for Exponential {
    fn default() -> Self {
        Exponential { gamma: 0.999 }
    }
}

impl Curve for Exponential {
    fn factor(&self, at: Position) -> f64 {
        self.gamma.powf(at.after_warmup())
    }
}
