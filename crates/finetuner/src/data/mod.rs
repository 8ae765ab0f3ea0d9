//! What do we learn from: examples, the readers that make them, the label graph and the order of batches.

use std::collections::HashMap;
use std::sync::Arc;

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
        let id = TextId(u32::try_from(self.texts.len()).expect("fewer than 2^32 texts"));
        let text: Arc<str> = text.into();
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

/// The kind of a data set's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// [`Example::Pair`]
    Pairs,
    /// [`Example::Triplet`]
    Triplets,
    /// [`Example::Labelled`]
    Labelled,
    /// [`Example::Scored`]
    Scored,
    /// [`Example::Single`]
    Single,
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
    /// Class names of a labelled set, in order of first appearance; empty otherwise.
    pub label_names: Vec<String>,
    /// One sentence on what was read and how it was understood.
    pub decision: String,
}
