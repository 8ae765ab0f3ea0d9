//! What a supervisor writes about the run it holds. Every write names the epoch of its claim: after another server has
//! taken the run over it changes nothing and says so.

use finetuner::event::Level;
use sqlx::Row;

use super::{Database, Happened, RunRow, Tx, now, text};
use crate::error::{Error, Result};
use crate::status::{Change, Phase, Status};
use crate::wire::{Artifact, Problem};

/// How a run ends.
#[derive(Debug, Clone)]
pub(crate) enum Ending {
    /// With this artifact.
    Finished(Artifact),
    /// For this reason.
    Failed(Problem),
    /// Because somebody asked for it.
    Cancelled,
}

impl Ending {
    fn change(&self) -> Change {
        match self {
            Ending::Finished(_) => Change::Finish,
            Ending::Failed(_) => Change::Fail,
            Ending::Cancelled => Change::Cancel,
        }
    }
}

impl Database {
    /// Claims a run for `lease` milliseconds, unless somebody else holds it; gives the epoch of the claim.
    pub(crate) async fn claim(&self, run: &RunRow, instance: &str, lease: i64) -> Result<Option<i64>> {
        let mut tx = self.transaction().await?;
        let sql = "UPDATE runs SET lease_owner = $1, lease_epoch = lease_epoch + 1, lease_until = $2, reason = NULL \
                   WHERE id = $3 AND status = $4 AND (lease_owner IS NULL OR lease_until < $5) RETURNING lease_epoch";
        let row = sqlx::query(sql)
            .bind(instance)
            .bind(now() + lease)
            .bind(&run.id)
            .bind(run.status.name())
            .bind(now())
            .fetch_optional(&mut *tx)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let epoch = row.try_get("lease_epoch")?;
        if let Some(status) = run.status.after(Change::Start) {
            let sql = "UPDATE runs SET status = $1, phase = $2, started_at = $3 WHERE id = $4";
            sqlx::query(sql)
                .bind(status.name())
                .bind(Phase::Starting.name())
                .bind(now())
                .bind(&run.id)
                .execute(&mut *tx)
                .await?;
            Self::append(&mut tx, &run.id, &[Happened::state(status)]).await?;
        }
        tx.commit().await?;
        Ok(Some(epoch))
    }

    /// Every claim is free again: for a server that starts, and is the only one.
    pub(crate) async fn release_all(&self) -> Result<()> {
        sqlx::query("UPDATE runs SET lease_owner = NULL WHERE lease_owner IS NOT NULL").execute(&self.write).await?;
        Ok(())
    }

    /// Holds on to a run.
    pub(crate) async fn renew(&self, run: &str, epoch: i64, lease: i64) -> Result<()> {
        let sql = "UPDATE runs SET lease_until = $1 WHERE id = $2 AND lease_epoch = $3 AND lease_owner IS NOT NULL";
        held(run, sqlx::query(sql).bind(now() + lease).bind(run).bind(epoch).execute(&self.write).await?)
    }

    /// Gives a run back so that it goes on later, here or elsewhere.
    pub(crate) async fn release(&self, run: &str, epoch: i64, reason: &str) -> Result<()> {
        let sql = "UPDATE runs SET lease_owner = NULL, phase = $1, reason = $2 WHERE id = $3 AND lease_epoch = $4";
        let query = sqlx::query(sql).bind(Phase::Waiting.name()).bind(reason).bind(run).bind(epoch);
        held(run, query.execute(&self.write).await?)
    }

    /// Counts a new attempt; from here on its events are read from their beginning.
    pub(crate) async fn begin_attempt(&self, run: &str, epoch: i64, lost: bool) -> Result<u32> {
        let mut tx = self.transaction().await?;
        let sql = "UPDATE runs SET attempt = attempt + 1, log_offset = 0, phase = $1, losses = losses + $2 \
                   WHERE id = $3 AND lease_epoch = $4 AND status = 'STARTED' RETURNING attempt";
        let query = sqlx::query(sql).bind(Phase::Starting.name()).bind(i64::from(lost)).bind(run).bind(epoch);
        let row = query.fetch_optional(&mut *tx).await?.ok_or_else(|| Error::LeaseLost(run.into()))?;
        let attempt = row.try_get::<i64, _>("attempt")? as u32;
        if lost {
            let message = format!("a worker was lost; attempt {attempt} goes on from the last checkpoint");
            Self::append(&mut tx, run, &[Happened::log(Level::Warning, message)]).await?;
        }
        tx.commit().await?;
        Ok(attempt)
    }

    /// Appends what a worker said up to byte `offset`; gives the number of the last event.
    pub(crate) async fn record(
        &self,
        run: &str,
        epoch: i64,
        happened: &[Happened],
        offset: u64,
        phase: Option<Phase>,
    ) -> Result<i64> {
        let mut tx = self.transaction().await?;
        let sql = "UPDATE runs SET log_offset = $1, phase = CASE WHEN $2 = '' THEN phase ELSE $2 END \
                   WHERE id = $3 AND lease_epoch = $4 AND status = 'STARTED'";
        let query = sqlx::query(sql).bind(offset as i64).bind(phase.map_or("", Phase::name)).bind(run).bind(epoch);
        held(run, query.execute(&mut *tx).await?)?;
        let last = Self::append(&mut tx, run, happened).await?;
        tx.commit().await?;
        Ok(last)
    }

    /// What the run is doing.
    pub(crate) async fn set_phase(&self, run: &str, epoch: i64, phase: Phase) -> Result<()> {
        let sql = "UPDATE runs SET phase = $1 WHERE id = $2 AND lease_epoch = $3";
        held(run, sqlx::query(sql).bind(phase.name()).bind(run).bind(epoch).execute(&self.write).await?)
    }

    /// Ends a run, once.
    pub(crate) async fn end(&self, run: &RunRow, epoch: i64, ending: &Ending) -> Result<()> {
        let mut tx = self.transaction().await?;
        Self::end_in(&mut tx, run, epoch, ending).await?;
        Ok(tx.commit().await?)
    }

    /// Ends a run that nobody has claimed.
    pub(crate) async fn end_waiting(&self, run: &RunRow, ending: &Ending) -> Result<()> {
        let mut tx = self.transaction().await?;
        let sql = "UPDATE runs SET lease_epoch = lease_epoch + 1 \
                   WHERE id = $1 AND status = 'CREATED' AND lease_owner IS NULL RETURNING lease_epoch";
        let row = sqlx::query(sql).bind(&run.id).fetch_optional(&mut *tx).await?;
        let epoch = row.ok_or_else(|| Error::LeaseLost(run.id.clone()))?.try_get("lease_epoch")?;
        Self::end_in(&mut tx, run, epoch, ending).await?;
        Ok(tx.commit().await?)
    }

    async fn end_in(tx: &mut Tx, run: &RunRow, epoch: i64, ending: &Ending) -> Result<()> {
        let sql = "SELECT status FROM runs WHERE id = $1 AND lease_epoch = $2";
        let row = sqlx::query(sql).bind(&run.id).bind(epoch).fetch_optional(&mut **tx).await?;
        let before: String = row.ok_or_else(|| Error::LeaseLost(run.id.clone()))?.try_get("status")?;
        let status = Status::from_name(&before).and_then(|status| status.after(ending.change()));
        let status = status.ok_or_else(|| Error::LeaseLost(run.id.clone()))?;
        let (error, artifact) = match ending {
            Ending::Finished(artifact) => (None, Some(artifact)),
            Ending::Failed(problem) => (Some(problem), None),
            Ending::Cancelled => (None, None),
        };
        let sql = "UPDATE runs SET status = $1, phase = $2, error = $3, finished_at = $4, lease_owner = NULL, \
                   reason = NULL WHERE id = $5 AND lease_epoch = $6 AND status = $7";
        let done = sqlx::query(sql)
            .bind(status.name())
            .bind(Phase::Ended.name())
            .bind(error.map(text).transpose()?)
            .bind(now())
            .bind(&run.id)
            .bind(epoch)
            .bind(before)
            .execute(&mut **tx)
            .await?;
        held(&run.id, done)?;
        if let Some(artifact) = artifact {
            Self::add_artifact(tx, artifact).await?;
        }
        let why = error.map(|problem| Happened::log(Level::Warning, problem.message.clone()));
        let happened: Vec<Happened> = why.into_iter().chain([Happened::state(status)]).collect();
        Self::append(tx, &run.id, &happened).await?;
        Ok(())
    }

    async fn add_artifact(tx: &mut Tx, artifact: &Artifact) -> Result<()> {
        let sql = "INSERT INTO artifacts (run_id, manifest, created_at) VALUES ($1, $2, $3)";
        sqlx::query(sql).bind(&artifact.run).bind(text(artifact)?).bind(now()).execute(&mut **tx).await?;
        Ok(())
    }
}

/// Whether a write met the row it meant.
fn held(run: &str, done: sqlx::any::AnyQueryResult) -> Result<()> {
    if done.rows_affected() == 0 { Err(Error::LeaseLost(run.into())) } else { Ok(()) }
}
