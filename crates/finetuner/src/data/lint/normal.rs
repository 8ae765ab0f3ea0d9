//! Items by their words: case, punctuation and spaces left out. A picture is known by its address.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::{Dataset, ItemId, Modality};

/// Whether a letter says something: all but white space and punctuation. Signs and emoji do (`C++`, `€5`, `50%`).
fn counts(letter: char) -> bool {
    let punctuation = letter.is_ascii_punctuation() && !matches!(letter, '+' | '#' | '$' | '%')
        || matches!(letter, '¡' | '¿' | '«' | '»' | '·')
        || matches!(letter as u32, 0x2000..=0x206F | 0x3000..=0x303F | 0xFF01..=0xFF0F | 0xFF1A..=0xFF1F);
    !punctuation && !letter.is_whitespace() && !letter.is_control()
}

/// The words of a text, in lower case, with one space between them; a text without words stays as it is.
pub(super) fn normal(text: &str) -> String {
    let mut words = String::with_capacity(text.len());
    let mut between = false;
    for letter in text.chars() {
        if counts(letter) {
            if between && !words.is_empty() {
                words.push(' ');
            }
            between = false;
            words.extend(letter.to_lowercase());
        } else {
            between = letter != '\'' || between; // it's = its
        }
    }
    if words.is_empty() { text.to_owned() } else { words }
}

/// 64 bits of a text's words, of a picture's address or of a vector's numbers. That two items share them by chance is unlikely below a billion items.
pub(super) fn fingerprint(modality: Modality, content: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    match modality {
        Modality::Text => normal(content).hash(&mut hasher),
        Modality::Image | Modality::Vector => (modality, content).hash(&mut hasher),
    }
    hasher.finish()
}

/// The fingerprint of every item of a data set.
pub(super) struct Words(Vec<u64>);

impl Words {
    pub(super) fn of(dataset: &Dataset) -> Self {
        let items = (0..).map(ItemId).zip(dataset.items.iter());
        Words(items.map(|(id, content)| fingerprint(dataset.items.modality(id), content)).collect())
    }

    pub(super) fn get(&self, item: ItemId) -> u64 {
        self.0[item.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_punctuation_and_spaces_do_not_count_and_words_do() {
        for (first, second, equal) in [
            ("How do I freeze my card?", "how do i  freeze my card", true),
            ("It's late.", "its late", true),
            ("re-order", "re order", true),
            ("C++", "C", false),
            ("Straße", "STRASSE", false),
            ("a £1 fee", "a €1 fee", false),
            ("fine 😀", "fine 😡", false),
            ("“quoted” text", "quoted text", true),
            ("ÉTÉ", "été", true),
            ("1.5", "15", false),
            ("?", "!", false),
            ("你好。", "你好", true),
        ] {
            assert_eq!(normal(first) == normal(second), equal, "{first} {second}");
        }
    }
}
