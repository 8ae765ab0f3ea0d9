//! Questions about data and models, asked of a child process: it alone reads what strangers brought and computes with it, in a
//! folder of its own, under limits of memory and time.
//!
//! One inspection and one search are answered at a time; who comes then waits. An inspection's process ends with its answer.
//! The one that searches keeps its models open for the next query and ends when nobody has asked for a while, or when
//! another run is tried.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Mutex, MutexGuard};

use crate::database::FileRow;
use crate::error::{Error, Kind, Result};
use crate::question::{MODEL, Question, Reply};
use crate::request::{data_path, localise};
use crate::runner::process::environment;
use crate::settings::Settings;
use crate::storage::Storage;
use crate::wire::{Artifact, Found, Inspection, NewSearch};

/// How long one waits for those who came before.
const TURN: Duration = Duration::from_secs(120);

/// How long an inspection may take.
const INSPECTION: Duration = Duration::from_secs(300);

/// How long a search may take: the first one of a run embeds its documents with two models.
const SEARCH: Duration = Duration::from_secs(600);

/// How long models stay open for the next query.
const IDLE: Duration = Duration::from_secs(120);

/// Fields of a spec: what it names are ids of files.
type Fields = serde_json::Map<String, serde_json::Value>;

/// Asks.
pub(crate) struct Inquiries {
    root: PathBuf,
    binary: PathBuf,
    storage: Storage,
    memory: u64,
    threads: usize,
    inspecting: Mutex<()>,
    warm: Arc<Mutex<Option<Warm>>>,
}

/// A process with the models of a run open.
struct Warm {
    run: String,
    used: Instant,
    process: Process,
}

/// A process that answers; it ends, and its folder goes, when this is dropped.
struct Process {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _child: Child,
    folder: TempDir,
}

impl Inquiries {
    /// Processes are `binary answer`, in folders below that of the settings.
    pub(crate) fn new(settings: &Settings, binary: PathBuf, storage: Storage) -> Result<Self> {
        let root = settings.data.join("questions");
        if root.exists() {
            // What a killed server left; its processes have ended with it.
            std::fs::remove_dir_all(&root).map_err(Error::io("remove", &root))?;
        }
        std::fs::create_dir_all(&root).map_err(Error::io("create", &root))?;
        let threads = (settings.all_cpus() as usize / settings.runs).max(1);
        let memory = settings.question_memory;
        Ok(Inquiries { root, binary, storage, memory, threads, inspecting: Mutex::default(), warm: Arc::default() })
    }

    /// What these files are.
    pub(crate) async fn inspect(&self, spec: &Fields, files: &[FileRow]) -> Result<Inspection> {
        let _turn = turn(self.inspecting.lock()).await?;
        let mut process = self.start(files).await?;
        let spec = localise(spec, "inspection", files, self.threads)?;
        process.ask(&Question::Inspect { spec: spec.into() }, INSPECTION).await
    }

    /// What both models of a run find.
    pub(crate) async fn search(
        &self,
        artifact: &Artifact,
        spec: &Fields,
        files: &[FileRow],
        search: NewSearch,
    ) -> Result<Found> {
        let mut place = turn(self.warm.lock()).await?;
        // Taken out: where the caller goes away in the middle, the answer must not be the next one's.
        let process = match place.take() {
            Some(warm) if warm.run == artifact.run => Some(warm.process),
            _ => None,
        };
        let mut process = match process {
            Some(process) => process,
            None => {
                let process = self.start(files).await?;
                self.bring_model(artifact, &process.folder.path().join(MODEL)).await?;
                process
            }
        };
        let spec = localise(spec, "trial", files, self.threads)?;
        let found = process.ask(&Question::Search { spec: spec.into(), search }, SEARCH).await;
        if matches!(found, Ok(_) | Err(Error::Refused { kind: Kind::Invalid, .. })) {
            *place = Some(Warm { run: artifact.run.clone(), used: Instant::now(), process });
            self.end_when_idle();
        }
        found
    }

    fn end_when_idle(&self) {
        let warm = self.warm.clone();
        tokio::spawn(async move {
            tokio::time::sleep(IDLE).await;
            let mut place = warm.lock().await;
            if place.as_ref().is_some_and(|warm| warm.used.elapsed() >= IDLE) {
                *place = None;
            }
        });
    }

    /// Starts a process in a folder that holds these files.
    async fn start(&self, files: &[FileRow]) -> Result<Process> {
        let folder = TempDir::new_in(&self.root).map_err(Error::io("create a folder in", &self.root))?;
        for file in files {
            let path = folder.path().join(data_path(file));
            let parent = path.parent().unwrap_or(Path::new("."));
            tokio::fs::create_dir_all(parent).await.map_err(Error::io("create", parent))?;
            self.storage.bring(&file.id, &path).await?;
        }
        let mut command = Command::new(&self.binary);
        command.arg("--threads").arg(self.threads.to_string());
        command.arg("answer").arg("--memory").arg(self.memory.to_string());
        command.env_clear().envs(environment()).current_dir(folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        // Ctrl-C at the server's terminal is the server's to pass on.
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(Error::io("start", &self.binary))?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(input), Some(output)) => {
                Ok(Process { input, output: BufReader::new(output).lines(), _child: child, folder })
            }
            _ => Err(Error::Internal("a child process has no standard input or output".into())),
        }
    }

    async fn bring_model(&self, artifact: &Artifact, to: &Path) -> Result<()> {
        for name in artifact.files.keys() {
            let path = to.join(name);
            let parent = path.parent().unwrap_or(Path::new("."));
            tokio::fs::create_dir_all(parent).await.map_err(Error::io("create", parent))?;
            let mut stream = self.storage.open_file(artifact, name, None).await?.into_stream();
            let mut out = tokio::fs::File::create(&path).await.map_err(Error::io("create", &path))?;
            while let Some(chunk) = stream.try_next().await? {
                out.write_all(&chunk).await.map_err(Error::io("write", &path))?;
            }
            out.flush().await.map_err(Error::io("write", &path))?;
        }
        Ok(())
    }
}

impl Process {
    /// Asks, and waits for the answer so long.
    async fn ask<T: DeserializeOwned>(&mut self, question: &Question, patience: Duration) -> Result<T> {
        let mut line = serde_json::to_vec(question).map_err(|error| Error::Internal(error.to_string()))?;
        line.push(b'\n');
        let answered = tokio::time::timeout(patience, async {
            self.input.write_all(&line).await.ok()?;
            self.input.flush().await.ok()?;
            self.output.next_line().await.ok()?
        });
        let seconds = patience.as_secs();
        let line = answered.await.map_err(|_| {
            gave_up(
                "took_too_long",
                format!("this took longer than {seconds} seconds; try it with fewer or smaller items"),
            )
        })?;
        let line = line.ok_or_else(|| {
            let message = "the process that looked at it ended early; the usual reason is memory: raise the server's \
                           `question_memory`, or try it with fewer or smaller items";
            gave_up("process_lost", message.into())
        })?;
        let damaged = |error| Error::Internal(format!("an answer is damaged: {error}"));
        match serde_json::from_str(&line).map_err(damaged)? {
            Reply::Answer(answer) => serde_json::from_value(answer).map_err(damaged),
            Reply::Refused(problem) => Err(Error::Refused {
                kind: Kind::Invalid,
                code: code(&problem.code),
                param: problem.param,
                message: problem.message,
            }),
        }
    }
}

/// Codes that a process may answer with.
fn code(code: &str) -> &'static str {
    let known = ["invalid_spec", "invalid_data", "invalid_picture", "invalid_model", "download_failed"];
    known.into_iter().find(|known| *known == code).unwrap_or("not_possible")
}

/// The process is ended; what was asked may be asked again.
fn gave_up(code: &'static str, message: String) -> Error {
    Error::refused(Kind::Unavailable, code, message)
}

/// Waits for one's turn.
async fn turn<'a, T>(lock: impl Future<Output = MutexGuard<'a, T>>) -> Result<MutexGuard<'a, T>>
where
    T: 'a,
{
    tokio::time::timeout(TURN, lock).await.map_err(|_| {
        let message = "others are being answered, and it takes long; ask again in a minute";
        gave_up("busy", message.into())
    })
}
