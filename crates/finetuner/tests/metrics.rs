//! Metrics and correlations equal those of pytrec_eval, ranx, sentence-transformers and scipy to 1e-12, on the rankings
//! of `golden/metrics.json`, which `golden/metrics.py` makes.

#![expect(clippy::unwrap_used, reason = "helpers of tests stand outside test functions")]

use finetuner::evaluate::{Correlation, Judged, Metrics};
use serde_json::Value;

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/metrics.json")).unwrap()
}

fn judged(query: &Value) -> Judged {
    let number = |value: &Value| value.as_u64().unwrap() as u32;
    let ranking = query["ranking"].as_array().unwrap().iter().map(number);
    let pairs = query["relevant"].as_array().unwrap();
    let relevant: Vec<(u32, f32)> = pairs.iter().map(|pair| (number(&pair[0]), number(&pair[1]) as f32)).collect();
    Judged::new(ranking, &relevant)
}

/// Compares every metric that the tool gives; returns how many values were compared.
fn equals(tool: &str) -> usize {
    let golden = golden();
    let k = golden["k"].as_u64().unwrap() as usize;
    let mut compared = 0;
    for (number, query) in golden["queries"].as_array().unwrap().iter().enumerate() {
        let judged = judged(query);
        let metrics = Metrics::of(&judged, k);
        for (name, expected) in query[tool].as_object().unwrap() {
            let got = match Metrics::NAMES.iter().position(|known| known == name) {
                Some(index) => metrics.values()[index],
                None if name == "map_by_relevant" => judged.average_precision(k, judged.relevant()),
                None => panic!("no metric `{name}`"),
            };
            let expected = expected.as_f64().unwrap();
            assert!((got - expected).abs() < 1e-12, "query {number}: {name} is {got}, {tool} says {expected}");
            compared += 1;
        }
    }
    compared
}

#[test]
fn metrics_equal_pytrec_eval() {
    assert_eq!(equals("pytrec_eval"), 40 * 9);
}

#[test]
fn metrics_equal_ranx() {
    assert_eq!(equals("ranx"), 40 * 10);
}

#[test]
fn metrics_with_map_divided_by_the_smaller_of_relevant_and_k_equal_sentence_transformers() {
    assert!(equals("sentence_transformers") > 40 * 6);
}

#[test]
fn correlations_with_many_ties_equal_scipy() {
    let golden = golden();
    for sample in golden["correlation"].as_array().unwrap() {
        let pairs = sample["pairs"].as_array().unwrap();
        let pairs: Vec<(f64, f64)> = pairs.iter().map(|p| (p[0].as_f64().unwrap(), p[1].as_f64().unwrap())).collect();
        let correlation = Correlation::new(&pairs);
        assert!((correlation.pearson.unwrap() - sample["pearson"].as_f64().unwrap()).abs() < 1e-12);
        assert!((correlation.spearman.unwrap() - sample["spearman"].as_f64().unwrap()).abs() < 1e-12);
    }
}
