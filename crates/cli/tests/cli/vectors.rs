//! Vectors from `encode` through `fit --model mlp` to `evaluate`, `encode` and `search`.

use serde_json::Value;

use super::support::Folder;

#[test]
fn what_encode_writes_is_learnt_measured_embedded_and_searched() {
    let folder = Folder::with_model();
    for (input, output) in [
        ("train.csv", "train.jsonl"),
        ("train.csv", "train.parquet"),
        ("test.csv", "test.parquet"),
        ("texts.txt", "texts.npy"),
    ] {
        folder.succeed(&format!("encode --model model --input {input} --output {output}"));
    }
    let fit = "fit --model mlp --model-options hidden_sizes=[8] --query-data test.parquet --loss SupConLoss \
               --learning-rate 1e-2 --epochs 3 --batch-size 24 --keep last";
    for data in ["train.jsonl", "train.parquet"] {
        folder.succeed(&format!("{fit} --train-data {data} --output from-{data}"));
    }
    let weights = |name: &str| folder.read(&format!("from-{name}/model.safetensors"));
    assert!(weights("train.jsonl") == weights("train.parquet"), "both formats hold the same numbers");

    let reported = folder.json("from-train.parquet/report.json")["metrics"]["finetuned"]["mrr"].as_f64().unwrap();
    let out = folder.succeed("evaluate --model from-train.parquet --data test.parquet --json");
    let measured: Value = serde_json::from_str(&out).unwrap();
    assert!((measured["metrics"]["mrr"].as_f64().unwrap() - reported).abs() < 1e-9, "{measured}, {reported}");

    let out = folder.succeed("encode --model from-train.parquet --input texts.npy --output -");
    let rows: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((rows.len(), rows[0]["embedding"].as_array().unwrap().len()), (72, 8));
    assert!(rows[0].get("text").is_none(), "a vector is not told again: {}", rows[0]);

    let line = String::from_utf8(folder.read("train.jsonl")).unwrap().lines().next().unwrap().to_owned();
    let first: Value = serde_json::from_str(&line).unwrap();
    let mut command = folder.command("search --model from-train.parquet --input train.jsonl --top 2 --json");
    let output = command.arg(first["embedding"].to_string()).output().unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["hits"][0]["id"], first["text"], "a vector finds itself, called by its text: {found}");
}

#[test]
fn what_is_no_vector_is_refused_where_one_is_asked_for() {
    let folder = Folder::with_model();
    folder.write("v.csv", "vector,label\n\"[1, 2]\",a\n\"[2, 1]\",b\n\"[1, 3]\",a\n\"[3, 1]\",b\n");
    folder.succeed("fit --model mlp --train-data v.csv --epochs 1 --batch-size 4 --output run");
    folder.fail(
        "search --model run --input v.csv hello",
        2,
        &["expected a vector", "`v.csv` holds vectors, got `hello`"],
    );
    folder.fail("encode --model run --input texts.txt --output -", 2, &["reads no texts", "finetuner encode"]);
    folder.fail("encode --model mlp --input v.csv --output -", 1, &["`mlp`", "is made by `finetuner fit`"]);
    folder.write("nan.csv", "vector,label\n\"[1, 2]\",a\n\"[nan, 1]\",b\n");
    let fit = "fit --model mlp --output none --train-data";
    folder.fail(&format!("{fit} nan.csv"), 1, &["nan.csv:3", "expected finite numbers in column `vector`, got NaN"]);
}

#[test]
fn a_preset_says_what_it_fills_and_why() {
    let folder = Folder::with_model();
    let fit = "fit --model model --preset small --train-data train.csv --query-data test.csv --epochs 1 --output run";
    let shown = folder.succeed(&format!("{fit} --show-spec"));
    assert!(shown.contains("learning_rate = 0.00002") || shown.contains("learning_rate = 2e-5"), "{shown}");
    assert!(shown.contains("epochs = 1\n") && shown.contains("preset = \"small:"), "{shown}");
    let ran = folder.run(fit);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.err.contains("preset `small`: `val_split` is 0.15, as "), "{ran:?}");
    assert!(!ran.err.contains("`epochs` is"), "{ran:?}");
    folder.fail("fit --preset large --train-data train.csv", 2, &["`preset`", "unknown preset `large`"]);
}
