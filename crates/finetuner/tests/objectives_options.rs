//! What the other tests of objectives leave open: options that none of them sets, the manhattan distance, regularisers with
//! options, losses over classes of pairs, over two copies of a model and over its layers. `golden/objectives_options.py` wrote
//! the numbers.
#![cfg(feature = "engine")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, too, fail by panicking")]

mod numbers;

use std::collections::BTreeMap;
use std::path::Path;

use engine::random::Key;
use engine::{Cpu, Gradients, Parameters, Tape, Tensor};
use finetuner::artifact::ModelFolder;
use finetuner::encoder::{Encoder, EncoderOptions};
use finetuner::objective::{BatchLayout, Objective, Sizes};
use finetuner::spec::Options;
use finetuner::tokens::PackedBatch;
use serde_json::{Value, json};

struct Golden {
    document: Value,
    tensors: BTreeMap<String, Vec<f64>>,
}

impl Golden {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/objectives_options.json");
        let document = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        Golden { document, tensors: numbers::tensors("objectives_options.safetensors") }
    }

    fn cases(&self, of: &str) -> impl Iterator<Item = &Value> {
        self.document[of].as_array().unwrap().iter()
    }

    fn input(&self, set: &str, column: &str) -> Vec<f32> {
        self.tensors[&format!("input.{set}.{column}")].iter().map(|&x| x as f32).collect()
    }

    /// The largest difference, relative to the largest expected value.
    fn difference(&self, name: &str, got: &[f64]) -> f64 {
        let expected = &self.tensors[name];
        assert_eq!(expected.len(), got.len(), "{name}");
        let scale = expected.iter().fold(1e-6f64, |scale, x| scale.max(x.abs()));
        got.iter().zip(expected).map(|(a, b)| (a - b).abs() / scale).fold(0.0, f64::max)
    }
}

fn objective(loss: &str, options: &Options, sizes: Sizes) -> Objective {
    let mut options = options.clone();
    // A golden file says what miner the loss has by this key.
    let miner = options.remove("__miner").map(|value| value.as_object().cloned().unwrap());
    let mut objective =
        Objective::new(loss, &options, miner.is_some().then_some("HDCMiner"), &miner.unwrap_or_default()).unwrap();
    objective.prepare(sizes, 1).unwrap();
    objective
}

/// Value, gradient of the embeddings, gradients of the loss's own tensors.
fn evaluate(objective: &mut Objective, rows: &[f32], layout: &BatchLayout) -> (f64, Vec<f64>, Vec<Vec<f64>>) {
    let parameters = Parameters::default();
    let mut tape = Tape::recording(&Cpu::F32, &parameters);
    let count = layout.rows();
    let leaf = tape.leaf(Tensor::from_vec(rows.to_vec(), &[count, rows.len() / count]).unwrap());
    let computed = objective.compute(&mut tape, &leaf, layout).unwrap();
    let value = f64::from(computed.loss.value().item());
    let mut leaves = tape.backward(&computed.loss, Tensor::scalar(1.0), &mut Gradients::new(&parameters)).unwrap();
    let wide = |tensor: &Tensor| tensor.data().iter().map(|&x| f64::from(x)).collect();
    let gradient = leaves.take(&leaf).as_ref().map_or(vec![0.0; rows.len()], wide);
    let own = computed.own_gradients(&mut leaves);
    let own = own.iter().map(|gradient| gradient.map(wide).unwrap_or_default()).collect();
    objective.remember(computed.into_remembered());
    (value, gradient, own)
}

#[test]
fn values_and_gradients_equal_the_reference() {
    let golden = Golden::read();
    let (mut failures, mut worst, mut count) = (Vec::new(), 0.0f64, 0);
    for case in golden.cases("losses") {
        let text = |key: &str| case[key].as_str().unwrap();
        let name = text("name");
        let columns: Vec<&str> = case["columns"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
        let set = text("input");
        let (classes, dimension) = if set == "waves" { (3, 4) } else { (6, 8) };
        let parts: Vec<Vec<f32>> = columns.iter().map(|column| golden.input(set, column)).collect();
        let rows = parts[0].len() / dimension;
        let guide = golden.tensors.get(&format!("guide.{name}")).map(|values| {
            let all = rows * columns.len();
            Tensor::from_vec(values.iter().map(|&x| x as f32).collect(), &[all, values.len() / all]).unwrap()
        });
        let layout = BatchLayout {
            columns: vec![rows; columns.len()],
            labels: serde_json::from_value(case["labels"].clone()).unwrap(),
            scores: serde_json::from_value(case["scores"].clone()).unwrap(),
            guide,
            layers: Vec::new(),
        };
        let sizes = Sizes { dimension, classes, layers: 0 };
        let mut objective = objective(text("loss"), case["loss_options"].as_object().unwrap(), sizes);
        let given = case["parameters"].as_u64().unwrap() as usize;
        for (index, parameter) in objective.parameters_mut().iter_mut().enumerate().take(given) {
            let values = &golden.tensors[&format!("parameter.{name}.{index}")];
            let values = values.iter().map(|&x| x as f32).collect();
            parameter.value = Tensor::from_vec(values, parameter.value.shape()).unwrap();
        }
        let (value, gradient, own) = evaluate(&mut objective, &parts.concat(), &layout);
        let expected = case["value"].as_f64().unwrap();
        let mut error = (value / expected - 1.0).abs();
        error = error.max(golden.difference(&format!("gradient.{name}.x"), &gradient));
        for (index, own) in own.iter().enumerate().take(given) {
            error = error.max(golden.difference(&format!("gradient.{name}.parameter.{index}"), own));
        }
        worst = worst.max(error);
        count += 1;
        if error.is_nan() || error > 1e-6 {
            failures.push(format!("{name} {}: {value} of {expected}, error {error:.1e}", case["loss_options"]));
        }
    }
    assert!(failures.is_empty(), "{} of {count}:\n{}", failures.len(), failures.join("\n"));
    assert!(count > 100, "{count} cases");
    println!("{count} cases, worst error {worst:.1e}");
}

#[test]
fn aligned_views_go_on_from_batch_to_batch() {
    let golden = Golden::read();
    let (x, u) = (golden.input("random", "x"), golden.input("random", "u"));
    for case in golden.cases("sequences") {
        let name = case["name"].as_str().unwrap();
        let sizes = Sizes { dimension: 8, ..Sizes::default() };
        let mut objective = objective("DynamicSoftMarginLoss", case["loss_options"].as_object().unwrap(), sizes);
        for (step, rows) in case["rows"].as_array().unwrap().iter().enumerate() {
            let [from, to] = [0, 1].map(|end| 8 * rows[end].as_u64().unwrap() as usize);
            let batch = [&x[from..to], &u[from..to]].concat();
            let labels = (0..8).chain(0..8).collect();
            let layout = BatchLayout { columns: vec![8, 8], labels, ..Default::default() };
            let (value, gradient, _) = evaluate(&mut objective, &batch, &layout);
            let expected = case["values"][step].as_f64().unwrap();
            let error = (value / expected - 1.0).abs();
            let error = error.max(golden.difference(&format!("gradient.{name}.{step}"), &gradient));
            assert!(error < 2e-6, "{name} step {step}: {value} of {expected}, error {error:.1e}");
        }
    }
}

/// Texts 0 and 2, then 1 and 3, of the batch of `encoders/bert`.
fn batch() -> PackedBatch {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/encoders/bert/golden.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let words = |name: &str| -> Vec<u32> {
        let data = file.tensor(name).unwrap().data().to_vec();
        data.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
    };
    let (ids, types, ends) = (words("ids"), words("type_ids"), words("offsets"));
    let mut packed =
        PackedBatch { ids: vec![], type_ids: Some(vec![]), positions: vec![], offsets: vec![0], examples: vec![] };
    for (row, text) in [0, 2, 1, 3].into_iter().enumerate() {
        let range = ends[text] as usize..ends[text + 1] as usize;
        packed.ids.extend_from_slice(&ids[range.clone()]);
        packed.type_ids.as_mut().unwrap().extend_from_slice(&types[range.clone()]);
        packed.positions.extend(0..range.len() as u32);
        packed.offsets.push(packed.ids.len() as u32);
        packed.examples.push(row as u32);
    }
    packed
}

#[test]
fn losses_over_layers_equal_the_reference_through_a_model() {
    let golden = Golden::read();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/encoders/bert");
    let encoder = Encoder::open(&ModelFolder::open(&folder).unwrap(), &EncoderOptions::default()).unwrap();
    let sizes =
        Sizes { dimension: encoder.dimension(), classes: 0, layers: encoder.main_tower().backbone().earlier_layers() };
    for case in golden.cases("layers") {
        let name = case["name"].as_str().unwrap();
        let objective = objective(case["loss"].as_str().unwrap(), case["loss_options"].as_object().unwrap(), sizes);
        let layers = objective.draw_layers(Key::new(1));
        assert_eq!(layers, [0, 1]);
        let mut tape = Tape::recording(&Cpu::F32, &encoder.parameters);
        let embeddings = encoder.forward_layers(&mut tape, &batch().into(), None, &layers).unwrap();
        let layout = BatchLayout { columns: vec![2, 2], labels: vec![0, 1, 0, 1], layers, ..Default::default() };
        let loss = objective.loss(&mut tape, &embeddings, &layout).unwrap();
        let (value, expected) = (f64::from(loss.value().item()), case["value"].as_f64().unwrap());
        assert!((value / expected - 1.0).abs() < 1e-6, "{name}: {value} of {expected}");
        let mut gradients = Gradients::new(&encoder.parameters);
        tape.backward(&loss, Tensor::scalar(1.0), &mut gradients).unwrap();
        let prefix = format!("gradient.{name}.");
        let mut seen = 0;
        for key in golden.tensors.keys().filter_map(|key| key.strip_prefix(&prefix)) {
            if key.ends_with("key.bias") {
                continue; // 0 but for rounding
            }
            let (_, got) = encoder.named_gradients(&gradients).find(|(own, _)| *own == key).unwrap();
            let got: Vec<f64> = got.iter().map(|&x| f64::from(x)).collect();
            let error = golden.difference(&format!("{prefix}{key}"), &got);
            assert!(error < 1e-5, "{name} {key}: {error:.1e}");
            seen += 1;
        }
        assert!(seen > 10, "{seen}");
    }
}

#[test]
fn layers_are_drawn_anew_and_as_many_as_asked() {
    let options = json!({"loss": "CoSENTLoss", "n_layers_per_step": 2});
    let sizes = Sizes { dimension: 4, classes: 0, layers: 6 };
    let objective = objective("AdaptiveLayerLoss", options.as_object().unwrap(), sizes);
    let draws: Vec<Vec<usize>> = (0..40).map(|step| objective.draw_layers(Key::new(step))).collect();
    assert!(draws.iter().all(|layers| layers.len() == 2 && layers[0] < layers[1] && layers[1] < 6));
    assert!((0..6).all(|layer| draws.iter().any(|layers| layers.contains(&layer))), "{draws:?}");
    assert_eq!(draws[3], objective.draw_layers(Key::new(3)));
}

#[test]
fn vectors_start_as_asked() {
    let deviation = |init: Value| {
        let options = json!({"weight_init_func": init});
        let sizes = Sizes { dimension: 64, classes: 100, layers: 0 };
        let objective = objective("ProxyNCALoss", options.as_object().unwrap(), sizes);
        let values = objective.parameters().iter().next().unwrap().value.data().to_vec();
        (values.iter().map(|x| f64::from(x * x)).sum::<f64>() / values.len() as f64).sqrt()
    };
    for (init, expected) in [
        (json!("normal"), 1.0),
        (json!({"name": "normal_", "std": 0.2}), 0.2),
        (json!({"name": "uniform", "bound": 0.6}), 0.6 / 3f64.sqrt()),
        (json!("xavier_uniform_"), (2.0 / 164.0f64).sqrt()),
        (json!({"name": "xavier_normal", "gain": 2}), 2.0 * (2.0 / 164.0f64).sqrt()),
        (json!({"name": "kaiming_uniform", "a": 5f64.sqrt()}), (1.0 / (3.0 * 64.0f64)).sqrt()),
        (json!({"name": "kaiming_normal", "mode": "fan_out"}), 0.02f64.sqrt()),
    ] {
        let got = deviation(init.clone());
        assert!((got / expected - 1.0).abs() < 0.03, "{init}: {got}, expected {expected}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let problem = |loss: &str, options: Value| {
        let made = Objective::new(loss, options.as_object().unwrap(), None, &Options::new());
        made.map(|_| ()).unwrap_err().to_string()
    };
    for (loss, options, expected) in [
        ("SoftmaxLoss", json!({"concatenation_sent_rep": false, "concatenation_sent_difference": false}), "nothing"),
        ("MultipleLosses", json!({"losses": [{"loss": "ContrastiveTensionLoss"}]}), "two copies"),
        (
            "MatryoshkaLoss",
            json!({"loss": "AdaptiveLayerLoss", "loss_options": {"loss": "CoSENTLoss"}, "matryoshka_dims": 2}),
            "put this loss within it",
        ),
        ("MatryoshkaLoss", json!({"loss": "SoftmaxLoss", "matryoshka_dims": 2}), "one width"),
        ("Matryoshka2dLoss", json!({"loss": "CoSENTLoss"}), "matryoshka_dims"),
        ("AdaptiveLayerLoss", json!({"loss": "CoSENTLoss", "n_layers_per_step": 0}), "n_layers_per_step"),
        ("TripletMarginLoss", json!({"weight_init_func": "normal"}), "learns no vectors to start"),
        ("ProxyNCALoss", json!({"weight_init_func": "normall"}), "did you mean `normal`"),
        ("ProxyNCALoss", json!({"weight_regularizer": {"name": "LpRegularizer", "p": 0}}), "above 0"),
        (
            "ProxyNCALoss",
            json!({"weight_regularizer": {"name": "RegularFaceRegularizer", "distance": "l2"}}),
            "similarity",
        ),
        ("DenoisingAutoEncoderLoss", json!({}), "decoder"),
    ] {
        let problem = problem(loss, options.clone());
        assert!(problem.contains(expected), "{loss} {options}: {problem}");
    }
    let miner = json!({"miner": "HDCMinr"});
    let problem = Objective::new("TripletMarginLoss", &Options::new(), Some("HDCMiner"), miner.as_object().unwrap());
    assert!(problem.unwrap_err().to_string().contains("did you mean `HDCMiner`"));
}

#[test]
fn what_a_miner_holds_is_counted() {
    const ROWS: usize = 8192;
    let bytes = |loss: &str, options: Value, miner: Option<&str>| {
        let objective = Objective::new(loss, options.as_object().unwrap(), miner, &Options::new()).unwrap();
        objective.bytes(ROWS, 384) / (4 * ROWS * ROWS)
    };
    assert_eq!(bytes("ContrastiveLoss", json!({}), None), 0, "no matrix of all rows is held");
    assert_eq!(bytes("ContrastiveLoss", json!({}), Some("BatchHardMiner")), 6);
    assert_eq!(bytes("TripletMarginLoss", json!({}), Some("TripletMarginMiner")), 0, "both know a margin");
    assert_eq!(bytes("TripletMarginLoss", json!({}), Some("BatchHardMiner")), 6);
    let within = json!({"losses": [{"loss": "TripletMarginLoss", "miner": "BatchHardMiner"}, {"loss": "CircleLoss"}]});
    assert_eq!(bytes("MultipleLosses", within, None), 6, "miners of losses within others count, too");
}
