//! Who waits for a run's events hears that there are some.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

/// One channel for each run that somebody watches.
#[derive(Debug, Default)]
pub(crate) struct Feed(Mutex<HashMap<String, watch::Sender<u64>>>);

impl Feed {
    /// Hears of every event of a run from here on.
    pub(crate) fn subscribe(&self, run: &str) -> watch::Receiver<u64> {
        let mut channels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        channels.entry(run.to_owned()).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// There are new events; a channel that nobody listens to any more goes.
    pub(crate) fn tell(&self, run: &str) {
        let mut channels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(run) {
            channel.send_modify(|count| *count += 1);
            if channel.is_closed() {
                channels.remove(run);
            }
        }
    }
}
