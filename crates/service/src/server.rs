//! Start, check, shut down.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal;
use tracing::info;
use tracing_subscriber::EnvFilter;

use crate::dispatcher::dispatch;
use crate::error::{Error, Result};
use crate::http::router;
use crate::service::{Service, lock_folder};
use crate::settings::Settings;
use crate::wire::{NewKey, Scope};

/// A server that takes requests.
#[derive(Debug)]
pub struct Ready {
    /// Where.
    pub address: SocketAddr,
    /// The first key, at the first start only: it is shown once.
    pub first_key: Option<String>,
}

/// Serves until the process is told to stop (SIGTERM or Ctrl-C); then workers save and stop. `ready` hears when requests
/// are taken; workers are started as `binary worker`.
///
/// # Errors
/// Everything that [`Error`] lists, with what to do.
pub fn serve(settings: Settings, binary: PathBuf, ready: impl FnOnce(&Ready)) -> Result<()> {
    start_log(&settings);
    runtime()?.block_on(async {
        // Held until the end.
        let _lock = lock_folder(&settings.data)?;
        let listen = settings.listen;
        let service = Arc::new(Service::open(settings, binary).await?);
        if service.database.is_alone() {
            service.database.release_all().await?;
        }
        let first_key = first_key(&service).await?;
        let listener = TcpListener::bind(listen).await.map_err(|error| {
            Error::Settings(format!("cannot listen on {listen}: {error}; choose another address with `listen`"))
        })?;
        let address = listener.local_addr().map_err(|error| Error::Internal(error.to_string()))?;
        let dispatcher = tokio::spawn(begin(service.clone()));
        ready(&Ready { address, first_key });
        info!(%address, "ready");

        let draining = service.draining.clone();
        let stop = async move {
            asked_to_stop().await;
            info!("going down: workers save and stop");
            draining.cancel();
        };
        let patience = Duration::from_secs(service.settings.patience_seconds);
        // Made once: axum would otherwise make every route anew for each connection, a megabyte each.
        let routes = router(service.clone()).into_make_service();
        let serving = axum::serve(listener, routes).with_graceful_shutdown(stop);
        let served = tokio::select! {
            served = serving.into_future() => served,
            // Whoever takes longer than a worker may to save has to come back.
            () = too_long(&service, patience) => Ok(()),
        };
        service.draining.cancel();
        let _ = dispatcher.await;
        service.database.close().await;
        info!("down");
        served.map_err(|error| Error::Internal(format!("cannot serve: {error}")))
    })
}

/// Tries everything a server needs and gives a sentence for each thing that works.
///
/// # Errors
/// The first thing that does not, with what to do.
pub fn check(settings: Settings, binary: PathBuf) -> Result<Vec<String>> {
    runtime()?.block_on(async {
        let _lock = lock_folder(&settings.data)?;
        let listen = settings.listen;
        let data = settings.data.display().to_string();
        let service = Service::open(settings, binary.clone()).await?;
        let mut works = vec![format!("folder: {data}")];
        service.database.ping().await?;
        works.push("database: answers, schema up to date".into());
        service.storage.check().await?;
        works.push("storage: written and read".into());
        TcpListener::bind(listen)
            .await
            .map_err(|error| Error::Settings(format!("cannot listen on {listen}: {error}; choose another address")))?;
        works.push(format!("address: {listen}"));
        service.database.close().await;
        Ok(works)
    })
}

/// Tidies up, then dispatches.
async fn begin(service: Arc<Service>) {
    if let Err(error) = service.tidy().await {
        tracing::error!(%error, "cannot tidy up what was left behind; trying again at the next start");
    }
    dispatch(service).await;
}

/// So long after the server was told to stop.
async fn too_long(service: &Service, patience: Duration) {
    service.draining.cancelled().await;
    tokio::time::sleep(patience).await;
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

async fn asked_to_stop() {
    let interrupt = async {
        if signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminate = async {
        match signal::unix::signal(signal::unix::SignalKind::terminate()) {
            Ok(mut terminate) => drop(terminate.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    tokio::select! {
        () = interrupt => {}
        () = terminate => {}
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Error::Internal(format!("cannot start threads: {error}")))
}

/// Lines on standard error; `RUST_LOG` says how many.
fn start_log(settings: &Settings) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // That somebody else has started a log already is no reason not to serve.
    let _ = if settings.log == "json" {
        tracing::subscriber::set_global_default(log.json().finish())
    } else {
        tracing::subscriber::set_global_default(log.with_ansi(false).finish())
    };
}
