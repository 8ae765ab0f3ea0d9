//! Training items among what the model is measured on.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::normal::fingerprint;
use super::{
    Dataset, Example, Finding, Kind, Place, RetrievalSet, Severity, Tally, Words, count, leading_text, shorten,
};

const CONSEQUENCE: &str = "What the model has seen in training it will find in the evaluation too, so the result looks \
    better than it is; remove these rows from one of the two.";

/// The row of the training data that holds each text.
fn training_texts(train: &Dataset, words: &Words) -> HashMap<u64, usize> {
    let mut rows = HashMap::with_capacity(train.items.len());
    for (row, example) in train.examples.iter().enumerate() {
        for text in example.items() {
            rows.entry(words.get(text)).or_insert(row);
        }
    }
    rows
}

/// Items alone teach nothing about what matches.
fn severity(train: &Dataset) -> Severity {
    if train.kind == Kind::Single { Severity::Note } else { Severity::Warning }
}

/// Held-out items that are trained on: the item or the anchor by its words, scored rows by both texts.
pub(super) fn among_items(train: &Dataset, words: &Words, evaluation: &Dataset) -> Option<Finding> {
    let theirs = Words::of(evaluation);
    let mut tally = Tally::default();
    let mut leak = |row: usize, example: &Example, trained: usize| {
        tally.add(|| {
            let note = format!("also {}:{}", train.path.display(), train.lines[trained]);
            Place::of(evaluation, row, leading_text(example), note)
        });
    };
    let pair = |words: &Words, example: &Example| match example {
        Example::Scored { first, second, .. } => {
            let (first, second) = (words.get(*first), words.get(*second));
            Some((first.min(second), first.max(second)))
        }
        _ => None,
    };
    let rows = evaluation.examples.iter().enumerate();
    if evaluation.kind == Kind::Scored {
        let mut trained: HashMap<(u64, u64), usize> = HashMap::new();
        for (row, example) in train.examples.iter().enumerate() {
            if let Some(Entry::Vacant(free)) = pair(words, example).map(|pair| trained.entry(pair)) {
                free.insert(row);
            }
        }
        for (row, example) in rows {
            if let Some(known) = pair(&theirs, example).and_then(|pair| trained.get(&pair)) {
                leak(row, example, *known);
            }
        }
    } else {
        let trained = training_texts(train, words);
        for (row, example) in rows {
            if let Some(known) = trained.get(&theirs.get(leading_text(example))) {
                leak(row, example, *known);
            }
        }
    }
    let all = evaluation.examples.len();
    let message = |found: usize| {
        format!("{} also in the training data, of {all}", count(found, "evaluation item is", "evaluation items are"))
    };
    tally.finding("leakage", severity(train), message, CONSEQUENCE)
}

/// Queries that are trained on. That the index holds training texts is usual and no leak.
pub(super) fn among_queries(train: &Dataset, words: &Words, set: &RetrievalSet) -> Option<Finding> {
    let trained = training_texts(train, words);
    let mut tally = Tally::default();
    for (query, line) in set.queries.iter().zip(&set.query_lines) {
        if let Some(row) = trained.get(&fingerprint(set.query_modality, query)) {
            tally.add(|| Place {
                path: set.query_path.display().to_string(),
                line: *line,
                text: shorten(query),
                note: format!("also {}:{}", train.path.display(), train.lines[*row]),
            });
        }
    }
    let all = set.queries.len();
    let message =
        |found: usize| format!("{} also in the training data, of {all}", count(found, "query is", "queries are"));
    tally.finding("leakage", severity(train), message, CONSEQUENCE)
}
