//! What came of a run, to look at, to try and to take home.

use std::io::{Cursor, Read};
use std::path::Path;

use serde_json::{Value, json};
use service::status::Status;
use zip::ZipArchive;

use super::inspections::{bring, picture, zip};
use super::support::{Server, follow, names, new_run, wait};

/// A finished run of the server's training data.
fn finished(server: &Server) -> String {
    let run = server.submit("tried", json!({"loss": "SupConLoss", "epochs": 2}));
    follow(&server.client(), &run.id);
    assert_eq!(server.client().run(&run.id).unwrap().status, Status::Finished);
    run.id
}

#[test]
fn a_finished_run_shows_samples_answers_searches_and_is_one_zip() {
    let server = Server::start();
    let run = finished(&server);
    let at = |path: &str| format!("/v1/runs/{run}/{path}");

    let samples = server.send("GET", &at("examples"), &Value::Null).json();
    let samples = samples["data"].as_array().unwrap();
    assert!(!samples.is_empty());
    for sample in samples {
        assert!(
            sample["query"]["text"].is_string() && sample["before"]["hits"][0]["item"]["text"].is_string(),
            "{sample}"
        );
        assert!(sample["after"]["rank"].is_u64() || sample["after"]["rank"].is_null());
    }

    let search = |body: Value| server.send("POST", &at("search"), &body);
    let found = search(json!({"query": "bread", "k": 3})).json();
    let before = found["pretrained"].as_array().unwrap();
    let after = found["finetuned"].as_array().unwrap();
    assert_eq!((before.len(), after.len(), &found["documents"]), (3, 3, &json!(96)));
    assert!(after[0]["item"]["text"].as_str().unwrap().contains("bread"), "{found}");
    let scores: Vec<f64> = after.iter().map(|hit| hit["score"].as_f64().unwrap()).collect();
    assert!(scores[0] >= scores[1] && scores[1] >= scores[2] && scores[0] <= 1.000001, "{found}");
    assert_ne!(before[0]["score"], after[0]["score"], "both models are the same: {found}");

    // The process that answered is asked again, and again after a refusal.
    let process = names(&server.path("data/questions"));
    assert_eq!(process.len(), 1);
    let like = search(json!({"like": 0, "k": 2})).json();
    assert_eq!(like["like"]["text"], "card card 0");
    assert_ne!(like["finetuned"][0]["document"], 0, "{like}");
    let refused = search(json!({"like": 96}));
    assert_eq!((refused.status, refused.code().as_str()), (422, "invalid_spec"), "{refused:?}");
    let own = search(json!({"query": "a place to sleep", "texts": ["a hotel room", "quarterly earnings"]})).json();
    assert_eq!((&own["documents"], &own["finetuned"][0]["item"]["text"]), (&json!(2), &json!("a hotel room")));
    assert_eq!(names(&server.path("data/questions")), process);
    for (body, param) in [
        (json!({}), "query"),
        (json!({"query": "  "}), "query"),
        (json!({"query": "x", "like": 1}), "query"),
        (json!({"query": "x", "k": 0}), "k"),
        (json!({"query": "x", "k": 51}), "k"),
        (json!({"query": "x", "texts": []}), "texts"),
        (json!({"query": "x", "texts": ["a", " "]}), "texts[1]"),
    ] {
        let answer = search(body);
        assert_eq!((answer.status, answer.json()["error"]["param"].as_str()), (422, Some(param)), "{answer:?}");
    }

    let link = server.send("POST", &at("artifact/link"), &Value::Null).json();
    let url = link["url"].as_str().unwrap();
    let address = format!("{}{url}", server.address);
    let archive = ureq::get(&address).call().unwrap().body_mut().with_config().limit(1 << 30).read_to_vec().unwrap();
    let mut archive = ZipArchive::new(Cursor::new(archive)).unwrap();
    let artifact = server.send("GET", &at("artifact"), &Value::Null).json();
    let files = artifact["files"].as_object().unwrap();
    assert_eq!(archive.len(), files.len());
    for (name, file) in files {
        let mut body = Vec::new();
        archive.by_name(&format!("tried/{name}")).unwrap().read_to_end(&mut body).unwrap();
        assert_eq!(body.len() as u64, file["bytes"].as_u64().unwrap(), "{name}");
    }
    // A ticket is for one run and an hour of its own; without one a key is needed.
    let refused = |path: &str| server.send_as("", "GET", path, &[], &[]).status;
    assert_eq!(refused(&at("artifact.zip")), 401);
    let (until, proof) = url.split_once("ticket=").unwrap().1.split_once('.').unwrap();
    let later = until.parse::<u64>().unwrap() + 1;
    assert_eq!(refused(&at(&format!("artifact.zip?ticket={later}.{proof}"))), 401);
    assert_eq!(refused(&at(&format!("artifact.zip?ticket=1.{proof}"))), 401);
    assert_eq!(refused(&at("artifact.zip?ticket=x")), 401);
    let other = url.replace(&run, "run-01jd3v9k3w7c8q2m6n5p4r1s0t");
    assert_eq!(refused(&other), 401);
}

#[test]
fn a_run_that_has_not_finished_or_is_anothers_cannot_be_tried() {
    let server = Server::start();
    let run = server.submit("endless", json!({"epochs": 100_000})).id;
    for (method, path) in [("GET", "examples"), ("POST", "search"), ("POST", "artifact/link"), ("GET", "artifact.zip")]
    {
        let body = if path == "search" { json!({"query": "x"}) } else { Value::Null };
        let answer = server.send(method, &format!("/v1/runs/{run}/{path}"), &body);
        assert_eq!((answer.status, answer.code().as_str()), (409, "run_not_finished"), "{path}: {answer:?}");
    }
    let other = server.send("POST", "/v1/keys", &json!({"name": "x", "owner": "other", "scope": "run"})).json();
    let reader = server.send("POST", "/v1/keys", &json!({"name": "x", "scope": "read"})).json();
    for (method, path) in [("GET", "examples"), ("POST", "search"), ("POST", "artifact/link"), ("GET", "artifact.zip")]
    {
        let path = format!("/v1/runs/{run}/{path}");
        let token = other["token"].as_str().unwrap();
        assert_eq!(server.send_as(token, method, &path, &[], br#"{"query":"x"}"#).status, 404, "{path}");
    }
    let path = format!("/v1/runs/{run}/search");
    let token = reader["token"].as_str().unwrap();
    assert_eq!(server.send_as(token, "POST", &path, &[], br#"{"query":"x"}"#).status, 403);
}

#[test]
fn a_zip_of_pictures_is_trained_on_and_searched() {
    let server = Server::start();
    network(&server.path("home/.cache/huggingface/hub"));
    let names =
        ["colour.jpg", "colour.png", "colour.bmp", "palette.png", "grey.jpg", "alpha.png", "turned.jpg", "cmyk.jpg"];
    let pictures: Vec<Vec<u8>> = names.iter().map(|name| picture(name)).collect();
    let inside: Vec<String> = (0..32)
        .map(|number| format!("all/{}/{number}-{}", ["left", "right"][number % 2], names[number % names.len()]))
        .collect();
    let entries: Vec<(&str, &[u8])> =
        inside.iter().enumerate().map(|(number, name)| (name.as_str(), &pictures[number % names.len()][..])).collect();
    let file = bring(&server, "pictures.zip", &zip(&entries));
    let spec =
        json!({"model": "test/network", "kind": null, "max_length": null, "batch_size": 8, "num_items_per_class": 2});
    let run = server.client().create_run(&new_run(&file, "pictures", spec)).unwrap().id;
    follow(&server.client(), &run);
    let ended = server.client().run(&run).unwrap();
    assert_eq!(ended.status, Status::Finished, "{ended:?}");
    let samples = server.send("GET", &format!("/v1/runs/{run}/examples"), &Value::Null).json();
    assert!(samples["data"][0]["query"]["jpeg"].as_str().unwrap().starts_with("/9j/"), "{samples}");
    let found = server.send("POST", &format!("/v1/runs/{run}/search"), &json!({"like": 0, "k": 3})).json();
    assert_eq!(found["finetuned"].as_array().unwrap().len(), 3, "{found}");
    assert!(found["finetuned"][0]["item"]["jpeg"].is_string(), "{found}");
    let text = server.send("POST", &format!("/v1/runs/{run}/search"), &json!({"query": "x"}));
    assert_eq!(text.status, 422, "{text:?}");

    let hostile = bring(&server, "hostile.zip", &zip(&[("../up.csv", b"text,label\na,b\n")]));
    let run = server.client().create_run(&new_run(&hostile, "hostile", json!({}))).unwrap().id;
    follow(&server.client(), &run);
    let ended = server.client().run(&run).unwrap();
    let error = ended.error.unwrap();
    assert_eq!((ended.status, error.code.as_str()), (Status::Failed, "invalid_data"));
    assert!(error.message.contains("leads out of the folder"), "{error:?}");
    wait(|| (!server.path("data/runs").join(&run).exists()).then_some(()));
}

/// A small network for pictures in a cache of the hub, as if it had been downloaded before.
fn network(cache: &Path) {
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let model = cache.join("models--test--network");
    let folder = model.join("snapshots").join(commit);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::create_dir_all(model.join("refs")).unwrap();
    std::fs::write(model.join("refs/main"), commit).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../finetuner/tests/golden/vision/resnet18");
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(golden.join(file), folder.join(file)).unwrap();
    }
    let processor =
        r#"{"image_processor_type": "ViTImageProcessor", "do_resize": true, "size": {"height": 32, "width": 32}}"#;
    std::fs::write(folder.join("preprocessor_config.json"), processor).unwrap();
}
