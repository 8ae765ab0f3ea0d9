//! What a run says: events as a stream or in pages, logs as text, metrics, checkpoints.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::Body as Stream;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use finetuner::event::{Event, Level};
use futures_util::stream::{self, StreamExt};
use serde::Deserialize;
use tokio::sync::watch;
use utoipa::IntoParams;

use super::answer::{Path, Query, limit};
use super::caller::Caller;
use super::experiments::Part;
use super::{Shared, page};
use crate::error::{Error, Kind, Result};
use crate::feed::Batch;
use crate::wire::{Checkpoint, ErrorBody, Metric, Page, RunEvent, Scope};

/// Events read at once.
const BATCH: i64 = 50;

/// Proxies close what is silent for longer than this; another server's events are seen as late as this.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct After {
    /// The number of the last event that is known. `Last-Event-ID` says the same.
    after: Option<i64>,
    /// Events of a page, at most 100; a stream has no end before the run's.
    limit: Option<i64>,
}

/// Which metrics.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct WhichMetrics {
    /// Only this one.
    name: Option<String>,
    /// The cursor: `next` of the page before.
    after: Option<String>,
    /// Items of a page, at most 100.
    limit: Option<i64>,
}

/// A run's events in order, without gaps: with `Accept: text/event-stream` as they come, until the run has ended, else a
/// page. A stream of a run that has ended and said everything answers 204.
#[utoipa::path(
    get, path = "/v1/runs/{run}/events", tag = "runs",
    params(("run" = String, Path), After, ("last-event-id" = Option<i64>, Header)),
    responses(
        (status = 200, content((Page<RunEvent> = "application/json"), (String = "text/event-stream"))),
        (status = 204, description = "The run has ended and nothing comes after that event"),
        (status = "default", body = ErrorBody)
    )
)]
pub(super) async fn events(
    State(shared): State<Shared>,
    caller: Caller,
    Path(run): Path,
    Query(which): Query<After>,
    headers: HeaderMap,
) -> Result<Response> {
    let key = caller.needs(Scope::Read)?;
    let database = &shared.service.database;
    let run = database.run(&key.owner, &run).await?;
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let last = match header("last-event-id") {
        Some(id) => Some(id.parse::<i64>().map_err(|_| Error::Refused {
            kind: Kind::Request,
            code: "invalid_event_id",
            param: Some("Last-Event-ID".into()),
            message: format!("expected the number of an event, got `{id}`"),
        })?),
        None => None,
    };
    let after = last.or(which.after).unwrap_or(0).max(0);
    if !header("accept").is_some_and(|accept| accept.contains("text/event-stream")) {
        let limit = limit(which.limit)?;
        let events = database.events(&run.id, after, limit + 1).await?;
        return Ok(Json(page(events, limit, |event| event.sequence.to_string())).into_response());
    }
    if run.status.is_final() && after >= run.last_event {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let watch = shared.service.feed.subscribe(&run.id, run.last_event);
    let following = Following { shared: shared.clone(), run: run.id, after, watch, behind: true, ended: false };
    let stream = stream::unfold(following, Following::next).map(Ok::<_, Infallible>);
    let first = stream::iter([Ok(Bytes::from_static(b"retry: 2000\n\n"))]);
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    Ok((headers, Stream::from_stream(first.chain(stream))).into_response())
}

/// Somebody who follows a run.
struct Following {
    shared: Shared,
    run: String,
    after: i64,
    watch: watch::Receiver<i64>,
    /// Whether the database may have more than was told.
    behind: bool,
    ended: bool,
}

impl Following {
    /// The next events, as soon as there are some; `None` after the run's last one, or when the server goes down.
    async fn next(mut self) -> Option<(Bytes, Self)> {
        let service = self.shared.service.clone();
        while !self.ended {
            if self.behind || self.after < *self.watch.borrow_and_update() {
                let told = service.feed.batch(&self.run, self.after + 1);
                let batch = match &told {
                    Some(_) => told.clone(),
                    // The stream ends early where the database fails; whoever follows comes back with the last number.
                    None => Batch::of(&service.database.events(&self.run, self.after, BATCH).await.ok()?),
                };
                self.behind = told.is_none() && batch.is_some();
                if let Some(batch) = batch {
                    (self.after, self.ended) = (batch.last, batch.ended);
                    return Some((batch.text, self));
                }
            }
            tokio::select! {
                changed = self.watch.changed() => changed.ok()?,
                () = service.draining.cancelled() => return None,
                () = tokio::time::sleep(KEEP_ALIVE) => {
                    self.behind = true;
                    return Some((Bytes::from_static(b":\n\n"), self));
                }
            }
        }
        None
    }
}

/// What a run said for people, a line each.
#[utoipa::path(
    get, path = "/v1/runs/{run}/logs", tag = "runs", params(("run" = String, Path)),
    responses((status = 200, body = String, content_type = "text/plain"), (status = "default", body = ErrorBody))
)]
pub(super) async fn logs(State(shared): State<Shared>, caller: Caller, Path(run): Path) -> Result<Response> {
    let key = caller.needs(Scope::Read)?;
    let run = shared.service.database.run(&key.owner, &run).await?;
    let stream = stream::try_unfold(0, move |after| {
        let (shared, run) = (shared.clone(), run.id.clone());
        async move {
            let events = shared.service.database.events(&run, after, BATCH).await?;
            let Some(last) = events.last().map(|event| event.sequence) else { return Ok::<_, Error>(None) };
            Ok(Some((events.iter().filter_map(line).collect::<String>(), last)))
        }
    });
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], Stream::from_stream(stream)).into_response())
}

/// An event as a line of the log.
fn line(event: &RunEvent) -> Option<String> {
    match &event.event {
        Event::Log { level: Level::Info, message } => Some(format!("{} {message}\n", event.time)),
        Event::Log { level: Level::Warning, message } => Some(format!("{} warning: {message}\n", event.time)),
        Event::State { state } => Some(format!("{} {state}\n", event.time)),
        _ => None,
    }
}

/// Numbers measured so far, by name and step.
#[utoipa::path(
    get, path = "/v1/runs/{run}/metrics", tag = "runs", params(("run" = String, Path), WhichMetrics),
    responses((status = 200, body = Page<Metric>), (status = "default", body = ErrorBody))
)]
pub(super) async fn metrics(
    State(shared): State<Shared>,
    caller: Caller,
    Path(run): Path,
    Query(which): Query<WhichMetrics>,
) -> Result<Json<Page<Metric>>> {
    let key = caller.needs(Scope::Read)?;
    let database = &shared.service.database;
    let run = database.run(&key.owner, &run).await?;
    let limit = limit(which.limit)?;
    let after = match which.after.as_deref() {
        None => ("", -1),
        Some(cursor) => {
            let parts = cursor.rsplit_once(':').and_then(|(name, step)| Some((name, step.parse().ok()?)));
            parts.ok_or_else(|| Error::invalid("after", "expected `next` of the page before"))?
        }
    };
    let metrics = database.metrics(&run.id, which.name.as_deref(), after, limit + 1).await?;
    Ok(Json(page(metrics, limit, |metric| format!("{}:{}", metric.name, metric.step))))
}

/// Checkpoints, latest first.
#[utoipa::path(
    get, path = "/v1/runs/{run}/checkpoints", tag = "runs", params(("run" = String, Path), Part),
    responses((status = 200, body = Page<Checkpoint>), (status = "default", body = ErrorBody))
)]
pub(super) async fn checkpoints(
    State(shared): State<Shared>,
    caller: Caller,
    Path(run): Path,
    Query(part): Query<Part>,
) -> Result<Json<Page<Checkpoint>>> {
    let key = caller.needs(Scope::Read)?;
    let database = &shared.service.database;
    let run = database.run(&key.owner, &run).await?;
    let limit = limit(part.limit)?;
    let wrong = || Error::invalid("after", "expected `next` of the page before");
    let before = part.after.map(|after| after.parse().map_err(|_| wrong())).transpose()?.unwrap_or(i64::MAX);
    let checkpoints = database.checkpoints(&run.id, before, limit + 1).await?;
    Ok(Json(page(checkpoints, limit, |checkpoint| checkpoint.step.to_string())))
}
