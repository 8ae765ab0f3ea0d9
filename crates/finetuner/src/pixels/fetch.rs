//! Pictures from the web, for data that is not trusted to name addresses of this machine's own network.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

/// Seconds for one picture, redirections included.
const PATIENCE: Duration = Duration::from_secs(30);
/// Redirections that are followed. Each one is looked up, and refused, like the first address.
const REDIRECTIONS: u32 = 5;

/// Downloads within limits of time and size, from public addresses only.
#[derive(Debug)]
pub(super) struct Fetcher {
    agent: ureq::Agent,
    bytes: u64,
}

impl Fetcher {
    /// At most `bytes` a picture. `everywhere` allows addresses of the own network, for tests.
    pub(super) fn new(bytes: u64, everywhere: bool) -> Self {
        let config = Config::builder()
            .timeout_global(Some(PATIENCE))
            .max_redirects(REDIRECTIONS)
            .proxy(None) // a proxy would look names up itself, unchecked
            .user_agent(concat!("finetuner/", env!("CARGO_PKG_VERSION")))
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .build();
        let resolver = Public { resolver: DefaultResolver::default(), everywhere };
        Fetcher { agent: ureq::Agent::with_parts(config, DefaultConnector::new(), resolver), bytes }
    }

    /// The body of an answer.
    pub(super) fn fetch(&self, url: &str) -> std::result::Result<Vec<u8>, String> {
        let download = || self.agent.get(url).call()?.body_mut().with_config().limit(self.bytes).read_to_vec();
        download().map_err(|error| match error {
            ureq::Error::BodyExceedsLimit(limit) => format!("expected at most {limit} bytes, got more"),
            other => format!("cannot be downloaded: {other}"),
        })
    }
}

/// Looks names up and refuses what is not on the public internet. The connection is made to the very address that was
/// checked, so a name that changes its answer gains nothing.
#[derive(Debug)]
struct Public {
    resolver: DefaultResolver,
    everywhere: bool,
}

impl Resolver for Public {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> std::result::Result<ResolvedSocketAddrs, ureq::Error> {
        let addresses = self.resolver.resolve(uri, config, timeout)?;
        match addresses.iter().find(|address| !self.everywhere && !is_public(address.ip())) {
            Some(address) => {
                let host = uri.host().unwrap_or_default();
                let problem = format!("`{host}` is {}, which is not on the public internet; refused", address.ip());
                Err(io::Error::new(io::ErrorKind::PermissionDenied, problem).into())
            }
            None => Ok(addresses),
        }
    }
}

/// Whether an address belongs to the public internet (registries of special-purpose addresses: RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        || first == 0
        || first >= 240
        || (first == 100 && (64..128).contains(&second)) // shared by a provider's customers
        || (first == 192 && second == 0 && third == 0)
        || (first == 198 && (18..20).contains(&second))) // benchmarks
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, third, .., high, low] = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match (first, second) {
        _ if address.to_ipv4_mapped().is_some() => embedded(high, low),
        (0x0064, 0xFF9B) => embedded(high, low), // translation to IPv4
        (0x2002, _) => embedded(second, third),  // 6to4
        (0x2001, ..0x0200 | 0x0DB8) => false,    // Teredo and other special purposes, documentation
        (0x2000..=0x3FFF, _) => true,            // all that is assigned to the public
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Answers each connection with the next of these texts; gives its own address.
    fn server(answers: Vec<String>) -> (String, std::thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 2048];
                let _ = stream.read(&mut request).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        (address, thread)
    }

    fn answer(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
    }

    #[test]
    fn only_public_addresses_are_public() {
        let refused = "127.0.0.1 127.8.8.8 10.1.2.3 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 \
                       0.1.2.3 224.0.0.1 255.255.255.255 192.0.0.1 192.0.2.1 198.18.0.1 198.51.100.1 203.0.113.1 240.0.0.1 ::1 :: \
                       fe80::1 fc00::1 fd12::1 ff02::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::a00:1 2002:7f00:1:: 2001:db8::1 \
                       2001::1 fec0::1 ::127.0.0.1";
        for address in refused.split_whitespace() {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in
            "8.8.8.8 172.32.0.1 100.128.0.1 2606:4700::1111 ::ffff:8.8.8.8 64:ff9b::808:808".split_whitespace()
        {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn the_own_network_is_refused_by_number_and_by_name() {
        let (address, _server) = server(vec![]);
        for url in [address.clone(), address.replace("127.0.0.1", "localhost"), address.replace("127.0.0.1", "[::1]")] {
            let problem = Fetcher::new(100, false).fetch(&url).unwrap_err();
            assert!(problem.contains("not on the public internet"), "{url}: {problem}");
        }
    }

    #[test]
    fn a_body_arrives_and_a_large_one_is_refused() {
        let (address, server) = server(vec![answer("0123456789"), answer("0123456789"), answer("01234567890")]);
        let fetcher = Fetcher::new(10, true);
        assert_eq!(fetcher.fetch(&address).unwrap(), b"0123456789");
        assert_eq!(fetcher.fetch(&format!("{address}/a.jpg?size=2")).unwrap(), b"0123456789");
        assert_eq!(fetcher.fetch(&address).unwrap_err(), "expected at most 10 bytes, got more");
        server.join().unwrap();
    }

    #[test]
    fn a_redirection_is_followed_and_an_endless_one_or_one_to_a_file_refused() {
        let to = |place: &str| {
            format!("HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        };
        let (address, first) = server(vec![to("/b"), answer("b")]);
        assert_eq!(Fetcher::new(10, true).fetch(&address).unwrap(), b"b");
        first.join().unwrap();
        let (address, _second) = server(vec![to("/a"); 9]);
        assert!(Fetcher::new(10, true).fetch(&address).unwrap_err().contains("redirect"));
        let (address, third) = server(vec![to("file:///etc/passwd")]);
        assert!(Fetcher::new(10, true).fetch(&address).is_err());
        third.join().unwrap();
    }

    #[test]
    fn an_error_status_is_told() {
        let (address, server) = server(vec!["HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".into()]);
        assert_eq!(Fetcher::new(10, true).fetch(&address).unwrap_err(), "cannot be downloaded: http status: 404");
        server.join().unwrap();
    }
}
