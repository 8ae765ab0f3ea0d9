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
        Ok(Login::find(self.server.as_deref(), variable)?.map(Client::new))
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
