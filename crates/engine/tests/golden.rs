//! Every operation and update rule against PyTorch. The numbers and the program that made them are in `golden/`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::process::Command;

use engine::device::{Activation, AttentionOptions, Pooling, UpdateKind, UpdateRule};
use engine::{Gradients, InstructionSet, Packing, Parameters, Result, Tape, Tensor, Var};
use serde_json::Value;

use common::assert_close;
use common::devices::devices;
use common::golden::Golden;

/// Of the largest magnitude of the tensor.
const TOLERANCE: f64 = 2e-6;

/// Operations that the objectives compose, or that wait for the encoder that needs them, with an update rule that is
/// not offered. A bias per pair of rows (not by distance) is none of ours; `gradients.rs` tests that by distance.
const NOT_OURS: [&str; 4] = ["rms_norm", "softmax", "log_softmax", "attention_bias"];

fn packing(golden: &Golden) -> Packing {
    let offsets: Vec<u32> =
        golden.description["offsets"].as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect();
    let examples: Vec<u32> = (0..offsets.len() as u32 - 1).collect();
    Packing::new(&offsets, &examples)
}

/// Names and options of `operations`, `optimisers` or `clipping`, without [`NOT_OURS`].
fn cases<'a>(golden: &'a Golden, part: &str) -> Vec<(&'a str, &'a Value)> {
    let all = golden.description[part].as_array().unwrap().iter();
    let named = all.map(|case| (case["name"].as_str().unwrap(), case));
    named.filter(|(name, _)| !NOT_OURS.contains(name)).collect()
}

fn number(options: &Value, name: &str, default: f32) -> f32 {
    options.get(name).map_or(default, |value| value.as_f64().unwrap() as f32)
}

fn activation(name: &str) -> Activation {
    match name {
        "none" => Activation::Identity,
        "gelu" => Activation::Gelu,
        "gelu_tanh" => Activation::GeluTanh,
        "relu" => Activation::Relu,
        "tanh" => Activation::Tanh,
        other => panic!("no activation {other}"),
    }
}

/// Queries, keys and values side by side, and back.
fn beside(parts: &[Tensor]) -> Tensor {
    let (rows, columns) = (parts[0].rows(), parts[0].columns());
    let row = |row: usize| parts.iter().flat_map(move |part| &part.data()[row * columns..(row + 1) * columns]);
    Tensor::from_vec((0..rows).flat_map(row).copied().collect(), &[rows, columns * parts.len()]).unwrap()
}

fn columns_of(tensor: &Tensor, part: usize, parts: usize) -> Vec<f32> {
    let width = tensor.columns() / parts;
    tensor.data().chunks_exact(width).skip(part).step_by(parts).flatten().copied().collect()
}

/// The operation of a case on its inputs.
fn run(golden: &Golden, case: &Value, tape: &mut Tape<'_>, inputs: &[Var]) -> Result<Var> {
    let options = &case["options"];
    let packing = packing(golden);
    match (case["operation"].as_str().unwrap(), inputs) {
        ("linear", [x, weight, rest @ ..]) => {
            let y = tape.linear(x, weight, rest.first())?;
            tape.activation(activation(options["activation"].as_str().unwrap()), &y)
        }
        ("gelu", [x]) => tape.activation(Activation::Gelu, x),
        ("gelu_tanh", [x]) => tape.activation(Activation::GeluTanh, x),
        ("layer_norm", [x, weight, bias]) => {
            tape.add_norm(x, None, weight, bias, number(options, "epsilon", 0.0), None, &packing)
        }
        ("add_layer_norm", [x, residual, weight, bias]) => {
            tape.add_norm(x, Some(residual), weight, bias, number(options, "epsilon", 0.0), None, &packing)
        }
        ("l2_normalise", [x]) => tape.normalize(x),
        ("attention", [qkv]) => {
            let heads = options["heads"].as_u64().unwrap() as usize;
            let causal = options["causal"].as_bool().unwrap();
            tape.attention(qkv, &packing, None, AttentionOptions { heads, causal, window: None, dropout: None })
        }
        ("pool", [x]) => {
            let pooling = match options["kind"].as_str().unwrap() {
                "mean" => Pooling::Mean,
                "cls" => Pooling::Cls,
                "max" => Pooling::Max,
                "last" => Pooling::Last,
                "gem" => Pooling::Gem { p: number(options, "power", 0.0), eps: number(options, "floor", 0.0) },
                other => panic!("no pooling {other}"),
            };
            tape.pool(pooling, x, &packing)
        }
        ("embedding", [table]) => tape.rows(table, golden.ids("embedding.ids")),
        (other, inputs) => panic!("no operation {other} of {} inputs", inputs.len()),
    }
}

#[test]
fn every_operation_equals_pytorch_in_value_and_gradient() {
    for device in devices() {
        let golden = Golden::open("ops");
        let parameters = Parameters::default();
        let cases = cases(&golden, "operations");
        assert_eq!(cases.len(), 21);
        for (name, case) in cases {
            let names: Vec<&str> =
                case["inputs"].as_array().unwrap().iter().map(|input| input.as_str().unwrap()).collect();
            let mut values: Vec<Tensor> =
                names.iter().map(|input| golden.tensor(&format!("{name}.input.{input}"))).collect();
            let joined = case["operation"] == "attention";
            if joined {
                values = vec![beside(&values)];
            }
            let mut tape = Tape::recording(device, &parameters);
            let leaves: Vec<Var> = values.into_iter().map(|value| tape.leaf(value)).collect();
            let y = run(&golden, case, &mut tape, &leaves).unwrap();
            assert_close(name, y.value().data(), &golden.doubles(&format!("{name}.output.y")), TOLERANCE);

            let upstream = golden.tensor(&format!("{name}.upstream.y"));
            let mut gradients = tape.backward(&y, upstream, &mut Gradients::new(&parameters)).unwrap();
            let taken: Vec<Tensor> = leaves.iter().map(|leaf| gradients.take(leaf).unwrap()).collect();
            for (i, input) in names.iter().enumerate() {
                let got = if joined { columns_of(&taken[0], i, names.len()) } else { taken[i].data().to_vec() };
                let expected = golden.doubles(&format!("{name}.gradient.{input}"));
                assert_close(&format!("gradient of {input} in {name}"), &got, &expected, TOLERANCE);
            }
        }
    }
}

/// A second layer that is the identity leaves the activated first one.
#[test]
fn the_fused_feed_forward_equals_linear_and_activation_of_pytorch() {
    for device in devices() {
        let golden = Golden::open("ops");
        let parameters = Parameters::default();
        for name in ["linear_none", "linear_gelu", "linear_gelu_tanh", "linear_relu", "linear_tanh"] {
            let mut tape = Tape::recording(device, &parameters);
            let leaves =
                ["x", "weight", "bias"].map(|input| tape.leaf(golden.tensor(&format!("{name}.input.{input}"))));
            let [x, weight, bias] = &leaves;
            let outputs = weight.value().rows();
            let mut identity = Tensor::zeros(&[outputs, outputs]);
            (0..outputs).for_each(|i| identity.data_mut()[i * outputs + i] = 1.0);
            let second = (&tape.constant(identity), &tape.constant(Tensor::zeros(&[outputs])));
            let kind = activation(name.strip_prefix("linear_").unwrap());
            let y = tape.feed_forward(x, (weight, bias), second, kind).unwrap();
            assert_close(name, y.value().data(), &golden.doubles(&format!("{name}.output.y")), TOLERANCE);

            let upstream = golden.tensor(&format!("{name}.upstream.y"));
            let mut gradients = tape.backward(&y, upstream, &mut Gradients::new(&parameters)).unwrap();
            for (leaf, input) in leaves.iter().zip(["x", "weight", "bias"]) {
                let expected = golden.doubles(&format!("{name}.gradient.{input}"));
                let got = gradients.take(leaf).unwrap();
                assert_close(&format!("gradient of {input} in {name}"), got.data(), &expected, TOLERANCE);
            }
        }
    }
}

#[test]
fn every_update_rule_equals_pytorch_after_each_of_five_steps() {
    for device in devices() {
        let golden = Golden::open("ops");
        let cases = cases(&golden, "optimisers");
        assert_eq!(cases.len(), 9);
        for (name, case) in cases {
            let options = &case["options"];
            let mut weight = golden.tensor(&format!("{name}.parameter.0"));
            let beta = |i: usize, default: f32| options.get("betas").map_or(default, |b| b[i].as_f64().unwrap() as f32);
            let flag = |key: &str| options.get(key).is_some_and(|value| value == true);
            let optimiser = case["optimiser"].as_str().unwrap();
            // The defaults of `torch.optim`.
            let decoupled = optimiser == "AdamW";
            let kind = match optimiser {
                "Adam" | "AdamW" => UpdateKind::Adam {
                    beta1: beta(0, 0.9),
                    beta2: beta(1, 0.999),
                    eps: number(options, "eps", 1e-8),
                    amsgrad: flag("amsgrad"),
                },
                _ => UpdateKind::Sgd {
                    momentum: number(options, "momentum", 0.0),
                    dampening: number(options, "dampening", 0.0),
                    nesterov: flag("nesterov"),
                },
            };
            let weight_decay = number(options, "weight_decay", if decoupled { 1e-2 } else { 0.0 });
            let rate = number(options, "lr", 0.0);
            let moments = kind.initial_moments(rate);
            let mut state: Vec<Tensor> = moments.iter().map(|initial| Tensor::full(weight.shape(), *initial)).collect();
            for step in 1..=case["steps"].as_u64().unwrap() {
                let rule = UpdateRule { kind, weight_decay, decoupled, step };
                let gradient = golden.tensor(&format!("{name}.gradient.{step}"));
                device.update(&rule, rate, 1.0, &mut weight, &gradient, &mut state);
                let expected = golden.doubles(&format!("{name}.parameter.{step}"));
                assert_close(&format!("{name} after step {step}"), weight.data(), &expected, TOLERANCE);
            }
        }
    }
}

#[test]
fn clipping_by_the_global_norm_equals_pytorch() {
    for device in devices() {
        let golden = Golden::open("ops");
        for (name, case) in cases(&golden, "clipping") {
            let names: Vec<&str> = case["parameters"].as_array().unwrap().iter().map(|x| x.as_str().unwrap()).collect();
            let before = names.iter().map(|parameter| golden.tensor(&format!("{name}.before.{parameter}")));
            let mut gradients: Vec<Tensor> = before.collect();
            let norm = device.sum_of_squares(&gradients.iter().collect::<Vec<_>>()).sqrt();
            assert!((norm / case["total_norm"].as_f64().unwrap() - 1.0).abs() < 1e-7, "{name}: {norm}");
            let factor = (case["max_norm"].as_f64().unwrap() / (norm + 1e-6)).min(1.0);
            for (gradient, parameter) in gradients.iter_mut().zip(names) {
                device.scale_assign(gradient, factor as f32);
                assert_close(name, gradient.data(), &golden.doubles(&format!("{name}.after.{parameter}")), TOLERANCE);
            }
        }
    }
}

/// The instruction set is chosen once per process, so every other one gets a process of its own.
#[test]
fn every_instruction_set_of_this_processor_equals_pytorch() {
    let this = "every_instruction_set_of_this_processor_equals_pytorch";
    for &limit in common::LOWER_INSTRUCTION_SETS {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--skip", this])
            .env("FINETUNER_ISA", limit)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("4 passed"), "FINETUNER_ISA={limit}:\n{text}");
    }
    let best = engine::instruction_set();
    if best != InstructionSet::Avx512 {
        println!("skipped: this run uses {best:?}, so the AVX-512 kernels were not run");
    }
}
