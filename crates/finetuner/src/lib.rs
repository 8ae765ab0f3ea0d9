//! Fine-tune embedding models for similarity search.
//!
//! Modules in reading order; each uses only those above it (`tests/module_order.rs` checks it):
//! 1. [`error`]: what went wrong, where, expected and got, what to do
//! 2. [`spec`]: every decision of a run as data
//! 3. [`event`]: everything a run tells the outside
//! 4. [`data`]: what do we learn from
//! 5. [`artifact`]: a model's folder on disk, read and written
//! 6. [`device`]: what computes
//! 7. [`tokens`]: text to packed token batch
//! 8. [`pixels`]: picture to packed pixel batch
//! 9. [`encoder`]: packed batch to embeddings
//! 10. [`objective`]: embeddings to one number
//! 11. [`optim`]: gradients to new weights
//! 12. [`evaluate`]: exact search, metrics, before and after
//! 13. [`mine`]: training data out of data: hard negatives, a teacher's margins
//! 14. [`train`]: the loop

pub mod error;
pub mod spec;
pub mod event;
pub mod data;
pub mod artifact;
#[cfg(feature = "engine")]
pub mod device;
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
