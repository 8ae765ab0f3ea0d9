//! Whole runs of the library on a tiny model: that they learn, that memory-saving ways give the same result, that nothing
//! is lost when they stop.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod tiny;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use finetuner::artifact::{Manifest, Weights};
use finetuner::event::Event;
use finetuner::spec::RunSpec;
use finetuner::train::{Outcome, Report, train};

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        tiny::model(&folder.path().join("model"));
        tiny::labelled(&folder.path().join("train.csv"), 0, 24);
        tiny::labelled(&folder.path().join("test.csv"), 100, 10);
        tiny::pairs(&folder.path().join("pairs.csv"), 0, 16);
        tiny::scored(&folder.path().join("scored.csv"), 0, 16);
        Place { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A run on labelled data with random weights.
    fn spec(&self, output: &str, fields: &[(&str, &str)]) -> RunSpec {
        let mut spec = RunSpec {
            model: self.path("model").display().to_string(),
            train_data: self.path("train.csv"),
            init: "random".into(),
            output: Some(self.path(output)),
            threads: Some(2),
            ..Default::default()
        };
        let common = [("batch_size", "24"), ("learning_rate", "3e-3"), ("epochs", "2")];
        for (field, value) in common.iter().chain(fields) {
            spec.apply(field, value).unwrap();
        }
        spec
    }

    fn weights(&self, output: &str) -> Weights {
        Weights::open(&self.path(output)).unwrap()
    }
}

fn finish(spec: &RunSpec) -> Report {
    match train(spec, &mut |_: &Event| {}, &AtomicBool::new(false)).unwrap() {
        Outcome::Finished(report) => *report,
        other => panic!("{other:?}"),
    }
}

fn failure(spec: &RunSpec) -> String {
    train(spec, &mut |_: &Event| {}, &AtomicBool::new(false)).unwrap_err().to_string()
}

/// How far the change that one run made to the weights is from that of another, relative to the largest change.
fn difference(start: &Weights, a: &Weights, b: &Weights) -> f32 {
    let (mut largest, mut worst) = (0.0f32, 0.0f32);
    for name in a.names() {
        let shape = a.info(name).unwrap().shape.clone();
        let [start, a, b] = [start, a, b].map(|weights| weights.tensor(name, &shape).unwrap());
        for ((start, a), b) in start.iter().zip(&a).zip(&b) {
            largest = largest.max((a - start).abs());
            worst = worst.max((a - b).abs());
        }
    }
    worst / largest
}

fn bits(weights: &Weights) -> Vec<(String, Vec<u32>)> {
    let read = |name: &str| {
        let shape = weights.info(name).unwrap().shape.clone();
        weights.tensor(name, &shape).unwrap().into_iter().map(f32::to_bits).collect()
    };
    weights.names().map(|name| (name.to_owned(), read(name))).collect()
}

#[test]
fn a_run_learns_and_says_so() {
    let place = Place::new();
    let test = place.path("test.csv").display().to_string();
    let spec = place.spec("run", &[("query_data", &test), ("epochs", "6")]);
    let report = finish(&spec);
    let metrics = report.metrics.as_ref().unwrap();
    assert!(
        metrics.finetuned.map > metrics.pretrained.map + 0.2,
        "{} {}",
        metrics.pretrained.map,
        metrics.finetuned.map
    );
    assert!(metrics.finetuned.mrr > 0.9, "{}", metrics.finetuned.mrr);
    assert_eq!(report.training.epochs, 6);
    assert!(report.text().contains("finetuned"));

    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(place.path("run/finetuner.json")).unwrap()).unwrap();
    Manifest::read("run", manifest).unwrap().verify(&place.path("run")).unwrap();
    for file in ["config.json", "tokenizer.json", "modules.json", "1_Pooling/config.json", "README.md", "report.json"] {
        assert!(place.path("run").join(file).is_file(), "{file}");
    }
    assert!(!place.path("run/checkpoint.safetensors").exists());
}

#[test]
fn the_gradient_cache_gives_the_same_weights_for_every_loss() {
    let place = Place::new();
    let data = |name: &str| place.path(name).display().to_string();
    let (train, pairs, scored) = (data("train.csv"), data("pairs.csv"), data("scored.csv"));
    for (loss, data) in [
        ("TripletMarginLoss", &train),
        ("ContrastiveLoss", &train),
        ("NTXentLoss", &train),
        ("SupConLoss", &train),
        ("MultipleNegativesRankingLoss", &pairs),
        ("CosineSimilarityLoss", &scored),
        ("CoSENTLoss", &scored),
        ("TripletMarginLoss", &pairs),
    ] {
        // One step of plain descent over all data, unclipped: the weights change by the gradient itself.
        let run = |name: &str, tokens: &str, rate: &str| {
            let output = format!("{loss}-{name}-{}", data.ends_with("pairs.csv"));
            let fields = [
                ("loss", loss),
                ("train_data", data.as_str()),
                ("micro_batch_tokens", tokens),
                ("epochs", "1"),
                ("batch_size", "96"),
                ("optimizer", "SGD"),
                ("learning_rate", rate),
                ("max_grad_norm", "0"),
                ("sampler", "random"),
            ];
            assert!(finish(&place.spec(&output, &fields)).training.steps <= 2);
            place.weights(&output)
        };
        let start = run("start", "100000", "1e-30");
        let error = difference(&start, &run("whole", "100000", "1"), &run("cached", "20", "1"));
        assert!(error < 1e-5, "{loss}: {error}");
    }
}

#[test]
fn a_run_that_stops_and_resumes_ends_with_the_same_bits() {
    let place = Place::new();
    let fields = [("val_split", "0.2"), ("optimizer", "AdamW"), ("scheduler", "linear"), ("warmup", "0.1")];
    finish(&place.spec("whole", &fields));

    let mut spec = place.spec("parts", &fields);
    for stop_after in [3, 7] {
        let stop = AtomicBool::new(false);
        let mut sink = |event: &Event| {
            if matches!(event, Event::Metric { name, step, .. } if name == "train_loss" && *step == stop_after) {
                stop.store(true, Ordering::Relaxed);
            }
        };
        let outcome = train(&spec, &mut sink, &stop).unwrap();
        assert!(matches!(outcome, Outcome::Stopped { step } if step == stop_after), "{outcome:?}");
        assert!(!place.path("parts/finetuner.json").exists());
        spec.resume = true;
    }
    finish(&spec);
    assert_eq!(bits(&place.weights("whole")), bits(&place.weights("parts")));
}

#[test]
fn threads_do_not_change_the_bits() {
    let place = Place::new();
    for threads in [1, 3] {
        let mut spec = place.spec(&format!("threads-{threads}"), &[("epochs", "1")]);
        spec.threads = Some(threads);
        finish(&spec);
    }
    assert_eq!(bits(&place.weights("threads-1")), bits(&place.weights("threads-3")));
}

#[test]
fn a_resumed_run_must_be_the_same_run() {
    let place = Place::new();
    let stop = AtomicBool::new(true);
    let mut spec = place.spec("run", &[]);
    assert!(matches!(train(&spec, &mut |_: &Event| {}, &stop).unwrap(), Outcome::Stopped { step: 1 }));
    spec.resume = true;
    spec.learning_rate = 1.0;
    assert!(failure(&spec).contains("`learning_rate`"));
    spec.resume = false;
    assert!(failure(&spec).contains("not empty"));
}

#[test]
fn a_model_that_got_worse_is_not_kept() {
    let place = Place::new();
    let test = place.path("test.csv").display().to_string();
    let first = place.spec("good", &[("query_data", &test), ("epochs", "5")]);
    let good = finish(&first).metrics.unwrap().finetuned.mrr;
    // A rate far too high ruins the good model.
    let fields = [("query_data", test.as_str()), ("learning_rate", "1.0"), ("epochs", "1"), ("init", "pretrained")];
    let mut ruin = place.spec("ruin", &fields);
    ruin.model = place.path("good").display().to_string();
    let report = finish(&ruin);
    assert_eq!(report.training.kept_step, 0);
    assert_eq!(report.metrics.unwrap().finetuned.mrr, good);
    assert_eq!(bits(&place.weights("good")), bits(&place.weights("ruin")));

    ruin.keep = Some("last".into());
    ruin.output = Some(place.path("ruined"));
    let report = finish(&ruin);
    assert!(report.metrics.unwrap().finetuned.mrr < good, "the last weights are kept when asked for");
    assert!(report.conclusion.to_lowercase().contains("worse"), "{}", report.conclusion);
}

#[test]
fn frozen_parts_stay_as_they_are_and_a_new_head_has_its_width() {
    let place = Place::new();
    finish(&place.spec("first", &[("epochs", "1")]));
    let fields = [("freeze", "embeddings,layers:0"), ("output_dim", "8"), ("init", "pretrained"), ("epochs", "1")];
    let mut spec = place.spec("second", &fields);
    spec.model = place.path("first").display().to_string();
    finish(&spec);
    let (before, after) = (place.weights("first"), place.weights("second"));
    for (name, old) in bits(&before) {
        let shape = after.info(&name).unwrap().shape.clone();
        let new: Vec<u32> = after.tensor(&name, &shape).unwrap().into_iter().map(f32::to_bits).collect();
        let frozen = name.starts_with("embeddings.") || name.starts_with("encoder.layer.0.");
        let key_bias = name.ends_with("key.bias");
        assert!(key_bias || (old == new) == frozen, "{name}");
    }
    let head = Weights::open(&place.path("second/2_Dense")).unwrap();
    assert_eq!(head.info("linear.weight").unwrap().shape, [8, 32]);
}

#[test]
fn early_stopping_ends_a_run_that_no_longer_improves() {
    let place = Place::new();
    let fields = [
        ("val_split", "0.2"),
        ("epochs", "30"),
        ("learning_rate", "0.5"),
        ("optimizer", "SGD"),
        ("callbacks", "EarlyStopping(patience=1)"),
    ];
    let report = finish(&place.spec("run", &fields));
    assert!(report.training.epochs < 30, "{}", report.training.epochs);
}

#[test]
fn data_that_a_loss_cannot_learn_from_is_refused() {
    let place = Place::new();
    let error = failure(&place.spec("run", &[("loss", "CoSENTLoss")]));
    assert!(error.contains("scored pairs") && error.contains("labelled"), "{error}");
    let error = failure(&place.spec("run2", &[("loss", "TripletMarginLos")]));
    assert!(error.contains("did you mean `TripletMarginLoss`"), "{error}");
    assert!(!Path::new(&place.path("run/finetuner.json")).exists());
}
