//! Experiments.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::answer::{Body, Path, Query, limit};
use super::caller::Caller;
use super::{Shared, page};
use crate::error::Result;
use crate::request::check_name;
use crate::wire::{ErrorBody, Experiment, NewExperiment, Page, Scope};

/// Which part of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    /// The cursor: `next` of the page before.
    pub(super) after: Option<String>,
    /// Items of a page, at most 100.
    pub(super) limit: Option<i64>,
}

/// Makes an experiment.
#[utoipa::path(
    post, path = "/v1/experiments", tag = "experiments", request_body = NewExperiment,
    responses((status = 201, body = Experiment), (status = "default", body = ErrorBody))
)]
pub(super) async fn create(
    State(shared): State<Shared>,
    caller: Caller,
    body: Body<NewExperiment>,
) -> Result<(StatusCode, Json<Experiment>)> {
    let key = caller.needs(Scope::Run)?;
    check_name("name", &body.value.name)?;
    Ok((StatusCode::CREATED, Json(shared.service.database.add_experiment(&key.owner, &body.value).await?)))
}

/// Lists experiments by name.
#[utoipa::path(
    get, path = "/v1/experiments", tag = "experiments", params(Part),
    responses((status = 200, body = Page<Experiment>), (status = "default", body = ErrorBody))
)]
pub(super) async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Query(part): Query<Part>,
) -> Result<Json<Page<Experiment>>> {
    let key = caller.needs(Scope::Read)?;
    let limit = limit(part.limit)?;
    let after = part.after.unwrap_or_default();
    let experiments = shared.service.database.experiments(&key.owner, &after, limit + 1).await?;
    Ok(Json(page(experiments, limit, |experiment| experiment.name.clone())))
}

/// One experiment.
#[utoipa::path(
    get, path = "/v1/experiments/{name}", tag = "experiments", params(("name" = String, Path)),
    responses((status = 200, body = Experiment), (status = "default", body = ErrorBody))
)]
pub(super) async fn get(State(shared): State<Shared>, caller: Caller, Path(name): Path) -> Result<Json<Experiment>> {
    let key = caller.needs(Scope::Read)?;
    Ok(Json(shared.service.database.experiment(&key.owner, &name).await?))
}

/// Removes an experiment without runs.
#[utoipa::path(
    delete, path = "/v1/experiments/{name}", tag = "experiments", params(("name" = String, Path)),
    responses((status = 204), (status = "default", body = ErrorBody))
)]
pub(super) async fn delete(State(shared): State<Shared>, caller: Caller, Path(name): Path) -> Result<StatusCode> {
    let key = caller.needs(Scope::Run)?;
    shared.service.database.delete_experiment(&key.owner, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
