use serde::{Deserialize, Serialize};

use super::{Curve, Position};

/// The cosine of the progress.
///
/// ```text
/// factor = max(0, (1 + cos(2 pi num_cycles p)) / 2)
/// ```
///
/// Use it for longer runs: the rate stays high for longer than on a line.
///
/// Reference: `get_cosine_schedule_with_warmup` of transformers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cosine {
    /// Half a cycle goes from 1 to 0. Default 0.5.
    pub num_cycles: f64,
}

impl Default for Cosine {
    fn default() -> Self {
        Cosine { num_cycles: 0.5 }
    }
}

pub(super) fn cosine(num_cycles: f64, progress: f64) -> f64 {
    0.5 * (1.0 + (2.0 * std::f64::consts::PI * num_cycles * progress).cos())
}

impl Curve for Cosine {
    fn factor(&self, at: Position) -> f64 {
        cosine(self.num_cycles, at.progress()).max(0.0)
    }
}

/// Cosines from 1 to 0, one after the other.
///
/// ```text
/// factor = (1 + cos(pi (num_cycles p mod 1))) / 2, and 0 at the end
/// ```
///
/// Use it to leave a minimum again and again.
///
/// Reference: `get_cosine_with_hard_restarts_schedule_with_warmup` of transformers; Loshchilov, Hutter 2017 (1608.03983).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CosineWithRestarts {
    /// Default 1.
    pub num_cycles: f64,
}

impl Default for CosineWithRestarts {
    fn default() -> Self {
        CosineWithRestarts { num_cycles: 1.0 }
    }
}

impl Curve for CosineWithRestarts {
    fn factor(&self, at: Position) -> f64 {
        let progress = at.progress();
        if progress >= 1.0 {
            return 0.0;
        }
        cosine(0.5, (self.num_cycles * progress) % 1.0).max(0.0)
    }
}

/// A cosine that ends above 0.
///
/// ```text
/// factor = r + (1 - r) (1 + cos(2 pi num_cycles p)) / 2    r = min_lr_rate = min_lr / learning rate
/// ```
///
/// Use it where the last steps are still to learn something.
///
/// Reference: `get_cosine_with_min_lr_schedule_with_warmup` of transformers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CosineWithMinLr {
    /// The least rate; this or `min_lr_rate`. Default none.
    pub min_lr: Option<f64>,
    /// The same as a share of the learning rate. Default none.
    pub min_lr_rate: Option<f64>,
    /// Half a cycle goes down once. Default 0.5.
    pub num_cycles: f64,
}

impl Default for CosineWithMinLr {
    fn default() -> Self {
        CosineWithMinLr { min_lr: None, min_lr_rate: None, num_cycles: 0.5 }
    }
}

/// The least factor.
fn least(min_lr: Option<f64>, min_lr_rate: Option<f64>, learning_rate: f64) -> f64 {
    min_lr.map(|rate| rate / learning_rate).or(min_lr_rate).unwrap_or(0.0)
}

fn one_of(min_lr: Option<f64>, min_lr_rate: Option<f64>) -> Vec<(&'static str, String)> {
    if min_lr.is_some() != min_lr_rate.is_some() {
        return Vec::new();
    }
    vec![("min_lr", "expected one of `min_lr` and `min_lr_rate`".to_owned())]
}

impl Curve for CosineWithMinLr {
    fn factor(&self, at: Position) -> f64 {
        let least = least(self.min_lr, self.min_lr_rate, at.learning_rate);
        (cosine(self.num_cycles, at.progress()) * (1.0 - least) + least).max(0.0)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        one_of(self.min_lr, self.min_lr_rate)
    }
}

/// `cosine_with_min_lr` one step ahead, so that no step has rate 0.
///
/// ```text
/// factor = (s + 1) / w in the warm-up of w steps, or from warmup_lr_rate to 1 on a line
/// factor = r + (1 - r) (1 + cos(2 pi num_cycles (s + 1 - w) / (T - w))) / 2    r = min_lr_rate = min_lr / learning rate
/// ```
///
/// Use it as `cosine_with_min_lr`.
///
/// Reference: `get_cosine_with_min_lr_schedule_with_warmup_lr_rate` of transformers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CosineWarmupWithMinLr {
    /// The least rate; this or `min_lr_rate`. Default none.
    pub min_lr: Option<f64>,
    /// The same as a share of the learning rate. Default none.
    pub min_lr_rate: Option<f64>,
    /// Half a cycle goes down once. Default 0.5.
    pub num_cycles: f64,
    /// The factor of the first step of the warm-up. Default none.
    pub warmup_lr_rate: Option<f64>,
}

impl Default for CosineWarmupWithMinLr {
    fn default() -> Self {
        CosineWarmupWithMinLr { min_lr: None, min_lr_rate: None, num_cycles: 0.5, warmup_lr_rate: None }
    }
}

impl Curve for CosineWarmupWithMinLr {
    fn factor(&self, at: Position) -> f64 {
        let least = least(self.min_lr, self.min_lr_rate, at.learning_rate);
        let progress = (at.after_warmup() + 1.0) / at.length();
        (cosine(self.num_cycles, progress) * (1.0 - least) + least).max(0.0)
    }

    fn warmup(&self, at: Position) -> f64 {
        match self.warmup_lr_rate {
            None => (at.step + 1) as f64 / at.warmup as f64,
            Some(first) => first + (1.0 - first) * at.step as f64 / at.warmup.saturating_sub(1).max(1) as f64,
        }
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        one_of(self.min_lr, self.min_lr_rate)
    }
}
