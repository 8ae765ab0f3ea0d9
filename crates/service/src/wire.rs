//! What goes over HTTP, the same for server and client.

mod inspection;
mod trial;

use std::collections::BTreeMap;

use finetuner::event::Event;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

pub use self::inspection::{Cell, Choice, Finding, Inspection, NewInspection, Place, Row, Suggestion};
pub use self::trial::{Found, Hit, Link, Match, NewSearch, Sample, Samples, Side, SpecField};
use crate::status::{Phase, Status};

/// One page of a list, newest first unless said otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Page<T> {
    /// The items.
    pub data: Vec<T>,
    /// Whether more follow.
    pub has_more: bool,
    /// What to give as `after` for the next page.
    pub next: Option<String>,
}

/// A file that was uploaded, or is being.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct File {
    /// `file-…`: what data fields of a spec hold.
    pub id: String,
    /// Its name, with the ending that says what it is.
    pub name: String,
    /// Its size when whole.
    pub bytes: u64,
    /// How much of it has arrived: where an interrupted upload goes on.
    pub received: u64,
    /// SHA-256 in hexadecimal: as announced, and checked once `ready`.
    pub sha256: Option<String>,
    /// Whether it can be used.
    pub ready: bool,
    /// Why it is there no more: the server removes what is old. It can be sent again.
    #[serde(default)]
    pub reason: Option<String>,
    /// When it was announced, RFC 3339.
    pub created_at: String,
}

/// Announces a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewFile {
    /// Its name, with the ending that says what it is, as in `train.csv`.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 in hexadecimal, to be checked when it has arrived.
    #[serde(default)]
    pub sha256: Option<String>,
}

/// A name that runs are kept under.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Experiment {
    /// Its name.
    pub name: String,
    /// What it is about.
    pub description: String,
    /// `ACTIVE`.
    pub status: String,
    /// When it was made, RFC 3339.
    pub created_at: String,
}

/// Makes an experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewExperiment {
    /// Letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// What it is about.
    #[serde(default)]
    pub description: String,
}

/// What a run asks of the machine; it waits until that is free.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// Processors, which are its threads too. 0: as many as the server gives a run.
    pub cpus: u32,
    /// GPUs, which nobody else has meanwhile. 0: one where the server counts its GPUs and `device` is not `cpu`.
    pub gpus: u32,
    /// Memory that the worker's data may take at most, in bytes. 0: no limit.
    pub memory: u64,
    /// Disk that the run's folder (data, checkpoint, model) may take, in bytes; looked at every second. 0: no limit.
    pub disk: u64,
    /// Seconds from the start after which the run is ended with a failure. 0: no limit.
    pub seconds: u64,
}

/// Asks for a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewRun {
    /// Every field of a spec that is not at its default; data fields hold ids of files.
    #[cfg_attr(feature = "server", schema(value_type = Object))]
    pub spec: Map<String, Value>,
    /// Unique in the experiment; made up where not given.
    #[serde(default)]
    pub name: Option<String>,
    /// The experiment, made if need be. Default `default`.
    #[serde(default)]
    pub experiment: Option<String>,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// Higher goes first. Default 0.
    #[serde(default)]
    pub priority: i32,
    /// What it needs.
    #[serde(default)]
    pub resources: Resources,
}

/// What a request asks for must be known; in an answer a later server may tell of more.
fn known_resources<'de, D: Deserializer<'de>>(answer: D) -> Result<Resources, D::Error> {
    let mut fields = Map::deserialize(answer)?;
    let known = serde_json::to_value(Resources::default()).map_err(D::Error::custom)?;
    fields.retain(|name, _| known.get(name).is_some());
    serde_json::from_value(Value::Object(fields)).map_err(D::Error::custom)
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Run {
    /// `run-…`.
    pub id: String,
    /// Unique in its experiment.
    pub name: String,
    /// The experiment's name.
    pub experiment: String,
    /// For people.
    pub description: String,
    /// How far it is.
    pub status: Status,
    /// What it is doing.
    pub phase: Phase,
    /// Why it waits.
    pub reason: Option<String>,
    /// Why it failed.
    pub error: Option<Problem>,
    /// The spec, as asked for.
    #[cfg_attr(feature = "server", schema(value_type = Object))]
    pub spec: Map<String, Value>,
    /// What it asked for.
    #[serde(deserialize_with = "known_resources")]
    pub resources: Resources,
    /// Higher goes first.
    pub priority: i32,
    /// Workers begun for it; more than one where one was lost or the server restarted.
    pub attempts: u32,
    /// Optimiser steps in its last checkpoint.
    pub checkpoint_step: Option<u64>,
    /// The artifact's id, there from the beginning; the artifact is there when the run has finished.
    pub artifact_id: String,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub started_at: Option<String>,
    /// RFC 3339.
    pub finished_at: Option<String>,
}

/// One event of a run. Numbers start at 1 and have no gaps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct RunEvent {
    /// Its number in the run.
    pub sequence: i64,
    /// When it was said, RFC 3339.
    pub time: String,
    /// What was said: `event` is `log`, `progress`, `metric`, `checkpoint` or `state`, beside that one's fields.
    #[serde(flatten)]
    #[cfg_attr(feature = "server", schema(value_type = Object))]
    pub event: Event,
}

/// A value measured at a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Metric {
    /// `train_loss`, `val_loss`, `learning_rate` or an evaluation metric.
    pub name: String,
    /// Optimiser steps done.
    pub step: u64,
    /// The value.
    pub value: f64,
}

/// A checkpoint that was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Checkpoint {
    /// Optimiser steps it contains.
    pub step: u64,
    /// RFC 3339.
    pub created_at: String,
}

/// A file of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct ArtifactFile {
    /// SHA-256 in hexadecimal.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

/// What a run published, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Artifact {
    /// `artifact-…`.
    pub id: String,
    /// The run's id.
    pub run: String,
    /// The attempt whose files these are.
    pub attempt: u32,
    /// Files by their names in the model's folder.
    pub files: BTreeMap<String, ArtifactFile>,
}

/// What a key may do; each may what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Look.
    Read,
    /// Upload, start, cancel, delete.
    Run,
    /// Make and revoke keys.
    Admin,
}

impl Scope {
    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Read => "read",
            Scope::Run => "run",
            Scope::Admin => "admin",
        }
    }

    /// The scope of this name.
    pub fn from_name(name: &str) -> Option<Scope> {
        [Scope::Read, Scope::Run, Scope::Admin].into_iter().find(|scope| scope.name() == name)
    }
}

/// A key, without its secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Key {
    /// `key-…`.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// Whose files and runs it sees.
    pub owner: String,
    /// What it may do.
    pub scope: Scope,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub expires_at: Option<String>,
}

/// Makes a key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// What it is for.
    pub name: String,
    /// Whose files and runs it sees. Default: those of the key that makes it.
    #[serde(default)]
    pub owner: Option<String>,
    /// What it may do.
    pub scope: Scope,
    /// Days until it ends. Default: it does not.
    #[serde(default)]
    pub days: Option<u32>,
}

/// A key with its secret: the only time it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct CreatedKey {
    /// The key.
    #[serde(flatten)]
    pub key: Key,
    /// What to send as `Authorization: Bearer …`.
    pub token: String,
}

/// How somebody may sign in, beside a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Ways {
    /// At an OpenID Connect provider: `/login/openid` leads there.
    pub openid: bool,
}

/// A login that waits for somebody to approve it, as RFC 8628 names its parts.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct DeviceLogin {
    /// What the program asks with; a secret.
    pub device_code: String,
    /// What a person types.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// Where the code is filled in already.
    pub verification_uri_complete: String,
    /// Seconds until both codes end.
    pub expires_in: u64,
    /// Seconds between two questions.
    pub interval: u64,
}

/// Something that went wrong, as a program can read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Problem {
    /// Which problem it is, as in `run_not_found`.
    pub code: String,
    /// Expected and got, and what to do.
    pub message: String,
    /// The field or parameter at fault.
    pub param: Option<String>,
    /// `invalid_request`, `authentication`, `permission`, `not_found`, `conflict`, `limit`, `unavailable`, `run` or
    /// `internal`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// The body of every answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    /// What went wrong.
    pub error: Problem,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_server_may_tell_of_more_and_nobody_may_ask_for_what_is_not_known() {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(deserialize_with = "known_resources")]
            resources: Resources,
        }
        let text = r#"{"resources": {"cpus": 2, "moons": 1}}"#;
        assert_eq!(
            serde_json::from_str::<Answer>(text).unwrap().resources,
            Resources { cpus: 2, ..Resources::default() }
        );
        let asked = serde_json::from_str::<NewRun>(r#"{"spec": {}, "resources": {"moons": 1}}"#).unwrap_err();
        assert!(asked.to_string().contains("unknown field `moons`"), "{asked}");
    }
}
