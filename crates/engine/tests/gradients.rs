//! Every operation against plain loops in f64: its value, and its gradient against finite differences of the loops.
//!
//! The kernels compute in f32, too coarse to be differenced; so the loops of `naive/` are differenced, in f64.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
mod naive;

use std::ops::Range;
use std::sync::Arc;

use engine::device::{Activation, AttentionOptions, Pooling};
use engine::random::{Dropout, Key};
use engine::{Cpu, Packing, Parameters, Tape, Tensor, Var};

use common::difference::{check, doubles};
use common::random;

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

/// Sequences of one row, of a block of attention and one more, of two and two more, and of none.
fn packing() -> (Packing, Vec<Range<usize>>) {
    let packing = Packing::new(&[0, 1, 66, 66, 196, 198], &[5, 3, 9, 0, 7]);
    let ranges = packing.ranges().collect();
    (packing, ranges)
}

#[test]
fn linear_and_scores() {
    for (rows, inputs, outputs) in [(1, 1, 1), (1, 17, 33), (65, 33, 17), (130, 16, 5)] {
        let (x, weight, bias) = (random(1, &[rows, inputs]), random(2, &[outputs, inputs]), random(3, &[outputs]));
        let name = format!("linear {rows} x {inputs} -> {outputs}");
        check(
            &name,
            &[x.clone(), weight.clone(), bias],
            |tape, v| tape.linear(&v[0], &v[1], Some(&v[2])),
            |v| naive::linear(&v[0], &v[1], &v[2]),
        );
        let without = |v: &[Vec<f64>]| naive::scores(&v[0], &v[1], inputs);
        check(&name, &[x.clone(), weight.clone()], |tape, v| tape.linear(&v[0], &v[1], None), without);
        check(&format!("scores, {name}"), &[x, weight], |tape, v| tape.scores(&v[0], &v[1]), without);
    }
}

#[test]
fn columns_that_something_is_added_to() {
    for (rows, columns, width, first) in [(1, 1, 1, 0), (65, 33, 33, 0), (130, 12, 4, 8), (7, 9, 2, 3)] {
        let reference = |v: &[Vec<f64>]| {
            let mut y = v[0].clone();
            for (i, x) in v[1].iter().enumerate() {
                y[i / width * columns + first + i % width] += 0.5 * x;
            }
            y
        };
        check(
            &format!("add_columns {width} of {columns}"),
            &[random(1, &[rows, columns]), random(2, &[rows, width])],
            |tape, v| tape.add_columns(v[0].clone(), &v[1], 0.5, first),
            reference,
        );
    }
}

/// The in-batch losses score a matrix against itself: both gradients go to one value.
#[test]
fn scores_of_a_matrix_with_itself() {
    let twice = |v: &[Vec<f64>]| naive::scores(&v[0], &v[0], 17);
    check("scores", &[random(1, &[9, 17])], |tape, v| tape.scores(&v[0], &v[0]), twice);
}

#[test]
fn every_activation() {
    for kind in ACTIVATIONS {
        for shape in [[1, 1], [65, 17], [3, 6000]] {
            let name = format!("{kind:?} {shape:?}");
            let operation = |tape: &mut Tape<'_>, v: &[Var]| tape.activation(kind, &v[0]);
            check(&name, &[random(4, &shape)], operation, |v| naive::activation(kind, &v[0]));
        }
    }
}

#[test]
fn feed_forward_with_every_activation() {
    for kind in ACTIVATIONS {
        for (rows, inputs, middle, outputs) in [(1, 17, 33, 17), (65, 8, 17, 5)] {
            let shapes = [vec![rows, inputs], vec![middle, inputs], vec![middle], vec![outputs, middle], vec![outputs]];
            let inputs: Vec<Tensor> = shapes.iter().zip(5..).map(|(shape, seed)| random(seed, shape)).collect();
            check(
                &format!("feed_forward {kind:?}, {rows} rows"),
                &inputs,
                |tape, v| tape.feed_forward(&v[0], (&v[1], &v[2]), (&v[3], &v[4]), kind),
                |v| {
                    let active = naive::activation(kind, &naive::linear(&v[0], &v[1], &v[2]));
                    naive::linear(&active, &v[3], &v[4])
                },
            );
        }
    }
}

/// More rows than a block of a linear layer holds.
#[test]
fn feed_forward_and_linear_over_several_blocks() {
    let inputs: Vec<Tensor> =
        [vec![1100, 3], vec![5, 3], vec![5], vec![2, 5], vec![2]].iter().zip(5..).map(|(s, i)| random(i, s)).collect();
    check(
        "feed_forward of 1100 rows",
        &inputs,
        |tape, v| tape.feed_forward(&v[0], (&v[1], &v[2]), (&v[3], &v[4]), Activation::Gelu),
        |v| naive::linear(&naive::activation(Activation::Gelu, &naive::linear(&v[0], &v[1], &v[2])), &v[3], &v[4]),
    );
    check(
        "linear of 1100 rows",
        &inputs[..3],
        |tape, v| tape.linear(&v[0], &v[1], Some(&v[2])),
        |v| naive::linear(&v[0], &v[1], &v[2]),
    );
}

#[test]
fn embedding_sum_and_rows() {
    for columns in [1, 17, 33] {
        let ids: [Arc<[u32]>; 3] = [
            (0..130).map(|row| row * row % 23).collect(),
            (0..130).map(|row| row % 70).collect(),
            (0..130).map(|row| row / 100).collect(),
        ];
        let tables = [random(1, &[23, columns]), random(2, &[70, columns]), random(3, &[2, columns])];
        check(
            &format!("embedding_sum of {columns} columns"),
            &tables,
            |tape, v| tape.embedding_sum(&[0, 1, 2].map(|i| (&v[i], ids[i].clone()))),
            |v| {
                let element = |row: usize, column: usize| {
                    v.iter().zip(&ids).map(|(table, ids)| table[ids[row] as usize * columns + column]).sum::<f64>()
                };
                (0..130)
                    .flat_map(|row| (0..columns).map(move |column| (row, column)))
                    .map(|(r, c)| element(r, c))
                    .collect()
            },
        );
        let picked =
            |v: &[Vec<f64>]| ids[0].iter().flat_map(|&id| v[0][id as usize * columns..][..columns].to_vec()).collect();
        check("rows", &tables[..1], |tape, v| tape.rows(&v[0], ids[0].clone()), picked);
    }
}

/// The mask of a dropout site, read off ones.
fn mask(columns: usize, dropout: Option<Dropout>, packing: &Packing) -> Vec<f64> {
    let parameters = Parameters::default();
    let mut tape = Tape::inference(&Cpu::F32, &parameters);
    let ones = tape.constant(Tensor::full(&[packing.rows(), columns], 1.0));
    doubles(tape.dropout(&ones, dropout, packing).unwrap().value().data())
}

fn site(probability: f32) -> Dropout {
    Dropout { probability, key: Key::new(3).part(1) }
}

#[test]
fn dropout() {
    let (packing, _) = packing();
    for columns in [1, 17, 33] {
        let mask = mask(columns, Some(site(0.3)), &packing);
        let kept = (1.0f32 / 0.7) as f64;
        assert!(mask.iter().all(|&x| x == 0.0 || (x - kept).abs() < 1e-6));
        check(
            &format!("dropout of {columns} columns"),
            &[random(1, &[packing.rows(), columns])],
            |tape, v| tape.dropout(&v[0], Some(site(0.3)), &packing),
            |v| v[0].iter().zip(&mask).map(|(x, mask)| x * mask).collect(),
        );
    }
}

#[test]
fn add_norm_with_and_without_residual_and_dropout() {
    let (packing, _) = packing();
    for columns in [2, 17, 33] {
        let shape = [packing.rows(), columns];
        let [x, residual] = [random(1, &shape), random(2, &shape)];
        let [weight, bias] = [random(3, &[columns]), random(4, &[columns])];
        for dropout in [None, Some(site(0.3))] {
            let mask = mask(columns, dropout, &packing);
            let eps = 1e-3;
            check(
                &format!("add_norm of {columns} columns, {dropout:?}"),
                &[x.clone(), weight.clone(), bias.clone(), residual.clone()],
                |tape, v| tape.add_norm(&v[0], Some(&v[3]), &v[1], &v[2], eps, dropout, &packing),
                |v| naive::add_norm(&v[0], &mask, Some(&v[3]), &v[1], &v[2], f64::from(eps)),
            );
            if dropout.is_none() {
                check(
                    &format!("norm of {columns} columns"),
                    &[x.clone(), weight.clone(), bias.clone()],
                    |tape, v| tape.add_norm(&v[0], None, &v[1], &v[2], eps, dropout, &packing),
                    |v| naive::add_norm(&v[0], &mask, None, &v[1], &v[2], f64::from(eps)),
                );
            }
        }
    }
}

/// A value that is its own residual gets both gradients.
#[test]
fn add_norm_of_a_value_with_itself() {
    let (packing, _) = packing();
    check(
        "add_norm",
        &[random(1, &[198, 9]), random(2, &[9]), random(3, &[9])],
        |tape, v| tape.add_norm(&v[0], Some(&v[0]), &v[1], &v[2], 1e-3, None, &packing),
        |v| naive::add_norm(&v[0], &vec![1.0; v[0].len()], Some(&v[0]), &v[1], &v[2], f64::from(1e-3f32)),
    );
}

const POOLINGS: [Pooling; 7] = [
    Pooling::Mean,
    Pooling::Cls,
    Pooling::Max,
    Pooling::Last,
    Pooling::Gem { p: 3.0, eps: 1e-6 },
    Pooling::Gem { p: 1.0, eps: 0.1 },
    Pooling::Gem { p: f32::INFINITY, eps: 1e-6 },
];

#[test]
fn every_pooling() {
    let packing = Packing::new(&[0, 1, 66, 196, 198], &[0, 1, 2, 3]);
    let ranges: Vec<_> = packing.ranges().collect();
    for pooling in POOLINGS {
        for columns in [1, 17, 33] {
            check(
                &format!("{pooling:?} of {columns} columns"),
                &[random(8, &[198, columns])],
                |tape, v| tape.pool(pooling, &v[0], &packing),
                |v| naive::pool(pooling, &v[0], columns, &ranges),
            );
        }
    }
}

#[test]
fn normalize() {
    for shape in [[1, 1], [130, 17], [65, 33]] {
        let columns = shape[1];
        // One column is its own norm: the exact derivative is 0, and the largest magnitude no scale.
        let shape = if columns == 1 { [1, 2] } else { shape };
        check(
            &format!("normalize {shape:?}"),
            &[random(9, &shape)],
            |tape, v| tape.normalize(&v[0]),
            |v| naive::normalize(&v[0], shape[1]),
        );
    }
}

/// Attention probabilities of every sequence `[head][row][column]`, read off by values that are unit vectors.
fn probabilities(qkv: &Tensor, packing: &Packing, options: AttentionOptions) -> Vec<Vec<Vec<Vec<f64>>>> {
    let hidden = qkv.columns() / 3;
    let size = hidden / options.heads;
    let parameters = Parameters::default();
    let square = |range: Range<usize>| vec![vec![vec![0.0; range.len()]; range.len()]; options.heads];
    let mut shares: Vec<_> = packing.ranges().map(square).collect();
    for from in (0..packing.longest()).step_by(size) {
        let mut probe = qkv.clone();
        for range in packing.ranges() {
            for (j, row) in range.enumerate() {
                let values = &mut probe.data_mut()[row * 3 * hidden + 2 * hidden..][..hidden];
                values.iter_mut().enumerate().for_each(|(c, v)| *v = if from + c % size == j { 1.0 } else { 0.0 });
            }
        }
        let mut tape = Tape::inference(&Cpu::F32, &parameters);
        let probe = tape.constant(probe);
        let y = tape.attention(&probe, packing, None, options).unwrap();
        for (sequence, range) in packing.ranges().enumerate() {
            for (i, row) in range.clone().enumerate() {
                for (c, &share) in y.value().data()[row * hidden..][..hidden].iter().enumerate() {
                    if from + c % size < range.len() {
                        shares[sequence][c / size][i][from + c % size] = f64::from(share);
                    }
                }
            }
        }
    }
    shares
}

fn check_attention(heads: usize, size: usize, causal: bool, window: Option<usize>, reach: Option<usize>) {
    let (packing, ranges) = packing();
    let options = AttentionOptions { heads, causal, window, dropout: None };
    let qkv = random(1, &[packing.rows(), 3 * heads * size]);
    let bias = reach.map(|reach| random(2, &[2 * reach - 1, heads]));
    let inputs: Vec<Tensor> = [qkv].into_iter().chain(bias).collect();
    let sees = |i: usize, j: usize| (!causal || j <= i) && window.is_none_or(|window| i.abs_diff(j) <= window);
    check(
        &format!("attention of {heads} heads of {size}, causal {causal}, window {window:?}, bias {reach:?}"),
        &inputs,
        |tape, v| tape.attention(&v[0], &packing, v.get(1), options),
        |v| naive::attention(&v[0], &ranges, heads, v.get(1).map(|bias| &bias[..]), sees, &[]),
    );
}

#[test]
fn attention() {
    check_attention(2, 8, false, None, None);
    check_attention(3, 11, false, None, None);
    check_attention(1, 1, false, None, None);
}

/// The head sizes of CLIP, ViT and SigLIP, at the lengths of their pictures and texts.
#[test]
fn attention_of_image_encoders() {
    for (size, length, causal) in [(64, 50, false), (64, 77, true), (80, 257, false), (32, 197, false), (88, 65, true)]
    {
        let packing = Packing::new(&[0, length, length + 1], &[0, 1]);
        let ranges: Vec<_> = packing.ranges().collect();
        let options = AttentionOptions { heads: 2, causal, window: None, dropout: None };
        check(
            &format!("attention over {length} of heads of {size}, causal {causal}"),
            &[random(1, &[packing.rows(), 6 * size])],
            |tape, v| tape.attention(&v[0], &packing, None, options),
            |v| naive::attention(&v[0], &ranges, 2, None, |i, j| !causal || j <= i, &[]),
        );
    }
}

#[test]
fn attention_with_bias_causal_and_window() {
    check_attention(2, 8, false, None, Some(130));
    check_attention(2, 5, false, None, Some(140));
    check_attention(2, 8, true, None, None);
    check_attention(2, 5, false, Some(3), None);
    check_attention(2, 5, false, Some(0), None);
    check_attention(2, 5, true, Some(70), Some(130));
}

/// The backward pass drops what the forward pass dropped: the loops get the mask that the forward pass shows.
#[test]
fn attention_with_dropout() {
    let (packing, ranges) = packing();
    let (heads, size) = (2, 8);
    let plain = AttentionOptions { heads, causal: false, window: None, dropout: None };
    let options = AttentionOptions { dropout: Some(site(0.3)), ..plain };
    let qkv = random(1, &[packing.rows(), 3 * heads * size]);
    let (with, without) = (probabilities(&qkv, &packing, options), probabilities(&qkv, &packing, plain));
    let (mut dropped, mut all) = (0, 0);
    let factors: Vec<Vec<Vec<Vec<f64>>>> = with
        .iter()
        .zip(&without)
        .map(|(with, without)| {
            let mut ratio = with.clone();
            for (head, rows) in ratio.iter_mut().enumerate() {
                for (i, row) in rows.iter_mut().enumerate() {
                    for (j, x) in row.iter_mut().enumerate() {
                        *x /= without[head][i][j];
                        assert!(*x == 0.0 || (*x * 0.7 - 1.0).abs() < 1e-4, "a factor of {x}");
                        *x = if *x == 0.0 { 0.0 } else { 1.0 / f64::from(1.0 - 0.3f32) };
                        (dropped, all) = (dropped + usize::from(*x == 0.0), all + 1);
                    }
                }
            }
            ratio
        })
        .collect();
    let share = f64::from(dropped as u32) / f64::from(all as u32);
    assert!((share - 0.3).abs() < 0.01, "{share} dropped");
    let masks: Vec<_> = factors.iter().map(|f| move |head: usize, i: usize, j: usize| f[head][i][j]).collect();
    let masks: Vec<naive::Mask<'_>> = masks.iter().map(|mask| mask as naive::Mask<'_>).collect();
    check(
        "attention with dropout",
        &[qkv],
        |tape, v| tape.attention(&v[0], &packing, None, options),
        |v| naive::attention(&v[0], &ranges, heads, None, |_, _| true, &masks),
    );
}
