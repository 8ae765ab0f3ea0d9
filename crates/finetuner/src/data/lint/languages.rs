//! Which languages the texts are in.

use std::collections::BTreeMap;

use serde_json::json;
use whatlang::Lang;

use super::{Dataset, Finding, Place, SHOWN, Severity, TextId, first_rows, sample};

/// Texts looked at.
const SAMPLE: usize = 1000;

/// Shorter texts are not judged: three words of a name are no language.
const FEWEST_LETTERS: usize = 20;

/// Letters looked at of a text: more make the judge slower, not surer.
const MOST_LETTERS: usize = 400;

/// Below this share of the judged texts a language counts as a mistake of the judge.
const SMALLEST_SHARE: f64 = 0.02;

/// A note where there are two languages or more, by letter trigrams (the `whatlang` crate; only its sure answers).
pub(super) fn find(dataset: &Dataset) -> Option<Finding> {
    let mut languages: BTreeMap<&'static str, Vec<TextId>> = BTreeMap::new();
    let mut judged = 0;
    for id in sample(dataset, SAMPLE) {
        let text = dataset.texts.get(id);
        let text = text.char_indices().nth(MOST_LETTERS).map_or(text, |(end, _)| &text[..end]);
        if text.chars().filter(|letter| letter.is_alphabetic()).count() < FEWEST_LETTERS {
            continue;
        }
        if let Some(info) = whatlang::detect(text).filter(whatlang::Info::is_reliable) {
            languages.entry(Lang::eng_name(info.lang())).or_default().push(id);
            judged += 1;
        }
    }
    let fewest = (SMALLEST_SHARE * f64::from(judged)).max(2.0);
    let mut mix: Vec<(&str, Vec<TextId>)> =
        languages.into_iter().filter(|(_, texts)| texts.len() as f64 >= fewest).collect();
    mix.sort_by_key(|(_, texts)| std::cmp::Reverse(texts.len()));
    if mix.len() < 2 {
        return None;
    }
    let share = |texts: &[TextId]| texts.len() as f64 / f64::from(judged);
    let named = mix.iter().map(|(name, texts)| format!("{name} {:.0} %", 100.0 * share(texts)));
    let message = format!("texts of {} languages: {}", mix.len(), named.collect::<Vec<_>>().join(", "));
    let details: serde_json::Map<_, _> =
        mix.iter().map(|(name, texts)| ((*name).into(), json!(share(texts)))).collect();
    // One text of every language but the first.
    let shown: Vec<(&str, TextId)> = mix.iter().skip(1).take(SHOWN).map(|(name, texts)| (*name, texts[0])).collect();
    let rows = first_rows(dataset, &shown.iter().map(|(_, text)| *text).collect::<Vec<_>>());
    let places = rows.into_iter().zip(&shown).map(|(row, (name, text))| Place::of(dataset, row, *text, *name));
    Some(Finding {
        examples: places.collect(),
        details: Some(details.into()),
        ..Finding::new(
            "languages",
            Severity::Note,
            mix.len(),
            message,
            "A model made for one language reads the others badly; take a multilingual one, or sort the texts out.",
        )
    })
}
