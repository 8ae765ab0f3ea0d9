//! Who calls, and what they may.

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;

use super::Shared;
use super::limits::{Sender, address};
use crate::database::KeyRow;
use crate::error::{Error, Kind, Result};
use crate::wire::Scope;

/// The key that a request came with.
pub(super) struct Caller(KeyRow);

impl Caller {
    /// The key, if it has this scope.
    pub(super) fn needs(self, scope: Scope) -> Result<KeyRow> {
        if self.0.scope >= scope {
            return Ok(self.0);
        }
        let message = format!("this key may `{}`; take one that may `{}`", self.0.scope.name(), scope.name());
        Err(Error::refused(Kind::Permission, "scope_too_small", message))
    }
}

impl FromRequestParts<Shared> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self> {
        let refuse = |code, message: &str| Error::refused(Kind::Authentication, code, message);
        let Some(value) = parts.headers.get(header::AUTHORIZATION) else {
            return Err(refuse(
                "key_missing",
                "send a key as `Authorization: Bearer ft_…`; `finetuner login` stores one",
            ));
        };
        let wrong = || refuse("key_wrong", "this key is not known, has ended or was revoked; log in with another one");
        let value = value.to_str().map_err(|_| wrong())?;
        // The original's client says `token`.
        let token = value
            .split_once(' ')
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token"));
        let token = token.map(|(_, token)| token.trim()).ok_or_else(wrong)?;
        let settings = &shared.service.settings;
        let Some(key) = shared.service.key(token).await? else {
            shared.limiter.count(address(&parts.extensions), settings.anonymous_requests_per_minute)?;
            return Err(wrong());
        };
        shared.limiter.count(Sender::Key(key.id.clone()), settings.requests_per_minute)?;
        Ok(Caller(key))
    }
}
