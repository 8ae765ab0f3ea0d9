//! TLS by two files, and what a client makes of it.

use std::net::{IpAddr, Ipv4Addr};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use serde_json::json;
use service::status::Status;

use super::support::{Server, follow};

/// The certificate of somebody who vouches, and certificate and key of a server at 127.0.0.1.
fn certificates() -> (String, String, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
    params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    (issuer.as_ref().pem(), certificate.pem(), key.serialize_pem())
}

#[test]
fn a_server_with_a_certificate_speaks_tls_and_a_client_checks_whose_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (issuer, certificate, key) = certificates();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (certificate, key) = (write("server.pem", &certificate), write("server.key", &key));
    let issuer = write("issuer.pem", &issuer);
    let server = Server::with(&[("TLS_CERTIFICATE", &certificate), ("TLS_KEY", &key), ("LISTEN", "0.0.0.0:0")]);
    assert!(server.address.starts_with("https://"), "{}", server.address);

    // Nobody of the system's vouches for it.
    let login = format!("login {} --token {}", server.address, server.token);
    let refused = server.command(&login).env("SSL_CERT_FILE", write("none.pem", "")).output().unwrap();
    assert!(!refused.status.success() && !server.path("home").exists(), "{refused:?}");
    let trusting = |arguments: &str| {
        let output = server.command(arguments).env("SSL_CERT_FILE", &issuer).output().unwrap();
        assert!(output.status.success(), "{arguments}: {output:?}\n{}", server.log());
        String::from_utf8(output.stdout).unwrap()
    };
    trusting(&login);
    trusting(
        "fit --model mini --train-data train.csv --kind labelled --epochs 1 --batch-size 16 --threads 1 --val-split 0.2 \
         --max-length 8 --canary=false --name first --output there",
    );
    assert!(trusting("runs").contains("first  FINISHED"));
    assert!(server.path("there/model.safetensors").is_file());

    // Without TLS nothing is answered.
    let plain = server.address.replace("https://", "http://");
    assert!(ureq::get(format!("{plain}/healthz")).call().is_err());
}

#[test]
fn other_machines_reach_a_server_only_with_tls_or_because_somebody_says_so() {
    let server = Server::start();
    let listen = ["serve", "--data", "other", "--listen", "0.0.0.0:0"].join(" ");
    let refused = server.run(&listen);
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && error.contains("`tls_certificate`") && error.contains("insecure"), "{error}");
    for (certificate, key) in [("train.csv", "train.csv"), ("nothing.pem", "nothing.pem")] {
        let error =
            server.fails(&[("DATA", "other"), ("TLS_CERTIFICATE", certificate), ("TLS_KEY", key), ("DATABASE", "")]);
        assert!(error.contains("`tls_certificate`, `tls_key`: "), "{error}");
    }
    let error = server.fails(&[("DATA", "other"), ("TLS_CERTIFICATE", "train.csv")]);
    assert!(error.contains("expected both or neither"), "{error}");
    let open = Server::with(&[("INSECURE", "true"), ("LISTEN", "0.0.0.0:0")]);
    let run = open.submit("first", json!({}));
    follow(&open.client(), &run.id);
    assert_eq!(open.client().run("first").unwrap().status, Status::Finished);
}
