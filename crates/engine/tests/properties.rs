//! What must hold beyond numbers: same bits on any number of threads and instruction set, masks that do not depend on
//! the split into micro-batches, gradients that add up and are never cut, refusals instead of panics.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::process::Command;
use std::sync::Arc;

use engine::device::{Activation, AttentionOptions, Pooling};
use engine::map::{ConvolutionOptions, Padding};
use engine::random::{Dropout, Key};
use engine::{Cpu, Device, Gradients, Map, Packing, Parameters, Result, Tape, Tensor, Var};

use common::devices::devices;
use common::{assert_close, random};

const HIDDEN: usize = 24;
const OPTIONS: AttentionOptions = AttentionOptions { heads: 3, causal: false, window: None, dropout: None };

/// A small encoder that uses every kind of parameter.
fn parameters() -> Parameters {
    let mut parameters = Parameters::default();
    let shapes: [(&str, &[usize]); 16] = [
        ("word", &[50, HIDDEN]),
        ("position", &[700, HIDDEN]),
        ("norm.weight", &[HIDDEN]),
        ("norm.bias", &[HIDDEN]),
        ("qkv.weight", &[3 * HIDDEN, HIDDEN]),
        ("qkv.bias", &[3 * HIDDEN]),
        ("distance", &[1399, 3]),
        ("output.weight", &[HIDDEN, HIDDEN]),
        ("output.bias", &[HIDDEN]),
        ("first.weight", &[60, HIDDEN]),
        ("first.bias", &[60]),
        ("second.weight", &[HIDDEN, 60]),
        ("second.bias", &[HIDDEN]),
        ("last.weight", &[HIDDEN]),
        ("last.bias", &[HIDDEN]),
        ("head.weight", &[7, HIDDEN]),
    ];
    for (seed, (name, shape)) in shapes.into_iter().enumerate() {
        parameters.add(name, random(seed as u64, shape));
    }
    parameters
}

/// Which texts, by their number in the batch; a text's length and words follow from its number.
fn batch(examples: &[u32]) -> (Packing, Arc<[u32]>, Arc<[u32]>) {
    let lengths = examples.iter().map(|example| [3, 700, 64, 1, 130, 65, 220][*example as usize % 7]);
    let offsets: Vec<u32> = std::iter::once(0)
        .chain(lengths.scan(0, |end, length| {
            *end += length;
            Some(*end)
        }))
        .collect();
    let packing = Packing::new(&offsets, examples);
    let rows =
        examples.iter().zip(packing.ranges()).flat_map(|(&e, range)| (0..range.len() as u32).map(move |p| (e, p)));
    let (words, positions): (Vec<u32>, Vec<u32>) = rows.map(|(e, p)| ((7 * e + p * p) % 50, p)).unzip();
    (packing, words.into(), positions.into())
}

fn encode(tape: &mut Tape<'_>, examples: &[u32], probability: f32) -> Result<Var> {
    let (packing, words, positions) = batch(examples);
    let find = |tape: &Tape<'_>, name: &str| tape.parameter(tape.parameters().find(name).unwrap());
    let site = |part| (probability > 0.0).then_some(Dropout { probability, key: Key::new(1).part(part) });
    let [word, position] = ["word", "position"].map(|name| find(tape, name));
    let x = tape.embedding_sum(&[(&word, words), (&position, positions)])?;
    let [weight, bias] = ["norm.weight", "norm.bias"].map(|name| find(tape, name));
    let x = tape.add_norm(&x, None, &weight, &bias, 1e-5, None, &packing)?;
    let x = tape.dropout(&x, site(0), &packing)?;
    let [weight, bias, distance] = ["qkv.weight", "qkv.bias", "distance"].map(|name| find(tape, name));
    let qkv = tape.linear(&x, &weight, Some(&bias))?;
    let y = tape.attention(&qkv, &packing, Some(&distance), AttentionOptions { dropout: site(1), ..OPTIONS })?;
    let [weight, bias] = ["output.weight", "output.bias"].map(|name| find(tape, name));
    let y = tape.linear(&y, &weight, Some(&bias))?;
    let [weight, bias] = ["norm.weight", "norm.bias"].map(|name| find(tape, name));
    let x = tape.add_norm(&y, Some(&x), &weight, &bias, 1e-5, site(2), &packing)?;
    let [w1, b1, w2, b2] = ["first.weight", "first.bias", "second.weight", "second.bias"].map(|name| find(tape, name));
    let y = tape.feed_forward(&x, (&w1, &b1), (&w2, &b2), Activation::Gelu)?;
    let [weight, bias, head] = ["last.weight", "last.bias", "head.weight"].map(|name| find(tape, name));
    let x = tape.add_norm(&y, Some(&x), &weight, &bias, 1e-5, site(3), &packing)?;
    let x = tape.pool(Pooling::Mean, &x, &packing)?;
    let x = tape.linear(&x, &head, None)?;
    let x = tape.activation(Activation::Tanh, &x)?;
    tape.normalize(&x)
}

/// Embeddings of some texts; the gradients of the sum of their products with fixed numbers are added.
fn step(
    device: &dyn Device,
    parameters: &Parameters,
    examples: &[u32],
    probability: f32,
    gradients: &mut Gradients,
) -> Tensor {
    let mut tape = Tape::recording(device, parameters);
    let y = encode(&mut tape, examples, probability).unwrap();
    let upstream = examples.iter().flat_map(|&e| random(100 + u64::from(e), &[7]).data().to_vec()).collect();
    tape.backward(&y, Tensor::from_vec(upstream, &[examples.len(), 7]).unwrap(), gradients).unwrap();
    y.into_value()
}

fn bits(device: &dyn Device, parameters: &Parameters) -> Vec<u32> {
    let mut gradients = Gradients::new(parameters);
    let y = step(device, parameters, &[0, 1, 2, 3, 4, 5, 6], 0.2, &mut gradients);
    let all = std::iter::once(&y).chain(gradients.iter().map(|gradient| gradient.unwrap()));
    all.flat_map(|tensor| tensor.data()).map(|x| x.to_bits()).collect()
}

#[test]
fn operations_of_products_are_counted_forward_and_for_every_gradient() {
    let mut parameters = parameters();
    let examples = [0, 1, 2];
    let counted = |parameters: &Parameters, recording: bool| {
        let mut tape = match recording {
            true => Tape::recording(&Cpu::F32, parameters),
            false => Tape::inference(&Cpu::F32, parameters),
        };
        encode(&mut tape, &examples, 0.2).unwrap();
        tape.operations()
    };
    let (rows, squares, texts) = (3 + 700 + 64, 9 + 700 * 700 + 64 * 64, 3);
    let qkv = 2 * rows * 24 * 72;
    let forward = qkv + 4 * squares * 24 + 2 * rows * 24 * 24 + 4 * rows * 24 * 60 + 2 * texts * 24 * 7;
    assert_eq!(counted(&parameters, false), forward);
    assert_eq!(counted(&parameters, true), 3 * forward);
    let id = parameters.find("qkv.weight").unwrap();
    parameters.get_mut(id).trainable = false;
    assert_eq!(counted(&parameters, true), 3 * forward - qkv);
}

#[test]
fn operations_of_attention_are_those_of_the_pairs_that_attend() {
    let none = Parameters::default();
    let counted = |causal, window, length: usize| {
        let mut tape = Tape::inference(&Cpu::F32, &none);
        let qkv = tape.constant(random(1, &[length, 3 * HIDDEN]));
        let packing = Packing::new(&[0, length as u32], &[0]);
        tape.attention(&qkv, &packing, None, AttentionOptions { causal, window, ..OPTIONS }).unwrap();
        tape.operations() as usize / (4 * HIDDEN)
    };
    for length in [1, 2, 5, 9] {
        for window in [None, Some(0), Some(1), Some(3), Some(20)] {
            for causal in [false, true] {
                let within = |i: usize, j: usize| window.is_none_or(|window| i.abs_diff(j) <= window);
                let pairs = (0..length).flat_map(|i| (0..length).map(move |j| (i, j)));
                let expected = pairs.filter(|&(i, j)| within(i, j) && (!causal || j <= i)).count();
                assert_eq!(counted(causal, window, length), expected, "{causal} {window:?} {length}");
            }
        }
    }
}

#[test]
fn operations_of_a_convolution_are_those_of_its_windows() {
    let none = Parameters::default();
    let mut tape = Tape::recording(&Cpu::F32, &none);
    let map = Map { images: 2, height: 8, width: 6 };
    let x = tape.leaf(random(1, &[map.rows(), 4]));
    let weight = tape.leaf(random(2, &[6, 2, 3, 3]));
    let options = ConvolutionOptions { stride: 2, padding: Padding::all(1), groups: 2, ..Default::default() };
    let (_, output) = tape.conv2d(&x, map, &weight, None, options).unwrap();
    assert_eq!((output.height, output.width), (4, 3));
    assert_eq!(tape.operations(), 3 * 2 * (2 * 4 * 3) * 6 * (2 * 3 * 3));
}

#[test]
fn one_two_and_three_threads_compute_the_same_bits() {
    let parameters = parameters();
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| bits(&Cpu::F32, &parameters))
    };
    let one = on(1);
    assert!(one == on(2), "two threads");
    assert!(one == on(3), "three threads");
}

/// Gradients of everything but matrix products.
fn bits_without_products() -> Vec<u32> {
    let parameters = parameters();
    let mut gradients = Gradients::new(&parameters);
    let (packing, words, _) = batch(&[0, 1, 2, 3]);
    let mut tape = Tape::recording(&Cpu::F32, &parameters);
    let [word, weight, bias] =
        ["word", "norm.weight", "norm.bias"].map(|name| tape.parameter(tape.parameters().find(name).unwrap()));
    let dropout = Some(Dropout { probability: 0.2, key: Key::new(1) });
    let x = tape.embedding_sum(&[(&word, words)]).unwrap();
    let x = tape.add_norm(&x, Some(&x), &weight, &bias, 1e-5, dropout, &packing).unwrap();
    let x = tape.activation(Activation::Gelu, &x).unwrap();
    let x = tape.pool(Pooling::Mean, &x, &packing).unwrap();
    let y = tape.normalize(&x).unwrap();
    tape.backward(&y, random(9, &[4, HIDDEN]), &mut gradients).unwrap();
    let all = std::iter::once(y.value()).chain(gradients.iter().flatten());
    all.flat_map(|tensor| tensor.data()).map(|x| x.to_bits()).collect()
}

/// Products are sums of fused multiply-adds in one order, so any instruction set that has them computes the same bits;
/// the plain one of x86-64 has none, and differs in products only.
#[test]
fn every_instruction_set_computes_the_same_bits() {
    const EXPECTED: &str = "ENGINE_TEST_EXPECTED_BITS";
    let hash = |bits: Vec<u32>| {
        bits.iter()
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, &bits| (hash ^ u64::from(bits)).wrapping_mul(0x0100_0000_01b3))
    };
    let found = format!("{} {}", hash(bits_without_products()), hash(bits(&Cpu::F32, &parameters())));
    if let Ok(expected) = std::env::var(EXPECTED) {
        let fused = cfg!(target_arch = "aarch64") || engine::instruction_set() != engine::InstructionSet::Plain;
        let part = |text: &str| text.split(' ').take(if fused { 2 } else { 1 }).collect::<Vec<_>>().join(" ");
        assert_eq!(part(&found), part(&expected));
        return;
    }
    for &limit in common::LOWER_INSTRUCTION_SETS {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "every_instruction_set_computes_the_same_bits"])
            .envs([("FINETUNER_ISA", limit), (EXPECTED, &found)])
            .output()
            .unwrap();
        assert!(output.status.success(), "FINETUNER_ISA={limit}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn dropout_masks_do_not_depend_on_the_split_into_micro_batches() {
    for device in devices() {
        let whole = batch(&[0, 1, 2, 3, 4]).0;
        let dropped = |packing: &Packing| {
            let parameters = Parameters::default();
            let mut tape = Tape::inference(device, &parameters);
            let ones = tape.constant(Tensor::full(&[packing.rows(), 33], 1.0));
            let site = Dropout { probability: 0.5, key: Key::new(8) };
            tape.dropout(&ones, Some(site), packing).unwrap().value().data().to_vec()
        };
        let expected = dropped(&whole);
        for (sequence, range) in whole.ranges().enumerate() {
            let alone = dropped(&batch(&[sequence as u32]).0);
            assert_eq!(alone, expected[range.start * 33..range.end * 33], "example {sequence}");
        }
        // In the encoder too, attention's masks among them.
        let parameters = parameters();
        let together = step(device, &parameters, &[0, 1, 2, 4], 0.3, &mut Gradients::new(&parameters));
        for (row, example) in [0, 1, 2, 4].into_iter().enumerate() {
            let alone = step(device, &parameters, &[example], 0.3, &mut Gradients::new(&parameters));
            let expected: Vec<f64> = together.data()[row * 7..(row + 1) * 7].iter().map(|&x| f64::from(x)).collect();
            assert_close(&format!("embedding of example {example}"), alone.data(), &expected, 1e-5);
        }
    }
}

#[test]
fn two_passes_draw_the_same_masks_and_another_key_others() {
    for device in devices() {
        let parameters = parameters();
        assert!(bits(device, &parameters) == bits(device, &parameters));
        let packing = batch(&[0, 2]).0;
        let drop = |key| {
            let mut tape = Tape::inference(device, &parameters);
            let ones = tape.constant(Tensor::full(&[packing.rows(), 33], 1.0));
            tape.dropout(&ones, Some(Dropout { probability: 0.5, key }), &packing).unwrap().into_value()
        };
        assert_ne!(drop(Key::new(1).part(1)).data(), drop(Key::new(1).part(2)).data());
    }
}

#[test]
fn dropout_is_not_the_identity() {
    for device in devices() {
        let parameters = parameters();
        let with = step(device, &parameters, &[0, 2], 0.3, &mut Gradients::new(&parameters));
        let without = step(device, &parameters, &[0, 2], 0.0, &mut Gradients::new(&parameters));
        assert_ne!(with.data(), without.data());
    }
}

#[test]
fn the_gradients_of_two_micro_batches_add_up_to_those_of_the_batch() {
    for device in devices() {
        let parameters = parameters();
        let (mut whole, mut parts) = (Gradients::new(&parameters), Gradients::new(&parameters));
        step(device, &parameters, &[0, 1, 2, 3, 4], 0.2, &mut whole);
        // Numbers of an earlier step must not remain.
        step(device, &parameters, &[5, 6], 0.2, &mut parts);
        parts.clear();
        step(device, &parameters, &[3, 0, 2], 0.2, &mut parts);
        step(device, &parameters, &[1, 4], 0.2, &mut parts);
        for ((whole, parts), parameter) in whole.iter().zip(parts.iter()).zip(parameters.iter()) {
            let expected: Vec<f64> = whole.unwrap().data().iter().map(|&x| f64::from(x)).collect();
            assert_close(&parameter.name, parts.unwrap().data(), &expected, 2e-5);
        }
    }
}

/// A fused operation without a backward pass would leave everything below it untrained.
#[test]
fn no_operation_cuts_the_gradient_of_a_parameter() {
    for device in devices() {
        let parameters = parameters();
        let mut gradients = Gradients::new(&parameters);
        step(device, &parameters, &[0, 1, 2], 0.2, &mut gradients);
        for (gradient, parameter) in gradients.iter().zip(parameters.iter()) {
            let gradient = gradient.unwrap_or_else(|| panic!("{} gets no gradient", parameter.name));
            assert!(gradient.data().iter().any(|&x| x != 0.0), "the gradient of {} is zero", parameter.name);
            assert!(gradient.data().iter().all(|x| x.is_finite()), "the gradient of {}", parameter.name);
            assert_eq!(gradient.shape(), parameter.value.shape(), "{}", parameter.name);
        }
    }
}

#[test]
fn frozen_parameters_get_no_gradient_and_change_no_other() {
    for device in devices() {
        let mut parameters = parameters();
        let mut all = Gradients::new(&parameters);
        step(device, &parameters, &[0, 2], 0.2, &mut all);
        for frozen in 0..parameters.len() {
            for (i, parameter) in parameters.iter_mut().enumerate() {
                parameter.trainable = i != frozen && i % 3 != 1;
            }
            let mut gradients = Gradients::new(&parameters);
            step(device, &parameters, &[0, 2], 0.2, &mut gradients);
            for ((got, expected), parameter) in gradients.iter().zip(all.iter()).zip(parameters.iter()) {
                let expected = expected.filter(|_| parameter.trainable).map(Tensor::data);
                assert_eq!(got.map(Tensor::data), expected, "{}", parameter.name);
            }
        }
    }
}

#[test]
fn an_inference_tape_gives_the_same_value_and_no_gradient() {
    for device in devices() {
        let parameters = parameters();
        let mut tape = Tape::inference(device, &parameters);
        let y = encode(&mut tape, &[0, 2], 0.0).unwrap();
        assert!(!y.needs_gradient());
        let recorded = step(device, &parameters, &[0, 2], 0.0, &mut Gradients::new(&parameters));
        assert_eq!(y.value().data(), recorded.data());
    }
}

/// At x = -1.5 the derivatives of the two forms differ by 2.4e-4.
#[test]
fn the_derivative_of_gelu_is_that_of_erf_gelu() {
    for device in devices() {
        let parameters = Parameters::default();
        for (kind, expected) in [(Activation::Gelu, -0.127_469), (Activation::GeluTanh, -0.127_711)] {
            let mut tape = Tape::recording(device, &parameters);
            let x = tape.leaf(Tensor::scalar(-1.5));
            let y = tape.activation(kind, &x).unwrap();
            let mut gradients = tape.backward(&y, Tensor::scalar(1.0), &mut Gradients::new(&parameters)).unwrap();
            assert_close(&format!("{kind:?}"), gradients.take(&x).unwrap().data(), &[expected], 2e-5);
        }
    }
}

/// Padding, or a neighbour, that leaks into an embedding shows where all values are negative or small.
#[test]
fn no_row_of_another_sequence_reaches_a_pooled_embedding() {
    for device in devices() {
        let parameters = Parameters::default();
        let poolings = [Pooling::Mean, Pooling::Cls, Pooling::Max, Pooling::Last, Pooling::Gem { p: 3.0, eps: 1e-6 }];
        for pooling in poolings {
            let pooled = |numbers: Vec<f32>, offsets: &[u32], examples: &[u32]| {
                let mut tape = Tape::inference(device, &parameters);
                let rows = numbers.len() / 2;
                let x = tape.constant(Tensor::from_vec(numbers, &[rows, 2]).unwrap());
                tape.pool(pooling, &x, &Packing::new(offsets, examples)).unwrap().value().data().to_vec()
            };
            let own = vec![-3.0, -2.0, -5.0, 0.01];
            let alone = pooled(own.clone(), &[0, 2], &[0]);
            let between = pooled([vec![9.0, 9.0], own, vec![9.0, -9.0]].concat(), &[0, 1, 3, 4], &[0, 1, 2]);
            assert_eq!(alone, between[2..4], "{pooling:?}");
        }
    }
}
