//! Whole runs on pictures: by class, and found by their names.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use engine::Cpu;
use finetuner::artifact::{PoolingMode, Weights};
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
    model.embed(&Cpu::F32, items, (modality, Role::Plain), |_| Ok(())).unwrap().0
}

/// Whether every element of a page is closed where it must be, and nothing is fetched from elsewhere.
fn check_page(page: &str) {
    check_elements(page, 6..=usize::MAX);
}

/// The same, with so many pictures.
fn check_elements(page: &str, expected: std::ops::RangeInclusive<usize>) {
    let (mut open, mut rest) = (Vec::new(), page.strip_prefix("<!DOCTYPE html>").unwrap());
    let mut pictures = 0;
    while let Some(at) = rest.find('<') {
        assert!(!rest[..at].contains('>'), "{}", &rest[..at]);
        let end = at + rest[at..].find('>').unwrap();
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name)),
            None => {
                let name = tag.split_whitespace().next().unwrap();
                assert!(name != "script" && name != "link" && name != "iframe", "{tag}");
                for (attribute, value) in
                    tag.split('"').collect::<Vec<_>>().chunks(2).filter_map(|pair| Some((pair[0], *pair.get(1)?)))
                {
                    let fetched =
                        ["src=", "href=", "srcset=", "action="].iter().any(|own| attribute.trim().ends_with(own));
                    assert!(!fetched || value.starts_with("data:image/jpeg;base64,/9j/"), "{attribute}{value}");
                    pictures += usize::from(fetched);
                }
                if !tag.ends_with('/') {
                    open.push(name);
                }
            }
        }
    }
    assert!(open.is_empty(), "{open:?}");
    assert!(!page.contains("url(") && !page.contains("@import"));
    for part in ["pretrained</th>", "<polyline", "train_loss", "mrr", "class=\"right\""] {
        assert!(page.contains(part), "{part}");
    }
    assert!(expected.contains(&pictures), "{pictures} pictures are on it");
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
    let again = evaluated.measure(&tuned, &Cpu::F32, finetuner::evaluate::Similarity::Cosine, 20, |_| Ok(())).unwrap();
    assert!((again.main().1 - metrics.finetuned.mrr).abs() < 1e-9, "{again:?}, {metrics:?}");
}

#[test]
fn the_power_of_gem_is_learnt_from_pictures_and_the_artifact_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| text(folder.path().join(name));
    write_photos(folder.path());
    write_network(&folder.path().join("network"));
    // At 32 pixels the last map is one position, whose mean no power changes.
    let larger =
        r#"{"image_processor_type": "ViTImageProcessor", "do_resize": true, "size": {"height": 64, "width": 64}}"#;
    std::fs::write(folder.path().join("network/preprocessor_config.json"), larger).unwrap();
    let (model, photos) = (place("network"), place("photos"));
    let fields = [
        ("model", model.as_str()),
        ("train_data", &photos),
        ("query_data", &photos),
        ("pooling", "GeM"),
        ("loss", "SupConLoss"),
        ("learning_rate", "1e-3"),
        ("batch_size", "12"),
        ("epochs", "2"),
    ];
    let metrics = finish(&spec(folder.path(), &fields)).metrics.unwrap();
    let tuned = open(&folder.path().join("run"));
    let PoolingMode::Gem { p, eps } = tuned.folder.layout.pooling else { panic!("{:?}", tuned.folder.layout) };
    assert!((p - 3.0).abs() > 1e-4 && eps == 1e-6, "{p} {eps}");
    let evaluated = finetuner::train::read_target(Path::new(&photos), None, None).unwrap();
    let again = evaluated.measure(&tuned, &Cpu::F32, finetuner::evaluate::Similarity::Cosine, 20, |_| Ok(())).unwrap();
    assert!((again.main().1 - metrics.finetuned.mrr).abs() < 1e-9, "{again:?}, {metrics:?}");
}

/// `mini` joined with a pretrained model of pictures, until the colours are told apart.
fn told_apart<'a>(pictures: &'a str, pairs: &'a str, freeze: &'a str) -> [(&'a str, &'a str); 10] {
    [
        ("model", "mini"),
        ("image_model", pictures),
        ("train_data", pairs),
        ("query_data", pairs),
        ("loss", "CLIPLoss"),
        ("learning_rate", "3e-3"),
        ("batch_size", "6"),
        ("epochs", "20"),
        ("canary", "false"),
        ("freeze", freeze),
    ]
}

#[test]
fn a_model_of_texts_joined_with_one_of_pictures_learns_and_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| text(folder.path().join(name));
    write_photos(folder.path());
    write_network(&folder.path().join("network"));
    let (pictures, pairs) = (place("network"), place("pairs.csv"));
    let fields = told_apart(&pictures, &pairs, "embeddings");
    let report = finish(&spec(folder.path(), &fields));
    let metrics = report.metrics.unwrap();
    assert!(metrics.finetuned.mrr > 0.9, "six colours are told apart: {metrics:?}");

    let run = folder.path().join("run");
    check_page(&std::fs::read_to_string(run.join("report.html")).unwrap());
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

#[test]
fn texts_are_joined_with_the_image_tower_of_a_clip() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| text(folder.path().join(name));
    write_photos(folder.path());
    let clip = folder.path().join("clip");
    std::fs::create_dir_all(&clip).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/vision/clip");
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(golden.join(file), clip.join(file)).unwrap();
    }
    let processor =
        r#"{"image_processor_type": "CLIPImageProcessor", "do_resize": true, "size": {"height": 24, "width": 24}}"#;
    std::fs::write(clip.join("preprocessor_config.json"), processor).unwrap();
    let (clip, pairs) = (text(clip), place("pairs.csv"));
    let fields = told_apart(&clip, &pairs, "text");
    let metrics = finish(&spec(folder.path(), &fields)).metrics.unwrap();
    assert!(metrics.finetuned.mrr > metrics.pretrained.mrr + 0.2, "{metrics:?}");

    // The tower is a model of its own, with transformers' names, and no texts in it.
    let image = folder.path().join("run/image");
    let config: serde_json::Value = serde_json::from_slice(&std::fs::read(image.join("config.json")).unwrap()).unwrap();
    assert_eq!((&config["model_type"], &config["projection_dim"]), (&"clip_vision_model".into(), &16.into()));
    assert_eq!(config["architectures"], serde_json::json!(["CLIPVisionModelWithProjection"]));
    let tower = weights(&image);
    let of_pictures = |name: &str| name.starts_with("vision_model.") || name == "visual_projection.weight";
    assert!(tower.iter().all(|(name, _)| of_pictures(name)), "{:?}", tower.iter().map(|(name, _)| name));
    assert!(image.join("2_Dense/model.safetensors").is_file());

    let model = open(&folder.path().join("run"));
    let evaluated = finetuner::train::read_target(Path::new(&pairs), None, None).unwrap();
    let again = evaluated.measure(&model, &Cpu::F32, finetuner::evaluate::Similarity::Cosine, 20, |_| Ok(())).unwrap();
    assert!((again.main().1 - metrics.finetuned.mrr).abs() < 1e-9, "{again:?}, {metrics:?}");
}

/// Every tensor of an artifact in the order of the names.
fn weights(folder: &Path) -> Vec<(String, Vec<f32>)> {
    let weights = Weights::open(folder).unwrap();
    let mut names: Vec<String> = weights.names().map(str::to_owned).collect();
    names.sort();
    let values = |name: &String| weights.tensor(name, &weights.info(name).unwrap().shape.clone()).unwrap();
    names.iter().map(|name| (name.clone(), values(name))).collect()
}

/// How far the tensors of two artifacts lie apart.
fn apart(one: &[(String, Vec<f32>)], other: &[(String, Vec<f32>)]) -> f64 {
    let squares = one.iter().zip(other).flat_map(|((name, one), (same, other))| {
        assert_eq!((name, one.len()), (same, other.len()));
        one.iter().zip(other).map(|(one, other)| f64::from(one - other).powi(2))
    });
    squares.sum::<f64>().sqrt()
}

/// A run over the photos without their classes: two random views of each are a pair.
fn views<'a>(network: &'a str, photos: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("model", network),
        ("train_data", photos),
        ("kind", "single"),
        ("val_split", "0.25"),
        ("loss", "NTXentLoss"),
        ("learning_rate", "1e-3"),
        ("batch_size", "6"),
        ("epochs", "3"),
    ]
}

#[test]
fn a_run_on_views_that_stops_and_resumes_ends_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    write_photos(folder.path());
    write_network(&folder.path().join("network"));
    let (network, photos) = (text(folder.path().join("network")), text(folder.path().join("photos")));
    let mut spec = spec(folder.path(), &views(&network, &photos));
    finish(&spec);
    spec.output = Some(folder.path().join("parts"));
    for stop_after in [2, 5] {
        let stop = AtomicBool::new(false);
        let mut sink = |event: &Event| {
            if matches!(event, Event::Metric { name, step, .. } if name == "train_loss" && *step == stop_after) {
                stop.store(true, Ordering::Relaxed);
            }
        };
        let outcome = train(&spec, &mut sink, &stop).unwrap();
        assert!(matches!(outcome, Outcome::Stopped { step } if step == stop_after), "{outcome:?}");
        spec.resume = true;
    }
    finish(&spec);
    let (whole, parts) = (weights(&folder.path().join("run")), weights(&folder.path().join("parts")));
    assert!(whole.iter().any(|(name, _)| name.contains("running_var")));
    assert!(whole == parts, "the same bits, running statistics too");
    assert!(apart(&whole, &weights(&folder.path().join("network"))) > 1e-3);
}

#[test]
fn views_differ_in_training_and_are_the_same_in_every_validation() {
    let folder = tempfile::tempdir().unwrap();
    write_photos(folder.path());
    write_network(&folder.path().join("network"));
    let (network, photos) = (text(folder.path().join("network")), text(folder.path().join("photos")));
    let mut spec = spec(folder.path(), &views(&network, &photos));
    // Nothing is learnt, so that losses differ only where what is seen differs.
    (spec.learning_rate, spec.freeze, spec.batch_size) = (1e-30, Some("statistics".into()), 18);
    let (mut validation, mut training) = (Vec::new(), Vec::new());
    let mut sink = |event: &Event| {
        if let Event::Metric { name, value, .. } = event {
            match name.as_str() {
                "val_loss" => validation.push(*value),
                "train_loss" => training.push(*value),
                _ => {}
            }
        }
    };
    train(&spec, &mut sink, &AtomicBool::new(false)).unwrap();
    assert_eq!((validation.len(), training.len()), (4, 3));
    assert!(validation.iter().all(|loss| *loss == validation[0]), "{validation:?}");
    assert!(training[0] != training[1] && training[1] != training[2], "{training:?}");
}

#[test]
fn pictures_learn_the_same_through_the_gradient_cache_where_statistics_stay() {
    let folder = tempfile::tempdir().unwrap();
    write_photos(folder.path());
    write_network(&folder.path().join("network"));
    let (network, photos) = (text(folder.path().join("network")), text(folder.path().join("photos")));
    let mut fields = views(&network, &photos);
    fields.extend([("freeze", "statistics"), ("optimizer", "SGD"), ("learning_rate", "1e-2")]);
    let mut spec = spec(folder.path(), &fields);
    finish(&spec);
    // A picture is four tokens, so a batch of six pictures in two views goes through the cache in six parts.
    spec.apply("micro_batch_tokens", "8").unwrap();
    spec.output = Some(folder.path().join("cached"));
    finish(&spec);
    let start = weights(&folder.path().join("network"));
    let (whole, cached) = (weights(&folder.path().join("run")), weights(&folder.path().join("cached")));
    for ((start, whole), cached) in start.iter().zip(&whole).zip(&cached) {
        let of = std::slice::from_ref;
        let (moved, apart) = (apart(of(start), of(whole)), apart(of(whole), of(cached)));
        assert!(apart <= 1e-3 * moved + 1e-6, "{}: moved {moved}, apart {apart}", start.0);
    }
}

#[test]
fn a_tower_stays_or_learns_at_its_own_rate() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| text(folder.path().join(name));
    write_photos(folder.path());
    write_network(&folder.path().join("network"));
    std::fs::remove_file(folder.path().join("network/model.safetensors")).unwrap();
    let (pictures, pairs) = (place("network"), place("pairs.csv"));
    let fields = [
        ("model", "mini"),
        ("image_model", pictures.as_str()),
        ("init", "random:image"),
        ("train_data", &pairs),
        ("loss", "CLIPLoss"),
        ("batch_size", "6"),
        ("epochs", "1"),
        ("canary", "false"),
        ("optimizer", "SGD"),
        ("max_grad_norm", "0"),
        ("callbacks", "EvaluationCallback(query_data=PAIRS,model=clip-text,index_model=clip-vision)"),
    ];
    let mut base = spec(folder.path(), &fields);
    base.callbacks = vec![base.callbacks[0].replace("PAIRS", &format!("'{pairs}'"))];
    let run = |name: &str, change: &dyn Fn(&mut RunSpec)| {
        let mut spec = RunSpec { output: Some(folder.path().join(name)), ..base.clone() };
        change(&mut spec);
        finish(&spec);
        [weights(&folder.path().join(name).join("text")), weights(&folder.path().join(name).join("image"))]
    };
    let start = run("start", &|spec| spec.learning_rate = 1e-30);
    let frozen = run("frozen", &|spec| (spec.learning_rate, spec.freeze) = (1e-2, Some("text".into())));
    assert!(apart(&start[0], &frozen[0]) < 1e-20 && apart(&start[1], &frozen[1]) > 1e-4);
    let rated = run("rated", &|spec| {
        (spec.learning_rate, spec.freeze) = (1e-2, Some("image:statistics".into()));
        spec.optimizer_options.insert("learning_rate_image".into(), 1e-30.into());
    });
    let trained = |weights: &[(String, Vec<f32>)]| -> Vec<(String, Vec<f32>)> {
        weights.iter().filter(|(name, _)| !name.contains("running_")).cloned().collect()
    };
    assert!(apart(&start[0], &rated[0]) > 1e-4 && apart(&trained(&start[1]), &trained(&rated[1])) < 1e-20);

    base.callbacks = vec![base.callbacks[0].replace("clip-vision", "clip-text")];
    let error = train(&base, &mut |_: &Event| {}, &AtomicBool::new(false)).unwrap_err().to_string();
    assert!(error.contains("`index_model`: `clip-text` reads texts, but the documents of"), "{error}");
}

/// A joined pair: `mini` and a small ResNet from random weights.
fn joined<'a>(pictures: &'a str, pairs: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("model", "mini"),
        ("image_model", pictures),
        ("init", "random:image"),
        ("train_data", pairs),
        ("loss", "CLIPLoss"),
        ("batch_size", "6"),
        ("epochs", "1"),
        ("canary", "false"),
        ("optimizer", "SGD"),
        ("max_grad_norm", "0"),
        ("learning_rate", "1e-2"),
    ]
}

#[test]
fn freezing_all_of_two_towers_leaves_the_new_projection_to_learn() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| text(folder.path().join(name));
    write_photos(folder.path());
    write_network(&folder.path().join("network"));
    let (pictures, pairs) = (place("network"), place("pairs.csv"));
    let run = |name: &str, change: &[(&str, &str)]| {
        let mut spec = spec(folder.path(), &[&joined(&pictures, &pairs)[..], change].concat());
        spec.output = Some(folder.path().join(name));
        finish(&spec);
        ["text", "image", "image/2_Dense"].map(|part| weights(&folder.path().join(name).join(part)))
    };
    let start = run("start", &[("learning_rate", "1e-30"), ("freeze", "statistics")]);
    // The deeper tower has more layers than the other, whose projection must not count as one of them.
    for (name, freeze) in [("all", "all"), ("both", "text,image")] {
        let frozen = run(name, &[("freeze", freeze)]);
        assert!(apart(&start[0], &frozen[0]) < 1e-20, "{freeze}: the texts stay");
        assert!(apart(&start[1], &frozen[1]) < 1e-20, "{freeze}: the pictures stay, their statistics too");
        assert!(apart(&start[2], &frozen[2]) > 1e-4, "{freeze}: the projection learns");
    }
}

#[test]
fn layer_wise_decay_counts_from_the_top_of_each_tower() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| text(folder.path().join(name));
    write_photos(folder.path());
    write_network(&folder.path().join("network"));
    let (pictures, pairs) = (place("network"), place("pairs.csv"));
    let run = |name: &str, change: &[(&str, &str)]| {
        let fields = [&joined(&pictures, &pairs)[..], &[("freeze", "statistics")], change].concat();
        let mut spec = spec(folder.path(), &fields);
        spec.output = Some(folder.path().join(name));
        finish(&spec);
        ["text", "image", "image/2_Dense"].map(|part| weights(&folder.path().join(name).join(part)))
    };
    let moved = |start: &[(String, Vec<f32>)], end: &[(String, Vec<f32>)], wanted: &str| {
        let of = |weights: &[(String, Vec<f32>)]| -> Vec<(String, Vec<f32>)> {
            weights.iter().filter(|(name, _)| name.contains(wanted) && name.ends_with("weight")).cloned().collect()
        };
        let (start, end) = (of(start), of(end));
        assert!(!start.is_empty(), "{wanted}");
        apart(&start, &end)
    };
    let start = run("start", &[("learning_rate", "1e-30")]);
    // One step of SGD moves a weight by its rate times its gradient, which is the same in all of these runs.
    let plain = run("plain", &[]);
    let decayed = run("decayed", &[("optimizer_options", "layer_wise_lr_decay=0.5")]);
    let ratio = |part: usize, wanted: &str| {
        moved(&start[part], &decayed[part], wanted) / moved(&start[part], &plain[part], wanted)
    };
    let near = |ratio: f64, expected: f64, what: &str| {
        assert!((ratio / expected - 1.0).abs() < 0.02, "{what}: {ratio}, expected {expected}");
    };
    near(ratio(2, "linear"), 1.0, "the projection, at the top of the pictures");
    // The last layer of the texts is the top of their tower, as high as the projection, however many layers lie below.
    near(ratio(1, "layer4."), 0.5, "the last stage");
    near(ratio(1, "layer3."), 0.25, "the stage before");
    let layers =
        start[0].iter().filter_map(|(name, _)| name.split_once("layer.")?.1.split('.').next()?.parse::<i32>().ok());
    let last = layers.max().unwrap();
    near(ratio(0, &format!("layer.{last}.output.dense")), 1.0, "the last layer of the texts");
    near(ratio(0, &format!("layer.{}.output.dense", last - 1)), 0.5, "the layer before");
}

#[test]
fn a_run_on_texts_leaves_a_page_without_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let mut rows = "anchor,positive\n".to_owned();
    for (name, _) in COLOURS {
        for word in ["dark", "light", "bold"] {
            writeln!(rows, "{word} <mark>{name}</mark>,the colour {name} & {word}").unwrap();
        }
    }
    std::fs::write(folder.path().join("texts.csv"), rows).unwrap();
    let texts = text(folder.path().join("texts.csv"));
    let fields = [
        ("model", "mini"),
        ("train_data", texts.as_str()),
        ("query_data", &texts),
        ("loss", "MultipleNegativesRankingLoss"),
        ("batch_size", "6"),
        ("epochs", "1"),
        ("canary", "false"),
    ];
    finish(&spec(folder.path(), &fields));
    let page = std::fs::read_to_string(folder.path().join("run/report.html")).unwrap();
    check_elements(&page, 0..=0);
    assert!(page.contains("&lt;mark&gt;") && !page.contains("<mark>"), "texts are escaped");
    assert!(page.contains("the colour") && page.contains("class=\"sample\""), "queries and what was found stand on it");
}
