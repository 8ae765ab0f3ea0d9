//! Classes that teach little, and classes that are one.

use std::collections::HashMap;

use super::normal::normal;
use super::{Dataset, Example, Finding, Place, Severity, Tally, Words, count};

/// Classes with one text.
pub(super) fn single_items(dataset: &Dataset, words: &Words) -> Option<Finding> {
    // The first row of each class, and whether a second text followed.
    let mut classes: Vec<Option<(usize, u64, bool)>> = vec![None; dataset.label_names.len()];
    for (row, example) in dataset.examples.iter().enumerate() {
        let Example::Labelled { item, label } = example else { continue };
        let text = words.get(*item);
        match &mut classes[*label as usize] {
            Some((_, first, several)) => *several |= *first != text,
            class => *class = Some((row, text, false)),
        }
    }
    let mut tally = Tally::default();
    for (row, ..) in classes.into_iter().flatten().filter(|(.., several)| !several) {
        if let Example::Labelled { item, label } = &dataset.examples[row] {
            tally
                .add(|| Place::of(dataset, row, *item, format!("alone in `{}`", dataset.label_names[*label as usize])));
        }
    }
    let all = dataset.label_names.len();
    tally.finding(
        "single_item_classes",
        Severity::Warning,
        |found| format!("{} one text only, of {all}", count(found, "class has", "classes have")),
        "Such a text has no match to be drawn to and serves as a negative only; add texts, or merge or drop the class.",
    )
}

/// Labels with the same words.
pub(super) fn similar_labels(dataset: &Dataset) -> Option<Finding> {
    let mut rows: Vec<Option<usize>> = vec![None; dataset.label_names.len()];
    for (row, example) in dataset.examples.iter().enumerate() {
        if let Example::Labelled { label, .. } = example {
            rows[*label as usize].get_or_insert(row);
        }
    }
    let mut known: HashMap<String, &str> = HashMap::new();
    let mut tally = Tally::default();
    for (name, row) in dataset.label_names.iter().zip(rows) {
        let first = *known.entry(normal(name)).or_insert(name);
        if let (true, Some(row)) = (first != name, row)
            && let Example::Labelled { item, .. } = &dataset.examples[row]
        {
            tally.add(|| Place::of(dataset, row, *item, format!("`{name}`, elsewhere `{first}`")));
        }
    }
    tally.finding(
        "similar_labels",
        Severity::Warning,
        |found| {
            format!(
                "{} from another only in case, punctuation or spaces",
                count(found, "label differs", "labels differ")
            )
        },
        "They are different classes to the run, so items of one are negatives of the other; write them alike.",
    )
}
