//! What went wrong: the field, the file and line or the shape; expected and got; what to do.

use std::path::{Path, PathBuf};

/// The result of everything in this library that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// Every way in which the library fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation. Check that the path exists and is readable or writable.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was attempted: "read", "create", "rename" …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A row or a file of examples cannot be used. The message says what was expected and what was found.
    #[error("{}{}: {problem}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
    Data {
        /// The data file.
        path: PathBuf,
        /// The line, counted from 1, where one line is at fault.
        line: Option<u64>,
        /// Expected and got.
        problem: String,
    },
    /// A picture cannot be used: missing, not a picture, too large, truncated, damaged.
    #[error("picture `{picture}`: {problem}")]
    Picture {
        /// Its address: a file, an entry of a tar shard, a URL.
        picture: String,
        /// Expected and got, and what to do.
        problem: String,
    },
    /// The run cannot be started as asked for; every problem found is listed.
    #[error("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Spec {
        /// All problems, in the order of the fields.
        problems: Vec<Problem>,
    },
    /// A model's files are missing, damaged or of an unsupported kind.
    #[error("model `{model}`: {problem}")]
    Model {
        /// The folder, file or repository.
        model: String,
        /// Expected and got, and what to do.
        problem: String,
    },
    /// A model or one of its files could not be downloaded.
    #[error("cannot download `{url}`: {problem}")]
    Download {
        /// The address.
        url: String,
        /// Why, and what to do.
        problem: String,
    },
    /// The output folder holds something this run must not overwrite.
    #[error("output folder `{}` {problem}", path.display())]
    Output {
        /// The folder.
        path: PathBuf,
        /// What stands in the way and how to go on.
        problem: String,
    },
    /// A model cannot be measured: embeddings that are not finite or do not fit, or nothing to find.
    #[error("cannot evaluate: {0}")]
    Evaluation(String),
    /// A measurement ended early because it was told to. Runs turn it into an outcome of their own.
    #[error("stopped while measuring")]
    Stopped,
    /// One of several ranks that train together failed or is gone; the others end with it.
    #[error("rank {rank}: {problem}")]
    Rank {
        /// Which.
        rank: usize,
        /// What it said, or how it was lost.
        problem: String,
    },
    /// Training left the range of numbers.
    #[error("{0}")]
    Diverged(String),
    /// The tensor engine refused an operation.
    #[cfg(feature = "engine")]
    #[error(transparent)]
    Engine(#[from] engine::Error),
}

/// One problem of a run's specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The field, as in the file and on the command line.
    pub field: String,
    /// Expected and got, and the nearest valid name where one is close.
    pub problem: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "`{}`: {}", self.field, self.problem)
    }
}

impl Error {
    /// An [`Error::Io`] builder for `map_err`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.as_ref().to_owned();
        move |source| Error::Io { action, path, source }
    }

    /// An [`Error::Data`] at a line, or for the whole file.
    pub fn data(path: impl AsRef<Path>, line: impl Into<Option<u64>>, problem: impl Into<String>) -> Error {
        Error::Data { path: path.as_ref().to_owned(), line: line.into(), problem: problem.into() }
    }

    /// An [`Error::Model`].
    pub fn model(model: impl Into<String>, problem: impl Into<String>) -> Error {
        Error::Model { model: model.into(), problem: problem.into() }
    }

    /// An [`Error::Rank`].
    pub fn rank(rank: usize, problem: impl Into<String>) -> Error {
        Error::Rank { rank, problem: problem.into() }
    }

    /// An [`Error::Spec`] with one problem.
    pub fn spec(field: impl Into<String>, problem: impl Into<String>) -> Error {
        Error::Spec { problems: vec![Problem { field: field.into(), problem: problem.into() }] }
    }
}

/// `, did you mean `x`?` where a known name is close to what was written, else a list of the known names.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let closest = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&written.to_lowercase(), &name.to_lowercase()), *name))
        .min();
    match closest {
        Some((distance, name)) if distance <= 2.max(written.len() / 3) => format!(", did you mean `{name}`?"),
        _ => format!(", known are {}", known.join(", ")),
    }
}
