//! The real binary, in fresh folders.

mod bad_input;
mod encode;
mod evaluate;
mod fit;
mod help;
mod interrupt;
mod search;
mod support;
