//! A call's arguments to a spec, and a report to text.

use finetuner::Error;
use finetuner::error::Problem;
use finetuner::spec::RunSpec;
use finetuner::train::{Report, check_names};
use pyo3::prelude::*;
use serde_json::{Map, Value};

use crate::error::{IntoPython, bug};

/// The names of all fields of a run.
#[pyfunction]
pub(crate) fn field_names() -> Vec<&'static str> {
    RunSpec::FIELDS.iter().map(|field| field.name).collect()
}

/// The whole spec as JSON: the arguments (a JSON object), else the environment, else the defaults; checked as far as that
/// goes without data and model.
#[pyfunction]
pub(crate) fn resolve(py: Python<'_>, arguments: &str) -> PyResult<String> {
    let arguments = serde_json::from_str(arguments).map_err(bug)?;
    let spec = spec(arguments).map_err(|error| error.into_python(py))?;
    serde_json::to_string(&spec).map_err(bug)
}

fn spec(arguments: Map<String, Value>) -> finetuner::Result<RunSpec> {
    let environment = RunSpec::resolve(None, std::env::vars_os(), [])?;
    let refused = |error: serde_json::Error| Error::spec("spec", error.to_string());
    let mut fields = serde_json::to_value(&environment).map_err(refused)?;
    let mut problems = Vec::new();
    for (name, value) in arguments {
        match RunSpec::field(&name) {
            Ok(field) if field.accepts(&value) => fields[field.name] = value,
            Ok(field) => {
                problems.push(Problem { field: name, problem: format!("expected {}, got `{value}`", field.value) });
            }
            Err(Error::Spec { problems: found }) => problems.extend(found),
            Err(error) => return Err(error),
        }
    }
    if !problems.is_empty() {
        return Err(Error::Spec { problems });
    }
    let spec = serde_json::from_value(fields).map_err(refused)?;
    check_names(&spec)?;
    Ok(spec)
}

/// A `report.json` as the command line prints it.
#[pyfunction]
pub(crate) fn report_text(report: &str) -> PyResult<String> {
    let report: Report = serde_json::from_str(report).map_err(bug)?;
    Ok(report.text())
}

/// A spec that [`resolve`] has made.
pub(crate) fn read(spec: &str) -> PyResult<RunSpec> {
    serde_json::from_str(spec).map_err(bug)
}
