//! What people see: talk and progress on standard error, data on standard output.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::Result;
use console::style;
use finetuner::event::{Event, Level, Sink};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(crate) enum Loudness {
    /// Warnings and errors only.
    Quiet,
    /// Progress and what was decided.
    Normal,
    /// Every measurement and checkpoint too.
    Verbose,
}

/// Metrics that are worth a line each time they are measured.
const TOLD: [&str; 3] = ["epoch_loss", "val_loss", "mrr"];

/// Between two lines of progress where there is no terminal to draw on: this long, and a tenth of the way …
const PAUSE: Duration = Duration::from_secs(5);
/// … or this long.
const SILENCE: Duration = Duration::from_secs(60);

/// The terminal, or a log file in its place.
pub(crate) struct Terminal {
    loudness: Loudness,
    draws: bool,
    progress: Option<Progress>,
}

/// The phase that is going on.
struct Progress {
    phase: String,
    started: Instant,
    bar: Option<ProgressBar>,
    /// When and where the last line was written.
    told: (Instant, usize),
}

impl Terminal {
    pub(crate) fn new(loudness: Loudness) -> Self {
        Terminal { loudness, draws: std::io::stderr().is_terminal(), progress: None }
    }

    /// Good to know.
    pub(crate) fn info(&self, message: &str) {
        if self.loudness >= Loudness::Normal {
            self.line(message);
        }
    }

    /// Something to act on.
    pub(crate) fn warn(&self, message: &str) {
        self.line(&format!("{} {message}", style("warning:").yellow().bold().for_stderr()));
    }

    /// Work has moved on within a phase.
    pub(crate) fn progress(&mut self, phase: &str, done: usize, total: usize, note: Option<&str>) {
        if self.loudness < Loudness::Normal || total == 0 {
            return;
        }
        let current = self.progress.take().filter(|current| current.phase == phase);
        let mut current = current.unwrap_or_else(|| Progress::new(phase, total, self.draws));
        match &current.bar {
            Some(bar) => {
                bar.set_position(done as u64);
                bar.set_message(note.unwrap_or_default().to_owned());
            }
            None => current.tell(done, total, note),
        }
        if done < total {
            self.progress = Some(current);
        } else if let Some(bar) = current.bar {
            bar.finish();
        }
    }

    fn line(&self, message: &str) {
        match self.progress.as_ref().and_then(|progress| progress.bar.as_ref()) {
            Some(bar) => bar.println(message),
            // Where standard error is gone there is nobody left to tell.
            None => drop(writeln!(std::io::stderr(), "{message}")),
        }
    }
}

impl Progress {
    fn new(phase: &str, total: usize, draws: bool) -> Self {
        let bar = draws.then(|| {
            let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{prefix:15} {wide_bar} {pos}/{len} {per_sec} {eta} left {msg}");
            bar.set_style(style.expect("the template is valid, or a bug").progress_chars("━╸ "));
            bar.set_prefix(phase.to_owned());
            bar
        });
        let now = Instant::now();
        Progress { phase: phase.to_owned(), started: now, bar, told: (now, 0) }
    }

    /// A plain line now and then, and one at the end.
    fn tell(&mut self, done: usize, total: usize, note: Option<&str>) {
        let (when, before) = self.told;
        let further = (done.saturating_sub(before)) * 10 >= total;
        if done < total && !(when.elapsed() >= PAUSE && further || when.elapsed() >= SILENCE) {
            return;
        }
        self.told = (Instant::now(), done);
        let elapsed = self.started.elapsed().as_secs_f64();
        let mut line = format!("{}: {done}/{total}", self.phase);
        if done < total && done > 0 {
            line += &format!(", about {:.0} s left", elapsed / done as f64 * (total - done) as f64);
        } else {
            line += &format!(" in {elapsed:.1} s");
        }
        if let Some(note) = note {
            line += &format!(", {note}");
        }
        drop(writeln!(std::io::stderr(), "{line}"));
    }
}

impl Sink for Terminal {
    fn send(&mut self, event: &Event) {
        match event {
            Event::Log { level: Level::Info, message } => self.info(message),
            Event::Log { level: Level::Warning, message } => self.warn(message),
            Event::Progress { phase, done, total, note } => self.progress(phase, *done, *total, note.as_deref()),
            Event::Metric { name, step, value } => {
                let worth = if TOLD.contains(&name.as_str()) { Loudness::Normal } else { Loudness::Verbose };
                if self.loudness >= worth {
                    self.line(&format!("step {step}: {name} {}", number(*value)));
                }
            }
            Event::Checkpoint { step } if self.loudness >= Loudness::Verbose => {
                self.line(&format!("step {step}: checkpoint saved"));
            }
            _ => {}
        }
    }
}

/// Four decimals, or the exponent of what would vanish in them.
fn number(value: f64) -> String {
    if value != 0.0 && value.abs() < 1e-3 { format!("{value:.3e}") } else { format!("{value:.4}") }
}

/// Writes data to standard output; the text ends its own lines.
///
/// # Errors
/// [`std::io::Error`], a broken pipe included: see [`crate::exit::failure`].
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Columns of the terminal that standard output goes to; `None` where it goes elsewhere.
pub(crate) fn width() -> Option<usize> {
    console::Term::stdout().size_checked().map(|(_, columns)| usize::from(columns))
}
