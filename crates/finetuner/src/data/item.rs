//! What data consists of: texts, pictures and vectors, each once.

use std::collections::HashMap;
use std::sync::Arc;

/// What an item is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Modality {
    /// A text.
    #[default]
    Text,
    /// A picture.
    Image,
    /// A vector of numbers that somebody computed.
    Vector,
}

impl Modality {
    /// All of them.
    pub const ALL: [Modality; 3] = [Modality::Text, Modality::Image, Modality::Vector];

    /// `text`, `picture` or `vector`, for sentences.
    pub fn noun(self) -> &'static str {
        match self {
            Modality::Text => "text",
            Modality::Image => "picture",
            Modality::Vector => "vector",
        }
    }
}

/// An item of a [`Dataset`](super::Dataset), equal items having equal ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ItemId(pub u32);

/// Every distinct item of a data set, once: a text by its words, a picture by its address, a vector by its
/// numbers (see [`super::write_vector`]).
#[derive(Debug, Clone, Default)]
pub struct Items {
    items: Vec<(Modality, Arc<str>)>,
    /// Of each modality, in the order of [`Modality::ALL`].
    ids: [HashMap<Arc<str>, ItemId>; 3],
}

impl Items {
    /// The id of a text, adding it if it is new.
    pub fn intern(&mut self, text: &str) -> ItemId {
        self.intern_as(Modality::Text, text)
    }

    /// The id of a text, or of the picture at an address, adding it if it is new.
    pub fn intern_as(&mut self, modality: Modality, content: &str) -> ItemId {
        match self.find_as(modality, content) {
            Some(id) => id,
            None => self.share(modality, content.into()),
        }
    }

    /// Takes an item over from another collection, without a copy of it.
    pub(super) fn share_from(&mut self, other: &Items, id: ItemId) -> ItemId {
        let (modality, content) = &other.items[id.0 as usize];
        self.share(*modality, content.clone())
    }

    fn share(&mut self, modality: Modality, content: Arc<str>) -> ItemId {
        *self.ids[modality as usize].entry(content).or_insert_with_key(|content| {
            let id = ItemId(u32::try_from(self.items.len()).expect("fewer than 2^32 items"));
            self.items.push((modality, content.clone()));
            id
        })
    }

    /// The text, the address of the picture or the numbers of the vector of an id of this collection.
    pub fn get(&self, id: ItemId) -> &str {
        &self.items[id.0 as usize].1
    }

    /// What an item of this collection is.
    pub fn modality(&self, id: ItemId) -> Modality {
        self.items[id.0 as usize].0
    }

    /// The id of a text that is already here.
    pub fn find(&self, text: &str) -> Option<ItemId> {
        self.find_as(Modality::Text, text)
    }

    /// The id of an item that is already here.
    pub fn find_as(&self, modality: Modality, content: &str) -> Option<ItemId> {
        self.ids[modality as usize].get(content).copied()
    }

    /// Whether some item is of this modality.
    pub fn has(&self, modality: Modality) -> bool {
        self.ids(modality).next().is_some()
    }

    /// The items of a modality, in the order of their ids.
    pub fn ids(&self, modality: Modality) -> impl Iterator<Item = ItemId> + '_ {
        let items = (0..).zip(&self.items);
        items.filter(move |(_, (own, _))| *own == modality).map(|(id, _)| ItemId(id))
    }

    /// All items in the order of their ids: texts, addresses of pictures, numbers of vectors.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.items.iter().map(|(_, content)| content.as_ref())
    }

    /// How many distinct items there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_not_the_text_that_reads_like_its_address() {
        let mut items = Items::default();
        let text = items.intern("cat.jpg");
        let picture = items.intern_as(Modality::Image, "cat.jpg");
        assert_ne!(text, picture);
        assert_eq!((items.intern("cat.jpg"), items.len()), (text, 2));
        assert_eq!((items.modality(text), items.modality(picture)), (Modality::Text, Modality::Image));
        assert_eq!((items.find("cat.jpg"), items.find_as(Modality::Image, "cat.jpg")), (Some(text), Some(picture)));
        assert_eq!((items.get(picture), items.find("dog.jpg")), ("cat.jpg", None));
    }
}
