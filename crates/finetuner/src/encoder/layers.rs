//! The one stack of transformer layers: of BERT and its kin, of CLIP's two towers, of vision transformers. They differ in
//! options only.

use engine::device::{Activation, AttentionOptions, Pooling};
use engine::random::{Dropout, Key};
use engine::{Packing, ParameterId, Tape, Var};

use super::lora::Lora;
use super::weights::Loader;
use crate::artifact::PoolingMode;
use crate::error::Result;

/// Weight and bias, of a linear layer or a norm.
pub(crate) type Affine = (ParameterId, ParameterId);

/// Where the norms of a layer stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NormPlace {
    /// `x = norm(x + part(x))`, as in BERT (Vaswani et al. 2017).
    After,
    /// `x = x + scale * part(norm(x))`, as in CLIP and vision transformers; `scale` is 1, or learned by column (layer
    /// scale, Touvron et al. 2021).
    Before,
}

/// What the layers of a stack have in common.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LayerConfig {
    pub(crate) layers: usize,
    pub(crate) hidden: usize,
    pub(crate) heads: usize,
    /// Width between the two linear layers of the feed-forward part.
    pub(crate) intermediate: usize,
    /// The first linear layer is twice as wide: the activation of its first half times the second (SwiGLU, Shazeer 2020).
    pub(crate) gated: bool,
    pub(crate) activation: Activation,
    pub(crate) norm: NormPlace,
    pub(crate) norm_eps: f32,
    /// A row attends to itself and earlier rows only.
    pub(crate) causal: bool,
    pub(crate) query_key_value_bias: bool,
    pub(crate) hidden_dropout: f32,
    pub(crate) attention_output_dropout: f32,
    pub(crate) attention_dropout: f32,
}

impl LayerConfig {
    /// The same with DINOv2's gates.
    pub(crate) fn gated(self) -> Self {
        LayerConfig { gated: true, activation: Activation::Silu, ..self }
    }
}

/// Where a layer's tensors lie; `.weight` and `.bias` follow, `_weight` and `_bias` after `in_proj`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerNames {
    /// What stands before a layer's number.
    pub(crate) layers: &'static str,
    /// Query, key and value; or one that holds all three.
    pub(crate) query_key_value: &'static [&'static str],
    pub(crate) attention_output: &'static str,
    pub(crate) attention_norm: &'static str,
    pub(crate) up: &'static str,
    pub(crate) down: &'static str,
    pub(crate) output_norm: &'static str,
    /// Layer scales after attention and after the feed-forward part, where the model has them.
    pub(crate) scales: Option<[&'static str; 2]>,
}

impl LayerNames {
    /// The linear layers that adapters take by default: query and value, or all three where they are one.
    pub(crate) fn query_and_value(&self) -> Vec<String> {
        match self.query_key_value {
            [query, _, value] => vec![(*query).to_owned(), (*value).to_owned()],
            fused => fused.iter().map(|name| (*name).to_owned()).collect(),
        }
    }
}

/// What all layers see in one pass through a stack.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pass<'a> {
    pub(crate) packing: &'a Packing,
    /// Added to attention scores by distance.
    pub(crate) bias: Option<&'a Var>,
    pub(crate) lora: &'a Lora,
    /// With a key, dropout is on.
    pub(crate) key: Option<Key>,
}

/// Which rows of every sequence are asked of a stack's last layer. Its attention needs the keys and values of all, but what
/// follows would be lost on a row that is not read: three quarters of a layer's products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    All,
    First,
    Last,
}

impl Rows {
    /// Those that a pooling reads.
    pub(crate) fn of(pooling: PoolingMode) -> Self {
        match pooling {
            PoolingMode::Cls => Rows::First,
            PoolingMode::Last => Rows::Last,
            PoolingMode::Mean | PoolingMode::Max | PoolingMode::Gem { .. } => Rows::All,
        }
    }

    /// What takes the one row of every sequence.
    fn pooling(self) -> Option<Pooling> {
        match self {
            Rows::All => None,
            Rows::First => Some(Pooling::Cls),
            Rows::Last => Some(Pooling::Last),
        }
    }
}

/// The parameters of a stack.
#[derive(Debug)]
pub(crate) struct Layers {
    pub(crate) config: LayerConfig,
    pub(crate) names: LayerNames,
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    query_key_value: (ParameterId, Option<ParameterId>),
    attention_output: Affine,
    attention_norm: Affine,
    up: Affine,
    down: Affine,
    output_norm: Affine,
    scales: [Option<ParameterId>; 2],
}

impl Layers {
    /// Loads them at depths 1, 2 …
    pub(crate) fn load(config: LayerConfig, names: LayerNames, loader: &mut Loader<'_>) -> Result<Self> {
        let hidden = config.hidden;
        let mut layers = Vec::with_capacity(config.layers);
        for index in 0..config.layers {
            loader.at_depth(index + 1);
            let name = |part: &str| format!("{}{index}.{part}", names.layers);
            let qkv: Vec<String> = names.query_key_value.iter().map(|part| name(part)).collect();
            let each = 3 * hidden / qkv.len();
            let query_key_value = match config.query_key_value_bias {
                true => linear(loader, &qkv, each, hidden).map(|(weight, bias)| (weight, Some(bias)))?,
                false => (loader.matrix(&tensors(&qkv, "weight"), each, hidden)?, None),
            };
            let mut layer = Layer {
                query_key_value,
                attention_output: linear(loader, &[name(names.attention_output)], hidden, hidden)?,
                attention_norm: norm(loader, &name(names.attention_norm), hidden)?,
                up: linear(loader, &[name(names.up)], config.intermediate * if config.gated { 2 } else { 1 }, hidden)?,
                down: linear(loader, &[name(names.down)], hidden, config.intermediate)?,
                output_norm: norm(loader, &name(names.output_norm), hidden)?,
                scales: [None; 2],
            };
            for (scale, own) in layer.scales.iter_mut().zip(names.scales.into_iter().flatten()) {
                *scale = Some(loader.row(&name(own), hidden, 1.0)?);
            }
            layers.push(layer);
        }
        Ok(Layers { config, names, layers })
    }

    /// The weights of all linear layers.
    pub(crate) fn linear_weights(&self) -> Vec<ParameterId> {
        let of = |layer: &Layer| [layer.query_key_value.0, layer.attention_output.0, layer.up.0, layer.down.0];
        self.layers.iter().flat_map(of).collect()
    }

    /// The last layer's rows `[rows, hidden]`, before a final norm: these of every sequence, and how they belong to it.
    pub(crate) fn forward(
        &self,
        tape: &mut Tape<'_>,
        mut x: Var,
        pass: Pass<'_>,
        rows: Rows,
    ) -> Result<(Var, Packing)> {
        let Some((last, earlier)) = self.layers.split_last() else { return Ok((x, pass.packing.clone())) };
        for (index, layer) in earlier.iter().enumerate() {
            x = self.layer(tape, x, (index, layer), pass, None)?;
        }
        let one = rows.pooling().map(|pooling| (pooling, pass.packing.one_row(rows == Rows::Last)));
        x = self.layer(tape, x, (earlier.len(), last), pass, one.as_ref())?;
        Ok((x, one.map_or_else(|| pass.packing.clone(), |(_, packing)| packing)))
    }

    /// All rows of the last layer, and what goes into these layers.
    pub(crate) fn forward_layers(
        &self,
        tape: &mut Tape<'_>,
        mut x: Var,
        pass: Pass<'_>,
        wanted: &[usize],
    ) -> Result<(Var, Vec<Var>)> {
        let mut kept = vec![x.clone(); wanted.len()];
        for (index, layer) in self.layers.iter().enumerate() {
            kept.iter_mut().zip(wanted).filter(|(_, layer)| **layer == index).for_each(|(kept, _)| *kept = x.clone());
            x = self.layer(tape, x, (index, layer), pass, None)?;
        }
        Ok((x, kept))
    }

    /// What a layer makes of all rows; beyond attention of one row of every sequence, if only that is asked for.
    fn layer<'a>(
        &self,
        tape: &mut Tape<'_>,
        mut x: Var,
        (index, layer): (usize, &Layer),
        mut pass: Pass<'a>,
        one: Option<&'a (Pooling, Packing)>,
    ) -> Result<Var> {
        let config = &self.config;
        let eps = config.norm_eps;
        let site = |site: usize, probability: f32| dropout(pass.key, 1 + 3 * index + site, probability);
        let after_attention = site(1, config.attention_output_dropout);
        let after_feed_forward = site(2, config.hidden_dropout);

        let normed = match config.norm {
            NormPlace::After => x.clone(),
            NormPlace::Before => apply_norm(tape, &x, layer.attention_norm, eps, pass.packing)?,
        };
        let qkv = adapted(tape, &normed, layer.query_key_value, pass)?;
        drop(normed);
        let options = AttentionOptions {
            heads: config.heads,
            causal: config.causal,
            window: None,
            dropout: site(0, config.attention_dropout),
        };
        let mut attended = tape.attention(&qkv, pass.packing, pass.bias, options)?;
        drop(qkv);
        if let Some((pooling, packing)) = one {
            attended = tape.pool(*pooling, &attended, pass.packing)?;
            x = tape.pool(*pooling, &x, pass.packing)?;
            pass.packing = packing;
        }
        let (weight, offset) = layer.attention_output;
        attended = adapted(tape, &attended, (weight, Some(offset)), pass)?;

        match config.norm {
            NormPlace::After => {
                let (weight, offset) = parameters(tape, layer.attention_norm);
                x = tape.add_norm(&attended, Some(&x), &weight, &offset, eps, after_attention, pass.packing)?;
                drop(attended);
                let fed = self.feed_forward(tape, &x, layer, pass)?;
                let (weight, offset) = parameters(tape, layer.output_norm);
                Ok(tape.add_norm(&fed, Some(&x), &weight, &offset, eps, after_feed_forward, pass.packing)?)
            }
            NormPlace::Before => {
                x = add(tape, x, attended, layer.scales[0], after_attention, pass.packing)?;
                let normed = apply_norm(tape, &x, layer.output_norm, eps, pass.packing)?;
                let fed = self.feed_forward(tape, &normed, layer, pass)?;
                add(tape, x, fed, layer.scales[1], after_feed_forward, pass.packing)
            }
        }
    }

    /// The feed-forward part in one operation, or in its parts where it is gated or one of them has an adapter.
    fn feed_forward(&self, tape: &mut Tape<'_>, x: &Var, layer: &Layer, pass: Pass<'_>) -> Result<Var> {
        let activation = self.config.activation;
        if self.config.gated || pass.lora.adapts(layer.up.0) || pass.lora.adapts(layer.down.0) {
            let middle = adapted(tape, x, (layer.up.0, Some(layer.up.1)), pass)?;
            let middle = match self.config.gated {
                false => tape.activation(activation, &middle)?,
                true => {
                    let width = self.config.intermediate;
                    let gate = tape.column_range(&middle, 0..width)?;
                    let gate = tape.activation(activation, &gate)?;
                    let values = tape.column_range(&middle, width..2 * width)?;
                    tape.multiply(&values, &gate)?
                }
            };
            return adapted(tape, &middle, (layer.down.0, Some(layer.down.1)), pass);
        }
        let (up, down) = (parameters(tape, layer.up), parameters(tape, layer.down));
        Ok(tape.feed_forward(x, (&up.0, &up.1), (&down.0, &down.1), activation)?)
    }
}

/// A linear layer, with what adapters add.
fn adapted(
    tape: &mut Tape<'_>,
    x: &Var,
    (weight, offset): (ParameterId, Option<ParameterId>),
    pass: Pass<'_>,
) -> Result<Var> {
    let (matrix, offset) = (tape.parameter(weight), offset.map(|offset| tape.parameter(offset)));
    let y = tape.linear(x, &matrix, offset.as_ref())?;
    pass.lora.add(tape, (x, y), weight, pass.packing, pass.key)
}

/// `x + scale * dropout(y)`, into `y` where there is no scale.
fn add(
    tape: &mut Tape<'_>,
    x: Var,
    mut y: Var,
    scale: Option<ParameterId>,
    dropout: Option<Dropout>,
    packing: &Packing,
) -> Result<Var> {
    if dropout.is_some() {
        y = tape.dropout(&y, dropout, packing)?;
    }
    if let Some(scale) = scale {
        let scale = tape.parameter(scale);
        y = tape.multiply(&y, &scale)?;
    }
    Ok(tape.add_columns(y, &x, 1.0, 0)?)
}

/// The dropout of a place in a stack; none without a key.
pub(crate) fn dropout(key: Option<Key>, site: usize, probability: f32) -> Option<Dropout> {
    key.filter(|_| probability > 0.0).map(|key| Dropout { probability, key: key.part(site as u64) })
}

pub(crate) fn apply_norm(tape: &mut Tape<'_>, x: &Var, norm: Affine, eps: f32, packing: &Packing) -> Result<Var> {
    let (weight, offset) = parameters(tape, norm);
    Ok(tape.add_norm(x, None, &weight, &offset, eps, None, packing)?)
}

pub(crate) fn parameters(tape: &Tape<'_>, (weight, bias): Affine) -> (Var, Var) {
    (tape.parameter(weight), tape.parameter(bias))
}

pub(crate) fn linear(loader: &mut Loader<'_>, names: &[String], outputs_each: usize, inputs: usize) -> Result<Affine> {
    let weight = loader.matrix(&tensors(names, "weight"), outputs_each, inputs)?;
    Ok((weight, loader.vector(&tensors(names, "bias"), outputs_each, 0.0)?))
}

pub(crate) fn norm(loader: &mut Loader<'_>, name: &str, width: usize) -> Result<Affine> {
    let weight = loader.vector(&[format!("{name}.weight")], width, 1.0)?;
    Ok((weight, loader.vector(&[format!("{name}.bias")], width, 0.0)?))
}

/// The names of one kind of tensor of some modules. torch's multi-head attention writes `in_proj_weight`.
fn tensors(modules: &[String], kind: &str) -> Vec<String> {
    let join = |module: &String| if module.ends_with("in_proj") { '_' } else { '.' };
    modules.iter().map(|module| format!("{module}{}{kind}", join(module))).collect()
}
