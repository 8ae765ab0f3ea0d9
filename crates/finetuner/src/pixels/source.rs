//! The bytes of a picture at an address: a file, an entry of a tar shard (`shard.tar!/key.jpg`), or a URL.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::fetch::Fetcher;
use super::{Limits, Picture, decode};
use crate::data::{PictureAddress, ShardIndex};
use crate::error::{Error, Result};

/// The bytes at the start and the end of a file that its header is looked for in.
const ENDS: u64 = 64 * 1024;

/// Where pictures are read from. Cheap to clone; clones share what they know of shards and what was downloaded.
#[derive(Debug, Clone)]
pub struct Sources {
    limits: Limits,
    shards: Arc<Mutex<HashMap<PathBuf, Arc<ShardIndex>>>>,
    web: Option<Arc<Web>>,
}

#[derive(Debug)]
struct Web {
    fetcher: Fetcher,
    /// What was downloaded, by the hash of its URL: every epoch needs it again. Gone with the run.
    folder: tempfile::TempDir,
}

/// Both ends of a file, and its size in bytes.
pub(super) struct Ends {
    pub(super) start: Vec<u8>,
    pub(super) end: Vec<u8>,
    pub(super) bytes: u64,
}

/// A stretch of a file.
struct Part {
    path: PathBuf,
    offset: u64,
    bytes: u64,
}

impl Default for Sources {
    /// Files and shards with the default limits, no URLs.
    fn default() -> Self {
        Sources::new(Limits::default())
    }
}

impl Sources {
    /// Files and shards; URLs are refused.
    pub fn new(limits: Limits) -> Self {
        Sources { limits, shards: Arc::default(), web: None }
    }

    /// URLs too: http and https, public addresses only, each downloaded once.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no place for what is downloaded.
    pub fn allow_urls(self) -> Result<Self> {
        let fetcher = Fetcher::new(self.limits.bytes, false);
        self.with_web(fetcher)
    }

    fn with_web(self, fetcher: Fetcher) -> Result<Self> {
        let folder = tempfile::tempdir().map_err(Error::io("create", std::env::temp_dir()))?;
        Ok(Sources { web: Some(Arc::new(Web { fetcher, folder })), ..self })
    }

    /// What a picture may cost.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The picture at an address, decoded.
    ///
    /// # Errors
    /// [`Error::Picture`] with the address: missing, refused, not a picture, too large, truncated, damaged.
    pub fn picture(&self, address: &str) -> Result<Picture> {
        decode(address, &self.read(address)?, &self.limits)
    }

    /// The whole file at an address.
    ///
    /// # Errors
    /// [`Error::Picture`] with the address: missing, refused, too large.
    pub fn read(&self, address: &str) -> Result<Vec<u8>> {
        let refuse = |problem: String| Error::Picture { picture: address.to_owned(), problem };
        let part = self.part(address)?;
        let mut bytes = Vec::with_capacity(part.bytes as usize);
        self.open(&part, 0)
            .and_then(|file| file.take(part.bytes).read_to_end(&mut bytes))
            .map_err(|error| refuse(format!("cannot be read: {error}")))?;
        Ok(bytes)
    }

    /// Both ends of the file at an address.
    pub(super) fn ends(&self, address: &str) -> Result<Ends> {
        let refuse = |error: std::io::Error| Error::Picture {
            picture: address.to_owned(),
            problem: format!("cannot be read: {error}"),
        };
        let part = self.part(address)?;
        let read = |from: u64, length: u64| {
            let mut bytes = Vec::new();
            self.open(&part, from)?.take(length).read_to_end(&mut bytes).map(|_| bytes)
        };
        let start = read(0, ENDS.min(part.bytes)).map_err(refuse)?;
        let end = match part.bytes > ENDS {
            true => read(part.bytes.saturating_sub(ENDS), ENDS).map_err(refuse)?,
            false => start.clone(),
        };
        Ok(Ends { start, end, bytes: part.bytes })
    }

    fn open(&self, part: &Part, from: u64) -> std::io::Result<File> {
        let mut file = File::open(&part.path)?;
        file.seek(SeekFrom::Start(part.offset + from))?;
        Ok(file)
    }

    /// Where the bytes lie on this machine.
    fn part(&self, address: &str) -> Result<Part> {
        let refuse = |problem: String| Error::Picture { picture: address.to_owned(), problem };
        let part = match PictureAddress::of(address) {
            PictureAddress::Url(url) => self.download(url)?,
            PictureAddress::Entry { shard, name } => {
                let index = self.shard(shard)?;
                let (offset, bytes) =
                    index.find(name).ok_or_else(|| refuse(format!("`{}` has no such entry", shard.display())))?;
                Part { path: shard.to_owned(), offset, bytes }
            }
            PictureAddress::File(path) => whole(path).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => refuse("there is no such file".into()),
                _ => refuse(format!("cannot be read: {error}")),
            })?,
        };
        if part.bytes > self.limits.bytes {
            return Err(refuse(format!("expected at most {} bytes, got {}", self.limits.bytes, part.bytes)));
        }
        Ok(part)
    }

    fn shard(&self, path: &Path) -> Result<Arc<ShardIndex>> {
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = shards.get(path) {
            return Ok(index.clone());
        }
        let index = Arc::new(ShardIndex::open(path)?);
        shards.insert(path.to_owned(), index.clone());
        Ok(index)
    }

    fn download(&self, url: &str) -> Result<Part> {
        let refuse = |problem: String| Error::Picture { picture: url.to_owned(), problem };
        let web = self.web.as_ref().ok_or_else(|| {
            refuse("is a URL, and nothing is downloaded unless URLs are allowed (`--allow-urls`)".into())
        })?;
        let name: String = Sha256::digest(url).iter().map(|byte| format!("{byte:02x}")).collect();
        let path = web.folder.path().join(name);
        if !path.is_file() {
            let bytes = web.fetcher.fetch(url).map_err(refuse)?;
            // Another thread may want the same picture: the file appears whole.
            let mut file = tempfile::NamedTempFile::new_in(web.folder.path()).map_err(Error::io("create", &path))?;
            std::io::Write::write_all(&mut file, &bytes).map_err(Error::io("write", &path))?;
            file.persist(&path).map_err(|error| Error::io("write", &path)(error.error))?;
        }
        whole(&path).map_err(|error| refuse(format!("cannot be read: {error}")))
    }
}

fn whole(path: &Path) -> std::io::Result<Part> {
    let metadata = path.metadata()?;
    if metadata.is_dir() {
        return Err(std::io::Error::other("it is a folder"));
    }
    Ok(Part { path: path.to_owned(), offset: 0, bytes: metadata.len() })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_missing_file_a_folder_and_a_large_file_are_told_with_their_address() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(at("large.jpg"), [0; 20]).unwrap();
        let sources = Sources::new(Limits { bytes: 10, ..Limits::default() });
        let problem = |address: &str| sources.read(address).unwrap_err().to_string();
        assert_eq!(problem(&at("no.jpg")), format!("picture `{}`: there is no such file", at("no.jpg")));
        assert!(problem(&at("")).ends_with("it is a folder"));
        assert!(problem(&at("large.jpg")).ends_with("expected at most 10 bytes, got 20"));
        assert!(problem("https://example.org/a.jpg").contains("--allow-urls"));
        assert!(problem(&at("no.tar!/a.jpg")).contains("no.tar"));
    }

    #[test]
    fn an_entry_of_a_shard_is_read_where_it_lies() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.tar");
        let mut shard = tar::Builder::new(File::create(&path).unwrap());
        for (name, bytes) in [("a/1.jpg", &b"first"[..]), ("a/2.jpg", b"second one")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            shard.append_data(&mut header, name, bytes).unwrap();
        }
        shard.finish().unwrap();
        let sources = Sources::default();
        let read = |name: &str| sources.read(&format!("{}!/{name}", path.display()));
        assert_eq!(read("a/2.jpg").unwrap(), b"second one");
        assert_eq!(read("a/1.jpg").unwrap(), b"first");
        assert!(read("a/3.jpg").unwrap_err().to_string().contains("has no such entry"));
        assert_eq!(sources.ends(&format!("{}!/a/2.jpg", path.display())).unwrap().bytes, 10);
    }

    #[test]
    fn a_url_is_downloaded_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/a.png", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 2048]).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nbytes").unwrap();
        });
        let sources = Sources::default().with_web(Fetcher::new(100, true)).unwrap();
        assert_eq!(sources.read(&url).unwrap(), b"bytes");
        server.join().unwrap(); // nobody answers any more
        assert_eq!(sources.clone().read(&url).unwrap(), b"bytes");
    }
}
