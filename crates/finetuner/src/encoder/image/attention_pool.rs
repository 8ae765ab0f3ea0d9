//! SigLIP's pooling: one learned query attends to all patches of a picture (Zhai et al. 2022, multi-head attention pooling).

use engine::device::{Activation, AttentionOptions, Pooling};
use engine::{Packing, ParameterId, Tape, Var};

use crate::encoder::layers::{Affine, LayerConfig, apply_norm, linear, norm, parameters};
use crate::encoder::weights::Loader;
use crate::error::Result;

/// ```text
/// a = attention(query of the probe, keys and values of the patches)
/// y = a + mlp(norm(a))
/// ```
#[derive(Debug)]
pub(super) struct AttentionPool {
    /// `[1, hidden]`
    probe: ParameterId,
    query_key_value: Affine,
    output: Affine,
    norm: Affine,
    up: Affine,
    down: Affine,
    heads: usize,
    norm_eps: f32,
    activation: Activation,
}

impl AttentionPool {
    pub(super) fn load(config: &LayerConfig, loader: &mut Loader<'_>) -> Result<Self> {
        let hidden = config.hidden;
        Ok(AttentionPool {
            probe: loader.folded("head.probe", &[1, 1, hidden], 1)?,
            query_key_value: linear(loader, &["head.attention.in_proj".into()], 3 * hidden, hidden)?,
            output: linear(loader, &["head.attention.out_proj".into()], hidden, hidden)?,
            norm: norm(loader, "head.layernorm", hidden)?,
            up: linear(loader, &["head.mlp.fc1".into()], config.intermediate, hidden)?,
            down: linear(loader, &["head.mlp.fc2".into()], hidden, config.intermediate)?,
            heads: config.heads,
            norm_eps: config.norm_eps,
            activation: config.activation,
        })
    }

    /// One row `[pictures, hidden]` a picture.
    pub(super) fn forward(
        &self,
        tape: &mut Tape<'_>,
        patches: &Var,
        packing: &Packing,
        examples: &[u32],
    ) -> Result<(Var, Packing)> {
        let (rows, hidden) = (patches.value().rows(), patches.value().columns());
        let probe = tape.parameter(self.probe);
        let with_probe = tape.stacked(&[patches, &probe])?;
        let (weight, bias) = parameters(tape, self.query_key_value);
        let all = tape.linear(&with_probe, &weight, Some(&bias))?;
        // Every row asks the probe's question, so that the attention of sequences serves; the first answer is taken.
        let query = tape.column_range(&all, 0..hidden)?;
        let query = tape.rows(&query, vec![rows as u32; rows].into())?;
        let key_value = tape.row_range(&all, 0..rows)?;
        let key_value = tape.column_range(&key_value, hidden..3 * hidden)?;
        let asked = tape.side_by_side(&[&query, &key_value])?;
        let options = AttentionOptions { heads: self.heads, causal: false, window: None, dropout: None };
        let attended = tape.attention(&asked, packing, None, options)?;
        let attended = tape.pool(Pooling::Cls, &attended, packing)?;
        let (weight, bias) = parameters(tape, self.output);
        let attended = tape.linear(&attended, &weight, Some(&bias))?;

        let offsets: Vec<u32> = (0..=examples.len() as u32).collect();
        let packing = Packing::new(&offsets, examples);
        let normed = apply_norm(tape, &attended, self.norm, self.norm_eps, &packing)?;
        let (up, down) = (parameters(tape, self.up), parameters(tape, self.down));
        let fed = tape.feed_forward(&normed, (&up.0, &up.1), (&down.0, &down.1), self.activation)?;
        Ok((tape.add(&fed, &attended)?, packing))
    }
}
