//! `finetuner mine`: hard negatives for pairs.

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;
use finetuner::mine::{Format, MineOptions, Pool, Sampling, Table, mine, table};

use super::at_least_one;
use crate::model::{self, ModelArguments};
use crate::rows::Rows;
use crate::terminal::Terminal;

/// Find hard negatives: texts similar to a query that are not known to match it
///
/// Names and defaults are those of sentence-transformers' `mine_hard_negatives`. Texts that the data connects with a
/// query, directly or through other rows, are never its negatives.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Pairs or triplets as CSV, JSONL or Parquet, or a BEIR folder as `DIR:split`
    #[arg(short, long, value_name = "PATH")]
    data: PathBuf,
    /// More texts that negatives may come from: one a line, a column `text`, or a BEIR folder
    #[arg(short, long, value_name = "PATH")]
    corpus: Option<PathBuf>,
    /// `.csv` or `.jsonl`; `-` prints JSON lines
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// Negatives of each query
    #[arg(short, long, value_name = "N", default_value_t = 3, value_parser = at_least_one)]
    num_negatives: usize,
    /// Most similar candidates to pass over
    #[arg(long, value_name = "N", default_value_t = 0)]
    range_min: usize,
    /// Candidates to look at. Default: as many as needed, ten times as many with a margin or `--max-score`
    #[arg(long, value_name = "N")]
    range_max: Option<usize>,
    /// Leave out candidates with a higher score
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    max_score: Option<f32>,
    /// Leave out candidates with a lower score
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    min_score: Option<f32>,
    /// Leave out candidates less than this below the lowest positive
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    absolute_margin: Option<f32>,
    /// Leave out candidates less than this share below the lowest positive, as in 0.05
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    relative_margin: Option<f32>,
    /// Which of the candidates become negatives
    #[arg(long, value_name = "NAME", default_value = "top")]
    sampling_strategy: Strategy,
    /// Let matching texts be found too, for rankings to test a cross-encoder on; needs `n-tuple`
    #[arg(long)]
    include_positives: bool,
    /// A cross-encoder that scores the candidates for the filters
    #[arg(long, value_name = "MODEL")]
    cross_encoder: Option<String>,
    /// How rows are laid out
    #[arg(long, value_name = "NAME", default_value = "triplet")]
    output_format: Layout,
    /// Write the scores too
    #[arg(long)]
    output_scores: bool,
    /// What random sampling draws from
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
}

const AFTER_HELP: &str = "\
Examples:
  finetuner mine --model all-MiniLM-L6-v2 --data scifact:train --output triplets.csv --relative-margin 0.05
  finetuner mine --data pairs.csv --corpus texts.txt --output-format n-tuple --num-negatives 5 --output hard.jsonl";

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Strategy {
    /// The most similar
    Top,
    /// Any of them
    Random,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Layout {
    /// anchor, positive, negative
    Triplet,
    /// anchor, positive, negative_1 … negative_n
    NTuple,
    /// anchor, positive, label (1 or 0)
    #[value(alias = "labelled-pair")]
    LabeledPair,
    /// anchor, texts, labels
    #[value(alias = "labelled-list")]
    LabeledList,
}

/// Mines and writes.
pub(super) fn run(arguments: &Arguments, terminal: &mut Terminal) -> Result<()> {
    let rows = Rows::of(&arguments.output)?;
    let format = match arguments.output_format {
        Layout::Triplet => Format::Triplet,
        Layout::NTuple => Format::NTuple,
        Layout::LabeledPair => Format::LabelledPair,
        Layout::LabeledList => Format::LabelledList,
    };
    if arguments.include_positives && format != Format::NTuple {
        let problem = "keeps matching texts among the negatives, so only `n-tuple`, a ranking, makes sense of them";
        return Err(finetuner::Error::spec("include_positives", problem).into());
    }
    let options = MineOptions {
        range_min: arguments.range_min,
        range_max: arguments.range_max,
        max_score: arguments.max_score,
        min_score: arguments.min_score,
        absolute_margin: arguments.absolute_margin,
        relative_margin: arguments.relative_margin,
        num_negatives: arguments.num_negatives,
        sampling: match arguments.sampling_strategy {
            Strategy::Top => Sampling::Top,
            Strategy::Random => Sampling::Random,
        },
        include_positives: arguments.include_positives,
        seed: arguments.seed,
    };
    options.check(arguments.cross_encoder.is_some())?;
    let pool = Pool::read(&arguments.data, arguments.corpus.as_deref())?;
    terminal.info(&format!("{} queries over {} documents", pool.queries.len(), pool.documents.len()));
    let cross_encoder =
        arguments.cross_encoder.as_deref().map(|name| model::open_cross_encoder(name, None, terminal)).transpose()?;
    let encoder = arguments.model.open(terminal)?;
    let device = arguments.model.device.open(terminal)?;
    let (mined, skipped) =
        mine(&pool, &encoder, cross_encoder.as_ref(), &*device, &options, &mut |phase, done, total| {
            terminal.progress(phase, done, total, None);
            Ok(())
        })?;

    let negatives: usize = mined.iter().map(|mined| mined.negatives.len()).sum();
    let short = mined.iter().filter(|mined| mined.negatives.len() < options.num_negatives).count();
    terminal.info(&format!(
        "{negatives} negatives; passed over: {} known to match, {} by absolute margin, {} by relative margin, {} by \
         `max_score`, {} by `min_score`",
        skipped.known, skipped.absolute_margin, skipped.relative_margin, skipped.max_score, skipped.min_score
    ));
    if short > 0 {
        terminal.warn(&format!(
            "{short} of {} queries have fewer than {} negatives; a larger `--range-max` or softer filters find more",
            mined.len(),
            options.num_negatives
        ));
    }
    let table: Table = table(&pool, &mined, format, options.num_negatives, arguments.output_scores);
    rows.write(&table, terminal)
}
