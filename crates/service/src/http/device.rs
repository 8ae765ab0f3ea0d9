//! Logging in a program without a browser (RFC 8628): it shows a code, a person with a key approves it on a page.

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rand::{Rng, RngCore};
use serde::Deserialize;
use serde_json::json;

use super::Shared;
use super::answer::Query;
use super::html::{escape, html};
use crate::database::Polled;
use crate::error::{Error, Kind, Result};
use crate::key::hexadecimal;
use crate::wire::{DeviceLogin, ErrorBody, Scope};

/// Seconds in which a login must be approved.
const LIFETIME: u64 = 900;

/// Seconds between two questions of a program.
const INTERVAL: u64 = 2;

/// Letters that make no words and are not mistaken for others.
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// Begins a login.
#[utoipa::path(
    post, path = "/oauth/device", tag = "login", security(()),
    responses((status = 200, body = DeviceLogin), (status = "default", body = ErrorBody))
)]
pub(super) async fn begin(State(shared): State<Shared>, headers: HeaderMap) -> Result<Response> {
    let mut secret = [0; 32];
    rand::rng().fill_bytes(&mut secret);
    let device_code = hexadecimal(&secret);
    let letters: Vec<char> = (0..8).map(|_| char::from(LETTERS[rand::rng().random_range(0..LETTERS.len())])).collect();
    let user_code: String = letters[..4].iter().chain(&['-']).chain(&letters[4..]).collect();
    let service = &shared.service;
    service.database.add_device(&service.pepper.hash(&device_code)?, &user_code, LIFETIME).await?;
    let settings = &service.settings;
    // The page is where the settings say, else where the program found this server, through whatever proxy.
    let given = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let ours = if settings.tls().is_some() { "https" } else { "http" };
    let scheme = given("x-forwarded-proto").filter(|scheme| *scheme == "https").unwrap_or(ours);
    let verification_uri = match settings.address.trim_end_matches('/') {
        "" => format!("{scheme}://{}/activate", given("host").unwrap_or("localhost")),
        address => format!("{address}/activate"),
    };
    let login = DeviceLogin {
        verification_uri_complete: format!("{verification_uri}?user_code={user_code}"),
        verification_uri,
        device_code,
        user_code,
        expires_in: LIFETIME,
        interval: INTERVAL,
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], axum::Json(login)).into_response())
}

/// What a program asks.
#[derive(Deserialize, utoipa::ToSchema)]
pub(super) struct Asked {
    grant_type: String,
    device_code: String,
}

/// Gives the key of a login that was approved. Errors are those of RFC 8628: `authorization_pending`, `slow_down`,
/// `access_denied`, `expired_token`.
#[utoipa::path(
    post, path = "/oauth/token", tag = "login", security(()),
    request_body(content = Asked, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, body = Object), (status = 400, body = Object), (status = "default", body = ErrorBody))
)]
pub(super) async fn token(
    State(shared): State<Shared>,
    asked: std::result::Result<Form<Asked>, FormRejection>,
) -> Result<Response> {
    let refuse = |error: &str| (StatusCode::BAD_REQUEST, axum::Json(json!({"error": error}))).into_response();
    let Ok(Form(asked)) = asked else { return Ok(refuse("invalid_request")) };
    if asked.grant_type != GRANT {
        return Ok(refuse("unsupported_grant_type"));
    }
    let service = &shared.service;
    let minted = service.pepper.mint()?;
    let hash = service.pepper.hash(&asked.device_code)?;
    Ok(match service.database.poll_device(&hash, INTERVAL, &minted).await? {
        Polled::Pending => refuse("authorization_pending"),
        Polled::TooSoon => refuse("slow_down"),
        Polled::Denied => refuse("access_denied"),
        Polled::Gone => refuse("expired_token"),
        Polled::Granted => {
            let body = json!({"access_token": minted.token.0, "token_type": "Bearer", "scope": Scope::Run.name()});
            ([(header::CACHE_CONTROL, "no-store")], axum::Json(body)).into_response()
        }
    })
}

/// The code, where the address has it.
#[derive(Deserialize)]
pub(super) struct Code {
    user_code: Option<String>,
}

impl Code {
    /// What in it can be a part of a code: harmless in an address and in a cookie.
    pub(super) fn letters(self) -> String {
        self.user_code
            .unwrap_or_default()
            .chars()
            .filter(|letter| letter.is_ascii_alphabetic() || *letter == '-')
            .collect()
    }
}

/// What a person decides.
#[derive(Deserialize)]
pub(super) struct Decided {
    user_code: String,
    key: String,
    decision: String,
}

/// The page on which a login is approved.
pub(super) async fn page(State(shared): State<Shared>, Query(code): Query<Code>) -> Response {
    let code = code.letters();
    let mut key = "<p><label>Your key <input name=\"key\" type=\"password\" required autocomplete=\"off\"></label></p>"
        .to_owned();
    if shared.service.openid.is_some() {
        key += &format!("<p><a href=\"/login/openid?user_code={code}\">Sign in with your organisation</a> instead</p>");
    }
    approval(&code, &key)
}

/// The form on which a login is approved, by whoever these fields show.
pub(super) fn approval(code: &str, key: &str) -> Response {
    let code = escape(code);
    html(
        StatusCode::OK,
        &format!(
            "<h1>Approve a login</h1>\n\
             <p>A program asks to start runs at this server in your name. Approve it only if you have just started it \
             yourself and it shows this code.</p>\n\
             <form class=\"card\" method=\"post\" action=\"/activate\">\n\
             <p><label>Code <input name=\"user_code\" value=\"{code}\" required autocomplete=\"off\"></label></p>\n\
             {key}\n\
             <p><button class=\"primary\" name=\"decision\" value=\"approve\">Approve</button> \
             <button name=\"decision\" value=\"deny\">Deny</button></p>\n\
             </form>"
        ),
    )
}

/// Decides. Every decision needs a key, so that no other page can make it for somebody.
pub(super) async fn decide(
    State(shared): State<Shared>,
    decided: std::result::Result<Form<Decided>, FormRejection>,
) -> Result<Response> {
    let Form(decided) = decided.map_err(|error| Error::refused(Kind::Request, "invalid_form", error.body_text()))?;
    let Some(key) = shared.service.key(decided.key.trim()).await?.filter(|key| key.scope >= Scope::Run) else {
        let text = "<h1>Not approved</h1>\n<p>This key is not known, has ended or may not start runs. Go back and try another one.</p>";
        return Ok(html(StatusCode::UNAUTHORIZED, text));
    };
    let approved = decided.decision == "approve";
    let code = decided.user_code.trim().to_uppercase();
    if !shared.service.database.decide_device(&code, approved.then_some(&key.owner)).await? {
        let text = "<h1>No such code</h1>\n<p>The code is not known, has ended or was used. Start the login again.</p>";
        return Ok(html(StatusCode::NOT_FOUND, text));
    }
    let text = if approved { "<h1>Approved</h1>" } else { "<h1>Denied</h1>" };
    Ok(html(StatusCode::OK, &format!("{text}\n<p>You can close this page.</p>")))
}
