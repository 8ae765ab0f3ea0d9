//! `finetuner runs`: what runs on the server.

use anyhow::Result;
use service::wire::Run;

use crate::commands::at_least_one;
use crate::remote::ServerArguments;
use crate::terminal;

/// List the runs of a server, newest first
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// Only this experiment's
    #[arg(long, value_name = "NAME")]
    experiment: Option<String>,
    /// At most so many
    #[arg(short = 'n', long, value_name = "N", default_value = "20", value_parser = at_least_one)]
    most: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

const AFTER_HELP: &str = "\
Examples:
  finetuner runs
  finetuner runs --experiment search --json";

/// Lists.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let runs = arguments.server.client()?.runs(arguments.experiment.as_deref(), arguments.most)?;
    if arguments.json {
        return terminal::print(&(serde_json::to_string_pretty(&runs)? + "\n"));
    }
    let widest = runs.iter().map(|run| run.name.len()).max().unwrap_or(0).max(4);
    let mut text = format!("{:widest$}  {:9}  {:20}  state\n", "name", "status", "created");
    for run in &runs {
        let created = run.created_at.get(..19).unwrap_or(&run.created_at);
        text += &format!("{:widest$}  {:9}  {created:20}  {}\n", run.name, run.status.name(), state(run));
    }
    terminal::print(&text)
}

/// What a run is doing, or why it is not.
fn state(run: &Run) -> String {
    match (&run.reason, &run.error) {
        (_, Some(error)) => error.message.lines().next().unwrap_or_default().to_owned(),
        (Some(reason), None) => format!("waiting: {reason}"),
        (None, None) => run.phase.name().to_owned(),
    }
}
