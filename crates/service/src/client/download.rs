//! An artifact brought to a folder of this machine, each file checked, the folder whole or not there.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Component, Path};
use std::time::Instant;

use finetuner::Error as LibraryError;
use sha2::{Digest, Sha256};
use ureq::http::{Method, StatusCode};

use super::error::{Error, Result};
use super::{Client, PAUSE, part};
use crate::wire::{Artifact, ArtifactFile};

impl Client {
    /// Downloads a run's artifact into a folder that is not there yet, or empty; `progress` hears of bytes done and in
    /// all. Nothing appears unless every checksum holds.
    ///
    /// # Errors
    /// [`Error::Refused`] unless the run has finished; [`Error::Local`] if the folder holds something or cannot be
    /// written; [`Error::Protocol`] if a file is not what the server says it is.
    pub fn download(&self, run: &str, folder: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<Artifact> {
        let artifact = self.artifact(run)?;
        let held = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
        if held || folder.is_file() {
            let problem = "holds something already; name another one with `--output`".to_owned();
            return Err(LibraryError::Output { path: folder.to_owned(), problem }.into());
        }
        let parent = match folder.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(parent).map_err(LibraryError::io("create", parent))?;
        let partial = tempfile::Builder::new().prefix(".partial-").tempdir_in(parent);
        let partial = partial.map_err(LibraryError::io("create a folder in", parent))?;
        let total = artifact.files.values().map(|file| file.bytes).sum();
        let mut done = 0;
        for (name, file) in &artifact.files {
            if !is_harmless(name) {
                return Err(Error::Protocol(format!("the artifact has a file `{name}`, which would leave its folder")));
            }
            let path = partial.path().join(name);
            let above = path.parent().unwrap_or(parent);
            std::fs::create_dir_all(above).map_err(LibraryError::io("create", above))?;
            self.bring(&artifact.run, name, file, &path, &mut |bytes| progress(done + bytes, total))?;
            done += file.bytes;
        }
        let _ = std::fs::remove_dir(folder); // empty, or not there
        let partial = partial.keep();
        open_to_others(&partial)?;
        std::fs::rename(&partial, folder).map_err(LibraryError::io("rename", &partial))?;
        progress(total, total);
        Ok(artifact)
    }

    /// One small file of a run's artifact, such as `report.json`.
    ///
    /// # Errors
    /// [`Error::Refused`] unless the run has finished and has such a file.
    pub fn artifact_file(&self, run: &str, name: &str) -> Result<Vec<u8>> {
        let request = self.request(Method::GET, &artifact_path(run, name))?;
        let mut answer = self.checked(self.agent.run(request.body(()).map_err(Error::malformed)?))?;
        answer.body_mut().with_config().limit(64 << 20).read_to_vec().map_err(|error| self.unreachable(error))
    }

    /// One file, over as many connections as it takes.
    fn bring(
        &self,
        run: &str,
        name: &str,
        file: &ArtifactFile,
        path: &Path,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let address = artifact_path(run, name);
        let mut out = File::create(path).map_err(LibraryError::io("create", path))?;
        let (mut hash, mut done, mut buffer) = (Sha256::new(), 0u64, vec![0; 1 << 18]);
        let mut moved = Instant::now();
        while done < file.bytes {
            let before = done;
            let mut request = self.request(Method::GET, &address)?;
            if done > 0 {
                request = request.header("range", format!("bytes={done}-"));
            }
            let answer = self.checked(self.agent.run(request.body(()).map_err(Error::malformed)?));
            match answer {
                Ok(answer) if done > 0 && answer.status() != StatusCode::PARTIAL_CONTENT => {
                    return Err(Error::Protocol(format!("`{name}` cannot be gone on with; pull again")));
                }
                Ok(answer) => {
                    let mut body = answer.into_body().into_reader();
                    while let Ok(read) = body.read(&mut buffer) {
                        if read == 0 {
                            break;
                        }
                        hash.update(&buffer[..read]);
                        out.write_all(&buffer[..read]).map_err(LibraryError::io("write", path))?;
                        done += read as u64;
                        progress(done);
                    }
                }
                Err(error) if !error.is_passing() || moved.elapsed() > self.patience => return Err(error),
                Err(_) => {}
            }
            if done > before {
                moved = Instant::now();
            } else if moved.elapsed() > self.patience {
                return Err(self.unreachable(format!("`{name}` stopped at {done} of {} bytes", file.bytes)));
            } else {
                std::thread::sleep(PAUSE);
            }
        }
        out.sync_all().map_err(LibraryError::io("write", path))?;
        if done != file.bytes || hexadecimal(&hash.finalize()) != file.sha256 {
            return Err(Error::Protocol(format!("`{name}` did not arrive as the server has it; pull again")));
        }
        Ok(())
    }
}

/// Where a file of an artifact is.
fn artifact_path(run: &str, name: &str) -> String {
    let name: Vec<String> = name.split('/').map(part).collect();
    format!("/v1/runs/{}/artifact/files/{}", part(run), name.join("/"))
}

/// Whether a name stays below its folder.
fn is_harmless(name: &str) -> bool {
    !name.is_empty()
        && !name.contains(['\\', ':', '\0'])
        && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Temporary folders are private; this one becomes an ordinary one.
fn open_to_others(folder: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder, mode).map_err(LibraryError::io("open", folder))?;
    }
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_stay_below_their_folder() {
        for name in ["../x", "/etc/passwd", "a/../../b", "", "a\\b", "C:x"] {
            assert!(!is_harmless(name), "{name}");
        }
        assert!(is_harmless("1_Pooling/config.json"));
    }
}
