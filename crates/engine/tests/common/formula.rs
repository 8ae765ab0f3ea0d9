//! Values of operations against naive formulas in f64, gradients against central differences of those.

use engine::random::Key;
use engine::{Device, Gradients, Parameters, Result, Tape, Tensor, Var};

use super::devices::devices;

pub(crate) type Matrices = [Vec<f64>];

pub(crate) fn numbers(seed: u64, count: usize) -> Vec<f32> {
    (0..count as u64).map(|i| Key::new(seed).normal(i) as f32).collect()
}

/// Checks value and gradients of `operation` on inputs of these shapes, on every device.
pub(crate) fn check(
    shapes: &[&[usize]],
    inputs: Vec<Vec<f32>>,
    operation: impl Fn(&mut Tape<'_>, &[Var]) -> Result<Var>,
    naive: impl Fn(&Matrices) -> Vec<f64>,
) {
    for device in devices() {
        check_on(device, shapes, &inputs, &operation, &naive);
    }
}

fn check_on(
    device: &dyn Device,
    shapes: &[&[usize]],
    inputs: &[Vec<f32>],
    operation: impl Fn(&mut Tape<'_>, &[Var]) -> Result<Var>,
    naive: impl Fn(&Matrices) -> Vec<f64>,
) {
    let parameters = Parameters::default();
    let mut tape = Tape::recording(device, &parameters);
    let leaves: Vec<Var> = inputs
        .iter()
        .zip(shapes)
        .map(|(data, shape)| tape.leaf(Tensor::from_vec(data.clone(), shape).unwrap()))
        .collect();
    let y = operation(&mut tape, &leaves).unwrap();
    let mut exact: Vec<Vec<f64>> = inputs.iter().map(|x| x.iter().map(|&x| f64::from(x)).collect()).collect();
    let expected = naive(&exact);
    let close = |got: f32, expected: f64, tolerance: f64, what: &str| {
        let error = (f64::from(got) - expected).abs();
        let on = device.name();
        assert!(error <= tolerance * expected.abs().max(1.0), "{what}: got {got} on {on}, expected {expected}");
    };
    assert_eq!(y.value().len(), expected.len());
    y.value().data().iter().zip(&expected).for_each(|(&got, &expected)| close(got, expected, 2e-7, "value"));

    let upstream = numbers(99, expected.len());
    let shape = y.value().shape().to_vec();
    let mut gradients = Gradients::new(&parameters);
    let mut found = tape.backward(&y, Tensor::from_vec(upstream.clone(), &shape).unwrap(), &mut gradients).unwrap();
    let total = |x: &Matrices| naive(x).iter().zip(&upstream).map(|(y, &up)| y * f64::from(up)).sum::<f64>();
    for (input, leaf) in leaves.iter().enumerate() {
        let gradient = found.take(leaf).unwrap();
        assert_eq!(gradient.shape(), leaf.value().shape());
        for i in 0..gradient.len() {
            let (x, step) = (exact[input][i], 1e-6);
            exact[input][i] = x + step;
            let above = total(&exact);
            exact[input][i] = x - step;
            let below = total(&exact);
            exact[input][i] = x;
            close(gradient.data()[i], (above - below) / (2.0 * step), 1e-6, &format!("gradient {i} of input {input}"));
        }
    }
}
