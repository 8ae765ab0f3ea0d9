//! Packed batch to embeddings.

pub mod alias;
pub mod hub;
pub mod source;
