//! A run on an MLflow tracking server: <https://mlflow.org/docs/latest/api_reference/rest-api.html>, version 2.0.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::MlflowLogger;
use crate::error::{Error, Result};
use crate::spec::RunSpec;

/// Numbers are sent together, at most this many at once, which is the server's limit …
const AT_ONCE: usize = 1000;
/// … and not more often than this.
const PAUSE: Duration = Duration::from_secs(5);

/// Parameters that one request may carry.
const PARAMETERS_AT_ONCE: usize = 100;
/// Characters that the value of a parameter may have.
const LONGEST_PARAMETER: usize = 500;

/// A run of ours on the server.
#[derive(Debug)]
pub(super) struct Mlflow {
    agent: ureq::Agent,
    server: String,
    authorization: Option<String>,
    run: String,
    waiting: Vec<Value>,
    sent: Instant,
}

impl Mlflow {
    /// Starts a run and tells the fields of its spec as parameters.
    ///
    /// # Errors
    /// [`Error::Spec`] where there is no server or it refuses.
    pub(super) fn start(logger: &MlflowLogger, spec: &RunSpec, output: &Path) -> Result<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let server = logger.tracking_uri.clone().or_else(|| variable("MLFLOW_TRACKING_URI"));
        let server =
            server.filter(|uri| uri.starts_with("http://") || uri.starts_with("https://")).ok_or_else(|| {
                refused(
                    "expected `tracking_uri=http://…` (or MLFLOW_TRACKING_URI), the address of an MLflow server; \
                 `mlflow server` starts one",
                )
            })?;
        let password = variable("MLFLOW_TRACKING_PASSWORD").unwrap_or_default();
        let user = variable("MLFLOW_TRACKING_USERNAME").map(|user| basic(&format!("{user}:{password}")));
        let token = variable("MLFLOW_TRACKING_TOKEN").map(|token| format!("Bearer {token}"));
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(2 * PAUSE));
        let mut mlflow = Mlflow {
            agent: config.build().into(),
            server: server.trim_end_matches('/').to_owned(),
            authorization: user.or(token),
            run: String::new(),
            waiting: Vec::new(),
            sent: Instant::now(),
        };
        let experiment = logger.experiment_name.clone().or_else(|| variable("MLFLOW_EXPERIMENT_NAME"));
        let experiment = mlflow.experiment(&experiment.unwrap_or_else(|| "Default".into()))?;
        let folder = output.file_name().map(|name| name.to_string_lossy().into_owned());
        let run = json!({
            "experiment_id": experiment,
            "run_name": logger.run_name.clone().or(folder),
            "start_time": milliseconds(),
            "tags": [{"key": "mlflow.source.name", "value": "finetuner"}],
        });
        let made = mlflow.post("runs/create", &run)?;
        mlflow.run = made["run"]["info"]["run_id"].as_str().unwrap_or_default().to_owned();
        let parameters = parameters(spec);
        for parameters in parameters.chunks(PARAMETERS_AT_ONCE) {
            mlflow.post("runs/log-batch", &json!({"run_id": mlflow.run, "params": parameters}))?;
        }
        Ok(mlflow)
    }

    /// Passes a number on, now or soon.
    pub(super) fn metric(&mut self, name: &str, step: usize, value: f64) -> Result<()> {
        let value = if value.is_finite() { json!(value) } else { json!(value.to_string()) };
        self.waiting.push(json!({"key": key(name), "value": value, "timestamp": milliseconds(), "step": step}));
        if self.waiting.len() >= AT_ONCE || self.sent.elapsed() >= PAUSE { self.send() } else { Ok(()) }
    }

    /// Ends the run, or leaves it open.
    pub(super) fn state(&mut self, state: &str) -> Result<()> {
        self.send()?;
        let status = match state {
            "finished" => "FINISHED",
            "failed" => "FAILED",
            "stopped" => "KILLED",
            _ => return Ok(()),
        };
        let end = json!({"run_id": self.run, "status": status, "end_time": milliseconds()});
        self.post("runs/update", &end).map(drop)
    }

    fn send(&mut self) -> Result<()> {
        self.sent = Instant::now();
        for metrics in std::mem::take(&mut self.waiting).chunks(AT_ONCE) {
            self.post("runs/log-batch", &json!({"run_id": self.run, "metrics": metrics}))?;
        }
        Ok(())
    }

    /// The id of an experiment, which is made if there is none of this name.
    fn experiment(&self, name: &str) -> Result<String> {
        let request = self.agent.get(self.address("experiments/get-by-name")).query("experiment_name", name);
        let found = self.answer("experiments/get-by-name", self.authorized(request).call(), &[404])?;
        let id = |value: &Value| value.as_str().map(str::to_owned);
        if let Some(id) = id(&found["experiment"]["experiment_id"]) {
            return Ok(id);
        }
        let made = self.post("experiments/create", &json!({"name": name}))?;
        id(&made["experiment_id"]).ok_or_else(|| refused("the answer names no experiment; is it an MLflow server?"))
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let request = self.agent.post(self.address(path)).header("content-type", "application/json");
        self.answer(path, self.authorized(request).send(body.to_string()), &[])
    }

    fn address(&self, path: &str) -> String {
        format!("{}/api/2.0/mlflow/{path}", self.server)
    }

    fn authorized<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.authorization {
            Some(authorization) => request.header("authorization", authorization),
            None => request,
        }
    }

    /// The JSON of an answer; `Null` for one of the `expected` refusals.
    fn answer(
        &self,
        path: &str,
        response: std::result::Result<ureq::http::Response<ureq::Body>, ureq::Error>,
        expected: &[u16],
    ) -> Result<Value> {
        let problem = |problem: &str| refused(&format!("`{}` at `{path}`: {problem}", self.server));
        let mut response = response.map_err(|error| problem(&error.to_string()))?;
        let status = response.status().as_u16();
        if expected.contains(&status) {
            return Ok(Value::Null);
        }
        let text = response.body_mut().read_to_string().map_err(|error| problem(&error.to_string()))?;
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        match status {
            200..300 => Ok(value),
            401 | 403 => Err(problem(&format!(
                "answers {status}; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            ))),
            _ => Err(problem(&format!("answers {status} {}", value["message"].as_str().unwrap_or_default()))),
        }
    }
}

/// The fields of a spec that are given, as text.
fn parameters(spec: &RunSpec) -> Vec<Value> {
    let fields = serde_json::to_value(spec).unwrap_or_default();
    let text = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        value => Some(value.to_string()),
    };
    let parameter = |(name, value): (&String, &Value)| {
        let text = text(value).filter(|text| !matches!(text.as_str(), "" | "{}" | "[]"))?;
        Some(json!({"key": name, "value": text.chars().take(LONGEST_PARAMETER).collect::<String>()}))
    };
    fields.as_object().into_iter().flatten().filter_map(parameter).collect()
}

/// A metric's name in the characters that MLflow takes.
fn key(name: &str) -> String {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "_-. /".contains(letter);
    name.chars().map(|letter| if allowed(letter) { letter } else { '_' }).collect()
}

fn milliseconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// `Basic` and the base64 of user and password (RFC 7617).
fn basic(user_and_password: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("Basic ");
    for bytes in user_and_password.as_bytes().chunks(3) {
        let word = bytes.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - bytes.len()));
        for place in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= bytes.len() { digit as char } else { '=' });
        }
    }
    text
}

fn refused(problem: &str) -> Error {
    Error::spec("callbacks", format!("MLflowLogger: {problem}"))
}

#[cfg(test)]
#[path = "mlflow_tests.rs"]
mod tests;
