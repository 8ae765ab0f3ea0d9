//! Losses with parameters or memory, wrappers and regularisers against pytorch-metric-learning, sentence-transformers and
//! open_clip's formulas, whose float64 numbers `golden/objectives_class.py` wrote, and what those leave open.
#![cfg(feature = "engine")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, too, fail by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use engine::{Cpu, Gradients, Parameters, Tape, Tensor};
use finetuner::objective::loss::SubCenterArcFaceLoss;
use finetuner::objective::{BatchLayout, Objective, Sampler, Sizes};
use finetuner::spec::Options;
use serde_json::{Value, json};

struct Golden {
    document: Value,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f64>)>,
}

impl Golden {
    fn read() -> Self {
        let read =
            |name: &str| std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)).unwrap();
        let bytes = read("objectives_class.safetensors");
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let numbers = |data: &[u8]| data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect();
        let tensors = tensors
            .iter()
            .map(|(name, view)| (name.to_owned(), (view.shape().to_vec(), numbers(view.data()))))
            .collect();
        Golden { document: serde_json::from_slice(&read("objectives_class.json")).unwrap(), tensors }
    }

    fn tensor(&self, name: &str) -> Tensor {
        let (shape, data) = self.tensors.get(name).unwrap_or_else(|| panic!("{name}"));
        Tensor::from_vec(data.iter().map(|&x| x as f32).collect(), shape).unwrap()
    }

    fn labels(&self, input: &str) -> Vec<u32> {
        serde_json::from_value(self.document["inputs"][input]["labels"].clone()).unwrap()
    }

    /// The largest difference from a golden tensor, beside its largest element.
    fn difference(&self, name: &str, got: &[f32]) -> f64 {
        let expected = &self.tensors[name].1;
        assert_eq!(got.len(), expected.len(), "{name}");
        assert!(got.iter().all(|got| got.is_finite()), "{name}");
        let largest = expected.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
        let apart = got.iter().zip(expected).fold(0.0f64, |apart, (got, x)| apart.max((f64::from(*got) - x).abs()));
        if largest == 0.0 { apart } else { apart / largest }
    }
}

fn object(value: &Value) -> Options {
    value.as_object().cloned().unwrap_or_default()
}

fn objective(loss: &str, options: &Value, sizes: (usize, usize)) -> Objective {
    let mut objective = Objective::new(loss, &object(options), None, &Options::new()).unwrap();
    objective.prepare(Sizes { dimension: sizes.0, classes: sizes.1, ..Sizes::default() }, 1).unwrap();
    objective
}

/// Value, gradient of the embeddings and of the loss's own parameters; memories are kept if asked for.
fn evaluate(objective: &mut Objective, x: &Tensor, layout: &BatchLayout, step: bool) -> (f64, Vec<f32>, Vec<Vec<f32>>) {
    let parameters = Parameters::default();
    let mut tape = Tape::recording(&Cpu::F32, &parameters);
    let leaf = tape.leaf(x.clone());
    let computed = objective.compute(&mut tape, &leaf, layout).unwrap();
    assert_eq!(computed.loss.value().shape(), [1]);
    let value = f64::from(computed.loss.value().item());
    let mut leaves = tape.backward(&computed.loss, Tensor::scalar(1.0), &mut Gradients::new(&parameters)).unwrap();
    let gradient = leaves.take(&leaf).map_or(vec![0.0; x.len()], |gradient| gradient.data().to_vec());
    let own = computed.own_gradients(&mut leaves);
    let own = own.iter().map(|gradient| gradient.map_or(Vec::new(), |gradient| gradient.data().to_vec())).collect();
    if step {
        objective.remember(computed.into_remembered());
    }
    (value, gradient, own)
}

fn set(objective: &mut Objective, index: usize, value: Tensor) {
    let parameter = objective.parameters_mut().iter_mut().nth(index).unwrap();
    assert_eq!(parameter.value.shape(), value.shape(), "{}", parameter.name);
    parameter.value = value;
}

fn labelled(labels: Vec<u32>) -> BatchLayout {
    BatchLayout { columns: vec![labels.len()], labels, ..Default::default() }
}

fn pairs(count: usize) -> BatchLayout {
    BatchLayout {
        columns: vec![count; 2],
        labels: (0..count as u32).chain(0..count as u32).collect(),
        ..Default::default()
    }
}

fn stacked(parts: &[Tensor]) -> Tensor {
    let data: Vec<f32> = parts.iter().flat_map(|part| part.data().iter().copied()).collect();
    Tensor::from_vec(data, &[parts.iter().map(Tensor::rows).sum(), parts[0].columns()]).unwrap()
}

#[test]
fn values_and_gradients_of_embeddings_and_parameters_equal_the_references() {
    let golden = Golden::read();
    let (mut failures, mut worst) = (Vec::new(), 0.0f64);
    let cases = golden.document["cases"].as_array().unwrap();
    for case in cases {
        let text = |key: &str| case[key].as_str().unwrap();
        let (name, input, loss) = (text("name"), text("input"), text("loss"));
        let columns: Vec<&str> = case["columns"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
        let x: Vec<Tensor> = columns.iter().map(|column| golden.tensor(&format!("input.{input}.{column}"))).collect();
        let rows = x[0].rows();
        let layout = if columns.len() == 1 { labelled(golden.labels(input)) } else { pairs(rows) };
        let miner = case["miner"]
            .is_object()
            .then(|| (case["miner"]["name"].as_str().unwrap(), object(&case["miner"]["options"])));
        let (miner, miner_options) = miner.map_or((None, Options::new()), |(name, options)| (Some(name), options));
        let mut objective = Objective::new(loss, &object(&case["loss_options"]), miner, &miner_options)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let classes = if input == "waves" { 3 } else { 6 };
        objective.prepare(Sizes { dimension: x[0].columns(), classes, ..Sizes::default() }, 1).unwrap();
        let keys: Vec<&str> = case["parameters"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
        for (index, key) in keys.iter().enumerate() {
            let start = format!("{name}.start.{key}");
            let start = if golden.tensors.contains_key(&start) { start } else { format!("input.{input}.{key}") };
            set(&mut objective, index, golden.tensor(&start));
        }
        let (value, gradient, own) = evaluate(&mut objective, &stacked(&x), &layout, false);
        let expected = case["value"].as_f64().unwrap();
        assert!(value.is_finite(), "{name}");
        let mut error = if expected == 0.0 { value.abs() } else { (value / expected - 1.0).abs() };
        for (column, gradient) in columns.iter().zip(gradient.chunks(x[0].len())) {
            error = error.max(golden.difference(&format!("{name}.gradient.{column}"), gradient));
        }
        for (key, gradient) in keys.iter().zip(&own) {
            error = error.max(golden.difference(&format!("{name}.parameter.{key}"), gradient));
        }
        worst = worst.max(error);
        if error.is_nan() || error > 1e-6 {
            failures.push(format!("{name}: value {value} of {expected}, error {error:.1e}"));
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
    assert!(cases.len() > 130, "{} cases", cases.len());
    println!("{} cases, worst error {worst:.1e}", cases.len());
}

#[test]
fn memories_go_on_from_batch_to_batch_as_in_the_reference() {
    let golden = Golden::read();
    let (x, labels) = (golden.tensor("input.random.x"), golden.labels("random"));
    let mut failures = Vec::new();
    for case in golden.document["sequences"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let mut objective = objective(case["loss"].as_str().unwrap(), &case["loss_options"], (8, 6));
        assert!(!objective.learns());
        for (step, rows) in case["rows"].as_array().unwrap().iter().enumerate() {
            let rows: Vec<usize> = serde_json::from_value(rows.clone()).unwrap();
            let data = rows.iter().flat_map(|&row| x.data()[row * 8..row * 8 + 8].to_vec()).collect();
            let batch = Tensor::from_vec(data, &[rows.len(), 8]).unwrap();
            let layout = labelled(rows.iter().map(|&row| labels[row]).collect());
            // Looking does not change what is remembered.
            let looked = evaluate(&mut objective, &batch, &layout, false).0;
            let (value, gradient, _) = evaluate(&mut objective, &batch, &layout, true);
            assert_eq!(value, looked);
            let expected = case["values"][step].as_f64().unwrap();
            let error = if expected == 0.0 { value.abs() } else { (value / expected - 1.0).abs() };
            let error = error.max(golden.difference(&format!("{name}.gradient.{step}"), &gradient));
            if error.is_nan() || error > 1e-6 {
                failures.push(format!("{name} step {step}: {value} of {expected}, error {error:.1e}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn waves(rows: usize, formula: impl Fn(f64, f64) -> f64) -> Tensor {
    let value = |k: usize| formula((k / 4 + 1) as f64, (k % 4 + 1) as f64) as f32;
    Tensor::from_vec((0..rows * 4).map(value).collect(), &[rows, 4]).unwrap()
}

#[test]
fn published_values_follow_from_formulas_alone() {
    let x = waves(8, |i, j| (0.9 * i + 1.7 * j + 0.3 * i * j).sin());
    let u = waves(8, |i, j| (0.5 * i + 1.1 * j + 0.2 * i * j).cos());
    let w = |count| waves(count, |c, j| (0.3 * c + 0.8 * j + 0.5 * c * j).cos());
    let classes = labelled(vec![0, 0, 1, 1, 2, 2, 0, 1]);
    let two = json!({"centers_per_class": 2});
    let mnrl = json!({"loss": "MultipleNegativesRankingLoss", "matryoshka_dims": "4+2"});
    let mean = json!({"second_moment_weight": 0});
    let second = json!({"mean_weight": 0});
    let cases = [
        ("ArcFaceLoss", json!({}), 3, 73.781386531, 21.666345136),
        ("CosFaceLoss", json!({}), 3, 71.179868590, 22.776797547),
        ("SphereFaceLoss", json!({}), 3, 5.581954928, 1.843180909),
        ("LargeMarginSoftmaxLoss", json!({}), 3, 7.373138136, 2.551928955),
        ("NormalizedSoftmaxLoss", json!({}), 3, 15.474788200, 6.580888923),
        ("ProxyNCALoss", json!({}), 3, 1.977202152, 0.553703065),
        ("ProxyAnchorLoss", json!({}), 3, 50.576693578, 18.891994440),
        ("SoftTripleLoss", two, 6, 4.758103969, 5.784063760),
        ("SubCenterArcFaceLoss", json!({"sub_centers": 2}), 6, 33.013221416, 26.858291560),
        ("GlobalOrthogonalRegularizationLoss", mean, 0, 0.017430014, 0.017573281),
        ("GlobalOrthogonalRegularizationLoss", second, 0, 0.129117657, 0.106149447),
        ("ClipLoss", json!({}), 0, 13.134413530, 3.727597506),
        ("SigLipLoss", json!({}), 0, 10.753409407, 2.472705796),
        ("MatryoshkaLoss", mnrl, 0, 38.252355411, 12.403191065),
    ];
    for (loss, options, vectors, value, norm) in cases {
        let mut objective = objective(loss, &options, (4, 3));
        if vectors > 0 {
            set(&mut objective, 0, w(vectors));
        }
        let two_sides = ["ClipLoss", "SigLipLoss", "MatryoshkaLoss"].contains(&loss);
        let (rows, layout) =
            if two_sides { (stacked(&[x.clone(), u.clone()]), pairs(8)) } else { (x.clone(), classes.clone()) };
        let (got, gradient, _) = evaluate(&mut objective, &rows, &layout, false);
        let got_norm = gradient[..32].iter().map(|g| f64::from(g * g)).sum::<f64>().sqrt();
        assert!((got / value - 1.0).abs() < 1e-6, "{loss} {options}: {got}, expected {value}");
        assert!((got_norm / norm - 1.0).abs() < 1e-6, "{loss} {options}: gradient {got_norm}, expected {norm}");
    }
}

const CLASS_LOSSES: [&str; 10] = [
    "ArcFaceLoss",
    "CosFaceLoss",
    "SphereFaceLoss",
    "LargeMarginSoftmaxLoss",
    "SubCenterArcFaceLoss",
    "NormalizedSoftmaxLoss",
    "ProxyAnchorLoss",
    "ProxyNCALoss",
    "SoftTripleLoss",
    "P2SGradLoss",
];

#[test]
fn gradients_of_parameters_are_those_of_finite_differences() {
    let golden = Golden::read();
    let (x, u) = (golden.tensor("input.waves.x"), golden.tensor("input.waves.u"));
    let wrapped = [
        ("MatryoshkaLoss", json!({"loss": "NormalizedSoftmaxLoss", "matryoshka_dims": [4, 2]})),
        ("MultipleLosses", json!({"losses": "NormalizedSoftmaxLoss+ProxyNCALoss", "weights": [0.5, 2]})),
        ("ClipLoss", json!({})),
        ("SigLipLoss", json!({})),
    ];
    let plain = CLASS_LOSSES.map(|loss| (loss, json!({})));
    for (loss, options) in plain.into_iter().chain(wrapped) {
        let mut objective = objective(loss, &options, (4, 3));
        let sides = loss.ends_with("LipLoss");
        let (rows, layout) = match sides || loss == "ClipLoss" {
            true => (stacked(&[x.clone(), u.clone()]), pairs(8)),
            false => (x.clone(), labelled(golden.labels("waves"))),
        };
        let (_, _, own) = evaluate(&mut objective, &rows, &layout, false);
        assert!(!own.is_empty(), "{loss}");
        for (index, gradient) in own.iter().enumerate() {
            let start = objective.parameters().iter().nth(index).unwrap().value.clone();
            let largest = gradient.iter().fold(0.0f32, |largest, g| largest.max(g.abs()));
            for place in 0..gradient.len() {
                let step = 1e-3;
                let mut at = |shift: f32| {
                    let mut moved = start.clone();
                    moved.data_mut()[place] += shift;
                    let by = f64::from(moved.data()[place]) - f64::from(start.data()[place]);
                    set(&mut objective, index, moved);
                    (evaluate(&mut objective, &rows, &layout, false).0, by)
                };
                let ((high, up), (low, down)) = (at(step), at(-step));
                let slope = (high - low) / (up - down);
                let apart = (slope - f64::from(gradient[place])).abs();
                // P2SGrad takes the length of its vectors for given.
                let tolerance = 0.02 * f64::from(largest.max(0.1));
                assert!(apart < tolerance, "{loss} {index}[{place}]: {slope}, gradient {}", gradient[place]);
            }
            set(&mut objective, index, start);
        }
    }
}

#[test]
fn extremes_and_batches_of_one_class_stay_finite() {
    let golden = Golden::read();
    let mut x = golden.tensor("input.waves.x");
    for (row, values) in x.data_mut().chunks_mut(4).enumerate() {
        let scale = [1e-20, 0.0, 1e4, 1.0, 1e-3, 1.0, 1e6, 1.0][row];
        values.iter_mut().for_each(|value| *value *= scale);
    }
    for loss in CLASS_LOSSES {
        for labels in [vec![1; 8], golden.labels("waves")] {
            let mut objective = objective(loss, &json!({}), (4, 3));
            // A vector that points exactly where a row does, and one exactly away from it.
            let mut vectors = objective.parameters().iter().next().unwrap().value.clone();
            if loss != "P2SGradLoss" {
                vectors.data_mut()[..4].copy_from_slice(&x.data()[12..16]);
                let away: Vec<f32> = x.data()[12..16].iter().map(|x| -x).collect();
                vectors.data_mut()[4..8].copy_from_slice(&away);
            }
            set(&mut objective, 0, vectors);
            let (value, gradient, own) = evaluate(&mut objective, &x, &labelled(labels), false);
            let finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
            assert!(value.is_finite() && finite(&gradient) && own.iter().all(|own| finite(own)), "{loss}: {value}");
        }
    }
    // Scales of 100 and cosines of both signs.
    let sides = stacked(&[golden.tensor("input.waves.x"), golden.tensor("input.waves.x")]);
    for loss in ["ClipLoss", "SigLipLoss"] {
        let mut objective = objective(loss, &json!({"init_logit_scale": 4.605}), (4, 0));
        let (value, gradient, own) = evaluate(&mut objective, &sides, &pairs(8), false);
        assert!(value.is_finite() && gradient.iter().chain(&own[0]).all(|g| g.is_finite()), "{loss}: {value}");
    }
}

#[test]
fn what_holds_nothing_to_learn_from_gives_zero() {
    let x = waves(6, |i, j| (i * j).sin());
    let options = [
        ("DynamicSoftMarginLoss", json!({})),
        ("CrossBatchMemory", json!({"loss": "TripletMarginLoss"})),
        ("CrossBatchMemory", json!({"loss": "NTXentLoss"})),
        ("MultipleLosses", json!({"losses": "TripletMarginLoss+SupConLoss"})),
        ("MatryoshkaLoss", json!({"loss": "TripletMarginLoss", "matryoshka_dims": [4, 2]})),
    ];
    for (loss, options) in options {
        for labels in [vec![3; 6], (0..6).collect()] {
            if loss == "CrossBatchMemory" && options["loss"] == "NTXentLoss" && labels[0] == 3 {
                continue; // positives without negatives: ln 1, not a missing pair
            }
            let mut objective = objective(loss, &options, (4, 6));
            let (value, gradient, _) = evaluate(&mut objective, &x, &labelled(labels), true);
            assert_eq!((value, gradient), (0.0, vec![0.0; 24]), "{loss} {options}");
        }
    }
}

#[test]
fn known_matches_are_no_negatives_of_image_text_losses() {
    // Pairs 0 and 2 match: to pair 0 the other side of pair 2 matters as little as if it were absent.
    let x = waves(6, |i, j| (0.7 * i + 1.3 * j + 0.4 * i * j).sin());
    let labels = vec![0, 1, 0, 0, 1, 0];
    let layout = BatchLayout { columns: vec![3, 3], labels, ..Default::default() };
    for loss in ["ClipLoss", "SigLipLoss"] {
        let mut objective = objective(loss, &json!({}), (4, 0));
        let (value, ..) = evaluate(&mut objective, &x, &layout, false);
        let cosine = |a: usize, b: usize| {
            let row = |r: usize| x.data()[4 * r..4 * r + 4].iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let (a, b) = (row(a), row(3 + b));
            dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
        };
        let compared = |i: usize, j: usize| i == j || (i == 1) != (j == 1);
        let expected = match loss {
            "ClipLoss" => {
                let z = |i: usize, j: usize| cosine(i, j) / 0.07;
                let row =
                    |i: usize| (0..3).filter(|&j| compared(i, j)).map(|j| z(i, j).exp()).sum::<f64>().ln() - z(i, i);
                let column =
                    |i: usize| (0..3).filter(|&j| compared(i, j)).map(|j| z(j, i).exp()).sum::<f64>().ln() - z(i, i);
                (0..3).map(|i| (row(i) + column(i)) / 6.0).sum::<f64>()
            }
            _ => {
                let z = |i: usize, j: usize| (10.0 * cosine(i, j) - 10.0) * if i == j { -1.0 } else { 1.0 };
                let all = (0..3).flat_map(|i| (0..3).map(move |j| (i, j))).filter(|&(i, j)| compared(i, j));
                all.map(|(i, j)| z(i, j).exp().ln_1p()).sum::<f64>() / 3.0
            }
        };
        assert!((value / expected - 1.0).abs() < 1e-6, "{loss}: {value}, expected {expected}");
    }
}

#[test]
fn cut_vectors_meet_cut_embeddings() {
    let golden = Golden::read();
    let (x, w, layout) =
        (golden.tensor("input.random.x"), golden.tensor("input.random.w"), labelled(golden.labels("random")));
    let narrow = |tensor: &Tensor, width: usize| {
        let data = tensor.data().chunks(8).flat_map(|row| row[..width].to_vec()).collect();
        Tensor::from_vec(data, &[tensor.rows(), width]).unwrap()
    };
    let options = json!({"loss": "ArcFaceLoss", "matryoshka_dims": [2, 8, 4], "matryoshka_weights": [3, 1, 2]});
    let mut all = objective("MatryoshkaLoss", &options, (8, 6));
    set(&mut all, 0, w.clone());
    let (value, _, own) = evaluate(&mut all, &x, &layout, false);
    let mut expected = 0.0;
    for (width, weight) in [(2, 3.0), (8, 1.0), (4, 2.0)] {
        let mut alone = objective("ArcFaceLoss", &json!({}), (width, 6));
        set(&mut alone, 0, narrow(&w, width));
        expected += weight * evaluate(&mut alone, &narrow(&x, width), &layout, false).0;
    }
    assert!((value / expected - 1.0).abs() < 1e-6, "{value} {expected}");
    assert_eq!(own[0].len(), 48);

    // Drawn widths depend on the batch, and on it alone.
    let options = json!({"loss": "SupConLoss", "matryoshka_dims": "8+4+2", "n_dims_per_step": 1});
    let mut drawn = objective("MatryoshkaLoss", &options, (8, 6));
    let values: Vec<f64> = (0..12)
        .map(|shift| {
            let mut moved = x.clone();
            moved.data_mut()[0] += shift as f32 / 1000.0;
            let value = evaluate(&mut drawn, &moved, &layout, false).0;
            assert_eq!(value, evaluate(&mut drawn, &moved, &layout, false).0);
            value
        })
        .collect();
    let (least, most) = (values.iter().copied().fold(f64::MAX, f64::min), values.iter().copied().fold(0.0, f64::max));
    assert!(most > 1.05 * least, "{values:?}");
}

#[test]
fn items_far_from_their_class_are_found() {
    let golden = Golden::read();
    let loss = SubCenterArcFaceLoss { sub_centers: 2, ..Default::default() };
    let labels = golden.labels("random");
    let (x, vectors) = (golden.tensor("input.random.x"), golden.tensor("input.random.w2"));
    let found = loss.outliers(&Cpu::F32, &x, &labels, &vectors, 60.0).unwrap();
    let expected: Vec<usize> = serde_json::from_value(golden.document["outliers"].clone()).unwrap();
    assert_eq!(found.rows, expected);
    assert!(golden.difference("outliers.dominant", found.dominant.data()) == 0.0);
    assert!(loss.outliers(&Cpu::F32, &x, &labels[1..], &vectors, 60.0).is_err());
}

#[test]
fn parameters_start_as_the_references_do() {
    let deviation = |loss: &str| {
        let objective = objective(loss, &json!({}), (256, 40));
        let value = objective.parameters().iter().next().unwrap().value.clone();
        let mean = value.data().iter().map(|&x| f64::from(x)).sum::<f64>() / value.len() as f64;
        let variance = value.data().iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / value.len() as f64;
        assert!(mean.abs() < 0.05, "{loss}: {mean}");
        (value.shape().to_vec(), variance.sqrt())
    };
    for (loss, rows, expected) in [
        ("ArcFaceLoss", 40, 1.0),
        ("SubCenterArcFaceLoss", 120, 1.0),
        ("ProxyNCALoss", 40, 1.0),
        ("ProxyAnchorLoss", 40, (2.0f64 / 40.0).sqrt()),
        ("SoftTripleLoss", 400, 1.0 / (3.0f64 * 400.0).sqrt()),
        ("P2SGradLoss", 40, 1.0 / 16.0),
    ] {
        let (shape, found) = deviation(loss);
        assert_eq!(shape, [rows, 256], "{loss}");
        assert!((found / expected - 1.0).abs() < 0.03, "{loss}: {found}, expected {expected}");
    }
    let draw = |seed: u64| {
        let mut objective = Objective::new("ArcFaceLoss", &Options::new(), None, &Options::new()).unwrap();
        objective.prepare(Sizes { dimension: 4, classes: 3, ..Sizes::default() }, seed).unwrap();
        objective.parameters().iter().next().unwrap().value.data().to_vec()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn learned_numbers_stay_in_their_ranges() {
    let mut clip = objective("ClipLoss", &json!({}), (4, 0));
    set(&mut clip, 0, Tensor::scalar(9.0));
    let x = waves(4, |i, j| (i * j).sin());
    evaluate(&mut clip, &x, &pairs(2), true);
    assert_eq!(clip.parameters().iter().next().unwrap().value.item(), 100f32.ln());
    let mut units = objective("P2SGradLoss", &json!({}), (4, 2));
    set(&mut units, 0, Tensor::full(&[2, 4], 3.0));
    evaluate(&mut units, &x, &labelled(vec![0, 0, 1, 1]), true);
    assert_eq!(units.parameters().iter().next().unwrap().value.data(), [0.5; 8]);
}

#[test]
fn what_does_not_fit_is_refused_with_a_sentence() {
    let refused = |loss: &str, options: Value, miner: Option<&str>| {
        let mut objective = match Objective::new(loss, &object(&options), miner, &Options::new()) {
            Err(error) => return error.to_string(),
            Ok(objective) => objective,
        };
        objective.prepare(Sizes { dimension: 8, classes: 6, ..Sizes::default() }, 1).unwrap_err().to_string()
    };
    let arc = "ArcFaceLoss";
    for (problem, expected) in [
        (
            refused(arc, json!({"num_classes": 5}), None),
            "`loss_options.num_classes`: the training data holds 6 classes, got 5",
        ),
        (
            refused(arc, json!({"embedding_size": 4}), None),
            "`loss_options.embedding_size`: the model's embeddings have 8, got 4",
        ),
        (refused(arc, json!({"margin": 200}), None), "`loss_options.margin`: expected degrees from 0 to 180, got 200"),
        (
            refused("P2SGradLoss", json!({"descriptors_dim": 4}), None),
            "`loss_options.descriptors_dim`: the model's embeddings",
        ),
        (
            refused("P2SGradLoss", json!({}), Some("BatchHardMiner")),
            "`miner`: P2SGradLoss uses no mined pairs or triplets",
        ),
        (
            refused("ClipLoss", json!({"init_logit_scale": 5}), None),
            "`loss_options.init_logit_scale`: expected a number from 0",
        ),
        (
            refused("MatryoshkaLoss", json!({"matryoshka_dims": 8}), None),
            "`loss_options.loss`: expected the loss within",
        ),
        (
            refused("MatryoshkaLoss", json!({"loss": "SupConLos", "matryoshka_dims": 8}), None),
            "`loss_options.loss`: unknown loss `SupConLos`, did you mean `SupConLoss`?",
        ),
        (
            refused(
                "MatryoshkaLoss",
                json!({"loss": "SupConLoss", "loss_options": {"temp": 1}, "matryoshka_dims": 8}),
                None,
            ),
            "`loss_options.loss_options.temp`: unknown option",
        ),
        (
            refused("MatryoshkaLoss", json!({"loss": "SupConLoss", "matryoshka_dims": "16+8"}), None),
            "`loss_options.matryoshka_dims`: expected widths of at most the model's 8, got 16",
        ),
        (
            refused(
                "MatryoshkaLoss",
                json!({"loss": "SupConLoss", "matryoshka_dims": "8", "matryoshka_weights": [1, 2]}),
                None,
            ),
            "`loss_options.matryoshka_weights`: expected 1, one per width, got 2",
        ),
        (
            refused(
                "MatryoshkaLoss",
                json!({"loss": "CrossBatchMemory", "loss_options": {"loss": "SupConLoss"}, "matryoshka_dims": 8}),
                None,
            ),
            "`loss_options.loss`: `CrossBatchMemory` remembers batches",
        ),
        (
            refused("CrossBatchMemory", json!({"loss": arc}), None),
            "`loss_options.loss`: `ArcFaceLoss` does not compare rows",
        ),
        (
            refused("CrossBatchMemory", json!({"loss": "NTXentLoss", "miner": "BatchHard"}), None),
            "`loss_options.miner`: unknown miner `BatchHard`",
        ),
        (
            refused("SelfSupervisedLoss", json!({"loss": "CoSENTLoss"}), None),
            "`loss_options.loss`: `CoSENTLoss` does not compare",
        ),
        (refused("MultipleLosses", json!({}), None), "`loss_options.losses`: expected one loss or more"),
        (
            refused("MultipleLosses", json!({"losses": "SupConLoss+CosineSimilarityLoss"}), None),
            "`loss_options.losses`: no kind of data serves all of SupConLoss, CosineSimilarityLoss",
        ),
        (
            refused("MultipleLosses", json!({"losses": "SupConLoss+NTXentLoss", "weights": [1]}), None),
            "`loss_options.weights`: expected 2, one per loss, got 1",
        ),
        (
            refused("SupConLoss", json!({"weight_regularizer": "LpRegularizer"}), None),
            "`loss_options.weight_regularizer`: `SupConLoss` learns no vectors to regularise",
        ),
        (
            refused("SupConLoss", json!({"embedding_regularizer": "LpRegulariser"}), None),
            "`loss_options.embedding_regularizer`: unknown regularizer `LpRegulariser`, did you mean `LpRegularizer`?",
        ),
    ] {
        assert!(problem.starts_with(expected), "{problem}\nexpected: {expected}");
    }
    let sampler = |loss: &str| Objective::new(loss, &Options::new(), None, &Options::new()).unwrap().sampler();
    assert_eq!(CLASS_LOSSES.map(sampler)[..3], [Sampler::Random, Sampler::Random, Sampler::Class]);
}

#[test]
fn labels_beyond_the_classes_are_refused() {
    let objective = objective("ArcFaceLoss", &json!({"num_classes": 4}), (4, 3));
    let parameters = Parameters::default();
    let mut tape = Tape::recording(&Cpu::F32, &parameters);
    let x = tape.leaf(waves(2, |i, j| (i * j).sin()));
    let error = objective.compute(&mut tape, &x, &labelled(vec![0, 4])).unwrap_err().to_string();
    assert!(error.contains("labels below 4 classes"), "{error}");
    let unprepared = Objective::new("ArcFaceLoss", &Options::new(), None, &Options::new()).unwrap();
    let error = unprepared.compute(&mut tape, &x, &labelled(vec![0, 1])).unwrap_err().to_string();
    assert!(error.contains("not prepared"), "{error}");
}
