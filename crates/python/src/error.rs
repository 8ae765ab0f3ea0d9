//! Errors as the classes of `finetuner.exception`.

use finetuner::Error;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use service::client;

/// What comes from the library or from the client of a server.
pub(crate) trait IntoPython {
    /// The exception that says the same.
    fn into_python(self, py: Python<'_>) -> PyErr;
}

impl IntoPython for Error {
    fn into_python(self, py: Python<'_>) -> PyErr {
        let class = match &self {
            Error::Spec { problems } => {
                let problems: Vec<_> =
                    problems.iter().map(|problem| (problem.field.clone(), problem.problem.clone())).collect();
                return exception(py, "SpecError", self.to_string(), |fields| fields.set_item("problems", problems));
            }
            Error::Data { .. } | Error::Picture { .. } => "DataError",
            Error::Model { .. } | Error::Download { .. } => "ModelError",
            Error::Io { .. } => "FileError",
            Error::Output { .. } => "OutputError",
            _ => "TrainingError",
        };
        exception(py, class, self.to_string(), |_| Ok(()))
    }
}

impl IntoPython for client::Error {
    fn into_python(self, py: Python<'_>) -> PyErr {
        let message = self.to_string();
        match self {
            client::Error::Local(error) => error.into_python(py),
            client::Error::Refused { problem, .. } if problem.code == "invalid_spec" => {
                let problems = message.lines().filter_map(|line| line.strip_prefix('`')?.split_once("`: "));
                let problems: Vec<_> =
                    problems.map(|(field, problem)| (field.to_owned(), problem.to_owned())).collect();
                exception(py, "SpecError", message.clone(), |fields| fields.set_item("problems", problems))
            }
            client::Error::Refused { status, problem } => exception(py, "ServiceError", message, |fields| {
                fields.set_item("code", status)?;
                fields.set_item("reason", problem.code)?;
                fields.set_item("param", problem.param)
            }),
            _ => exception(py, "ServiceError", message, |_| Ok(())),
        }
    }
}

/// An exception of `finetuner.exception`, with what it takes beside its message.
fn exception(
    py: Python<'_>,
    class: &str,
    message: String,
    fill: impl FnOnce(&Bound<'_, PyDict>) -> PyResult<()>,
) -> PyErr {
    let make = || {
        let fields = PyDict::new(py);
        fill(&fields)?;
        py.import("finetuner.exception")?.getattr(class)?.call((message,), Some(&fields))
    };
    make().map_or_else(|error| error, PyErr::from_value)
}

/// JSON that one half of this package made and the other cannot read: a bug.
pub(crate) fn bug(error: impl std::fmt::Display) -> PyErr {
    PyRuntimeError::new_err(format!("this is a bug in finetuner: {error}"))
}
