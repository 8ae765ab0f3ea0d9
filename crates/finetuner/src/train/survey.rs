//! Data as somebody who brings it wants to see it: what it was taken for, its first rows, what could be done with it.

use serde::Serialize;
use whatlang::Lang;

use super::check::{Check, check};
use super::inspection;
use super::page::Cell;
use super::suggest::{Known, Suggestion, suggest};
use crate::data::lint::sample;
use crate::data::{Dataset, Example, ItemId, Kind, Modality, inspect};
use crate::error::Result;
use crate::pixels::Sources;
use crate::spec::RunSpec;

/// Texts whose language is judged.
const JUDGED: usize = 300;

/// Letters that a judged text has at least, and that are looked at.
const LETTERS: (usize, usize) = (20, 400);

/// What the training data of a spec is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Survey {
    /// The kind of its rows.
    pub kind: Kind,
    /// One sentence on what was read and how it was understood.
    pub description: String,
    /// Rows.
    pub rows: usize,
    /// Distinct texts.
    pub texts: usize,
    /// Distinct pictures.
    pub pictures: usize,
    /// Classes, where rows have labels.
    pub classes: usize,
    /// What the cells of a row are, as in `anchor` and `positive`.
    pub columns: Vec<String>,
    /// The first rows.
    pub first: Vec<Row>,
    /// What was found in it, and in the data that it is measured with.
    #[serde(flatten)]
    pub check: Check,
    /// What could be done with it.
    pub suggestion: Suggestion,
}

/// A row to look at.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Its line, counted from 1; of Parquet files the row, of pictures in folders the number.
    pub line: u64,
    /// What stands in it, a cell a column. Rows may have fewer negatives than there are columns for them.
    pub cells: Vec<Cell>,
}

/// Looks over the data of a spec as [`check()`] does, and shows the first `rows` rows of what is learnt from.
///
/// # Errors
/// As [`check()`].
pub fn survey(spec: &RunSpec, rows: usize) -> Result<Survey> {
    let kind = spec.kind.as_deref().map(str::parse::<Kind>).transpose()?;
    let train = inspect(&spec.train_data, kind)?;
    let sources = inspection::sources(spec)?;
    let known = Known {
        kind: train.kind,
        rows: train.examples.len(),
        modalities: [Modality::Text, Modality::Image].map(|modality| train.items.has(modality)),
        english: is_english(&train),
        measured: spec.eval_data.is_some() || spec.query_data.is_some(),
    };
    let suggestion = suggest(known);
    let columns = columns(&train);
    let first = (0..train.examples.len().min(rows)).map(|place| row(&train, place, &sources)).collect();
    // What would be held out is looked at as it will be: leakage into it is a finding.
    let val_split = suggestion.fields.get("val_split").and_then(serde_json::Value::as_f64);
    let spec = RunSpec { val_split: val_split.unwrap_or(spec.val_split), ..spec.clone() };
    Ok(Survey {
        kind: train.kind,
        description: train.decision.clone(),
        rows: train.examples.len(),
        texts: train.items.ids(Modality::Text).count(),
        pictures: train.items.ids(Modality::Image).count(),
        classes: train.classes(),
        columns,
        first,
        check: check(&spec)?,
        suggestion,
    })
}

fn columns(dataset: &Dataset) -> Vec<String> {
    let negatives = dataset.examples.iter().map(|example| match example {
        Example::Triplet { negatives, .. } => negatives.len(),
        _ => 0,
    });
    let negatives = (1..=negatives.max().unwrap_or(0)).map(|number| format!("negative {number}"));
    let fixed: &[&str] = match dataset.kind {
        Kind::Pairs | Kind::Triplets | Kind::ScoredTriplets => &["anchor", "positive"],
        Kind::Labelled => &["item", "label"],
        Kind::Scored => &["first", "second", "score"],
        Kind::LabelledPairs => &["first", "second", "label"],
        Kind::Single => &["item"],
    };
    fixed.iter().map(|name| (*name).to_owned()).chain(negatives).collect()
}

fn row(dataset: &Dataset, place: usize, sources: &Sources) -> Row {
    let item = |id: ItemId| Cell::new((dataset.items.modality(id), dataset.items.get(id)), Some(sources));
    let class = |label: usize| Cell::Text(dataset.label_names.get(label).cloned().unwrap_or_default());
    let example = &dataset.examples[place];
    let mut cells: Vec<Cell> = example.items().map(item).collect();
    match example {
        Example::Labelled { label, .. } => cells.push(class(*label as usize)),
        Example::Scored { score, .. } if dataset.kind == Kind::LabelledPairs => cells.push(class(*score as usize)),
        Example::Scored { score, .. } => cells.push(Cell::Text(score.to_string())),
        _ => {}
    }
    Row { line: dataset.lines[place], cells }
}

/// Whether most of the texts that are long enough to say are English.
fn is_english(dataset: &Dataset) -> bool {
    let (fewest, most) = LETTERS;
    let texts = sample(dataset, JUDGED).into_iter().map(|id| dataset.items.get(id));
    let texts = texts.filter(|text| text.chars().filter(|letter| letter.is_alphabetic()).count() >= fewest);
    let texts = texts.map(|text| text.char_indices().nth(most).map_or(text, |(end, _)| &text[..end]));
    let languages: Vec<Lang> =
        texts.filter_map(|text| Some(whatlang::detect(text).filter(whatlang::Info::is_reliable)?.lang())).collect();
    let english = languages.iter().filter(|language| **language == Lang::Eng).count();
    english * 2 >= languages.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, text: &str) -> Survey {
        let folder = tempfile::tempdir().unwrap();
        let train_data = folder.path().join(name);
        std::fs::write(&train_data, text).unwrap();
        survey(&RunSpec { train_data, ..RunSpec::default() }, 2).unwrap()
    }

    #[test]
    fn rows_are_shown_as_they_were_understood() {
        let own = of("train.csv", "text,label\nred apple,fruit\ngreen pear,fruit\nold oak,tree\nold oak,tree\n");
        assert_eq!((own.kind, own.rows, own.texts, own.classes), (Kind::Labelled, 4, 3, 2));
        assert_eq!((own.columns, own.first.len(), own.first[0].line), (vec!["item".into(), "label".into()], 2, 2));
        assert_eq!(own.first[0].cells, [Cell::Text("red apple".into()), Cell::Text("fruit".into())]);
        let duplicates = own.check.findings.iter().find(|finding| finding.rule == "duplicates").unwrap();
        assert_eq!((duplicates.count, duplicates.examples[0].line), (1, 5));
        assert_eq!(own.suggestion.goals[0].name, "group");

        let own = of("train.csv", "anchor,positive,negative\na,b,c\n");
        assert_eq!((own.kind, own.columns.join(" ")), (Kind::Triplets, "anchor positive negative 1".to_owned()));
        let own = of("train.csv", "sentence1,sentence2,score\na,b,0.5\n");
        assert_eq!(own.first[0].cells[2], Cell::Text("0.5".into()));
    }

    #[test]
    fn texts_in_other_languages_begin_with_a_model_of_many_languages() {
        let german = "Wie kann ich meine verlorene Karte sperren lassen und eine neue bestellen?,karte\n\
                      Warum wurde mir für die Überweisung eine Gebühr berechnet?,konto\n\
                      Meine neue Karte ist noch nicht mit der Post angekommen.,karte\n";
        assert_eq!(
            of("train.csv", &format!("text,label\n{german}")).suggestion.models[0].name,
            "multilingual-e5-small"
        );
    }
}
