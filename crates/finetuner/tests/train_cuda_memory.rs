//! A GPU whose memory a batch does not fit: the run goes on with smaller micro-batches, says so, and learns the same. On the
//! emulated GPU only, whose memory can be chosen.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stderr, reason = "why a test was left out")]

#[path = "../../engine/tests/common/emulated.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod emulated;
#[allow(dead_code, reason = "other tests use the rest")]
mod tiny;

use std::sync::atomic::AtomicBool;

use finetuner::event::{Event, Level};
use finetuner::spec::RunSpec;
use finetuner::train::{Outcome, Report, train};

/// What matrix products take beside their operands, whatever the batch.
const WORKSPACE: u64 = 32 << 20;

/// What a run warned of, its losses, and its report.
fn run(spec: &RunSpec) -> (Vec<String>, Vec<f64>, Report) {
    let (mut warnings, mut losses) = (Vec::new(), Vec::new());
    let mut sink = |event: &Event| match event {
        Event::Log { level: Level::Warning, message } => warnings.push(message.clone()),
        Event::Metric { name, value, .. } if name == "train_loss" => losses.push(*value),
        _ => {}
    };
    match train(spec, &mut sink, &AtomicBool::new(false)).unwrap() {
        Outcome::Finished(report) => (warnings, losses, *report),
        other => panic!("{other:?}"),
    }
}

#[test]
fn too_little_memory_makes_micro_batches_smaller() {
    let is_emulated = engine::cuda::found().is_err() && emulated::load().is_ok();
    if !is_emulated {
        return eprintln!("skipped: no GPU is emulated here");
    }
    let folder = tempfile::tempdir().unwrap();
    let (model, pairs) = (folder.path().join("model"), folder.path().join("pairs.csv"));
    tiny::model(&model);
    tiny::pairs(&pairs, 0, 16);
    let spec = |name: &str| {
        let mut spec = RunSpec {
            model: model.display().to_string(),
            train_data: pairs.clone(),
            init: "random".into(),
            output: Some(folder.path().join(name)),
            ..Default::default()
        };
        let fields = [
            ("loss", "MultipleNegativesRankingLoss"),
            ("batch_size", "48"),
            ("learning_rate", "1e-3"),
            ("epochs", "1"),
            ("canary", "false"),
            ("device", "cuda"),
            ("precision", "f32"),
        ];
        fields.iter().for_each(|(field, value)| spec.apply(field, value).unwrap());
        spec
    };
    let (warnings, expected, report) = run(&spec("roomy"));
    assert!(!warnings.iter().any(|warning| warning.contains("out of memory")), "{warnings:?}");

    let peak = report.memory.device_peak_bytes.unwrap();
    let tight = WORKSPACE + (peak - WORKSPACE) * 7 / 10;
    // SAFETY: this test is alone in its process, and the run above has ended with its threads.
    unsafe { std::env::set_var("EMULATED_BYTES", tight.to_string()) };
    let (warnings, losses, _) = run(&spec("tight"));
    let warned = warnings.iter().filter(|warning| warning.contains("going on with micro-batches of")).count();
    assert!(warned > 0, "{warnings:?}");
    assert_eq!(losses.len(), expected.len());
    for (loss, expected) in losses.iter().zip(&expected) {
        assert!((loss - expected).abs() < 1e-3 * expected.abs(), "{losses:?} instead of {expected:?}");
    }
}
