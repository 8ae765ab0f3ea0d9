//! A spec from a TOML or JSON file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use serde_json::value::RawValue;

use super::RunSpec;
use crate::error::{Error, Problem, Result};

/// A field as it stands in a file: the byte at which it starts, its name and value.
type Entry = (usize, String, Value);

impl RunSpec {
    /// Reads a file: JSON if its name ends in `.json`, else TOML.
    ///
    /// The relative paths `train_data`, `eval_data`, `query_data` and `index_data`, also of `datasets`, are looked for beside the file first,
    /// so that a run with its data can be started from anywhere; one that is not there stays as written, relative to the
    /// current folder. `output` is always relative to the current folder.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] with the line for text that is not TOML or JSON; [`Error::Spec`] with all unknown
    /// fields (and the nearest known name) and all values of another type, each with file and line.
    pub fn read(path: impl AsRef<Path>) -> Result<RunSpec> {
        Self::read_with_names(path.as_ref()).map(|(spec, _)| spec)
    }

    /// The same, and the names of the fields that the file gives.
    pub(super) fn read_with_names(path: &Path) -> Result<(RunSpec, Vec<String>)> {
        if let Some(what) = instead_of_a_spec(path) {
            let problem = format!("is {what}; expected a run as a TOML or JSON file, data is given as `train_data`");
            return Err(Error::data(path, None, problem));
        }
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let good = error.utf8_error().valid_up_to();
            Error::data(path, line(error.as_bytes(), good), "expected UTF-8; save the file as UTF-8")
        })?;
        let text = text.trim_start_matches('\u{FEFF}');
        let json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        let mut entries = if json { json_entries(path, text)? } else { toml_entries(path, text)? };
        entries.sort_by_key(|(at, ..)| *at);

        let mut problems = Vec::new();
        for (at, name, value) in &entries {
            let problem = match Self::FIELDS.iter().find(|field| field.name == name) {
                None => format!("is no field of a run{}", Self::nearest_field(name)),
                Some(field) if !field.accepts(value) => format!("expected {}, got `{value}`", field.value),
                Some(_) => continue,
            };
            let origin = format!("{}:{}", path.display(), line(text.as_bytes(), *at));
            problems.push(Problem { field: name.clone(), problem }.at(&origin));
        }
        if !problems.is_empty() {
            return Err(Error::Spec { problems });
        }
        let mut spec: RunSpec = if json {
            serde_json::from_str(text).map_err(|error| json_error(path, &error))?
        } else {
            toml::from_str(text).map_err(|error| toml_error(path, text, &error))?
        };
        let folder = path.parent().unwrap_or(Path::new(""));
        let given = [&mut spec.eval_data, &mut spec.query_data, &mut spec.index_data].into_iter().flatten();
        for data in given.chain([&mut spec.train_data]) {
            *data = beside(folder, std::mem::take(data));
        }
        for data in
            spec.datasets.iter_mut().flat_map(|table| table.iter_mut()).filter(|(name, _)| name.ends_with("_data"))
        {
            if let Value::String(path) = data.1 {
                *path = beside(folder, PathBuf::from(&*path)).display().to_string();
            }
        }
        Ok((spec, entries.into_iter().map(|(_, name, _)| name).collect()))
    }
}

/// What the path names if it is what people give by mistake: the data itself.
fn instead_of_a_spec(path: &Path) -> Option<&'static str> {
    const DATA: [&str; 7] = ["csv", "tsv", "txt", "jsonl", "ndjson", "parquet", "npy"];
    let ends = |ending: &&str| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(ending));
    match path.is_dir() {
        true => Some("a folder"),
        false => DATA.iter().any(ends).then_some("data"),
    }
}

/// `data` in `folder` if it, or what stands before the colon of `DIR:split` or `FILE:role=column`, exists there.
fn beside(folder: &Path, data: PathBuf) -> PathBuf {
    let there = folder.join(&data);
    let before = there.to_str().and_then(|text| text.rsplit_once(':'));
    let exists =
        !data.as_os_str().is_empty() && (there.exists() || before.is_some_and(|(path, _)| Path::new(path).exists()));
    if exists { there } else { data }
}

fn toml_entries(path: &Path, text: &str) -> Result<Vec<Entry>> {
    let fields: BTreeMap<toml::Spanned<String>, Value> =
        toml::from_str(text).map_err(|error| toml_error(path, text, &error))?;
    Ok(fields.into_iter().map(|(name, value)| (name.span().start, name.into_inner(), value)).collect())
}

fn json_entries(path: &Path, text: &str) -> Result<Vec<Entry>> {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text).map_err(|error| json_error(path, &error))?;
    let entry = |(name, raw): (String, &RawValue)| {
        let value = serde_json::from_str(raw.get()).map_err(|error| json_error(path, &error))?;
        Ok((raw.get().as_ptr() as usize - text.as_ptr() as usize, name, value))
    };
    fields.into_iter().map(entry).collect()
}

fn toml_error(path: &Path, text: &str, error: &toml::de::Error) -> Error {
    let at = error.span().map(|span| line(text.as_bytes(), span.start));
    Error::data(path, at, format!("is not a spec in TOML: {}", error.message()))
}

fn json_error(path: &Path, error: &serde_json::Error) -> Error {
    Error::data(path, error.line() as u64, format!("is not a spec in JSON: {error}"))
}

/// The line, counted from 1, of a byte.
fn line(text: &[u8], at: usize) -> u64 {
    1 + text[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `text` from a file of this name; the folder's name is taken out of errors.
    fn read(name: &str, text: impl AsRef<[u8]>) -> std::result::Result<RunSpec, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        RunSpec::read(&file).map_err(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
    }

    const TOML: &str = "# packages\nmodel = \"mini\"\nlearning_rate = 1e-4\nwarmup = 1\nthreads = 2\n\
                        callbacks = [\"EarlyStopping(patience=2)\"]\n\n[loss_options]\nmargin = 0.3\nnames = [\"a\"]\n";
    const JSON: &str = r#"{"model": "mini", "learning_rate": 1e-4, "warmup": 1, "threads": 2, "eval_data": null,
        "callbacks": ["EarlyStopping(patience=2)"], "loss_options": {"margin": 0.3, "names": ["a"]}}"#;

    #[test]
    fn toml_and_json_give_the_same_spec() {
        let spec = read("run.toml", TOML).unwrap();
        assert_eq!((spec.learning_rate, spec.warmup, spec.threads), (1e-4, 1.0, Some(2)));
        assert_eq!(spec.callbacks, ["EarlyStopping(patience=2)"]);
        assert_eq!(spec.loss_options, crate::spec::parse_options("margin=0.3,names=[a]").unwrap());
        assert_eq!(read("run.json", JSON).unwrap(), spec);
        assert_eq!(read("run", format!("\u{FEFF}{TOML}")).unwrap(), spec);
    }

    #[test]
    fn all_unknown_fields_and_wrong_types_are_listed_with_their_lines() {
        let expected = |name: &str, lines: [u64; 4]| {
            format!(
                "`learning_rat`: is no field of a run, did you mean `learning_rate`? ({name}:{})\n\
                 `epochs`: expected a whole number, got `\"many\"` ({name}:{})\n\
                 `batch_size`: expected a whole number, got `-1` ({name}:{})\n\
                 `callbacks`: expected a list of texts, got `[1]` ({name}:{})",
                lines[0], lines[1], lines[2], lines[3]
            )
        };
        let toml = "model = \"mini\"\nlearning_rat = 1\n\nepochs = \"many\"\nbatch_size = -1\ncallbacks = [1]\n";
        assert_eq!(read("run.toml", toml).unwrap_err(), expected("run.toml", [2, 4, 5, 6]));
        let json = "{\"model\": \"mini\",\n\"learning_rat\": 1, \"epochs\": \"many\",\n\"batch_size\": -1,\n\n\"callbacks\": [1]}";
        assert_eq!(read("run.json", json).unwrap_err(), expected("run.json", [2, 2, 3, 5]));
    }

    #[test]
    fn a_number_that_is_not_finite_is_refused() {
        let expected = "`learning_rate`: expected a number, got `null` (run.toml:2)";
        assert_eq!(read("run.toml", "epochs = 1\nlearning_rate = nan\n").unwrap_err(), expected);
    }

    #[test]
    fn broken_text_is_named_with_its_line() {
        let starts = |name: &str, text: &[u8], expected: &str| {
            let error = read(name, text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        };
        starts("run.toml", b"epochs = 1\nepochs 2\n", "run.toml:2: is not a spec in TOML: ");
        starts("run.toml", b"epochs = 1\nepochs = 2\n", "run.toml:2: is not a spec in TOML: duplicate key");
        starts("run.json", b"{\"epochs\": 1,\n\"seed\" 2}", "run.json:2: is not a spec in JSON: expected `:`");
        starts("run.json", b"{\"epochs\": 1,\n\"epochs\": 2}", "run.json:2: is not a spec in JSON: duplicate field");
        starts("run.json", b"[]", "run.json:1: is not a spec in JSON: ");
        starts("run.toml", b"model = \"a\"\nloss = \"\xff\"\n", "run.toml:2: expected UTF-8");
        let instead = "; expected a run as a TOML or JSON file, data is given as `train_data`";
        assert_eq!(read("train.CSV", "a,b\n").unwrap_err(), format!("train.CSV: is data{instead}"));
        let folder = RunSpec::read("src").unwrap_err().to_string();
        assert_eq!(folder, format!("src: is a folder{instead}"));
        let missing = RunSpec::read("no/such/run.toml").unwrap_err().to_string();
        assert!(missing.starts_with("cannot read `no/such/run.toml`: "), "{missing}");
    }

    #[test]
    fn data_is_looked_for_beside_the_file_and_output_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["train.csv", "query.csv", "run"] {
            std::fs::write(at(name), "").unwrap();
        }
        std::fs::create_dir(at("scifact")).unwrap();
        let text = "train_data = \"train.csv:text=name\"\neval_data = \"elsewhere.csv\"\nquery_data = \"scifact:test\"\n\
                    index_data = \"/query.csv\"\noutput = \"run\"\n";
        std::fs::write(at("run.toml"), text).unwrap();
        let spec = RunSpec::read(at("run.toml")).unwrap();
        assert_eq!(spec.train_data, at("train.csv:text=name"));
        assert_eq!(spec.eval_data, Some("elsewhere.csv".into()));
        assert_eq!(spec.query_data, Some(at("scifact:test")));
        assert_eq!(spec.index_data, Some("/query.csv".into()));
        assert_eq!(spec.output, Some("run".into()));
        std::fs::write(at("empty.toml"), "").unwrap();
        assert_eq!(RunSpec::read(at("empty.toml")).unwrap(), RunSpec::default());
    }
}
