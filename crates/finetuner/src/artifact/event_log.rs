//! `events.jsonl`: everything a run said, one JSON object a line, kept while the run goes on.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::output::Output;
use crate::error::{Error, Result};
use crate::event::{Event, Sink};

/// The log's file name.
pub const EVENTS: &str = "events.jsonl";

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoggedEvent {
    /// Counts from 0 and goes on when a run resumes.
    pub sequence: u64,
    /// When it was said: UTC, as in `2026-01-31T08:05:09.123Z`.
    pub time: String,
    /// What was said.
    #[serde(flatten)]
    pub event: Event,
}

/// Appends events to the log of a run. Each line is written as a whole as soon as it is said.
#[derive(Debug)]
pub struct EventLog {
    file: File,
    sequence: u64,
    path: PathBuf,
    failure: Option<std::io::Error>,
}

impl EventLog {
    /// Opens the log of a claimed folder, after the last whole line: what a crash cut off is dropped.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(output: &Output) -> Result<Self> {
        let path = output.folder().join(EVENTS);
        let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = file.map_err(Error::io("open", &path))?;
        let (end, sequence) = whole_lines(&file).map_err(Error::io("read", &path))?;
        file.set_len(end).and_then(|()| file.seek(SeekFrom::Start(end))).map_err(Error::io("write", &path))?;
        Ok(EventLog { file, sequence, path, failure: None })
    }

    /// Why an event was lost, if one was: telling must not stop training, so a sink does not fail on its own.
    ///
    /// # Errors
    /// [`Error::Io`] with the first failure.
    pub fn check(&mut self) -> Result<()> {
        self.failure.take().map_or(Ok(()), |failure| Err(Error::io("write", &self.path)(failure)))
    }
}

impl Sink for EventLog {
    fn send(&mut self, event: &Event) {
        let line = LoggedEvent { sequence: self.sequence, time: utc(SystemTime::now()), event: event.clone() };
        let written = serde_json::to_vec(&line).map_err(std::io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            self.file.write_all(&line)
        });
        match written {
            Ok(()) => self.sequence += 1,
            Err(failure) => self.failure = self.failure.take().or(Some(failure)),
        }
    }
}

/// Where the last whole line ends, and how many there are.
fn whole_lines(file: &File) -> std::io::Result<(u64, u64)> {
    let mut reader = BufReader::new(file);
    let (mut end, mut lines) = (0, 0);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
        end += line.len() as u64;
        lines += 1;
        line.clear();
    }
    Ok((end, lines))
}

/// A time in UTC to the millisecond (RFC 3339). The calendar is Howard Hinnant's `civil_from_days`.
fn utc(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let shifted = days + 719_468; // days since 0000-03-01
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn lines(output: &Output) -> Vec<LoggedEvent> {
        let text = std::fs::read_to_string(output.folder().join(EVENTS)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn events_are_numbered_across_a_crash_and_a_resume() {
        let folder = tempfile::tempdir().unwrap();
        let output = Output::claim(folder.path(), false).unwrap();
        let mut log = EventLog::open(&output).unwrap();
        (0..2).for_each(|step| log.send(&Event::Checkpoint { step }));
        log.file.write_all(b"{\"sequence\":2,\"ti").unwrap();
        drop(log);
        let mut log = EventLog::open(&output).unwrap();
        log.send(&Event::State { state: "finished".into() });
        log.check().unwrap();
        let lines = lines(&output);
        assert_eq!(lines.iter().map(|line| line.sequence).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(lines[2].event, Event::State { state: "finished".into() });
    }

    #[test]
    fn times_are_in_utc() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.005Z"),
            (951_782_400, "2000-02-29T00:00:00.005Z"),
            (1_735_689_599, "2024-12-31T23:59:59.005Z"),
            (4_107_542_400, "2100-03-01T00:00:00.005Z"),
        ] {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 5)), expected);
        }
    }
}
