//! Whole runs with losses that learn and remember: the same gradients whatever the micro-batches, the same bits after a
//! stop, their own optimiser.
#![cfg(feature = "engine")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod tiny;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::{Cpu, Device};
use finetuner::artifact::{Checkpoint, Weights};
use finetuner::event::{Event, Level};
use finetuner::spec::RunSpec;
use finetuner::train::{Outcome, train, train_on};

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        tiny::model(&folder.path().join("model"));
        tiny::labelled(&folder.path().join("train.csv"), 0, 8);
        tiny::labelled(&folder.path().join("test.csv"), 100, 4);
        tiny::pairs(&folder.path().join("pairs.csv"), 0, 6);
        tiny::scored(&folder.path().join("scored.csv"), 0, 6);
        tiny::labelled_pairs(&folder.path().join("classes.csv"), 0, 6);
        Place { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn spec(&self, output: &str, fields: &[(&str, &str)]) -> RunSpec {
        let mut spec = RunSpec {
            model: self.path("model").display().to_string(),
            train_data: self.path("train.csv"),
            init: "random".into(),
            output: Some(self.path(output)),
            threads: Some(2),
            ..Default::default()
        };
        let common = [("batch_size", "16"), ("learning_rate", "3e-3"), ("epochs", "2"), ("keep", "last")];
        for (field, value) in common.iter().chain(fields) {
            spec.apply(field, value).unwrap();
        }
        if spec.train_data.ends_with("classes.csv") {
            spec.kind = Some("labelled_pairs".into());
        }
        spec
    }

    fn run(&self, output: &str, fields: &[(&str, &str)]) -> Vec<Event> {
        let mut events = Vec::new();
        let spec = self.spec(output, fields);
        let outcome = train(&spec, &mut |event: &Event| events.push(event.clone()), &AtomicBool::new(false)).unwrap();
        assert!(matches!(outcome, Outcome::Finished(_)), "{outcome:?}");
        events
    }

    /// Every tensor of the checkpoint that a run leaves when it is told to stop at once, of one rank or of several.
    fn checkpoint(&self, output: &str, ranks: usize, fields: &[(&str, &str)]) -> Vec<(String, Vec<f32>)> {
        let devices = (0..ranks).map(|_| Box::new(Cpu::F32) as Box<dyn Device>).collect();
        let spec = self.spec(output, fields);
        let outcome = train_on(devices, &spec, &mut |_: &Event| {}, &AtomicBool::new(true)).unwrap();
        assert!(matches!(outcome, Outcome::Stopped { step: 1 }), "{outcome:?}");
        let checkpoint = Checkpoint::open(&self.path(output).join("checkpoint.safetensors")).unwrap();
        let read = |(name, shape): (&str, &[usize])| (name.to_owned(), checkpoint.f32s(name, shape).unwrap());
        checkpoint.shapes().map(read).collect()
    }

    fn bits(&self, output: &str) -> Vec<(String, Vec<u32>)> {
        tiny::bits(&Weights::open(&self.path(output)).unwrap())
    }
}

fn failure(spec: &RunSpec) -> String {
    train(spec, &mut |_: &Event| {}, &AtomicBool::new(false)).unwrap_err().to_string()
}

/// Losses with their options and data.
const LOSSES: [(&str, &str, &str); 18] = [
    ("ArcFaceLoss", "scale=8", "train.csv"),
    ("SubCenterArcFaceLoss", "scale=8,sub_centers=2", "train.csv"),
    ("SphereFaceLoss", "", "train.csv"),
    ("ProxyAnchorLoss", "alpha=8,weight_regularizer=RegularFaceRegularizer", "train.csv"),
    ("SoftTripleLoss", "embedding_regularizer=LpRegularizer", "train.csv"),
    ("P2SGradLoss", "", "train.csv"),
    ("CrossBatchMemory", "loss=NTXentLoss,memory_size=64", "train.csv"),
    ("DynamicSoftMarginLoss", "", "train.csv"),
    ("MultipleLosses", "losses=NormalizedSoftmaxLoss+SupConLoss,weights=[1,0.5]", "train.csv"),
    ("MatryoshkaLoss", "loss=MultipleNegativesRankingLoss,matryoshka_dims=32+16+8", "pairs.csv"),
    ("ClipLoss", "", "pairs.csv"),
    ("MatryoshkaLoss", "loss=CoSENTLoss,matryoshka_dims=32+8", "scored.csv"),
    ("AdaptiveLayerLoss", "loss=MultipleNegativesRankingLoss", "pairs.csv"),
    ("Matryoshka2dLoss", "loss=CoSENTLoss,matryoshka_dims=32+8,n_dims_per_step=-1,n_layers_per_step=-1", "scored.csv"),
    ("SoftmaxLoss", "", "classes.csv"),
    ("ContrastiveTensionLoss", "pos_neg_ratio=100", "pairs.csv"),
    ("ContrastiveTensionLossInBatchNegatives", "", "pairs.csv"),
    ("DynamicSoftMarginLoss", "aligned=true", "pairs.csv"),
];

/// Those without a tensor of their own.
const BARE: [&str; 4] = ["MatryoshkaLoss", "AdaptiveLayerLoss", "Matryoshka2dLoss", "ContrastiveTensionLoss"];

#[test]
fn the_gradient_cache_and_several_ranks_give_model_and_loss_the_same_gradients() {
    let place = Place::new();
    for (number, (loss, options, data)) in LOSSES.into_iter().enumerate() {
        let run = |name: &str, ranks: usize, tokens: &str, rate: &str| {
            let data = place.path(data).display().to_string();
            let fields = [
                ("loss", loss),
                ("loss_options", options),
                ("train_data", data.as_str()),
                ("micro_batch_tokens", tokens),
                ("batch_size", "48"),
                ("optimizer", "SGD"),
                ("learning_rate", rate),
                ("max_grad_norm", "0"),
                ("sampler", "random"),
            ];
            place.checkpoint(&format!("{number}-{name}"), ranks, &fields)
        };
        // One step of plain descent, unclipped: weights change by the gradient itself.
        let (start, whole) = (run("start", 1, "100000", "1e-30"), run("whole", 1, "100000", "0.1"));
        let (mut own, mut moved) = (0, 0.0f32);
        for (way, ranks, tokens) in [("cached", 1, "20"), ("ranks", 3, "100000"), ("cached ranks", 5, "20")] {
            let other = run(way, ranks, tokens, "0.1");
            assert_eq!(other.len(), whole.len());
            for ((name, start), ((_, whole), (_, other))) in start.iter().zip(whole.iter().zip(&other)) {
                let largest = start.iter().zip(whole).fold(0.0f32, |largest, (a, b)| largest.max((a - b).abs()));
                let worst = whole.iter().zip(other).fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
                own += usize::from(name.starts_with("loss/"));
                moved = if name.starts_with("loss/") { moved.max(largest) } else { moved };
                let scale = start.iter().fold(largest, |scale, x| scale.max(x.abs() / 50.0));
                assert!(worst <= 1e-5 * scale.max(1e-3), "{loss} {way} {name}: {worst} of {largest}");
            }
        }
        let learns = !["DynamicSoftMarginLoss", "CrossBatchMemory"].contains(&loss) && !BARE.contains(&loss);
        assert!(own > 0 || BARE.contains(&loss), "{loss}");
        assert!(moved > 0.0 || !learns, "{loss} learnt nothing of its own");
    }
}

#[test]
fn a_run_that_stops_and_resumes_ends_with_the_same_bits() {
    let place = Place::new();
    for (place_number, (loss, options, data)) in LOSSES.into_iter().enumerate() {
        if ["SubCenterArcFaceLoss", "SphereFaceLoss", "P2SGradLoss"].contains(&loss) {
            continue; // as the others: one tensor of vectors
        }
        let data = place.path(data).display().to_string();
        let mut fields =
            vec![("loss", loss), ("loss_options", options), ("train_data", data.as_str()), ("scheduler", "linear")];
        if ["ArcFaceLoss", "ClipLoss", "SoftTripleLoss"].contains(&loss) {
            fields.push(("loss_optimizer", "AdamW"));
            fields.push(("loss_optimizer_options", "learning_rate=0.05,weight_decay=0.1"));
        }
        place.run(&format!("whole-{place_number}"), &fields);
        let mut spec = place.spec(&format!("parts-{place_number}"), &fields);
        let stop = AtomicBool::new(false);
        let mut sink = |event: &Event| {
            if matches!(event, Event::Metric { name, step: 2, .. } if name == "train_loss") {
                stop.store(true, Ordering::Relaxed);
            }
        };
        assert!(matches!(train(&spec, &mut sink, &stop).unwrap(), Outcome::Stopped { step: 2 }), "{loss}");
        spec.resume = true;
        train(&spec, &mut |_: &Event| {}, &AtomicBool::new(false)).unwrap();
        let (whole, parts) = (format!("whole-{place_number}"), format!("parts-{place_number}"));
        assert_eq!(place.bits(&whole), place.bits(&parts), "{loss}");
    }
}

#[test]
fn a_loss_has_its_own_optimizer_and_rate() {
    let place = Place::new();
    let own = |output: &str, fields: &[(&str, &str)]| {
        let fields = [&[("loss", "ArcFaceLoss"), ("optimizer", "SGD"), ("loss_options", "scale=8")], fields].concat();
        let tensors = place.checkpoint(output, 1, &fields);
        tensors.into_iter().find(|(name, _)| name == "loss/0/weight").unwrap().1
    };
    let start = own("start", &[("learning_rate", "1e-30")]);
    let moved = |output: &str, fields: &[(&str, &str)]| -> f32 {
        start.iter().zip(own(output, fields)).fold(0.0, |largest, (a, b)| largest.max((a - b).abs()))
    };
    // Without one: the class and the rate of the model's optimiser.
    let like_model = moved("like-model", &[("learning_rate", "1e-2")]);
    let tenfold = moved("tenfold", &[("learning_rate", "1e-2"), ("loss_optimizer_options", "learning_rate=0.1")]);
    assert!((tenfold / like_model / 10.0 - 1.0).abs() < 1e-3, "{tenfold} {like_model}");
    // Adam's first step is the rate.
    let adam = moved("adam", &[("loss_optimizer", "Adam"), ("loss_optimizer_options", "learning_rate=0.5")]);
    assert!((adam - 0.5).abs() < 1e-3, "{adam}");
    // The loss's tensors are not clipped.
    let clipped = moved("clipped", &[("learning_rate", "1e-2"), ("max_grad_norm", "1e-6")]);
    assert_eq!(clipped, like_model);
    // A logit scale has no weight decay.
    let data = place.path("pairs.csv").display().to_string();
    let scale = |output: &str, decay: &str| {
        let fields = [
            ("loss", "ClipLoss"),
            ("train_data", data.as_str()),
            ("loss_optimizer", "AdamW"),
            ("loss_optimizer_options", decay),
        ];
        let tensors = place.checkpoint(output, 1, &fields);
        tensors.into_iter().find(|(name, _)| name == "loss/0/weight").unwrap().1
    };
    assert_eq!(scale("no-decay", "weight_decay=0"), scale("decay", "weight_decay=0.9"));
}

#[test]
fn options_of_the_loss_optimizer_are_checked() {
    let place = Place::new();
    for (fields, expected) in [
        (
            vec![("loss", "SupConLoss"), ("loss_optimizer", "Adam")],
            "`loss_optimizer`: `SupConLoss` has no parameters of its own to optimise; leave it out",
        ),
        (
            vec![("loss", "SupConLoss"), ("loss_optimizer_options", "learning_rate=1")],
            "`loss_optimizer_options`: `SupConLoss` has no parameters",
        ),
        (
            vec![("loss", "ArcFaceLoss"), ("loss_optimizer", "Adamm")],
            "`loss_optimizer`: unknown optimizer `Adamm`, did you mean `Adam`?",
        ),
        (
            vec![("loss", "ArcFaceLoss"), ("loss_optimizer_options", "momentum=1")],
            "`loss_optimizer_options.momentum`: unknown option",
        ),
        (
            vec![("loss", "ArcFaceLoss"), ("loss_optimizer_options", "learning_rate=-1")],
            "`loss_optimizer_options.learning_rate`: expected a number above 0, got -1",
        ),
        (
            vec![("loss", "ArcFaceLoss"), ("loss_options", "num_classes=3")],
            "`loss_options.num_classes`: the training data holds 6 classes, got 3",
        ),
    ] {
        let error = failure(&place.spec("run", &fields));
        assert!(error.starts_with(expected), "{error}");
    }
    let pairs = place.path("pairs.csv").display().to_string();
    let error = failure(&place.spec("run", &[("loss", "ArcFaceLoss"), ("train_data", &pairs)]));
    assert!(error.contains("`ArcFaceLoss` learns from labelled items, but the training data holds pairs"), "{error}");
}

#[test]
fn classes_of_validation_data_are_those_of_the_training_data() {
    let place = Place::new();
    let rows = std::fs::read_to_string(place.path("test.csv")).unwrap();
    let mut reversed: Vec<&str> = rows.lines().skip(1).collect();
    reversed.reverse();
    let write = |name: &str, rows: String| std::fs::write(place.path(name), rows).unwrap();
    write("reversed.csv", format!("text,label\n{}\n", reversed.join("\n")));
    write("more.csv", format!("{rows}a text of its own,another class\nanother text,another class\n"));
    let last_loss = |name: &str| {
        let data = place.path(name).display().to_string();
        let events = place.run(
            &format!("run-{name}"),
            &[("loss", "ArcFaceLoss"), ("eval_data", &data), ("batch_size", "64"), ("sampler", "random")],
        );
        let loss = events.iter().rev().find_map(|event| match event {
            Event::Metric { name, value, .. } if name == "val_loss" => Some(*value),
            _ => None,
        });
        let warned = events.iter().any(|event| {
            matches!(event, Event::Log { level: Level::Warning, message, .. } if message.contains("2 of 26 validation examples"))
        });
        (loss.unwrap(), warned)
    };
    let (expected, warned) = last_loss("test.csv");
    assert!(!warned);
    let (reversed, _) = last_loss("reversed.csv");
    assert!((reversed / expected - 1.0).abs() < 1e-5, "{reversed} {expected}");
    let (more, warned) = last_loss("more.csv");
    assert!((more / expected - 1.0).abs() < 1e-5, "{more} {expected}");
    assert!(warned);
}
