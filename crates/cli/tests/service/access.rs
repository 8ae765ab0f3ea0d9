//! Who may what, and sees what.

use serde_json::{Value, json};

use super::support::{Server, follow};

fn key(server: &Server, owner: &str, scope: &str) -> (String, String) {
    let made = server.send("POST", "/v1/keys", &json!({"name": "test", "owner": owner, "scope": scope}));
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned())
}

const ROUTES: [(&str, &str); 15] = [
    ("GET", "/v1/files"),
    ("POST", "/v1/files"),
    ("GET", "/v1/files/{file}"),
    ("PATCH", "/v1/files/{file}"),
    ("DELETE", "/v1/files/{file}"),
    ("GET", "/v1/experiments/default"),
    ("GET", "/v1/runs/{run}"),
    ("GET", "/v1/runs/{run}/events"),
    ("GET", "/v1/runs/{run}/logs"),
    ("GET", "/v1/runs/{run}/metrics"),
    ("GET", "/v1/runs/{run}/checkpoints"),
    ("GET", "/v1/runs/{run}/artifact"),
    ("GET", "/v1/runs/{run}/artifact/files/report.json"),
    ("POST", "/v1/runs/{run}/cancel"),
    ("DELETE", "/v1/runs/{run}"),
];

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
        for (method, path) in ROUTES {
            let answer = server.send_as(token, method, path, &[], &[]);
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
    let (_, stranger) = key(&server, "stranger", "admin");
    for (method, path) in ROUTES.iter().filter(|(_, path)| path.contains('{')) {
        for run in [run.id.as_str(), "first"] {
            let path = path.replace("{run}", run).replace("{file}", &file);
            let answer = server.send_as(&stranger, method, &path, &[("upload-offset", "0")], &[]);
            assert_eq!(answer.status, 404, "{method} {path}: {answer:?}");
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
