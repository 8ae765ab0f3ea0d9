//! What goes wrong on this side of the network.

use crate::wire::Problem;

/// The result of everything in a client that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// Every way in which a client fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server does not answer.
    #[error("cannot reach `{server}`: {reason}")]
    Unreachable {
        /// Its address.
        server: String,
        /// Why.
        reason: String,
    },
    /// The server refused; its message says what to do.
    #[error("{}", problem.message)]
    Refused {
        /// The status code.
        status: u16,
        /// What it says.
        problem: Problem,
    },
    /// Something answers that is no Finetuner server, or of another version.
    #[error("{0}")]
    Protocol(String),
    /// A file of this machine cannot be read or written, or is not what it should be.
    #[error(transparent)]
    Local(#[from] finetuner::Error),
    /// There is no usable login.
    #[error("{0}")]
    Login(String),
}

impl Error {
    /// Whether the same may work a little later.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Error::Unreachable { .. }) || matches!(self, Error::Refused { status: 429 | 503, .. })
    }

    pub(super) fn malformed(error: ureq::http::Error) -> Error {
        Error::Login(format!("the server's address cannot be used: {error}; it looks like `http://localhost:7700`"))
    }
}
