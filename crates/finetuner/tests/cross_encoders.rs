//! Cross-encoders against transformers and sentence-transformers: the packing of pairs, logits and scores. The golden
//! files and the program that made them are in `golden/`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};

use engine::Cpu;
use finetuner::Error;
use finetuner::artifact::ModelFolder;
use finetuner::encoder::CrossEncoder;

const FAMILIES: [&str; 6] = ["bert", "bert-3-labels", "roberta", "xlm-roberta", "distilbert", "mpnet"];

#[derive(serde::Deserialize)]
struct Golden {
    pairs: Vec<(String, String)>,
    lengths: Vec<usize>,
    logits: Vec<Vec<f64>>,
    scores: Vec<Vec<f64>>,
}

fn folder(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cross_encoders").join(family)
}

fn open(family: &str) -> (CrossEncoder, Golden) {
    let golden = std::fs::read(folder(family).join("golden.json")).unwrap();
    let model = ModelFolder::open(&folder(family)).unwrap();
    (CrossEncoder::open(&model, None).unwrap(), serde_json::from_slice(&golden).unwrap())
}

fn assert_close(got: &[f32], expected: &[Vec<f64>], what: &str) {
    let expected: Vec<f64> = expected.iter().flatten().copied().collect();
    assert_eq!(got.len(), expected.len(), "{what}");
    for (got, expected) in got.iter().zip(&expected) {
        assert!((f64::from(*got) - expected).abs() < 5e-6 * expected.abs().max(1.0), "{what}: {got} {expected}");
    }
}

#[test]
fn logits_and_scores_equal_transformers() {
    for family in FAMILIES {
        let (model, golden) = open(family);
        let pairs: Vec<(&str, &str)> = golden.pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let mut heard = 0;
        let progress = |done| {
            heard = done;
            Ok(())
        };
        assert_close(&model.logits(&Cpu::F32, &pairs, progress).unwrap(), &golden.logits, family);
        assert_eq!(heard, pairs.len());
        if model.labels() == 1 {
            assert_close(&model.scores(&Cpu::F32, &pairs, |_| Ok(())).unwrap(), &golden.scores, family);
        } else {
            let error = model.scores(&Cpu::F32, &pairs, |_| Ok(())).unwrap_err().to_string();
            assert!(error.contains("has 3 logits a pair"), "{error}");
        }
    }
}

#[test]
fn pairs_are_cut_as_the_peer_cuts_them() {
    for family in ["bert", "roberta"] {
        let (_, golden) = open(family);
        let folder = ModelFolder::open(&folder(family)).unwrap();
        let bytes = folder.tokenizer().unwrap();
        let tokenizer = finetuner::tokens::Tokenizer::from_bytes(family, &bytes, folder.max_length).unwrap();
        let pairs: Vec<(&str, &str)> = golden.pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let sequences = tokenizer.encode_pairs(&pairs).unwrap();
        let lengths: Vec<usize> = sequences.iter().map(|sequence| sequence.ids.len()).collect();
        assert_eq!(lengths, golden.lengths, "{family}");
        assert!(sequences[3].truncated && !sequences[0].truncated);
        assert_eq!(sequences[0].type_ids.last().copied().unwrap_or(0), u32::from(family == "bert"));
    }
}

#[test]
fn an_embedding_model_is_no_cross_encoder() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/encoders/bert");
    let error = CrossEncoder::open(&ModelFolder::open(&folder).unwrap(), None).unwrap_err();
    assert!(matches!(error, Error::Model { .. }), "{error}");
    assert!(error.to_string().contains("is no cross-encoder"), "{error}");
}
