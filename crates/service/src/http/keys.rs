//! Keys.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Body, Path, Query, limit};
use super::caller::Caller;
use super::experiments::Part;
use super::{Shared, page};
use crate::error::{Error, Result};
use crate::request::check_name;
use crate::wire::{CreatedKey, ErrorBody, Key, NewKey, Page, Scope};

/// Who the caller is.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Current {
    /// The key's id.
    id: String,
    /// Whose files and runs it sees.
    owner: String,
    /// What it may do.
    scope: Scope,
}

/// Makes a key. Its token is in this answer and nowhere else.
#[utoipa::path(
    post, path = "/v1/keys", tag = "keys", request_body = NewKey,
    responses((status = 201, body = CreatedKey), (status = "default", body = ErrorBody))
)]
pub(super) async fn create(
    State(shared): State<Shared>,
    caller: Caller,
    body: Body<NewKey>,
) -> Result<(StatusCode, Json<CreatedKey>)> {
    let (key, new) = (caller.needs(Scope::Admin)?, body.value);
    check_name("name", &new.name)?;
    let owner = new.owner.clone().unwrap_or(key.owner);
    check_name("owner", &owner)?;
    if new.days == Some(0) {
        return Err(Error::invalid("days", "expected 1 or more; leave it out for a key that does not end"));
    }
    let minted = shared.service.pepper.mint()?;
    let key = shared.service.database.add_key(&minted, &new, &owner).await?;
    Ok((StatusCode::CREATED, Json(CreatedKey { key, token: minted.token.0 })))
}

/// Lists keys, oldest first, without their tokens.
#[utoipa::path(
    get, path = "/v1/keys", tag = "keys", params(Part),
    responses((status = 200, body = Page<Key>), (status = "default", body = ErrorBody))
)]
pub(super) async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Query(part): Query<Part>,
) -> Result<Json<Page<Key>>> {
    caller.needs(Scope::Admin)?;
    let limit = limit(part.limit)?;
    let keys = shared.service.database.keys(&part.after.unwrap_or_default(), limit + 1).await?;
    Ok(Json(page(keys, limit, |key| key.id.clone())))
}

/// The key that this request came with.
#[utoipa::path(
    get, path = "/v1/keys/current", tag = "keys",
    responses((status = 200, body = Current), (status = "default", body = ErrorBody))
)]
pub(super) async fn current(caller: Caller) -> Result<Json<Current>> {
    let key = caller.needs(Scope::Read)?;
    Ok(Json(Current { id: key.id, owner: key.owner, scope: key.scope }))
}

/// Ends a key.
#[utoipa::path(
    delete, path = "/v1/keys/{id}", tag = "keys", params(("id" = String, Path)),
    responses((status = 204), (status = "default", body = ErrorBody))
)]
pub(super) async fn revoke(State(shared): State<Shared>, caller: Caller, Path(id): Path) -> Result<StatusCode> {
    caller.needs(Scope::Admin)?;
    shared.service.database.revoke_key(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}
