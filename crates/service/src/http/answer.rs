//! What goes in and out of handlers, always as JSON with an error that says what to do.

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use tracing::error;

use super::limits::check_text;
use crate::database::MAX_PAGE;
use crate::error::{Error, Kind, Result};
use crate::wire::ErrorBody;

/// Bytes of the largest JSON body.
const MAX_BODY: usize = 1 << 20;

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            error!(error = %self, "a request failed");
        }
        let mut response = (status, axum::Json(ErrorBody { error: self.problem() })).into_response();
        let headers = response.headers_mut();
        match status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            _ => {}
        }
        response
    }
}

/// A JSON body, and the bytes it was read from.
pub(super) struct Body<T> {
    pub(super) value: T,
    pub(super) bytes: bytes::Bytes,
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        let bytes = axum::body::to_bytes(request.into_body(), MAX_BODY).await.map_err(|_| {
            let message = format!("the body is cut off or larger than {MAX_BODY} bytes; data goes into files");
            Error::refused(Kind::TooLarge, "body_too_large", message)
        })?;
        check_text(&bytes)?;
        let value = serde_json::from_slice(&bytes).map_err(|error| {
            let code = if error.is_data() { "invalid_body" } else { "not_json" };
            let kind = if error.is_data() { Kind::Invalid } else { Kind::Request };
            Error::refused(kind, code, format!("the body is not what this route takes: {error}"))
        })?;
        Ok(Body { value, bytes })
    }
}

/// Parameters after the question mark.
pub(super) struct Query<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        let refuse = |error: axum::extract::rejection::QueryRejection| {
            Error::refused(Kind::Request, "invalid_query", error.body_text())
        };
        query.map(|query| Query(query.0)).map_err(refuse)
    }
}

/// One part of the path.
pub(super) struct Path(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Path {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let path = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        path.map(|path| Path(path.0)).map_err(|error| Error::refused(Kind::Request, "invalid_path", error.body_text()))
    }
}

/// How many items a page has: what was asked for, within bounds.
pub(super) fn limit(asked: Option<i64>) -> Result<i64> {
    let limit = asked.unwrap_or(20);
    if (1..=MAX_PAGE).contains(&limit) {
        return Ok(limit);
    }
    Err(Error::invalid("limit", format!("expected 1 to {MAX_PAGE}, got {limit}; take the next page with `after`")))
}

pub(super) async fn no_such_route(uri: Uri) -> Error {
    let message = format!("there is no route `{}`; `/openapi.json` lists every one", uri.path());
    Error::refused(Kind::NotFound, "route_not_found", message)
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> Response {
    let message = format!("`{}` does not take {method}; `/openapi.json` says what it takes", uri.path());
    let mut response = Error::refused(Kind::Request, "method_not_allowed", message).into_response();
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}
