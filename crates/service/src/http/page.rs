//! The web page: files inside this binary, which ask for nothing but the public API.

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

use super::Shared;
use super::answer::no_such_route;
use crate::key::hexadecimal;

/// A file of the page.
struct Asset {
    name: &'static str,
    kind: &'static str,
    body: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const ICON: &str = "image/svg+xml";

macro_rules! assets {
    ($($kind:ident $name:literal,)*) => {
        [$(Asset { name: $name, kind: $kind, body: include_str!(concat!("../page/", $name)) },)*]
    };
}

/// Every file; the first one is the page itself.
const ASSETS: [Asset; 15] = assets![
    HTML "index.html",
    CSS "style.css",
    ICON "icon.svg",
    SCRIPT "theme.js",
    SCRIPT "app.js",
    SCRIPT "api.js",
    SCRIPT "dom.js",
    SCRIPT "chart.js",
    SCRIPT "words.js",
    SCRIPT "signin.js",
    SCRIPT "signedin.js",
    SCRIPT "new.js",
    SCRIPT "runs.js",
    SCRIPT "run.js",
    SCRIPT "result.js",
];

/// Nothing comes from elsewhere and nothing goes there; pictures of data are part of an answer, hence `data:`.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; \
                      form-action 'self'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    // Asked for each time and rarely sent: another version of the server has another page.
    (header::CACHE_CONTROL, "no-cache"),
];

/// `/` and what it loads.
pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/", get(|headers: HeaderMap| async move { answer(&ASSETS[0], &headers) }))
        .route("/page/{name}", get(file))
}

async fn file(Path(name): Path<String>, headers: HeaderMap, uri: axum::http::Uri) -> Response {
    match ASSETS.iter().find(|asset| asset.name == name) {
        Some(asset) => answer(asset, &headers),
        None => no_such_route(uri).await.into_response(),
    }
}

fn answer(asset: &Asset, headers: &HeaderMap) -> Response {
    let tag = format!("\"{}\"", &hexadecimal(&Sha256::digest(asset.body))[..32]);
    let known = headers.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    let same = known.is_some_and(|tags| tags.contains(&tag));
    let tag = [(header::ETAG, tag)];
    if same {
        return (StatusCode::NOT_MODIFIED, HEADERS, tag).into_response();
    }
    (HEADERS, tag, [(header::CONTENT_TYPE, asset.kind)], asset.body).into_response()
}
