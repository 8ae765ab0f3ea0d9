//! Everything a run tells the outside: one enum, the same for terminal, file and server.

use serde::{Deserialize, Serialize};

/// Something a run says. Written to `events.jsonl` as one JSON object per line with `sequence` and `time`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A sentence for people.
    Log {
        /// `info` or `warning`.
        level: Level,
        /// The sentence.
        message: String,
    },
    /// Work has moved on within a phase; `done == total` ends the phase.
    Progress {
        /// `evaluate before`, `train`, `evaluate after` …
        phase: String,
        /// Units done.
        done: usize,
        /// Units in all.
        total: usize,
        /// One number worth showing beside the bar, such as the loss.
        note: Option<String>,
    },
    /// A number measured at a step.
    Metric {
        /// `train_loss`, `val_loss`, `learning_rate`, or an evaluation metric.
        name: String,
        /// Optimiser steps done.
        step: usize,
        /// The value.
        value: f64,
    },
    /// A checkpoint is safely on disk.
    Checkpoint {
        /// Optimiser steps it contains.
        step: usize,
    },
    /// The run's state has changed: `started`, `finished`, `failed`, `stopped`.
    State {
        /// The new state.
        state: String,
    },
}

/// How loud a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Good to know.
    Info,
    /// Something the user should act on.
    Warning,
}

/// Receives events; the terminal, `events.jsonl` and a service are sinks.
pub trait Sink: Send {
    /// Takes one event. A sink that fails keeps it to itself: telling must not stop training.
    fn send(&mut self, event: &Event);
}

impl<F: FnMut(&Event) + Send> Sink for F {
    fn send(&mut self, event: &Event) {
        self(event);
    }
}
