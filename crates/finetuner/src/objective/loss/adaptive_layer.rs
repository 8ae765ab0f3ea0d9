use engine::random::Key;
use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::distill_kl_div::distributions;
use super::{Batch, Inner, Loss, Miner, NamedLoss};
use crate::error::{Error, Result};
use crate::objective::{LossParameter, Needs, Reducer, Role, Sampler, Sizes, registry};
use crate::spec::Options;

/// Any loss on the last layer and on earlier ones, so that the model may be cut after a layer.
///
/// ```text
/// loss = last_layer_weight inner(last)
///      + sum over drawn layers l of prior_layers_weight w(l) / drawn inner(l)
///                                 + kl_div_weight T KL(softmax(last / T) || softmax(l / T))    T = kl_temperature
/// w(l) = 1 | 1 / (1 + ln(1 + l)) | 1 / (1 + l)    for layer_weighting uniform | log | linear
/// ```
///
/// The embedding of layer l is what pooling and all that follows make of its token representations, layer 0 being those
/// before the first attention. The divergence is the mean over rows and has no gradient in the last layer; temperature 0
/// switches it off. The layers are drawn anew for every batch. Memory and time are those of one more embedding for every
/// layer drawn: the transformer runs once.
///
/// Use it where the model will be made faster by leaving layers out.
///
/// Reference: `AdaptiveLayerLoss` of sentence-transformers; Li et al. 2024 (2402.14776).
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdaptiveLayerLoss {
    /// The inner loss by name. No default.
    pub loss: String,
    /// Its options. Default none.
    pub loss_options: Options,
    /// Earlier layers drawn for a batch; -1 for all. Default 1.
    pub n_layers_per_step: i64,
    /// Default 1.
    pub last_layer_weight: f64,
    /// Default 1.
    pub prior_layers_weight: f64,
    /// Default 1.
    pub kl_div_weight: f64,
    /// 0 leaves the divergence out. Default 0.3.
    pub kl_temperature: f64,
    /// Default `uniform`.
    pub layer_weighting: LayerWeighting,
    #[serde(skip)]
    inner: Inner,
}

/// How much an earlier layer counts beside the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerWeighting {
    /// `1`
    Uniform,
    /// `1 / (1 + ln(1 + l))`
    Log,
    /// `1 / (1 + l)`
    Linear,
}

impl LayerWeighting {
    fn of(self, layer: usize) -> f64 {
        match self {
            LayerWeighting::Uniform => 1.0,
            LayerWeighting::Log => 1.0 / (1.0 + (1.0 + layer as f64).ln()),
            LayerWeighting::Linear => 1.0 / (1.0 + layer as f64),
        }
    }
}

impl Default for AdaptiveLayerLoss {
    fn default() -> Self {
        AdaptiveLayerLoss {
            loss: String::new(),
            loss_options: Options::new(),
            n_layers_per_step: 1,
            last_layer_weight: 1.0,
            prior_layers_weight: 1.0,
            kl_div_weight: 1.0,
            kl_temperature: 0.3,
            layer_weighting: LayerWeighting::Uniform,
            inner: Inner::default(),
        }
    }
}

impl Loss for AdaptiveLayerLoss {
    fn needs(&self) -> Needs {
        self.inner.needs()
    }

    fn matrices(&self, miner: Option<&dyn Miner>) -> usize {
        self.inner.matrices(miner)
    }

    fn mines(&self) -> bool {
        self.inner.mines()
    }

    fn needs_guide(&self) -> bool {
        self.inner.needs_guide()
    }

    fn sampler(&self) -> Sampler {
        self.inner.sampler()
    }

    fn draw_layers(&self, sizes: &Sizes, key: Key) -> Vec<usize> {
        let mut layers: Vec<usize> = (0..sizes.layers).collect();
        if let Ok(count) = usize::try_from(self.n_layers_per_step) {
            let mut key = key.part(u64::from_le_bytes(*b"layers\0\0"));
            while layers.len() > count {
                key = key.part(0);
                layers.remove((key.uniform(0) * layers.len() as f64) as usize);
            }
        }
        layers
    }

    fn complete(&mut self) -> Result<()> {
        let named =
            NamedLoss { loss: self.loss.clone(), loss_options: self.loss_options.clone(), ..Default::default() };
        self.inner = Inner::new(&named, "loss_options.")?;
        Ok(())
    }

    fn parameters(&self, sizes: &Sizes) -> Result<Vec<LossParameter>> {
        if sizes.layers == 0 {
            let problem =
                "learns from earlier layers of the model, and this one has none to show; take the loss within it";
            return Err(Error::spec("loss", problem));
        }
        let parameters = self.inner.parameters(sizes, "")?;
        if parameters.iter().any(|parameter| parameter.role == Role::Remembered) {
            let problem = format!("`{}` remembers batches, and would mix those of all layers", self.loss);
            return Err(Error::spec("loss_options.loss", problem));
        }
        Ok(parameters)
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let last = self.inner.compute(tape, batch, 0)?;
        let mut total = tape.affine(&last, self.last_layer_weight, 0.0)?;
        let divergence = self.kl_temperature > 0.0;
        let teacher = divergence.then(|| distributions(batch.embeddings.value(), self.kl_temperature)).transpose()?;
        for (layer, embeddings) in batch.layers {
            let earlier = Batch { embeddings, memories: Default::default(), ..*batch };
            let loss = self.inner.compute(tape, &earlier, 0)?;
            let weight = self.prior_layers_weight * self.layer_weighting.of(*layer) / batch.layers.len() as f64;
            let loss = tape.affine(&loss, weight, 0.0)?;
            total = tape.add(&total, &loss)?;
            if let Some((targets, weights)) = &teacher {
                let losses = tape.cross_entropy(embeddings, Some(weights), targets, 1.0 / self.kl_temperature)?;
                let loss = Reducer::Mean.reduce(tape, &losses, None)?;
                let loss = tape.affine(&loss, self.kl_temperature * self.kl_div_weight, 0.0)?;
                total = tape.add(&total, &loss)?;
            }
        }
        Ok(total)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.n_layers_per_step == 0 || self.n_layers_per_step < -1 {
            let problem = format!("expected -1 for all, or 1 or more, got {}", self.n_layers_per_step);
            problems.push(("n_layers_per_step", problem));
        }
        if self.kl_temperature != 0.0 {
            problems.extend(registry::positive("kl_temperature", self.kl_temperature));
        }
        problems
    }
}
