//! The API from the other side, blocking and small.
//!
//! Whatever may be repeated is repeated while the network or the server fails: reading, an upload from where it broke off,
//! a run under its `Idempotency-Key`, events from the last one that came.

mod device;
mod download;
mod error;
mod events;
mod experiments;
mod login;
mod pack;
mod spec;
mod upload;

use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use ulid::Ulid;
use ureq::http::{Method, Request, Response, StatusCode};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

pub use self::error::{Error, Result};
pub use self::events::Events;
pub use self::login::Login;
#[cfg(feature = "server")]
pub(crate) use self::pack::stored;
use crate::wire::{Artifact, ErrorBody, NewRun, Page, Run};

/// How long a server that does not answer is asked again, unless said otherwise.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// A server and a key.
#[derive(Debug, Clone)]
pub struct Client {
    login: Login,
    agent: Agent,
    patience: Duration,
}

impl Client {
    /// Talks to a server under a login.
    pub fn new(login: Login) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(Some(Duration::from_secs(300)))
            // The key is for this server only.
            .max_redirects(0)
            // The system's certificates, or those of SSL_CERT_FILE.
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .user_agent(concat!("finetuner/", env!("CARGO_PKG_VERSION")))
            .build();
        Client { login, agent: config.into(), patience: PATIENCE }
    }

    /// How long a server that does not answer is asked again.
    pub fn with_patience(self, patience: Duration) -> Self {
        Client { patience, ..self }
    }

    /// The server's address.
    pub fn server(&self) -> &str {
        &self.login.server
    }

    /// Whose key this is.
    ///
    /// # Errors
    /// [`Error`], as everything here.
    pub fn owner(&self) -> Result<String> {
        let current: serde_json::Value = self.get("/v1/keys/current")?;
        Ok(current["owner"].as_str().unwrap_or_default().to_owned())
    }

    /// Starts a run, once, however often the answer is lost.
    ///
    /// # Errors
    /// [`Error::Refused`] with what is wrong in the spec.
    pub fn create_run(&self, new: &NewRun) -> Result<Run> {
        let key = Ulid::generate().to_string();
        let body = to_json(new)?;
        self.patiently(|| {
            let request = self.request(Method::POST, "/v1/runs")?;
            let request = request.header("idempotency-key", &key).header("content-type", "application/json");
            self.answer(self.agent.run(request.body(body.clone()).map_err(Error::malformed)?))
        })
    }

    /// A run by its id or name.
    ///
    /// # Errors
    /// [`Error::Refused`] where there is none.
    pub fn run(&self, name: &str) -> Result<Run> {
        self.get(&format!("/v1/runs/{}", part(name)))
    }

    /// The newest runs, at most so many.
    ///
    /// # Errors
    /// [`Error`].
    pub fn runs(&self, experiment: Option<&str>, most: usize) -> Result<Vec<Run>> {
        let mut runs: Vec<Run> = Vec::new();
        let mut after = String::new();
        while runs.len() < most {
            let limit = (most - runs.len()).min(100);
            let filter = experiment.map(|name| format!("&experiment={}", part(name))).unwrap_or_default();
            let page: Page<Run> = self.get(&format!("/v1/runs?limit={limit}&after={after}{filter}"))?;
            runs.extend(page.data);
            match page.next {
                Some(next) => after = next,
                None => break,
            }
        }
        Ok(runs)
    }

    /// Asks for the end of a run.
    ///
    /// # Errors
    /// [`Error`].
    pub fn cancel(&self, name: &str) -> Result<Run> {
        self.post(&format!("/v1/runs/{}/cancel", part(name)))
    }

    /// A run's artifact: its files with their checksums.
    ///
    /// # Errors
    /// [`Error::Refused`] unless the run has finished.
    pub fn artifact(&self, run: &str) -> Result<Artifact> {
        self.get(&format!("/v1/runs/{}/artifact", part(run)))
    }

    /// What a run has said for people.
    ///
    /// # Errors
    /// [`Error`].
    pub fn logs(&self, run: &str) -> Result<String> {
        let request = self.request(Method::GET, &format!("/v1/runs/{}/logs", part(run)))?;
        let answer = self.checked(self.agent.run(request.body(()).map_err(Error::malformed)?))?;
        answer.into_body().into_with_config().limit(u64::MAX).read_to_string().map_err(|error| self.unreachable(error))
    }

    /// A run's events after this one, as they come, until it has ended.
    pub fn events(&self, run: &str, after: i64) -> Events {
        Events::new(self.clone(), run, after)
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.patiently(|| {
            let request = self.request(Method::GET, path)?;
            self.answer(self.agent.run(request.body(()).map_err(Error::malformed)?))
        })
    }

    /// For what may be repeated.
    fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.patiently(|| {
            let request = self.request(Method::POST, path)?;
            self.answer(self.agent.run(request.body(()).map_err(Error::malformed)?))
        })
    }

    fn post_json<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        let request = self.request(Method::POST, path)?.header("content-type", "application/json");
        self.answer(self.agent.run(request.body(to_json(body)?).map_err(Error::malformed)?))
    }

    fn request(&self, method: Method, path: &str) -> Result<ureq::http::request::Builder> {
        let address = format!("{}{path}", self.login.server.trim_end_matches('/'));
        Ok(Request::builder()
            .method(method)
            .uri(address)
            .header("authorization", format!("Bearer {}", self.login.token)))
    }

    /// Repeats what fails on the way or at a server that is down.
    fn patiently<T>(&self, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        let started = Instant::now();
        loop {
            match attempt() {
                Err(error) if error.is_passing() && started.elapsed() < self.patience => std::thread::sleep(PAUSE),
                done => return done,
            }
        }
    }

    fn answer<T: DeserializeOwned>(&self, sent: std::result::Result<Response<Body>, ureq::Error>) -> Result<T> {
        let mut answer = self.checked(sent)?;
        let text = answer.body_mut().with_config().limit(64 << 20).read_to_string();
        let text = text.map_err(|error| self.unreachable(error))?;
        serde_json::from_str(&text).map_err(|error| Error::Protocol(format!("an answer cannot be read: {error}")))
    }

    /// An answer that is no error.
    fn checked(&self, sent: std::result::Result<Response<Body>, ureq::Error>) -> Result<Response<Body>> {
        let mut answer = sent.map_err(|error| match error {
            // Nothing that passes.
            ureq::Error::Rustls(_) | ureq::Error::Tls(_) => self.untrusted(&error),
            ureq::Error::Io(ref cause) if cause.kind() == std::io::ErrorKind::InvalidData => self.untrusted(&error),
            error => self.unreachable(error),
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let text = answer.body_mut().read_to_string().unwrap_or_default();
        match serde_json::from_str::<ErrorBody>(&text) {
            Ok(body) => Err(Error::Refused { status: status.as_u16(), problem: body.error }),
            Err(_) if matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE) => {
                Err(Error::Unreachable { server: self.login.server.clone(), reason: format!("answers {status}") })
            }
            Err(_) => Err(Error::Protocol(format!(
                "`{}` answers {status} and not as a Finetuner server does; is the address right?",
                self.login.server
            ))),
        }
    }

    fn untrusted(&self, error: &ureq::Error) -> Error {
        Error::Protocol(format!(
            "`{}` speaks no TLS that can be trusted ({error}); `SSL_CERT_FILE` names certificates that are trusted instead \
             of the system's",
            self.login.server
        ))
    }

    fn unreachable(&self, error: impl std::fmt::Display) -> Error {
        Error::Unreachable { server: self.login.server.clone(), reason: error.to_string() }
    }
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::Protocol(error.to_string()))
}

/// One part of a path or query.
fn part(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_path_stays_one() {
        assert_eq!(part("a/../b c?d=é"), "a%2F..%2Fb%20c%3Fd%3D%C3%A9");
    }
}
