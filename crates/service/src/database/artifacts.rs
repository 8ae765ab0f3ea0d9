//! Artifacts.

use super::{Database, json};
use crate::error::Result;
use crate::wire::Artifact;

impl Database {
    /// What a run published.
    pub(crate) async fn artifact(&self, run: &str) -> Result<Option<Artifact>> {
        let query = sqlx::query("SELECT manifest FROM artifacts WHERE run_id = $1").bind(run);
        query.fetch_optional(&self.read).await?.map(|row| json(&row, "manifest")).transpose()
    }
}
