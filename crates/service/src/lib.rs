//! Fine-tuning as a service: one HTTP API, a queue of runs, the workers that train them, and the client of all that.
//!
//! Modules in reading order; each uses only those above it:
//! 1. `status`: the states of a run and what may follow what
//! 2. `wire`: what goes over HTTP, the same for server and client
//! 3. `worker`: what a server and its worker processes say to each other, by files
//! 4. `question`: what a server asks a process that looks at data or tries models for it
//! 5. `client`: the API from the other side, blocking and small
//! 6. `error`: everything that goes wrong, as a status, a code, a field and what to do
//! 7. `settings`: a file and the environment
//! 8. `telemetry`: the log, and spans for a collector
//! 9. `key`: bearer keys, shown once and stored as a keyed hash
//! 10. `openid`: signing in at a provider
//! 11. `database`: the truth: rows and transactions
//! 12. `storage`: files, artifacts
//! 13. `request`: is what was asked for something that may run here?
//! 14. `runner`: how a run is run: a process
//! 15. `inquiry`: questions to processes that live as long as somebody asks, under limits
//! 16. `feed`: who waits for a run's events hears that there are some
//! 17. `queue`: who runs next and why others wait
//! 18. `service`: what every part of a server shares
//! 19. `retention`: what is old makes room
//! 20. `supervisor`: one run from its claim to its final state
//! 21. `dispatcher`: desired state to running workers, again and again
//! 22. `http`: routes
//! 23. `connections`: plain or TLS, with so much patience
//! 24. `server`: start, check, shut down
//!
//! Without the feature `server` only the first five are built, and nothing asynchronous.

pub mod status;
pub mod wire;
pub mod worker;
pub mod question;
pub mod client;
#[cfg(feature = "server")]
pub mod error;
#[cfg(feature = "server")]
pub mod settings;
#[cfg(feature = "server")]
pub(crate) mod telemetry;
#[cfg(feature = "server")]
pub(crate) mod key;
#[cfg(feature = "server")]
pub(crate) mod openid;
#[cfg(feature = "server")]
pub(crate) mod database;
#[cfg(feature = "server")]
pub(crate) mod storage;
#[cfg(feature = "server")]
pub(crate) mod request;
#[cfg(feature = "server")]
pub(crate) mod runner;
#[cfg(feature = "server")]
pub(crate) mod inquiry;
#[cfg(feature = "server")]
pub(crate) mod feed;
#[cfg(feature = "server")]
pub(crate) mod queue;
#[cfg(feature = "server")]
pub(crate) mod service;
#[cfg(feature = "server")]
pub(crate) mod retention;
#[cfg(feature = "server")]
pub(crate) mod supervisor;
#[cfg(feature = "server")]
pub(crate) mod dispatcher;
#[cfg(feature = "server")]
pub mod http;
#[cfg(feature = "server")]
pub(crate) mod connections;
#[cfg(feature = "server")]
pub mod server;
