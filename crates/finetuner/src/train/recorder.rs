//! `events.jsonl`: everything the run says, numbered and timed, beside what the outside hears.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};
use crate::event::{Event, Level, Sink};

/// Passes events on and writes them down.
pub(crate) struct Recorder<'a> {
    sink: &'a mut dyn Sink,
    path: PathBuf,
    file: File,
    sequence: u64,
}

impl<'a> Recorder<'a> {
    /// Starts the record of a run, or goes on with that of a resumed one.
    pub(crate) fn open(folder: &Path, sink: &'a mut dyn Sink) -> Result<Self> {
        let path = folder.join("events.jsonl");
        let sequence = match std::fs::read_to_string(&path) {
            Ok(text) => text.lines().count() as u64,
            Err(_) => 0,
        };
        let file = File::options().create(true).append(true).open(&path).map_err(Error::io("create", &path))?;
        Ok(Recorder { sink, path, file, sequence })
    }

    pub(crate) fn send(&mut self, event: &Event) -> Result<()> {
        self.sink.send(event);
        // Progress is for watching; the metrics of every step say as much to those who read later.
        if matches!(event, Event::Progress { .. }) {
            return Ok(());
        }
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
        let mut line = serde_json::to_value(event).unwrap_or_default();
        if let Some(line) = line.as_object_mut() {
            line.insert("sequence".into(), self.sequence.into());
            line.insert("time".into(), ((time * 1000.0).round() / 1000.0).into());
        }
        self.sequence += 1;
        writeln!(self.file, "{line}").map_err(Error::io("write", &self.path))
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

    /// Shows progress; written nowhere.
    pub(crate) fn progress(&mut self, phase: &str, done: usize, total: usize, note: Option<String>) {
        self.sink.send(&Event::Progress { phase: phase.into(), done, total, note });
    }

    /// Everything written so far.
    pub(crate) fn contents(&mut self) -> Result<Vec<u8>> {
        self.file.sync_all().map_err(Error::io("write", &self.path))?;
        std::fs::read(&self.path).map_err(Error::io("read", &self.path))
    }
}
