//! Gradients to new weights.

mod schedule;

use engine::device::UpdateRule;
use engine::{Device, Gradients, Parameters, Tensor};
use serde::Deserialize;

pub use self::schedule::{Schedule, ScheduleKind};
use crate::error::{Error, Result, nearest};
use crate::spec::Options;

/// The optimisers by name.
pub const OPTIMIZERS: [&str; 3] = ["Adam", "AdamW", "SGD"];

/// Options of `Adam` and `AdamW`, torch's names and defaults.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AdamOptions {
    /// Decay of the first and second moment.
    betas: (f32, f32),
    /// Added to the denominator.
    eps: f32,
    /// Default 0 for Adam, 0.01 for AdamW.
    weight_decay: Option<f32>,
    /// See [`Optimizer`].
    layer_wise_lr_decay: f64,
}

impl Default for AdamOptions {
    fn default() -> Self {
        AdamOptions { betas: (0.9, 0.999), eps: 1e-8, weight_decay: None, layer_wise_lr_decay: 1.0 }
    }
}

/// Options of `SGD`, torch's names and defaults.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SgdOptions {
    momentum: f32,
    dampening: f32,
    nesterov: bool,
    weight_decay: f32,
    layer_wise_lr_decay: f64,
}

impl Default for SgdOptions {
    fn default() -> Self {
        SgdOptions { momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.0, layer_wise_lr_decay: 1.0 }
    }
}

/// An optimiser with its moments.
///
/// `layer_wise_lr_decay` d multiplies the rate of a parameter that lies k layers below the top by `d^k`; a head above
/// the layers has the full rate, the embeddings the smallest.
#[derive(Debug)]
pub struct Optimizer {
    rule: UpdateRule,
    layer_decay: f64,
    depths: Vec<usize>,
    /// Parameters that weight decay leaves alone; none unless listed.
    exempt: Vec<bool>,
    /// The moments of each parameter; none before its first gradient.
    state: Vec<Vec<Tensor>>,
    steps: u64,
}

impl Optimizer {
    /// An optimiser by name. `depths` says for each parameter how far it lies from the input.
    ///
    /// # Errors
    /// [`Error::Spec`] for an unknown name or option, or a value outside its range.
    pub fn new(name: &str, options: &Options, depths: &[usize]) -> Result<Self> {
        let (rule, layer_decay) = match name {
            "Adam" | "AdamW" => {
                let decoupled = name == "AdamW";
                let known = ["betas", "eps", "weight_decay", "layer_wise_lr_decay"];
                let options: AdamOptions = parse(name, options, &known)?;
                let (beta1, beta2) = options.betas;
                let rule = UpdateRule::Adam {
                    beta1: within("betas", beta1, 0.0, 0.999_999)?,
                    beta2: within("betas", beta2, 0.0, 0.999_999_9)?,
                    eps: within("eps", options.eps, 0.0, 1.0)?,
                    weight_decay: options.weight_decay.unwrap_or(if decoupled { 0.01 } else { 0.0 }),
                    decoupled,
                    step: 0,
                };
                (rule, options.layer_wise_lr_decay)
            }
            "SGD" => {
                let known = ["momentum", "dampening", "nesterov", "weight_decay", "layer_wise_lr_decay"];
                let options: SgdOptions = parse(name, options, &known)?;
                if options.nesterov && (options.momentum == 0.0 || options.dampening != 0.0) {
                    let problem = "`nesterov` needs a momentum and no dampening";
                    return Err(Error::spec("optimizer_options", problem));
                }
                let rule = UpdateRule::Sgd {
                    momentum: within("momentum", options.momentum, 0.0, 0.999_999)?,
                    dampening: options.dampening,
                    nesterov: options.nesterov,
                    weight_decay: options.weight_decay,
                    step: 0,
                };
                (rule, options.layer_wise_lr_decay)
            }
            _ => {
                let problem = format!("`{name}` is not known{}", nearest(name, OPTIMIZERS));
                return Err(Error::spec("optimizer", problem));
            }
        };
        if !(layer_decay > 0.0 && layer_decay <= 1.0) {
            let problem = format!("`layer_wise_lr_decay` must lie in (0, 1], got {layer_decay}");
            return Err(Error::spec("optimizer_options", problem));
        }
        let state = depths.iter().map(|_| Vec::new()).collect();
        Ok(Optimizer { rule, layer_decay, depths: depths.to_vec(), exempt: vec![false; depths.len()], state, steps: 0 })
    }

    /// Says for each parameter whether weight decay leaves it alone.
    #[must_use]
    pub fn without_decay(mut self, exempt: impl IntoIterator<Item = bool>) -> Self {
        self.exempt.iter_mut().zip(exempt).for_each(|(own, exempt)| *own = exempt);
        self
    }

    /// The global norm of these gradients.
    ///
    /// # Errors
    /// [`Error::Diverged`] when it is not finite.
    pub fn check(&self, device: &dyn Device, gradients: &Gradients) -> Result<f64> {
        let norm = gradients.iter().flatten().map(|gradient| device.sum_of_squares(gradient)).sum::<f64>().sqrt();
        if !norm.is_finite() {
            let problem = format!("the gradient became {norm} at step {}; use a smaller learning rate", self.steps + 1);
            return Err(Error::Diverged(problem));
        }
        Ok(norm)
    }

    /// Updates every parameter that has a gradient; gives the global norm of the gradients before clipping.
    ///
    /// Clipping multiplies all gradients by `min(1, max_norm / norm)` with `norm` over all parameters together, as
    /// `torch.nn.utils.clip_grad_norm_` does; `max_norm` 0 switches it off.
    ///
    /// # Errors
    /// [`Error::Diverged`] when the norm is not finite; nothing is changed then.
    pub fn step(
        &mut self,
        device: &dyn Device,
        parameters: &mut Parameters,
        gradients: &Gradients,
        learning_rate: f64,
        max_norm: f64,
    ) -> Result<f64> {
        let norm = self.check(device, gradients)?;
        let scale = if max_norm > 0.0 { (max_norm / (norm + 1e-6)).min(1.0) } else { 1.0 };
        self.steps += 1;
        let rules = [self.rule_at(self.steps), without_decay(self.rule_at(self.steps))];
        let moments = self.moments();
        let top = self.depths.iter().copied().max().unwrap_or(0);
        for (index, (parameter, gradient)) in parameters.iter_mut().zip(gradients.iter()).enumerate() {
            let Some(gradient) = gradient else { continue };
            let state = &mut self.state[index];
            if state.is_empty() {
                *state = (0..moments).map(|_| Tensor::zeros(gradient.shape())).collect();
            }
            let rate = learning_rate * self.layer_decay.powi((top - self.depths[index]) as i32);
            let rule = &rules[usize::from(self.exempt[index])];
            device.update(rule, rate as f32, scale as f32, &mut parameter.value, gradient, state);
        }
        Ok(norm)
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The moments of each parameter, for a checkpoint.
    pub fn state(&self) -> &[Vec<Tensor>] {
        &self.state
    }

    /// Continues from a checkpoint.
    ///
    /// # Errors
    /// [`Error::Model`] when the state does not belong to this optimiser.
    pub fn restore(&mut self, steps: u64, state: Vec<Vec<Tensor>>) -> Result<()> {
        let fits = state.len() == self.state.len()
            && state.iter().all(|moments| moments.is_empty() || moments.len() == self.moments());
        if !fits {
            return Err(Error::model("checkpoint", "holds the state of another optimiser; start without `--resume`"));
        }
        (self.steps, self.state) = (steps, state);
        Ok(())
    }

    /// How many moments each weight has.
    pub(crate) fn moments(&self) -> usize {
        match self.rule {
            UpdateRule::Adam { .. } => 2,
            UpdateRule::Sgd { momentum, .. } => usize::from(momentum != 0.0),
        }
    }

    fn rule_at(&self, now: u64) -> UpdateRule {
        let mut rule = self.rule;
        match &mut rule {
            UpdateRule::Adam { step, .. } | UpdateRule::Sgd { step, .. } => *step = now,
        }
        rule
    }
}

fn without_decay(mut rule: UpdateRule) -> UpdateRule {
    match &mut rule {
        UpdateRule::Adam { weight_decay, .. } | UpdateRule::Sgd { weight_decay, .. } => *weight_decay = 0.0,
    }
    rule
}

fn within(name: &str, value: f32, low: f32, high: f32) -> Result<f32> {
    if value >= low && value <= high {
        return Ok(value);
    }
    Err(Error::spec("optimizer_options", format!("`{name}` must lie in [{low}, {high}], got {value}")))
}

/// Typed options from `key=value` pairs.
fn parse<T: serde::de::DeserializeOwned>(name: &str, options: &Options, known: &[&str]) -> Result<T> {
    for key in options.keys() {
        if !known.contains(&key.as_str()) {
            let problem = format!("{name} has no option `{key}`{}", nearest(key, known.iter().copied()));
            return Err(Error::spec("optimizer_options", problem));
        }
    }
    serde_json::from_value(options.clone().into())
        .map_err(|error| Error::spec("optimizer_options", format!("{name}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::Cpu;
    use serde_json::json;

    fn options(value: serde_json::Value) -> Options {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn unknown_names_and_options_suggest_the_nearest() {
        let error = Optimizer::new("AdmW", &Options::new(), &[]).unwrap_err().to_string();
        assert!(error.contains("did you mean `AdamW`"), "{error}");
        let error = Optimizer::new("AdamW", &options(json!({"weight_deca": 0.1})), &[]).unwrap_err().to_string();
        assert!(error.contains("did you mean `weight_decay`"), "{error}");
        let error = Optimizer::new("SGD", &options(json!({"nesterov": true})), &[]).unwrap_err().to_string();
        assert!(error.contains("needs a momentum"), "{error}");
    }

    #[test]
    fn layer_wise_decay_lowers_the_rate_of_lower_layers() {
        let mut parameters = Parameters::default();
        let ids: Vec<_> = (0..3).map(|i| parameters.add(format!("p{i}"), Tensor::scalar(1.0))).collect();
        let mut gradients = Gradients::new(&parameters);
        let mut tape = engine::Tape::recording(&Cpu, &parameters);
        let one = tape.constant(Tensor::full(&[1, 1], 1.0));
        let all: Vec<_> = ids.iter().map(|&id| tape.parameter(id)).collect();
        let y = tape.linear(&one, &all[0], None).unwrap();
        let y = tape.linear(&y, &all[1], None).unwrap();
        let y = tape.linear(&y, &all[2], None).unwrap();
        tape.backward(&y, Tensor::full(&[1, 1], 1.0), &mut gradients).unwrap();
        let mut sgd = Optimizer::new("SGD", &options(json!({"layer_wise_lr_decay": 0.5})), &[0, 1, 2]).unwrap();
        sgd.step(&Cpu, &mut parameters, &gradients, 0.1, 0.0).unwrap();
        let moved: Vec<f32> = parameters.iter().map(|parameter| 1.0 - parameter.value.item()).collect();
        for (moved, expected) in moved.iter().zip([0.025, 0.05, 0.1]) {
            assert!((moved - expected).abs() < 1e-6, "{moved} {expected}");
        }
    }
}
