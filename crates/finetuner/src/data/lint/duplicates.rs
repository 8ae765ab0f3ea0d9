//! Rows that occur again, and pairs that say nothing.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::{Dataset, Example, Finding, ItemId, Place, Severity, Tally, Words, count, leading_text};

/// What a row says: its texts as `of` sees them, with label or score. The two texts of a score have no order.
fn key(example: &Example, of: impl Fn(ItemId) -> u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    match example {
        Example::Pair { anchor, positive } => (of(*anchor), of(*positive)).hash(&mut hasher),
        Example::Triplet { anchor, positive, negatives, .. } => {
            (of(*anchor), of(*positive)).hash(&mut hasher);
            negatives.iter().for_each(|negative| of(*negative).hash(&mut hasher));
        }
        Example::Labelled { item, label } => (of(*item), label).hash(&mut hasher),
        Example::Scored { first, second, score } => {
            let (first, second) = (of(*first), of(*second));
            (first.min(second), first.max(second), score.to_bits()).hash(&mut hasher);
        }
        Example::Single { item } => of(*item).hash(&mut hasher),
    }
    hasher.finish()
}

/// Rows equal to an earlier one, letter by letter, and rows equal to one in their words.
pub(super) fn find(dataset: &Dataset, words: &Words) -> impl Iterator<Item = Finding> {
    let (mut equal, mut near) = (Tally::default(), Tally::default());
    let rows = dataset.examples.len();
    let mut exact: HashMap<u64, u32> = HashMap::with_capacity(rows);
    let mut alike: HashMap<u64, u32> = HashMap::with_capacity(rows);
    for (row, example) in dataset.examples.iter().enumerate() {
        let place = |earlier: u32| {
            let note = format!("first on line {}", dataset.lines[earlier as usize]);
            move || Place::of(dataset, row, leading_text(example), note)
        };
        match exact.entry(key(example, |text| u64::from(text.0))) {
            Entry::Occupied(earlier) => equal.add(place(*earlier.get())),
            Entry::Vacant(free) => {
                free.insert(row as u32);
                match alike.entry(key(example, |text| words.get(text))) {
                    Entry::Occupied(earlier) => near.add(place(*earlier.get())),
                    Entry::Vacant(free) => drop(free.insert(row as u32)),
                }
            }
        }
    }
    let equal = equal.finding(
        "duplicates",
        Severity::Note,
        |found| format!("{} an earlier one, of {rows}", count(found, "row repeats", "rows repeat")),
        "Repeated rows count twice in training, and in a held-out share they make results look surer than they are.",
    );
    let near = near.finding(
        "near_duplicates",
        Severity::Note,
        |found| {
            format!(
                "{} an earlier one but for case and punctuation, of {rows}",
                count(found, "row repeats", "rows repeat")
            )
        },
        "They count like repeated rows, but are not recognised as such when data is split or negatives are drawn.",
    );
    equal.into_iter().chain(near)
}

/// Pairs whose two texts have the same words.
pub(super) fn identical_pairs(dataset: &Dataset, words: &Words) -> Option<Finding> {
    let mut tally = Tally::default();
    for (row, example) in dataset.examples.iter().enumerate() {
        if let Example::Pair { anchor, positive } | Example::Triplet { anchor, positive, .. } = example
            && words.get(*anchor) == words.get(*positive)
        {
            tally.add(|| Place::of(dataset, row, *anchor, ""));
        }
    }
    tally.finding(
        "identical_pairs",
        Severity::Note,
        |found| format!("{} the same words on both sides", count(found, "pair has", "pairs have")),
        "The model finds such a positive without learning anything; the row serves as a source of negatives only.",
    )
}
