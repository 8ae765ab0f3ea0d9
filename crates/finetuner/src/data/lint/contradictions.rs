//! Rows that deny each other.

use std::collections::HashMap;

use super::{Dataset, Example, Finding, Kind, Place, Severity, Tally, Words, count};
use crate::data::LabelGraph;

/// Scores of one pair may differ by this share of the range of all scores.
const TOLERANCE: f32 = 0.1;

/// The contradictions that this kind of data can have.
pub(super) fn find(dataset: &Dataset, words: &Words) -> Option<Finding> {
    match dataset.kind {
        Kind::Labelled => labels(dataset, words),
        Kind::Scored => scores(dataset, words),
        Kind::LabelledPairs => pair_labels(dataset, words),
        Kind::Triplets => negatives(dataset, words),
        _ => None,
    }
}

/// One text under several labels. Each text is counted once, where its second label comes up.
fn labels(dataset: &Dataset, words: &Words) -> Option<Finding> {
    struct First {
        label: u32,
        row: usize,
        counted: bool,
    }
    let mut firsts: HashMap<u64, First> = HashMap::with_capacity(dataset.items.len());
    let mut tally = Tally::default();
    for (row, example) in dataset.examples.iter().enumerate() {
        let Example::Labelled { item, label } = example else { continue };
        let first = firsts.entry(words.get(*item)).or_insert(First { label: *label, row, counted: false });
        if first.label != *label && !first.counted {
            first.counted = true;
            tally.add(|| {
                let name = |label: u32| &dataset.label_names[label as usize];
                let (here, there) = (name(*label), name(first.label));
                Place::of(dataset, row, *item, format!("`{here}`, but `{there}` on line {}", dataset.lines[first.row]))
            });
        }
    }
    tally.finding(
        "contradictions",
        Severity::Warning,
        |found| format!("{} under more than one label", count(found, "text stands", "texts stand")),
        "Such a text pulls its classes into one, and no negative is drawn between them; keep one label, or merge the classes.",
    )
}

/// One pair of texts under scores that differ by more than a tenth of the range.
fn scores(dataset: &Dataset, words: &Words) -> Option<Finding> {
    let all = dataset.examples.iter().filter_map(|example| match example {
        Example::Scored { score, .. } => Some(*score),
        _ => None,
    });
    let (lowest, highest) = all.fold((f32::MAX, f32::MIN), |(low, high), score| (low.min(score), high.max(score)));
    let tolerance = TOLERANCE * (highest - lowest);
    let mut firsts: HashMap<(u64, u64), (f32, usize, bool)> = HashMap::with_capacity(dataset.examples.len());
    let mut tally = Tally::default();
    for (row, example) in dataset.examples.iter().enumerate() {
        let Example::Scored { first, second, score } = example else { continue };
        let (one, other) = (words.get(*first), words.get(*second));
        let earlier = firsts.entry((one.min(other), one.max(other))).or_insert((*score, row, false));
        if (earlier.0 - score).abs() > tolerance && !earlier.2 {
            earlier.2 = true;
            let note = format!("{score}, but {} on line {}", earlier.0, dataset.lines[earlier.1]);
            tally.add(|| Place::of(dataset, row, *first, note));
        }
    }
    tally.finding(
        "contradictions",
        Severity::Warning,
        |found| {
            format!(
                "{} under scores that differ by more than a tenth of their range",
                count(found, "pair stands", "pairs stand")
            )
        },
        "The loss cannot satisfy both rows; keep the score you trust, or their mean.",
    )
}

/// One pair of texts, in this order, under several labels.
fn pair_labels(dataset: &Dataset, words: &Words) -> Option<Finding> {
    let mut firsts: HashMap<(u64, u64), (f32, usize, bool)> = HashMap::with_capacity(dataset.examples.len());
    let mut tally = Tally::default();
    for (row, example) in dataset.examples.iter().enumerate() {
        let Example::Scored { first, second, score } = example else { continue };
        let earlier = firsts.entry((words.get(*first), words.get(*second))).or_insert((*score, row, false));
        if earlier.0 != *score && !earlier.2 {
            earlier.2 = true;
            let name = |label: f32| &dataset.label_names[label as usize];
            let note = format!("`{}`, but `{}` on line {}", name(*score), name(earlier.0), dataset.lines[earlier.1]);
            tally.add(|| Place::of(dataset, row, *first, note));
        }
    }
    tally.finding(
        "contradictions",
        Severity::Warning,
        |found| format!("{} under more than one label", count(found, "pair stands", "pairs stand")),
        "The classifier cannot satisfy both rows; keep the label you trust.",
    )
}

/// Negatives that other rows connect with the anchor, or that have its or its positive's words.
fn negatives(dataset: &Dataset, words: &Words) -> Option<Finding> {
    let graph = LabelGraph::from_dataset(dataset);
    let mut tally = Tally::default();
    for (row, example) in dataset.examples.iter().enumerate() {
        let Example::Triplet { anchor, positive, negatives, .. } = example else { continue };
        let known = negatives.iter().find(|negative| {
            graph.label(**negative) == graph.label(*anchor)
                || [anchor, positive].iter().any(|text| words.get(**text) == words.get(**negative))
        });
        if let Some(negative) = known {
            tally.add(|| Place::of(dataset, row, *negative, "known to match the anchor"));
        }
    }
    tally.finding(
        "contradictions",
        Severity::Warning,
        |found| {
            format!("{} a negative that the data itself says matches the anchor", count(found, "row has", "rows have"))
        },
        "One row pushes apart what another pulls together; remove these negatives.",
    )
}
