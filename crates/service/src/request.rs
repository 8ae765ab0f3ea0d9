//! Is what was asked for something that may run here?
//!
//! A spec that comes over the network names files by their ids and models by their public names; nothing in it can name a
//! file of the server.

use std::path::PathBuf;

use finetuner::error::{Error as LibraryError, Problem, nearest};
use finetuner::spec::{DATASET_FIELDS, Field, FieldType, RunSpec};
use serde_json::{Map, Value};

use crate::database::{FileRow, KeyRow, NewRunRow};
use crate::error::{Error, Kind, Result};
use crate::settings::Settings;
use crate::wire::NewRun;

/// Fields that say where a run is and how it goes on: the server's to decide.
const OURS: [(&str, &str); 3] = [
    ("output", "is the server's to choose; `pull` brings the model where you want it"),
    ("resume", "is what the server does by itself when a worker is lost"),
    ("allow_urls", "is not possible here: a server fetches nothing for its callers; upload the pictures"),
];

/// Callbacks that touch nothing outside the run.
const CALLBACKS: [&str; 5] =
    ["EvaluationCallback", "BestModelCheckpoint", "EarlyStopping", "TrainingCheckpoint", "WiSEFTCallback"];

/// Fields that name a model: one of the hub, or what another run has learnt.
const MODELS: [&str; 3] = ["model", "guide", "image_model"];

/// Options of callbacks that name files.
const CALLBACK_FILES: [&str; 2] = ["query_data", "index_data"];

/// Checks a request; gives the row to accept.
pub(crate) fn check(new: NewRun, key: &KeyRow, settings: &Settings) -> Result<NewRunRow> {
    if let Some(name) = &new.name {
        check_name("name", name)?;
        if name.starts_with("run-") {
            return Err(Error::invalid("name", "names that begin with `run-` are for ids; take another one"));
        }
    }
    let experiment = new.experiment.unwrap_or_else(|| "default".into());
    check_name("experiment", &experiment)?;
    if new.description.chars().count() > 1000 {
        return Err(Error::invalid("description", "expected 1000 characters or fewer"));
    }
    check_resources(&new.resources, settings)?;
    let mut resources = new.resources;

    let mut problems = Vec::new();
    let mut files = Vec::new();
    let mut models = Vec::new();
    for (name, value) in &new.spec {
        let field = RunSpec::FIELDS.iter().find(|field| field.name == name);
        if let Some(run) = value.as_str().and_then(named_run).filter(|_| MODELS.contains(&name.as_str())) {
            models.push((name.clone(), run));
            continue;
        }
        check_field(name, field, value, &mut files, &mut problems);
    }
    if !problems.is_empty() {
        return Err(spec_error(problems));
    }
    let spec = parse(&new.spec)?;
    match spec.check() {
        Err(LibraryError::Spec { problems }) => return Err(spec_error(problems)),
        checked => checked?,
    }
    if settings.gpus > 0 && spec.device != "cpu" {
        if spec.device.starts_with("cuda:") {
            let problem = "expected `cuda`, `cpu` or `auto`: this server chooses which GPU".into();
            return Err(spec_error(vec![Problem { field: "device".into(), problem }]));
        }
        resources.gpus = resources.gpus.max(1);
    }
    files.sort();
    files.dedup();
    // An artifact has no name of its own, and `run-` begins ids.
    let model = if named_run(&spec.model).is_some() { "tuned" } else { &spec.model };
    let model = model.rsplit('/').next().unwrap_or("model").split('@').next().unwrap_or("model").to_owned();
    Ok(NewRunRow {
        owner: key.owner.clone(),
        key: key.id.clone(),
        name: new.name,
        experiment,
        description: new.description,
        spec: new.spec,
        files,
        models,
        resources,
        priority: new.priority,
        model,
        waiting: (settings.waiting_runs, settings.waiting_runs_per_key),
    })
}

/// The spec that a worker gets: data fields name the files as they lie in its folder.
pub(crate) fn localise(spec: &Map<String, Value>, name: &str, files: &[FileRow], threads: usize) -> Result<RunSpec> {
    let mut spec = spec.clone();
    let path = |value: &mut Value| {
        let Some((id, part)) = value.as_str().and_then(named_file) else { return };
        if let Some(file) = files.iter().find(|file| file.id == id) {
            let part = part.map(|part| format!(":{part}")).unwrap_or_default();
            *value = Value::String(format!("{}{part}", data_path(file).display()));
        }
    };
    for (field, value) in &mut spec {
        match value {
            Value::Array(tables) if field == "datasets" => {
                for (_, value) in tables.iter_mut().filter_map(Value::as_object_mut).flatten() {
                    path(value);
                }
            }
            value if field.ends_with("_data") => path(value),
            value if MODELS.contains(&field.as_str()) => {
                if let Some(run) = value.as_str().and_then(named_run) {
                    *value = Value::String(model_path(&run).display().to_string());
                }
            }
            _ => {}
        }
    }
    let mut spec = parse(&spec)?;
    spec.output = Some(PathBuf::from("output").join(name));
    spec.threads = Some(spec.threads.map_or(threads, |asked| asked.min(threads)));
    Ok(spec)
}

/// Where a file lies in the folder of a run. The id keeps files of one name apart.
pub(crate) fn data_path(file: &FileRow) -> PathBuf {
    PathBuf::from("data").join(&file.id).join(&file.name)
}

/// Where the artifact of another run lies in the folder of a run.
pub(crate) fn model_path(run: &str) -> PathBuf {
    PathBuf::from("models").join(run)
}

/// The run that `run:NAME` names, or an artifact's id, which is that of its run.
fn named_run(model: &str) -> Option<String> {
    let run = match model.strip_prefix("artifact-") {
        Some(id) if id.len() == 26 => format!("run-{id}"),
        _ => model.strip_prefix("run:")?.to_owned(),
    };
    check_name("model", &run).is_ok().then_some(run)
}

/// A name that is one harmless part of a path, a URL and a line.
pub(crate) fn check_name(param: &str, name: &str) -> Result<()> {
    let good = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    let starts = name.starts_with(|letter: char| letter.is_ascii_alphanumeric());
    if starts && name.len() <= 100 && name.chars().all(good) {
        return Ok(());
    }
    Err(Error::invalid(param, "expected 1 to 100 letters, digits, `.`, `_` and `-`, the first one a letter or a digit"))
}

/// A file's name: one part of a path in any script, without what controls terminals.
pub(crate) fn check_file_name(name: &str) -> Result<()> {
    let bad = |letter: char| letter.is_control() || "/\\:".contains(letter);
    if name.is_empty() || name.len() > 200 || name.starts_with(['.', '-', ' ']) || name.chars().any(bad) {
        let message = "expected a file's name of at most 200 bytes, as in `train.csv`: without folders, colons and control \
                       characters, and not beginning with a dot, a dash or a blank";
        return Err(Error::invalid("name", message));
    }
    Ok(())
}

fn check_resources(asked: &crate::wire::Resources, settings: &Settings) -> Result<()> {
    for (name, asked, there) in [
        ("cpus", u64::from(asked.cpus), u64::from(settings.all_cpus())),
        ("gpus", u64::from(asked.gpus), u64::from(settings.gpus)),
        ("memory", asked.memory, if settings.memory == 0 { u64::MAX } else { settings.memory }),
        ("disk", asked.disk, if settings.disk == 0 { u64::MAX } else { settings.disk }),
    ] {
        if asked > there {
            let message = format!("asked for {asked}, and this server has {there}: such a run would wait for ever");
            return Err(Error::invalid(format!("resources.{name}"), message));
        }
    }
    Ok(())
}

fn check_field(name: &str, field: Option<&Field>, value: &Value, files: &mut Vec<String>, problems: &mut Vec<Problem>) {
    let mut add = |field: &str, problem: String| problems.push(Problem { field: field.into(), problem });
    let Some(field) = field else {
        let known = nearest(name, RunSpec::FIELDS.iter().map(|field| field.name));
        return add(name, format!("is no field of a run{known}"));
    };
    if !field.accepts(value) {
        return add(name, format!("expected {}, got `{value}`", field.value));
    }
    let is_default = match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        _ => false,
    };
    if is_default {
        return;
    }
    if let Some((_, reason)) = OURS.iter().find(|(ours, _)| *ours == name) {
        return add(name, (*reason).to_owned());
    }
    let mut add_file = |place: &str, value: &Value, add: &mut dyn FnMut(&str, String)| match value
        .as_str()
        .and_then(named_file)
    {
        Some((id, _)) => files.push(id.to_owned()),
        None => {
            let expected = "expected the id of an uploaded file, as in `file-01jd…`, a split of one, as in `file-01jd…:test`, or \
                            one with its columns, as in `file-01jd…:text=description`";
            add(place, format!("{expected}, got `{value}`"));
        }
    };
    match (name, value) {
        (_, value) if matches!(field.value, FieldType::Path) => add_file(name, value, &mut add),
        (name, Value::String(model)) if MODELS.contains(&name) && !is_model(model) => {
            let expected = "expected `mini`, an alias, `organisation/name` of the hub or `run:NAME`";
            add(name, format!("{expected}, got `{model}`"));
        }
        ("callbacks", Value::Array(callbacks)) => {
            for callback in callbacks.iter().filter_map(Value::as_str) {
                let known = callback.split('(').next().unwrap_or_default().trim();
                if !CALLBACKS.contains(&known) {
                    add(name, format!("`{known}` cannot run in a server{}", nearest(known, CALLBACKS)));
                } else if let Some(option) = CALLBACK_FILES.iter().find(|option| callback.contains(**option)) {
                    add(name, format!("`{option}` of `{known}` cannot be given to a server; use the run's own field"));
                }
            }
        }
        ("datasets", Value::Array(tables)) => {
            for (number, table) in (1..).zip(tables) {
                for (inner, value) in table.as_object().into_iter().flatten() {
                    if inner.ends_with("_data") && DATASET_FIELDS.contains(&inner.as_str()) {
                        add_file(&format!("datasets[{number}].{inner}"), value, &mut add);
                    }
                }
            }
        }
        _ => {}
    }
}

/// A file by our id, and the split of a BEIR folder in it or what its columns are; what looks like one can never be a path.
fn named_file(text: &str) -> Option<(&str, Option<&str>)> {
    let (id, part) = text.split_once(':').map_or((text, None), |(id, part)| (id, Some(part)));
    let ulid = id.strip_prefix("file-")?;
    let good = ulid.len() == 26 && ulid.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let harmless =
        |part: &str| check_name("split", part).is_ok() || part.contains('=') && check_file_name(part).is_ok();
    (good && part.is_none_or(harmless)).then_some((id, part))
}

/// One name or `organisation/name`, with an optional revision: no part is a way up or out.
fn is_model(name: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|letter: char| letter.is_ascii_alphanumeric())
            && part.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-".contains(letter))
    };
    let (model, revision) = name.split_once('@').unwrap_or((name, "main"));
    let mut parts = model.split('/');
    // The folders of a run are no models.
    let ours = ["data", "output", "attempts", "models"].contains(&model.split('/').next().unwrap_or_default());
    !ours && parts.next().is_some_and(part) && parts.next().is_none_or(part) && parts.next().is_none() && part(revision)
}

fn parse(spec: &Map<String, Value>) -> Result<RunSpec> {
    let parsed = serde_json::from_value(Value::Object(spec.clone()));
    parsed.map_err(|error| Error::invalid("spec", error.to_string()))
}

fn spec_error(problems: Vec<Problem>) -> Error {
    Error::Refused {
        kind: Kind::Invalid,
        code: "invalid_spec",
        param: problems.first().map(|problem| format!("spec.{}", problem.field)),
        message: problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Scope;
    use serde_json::json;

    const FILE: &str = "file-01jd3v9k3w7c8q2m6n5p4r1s0t";

    fn checked(request: Value) -> Result<NewRunRow> {
        let key = KeyRow { id: "key-1".into(), owner: "me".into(), scope: Scope::Run, hash: String::new() };
        check(serde_json::from_value(request).unwrap(), &key, &Settings::default())
    }

    fn refusal(request: Value) -> String {
        let error = checked(request).unwrap_err();
        assert_eq!(error.status(), 422, "{error}");
        format!("{}: {error}", error.problem().param.unwrap_or_default())
    }

    #[test]
    fn a_request_names_its_files_once_each() {
        let row = checked(
            json!({"spec": {"model": "sentence-transformers/all-MiniLM-L6-v2", "train_data": FILE, "eval_data": FILE}}),
        );
        let row = row.unwrap();
        assert_eq!((row.files, row.model.as_str()), (vec![FILE.to_owned()], "all-MiniLM-L6-v2"));
        assert_eq!((row.owner.as_str(), row.experiment.as_str()), ("me", "default"));
    }

    #[test]
    fn nothing_in_a_spec_names_a_file_of_the_server() {
        for (field, value) in [
            ("train_data", json!("/etc/passwd")),
            ("train_data", json!("../x.csv")),
            ("train_data", json!("file-01jd3v9k3w7c8q2m6n5p4r1s0t:../test")),
            ("train_data", json!("file-01jd3v9k3w7c8q2m6n5p4r1s0t:")),
            ("train_data", json!("file-01jd3v9k3w7c8q2m6n5p4r1s0t:a:b")),
            ("train_data", json!("file-01jd3v9k3w7c8q2m6n5p4r1s0t:text=../a")),
            ("train_data", json!("file-01jd3v9k3w7c8q2m6n5p4r1s0t:text=a:b")),
            ("train_data", json!("file-../../../../../../etc/pass")),
            ("query_data", json!("data/x.csv")),
            ("model", json!("/models/secret")),
            ("model", json!("../model")),
            ("model", json!("a/b/c")),
            ("model", json!("a/../b")),
            ("model", json!("output/x")),
            ("model", json!("models/run-1")),
            ("model", json!("run:../x")),
            ("model", json!("run:")),
            ("guide", json!("run:/etc")),
            ("model", json!("~root")),
            ("guide", json!("./x")),
            ("image_model", json!("a\\b")),
            ("output", json!("/tmp/x")),
            ("resume", json!(true)),
            ("allow_urls", json!(true)),
            ("callbacks", json!(["CSVLogger(path=/etc/x)"])),
            ("callbacks", json!(["MLflowLogger(tracking_uri=http://10.0.0.1)"])),
            ("callbacks", json!(["EvaluationCallback(query_data=/etc/passwd)"])),
        ] {
            let mut spec = json!({"train_data": FILE});
            spec[field] = value.clone();
            let refusal = refusal(json!({"spec": spec}));
            assert!(refusal.starts_with(&format!("spec.{field}: `{field}`: ")), "{value}: {refusal}");
        }
        let tables = json!({"spec": {"datasets": [{"train_data": FILE}, {"train_data": "/etc/passwd"}]}});
        assert!(refusal(tables).contains("datasets[2].train_data"));
    }

    #[test]
    fn unknown_fields_wrong_types_and_wrong_values_are_all_listed() {
        let refusal = refusal(json!({"spec": {"train_data": FILE, "epoch": 1, "batch_size": "many"}}));
        assert!(refusal.contains("`epoch`: is no field of a run, did you mean `epochs`?"), "{refusal}");
        assert!(refusal.contains("`batch_size`: expected a whole number, got `\"many\"`"), "{refusal}");
        let zero = checked(json!({"spec": {"train_data": FILE, "epochs": 0}})).unwrap_err().to_string();
        assert!(zero.contains("`epochs`: expected 1 or more"), "{zero}");
    }

    #[test]
    fn names_are_one_harmless_part_of_a_path() {
        for name in ["..", ".", "", "a/b", "a b", "-rf", "run-1", "é", "a\nb", "<b>", &"x".repeat(101)] {
            assert!(refusal(json!({"name": name, "spec": {"train_data": FILE}})).starts_with("name: "), "{name}");
        }
        for name in
            ["../x.csv", "/etc/passwd", "a\\b.csv", ".hidden", "a\0b", "a\u{1b}[1m", "C:x", "-x", &"x".repeat(201)]
        {
            assert!(check_file_name(name).is_err(), "{name:?}");
        }
        for name in ["train.csv", "Übung 1.jsonl", "a'; DROP TABLE runs; --.csv", "<b>.csv"] {
            check_file_name(name).unwrap();
        }
    }

    #[test]
    fn more_than_there_is_is_refused_at_once() {
        let refusal = refusal(json!({"spec": {"train_data": FILE}, "resources": {"gpus": 1}}));
        assert!(refusal.starts_with("resources.gpus: asked for 1, and this server has 0"), "{refusal}");
    }

    #[test]
    fn where_gpus_are_counted_a_run_that_may_take_one_asks_for_one() {
        let gpus = |settings: &Settings, device: &str, asked: u32| {
            let request = json!({"spec": {"train_data": FILE, "device": device}, "resources": {"gpus": asked}});
            let key = KeyRow { id: "key-1".into(), owner: "me".into(), scope: Scope::Run, hash: String::new() };
            check(serde_json::from_value(request).unwrap(), &key, settings).map(|row| row.resources.gpus)
        };
        let counted = Settings { gpus: 2, ..Settings::default() };
        for (device, asked, expected) in [("auto", 0, 1), ("cuda", 0, 1), ("cuda", 2, 2), ("cpu", 0, 0)] {
            assert_eq!(gpus(&counted, device, asked).unwrap(), expected, "{device}");
        }
        assert!(gpus(&counted, "cuda:1", 0).unwrap_err().to_string().contains("this server chooses which GPU"));
        assert_eq!(gpus(&Settings::default(), "cuda:1", 0).unwrap(), 0);
    }

    #[test]
    fn the_workers_spec_names_files_in_its_own_folder() {
        let file = FileRow {
            id: FILE.into(),
            name: "train.csv".into(),
            bytes: 1,
            sha256: None,
            ready: true,
            reason: None,
            created_at: 0,
        };
        let spec = json!({"train_data": FILE, "threads": 64, "model": "run:run-x", "query_data": format!("{FILE}:test"),
            "index_data": format!("{FILE}:text=a name,id=sku")});
        let spec = localise(spec.as_object().unwrap(), "first", &[file], 2).unwrap();
        assert_eq!(spec.train_data, PathBuf::from("data").join(FILE).join("train.csv"));
        assert_eq!(spec.query_data, Some(PathBuf::from("data").join(FILE).join("train.csv:test")));
        assert_eq!(spec.index_data, Some(PathBuf::from("data").join(FILE).join("train.csv:text=a name,id=sku")));
        assert_eq!(spec.model, "models/run-x");
        assert_eq!((spec.output, spec.threads), (Some("output/first".into()), Some(2)));
    }
}
