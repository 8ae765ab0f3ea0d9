//! Several ranks that train together, emulated by threads on the processor: they learn what one learns, stop and go on as one,
//! and none waits for one that failed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[allow(dead_code, reason = "other tests use the rest")]
mod tiny;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::{Cpu, Device};
use finetuner::artifact::Weights;
use finetuner::event::Event;
use finetuner::spec::RunSpec;
use finetuner::train::{Outcome, train_on};
use finetuner::{Error, Result};

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        tiny::model(&folder.path().join("model"));
        tiny::pairs(&folder.path().join("pairs.csv"), 0, 16);
        tiny::pairs(&folder.path().join("held_out.csv"), 500, 20);
        tiny::labelled(&folder.path().join("labelled.csv"), 0, 12);
        Place { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn spec(&self, output: &str, fields: &[(&str, &str)]) -> RunSpec {
        let mut spec = RunSpec {
            model: self.path("model").display().to_string(),
            train_data: self.path("pairs.csv"),
            init: "random".into(),
            output: Some(self.path(output)),
            threads: Some(2),
            ..Default::default()
        };
        let common = [
            ("loss", "MultipleNegativesRankingLoss"),
            ("batch_size", "23"),
            ("learning_rate", "1e-3"),
            ("epochs", "2"),
        ];
        common.iter().chain(fields).for_each(|(field, value)| spec.apply(field, value).unwrap());
        spec
    }

    fn bits(&self, output: &str) -> Vec<(String, Vec<u32>)> {
        tiny::bits(&Weights::open(&self.path(output)).unwrap())
    }
}

fn devices(ranks: usize) -> Vec<Box<dyn Device>> {
    (0..ranks).map(|_| Box::new(Cpu::F32) as Box<dyn Device>).collect()
}

/// A run, told to stop after a step; what it measured, and how it ended.
fn run(spec: &RunSpec, ranks: usize, last: usize) -> (Vec<(String, usize, f64)>, Result<Outcome>) {
    let stop = AtomicBool::new(false);
    let mut metrics = Vec::new();
    let mut sink = |event: &Event| {
        if let Event::Metric { name, step, value } = event {
            metrics.push((name.clone(), *step, *value));
            if name == "train_loss" && *step == last {
                stop.store(true, Ordering::Relaxed);
            }
        }
    };
    let outcome = train_on(devices(ranks), spec, &mut sink, &stop);
    (metrics, outcome)
}

#[test]
fn what_is_measured_on_the_way_is_what_one_rank_measures() {
    let place = Place::new();
    let held_out = place.path("held_out.csv").display().to_string();
    let one = place.spec("one", &[("eval_data", held_out.as_str()), ("micro_batch_tokens", "64")]);
    let (expected, outcome) = run(&one, 1, 0);
    let Outcome::Finished(alone) = outcome.unwrap() else { panic!("not finished") };
    for ranks in [2, 3, 24] {
        let several = RunSpec { output: Some(place.path(&format!("ranks-{ranks}"))), ..one.clone() };
        let (found, outcome) = run(&several, ranks, 0);
        let Outcome::Finished(report) = outcome.unwrap() else { panic!("not finished") };
        assert_eq!(report.training.tokens, alone.training.tokens, "the tokens of all ranks are counted");
        assert_eq!(report.training.steps, alone.training.steps);
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().any(|(name, step, _)| name == "val_loss" && *step == 0));
        for ((name, step, value), (_, _, expected)) in found.iter().zip(&expected) {
            assert!(*step > 0 || value.to_bits() == expected.to_bits(), "{ranks} ranks, {name} of the untouched model");
            // Sums in another order move a rank or two of the retrieval metrics at most, and the losses hardly.
            let allowed = if name.contains("loss") || name == "learning_rate" { 1e-4 } else { 0.05 };
            assert!((value - expected).abs() <= allowed, "{ranks} ranks, {name} of step {step}: {value}, {expected}");
        }
    }
}

#[test]
fn ranks_share_what_a_guide_embeds() {
    let place = Place::new();
    let (_, outcome) = run(&place.spec("guide", &[("epochs", "1")]), 1, 0);
    assert!(matches!(outcome, Ok(Outcome::Finished(_))), "{outcome:?}");
    let guide = place.path("guide").display().to_string();
    let one = place.spec("one", &[("loss", "GISTEmbedLoss"), ("guide", &guide)]);
    let (expected, outcome) = run(&one, 1, 0);
    assert!(matches!(outcome, Ok(Outcome::Finished(_))), "{outcome:?}");
    for ranks in [3, 50] {
        let several = RunSpec { output: Some(place.path(&format!("ranks-{ranks}"))), ..one.clone() };
        let (found, outcome) = run(&several, ranks, 0);
        assert!(matches!(outcome, Ok(Outcome::Finished(_))), "{outcome:?}");
        assert_eq!(found.len(), expected.len());
        for ((name, step, value), (_, _, expected)) in found.iter().zip(&expected) {
            assert!((value - expected).abs() <= 1e-4, "{ranks} ranks, {name} of step {step}: {value}, {expected}");
        }
    }
}

#[test]
fn a_stop_ends_a_measurement_of_several_ranks() {
    let place = Place::new();
    tiny::pairs(&place.path("many.csv"), 1000, 200);
    let many = place.path("many.csv").display().to_string();
    let stop = AtomicBool::new(false);
    let mut heard = Vec::new();
    let mut sink = |event: &Event| {
        if let Event::Progress { phase, done, total, .. } = event {
            heard.push((phase.clone(), *done, *total));
            stop.store(true, Ordering::Relaxed);
        }
    };
    let outcome = train_on(devices(2), &place.spec("stopped", &[("eval_data", &many)]), &mut sink, &stop);
    assert!(matches!(outcome, Ok(Outcome::Stopped { step: 0 })), "{outcome:?}");
    let [(phase, done, total)] = &heard[..] else { panic!("{heard:?}") };
    assert!(phase == "evaluate before" && *done > 0 && done < total, "{heard:?}");
}

#[test]
fn ranks_stop_and_go_on_with_the_same_bits() {
    let place = Place::new();
    let fields = [("optimizer", "AdamW"), ("scheduler", "cosine"), ("micro_batch_tokens", "64"), ("keep", "last")];
    let (_, outcome) = run(&place.spec("whole", &fields), 2, 0);
    assert!(matches!(outcome, Ok(Outcome::Finished(_))), "{outcome:?}");
    let mut spec = place.spec("parts", &fields);
    let (_, outcome) = run(&spec, 2, 3);
    assert!(matches!(outcome, Ok(Outcome::Stopped { step: 3 })), "{outcome:?}");
    spec.resume = true;
    let (metrics, outcome) = run(&spec, 2, 0);
    assert!(matches!(outcome, Ok(Outcome::Finished(_))), "{outcome:?}");
    let first = metrics.iter().find(|(name, ..)| name == "train_loss").unwrap();
    assert_eq!(first.1, 4, "the run goes on after its third step");
    assert_eq!(place.bits("whole"), place.bits("parts"));

    // Another number of ranks goes on, too, and ends near that.
    let other = RunSpec { output: Some(place.path("other")), resume: false, ..spec.clone() };
    let (_, outcome) = run(&other, 3, 3);
    assert!(matches!(outcome, Ok(Outcome::Stopped { step: 3 })), "{outcome:?}");
    let (resumed, outcome) = run(&RunSpec { resume: true, ..other }, 1, 0);
    assert!(matches!(outcome, Ok(Outcome::Finished(_))), "{outcome:?}");
    assert_eq!(resumed.len(), metrics.len());
    for ((name, step, value), (_, _, expected)) in resumed.iter().zip(&metrics) {
        assert!(
            !name.contains("loss") || (value - expected).abs() < 1e-4,
            "{name} of step {step}: {value}, {expected}"
        );
    }
}

#[test]
fn early_stopping_and_the_time_limit_end_all_ranks() {
    let place = Place::new();
    let held_out = place.path("held_out.csv").display().to_string();
    let fields = [
        ("eval_data", held_out.as_str()),
        ("epochs", "50"),
        ("learning_rate", "1e-30"),
        ("callbacks", "EarlyStopping(monitor=val_loss,patience=1)"),
    ];
    let (_, outcome) = run(&place.spec("early", &fields), 3, 0);
    let Ok(Outcome::Finished(report)) = outcome else { panic!("{outcome:?}") };
    assert!(report.training.epochs < 10, "{}", report.training.epochs);
    let (_, outcome) = run(&place.spec("late", &[("max_time", "1s"), ("epochs", "5000")]), 3, 0);
    let Ok(Outcome::Finished(report)) = outcome else { panic!("{outcome:?}") };
    assert!(report.training.epochs < 5000);
}

#[test]
fn a_failure_of_one_rank_ends_all_with_what_it_was() {
    let place = Place::new();
    // Numbers leave their range on all ranks alike.
    let (_, outcome) = run(&place.spec("diverged", &[("learning_rate", "1e38"), ("max_grad_norm", "0")]), 3, 0);
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::Diverged(_)), "{error}");
    let (_, outcome) = run(&place.spec("advised", &[("advise", "true"), ("eval_data", "x")]), 2, 0);
    assert!(outcome.unwrap_err().to_string().contains("`advise`"));
    let missing = RunSpec { train_data: place.path("no.csv"), ..place.spec("missing", &[]) };
    let (_, outcome) = run(&missing, 2, 0);
    assert!(matches!(outcome.unwrap_err(), Error::Io { .. }));
    assert!(train_on(Vec::new(), &place.spec("none", &[]), &mut |_: &Event| {}, &AtomicBool::new(false)).is_err());
}

#[test]
fn a_picture_that_only_one_rank_cannot_read_is_named() {
    let place = Place::new();
    let picture = |name: &str, shade: u8| {
        let path = place.path(name);
        image::RgbImage::from_pixel(8, 8, image::Rgb([shade, 40, 90])).save(&path).unwrap();
        path
    };
    let mut rows = String::from("image,label\n");
    for place in 0..12u8 {
        let path = picture(&format!("{place}.png"), 20 * place);
        rows += &format!("{},{}\n", path.display(), if place % 2 == 0 { "even" } else { "odd" });
    }
    std::fs::write(place.path("pictures.csv"), rows).unwrap();
    let model = place.path("vision");
    std::fs::create_dir(&model).unwrap();
    let config = serde_json::json!({"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1],
        "layer_type": "basic", "num_channels": 3, "hidden_act": "relu", "downsample_in_first_stage": false});
    std::fs::write(model.join("config.json"), config.to_string()).unwrap();
    let preprocessor = serde_json::json!({"do_resize": true, "size": {"height": 32, "width": 32}, "resample": 2,
        "do_rescale": true, "rescale_factor": 1.0 / 255.0, "do_normalize": true, "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5]});
    std::fs::write(model.join("preprocessor_config.json"), preprocessor.to_string()).unwrap();
    let spec = |output: &str| RunSpec {
        model: model.display().to_string(),
        train_data: place.path("pictures.csv"),
        ..place.spec(output, &[("loss", "SupConLoss"), ("batch_size", "12"), ("sampler", "random"), ("epochs", "1")])
    };
    // Batch norms see each rank's own pictures; what they remember is of all.
    let (metrics, outcome) = run(&spec("pictures"), 3, 0);
    assert!(matches!(outcome, Ok(Outcome::Finished(_))), "{outcome:?}");
    assert!(metrics.iter().all(|(_, _, value)| value.is_finite()));

    // The last of those that are measured is read by the last rank alone.
    let gone = place.path("11.png");
    let mut told = Vec::new();
    let mut sink = |event: &Event| {
        if let Event::Log { message, .. } = event {
            if message.contains("4 ranks share every batch") {
                std::fs::rename(&gone, place.path("elsewhere.png")).unwrap();
            }
            told.push(message.clone());
        }
    };
    let measured = RunSpec { query_data: Some(place.path("pictures.csv")), ..spec("measured") };
    let error = train_on(devices(4), &measured, &mut sink, &AtomicBool::new(false)).unwrap_err();
    assert!(matches!(error, Error::Picture { .. }) && error.to_string().contains("11.png"), "{error}");
    assert!(told.last().is_some_and(|told| told.starts_with("rank 3: ")), "{told:?}");
    std::fs::rename(place.path("elsewhere.png"), &gone).unwrap();

    // It vanishes when all ranks have begun, before any reads the one batch of the second epoch.
    let mut sink = |event: &Event| {
        if matches!(event, Event::Metric { name, step: 1, .. } if name == "train_loss") {
            std::fs::remove_file(&gone).unwrap();
        }
    };
    let long = RunSpec { epochs: 5, ..spec("gone") };
    let error = train_on(devices(4), &long, &mut sink, &AtomicBool::new(false)).unwrap_err();
    assert!(matches!(error, Error::Picture { .. }) && error.to_string().contains("11.png"), "{error}");
}
