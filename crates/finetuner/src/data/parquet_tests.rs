use std::sync::Arc;

use ::parquet::data_type::{ByteArrayType, DoubleType, FloatType, Int32Type, Int64Type};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;

use super::super::{Example, read_retrieval};
use super::*;

/// The values of one column; absent ones where the column is optional.
enum Values<'a> {
    Texts(&'a [&'a str]),
    Bytes(&'a [&'a [u8]]),
    SomeTexts(&'a [Option<&'a str>]),
    Int32(&'a [i32]),
    Int64(&'a [i64]),
    Float(&'a [f32]),
    SomeDouble(&'a [Option<f64>]),
}

/// Writes a table, every two rows a row group.
fn table(folder: &Path, schema: &str, columns: &[Values<'_>], compression: Compression) -> std::path::PathBuf {
    let path = folder.join("rows.parquet");
    let schema = Arc::new(parse_message_type(&format!("message rows {{ {schema} }}")).unwrap());
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut writer = SerializedFileWriter::new(File::create(&path).unwrap(), schema, Arc::new(properties)).unwrap();
    let rows = match &columns[0] {
        Values::Texts(values) => values.len(),
        Values::Bytes(values) => values.len(),
        Values::SomeTexts(values) => values.len(),
        _ => panic!("put a text column first"),
    };
    for from in (0..rows).step_by(2) {
        let part = from..rows.min(from + 2);
        let mut group = writer.next_row_group().unwrap();
        for values in columns {
            let mut column = group.next_column().unwrap().unwrap();
            match values {
                Values::Texts(values) => {
                    let values: Vec<ByteArray> = values[part.clone()].iter().map(|text| (*text).into()).collect();
                    column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
                }
                Values::Bytes(values) => {
                    let values: Vec<ByteArray> =
                        values[part.clone()].iter().map(|bytes| bytes.to_vec().into()).collect();
                    column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
                }
                Values::SomeTexts(values) => {
                    let levels: Vec<i16> = values[part.clone()].iter().map(|text| text.is_some().into()).collect();
                    let values: Vec<ByteArray> =
                        values[part.clone()].iter().flatten().map(|text| (*text).into()).collect();
                    column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
                }
                Values::Int32(values) => {
                    column.typed::<Int32Type>().write_batch(&values[part.clone()], None, None).unwrap();
                }
                Values::Int64(values) => {
                    column.typed::<Int64Type>().write_batch(&values[part.clone()], None, None).unwrap();
                }
                Values::Float(values) => {
                    column.typed::<FloatType>().write_batch(&values[part.clone()], None, None).unwrap();
                }
                Values::SomeDouble(values) => {
                    let levels: Vec<i16> = values[part.clone()].iter().map(|value| value.is_some().into()).collect();
                    let values: Vec<f64> = values[part.clone()].iter().flatten().copied().collect();
                    column.typed::<DoubleType>().write_batch(&values, Some(&levels), None).unwrap();
                }
            }
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
    path
}

fn rows(schema: &str, columns: &[Values<'_>], kind: Option<Kind>) -> Result<Dataset> {
    let folder = tempfile::tempdir().unwrap();
    read(&table(folder.path(), schema, columns, Compression::SNAPPY), kind, &Columns::Known)?.without_empty_rows()
}

fn problem(schema: &str, columns: &[Values<'_>], kind: Option<Kind>) -> String {
    let error = rows(schema, columns, kind).map(|data| data.decision).unwrap_err().to_string();
    error.rsplit_once("rows.parquet").unwrap().1.to_owned()
}

const LABELLED: &str = "required binary text (STRING); optional binary label (STRING);";

#[test]
fn every_kind_is_read_by_the_names_of_its_columns_from_all_row_groups() {
    let data = rows(
        "required binary Text (UTF8); required int64 id; required int32 label (INTEGER(32, false));",
        &[Values::Texts(&["a", "b", "c"]), Values::Int64(&[7, 8, -9]), Values::Int32(&[1, -1, 1])],
        None,
    )
    .unwrap();
    assert_eq!((data.kind, data.examples.len()), (Kind::Labelled, 3));
    assert_eq!(data.ids, ["7", "8", "-9"]);
    assert_eq!(data.label_names, ["1", "4294967295"], "unsigned, as the schema says");
    assert!(data.decision.contains("kind from the columns' names (Text, id, label)"), "{}", data.decision);

    let data = rows(
        "required binary sentence1; required binary sentence2; required float score;",
        &[Values::Texts(&["a", "b"]), Values::Texts(&["c", "d"]), Values::Float(&[0.25, 1.0])],
        None,
    )
    .unwrap();
    assert!(matches!(data.examples[..], [Example::Scored { score: 0.25, .. }, Example::Scored { score: 1.0, .. }]));

    let texts = [Values::Texts(&["q"]), Values::Texts(&["p"]), Values::Texts(&["n"])];
    let schema = "required binary query; required binary document; required binary negative_1;";
    assert_eq!(rows(schema, &texts, None).unwrap().kind, Kind::Triplets);
    assert_eq!(rows(schema, &texts, Some(Kind::Pairs)).unwrap().kind, Kind::Pairs);
}

#[test]
fn columns_may_be_told() {
    let folder = tempfile::tempdir().unwrap();
    let texts = [Values::Texts(&["q"]), Values::Texts(&["p"]), Values::Texts(&["x"])];
    let schema = "required binary name; required binary about; required binary text;";
    let path = table(folder.path(), schema, &texts, Compression::SNAPPY);
    let told = |text: &str| Columns::parse(&path, Some(text)).and_then(|columns| read(&path, None, &columns));
    let data = told("anchor=name,positive=about").unwrap();
    assert_eq!((data.kind, data.items.iter().collect::<Vec<_>>()), (Kind::Pairs, vec!["q", "p"]));
    assert!(told("text=nam").unwrap_err().to_string().ends_with("has no column `nam`, did you mean `name`?"));
}

#[test]
fn columns_of_unknown_names_are_not_looked_at() {
    let list = "required group tokens (LIST) { repeated group list { required int32 element; } }";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.parquet");
    let schema =
        Arc::new(parse_message_type(&format!("message rows {{ {list} required binary text (UTF8); }}")).unwrap());
    let mut writer = SerializedFileWriter::new(File::create(&path).unwrap(), schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int32Type>().write_batch(&[1, 2, 3], Some(&[1, 1, 1]), Some(&[0, 1, 0])).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&["a".into(), "b".into()], None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    let data = read(&path, None, &Columns::Known).unwrap();
    assert_eq!((data.kind, data.examples.len()), (Kind::Single, 2));
    assert_eq!(data.items.iter().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn a_table_serves_as_queries_and_as_index() {
    let folder = tempfile::tempdir().unwrap();
    let columns =
        [Values::Texts(&["a", "b", "c", "d"]), Values::SomeTexts(&[Some("x"), Some("y"), Some("x"), Some("y")])];
    let path = table(folder.path(), LABELLED, &columns, Compression::UNCOMPRESSED);
    let set = read_retrieval(&path, Some(&path), None).unwrap();
    assert_eq!((set.queries.len(), set.documents.len()), (4, 4));
}

#[test]
fn a_bad_value_is_named_with_its_row() {
    let texts = Values::Texts(&["a", "b", "c"]);
    let labels = Values::SomeTexts(&[Some("x"), Some("y"), None]);
    assert_eq!(problem(LABELLED, &[texts, labels], None), ":3: expected a label in column `label`, got none");
    let bytes = Values::Bytes(&[b"a", b"b", b"\xFF"]);
    let labels = || Values::SomeTexts(&[Some("x"), Some("y"), Some("x")]);
    assert_eq!(problem(LABELLED, &[bytes, labels()], None), ":3: expected UTF-8 in column `text`");
    let scored = "required binary text1; required binary text2; optional double score;";
    let texts = || Values::Texts(&["a", "b"]);
    let scores = Values::SomeDouble(&[Some(0.5), Some(f64::NAN)]);
    assert_eq!(
        problem(scored, &[texts(), texts(), scores], None),
        ":2: expected a finite number in column `score`, got ``"
    );
    assert_eq!(problem(scored, &[texts(), texts(), Values::SomeDouble(&[None, Some(1.0)])], None)[..3], *":1:");
}

#[test]
fn columns_that_make_no_rows_are_refused() {
    let texts = || Values::Texts(&["a", "b"]);
    let message = problem("required binary left; required binary right;", &[texts(), texts()], None);
    assert!(message.starts_with(": the columns `left`, `right` do not say what the rows are: name"), "{message}");
    assert_eq!(
        problem("required binary text; required binary item;", &[texts(), texts()], None),
        ": columns `text` and `item` both mean `text`; rename one"
    );
    assert_eq!(
        problem("required binary text; required int32 label (DATE);", &[texts(), Values::Int32(&[1, 2])], None),
        ": expected texts, numbers or lists of float in column `label`, got DATE; write them as text"
    );
    assert_eq!(
        problem("required binary text;", &[texts()], Some(Kind::Labelled)),
        ":1: labelled need `label`, got `text`"
    );
    assert_eq!(problem("required binary text;", &[Values::Texts(&[])], None), ": holds no examples");
}

#[test]
fn an_unsupported_codec_is_named() {
    // No other codec is built in, so the file is written plainly and its metadata changed: the codec stands behind the
    // column's path, as field 4 of its metadata (`0x15`, zigzag), and 6 is Zstandard.
    let folder = tempfile::tempdir().unwrap();
    let path = table(folder.path(), "required binary text;", &[Values::Texts(&["a"])], Compression::SNAPPY);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(7).rposition(|window| window == b"\x18\x04text\x15").unwrap() + 7;
    assert_eq!(bytes[at], 2, "Snappy is 1");
    bytes[at] = 12;
    std::fs::write(&path, bytes).unwrap();
    let error = read(&path, None, &Columns::Known).unwrap_err().to_string();
    assert!(error.contains("column `text` is compressed with ZSTD, expected Snappy or no compression"), "{error}");
}

#[test]
fn a_cut_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = table(folder.path(), "required binary text;", &[Values::Texts(&["a", "b"])], Compression::SNAPPY);
    let bytes = std::fs::read(&path).unwrap();
    for length in [0, 4, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let error = read(&path, None, &Columns::Known).unwrap_err().to_string();
        assert!(error.contains("rows.parquet: cannot be read as Parquet: "), "{error}");
    }
}
