//! Losses and miners against pytorch-metric-learning and sentence-transformers, whose float64 numbers
//! `golden/objectives.py` wrote, and the cases that those leave open.
#![cfg(feature = "engine")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, too, fail by panicking")]

mod numbers;

use std::collections::BTreeMap;
use std::path::Path;

use engine::{Cpu, Parameters, Tape, Tensor};
use finetuner::objective::{BatchLayout, Masks, Needs, Objective, Sampler, Sizes, loss, miner};
use finetuner::spec::Options;
use serde_json::{Value, json};

use self::numbers::{evaluate, tensors};

fn golden() -> (Value, BTreeMap<String, Vec<f64>>) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/objectives.json");
    (serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap(), tensors("objectives.safetensors"))
}

fn object(value: &Value) -> Options {
    value.as_object().cloned().unwrap_or_default()
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
        let layout = BatchLayout { columns: vec![rows; columns.len()], labels, scores, ..Default::default() };
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
        let mined = miner::new(&miner, &options).unwrap().mine_embeddings(&Cpu::F32, &x, &labels);
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
            let pairs = mined.pairs(&Cpu::F32, &labels);
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

fn objective(loss: &str, options: Value) -> Objective {
    Objective::new(loss, &object(&options), None, &Options::new()).unwrap()
}

fn table(rows: usize, formula: impl Fn(f64, f64) -> f64) -> Vec<f32> {
    let value = |k: usize| formula((k / 4 + 1) as f64, (k % 4 + 1) as f64) as f32;
    (0..rows * 4).map(value).collect()
}

#[test]
fn published_values_follow_from_formulas_alone() {
    let x = table(8, |i, j| (0.9 * i + 1.7 * j + 0.3 * i * j).sin());
    let u = table(8, |i, j| (0.5 * i + 1.1 * j + 0.2 * i * j).cos());
    let n = table(8, |i, j| (0.4 * i + 0.6 * j - 0.25 * i * j).sin());
    let classes =
        BatchLayout { columns: vec![8], labels: vec![0, 0, 1, 1, 2, 2, 0, 1], scores: None, ..Default::default() };
    let scores = Some((0..8).map(|i| ((3 * i) % 8) as f32 / 7.0).collect());
    let pairs = BatchLayout { columns: vec![8, 8], labels: pair_labels(2, 8), scores, ..Default::default() };
    let tuples = BatchLayout { columns: vec![8; 3], labels: pair_labels(3, 8), scores: None, ..Default::default() };
    let all = "query_to_doc+query_to_query+doc_to_query+doc_to_doc";
    let both = json!({"directions": ["query_to_doc", "doc_to_query"], "partition_mode": "per_direction"});
    let hard = json!({"hardness_mode": "hard_negatives", "hardness_strength": 5});
    const MNRL: &str = "MultipleNegativesRankingLoss";
    let cases = [
        ("TripletMarginLoss", json!({}), &classes, 0.636512114, 0.387094773),
        ("TripletMarginLoss", json!({"swap": true}), &classes, 0.805777194, 0.475305982),
        ("TripletMarginLoss", json!({"smooth_loss": true}), &classes, 0.876467791, 0.237515072),
        ("ContrastiveLoss", json!({}), &classes, 2.132902158, 0.888088974),
        ("NTXLoss", json!({}), &classes, 16.018194298, 8.726296309),
        ("SupConLoss", json!({}), &classes, 10.774102535, 6.882306103),
        (MNRL, json!({}), &pairs, 18.505516169, 5.241792831),
        (MNRL, json!({"temperature": 0.05}), &tuples, 18.505539117, 5.241733829),
        (MNRL, both, &pairs, 18.241318259, 5.255460702),
        (MNRL, json!({"directions": all}), &tuples, 20.099698649, 4.888419982),
        (MNRL, hard, &tuples, 18.505542736, 5.241731956),
        ("CoSENTLoss", json!({}), &pairs, 28.613121494, 18.016628936),
        ("CosineSimilarityLoss", json!({}), &pairs, 0.600760566, 0.363471482),
    ];
    for (loss, options, layout, value, norm) in cases {
        let rows = [x.clone(), u.clone(), n.clone()].concat();
        let (got, gradient) = evaluate(&objective(loss, options.clone()), &rows[..layout.rows() * 4], layout);
        let got_norm = gradient[..32].iter().map(|g| g * g).sum::<f64>().sqrt();
        assert!((got / value - 1.0).abs() < 1e-6, "{loss} {options}: {got}, expected {value}");
        assert!((got_norm / norm - 1.0).abs() < 1e-6, "{loss} {options}: gradient {got_norm}, expected {norm}");
    }
}

const LABEL_LOSSES: [&str; 4] = ["TripletMarginLoss", "ContrastiveLoss", "NTXentLoss", "SupConLoss"];

#[test]
fn a_batch_without_any_valid_tuple_has_loss_zero_and_zero_gradient() {
    let x = table(6, |i, j| (i * j).sin());
    let miners = [None, Some("TripletMarginMiner"), Some("BatchHardMiner"), Some("BatchEasyHardMiner")];
    for (loss, miner) in LABEL_LOSSES.into_iter().flat_map(|loss| miners.map(|miner| (loss, miner))) {
        let objective = Objective::new(loss, &Options::new(), miner, &Options::new()).unwrap();
        for labels in [vec![3; 6], (0..6).collect::<Vec<_>>()] {
            // A contrastive loss has a use for pairs of one kind alone.
            if loss == "ContrastiveLoss" && (miner.is_none() || miner == Some("BatchEasyHardMiner")) {
                continue;
            }
            let layout = BatchLayout { columns: vec![6], labels, scores: None, ..Default::default() };
            let (value, gradient) = evaluate(&objective, &x, &layout);
            assert_eq!((value, gradient), (0.0, vec![0.0; 24]), "{loss} {miner:?} {:?}", layout.labels);
        }
    }
    let alone = BatchLayout { columns: vec![1], labels: vec![0], scores: None, ..Default::default() };
    for loss in LABEL_LOSSES {
        assert_eq!(evaluate(&objective(loss, json!({})), &x[..4], &alone), (0.0, vec![0.0; 4]), "{loss}");
    }
    let pair = BatchLayout { columns: vec![1, 1], labels: vec![0, 0], scores: Some(vec![0.5]), ..Default::default() };
    for loss in ["MultipleNegativesRankingLoss", "CoSENTLoss"] {
        assert_eq!(evaluate(&objective(loss, json!({})), &x[..8], &pair), (0.0, vec![0.0; 8]), "{loss}");
    }
}

#[test]
fn the_same_text_twice_gives_finite_gradients() {
    let mut x = table(8, |i, j| (0.9 * i + 1.7 * j).sin());
    x.copy_within(0..4, 4);
    x.copy_within(0..4, 16);
    x[24..28].fill(0.0);
    let classes =
        BatchLayout { columns: vec![8], labels: vec![0, 0, 1, 1, 2, 2, 3, 3], scores: None, ..Default::default() };
    let pairs = BatchLayout {
        columns: vec![4, 4],
        labels: pair_labels(2, 4),
        scores: Some(vec![0.0, 0.5, 0.5, 1.0]),
        ..Default::default()
    };
    for distance in ["cosine", "l2", "l2_squared", "euclidean", "sqeuclidean", "dot"] {
        for loss in LABEL_LOSSES {
            for miner in [None, Some("TripletMarginMiner"), Some("BatchHardMiner"), Some("BatchEasyHardMiner")] {
                let options = object(&json!({"distance": distance}));
                let objective = Objective::new(loss, &options, miner, &Options::new()).unwrap();
                let (value, gradient) = evaluate(&objective, &x, &classes);
                assert!(value.is_finite() && gradient.iter().all(|g| g.is_finite()), "{loss} {distance} {miner:?}");
            }
        }
        let options = json!({"similarity_fct": distance});
        for loss in ["MultipleNegativesRankingLoss", "CoSENTLoss"] {
            let (value, gradient) = evaluate(&objective(loss, options.clone()), &x, &pairs);
            assert!(value.is_finite() && gradient.iter().all(|g| g.is_finite()), "{loss} {distance}");
        }
    }
}

#[test]
fn rows_known_to_match_are_no_negatives_of_a_ranking_loss() {
    // Queries 0 and 2 share a label; the rows of example 2 then matter to query 0 as little as if they were absent.
    let x = table(9, |i, j| (0.7 * i + 1.3 * j + 0.4 * i * j).sin());
    let labels = vec![0, 1, 0, 0, 1, 0, 5, 6, 7];
    let layout = BatchLayout { columns: vec![3; 3], labels: labels.clone(), scores: None, ..Default::default() };
    let cosine = |a: usize, b: usize| {
        let row = |r: usize| x[4 * r..4 * r + 4].iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let (a, b) = (row(a), row(b));
        dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
    };
    let naive = |four: bool| {
        let loss = |i: usize| {
            let own = i + 3;
            let mut terms: Vec<f64> =
                (3..9).filter(|&d| d == own || labels[d] != labels[i]).map(|d| cosine(i, d)).collect();
            if four {
                let others = (0..3).filter(|&q| labels[q] != labels[i]);
                terms.extend(others.clone().map(|q| cosine(i, q)));
                terms.extend(others.chain([i]).map(|q| cosine(own, q)));
                let documents = (3..9).filter(|&d| d % 3 != i && labels[d] != labels[i]);
                terms.extend(documents.map(|d| cosine(own, d)));
            }
            terms.iter().map(|s| (20.0 * s).exp()).sum::<f64>().ln() - 20.0 * cosine(i, own)
        };
        (0..3).map(loss).sum::<f64>() / 3.0
    };
    let all = json!({"directions": "doc_to_doc+query_to_query+query_to_doc+doc_to_query"});
    for (options, four) in [(json!({}), false), (all, true)] {
        let (value, _) = evaluate(&objective("MultipleNegativesRankingLoss", options), &x, &layout);
        assert!((value / naive(four) - 1.0).abs() < 1e-6, "{value}, expected {}", naive(four));
    }
    // A column of negatives may be shorter.
    let shorter =
        BatchLayout { columns: vec![3, 3, 1], labels: labels[..7].to_vec(), scores: None, ..Default::default() };
    let (value, _) = evaluate(&objective("MultipleNegativesRankingLoss", json!({})), &x[..28], &shorter);
    assert!(value.is_finite() && value < naive(false));
}

#[test]
fn a_drawn_number_of_triplets_repeats_with_the_batch() {
    let x = table(8, |i, j| (0.9 * i + 1.7 * j + 0.3 * i * j).sin());
    // Classes of one size: every anchor has as many triplets.
    let layout =
        BatchLayout { columns: vec![8], labels: vec![0, 0, 1, 1, 2, 2, 3, 3], scores: None, ..Default::default() };
    let value = |count: Value| {
        let options = json!({"triplets_per_anchor": count, "reducer": "mean"});
        evaluate(&objective("TripletMarginLoss", options), &x, &layout).0
    };
    assert_eq!(value(json!(3)), value(json!(3)));
    let (drawn, all) = (value(json!(2000)), value(json!("all")));
    assert!((drawn / all - 1.0).abs() < 0.03, "{drawn} of a large draw, {all} of all");
}

#[test]
fn cosine_similarity_loss_with_its_options() {
    let x = [1.0, 0.0, 0.0, 1.0, 0.6, 0.8, 0.0, -1.0];
    let layout = BatchLayout {
        columns: vec![2, 2],
        labels: vec![0, 1, 0, 1],
        scores: Some(vec![0.5, 0.25]),
        ..Default::default()
    };
    // The cosines are 0.6 and -1.
    for (options, expected) in [
        (json!({}), (0.1f64.powi(2) + 1.25f64.powi(2)) / 2.0),
        (json!({"loss_fct": "mae"}), (0.1 + 1.25) / 2.0),
        (json!({"loss_fct": "mae", "cos_score_transformation": "relu"}), (0.1 + 0.25) / 2.0),
    ] {
        let (value, _) = evaluate(&objective("CosineSimilarityLoss", options), &x, &layout);
        assert!((value - expected).abs() < 1e-6, "{value}, expected {expected}");
    }
}

#[test]
fn an_objective_says_what_it_needs() {
    for (loss, needs, sampler) in [
        ("SupConLoss", Needs::Labels, Sampler::Class),
        ("MultipleNegativesRankingLoss", Needs::Pairs, Sampler::Random),
        ("CoSENTLoss", Needs::RankedScores, Sampler::Random),
    ] {
        let objective = objective(loss, json!({}));
        assert_eq!((objective.needs(), objective.sampler()), (needs, sampler));
    }
    assert!(loss::names().contains(&"NTXentLoss") && miner::names().contains(&"BatchHardMiner"));
}

#[test]
fn a_layout_that_does_not_fit_is_refused() {
    let (device, parameters) = (Cpu::F32, Parameters::default());
    let refused = |loss: &str, columns: Vec<usize>, labels: usize, scores: Option<Vec<f32>>| {
        let mut tape = Tape::recording(&device, &parameters);
        let x = tape.leaf(Tensor::full(&[4, 2], 1.0));
        let layout = BatchLayout { columns, labels: vec![0; labels], scores, ..Default::default() };
        objective(loss, json!({})).loss(&mut tape, &x, &layout).unwrap_err().to_string()
    };
    assert!(refused("SupConLoss", vec![4], 3, None).contains("4 rows"));
    assert!(refused("SupConLoss", vec![3], 4, None).contains("4 rows"));
    assert!(refused("MultipleNegativesRankingLoss", vec![4], 4, None).contains("column"));
    assert!(refused("MultipleNegativesRankingLoss", vec![1, 3], 4, None).contains("[1, 3]"));
    assert!(refused("CoSENTLoss", vec![2, 2], 4, None).contains("2 scores"));
    assert!(refused("CosineSimilarityLoss", vec![2, 2], 4, Some(vec![0.0])).contains("2 scores"));
}

#[test]
fn unknown_names_and_options_are_refused_with_the_nearest_known_one() {
    let message = |loss: &str, options: Value, miner: Option<&str>, miner_options: Value| {
        Objective::new(loss, &object(&options), miner, &object(&miner_options)).unwrap_err().to_string()
    };
    let loss = |name: &str, options: Value| message(name, options, None, json!({}));
    let mine = |name: &str, options: Value| message("TripletMarginLoss", json!({}), Some(name), options);
    let holds = |message: String, parts: &[&str]| {
        parts.iter().for_each(|part| assert!(message.contains(part), "no `{part}` in: {message}"));
    };
    holds(loss("TripletMarginLos", json!({})), &["`loss`", "did you mean `TripletMarginLoss`?"]);
    holds(loss("GenericPairLoss", json!({})), &["`GenericPairLoss`", "base class"]);
    holds(loss("CrossBatchMemory", json!({})), &["expected the loss within this one"]);
    holds(mine("TripletMarginMinr", json!({})), &["`miner`", "did you mean `TripletMarginMiner`?"]);
    holds(mine("BaseTupleMiner", json!({})), &["base class"]);
    holds(
        loss(
            "TripletMarginLoss",
            json!({"margn": 0.1, "swap": "x", "distance": "cosin", "reducer": {"name": "mean", "low": 1}}),
        ),
        &[
            "`loss_options.margn`: unknown option, did you mean `margin`?",
            "`loss_options.swap`",
            "did you mean `cosine`?",
            "no option `low`",
        ],
    );
    holds(loss("TripletMarginLoss", json!({"reducer": "threshold"})), &["`low`, `high` or both"]);
    holds(loss("TripletMarginLoss", json!({"triplets_per_anchor": 0})), &["`all`"]);
    holds(loss("NTXentLoss", json!({"temperature": 0})), &["loss_options.temperature", "greater than 0"]);
    const MNRL: &str = "MultipleNegativesRankingLoss";
    holds(loss(MNRL, json!({"scale": 20, "temperature": 0.05})), &["one of the two"]);
    holds(loss(MNRL, json!({"hardness_strength": -1})), &["loss_options.hardness_strength", "at least 0"]);
    holds(loss(MNRL, json!({"directions": "doc_to_query"})), &["`query_to_doc` is always needed"]);
    holds(loss(MNRL, json!({"directions": "query_to_docs"})), &["did you mean `query_to_doc`?"]);
    let both = json!({"directions": "query_to_doc+doc_to_doc", "partition_mode": "per_direction"});
    holds(loss(MNRL, both), &["lack the positive"]);
    holds(
        mine("TripletMarginMiner", json!({"type_of_triplets": "soft"})),
        &["miner_options.type_of_triplets", "semihard"],
    );
    holds(
        mine("BatchEasyHardMiner", json!({"pos_strategy": "semihard", "allowed_neg_range": [2, 1]})),
        &["miner_options.neg_strategy", "miner_options.allowed_neg_range"],
    );
    holds(
        message("NTXLos", json!({}), Some("BatchHardMinr"), json!({})),
        &["`loss`", "did you mean `BatchHardMiner`?"],
    );
    holds(message(MNRL, json!({}), Some("BatchHardMiner"), json!({})), &["`miner`", "leave it out"]);
    holds(message("SupConLoss", json!({}), None, json!({"margin": 1})), &["without a miner"]);
}

/// Cosines of two rows of four numbers each.
fn cosine(x: &[f64], i: usize, j: usize) -> f64 {
    let rows = x.as_chunks::<4>().0;
    // Written out: it is called a hundred million times, and tests are compiled fast, not optimised.
    let dot = |a: &[f64; 4], b: &[f64; 4]| a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3];
    dot(&rows[i], &rows[j]) / (dot(&rows[i], &rows[i]) * dot(&rows[j], &rows[j])).sqrt()
}

#[test]
fn ranking_losses_of_more_pairs_than_one_block_holds_equal_their_formulas() {
    const PAIRS: usize = 2100;
    let numbers = |seed: f64| table(2 * PAIRS, move |row, column| (seed * (row * 4.0 + column + 1.0) * 12.9898).sin());
    let (embeddings, guide) = (numbers(1.0), numbers(1.7));
    // Some pairs are known to match others, in both blocks.
    let label = |row: usize| (row % PAIRS / if row % PAIRS < 10 || row % PAIRS > 2090 { 2 } else { 1 }) as u32;
    let layout = BatchLayout {
        columns: vec![PAIRS; 2],
        labels: (0..2 * PAIRS).map(label).collect(),
        guide: Some(Tensor::from_vec(guide.clone(), &[2 * PAIRS, 4]).unwrap()),
        ..Default::default()
    };
    let exact = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
    let guide = exact(&guide);
    let differ = |i: usize, j: usize| label(i) != label(j);
    // The mean over the pairs of ln sum over candidates - own, every row `(from + i)` among the rows `to`.
    let ranked = |x: &[f64], scale: f64, sides: &[(usize, usize)], stands: &dyn Fn(usize, usize, usize) -> bool| {
        let losses = (0..PAIRS).map(|i| {
            let candidates = sides.iter().flat_map(|&(from, to)| (to..to + PAIRS).map(move |row| (from + i, row)));
            let terms = candidates.filter(|&(from, to)| stands(i, from, to));
            let sum: f64 = terms.map(|(from, to)| (scale * cosine(x, from, to)).exp()).sum();
            sum.ln() - scale * cosine(x, i, PAIRS + i)
        });
        losses.sum::<f64>() / PAIRS as f64
    };
    let own_or_differs = |_: usize, from: usize, to: usize| from % PAIRS == to % PAIRS || differ(from, to);
    let survives = |i: usize, from: usize, to: usize| {
        let own = from == i && to == PAIRS + i;
        own || differ(from, to) && cosine(&guide, from, to) <= cosine(&guide, i, PAIRS + i)
    };
    let temperature = 1.0f64 / 0.07;
    let sigmoid = |x: &[f64]| {
        let softplus = |z: f64| z.max(0.0) + (-z.abs()).exp().ln_1p();
        let pairs = (0..PAIRS).flat_map(|i| (0..PAIRS).map(move |j| (i, j)));
        let terms = pairs.filter(|&(i, j)| i == j || differ(i, j)).map(|(i, j)| {
            let z = 10.0 * cosine(x, i, PAIRS + j) - 10.0;
            softplus(if i == j { -z } else { z })
        });
        terms.sum::<f64>() / PAIRS as f64
    };
    type Formula<'a> = Box<dyn Fn(&[f64]) -> f64 + 'a>;
    let cases: [(&str, Value, Formula<'_>); 4] = [
        ("MultipleNegativesRankingLoss", json!({}), Box::new(|x| ranked(x, 20.0, &[(0, PAIRS)], &own_or_differs))),
        (
            "ClipLoss",
            json!({}),
            Box::new(|x| {
                let there = ranked(x, temperature, &[(0, PAIRS)], &own_or_differs);
                (there + ranked(x, temperature, &[(PAIRS, 0)], &own_or_differs)) / 2.0
            }),
        ),
        ("SigLipLoss", json!({}), Box::new(sigmoid)),
        (
            "GISTEmbedLoss",
            json!({ "temperature": 0.1 }),
            Box::new(|x| ranked(x, 10.0, &[(0, PAIRS), (0, 0), (PAIRS, PAIRS)], &survives)),
        ),
    ];
    for (name, options, formula) in cases {
        let mut objective = objective(name, options);
        objective.prepare(Sizes { dimension: 4, classes: 0, layers: 0 }, 1).unwrap();
        equals(name, &objective, &embeddings, &layout, |x, _| formula(x));
    }
}

/// That an objective has the value of a formula and falls as that does, moved against the gradient. The formula is also told where
/// it began.
fn equals(
    what: &str,
    objective: &Objective,
    embeddings: &[f32],
    layout: &BatchLayout,
    formula: impl Fn(&[f64], &[f64]) -> f64,
) {
    let (value, gradient) = evaluate(objective, embeddings, layout);
    let x: Vec<f64> = embeddings.iter().map(|&x| f64::from(x)).collect();
    let expected = formula(&x, &x);
    assert!((value - expected).abs() < 2e-6 * expected, "{what}: got {value}, expected {expected}");
    let moved = |step: f64| {
        let other: Vec<f64> = x.iter().zip(&gradient).map(|(x, g)| x + step * g.signum()).collect();
        formula(&other, &x)
    };
    let (slope, found) = ((moved(1e-5) - moved(-1e-5)) / 2e-5, gradient.iter().map(|g| g.abs()).sum::<f64>());
    assert!((slope - found).abs() < 1e-4 * found, "{what}: the gradient falls by {found}, the formula by {slope}");
}

#[test]
fn triplets_of_more_rows_than_one_block_holds_equal_their_formula() {
    const ROWS: usize = 2100;
    let embeddings = table(ROWS, |row, column| ((row * 4.0 + column) * 12.9898).sin());
    // Classes of three, so that some lie in both blocks.
    let layout = BatchLayout::labelled(&(0..ROWS as u32).map(|row| row % 700).collect::<Vec<_>>());
    let apart = |x: &[f64], i: usize, j: usize| (2.0 - 2.0 * cosine(x, i, j)).max(0.0).sqrt();
    // The mean over the triplets that have 0 < loss at `first` and that the miner chooses there: d_an - d_ap at most `most`.
    let formula = |x: &[f64], first: &[f64], most: f64| {
        let (mut sum, mut count) = (0.0, 0);
        for a in 0..ROWS {
            let distances: Vec<(f64, f64)> = (0..ROWS).map(|n| (apart(x, a, n), apart(first, a, n))).collect();
            for p in [(a + 700) % ROWS, (a + 1400) % ROWS] {
                for n in (0..ROWS).filter(|n| n % 700 != a % 700) {
                    let farther = distances[n].1 - distances[p].1;
                    if farther < 0.05 && farther <= most {
                        sum += distances[p].0 - distances[n].0 + 0.05;
                        count += 1;
                    }
                }
            }
        }
        sum / f64::from(count)
    };
    for (miner, most) in [(None, f64::INFINITY), (Some("TripletMarginMiner"), -0.02)] {
        let options = if miner.is_some() { object(&json!({ "margin": most })) } else { Options::new() };
        let objective = Objective::new("TripletMarginLoss", &Options::new(), miner, &options).unwrap();
        equals(&format!("{miner:?}"), &objective, &embeddings, &layout, |x, first| formula(x, first, most));
    }
}

#[test]
fn classes_of_more_rows_than_one_block_holds_equal_their_formulas() {
    let embeddings = |rows: usize| table(rows, |row, column| ((row * 4.0 + column) * 12.9898).sin());
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();

    // Classes of three, whose rows stand apart; one row is alone in its class.
    const ANCHORS: usize = 1501;
    let label = |row: usize| if row == 1500 { 500 } else { row % 500 };
    let layout = BatchLayout::labelled(&(0..ANCHORS).map(|row| label(row) as u32).collect::<Vec<_>>());
    let tangent = 40f64.to_radians().tan().powi(2);
    let angular = |x: &[f64], _: &[f64]| {
        let row = |i: usize| &x[4 * i..4 * i + 4];
        let length = |i: usize| dot(row(i), row(i)).sqrt();
        let (mut sum, mut count) = (0.0, 0);
        for a in 0..ANCHORS {
            for p in (0..ANCHORS).filter(|&p| p != a && label(p) == label(a)) {
                let toward: Vec<f64> = (0..4).map(|d| row(a)[d] / length(a) + row(p)[d] / length(p)).collect();
                let exponent =
                    |n: usize| 4.0 * tangent * dot(&toward, row(n)) - 2.0 * (1.0 + tangent) * cosine(x, a, p);
                let others = (0..ANCHORS).filter(|&n| label(n) != label(a));
                sum += others.map(|n| exponent(n).exp()).sum::<f64>().ln_1p();
                count += 1;
            }
        }
        sum / f64::from(count)
    };
    equals("AngularLoss", &objective("AngularLoss", json!({})), &embeddings(ANCHORS), &layout, angular);

    // Classes of two, and one row that is alone.
    const ROWS: usize = 3001;
    const CLASSES: usize = 1501;
    let layout = BatchLayout::labelled(&(0..ROWS).map(|row| (row % CLASSES) as u32).collect::<Vec<_>>());
    let apart = |a: &[f64], b: &[f64]| {
        let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
        (2.0 - 2.0 * cosine).max(0.0).sqrt()
    };
    let centroids = |x: &[f64], _: &[f64]| {
        let row = |i: usize| &x[4 * i..4 * i + 4];
        let twin = |i: usize| if i < CLASSES { i + CLASSES } else { i - CLASSES };
        let centre = |class: usize| -> Vec<f64> {
            match twin(class) < ROWS {
                true => (0..4).map(|d| (row(class)[d] + row(twin(class))[d]) / 2.0).collect(),
                false => row(class).to_vec(),
            }
        };
        let centres: Vec<Vec<f64>> = (0..CLASSES).map(centre).collect();
        let (mut sum, mut count) = (0.0, 0);
        for i in (0..ROWS).filter(|&i| twin(i) < ROWS) {
            let own = apart(row(i), row(twin(i)));
            for class in (0..CLASSES).filter(|&class| class != i % CLASSES) {
                sum += (own - apart(row(i), &centres[class]) + 0.05).max(0.0);
                count += 1;
            }
        }
        sum / f64::from(count)
    };
    let objective = objective("CentroidTripletLoss", json!({ "reducer": "mean" }));
    equals("CentroidTripletLoss", &objective, &embeddings(ROWS), &layout, centroids);
}
