//! What a request may be and take before a handler sees it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{Extensions, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Shared;
use crate::error::{Error, Kind, Result};

/// As many callers are remembered; those who have all of their minute before them are forgotten first.
const REMEMBERED: usize = 10_000;

/// Routes that probes ask.
pub(super) const PROBES: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Who has sent how many requests.
#[derive(Debug, Default)]
pub(super) struct Limiter(Mutex<HashMap<Sender, Budget>>);

/// Whose requests are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Sender {
    /// Of one key, wherever it is used.
    Key(String),
    /// Without a key that counts: of one address; of IPv6 one network, as everybody has many addresses.
    Address(IpAddr),
}

#[derive(Debug)]
struct Budget {
    left: f64,
    at: Instant,
}

impl Budget {
    /// What there is now: a minute's requests come back in a minute.
    fn now(&self, per_minute: f64, now: Instant) -> f64 {
        let back = now.saturating_duration_since(self.at).as_secs_f64() * per_minute / 60.0;
        (self.left + back).min(per_minute)
    }
}

impl Limiter {
    /// Counts a request of this sender, of whom `per_minute` are taken; 0: any number.
    pub(super) fn count(&self, sender: Sender, per_minute: u32) -> Result<()> {
        if per_minute == 0 {
            return Ok(());
        }
        let (per_minute, now) = (f64::from(per_minute), Instant::now());
        let mut budgets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if budgets.len() >= REMEMBERED && !budgets.contains_key(&sender) {
            budgets.retain(|_, budget| budget.now(per_minute, now) < per_minute);
        }
        let budget = budgets.entry(sender).or_insert(Budget { left: per_minute, at: now });
        (budget.left, budget.at) = (budget.now(per_minute, now), now);
        if budget.left < 1.0 {
            let message = format!("more than {per_minute} requests a minute; wait, and ask less often");
            return Err(Error::refused(Kind::TooMany, "too_many_requests", message));
        }
        budget.left -= 1.0;
        Ok(())
    }
}

/// Where a request comes from.
pub(super) fn address(extensions: &Extensions) -> Sender {
    let address = extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip().to_canonical());
    Sender::Address(match address.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !(u128::MAX >> 64)).into(),
        address => address,
    })
}

/// Refuses whoever asks too often without a key, and ends what takes too long.
pub(super) async fn bound(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let settings = &shared.service.settings;
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    if !request.headers().contains_key(header::AUTHORIZATION) && !PROBES.contains(&route) {
        let counted = shared.limiter.count(address(request.extensions()), settings.anonymous_requests_per_minute);
        if let Err(error) = counted {
            return error.into_response();
        }
    }
    // A piece of a file takes as long as it takes, as long as bytes come.
    if request.method() == Method::PATCH {
        return next.run(request).await;
    }
    let patience = settings.request_seconds;
    match tokio::time::timeout(Duration::from_secs(patience), next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let message = format!("the request took longer than {patience} seconds; send it again, and faster");
            Error::refused(Kind::TooSlow, "request_timeout", message).into_response()
        }
    }
}

/// Refuses addresses that are not text: no name has a NUL, and PostgreSQL keeps none.
pub(super) async fn refuse_nul(request: Request, next: Next) -> Response {
    if request.uri().path_and_query().is_some_and(|address| address.as_str().contains("%00")) {
        return Error::refused(Kind::Request, "invalid_address", "an address cannot have `%00` in it").into_response();
    }
    next.run(request).await
}

/// Refuses JSON with a NUL in a text.
pub(super) fn check_text(body: &[u8]) -> Result<()> {
    // Searched for first: it is hardly ever there, and the backslash may belong to another one.
    if !body.windows(6).any(|part| part == b"\\u0000") {
        return Ok(());
    }
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    if has_nul(&value) {
        let message = "a text has the character U+0000 in it, which cannot be kept; leave it out";
        return Err(Error::refused(Kind::Invalid, "invalid_value", message));
    }
    Ok(())
}

fn has_nul(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::String(text) => text.contains('\0'),
        serde_json::Value::Array(items) => items.iter().any(has_nul),
        serde_json::Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minutes_requests_come_back_in_a_minute_and_for_each_sender() {
        let limiter = Limiter::default();
        let key = |name: &str| Sender::Key(name.into());
        for _ in 0..60 {
            limiter.count(key("a"), 60).unwrap();
        }
        assert_eq!(limiter.count(key("a"), 60).unwrap_err().status(), 429);
        limiter.count(key("b"), 60).unwrap();
        limiter.count(key("a"), 0).unwrap();
        let budget = Budget { left: 0.0, at: Instant::now() };
        assert_eq!(budget.now(60.0, budget.at + Duration::from_secs(2)), 2.0);
        assert_eq!(budget.now(60.0, budget.at + Duration::from_secs(900)), 60.0);
    }

    #[test]
    fn an_ipv6_network_is_one_sender() {
        let of = |address: &str| {
            let mut extensions = Extensions::new();
            extensions.insert(ConnectInfo(SocketAddr::new(address.parse().unwrap(), 1)));
            super::address(&extensions)
        };
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    #[test]
    fn only_a_text_with_a_nul_is_refused() {
        for body in [r#"{"a": "\u0000"}"#, r#"{"a": ["b\\\u0000"]}"#, r#"{"\u0000": 1}"#] {
            assert!(check_text(body.as_bytes()).is_err(), "{body}");
        }
        for body in [r#"{"a": "\\u0000"}"#, r#"{"a": "u0000"}"#, "\\u0000", "{}", ""] {
            assert!(check_text(body.as_bytes()).is_ok(), "{body}");
        }
    }
}
