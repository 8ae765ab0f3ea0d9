//! Clients that ask for too much, too often or too slowly.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::{Server, key, new_run};

/// Sends a beginning and nothing more; gives what the server says until it closes the connection.
fn stall(server: &Server, beginning: &str) -> String {
    let mut stream = TcpStream::connect(server.address.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // It may be closed before all of it has been sent.
    let _ = stream.write_all(beginning.replace('\n', "\r\n").as_bytes());
    let (mut answer, started) = (Vec::new(), Instant::now());
    // A connection that is reset is closed, too.
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "still open after {:?}", started.elapsed());
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_client_that_sends_too_slowly_is_cut_off_and_others_are_not() {
    let server = Server::with(&[("REQUEST_SECONDS", "2")]);
    let file = server.send("POST", "/v1/files", &json!({"name": "a.csv", "bytes": 100})).json();
    let bearer = format!("host: x\nauthorization: Bearer {}\n", server.token);
    let file = file["id"].as_str().unwrap();
    std::thread::scope(|scope| {
        let stalled = [
            ("nothing", String::new(), ""),
            ("a part of the head", "GET /v1/runs HTTP/1.1\nhost: x\nx-slow: ".into(), ""),
            ("no body", format!("POST /v1/runs HTTP/1.1\n{bearer}content-length: 100\n\n{{\"spec\""), "408"),
            ("no form", "POST /oauth/token HTTP/1.1\nhost: x\ncontent-type: application/x-www-form-urlencoded\ncontent-length: 100\n\na=".into(), "408"),
            ("half a piece", format!("PATCH /v1/files/{file} HTTP/1.1\n{bearer}upload-offset: 0\ncontent-length: 100\n\nhalf"), "408"),
            ("a second request", "GET /healthz HTTP/1.1\nhost: x\n\nGET /hea".into(), "200"),
        ];
        for (what, beginning, status) in stalled {
            let server = &server;
            scope.spawn(move || {
                let answer = stall(server, &beginning);
                let first = answer.lines().next().unwrap_or_default();
                assert!(first.contains(status), "{what}: {answer}");
            });
        }
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(4) {
            assert_eq!(server.send("GET", "/v1/runs", &Value::Null).status, 200);
        }
    });
    let file = server.send("GET", &format!("/v1/files/{file}"), &Value::Null).json();
    assert_eq!(file["received"], 4, "what has arrived stays");
}

#[test]
fn whoever_asks_too_often_waits_and_nobody_else() {
    let server = Server::with(&[("REQUESTS_PER_MINUTE", "30"), ("ANONYMOUS_REQUESTS_PER_MINUTE", "20")]);
    let (_, other) = key(&server, "other", "read");
    let refusals = |token: &str, path: &str, count: usize| -> Vec<u16> {
        let mut statuses = Vec::new();
        for _ in 0..count {
            let answer = server.send_as(token, "GET", path, &[], &[]);
            if answer.status == 429 {
                assert_eq!((answer.code().as_str(), answer.header("retry-after")), ("too_many_requests", "5"));
            }
            statuses.push(answer.status);
        }
        statuses
    };
    let mine = refusals(&server.token, "/v1/runs", 40);
    assert_eq!((mine[0], mine[39]), (200, 429), "{mine:?}");
    assert_eq!(refusals(&other, "/v1/runs", 1), [200]);
    let wrong = refusals("ft_x", "/v1/runs", 30);
    assert_eq!((wrong[0], wrong[29]), (401, 429), "{wrong:?}");
    let anonymous = refusals("", "/activate", 2);
    assert_eq!(anonymous, [429, 429], "of the same address");
    assert_eq!(refusals(&other, "/v1/runs", 1), [200], "a key that counts is not that address");
    assert!(refusals("", "/healthz", 30).iter().all(|status| *status == 200));
}

#[test]
fn no_more_runs_wait_than_may() {
    let server = Server::with(&[("WAITING_RUNS", "3"), ("WAITING_RUNS_PER_KEY", "2")]);
    let long = server.submit("long", json!({"epochs": 400}));
    super::support::wait(|| server.client().run(&long.id).unwrap().started_at);
    let (_, other) = key(&server, "admin", "run");
    let file = server.upload();
    let send = |token: &str, name: &str| {
        let body = serde_json::to_vec(&new_run(&file, name, json!({}))).unwrap();
        server.send_as(token, "POST", "/v1/runs", &[], &body)
    };
    assert_eq!([send(&server.token, "a").status, send(&server.token, "b").status], [201, 201]);
    let full = send(&server.token, "c");
    assert_eq!((full.status, full.code().as_str(), full.header("retry-after")), (429, "queue_full", "5"));
    assert!(full.body.contains("one key may have 2 waiting"), "{full:?}");
    assert_eq!(send(&other, "d").status, 201);
    assert!(send(&other, "e").body.contains("this server may have 3 waiting"));
    server.client().cancel("a").unwrap();
    super::support::wait(|| server.client().run("a").unwrap().finished_at);
    assert_eq!(send(&server.token, "c").status, 201, "one has gone");
}

#[test]
fn bodies_have_an_end() {
    let server = Server::start();
    // One byte too much: of more than that the server would not read the rest, and its answer might be lost with it.
    let (json, large_form) = (vec![b'a'; (1 << 20) + 1], vec![b'a'; (1 << 14) + 1]);
    let none: &[(&str, &str)] = &[];
    let form: &[(&str, &str)] = &[("content-type", "application/x-www-form-urlencoded")];
    for (method, path, headers) in [
        ("POST", "/v1/runs", none),
        ("POST", "/v1/files", none),
        ("POST", "/v1/experiments", none),
        ("POST", "/v1/keys", none),
        ("POST", "/oauth/token", form),
        ("POST", "/activate", form),
    ] {
        let body = if headers.is_empty() { &json } else { &large_form };
        let answer = server.send_as(&server.token, method, path, headers, body);
        assert!([400, 413].contains(&answer.status), "{method} {path}: {answer:?}");
    }
    let chunked = "POST /v1/experiments HTTP/1.1\nhost: x\ntransfer-encoding: chunked\nconnection: close\n";
    let endless =
        format!("{chunked}authorization: Bearer {}\n\n100001\n{}\n0\n\n", server.token, "a".repeat((1 << 20) + 1));
    assert!(stall(&server, &endless).starts_with("HTTP/1.1 413"));
}
