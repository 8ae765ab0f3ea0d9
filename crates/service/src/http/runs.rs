//! Runs.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use utoipa::IntoParams;

use super::answer::{Body, Path, Query, limit};
use super::caller::Caller;
use super::{Shared, page};
use crate::database::{Repeat, RunFilter};
use crate::error::{Error, Kind, Result};
use crate::key::hexadecimal;
use crate::request;
use crate::status::Status;
use crate::wire::{ErrorBody, NewRun, Page, Run, Scope};

/// What makes a request that is sent again the same one.
const IDEMPOTENCY: &str = "idempotency-key";

/// Which runs.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// Only runs of this experiment.
    experiment: Option<String>,
    /// Only the run of this name.
    name: Option<String>,
    /// Only runs in this status.
    status: Option<Status>,
    /// The cursor: `next` of the page before.
    after: Option<String>,
    /// Items of a page, at most 100.
    limit: Option<i64>,
}

/// Accepts a run. With an `Idempotency-Key` it may be sent again until an answer arrives: it is one run.
#[utoipa::path(
    post, path = "/v1/runs", tag = "runs", request_body = NewRun,
    params(("idempotency-key" = Option<String>, Header, description = "Made by the caller, the same for every repetition")),
    responses((status = 201, body = Run), (status = "default", body = ErrorBody))
)]
pub(super) async fn create(
    State(shared): State<Shared>,
    caller: Caller,
    headers: HeaderMap,
    body: Body<NewRun>,
) -> Result<Response> {
    let key = caller.needs(Scope::Run)?;
    let service = &shared.service;
    if service.draining.is_cancelled() {
        return Err(Error::refused(
            Kind::Unavailable,
            "going_down",
            "the server is going down; try again when it is back",
        ));
    }
    let repeat = headers.get(IDEMPOTENCY).map(|token| {
        let token = token.to_str().ok().filter(|token| (1..=200).contains(&token.len()));
        let token = token.ok_or_else(|| Error::invalid("Idempotency-Key", "expected 1 to 200 plain characters"))?;
        let fingerprint = hexadecimal(&Sha256::digest(&body.bytes));
        Ok::<_, Error>(Repeat { owner: key.owner.clone(), token: token.to_owned(), fingerprint })
    });
    let new = request::check(body.value, &key, &service.settings)?;
    let answer = service.database.accept(&new, repeat.transpose()?.as_ref()).await?;
    service.wake.notify_one();
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::CREATED);
    Ok((status, [(header::CONTENT_TYPE, "application/json")], answer.body).into_response())
}

/// Lists runs, newest first.
#[utoipa::path(
    get, path = "/v1/runs", tag = "runs", params(Which),
    responses((status = 200, body = Page<Run>), (status = "default", body = ErrorBody))
)]
pub(super) async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Query(which): Query<Which>,
) -> Result<Json<Page<Run>>> {
    let key = caller.needs(Scope::Read)?;
    let limit = limit(which.limit)?;
    let filter =
        RunFilter { experiment: which.experiment.as_deref(), name: which.name.as_deref(), status: which.status };
    let after = which.after.unwrap_or_default();
    let runs = shared.service.database.runs(&key.owner, &filter, &after, limit + 1).await?;
    let runs = runs.iter().map(|run| run.wire()).collect();
    Ok(Json(page(runs, limit, |run: &Run| run.id.clone())))
}

/// One run, by its id or name.
#[utoipa::path(
    get, path = "/v1/runs/{run}", tag = "runs", params(("run" = String, Path)),
    responses((status = 200, body = Run), (status = "default", body = ErrorBody))
)]
pub(super) async fn get(State(shared): State<Shared>, caller: Caller, Path(run): Path) -> Result<Json<Run>> {
    let key = caller.needs(Scope::Read)?;
    Ok(Json(shared.service.database.run(&key.owner, &run).await?.wire()))
}

/// Ends a run: its worker saves a checkpoint and stops. One that has ended already stays as it is.
#[utoipa::path(
    post, path = "/v1/runs/{run}/cancel", tag = "runs", params(("run" = String, Path)),
    responses((status = 202, body = Run), (status = "default", body = ErrorBody))
)]
pub(super) async fn cancel(
    State(shared): State<Shared>,
    caller: Caller,
    Path(run): Path,
) -> Result<(StatusCode, Json<Run>)> {
    let key = caller.needs(Scope::Run)?;
    let service = &shared.service;
    let run = service.database.run(&key.owner, &run).await?;
    service.database.ask_to_cancel(&run.id).await?;
    service.wake.notify_one();
    Ok((StatusCode::ACCEPTED, Json(service.database.run(&key.owner, &run.id).await?.wire())))
}

/// Removes a run that has ended, with its artifact and everything that is known of it.
#[utoipa::path(
    delete, path = "/v1/runs/{run}", tag = "runs", params(("run" = String, Path)),
    responses((status = 204), (status = "default", body = ErrorBody))
)]
pub(super) async fn delete(State(shared): State<Shared>, caller: Caller, Path(run): Path) -> Result<StatusCode> {
    let key = caller.needs(Scope::Run)?;
    let service = &shared.service;
    let run = service.database.run(&key.owner, &run).await?;
    service.database.delete_run(&run).await?;
    service.storage.remove_run(&run.id, None).await?;
    service.runner.clean(&run.id, false).await?;
    Ok(StatusCode::NO_CONTENT)
}
