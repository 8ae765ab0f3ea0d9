//! Whole runs with callbacks: mixtures of weights, several evaluations, loggers, limits of time, advice.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[allow(dead_code, reason = "not every test uses all of it")]
mod tiny;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use finetuner::artifact::Weights;
use finetuner::event::{Event, Level};
use finetuner::spec::RunSpec;
use finetuner::train::{Outcome, Report, train};

struct Place(tempfile::TempDir);

impl Place {
    /// Data, and a model that a run has made.
    fn new() -> Self {
        let place = Place(tempfile::tempdir().unwrap());
        tiny::model(&place.path("model"));
        tiny::labelled(&place.path("train.csv"), 0, 24);
        tiny::labelled(&place.path("test.csv"), 100, 10);
        tiny::labelled(&place.path("other.csv"), 200, 5);
        let model = place.path("model").display().to_string();
        run(&place.spec("base", &[("model", model.as_str()), ("init", "random"), ("epochs", "1")]));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A run that goes on from the base, and measures nothing.
    fn spec(&self, output: &str, fields: &[(&str, &str)]) -> RunSpec {
        let mut spec = RunSpec {
            model: self.path("base").display().to_string(),
            train_data: self.path("train.csv"),
            output: Some(self.path(output)),
            threads: Some(2),
            ..Default::default()
        };
        for (field, value) in [("batch_size", "24"), ("learning_rate", "3e-3"), ("epochs", "2")].iter().chain(fields) {
            spec.apply(field, value).unwrap();
        }
        spec
    }

    fn test(&self) -> String {
        self.path("test.csv").display().to_string()
    }

    fn tensor(&self, output: &str, name: &str) -> Vec<f32> {
        let weights = Weights::open(&self.path(output)).unwrap();
        let shape = weights.info(name).unwrap().shape.clone();
        weights.tensor(name, &shape).unwrap()
    }
}

fn heard(spec: &RunSpec) -> (Report, Vec<Event>) {
    let mut events = Vec::new();
    match train(spec, &mut |event: &Event| events.push(event.clone()), &AtomicBool::new(false)).unwrap() {
        Outcome::Finished(report) => (*report, events),
        other => panic!("{other:?}"),
    }
}

fn run(spec: &RunSpec) -> Report {
    heard(spec).0
}

fn failure(spec: &RunSpec) -> String {
    train(spec, &mut |_: &Event| {}, &AtomicBool::new(false)).unwrap_err().to_string()
}

fn said(events: &[Event], words: &str) -> bool {
    events.iter().any(|event| matches!(event, Event::Log { message, .. } if message.contains(words)))
}

const QUERY: &str = "encoder.layer.0.attention.self.query.weight";

#[test]
fn a_mixture_lies_between_the_two_models() {
    let place = Place::new();
    run(&place.spec("end", &[]));
    let mixed = run(&place.spec("mixed", &[("callbacks", "WiSEFTCallback(alpha=0.25)"), ("output_dim", "")]));
    assert_eq!((mixed.training.alpha, mixed.training.kept_step), (Some(0.25), 12));
    let [start, end, mixed] = ["base", "end", "mixed"].map(|name| place.tensor(name, QUERY));
    for ((start, end), mixed) in start.iter().zip(&end).zip(&mixed) {
        assert_eq!(*mixed, (0.75 * f64::from(*start) + 0.25 * f64::from(*end)) as f32);
    }
    for (alpha, same) in [("0", &start), ("1", &end)] {
        run(&place.spec(alpha, &[("callbacks", &format!("WiSEFTCallback(alpha={alpha})"))]));
        assert_eq!(place.tensor(alpha, QUERY), *same, "alpha {alpha}");
    }
}

#[test]
fn a_mixture_of_an_adapter_multiplies_what_it_adds() {
    let place = Place::new();
    let lora = ("lora", "rank=4,targets=query");
    run(&place.spec("end", &[lora]));
    run(&place.spec("mixed", &[lora, ("callbacks", "WiSEFTCallback(alpha=0.5)")]));
    let [start, end, mixed] = ["base", "end", "mixed"].map(|name| place.tensor(name, QUERY));
    for ((start, end), mixed) in start.iter().zip(&end).zip(&mixed) {
        let expected = 0.5 * (f64::from(*start) + f64::from(*end));
        assert!((f64::from(*mixed) - expected).abs() < 1e-6, "{mixed} {expected}");
    }
}

#[test]
fn the_best_mixture_is_picked_on_validation_data() {
    let place = Place::new();
    let (report, events) = heard(&place.spec("picked", &[("keep", "interpolate"), ("val_split", "0.2")]));
    let alpha = report.training.alpha.unwrap();
    assert!((0.0..=1.0).contains(&alpha), "{alpha}");
    assert!(said(&events, "which has the best mrr of 0, 0.1 … 1"), "{events:?}");
    assert!(!said(&events, "flatters"));
    let test = place.test();
    let (_, events) =
        heard(&place.spec("other", &[("keep", "interpolate"), ("val_split", "0.2"), ("query_data", &test)]));
    assert!(said(&events, "which has the best val_loss"), "the report's queries decide nothing");
    let (_, events) = heard(&place.spec("same", &[("keep", "interpolate"), ("query_data", &test)]));
    assert!(said(&events, "flatters it"));
    for (name, fields, words) in [
        ("nothing", vec![("keep", "interpolate")], "`keep`: picks its alpha on validation data"),
        ("random", vec![("callbacks", "WiSEFTCallback"), ("init", "random")], "which `init` leaves out"),
    ] {
        let error = failure(&place.spec(name, &fields));
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn every_evaluation_is_measured_and_reported() {
    let place = Place::new();
    let other = place.path("other.csv").display().to_string();
    let callbacks = format!(
        "EvaluationCallback(query_data='{}'),EvaluationCallback(query_data='{other}',caption=other,steps_per_interval=4),\
         BestModelCheckpoint(monitor=other_average_precision)",
        place.test()
    );
    let (report, events) = heard(&place.spec("run", &[("callbacks", &callbacks)]));
    let steps = |wanted: &str| -> Vec<usize> {
        let step = |event: &Event| match event {
            Event::Metric { name, step, .. } if name == wanted => Some(*step),
            _ => None,
        };
        events.iter().filter_map(step).collect()
    };
    assert_eq!((steps("mrr"), steps("other_mrr")), (vec![0, 6, 12], vec![0, 4, 8, 12]));
    assert_eq!((report.further.len(), report.further[0].name.as_str()), (1, "other"));
    assert_eq!(report.queries.as_ref().unwrap().evaluated, 60);
    assert_eq!(report.further[0].queries.as_ref().unwrap().evaluated, 30);
    assert!(report.text().contains("\nother: "), "{}", report.text());

    let unknown = callbacks.replace("other_average_precision", "other_presision");
    let error = failure(&place.spec("unknown", &[("callbacks", &unknown)]));
    assert!(
        error.contains("`other_presision` is monitored but not measured, did you mean `other_precision`?"),
        "{error}"
    );
}

#[test]
fn loggers_write_beside_the_model() {
    let place = Place::new();
    let callbacks = "TensorBoardLogger(),CSVLogger(metrics_logger_step=epoch,log_zero_shot=False)";
    run(&place.spec("run", &[("callbacks", callbacks), ("query_data", &place.test())]));
    let csv = std::fs::read_to_string(place.path("run/metrics.csv")).unwrap();
    assert!(csv.starts_with("step,metric,value\n6,epoch_loss,"), "{csv}");
    assert!(csv.contains("\n12,mrr,") && !csv.contains("train_loss") && !csv.contains("\n0,"), "{csv}");
    let files: Vec<_> = std::fs::read_dir(place.path("run/tensorboard")).unwrap().collect();
    assert_eq!(files.len(), 1);
    let bytes = std::fs::read(files[0].as_ref().unwrap().path()).unwrap();
    for tag in ["train_loss", "learning_rate", "epoch_loss", "mrr"] {
        assert!(bytes.windows(tag.len()).any(|window| window == tag.as_bytes()), "{tag}");
    }
    let error = failure(&place.spec("refused", &[("callbacks", "MLflowLogger(tracking_uri=nowhere)")]));
    assert!(error.contains("the address of an MLflow server"), "{error}");
}

#[test]
fn a_run_ends_in_time_and_says_so() {
    let place = Place::new();
    let (report, events) = heard(&place.spec("run", &[("max_time", "0.001s"), ("query_data", &place.test())]));
    assert_eq!((report.training.steps, report.training.epochs), (1, 0));
    let ended = "`max_time` of 0.001s ended training after step 1 of 12";
    assert_eq!(report.training.ended.as_deref(), Some(ended));
    assert!(said(&events, ended) && report.text().contains(ended) && report.metrics.is_some());
    let report = run(&place.spec("long", &[("max_time", "2d")]));
    assert_eq!((report.training.steps, report.training.ended), (12, None));
}

#[test]
fn tokens_time_and_memory_are_told_before_the_first_step() {
    let place = Place::new();
    let (_, events) = heard(&place.spec("run", &[]));
    let place_of = |found: &dyn Fn(&Event) -> bool| events.iter().position(found).unwrap();
    let told = place_of(
        &|event| matches!(event, Event::Log { level: Level::Info, message } if message.starts_with("a step sees about ") && message.contains("of 24 examples; 12 steps take about ")),
    );
    let first = place_of(&|event| matches!(event, Event::Metric { name, .. } if name == "train_loss"));
    assert!(told < first);
}

#[test]
fn advice_compares_three_runs() {
    let place = Place::new();
    let (report, events) = heard(&place.spec("run", &[("advise", "true"), ("query_data", &place.test())]));
    let advice = report.advice.as_ref().unwrap();
    let shares: Vec<(f64, usize)> = advice.shares.iter().map(|share| (share.share, share.examples)).collect();
    assert_eq!(shares, [(0.25, 36), (0.5, 72), (1.0, 144)]);
    assert!(advice.time.is_some() && report.text().contains("Trained on a share of the data"), "{}", report.text());
    assert!(said(&events, "advice: a run on 25 % of the training data"));
    let left = std::fs::read_dir(place.path("run")).unwrap();
    assert!(left.flatten().all(|entry| !entry.file_name().to_string_lossy().contains("scratch")));
    let error = failure(&place.spec("nothing", &[("advise", "true")]));
    assert!(error.contains("`advise`: compares runs by retrieval; give `query_data`"), "{error}");
}

#[test]
fn the_checkpoints_of_the_last_epochs_are_kept() {
    let place = Place::new();
    run(&place.spec("run", &[("callbacks", "TrainingCheckpoint(last_k_epochs=2)"), ("epochs", "4")]));
    let names = std::fs::read_dir(place.path("run/checkpoints")).unwrap();
    let mut names: Vec<String> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["epoch-2.safetensors", "epoch-3.safetensors"]);
}
