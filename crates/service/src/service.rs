//! What every part of a server shares.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::database::{Database, KeyRow, id};
use crate::error::{Error, Result};
use crate::feed::Feed;
use crate::inquiry::Inquiries;
use crate::key::Pepper;
use crate::openid::OpenId;
use crate::runner::Runner;
use crate::runner::process::ProcessRunner;
use crate::settings::Settings;
use crate::storage::Storage;

/// Database, storage, runner and the signals between the parts.
pub(crate) struct Service {
    pub(crate) settings: Settings,
    pub(crate) database: Database,
    pub(crate) storage: Storage,
    pub(crate) runner: Arc<dyn Runner>,
    pub(crate) inquiries: Inquiries,
    pub(crate) pepper: Pepper,
    /// Where people sign in without a key, if anywhere.
    pub(crate) openid: Option<OpenId>,
    pub(crate) feed: Feed,
    /// Something has changed that the dispatcher should look at.
    pub(crate) wake: Notify,
    /// The server is going down: no more runs start, workers save and stop.
    pub(crate) draining: CancellationToken,
    /// This server among others at the same database.
    pub(crate) instance: String,
}

impl Service {
    /// Opens everything below the folder of the settings. Workers are `binary worker`.
    pub(crate) async fn open(settings: Settings, binary: PathBuf) -> Result<Self> {
        let data = &settings.data;
        let database = match settings.database.0.as_str() {
            "" => Database::open(&sqlite_url(&data.join("finetuner.sqlite"))).await?,
            url => Database::open(url).await?,
        };
        let storage = Storage::open(&settings.storage, data)?;
        let inquiries = Inquiries::new(&settings, binary.clone(), storage.clone())?;
        let runner = Arc::new(ProcessRunner::new(data, binary, storage.clone(), settings.gpus)?);
        Ok(Service {
            database,
            storage,
            runner,
            inquiries,
            pepper: Pepper::open(&data.join("pepper"))?,
            openid: OpenId::new(&settings)?,
            feed: Feed::default(),
            wake: Notify::new(),
            draining: CancellationToken::new(),
            instance: id("server"),
            settings,
        })
    }

    /// The key that this token is, if it counts.
    pub(crate) async fn key(&self, token: &str) -> Result<Option<KeyRow>> {
        let Some(id) = Pepper::id(token) else { return Ok(None) };
        let Some(key) = self.database.key(&id).await? else { return Ok(None) };
        Ok(self.pepper.matches(token, &key.hash)?.then_some(key))
    }

    /// Removes what a crash left behind: files and artifacts that no row knows, folders of runs that have ended.
    pub(crate) async fn tidy(&self) -> Result<()> {
        let (files, runs) = self.storage.kept().await?;
        for run in runs {
            let row = self.database.any_run(&run).await?;
            let ended = row.is_none_or(|row| row.status.is_final());
            if ended && self.database.artifact(&run).await?.is_none() {
                self.storage.remove_run(&run, None).await?;
            }
        }
        for file in files {
            if self.database.file_is_gone(&file).await? {
                self.storage.remove_object(&file).await?;
            }
        }
        for file in self.storage.uploads()? {
            if !self.database.knows_file(&file).await? {
                self.storage.remove_upload(&file).await?;
            }
        }
        for run in self.runner.leftovers().await? {
            let row = self.database.any_run(&run).await?;
            if row.as_ref().is_none_or(|row| row.status.is_final()) {
                let keep = row.is_some_and(|row| row.keeps_checkpoint());
                self.runner.clean(&run, keep).await?;
            }
        }
        self.database.forget_answers().await
    }

    /// A lease in milliseconds.
    pub(crate) fn lease(&self) -> i64 {
        i64::try_from(self.settings.lease_seconds).unwrap_or(i64::MAX / 2000).saturating_mul(1000)
    }

    /// Threads of a run that asks for none: its share of the machine.
    pub(crate) fn threads(&self, asked: u32) -> usize {
        let share = self.settings.all_cpus() as usize / self.settings.runs;
        if asked > 0 { asked as usize } else { share.max(1) }
    }
}

/// SQLite at a path, whatever characters it has.
fn sqlite_url(path: &std::path::Path) -> String {
    let mut url = "sqlite://".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => url.push(char::from(*byte)),
            byte => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url + "?mode=rwc"
}

/// Makes the folder of a server its own: SQLite and child processes allow one server each.
///
/// # Errors
/// [`Error::Settings`] if another server is at work there.
pub(crate) fn lock_folder(data: &std::path::Path) -> Result<std::fs::File> {
    std::fs::create_dir_all(data).map_err(Error::io("create", data))?;
    let path = data.join("server.lock");
    let lock = std::fs::File::options().create(true).truncate(false).write(true).open(&path);
    let lock = lock.map_err(Error::io("open", &path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::Settings(format!(
            "another server is at work in `{}`; stop it, or give this one another folder (`data`)",
            data.display()
        ))),
        Err(std::fs::TryLockError::Error(error)) => Err(Error::io("lock", path)(error)),
    }
}
