//! Files: announced, then sent in as many pieces as it takes.

use axum::Json;
use axum::body::Body as Stream;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use futures_util::StreamExt;
use serde::Deserialize;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use utoipa::IntoParams;

use super::answer::{Body, Path, Query, limit};
use super::caller::Caller;
use super::{Shared, page};
use crate::database::{FileRow, rfc3339};
use crate::error::{Error, Kind, Result};
use crate::request::check_file_name;
use crate::storage::checksum;
use crate::wire::{ErrorBody, File, NewFile, Page, Scope};

/// Where a piece begins.
const OFFSET: &str = "upload-offset";

/// Which files.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// Only files with this SHA-256.
    sha256: Option<String>,
    /// The cursor: `next` of the page before.
    after: Option<String>,
    /// Items of a page, at most 100.
    limit: Option<i64>,
}

/// Announces a file; its bytes follow with PATCH.
#[utoipa::path(
    post, path = "/v1/files", tag = "files", request_body = NewFile,
    responses((status = 201, body = File), (status = "default", body = ErrorBody))
)]
pub(super) async fn create(
    State(shared): State<Shared>,
    caller: Caller,
    body: Body<NewFile>,
) -> Result<(StatusCode, Json<File>)> {
    let (key, mut new) = (caller.needs(Scope::Run)?, body.value);
    let service = &shared.service;
    check_file_name(&new.name)?;
    let largest = service.settings.max_file_bytes;
    if new.bytes > largest {
        let message = format!("{} bytes are more than the {largest} that this server takes", new.bytes);
        return Err(Error::refused(Kind::TooLarge, "file_too_large", message));
    }
    if let Some(sha256) = &mut new.sha256 {
        sha256.make_ascii_lowercase();
        if sha256.len() != 64 || !sha256.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(Error::invalid("sha256", "expected 64 hexadecimal digits"));
        }
    }
    let file = service.database.add_file(&key.owner, &new).await?;
    let path = service.storage.upload(&file.id);
    tokio::fs::File::create(&path).await.map_err(Error::io("create", &path))?;
    if file.bytes == 0 {
        finish(&shared, &file).await?;
    }
    let file = service.database.file(&key.owner, &file.id).await?;
    Ok((StatusCode::CREATED, Json(wire(&shared, file).await?)))
}

/// Lists files, newest first.
#[utoipa::path(
    get, path = "/v1/files", tag = "files", params(Which),
    responses((status = 200, body = Page<File>), (status = "default", body = ErrorBody))
)]
pub(super) async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Query(which): Query<Which>,
) -> Result<Json<Page<File>>> {
    let key = caller.needs(Scope::Read)?;
    let limit = limit(which.limit)?;
    let after = which.after.unwrap_or_default();
    let rows = shared.service.database.files(&key.owner, which.sha256.as_deref(), &after, limit + 1).await?;
    let mut files = Vec::new();
    for row in rows {
        files.push(wire(&shared, row).await?);
    }
    Ok(Json(page(files, limit, |file| file.id.clone())))
}

/// Says how much of a file has arrived.
#[utoipa::path(
    get, path = "/v1/files/{id}", tag = "files", params(("id" = String, Path)),
    responses((status = 200, body = File), (status = "default", body = ErrorBody))
)]
pub(super) async fn get(State(shared): State<Shared>, caller: Caller, Path(id): Path) -> Result<Json<File>> {
    let key = caller.needs(Scope::Read)?;
    let file = shared.service.database.file(&key.owner, &id).await?;
    Ok(Json(wire(&shared, file).await?))
}

/// Sends the next piece of a file, beginning at `Upload-Offset`; what arrives of it stays, even if the rest does not.
#[utoipa::path(
    patch, path = "/v1/files/{id}", tag = "files",
    params(("id" = String, Path), ("upload-offset" = u64, Header, description = "What has been received so far")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = File), (status = "default", body = ErrorBody))
)]
pub(super) async fn append(
    State(shared): State<Shared>,
    caller: Caller,
    Path(id): Path,
    headers: HeaderMap,
    body: Stream,
) -> Result<Json<File>> {
    let key = caller.needs(Scope::Run)?;
    let service = &shared.service;
    let file = service.database.file(&key.owner, &id).await?;
    if file.ready {
        return Err(Error::refused(
            Kind::Conflict,
            "file_whole",
            format!("file `{id}` has arrived as a whole already"),
        ));
    }
    let asked = headers.get(OFFSET).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let asked = asked.ok_or_else(|| Error::invalid("Upload-Offset", "expected the number of bytes sent before"))?;
    let path = service.storage.upload(&id);
    let out = tokio::fs::OpenOptions::new().append(true).create(true).open(&path).await;
    let out = out.map_err(Error::io("open", &path))?.into_std().await;
    // Two pieces at once would mix.
    if out.try_lock().is_err() {
        return Err(Error::refused(
            Kind::Conflict,
            "file_busy",
            "another piece of this file is being sent; wait for it",
        ));
    }
    let mut received = out.metadata().map_err(Error::io("read", &path))?.len();
    if asked != received {
        let message = format!("{received} bytes have arrived, so the next piece begins there and not at {asked}");
        return Err(Error::Refused {
            kind: Kind::Conflict,
            code: "wrong_offset",
            param: Some("Upload-Offset".into()),
            message,
        });
    }
    let mut out = tokio::fs::File::from_std(out);
    let mut pieces = body.into_data_stream();
    let patience = Duration::from_secs(service.settings.request_seconds);
    loop {
        let piece = tokio::time::timeout(patience, pieces.next()).await;
        let too_slow = || format!("no bytes came for {} seconds", patience.as_secs());
        let Some(piece) = piece.map_err(|_| cut_off(Kind::TooSlow, &too_slow()))? else { break };
        let piece = piece.map_err(|error| cut_off(Kind::Request, &error.to_string()))?;
        received += piece.len() as u64;
        if received > file.bytes {
            return Err(Error::refused(
                Kind::TooLarge,
                "file_longer",
                format!("more came than the {} bytes that were announced; announce the file anew", file.bytes),
            ));
        }
        out.write_all(&piece).await.map_err(Error::io("write", &path))?;
        out.flush().await.map_err(Error::io("write", &path))?;
    }
    if received == file.bytes {
        out.sync_all().await.map_err(Error::io("write", &path))?;
        finish(&shared, &file).await?;
    }
    drop(out);
    let file = service.database.file(&key.owner, &id).await?;
    Ok(Json(wire(&shared, file).await?))
}

/// Removes a file that no run uses.
#[utoipa::path(
    delete, path = "/v1/files/{id}", tag = "files", params(("id" = String, Path)),
    responses((status = 204), (status = "default", body = ErrorBody))
)]
pub(super) async fn delete(State(shared): State<Shared>, caller: Caller, Path(id): Path) -> Result<StatusCode> {
    let key = caller.needs(Scope::Run)?;
    shared.service.database.delete_file(&key.owner, &id).await?;
    shared.service.storage.remove_file(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Checks a file that has arrived and keeps it; one that is not what was announced has to come again.
async fn finish(shared: &Shared, file: &FileRow) -> Result<()> {
    let storage = &shared.service.storage;
    let path = storage.upload(&file.id);
    let found = checksum(path.clone()).await?;
    if let Some(announced) = file.sha256.as_ref().filter(|announced| **announced != found.sha256) {
        tokio::fs::File::create(&path).await.map_err(Error::io("empty", &path))?;
        return Err(Error::Refused {
            kind: Kind::Invalid,
            code: "checksum_differs",
            param: Some("sha256".into()),
            message: format!(
                "the bytes that arrived have the checksum {}, announced was {announced}; send the file again from its \
                 beginning",
                found.sha256
            ),
        });
    }
    storage.keep(&file.id).await?;
    shared.service.database.file_is_ready(&file.id, &found.sha256).await
}

fn cut_off(kind: Kind, reason: &str) -> Error {
    let message = format!("the piece was cut off ({reason}); ask for the file and go on from `received`");
    Error::refused(kind, "piece_cut_off", message)
}

async fn wire(shared: &Shared, file: FileRow) -> Result<File> {
    let received = if file.ready {
        file.bytes
    } else {
        let path = shared.service.storage.upload(&file.id);
        tokio::fs::metadata(&path).await.map_or(0, |found| found.len())
    };
    Ok(File {
        id: file.id,
        name: file.name,
        bytes: file.bytes,
        received,
        sha256: file.sha256,
        ready: file.ready,
        reason: file.reason,
        created_at: rfc3339(file.created_at),
    })
}
