//! Learning-rate schedules: pure functions of the step.

use serde::Deserialize;

use crate::error::{Error, Result, nearest};
use crate::spec::Options;

/// The curve after warm-up, transformers' definitions; `p` is the share of the steps after warm-up that are done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ScheduleKind {
    /// 1
    Constant,
    /// `1 - p`
    Linear,
    /// `(1 + cos(2 pi num_cycles p)) / 2`
    Cosine {
        /// Half a cycle by default: from 1 to 0.
        num_cycles: f64,
    },
    /// `((rate - lr_end) (1 - p)^power + lr_end) / rate`
    Polynomial {
        /// The last rate. Default 1e-7.
        lr_end: f64,
        /// Default 1.
        power: f64,
    },
}

/// A factor on the learning rate for every step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    kind: ScheduleKind,
    warmup_steps: usize,
    total_steps: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScheduleOptions {
    num_warmup_steps: Option<usize>,
    num_training_steps: Option<serde_json::Value>,
    scheduler_step: Option<String>,
    num_cycles: Option<f64>,
    lr_end: Option<f64>,
    power: Option<f64>,
}

impl Schedule {
    /// The schedules by name.
    pub const NAMES: [&str; 5] = ["constant", "constant_with_warmup", "linear", "cosine", "polynomial"];

    /// A schedule by name; without one the rate is constant after warm-up. `warmup` is steps if at least 1, a share of
    /// `total_steps` otherwise.
    ///
    /// # Errors
    /// [`Error::Spec`] for an unknown name or option.
    pub fn new(name: Option<&str>, options: &Options, warmup: f64, total_steps: usize) -> Result<Self> {
        let known = ["num_warmup_steps", "num_training_steps", "scheduler_step", "num_cycles", "lr_end", "power"];
        let refuse = |problem: String| Error::spec("scheduler_options", problem);
        if let Some(key) = options.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(refuse(format!("there is no option `{key}`{}", nearest(key, known))));
        }
        let options: ScheduleOptions =
            serde_json::from_value(options.clone().into()).map_err(|error| refuse(error.to_string()))?;
        if let Some(step) = options.scheduler_step.as_deref().filter(|step| *step != "batch") {
            return Err(refuse(format!("`scheduler_step` must be `batch`, got `{step}`")));
        }
        let total_steps = match options.num_training_steps {
            None => total_steps,
            Some(value) if value == "auto" => total_steps,
            Some(value) => match value.as_u64() {
                Some(steps) => steps as usize,
                None => return Err(refuse(format!("`num_training_steps` must be `auto` or a number, got {value}"))),
            },
        };
        let kind = match name.unwrap_or("constant") {
            "constant" | "constant_with_warmup" => ScheduleKind::Constant,
            "linear" => ScheduleKind::Linear,
            "cosine" => ScheduleKind::Cosine { num_cycles: options.num_cycles.unwrap_or(0.5) },
            "polynomial" => {
                ScheduleKind::Polynomial { lr_end: options.lr_end.unwrap_or(1e-7), power: options.power.unwrap_or(1.0) }
            }
            other => {
                let problem = format!("`{other}` is not known{}", nearest(other, Self::NAMES));
                return Err(Error::spec("scheduler", problem));
            }
        };
        if !warmup.is_finite() || warmup < 0.0 {
            return Err(Error::spec("warmup", format!("must be steps or a share of the run, got {warmup}")));
        }
        let asked = if warmup < 1.0 { (warmup * total_steps as f64).ceil() as usize } else { warmup as usize };
        let warmup_steps = options.num_warmup_steps.unwrap_or(asked);
        Ok(Schedule { kind, warmup_steps, total_steps })
    }

    /// The factor for a step counted from 0. As in transformers the first step of a warm-up has rate 0.
    pub fn factor(&self, step: usize, learning_rate: f64) -> f64 {
        if step < self.warmup_steps {
            return step as f64 / self.warmup_steps as f64;
        }
        let length = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let progress = ((step - self.warmup_steps) as f64 / length as f64).min(1.0);
        match self.kind {
            ScheduleKind::Constant => 1.0,
            ScheduleKind::Linear => 1.0 - progress,
            ScheduleKind::Cosine { num_cycles } => {
                (0.5 * (1.0 + (2.0 * std::f64::consts::PI * num_cycles * progress).cos())).max(0.0)
            }
            ScheduleKind::Polynomial { lr_end, power } => {
                ((learning_rate - lr_end) * (1.0 - progress).powf(power) + lr_end) / learning_rate
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(name: &str, warmup: f64) -> Schedule {
        Schedule::new(Some(name), &Options::new(), warmup, 110).unwrap()
    }

    #[test]
    fn schedules_follow_transformers() {
        // transformers.get_scheduler(name, optimizer, num_warmup_steps=10, num_training_steps=110), lr 1e-3
        for (name, expected) in [
            ("linear", [0.0, 0.5, 1.0, 0.75, 0.5, 0.0]),
            ("cosine", [0.0, 0.5, 1.0, 0.853_553_390_593, 0.5, 0.0]),
            ("polynomial", [0.0, 0.5, 1.0, 0.750_025, 0.500_05, 1e-4]),
            ("constant_with_warmup", [0.0, 0.5, 1.0, 1.0, 1.0, 1.0]),
        ] {
            let schedule = schedule(name, 10.0);
            for (step, expected) in [0, 5, 10, 35, 60, 110].into_iter().zip(expected) {
                let factor = schedule.factor(step, 1e-3);
                assert!((factor - expected).abs() < 1e-9, "{name} at {step}: {factor}, expected {expected}");
            }
        }
    }

    #[test]
    fn a_warmup_below_one_is_a_share_of_the_run() {
        assert_eq!(schedule("linear", 0.1), schedule("linear", 11.0));
    }

    #[test]
    fn an_unknown_schedule_suggests_the_nearest() {
        let error = Schedule::new(Some("cosin"), &Options::new(), 0.0, 10).unwrap_err().to_string();
        assert!(error.contains("did you mean `cosine`"), "{error}");
    }
}
