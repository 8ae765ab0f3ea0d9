//! What people see: talk and progress on standard error, data on standard output.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::Result;
use console::style;
use finetuner::event::{Event, Level, Sink};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

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
    /// When it was first heard of, and what was done by then: the pace is that of the rest.
    first: (Instant, usize),
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

    /// Something to do now, said however quiet it is to be.
    pub(crate) fn ask(&self, message: &str) {
        self.line(message);
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
        let mut current = current.unwrap_or_else(|| Progress::new(phase, done, total, self.draws));
        if done >= total {
            current.finish(total, note);
            return;
        }
        match &current.bar {
            Some(bar) => {
                bar.set_position(done as u64);
                bar.set_message(note.unwrap_or_default().to_owned());
            }
            None => current.tell(done, total, note),
        }
        self.progress = Some(current);
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
    fn new(phase: &str, done: usize, total: usize, draws: bool) -> Self {
        let first = (Instant::now(), done);
        let bar = draws.then(|| {
            let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{prefix:15} {wide_bar} {pos}/{len}{pace} {msg}");
            let style = style.expect("the template is valid, or a bug").progress_chars("━╸ ");
            bar.set_style(style.with_key("pace", move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = out.write_str(&pace(first, state.pos() as usize, total));
            }));
            bar.set_prefix(phase.to_owned());
            bar
        });
        Progress { phase: phase.to_owned(), first, bar, told: (first.0, 0) }
    }

    /// A plain line now and then.
    fn tell(&mut self, done: usize, total: usize, note: Option<&str>) {
        let (when, before) = self.told;
        let further = done.saturating_sub(before) * 10 >= total;
        if when.elapsed() >= PAUSE && further || when.elapsed() >= SILENCE {
            self.told = (Instant::now(), done);
            self.plain(&format!("{done}/{total}{}", pace(self.first, done, total)), note);
        }
    }

    /// A plain line in place of the bar.
    fn finish(&self, total: usize, note: Option<&str>) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.plain(&format!("{total}/{total} in {:.1} s", self.first.0.elapsed().as_secs_f64()), note);
    }

    fn plain(&self, state: &str, note: Option<&str>) {
        let note = note.map(|note| format!(", {note}")).unwrap_or_default();
        drop(writeln!(std::io::stderr(), "{}: {state}{note}", self.phase));
    }
}

/// `, 31/s, 3 s left`; nothing before there is a pace.
fn pace(first: (Instant, usize), done: usize, total: usize) -> String {
    let (since, before) = first;
    let rate = done.saturating_sub(before) as f64 / since.elapsed().as_secs_f64();
    if done <= before || !rate.is_finite() {
        return String::new();
    }
    let decimals = if rate < 10.0 { 1 } else { 0 };
    format!(", {rate:.decimals$}/s, {:.0} s left", total.saturating_sub(done) as f64 / rate)
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
