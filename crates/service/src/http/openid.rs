//! Signing in at an OpenID Connect provider: there, and back with a key.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use subtle::ConstantTimeEq;

use super::Shared;
use super::answer::Query;
use super::device::{Code, approval};
use super::html::{escape, html, html_with_scripts};
use crate::error::{Error, Kind, Result};
use crate::openid::{Attempt, OpenId};
use crate::wire::{ErrorBody, NewKey, Scope, Ways};

/// The cookie of somebody who is at the provider. It lets nobody in: that does the code that comes back.
const COOKIE: &str = "finetuner-openid";

/// Where the cookie is sent.
const PLACE: &str = "/login/openid";

/// Seconds that somebody may take at the provider.
const LIFETIME: u32 = 600;

/// Days that a key counts which somebody got by signing in.
const DAYS: u32 = 1;

/// How somebody may sign in, beside a key.
#[utoipa::path(
    get, path = "/v1/login", tag = "login", security(()),
    responses((status = 200, body = Ways), (status = "default", body = ErrorBody))
)]
pub(super) async fn ways(State(shared): State<Shared>) -> Json<Ways> {
    Json(Ways { openid: shared.service.openid.is_some() })
}

/// Sends a browser to the provider. With the code of a program that logs in, its page comes afterwards.
pub(super) async fn leave(State(shared): State<Shared>, Query(code): Query<Code>) -> Response {
    send(&shared, code).await.unwrap_or_else(|error| sorry(&error))
}

async fn send(shared: &Shared, code: Code) -> Result<Response> {
    let (address, Attempt { state, nonce, verifier }) = provider(shared)?.leave().await?;
    let cookie = cookie(shared, &format!("{state}.{nonce}.{verifier}.{}", code.letters()), LIFETIME);
    Ok((cookie, [(header::CACHE_CONTROL, "no-store")], Redirect::to(&address)).into_response())
}

/// What a provider sends a browser back with.
#[derive(Deserialize)]
pub(super) struct Back {
    code: Option<String>,
    state: Option<String>,
    error: Option<String>,
}

/// Takes somebody who comes back from the provider.
pub(super) async fn come_back(State(shared): State<Shared>, headers: HeaderMap, Query(back): Query<Back>) -> Response {
    let response = enter(&shared, &headers, back).await.unwrap_or_else(|error| sorry(&error));
    // Once: the next attempt has another one.
    (cookie(&shared, "", 0), response).into_response()
}

async fn enter(shared: &Shared, headers: &HeaderMap, back: Back) -> Result<Response> {
    let openid = provider(shared)?;
    let refuse = |message: &str| Error::refused(Kind::Authentication, "openid_refused", message);
    let stale =
        || refuse("this is not where this browser left from, or it took longer than ten minutes; sign in again");
    let kept = headers.get_all(header::COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
    let kept = kept.flat_map(|cookies| cookies.split(';')).find_map(|cookie| {
        let (name, value) = cookie.trim().split_once('=')?;
        (name == COOKIE).then_some(value)
    });
    let parts: Vec<&str> = kept.ok_or_else(stale)?.split('.').collect();
    let [state, nonce, verifier, user_code] = parts[..] else { return Err(stale()) };
    let given = back.state.unwrap_or_default();
    if state.is_empty() || !bool::from(given.as_bytes().ct_eq(state.as_bytes())) {
        return Err(stale());
    }
    if back.error.is_some() {
        return Err(refuse("the provider did not let you in; sign in again, or with a key"));
    }
    let code = back.code.ok_or_else(|| refuse("the provider sent no code; sign in again"))?;
    let attempt = Attempt { state: state.into(), nonce: nonce.into(), verifier: verifier.into() };
    let owner = openid.come_back(attempt, code).await?;

    let service = &shared.service;
    let minted = service.pepper.mint()?;
    let new = NewKey { name: "openid".into(), owner: None, scope: Scope::Run, days: Some(DAYS) };
    service.database.add_key(&minted, &new, &owner).await?;
    tracing::info!(owner, key = minted.id, "signed in");
    let token = escape(&minted.token.0);
    if !user_code.is_empty() {
        let key = format!(
            "<p>Signed in as {}.</p><input type=\"hidden\" name=\"key\" value=\"{token}\">",
            escape(owner.trim_start_matches("openid:"))
        );
        return Ok(approval(user_code, &key));
    }
    let body = format!(
        "<h1>Signed in</h1>\n<p data-key=\"{token}\"><a href=\"/\">Go on</a></p>\n\
         <script type=\"module\" src=\"/page/signedin.js\"></script>"
    );
    Ok(html_with_scripts(StatusCode::OK, &body))
}

fn provider(shared: &Shared) -> Result<&OpenId> {
    shared.service.openid.as_ref().ok_or_else(|| {
        let message = "this server has no OpenID Connect provider; sign in with a key";
        Error::refused(Kind::NotFound, "openid_off", message)
    })
}

fn cookie(shared: &Shared, value: &str, seconds: u32) -> [(header::HeaderName, HeaderValue); 1] {
    let secure = if shared.service.settings.address.starts_with("https:") { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={value}; Path={PLACE}; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    [(header::SET_COOKIE, HeaderValue::try_from(cookie).unwrap_or(HeaderValue::from_static("")))]
}

/// An error for people.
fn sorry(error: &Error) -> Response {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if status.is_server_error() {
        tracing::error!(%error, "somebody could not sign in");
    }
    let message = escape(&error.problem().message);
    html(status, &format!("<h1>Not signed in</h1>\n<p>{message}.</p>\n<p><a href=\"/\">Back</a></p>"))
}
