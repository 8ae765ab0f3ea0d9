//! What a server asks a child process that is made for it, and what that answers: a line of JSON each, by standard input and
//! output. Whatever reads users' data or computes with tensors is done there, under limits, and never in the server.
//!
//! The child works in the folder it is started in, reads one [`Question`] after another, writes a [`Reply`] for each, and ends
//! when its standard input does.

use finetuner::spec::RunSpec;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::wire::{NewSearch, Problem};

/// The folder with the fine-tuned model of the run that is tried, as its artifact has it.
pub const MODEL: &str = "model";

/// What a server asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "question", rename_all = "snake_case", deny_unknown_fields)]
pub enum Question {
    /// What is this data? The answer is a [`crate::wire::Inspection`].
    Inspect {
        /// Which data; paths are relative to the folder of the child.
        spec: Box<RunSpec>,
    },
    /// What do both models find? The answer is a [`crate::wire::Found`]. Models stay open for the next question.
    Search {
        /// The run.
        spec: Box<RunSpec>,
        /// What is sought.
        search: NewSearch,
    },
}

/// What the child answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// As the question says.
    Answer(Value),
    /// It cannot be answered.
    Refused(Problem),
}
