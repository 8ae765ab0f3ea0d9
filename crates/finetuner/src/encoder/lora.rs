//! Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685): the weights stay, small matrices beside them learn.
//!
//! ```text
//! y = x W^T + b + (alpha / rank) dropout(x) A^T B^T        W [out, in], A [rank, in], B [out, rank]
//! ```
//!
//! `A` starts Kaiming uniform, that is uniform in `±1 / sqrt(in)`, and `B` as 0, so nothing changes before the first
//! step. Only `A` and `B` have gradients and moments. Names, start and scale are those of the `peft` library.

mod options;

use std::ops::Range;

use engine::random::{Dropout, Key};
use engine::{Packing, ParameterId, Parameters, Tape, Tensor, Var};

pub use self::options::{LoraOptions, Save, Targets};
use super::{Backbone, Encoder, Named, Tower};
use crate::artifact::adapter::{LowRank, adapter_names};
use crate::data::Modality;
use crate::error::{Error, Result, nearest};

/// The adapters of an encoder.
#[derive(Debug, Default)]
pub(crate) struct Lora {
    scale: f32,
    dropout: f32,
    adapters: Vec<Adapter>,
}

#[derive(Debug)]
struct Adapter {
    /// The layer's name on disk, without `.weight`.
    module: String,
    weight: ParameterId,
    /// The layer's elements of that weight; query, key and value share one.
    elements: Range<usize>,
    down: ParameterId,
    up: ParameterId,
}

impl Lora {
    /// Whether something is added to the output of this weight.
    pub(crate) fn adapts(&self, weight: ParameterId) -> bool {
        self.adapters.iter().any(|adapter| adapter.weight == weight)
    }

    /// Whether this is the first matrix of an adapter.
    pub(crate) fn is_down(&self, id: ParameterId) -> bool {
        self.adapters.iter().any(|adapter| adapter.down == id)
    }

    /// `y`, the output of the layer of this weight for `x`, with what its adapters add.
    pub(crate) fn add(
        &self,
        tape: &mut Tape<'_>,
        (x, mut y): (&Var, Var),
        weight: ParameterId,
        packing: &Packing,
        key: Option<Key>,
    ) -> Result<Var> {
        let key = key.filter(|_| self.dropout > 0.0).map(|key| key.part(0x10fa));
        for (site, adapter) in self.adapters.iter().enumerate().filter(|(_, adapter)| adapter.weight == weight) {
            let dropout = key.map(|key| Dropout { probability: self.dropout, key: key.part(site as u64) });
            let (down, up) = (tape.parameter(adapter.down), tape.parameter(adapter.up));
            let x = tape.dropout(x, dropout, packing)?;
            let narrow = tape.linear(&x, &down, None)?;
            let wide = tape.linear(&narrow, &up, None)?;
            y = tape.add_columns(y, &wide, self.scale, adapter.elements.start / down.value().columns())?;
        }
        Ok(y)
    }
}

impl Encoder {
    /// Freezes the transformer and puts adapters beside its linear layers. The power of `gem` and dense modules after
    /// pooling, a new head among them, are trained as before.
    ///
    /// # Errors
    /// [`Error::Spec`] where a target is no linear layer of the model, with the nearest name.
    pub fn add_lora(&mut self, options: &LoraOptions, seed: u64) -> Result<()> {
        let linears = self.linears();
        let targets = match &options.targets {
            Targets::QueryAndValue => {
                let backbones = self.towers.iter().map(Tower::backbone);
                backbones.flat_map(Backbone::query_and_value).collect()
            }
            Targets::AllLinear => linears.iter().map(|(module, ..)| module.clone()).collect(),
            Targets::Named(names) => names.clone(),
        };
        if let Some(missing) = targets.iter().find(|target| !linears.iter().any(|(module, ..)| is_end(module, target)))
        {
            let last = |module: &str| module.rsplit('.').next().unwrap_or_default().to_owned();
            let mut known: Vec<String> = linears.iter().map(|(module, ..)| last(module)).collect();
            known.sort();
            known.dedup();
            let known = known.iter().map(String::as_str).chain(["all-linear"]);
            let problem = format!("`targets`: the model has no linear layer `{missing}`{}", nearest(missing, known));
            return Err(Error::spec("lora", problem));
        }
        let heads: Vec<bool> = self.parameters.ids().map(|id| self.is_head(id)).collect();
        for (parameter, head) in self.parameters.iter_mut().zip(heads) {
            parameter.trainable &= head;
            parameter.observed &= head;
        }
        let key = Key::new(seed).part(0x10fa);
        let mut adapters = Vec::new();
        for (module, weight, elements, shape) in linears {
            if !targets.iter().any(|target| is_end(&module, target)) {
                continue;
            }
            let [down_name, up_name] = adapter_names(&module);
            let (outputs, inputs, key) = (shape[0], shape[1], key.part(adapters.len() as u64));
            let bound = (1.0 / inputs as f64).sqrt();
            let start = (0..(options.rank * inputs) as u64).map(|at| ((2.0 * key.uniform(at) - 1.0) * bound) as f32);
            let start = Tensor::from_vec(start.collect(), &[options.rank, inputs])?;
            let (depth, modality) = self.place(weight);
            let down = self.parameters.add(down_name, start);
            let up = self.parameters.add(up_name, Tensor::zeros(&[outputs, options.rank]));
            self.depths.extend([depth, depth]);
            self.modalities.extend([modality, modality]);
            adapters.push(Adapter { module, weight, elements, down, up });
        }
        self.lora = Lora { scale: options.scale() as f32, dropout: options.dropout, adapters };
        Ok(())
    }

    /// The adapters as they stand on disk: names, shapes, values.
    pub fn adapter_weights(&self) -> Vec<Named<'_>> {
        let of = |id: ParameterId| {
            let parameter = self.parameters.get(id);
            (parameter.name.as_str(), parameter.value.shape(), parameter.value.data())
        };
        self.lora.adapters.iter().flat_map(|adapter| [of(adapter.down), of(adapter.up)]).collect()
    }

    /// The ends of the adapted layers' names that name them and no others: the part after the layer's number where all
    /// layers are adapted alike, else the whole names.
    pub fn adapted_modules(&self) -> Vec<String> {
        let adapters = &self.lora.adapters;
        let layers: Vec<&str> = self.towers.iter().map(|tower| tower.backbone().layer_prefix()).collect();
        let part = |module: &str| {
            let inside = layers.iter().find_map(|layer| module.strip_prefix(layer))?;
            inside.split_once('.').map(|(_, part)| part.to_owned())
        };
        let mut parts: Vec<String> = adapters.iter().filter_map(|adapter| part(&adapter.module)).collect();
        parts.sort();
        parts.dedup();
        let named = self.linears().iter().filter(|(module, ..)| parts.iter().any(|part| is_end(module, part))).count();
        if named == adapters.len() { parts } else { adapters.iter().map(|adapter| adapter.module.clone()).collect() }
    }

    /// Adds the adapters to the weights and forgets them.
    pub fn merge_lora(&mut self) {
        let Lora { scale, adapters, .. } = std::mem::take(&mut self.lora);
        for adapter in adapters {
            let matrix = |id: ParameterId| self.parameters.get(id).value.data().to_vec();
            let (down, up) = (matrix(adapter.down), matrix(adapter.up));
            let rank = self.parameters.get(adapter.down).value.rows();
            let scale = f64::from(scale);
            add_product(&mut self.parameters, adapter.weight, adapter.elements, (&up, &down, rank), scale);
        }
    }

    /// Adds what an adapter on disk adds.
    ///
    /// # Errors
    /// A sentence, where a layer is not in the model or has another shape.
    pub(super) fn apply(&mut self, changes: Vec<LowRank>) -> std::result::Result<(), String> {
        // No pooling here uses BERT's pooler.
        for change in changes.into_iter().filter(|change| change.module != "pooler.dense") {
            let linears = self.linears();
            let Some((_, weight, elements, shape)) = linears.into_iter().find(|(name, ..)| *name == change.module)
            else {
                return Err(format!("adapts `{}`, which is no linear layer of the base model", change.module));
            };
            if (change.up.len(), change.down.len()) != (shape[0] * change.rank, shape[1] * change.rank) {
                return Err(format!("adapts `{}` of another shape than {shape:?}", change.module));
            }
            let product = (&change.up[..], &change.down[..], change.rank);
            add_product(&mut self.parameters, weight, elements, product, change.scale);
        }
        Ok(())
    }

    /// Name, parameter, elements of it and shape of every linear layer of the transformer.
    fn linears(&self) -> Vec<(String, ParameterId, Range<usize>, Vec<usize>)> {
        let weights: Vec<ParameterId> =
            self.towers.iter().flat_map(|tower| tower.backbone().linear_weights()).collect();
        let stored = self.stored.iter().filter(|stored| weights.contains(&stored.parameter));
        let of = |stored: &super::Stored| {
            let module = stored.name.strip_suffix(".weight")?.to_owned();
            Some((module, stored.parameter, stored.elements.clone(), stored.shape.clone()))
        };
        stored.filter_map(of).collect()
    }

    /// The depth of a parameter, and what its tower reads.
    fn place(&self, id: ParameterId) -> (usize, Modality) {
        let place = self.parameters.ids().position(|known| known == id);
        place.map_or((0, Modality::Text), |place| (self.depths[place], self.modalities[place]))
    }
}

/// Whether `target` names `module`: the whole of it, or what follows one of its dots. The rule of `peft`.
fn is_end(module: &str, target: &str) -> bool {
    module.strip_suffix(target).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// `weight += scale up down` in some rows of a weight, summed in f64.
fn add_product(
    parameters: &mut Parameters,
    weight: ParameterId,
    elements: Range<usize>,
    (up, down, rank): (&[f32], &[f32], usize),
    scale: f64,
) {
    let inputs = down.len() / rank;
    let values = &mut parameters.get_mut(weight).value.data_mut()[elements];
    let mut sums = vec![0.0f64; inputs];
    for (row, up) in values.chunks_exact_mut(inputs).zip(up.chunks_exact(rank)) {
        sums.fill(0.0);
        for (&up, down) in up.iter().zip(down.chunks_exact(inputs)) {
            let factor = scale * f64::from(up);
            sums.iter_mut().zip(down).for_each(|(sum, &down)| *sum += factor * f64::from(down));
        }
        row.iter_mut().zip(&sums).for_each(|(value, sum)| *value = (f64::from(*value) + sum) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_the_end_of_a_name_after_a_dot() {
        let module = "encoder.layer.0.attention.output.dense";
        assert!(is_end(module, "dense") && is_end(module, "output.dense") && is_end(module, module));
        assert!(!is_end(module, "put.dense") && !is_end(module, "query"));
    }
}
