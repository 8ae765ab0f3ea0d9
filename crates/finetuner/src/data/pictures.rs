//! What is known of pictures before they are used, and the rows whose pictures cannot be.

use std::collections::{HashMap, HashSet};

use super::{Dataset, ItemId, Modality};
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

/// What is known of pictures, by their addresses.
#[derive(Debug, Clone, Default)]
pub struct Pictures(HashMap<String, PictureFact>);

impl Extend<(String, PictureFact)> for Pictures {
    fn extend<T: IntoIterator<Item = (String, PictureFact)>>(&mut self, facts: T) {
        self.0.extend(facts);
    }
}

impl Pictures {
    /// What is known of the picture at an address.
    pub fn at(&self, address: &str) -> Option<&PictureFact> {
        self.0.get(address)
    }

    /// What is known of an item; nothing of texts.
    pub fn get(&self, dataset: &Dataset, item: ItemId) -> Option<&PictureFact> {
        let picture = dataset.items.modality(item) == Modality::Image;
        picture.then(|| self.at(dataset.items.get(item))).flatten()
    }

    /// Every picture of a data set once, with the first row that holds it.
    pub fn first_rows<'a>(&'a self, dataset: &Dataset) -> Vec<(usize, ItemId, &'a PictureFact)> {
        let mut seen = HashSet::new();
        let rows = dataset.examples.iter().enumerate();
        let rows = rows.flat_map(|(row, example)| example.items().map(move |item| (row, item)));
        rows.filter(|(_, item)| seen.insert(*item))
            .filter_map(|(row, item)| Some((row, item, self.get(dataset, item)?)))
            .collect()
    }

    /// Those of a data set that cannot be used: the first row of each, the picture, and why.
    pub fn broken<'a>(&'a self, dataset: &Dataset) -> Vec<(usize, ItemId, &'a str)> {
        let all = self.first_rows(dataset).into_iter();
        all.filter_map(|(row, item, fact)| Some((row, item, fact.problem.as_deref()?))).collect()
    }

    /// The first row with a picture that cannot be used, as the error that ends a run.
    pub fn first_error(&self, dataset: &Dataset) -> Option<Error> {
        let broken = self.broken(dataset);
        let &(row, item, problem) = broken.first()?;
        let more = match broken.len() {
            1 => String::new(),
            2 => "; another picture cannot be used either".to_owned(),
            count => format!("; {} more pictures cannot be used either", count - 1),
        };
        let problem = format!(
            "picture `{}`: {problem}{more}; repair or remove what is broken, or leave it out (`--skip-bad`)",
            dataset.items.get(item)
        );
        Some(Error::data(&dataset.path, dataset.lines[row], problem))
    }

    /// The data set without the rows whose pictures cannot be used.
    pub fn without_broken(&self, dataset: &Dataset) -> Dataset {
        let usable = |item: ItemId| self.get(dataset, item).is_none_or(|fact| fact.problem.is_none());
        let rows = (0u32..).zip(&dataset.examples);
        let places: Vec<u32> = rows.filter(|(_, example)| example.items().all(usable)).map(|(row, _)| row).collect();
        dataset.select(&places)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{csv, lint};
    use super::*;

    fn facts<const N: usize>(facts: [(&str, PictureFact); N]) -> Pictures {
        let mut pictures = Pictures::default();
        pictures.extend(facts.map(|(name, fact)| (name.to_owned(), fact)));
        pictures
    }

    fn fact(hash: u64) -> PictureFact {
        PictureFact { size: (100, 100), hash: Some(hash), ..PictureFact::default() }
    }

    #[test]
    fn a_broken_picture_is_told_with_its_line_or_left_out_and_counted() {
        let data = csv::read(
            Path::new("d/p.csv"),
            "image,label\na.jpg,x\nb.jpg,x\nc.jpg,y\nd.jpg,y\n",
            None,
            &Default::default(),
        )
        .unwrap();
        let broken = PictureFact { problem: Some("there is no such file".into()), ..PictureFact::default() };
        let pictures = facts([("d/a.jpg", fact(1)), ("d/b.jpg", broken), ("d/c.jpg", fact(2))]);
        let error = pictures.first_error(&data).unwrap().to_string();
        let expected = "d/p.csv:3: picture `d/b.jpg`: there is no such file; repair or remove what is broken, or leave it out \
                        (`--skip-bad`)";
        assert_eq!(error, expected);
        assert_eq!(pictures.broken(&data).iter().map(|(row, ..)| *row).collect::<Vec<_>>(), [1]);
        let rest = pictures.without_broken(&data);
        assert_eq!(rest.lines, [2, 4, 5]);
        assert!(pictures.first_error(&rest).is_none());
    }

    #[test]
    fn lint_finds_copies_leaks_broken_and_tiny_pictures() {
        let train = csv::read(
            Path::new("t.csv"),
            "image,label\na.jpg,x\nb.jpg,x\nc.jpg,y\nd.jpg,y\n",
            None,
            &Default::default(),
        )
        .unwrap();
        let broken = PictureFact { problem: Some("damaged".into()), ..PictureFact::default() };
        let tiny = PictureFact { size: (8, 100), animated: true, hash: Some(3), problem: None };
        let evaluation =
            csv::read(Path::new("e.csv"), "image,label\ne.jpg,x\nf.jpg,y\n", None, &Default::default()).unwrap();
        let mut pictures = facts([("a.jpg", fact(1)), ("b.jpg", fact(1)), ("c.jpg", broken), ("d.jpg", tiny)]);
        pictures.extend([("e.jpg".to_owned(), fact(9)), ("f.jpg".to_owned(), fact(3))]);
        let found = lint::pictures(&pictures, &train, Some(&evaluation));
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
