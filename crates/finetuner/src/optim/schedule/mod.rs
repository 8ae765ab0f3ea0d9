//! Learning-rate schedules: pure functions of the step.
//!
//! A schedule is a struct whose fields are its options, named in one table; names, options, defaults and values are those of
//! transformers, and of torch for `step`, `multi_step` and `exponential`.

mod cosine;
mod falling;
mod stable;

use serde::Serialize;
use serde_json::Value;

pub use self::cosine::{Cosine, CosineWarmupWithMinLr, CosineWithMinLr, CosineWithRestarts};
pub use self::falling::{Constant, Exponential, InverseSqrt, Linear, MultiStep, Polynomial, Step};
pub use self::stable::{Shape, WarmupStableDecay};
use crate::error::{Error, Result};
use crate::objective::registry::{self, Entry};
use crate::spec::Options;

/// Where a run stands. p, the progress, is the share of the steps after warm-up that are done.
#[derive(Debug, Clone, Copy)]
pub struct Position {
    step: usize,
    warmup: usize,
    total: usize,
    learning_rate: f64,
}

impl Position {
    fn after_warmup(self) -> f64 {
        (self.step - self.warmup.min(self.step)) as f64
    }

    fn length(self) -> f64 {
        self.total.saturating_sub(self.warmup).max(1) as f64
    }

    fn progress(self) -> f64 {
        (self.after_warmup() / self.length()).min(1.0)
    }

    /// The share of the warm-up that is done. As in transformers the first step has rate 0.
    fn warmed_up(self) -> f64 {
        self.step as f64 / self.warmup as f64
    }
}

/// A curve with its options.
pub trait Curve: std::fmt::Debug + Send + Sync {
    /// The factor on the learning rate after warm-up.
    fn factor(&self, at: Position) -> f64;

    /// The factor within the warm-up.
    fn warmup(&self, at: Position) -> f64 {
        at.warmed_up()
    }

    /// What is wrong in the options, as option and sentence.
    fn problems(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

const SCHEDULES: &[Entry<dyn Curve>] = &[
    entry::<Constant>("constant", &["constant_with_warmup", "const"]),
    entry::<Linear>("linear", &[]),
    entry::<Cosine>("cosine", &[]),
    entry::<CosineWithRestarts>("cosine_with_restarts", &[]),
    entry::<CosineWithMinLr>("cosine_with_min_lr", &[]),
    entry::<CosineWarmupWithMinLr>("cosine_warmup_with_min_lr", &[]),
    entry::<Polynomial>("polynomial", &[]),
    entry::<InverseSqrt>("inverse_sqrt", &[]),
    entry::<WarmupStableDecay>("warmup_stable_decay", &[]),
    entry::<Step>("step", &["StepLR"]),
    entry::<MultiStep>("multi_step", &["MultiStepLR"]),
    entry::<Exponential>("exponential", &["ExponentialLR"]),
];

const REFUSED: &[(&str, &str)] = &[
    (
        "reduce_lr_on_plateau",
        "follows the validation loss, and schedules here are functions of the step, so that a resumed run is the same; take \
         `EarlyStopping` with `cosine` or `warmup_stable_decay`",
    ),
    ("const-cooldown", "is called `warmup_stable_decay` here, with `decay_type=linear`"),
];

const fn entry<T>(name: &'static str, aliases: &'static [&'static str]) -> Entry<dyn Curve>
where
    T: Curve + Serialize + serde::de::DeserializeOwned + Default + 'static,
{
    Entry {
        name,
        aliases,
        build: |options| {
            let curve: T = registry::parse("scheduler_options", options)?;
            registry::checked("scheduler_options", curve.problems())?;
            Ok(Box::new(curve))
        },
    }
}

/// All known names.
pub fn names() -> Vec<&'static str> {
    SCHEDULES.iter().map(|entry| entry.name).collect()
}

/// A factor on the learning rate for every step.
#[derive(Debug)]
pub struct Schedule {
    curve: Box<dyn Curve>,
    warmup_steps: usize,
    total_steps: usize,
}

impl Schedule {
    /// A schedule by name; without one the rate is constant after warm-up. `warmup` is steps if at least 1, a share of
    /// `total_steps` otherwise. Options of every schedule: `num_warmup_steps` and `num_training_steps` (`auto` or a number)
    /// in place of both, and `scheduler_step`, which is `batch`.
    ///
    /// # Errors
    /// [`Error::Spec`] for an unknown name or option.
    pub fn new(name: Option<&str>, options: &Options, warmup: f64, total_steps: usize) -> Result<Self> {
        let refuse = |problem: String| Error::spec("scheduler_options", problem);
        let mut options = options.clone();
        if let Some(step) = options.remove("scheduler_step").filter(|step| *step != "batch") {
            return Err(refuse(format!("`scheduler_step` must be `batch`, got {step}")));
        }
        let total_steps = match options.remove("num_training_steps") {
            None => total_steps,
            Some(value) if value == "auto" => total_steps,
            Some(value) => match value.as_u64() {
                Some(steps) => steps as usize,
                None => return Err(refuse(format!("`num_training_steps` must be `auto` or a number, got {value}"))),
            },
        };
        let given = match options.remove("num_warmup_steps") {
            None | Some(Value::Null) => None,
            Some(value) => match value.as_u64() {
                Some(steps) => Some(steps as usize),
                None => return Err(refuse(format!("`num_warmup_steps` must be a number of steps, got {value}"))),
            },
        };
        let curve = registry::build("scheduler", SCHEDULES, REFUSED, name.unwrap_or("constant"), &options)?;
        if !warmup.is_finite() || warmup < 0.0 {
            return Err(Error::spec("warmup", format!("must be steps or a share of the run, got {warmup}")));
        }
        let asked = if warmup < 1.0 { (warmup * total_steps as f64).ceil() as usize } else { warmup as usize };
        Ok(Schedule { curve, warmup_steps: given.unwrap_or(asked), total_steps })
    }

    /// The factor for a step counted from 0. As in transformers the first step of a warm-up has rate 0.
    pub fn factor(&self, step: usize, learning_rate: f64) -> f64 {
        let at = Position { step, warmup: self.warmup_steps, total: self.total_steps, learning_rate };
        if step < self.warmup_steps { self.curve.warmup(at) } else { self.curve.factor(at) }
    }
}

#[cfg(test)]
#[path = "../schedule_tests.rs"]
mod tests;
