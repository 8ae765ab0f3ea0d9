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
//! 8. `key`: bearer keys, shown once and stored as a keyed hash
//! 9. `openid`: signing in at a provider
//! 10. `database`: the truth: rows and transactions
//! 11. `storage`: files, artifacts
//! 12. `request`: is what was asked for something that may run here?
//! 13. `runner`: how a run is run: a process
//! 14. `inquiry`: questions to processes that live as long as somebody asks, under limits
//! 15. `feed`: who waits for a run's events hears that there are some
//! 16. `queue`: who runs next and why others wait
//! 17. `service`: what every part of a server shares
//! 18. `retention`: what is old makes room
//! 19. `supervisor`: one run from its claim to its final state
//! 20. `dispatcher`: desired state to running workers, again and again
//! 21. `http`: routes
//! 22. `connections`: plain or TLS, with so much patience
//! 23. `server`: start, check, shut down
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
