//! A run's artifact as one zip, made while it is sent: no more than a few pieces of it are ever held.

use std::io::Write;

use axum::Json;
use axum::body::Body as Stream;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{TryStreamExt, stream};
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use utoipa::IntoParams;
use zip::ZipWriter;

use super::Shared;
use super::answer::{Path, Query};
use super::artifacts::find;
use super::caller::Caller;
use crate::client::stored;
use crate::database::{RunRow, now};
use crate::error::{Error, Kind, Result};
use crate::storage::Storage;
use crate::wire::{Artifact, ErrorBody, Link, Scope};

/// Seconds in which a download with a ticket must begin.
const LIFETIME: i64 = 300;

/// Bytes sent at once.
const PIECE: usize = 1 << 16;

/// Pieces that wait to be sent.
const AHEAD: usize = 4;

/// Who may, instead of a key.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Ticket {
    /// As in the address of a link.
    ticket: Option<String>,
}

/// A link to the artifact's zip that needs no key and ends after minutes: for browsers, which save to disk what they get from
/// an address.
#[utoipa::path(
    post, path = "/v1/runs/{run}/artifact/link", tag = "artifacts", params(("run" = String, Path)),
    responses((status = 200, body = Link), (status = "default", body = ErrorBody))
)]
pub(super) async fn link(State(shared): State<Shared>, caller: Caller, Path(run): Path) -> Result<Json<Link>> {
    let key = caller.needs(Scope::Read)?;
    let run = shared.service.database.run(&key.owner, &run).await?;
    find(&shared, &run).await?;
    let until = now() + LIFETIME * 1000;
    let proof = shared.service.pepper.hash(&signed(&run.id, until))?;
    let url = format!("/v1/runs/{}/artifact.zip?ticket={until}.{proof}", run.id);
    Ok(Json(Link { url, expires_in: LIFETIME as u64 }))
}

/// Every file of a finished run in one zip, stored as they are, in a folder of the run's name.
#[utoipa::path(
    get, path = "/v1/runs/{run}/artifact.zip", tag = "artifacts", params(("run" = String, Path), Ticket),
    responses((status = 200, body = Vec<u8>, content_type = "application/zip"), (status = "default", body = ErrorBody))
)]
pub(super) async fn download(
    State(shared): State<Shared>,
    caller: Result<Caller>,
    Path(run): Path,
    Query(ticket): Query<Ticket>,
) -> Result<Response> {
    let run = match ticket.ticket {
        Some(ticket) => with_ticket(&shared, &run, &ticket).await?,
        None => {
            let key = caller?.needs(Scope::Read)?;
            shared.service.database.run(&key.owner, &run).await?
        }
    };
    let artifact = find(&shared, &run).await?;
    let (sender, receiver) = mpsc::channel(AHEAD);
    let (storage, name, runtime) = (shared.service.storage.clone(), run.name.clone(), Handle::current());
    tokio::task::spawn_blocking(move || {
        let pipe = Pipe { piece: Vec::with_capacity(PIECE), sender: sender.clone() };
        if let Err(error) = write(&runtime, &storage, &artifact, &name, pipe) {
            tracing::warn!(run = %artifact.run, %error, "a download broke off");
            // Breaks the connection off: half a zip must not look like a whole one.
            let _ = sender.blocking_send(Err(std::io::Error::other(error.to_string())));
        }
    });
    let pieces = stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
    let headers = [
        (header::CONTENT_TYPE, "application/zip".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}.zip\"", run.name)),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    Ok((headers, Stream::from_stream(pieces)).into_response())
}

/// The run that a ticket is for.
async fn with_ticket(shared: &Shared, run: &str, ticket: &str) -> Result<RunRow> {
    let wrong = || {
        let message = "this link has ended or is for another run; make a new one";
        Error::refused(Kind::Authentication, "ticket_wrong", message)
    };
    let (until, proof) = ticket.split_once('.').ok_or_else(wrong)?;
    let until: i64 = until.parse().map_err(|_| wrong())?;
    if until < now() || !shared.service.pepper.matches(&signed(run, until), proof)? {
        return Err(wrong());
    }
    shared.service.database.any_run(run).await?.ok_or_else(wrong)
}

/// What a ticket proves; no key begins like this.
fn signed(run: &str, until: i64) -> String {
    format!("download {run} until {until}")
}

/// Writes the zip, waiting wherever the caller is slower.
fn write(runtime: &Handle, storage: &Storage, artifact: &Artifact, folder: &str, pipe: Pipe) -> Result<()> {
    let broken = |error: std::io::Error| Error::Internal(error.to_string());
    let refused = |error: zip::result::ZipError| Error::Internal(error.to_string());
    let mut zip = ZipWriter::new_stream(pipe);
    for (name, file) in &artifact.files {
        // Weights do not pack.
        zip.start_file(format!("{folder}/{name}"), stored(file.bytes)).map_err(refused)?;
        let mut stream = runtime.block_on(storage.open_file(artifact, name, None))?.into_stream();
        while let Some(chunk) = runtime.block_on(stream.try_next())? {
            zip.write_all(&chunk).map_err(broken)?;
        }
    }
    let mut pipe = zip.finish().map_err(refused)?.into_inner();
    pipe.flush().map_err(broken)
}

/// Hands what is written over in pieces.
struct Pipe {
    piece: Vec<u8>,
    sender: mpsc::Sender<std::io::Result<Bytes>>,
}

impl Write for Pipe {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let taken = buffer.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&buffer[..taken]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if !self.piece.is_empty() {
            let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
            let gone = |_| std::io::Error::new(std::io::ErrorKind::BrokenPipe, "nobody reads any more");
            self.sender.blocking_send(Ok(piece.into())).map_err(gone)?;
        }
        Ok(())
    }
}
