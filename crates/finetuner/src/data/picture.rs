//! Where pictures are: addresses in rows of data, and which of them are pictures.

use std::path::Path;

/// Endings of the names of files that are taken for pictures, in small letters.
pub const PICTURE_ENDINGS: &[&str] = &["jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "gif"];

/// What stands between a tar shard and the entry in it.
const INSIDE: &str = ".tar!/";

/// An address of a picture, as it stands in [`Items`](super::Items).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PictureAddress<'a> {
    /// A file.
    File(&'a Path),
    /// `shard.tar!/key.jpg`: an entry of a tar file.
    Entry {
        /// The tar file.
        shard: &'a Path,
        /// The entry's whole name.
        name: &'a str,
    },
    /// `http://…` or `https://…`.
    Url(&'a str),
}

impl<'a> PictureAddress<'a> {
    /// Reads an address. What is neither a URL nor an entry is a file.
    pub fn of(address: &'a str) -> Self {
        if is_url(address) {
            return PictureAddress::Url(address);
        }
        match address.find(INSIDE) {
            Some(at) => {
                let (shard, name) = (&address[..at + INSIDE.len() - 2], &address[at + INSIDE.len()..]);
                PictureAddress::Entry { shard: Path::new(shard), name }
            }
            None => PictureAddress::File(Path::new(address)),
        }
    }
}

/// Whether an address is one of the web.
pub(super) fn is_url(address: &str) -> bool {
    let scheme = address.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    matches!(scheme.as_deref(), Some("http" | "https"))
}

/// Whether an address names a picture: one line that ends in a picture's ending.
pub fn is_picture(address: &str) -> bool {
    let address = if is_url(address) { address.split(['?', '#']).next().unwrap_or(address) } else { address };
    let ending = address.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    !address.contains('\n') && ending.is_some_and(|ending| PICTURE_ENDINGS.contains(&ending.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_files_entries_or_urls() {
        assert_eq!(PictureAddress::of("a/b.jpg"), PictureAddress::File(Path::new("a/b.jpg")));
        let entry = PictureAddress::Entry { shard: Path::new("s/0.tar"), name: "k/1.jpg" };
        assert_eq!(PictureAddress::of("s/0.tar!/k/1.jpg"), entry);
        assert_eq!(PictureAddress::of("HTTPS://x.org/a"), PictureAddress::Url("HTTPS://x.org/a"));
        assert_eq!(PictureAddress::of("ftp://x.org/a"), PictureAddress::File(Path::new("ftp://x.org/a")));
    }

    #[test]
    fn pictures_are_known_by_their_ending() {
        for picture in ["a.jpg", "b c.JPEG", "https://x.org/a.png?size=3#top", "s.tar!/a.webp"] {
            assert!(is_picture(picture), "{picture}");
        }
        for text in ["a black sneaker", "a.jpg is nice", "see\na.jpg.", "jpg", "https://x.org/?a.txt", "a.\njpg"] {
            assert!(!is_picture(text), "{text}");
        }
    }
}
