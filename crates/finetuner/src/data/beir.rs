//! Folders of the BEIR benchmark (Thakur et al. 2021): `corpus.jsonl`, `queries.jsonl` and judgements (qrels).

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::collect::score;
use super::read::{read_text, utf8};
use super::{Dataset, Example, Items, Kind};
use crate::error::{Error, Result};

/// One split of a folder.
pub(super) struct Beir {
    pub(super) query_ids: Vec<String>,
    /// The queries that are judged, in the order of the judgements.
    pub(super) queries: Vec<String>,
    pub(super) document_ids: Vec<String>,
    /// Title, a space, text; trimmed. Real corpora hold a few empty ones.
    pub(super) documents: Vec<String>,
    /// (query, document, grade) in file order.
    pub(super) judgements: Vec<(u32, u32, f32)>,
    /// The line of each judgement.
    pub(super) lines: Vec<u64>,
    /// The file of the judgements.
    pub(super) qrels: PathBuf,
}

#[derive(Deserialize)]
struct Line {
    #[serde(alias = "id")]
    _id: serde_json::Value,
    #[serde(default)]
    title: Option<String>,
    text: String,
}

struct Judgement {
    line: u64,
    query: String,
    document: String,
    grade: f32,
}

impl Beir {
    /// Reads one split, with the whole corpus or with the judged documents only.
    pub(super) fn read(folder: &Path, split: Option<&str>, whole_corpus: bool) -> Result<Beir> {
        let qrels = find_qrels(folder, split)?;
        let judged = read_qrels(&qrels)?;

        let wanted: HashSet<&str> = judged.iter().map(|judgement| judgement.query.as_str()).collect();
        let mut texts: HashMap<String, String> = HashMap::new();
        let queries_path = folder.join("queries.jsonl");
        for_each(&queries_path, |line, id, text| {
            if wanted.contains(id.as_str()) {
                if text.is_empty() {
                    return Err(Error::data(&queries_path, line, "expected a text in column `text`, got none"));
                }
                texts.insert(id, text);
            }
            Ok(())
        })?;

        let wanted: HashSet<&str> = judged.iter().map(|judgement| judgement.document.as_str()).collect();
        let (mut document_ids, mut documents) = (Vec::new(), Vec::new());
        let mut places: HashMap<String, u32> = HashMap::new();
        let corpus_path = folder.join("corpus.jsonl");
        for_each(&corpus_path, |line, id, text| {
            if whole_corpus || wanted.contains(id.as_str()) {
                if places.insert(id.clone(), documents.len() as u32).is_some() {
                    return Err(Error::data(&corpus_path, line, format!("the id `{id}` has occurred before")));
                }
                document_ids.push(id);
                documents.push(text);
            }
            Ok(())
        })?;

        let (mut query_ids, mut queries) = (Vec::new(), Vec::new());
        let mut query_places: HashMap<String, u32> = HashMap::new();
        let lines = judged.iter().map(|judgement| judgement.line).collect();
        let mut judgements = Vec::with_capacity(judged.len());
        for Judgement { line, query, document, grade } in judged {
            let unknown = |what, id: &str, file| Error::data(&qrels, line, format!("{what} `{id}` is not in {file}"));
            let document = *places.get(&document).ok_or_else(|| unknown("document", &document, "corpus.jsonl"))?;
            let query = match query_places.get(&query) {
                Some(place) => *place,
                None => {
                    let text = texts.remove(&query).ok_or_else(|| unknown("query", &query, "queries.jsonl"))?;
                    let place = queries.len() as u32;
                    queries.push(text);
                    query_ids.push(query.clone());
                    query_places.insert(query, place);
                    place
                }
            };
            judgements.push((query, document, grade));
        }
        Ok(Beir { query_ids, queries, document_ids, documents, judgements, lines, qrels })
    }
}

/// Training pairs: a query with each document judged relevant (grade above 0). Empty documents are left out.
pub(super) fn read_pairs(folder: &Path, split: Option<&str>) -> Result<Dataset> {
    let beir = Beir::read(folder, split, false)?;
    let mut items = Items::default();
    let (mut examples, mut lines) = (Vec::new(), Vec::new());
    let mut empty = 0;
    let judged = beir.judgements.iter().zip(&beir.lines);
    for (&(query, document, _), line) in judged.filter(|((.., grade), _)| *grade > 0.0) {
        match beir.documents[document as usize].as_str() {
            "" => empty += 1,
            document => {
                let anchor = items.intern(&beir.queries[query as usize]);
                examples.push(Example::Pair { anchor, positive: items.intern(document) });
                lines.push(*line);
            }
        }
    }
    if examples.is_empty() {
        return Err(Error::data(folder, None, "holds no examples: no document is judged relevant"));
    }
    let split = split.map(|split| format!(":{split}")).unwrap_or_default();
    let left_out = if empty > 0 { format!("; {empty} left out for an empty document") } else { String::new() };
    Ok(Dataset {
        kind: Kind::Pairs,
        items,
        decision: format!(
            "`{}{split}`: {} examples read as pairs; query and relevant document of a BEIR folder{left_out}",
            folder.display(),
            examples.len()
        ),
        examples,
        ids: Vec::new(),
        path: beir.qrels,
        lines,
        empty: Vec::new(),
        label_names: Vec::new(),
        beside: None,
    })
}

/// `qrels/<split>.tsv`, `qrels_<split>.tsv`, or `qrels.tsv` where no split is named.
fn find_qrels(folder: &Path, split: Option<&str>) -> Result<PathBuf> {
    let candidates = match split {
        Some(split) => vec![folder.join(format!("qrels/{split}.tsv")), folder.join(format!("qrels_{split}.tsv"))],
        None => vec![folder.join("qrels.tsv")],
    };
    if let Some(found) = candidates.iter().find(|candidate| candidate.is_file()) {
        return Ok(found.clone());
    }
    let names = |folder: PathBuf, prefix: &str| -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        names.filter_map(|name| Some(name.strip_prefix(prefix)?.strip_suffix(".tsv")?.to_owned())).collect()
    };
    let mut splits = names(folder.join("qrels"), "");
    splits.extend(names(folder.to_owned(), "qrels_"));
    splits.sort();
    let problem = match (split, splits.is_empty()) {
        (_, true) if !folder.join("qrels.tsv").is_file() => {
            "expected a BEIR folder with corpus.jsonl, queries.jsonl and qrels.tsv or qrels/<split>.tsv".to_owned()
        }
        (Some(split), true) => format!("has no split `{split}`; it has no splits at all, leave `:{split}` out"),
        (Some(split), false) => format!("has no split `{split}`; its splits are {}", splits.join(", ")),
        (None, _) => {
            format!("name one of its splits ({}), as in `{}:{}`", splits.join(", "), folder.display(), splits[0])
        }
    };
    Err(Error::data(folder, None, problem))
}

/// Lines of query, document and grade, separated by tabs; a first line without a number is a header.
fn read_qrels(path: &Path) -> Result<Vec<Judgement>> {
    let text = read_text(path)?;
    let mut judgements = Vec::new();
    for (line, row) in (1..).zip(text.lines()).filter(|(_, row)| !row.trim().is_empty()) {
        let cells: Vec<&str> = row.split('\t').map(str::trim).collect();
        let [query, document, grade] = cells[..] else {
            let problem = format!("expected 3 columns (query, document, score) separated by tabs, got {}", cells.len());
            return Err(Error::data(path, line, problem));
        };
        if line == 1 && grade.eq_ignore_ascii_case("score") {
            continue;
        }
        let grade = score(path, line, "score", grade)?;
        judgements.push(Judgement { line, query: query.into(), document: document.into(), grade });
    }
    if judgements.is_empty() {
        return Err(Error::data(path, None, "holds no judgements"));
    }
    Ok(judgements)
}

/// Calls `each` with line number, id and text of every line; one line in memory at a time.
pub(super) fn for_each(path: &Path, mut each: impl FnMut(u64, String, String) -> Result<()>) -> Result<()> {
    let file = std::fs::File::open(path).map_err(Error::io("read", path))?;
    for (line, bytes) in (1..).zip(BufReader::new(file).split(b'\n')) {
        let bytes = bytes.map_err(Error::io("read", path))?;
        let row = utf8(path, &bytes, line)?.trim_start_matches('\u{FEFF}').trim();
        if row.is_empty() {
            continue;
        }
        let row: Line = serde_json::from_str(row).map_err(|error| {
            let problem = format!("expected {{\"_id\": …, \"text\": …}}, optionally with \"title\": {error}");
            Error::data(path, line, problem)
        })?;
        let id = match row._id {
            serde_json::Value::String(id) => id,
            other => other.to_string(),
        };
        let text = format!("{} {}", row.title.as_deref().unwrap_or("").trim(), row.text.trim());
        each(line, id, text.trim().to_owned())?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "beir_tests.rs"]
mod tests;
