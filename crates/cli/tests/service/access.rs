//! Who may what, and sees what.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use super::support::{Server, follow, key};

/// Every route of the server's own description that wants a key: its method and its path, with these in place of parameters.
fn routes(server: &Server, run: &str, file: &str) -> Vec<(String, String)> {
    let description = server.send_as("", "GET", "/openapi.json", &[], &[]).json();
    let mut routes = Vec::new();
    for (path, operations) in description["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            if operation["security"] == json!([{}]) {
                continue;
            }
            let path = path.replace("/v1/files/{id}", &format!("/v1/files/{file}")).replace("{run}", run);
            let path = path.replace("/v1/experiments/{name}", "/v1/experiments/default");
            let path = path.replace("/artifact/files/{name}", "/artifact/files/report.json");
            routes.push((method.to_uppercase(), path.replace("/v1/keys/{id}", "/v1/keys/key-none")));
        }
    }
    for (method, path) in &routes {
        assert!(!path.contains('{'), "{method} {path}: say here what its parameters are");
    }
    assert!(routes.len() >= 20, "{routes:?}");
    routes
}

#[test]
fn without_a_key_that_counts_every_route_answers_401() {
    let server = Server::start();
    let mut forged = server.token.clone();
    forged.pop();
    let (id, revoked) = key(&server, "admin", "run");
    assert_eq!(server.send("DELETE", &format!("/v1/keys/{id}"), &Value::Null).status, 204);
    let others = format!("ft_{}_{}", "0".repeat(26), "0".repeat(64));
    for token in ["", "x", "ft_x_y", &(forged.clone() + "0"), &(forged + "1"), &others, &revoked, "' OR 1=1 --"] {
        if token == server.token {
            continue;
        }
        for (method, path) in routes(&server, "run", "file") {
            let answer = server.send_as(token, &method, &path, &[], &[]);
            assert_eq!(answer.status, 401, "{method} {path} with `{token}`: {answer:?}");
            assert!(answer.code().starts_with("key_"));
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
    }
}

#[test]
fn a_scope_is_what_it_says() {
    let server = Server::start();
    let (_, reader) = key(&server, "admin", "read");
    let (_, runner) = key(&server, "admin", "run");
    assert_eq!(server.send_as(&reader, "GET", "/v1/runs", &[], &[]).status, 200);
    let body = br#"{"name": "a.csv", "bytes": 1}"#;
    let refused = server.send_as(&reader, "POST", "/v1/files", &[], body);
    assert_eq!((refused.status, refused.code().as_str()), (403, "scope_too_small"));
    assert_eq!(server.send_as(&runner, "POST", "/v1/files", &[], body).status, 201);
    assert_eq!(server.send_as(&runner, "GET", "/v1/keys", &[], &[]).status, 403);
    let listed = server.send("GET", "/v1/keys", &Value::Null);
    assert_eq!(listed.json()["data"].as_array().unwrap().len(), 3);
    assert!(!listed.body.contains("token") && !listed.body.contains("hash"), "{listed:?}");
}

#[test]
fn what_belongs_to_somebody_else_is_not_there() {
    let server = Server::start();
    let run = server.submit("first", json!({}));
    follow(&server.client(), &run.id);
    let file = server.upload();
    let (_, stranger) = key(&server, "stranger", "run");
    for name in [run.id.as_str(), "first"] {
        for (method, path) in routes(&server, name, &file) {
            // Lists are the stranger's own and empty; keys are an administrator's.
            let [own, keys] = [
                !path.contains(name) && !path.contains(&file) && !path.contains("default"),
                path.starts_with("/v1/keys"),
            ];
            let expected = if keys && path != "/v1/keys/current" { 403 } else { 404 };
            if own && !keys || path == "/v1/keys/current" {
                continue;
            }
            let answer = server.send_as(&stranger, &method, &path, &[("upload-offset", "0")], b"{}");
            let bad_body = method == "POST" && [400, 422].contains(&answer.status) && !path.contains(name);
            assert!(answer.status == expected || bad_body, "{method} {path}: {answer:?}");
        }
    }
    let body = json!({"spec": {"train_data": file}}).to_string();
    let stolen = server.send_as(&stranger, "POST", "/v1/runs", &[], body.as_bytes());
    assert_eq!((stolen.status, stolen.code().as_str()), (404, "file_not_found"));
    for path in ["/v1/runs", "/v1/files", "/v1/experiments"] {
        let list = server.send_as(&stranger, "GET", path, &[], &[]).json();
        assert_eq!(list["data"], json!([]), "{path}");
    }
    assert_eq!(server.send("GET", "/v1/runs/first", &Value::Null).status, 200, "and still there for its owner");
}

#[test]
fn a_login_without_a_key_waits_until_somebody_approves_its_code() {
    let server = Server::start();
    let post = |path: &str, form: &str| {
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        server.send_as("", "POST", path, &headers, form.as_bytes())
    };
    let mut child = server.command(&format!("login {}", server.address)).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let said = lines.next().unwrap().unwrap();
    let code = said.rsplit(' ').next().unwrap().to_owned();
    let address = said.split(' ').nth(1).unwrap();
    let page = server.send_as("", "GET", address.trim_start_matches(&server.address), &[], &[]);
    assert!(page.body.contains(&code) && page.header("content-security-policy").contains("default-src 'none'"));
    let hostile = server.send_as("", "GET", "/activate?user_code=%22%3E%3Cscript%3E", &[], &[]).body;
    assert!(!hostile.contains("<script>"), "{hostile}");

    let approve = |code: &str, key: &str| post("/activate", &format!("user_code={code}&key={key}&decision=approve"));
    let (_, reader) = key(&server, "admin", "read");
    assert_eq!(approve(&code, "ft_x").status, 401);
    assert_eq!(approve(&code, &reader).status, 401, "who may not start runs lets nobody");
    assert_eq!(approve("BBBB-BBBB", &server.token).status, 404);
    assert_eq!(approve(&code.to_lowercase(), &server.token).status, 200);
    assert_eq!(approve(&code, &server.token).status, 404, "once");
    assert!(child.wait().unwrap().success());
    let stored = std::fs::read_to_string(server.path("home/.config/finetuner/login.json")).unwrap();
    let stored: Value = serde_json::from_str(&stored).unwrap();
    let token = stored["token"].as_str().unwrap();
    assert_ne!(token, server.token);
    let current = server.send_as(token, "GET", "/v1/keys/current", &[], &[]).json();
    assert_eq!((current["owner"].as_str(), current["scope"].as_str()), (Some("admin"), Some("run")));
}

#[test]
fn whoever_asks_for_a_login_gets_the_answers_of_the_standard() {
    let server = Server::start();
    let post = |path: &str, form: &str| {
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        server.send_as("", "POST", path, &headers, form.as_bytes())
    };
    let begun = post("/oauth/device", "client_id=x").json();
    let ask = |code: &str| {
        let answer = post(
            "/oauth/token",
            &format!("grant_type=urn:ietf:params:oauth:grant-type:device_code&device_code={code}"),
        );
        (answer.status, answer.json()["error"].as_str().unwrap_or_default().to_owned())
    };
    let code = begun["device_code"].as_str().unwrap();
    assert_eq!(ask(code), (400, "authorization_pending".into()));
    assert_eq!(ask(code), (400, "slow_down".into()));
    let user_code = begun["user_code"].as_str().unwrap();
    let denied = format!("user_code={user_code}&key={}&decision=deny", server.token);
    assert_eq!(post("/activate", &denied).status, 200);
    assert_eq!(ask(code), (400, "access_denied".into()));
    assert_eq!(ask(code), (400, "expired_token".into()));
    assert_eq!(post("/oauth/token", "grant_type=password").json()["error"], "invalid_request");
    assert_eq!(post("/oauth/token", "grant_type=password&device_code=x").json()["error"], "unsupported_grant_type");
}
