//! A model, ready to use: files, what prepares items for it, and encoder together.

use engine::Device;
use serde_json::Value;

use super::input::Input;
use super::preprocessor::{Prepared, Preprocessor};
use super::{Backbone, Encoder, EncoderOptions, Family, Tower, TransformerConfig};
use crate::artifact::adapter::{ADAPTER_CONFIG, ADAPTER_WEIGHTS};
use crate::artifact::{AdapterRecord, ArtifactWriter, Layout, ModelFolder, NamedTensor, PICTURES, TEXTS};
use crate::data::Modality;
use crate::error::{Error, Result};
use crate::pixels::{ImageProcessor, Preparer, Sources};
use crate::tokens::{Prefetch, Tokenizer};

/// Items that are prepared at once when embedding many: enough to sort by length, few enough to hold in memory.
const ITEMS_AT_ONCE: usize = 4096;

/// Pictures that are read at once: the next ones are read while these are embedded.
const PICTURES_AT_ONCE: usize = 32;

/// How transformers calls the file that says what is done to pictures.
const PREPROCESSOR: &str = "preprocessor_config.json";

/// Height and width of the pictures that EfficientNet B0 to B7 were trained on.
const EFFICIENT_NET_EDGES: [u32; 8] = [224, 240, 260, 300, 380, 456, 528, 600];

/// Tokens that the encoder sees at once when nothing is recorded.
const TOKENS_AT_ONCE: usize = 4096;

/// What an item is for; models may put a prompt before a text.
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
    /// Where pictures are read from.
    pub sources: Sources,
}

/// A model: items in, embeddings out.
#[derive(Debug)]
pub struct Model {
    /// Its files.
    pub folder: ModelFolder,
    /// What turns items into its inputs.
    pub preprocessor: Preprocessor,
    /// Its weights.
    pub encoder: Encoder,
}

/// The texts put before queries, documents and others.
#[derive(Debug, Clone, Default)]
pub struct Prompts {
    query: String,
    document: String,
    plain: String,
}

impl Prompts {
    /// Those that were asked for, else the model's own.
    fn new(folder: &ModelFolder, options: &ModelOptions) -> Self {
        let default = folder.default_prompt.as_ref().and_then(|name| folder.prompts.get(name)).cloned();
        let plain = default.unwrap_or_default();
        let prompt = |asked: &Option<String>, own: Option<&str>| match (asked, own) {
            (Some(asked), _) => asked.clone(),
            (None, Some(own)) => own.to_owned(),
            (None, None) => plain.clone(),
        };
        Prompts {
            query: prompt(&options.query_prompt, folder.query_prompt()),
            document: prompt(&options.document_prompt, folder.document_prompt()),
            plain,
        }
    }

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

impl Model {
    /// Opens a model's files.
    ///
    /// # Errors
    /// [`Error::Model`] if they are missing or damaged, [`Error::Spec`] for a length the model cannot read.
    pub fn open(folder: ModelFolder, options: &ModelOptions) -> Result<Self> {
        let encoder = Encoder::open(&folder, &options.encoder)?;
        let mut preprocessor = Preprocessor::new(folder.files.name());
        for tower in encoder.towers() {
            match tower.backbone() {
                Backbone::Text(transformer) => {
                    let tokenizer = tokenizer(&folder, &transformer.config, options)?;
                    preprocessor = preprocessor.of_texts(tokenizer, Prompts::new(&folder, options));
                }
                Backbone::Vectors(perceptron) => preprocessor = preprocessor.of_vectors(perceptron.config.input),
                Backbone::Image(_) => {
                    let pictures = folder.pictures.as_deref().unwrap_or(&folder);
                    let processor = image_processor(pictures, encoder.towers().len() > 1)?;
                    preprocessor = preprocessor.of_pictures(Preparer::new(processor, options.sources.clone(), 0)?);
                }
            }
        }
        Ok(Model { folder, preprocessor, encoder })
    }

    /// One phrase on its shape.
    pub fn description(&self) -> String {
        let shape = |tower: &Tower| {
            let backbone = tower.backbone();
            let (noun, layers, width) = (backbone.modality().noun(), backbone.layers(), backbone.width());
            format!("{layers} layers of {width} for {noun}s")
        };
        let towers: Vec<String> = self.encoder.towers().iter().map(shape).collect();
        let cut = self.preprocessor.tokenizer().map(|tokenizer| tokenizer.max_length());
        let cut = cut.map_or(String::new(), |limit| format!(", texts cut at {limit} tokens"));
        let size = self.preprocessor.pictures().map(|pictures| pictures.processor().output());
        let size = size.map_or(String::new(), |(height, width)| format!(", pictures of {height} x {width} pixels"));
        format!("{}, embeddings of {}{cut}{size}", towers.join(" and "), self.encoder.dimension())
    }

    /// Embeddings `[items, dimension]`, and how many texts were cut. `progress` hears the number of items done before
    /// each batch, and ends the work with its error where it has one. Pictures are read ahead on other threads.
    ///
    /// # Errors
    /// [`Error::Model`] if a text has no tokens, [`Error::Picture`] for a picture that cannot be read; that of `progress`.
    pub fn embed<T: AsRef<str>>(
        &self,
        device: &dyn Device,
        items: &[T],
        column: (Modality, Role),
        mut progress: impl FnMut(usize) -> Result<()>,
    ) -> Result<(Vec<f32>, usize)> {
        let mut embeddings = Vec::with_capacity(items.len() * self.encoder.dimension());
        let mut truncated = 0;
        let mut done = 0;
        let mut take = |prepared: Prepared| -> Result<()> {
            truncated += prepared.truncated;
            let items = prepared.inputs.iter().map(Input::len).sum();
            let mut told = Ok(());
            let inputs = prepared.inputs.into_iter().take_while(|input| {
                done += input.len();
                told = progress(done);
                told.is_ok()
            });
            embeddings.extend(self.encoder.embed(device, inputs, items)?);
            told
        };
        match column.0 {
            Modality::Text => {
                for items in items.chunks(ITEMS_AT_ONCE) {
                    take(self.preprocessor.prepare_texts(items, column.1, TOKENS_AT_ONCE)?)?;
                }
            }
            Modality::Vector => {
                for items in items.chunks(ITEMS_AT_ONCE) {
                    take(self.preprocessor.prepare_vectors(items, TOKENS_AT_ONCE)?)?;
                }
            }
            Modality::Image => {
                let chunks: Vec<Vec<String>> = items
                    .chunks(PICTURES_AT_ONCE)
                    .map(|own| own.iter().map(|item| item.as_ref().to_owned()).collect())
                    .collect();
                let preprocessor = self.preprocessor.clone();
                let prepare = move |chunk: Vec<String>| preprocessor.prepare_pictures(&chunk, TOKENS_AT_ONCE);
                for prepared in Prefetch::new(chunks.into_iter().map(prepare), 1) {
                    take(prepared?)?;
                }
            }
        }
        Ok((embeddings, truncated))
    }

    /// Writes everything that other tools need to load the model; with a record, its adapters in place of its weights. A
    /// joined pair is two models in two folders.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, writer: &mut ArtifactWriter<'_>, adapter: Option<&AdapterRecord>) -> Result<()> {
        let Some(pictures) = &self.folder.pictures else { return self.save_folder(writer, (&self.folder, 0), adapter) };
        writer.within(TEXTS);
        self.save_folder(writer, (&self.folder, 0), adapter)?;
        writer.within(PICTURES);
        self.save_folder(writer, (pictures, 1), None)?;
        writer.within("");
        Ok(())
    }

    fn save_folder(
        &self,
        writer: &mut ArtifactWriter<'_>,
        (folder, number): (&ModelFolder, usize),
        adapter: Option<&AdapterRecord>,
    ) -> Result<()> {
        let towers = match &self.folder.pictures {
            Some(_) => &self.encoder.towers()[number..=number],
            None => self.encoder.towers(),
        };
        if adapter.is_none() {
            // Where a folder has one, transformers takes it for a whole model with an adapter beside its weights.
            writer.json(folder.config_file(), &folder.config)?;
        }
        match towers {
            [tower] => writer.layout(&self.encoder.layout(tower), tower.backbone().width())?,
            _ => writer.json("modules.json", &Layout::of_clip())?,
        }
        for tower in towers {
            match tower.modality() {
                Modality::Text => self.save_texts(writer, folder)?,
                Modality::Vector => {}
                Modality::Image => {
                    let pictures = self.preprocessor.pictures()?;
                    writer.json(PREPROCESSOR, &pictures.processor().to_json())?;
                }
            }
        }
        let (file, own) = match adapter {
            Some(record) => {
                writer.json(ADAPTER_CONFIG, &record.config())?;
                (ADAPTER_WEIGHTS, self.encoder.adapter_weights())
            }
            None => (folder.weights_file(), self.encoder.weights(number)),
        };
        let own: Vec<_> = own.iter().map(|(name, shape, values)| NamedTensor::f32(name, shape, values)).collect();
        writer.tensors(file, &own)?;
        for tower in towers {
            for (position, tensors) in self.encoder.dense_weights(tower) {
                let tensors: Vec<_> =
                    tensors.iter().map(|(name, shape, values)| NamedTensor::f32(name, shape, values)).collect();
                let name = format!("{}/model.safetensors", tower.layout().folder_of(position));
                writer.tensors(&name, &tensors)?;
            }
        }
        Ok(())
    }

    fn save_texts(&self, writer: &mut ArtifactWriter<'_>, folder: &ModelFolder) -> Result<()> {
        writer.tokenizer(folder)?;
        let own = self.preprocessor.prompts()?;
        let mut prompts = folder.prompts.clone();
        for (name, prompt) in [("query", &own.query), ("document", &own.document)] {
            if !prompt.is_empty() {
                prompts.insert(name.to_owned(), prompt.clone());
            }
        }
        let max_length = self.preprocessor.tokenizer()?.max_length();
        writer.limits_and_prompts(max_length, folder.lowercase, &prompts, folder.default_prompt.as_deref())
    }
}

/// What is done to pictures: as the model's files say, else as its family was trained.
fn image_processor(folder: &ModelFolder, both: bool) -> Result<ImageProcessor> {
    let name = folder.files.name();
    if let Some(config) = folder.files.json(&folder.inside(PREPROCESSOR))? {
        return ImageProcessor::from_json(&name, &config);
    }
    if folder.config.get("pretrained_cfg").is_some() {
        return ImageProcessor::from_timm(&name, &folder.config);
    }
    let config = &folder.config;
    let written = [&config["vision_config"]["image_size"], &config["image_size"], &config["input"]["size"]];
    let written = written.into_iter().find_map(Value::as_u64).and_then(|edge| u32::try_from(edge).ok());
    let architecture = config["architecture"].as_str().unwrap_or_default();
    let efficient = architecture.rsplit_once("efficientnet_b").and_then(|(_, size)| size.parse::<usize>().ok());
    let efficient = efficient.and_then(|size| EFFICIENT_NET_EDGES.get(size)).copied();
    let edge = written.or(efficient).unwrap_or(224).clamp(8, 4096);
    let clip = both && folder.pictures.is_none() && architecture.is_empty();
    Ok(if clip { ImageProcessor::clip(edge) } else { ImageProcessor::imagenet(edge * 256 / 224, edge) })
}

/// The tokenizer of a model's texts, cutting them where the model or the options say.
fn tokenizer(folder: &ModelFolder, config: &TransformerConfig, options: &ModelOptions) -> Result<Tokenizer> {
    let (name, longest, vocabulary) = (folder.files.name(), config.longest(), config.vocabulary);
    let max_length = options.max_length.unwrap_or(folder.max_length.min(longest));
    if max_length > longest {
        let problem = format!("is {max_length}, but `{name}` reads at most {longest} tokens");
        return Err(Error::spec("max_length", problem));
    }
    let tokenizer = Tokenizer::from_bytes(&name, &folder.tokenizer()?, max_length)?;
    if tokenizer.vocabulary_size() > vocabulary {
        let known = tokenizer.vocabulary_size();
        let problem = format!("the tokenizer knows {known} tokens, but the weights only {vocabulary}");
        return Err(Error::model(name, problem));
    }
    let tokenizer = tokenizer.lowercase(folder.lowercase);
    if config.family == Family::Siglip {
        let filling = folder.config["text_config"]["pad_token_id"].as_u64().unwrap_or(1);
        return Ok(tokenizer.filled_with(filling as u32));
    }
    Ok(tokenizer)
}
