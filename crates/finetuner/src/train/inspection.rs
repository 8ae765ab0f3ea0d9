//! Pictures are looked at before anything is learnt from them; what cannot be used is refused, or left out where the spec says
//! so. Where the model reads vectors, these are taken in place of what they were computed from.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::recorder::Recorder;
use super::report::Skipped;
use crate::data::lint::Place;
use crate::data::{Dataset, Modality, Pictures};
use crate::encoder::source;
use crate::error::{Error, Result};
use crate::pixels::{Depth, Limits, Sources, scan};
use crate::spec::RunSpec;

/// Pictures that the report names.
const NAMED: usize = 20;

/// Pictures that a warning names.
const SHOWN: usize = 3;

/// What is known of a run's pictures, and what of its data is left out for their sake.
pub(crate) struct Inspection<'a> {
    pub(crate) pictures: Pictures,
    pub(crate) sources: Sources,
    /// Whether the model reads the vectors beside texts and pictures.
    vectors: bool,
    skip_bad: bool,
    stop: &'a AtomicBool,
    skipped: HashSet<String>,
    rows: HashSet<(PathBuf, u64)>,
    named: Vec<Place>,
}

/// Where pictures are read from, as a spec says.
///
/// # Errors
/// [`Error::Io`] if there is no place for what is downloaded.
pub(super) fn sources(spec: &RunSpec) -> Result<Sources> {
    let sources = Sources::new(Limits::default());
    if spec.allow_urls { sources.allow_urls() } else { Ok(sources) }
}

impl<'a> Inspection<'a> {
    pub(crate) fn new(spec: &RunSpec, stop: &'a AtomicBool) -> Result<Self> {
        Ok(Inspection {
            pictures: Pictures::default(),
            sources: sources(spec)?,
            vectors: source::reads_vectors(&spec.model),
            skip_bad: spec.skip_bad,
            stop,
            skipped: HashSet::new(),
            rows: HashSet::new(),
            named: Vec::new(),
        })
    }

    /// The data set, or with `skip_bad` what of it can be used. Where nothing may be left out both ends of each file are
    /// enough to find what is missing or breaks off; else every picture is decoded, so that none of those that stay ends the
    /// run in the middle.
    ///
    /// # Errors
    /// [`Error::Data`] with the row of the first picture that cannot be used; of all of them if nothing would be left.
    pub(crate) fn look(&mut self, dataset: Dataset, recorder: &mut Recorder<'_>) -> Result<Dataset> {
        let dataset = if self.vectors { dataset.into_vectors()? } else { dataset };
        if !dataset.items.has(Modality::Image) {
            return Ok(dataset);
        }
        let depth = if self.skip_bad { Depth::Whole } else { Depth::Header };
        scan(&mut self.pictures, &dataset.items, (&self.sources, depth), |done, all| {
            recorder.progress("look at pictures", done, all, None);
            if self.stop.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) }
        })?;
        let Some(error) = self.pictures.first_error(&dataset) else { return Ok(dataset) };
        let rest = self.pictures.without_broken(&dataset);
        if !self.skip_bad || rest.examples.is_empty() {
            return Err(error);
        }
        self.leave_out(&dataset, &rest, recorder)?;
        Ok(rest)
    }

    /// Counts what is left out, and tells it.
    fn leave_out(&mut self, all: &Dataset, rest: &Dataset, recorder: &mut Recorder<'_>) -> Result<()> {
        let broken = self.pictures.broken(all);
        let places: Vec<Place> = broken
            .iter()
            .map(|&(row, item, problem)| Place {
                path: all.path.display().to_string(),
                line: all.lines[row],
                text: all.items.get(item).to_owned(),
                note: problem.to_owned(),
            })
            .collect();
        let named: String = places
            .iter()
            .take(SHOWN)
            .map(|own| format!("\n  {}:{} `{}`: {}", own.path, own.line, own.text, own.note))
            .collect();
        let more = if places.len() > SHOWN { format!("\n  and {} more", places.len() - SHOWN) } else { String::new() };
        let rows = all.examples.len() - rest.examples.len();
        recorder.warn(format!(
            "left out {rows} of {} rows, as {} of their pictures cannot be used:{named}{more}",
            all.examples.len(),
            places.len()
        ))?;
        let kept: HashSet<u64> = rest.lines.iter().copied().collect();
        self.rows.extend(all.lines.iter().filter(|line| !kept.contains(line)).map(|line| (all.path.clone(), *line)));
        for place in places {
            if self.skipped.insert(place.text.clone()) && self.named.len() < NAMED {
                self.named.push(place);
            }
        }
        Ok(())
    }

    /// What was left out; `None` where nothing was.
    pub(crate) fn skipped(self) -> Option<Skipped> {
        let (pictures, rows) = (self.skipped.len(), self.rows.len());
        (pictures > 0).then_some(Skipped { pictures, rows, examples: self.named })
    }
}
