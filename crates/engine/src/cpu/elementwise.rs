//! Elementwise functions of objectives, in f64.

use crate::function::{Binary, Unary};
use crate::tensor::Tensor;

/// `ln(1 + e^x)` without overflow.
pub(super) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// `1 / (1 + e^-x)` without overflow.
pub(super) fn logistic(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

fn value(function: Unary, x: f64) -> f64 {
    match function {
        Unary::Affine { scale, shift } => scale * x + shift,
        Unary::Relu => x.max(0.0),
        Unary::Exp => x.exp(),
        Unary::Ln => x.ln(),
        Unary::Sqrt => x.max(0.0).sqrt(),
        Unary::Square => x * x,
        Unary::Abs => x.abs(),
        Unary::Softplus { scale } => softplus(scale * x),
        Unary::Within { low, high } => f64::from(u8::from(low < x && x < high)),
    }
}

fn derivative(function: Unary, x: f64) -> f64 {
    match function {
        Unary::Affine { scale, .. } => scale,
        Unary::Relu => f64::from(u8::from(x > 0.0)),
        Unary::Exp => x.exp(),
        Unary::Ln => 1.0 / x,
        Unary::Sqrt if x > 0.0 => 0.5 / x.sqrt(),
        Unary::Square => 2.0 * x,
        Unary::Abs if x != 0.0 => x.signum(),
        Unary::Softplus { scale } => scale * logistic(scale * x),
        Unary::Sqrt | Unary::Abs | Unary::Within { .. } => 0.0,
    }
}

pub(super) fn unary(function: Unary, x: &[f32], y: &mut [f32]) {
    for (&x, y) in x.iter().zip(y) {
        *y = value(function, f64::from(x)) as f32;
    }
}

/// A gradient of 0 stays 0 whatever the derivative.
pub(super) fn unary_backward(function: Unary, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    for ((&x, &dy), dx) in x.iter().zip(dy).zip(dx) {
        *dx = if dy == 0.0 { 0.0 } else { (f64::from(dy) * derivative(function, f64::from(x))) as f32 };
    }
}

/// How the second operand is repeated to the shape of the first.
#[derive(Clone, Copy)]
enum Repeat {
    None,
    Scalar,
    Row,
    Column,
}

impl Repeat {
    fn of(a: &Tensor, b: &Tensor) -> Self {
        match () {
            () if a.shape() == b.shape() => Repeat::None,
            () if b.len() == 1 => Repeat::Scalar,
            () if b.shape() == [1, a.columns()] => Repeat::Row,
            () => Repeat::Column,
        }
    }

    fn index(self, row: usize, column: usize, columns: usize) -> usize {
        match self {
            Repeat::None => row * columns + column,
            Repeat::Scalar => 0,
            Repeat::Row => column,
            Repeat::Column => row,
        }
    }
}

pub(super) fn binary(function: Binary, a: &Tensor, b: &Tensor, y: &mut [f32]) {
    let (columns, repeat, a_data, b_data) = (a.columns(), Repeat::of(a, b), a.data(), b.data());
    for (i, y) in y.iter_mut().enumerate() {
        let (a, b) = (f64::from(a_data[i]), f64::from(b_data[repeat.index(i / columns, i % columns, columns)]));
        *y = match function {
            Binary::Add => a + b,
            Binary::Subtract => a - b,
            Binary::Multiply => a * b,
            Binary::Divide => a / b,
            Binary::Maximum => a.max(b),
            Binary::Minimum => a.min(b),
        } as f32;
    }
}

pub(super) fn binary_backward(function: Binary, a: &Tensor, b: &Tensor, dy: &Tensor, da: &mut [f32], db: &mut [f32]) {
    let (columns, repeat, a_data, b_data) = (a.columns(), Repeat::of(a, b), a.data(), b.data());
    let mut b_sums = vec![0.0f64; b.len()];
    for (i, (&dy, da)) in dy.data().iter().zip(da).enumerate() {
        let at = repeat.index(i / columns, i % columns, columns);
        let (a, b, dy) = (f64::from(a_data[i]), f64::from(b_data[at]), f64::from(dy));
        let half = if a == b { 0.5 } else { 0.0 };
        let (to_a, to_b) = match function {
            Binary::Add => (dy, dy),
            Binary::Subtract => (dy, -dy),
            Binary::Multiply => (dy * b, dy * a),
            Binary::Divide => (dy / b, -dy * a / (b * b)),
            Binary::Maximum => (dy * if a > b { 1.0 } else { half }, dy * if b > a { 1.0 } else { half }),
            Binary::Minimum => (dy * if a < b { 1.0 } else { half }, dy * if b < a { 1.0 } else { half }),
        };
        *da = to_a as f32;
        b_sums[at] += to_b;
    }
    db.iter_mut().zip(b_sums).for_each(|(db, sum)| *db = sum as f32);
}
