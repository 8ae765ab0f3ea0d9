//! Which languages the texts are in.

use std::collections::BTreeMap;

use serde_json::json;
use whatlang::Lang;

use super::{Dataset, Finding, ItemId, Place, SHOWN, Severity, first_rows, sample};

/// Items looked at.
const SAMPLE: usize = 1000;

/// Shorter texts are not judged: three words of a name are no language.
const FEWEST_LETTERS: usize = 20;

/// Letters looked at of a text: more make the judge slower, not surer.
const MOST_LETTERS: usize = 400;

/// Below this share of the judged texts a language counts as a mistake of the judge.
const SMALLEST_SHARE: f64 = 0.02;

/// A note where there are two languages or more, by letter trigrams (the `whatlang` crate). That a language is there needs
/// answers it is sure of; shares count its guesses at these languages too, which it is less often sure of in some.
pub(super) fn find(dataset: &Dataset) -> Option<Finding> {
    let mut languages: BTreeMap<&'static str, (Vec<ItemId>, usize)> = BTreeMap::new();
    let mut all_sure = 0;
    for id in sample(dataset, SAMPLE) {
        let text = dataset.items.get(id);
        let text = text.char_indices().nth(MOST_LETTERS).map_or(text, |(end, _)| &text[..end]);
        if text.chars().filter(|letter| letter.is_alphabetic()).count() < FEWEST_LETTERS {
            continue;
        }
        if let Some(info) = whatlang::detect(text) {
            let (sure, guessed) = languages.entry(Lang::eng_name(info.lang())).or_default();
            *guessed += 1;
            if info.is_reliable() {
                sure.push(id);
                all_sure += 1;
            }
        }
    }
    let fewest = (SMALLEST_SHARE * f64::from(all_sure)).max(2.0);
    let is_there = |sure: &[ItemId]| sure.len() as f64 >= fewest;
    let mut mix: Vec<(&str, ItemId, usize)> = languages
        .into_iter()
        .filter(|(_, (sure, _))| is_there(sure))
        .map(|(name, (sure, guessed))| (name, sure[0], guessed))
        .collect();
    mix.sort_by_key(|(.., guessed)| std::cmp::Reverse(*guessed));
    if mix.len() < 2 {
        return None;
    }
    let judged: usize = mix.iter().map(|(.., guessed)| guessed).sum();
    let share = |guessed: usize| guessed as f64 / judged as f64;
    let named = mix.iter().map(|(name, _, guessed)| format!("{name} {:.0} %", 100.0 * share(*guessed)));
    let message = format!("texts of {} languages: {}", mix.len(), named.collect::<Vec<_>>().join(", "));
    let details: serde_json::Map<_, _> =
        mix.iter().map(|(name, _, guessed)| ((*name).into(), json!(share(*guessed)))).collect();
    // One text of every language but the first.
    let shown: Vec<(&str, ItemId)> = mix.iter().skip(1).take(SHOWN).map(|(name, text, _)| (*name, *text)).collect();
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
