//! Rows that say nothing.

use super::{Dataset, Finding, Place, SHOWN, Severity, Tally, count, first_rows};
use crate::data::{ItemId, Modality};

/// Rows without a text or a label.
pub(super) fn rows(dataset: &Dataset) -> Option<Finding> {
    let found = dataset.empty.len();
    let examples = dataset.empty.iter().take(SHOWN).map(|row| Place {
        path: dataset.path.display().to_string(),
        line: row.line,
        text: String::new(),
        note: row.problem.clone(),
    });
    (found > 0).then(|| Finding {
        examples: examples.collect(),
        ..Finding::new(
            "empty",
            Severity::Error,
            found,
            format!("{} an empty text or label", count(found, "row has", "rows have")),
            "A run refuses such a file; remove or complete these rows.",
        )
    })
}

/// Texts without a letter or a digit.
pub(super) fn wordless(dataset: &Dataset) -> Option<Finding> {
    let without = |id: &ItemId| !dataset.items.get(*id).chars().any(char::is_alphanumeric);
    let found: Vec<ItemId> = dataset.items.ids(Modality::Text).filter(without).collect();
    let mut tally = Tally::default();
    for (row, text) in first_rows(dataset, &found[..found.len().min(SHOWN)]).into_iter().zip(&found) {
        tally.add(|| Place::of(dataset, row, *text, ""));
    }
    tally.count = found.len();
    tally.finding(
        "wordless",
        Severity::Warning,
        |found| format!("{} no letter and no digit", count(found, "text has", "texts have")),
        "Such a text means nothing to the model, yet is learnt like the others; remove its rows.",
    )
}
