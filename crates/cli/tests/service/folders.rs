//! Data that is a folder here and a zip there, and what stands behind its name.

use std::path::Path;

use finetuner::spec::RunSpec;
use serde_json::json;
use service::status::Status;

use super::inspections::picture;
use super::support::Server;

/// A BEIR folder of so many queries, each with a document of its own.
fn beir(folder: &Path, number: usize) {
    std::fs::create_dir_all(folder.join("qrels")).unwrap();
    let write = |name: &str, line: &dyn Fn(usize) -> String, rows: &mut dyn Iterator<Item = usize>| {
        let text: String = rows.map(|row| line(row) + "\n").collect();
        std::fs::write(folder.join(name), text).unwrap();
    };
    let query = |row: usize| json!({"_id": format!("q{row}"), "text": format!("where is thing {row}")}).to_string();
    let document = |row: usize| {
        json!({"_id": format!("d{row}"), "title": format!("thing {row}"), "text": "lies there"}).to_string()
    };
    let judgement = |row: usize| format!("q{row}\td{row}\t1");
    write("queries.jsonl", &query, &mut (0..number));
    write("corpus.jsonl", &document, &mut (0..number));
    write("qrels/train.tsv", &judgement, &mut (0..number / 2));
    write("qrels/test.tsv", &judgement, &mut (number / 2..number));
}

#[test]
fn a_run_at_a_server_takes_the_splits_of_a_beir_folder_like_one_here() {
    let server = Server::start();
    beir(&server.path("things"), 40);
    std::fs::write(server.path("things/notes.txt"), "nobody's data").unwrap();
    server.succeed(&format!("login {} --token {}", server.address, server.token));
    let fit = "fit --model mini --train-data things:train --query-data things:test --epochs 1 --batch-size 8 --threads 1 \
               --max-length 8 --canary=false";
    server.succeed(&format!("{fit} --name there --output there"));
    server.succeed(&format!("{fit} --local --output here"));
    let report = |folder: &str| -> serde_json::Value {
        let text = std::fs::read_to_string(server.path(folder).join("report.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let (there, here) = (report("there"), report("here"));
    assert!(there["metrics"]["finetuned"].is_object(), "{there}");
    assert_eq!(there["metrics"], here["metrics"]);
    // Both splits are of one zip, which was sent once.
    assert_eq!(server.objects("files/").len(), 1);
    let spec = server.client().run("there").unwrap().spec;
    let id = spec["train_data"].as_str().unwrap().strip_suffix(":train").unwrap();
    assert_eq!(spec["query_data"], format!("{id}:test"));
}

#[test]
fn a_split_that_is_not_there_fails_with_those_that_are() {
    let server = Server::start();
    beir(&server.path("things"), 8);
    let client = server.client();
    let spec = RunSpec { train_data: server.path("things:dev"), ..RunSpec::default() };
    let spec = client.upload_spec(&spec, &mut |_, _, _| {}).unwrap();
    let answer = server.send("POST", "/v1/inspections", &json!({"train_data": spec["train_data"]}));
    assert_eq!(answer.status, 422, "{answer:?}");
    assert!(answer.body.contains("has no split `dev`; its splits are test, train"), "{answer:?}");
    let run = client.create_run(&super::support::new_run(
        spec["train_data"].as_str().unwrap(),
        "first",
        json!({"kind": null}),
    ));
    let run = run.unwrap();
    super::support::follow(&client, &run.id);
    let run = client.run("first").unwrap();
    assert_eq!(run.status, Status::Failed);
    assert!(run.error.unwrap().message.contains("has no split `dev`"));
}

#[test]
fn columns_that_are_told_are_told_there_too() {
    let server = Server::start();
    std::fs::write(server.path("products.csv"), "sku,name,about\n1,card chip,visa\n2,loan,debt\n").unwrap();
    let inspected = |columns: &str| {
        let spec = RunSpec { train_data: server.path(&format!("products.csv:{columns}")), ..RunSpec::default() };
        let spec = server.client().upload_spec(&spec, &mut |_, _, _| {}).unwrap();
        server.send("POST", "/v1/inspections", &json!({"train_data": spec["train_data"]}))
    };
    let answer = inspected("anchor=name,positive=about");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains("2 examples read as pairs"), "{answer:?}");
    let answer = inspected("anchor=name,positive=abot");
    assert_eq!(answer.status, 422, "{answer:?}");
    assert!(answer.body.contains("has no column `abot`, did you mean `about`?"), "{answer:?}");
}

#[test]
fn a_folder_of_pictures_is_what_it_is_here() {
    let server = Server::start();
    for (class, name) in [("cat", "colour.png"), ("dog", "palette.png")] {
        std::fs::create_dir_all(server.path("shop").join(class)).unwrap();
        std::fs::write(server.path("shop").join(class).join("1.png"), picture(name)).unwrap();
        std::fs::write(server.path("shop").join(class).join("2.png"), picture(name)).unwrap();
    }
    std::fs::write(server.path("shop/.hidden.png"), "x").unwrap();
    let spec = RunSpec { train_data: server.path("shop"), ..RunSpec::default() };
    let spec = server.client().upload_spec(&spec, &mut |_, _, _| {}).unwrap();
    let found = server.send("POST", "/v1/inspections", &json!({"train_data": spec["train_data"]})).json();
    assert_eq!((found["kind"].as_str(), found["rows"].as_u64()), (Some("labelled"), Some(4)), "{found}");

    std::fs::create_dir(server.path("nothing")).unwrap();
    let spec = RunSpec { train_data: server.path("nothing"), ..RunSpec::default() };
    let error = server.client().upload_spec(&spec, &mut |_, _, _| {}).unwrap_err().to_string();
    assert!(error.contains("expected a BEIR folder") && error.contains("found none"), "{error}");
}
