//! A tiny model and tiny data, made anew in each test's folder.

use std::fmt::Write;
use std::path::Path;

use engine::random::Key;
use finetuner::artifact::Weights;
use serde_json::{Value, json};

/// Words of each topic; a text of a topic has two of them among words that say nothing.
pub(crate) const TOPICS: [[&str; 4]; 6] = [
    ["card", "pin", "chip", "plastic"],
    ["transfer", "send", "wire", "recipient"],
    ["rate", "exchange", "currency", "convert"],
    ["fee", "charge", "cost", "price"],
    ["limit", "maximum", "ceiling", "cap"],
    ["identity", "passport", "verify", "document"],
];
const FILLER: [&str; 8] = ["my", "the", "please", "is", "about", "why", "today", "help"];

/// A BERT of two layers with random weights to be (`--init random`), and a word-level tokenizer.
pub(crate) fn model(folder: &Path) {
    let config = json!({
        "model_type": "bert", "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 64, "max_position_embeddings": 32, "type_vocab_size": 2, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "layer_norm_eps": 1e-12, "pad_token_id": 0,
        "initializer_range": 0.1,
    });
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    std::fs::write(folder.join("tokenizer.json"), tokenizer().to_string()).unwrap();
}

fn tokenizer() -> Value {
    let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].into_iter().chain(TOPICS.into_iter().flatten()).chain(FILLER);
    let vocabulary: serde_json::Map<_, _> = words.enumerate().map(|(id, word)| (word.to_owned(), id.into())).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
                       "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                               "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}},
        "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocabulary},
    })
}

/// A text of a topic; different numbers give different texts.
pub(crate) fn text(topic: usize, number: u64) -> String {
    let key = Key::new(5).part(topic as u64).part(number);
    let pick = |place: u64, from: &[&'static str]| from[(key.bits(place) % from.len() as u64) as usize];
    let words = [
        pick(0, &FILLER),
        pick(1, &TOPICS[topic]),
        pick(2, &FILLER),
        pick(3, &TOPICS[topic]),
        pick(4, &FILLER),
        pick(5, &FILLER),
    ];
    words[..4 + (key.bits(6) % 3) as usize].join(" ")
}

/// `text,label`, `per_topic` rows each.
pub(crate) fn labelled(path: &Path, first: u64, per_topic: u64) {
    let mut csv = "text,label\n".to_owned();
    for number in first..first + per_topic {
        for topic in 0..TOPICS.len() {
            writeln!(csv, "{},topic {topic}", text(topic, number)).unwrap();
        }
    }
    std::fs::write(path, csv).unwrap();
}

/// `anchor,positive`.
pub(crate) fn pairs(path: &Path, first: u64, per_topic: u64) {
    let mut csv = "anchor,positive\n".to_owned();
    for number in first..first + per_topic {
        for topic in 0..TOPICS.len() {
            writeln!(csv, "{},{} {number}", text(topic, 2 * number), text(topic, 2 * number + 1)).unwrap();
        }
    }
    std::fs::write(path, csv).unwrap();
}

/// `sentence1,sentence2,score`: 1 within a topic, 0 across.
pub(crate) fn scored(path: &Path, first: u64, per_topic: u64) {
    let mut csv = "sentence1,sentence2,score\n".to_owned();
    for number in first..first + per_topic {
        for topic in 0..TOPICS.len() {
            let other = if number % 2 == 0 { topic } else { (topic + 1 + number as usize % 4) % TOPICS.len() };
            let score = if other == topic { "1.0" } else { "0.0" };
            writeln!(csv, "{},{},{score}", text(topic, 3 * number), text(other, 3 * number + 1)).unwrap();
        }
    }
    std::fs::write(path, csv).unwrap();
}

/// `sentence1,sentence2,label`: `same` topic, the `next` one, or an `other`.
#[allow(dead_code, reason = "not every test uses all of it")]
pub(crate) fn labelled_pairs(path: &Path, first: u64, per_topic: u64) {
    let mut csv = "sentence1,sentence2,label\n".to_owned();
    for number in first..first + per_topic {
        for topic in 0..TOPICS.len() {
            let (apart, label) = [(0, "same"), (1, "next"), (3, "other")][number as usize % 3];
            let other = (topic + apart) % TOPICS.len();
            writeln!(csv, "{},{},{label}", text(topic, 3 * number), text(other, 3 * number + 1)).unwrap();
        }
    }
    std::fs::write(path, csv).unwrap();
}

/// Every weight of a model, bit by bit.
#[allow(dead_code, reason = "not every test uses all of it")]
pub(crate) fn bits(weights: &Weights) -> Vec<(String, Vec<u32>)> {
    let read = |name: &str| {
        let shape = weights.info(name).unwrap().shape.clone();
        weights.tensor(name, &shape).unwrap().into_iter().map(f32::to_bits).collect()
    };
    weights.names().map(|name| (name.to_owned(), read(name))).collect()
}
