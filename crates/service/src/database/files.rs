//! Files: what was announced, and whether it has arrived.

use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Database, id, now, removes_nothing};
use crate::error::{Error, Kind, Result};
use crate::wire::NewFile;

/// A file's row; how much of it has arrived is known to the disk alone.
#[derive(Debug, Clone)]
pub(crate) struct FileRow {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: Option<String>,
    pub(crate) ready: bool,
    /// Why it is there no more.
    pub(crate) reason: Option<String>,
    pub(crate) created_at: i64,
}

impl Database {
    /// Announces a file.
    pub(crate) async fn add_file(&self, owner: &str, new: &NewFile) -> Result<FileRow> {
        let file = FileRow {
            id: id("file"),
            name: new.name.clone(),
            bytes: new.bytes,
            sha256: new.sha256.clone(),
            ready: false,
            reason: None,
            created_at: now(),
        };
        let sql =
            "INSERT INTO files (id, owner, name, bytes, sha256, ready, created_at) VALUES ($1, $2, $3, $4, $5, 0, $6)";
        sqlx::query(sql)
            .bind(&file.id)
            .bind(owner)
            .bind(&file.name)
            .bind(file.bytes as i64)
            .bind(file.sha256.as_deref())
            .bind(file.created_at)
            .execute(&self.write)
            .await?;
        Ok(file)
    }

    /// One file.
    pub(crate) async fn file(&self, owner: &str, id: &str) -> Result<FileRow> {
        let sql = "SELECT id, name, bytes, sha256, ready, reason, created_at FROM files WHERE owner = $1 AND id = $2";
        let row = sqlx::query(sql).bind(owner).bind(id).fetch_optional(&self.read).await?;
        row.as_ref().map_or_else(|| Err(Error::not_found("file_not_found", "file", id)), file)
    }

    /// Files, newest first; those with this checksum where one is given.
    pub(crate) async fn files(
        &self,
        owner: &str,
        sha256: Option<&str>,
        after: &str,
        limit: i64,
    ) -> Result<Vec<FileRow>> {
        let sql = "SELECT id, name, bytes, sha256, ready, reason, created_at FROM files \
                   WHERE owner = $1 AND ($2 = '' OR sha256 = $2) AND ($3 = '' OR id < $3) ORDER BY id DESC LIMIT $4";
        let query = sqlx::query(sql).bind(owner).bind(sha256.unwrap_or_default()).bind(after).bind(limit);
        query.fetch_all(&self.read).await?.iter().map(file).collect()
    }

    /// The file has arrived and has this checksum.
    pub(crate) async fn file_is_ready(&self, id: &str, sha256: &str) -> Result<()> {
        let sql = "UPDATE files SET ready = 1, reason = NULL, sha256 = $1 WHERE id = $2";
        sqlx::query(sql).bind(sha256).bind(id).execute(&self.write).await?;
        Ok(())
    }

    /// Removes a file that no run uses.
    pub(crate) async fn delete_file(&self, owner: &str, id: &str) -> Result<()> {
        self.file(owner, id).await?;
        let sql = "DELETE FROM files WHERE owner = $1 AND id = $2 \
                   AND NOT EXISTS (SELECT 1 FROM run_files WHERE file_id = files.id)";
        let done = sqlx::query(sql).bind(owner).bind(id).execute(&self.write).await;
        if removes_nothing(done)? {
            let message = format!("file `{id}` is used by runs; delete those first");
            return Err(Error::refused(Kind::Conflict, "file_in_use", message));
        }
        Ok(())
    }

    /// The files of a run.
    pub(crate) async fn run_files(&self, run: &str) -> Result<Vec<FileRow>> {
        let sql = "SELECT id, name, bytes, sha256, ready, reason, created_at FROM files \
                   JOIN run_files ON run_files.file_id = files.id WHERE run_files.run_id = $1 ORDER BY id";
        sqlx::query(sql).bind(run).fetch_all(&self.read).await?.iter().map(file).collect()
    }

    /// Whether a row knows this file, whoever's it is.
    pub(crate) async fn knows_file(&self, id: &str) -> Result<bool> {
        let row = sqlx::query("SELECT id FROM files WHERE id = $1").bind(id).fetch_optional(&self.read).await?;
        Ok(row.is_some())
    }

    /// Whether what is stored of this file is of no use: no row knows it, or says that it was removed.
    pub(crate) async fn file_is_gone(&self, id: &str) -> Result<bool> {
        let sql = "SELECT id FROM files WHERE id = $1 AND reason IS NULL";
        Ok(sqlx::query(sql).bind(id).fetch_optional(&self.read).await?.is_none())
    }
}

fn file(row: &AnyRow) -> Result<FileRow> {
    Ok(FileRow {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        bytes: row.try_get::<i64, _>("bytes")? as u64,
        sha256: row.try_get("sha256")?,
        ready: row.try_get::<i64, _>("ready")? != 0,
        reason: row.try_get("reason")?,
        created_at: row.try_get("created_at")?,
    })
}
