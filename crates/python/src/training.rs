//! A run in this process.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use finetuner::artifact::Output;
use finetuner::event::Event;
use finetuner::train::{Outcome, train as run};
use pyo3::prelude::*;

use crate::error::IntoPython;
use crate::spec;
use crate::work::tell;

/// Between two events of progress in one phase.
const PACE: Duration = Duration::from_millis(100);

/// Ends a run with a checkpoint, from another thread.
#[pyclass(frozen, module = "finetuner._native")]
#[derive(Default)]
pub(crate) struct Stop(pub(crate) Arc<AtomicBool>);

#[pymethods]
impl Stop {
    #[new]
    fn new() -> Self {
        Stop::default()
    }

    /// Asks for the end.
    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody has asked for it.
    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Makes the folder of a run and checks that the run may write there.
#[pyfunction]
pub(crate) fn claim(py: Python<'_>, folder: PathBuf, resume: bool) -> PyResult<()> {
    Output::claim(&folder, resume).map(drop).map_err(|error| error.into_python(py))
}

/// Whether a run is writing to a folder at this moment.
#[pyfunction]
pub(crate) fn is_claimed(folder: PathBuf) -> bool {
    Output::is_claimed(&folder)
}

/// Runs to the end, on this thread, and gives `None`; the steps in the checkpoint where `stop` ended it. `on_progress`
/// hears of progress as JSON; everything else is in the run's `events.jsonl`.
#[pyfunction]
pub(crate) fn train(py: Python<'_>, spec: &str, on_progress: Py<PyAny>, stop: &Stop) -> PyResult<Option<usize>> {
    let (spec, stop) = (spec::read(spec)?, stop.0.clone());
    let done = py.detach(move || {
        let mut pace = Pace::default();
        let mut sink = |event: &Event| {
            if pace.is_worth(event)
                && let Ok(text) = serde_json::to_string(event)
            {
                tell(&on_progress, (text,));
            }
        };
        run(&spec, &mut sink, &stop)
    });
    match done.map_err(|error| error.into_python(py))? {
        Outcome::Finished(_) => Ok(None),
        Outcome::Stopped { step } => Ok(Some(step)),
    }
}

/// Which events are worth the interpreter's lock: of progress a few a second are.
#[derive(Default)]
struct Pace(Option<(String, Instant)>);

impl Pace {
    fn is_worth(&mut self, event: &Event) -> bool {
        match event {
            Event::Progress { phase, done, total, .. } => {
                let fresh = self.0.as_ref().is_some_and(|(at, when)| at == phase && when.elapsed() < PACE);
                if fresh && done < total {
                    return false;
                }
                self.0 = Some((phase.clone(), Instant::now()));
                true
            }
            _ => false,
        }
    }
}
