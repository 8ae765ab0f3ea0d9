//! Requests that are sent again because their answer was lost get the answer of the first time.

use sqlx::Row;

use super::{Database, Tx, now};
use crate::error::{Error, Kind, Result};

/// For how long an answer is kept.
const KEPT: i64 = 48 * 3_600_000;

/// A request that may come again.
#[derive(Debug, Clone)]
pub(crate) struct Repeat {
    pub(crate) owner: String,
    /// The caller's `Idempotency-Key`.
    pub(crate) token: String,
    /// Of what was asked for: another request under the same key is a mistake.
    pub(crate) fingerprint: String,
}

/// The answer of the first time.
#[derive(Debug, Clone)]
pub(crate) struct Remembered {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Database {
    /// Takes a request's place, or gives the answer that it had before. The same request that comes at the same time waits
    /// here until the first one is through.
    pub(super) async fn remembered(tx: &mut Tx, repeat: &Repeat) -> Result<Option<Remembered>> {
        let sql = "INSERT INTO idempotency (owner, token, fingerprint, status, body, created_at) \
                   VALUES ($1, $2, $3, 0, '', $4) ON CONFLICT (owner, token) DO NOTHING";
        let query = sqlx::query(sql).bind(&repeat.owner).bind(&repeat.token).bind(&repeat.fingerprint).bind(now());
        if query.execute(&mut **tx).await?.rows_affected() > 0 {
            return Ok(None);
        }
        let sql = "SELECT fingerprint, status, body FROM idempotency WHERE owner = $1 AND token = $2";
        let row = sqlx::query(sql).bind(&repeat.owner).bind(&repeat.token).fetch_one(&mut **tx).await?;
        if row.try_get::<String, _>("fingerprint")? != repeat.fingerprint {
            return Err(Error::Refused {
                kind: Kind::Invalid,
                code: "idempotency_key_reused",
                param: Some("Idempotency-Key".into()),
                message: "this Idempotency-Key came with another request before; make a new one for a new request"
                    .into(),
            });
        }
        Ok(Some(Remembered { status: row.try_get::<i64, _>("status")? as u16, body: row.try_get("body")? }))
    }

    /// Keeps the answer of a request that has its place.
    pub(super) async fn remember(tx: &mut Tx, repeat: &Repeat, answer: &Remembered) -> Result<()> {
        let sql = "UPDATE idempotency SET status = $1, body = $2 WHERE owner = $3 AND token = $4";
        let query = sqlx::query(sql).bind(i64::from(answer.status)).bind(&answer.body);
        query.bind(&repeat.owner).bind(&repeat.token).execute(&mut **tx).await?;
        Ok(())
    }

    /// Forgets answers that nobody will ask for any more.
    pub(crate) async fn forget_answers(&self) -> Result<()> {
        let sql = "DELETE FROM idempotency WHERE created_at < $1";
        sqlx::query(sql).bind(now() - KEPT).execute(&self.write).await?;
        Ok(())
    }
}
