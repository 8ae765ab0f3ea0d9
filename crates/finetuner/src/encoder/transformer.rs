//! The text transformer: embeddings of words and positions, then layers. BERT, RoBERTa, XLM-RoBERTa, DistilBERT, MPNet
//! and the text towers of CLIP and SigLIP differ in options only.

use std::sync::Arc;

use engine::random::Key;
use engine::{Packing, ParameterId, Tape, Var};

use super::family::TransformerConfig;
use super::layers::{Affine, Layers, Pass, Rows, apply_norm, dropout, norm};
use super::lora::Lora;
use super::weights::Loader;
use crate::error::Result;
use crate::tokens::PackedBatch;

/// The parameters of a stack of transformer layers over word and position embeddings.
#[derive(Debug)]
pub struct Transformer {
    pub(crate) config: TransformerConfig,
    words: ParameterId,
    positions: ParameterId,
    token_types: Option<ParameterId>,
    embedding_norm: Option<Affine>,
    /// `[buckets, heads]`
    relative_bias: Option<ParameterId>,
    pub(crate) layers: Layers,
    final_norm: Option<Affine>,
}

impl Transformer {
    pub(crate) fn load(config: TransformerConfig, loader: &mut Loader<'_>) -> Result<Self> {
        let names = config.family.names();
        let hidden = config.hidden;
        loader.at_depth(0);
        let words = loader.matrix(&[names.words.into()], config.vocabulary, hidden)?;
        let positions = loader.matrix(&[names.positions.into()], config.positions, hidden)?;
        let token_types = match config.token_types {
            0 => None,
            count => Some(loader.matrix(&["embeddings.token_type_embeddings.weight".into()], count, hidden)?),
        };
        let embedding_norm = names.embedding_norm.map(|name| norm(loader, name, hidden)).transpose()?;
        let relative_bias = match config.relative_buckets {
            0 => None,
            buckets => {
                let name = ["encoder.relative_attention_bias.weight".to_owned()];
                Some(loader.matrix(&name, buckets, config.heads)?)
            }
        };
        let layers = Layers::load(config.layer(), names.layer, loader)?;
        let final_norm = names.final_norm.map(|name| norm(loader, name, hidden)).transpose()?;
        Ok(Transformer { config, words, positions, token_types, embedding_norm, relative_bias, layers, final_norm })
    }

    /// The last layer's representations of these tokens `[tokens, hidden]`, and how they belong to texts. With a key,
    /// dropout is on.
    pub(crate) fn forward(
        &self,
        tape: &mut Tape<'_>,
        batch: &PackedBatch,
        rows: Rows,
        (lora, key): (&Lora, Option<Key>),
    ) -> Result<(Var, Packing)> {
        let packing = Packing::new(&batch.offsets, &batch.examples);
        let (x, bias) = self.first_rows(tape, batch, &packing, key)?;
        let pass = Pass { packing: &packing, bias: bias.as_ref(), lora, key };
        let (x, packing) = self.layers.forward(tape, x, pass, rows)?;
        Ok((self.finish(tape, x, &packing)?, packing))
    }

    /// The last layer's token representations `[tokens, hidden]`, those of these earlier layers, 0 being what goes into the
    /// first one, and how they belong to texts. With a key, dropout is on.
    pub(crate) fn forward_layers(
        &self,
        tape: &mut Tape<'_>,
        batch: &PackedBatch,
        (lora, key): (&Lora, Option<Key>),
        layers: &[usize],
    ) -> Result<(Var, Vec<Var>, Packing)> {
        let packing = Packing::new(&batch.offsets, &batch.examples);
        let (x, bias) = self.first_rows(tape, batch, &packing, key)?;
        let pass = Pass { packing: &packing, bias: bias.as_ref(), lora, key };
        let (x, earlier) = self.layers.forward_layers(tape, x, pass, layers)?;
        Ok((self.finish(tape, x, &packing)?, earlier, packing))
    }

    /// What goes into the first layer, and the bias of every layer's attention.
    fn first_rows(
        &self,
        tape: &mut Tape<'_>,
        batch: &PackedBatch,
        packing: &Packing,
        key: Option<Key>,
    ) -> Result<(Var, Option<Var>)> {
        let x = self.embed(tape, batch, packing)?;
        let x = tape.dropout(&x, dropout(key, 0, self.config.hidden_dropout), packing)?;
        Ok((x, self.relative_bias(tape, packing)?))
    }

    fn finish(&self, tape: &mut Tape<'_>, x: Var, packing: &Packing) -> Result<Var> {
        match self.final_norm {
            Some(norm) => apply_norm(tape, &x, norm, self.config.norm_eps, packing),
            None => Ok(x),
        }
    }

    fn embed(&self, tape: &mut Tape<'_>, batch: &PackedBatch, packing: &Packing) -> Result<Var> {
        let first = self.config.first_position as u32;
        let positions: Arc<[u32]> = batch.positions.iter().map(|position| position + first).collect();
        let words = tape.parameter(self.words);
        let position_table = tape.parameter(self.positions);
        let mut tables = vec![(&words, Arc::from(&batch.ids[..])), (&position_table, positions)];
        let type_table = self.token_types.map(|id| tape.parameter(id));
        if let Some(table) = &type_table {
            let types = match &batch.type_ids {
                Some(types) => Arc::from(&types[..]),
                None => vec![0; batch.ids.len()].into(),
            };
            tables.push((table, types));
        }
        let sum = tape.embedding_sum(&tables)?;
        match self.embedding_norm {
            Some(norm) => apply_norm(tape, &sum, norm, self.config.norm_eps, packing),
            None => Ok(sum),
        }
    }

    /// The bias of every distance between two tokens of this batch, `[2 longest - 1, heads]`.
    fn relative_bias(&self, tape: &mut Tape<'_>, packing: &Packing) -> Result<Option<Var>> {
        let Some(table) = self.relative_bias else { return Ok(None) };
        let reach = packing.longest().max(1) as i64;
        let buckets = (1 - reach..reach).map(|distance| relative_bucket(distance, self.config.relative_buckets));
        let table = tape.parameter(table);
        Ok(Some(tape.rows(&table, buckets.collect())?))
    }
}

/// The bucket of the distance `key - query`: half of them for each direction, exact up to a quarter, then logarithmic up
/// to a distance of 128 (T5's rule, as in transformers' `MPNetEncoder.relative_position_bucket`).
fn relative_bucket(distance: i64, buckets: usize) -> u32 {
    const FURTHEST: f32 = 128.0;
    let half = buckets / 2;
    let exact = half / 2;
    let offset = if distance > 0 { half } else { 0 };
    let apart = distance.unsigned_abs() as usize;
    let bucket = if apart < exact {
        apart
    } else {
        let share = (apart as f32 / exact as f32).ln() / (FURTHEST / exact as f32).ln();
        (exact + (share * (half - exact) as f32) as usize).min(half - 1)
    };
    (offset + bucket) as u32
}
