//! Servers and workers killed at any moment: every accepted run reaches one final state with one artifact, its events have
//! no gap, and nothing is left behind.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use service::client::Client;
use service::status::Status;
use service::wire::Run;

use super::support::{DEADLINE, Server, follow, names, new_run, say, signal, wait};

/// Random enough to meet every phase, the same in every run of the test.
struct Moments(u64);

impl Moments {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// Lines that workers have written so far.
fn seen(server: &Server, runs: &[Run]) -> usize {
    let logs = runs.iter().flat_map(|run| {
        let attempts = server.path("data/runs").join(&run.id).join("attempts");
        names(&attempts).into_iter().map(move |attempt| attempts.join(attempt).join("events.jsonl"))
    });
    logs.filter_map(|log| Some(std::fs::read_to_string(log).ok()?.lines().count())).sum()
}

fn assert_one_artifact(server: &Server, run: &str) {
    let artifact = server.client().artifact(run).unwrap();
    let files = artifact.files.keys().map(|name| format!("runs/{run}/attempts/{}/{name}", artifact.attempt));
    let expected: BTreeSet<String> = files.chain([format!("runs/{run}/artifact.json")]).collect();
    assert_eq!(server.objects(&format!("runs/{run}/")), expected);
    let folder = server.path(&format!("pulled-{run}"));
    server.client().download(run, &folder, &mut |_, _| {}).unwrap();
    let manifest = serde_json::from_slice(&std::fs::read(folder.join("finetuner.json")).unwrap()).unwrap();
    finetuner::artifact::Manifest::read(run, manifest).unwrap().verify(&folder).unwrap();
}

#[test]
fn a_killed_worker_goes_on_from_its_checkpoint_with_the_same_result() {
    let server = Server::start();
    let undisturbed = server.submit("undisturbed", json!({"epochs": 6}));
    follow(&server.client(), &undisturbed.id);
    let run = server.submit("killed", json!({"epochs": 6}));
    wait(|| server.client().run("killed").unwrap().checkpoint_step);
    for worker in server.workers(&run.id) {
        signal("-KILL", worker);
    }
    let events = follow(&server.client(), &run.id);
    let said = serde_json::to_string(&events).unwrap();
    assert!(said.contains("a worker was lost; attempt 2") && said.contains("resumed at step"), "{said}");
    assert_one_artifact(&server, &run.id);
    let weights = |run: &str| server.client().artifact(run).unwrap().files["model.safetensors"].sha256.clone();
    assert_eq!(weights("killed"), weights("undisturbed"));
}

#[test]
fn a_worker_outlives_its_server_and_is_found_by_the_next() {
    let mut server = Server::start();
    let run = server.submit("first", json!({"epochs": 30}));
    let (client, id) = (server.client(), run.id.clone());
    let follower = std::thread::spawn(move || follow(&client, &id));
    wait(|| server.client().run("first").unwrap().checkpoint_step);
    let before = server.workers(&run.id);
    server.kill();
    assert_eq!(server.workers(&run.id), before);
    server.restart();
    let events = follower.join().unwrap();
    assert_eq!(events, follow(&server.client(), &run.id), "who followed throughout has heard everything once");
    let run = server.client().run("first").unwrap();
    assert_eq!((run.status, run.attempts), (Status::Finished, 1), "the same worker finished it");
    assert_one_artifact(&server, &run.id);
}

#[test]
fn a_worker_that_hangs_is_replaced() {
    let server = Server::with(&[("PATIENCE_SECONDS", "4")]);
    let run = server.submit("stuck", json!({"epochs": 30}));
    wait(|| server.client().run("stuck").unwrap().checkpoint_step);
    for worker in server.workers(&run.id) {
        signal("-STOP", worker);
    }
    follow(&server.client(), &run.id);
    let run = server.client().run("stuck").unwrap();
    assert_eq!((run.status, run.attempts), (Status::Finished, 2));
}

#[test]
fn a_run_gets_no_more_memory_than_it_asked_for() {
    let server = Server::with(&[("MAX_LOSSES", "1")]);
    let mut new = new_run(&server.upload(), "small", json!({}));
    new.resources.memory = 40_000_000;
    let run = server.client().create_run(&new).unwrap();
    follow(&server.client(), &run.id);
    assert_eq!(server.client().run("small").unwrap().status, Status::Failed);
}

#[test]
fn a_run_whose_workers_are_always_killed_fails_and_says_what_may_help() {
    let server = Server::with(&[("MAX_LOSSES", "2")]);
    // One long epoch has no checkpoint for a long time.
    let training: String = (0..20_000).map(|number| format!("word {number},topic {}\n", number % 8)).collect();
    std::fs::write(server.path("train.csv"), format!("text,label\n{training}")).unwrap();
    let run = server.submit("unlucky", json!({"val_split": 0.0}));
    let mut killed = BTreeSet::new();
    while killed.len() < 2 {
        let worker = wait(|| server.workers(&run.id).into_iter().find(|worker| !killed.contains(worker)));
        signal("-KILL", worker);
        killed.insert(worker);
    }
    follow(&server.client(), &run.id);
    let run = server.client().run("unlucky").unwrap();
    let error = run.error.unwrap();
    assert_eq!((run.status, error.code.as_str()), (Status::Failed, "worker_lost"));
    assert!(error.message.contains("micro_batch_tokens"), "{error:?}");
    wait(|| names(&server.path("data/runs")).is_empty().then_some(()));
}

/// Says that it is enough, even where a test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Starts a run whenever fewer than `open` have not ended, until it is told to stop.
fn submit_again_and_again(client: &Client, file: &str, open: usize, accepted: &Mutex<Vec<Run>>, stop: &AtomicBool) {
    let mut waiting: Vec<String> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        waiting.retain(|run| !client.run(run).unwrap().status.is_final());
        if waiting.len() < open {
            let number = accepted.lock().unwrap().len();
            let mut new = new_run(file, "", json!({"epochs": 2, "seed": number}));
            new.name = None;
            let run = client.create_run(&new).unwrap();
            waiting.push(run.id.clone());
            accepted.lock().unwrap().push(run);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn whatever_is_killed_whenever_nothing_is_lost() {
    let mut server = Server::with(&[("RUNS", "2"), ("MAX_LOSSES", "1000")]);
    let mut moments = Moments(7);
    let (file, client) = (server.upload(), server.client().with_patience(DEADLINE));
    let kills: u32 = std::env::var("FINETUNER_TEST_KILLS").ok().map_or(60, |kills| kills.parse().unwrap());
    let (accepted, stop) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        let submitting = scope.spawn(|| submit_again_and_again(&client, &file, 3, &accepted, &stop));
        for kill in 0..kills {
            if kill % 5 == 4 {
                // Left alone for a while: another run is to end.
                let ended = || {
                    let runs = accepted.lock().unwrap().clone();
                    runs.iter().filter(|run| client.run(&run.id).unwrap().status.is_final()).count()
                };
                let before = ended();
                wait(|| (submitting.is_finished() || ended() > before).then_some(()));
            }
            // A moment is some events further on.
            let further = moments.next(6) as usize;
            let start = seen(&server, &accepted.lock().unwrap());
            wait(|| {
                let seen = seen(&server, &accepted.lock().unwrap());
                // Fewer: a run has ended, and its log is gone.
                (submitting.is_finished() || seen < start || seen >= start + further).then_some(())
            });
            if moments.next(2) == 0 {
                server.kill();
                server.restart();
            } else {
                let runs = accepted.lock().unwrap().clone();
                let workers: Vec<u32> = runs.iter().flat_map(|run| server.workers(&run.id)).collect();
                if !workers.is_empty() {
                    signal("-KILL", workers[moments.next(workers.len() as u64) as usize]);
                }
            }
        }
    });
    let accepted = accepted.into_inner().unwrap();
    for run in &accepted {
        follow(&client, &run.id);
        assert_eq!(client.run(&run.id).unwrap().status, Status::Finished);
        assert_one_artifact(&server, &run.id);
    }
    let known: BTreeSet<String> = client.runs(None, 100_000).unwrap().into_iter().map(|run| run.id).collect();
    assert_eq!(known, accepted.iter().map(|run| run.id.clone()).collect(), "no more than were accepted");
    wait(|| names(&server.path("data/runs")).is_empty().then_some(()));
    assert_eq!(names(&server.path("data/uploads")), Vec::<String>::new());
    assert_eq!(server.objects("files/").len(), 1);
    let attempts: u32 = accepted.iter().map(|run| client.run(&run.id).unwrap().attempts).sum();
    say(&format!("{kills} kills, {} runs in {attempts} attempts: nothing lost", accepted.len()));
}
