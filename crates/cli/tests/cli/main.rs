//! The real binary, in fresh folders.

#![expect(clippy::unwrap_used, reason = "what cannot be set up fails the test")]

mod bad_input;
mod check;
mod encode;
mod evaluate;
mod fit;
mod help;
mod interrupt;
mod kinds;
mod mine;
mod pictures;
mod ranks;
mod search;
mod support;
mod vectors;
