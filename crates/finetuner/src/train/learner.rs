//! What a step changes: the weights of the model and of the loss, and what their optimisers remember.

use engine::random::Key;
use engine::{Device, Gradients, Parameters};
use serde_json::Value;

use super::batch::Batch;
use super::guide::Guide;
use super::ranks::{Ranks, Seen};
use super::step::{self, Encoders, Found};
use crate::data::Modality;
use crate::encoder::{Encoder, Model};
use crate::error::{Error, Result};
use crate::objective::{Objective, Role};
use crate::optim::{Optimizer, Schedule};
use crate::spec::{Options, RunSpec};

/// The model and the objectives in training.
#[derive(Debug)]
pub(crate) struct Learner {
    pub(crate) model: Model,
    /// One for each data set.
    criteria: Vec<Criterion>,
    gradients: Gradients,
    optimizer: Optimizer,
    learning_rate: f64,
    max_grad_norm: f64,
    twin: Option<Twin>,
}

/// What a step came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Learnt {
    pub(crate) loss: f64,
    pub(crate) learning_rate: f64,
    pub(crate) seen: Seen,
    /// Counted operations of this rank.
    pub(crate) operations: u64,
}

/// A second copy of the encoder, which some losses compare the first with; it is in no artifact.
#[derive(Debug)]
struct Twin {
    encoder: Encoder,
    gradients: Gradients,
    optimizer: Optimizer,
}

/// What a data set is learnt by.
#[derive(Debug)]
struct Criterion {
    /// Prepared for the model and the data.
    objective: Objective,
    optimizer: Optimizer,
    learning_rate: f64,
    /// What stands before the names of its tensors in a checkpoint.
    part: String,
}

impl Learner {
    /// # Errors
    /// [`Error::Spec`] for optimisers and options that do not exist or do not fit.
    pub(crate) fn new(spec: &RunSpec, model: Model, twin: Option<Encoder>, objectives: Vec<Objective>) -> Result<Self> {
        let optimizer = |encoder: &Encoder| {
            let (options, factors) = tower_rates(spec, encoder)?;
            Ok::<_, Error>(Optimizer::new(&spec.optimizer, &options, &encoder.levelled_depths())?.with_factors(factors))
        };
        let twin = match twin {
            Some(encoder) => {
                let gradients = Gradients::new(&encoder.parameters);
                Some(Twin { gradients, optimizer: optimizer(&encoder)?, encoder })
            }
            None => None,
        };
        let learns = objectives.iter().any(Objective::learns);
        let criterion = |(place, objective): (usize, Objective)| {
            let (optimizer, learning_rate) = loss_optimizer(spec, &objective, learns)?;
            let part = if place == 0 { "loss/".to_owned() } else { format!("loss {place}/") };
            Ok(Criterion { objective, optimizer, learning_rate, part })
        };
        Ok(Learner {
            criteria: objectives.into_iter().enumerate().map(criterion).collect::<Result<_>>()?,
            gradients: Gradients::new(&model.encoder.parameters),
            optimizer: optimizer(&model.encoder)?,
            twin,
            learning_rate: spec.learning_rate,
            max_grad_norm: spec.max_grad_norm,
            model,
        })
    }

    /// What the batches of a data set are learnt by.
    pub(crate) fn objective(&self, dataset: usize) -> &Objective {
        &self.criteria[dataset].objective
    }

    /// Adds to a batch what could not be prepared ahead: a guide's embeddings, and the layers that the step draws.
    ///
    /// # Errors
    /// As [`Guide::embed`].
    pub(crate) fn complete(
        &self,
        batch: &mut Batch,
        guide: Option<&Guide>,
        device: &dyn Device,
        dropout: Key,
        ranks: Option<&mut Ranks>,
    ) -> Result<()> {
        if let Some(guide) = guide {
            guide.embed(device, batch, ranks)?;
        }
        batch.layout.layers = self.objective(batch.dataset).draw_layers(dropout);
        Ok(())
    }

    /// Learns from a batch, or with other ranks from their parts of it; gives its loss and the learning rate.
    ///
    /// # Errors
    /// [`Error::Diverged`] when the loss or a gradient is not finite, and [`engine::Error::OutOfMemory`]; nothing is changed
    /// then.
    pub(crate) fn step(
        &mut self,
        device: &dyn Device,
        batch: &Batch,
        dropout: Key,
        (step, schedule): (usize, &Schedule),
        ranks: Option<&mut Ranks>,
    ) -> Result<Learnt> {
        let together = ranks.is_some();
        let found = self.gradients(device, batch, dropout, ranks)?;
        if !found.loss.is_finite() {
            let problem = format!("the loss became {} at step {}; use a smaller learning rate", found.loss, step + 1);
            return Err(Error::Diverged(problem));
        }
        let (loss, seen, operations) = (found.loss, found.seen, found.operations);
        let updated = self.update(device, batch, found, (step, schedule));
        let learning_rate = updated.map_err(|error| match error {
            // The others have gone on: the step cannot be tried again in smaller parts.
            Error::Engine(memory @ engine::Error::OutOfMemory { .. }) if together => failed_update(device, &memory),
            error => error,
        })?;
        Ok(Learnt { loss, learning_rate, seen, operations })
    }

    /// The gradients of a batch, in their places.
    fn gradients(
        &mut self,
        device: &dyn Device,
        batch: &Batch,
        dropout: Key,
        ranks: Option<&mut Ranks>,
    ) -> Result<Found> {
        self.gradients.clear();
        let (twin, twin_gradients) = match &mut self.twin {
            Some(Twin { encoder, gradients, .. }) => {
                gradients.clear();
                (Some(&*encoder), Some(gradients))
            }
            None => (None, None),
        };
        let encoders = Encoders { model: &self.model.encoder, twin };
        let gradients = (&mut self.gradients, twin_gradients);
        let objective = &self.criteria[batch.dataset].objective;
        step::gradients(encoders, device, objective, batch, Some(dropout), gradients, ranks)
    }

    /// Moves the weights of model and loss by their gradients; gives the learning rate.
    fn update(
        &mut self,
        device: &dyn Device,
        batch: &Batch,
        found: Found,
        (step, schedule): (usize, &Schedule),
    ) -> Result<f64> {
        let criterion = &mut self.criteria[batch.dataset];
        let rate = |learning_rate: f64| learning_rate * schedule.factor(step, learning_rate);
        let (rate, loss_rate) = (rate(self.learning_rate), rate(criterion.learning_rate));
        let weights = &mut self.model.encoder.parameters;
        // The loss's own tensors are not clipped, nor do they shorten the model's step.
        criterion.optimizer.check(device, &found.own)?;
        if let Some(Twin { gradients, optimizer, .. }) = &self.twin {
            optimizer.check(device, gradients)?;
        }
        self.optimizer.step(device, weights, &self.gradients, rate, self.max_grad_norm)?;
        if let Some(Twin { encoder, gradients, optimizer }) = self.twin.as_mut().filter(|_| batch.twin) {
            optimizer.step(device, &mut encoder.parameters, gradients, rate, self.max_grad_norm)?;
        }
        criterion.optimizer.step(device, criterion.objective.parameters_mut(), &found.own, loss_rate, 0.0)?;
        // From here on a smaller micro-batch is no help: weights have changed.
        device.check().map_err(|error| failed_update(device, &error))?;
        criterion.objective.remember(found.remembered);
        self.model.encoder.settle(found.observed);
        if let Some(twin) = &mut self.twin {
            twin.encoder.settle(found.observed_by_twin);
        }
        Ok(rate)
    }

    /// What the rows of a batch go through.
    pub(crate) fn encoders(&self) -> Encoders<'_> {
        Encoders { model: &self.model.encoder, twin: self.twin.as_ref().map(|twin| &twin.encoder) }
    }

    /// Moments that the optimiser keeps of each weight.
    pub(crate) fn moments(&self) -> usize {
        self.optimizer.moments()
    }

    /// Gives the gradients' memory back, after the last step.
    pub(crate) fn free_gradients(&mut self) {
        self.gradients = Gradients::default();
        if let Some(twin) = &mut self.twin {
            twin.gradients = Gradients::default();
        }
    }

    /// Everything that a checkpoint keeps, with what stands before its names there.
    pub(crate) fn parts(&self) -> Vec<(&str, &Parameters, &Optimizer)> {
        let model = ("", &self.model.encoder.parameters, &self.optimizer);
        let losses = self.criteria.iter().map(|own| (own.part.as_str(), own.objective.parameters(), &own.optimizer));
        let twin = self.twin.iter().map(|twin| ("twin/", &twin.encoder.parameters, &twin.optimizer));
        [model].into_iter().chain(losses).chain(twin).collect()
    }

    /// The same, for restoring.
    pub(crate) fn parts_mut(&mut self) -> Vec<(&str, &mut Parameters, &mut Optimizer)> {
        let model = ("", &mut self.model.encoder.parameters, &mut self.optimizer);
        let losses = self.criteria.iter_mut();
        let losses = losses.map(|own| (own.part.as_str(), own.objective.parameters_mut(), &mut own.optimizer));
        let twin = self.twin.iter_mut().map(|twin| ("twin/", &mut twin.encoder.parameters, &mut twin.optimizer));
        [model].into_iter().chain(losses).chain(twin).collect()
    }
}

fn failed_update(device: &dyn Device, error: &engine::Error) -> Error {
    let (operation, reason) = ("the update of the weights".into(), error.to_string());
    Error::Engine(engine::Error::Device { device: device.name(), operation, reason })
}

/// The optimiser's own options, and what the rate of each parameter is multiplied by: `learning_rate_text` and
/// `learning_rate_image` give the towers of a model rates other than the run's.
fn tower_rates(spec: &RunSpec, encoder: &Encoder) -> Result<(Options, Vec<f64>)> {
    let mut options = spec.optimizer_options.clone();
    let mut factors = vec![1.0; encoder.modalities().len()];
    for (name, modality) in [("learning_rate_text", Modality::Text), ("learning_rate_image", Modality::Image)] {
        let Some(value) = options.remove(name) else { continue };
        let refuse = |problem: String| Err(Error::spec(format!("optimizer_options.{name}"), problem));
        let Some(rate) = value.as_f64().filter(|rate| *rate > 0.0 && rate.is_finite()) else {
            return refuse(format!("expected a number above 0, got {value}"));
        };
        if encoder.tower(modality).is_err() {
            return refuse(format!("the model reads no {}s; leave it out", modality.noun()));
        }
        let own = factors.iter_mut().zip(encoder.modalities()).filter(|(_, own)| **own == modality);
        own.for_each(|(factor, _)| *factor = rate / spec.learning_rate);
    }
    Ok((options, factors))
}

/// The optimiser of the loss's own tensors and its learning rate: without `loss_optimizer` of the model's class, without
/// a `learning_rate` among its options with the model's rate.
fn loss_optimizer(spec: &RunSpec, objective: &Objective, any_learns: bool) -> Result<(Optimizer, f64)> {
    let mut options = spec.loss_optimizer_options.clone();
    if !any_learns {
        let given =
            [("loss_optimizer", spec.loss_optimizer.is_some()), ("loss_optimizer_options", !options.is_empty())];
        if let Some((field, _)) = given.iter().find(|(_, given)| *given) {
            let problem = format!("`{}` has no parameters of its own to optimise; leave it out", spec.loss);
            return Err(Error::spec(*field, problem));
        }
    }
    let rate = match options.remove("learning_rate") {
        None => spec.learning_rate,
        Some(Value::Number(rate)) if rate.as_f64().is_some_and(|rate| rate > 0.0 && rate.is_finite()) => {
            rate.as_f64().unwrap_or(spec.learning_rate)
        }
        Some(other) => {
            let problem = format!("expected a number above 0, got {other}");
            return Err(Error::spec("loss_optimizer_options.learning_rate", problem));
        }
    };
    let name = spec.loss_optimizer.as_deref().unwrap_or(&spec.optimizer);
    let depths = vec![0; objective.parameters().len()];
    let optimizer = Optimizer::new(name, &options, &depths).map_err(|error| match error {
        Error::Spec { mut problems } => {
            problems.iter_mut().for_each(|problem| problem.field.insert_str(0, "loss_"));
            Error::Spec { problems }
        }
        other => other,
    })?;
    let exempt = |role| matches!(role, Role::Learned { decay: false, .. });
    Ok((optimizer.without_decay(objective.roles().map(exempt)), rate))
}
