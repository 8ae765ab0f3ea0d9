//! Operations against plain loops in f64, and their gradients against finite differences of the loops.

use engine::random::Key;
use engine::{Device, Gradients, Parameters, Result, Tape, Tensor, Var};

use super::devices::devices;
use super::{assert_close, random};

/// Of the largest magnitude of the tensor; the sums of products of the larger shapes round to this.
const TOLERANCE: f64 = 5e-6;
/// Of the largest magnitude of the gradient.
const GRADIENT_TOLERANCE: f64 = 1e-5;
/// Elements of each input whose own derivative is compared; random directions cover the others.
const ELEMENTS: usize = 24;
const DIRECTIONS: u64 = 3;

pub(crate) fn doubles(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

/// Compares `operation` with `reference`, and its gradient of every input with the differences of the reference, on every
/// device.
#[track_caller]
pub(crate) fn check(
    name: &str,
    inputs: &[Tensor],
    operation: impl Fn(&mut Tape<'_>, &[Var]) -> Result<Var>,
    reference: impl Fn(&[Vec<f64>]) -> Vec<f64>,
) {
    for device in devices() {
        check_on(device, &format!("{name} on {}", device.name()), inputs, &operation, &reference);
    }
}

#[track_caller]
fn check_on(
    device: &dyn Device,
    name: &str,
    inputs: &[Tensor],
    operation: impl Fn(&mut Tape<'_>, &[Var]) -> Result<Var>,
    reference: impl Fn(&[Vec<f64>]) -> Vec<f64>,
) {
    let parameters = Parameters::default();
    let mut tape = Tape::recording(device, &parameters);
    let leaves: Vec<Var> = inputs.iter().map(|input| tape.leaf(input.clone())).collect();
    let y = operation(&mut tape, &leaves).unwrap();
    let exact: Vec<Vec<f64>> = inputs.iter().map(|input| doubles(input.data())).collect();
    assert_close(name, y.value().data(), &reference(&exact), TOLERANCE);

    let upstream = random(77, y.value().shape());
    let weights = doubles(upstream.data());
    let mut gradients = tape.backward(&y, upstream, &mut Gradients::new(&parameters)).unwrap();
    for (input, leaf) in leaves.iter().enumerate() {
        let gradient = gradients.take(leaf).unwrap_or_else(|| panic!("{name}: no gradient of input {input}"));
        let gradient = doubles(gradient.data());
        let difference = |direction: &dyn Fn(usize) -> f64| {
            const STEP: f64 = 1e-5;
            let moved = |step: f64| {
                let mut inputs = exact.clone();
                inputs[input].iter_mut().enumerate().for_each(|(i, x)| *x += step * direction(i));
                dot(&reference(&inputs), &weights)
            };
            (moved(STEP) - moved(-STEP)) / (2.0 * STEP)
        };
        let largest = gradient.iter().fold(1e-30, |largest: f64, x| largest.max(x.abs()));
        let stride = gradient.len().div_ceil(ELEMENTS);
        // An odd stride walks over all columns of the usual widths.
        for i in (0..gradient.len()).step_by(stride | 1) {
            let expected = difference(&|j| if i == j { 1.0 } else { 0.0 });
            let error = (gradient[i] - expected).abs() / largest;
            let got = gradient[i];
            assert!(error < GRADIENT_TOLERANCE, "{name}: d/d input {input}[{i}] is {got:e}, expected {expected:e}");
        }
        for seed in 0..DIRECTIONS {
            let direction: Vec<f64> = (0..gradient.len()).map(|i| Key::new(seed).normal(i as u64)).collect();
            let (got, expected) = (dot(&gradient, &direction), difference(&|i| direction[i]));
            let scale = gradient.iter().map(|x| x * x).sum::<f64>().sqrt().max(largest);
            let error = (got - expected).abs() / scale;
            assert!(error < GRADIENT_TOLERANCE, "{name}: input {input}, direction {seed}: {got:e}, not {expected:e}");
        }
    }
}
