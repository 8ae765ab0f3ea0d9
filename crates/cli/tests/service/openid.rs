//! Signing in at an OpenID Connect provider, which is a thread of the test.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

use super::support::{Answer, Server};

/// Where the server says it is; nobody has to be there, as the test is the browser.
const ADDRESS: &str = "http://127.0.0.1:9";

/// What the provider says next.
#[derive(Default)]
struct Next {
    nonce: String,
    challenge: String,
    claims: Value,
    foreign_key: bool,
}

struct Provider {
    address: String,
    next: Arc<Mutex<Next>>,
}

impl Provider {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let next = Arc::new(Mutex::new(Next::default()));
        let (own, theirs) = (address.clone(), next.clone());
        std::thread::spawn(move || {
            let [key, foreign] = [(), ()].map(|()| {
                let random = SystemRandom::new();
                let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap()
            });
            for stream in listener.incoming() {
                answer(stream.unwrap(), &own, &theirs.lock().unwrap(), &key, &foreign);
            }
        });
        Provider { address, next }
    }

    fn settings(&self) -> Vec<(&'static str, &str)> {
        vec![
            ("ADDRESS", ADDRESS),
            ("OPENID_ISSUER", &self.address),
            ("OPENID_CLIENT", "finetuner"),
            ("OPENID_SECRET", "hush"),
            ("OPENID_MEMBERS", "@example.org, bob@example.net"),
        ]
    }

    /// Signs in with these claims changed, as a browser; `change` alters what comes back.
    fn sign_in(&self, server: &Server, user_code: &str, claims: Value, change: impl Fn(&mut Left)) -> Answer {
        let there = browse(server, &format!("/login/openid?user_code={user_code}"), "");
        assert_eq!(there.status, 303, "{there:?}");
        let location = there.header("location").to_owned();
        assert!(location.starts_with(&format!("{}/authorize?", self.address)), "{location}");
        let query: HashMap<_, _> =
            location.split_once('?').unwrap().1.split('&').filter_map(|pair| pair.split_once('=')).collect();
        assert_eq!((query["client_id"], query["response_type"]), ("finetuner", "code"));
        assert_eq!(query["redirect_uri"], "http%3A%2F%2F127.0.0.1%3A9%2Flogin%2Fopenid%2Fcallback");
        assert_eq!((query["code_challenge_method"], query["scope"]), ("S256", "openid+email"));
        let cookie = there.header("set-cookie").to_owned();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
        let mut left = Left {
            state: query["state"].into(),
            cookie: cookie.split(';').next().unwrap().into(),
            next: Next {
                nonce: query["nonce"].into(),
                challenge: query["code_challenge"].into(),
                claims,
                foreign_key: false,
            },
        };
        change(&mut left);
        *self.next.lock().unwrap() = left.next;
        let back = browse(server, &format!("/login/openid/callback?code=c&iss=x&state={}", left.state), &left.cookie);
        assert!(back.header("set-cookie").contains("Max-Age=0"), "{back:?}");
        assert_eq!(back.header("cache-control"), "no-store");
        back
    }
}

/// Somebody who is at the provider.
struct Left {
    state: String,
    cookie: String,
    next: Next,
}

/// A request as a browser makes it, but without following.
fn browse(server: &Server, path: &str, cookie: &str) -> Answer {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .build()
        .into();
    let mut answer = agent.get(format!("{}{path}", server.address)).header("cookie", cookie).call().unwrap();
    let headers = answer.headers().iter();
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    Answer { status: answer.status().as_u16(), headers, body: answer.body_mut().read_to_string().unwrap() }
}

fn answer(stream: TcpStream, address: &str, next: &Next, key: &EcdsaKeyPair, foreign: &EcdsaKeyPair) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let header = |name: &str| {
        let mut headers = lines.iter().filter_map(|line| line.split_once(": "));
        headers.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    let mut body = vec![0; header("content-length").map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).unwrap();
    let body = String::from_utf8(body).unwrap();
    let form: HashMap<_, _> = body.split('&').filter_map(|pair| pair.split_once('=')).collect();
    let base64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let (status, said) = match lines[0].split(' ').nth(1).unwrap() {
        "/.well-known/openid-configuration" => (
            "200 OK",
            json!({
                "issuer": address, "jwks_uri": format!("{address}/keys"),
                "authorization_endpoint": format!("{address}/authorize"), "token_endpoint": format!("{address}/token"),
                "response_types_supported": ["code"], "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
            }),
        ),
        "/keys" => {
            let (x, y) = key.public_key().as_ref()[1..].split_at(32);
            let own = json!({"kty": "EC", "crv": "P-256", "kid": "1", "use": "sig", "x": base64(x), "y": base64(y)});
            ("200 OK", json!({"keys": [own]}))
        }
        "/token" if header("authorization") != Some(format!("Basic {}", STANDARD.encode("finetuner:hush"))) => {
            ("401 Unauthorized", json!({"error": "invalid_client"}))
        }
        "/token" if base64(digest(&SHA256, form["code_verifier"].as_bytes()).as_ref()) != next.challenge => {
            ("400 Bad Request", json!({"error": "invalid_grant"}))
        }
        "/token" => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            let mut claims = json!({
                "iss": address, "aud": "finetuner", "sub": "42", "iat": now, "exp": now + 300, "nonce": next.nonce,
                "email": "Ann@Example.org", "email_verified": true,
            });
            for (name, value) in next.claims.as_object().unwrap() {
                claims[name] = value.clone();
            }
            let head = base64(json!({"alg": "ES256", "kid": "1"}).to_string().as_bytes());
            let signed = format!("{head}.{}", base64(claims.to_string().as_bytes()));
            let key = if next.foreign_key { foreign } else { key };
            let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
            let token = format!("{signed}.{}", base64(signature.as_ref()));
            ("200 OK", json!({"access_token": "a", "token_type": "Bearer", "id_token": token}))
        }
        _ => ("404 Not Found", json!({})),
    };
    let said = said.to_string();
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}", said.len());
    let mut stream = stream;
    stream.write_all(format!("{head}\r\nconnection: close\r\n\r\n{said}").as_bytes()).unwrap();
}

/// The key in a page, if there is one.
fn key_in(page: &str) -> Option<&str> {
    let start = page.find("\"ft_")? + 1;
    page[start..].split('"').next()
}

#[test]
fn who_signs_in_at_the_provider_gets_a_key_of_their_own() {
    let provider = Provider::start();
    let server = Server::with(&provider.settings());
    assert_eq!(server.send_as("", "GET", "/v1/login", &[], &[]).json(), json!({"openid": true}));
    let page = provider.sign_in(&server, "", json!({}), |_| {});
    assert_eq!(page.status, 200, "{page:?}");
    assert!(page.header("content-security-policy").ends_with("; script-src 'self'"), "{page:?}");
    let key = key_in(&page.body).unwrap();
    let current = server.send_as(key, "GET", "/v1/keys/current", &[], &[]).json();
    assert_eq!((&current["owner"], &current["scope"]), (&json!("openid:ann@example.org"), &json!("run")));
    let listed = server.send("GET", "/v1/keys", &Value::Null).json();
    let own = listed["data"].as_array().unwrap().iter().find(|own| own["id"] == current["id"]).unwrap();
    assert!(own["expires_at"].is_string(), "{own}");

    let bob = provider.sign_in(&server, "", json!({"email": "bob@example.net"}), |_| {});
    let bob = server.send_as(key_in(&bob.body).unwrap(), "GET", "/v1/keys/current", &[], &[]).json();
    assert_eq!(bob["owner"], "openid:bob@example.net");
}

#[test]
fn what_the_provider_does_not_vouch_for_lets_nobody_in() {
    let provider = Provider::start();
    let server = Server::with(&provider.settings());
    let refused = |claims: Value, change: &dyn Fn(&mut Left), status: u16, says: &str| {
        let page = provider.sign_in(&server, "", claims.clone(), change);
        assert_eq!(page.status, status, "{claims}: {page:?}");
        assert!(page.body.contains(says) && key_in(&page.body).is_none(), "{claims}: {page:?}");
    };
    let holds = "does not hold";
    refused(json!({"aud": "another"}), &|_| {}, 401, holds);
    refused(json!({"iss": "https://elsewhere.example"}), &|_| {}, 401, holds);
    refused(json!({"exp": 1}), &|_| {}, 401, holds);
    refused(json!({"nonce": "x"}), &|_| {}, 401, holds);
    refused(json!({"email": null}), &|_| {}, 401, holds);
    refused(json!({"email": format!("{}@example.org", "a".repeat(200))}), &|_| {}, 401, holds);
    refused(json!({}), &|left| left.next.foreign_key = true, 401, holds);
    refused(json!({}), &|left| left.next.challenge = "x".into(), 401, holds);
    refused(json!({"email_verified": false}), &|_| {}, 403, "not say that your email address is verified");
    refused(json!({"email_verified": null}), &|_| {}, 403, "not say that your email address is verified");
    refused(json!({"email": "<b>@example.net"}), &|_| {}, 403, "`&#60;b&#62;@example.net` is not among those");
    let stale = "not where this browser left from";
    refused(json!({}), &|left| left.state += "x", 401, stale);
    refused(json!({}), &|left| left.state.clear(), 401, stale);
    refused(json!({}), &|left| left.cookie.clear(), 401, stale);
    refused(json!({}), &|left| left.cookie = "finetuner-openid=...".into(), 401, stale);
    // Whoever leads somebody else's browser back brings no cookie of that browser.
    let other = browse(&server, "/login/openid", "").header("set-cookie").split(';').next().unwrap().to_owned();
    refused(json!({}), &|left| left.cookie = other.clone(), 401, stale);
}

#[test]
fn a_program_is_let_in_by_who_signs_in() {
    let provider = Provider::start();
    let server = Server::with(&provider.settings());
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let begun = server.send_as("", "POST", "/oauth/device", &form, b"").json();
    let code = begun["user_code"].as_str().unwrap();
    assert_eq!(begun["verification_uri"], format!("{ADDRESS}/activate"));
    let page = server.send_as("", "GET", &format!("/activate?user_code={code}"), &[], &[]).body;
    assert!(page.contains(&format!("href=\"/login/openid?user_code={code}\"")), "{page}");
    let page = provider.sign_in(&server, code, json!({}), |_| {});
    assert!(page.body.contains(&format!("value=\"{code}\"")) && page.body.contains("Signed in as ann@"), "{page:?}");
    assert!(!page.header("content-security-policy").contains("script-src"), "a form needs none: {page:?}");
    let approval = format!("user_code={code}&key={}&decision=approve", key_in(&page.body).unwrap());
    assert_eq!(server.send_as("", "POST", "/activate", &form, approval.as_bytes()).status, 200);
    let asked = format!(
        "grant_type=urn:ietf:params:oauth:grant-type:device_code&device_code={}",
        begun["device_code"].as_str().unwrap()
    );
    let key = server.send_as("", "POST", "/oauth/token", &form, asked.as_bytes()).json();
    let current = server.send_as(key["access_token"].as_str().unwrap(), "GET", "/v1/keys/current", &[], &[]).json();
    assert_eq!(current["owner"], "openid:ann@example.org");
}

#[test]
fn a_provider_that_is_missing_is_no_reason_not_to_serve() {
    let server = Server::start();
    assert_eq!(server.send_as("", "GET", "/v1/login", &[], &[]).json(), json!({"openid": false}));
    let page = browse(&server, "/login/openid", "");
    assert!(page.status == 404 && page.body.contains("has no OpenID Connect provider"), "{page:?}");
    assert!(!server.send_as("", "GET", "/activate", &[], &[]).body.contains("organisation"));

    let provider = Provider::start();
    let mut settings = provider.settings();
    settings[1] = ("OPENID_ISSUER", "http://127.0.0.1:9");
    let mut server = Server::with(&settings);
    let page = browse(&server, "/login/openid", "");
    assert!(page.status == 503 && page.body.contains("cannot be asked now"), "{page:?}");
    server.stop();
    let check = server.serve("--data data --listen 127.0.0.1:0 --check").output().unwrap();
    assert!(!check.status.success() && String::from_utf8_lossy(&check.stderr).contains("OpenID Connect"), "{check:?}");
}
