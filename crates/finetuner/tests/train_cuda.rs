//! Whole runs on a GPU, real or emulated, beside the same runs on the processor: their losses follow one another.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stderr, reason = "why a test was left out")]

#[path = "../../engine/tests/common/emulated.rs"]
mod emulated;
#[allow(dead_code, reason = "other tests use the rest")]
mod tiny;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use finetuner::event::Event;
use finetuner::spec::RunSpec;
use finetuner::train::{Outcome, Report, train};

/// Whether there is a GPU, if need be an emulated one; says so where there is not.
fn has_gpu() -> bool {
    emulated::gpu_or_emulated().inspect_err(|reason| eprintln!("skipped: {reason}")).is_ok()
}

fn spec(model: &Path, train_data: &Path, output: PathBuf, fields: &[(&str, &str)]) -> RunSpec {
    let mut spec = RunSpec {
        model: model.display().to_string(),
        train_data: train_data.to_owned(),
        output: Some(output),
        threads: Some(2),
        keep: Some("last".into()),
        ..Default::default()
    };
    let common = [("batch_size", "24"), ("learning_rate", "1e-3"), ("epochs", "1"), ("canary", "false")];
    common.iter().chain(fields).for_each(|(field, value)| spec.apply(field, value).unwrap());
    spec
}

/// The losses of a run's steps, and its report.
fn run(spec: &RunSpec) -> (Vec<f64>, Report) {
    let mut losses = Vec::new();
    let mut sink = |event: &Event| {
        if let Event::Metric { name, value, .. } = event
            && name == "train_loss"
        {
            losses.push(*value);
        }
    };
    match train(spec, &mut sink, &AtomicBool::new(false)).unwrap() {
        Outcome::Finished(report) => (losses, *report),
        other => panic!("{other:?}"),
    }
}

/// Runs on the processor and on the GPU, each in both precisions, and compares the losses.
fn follow(what: &str, spec_of: impl Fn(&str) -> RunSpec) {
    let on = |device: &str, precision: &str| {
        let mut spec = spec_of(&format!("{device}-{precision}"));
        spec.apply("device", device).unwrap();
        spec.apply("precision", precision).unwrap();
        let (losses, report) = run(&spec);
        assert_eq!(report.memory.device_peak_bytes.is_some_and(|bytes| bytes > 0), device == "cuda");
        losses
    };
    let expected = on("cpu", "f32");
    assert!(expected.len() >= 4, "{what}: {} steps are no curve", expected.len());
    // Where the processor has no bf16, its second run is the first once more.
    for (device, precision, tolerance) in [("cuda", "f32", 1e-3), ("cuda", "bf16", 0.05), ("cpu", "bf16", 0.05)] {
        let got = on(device, precision);
        assert_eq!(got.len(), expected.len());
        for (step, (got, expected)) in got.iter().zip(&expected).enumerate() {
            let error = (got - expected).abs() / expected.abs().max(0.1);
            assert!(error < tolerance, "{what}, {device} {precision}, step {step}: {got} instead of {expected}");
        }
    }
}

#[test]
fn text_encoders_learn_alike() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let pairs = folder.path().join("pairs.csv");
    tiny::pairs(&pairs, 0, 16);
    for family in ["bert", "distilbert", "mpnet", "roberta"] {
        let model = folder.path().join(family);
        tiny::model(&model);
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/encoders").join(family);
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(golden.join(file), model.join(file)).unwrap();
        }
        follow(family, |name| {
            let fields = [("loss", "MultipleNegativesRankingLoss"), ("max_length", "30")];
            spec(&model, &pairs, folder.path().join(format!("{family}-{name}")), &fields)
        });
    }
}

#[test]
fn objectives_on_labels_and_the_gradient_cache_learn_alike() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (model, train_data) = (folder.path().join("model"), folder.path().join("train.csv"));
    tiny::model(&model);
    tiny::labelled(&train_data, 0, 24);
    let cases: [(&str, &[(&str, &str)]); 3] = [
        ("triplets", &[("loss", "TripletMarginLoss"), ("miner", "TripletMarginMiner")]),
        ("centres", &[("loss", "ArcFaceLoss"), ("loss_optimizer", "SGD")]),
        ("cache", &[("loss", "SupConLoss"), ("micro_batch_tokens", "40")]),
    ];
    for (name, fields) in cases {
        follow(name, |variant| {
            let mut spec = spec(&model, &train_data, folder.path().join(format!("{name}-{variant}")), fields);
            spec.apply("init", "random").unwrap();
            spec
        });
    }
}

#[test]
fn a_network_of_pictures_learns_alike() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (model, photos) = (folder.path().join("model"), folder.path().join("photos"));
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/vision/resnet18");
    std::fs::create_dir_all(&model).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(golden.join(file), model.join(file)).unwrap();
    }
    let processor =
        r#"{"image_processor_type": "ViTImageProcessor", "do_resize": true, "size": {"height": 32, "width": 32}}"#;
    std::fs::write(model.join("preprocessor_config.json"), processor).unwrap();
    for (class, colour) in [("red", [230u8, 20, 20]), ("green", [20, 200, 40]), ("blue", [30, 40, 220])] {
        std::fs::create_dir_all(photos.join(class)).unwrap();
        for shade in 0..4u8 {
            let pixels: Vec<u8> = colour.map(|value| value.saturating_sub(9 * shade)).repeat(24 * 24);
            let file = photos.join(class).join(format!("{shade}.png"));
            image::save_buffer(&file, &pixels, 24, 24, image::ExtendedColorType::Rgb8).unwrap();
        }
    }
    follow("resnet18", |name| {
        let fields = [("loss", "SupConLoss"), ("batch_size", "6"), ("num_items_per_class", "2"), ("epochs", "2")];
        spec(&model, &photos, folder.path().join(format!("resnet-{name}")), &fields)
    });
}
