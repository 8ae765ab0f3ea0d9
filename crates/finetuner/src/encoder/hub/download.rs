//! One file of a repository into the cache: looked up, resumed, checked, linked.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use ureq::http::{Response, header};

use super::{Hub, Repository, Transfer};
use crate::error::{Error, Result};

/// Connections that bring nothing new before a download is given up.
const ATTEMPTS: usize = 3;

/// What the hub says of one file.
struct Remote {
    url: String,
    /// Names the contents: the SHA-256 of a large file, the Git hash of a small one.
    etag: String,
    bytes: u64,
}

impl Hub {
    /// Brings a file into the snapshot, unless it is there.
    pub(super) fn download(
        &self,
        repository: &Repository<'_>,
        commit: &str,
        file: &str,
        progress: &mut dyn FnMut(Transfer<'_>),
    ) -> Result<()> {
        let pointer = repository.snapshot(commit).folder.join(file);
        if pointer.is_file() {
            return Ok(());
        }
        let remote = self.look_up(repository, commit, file)?;
        let blob = repository.folder.join("blobs").join(&remote.etag);
        let _lock = self.lock(repository, &remote.etag)?;
        if !blob.is_file() {
            create_parent(&blob)?;
            self.fetch(&remote, &blob, &mut |done_bytes| {
                progress(Transfer { file, done_bytes, total_bytes: remote.bytes });
            })?;
        }
        link(&blob, &pointer, file)
    }

    /// Asks for a file's headers, following the hub's own redirections but not those to its storage.
    fn look_up(&self, repository: &Repository<'_>, commit: &str, file: &str) -> Result<Remote> {
        let first = format!("{}/{}/resolve/{commit}/{file}", self.endpoint, repository.id);
        let refuse = |problem: String| Error::Download { url: first.clone(), problem };
        let mut url = first.clone();
        for _ in 0..5 {
            let request = self.request(self.agent.head(&url)).config();
            let response = request.max_redirects(0).max_redirects_will_error(false).build().call();
            let response = response.map_err(|error| refuse(error.to_string()))?;
            let status = response.status();
            let location = text(&response, "location").filter(|_| status.is_redirection());
            match location.filter(|location| location.starts_with('/') && !location.starts_with("//")) {
                Some(path) => url = format!("{}{path}", self.host()),
                None if status.is_success() || status.is_redirection() => {
                    let etag = text(&response, "x-linked-etag").or_else(|| text(&response, "etag")).unwrap_or_default();
                    let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
                    let bytes = text(&response, "x-linked-size").or_else(|| text(&response, "content-length"));
                    let bytes = bytes.and_then(|bytes| bytes.parse().ok());
                    return match bytes {
                        Some(bytes) if is_file_name(&etag) => Ok(Remote { url, etag, bytes }),
                        _ => Err(refuse("the answer names no etag and size; is this a Hugging Face hub?".into())),
                    };
                }
                None => return Err(refuse(self.reason(status.as_u16()))),
            }
        }
        Err(refuse("too many redirections".into()))
    }

    /// The endpoint without its path, to which a redirection `/…` belongs.
    fn host(&self) -> &str {
        let start = self.endpoint.find("://").map_or(0, |scheme| scheme + 3);
        self.endpoint[start..].find('/').map_or(&self.endpoint, |path| &self.endpoint[..start + path])
    }

    /// Two processes that want the same file: one downloads, the other waits. Python's tools use the same locks.
    fn lock(&self, repository: &Repository<'_>, etag: &str) -> Result<File> {
        let name = repository.folder.file_name().unwrap_or_default();
        let path = self.cache.join(".locks").join(name).join(format!("{etag}.lock"));
        create_parent(&path)?;
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(Error::io("create", &path))?;
        match lock.lock() {
            Err(error) if error.kind() != std::io::ErrorKind::Unsupported => Err(Error::io("lock", path)(error)),
            _ => Ok(lock),
        }
    }

    /// Downloads into `<blob>.incomplete`, going on where an earlier attempt stopped, and renames it once it is whole.
    fn fetch(&self, remote: &Remote, blob: &Path, progress: &mut dyn FnMut(u64)) -> Result<()> {
        let partial = PathBuf::from(format!("{}.incomplete", blob.display()));
        let refuse = |problem: String| Error::Download { url: remote.url.clone(), problem };
        let mut file =
            File::options().create(true).append(true).open(&partial).map_err(Error::io("create", &partial))?;
        let length = |file: &File| file.metadata().map(|data| data.len()).map_err(Error::io("read", &partial));
        let mut attempts = 0;
        loop {
            let before = length(&file)?;
            progress(before.min(remote.bytes));
            if before == remote.bytes {
                break;
            }
            if before > remote.bytes {
                file.set_len(0).map_err(Error::io("write", &partial))?;
                continue;
            }
            let problem = match self.receive(remote, before, &mut file, &partial, progress)? {
                Ok(()) if length(&file)? == remote.bytes => continue,
                Ok(()) => "the connection ended early".to_owned(),
                Err(problem) => problem,
            };
            attempts = if length(&file)? > before { 0 } else { attempts + 1 };
            if attempts == ATTEMPTS {
                return Err(refuse(format!("{problem}; run the same command again to continue")));
            }
        }
        if remote.etag.len() == 64 && sha256(&partial)? != remote.etag {
            std::fs::remove_file(&partial).map_err(Error::io("remove", &partial))?;
            return Err(refuse(
                "the bytes that arrived are not those of the file; they were thrown away, try again".into(),
            ));
        }
        file.sync_all().map_err(Error::io("write", &partial))?;
        std::fs::rename(&partial, blob).map_err(Error::io("create", blob))
    }

    /// One connection. The outer error ends the download; the inner problem is worth another attempt.
    fn receive(
        &self,
        remote: &Remote,
        from: u64,
        file: &mut File,
        partial: &Path,
        progress: &mut dyn FnMut(u64),
    ) -> Result<std::result::Result<(), String>> {
        let mut request = self.request(self.agent.get(&remote.url));
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        let mut response = match request.call() {
            Ok(response) => response,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let mut done = match response.status().as_u16() {
            206 if text(&response, "content-range")
                .is_some_and(|range| range.starts_with(&format!("bytes {from}-"))) =>
            {
                from
            }
            // The whole file, asked for or not; and a range the server does not have: start again.
            200 | 206 | 416 => {
                file.set_len(0).map_err(Error::io("write", partial))?;
                0
            }
            status @ (429 | 500..) => return Ok(Err(format!("the hub answers {status}"))),
            status => return Err(Error::Download { url: remote.url.clone(), problem: self.reason(status) }),
        };
        if response.status().as_u16() == 416 || (response.status().as_u16() == 206 && done != from) {
            return Ok(Err("the server has another range of the file".into()));
        }
        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = match body.read(&mut buffer) {
                Ok(0) => return Ok(Ok(())),
                Ok(count) => count,
                Err(error) => return Ok(Err(error.to_string())),
            };
            file.write_all(&buffer[..count]).map_err(Error::io("write", partial))?;
            done += count as u64;
            if done > remote.bytes {
                return Ok(Err(format!("more than the {} bytes announced", remote.bytes)));
            }
            progress(done);
        }
    }
}

fn text<B>(response: &Response<B>, header: &str) -> Option<String> {
    response.headers().get(header).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// The etag becomes a file name, so nothing else may be in it.
fn is_file_name(etag: &str) -> bool {
    !etag.is_empty() && etag.len() <= 128 && etag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn sha256(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(Error::io("read", path))? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            count => hash.update(&buffer[..count]),
        }
    }
}

/// Puts a file of the snapshot in place: a relative link to the blob, or a copy where links are not to be had.
fn link(blob: &Path, pointer: &Path, file: &str) -> Result<()> {
    create_parent(pointer)?;
    #[cfg(unix)]
    {
        let up = "../".repeat(2 + file.matches('/').count());
        let target = Path::new(&up).join("blobs").join(blob.file_name().unwrap_or_default());
        let _ = std::fs::remove_file(pointer); // a dangling link of a cache that was cleaned by hand
        if std::os::unix::fs::symlink(target, pointer).is_ok() {
            return Ok(());
        }
    }
    let _ = file;
    std::fs::copy(blob, pointer).map(|_| ()).map_err(Error::io("create", pointer))
}

fn create_parent(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(Error::io("create", folder))
}
