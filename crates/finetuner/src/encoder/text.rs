//! A text model, ready to use: files, tokenizer and encoder together.

use std::sync::Arc;

use engine::Device;

use super::{Encoder, EncoderOptions};
use crate::artifact::adapter::{ADAPTER_CONFIG, ADAPTER_WEIGHTS};
use crate::artifact::{AdapterRecord, ArtifactWriter, ModelFolder, NamedTensor};
use crate::error::{Error, Result};
use crate::tokens::{Tokenizer, pack_by_length};

/// Texts that are tokenised at once when embedding many: enough to sort by length, few enough to hold in memory.
const TEXTS_AT_ONCE: usize = 4096;

/// Tokens that the encoder sees at once when nothing is recorded.
const TOKENS_AT_ONCE: usize = 4096;

/// What a text is for; models may put a prompt before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A question: the first column of pairs, and the queries of a search.
    Query,
    /// What is found.
    Document,
    /// Neither: labelled and scored texts.
    Plain,
}

/// Instead of what the model's files say.
#[derive(Debug, Clone, Default)]
pub struct ModelOptions {
    /// Pooling, head and initial weights.
    pub encoder: EncoderOptions,
    /// Tokens a text is cut to.
    pub max_length: Option<usize>,
    /// Put before every query.
    pub query_prompt: Option<String>,
    /// Put before every document.
    pub document_prompt: Option<String>,
}

/// A text model: texts in, embeddings out.
#[derive(Debug)]
pub struct TextModel {
    /// Its files.
    pub folder: ModelFolder,
    /// Shared, because batches are tokenised on another thread.
    pub tokenizer: Arc<Tokenizer>,
    /// Its weights.
    pub encoder: Encoder,
    prompts: Prompts,
}

/// The texts put before queries, documents and others.
#[derive(Debug, Clone, Default)]
pub struct Prompts {
    query: String,
    document: String,
    plain: String,
}

impl Prompts {
    /// The text with its prompt.
    pub fn apply(&self, role: Role, text: &str) -> String {
        let prompt = match role {
            Role::Query => &self.query,
            Role::Document => &self.document,
            Role::Plain => &self.plain,
        };
        format!("{prompt}{text}")
    }
}

impl TextModel {
    /// Opens a model's files.
    ///
    /// # Errors
    /// [`Error::Model`] if they are missing or damaged, [`Error::Spec`] for a length the model cannot read.
    pub fn open(folder: ModelFolder, options: &ModelOptions) -> Result<Self> {
        let encoder = Encoder::open(&folder, &options.encoder)?;
        let longest = encoder.config().longest();
        let max_length = options.max_length.unwrap_or(folder.max_length.min(longest));
        if max_length > longest {
            let problem = format!("is {max_length}, but `{}` reads at most {longest} tokens", folder.files.name());
            return Err(Error::spec("max_length", problem));
        }
        let tokenizer = Tokenizer::from_bytes(&folder.files.name(), &folder.tokenizer()?, max_length)?;
        let vocabulary = encoder.config().vocabulary;
        if tokenizer.vocabulary_size() > vocabulary {
            let problem = format!(
                "the tokenizer knows {} tokens, but the weights only {vocabulary}",
                tokenizer.vocabulary_size()
            );
            return Err(Error::model(folder.files.name(), problem));
        }
        let default = folder.default_prompt.as_ref().and_then(|name| folder.prompts.get(name)).cloned();
        let plain = default.unwrap_or_default();
        let prompt = |asked: &Option<String>, own: Option<&str>| match (asked, own) {
            (Some(asked), _) => asked.clone(),
            (None, Some(own)) => own.to_owned(),
            (None, None) => plain.clone(),
        };
        let prompts = Prompts {
            query: prompt(&options.query_prompt, folder.query_prompt()),
            document: prompt(&options.document_prompt, folder.document_prompt()),
            plain,
        };
        let tokenizer = Arc::new(tokenizer.lowercase(folder.lowercase));
        Ok(TextModel { folder, tokenizer, encoder, prompts })
    }

    /// What is put before texts.
    pub fn prompts(&self) -> &Prompts {
        &self.prompts
    }

    /// Embeddings `[texts, dimension]`, and how many texts were cut. `progress` hears the number of texts done before
    /// each batch, and ends the work with its error where it has one.
    ///
    /// # Errors
    /// [`Error::Model`] if a text has no tokens; that of `progress`.
    pub fn embed<T: AsRef<str>>(
        &self,
        device: &dyn Device,
        texts: &[T],
        role: Role,
        mut progress: impl FnMut(usize) -> Result<()>,
    ) -> Result<(Vec<f32>, usize)> {
        let mut embeddings = Vec::with_capacity(texts.len() * self.encoder.dimension());
        let mut truncated = 0;
        for (chunk, texts) in texts.chunks(TEXTS_AT_ONCE).enumerate() {
            let prompted: Vec<String> = texts.iter().map(|text| self.prompts.apply(role, text.as_ref())).collect();
            let prompted: Vec<&str> = prompted.iter().map(String::as_str).collect();
            let sequences = self.tokenizer.encode(&prompted)?;
            truncated += sequences.iter().filter(|sequence| sequence.truncated).count();
            let mut done = chunk * TEXTS_AT_ONCE;
            let mut told = Ok(());
            let batches = pack_by_length(&sequences, TOKENS_AT_ONCE).into_iter().take_while(|batch| {
                done += batch.len();
                told = progress(done);
                told.is_ok()
            });
            embeddings.extend(self.encoder.embed(device, batches, texts.len())?);
            told?;
        }
        Ok((embeddings, truncated))
    }

    /// Writes everything that other tools need to load the model; with a record, its adapters in place of its weights.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, writer: &mut ArtifactWriter<'_>, adapter: Option<&AdapterRecord>) -> Result<()> {
        if adapter.is_none() {
            // Where a folder has one, transformers takes it for a whole model with an adapter beside its weights.
            writer.json("config.json", &self.folder.config)?;
        }
        writer.tokenizer(&self.folder)?;
        writer.layout(self.encoder.layout(), self.encoder.config().hidden)?;
        let mut prompts = self.folder.prompts.clone();
        for (name, prompt) in [("query", &self.prompts.query), ("document", &self.prompts.document)] {
            if !prompt.is_empty() {
                prompts.insert(name.to_owned(), prompt.clone());
            }
        }
        let default = self.folder.default_prompt.as_deref();
        writer.limits_and_prompts(self.tokenizer.max_length(), self.folder.lowercase, &prompts, default)?;
        let (file, own) = match adapter {
            Some(record) => {
                writer.json(ADAPTER_CONFIG, &record.config())?;
                (ADAPTER_WEIGHTS, self.encoder.adapter_weights())
            }
            None => ("model.safetensors", self.encoder.weights()),
        };
        let own: Vec<_> = own.iter().map(|(name, shape, values)| NamedTensor::f32(name, shape, values)).collect();
        writer.tensors(file, &own)?;
        for (position, tensors) in self.encoder.dense_weights() {
            let tensors: Vec<_> =
                tensors.iter().map(|(name, shape, values)| NamedTensor::f32(name, shape, values)).collect();
            let name = format!("{}/model.safetensors", self.encoder.layout().folder_of(position));
            writer.tensors(&name, &tensors)?;
        }
        Ok(())
    }
}
