//! Watching a run: the validation loss and the measurements, and who is told of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use engine::Device;
use sha2::{Digest, Sha256};

use super::batch::Batch;
use super::callbacks::{Best, Callbacks, EvaluationCallback};
use super::held_out::HeldOut;
use super::learner::Learner;
use super::measure::{Column, Measurement, Target};
use super::ranks::{Order, Ranks, Stretch};
use super::recorder::Recorder;
use super::report::Compared;
use super::state::{Kept, State};
use super::{AHEAD, step};
use crate::encoder::Model;
use crate::error::{Error, Result};
use crate::spec::RunSpec;
use crate::tokens::Prefetch;

/// Items that each of several ranks embeds before they look up: whether the run is to stop, and how far it is.
const ITEMS_AT_ONCE: usize = 256;

/// Measures the model, and ends a measurement when the run is told to stop.
pub(crate) struct Watch<'a> {
    pub(crate) device: &'a dyn Device,
    pub(crate) stop: &'a AtomicBool,
    /// What is measured; the report's table is of the first.
    pub(crate) measures: Vec<Measure>,
    pub(crate) validation: Arc<Vec<HeldOut>>,
    /// Seconds spent on measurements.
    pub(crate) seconds: f64,
}

/// Something that is measured, and how.
pub(crate) struct Measure {
    pub(crate) target: Target,
    pub(crate) options: EvaluationCallback,
    /// What stands before the names of its metrics.
    pub(crate) prefix: String,
}

/// What was measured of each [`Watch::measures`]; `None` for those that were not due.
pub(crate) type Measured = Vec<Option<Measurement>>;

/// Which of the measures are due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Due {
    All,
    /// Those of every so many steps, after this one.
    Step(usize),
    /// Those of every epoch.
    Epoch,
}

impl Measure {
    fn is_due(&self, due: Due) -> bool {
        match (due, self.options.steps_per_interval) {
            (Due::All, _) | (Due::Epoch, None) => true,
            (Due::Step(step), Some(interval)) => step.is_multiple_of(interval),
            (Due::Step(_), None) | (Due::Epoch, Some(_)) => false,
        }
    }
}

impl Watch<'_> {
    /// What is due, measured; together with other `ranks`, which have the same model.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the run was told to stop.
    pub(crate) fn measure(
        &mut self,
        model: &Model,
        (phase, due): (&str, Due),
        mut ranks: Option<&mut Ranks>,
        recorder: &mut Recorder<'_>,
    ) -> Result<Measured> {
        let started = Instant::now();
        let measured = self.measures.iter().enumerate().map(|(place, measure)| {
            if !measure.is_due(due) {
                return Ok(None);
            }
            let (similarity, limit) = (measure.options.similarity(), measure.options.limit);
            let total = measure.target.items();
            let mut progress = |done| {
                recorder.progress(phase, done, total, None);
                self.go_on()
            };
            let Some(ranks) = ranks.as_deref_mut() else {
                return measure.target.measure(model, self.device, similarity, limit, progress).map(Some);
            };
            let embedded = self.order_embeddings(model, place, ranks, &mut progress)?;
            measure.target.judge(&embedded, model.encoder.dimension(), similarity, limit).map(Some)
        });
        let measured = measured.collect::<Result<_>>()?;
        self.seconds += started.elapsed().as_secs_f64();
        Ok(measured)
    }

    /// The embeddings of every column of a measure, by all ranks.
    fn order_embeddings(
        &self,
        model: &Model,
        measure: usize,
        ranks: &mut Ranks,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Vec<Vec<f32>>> {
        let at_once = ITEMS_AT_ONCE * ranks.share().size;
        let columns = self.columns();
        let mut done = 0;
        let embedded = columns[measure].iter().enumerate().map(|(column, items)| {
            let items = items.items.len();
            let mut embeddings = Vec::with_capacity(items * model.encoder.dimension());
            for start in (0..items).step_by(at_once) {
                let stretch = Stretch { measure, column, start, end: items.min(start + at_once) };
                ranks.order(Order::Embed(stretch))?;
                embeddings.extend(self.embed_together(model, &columns, stretch, ranks)?);
                done += stretch.end - start;
                progress(done)?;
                if ranks.asked_to_stop() {
                    return Err(Error::Stopped);
                }
            }
            Ok(embeddings)
        });
        embedded.collect()
    }

    /// What is embedded for each measure.
    pub(crate) fn columns(&self) -> Vec<Vec<Column<'_>>> {
        self.measures.iter().map(|measure| measure.target.columns()).collect()
    }

    /// The embeddings of some items of [`Watch::columns`] by all ranks, of which this one embeds its share.
    pub(crate) fn embed_together(
        &self,
        model: &Model,
        columns: &[Vec<Column<'_>>],
        stretch: Stretch,
        ranks: &mut Ranks,
    ) -> Result<Vec<f32>> {
        let column = columns.get(stretch.measure).and_then(|columns| columns.get(stretch.column));
        let items = column.and_then(|column| Some((column.items.get(stretch.start..stretch.end)?, column.read_as)));
        let (items, read_as) = items.ok_or_else(|| Error::rank(0, "measures on what there is not here: a bug"))?;
        let own = &items[ranks.share().of(items.len())];
        ranks.concatenate(model.embed(self.device, own, read_as, |_| Ok(())).map(|(embeddings, _)| embeddings))
    }

    /// The mean loss over all validation examples, without dropout; `None` if there are none.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the run was told to stop.
    pub(crate) fn validation_loss(&self, learner: &Learner, ranks: Option<&mut Ranks>) -> Result<Option<f64>> {
        let losses = match ranks {
            Some(ranks) => self.order_losses(learner, ranks)?,
            None => {
                let held_out = self.validation.clone();
                let batches = (0..held_out.len()).map(move |place| held_out[place].clone().ready());
                let losses = Prefetch::new(batches, AHEAD).map(|batch| {
                    self.go_on()?;
                    self.loss_of(learner, &batch?)
                });
                losses.collect::<Result<Vec<_>>>()?
            }
        };
        let (sum, examples) = losses.iter().fold((0.0, 0.0), |(sum, all), (loss, own)| (sum + loss * own, all + own));
        Ok((examples > 0.0).then(|| sum / examples))
    }

    /// The loss of every held-out batch, by all ranks.
    fn order_losses(&self, learner: &Learner, ranks: &mut Ranks) -> Result<Vec<(f64, f64)>> {
        let mut losses = Vec::with_capacity(self.validation.len());
        for first in (0..self.validation.len()).step_by(ranks.share().size) {
            self.go_on()?;
            ranks.order(Order::Validate(first))?;
            losses.extend(self.losses_together(learner, first, ranks)?);
            if ranks.asked_to_stop() {
                return Err(Error::Stopped);
            }
        }
        Ok(losses)
    }

    /// The losses of as many held-out batches as there are ranks, of which this one takes one.
    pub(crate) fn losses_together(
        &self,
        learner: &Learner,
        first: usize,
        ranks: &mut Ranks,
    ) -> Result<Vec<(f64, f64)>> {
        let own = self.validation.get(first + ranks.share().rank).cloned();
        let own = own.map(|held_out| held_out.ready().and_then(|batch| self.loss_of(learner, &batch)));
        let own = own.transpose().map(|own| own.map_or(Vec::new(), |(loss, examples)| vec![loss, examples]));
        Ok(ranks.concatenate(own)?.chunks_exact(2).map(|one| (one[0], one[1])).collect())
    }

    /// The loss of a held-out batch, and its number of examples.
    fn loss_of(&self, learner: &Learner, batch: &Batch) -> Result<(f64, f64)> {
        let loss = step::loss(learner.encoders(), self.device, learner.objective(batch.dataset), batch)?;
        Ok((loss, batch.examples as f64))
    }

    /// What the model is measured on: the same on all ranks.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for column in self.columns().into_iter().flatten() {
            hash.update(format!("{:?} {}", column.read_as, column.items.len()));
            column.items.iter().for_each(|item| {
                hash.update(item);
                hash.update([0]);
            });
        }
        for held_out in &*self.validation {
            hash.update(format!("{} {:?}", held_out.batch.tokens, held_out.batch.layout.labels));
        }
        hash.finalize().into()
    }

    /// Whether something is to be measured before the next batch.
    pub(crate) fn is_due(&self, state: &State) -> bool {
        let step = state.progress.step;
        step > state.progress.measured && self.measures.iter().any(|measure| measure.is_due(Due::Step(step)))
    }

    /// The first and the last measurement of each target, compared.
    pub(crate) fn compare(&self, before: &Measured, after: &Measured) -> Result<Vec<Compared>> {
        let measured = self.measures.iter().zip(before.iter().zip(after));
        let compared = measured.filter_map(|(measure, (before, after))| {
            let examples = measure.options.examples();
            Some(Compared::new(&measure.target, before.as_ref()?, after.as_ref()?, examples))
        });
        compared.collect()
    }

    /// The names and values of what was measured, as monitors know them: those of the first target without its prefix.
    fn values(&self, measured: &Measured) -> Vec<(String, f64)> {
        let mut values = Vec::new();
        for (place, (measure, measurement)) in self.measures.iter().zip(measured).enumerate() {
            let prefix = if place == 0 { "" } else { &measure.prefix };
            let own = measurement.iter().flat_map(Measurement::values);
            values.extend(own.map(|(name, value)| (format!("{prefix}{name}"), value)));
        }
        values
    }

    /// The metrics, or else the validation loss, of the model as it is now.
    ///
    /// # Errors
    /// As [`Watch::measure`].
    pub(crate) fn look(
        &mut self,
        learner: &Learner,
        metrics: bool,
        recorder: &mut Recorder<'_>,
    ) -> Result<Vec<(String, f64)>> {
        if metrics {
            let measured = self.measure(&learner.model, ("interpolate", Due::All), None, recorder)?;
            return Ok(self.values(&measured));
        }
        let loss = self.validation_loss(learner, None)?;
        Ok(loss.map(|loss| ("val_loss".to_owned(), loss)).into_iter().collect())
    }

    /// Tells what was measured, to the monitors too; `false` ends the run early. Between epochs there are no losses.
    ///
    /// # Errors
    /// [`Error::Spec`] before the first step, for a monitor of something that is not measured.
    pub(crate) fn tell(
        &self,
        state: &mut State,
        model: &Model,
        (loss, measured): (Option<f64>, &Measured),
        between_epochs: bool,
        recorder: &mut Recorder<'_>,
    ) -> Result<bool> {
        let step = state.progress.step;
        let mut values = self.values(measured);
        let prefix = self.measures.first().map_or("", |measure| &measure.prefix);
        let first = measured.first().and_then(Option::as_ref).map_or(0, |measurement| measurement.values().len());
        for (place, (name, value)) in values.iter().enumerate() {
            let prefix = if place < first { prefix } else { "" };
            recorder.metric(format!("{prefix}{name}"), step, *value)?;
        }
        if let Some(loss) = loss {
            state.progress.validation_loss = Some(loss);
            recorder.metric("val_loss", step, loss)?;
            values.push(("val_loss".into(), loss));
        }
        if step == 0 {
            state.best.iter().try_for_each(|(best, _)| best.check(&values))?;
            state.early_stopping.iter().try_for_each(|early| early.check(&values))?;
        } else if !between_epochs {
            values.push(("train_loss".into(), state.progress.train_loss));
        }
        if let Some((best, kept)) = &mut state.best
            && best.observe_named(&values)
        {
            *kept = Some(Kept::of(&model.encoder.parameters, step));
        }
        Ok(match &mut state.early_stopping {
            Some(early) if step > 0 => early.observe_named(&values),
            _ => true,
        })
    }

    /// The main metric of the first target, else the validation loss.
    pub(crate) fn main_monitor(&self) -> Option<Best> {
        match self.measures.first() {
            Some(measure) => Some(Best::new(measure.target.main_metric())),
            None if !self.validation.is_empty() => Some(Best::new("val_loss")),
            None => None,
        }
    }

    fn go_on(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) }
    }
}

/// The monitor that `keep` and `BestModelCheckpoint` ask for. Without either, the best of what was measured is kept,
/// unless the last weights are to be mixed with the first.
pub(crate) fn best_monitor(spec: &RunSpec, callbacks: &Callbacks, watch: &Watch<'_>) -> Option<Best> {
    let keep = spec.keep.as_deref();
    if keep == Some("last") {
        return None;
    }
    let mixed = keep == Some("interpolate") || (keep.is_none() && callbacks.interpolation().is_some());
    callbacks.best().or_else(|| if mixed { None } else { watch.main_monitor() })
}
