//! What goes with time, what comes back from a backup, and what an earlier release left.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use service::status::Status;

use super::support::{Server, follow, names, wait};

#[test]
fn what_is_too_much_goes_oldest_first_and_its_row_says_why() {
    let mut server = Server::start();
    for name in ["first", "second"] {
        let run = server.submit(name, json!({}));
        follow(&server.client(), &run.id);
    }
    let bytes =
        |name: &str| -> u64 { server.client().artifact(name).unwrap().files.values().map(|file| file.bytes).sum() };
    let room = bytes("second") + 100_000;
    server.stop();
    server.set("KEEP_BYTES", &room.to_string());
    server.restart();
    let gone = wait(|| server.client().run("first").unwrap().reason);
    assert!(gone.contains("the oldest of more than"), "{gone}");
    let answer = server.send("GET", "/v1/runs/first/artifact", &Value::Null);
    assert_eq!((answer.status, answer.code().as_str()), (410, "artifact_removed"));
    let first = server.client().run("first").unwrap();
    assert_eq!(first.status, Status::Finished);
    wait(|| server.objects(&format!("runs/{}/", first.id)).is_empty().then_some(()));
    server.client().download("second", &server.path("second"), &mut |_, _| {}).unwrap();
    assert!(!follow(&server.client(), "first").is_empty(), "its events stay");

    // A file that has gone says so, is refused for new runs and can be sent again.
    server.stop();
    server.set("KEEP_BYTES", "1");
    server.restart();
    wait(|| server.objects("").is_empty().then_some(()));
    let file = server.send("GET", "/v1/files", &Value::Null).json()["data"][0].clone();
    assert_eq!((file["ready"].as_bool(), file["received"].as_u64()), (Some(false), Some(0)), "{file}");
    assert!(file["reason"].as_str().unwrap().starts_with("removed: "), "{file}");
    let refused = server.send("POST", "/v1/runs", &json!({"spec": {"train_data": file["id"]}}));
    assert_eq!(refused.code(), "file_not_found");
    server.stop();
    server.set("KEEP_BYTES", "0");
    server.restart();
    assert_eq!(server.upload(), file["id"]);
    let again = server.submit("again", json!({}));
    follow(&server.client(), &again.id);
    assert_eq!(server.client().run("again").unwrap().status, Status::Finished);
}

#[test]
fn a_run_begins_with_what_another_has_learnt_which_stays_as_long_as_it_is_needed() {
    let server = Server::start();
    let first = server.submit("first", json!({}));
    let unfinished =
        server.send("POST", "/v1/runs", &json!({"spec": {"train_data": server.upload(), "model": "run:first"}}));
    assert_eq!((unfinished.status, unfinished.code().as_str()), (404, "model_not_found"));
    follow(&server.client(), &first.id);
    server.submit("long", json!({"epochs": 400}));
    let second = server.submit("second", json!({"model": "run:first"}));
    assert_eq!(second.spec["model"], format!("run:{}", first.id));
    let in_use = server.send("DELETE", "/v1/runs/first", &Value::Null);
    assert_eq!((in_use.status, in_use.code().as_str()), (409, "run_in_use"));
    server.client().cancel("long").unwrap();
    follow(&server.client(), &second.id);
    let third = server.submit("third", json!({"model": first.artifact_id}));
    follow(&server.client(), &third.id);
    let weights = |run: &str| server.client().artifact(run).unwrap().files["model.safetensors"].sha256.clone();
    assert_eq!(server.client().run("third").unwrap().status, Status::Finished);
    assert_eq!(weights("second"), weights("third"));
    let losses = |run: &str| -> Vec<f64> {
        let path = format!("/v1/runs/{run}/metrics?name=val_loss");
        let page = server.send("GET", &path, &Value::Null).json();
        page["data"].as_array().unwrap().iter().map(|metric| metric["value"].as_f64().unwrap()).collect()
    };
    let (first_losses, second_losses) = (losses("first"), losses("second"));
    assert_eq!(second_losses.first(), first_losses.last(), "it begins where the other ended");
    assert_ne!(second_losses.first(), first_losses.first());
    let (_, stranger) = super::support::key(&server, "stranger", "run");
    let file = server.client_with(&stranger).upload(&server.path("train.csv"), &mut |_, _| {}).unwrap().id;
    for model in ["run:first".to_owned(), format!("run:{}", first.id), first.artifact_id.clone()] {
        let body = json!({"spec": {"train_data": file, "model": model}}).to_string();
        let stolen = server.send_as(&stranger, "POST", "/v1/runs", &[], body.as_bytes());
        assert_eq!((stolen.status, stolen.code().as_str()), (404, "model_not_found"));
    }
    assert_eq!(server.send("DELETE", "/v1/runs/first", &Value::Null).status, 204, "no run needs it any more");
}

#[test]
fn a_copy_of_the_folder_of_a_stopped_server_is_a_backup() {
    let mut server = Server::start();
    let run = server.submit("first", json!({}));
    let before = follow(&server.client(), &run.id);
    server.stop();
    let copied = Command::new("cp").args(["-r", "data", "copy"]).current_dir(server.path("")).status().unwrap();
    assert!(copied.success());
    let dump = server.schema().map(|schema| schema.dump());
    std::fs::remove_dir_all(server.path("data")).unwrap();
    if let (Some(schema), Some(dump)) = (server.schema(), dump) {
        schema.restore(&dump);
    }
    std::fs::rename(server.path("copy"), server.path("data")).unwrap();
    assert!(server.check().contains("ok: database"));
    server.restart();
    assert_eq!(follow(&server.client(), &run.id), before, "under the same key");
    server.client().download("first", &server.path("first"), &mut |_, _| {}).unwrap();
    let next = server.submit("next", json!({"model": "run:first"}));
    follow(&server.client(), &next.id);
    assert_eq!(server.client().run("next").unwrap().status, Status::Finished);
}

/// A database as each released schema left it, with the server's secret and the token of its first key.
const RELEASED: [(&str, &str); 1] = [("schema1", include_str!("schema1/token"))];

#[test]
fn the_database_of_every_release_is_brought_up_to_date() {
    for (release, token) in RELEASED {
        let mut server = Server::with(&[("DATABASE", "")]);
        server.stop();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/service").join(release);
        for file in names(&server.path("data")).iter().filter(|name| name.starts_with("finetuner.sqlite")) {
            std::fs::remove_file(server.path("data").join(file)).unwrap();
        }
        for file in ["finetuner.sqlite", "pepper"] {
            std::fs::copy(from.join(file), server.path("data").join(file)).unwrap();
        }
        server.token = token.trim().to_owned();
        server.restart();
        let runs = server.client().runs(None, 10).unwrap();
        let statuses: Vec<Status> = runs.iter().map(|run| run.status).collect();
        assert_eq!(statuses, [Status::Cancelled, Status::Finished]);
        assert!(!follow(&server.client(), "first").is_empty());
        let run = server.submit("new", json!({}));
        follow(&server.client(), &run.id);
        assert_eq!(server.client().run("new").unwrap().status, Status::Finished);
        // And what was old already when limits came goes.
        server.stop();
        server.set("KEEP_DAYS", "3650");
        server.restart();
        wait(|| server.client().run("first").unwrap().reason.filter(|reason| reason.contains("3650 days")));
        assert_eq!(server.client().run("new").unwrap().reason, None);
    }
}
