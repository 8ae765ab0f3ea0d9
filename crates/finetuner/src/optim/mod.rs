//! Gradients to new weights.

pub mod rule;
pub mod schedule;

use engine::device::UpdateRule;
use engine::{Device, Gradients, Parameters, Tensor};
use serde_json::Value;

pub use self::schedule::Schedule;
use crate::error::{Error, Result};
use crate::spec::Options;

/// An optimiser with its moments.
///
/// `layer_wise_lr_decay` d multiplies the rate of a parameter that lies k layers below the top by `d^k`; a head above
/// the layers has the full rate, the embeddings the smallest.
#[derive(Debug)]
pub struct Optimizer {
    rule: UpdateRule,
    layer_decay: f64,
    depths: Vec<usize>,
    /// What the rate of each parameter is multiplied by.
    factors: Vec<f64>,
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
        let mut options = options.clone();
        let layer_decay = match options.remove("layer_wise_lr_decay") {
            None => 1.0,
            Some(Value::Number(decay)) => decay.as_f64().unwrap_or(f64::NAN),
            Some(_) => f64::NAN,
        };
        let rule = rule::rule(name, &options)?;
        let (weight_decay, decoupled) = rule.decay();
        let rule = UpdateRule { kind: rule.kind(), weight_decay, decoupled, step: 0 };
        if !(layer_decay > 0.0 && layer_decay <= 1.0) {
            let problem = format!("`layer_wise_lr_decay` must lie in (0, 1], got {layer_decay}");
            return Err(Error::spec("optimizer_options", problem));
        }
        let state = depths.iter().map(|_| Vec::new()).collect();
        let (factors, exempt) = (vec![1.0; depths.len()], vec![false; depths.len()]);
        Ok(Optimizer { rule, layer_decay, depths: depths.to_vec(), factors, exempt, state, steps: 0 })
    }

    /// Says for each parameter whether weight decay leaves it alone.
    #[must_use]
    pub fn without_decay(mut self, exempt: impl IntoIterator<Item = bool>) -> Self {
        self.exempt.iter_mut().zip(exempt).for_each(|(own, exempt)| *own = exempt);
        self
    }

    /// Multiplies the rate of each parameter.
    #[must_use]
    pub fn with_factors(mut self, factors: impl IntoIterator<Item = f64>) -> Self {
        self.factors.iter_mut().zip(factors).for_each(|(own, factor)| *own = factor);
        self
    }

    /// The global norm of these gradients.
    ///
    /// # Errors
    /// [`Error::Diverged`] when it is not finite.
    pub fn check(&self, device: &dyn Device, gradients: &Gradients) -> Result<f64> {
        let norm = device.sum_of_squares(&gradients.iter().flatten().collect::<Vec<_>>()).sqrt();
        device.check()?;
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
        let rule = UpdateRule { step: self.steps, ..self.rule };
        let rules = [rule, UpdateRule { weight_decay: 0.0, ..rule }];
        let top = self.depths.iter().copied().max().unwrap_or(0);
        for (index, (parameter, gradient)) in parameters.iter_mut().zip(gradients.iter()).enumerate() {
            let Some(gradient) = gradient else { continue };
            let state = &mut self.state[index];
            let rate = learning_rate * self.factors[index] * self.layer_decay.powi((top - self.depths[index]) as i32);
            if state.is_empty() {
                let initial = rule.kind.initial_moments(rate as f32);
                *state = initial.into_iter().map(|initial| gradient.filled_like(initial)).collect();
            }
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
        let known = |moments: Vec<Tensor>| moments.into_iter().map(Tensor::with_zeros_known).collect();
        (self.steps, self.state) = (steps, state.into_iter().map(known).collect());
        Ok(())
    }

    /// How many moments each weight has.
    pub(crate) fn moments(&self) -> usize {
        self.rule.kind.initial_moments(0.0).len()
    }
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

    /// One parameter of these values, and its gradient after `tape`'s backward pass.
    fn gradient(parameters: &Parameters, values: &[f32]) -> Gradients {
        let mut gradients = Gradients::new(parameters);
        let mut tape = engine::Tape::recording(&Cpu::F32, parameters);
        let weight = tape.parameter(parameters.ids().next().unwrap());
        let weights = Tensor::from_vec(values.to_vec(), weight.value().shape()).unwrap();
        let sum = tape.sum(&weight, Some(&weights)).unwrap();
        tape.backward(&sum, Tensor::scalar(1.0), &mut gradients).unwrap();
        gradients
    }

    #[test]
    fn every_optimizer_follows_torch() {
        // Written by `tests/golden/optim.py`, whose head says what start and gradients are.
        let golden: serde_json::Value = serde_json::from_str(include_str!("../../tests/golden/optim.json")).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        let mut worst = 0.0f64;
        for case in golden["optimizers"].as_array().unwrap() {
            let name = case["name"].as_str().unwrap();
            let mut parameters = Parameters::default();
            let start: Vec<f32> = (0..6).map(|place| (0.9 * f64::from(place)).cos() as f32).collect();
            parameters.add("w", Tensor::from_vec(start, &[1, 6]).unwrap());
            let mut optimizer = Optimizer::new(name, case["options"].as_object().unwrap(), &[0]).unwrap();
            for (step, expected) in (1..).zip(case["weights"].as_array().unwrap()) {
                let of = |place: i32| match (place + step) % 3 {
                    0 => 0.0,
                    _ => (0.7 * f64::from(step) + 1.3 * f64::from(place)).sin() * (1.0 + 0.2 * f64::from(place)),
                };
                let values: Vec<f32> = (0..6).map(|place| of(place) as f32).collect();
                let gradients = gradient(&parameters, &values);
                let rate = case["learning_rate"].as_f64().unwrap();
                optimizer.step(&Cpu::F32, &mut parameters, &gradients, rate, 0.0).unwrap();
                let got = parameters.iter().next().unwrap().value.data().to_vec();
                for (got, expected) in got.iter().zip(expected.as_array().unwrap()) {
                    let error = (f64::from(*got) - expected.as_f64().unwrap()).abs();
                    worst = worst.max(error);
                    assert!(error < 1e-6, "{name} {} step {step}: {got} of {expected}", case["options"]);
                }
            }
            seen.insert(name.to_owned());
        }
        assert!(rule::names().iter().all(|name| seen.contains(*name)), "{seen:?}");
        println!("worst error {worst:.1e}");
    }

    #[test]
    fn layer_wise_decay_lowers_the_rate_of_lower_layers() {
        let mut parameters = Parameters::default();
        let ids: Vec<_> = (0..3).map(|i| parameters.add(format!("p{i}"), Tensor::scalar(1.0))).collect();
        let mut gradients = Gradients::new(&parameters);
        let mut tape = engine::Tape::recording(&Cpu::F32, &parameters);
        let one = tape.constant(Tensor::full(&[1, 1], 1.0));
        let all: Vec<_> = ids.iter().map(|&id| tape.parameter(id)).collect();
        let y = tape.linear(&one, &all[0], None).unwrap();
        let y = tape.linear(&y, &all[1], None).unwrap();
        let y = tape.linear(&y, &all[2], None).unwrap();
        tape.backward(&y, Tensor::full(&[1, 1], 1.0), &mut gradients).unwrap();
        let mut sgd = Optimizer::new("SGD", &options(json!({"layer_wise_lr_decay": 0.5})), &[0, 1, 2]).unwrap();
        sgd.step(&Cpu::F32, &mut parameters, &gradients, 0.1, 0.0).unwrap();
        let moved: Vec<f32> = parameters.iter().map(|parameter| 1.0 - parameter.value.item()).collect();
        for (moved, expected) in moved.iter().zip([0.025, 0.05, 0.1]) {
            assert!((moved - expected).abs() < 1e-6, "{moved} {expected}");
        }
    }
}
