//! Runs: accepted, found, cancelled, deleted.

use serde_json::{Map, Value};
use sqlx::Row;
use sqlx::any::AnyRow;

use super::idempotency::{Remembered, Repeat};
use super::{Database, Happened, Tx, id, is_contended, is_duplicate, is_referenced, json, now, rfc3339, text};
use crate::error::{Error, Kind, Result};
use crate::status::{Phase, Status};
use crate::wire::{Problem, Resources, Run};

/// How often a run is tried again to be accepted where others get in the way.
const AGAIN: u32 = 5;

/// A run's row.
#[derive(Debug, Clone)]
pub(crate) struct RunRow {
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) name: String,
    pub(crate) experiment: String,
    pub(crate) description: String,
    pub(crate) spec: Map<String, Value>,
    pub(crate) resources: Resources,
    pub(crate) priority: i32,
    pub(crate) status: Status,
    pub(crate) phase: Phase,
    pub(crate) reason: Option<String>,
    pub(crate) error: Option<Problem>,
    pub(crate) cancel: bool,
    pub(crate) attempt: u32,
    pub(crate) losses: u32,
    pub(crate) lease_owner: Option<String>,
    pub(crate) lease_until: i64,
    pub(crate) log_offset: u64,
    pub(crate) last_event: i64,
    pub(crate) checkpoint_step: Option<u64>,
    pub(crate) created_at: i64,
    pub(crate) started_at: Option<i64>,
    pub(crate) finished_at: Option<i64>,
}

/// A run to accept.
#[derive(Debug)]
pub(crate) struct NewRunRow {
    pub(crate) owner: String,
    pub(crate) key: String,
    pub(crate) name: Option<String>,
    pub(crate) experiment: String,
    pub(crate) description: String,
    pub(crate) spec: Map<String, Value>,
    pub(crate) files: Vec<String>,
    /// Fields of the spec that name another run, and which.
    pub(crate) models: Vec<(String, String)>,
    pub(crate) resources: Resources,
    pub(crate) priority: i32,
    /// What a name is made of where none is given.
    pub(crate) model: String,
    /// Runs that may wait: of everybody, and of this key.
    pub(crate) waiting: (u32, u32),
}

/// Which runs a list shows.
#[derive(Debug, Default)]
pub(crate) struct RunFilter<'a> {
    pub(crate) experiment: Option<&'a str>,
    pub(crate) name: Option<&'a str>,
    pub(crate) status: Option<Status>,
}

macro_rules! select_runs {
    ($rest:literal) => {
        concat!(
            "SELECT runs.*, experiments.name AS experiment FROM runs \
             JOIN experiments ON experiments.id = runs.experiment_id ",
            $rest
        )
    };
}

impl Database {
    /// Accepts a run: its row, its files, its first event and the answer to remember are one commit.
    pub(crate) async fn accept(&self, new: &NewRunRow, repeat: Option<&Repeat>) -> Result<Remembered> {
        let mut again = 0;
        loop {
            match self.try_to_accept(new, repeat).await {
                // Somebody removed the experiment in this moment: it is made anew.
                Err(Error::Database(error)) if again < AGAIN && is_contended(&error) => again += 1,
                done => return done,
            }
        }
    }

    async fn try_to_accept(&self, new: &NewRunRow, repeat: Option<&Repeat>) -> Result<Remembered> {
        let mut tx = self.transaction().await?;
        if let Some(repeat) = repeat
            && let Some(answer) = Self::remembered(&mut tx, repeat).await?
        {
            return Ok(answer);
        }
        Self::check_queue(&mut tx, new).await?;
        let run = id("run");
        let name = match &new.name {
            Some(name) => name.clone(),
            None => format!("{}-{}", new.model, &run[run.len() - 6..]),
        };
        let (mut spec, mut models) = (new.spec.clone(), Vec::new());
        for (field, name) in &new.models {
            let model = Self::model_run(&mut tx, &new.owner, name).await?;
            spec.insert(field.clone(), format!("run:{model}").into());
            models.push(model);
        }
        let experiment = Self::experiment_id(&mut tx, &new.owner, &new.experiment).await?;
        let sql = "INSERT INTO runs (id, owner, key_id, experiment_id, name, description, spec, resources, priority, \
                   status, phase, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'CREATED', 'waiting', $10)";
        let inserted = sqlx::query(sql)
            .bind(&run)
            .bind(&new.owner)
            .bind(&new.key)
            .bind(experiment)
            .bind(&name)
            .bind(&new.description)
            .bind(text(&spec)?)
            .bind(text(&new.resources)?)
            .bind(i64::from(new.priority))
            .bind(now())
            .execute(&mut *tx)
            .await;
        match inserted {
            Err(error) if is_duplicate(&error) => {
                return Err(Error::Refused {
                    kind: Kind::Conflict,
                    code: "run_exists",
                    param: Some("name".into()),
                    message: format!(
                        "experiment `{}` has a run `{name}` already; take another name, or none",
                        new.experiment
                    ),
                });
            }
            done => done.map(drop)?,
        }
        for file in &new.files {
            // Only what is there, whole and the owner's, is inserted.
            let sql = "INSERT INTO run_files (run_id, file_id) \
                       SELECT $1, id FROM files WHERE id = $2 AND owner = $3 AND ready = 1";
            let done = sqlx::query(sql).bind(&run).bind(file).bind(&new.owner).execute(&mut *tx).await;
            match done {
                Ok(done) if done.rows_affected() > 0 => {}
                // Removed in this moment.
                Err(error) if !is_referenced(&error) => return Err(error.into()),
                _ => return Err(Error::not_found("file_not_found", "whole file", file)),
            }
        }
        for model in &models {
            Self::add_model(&mut tx, &run, model).await?;
        }
        Self::append(&mut tx, &run, &[Happened::state(Status::Created)]).await?;
        let row = sqlx::query(select_runs!("WHERE runs.id = $1")).bind(&run).fetch_one(&mut *tx).await?;
        let answer = Remembered { status: 201, body: text(&RunRow::of(&row)?.wire())? };
        if let Some(repeat) = repeat {
            Self::remember(&mut tx, repeat, &answer).await?;
        }
        tx.commit().await?;
        Ok(answer)
    }

    /// Refuses a run where too many wait already.
    async fn check_queue(tx: &mut Tx, new: &NewRunRow) -> Result<()> {
        let sql = "SELECT COUNT(*) AS waiting, COALESCE(SUM(CASE WHEN key_id = $1 THEN 1 ELSE 0 END), 0) AS of_key \
                   FROM runs WHERE status = 'CREATED'";
        let row = sqlx::query(sql).bind(&new.key).fetch_one(&mut **tx).await?;
        let (all, of_key) = new.waiting;
        for (waiting, most, whose) in [
            (row.try_get::<i64, _>("waiting")?, all, "this server"),
            (row.try_get::<i64, _>("of_key")?, of_key, "one key"),
        ] {
            if waiting >= i64::from(most) {
                let message =
                    format!("{waiting} runs wait already, and {whose} may have {most} waiting; try again later");
                return Err(Error::refused(Kind::TooMany, "queue_full", message));
            }
        }
        Ok(())
    }

    /// The owner's run of this id or name.
    pub(crate) async fn run(&self, owner: &str, name: &str) -> Result<RunRow> {
        let sql = select_runs!("WHERE runs.owner = $1 AND (runs.id = $2 OR runs.name = $2) LIMIT 2");
        let rows = sqlx::query(sql).bind(owner).bind(name).fetch_all(&self.read).await?;
        match rows.as_slice() {
            [] => Err(Error::not_found("run_not_found", "run", name)),
            [row] => RunRow::of(row),
            _ => Err(Error::refused(
                Kind::Conflict,
                "run_ambiguous",
                format!("several experiments have a run `{name}`; name it by its id"),
            )),
        }
    }

    /// A run by its id, whoever's it is.
    pub(crate) async fn any_run(&self, id: &str) -> Result<Option<RunRow>> {
        let row = sqlx::query(select_runs!("WHERE runs.id = $1")).bind(id).fetch_optional(&self.read).await?;
        row.as_ref().map(RunRow::of).transpose()
    }

    /// Runs, newest first.
    pub(crate) async fn runs(
        &self,
        owner: &str,
        filter: &RunFilter<'_>,
        after: &str,
        limit: i64,
    ) -> Result<Vec<RunRow>> {
        let sql = select_runs!(
            "WHERE runs.owner = $1 AND ($2 = '' OR experiments.name = $2) AND ($3 = '' OR runs.name = $3) \
             AND ($4 = '' OR runs.status = $4) AND ($5 = '' OR runs.id < $5) ORDER BY runs.id DESC LIMIT $6"
        );
        let query = sqlx::query(sql)
            .bind(owner)
            .bind(filter.experiment.unwrap_or_default())
            .bind(filter.name.unwrap_or_default())
            .bind(filter.status.map_or("", Status::name))
            .bind(after)
            .bind(limit);
        query.fetch_all(&self.read).await?.iter().map(RunRow::of).collect()
    }

    /// Every run that has not ended, in the order in which they are to start.
    pub(crate) async fn live_runs(&self) -> Result<Vec<RunRow>> {
        let sql = select_runs!("WHERE runs.status IN ('CREATED', 'STARTED') ORDER BY runs.priority DESC, runs.id");
        sqlx::query(sql).fetch_all(&self.read).await?.iter().map(RunRow::of).collect()
    }

    /// How many runs are in each status.
    pub(crate) async fn count_runs(&self) -> Result<Vec<(String, i64)>> {
        let rows = sqlx::query("SELECT status, COUNT(*) AS number FROM runs GROUP BY status").fetch_all(&self.read);
        rows.await?.iter().map(|row| Ok((row.try_get("status")?, row.try_get("number")?))).collect()
    }

    /// Asks for the end of a run; whoever holds it sees to it.
    pub(crate) async fn ask_to_cancel(&self, id: &str) -> Result<()> {
        let sql = "UPDATE runs SET cancel = 1 WHERE id = $1 AND status IN ('CREATED', 'STARTED')";
        sqlx::query(sql).bind(id).execute(&self.write).await?;
        Ok(())
    }

    /// Whether somebody asked for the end of a run.
    pub(crate) async fn is_to_cancel(&self, id: &str) -> Result<bool> {
        let row = sqlx::query("SELECT cancel FROM runs WHERE id = $1").bind(id).fetch_optional(&self.read).await?;
        Ok(row.map(|row| row.try_get::<i64, _>("cancel")).transpose()?.is_some_and(|cancel| cancel != 0))
    }

    /// Why a run waits.
    pub(crate) async fn set_reason(&self, id: &str, reason: &str) -> Result<()> {
        let sql = "UPDATE runs SET reason = $1 WHERE id = $2 AND phase = 'waiting'";
        sqlx::query(sql).bind(reason).bind(id).execute(&self.write).await?;
        Ok(())
    }

    /// Removes a run that has ended, with everything that is known of it.
    pub(crate) async fn delete_run(&self, run: &RunRow) -> Result<()> {
        let sql = "DELETE FROM runs WHERE id = $1 AND status IN ('FINISHED', 'FAILED', 'CANCELLED')";
        let mut tx = self.transaction().await?;
        Self::release_model(&mut tx, &run.id).await?;
        match sqlx::query(sql).bind(&run.id).execute(&mut *tx).await {
            Ok(done) if done.rows_affected() == 0 => {
                let message = format!("run `{}` has not ended; cancel it first", run.name);
                return Err(Error::refused(Kind::Conflict, "run_not_ended", message));
            }
            Err(error) if is_referenced(&error) => {
                let message = format!("another run begins with the model of `{}`; wait for it, or cancel it", run.name);
                return Err(Error::refused(Kind::Conflict, "run_in_use", message));
            }
            done => done.map(|_| ())?,
        }
        Ok(tx.commit().await?)
    }
}

impl RunRow {
    fn of(row: &AnyRow) -> Result<Self> {
        let damaged = |column: &str| Error::Internal(format!("column {column} of a run is damaged"));
        let status: String = row.try_get("status")?;
        let phase: String = row.try_get("phase")?;
        let error: Option<String> = row.try_get("error")?;
        Ok(RunRow {
            id: row.try_get("id")?,
            key: row.try_get("key_id")?,
            name: row.try_get("name")?,
            experiment: row.try_get("experiment")?,
            description: row.try_get("description")?,
            spec: json(row, "spec")?,
            resources: json(row, "resources")?,
            priority: row.try_get::<i64, _>("priority")? as i32,
            status: Status::from_name(&status).ok_or_else(|| damaged("status"))?,
            phase: Phase::from_name(&phase).ok_or_else(|| damaged("phase"))?,
            reason: row.try_get("reason")?,
            error: error.map(|_| json(row, "error")).transpose()?,
            cancel: row.try_get::<i64, _>("cancel")? != 0,
            attempt: row.try_get::<i64, _>("attempt")? as u32,
            losses: row.try_get::<i64, _>("losses")? as u32,
            lease_owner: row.try_get("lease_owner")?,
            lease_until: row.try_get("lease_until")?,
            log_offset: row.try_get::<i64, _>("log_offset")? as u64,
            last_event: row.try_get("last_event")?,
            checkpoint_step: row.try_get::<Option<i64>, _>("checkpoint_step")?.map(|step| step as u64),
            created_at: row.try_get("created_at")?,
            started_at: row.try_get("started_at")?,
            finished_at: row.try_get("finished_at")?,
        })
    }

    /// As the API shows it.
    pub(crate) fn wire(&self) -> Run {
        Run {
            id: self.id.clone(),
            name: self.name.clone(),
            experiment: self.experiment.clone(),
            description: self.description.clone(),
            status: self.status,
            phase: if self.cancel && !self.status.is_final() { Phase::Cancelling } else { self.phase },
            reason: self.reason.clone().filter(|_| matches!(self.phase, Phase::Waiting | Phase::Ended)),
            error: self.error.clone(),
            spec: self.spec.clone(),
            resources: self.resources,
            priority: self.priority,
            attempts: self.attempt,
            checkpoint_step: self.checkpoint_step,
            artifact_id: self.artifact_id(),
            created_at: rfc3339(self.created_at),
            started_at: self.started_at.map(rfc3339),
            finished_at: self.finished_at.map(rfc3339),
        }
    }

    /// A run that somebody ended keeps what it had learnt until it is deleted.
    pub(crate) fn keeps_checkpoint(&self) -> bool {
        self.status == Status::Cancelled && self.checkpoint_step.is_some()
    }

    /// Known from the beginning, because the original's client reads it then.
    pub(crate) fn artifact_id(&self) -> String {
        self.id.replacen("run", "artifact", 1)
    }
}
