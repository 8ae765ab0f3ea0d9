//! `finetuner encode`: texts, pictures or vectors to embeddings.

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;
use finetuner::encoder::Role;

use crate::model::ModelArguments;
use crate::terminal::Terminal;
use crate::texts::Texts;
use crate::vectors::{Target, Vectors};

/// Turn texts or pictures into embeddings, one for each, in their order
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Texts: one a line (`.txt`), a column `text` (`.csv`, `.parquet`), a key `text` (`.jsonl`), or others, as in `products.csv:text=description,id=sku`; a folder of pictures; vectors (`.npy`, `embedding`); `-` reads lines from standard input
    #[arg(short, long, value_name = "PATH")]
    input: PathBuf,
    /// `.npy` (float32, without the texts), `.jsonl` or `.parquet`, with labels where the input has them; `-` prints JSON lines
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// What the texts are for, where the model puts a prompt before them. Default: neither
    #[arg(long)]
    role: Option<TextRole>,
}

const AFTER_HELP: &str = "\
Examples:
  finetuner encode --model runs/first --input texts.txt --output vectors.npy
  finetuner encode --input train.csv --output train.jsonl && finetuner fit --model mlp --train-data train.jsonl
  finetuner encode --model e5-small-v2 --role query --input - --output - < questions.txt";

/// What texts are for.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum TextRole {
    /// They search
    Query,
    /// They are found
    Document,
}

/// Embeds texts.
pub(super) fn run(arguments: &Arguments, terminal: &mut Terminal) -> Result<()> {
    let target = Target::of(&arguments.output)?;
    let texts = Texts::read_labelled(&arguments.input, arguments.model.reads_vectors(), terminal)?;
    let model = arguments.model.open(terminal)?;
    let role = match arguments.role {
        Some(TextRole::Query) => Role::Query,
        Some(TextRole::Document) => Role::Document,
        None => Role::Plain,
    };
    let (embeddings, dimension) = texts.embed(&model, &*arguments.model.device.open(terminal)?, role, terminal)?;
    target.write(&Vectors { texts: &texts, embeddings: &embeddings, dimension })?;
    if let Target::File(path, _) = target {
        terminal.info(&format!("{} embeddings of {dimension} in `{}`", texts.texts.len(), path.display()));
    }
    Ok(())
}
