//! Finding a loss or miner by name and reading its options.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Problem, Result, nearest};
use crate::spec::Options;

/// One line of a table of losses or miners.
pub(crate) struct Entry<T: ?Sized> {
    pub(crate) name: &'static str,
    /// Other names that mean the same.
    pub(crate) aliases: &'static [&'static str],
    pub(crate) build: fn(&Options) -> Result<Box<T>>,
}

/// Builds the entry of this name. `refused` holds names that exist elsewhere but cannot be used, with the reason.
pub(crate) fn build<T: ?Sized>(
    field: &str,
    entries: &[Entry<T>],
    refused: &[(&str, &str)],
    name: &str,
    options: &Options,
) -> Result<Box<T>> {
    if let Some(entry) = entries.iter().find(|entry| entry.name == name || entry.aliases.contains(&name)) {
        return (entry.build)(options);
    }
    if let Some((_, reason)) = refused.iter().find(|(refused, _)| *refused == name) {
        return Err(Error::spec(field, format!("`{name}` {reason}")));
    }
    let known =
        nearest(name, entries.iter().flat_map(|entry| [entry.name].into_iter().chain(entry.aliases.iter().copied())));
    Err(Error::spec(field, format!("unknown {field} `{name}`{known}")))
}

/// Options of the cached losses of sentence-transformers, which say how a batch is cut.
const NOT_NEEDED: [&str; 5] = [
    "mini_batch_size",
    "mini_batch_num_tokens",
    "use_mini_batched_version",
    "show_progress_bar",
    "gather_across_devices",
];

/// Options as the fields of `T`: each has a default, unknown ones and wrong values are all listed.
pub(crate) fn parse<T: Serialize + DeserializeOwned + Default>(field: &str, options: &Options) -> Result<T> {
    let default = serde_json::to_value(T::default()).unwrap_or_default();
    let known: Vec<&str> = default.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
    let mut problems = Vec::new();
    for (key, value) in options {
        let problem = if key == "guide" && !known.contains(&"guide") {
            Some("is a field of the run, not an option: `guide`".to_owned())
        } else if NOT_NEEDED.contains(&key.as_str()) && !known.contains(&key.as_str()) {
            Some("is not needed: every loss sees the whole batch, in micro-batches of `micro_batch_tokens`".to_owned())
        } else if !known.contains(&key.as_str()) {
            Some(format!("unknown option{}", nearest(key, known.iter().copied())))
        } else {
            let alone = Options::from_iter([(key.clone(), value.clone())]);
            serde_json::from_value::<T>(Value::Object(alone)).err().map(|error| error.to_string())
        };
        problems.extend(problem.map(|problem| Problem { field: format!("{field}.{key}"), problem }));
    }
    if !problems.is_empty() {
        return Err(Error::Spec { problems });
    }
    serde_json::from_value(Value::Object(options.clone())).map_err(|error| Error::spec(field, error.to_string()))
}

/// What `check` finds wrong in values that are right one by one.
pub(crate) fn checked(field: &str, found: Vec<(&str, String)>) -> Result<()> {
    if found.is_empty() {
        return Ok(());
    }
    let problems = found.into_iter().map(|(key, problem)| Problem { field: format!("{field}.{key}"), problem });
    Err(Error::Spec { problems: problems.collect() })
}

/// A problem unless the number is finite and greater than 0.
pub(crate) fn positive(key: &'static str, value: f64) -> Option<(&'static str, String)> {
    let valid = value.is_finite() && value > 0.0;
    (!valid).then(|| (key, format!("expected a number greater than 0, got {value}")))
}

/// A problem unless the number is an angle from 0 to 180 degrees.
pub(crate) fn angle(key: &'static str, degrees: f64) -> Option<(&'static str, String)> {
    let valid = (0.0..=180.0).contains(&degrees);
    (!valid).then(|| (key, format!("expected degrees from 0 to 180, got {degrees}")))
}
