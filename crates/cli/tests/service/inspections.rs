//! Uploaded data looked over: what it is taken for, what is wrong with it, what could be done.

use serde_json::{Value, json};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use std::io::{Cursor, Write};
use std::path::Path;

use super::support::{Answer, Server, names, wait};

/// Brings a file of this name.
pub(crate) fn bring(server: &Server, name: &str, body: &[u8]) -> String {
    std::fs::write(server.path(name), body).unwrap();
    server.client().upload(&server.path(name), &mut |_, _| {}).unwrap().id
}

pub(crate) fn inspect(server: &Server, name: &str, body: &[u8]) -> Answer {
    let file = bring(server, name, body);
    server.send("POST", "/v1/inspections", &json!({"train_data": file}))
}

/// A zip of these entries, packed.
pub(crate) fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, body) in entries {
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        writer.start_file(*name, options).unwrap();
        writer.write_all(body).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A small picture of the repository.
pub(crate) fn picture(name: &str) -> Vec<u8> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../finetuner/tests/golden/pixels");
    std::fs::read(golden.join(name)).unwrap()
}

#[test]
fn a_table_is_taken_for_what_it_is_with_findings_first_rows_and_a_suggestion() {
    let server = Server::start();
    let rows: String = (0..60).map(|row| format!("how do I find thing {row},thing {row} lies there\n")).collect();
    let table = format!("anchor,positive\n{rows}how do I find thing 0,thing 0 lies there\n");
    let answer = inspect(&server, "pairs.csv", table.as_bytes());
    assert_eq!(answer.status, 200, "{answer:?}");
    let found = answer.json();
    assert_eq!((found["kind"].as_str(), found["rows"].as_u64()), (Some("pairs"), Some(61)));
    assert_eq!(found["columns"], json!(["anchor", "positive"]));
    assert_eq!(found["first"][0]["line"], 2);
    assert_eq!(found["first"][0]["cells"][1]["text"], "thing 0 lies there");
    assert!(
        !answer.body.contains("data/file-") && !answer.body.contains("questions/"),
        "a path of the server: {answer:?}"
    );
    let duplicates = found["findings"].as_array().unwrap().iter().find(|one| one["rule"] == "duplicates").unwrap();
    assert_eq!(
        (&duplicates["examples"][0]["path"], &duplicates["examples"][0]["line"]),
        (&json!("pairs.csv"), &json!(62))
    );
    assert!(!duplicates["consequence"].as_str().unwrap().is_empty());
    let suggestion = &found["suggestion"];
    assert_eq!(suggestion["goals"][0]["fields"], json!({"loss": "MultipleNegativesRankingLoss"}));
    assert_eq!(
        (&suggestion["models"][0]["name"], &suggestion["models"][0]["download"]),
        (&json!("mini"), &json!(false))
    );
    assert_eq!(suggestion["fields"]["val_split"], 0.2);
    // Nothing stays of it.
    wait(|| names(&server.path("data/questions")).is_empty().then_some(()));
}

#[test]
fn data_to_measure_with_is_looked_over_together() {
    let server = Server::start();
    let train =
        bring(&server, "train.csv", b"anchor,positive\nwhere is the cat,on the mat\nwhere is the dog,in the fog\n");
    let queries = bring(&server, "test.csv", b"anchor,positive\nwhere is the cat,on the mat\n");
    let found = server.send("POST", "/v1/inspections", &json!({"train_data": train, "query_data": queries})).json();
    let rules: Vec<&str> =
        found["findings"].as_array().unwrap().iter().map(|one| one["rule"].as_str().unwrap()).collect();
    assert!(rules.contains(&"leakage"), "{found}");
    assert_eq!(found["suggestion"]["fields"].get("val_split"), None, "{found}");
}

#[test]
fn what_cannot_be_read_says_where_and_why() {
    let server = Server::start();
    let answer = inspect(&server, "broken.csv", b"text,label\nfine,a\n\"never ends,b\n");
    assert_eq!((answer.status, answer.code().as_str()), (422, "invalid_data"), "{answer:?}");
    assert!(answer.body.contains("broken.csv:3") && !answer.body.contains("data/file-"), "{answer:?}");

    let file = bring(&server, "one.csv", b"text,label\na,b\n");
    for (body, status, code) in [
        (json!({"train_data": "/etc/passwd"}), 422, "invalid_spec"),
        (json!({"train_data": file, "query_data": "../x.csv"}), 422, "invalid_spec"),
        (json!({"train_data": "file-01jd3v9k3w7c8q2m6n5p4r1s0t"}), 404, "file_not_found"),
        (json!({"train_data": file, "kind": "shapes"}), 422, "invalid_spec"),
        (json!({"train_data": file, "output": "/tmp"}), 422, "invalid_body"),
    ] {
        let answer = server.send("POST", "/v1/inspections", &body);
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{body}: {answer:?}");
    }
    let announced = server.send("POST", "/v1/files", &json!({"name": "half.csv", "bytes": 10})).json();
    let answer = server.send("POST", "/v1/inspections", &json!({"train_data": announced["id"]}));
    assert_eq!((answer.status, answer.code().as_str()), (409, "file_not_whole"), "{answer:?}");
    let other = server.send("POST", "/v1/keys", &json!({"name": "x", "owner": "other", "scope": "run"})).json();
    let body = json!({"train_data": file}).to_string();
    let answer = server.send_as(other["token"].as_str().unwrap(), "POST", "/v1/inspections", &[], body.as_bytes());
    assert_eq!(answer.status, 404, "{answer:?}");
}

#[test]
fn an_inspection_takes_no_more_memory_than_it_may() {
    let server = Server::with(&[("QUESTION_MEMORY", "150000000")]);
    let row = format!("{},{}\n", "a long text ".repeat(500), "its label");
    let table = format!("text,label\n{}", (0..40_000).map(|number| format!("{number} {row}")).collect::<String>());
    let answer = inspect(&server, "large.csv", table.as_bytes());
    assert_eq!((answer.status, answer.code().as_str()), (503, "process_lost"), "{answer:?}");
    // The server is none the worse for it.
    assert_eq!(inspect(&server, "small.csv", b"text,label\na b,x\nc d,y\n").status, 200);
}

#[test]
fn a_zip_of_pictures_is_labelled_by_its_folders_or_by_its_table() {
    let server = Server::start();
    let (one, other) = (picture("colour.jpg"), picture("alpha.png"));
    let packed = zip(&[("mine/cats/1.jpg", &one), ("mine/dogs/2.png", &other), ("__MACOSX/mine/._1", b"x")]);
    let answer = inspect(&server, "mine.zip", &packed);
    assert_eq!(answer.status, 200, "{answer:?}");
    let found = answer.json();
    assert_eq!((&found["kind"], &found["pictures"], &found["classes"]), (&json!("labelled"), &json!(2), &json!(2)));
    let cells = &found["first"][0]["cells"];
    assert_eq!((&cells[0]["picture"], &cells[1]["text"]), (&json!("1.jpg"), &json!("cats")));
    assert!(cells[0]["jpeg"].as_str().unwrap().starts_with("/9j/"), "{cells}");
    assert_eq!(found["suggestion"]["models"][0]["name"], "dinov2-small");

    let table = b"text,image\na red thing,pictures/1.jpg\nsomething else,pictures/2.png\n";
    let packed = zip(&[("train.csv", table), ("pictures/1.jpg", &one), ("pictures/2.png", &other)]);
    let found = inspect(&server, "described.zip", &packed).json();
    assert_eq!(
        (&found["kind"], &found["texts"], &found["pictures"]),
        (&json!("pairs"), &json!(2), &json!(2)),
        "{found}"
    );
}

#[test]
fn hostile_zips_are_refused_and_leave_nothing_behind() {
    let server = Server::start();
    let zeros = vec![0; 65 << 20];
    let mut link = ZipWriter::new(Cursor::new(Vec::new()));
    link.add_symlink("train.csv", "/etc/passwd", SimpleFileOptions::default()).unwrap();
    let link = link.finish().unwrap().into_inner();
    let mut twice = zip(&[("a.csv", b"text,label\n"), ("b.csv", b"text,label\n")]);
    while let Some(at) = twice.windows(5).position(|window| window == b"b.csv") {
        twice[at] = b'a';
    }
    let whole = zip(&[("train.csv", b"text,label\na,b\n")]);
    for (name, packed, expected) in [
        ("absolute", zip(&[("/etc/cron.d/x.csv", b"x")]), "has an absolute path"),
        ("up", zip(&[("a/../../../up.csv", b"x")]), "leads out of the folder"),
        ("backslash", zip(&[("..\\up.csv", b"x")]), "backslash"),
        ("link", link, "is a link"),
        ("twice", twice, "two entries of the same name"),
        ("bomb", zip(&[("train.csv", &zeros)]), "unpacks to more than"),
        ("cut", whole[..whole.len() - 30].to_vec(), "expected a zip"),
        ("text", b"text,label\na,b\n".to_vec(), "expected a zip"),
        ("empty", zip(&[]), "holds no files"),
        ("tables", zip(&[("a.csv", b"x"), ("b.csv", b"y")]), "several tables"),
    ] {
        let answer = inspect(&server, &format!("{name}.zip"), &packed);
        assert_eq!((answer.status, answer.code().as_str()), (422, "invalid_data"), "{name}: {answer:?}");
        assert!(answer.body.contains(expected) && answer.body.contains(&format!("{name}.zip")), "{name}: {answer:?}");
    }
    wait(|| names(&server.path("data/questions")).is_empty().then_some(()));
    assert!(!server.path("up.csv").exists() && !server.path("data/up.csv").exists());
}

#[test]
fn every_field_of_a_spec_is_told() {
    let server = Server::start();
    let fields = server.send("GET", "/v1/fields", &Value::Null).json();
    let epochs = fields.as_array().unwrap().iter().find(|field| field["name"] == "epochs").unwrap();
    assert_eq!((&epochs["default"], &epochs["type"]), (&json!(5), &json!("a whole number")));
}
