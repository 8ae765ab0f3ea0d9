//! A server of the real binary, its workers and its clients, on loopback.

#![expect(clippy::unwrap_used, reason = "what cannot be set up fails the test")]
#![cfg(unix)]

mod access;
mod cancel;
mod databases;
mod described;
mod files;
mod folders;
mod inspections;
mod kills;
mod lifecycle;
mod limits;
mod openid;
mod page;
mod requests;
mod resources;
mod retention;
mod support;
mod telemetry;
mod tls;
mod trial;
