//! Experiments.

use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Database, Tx, id, is_duplicate, now, removes_nothing, rfc3339};
use crate::error::{Error, Kind, Result};
use crate::wire::{Experiment, NewExperiment};

impl Database {
    /// Makes an experiment.
    pub(crate) async fn add_experiment(&self, owner: &str, new: &NewExperiment) -> Result<Experiment> {
        let created = now();
        let sql = "INSERT INTO experiments (id, owner, name, description, created_at) VALUES ($1, $2, $3, $4, $5)";
        let done = sqlx::query(sql)
            .bind(id("experiment"))
            .bind(owner)
            .bind(&new.name)
            .bind(&new.description)
            .bind(created)
            .execute(&self.write)
            .await;
        match done {
            Err(error) if is_duplicate(&error) => Err(Error::refused(
                Kind::Conflict,
                "experiment_exists",
                format!("there is an experiment `{}` already; take another name, or that one", new.name),
            )),
            done => done.map(drop).map_err(Error::from),
        }?;
        Ok(Experiment {
            name: new.name.clone(),
            description: new.description.clone(),
            status: "ACTIVE".into(),
            created_at: rfc3339(created),
        })
    }

    /// The id of an experiment, which is made if need be.
    pub(super) async fn experiment_id(tx: &mut Tx, owner: &str, name: &str) -> Result<String> {
        let sql = "INSERT INTO experiments (id, owner, name, description, created_at) VALUES ($1, $2, $3, '', $4) \
                   ON CONFLICT (owner, name) DO NOTHING";
        sqlx::query(sql).bind(id("experiment")).bind(owner).bind(name).bind(now()).execute(&mut **tx).await?;
        let sql = "SELECT id FROM experiments WHERE owner = $1 AND name = $2";
        Ok(sqlx::query(sql).bind(owner).bind(name).fetch_one(&mut **tx).await?.try_get("id")?)
    }

    /// One experiment.
    pub(crate) async fn experiment(&self, owner: &str, name: &str) -> Result<Experiment> {
        let sql = "SELECT name, description, created_at FROM experiments WHERE owner = $1 AND name = $2";
        let row = sqlx::query(sql).bind(owner).bind(name).fetch_optional(&self.read).await?;
        row.as_ref().map_or_else(|| Err(Error::not_found("experiment_not_found", "experiment", name)), experiment)
    }

    /// Experiments by name.
    pub(crate) async fn experiments(&self, owner: &str, after: &str, limit: i64) -> Result<Vec<Experiment>> {
        let sql = "SELECT name, description, created_at FROM experiments WHERE owner = $1 AND name > $2 \
                   ORDER BY name LIMIT $3";
        let rows = sqlx::query(sql).bind(owner).bind(after).bind(limit).fetch_all(&self.read).await?;
        rows.iter().map(experiment).collect()
    }

    /// Removes an experiment without runs.
    pub(crate) async fn delete_experiment(&self, owner: &str, name: &str) -> Result<()> {
        self.experiment(owner, name).await?;
        let sql = "DELETE FROM experiments WHERE owner = $1 AND name = $2 \
                   AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.experiment_id = experiments.id)";
        let done = sqlx::query(sql).bind(owner).bind(name).execute(&self.write).await;
        if removes_nothing(done)? {
            let message = format!("experiment `{name}` has runs; delete those first");
            return Err(Error::refused(Kind::Conflict, "experiment_in_use", message));
        }
        Ok(())
    }
}

fn experiment(row: &AnyRow) -> Result<Experiment> {
    Ok(Experiment {
        name: row.try_get("name")?,
        description: row.try_get("description")?,
        status: "ACTIVE".into(),
        created_at: rfc3339(row.try_get("created_at")?),
    })
}
