//! `evaluate`: tables and the documented JSON.

use serde_json::Value;

use super::support::Folder;

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn json_has_exactly_the_documented_keys() {
    let folder = Folder::with_model();
    let measured: Value =
        serde_json::from_str(&folder.succeed("evaluate --model model --data train.csv --k 5 --json")).unwrap();
    assert_eq!(keys(&measured), ["k", "metrics", "original", "queries"]);
    let expected = "mrr recall map ndcg ndcg_at_10 precision hit_rate f1 r_precision accuracy_at_1".split(' ');
    assert_eq!(keys(&measured["metrics"]), expected.collect::<Vec<_>>());
    assert_eq!((measured["k"].as_u64(), measured["queries"].as_u64()), (Some(5), Some(48)));
    let table = folder.succeed("evaluate --model model --data train.csv -k 5");
    assert!(table.starts_with("mrr ") && table.ends_with("Means over 48 queries at k = 5.\n"), "{table}");
}

#[test]
fn scored_pairs_give_correlations() {
    let folder = Folder::with_model();
    folder.write(
        "scored.csv",
        "sentence1,sentence2,score\ncard chip,card chip,1\nrain wind,rain snow,0.5\nsong drum,oven,0\n",
    );
    let measured: Value =
        serde_json::from_str(&folder.succeed("evaluate --model model --data scored.csv --json")).unwrap();
    assert_eq!(keys(&measured), ["pearson", "spearman", "pairs"]);
    assert!((measured["spearman"].as_f64().unwrap() - 1.0).abs() < 1e-12, "{measured}");
    assert!(folder.succeed("evaluate --model model --data scored.csv").contains("spearman  1.0000\n"));
}

#[test]
fn a_query_finds_itself_in_an_index_that_holds_it() {
    let folder = Folder::with_model();
    folder.write("same.csv", "anchor,positive\ncard chip,card chip pin\nrain wind,rain wind snow\n");
    folder.write("index.txt", "river boat\nsong drum\n");
    let json = folder.succeed("evaluate --model model --data same.csv --index-data index.txt --json");
    let measured: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((measured["metrics"]["mrr"].as_f64(), measured["queries"].as_u64()), (Some(1.0), Some(2)), "{json}");
}
