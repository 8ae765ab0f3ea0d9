//! Whole runs of the library on a tiny model: that they learn, that memory-saving ways give the same result, that nothing
//! is lost when they stop.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod tiny;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use engine::Cpu;
use finetuner::artifact::{Manifest, ModelFolder, PoolingMode, Weights};
use finetuner::data::Modality;
use finetuner::encoder::{Model, ModelOptions, Role};
use finetuner::event::{Event, Level};
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

/// A run that is told to stop when it says something; what it said and how it ended.
fn stopped(spec: &RunSpec, when: impl Fn(&Event) -> bool + Send + Sync) -> (Outcome, Vec<Event>) {
    let stop = AtomicBool::new(false);
    let mut events = Vec::new();
    let mut sink = |event: &Event| {
        if when(event) {
            stop.store(true, Ordering::Relaxed);
        }
        events.push(event.clone());
    };
    let outcome = train(spec, &mut sink, &stop).unwrap();
    (outcome, events)
}

/// A run that finishes, and what it said.
fn heard(spec: &RunSpec) -> (Report, Vec<Event>) {
    match stopped(spec, |_| false) {
        (Outcome::Finished(report), events) => (*report, events),
        (other, _) => panic!("{other:?}"),
    }
}

fn is_phase(event: &Event, wanted: &str) -> bool {
    matches!(event, Event::Progress { phase, .. } if phase == wanted)
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
    let timing = &report.timing;
    let (model, product) = (timing.model_flops_per_second, timing.product_flops_per_second.unwrap());
    assert_eq!(timing.model_flops_utilization.unwrap(), model / product);
    assert!(0.0 < model && model < product, "{model} of {product}");
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
            let report = finish(&place.spec(&output, &fields));
            assert!(report.training.steps <= 2);
            (place.weights(&output), report.timing.model_flops_per_second * report.timing.train_seconds)
        };
        let (start, _) = run("start", "100000", "1e-30");
        let ((whole, operations), (cached, same)) = (run("whole", "100000", "1"), run("cached", "20", "1"));
        let error = difference(&start, &whole, &cached);
        assert!(error < 1e-5, "{loss}: {error}");
        // What is computed twice counts once.
        assert!((operations / same - 1.0).abs() < 1e-9, "{loss}: {operations} and {same} operations");
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
    assert_eq!(tiny::bits(&place.weights("whole")), tiny::bits(&place.weights("parts")));
}

#[test]
fn threads_do_not_change_the_bits() {
    let place = Place::new();
    for threads in [1, 3] {
        let mut spec = place.spec(&format!("threads-{threads}"), &[("epochs", "1")]);
        spec.threads = Some(threads);
        finish(&spec);
    }
    assert_eq!(tiny::bits(&place.weights("threads-1")), tiny::bits(&place.weights("threads-3")));
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
    assert_eq!(tiny::bits(&place.weights("good")), tiny::bits(&place.weights("ruin")));

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
    for (name, old) in tiny::bits(&before) {
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
fn the_power_of_gem_is_learnt_saved_and_read_back() {
    let place = Place::new();
    let gem = [("pooling", "gem"), ("pooling_options", "p=2.4,eps=1e-5"), ("keep", "last")];
    finish(&place.spec("run", &gem));
    let open =
        |name: &str| Model::open(ModelFolder::open(&place.path(name)).unwrap(), &ModelOptions::default()).unwrap();
    let tuned = open("run");
    let PoolingMode::Gem { p, eps } = tuned.encoder.layout(tuned.encoder.main_tower()).pooling else {
        panic!("{:?}", tuned.folder.layout)
    };
    assert_eq!(eps, 1e-5);
    assert!((p - 2.4).abs() > 1e-4 && p > 1.0 && p < 4.0, "{p}");
    let card = std::fs::read_to_string(place.path("run/README.md")).unwrap();
    assert!(card.contains(&format!("p = {p:.4}")), "{card}");

    // A run that goes on from there without a step that moves anything leaves every bit as it was.
    let again = place.path("run").display().to_string();
    let still = [("model", again.as_str()), ("init", "pretrained"), ("learning_rate", "1e-30"), ("epochs", "1")];
    finish(&place.spec("still", &still));
    let embed = |model: &Model| {
        let texts = ["b c d", "a", "c c a b"];
        model.embed(&Cpu::F32, &texts, (Modality::Text, Role::Plain), |_| Ok(())).unwrap().0
    };
    assert_eq!(embed(&tuned), embed(&open("still")));
    // The mean of the same weights is another embedding.
    let mut plain = ModelFolder::open(&place.path("run")).unwrap();
    plain.layout.pooling = PoolingMode::Mean;
    assert_ne!(embed(&tuned), embed(&Model::open(plain, &ModelOptions::default()).unwrap()));
}

#[test]
fn the_power_learns_alone_and_beside_adapters_and_survives_a_stop() {
    let place = Place::new();
    let power = |output: &str| match ModelFolder::open(&place.path(output)).unwrap().layout.pooling {
        PoolingMode::Gem { p, .. } => p,
        other => panic!("{other:?}"),
    };
    let gem = [("pooling", "gem"), ("keep", "last")];
    let with = |more: &[(&'static str, &'static str)]| [&gem[..], more].concat();
    finish(&place.spec("alone", &with(&[("freeze", "all")])));
    assert!((power("alone") - 3.0).abs() > 1e-4, "{}", power("alone"));
    finish(&place.spec("lora", &with(&[("lora", "rank=2")])));
    assert!((power("lora") - 3.0).abs() > 1e-4, "{}", power("lora"));

    let spec = place.spec("stops", &gem);
    let (outcome, _) =
        stopped(&spec, |event| matches!(event, Event::Metric { name, step: 1, .. } if name == "train_loss"));
    assert!(matches!(outcome, Outcome::Stopped { step: 1 }), "{outcome:?}");
    finish(&RunSpec { resume: true, ..spec });
    finish(&place.spec("whole", &gem));
    assert_eq!(power("stops").to_bits(), power("whole").to_bits());
    assert_eq!(tiny::bits(&place.weights("stops")), tiny::bits(&place.weights("whole")));
}

#[test]
fn options_of_a_pooling_that_has_none_are_refused() {
    let place = Place::new();
    let problem = |fields: &[(&str, &str)]| failure(&place.spec("run", fields));
    let without = problem(&[("pooling_options", "p=2")]);
    assert!(without.contains("`pooling_options`: is for `pooling` of `gem`"), "{without}");
    let unknown = problem(&[("pooling", "gem"), ("pooling_options", "q=2")]);
    assert!(unknown.contains("`pooling_options.q`: unknown option"), "{unknown}");
    let negative = problem(&[("pooling", "gem"), ("pooling_options", "p=-1")]);
    assert!(negative.contains("`pooling_options.p`: expected a number above 0, got -1"), "{negative}");
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

#[test]
fn a_run_stopped_before_its_first_step_leaves_nothing_in_the_way() {
    let place = Place::new();
    let test = place.path("test.csv").display().to_string();
    let mut spec = place.spec("run", &[("query_data", &test), ("epochs", "1")]);
    let (outcome, events) = stopped(&spec, |event| is_phase(event, "evaluate before"));
    assert!(matches!(outcome, Outcome::Stopped { step: 0 }), "{outcome:?}");
    assert_eq!(events.last(), Some(&Event::State { state: "stopped".into() }));
    assert!(!events.iter().any(|event| matches!(event, Event::Log { message, .. } if message.contains("stopped"))));
    let files: Vec<_> = std::fs::read_dir(place.path("run")).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, ["events.jsonl"]);
    finish(&spec);

    // A run that goes on and is stopped there keeps its checkpoint.
    spec.output = Some(place.path("second"));
    let (outcome, _) = stopped(&spec, |event| is_phase(event, "train"));
    assert!(matches!(outcome, Outcome::Stopped { step: 1 }), "{outcome:?}");
    spec.resume = true;
    let (outcome, _) = stopped(&spec, |event| is_phase(event, "evaluate before"));
    assert!(matches!(outcome, Outcome::Stopped { step: 1 }), "{outcome:?}");
    finish(&spec);
    assert_eq!(tiny::bits(&place.weights("run")), tiny::bits(&place.weights("second")));
}

#[test]
fn a_run_stopped_while_it_measures_goes_on_with_the_same_bits() {
    let place = Place::new();
    let test = place.path("test.csv").display().to_string();
    let every_epoch = [("query_data", test.as_str()), ("epochs", "3")];
    let interval = format!("EvaluationCallback(query_data='{test}',steps_per_interval=4)");
    let every_interval = [("callbacks", interval.as_str()), ("epochs", "3")];
    for (name, fields) in [("epoch", &every_epoch[..]), ("interval", &every_interval)] {
        let whole = finish(&place.spec(&format!("{name}-whole"), fields));
        let mut spec = place.spec(&format!("{name}-parts"), fields);
        for phase in ["evaluate", "evaluate after"] {
            let (outcome, events) = stopped(&spec, |event| is_phase(event, phase));
            let Outcome::Stopped { step } = outcome else { panic!("{name} {phase}: {outcome:?}") };
            assert!(step > 0 && events.contains(&Event::Checkpoint { step }), "{name} {phase}: {step}");
            assert!(!place.path(&format!("{name}-parts/finetuner.json")).exists());
            spec.resume = true;
        }
        let parts = finish(&spec);
        assert_eq!(whole.training.kept_step, parts.training.kept_step, "{name}");
        assert_eq!(whole.metrics, parts.metrics, "{name}");
        let weights = |part: &str| tiny::bits(&place.weights(&format!("{name}-{part}")));
        assert_eq!(weights("whole"), weights("parts"), "{name}");
    }
}

#[test]
fn a_stop_in_the_last_measurement_keeps_what_was_trained() {
    let place = Place::new();
    let test = place.path("test.csv").display().to_string();
    // The first value is the best of its monitor, so the last measurement is of weights that were put back.
    let callbacks =
        "BestModelCheckpoint(monitor=train_loss,mode=max),EarlyStopping(monitor=train_loss,mode=max,patience=1)";
    let fields = [("query_data", test.as_str()), ("epochs", "9"), ("callbacks", callbacks)];
    let whole = finish(&place.spec("whole", &fields));
    assert!(whole.training.kept_step < whole.training.steps && whole.training.epochs < 9, "{:?}", whole.training);
    let mut spec = place.spec("parts", &fields);
    let (outcome, _) = stopped(&spec, |event| is_phase(event, "evaluate after"));
    assert!(matches!(outcome, Outcome::Stopped { step } if step == whole.training.steps), "{outcome:?}");
    spec.resume = true;
    let parts = finish(&spec);
    assert_eq!((parts.training.steps, parts.training.kept_step), (whole.training.steps, whole.training.kept_step));
    assert_eq!(parts.metrics, whole.metrics);
    assert_eq!(tiny::bits(&place.weights("whole")), tiny::bits(&place.weights("parts")));
}

#[test]
fn an_evaluation_callback_measures_as_its_options_say() {
    let place = Place::new();
    let test = place.path("test.csv").display().to_string();
    let callback = |options: &str| format!("EvaluationCallback(query_data='{test}'{options})");
    let run = |name: &str, options: &str| heard(&place.spec(name, &[("callbacks", &callback(options))]));

    let (plain, _) = run("plain", "");
    let (report, _) = run("limit", ", limit=3, gather_examples=True, num_example_queries=1");
    assert_eq!((plain.metrics.as_ref().unwrap().k, report.metrics.as_ref().unwrap().k), (20, 3));
    let examples = report.queries.unwrap().examples;
    assert!(examples.improved.len() <= 1 && examples.unchanged.len() <= 1);
    let (report, _) = run("itself", ", exclude_self=False");
    assert_eq!(report.metrics.unwrap().pretrained.mrr, 1.0, "every query finds itself first");
    let (report, _) = run("distance", ", distance=euclidean");
    assert_ne!(report.metrics.unwrap().pretrained, plain.metrics.unwrap().pretrained);
    let (report, _) = run("sample", ", query_sample_size=13");
    assert_eq!(report.queries.unwrap().evaluated, 13);

    let (report, events) =
        run("interval", ", steps_per_interval=4, caption=held, output_model_names=True, batch_size=8");
    let steps: Vec<usize> = events
        .iter()
        .filter_map(|event| match event {
            Event::Metric { name, step, .. } if name == "held_model_mrr" => Some(*step),
            _ => None,
        })
        .collect();
    assert_eq!(report.training.steps, 12);
    assert_eq!(steps, [0, 4, 8, 12]);
    let said =
        |words: &str| events.iter().any(|event| matches!(event, Event::Log { message, .. } if message.contains(words)));
    assert!(said("`batch_size` is not used: texts are packed by their tokens"));

    let both = [("callbacks", callback("")), ("query_data", test.clone())];
    let error = failure(&place.spec("both", &both.each_ref().map(|(name, value)| (*name, value.as_str()))));
    assert!(error.contains("both say what to measure; leave one out"), "{error}");
}

#[test]
fn early_stopping_between_epochs_ends_the_run_there() {
    let place = Place::new();
    let test = place.path("test.csv").display().to_string();
    // No measurement reaches the baseline.
    let callbacks = format!(
        "EvaluationCallback(query_data='{test}',steps_per_interval=2),EarlyStopping(monitor=mrr,patience=2,baseline=2)"
    );
    let fields = [("callbacks", callbacks.as_str()), ("keep", "last"), ("epochs", "5")];
    let (report, events) = heard(&place.spec("run", &fields));
    assert_eq!((report.training.steps, report.training.epochs), (4, 0));
    assert!(report.training.train_loss > 0.0 && report.metrics.is_some());
    assert!(
        events
            .iter()
            .any(|event| matches!(event, Event::Log { message, .. } if message == "stopped early after step 4"))
    );
}

#[test]
fn fewer_examples_than_a_batch_are_trained_with_a_warning() {
    let place = Place::new();
    let pairs = place.path("pairs.csv").display().to_string();
    let loss = "MultipleNegativesRankingLoss";
    let fields = [("train_data", pairs.as_str()), ("loss", loss), ("batch_size", "128"), ("epochs", "1")];
    let (report, events) = heard(&place.spec("run", &fields));
    assert_eq!((report.training.steps, report.training.examples), (1, 96));
    let message = "batch_size 128, but only 96 examples: every batch has 96".to_owned();
    assert!(events.contains(&Event::Log { level: Level::Warning, message }), "{events:?}");
}

#[test]
fn data_of_which_no_batch_teaches_anything_is_refused() {
    let place = Place::new();
    let write = |name: &str, rows: &str| {
        std::fs::write(place.path(name), rows).unwrap();
        place.path(name).display().to_string()
    };
    let one = write("one.csv", "anchor,positive\ncard,pin\n");
    let connected = write("connected.csv", "anchor,positive\ncard,pin\ncard,chip\nfee,chip\n");
    let single = write("single.csv", "text,label\ncard,a\nfee,b\nlimit,c\n");
    let triplet = write("triplet.csv", "anchor,positive,negative\ncard,pin,fee\n");
    let (train, pairs) = (place.path("train.csv"), place.path("pairs.csv"));
    let (train, pairs) = (train.display().to_string(), pairs.display().to_string());
    let (ranking, margin) = ("MultipleNegativesRankingLoss", "TripletMarginLoss");
    for (data, loss, batch_size, sampler, words) in [
        (&one, ranking, "8", "auto", "one.csv: expected at least 2 pairs that do not match each other, got 1,"),
        (&connected, margin, "8", "auto", "expected at least 2 pairs that do not match each other, got 3,"),
        (&connected, margin, "8", "class", "expected at least 2 pairs that do not match each other, got 3,"),
        (&single, margin, "8", "random", "expected classes of at least 2 examples, got 3 classes of one each"),
        (&train, margin, "2", "auto", "`batch_size`: expected 4 or more, for 2 classes of 2 items"),
        (&train, margin, "1", "random", "`batch_size`: expected 4 or more, for 2 classes of 2 items"),
        (&pairs, ranking, "1", "auto", "`batch_size`: expected 2 or more: the negatives of a pair are the other pairs"),
    ] {
        let fields = [("train_data", data.as_str()), ("loss", loss), ("batch_size", batch_size), ("sampler", sampler)];
        let error = failure(&place.spec("refused", &fields));
        assert!(error.contains(words), "{data} {loss}: {error}");
    }
    for (data, loss, batch_size) in [(&single, margin, "8"), (&triplet, ranking, "1"), (&triplet, margin, "1")] {
        let fields = [("train_data", data.as_str()), ("loss", loss), ("batch_size", batch_size), ("epochs", "1")];
        let output = format!("taught-{loss}-{}", data.ends_with("single.csv"));
        assert!(finish(&place.spec(&output, &fields)).training.steps > 0, "{data} {loss}");
    }
}
