//! What the tests of the operations share.

#![allow(dead_code, reason = "not every test uses all of it")]

pub(crate) mod devices;
pub(crate) mod emulated;
pub(crate) mod difference;
pub(crate) mod golden;

use engine::Tensor;
use engine::random::Key;

/// Values of `FINETUNER_ISA`; other architectures than x86-64 have one instruction set.
pub(crate) const LOWER_INSTRUCTION_SETS: &[&str] = if cfg!(target_arch = "x86_64") { &["plain", "avx2"] } else { &[] };

/// Normal numbers, the same for the same seed.
pub(crate) fn random(seed: u64, shape: &[usize]) -> Tensor {
    let key = Key::new(seed);
    let numbers = (0..shape.iter().product::<usize>()).map(|i| key.normal(i as u64) as f32).collect();
    Tensor::from_vec(numbers, shape).unwrap()
}

/// Asserts that `got` equals `expected` to `tolerance` of the largest expected magnitude.
#[track_caller]
pub(crate) fn assert_close(what: &str, got: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}: number of elements");
    let scale = expected.iter().fold(1e-30, |largest: f64, x| largest.max(x.abs()));
    for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(got) - expected).abs() / scale;
        assert!(
            error <= tolerance,
            "{what}[{i}]: expected {expected:e}, got {got:e}, off by {error:.1e} of {scale:.1e}"
        );
    }
}
