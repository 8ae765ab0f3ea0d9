//! Keys.

use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Database, Tx, now, rfc3339};
use crate::error::{Error, Result};
use crate::key::Minted;
use crate::wire::{Key, NewKey, Scope};

const DAY: i64 = 86_400_000;

/// A key that counts.
#[derive(Debug, Clone)]
pub(crate) struct KeyRow {
    pub(crate) id: String,
    pub(crate) owner: String,
    pub(crate) scope: Scope,
    pub(crate) hash: String,
}

impl Database {
    /// The key of this id, unless it has ended.
    pub(crate) async fn key(&self, id: &str) -> Result<Option<KeyRow>> {
        let sql = "SELECT id, owner, scope, hash FROM keys \
                   WHERE id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)";
        let row = sqlx::query(sql).bind(id).bind(now()).fetch_optional(&self.read).await?;
        row.map(|row| {
            Ok(KeyRow {
                id: row.try_get("id")?,
                owner: row.try_get("owner")?,
                scope: scope(&row)?,
                hash: row.try_get("hash")?,
            })
        })
        .transpose()
    }

    /// Whether there is any key at all.
    pub(crate) async fn has_keys(&self) -> Result<bool> {
        Ok(sqlx::query("SELECT id FROM keys LIMIT 1").fetch_optional(&self.read).await?.is_some())
    }

    /// Stores a new key.
    pub(crate) async fn add_key(&self, minted: &Minted, new: &NewKey, owner: &str) -> Result<Key> {
        let mut tx = self.transaction().await?;
        let key = Self::insert_key(&mut tx, minted, new, owner).await?;
        tx.commit().await?;
        Ok(key)
    }

    pub(super) async fn insert_key(tx: &mut Tx, minted: &Minted, new: &NewKey, owner: &str) -> Result<Key> {
        let created = now();
        // Who signs in every day would leave a row a day.
        sqlx::query("DELETE FROM keys WHERE expires_at <= $1").bind(created).execute(&mut **tx).await?;
        let expires = new.days.map(|days| created + i64::from(days) * DAY);
        let sql = "INSERT INTO keys (id, owner, name, scope, hash, created_at, expires_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7)";
        sqlx::query(sql)
            .bind(&minted.id)
            .bind(owner)
            .bind(&new.name)
            .bind(new.scope.name())
            .bind(&minted.hash)
            .bind(created)
            .bind(expires)
            .execute(&mut **tx)
            .await?;
        Ok(Key {
            id: minted.id.clone(),
            name: new.name.clone(),
            owner: owner.to_owned(),
            scope: new.scope,
            created_at: rfc3339(created),
            expires_at: expires.map(rfc3339),
        })
    }

    /// Every key that counts, oldest first. Keys are few, and an administrator sees them all.
    pub(crate) async fn keys(&self, after: &str, limit: i64) -> Result<Vec<Key>> {
        let sql = "SELECT id, owner, name, scope, created_at, expires_at FROM keys \
                   WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $1) AND id > $2 ORDER BY id LIMIT $3";
        let rows = sqlx::query(sql).bind(now()).bind(after).bind(limit).fetch_all(&self.read).await?;
        rows.iter()
            .map(|row| {
                Ok(Key {
                    id: row.try_get("id")?,
                    name: row.try_get("name")?,
                    owner: row.try_get("owner")?,
                    scope: scope(row)?,
                    created_at: rfc3339(row.try_get("created_at")?),
                    expires_at: row.try_get::<Option<i64>, _>("expires_at")?.map(rfc3339),
                })
            })
            .collect()
    }

    /// Ends a key.
    pub(crate) async fn revoke_key(&self, id: &str) -> Result<()> {
        let sql = "UPDATE keys SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL";
        let done = sqlx::query(sql).bind(now()).bind(id).execute(&self.write).await?;
        if done.rows_affected() == 0 { Err(Error::not_found("key_not_found", "key", id)) } else { Ok(()) }
    }
}

fn scope(row: &AnyRow) -> Result<Scope> {
    let name: String = row.try_get("scope")?;
    Scope::from_name(&name).ok_or_else(|| Error::Internal(format!("a key has the scope `{name}`")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Pepper;

    #[tokio::test]
    async fn a_key_counts_until_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/x?mode=rwc", folder.path().display());
        let database = Database::open(&url).await.unwrap();
        let minted = Pepper::open(&folder.path().join("pepper")).unwrap().mint().unwrap();
        let new = NewKey { name: "a".into(), owner: None, scope: Scope::Read, days: Some(1) };
        database.add_key(&minted, &new, "me").await.unwrap();
        assert_eq!(database.key(&minted.id).await.unwrap().unwrap().owner, "me");
        sqlx::query("UPDATE keys SET expires_at = $1").bind(now()).execute(&database.write).await.unwrap();
        assert!(database.key(&minted.id).await.unwrap().is_none());
        assert!(database.keys("", 10).await.unwrap().is_empty());
        assert!(database.has_keys().await.unwrap(), "its row is still there");
        let next = Pepper::open(&folder.path().join("pepper")).unwrap().mint().unwrap();
        database.add_key(&next, &NewKey { days: None, ..new }, "me").await.unwrap();
        let rows = sqlx::query("SELECT id FROM keys").fetch_all(&database.read).await.unwrap();
        assert_eq!(rows.len(), 1, "the next key's");
    }
}
