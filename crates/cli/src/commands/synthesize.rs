//! `finetuner synthesize`: rows with a teacher's margin for queries without any match.

use std::path::PathBuf;

use anyhow::Result;
use finetuner::data::read_corpus;
use finetuner::mine::{SynthesisOptions, relations_table, synthesize};

use super::at_least_one;
use crate::model::{self, DeviceArguments};
use crate::rows::Rows;
use crate::terminal::Terminal;
use crate::texts::Texts;

/// Make training data of queries and texts that nobody has judged
///
/// One or more encoders relate texts to each query, a cross-encoder scores them, and every row has a query, a positive,
/// a negative and the margin between their scores: what MarginMSELoss learns from.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The encoder that relates texts to queries: a folder, a repository id or an alias; several, separated by commas
    #[arg(short, long, value_name = "MODEL", value_delimiter = ',', default_value = "mini")]
    model: Vec<String>,
    /// The cross-encoder that scores them
    #[arg(long, value_name = "MODEL")]
    cross_encoder: String,
    /// Queries: one a line, a column `text`, a key `text`
    #[arg(long, value_name = "PATH")]
    query_data: PathBuf,
    /// Texts that the queries are related to: one a line, a column `text`, a key `text`, or a BEIR folder
    #[arg(long, value_name = "PATH")]
    corpus_data: PathBuf,
    /// `.csv` or `.jsonl`; `-` prints JSON lines
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// Texts related to each query: one similar, the others not
    #[arg(short, long, value_name = "N", default_value_t = 10, value_parser = at_least_one)]
    num_relations: usize,
    /// Similar texts that the others are drawn from
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = at_least_one)]
    candidates: usize,
    /// What is drawn from
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArguments,
}

const AFTER_HELP: &str = "\
Examples:
  finetuner synthesize --model sbert-base-en --cross-encoder cross-encoder/ms-marco-MiniLM-L-6-v2 \\
      --query-data questions.txt --corpus-data corpus.csv --output train.csv
  finetuner fit --model sbert-base-en --train-data train.csv --loss MarginMSELoss";

/// Relates, scores and writes.
pub(super) fn run(arguments: &Arguments, terminal: &mut Terminal) -> Result<()> {
    let rows = Rows::of(&arguments.output)?;
    let queries = Texts::read(&arguments.query_data, false, terminal)?.texts;
    let corpus = match read_corpus(&arguments.corpus_data)? {
        Some(documents) => documents,
        None => Texts::read(&arguments.corpus_data, false, terminal)?.texts,
    };
    let distinct = |texts: &[String]| {
        let mut seen = std::collections::HashSet::new();
        texts.iter().filter(|text| seen.insert(text.as_str())).cloned().collect::<Vec<String>>()
    };
    let (queries, corpus) = (distinct(&queries), distinct(&corpus));
    let (queries, corpus): (Vec<&str>, Vec<&str>) =
        (queries.iter().map(String::as_str).collect(), corpus.iter().map(String::as_str).collect());
    let cross_encoder = model::open_cross_encoder(&arguments.cross_encoder, None, terminal)?;
    let encoders = arguments.model.iter().map(|name| model::open_plain(name, terminal)).collect::<Result<Vec<_>>>()?;
    let options = SynthesisOptions {
        num_relations: arguments.num_relations,
        candidates: arguments.candidates.max(arguments.num_relations),
        seed: arguments.seed,
    };
    let device = arguments.device.open(terminal)?;
    let relations =
        synthesize(&queries, &corpus, &encoders, &cross_encoder, &*device, &options, &mut |phase, done, total| {
            terminal.progress(phase, done, total, None);
            Ok(())
        })?;
    let wanted = queries.len() * (options.num_relations - 1);
    if relations.len() < wanted {
        terminal.warn(&format!("{} rows instead of {wanted}: the corpus has too few texts", relations.len()));
    }
    rows.write(&relations_table(&queries, &corpus, &relations), terminal)
}
