//! `finetuner login`: keep a server's address and a key.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::{Context, Result, bail};
use service::client::{Client, Login};

use crate::remote::variable;
use crate::terminal::Terminal;

/// Log in to a server: `fit` runs there from now on
///
/// The key is checked and kept in a file that only you can read. Without `--token` it is taken from FINETUNER_TOKEN, or
/// asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The server's address
    #[arg(value_name = "URL", default_value = "http://localhost:7700")]
    server: String,
    /// A key, as `finetuner serve` prints it at its first start
    #[arg(long, value_name = "KEY", env = "FINETUNER_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

const AFTER_HELP: &str = "\
Examples:
  finetuner login http://localhost:7700 --token ft_…
  finetuner login http://localhost:7700 < key.txt";

/// Checks and keeps a login.
pub(super) fn run(arguments: Arguments, terminal: &mut Terminal) -> Result<()> {
    let server = arguments.server.trim_end_matches('/').to_owned();
    if !server.starts_with("http://") && !server.starts_with("https://") {
        bail!("`{server}` is no server's address; expected one such as `http://localhost:7700`");
    }
    let token = match arguments.token {
        Some(token) => token,
        None => ask()?,
    };
    let login = Login { server, token: token.trim().to_owned() };
    let owner = Client::new(login.clone()).owner()?;
    let path = Login::path(variable)?;
    login.save(&path)?;
    terminal.info(&format!("logged in to {} as {owner}; the key is in {}", login.server, path.display()));
    Ok(())
}

fn ask() -> Result<String> {
    if std::io::stdin().is_terminal() {
        // Where standard error is gone there is nobody to ask.
        let _ = write!(std::io::stderr(), "Key: ");
    }
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("cannot read a key")?;
    if line.trim().is_empty() {
        bail!("expected a key with `--token`, in FINETUNER_TOKEN or on standard input");
    }
    Ok(line)
}
