//! Optimiser updates: the factors of each rule, as in `cpu/update.rs`, and the kernel that applies them.

use super::buffer::{Format, Numbers};
use super::{Argument, Cuda, Grid, Program};
use crate::device::{UpdateKind, UpdateRule};
use crate::tensor::Tensor;

/// The kernel of a rule with its rate and the factors that it calls a to e.
fn kernel(rule: &UpdateRule, learning_rate: f32) -> (&'static str, f32, [f32; 5]) {
    let step = rule.step;
    let rate = f64::from(learning_rate);
    // 1 - beta^step
    let correction = |beta: f32| 1.0 - f64::from(beta).powf(step as f64);
    let flag = |set: bool| f32::from(u8::from(set));
    match rule.kind {
        UpdateKind::Adam { beta1, beta2, eps, amsgrad } => {
            let name = if amsgrad { "adam_amsgrad" } else { "adam" };
            let second = (1.0 / correction(beta2).sqrt()) as f32;
            (name, (rate / correction(beta1)) as f32, [beta1, beta2, eps, second, 0.0])
        }
        UpdateKind::Sgd { momentum: 0.0, .. } => ("sgd", learning_rate, [0.0; 5]),
        UpdateKind::Sgd { momentum, dampening, nesterov } => {
            ("sgd_momentum", learning_rate, [momentum, 1.0 - dampening, flag(nesterov), flag(step == 1), 0.0])
        }
        UpdateKind::RAdam { beta1, beta2, eps } => {
            let limit = 2.0 / (1.0 - f64::from(beta2)) - 1.0;
            let length = limit - 2.0 * step as f64 * (1.0 - correction(beta2)) / correction(beta2);
            let rectified = (length - 4.0) * (length - 2.0) * limit / ((limit - 4.0) * (limit - 2.0) * length);
            let adapted = if length > 5.0 { (rectified * correction(beta2)).sqrt() as f32 } else { 0.0 };
            ("radam", (rate / correction(beta1)) as f32, [beta1, beta2, eps, flag(length > 5.0), adapted])
        }
        UpdateKind::NAdam { beta1, beta2, eps, momentum_decay } => {
            let momentum =
                |step: u64| f64::from(beta1) * (1.0 - 0.5 * 0.96f64.powf(step as f64 * f64::from(momentum_decay)));
            let product: f64 = (1..=step).map(momentum).product();
            let of_gradient = (rate * (1.0 - momentum(step)) / (1.0 - product)) as f32;
            let of_moment = (rate * momentum(step + 1) / (1.0 - product * momentum(step + 1))) as f32;
            ("nadam", of_gradient, [beta1, beta2, eps, (1.0 / correction(beta2).sqrt()) as f32, of_moment])
        }
        UpdateKind::Adamax { beta1, beta2, eps } => {
            ("adamax", (rate / correction(beta1)) as f32, [beta1, beta2, eps, 0.0, 0.0])
        }
        UpdateKind::Adagrad { lr_decay, eps, .. } => {
            let rate = (rate / (1.0 + (step - 1) as f64 * f64::from(lr_decay))) as f32;
            ("adagrad", rate, [0.0, 0.0, eps, 0.0, 0.0])
        }
        UpdateKind::Adadelta { rho, eps } => ("adadelta", learning_rate, [rho, 0.0, eps, 0.0, 0.0]),
        UpdateKind::RmsProp { alpha, eps, momentum, centered } => {
            ("rms_prop", learning_rate, [alpha, momentum, eps, flag(centered), 0.0])
        }
        UpdateKind::Asgd { lambd, alpha } => {
            let lambd = f64::from(lambd);
            let eta = rate / (1.0 + lambd * rate * (step - 1) as f64).powf(f64::from(alpha));
            ("asgd", eta as f32, [(1.0 - lambd * eta) as f32, 0.0, 0.0, 0.0, 0.0])
        }
        UpdateKind::Rprop { etas, step_sizes } => {
            ("rprop", learning_rate, [etas.0, etas.1, step_sizes.0, step_sizes.1, 0.0])
        }
    }
}

/// [`crate::Device::update`]. A weight that is also held in short form keeps that, with its new value.
pub(super) fn update(
    cuda: &Cuda,
    rule: &UpdateRule,
    learning_rate: f32,
    gradient_scale: f32,
    weight: &mut Tensor,
    gradient: &Tensor,
    state: &mut [Tensor],
) {
    let (name, rate, factors) = kernel(rule, learning_rate);
    let (shrink, l2) =
        if rule.decoupled { (1.0 - learning_rate * rule.weight_decay, 0.0) } else { (1.0, rule.weight_decay) };
    let len = weight.len();
    let gradient = cuda.floats(gradient);
    // What others hold of the weight stays as it is.
    cuda.floats(weight);
    let numbers = match weight.take_cuda() {
        Some(numbers) => numbers,
        None => Numbers::of(cuda.floats(weight).copy(), Format::Float),
    };
    let moments = state.iter_mut().map(|moment| {
        cuda.write(moment, Format::Float, true, |_| {});
        cuda.floats(moment)
    });
    let moments: Vec<_> = moments.collect();
    let mut arguments = vec![
        numbers.get(Format::Float).into(),
        gradient.into(),
        numbers.get(Format::Bf16).into(),
        moments.first().copied().into(),
        moments.get(1).copied().into(),
        moments.get(2).copied().into(),
        len.into(),
        gradient_scale.into(),
        shrink.into(),
        l2.into(),
        rate.into(),
    ];
    arguments.extend(factors.map(Argument::from));
    // SAFETY: gradient and moments have the weight's shape, and the rule as many moments as its kernel touches.
    unsafe { cuda.launch(Program::Update, name, Grid::one_each(len), &arguments) };
    weight.set_cuda(numbers);
}
