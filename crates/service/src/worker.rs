//! What a server and its worker processes say to each other, by files: whoever of them is killed, what was said stays.
//!
//! ```text
//! runs/<run>/job.json                    what to do, with the attempt that may do it      server -> worker
//! runs/<run>/attempts/<n>/lock           held as long as the worker lives; its process id inside
//! runs/<run>/attempts/<n>/events.jsonl   a line for every event, appended whole           worker -> server
//! runs/<run>/attempts/<n>/heartbeat      written now and then                             worker -> server
//! runs/<run>/attempts/<n>/gpus.json      the GPUs that are its own
//! runs/<run>/attempts/<n>/outcome.json   how it ended, written whole, last                worker -> server
//! runs/<run>/data/                       the files that were uploaded
//! runs/<run>/models/<run>/               what other runs have learnt, where this one begins with it
//! runs/<run>/output/<name>/              the output folder of `finetuner::train`
//! ```
//! A worker whose lock is free and which left no outcome was killed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use finetuner::event::Event;
use finetuner::spec::RunSpec;
use serde::{Deserialize, Serialize};

use crate::wire::Problem;

/// How often a worker shows that it lives.
pub const HEARTBEAT: Duration = Duration::from_secs(2);

/// What a worker is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// The run's id.
    pub run: String,
    /// The attempt that may work on it; a worker of another one stops at once.
    pub attempt: u32,
    /// The run; paths are relative to the run's folder.
    pub spec: RunSpec,
    /// Bytes of memory that it may take for data; 0: no limit.
    pub memory: u64,
    /// GPUs that are its own.
    #[serde(default)]
    pub gpus: u32,
}

/// A line of a worker's events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Milliseconds since 1970.
    pub time: i64,
    /// What was said.
    #[serde(flatten)]
    pub event: Event,
}

/// How a worker ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The artifact is in the output folder.
    Finished,
    /// It was told to stop; what it did is in the checkpoint.
    Stopped {
        /// Optimiser steps in the checkpoint; 0 where there is none.
        step: usize,
    },
    /// It cannot be done.
    Failed {
        /// Why.
        error: Problem,
    },
}

/// The folder of a run, as both sides know it.
#[derive(Debug, Clone)]
pub struct RunFolder(PathBuf);

impl RunFolder {
    /// The folder at this path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        RunFolder(path.into())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What to do.
    pub fn job(&self) -> PathBuf {
        self.0.join("job.json")
    }

    /// The uploaded files.
    pub fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    /// What other runs have learnt.
    pub fn models(&self) -> PathBuf {
        self.0.join("models")
    }

    /// The folder of an attempt.
    pub fn attempt(&self, attempt: u32) -> PathBuf {
        self.0.join("attempts").join(attempt.to_string())
    }

    /// Held by the worker of an attempt.
    pub fn lock(&self, attempt: u32) -> PathBuf {
        self.attempt(attempt).join("lock")
    }

    /// What an attempt said.
    pub fn events(&self, attempt: u32) -> PathBuf {
        self.attempt(attempt).join("events.jsonl")
    }

    /// When an attempt last showed that it lives.
    pub fn heartbeat(&self, attempt: u32) -> PathBuf {
        self.attempt(attempt).join("heartbeat")
    }

    /// The GPUs of an attempt, as CUDA numbers or names them.
    pub fn gpus(&self, attempt: u32) -> PathBuf {
        self.attempt(attempt).join("gpus.json")
    }

    /// How an attempt ended.
    pub fn outcome(&self, attempt: u32) -> PathBuf {
        self.attempt(attempt).join("outcome.json")
    }

    /// The folder that training writes.
    pub fn output(&self, spec: &RunSpec) -> PathBuf {
        self.0.join(spec.output.as_deref().unwrap_or(Path::new("output")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use finetuner::event::Level;

    #[test]
    fn lines_and_outcomes_are_read_as_they_were_written() {
        let line = Line { time: 7, event: Event::Log { level: Level::Info, message: "a\nb".into() } };
        let text = serde_json::to_string(&line).unwrap();
        assert!(!text.contains('\n'), "{text}");
        assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line);
        let text = serde_json::to_string(&Outcome::Stopped { step: 3 }).unwrap();
        assert_eq!(text, r#"{"outcome":"stopped","step":3}"#);
        assert_eq!(serde_json::from_str::<Outcome>(&text).unwrap(), Outcome::Stopped { step: 3 });
    }
}
