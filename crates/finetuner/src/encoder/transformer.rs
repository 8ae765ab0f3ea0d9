//! The one transformer: BERT, RoBERTa, XLM-RoBERTa, DistilBERT and MPNet differ in options only.

use std::sync::Arc;

use engine::device::AttentionOptions;
use engine::random::{Dropout, Key};
use engine::{Packing, ParameterId, Tape, Var};

use super::family::TransformerConfig;
use super::lora::Lora;
use super::weights::Loader;
use crate::error::Result;
use crate::tokens::PackedBatch;

/// Weight and bias, of a linear layer or a norm.
pub(crate) type Affine = (ParameterId, ParameterId);

/// The parameters of a stack of transformer layers over word and position embeddings.
#[derive(Debug)]
pub struct Transformer {
    pub(crate) config: TransformerConfig,
    words: ParameterId,
    positions: ParameterId,
    token_types: Option<ParameterId>,
    embedding_norm: Affine,
    /// `[buckets, heads]`
    relative_bias: Option<ParameterId>,
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    query_key_value: Affine,
    attention_output: Affine,
    attention_norm: Affine,
    up: Affine,
    down: Affine,
    output_norm: Affine,
}

impl Transformer {
    pub(crate) fn load(config: TransformerConfig, loader: &mut Loader<'_>) -> Result<Self> {
        let names = config.family.names();
        let hidden = config.hidden;
        let embedding = |name: &str| [format!("embeddings.{name}_embeddings.weight")];
        loader.at_depth(0);
        let words = loader.matrix(&embedding("word"), config.vocabulary, hidden)?;
        let positions = loader.matrix(&embedding("position"), config.positions, hidden)?;
        let token_types = match config.token_types {
            0 => None,
            count => Some(loader.matrix(&embedding("token_type"), count, hidden)?),
        };
        let embedding_norm = norm(loader, "embeddings.LayerNorm", hidden)?;
        let relative_bias = match config.relative_buckets {
            0 => None,
            buckets => {
                let name = ["encoder.relative_attention_bias.weight".to_owned()];
                Some(loader.matrix(&name, buckets, config.heads)?)
            }
        };
        let mut layers = Vec::with_capacity(config.layers);
        for index in 0..config.layers {
            loader.at_depth(index + 1);
            let name = |part: &str| format!("{}{index}.{part}", names.layer);
            let query_key_value = [name(names.query), name(names.key), name(names.value)];
            layers.push(Layer {
                query_key_value: linear(loader, &query_key_value, hidden, hidden)?,
                attention_output: linear(loader, &[name(names.attention_output)], hidden, hidden)?,
                attention_norm: norm(loader, &name(names.attention_norm), hidden)?,
                up: linear(loader, &[name(names.up)], config.intermediate, hidden)?,
                down: linear(loader, &[name(names.down)], hidden, config.intermediate)?,
                output_norm: norm(loader, &name(names.output_norm), hidden)?,
            });
        }
        Ok(Transformer { config, words, positions, token_types, embedding_norm, relative_bias, layers })
    }

    /// The weights of all linear layers.
    pub(crate) fn linear_weights(&self) -> Vec<ParameterId> {
        let of = |layer: &Layer| [layer.query_key_value, layer.attention_output, layer.up, layer.down];
        self.layers.iter().flat_map(|layer| of(layer).map(|(weight, _)| weight)).collect()
    }

    /// The last layer's token representations `[tokens, hidden]`. With a key, dropout is on.
    pub(crate) fn forward(
        &self,
        tape: &mut Tape<'_>,
        batch: &PackedBatch,
        packing: &Packing,
        lora: &Lora,
        key: Option<Key>,
    ) -> Result<Var> {
        Ok(self.forward_layers(tape, batch, packing, (lora, key), &[])?.0)
    }

    /// The last layer's token representations `[tokens, hidden]`, and those of these earlier layers, 0 being what goes
    /// into the first one. With a key, dropout is on.
    pub(crate) fn forward_layers(
        &self,
        tape: &mut Tape<'_>,
        batch: &PackedBatch,
        packing: &Packing,
        (lora, key): (&Lora, Option<Key>),
        layers: &[usize],
    ) -> Result<(Var, Vec<Var>)> {
        let config = &self.config;
        let eps = config.norm_eps;
        let site = |site: usize, probability: f32| {
            key.filter(|_| probability > 0.0).map(|key| Dropout { probability, key: key.part(site as u64) })
        };

        let mut x = self.embed(tape, batch, packing)?;
        x = tape.dropout(&x, site(0, config.hidden_dropout), packing)?;
        let bias = self.relative_bias(tape, packing)?;
        let mut kept = vec![x.clone(); layers.len()];
        for (index, layer) in self.layers.iter().enumerate() {
            kept.iter_mut().zip(layers).filter(|(_, layer)| **layer == index).for_each(|(kept, _)| *kept = x.clone());
            let sites = 1 + 3 * index;
            let qkv = adapted(tape, &x, layer.query_key_value, packing, (lora, key))?;
            let options = AttentionOptions {
                heads: config.heads,
                causal: false,
                window: None,
                dropout: site(sites, config.attention_dropout),
            };
            let attended = tape.attention(&qkv, packing, bias.as_ref(), options)?;
            drop(qkv);
            let attended = adapted(tape, &attended, layer.attention_output, packing, (lora, key))?;
            let (weight, offset) = parameters(tape, layer.attention_norm);
            let dropout = site(sites + 1, config.attention_output_dropout);
            x = tape.add_norm(&attended, Some(&x), &weight, &offset, eps, dropout, packing)?;
            drop(attended);

            let fed = self.feed_forward(tape, &x, layer, packing, (lora, key))?;
            let (weight, offset) = parameters(tape, layer.output_norm);
            let dropout = site(sites + 2, config.hidden_dropout);
            x = tape.add_norm(&fed, Some(&x), &weight, &offset, eps, dropout, packing)?;
        }
        Ok((x, kept))
    }

    /// The feed-forward part in one operation, or in its parts where one of them has an adapter.
    fn feed_forward(
        &self,
        tape: &mut Tape<'_>,
        x: &Var,
        layer: &Layer,
        packing: &Packing,
        (lora, key): (&Lora, Option<Key>),
    ) -> Result<Var> {
        let activation = self.config.activation;
        if lora.adapts(layer.up.0) || lora.adapts(layer.down.0) {
            let middle = adapted(tape, x, layer.up, packing, (lora, key))?;
            let middle = tape.activation(activation, &middle)?;
            return adapted(tape, &middle, layer.down, packing, (lora, key));
        }
        let (up, down) = (parameters(tape, layer.up), parameters(tape, layer.down));
        Ok(tape.feed_forward(x, (&up.0, &up.1), (&down.0, &down.1), activation)?)
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
        let (weight, offset) = parameters(tape, self.embedding_norm);
        Ok(tape.add_norm(&sum, None, &weight, &offset, self.config.norm_eps, None, packing)?)
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

/// A linear layer, with what adapters add.
fn adapted(
    tape: &mut Tape<'_>,
    x: &Var,
    layer: Affine,
    packing: &Packing,
    (lora, key): (&Lora, Option<Key>),
) -> Result<Var> {
    let (weight, offset) = parameters(tape, layer);
    let y = tape.linear(x, &weight, Some(&offset))?;
    lora.add(tape, (x, y), layer.0, packing, key)
}

pub(crate) fn parameters(tape: &Tape<'_>, (weight, bias): Affine) -> (Var, Var) {
    (tape.parameter(weight), tape.parameter(bias))
}

pub(crate) fn linear(loader: &mut Loader<'_>, names: &[String], outputs_each: usize, inputs: usize) -> Result<Affine> {
    let with = |suffix: &str| names.iter().map(|name| format!("{name}.{suffix}")).collect::<Vec<_>>();
    let weight = loader.matrix(&with("weight"), outputs_each, inputs)?;
    Ok((weight, loader.vector(&with("bias"), outputs_each, 0.0)?))
}

fn norm(loader: &mut Loader<'_>, name: &str, width: usize) -> Result<Affine> {
    let weight = loader.vector(&[format!("{name}.weight")], width, 1.0)?;
    Ok((weight, loader.vector(&[format!("{name}.bias")], width, 0.0)?))
}
