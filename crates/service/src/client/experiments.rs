//! Experiments, and what ends: runs and experiments that are removed.

use ureq::http::Method;

use super::error::{Error, Result};
use super::{Client, part};
use crate::wire::{Experiment, NewExperiment, Page, Run};

impl Client {
    /// Every experiment, by name.
    ///
    /// # Errors
    /// [`Error`].
    pub fn experiments(&self) -> Result<Vec<Experiment>> {
        let mut experiments = Vec::new();
        let mut after = String::new();
        loop {
            let page: Page<Experiment> = self.get(&format!("/v1/experiments?limit=100&after={}", part(&after)))?;
            experiments.extend(page.data);
            match page.next {
                Some(next) => after = next,
                None => return Ok(experiments),
            }
        }
    }

    /// An experiment by its name.
    ///
    /// # Errors
    /// [`Error::Refused`] where there is none.
    pub fn experiment(&self, name: &str) -> Result<Experiment> {
        self.get(&format!("/v1/experiments/{}", part(name)))
    }

    /// Makes an experiment.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is one of this name.
    pub fn create_experiment(&self, new: &NewExperiment) -> Result<Experiment> {
        self.post_json("/v1/experiments", new)
    }

    /// Removes an experiment without runs.
    ///
    /// # Errors
    /// [`Error::Refused`] if it has runs, or if there is none.
    pub fn delete_experiment(&self, name: &str) -> Result<()> {
        self.delete(&format!("/v1/experiments/{}", part(name)))
    }

    /// A run of an experiment by its name; `None` where there is none.
    ///
    /// # Errors
    /// [`Error`].
    pub fn run_of(&self, experiment: &str, name: &str) -> Result<Option<Run>> {
        let page: Page<Run> =
            self.get(&format!("/v1/runs?limit=1&experiment={}&name={}", part(experiment), part(name)))?;
        Ok(page.data.into_iter().next())
    }

    /// Removes a run that has ended, with its artifact.
    ///
    /// # Errors
    /// [`Error::Refused`] if it has not ended, or if there is none.
    pub fn delete_run(&self, run: &str) -> Result<()> {
        self.delete(&format!("/v1/runs/{}", part(run)))
    }

    fn delete(&self, path: &str) -> Result<()> {
        let request = self.request(Method::DELETE, path)?;
        self.checked(self.agent.run(request.body(()).map_err(Error::malformed)?)).map(drop)
    }
}
