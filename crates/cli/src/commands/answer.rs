//! `finetuner answer`: answers what a server asks about data and models. Started by `finetuner serve`; see
//! [`service::question`] for what both say to each other.

use std::io::{BufRead, ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;

use anyhow::Result;
use finetuner::Error;
use finetuner::train::{Sought, Trial, survey, thread_pool};
use serde_json::Value;
use service::question::{MODEL, Question, Reply};
use service::wire::NewSearch;

use super::worker::{limit_memory, problem};
use crate::unpack::unpack_data;

/// Rows shown of a file.
const ROWS: usize = 8;

/// Answer questions of a server. Started by `finetuner serve`, not by hand
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct Arguments {
    /// Bytes of memory that it may take for data
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    memory: u64,
}

/// Answers until standard input ends; then it ends at once, whatever it is at: nobody is there to hear of it.
pub(super) fn run(arguments: &Arguments, threads: Option<usize>) -> Result<ExitCode> {
    limit_memory(arguments.memory)?;
    let (asked, questions) = mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if asked.send(line).is_err() {
                break;
            }
        }
        std::process::exit(0);
    });
    thread_pool(threads)?.install(|| {
        let mut trial = None;
        for line in questions {
            let question = serde_json::from_str(&line)?;
            let reply = match answer(&question, &mut trial) {
                Ok(answer) => Reply::Answer(answer),
                // The server says what can be done about it; here nothing can be relied on any more.
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::OutOfMemory => return Err(source.into()),
                Err(error) => Reply::Refused(problem(&error)),
            };
            let reply = as_known(serde_json::to_string(&reply)?, &question);
            let mut out = std::io::stdout().lock();
            writeln!(out, "{reply}")?;
            out.flush()?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn answer(question: &Question, trial: &mut Option<Trial>) -> finetuner::Result<Value> {
    let answer = match question {
        Question::Inspect { spec } => serde_json::to_value(survey(&unpack_data(spec)?, ROWS)?),
        Question::Search { spec, search } => {
            let trial = match trial {
                Some(trial) => trial,
                None => trial.insert(Trial::open(&unpack_data(spec)?, Path::new(MODEL))?),
            };
            serde_json::to_value(find(trial, search)?)
        }
    };
    Ok(answer.unwrap_or_default())
}

/// The reply, in which files have the names that their owner knows them by: those of folders here say nothing to anybody.
fn as_known(reply: String, question: &Question) -> String {
    let (Question::Inspect { spec } | Question::Search { spec, .. }) = question;
    let data = [Some(&spec.train_data), spec.eval_data.as_ref(), spec.query_data.as_ref(), spec.index_data.as_ref()];
    let folders = data.into_iter().flatten().filter_map(|path| Some(format!("{}/", path.parent()?.to_str()?)));
    folders.filter(|folder| folder.len() > 1).fold(reply, |reply, folder| reply.replace(&folder, ""))
}

fn find(trial: &Trial, search: &NewSearch) -> finetuner::Result<finetuner::train::Found> {
    let sought = match (&search.query, search.like) {
        (Some(query), _) => Sought::Text(query),
        (None, like) => Sought::Like(like.unwrap_or(0)),
    };
    trial.search(sought, search.k, search.texts.as_deref())
}
