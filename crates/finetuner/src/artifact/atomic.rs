//! A file is there completely or not at all.

use std::fs::{File, Permissions};
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// Writes a file under a temporary name beside `path`, syncs it to the disk and renames it to `path`.
///
/// Whatever goes wrong, a full disk included, `path` keeps what it held before and the temporary file is removed.
///
/// # Errors
/// [`Error::Io`] with the step that failed.
pub fn write_file(path: &Path, fill: impl FnOnce(&mut (dyn Write + Send)) -> std::io::Result<()>) -> Result<()> {
    let folder = parent(path);
    let mut builder = tempfile::Builder::new();
    builder.prefix(".partial-");
    open_to_others(&mut builder);
    let temporary = builder.tempfile_in(folder).map_err(Error::io("create a file in", folder))?;
    let mut writer = BufWriter::with_capacity(1 << 20, temporary);
    fill(&mut writer).map_err(Error::io("write", path))?;
    let temporary = writer.into_inner().map_err(|error| Error::io("write", path)(error.into_error()))?;
    temporary.as_file().sync_all().map_err(Error::io("write", path))?;
    temporary.persist(path).map_err(|error| Error::io("replace", path)(error.error))?;
    sync_folder(folder)
}

/// Makes renames and removals in a folder survive a power cut.
///
/// # Errors
/// [`Error::Io`].
pub fn sync_folder(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(folder).and_then(|file| file.sync_all()).map_err(Error::io("sync", folder))?;
    }
    Ok(())
}

/// The folder a path lies in; `.` for a bare name.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Temporary files are private by default; these become ordinary files, so the user's umask decides.
fn open_to_others(builder: &mut tempfile::Builder) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(Permissions::from_mode(0o666));
    }
    #[cfg(not(unix))]
    let _ = (builder, std::marker::PhantomData::<Permissions>);
}

/// A file size limit stands in for a full disk: unlike permissions it holds for every user, root included.
#[cfg(unix)]
#[cfg(test)]
pub(crate) mod full_disk {
    use std::path::{Path, PathBuf};

    const FOLDER: &str = "FINETUNER_TEST_FULL_DISK";

    /// In the repeated test: the folder to write to.
    pub(crate) fn folder() -> Option<PathBuf> {
        std::env::var_os(FOLDER).map(PathBuf::from)
    }

    /// Runs the named test again in a process of its own that can write no file above a few dozen KiB.
    pub(crate) fn repeat(test: &str, folder: &Path) {
        let child = std::process::Command::new("sh")
            .args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" --exact \"$1\" --nocapture"])
            .arg(std::env::current_exe().unwrap())
            .arg(test)
            .env(FOLDER, folder)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(
            child.status.success() && said.contains("1 passed"),
            "{said}{}",
            String::from_utf8_lossy(&child.stderr)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_litter() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint");
        write_file(&path, |out| out.write_all(b"old")).unwrap();
        let error = write_file(&path, |out| {
            out.write_all(&[0; 5 << 20])?;
            Err(std::io::ErrorKind::StorageFull.into())
        })
        .unwrap_err();
        assert!(error.to_string().contains("cannot write"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_folder_is_an_error_that_names_it() {
        let error = write_file(Path::new("no/such/folder/file"), |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("no/such/folder"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_readable_by_others_as_the_umask_says() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (ours, plain) = (folder.path().join("ours"), folder.path().join("plain"));
        write_file(&ours, |_| Ok(())).unwrap();
        File::create(&plain).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }
}
