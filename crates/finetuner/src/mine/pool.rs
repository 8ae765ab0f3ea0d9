//! What is mined: queries, their positives, and the documents that negatives come from.

use std::collections::HashMap;
use std::path::Path;

use crate::data::{Dataset, Example, ItemId, LabelGraph, inspect, read, read_corpus};
use crate::error::{Error, Result};

/// Queries with at least one positive each, over distinct documents.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    /// Distinct queries, in order of first appearance.
    pub queries: Vec<String>,
    /// Distinct documents.
    pub documents: Vec<String>,
    /// For each query the documents that the data names as its positives, in order of appearance.
    pub positives: Vec<Vec<u32>>,
    /// The label of each query and of each document; documents that no row names have none.
    query_labels: Vec<u32>,
    document_labels: Vec<Option<u32>>,
    /// How many documents have a label.
    sizes: HashMap<u32, usize>,
}

impl Pool {
    /// Reads pairs or triplets, or the judged queries of a BEIR split with its whole corpus. `corpus` holds more
    /// documents: texts one a line, in a column `text`, or a BEIR folder. Rows without a text are passed over there.
    ///
    /// # Errors
    /// As [`read()`], [`Pool::from_dataset`].
    pub fn read(data: &Path, corpus: Option<&Path>) -> Result<Pool> {
        let mut documents = read_corpus(data)?.unwrap_or_default();
        if let Some(corpus) = corpus {
            match read_corpus(corpus)? {
                Some(more) => documents.extend(more),
                None => documents.extend(inspect(corpus, None)?.items.iter().map(str::to_owned)),
            }
        }
        Pool::from_dataset(&read(data, None)?, documents.iter().map(String::as_str))
    }

    /// The pool of pairs or triplets: their anchors, over the texts of `corpus`, then their positives and the negatives
    /// they have already.
    ///
    /// # Errors
    /// [`Error::Spec`] for other kinds of data.
    pub fn from_dataset<'a>(dataset: &Dataset, corpus: impl IntoIterator<Item = &'a str>) -> Result<Pool> {
        let rows: Vec<(ItemId, ItemId, &[ItemId])> = dataset
            .examples
            .iter()
            .filter_map(|example| match example {
                Example::Pair { anchor, positive } => Some((*anchor, *positive, &[][..])),
                Example::Triplet { anchor, positive, negatives, .. } => Some((*anchor, *positive, &negatives[..])),
                _ => None,
            })
            .collect();
        if rows.len() != dataset.examples.len() {
            return Err(Error::spec("data", format!("expected pairs or triplets, got {}", dataset.kind)));
        }
        let mut documents = Documents::default();
        for text in corpus {
            documents.add(text);
        }
        let mut pool = Pool::default();
        let mut places: HashMap<ItemId, usize> = HashMap::new();
        let graph = LabelGraph::from_dataset(dataset);
        for (anchor, positive, _) in &rows {
            let document = documents.add(dataset.items.get(*positive));
            let query = *places.entry(*anchor).or_insert_with(|| {
                pool.queries.push(dataset.items.get(*anchor).to_owned());
                pool.positives.push(Vec::new());
                pool.query_labels.push(graph.label(*anchor));
                pool.queries.len() - 1
            });
            if !pool.positives[query].contains(&document) {
                pool.positives[query].push(document);
            }
        }
        for negative in rows.iter().flat_map(|(.., negatives)| *negatives) {
            documents.add(dataset.items.get(*negative));
        }
        let label = |text: &String| dataset.items.find(text).map(|text| graph.label(text));
        pool.document_labels = documents.texts.iter().map(label).collect();
        pool.documents = documents.texts;
        for label in pool.document_labels.iter().flatten() {
            *pool.sizes.entry(*label).or_default() += 1;
        }
        Ok(pool)
    }

    /// The most positives of one query.
    pub fn most_positives(&self) -> usize {
        self.positives.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// How many documents are known to match a query.
    pub(super) fn known(&self, query: usize) -> usize {
        self.sizes.get(&self.query_labels[query]).copied().unwrap_or(0)
    }

    /// Whether a document is known to match a query.
    pub(super) fn matches(&self, query: usize, document: u32) -> bool {
        self.document_labels[document as usize] == Some(self.query_labels[query])
    }
}

/// Distinct texts in order of first appearance.
#[derive(Default)]
struct Documents {
    texts: Vec<String>,
    places: HashMap<String, u32>,
}

impl Documents {
    fn add(&mut self, text: &str) -> u32 {
        if let Some(&place) = self.places.get(text) {
            return place;
        }
        let place = self.texts.len() as u32;
        self.places.insert(text.to_owned(), place);
        self.texts.push(text.to_owned());
        place
    }
}
