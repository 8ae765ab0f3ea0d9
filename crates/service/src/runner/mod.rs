//! How a run is run. Nothing above this knows whether it is a process, a pod or something else.

pub(crate) mod process;

use std::time::Duration;

use async_trait::async_trait;

use crate::database::FileRow;
use crate::error::Result;
use crate::wire::Artifact;
use crate::worker::{Job, Line, Outcome};

/// What is known of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Observation {
    /// A worker is at it.
    Running {
        /// How long it has not shown that it lives.
        silent: Duration,
    },
    /// It has ended and said how.
    Ended(Outcome),
    /// It has ended and not said how: it was killed, or crashed.
    Lost,
    /// It never began.
    Absent,
}

/// Runs attempts. Every method may be repeated, and may be called by another server than the one that started the
/// attempt.
#[async_trait]
pub(crate) trait Runner: Send + Sync + 'static {
    /// Starts an attempt with these files and models; one of the same run that came before is ended.
    async fn start(&self, job: &Job, files: &[FileRow], models: &[Artifact]) -> Result<()>;

    /// What is known of an attempt.
    async fn observe(&self, run: &str, attempt: u32) -> Result<Observation>;

    /// What an attempt said from byte `offset` on, in whole lines, and where the next one begins.
    async fn read(&self, run: &str, attempt: u32, offset: u64) -> Result<(Vec<Line>, u64)>;

    /// Tells an attempt to save a checkpoint and stop, or ends it.
    async fn stop(&self, run: &str, attempt: u32, at_once: bool) -> Result<()>;

    /// Bytes that a run takes on the disk.
    async fn bytes(&self, run: &str) -> Result<u64>;

    /// Stores the files of a finished attempt, each checked, and says which they are; nothing is published yet.
    async fn collect(&self, run: &str, attempt: u32) -> Result<Artifact>;

    /// Leaves nothing of a run that has ended but its checkpoint, if that is to stay.
    async fn clean(&self, run: &str, keep_checkpoint: bool) -> Result<()>;

    /// Runs that something is left of.
    async fn leftovers(&self) -> Result<Vec<String>>;
}
