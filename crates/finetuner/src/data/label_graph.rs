//! Which texts are known to match: the connected parts of "belongs with".

use super::{Dataset, Example, ItemId};

/// A label for every text of a data set; texts of one label are known to match, directly or through others.
///
/// Rows are joined before any label is given (union-find), so the order of rows does not matter and nothing known to
/// match is ever used as a negative. The original gave labels row by row: `A,B`; `C,B` put B under two labels, which
/// made B its own negative.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelGraph {
    labels: Vec<u32>,
    count: usize,
}

impl LabelGraph {
    /// Joins the anchor and positive of pairs and triplets, and the texts of one class. A text that stands in two
    /// classes joins them. Scored pairs and single texts join nothing.
    pub fn from_dataset(dataset: &Dataset) -> LabelGraph {
        let mut class_texts: Vec<Option<ItemId>> = vec![None; dataset.label_names.len()];
        let matches = dataset.examples.iter().filter_map(|example| match example {
            Example::Pair { anchor, positive } | Example::Triplet { anchor, positive, .. } => {
                Some((*anchor, *positive))
            }
            Example::Labelled { item, label } => Some((*class_texts[*label as usize].get_or_insert(*item), *item)),
            Example::Scored { .. } | Example::Single { .. } => None,
        });
        LabelGraph::from_matches(dataset.items.len(), matches)
    }

    /// Joins the two texts of each match; `texts` is the number of all texts.
    pub fn from_matches(texts: usize, matches: impl IntoIterator<Item = (ItemId, ItemId)>) -> LabelGraph {
        let mut parents: Vec<u32> = (0..texts as u32).collect();
        for (first, second) in matches {
            let (first, second) = (root(&mut parents, first.0), root(&mut parents, second.0));
            // The smaller id leads, so a part's root is its first text. Path halving alone keeps trees shallow.
            parents[first.max(second) as usize] = first.min(second);
        }
        let mut labels = vec![0; texts];
        let mut count = 0;
        for text in 0..texts {
            let root = root(&mut parents, text as u32) as usize;
            labels[text] = if root == text { count } else { labels[root] };
            count += u32::from(root == text);
        }
        LabelGraph { labels, count: count as usize }
    }

    /// The label of a text, in `0..count`, numbered by first appearance.
    pub fn label(&self, text: ItemId) -> u32 {
        self.labels[text.0 as usize]
    }

    /// The number of labels.
    pub fn count(&self) -> usize {
        self.count
    }
}

fn root(parents: &mut [u32], mut text: u32) -> u32 {
    while parents[text as usize] != text {
        let grandparent = parents[parents[text as usize] as usize];
        parents[text as usize] = grandparent;
        text = grandparent;
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};
    use std::path::Path;

    use super::super::random::Random;
    use super::super::{Kind, csv};
    use super::*;

    fn graph(rows: &str) -> (Dataset, LabelGraph) {
        let dataset = csv::read(Path::new("pairs.csv"), rows, None, &Default::default()).unwrap();
        let graph = LabelGraph::from_dataset(&dataset);
        (dataset, graph)
    }

    fn same(rows: &str, first: &str, second: &str) -> bool {
        let (dataset, graph) = graph(rows);
        let label = |text| graph.label(dataset.items.find(text).unwrap());
        label(first) == label(second)
    }

    /// The original's rule (`finetuner/data.py`): labels of (text, label) as its parser emits them.
    fn original(pairs: &[(&str, &str)]) -> Vec<(String, u32)> {
        let mut labels: HashMap<String, u32> = HashMap::new();
        let mut emitted = Vec::new();
        let mut next = 0;
        for (first, second) in pairs {
            let (first, second) = (first.to_string(), second.to_string());
            match (labels.get(&first).copied(), labels.contains_key(&second)) {
                (Some(_), true) => {}
                (Some(label), false) => {
                    labels.insert(second.clone(), label);
                    emitted.push((second, label));
                }
                (None, _) => {
                    labels.insert(first.clone(), next);
                    labels.insert(second.clone(), next);
                    emitted.extend([(first, next), (second, next)]);
                    next += 1;
                }
            }
        }
        emitted
    }

    #[test]
    fn a_text_that_two_anchors_share_has_one_label() {
        let of_b: HashSet<u32> = original(&[("A", "B"), ("C", "B")])
            .into_iter()
            .filter(|(text, _)| text == "B")
            .map(|(_, label)| label)
            .collect();
        assert_eq!(of_b.len(), 2, "the original makes B its own negative");
        assert!(same("A,B\nC,B\n", "A", "C"));
    }

    #[test]
    fn a_later_row_joins_what_earlier_rows_kept_apart() {
        let labels: HashMap<String, u32> = original(&[("A", "B"), ("C", "D"), ("A", "D")]).into_iter().collect();
        assert_ne!(labels["A"], labels["D"], "the original leaves A and D negatives");
        assert!(same("A,B\nC,D\nA,D\n", "A", "D"));
        assert!(same("A,B\nC,D\nA,D\n", "B", "C"));
    }

    #[test]
    fn a_triplets_negative_is_not_joined() {
        assert!(!same("anchor,positive,negative\nA,B,C\n", "A", "C"));
        assert!(same("anchor,positive,negative\nA,B,C\n", "A", "B"));
    }

    #[test]
    fn a_text_of_two_classes_joins_them() {
        let rows = "text,label\na,x\nb,y\nc,z\na,y\n";
        assert!(same(rows, "a", "b"));
        assert!(!same(rows, "a", "c"));
    }

    #[test]
    fn labels_are_dense_and_follow_first_appearance() {
        let (dataset, graph) = graph("A,B\nC,D\nE,F\nG,C\n");
        let labels: Vec<u32> = (0..dataset.items.len() as u32).map(|text| graph.label(ItemId(text))).collect();
        assert_eq!(labels, [0, 0, 1, 1, 2, 2, 1]);
        assert_eq!(graph.count(), 3);
    }

    #[test]
    fn labels_are_equal_exactly_where_a_path_of_matches_leads() {
        for seed in 0..200 {
            let mut random = Random::new(seed, 0);
            let texts = 2 + random.below(12);
            let matches: Vec<(ItemId, ItemId)> = (0..random.below(12))
                .map(|_| (ItemId(random.below(texts) as u32), ItemId(random.below(texts) as u32)))
                .collect();
            let mut reach: Vec<Vec<bool>> = (0..texts).map(|row| (0..texts).map(|at| at == row).collect()).collect();
            for (first, second) in &matches {
                reach[first.0 as usize][second.0 as usize] = true;
                reach[second.0 as usize][first.0 as usize] = true;
            }
            for middle in 0..texts {
                for from in 0..texts {
                    for to in 0..texts {
                        reach[from][to] |= reach[from][middle] && reach[middle][to];
                    }
                }
            }
            let graph = LabelGraph::from_matches(texts, matches.iter().copied());
            let backwards =
                LabelGraph::from_matches(texts, matches.iter().rev().map(|(first, second)| (*second, *first)));
            assert_eq!(graph, backwards, "the order of rows does not matter (seed {seed})");
            for from in 0..texts {
                for to in 0..texts {
                    let equal = graph.label(ItemId(from as u32)) == graph.label(ItemId(to as u32));
                    assert_eq!(equal, reach[from][to], "seed {seed}, texts {from} and {to}");
                }
            }
        }
    }

    #[test]
    fn scored_and_single_texts_stay_apart() {
        let (dataset, graph) = graph("a,b,5.0\nc,d,1.0\n");
        assert_eq!(dataset.kind, Kind::Scored);
        assert_eq!(graph.count(), 4);
    }
}
