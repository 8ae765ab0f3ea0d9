//! A folder of its own for every test, a tiny model, and the binary run in it.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use finetuner::artifact::{ArtifactWriter, ModelFolder};
use finetuner::encoder::{EncoderOptions, Model, ModelOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Words of eight topics; a text is made of the words of one.
const TOPICS: [[&str; 6]; 8] = [
    ["card", "plastic", "chip", "pin", "freeze", "visa"],
    ["loan", "borrow", "debt", "mortgage", "repay", "lender"],
    ["train", "rail", "station", "track", "ticket", "platform"],
    ["bread", "flour", "oven", "yeast", "crust", "baker"],
    ["river", "bank", "water", "bridge", "boat", "shore"],
    ["music", "song", "guitar", "piano", "drum", "choir"],
    ["cloud", "rain", "storm", "wind", "snow", "thunder"],
    ["tree", "leaf", "forest", "branch", "root", "bark"],
];

/// A folder that goes away with the test.
pub(crate) struct Folder(TempDir);

/// What a run of the binary gave.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Folder {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    /// One with a model in `model` and data in `train.csv` (labelled), `test.csv` (labelled) and `texts.txt`.
    pub(crate) fn with_model() -> Self {
        let folder = Folder::new();
        write_model(&folder.path("source"), &folder.path("model"));
        folder.write("train.csv", labelled(0..6));
        folder.write("test.csv", labelled(6..9));
        folder.write("texts.txt", texts(0..9).map(|(text, _)| text + "\n").collect::<String>());
        folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), contents).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.read(name)).unwrap()
    }

    /// The binary with these arguments, split at spaces, in this folder, with nothing of the outer environment.
    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_finetuner"));
        command.args(arguments.split_whitespace()).current_dir(self.0.path());
        command.env_clear().env("HF_HUB_OFFLINE", "1").env("HF_HOME", self.path("cache"));
        command.stdin(std::process::Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &str) -> Ran {
        self.command(arguments).output().unwrap().into()
    }

    /// Runs what must work; gives its standard output.
    pub(crate) fn succeed(&self, arguments: &str) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, Some(0), "{arguments}: {ran:?}");
        ran.out
    }

    /// Runs what must fail with this code and one message that holds these words.
    pub(crate) fn fail(&self, arguments: &str, code: i32, words: &[&str]) {
        self.run(arguments).assert_failed(arguments, code, words);
    }
}

impl Ran {
    pub(crate) fn assert_failed(&self, what: &str, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{what}: {self:?}");
        assert!(!self.err.contains("panicked"), "{what}: {self:?}");
        assert_eq!(self.err.matches("error: ").count(), 1, "{what}: {self:?}");
        for word in words {
            assert!(self.err.contains(word), "{what}: expected `{word}` in {}", self.err);
        }
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// Texts of every topic with their topic; those of different numbers differ.
pub(crate) fn texts(numbers: std::ops::Range<usize>) -> impl Iterator<Item = (String, usize)> {
    numbers.flat_map(|number| {
        TOPICS.iter().enumerate().map(move |(topic, words)| {
            let word = |step: usize| words[(number * step + step + number / 6) % words.len()];
            (format!("{} {} {}", word(1), word(2), words[number % words.len()]), topic)
        })
    })
}

fn labelled(numbers: std::ops::Range<usize>) -> String {
    texts(numbers).fold("text,label\n".to_owned(), |mut rows, (text, topic)| {
        let _ = writeln!(rows, "{text},topic {topic}");
        rows
    })
}

/// A BERT of two small layers with random weights, whose tokenizer knows the words of the topics.
fn write_model(source: &Path, target: &Path) {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let words: Vec<&str> = special.iter().chain(TOPICS.iter().flatten()).copied().collect();
    let vocabulary: serde_json::Map<String, Value> =
        words.iter().enumerate().map(|(id, word)| ((*word).to_owned(), id.into())).collect();
    let added: Vec<Value> = special
        .iter()
        .enumerate()
        .map(|(id, word)| {
            json!({"id": id, "content": word, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        })
        .collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                       "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocabulary},
    });
    let config = json!({
        "architectures": ["BertModel"], "model_type": "bert", "vocab_size": words.len(), "hidden_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "hidden_act": "gelu",
        "max_position_embeddings": 32, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "initializer_range": 0.2,
        "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "pad_token_id": 0,
    });
    std::fs::create_dir_all(source).unwrap();
    std::fs::write(source.join("config.json"), config.to_string()).unwrap();
    std::fs::write(source.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let encoder = EncoderOptions { random: true, seed: 7, ..EncoderOptions::default() };
    let options = ModelOptions { encoder, ..ModelOptions::default() };
    let model = Model::open(ModelFolder::open(source).unwrap(), &options).unwrap();
    let output = finetuner::artifact::Output::claim(target, false).unwrap();
    let mut writer = ArtifactWriter::new(&output).unwrap();
    model.save(&mut writer, None).unwrap();
    writer.finish(&json!({}), Default::default()).unwrap();
}
