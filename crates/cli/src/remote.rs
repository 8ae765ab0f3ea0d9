//! The server that a command talks to.

use std::ffi::OsString;

use anyhow::{Result, bail};
use service::client::{Client, Login};

/// Which server.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ServerArguments {
    /// A server's address, as in `http://localhost:7700`. Default: the one of `finetuner login`
    #[arg(long, value_name = "URL", env = "FINETUNER_SERVER", hide_env_values = true)]
    server: Option<String>,
}

impl ServerArguments {
    /// The server, under a stored login or `FINETUNER_TOKEN`; `None` where nobody has logged in and none is named.
    pub(crate) fn find(&self) -> Result<Option<Client>> {
        let stored = match Login::path(variable) {
            Ok(path) => Login::load(&path)?,
            Err(_) => None,
        };
        let token = variable("FINETUNER_TOKEN").and_then(|token| token.into_string().ok());
        let login = match (&self.server, stored, token) {
            (Some(server), _, Some(token)) => Login { server: server.clone(), token },
            (None, Some(stored), Some(token)) => Login { token, ..stored },
            (None, Some(stored), None) => stored,
            (Some(server), Some(stored), None) if same(server, &stored.server) => stored,
            (Some(server), _, None) => {
                bail!(
                    "there is no login for `{server}`; log in with `finetuner login {server}`, or set FINETUNER_TOKEN"
                )
            }
            (None, None, _) => return Ok(None),
        };
        Ok(Some(Client::new(login)))
    }

    /// The server; an error where there is none.
    pub(crate) fn client(&self) -> Result<Client> {
        match self.find()? {
            Some(client) => Ok(client),
            None => bail!("no server is known; log in with `finetuner login URL`, or name one with `--server`"),
        }
    }
}

/// A variable of the environment.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

fn same(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}
