//! What came of a run, to look at and to try.

use axum::Json;
use axum::extract::State;

use super::Shared;
use super::answer::{Body, Path};
use super::artifacts::find;
use super::caller::Caller;
use crate::error::{Error, Result};
use crate::wire::{ErrorBody, Found, NewSearch, Samples, Scope};

/// Hits of a search.
const MOST_HITS: usize = 50;

/// Texts that may be searched in place of the run's documents.
const MOST_TEXTS: usize = 1000;

/// Letters of a query.
const MOST_LETTERS: usize = 10_000;

/// Sample queries before and after: those that gained most, that lost most, and some that stayed.
#[utoipa::path(
    get, path = "/v1/runs/{run}/examples", tag = "artifacts", params(("run" = String, Path)),
    responses((status = 200, body = Samples), (status = "default", body = ErrorBody))
)]
pub(super) async fn examples(State(shared): State<Shared>, caller: Caller, Path(run): Path) -> Result<Json<Samples>> {
    let key = caller.needs(Scope::Read)?;
    let run = shared.service.database.run(&key.owner, &run).await?;
    let artifact = find(&shared, &run).await?;
    let name = "samples.json";
    if !artifact.files.contains_key(name) {
        return Ok(Json(Samples { data: Vec::new() }));
    }
    let text = shared.service.storage.open_file(&artifact, name, None).await?.bytes().await?;
    let data = serde_json::from_slice(&text);
    let data = data.map_err(|error| Error::Internal(format!("the samples of {} are damaged: {error}", run.id)))?;
    Ok(Json(Samples { data }))
}

/// Searches with the model that a finished run started from and with the one that came of it. The first search of a run opens
/// both and embeds what is searched; one is answered at a time.
#[utoipa::path(
    post, path = "/v1/runs/{run}/search", tag = "artifacts", params(("run" = String, Path)), request_body = NewSearch,
    responses((status = 200, body = Found), (status = "default", body = ErrorBody))
)]
pub(super) async fn search(
    State(shared): State<Shared>,
    caller: Caller,
    Path(run): Path,
    body: Body<NewSearch>,
) -> Result<Json<Found>> {
    let key = caller.needs(Scope::Run)?;
    let service = &shared.service;
    let run = service.database.run(&key.owner, &run).await?;
    let search = checked(body.value)?;
    let artifact = find(&shared, &run).await?;
    let files = service.database.run_files(&run.id).await?;
    Ok(Json(service.inquiries.search(&artifact, &run.spec, &files, search).await?))
}

fn checked(mut search: NewSearch) -> Result<NewSearch> {
    search.query = search.query.map(|query| query.trim().to_owned());
    match (&search.query, search.like) {
        (Some(query), None) if query.is_empty() => return Err(Error::invalid("query", "expected a text, got none")),
        (Some(query), None) if query.chars().count() > MOST_LETTERS => {
            return Err(Error::invalid("query", format!("expected at most {MOST_LETTERS} letters")));
        }
        (Some(_), None) | (None, Some(_)) => {}
        _ => return Err(Error::invalid("query", "expected a text, or the number of a document in `like`")),
    }
    if !(1..=MOST_HITS).contains(&search.k) {
        return Err(Error::invalid("k", format!("expected 1 to {MOST_HITS}, got {}", search.k)));
    }
    if let Some(texts) = &search.texts {
        if texts.is_empty() || texts.len() > MOST_TEXTS {
            return Err(Error::invalid("texts", format!("expected 1 to {MOST_TEXTS} texts, got {}", texts.len())));
        }
        if let Some(place) = texts.iter().position(|text| text.trim().is_empty()) {
            return Err(Error::invalid(format!("texts[{place}]"), "expected a text, got none"));
        }
    }
    Ok(search)
}
