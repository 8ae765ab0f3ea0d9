//! Where data lies: a file (and what its columns are), one split of a BEIR folder, a folder of pictures, or tar shards.

use std::path::{Path, PathBuf};

use super::folder;
use crate::error::{Error, Result};

/// What a path given by the user means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// One file of examples.
    File {
        /// Where it is.
        path: PathBuf,
        /// What stood after the last colon: which of its columns is what.
        columns: Option<String>,
    },
    /// A BEIR folder.
    Beir {
        /// Where it is.
        folder: PathBuf,
        /// What stood after the last colon.
        split: Option<String>,
    },
    /// A folder of pictures.
    Pictures(PathBuf),
    /// A tar file, or a folder of them.
    Shards(PathBuf),
}

impl Address {
    /// Reads `PATH`, `DIR:split` or `FILE:role=column,…`. A path that exists as it is written is never split at a colon.
    ///
    /// # Errors
    /// [`Error::Data`] for a split of a file.
    pub fn of(path: &Path) -> Result<Address> {
        if path.is_dir() {
            let beir = path.join("queries.jsonl").exists() || path.join("corpus.jsonl").exists();
            match folder::holds(path).filter(|_| !beir) {
                Some(true) => return Ok(Address::Shards(path.to_owned())),
                Some(false) => return Ok(Address::Pictures(path.to_owned())),
                None => {}
            }
            return Ok(Address::Beir { folder: path.to_owned(), split: None });
        }
        if let Some((before, part)) = path.to_str().and_then(|text| text.rsplit_once(':'))
            && !path.exists()
        {
            let place = PathBuf::from(before);
            if place.is_dir() {
                let split = Some(part.to_owned()).filter(|split| !split.is_empty());
                return Ok(Address::Beir { folder: place, split });
            }
            if place.is_file() && part.contains('=') {
                return Ok(Address::File { path: place, columns: Some(part.to_owned()) });
            }
            if place.is_file() {
                let problem = format!(
                    "is a file; a split (`:{part}`) belongs to a BEIR folder, as in `scifact:test`, and the columns of a \
                     file are told as in `products.csv:text=description`"
                );
                return Err(Error::data(place, None, problem));
            }
        }
        if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("tar")) {
            return Ok(Address::Shards(path.to_owned()));
        }
        Ok(Address::File { path: path.to_owned(), columns: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_follows_the_last_colon_of_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let at = |tail: &str| Address::of(Path::new(&format!("{}{tail}", folder.path().display()))).unwrap();
        let folder = folder.path().to_owned();
        assert_eq!(at(""), Address::Beir { folder: folder.clone(), split: None });
        assert_eq!(at(":"), Address::Beir { folder: folder.clone(), split: None });
        assert_eq!(at(":test"), Address::Beir { folder, split: Some("test".into()) });
    }

    #[test]
    fn a_file_with_a_colon_in_its_name_is_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a:b.csv");
        std::fs::write(&file, "x").unwrap();
        assert_eq!(Address::of(&file).unwrap(), Address::File { path: file, columns: None });
    }

    #[test]
    fn columns_follow_the_last_colon_of_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a:b.csv");
        std::fs::write(&path, "x").unwrap();
        let address = Address::of(Path::new(&format!("{}:text=name,id=sku", path.display()))).unwrap();
        assert_eq!(address, Address::File { path, columns: Some("text=name,id=sku".into()) });
    }

    #[test]
    fn a_split_of_a_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.csv");
        std::fs::write(&file, "x").unwrap();
        let error = Address::of(Path::new(&format!("{}:test", file.display()))).unwrap_err().to_string();
        assert!(error.contains("a.csv: is a file; a split (`:test`)"), "{error}");
    }
}
