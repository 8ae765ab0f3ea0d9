//! `finetuner pull`: bring a finished run's model here.

use std::path::{Path, PathBuf};

use anyhow::Result;
use service::client::Client;

use crate::remote::ServerArguments;
use crate::terminal::{self, Terminal};

/// Download the model of a finished run; every file's checksum is checked
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The run's name or id
    run: String,
    /// The folder to make. Default: `runs/<name>`
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArguments,
}

const AFTER_HELP: &str = "\
Examples:
  finetuner pull mini-4r1s0t --output model";

/// Downloads.
pub(super) fn run(arguments: &Arguments, terminal: &mut Terminal) -> Result<()> {
    let client = arguments.server.client()?;
    let run = client.run(&arguments.run)?;
    let output = arguments.output.clone().unwrap_or_else(|| Path::new("runs").join(&run.name));
    download(&client, &run.id, &output, terminal)?;
    terminal::print(&format!("{}\n", output.display()))
}

/// Downloads a run's artifact, showing how far it is.
pub(super) fn download(client: &Client, run: &str, output: &Path, terminal: &mut Terminal) -> Result<()> {
    client.download(run, output, &mut |done, total| {
        terminal.progress("download, KB", (done / 1000) as usize, (total / 1000) as usize, None);
    })?;
    Ok(())
}
