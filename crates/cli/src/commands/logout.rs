//! `finetuner logout`: forget the stored login.

use anyhow::Result;
use service::client::Login;

use crate::remote::variable;
use crate::terminal::Terminal;

/// Forget the stored login: `fit` runs on this machine again
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {}

const AFTER_HELP: &str = "\
Examples:
  finetuner logout";

/// Forgets.
pub(super) fn run(terminal: &mut Terminal) -> Result<()> {
    let there_was = Login::remove(&Login::path(variable)?)?;
    terminal.info(if there_was { "logged out" } else { "nobody was logged in" });
    Ok(())
}
