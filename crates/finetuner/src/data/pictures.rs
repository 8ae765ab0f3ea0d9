//! What is known of a data set's pictures before they are used, and the rows that cannot be.

use std::collections::HashMap;

use super::{Dataset, ItemId};
use crate::error::Error;

/// What is known of a picture.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PictureFact {
    /// Width and height in pixels, as the file says.
    pub size: (u32, u32),
    /// Whether it has several frames; the first is used.
    pub animated: bool,
    /// Of the file's contents, where all of it was read: equal files have equal hashes.
    pub hash: Option<u64>,
    /// Why it cannot be used.
    pub problem: Option<String>,
}

/// What is known of the pictures of a data set.
#[derive(Debug, Clone, Default)]
pub struct Pictures(HashMap<ItemId, PictureFact>);

impl Pictures {
    /// Of these pictures.
    pub fn new(facts: Vec<(ItemId, PictureFact)>) -> Self {
        Pictures(facts.into_iter().collect())
    }

    /// What is known of a picture; `None` of texts.
    pub fn get(&self, id: ItemId) -> Option<&PictureFact> {
        self.0.get(&id)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that cannot be used, and why.
    pub fn broken(&self) -> impl Iterator<Item = (ItemId, &str)> {
        self.0.iter().filter_map(|(id, fact)| Some((*id, fact.problem.as_deref()?)))
    }

    /// Those with several frames.
    pub fn animated(&self) -> usize {
        self.0.values().filter(|fact| fact.animated).count()
    }

    /// The first row with a picture that cannot be used, as the error that ends a run.
    pub fn first_error(&self, dataset: &Dataset) -> Option<Error> {
        let broken = |item: ItemId| Some((item, self.get(item)?.problem.as_deref()?));
        let (row, (item, problem)) = dataset
            .examples
            .iter()
            .enumerate()
            .find_map(|(row, example)| Some((row, example.items().find_map(broken)?)))?;
        let count = self.broken().count();
        let more = match count {
            1 => String::new(),
            _ => format!("; {} more pictures cannot be used either", count - 1),
        };
        let problem = format!(
            "picture `{}`: {problem}{more}; repair or remove what is broken, or leave it out (`--skip-bad`)",
            dataset.items.get(item)
        );
        Some(Error::data(&dataset.path, dataset.lines[row], problem))
    }

    /// The data set without the rows whose pictures cannot be used, and how many these are.
    pub fn without_broken(&self, dataset: &Dataset) -> (Dataset, usize) {
        let usable = |item: ItemId| self.get(item).is_none_or(|fact| fact.problem.is_none());
        let rows = (0u32..).zip(&dataset.examples);
        let places: Vec<u32> = rows.filter(|(_, example)| example.items().all(usable)).map(|(row, _)| row).collect();
        let left_out = dataset.examples.len() - places.len();
        (dataset.select(&places), left_out)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{csv, lint};
    use super::*;

    fn facts(dataset: &Dataset, facts: &[(&str, PictureFact)]) -> Pictures {
        let id = |name: &str| dataset.items.find_as(super::super::Modality::Image, name).unwrap();
        Pictures::new(facts.iter().map(|(name, fact)| (id(name), fact.clone())).collect())
    }

    fn fact(hash: u64) -> PictureFact {
        PictureFact { size: (100, 100), hash: Some(hash), ..PictureFact::default() }
    }

    #[test]
    fn a_broken_picture_is_told_with_its_line_or_left_out_and_counted() {
        let data = csv::read(Path::new("d/p.csv"), "image,label\na.jpg,x\nb.jpg,x\nc.jpg,y\nd.jpg,y\n", None).unwrap();
        let broken = PictureFact { problem: Some("there is no such file".into()), ..PictureFact::default() };
        let pictures = facts(&data, &[("d/a.jpg", fact(1)), ("d/b.jpg", broken), ("d/c.jpg", fact(2))]);
        let error = pictures.first_error(&data).unwrap().to_string();
        let expected = "d/p.csv:3: picture `d/b.jpg`: there is no such file; repair or remove what is broken, or leave it out \
                        (`--skip-bad`)";
        assert_eq!(error, expected);
        let (rest, left_out) = pictures.without_broken(&data);
        assert_eq!((rest.examples.len(), left_out), (3, 1));
        assert!(pictures.first_error(&rest).is_none() || rest.lines == [2, 4, 5]);
    }

    #[test]
    fn lint_finds_copies_leaks_broken_and_tiny_pictures() {
        let train = csv::read(Path::new("t.csv"), "image,label\na.jpg,x\nb.jpg,x\nc.jpg,y\nd.jpg,y\n", None).unwrap();
        let broken = PictureFact { problem: Some("damaged".into()), ..PictureFact::default() };
        let tiny = PictureFact { size: (8, 100), animated: true, hash: Some(3), problem: None };
        let train_facts = facts(&train, &[("a.jpg", fact(1)), ("b.jpg", fact(1)), ("c.jpg", broken), ("d.jpg", tiny)]);
        let evaluation = csv::read(Path::new("e.csv"), "image,label\ne.jpg,x\nf.jpg,y\n", None).unwrap();
        let evaluation_facts = facts(&evaluation, &[("e.jpg", fact(9)), ("f.jpg", fact(3))]);
        let found = lint::pictures((&train, &train_facts), Some((&evaluation, &evaluation_facts)));
        let rules: Vec<(&str, usize, u64)> =
            found.iter().map(|finding| (finding.rule.as_str(), finding.count, finding.examples[0].line)).collect();
        let expected = [
            ("broken_pictures", 1, 4),
            ("picture_leakage", 1, 3),
            ("equal_pictures", 1, 3),
            ("small_pictures", 1, 5),
            ("animated_pictures", 1, 5),
        ];
        assert_eq!(rules, expected);
        assert_eq!(found[1].examples[0].note, "the same as `d.jpg`, t.csv:5");
    }
}
