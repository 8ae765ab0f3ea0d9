//! Items to what an encoder reads: texts to tokens, pictures to pixels.

use std::sync::Arc;

use super::input::Input;
use super::model::{Prompts, Role};
use crate::data::Modality;
use crate::error::{Error, Result};
use crate::tokens::{TokenSequence, Tokenizer, pack, pack_by_length};

/// Turns items into packed inputs. Cloned into the thread that prepares batches ahead of the step.
#[derive(Debug, Clone)]
pub struct Preprocessor {
    name: String,
    texts: Option<(Arc<Tokenizer>, Prompts)>,
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
    pub(super) fn new(name: String, texts: Option<(Tokenizer, Prompts)>) -> Self {
        Preprocessor { name, texts: texts.map(|(tokenizer, prompts)| (Arc::new(tokenizer), prompts)) }
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
        self.texts.as_ref().ok_or_else(|| Error::spec("model", format!("`{}` reads no texts", self.name)))
    }

    /// Items in their order, in micro-batches of at most `budget` tokens. On the calling thread: the pool's own threads
    /// are busy with the step, and may be waiting for this batch.
    ///
    /// # Errors
    /// [`Error::Model`] if a text has no tokens; [`Error::Spec`] for items that the model does not read.
    pub fn prepare(&self, items: &[(Modality, &str, Role)], budget: usize) -> Result<Prepared> {
        let mut prepared = Prepared::default();
        let mut first = 0;
        for column in items.chunk_by(|(one, ..), (next, ..)| one == next) {
            let rows: Vec<u32> = (first..first + column.len() as u32).collect();
            first += column.len() as u32;
            match column[0].0 {
                Modality::Text => {
                    let (tokenizer, prompts) = self.text_parts()?;
                    let sequence =
                        |(_, text, role): &(Modality, &str, Role)| tokenizer.encode_text(&prompts.apply(*role, text));
                    let sequences = column.iter().map(sequence).collect::<Result<Vec<_>>>()?;
                    prepared.truncated += cut(&sequences);
                    prepared.inputs.extend(pack(&sequences, &rows, budget).into_iter().map(Input::Tokens));
                }
                Modality::Image => return Err(super::backbone::unreadable(Modality::Text, Modality::Image)),
            }
        }
        Ok(prepared)
    }

    /// Items of one modality in whatever order is fastest, on all threads.
    ///
    /// # Errors
    /// As [`Preprocessor::prepare`].
    pub fn prepare_for_search<T: AsRef<str>>(
        &self,
        items: &[T],
        (modality, role): (Modality, Role),
        budget: usize,
    ) -> Result<Prepared> {
        match modality {
            Modality::Text => {
                let (tokenizer, prompts) = self.text_parts()?;
                let prompted: Vec<String> = items.iter().map(|text| prompts.apply(role, text.as_ref())).collect();
                let prompted: Vec<&str> = prompted.iter().map(String::as_str).collect();
                let sequences = tokenizer.encode(&prompted)?;
                let inputs = pack_by_length(&sequences, budget).into_iter().map(Input::Tokens).collect();
                Ok(Prepared { inputs, truncated: cut(&sequences) })
            }
            Modality::Image => Err(super::backbone::unreadable(Modality::Text, Modality::Image)),
        }
    }
}

fn cut(sequences: &[TokenSequence]) -> usize {
    sequences.iter().filter(|sequence| sequence.truncated).count()
}
