//! Losses over tuples, scores and teachers against sentence-transformers, whose float64 numbers
//! `golden/objectives_teachers.py` wrote, and the cases that those leave open.
#![cfg(feature = "engine")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, too, fail by panicking")]

mod numbers;

use std::collections::BTreeMap;
use std::path::Path;

use engine::{Cpu, Parameters, Tape, Tensor};
use finetuner::objective::{BatchLayout, Needs, Objective, Sizes};
use finetuner::spec::Options;
use serde_json::{Value, json};

use self::numbers::{evaluate, tensors};

fn objective(loss: &str, options: Value) -> Objective {
    Objective::new(loss, options.as_object().unwrap(), None, &Options::new()).unwrap()
}

/// A layout of full columns in which only an example's anchor and positive share a label.
fn layout(columns: usize, rows: usize) -> BatchLayout {
    let of_column = |column: usize| (0..rows).map(move |i| (i + rows * if column == 1 { 0 } else { column }) as u32);
    BatchLayout {
        columns: vec![rows; columns],
        labels: (0..columns).flat_map(of_column).collect(),
        ..Default::default()
    }
}

fn table(rows: usize, width: usize, formula: impl Fn(f64, f64) -> f64) -> Vec<f32> {
    (0..rows * width).map(|k| formula((k / width + 1) as f64, (k % width + 1) as f64) as f32).collect()
}

fn numbers(value: &Value) -> Option<Vec<f32>> {
    Some(value.as_array()?.iter().map(|number| number.as_f64().unwrap() as f32).collect())
}

#[test]
fn losses_and_their_gradients_equal_the_reference_implementation() {
    let (inputs, gradients) = (tensors("objectives.safetensors"), tensors("objectives_teachers.safetensors"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/objectives_teachers.json");
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = golden["losses"].as_array().unwrap();
    let mut failures = Vec::new();
    let mut worst = (0.0f64, 0.0f64);
    for case in cases {
        let text = |key: &str| case[key].as_str().unwrap();
        let width = if text("input") == "waves" { 4 } else { 8 };
        let input = |name: &str| &inputs[&format!("input.{}.{name}", text("input"))];
        let columns: Vec<&str> = case["columns"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
        let rows = input("x").len() / width;
        let guide = case["guide"].as_array().map(|guides| {
            let sum = |guide: &Value| -> Vec<f32> {
                let parts: Vec<_> = guide.as_str().unwrap().split('+').map(input).collect();
                (0..rows * width).map(|at| parts.iter().map(|part| part[at]).sum::<f64>() as f32).collect()
            };
            Tensor::from_vec(guides.iter().flat_map(sum).collect(), &[rows * columns.len(), width]).unwrap()
        });
        let layout = BatchLayout { scores: numbers(&case["scores"]), guide, ..layout(columns.len(), rows) };
        let embeddings: Vec<f32> = columns.iter().flat_map(|column| input(column).iter().map(|&x| x as f32)).collect();
        let (value, gradient) = evaluate(&objective(text("loss"), case["loss_options"].clone()), &embeddings, &layout);

        let expected = case["value"].as_f64().unwrap();
        let value_error = if expected == 0.0 { value.abs() } else { (value / expected - 1.0).abs() };
        // A column that occurs twice has one gradient.
        let mut by_column: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (column, gradient) in columns.iter().zip(gradient.chunks(rows * width)) {
            let sum = by_column.entry(column).or_insert(vec![0.0; rows * width]);
            sum.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g);
        }
        let (mut error, mut largest) = (0.0f64, f64::MIN_POSITIVE);
        for (column, gradient) in by_column {
            for (got, expected) in gradient.iter().zip(&gradients[&format!("gradient.{}.{column}", text("name"))]) {
                error = error.max((got - expected).abs());
                largest = largest.max(expected.abs());
            }
        }
        let gradient_error = if largest == f64::MIN_POSITIVE { error } else { error / largest };
        worst = (worst.0.max(value_error), worst.1.max(gradient_error));
        // Not `>`: an error of NaN must fail.
        if !(value_error <= 1e-6 && gradient_error <= 1e-6) {
            let name = text("name");
            failures.push(format!(
                "{name}: value {value} of {expected} ({value_error:.1e}), gradient {gradient_error:.1e}"
            ));
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
    assert!(cases.len() > 120, "{} cases", cases.len());
    println!("{} cases; worst value {:.1e}, worst gradient {:.1e}", cases.len(), worst.0, worst.1);
}

/// Every loss of this part with a batch of 6 that suits it.
fn all() -> Vec<(Objective, BatchLayout)> {
    let scores = |scores: Vec<f32>| Some(scores);
    let pairs = layout(2, 6);
    let triplets = layout(3, 6);
    let guided = |layout: &BatchLayout| {
        let guide = table(layout.rows(), 5, |i, j| (0.6 * i + 1.1 * j + 0.35 * i * j).cos());
        BatchLayout { guide: Some(Tensor::from_vec(guide, &[layout.rows(), 5]).unwrap()), ..layout.clone() }
    };
    let binary = BatchLayout { scores: scores(vec![0.0, 1.0, 1.0, 0.0, 1.0, 0.0]), ..pairs.clone() };
    let graded = BatchLayout { scores: scores(vec![0.1, 0.9, 0.4, 0.4, 0.7, 0.0]), ..pairs.clone() };
    let taught = BatchLayout { scores: scores((0..12).map(|i| (i % 5) as f32).collect()), ..triplets.clone() };
    let mut projected = objective("EmbedDistillLoss", json!({"projection_dim": 5, "distance_metric": "mse"}));
    projected.prepare(Sizes { dimension: 4, classes: 0, ..Sizes::default() }, 3).unwrap();
    vec![
        (objective("TripletLoss", json!({})), triplets.clone()),
        (objective("sentence_transformers.ContrastiveLoss", json!({})), binary.clone()),
        (objective("OnlineContrastiveLoss", json!({"margin": 1.5})), binary),
        (objective("AnglELoss", json!({"scale": 2})), graded),
        (objective("CoSENTLoss", json!({"scale": 2})), triplets.clone()),
        (objective("MegaBatchMarginLoss", json!({})), triplets.clone()),
        (objective("MarginMSELoss", json!({})), taught.clone()),
        (objective("DistillKLDivLoss", json!({})), taught),
        (objective("GISTEmbedLoss", json!({"temperature": 0.5})), guided(&triplets)),
        (projected, guided(&pairs)),
        (objective("MultipleNegativesSymmetricRankingLoss", json!({"scale": 2})), pairs),
    ]
}

#[test]
fn gradients_are_the_slopes_of_the_values() {
    for (objective, layout) in all() {
        let x = table(layout.rows(), 4, |i, j| (0.9 * i + 1.7 * j + 0.3 * i * j).sin());
        let (_, gradient) = evaluate(&objective, &x, &layout);
        let largest = gradient.iter().fold(0.0f64, |largest, g| largest.max(g.abs()));
        assert!(largest > 0.0, "{objective:?}");
        for at in (0..x.len()).step_by(5) {
            let value = |by: f32| {
                let mut x = x.clone();
                x[at] += by;
                (evaluate(&objective, &x, &layout).0, f64::from(x[at]))
            };
            let ((above, right), (below, left)) = (value(4e-3), value(-4e-3));
            let slope = (above - below) / (right - left);
            assert!(
                (slope - gradient[at]).abs() < 2e-3 * largest.max(1e-2),
                "{slope}, {}: {objective:?}",
                gradient[at]
            );
        }
    }
}

#[test]
fn equal_and_extreme_embeddings_give_finite_numbers() {
    for (objective, layout) in all() {
        for factor in [0.0, 1e-3, 100.0] {
            // All rows the same.
            let x = table(layout.rows(), 4, |_, j| factor * (1.7 * j).sin());
            let (value, gradient) = evaluate(&objective, &x, &layout);
            assert!(value.is_finite() && gradient.iter().all(|g| g.is_finite()), "{factor}: {objective:?}");
            let x = table(layout.rows(), 4, |i, j| factor * (0.9 * i + 1.7 * j).sin());
            let (value, gradient) = evaluate(&objective, &x, &layout);
            assert!(value.is_finite() && gradient.iter().all(|g| g.is_finite()), "{factor}: {objective:?}");
        }
    }
}

#[test]
fn known_matches_are_never_negatives() {
    // Example 2 matches example 0: to query 0 its rows matter as little as if they were elsewhere.
    let x = table(9, 4, |i, j| (0.9 * i + 1.7 * j + 0.3 * i * j).sin());
    let guide = table(9, 3, |i, j| (0.2 * i + 1.3 * j).cos());
    let labels = vec![0, 1, 0, 0, 1, 0, 7, 8, 9];
    let layout = BatchLayout {
        columns: vec![3; 3],
        labels,
        guide: Some(Tensor::from_vec(guide, &[9, 3]).unwrap()),
        ..Default::default()
    };
    for (name, options) in [
        ("MegaBatchMarginLoss", json!({"positive_margin": -1, "negative_margin": -1})),
        ("GISTEmbedLoss", json!({"margin": -2})),
    ] {
        let objective = objective(name, options);
        let (before, _) = evaluate(&objective, &x, &layout);
        // A copy of query 0 as the positive of its match would be the hardest negative of all.
        let mut closer = x.clone();
        closer.copy_within(0..4, 20);
        let lone = |x: &[f32], own: f32| {
            let mut layout = layout.clone();
            layout.labels[0] = own as u32;
            layout.labels[3] = own as u32;
            evaluate(&objective, x, &layout).0
        };
        let (masked, unmasked) = (evaluate(&objective, &closer, &layout).0, lone(&closer, 5.0));
        assert!(masked < unmasked, "{name}: {before}, {masked}, {unmasked}");
    }
}

#[test]
fn nothing_to_compare_gives_zero() {
    let x = table(2, 4, |i, j| (i * j).sin());
    for loss in ["AnglELoss", "CoSENTLoss"] {
        let alone = BatchLayout { scores: Some(vec![0.5]), ..layout(2, 1) };
        assert_eq!(evaluate(&objective(loss, json!({})), &x, &alone), (0.0, vec![0.0; 8]), "{loss}");
    }
    // A lone pair has no negative: the positive's term is all there is.
    let (value, _) = evaluate(&objective("MegaBatchMarginLoss", json!({"positive_margin": -2})), &x, &layout(2, 1));
    assert_eq!(value, 0.0);
}

#[test]
fn the_angle_of_an_odd_width_is_that_with_a_zero_added() {
    let scores = Some(vec![0.3, 0.1, 0.9, 0.5]);
    let layout = BatchLayout { scores, ..layout(2, 4) };
    let x = table(8, 5, |i, j| (0.9 * i + 1.7 * j + 0.3 * i * j).sin());
    let wider: Vec<f32> = x.chunks(5).flat_map(|row| row.iter().copied().chain([0.0])).collect();
    let angle = objective("AnglELoss", json!({}));
    let (narrow, wide) = (evaluate(&angle, &x, &layout), evaluate(&angle, &wider, &layout));
    assert!((narrow.0 / wide.0 - 1.0).abs() < 1e-6);
    // The added number has a gradient of its own, which the narrow vector has no place for.
    for (narrow, wide) in narrow.1.chunks(5).zip(wide.1.chunks(6)) {
        assert!(narrow.iter().zip(wide).all(|(a, b)| (a - b).abs() < 1e-5), "{narrow:?} {wide:?}");
    }
}

#[test]
fn what_does_not_fit_is_refused_in_words() {
    let refused = |loss: &str, layout: &BatchLayout| {
        let (device, parameters) = (Cpu::F32, Parameters::default());
        let mut tape = Tape::recording(&device, &parameters);
        let leaf = tape.leaf(Tensor::full(&[layout.rows(), 4], 1.0));
        objective(loss, json!({})).loss(&mut tape, &leaf, layout).unwrap_err().to_string()
    };
    assert!(refused("GISTEmbedLoss", &layout(2, 3)).contains("a guide's embeddings of 6 rows"));
    assert!(refused("TripletLoss", &layout(2, 3)).contains("at least 3 columns"));
    let scores = Some(vec![0.0; 5]);
    assert!(refused("MarginMSELoss", &BatchLayout { scores, ..layout(3, 4) }).contains("a score of each document"));
    let narrow = Some(Tensor::full(&[6, 3], 1.0));
    let error = refused("MSELoss", &BatchLayout { guide: narrow, ..layout(2, 3) });
    assert!(error.contains("projection_dim=3"), "{error}");

    let unknown = |loss: &str, options: Value| {
        Objective::new(loss, options.as_object().unwrap(), None, &Options::new()).unwrap_err().to_string()
    };
    assert!(unknown("CachedGISTEmbedLoss", json!({"mini_batch_size": 8})).contains("micro_batch_tokens"));
    assert!(unknown("CachedGISTEmbed", json!({})).contains("did you mean `CachedGISTEmbedLoss`?"));
    assert!(unknown("DenoisingAutoEncoderLoss", json!({})).contains("decoder"));
    assert!(unknown("DistillKLDivLoss", json!({"teacher_temperature": 0})).contains("greater than 0"));
    for name in ["CachedMultipleNegativesRankingLoss", "SimCSE", "CachedMultipleNegativesSymmetricRankingLoss"] {
        assert_eq!(objective(name, json!({})).needs(), Needs::Pairs);
    }
}
