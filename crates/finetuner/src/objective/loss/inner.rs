use engine::random::Key;
use engine::{Tape, Var};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Batch, Loss};
use crate::error::{Error, Result};
use crate::objective::miner::{self, Miner};
use crate::objective::{LossParameter, Needs, Sampler, Sizes};
use crate::spec::Options;

/// A loss by name and options, as it stands in the options of another: `"CircleLoss"`, or
/// `{"loss": "CircleLoss", "loss_options": {"m": 0.3}, "miner": "BatchHardMiner", "miner_options": {}}`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value")]
pub struct NamedLoss {
    /// Its name.
    pub loss: String,
    /// Its options. Default none.
    pub loss_options: Options,
    /// A miner of its own. Default none.
    pub miner: Option<String>,
    /// Options of the miner. Default none.
    pub miner_options: Options,
}

impl TryFrom<Value> for NamedLoss {
    type Error = String;

    fn try_from(value: Value) -> std::result::Result<Self, String> {
        #[derive(Deserialize, Default)]
        #[serde(deny_unknown_fields, default)]
        struct Fields {
            loss: String,
            loss_options: Options,
            miner: Option<String>,
            miner_options: Options,
        }
        if let Value::String(loss) = value {
            return Ok(NamedLoss { loss, ..Default::default() });
        }
        let fields: Fields = serde_json::from_value(value).map_err(|error| format!("a loss: {error}"))?;
        let Fields { loss, loss_options, miner, miner_options } = fields;
        Ok(NamedLoss { loss, loss_options, miner, miner_options })
    }
}

/// A loss within another, and perhaps a miner of its own.
#[derive(Debug, Default)]
pub struct Inner {
    loss: Option<Box<dyn Loss>>,
    miner: Option<Box<dyn Miner>>,
}

impl Inner {
    /// # Errors
    /// [`Error::Spec`] as [`super::new`] and [`miner::new`], the fields named within `place`, as in
    /// `loss_options.loss_options.margin`.
    pub(super) fn new(named: &NamedLoss, place: &str) -> Result<Self> {
        let within = |error| match error {
            Error::Spec { mut problems } => {
                problems.iter_mut().for_each(|problem| problem.field.insert_str(0, place));
                Error::Spec { problems }
            }
            other => other,
        };
        if named.loss.is_empty() {
            return Err(within(Error::spec("loss", "expected the loss within this one, as in `loss=NTXentLoss`")));
        }
        let loss = super::new(&named.loss, &named.loss_options).map_err(within)?;
        if !loss.draw_layers(&Sizes { layers: 1, ..Sizes::default() }, Key::new(0)).is_empty() {
            let problem = format!("`{}` learns from layers of the model; put this loss within it instead", named.loss);
            return Err(within(Error::spec("loss", problem)));
        }
        if loss.needs_twin() {
            let problem = format!("`{}` learns from two copies of the model, and stands in no other loss", named.loss);
            return Err(within(Error::spec("loss", problem)));
        }
        let miner = named.miner.as_deref().map(|name| miner::new(name, &named.miner_options));
        let miner = miner.transpose().map_err(within)?;
        if let (Some(name), false) = (&named.miner, loss.mines()) {
            let problem = format!("`{name}` mines by label, for which {} has no use; leave it out", named.loss);
            return Err(within(Error::spec("miner", problem)));
        }
        if named.miner.is_none() && !named.miner_options.is_empty() {
            return Err(within(Error::spec("miner_options", "given without a miner")));
        }
        Ok(Inner { loss: Some(loss), miner })
    }

    fn loss(&self) -> Result<&dyn Loss> {
        self.loss.as_deref().ok_or_else(|| Error::spec("loss_options.loss", "no loss was built"))
    }

    pub(super) fn needs(&self) -> Needs {
        self.loss.as_ref().map_or(Needs::Any, |loss| loss.needs())
    }

    /// Whether a miner from outside reaches it.
    pub(super) fn mines(&self) -> bool {
        self.miner.is_none() && self.loss.as_ref().is_some_and(|loss| loss.mines())
    }

    pub(super) fn matrices(&self, miner: Option<&dyn Miner>) -> usize {
        let miner = self.miner.as_deref().or(miner);
        self.loss.as_ref().map_or(0, |loss| loss.matrices(miner))
    }

    pub(super) fn needs_guide(&self) -> bool {
        self.loss.as_ref().is_some_and(|loss| loss.needs_guide())
    }

    pub(super) fn sampler(&self) -> Sampler {
        self.loss.as_ref().map_or(Sampler::Random, |loss| loss.sampler())
    }

    /// Its tensors, their names within `place`.
    pub(super) fn parameters(&self, sizes: &Sizes, place: &str) -> Result<Vec<LossParameter>> {
        let mut parameters = self.loss()?.parameters(sizes)?;
        parameters.iter_mut().for_each(|parameter| parameter.name.insert_str(0, place));
        Ok(parameters)
    }

    /// The loss, whose tensors start at the outer loss's tensor `first`. A miner of its own comes before the batch's.
    pub(super) fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>, first: usize) -> Result<Var> {
        let loss = self.loss()?;
        let count = loss.parameters(batch.sizes)?.len();
        let parameters = batch.parameters.get(first..first + count).unwrap_or_default();
        let inner =
            Batch { parameters, miner: self.miner.as_deref().or(batch.miner), memories: Default::default(), ..*batch };
        let value = loss.compute(tape, &inner)?;
        inner.into_memories().into_iter().for_each(|(index, tensor)| batch.remember(first + index, tensor));
        Ok(value)
    }
}
