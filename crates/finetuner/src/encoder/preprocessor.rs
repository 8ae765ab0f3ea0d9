//! Items to what an encoder reads: texts to tokens, pictures to pixels, vectors to their numbers.

use std::sync::Arc;

use super::input::Input;
use super::model::{Prompts, Role};
use super::perceptron::VectorBatch;
use crate::data::{Modality, read_vector};
use crate::error::{Error, Result};
use crate::pixels::{Augmentation, Draw, Order, Preparer};
use crate::tokens::{TokenSequence, Tokenizer, pack, pack_by_length};

/// Turns items into packed inputs. Cloned into the thread that prepares batches ahead of the step.
#[derive(Debug, Clone)]
pub struct Preprocessor {
    name: String,
    texts: Option<(Arc<Tokenizer>, Prompts)>,
    pictures: Option<Preparer>,
    /// How many numbers the vectors have.
    vectors: Option<usize>,
}

/// An item that is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// What it is.
    pub modality: Modality,
    /// The text, the picture's address or the vector's numbers.
    pub content: &'a str,
    /// What a text is for.
    pub role: Role,
    /// Which random view of a picture, where pictures are augmented; `None` is the picture as it is.
    pub draw: Option<Draw>,
}

/// Items that are ready for an encoder.
#[derive(Debug, Clone, Default)]
pub struct Prepared {
    /// The items, packed; which of them are in which input is in its `examples`.
    pub inputs: Vec<Input>,
    /// Texts that were cut.
    pub truncated: usize,
}

impl Preprocessor {
    pub(super) fn new(name: String) -> Self {
        Preprocessor { name, texts: None, pictures: None, vectors: None }
    }

    pub(super) fn of_texts(self, tokenizer: Tokenizer, prompts: Prompts) -> Self {
        Preprocessor { texts: Some((Arc::new(tokenizer), prompts)), ..self }
    }

    pub(super) fn of_pictures(self, pictures: Preparer) -> Self {
        Preprocessor { pictures: Some(pictures), ..self }
    }

    pub(super) fn of_vectors(self, width: usize) -> Self {
        Preprocessor { vectors: Some(width), ..self }
    }

    /// Lets [`Preprocessor::prepare`] draw random views of pictures.
    ///
    /// # Errors
    /// [`Error::Spec`] for options out of range, or a model that reads no pictures.
    pub fn augment(&mut self, augmentation: Augmentation) -> Result<()> {
        let pictures = self.pictures()?.clone();
        self.pictures = Some(pictures.augmented(augmentation)?);
        Ok(())
    }

    /// What reads pictures.
    ///
    /// # Errors
    /// [`Error::Spec`] for a model that reads no pictures.
    pub fn pictures(&self) -> Result<&Preparer> {
        self.pictures.as_ref().ok_or_else(|| Error::spec("model", format!("`{}` reads no pictures", self.name)))
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// [`Error::Spec`] for a model that reads no texts.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.text_parts().map(|(tokenizer, _)| tokenizer.as_ref())
    }

    /// What is put before texts.
    ///
    /// # Errors
    /// [`Error::Spec`] for a model that reads no texts.
    pub fn prompts(&self) -> Result<&Prompts> {
        self.text_parts().map(|(_, prompts)| prompts)
    }

    fn text_parts(&self) -> Result<&(Arc<Tokenizer>, Prompts)> {
        let way = if self.vectors.is_some() { ", but vectors of them: see `finetuner encode`" } else { "" };
        self.texts.as_ref().ok_or_else(|| Error::spec("model", format!("`{}` reads no texts{way}", self.name)))
    }

    /// Items in their order, in micro-batches of at most as many tokens as `budget` says of all of them together (of
    /// pictures: of none, as they are not read yet); `rows[i]` is the row of the whole batch that item `i` stands in. Texts on
    /// the threads of the current pool, pictures on threads of their own.
    ///
    /// # Errors
    /// [`Error::Model`] if a text has no tokens, [`Error::Picture`] for a picture that cannot be read; [`Error::Spec`] for
    /// items that the model does not read.
    ///
    /// # Panics
    /// If there are fewer rows than items: a bug of the caller.
    pub fn prepare(&self, items: &[Wanted<'_>], mut rows: &[u32], budget: &dyn Fn(usize) -> usize) -> Result<Prepared> {
        let mut prepared = Prepared::default();
        for column in items.chunk_by(|one, next| one.modality == next.modality) {
            let (own, others) = rows.split_at(column.len());
            rows = others;
            match column[0].modality {
                Modality::Text => {
                    let (tokenizer, prompts) = self.text_parts()?;
                    let texts: Vec<String> = column.iter().map(|item| prompts.apply(item.role, item.content)).collect();
                    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                    let sequences = tokenizer.encode(&texts)?;
                    prepared.truncated += cut(&sequences);
                    let tokens = sequences.iter().map(|sequence| sequence.ids.len()).sum();
                    prepared.inputs.extend(pack(&sequences, own, budget(tokens)).into_iter().map(Input::Tokens));
                }
                Modality::Image => {
                    let orders = column.iter().map(|item| Order { address: item.content, draw: item.draw });
                    let orders: Vec<Order<'_>> = orders.collect();
                    let batches = self.pictures()?.prepare(&orders, own, budget(0))?;
                    prepared.inputs.extend(batches.into_iter().map(Input::Pixels));
                }
                Modality::Vector => {
                    let vectors: Vec<&str> = column.iter().map(|item| item.content).collect();
                    prepared.inputs.extend(self.vectors(&vectors, own, budget(vectors.len()))?);
                }
            }
        }
        Ok(prepared)
    }

    /// Texts in whatever order is fastest, on all threads.
    ///
    /// # Errors
    /// As [`Preprocessor::prepare`].
    pub fn prepare_texts<T: AsRef<str>>(&self, texts: &[T], role: Role, budget: usize) -> Result<Prepared> {
        let (tokenizer, prompts) = self.text_parts()?;
        let prompted: Vec<String> = texts.iter().map(|text| prompts.apply(role, text.as_ref())).collect();
        let prompted: Vec<&str> = prompted.iter().map(String::as_str).collect();
        let sequences = tokenizer.encode(&prompted)?;
        let inputs = pack_by_length(&sequences, budget).into_iter().map(Input::Tokens).collect();
        Ok(Prepared { inputs, truncated: cut(&sequences) })
    }

    /// Vectors in their order.
    ///
    /// # Errors
    /// [`Error::Spec`] for vectors of another length than the model reads, or a model that reads none.
    pub fn prepare_vectors<T: AsRef<str>>(&self, vectors: &[T], budget: usize) -> Result<Prepared> {
        let vectors: Vec<&str> = vectors.iter().map(AsRef::as_ref).collect();
        let rows: Vec<u32> = (0..vectors.len() as u32).collect();
        Ok(Prepared { inputs: self.vectors(&vectors, &rows, budget)?, truncated: 0 })
    }

    fn vectors(&self, vectors: &[&str], rows: &[u32], budget: usize) -> Result<Vec<Input>> {
        let refuse = |problem: String| Error::spec("model", format!("`{}` {problem}", self.name));
        let width = self.vectors.ok_or_else(|| refuse("reads no vectors; take `mlp`".into()))?;
        let parts = vectors.chunks(budget.max(1)).zip(rows.chunks(budget.max(1)));
        let parts = parts.map(|(vectors, rows)| {
            let mut values = Vec::with_capacity(width * vectors.len());
            for content in vectors {
                let vector = read_vector(content).unwrap_or_default();
                if vector.len() != width {
                    return Err(refuse(format!("reads vectors of {width} numbers, got one of {}", vector.len())));
                }
                values.extend(vector);
            }
            Ok(Input::Vectors(VectorBatch { values, width, examples: rows.to_vec() }))
        });
        parts.collect()
    }

    /// Pictures as they are, without random views.
    ///
    /// # Errors
    /// As [`Preprocessor::prepare`].
    pub fn prepare_pictures<T: AsRef<str>>(&self, addresses: &[T], budget: usize) -> Result<Prepared> {
        let orders: Vec<Order<'_>> =
            addresses.iter().map(|address| Order { address: address.as_ref(), draw: None }).collect();
        let rows: Vec<u32> = (0..addresses.len() as u32).collect();
        let batches = self.pictures()?.prepare(&orders, &rows, budget)?;
        Ok(Prepared { inputs: batches.into_iter().map(Input::Pixels).collect(), truncated: 0 })
    }
}

fn cut(sequences: &[TokenSequence]) -> usize {
    sequences.iter().filter(|sequence| sequence.truncated).count()
}
