//! Several GPUs share every batch and sum their gradients by NCCL, or by way of the processor where that is missing. On the
//! emulated GPU, of which there can be two.

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

/// What matrix products of a device take beside their operands, whatever the batch.
const WORKSPACE: u64 = 32 << 20;

/// What a run told and warned of, its losses, and its report.
fn run(spec: &RunSpec) -> (Vec<String>, Vec<f64>, Report) {
    let (mut told, mut losses) = (Vec::new(), Vec::new());
    let mut sink = |event: &Event| match event {
        Event::Log { level: Level::Info | Level::Warning, message } => told.push(message.clone()),
        Event::Metric { name, value, .. } if name == "train_loss" => losses.push(*value),
        _ => {}
    };
    match train(spec, &mut sink, &AtomicBool::new(false)).unwrap() {
        Outcome::Finished(report) => (told, losses, *report),
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_gpus_learn_what_one_learns() {
    // SAFETY: this test is alone in its process, before it has other threads.
    unsafe { std::env::set_var("EMULATED_GPUS", "2") };
    match engine::cuda::found() {
        Ok(found) if found.len() < 2 => return eprintln!("skipped: there is one GPU only"),
        Ok(_) => {}
        Err(reason) => {
            if let Err(emulated) = emulated::load() {
                return eprintln!("skipped: {reason}; and none is emulated: {emulated}");
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let (model, pairs) = (folder.path().join("model"), folder.path().join("pairs.csv"));
    tiny::model(&model);
    tiny::pairs(&pairs, 0, 8);
    let spec = |name: &str, device: &str| {
        let mut spec = RunSpec {
            model: model.display().to_string(),
            train_data: pairs.clone(),
            init: "random".into(),
            output: Some(folder.path().join(name)),
            ..Default::default()
        };
        let fields = [
            ("loss", "MultipleNegativesRankingLoss"),
            ("batch_size", "21"),
            ("learning_rate", "1e-3"),
            ("epochs", "2"),
            ("canary", "false"),
            ("device", device),
            ("precision", "f32"),
        ];
        fields.iter().for_each(|(field, value)| spec.apply(field, value).unwrap());
        spec
    };
    let close = |losses: &[f64], expected: &[f64], by: f64| {
        assert_eq!(losses.len(), expected.len());
        let far = losses.iter().zip(expected).find(|(loss, expected)| (*loss - *expected).abs() > by * expected.abs());
        assert_eq!(far, None, "{losses:?} instead of {expected:?}");
    };
    let (_, alone, second) = run(&spec("one", "cuda:1"));
    let (told, both, first) = run(&spec("both", "cuda:0,1"));
    assert!(told.iter().any(|told| told.contains("2 ranks share every batch")), "{told:?}");
    assert!(!told.iter().any(|told| told.contains("by way of the processor")), "{told:?}");
    close(&both, &alone, 1e-4);
    let (_, all, _) = run(&spec("all", "cuda:all"));
    assert_eq!(all, both, "the same GPUs, the same bits");

    if engine::cuda::found().unwrap().iter().all(|gpu| gpu.name.contains("Emulated")) {
        let near = |busy: Option<f64>, expected: f64| busy.is_some_and(|busy| (busy - expected).abs() < 1e-9);
        let (first_busy, second_busy) = (first.timing.device_busy, second.timing.device_busy);
        assert!(near(first_busy, 0.9) && near(second_busy, 0.8), "{first_busy:?}, {second_busy:?}");

        // Both share the emulated memory, so one of them is the first to have too little, and both go on with smaller parts.
        let peak = first.memory.device_peak_bytes.unwrap();
        let tight = 2 * WORKSPACE + (peak - 2 * WORKSPACE) * 7 / 10;
        // SAFETY: the runs above have ended with their threads.
        unsafe { std::env::set_var("EMULATED_BYTES", tight.to_string()) };
        let (told, tight, _) = run(&spec("tight", "cuda:0,1"));
        assert!(
            told.iter().any(|told| told.contains("rank ") && told.contains("going on with micro-batches of")),
            "{told:?}"
        );
        close(&tight, &alone, 1e-4);
        // SAFETY: as above.
        unsafe { std::env::remove_var("EMULATED_BYTES") };

        // Wherever in a step one of them is refused a block of memory, both make that step again or end for that reason.
        let (few, mut once_more) = (folder.path().join("few.csv"), 0);
        tiny::pairs(&few, 0, 1);
        for (gpu, block) in [(0, 110), (0, 150), (0, 170), (0, 230), (1, 20), (1, 60), (1, 80), (1, 140)] {
            // SAFETY: as above.
            unsafe { std::env::set_var("EMULATED_REFUSED", format!("{gpu}:{block}")) };
            let one_step =
                RunSpec { train_data: few.clone(), epochs: 1, ..spec(&format!("refused-{gpu}-{block}"), "cuda:0,1") };
            let mut sink = |event: &Event| {
                if let Event::Log { message, .. } = event {
                    once_more += usize::from(message.contains("going on with micro-batches"));
                }
            };
            match train(&one_step, &mut sink, &AtomicBool::new(false)) {
                Ok(done) => assert!(matches!(done, Outcome::Finished(_)), "{gpu}:{block}: {done:?}"),
                Err(error) => assert!(error.to_string().contains("is out of memory"), "{gpu}:{block}: {error}"),
            }
        }
        assert!(once_more >= 4, "only {once_more} of 8 steps were made again");
        // SAFETY: as above.
        unsafe { std::env::remove_var("EMULATED_REFUSED") };
        // SAFETY: the runs above have ended with their threads.
        unsafe { std::env::set_var("EMULATED_NCCL", "0") };
        let (told, without, _) = run(&spec("without", "cuda:0,1"));
        assert!(
            told.iter().any(|told| told.contains("by way of the processor") && told.contains("NCCL refuses")),
            "{told:?}"
        );
        close(&without, &alone, 1e-4);
    }
    let mut small = spec("missing", "cuda:0,7");
    small.epochs = 1;
    let error = train(&small, &mut |_: &Event| {}, &AtomicBool::new(false)).unwrap_err().to_string();
    assert!(error.contains("`device`") && error.contains("cuda:7"), "{error}");
}
