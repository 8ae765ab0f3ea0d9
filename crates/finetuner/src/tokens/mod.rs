//! Text to packed token batches: the model's own tokenizer, batches to a token budget, prepared ahead of the step.
//!
//! - [`tokenizer`]: texts to token sequences, in parallel, truncation noted
//! - [`mod@pack`]: sequences to batches without padding
//! - [`prefetch`]: the next batches are prepared on another thread

pub mod pack;
pub mod prefetch;
pub mod tokenizer;

pub use pack::{PackedBatch, pack, pack_by_length};
pub use prefetch::Prefetch;
pub use tokenizer::{TokenSequence, Tokenizer};
