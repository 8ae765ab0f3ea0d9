//! Ctrl-C saves and stops; what is resumed ends in the same bits.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::support::{Folder, Ran};

/// Long enough to be interrupted: 600 steps of a few milliseconds.
const RUN: &str = "fit --model model --train-data train.csv --kind labelled --learning-rate 1e-3 --epochs 200 \
    --batch-size 16 --threads 1 --val-split 0.2 --keep last --json";

/// Starts a run and sends it SIGINT as soon as it prints a line with these words.
fn interrupted(folder: &Folder, arguments: &str, at: &str) -> Ran {
    let mut command = folder.command(arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains(at)), "the run ended before it said {at}");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let out: String = lines.map(|line| line.unwrap() + "\n").collect();
    let ended = child.wait_with_output().unwrap();
    Ran { out, ..ended.into() }
}

#[cfg(unix)]
#[test]
fn an_interrupted_and_resumed_run_gives_the_same_bits_as_one_that_was_not() {
    let folder = Folder::with_model();
    let ran = interrupted(&folder, &format!("{RUN} --output stopped"), "\"phase\":\"train\"");
    assert_eq!(ran.code, Some(130), "{ran:?}");
    assert!(ran.err.contains("hint: run the same command with `--output stopped --resume`"), "{}", ran.err);
    assert!(ran.out.contains("\"event\":\"checkpoint\"") && ran.out.contains("\"stopped\""), "{}", ran.out);
    assert!(folder.path("stopped/checkpoint.safetensors").is_file());
    assert!(!folder.path("stopped/finetuner.json").exists(), "no artifact yet");
    folder.fail(&format!("{RUN} --output stopped"), 1, &["is not empty", "resume"]);
    folder.fail(&format!("{RUN} --seed 1 --output stopped --resume"), 1, &["other values of `seed`"]);

    folder.succeed(&format!("{RUN} --output stopped --resume"));
    folder.succeed(&format!("{RUN} --output whole"));
    let weights = |name: &str| folder.read(&format!("{name}/model.safetensors"));
    assert!(weights("stopped") == weights("whole"), "resuming changed the result");
    assert!(!folder.path("stopped/checkpoint.safetensors").exists());
}

#[cfg(unix)]
#[test]
fn a_run_interrupted_while_it_measures_the_untouched_model_can_be_started_again() {
    let folder = Folder::with_model();
    // Enough documents that they are not all embedded when the signal comes.
    let documents: String = (0..60_000).map(|number| format!("card {number},topic {}\n", number % 8)).collect();
    folder.write("index.csv", format!("text,label\n{documents}"));
    let measured = format!("{RUN} --query-data test.csv --index-data index.csv --output stopped");
    let ran = interrupted(&folder, &measured, "\"state\":\"started\"");
    assert_eq!(ran.code, Some(130), "{ran:?}");
    assert!(ran.err.contains("stopped before the first step; there is nothing to save yet"), "{}", ran.err);
    assert!(ran.err.contains("hint: run the same command again"), "{}", ran.err);
    assert!(ran.out.ends_with("{\"event\":\"state\",\"state\":\"stopped\"}\n"), "{}", ran.out);
    let files: Vec<_> = std::fs::read_dir(folder.path("stopped")).unwrap().collect();
    assert_eq!(files.len(), 1, "events only: {files:?}");
    folder.succeed("fit --model model --train-data train.csv --kind labelled --epochs 1 --output stopped");
}
