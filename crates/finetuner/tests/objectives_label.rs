//! The objectives that learn from labels and have no state, against pytorch-metric-learning, sentence-transformers and
//! formulas, whose float64 numbers `golden/objectives_label.py` wrote.
#![cfg(feature = "engine")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, too, fail by panicking")]

mod numbers;

use std::path::{Path, PathBuf};

use engine::{Cpu, Gradients, Parameters, Tape, Tensor};
use finetuner::objective::{BatchLayout, Masks, Objective, Sizes, miner};
use finetuner::spec::Options;
use serde_json::{Value, json};

use self::numbers::{evaluate, tensors};

fn read(name: &str) -> Vec<u8> {
    std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(Path::new(name))).unwrap()
}

fn object(value: &Value) -> Options {
    value.as_object().cloned().unwrap_or_default()
}

fn labels(inputs: &Value, case: &Value) -> Vec<u32> {
    let labels = &inputs[case["input"].as_str().unwrap()]["labels"][case["labels"].as_str().unwrap()];
    serde_json::from_value(labels.clone()).unwrap()
}

#[test]
fn losses_and_their_gradients_equal_the_reference_implementations() {
    let golden: Value = serde_json::from_slice(&read("objectives_label.json")).unwrap();
    let inputs = serde_json::from_slice::<Value>(&read("objectives.json")).unwrap()["inputs"].take();
    let (columns_of, gradients) = (tensors("objectives.safetensors"), tensors("objectives_label.safetensors"));
    let (mut failures, mut worst) = (Vec::new(), (0.0f64, 0.0f64));
    let cases = golden["losses"].as_array().unwrap();
    for case in cases {
        let (name, loss) = (case["name"].as_str().unwrap(), case["loss"].as_str().unwrap());
        let columns: Vec<String> = serde_json::from_value(case["columns"].clone()).unwrap();
        let of_one = labels(&inputs, case);
        let layout = BatchLayout {
            columns: vec![of_one.len(); columns.len()],
            labels: of_one.repeat(columns.len()),
            ..BatchLayout::default()
        };
        let miner = case["miner"].as_object().map(|miner| (miner["name"].as_str().unwrap(), object(&miner["options"])));
        let (miner, miner_options) = miner.map_or((None, Options::new()), |(name, options)| (Some(name), options));
        let objective = Objective::new(loss, &object(&case["loss_options"]), miner, &miner_options);
        let objective = objective.unwrap_or_else(|error| panic!("{name}: {error}"));
        let input = |column: &String| &columns_of[&format!("input.{}.{column}", case["input"].as_str().unwrap())];
        let embeddings: Vec<f32> = columns.iter().flat_map(|c| input(c).iter().map(|&x| x as f32)).collect();
        let (value, gradient) = evaluate(&objective, &embeddings, &layout);
        let expected = case["value"].as_f64().unwrap();
        let wanted: Vec<f64> = columns.iter().flat_map(|c| gradients[&format!("{name}.{c}")].iter().copied()).collect();
        let largest = wanted.iter().fold(0.0f64, |largest, g| g.abs().max(largest));
        let relative = |error: f64, of: f64| if of < 1e-12 { error } else { error / of };
        let value_error = relative((value - expected).abs(), expected.abs());
        let pairs = gradient.iter().zip(&wanted);
        let worse = |worst: f64, error: f64| if worst >= error { worst } else { error };
        let error = pairs.map(|(got, wanted)| (got - wanted).abs()).fold(0.0, worse);
        let gradient_error = relative(error, largest);
        worst = (worst.0.max(value_error), worst.1.max(gradient_error));
        // Not `>`: an error of NaN must fail.
        if !(value_error <= 1e-6 && gradient_error <= 1e-6) {
            let options = format!("{} {}", case["loss_options"], case["miner"]);
            failures.push(format!(
                "{name} {options}: value {value} of {expected} ({value_error:.1e}), gradient {gradient_error:.1e}"
            ));
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
    assert!(cases.len() > 400, "{} cases", cases.len());
    println!("{} cases; worst value {:.1e}, worst gradient {:.1e}", cases.len(), worst.0, worst.1);
}

#[test]
fn miners_choose_what_the_reference_implementation_chooses() {
    let golden: Value = serde_json::from_slice(&read("objectives_label.json")).unwrap();
    let inputs = serde_json::from_slice::<Value>(&read("objectives.json")).unwrap()["inputs"].take();
    let columns = tensors("objectives.safetensors");
    let cases = golden["miners"].as_array().unwrap();
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let labels = Masks::new(&labels(&inputs, case));
        let rows = labels.positives.rows();
        let x = &columns[&format!("input.{}.x", case["input"].as_str().unwrap())];
        let x = Tensor::from_vec(x.iter().map(|&x| x as f32).collect(), &[rows, x.len() / rows]).unwrap();
        let miner = miner::new(case["miner"]["name"].as_str().unwrap(), &object(&case["miner"]["options"])).unwrap();
        let mined = miner.mine_embeddings(&Cpu::F32, &x, &labels);
        let listed = |mask: &Tensor| -> Value {
            let marked = (0..rows * rows).filter(|&i| mask.data()[i] != 0.0);
            marked.map(|i| json!([i / rows, i % rows])).collect()
        };
        if case["kind"] == "triplets" {
            let triplets: Value = mined.list_triplets(&labels).iter().map(|t| json!(t)).collect();
            assert_eq!(triplets, case["triplets"], "{name}");
        } else {
            let pairs = mined.pairs(&Cpu::F32, &labels);
            assert_eq!(listed(&pairs.positives), case["positives"], "{name}");
            assert_eq!(listed(&pairs.negatives), case["negatives"], "{name}");
        }
    }
    assert!(cases.len() > 15, "{} cases", cases.len());
}

fn objective(loss: &str, options: Value) -> Objective {
    Objective::new(loss, &object(&options), None, &Options::new()).unwrap()
}

fn table(rows: usize, formula: impl Fn(f64, f64) -> f64) -> Vec<f32> {
    let value = |k: usize| formula((k / 4 + 1) as f64, (k % 4 + 1) as f64) as f32;
    (0..rows * 4).map(value).collect()
}

fn waves() -> Vec<f32> {
    table(8, |i, j| (0.9 * i + 1.7 * j + 0.3 * i * j).sin())
}

fn items(labels: Vec<u32>) -> BatchLayout {
    BatchLayout { columns: vec![labels.len()], labels, ..BatchLayout::default() }
}

#[test]
fn published_values_follow_from_formulas_alone() {
    let classes = items(vec![0, 0, 1, 1, 2, 2, 0, 1]);
    let twos = items(vec![0, 0, 1, 1, 2, 2, 3, 3]);
    let pairs = BatchLayout { columns: vec![8, 8], labels: (0..8).chain(0..8).collect(), ..BatchLayout::default() };
    let cases = [
        ("MultiSimilarityLoss", json!({}), &classes, 1.486860655, 0.599319264),
        ("CircleLoss", json!({}), &classes, 213.695517755, 85.949487114),
        ("AngularLoss", json!({}), &classes, 4.786990275, 1.646520207),
        ("LiftedStructureLoss", json!({}), &classes, 6.983260215, 1.860489672),
        ("GeneralizedLiftedStructureLoss", json!({}), &classes, 3.549816143, 0.558732333),
        ("FastAPLoss", json!({}), &classes, 0.712725492, 0.420122429),
        ("NCALoss", json!({}), &classes, 2.122265596, 1.139181315),
        ("TupletMarginLoss", json!({}), &classes, 65.996020539, 41.029074278),
        ("MarginLoss", json!({}), &classes, 0.560278322, 0.273299828),
        ("IntraPairVarianceLoss", json!({}), &classes, 0.308305108, 0.152089728),
        ("NPairsLoss", json!({}), &classes, 1.135075560, 0.791141138),
        ("ThresholdConsistentMarginLoss", json!({}), &classes, 1.497225150, 0.667334464),
        ("SignalToNoiseRatioContrastiveLoss", json!({}), &classes, 3.181667960, 1.493502855),
        ("HistogramLoss", json!({}), &classes, 0.562780318, 0.791249280),
        ("RankedListLoss", json!({"margin": 0.4, "Tn": 10}), &classes, 0.757285113, 0.455484835),
        ("PNPLoss", json!({}), &classes, 1.875949558, 3.353280635),
        ("VICRegLoss", json!({}), &pairs, 33.655247680, 7.924327074),
        ("CentroidTripletLoss", json!({}), &twos, 0.592504298, 0.602005890),
        ("BatchAllTripletLoss", json!({}), &classes, 5.281542317, 0.444248117),
        ("BatchHardTripletLoss", json!({}), &classes, 6.740829835, 0.968306061),
        ("BatchHardSoftMarginTripletLoss", json!({}), &classes, 1.925958356, 0.831571293),
        ("BatchSemiHardTripletLoss", json!({}), &classes, 4.724309832, 0.438525136),
        ("EPHN", json!({}), &classes, 8.498470901, 7.994521397),
        ("EPSHN", json!({}), &classes, 0.185564422, 1.754175387),
    ];
    let rows = [waves(), table(8, |i, j| (0.5 * i + 1.1 * j + 0.2 * i * j).cos())].concat();
    for (loss, options, layout, value, norm) in cases {
        let (got, gradient) = evaluate(&objective(loss, options.clone()), &rows[..layout.rows() * 4], layout);
        let got_norm = gradient[..32].iter().map(|g| g * g).sum::<f64>().sqrt();
        assert!((got / value - 1.0).abs() < 1e-6, "{loss} {options}: {got}, expected {value}");
        assert!((got_norm / norm - 1.0).abs() < 1e-6, "{loss} {options}: gradient {got_norm}, expected {norm}");
    }
}

#[test]
fn barlow_twins_is_what_its_authors_compute() {
    let cases: Value = serde_json::from_str(include_str!("golden/barlow_twins.json")).unwrap();
    for case in cases.as_array().unwrap() {
        let rows = case["rows"].as_u64().unwrap() as u32;
        let layout = BatchLayout {
            columns: vec![rows as usize; 2],
            labels: (0..rows).chain(0..rows).collect(),
            ..BatchLayout::default()
        };
        let first = table(rows as usize, |i, j| (0.9 * i + 1.7 * j + 0.3 * i * j).sin());
        let views = [first, table(rows as usize, |i, j| (0.5 * i + 1.1 * j + 0.2 * i * j).cos())].concat();
        let (value, gradient) = evaluate(&objective("BarlowTwinsLoss", case["options"].clone()), &views, &layout);
        let expected = case["value"].as_f64().unwrap();
        assert!((value / expected - 1.0).abs() < 1e-6, "{value}, expected {expected}");
        let expected: Vec<f64> = case["gradient"].as_array().unwrap().iter().map(|g| g.as_f64().unwrap()).collect();
        let largest = expected.iter().fold(0.0f64, |largest, g| largest.max(g.abs()));
        for (got, expected) in gradient.iter().zip(&expected) {
            assert!((got - expected).abs() < 1e-6 * largest, "{got}, expected {expected}");
        }
    }
    let refused = Objective::new("BarlowTwinsLoss", &object(&json!({"lambda": -1})), None, &Options::new());
    assert!(refused.unwrap_err().to_string().contains("lambda"));
}

/// Every loss here that compares items by label.
const LOSSES: [&str; 32] = [
    "AngularLoss",
    "BatchAllTripletLoss",
    "BatchHardSoftMarginTripletLoss",
    "BatchHardTripletLoss",
    "BatchSemiHardTripletLoss",
    "CentroidTripletLoss",
    "CircleLoss",
    "ContrastiveLoss",
    "EPHN",
    "EPSHN",
    "FastAPLoss",
    "GeneralizedLiftedStructureLoss",
    "HistogramLoss",
    "InstanceLoss",
    "IntraPairVarianceLoss",
    "LiftedStructureLoss",
    "MarginLoss",
    "MultiSimilarityLoss",
    "NCALoss",
    "NPairsLoss",
    "NTXentLoss",
    "PNPLoss",
    "RankedListLoss",
    "SiameseLoss",
    "SignalToNoiseRatioContrastiveLoss",
    "SupConLoss",
    "ThresholdConsistentMarginLoss",
    "TripletMarginLoss",
    "TupletMarginLoss",
    "finetuner.NTXentLoss",
    "finetuner.TripletLoss",
    "MarginLoss",
];
/// Those that learn from pairs of one kind alone, or from the rows themselves.
const ONE_SIDED: [&str; 9] = [
    "ContrastiveLoss",
    "GeneralizedLiftedStructureLoss",
    "InstanceLoss",
    "IntraPairVarianceLoss",
    "MultiSimilarityLoss",
    "RankedListLoss",
    "SiameseLoss",
    "SignalToNoiseRatioContrastiveLoss",
    "ThresholdConsistentMarginLoss",
];

fn needed(loss: &str) -> Value {
    if loss == "RankedListLoss" { json!({"margin": 0.4, "Tn": 10}) } else { json!({}) }
}

#[test]
fn a_batch_without_any_valid_tuple_has_loss_zero_and_zero_gradient() {
    let x = table(6, |i, j| (i * j).sin());
    for loss in LOSSES.into_iter().filter(|loss| !ONE_SIDED.contains(loss)) {
        for labels in [vec![3; 6], (0..6).collect::<Vec<_>>()] {
            // Positives of one class alone are as good as they get here, but for rounding; or there is nothing to rank.
            let (value, gradient) = evaluate(&objective(loss, needed(loss)), &x, &items(labels.clone()));
            let nothing = value.abs() < 1e-7 && gradient.iter().all(|g| g.abs() < 1e-7);
            assert!(nothing, "{loss} {labels:?}: {value} {gradient:?}");
        }
    }
    for loss in LOSSES {
        let (value, gradient) = evaluate(&objective(loss, needed(loss)), &x[..4], &items(vec![0]));
        assert!(value.abs() < 1e-7 && gradient.iter().all(|g| g.abs() < 1e-7), "{loss}: {value} {gradient:?}");
    }
}

#[test]
fn equal_and_empty_vectors_and_far_ones_give_finite_numbers() {
    let mut x = waves();
    x.copy_within(0..4, 4);
    x.copy_within(0..4, 16);
    x[24..28].fill(0.0);
    let layout = items(vec![0, 0, 1, 1, 2, 2, 3, 3]);
    let far: Vec<f32> = waves().iter().map(|x| 100.0 * x).collect();
    for loss in LOSSES {
        for (what, x) in [("equal", &x), ("far", &far)] {
            let (value, gradient) = evaluate(&objective(loss, needed(loss)), x, &layout);
            assert!(
                value.is_finite() && gradient.iter().all(|g| g.is_finite()),
                "{loss}, {what}: {value} {gradient:?}"
            );
        }
    }
}

#[test]
fn gradients_equal_differences_of_values() {
    let layout = items(vec![0, 0, 1, 1, 2, 2, 0, 1]);
    // Every triplet is chosen, one by one.
    let angles = object(&json!({"angle": 0.01}));
    let smooth = object(&json!({"smooth_loss": true, "swap": true, "reducer": "mean"}));
    let chosen = Objective::new("TripletMarginLoss", &smooth, Some("AngularMiner"), &angles).unwrap();
    let all = Objective::new("TripletMarginLoss", &smooth, None, &Options::new()).unwrap();
    let (one, other) = (evaluate(&chosen, &waves(), &layout), evaluate(&all, &waves(), &layout));
    assert!((one.0 - other.0).abs() < 1e-6 && one.1.iter().zip(&other.1).all(|(a, b)| (a - b).abs() < 1e-6));
    for objective in [objective("AngularLoss", json!({})), objective("LiftedStructureLoss", json!({}))] {
        let x = waves();
        let (_, gradient) = evaluate(&objective, &x, &layout);
        for at in 0..x.len() {
            let moved = |by: f32| {
                let mut x = x.clone();
                x[at] += by;
                (f64::from(x[at]), evaluate(&objective, &x, &layout).0)
            };
            let ((right, above), (left, below)) = (moved(1e-2), moved(-1e-2));
            let error = (above - below) / (right - left) - gradient[at];
            assert!(error.abs() < 0.02 * gradient[at].abs().max(1.0), "{at}: {error}");
        }
    }
}

#[test]
fn random_miners_repeat_their_draws_and_keep_to_their_rules() {
    let labels = Masks::new(&[0, 0, 1, 1, 2, 2, 0, 1]);
    let x = Tensor::from_vec(waves(), &[8, 4]).unwrap();
    for name in ["DistanceWeightedMiner", "UniformHistogramMiner"] {
        let mine = || miner::new(name, &Options::new()).unwrap().mine_embeddings(&Cpu::F32, &x, &labels);
        let (one, other) = (mine().pairs(&Cpu::F32, &labels), mine().pairs(&Cpu::F32, &labels));
        assert_eq!(one.positives.data(), other.positives.data());
        assert_eq!(one.negatives.data(), other.negatives.data());
        let allowed =
            |chosen: &Tensor, all: &Tensor| chosen.data().iter().zip(all.data()).all(|(c, a)| *c == 0.0 || *a == 1.0);
        assert!(allowed(&one.positives, &labels.positives) && allowed(&one.negatives, &labels.negatives), "{name}");
        assert!(one.positives.data().iter().sum::<f32>() > 0.0, "{name}");
    }
    // Only the two positives of a class of three can be drawn, as often as the class has rows.
    let drawn = miner::new("DistanceWeightedMiner", &Options::new()).unwrap().mine_embeddings(&Cpu::F32, &x, &labels);
    assert!(drawn.list_triplets(&labels).iter().filter(|[a, ..]| *a == 0).all(|[_, p, _]| [1, 6].contains(p)));
    let upper = miner::new("SiameseEasyHardMiner", &Options::new()).unwrap().mine_embeddings(&Cpu::F32, &x, &labels);
    let pairs = upper.pairs(&Cpu::F32, &labels);
    assert!((0..64).all(|at| at % 8 > at / 8 || pairs.positives.data()[at] + pairs.negatives.data()[at] == 0.0));
}

#[test]
fn a_learned_boundary_has_the_gradient_of_its_differences() {
    let layout = items(vec![0, 0, 1, 1, 2, 2, 0, 1]);
    for (classes, reducer) in [(None, "divisor"), (Some(3), "mean")] {
        let run = |beta: f64, learned: bool| {
            let nu = if learned { 0.1 } else { 0.0 };
            let mut options = json!({"beta": beta, "learn_beta": learned, "nu": nu, "reducer": reducer});
            if learned {
                options["num_classes"] = json!(classes);
            }
            let mut objective = objective("MarginLoss", options);
            objective.prepare(Sizes { dimension: 4, classes: 3, ..Sizes::default() }, 1).unwrap();
            let (device, parameters) = (Cpu::F32, Parameters::default());
            let mut tape = Tape::recording(&device, &parameters);
            let x = tape.leaf(Tensor::from_vec(waves(), &[8, 4]).unwrap());
            let computed = objective.compute(&mut tape, &x, &layout).unwrap();
            let loss = computed.loss.clone();
            let mut leaves = tape.backward(&loss, Tensor::scalar(1.0), &mut Gradients::new(&parameters)).unwrap();
            let own = computed.own_gradients(&mut leaves);
            let total: f32 = own.iter().flatten().flat_map(|g| g.data().to_vec()).sum();
            (f64::from(loss.value().item()), f64::from(total))
        };
        let (value, gradient) = run(1.2, true);
        let (above, below) = (run(1.201, false).0, run(1.199, false).0);
        assert!((value - run(1.2, false).0 - 0.12).abs() < 1e-6, "{value}");
        assert!(((above - below) / 0.002 + 0.1 - gradient).abs() < 1e-3, "{gradient}, {above} {below}");
    }
}

#[test]
fn options_that_contradict_a_loss_are_refused_with_the_reason() {
    let refused = |loss: &str, options: Value, miner: Option<&str>| {
        Objective::new(loss, &object(&options), miner, &Options::new()).unwrap_err().to_string()
    };
    let holds = |message: String, part: &str| assert!(message.contains(part), "no `{part}` in: {message}");
    holds(refused("CircleLoss", json!({"reducer": "divisor"}), None), "MarginLoss");
    holds(refused("CircleLoss", json!({"reducer": "DoNothingReducer"}), None), "one number");
    holds(refused("CircleLoss", json!({"reducer": {"name": "multiple"}}), None), "`reducers`");
    holds(refused("CircleLoss", json!({"reducer": {"name": "class_weighted", "weights": []}}), None), "`weights`");
    holds(refused("CircleLoss", json!({"gamma": 0}), None), "greater than 0");
    holds(refused("TripletMarginLoss", json!({"reducer": "per_anchor"}), None), "triplets");
    holds(refused("MarginLoss", json!({"reducer": "threshold"}), None), "`low`");
    holds(refused("MarginLoss", json!({"reducer": "avg_non_zero"}), None), "`class_weighted`");
    holds(refused("MarginLoss", json!({"num_classes": 3}), None), "`learn_beta`");
    holds(refused("RankedListLoss", json!({}), None), "has to be given");
    holds(refused("RankedListLoss", json!({"margin": 1, "Tn": 1, "distance": "cosine"}), None), "radii");
    holds(refused("FastAPLoss", json!({"distance": "cosine"}), None), "`l2`");
    holds(refused("HistogramLoss", json!({"n_bins": 10, "delta": 0.1}), None), "2 / n_bins");
    holds(refused("PNPLoss", json!({"variant": "P"}), None), "variant");
    holds(refused("AngularLoss", json!({"alpha": 90}), None), "between 0 and 90");
    holds(refused("RankedListLoss", json!({"margin": 0.4, "Tn": 1}), Some("HDCMiner")), "leave it out");
    holds(refused("CircleLoss", json!({}), Some("TripletSessionMiner")), "EmbeddingsAlreadyPackagedAsTriplets");
    let distance = |value: Value| refused("MultiSimilarityLoss", json!({"distance": value}), None);
    holds(distance(json!({"name": "l2", "p": 0.5})), "at least 1");
    holds(distance(json!({"name": "cosine", "power": 1.5})), "a whole number");
    holds(distance(json!({"name": "snr", "p": 2})), "no option `p`");
}

#[test]
fn class_weights_have_to_cover_every_class() {
    let few = objective("CircleLoss", json!({"reducer": {"name": "class_weighted", "weights": [1.0, 2.0]}}));
    let (device, parameters) = (Cpu::F32, Parameters::default());
    let mut tape = Tape::recording(&device, &parameters);
    let x = tape.leaf(Tensor::from_vec(waves(), &[8, 4]).unwrap());
    let error = few.loss(&mut tape, &x, &items(vec![0, 0, 1, 1, 2, 2, 0, 1])).unwrap_err().to_string();
    assert!(error.contains("a weight for every class"), "{error}");
}

#[test]
fn packaged_triplets_follow_the_columns_of_the_data() {
    let objective = Objective::new(
        "TripletMarginLoss",
        &Options::new(),
        Some("EmbeddingsAlreadyPackagedAsTriplets"),
        &Options::new(),
    );
    let x = [waves(), table(4, |i, j| (0.4 * i + 0.6 * j - 0.25 * i * j).sin())].concat();
    let labels = (0..4).chain(0..4).chain(4..8).collect();
    let layout = BatchLayout { columns: vec![4; 3], labels, ..BatchLayout::default() };
    let value = evaluate(&objective.unwrap(), &x, &layout).0;
    let unit = |row: usize| {
        let row: Vec<f64> = x[4 * row..4 * row + 4].iter().map(|&x| f64::from(x)).collect();
        let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        row.iter().map(|x| x / norm).collect::<Vec<f64>>()
    };
    let apart = |a: usize, b: usize| unit(a).iter().zip(unit(b)).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    let losses: Vec<f64> = (0..4).map(|i| (apart(i, 4 + i) - apart(i, 8 + i) + 0.05).max(0.0)).collect();
    let positive = losses.iter().filter(|loss| **loss > 0.0).count() as f64;
    assert!((value - losses.iter().sum::<f64>() / positive).abs() < 1e-6, "{value}");
}
