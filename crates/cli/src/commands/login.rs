//! `finetuner login`: keep a server's address and a key.

use std::io::BufRead;

use anyhow::{Context, Result, bail};
use service::client::{Client, Login};

use crate::remote::variable;
use crate::terminal::Terminal;

/// Log in to a server: `fit` runs there from now on
///
/// Shows a code that somebody with a key approves in a browser; with `--token` a key is taken as it is. The key is kept in a
/// file that only you can read.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The server's address
    #[arg(value_name = "URL", default_value = "http://localhost:7700")]
    server: String,
    /// A key, as `finetuner serve` prints it at its first start; `-` reads it from standard input
    #[arg(long, value_name = "KEY", env = "FINETUNER_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

const AFTER_HELP: &str = "\
Examples:
  finetuner login http://localhost:7700
  finetuner login http://localhost:7700 --token - < key.txt";

/// Checks and keeps a login.
pub(super) fn run(arguments: Arguments, terminal: &mut Terminal) -> Result<()> {
    let server = arguments.server.trim_end_matches('/').to_owned();
    if !server.starts_with("http://") && !server.starts_with("https://") {
        bail!("`{server}` is no server's address; expected one such as `http://localhost:7700`");
    }
    let login = match arguments.token.as_deref() {
        Some("-") => Login { server, token: read()? },
        Some(token) => Login { server, token: token.trim().to_owned() },
        None => Client::log_in(&server, &mut |login| {
            terminal.ask(&format!("open {} and approve the code {}", login.verification_uri_complete, login.user_code));
        })?,
    };
    let owner = Client::new(login.clone()).owner()?;
    let path = Login::path(variable)?;
    login.save(&path)?;
    terminal.info(&format!("logged in to {} as {owner}; the key is in {}", login.server, path.display()));
    Ok(())
}

fn read() -> Result<String> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("cannot read a key")?;
    if line.trim().is_empty() {
        bail!("expected a key on standard input");
    }
    Ok(line.trim().to_owned())
}
