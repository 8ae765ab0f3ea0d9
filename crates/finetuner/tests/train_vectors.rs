//! Whole runs on vectors: by label and in pairs, opened again, and refused where the data does not fit.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use engine::Cpu;
use engine::random::Key;
use finetuner::data::{Modality, write_vector};
use finetuner::encoder::{Model, ModelOptions, Role, source};
use finetuner::evaluate::Similarity;
use finetuner::event::Event;
use finetuner::spec::RunSpec;
use finetuner::train::{Outcome, Report, read_vector_target, train};

const CLASSES: usize = 5;
const WIDTH: usize = 12;

/// Vectors that say their class in two of their numbers, under much noise in the others.
fn vector(class: usize, number: u64) -> Vec<f32> {
    let key = Key::new(7).part(class as u64).part(number);
    let mut values: Vec<f32> = (0..WIDTH as u64).map(|at| 3.0 * key.normal(at) as f32).collect();
    values[0] = (class as f32 * 1.3).cos() + 0.1 * key.normal(100) as f32;
    values[1] = (class as f32 * 1.3).sin() + 0.1 * key.normal(101) as f32;
    values
}

/// Labelled rows as `encode` writes them, the texts beside.
fn write_labelled(path: &Path, numbers: std::ops::Range<u64>) {
    let mut lines = String::new();
    for number in numbers {
        for class in 0..CLASSES {
            let embedding = write_vector(&vector(class, number));
            writeln!(lines, "{{\"text\": \"{class} {number}\", \"label\": \"c{class}\", \"embedding\": {embedding}}}")
                .unwrap();
        }
    }
    std::fs::write(path, lines).unwrap();
}

fn spec(folder: &Path, fields: &[(&str, &str)]) -> RunSpec {
    let mut spec = RunSpec {
        model: "mlp".into(),
        train_data: folder.join("train.jsonl"),
        output: Some(folder.join("run")),
        threads: Some(2),
        ..Default::default()
    };
    fields.iter().for_each(|(field, value)| spec.apply(field, value).unwrap());
    spec
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

fn open(folder: &Path) -> Model {
    let source = source::resolve(&folder.display().to_string()).unwrap();
    Model::open(source.open().unwrap(), &ModelOptions::default()).unwrap()
}

#[test]
fn classes_are_learnt_from_vectors_and_the_artifact_measures_the_same() {
    let folder = tempfile::tempdir().unwrap();
    write_labelled(&folder.path().join("train.jsonl"), 0..40);
    write_labelled(&folder.path().join("test.jsonl"), 100..110);
    let test = folder.path().join("test.jsonl");
    let queries = test.display().to_string();
    let fields = [
        ("model_options", "hidden_sizes=[24,8],activation=relu,l2=true"),
        ("query_data", queries.as_str()),
        ("loss", "SupConLoss"),
        ("learning_rate", "1e-2"),
        ("batch_size", "40"),
        ("epochs", "12"),
    ];
    let report = finish(&spec(folder.path(), &fields));
    let metrics = report.metrics.unwrap();
    assert!(metrics.finetuned.map > 0.6 && metrics.finetuned.map > metrics.pretrained.map + 0.2, "{metrics:?}");
    let tuned = open(&folder.path().join("run"));
    assert_eq!(tuned.encoder.dimension(), 8);
    let target = read_vector_target(&test, None, None).unwrap();
    let again = target.measure(&tuned, &Cpu::F32, Similarity::Cosine, 20, |_| Ok(())).unwrap();
    assert!((again.main().1 - metrics.finetuned.mrr).abs() < 1e-9, "{again:?}");
    let embed =
        |items: &[String]| tuned.embed(&Cpu::F32, items, (Modality::Vector, Role::Plain), |_| Ok(())).unwrap().0;
    let length: f32 = embed(&[write_vector(&vector(0, 7))]).iter().map(|value| value * value).sum();
    assert!((length - 1.0).abs() < 1e-5, "{length}");
    let card = std::fs::read_to_string(folder.path().join("run/README.md")).unwrap();
    assert!(card.contains("vectors in, vectors of 8 numbers out") && card.contains("--input vectors.jsonl"), "{card}");

    // A run goes on from the artifact, and says what does not fit.
    let run = folder.path().join("run").display().to_string();
    let mut next = spec(folder.path(), &fields[1..]);
    (next.model, next.output, next.epochs) = (run, Some(folder.path().join("next")), 1);
    finish(&next);
    std::fs::write(
        folder.path().join("train.jsonl"),
        "{\"vector\": [1, 2], \"label\": \"a\"}\n{\"vector\": [2, 1], \"label\": \"b\"}\n\
        {\"vector\": [1, 3], \"label\": \"a\"}\n{\"vector\": [3, 1], \"label\": \"b\"}\n",
    )
    .unwrap();
    let error = failure(&RunSpec { query_data: None, output: Some(folder.path().join("other")), ..next });
    assert!(error.contains("reads vectors of 12 numbers, got one of 2"), "{error}");
}

#[test]
fn pairs_of_rows_of_an_array_are_learnt_and_stopping_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (mut numbers, mut pairs) = (Vec::new(), "anchor,positive\n".to_owned());
    for at in 0..40u64 {
        for side in [0, 1] {
            let row = vector((at % 5) as usize, 2 * at + side);
            numbers.extend(row.iter().flat_map(|value| value.to_le_bytes()));
        }
        writeln!(pairs, "vectors.npy:{},vectors.npy:{}", 2 * at, 2 * at + 1).unwrap();
    }
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': (80, {WIDTH}), }}");
    header.extend(std::iter::repeat_n(' ', 64 - (11 + header.len()) % 64));
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(numbers);
    std::fs::write(folder.path().join("vectors.npy"), file).unwrap();
    std::fs::write(folder.path().join("pairs.csv"), pairs).unwrap();
    let train_data = folder.path().join("pairs.csv").display().to_string();
    let fields = [
        ("train_data", train_data.as_str()),
        ("loss", "MultipleNegativesRankingLoss"),
        ("learning_rate", "1e-2"),
        ("batch_size", "20"),
        ("epochs", "3"),
        ("keep", "last"),
    ];
    let whole = spec(folder.path(), &fields);
    finish(&whole);
    let stops = RunSpec { output: Some(folder.path().join("stops")), ..whole.clone() };
    let stop = AtomicBool::new(false);
    let mut sink = |event: &Event| {
        if matches!(event, Event::Metric { name, step: 3, .. } if name == "train_loss") {
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    };
    assert!(matches!(train(&stops, &mut sink, &stop).unwrap(), Outcome::Stopped { step: 3 }));
    finish(&RunSpec { resume: true, ..stops });
    let weights = |name: &str| std::fs::read(folder.path().join(name).join("model.safetensors")).unwrap();
    assert!(weights("run") == weights("stops"));
    let missing = "anchor,positive\nvectors.npy:0,vectors.npy:80\n";
    std::fs::write(folder.path().join("pairs.csv"), missing).unwrap();
    let error = failure(&RunSpec { output: Some(folder.path().join("none")), ..whole });
    assert!(error.contains("pairs.csv:2: `vectors.npy:80` is not there") && error.contains("rows 0 to 79"), "{error}");
}

#[test]
fn data_and_model_that_do_not_fit_are_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("train.jsonl");
    let refused = |lines: &str, fields: &[(&str, &str)], expected: &str| {
        std::fs::write(&place, lines).unwrap();
        let error = failure(&spec(folder.path(), fields));
        assert!(error.contains(expected), "{error}");
    };
    let vectors = "{\"vector\": [1, 2], \"label\": \"a\"}\n{\"vector\": [3, 4], \"label\": \"b\"}\n";
    let texts = "{\"text\": \"x\", \"label\": \"a\"}\n{\"text\": \"y\", \"label\": \"b\"}\n";
    refused(texts, &[], "`mlp` reads vectors, and the training data holds none");
    refused(vectors, &[("model", "mini")], "`mini` reads no vectors; take `mlp`");
    refused(
        vectors,
        &[("model", "mini"), ("model_options", "l2=true")],
        "`model_options`: is for `mlp`, not for `mini`",
    );
    refused("[1, 2]\n[3, 4]\n[5, 6]\n", &[], "vectors alone have no views to learn from");
    let ragged = vectors.replace("[3, 4]", "[3, 4, 5]");
    refused(&ragged, &[], "train.jsonl:2: expected a vector of 2 numbers in column `vector`, as before, got 3");
    let both = "{\"text\": \"x\", \"embedding\": [1, 2], \"label\": \"a\"}\n{\"text\": \"y\", \"embedding\": \"no\", \"label\": \"b\"}\n";
    refused(both, &[], "train.jsonl:2: expected a vector in column `embedding`, as in `[0.5, -1]`, got `no`");
}
