//! `finetuner cancel`: end a run.

use anyhow::Result;

use crate::remote::ServerArguments;
use crate::terminal::Terminal;

/// End a run of a server; its worker saves a checkpoint first
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The run's name or id
    run: String,
    #[command(flatten)]
    server: ServerArguments,
}

const AFTER_HELP: &str = "\
Examples:
  finetuner cancel mini-4r1s0t";

/// Asks for the end.
pub(super) fn run(arguments: &Arguments, terminal: &mut Terminal) -> Result<()> {
    let run = arguments.server.client()?.cancel(&arguments.run)?;
    terminal.info(&if run.status.is_final() {
        format!("{} has ended already: {}", run.name, run.status.name())
    } else {
        format!("{} saves a checkpoint and stops", run.name)
    });
    Ok(())
}
