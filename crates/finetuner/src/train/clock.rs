//! `max_time`: when a run has to come to its end.

use std::time::{Duration, Instant};

use super::progress::Progress;
use crate::error::{Error, Result};
use crate::spec::{RunSpec, parse_duration};

/// The time of a run, from its start or, where it goes on, with the time it took before.
#[derive(Debug)]
pub(crate) struct Clock {
    limit: Option<Duration>,
    started: Instant,
    /// Seconds that the parts of the run before this one took.
    before: f64,
    /// Seconds that the last measurement will take, about.
    measurement: f64,
}

impl Clock {
    /// # Errors
    /// [`Error::Spec`] for a `max_time` that is no span of time.
    pub(crate) fn start(spec: &RunSpec) -> Result<Self> {
        let limit = spec.max_time.as_deref().map(parse_duration).transpose();
        let limit = limit.map_err(|problem| Error::spec("max_time", problem))?;
        Ok(Clock { limit, started: Instant::now(), before: 0.0, measurement: 0.0 })
    }

    /// Counts what the parts of the run before this one took, and leaves `measurement` seconds for the last one.
    pub(crate) fn leaving(self, before: f64, measurement: f64) -> Self {
        Clock { before, measurement, ..self }
    }

    /// Whether another step would leave too little time for the last measurement.
    pub(crate) fn is_over(&self) -> bool {
        let taken = self.started.elapsed().as_secs_f64() + self.before + self.measurement;
        self.limit.is_some_and(|limit| taken >= limit.as_secs_f64())
    }
}

/// Seconds that a run has taken, of which a checkpoint knows.
pub(crate) fn taken(progress: &Progress) -> f64 {
    progress.train_seconds + progress.evaluate_seconds
}
