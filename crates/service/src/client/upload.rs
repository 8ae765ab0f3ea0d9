//! Uploads that go on where they broke off.

use std::fs::File as LocalFile;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Instant;

use finetuner::Error as LibraryError;
use sha2::{Digest, Sha256};
use ureq::SendBody;
use ureq::http::Method;

use super::error::{Error, Result};
use super::{Client, PAUSE, part};
use crate::wire::{File, NewFile, Page};

impl Client {
    /// Brings a file to the server, unless it is there already, and checks that it arrived as it is here; `progress` hears
    /// of bytes done and in all.
    ///
    /// # Errors
    /// [`Error::Local`] if it cannot be read, [`Error::Refused`] if the server does not take it.
    pub fn upload(&self, path: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<File> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let (sha256, bytes) = checksum(path)?;
        let known: Page<File> = self.get(&format!("/v1/files?sha256={sha256}"))?;
        let known = known.data.into_iter().filter(|file| file.name == name && file.bytes == bytes);
        let mut file = match known.max_by_key(|file| (file.ready, file.received)) {
            Some(file) => file,
            None => self.post_json("/v1/files", &NewFile { name, bytes, sha256: Some(sha256) })?,
        };
        let mut failing: Option<(Instant, u64)> = None;
        while !file.ready {
            match self.send(path, &file, progress) {
                Ok(sent) => file = sent,
                Err(error) if error.is_passing() || is_conflict(&error) => {
                    let (since, received) = *failing.get_or_insert((Instant::now(), file.received));
                    if file.received > received {
                        failing = Some((Instant::now(), file.received));
                    } else if since.elapsed() > self.patience {
                        return Err(error);
                    }
                    std::thread::sleep(PAUSE);
                    file = self.get(&format!("/v1/files/{}", part(&file.id)))?;
                }
                Err(error) => return Err(error),
            }
        }
        progress(bytes, bytes);
        Ok(file)
    }

    /// Sends what has not arrived.
    fn send(&self, path: &Path, file: &File, progress: &mut dyn FnMut(u64, u64)) -> Result<File> {
        let mut local = LocalFile::open(path).map_err(LibraryError::io("read", path))?;
        local.seek(SeekFrom::Start(file.received)).map_err(LibraryError::io("read", path))?;
        let left = file.bytes - file.received.min(file.bytes);
        let mut told = Told { inner: local.take(left), done: file.received, total: file.bytes, progress };
        let request = self.request(Method::PATCH, &format!("/v1/files/{}", part(&file.id)))?;
        let request = request
            .header("upload-offset", file.received.to_string())
            .header("content-type", "application/octet-stream")
            .header("content-length", left.to_string());
        let request = request.body(SendBody::from_reader(&mut told)).map_err(Error::malformed)?;
        self.answer(self.agent.run(request))
    }
}

/// Tells how far it has been read.
struct Told<'a, R> {
    inner: R,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl<R: Read> Read for Told<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.done += read as u64;
        (self.progress)(self.done, self.total);
        Ok(read)
    }
}

/// The server has more or less of the file than was thought, or is still writing an earlier piece.
fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::Refused { status: 409, problem } if ["wrong_offset", "file_busy"].contains(&problem.code.as_str()))
}

fn checksum(path: &Path) -> Result<(String, u64)> {
    let mut file = LocalFile::open(path).map_err(LibraryError::io("read", path))?;
    let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut buffer).map_err(LibraryError::io("read", path))?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        bytes += read as u64;
    }
    Ok((super::download::hexadecimal(&hash.finalize()), bytes))
}
