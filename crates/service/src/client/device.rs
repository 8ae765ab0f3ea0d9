//! Logging in by a code that a person approves in a browser (RFC 8628).

use std::time::{Duration, Instant};

use serde_json::Value;
use ureq::http::Method;

use super::error::{Error, Result};
use super::{Client, Login};
use crate::wire::DeviceLogin;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// By how much questions are spaced further when the server asks for it.
const SLOWER: Duration = Duration::from_secs(5);

impl Client {
    /// Asks for a key and waits until somebody has decided; `show` gets the code and where to approve it.
    ///
    /// # Errors
    /// [`Error::Login`] if it was denied or nobody decided in time, [`Error::Unreachable`] if there is no server.
    pub fn log_in(server: &str, show: &mut dyn FnMut(&DeviceLogin)) -> Result<Login> {
        let client = Client::new(Login { server: server.to_owned(), token: String::new() });
        let begun: DeviceLogin = client.post("/oauth/device")?;
        show(&begun);
        let started = Instant::now();
        let mut pause = Duration::from_secs(begun.interval.max(1));
        while started.elapsed() < Duration::from_secs(begun.expires_in) {
            std::thread::sleep(pause);
            let answer = client.ask(&begun);
            match answer.as_ref().ok().and_then(|answer| answer["error"].as_str()) {
                Some("slow_down") => pause += SLOWER,
                Some("authorization_pending") => {}
                Some("access_denied") => return Err(Error::Login("the login was denied".into())),
                Some(_) => return Err(Error::Login("the login has ended; start it again".into())),
                None => {
                    // A server that is down for a moment does not end the wait.
                    if let Some(token) = answer.ok().as_ref().and_then(|answer| answer["access_token"].as_str()) {
                        return Ok(Login { server: server.to_owned(), token: token.to_owned() });
                    }
                }
            }
        }
        Err(Error::Login("nobody approved the login in time; start it again".into()))
    }

    fn ask(&self, begun: &DeviceLogin) -> Result<Value> {
        let request = self.request(Method::POST, "/oauth/token")?;
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let body = format!("grant_type={}&device_code={}", super::part(GRANT), super::part(&begun.device_code));
        let mut answer =
            self.agent.run(request.body(body).map_err(Error::malformed)?).map_err(|error| self.unreachable(error))?;
        let text = answer.body_mut().read_to_string().map_err(|error| self.unreachable(error))?;
        serde_json::from_str(&text).map_err(|error| Error::Protocol(error.to_string()))
    }
}
