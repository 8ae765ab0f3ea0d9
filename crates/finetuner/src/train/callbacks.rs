//! `callbacks`: what is watched while a run trains, with the original Finetuner's names, fields and defaults.
//!
//! Pure state machines: the loop measures, shows them the values and does what they answer.

mod evaluation;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(crate) use self::evaluation::EvaluationCallback;
use crate::error::{Error, Problem, Result, nearest};
use crate::spec::{Options, parse_options};

/// The callbacks by name.
const NAMES: [&str; 6] = [
    "EvaluationCallback",
    "BestModelCheckpoint",
    "EarlyStopping",
    "TrainingCheckpoint",
    "WiSEFTCallback",
    "WandBLogger",
];

/// The original's names of metrics, and ours.
const ORIGINAL_NAMES: [(&str, &str); 7] = [
    ("average_precision", "map"),
    ("reciprocal_rank", "mrr"),
    ("precision_at_k", "precision"),
    ("recall_at_k", "recall"),
    ("f1_score_at_k", "f1"),
    ("hit_at_k", "hit_rate"),
    ("ndcg_at_k", "ndcg"),
];

/// One entry of `callbacks`: `Name(field=value,…)`, or the name alone.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Callback {
    /// Measure retrieval before training and after each epoch.
    Evaluation(EvaluationCallback),
    /// Return the best epoch's weights, not the last.
    BestModel(Monitor),
    /// Stop where nothing gets better.
    EarlyStopping(EarlyStoppingOptions),
    /// Keep checkpoints.
    Training(TrainingCheckpoint),
}

/// `TrainingCheckpoint`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TrainingCheckpoint {
    last_k_epochs: usize,
}

impl Default for TrainingCheckpoint {
    fn default() -> Self {
        TrainingCheckpoint { last_k_epochs: 1 }
    }
}

/// Which number is watched, and which way is better: the fields of `BestModelCheckpoint`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Monitor {
    /// `train_loss`, `val_loss`, or a metric in our name or the original's.
    monitor: String,
    mode: Mode,
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// Down for losses, up for metrics.
    Auto,
    Min,
    Max,
}

impl Default for Monitor {
    fn default() -> Self {
        Monitor { monitor: "val_loss".into(), mode: Mode::Auto }
    }
}

impl Monitor {
    /// The name under which the number is measured.
    fn name(&self) -> &str {
        let ours = ORIGINAL_NAMES.iter().find(|(original, _)| *original == self.monitor);
        ours.map_or(&self.monitor, |(_, ours)| *ours)
    }

    fn is_metric(&self) -> bool {
        !matches!(self.name(), "train_loss" | "val_loss")
    }

    /// Whether `value` is better than `other` by more than `min_delta`. NaN never is.
    fn better(&self, value: f64, other: f64, min_delta: f64) -> bool {
        match (self.mode, self.is_metric()) {
            (Mode::Min, _) | (Mode::Auto, false) => value < other - min_delta,
            (Mode::Max, _) | (Mode::Auto, true) => value > other + min_delta,
        }
    }

    /// The watched one of what was measured. Before the first epoch there is no training loss: `None`.
    fn find(&self, values: &[(String, f64)]) -> Result<Option<f64>> {
        let name = self.name();
        match values.iter().find(|(known, _)| known == name) {
            Some((_, value)) => Ok(Some(*value)),
            None if name == "train_loss" => Ok(None),
            None => {
                let measured = match values {
                    [] => ", nor anything else".to_owned(),
                    _ => nearest(name, values.iter().map(|(name, _)| name.as_str())),
                };
                let why = match name {
                    "val_loss" => " (give `eval_data` or `val_split`)",
                    _ => "",
                };
                let problem = format!("`{}` is monitored but not measured{why}{measured}", self.monitor);
                Err(Error::spec("callbacks", problem))
            }
        }
    }
}

/// Tells when a model is the best so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Best {
    monitor: Monitor,
    best: Option<f64>,
}

impl Best {
    /// Watches a loss for its minimum or a metric for its maximum.
    pub(crate) fn new(monitor: &str) -> Best {
        Best { monitor: Monitor { monitor: monitor.into(), mode: Mode::Auto }, best: None }
    }

    /// Whether a metric, not a loss, is watched, so that it must be measured after every epoch.
    pub(crate) fn is_metric(&self) -> bool {
        self.monitor.is_metric()
    }

    /// Whether this value is better than all before it.
    pub(crate) fn observe(&mut self, value: f64) -> bool {
        let better = !value.is_nan() && self.best.is_none_or(|best| self.monitor.better(value, best, 0.0));
        if better {
            self.best = Some(value);
        }
        better
    }

    /// As [`Best::observe`], for the monitored one of these values.
    ///
    /// # Errors
    /// [`Error::Spec`] where it is not among them.
    pub(crate) fn observe_named(&mut self, values: &[(String, f64)]) -> Result<bool> {
        Ok(self.monitor.find(values)?.is_some_and(|value| self.observe(value)))
    }
}

/// The fields of `EarlyStopping`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct EarlyStoppingOptions {
    monitor: String,
    mode: Mode,
    /// Observations in a row without an improvement that end the run.
    patience: usize,
    /// An improvement is larger than this.
    min_delta: f64,
    /// Compare with this instead of the best value so far.
    baseline: Option<f64>,
}

impl Default for EarlyStoppingOptions {
    fn default() -> Self {
        let Monitor { monitor, mode } = Monitor::default();
        EarlyStoppingOptions { monitor, mode, patience: 2, min_delta: 0.0, baseline: None }
    }
}

/// Tells when it is no use to go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EarlyStopping {
    monitor: Monitor,
    patience: usize,
    min_delta: f64,
    baseline: Option<f64>,
    best: Option<f64>,
    /// Observations since the last improvement.
    waited: usize,
}

impl EarlyStopping {
    fn new(options: EarlyStoppingOptions) -> EarlyStopping {
        let EarlyStoppingOptions { monitor, mode, patience, min_delta, baseline } = options;
        EarlyStopping { monitor: Monitor { monitor, mode }, patience, min_delta, baseline, best: None, waited: 0 }
    }

    /// Whether to go on after this value: `false` after `patience` values in a row without an improvement.
    pub(crate) fn observe(&mut self, value: f64) -> bool {
        let reference = self.baseline.or(self.best);
        if !value.is_nan() && reference.is_none_or(|best| self.monitor.better(value, best, self.min_delta)) {
            self.best = Some(value);
            self.waited = 0;
        } else {
            self.waited += 1;
        }
        self.waited < self.patience
    }

    /// Whether a metric, not a loss, is watched.
    pub(crate) fn is_metric(&self) -> bool {
        self.monitor.is_metric()
    }

    /// As [`EarlyStopping::observe`], for the monitored one of these values.
    ///
    /// # Errors
    /// [`Error::Spec`] where it is not among them.
    pub(crate) fn observe_named(&mut self, values: &[(String, f64)]) -> Result<bool> {
        Ok(self.monitor.find(values)?.is_none_or(|value| self.observe(value)))
    }
}

/// The callbacks of a run, at most one of each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Callbacks(Vec<Callback>);

impl Callbacks {
    /// Reads the entries of `callbacks` of a run of this model.
    ///
    /// # Errors
    /// [`Error::Spec`] with the problems of all entries: an unknown name or field (and the nearest known one), a value of
    /// another type or outside its range, one that this version does not have, or two of a kind.
    pub(crate) fn parse(entries: &[String], model: &str) -> Result<Callbacks> {
        let (mut callbacks, mut problems) = (Vec::new(), Vec::new());
        for entry in entries {
            match Callback::parse(entry) {
                Ok(new) if callbacks.iter().any(|old| std::mem::discriminant(old) == std::mem::discriminant(&new)) => {
                    problems.push(format!("`{entry}`: one of a kind is enough for this version"));
                }
                Ok(callback) => callbacks.push(callback),
                Err(problem) => problems.push(format!("`{entry}`: {problem}")),
            }
        }
        if problems.is_empty() {
            let mut callbacks = Callbacks(callbacks);
            if let Some(prefix) = callbacks.evaluation().and_then(|evaluation| evaluation.prefix(model)) {
                callbacks.take_prefix(&prefix);
            }
            return Ok(callbacks);
        }
        let problems = problems.into_iter().map(|problem| Problem { field: "callbacks".into(), problem }).collect();
        Err(Error::Spec { problems })
    }

    /// The `EarlyStopping`, before its first observation.
    pub(crate) fn early_stopping(&self) -> Option<EarlyStopping> {
        self.0.iter().find_map(|callback| match callback {
            Callback::EarlyStopping(options) => Some(EarlyStopping::new(options.clone())),
            _ => None,
        })
    }

    /// The `BestModelCheckpoint`, before its first observation.
    pub(crate) fn best(&self) -> Option<Best> {
        self.0.iter().find_map(|callback| match callback {
            Callback::BestModel(monitor) => Some(Best { monitor: monitor.clone(), best: None }),
            _ => None,
        })
    }

    /// Whether something other than a loss is watched, so that it must be measured after every epoch. An
    /// `EvaluationCallback` asks for that too.
    pub(crate) fn monitors_metric(&self) -> bool {
        self.best().is_some_and(|best| best.is_metric())
            || self.early_stopping().is_some_and(|early| early.is_metric())
            || self.evaluation().is_some()
    }

    /// The `EvaluationCallback`.
    pub(crate) fn evaluation(&self) -> Option<&EvaluationCallback> {
        self.0.iter().find_map(|callback| match callback {
            Callback::Evaluation(evaluation) => Some(evaluation),
            _ => None,
        })
    }

    /// Monitors may name a metric with the prefix that its `EvaluationCallback` gives it.
    fn take_prefix(&mut self, prefix: &str) {
        for callback in &mut self.0 {
            let monitor = match callback {
                Callback::BestModel(monitor) => &mut monitor.monitor,
                Callback::EarlyStopping(early) => &mut early.monitor,
                Callback::Evaluation(_) | Callback::Training(_) => continue,
            };
            if let Some(plain) = monitor.strip_prefix(prefix) {
                *monitor = plain.to_owned();
            }
        }
    }
}

impl Callback {
    fn parse(entry: &str) -> std::result::Result<Callback, String> {
        let entry = entry.trim();
        let (name, inner) = match entry.split_once('(') {
            None => (entry, ""),
            Some((name, rest)) => (name.trim_end(), rest.strip_suffix(')').ok_or("expected `)` at the end")?),
        };
        let options = || parse_options(inner);
        let callback = match name {
            "EvaluationCallback" => Callback::Evaluation(fields(options()?)?),
            "BestModelCheckpoint" => Callback::BestModel(fields(options()?)?),
            "EarlyStopping" => Callback::EarlyStopping(fields(options()?)?),
            "TrainingCheckpoint" => Callback::Training(fields(options()?)?),
            "WiSEFTCallback" | "WandBLogger" => return Err("not in this version".into()),
            _ => return Err(format!("`{name}` is not known{}", nearest(name, NAMES))),
        };
        let problem = match &callback {
            Callback::Evaluation(evaluation) => evaluation.problem(),
            Callback::EarlyStopping(early) if early.patience == 0 => Some("`patience`: expected 1 or more".into()),
            Callback::EarlyStopping(early) if early.min_delta.is_nan() || early.min_delta < 0.0 => {
                Some(format!("`min_delta`: expected 0 or more, got {}", early.min_delta))
            }
            Callback::Training(checkpoint) if checkpoint.last_k_epochs != 1 => {
                Some("`last_k_epochs`: this version keeps the last checkpoint only".into())
            }
            _ => None,
        };
        problem.map_or(Ok(callback), Err)
    }
}

/// A callback's fields from its options, the others at their defaults.
fn fields<T: Default + Serialize + DeserializeOwned>(options: Options) -> std::result::Result<T, String> {
    let bug = |error: serde_json::Error| error.to_string();
    let mut all = serde_json::to_value(T::default()).map_err(bug)?;
    for (name, value) in options {
        let known = all.as_object().into_iter().flat_map(Options::keys).map(String::as_str);
        let Some(field) = all.get(&name) else {
            return Err(format!("there is no field `{name}`{}", nearest(&name, known)));
        };
        let before = field.clone();
        all[&name] = value;
        if let Err(error) = serde_json::from_value::<T>(all.clone()) {
            return Err(format!("`{name}`: {error}; the default is {before}"));
        }
    }
    serde_json::from_value(all).map_err(bug)
}

#[cfg(test)]
#[path = "callbacks_tests.rs"]
mod tests;
