//! Long work that a Ctrl-C reaches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use pyo3::call::PyCallArgs;
use pyo3::prelude::*;

use crate::error::{IntoPython, bug};

/// How often Python is asked whether it has a signal to handle.
const PAUSE: Duration = Duration::from_millis(50);

/// Does the work on a thread of its own, without the interpreter's lock, and gives its result. Where Python has a signal
/// to handle meanwhile, the work is told to stop and left behind, and what the handler raised is given.
///
/// # Errors
/// Those of the work, and what signal handlers raise.
pub(crate) fn interruptible<T: Send + 'static, E: IntoPython + Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce(&AtomicBool) -> Result<T, E> + Send + 'static,
) -> PyResult<T> {
    let stop = Arc::new(AtomicBool::new(false));
    let (sender, mut receiver) = channel();
    let told = stop.clone();
    // A receiver that is gone has given up waiting.
    let worker = std::thread::spawn(move || drop(sender.send(work(&told))));
    match wait(py, &mut receiver) {
        Ok(Some(done)) => done.map_err(|error| error.into_python(py)),
        Ok(None) => match worker.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => Err(bug("work has ended without a result")),
        },
        Err(error) => {
            stop.store(true, Ordering::Relaxed);
            Err(error)
        }
    }
}

/// The next message; `None` where no more come.
///
/// # Errors
/// What signal handlers raise.
pub(crate) fn wait<T: Send>(py: Python<'_>, receiver: &mut Receiver<T>) -> PyResult<Option<T>> {
    loop {
        let receiver = &mut *receiver;
        match py.detach(move || receiver.recv_timeout(PAUSE)) {
            Ok(message) => return Ok(Some(message)),
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Err(RecvTimeoutError::Timeout) => py.check_signals()?,
        }
    }
}

/// Tells Python something from a thread without the interpreter's lock. What it raises goes to its own hook
/// (`sys.unraisablehook`): who tells goes on.
pub(crate) fn tell(hear: &Py<PyAny>, arguments: impl for<'py> PyCallArgs<'py>) {
    Python::attach(|py| {
        if let Err(error) = hear.call1(py, arguments) {
            error.write_unraisable(py, None);
        }
    });
}
