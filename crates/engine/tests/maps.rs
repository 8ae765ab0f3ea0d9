//! Operations over feature maps: against PyTorch, against plain loops and their differences, with the same bits on any
//! number of threads.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
mod naive;

use std::process::Command;

use engine::device::Activation;
use engine::map::{BatchNormOptions, ConvolutionOptions, Map, Padding, Span, Statistics, Windows};
use engine::op::{Interpolation, RunningStatistics, WindowOptions};
use engine::{Cpu, Gradients, Packing, Parameters, Result, Tape, Tensor, Var};
use serde_json::Value;

use common::devices::devices;
use common::difference::check;
use common::golden::Golden;
use common::{assert_close, random};

/// Of the largest magnitude of the tensor.
const TOLERANCE: f64 = 3e-6;

fn numbers(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as usize).collect()
}

fn padding(value: &Value) -> Padding {
    let sides = numbers(value);
    Padding { top: sides[0], bottom: sides[1], left: sides[2], right: sides[3] }
}

fn activation(name: &str) -> Activation {
    match name {
        "none" => Activation::Identity,
        "relu" => Activation::Relu,
        "relu6" => Activation::Relu6,
        "silu" => Activation::Silu,
        "hard_swish" => Activation::HardSwish,
        "hard_sigmoid" => Activation::HardSigmoid,
        other => panic!("no activation {other}"),
    }
}

fn running(golden: &Golden, name: &str, when: &str) -> RunningStatistics {
    let [mean, variance] = ["mean", "variance"].map(|part| golden.tensor(&format!("{name}.{when}.{part}")));
    RunningStatistics { mean, variance }
}

fn run(golden: &Golden, case: &Value, tape: &mut Tape<'_>, inputs: &[Var]) -> Result<Var> {
    let options = &case["options"];
    let whole = |name: &str| options[name].as_u64().unwrap() as usize;
    let flag = |name: &str| options[name].as_bool().unwrap();
    let pair = |name: &str| (numbers(&options[name])[0], numbers(&options[name])[1]);
    let map = case["map"].as_array().map(|_| {
        let extents = numbers(&case["map"]);
        Map { images: extents[0], height: extents[1], width: extents[2] }
    });
    let x = &inputs[0];
    match case["operation"].as_str().unwrap() {
        "conv2d" => {
            let padding = padding(&options["padding"]);
            let options = ConvolutionOptions {
                stride: whole("stride"),
                padding,
                dilation: whole("dilation"),
                groups: whole("groups"),
            };
            Ok(tape.conv2d(x, map.unwrap(), &inputs[1], inputs.get(2), options)?.0)
        }
        "batch_norm" => {
            let name = case["name"].as_str().unwrap();
            let statistics = if flag("training") { Statistics::Batch { momentum: 0.1 } } else { Statistics::Running };
            let activation = activation(options["activation"].as_str().unwrap());
            let eps = options["eps"].as_f64().unwrap() as f32;
            let before = running(golden, name, "running");
            let options = BatchNormOptions { eps, statistics, activation };
            let (y, moved) = tape.batch_norm(x, inputs.get(3), &inputs[1], &inputs[2], &before, options)?;
            assert_eq!(moved.is_some(), flag("training"));
            for (part, got) in ["mean", "variance"].iter().zip(moved.iter().flat_map(|m| [&m.mean, &m.variance])) {
                let expected = golden.doubles(&format!("{name}.moved.{part}"));
                assert_close(&format!("{name} moved {part}"), got.data(), &expected, 3e-7);
            }
            Ok(y)
        }
        pool @ ("max_pool" | "avg_pool") => {
            let window = WindowOptions {
                kernel: pair("kernel"),
                stride: whole("stride"),
                padding: padding(&options["padding"]),
                ceil: flag("ceil"),
                count_padding: pool == "avg_pool" && flag("count_padding"),
            };
            Ok(match pool {
                "max_pool" => tape.max_pool2d(x, map.unwrap(), window)?.0,
                _ => tape.avg_pool2d(x, map.unwrap(), window)?.0,
            })
        }
        "adaptive" => Ok(tape.adaptive_avg_pool2d(x, map.unwrap(), pair("size").0, pair("size").1)?.0),
        "activation" => tape.activation(activation(options["activation"].as_str().unwrap()), x),
        "channel_scale" => tape.channel_scale(x, map.unwrap(), &inputs[1]),
        "gem" => tape.gem(x, &inputs[1], 1e-6, &map.unwrap().packing(&[0, 1, 2])),
        "resize" => {
            let bicubic = options["mode"] == "bicubic";
            let interpolation = if bicubic { Interpolation::Bicubic } else { Interpolation::Bilinear };
            tape.resize_grid(x, pair("source"), pair("target"), interpolation, flag("antialias"))
        }
        other => panic!("no operation {other}"),
    }
}

#[test]
fn every_operation_over_maps_equals_pytorch_in_value_and_gradient() {
    for device in devices() {
        let golden = Golden::open("maps");
        let parameters = Parameters::default();
        let cases = golden.description["operations"].as_array().unwrap();
        assert_eq!(cases.len(), 71);
        for case in cases {
            let name = case["name"].as_str().unwrap();
            let names: Vec<&str> =
                case["inputs"].as_array().unwrap().iter().map(|input| input.as_str().unwrap()).collect();
            let mut tape = Tape::recording(device, &parameters);
            let leaf = |input: &&str| tape.leaf(golden.tensor(&format!("{name}.input.{input}")));
            let leaves: Vec<Var> = names.iter().map(leaf).collect();
            let y = run(&golden, case, &mut tape, &leaves).unwrap();
            assert_close(name, y.value().data(), &golden.doubles(&format!("{name}.output.y")), TOLERANCE);
            let upstream = golden.tensor(&format!("{name}.upstream.y"));
            let mut gradients = tape.backward(&y, upstream, &mut Gradients::new(&parameters)).unwrap();
            for (input, leaf) in names.iter().zip(&leaves) {
                let expected = golden.doubles(&format!("{name}.gradient.{input}"));
                let got = gradients.take(leaf).unwrap();
                assert_close(&format!("gradient of {input} in {name}"), got.data(), &expected, TOLERANCE);
            }
        }
    }
}

/// The instruction set is chosen once per process, so every other one gets a process of its own.
#[test]
fn every_instruction_set_of_this_processor_equals_pytorch_over_maps() {
    for &limit in common::LOWER_INSTRUCTION_SETS {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["every_operation_over_maps", "convolutions_of_odd_shapes"])
            .env("FINETUNER_ISA", limit)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("2 passed"), "FINETUNER_ISA={limit}:\n{text}");
    }
}

/// Images, extents, channels in and out, kernel, stride, dilation, groups and the padding.
type Shape = (Map, usize, usize, (usize, usize), usize, usize, usize, Padding);

fn shapes() -> Vec<Shape> {
    let map = |images, height, width| Map { images, height, width };
    let uneven = Padding { top: 0, bottom: 2, left: 1, right: 0 };
    let five = map(1, 5, 5);
    vec![
        (map(1, 1, 1), 1, 1, (1, 1), 1, 1, 1, Padding::default()),
        (map(2, 1, 1), 3, 5, (3, 3), 1, 1, 1, Padding::all(1)),
        (map(2, 1, 1), 4, 4, (3, 3), 2, 1, 4, Padding::all(1)),
        (map(2, 7, 5), 3, 17, (3, 3), 2, 1, 1, Padding::all(1)),
        (map(1, 8, 7), 5, 6, (3, 3), 2, 1, 1, uneven),
        (map(2, 9, 8), 4, 6, (3, 3), 1, 2, 2, Padding::all(2)),
        (map(1, 9, 8), 4, 6, (3, 2), 3, 2, 2, uneven),
        (map(1, 6, 6), 34, 34, (3, 3), 1, 1, 34, Padding::all(1)),
        (map(2, 7, 9), 17, 17, (3, 5), 2, 2, 17, Padding::all(3)),
        (map(1, 4, 4), 6, 12, (3, 3), 1, 1, 6, uneven),
        (map(1, 5, 4), 6, 4, (2, 2), 3, 1, 1, Padding::default()),
        (map(2, 6, 5), 20, 9, (1, 1), 2, 1, 1, Padding::default()),
        (map(2, 6, 5), 4, 9, (1, 1), 1, 1, 1, Padding::all(1)),
        // More than a block of the inner extent, of rows, of columns.
        (map(1, 6, 5), 60, 33, (3, 3), 1, 1, 1, Padding::all(1)),
        (map(2, 23, 22), 3, 2, (3, 3), 1, 1, 1, Padding::all(1)),
        // A window wider than the map, and padding wider than the window.
        (five, 2, 3, (7, 7), 1, 1, 1, Padding::all(3)),
        (five, 2, 3, (2, 2), 1, 1, 1, Padding::all(3)),
        (five, 2, 3, (3, 3), 2, 1, 1, Padding::same(five, (3, 3), 2, 1)),
    ]
}

#[test]
fn convolutions_of_odd_shapes() {
    for (map, inputs, outputs, kernel, stride, dilation, groups, padding) in shapes() {
        let options = ConvolutionOptions { stride, padding, dilation, groups };
        let weight = random(2, &[outputs, inputs / groups, kernel.0, kernel.1]);
        let (x, bias) = (random(1, &[map.rows(), inputs]), random(3, &[outputs]));
        check(
            &format!("{map:?}, {inputs} -> {outputs}, {kernel:?}, {options:?}"),
            &[x.clone(), weight.clone(), bias],
            |tape, v| {
                let (y, output) = tape.conv2d(&v[0], map, &v[1], Some(&v[2]), options)?;
                assert_eq!(y.value().rows(), output.rows());
                Ok(y)
            },
            |v| naive::maps::convolution(&v[0], map, &v[1], &v[2], kernel, options),
        );
        let twice = |tape: &mut Tape<'_>, v: &[Var]| {
            let (a, _) = tape.conv2d(&v[0], map, &v[1], None, options)?;
            let (b, _) = tape.conv2d(&v[0], map, &v[1], None, options)?;
            tape.add(&a, &b)
        };
        let without = vec![0.0; outputs];
        check(
            &format!("added to, {map:?}, {inputs} -> {outputs}, {kernel:?}, {options:?}"),
            &[x, weight],
            twice,
            |v| {
                let y = naive::maps::convolution(&v[0], map, &v[1], &without, kernel, options);
                y.iter().map(|y| 2.0 * y).collect()
            },
        );
    }
}

#[test]
fn batch_norms_of_every_kind() {
    let activations =
        [Activation::Identity, Activation::Relu, Activation::Relu6, Activation::Silu, Activation::HardSwish];
    for (rows, channels) in [(2, 1), (130, 17), (9, 5000)] {
        let inputs = [
            random(1, &[rows, channels]),
            random(2, &[channels]),
            random(3, &[channels]),
            random(4, &[rows, channels]),
        ];
        let before = RunningStatistics { mean: random(5, &[channels]), variance: Tensor::full(&[channels], 2.0) };
        for activation in activations {
            for (statistics, residual) in [
                (Statistics::Batch { momentum: 0.1 }, true),
                (Statistics::Batch { momentum: 0.1 }, false),
                (Statistics::Running, true),
                (Statistics::Running, false),
            ] {
                if channels == 5000 && activation != Activation::Silu {
                    continue;
                }
                let options = BatchNormOptions { eps: 1e-3, statistics, activation };
                let widened = [&before.mean, &before.variance].map(|t| common::difference::doubles(t.data()));
                check(
                    &format!("batch_norm {rows} x {channels}, {options:?}, residual {residual}"),
                    &inputs[..if residual { 4 } else { 3 }],
                    |tape, v| Ok(tape.batch_norm(&v[0], v.get(3), &v[1], &v[2], &before, options)?.0),
                    |v| {
                        let of_rows = naive::maps::statistics(&v[0], channels);
                        let (mean, variance) = match statistics {
                            Statistics::Batch { .. } => (&of_rows.0, &of_rows.1),
                            Statistics::Running => (&widened[0], &widened[1]),
                        };
                        let mut y = naive::maps::batch_norm(&v[0], (mean, variance), &v[1], &v[2], f64::from(1e-3f32));
                        if let Some(residual) = v.get(3) {
                            y.iter_mut().zip(residual).for_each(|(y, r)| *y += r);
                        }
                        naive::activation(activation, &y)
                    },
                );
            }
        }
    }
}

/// A mean far from 0 beside a small variance, where sums in f32 would cancel.
#[test]
fn batch_statistics_survive_a_large_mean() {
    for device in devices() {
        let parameters = Parameters::default();
        let mut x = random(1, &[5000, 3]);
        x.data_mut().iter_mut().for_each(|x| *x += 1000.0);
        let exact = common::difference::doubles(x.data());
        let (mean, variance) = naive::maps::statistics(&exact, 3);
        let mut tape = Tape::inference(device, &parameters);
        let [x, one, zero] = [x, Tensor::full(&[3], 1.0), Tensor::zeros(&[3])].map(|t| tape.constant(t));
        let before = RunningStatistics { mean: Tensor::zeros(&[3]), variance: Tensor::full(&[3], 1.0) };
        let statistics = Statistics::Batch { momentum: 1.0 };
        let options = BatchNormOptions { eps: 1e-5, statistics, activation: Activation::Identity };
        let (_, moved) = tape.batch_norm(&x, None, &one, &zero, &before, options).unwrap();
        let moved = moved.unwrap();
        let unbiased: Vec<f64> = variance.iter().map(|v| v * 5000.0 / 4999.0).collect();
        assert_close("mean", moved.mean.data(), &mean, 1e-7);
        assert_close("variance", moved.variance.data(), &unbiased, 1e-6);
    }
}

#[test]
fn pools_over_windows() {
    let map = Map { images: 2, height: 9, width: 7 };
    let x = random(1, &[map.rows(), 17]);
    // Windows of 3 every 2 with padding 1: 0..2, 1..4, 3..6, 5..8 (, 7..9).
    let span = |start: usize, end: usize, extent: usize| Span { start, end, extent };
    let windows = Windows {
        rows: vec![span(0, 2, 3), span(1, 4, 3), span(3, 6, 3), span(5, 8, 3), span(7, 9, 3)],
        columns: vec![span(0, 2, 3), span(1, 4, 3), span(3, 6, 3), span(5, 7, 3)],
    };
    let options = WindowOptions { padding: Padding::all(1), ..WindowOptions::square(3, 2) };
    check(
        "max_pool2d",
        std::slice::from_ref(&x),
        |tape, v| Ok(tape.max_pool2d(&v[0], map, options)?.0),
        |v| {
            let largest = |seen: &[f64], _: usize| seen.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            naive::maps::pool(&v[0], map, &windows, largest)
        },
    );
    let mean = |seen: &[f64], extent: usize| seen.iter().sum::<f64>() / extent as f64;
    check(
        "avg_pool2d",
        std::slice::from_ref(&x),
        |tape, v| Ok(tape.avg_pool2d(&v[0], map, options)?.0),
        |v| naive::maps::pool(&v[0], map, &windows, mean),
    );
    let covering = Windows {
        rows: vec![span(0, 3, 3), span(2, 5, 3), span(4, 7, 3), span(6, 9, 3)],
        columns: vec![span(0, 3, 3), span(2, 5, 3), span(4, 7, 3)],
    };
    check(
        "adaptive_avg_pool2d",
        &[x],
        |tape, v| Ok(tape.adaptive_avg_pool2d(&v[0], map, 4, 3)?.0),
        |v| naive::maps::pool(&v[0], map, &covering, mean),
    );
}

/// A tie's gradient goes to one position, not to all.
#[test]
fn the_gradient_of_a_maximum_is_given_once() {
    for device in devices() {
        let parameters = Parameters::default();
        let map = Map { images: 1, height: 2, width: 2 };
        let mut tape = Tape::recording(device, &parameters);
        let x = tape.leaf(Tensor::full(&[4, 3], 1.0));
        let (y, _) = tape.max_pool2d(&x, map, WindowOptions::square(2, 2)).unwrap();
        let mut gradients = tape.backward(&y, Tensor::full(&[1, 3], 5.0), &mut Gradients::new(&parameters)).unwrap();
        assert_eq!(gradients.take(&x).unwrap().data(), [5.0, 5.0, 5.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }
}

#[test]
fn gem_with_a_learnt_power() {
    let packing = Packing::new(&[0, 1, 66, 196, 198], &[0, 1, 2, 3]);
    let ranges: Vec<_> = packing.ranges().collect();
    for power in [0.7, 3.0, 12.0] {
        check(
            &format!("gem, power {power}"),
            &[random(8, &[198, 17]), Tensor::scalar(power)],
            |tape, v| tape.gem(&v[0], &v[1], 0.01, &packing),
            |v| {
                let eps = f64::from(0.01f32);
                let mean = |range: &std::ops::Range<usize>, column: usize| {
                    let powers = range.clone().map(|row| v[0][row * 17 + column].max(eps).powf(v[1][0]));
                    (powers.sum::<f64>() / range.len() as f64).powf(1.0 / v[1][0])
                };
                ranges.iter().flat_map(|range| (0..17).map(move |column| mean(range, column))).collect()
            },
        );
    }
}

/// A small network of every operation over maps: its embeddings and gradients.
fn bits() -> Vec<u32> {
    let mut parameters = Parameters::default();
    let shapes: [&[usize]; 7] =
        [&[16, 3, 7, 7], &[16], &[16, 1, 3, 3], &[40, 16, 3, 3], &[40, 10, 3, 3], &[24, 40, 1, 1], &[1]];
    let ids: Vec<_> = (0..).zip(shapes).map(|(i, shape)| parameters.add(i.to_string(), random(i, shape))).collect();
    parameters.get_mut(ids[6]).value = Tensor::scalar(2.5);
    let map = Map { images: 3, height: 37, width: 33 };
    let mut tape = Tape::recording(&Cpu::F32, &parameters);
    let v: Vec<Var> = ids.iter().map(|&id| tape.parameter(id)).collect();
    let x = tape.leaf(random(50, &[map.rows(), 3]));
    let with = |stride, padding, groups| ConvolutionOptions { stride, padding, dilation: 1, groups };
    let (y, map) = tape.conv2d(&x, map, &v[0], Some(&v[1]), with(2, Padding::all(3), 1)).unwrap();
    let before = RunningStatistics { mean: Tensor::zeros(&[16]), variance: Tensor::full(&[16], 1.0) };
    let statistics = Statistics::Batch { momentum: 0.1 };
    let options = BatchNormOptions { eps: 1e-5, statistics, activation: Activation::Silu };
    let (y, _) = tape.batch_norm(&y, None, &v[1], &v[1], &before, options).unwrap();
    let (y, _) = tape.conv2d(&y, map, &v[2], None, with(1, Padding::all(1), 16)).unwrap();
    let (y, map) =
        tape.max_pool2d(&y, map, WindowOptions { padding: Padding::all(1), ..WindowOptions::square(3, 2) }).unwrap();
    let (y, _) = tape.conv2d(&y, map, &v[3], None, with(1, Padding::all(1), 1)).unwrap();
    let (y, map) = tape.conv2d(&y, map, &v[4], None, with(2, Padding::all(1), 4)).unwrap();
    let (y, _) = tape.conv2d(&y, map, &v[5], None, with(1, Padding::default(), 1)).unwrap();
    let packing = map.packing(&[0, 1, 2]);
    let factors = tape.pool(engine::device::Pooling::Mean, &y, &packing).unwrap();
    let y = tape.channel_scale(&y, map, &factors).unwrap();
    let y = tape.gem(&y, &v[6], 1e-6, &packing).unwrap();
    let mut gradients = Gradients::new(&parameters);
    let mut leaves = tape.backward(&y, random(60, &[3, 24]), &mut gradients).unwrap();
    let dx = leaves.take(&x).unwrap();
    let all = [y.value(), &dx].into_iter().chain(gradients.iter().map(|gradient| gradient.unwrap()));
    all.flat_map(|tensor| tensor.data()).map(|x| x.to_bits()).collect()
}

#[test]
fn one_two_and_three_threads_compute_the_same_bits_over_maps() {
    let on = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(bits);
    let one = on(1);
    assert!(one.iter().all(|&bits| f32::from_bits(bits).is_finite()));
    assert!(one == on(2), "two threads");
    assert!(one == on(3), "three threads");
}
