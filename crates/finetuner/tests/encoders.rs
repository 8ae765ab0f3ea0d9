//! Every encoder family against transformers: token representations, pooling and the gradient of every parameter.
//! The golden files and the program that made them are in `golden/`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};

use engine::random::Key;
use engine::{Cpu, Gradients, Tape, Tensor, Var};
use finetuner::artifact::{ModelFolder, PoolingMode, Weights};
use finetuner::encoder::{Encoder, EncoderOptions, Input};
use finetuner::tokens::PackedBatch;
use safetensors::SafeTensors;

const FAMILIES: [&str; 7] = ["bert", "bert-relu", "bert-gelu-new", "roberta", "xlm-roberta", "distilbert", "mpnet"];

fn folder(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/encoders").join(family)
}

struct Golden {
    bytes: Vec<u8>,
}

impl Golden {
    fn open(family: &str) -> Self {
        Golden { bytes: std::fs::read(folder(family).join("golden.safetensors")).unwrap() }
    }

    fn names(&self) -> Vec<String> {
        SafeTensors::deserialize(&self.bytes).unwrap().names().iter().map(ToString::to_string).collect()
    }

    fn words(&self, name: &str) -> Vec<[u8; 4]> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        file.tensor(name).unwrap().data().chunks_exact(4).map(|word| word.try_into().unwrap()).collect()
    }

    fn f32s(&self, name: &str) -> Vec<f32> {
        self.words(name).into_iter().map(f32::from_le_bytes).collect()
    }

    fn u32s(&self, name: &str) -> Vec<u32> {
        self.words(name).into_iter().map(u32::from_le_bytes).collect()
    }

    fn batch(&self) -> PackedBatch {
        let offsets = self.u32s("offsets");
        PackedBatch {
            ids: self.u32s("ids"),
            type_ids: Some(self.u32s("type_ids")),
            positions: offsets.windows(2).flat_map(|ends| 0..ends[1] - ends[0]).collect(),
            examples: (0..offsets.len() as u32 - 1).collect(),
            offsets,
        }
    }
}

/// The largest difference, relative to the largest expected value.
fn difference(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let scale = expected.iter().fold(0.0f32, |scale, value| scale.max(value.abs()));
    let error = got.iter().zip(expected).fold(0.0f32, |error, (a, b)| error.max((a - b).abs()));
    error / scale.max(1e-3)
}

fn open(family: &str, pooling: PoolingMode) -> Encoder {
    let options = EncoderOptions { pooling: Some(pooling), ..Default::default() };
    Encoder::open(&ModelFolder::open(&folder(family)).unwrap(), &options).unwrap()
}

#[test]
fn token_representations_equal_transformers() {
    for family in FAMILIES {
        let golden = Golden::open(family);
        let encoder = open(family, PoolingMode::Mean);
        let mut tape = Tape::inference(&Cpu::F32, &encoder.parameters);
        let tokens = encoder.tokens(&mut tape, &golden.batch()).unwrap();
        let error = difference(tokens.value().data(), &golden.f32s("last_hidden_state"));
        assert!(error < 5e-6, "{family}: {error}");
    }
}

#[test]
fn pooled_embeddings_equal_transformers() {
    let gem = PoolingMode::from_name("gem").unwrap();
    let modes = [
        ("mean", PoolingMode::Mean),
        ("cls", PoolingMode::Cls),
        ("max", PoolingMode::Max),
        ("last", PoolingMode::Last),
        ("gem", gem),
    ];
    for family in FAMILIES {
        let golden = Golden::open(family);
        for (name, mode) in modes {
            let encoder = open(family, mode);
            let mut tape = Tape::inference(&Cpu::F32, &encoder.parameters);
            let pooled = encoder.forward(&mut tape, &golden.batch().into(), None).unwrap();
            let error = difference(pooled.value().data(), &golden.f32s(&format!("pooled.{name}")));
            assert!(error < 5e-6, "{family} {name}: {error}");
        }
    }
}

/// A model of 192 columns and two layers with dropout of 0.3 everywhere and random weights, a key, and three texts of these
/// lengths.
fn with_dropout((model_type, heads, lengths): (&str, u32, [u32; 3]), pooling: PoolingMode) -> (Encoder, Input, Key) {
    let folder = tempfile::tempdir().unwrap();
    let config = serde_json::json!({
        "model_type": model_type, "vocab_size": 50, "hidden_size": 192, "dim": 192, "num_hidden_layers": 2, "n_layers": 2,
        "num_attention_heads": heads, "n_heads": heads, "intermediate_size": 96, "hidden_dim": 96,
        "max_position_embeddings": 160, "type_vocab_size": 2, "hidden_act": "gelu", "activation": "gelu",
        "hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3, "dropout": 0.3, "attention_dropout": 0.3,
        "initializer_range": 0.2, "relative_attention_num_buckets": 32, "pad_token_id": 1, "layer_norm_eps": 1e-12,
    });
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let options = EncoderOptions { random: true, pooling: Some(pooling), ..Default::default() };
    let encoder = Encoder::open(&ModelFolder::open(folder.path()).unwrap(), &options).unwrap();
    let tokens: u32 = lengths.iter().sum();
    let batch = PackedBatch {
        ids: (0..tokens).map(|token| 3 + token * 7 % 45).collect(),
        type_ids: None,
        positions: lengths.iter().flat_map(|&length| 0..length).collect(),
        offsets: vec![0, lengths[0], lengths[0] + lengths[1], tokens],
        examples: vec![4, 0, 9],
    };
    (encoder, batch.into(), Key::new(11))
}

/// Shapes of real models, long and short texts.
const DROPPED_OUT: [(&str, u32, [u32; 3]); 3] =
    [("bert", 12, [5, 33, 150]), ("mpnet", 6, [1, 64, 70]), ("distilbert", 3, [2, 17, 90])];

fn upstream() -> Tensor {
    Tensor::from_vec((0..3 * 192).map(|place| (place as f32 * 0.7).sin()).collect(), &[3, 192]).unwrap()
}

/// Every gradient, nothing where there is none.
fn backward(encoder: &Encoder, pass: impl FnOnce(&mut Tape<'_>) -> Var) -> Vec<Option<Vec<f32>>> {
    let mut gradients = Gradients::new(&encoder.parameters);
    let mut tape = Tape::recording(&Cpu::F32, &encoder.parameters);
    let embeddings = pass(&mut tape);
    tape.backward(&embeddings, upstream(), &mut gradients).unwrap();
    gradients.iter().map(|one| one.map(|one| one.data().to_vec())).collect()
}

/// With dropout on no library draws our masks, so the gradient is held against the slope along itself: passes that drew different
/// masks would not agree on it.
#[test]
fn the_gradient_with_dropout_is_that_of_the_same_masks() {
    for model in DROPPED_OUT {
        let (mut encoder, batch, key) = with_dropout(model, PoolingMode::Mean);
        let gradients = backward(&encoder, |tape| encoder.forward(tape, &batch, Some(key)).unwrap());
        let squares = gradients.iter().flatten().flatten().map(|g| f64::from(*g).powi(2)).sum::<f64>();
        let mut moved = |by: f64| {
            for (parameter, gradient) in encoder.parameters.iter_mut().zip(&gradients) {
                let step = gradient.iter().flatten().map(|g| (by * f64::from(*g) / squares.sqrt()) as f32);
                parameter.value.data_mut().iter_mut().zip(step).for_each(|(weight, step)| *weight += step);
            }
            let mut tape = Tape::inference(&Cpu::F32, &encoder.parameters);
            let embeddings = encoder.forward(&mut tape, &batch, Some(key)).unwrap();
            let upstream = upstream();
            let terms = embeddings.value().data().iter().zip(upstream.data());
            terms.map(|(e, u)| f64::from(*e) * f64::from(*u)).sum::<f64>()
        };
        let step = 2e-4;
        let (above, below) = (moved(step), moved(-2.0 * step));
        let slope = (above - below) / (2.0 * step);
        assert!((slope / squares.sqrt() - 1.0).abs() < 1e-3, "{}: {slope}, expected {}", model.0, squares.sqrt());
    }
}

/// Where pooling reads one row of a text, the last layer computes no other. A pass that is asked for an earlier layer, too, computes
/// them all: with the same masks the embeddings have the same bits, and the gradients differ by their rounding.
#[test]
fn a_last_layer_of_one_row_a_text_is_that_of_all_rows() {
    for model in DROPPED_OUT {
        for pooling in [PoolingMode::Cls, PoolingMode::Last] {
            let (encoder, batch, key) = with_dropout(model, pooling);
            let mut embeddings = Vec::new();
            let one = backward(&encoder, |tape| {
                let one = encoder.forward(tape, &batch, Some(key)).unwrap();
                embeddings = one.value().data().to_vec();
                one
            });
            let all = backward(&encoder, |tape| {
                let layers = encoder.forward_layers(tape, &batch, Some(key), &[0]).unwrap();
                let all = tape.column_range(&layers, 0..192).unwrap();
                assert_eq!(embeddings, all.value().data(), "{} {pooling:?}", model.0);
                all
            });
            for (place, (one, all)) in one.iter().zip(&all).enumerate() {
                assert_eq!(one.is_some(), all.is_some());
                let (Some(one), Some(all)) = (one, all) else { continue };
                let error = difference(one, all);
                assert!(error < 2e-6, "{} {pooling:?}, parameter {place}: {error}", model.0);
            }
        }
    }
}

#[test]
fn the_gradient_of_every_parameter_equals_transformers() {
    for family in FAMILIES {
        let golden = Golden::open(family);
        let encoder = open(family, PoolingMode::Mean);
        let mut gradients = Gradients::new(&encoder.parameters);
        let mut tape = Tape::recording(&Cpu::F32, &encoder.parameters);
        let pooled = encoder.forward(&mut tape, &golden.batch().into(), None).unwrap();
        let upstream = Tensor::from_vec(golden.f32s("upstream"), pooled.value().shape()).unwrap();
        tape.backward(&pooled, upstream, &mut gradients).unwrap();
        let expected = golden.names().into_iter().filter_map(|name| Some(name.strip_prefix("gradient.")?.to_owned()));
        let mut seen = 0;
        for name in expected {
            let expected = golden.f32s(&format!("gradient.{name}"));
            let (_, got) = encoder.named_gradients(&gradients).find(|(own, _)| *own == name).unwrap();
            // The key bias shifts all scores of a row alike: its gradient is 0 but for rounding.
            let is_key_bias = [".key.bias", ".k.bias", ".k_lin.bias"].iter().any(|end| name.ends_with(end));
            let error = if is_key_bias {
                got.iter().fold(0.0f32, |error, value| error.max(value.abs()))
            } else {
                difference(got, &expected)
            };
            assert!(error < 1e-5, "{family} {name}: {error}");
            seen += 1;
        }
        assert_eq!(seen, encoder.named_gradients(&gradients).count(), "{family}: every gradient is compared");
    }
}

#[test]
fn weights_are_saved_under_the_names_they_came_with() {
    for family in FAMILIES {
        let encoder = open(family, PoolingMode::Mean);
        let original = Weights::open(&folder(family)).unwrap();
        let mut saved: Vec<&str> = encoder.weights(0).iter().map(|(name, ..)| *name).collect();
        saved.sort_unstable();
        let mut expected: Vec<&str> = original.names().filter(|name| !name.ends_with("position_ids")).collect();
        expected.sort_unstable();
        assert_eq!(saved, expected, "{family}");
        for (name, shape, values) in encoder.weights(0) {
            assert_eq!(values, original.tensor(name, shape).unwrap(), "{family} {name}");
        }
    }
}

#[test]
fn a_text_has_the_same_embedding_alone_and_in_a_batch() {
    let golden = Golden::open("mpnet");
    let encoder = open("mpnet", PoolingMode::Mean);
    let batch = golden.batch();
    let mut tape = Tape::inference(&Cpu::F32, &encoder.parameters);
    let together = encoder.forward(&mut tape, &batch.clone().into(), None).unwrap();
    for sequence in 0..batch.len() {
        let range = batch.offsets[sequence] as usize..batch.offsets[sequence + 1] as usize;
        let alone = PackedBatch {
            ids: batch.ids[range.clone()].to_vec(),
            type_ids: None,
            positions: batch.positions[range.clone()].to_vec(),
            offsets: vec![0, range.len() as u32],
            examples: vec![0],
        };
        let embedding = encoder.forward(&mut tape, &alone.into(), None).unwrap();
        let width = encoder.dimension();
        let expected = &together.value().data()[sequence * width..(sequence + 1) * width];
        assert!(difference(embedding.value().data(), expected) < 2e-6);
    }
}
