//! What depends on the database: two requests at once, two servers at once, a database that goes away.

use std::sync::Barrier;

use serde_json::{Value, json};
use service::status::Status;

use super::support::{Answer, Server, follow, new_run, wait};

/// The answers to requests that are sent at the same moment.
fn at_once(count: usize, send: impl Fn(usize) -> Answer + Sync) -> Vec<Answer> {
    let barrier = Barrier::new(count);
    std::thread::scope(|scope| {
        let sent = |number| {
            let (send, barrier) = (&send, &barrier);
            scope.spawn(move || {
                barrier.wait();
                send(number)
            })
        };
        let threads: Vec<_> = (0..count).map(sent).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn the_same_request_several_times_at_once_is_one_run() {
    let server = Server::start();
    let mut body = serde_json::to_value(new_run(&server.upload(), "x", json!({}))).unwrap();
    body["name"] = Value::Null;
    let body = body.to_string();
    for round in 0..5 {
        let token = format!("round {round}");
        let headers = [("idempotency-key", token.as_str())];
        let answers = at_once(8, |_| server.send_as(&server.token, "POST", "/v1/runs", &headers, body.as_bytes()));
        for answer in &answers {
            assert_eq!((answer.status, &answer.body), (201, &answers[0].body));
        }
    }
    let listed = server.send("GET", "/v1/runs", &Value::Null).json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 5);
}

#[test]
fn requests_that_contradict_each_other_have_one_winner_and_no_server_error() {
    let server = Server::start();
    let file = server.upload();
    let named = serde_json::to_value(new_run(&file, "same", json!({}))).unwrap();
    let answers = at_once(6, |_| server.send("POST", "/v1/runs", &named));
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1, "{answers:?}");
    assert!(answers.iter().all(|answer| [201, 409].contains(&answer.status)), "{answers:?}");

    // An experiment and a file that are removed while a run comes that wants them.
    for round in 0..8 {
        let made = server.send("POST", "/v1/files", &json!({"name": "a.csv", "bytes": 0})).json();
        let file = made["id"].as_str().unwrap();
        let mut run = serde_json::to_value(new_run(file, &format!("run{round}"), json!({}))).unwrap();
        run["experiment"] = json!("e");
        let answers = at_once(3, |number| match number {
            0 => server.send("POST", "/v1/runs", &run),
            1 => server.send("DELETE", &format!("/v1/files/{file}"), &Value::Null),
            _ => server.send("DELETE", "/v1/experiments/e", &Value::Null),
        });
        let [run, file, experiment] = [0, 1, 2].map(|place| answers[place].status);
        assert!((run, file) == (201, 409) || (run, file) == (404, 204), "{answers:?}");
        assert!([204, 404, 409].contains(&experiment), "{answers:?}");
    }
}

#[test]
fn text_that_a_database_may_not_like_is_refused_or_kept() {
    let server = Server::start();
    for (method, path, body) in [
        ("POST", "/v1/experiments", json!({"name": "e", "description": "a\u{0}b"})),
        ("GET", "/v1/runs?name=%00", Value::Null),
        ("GET", "/v1/runs/%00", Value::Null),
        ("GET", "/v1/files?sha256=%00&after=%00", Value::Null),
        ("DELETE", "/v1/keys/%00", Value::Null),
    ] {
        let answer = server.send(method, path, &body);
        assert!([400, 422].contains(&answer.status) && !answer.code().is_empty(), "{path}: {answer:?}");
    }
    for text in
        ["'; DROP TABLE runs; --", "$1", "\\u0000", "<script>alert(1)</script>", "\u{1f600} %s ${HOME} \u{202e}"]
    {
        let answer = server.send("POST", "/v1/experiments", &json!({"name": "e", "description": text}));
        assert_eq!((answer.status, answer.json()["description"].as_str()), (201, Some(text)), "{answer:?}");
        assert!(answer.header("content-type").starts_with("application/json"));
        assert_eq!(server.send("GET", "/v1/experiments/e", &Value::Null).json()["description"], text);
        assert_eq!(server.send("DELETE", "/v1/experiments/e", &Value::Null).status, 204);
    }
}

#[test]
fn a_second_server_on_the_same_data_is_refused() {
    let mut server = Server::start();
    let same_folder = server.fails(&[("DATA", "data")]);
    assert!(same_folder.contains("another server is at work in `data`"), "{same_folder}");
    let Some(schema) = server.schema() else { return };
    let address = schema.address();
    let same_database = server.fails(&[("DATA", "other"), ("DATABASE", &address)]);
    assert!(same_database.contains("another server is at work on this database"), "{same_database}");
    server.kill();
    server.restart();
}

#[test]
fn a_run_goes_on_when_the_database_comes_back() {
    let server = Server::start();
    let Some(schema) = server.schema() else { return };
    let run = server.submit("first", json!({"epochs": 20}));
    let client = server.client();
    wait(|| client.run("first").unwrap().checkpoint_step);
    for _ in 0..3 {
        // Every session of the server, the one that keeps others away among them.
        let ended = schema.run(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
             AND pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' \
                         AND objid::bigint = hashtextextended('finetuner ' || current_schema(), 0) & 4294967295)",
        );
        assert_eq!(ended.trim(), "1");
        wait(|| {
            let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' \
                         AND objid::bigint = hashtextextended('finetuner ' || current_schema(), 0) & 4294967295";
            (schema.run(locks).trim() == "1").then_some(())
        });
    }
    follow(&client, &run.id);
    assert_eq!(client.run("first").unwrap().status, Status::Finished);
}
