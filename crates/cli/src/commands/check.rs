//! `finetuner check`: look over data before a run.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use finetuner::data::lint::Severity;
use finetuner::spec::RunSpec;
use finetuner::train::{self, Check};
use serde_json::json;

use crate::model;
use crate::terminal::{self, Terminal};

/// Look for what could mislead in the data of a run: duplicates, contradictions, training items in the evaluation …
///
/// Every run looks too, at its start; this command costs seconds and shows examples. The flags are fields of the
/// spec; exit code 1 if a run would refuse the data.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The run's spec: a `.toml` or `.json` file
    spec: Option<PathBuf>,
    /// The examples to learn from
    #[arg(long, value_name = "PATH")]
    train_data: Option<String>,
    /// Held-out examples of the same kind
    #[arg(long, value_name = "PATH")]
    eval_data: Option<String>,
    /// Queries for the retrieval metrics, or a BEIR folder as `DIR:split`
    #[arg(long, value_name = "PATH")]
    query_data: Option<String>,
    /// What the queries search
    #[arg(long, value_name = "PATH")]
    index_data: Option<String>,
    /// Share of `--train-data` held out
    #[arg(long, value_name = "X")]
    val_split: Option<String>,
    /// The kind of the rows; taken from the header where not given
    #[arg(long, value_name = "NAME")]
    kind: Option<String>,
    /// The model whose tokenizer counts the tokens. Default: `mini`
    #[arg(short, long, value_name = "MODEL")]
    model: Option<String>,
    /// Tokens a text is cut to. Default: the model's own limit
    #[arg(long, value_name = "N")]
    max_length: Option<String>,
    /// Pictures that cannot be used are a warning: a run with this flag leaves them out with their rows
    #[arg(long)]
    skip_bad: bool,
    /// Pictures may be URLs, which are downloaded: from public addresses only
    #[arg(long)]
    allow_urls: bool,
    /// Exit code 1 for warnings too
    #[arg(long)]
    strict: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  finetuner check --train-data train.csv --query-data test.csv --index-data train.csv --model all-MiniLM-L6-v2
  finetuner check run.toml --strict --json";

/// Looks the data over and prints what it finds.
pub(super) fn run(arguments: &Arguments, terminal: &mut Terminal) -> Result<ExitCode> {
    let flags = [
        ("train_data", &arguments.train_data),
        ("eval_data", &arguments.eval_data),
        ("query_data", &arguments.query_data),
        ("index_data", &arguments.index_data),
        ("val_split", &arguments.val_split),
        ("kind", &arguments.kind),
        ("model", &arguments.model),
        ("max_length", &arguments.max_length),
    ];
    let given = flags.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)));
    let switches =
        [("strict", arguments.strict), ("skip_bad", arguments.skip_bad), ("allow_urls", arguments.allow_urls)];
    let switched = switches.into_iter().filter(|(_, on)| *on).map(|(name, _)| (name.to_owned(), "true".to_owned()));
    let spec = RunSpec::resolve(arguments.spec.as_deref(), std::env::vars_os(), given.chain(switched))?;
    spec.check()?;
    model::find(&spec.model, terminal)?; // a download is shown here
    let found = train::check(&spec)?;
    for sentence in &found.data {
        terminal.info(sentence);
    }
    let [errors, warnings, notes] =
        [Severity::Error, Severity::Warning, Severity::Note].map(|severity| found.count(severity));
    terminal::print(&if arguments.json {
        json!({"data": found.data, "findings": found.findings, "errors": errors, "warnings": warnings, "notes": notes})
            .to_string()
            + "\n"
    } else {
        text(&found) + &format!("Errors: {errors}, warnings: {warnings}, notes: {notes}.\n")
    })?;
    let refused = errors > 0 || spec.strict && warnings > 0;
    Ok(if refused { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn text(found: &Check) -> String {
    let mut text = String::new();
    for finding in &found.findings {
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        let _ = writeln!(text, "{severity}: {}\n", finding.text());
    }
    text
}
