//! Everything that a run must remember to go on with the same bits: weights, moments, the place in the data, and the
//! best model so far. Random numbers need no memory: each is a function of seed, step and place.

use std::path::Path;

use engine::{Parameter, Parameters, Tensor};
use serde_json::json;

use super::Ended;
use super::callbacks::{Best, EarlyStopping};
use super::learner::Learner;
use super::progress::Progress;
use super::recorder::Recorder;
use crate::artifact::{Checkpoint, NamedTensor, Output};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::spec::RunSpec;

/// The checkpoint's name in the output folder.
pub(crate) const FILE: &str = "checkpoint.safetensors";

/// The best weights so far and the step they are from; cheap, because tensors share until they change.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) step: usize,
    pub(crate) weights: Vec<Tensor>,
}

impl Kept {
    pub(crate) fn of(parameters: &Parameters, step: usize) -> Self {
        Kept { step, weights: parameters.iter().map(|parameter| parameter.value.clone()).collect() }
    }

    pub(crate) fn put_back(self, parameters: &mut Parameters) {
        for (parameter, weight) in parameters.iter_mut().zip(self.weights) {
            parameter.value = weight;
        }
    }
}

/// The loop's state.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) progress: Progress,
    pub(crate) best: Option<(Best, Option<Kept>)>,
    pub(crate) early_stopping: Option<EarlyStopping>,
}

/// The fields of a spec that may differ between a run and its resumption.
const FREE: [&str; 5] = ["output", "resume", "threads", "device", "max_time"];

/// What all ranks of a run, and a run and its resumption, have in common.
pub(super) fn fixed_fields(spec: &RunSpec) -> serde_json::Value {
    let mut value = serde_json::to_value(spec).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        FREE.iter().for_each(|field| drop(fields.remove(*field)));
    }
    value
}

/// Whether a checkpoint holds a tensor of this part: everything of a loss, and of the model what learns.
fn is_kept(part: &str, parameter: &Parameter) -> bool {
    parameter.changes() || !part.is_empty()
}

impl State {
    /// Saves a checkpoint and says so.
    pub(crate) fn checkpoint(
        &self,
        output: &Output,
        spec: &RunSpec,
        learner: &Learner,
        recorder: &mut Recorder<'_>,
    ) -> Result<()> {
        self.save(output.folder(), spec, learner)?;
        recorder.send(&Event::Checkpoint { step: self.progress.step })
    }

    /// Saves the checkpoint of an epoch and says so; where more than the last are asked for, those of the last `epochs`
    /// stay under `checkpoints`.
    pub(crate) fn checkpoint_epoch(
        &self,
        output: &Output,
        spec: &RunSpec,
        (learner, epochs): (&Learner, usize),
        recorder: &mut Recorder<'_>,
    ) -> Result<()> {
        self.checkpoint(output, spec, learner, recorder)?;
        if epochs > 1 {
            output.keep_checkpoint(FILE, self.progress.epoch, epochs)?;
        }
        Ok(())
    }

    /// Ends training here, and says why.
    pub(crate) fn end(&mut self, reason: String, recorder: &mut Recorder<'_>) -> Result<()> {
        recorder.info(reason.clone())?;
        self.progress.end(reason);
        Ok(())
    }

    /// Ends the run with a checkpoint.
    pub(crate) fn stop(
        &self,
        output: &Output,
        spec: &RunSpec,
        learner: &Learner,
        recorder: &mut Recorder<'_>,
    ) -> Result<Ended> {
        self.checkpoint(output, spec, learner, recorder)?;
        Ok(Ended::Stopped { step: self.progress.step })
    }

    /// The step of the checkpoint in a folder; 0 without one.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub(crate) fn stored_step(folder: &Path) -> Result<usize> {
        let path = folder.join(FILE);
        let step = |checkpoint: Checkpoint| checkpoint.record["progress"]["step"].as_u64().unwrap_or(0) as usize;
        if path.is_file() { Checkpoint::open(&path).map(step) } else { Ok(0) }
    }

    /// Writes the checkpoint; the one before stays until this one is safely there.
    fn save(&self, folder: &Path, spec: &RunSpec, learner: &Learner) -> Result<()> {
        let kept = self.best.as_ref().and_then(|(_, kept)| kept.as_ref());
        let record = json!({
            "spec": fixed_fields(spec),
            "progress": self.progress,
            "optimizer_steps": learner.parts().iter().map(|(_, _, optimizer)| optimizer.steps()).collect::<Vec<_>>(),
            "best": self.best.as_ref().map(|(best, _)| best),
            "kept_step": kept.map(|kept| kept.step),
            "early_stopping": self.early_stopping,
        });
        let mut tensors: Vec<(String, &Tensor)> = Vec::new();
        for (part, parameters, optimizer) in learner.parts() {
            for (index, parameter) in parameters.iter().enumerate().filter(|(_, one)| is_kept(part, one)) {
                tensors.push((format!("{part}{index}/weight"), &parameter.value));
                for (moment, tensor) in optimizer.state()[index].iter().enumerate() {
                    tensors.push((format!("{part}{index}/moment/{moment}"), tensor));
                }
            }
        }
        if let Some(kept) = kept {
            let (part, parameters, _) = learner.parts()[0];
            let weights = kept.weights.iter().zip(parameters.iter()).enumerate();
            let weights = weights.filter(|(_, (_, parameter))| is_kept(part, parameter));
            tensors.extend(weights.map(|(index, (weight, _))| (format!("{index}/best"), weight)));
        }
        let named: Vec<_> =
            tensors.iter().map(|(name, tensor)| NamedTensor::f32(name, tensor.shape(), tensor.data())).collect();
        Checkpoint::write(&folder.join(FILE), &record, &named)
    }

    /// Reads the checkpoint into the model, the loss and their optimisers.
    ///
    /// # Errors
    /// [`Error::Output`] if there is none or it is of a run with other settings, which are named.
    pub(crate) fn restore(&mut self, folder: &Path, spec: &RunSpec, learner: &mut Learner) -> Result<()> {
        let path = folder.join(FILE);
        let refuse = |problem: String| Error::Output { path: folder.to_owned(), problem };
        if !path.is_file() {
            return Err(refuse("holds no checkpoint to resume from; the run may be finished already".into()));
        }
        let checkpoint = Checkpoint::open(&path)?;
        let record = &checkpoint.record;
        let (asked, stored) = (fixed_fields(spec), &record["spec"]);
        let fields = asked.as_object().into_iter().flatten();
        let differing: Vec<&str> =
            fields.filter(|(name, value)| stored[name.as_str()] != **value).map(|(name, _)| name.as_str()).collect();
        if !differing.is_empty() {
            let names = differing.join("`, `");
            return Err(refuse(format!("holds a run with other values of `{names}`; resume with the same ones")));
        }
        let damaged = |error: serde_json::Error| refuse(format!("holds a damaged checkpoint: {error}"));
        self.progress = serde_json::from_value(record["progress"].clone()).map_err(damaged)?;
        let best: Option<Best> = serde_json::from_value(record["best"].clone()).map_err(damaged)?;
        let early: Option<EarlyStopping> = serde_json::from_value(record["early_stopping"].clone()).map_err(damaged)?;
        if early.is_some() {
            self.early_stopping = early;
        }
        let moments = |name: &str| checkpoint.shapes().filter(|(stored, _)| stored.starts_with(name)).count();
        let read =
            |name: String, shape: &[usize]| Ok::<_, Error>(Tensor::from_vec(checkpoint.f32s(&name, shape)?, shape)?);
        let mut kept = record["kept_step"].as_u64().map(|step| Kept { step: step as usize, weights: Vec::new() });
        if let Some(kept) = &mut kept {
            for (index, parameter) in learner.model.encoder.parameters.iter().enumerate() {
                kept.weights.push(match parameter.changes() {
                    true => read(format!("{index}/best"), parameter.value.shape())?,
                    false => parameter.value.clone(),
                });
            }
        }
        for (place, (part, parameters, optimizer)) in learner.parts_mut().into_iter().enumerate() {
            let steps = record["optimizer_steps"][place].as_u64().unwrap_or(0);
            let mut state = Vec::with_capacity(parameters.len());
            for (index, parameter) in parameters.iter_mut().enumerate() {
                if !is_kept(part, parameter) {
                    state.push(Vec::new());
                    continue;
                }
                let shape = parameter.value.shape().to_vec();
                parameter.value = read(format!("{part}{index}/weight"), &shape)?;
                let name = format!("{part}{index}/moment/");
                let own = (0..moments(&name)).map(|moment| read(format!("{name}{moment}"), &shape));
                state.push(own.collect::<Result<_>>()?);
            }
            optimizer.restore(steps, state)?;
        }
        if let Some(best) = best {
            self.best = Some((best, kept));
        }
        Ok(())
    }
}
