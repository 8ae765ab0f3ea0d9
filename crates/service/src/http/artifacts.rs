//! What a run published.

use axum::Json;
use axum::body::Body as Stream;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Shared;
use super::answer::Path;
use super::caller::Caller;
use crate::database::RunRow;
use crate::error::{Error, Kind, Result};
use crate::status::Status;
use crate::wire::{Artifact, ErrorBody, Scope};

/// The files of a finished run, with their checksums.
#[utoipa::path(
    get, path = "/v1/runs/{run}/artifact", tag = "artifacts", params(("run" = String, Path)),
    responses((status = 200, body = Artifact), (status = "default", body = ErrorBody))
)]
pub(super) async fn get(State(shared): State<Shared>, caller: Caller, Path(run): Path) -> Result<Json<Artifact>> {
    let key = caller.needs(Scope::Read)?;
    let run = shared.service.database.run(&key.owner, &run).await?;
    Ok(Json(find(&shared, &run).await?))
}

/// One file of a finished run; `Range: bytes=N-` goes on with a download.
#[utoipa::path(
    get, path = "/v1/runs/{run}/artifact/files/{*name}", tag = "artifacts",
    params(("run" = String, Path), ("name" = String, Path)),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, description = "The rest of the file"),
        (status = 304, description = "The file is that of `If-None-Match`"),
        (status = "default", body = ErrorBody)
    )
)]
pub(super) async fn file(
    State(shared): State<Shared>,
    caller: Caller,
    path: axum::extract::Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response> {
    let key = caller.needs(Scope::Read)?;
    let (run, name) = path.0;
    let run = shared.service.database.run(&key.owner, &run).await?;
    let artifact = find(&shared, &run).await?;
    // Only names of the manifest: no other object can be asked for.
    let file = artifact.files.get(&name).ok_or_else(|| Error::not_found("artifact_file_not_found", "file", &name))?;
    let tag = format!("\"{}\"", file.sha256);
    let given = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if given(header::IF_NONE_MATCH).is_some_and(|tags| tags.contains(&tag)) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let start = given(header::RANGE).and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let start: u64 = start.filter(|start| *start < file.bytes).unwrap_or(0);
    let range = (start > 0).then_some(start..file.bytes);
    let found = shared.service.storage.open_file(&artifact, &name, range).await?;
    let status = if start > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let mut response = (
        status,
        [
            (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
            (header::CONTENT_LENGTH, (file.bytes - start).to_string()),
            (header::ETAG, tag),
            (header::ACCEPT_RANGES, "bytes".to_owned()),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        ],
        Stream::from_stream(found.into_stream()),
    )
        .into_response();
    if start > 0 {
        let range = format!("bytes {start}-{}/{}", file.bytes - 1, file.bytes);
        if let Ok(range) = range.parse() {
            response.headers_mut().insert(header::CONTENT_RANGE, range);
        }
    }
    Ok(response)
}

pub(super) async fn find(shared: &Shared, run: &RunRow) -> Result<Artifact> {
    let artifact = shared.service.database.artifact(&run.id).await?;
    artifact.ok_or_else(|| {
        if let Some(reason) = run.reason.as_ref().filter(|_| run.status == Status::Finished) {
            return Error::refused(
                Kind::Gone,
                "artifact_removed",
                format!("the artifact of `{}` was {reason}", run.name),
            );
        }
        let message = format!("run `{}` is {}; its artifact is there once it is FINISHED", run.name, run.status.name());
        Error::refused(Kind::Conflict, "run_not_finished", message)
    })
}
