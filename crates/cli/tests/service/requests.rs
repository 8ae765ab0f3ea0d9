//! What is asked for, and what must not be.

use serde_json::{Value, json};
use service::status::Status;

use super::support::{Server, follow, new_run, wait};

#[test]
fn what_cannot_be_taken_is_refused_with_its_field() {
    let server = Server::start();
    let file = server.upload();
    for (method, path, body, status, code) in [
        ("GET", "/v1/nothing", json!(null), 404, "route_not_found"),
        ("PUT", "/v1/runs", json!(null), 405, "method_not_allowed"),
        ("GET", "/v1/runs/run-none", json!(null), 404, "run_not_found"),
        ("GET", "/v1/runs?limit=0", json!(null), 422, "invalid_value"),
        ("GET", "/v1/runs?limit=x", json!(null), 400, "invalid_query"),
        ("GET", "/v1/runs?status=DONE", json!(null), 400, "invalid_query"),
        ("GET", "/v1/runs?stats=CREATED", json!(null), 400, "invalid_query"),
        ("POST", "/v1/runs", json!("x"), 422, "invalid_body"),
        ("POST", "/v1/runs", json!({"spec": {}, "nam": "x"}), 422, "invalid_body"),
        ("POST", "/v1/runs", json!({"spec": {}}), 422, "invalid_spec"),
        ("POST", "/v1/runs", json!({"spec": {"train_data": "/etc/passwd"}}), 422, "invalid_spec"),
        ("POST", "/v1/runs", json!({"spec": {"train_data": file, "model": "../x"}}), 422, "invalid_spec"),
        ("POST", "/v1/runs", json!({"spec": {"train_data": file}, "name": "../x"}), 422, "invalid_value"),
        ("POST", "/v1/runs", json!({"spec": {"train_data": file}, "name": "<script>"}), 422, "invalid_value"),
        (
            "POST",
            "/v1/runs",
            json!({"spec": {"train_data": file}, "experiment": "a'; DROP TABLE runs"}),
            422,
            "invalid_value",
        ),
        ("POST", "/v1/runs", json!({"spec": {"train_data": file}, "resources": {"gpus": 9}}), 422, "invalid_value"),
        ("POST", "/v1/experiments", json!({"name": "a b"}), 422, "invalid_value"),
        ("POST", "/v1/keys", json!({"name": "k", "scope": "root"}), 422, "invalid_body"),
        ("DELETE", "/v1/keys/key-none", json!(null), 404, "key_not_found"),
        ("DELETE", "/v1/experiments/none", json!(null), 404, "experiment_not_found"),
    ] {
        let answer = server.send(method, path, &body);
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{method} {path} {body}: {answer:?}");
    }
    for body in ["", "{", "[1", "\u{0}", "{\"spec\": {\"train_data\": \"\\ud800\"}}"] {
        let answer = server.send_as(&server.token, "POST", "/v1/runs", &[], body.as_bytes());
        assert!([400, 422].contains(&answer.status) && !answer.code().is_empty(), "{body}: {answer:?}");
    }
    let large = vec![b' '; (1 << 20) + 1];
    assert_eq!(server.send_as(&server.token, "POST", "/v1/runs", &[], &large).code(), "body_too_large");
    let unknown = server.send("POST", "/v1/runs", &json!({"spec": {"train_data": file, "epoch": 1}})).json();
    assert_eq!(unknown["error"]["param"], "spec.epoch");
    assert!(unknown["error"]["message"].as_str().unwrap().contains("did you mean `epochs`?"), "{unknown}");
    assert_eq!(server.send("GET", "/v1/runs", &Value::Null).json()["data"], json!([]), "none was accepted");
}

#[test]
fn a_request_that_is_sent_again_is_one_run() {
    let server = Server::start();
    let file = server.upload();
    let mut body = serde_json::to_value(new_run(&file, "first", json!({}))).unwrap();
    body["name"] = Value::Null;
    let send = |body: &Value| {
        let headers = [("idempotency-key", "c0ffee")];
        server.send_as(&server.token, "POST", "/v1/runs", &headers, body.to_string().as_bytes())
    };
    let (first, again) = (send(&body), send(&body));
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.body, again.body);
    body["priority"] = json!(1);
    let other = send(&body);
    assert_eq!((other.status, other.code().as_str()), (422, "idempotency_key_reused"));
    let listed = server.send("GET", "/v1/runs", &Value::Null).json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    let named = serde_json::to_value(new_run(&file, "named", json!({}))).unwrap();
    assert_eq!(server.send("POST", "/v1/runs", &named).status, 201);
    assert_eq!(server.send("POST", "/v1/runs", &named).code(), "run_exists");
    let busy = server.send("DELETE", &format!("/v1/files/{file}"), &Value::Null);
    assert_eq!((busy.status, busy.code().as_str()), (409, "file_in_use"));
}

#[test]
fn runs_wait_for_their_turn_with_a_reason_and_pages_have_an_end() {
    let server = Server::start();
    let long = server.submit("long", json!({"epochs": 400}));
    let second = server.submit("second", json!({}));
    let urgent = {
        let mut new = new_run(&server.upload(), "urgent", json!({}));
        new.priority = 5;
        server.client().create_run(&new).unwrap()
    };
    let client = server.client();
    let reason = wait(|| client.run("second").unwrap().reason.filter(|reason| reason.contains("behind")));
    assert_eq!(reason, "behind 1 other runs");
    assert_eq!(client.run("urgent").unwrap().reason.unwrap(), "1 of 1 runs are at work");
    assert_eq!(server.send("DELETE", "/v1/runs/long", &Value::Null).code(), "run_not_ended");
    client.cancel("long").unwrap();
    for run in [&long, &second, &urgent] {
        follow(&client, &run.id);
    }
    let started = |name: &str| client.run(name).unwrap().started_at.unwrap();
    assert!(started("urgent") < started("second"), "the higher priority first");

    let mut names = Vec::new();
    let mut path = "/v1/runs?limit=2".to_owned();
    loop {
        let page = server.send("GET", &path, &Value::Null).json();
        names.extend(page["data"].as_array().unwrap().iter().map(|run| run["name"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/runs?limit=2&after={next}"),
            None => break,
        }
    }
    assert_eq!(names, ["urgent", "second", "long"]);
    for run in [&long, &second, &urgent] {
        assert_eq!(server.send("DELETE", &format!("/v1/runs/{}", run.id), &Value::Null).status, 204);
        assert_eq!(server.send("GET", &format!("/v1/runs/{}", run.id), &Value::Null).status, 404);
    }
    assert!(server.objects("runs/").is_empty());
    assert!(matches!(client.runs(None, 10), Ok(runs) if runs.is_empty()));
    assert_eq!(long.status, Status::Created);
}
