//! `finetuner worker`: one attempt at a run of a server. Started by `finetuner serve`; see [`service::worker`] for what both
//! say to each other.
//!
//! Exit codes: 0 the outcome is written, 75 somebody else is to do it, 1 it could not even be written.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use finetuner::artifact::Output;
use finetuner::artifact::atomic::write_file;
use finetuner::artifact::manifest::MANIFEST;
use finetuner::event::{Event, Sink};
use finetuner::spec::RunSpec;
use finetuner::train;
use service::wire::Problem;
use service::worker::{HEARTBEAT, Job, Line, Outcome, RunFolder};

use crate::unpack::unpack_data;

/// Another attempt is to do it; as `sysexits.h` says "try again".
const ANOTHER: u8 = 75;

/// A server that looks whether the lock is free holds it for a moment.
const LOCKING: Duration = Duration::from_secs(5);

/// How much a worker lets others go first, of 19.
#[cfg(unix)]
const NICENESS: i32 = 10;

/// Between two events of progress in one phase.
const PACE: Duration = Duration::from_millis(500);

/// Work on a run of a server. Started by `finetuner serve`, not by hand
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct Arguments {
    /// The `job.json` of the run
    #[arg(long, value_name = "FILE")]
    job: PathBuf,
    /// The attempt that this is
    #[arg(long, value_name = "N")]
    attempt: u32,
}

/// Trains, resuming what an earlier attempt has left.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    give_way();
    let attempt = arguments.attempt;
    let folder = RunFolder::new(arguments.job.parent().unwrap_or(Path::new(".")));
    let Some(_lock) = lock(&folder.lock(attempt))? else { return Ok(ExitCode::from(ANOTHER)) };
    // Read under the lock: a server that gave the run to another attempt has written the job before it looked at locks.
    let text = std::fs::read(&arguments.job).with_context(|| format!("cannot read `{}`", arguments.job.display()))?;
    let job: Job = serde_json::from_slice(&text).with_context(|| format!("`{}`", arguments.job.display()))?;
    if job.attempt != attempt {
        return Ok(ExitCode::from(ANOTHER));
    }
    let mut log = Log::create(&folder.events(attempt))?;
    show_life(folder.heartbeat(attempt));
    let stop = stop_when_told()?;
    limit_memory(job.memory)?;
    let outcome = match work(&folder, &job, &mut log, &stop) {
        Ok(outcome) => outcome,
        Err(error) => Outcome::Failed { error: problem(&error) },
    };
    let text = serde_json::to_vec(&outcome)?;
    write_file(&folder.outcome(attempt), |out| out.write_all(&text))?;
    Ok(ExitCode::SUCCESS)
}

/// Lets other processes go first, above all the server, which has somebody waiting for each of its answers. Threads that come
/// later inherit it.
fn give_way() {
    // A worker without it works all the same.
    #[cfg(unix)]
    let _ = rustix::process::nice(NICENESS);
}

/// Goes on from wherever the attempt before was killed.
fn work(folder: &RunFolder, job: &Job, log: &mut Log, stop: &AtomicBool) -> finetuner::Result<Outcome> {
    let output = folder.output(&job.spec);
    let mut resume = false;
    if output.is_dir() {
        // Completes a save that was interrupted while it was moved into place.
        drop(Output::claim(&output, true)?);
        if output.join(MANIFEST).is_file() {
            return Ok(Outcome::Finished);
        }
        resume = output.join("checkpoint.safetensors").is_file();
        if !resume {
            // Nothing in it can be gone on with.
            std::fs::remove_dir_all(&output).map_err(finetuner::Error::io("remove", &output))?;
        }
    }
    let spec = RunSpec { resume, ..unpack_data(&job.spec)? };
    match train::train(&spec, log, stop)? {
        train::Outcome::Finished(_) => Ok(Outcome::Finished),
        train::Outcome::Stopped { step } => Ok(Outcome::Stopped { step }),
    }
}

/// Takes the lock and writes this process's id into it; `None` if another process keeps it.
fn lock(path: &Path) -> Result<Option<File>> {
    let started = Instant::now();
    let mut file = OpenOptions::new().create(true).append(true).open(path);
    let file = file.as_mut().map_err(|error| anyhow::anyhow!("cannot open `{}`: {error}", path.display()))?;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if started.elapsed() < LOCKING => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error).context("cannot lock"),
        }
    }
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())?;
    Ok(Some(file.try_clone()?))
}

/// Touches a file for as long as the process lives.
fn show_life(path: PathBuf) {
    std::thread::spawn(move || {
        loop {
            // A disk that is full for a moment is no reason to stop training.
            let _ = std::fs::write(&path, b"alive\n");
            std::thread::sleep(HEARTBEAT);
        }
    });
}

/// Told more than once is told: a server says it again in case the first time came too early.
fn stop_when_told() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    ctrlc::set_handler(move || told.store(true, Ordering::Relaxed))?;
    Ok(stop)
}

/// What is asked for beyond the limit fails in this process and nowhere else.
#[cfg(unix)]
pub(super) fn limit_memory(bytes: u64) -> Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    if bytes > 0 {
        let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
        setrlimit(Resource::Data, limit).context("cannot limit memory")?;
    }
    Ok(())
}

#[cfg(not(unix))]
pub(super) fn limit_memory(bytes: u64) -> Result<()> {
    anyhow::ensure!(bytes == 0, "memory can be limited on Unix only; ask for none");
    Ok(())
}

/// Appends every event as a line, whole or not at all as far as readers can see.
struct Log {
    file: File,
    /// The phase that goes on, and when it was last told of.
    progress: Option<(String, Instant)>,
}

impl Log {
    fn create(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.with_context(|| format!("cannot open `{}`", path.display()))?;
        Ok(Log { file, progress: None })
    }

    /// Whether an event is worth its line: of progress a few a second are.
    fn is_worth(&mut self, event: &Event) -> bool {
        match event {
            // JSON has no such numbers; a run whose loss is one ends with an error that says so.
            Event::Metric { value, .. } => value.is_finite(),
            Event::Progress { phase, done, total, .. } => {
                let fresh = self.progress.as_ref().is_some_and(|(at, when)| at == phase && when.elapsed() < PACE);
                if fresh && done < total {
                    return false;
                }
                self.progress = Some((phase.clone(), Instant::now()));
                true
            }
            _ => true,
        }
    }
}

impl Sink for Log {
    fn send(&mut self, event: &Event) {
        if !self.is_worth(event) {
            return;
        }
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        if let Ok(mut line) = serde_json::to_vec(&Line { time, event: event.clone() }) {
            line.push(b'\n');
            // That nobody can be told must not stop training.
            let _ = self.file.write_all(&line);
        }
    }
}

/// An error as the API tells it.
pub(super) fn problem(error: &finetuner::Error) -> Problem {
    use finetuner::Error;
    let (code, param) = match error {
        Error::Spec { problems } => ("invalid_spec", problems.first().map(|problem| format!("spec.{}", problem.field))),
        Error::Data { .. } => ("invalid_data", None),
        Error::Picture { .. } => ("invalid_picture", None),
        Error::Model { .. } => ("invalid_model", Some("spec.model".to_owned())),
        Error::Download { .. } => ("download_failed", Some("spec.model".to_owned())),
        Error::Diverged(_) => ("diverged", None),
        _ => ("run_failed", None),
    };
    Problem { code: code.into(), message: error.to_string(), param, kind: "run".into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use finetuner::event::Level;

    #[test]
    fn progress_is_told_a_few_times_a_second_and_at_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut log = Log::create(&path).unwrap();
        for done in 0..=1000 {
            log.send(&Event::Progress { phase: "train".into(), done, total: 1000, note: None });
        }
        log.send(&Event::Log { level: Level::Info, message: "two\nlines".into() });
        log.send(&Event::Metric { name: "train_loss".into(), step: 1, value: f64::NAN });
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Line> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!((3..20).contains(&lines.len()), "{text}");
        assert!(matches!(lines[lines.len() - 2].event, Event::Progress { done: 1000, .. }), "{text}");
    }

    #[test]
    fn a_lock_is_held_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = lock(&path).unwrap().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        assert!(File::open(&path).unwrap().try_lock().is_err());
        drop(held);
        assert!(lock(&path).unwrap().is_some());
    }
}
