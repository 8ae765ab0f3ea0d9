//! What the engine refuses.

/// The result of an operation on tensors.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation was refused or failed: a mistake of the caller, found before any work is done, or a device that is
/// missing, too small or lost.
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
    /// There is no such device, or it cannot be used.
    #[error("{device} cannot be used: {reason}")]
    Unavailable {
        /// As it was asked for.
        device: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// The device has too little free memory. What was computed since is worthless; a smaller micro-batch may fit.
    #[error("{device} is out of memory: {bytes} bytes more were needed, {free} of {total} are free")]
    OutOfMemory {
        /// The device.
        device: String,
        /// What was asked for last.
        bytes: u64,
        /// What is free on the device, other programs counted.
        free: u64,
        /// What the device has.
        total: u64,
    },
    /// The device failed. What was computed since is worthless.
    #[error("{device} failed in {operation}: {reason}")]
    Device {
        /// The device.
        device: String,
        /// What was asked of it.
        operation: String,
        /// What it said.
        reason: String,
    },
}

impl Error {
    /// An [`Error::Shape`].
    pub fn shape(operation: &'static str, expected: impl Into<String>, got: impl Into<String>) -> Self {
        Error::Shape { operation, expected: expected.into(), got: got.into() }
    }
}
