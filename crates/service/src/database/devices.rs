//! Logins that wait for somebody to approve them.

use sqlx::Row;

use super::{Database, now};
use crate::error::{Error, Kind, Result};
use crate::key::Minted;
use crate::wire::{NewKey, Scope};

/// As many may wait at once: anybody may begin one.
const MOST: i64 = 1000;

/// What somebody who asks gets to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Polled {
    /// Nobody has decided.
    Pending,
    /// Nobody has decided, and the question came too soon.
    TooSoon,
    /// No.
    Denied,
    /// There is no such login, or not any more.
    Gone,
    /// Yes: the minted key counts from here on.
    Granted,
}

impl Database {
    /// A login begins to wait.
    pub(crate) async fn add_device(&self, hash: &str, user_code: &str, seconds: u64) -> Result<()> {
        let mut tx = self.transaction().await?;
        sqlx::query("DELETE FROM devices WHERE expires_at < $1").bind(now()).execute(&mut *tx).await?;
        let waiting: i64 =
            sqlx::query("SELECT COUNT(*) AS number FROM devices").fetch_one(&mut *tx).await?.try_get("number")?;
        if waiting >= MOST {
            let message = "too many logins wait to be approved; try again in a few minutes";
            return Err(Error::refused(Kind::Unavailable, "too_many_logins", message));
        }
        let sql = "INSERT INTO devices (hash, user_code, expires_at) VALUES ($1, $2, $3)";
        let expires = now() + seconds as i64 * 1000;
        sqlx::query(sql).bind(hash).bind(user_code).bind(expires).execute(&mut *tx).await?;
        Ok(tx.commit().await?)
    }

    /// Somebody with a key decides; gives whether there was something to decide.
    pub(crate) async fn decide_device(&self, user_code: &str, owner: Option<&str>) -> Result<bool> {
        let sql = "UPDATE devices SET owner = $1, denied = $2 \
                   WHERE user_code = $3 AND owner IS NULL AND denied = 0 AND expires_at > $4";
        let query = sqlx::query(sql).bind(owner).bind(i64::from(owner.is_none())).bind(user_code).bind(now());
        Ok(query.execute(&self.write).await?.rows_affected() > 0)
    }

    /// Answers a program that waits; an approved login is used up by the key it becomes.
    pub(crate) async fn poll_device(&self, hash: &str, interval: u64, minted: &Minted) -> Result<Polled> {
        let mut tx = self.transaction().await?;
        // Written first: of two that ask at once the second one waits here, and finds what the first one left.
        let sql = "UPDATE devices SET denied = denied WHERE hash = $1 AND expires_at > $2 \
                   RETURNING owner, denied, polled_at";
        let Some(row) = sqlx::query(sql).bind(hash).bind(now()).fetch_optional(&mut *tx).await? else {
            return Ok(Polled::Gone);
        };
        let owner: Option<String> = row.try_get("owner")?;
        let denied = row.try_get::<i64, _>("denied")? != 0;
        let soon = now() - row.try_get::<i64, _>("polled_at")? < interval as i64 * 1000 - 500;
        let polled = match owner {
            Some(owner) => {
                let new = NewKey { name: "login".into(), owner: None, scope: Scope::Run, days: None };
                Self::insert_key(&mut tx, minted, &new, &owner).await?;
                Polled::Granted
            }
            None if denied => Polled::Denied,
            None if soon => Polled::TooSoon,
            None => Polled::Pending,
        };
        let sql = match polled {
            Polled::Granted | Polled::Denied => "DELETE FROM devices WHERE hash = $1 AND $2 > 0",
            _ => "UPDATE devices SET polled_at = $2 WHERE hash = $1",
        };
        sqlx::query(sql).bind(hash).bind(now()).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(polled)
    }
}
