//! Callbacks that pass a run's numbers on: to TensorBoard, a CSV file or an MLflow server.
//!
//! A logger that cannot start refuses the run. One that fails later says so once and is quiet from then on: telling must
//! not stop training.

mod mlflow;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use self::mlflow::Mlflow;
use crate::artifact::Output;
use crate::artifact::metrics_csv::MetricsCsv;
use crate::artifact::output::{CSV, TENSORBOARD};
use crate::artifact::tensorboard::EventFile;
use crate::error::Result;
use crate::event::Event;
use crate::spec::RunSpec;

/// Writes event files that `tensorboard --logdir` shows.
///
/// Use it to look at curves.
///
/// Reference: the format of TensorBoard's event files.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TensorBoardLogger {
    /// The folder of the event files. Default `tensorboard` in the output folder.
    log_dir: Option<PathBuf>,
    #[serde(flatten)]
    chosen: Chosen,
}

/// Writes a table of `step,metric,value`.
///
/// Use it to read numbers with other programs.
///
/// Reference: none.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct CsvLogger {
    /// The file. Default `metrics.csv` in the output folder.
    path: Option<PathBuf>,
    #[serde(flatten)]
    chosen: Chosen,
}

/// Passes everything on to a run on an MLflow tracking server, over its REST interface.
///
/// Use it where runs are compared on such a server.
///
/// Reference: `MLFlowLogger` of Finetuner.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct MlflowLogger {
    /// The server. Default: the environment's `MLFLOW_TRACKING_URI`.
    tracking_uri: Option<String>,
    /// The experiment, made if need be. Default: the environment's `MLFLOW_EXPERIMENT_NAME`, else `Default`.
    experiment_name: Option<String>,
    /// Default: the name of the output folder.
    run_name: Option<String>,
    #[serde(flatten)]
    chosen: Chosen,
}

/// Which numbers a logger passes on: the fields of the original's logger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Chosen {
    /// `batch`: all of them. `epoch`: not those of every batch (`train_loss`, `learning_rate`). Default `batch`.
    metrics_logger_step: LoggerStep,
    /// Whether the untouched model's numbers are passed on, as step 0. Default true.
    log_zero_shot: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LoggerStep {
    Batch,
    Epoch,
}

impl Default for Chosen {
    fn default() -> Self {
        Chosen { metrics_logger_step: LoggerStep::Batch, log_zero_shot: true }
    }
}

impl Chosen {
    fn holds(&self, name: &str, step: usize) -> bool {
        let of_batch = matches!(name, "train_loss" | "learning_rate");
        (self.metrics_logger_step == LoggerStep::Batch || !of_batch) && (self.log_zero_shot || step > 0)
    }
}

/// One of the loggers, as asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Logger {
    TensorBoard(TensorBoardLogger),
    Csv(CsvLogger),
    Mlflow(MlflowLogger),
}

/// Where numbers go.
#[derive(Debug)]
enum Destination {
    TensorBoard(EventFile),
    Csv(MetricsCsv),
    Mlflow(Box<Mlflow>),
}

/// The loggers of a run, open.
#[derive(Debug, Default)]
pub(crate) struct Loggers(Vec<(Chosen, Destination)>);

impl Loggers {
    /// Opens the loggers of a run.
    ///
    /// # Errors
    /// [`crate::Error::Io`]; [`crate::Error::Spec`] for a server that does not answer.
    pub(crate) fn open(loggers: &[Logger], spec: &RunSpec, output: &Output) -> Result<Self> {
        let inside = |name: &str| output.folder().join(name);
        let open = |logger: &Logger| {
            Ok(match logger {
                Logger::TensorBoard(TensorBoardLogger { log_dir, chosen }) => {
                    let folder = log_dir.clone().unwrap_or_else(|| inside(TENSORBOARD));
                    (chosen.clone(), Destination::TensorBoard(EventFile::create(&folder)?))
                }
                Logger::Csv(CsvLogger { path, chosen }) => {
                    let path = path.clone().unwrap_or_else(|| inside(CSV));
                    (chosen.clone(), Destination::Csv(MetricsCsv::open(&path)?))
                }
                Logger::Mlflow(mlflow) => {
                    let server = Mlflow::start(mlflow, spec, output.folder())?;
                    (mlflow.chosen.clone(), Destination::Mlflow(Box::new(server)))
                }
            })
        };
        loggers.iter().map(open).collect::<Result<_>>().map(Loggers)
    }

    /// Passes an event on; gives what went wrong, for a warning. A logger that fails is dropped.
    pub(crate) fn hear(&mut self, event: &Event) -> Vec<String> {
        let mut problems = Vec::new();
        self.0.retain_mut(|(chosen, destination)| match destination.hear(chosen, event) {
            Ok(()) => true,
            Err(error) => {
                problems.push(format!("{} hears nothing more: {error}", destination.name()));
                false
            }
        });
        problems
    }
}

impl Destination {
    fn name(&self) -> &'static str {
        match self {
            Destination::TensorBoard(_) => "TensorBoardLogger",
            Destination::Csv(_) => "CSVLogger",
            Destination::Mlflow(_) => "MLflowLogger",
        }
    }

    fn hear(&mut self, chosen: &Chosen, event: &Event) -> Result<()> {
        match (self, event) {
            (destination, Event::Metric { name, step, value }) if chosen.holds(name, *step) => match destination {
                Destination::TensorBoard(file) => file.scalar(name, *step, *value as f32),
                Destination::Csv(file) => file.add(name, *step, *value),
                Destination::Mlflow(server) => server.metric(name, *step, *value),
            },
            (Destination::Mlflow(server), Event::State { state }) => server.state(state),
            _ => Ok(()),
        }
    }
}
