//! The truth: rows and transactions, in SQLite or PostgreSQL, in the SQL that both understand.
//!
//! One file a noun. Whatever must hold together is one transaction; whatever a supervisor writes says under which epoch
//! of its lease, and nothing is written where another server has taken over.

mod artifacts;
mod devices;
mod events;
mod experiments;
mod files;
mod idempotency;
mod keys;
mod leases;
mod models;
mod only;
mod retention;
mod runs;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use sqlx::any::{AnyPoolOptions, AnyQueryResult, AnyRow};
use sqlx::{Any, AnyPool, Executor, Row, Transaction};
use ulid::Ulid;

pub(crate) use self::devices::Polled;
pub(crate) use self::events::Happened;
pub(crate) use self::files::FileRow;
pub(crate) use self::idempotency::Repeat;
pub(crate) use self::keys::KeyRow;
pub(crate) use self::leases::Ending;
use self::only::Only;
pub(crate) use self::retention::{Kept, What};
pub(crate) use self::runs::{NewRunRow, RunFilter, RunRow};
use crate::error::{Error, Result};

/// Every step of the schema, applied once each, forwards only. Once released a step is never changed.
const SCHEMA: [&str; 2] = [include_str!("schema/0001.sql"), include_str!("schema/0002.sql")];

/// The first key of a list page is this many items at most.
pub(crate) const MAX_PAGE: i64 = 100;

pub(crate) type Tx = Transaction<'static, Any>;

/// FULL: what was accepted survives a power cut, not only a crash.
const SQLITE: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON";

/// The same of PostgreSQL, whatever its own settings are; and no statement that hangs holds the others up.
const POSTGRES: &str = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'; \
                        SET default_transaction_isolation = 'read committed'; SET statement_timeout = '60s'; \
                        SET client_min_messages = warning";

/// The connections.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    read: AnyPool,
    /// SQLite has one writer at a time: waiting for one connection is fairer than trying again and again.
    write: AnyPool,
    begin: &'static str,
    only: Arc<Only>,
}

impl Database {
    /// Connects, and brings the schema up to date.
    pub(crate) async fn open(url: &str) -> Result<Self> {
        sqlx::any::install_default_drivers();
        let sqlite = url.starts_with("sqlite:");
        if !sqlite && !url.starts_with("postgres:") && !url.starts_with("postgresql:") {
            return Err(Error::Settings(
                "`database`: expected an address that begins with sqlite: or postgres:".into(),
            ));
        }
        let only = Arc::new(if sqlite { Only::by_folder() } else { Only::take(url).await? });
        let pool = |connections: u32| {
            // A connection to a file does not break off, and asking whether it has costs as much as a query.
            let options = AnyPoolOptions::new().max_connections(connections).test_before_acquire(!sqlite);
            let options = options.after_connect(move |connection, _| {
                let settings = if sqlite { SQLITE } else { POSTGRES };
                Box::pin(async move { connection.execute(sqlx::raw_sql(settings)).await.map(drop) })
            });
            options.connect(url)
        };
        let write = pool(if sqlite { 1 } else { 8 }).await?;
        let read = pool(8).await?;
        let begin = if sqlite { "BEGIN IMMEDIATE" } else { "BEGIN" };
        let database = Database { read, write, begin, only };
        database.migrate().await?;
        Ok(database)
    }

    /// Waits until another server has taken the database over, which ends this one.
    pub(crate) async fn displaced(&self) -> Error {
        self.only.displaced().await
    }

    /// Whether the database answers.
    pub(crate) async fn ping(&self) -> Result<()> {
        sqlx::query("SELECT 1").execute(&self.read).await?;
        Ok(())
    }

    /// Closes every connection, so that SQLite leaves no log behind.
    pub(crate) async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
        self.only.leave().await;
    }

    pub(crate) async fn transaction(&self) -> Result<Tx> {
        Ok(self.write.begin_with(self.begin).await?)
    }

    async fn migrate(&self) -> Result<()> {
        let mut tx = self.transaction().await?;
        let table = "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)";
        sqlx::query(table).execute(&mut *tx).await?;
        let done = sqlx::query("SELECT MAX(version) AS version FROM schema_version").fetch_one(&mut *tx).await?;
        let done = done.try_get::<Option<i64>, _>("version")?.unwrap_or(0) as usize;
        if done > SCHEMA.len() {
            return Err(Error::Settings(format!(
                "the database was written by a later Finetuner (schema {done}, we know up to {}); update",
                SCHEMA.len()
            )));
        }
        for (version, step) in (1i64..).zip(SCHEMA).skip(done) {
            sqlx::raw_sql(step).execute(&mut *tx).await?;
            sqlx::query("INSERT INTO schema_version (version) VALUES ($1)").bind(version).execute(&mut *tx).await?;
        }
        Ok(tx.commit().await?)
    }
}

/// Milliseconds since 1970.
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// A time of the database as RFC 3339.
pub(crate) fn rfc3339(milliseconds: i64) -> String {
    jiff::Timestamp::from_millisecond(milliseconds).map(|time| format!("{time:.3}")).unwrap_or_default()
}

/// A new id: sorted by time, not to be guessed.
pub(crate) fn id(noun: &str) -> String {
    format!("{noun}-{}", Ulid::generate().to_string().to_lowercase())
}

/// A JSON column.
fn json<T: serde::de::DeserializeOwned>(row: &AnyRow, column: &str) -> Result<T> {
    let text: String = row.try_get(column)?;
    serde_json::from_str(&text).map_err(|error| Error::Internal(format!("column {column} is damaged: {error}")))
}

/// A value as a JSON column.
fn text<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::Internal(error.to_string()))
}

/// Whether a row is needed by others that came in the meantime, or needs one that went.
fn is_referenced(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_foreign_key_violation)
}

/// Whether the same may work at once, because another transaction was in the way: it removed what this one needs, or each
/// waited for the other (PostgreSQL's `deadlock_detected` and `serialization_failure`).
fn is_contended(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(error, sqlx::Error::RowNotFound)
        || is_referenced(error)
        || matches!(code.as_deref(), Some("40P01" | "40001"))
}

/// Whether a DELETE found nothing that it may remove: because of a condition, or of what came in the meantime.
fn removes_nothing(done: sqlx::Result<AnyQueryResult>) -> Result<bool> {
    match done {
        Err(error) if is_referenced(&error) => Ok(true),
        done => Ok(done?.rows_affected() == 0),
    }
}

/// Whether an insert met a row of the same name.
fn is_duplicate(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}
