//! Runs whose model is what another run has learnt.

use sqlx::Row;

use super::{Database, Tx, json};
use crate::error::{Error, Kind, Result};
use crate::wire::Artifact;

impl Database {
    /// The id of the owner's run of this id, name or artifact id, which has an artifact.
    pub(super) async fn model_run(tx: &mut Tx, owner: &str, name: &str) -> Result<String> {
        let sql = "SELECT runs.id FROM runs JOIN artifacts ON artifacts.run_id = runs.id \
                   WHERE runs.owner = $1 AND (runs.id = $2 OR runs.name = $2) LIMIT 2";
        let rows = sqlx::query(sql).bind(owner).bind(name).fetch_all(&mut **tx).await?;
        match rows.as_slice() {
            [] => Err(Error::not_found("model_not_found", "finished run", name)),
            [row] => Ok(row.try_get("id")?),
            _ => {
                let message = format!("several experiments have a run `{name}`; name it by its id");
                Err(Error::refused(Kind::Conflict, "run_ambiguous", message))
            }
        }
    }

    /// Keeps the artifact of one run for another, until that one has ended.
    pub(super) async fn add_model(tx: &mut Tx, run: &str, model: &str) -> Result<()> {
        let sql = "INSERT INTO run_models (run_id, model_id) VALUES ($1, $2) ON CONFLICT (run_id, model_id) DO NOTHING";
        sqlx::query(sql).bind(run).bind(model).execute(&mut **tx).await?;
        Ok(())
    }

    /// The artifacts that a run begins with.
    pub(crate) async fn run_models(&self, run: &str) -> Result<Vec<Artifact>> {
        let sql = "SELECT manifest FROM artifacts JOIN run_models ON run_models.model_id = artifacts.run_id \
                   WHERE run_models.run_id = $1 ORDER BY artifacts.run_id";
        sqlx::query(sql).bind(run).fetch_all(&self.read).await?.iter().map(|row| json(row, "manifest")).collect()
    }

    /// Forgets which runs began with this one, where they have ended and so need it no more.
    pub(super) async fn release_model(tx: &mut Tx, model: &str) -> Result<()> {
        let sql = "DELETE FROM run_models WHERE model_id = $1 \
                   AND run_id IN (SELECT id FROM runs WHERE status IN ('FINISHED', 'FAILED', 'CANCELLED'))";
        sqlx::query(sql).bind(model).execute(&mut **tx).await?;
        Ok(())
    }
}
