//! Low-rank adapters: values and gradients against peft, whole runs, and adapter folders as models.
//! The golden files and the program that made them are in `golden/`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[allow(dead_code, reason = "not every test uses all of it")]
mod tiny;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use engine::{Cpu, Gradients, Tape, Tensor};
use finetuner::artifact::{ModelFolder, Weights};
use finetuner::data::Modality;
use finetuner::encoder::{Encoder, EncoderOptions, LoraOptions, Model, ModelOptions, Role, source};
use finetuner::event::Event;
use finetuner::spec::{RunSpec, parse_options};
use finetuner::tokens::PackedBatch;
use finetuner::train::{Outcome, Report, train};
use safetensors::SafeTensors;

/// Case, family, options of `lora`, parameters that have a gradient.
const CASES: [(&str, &str, &str, usize); 4] = [
    ("bert", "bert", "rank=4,alpha=8", 8),
    ("bert-all", "bert", "rank=2,alpha=3,targets=all-linear", 24),
    ("distilbert", "distilbert", "rank=3,alpha=3,targets=k_lin+lin2", 8),
    ("mpnet", "mpnet", "rank=5,alpha=16,targets=attn.o+intermediate.dense", 8),
];

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(path)
}

fn words(bytes: &[u8], name: &str) -> Vec<[u8; 4]> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    file.tensor(name).unwrap().data().chunks_exact(4).map(|word| word.try_into().unwrap()).collect()
}

fn f32s(bytes: &[u8], name: &str) -> Vec<f32> {
    words(bytes, name).into_iter().map(f32::from_le_bytes).collect()
}

/// The packed batch of a family and the cotangent of its embeddings.
fn batch(family: &str) -> (PackedBatch, Vec<f32>) {
    let bytes = std::fs::read(golden(&format!("encoders/{family}/golden.safetensors"))).unwrap();
    let u32s = |name: &str| -> Vec<u32> { words(&bytes, name).into_iter().map(u32::from_le_bytes).collect() };
    let offsets = u32s("offsets");
    let batch = PackedBatch {
        ids: u32s("ids"),
        type_ids: Some(u32s("type_ids")),
        positions: offsets.windows(2).flat_map(|ends| 0..ends[1] - ends[0]).collect(),
        examples: (0..offsets.len() as u32 - 1).collect(),
        offsets,
    };
    (batch, f32s(&bytes, "upstream"))
}

/// The largest difference, relative to the largest expected value.
fn difference(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let scale = expected.iter().fold(0.0f32, |scale, value| scale.max(value.abs()));
    got.iter().zip(expected).fold(0.0f32, |error, (a, b)| error.max((a - b).abs())) / scale.max(1e-3)
}

fn pooled(encoder: &Encoder, batch: &PackedBatch) -> Vec<f32> {
    let mut tape = Tape::inference(&Cpu::F32, &encoder.parameters);
    encoder.forward(&mut tape, &batch.clone().into(), None).unwrap().value().data().to_vec()
}

/// The adapted encoder of a case with the golden matrices.
fn adapted(case: &str, family: &str, options: &str) -> Encoder {
    let folder = ModelFolder::open(&golden(&format!("encoders/{family}"))).unwrap();
    let mut encoder = Encoder::open(&folder, &EncoderOptions::default()).unwrap();
    let options = LoraOptions::read(&parse_options(options).unwrap()).unwrap().unwrap();
    encoder.add_lora(&options, 1).unwrap();
    let matrices = Weights::open(&golden(&format!("lora/{case}/adapter_model.safetensors"))).unwrap();
    for name in matrices.names().filter(|name| !name.contains("pooler")) {
        let id = encoder.parameters.find(name).unwrap_or_else(|| panic!("{case}: no {name}"));
        let value = &mut encoder.parameters.get_mut(id).value;
        *value = Tensor::from_vec(matrices.tensor(name, value.shape()).unwrap(), value.shape()).unwrap();
    }
    encoder
}

#[test]
fn values_and_gradients_equal_peft() {
    for (case, family, options, trained) in CASES {
        let (batch, upstream) = batch(family);
        let expected = std::fs::read(golden(&format!("lora/{case}/golden.safetensors"))).unwrap();
        let mut encoder = adapted(case, family, options);
        let mut gradients = Gradients::new(&encoder.parameters);
        let mut tape = Tape::recording(&Cpu::F32, &encoder.parameters);
        let embeddings = encoder.forward(&mut tape, &batch.clone().into(), None).unwrap();
        let error = difference(embeddings.value().data(), &f32s(&expected, "pooled.mean"));
        assert!(error < 5e-6, "{case}: {error}");
        let upstream = Tensor::from_vec(upstream, embeddings.value().shape()).unwrap();
        tape.backward(&embeddings, upstream, &mut gradients).unwrap();

        let mut seen = 0;
        for (parameter, gradient) in encoder.parameters.iter().zip(gradients.iter()) {
            assert_eq!(parameter.trainable, gradient.is_some(), "{case}: {}", parameter.name);
            let Some(gradient) = gradient else { continue };
            let error = difference(gradient.data(), &f32s(&expected, &format!("gradient.{}", parameter.name)));
            assert!(error < 1e-5, "{case}: {}: {error}", parameter.name);
            seen += 1;
        }
        assert_eq!(seen, trained, "{case}");

        encoder.merge_lora();
        let error = difference(&pooled(&encoder, &batch), &f32s(&expected, "pooled.mean"));
        assert!(error < 5e-6, "{case}, merged: {error}");
    }
}

#[test]
fn a_folder_that_peft_wrote_opens_as_a_model() {
    for (case, family, ..) in CASES {
        let folder = source::resolve(&golden(&format!("lora/{case}")).display().to_string()).unwrap().open().unwrap();
        let encoder = Encoder::open(&folder, &EncoderOptions::default()).unwrap();
        let expected = std::fs::read(golden(&format!("lora/{case}/golden.safetensors"))).unwrap();
        let error = difference(&pooled(&encoder, &batch(family).0), &f32s(&expected, "pooled.mean"));
        assert!(error < 5e-6, "{case}: {error}");
    }
}

#[test]
fn the_adapted_layers_are_named_so_that_peft_finds_them_and_no_others() {
    let modules = |case: usize| {
        let (case, family, options, _) = CASES[case];
        adapted(case, family, options).adapted_modules()
    };
    assert_eq!(modules(0), ["attention.self.query", "attention.self.value"]);
    assert_eq!(modules(1).len(), 6);
    assert_eq!(modules(3), ["attention.attn.o", "intermediate.dense"]);
    let folder = ModelFolder::open(&golden("encoders/bert")).unwrap();
    let mut encoder = Encoder::open(&folder, &EncoderOptions::default()).unwrap();
    let only =
        |targets: &str| LoraOptions::read(&parse_options(&format!("targets={targets}")).unwrap()).unwrap().unwrap();
    encoder.add_lora(&only("encoder.layer.1.output.dense"), 1).unwrap();
    assert_eq!(encoder.adapted_modules(), ["encoder.layer.1.output.dense"], "`output.dense` names another one too");
    let error = encoder.add_lora(&only("qery"), 1).unwrap_err().to_string();
    assert!(error.contains("no linear layer `qery`, did you mean `query`?"), "{error}");
}

struct Place(tempfile::TempDir);

impl Place {
    /// Data, and a model that a run has made.
    fn new() -> Self {
        let place = Place(tempfile::tempdir().unwrap());
        tiny::model(&place.path("model"));
        tiny::labelled(&place.path("train.csv"), 0, 24);
        tiny::labelled(&place.path("test.csv"), 100, 10);
        let model = place.path("model").display().to_string();
        finish(&place.spec("base", &[("model", model.as_str()), ("init", "random"), ("epochs", "1")]));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A run that goes on from the base.
    fn spec(&self, output: &str, fields: &[(&str, &str)]) -> RunSpec {
        let mut spec = RunSpec {
            model: self.path("base").display().to_string(),
            train_data: self.path("train.csv"),
            query_data: Some(self.path("test.csv")),
            output: Some(self.path(output)),
            threads: Some(2),
            keep: Some("last".into()),
            ..Default::default()
        };
        for (field, value) in [("batch_size", "24"), ("learning_rate", "3e-3"), ("epochs", "2")].iter().chain(fields) {
            spec.apply(field, value).unwrap();
        }
        spec
    }

    fn open(&self, name: &str) -> Model {
        let source = source::resolve(&self.path(name).display().to_string()).unwrap();
        Model::open(source.open().unwrap(), &ModelOptions::default()).unwrap()
    }

    fn embeddings(&self, name: &str) -> Vec<f32> {
        let texts = ["my card", "wire transfer please", "identity"];
        self.open(name).embed(&Cpu::F32, &texts, (Modality::Text, Role::Plain), |_| Ok(())).unwrap().0
    }
}

fn finish(spec: &RunSpec) -> Report {
    match train(spec, &mut |_: &Event| {}, &AtomicBool::new(false)).unwrap() {
        Outcome::Finished(report) => *report,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_merged_run_changes_the_adapted_layers_only() {
    let place = Place::new();
    let report = finish(&place.spec("run", &[("lora", "rank=4,targets=query+value"), ("epochs", "6")]));
    let metrics = report.metrics.unwrap();
    assert!(metrics.finetuned.map > metrics.pretrained.map + 0.05, "it learns: {metrics:?}");
    let (start, end) = (Weights::open(&place.path("base")).unwrap(), Weights::open(&place.path("run")).unwrap());
    assert!(start.names().eq(end.names()));
    for name in start.names() {
        let shape = start.info(name).unwrap().shape.clone();
        let same = start.tensor(name, &shape).unwrap() == end.tensor(name, &shape).unwrap();
        let adapted = name.ends_with("query.weight") || name.ends_with("value.weight");
        assert_eq!(same, !adapted, "{name}");
    }
}

#[test]
fn an_adapter_is_a_model_and_the_same_as_the_merged_one() {
    let place = Place::new();
    let lora = "rank=4,targets=all-linear,dropout=0.1";
    let merged = finish(&place.spec("merged", &[("lora", lora)]));
    let kept = finish(&place.spec("kept", &[("lora", &format!("{lora},save=adapter"))]));
    assert_eq!(merged.metrics, kept.metrics);
    for (file, there) in [
        ("model.safetensors", false),
        ("config.json", false),
        ("adapter_config.json", true),
        ("adapter_model.safetensors", true),
    ] {
        assert_eq!(place.path("kept").join(file).is_file(), there, "{file}");
    }
    assert_eq!(place.embeddings("merged"), place.embeddings("kept"));
    assert_ne!(place.embeddings("base"), place.embeddings("kept"));

    // A run may start from an adapter, but not lay another one on it.
    let start = place.path("kept").display().to_string();
    finish(&place.spec("further", &[("model", &start), ("lora", "rank=2")]));
    assert_ne!(place.embeddings("kept"), place.embeddings("further"));
    let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/vision/resnet18").display().to_string();
    for (fields, words) in [
        ([("model", start.as_str()), ("lora", "save=adapter")], "the base is an adapter itself"),
        ([("image_model", pictures.as_str()), ("lora", "save=adapter")], "a joined pair has two bases"),
        ([("init", "random"), ("lora", "save=adapter")], "the base's random weights would be lost"),
    ] {
        let error = train(&place.spec("refused", &fields), &mut |_: &Event| {}, &AtomicBool::new(false)).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    std::fs::remove_dir_all(place.path("base")).unwrap();
    let error = source::resolve(&start).unwrap().open().unwrap_err().to_string();
    assert!(error.contains("is an adapter, and its base cannot be opened"), "{error}");
}

#[test]
fn small_micro_batches_draw_the_same_masks() {
    let place = Place::new();
    let fields = [("lora", "rank=4,targets=all-linear,dropout=0.3"), ("epochs", "1"), ("output_dim", "8")];
    finish(&place.spec("whole", &fields));
    finish(&place.spec("parts", &[&fields[..], &[("micro_batch_tokens", "48")]].concat()));
    assert!(difference(&place.embeddings("parts"), &place.embeddings("whole")) < 1e-3);
}

#[test]
fn a_stopped_run_goes_on_with_the_same_bits() {
    let place = Place::new();
    let fields = [("lora", "rank=4,dropout=0.1,save=adapter")];
    finish(&place.spec("whole", &fields));
    let mut spec = place.spec("parts", &fields);
    let stop = AtomicBool::new(false);
    let mut sink = |event: &Event| {
        if matches!(event, Event::Progress { phase, done: 3, .. } if phase == "train") {
            stop.store(true, Ordering::Relaxed);
        }
    };
    let outcome = train(&spec, &mut sink, &stop).unwrap();
    assert!(matches!(outcome, Outcome::Stopped { step: 3 }), "{outcome:?}");
    let size = |name: &str| std::fs::metadata(place.path(name)).unwrap().len();
    assert!(size("parts/checkpoint.safetensors") < size("base/model.safetensors"), "frozen weights are not kept");
    spec.resume = true;
    finish(&spec);
    let bytes = |name: &str| std::fs::read(place.path(name).join("adapter_model.safetensors")).unwrap();
    assert_eq!(bytes("whole"), bytes("parts"));
}
