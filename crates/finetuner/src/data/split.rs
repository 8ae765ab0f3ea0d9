//! Holding out a share of the examples for validation.

use super::random::Random;
use super::{Dataset, Example, ItemId, LabelGraph};
use crate::error::{Error, Result};

/// Splits a data set into (training, held out); the held-out part is about `share` of the examples, at least
/// one unless the share is 0.
///
/// Pairs, triplets and scored pairs are held out in connected groups, so no text of the one part is known to match (or
/// has a score with) a text of the other. Labelled examples are held out evenly over the classes, single ones as they
/// come. The same seed gives the same split; both parts keep the order of the file.
///
/// # Errors
/// [`Error::Spec`] for `val_split`: the share is not in 0..1, or one part would be empty.
pub fn hold_out(dataset: &Dataset, share: f64, seed: u64) -> Result<(Dataset, Dataset)> {
    if !(0.0..1.0).contains(&share) {
        return Err(Error::spec("val_split", format!("expected a share of at least 0 and below 1, got {share}")));
    }
    let everything = dataset.examples.len();
    let wanted = (share * everything as f64).round() as usize;
    let wanted = wanted.max(usize::from(share > 0.0));
    let mut groups = groups(dataset);
    let mut random = Random::new(seed, u64::MAX); // epochs count from 0, so no epoch has this stream
    random.shuffle(&mut groups);

    let mut held = vec![false; everything];
    let mut count = 0;
    if dataset.examples.iter().any(|example| matches!(example, Example::Labelled { .. })) {
        // Class after class, each item at an even distance: every class gives its share, rounded together.
        groups.sort_by_key(|group| match dataset.examples[group[0] as usize] {
            Example::Labelled { label, .. } => label,
            _ => 0,
        });
        for (place, group) in groups.iter().enumerate() {
            if (place + 1) * wanted / everything > place * wanted / everything {
                held[group[0] as usize] = true;
                count += 1;
            }
        }
    } else {
        for group in groups {
            if count + group.len() <= wanted {
                count += group.len();
                group.iter().for_each(|example| held[*example as usize] = true);
            }
        }
    }
    if share > 0.0 && (count == 0 || count == everything) {
        let problem = format!(
            "cannot hold out {share} of {everything} examples: all or too many of them are connected through equal \
             texts; give `eval_data` instead"
        );
        return Err(Error::spec("val_split", problem));
    }
    let part = |which: bool| -> Vec<u32> { (0..everything as u32).filter(|at| held[*at as usize] == which).collect() };
    Ok((dataset.select(&part(false)), dataset.select(&part(true))))
}

/// Places of examples that must stay together.
fn groups(dataset: &Dataset) -> Vec<Vec<u32>> {
    let texts_of = |example: &Example| -> Option<(ItemId, ItemId)> {
        match example {
            Example::Pair { anchor, positive } | Example::Triplet { anchor, positive, .. } => {
                Some((*anchor, *positive))
            }
            Example::Scored { first, second, .. } => Some((*first, *second)),
            Example::Labelled { .. } | Example::Single { .. } => None,
        }
    };
    let graph = LabelGraph::from_matches(dataset.items.len(), dataset.examples.iter().filter_map(texts_of));
    let mut connected: Vec<Vec<u32>> = vec![Vec::new(); graph.count()];
    let mut groups = Vec::new();
    for (place, example) in (0..).zip(&dataset.examples) {
        match texts_of(example) {
            Some((first, _)) => connected[graph.label(first) as usize].push(place),
            None => groups.push(vec![place]),
        }
    }
    groups.extend(connected.into_iter().filter(|group| !group.is_empty()));
    groups
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};
    use std::path::Path;

    use super::super::csv;
    use super::*;

    fn data(rows: &str) -> Dataset {
        csv::read(Path::new("rows.csv"), rows, None, &Default::default()).unwrap()
    }

    fn texts(dataset: &Dataset) -> HashSet<&str> {
        (0..dataset.items.len() as u32).map(|id| dataset.items.get(ItemId(id))).collect()
    }

    #[test]
    fn connected_pairs_are_never_split() {
        // 100 groups of one to three pairs around a shared document.
        let rows: String =
            (0..100).flat_map(|group| (0..=group % 3).map(move |row| format!("q{group}-{row},d{group}\n"))).collect();
        let dataset = data(&rows);
        for seed in 0..20 {
            let (train, held) = hold_out(&dataset, 0.2, seed).unwrap();
            assert_eq!(train.examples.len() + held.examples.len(), dataset.examples.len());
            let wanted = 0.2 * dataset.examples.len() as f64;
            assert!((held.examples.len() as f64 - wanted).abs() <= 1.0, "{} of {wanted}", held.examples.len());
            assert!(texts(&train).is_disjoint(&texts(&held)), "seed {seed}");
        }
    }

    #[test]
    fn a_split_is_decided_by_the_seed() {
        let dataset = data(&(0..50).map(|row| format!("q{row},d{row}\n")).collect::<String>());
        let held = |seed| hold_out(&dataset, 0.3, seed).unwrap().1.examples.len();
        let texts_of = |seed| {
            let (_, held) = hold_out(&dataset, 0.3, seed).unwrap();
            let mut texts: Vec<String> = texts(&held).into_iter().map(str::to_owned).collect();
            texts.sort();
            texts
        };
        assert_eq!(held(1), 15);
        assert_eq!(texts_of(1), texts_of(1));
        assert_ne!(texts_of(1), texts_of(2));
    }

    #[test]
    fn every_class_gives_its_share() {
        let rows: String = (0..300).map(|row| format!("text {row},class {}\n", row % 3)).collect();
        let dataset = data(&format!("text,label\n{rows}"));
        let (train, held) = hold_out(&dataset, 0.1, 0).unwrap();
        assert_eq!((train.examples.len(), held.examples.len()), (270, 30));
        assert_eq!(train.label_names, held.label_names);
        let mut per_class: HashMap<u32, usize> = HashMap::new();
        for example in &held.examples {
            let Example::Labelled { label, .. } = example else { panic!("{example:?}") };
            *per_class.entry(*label).or_default() += 1;
        }
        assert!(per_class.len() == 3 && per_class.values().all(|count| *count == 10), "{per_class:?}");
    }

    #[test]
    fn ids_follow_their_examples() {
        let rows: String = (0..20).map(|row| format!("p{row},q{row},d{row}\n")).collect();
        let (train, held) = hold_out(&data(&format!("id,anchor,positive\n{rows}")), 0.25, 0).unwrap();
        for part in [train, held] {
            for (id, example) in part.ids.iter().zip(&part.examples) {
                let Example::Pair { anchor, .. } = example else { panic!("{example:?}") };
                assert_eq!(id[1..], part.items.get(*anchor)[1..]);
            }
        }
    }

    #[test]
    fn what_cannot_be_held_out_is_an_error() {
        let connected = data("a,b\na,c\na,d\na,e\n");
        let error = hold_out(&connected, 0.25, 0).unwrap_err().to_string();
        assert!(error.contains("`val_split`: cannot hold out 0.25 of 4 examples"), "{error}");
        for share in [-0.1, 1.0, f64::NAN] {
            assert!(hold_out(&connected, share, 0).is_err(), "{share}");
        }
        let (train, held) = hold_out(&connected, 0.0, 0).unwrap();
        assert_eq!((train.examples.len(), held.examples.len()), (4, 0));
    }
}
