//! One JSON value a line: an object with the names of a CSV header as keys, an array of texts, a text, or an array of
//! numbers, which is a vector. Or one array of such objects, as pandas and many exports write.

use std::borrow::Cow;
use std::path::Path;

use serde_json::Value;
use serde_json::value::RawValue;

use super::collect::{Cell, Collector};
use super::columns::{self, Columns, Role};
use super::{Dataset, Kind};
use crate::error::{Error, Result};

/// A row's values before their kind is known.
type Values<'a> = Vec<(Option<Role>, Cow<'a, str>, Cow<'a, str>)>;

/// Reads examples from the text of a JSONL file. The first row decides the kind where none is asked for.
///
/// Objects may hold several texts under one key (`{"query": …, "pos": […], "neg": […]}`, as FlagEmbedding writes):
/// every positive gives an example, with all the negatives.
pub(super) fn read(path: &Path, text: &str, asked: Option<Kind>, columns: &Columns) -> Result<Dataset> {
    let mut collector: Option<(Kind, Collector<'_>)> = None;
    let (rows, form) = rows(path, text)?;
    for (line, row) in rows {
        let value: Value = serde_json::from_str(row).map_err(|error| {
            Error::data(path, line, format!("expected one JSON value a line: {error}{}", hint(row)))
        })?;
        let values = flatten(path, line, &value, columns)?;
        let kind = match &collector {
            Some((kind, _)) => *kind,
            None => {
                let keys = value.as_object().map(|fields| fields.keys().map(String::as_str).collect::<Vec<_>>());
                columns.check(path, line, &keys.unwrap_or_default())?;
                asked.or_else(|| kind_of(&values)).ok_or_else(|| {
                    Error::data(path, line, format!("cannot decide the kind of this row: {}", columns::ADVICE))
                })?
            }
        };
        let places = if value.is_object() { None } else { columns::by_place(kind, values.len()) };
        if !value.is_object() && places.is_none() {
            let problem = format!("{kind} cannot have {} values a row; {}", values.len(), columns::ADVICE);
            return Err(Error::data(path, line, problem));
        }
        let cells: Vec<Cell<'_>> = values
            .iter()
            .enumerate()
            .filter_map(|(at, (role, column, value))| {
                let role = places.as_ref().map_or(*role, |places| Some(places[at]))?;
                Some(Cell { role, column, value })
            })
            .collect();
        let (_, collector) = collector.get_or_insert_with(|| (kind, Collector::new(path, kind)));
        collector.push(line, &cells)?;
    }
    let Some((_, collector)) = collector else {
        return Err(Error::data(path, None, "holds no examples: the file is empty"));
    };
    let why = if asked.is_some() { "kind as asked for" } else { "kind from the first row" };
    collector.finish(&format!("{why}; {form}"))
}

/// The values of a file with the lines they begin on, and how they stand there.
fn rows<'a>(path: &Path, text: &'a str) -> Result<(Vec<(u64, &'a str)>, &'static str)> {
    let array = text.trim_start().strip_prefix('[');
    // A line may be an array, too, but no empty one, nor one of objects.
    let holds_all = |rest: &str| rest.starts_with(['\r', '\n']) || rest.trim_start().starts_with(['{', ']']);
    if !array.is_some_and(holds_all) {
        let rows = (1..).zip(text.lines()).filter(|(_, row)| !row.trim().is_empty());
        return Ok((rows.collect(), "one JSON value a line"));
    }
    let values: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| {
        let row = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
        Error::data(path, error.line() as u64, format!("expected an array of JSON values: {error}{}", hint(row)))
    })?;
    let (mut line, mut seen) = (1, 0);
    let rows = values.into_iter().map(|value| {
        let start = value.get().as_ptr().addr() - text.as_ptr().addr();
        line += text.as_bytes()[seen..start].iter().filter(|byte| **byte == b'\n').count() as u64;
        seen = start;
        (line, value.get())
    });
    Ok((rows.collect(), "an array of JSON values"))
}

fn kind_of(values: &Values<'_>) -> Option<Kind> {
    let roles: Vec<Role> = values.iter().filter_map(|(role, ..)| *role).collect();
    let unnamed = values.iter().all(|(role, column, _)| role.is_none() && column.parse::<usize>().is_ok());
    if unnamed {
        let third_is_number = values.get(2).is_some_and(|(.., value)| value.parse::<f32>().is_ok());
        // An array of texts has no ragged rows to fear: beyond three, all are negatives.
        let kind = columns::kind_by_count(values.len().min(3), third_is_number && values.len() == 3);
        return kind;
    }
    columns::kind_of(&roles)
}

/// Every value of a row on its own, with its role and the name of its column.
fn flatten<'a>(path: &Path, line: u64, value: &'a Value, columns: &Columns) -> Result<Values<'a>> {
    let mut values = Values::new();
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let first = value.as_array().and_then(|items| items.first()).unwrap_or(value).as_str();
                let Some(role) = columns.role(key, first.unwrap_or_default()) else { continue };
                // A list of numbers elsewhere is several scores.
                let item = matches!(role, Role::Anchor | Role::Positive | Role::Negative | Role::Text);
                match value {
                    // Looked at only where vectors are wanted: whatever it holds is no fault of the row.
                    value if role == Role::Vector && !value.is_null() => {
                        let text = value.as_str().map_or_else(|| value.to_string().into(), Cow::from);
                        values.push((Some(role), key.into(), text));
                    }
                    Value::Array(items) if !(item && is_vector(value)) => {
                        for item in items {
                            values.push((Some(role), key.into(), scalar(path, line, key, item)?));
                        }
                    }
                    Value::Null => {}
                    value => values.push((Some(role), key.into(), scalar(path, line, key, value)?)),
                }
            }
        }
        Value::Array(items) if !is_vector(value) => {
            for (place, item) in (1..).zip(items) {
                let column: String = i32::to_string(&place);
                let value = scalar(path, line, &column, item)?;
                values.push((None, column.into(), value));
            }
        }
        value => values.push((None, "1".into(), scalar(path, line, "1", value)?)),
    }
    Ok(values)
}

/// Whether a value is an array of numbers.
fn is_vector(value: &Value) -> bool {
    value.as_array().is_some_and(|items| !items.is_empty() && items.iter().all(Value::is_number))
}

/// What to say of a line that Python wrote and JSON does not know.
fn hint(row: &str) -> &'static str {
    let known = ["NaN", "Infinity"].iter().any(|word| row.contains(word));
    if known { "; NaN and Infinity are no numbers of JSON, nor can anything be learnt from them" } else { "" }
}

fn scalar<'a>(path: &Path, line: u64, column: &str, value: &'a Value) -> Result<Cow<'a, str>> {
    match value {
        Value::String(text) => Ok(text.into()),
        Value::Number(number) => Ok(number.to_string().into()),
        Value::Bool(flag) => Ok(flag.to_string().into()),
        vector if is_vector(vector) => Ok(vector.to_string().into()),
        other => {
            let start: String = other.to_string().chars().take(80).collect();
            let problem = format!("expected a text, a number or a vector in `{column}`, got `{start}`");
            Err(Error::data(path, line, problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Example, Modality};
    use super::*;

    fn rows(text: &str, kind: Option<Kind>) -> Result<Dataset> {
        read(Path::new("rows.jsonl"), text, kind, &Columns::Known)?.without_empty_rows()
    }

    #[test]
    fn objects_use_the_names_of_a_csv_header() {
        let data =
            rows("{\"text\": \"a\", \"label\": 1, \"more\": {}}\n\n{\"label\": 2, \"text\": \"b\"}\n", None).unwrap();
        assert_eq!(data.kind, Kind::Labelled);
        assert_eq!(data.label_names, ["1", "2"]);
        let data = rows("{\"sentence1\": \"a\", \"sentence2\": \"b\", \"score\": 0.5}", None).unwrap();
        assert!(matches!(data.examples[0], Example::Scored { score: 0.5, .. }));
    }

    #[test]
    fn several_positives_give_an_example_each() {
        let data = rows("{\"query\": \"q\", \"pos\": [\"a\", \"b\"], \"neg\": [\"x\", \"y\"]}", None).unwrap();
        assert_eq!(data.kind, Kind::Triplets);
        assert_eq!(data.examples.len(), 2);
        let Example::Triplet { positive, negatives, .. } = &data.examples[1] else { panic!("{data:?}") };
        assert_eq!(data.items.get(*positive), "b");
        assert_eq!(negatives.len(), 2);
    }

    #[test]
    fn one_array_may_hold_all_rows() {
        let row = |place: usize| format!("{{\"query\": \"q {place}\", \"answer\": \"a {place}\"}}");
        let lines = rows(&format!("{}\n{}", row(1), row(2)), None).unwrap();
        for text in [
            format!("[{}, {}]", row(1), row(2)),
            format!(" [{},\n{}]\n", row(1), row(2)),
            format!("[\r\n  {},\r\n  {}\r\n]", row(1), row(2)),
        ] {
            let array = rows(&text, None).unwrap();
            assert_eq!((array.kind, &array.examples), (Kind::Pairs, &lines.examples), "{text}");
            assert_eq!(array.items.iter().collect::<Vec<_>>(), lines.items.iter().collect::<Vec<_>>());
            assert!(array.decision.ends_with("an array of JSON values"), "{}", array.decision);
        }
        let pairs = rows("[\n  [\"a\", \"b\"],\n  [\"c\", \"d\"]\n]", None).unwrap();
        assert_eq!((pairs.kind, pairs.examples.len()), (Kind::Pairs, 2));
    }

    #[test]
    fn arrays_are_read_by_place() {
        assert_eq!(rows("[\"a\", \"b\"]", None).unwrap().kind, Kind::Pairs);
        assert_eq!(rows("[\"a\", \"b\", 3.5]", None).unwrap().kind, Kind::Scored);
        assert_eq!(rows("[\"a\", \"b\", \"c\", \"d\"]", None).unwrap().kind, Kind::Triplets);
        assert_eq!(rows("\"a\"\n\"b\"", None).unwrap().kind, Kind::Single);
        assert_eq!(rows("[\"a\", \"x\"]\n[\"b\", \"y\"]", Some(Kind::Labelled)).unwrap().label_names, ["x", "y"]);
    }

    #[test]
    fn vectors_are_read_wherever_a_text_may_stand() {
        let labelled = "{\"text\": \"x\", \"embedding\": [0.5, -1], \"label\": \"a\"}\n\
                        {\"text\": \"y\", \"embedding\": [2, 3e0], \"label\": \"b\"}";
        let data = rows(labelled, None).unwrap();
        assert_eq!((data.kind, data.items.iter().collect::<Vec<_>>()), (Kind::Labelled, vec!["x", "y"]));
        let data = data.into_vectors().unwrap();
        assert_eq!((data.kind, data.ids.as_slice()), (Kind::Labelled, &["x".to_owned(), "y".to_owned()][..]));
        assert_eq!(data.label_names, ["a", "b"]);
        let odd = "{\"text\": \"x\", \"embedding\": {\"a\": 1}}\n{\"text\": \"y\", \"embedding\": [1]}";
        let odd = rows(odd, None).unwrap();
        let error = odd.into_vectors().unwrap_err().to_string();
        assert!(error.contains("rows.jsonl:1: expected a vector in column `embedding`"), "{error}");
        assert_eq!(data.items.iter().collect::<Vec<_>>(), ["[0.5,-1.0]", "[2.0,3.0]"]);
        assert!(data.decision.ends_with("; vectors of 2 numbers in `embedding`"), "{}", data.decision);

        let pairs =
            rows("{\"query\": [1, 2], \"pos\": [[3, 4], [5, 6]]}\n{\"query\": [1, 0], \"pos\": [0, 1]}", None).unwrap();
        assert_eq!((pairs.kind, pairs.examples.len(), pairs.items.ids(Modality::Vector).count()), (Kind::Pairs, 3, 5));
        assert_eq!(rows("[1, 2, 3]\n[4, 5, 6]", None).unwrap().kind, Kind::Single);
        let scored = rows("{\"text1\": [1, 2], \"text2\": [2, 1], \"score\": 0.5}", None).unwrap();
        assert!(matches!(scored.examples[0], Example::Scored { score: 0.5, .. }));
    }

    #[test]
    fn vectors_that_do_not_fit_are_named_by_line() {
        for (text, expected) in [
            ("[1, 2]\n[1, 2, 3]", "rows.jsonl:2: expected a vector of 2 numbers in column `1`, as before, got 3"),
            ("{\"vector\": [1, 2]}\n{\"vector\": \"hello\"}", "rows.jsonl:2: expected a vector in column `vector`"),
            ("{\"vector\": [1, 1e39]}", "rows.jsonl:1: expected finite numbers in column `vector`, got inf at place 1"),
            ("{\"vector\": [1, NaN]}", "NaN and Infinity are no numbers of JSON"),
            ("{\"vector\": \"gone.npy:1\"}", "cannot read `gone.npy`"),
            ("{\"vector\": \"../gone.npy:1\"}", "leaves the folder of the data"),
        ] {
            let error = rows(text, None).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_corpus_of_titles_and_texts_is_read_as_single_texts_with_ids() {
        let data = rows("{\"_id\": \"7\", \"title\": \"T\", \"text\": \"body\"}", None).unwrap();
        assert_eq!((data.kind, data.ids.as_slice()), (Kind::Single, &["7".to_owned()][..]));
        assert!(data.items.find("T body").is_some());
    }

    #[test]
    fn ids_are_kept_only_where_every_row_has_one() {
        let ids = |text| rows(text, None).unwrap().ids;
        assert!(ids("{\"text\": \"a\"}\n{\"text\": \"b\", \"id\": \"2\"}").is_empty());
        assert!(ids("{\"text\": \"a\", \"id\": \"1\"}\n{\"text\": \"b\"}").is_empty());
        assert_eq!(ids("{\"query\": \"a\", \"pos\": [\"b\", \"c\"], \"id\": 1}"), ["1", "1"]);
    }

    #[test]
    fn bad_rows_are_named_by_line() {
        for (text, expected) in [
            ("{\"text\": \"a\", \"label\": 1}\n{\"text\": ", "rows.jsonl:2: expected one JSON value a line"),
            (
                "{\"query\": \"a\", \"answer\": \"b\"}\n{\"query\": \"c\"}",
                "rows.jsonl:2: pairs need `positive`, got `query`",
            ),
            ("{\"query\": \"a\", \"answer\": \" \"}", "rows.jsonl:1: expected a text in column `answer`, got none"),
            (
                "{\"query\": \"a\", \"answer\": {}}",
                "rows.jsonl:1: expected a text, a number or a vector in `answer`, got `{}`",
            ),
            ("{\"text1\": \"a\", \"text2\": \"b\", \"score\": \"NaN\"}", "rows.jsonl:1: expected a finite number"),
            ("{\"text1\": \"a\", \"text2\": \"b\", \"score\": NaN}", "rows.jsonl:1: expected one JSON value a line"),
            ("{\"title\": \"a\"}", "rows.jsonl:1: cannot decide the kind"),
            ("{\"text\": [\"a\", \"b\"], \"label\": 1}", "rows.jsonl:1: labelled need one `text`, got 2"),
            ("[\"a\", \"b\"]\n[\"a\"]", "rows.jsonl:2: pairs cannot have 1 values a row"),
            ("\n\n", "rows.jsonl: holds no examples"),
            ("[]", "rows.jsonl: holds no examples"),
            ("[\n]", "rows.jsonl: holds no examples"),
            (
                "[\n  {\"query\": \"a\",\n   \"answer\": \"b\"},\n  {\"query\": \"c\"}\n]",
                "rows.jsonl:4: pairs need `positive`, got `query`",
            ),
            ("[\n  {\"text\": \"a\"},\n  {\"text\": \n", "rows.jsonl:4: expected an array of JSON values: EOF"),
            ("[{\"vector\":\n [NaN]}]", "rows.jsonl:2: expected an array of JSON values: expected value at line 2"),
        ] {
            let error = rows(text, None).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
