//! The description of the API is a file that changes in the open.

#![cfg(feature = "server")]

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");

#[test]
fn the_description_is_the_one_in_the_documentation() {
    let made = service::http::description().to_pretty_json().unwrap() + "\n";
    if std::env::var_os("FINETUNER_WRITE_REFERENCE").is_some() {
        std::fs::write(FILE, &made).unwrap();
    }
    let written = std::fs::read_to_string(FILE).unwrap_or_default();
    assert!(
        made == written,
        "docs/openapi.json is old; write it again: FINETUNER_WRITE_REFERENCE=1 cargo test -p service --test openapi"
    );
}

#[test]
fn every_route_says_what_its_errors_look_like() {
    let description: serde_json::Value =
        serde_json::from_str(&service::http::description().to_json().unwrap()).unwrap();
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1"));
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let responses = operation["responses"].as_object().unwrap();
            let open = operation["tags"][0] == "operation";
            assert!(open || responses.contains_key("default"), "{method} {path}");
            let summary = operation["description"].as_str().or(operation["summary"].as_str());
            assert!(summary.is_some_and(|text| !text.is_empty()), "{method} {path}");
        }
    }
}
