//! `check`, and what a run says of its data.

use serde_json::Value;

use super::support::Folder;

/// One text under two labels, and one that is in the test data too.
fn with_faults() -> Folder {
    let folder = Folder::with_model();
    let train = String::from_utf8(folder.read("train.csv")).unwrap();
    let test = String::from_utf8(folder.read("test.csv")).unwrap();
    let (first, leaked) = (train.lines().nth(1).unwrap(), test.lines().nth(1).unwrap());
    let text = first.split(',').next().unwrap();
    folder.write("faulty.csv", format!("{train}{text},topic 7\n{leaked}\n"));
    folder
}

#[test]
fn findings_have_lines_and_strict_decides_the_exit_code() {
    let folder = with_faults();
    let arguments = "check --train-data faulty.csv --eval-data test.csv --model model";
    let found: Value = serde_json::from_str(&folder.succeed(&format!("{arguments} --json"))).unwrap();
    let rules: Vec<&str> =
        found["findings"].as_array().unwrap().iter().map(|finding| finding["rule"].as_str().unwrap()).collect();
    assert!(rules.starts_with(&["contradictions", "leakage"]) && rules.contains(&"length"), "{found}");
    assert_eq!((&found["errors"], &found["warnings"]), (&0.into(), &2.into()));
    assert_eq!(found["findings"][0]["examples"][0]["line"], 50);
    let text = folder.succeed(arguments);
    assert!(
        text.contains("warning: 1 text stands under more than one label [contradictions]\n  faulty.csv:50"),
        "{text}"
    );
    let strict = folder.run(&format!("{arguments} --strict"));
    assert_eq!((strict.code, strict.out.contains("warnings: 2")), (Some(1), true), "{strict:?}");
}

#[test]
fn empty_rows_are_all_listed_where_a_run_stops_at_the_first() {
    let folder = Folder::with_model();
    folder.write("rows.csv", "text,label\na card,x\n,x\na chip,y\na pin,\n");
    let ran = folder.run("check --train-data rows.csv --model model");
    assert_eq!(ran.code, Some(1));
    assert!(ran.out.contains("rows.csv:3") && ran.out.contains("rows.csv:5"), "{ran:?}");
    folder.fail("fit --train-data rows.csv --model model --output out", 1, &["rows.csv:3"]);
}

#[test]
fn a_strict_run_does_not_start_on_data_with_warnings() {
    let folder = with_faults();
    let arguments = "fit --train-data faulty.csv --model model --output out --epochs 1";
    folder.fail(&format!("{arguments} --strict"), 2, &["`strict`: the data has contradictions"]);
    let ran = folder.run(arguments);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.err.contains("[contradictions]") && ran.err.contains("faulty.csv:50"), "{ran:?}");
}
