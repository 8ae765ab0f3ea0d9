//! What takes room, and rows that say why it is gone.

use sqlx::Row;

use super::{Database, json};
use crate::error::Result;
use crate::wire::Artifact;

/// Something that can be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) what: What,
    /// When it was last of use.
    pub(crate) since: i64,
    pub(crate) bytes: u64,
}

/// What it is, by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// The artifact of a run.
    Artifact(String),
    /// The checkpoint of a run that somebody ended.
    Checkpoint(String),
    /// An uploaded file.
    File(String),
}

impl Database {
    /// Whatever is kept and no run that has not ended needs, longest out of use first.
    pub(crate) async fn kept(&self) -> Result<Vec<Kept>> {
        let mut kept = Vec::new();
        let sql = "SELECT artifacts.run_id, artifacts.manifest, artifacts.created_at FROM artifacts WHERE NOT EXISTS \
                   (SELECT 1 FROM run_models JOIN runs ON runs.id = run_models.run_id \
                    WHERE run_models.model_id = artifacts.run_id AND runs.status IN ('CREATED', 'STARTED'))";
        for row in sqlx::query(sql).fetch_all(&self.read).await? {
            let artifact: Artifact = json(&row, "manifest")?;
            let bytes = artifact.files.values().map(|file| file.bytes).sum();
            kept.push(Kept { what: What::Artifact(artifact.run), since: row.try_get("created_at")?, bytes });
        }
        let sql = "SELECT id, finished_at FROM runs WHERE status = 'CANCELLED' AND checkpoint_step IS NOT NULL \
                   AND finished_at IS NOT NULL AND reason IS NULL";
        for row in sqlx::query(sql).fetch_all(&self.read).await? {
            let what = What::Checkpoint(row.try_get("id")?);
            kept.push(Kept { what, since: row.try_get("finished_at")?, bytes: 0 });
        }
        let sql = "SELECT files.id, files.bytes, COALESCE(MAX(runs.finished_at), files.created_at) AS since FROM files \
                   LEFT JOIN run_files ON run_files.file_id = files.id LEFT JOIN runs ON runs.id = run_files.run_id \
                   WHERE files.ready = 1 GROUP BY files.id, files.bytes, files.created_at \
                   HAVING COALESCE(SUM(CASE WHEN runs.status IN ('CREATED', 'STARTED') THEN 1 ELSE 0 END), 0) = 0";
        for row in sqlx::query(sql).fetch_all(&self.read).await? {
            let bytes = row.try_get::<i64, _>("bytes")? as u64;
            kept.push(Kept { what: What::File(row.try_get("id")?), since: row.try_get("since")?, bytes });
        }
        kept.sort_by_key(|kept| kept.since);
        Ok(kept)
    }

    /// Writes down that something is gone, unless a run has come that needs it; gives whether it is.
    pub(crate) async fn forget(&self, what: &What, reason: &str) -> Result<bool> {
        let mut tx = self.transaction().await?;
        let (id, sql) = match what {
            What::Artifact(run) => {
                Self::release_model(&mut tx, run).await?;
                let sql = "DELETE FROM artifacts WHERE run_id = $1 \
                           AND NOT EXISTS (SELECT 1 FROM run_models WHERE model_id = $1)";
                if sqlx::query(sql).bind(run).execute(&mut *tx).await?.rows_affected() == 0 {
                    return Ok(false);
                }
                (run, "UPDATE runs SET reason = $1 WHERE id = $2")
            }
            What::Checkpoint(run) => (run, "UPDATE runs SET reason = $1 WHERE id = $2"),
            What::File(file) => {
                let sql = "UPDATE files SET ready = 0, reason = $1 WHERE id = $2 AND NOT EXISTS \
                           (SELECT 1 FROM run_files JOIN runs ON runs.id = run_files.run_id \
                            WHERE run_files.file_id = $2 AND runs.status IN ('CREATED', 'STARTED'))";
                (file, sql)
            }
        };
        let done = sqlx::query(sql).bind(reason).bind(id).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(done.rows_affected() > 0)
    }
}
