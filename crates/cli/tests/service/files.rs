//! Uploads: broken off, gone on with, wrong, too long.

use serde_json::{Value, json};

use super::support::{Server, wait};

fn announce(server: &Server, body: Value) -> String {
    let made = server.send("POST", "/v1/files", &body);
    assert_eq!(made.status, 201, "{made:?}");
    made.json()["id"].as_str().unwrap().to_owned()
}

fn send(server: &Server, id: &str, offset: &str, body: &[u8]) -> super::support::Answer {
    server.send_as(&server.token, "PATCH", &format!("/v1/files/{id}"), &[("upload-offset", offset)], body)
}

#[test]
fn an_upload_goes_on_where_it_broke_off_even_at_another_start_of_the_server() {
    let mut server = Server::start();
    let sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"; // of `test`
    let id = announce(&server, json!({"name": "a.csv", "bytes": 4, "sha256": sha256}));
    assert_eq!(send(&server, &id, "0", b"te").json()["received"], 2);
    let wrong = send(&server, &id, "0", b"te");
    assert_eq!((wrong.status, wrong.code().as_str()), (409, "wrong_offset"));
    let early = server.send("POST", "/v1/runs", &json!({"spec": {"train_data": id}}));
    assert_eq!(early.code(), "file_not_found", "not whole yet");
    server.kill();
    server.restart();
    let file = server.send("GET", &format!("/v1/files/{id}"), &Value::Null).json();
    assert_eq!((file["received"].as_u64(), file["ready"].as_bool()), (Some(2), Some(false)));
    let whole = send(&server, &id, "2", b"st").json();
    assert_eq!((whole["ready"].as_bool(), whole["sha256"].as_str()), (Some(true), Some(sha256)));
    assert_eq!(send(&server, &id, "4", b"x").code(), "file_whole");
    let found = server.send("GET", &format!("/v1/files?sha256={sha256}"), &Value::Null).json();
    assert_eq!(found["data"][0]["id"], id.as_str());
    assert_eq!(server.send("DELETE", &format!("/v1/files/{id}"), &Value::Null).status, 204);
    assert!(server.objects("files/").is_empty());
}

#[test]
fn what_arrives_is_what_was_announced_or_is_refused() {
    let server = Server::with(&[("MAX_FILE_BYTES", "1000")]);
    let id = announce(&server, json!({"name": "a.csv", "bytes": 4, "sha256": "0".repeat(64)}));
    let differs = send(&server, &id, "0", b"test");
    assert_eq!((differs.status, differs.code().as_str()), (422, "checksum_differs"));
    assert_eq!(server.send("GET", &format!("/v1/files/{id}"), &Value::Null).json()["received"], 0);
    let id = announce(&server, json!({"name": "b.csv", "bytes": 2}));
    assert_eq!(send(&server, &id, "0", b"test").code(), "file_longer");
    assert_eq!(send(&server, &id, "x", b"te").code(), "invalid_value");
    let id = announce(&server, json!({"name": "empty.csv", "bytes": 0}));
    assert_eq!(server.send("GET", &format!("/v1/files/{id}"), &Value::Null).json()["ready"], true);
    let large = server.send("POST", "/v1/files", &json!({"name": "c.csv", "bytes": 1001}));
    assert_eq!((large.status, large.code().as_str()), (413, "file_too_large"));
    for name in ["", "..", "../x.csv", "/etc/passwd", "a/b", "a\\b", "C:x", ".ssh", "a\u{0}b", "a\u{1b}]0;b", "-rf"] {
        let answer = server.send("POST", "/v1/files", &json!({"name": name, "bytes": 1}));
        assert_eq!((answer.status, answer.code().as_str()), (422, "invalid_value"), "{name:?}");
    }
    let odd = "Ü '; DROP TABLE files; -- <b>.csv";
    let id = announce(&server, json!({"name": odd, "bytes": 1}));
    assert_eq!(server.send("GET", &format!("/v1/files/{id}"), &Value::Null).json()["name"], odd);
}

#[test]
fn the_same_file_is_sent_once() {
    let server = Server::start();
    let mut sent = Vec::new();
    let client = server.client();
    let first = client.upload(&server.path("train.csv"), &mut |done, _| sent.push(done)).unwrap();
    let mut again = Vec::new();
    let second = client.upload(&server.path("train.csv"), &mut |done, _| again.push(done)).unwrap();
    assert_eq!(first, second);
    assert!(sent.len() > 1 && again == [first.bytes], "{sent:?} {again:?}");
}

#[test]
fn an_upload_survives_the_server() {
    let mut server = Server::start();
    const BYTES: u64 = 300_000_000;
    std::fs::File::create(server.path("large.csv")).unwrap().set_len(BYTES).unwrap();
    let (client, path) = (server.client(), server.path("large.csv"));
    let upload = std::thread::spawn(move || client.upload(&path, &mut |_, _| {}).unwrap());
    let arrived = || {
        let uploads = server.path("data/uploads");
        let names = super::support::names(&uploads);
        names.iter().filter_map(|name| uploads.join(name).metadata().ok()).map(|found| found.len()).sum::<u64>()
    };
    wait(|| (arrived() > 1_000_000).then_some(()));
    assert!(arrived() < BYTES, "too fast to be broken off");
    server.kill();
    server.restart();
    let file = upload.join().unwrap();
    assert!(file.ready && file.received == BYTES, "{file:?}");
}
