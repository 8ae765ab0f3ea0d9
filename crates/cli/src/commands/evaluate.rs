//! `finetuner evaluate`: measure a model on held-out data.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;
use finetuner::data::Kind;
use finetuner::evaluate::{K, Metrics, Similarity, Summary};
use finetuner::train::{Measurement, Target, read_target, read_vector_target};
use serde_json::json;

use super::at_least_one;
use crate::model::{self, ModelArguments};
use crate::terminal::{self, Terminal};

/// Measure a model: retrieval metrics, or correlations for scored pairs
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Queries, as CSV, JSONL, Parquet or a BEIR folder as `DIR:split`; or scored pairs
    #[arg(short, long, value_name = "PATH")]
    data: PathBuf,
    /// What the queries search. Labelled data without it is searched against itself, excluding self
    #[arg(short, long, value_name = "PATH")]
    index_data: Option<PathBuf>,
    /// `pairs`, `triplets`, `labelled` or `scored`. Default: taken from the header
    #[arg(long)]
    kind: Option<Kind>,
    /// A cross-encoder: it orders the best hits of `--model` anew, or scores the pairs by itself
    #[arg(long, value_name = "MODEL")]
    cross_encoder: Option<String>,
    /// Hits of each query that the cross-encoder orders
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_one)]
    rerank: usize,
    /// Hits that the metrics look at
    #[arg(short, value_name = "K", long, default_value_t = K, value_parser = at_least_one)]
    k: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  finetuner evaluate --model runs/first --data scifact:test
  finetuner evaluate --model all-MiniLM-L6-v2 --data test.csv --index-data train.csv --kind labelled --json
  finetuner evaluate --model all-MiniLM-L6-v2 --cross-encoder cross-encoder/ms-marco-MiniLM-L-6-v2 --data scifact:test";

/// Measures a model.
pub(super) fn run(arguments: &Arguments, terminal: &mut Terminal) -> Result<()> {
    let read = if arguments.model.reads_vectors() { read_vector_target } else { read_target };
    let target = read(&arguments.data, arguments.index_data.as_deref(), arguments.kind)?;
    terminal.info(&format!("measured on: {}", target.description()));
    if let Some(measurement) = cross_encoder(arguments, &target, terminal)? {
        return tell(measurement, arguments.json, terminal);
    }
    let model = arguments.model.open(terminal)?;
    let (device, total) = (arguments.model.device.open(terminal)?, target.items());
    let progress = |done: usize| {
        terminal.progress("evaluate", done, total, None);
        Ok(())
    };
    let measurement = target.measure(&model, &*device, Similarity::Cosine, arguments.k, progress)?;
    tell(measurement, arguments.json, terminal)
}

/// The measurement of a cross-encoder, where `--cross-encoder` or `--model` is one. Pairs need no other model.
fn cross_encoder(arguments: &Arguments, target: &Target, terminal: &mut Terminal) -> Result<Option<Measurement>> {
    let scored = matches!(target, Target::Scored(_));
    let (cross_encoder, first) = match &arguments.cross_encoder {
        Some(name) if scored => (model::open_cross_encoder(name, None, terminal)?, None),
        Some(name) => (model::open_cross_encoder(name, None, terminal)?, Some(arguments.model.open(terminal)?)),
        None => match arguments.model.open_if_cross_encoder(terminal)? {
            Some(cross_encoder) => (cross_encoder, None),
            None => return Ok(None),
        },
    };
    let device = arguments.model.device.open(terminal)?;
    let progress = &mut |phase: &str, done: usize, total: usize| {
        terminal.progress(phase, done, total, None);
        Ok(())
    };
    let (k, rerank) = (arguments.k, arguments.rerank);
    Ok(Some(target.measure_cross_encoder(&cross_encoder, first.as_ref(), &*device, k, rerank, progress)?))
}

/// Prints a measurement.
fn tell(measurement: Measurement, json: bool, terminal: &Terminal) -> Result<()> {
    let text = match measurement {
        Measurement::Retrieval(evaluation) => {
            let summary = evaluation.summary();
            if summary.without_relevant > 0 {
                terminal.info(&format!("{} queries left out: nothing is relevant to them", summary.without_relevant));
            }
            if json { retrieval_json(&summary) } else { retrieval_table(&summary) }
        }
        Measurement::Scored(correlation) if json => serde_json::to_string(&correlation)? + "\n",
        Measurement::Scored(correlation) => {
            let number = |value: Option<f64>| value.map_or("undefined".to_owned(), |value| format!("{value:.4}"));
            let (pearson, spearman) = (number(correlation.pearson), number(correlation.spearman));
            format!("pearson   {pearson}\nspearman  {spearman}\nOver {} pairs.\n", correlation.pairs)
        }
    };
    terminal::print(&text)
}

fn retrieval_json(summary: &Summary) -> String {
    let Summary { k, metrics, original, queries, .. } = summary;
    json!({"k": k, "metrics": metrics, "original": original, "queries": queries}).to_string() + "\n"
}

fn retrieval_table(summary: &Summary) -> String {
    let mut table = String::new();
    for (name, value) in Metrics::NAMES.iter().zip(summary.metrics.values()) {
        let _ = writeln!(table, "{name:<14} {value:.4}");
    }
    let _ = writeln!(table, "Means over {} queries at k = {}.", summary.queries, summary.k);
    table
}
