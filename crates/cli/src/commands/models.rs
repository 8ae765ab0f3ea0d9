//! `finetuner models`: the short names of well-known models.

use std::fmt::Write;

use anyhow::Result;
use finetuner::encoder::alias::ALIASES;
use finetuner::encoder::source::{MINI, MLP};
use serde_json::{Value, json};

use crate::terminal;

/// List the short names of well-known models and what they are good for
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const INSIDE: &str = "English; inside this program, needs no download";

const PERCEPTRON: &str = "vectors; a perceptron made by `finetuner fit` from random weights";

/// Lists models.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.json {
        let mini = json!({"name": MINI, "repository": Value::Null, "description": INSIDE});
        let others = ALIASES.iter().map(|alias| {
            json!({"name": alias.name, "repository": alias.repository, "family": alias.family,
                   "dimension": alias.dimension, "description": alias.description})
        });
        let mlp = json!({"name": MLP, "repository": Value::Null, "description": PERCEPTRON});
        let all: Vec<Value> = [mini, mlp].into_iter().chain(others).collect();
        return terminal::print(&(serde_json::to_string_pretty(&all)? + "\n"));
    }
    let widest = ALIASES.iter().map(|alias| alias.name.len()).max().unwrap_or(0);
    let mut table = String::new();
    for (name, description) in [(MINI, INSIDE), (MLP, PERCEPTRON)] {
        let _ = writeln!(table, "{name:widest$}  {:11}  {:>4}  {description}", "", "");
    }
    for alias in ALIASES {
        let _ = writeln!(
            table,
            "{:widest$}  {:11}  {:>4}  {}",
            alias.name, alias.family, alias.dimension, alias.description
        );
    }
    let _ = writeln!(table, "\nBesides these: a folder, or any repository id such as `organisation/name`.");
    terminal::print(&table)
}
