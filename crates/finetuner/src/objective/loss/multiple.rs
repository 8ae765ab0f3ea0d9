use engine::{Tape, Var};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Batch, Inner, Loss, Miner, NamedLoss};
use crate::error::{Error, Result};
use crate::objective::{LossParameter, Needs, Sampler, Sizes};
use crate::spec::Options;

/// Several losses of the same batch, each with its weight and, perhaps, its own miner.
///
/// ```text
/// loss = sum over k of weights_k loss_k
/// ```
///
/// On the command line: `losses=TripletMarginLoss+NTXentLoss,weights=[1,0.5]`. A loss with options is an object, as in
/// `{"loss": "NTXentLoss", "loss_options": {"temperature": 0.1}, "miner": "BatchHardMiner"}`. The run's own miner serves
/// the losses without one.
///
/// Use it to join losses that each see a side of the task.
///
/// Reference: `MultipleLosses` of pytorch-metric-learning.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MultipleLosses {
    /// Two or more, as a list of names or objects, or as names joined by `+`. No default.
    pub losses: NamedLosses,
    /// One number per loss. Default: 1 each.
    pub weights: Option<Vec<f64>>,
    /// One per loss: a name, an object of `miner` and `miner_options`, or null. Default: none.
    pub miners: Option<Vec<Option<NamedMiner>>>,
    #[serde(skip)]
    inner: Vec<Inner>,
}

/// Several losses by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value")]
pub struct NamedLosses(pub Vec<NamedLoss>);

impl TryFrom<Value> for NamedLosses {
    type Error = String;

    fn try_from(value: Value) -> std::result::Result<Self, String> {
        let losses: Vec<Value> = match value {
            Value::String(names) => names.split('+').map(Value::from).collect(),
            Value::Array(losses) => losses,
            other => return Err(format!("expected a list of losses, got {other}")),
        };
        losses.into_iter().map(NamedLoss::try_from).collect::<std::result::Result<_, _>>().map(NamedLosses)
    }
}

/// A miner by name and options.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MinerOptions {
    /// Its name.
    pub miner: String,
    /// Its options. Default none.
    pub miner_options: Options,
}

/// A miner by its name alone, or with options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum NamedMiner {
    /// Its name.
    Name(String),
    /// With options.
    Options(MinerOptions),
}

impl Loss for MultipleLosses {
    fn needs(&self) -> Needs {
        self.common_needs().unwrap_or(Needs::Any)
    }

    fn matrices(&self, miner: Option<&dyn Miner>) -> usize {
        self.inner.iter().map(|inner| inner.matrices(miner)).max().unwrap_or(0)
    }

    fn mines(&self) -> bool {
        self.inner.iter().any(Inner::mines)
    }

    fn needs_guide(&self) -> bool {
        self.inner.iter().any(Inner::needs_guide)
    }

    fn sampler(&self) -> Sampler {
        match self.inner.iter().any(|inner| inner.sampler() == Sampler::Class) {
            true => Sampler::Class,
            false => Sampler::Random,
        }
    }

    fn complete(&mut self) -> Result<()> {
        let mut losses = self.losses.0.clone();
        for (loss, miner) in losses.iter_mut().zip(self.miners.iter().flatten()) {
            match miner.clone() {
                None => {}
                Some(NamedMiner::Name(miner)) => loss.miner = Some(miner),
                Some(NamedMiner::Options(MinerOptions { miner, miner_options })) => {
                    (loss.miner, loss.miner_options) = (Some(miner), miner_options);
                }
            }
        }
        let build = |(place, loss)| Inner::new(loss, &format!("loss_options.losses[{place}]."));
        self.inner = losses.iter().enumerate().map(build).collect::<Result<_>>()?;
        match self.common_needs() {
            Some(_) => Ok(()),
            None => {
                let names: Vec<&str> = losses.iter().map(|loss| loss.loss.as_str()).collect();
                let problem = format!("no kind of data serves all of {}", names.join(", "));
                Err(Error::spec("loss_options.losses", problem))
            }
        }
    }

    fn parameters(&self, sizes: &Sizes) -> Result<Vec<LossParameter>> {
        let mut all = Vec::new();
        for (place, inner) in self.inner.iter().enumerate() {
            all.extend(inner.parameters(sizes, &format!("{place}/"))?);
        }
        Ok(all)
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let mut first = 0;
        let mut total: Option<Var> = None;
        for (place, inner) in self.inner.iter().enumerate() {
            let loss = inner.compute(tape, batch, first)?;
            first += inner.parameters(batch.sizes, "")?.len();
            let weight = self.weights.as_ref().map_or(1.0, |weights| weights[place]);
            let loss = tape.affine(&loss, weight, 0.0)?;
            total = Some(match total {
                Some(total) => tape.add(&total, &loss)?,
                None => loss,
            });
        }
        total.ok_or_else(|| Error::spec("loss_options.losses", "expected one loss or more"))
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let count = self.losses.0.len();
        let mut problems = Vec::new();
        if count == 0 {
            problems
                .push(("losses", "expected one loss or more, as in `losses=TripletMarginLoss+NTXentLoss`".to_owned()));
        }
        let lengths =
            [("weights", self.weights.as_ref().map(Vec::len)), ("miners", self.miners.as_ref().map(Vec::len))];
        for (key, length) in lengths {
            if let Some(length) = length.filter(|length| *length != count) {
                problems.push((key, format!("expected {count}, one per loss, got {length}")));
            }
        }
        problems
    }
}

impl MultipleLosses {
    fn common_needs(&self) -> Option<Needs> {
        self.inner.iter().try_fold(Needs::Any, |needs, inner| needs.and(inner.needs()))
    }
}
