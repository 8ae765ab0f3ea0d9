//! The states of a run and what may follow what.

use serde::{Deserialize, Serialize};

/// How far a run is, in the original Finetuner's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// Accepted; no worker has begun.
    Created,
    /// A worker has begun, and may have been replaced since.
    Started,
    /// The artifact is published.
    Finished,
    /// It will not go on; `error` says why.
    Failed,
    /// Somebody ended it.
    Cancelled,
}

/// What can happen to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A worker begins.
    Start,
    /// The artifact is published.
    Finish,
    /// It cannot go on.
    Fail,
    /// Somebody wants it to end.
    Cancel,
}

/// What a run is doing within its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// For its turn; `reason` says for what.
    Waiting,
    /// A worker is being started.
    Starting,
    /// Something is measured.
    Evaluating,
    /// The model learns.
    Training,
    /// The artifact is checked and stored.
    Publishing,
    /// The worker saves a checkpoint and stops.
    Cancelling,
    /// Nothing any more.
    Ended,
}

impl Status {
    /// Every status.
    pub const ALL: [Status; 5] =
        [Status::Created, Status::Started, Status::Finished, Status::Failed, Status::Cancelled];

    /// The status after a change; `None` where the change is not possible. The one place that decides it.
    pub fn after(self, change: Change) -> Option<Status> {
        match (self, change) {
            (Status::Created, Change::Start) => Some(Status::Started),
            (Status::Started, Change::Finish) => Some(Status::Finished),
            (Status::Created | Status::Started, Change::Fail) => Some(Status::Failed),
            (Status::Created | Status::Started, Change::Cancel) => Some(Status::Cancelled),
            _ => None,
        }
    }

    /// Whether nothing follows.
    pub fn is_final(self) -> bool {
        matches!(self, Status::Finished | Status::Failed | Status::Cancelled)
    }

    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Status::Created => "CREATED",
            Status::Started => "STARTED",
            Status::Finished => "FINISHED",
            Status::Failed => "FAILED",
            Status::Cancelled => "CANCELLED",
        }
    }

    /// The status of this name.
    pub fn from_name(name: &str) -> Option<Status> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }
}

impl Phase {
    /// Every phase.
    pub const ALL: [Phase; 7] = [
        Phase::Waiting,
        Phase::Starting,
        Phase::Evaluating,
        Phase::Training,
        Phase::Publishing,
        Phase::Cancelling,
        Phase::Ended,
    ];

    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Waiting => "waiting",
            Phase::Starting => "starting",
            Phase::Evaluating => "evaluating",
            Phase::Training => "training",
            Phase::Publishing => "publishing",
            Phase::Cancelling => "cancelling",
            Phase::Ended => "ended",
        }
    }

    /// The phase of this name.
    pub fn from_name(name: &str) -> Option<Phase> {
        Self::ALL.into_iter().find(|phase| phase.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGES: [Change; 4] = [Change::Start, Change::Finish, Change::Fail, Change::Cancel];

    #[test]
    fn a_final_status_is_never_left_and_no_other_is_a_dead_end() {
        for status in Status::ALL {
            let next: Vec<Status> = CHANGES.into_iter().filter_map(|change| status.after(change)).collect();
            assert_eq!(next.is_empty(), status.is_final(), "{status:?}");
            assert!(!next.contains(&Status::Created) && !next.contains(&status), "{status:?}: {next:?}");
        }
    }

    #[test]
    fn only_what_was_started_can_finish() {
        for status in Status::ALL {
            assert_eq!(status.after(Change::Finish).is_some(), status == Status::Started);
        }
    }

    #[test]
    fn names_are_those_of_json() {
        for status in Status::ALL {
            assert_eq!(serde_json::to_value(status).unwrap(), status.name());
            assert_eq!(Status::from_name(status.name()), Some(status));
        }
        for phase in Phase::ALL {
            assert_eq!(serde_json::to_value(phase).unwrap(), phase.name());
            assert_eq!(Phase::from_name(phase.name()), Some(phase));
        }
    }
}
