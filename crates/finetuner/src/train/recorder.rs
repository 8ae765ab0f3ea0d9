//! What the run says goes outside and into `events.jsonl`.

use std::path::PathBuf;

use super::loggers::Loggers;
use crate::artifact::Output;
use crate::artifact::event_log::{EVENTS, EventLog};
use crate::error::{Error, Result};
use crate::event::{Event, Level, Sink};

/// Passes events on, to loggers too, and writes them down.
pub(crate) struct Recorder<'a> {
    sink: &'a mut dyn Sink,
    log: EventLog,
    loggers: Loggers,
    path: PathBuf,
}

impl<'a> Recorder<'a> {
    /// Starts the record of a run, or goes on with that of a resumed one.
    pub(crate) fn open(output: &Output, sink: &'a mut dyn Sink) -> Result<Self> {
        let log = EventLog::open(output)?;
        Ok(Recorder { sink, log, loggers: Loggers::default(), path: output.folder().join(EVENTS) })
    }

    /// Loggers hear everything from here on.
    pub(crate) fn attach(&mut self, loggers: Loggers) {
        self.loggers = loggers;
    }

    pub(crate) fn send(&mut self, event: &Event) -> Result<()> {
        self.sink.send(event);
        self.log.send(event);
        for problem in self.loggers.hear(event) {
            self.warn(problem)?;
        }
        self.log.check()
    }

    pub(crate) fn info(&mut self, message: impl Into<String>) -> Result<()> {
        self.send(&Event::Log { level: Level::Info, message: message.into() })
    }

    pub(crate) fn warn(&mut self, message: impl Into<String>) -> Result<()> {
        self.send(&Event::Log { level: Level::Warning, message: message.into() })
    }

    pub(crate) fn metric(&mut self, name: impl Into<String>, step: usize, value: f64) -> Result<()> {
        self.send(&Event::Metric { name: name.into(), step, value })
    }

    pub(crate) fn state(&mut self, state: &str) -> Result<()> {
        self.send(&Event::State { state: state.into() })
    }

    /// For watching only: the metrics of every step say as much to those who read the log later.
    pub(crate) fn progress(&mut self, phase: &str, done: usize, total: usize, note: Option<String>) {
        self.sink.send(&Event::Progress { phase: phase.into(), done, total, note });
    }

    /// Everything written so far.
    pub(crate) fn contents(&self) -> Result<Vec<u8>> {
        std::fs::read(&self.path).map_err(Error::io("read", &self.path))
    }
}
