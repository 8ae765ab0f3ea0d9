//! Every image encoder and CLIP against transformers, timm, torchvision and open_clip: embeddings, the gradient of every
//! parameter, running statistics. The golden files and the program that made them are in `golden/`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use engine::random::Key;
use engine::{Cpu, Gradients, Tape, Tensor, Var};
use finetuner::artifact::{ArtifactWriter, ModelFolder, Output, Weights};
use finetuner::encoder::{Encoder, EncoderOptions, Input, Model, ModelOptions};
use finetuner::pixels::PixelBatch;
use finetuner::tokens::PackedBatch;
use safetensors::SafeTensors;

const TRANSFORMERS: [&str; 9] = [
    "vit",
    "deit",
    "dinov2",
    "dinov2-registers",
    "dinov2-giant",
    "timm-vit",
    "timm-dinov2",
    "timm-registers",
    "timm-giant",
];
const PAIRS: [&str; 5] = ["clip", "siglip", "open-clip", "open-clip-quick", "open-clip-multi"];
const CONVOLUTIONAL: [&str; 9] = [
    "resnet18",
    "resnet50",
    "resnet-basic",
    "resnet-transformers",
    "mobilenet-torchvision",
    "mobilenet-timm",
    "efficientnet-torchvision",
    "efficientnet-timm",
    "efficientnet-tensorflow",
];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/vision").join(name)
}

fn open(name: &str) -> Encoder {
    Encoder::open(&ModelFolder::open(&folder(name)).unwrap(), &EncoderOptions::default()).unwrap()
}

struct Golden {
    tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)>,
}

impl Golden {
    fn open(name: &str) -> Self {
        let bytes = std::fs::read(folder(name).join("golden.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file.tensors().into_iter();
        let tensors = tensors.map(|(name, view)| (name, (view.shape().to_vec(), view.data().to_vec())));
        Golden { tensors: tensors.collect() }
    }

    fn words(&self, name: &str) -> impl Iterator<Item = [u8; 4]> {
        self.tensors[name].1.chunks_exact(4).map(|word| word.try_into().unwrap())
    }

    fn f32s(&self, name: &str) -> Vec<f32> {
        self.words(name).map(f32::from_le_bytes).collect()
    }

    fn u32s(&self, name: &str) -> Vec<u32> {
        self.words(name).map(u32::from_le_bytes).collect()
    }

    /// The tensors whose names begin so: what follows, and their values.
    fn all<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, Vec<f32>)> {
        self.tensors.keys().filter_map(move |name| Some((name.strip_prefix(prefix)?, self.f32s(name))))
    }

    fn pixels(&self, name: &str) -> Input {
        let shape = &self.tensors[name].0;
        let examples = (0..shape[0] as u32).collect();
        PixelBatch { values: self.f32s(name), height: shape[1], width: shape[2], examples }.into()
    }

    fn texts(&self) -> Input {
        let offsets = self.u32s("offsets");
        PackedBatch {
            ids: self.u32s("ids"),
            type_ids: None,
            positions: offsets.windows(2).flat_map(|ends| 0..ends[1] - ends[0]).collect(),
            examples: (0..offsets.len() as u32 - 1).collect(),
            offsets,
        }
        .into()
    }
}

/// The largest difference, relative to the largest expected value.
fn difference(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let scale = expected.iter().fold(0.0f32, |scale, value| scale.max(value.abs()));
    let error = got.iter().zip(expected).fold(0.0f32, |error, (a, b)| error.max((a - b).abs()));
    error / scale.max(1e-3)
}

fn embed(encoder: &Encoder, input: &Input) -> Vec<f32> {
    let mut tape = Tape::inference(&Cpu::F32, &encoder.parameters);
    encoder.forward(&mut tape, input, None).unwrap().value().data().to_vec()
}

/// Compares outputs, then every gradient of the sum of outputs times their cotangents.
fn check(name: &str, encoder: &Encoder, golden: &Golden, outputs: &[(&str, &str, Var)], mut tape: Tape<'_>) {
    let mut totals = Vec::new();
    for (expected, upstream, output) in outputs {
        let error = difference(output.value().data(), &golden.f32s(expected));
        assert!(error < 1e-5, "{name} {expected}: {error}");
        let upstream = Tensor::from_vec(golden.f32s(upstream), output.value().shape()).unwrap();
        totals.push(tape.sum(output, Some(&upstream)).unwrap());
    }
    let total = totals.into_iter().reduce(|a, b| tape.add(&a, &b).unwrap()).unwrap();
    let mut gradients = Gradients::new(&encoder.parameters);
    tape.backward(&total, Tensor::scalar(1.0), &mut gradients).unwrap();
    let own: BTreeMap<&str, &[f32]> = encoder.named_gradients(&gradients).collect();
    let mut seen = 0;
    for (key, expected) in golden.all("gradient.") {
        let got = own.get(key).unwrap_or_else(|| panic!("{name}: no gradient of {key}"));
        // The key bias shifts all scores of a row alike: its gradient is 0 but for rounding.
        let is_key_bias = ["key.bias", "k_proj.bias"].iter().any(|end| key.ends_with(end));
        let error = if is_key_bias {
            got.iter().fold(0.0f32, |error, value| error.max(value.abs()))
        } else {
            difference(got, &expected)
        };
        assert!(error < 2e-5, "{name} {key}: {error}");
        seen += 1;
    }
    assert_eq!(seen, own.len(), "{name}: every gradient is compared");
}

#[test]
fn vision_transformers_equal_their_libraries() {
    for name in TRANSFORMERS {
        let (golden, encoder) = (Golden::open(name), open(name));
        let mut tape = Tape::recording(&Cpu::F32, &encoder.parameters);
        let image = encoder.forward(&mut tape, &golden.pixels("pixels"), None).unwrap();
        check(name, &encoder, &golden, &[("image", "upstream.image", image)], tape);
    }
}

#[test]
fn positions_are_resized_for_pictures_of_another_size() {
    for name in TRANSFORMERS.into_iter().chain(["clip", "siglip"]) {
        let (golden, encoder) = (Golden::open(name), open(name));
        let error = difference(&embed(&encoder, &golden.pixels("larger.pixels")), &golden.f32s("larger"));
        assert!(error < 1e-5, "{name}: {error}");
    }
}

#[test]
fn both_towers_of_clip_equal_their_libraries() {
    for name in PAIRS {
        let (golden, encoder) = (Golden::open(name), open(name));
        let mut tape = Tape::recording(&Cpu::F32, &encoder.parameters);
        let image = encoder.forward(&mut tape, &golden.pixels("pixels"), None).unwrap();
        let text = encoder.forward(&mut tape, &golden.texts(), None).unwrap();
        let outputs = [("image", "upstream.image", image), ("text", "upstream.text", text)];
        check(name, &encoder, &golden, &outputs, tape);
    }
}

#[test]
fn the_image_tower_of_a_clip_alone_is_the_same_tower() {
    let original: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder("clip").join("config.json")).unwrap()).unwrap();
    // As transformers writes its CLIPVisionModelWithProjection.
    let mut config = original["vision_config"].clone();
    config["projection_dim"] = original["projection_dim"].clone();
    let copy = changed("clip", &[("config.json", config.to_string())]);
    let encoder = Encoder::open(&ModelFolder::open(copy.path()).unwrap(), &EncoderOptions::default()).unwrap();
    let golden = Golden::open("clip");
    let mut tape = Tape::recording(&Cpu::F32, &encoder.parameters);
    let image = encoder.forward(&mut tape, &golden.pixels("pixels"), None).unwrap();
    assert!(difference(image.value().data(), &golden.f32s("image")) < 1e-5);
    let upstream = Tensor::from_vec(golden.f32s("upstream.image"), image.value().shape()).unwrap();
    let mut gradients = Gradients::new(&encoder.parameters);
    tape.backward(&image, upstream, &mut gradients).unwrap();
    let own: BTreeMap<&str, &[f32]> = encoder.named_gradients(&gradients).collect();
    assert!(own.len() > 20 && own.contains_key("visual_projection.weight"));
    for (name, gradient) in own.into_iter().filter(|(name, _)| !name.ends_with("k_proj.bias")) {
        let error = difference(gradient, &golden.f32s(&format!("gradient.{name}")));
        assert!(error < 2e-5, "{name}: {error}");
    }
    let names: Vec<&str> = encoder.weights(0).iter().map(|(name, ..)| *name).collect();
    assert!(names.iter().all(|name| name.starts_with("vision_model.") || name.starts_with("visual_projection.")));
}

#[test]
fn convolutional_networks_equal_their_libraries() {
    for name in CONVOLUTIONAL {
        let (golden, mut encoder) = (Golden::open(name), open(name));
        let error = difference(&embed(&encoder, &golden.pixels("pixels")), &golden.f32s("image"));
        assert!(error < 1e-5, "{name}: {error}");

        // In training mode only ResNets are conditioned well enough for gradients of single precision.
        let resnet = name.starts_with("resnet");
        let (mode, expected) = if resnet { (Some(Key::new(0)), "training") } else { (None, "image") };
        let mut tape = Tape::recording(&Cpu::F32, &encoder.parameters);
        let image = encoder.forward(&mut tape, &golden.pixels("pixels"), mode).unwrap();
        check(name, &encoder, &golden, &[(expected, "upstream.image", image)], tape);

        let mut tape = Tape::recording(&Cpu::F32, &encoder.parameters);
        let image = encoder.forward(&mut tape, &golden.pixels("pixels"), Some(Key::new(0))).unwrap();
        let error = difference(image.value().data(), &golden.f32s("training"));
        assert!(error < if resnet { 1e-5 } else { 1e-4 }, "{name} training: {error}");
        let observed = tape.take_observed();
        encoder.settle(observed);
        let after: BTreeMap<_, _> = encoder.weights(0).into_iter().map(|(name, _, values)| (name, values)).collect();
        let mut seen = 0;
        for (key, expected) in golden.all("statistic.") {
            let error = difference(after[key], &expected);
            assert!(error < 2e-5, "{name} {key}: {error}");
            seen += 1;
        }
        assert_eq!(seen, after.keys().filter(|key| key.contains("running_")).count(), "{name}");
    }
}

#[test]
fn weights_are_saved_under_the_names_they_came_with() {
    for name in TRANSFORMERS.into_iter().chain(PAIRS).chain(CONVOLUTIONAL) {
        let encoder = open(name);
        let original = Weights::open(&folder(name)).unwrap();
        let mut saved: Vec<&str> = encoder.weights(0).iter().map(|(name, ..)| *name).collect();
        saved.sort_unstable();
        let expected: Vec<&str> = original.names().collect();
        assert_eq!(saved, expected, "{name}");
        for (tensor, shape, values) in encoder.weights(0) {
            assert_eq!(values, original.tensor(tensor, shape).unwrap(), "{name} {tensor}");
        }
    }
}

/// A golden folder with other files in place of some of its own.
fn changed(name: &str, files: &[(&str, String)]) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder(name)).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    for (file, contents) in files {
        std::fs::write(copy.path().join(file), contents).unwrap();
    }
    copy
}

fn refusal(name: &str, config: &str, change: impl FnOnce(&mut serde_json::Value)) -> String {
    let mut value = serde_json::from_slice(&std::fs::read(folder(name).join(config)).unwrap()).unwrap();
    change(&mut value);
    let copy = changed(name, &[(config, value.to_string())]);
    let model = ModelFolder::open(copy.path()).unwrap();
    Encoder::open(&model, &EncoderOptions::default()).unwrap_err().to_string()
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let unknown = refusal("vit", "config.json", |config| config["model_type"] = "swin".into());
    assert!(unknown.contains("`model_type` is `swin`") && unknown.contains("dinov2") && unknown.contains("clip"));
    let unknown = refusal("resnet18", "config.json", |config| config["architecture"] = "densenet121".into());
    assert!(unknown.contains("densenet121") && unknown.contains("efficientnet_b0"), "{unknown}");
    let unknown = refusal("resnet18", "config.json", |config| config["architecture"] = "resnet60".into());
    assert!(unknown.contains("did you mean"), "{unknown}");
    let shape = refusal("vit", "config.json", |config| config["hidden_size"] = 64.into());
    assert!(shape.contains("has shape") && shape.contains("expected"), "{shape}");
    let missing = refusal("clip", "config.json", |config| config["vision_config"]["num_hidden_layers"] = 3.into());
    assert!(missing.contains("vision_model.encoder.layers.2") && missing.contains("is missing"), "{missing}");
    let huge = refusal("clip", "config.json", |config| config["text_config"]["hidden_size"] = (1u64 << 40).into());
    assert!(huge.contains("hidden_size"), "{huge}");
    let heads = refusal("dinov2", "config.json", |config| config["num_attention_heads"] = 5.into());
    assert!(heads.contains("no multiple of 5 heads"), "{heads}");
    let swiglu = refusal("dinov2", "config.json", |config| config["use_swiglu_ffn"] = true.into());
    assert!(swiglu.contains("mlp.weights_in.weight") && swiglu.contains("is missing"), "{swiglu}");
    let giant = refusal("timm-vit", "config.json", |config| config["architecture"] = "vit_giant_patch14_224".into());
    assert!(giant.contains("vit_giant_patch14_224`, a variant"), "{giant}");
    let placed =
        refusal("timm-registers", "config.json", |config| config["model_args"]["no_embed_class"] = false.into());
    assert!(placed.contains("registers with positions"), "{placed}");
    let resnet = refusal("open-clip", "open_clip_config.json", |config| {
        config["model_cfg"]["vision_cfg"]["layers"] = serde_json::json!([3, 4, 6, 3]);
    });
    assert!(resnet.contains("a ResNet"), "{resnet}");
    let graph = refusal("resnet18", "config.json", |config| {
        *config = serde_json::json!({"architecture": "graph", "ops": [{"op": "ADD", "in": [1, 2], "out": [3]}]});
    });
    assert!(graph.contains("no operation before it"), "{graph}");
}

#[test]
fn a_clip_that_is_saved_is_the_same_when_it_is_opened_again() {
    let tokenizer = serde_json::json!({
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "a": 5, "cat": 6}, "unk_token": "[UNK]"},
    });
    for name in ["clip", "siglip", "open-clip"] {
        let golden = Golden::open(name);
        let copy = changed(name, &[("tokenizer.json", tokenizer.to_string())]);
        let model = Model::open(ModelFolder::open(copy.path()).unwrap(), &ModelOptions::default()).unwrap();
        let parent = tempfile::tempdir().unwrap();
        let output = Output::claim(&parent.path().join("saved"), false).unwrap();
        let mut writer = ArtifactWriter::new(&output).unwrap();
        model.save(&mut writer, None).unwrap();
        writer.finish(&serde_json::json!({}), BTreeMap::new()).unwrap();
        drop(output);
        let again = ModelFolder::open(&parent.path().join("saved")).unwrap();
        let again = Model::open(again, &ModelOptions::default()).unwrap();
        for (input, expected) in [(golden.pixels("pixels"), "image"), (golden.texts(), "text")] {
            let error = difference(&embed(&again.encoder, &input), &golden.f32s(expected));
            assert!(error < 1e-5, "{name} {expected}: {error}");
        }
    }
}
