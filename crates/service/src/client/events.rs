//! A run's events as they come, over as many connections as it takes.

use std::io::{BufRead, BufReader};
use std::time::Instant;

use finetuner::event::Event;
use ureq::http::{Method, StatusCode};

use super::error::{Error, Result};
use super::{Client, PAUSE, part};
use crate::status::Status;
use crate::wire::RunEvent;

type Lines = std::io::Lines<BufReader<ureq::BodyReader<'static>>>;

/// Events in order, without gaps; ends after the run's last one.
pub struct Events {
    client: Client,
    run: String,
    after: i64,
    lines: Option<Lines>,
    ended: bool,
    /// Since when nothing has come.
    failing: Option<Instant>,
}

impl Events {
    pub(super) fn new(client: Client, run: &str, after: i64) -> Self {
        Events { client, run: run.to_owned(), after, lines: None, ended: false, failing: None }
    }

    fn connect(&mut self) -> Result<()> {
        let path = format!("/v1/runs/{}/events", part(&self.run));
        let request = self.client.request(Method::GET, &path)?;
        let request = request.header("accept", "text/event-stream").header("last-event-id", self.after.to_string());
        let request = request.body(()).map_err(Error::malformed)?;
        let answer = self.client.checked(self.client.agent.run(request))?;
        self.ended = answer.status() == StatusCode::NO_CONTENT;
        self.lines = Some(BufReader::new(answer.into_body().into_reader()).lines());
        Ok(())
    }

    /// The next event of this connection; `None` where it ends.
    fn read(&mut self) -> Result<Option<RunEvent>> {
        let Some(lines) = &mut self.lines else { return Ok(None) };
        for line in lines {
            let Ok(line) = line else { return Ok(None) };
            let Some(data) = line.strip_prefix("data:") else { continue };
            let event: RunEvent = serde_json::from_str(data.trim_start())
                .map_err(|error| Error::Protocol(format!("an event cannot be read: {error}; update")))?;
            return Ok(Some(event));
        }
        Ok(None)
    }
}

impl Iterator for Events {
    type Item = Result<RunEvent>;

    fn next(&mut self) -> Option<Result<RunEvent>> {
        while !self.ended {
            let outcome = match &self.lines {
                None => self.connect(),
                Some(_) => match self.read() {
                    Ok(Some(event)) => {
                        self.failing = None;
                        self.after = event.sequence;
                        self.ended = matches!(&event.event, Event::State { state }
                            if Status::from_name(state).is_some_and(Status::is_final));
                        return Some(Ok(event));
                    }
                    Ok(None) => {
                        self.lines = None;
                        Ok(())
                    }
                    Err(error) => Err(error),
                },
            };
            match outcome {
                Ok(()) if self.lines.is_some() => {}
                Err(error) if !error.is_passing() => {
                    self.ended = true;
                    return Some(Err(error));
                }
                outcome => {
                    let since = *self.failing.get_or_insert_with(Instant::now);
                    if let Err(error) = outcome
                        && since.elapsed() > self.client.patience
                    {
                        self.ended = true;
                        return Some(Err(error));
                    }
                    std::thread::sleep(PAUSE);
                }
            }
        }
        None
    }
}
