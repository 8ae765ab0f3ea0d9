//! Signing in at an OpenID Connect provider: authorization code with PKCE and a nonce. What the provider vouches for becomes
//! the owner of a key.

use std::pin::Pin;
use std::time::Duration;

use openidconnect::core::{CoreAuthenticationFlow, CoreClient, CoreProviderMetadata};
use openidconnect::{
    AsyncHttpClient, AuthorizationCode, ClientId, ClientSecret, CsrfToken, HttpRequest, HttpResponse, IssuerUrl, Nonce,
    PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope, TokenResponse,
};
use tracing::warn;

use crate::error::{Error, Kind, Result};
use crate::settings::Settings;

/// Where a provider sends people back to, below the server's address.
pub(crate) const CALLBACK: &str = "/login/openid/callback";

/// Longer than any provider takes to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of the largest answer of a provider.
const MOST: usize = 1 << 20;

/// Letters of the longest name that a provider may vouch for.
const LONGEST: usize = 200;

/// A provider, and whom of those it knows this server lets in.
pub(crate) struct OpenId {
    issuer: IssuerUrl,
    client: ClientId,
    secret: Option<ClientSecret>,
    callback: RedirectUrl,
    by_email: bool,
    members: Vec<String>,
    http: reqwest::Client,
}

/// What a browser keeps while somebody signs in elsewhere.
pub(crate) struct Attempt {
    /// Comes back with the code: the answer belongs to this attempt.
    pub(crate) state: String,
    /// Comes back inside the token: the token was made for this attempt.
    pub(crate) nonce: String,
    /// Proves to the provider that who brings the code has asked for it.
    pub(crate) verifier: String,
}

impl OpenId {
    /// The provider of the settings, if they have one. Nothing is asked of it before somebody signs in.
    pub(crate) fn new(settings: &Settings) -> Result<Option<Self>> {
        if settings.openid_issuer.is_empty() {
            return Ok(None);
        }
        let wrong = |name: &str, error: String| Error::Settings(format!("`{name}`: {error}"));
        let callback = format!("{}{CALLBACK}", settings.address.trim_end_matches('/'));
        let secret = &settings.openid_secret.0;
        let http = reqwest::Client::builder()
            // A provider that sends elsewhere could send into our own network.
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE)
            .build();
        Ok(Some(OpenId {
            issuer: IssuerUrl::new(settings.openid_issuer.clone())
                .map_err(|error| wrong("openid_issuer", error.to_string()))?,
            client: ClientId::new(settings.openid_client.clone()),
            secret: (!secret.is_empty()).then(|| ClientSecret::new(secret.clone())),
            callback: RedirectUrl::new(callback).map_err(|error| wrong("address", error.to_string()))?,
            by_email: settings.openid_claim == "email",
            members: settings.openid_members.split(',').map(|member| member.trim().to_owned()).collect(),
            http: http.map_err(|error| Error::Internal(error.to_string()))?,
        }))
    }

    /// What the provider says of itself and the keys it signs with, both as they are now.
    pub(crate) async fn discover(&self) -> Result<CoreProviderMetadata> {
        let found = CoreProviderMetadata::discover_async(self.issuer.clone(), self).await;
        found.map_err(|error| self.unavailable(&error))
    }

    /// The address at the provider where somebody signs in.
    pub(crate) async fn leave(&self) -> Result<(String, Attempt)> {
        let client = CoreClient::from_provider_metadata(self.discover().await?, self.client.clone(), None)
            .set_redirect_uri(self.callback.clone());
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let flow = CoreAuthenticationFlow::AuthorizationCode;
        let mut request = client.authorize_url(flow, CsrfToken::new_random, Nonce::new_random);
        if self.by_email {
            request = request.add_scope(Scope::new("email".into()));
        }
        let (address, state, nonce) = request.set_pkce_challenge(challenge).url();
        let attempt = Attempt {
            state: state.secret().clone(),
            nonce: nonce.secret().clone(),
            verifier: verifier.secret().clone(),
        };
        Ok((address.into(), attempt))
    }

    /// Whose runs somebody sees who comes back with this code: `openid:` and what the provider vouches for. No name that a
    /// key is given otherwise has a colon in it.
    pub(crate) async fn come_back(&self, attempt: Attempt, code: String) -> Result<String> {
        let client =
            CoreClient::from_provider_metadata(self.discover().await?, self.client.clone(), self.secret.clone())
                .set_redirect_uri(self.callback.clone());
        let refuse = |error: String| {
            warn!(error, "a provider's answer was refused");
            let message = "the provider's answer does not hold; sign in again, and if that does not help, the server's log \
                           says why";
            Error::refused(Kind::Authentication, "openid_refused", message)
        };
        let request = client.exchange_code(AuthorizationCode::new(code)).map_err(|error| refuse(error.to_string()))?;
        let answer = request
            .set_pkce_verifier(PkceCodeVerifier::new(attempt.verifier))
            .request_async(self)
            .await
            .map_err(|error| refuse(causes(&error)))?;
        let token = answer.id_token().ok_or_else(|| refuse("there is no ID token in it".into()))?;
        let claims = token.claims(&client.id_token_verifier(), &Nonce::new(attempt.nonce));
        let claims = claims.map_err(|error| refuse(causes(&error)))?;
        let name = if self.by_email {
            // Who types an address is not yet who reads what is sent there.
            if claims.email_verified() != Some(true) {
                let message = "the provider does not say that your email address is verified; verify it there, or have the \
                               server's `openid_claim` set to `sub`";
                return Err(Error::refused(Kind::Permission, "openid_unverified", message));
            }
            claims.email().map(|email| email.to_lowercase())
        } else {
            Some(claims.subject().to_string())
        };
        let name =
            name.filter(|name| (1..=LONGEST).contains(&name.chars().count()) && !name.contains(char::is_control));
        let name = name.ok_or_else(|| refuse("it has no usable name in it".into()))?;
        if !self.members.iter().any(|member| lets_in(member, &name, self.by_email)) {
            let message = format!("`{name}` is not among those whom this server lets in (`openid_members`)");
            return Err(Error::refused(Kind::Permission, "openid_no_member", message));
        }
        Ok(format!("openid:{name}"))
    }

    fn unavailable(&self, error: &dyn std::error::Error) -> Error {
        warn!(issuer = self.issuer.as_str(), error = causes(error), "a provider cannot be asked");
        let message = "the OpenID Connect provider cannot be asked now; try again, or sign in with a key";
        Error::refused(Kind::Unavailable, "openid_unavailable", message)
    }
}

impl<'c> AsyncHttpClient<'c> for OpenId {
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<HttpResponse>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async {
            let request = request.try_into().map_err(std::io::Error::other)?;
            let mut answer = self.http.execute(request).await.map_err(std::io::Error::other)?;
            let mut body = Vec::new();
            while let Some(part) = answer.chunk().await.map_err(std::io::Error::other)? {
                body.extend_from_slice(&part);
                if body.len() > MOST {
                    return Err(std::io::Error::other(format!("the answer has more than {MOST} bytes")));
                }
            }
            let mut response = HttpResponse::new(body);
            *response.status_mut() = answer.status();
            *response.headers_mut() = answer.headers().clone();
            Ok(response)
        })
    }
}

/// Whether an entry of `openid_members` lets this name in.
fn lets_in(member: &str, name: &str, by_email: bool) -> bool {
    if member == "*" {
        return true;
    }
    if !by_email {
        return member == name;
    }
    let member = member.to_lowercase();
    if member.starts_with('@') { name.ends_with(&member) } else { name == member }
}

/// An error with what it came of.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_everybody_or_a_domain_or_one() {
        for (member, name, by_email, expected) in [
            ("*", "anybody", false, true),
            ("@Example.org", "ann@example.org", true, true),
            ("@example.org", "ann@notexample.org", true, false),
            ("@example.org", "ann@example.org.evil.net", true, false),
            ("Ann@example.org", "ann@example.org", true, true),
            ("example.org", "ann@example.org", true, false),
            ("A1", "A1", false, true),
            ("a1", "A1", false, false),
            ("@1", "A@1", false, false),
            ("", "ann@example.org", true, false),
        ] {
            assert_eq!(lets_in(member, name, by_email), expected, "{member} {name}");
        }
    }
}
