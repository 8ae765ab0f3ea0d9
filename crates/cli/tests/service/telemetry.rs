//! Spans that a collector of OpenTelemetry gets; the collector is a thread of the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::support::{Server, follow};

/// The ids that somebody's trace has: as in a header, and as in a span.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

struct Collector {
    address: String,
    /// Everything that came, one after the other.
    got: Arc<Mutex<Vec<u8>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let collector =
            Collector { address: format!("http://{}", listener.local_addr().unwrap()), got: Arc::default() };
        let got = collector.got.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let got = got.clone();
                std::thread::spawn(move || while take(stream.as_ref().unwrap(), &got).is_some() {});
            }
        });
        collector
    }

    fn has(&self, part: &[u8]) -> bool {
        self.got.lock().unwrap().windows(part.len()).any(|window| window == part)
    }
}

/// Takes a request; `None` when there are no more.
fn take(mut stream: &TcpStream, got: &Mutex<Vec<u8>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    assert!(head.starts_with("POST /v1/traces HTTP/1.1"), "{head}");
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap()];
    reader.read_exact(&mut body).ok()?;
    got.lock().unwrap().extend(body);
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    (0..hexadecimal.len()).step_by(2).map(|at| u8::from_str_radix(&hexadecimal[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn requests_and_runs_are_spans_in_the_callers_trace() {
    let collector = Collector::start();
    let mut server = Server::with(&[("TELEMETRY", &collector.address)]);
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let answer = server.send_as(&server.token, "GET", "/v1/runs?limit=7", &[("traceparent", &parent)], b"");
    assert_eq!(answer.status, 200);
    assert_eq!(server.send("GET", "/v1/runs/nothing", &Value::Null).status, 404);
    assert_eq!(server.send("GET", "/healthz", &Value::Null).status, 200);
    let run = server.submit("first", json!({}));
    follow(&server.client(), &run.id);
    server.stop(); // and what is left is sent

    for expected in [
        "service.name",
        "finetuner",
        "GET /v1/runs",
        "GET /v1/runs/{run}",
        "POST /v1/runs",
        "http.response.status_code",
        answer.header("x-request-id"),
        "finetuner.run.status",
        "FINISHED",
        &run.id,
    ] {
        assert!(collector.has(expected.as_bytes()), "{expected}");
    }
    assert!(collector.has(&bytes(TRACE)) && collector.has(&bytes(PARENT)));
    for never in ["/healthz", &server.token, "limit=7"] {
        assert!(!collector.has(never.as_bytes()), "{never}");
    }
    // Lines of the log are as short as they were.
    assert!(!server.log().contains("otel."), "{}", server.log());
}

#[test]
fn a_collector_that_is_away_is_missed_by_nobody() {
    let mut server = Server::with(&[("TELEMETRY", "http://127.0.0.1:9")]);
    let run = server.submit("first", json!({}));
    follow(&server.client(), &run.id);
    server.stop();
    assert!(server.log().contains("opentelemetry"), "{}", server.log());
}
