//! Whole runs on pictures: by class, and found by their names.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use engine::Cpu;
use finetuner::data::Modality;
use finetuner::encoder::{Model, ModelOptions, Role, source};
use finetuner::event::Event;
use finetuner::spec::RunSpec;
use finetuner::train::{Outcome, Report, train};

const COLOURS: [(&str, [u8; 3]); 6] = [
    ("red", [230, 20, 20]),
    ("green", [20, 200, 40]),
    ("blue", [30, 40, 220]),
    ("white", [250, 250, 250]),
    ("black", [5, 5, 5]),
    ("yellow", [240, 220, 20]),
];

/// Pictures in the folder `photos`, one folder a colour, and `pairs.csv` with their colours' names.
fn write_photos(folder: &Path) {
    let mut pairs = "text,image\n".to_owned();
    for (name, colour) in COLOURS {
        let class = folder.join("photos").join(name);
        std::fs::create_dir_all(&class).unwrap();
        for shade in 0..4u8 {
            let pixels: Vec<u8> = colour.map(|value| value.saturating_sub(4 * shade)).repeat(24 * 24);
            let file = class.join(format!("{shade}.png"));
            image::save_buffer(&file, &pixels, 24, 24, image::ExtendedColorType::Rgb8).unwrap();
        }
        writeln!(pairs, "{name},photos/{name}/0.png").unwrap();
    }
    std::fs::write(folder.join("pairs.csv"), pairs).unwrap();
}

/// A small ResNet with random weights that reads pictures of 32 x 32.
fn write_network(folder: &Path) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/vision/resnet18");
    std::fs::create_dir_all(folder).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(golden.join(file), folder.join(file)).unwrap();
    }
    let processor =
        r#"{"image_processor_type": "ViTImageProcessor", "do_resize": true, "size": {"height": 32, "width": 32}}"#;
    std::fs::write(folder.join("preprocessor_config.json"), processor).unwrap();
}

fn spec(folder: &Path, fields: &[(&str, &str)]) -> RunSpec {
    let mut spec =
        RunSpec { threads: Some(2), keep: Some("last".into()), output: Some(folder.join("run")), ..Default::default() };
    fields.iter().for_each(|(field, value)| spec.apply(field, value).unwrap());
    spec
}

fn finish(spec: &RunSpec) -> Report {
    match train(spec, &mut |_: &Event| {}, &AtomicBool::new(false)).unwrap() {
        Outcome::Finished(report) => *report,
        other => panic!("{other:?}"),
    }
}

fn text(path: PathBuf) -> String {
    path.display().to_string()
}

fn open(folder: &Path) -> Model {
    Model::open(source::resolve(&text(folder.into())).unwrap().open().unwrap(), &ModelOptions::default()).unwrap()
}

fn embed(model: &Model, modality: Modality, items: &[String]) -> Vec<f32> {
    model.embed(&Cpu, items, (modality, Role::Plain), |_| Ok(())).unwrap().0
}

#[test]
fn photos_are_learnt_by_class_and_the_artifact_embeds_as_it_was_measured() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| text(folder.path().join(name));
    write_photos(folder.path());
    write_network(&folder.path().join("network"));
    let (model, photos) = (place("network"), place("photos"));
    let fields = [
        ("model", model.as_str()),
        ("train_data", &photos),
        ("query_data", &photos),
        ("loss", "TripletMarginLoss"),
        ("learning_rate", "1e-3"),
        ("batch_size", "12"),
        ("num_items_per_class", "2"),
        ("epochs", "2"),
    ];
    let report = finish(&spec(folder.path(), &fields));
    let metrics = report.metrics.unwrap();
    let evaluated = finetuner::train::read_target(Path::new(&photos), None, None).unwrap();
    let tuned = open(&folder.path().join("run"));
    let again = evaluated.measure(&tuned, &Cpu, finetuner::evaluate::Similarity::Cosine, 20, |_| Ok(())).unwrap();
    assert!((again.main().1 - metrics.finetuned.mrr).abs() < 1e-9, "{again:?}, {metrics:?}");
}

#[test]
fn a_model_of_texts_joined_with_one_of_pictures_learns_and_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| text(folder.path().join(name));
    write_photos(folder.path());
    write_network(&folder.path().join("network"));
    let (pictures, pairs) = (place("network"), place("pairs.csv"));
    let fields = [
        ("model", "mini"),
        ("image_model", pictures.as_str()),
        ("train_data", &pairs),
        ("query_data", &pairs),
        ("loss", "CLIPLoss"),
        ("learning_rate", "3e-3"),
        ("batch_size", "6"),
        ("epochs", "20"),
        ("canary", "false"),
        ("freeze", "embeddings"),
    ];
    let report = finish(&spec(folder.path(), &fields));
    let metrics = report.metrics.unwrap();
    assert!(metrics.finetuned.mrr > 0.9, "six colours are told apart: {metrics:?}");

    let run = folder.path().join("run");
    for file in
        ["text/model.safetensors", "text/tokenizer.json", "image/model.safetensors", "image/preprocessor_config.json"]
    {
        assert!(run.join(file).is_file(), "{file}");
    }
    let model = open(&run);
    let names: Vec<String> = COLOURS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let photos: Vec<String> = names.iter().map(|name| place(&format!("photos/{name}/0.png"))).collect();
    let (texts, pictures) = (embed(&model, Modality::Text, &names), embed(&model, Modality::Image, &photos));
    let width = model.encoder.dimension();
    let score = |text: usize, picture: usize| -> f32 {
        texts[text * width..][..width].iter().zip(&pictures[picture * width..][..width]).map(|(a, b)| a * b).sum()
    };
    let right = (0..6).filter(|&own| (0..6).all(|other| other == own || score(own, own) > score(own, other))).count();
    assert!(right >= 5, "{right} of 6 names find their picture in the artifact");
}
