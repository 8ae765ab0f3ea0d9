//! Hard negatives against sentence-transformers' `mine_hard_negatives`. The golden file and the program that made it are
//! in `golden/`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};

use engine::Cpu;
use finetuner::artifact::ModelFolder;
use finetuner::data::read;
use finetuner::encoder::{CrossEncoder, Model, ModelOptions};
use finetuner::mine::{Format, MineOptions, Pool, SynthesisOptions, mine, relations_table, synthesize, table};
use serde_json::Value;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn model() -> Model {
    Model::open(ModelFolder::open(&golden("mine/model")).unwrap(), &ModelOptions::default()).unwrap()
}

fn cross_encoder() -> CrossEncoder {
    CrossEncoder::open(&ModelFolder::open(&golden("cross_encoders/bert")).unwrap(), None).unwrap()
}

fn file() -> Value {
    serde_json::from_slice(&std::fs::read(golden("mine/golden.json")).unwrap()).unwrap()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn pool(file: &Value) -> Pool {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pairs.jsonl");
    let rows = file["pairs"].as_array().unwrap().iter().map(|row| format!("{row}\n")).collect::<String>();
    std::fs::write(&path, rows).unwrap();
    let corpus = texts(&file["corpus"]);
    Pool::from_dataset(&read(&path, None).unwrap(), corpus.iter().map(String::as_str)).unwrap()
}

/// Equal texts, equal labels, and scores to six digits; lists are laid end to end.
fn assert_equal(got: &[Value], expected: &[Value], what: &str) {
    let flat = |row: &[Value]| -> Vec<Value> {
        row.iter().flat_map(|value| value.as_array().cloned().unwrap_or_else(|| vec![value.clone()])).collect()
    };
    let (got, expected) = (flat(got), flat(expected));
    assert_eq!(got.len(), expected.len(), "{what}: {got:?} {expected:?}");
    for (got, expected) in got.iter().zip(&expected) {
        match (got.as_f64(), expected.as_f64()) {
            (Some(a), Some(b)) => assert!((a - b).abs() < 2e-6, "{what}: {a} {b}"),
            _ => assert_eq!(got, expected, "{what}"),
        }
    }
}

#[test]
fn rows_equal_those_of_sentence_transformers() {
    let file = file();
    let (pool, model, cross_encoder) = (pool(&file), model(), cross_encoder());
    for case in file["cases"].as_array().unwrap() {
        let options = &case["options"];
        let number = |name: &str| options[name].as_f64().map(|number| number as f32);
        let count = |name: &str| options[name].as_u64().map(|number| number as usize);
        let asked = MineOptions {
            range_min: count("range_min").unwrap_or(0),
            range_max: count("range_max"),
            max_score: number("max_score"),
            min_score: number("min_score"),
            absolute_margin: number("absolute_margin"),
            relative_margin: number("relative_margin"),
            num_negatives: count("num_negatives").unwrap_or(3),
            include_positives: options["include_positives"] == true,
            ..MineOptions::default()
        };
        let format = match options["output_format"].as_str() {
            Some("n-tuple") => Format::NTuple,
            Some("labeled-pair") => Format::LabelledPair,
            Some("labeled-list") => Format::LabelledList,
            _ => Format::Triplet,
        };
        let cross = (options["cross_encoder"] == true).then_some(&cross_encoder);
        let (mined, _) = mine(&pool, &model, cross, &Cpu::F32, &asked, &mut |_, _, _| Ok(())).unwrap();
        let table = table(&pool, &mined, format, asked.num_negatives, options["output_scores"] == true);
        let expected = case["rows"].as_array().unwrap();
        assert_eq!(table.rows.len(), expected.len(), "{options}");
        for (got, expected) in table.rows.iter().zip(expected) {
            assert_equal(got, expected.as_array().unwrap(), &options.to_string());
        }
    }
}

#[test]
fn random_negatives_pass_the_same_filters_and_follow_the_seed() {
    let file = file();
    let (pool, model) = (pool(&file), model());
    let of = |seed: u64, sampling| {
        let options = MineOptions { max_score: Some(0.9), num_negatives: 2, seed, sampling, ..MineOptions::default() };
        mine(&pool, &model, None, &Cpu::F32, &options, &mut |_, _, _| Ok(())).unwrap().0
    };
    use finetuner::mine::Sampling::{Random, Top};
    assert_eq!(of(1, Random), of(1, Random));
    assert_ne!(of(1, Random), of(2, Random));
    assert_ne!(of(1, Random), of(1, Top));
    for mined in of(1, Random) {
        assert!(mined.negatives.iter().all(|hit| hit.score <= 0.9));
        assert!(mined.negatives.is_sorted());
    }
}

#[test]
fn what_the_pairs_connect_is_never_a_negative() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pairs.csv");
    // `lost card` belongs to both queries, so `the cold bank` matches the first one too; a query is no negative of itself.
    std::fs::write(
        &path,
        "anchor,positive\nfreeze my card,lost card\nmy card is lost,lost card\nmy card is lost,the cold bank\nriver,winter\n",
    )
    .unwrap();
    let data = read(&path, None).unwrap();
    let pool = Pool::from_dataset(&data, ["river bank", "freeze my card"]).unwrap();
    let options = MineOptions { num_negatives: 5, ..MineOptions::default() };
    let (mined, skipped) = mine(&pool, &model(), None, &Cpu::F32, &options, &mut |_, _, _| Ok(())).unwrap();
    for mined in &mined[..2] {
        let mut found: Vec<&str> =
            mined.negatives.iter().map(|hit| pool.documents[hit.document as usize].as_str()).collect();
        found.sort_unstable();
        assert_eq!(found, ["river bank", "winter"]);
    }
    assert_eq!(skipped.known, 3 + 3 + 1);
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let refused = |options: MineOptions, cross: bool| options.check(cross).unwrap_err().to_string();
    let zero = MineOptions { num_negatives: 0, ..MineOptions::default() };
    assert!(refused(zero, false).contains("num_negatives"));
    let crossed = MineOptions { min_score: Some(0.5), max_score: Some(0.4), ..MineOptions::default() };
    assert!(refused(crossed, false).contains("above `max_score`"));
    assert!(refused(MineOptions::default(), true).contains("cross_encoder"));
    let file = file();
    let narrow = MineOptions { range_min: 5, range_max: Some(7), ..MineOptions::default() };
    let error = mine(&pool(&file), &model(), None, &Cpu::F32, &narrow, &mut |_, _, _| Ok(())).unwrap_err().to_string();
    assert!(error.contains("`range_max`: is 7"), "{error}");
}

#[test]
fn synthesis_gives_margins_of_the_cross_encoder() {
    let file = file();
    let (queries, corpus) = (texts(&file["corpus"]), texts(&file["pairs"][0]));
    let queries: Vec<&str> = queries.iter().map(String::as_str).collect();
    let more: Vec<String> = file["pairs"].as_array().unwrap().iter().flat_map(texts).collect();
    let mut corpus: Vec<&str> = corpus.iter().chain(&more).map(String::as_str).collect();
    corpus.push(queries[0]);
    corpus.sort_unstable();
    corpus.dedup();
    let options = SynthesisOptions { num_relations: 4, candidates: 8, ..SynthesisOptions::default() };
    let encoders = [model(), model()];
    let cross_encoder = cross_encoder();
    let of = |options: &SynthesisOptions| {
        synthesize(&queries, &corpus, &encoders, &cross_encoder, &Cpu::F32, options, &mut |_, _, _| Ok(()))
    };
    let relations = of(&options).unwrap();
    assert_eq!(relations.len(), queries.len() * 3);
    for relation in &relations {
        let (query, positive) = (queries[relation.query as usize], corpus[relation.positive as usize]);
        let negative = corpus[relation.negative as usize];
        assert!(query != positive && query != negative && positive != negative);
        let scores = cross_encoder.scores(&Cpu::F32, &[(query, positive), (query, negative)], |_| Ok(())).unwrap();
        assert!((relation.margin - (scores[0] - scores[1])).abs() < 1e-6);
    }
    let table = relations_table(&queries, &corpus, &relations);
    assert_eq!(table.columns, ["query", "positive", "negative", "margin"]);
    let mut csv = Vec::new();
    table.write_csv(&mut csv).unwrap();
    assert!(String::from_utf8(csv).unwrap().starts_with("query,positive,negative,margin\n"));
    assert_eq!(of(&options).unwrap(), relations, "the seed decides");
    let one = SynthesisOptions { num_relations: 1, ..options };
    assert!(of(&one).unwrap_err().to_string().contains("num_relations"));
}
