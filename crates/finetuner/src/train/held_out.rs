//! A held-out batch, the same every time the validation loss is taken.

use super::batch::{Batch, Batcher};
use crate::encoder::Input;
use crate::error::Result;

/// A batch of texts is kept as it is. Decoded pictures would fill the memory, so they are read anew each time.
#[derive(Debug, Clone)]
pub(crate) struct HeldOut {
    pub(crate) batch: Batch,
    pictures: Option<(Batcher, Vec<u32>)>,
}

impl HeldOut {
    /// The batch of these examples.
    ///
    /// # Errors
    /// As [`Batcher::batch`].
    pub(crate) fn new(batcher: &Batcher, examples: Vec<u32>) -> Result<Self> {
        let mut batch = batcher.batch(&examples, None)?;
        let pictures = batch.micro_batches.iter().any(|input| matches!(input, Input::Pixels(_)));
        if pictures {
            batch.micro_batches = Vec::new();
        }
        Ok(HeldOut { batch, pictures: pictures.then(|| (batcher.clone(), examples)) })
    }

    /// The batch with everything that the encoder reads.
    ///
    /// # Errors
    /// As [`Batcher::batch`].
    pub(crate) fn ready(self) -> Result<Batch> {
        match self.pictures {
            Some((batcher, examples)) => {
                Ok(Batch { micro_batches: batcher.batch(&examples, None)?.micro_batches, ..self.batch })
            }
            None => Ok(self.batch),
        }
    }
}
