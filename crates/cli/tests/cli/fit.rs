//! `fit`: the spec from all its sources, the artifact, the report.

use finetuner::artifact::Manifest;
use serde_json::Value;

use super::support::Folder;

/// A short run on the tiny model.
pub(crate) const RUN: &str = "fit --model model --train-data train.csv --query-data test.csv --index-data train.csv \
    --kind labelled --learning-rate 1e-3 --epochs 2 --batch-size 16 --threads 1";

#[test]
fn a_run_prints_the_table_and_leaves_a_complete_artifact() {
    let folder = Folder::with_model();
    let ran = folder.run(&format!("{RUN} --output run"));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for word in ["pretrained", "finetuned", "delta", "mRR@20", "Recall@20", "queries got better", "The model is in run"]
    {
        assert!(ran.out.contains(word), "{word} in {}", ran.out);
    }
    assert!(ran.err.contains("read as labelled") && ran.err.contains("train: 8/8 in "), "{}", ran.err);
    assert!(!ran.err.contains('\u{1b}') && !ran.out.contains('\u{1b}'), "no colours where there is no terminal");

    let manifest = Manifest::read("run", folder.json("run/finetuner.json")).unwrap();
    manifest.verify(&folder.path("run")).unwrap();
    for file in [
        "config.json",
        "tokenizer.json",
        "model.safetensors",
        "modules.json",
        "1_Pooling/config.json",
        "README.md",
        "report.json",
    ] {
        assert!(manifest.files.contains_key(file), "{file} in {:?}", manifest.files.keys());
    }
    assert_eq!(manifest.spec["epochs"], 2);
    let left: Vec<String> = std::fs::read_dir(folder.path("run"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("checkpoint") || name.contains("partial") || name.contains("saving"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let report = folder.json("run/report.json");
    assert_eq!((report["metrics"]["k"].as_u64(), report["training"]["steps"].as_u64()), (Some(20), Some(8)));
}

#[test]
fn the_artifact_of_a_run_is_a_model_and_measures_as_the_report_says() {
    let folder = Folder::with_model();
    folder.succeed(&format!("{RUN} --output run"));
    let json = folder.succeed("evaluate --model run --data test.csv --index-data train.csv --kind labelled --json");
    let measured: Value = serde_json::from_str(&json).unwrap();
    let reported = folder.json("run/report.json");
    for metric in ["mrr", "map", "ndcg"] {
        assert_eq!(measured["metrics"][metric], reported["metrics"]["finetuned"][metric], "{metric}");
    }
}

#[test]
fn equal_runs_give_equal_bits_and_another_seed_others() {
    let folder = Folder::with_model();
    for (name, seed, threads) in [("a", 1, 1), ("b", 1, 2), ("c", 2, 1)] {
        let run = RUN.replace("--threads 1", &format!("--threads {threads}"));
        folder.succeed(&format!("{run} --keep last --seed {seed} --output {name}"));
    }
    let weights = |name: &str| folder.read(&format!("{name}/model.safetensors"));
    assert!(weights("a") == weights("b"), "the number of threads changed the result");
    assert!(weights("a") != weights("c"));
}

#[test]
fn json_gives_an_event_a_line_and_the_report_last() {
    let folder = Folder::with_model();
    let ran = folder.run(&format!("{RUN} --json --output run"));
    let events: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let named = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    assert!(events.iter().all(|event| event["event"].is_string()));
    assert!(named("progress") >= 6 && named("metric") >= 12 && named("state") == 2, "{events:?}");
    let last = events.last().unwrap();
    assert_eq!((last["event"].as_str(), last["output"].as_str()), (Some("report"), Some("run")));
    assert_eq!(last["report"], folder.json("run/report.json"));
    assert!(!ran.err.contains("train:"), "{}", ran.err);
}

#[test]
fn quiet_leaves_standard_error_empty() {
    let folder = Folder::with_model();
    // What a model of random numbers forgets is chance, and a warning is said in spite of `--quiet`.
    let ran = folder.run(&format!("{RUN} --quiet --canary=false --output run"));
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let folder = Folder::new();
    folder.write("run.toml", "train_data = \"train.csv\"\nepochs = 2\nbatch_size = 2\nseed = 2\n");
    let mut command = folder.command("fit run.toml --seed 4 --callback A(x=1,y=2) --callback B() --show-spec --json");
    command.env("FINETUNER_BATCH_SIZE", "3").env("FINETUNER_SEED", "3").env("FINETUNER_THREADS", "2");
    let output = command.output().unwrap();
    let spec: Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |field: &str| spec[field].as_u64().unwrap();
    assert_eq!((number("epochs"), number("batch_size"), number("seed"), number("threads")), (2, 3, 4, 2));
    assert_eq!(number("num_items_per_class"), 4);
    assert_eq!(spec["callbacks"], serde_json::json!(["A(x=1,y=2)", "B()"]));
}

#[test]
fn the_shown_spec_is_one_that_can_be_run_again() {
    let folder = Folder::new();
    let flags = "--train-data a.csv --learning-rate 2e-5 --resume --output runs/a --loss-options margin=0.3";
    let shown = folder.succeed(&format!("fit {flags} --show-spec"));
    folder.write("run.toml", &shown);
    assert_eq!(folder.succeed("fit run.toml --show-spec"), shown);
    let off = folder.succeed("fit run.toml --resume=false --show-spec");
    assert!(shown.contains("resume = true") && off.contains("resume = false"), "{shown}{off}");
}
