//! Mined rows as CSV or JSON lines, in the columns of sentence-transformers.

use std::io::{Error, Result, Write};

use serde_json::{Map, Value, json};

use super::{Mined, Pool};

/// How mined rows are laid out, `output_format` of `mine_hard_negatives`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `anchor, positive, negative`: a row for each negative.
    #[default]
    Triplet,
    /// `anchor, positive, negative_1 … negative_n`: only queries for which all `n` were found.
    NTuple,
    /// `anchor, positive, label`: a row for each positive (1) and each negative (0); the column keeps its name.
    LabelledPair,
    /// `anchor, positive, labels`: the documents of a positive and its negatives as lists.
    LabelledList,
}

/// Rows under named columns. A list is one value in JSON, and several numbered columns in CSV.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    /// Names of the columns.
    pub columns: Vec<&'static str>,
    /// One value a column.
    pub rows: Vec<Vec<Value>>,
}

/// Lays out what was mined. With `scores` a column `scores` follows (`[positive, negative …]`), and in the labelled
/// formats it takes the place of the labels (`score`).
pub fn table(pool: &Pool, mined: &[Mined], format: Format, num_negatives: usize, scores: bool) -> Table {
    let document = |row: u32| pool.documents[row as usize].as_str();
    let mut rows: Vec<Vec<Value>> = Vec::new();
    for Mined { query, positive_scores, negatives } in mined {
        let anchor = pool.queries[*query as usize].as_str();
        let positives = || pool.positives[*query as usize].iter().map(|row| document(*row)).zip(positive_scores);
        match format {
            Format::Triplet => {
                for (positive, score) in positives() {
                    for negative in negatives {
                        let mut row = vec![json!(anchor), json!(positive), json!(document(negative.document))];
                        row.extend(scores.then(|| json!([score, negative.score])));
                        rows.push(row);
                    }
                }
            }
            Format::NTuple if negatives.len() < num_negatives => {}
            Format::NTuple => {
                for (positive, score) in positives() {
                    let texts: Vec<&str> = negatives.iter().map(|hit| document(hit.document)).collect();
                    let mut row = vec![json!(anchor), json!(positive), json!(texts)];
                    let all: Vec<f32> = std::iter::once(*score).chain(negatives.iter().map(|hit| hit.score)).collect();
                    row.extend(scores.then(|| json!(all)));
                    rows.push(row);
                }
            }
            Format::LabelledPair => {
                let value = |label: u8, score: f32| if scores { json!(score) } else { json!(label) };
                let matching = positives().map(|(text, score)| (text, value(1, *score)));
                let others = negatives.iter().map(|hit| (document(hit.document), value(0, hit.score)));
                rows.extend(matching.chain(others).map(|(text, value)| vec![json!(anchor), json!(text), value]));
            }
            Format::LabelledList if negatives.is_empty() => {}
            Format::LabelledList => {
                for (positive, score) in positives() {
                    let texts: Vec<&str> =
                        std::iter::once(positive).chain(negatives.iter().map(|hit| document(hit.document))).collect();
                    let values: Vec<Value> = if scores {
                        std::iter::once(*score).chain(negatives.iter().map(|hit| hit.score)).map(Value::from).collect()
                    } else {
                        (0..texts.len()).map(|place| json!(u8::from(place == 0))).collect()
                    };
                    rows.push(vec![json!(anchor), json!(texts), json!(values)]);
                }
            }
        }
    }
    let columns = match (format, scores) {
        (Format::Triplet | Format::NTuple, false) => vec!["anchor", "positive", "negative"],
        (Format::Triplet | Format::NTuple, true) => vec!["anchor", "positive", "negative", "scores"],
        (Format::LabelledPair, false) => vec!["anchor", "positive", "label"],
        (Format::LabelledPair, true) => vec!["anchor", "positive", "score"],
        (Format::LabelledList, false) => vec!["anchor", "positive", "labels"],
        (Format::LabelledList, true) => vec!["anchor", "positive", "scores"],
    };
    Table { columns, rows }
}

impl Table {
    /// One JSON object a row.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_jsonl(&self, mut out: impl Write) -> Result<()> {
        for row in &self.rows {
            let object: Map<String, Value> =
                self.columns.iter().map(|name| (*name).to_owned()).zip(row.iter().cloned()).collect();
            serde_json::to_writer(&mut out, &object)?;
            out.write_all(b"\n")?;
        }
        out.flush()
    }

    /// CSV with a header. A column of lists becomes as many as its longest list has values, numbered from 1; `scores`
    /// and `labels` lose their plural. Shorter lists leave cells empty.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_csv(&self, out: impl Write) -> Result<()> {
        let widths: Vec<Option<usize>> = (0..self.columns.len())
            .map(|column| self.rows.iter().filter_map(|row| row[column].as_array().map(Vec::len)).max())
            .collect();
        let mut writer = csv::Writer::from_writer(out);
        let header = self.columns.iter().zip(&widths).flat_map(|(name, width)| match width {
            None => vec![(*name).to_owned()],
            Some(width) => (1..=*width).map(|number| format!("{}_{number}", name.trim_end_matches('s'))).collect(),
        });
        writer.write_record(header).map_err(Error::other)?;
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        for row in &self.rows {
            let cells = row.iter().zip(&widths).flat_map(|(value, width)| match (value, width) {
                (Value::Array(values), Some(width)) => {
                    let mut cells: Vec<String> = values.iter().map(text).collect();
                    cells.resize(*width, String::new());
                    cells
                }
                (value, _) => vec![text(value)],
            });
            writer.write_record(cells).map_err(Error::other)?;
        }
        writer.flush()
    }
}
