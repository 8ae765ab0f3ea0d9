//! Losses and miners against pytorch-metric-learning and sentence-transformers, whose float64 numbers
//! `golden/objectives.py` wrote, and the cases that those leave open.
#![cfg(feature = "engine")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, too, fail by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use engine::{Cpu, Gradients, Parameters, Tape, Tensor};
use finetuner::objective::{BatchLayout, Masks, Needs, Objective, Sampler, loss, miner};
use finetuner::spec::Options;
use serde_json::{Value, json};

fn golden() -> (Value, BTreeMap<String, Vec<f64>>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let read = |name: &str| std::fs::read(PathBuf::from(&folder).join(name)).unwrap();
    let bytes = read("objectives.safetensors");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let numbers = |data: &[u8]| data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect();
    let tensors = tensors.iter().map(|(name, view)| (name.to_owned(), numbers(view.data()))).collect();
    (serde_json::from_slice(&read("objectives.json")).unwrap(), tensors)
}

fn object(value: &Value) -> Options {
    value.as_object().cloned().unwrap_or_default()
}

/// Value and gradient.
fn evaluate(objective: &Objective, embeddings: &[f32], layout: &BatchLayout) -> (f64, Vec<f64>) {
    let (device, parameters) = (Cpu, Parameters::default());
    let mut tape = Tape::recording(&device, &parameters);
    let rows = layout.rows();
    let leaf = tape.leaf(Tensor::from_vec(embeddings.to_vec(), &[rows, embeddings.len() / rows]).unwrap());
    let value = objective.loss(&mut tape, &leaf, layout).unwrap();
    assert_eq!(value.value().shape(), [1]);
    let mut found = tape.backward(&value, Tensor::scalar(1.0), &mut Gradients::new(&parameters)).unwrap();
    let gradient =
        found.take(&leaf).map_or(vec![0.0; embeddings.len()], |g| g.data().iter().map(|&g| f64::from(g)).collect());
    (f64::from(value.value().item()), gradient)
}

/// Distinct labels for all rows but positives, which share their anchor's.
fn pair_labels(columns: usize, rows: usize) -> Vec<u32> {
    let of_column = |column: usize| (0..rows).map(move |i| (i + rows * if column == 1 { 0 } else { column }) as u32);
    (0..columns).flat_map(of_column).collect()
}

/// The miner's name and options of a record of the golden file.
fn miner_of(record: &Value) -> (String, Options) {
    let mut options = object(&record["options"]);
    options.insert("distance".into(), record["distance"].clone());
    (record["name"].as_str().unwrap().to_owned(), options)
}

#[test]
fn losses_and_their_gradients_equal_the_reference_implementations() {
    let (golden, tensors) = golden();
    let mut failures = Vec::new();
    let mut worst = (0.0f64, 0.0f64);
    let cases = golden["losses"].as_array().unwrap();
    for case in cases {
        let (name, input) = (case["name"].as_str().unwrap(), case["input"].as_str().unwrap());
        let columns: Vec<&str> = case["columns"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
        let rows = golden["inputs"][input]["rows"].as_u64().unwrap() as usize;
        let of = |kind: &str| golden["inputs"][input][kind].get(case[kind].as_str()?)?.as_array();
        let labels = match of("labels") {
            Some(labels) => labels.iter().map(|label| label.as_u64().unwrap() as u32).collect(),
            None => pair_labels(columns.len(), rows),
        };
        let scores = of("scores").map(|scores| scores.iter().map(|s| s.as_f64().unwrap() as f32).collect());
        let layout = BatchLayout { columns: vec![rows; columns.len()], labels, scores };
        let mut options = object(&case["loss_options"]);
        match case["loss"].as_str().unwrap() {
            "MultipleNegativesRankingLoss" => {
                options.insert("similarity_fct".into(), case["distance"].clone());
            }
            "CoSENTLoss" | "CosineSimilarityLoss" => {}
            _ => {
                options.insert("distance".into(), case["distance"].clone());
                options.insert("reducer".into(), case["reducer"].clone());
            }
        }
        let miner = case["miner"].is_object().then(|| miner_of(&case["miner"]));
        let (miner, miner_options) = miner.map_or((None, Options::new()), |(name, options)| (Some(name), options));
        let loss = case["loss"].as_str().unwrap();
        let objective = Objective::new(loss, &options, miner.as_deref(), &miner_options).unwrap();

        let embeddings: Vec<f32> = columns
            .iter()
            .flat_map(|column| tensors[&format!("input.{input}.{column}")].iter().map(|&x| x as f32))
            .collect();
        let (value, gradient) = evaluate(&objective, &embeddings, &layout);
        let expected = case["value"].as_f64().unwrap();
        let value_error = (value - expected).abs() / expected.abs().max(f64::MIN_POSITIVE);
        // A column that occurs twice has one gradient.
        let size = embeddings.len() / columns.len();
        let mut by_column: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (column, gradient) in columns.iter().zip(gradient.chunks(size)) {
            let sum = by_column.entry(column).or_insert(vec![0.0; size]);
            sum.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g);
        }
        let (mut error, mut largest) = (0.0f64, f64::MIN_POSITIVE);
        for (column, gradient) in by_column {
            for (got, expected) in gradient.iter().zip(&tensors[&format!("gradient.{name}.{column}")]) {
                error = error.max((got - expected).abs());
                largest = largest.max(expected.abs());
            }
        }
        let value_error = if expected == 0.0 { value.abs() } else { value_error };
        let gradient_error = if largest == f64::MIN_POSITIVE { error } else { error / largest };
        worst = (worst.0.max(value_error), worst.1.max(gradient_error));
        // Not `>`: an error of NaN must fail.
        if !(value_error <= 1e-6 && gradient_error <= 1e-6) {
            failures.push(format!(
                "{name}: value {value} of {expected} ({value_error:.1e}), gradient {gradient_error:.1e}"
            ));
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
    assert!(cases.len() > 200, "{} cases", cases.len());
    println!("{} cases; worst value {:.1e}, worst gradient {:.1e}", cases.len(), worst.0, worst.1);
}

#[test]
fn miners_choose_what_the_reference_implementation_chooses() {
    let (golden, tensors) = golden();
    let cases = golden["miners"].as_array().unwrap();
    for case in cases {
        let (name, input) = (case["name"].as_str().unwrap(), case["input"].as_str().unwrap());
        let set = &golden["inputs"][input];
        let labels = set["labels"][case["labels"].as_str().unwrap()].as_array().unwrap();
        let labels = Masks::new(&labels.iter().map(|label| label.as_u64().unwrap() as u32).collect::<Vec<_>>());
        let x: Vec<f32> = tensors[&format!("input.{input}.x")].iter().map(|&x| x as f32).collect();
        let rows = set["rows"].as_u64().unwrap() as usize;
        let x = Tensor::from_vec(x.clone(), &[rows, x.len() / rows]).unwrap();
        let (miner, options) = miner_of(&case["miner"]);
        let mined = miner::new(&miner, &options).unwrap().mine_embeddings(&Cpu, &x, &labels);
        let check = |side: &str, got: Vec<Vec<u32>>| {
            assert_eq!(got.len() as u64, case["counts"][side].as_u64().unwrap(), "{name}: number of {side}");
            if let Some(listed) = case.get(side) {
                let listed: Vec<Vec<u32>> = serde_json::from_value(listed.clone()).unwrap();
                assert_eq!(got, listed, "{name}: {side}");
            }
        };
        if case["kind"] == "triplets" {
            check("triplets", mined.list_triplets(&labels).iter().map(|t| t.to_vec()).collect());
        } else {
            let pairs = mined.pairs(&Cpu, &labels);
            let listed = |mask: &Tensor| -> Vec<Vec<u32>> {
                let marked = (0..rows * rows).filter(|&i| mask.data()[i] != 0.0);
                marked.map(|i| vec![(i / rows) as u32, (i % rows) as u32]).collect()
            };
            check("positives", listed(&pairs.positives));
            check("negatives", listed(&pairs.negatives));
        }
    }
    assert!(cases.len() > 50, "{} cases", cases.len());
}
