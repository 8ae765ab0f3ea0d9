//! The epochs of a run: learn, look, save, until the last one or until something ends them.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use engine::random::Key;

use super::AHEAD;
use super::batch::Batch;
use super::clock::Clock;
use super::course::Planned;
use super::learner::Learnt;
use super::measure::Measurement;
use super::prepare::Prepared;
use super::ranks::{Order, Ranks, Turn};
use super::recorder::Recorder;
use super::state::State;
use super::watch::{Due, Measured};
use crate::artifact::Output;
use crate::error::{Error, Result};
use crate::tokens::Prefetch;

/// A checkpoint is written after every epoch and, within a long one, this often.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(600);

/// How often a device is asked how busy it is.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A run in its epochs.
pub(super) struct Epochs<'r, 'p, 'w> {
    pub(super) prepared: &'r mut Prepared<'p>,
    pub(super) state: &'r mut State,
    pub(super) ranks: Option<&'r mut Ranks>,
    pub(super) clock: Clock,
    pub(super) output: &'r Output,
    pub(super) recorder: &'r mut Recorder<'w>,
    /// When the last checkpoint was written.
    pub(super) saved: Instant,
    /// When the device was last asked.
    pub(super) looked: Instant,
}

/// What was measured in the epochs.
#[derive(Default)]
pub(super) struct Looks {
    /// Last.
    pub(super) after: Measured,
    /// Nearest to the middle.
    pub(super) halfway: Option<Measurement>,
}

/// How the batches of an epoch came to their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EpochEnd {
    Complete,
    OutOfTime,
    StoppedEarly,
}

impl Epochs<'_, '_, '_> {
    /// Goes through the epochs that are left.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the run was told to stop: the state is that after the last step.
    pub(super) fn run(&mut self) -> Result<Looks> {
        let mut looks = Looks::default();
        while self.state.progress.epoch < self.prepared.spec.epochs && !self.state.progress.is_over() {
            match self.learn(&mut looks)? {
                EpochEnd::StoppedEarly => break,
                end => self.look_back(end == EpochEnd::OutOfTime, &mut looks)?,
            }
        }
        Ok(looks)
    }

    /// Learns from the batches that are left of the epoch.
    fn learn(&mut self, looks: &mut Looks) -> Result<EpochEnd> {
        let course = &self.prepared.course;
        let remaining = course.batches(self.state.progress.epoch as u64).split_off(self.state.progress.batch);
        let batches = Prefetch::new(remaining.clone().into_iter().map(course.worker()), AHEAD);
        for (planned, batch) in remaining.into_iter().zip(batches) {
            let batch = batch?;
            if self.prepared.watch.is_due(self.state) && !self.look_between(looks)? {
                return Ok(EpochEnd::StoppedEarly);
            }
            if self.state.progress.step > 0 && self.clock.is_over() {
                return Ok(EpochEnd::OutOfTime);
            }
            self.step(&planned, batch)?;
            let told = self.prepared.watch.stop.load(Ordering::Relaxed);
            if told || self.ranks.as_ref().is_some_and(|ranks| ranks.asked_to_stop()) {
                return Err(Error::Stopped);
            }
            if self.saved.elapsed() > CHECKPOINT_EVERY {
                let Prepared { spec, learner, .. } = &*self.prepared;
                self.state.checkpoint(self.output, spec, learner, self.recorder)?;
                self.saved = Instant::now();
            }
        }
        Ok(EpochEnd::Complete)
    }

    /// One optimiser step.
    fn step(&mut self, planned: &Planned, batch: Batch) -> Result<()> {
        let started = Instant::now();
        let (batch, learnt) = self.learn_from(planned, batch)?;
        self.state.progress.count(&batch, &learnt, started.elapsed());
        if self.looked.elapsed() > LOOK_EVERY {
            self.state.progress.look(self.prepared.watch.device.busy());
            self.looked = Instant::now();
        }
        let (step, loss) = (self.state.progress.step, learnt.loss);
        self.recorder.metric("train_loss", step, loss)?;
        self.recorder.metric("learning_rate", step, learnt.learning_rate)?;
        self.recorder.progress("train", step, self.prepared.total_steps, Some(format!("loss {loss:.4}")));
        Ok(())
    }

    /// Learns from a batch, where memory is short in smaller parts: gives the batch as it was learnt from.
    fn learn_from(&mut self, planned: &Planned, mut batch: Batch) -> Result<(Batch, Learnt)> {
        let Prepared { spec, learner, course, schedule, guide, watch, .. } = &mut *self.prepared;
        let (step, device) = (self.state.progress.step, watch.device);
        let turn = Turn { epoch: self.state.progress.epoch as u64, batch: self.state.progress.batch, step };
        let dropout = Key::new(spec.seed).part(step as u64);
        loop {
            if let Some(ranks) = self.ranks.as_deref_mut() {
                ranks.order(Order::Learn(turn))?;
            }
            learner.complete(&mut batch, guide.as_ref(), device, dropout, self.ranks.as_deref_mut())?;
            let learnt = learner.step(device, &batch, dropout, (step, schedule), self.ranks.as_deref_mut());
            let memory = match learnt {
                Err(Error::Engine(error @ engine::Error::OutOfMemory { .. })) => error,
                learnt => return Ok((batch, learnt?)),
            };
            let Some(tokens) = course.budget().shrink(&batch) else { return Err(memory.into()) };
            self.recorder.warn(format!("{memory}; going on with micro-batches of {tokens} tokens"))?;
            batch = course.worker()(planned.clone())?;
        }
    }

    /// Measures between two steps; `false` ends training.
    fn look_between(&mut self, looks: &mut Looks) -> Result<bool> {
        let Prepared { learner, watch, .. } = &mut *self.prepared;
        let step = self.state.progress.step;
        let due = ("evaluate", Due::Step(step));
        looks.after = watch.measure(&learner.model, due, self.ranks.as_deref_mut(), self.recorder)?;
        self.state.progress.measured = step;
        let goes_on = watch.tell(self.state, &learner.model, (None, &looks.after), true, self.recorder)?;
        if !goes_on {
            self.state.end(format!("stopped early after step {step}"), self.recorder)?;
        }
        Ok(goes_on)
    }

    /// Measures at the end of an epoch and closes it; `out_of_time`, which is within one, ends training.
    fn look_back(&mut self, out_of_time: bool, looks: &mut Looks) -> Result<()> {
        let Prepared { spec, callbacks, learner, total_steps, watch, .. } = &mut *self.prepared;
        let epoch = self.state.progress.epoch;
        let last = epoch + 1 == spec.epochs || out_of_time;
        // Nothing has changed yet: a checkpoint of a run that is stopped here is one of the epoch's last step.
        let loss = watch.validation_loss(learner, self.ranks.as_deref_mut())?;
        let when = if last { ("evaluate after", Due::All) } else { ("evaluate", Due::Epoch) };
        let measured_best = self.state.best.as_ref().is_some_and(|(best, _)| best.is_metric());
        looks.after = match last || spec.advise || callbacks.monitors_metric() || measured_best {
            true => watch.measure(&learner.model, when, self.ranks.as_deref_mut(), self.recorder)?,
            false => Measured::new(),
        };
        if out_of_time {
            let max_time = spec.max_time.as_deref().unwrap_or_default();
            let step = self.state.progress.step;
            let reason = format!("`max_time` of {max_time} ended training after step {step} of {total_steps}");
            self.state.end(reason, self.recorder)?;
        } else {
            self.state.progress.end_epoch();
        }
        self.recorder.metric("epoch_loss", self.state.progress.step, self.state.progress.train_loss)?;
        let goes_on = watch.tell(self.state, &learner.model, (loss, &looks.after), false, self.recorder)?;
        if !goes_on && !out_of_time {
            self.state.end(format!("stopped early after epoch {}", epoch + 1), self.recorder)?;
        }
        if last {
            return Ok(());
        }
        if 2 * (epoch + 1) >= spec.epochs && looks.halfway.is_none() {
            looks.halfway = looks.after.first().cloned().flatten();
        }
        self.saved = Instant::now();
        self.state.checkpoint_epoch(self.output, spec, (learner, callbacks.last_k_epochs()), self.recorder)
    }
}
