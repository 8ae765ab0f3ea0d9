//! What does not fit is refused with its reason, before any work; what is empty is computed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use engine::device::{Activation, AttentionOptions, Pooling};
use engine::map::{BatchNormOptions, ConvolutionOptions, Map, Padding, Statistics};
use engine::op::{Interpolation, RunningStatistics, WindowOptions};
use engine::random::{Dropout, Key};
use engine::{Cpu, Error, Gradients, Packing, Parameters, Result, Tape, Tensor, Var};

use common::random;

const OPTIONS: AttentionOptions = AttentionOptions { heads: 2, causal: false, window: None, dropout: None };

#[track_caller]
fn refuses(operation: impl Fn(&mut Tape<'_>) -> Result<Var>) -> Error {
    let parameters = Parameters::default();
    operation(&mut Tape::recording(&Cpu::F32, &parameters)).map(|y| y.value().shape().to_vec()).unwrap_err()
}

#[track_caller]
fn refuses_shape(operation: impl Fn(&mut Tape<'_>) -> Result<Var>) {
    let error = refuses(operation);
    assert!(matches!(error, Error::Shape { .. }), "{error}");
}

fn constant(tape: &Tape<'_>, shape: &[usize]) -> Var {
    tape.constant(Tensor::zeros(shape))
}

#[test]
fn an_id_outside_its_table_is_named() {
    let error = refuses(|tape| tape.rows(&constant(tape, &[5, 3]), [0, 4, 5, 9].into()));
    assert_eq!(error, Error::Index { operation: "embedding", index: 5, position: 2, limit: 5 });
    assert_eq!(error.to_string(), "embedding: index 5 at position 2 is outside 0..5");
    refuses(|tape| tape.rows(&constant(tape, &[0, 3]), [0].into()));
}

#[test]
fn embeddings_of_other_shapes_are_refused() {
    refuses_shape(|tape| tape.embedding_sum(&[]));
    refuses_shape(|tape| tape.rows(&constant(tape, &[5, 0]), [1].into()));
    refuses_shape(|tape| {
        let (a, b) = (constant(tape, &[5, 3]), constant(tape, &[5, 4]));
        tape.embedding_sum(&[(&a, [1].into()), (&b, [1].into())])
    });
    refuses_shape(|tape| {
        let a = constant(tape, &[5, 3]);
        tape.embedding_sum(&[(&a, [1].into()), (&a, [1, 2].into())])
    });
}

#[test]
fn linear_and_scores_of_other_shapes_are_refused() {
    let linear = |x: &[usize], weight: &[usize], bias: &[usize]| {
        refuses_shape(|tape| {
            let [x, weight, bias] = [x, weight, bias].map(|shape| constant(tape, shape));
            tape.linear(&x, &weight, Some(&bias))
        });
    };
    linear(&[2, 3], &[5, 4], &[5]);
    linear(&[2, 4], &[5, 4], &[4]);
    linear(&[2, 4], &[5, 4], &[1, 5]);
    linear(&[2, 4], &[0, 4], &[0]);
    linear(&[2, 0], &[5, 0], &[5]);
    refuses_shape(|tape| tape.scores(&constant(tape, &[2, 3]), &constant(tape, &[2, 4])));
}

#[test]
fn a_feed_forward_of_other_shapes_is_refused() {
    let fits: [&[usize]; 5] = [&[2, 3], &[6, 3], &[6], &[4, 6], &[4]];
    let others: [&[usize]; 5] = [&[2, 4], &[6, 4], &[7], &[4, 7], &[5]];
    for wrong in 0..5 {
        refuses_shape(|tape| {
            let mut shapes = fits;
            shapes[wrong] = others[wrong];
            let [x, w1, b1, w2, b2] = shapes.map(|shape| constant(tape, shape));
            tape.feed_forward(&x, (&w1, &b1), (&w2, &b2), Activation::Gelu)
        });
    }
    refuses_shape(|tape| {
        let [x, w1, b1, w2, b2] = [&[2, 3][..], &[0, 3], &[0], &[4, 0], &[4]].map(|shape| constant(tape, shape));
        tape.feed_forward(&x, (&w1, &b1), (&w2, &b2), Activation::Gelu)
    });
}

#[test]
fn a_norm_of_other_shapes_is_refused() {
    let norm = |x: &[usize], residual: &[usize], weight: &[usize], bias: &[usize]| {
        refuses_shape(|tape| {
            let [x, residual, weight, bias] = [x, residual, weight, bias].map(|shape| constant(tape, shape));
            let dropout = Some(Dropout { probability: 0.1, key: Key::new(1) });
            tape.add_norm(&x, Some(&residual), &weight, &bias, 1e-5, dropout, &Packing::new(&[0, 2], &[0]))
        });
    };
    norm(&[2, 3], &[2, 4], &[3], &[3]);
    norm(&[2, 3], &[2, 3], &[4], &[3]);
    norm(&[2, 3], &[2, 3], &[3], &[1, 3]);
    norm(&[3, 3], &[3, 3], &[3], &[3]);
    norm(&[2, 0], &[2, 0], &[0], &[0]);
    refuses_shape(|tape| tape.normalize(&constant(tape, &[2, 0])));
}

#[test]
fn a_packing_of_another_number_of_rows_is_refused() {
    let packing = Packing::new(&[0, 2, 5], &[0, 1]);
    let site = Some(Dropout { probability: 0.1, key: Key::new(1) });
    for rows in [4, 6] {
        refuses_shape(|tape| tape.dropout(&constant(tape, &[rows, 6]), site, &packing));
        refuses_shape(|tape| tape.pool(Pooling::Mean, &constant(tape, &[rows, 6]), &packing));
        refuses_shape(|tape| tape.attention(&constant(tape, &[rows, 12]), &packing, None, OPTIONS));
    }
}

#[test]
fn attention_of_other_shapes_is_refused() {
    let packing = Packing::new(&[0, 2, 5], &[0, 1]);
    for columns in [0, 3, 8, 13] {
        refuses_shape(|tape| tape.attention(&constant(tape, &[5, columns]), &packing, None, OPTIONS));
    }
    let headless = AttentionOptions { heads: 0, ..OPTIONS };
    refuses_shape(|tape| tape.attention(&constant(tape, &[5, 12]), &packing, None, headless));
    // Sequences of three rows need distances -2..=2.
    for bias in [[3, 2], [4, 2], [6, 2], [5, 3]] {
        refuses_shape(|tape| {
            let bias = constant(tape, &bias);
            tape.attention(&constant(tape, &[5, 12]), &packing, Some(&bias), OPTIONS)
        });
    }
}

#[test]
fn convolutions_of_other_shapes_are_refused() {
    let map = Map { images: 1, height: 4, width: 5 };
    let convolve = |rows: usize, channels: usize, weight: &[usize], options: ConvolutionOptions| {
        refuses_shape(|tape| {
            let (x, weight) = (constant(tape, &[rows, channels]), constant(tape, weight));
            Ok(tape.conv2d(&x, map, &weight, None, options)?.0)
        });
    };
    let plain = ConvolutionOptions::default();
    convolve(19, 6, &[4, 6, 3, 3], plain);
    convolve(20, 5, &[4, 6, 3, 3], plain);
    convolve(20, 6, &[4, 6, 9], plain);
    convolve(20, 6, &[4, 6, 0, 3], plain);
    convolve(20, 6, &[4, 6, 5, 3], plain);
    convolve(20, 6, &[4, 6, 3, 3], ConvolutionOptions { dilation: 2, ..plain });
    convolve(20, 6, &[4, 6, 3, 3], ConvolutionOptions { stride: 0, ..plain });
    convolve(20, 6, &[4, 6, 3, 3], ConvolutionOptions { groups: 0, ..plain });
    convolve(20, 6, &[4, 6, 3, 3], ConvolutionOptions { groups: 2, ..plain });
    convolve(20, 6, &[3, 3, 3, 3], ConvolutionOptions { groups: 2, ..plain });
    refuses_shape(|tape| {
        let [x, weight, bias] = [&[20, 6][..], &[4, 6, 3, 3], &[5]].map(|shape| constant(tape, shape));
        Ok(tape.conv2d(&x, map, &weight, Some(&bias), plain)?.0)
    });
}

#[test]
fn other_operations_over_maps_of_other_shapes_are_refused() {
    let map = Map { images: 2, height: 4, width: 5 };
    let square = WindowOptions::square(3, 2);
    refuses_shape(|tape| Ok(tape.max_pool2d(&constant(tape, &[39, 6]), map, square)?.0));
    refuses_shape(|tape| Ok(tape.avg_pool2d(&constant(tape, &[40, 0]), map, square)?.0));
    refuses_shape(|tape| Ok(tape.max_pool2d(&constant(tape, &[40, 6]), map, WindowOptions::square(5, 2))?.0));
    refuses_shape(|tape| Ok(tape.max_pool2d(&constant(tape, &[40, 6]), map, WindowOptions::square(3, 0))?.0));
    // A window that sees nothing but padding.
    let padded = WindowOptions { padding: Padding::all(3), ..square };
    refuses_shape(|tape| Ok(tape.avg_pool2d(&constant(tape, &[40, 6]), map, padded)?.0));
    refuses_shape(|tape| Ok(tape.adaptive_avg_pool2d(&constant(tape, &[40, 6]), map, 0, 1)?.0));
    refuses_shape(|tape| {
        let (x, factors) = (constant(tape, &[40, 6]), constant(tape, &[2, 5]));
        tape.channel_scale(&x, map, &factors)
    });
    refuses_shape(|tape| {
        let (x, power) = (constant(tape, &[40, 6]), constant(tape, &[2]));
        tape.gem(&x, &power, 1e-6, &map.packing(&[0, 1]))
    });
    refuses_shape(|tape| tape.resize_grid(&constant(tape, &[20, 6]), (4, 4), (2, 2), Interpolation::Bicubic, false));
    refuses_shape(|tape| tape.resize_grid(&constant(tape, &[20, 6]), (4, 5), (0, 2), Interpolation::Bicubic, false));
    let norm = |rows: usize, channels: [usize; 4], batch: bool| {
        refuses_shape(|tape| {
            let (x, residual) = (constant(tape, &[rows, 6]), constant(tape, &[rows, channels[0]]));
            let (weight, bias) = (constant(tape, &[channels[1]]), constant(tape, &[channels[2]]));
            let running = RunningStatistics { mean: Tensor::zeros(&[channels[3]]), variance: Tensor::zeros(&[6]) };
            let statistics = if batch { Statistics::Batch { momentum: 0.1 } } else { Statistics::Running };
            let options = BatchNormOptions { eps: 1e-5, statistics, activation: Activation::Relu };
            Ok(tape.batch_norm(&x, Some(&residual), &weight, &bias, &running, options)?.0)
        });
    };
    for wrong in 0..4 {
        norm(4, std::array::from_fn(|i| if i == wrong { 5 } else { 6 }), false);
    }
    norm(1, [6; 4], true);
}

#[test]
fn an_upstream_gradient_of_another_shape_is_refused() {
    let parameters = Parameters::default();
    let mut tape = Tape::recording(&Cpu::F32, &parameters);
    let x = tape.leaf(Tensor::zeros(&[2, 3]));
    let y = tape.activation(Activation::Relu, &x).unwrap();
    let error = tape.backward(&y, Tensor::zeros(&[3, 2]), &mut Gradients::new(&parameters)).err().unwrap();
    assert!(matches!(error, Error::Shape { operation: "backward", .. }), "{error}");
}

#[test]
fn tensors_of_other_sizes_are_refused() {
    assert!(Tensor::from_vec(vec![0.0; 5], &[2, 3]).is_err());
    assert!(Tensor::zeros(&[2, 3]).reshaped(&[4]).is_err());
    assert_eq!(Tensor::zeros(&[2, 3]).reshaped(&[3, 2]).unwrap().shape(), [3, 2]);
}

/// No text in a micro-batch, or an empty text: nothing to compute, and zero gradients.
#[test]
fn a_batch_of_no_rows_gives_zero_gradients() {
    let mut parameters = Parameters::default();
    let shapes: [&[usize]; 7] = [&[5, 6], &[18, 6], &[18], &[9, 6], &[9], &[6, 9], &[6]];
    let ids: Vec<_> = (0..).zip(shapes).map(|(i, shape)| parameters.add(i.to_string(), random(i, shape))).collect();
    let mut gradients = Gradients::new(&parameters);
    // The first step leaves numbers in the gradients' buffers, which the second must not give.
    for (rows, offsets) in [(2, [0, 1, 2]), (0, [0, 0, 0])] {
        gradients.clear();
        let packing = Packing::new(&offsets, &[0, 1]);
        let mut tape = Tape::recording(&Cpu::F32, &parameters);
        let v: Vec<Var> = ids.iter().map(|&id| tape.parameter(id)).collect();
        let x = tape.rows(&v[0], vec![1; rows].into()).unwrap();
        let qkv = tape.linear(&x, &v[1], Some(&v[2])).unwrap();
        let y = tape.attention(&qkv, &packing, None, OPTIONS).unwrap();
        let y = tape.feed_forward(&y, (&v[3], &v[4]), (&v[5], &v[6]), Activation::Gelu).unwrap();
        let y = tape.add_norm(&y, Some(&x), &v[6], &v[6], 1e-5, None, &packing).unwrap();
        let y = tape.pool(Pooling::Max, &y, &packing).unwrap();
        tape.backward(&y, random(20, &[2, 6]), &mut gradients).unwrap();
        for (gradient, parameter) in gradients.iter().zip(parameters.iter()) {
            let zero = gradient.unwrap().data().iter().all(|&x| x == 0.0);
            assert_eq!(zero, rows == 0, "the gradient of {} from {rows} rows", parameter.name);
        }
    }
}

#[test]
fn parts_that_are_no_number_and_no_parts_are_refused() {
    refuses_shape(|tape| {
        let x = constant(tape, &[2]);
        tape.sum_of_parts(&[&x], [1, 2], |_, inputs, _| Ok::<_, Error>(inputs[0].clone()))
    });
    refuses_shape(|tape| tape.sum_of_parts(&[], [0; 0], |tape, _, _| Ok::<_, Error>(constant(tape, &[1]))));
}
