//! What in the data could mislead, found before a run starts.
//!
//! Every rule is a function of its own file, linear in rows and letters. Items count as equal "in their words" if they
//! differ only in case, punctuation and spaces.

mod classes;
mod contradictions;
mod duplicates;
mod empty;
mod languages;
mod leakage;
mod length;
mod normal;
mod pictures;

use serde::{Deserialize, Serialize};

pub use self::length::Lengths;
use self::normal::Words;
pub use self::pictures::{broken_pictures, pictures};
use super::{Dataset, Example, ItemId, Kind, Modality, RetrievalSet};

/// Examples shown of a finding.
const SHOWN: usize = 3;

/// Letters shown of a text.
const LETTERS: usize = 80;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// A run refuses the data.
    Error,
    /// It spoils what is learnt or measured; with `strict` a run refuses it too.
    Warning,
    /// Good to know.
    Note,
}

/// One thing found, in all the rows where it was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The rule's name, as in `duplicates`.
    pub rule: String,
    /// How bad it is.
    pub severity: Severity,
    /// How many rows, texts or classes it is about; the message says which.
    pub count: usize,
    /// What was found, as a sentence.
    pub message: String,
    /// What comes of it and what to do.
    pub consequence: String,
    /// The first of them, at most three.
    pub examples: Vec<Place>,
    /// Numbers of the rule's own: the length histogram, the languages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<serde_json::Value>,
}

/// A row to look at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// The file.
    pub path: String,
    /// The line, counted from 1; of Parquet files the row.
    pub line: u64,
    /// The text, cut to 80 letters.
    pub text: String,
    /// What is special about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// The data of a run, to be checked.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// What is learnt from.
    pub train: &'a Dataset,
    /// What is held out for validation.
    pub evaluation: Option<&'a Dataset>,
    /// What is measured by retrieval, where that is not drawn from `evaluation`.
    pub queries: &'a [&'a RetrievalSet],
    /// What the queries search, where it is a file of its own.
    pub index: Option<&'a Dataset>,
    /// Token counts of (a sample of) the training texts.
    pub lengths: Option<&'a Lengths>,
}

impl Subject<'_> {
    /// Everything that was found, the worst first.
    ///
    /// | rule | found | severity |
    /// |---|---|---|
    /// | `empty` | rows without a text or a label | error |
    /// | `wordless` | texts without a letter or a digit | warning |
    /// | `contradictions` | a text under two labels, a pair under two scores, a negative known to match | warning |
    /// | `leakage` | training items among the evaluation items or queries | warning |
    /// | `single_item_classes` | classes with one text | warning |
    /// | `similar_labels` | labels that differ in case, punctuation or spaces only | warning |
    /// | `truncation` | more than 5 % of the texts longer than the limit | warning |
    /// | `duplicates` | equal rows | note |
    /// | `near_duplicates` | rows equal in their words | note |
    /// | `identical_pairs` | an anchor that is its own positive | note |
    /// | `length` | tokens a text | note |
    /// | `languages` | more than one language | note |
    pub fn findings(&self) -> Vec<Finding> {
        let words = Words::of(self.train);
        let mut found = check_alone(self.train, &words);
        if let Some(evaluation) = self.evaluation {
            found.extend(leakage::among_items(self.train, &words, evaluation));
            found.extend(empty::rows(evaluation));
            found.extend(contradictions::find(evaluation, &Words::of(evaluation)));
        }
        for queries in self.queries {
            found.extend(leakage::among_queries(self.train, &words, queries));
        }
        if let Some(index) = self.index {
            found.extend(empty::rows(index));
            found.extend(duplicates::find(index, &Words::of(index)));
        }
        if let Some(lengths) = self.lengths {
            found.push(length::find(self.train, lengths));
        }
        found.sort_by_key(|finding| finding.severity);
        found
    }
}

/// What a data set is found guilty of by itself.
fn check_alone(dataset: &Dataset, words: &Words) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(empty::rows(dataset));
    found.extend(empty::wordless(dataset));
    found.extend(contradictions::find(dataset, words));
    found.extend(classes::single_items(dataset, words));
    found.extend(classes::similar_labels(dataset));
    found.extend(duplicates::find(dataset, words));
    found.extend(duplicates::identical_pairs(dataset, words));
    found.extend(languages::find(dataset));
    found
}

impl Finding {
    /// A finding without examples yet.
    fn new(rule: &str, severity: Severity, count: usize, message: String, consequence: &str) -> Self {
        let (rule, consequence) = (rule.to_owned(), consequence.to_owned());
        Finding { rule, severity, count, message, consequence, examples: Vec::new(), details: None }
    }

    /// The finding over several lines: what, where, and what comes of it.
    pub fn text(&self) -> String {
        let examples = self.examples.iter().map(|place| {
            let note = if place.note.is_empty() { String::new() } else { format!(": {}", place.note) };
            format!("\n  {}:{} \"{}\"{note}", place.path, place.line, place.text)
        });
        format!("{} [{}]{}\n  {}", self.message, self.rule, examples.collect::<String>(), self.consequence)
    }
}

impl Place {
    /// The row of an example, shown by one of its texts.
    fn of(dataset: &Dataset, example: usize, text: ItemId, note: impl Into<String>) -> Self {
        Place {
            path: dataset.path.display().to_string(),
            line: dataset.lines[example],
            text: shorten(dataset.items.get(text)),
            note: note.into(),
        }
    }
}

/// Gathers the first few of many.
#[derive(Default)]
struct Tally {
    count: usize,
    examples: Vec<Place>,
}

impl Tally {
    fn add(&mut self, place: impl FnOnce() -> Place) {
        self.count += 1;
        if self.examples.len() < SHOWN {
            self.examples.push(place());
        }
    }

    /// The finding; `None` where nothing was counted.
    fn finding(
        self,
        rule: &str,
        severity: Severity,
        message: impl FnOnce(usize) -> String,
        consequence: &str,
    ) -> Option<Finding> {
        let Tally { count, examples } = self;
        (count > 0).then(|| Finding { examples, ..Finding::new(rule, severity, count, message(count), consequence) })
    }
}

/// The text of a row that stands for it: the item, or the anchor.
fn leading_text(example: &Example) -> ItemId {
    match example {
        Example::Pair { anchor, .. } | Example::Triplet { anchor, .. } => *anchor,
        Example::Labelled { item, .. } | Example::Single { item } => *item,
        Example::Scored { first, .. } => *first,
    }
}

/// One line of at most 80 letters.
fn shorten(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LETTERS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// `1 row`, `2 rows`.
fn count(number: usize, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}

/// Texts of a sample spread evenly over a data set, at most `limit`.
pub fn sample(dataset: &Dataset, limit: usize) -> Vec<ItemId> {
    let texts: Vec<ItemId> = dataset.items.ids(Modality::Text).collect();
    let taken = texts.len().min(limit);
    (0..taken).map(|place| texts[place * texts.len() / taken]).collect()
}

/// For each of these texts the first row that holds it.
fn first_rows(dataset: &Dataset, texts: &[ItemId]) -> Vec<usize> {
    let mut rows = vec![None; texts.len()];
    for (row, example) in dataset.examples.iter().enumerate() {
        for text in example.items() {
            if let Some(at) = texts.iter().position(|wanted| *wanted == text) {
                rows[at].get_or_insert(row);
            }
        }
        if rows.iter().all(Option::is_some) {
            break;
        }
    }
    rows.into_iter().map(Option::unwrap_or_default).collect()
}

#[cfg(test)]
#[path = "lint_tests.rs"]
mod tests;
