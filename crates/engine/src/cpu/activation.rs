//! Elementwise activations and their derivatives.

use super::math::{erf, exp, sigmoid, tanh};
use crate::device::Activation;

const SQRT_2_OVER_PI: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;

/// Applies `bias` (if not empty) and the activation: `x` keeps the value before, `y` gets the value after.
pub(crate) fn bias_forward(activation: Activation, x: &mut [f32], bias: &[f32], y: &mut [f32]) {
    for (x, y) in x.chunks_exact_mut(bias.len()).zip(y.chunks_exact_mut(bias.len())) {
        super::rows::add(x, bias);
        forward(activation, x, y);
    }
}

/// `y = activation(x)`
pub(crate) fn forward(activation: Activation, x: &[f32], y: &mut [f32]) {
    match activation {
        Activation::Identity => y.copy_from_slice(x),
        Activation::Gelu => gelu(x, y),
        Activation::GeluTanh => gelu_tanh(x, y),
        Activation::Relu => relu(x, y),
        Activation::Silu => silu(1.0, x, y),
        Activation::QuickGelu => silu(1.702, x, y),
        Activation::Tanh => hyperbolic_tangent(x, y),
        Activation::Sigmoid => logistic(x, y),
        Activation::Relu6 => relu6(x, y),
        Activation::HardSwish => hard_swish(x, y),
        Activation::HardSigmoid => hard_sigmoid(x, y),
    }
}

/// `y = activation(x)` and `dx = dy activation'(x)`, where `dx` holds `dy` on entry.
pub(crate) fn backward(activation: Activation, x: &[f32], y: &mut [f32], dx: &mut [f32]) {
    match activation {
        Activation::Identity => y.copy_from_slice(x),
        Activation::Gelu => gelu_backward(x, y, dx),
        Activation::GeluTanh => gelu_tanh_backward(x, y, dx),
        Activation::Relu => relu_backward(x, y, dx),
        Activation::Silu => silu_backward(1.0, x, y, dx),
        Activation::QuickGelu => silu_backward(1.702, x, y, dx),
        Activation::Tanh => hyperbolic_tangent_backward(x, y, dx),
        Activation::Sigmoid => logistic_backward(x, y, dx),
        Activation::Relu6 => relu6_backward(x, y, dx),
        Activation::HardSwish => hard_swish_backward(x, y, dx),
        Activation::HardSigmoid => hard_sigmoid_backward(x, y, dx),
    }
}

kernel! {
    fn gelu(x: &[f32], y: &mut [f32]) {
        for (&x, y) in x.iter().zip(y) {
            *y = x * (0.5 + 0.5 * erf(x * std::f32::consts::FRAC_1_SQRT_2));
        }
    }
}

kernel! {
    fn gelu_backward(x: &[f32], y: &mut [f32], dx: &mut [f32]) {
        const DENSITY: f32 = 0.398_942_3;
        for ((&x, y), dx) in x.iter().zip(y).zip(dx) {
            let cumulative = 0.5 + 0.5 * erf(x * std::f32::consts::FRAC_1_SQRT_2);
            *y = x * cumulative;
            *dx *= cumulative + x * DENSITY * exp(-0.5 * x * x);
        }
    }
}

kernel! {
    fn gelu_tanh(x: &[f32], y: &mut [f32]) {
        for (&x, y) in x.iter().zip(y) {
            *y = 0.5 * x * (1.0 + tanh(SQRT_2_OVER_PI * (x + CUBIC * x * x * x)));
        }
    }
}

kernel! {
    fn gelu_tanh_backward(x: &[f32], y: &mut [f32], dx: &mut [f32]) {
        for ((&x, y), dx) in x.iter().zip(y).zip(dx) {
            let t = tanh(SQRT_2_OVER_PI * (x + CUBIC * x * x * x));
            *y = 0.5 * x * (1.0 + t);
            *dx *= 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * x * x);
        }
    }
}

kernel! {
    fn relu(x: &[f32], y: &mut [f32]) {
        for (&x, y) in x.iter().zip(y) {
            *y = x.max(0.0);
        }
    }
}

kernel! {
    fn relu_backward(x: &[f32], y: &mut [f32], dx: &mut [f32]) {
        for ((&x, y), dx) in x.iter().zip(y).zip(dx) {
            *y = x.max(0.0);
            *dx = if x > 0.0 { *dx } else { 0.0 };
        }
    }
}

kernel! {
    fn silu(slope: f32, x: &[f32], y: &mut [f32]) {
        for (&x, y) in x.iter().zip(y) {
            *y = x * sigmoid(slope * x);
        }
    }
}

kernel! {
    fn silu_backward(slope: f32, x: &[f32], y: &mut [f32], dx: &mut [f32]) {
        for ((&x, y), dx) in x.iter().zip(y).zip(dx) {
            let s = sigmoid(slope * x);
            *y = x * s;
            *dx *= s + slope * x * s * (1.0 - s);
        }
    }
}

kernel! {
    fn hyperbolic_tangent(x: &[f32], y: &mut [f32]) {
        for (&x, y) in x.iter().zip(y) {
            *y = tanh(x);
        }
    }
}

kernel! {
    fn hyperbolic_tangent_backward(x: &[f32], y: &mut [f32], dx: &mut [f32]) {
        for ((&x, y), dx) in x.iter().zip(y).zip(dx) {
            *y = tanh(x);
            *dx *= 1.0 - *y * *y;
        }
    }
}

kernel! {
    fn logistic(x: &[f32], y: &mut [f32]) {
        for (&x, y) in x.iter().zip(y) {
            *y = sigmoid(x);
        }
    }
}

kernel! {
    fn logistic_backward(x: &[f32], y: &mut [f32], dx: &mut [f32]) {
        for ((&x, y), dx) in x.iter().zip(y).zip(dx) {
            *y = sigmoid(x);
            *dx *= *y * (1.0 - *y);
        }
    }
}

kernel! {
    fn relu6(x: &[f32], y: &mut [f32]) {
        for (&x, y) in x.iter().zip(y) {
            *y = x.clamp(0.0, 6.0);
        }
    }
}

kernel! {
    fn relu6_backward(x: &[f32], y: &mut [f32], dx: &mut [f32]) {
        for ((&x, y), dx) in x.iter().zip(y).zip(dx) {
            *y = x.clamp(0.0, 6.0);
            *dx = if x > 0.0 && x < 6.0 { *dx } else { 0.0 };
        }
    }
}

kernel! {
    fn hard_swish(x: &[f32], y: &mut [f32]) {
        for (&x, y) in x.iter().zip(y) {
            *y = x * (x + 3.0).clamp(0.0, 6.0) / 6.0;
        }
    }
}

kernel! {
    fn hard_swish_backward(x: &[f32], y: &mut [f32], dx: &mut [f32]) {
        for ((&x, y), dx) in x.iter().zip(y).zip(dx) {
            *y = x * (x + 3.0).clamp(0.0, 6.0) / 6.0;
            let slope = if x < 3.0 { x / 3.0 + 0.5 } else { 1.0 };
            *dx *= if x > -3.0 { slope } else { 0.0 };
        }
    }
}

kernel! {
    fn hard_sigmoid(x: &[f32], y: &mut [f32]) {
        for (&x, y) in x.iter().zip(y) {
            *y = (x + 3.0).clamp(0.0, 6.0) / 6.0;
        }
    }
}

kernel! {
    fn hard_sigmoid_backward(x: &[f32], y: &mut [f32], dx: &mut [f32]) {
        for ((&x, y), dx) in x.iter().zip(y).zip(dx) {
            *y = (x + 3.0).clamp(0.0, 6.0) / 6.0;
            *dx = if x > -3.0 && x < 3.0 { *dx / 6.0 } else { 0.0 };
        }
    }
}
