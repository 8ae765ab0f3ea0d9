//! `finetuner serve`: fine-tuning as a service on this machine.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use service::server::{self, Ready};
use service::settings::Settings;

use crate::terminal;

/// Serve fine-tuning on this machine: an HTTP API, a queue, a process for every run
///
/// Settings come from a TOML file and from the environment (`FINETUNER_SERVER_RUNS` for `runs`), flags win. At the first
/// start a key is printed, once: `finetuner login` takes it. Ctrl-C lets workers save a checkpoint; runs go on at the next
/// start.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// Settings: a `.toml` file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen. Default: 127.0.0.1:7700; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// The folder for database, files, runs and artifacts. Default: `finetuner-data`
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Try database, storage and address, say what works, and stop
    #[arg(long)]
    check: bool,
}

const AFTER_HELP: &str = "\
Examples:
  finetuner serve
  finetuner serve --data /srv/finetuner --listen 127.0.0.1:8000
  finetuner serve --config server.toml --check";

/// Serves until told to stop.
pub(super) fn run(arguments: Arguments) -> Result<()> {
    let mut settings = Settings::read(arguments.config.as_deref(), std::env::vars_os())?;
    settings.listen = arguments.listen.unwrap_or(settings.listen);
    settings.data = arguments.data.unwrap_or(settings.data);
    settings.check()?;
    let binary = std::env::current_exe().context("cannot find this program, which workers are started from")?;
    if arguments.check {
        let works = server::check(settings, binary)?;
        return terminal::print(&works.iter().map(|line| format!("ok: {line}\n")).collect::<String>());
    }
    server::serve(settings, binary, |ready| {
        // Where standard output is gone the log says the address, too.
        let _ = terminal::print(&greeting(ready));
    })?;
    Ok(())
}

fn greeting(ready: &Ready) -> String {
    let address = format!("{}://{}", if ready.tls { "https" } else { "http" }, ready.address);
    let mut text = format!("Finetuner listens on {address}\n");
    if let Some(key) = &ready.first_key {
        text += &format!("First key, shown this once: {key}\nLog in: finetuner login {address} --token {key}\n");
    }
    text
}
