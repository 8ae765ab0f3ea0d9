//! What a server says of its own work: lines of a log, and spans for a collector of OpenTelemetry.

use std::time::Duration;

use axum::http::HeaderMap;
use opentelemetry::KeyValue;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::HeaderExtractor;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Span;
use tracing::field::Empty;
use tracing::level_filters::LevelFilter;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::{EnvFilter, Registry};

use crate::error::{Error, Result};
use crate::settings::Settings;

/// Spans of this target go to the collector and to nothing else: their attributes would fill every line of the log.
const SPANS: &str = "finetuner_spans";

/// How long a collector may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Log and spans of a server; what has not been sent yet is sent when this is dropped.
pub(crate) struct Telemetry(Option<SdkTracerProvider>);

impl Telemetry {
    /// Begins to write and to send. Outside of any runtime, as is its end.
    pub(crate) fn start(settings: &Settings) -> Result<Self> {
        let provider = match settings.telemetry.trim_end_matches('/') {
            "" => None,
            address => Some(provider(address)?),
        };
        let lines = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        let quiet = format!("{SPANS}=off").parse().map_err(|error| Error::Internal(format!("{error}")))?;
        let lines = lines.add_directive(quiet);
        let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let log = if settings.log == "json" { log.json().boxed() } else { log.with_ansi(false).boxed() };
        let spans = provider.as_ref().map(|provider| {
            let spans = tracing_opentelemetry::layer().with_tracer(provider.tracer("finetuner"));
            let spans = spans.with_location(false).with_threads(false).with_tracked_inactivity(false);
            spans.with_filter(Targets::new().with_target(SPANS, LevelFilter::INFO))
        });
        // That somebody else has started a log already is no reason not to serve.
        let _ = tracing::subscriber::set_global_default(Registry::default().with(log.with_filter(lines)).with(spans));
        Ok(Telemetry(provider))
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = self.0.take()
            && let Err(error) = provider.shutdown_with_timeout(PATIENCE)
        {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

/// Sends spans to `address/v1/traces`, in OTLP over HTTP; the standard variables (`OTEL_EXPORTER_OTLP_HEADERS`,
/// `OTEL_TRACES_SAMPLER`, `OTEL_RESOURCE_ATTRIBUTES` …) count.
fn provider(address: &str) -> Result<SdkTracerProvider> {
    let wrong = |error: String| Error::Settings(format!("`telemetry`: {error}"));
    let http = reqwest::blocking::Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none());
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(http.build().map_err(|error| wrong(error.to_string()))?)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{address}/v1/traces"))
        .build()
        .map_err(|error| wrong(error.to_string()))?;
    let name = std::env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| "finetuner".into());
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder().with_service_name(name).with_attribute(version).build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

/// A request, as a part of the caller's trace where it says `traceparent`; names are those of OpenTelemetry's conventions.
pub(crate) fn request_span(id: &str, method: &str, route: &str, headers: &HeaderMap) -> Span {
    let span = tracing::info_span!(
        target: SPANS,
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
        request.id = id,
    );
    if !span.is_disabled() {
        // Without a usable parent it is a trace of its own.
        let _ = span.set_parent(TraceContextPropagator::new().extract(&HeaderExtractor(headers)));
    }
    span
}

/// A request is answered.
pub(crate) fn answered(span: &Span, status: u16) {
    span.record("http.response.status_code", status);
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
}

/// A run, from where this server takes it up to where it leaves it.
pub(crate) fn run_span(run: &str) -> Span {
    tracing::info_span!(
        target: SPANS,
        "run",
        otel.status_code = Empty,
        finetuner.run.id = run,
        finetuner.run.status = Empty,
        finetuner.run.attempts = Empty,
    )
}

/// What has become of the run whose span this is.
pub(crate) fn left(status: &str, attempts: u32, failed: bool) {
    let span = Span::current();
    span.record("finetuner.run.status", status).record("finetuner.run.attempts", attempts);
    if failed {
        span.record("otel.status_code", "ERROR");
    }
}
