//! What do we learn from: examples, the readers that make them, the label graph and the order of batches.

mod address;
mod beir;
mod collect;
mod columns;
mod csv;
mod folder;
mod item;
mod jsonl;
mod label_graph;
pub mod lint;
mod npy;
mod order;
mod parquet;
mod picture;
mod pictures;
pub mod random;
mod read;
mod retrieval;
mod shard;
mod shards;
mod split;
mod vector;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

pub use address::Address;
pub use item::{ItemId, Items, Modality};
pub use label_graph::LabelGraph;
pub use order::{Hierarchy, Mix, Order, Sampler};
pub use picture::{PICTURE_ENDINGS, PictureAddress, is_picture};
pub use pictures::{PictureFact, Pictures};
pub use read::{inspect, read, read_corpus};
pub use retrieval::{RetrievalSet, read_retrieval, read_retrieval_with};
pub use shard::{ShardEntry, ShardIndex};
pub use split::hold_out;
pub use vector::{read_vector, write_vector};

use self::collect::{Cell, Collector};
use self::columns::Role;
use crate::error::{Error, Result, nearest};

/// One row of training data. All rows of a data set are of one kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Example {
    /// Two items that belong together.
    Pair {
        /// The query.
        anchor: ItemId,
        /// What it should find.
        positive: ItemId,
    },
    /// An anchor, its positive and one or more items that do not match.
    Triplet {
        /// The query.
        anchor: ItemId,
        /// What it should find.
        positive: ItemId,
        /// What it should not find.
        negatives: Vec<ItemId>,
        /// What a teacher says: its score of the positive and then of each negative, or for each negative the margin
        /// by which the positive's score is above it. Empty for [`Kind::Triplets`].
        scores: Vec<f32>,
    },
    /// An item and the class it belongs to.
    Labelled {
        /// The item.
        item: ItemId,
        /// Index into [`Dataset::label_names`].
        label: u32,
    },
    /// Two items and how similar they are.
    Scored {
        /// The first item.
        first: ItemId,
        /// The second item.
        second: ItemId,
        /// Higher is more similar; of [`Kind::LabelledPairs`] the place of the class in [`Dataset::label_names`].
        score: f32,
    },
    /// An item alone.
    Single {
        /// The item.
        item: ItemId,
    },
}

impl Example {
    /// Its items, column by column.
    pub fn items(&self) -> impl Iterator<Item = ItemId> {
        let (first, second, more): (ItemId, Option<ItemId>, &[ItemId]) = match self {
            Example::Pair { anchor, positive } => (*anchor, Some(*positive), &[]),
            Example::Triplet { anchor, positive, negatives, .. } => (*anchor, Some(*positive), negatives),
            Example::Scored { first, second, .. } => (*first, Some(*second), &[]),
            Example::Labelled { item, .. } | Example::Single { item } => (*item, None, &[]),
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
    /// [`Example::Scored`] whose score is a class.
    LabelledPairs,
}

impl Kind {
    /// Every kind by its name in specifications and on the command line.
    pub const NAMES: [(&'static str, Kind); 7] = [
        ("pairs", Kind::Pairs),
        ("triplets", Kind::Triplets),
        ("labelled", Kind::Labelled),
        ("scored", Kind::Scored),
        ("single", Kind::Single),
        ("scored_triplets", Kind::ScoredTriplets),
        ("labelled_pairs", Kind::LabelledPairs),
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

/// Vectors that stand beside items they were computed from, as `finetuner encode` writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VectorColumn {
    /// The column's name.
    pub name: String,
    /// A cell for each example, as it was read.
    pub cells: Vec<Arc<str>>,
}

/// Examples of one kind over one collection of items.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// The kind of every example.
    pub kind: Kind,
    /// The distinct items.
    pub items: Items,
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
    /// Class names of labelled items or pairs, in order of first appearance; empty otherwise.
    pub label_names: Vec<String>,
    /// Of single and labelled items the vectors beside them: see [`Dataset::into_vectors`].
    pub beside: Option<VectorColumn>,
    /// One sentence on what was read and how it was understood.
    pub decision: String,
}

impl Dataset {
    /// The number of classes of labelled items or pairs; 0 for other kinds.
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
            match example {
                Example::Labelled { label, .. } => *label = own[*label as usize],
                Example::Scored { score, .. } if self.kind == Kind::LabelledPairs => {
                    *score = own[*score as usize] as f32;
                }
                _ => {}
            }
        }
        if matches!(self.kind, Kind::Labelled | Kind::LabelledPairs) {
            self.label_names = all;
        }
    }

    /// The examples at these places, in this order, over their own items (shared, not copied). Label indices and names
    /// stay as they are, so parts of one data set agree on them.
    ///
    /// # Panics
    /// If a place is not below the number of examples.
    pub fn select(&self, places: &[u32]) -> Dataset {
        let mut items = Items::default();
        let mut share = |id: ItemId| items.share_from(&self.items, id);
        let examples = places.iter().map(|&place| match &self.examples[place as usize] {
            Example::Pair { anchor, positive } => Example::Pair { anchor: share(*anchor), positive: share(*positive) },
            Example::Triplet { anchor, positive, negatives, scores } => Example::Triplet {
                anchor: share(*anchor),
                positive: share(*positive),
                negatives: negatives.iter().map(|negative| share(*negative)).collect(),
                scores: scores.clone(),
            },
            Example::Labelled { item, label } => Example::Labelled { item: share(*item), label: *label },
            Example::Scored { first, second, score } => {
                Example::Scored { first: share(*first), second: share(*second), score: *score }
            }
            Example::Single { item } => Example::Single { item: share(*item) },
        });
        let examples = examples.collect();
        let ids = if self.ids.is_empty() { &[][..] } else { places };
        Dataset {
            kind: self.kind,
            items,
            examples,
            ids: ids.iter().map(|&place| self.ids[place as usize].clone()).collect(),
            path: self.path.clone(),
            lines: places.iter().map(|&place| self.lines[place as usize]).collect(),
            empty: Vec::new(),
            label_names: self.label_names.clone(),
            beside: self.beside.as_ref().map(|column| VectorColumn {
                name: column.name.clone(),
                cells: places.iter().map(|&place| column.cells[place as usize].clone()).collect(),
            }),
            decision: format!("{} of the {} examples of: {}", places.len(), self.examples.len(), self.decision),
        }
    }

    /// The same examples with the vectors that stand beside the items in place of these, which become ids where there are
    /// none; the data set itself where there are no vectors beside.
    ///
    /// # Errors
    /// [`Error::Data`] with the line, for what is no vector of finite numbers or of another length than the first.
    pub fn into_vectors(self) -> Result<Dataset> {
        let Some(column) = &self.beside else { return Ok(self) };
        let mut collector = Collector::new(&self.path, self.kind);
        for (place, (example, vector)) in self.examples.iter().zip(&column.cells).enumerate() {
            let (item, label) = match example {
                Example::Labelled { item, label } => (*item, Some(&self.label_names[*label as usize])),
                other => (other.items().next().unwrap_or(ItemId(0)), None),
            };
            let id = self.ids.get(place).map_or_else(|| self.items.get(item), String::as_str);
            let cell = |role: Role, column, value| Cell { role, column, value };
            let cells = [cell(Role::Vector, column.name.as_str(), vector), cell(Role::Id, "id", id)];
            let label = label.map(|label| cell(Role::Label, "label", label));
            let cells: Vec<Cell<'_>> = cells.into_iter().chain(label).collect();
            collector.push(self.lines[place], &cells)?;
        }
        let mut vectors = collector.finish("vectors beside what they were computed from")?;
        vectors.empty = self.empty;
        Ok(vectors)
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
