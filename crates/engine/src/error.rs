//! What the engine refuses.

/// The result of an operation on tensors.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation was refused. All of them are mistakes of the caller, found before any work is done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor's shape does not fit the operation.
    #[error("{operation}: expected {expected}, got {got}")]
    Shape {
        /// The operation.
        operation: &'static str,
        /// What it needs.
        expected: String,
        /// What it was given.
        got: String,
    },
    /// An index points outside its table.
    #[error("{operation}: index {index} at position {position} is outside 0..{limit}")]
    Index {
        /// The operation.
        operation: &'static str,
        /// The offending index.
        index: usize,
        /// Where it stands in the list of indices.
        position: usize,
        /// One past the largest valid index.
        limit: usize,
    },
}

impl Error {
    /// An [`Error::Shape`].
    pub fn shape(operation: &'static str, expected: impl Into<String>, got: impl Into<String>) -> Self {
        Error::Shape { operation, expected: expected.into(), got: got.into() }
    }
}
