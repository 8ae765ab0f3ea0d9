//! Texts to token sequences with the model's own `tokenizer.json`.

use std::path::Path;

use rayon::prelude::*;
use tokenizers::{PaddingParams, PaddingStrategy, PostProcessor, TruncationParams};

use crate::error::{Error, Result};

/// One text as tokens, special tokens included.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenSequence {
    /// Vocabulary ids.
    pub ids: Vec<u32>,
    /// Segment ids, one for each token; empty where all are 0.
    pub type_ids: Vec<u32>,
    /// Whether the text was longer than the limit and lost its end.
    pub truncated: bool,
}

/// A model's tokenizer with a length limit, without padding.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    tokenizer: tokenizers::Tokenizer,
    max_length: usize,
    lowercase: bool,
}

impl Tokenizer {
    /// Reads a folder's `tokenizer.json`.
    ///
    /// # Errors
    /// As [`Tokenizer::from_bytes`]; [`Error::Io`] if it cannot be read.
    pub fn from_folder(folder: &Path, max_length: usize) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
        Self::from_bytes(&path.display().to_string(), &bytes, max_length)
    }

    /// Reads the contents of a `tokenizer.json`; `name` is used in messages.
    ///
    /// Texts are cut to `max_length` tokens including the special ones. Truncation and padding that the file itself
    /// asks for are replaced.
    ///
    /// # Errors
    /// [`Error::Model`] if the contents are not a tokenizer; [`Error::Spec`] if the special tokens alone fill
    /// `max_length`.
    pub fn from_bytes(name: &str, bytes: &[u8], max_length: usize) -> Result<Self> {
        let refuse = |error: tokenizers::Error| Error::model(name, format!("is not a tokenizer we can read: {error}"));
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(bytes).map_err(refuse)?;
        let special = tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        if max_length <= special {
            let problem = format!("is {max_length}, but this tokenizer adds {special} special tokens to every text");
            return Err(Error::spec("max_length", problem));
        }
        tokenizer.with_truncation(Some(TruncationParams { max_length, ..Default::default() })).map_err(refuse)?;
        tokenizer.with_padding(None);
        Ok(Tokenizer { tokenizer, max_length, lowercase: false })
    }

    /// Lowercases texts first, as old sentence-transformers models ask with `do_lower_case`.
    pub fn lowercase(self, lowercase: bool) -> Self {
        Tokenizer { lowercase, ..self }
    }

    /// Fills every text up to the limit with this token, for models that were trained so and read the filling (SigLIP).
    pub fn filled_with(mut self, id: u32) -> Self {
        let strategy = PaddingStrategy::Fixed(self.max_length);
        self.tokenizer.with_padding(Some(PaddingParams { strategy, pad_id: id, ..Default::default() }));
        self
    }

    /// Tokens a text is cut to, special tokens included.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Number of entries of the vocabulary, added tokens included.
    pub fn vocabulary_size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// The tokens of each text, in the order of the texts; works on all threads of the current pool.
    ///
    /// # Errors
    /// [`Error::Model`] if the tokenizer refuses a text or gives it no token at all.
    pub fn encode(&self, texts: &[&str]) -> Result<Vec<TokenSequence>> {
        texts.par_iter().with_min_len(16).map(|text| self.encode_text(text)).collect()
    }

    /// The tokens of each pair of texts as one sequence with the special tokens between them. A pair that is too long
    /// loses the end of its longer text, token by token.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`]; [`Error::Spec`] if the special tokens of a pair alone fill the limit.
    pub fn encode_pairs(&self, pairs: &[(&str, &str)]) -> Result<Vec<TokenSequence>> {
        let special = self.tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(true));
        if self.max_length <= special {
            let problem =
                format!("is {}, but this tokenizer adds {special} special tokens to every pair", self.max_length);
            return Err(Error::spec("max_length", problem));
        }
        let encode = |(first, second): &(&str, &str)| {
            let encoding = match self.lowercase {
                true => self.tokenizer.encode_fast((first.to_lowercase(), second.to_lowercase()), true),
                false => self.tokenizer.encode_fast((*first, *second), true),
            };
            sequence(first, encoding)
        };
        pairs.par_iter().with_min_len(16).map(encode).collect()
    }

    /// How many tokens each text has before it is cut, special tokens included.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn lengths(&self, texts: &[&str]) -> Result<Vec<usize>> {
        let mut whole = self.tokenizer.clone();
        whole.with_truncation(None).map_err(|error| Error::model("tokenizer", error.to_string()))?;
        whole.with_padding(None);
        let length = |text: &&str| {
            let encoding = whole.encode_fast(*text, true);
            Ok(encoding.map_err(|error| refuse(text, &error.to_string()))?.len())
        };
        texts.par_iter().with_min_len(16).map(length).collect()
    }

    fn encode_text(&self, text: &str) -> Result<TokenSequence> {
        let encoding = match self.lowercase {
            true => self.tokenizer.encode_fast(text.to_lowercase(), true),
            false => self.tokenizer.encode_fast(text, true),
        };
        sequence(text, encoding)
    }
}

fn refuse(text: &str, problem: &str) -> Error {
    let beginning: String = text.chars().take(40).collect();
    Error::model("tokenizer", format!("{problem} for the text `{beginning}`"))
}

/// What the tokenizer made of a text, or of a pair that begins with it.
fn sequence(text: &str, encoding: tokenizers::Result<tokenizers::Encoding>) -> Result<TokenSequence> {
    let encoding = encoding.map_err(|error| refuse(text, &error.to_string()))?;
    if encoding.is_empty() {
        return Err(refuse(text, "there are no tokens"));
    }
    let one_segment = encoding.get_type_ids().iter().all(|&segment| segment == 0);
    Ok(TokenSequence {
        ids: encoding.get_ids().to_vec(),
        type_ids: if one_segment { Vec::new() } else { encoding.get_type_ids().to_vec() },
        truncated: !encoding.get_overflowing().is_empty(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A WordPiece tokenizer of the shape of BERT's, which asks for truncation and padding of its own.
    fn wordpiece() -> Value {
        let words = "[PAD] [UNK] [CLS] [SEP] the a card bank my is how do i freeze lost un ##lock ##ing ##ed ##s ? ! . , \
                     account money transfer to from";
        let vocabulary: serde_json::Map<_, _> =
            words.split_whitespace().enumerate().map(|(id, word)| (word.to_owned(), id.into())).collect();
        let special = |name: &str, id: u32| {
            json!({"id": id, "content": name, "special": true, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false})
        };
        json!({
            "version": "1.0",
            "truncation": {"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
            "padding": {"strategy": {"Fixed": 32}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                        "pad_type_id": 0, "pad_token": "[PAD]"},
            "added_tokens": [special("[PAD]", 0), special("[UNK]", 1), special("[CLS]", 2), special("[SEP]", 3)],
            "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                           "strip_accents": null, "lowercase": true},
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

    fn tokenizer(value: &Value, max_length: usize) -> Result<Tokenizer> {
        Tokenizer::from_bytes("tokenizer.json", value.to_string().as_bytes(), max_length)
    }

    #[test]
    fn texts_become_ids_in_order_with_special_tokens_and_without_padding() {
        let tokens = tokenizer(&wordpiece(), 16).unwrap().encode(&["How do I unlock my card?", "xyz", ""]).unwrap();
        assert_eq!(tokens[0].ids, [2, 10, 11, 12, 15, 16, 8, 6, 20, 3]);
        assert_eq!(tokens[1].ids, [2, 1, 3]);
        assert_eq!(tokens[2].ids, [2, 3]);
        assert!(tokens.iter().all(|sequence| !sequence.truncated && sequence.type_ids.is_empty()));
    }

    #[test]
    fn the_limit_counts_special_tokens_and_a_cut_is_noted() {
        let tokenizer = tokenizer(&wordpiece(), 5).unwrap();
        let tokens = tokenizer.encode(&["how do i freeze my card", "how do i"]).unwrap();
        assert_eq!((&tokens[0].ids[..], tokens[0].truncated), (&[2, 10, 11, 12, 3][..], true));
        assert_eq!((&tokens[1].ids[..], tokens[1].truncated), (&[2, 10, 11, 12, 3][..], false));
        assert_eq!((tokenizer.max_length(), tokenizer.vocabulary_size()), (5, 29));
        assert_eq!(
            tokenizer.lengths(&["how do i freeze my card", "how do i", &"card ".repeat(50)]).unwrap(),
            [8, 5, 52]
        );
    }

    #[test]
    fn many_texts_come_out_in_the_order_they_went_in() {
        let texts: Vec<String> = (0..200).map(|n| "card ".repeat(n % 7)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let tokens = tokenizer(&wordpiece(), 16).unwrap().encode(&texts).unwrap();
        assert!(tokens.iter().enumerate().all(|(n, sequence)| sequence.ids.len() == n % 7 + 2));
    }

    #[test]
    fn segment_ids_are_kept_only_where_they_say_something() {
        let mut value = wordpiece();
        value["post_processor"]["single"][1]["Sequence"]["type_id"] = 1.into();
        let tokens = tokenizer(&value, 16).unwrap().encode(&["my card"]).unwrap();
        assert_eq!(tokens[0].type_ids, [0, 1, 1, 0]);
    }

    #[test]
    fn a_cased_tokenizer_can_be_told_to_lowercase() {
        let mut value = wordpiece();
        value["normalizer"] = Value::Null;
        let cased = tokenizer(&value, 16).unwrap();
        assert_eq!(cased.encode(&["CARD"]).unwrap()[0].ids, [2, 1, 3]);
        assert_eq!(cased.lowercase(true).encode(&["CARD"]).unwrap()[0].ids, [2, 6, 3]);
    }

    #[test]
    fn unusable_files_limits_and_texts_are_errors() {
        assert!(Tokenizer::from_bytes("t.json", b"{}", 8).unwrap_err().to_string().contains("t.json"));
        assert!(Tokenizer::from_folder(Path::new("no/such"), 8).unwrap_err().to_string().contains("no/such"));
        assert!(tokenizer(&wordpiece(), 2).unwrap_err().to_string().contains("adds 2 special tokens"));
        let mut value = wordpiece();
        value["post_processor"] = Value::Null;
        assert!(tokenizer(&value, 8).unwrap().encode(&[" "]).unwrap_err().to_string().contains("no tokens"));
    }

    #[test]
    fn the_real_all_minilm_gives_the_reference_ids() {
        let Some(folder) = std::env::var_os("FINETUNER_MINILM") else {
            return eprintln!("skipped: FINETUNER_MINILM does not name the folder of all-MiniLM-L6-v2");
        };
        let tokens = Tokenizer::from_folder(Path::new(&folder), 256).unwrap();
        // The tokenizers package for Python: Tokenizer.from_file("tokenizer.json").encode("How do I freeze my card?").ids
        assert_eq!(
            tokens.encode(&["How do I freeze my card?"]).unwrap()[0].ids,
            [101, 2129, 2079, 1045, 13184, 2026, 4003, 1029, 102]
        );
    }
}
