//! `finetuner search`: the most similar texts or pictures, exactly.

use std::fmt::Write;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use anyhow::Result;
use engine::Device;
use finetuner::Error;
use finetuner::data::{Modality, is_picture, read_vector};
use finetuner::encoder::{Model, Role};
use finetuner::evaluate::{Hit, Similarity};
use serde_json::{Value, json};

use super::at_least_one;
use crate::model::ModelArguments;
use crate::terminal::{self, Terminal};
use crate::texts::Texts;

/// Find the texts most similar to a query, by exact cosine similarity
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// What is searched: one text a line (`.txt`), a column `text` (`.csv`, `.parquet`), a key `text` (`.jsonl`, BEIR corpora too), a folder of pictures, or vectors (`.npy`, `embedding`). Columns of other names: `products.csv:text=description,id=sku`
    #[arg(short, long, value_name = "PATH")]
    input: PathBuf,
    /// What to look for: a text, the path of a picture, or a vector as in `[0.5, -1]`. Default: each line of standard input
    queries: Vec<String>,
    /// Hits to show for each query
    #[arg(short, long, value_name = "N", default_value_t = 10, value_parser = at_least_one)]
    top: usize,
    /// Print an object a query as JSON lines
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  finetuner search --model runs/first --input corpus.jsonl \"how do I freeze my card\"
  finetuner search --model runs/first --input corpus.jsonl --top 3 --json < questions.txt";

/// Embeds the corpus once, then answers query after query.
pub(super) fn run(arguments: &Arguments, terminal: &mut Terminal) -> Result<()> {
    let corpus = Texts::read(&arguments.input, arguments.model.reads_vectors(), terminal)?;
    let model = arguments.model.open(terminal)?;
    let device = arguments.model.device.open(terminal)?;
    let (documents, _) = corpus.embed(&model, &*device, Role::Document, terminal)?;
    let name = arguments.input.display().to_string();
    let index = Index { name, corpus, documents, model, device };
    let answer = |query: &str| {
        let hits = index.search(query, arguments.top)?;
        terminal::print(&if arguments.json { index.json(query, &hits) } else { index.table(query, &hits) })
    };
    if !arguments.queries.is_empty() {
        return arguments.queries.iter().try_for_each(|query| answer(query));
    }
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(Error::io("read", "standard input"))?;
        if !line.trim().is_empty() {
            answer(line.trim())?;
        }
    }
    Ok(())
}

/// Texts and their embeddings.
struct Index {
    /// Where the corpus is from.
    name: String,
    corpus: Texts,
    documents: Vec<f32>,
    model: Model,
    device: Box<dyn Device>,
}

impl Index {
    fn search(&self, query: &str, top: usize) -> Result<Vec<Hit>> {
        let modality = match self.corpus.modality {
            Modality::Vector => Modality::Vector,
            _ if is_picture(query) && Path::new(query).is_file() => Modality::Image,
            _ => Modality::Text,
        };
        if modality == Modality::Vector && read_vector(query).is_none() {
            let problem =
                format!("expected a vector as in `[0.5, -1]`, as `{}` holds vectors, got `{query}`", self.name);
            return Err(Error::spec("queries", problem).into());
        }
        let (query, _) = self.model.embed(&*self.device, &[query], (modality, Role::Query), |_| Ok(()))?;
        let hits = Similarity::Cosine.top_k(&query, &self.documents, self.model.encoder.dimension(), top, None)?;
        Ok(hits.into_iter().flatten().collect())
    }

    /// What was found as it is shown; a vector says nothing that its id does not.
    fn text(&self, place: usize) -> Option<&str> {
        (self.corpus.modality != Modality::Vector).then_some(&self.corpus.texts[place])
    }

    fn json(&self, query: &str, hits: &[Hit]) -> String {
        let hit = |(rank, hit): (usize, &Hit)| {
            let place = hit.document as usize;
            let mut hit = json!({"rank": rank, "score": hit.score, "id": self.corpus.id(place)});
            if let Some(text) = self.text(place) {
                hit["text"] = text.into();
            }
            hit
        };
        let hits: Vec<Value> = (1..).zip(hits).map(hit).collect();
        json!({"query": query, "hits": hits}).to_string() + "\n"
    }

    /// A line for each hit: rank, score, id and the text, cut to the width of a terminal.
    fn table(&self, query: &str, hits: &[Hit]) -> String {
        let ids: Vec<String> = hits.iter().map(|hit| self.corpus.id(hit.document as usize)).collect();
        let widest = ids.iter().map(|id| console::measure_text_width(id)).max().unwrap_or(0);
        let mut table = format!("{query}\n");
        for ((rank, hit), id) in (1..).zip(hits).zip(&ids) {
            let text = self.text(hit.document as usize).unwrap_or_default();
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let text: String = text.chars().filter(|character| !character.is_control()).collect();
            let id = console::pad_str(id, widest, console::Alignment::Left, None);
            let line = format!("{rank:>3}  {:>7.4}  {id}  {text}", hit.score);
            let line = match terminal::width() {
                Some(width) => console::truncate_str(&line, width, "…").into_owned(),
                None => line,
            };
            let _ = writeln!(table, "{line}");
        }
        table
    }
}
