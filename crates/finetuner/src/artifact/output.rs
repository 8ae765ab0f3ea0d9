//! The folder a run writes: claimed by one run at a time, never overwritten by accident.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use super::atomic::sync_folder;
use super::event_log::EVENTS;
use super::manifest::MANIFEST;
use crate::error::{Error, Result};

const LOCK: &str = ".finetuner.lock";

/// The file and the folder in which loggers write unless told otherwise.
pub(crate) const CSV: &str = "metrics.csv";
pub(crate) const TENSORBOARD: &str = "tensorboard";

/// How the names of folders begin that a run throws away.
const SCRATCH: &str = ".scratch";

/// Where an artifact is put together before it is moved into place.
pub(crate) const STAGING: &str = ".saving";

/// A claimed output folder. The claim ends when this is dropped, or with the process.
#[derive(Debug)]
pub struct Output {
    folder: PathBuf,
    _lock: File,
}

impl Output {
    /// Claims a folder, making it if need be. A run that resumes takes the folder as it is; a new one needs it empty.
    /// An artifact whose save was interrupted while it was moved into place is completed first.
    ///
    /// # Errors
    /// [`Error::Output`] if another run is writing there, if it holds something and `resume` is off, or if there is
    /// nothing to resume; [`Error::Io`] if it cannot be made.
    pub fn claim(folder: &Path, resume: bool) -> Result<Self> {
        let refuse = |problem: &str| Err(Error::Output { path: folder.to_owned(), problem: problem.to_owned() });
        if folder.exists() && !folder.is_dir() {
            return refuse("is a file; name a folder");
        }
        if resume && !folder.is_dir() {
            return refuse("does not exist, so there is nothing to resume; leave out `resume`");
        }
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let path = folder.join(LOCK);
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(Error::io("create", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return refuse("is in use by another run; wait for it or name another folder");
            }
            // Some network file systems have no locks; the check for an empty folder still protects what is there.
            Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
        }
        let output = Output { folder: folder.to_owned(), _lock: lock };
        if resume {
            output.finish_interrupted_save()?;
        } else if output.holds_something()? {
            return refuse("is not empty; name another folder, or set `resume` to continue the run in it");
        }
        Ok(output)
    }

    /// Whether a run is writing to a folder at this moment. Where there are no locks nobody can tell: `false`.
    pub fn is_claimed(folder: &Path) -> bool {
        let lock = File::open(folder.join(LOCK));
        lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps a file of this folder as `checkpoints/epoch-N.safetensors`, and those of the epochs before it, `epochs` in
    /// all; older ones go.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn keep_checkpoint(&self, file: &str, epoch: usize, epochs: usize) -> Result<()> {
        let folder = self.folder.join("checkpoints");
        std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let of = |epoch: usize| folder.join(format!("epoch-{epoch}.safetensors"));
        let (from, to) = (self.folder.join(file), of(epoch));
        let _ = std::fs::remove_file(&to); // of a run that was resumed from before this epoch
        // A link is enough: the next checkpoint is another file that takes the name.
        let kept = std::fs::hard_link(&from, &to).or_else(|_| std::fs::copy(&from, &to).map(drop));
        kept.map_err(Error::io("create", &to))?;
        if let Some(old) = epoch.checked_sub(epochs) {
            let _ = std::fs::remove_file(of(old));
        }
        sync_folder(&folder)
    }

    fn holds_something(&self) -> Result<bool> {
        let mut entries = std::fs::read_dir(&self.folder).map_err(Error::io("read", &self.folder))?;
        // A run that failed before its first checkpoint leaves its logs, which the next run goes on with.
        let passed = |name: &str| [LOCK, EVENTS, CSV, TENSORBOARD].contains(&name) || name.starts_with(SCRATCH);
        let counts = |name: std::ffi::OsString| !name.to_str().is_some_and(passed);
        Ok(entries.any(|entry| entry.map_or(true, |entry| counts(entry.file_name()))))
    }

    /// A folder for what a run throws away; it goes when this is dropped.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn scratch(&self) -> Result<tempfile::TempDir> {
        let made = tempfile::Builder::new().prefix(SCRATCH).tempdir_in(&self.folder);
        made.map_err(Error::io("create a folder in", &self.folder))
    }

    fn finish_interrupted_save(&self) -> Result<()> {
        let staging = self.folder.join(STAGING);
        if staging.join(MANIFEST).is_file() {
            move_into_place(&self.folder)
        } else if staging.is_dir() {
            std::fs::remove_dir_all(&staging).map_err(Error::io("remove", &staging))
        } else {
            Ok(())
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // The lock itself ends with the handle; the file is only litter, and litter is no reason to fail.
        let _ = std::fs::remove_file(self.folder.join(LOCK));
    }
}

/// Whether a complete artifact waits in the staging folder while the folder itself is without one.
pub(crate) fn interrupted(folder: &Path) -> bool {
    folder.join(STAGING).join(MANIFEST).is_file() && !folder.join(MANIFEST).is_file()
}

/// Moves a complete staged artifact to its place: the old manifest goes first and the new one comes last, so at every
/// moment the folder either is one whole artifact or says that it is not. Can be repeated after a crash at any point.
pub(crate) fn move_into_place(folder: &Path) -> Result<()> {
    let (staging, manifest) = (folder.join(STAGING), folder.join(MANIFEST));
    if manifest.exists() {
        std::fs::remove_file(&manifest).map_err(Error::io("remove", &manifest))?;
        sync_folder(folder)?;
    }
    move_files(&staging, folder)?;
    std::fs::rename(staging.join(MANIFEST), &manifest).map_err(Error::io("create", &manifest))?;
    sync_folder(folder)?;
    std::fs::remove_dir_all(&staging).map_err(Error::io("remove", &staging))
}

fn move_files(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from).map_err(Error::io("read", from))? {
        let entry = entry.map_err(Error::io("read", from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            std::fs::create_dir_all(&target).map_err(Error::io("create", &target))?;
            move_files(&source, &target)?;
        } else if entry.file_name() != MANIFEST {
            std::fs::rename(&source, &target).map_err(Error::io("create", &target))?;
        }
    }
    sync_folder(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(folder: &Path, resume: bool) -> String {
        Output::claim(folder, resume).unwrap_err().to_string()
    }

    #[test]
    fn a_folder_is_claimed_by_one_run_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("runs/first");
        assert!(!Output::is_claimed(&folder));
        let output = Output::claim(&folder, false).unwrap();
        assert!(Output::is_claimed(&folder));
        assert!(problem(&folder, false).contains("in use"));
        assert!(problem(&folder, true).contains("in use"));
        drop(output);
        assert!(!Output::is_claimed(&folder));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        Output::claim(&folder, false).unwrap();
    }

    #[test]
    fn what_is_there_is_not_overwritten_unless_the_run_resumes() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("thesis.txt"), "x").unwrap();
        assert!(problem(folder.path(), false).contains("not empty"));
        assert!(!folder.path().join(LOCK).exists());
        Output::claim(folder.path(), true).unwrap();
        assert!(problem(&folder.path().join("none"), true).contains("nothing to resume"));
        assert!(problem(&folder.path().join("thesis.txt"), false).contains("is a file"));
    }

    #[test]
    fn a_lock_left_by_a_dead_run_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(LOCK), "").unwrap();
        Output::claim(folder.path(), false).unwrap();
    }

    #[test]
    fn a_save_interrupted_between_renames_is_completed_on_resume() {
        let folder = tempfile::tempdir().unwrap();
        let staging = folder.path().join(STAGING);
        std::fs::create_dir_all(staging.join("1_Pooling")).unwrap();
        for file in ["1_Pooling/config.json", "model.safetensors", MANIFEST] {
            std::fs::write(staging.join(file), "new").unwrap();
        }
        std::fs::write(folder.path().join("config.json"), "moved before the crash").unwrap();
        assert!(interrupted(folder.path()));
        Output::claim(folder.path(), true).unwrap();
        assert!(!interrupted(folder.path()) && !staging.exists());
        for file in ["1_Pooling/config.json", "model.safetensors", MANIFEST] {
            assert_eq!(std::fs::read(folder.path().join(file)).unwrap(), b"new");
        }
    }

    #[test]
    fn a_save_interrupted_while_staging_is_thrown_away_on_resume() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(STAGING)).unwrap();
        std::fs::write(folder.path().join(STAGING).join("model.safetensors"), "half").unwrap();
        std::fs::write(folder.path().join("model.safetensors"), "old").unwrap();
        Output::claim(folder.path(), true).unwrap();
        assert!(!folder.path().join(STAGING).exists());
        assert_eq!(std::fs::read(folder.path().join("model.safetensors")).unwrap(), b"old");
    }
}
