//! `finetuner`: fine-tune embedding models for similarity search, from the command line.
//!
//! Data goes to standard output, talk to standard error. Exit codes: 0 done, 1 failed, 2 the command line or the spec
//! is wrong, 130 stopped by Ctrl-C with a checkpoint saved.

mod commands;
mod exit;
mod model;
mod remote;
mod rows;
mod terminal;
mod texts;
#[cfg(feature = "server")]
mod unpack;
mod vectors;

use std::process::ExitCode;

use clap::Parser;

use crate::commands::Command;
use crate::terminal::{Loudness, Terminal};

/// Fine-tune embedding models for similarity search.
///
/// Data goes to standard output, talk and progress to standard error.
#[derive(Debug, Parser)]
#[command(name = "finetuner", version, max_term_width = 110, propagate_version = true, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Worker threads. Default: all cores
    #[arg(long, global = true, value_name = "N", env = "FINETUNER_THREADS", hide_env_values = true, value_parser = commands::at_least_one)]
    threads: Option<usize>,
    /// Say nothing but warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more: every measurement and checkpoint
    #[arg(short, long, global = true)]
    verbose: bool,
}

const AFTER_HELP: &str = "\
Examples:
  finetuner fit run.toml
  finetuner fit --model all-MiniLM-L6-v2 --train-data pairs.csv --loss MultipleNegativesRankingLoss --output runs/first
  finetuner evaluate --model runs/first --data scifact:test --json
  finetuner encode --model runs/first --input texts.txt --output vectors.npy
  finetuner search --model runs/first --input corpus.jsonl \"how do I freeze my card\"

Exit codes: 0 done, 1 failed, 2 the command line or the spec is wrong, 130 stopped with a checkpoint";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let loudness = match (arguments.quiet, arguments.verbose) {
        (true, _) => Loudness::Quiet,
        (_, true) => Loudness::Verbose,
        _ => Loudness::Normal,
    };
    let mut terminal = Terminal::new(loudness);
    commands::run(arguments.command, arguments.threads, &mut terminal).unwrap_or_else(|error| exit::failure(&error))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_definition_of_the_command_line_is_valid() {
        super::Arguments::command().debug_assert();
    }
}
