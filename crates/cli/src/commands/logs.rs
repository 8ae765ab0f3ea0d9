//! `finetuner logs`: what a run says.

use anyhow::Result;
use finetuner::event::{Event, Level, Sink};

use crate::remote::ServerArguments;
use crate::terminal::{self, Terminal};

/// Print what a run has said, or follow it to its end
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The run's name or id
    run: String,
    /// Go on until the run has ended
    #[arg(short, long)]
    follow: bool,
    /// Print every event as a JSON line, metrics and progress too
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

const AFTER_HELP: &str = "\
Examples:
  finetuner logs mini-4r1s0t
  finetuner logs -f mini-4r1s0t";

/// Prints.
pub(super) fn run(arguments: &Arguments, terminal: &mut Terminal) -> Result<()> {
    let client = arguments.server.client()?;
    let run = client.run(&arguments.run)?;
    if !arguments.follow && !arguments.json {
        return terminal::print(&client.logs(&run.id)?);
    }
    let mut last = 0;
    let ended = run.status.is_final();
    for event in client.events(&run.id, 0) {
        let event = event?;
        last = last.max(event.sequence);
        if arguments.json {
            terminal::print(&(serde_json::to_string(&event)? + "\n"))?;
            continue;
        }
        match &event.event {
            Event::Log { level: Level::Info, message } => terminal::print(&format!("{} {message}\n", event.time))?,
            Event::Log { level: Level::Warning, message } => {
                terminal::print(&format!("{} warning: {message}\n", event.time))?;
            }
            Event::State { state } => terminal::print(&format!("{} {state}\n", event.time))?,
            // Old progress is no news.
            Event::Progress { .. } if !ended => terminal.send(&event.event),
            _ => {}
        }
    }
    Ok(())
}
