//! `callbacks`: what is watched while a run trains, with the original Finetuner's names, fields and defaults.
//!
//! Pure state machines: the loop measures, shows them the values and does what they answer.

mod evaluation;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(crate) use self::evaluation::EvaluationCallback;
use super::loggers::Logger;
use crate::error::{Error, Problem, Result, nearest};
use crate::spec::{Options, parse_options};

/// The callbacks by name.
const NAMES: [&str; 8] = [
    "EvaluationCallback",
    "BestModelCheckpoint",
    "EarlyStopping",
    "TrainingCheckpoint",
    "WiSEFTCallback",
    "TensorBoardLogger",
    "CSVLogger",
    "MLflowLogger",
];

/// Why the original's logger is not here, and what is.
const NO_WANDB: &str = "sends to a service outside; take `TensorBoardLogger()`, `CSVLogger()` or \
                        `MLflowLogger(tracking_uri=http://…)`";

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
    /// Mix the trained weights with the pretrained ones.
    WiseFt(Alpha),
    /// Pass numbers on.
    Logger(Logger),
}

/// The share of the trained weights in a mixture with the pretrained ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Alpha {
    /// In 0..=1.
    Fixed(f64),
    /// Of 0, 0.1 … 1 the one that measures best on validation data.
    Auto,
}

/// Mixes the trained weights with the pretrained ones after training.
///
/// ```text
/// weights = (1 - alpha) pretrained + alpha trained
/// ```
///
/// Use it where the model is to keep what it knew beside what it learnt; the same as `keep = interpolate`.
///
/// Reference: `WiSEFTCallback` of Finetuner; Wortsman et al. 2022 (2109.01903).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct WiseFtCallback {
    /// The share of the trained weights, from 0 to 1, or `auto`: of 0, 0.1 … 1 the one that measures best on validation
    /// data. Default 0.4.
    alpha: serde_json::Value,
}

impl Default for WiseFtCallback {
    fn default() -> Self {
        WiseFtCallback { alpha: 0.4.into() }
    }
}

impl WiseFtCallback {
    fn alpha(&self) -> std::result::Result<Alpha, String> {
        match (self.alpha.as_f64(), self.alpha.as_str()) {
            (Some(alpha), _) if (0.0..=1.0).contains(&alpha) => Ok(Alpha::Fixed(alpha)),
            (_, Some("auto")) => Ok(Alpha::Auto),
            _ => Err(format!("`alpha`: expected a number of 0 to 1 or `auto`, got {}", self.alpha)),
        }
    }
}

/// Keeps checkpoints of the last epochs, to go on from or to look at.
///
/// Use it to go back further than to the last checkpoint, which every run keeps.
///
/// Reference: `TrainingCheckpoint` of Finetuner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TrainingCheckpoint {
    /// Default 1.
    last_k_epochs: usize,
}

impl Default for TrainingCheckpoint {
    fn default() -> Self {
        TrainingCheckpoint { last_k_epochs: 1 }
    }
}

/// Gives the best weights of the run back, and not the last ones.
///
/// Use it to watch another number than `keep = best` does.
///
/// Reference: `BestModelCheckpoint` of Finetuner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Monitor {
    /// `train_loss`, `val_loss`, or a metric in our name or the original's. Default `val_loss`.
    monitor: String,
    /// Default `auto`.
    mode: Mode,
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// Down for losses, up for metrics.
    Auto,
    /// Down.
    Min,
    /// Up.
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
        ours(&self.monitor)
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

    /// The watched one of what was measured; `None` where it was not measured this time.
    fn find(&self, values: &[(String, f64)]) -> Option<f64> {
        values.iter().find(|(known, _)| known == self.name()).map(|(_, value)| *value)
    }

    /// Refuses a monitor of what is not among `values`, which are all that is measured. Before the first epoch there is
    /// no training loss.
    fn check(&self, values: &[(String, f64)]) -> Result<()> {
        let name = self.name();
        if name == "train_loss" || self.find(values).is_some() {
            return Ok(());
        }
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

/// Our name of a metric in the original's name.
fn ours(name: &str) -> &str {
    ORIGINAL_NAMES.iter().find(|(original, _)| *original == name).map_or(name, |(_, ours)| *ours)
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

    /// As [`Best::observe`], for the monitored one of these values, if it is among them.
    pub(crate) fn observe_named(&mut self, values: &[(String, f64)]) -> bool {
        self.monitor.find(values).is_some_and(|value| self.observe(value))
    }

    /// # Errors
    /// [`Error::Spec`] where what it watches is not among all that is measured.
    pub(crate) fn check(&self, values: &[(String, f64)]) -> Result<()> {
        self.monitor.check(values)
    }

    /// What it watches, for people.
    pub(crate) fn name(&self) -> &str {
        self.monitor.name()
    }

    /// The best value seen.
    pub(crate) fn value(&self) -> Option<f64> {
        self.best
    }
}

/// Ends the run where nothing gets better.
///
/// Use it where it is not known how many epochs are worth their time.
///
/// Reference: `EarlyStopping` of Finetuner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct EarlyStoppingOptions {
    /// `train_loss`, `val_loss`, or a metric in our name or the original's. Default `val_loss`.
    monitor: String,
    /// Default `auto`.
    mode: Mode,
    /// Observations in a row without an improvement that end the run. Default 2.
    patience: usize,
    /// An improvement is larger than this. Default 0.
    min_delta: f64,
    /// Compare with this instead of the best value so far. Default none.
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

    /// As [`EarlyStopping::observe`], for the monitored one of these values, if it is among them.
    pub(crate) fn observe_named(&mut self, values: &[(String, f64)]) -> bool {
        self.monitor.find(values).is_none_or(|value| self.observe(value))
    }

    /// # Errors
    /// [`Error::Spec`] where what it watches is not among all that is measured.
    pub(crate) fn check(&self, values: &[(String, f64)]) -> Result<()> {
        self.monitor.check(values)
    }
}

/// The callbacks of a run: any number of evaluations and loggers, at most one of each other kind.
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
                Ok(new) if callbacks.iter().any(|old: &Callback| old.excludes(&new)) => {
                    problems.push(format!("`{entry}`: there is another one; leave one out"));
                }
                Ok(callback) => callbacks.push(callback),
                Err(problem) => problems.push(format!("`{entry}`: {problem}")),
            }
        }
        let mut callbacks = Callbacks(callbacks);
        let prefixes: Vec<String> =
            callbacks.evaluations().map(|evaluation| evaluation.prefix(model).unwrap_or_default()).collect();
        for (place, prefix) in prefixes.iter().enumerate().skip(1) {
            if prefix.is_empty() || prefixes[..place].contains(prefix) {
                problems.push(format!(
                    "EvaluationCallback number {}: give it a `caption` of its own, which goes before the names of its \
                     metrics",
                    place + 1
                ));
            }
        }
        if problems.is_empty() {
            callbacks.resolve_monitors(&prefixes);
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
            || self.evaluations().next().is_some()
    }

    /// Every `EvaluationCallback`.
    pub(crate) fn evaluations(&self) -> impl Iterator<Item = &EvaluationCallback> {
        self.0.iter().filter_map(|callback| match callback {
            Callback::Evaluation(evaluation) => Some(evaluation),
            _ => None,
        })
    }

    /// The `WiSEFTCallback`.
    pub(crate) fn interpolation(&self) -> Option<Alpha> {
        self.0.iter().find_map(|callback| match callback {
            Callback::WiseFt(alpha) => Some(*alpha),
            _ => None,
        })
    }

    /// The epochs whose checkpoints are kept; the last one's is always there.
    pub(crate) fn last_k_epochs(&self) -> usize {
        let found = self.0.iter().find_map(|callback| match callback {
            Callback::Training(checkpoint) => Some(checkpoint.last_k_epochs),
            _ => None,
        });
        found.unwrap_or(1)
    }

    /// The entries but those of loggers, for runs that are not told outside. What cannot be read stays, to be refused.
    pub(crate) fn without_loggers(entries: &[String]) -> Vec<String> {
        let is_logger = |entry: &&String| matches!(Callback::parse(entry), Ok(Callback::Logger(_)));
        entries.iter().filter(|entry| !is_logger(entry)).cloned().collect()
    }

    /// Every logger.
    pub(crate) fn loggers(&self) -> Vec<Logger> {
        let loggers = self.0.iter().filter_map(|callback| match callback {
            Callback::Logger(logger) => Some(logger.clone()),
            _ => None,
        });
        loggers.collect()
    }

    /// Monitors may name a metric in the original's name, and with the prefix of its `EvaluationCallback`. The first
    /// one's metrics are known without it.
    fn resolve_monitors(&mut self, prefixes: &[String]) {
        for callback in &mut self.0 {
            let monitor = match callback {
                Callback::BestModel(monitor) => &mut monitor.monitor,
                Callback::EarlyStopping(early) => &mut early.monitor,
                _ => continue,
            };
            let found = prefixes.iter().enumerate().filter(|(_, prefix)| !prefix.is_empty());
            let found = found.filter_map(|(place, prefix)| Some((place, prefix, monitor.strip_prefix(&**prefix)?)));
            // A prefix may begin with another one.
            if let Some((place, prefix, name)) = found.max_by_key(|(_, prefix, _)| prefix.len()) {
                *monitor = if place == 0 { ours(name).to_owned() } else { format!("{prefix}{}", ours(name)) };
            }
        }
    }
}

impl Callback {
    /// Whether a run has no use for both.
    fn excludes(&self, other: &Callback) -> bool {
        let several = matches!(self, Callback::Evaluation(_) | Callback::Logger(_));
        !several && std::mem::discriminant(self) == std::mem::discriminant(other)
    }

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
            "WiSEFTCallback" => Callback::WiseFt(fields::<WiseFtCallback>(options()?)?.alpha()?),
            "TensorBoardLogger" => Callback::Logger(Logger::TensorBoard(fields(options()?)?)),
            "CSVLogger" => Callback::Logger(Logger::Csv(fields(options()?)?)),
            "MLflowLogger" => Callback::Logger(Logger::Mlflow(fields(options()?)?)),
            "WandBLogger" => return Err(NO_WANDB.into()),
            _ => return Err(format!("`{name}` is not known{}", nearest(name, NAMES))),
        };
        let problem = match &callback {
            Callback::Evaluation(evaluation) => evaluation.problem(),
            Callback::EarlyStopping(early) if early.patience == 0 => Some("`patience`: expected 1 or more".into()),
            Callback::EarlyStopping(early) if early.min_delta.is_nan() || early.min_delta < 0.0 => {
                Some(format!("`min_delta`: expected 0 or more, got {}", early.min_delta))
            }
            Callback::Training(checkpoint) if checkpoint.last_k_epochs == 0 => {
                Some("`last_k_epochs`: expected 1 or more".into())
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
