//! `encode`: the same embeddings in every format.

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{ListAccessor, RowAccessor};
use serde_json::Value;

use super::support::Folder;

/// The shape and the numbers of a `.npy` file.
fn npy(bytes: &[u8]) -> (String, Vec<f32>) {
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert_eq!((start % 64, bytes[start - 1]), (0, b'\n'));
    let header = std::str::from_utf8(&bytes[10..start]).unwrap().trim_end().to_owned();
    (header, bytes[start..].chunks_exact(4).map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect())
}

fn jsonl(text: &str) -> Vec<(String, Vec<f32>)> {
    let row = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap();
        let numbers = value["embedding"].as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32);
        (value["text"].as_str().unwrap().to_owned(), numbers.collect())
    };
    text.lines().map(row).collect()
}

fn parquet(path: &std::path::Path) -> Vec<(String, Vec<f32>)> {
    let reader = SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
    let row = |row: Result<parquet::record::Row, _>| {
        let row = row.unwrap();
        let list = row.get_list(1).unwrap();
        (row.get_string(0).unwrap().clone(), (0..list.len()).map(|at| list.get_float(at).unwrap()).collect())
    };
    reader.get_row_iter(None).unwrap().map(row).collect()
}

#[test]
fn every_format_holds_the_same_embeddings_in_the_order_of_the_texts() {
    let folder = Folder::with_model();
    for output in ["v.npy", "v.jsonl", "v.parquet"] {
        folder.succeed(&format!("encode --model model --input texts.txt --output {output}"));
    }
    let rows = jsonl(&String::from_utf8(folder.read("v.jsonl")).unwrap());
    let texts = String::from_utf8(folder.read("texts.txt")).unwrap();
    assert_eq!(rows.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>(), texts.lines().collect::<Vec<_>>());
    assert_eq!(parquet(&folder.path("v.parquet")), rows);
    let (header, numbers) = npy(&folder.read("v.npy"));
    assert_eq!(header, "{'descr': '<f4', 'fortran_order': False, 'shape': (72, 32), }");
    let again = folder.succeed("encode --model model --input v.parquet --output -");
    assert_eq!(jsonl(&again), rows, "what was written is read");
    assert_eq!(numbers, rows.into_iter().flat_map(|(_, row)| row).collect::<Vec<_>>());
}

#[test]
fn standard_input_and_output_may_stand_for_files() {
    let folder = Folder::with_model();
    folder.write("two.txt", "card chip\nrain wind\n");
    let mut command = folder.command("encode --model model --input - --output -");
    command.stdin(std::fs::File::open(folder.path("two.txt")).unwrap());
    let piped = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert_eq!(jsonl(&piped).len(), 2);
    assert_eq!(piped, folder.succeed("encode --model model --input two.txt --output -"));
}

#[test]
fn ids_are_kept_and_a_role_puts_its_prompt_before_the_text() {
    let folder = Folder::with_model();
    folder.write("c.jsonl", "{\"_id\": \"d7\", \"title\": \"rain\", \"text\": \"wind\"}\n");
    let plain = folder.succeed("encode --model model --input c.jsonl --output -");
    assert!(plain.starts_with("{\"id\":\"d7\",\"text\":\"rain wind\",\"embedding\":["), "{plain}");
    let prompted = "encode --model model --input c.jsonl --output - --query-prompt card";
    assert_eq!(folder.succeed(prompted), plain);
    assert_ne!(folder.succeed(&format!("{prompted} --role query")), plain);
    assert_eq!(folder.succeed(&format!("{prompted} --role document")), plain);
}

#[test]
fn an_output_of_unknown_kind_is_refused_before_any_work() {
    let folder = Folder::new();
    folder.fail("encode --model none --input none --output v.npz", 2, &["did you mean `npy`"]);
    folder.fail("encode --model none --input none --output v", 2, &["known are npy, jsonl, parquet"]);
}
