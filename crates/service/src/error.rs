//! Everything that goes wrong, as a status, a code, a field and what to do.

use std::path::Path;

use crate::wire::Problem;

/// The result of everything in a server that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// Every way in which the service fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller asked for what cannot be done; the message says what can.
    #[error("{message}")]
    Refused {
        /// Of what kind.
        kind: Kind,
        /// Which problem, for programs.
        code: &'static str,
        /// The field or parameter at fault.
        param: Option<String>,
        /// Expected and got, and what to do.
        message: String,
    },
    /// The database refused.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// The storage of files and artifacts refused.
    #[error("storage: {0}")]
    Storage(#[from] object_store::Error),
    /// The library refused.
    #[error(transparent)]
    Finetuner(#[from] finetuner::Error),
    /// Another server has taken the run over.
    #[error("another server has taken over run {0}")]
    LeaseLost(String),
    /// The server cannot be started like this.
    #[error("{0}")]
    Settings(String),
    /// Something that is a fault of ours.
    #[error("{0}")]
    Internal(String),
}

/// Of what kind a refusal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong: 400.
    Request,
    /// What it says cannot be taken: 422.
    Invalid,
    /// No key, or none that counts: 401.
    Authentication,
    /// The key may not: 403.
    Permission,
    /// It is not there, or not the caller's: 404.
    NotFound,
    /// It is in a state that forbids it: 409.
    Conflict,
    /// It was there and is no more: 410.
    Gone,
    /// It took the caller too long: 408.
    TooSlow,
    /// Too large: 413.
    TooLarge,
    /// Too many: 429.
    TooMany,
    /// The server is going down: 503.
    Unavailable,
}

impl Error {
    /// A refusal that is nobody's field.
    pub fn refused(kind: Kind, code: &'static str, message: impl Into<String>) -> Error {
        Error::Refused { kind, code, param: None, message: message.into() }
    }

    /// A value that cannot be taken.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Error {
        Error::Refused {
            kind: Kind::Invalid,
            code: "invalid_value",
            param: Some(param.into()),
            message: message.into(),
        }
    }

    /// Something that is not there, or not the caller's.
    pub fn not_found(code: &'static str, what: &str, name: &str) -> Error {
        Error::refused(Kind::NotFound, code, format!("there is no {what} `{name}` that this key can see"))
    }

    /// An I/O failure at a path, for `map_err`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        let to_error = finetuner::Error::io(action, path);
        |source| Error::Finetuner(to_error(source))
    }

    /// The status code of an answer.
    pub fn status(&self) -> u16 {
        match self {
            Error::Refused { kind, .. } => match kind {
                Kind::Request => 400,
                Kind::Invalid => 422,
                Kind::Authentication => 401,
                Kind::Permission => 403,
                Kind::NotFound => 404,
                Kind::Conflict => 409,
                Kind::TooSlow => 408,
                Kind::Gone => 410,
                Kind::TooLarge => 413,
                Kind::TooMany => 429,
                Kind::Unavailable => 503,
            },
            _ => 500,
        }
    }

    /// What the caller gets to read; a fault of ours says no more than that it is one.
    pub fn problem(&self) -> Problem {
        match self {
            Error::Refused { kind, code, param, message } => Problem {
                code: (*code).into(),
                message: message.clone(),
                param: param.clone(),
                kind: match kind {
                    Kind::Request | Kind::Invalid => "invalid_request",
                    Kind::Authentication => "authentication",
                    Kind::Permission => "permission",
                    Kind::NotFound | Kind::Gone => "not_found",
                    Kind::Conflict => "conflict",
                    Kind::TooSlow | Kind::TooLarge | Kind::TooMany => "limit",
                    Kind::Unavailable => "unavailable",
                }
                .into(),
            },
            _ => Problem {
                code: "internal".into(),
                message: "the server failed; its log says why, under the request id of this answer".into(),
                param: None,
                kind: "internal".into(),
            },
        }
    }
}
