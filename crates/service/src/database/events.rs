//! The ordered stream of a run: numbers start at 1 and have no gaps.

use finetuner::event::{Event, Level};
use sqlx::Row;

use super::{Database, Tx, json, now, rfc3339, text};
use crate::error::{Error, Result};
use crate::status::Status;
use crate::wire::{Checkpoint, Metric, RunEvent};

/// Something to append.
#[derive(Debug, Clone)]
pub(crate) struct Happened {
    pub(crate) time: i64,
    pub(crate) event: Event,
}

impl Happened {
    /// The run has come into this status.
    pub(crate) fn state(status: Status) -> Self {
        Happened { time: now(), event: Event::State { state: status.name().into() } }
    }

    /// A sentence of the server's.
    pub(crate) fn log(level: Level, message: impl Into<String>) -> Self {
        Happened { time: now(), event: Event::Log { level, message: message.into() } }
    }
}

impl Database {
    /// Appends events, and keeps the numbers among them where they can be asked for.
    pub(super) async fn append(tx: &mut Tx, run: &str, happened: &[Happened]) -> Result<i64> {
        let sql = "UPDATE runs SET last_event = last_event + $1 WHERE id = $2 RETURNING last_event";
        let row = sqlx::query(sql).bind(happened.len() as i64).bind(run).fetch_one(&mut **tx).await?;
        let last: i64 = row.try_get("last_event")?;
        for (sequence, happened) in (last - happened.len() as i64 + 1..).zip(happened) {
            let sql = "INSERT INTO events (run_id, sequence, time, data) VALUES ($1, $2, $3, $4)";
            let data = text(&happened.event)?;
            sqlx::query(sql).bind(run).bind(sequence).bind(happened.time).bind(data).execute(&mut **tx).await?;
            match &happened.event {
                Event::Metric { name, step, value } => {
                    let sql = "INSERT INTO metrics (run_id, name, step, value) VALUES ($1, $2, $3, $4) \
                               ON CONFLICT (run_id, name, step) DO UPDATE SET value = excluded.value";
                    let query = sqlx::query(sql).bind(run).bind(name).bind(*step as i64).bind(*value);
                    query.execute(&mut **tx).await?;
                }
                Event::Checkpoint { step } => {
                    let sql = "INSERT INTO checkpoints (run_id, step, created_at) VALUES ($1, $2, $3) \
                               ON CONFLICT (run_id, step) DO UPDATE SET created_at = excluded.created_at";
                    let query = sqlx::query(sql).bind(run).bind(*step as i64).bind(happened.time);
                    query.execute(&mut **tx).await?;
                    // Whoever gets as far as a checkpoint is not in a circle of losses.
                    let sql = "UPDATE runs SET checkpoint_step = $1, losses = 0 WHERE id = $2";
                    sqlx::query(sql).bind(*step as i64).bind(run).execute(&mut **tx).await?;
                }
                _ => {}
            }
        }
        Ok(last)
    }

    /// Events after this one, in order.
    pub(crate) async fn events(&self, run: &str, after: i64, limit: i64) -> Result<Vec<RunEvent>> {
        let sql =
            "SELECT sequence, time, data FROM events WHERE run_id = $1 AND sequence > $2 ORDER BY sequence LIMIT $3";
        let rows = sqlx::query(sql).bind(run).bind(after).bind(limit).fetch_all(&self.read).await?;
        rows.iter()
            .map(|row| {
                Ok(RunEvent {
                    sequence: row.try_get("sequence")?,
                    time: rfc3339(row.try_get("time")?),
                    event: json(row, "data")?,
                })
            })
            .collect()
    }

    /// Metrics in the order of their names and steps, after this name and step.
    pub(crate) async fn metrics(
        &self,
        run: &str,
        name: Option<&str>,
        after: (&str, i64),
        limit: i64,
    ) -> Result<Vec<Metric>> {
        let sql = "SELECT name, step, value FROM metrics WHERE run_id = $1 AND ($2 = '' OR name = $2) \
                   AND (name > $3 OR (name = $3 AND step > $4)) ORDER BY name, step LIMIT $5";
        let query = sqlx::query(sql).bind(run).bind(name.unwrap_or_default()).bind(after.0).bind(after.1).bind(limit);
        let rows = query.fetch_all(&self.read).await?;
        rows.iter()
            .map(|row| {
                Ok(Metric {
                    name: row.try_get("name")?,
                    step: row.try_get::<i64, _>("step")? as u64,
                    value: row.try_get("value")?,
                })
            })
            .collect()
    }

    /// Checkpoints, latest first.
    pub(crate) async fn checkpoints(&self, run: &str, before: i64, limit: i64) -> Result<Vec<Checkpoint>> {
        let sql =
            "SELECT step, created_at FROM checkpoints WHERE run_id = $1 AND step < $2 ORDER BY step DESC LIMIT $3";
        let rows = sqlx::query(sql).bind(run).bind(before).bind(limit).fetch_all(&self.read).await?;
        rows.iter()
            .map(|row| {
                let step: i64 = row.try_get("step")?;
                Ok(Checkpoint { step: step as u64, created_at: rfc3339(row.try_get("created_at")?) })
            })
            .collect::<std::result::Result<_, Error>>()
    }
}
