//! Uploaded data looked over before a run, and what a run can be told.

use axum::Json;
use axum::extract::State;
use finetuner::spec::RunSpec;
use serde_json::{Map, Value};

use super::Shared;
use super::answer::Body;
use super::caller::Caller;
use crate::database::FileRow;
use crate::error::{Error, Kind, Result};
use crate::request;
use crate::service::Service;
use crate::wire::{ErrorBody, Inspection, NewInspection, NewRun, Resources, Scope, SpecField};

/// Looks uploaded data over: what it is taken for, its first rows, what in it could mislead, and what could be done with it.
/// Takes seconds to minutes; one is answered at a time.
#[utoipa::path(
    post, path = "/v1/inspections", tag = "files", request_body = NewInspection,
    responses((status = 200, body = Inspection), (status = "default", body = ErrorBody))
)]
pub(super) async fn create(
    State(shared): State<Shared>,
    caller: Caller,
    body: Body<NewInspection>,
) -> Result<Json<Inspection>> {
    let key = caller.needs(Scope::Run)?;
    let service = &shared.service;
    let fields = serde_json::to_value(&body.value).map_err(|error| Error::Internal(error.to_string()))?;
    let Value::Object(spec) = fields else { return Err(Error::Internal("an inspection is no object".into())) };
    // The same rules as for a run: nothing names a file of the server.
    let asked = request::check(run_of(spec), &key, &service.settings)?;
    let files = files(service, &key.owner, &asked.files).await?;
    Ok(Json(service.inquiries.inspect(&asked.spec, &files).await?))
}

/// Every field of a spec, with its default and what it means.
#[utoipa::path(
    get, path = "/v1/fields", tag = "runs",
    responses((status = 200, body = Vec<SpecField>), (status = "default", body = ErrorBody))
)]
pub(super) async fn fields(caller: Caller) -> Result<Json<Vec<SpecField>>> {
    caller.needs(Scope::Read)?;
    let defaults = serde_json::to_value(RunSpec::default()).unwrap_or_default();
    let fields = RunSpec::FIELDS.iter().map(|field| SpecField {
        name: field.name.into(),
        kind: field.value.to_string(),
        default: defaults.get(field.name).filter(|_| field.default().is_some()).cloned(),
        description: field.doc.into(),
    });
    Ok(Json(fields.collect()))
}

/// The files of these ids, all of them whole.
async fn files(service: &Service, owner: &str, ids: &[String]) -> Result<Vec<FileRow>> {
    let mut files = Vec::new();
    for id in ids {
        let file = service.database.file(owner, id).await?;
        if !file.ready {
            let message = format!("file `{id}` has not arrived as a whole; send the rest of it first");
            return Err(Error::refused(Kind::Conflict, "file_not_whole", message));
        }
        files.push(file);
    }
    Ok(files)
}

fn run_of(spec: Map<String, Value>) -> NewRun {
    NewRun {
        spec,
        name: None,
        experiment: None,
        description: String::new(),
        priority: 0,
        resources: Resources::default(),
    }
}
