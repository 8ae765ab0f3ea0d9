//! A model that is not trained: what it finds alike guides a loss, or its embeddings are what is learnt.

use engine::{Device, Tensor};
use sha2::{Digest, Sha256};

use super::batch::Batch;
use super::ranks::Ranks;
use crate::encoder::{Model, ModelOptions, source};
use crate::error::{Error, Result};

/// The run's `guide`.
#[derive(Debug)]
pub(crate) struct Guide {
    pub(crate) model: Model,
}

impl Guide {
    /// Opens the model that `loss` asks for; `None` where no loss asks for one.
    ///
    /// # Errors
    /// [`Error::Spec`] if a guide is needed and not given, or given and not needed; else as [`Model::open`].
    pub(crate) fn open(guide: Option<&str>, loss: Option<&str>) -> Result<Option<Self>> {
        match (guide, loss) {
            (None, None) => Ok(None),
            (Some(_), None) => Err(Error::spec("guide", "the loss compares with no other model; leave it out")),
            (None, Some(loss)) => {
                let problem = format!(
                    "`{loss}` compares with another model, which is not trained: give a folder, a repository id or an alias"
                );
                Err(Error::spec("guide", problem))
            }
            (Some(guide), Some(_)) => {
                let model = Model::open(source::resolve(guide)?.open()?, &ModelOptions::default())?;
                Ok(Some(Guide { model }))
            }
        }
    }

    /// Its weights: the same on all ranks.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        self.model.encoder.parameters.iter().for_each(|weight| hash.update(bytemuck::cast_slice(weight.value.data())));
        hash.finalize().into()
    }

    /// Puts its embedding of every row into the batch; nothing is recorded. Equal items are embedded once, by one of the `ranks`
    /// that share the batch.
    ///
    /// # Errors
    /// As [`Encoder::embed`](crate::encoder::Encoder::embed), and of other ranks.
    pub(crate) fn embed(&self, device: &dyn Device, batch: &mut Batch, ranks: Option<&mut Ranks>) -> Result<()> {
        let Some(guided) = batch.guided.take() else { return Ok(()) };
        let width = self.model.encoder.dimension();
        let own = self.model.encoder.embed(device, guided.inputs, guided.items);
        let embeddings = match ranks {
            Some(ranks) => ranks.concatenate(own)?,
            None => own?,
        };
        let row = |item: &u32| embeddings[*item as usize * width..][..width].iter().copied();
        let rows: Vec<f32> = guided.rows.iter().flat_map(row).collect();
        batch.layout.guide = Some(Tensor::from_vec(rows, &[guided.rows.len(), width])?);
        Ok(())
    }
}
