//! Whole runs without labels, with teachers and with a guide, on a tiny model.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod tiny;

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use finetuner::artifact::Weights;
use finetuner::event::Event;
use finetuner::spec::RunSpec;
use finetuner::train::{Outcome, Report, train};

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// A model to be, and data of every kind.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Place { folder };
        tiny::model(&place.path("model"));
        tiny::pairs(&place.path("pairs.csv"), 0, 8);
        tiny::scored(&place.path("binary.csv"), 0, 8);
        let (mut texts, mut triplets) = (String::new(), "query,positive,negative1,negative2\n".to_owned());
        let mut taught = "query,positive,negative1,negative2,score1,score2,score3\n".to_owned();
        for number in 0..8 {
            for topic in 0..tiny::TOPICS.len() {
                let text = |topic: usize, number: u64| tiny::text(topic % tiny::TOPICS.len(), number);
                let (query, positive) = (text(topic, 5 * number), text(topic, 5 * number + 1));
                let (first, second) = (text(topic + 1, 5 * number + 2), text(topic + 2, 5 * number + 3));
                writeln!(texts, "{query}").unwrap();
                writeln!(triplets, "{query},{positive},{first},{second}").unwrap();
                writeln!(taught, "{query},{positive},{first},{second},4.5,{},-3", number as f64 / 10.0).unwrap();
            }
        }
        for (name, contents) in [("texts.txt", texts), ("triplets.csv", triplets), ("taught.csv", taught)] {
            std::fs::write(place.path(name), contents).unwrap();
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A run on these data with random weights.
    fn spec(&self, output: &str, data: &str, fields: &[(&str, &str)]) -> RunSpec {
        let mut spec = RunSpec {
            model: self.path("model").display().to_string(),
            train_data: self.path(data),
            init: "random".into(),
            output: Some(self.path(output)),
            threads: Some(2),
            ..Default::default()
        };
        let common = [("batch_size", "16"), ("learning_rate", "3e-3"), ("epochs", "1")];
        for (field, value) in common.iter().chain(fields) {
            spec.apply(field, value).unwrap();
        }
        spec
    }

    fn weights(&self, output: &str) -> Weights {
        Weights::open(&self.path(output)).unwrap()
    }

    /// A model to learn from.
    fn teacher(&self) -> String {
        finish(&self.spec("teacher", "pairs.csv", &[("loss", "MNRL")]));
        self.path("teacher").display().to_string()
    }
}

fn heard(spec: &RunSpec) -> (Report, Vec<String>) {
    let mut said = Vec::new();
    let mut sink = |event: &Event| {
        if let Event::Log { message, .. } = event {
            said.push(message.clone());
        }
    };
    match train(spec, &mut sink, &AtomicBool::new(false)).unwrap() {
        Outcome::Finished(report) => (*report, said),
        other => panic!("{other:?}"),
    }
}

fn finish(spec: &RunSpec) -> Report {
    heard(spec).0
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
fn the_gradient_cache_gives_the_same_weights_for_every_loss() {
    let place = Place::new();
    let teacher = place.teacher();
    for (loss, data, guided) in [
        ("MultipleNegativesRankingLoss", "texts.txt", false),
        ("SupConLoss", "texts.txt", false),
        ("TripletLoss", "triplets.csv", false),
        ("sentence_transformers.ContrastiveLoss", "binary.csv", false),
        ("OnlineContrastiveLoss", "binary.csv", false),
        ("AnglELoss", "binary.csv", false),
        ("CoSENTLoss", "triplets.csv", false),
        ("MegaBatchMarginLoss", "pairs.csv", false),
        ("MarginMSELoss", "taught.csv", false),
        ("DistillKLDivLoss", "taught.csv", false),
        ("MultipleNegativesSymmetricRankingLoss", "pairs.csv", false),
        ("GISTEmbedLoss", "triplets.csv", true),
        ("EmbedDistillLoss", "texts.txt", true),
        ("MSELoss", "pairs.csv", true),
    ] {
        // One step of plain descent over all data, unclipped: the weights change by the gradient itself.
        let run = |name: &str, tokens: &str, rate: &str| {
            let output = format!("{loss}-{name}-{data}");
            let mut fields = vec![
                ("loss", loss),
                ("micro_batch_tokens", tokens),
                ("batch_size", "96"),
                ("optimizer", "SGD"),
                ("learning_rate", rate),
                ("max_grad_norm", "0"),
            ];
            if guided {
                fields.push(("guide", &teacher));
            }
            assert_eq!(finish(&place.spec(&output, data, &fields)).training.steps, 1);
            place.weights(&output)
        };
        let start = run("start", "100000", "1e-30");
        let error = difference(&start, &run("whole", "100000", "1"), &run("cached", "20", "1"));
        assert!(error < 1e-5, "{loss}: {error}");
    }
}

#[test]
fn texts_alone_train_two_dropout_views_and_say_so() {
    let place = Place::new();
    let (short, said) = heard(&place.spec("short", "texts.txt", &[]));
    assert!(
        said.iter().any(|line| line.contains("`MultipleNegativesRankingLoss`") && line.contains("SimCSE")),
        "{said:?}"
    );
    assert_eq!(short.training.examples, 48);
    let long = finish(&place.spec("long", "texts.txt", &[("epochs", "8")]));
    assert!(long.training.train_loss < 0.7 * short.training.train_loss, "{long:?} {short:?}");
    // Equal views would have cosine 1 with each other from the first step on: the masks are what is learnt against.
    assert_eq!(difference(&place.weights("long"), &place.weights("short"), &place.weights("short")), 0.0);
    finish(&place.spec("again", "texts.txt", &[]));
    assert_eq!(difference(&place.weights("long"), &place.weights("short"), &place.weights("again")), 0.0);

    // Scored pairs or labelled items measure what texts alone taught.
    let scored = place.path("binary.csv").display().to_string();
    let report = finish(&place.spec("measured", "texts.txt", &[("eval_data", &scored)]));
    assert!(report.correlation.is_some() && report.training.validation_loss.is_none());

    // The validation loss compares views as well.
    let report = finish(&place.spec("held", "texts.txt", &[("val_split", "0.25"), ("epochs", "4")]));
    assert!(report.training.validation_loss.unwrap() > 0.0);
}

#[test]
fn texts_alone_need_dropout_and_more_than_one_text() {
    let place = Place::new();
    std::fs::write(place.path("same.txt"), "my card\nmy card\n").unwrap();
    let error = failure(&place.spec("same", "same.txt", &[]));
    assert!(error.contains("at least 2 different texts"), "{error}");
    let config = place.path("model/config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("0.1", "0.0")).unwrap();
    let error = failure(&place.spec("dry", "texts.txt", &[]));
    assert!(error.contains("has no dropout"), "{error}");
}

#[test]
fn the_loss_follows_the_kind_of_data_unless_one_is_asked_for() {
    let place = Place::new();
    for (data, loss) in [
        ("pairs.csv", "TripletMarginLoss"),
        ("triplets.csv", "TripletMarginLoss"),
        ("binary.csv", "CoSENTLoss"),
        ("taught.csv", "MarginMSELoss"),
    ] {
        let (_, said) = heard(&place.spec(&format!("run-{data}"), data, &[]));
        assert!(said.iter().any(|line| line.starts_with(&format!("loss: `{loss}`"))), "{data}: {said:?}");
    }
    let (_, said) = heard(&place.spec("asked", "pairs.csv", &[("loss", "MNRL")]));
    assert!(!said.iter().any(|line| line.starts_with("loss: ")), "{said:?}");
}

#[test]
fn a_student_comes_close_to_its_teacher() {
    let place = Place::new();
    let teacher = place.teacher();
    let distil = |output: &str, fields: &[(&str, &str)]| {
        let common = [("loss", "EmbedDistillLoss"), ("guide", teacher.as_str()), ("seed", "5")];
        finish(&place.spec(output, "texts.txt", &[&common[..], fields].concat())).training.train_loss
    };
    let (first, last) = (distil("first", &[]), distil("last", &[("epochs", "12")]));
    assert!(last < 0.3 * first, "{first}, {last}");
    // Another width goes through a projection, which the loss learns.
    let narrow = [("output_dim", "8"), ("loss_options", "projection_dim=32"), ("epochs", "12")];
    let projected = distil("narrow", &narrow);
    assert!(projected < 0.5 * first, "{first}, {projected}");
    let error = failure(&place.spec(
        "refused",
        "texts.txt",
        &[("loss", "EmbedDistillLoss"), ("guide", &teacher), ("output_dim", "8")],
    ));
    assert!(error.contains("projection_dim=32"), "{error}");
}

#[test]
fn what_a_loss_cannot_use_is_refused_in_words() {
    let place = Place::new();
    let refused = |data: &str, fields: &[(&str, &str)]| {
        let error = failure(&place.spec("refused", data, fields));
        std::fs::remove_dir_all(place.path("refused")).unwrap();
        error
    };
    let contains = |error: String, words: &[&str]| {
        words.iter().for_each(|word| assert!(error.contains(word), "no `{word}` in: {error}"));
    };
    contains(refused("pairs.csv", &[("loss", "GISTEmbedLoss")]), &["`guide`", "compares with another model"]);
    contains(refused("pairs.csv", &[("guide", "mini")]), &["`guide`", "leave it out"]);
    contains(refused("pairs.csv", &[("loss", "TripletLoss")]), &["learns from triplets", "pairs"]);
    contains(refused("triplets.csv", &[("loss", "MarginMSELoss")]), &["scored_triplets", "holds triplets"]);
    contains(
        refused("binary.csv", &[("loss", "CoSENTLoss"), ("batch_size", "1")]),
        &["`batch_size`", "order of the scores"],
    );
    std::fs::write(place.path("graded.csv"), "sentence1,sentence2,score\nmy card,my pin,0.5\nmy fee,my cap,0.2\n")
        .unwrap();
    contains(refused("graded.csv", &[("loss", "OnlineContrastiveLoss")]), &["scored 0 or 1", "`my card`", "0.5"]);
    std::fs::write(place.path("equal.csv"), "sentence1,sentence2,score\nmy card,my pin,1\nmy fee,my cap,1\n").unwrap();
    contains(refused("equal.csv", &[("loss", "AnglELoss")]), &["different scores", "CosineSimilarityLoss"]);
}

#[test]
fn samplers_are_found_by_their_names() {
    let place = Place::new();
    tiny::labelled(&place.path("labelled.csv"), 0, 8);
    for (sampler, data) in [
        ("no_duplicates", "pairs.csv"),
        ("no_duplicates_hashed", "texts.txt"),
        ("group_by_label", "labelled.csv"),
        ("m_per_class", "labelled.csv"),
        ("MPerClassSampler", "labelled.csv"),
    ] {
        let report = finish(&place.spec(sampler, data, &[("sampler", sampler)]));
        assert!(report.training.steps >= 3, "{sampler}: {:?}", report.training);
    }
}

/// Two data sets with a loss each.
fn two(place: &Place, output: &str, sampler: &str, fields: &[(&str, &str)]) -> RunSpec {
    let mut spec = place.spec(output, "pairs.csv", fields);
    spec.train_data = PathBuf::new();
    let table = |data: &str, rest: &str| spec_options(&format!("train_data={},{rest}", place.path(data).display()));
    spec.datasets = vec![table("pairs.csv", "loss=MNRL"), table("binary.csv", "batch_size=8,loss=CoSENTLoss")];
    spec.dataset_sampler = sampler.into();
    spec
}

fn spec_options(text: &str) -> finetuner::spec::Options {
    finetuner::spec::parse_options(text).unwrap()
}

#[test]
fn several_data_sets_are_learnt_at_once_with_a_loss_each() {
    let place = Place::new();
    // 48 pairs in batches of 16 and 48 scored pairs in batches of 8.
    let report = finish(&two(&place, "proportional", "proportional", &[("epochs", "2")]));
    assert_eq!((report.training.steps, report.training.examples), (18, 192));
    assert!(report.data.contains("pairs.csv") && report.data.contains("binary.csv"), "{}", report.data);
    let report = finish(&two(&place, "robin", "round_robin", &[]));
    assert_eq!((report.training.steps, report.training.examples), (6, 3 * 16 + 3 * 8));

    // Validation goes by the loss of each data set.
    let report = finish(&two(&place, "held", "proportional", &[("val_split", "0.25")]));
    assert!(report.training.validation_loss.is_some() && report.metrics.is_some());

    // A run that stops between two data sets goes on with the same bits.
    finish(&two(&place, "whole", "proportional", &[("optimizer", "AdamW")]));
    let mut parts = two(&place, "parts", "proportional", &[("optimizer", "AdamW")]);
    let stop = AtomicBool::new(false);
    let mut sink = |event: &Event| {
        if matches!(event, Event::Metric { name, step: 4, .. } if name == "train_loss") {
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    };
    assert!(matches!(train(&parts, &mut sink, &stop).unwrap(), Outcome::Stopped { step: 4 }));
    parts.resume = true;
    finish(&parts);
    assert_eq!(difference(&place.weights("robin"), &place.weights("whole"), &place.weights("parts")), 0.0);
}
