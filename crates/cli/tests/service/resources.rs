//! What a run asks of the machine: given to it alone, and no more than that.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use service::status::Status;

use super::support::{Server, follow, new_run, wait};

#[test]
fn a_run_that_takes_more_disk_than_it_asked_for_fails_and_says_so() {
    let server = Server::start();
    let mut new = new_run(&server.upload(), "large", json!({"epochs": 4000}));
    new.resources.disk = 1_000_000;
    let run = server.client().create_run(&new).unwrap();
    follow(&server.client(), &run.id);
    let run = server.client().run("large").unwrap();
    assert_eq!(run.status, Status::Failed);
    let error = run.error.unwrap();
    assert_eq!(error.code, "out_of_disk");
    assert!(error.message.contains("asked for 1000000"), "{error:?}");
    wait(|| (!server.path("data/runs").join(&run.id).exists()).then_some(()));
}

#[test]
fn a_command_asks_for_what_its_run_needs() {
    let server = Server::with(&[("DISK", "5000000"), ("CPUS", "2")]);
    server.succeed(&format!("login {} --token {}", server.address, server.token));
    let fit = "fit --model mini --train-data train.csv --epochs 1 --detach --name";
    server.succeed(&format!("{fit} first --cpus 1 --memory 3000000000 --disk 4000000 --priority -2"));
    let run = server.client().run("first").unwrap();
    assert_eq!((run.resources.cpus, run.resources.memory, run.resources.disk), (1, 3_000_000_000, 4_000_000));
    assert_eq!(run.priority, -2);
    let refused = server.run(&format!("{fit} second --disk 6000000"));
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && error.contains("asked for 6000000, and this server has 5000000"), "{error}");
}

/// The GPUs that the worker of a run sees.
#[cfg(target_os = "linux")]
fn seen(server: &Server, run: &str) -> String {
    wait(|| {
        let worker = *server.workers(run).first()?;
        let environment = std::fs::read_to_string(format!("/proc/{worker}/environ")).ok()?;
        let seen = environment.split('\0').find_map(|one| one.strip_prefix("CUDA_VISIBLE_DEVICES="))?;
        Some(seen.to_owned())
    })
}

#[cfg(target_os = "linux")]
#[test]
fn a_gpu_is_one_runs_alone_whichever_server_started_it() {
    let mut server = Server::with(&[("GPUS", "2"), ("RUNS", "4")]);
    let start =
        |server: &Server, name: &str, device: &str| server.submit(name, json!({"epochs": 4000, "device": device})).id;
    let first = start(&server, "first", "auto");
    let seen_first = seen(&server, &first);
    server.kill();
    server.restart();
    let second = start(&server, "second", "auto");
    let both = BTreeSet::from([seen_first, seen(&server, &second)]);
    assert_eq!(both, BTreeSet::from(["0".to_owned(), "1".to_owned()]));
    let without = start(&server, "without", "cpu");
    assert_eq!(seen(&server, &without), "");
    let third = start(&server, "third", "auto");
    let reason = wait(|| server.client().run(&third).unwrap().reason);
    assert_eq!(reason, "needs 1 GPUs; 2 of 2 are taken");
    // The one that becomes free is the next one's.
    server.send("POST", "/v1/runs/first/cancel", &Value::Null);
    follow(&server.client(), &first);
    let free: BTreeSet<String> = [seen(&server, &second), seen(&server, &third)].into();
    assert_eq!(free.len(), 2);
}
