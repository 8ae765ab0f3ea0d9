//! Connections: plain or TLS, HTTP/1.1 or 2, each with so much patience for its client.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum_server::tls_rustls::RustlsConfig;
use axum_server::{Handle, Server};
use tracing::{info, warn};

use crate::error::{Error, Result};
use crate::settings::Settings;

/// How often the files of the certificate are looked at: whoever renews it need not stop the server.
const LOOK: Duration = Duration::from_secs(60);

/// The certificate of the settings; `None` where there is none.
pub(crate) async fn certificate(settings: &Settings) -> Result<Option<RustlsConfig>> {
    let Some((certificate, key)) = settings.tls() else { return Ok(None) };
    let config = RustlsConfig::from_pem_file(certificate, key).await;
    config.map(Some).map_err(|error| {
        Error::Settings(format!(
            "`tls_certificate`, `tls_key`: {error}; expected two PEM files, the certificate with those that vouch for it and its key"
        ))
    })
}

/// Serves until `handle` says that it is enough.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<RustlsConfig>,
    routes: Router,
    settings: &Settings,
    handle: Handle<SocketAddr>,
) -> io::Result<()> {
    let patience = Duration::from_secs(settings.request_seconds);
    let routes = routes.into_make_service_with_connect_info::<SocketAddr>();
    match tls.zip(settings.tls()) {
        None => patient(axum_server::from_tcp(listener)?, patience).handle(handle).serve(routes).await,
        Some((config, (certificate, key))) => {
            let server = patient(axum_server::from_tcp_rustls(listener, config.clone())?, patience);
            tokio::select! {
                served = server.handle(handle).serve(routes) => served,
                () = renew(config, certificate, key) => Ok(()),
            }
        }
    }
}

/// A client that takes longer than this over a request's head is cut off.
fn patient<A>(mut server: Server<SocketAddr, A>, patience: Duration) -> Server<SocketAddr, A> {
    let builder = server.http_builder();
    builder.http1().header_read_timeout(patience);
    builder.http2().keep_alive_interval(patience).keep_alive_timeout(patience);
    server.first_request_timeout(patience)
}

/// Takes a certificate that has been renewed, without an end.
async fn renew(config: RustlsConfig, certificate: PathBuf, key: PathBuf) {
    let written = || [&certificate, &key].map(|path| path.metadata().and_then(|found| found.modified()).ok());
    let mut known: [Option<SystemTime>; 2] = written();
    loop {
        tokio::time::sleep(LOOK).await;
        let now = written();
        if now == known {
            continue;
        }
        known = now;
        match config.reload_from_pem_file(&certificate, &key).await {
            Ok(()) => info!("the certificate was renewed"),
            Err(error) => warn!(%error, "cannot read the new certificate; going on with the old one"),
        }
    }
}
