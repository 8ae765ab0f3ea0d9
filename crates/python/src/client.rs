//! A server, and the login that the command line and Python share.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde::Serialize;
use service::client::{Client as Blocking, Error, Login, Result};
use service::wire::{NewExperiment, NewRun, Resources, RunEvent};

use crate::error::{IntoPython, bug};
use crate::spec;
use crate::work::{interruptible, tell, wait};

/// How long a server is asked again that does not answer to a question somebody waits for. Uploads, runs and downloads have
/// the client's own patience.
const PATIENCE: Duration = Duration::from_secs(5);

/// Events that may wait for Python to take them.
const AHEAD: usize = 256;

/// A server under a login. Everything with structure goes in and comes out as JSON.
#[pyclass(frozen, module = "finetuner._native")]
pub(crate) struct Client {
    client: Blocking,
}

#[pymethods]
impl Client {
    #[new]
    fn new(server: &str, token: &str) -> Self {
        let login = Login { server: server.trim_end_matches('/').to_owned(), token: token.to_owned() };
        Client { client: Blocking::new(login) }
    }

    /// The server's address.
    #[getter]
    fn server(&self) -> &str {
        self.client.server()
    }

    /// Whose key this is.
    fn owner(&self, py: Python<'_>) -> PyResult<String> {
        self.ask(py, Blocking::owner)
    }

    /// Uploads the data of a spec and starts a run; `on_progress` hears of a file, its bytes done and in all.
    fn create_run(
        &self,
        py: Python<'_>,
        spec: &str,
        name: Option<String>,
        experiment: Option<String>,
        description: String,
        on_progress: Py<PyAny>,
    ) -> PyResult<String> {
        let (client, spec) = (self.client.clone(), spec::read(spec)?);
        let run = interruptible(py, move |_| {
            let spec = client.upload_spec(&spec, &mut |path, done, total| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                tell(&on_progress, (&*name, done, total));
            })?;
            let resources = Resources::default();
            client.create_run(&NewRun { spec, name, experiment, description, priority: 0, resources })
        })?;
        json(&run)
    }

    /// A run by its id, or by its name where only one experiment has it.
    fn run(&self, py: Python<'_>, run: String) -> PyResult<String> {
        json(&self.ask(py, move |client| client.run(&run))?)
    }

    /// A run of an experiment by its name.
    fn run_of(&self, py: Python<'_>, experiment: String, name: String) -> PyResult<Option<String>> {
        self.ask(py, move |client| client.run_of(&experiment, &name))?.as_ref().map(json).transpose()
    }

    /// The newest runs, at most so many.
    fn runs(&self, py: Python<'_>, experiment: Option<String>, most: usize) -> PyResult<String> {
        json(&self.ask(py, move |client| client.runs(experiment.as_deref(), most))?)
    }

    /// Asks for the end of a run.
    fn cancel(&self, py: Python<'_>, run: String) -> PyResult<String> {
        json(&self.ask(py, move |client| client.cancel(&run))?)
    }

    /// Removes a run that has ended.
    fn delete_run(&self, py: Python<'_>, run: String) -> PyResult<()> {
        self.ask(py, move |client| client.delete_run(&run))
    }

    /// Every experiment, by name.
    fn experiments(&self, py: Python<'_>) -> PyResult<String> {
        json(&self.ask(py, Blocking::experiments)?)
    }

    /// An experiment by its name.
    fn experiment(&self, py: Python<'_>, name: String) -> PyResult<String> {
        json(&self.ask(py, move |client| client.experiment(&name))?)
    }

    /// Makes an experiment.
    fn create_experiment(&self, py: Python<'_>, name: String) -> PyResult<String> {
        let new = NewExperiment { name, description: String::new() };
        json(&self.ask(py, move |client| client.create_experiment(&new))?)
    }

    /// Removes an experiment without runs.
    fn delete_experiment(&self, py: Python<'_>, name: String) -> PyResult<()> {
        self.ask(py, move |client| client.delete_experiment(&name))
    }

    /// What a run has said for people.
    fn logs(&self, py: Python<'_>, run: String) -> PyResult<String> {
        self.ask(py, move |client| client.logs(&run))
    }

    /// The events of a run from the beginning, as they come, until it has ended.
    fn events(&self, run: &str) -> Events {
        let (sender, receiver) = sync_channel(AHEAD);
        let events = self.client.events(run, 0);
        std::thread::spawn(move || {
            for event in events {
                if sender.send(event).is_err() {
                    break; // nobody listens any more
                }
            }
        });
        Events(Mutex::new(receiver))
    }

    /// One small file of a finished run's artifact.
    fn artifact_file<'py>(&self, py: Python<'py>, run: String, name: String) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.ask(py, move |client| client.artifact_file(&run, &name))?))
    }

    /// Downloads a finished run's artifact into a folder that is not there yet; `on_progress` hears of bytes done and in all.
    fn download(&self, py: Python<'_>, run: String, folder: PathBuf, on_progress: Py<PyAny>) -> PyResult<()> {
        let client = self.client.clone();
        interruptible(py, move |_| {
            client.download(&run, &folder, &mut |done, total| tell(&on_progress, (done, total))).map(drop)
        })
    }
}

impl Client {
    /// A question that somebody waits for.
    fn ask<T: Send + 'static>(
        &self,
        py: Python<'_>,
        question: impl FnOnce(&Blocking) -> Result<T> + Send + 'static,
    ) -> PyResult<T> {
        let client = self.client.clone().with_patience(PATIENCE);
        interruptible(py, move |_| question(&client))
    }
}

/// Events of a run as they come, each as JSON.
#[pyclass(frozen, module = "finetuner._native")]
pub(crate) struct Events(Mutex<Receiver<Result<RunEvent>>>);

#[pymethods]
impl Events {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let mut receiver = self.0.try_lock().map_err(|_| bug("two threads take events from one iterator"))?;
        match wait(py, &mut receiver)? {
            None => Ok(None),
            Some(event) => json(&event.map_err(|error| error.into_python(py))?).map(Some),
        }
    }
}

/// The file that keeps the login.
#[pyfunction]
pub(crate) fn login_file(py: Python<'_>) -> PyResult<PathBuf> {
    Login::path(|name| std::env::var_os(name)).map_err(|error| error.into_python(py))
}

/// Server and key: the server named, else the one of the stored login, under the key in `FINETUNER_TOKEN`, else the stored
/// one.
#[pyfunction]
pub(crate) fn stored_login(py: Python<'_>, server: Option<&str>) -> PyResult<Option<(String, String)>> {
    let login = Login::find(server, |name| std::env::var_os(name)).map_err(|error| error.into_python(py))?;
    Ok(login.map(|login| (login.server, login.token)))
}

/// Keeps a login for this user alone.
#[pyfunction]
pub(crate) fn save_login(py: Python<'_>, server: String, token: String) -> PyResult<()> {
    Login { server, token }.save(&login_file(py)?).map_err(|error| error.into_python(py))
}

/// Forgets the stored login; gives whether there was one.
#[pyfunction]
pub(crate) fn remove_login(py: Python<'_>) -> PyResult<bool> {
    Login::remove(&login_file(py)?).map_err(|error| error.into_python(py))
}

/// Asks for a key that a person approves in a browser: `show` gets the address and the code.
#[pyfunction]
pub(crate) fn log_in(py: Python<'_>, server: String, show: Py<PyAny>) -> PyResult<String> {
    interruptible(py, move |_| {
        let login = Blocking::log_in(&server, &mut |login| {
            tell(&show, (&login.verification_uri_complete, &login.user_code));
        })?;
        Ok::<_, Error>(login.token)
    })
}

fn json(value: &impl Serialize) -> PyResult<String> {
    serde_json::to_string(value).map_err(bug)
}
