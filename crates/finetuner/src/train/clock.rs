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
}

impl Clock {
    /// # Errors
    /// [`Error::Spec`] for a `max_time` that is no span of time.
    pub(crate) fn start(spec: &RunSpec) -> Result<Self> {
        let limit = spec.max_time.as_deref().map(parse_duration).transpose();
        let limit = limit.map_err(|problem| Error::spec("max_time", problem))?;
        Ok(Clock { limit, started: Instant::now() })
    }

    /// Whether another step would leave too little time for the last measurement, which takes about `measurement`
    /// seconds. `before` is what the parts of the run before this one took.
    pub(crate) fn is_over(&self, before: f64, measurement: f64) -> bool {
        let taken = self.started.elapsed().as_secs_f64() + before + measurement;
        self.limit.is_some_and(|limit| taken >= limit.as_secs_f64())
    }
}

/// Seconds that a run has taken, of which a checkpoint knows.
pub(crate) fn taken(progress: &Progress) -> f64 {
    progress.train_seconds + progress.evaluate_seconds
}
