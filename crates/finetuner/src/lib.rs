//! Fine-tune embedding models for similarity search.
//!
//! Modules in reading order; each uses only those above it (`tests/module_order.rs` checks it):
//! 1. [`error`]: what went wrong, where, expected and got, what to do
//! 2. [`spec`]: every decision of a run as data
//! 3. [`event`]: everything a run tells the outside
//! 4. [`data`]: what do we learn from
//! 5. [`artifact`]: a model's folder on disk, read and written
//! 6. [`device`]: what computes
//! 7. [`mesh`]: ranks that train together
//! 8. [`tokens`]: text to packed token batch
//! 9. [`pixels`]: picture to packed pixel batch
//! 10. [`encoder`]: packed batch to embeddings
//! 11. [`objective`]: embeddings to one number
//! 12. [`optim`]: gradients to new weights
//! 13. [`evaluate`]: exact search, metrics, before and after
//! 14. [`mine`]: training data out of data: hard negatives, a teacher's margins
//! 15. [`train`]: the loop

pub mod error;
pub mod spec;
pub mod event;
pub mod data;
pub mod artifact;
#[cfg(feature = "engine")]
pub mod device;
#[cfg(feature = "engine")]
pub mod mesh;
#[cfg(feature = "engine")]
pub mod tokens;
#[cfg(feature = "engine")]
pub mod pixels;
#[cfg(feature = "engine")]
pub mod encoder;
#[cfg(feature = "engine")]
pub mod objective;
#[cfg(feature = "engine")]
pub mod optim;
#[cfg(feature = "engine")]
pub mod evaluate;
#[cfg(feature = "engine")]
pub mod mine;
#[cfg(feature = "engine")]
pub mod train;

pub use error::{Error, Result};

// Files and the messages of ranks hold little-endian numbers, which are written as they lie in memory.
const _: () = assert!(cfg!(target_endian = "little"));
