//! Optimiser updates: one pass over weight, gradient and moments.

use rayon::prelude::*;

use crate::device::UpdateRule;

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

/// [`crate::Device::update`].
pub(crate) fn update(
    rule: &UpdateRule,
    learning_rate: f32,
    gradient_scale: f32,
    weight: &mut [f32],
    gradient: &[f32],
    state: &mut [&mut [f32]],
) {
    match *rule {
        UpdateRule::Adam { beta1, beta2, eps, weight_decay, decoupled, step } => {
            let [first, second] = state else { panic!("Adam keeps two moments (bug)") };
            let step = step as f64;
            let factors = AdamFactors {
                beta1,
                beta2,
                eps,
                shrink: if decoupled { 1.0 - learning_rate * weight_decay } else { 1.0 },
                l2: if decoupled { 0.0 } else { weight_decay },
                step_size: (f64::from(learning_rate) / (1.0 - f64::from(beta1).powf(step))) as f32,
                second_correction: (1.0 / (1.0 - f64::from(beta2).powf(step)).sqrt()) as f32,
                gradient_scale,
            };
            weight
                .par_chunks_mut(TASK)
                .zip(gradient.par_chunks(TASK))
                .zip(first.par_chunks_mut(TASK))
                .zip(second.par_chunks_mut(TASK))
                .for_each(|(((w, g), m), v)| adam(w, g, m, v, &factors));
        }
        UpdateRule::Sgd { momentum: 0.0, weight_decay, .. } => {
            weight.par_chunks_mut(TASK).zip(gradient.par_chunks(TASK)).for_each(|(w, g)| {
                for (w, g) in w.iter_mut().zip(g) {
                    *w -= learning_rate * (g * gradient_scale + weight_decay * *w);
                }
            });
        }
        UpdateRule::Sgd { momentum, dampening, nesterov, weight_decay, step } => {
            let [velocity] = state else { panic!("SGD with momentum keeps one moment (bug)") };
            weight.par_chunks_mut(TASK).zip(gradient.par_chunks(TASK)).zip(velocity.par_chunks_mut(TASK)).for_each(
                |((w, g), velocity)| {
                    for ((w, g), velocity) in w.iter_mut().zip(g).zip(velocity) {
                        let g = g * gradient_scale + weight_decay * *w;
                        *velocity = if step == 1 { g } else { momentum * *velocity + (1.0 - dampening) * g };
                        *w -= learning_rate * if nesterov { g + momentum * *velocity } else { *velocity };
                    }
                },
            );
        }
    }
}
