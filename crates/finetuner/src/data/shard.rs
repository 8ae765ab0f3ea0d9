//! Tar files of examples, larger than memory: where each entry lies is kept, what is in it is read when it is needed.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use crate::error::{Error, Result};

/// Where the files of a tar shard lie in it.
#[derive(Debug, Clone, Default)]
pub struct ShardIndex {
    entries: Vec<ShardEntry>,
    places: HashMap<String, usize>,
}

/// A file in a tar shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardEntry {
    /// Its whole name.
    pub name: String,
    /// Where its bytes begin in the shard.
    pub offset: u64,
    /// How many there are.
    pub bytes: u64,
}

impl ShardIndex {
    /// Goes over the headers of a shard; the files' contents are skipped.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] for a file that is not tar, is compressed, or breaks off.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("read", path))?;
        let length = file.metadata().map_err(Error::io("read", path))?.len();
        let damaged = |error: std::io::Error| Error::data(path, None, format!("cannot be read as tar: {error}"));
        let mut index = ShardIndex::default();
        let mut archive = tar::Archive::new(file);
        for entry in archive.entries_with_seek().map_err(damaged)? {
            let entry = entry.map_err(damaged)?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let (offset, bytes) = (entry.raw_file_position(), entry.size());
            if offset.saturating_add(bytes) > length {
                return Err(Error::data(path, None, format!("breaks off in `{name}`: the shard is truncated")));
            }
            index.places.insert(name.clone(), index.entries.len());
            index.entries.push(ShardEntry { name, offset, bytes });
        }
        Ok(index)
    }

    /// Offset and length of an entry.
    pub fn find(&self, name: &str) -> Option<(u64, u64)> {
        let entry = &self.entries[*self.places.get(name)?];
        Some((entry.offset, entry.bytes))
    }

    /// The entries in the order of the shard.
    pub fn entries(&self) -> &[ShardEntry] {
        &self.entries
    }
}
