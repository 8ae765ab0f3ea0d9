//! Where a model comes from: a folder, an earlier artifact, an alias, a repository on the hub, or the binary itself.

use std::path::{Path, PathBuf};

use super::alias;
use super::hub::{Hub, Transfer};
use super::mini;
use crate::artifact::{AdapterFolder, ModelFolder};
use crate::error::{Error, Result};

/// The name of the encoder inside the binary.
pub const MINI: &str = "mini";

/// The name of a perceptron over vectors, which a run makes from random weights.
pub const MLP: &str = "mlp";

/// Adapters that may lie on one another.
const DEEPEST: usize = 8;

/// Whether a name is that of a model over vectors: `mlp`, or the folder of a run on it.
pub fn reads_vectors(model: &str) -> bool {
    let config = || std::fs::read(Path::new(model).join("config.json")).ok();
    let config = || serde_json::from_slice::<serde_json::Value>(&config()?).ok();
    model == MLP || config().is_some_and(|config| config["model_type"] == MLP)
}

/// A model that is there to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// The encoder inside the binary.
    Mini,
    /// A perceptron over vectors, which is there once it is trained.
    Mlp,
    /// A folder of the user's.
    Folder(PathBuf),
    /// The artifact of an earlier run.
    Artifact(PathBuf),
    /// A repository of the hub, in the cache.
    Hub {
        /// `organisation/name`.
        repository: String,
        /// The commit that was asked for or that the branch pointed to.
        commit: String,
        /// The snapshot in the cache.
        folder: PathBuf,
    },
}

impl ModelSource {
    /// The folder to open; `None` for `mini` and `mlp`.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            ModelSource::Mini | ModelSource::Mlp => None,
            ModelSource::Folder(folder) | ModelSource::Artifact(folder) | ModelSource::Hub { folder, .. } => {
                Some(folder)
            }
        }
    }

    /// Opens its files, and those of its base if it is an adapter.
    ///
    /// # Errors
    /// As [`ModelFolder::open`] and, for the base of an adapter, [`resolve`].
    pub fn open(&self) -> Result<ModelFolder> {
        self.open_at(0)
    }

    fn open_at(&self, depth: usize) -> Result<ModelFolder> {
        if *self == ModelSource::Mlp {
            let problem = "is made by `finetuner fit` from vectors; name the folder of such a run";
            return Err(Error::model(MLP, problem));
        }
        let Some(folder) = self.folder() else { return mini::open() };
        let Some(adapter) = AdapterFolder::open(folder)? else { return ModelFolder::open(folder) };
        if depth == DEEPEST {
            let problem = "is an adapter of an adapter of an adapter …: its base leads back to itself";
            return Err(Error::model(folder.display().to_string(), problem));
        }
        let base = resolve(&adapter.base).and_then(|base| base.open_at(depth + 1)).map_err(|error| {
            let problem = format!("is an adapter, and its base cannot be opened: {error}");
            Error::model(folder.display().to_string(), problem)
        })?;
        ModelFolder::adapted(base, adapter)
    }

    /// The repository id, where the model has one; the model card names it.
    pub fn repository(&self) -> Option<&str> {
        match self {
            ModelSource::Hub { repository, .. } => Some(repository),
            _ => None,
        }
    }
}

/// Finds a model and downloads it if need be, with the settings of the environment (see [`Hub::from_environment`]).
///
/// In this order: `mini`, `mlp`, an existing folder (an artifact if it has a manifest), an alias, a repository id with an
/// optional `@revision`.
///
/// # Errors
/// [`Error::Model`] if it is none of these, with the nearest alias; [`Error::Download`] if the hub refuses.
pub fn resolve(model: &str) -> Result<ModelSource> {
    resolve_with(model, &Hub::from_environment()?, &mut |_| {})
}

/// As [`resolve`], from this hub, telling `progress` about downloads.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_with(model: &str, hub: &Hub, progress: &mut dyn FnMut(Transfer<'_>)) -> Result<ModelSource> {
    if model == MINI {
        return Ok(ModelSource::Mini);
    }
    if model == MLP {
        return Ok(ModelSource::Mlp);
    }
    let path = Path::new(model);
    if path.is_dir() {
        let artifact = path.join("finetuner.json").is_file();
        return Ok(if artifact { ModelSource::Artifact(path.into()) } else { ModelSource::Folder(path.into()) });
    }
    if path.is_file() {
        return Err(Error::model(model, "is a file; name the folder it lies in"));
    }
    let (name, revision) = model.split_once('@').unwrap_or((model, "main"));
    let repository = match alias::find(name) {
        Some(alias) => alias.repository,
        None if is_repository_id(name) => name,
        None => return Err(Error::model(model, alias::unknown(name))),
    };
    if !is_revision(revision) {
        return Err(Error::model(model, format!("`{revision}` is not the name of a branch, tag or commit")));
    }
    let snapshot = hub.model(repository, revision, progress)?;
    Ok(ModelSource::Hub { repository: repository.into(), commit: snapshot.commit, folder: snapshot.folder })
}

/// `organisation/name` in the characters the hub allows.
fn is_repository_id(name: &str) -> bool {
    let part = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        !part.is_empty()
            && part.len() <= 96
            && !part.starts_with(['.', '-'])
            && !part.contains("..")
            && part.bytes().all(allowed)
    };
    name.split_once('/').is_some_and(|(organisation, name)| part(organisation) && part(name))
}

/// A branch, tag or commit. It becomes part of an address and of a path, so it may not lead elsewhere.
fn is_revision(revision: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    revision.split('/').all(|part| !part.is_empty() && !part.starts_with('.')) && revision.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offline() -> Hub {
        Hub::new("http://127.0.0.1:9", "no/such/cache").offline()
    }

    #[test]
    fn mini_folders_and_artifacts_need_no_hub() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().to_str().unwrap();
        let resolve = |model: &str| resolve_with(model, &offline(), &mut |_| {});
        assert_eq!(resolve("mini").unwrap(), ModelSource::Mini);
        assert_eq!(resolve(name).unwrap(), ModelSource::Folder(name.into()));
        std::fs::write(folder.path().join("finetuner.json"), "{}").unwrap();
        assert_eq!(resolve(name).unwrap(), ModelSource::Artifact(name.into()));
        let file = folder.path().join("finetuner.json");
        assert!(resolve(file.to_str().unwrap()).unwrap_err().to_string().contains("is a file"));
    }

    #[test]
    fn what_cannot_be_a_model_is_refused_with_the_nearest_name() {
        let problem = |model: &str| resolve_with(model, &offline(), &mut |_| {}).unwrap_err().to_string();
        assert!(problem("all-MiniLM-L6-v3").contains("did you mean `all-MiniLM-L6-v2`"));
        for model in ["./no/such/folder", "/no/such", "a/b/c", "../up", "org/..", "org/na me", ""] {
            assert!(problem(model).contains("neither a folder"), "{model}: {}", problem(model));
        }
        for model in ["org/name@", "org/name@../../x", "org/name@/x", "org/name@a?b"] {
            assert!(problem(model).contains("not the name of a branch"), "{model}: {}", problem(model));
        }
        assert!(problem("organisation/name@refs/pr/1").contains("HF_HUB_OFFLINE"));
    }
}
