//! Cross-encoders: one score for two texts read together, more exact than two embeddings and far slower.

use engine::device::{Activation, Pooling};
use engine::{Device, Parameters, Tape};
use serde_json::Value;

use super::family::{Family, TransformerConfig};
use super::layers::{Affine, Rows, linear, parameters};
use super::lora::Lora;
use super::transformer::Transformer;
use super::weights::{Loader, Origin};
use crate::artifact::ModelFolder;
use crate::error::{Error, Result};
use crate::tokens::{PackedBatch, Tokenizer, pack_by_length};

/// Pairs that are tokenised at once.
const PAIRS_AT_ONCE: usize = 4096;

/// Tokens that the transformer sees at once.
const TOKENS_AT_ONCE: usize = 4096;

/// A transformer with a classification head over its first token, as transformers saves
/// `…ForSequenceClassification` and sentence-transformers a `CrossEncoder`:
///
/// ```text
/// BERT                    logits = classifier(tanh(pooler.dense(x)))
/// RoBERTa, XLM-R, MPNet   logits = classifier.out_proj(tanh(classifier.dense(x)))
/// DistilBERT              logits = classifier(relu(pre_classifier(x)))
/// ```
///
/// `x` is the last layer's first token, `[pairs, hidden]`; logits are `[pairs, labels]`.
#[derive(Debug)]
pub struct CrossEncoder {
    name: String,
    tokenizer: Tokenizer,
    parameters: Parameters,
    transformer: Transformer,
    dense: (Affine, Activation),
    out: Affine,
    labels: usize,
    activation: Activation,
}

impl CrossEncoder {
    /// Opens a model's files. Texts are cut to `max_length` tokens a pair, by default to the model's own limit.
    ///
    /// # Errors
    /// [`Error::Model`] if the files are missing, damaged, of an unknown family, or no cross-encoder;
    /// [`Error::Spec`] for a length that the model cannot read.
    pub fn open(folder: &ModelFolder, max_length: Option<usize>) -> Result<Self> {
        let name = folder.files.name();
        if !folder.is_cross_encoder() {
            let problem = "is no cross-encoder: its `architectures` do not name a `…ForSequenceClassification`";
            return Err(Error::model(name, problem));
        }
        let config = TransformerConfig::read(&name, &folder.config)?;
        let weights = folder.weights()?;
        let (family, hidden, longest) = (config.family, config.hidden, config.longest());
        let mut loader = Loader::new(Origin::Pretrained(&weights), family.names().prefix);
        let transformer = Transformer::load(config, &mut loader)?;
        let (dense, activation, out) = match family {
            Family::Bert => ("pooler.dense", Activation::Tanh, "classifier"),
            Family::DistilBert => ("pre_classifier", Activation::Relu, "classifier"),
            _ => ("classifier.dense", Activation::Tanh, "classifier.out_proj"),
        };
        if family != Family::Bert {
            loader.continue_from(Origin::Pretrained(&weights)); // the head's names have no prefix; BERT's pooler has
        }
        let dense = (linear(&mut loader, &[dense.into()], hidden, hidden)?, activation);
        loader.continue_from(Origin::Pretrained(&weights));
        let labels = weights.info(&format!("{out}.weight")).and_then(|info| info.shape.first().copied()).unwrap_or(1);
        let out = linear(&mut loader, &[out.into()], labels, hidden)?;

        let max_length = max_length.unwrap_or(folder.max_length.min(longest));
        if max_length > longest {
            return Err(Error::spec(
                "max_length",
                format!("is {max_length}, but `{name}` reads at most {longest} tokens"),
            ));
        }
        let tokenizer = Tokenizer::from_bytes(&name, &folder.tokenizer()?, max_length)?.lowercase(folder.lowercase);
        let general = folder.files.json("config_sentence_transformers.json")?.unwrap_or_default();
        let activation = activation_of(&name, &folder.config, &general, labels)?;
        Ok(CrossEncoder { name, tokenizer, parameters: loader.parameters, transformer, dense, out, labels, activation })
    }

    /// How many logits a pair has.
    pub fn labels(&self) -> usize {
        self.labels
    }

    /// Logits `[pairs, labels]` of a packed batch of pairs.
    ///
    /// # Errors
    /// [`Error::Engine`] for a token id or position outside the model's tables.
    pub fn forward(&self, device: &dyn Device, batch: &PackedBatch) -> Result<Vec<f32>> {
        let mut tape = Tape::inference(device, &self.parameters);
        let rows = self.transformer.forward(&mut tape, batch, Rows::First, (&Lora::default(), None))?;
        let first = tape.pool(Pooling::Cls, &rows.0, &rows.1)?;
        let (affine, activation) = self.dense;
        let (weight, bias) = parameters(&tape, affine);
        let x = tape.linear(&first, &weight, Some(&bias))?;
        let x = tape.activation(activation, &x)?;
        let (weight, bias) = parameters(&tape, self.out);
        let logits = tape.linear(&x, &weight, Some(&bias))?;
        Ok(tape.read(&logits)?.to_vec())
    }

    /// Logits `[pairs, labels]` of pairs of texts, in their order. `progress` hears the number of pairs done before each
    /// batch, and ends the work with its error where it has one.
    ///
    /// # Errors
    /// [`Error::Model`] if a pair has no tokens; that of `progress`.
    pub fn logits(
        &self,
        device: &dyn Device,
        pairs: &[(&str, &str)],
        mut progress: impl FnMut(usize) -> Result<()>,
    ) -> Result<Vec<f32>> {
        let mut logits = vec![0.0; pairs.len() * self.labels];
        for (chunk, some) in pairs.chunks(PAIRS_AT_ONCE).enumerate() {
            let start = chunk * PAIRS_AT_ONCE;
            let mut done = start;
            let mut sequences = self.tokenizer.encode_pairs(some)?;
            if self.transformer.config.token_types < 2 {
                // Such models know one text type only, whatever their tokenizers say.
                sequences.iter_mut().for_each(|sequence| sequence.type_ids.clear());
            }
            for batch in pack_by_length(&sequences, TOKENS_AT_ONCE) {
                progress(done)?;
                done += batch.len();
                let rows = self.forward(device, &batch)?;
                for (&example, row) in batch.examples.iter().zip(rows.chunks_exact(self.labels)) {
                    logits[(start + example as usize) * self.labels..][..self.labels].copy_from_slice(row);
                }
            }
        }
        progress(pairs.len())?;
        Ok(logits)
    }

    /// One score a pair, higher is a better match: the logit through the model's own activation (as `predict` of
    /// sentence-transformers: the sigmoid, unless the configuration names the identity).
    ///
    /// # Errors
    /// As [`CrossEncoder::logits`]; [`Error::Model`] if the model has several logits.
    pub fn scores(
        &self,
        device: &dyn Device,
        pairs: &[(&str, &str)],
        progress: impl FnMut(usize) -> Result<()>,
    ) -> Result<Vec<f32>> {
        if self.labels != 1 {
            let problem =
                format!("has {} logits a pair, expected one score; take a model made for ranking", self.labels);
            return Err(Error::model(&self.name, problem));
        }
        let mut scores = self.logits(device, pairs, progress)?;
        match self.activation {
            Activation::Sigmoid => scores.iter_mut().for_each(|x| *x = (1.0 / (1.0 + f64::from(-*x).exp())) as f32),
            Activation::Tanh => scores.iter_mut().for_each(|x| *x = f64::from(*x).tanh() as f32),
            _ => {}
        }
        Ok(scores)
    }
}

/// The activation that sentence-transformers would put over the logits: the one it wrote down, in three places over
/// the years; else the sigmoid of a single logit.
fn activation_of(name: &str, config: &Value, general: &Value, labels: usize) -> Result<Activation> {
    let written = [
        &general["activation_fn"],
        &config["sentence_transformers"]["activation_fn"],
        &config["sbert_ce_default_activation_function"],
    ];
    let Some(path) = written.iter().find_map(|value| value.as_str()) else {
        return Ok(if labels == 1 { Activation::Sigmoid } else { Activation::Identity });
    };
    match path.rsplit('.').next().unwrap_or(path) {
        "Identity" => Ok(Activation::Identity),
        "Sigmoid" => Ok(Activation::Sigmoid),
        "Tanh" => Ok(Activation::Tanh),
        other => Err(Error::model(name, format!("the activation is `{other}`, expected Identity, Sigmoid or Tanh"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_activation_is_the_one_that_was_written_down() {
        let of = |config: Value, general: Value, labels| activation_of("m", &config, &general, labels);
        let (sigmoid, identity) = (Activation::Sigmoid, Activation::Identity);
        assert_eq!(of(json!({}), json!({}), 1).unwrap(), sigmoid);
        assert_eq!(of(json!({}), json!({}), 3).unwrap(), identity);
        let old = json!({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"});
        assert_eq!(of(old, json!({}), 1).unwrap(), identity);
        let middle = json!({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}});
        assert_eq!(of(middle, json!({}), 2).unwrap(), sigmoid);
        let new = json!({"activation_fn": "torch.nn.modules.linear.Identity"});
        assert_eq!(of(json!({}), new, 1).unwrap(), identity);
        assert!(
            of(json!({}), json!({"activation_fn": "my.Function"}), 1).unwrap_err().to_string().contains("Function")
        );
    }
}
