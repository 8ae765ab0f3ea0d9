//! `finetuner fit`: fine-tune a model, here or on a server.

mod remote;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches};
use finetuner::event::{Event, Level, Sink};
use finetuner::mesh::{Rendezvous, Share};
use finetuner::spec::{Field, FieldType, RunSpec};
use finetuner::train::{self, Outcome, Report};
use serde_json::json;

use crate::remote::ServerArguments;
use crate::terminal::{self, Terminal};
use crate::{exit, model};

/// Fine-tune a model: measure it, train it, measure it again, save it
///
/// Takes its decisions from a spec file (TOML or JSON) and from flags: every field of the spec is a flag of the same
/// name. Precedence, highest first: flag, environment (`FINETUNER_LEARNING_RATE` for `--learning-rate`), file, default.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The run's spec: a `.toml` or `.json` file. Data it names is looked for beside it first
    spec: Option<PathBuf>,
    /// Print the spec with flags, environment, file and defaults brought together, and stop
    #[arg(long)]
    show_spec: bool,
    /// Print events as JSON lines, the report in the last one, instead of progress and a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    placement: Placement,
    #[command(flatten)]
    flags: SpecFlags,
}

/// Where a run runs.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Where it runs")]
struct Placement {
    #[command(flatten)]
    server: ServerArguments,
    /// Run on this machine, whoever is logged in where
    #[arg(long, conflicts_with = "server")]
    local: bool,
    /// On a server: the run's name. Default: made of the model's
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// On a server: the experiment, made if need be. Default: `default`
    #[arg(long, value_name = "NAME")]
    experiment: Option<String>,
    /// On a server: processors of its own. Default: its share of them
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    cpus: u32,
    /// On a server that counts its GPUs: how many of its own. Default: 1, with `--device cpu` none
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    gpus: u32,
    /// On a server: memory that it may take at most. Default: no limit
    #[arg(long, value_name = "BYTES", default_value_t = 0, hide_default_value = true)]
    memory: u64,
    /// On a server: disk that it may take at most for data, checkpoint and model. Default: no limit
    #[arg(long, value_name = "BYTES", default_value_t = 0, hide_default_value = true)]
    disk: u64,
    /// On a server: those with a higher one go first. Default: 0
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true, allow_negative_numbers = true)]
    priority: i32,
    /// On a server: start the run, print its name and do not wait for it
    #[arg(long)]
    detach: bool,
}

const AFTER_HELP: &str = "\
Examples:
  finetuner fit run.toml --epochs 3 --output runs/second
  finetuner fit --model all-MiniLM-L6-v2 --train-data pairs.csv --query-data scifact:test \\
      --loss TripletMarginLoss --miner TripletMarginMiner --miner-options margin=0.3,type_of_triplets=hard \\
      --callback 'EarlyStopping(patience=2)' --output runs/first
  finetuner fit --dataset train_data=pairs.csv,loss=MultipleNegativesRankingLoss --dataset train_data=sts.csv,loss=CoSENTLoss
  finetuner fit --train-data texts.txt
  finetuner fit run.toml --output runs/second --resume
  finetuner fit run.toml --server http://localhost:7700 --name first

After `finetuner login` a run goes to the server: its data is uploaded, its events are shown, its model is downloaded.
Several processes train together where `WORLD_SIZE`, `RANK`, `MASTER_ADDR` and `MASTER_PORT` are set, as torchrun and JobSets do.
Ctrl-C saves a checkpoint after the current step and stops with exit code 130; a second one stops at once.";

/// Fine-tunes a model.
pub(crate) fn run(arguments: Arguments, threads: Option<usize>, terminal: &mut Terminal) -> Result<ExitCode> {
    let threads = threads.map(|threads| ("threads".to_owned(), threads.to_string()));
    let flags = arguments.flags.0.into_iter().chain(threads);
    let mut spec = RunSpec::resolve(arguments.spec.as_deref(), std::env::vars_os(), flags)?;
    if arguments.show_spec {
        let text = if arguments.json { serde_json::to_string_pretty(&spec)? + "\n" } else { toml::to_string(&spec)? };
        terminal::print(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let server = if arguments.placement.local { None } else { arguments.placement.server.find()? };
    if let Some(client) = server {
        return remote::run(&client, &spec, &arguments.placement, arguments.json, terminal);
    }
    spec.check()?;
    let output = train::output_folder(&spec);
    spec.output = Some(output.clone());
    let stop = stop_on_interrupt()?;
    // A download is shown here, and not at all once it is in the cache.
    model::find(&spec.model, terminal)?;
    spec.guide.as_deref().map(|guide| model::find(guide, terminal)).transpose()?;

    let mut lines = JsonLines;
    let sink: &mut dyn Sink = if arguments.json { &mut lines } else { terminal };
    let outcome = match Rendezvous::from_environment(|name| std::env::var(name).ok())? {
        None => train::train(&spec, sink, &stop)?,
        Some(rendezvous) => match train::train_together(&rendezvous, &spec, sink, &stop)? {
            Some(outcome) => outcome,
            None => {
                let Share { rank, size } = rendezvous.share();
                exit::hint_line(&format!(
                    "rank {rank} of {size} has taken its part; rank 0 has the model and the report"
                ));
                return Ok(ExitCode::SUCCESS);
            }
        },
    };
    match outcome {
        Outcome::Finished(report) => {
            terminal::print(&if arguments.json {
                json!({"event": "report", "output": output, "report": *report}).to_string() + "\n"
            } else {
                finished(&report, &output.display().to_string())
            })?;
            Ok(ExitCode::SUCCESS)
        }
        Outcome::Stopped { step: 0 } => {
            terminal.warn("stopped before the first step; there is nothing to save yet");
            exit::hint_line("run the same command again to start over");
            Ok(ExitCode::from(exit::STOPPED))
        }
        Outcome::Stopped { step } => {
            terminal.warn(&format!("stopped at step {step}; the checkpoint is in `{}`", output.display()));
            exit::hint_line(&format!("run the same command with `--output {} --resume` to go on", output.display()));
            Ok(ExitCode::from(exit::STOPPED))
        }
    }
}

fn finished(report: &Report, output: &str) -> String {
    let timing = &report.timing;
    format!(
        "{}\nTrained {} steps in {:.1} s ({:.0} examples/s), measured in {:.1} s.\nThe model is in {output}\n",
        report.text(),
        report.training.steps,
        timing.train_seconds,
        timing.examples_per_second,
        timing.evaluate_seconds,
    )
}

/// The first Ctrl-C asks the run to stop, the second ends the program.
fn stop_on_interrupt() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(exit::STOPPED));
        }
        exit::hint_line("stopping with a checkpoint after the current step; Ctrl-C again stops at once");
    })?;
    Ok(stop)
}

/// Events as JSON lines on standard output.
struct JsonLines;

impl Sink for JsonLines {
    fn send(&mut self, event: &Event) {
        if let Ok(line) = serde_json::to_string(event) {
            // That nobody listens any more must not stop training.
            drop(terminal::print(&(line + "\n")));
        }
        if let Event::Log { level: Level::Warning, message } = event {
            exit::warning_line(message);
        }
    }
}

/// A flag for every field of [`RunSpec`], made from its table.
#[derive(Debug)]
struct SpecFlags(Vec<(String, String)>);

impl SpecFlags {
    /// `threads` is a flag of every command.
    fn fields() -> impl Iterator<Item = &'static Field> {
        RunSpec::FIELDS.iter().filter(|field| field.name != "threads")
    }

    fn flag(field: &'static Field) -> Arg {
        let value_name = match field.value {
            FieldType::Text => "NAME",
            FieldType::Path => "PATH",
            FieldType::Integer => "N",
            FieldType::Number => "X",
            FieldType::Boolean => "BOOL",
            FieldType::Texts => "TEXT",
            FieldType::Options | FieldType::Tables => "KEY=VALUE,…",
        };
        let flag = Arg::new(field.name)
            .long(field.name.replace('_', "-"))
            .value_name(value_name)
            .help(field.doc.trim_end_matches('.'))
            .help_heading("Fields of the spec")
            .allow_hyphen_values(matches!(field.value, FieldType::Text))
            .allow_negative_numbers(true)
            .action(ArgAction::Append);
        match field.value {
            FieldType::Boolean => flag.num_args(0..=1).require_equals(true).default_missing_value("true"),
            _ if field.name == "callbacks" => flag.visible_alias("callback"),
            _ if field.name == "datasets" => flag.visible_alias("dataset"),
            _ => flag,
        }
    }
}

impl clap::Args for SpecFlags {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.args(Self::fields().map(Self::flag))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for SpecFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |field: &'static Field| {
            let values = matches.get_many::<String>(field.name).into_iter().flatten();
            values.map(|value| (field.name.to_owned(), value.clone()))
        };
        Ok(SpecFlags(Self::fields().flat_map(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
