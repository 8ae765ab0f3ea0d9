//! Watching a run: the validation loss and the measurements, and who is told of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use engine::Device;

use super::batch::Batch;
use super::callbacks::{Best, Callbacks, EvaluationCallback};
use super::learner::Learner;
use super::measure::{Measurement, Target};
use super::recorder::Recorder;
use super::report::Compared;
use super::state::{Kept, State};
use super::step;
use crate::encoder::TextModel;
use crate::error::{Error, Result};
use crate::spec::RunSpec;

/// Measures the model, and ends a measurement when the run is told to stop.
pub(crate) struct Watch<'a> {
    pub(crate) device: &'a dyn Device,
    pub(crate) stop: &'a AtomicBool,
    pub(crate) target: Option<Target>,
    pub(crate) validation: Vec<Batch>,
    /// How the target is measured.
    pub(crate) evaluation: EvaluationCallback,
    /// What stands before the names of metrics.
    pub(crate) prefix: String,
    /// Seconds spent on measurements.
    pub(crate) seconds: f64,
}

/// Which monitors hear of what was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Heard {
    All,
    /// Between epochs.
    Metrics,
    /// After an epoch, where metrics are measured between epochs.
    Losses,
}

impl Watch<'_> {
    /// The target measured; `None` without one.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the run was told to stop.
    pub(crate) fn measure(
        &mut self,
        model: &TextModel,
        phase: &str,
        recorder: &mut Recorder<'_>,
    ) -> Result<Option<Measurement>> {
        let Some(target) = &self.target else { return Ok(None) };
        let started = Instant::now();
        let total = target.texts();
        let (similarity, limit) = (self.evaluation.similarity(), self.evaluation.limit);
        let measurement = target.measure(model, self.device, similarity, limit, |done| {
            recorder.progress(phase, done, total, None);
            self.go_on()
        })?;
        self.seconds += started.elapsed().as_secs_f64();
        Ok(Some(measurement))
    }

    /// The mean loss over all validation examples, without dropout; `None` if there are none.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the run was told to stop.
    pub(crate) fn validation_loss(&self, learner: &Learner) -> Result<Option<f64>> {
        let (mut sum, mut examples) = (0.0, 0);
        for batch in &self.validation {
            self.go_on()?;
            let loss = step::loss(&learner.model.encoder, self.device, &learner.objective, batch)?;
            sum += loss * batch.examples as f64;
            examples += batch.examples;
        }
        Ok((examples > 0).then(|| sum / examples as f64))
    }

    /// Whether the target is to be measured before the next batch.
    pub(crate) fn is_due(&self, state: &State) -> bool {
        let step = state.progress.step;
        let interval = self.evaluation.steps_per_interval;
        step > state.progress.measured && interval.is_some_and(|interval| step.is_multiple_of(interval))
    }

    /// The first measurement and the last one of the same target, compared.
    pub(crate) fn compare(&self, before: Option<&Measurement>, after: Option<&Measurement>) -> Result<Compared> {
        match (&self.target, before, after) {
            (Some(target), Some(before), Some(after)) => {
                Compared::new(target, before, after, self.evaluation.examples())
            }
            _ => Ok(Compared::nothing()),
        }
    }

    /// Tells what was measured, to the monitors too; `false` ends the run early.
    pub(crate) fn tell(
        &self,
        state: &mut State,
        model: &TextModel,
        (loss, measurement): (Option<f64>, Option<&Measurement>),
        heard: Heard,
        recorder: &mut Recorder<'_>,
    ) -> Result<bool> {
        let step = state.progress.step;
        let mut values = measurement.map(Measurement::values).unwrap_or_default();
        for (name, value) in &values {
            recorder.metric(format!("{}{name}", self.prefix), step, *value)?;
        }
        if let Some(loss) = loss {
            state.progress.validation_loss = Some(loss);
            recorder.metric("val_loss", step, loss)?;
            values.push(("val_loss".into(), loss));
        }
        if step > 0 {
            values.push(("train_loss".into(), state.progress.train_loss));
        }
        let hears = |metric: bool| match heard {
            Heard::All => true,
            Heard::Metrics => metric,
            Heard::Losses => !metric,
        };
        if let Some((best, kept)) = &mut state.best
            && hears(best.is_metric())
            && best.observe_named(&values)?
        {
            *kept = Some(Kept::of(&model.encoder.parameters, step));
        }
        match &mut state.early_stopping {
            Some(early) if step > 0 && hears(early.is_metric()) => early.observe_named(&values),
            _ => Ok(true),
        }
    }

    fn go_on(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) }
    }
}

/// The monitor that `keep` and `BestModelCheckpoint` ask for. Without either, the best of what was measured is kept.
pub(crate) fn best_monitor(
    spec: &RunSpec,
    callbacks: &Callbacks,
    has_validation: bool,
    before: Option<&Measurement>,
) -> Option<Best> {
    if spec.keep.as_deref() == Some("last") {
        return None;
    }
    if let Some(best) = callbacks.best() {
        return Some(best);
    }
    match before {
        Some(measurement) => Some(Best::new(measurement.main().0)),
        None if has_validation => Some(Best::new("val_loss")),
        None => None,
    }
}
