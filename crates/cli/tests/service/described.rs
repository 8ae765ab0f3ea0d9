//! Every answer is one that the description of the API knows, whatever is asked.

use std::process::Command;

use serde_json::json;

use super::support::{Server, follow, say};

#[test]
fn every_answer_is_one_that_the_description_knows() {
    let Ok(program) = std::env::var("FINETUNER_TEST_SCHEMATHESIS") else {
        return say("FINETUNER_TEST_SCHEMATHESIS is not set: answers are not held against the description of the API");
    };
    let server = Server::with(&[("REQUESTS_PER_MINUTE", "0"), ("ANONYMOUS_REQUESTS_PER_MINUTE", "0")]);
    let run = server.submit("first", json!({}));
    follow(&server.client(), &run.id);
    let mut command = Command::new(program);
    command.args(["run", &format!("{}/openapi.json", server.address)]).current_dir(server.path(""));
    command.args(["--header", &format!("Authorization: Bearer {}", server.token)]);
    // It would end the key that it comes with.
    command.args(["--exclude-path", "/v1/keys/{id}"]);
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";
    command.args(["--checks", checks, "--max-examples", "25", "--seed", "1", "--no-color"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
}
