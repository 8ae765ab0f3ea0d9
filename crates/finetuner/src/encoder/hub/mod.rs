//! Models of the Hugging Face hub: found, downloaded once, kept in the cache that Python's tools share.
//!
//! ```text
//! models--<organisation>--<name>/
//!   blobs/<etag>              a file's bytes; `<etag>.incomplete` while they arrive
//!   refs/<branch>             the commit a branch pointed to
//!   snapshots/<commit>/…      links into blobs
//! ```
//! The `hf-hub` crate would do the same: its 1.0 is asynchronous and large, its 0.5 knows neither `HF_TOKEN`,
//! `HF_HUB_CACHE` nor `HF_HUB_OFFLINE`.
//!
//! Reference: `huggingface_hub/file_download.py`

mod download;
mod environment;
mod files;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use ureq::tls::{RootCerts, TlsConfig};

pub use environment::Token;
use files::{choose, is_complete};

use crate::error::{Error, Result};

/// The hub, or a mirror of it, and the cache of what came from it.
#[derive(Debug, Clone)]
pub struct Hub {
    endpoint: String,
    cache: PathBuf,
    token: Option<Token>,
    offline: bool,
    agent: ureq::Agent,
}

/// How far the download of a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer<'a> {
    /// The file's name in its repository.
    pub file: &'a str,
    /// Bytes that are there.
    pub done_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// A model in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The commit.
    pub commit: String,
    /// Its files.
    pub folder: PathBuf,
}

/// A repository at a revision.
struct Repository<'a> {
    id: &'a str,
    revision: &'a str,
    /// Its folder in the cache.
    folder: PathBuf,
}

/// What the hub says of a repository at a revision.
#[derive(Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Hub {
    /// A hub at this address with this cache folder; no token, online.
    pub fn new(endpoint: &str, cache: impl Into<PathBuf>) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .redirect_auth_headers(ureq::config::RedirectAuthHeaders::SameHost)
            .user_agent(concat!("finetuner/", env!("CARGO_PKG_VERSION")))
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .build()
            .new_agent();
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        Hub { endpoint, cache: cache.into(), token: None, offline: false, agent }
    }

    /// The hub the environment describes.
    ///
    /// | variable | meaning | default |
    /// |---|---|---|
    /// | `HF_ENDPOINT` | address of the hub or of a mirror | the public hub |
    /// | `HF_HUB_CACHE` | cache folder | `$HF_HOME/hub` |
    /// | `HF_HOME` | where caches and the token are | `~/.cache/huggingface` |
    /// | `HF_TOKEN` | for private and gated models | the file `$HF_HOME/token` |
    /// | `HF_HUB_OFFLINE` | `1`: never use the network | off |
    ///
    /// Proxies are taken from `HTTPS_PROXY` and its kin, certificates from the system (`SSL_CERT_FILE` on Linux).
    ///
    /// # Errors
    /// [`Error::Download`] if there is neither a cache nor a home folder.
    pub fn from_environment() -> Result<Self> {
        environment::hub(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// The same hub, with the cache alone.
    pub fn offline(self) -> Self {
        Hub { offline: true, ..self }
    }

    /// The same hub, with a token.
    pub fn token(self, token: Option<Token>) -> Self {
        Hub { token, ..self }
    }

    /// A model's files at a branch, tag or commit, downloaded where the cache lacks them. What an interrupted download
    /// left behind is continued. Where the hub cannot be reached, a complete model in the cache is used.
    ///
    /// # Errors
    /// [`Error::Download`] if there is no such repository or revision, if access needs a token, if it holds no
    /// safetensors, if the network fails, or if this is offline and the model is not in the cache.
    pub fn model(&self, repository: &str, revision: &str, progress: &mut dyn FnMut(Transfer<'_>)) -> Result<Snapshot> {
        let folder = self.cache.join(format!("models--{}", repository.replace('/', "--")));
        let repository = Repository { id: repository, revision, folder };
        let cached = repository.cached();
        match cached {
            Some(snapshot) if self.offline || is_commit(revision) => return Ok(snapshot),
            None if self.offline => {
                let problem = "HF_HUB_OFFLINE is set and the cache does not hold it; unset it once to download";
                return Err(self.refuse(&repository, problem.into()));
            }
            _ => {}
        }
        let info = match self.info(&repository) {
            Ok(info) => info,
            Err(Unavailable::Hub(problem)) => return cached.ok_or_else(|| self.refuse(&repository, problem)),
            Err(Unavailable::Model(problem)) => return Err(self.refuse(&repository, problem)),
        };
        let names: Vec<&str> = info.siblings.iter().map(|sibling| sibling.rfilename.as_str()).collect();
        let snapshot = repository.snapshot(&info.sha);
        for file in choose(&names).map_err(|problem| self.refuse(&repository, problem))? {
            self.download(&repository, &info.sha, file, progress)?;
        }
        repository.remember(&info.sha)?;
        Ok(snapshot)
    }

    fn info(&self, repository: &Repository<'_>) -> std::result::Result<Info, Unavailable> {
        let revision = repository.revision.replace('/', "%2F"); // `refs/pr/1` is one part of the address
        let url = format!("{}/api/models/{}/revision/{revision}", self.endpoint, repository.id);
        let response = self.request(self.agent.get(&url)).call();
        let mut response = response.map_err(|error| Unavailable::Hub(format!("{error}; is the network up?")))?;
        match response.status().as_u16() {
            200 => {}
            status @ (429 | 500..) => {
                return Err(Unavailable::Hub(format!("the hub answers {status}, try again later")));
            }
            status => return Err(Unavailable::Model(self.reason(status))),
        }
        let body = response.body_mut().with_config().limit(64 << 20).read_to_vec();
        let info = body
            .map_err(|error| error.to_string())
            .and_then(|body| serde_json::from_slice::<Info>(&body).map_err(|error| error.to_string()));
        match info {
            Ok(info) if is_commit(&info.sha) => Ok(info),
            Ok(info) => Err(Unavailable::Hub(format!("the hub names `{}` as the commit", info.sha))),
            Err(error) => Err(Unavailable::Hub(format!("the hub's answer makes no sense: {error}"))),
        }
    }

    /// What a refusal of the hub means for the user.
    fn reason(&self, status: u16) -> String {
        match (status, &self.token) {
            (401 | 403, None) => {
                "there is no such repository or folder, or it is private or gated; for the latter set \
                                  HF_TOKEN to a token of your account"
                    .into()
            }
            (401 | 403, Some(_)) => {
                "there is no such repository, or the token (HF_TOKEN) may not read it; gated models \
                                     want their terms accepted on their page"
                    .into()
            }
            (404, _) => "there is no such repository, revision or file".into(),
            _ => format!("the hub answers {status}"),
        }
    }

    fn request<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {}", token.secret())),
            None => request,
        }
    }

    fn refuse(&self, repository: &Repository<'_>, problem: String) -> Error {
        let revision =
            if repository.revision == "main" { String::new() } else { format!("/tree/{}", repository.revision) };
        Error::Download { url: format!("{}/{}{revision}", self.endpoint, repository.id), problem }
    }
}

/// Why the hub gave no information: because of itself, so that the cache may stand in, or because of the model.
enum Unavailable {
    Hub(String),
    Model(String),
}

impl Repository<'_> {
    fn snapshot(&self, commit: &str) -> Snapshot {
        Snapshot { commit: commit.to_owned(), folder: self.folder.join("snapshots").join(commit) }
    }

    /// The complete snapshot that the revision names in the cache.
    fn cached(&self) -> Option<Snapshot> {
        let commit = match is_commit(self.revision) {
            true => self.revision.to_owned(),
            false => std::fs::read_to_string(self.folder.join("refs").join(self.revision)).ok()?.trim().to_owned(),
        };
        let snapshot = self.snapshot(&commit);
        (is_commit(&commit) && is_complete(&snapshot.folder)).then_some(snapshot)
    }

    /// Notes which commit a branch points to.
    fn remember(&self, commit: &str) -> Result<()> {
        if is_commit(self.revision) {
            return Ok(());
        }
        let path = self.folder.join("refs").join(self.revision);
        let folder = path.parent().unwrap_or(&self.folder);
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        std::fs::write(&path, commit).map_err(Error::io("write", &path))
    }
}

/// Whether this is a commit: forty hexadecimal digits.
fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}
