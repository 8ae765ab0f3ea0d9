//! From a first start to a model that is downloaded.

use std::os::unix::fs::PermissionsExt;

use finetuner::artifact::Manifest;
use finetuner::event::Event;
use serde_json::{Value, json};
use service::status::Status;

use super::support::{Server, follow, names, wait};

const FIT: &str = "fit --model mini --train-data train.csv --kind labelled --epochs 1 --batch-size 16 --threads 1 \
    --val-split 0.2 --max-length 8 --canary=false";

fn verify(folder: &std::path::Path) {
    let manifest = serde_json::from_slice(&std::fs::read(folder.join("finetuner.json")).unwrap()).unwrap();
    let manifest = Manifest::read("run", manifest).unwrap();
    assert!(manifest.files.contains_key("model.safetensors"));
    manifest.verify(folder).unwrap();
}

#[test]
fn fit_after_login_runs_at_the_server_and_brings_the_same_model_as_here() {
    let server = Server::start();
    server.succeed(&format!("login {} --token {}", server.address, server.token));
    let login = server.path("home/.config/finetuner/login.json");
    assert_eq!(std::fs::metadata(&login).unwrap().permissions().mode() & 0o777, 0o600);

    let out = server.succeed(&format!("{FIT} --name first --output there"));
    assert!(out.contains("The model is in there") && out.contains("Trained "), "{out}");
    verify(&server.path("there"));
    server.succeed(&format!("{FIT} --local --output here"));
    let weights = |name: &str| std::fs::read(server.path(name).join("model.safetensors")).unwrap();
    assert!(weights("there") == weights("here"), "the same spec gives other weights at the server");

    // Everything that is known of the run, over every route.
    let client = server.client();
    let run = client.run("first").unwrap();
    assert_eq!((run.status, run.attempts, run.experiment.as_str()), (Status::Finished, 1, "default"));
    let events = follow(&client, &run.id);
    for kind in ["log", "progress", "metric", "state"] {
        assert!(events.iter().any(|event| serde_json::to_value(&event.event).unwrap()["event"] == kind), "{kind}");
    }
    let states: Vec<&Event> =
        events.iter().map(|event| &event.event).filter(|event| matches!(event, Event::State { .. })).collect();
    assert_eq!(states.len(), 3, "{states:?}");
    let metrics = server.send("GET", "/v1/runs/first/metrics?name=train_loss&limit=100", &Value::Null).json();
    let steps = metrics["data"].as_array().unwrap().iter().map(|metric| metric["step"].as_u64().unwrap());
    assert!(steps.eq(1..=6), "{metrics}");
    let listed: Value = serde_json::from_str(&server.succeed("runs --json")).unwrap();
    assert_eq!((listed[0]["name"].as_str(), listed[0]["status"].as_str()), (Some("first"), Some("FINISHED")));
    assert!(server.succeed("runs").contains("first  FINISHED"));
    let logs = server.succeed("logs first");
    assert!(logs.contains("Z CREATED\n") && logs.ends_with("Z FINISHED\n"), "{logs}");
    assert_eq!(server.succeed("logs -f first").lines().last(), logs.lines().last());

    assert_eq!(server.succeed("pull first --output again"), "again\n");
    verify(&server.path("again"));
    let refused = server.run("pull first --output again");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("holds something already"), "{refused:?}");
    // What a worker needed goes after the last event.
    wait(|| names(&server.path("data/runs")).is_empty().then_some(()));
    assert_eq!(names(&server.path("data/uploads")), Vec::<String>::new());

    server.succeed("logout");
    assert!(!login.exists());
    let output = server.run("runs");
    assert!(String::from_utf8_lossy(&output.stderr).contains("finetuner login URL"), "{output:?}");
}

#[test]
fn a_run_can_be_started_and_left_alone() {
    let server = Server::start();
    let at_server = |arguments: &str| {
        let mut command = server.command(&format!("{arguments} --server {}", server.address));
        let output = command.env("FINETUNER_TOKEN", &server.token).output().unwrap();
        assert!(output.status.success(), "{arguments}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(at_server(&format!("{FIT} --name alone --experiment search --detach")), "alone\n");
    assert!(at_server("logs -f alone").ends_with("FINISHED\n"));
    let events = at_server(&format!("{FIT} --name told --experiment search --output told --json"));
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (report, events) = events.split_last().unwrap();
    assert_eq!((report["event"].as_str(), report["output"].as_str()), (Some("report"), Some("told")));
    assert!(events.iter().map(|event| event["sequence"].as_i64().unwrap()).eq(1..=events.len() as i64));
    let listed: Value = serde_json::from_str(&at_server("runs --experiment search --json")).unwrap();
    let names: Vec<&str> = listed.as_array().unwrap().iter().map(|run| run["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["told", "alone"]);

    let wrong = server
        .command(&format!("fit --train-data train.csv --epochs 0 --server {}", server.address))
        .env("FINETUNER_TOKEN", &server.token)
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    let unknown = server.run(&format!("fit --train-data train.csv --server {}", server.address));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there is no login for"), "{unknown:?}");
}

#[test]
fn events_can_be_read_in_pages_and_gone_on_with() {
    let server = Server::start();
    let run = server.submit("first", json!({}));
    let events = follow(&server.client(), &run.id);
    let mut paged = Vec::new();
    let mut after = "0".to_owned();
    loop {
        let page = server.send("GET", &format!("/v1/runs/first/events?limit=7&after={after}"), &Value::Null).json();
        paged.extend(page["data"].as_array().unwrap().clone());
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(json!(paged), serde_json::to_value(&events).unwrap());

    let middle = events[events.len() / 2].sequence.to_string();
    let stream = |last: &str| {
        let headers = [("accept", "text/event-stream"), ("last-event-id", last)];
        server.send_as(&server.token, "GET", "/v1/runs/first/events", &headers, &[])
    };
    let rest = stream(&middle);
    assert_eq!(rest.header("content-type"), "text/event-stream");
    let first = rest.body.lines().find_map(|line| line.strip_prefix("id: ")).unwrap();
    assert_eq!(first.parse::<i64>().unwrap(), middle.parse::<i64>().unwrap() + 1);
    assert_eq!(rest.body.matches("data: ").count(), events.len() - middle.parse::<usize>().unwrap());
    assert_eq!(stream(&events.len().to_string()).status, 204, "nothing comes any more");
    assert_eq!(stream("x").code(), "invalid_event_id");
}

#[test]
fn a_file_of_the_artifact_comes_whole_or_from_where_a_download_broke_off() {
    let server = Server::start();
    let run = server.submit("first", json!({}));
    let early = server.send("GET", "/v1/runs/first/artifact", &Value::Null);
    assert_eq!((early.status, early.code().as_str()), (409, "run_not_finished"));
    follow(&server.client(), &run.id);
    let artifact = server.client().artifact("first").unwrap();
    assert_eq!(artifact.id, run.artifact_id);
    let get = |headers: &[(&str, &str)]| {
        server.send_as(&server.token, "GET", "/v1/runs/first/artifact/files/report.json", headers, &[])
    };
    let whole = get(&[]);
    assert_eq!(whole.body.len() as u64, artifact.files["report.json"].bytes);
    let rest = get(&[("range", "bytes=10-")]);
    assert_eq!((rest.status, rest.body.as_str()), (206, &whole.body[10..]));
    let tag = whole.header("etag").to_owned();
    assert_eq!(get(&[("if-none-match", &tag)]).status, 304);
    for name in ["../../../../pepper", "..%2f..%2fartifact.json", "nothing"] {
        let path = format!("/v1/runs/first/artifact/files/{name}");
        assert_eq!(server.send("GET", &path, &Value::Null).status, 404, "{name}");
    }
}

#[test]
fn a_failed_run_says_why_here_as_there() {
    let server = Server::start();
    std::fs::write(server.path("bad.csv"), "text,label\na,1\n\"b\n").unwrap();
    let fit = FIT.replace("train.csv", "bad.csv");
    let output = server
        .command(&format!("{fit} --server {} --name bad", server.address))
        .env("FINETUNER_TOKEN", &server.token)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("bad.csv"), "{error}");
    let run = server.client().run("bad").unwrap();
    assert_eq!((run.status, run.error.unwrap().code.as_str()), (Status::Failed, "invalid_data"));

    // Rows cannot name pictures of the server either.
    for picture in ["/etc/secret.png", "../../../../pepper.png", "../other/x.jpg"] {
        std::fs::write(server.path("train.csv"), format!("image,label\n{picture},1\n")).unwrap();
        let run = server.submit(&format!("p{}", picture.len()), json!({"model": "mini"}));
        follow(&server.client(), &run.id);
        let error = server.client().run(&run.id).unwrap().error.unwrap();
        assert!(error.code == "invalid_data" && error.message.contains("leaves the folder"), "{error:?}");
    }
}

#[test]
fn a_server_can_be_checked_watched_and_has_its_folder_alone() {
    let mut server = Server::start();
    let get = |path: &str| server.send_as("", "GET", path, &[], &[]);
    assert_eq!((get("/healthz").body.as_str(), get("/readyz").body.as_str()), ("alive\n", "ready\n"));
    let metrics = get("/metrics").body;
    assert!(metrics.contains("finetuner_runs{status=\"CREATED\"} 0") && metrics.ends_with("# EOF\n"), "{metrics}");
    assert!(metrics.contains("route=\"/healthz\""), "{metrics}");
    assert_eq!(get("/healthz").header("x-request-id").len(), 26);
    assert_eq!(get("/openapi.json").json()["openapi"].as_str().map(|version| &version[..3]), Some("3.1"));
    server.stop();
    let checked = server.check();
    assert_eq!(checked.matches("ok: ").count(), 4, "{checked}");

    // What a crash between a row and its objects leaves goes at the next start.
    server.plant("files/file-orphan");
    server.plant("runs/run-orphan/attempts/1/a");
    assert_eq!(server.objects("").len(), 2);
    let orphans = ["runs/run-orphan/job.json", "uploads/file-x"];
    for orphan in orphans {
        let path = server.path("data").join(orphan);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    }
    server.restart();
    assert_eq!(server.client().owner().unwrap(), "admin", "the first key goes on");
    wait(|| orphans.iter().all(|orphan| !server.path("data").join(orphan).exists()).then_some(()));
    wait(|| server.objects("").is_empty().then_some(()));
}
