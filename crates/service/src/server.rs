//! Start, check, shut down.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum_server::Handle;
use tokio::signal;
use tracing::{error, info};

use crate::connections::{self, certificate};
use crate::dispatcher::dispatch;
use crate::error::{Error, Result};
use crate::http::router;
use crate::retention::retain;
use crate::service::{Service, lock_folder};
use crate::settings::Settings;
use crate::telemetry::Telemetry;
use crate::wire::{NewKey, Scope};

/// Bytes of room without which no run can be expected to end well.
const LEAST_FREE: u64 = 1_000_000_000;

/// A server that takes requests.
#[derive(Debug)]
pub struct Ready {
    /// Where.
    pub address: SocketAddr,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// The first key, at the first start only: it is shown once.
    pub first_key: Option<String>,
}

/// Serves until the process is told to stop (SIGTERM or Ctrl-C); then workers save and stop. `ready` hears when requests
/// are taken; workers are started as `binary worker`.
///
/// # Errors
/// Everything that [`Error`] lists, with what to do.
pub fn serve(settings: Settings, binary: PathBuf, ready: impl FnOnce(&Ready)) -> Result<()> {
    choose_tls();
    // Until after the runtime: at its end it sends what is left.
    let _telemetry = Telemetry::start(&settings)?;
    runtime()?.block_on(async {
        // Held until the end.
        let _lock = lock_folder(&settings.data)?;
        let listen = settings.listen;
        let service = Arc::new(Service::open(settings, binary).await?);
        service.database.release_all().await?;
        let first_key = first_key(&service).await?;
        let tls = certificate(&service.settings).await?;
        let listener = bind(listen).await?;
        let address = listener.local_addr().map_err(|error| Error::Internal(error.to_string()))?;
        let asked = asked_to_stop()?;
        let dispatcher = tokio::spawn(begin(service.clone()));
        ready(&Ready { address, tls: tls.is_some(), first_key });
        info!(%address, "ready");

        let draining = service.draining.clone();
        let displaced = Arc::new(Mutex::new(None));
        let (database, why) = (service.database.clone(), displaced.clone());
        let patience = Duration::from_secs(service.settings.patience_seconds);
        let handle = Handle::new();
        let stopping = handle.clone();
        let stop = async move {
            tokio::select! {
                () = asked => info!("going down: workers save and stop"),
                error = database.displaced() => {
                    error!(%error, "going down");
                    *why.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                }
            }
            draining.cancel();
            // Whoever takes longer than a worker may to save has to come back.
            stopping.graceful_shutdown(Some(patience));
        };
        tokio::spawn(stop);
        let served = connections::serve(listener, tls, router(service.clone()), &service.settings, handle).await;
        service.draining.cancel();
        let _ = dispatcher.await;
        service.database.close().await;
        info!("down");
        if let Some(error) = displaced.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        served.map_err(|error| Error::Internal(format!("cannot serve: {error}")))
    })
}

/// Tries everything a server needs and gives a sentence for each thing that works.
///
/// # Errors
/// The first thing that does not, with what to do.
pub fn check(settings: Settings, binary: PathBuf) -> Result<Vec<String>> {
    choose_tls();
    runtime()?.block_on(async {
        let _lock = lock_folder(&settings.data)?;
        let listen = settings.listen;
        let data = settings.data.display().to_string();
        let service = Service::open(settings, binary.clone()).await?;
        let mut works = vec![format!("folder: {data}, {} free", free(&service.settings.data)?)];
        service.database.ping().await?;
        works.push("database: answers, schema up to date".into());
        service.storage.check().await?;
        works.push("storage: written and read".into());
        if certificate(&service.settings).await?.is_some() {
            works.push("TLS: certificate and key belong together".into());
        }
        if let Some(openid) = &service.openid {
            openid.discover().await?;
            works.push("OpenID Connect: the provider answers".into());
        }
        bind(listen).await?;
        works.push(format!("address: {listen}"));
        service.database.close().await;
        Ok(works)
    })
}

/// The one TLS of everything here; that it is chosen already is as well.
fn choose_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Tidies up, then dispatches.
async fn begin(service: Arc<Service>) {
    if let Err(error) = service.tidy().await {
        error!(%error, "cannot tidy up what was left behind; trying again at the next start");
    }
    tokio::join!(dispatch(service.clone()), retain(service));
}

/// How much room there is in a folder; too little is an error.
fn free(folder: &Path) -> Result<String> {
    let found = rustix::fs::statvfs(folder).map_err(|error| Error::io("look at", folder)(error.into()))?;
    let bytes = found.f_bavail * found.f_frsize;
    if bytes < LEAST_FREE {
        return Err(Error::Settings(format!(
            "`{}`: {bytes} bytes are free, and a model alone takes more; make room, set `keep_days` or `keep_bytes`, or take \
             another folder (`data`)",
            folder.display()
        )));
    }
    Ok(format!("{:.1} GB", bytes as f64 / 1e9))
}

/// Takes the address; as many clients as tokio lets may wait to be let in, which is more than the standard library does.
async fn bind(listen: SocketAddr) -> Result<TcpListener> {
    let bound = tokio::net::TcpListener::bind(listen).await.and_then(tokio::net::TcpListener::into_std);
    bound.map_err(|error| {
        Error::Settings(format!("cannot listen on {listen}: {error}; choose another address with `listen`"))
    })
}

/// Makes a key at the first start.
async fn first_key(service: &Service) -> Result<Option<String>> {
    if service.database.has_keys().await? {
        return Ok(None);
    }
    let minted = service.pepper.mint()?;
    let new = NewKey { name: "first".into(), owner: None, scope: Scope::Admin, days: None };
    service.database.add_key(&minted, &new, "admin").await?;
    Ok(Some(minted.token.0))
}

/// Waits until the process is told to stop. Heard from this call on: who waits for `ready` may say so at once.
#[cfg(unix)]
fn asked_to_stop() -> Result<impl Future<Output = ()>> {
    use signal::unix::{SignalKind, signal};
    let hear = |kind| signal(kind).map_err(|error| Error::Internal(format!("cannot hear signals: {error}")));
    let (mut interrupt, mut terminate) = (hear(SignalKind::interrupt())?, hear(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Waits until the process is told to stop.
#[cfg(not(unix))]
fn asked_to_stop() -> Result<impl Future<Output = ()>> {
    Ok(async {
        if signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Error::Internal(format!("cannot start threads: {error}")))
}
