//! `search`: the exact text first.

use serde_json::Value;

use super::support::Folder;

#[test]
fn the_text_itself_is_found_first() {
    let folder = Folder::with_model();
    let mut command = folder.command("search --model model --input texts.txt --top 3 --json");
    let json = command.arg("rain storm cloud").output().unwrap();
    let found: Value = serde_json::from_slice(&json.stdout).unwrap();
    let hits = found["hits"].as_array().unwrap();
    assert_eq!((found["query"].as_str(), hits.len()), (Some("rain storm cloud"), 3));
    assert_eq!((hits[0]["rank"].as_u64(), hits[0]["text"].as_str()), (Some(1), Some("rain storm cloud")), "{found}");
    assert!((hits[0]["score"].as_f64().unwrap() - 1.0).abs() < 1e-6);
    assert_eq!(hits[0]["id"], "7");
}

#[test]
fn the_table_has_a_line_for_each_hit_with_the_datas_own_ids() {
    let folder = Folder::with_model();
    folder.write(
        "corpus.jsonl",
        "{\"_id\": \"a\", \"text\": \"card chip\"}\n{\"_id\": \"bcd\", \"text\": \"rain wind\"}\n",
    );
    let mut command = folder.command("search --model model --input corpus.jsonl");
    let table = String::from_utf8(command.arg("rain wind").output().unwrap().stdout).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!((lines.len(), lines[0], lines[1]), (3, "rain wind", "  1   1.0000  bcd  rain wind"), "{table}");
    assert!(lines[2].starts_with("  2 ") && lines[2].ends_with("  a    card chip"), "{table}");
}

#[test]
fn queries_come_from_standard_input_where_none_is_given() {
    let folder = Folder::with_model();
    folder.write("queries.txt", "rain storm cloud\n\ncard chip\n");
    let mut command = folder.command("search --model model --input texts.txt --top 1 --json");
    command.stdin(std::fs::File::open(folder.path("queries.txt")).unwrap());
    let out = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let queries: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        queries.iter().map(|found| found["query"].as_str().unwrap()).collect::<Vec<_>>(),
        ["rain storm cloud", "card chip"]
    );
}
