//! A run is a child process of this binary, in a folder of its own.
//!
//! Server and worker speak by files ([`crate::worker`]), so either may be killed at any moment: a worker goes on without its
//! server, and the next server finds it by its lock. Whether a process lives is asked of the lock, never of a process id,
//! which may belong to another one by now.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use finetuner::artifact::Manifest;
use finetuner::artifact::atomic::write_file;
use finetuner::artifact::event_log::EVENTS;
use finetuner::artifact::manifest::MANIFEST;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use super::{Observation, Runner};
use crate::database::FileRow;
use crate::error::{Error, Kind, Result};
use crate::request::{data_path, model_path};
use crate::storage::{Storage, on_disk};
use crate::wire::Artifact;
use crate::worker::{Job, Line, RunFolder};

/// A worker reads no more of the server's environment than this: no secret of the server is among it.
const ENVIRONMENT: [&str; 22] = [
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "TMPDIR",
    "TZ",
    "XDG_CACHE_HOME",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "HF_ENDPOINT",
    "HF_TOKEN",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
];

/// What a child process gets of the server's environment.
pub(crate) fn environment() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| ENVIRONMENT.iter().any(|known| name == known))
}

/// Bytes of events read at once.
const CHUNK: u64 = 1 << 20;

/// How long a process that was killed may take to be gone.
const GONE: Duration = Duration::from_secs(10);

/// Starts workers below a folder.
#[derive(Debug)]
pub(crate) struct ProcessRunner {
    root: PathBuf,
    binary: PathBuf,
    storage: Storage,
    /// GPUs that are given to one worker each, as CUDA numbers or names them; none where they are not counted.
    gpus: Vec<String>,
    /// Held while GPUs are chosen.
    choosing: Mutex<()>,
    /// Workers that this server has started itself, with their attempts.
    children: Mutex<HashMap<String, (u32, Child)>>,
}

impl ProcessRunner {
    /// Workers are `binary worker`, below `data`; they share so many GPUs.
    pub(crate) fn new(data: &Path, binary: PathBuf, storage: Storage, gpus: u32) -> Result<Self> {
        let root = data.join("runs");
        std::fs::create_dir_all(&root).map_err(Error::io("create", &root))?;
        let root = root.canonicalize().map_err(Error::io("find", &root))?;
        let gpus = known_gpus(gpus as usize, std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref())?;
        Ok(ProcessRunner { root, binary, storage, gpus, choosing: Mutex::default(), children: Mutex::default() })
    }

    fn folder(&self, run: &str) -> RunFolder {
        RunFolder::new(self.root.join(run))
    }

    /// The attempts of a run that something is left of.
    fn attempts(&self, run: &str) -> Result<Vec<u32>> {
        let names = names(&self.folder(run).path().join("attempts"))?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The worker of an attempt: whether it lives, and which process it is.
    async fn worker(&self, run: &str, attempt: u32) -> Result<Worker> {
        let mut children = self.children.lock().await;
        if let Some((_, child)) = children.get_mut(run).filter(|(started, _)| *started == attempt)
            && child.try_wait().map_err(Error::io("wait for the worker of", run))?.is_none()
        {
            return Ok(Worker::Alive(child.id().and_then(|id| Pid::from_raw(id as i32))));
        }
        drop(children);
        let lock = self.folder(run).lock(attempt);
        on_disk(move || holder(&lock)).await
    }

    /// GPUs that no worker has, whichever server started it.
    async fn free_gpus(&self, asked: u32) -> Result<Vec<String>> {
        let mut taken: Vec<String> = Vec::new();
        for run in names(&self.root)? {
            for attempt in self.attempts(&run)? {
                let gpus = self.folder(&run).gpus(attempt);
                if gpus.exists()
                    && let Worker::Alive(_) = self.worker(&run, attempt).await?
                {
                    taken.extend(read_json::<Vec<String>>(&gpus)?);
                }
            }
        }
        let free = self.gpus.iter().filter(|gpu| !taken.contains(gpu)).take(asked as usize);
        let free: Vec<String> = free.cloned().collect();
        if free.len() < asked as usize {
            return Err(Error::Internal(format!("asked for {asked} GPUs, and {} are free", free.len())));
        }
        Ok(free)
    }

    /// Ends whatever works on a run.
    async fn kill(&self, run: &str) -> Result<()> {
        let deadline = Instant::now() + GONE;
        for attempt in self.attempts(run)? {
            while let Worker::Alive(pid) = self.worker(run, attempt).await? {
                if Instant::now() > deadline {
                    return Err(Error::Internal(format!("the worker of attempt {attempt} of {run} cannot be ended")));
                }
                // That it is gone already is what is wanted.
                let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Runner for ProcessRunner {
    async fn start(&self, job: &Job, files: &[FileRow], models: &[Artifact]) -> Result<()> {
        let folder = self.folder(&job.run);
        // From here on a worker of an earlier attempt that has not begun stops by itself: the job is not its own.
        let text = serde_json::to_vec_pretty(job).map_err(|error| Error::Internal(error.to_string()))?;
        let (path, attempt) = (folder.job(), folder.attempt(job.attempt));
        on_disk(move || {
            std::fs::create_dir_all(&attempt).map_err(Error::io("create", &attempt))?;
            Ok(write_file(&path, |out| out.write_all(&text))?)
        })
        .await?;
        self.kill(&job.run).await?;
        for file in files {
            let path = folder.path().join(data_path(file));
            let there = tokio::fs::metadata(&path).await.is_ok_and(|found| found.len() == file.bytes);
            if !there {
                let parent = path.parent().unwrap_or(Path::new("."));
                tokio::fs::create_dir_all(parent).await.map_err(Error::io("create", parent))?;
                self.storage.bring(&file.id, &path).await?;
            }
        }
        for artifact in models {
            self.storage.bring_artifact(artifact, &folder.path().join(model_path(&artifact.run))).await?;
        }
        let stderr = folder.attempt(job.attempt).join("stderr.log");
        let stderr = File::create(&stderr).map_err(Error::io("create", &stderr))?;
        let mut command = Command::new(&self.binary);
        command.arg("worker").arg("--job").arg(folder.job()).arg("--attempt").arg(job.attempt.to_string());
        command.env_clear().envs(environment()).current_dir(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        // Ctrl-C at the server's terminal is the server's to pass on.
        command.process_group(0);
        let _choosing = self.choosing.lock().await;
        if !self.gpus.is_empty() {
            let gpus = self.free_gpus(job.gpus).await?;
            command.env("CUDA_VISIBLE_DEVICES", gpus.join(","));
            let text = serde_json::to_vec(&gpus).map_err(|error| Error::Internal(error.to_string()))?;
            let path = folder.gpus(job.attempt);
            on_disk(move || Ok(write_file(&path, |out| out.write_all(&text))?)).await?;
        }
        let child = command.spawn().map_err(Error::io("start", &self.binary))?;
        self.children.lock().await.insert(job.run.clone(), (job.attempt, child));
        Ok(())
    }

    async fn observe(&self, run: &str, attempt: u32) -> Result<Observation> {
        if let Worker::Alive(_) = self.worker(run, attempt).await? {
            let folder = self.folder(run);
            let sign =
                std::fs::metadata(folder.heartbeat(attempt)).or_else(|_| std::fs::metadata(folder.attempt(attempt)));
            let silent = sign.and_then(|sign| sign.modified()).ok().and_then(|time| time.elapsed().ok());
            return Ok(Observation::Running { silent: silent.unwrap_or_default() });
        }
        let ours = self.children.lock().await.get(run).is_some_and(|(started, _)| *started == attempt);
        let folder = self.folder(run);
        let path = folder.outcome(attempt);
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Observation::Ended)
                .map_err(|error| Error::Internal(format!("`{}` is damaged: {error}", path.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let began = ours || folder.events(attempt).exists();
                Ok(if began { Observation::Lost } else { Observation::Absent })
            }
            Err(error) => Err(Error::io("read", path)(error)),
        }
    }

    async fn read(&self, run: &str, attempt: u32, offset: u64) -> Result<(Vec<Line>, u64)> {
        let path = self.folder(run).events(attempt);
        on_disk(move || {
            let mut file = match File::open(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((Vec::new(), offset)),
                file => file.map_err(Error::io("read", &path))?,
            };
            let mut text = Vec::new();
            file.seek(SeekFrom::Start(offset)).map_err(Error::io("read", &path))?;
            file.take(CHUNK).read_to_end(&mut text).map_err(Error::io("read", &path))?;
            let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
            let lines = text[..end].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            // A line of a later worker that we do not understand is no reason to lose the others.
            let lines = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
            Ok((lines, offset + end as u64))
        })
        .await
    }

    async fn stop(&self, run: &str, attempt: u32, at_once: bool) -> Result<()> {
        if let Worker::Alive(Some(pid)) = self.worker(run, attempt).await? {
            // That it is gone already is what is wanted.
            let _ = kill_process(pid, if at_once { Signal::KILL } else { Signal::TERM });
        }
        Ok(())
    }

    async fn bytes(&self, run: &str) -> Result<u64> {
        let path = self.folder(run).path().to_owned();
        on_disk(move || bytes_below(&path).map_err(Error::io("look at", &path))).await
    }

    async fn collect(&self, run: &str, attempt: u32) -> Result<Artifact> {
        let folder = self.folder(run);
        let job: Job = read_json(&folder.job())?;
        let output = folder.output(&job.spec);
        let manifest = Manifest::read(run, read_json(&output.join(MANIFEST))?);
        let manifest = manifest.map_err(|error| damaged(error.to_string()))?;
        let mut artifact = Artifact {
            id: run.replacen("run", "artifact", 1),
            run: run.to_owned(),
            attempt,
            files: Default::default(),
        };
        for (name, record) in &manifest.files {
            let file = self.storage.add(run, attempt, name, &output.join(name)).await?;
            if (&file.sha256, file.bytes) != (&record.sha256, record.bytes) {
                return Err(damaged(format!("`{name}` has changed since it was written")));
            }
            artifact.files.insert(name.clone(), file);
        }
        for name in [EVENTS, MANIFEST] {
            let file = self.storage.add(run, attempt, name, &output.join(name)).await?;
            artifact.files.insert(name.to_owned(), file);
        }
        Ok(artifact)
    }

    async fn clean(&self, run: &str, keep_checkpoint: bool) -> Result<()> {
        self.kill(run).await?;
        self.children.lock().await.remove(run);
        let folder = self.folder(run);
        let remove = if keep_checkpoint {
            vec![folder.data(), folder.models(), folder.path().join("attempts"), folder.job()]
        } else {
            vec![folder.path().to_owned()]
        };
        on_disk(move || {
            for path in remove {
                let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
                match removed {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Error::io("remove", &path)(error));
                    }
                    _ => {}
                }
            }
            Ok(())
        })
        .await
    }

    async fn leftovers(&self) -> Result<Vec<String>> {
        names(&self.root)
    }
}

/// Whether a worker lives.
enum Worker {
    /// As this process; `None` for the moment in which it has not written its id yet.
    Alive(Option<Pid>),
    Gone,
}

/// Who holds the lock of an attempt.
fn holder(path: &Path) -> Result<Worker> {
    let mut lock = match File::options().read(true).write(true).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Worker::Gone),
        file => file.map_err(Error::io("open", path))?,
    };
    match lock.try_lock() {
        Ok(()) => Ok(Worker::Gone),
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            lock.read_to_string(&mut text).map_err(Error::io("read", path))?;
            let whole = text.strip_suffix('\n').and_then(|id| id.parse().ok());
            Ok(Worker::Alive(whole.and_then(Pid::from_raw)))
        }
        Err(TryLockError::Error(error)) => Err(Error::io("lock", path)(error)),
    }
}

/// The first GPUs of those that the environment lets us see.
fn known_gpus(number: usize, visible: Option<&str>) -> Result<Vec<String>> {
    let Some(visible) = visible.filter(|_| number > 0) else {
        return Ok((0..number).map(|gpu| gpu.to_string()).collect());
    };
    let gpus: Vec<String> = visible.split(',').map(|gpu| gpu.trim().to_owned()).filter(|gpu| !gpu.is_empty()).collect();
    if gpus.len() < number {
        let there = gpus.len();
        return Err(Error::Settings(format!(
            "`gpus`: {number}, and `CUDA_VISIBLE_DEVICES` names {there}; name more, or ask for less"
        )));
    }
    Ok(gpus.into_iter().take(number).collect())
}

/// Bytes of the files below a folder; what goes while it is looked at does not count.
fn bytes_below(folder: &Path) -> std::io::Result<u64> {
    let gone = |error: std::io::Error| if error.kind() == std::io::ErrorKind::NotFound { Ok(0) } else { Err(error) };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return gone(error),
    };
    let mut bytes = 0;
    for entry in entries {
        let entry = entry?;
        bytes += match entry.metadata() {
            Ok(found) if found.is_dir() => bytes_below(&entry.path())?,
            Ok(found) => found.len(),
            Err(error) => gone(error)?,
        };
    }
    Ok(bytes)
}

/// The names in a folder; none where there is no folder.
fn names(folder: &Path) -> Result<Vec<String>> {
    match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io("read", folder)(error)),
        Ok(entries) => Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()),
    }
}

/// What an attempt left cannot be published, now or later.
fn damaged(problem: String) -> Error {
    Error::refused(
        Kind::Invalid,
        "artifact_damaged",
        format!("the artifact is damaged: {problem}; start the run again"),
    )
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read(path).map_err(Error::io("read", path))?;
    serde_json::from_slice(&text).map_err(|error| Error::Internal(format!("`{}` is damaged: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_the_first_of_those_that_can_be_seen() {
        assert_eq!(known_gpus(2, None).unwrap(), ["0", "1"]);
        assert_eq!(known_gpus(1, Some("3, GPU-8f2a")).unwrap(), ["3"]);
        assert!(known_gpus(0, Some("0")).unwrap().is_empty());
        assert!(known_gpus(2, Some("0")).unwrap_err().to_string().contains("names 1"));
    }
}
