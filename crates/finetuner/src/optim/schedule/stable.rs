use serde::{Deserialize, Serialize};

use super::cosine::cosine;
use super::{Curve, Position};

/// One rate for most of the run, and a fall at the end.
///
/// ```text
/// factor = 1 for num_stable_steps, then within num_decay_steps, of which a share q is done, down to min_lr_ratio:
///          min_lr_ratio + (1 - min_lr_ratio) f(q)
/// f(q) = 1 - q | (1 + cos(2 pi num_cycles q)) / 2 | 1 - sqrt(q)    for decay_type linear | cosine | 1-sqrt
/// ```
///
/// The warm-up goes from min_lr_ratio to 1 in the same shapes.
///
/// Use it where a run may be continued from before its fall.
///
/// Reference: `get_wsd_schedule` of transformers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WarmupStableDecay {
    /// Default: a tenth of the steps after warm-up.
    pub num_decay_steps: Option<usize>,
    /// Default: what warm-up and decay leave.
    pub num_stable_steps: Option<usize>,
    /// Default `linear`.
    pub warmup_type: Shape,
    /// Default `cosine`.
    pub decay_type: Shape,
    /// Default 0.
    pub min_lr_ratio: f64,
    /// Half a cycle goes down once. Default 0.5.
    pub num_cycles: f64,
}

/// The shape of a rise or a fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shape {
    /// `linear`: `1 - q`
    #[serde(rename = "linear")]
    Linear,
    /// `cosine`: `(1 + cos(2 pi num_cycles q)) / 2`
    #[serde(rename = "cosine")]
    Cosine,
    /// `1-sqrt`: `1 - sqrt(q)`
    #[serde(rename = "1-sqrt")]
    Root,
}

impl Default for WarmupStableDecay {
    fn default() -> Self {
        WarmupStableDecay {
            num_decay_steps: None,
            num_stable_steps: None,
            warmup_type: Shape::Linear,
            decay_type: Shape::Cosine,
            min_lr_ratio: 0.0,
            num_cycles: 0.5,
        }
    }
}

impl WarmupStableDecay {
    fn above_least(&self, factor: f64) -> f64 {
        (factor * (1.0 - self.min_lr_ratio) + self.min_lr_ratio).max(0.0)
    }
}

impl Curve for WarmupStableDecay {
    fn factor(&self, at: Position) -> f64 {
        let after = at.step - at.warmup;
        let left = at.total.saturating_sub(at.warmup);
        let decay = self.num_decay_steps.unwrap_or(left / 10);
        let stable = self.num_stable_steps.unwrap_or(left.saturating_sub(decay));
        if after < stable {
            return 1.0;
        }
        if after >= stable + decay {
            return self.min_lr_ratio;
        }
        let progress = (after - stable) as f64 / decay.max(1) as f64;
        self.above_least(match self.decay_type {
            Shape::Linear => 1.0 - progress,
            Shape::Cosine => cosine(self.num_cycles, progress),
            Shape::Root => 1.0 - progress.sqrt(),
        })
    }

    fn warmup(&self, at: Position) -> f64 {
        let progress = at.warmed_up();
        self.above_least(match self.warmup_type {
            Shape::Linear => progress,
            Shape::Cosine => 1.0 - cosine(0.5, progress),
            Shape::Root => 1.0 - (1.0 - progress).sqrt(),
        })
    }
}
