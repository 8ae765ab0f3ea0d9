//! What do we learn from: examples, the readers that make them, the label graph and the order of batches.

mod address;
mod beir;
mod collect;
mod columns;
mod csv;
mod jsonl;
mod label_graph;
pub mod lint;
mod order;
mod parquet;
pub mod random;
mod read;
mod retrieval;
mod split;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

pub use label_graph::LabelGraph;
pub use order::{Mix, Order, Sampler};
pub use read::{inspect, read, read_corpus};
pub use retrieval::{RetrievalSet, read_retrieval};
pub use split::hold_out;

use crate::error::{Error, Result, nearest};

/// A text of a [`Dataset`], equal texts having equal ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TextId(pub u32);

/// Every distinct text of a data set, once.
#[derive(Debug, Clone, Default)]
pub struct Texts {
    texts: Vec<Arc<str>>,
    ids: HashMap<Arc<str>, TextId>,
}

impl Texts {
    /// The id of a text, adding it if it is new.
    pub fn intern(&mut self, text: &str) -> TextId {
        if let Some(&id) = self.ids.get(text) {
            return id;
        }
        self.share(text.into())
    }

    /// As [`Texts::intern`], without a copy of the text.
    fn share(&mut self, text: Arc<str>) -> TextId {
        if let Some(&id) = self.ids.get(&text) {
            return id;
        }
        let id = TextId(u32::try_from(self.texts.len()).expect("fewer than 2^32 texts"));
        self.texts.push(text.clone());
        self.ids.insert(text, id);
        id
    }

    /// The text of an id of this collection.
    pub fn get(&self, id: TextId) -> &str {
        &self.texts[id.0 as usize]
    }

    /// The id of a text that is already here.
    pub fn find(&self, text: &str) -> Option<TextId> {
        self.ids.get(text).copied()
    }

    /// All texts in the order of their ids.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.texts.iter().map(AsRef::as_ref)
    }

    /// How many distinct texts there are.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }
}

/// One row of training data. All rows of a data set are of one kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Example {
    /// Two texts that belong together.
    Pair {
        /// The query.
        anchor: TextId,
        /// What it should find.
        positive: TextId,
    },
    /// An anchor, its positive and one or more texts that do not match.
    Triplet {
        /// The query.
        anchor: TextId,
        /// What it should find.
        positive: TextId,
        /// What it should not find.
        negatives: Vec<TextId>,
        /// What a teacher says: its score of the positive and then of each negative, or for each negative the margin
        /// by which the positive's score is above it. Empty for [`Kind::Triplets`].
        scores: Vec<f32>,
    },
    /// A text and the class it belongs to.
    Labelled {
        /// The item.
        text: TextId,
        /// Index into [`Dataset::label_names`].
        label: u32,
    },
    /// Two texts and how similar they are.
    Scored {
        /// The first text.
        first: TextId,
        /// The second text.
        second: TextId,
        /// Higher is more similar.
        score: f32,
    },
    /// A text alone.
    Single {
        /// The item.
        text: TextId,
    },
}

impl Example {
    /// Its texts, column by column.
    pub fn texts(&self) -> impl Iterator<Item = TextId> {
        let (first, second, more): (TextId, Option<TextId>, &[TextId]) = match self {
            Example::Pair { anchor, positive } => (*anchor, Some(*positive), &[]),
            Example::Triplet { anchor, positive, negatives, .. } => (*anchor, Some(*positive), negatives),
            Example::Scored { first, second, .. } => (*first, Some(*second), &[]),
            Example::Labelled { text, .. } | Example::Single { text } => (*text, None, &[]),
        };
        std::iter::once(first).chain(second).chain(more.iter().copied())
    }
}

/// The kind of a data set's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// [`Example::Pair`]
    Pairs,
    /// [`Example::Triplet`] without scores.
    Triplets,
    /// [`Example::Labelled`]
    Labelled,
    /// [`Example::Scored`]
    Scored,
    /// [`Example::Single`]
    Single,
    /// [`Example::Triplet`] with a teacher's scores.
    ScoredTriplets,
}

impl Kind {
    /// Every kind by its name in specifications and on the command line.
    pub const NAMES: [(&'static str, Kind); 6] = [
        ("pairs", Kind::Pairs),
        ("triplets", Kind::Triplets),
        ("labelled", Kind::Labelled),
        ("scored", Kind::Scored),
        ("single", Kind::Single),
        ("scored_triplets", Kind::ScoredTriplets),
    ];
}

impl std::fmt::Display for Kind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, _) = Kind::NAMES.iter().find(|(_, kind)| kind == self).expect("every kind is listed, or a bug");
        formatter.write_str(name)
    }
}

impl std::str::FromStr for Kind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Kind> {
        let known = Kind::NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        known.map(|(_, kind)| *kind).ok_or_else(|| {
            let names = Kind::NAMES.iter().map(|(name, _)| *name);
            Error::spec("kind", format!("unknown kind `{name}`{}", nearest(name, names)))
        })
    }
}

/// A row without a text or a label where its kind needs one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmptyRow {
    /// Its line, counted from 1; of Parquet files its row.
    pub line: u64,
    /// What was expected, in which column.
    pub problem: String,
}

/// Examples of one kind over one collection of texts.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// The kind of every example.
    pub kind: Kind,
    /// The distinct texts.
    pub texts: Texts,
    /// The rows, in file order.
    pub examples: Vec<Example>,
    /// The `id` of each example's row where the file has such a column, else empty.
    pub ids: Vec<String>,
    /// The file the rows are from; of a BEIR folder the judgements.
    pub path: PathBuf,
    /// The line of each example's row, counted from 1; of Parquet files the row.
    pub lines: Vec<u64>,
    /// Rows that were left out because a text or a label is missing. [`read()`] refuses a file that has any.
    pub empty: Vec<EmptyRow>,
    /// Class names of a labelled set, in order of first appearance; empty otherwise.
    pub label_names: Vec<String>,
    /// One sentence on what was read and how it was understood.
    pub decision: String,
}

impl Dataset {
    /// The number of classes of a labelled set; 0 for other kinds.
    pub fn classes(&self) -> usize {
        self.label_names.len()
    }

    /// Numbers the classes as another set does; classes that it lacks come after its own.
    pub fn relabel(&mut self, names: &[String]) {
        let mut all = names.to_vec();
        let mut places: HashMap<String, u32> = (0..).zip(names).map(|(place, name)| (name.clone(), place)).collect();
        let own: Vec<u32> = self
            .label_names
            .iter()
            .map(|name| {
                *places.entry(name.clone()).or_insert_with(|| {
                    all.push(name.clone());
                    all.len() as u32 - 1
                })
            })
            .collect();
        for example in &mut self.examples {
            if let Example::Labelled { label, .. } = example {
                *label = own[*label as usize];
            }
        }
        if self.kind == Kind::Labelled {
            self.label_names = all;
        }
    }

    /// The examples at these places, in this order, over their own texts (shared, not copied). Label indices and names
    /// stay as they are, so parts of one data set agree on them.
    ///
    /// # Panics
    /// If a place is not below the number of examples.
    pub fn select(&self, places: &[u32]) -> Dataset {
        let mut texts = Texts::default();
        let mut share = |id: TextId| texts.share(self.texts.texts[id.0 as usize].clone());
        let examples = places.iter().map(|&place| match &self.examples[place as usize] {
            Example::Pair { anchor, positive } => Example::Pair { anchor: share(*anchor), positive: share(*positive) },
            Example::Triplet { anchor, positive, negatives, scores } => Example::Triplet {
                anchor: share(*anchor),
                positive: share(*positive),
                negatives: negatives.iter().map(|negative| share(*negative)).collect(),
                scores: scores.clone(),
            },
            Example::Labelled { text, label } => Example::Labelled { text: share(*text), label: *label },
            Example::Scored { first, second, score } => {
                Example::Scored { first: share(*first), second: share(*second), score: *score }
            }
            Example::Single { text } => Example::Single { text: share(*text) },
        });
        let examples = examples.collect();
        let ids = if self.ids.is_empty() { &[][..] } else { places };
        Dataset {
            kind: self.kind,
            texts,
            examples,
            ids: ids.iter().map(|&place| self.ids[place as usize].clone()).collect(),
            path: self.path.clone(),
            lines: places.iter().map(|&place| self.lines[place as usize]).collect(),
            empty: Vec::new(),
            label_names: self.label_names.clone(),
            decision: format!("{} of the {} examples of: {}", places.len(), self.examples.len(), self.decision),
        }
    }

    /// The data set itself, if no row was left out of it.
    ///
    /// # Errors
    /// [`Error::Data`] at the first row that was.
    pub fn without_empty_rows(self) -> Result<Dataset> {
        match self.empty.first() {
            Some(row) => Err(Error::data(&self.path, row.line, row.problem.as_str())),
            None => Ok(self),
        }
    }
}
