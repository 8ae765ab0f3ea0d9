//! One server a database. SQLite's is locked with its folder; at PostgreSQL a session holds an advisory lock for as long as the
//! server lives, so that it is free the moment a server is gone.
//!
//! A server that is cut off from its database can be replaced before it knows. Until it does, its writes change nothing: each
//! names the epoch of a claim that is no longer its own.

use std::time::{Duration, Instant};

use sqlx::{AnyConnection, Connection, Row};
use tokio::sync::Mutex;
use tracing::warn;

use crate::error::{Error, Result};

/// How long the session of a server that has just been killed may take to end.
const START: Duration = Duration::from_secs(5);

/// How long this server's own session may take to end after the network failed.
const AGAIN: Duration = Duration::from_secs(60);

/// How often the session is looked at.
const LOOK: Duration = Duration::from_secs(5);

const PAUSE: Duration = Duration::from_millis(100);

/// The right to be at work on a database.
#[derive(Debug)]
pub(super) struct Only {
    /// Where the session is made anew; empty for SQLite.
    url: String,
    session: Mutex<Option<AnyConnection>>,
}

impl Only {
    /// The lock on the folder is enough.
    pub(super) fn by_folder() -> Self {
        Only { url: String::new(), session: Mutex::new(None) }
    }

    /// Takes a PostgreSQL database.
    pub(super) async fn take(url: &str) -> Result<Self> {
        let session = lock(url, START).await?;
        Ok(Only { url: url.to_owned(), session: Mutex::new(Some(session)) })
    }

    /// Gives it free.
    pub(super) async fn leave(&self) {
        if let Some(session) = self.session.lock().await.take() {
            // A session that does not end politely ends with the process.
            let _ = session.close().await;
        }
    }

    /// Waits until another server has it.
    pub(super) async fn displaced(&self) -> Error {
        if self.url.is_empty() {
            std::future::pending::<()>().await;
        }
        loop {
            tokio::time::sleep(LOOK).await;
            let mut session = self.session.lock().await;
            let Some(connection) = session.as_mut() else { continue };
            if connection.ping().await.is_ok() {
                continue;
            }
            warn!("the database has ended the session that keeps other servers away; making it anew");
            match lock(&self.url, AGAIN).await {
                Ok(connection) => *session = Some(connection),
                Err(error @ Error::Settings(_)) => return error,
                // The database is down, and so it is for others.
                Err(error) => warn!(%error, "the database does not answer"),
            }
        }
    }
}

/// A session that holds the lock of the schema.
async fn lock(url: &str, patience: Duration) -> Result<AnyConnection> {
    let started = Instant::now();
    let mut connection = AnyConnection::connect(url).await?;
    loop {
        let sql = "SELECT pg_try_advisory_lock(hashtextextended('finetuner ' || current_schema(), 0)) AS taken";
        if sqlx::query(sql).fetch_one(&mut connection).await?.try_get("taken")? {
            return Ok(connection);
        }
        if started.elapsed() > patience {
            return Err(Error::Settings(
                "another server is at work on this database; stop it, or give this one a database or schema of its own \
                 (`database`)"
                    .into(),
            ));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
