//! One run from its claim to its final state.
//!
//! Everything here may stop at any line, with the server, and be begun again by the next one: what is known of a worker is
//! on disk, what was read of it is in the database with the place up to which it was read, and a final state is written
//! once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use finetuner::event::Event;
use tracing::{info, warn};

use crate::database::{Ending, Happened, RunRow};
use crate::error::{Error, Result};
use crate::request::localise;
use crate::runner::Observation;
use crate::service::Service;
use crate::status::{Phase, Status};
use crate::telemetry::left;
use crate::wire::Problem;
use crate::worker::{Job, Outcome};

/// How often a worker is looked at.
const LOOK: Duration = Duration::from_millis(150);

/// How often the disk that it takes is measured.
const MEASURE: Duration = Duration::from_secs(1);

/// How often it is told to stop, should the first time have come too early to be heard.
const REMIND: Duration = Duration::from_secs(2);

/// Pauses before a run is looked at again after the database or the storage failed.
const RETRY: Duration = Duration::from_secs(2);

/// How the watch over one attempt ended.
enum Watched {
    Ended(Outcome),
    Lost,
    Absent,
    /// Ended by the server because it took more than it may.
    Exceeded(Problem),
}

/// A claim on a run.
pub(crate) struct Supervisor {
    service: Arc<Service>,
    run: RunRow,
    epoch: i64,
    offset: u64,
}

impl Supervisor {
    /// Holds this run.
    pub(crate) fn new(service: Arc<Service>, run: RunRow, epoch: i64) -> Self {
        Supervisor { service, offset: run.log_offset, run, epoch }
    }

    /// Brings the run to its end, or as far as this server gets.
    pub(crate) async fn supervise(mut self) {
        loop {
            match self.bring_to_end().await {
                Ok(()) => break,
                // Nothing that passes: the run cannot be started or published as it is.
                Err(error @ Error::Refused { .. }) => {
                    let _ = self.end(Ending::Failed(error.problem())).await;
                    self.reload().await;
                    if self.run.status.is_final() {
                        break;
                    }
                }
                Err(Error::LeaseLost(run)) => {
                    warn!(%run, "another server has taken the run over");
                    break;
                }
                Err(error) => {
                    // A full disk or a database that restarts: the run is not at fault.
                    warn!(run = %self.run.id, %error, "cannot go on with the run for now");
                    tokio::select! {
                        () = tokio::time::sleep(RETRY) => {}
                        () = self.service.draining.cancelled() => break,
                    }
                    match self.service.database.renew(&self.run.id, self.epoch, self.service.lease()).await {
                        Err(Error::LeaseLost(_)) => break,
                        _ => self.reload().await,
                    }
                }
            }
        }
        left(self.run.status.name(), self.run.attempt, self.run.status == Status::Failed);
        self.service.wake.notify_one();
    }

    /// Where the database says the run is: what was written before a failure counts.
    async fn reload(&mut self) {
        if let Ok(Some(run)) = self.service.database.any_run(&self.run.id).await {
            self.offset = run.log_offset;
            self.run = run;
        }
    }

    async fn bring_to_end(&mut self) -> Result<()> {
        if self.run.status.is_final() {
            return self.service.runner.clean(&self.run.id, self.run.keeps_checkpoint()).await;
        }
        // An earlier server may have got as far as publishing.
        if let Some(artifact) = self.service.storage.published(&self.run.id).await? {
            self.service.storage.remove_run(&self.run.id, Some(artifact.attempt)).await?;
            return self.end(Ending::Finished(artifact)).await;
        }
        loop {
            let watched = if self.run.attempt == 0 { Watched::Absent } else { self.watch().await? };
            let cancel = self.service.database.is_to_cancel(&self.run.id).await?;
            let lost = match watched {
                Watched::Ended(Outcome::Finished) => return self.publish().await,
                Watched::Ended(Outcome::Failed { error }) if !cancel => return self.end(Ending::Failed(error)).await,
                Watched::Exceeded(problem) => return self.end(Ending::Failed(problem)).await,
                _ if cancel => return self.end(Ending::Cancelled).await,
                _ if self.service.draining.is_cancelled() => {
                    let reason = "the server was stopped; it goes on from its checkpoint when the server is back";
                    return self.service.database.release(&self.run.id, self.epoch, reason).await;
                }
                Watched::Ended(_) | Watched::Absent => false,
                Watched::Lost => true,
            };
            if lost && self.run.losses + 1 >= self.service.settings.max_losses {
                return self.end(Ending::Failed(self.too_many_losses())).await;
            }
            self.start(lost).await?;
        }
    }

    /// Starts the next attempt.
    async fn start(&mut self, lost: bool) -> Result<()> {
        let service = &self.service;
        let attempt = service.database.begin_attempt(&self.run.id, self.epoch, lost).await?;
        self.reload().await;
        self.run.attempt = attempt;
        self.offset = 0;
        self.service.feed.tell(&self.run.id, self.run.last_event, &[]);
        let service = &self.service;
        let files = service.database.run_files(&self.run.id).await?;
        let threads = service.threads(self.run.resources.cpus);
        let spec = localise(&self.run.spec, &self.run.name, &files, threads)?;
        let job = Job {
            run: self.run.id.clone(),
            attempt,
            spec,
            memory: self.run.resources.memory,
            gpus: self.run.resources.gpus,
        };
        info!(run = %job.run, attempt, "starting a worker");
        let models = service.database.run_models(&self.run.id).await?;
        service.runner.start(&job, &files, &models).await
    }

    /// Reads what the attempt says until it has ended.
    async fn watch(&mut self) -> Result<Watched> {
        let patience = Duration::from_secs(self.service.settings.patience_seconds);
        let lease = self.service.lease();
        let mut renewed: Option<Instant> = None;
        let mut stopping: Option<(Instant, Instant)> = None;
        let mut exceeded: Option<Problem> = None;
        let mut measured: Option<Instant> = None;
        let attempt = self.run.attempt;
        loop {
            let service = self.service.clone();
            if renewed.is_none_or(|when| when.elapsed().as_millis() as i64 > lease / 3) {
                service.database.renew(&self.run.id, self.epoch, lease).await?;
                renewed = Some(Instant::now());
            }
            // Looked at first and read afterwards: what has ended says nothing more.
            let observed = service.runner.observe(&self.run.id, attempt).await?;
            self.read().await?;
            match observed {
                Observation::Ended(Outcome::Finished) => return Ok(Watched::Ended(Outcome::Finished)),
                Observation::Running { silent } if silent > patience => {
                    warn!(run = %self.run.id, attempt, "the worker is silent; ending it");
                    service.runner.stop(&self.run.id, attempt, true).await?;
                }
                Observation::Running { .. } => {}
                // However it ended: it was the server that ended it.
                _ if let Some(problem) = exceeded => return Ok(Watched::Exceeded(problem)),
                Observation::Ended(outcome) => return Ok(Watched::Ended(outcome)),
                Observation::Lost => return Ok(Watched::Lost),
                Observation::Absent => return Ok(Watched::Absent),
            }
            if exceeded.is_none() {
                exceeded = self.out_of_time();
            }
            if exceeded.is_none() && measured.is_none_or(|when| when.elapsed() >= MEASURE) {
                measured = Some(Instant::now());
                exceeded = self.out_of_disk().await?;
                if exceeded.is_some() {
                    // At once: a checkpoint would take more of it.
                    service.runner.stop(&self.run.id, attempt, true).await?;
                }
            }
            let asked = service.draining.is_cancelled() || service.database.is_to_cancel(&self.run.id).await?;
            if asked || exceeded.is_some() {
                let (since, told) = stopping.unwrap_or_else(|| (Instant::now(), Instant::now() - REMIND));
                if since.elapsed() > patience {
                    service.runner.stop(&self.run.id, attempt, true).await?;
                } else if told.elapsed() >= REMIND {
                    service.runner.stop(&self.run.id, attempt, false).await?;
                    stopping = Some((since, Instant::now()));
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Takes over everything that the attempt has said since the last time.
    async fn read(&mut self) -> Result<()> {
        loop {
            let (lines, offset) = self.service.runner.read(&self.run.id, self.run.attempt, self.offset).await?;
            if offset == self.offset {
                return Ok(());
            }
            let phase = lines.iter().rev().find_map(|line| phase(&line.event));
            let happened: Vec<Happened> = lines
                .into_iter()
                // The states of a run are the server's to tell: a worker's are those of an attempt.
                .filter(|line| !matches!(line.event, Event::State { .. }))
                .map(|line| Happened { time: line.time, event: line.event })
                .collect();
            let last = self.service.database.record(&self.run.id, self.epoch, &happened, offset, phase).await?;
            if happened.iter().any(|happened| matches!(happened.event, Event::Checkpoint { .. })) {
                self.run.losses = 0;
            }
            self.offset = offset;
            self.service.feed.tell(&self.run.id, last, &happened);
        }
    }

    /// Stores and publishes the artifact, and only then says that the run has finished.
    async fn publish(&mut self) -> Result<()> {
        let service = self.service.clone();
        service.database.set_phase(&self.run.id, self.epoch, Phase::Publishing).await?;
        let collected = service.runner.collect(&self.run.id, self.run.attempt).await?;
        service.database.renew(&self.run.id, self.epoch, service.lease()).await?;
        let published = service.storage.publish(&collected).await?;
        service.storage.remove_run(&self.run.id, Some(published.attempt)).await?;
        self.end(Ending::Finished(published)).await
    }

    async fn end(&mut self, ending: Ending) -> Result<()> {
        self.service.database.end(&self.run, self.epoch, &ending).await?;
        self.reload().await;
        self.service.feed.tell(&self.run.id, self.run.last_event, &[]);
        info!(run = %self.run.id, status = self.run.status.name(), "the run has ended");
        self.service.runner.clean(&self.run.id, self.run.keeps_checkpoint()).await
    }

    /// The run's end, if it has taken longer than it asked for.
    fn out_of_time(&self) -> Option<Problem> {
        let seconds = self.run.resources.seconds;
        let limit = i64::try_from(seconds).unwrap_or(i64::MAX / 1000).saturating_mul(1000);
        let over = self.run.started_at.is_some_and(|started| crate::database::now() - started > limit);
        (seconds > 0 && over).then(|| {
            let message =
                format!("took longer than the {seconds} seconds it asked for; ask for more, or set `max_time`");
            run_problem("out_of_time", message)
        })
    }

    /// The run's end, if its folder has grown beyond what it asked for.
    async fn out_of_disk(&self) -> Result<Option<Problem>> {
        let disk = self.run.resources.disk;
        if disk == 0 {
            return Ok(None);
        }
        let bytes = self.service.runner.bytes(&self.run.id).await?;
        Ok((bytes > disk).then(|| {
            let message = format!(
                "took {bytes} bytes of disk, and asked for {disk}; ask for more: data, checkpoint and model lie there"
            );
            run_problem("out_of_disk", message)
        }))
    }

    fn too_many_losses(&self) -> Problem {
        let losses = self.service.settings.max_losses;
        let message = format!(
            "{losses} workers in a row were lost without a new checkpoint; the usual reason is memory: take a smaller \
             `micro_batch_tokens` or `batch_size`"
        );
        run_problem("worker_lost", message)
    }
}

fn run_problem(code: &str, message: String) -> Problem {
    Problem { code: code.into(), message, param: None, kind: "run".into() }
}

/// What a worker that says this is doing.
fn phase(event: &Event) -> Option<Phase> {
    match event {
        Event::Progress { phase, .. } if phase.starts_with("evaluate") => Some(Phase::Evaluating),
        Event::Progress { phase, .. } if phase == "train" => Some(Phase::Training),
        _ => None,
    }
}
