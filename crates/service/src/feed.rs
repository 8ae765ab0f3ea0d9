//! Who follows a run hears of its events as they are written: encoded once, shared by everybody who is up to date. Who is
//! behind reads from the database.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use finetuner::event::Event;
use tokio::sync::watch;

use crate::database::{Happened, rfc3339};
use crate::status::Status;
use crate::wire::RunEvent;

/// Batches kept for those who are a little late.
const KEPT: usize = 32;

/// Events in order as server-sent events.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) text: Bytes,
    /// Whether nothing follows.
    pub(crate) ended: bool,
}

impl Batch {
    /// Encodes events; `None` of none.
    pub(crate) fn of(events: &[RunEvent]) -> Option<Self> {
        let (first, last) = (events.first()?, events.last()?);
        let mut text = String::new();
        for event in events {
            let data = serde_json::to_string(event).unwrap_or_default();
            let _ = write!(text, "id: {}\nevent: {}\ndata: {data}\n\n", event.sequence, name(&event.event));
        }
        let ended = matches!(&last.event, Event::State { state }
            if Status::from_name(state).is_some_and(Status::is_final));
        Some(Batch { first: first.sequence, last: last.sequence, text: text.into(), ended })
    }
}

/// One channel for each run that somebody follows.
#[derive(Debug, Default)]
pub(crate) struct Feed(Mutex<HashMap<String, Channel>>);

#[derive(Debug)]
struct Channel {
    /// The number of the last event that is known.
    last: watch::Sender<i64>,
    batches: VecDeque<Batch>,
}

impl Feed {
    /// Hears the number of a run's last event from here on.
    pub(crate) fn subscribe(&self, run: &str, last: i64) -> watch::Receiver<i64> {
        let mut channels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Channel { last: watch::Sender::new(last), batches: VecDeque::new() };
        channels.entry(run.to_owned()).or_insert_with(new).last.subscribe()
    }

    /// A run has come to event `last`; a channel that nobody listens to any more goes.
    pub(crate) fn tell(&self, run: &str, last: i64, happened: &[Happened]) {
        let mut channels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(channel) = channels.get_mut(run) else { return };
        if channel.last.is_closed() {
            channels.remove(run);
            return;
        }
        let numbers = last - happened.len() as i64 + 1..;
        let events: Vec<RunEvent> = numbers.zip(happened).map(|(number, happened)| happened.numbered(number)).collect();
        channel.batches.extend(Batch::of(&events));
        while channel.batches.len() > KEPT {
            channel.batches.pop_front();
        }
        channel.last.send_replace(last);
    }

    /// The batch that begins with this event, if it is still here.
    pub(crate) fn batch(&self, run: &str, first: i64) -> Option<Batch> {
        let channels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        channels.get(run)?.batches.iter().find(|batch| batch.first == first).cloned()
    }
}

impl Happened {
    /// As the event of this number.
    fn numbered(&self, sequence: i64) -> RunEvent {
        RunEvent { sequence, time: rfc3339(self.time), event: self.event.clone() }
    }
}

/// As `event` says it in JSON.
fn name(event: &Event) -> &'static str {
    match event {
        Event::Log { .. } => "log",
        Event::Progress { .. } => "progress",
        Event::Metric { .. } => "metric",
        Event::Checkpoint { .. } => "checkpoint",
        Event::State { .. } => "state",
        _ => "event",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use finetuner::event::Level;

    #[test]
    fn who_is_up_to_date_gets_what_was_told_and_who_is_late_does_not() {
        let feed = Feed::default();
        let log = |message: &str| Happened::log(Level::Info, message);
        feed.tell("run", 1, &[log("nobody listens")]);
        let mut watch = feed.subscribe("run", 1);
        feed.tell("run", 3, &[log("two\nlines"), log("b")]);
        assert_eq!(*watch.borrow_and_update(), 3);
        let batch = feed.batch("run", 2).unwrap();
        let text = String::from_utf8(batch.text.to_vec()).unwrap();
        assert_eq!((batch.last, batch.ended, text.lines().count()), (3, false, 8));
        assert!(text.starts_with("id: 2\nevent: log\ndata: {\"sequence\":2,"), "{text}");
        assert!(feed.batch("run", 1).is_none() && feed.batch("run", 3).is_none());
        feed.tell("run", 4, &[Happened::state(Status::Finished)]);
        assert!(feed.batch("run", 4).unwrap().ended);
        drop(watch);
        feed.tell("run", 5, &[log("nobody listens")]);
        assert!(feed.batch("run", 4).is_none(), "the channel is gone");
    }
}
