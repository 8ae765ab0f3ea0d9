//! For whoever runs the server: is it alive, is it ready, what does it do, and an id for every request.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tracing::{Instrument, Span};
use ulid::Ulid;

use super::Shared;
use super::limits::PROBES;
use crate::error::{Error, Kind, Result};
use crate::status::Status;
use crate::telemetry::{answered, request_span};

const REQUEST_ID: &str = "x-request-id";

/// What has been asked of this server.
#[derive(Debug)]
pub(super) struct Requests {
    count: Family<Vec<(String, String)>, Counter>,
    seconds: Histogram,
}

impl Default for Requests {
    fn default() -> Self {
        Requests { count: Family::default(), seconds: Histogram::new(exponential_buckets(0.001, 2.0, 14)) }
    }
}

/// Gives a request its id, which its answer and its lines of the log carry, and counts it.
pub(super) async fn observe(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let id = Ulid::generate().to_string().to_lowercase();
    let method = request.method().to_string();
    // The route, not the path: names and ids are the callers', and metrics are few.
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let started = Instant::now();
    // Probes come all the time and say nothing.
    let traced = if PROBES.contains(&route.as_str()) {
        Span::none()
    } else {
        request_span(&id, &method, &route, request.headers())
    };
    let span = tracing::info_span!("request", id);
    let mut response = next.run(request).instrument(span.clone()).instrument(traced.clone()).await;
    let took = started.elapsed();
    let status = response.status().as_u16();
    answered(&traced, status);
    span.in_scope(|| tracing::debug!(method, route, status, milliseconds = took.as_millis() as u64, "answered"));
    let labels = vec![("method".into(), method), ("route".into(), route), ("status".into(), status.to_string())];
    shared.requests.count.get_or_create(&labels).inc();
    shared.requests.seconds.observe(took.as_secs_f64());
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// The process is alive.
#[utoipa::path(get, path = "/healthz", tag = "operation", security(()), responses((status = 200, body = String)))]
pub(super) async fn healthy() -> &'static str {
    "alive\n"
}

/// The server takes runs: its database answers and it is not going down.
#[utoipa::path(get, path = "/readyz", tag = "operation", security(()), responses((status = 200, body = String), (status = 503)))]
pub(super) async fn ready(State(shared): State<Shared>) -> Result<&'static str> {
    if shared.service.draining.is_cancelled() {
        return Err(Error::refused(Kind::Unavailable, "going_down", "the server is going down"));
    }
    if let Err(error) = shared.service.database.ping().await {
        tracing::error!(%error, "not ready");
        return Err(Error::refused(Kind::Unavailable, "database", "the database does not answer"));
    }
    Ok("ready\n")
}

/// Numbers for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "operation", security(()),
    responses((status = 200, body = String, content_type = "application/openmetrics-text"))
)]
pub(super) async fn metrics(State(shared): State<Shared>) -> Result<Response> {
    let runs = Family::<Vec<(String, String)>, Gauge>::default();
    for status in Status::ALL {
        runs.get_or_create(&vec![("status".into(), status.name().into())]).set(0);
    }
    for (status, count) in shared.service.database.count_runs().await? {
        runs.get_or_create(&vec![("status".into(), status)]).set(count);
    }
    let mut registry = Registry::with_prefix("finetuner");
    registry.register("runs", "Runs by status", runs);
    registry.register("http_requests", "Requests answered", shared.requests.count.clone());
    registry.register("http_request_seconds", "Time until the answer began", shared.requests.seconds.clone());
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|error| Error::Internal(error.to_string()))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, kind)], text).into_response())
}
