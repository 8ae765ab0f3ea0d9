//! Optimiser updates: one pass over weight, gradient and moments.

use rayon::prelude::*;

use super::rows::scale;
use crate::device::{UpdateKind, UpdateRule};
use crate::support::Support;
use crate::tensor::Tensor;

/// Elements per parallel task: all four streams of a task stay in the second-level cache.
const TASK: usize = 16_384;

struct AdamFactors {
    beta1: f32,
    beta2: f32,
    eps: f32,
    /// `1 - learning_rate weight_decay` of AdamW.
    shrink: f32,
    /// L2 coefficient of Adam.
    l2: f32,
    /// `learning_rate / (1 - beta1^step)`
    step_size: f32,
    /// `1 / sqrt(1 - beta2^step)`
    second_correction: f32,
    gradient_scale: f32,
}

impl AdamFactors {
    fn new(rule: &UpdateRule, (beta1, beta2, eps): (f32, f32, f32), learning_rate: f32, gradient_scale: f32) -> Self {
        let (shrink, l2) = decay(rule, learning_rate);
        let step_size = (f64::from(learning_rate) / correction(beta1, rule.step)) as f32;
        let second_correction = (1.0 / correction(beta2, rule.step).sqrt()) as f32;
        AdamFactors { beta1, beta2, eps, shrink, l2, step_size, second_correction, gradient_scale }
    }
}

/// What a weight is multiplied by first, and what of it is added to its gradient.
fn decay(rule: &UpdateRule, learning_rate: f32) -> (f32, f32) {
    if rule.decoupled { (1.0 - learning_rate * rule.weight_decay, 0.0) } else { (1.0, rule.weight_decay) }
}

/// `1 - beta^step`
fn correction(beta: f32, step: u64) -> f64 {
    1.0 - f64::from(beta).powf(step as f64)
}

kernel! {
    fn adam(w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], f: &AdamFactors) {
        let (keep1, keep2) = (1.0 - f.beta1, 1.0 - f.beta2);
        for i in 0..w.len().min(g.len()).min(m.len()).min(v.len()) {
            let g = g[i] * f.gradient_scale + f.l2 * w[i];
            m[i] += keep1 * (g - m[i]);
            v[i] = f.beta2 * v[i] + keep2 * g * g;
            w[i] = w[i] * f.shrink - f.step_size * m[i] / (v[i].sqrt() * f.second_correction + f.eps);
        }
    }
}

/// One optimiser step of one weight tensor: what all rules share.
struct Step<'w> {
    weight: &'w mut [f32],
    gradient: &'w [f32],
    gradient_scale: f32,
    /// `1 - learning_rate weight_decay` where decay is decoupled.
    shrink: f32,
    /// Weight decay as part of the gradient.
    l2: f32,
}

impl Step<'_> {
    /// Calls `rule` with every weight, its gradient and its moments.
    fn each<const N: usize>(self, state: &mut [&mut [f32]], rule: impl Fn(&mut f32, f32, [&mut f32; N]) + Sync) {
        let Step { weight, gradient, gradient_scale, shrink, l2 } = self;
        let mut moments: Vec<_> = state.iter_mut().map(|moment| moment.chunks_mut(TASK)).collect();
        let parts = weight.chunks_mut(TASK).zip(gradient.chunks(TASK)).map(|(weight, gradient)| {
            let moments = moments.iter_mut().map(|moment| moment.next().unwrap_or_default());
            (weight, gradient, moments.collect::<Vec<&mut [f32]>>())
        });
        let parts: Vec<_> = parts.collect();
        parts.into_par_iter().for_each(|(weight, gradient, moments)| {
            let Ok(mut moments) = <[&mut [f32]; N]>::try_from(moments) else {
                panic!("the rule keeps {N} moments (bug)")
            };
            for (i, (w, g)) in weight.iter_mut().zip(gradient).enumerate() {
                let g = g * gradient_scale + l2 * *w;
                *w *= shrink;
                rule(w, g, moments.each_mut().map(|moment| &mut moment[i]));
            }
        });
    }
}

/// [`crate::Device::update`].
pub(crate) fn update(
    rule: &UpdateRule,
    learning_rate: f32,
    gradient_scale: f32,
    weight: &mut Tensor,
    gradient: &Tensor,
    state: &mut [Tensor],
) {
    if let (Some(rates), Some(support), [first, second]) =
        (adam_that_keeps_zeros(rule), gradient.support(), &mut *state)
        && let (Some(first), Some(second)) = (first.rows_mut(), second.rows_mut())
    {
        let factors = AdamFactors::new(rule, rates, learning_rate, gradient_scale);
        return adam_rows(weight.data_mut(), (gradient.data(), support), first, second, &factors);
    }
    let mut state: Vec<&mut [f32]> = state.iter_mut().map(Tensor::data_mut).collect();
    update_all(rule, learning_rate, gradient_scale, weight.data_mut(), gradient.data(), &mut state);
}

/// [`update`] of every number.
fn update_all(
    rule: &UpdateRule,
    learning_rate: f32,
    gradient_scale: f32,
    weight: &mut [f32],
    gradient: &[f32],
    state: &mut [&mut [f32]],
) {
    let UpdateRule { kind, step, .. } = *rule;
    let (shrink, l2) = decay(rule, learning_rate);
    let rate = f64::from(learning_rate);
    let correction = |beta: f32| correction(beta, step);
    let task = Step { weight, gradient, gradient_scale, shrink, l2 };
    match kind {
        UpdateKind::Adam { beta1, beta2, eps, amsgrad: false } => {
            let [first, second] = state else { panic!("Adam keeps two moments (bug)") };
            let factors = AdamFactors::new(rule, (beta1, beta2, eps), learning_rate, gradient_scale);
            task.weight
                .par_chunks_mut(TASK)
                .zip(gradient.par_chunks(TASK))
                .zip(first.par_chunks_mut(TASK))
                .zip(second.par_chunks_mut(TASK))
                .for_each(|(((w, g), m), v)| adam(w, g, m, v, &factors));
        }
        UpdateKind::Adam { beta1, beta2, eps, amsgrad: true } => {
            let step_size = (rate / correction(beta1)) as f32;
            let second_correction = (1.0 / correction(beta2).sqrt()) as f32;
            task.each(state, |w, g, [m, v, largest]| {
                moments(g, (m, beta1), (v, beta2));
                *largest = largest.max(*v);
                *w -= step_size * *m / (largest.sqrt() * second_correction + eps);
            });
        }
        UpdateKind::Sgd { momentum: 0.0, .. } => task.each(state, |w, g, []| *w -= learning_rate * g),
        UpdateKind::Sgd { momentum, dampening, nesterov } => task.each(state, |w, g, [velocity]| {
            *velocity = if step == 1 { g } else { momentum * *velocity + (1.0 - dampening) * g };
            *w -= learning_rate * if nesterov { g + momentum * *velocity } else { *velocity };
        }),
        UpdateKind::RAdam { beta1, beta2, eps } => {
            let limit = 2.0 / (1.0 - f64::from(beta2)) - 1.0;
            let length = limit - 2.0 * step as f64 * (1.0 - correction(beta2)) / correction(beta2);
            let rectified = (length - 4.0) * (length - 2.0) * limit / ((limit - 4.0) * (limit - 2.0) * length);
            let step_size = (rate / correction(beta1)) as f32;
            let adapted = (length > 5.0).then(|| (rectified * correction(beta2)).sqrt() as f32);
            task.each(state, |w, g, [m, v]| {
                moments(g, (m, beta1), (v, beta2));
                *w -= step_size * *m * adapted.map_or(1.0, |adapted| adapted / (v.sqrt() + eps));
            });
        }
        UpdateKind::NAdam { beta1, beta2, eps, momentum_decay } => {
            let momentum =
                |step: u64| f64::from(beta1) * (1.0 - 0.5 * 0.96f64.powf(step as f64 * f64::from(momentum_decay)));
            let product: f64 = (1..=step).map(momentum).product();
            let of_gradient = (rate * (1.0 - momentum(step)) / (1.0 - product)) as f32;
            let of_moment = (rate * momentum(step + 1) / (1.0 - product * momentum(step + 1))) as f32;
            let second_correction = (1.0 / correction(beta2).sqrt()) as f32;
            task.each(state, |w, g, [m, v]| {
                moments(g, (m, beta1), (v, beta2));
                *w -= (of_gradient * g + of_moment * *m) / (v.sqrt() * second_correction + eps);
            });
        }
        UpdateKind::Adamax { beta1, beta2, eps } => {
            let step_size = (rate / correction(beta1)) as f32;
            task.each(state, |w, g, [m, largest]| {
                *m += (1.0 - beta1) * (g - *m);
                *largest = (beta2 * *largest).max(g.abs() + eps);
                *w -= step_size * *m / *largest;
            });
        }
        UpdateKind::Adagrad { lr_decay, eps, .. } => {
            let rate = (rate / (1.0 + (step - 1) as f64 * f64::from(lr_decay))) as f32;
            task.each(state, |w, g, [sum]| {
                *sum += g * g;
                *w -= rate * g / (sum.sqrt() + eps);
            });
        }
        UpdateKind::Adadelta { rho, eps } => task.each(state, |w, g, [squares, changes]| {
            *squares = rho * *squares + (1.0 - rho) * g * g;
            let change = (*changes + eps).sqrt() / (*squares + eps).sqrt() * g;
            *changes = rho * *changes + (1.0 - rho) * change * change;
            *w -= learning_rate * change;
        }),
        UpdateKind::RmsProp { alpha, eps, momentum, centered } => {
            let square = move |g: f32, squares: &mut f32| *squares = alpha * *squares + (1.0 - alpha) * g * g;
            let centre = move |g: f32, mean: &mut f32| {
                *mean += (1.0 - alpha) * (g - *mean);
                *mean * *mean
            };
            match (centered, momentum > 0.0) {
                (false, false) => task.each(state, |w, g, [squares]| {
                    square(g, squares);
                    *w -= learning_rate * g / (squares.sqrt() + eps);
                }),
                (true, false) => task.each(state, |w, g, [squares, mean]| {
                    square(g, squares);
                    *w -= learning_rate * g / ((*squares - centre(g, mean)).max(0.0).sqrt() + eps);
                }),
                (false, true) => task.each(state, |w, g, [squares, velocity]| {
                    square(g, squares);
                    *velocity = momentum * *velocity + g / (squares.sqrt() + eps);
                    *w -= learning_rate * *velocity;
                }),
                (true, true) => task.each(state, |w, g, [squares, mean, velocity]| {
                    square(g, squares);
                    *velocity = momentum * *velocity + g / ((*squares - centre(g, mean)).max(0.0).sqrt() + eps);
                    *w -= learning_rate * *velocity;
                }),
            }
        }
        UpdateKind::Asgd { lambd, alpha } => {
            let lambd = f64::from(lambd);
            let eta = rate / (1.0 + lambd * rate * (step - 1) as f64).powf(f64::from(alpha));
            let (keep, eta) = ((1.0 - lambd * eta) as f32, eta as f32);
            task.each(state, |w, g, []| *w = *w * keep - eta * g);
        }
        UpdateKind::Rprop { etas, step_sizes } => task.each(state, |w, g, [before, size]| {
            let agreement = g * *before;
            let factor = if agreement > 0.0 {
                etas.1
            } else if agreement < 0.0 {
                etas.0
            } else {
                1.0
            };
            *size = (*size * factor).clamp(step_sizes.0, step_sizes.1);
            let g = if agreement < 0.0 { 0.0 } else { g };
            *w -= if g == 0.0 { 0.0 } else { g.signum() * *size };
            *before = g;
        }),
    }
}

/// The rates of Adam where a row of zeros, of the gradient and of both moments, stays one: where nothing is divided by nothing, and
/// no decay comes with the gradient.
fn adam_that_keeps_zeros(rule: &UpdateRule) -> Option<(f32, f32, f32)> {
    match rule.kind {
        UpdateKind::Adam { beta1, beta2, eps, amsgrad: false }
            if eps != 0.0 && (rule.decoupled || rule.weight_decay == 0.0) =>
        {
            Some((beta1, beta2, eps))
        }
        _ => None,
    }
}

/// [`adam`] of the rows that are not of zeros; of the others a decay of the weights alone. A moment comes with its rows, and both
/// have those of the gradient, too, afterwards.
fn adam_rows(
    weight: &mut [f32],
    (gradient, of_gradient): (&[f32], &Support),
    (first, rows): (&mut [f32], &mut Support),
    (second, of_second): (&mut [f32], &mut Support),
    factors: &AdamFactors,
) {
    rows.extend(of_gradient);
    rows.extend(of_second);
    of_second.extend(rows);
    let columns = rows.columns();
    let task_rows = (TASK / columns).max(1);
    let task = task_rows * columns;
    let parts = weight.par_chunks_mut(task).zip(gradient.par_chunks(task));
    let parts = parts.zip(first.par_chunks_mut(task)).zip(second.par_chunks_mut(task));
    parts.enumerate().for_each(|(task, (((w, g), m), v))| {
        let rows_of = (w.chunks_exact_mut(columns).zip(g.chunks_exact(columns)))
            .zip(m.chunks_exact_mut(columns).zip(v.chunks_exact_mut(columns)));
        for (row, ((w, g), (m, v))) in (task * task_rows..).zip(rows_of) {
            if rows.contains(row) {
                adam(w, g, m, v, factors);
            } else if factors.shrink != 1.0 {
                scale(w, factors.shrink);
            }
        }
    });
}

/// The first and the second moment of a gradient, with their decays.
fn moments(g: f32, (first, beta1): (&mut f32, f32), (second, beta2): (&mut f32, f32)) {
    *first += (1.0 - beta1) * (g - *first);
    *second = beta2 * *second + (1.0 - beta2) * g * g;
}
