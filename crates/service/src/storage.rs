//! Files and artifacts as objects, in a folder of this machine or a bucket; uploads that are under way, and what workers read and
//! write, as files of this machine.
//!
//! ```text
//! files/<file id>                              an uploaded file
//! runs/<run id>/attempts/<n>/<file>            what an attempt brought
//! runs/<run id>/artifact.json                  which attempt counts: created once, whoever comes second has lost
//! ```

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use object_store::{GetOptions, GetResult, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use sha2::{Digest, Sha256};

use crate::error::{Error, Kind, Result};
use crate::key::hexadecimal;
use crate::wire::{Artifact, ArtifactFile};

/// Where objects lie.
#[derive(Debug, Clone)]
pub(crate) struct Storage {
    store: Arc<dyn ObjectStore>,
    /// The folder, where it is one: what has been uploaded is moved there, not copied.
    root: Option<PathBuf>,
    uploads: PathBuf,
}

impl Storage {
    /// A folder below `data`, or the bucket of an address like `s3://bucket/prefix`, whose region, keys and endpoint are those of
    /// the usual `AWS_…` variables.
    pub(crate) fn open(address: &str, data: &Path) -> Result<Self> {
        let uploads = data.join("uploads");
        std::fs::create_dir_all(&uploads).map_err(Error::io("create", &uploads))?;
        if !address.is_empty() {
            return Ok(Storage { store: bucket(address)?, root: None, uploads });
        }
        let root = data.join("objects");
        std::fs::create_dir_all(&root).map_err(Error::io("create", &root))?;
        let store = LocalFileSystem::new_with_prefix(&root)?.with_automatic_cleanup(true).with_fsync(true);
        Ok(Storage { store: Arc::new(store), root: Some(root), uploads })
    }

    /// Whether objects can be written and read, and one that is there cannot be created again.
    pub(crate) async fn check(&self) -> Result<()> {
        let key = Key::from(format!("check-{}", ulid::Ulid::generate()));
        let once = || PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        self.store.put_opts(&key, PutPayload::from_static(b"check"), once()).await?;
        self.store.get(&key).await?.bytes().await?;
        let again = self.store.put_opts(&key, PutPayload::from_static(b"check"), once()).await;
        self.store.delete(&key).await?;
        match again {
            Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => Err(Error::Settings(
                "`storage`: creates an object that is there already, so that a run could have two artifacts; take one that \
                 knows `If-None-Match: *`"
                    .into(),
            )),
        }
    }

    /// The part of an upload that has arrived.
    pub(crate) fn upload(&self, file: &str) -> PathBuf {
        self.uploads.join(file)
    }

    /// Uploads by the ids of their files.
    pub(crate) fn uploads(&self) -> Result<Vec<String>> {
        let entries = std::fs::read_dir(&self.uploads).map_err(Error::io("read", &self.uploads))?;
        Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
    }

    /// Ids of the files that are kept, and of the runs that something is kept of.
    pub(crate) async fn kept(&self) -> Result<(Vec<String>, Vec<String>)> {
        let name = |key: &Key| key.parts().next_back().map(|part| part.as_ref().to_owned());
        let files = self.store.list_with_delimiter(Some(&Key::from("files"))).await?;
        let runs = self.store.list_with_delimiter(Some(&Key::from("runs"))).await?;
        let files = files.objects.iter().filter_map(|object| name(&object.location)).collect();
        Ok((files, runs.common_prefixes.iter().filter_map(name).collect()))
    }

    /// Makes a whole upload a file.
    pub(crate) async fn keep(&self, file: &str) -> Result<()> {
        let from = self.upload(file);
        let Some(root) = &self.root else {
            self.put(Key::from_iter(["files", file]), &from).await?;
            return tokio::fs::remove_file(&from).await.map_err(Error::io("remove", from));
        };
        let to = root.join("files").join(file);
        on_disk(move || {
            let folder = to.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
            std::fs::rename(&from, &to).map_err(Error::io("rename", &from))?;
            Ok(finetuner::artifact::atomic::sync_folder(folder)?)
        })
        .await
    }

    /// Writes a file's bytes to a path.
    pub(crate) async fn bring(&self, file: &str, to: &Path) -> Result<()> {
        self.write(&Key::from_iter(["files", file]), to).await
    }

    /// Writes an object's bytes to a path.
    async fn write(&self, key: &Key, to: &Path) -> Result<()> {
        let mut stream = self.store.get(key).await?.into_stream();
        let mut out = tokio::fs::File::create(to).await.map_err(Error::io("create", to))?;
        while let Some(chunk) = stream.try_next().await? {
            tokio::io::AsyncWriteExt::write_all(&mut out, &chunk).await.map_err(Error::io("write", to))?;
        }
        tokio::io::AsyncWriteExt::flush(&mut out).await.map_err(Error::io("write", to))
    }

    /// Removes a file, whether it has arrived or not.
    pub(crate) async fn remove_file(&self, file: &str) -> Result<()> {
        self.remove_object(file).await?;
        self.remove_upload(file).await
    }

    /// Removes a file that has arrived.
    pub(crate) async fn remove_object(&self, file: &str) -> Result<()> {
        ignore_missing(self.store.delete(&Key::from_iter(["files", file])).await)
    }

    /// Removes what has arrived of a file that is not whole.
    pub(crate) async fn remove_upload(&self, file: &str) -> Result<()> {
        match tokio::fs::remove_file(self.upload(file)).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", self.upload(file))(error))
            }
            _ => Ok(()),
        }
    }

    /// Stores one file of an attempt's artifact.
    pub(crate) async fn add(&self, run: &str, attempt: u32, name: &str, from: &Path) -> Result<ArtifactFile> {
        self.put(attempt_key(run, attempt, name), from).await
    }

    /// Stores a file of this machine.
    async fn put(&self, key: Key, from: &Path) -> Result<ArtifactFile> {
        let mut upload = object_store::buffered::BufWriter::new(self.store.clone(), key);
        let mut file = tokio::fs::File::open(from).await.map_err(Error::io("read", from))?;
        let mut hash = Sha256::new();
        let (mut bytes, mut buffer) = (0u64, vec![0; 1 << 20]);
        loop {
            let read = tokio::io::AsyncReadExt::read(&mut file, &mut buffer).await.map_err(Error::io("read", from))?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
            bytes += read as u64;
            upload.put(Bytes::copy_from_slice(&buffer[..read])).await?;
        }
        tokio::io::AsyncWriteExt::shutdown(&mut upload).await.map_err(Error::io("store", from))?;
        Ok(ArtifactFile { sha256: hexadecimal(&hash.finalize()), bytes })
    }

    /// Publishes an artifact, once: gives the one that counts, which may be an earlier one.
    pub(crate) async fn publish(&self, artifact: &Artifact) -> Result<Artifact> {
        let body = serde_json::to_vec(artifact).map_err(|error| Error::Internal(error.to_string()))?;
        let key = manifest_key(&artifact.run);
        let once = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&key, body.into(), once).await {
            Ok(_) => Ok(artifact.clone()),
            Err(object_store::Error::AlreadyExists { .. }) => {
                let published = self.published(&artifact.run).await?;
                published.ok_or_else(|| Error::Internal(format!("{key} is there and is not")))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The artifact that counts, if there is one.
    pub(crate) async fn published(&self, run: &str) -> Result<Option<Artifact>> {
        let body = match self.store.get(&manifest_key(run)).await {
            Ok(found) => found.bytes().await?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let damaged = |error| Error::Internal(format!("the manifest of {run} is damaged: {error}"));
        serde_json::from_slice(&body).map(Some).map_err(damaged)
    }

    /// Writes the files of an artifact to a folder, and checks each.
    pub(crate) async fn bring_artifact(&self, artifact: &Artifact, folder: &Path) -> Result<()> {
        for (name, file) in &artifact.files {
            let path = folder.join(name);
            let parent = path.parent().unwrap_or(folder);
            tokio::fs::create_dir_all(parent).await.map_err(Error::io("create", parent))?;
            self.write(&attempt_key(&artifact.run, artifact.attempt, name), &path).await?;
            if checksum(path).await? != *file {
                let message = format!("`{name}` of the artifact of {} is damaged; take another model", artifact.run);
                return Err(Error::refused(Kind::Conflict, "artifact_damaged", message));
            }
        }
        Ok(())
    }

    /// Opens a file of an artifact.
    pub(crate) async fn open_file(
        &self,
        artifact: &Artifact,
        name: &str,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<GetResult> {
        let options = GetOptions { range: range.map(Into::into), ..GetOptions::default() };
        Ok(self.store.get_opts(&attempt_key(&artifact.run, artifact.attempt, name), options).await?)
    }

    /// Removes what attempts brought that do not count, or everything of a run.
    pub(crate) async fn remove_run(&self, run: &str, except: Option<u32>) -> Result<()> {
        let folder = Key::from_iter(["runs", run]);
        let objects: Vec<_> = self.store.list(Some(&folder)).try_collect().await?;
        let kept = except.map(|attempt| Key::from_iter(["runs", run, "attempts", &attempt.to_string()]));
        for object in objects {
            let counts = kept.as_ref().is_some_and(|kept| object.location.prefix_matches(kept))
                || except.is_some() && object.location == manifest_key(run);
            if !counts {
                ignore_missing(self.store.delete(&object.location).await)?;
            }
        }
        let Some(root) = &self.root else { return Ok(()) };
        let folder = root.join("runs").join(run);
        on_disk(move || remove_unfinished(&folder)).await
    }
}

/// A bucket as the environment describes it. Every part is sent with its checksum, which the store checks.
fn bucket(address: &str) -> Result<Arc<dyn ObjectStore>> {
    let path = address.strip_prefix("s3://").and_then(|rest| rest.split_once('/').or(Some((rest, ""))));
    let Some((name, prefix)) = path.filter(|(name, _)| !name.is_empty()) else {
        let message =
            format!("`storage`: expected `s3://bucket/prefix`, or nothing for a folder in `data`, got `{address}`");
        return Err(Error::Settings(message));
    };
    let builder = AmazonS3Builder::from_env().with_bucket_name(name).with_checksum_algorithm(Checksum::SHA256);
    let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint).unwrap_or_default();
    let store = builder.with_allow_http(endpoint.starts_with("http://")).build()?;
    let prefix = Key::parse(prefix).map_err(|error| Error::Settings(format!("`storage`: {error}")))?;
    Ok(Arc::new(PrefixStore::new(store, prefix)))
}

/// Removes what a crash left of files that were being written: the folder's store names them `NAME#1` and lists them nowhere.
fn remove_unfinished(folder: &Path) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::io("read", folder))?,
    };
    for entry in entries {
        let path = entry.map_err(Error::io("read", folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let number = name.rsplit_once('#').map_or("", |(_, number)| number);
        if path.is_dir() {
            remove_unfinished(&path)?;
        } else if !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()) {
            std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    // A folder with nothing in it goes, too; one with something stays.
    let _ = std::fs::remove_dir(folder);
    Ok(())
}

fn attempt_key(run: &str, attempt: u32, name: &str) -> Key {
    ["runs", run, "attempts", &attempt.to_string()].into_iter().chain(name.split('/')).collect()
}

fn manifest_key(run: &str) -> Key {
    Key::from_iter(["runs", run, "artifact.json"])
}

fn ignore_missing(result: object_store::Result<()>) -> Result<()> {
    match result {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// SHA-256 and size of a file of this machine.
pub(crate) async fn checksum(path: PathBuf) -> Result<ArtifactFile> {
    on_disk(move || {
        let mut file = std::fs::File::open(&path).map_err(Error::io("read", &path))?;
        let mut hash = HashWriter(Sha256::new());
        let bytes = std::io::copy(&mut file, &mut hash).map_err(Error::io("read", &path))?;
        Ok(ArtifactFile { sha256: hexadecimal(&hash.0.finalize()), bytes })
    })
    .await
}

/// Runs what blocks on another thread.
pub(crate) async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::Internal(format!("a task ended early: {error}")))?
}

struct HashWriter(Sha256);

impl Write for HashWriter {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.0.update(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_two_artifacts_of_a_run_one_counts() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::open("", folder.path()).unwrap();
        storage.check().await.unwrap();
        let artifact =
            |attempt| Artifact { id: "artifact-x".into(), run: "run-x".into(), attempt, files: Default::default() };
        let (first, second) = (artifact(1), artifact(2));
        let (one, other) = tokio::join!(storage.publish(&first), storage.publish(&second));
        assert_eq!(one.unwrap(), other.unwrap());
    }

    #[tokio::test]
    async fn what_a_crash_left_of_a_file_goes_with_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::open("", folder.path()).unwrap();
        let attempt = folder.path().join("objects/runs/run-x/attempts/1");
        std::fs::create_dir_all(&attempt).unwrap();
        for name in ["a", "a#1", "b#c"] {
            std::fs::write(attempt.join(name), "x").unwrap();
        }
        storage.remove_run("run-x", Some(1)).await.unwrap();
        assert!(attempt.join("a").exists() && attempt.join("b#c").exists() && !attempt.join("a#1").exists());
        std::fs::write(attempt.join("a#1"), "x").unwrap();
        storage.remove_run("run-x", None).await.unwrap();
        assert!(!folder.path().join("objects/runs/run-x").exists());
    }

    #[test]
    fn an_address_names_a_bucket() {
        let folder = tempfile::tempdir().unwrap();
        for address in ["s3://", "s3:///prefix", "gs://bucket", "/folder"] {
            let error = Storage::open(address, folder.path()).unwrap_err().to_string();
            assert!(error.starts_with("`storage`: expected `s3://bucket/prefix`"), "{error}");
        }
    }
}
