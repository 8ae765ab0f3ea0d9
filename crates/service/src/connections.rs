//! Connections: plain or TLS, HTTP/1.1 or 2, each with so much patience for its client.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
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
    let mut known = written(&certificate, &key);
    loop {
        tokio::time::sleep(LOOK).await;
        look(&config, &certificate, &key, &mut known).await;
    }
}

/// Takes the certificate if its files have been written since `known`; whatever they hold, connections go on.
async fn look(config: &RustlsConfig, certificate: &Path, key: &Path, known: &mut [Option<SystemTime>; 2]) {
    let now = written(certificate, key);
    if now == *known {
        return;
    }
    *known = now;
    match config.reload_from_pem_file(certificate, key).await {
        Ok(()) => info!("the certificate was renewed"),
        Err(error) => warn!(%error, "cannot read the new certificate; going on with the old one"),
    }
}

fn written(certificate: &Path, key: &Path) -> [Option<SystemTime>; 2] {
    [certificate, key].map(|path| path.metadata().and_then(|found| found.modified()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};

    /// Whether somebody who trusts only this certificate comes to an understanding with the server.
    fn trusts(config: &RustlsConfig, certificate: &CertifiedKey<rcgen::KeyPair>) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.cert.der().clone()).unwrap();
        let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let mut client = ClientConnection::new(client.into(), ServerName::try_from("localhost").unwrap()).unwrap();
        let mut server = ServerConnection::new(config.get_inner()).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut bytes.as_slice()).unwrap();
            server.process_new_packets().unwrap();
            bytes.clear();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut bytes.as_slice()).unwrap();
            if client.process_new_packets().is_err() {
                return false;
            }
        }
        true
    }

    #[tokio::test]
    async fn a_renewed_certificate_is_taken_and_a_broken_one_is_not() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let (path, key) = (folder.path().join("server.pem"), folder.path().join("server.key"));
        let write = |certificate: &CertifiedKey<rcgen::KeyPair>, hours: u64| {
            std::fs::write(&path, certificate.cert.pem()).unwrap();
            std::fs::write(&key, certificate.signing_key.serialize_pem()).unwrap();
            // Two writes may come within one tick of the file system's clock.
            let later = SystemTime::now() + Duration::from_secs(3600 * hours);
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        };
        let [old, new] = [(); 2].map(|()| generate_simple_self_signed(["localhost".into()]).unwrap());
        write(&old, 1);
        let config = RustlsConfig::from_pem_file(&path, &key).await.unwrap();
        let mut known = written(&path, &key);
        write(&new, 2);
        assert!(trusts(&config, &old) && !trusts(&config, &new));
        look(&config, &path, &key, &mut known).await;
        assert!(trusts(&config, &new) && !trusts(&config, &old));
        std::fs::write(&key, "half a ke").unwrap();
        look(&config, &path, &key, &mut known).await;
        assert!(trusts(&config, &new), "the old one is still there");
        write(&old, 3);
        look(&config, &path, &key, &mut known).await;
        assert!(trusts(&config, &old), "and the next good one is taken");
    }
}
