//! The vision transformer: patches as words (Dosovitskiy et al. 2021). ViT, DeiT, DINOv2 and the vision towers of CLIP and
//! SigLIP differ in options only.

use std::sync::Arc;

use engine::op::Interpolation;
use engine::random::Key;
use engine::{Packing, ParameterId, Tape, Tensor, Var};

use super::attention_pool::AttentionPool;
use super::patches::Patches;
use super::vit_config::VisionConfig;
use crate::encoder::layers::{Affine, Layers, Pass, Rows, apply_norm, dropout, norm};
use crate::encoder::lora::Lora;
use crate::encoder::weights::Loader;
use crate::error::Result;
use crate::pixels::PixelBatch;

/// The parameters of a vision transformer.
#[derive(Debug)]
pub(crate) struct VisionTransformer {
    pub(crate) config: VisionConfig,
    /// `[hidden, 3 patch patch]`, as the filters lie on disk.
    patch_weight: ParameterId,
    patch_bias: Option<ParameterId>,
    /// `[1, hidden]` each: the class token, and DeiT's distillation token.
    tokens: Vec<ParameterId>,
    /// `[registers, hidden]`
    registers: Option<ParameterId>,
    /// `[tokens + patches, hidden]`, or of the patches alone
    positions: ParameterId,
    first_norm: Option<Affine>,
    pub(crate) layers: Layers,
    final_norm: Affine,
    attention_pool: Option<AttentionPool>,
}

impl VisionTransformer {
    pub(crate) fn load(config: VisionConfig, loader: &mut Loader<'_>) -> Result<Self> {
        let (names, hidden, patch) = (config.names, config.layer.hidden, config.patch);
        loader.at_depth(0);
        let filters = [hidden, 3, patch, patch];
        let patch_weight = loader.folded(&format!("{}.weight", names.patch), &filters, hidden)?;
        let patch_bias = match config.patch_bias {
            true => Some(loader.vector(&[format!("{}.bias", names.patch)], hidden, 0.0)?),
            false => None,
        };
        let token_shape: &[usize] = if names.batched { &[1, 1, hidden] } else { &[hidden] };
        let tokens = names.tokens.iter().map(|name| loader.folded(name, token_shape, 1)).collect::<Result<Vec<_>>>()?;
        let registers = match config.registers {
            0 => None,
            count => Some(loader.folded(names.registers, &[1, count, hidden], count)?),
        };
        let rows = config.leading_positions() + (config.image / patch) * (config.image / patch);
        let position_shape: &[usize] = if names.batched { &[1, rows, hidden] } else { &[rows, hidden] };
        let positions = loader.folded(names.positions, position_shape, rows)?;
        let first_norm = names.first_norm.map(|name| norm(loader, name, hidden)).transpose()?;
        let layers = Layers::load(config.layer.clone(), names.layer, loader)?;
        let final_norm = norm(loader, names.final_norm, hidden)?;
        let attention_pool = match config.attention_pool {
            true => Some(AttentionPool::load(&config.layer, loader)?),
            false => None,
        };
        for name in names.kept {
            loader.keep(name)?;
        }
        Ok(VisionTransformer {
            config,
            patch_weight,
            patch_bias,
            tokens,
            registers,
            positions,
            first_norm,
            layers,
            final_norm,
            attention_pool,
        })
    }

    /// Rows `[rows, hidden]` after the last norm: the class token of each picture first, registers, then its patches, or those
    /// of them that are asked for; of a model that pools by attention, one row a picture. With a key, dropout is on.
    pub(crate) fn forward(
        &self,
        tape: &mut Tape<'_>,
        batch: &PixelBatch,
        rows: Rows,
        (lora, key): (&Lora, Option<Key>),
    ) -> Result<(Var, Packing)> {
        let eps = self.config.layer.norm_eps;
        let (mut x, packing) = self.embed(tape, batch)?;
        x = tape.dropout(&x, dropout(key, 0, self.config.layer.hidden_dropout), &packing)?;
        if let Some(norm) = self.first_norm {
            x = apply_norm(tape, &x, norm, eps, &packing)?;
        }
        let rows = if self.attention_pool.is_some() { Rows::All } else { rows };
        let pass = Pass { packing: &packing, bias: None, lora, key };
        let (x, packing) = self.layers.forward(tape, x, pass, rows)?;
        let x = apply_norm(tape, &x, self.final_norm, eps, &packing)?;
        match &self.attention_pool {
            Some(pool) => pool.forward(tape, &x, &packing, &batch.examples),
            None => Ok((x, packing)),
        }
    }

    /// Tokens and patches with their positions.
    fn embed(&self, tape: &mut Tape<'_>, batch: &PixelBatch) -> Result<(Var, Packing)> {
        let patches = Patches::of(batch, self.config.patch)?;
        let (own, grid) = (self.config.image / self.config.patch, patches.rows * patches.columns);
        let mut table = tape.parameter(self.positions);
        if (patches.rows, patches.columns) != (own, own) {
            let leading = self.config.leading_positions();
            let places = tape.row_range(&table, leading..leading + own * own)?;
            let to = (patches.rows, patches.columns);
            let places =
                tape.resize_grid(&places, (own, own), to, Interpolation::Bicubic, self.config.names.antialias)?;
            let tokens = tape.row_range(&table, 0..leading)?;
            table = if leading == 0 { places } else { tape.stacked(&[&tokens, &places])? };
        }
        let (weight, bias) = (tape.parameter(self.patch_weight), self.patch_bias.map(|bias| tape.parameter(bias)));
        let pixels = tape.constant(patches.values);
        let patches = tape.linear(&pixels, &weight, bias.as_ref())?;
        let (pictures, tokens) = (batch.examples.len(), self.tokens.len());
        let leading = tokens + self.config.registers;
        let rows = match leading {
            0 => patches,
            _ => {
                let first = self.tokens.iter().chain(&self.registers);
                let first: Vec<Var> = first.map(|&token| tape.parameter(token)).collect();
                let parts: Vec<&Var> = first.iter().chain([&patches]).collect();
                tape.stacked(&parts)?
            }
        };
        // A register has no position: a row of zeros is as good as none.
        let nowhere = table.value().rows() as u32;
        let placed = self.config.leading_positions();
        if placed < leading {
            let zeros = tape.constant(Tensor::zeros(&[1, table.value().columns()]));
            table = tape.stacked(&[&table, &zeros])?;
        }
        let (placed, leading, grid) = (placed as u32, leading as u32, grid as u32);
        let picture_rows = |picture: u32| (0..leading).chain((0..grid).map(move |at| leading + picture * grid + at));
        let indices: Arc<[u32]> = (0..pictures as u32).flat_map(picture_rows).collect();
        let place = |row: u32| match row {
            row if row < placed => row,
            row if row < leading => nowhere,
            row => row - leading + placed,
        };
        let positions: Arc<[u32]> = (0..pictures).flat_map(|_| (0..leading + grid).map(place)).collect();
        let x = tape.embedding_sum(&[(&rows, indices), (&table, positions)])?;
        let offsets: Vec<u32> = (0..=pictures as u32).map(|picture| picture * (leading + grid)).collect();
        Ok((x, Packing::new(&offsets, &batch.examples)))
    }
}
