//! Help, versions, the list of models.

use finetuner::spec::RunSpec;

use super::support::Folder;

#[test]
fn the_version_is_one_line_of_data() {
    assert_eq!(Folder::new().succeed("--version"), format!("finetuner {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn every_command_has_help_with_examples() {
    let folder = Folder::new();
    let help = folder.succeed("--help");
    for command in ["fit", "evaluate", "encode", "search", "models"] {
        assert!(help.contains(&format!("\n  {command} ")), "{command} in {help}");
        let own = folder.succeed(&format!("help {command}"));
        assert!(own.contains("Usage: finetuner"), "{own}");
        assert!(command == "models" || own.contains(&format!("Examples:\n  finetuner {command}")), "{own}");
    }
    assert!(help.contains("Examples:") && help.contains("Exit codes: 0 done, 1 failed, 2"), "{help}");
}

#[test]
fn every_field_of_the_spec_is_a_flag_with_its_default() {
    let help = Folder::new().succeed("fit --help").split_whitespace().collect::<Vec<_>>().join(" ");
    for field in RunSpec::FIELDS.iter().filter(|field| field.name != "threads") {
        assert!(
            help.contains(&format!("{} ", field.flag())) || help.contains(&format!("{}[", field.flag())),
            "{field:?}"
        );
        let doc = field.doc.trim_end_matches('.').split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(help.contains(&doc), "{doc}");
    }
}

#[test]
fn models_are_listed_for_people_and_for_machines() {
    let folder = Folder::new();
    let table = folder.succeed("models");
    assert!(table.lines().any(|line| line.starts_with("all-MiniLM-L6-v2 ") && line.contains(" 384 ")), "{table}");
    let json: serde_json::Value = serde_json::from_str(&folder.succeed("models --json")).unwrap();
    let names: Vec<&str> = json.as_array().unwrap().iter().map(|model| model["name"].as_str().unwrap()).collect();
    assert_eq!(names[0], "mini");
    assert!(names.contains(&"bert-base-cased"), "{names:?}");
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let folder = Folder::new();
    let mut child = folder.command("models").stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn an_unknown_flag_or_command_names_the_nearest_one() {
    let folder = Folder::new();
    folder.fail("fit --learning-rat 1", 2, &["--learning-rat'", "'--learning-rate'"]);
    folder.fail("evalute", 2, &["'evaluate'"]);
    folder.fail("encode", 2, &["--input", "--output"]);
    folder.fail("evaluate --data x.csv -k 0", 2, &["expected a whole number of 1 or more"]);
}
