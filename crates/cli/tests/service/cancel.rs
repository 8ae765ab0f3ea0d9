//! Runs that are ended, and a server that goes down politely.

use finetuner::event::Event;
use serde_json::{Value, json};
use service::status::Status;

use super::support::{Server, follow, wait};

fn is_training(server: &Server, name: &str) {
    let client = server.client();
    for event in client.events(name, 0) {
        if matches!(event.unwrap().event, Event::Metric { name, .. } if name == "train_loss") {
            return;
        }
    }
    panic!("the run ended before it trained: {:?}", client.run(name));
}

#[test]
fn a_cancelled_run_saves_a_checkpoint_and_stays_cancelled() {
    let mut server = Server::start();
    let run = server.submit("long", json!({"epochs": 400}));
    is_training(&server, "long");
    #[cfg(target_os = "linux")]
    for worker in server.workers(&run.id) {
        for thread in std::fs::read_dir(format!("/proc/{worker}/task")).unwrap() {
            let stat = std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap();
            let niceness = stat.rsplit(')').next().unwrap().split_whitespace().nth(16);
            assert_eq!(niceness, Some("10"), "the server goes first: {stat}");
        }
    }
    server.succeed(&format!("login {} --token {}", server.address, server.token));
    server.succeed("cancel long");
    let events = follow(&server.client(), &run.id);
    assert!(events.iter().any(|event| matches!(event.event, Event::Checkpoint { step } if step > 0)));
    let run = server.client().run("long").unwrap();
    assert_eq!((run.status, run.attempts), (Status::Cancelled, 1));
    assert!(run.checkpoint_step.unwrap() > 0 && run.error.is_none());
    let checkpoints = server.send("GET", "/v1/runs/long/checkpoints", &Value::Null).json();
    assert_eq!(checkpoints["data"][0]["step"], run.checkpoint_step.unwrap());
    let kept = server.path("data/runs").join(&run.id).join("output/long/checkpoint.safetensors");
    assert!(kept.is_file());
    server.kill();
    server.restart();
    assert_eq!(server.client().cancel("long").unwrap().status, Status::Cancelled, "cancelling twice is no error");
    assert_eq!(server.send("DELETE", "/v1/runs/long", &Value::Null).status, 204);
    assert!(!kept.exists());
}

#[test]
fn a_run_that_waits_is_cancelled_at_once() {
    let server = Server::start();
    server.submit("long", json!({"epochs": 400}));
    let waiting = server.submit("waiting", json!({}));
    server.client().cancel("waiting").unwrap();
    let events = follow(&server.client(), &waiting.id);
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!(server.client().run("waiting").unwrap().attempts, 0);
}

#[test]
fn a_server_that_is_told_to_stop_lets_its_workers_save_and_goes_on_with_them_later() {
    let mut server = Server::start();
    let run = server.submit("first", json!({"epochs": 30}));
    is_training(&server, "first");
    server.stop();
    assert!(server.workers(&run.id).is_empty(), "no worker is left alone");
    server.restart();
    let events = follow(&server.client(), &run.id);
    let resumed = events
        .iter()
        .any(|event| matches!(&event.event, Event::Log { message, .. } if message.starts_with("resumed at step")));
    assert!(resumed, "{events:?}");
    let run = server.client().run("first").unwrap();
    assert_eq!((run.status, run.attempts), (Status::Finished, 2));
}

#[test]
fn a_run_that_takes_longer_than_it_asked_for_fails_and_says_so() {
    let server = Server::start();
    let mut new = super::support::new_run(&server.upload(), "slow", json!({"epochs": 4000}));
    new.resources.seconds = 3;
    let run = server.client().create_run(&new).unwrap();
    follow(&server.client(), &run.id);
    let run = wait(|| Some(server.client().run("slow").unwrap()));
    assert_eq!((run.status, run.error.unwrap().code.as_str()), (Status::Failed, "out_of_time"));
}
