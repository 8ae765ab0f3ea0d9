//! Several processes train together, as torchrun and JobSets start them.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use super::support::{Folder, Ran};

const RUN: &str = "fit --model model --train-data train.csv --kind labelled --learning-rate 1e-3 --batch-size 16 \
    --val-split 0.2 --keep last --canary=false --threads 1 --json";

/// The same from texts, towards the embeddings that the model had.
const GUIDED: &str = "fit --model model --train-data texts.txt --loss MSELoss --guide model --learning-rate 1e-3 \
    --batch-size 16 --keep last --canary=false --threads 1 --json";

/// A port that nobody listens at.
fn port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Starts a process of each rank, in a folder and with arguments of its own beside [`RUN`].
fn start(own: &[(&Folder, &str)]) -> Vec<Child> {
    start_run(RUN, own)
}

fn start_run(run: &str, own: &[(&Folder, &str)]) -> Vec<Child> {
    let port = port();
    let started = own.iter().enumerate().map(|(rank, (folder, arguments))| {
        let mut command = folder.command(&format!("{run} {arguments}"));
        command.env("RANK", rank.to_string()).env("WORLD_SIZE", own.len().to_string());
        command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    });
    started.collect()
}

fn end(ranks: Vec<Child>) -> Vec<Ran> {
    ranks.into_iter().map(|rank| rank.wait_with_output().unwrap().into()).collect()
}

/// The losses of the steps that a run printed.
fn losses(out: &str) -> Vec<f64> {
    let events = out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    events.filter(|event| event["name"] == "train_loss").map(|event| event["value"].as_f64().unwrap()).collect()
}

/// Waits until rank 0 prints a line with these words; gives what it prints from there on.
fn when(rank: &mut Child, words: &str) -> impl FnOnce() -> String + use<> {
    let mut lines = BufReader::new(rank.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains(words)), "the run ended before it said {words}");
    move || lines.map(|line| line.unwrap() + "\n").collect()
}

fn signal(rank: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &rank.id().to_string()]).status().unwrap().success());
}

#[test]
fn processes_learn_what_one_learns_and_the_first_has_the_model() {
    let folder = Folder::with_model();
    let alone = losses(&folder.succeed(&format!("{RUN} --epochs 3 --output alone")));
    let ranks = end(start(&[
        (&folder, "--epochs 3 --output first"),
        (&folder, "--epochs 3 --output second"),
        (&folder, "--epochs 3"),
    ]));
    assert!(ranks.iter().all(|ran| ran.code == Some(0)), "{ranks:?}");
    assert!(ranks[0].out.contains("3 ranks share every batch"), "{}", ranks[0].out);
    let together = losses(&ranks[0].out);
    assert_eq!(together.len(), alone.len());
    for (one, other) in together.iter().zip(&alone) {
        assert!((one - other).abs() < 1e-4, "{together:?} instead of {alone:?}");
    }
    for (rank, ran) in ranks.iter().enumerate().skip(1) {
        assert!(ran.out.is_empty(), "{}", ran.out);
        assert!(ran.err.contains(&format!("rank {rank} of 3 has taken its part")), "{}", ran.err);
    }
    assert!(folder.path("first/finetuner.json").is_file());
    assert!(!folder.path("second").exists() && !folder.path("runs").exists());
    let found = folder.succeed("evaluate --model first --data test.csv --json");
    assert!(found.contains("mrr"), "{found}");
}

#[test]
fn ranks_that_were_started_differently_refuse_each_other() {
    let folder = Folder::with_model();
    let ranks = end(start(&[(&folder, "--output first"), (&folder, "--seed 3")]));
    ranks[0].assert_failed("the first", 1, &["rank 1: was started with another version or other settings"]);
    ranks[1].assert_failed("the second", 1, &["rank 0: ended the meeting"]);

    // The same name of a file, and other contents: of what is learnt from, of what is measured, and of the guide.
    for (file, run, arguments) in [
        ("train.csv", RUN, "--output learnt"),
        ("test.csv", RUN, "--output measured --query-data test.csv"),
        ("model/model.safetensors", GUIDED, "--output guided"),
    ] {
        let other = Folder::with_model();
        let mut bytes = other.read(file);
        let place = bytes.len() - 3;
        bytes[place] ^= 1;
        other.write(file, bytes);
        for ran in &end(start_run(run, &[(&folder, arguments), (&other, arguments)])) {
            assert!(ran.code == Some(1) && ran.err.contains("reads other data than rank 0"), "{file}: {ran:?}");
        }
    }
}

#[test]
fn a_variable_that_is_missing_or_wrong_is_named() {
    let folder = Folder::with_model();
    let with = |variables: &[(&str, &str)]| -> Ran {
        folder.command(&format!("{RUN} --output first")).envs(variables.iter().copied()).output().unwrap().into()
    };
    with(&[("WORLD_SIZE", "2")]).assert_failed("no rank", 2, &["`RANK`", "is missing beside `WORLD_SIZE`"]);
    with(&[("WORLD_SIZE", "2"), ("RANK", "0")]).assert_failed("no address", 2, &["`MASTER_ADDR`"]);
    with(&[("WORLD_SIZE", "2"), ("RANK", "2"), ("MASTER_ADDR", "x")]).assert_failed("too large", 2, &["less than"]);
    with(&[("WORLD_SIZE", "two")]).assert_failed("no number", 2, &["`WORLD_SIZE`", "`two`"]);
    assert_eq!(with(&[("WORLD_SIZE", "1"), ("RANK", "7")]).code, Some(0), "one process needs no others");
}

#[cfg(unix)]
#[test]
fn a_rank_that_is_lost_ends_the_others_and_the_checkpoint_stays() {
    let folder = Folder::with_model();
    let long = (&folder, "--epochs 4000 --output first");
    let mut ranks = start(&[long, long, long]);
    let rest = when(&mut ranks[0], "\"event\":\"checkpoint\"");
    signal(&ranks[1], "-KILL");
    let out = rest();
    let ranks = end(ranks);
    ranks[0].assert_failed("the first", 1, &["rank 1: is gone"]);
    assert!(out.contains("\"failed\""), "{out}");
    // The third hears of it from the second or from the first, whichever it waits for.
    assert!(ranks[2].code == Some(1) && ranks[2].err.contains("error: rank "), "{:?}", ranks[2]);
    assert!(folder.path("first/checkpoint.safetensors").is_file());
}

#[cfg(unix)]
#[test]
fn a_rank_that_is_asked_to_stop_stops_all_with_a_checkpoint() {
    let folder = Folder::with_model();
    let long = (&folder, "--epochs 4000 --output first");
    let mut ranks = start(&[long, long]);
    let rest = when(&mut ranks[0], "\"name\":\"train_loss\"");
    signal(&ranks[1], "-TERM");
    let out = rest();
    let ranks = end(ranks);
    assert_eq!((ranks[0].code, ranks[1].code), (Some(130), Some(0)), "{ranks:?}");
    assert!(out.contains("\"stopped\""), "{out}");
    assert!(folder.path("first/checkpoint.safetensors").is_file());
}
