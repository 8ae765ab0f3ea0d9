use super::*;

const CORPUS: &str = "{\"_id\": \"d1\", \"title\": \"One\", \"text\": \"first\"}\n{\"_id\": 2, \"text\": \"second\"}\n\
                      {\"_id\": \"d3\", \"title\": \"\", \"text\": \"\"}\n";
const QUERIES: &str = "{\"_id\": \"q1\", \"text\": \"find one\"}\n{\"_id\": \"q2\", \"text\": \"find two\"}\n\
                       {\"_id\": \"q3\", \"text\": \"not judged\"}\n";
const QRELS: &str = "query-id\tcorpus-id\tscore\nq2\t2\t2\nq1\td1\t1\nq1\t2\t0\nq1\td3\t1\n";

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

fn fails(qrels: &str, corpus: &str, queries: &str, expected: &str) {
    let folder = folder(&[("corpus.jsonl", corpus), ("queries.jsonl", queries), ("qrels.tsv", qrels)]);
    let error = read_pairs(folder.path(), None).map(|data| data.decision).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn relevant_documents_become_pairs_with_title_and_text() {
    for name in ["qrels/test.tsv", "qrels_test.tsv"] {
        let folder = folder(&[("corpus.jsonl", CORPUS), ("queries.jsonl", QUERIES), (name, QRELS)]);
        let data = read_pairs(folder.path(), Some("test")).unwrap();
        let pairs: Vec<(&str, &str)> = data
            .examples
            .iter()
            .map(|example| match example {
                Example::Pair { anchor, positive } => (data.items.get(*anchor), data.items.get(*positive)),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(pairs, [("find two", "second"), ("find one", "One first")]);
        assert!(data.decision.ends_with("1 left out for an empty document"), "{}", data.decision);
    }
}

#[test]
fn a_split_that_is_not_there_names_those_that_are() {
    let with = |files: &[(&str, &str)], split: Option<&str>| {
        let folder = folder(files);
        read_pairs(folder.path(), split).map(|data| data.decision).unwrap_err().to_string()
    };
    let base = [("corpus.jsonl", CORPUS), ("queries.jsonl", QUERIES)];
    let files = [&base[..], &[("qrels/test.tsv", QRELS), ("qrels_train.tsv", QRELS)]].concat();
    assert!(with(&files, Some("dev")).contains("has no split `dev`; its splits are test, train"));
    assert!(with(&files, None).contains("name one of its splits (test, train)"));
    assert!(with(&[&base[..], &[("qrels.tsv", QRELS)]].concat(), Some("dev")).contains("it has no splits at all"));
    assert!(with(&[("photo.jpg", "")], None).contains("expected a BEIR folder with corpus.jsonl"));
    assert!(with(&[("qrels.tsv", QRELS)], None).contains("cannot read"));
}

#[test]
fn bad_lines_are_named() {
    fails("q1\td1\tNaN\n", CORPUS, QUERIES, "qrels.tsv:1: expected a finite number in column `score`, got `NaN`");
    fails(
        "q1\td1\n",
        CORPUS,
        QUERIES,
        "qrels.tsv:1: expected 3 columns (query, document, score) separated by tabs, got 2",
    );
    fails("q1\td9\t1\n", CORPUS, QUERIES, "qrels.tsv:1: document `d9` is not in corpus.jsonl");
    fails("q9\td1\t1\n", CORPUS, QUERIES, "qrels.tsv:1: query `q9` is not in queries.jsonl");
    fails("\n", CORPUS, QUERIES, "qrels.tsv: holds no judgements");
    fails("q1\td1\t0\n", CORPUS, QUERIES, "no document is judged relevant");
    fails(QRELS, "{\"_id\": \"d1\"}\n", QUERIES, "corpus.jsonl:1: expected {\"_id\": …, \"text\": …}");
    fails(QRELS, &format!("{CORPUS}{CORPUS}"), QUERIES, "corpus.jsonl:4: the id `d1` has occurred before");
    fails(
        QRELS,
        CORPUS,
        "{\"_id\": \"q1\", \"text\": \" \"}\n",
        "queries.jsonl:1: expected a text in column `text`, got none",
    );
}

#[test]
fn bad_utf8_is_named_with_its_line() {
    let folder = folder(&[("queries.jsonl", QUERIES), ("qrels.tsv", QRELS)]);
    std::fs::write(folder.path().join("corpus.jsonl"), b"\n{\"_id\": \"d1\", \"text\": \"\xC3\"}\n").unwrap();
    let error = read_pairs(folder.path(), None).map(|data| data.decision).unwrap_err().to_string();
    assert!(error.contains("corpus.jsonl:2: expected UTF-8, got the byte 0xC3"), "{error}");
}
