//! `mine`, `synthesize`, and cross-encoders in `evaluate`.

use serde_json::Value;

use super::support::Folder;

/// A cross-encoder of random weights.
const CROSS_ENCODER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../finetuner/tests/golden/cross_encoders/bert");

fn with_pairs() -> Folder {
    let folder = Folder::with_model();
    folder.write("pairs.csv", "anchor,positive\ncard chip,card pin\nrain wind,snow storm\nbread oven,flour yeast\n");
    folder
}

#[test]
fn mined_triplets_are_training_data() {
    let folder = with_pairs();
    let arguments = "mine --model model --data pairs.csv --corpus texts.txt --num-negatives 2";
    folder.succeed(&format!("{arguments} --output hard.csv"));
    let hard = String::from_utf8(folder.read("hard.csv")).unwrap();
    assert!(hard.starts_with("anchor,positive,negative\ncard chip,card pin,"), "{hard}");
    assert_eq!(hard.lines().count(), 1 + 3 * 2);
    let found: Value =
        serde_json::from_str(&folder.succeed("check --train-data hard.csv --model model --json")).unwrap();
    assert_eq!(found["warnings"], 0, "{found}");
    folder.succeed(&format!("{arguments} --output-format n-tuple --output-scores --output hard.csv"));
    let hard = String::from_utf8(folder.read("hard.csv")).unwrap();
    assert!(hard.starts_with("anchor,positive,negative_1,negative_2,score_1,score_2,score_3\n"), "{hard}");
    let lines = folder.succeed(&format!("{arguments} --output-format labeled-list --output -"));
    let line: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!((line["positive"].as_array().unwrap().len(), line["labels"].to_string()), (3, "[1,0,0]".into()));
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let folder = with_pairs();
    let arguments = "mine --model model --data pairs.csv --output hard.csv";
    folder.fail(&format!("{arguments} --include-positives"), 2, &["include_positives", "n-tuple"]);
    folder.fail(&format!("{arguments} --range-min 2 --range-max 3"), 2, &["range_max"]);
    folder.fail("mine --model model --data pairs.csv --output hard.parquet", 2, &["`.csv` or `.jsonl`"]);
    folder.fail("mine --model model --data train.csv --output hard.csv", 2, &["expected pairs or triplets"]);
    folder.fail(&format!("{arguments} --max-score 0.5 --cross-encoder model"), 1, &["is no cross-encoder"]);
}

#[test]
fn a_cross_encoder_synthesizes_scores_pairs_and_orders_hits() {
    let folder = with_pairs();
    folder.write("queries.txt", "card chip\nrain wind\n");
    folder.succeed(&format!(
        "synthesize --model model,model --cross-encoder {CROSS_ENCODER} --query-data queries.txt --corpus-data texts.txt \
         --num-relations 4 --output rows.csv"
    ));
    let rows = String::from_utf8(folder.read("rows.csv")).unwrap();
    assert!(rows.starts_with("query,positive,negative,margin\ncard chip,"), "{rows}");
    assert_eq!(rows.lines().count(), 1 + 2 * 3);

    folder.write("scored.csv", "sentence1,sentence2,score\ncard,bank,1\nriver,cold,0.5\nmoney,account,0\n");
    let json = folder.succeed(&format!("evaluate --model {CROSS_ENCODER} --data scored.csv --json"));
    let measured: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(measured["pairs"], 3);
    let reranked = format!("evaluate --model model --cross-encoder {CROSS_ENCODER} --data pairs.csv --rerank 2 --json");
    let measured: Value = serde_json::from_str(&folder.succeed(&reranked)).unwrap();
    assert_eq!(measured["queries"], 3);
    folder.fail(&format!("evaluate --model {CROSS_ENCODER} --data pairs.csv"), 2, &["orders what an embedding model"]);
}
