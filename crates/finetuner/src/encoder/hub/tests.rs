//! The client against a local HTTP server that stands in for the hub.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

use super::*;
use crate::encoder::source::{ModelSource, resolve_with};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const MODEL: &str = "org/model";

/// What the server serves and how it misbehaves.
#[derive(Default)]
struct Behaviour {
    files: BTreeMap<&'static str, Vec<u8>>,
    /// Only with this token.
    token: Option<&'static str>,
    /// The connection breaks after this many bytes of a body, this many times.
    cuts: Mutex<(usize, usize)>,
    /// Large files claim the hash of other bytes.
    lies: bool,
    /// Small files lie behind a redirection of the hub to itself.
    redirects: bool,
    /// The answer to everything, if set.
    status: Option<u16>,
}

struct Server {
    endpoint: String,
    /// `METHOD path range` of every request.
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = serve(stream, &behaviour, &log); // a client that leaves is no concern of the server
            }
        });
        Server { endpoint, requests }
    }

    fn hub(&self, cache: &Path) -> Hub {
        Hub::new(&self.endpoint, cache)
    }

    fn requests(&self, beginning: &str) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|request| request.starts_with(beginning)).cloned().collect()
    }
}

/// One request a connection.
fn serve(mut stream: TcpStream, behaviour: &Behaviour, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap_or(Ok(String::new()))?;
    let headers: Vec<String> = lines.map_while(|line| line.ok().filter(|line| !line.is_empty())).collect();
    let header = |name: &str| headers.iter().find_map(|line| line.to_lowercase().strip_prefix(name).map(str::to_owned));
    let (method, path) = request.split_once(' ').unwrap_or_default();
    let path = path.split(' ').next().unwrap_or_default();
    let range = header("range: bytes=").unwrap_or_default();
    log.lock().unwrap().push(format!("{method} {path} {range}").trim_end().to_owned());
    let mut answer = |status: u16, headers: &str, body: &[u8], length: usize| {
        let head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n");
        stream.write_all(head.as_bytes())?;
        stream.write_all(if method == "HEAD" { b"" } else { body })
    };
    if let Some(status) = behaviour.status {
        return answer(status, "", b"", 0);
    }
    if behaviour.token.is_some_and(|token| header("authorization: bearer ").as_deref() != Some(token)) {
        return answer(401, "", b"", 0);
    }
    let revision = path.strip_prefix(&format!("/api/models/{MODEL}/revision/"));
    if revision.is_some_and(|revision| ["main", "refs%2Fpr%2F1", COMMIT].contains(&revision)) {
        let siblings: Vec<_> = behaviour.files.keys().map(|name| serde_json::json!({"rfilename": name})).collect();
        let body = serde_json::json!({"sha": COMMIT, "siblings": siblings}).to_string();
        return answer(200, "", body.as_bytes(), body.len());
    }
    let direct = path.strip_prefix(&format!("/{MODEL}/resolve/{COMMIT}/"));
    let name = direct.or_else(|| path.strip_prefix("/api/resolve-cache/")).unwrap_or_default();
    let Some(contents) = behaviour.files.get(name) else { return answer(404, "", b"", 0) };
    let large = name.ends_with(".safetensors");
    if behaviour.redirects && direct.is_some() && !large {
        return answer(307, &format!("Location: /api/resolve-cache/{name}\r\n"), b"", 0);
    }
    let hash = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let etag = match (large, behaviour.lies) {
        (true, true) => format!("X-Linked-Etag: \"{}\"\r\n", hash(b"other bytes")),
        (true, false) => format!("X-Linked-Etag: \"{}\"\r\nX-Linked-Size: {}\r\n", hash(contents), contents.len()),
        (false, _) => format!("ETag: W/\"{}\"\r\n", &hash(contents)[..40]),
    };
    let start: usize = range.trim_end_matches('-').parse().unwrap_or(0);
    let body = &contents[start..];
    let mut cuts = behaviour.cuts.lock().unwrap();
    let sent = if large && method == "GET" && cuts.1 > 0 {
        cuts.1 -= 1;
        &body[..cuts.0.min(body.len())]
    } else {
        body
    };
    match start {
        0 => answer(200, &etag, sent, body.len()),
        _ => {
            let range = format!("Content-Range: bytes {start}-{}/{}\r\n", contents.len() - 1, contents.len());
            answer(206, &(etag + &range), sent, body.len())
        }
    }
}

fn files() -> BTreeMap<&'static str, Vec<u8>> {
    let weights = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    [
        ("config.json", b"{}".to_vec()),
        ("modules.json", b"[]".to_vec()),
        ("1_Pooling/config.json", b"{\"pooling\": 1}".to_vec()),
        ("tokenizer.json", b"{\"tokenizer\": 1}".to_vec()),
        ("model.safetensors", weights),
        ("pytorch_model.bin", b"pickle".to_vec()),
        ("onnx/model.safetensors", b"not wanted".to_vec()),
        ("train_script.py", b"not wanted".to_vec()),
    ]
    .into()
}

fn serving() -> Behaviour {
    Behaviour { files: files(), ..Default::default() }
}

fn get(hub: &Hub) -> Result<Snapshot> {
    hub.model(MODEL, "main", &mut |_| {})
}

fn problem(hub: &Hub) -> String {
    get(hub).unwrap_err().to_string()
}

#[test]
fn a_model_is_downloaded_once_into_the_standard_cache_layout() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(serving());
    let hub = server.hub(cache.path());
    let mut transfers = Vec::new();
    let mut progress =
        |transfer: Transfer<'_>| transfers.push((transfer.file.to_owned(), transfer.done_bytes, transfer.total_bytes));
    let source = resolve_with(MODEL, &hub, &mut progress).unwrap();
    let folder = cache.path().join("models--org--model/snapshots").join(COMMIT);
    assert_eq!(source, ModelSource::Hub { repository: MODEL.into(), commit: COMMIT.into(), folder: folder.clone() });
    for name in ["config.json", "modules.json", "1_Pooling/config.json", "tokenizer.json", "model.safetensors"] {
        assert_eq!(std::fs::read(folder.join(name)).unwrap(), files()[name], "{name}");
    }
    assert!(!folder.join("pytorch_model.bin").exists() && !folder.join("onnx").exists());
    let reference = cache.path().join("models--org--model/refs/main");
    assert_eq!(std::fs::read_to_string(reference).unwrap(), COMMIT);
    assert_eq!(transfers.last().unwrap(), &("model.safetensors".to_owned(), 400_000, 400_000));
    #[cfg(unix)]
    assert!(std::fs::read_link(folder.join("1_Pooling/config.json")).unwrap().starts_with("../../../blobs"));

    let before = server.requests("GET /org").len();
    get(&hub).unwrap();
    assert_eq!(server.requests("GET /org").len(), before, "files were downloaded twice");
    assert_eq!(get(&hub.clone().offline()).unwrap().folder, folder);
}

#[test]
fn a_commit_in_the_cache_needs_no_network() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(serving());
    let name = format!("{MODEL}@{COMMIT}");
    resolve_with(&name, &server.hub(cache.path()), &mut |_| {}).unwrap();
    let dead = Hub::new("http://127.0.0.1:9", cache.path());
    resolve_with(&name, &dead, &mut |_| {}).unwrap();
    assert!(get(&dead).is_err(), "main was never asked for");
}

#[test]
fn a_pull_request_is_a_revision() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(serving());
    let hub = server.hub(cache.path());
    hub.model(MODEL, "refs/pr/1", &mut |_| {}).unwrap();
    hub.offline().model(MODEL, "refs/pr/1", &mut |_| {}).unwrap();
}

#[test]
fn a_broken_connection_is_resumed_where_it_stopped() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(Behaviour { cuts: Mutex::new((150_000, 2)), ..serving() });
    let snapshot = get(&server.hub(cache.path())).unwrap();
    assert_eq!(std::fs::read(snapshot.folder.join("model.safetensors")).unwrap(), files()["model.safetensors"]);
    let path = format!("GET /{MODEL}/resolve/{COMMIT}/model.safetensors");
    let expected = [path.clone(), format!("{path} 150000-"), format!("{path} 300000-")];
    assert_eq!(server.requests(&path), expected);
}

#[test]
fn an_interrupted_download_is_resumed_by_the_next_run() {
    let cache = tempfile::tempdir().unwrap();
    let weights = &files()["model.safetensors"];
    let etag: String = Sha256::digest(weights).iter().map(|byte| format!("{byte:02x}")).collect();
    let blobs = cache.path().join("models--org--model/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(format!("{etag}.incomplete")), &weights[..1000]).unwrap();
    let server = Server::start(serving());
    let snapshot = get(&server.hub(cache.path())).unwrap();
    assert_eq!(&std::fs::read(snapshot.folder.join("model.safetensors")).unwrap(), weights);
    let path = format!("GET /{MODEL}/resolve/{COMMIT}/model.safetensors");
    assert_eq!(server.requests(&path), [format!("{path} 1000-")]);
}

#[test]
fn a_connection_that_brings_nothing_is_given_up_and_the_rest_kept() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(Behaviour { cuts: Mutex::new((0, 99)), ..serving() });
    let hub = server.hub(cache.path());
    let message = problem(&hub);
    assert!(message.contains("model.safetensors") && message.contains("again to continue"), "{message}");
    let folder = cache.path().join("models--org--model/snapshots").join(COMMIT);
    assert!(folder.join("config.json").exists() && !folder.join("model.safetensors").exists());
    assert!(problem(&hub.offline()).contains("HF_HUB_OFFLINE"), "half a model is not a model");
}

#[test]
fn bytes_that_do_not_fit_their_hash_are_thrown_away() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(Behaviour { lies: true, ..serving() });
    assert!(problem(&server.hub(cache.path())).contains("not those of the file"));
    let blobs = std::fs::read_dir(cache.path().join("models--org--model/blobs")).unwrap();
    assert!(blobs.flatten().all(|blob| !blob.file_name().to_string_lossy().ends_with("incomplete")));
}

#[test]
fn redirections_of_the_hub_to_itself_are_followed() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(Behaviour { redirects: true, ..serving() });
    let snapshot = get(&server.hub(cache.path())).unwrap();
    assert_eq!(std::fs::read(snapshot.folder.join("tokenizer.json")).unwrap(), files()["tokenizer.json"]);
}

#[test]
fn private_models_need_the_token_and_say_so() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(Behaviour { token: Some("hf_secret"), ..serving() });
    let hub = server.hub(cache.path());
    assert!(problem(&hub).contains("set HF_TOKEN"));
    let message = problem(&hub.clone().token(Some(Token::new("hf_wrong"))));
    assert!(message.contains("the token (HF_TOKEN) may not") && !message.contains("hf_wrong"), "{message}");
    get(&hub.token(Some(Token::new("hf_secret")))).unwrap();
}

#[test]
fn an_unknown_repository_or_revision_is_named() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(serving());
    let hub = server.hub(cache.path());
    let error = hub.model("org/none", "main", &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("org/none") && error.contains("no such repository"), "{error}");
    let error = hub.model(MODEL, "v9", &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("org/model/tree/v9"), "{error}");
}

#[test]
fn a_hub_in_trouble_leaves_the_cached_model_usable() {
    let cache = tempfile::tempdir().unwrap();
    let ill = Server::start(Behaviour { status: Some(503), ..Default::default() });
    assert!(problem(&ill.hub(cache.path())).contains("503"));
    let snapshot = get(&Server::start(serving()).hub(cache.path())).unwrap();
    assert_eq!(get(&ill.hub(cache.path())).unwrap(), snapshot);
    assert_eq!(get(&Hub::new("http://127.0.0.1:9", cache.path())).unwrap(), snapshot);
}
