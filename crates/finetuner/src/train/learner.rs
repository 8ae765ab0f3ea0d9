//! What a step changes: the weights of the model and of the loss, and what their optimisers remember.

use engine::random::Key;
use engine::{Device, Gradients, Parameters};
use serde_json::Value;

use super::batch::Batch;
use super::step;
use crate::encoder::TextModel;
use crate::error::{Error, Result};
use crate::objective::{Objective, Role};
use crate::optim::{Optimizer, Schedule};
use crate::spec::RunSpec;

/// The model and the objective in training.
#[derive(Debug)]
pub(crate) struct Learner {
    pub(crate) model: TextModel,
    /// Prepared for the model and the data.
    pub(crate) objective: Objective,
    gradients: Gradients,
    optimizer: Optimizer,
    loss_optimizer: Optimizer,
    learning_rate: f64,
    loss_learning_rate: f64,
    max_grad_norm: f64,
}

impl Learner {
    /// # Errors
    /// [`Error::Spec`] for optimisers and options that do not exist or do not fit.
    pub(crate) fn new(spec: &RunSpec, model: TextModel, objective: Objective) -> Result<Self> {
        let (loss_optimizer, loss_learning_rate) = loss_optimizer(spec, &objective)?;
        Ok(Learner {
            gradients: Gradients::new(&model.encoder.parameters),
            optimizer: Optimizer::new(&spec.optimizer, &spec.optimizer_options, model.encoder.depths())?,
            loss_optimizer,
            learning_rate: spec.learning_rate,
            loss_learning_rate,
            max_grad_norm: spec.max_grad_norm,
            model,
            objective,
        })
    }

    /// Learns from a batch; gives its loss and the learning rate.
    ///
    /// # Errors
    /// [`Error::Diverged`] when the loss or a gradient is not finite; nothing is changed then.
    pub(crate) fn step(
        &mut self,
        device: &dyn Device,
        batch: &Batch,
        dropout: Key,
        (step, schedule): (usize, &Schedule),
    ) -> Result<(f64, f64)> {
        self.gradients.clear();
        let encoder = &self.model.encoder;
        let found = step::gradients(encoder, device, &self.objective, batch, Some(dropout), &mut self.gradients)?;
        if !found.loss.is_finite() {
            let problem = format!("the loss became {} at step {}; use a smaller learning rate", found.loss, step + 1);
            return Err(Error::Diverged(problem));
        }
        let rate = |learning_rate: f64| learning_rate * schedule.factor(step, learning_rate);
        let (rate, loss_rate) = (rate(self.learning_rate), rate(self.loss_learning_rate));
        let weights = &mut self.model.encoder.parameters;
        // The loss's own tensors are not clipped, nor do they shorten the model's step.
        self.loss_optimizer.check(device, &found.own)?;
        self.optimizer.step(device, weights, &self.gradients, rate, self.max_grad_norm)?;
        self.loss_optimizer.step(device, self.objective.parameters_mut(), &found.own, loss_rate, 0.0)?;
        self.objective.remember(found.remembered);
        Ok((found.loss, rate))
    }

    /// Moments that the optimiser keeps of each weight.
    pub(crate) fn moments(&self) -> usize {
        self.optimizer.moments()
    }

    /// Gives the gradients' memory back, after the last step.
    pub(crate) fn free_gradients(&mut self) {
        self.gradients = Gradients::default();
    }

    /// Everything that a checkpoint keeps, with what stands before its names there.
    pub(crate) fn parts(&self) -> [(&'static str, &Parameters, &Optimizer); 2] {
        [
            ("", &self.model.encoder.parameters, &self.optimizer),
            ("loss/", self.objective.parameters(), &self.loss_optimizer),
        ]
    }

    /// The same, for restoring.
    pub(crate) fn parts_mut(&mut self) -> [(&'static str, &mut Parameters, &mut Optimizer); 2] {
        [
            ("", &mut self.model.encoder.parameters, &mut self.optimizer),
            ("loss/", self.objective.parameters_mut(), &mut self.loss_optimizer),
        ]
    }
}

/// The optimiser of the loss's own tensors and its learning rate: without `loss_optimizer` of the model's class, without
/// a `learning_rate` among its options with the model's rate.
fn loss_optimizer(spec: &RunSpec, objective: &Objective) -> Result<(Optimizer, f64)> {
    let mut options = spec.loss_optimizer_options.clone();
    if !objective.learns() {
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
