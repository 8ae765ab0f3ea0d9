//! The kernels of a GPU, and the processor's products of bf16, beside those of the processor in f32, on numbers drawn at
//! random: relative to the norm of the right result the difference is below 1e-5 in f32 and 1e-2 in bf16. Where there is no
//! GPU, one is emulated.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too, fail by panicking")]

mod common;

use std::sync::OnceLock;

use common::devices::gpu;
use engine::cuda::Precision;
use engine::device::{Activation, AttentionOptions, Device, Operand, Pooling, UpdateKind, UpdateRule};
use engine::random::{Dropout, Key};
use engine::{Cpu, Cuda, Packing, Tensor};

/// The GPU in both precisions with what their results may differ by; nothing where there is none.
fn gpus() -> &'static [(Cuda, f64)] {
    static GPUS: OnceLock<Vec<(Cuda, f64)>> = OnceLock::new();
    GPUS.get_or_init(|| {
        let precisions = [(Precision::F32, 1e-5), (Precision::Bf16, 1e-2)];
        precisions.into_iter().filter_map(|(precision, tolerance)| Some((gpu(precision)?, tolerance))).collect()
    })
}

fn random(shape: &[usize], seed: u64) -> Tensor {
    common::random(seed, shape)
}

fn difference(got: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(got.shape(), expected.shape());
    let pairs = || got.data().iter().zip(expected.data()).map(|(&a, &b)| (f64::from(a), f64::from(b)));
    let error: f64 = pairs().map(|(a, b)| if a == b { 0.0 } else { (a - b).powi(2) }).sum();
    let norm: f64 = pairs().map(|(_, b)| b * b).sum();
    (error / norm.max(1e-30)).sqrt()
}

/// Runs `compute` on the processor and on the GPU in both precisions and compares what it gives.
fn same(what: &str, compute: impl Fn(&dyn Device) -> Vec<Tensor>) {
    let expected = compute(&Cpu::F32);
    let gpus = gpus().iter().map(|(gpu, tolerance)| (gpu as &dyn Device, *tolerance));
    for (device, tolerance) in std::iter::once((&Cpu::Bf16 as &dyn Device, 1e-2)).chain(gpus) {
        let got = compute(device);
        assert_eq!(got.len(), expected.len());
        let differences: Vec<f64> =
            got.iter().zip(&expected).map(|(got, expected)| difference(got, expected)).collect();
        device.check().unwrap();
        let most =
            differences.iter().copied().fold(0.0, |most: f64, x| if x.is_nan() { f64::NAN } else { most.max(x) });
        assert!(most <= tolerance, "{what} on {}: {differences:?}", device.name());
    }
}

fn packing(lengths: &[u32]) -> Packing {
    let mut offsets = vec![0];
    lengths.iter().for_each(|length| offsets.push(offsets[offsets.len() - 1] + length));
    let examples: Vec<u32> = (0..lengths.len() as u32).map(|i| 7 * i + 3).collect();
    Packing::new(&offsets, &examples)
}

const ACTIVATIONS: [Activation; 11] = [
    Activation::Identity,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Relu,
    Activation::Silu,
    Activation::QuickGelu,
    Activation::Tanh,
    Activation::Sigmoid,
    Activation::Relu6,
    Activation::HardSwish,
    Activation::HardSigmoid,
];

#[test]
fn products() {
    for (m, n, k) in [(5, 7, 3), (64, 128, 96), (130, 33, 65), (1, 40, 24), (300, 8, 1)] {
        let (a, b) = (random(&[m, k], 1), random(&[k, n], 2));
        let (at, bt) = (random(&[k, m], 3), random(&[n, k], 4));
        let bias = random(&[n], 5);
        same(&format!("product {m} {n} {k}"), |device| {
            let run = |a: Operand<'_>, b: Operand<'_>| {
                let mut out = Tensor::zeros(&[m, n]);
                device.matmul(a, b, 0.5, &mut out, false);
                device.matmul(a, b, 1.5, &mut out, true);
                out
            };
            vec![
                run(Operand::Plain(&a), Operand::Plain(&b)),
                run(Operand::Transposed(&at), Operand::Plain(&b)),
                run(Operand::Plain(&a), Operand::Transposed(&bt)),
                run(Operand::Transposed(&at), Operand::Transposed(&bt)),
                device.linear(&a, &bt, Some(&bias)),
                device.linear(&a, &bt, None),
            ]
        });
    }
}

#[test]
fn sums_and_factors() {
    for (rows, columns) in [(1, 1), (3, 5), (700, 384), (1000, 30), (4097, 130)] {
        let (x, y) = (random(&[rows, columns], 1), random(&[rows, columns], 2));
        same(&format!("sums {rows} {columns}"), |device| {
            let mut sums = random(&[columns], 3);
            device.column_sums(&x, &mut sums, true);
            let mut fresh = Tensor::zeros(&[columns]);
            device.column_sums(&x, &mut fresh, false);
            let mut sum = x.clone();
            device.add_assign(&mut sum, &y);
            device.scale_assign(&mut sum, 0.25);
            let squares = device.sum_of_squares(&[&x, &y, &sum]) as f32;
            vec![sums, fresh, sum, Tensor::scalar(squares), x.clone()]
        });
    }
}

#[test]
fn activations_and_feed_forward() {
    // Any width, and widths whose bias gradient comes with the others.
    for (activation, (rows, inner)) in ACTIVATIONS.into_iter().flat_map(|a| [(a, (37, 50)), (a, (300, 264))]) {
        let (x, dy) = (random(&[rows, 26], 1), random(&[rows, 26], 2));
        let (w1, b1) = (random(&[inner, 26], 3), random(&[inner], 4));
        let (w2, b2) = (random(&[24, inner], 5), random(&[24], 6));
        let (upstream, before) = (random(&[rows, 24], 7), random(&[rows, inner], 8));
        same(&format!("{activation:?}, {inner} in the middle"), |device| {
            let (y, middle) = device.feed_forward(&x, (&w1, &b1), (&w2, &b2), activation, true);
            // Not from that middle: a kink turns the last bit of the value before it into another slope.
            let (active, gradient, sums) = device.feed_forward_backward(&before, &w2, &upstream, activation);
            let alone = [device.activation(activation, &x), device.activation_backward(activation, &x, &dy)];
            [y, middle, active, gradient, sums].into_iter().chain(alone).collect()
        });
    }
}

#[test]
fn embeddings() {
    for columns in [8, 30, 384] {
        let tables = [random(&[200, columns], 1), random(&[64, columns], 2), random(&[2, columns], 3)];
        let key = Key::new(9);
        let ids: Vec<Vec<u32>> = tables
            .iter()
            .zip(0..)
            .map(|(table, which)| (0..500).map(|i| (key.part(which).bits(i) % table.rows() as u64) as u32).collect())
            .collect();
        let dy = random(&[500, columns], 4);
        same(&format!("embeddings of {columns}"), |device| {
            let pairs: Vec<(&Tensor, &[u32])> = tables.iter().zip(&ids).map(|(t, i)| (t, &i[..])).collect();
            let mut found = vec![device.embedding_sum(&pairs, columns), device.embedding_sum(&pairs[..1], columns)];
            for (table, ids) in tables.iter().zip(&ids) {
                let mut gradient = table.clone();
                device.embedding_backward(ids, &dy, &mut gradient, true);
                let mut fresh = Tensor::zeros(table.shape());
                device.embedding_backward(ids, &dy, &mut fresh, false);
                found.extend([gradient, fresh]);
            }
            found
        });
    }
}

#[test]
fn norms_and_dropout() {
    let packing = packing(&[5, 1, 60, 17, 40]);
    for columns in [8, 30, 128, 384, 512, 768, 1000, 1024, 1028] {
        let shape = [packing.rows(), columns];
        let (x, residual, dy) = (random(&shape, 1), random(&shape, 2), random(&shape, 3));
        let (weight, bias) = (random(&[columns], 4), random(&[columns], 5));
        let dropout = Dropout { probability: 0.1, key: Key::new(6).part(2) };
        same(&format!("norm of {columns}"), |device| {
            let (y, normalised, deviation) =
                device.add_norm(&x, Some(&residual), &weight, &bias, 1e-12, Some((&dropout, &packing)));
            let (plain, _, _) = device.add_norm(&x, None, &weight, &bias, 1e-5, None);
            let again = device.scale_shift(&normalised, &weight, &bias);
            let of = device.add_norm_backward(&normalised, &deviation, &weight, &dy, None);
            let through = device.add_norm_backward(&normalised, &deviation, &weight, &dy, Some((&dropout, &packing)));
            let dropped = device.dropout(&x, &dropout, &packing);
            let (unit, norms) = device.normalize(&x, 1e-12);
            let back = device.normalize_backward(&unit, &norms, 1e-12, &dy);
            let forward = [y, normalised, deviation, plain, again, dropped, unit, norms, back];
            forward.into_iter().chain([of.sum, of.weight, of.bias, through.sum, through.x]).collect()
        });
    }
}

#[test]
fn poolings() {
    let packing = packing(&[5, 1, 0, 60, 17, 40]);
    let gem = |p| Pooling::Gem { p, eps: 1e-6 };
    for pooling in [Pooling::Mean, Pooling::Cls, Pooling::Last, gem(3.0), gem(1.0)] {
        for columns in [30, 384] {
            let x = random(&[packing.rows(), columns], 1);
            let dy = random(&[packing.sequences(), columns], 2);
            same(&format!("{pooling:?}"), |device| {
                let y = device.pool(pooling, &x, &packing);
                let dx = device.pool_backward(pooling, &x, &y, &packing, &dy);
                vec![y, dx]
            });
        }
    }
    // Values that are whole in 16 bits, so that the largest is the same row in both precisions.
    let key = Key::new(3);
    let values = (0..packing.rows() * 12).map(|i| (key.bits(i as u64) % 200) as f32 - 100.0).collect();
    let x = Tensor::from_vec(values, &[packing.rows(), 12]).unwrap();
    let dy = random(&[packing.sequences(), 12], 2);
    for pooling in [Pooling::Max, gem(f32::INFINITY)] {
        same(&format!("{pooling:?}"), |device| {
            let y = device.pool(pooling, &x, &packing);
            let dx = device.pool_backward(pooling, &x, &y, &packing, &dy);
            vec![y, dx]
        });
    }
}

#[test]
fn attentions() {
    let lengths = [[5, 1, 0, 64, 17, 130, 2], [200, 65, 33, 128, 16, 15, 7]];
    let dropout = Some(Dropout { probability: 0.1, key: Key::new(6).part(2) });
    let plain = AttentionOptions { heads: 2, causal: false, window: None, dropout: None };
    let cases = [
        plain,
        AttentionOptions { causal: true, ..plain },
        AttentionOptions { window: Some(20), ..plain },
        AttentionOptions { dropout, ..plain },
        AttentionOptions { causal: true, dropout, heads: 3, ..plain },
    ];
    for (options, size) in cases.iter().flat_map(|options| [12, 32, 64, 80, 128].map(|size| (options, size))) {
        // Emulated blocks take their time: the longer sequences with the plain options only.
        for lengths in if options.causal || options.dropout.is_some() { &lengths[..1] } else { &lengths[..] } {
            let packing = packing(lengths);
            let (hidden, reach) = (options.heads * size, 200);
            let qkv = random(&[packing.rows(), 3 * hidden], 1);
            let dy = random(&[packing.rows(), hidden], 2);
            let bias = random(&[2 * reach - 1, options.heads], 3);
            for bias in [None, Some(&bias)] {
                let what = format!("attention, size {size}, bias {}, {options:?}", bias.is_some());
                same(&what, |device| {
                    let (y, log_sum_exp) = device.attention(&qkv, &packing, bias, options);
                    let (dqkv, dbias) = device.attention_backward(&qkv, &packing, bias, options, &y, &log_sum_exp, &dy);
                    [y, log_sum_exp, dqkv].into_iter().chain(dbias).collect()
                });
            }
        }
    }
}

#[test]
fn updates() {
    let adam = |amsgrad| UpdateKind::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8, amsgrad };
    let sgd = |momentum, nesterov| UpdateKind::Sgd { momentum, dampening: 0.1, nesterov };
    let rms = |momentum, centered| UpdateKind::RmsProp { alpha: 0.99, eps: 1e-8, momentum, centered };
    let kinds = [
        adam(false),
        adam(true),
        sgd(0.0, false),
        sgd(0.9, false),
        sgd(0.9, true),
        UpdateKind::RAdam { beta1: 0.9, beta2: 0.9, eps: 1e-8 },
        UpdateKind::NAdam { beta1: 0.9, beta2: 0.999, eps: 1e-8, momentum_decay: 4e-3 },
        UpdateKind::Adamax { beta1: 0.9, beta2: 0.999, eps: 1e-8 },
        UpdateKind::Adagrad { lr_decay: 0.1, initial_accumulator_value: 0.1, eps: 1e-10 },
        UpdateKind::Adadelta { rho: 0.9, eps: 1e-6 },
        rms(0.0, false),
        rms(0.0, true),
        rms(0.5, false),
        rms(0.5, true),
        UpdateKind::Asgd { lambd: 1e-4, alpha: 0.75 },
        UpdateKind::Rprop { etas: (0.5, 1.2), step_sizes: (1e-6, 50.0) },
    ];
    for kind in kinds {
        for decoupled in [true, false] {
            same(&format!("{kind:?}"), |device| {
                let mut weight = random(&[333, 3], 1);
                let before = weight.clone();
                // A product makes the GPU hold the weight in short form, too, which the update has to follow.
                let probe = random(&[4, 3], 2);
                device.linear(&probe, &weight, None);
                let mut state: Vec<Tensor> = kind
                    .initial_moments(0.01)
                    .into_iter()
                    .map(|initial| Tensor::full(weight.shape(), initial))
                    .collect();
                for step in 1..=12 {
                    let gradient = random(&[333, 3], 10 + step);
                    let rule = UpdateRule { kind, weight_decay: 0.1, decoupled, step };
                    device.update(&rule, 0.01, 0.5, &mut weight, &gradient, &mut state);
                }
                let product = device.linear(&probe, &weight, None);
                let mut found = vec![weight, before, product];
                found.append(&mut state);
                found
            });
        }
    }
}
