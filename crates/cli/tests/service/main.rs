//! A server of the real binary, its workers and its clients, on loopback.

#![expect(clippy::unwrap_used, reason = "what cannot be set up fails the test")]
#![cfg(unix)]

mod access;
mod cancel;
mod files;
mod inspections;
mod kills;
mod lifecycle;
mod page;
mod requests;
mod support;
mod trial;
