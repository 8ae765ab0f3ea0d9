//! What a server is told: a TOML file, overridden by the environment (`FINETUNER_SERVER_LISTEN` for `listen`).

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use finetuner::error::nearest;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

const PREFIX: &str = "FINETUNER_SERVER_";

/// Every setting with its default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where to listen. Default `127.0.0.1:7700`, which only this machine reaches; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where browsers find the server, as in `https://finetuner.example.com`. Default: where they ask for it.
    pub address: String,
    /// The folder for everything that is not put elsewhere. Default `finetuner-data`.
    pub data: PathBuf,
    /// `sqlite://…` or `postgres://…`. Default: SQLite in `data`.
    pub database: Secret,
    /// `s3://bucket/prefix` for files and artifacts. Default: a folder in `data`.
    pub storage: String,
    /// Runs at once. Default 1.
    pub runs: usize,
    /// Runs at once of one key. Default 4.
    pub runs_per_key: usize,
    /// Processors that all runs share; 0: those of the machine. Default 0.
    pub cpus: u32,
    /// GPUs that all runs share, each one's own while it runs: the first so many, or those of `CUDA_VISIBLE_DEVICES`; 0: not
    /// counted, runs take what their `device` finds. Default 0.
    pub gpus: u32,
    /// Memory in bytes that runs may ask for together; 0: not counted. Default 0.
    pub memory: u64,
    /// Disk in bytes that runs may ask for together; 0: not counted. Default 0.
    pub disk: u64,
    /// Memory in bytes of a process that looks at data or tries models for somebody; 0: no limit. Default 8 GB.
    pub question_memory: u64,
    /// Bytes of the largest upload. Default 100 GB.
    pub max_file_bytes: u64,
    /// Workers of one run that may be lost in a row without a new checkpoint. Default 5.
    pub max_losses: u32,
    /// Seconds that a server's claim on a run lasts unless renewed. Default 15.
    pub lease_seconds: u64,
    /// Seconds that a worker may be silent, or take to stop, until it is killed. Default 60.
    pub patience_seconds: u64,
    /// A PEM file: the server's certificate, followed by those that vouch for it. With `tls_key` the server speaks TLS.
    pub tls_certificate: PathBuf,
    /// A PEM file: the certificate's key.
    pub tls_key: PathBuf,
    /// Listens on addresses that other machines reach without TLS: keys and data cross the network as they are, unless
    /// something in front of the server sees to it. Default false.
    pub insecure: bool,
    /// Seconds that a client may take over a request's head and over each part of its body, and the server until its answer
    /// begins. Default 30.
    pub request_seconds: u64,
    /// Requests a minute of one key; 0: any number. Default 6000.
    pub requests_per_minute: u32,
    /// Requests a minute without a key that counts, of one address; 0: any number. Default 600.
    pub anonymous_requests_per_minute: u32,
    /// Runs that may wait for their turn. Default 1000.
    pub waiting_runs: u32,
    /// Runs of one key that may wait for their turn. Default 100.
    pub waiting_runs_per_key: u32,
    /// Days after which artifacts, files and checkpoints that no run needs are removed; 0: never. Default 0.
    pub keep_days: u32,
    /// Bytes of artifacts and files beyond which those longest out of use are removed; 0: any number. Default 0.
    pub keep_bytes: u64,
    /// An OpenID Connect provider at which people sign in, as in `https://accounts.example.com`. Default: none.
    pub openid_issuer: String,
    /// The name that this server has at the provider.
    pub openid_client: String,
    /// The secret that belongs to it, where the provider gave one.
    pub openid_secret: Secret,
    /// What the provider tells people apart by: `email`, which it must have verified, or `sub`. Default `email`.
    pub openid_claim: String,
    /// Who may sign in, separated by commas: `ann@example.com`, all of `@example.com`, `*` for everybody the provider knows.
    pub openid_members: String,
    /// The log: `text` or `json`. Default `text`.
    pub log: String,
    /// A collector of OpenTelemetry that takes OTLP over HTTP, as in `http://127.0.0.1:4318`. Default: none.
    pub telemetry: String,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            listen: SocketAddr::from(([127, 0, 0, 1], 7700)),
            address: String::new(),
            data: PathBuf::from("finetuner-data"),
            database: Secret(String::new()),
            storage: String::new(),
            runs: 1,
            runs_per_key: 4,
            cpus: 0,
            gpus: 0,
            memory: 0,
            disk: 0,
            question_memory: 8_000_000_000,
            max_file_bytes: 100_000_000_000,
            max_losses: 5,
            lease_seconds: 15,
            patience_seconds: 60,
            tls_certificate: PathBuf::new(),
            tls_key: PathBuf::new(),
            insecure: false,
            request_seconds: 30,
            requests_per_minute: 6000,
            anonymous_requests_per_minute: 600,
            waiting_runs: 1000,
            waiting_runs_per_key: 100,
            keep_days: 0,
            keep_bytes: 0,
            openid_issuer: String::new(),
            openid_client: String::new(),
            openid_secret: Secret(String::new()),
            openid_claim: "email".into(),
            openid_members: String::new(),
            log: "text".into(),
            telemetry: String::new(),
        }
    }
}

impl Settings {
    /// Reads the settings: environment over file over default.
    ///
    /// # Errors
    /// [`Error::Settings`] that names the file or variable, the setting and what was expected.
    pub fn read(file: Option<&Path>, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self> {
        let wrong = |error: String| Error::Settings(error);
        let defaults = toml::Table::try_from(Settings::default()).map_err(|error| wrong(error.to_string()))?;
        let mut table = match file {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
                text.parse::<toml::Table>().map_err(|error| wrong(format!("{}: {error}", path.display())))?
            }
            None => toml::Table::new(),
        };
        for (variable, value) in environment {
            let Some(name) = variable.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
            let name = name.to_lowercase();
            let value =
                value.to_str().ok_or_else(|| wrong(format!("{PREFIX}{}: is not UTF-8", name.to_uppercase())))?;
            let value = match defaults.get(&name) {
                Some(toml::Value::Integer(_)) => {
                    let number = value.parse().map_err(|_| {
                        wrong(format!("{PREFIX}{}: expected a whole number, got `{value}`", name.to_uppercase()))
                    })?;
                    toml::Value::Integer(number)
                }
                Some(toml::Value::Boolean(_)) => {
                    let wrong = || format!("{PREFIX}{}: expected true or false, got `{value}`", name.to_uppercase());
                    toml::Value::Boolean(value.parse().map_err(|_| self::Error::Settings(wrong()))?)
                }
                _ => toml::Value::String(value.to_owned()),
            };
            table.insert(name, value);
        }
        if let Some(unknown) = table.keys().find(|name| !defaults.contains_key(*name)) {
            let known = nearest(unknown, defaults.keys().map(String::as_str));
            return Err(wrong(format!("`{unknown}` is no setting of the server{known}")));
        }
        let settings: Settings = table.try_into().map_err(|error| wrong(error.to_string()))?;
        settings.check()?;
        Ok(settings)
    }

    /// Whether the settings make sense; [`Settings::read`] has asked already.
    ///
    /// # Errors
    /// [`Error::Settings`] that names the setting and what was expected.
    pub fn check(&self) -> Result<()> {
        for (name, value) in [
            ("runs", self.runs as u64),
            ("runs_per_key", self.runs_per_key as u64),
            ("max_losses", u64::from(self.max_losses)),
            ("lease_seconds", self.lease_seconds),
            ("patience_seconds", self.patience_seconds),
            ("request_seconds", self.request_seconds),
            ("waiting_runs", u64::from(self.waiting_runs)),
            ("waiting_runs_per_key", u64::from(self.waiting_runs_per_key)),
        ] {
            if value == 0 {
                return Err(Error::Settings(format!("`{name}`: expected 1 or more, got 0")));
            }
        }
        if !["text", "json"].contains(&self.log.as_str()) {
            return Err(Error::Settings(format!("`log`: expected `text` or `json`, got `{}`", self.log)));
        }
        if !self.telemetry.is_empty() && !["http://", "https://"].iter().any(|start| self.telemetry.starts_with(start))
        {
            let got = &self.telemetry;
            return Err(Error::Settings(format!(
                "`telemetry`: expected an address as in `http://127.0.0.1:4318`, got `{got}`"
            )));
        }
        if self.tls_certificate.as_os_str().is_empty() != self.tls_key.as_os_str().is_empty() {
            return Err(Error::Settings("`tls_certificate` and `tls_key`: expected both or neither".into()));
        }
        if !self.listen.ip().is_loopback() && self.tls().is_none() && !self.insecure {
            // Keys would cross the network as they are.
            return Err(Error::Settings(format!(
                "`listen`: {} is reachable from other machines, and without TLS so is every key; set `tls_certificate` and \
                 `tls_key`, or listen on loopback behind a proxy that speaks TLS, or allow it with `insecure = true`",
                self.listen
            )));
        }
        self.check_openid()
    }

    fn check_openid(&self) -> Result<()> {
        if !["email", "sub"].contains(&self.openid_claim.as_str()) {
            let got = &self.openid_claim;
            return Err(Error::Settings(format!("`openid_claim`: expected `email` or `sub`, got `{got}`")));
        }
        check_address("address", &self.address)?;
        check_address("openid_issuer", &self.openid_issuer)?;
        let fields = [
            ("openid_issuer", &self.openid_issuer),
            ("openid_client", &self.openid_client),
            ("openid_members", &self.openid_members),
        ];
        if self.openid_secret.0.is_empty() && fields.iter().all(|(_, value)| value.is_empty()) {
            return Ok(());
        }
        for (name, value) in fields.into_iter().chain([("address", &self.address)]) {
            if value.trim().is_empty() {
                return Err(Error::Settings(format!(
                    "`{name}`: needed to sign people in at an OpenID Connect provider"
                )));
            }
        }
        Ok(())
    }

    /// The files of certificate and key, where the server speaks TLS.
    pub(crate) fn tls(&self) -> Option<(PathBuf, PathBuf)> {
        let set = !self.tls_certificate.as_os_str().is_empty();
        set.then(|| (self.tls_certificate.clone(), self.tls_key.clone()))
    }

    /// Processors that runs share.
    pub(crate) fn all_cpus(&self) -> u32 {
        match self.cpus {
            0 => std::thread::available_parallelism().map_or(1, |count| count.get() as u32),
            cpus => cpus,
        }
    }
}

/// What goes over other machines goes encrypted.
fn check_address(name: &str, address: &str) -> Result<()> {
    let here = ["http://127.0.0.1", "http://localhost", "http://[::1]"];
    let here = here
        .iter()
        .any(|start| address.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/'])));
    if address.is_empty() || address.starts_with("https://") || here {
        return Ok(());
    }
    Err(Error::Settings(format!("`{name}`: expected an address that begins with `https://`, got `{address}`")))
}

/// A text that does not show itself.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub(crate) String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if self.0.is_empty() { "Secret()" } else { "Secret(…)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, variables: &[(&str, &str)]) -> Result<Settings> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("server.toml");
        std::fs::write(&file, text).unwrap();
        Settings::read(Some(&file), variables.iter().map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn the_environment_wins_over_the_file_over_the_default() {
        let settings = read(
            "runs = 2\nruns_per_key = 3\n",
            &[("FINETUNER_SERVER_RUNS", "5"), ("FINETUNER_SERVER_DATABASE", "sqlite://x"), ("FINETUNER_SEED", "1")],
        )
        .unwrap();
        assert_eq!((settings.runs, settings.runs_per_key, settings.max_losses), (5, 3, 5));
        assert_eq!(settings.database.0, "sqlite://x");
        assert!(!format!("{settings:?}").contains("sqlite"), "{settings:?}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, variable, expected) in [
            ("run = 1", ("A", "1"), "`run` is no setting of the server, did you mean `runs`?"),
            ("runs = 0", ("A", "1"), "`runs`: expected 1 or more"),
            ("tls_key = \"key.pem\"", ("A", "1"), "expected both or neither"),
            ("", ("FINETUNER_SERVER_INSECURE", "yes"), "FINETUNER_SERVER_INSECURE: expected true or false, got `yes`"),
            ("openid_client = \"a\"", ("A", "1"), "`openid_issuer`: needed to sign people in"),
            ("openid_claim = \"name\"", ("A", "1"), "`openid_claim`: expected `email` or `sub`, got `name`"),
            ("address = \"http://127.0.0.1.evil.net\"", ("A", "1"), "`address`: expected an address that begins with"),
            ("telemetry = \"127.0.0.1:4318\"", ("A", "1"), "`telemetry`: expected an address as in `http://"),
            ("listen = \"0.0.0.0:80\"", ("A", "1"), "without TLS so is every key"),
            ("", ("FINETUNER_SERVER_RUNS", "many"), "FINETUNER_SERVER_RUNS: expected a whole number, got `many`"),
        ] {
            let error = read(text, &[variable]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
