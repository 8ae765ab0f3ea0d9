//! A folder, a server in it, and what clients need.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};

use finetuner::event::Event;
use serde_json::{Map, Value, json};
use service::client::{Client, Login};
use service::status::Status;
use service::wire::{NewRun, Resources, Run, RunEvent};
use tempfile::TempDir;

/// Longer than anything here takes; what takes longer has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(240);

/// A server, ended with the test.
pub(crate) struct Server {
    folder: TempDir,
    schema: Option<Schema>,
    bucket: Option<Bucket>,
    child: Option<Child>,
    pub(crate) address: String,
    pub(crate) token: String,
    variables: Vec<(&'static str, String)>,
}

/// What a raw request got.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// A server with these settings.
    pub(crate) fn with(settings: &[(&'static str, &str)]) -> Self {
        let mut variables: Vec<_> = settings.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let schema = Schema::new().filter(|_| !settings.iter().any(|(name, _)| *name == "DATABASE"));
        variables.extend(schema.as_ref().map(|schema| ("DATABASE", schema.address())));
        let bucket = Bucket::new().filter(|_| !settings.iter().any(|(name, _)| *name == "STORAGE"));
        variables.extend(bucket.as_ref().map(|bucket| ("STORAGE", bucket.address())));
        let folder = tempfile::tempdir().unwrap();
        let (address, token) = (String::new(), String::new());
        let mut server = Server { folder, schema, bucket, child: None, address, token, variables };
        let listen = settings.iter().find(|(name, _)| *name == "LISTEN").map_or("127.0.0.1:0", |(_, listen)| *listen);
        server.begin(listen);
        let training: String = (0..96).fold("text,label\n".into(), |rows, number| rows + &row(number));
        std::fs::write(server.path("train.csv"), training).unwrap();
        server
    }

    fn begin(&mut self, listen: &str) {
        let mut command = self.serve(&format!("--data data --listen {listen}"));
        let log = std::fs::File::options().create(true).append(true).open(self.path("server.log")).unwrap();
        let mut child = command.env("RUST_LOG", "debug,sqlx=info").stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some(address) = line.strip_prefix("Finetuner listens on ") {
                // A server of every address is asked at the loopback one.
                self.address = address.replace("0.0.0.0", "127.0.0.1");
                if !self.token.is_empty() {
                    break;
                }
            } else if let Some(token) = line.strip_prefix("First key, shown this once: ") {
                self.token = token.to_owned();
                break;
            }
        }
        assert!(!self.address.is_empty() && !self.token.is_empty(), "the server did not start: {}", self.log());
        self.child = Some(child);
    }

    /// `finetuner serve` with the settings of this server.
    pub(crate) fn serve(&self, arguments: &str) -> Command {
        let mut command = self.command(&format!("serve {arguments}"));
        command.envs(self.variables.iter().map(|(name, value)| (format!("FINETUNER_SERVER_{name}"), value)));
        command.envs(self.bucket.iter().flat_map(Bucket::environment));
        command
    }

    /// What `--check` says of this server, which must be down.
    pub(crate) fn check(&self) -> String {
        let output = self.serve("--data data --listen 127.0.0.1:0 --check").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// As a crash of the server would.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// As an administrator would.
    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        signal("-TERM", child.id());
        assert!(wait(|| child.try_wait().unwrap()).success(), "{}", self.log());
    }

    /// Starts the server again at its address.
    pub(crate) fn restart(&mut self) {
        let listen = self.address.trim_start_matches("http://").to_owned();
        self.begin(&listen);
    }

    /// Changes a setting from the next start on.
    pub(crate) fn set(&mut self, name: &'static str, value: &str) {
        self.variables.retain(|(known, _)| *known != name);
        self.variables.push((name, value.to_owned()));
    }

    /// Another server with these settings that must not start; gives what it says.
    pub(crate) fn fails(&self, settings: &[(&str, &str)]) -> String {
        let mut command = self.command("serve --listen 127.0.0.1:0");
        command.envs(settings.iter().map(|(name, value)| (format!("FINETUNER_SERVER_{name}"), value)));
        let output = command.output().unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    pub(crate) fn schema(&self) -> Option<&Schema> {
        self.schema.as_ref()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("server.log")).unwrap_or_default()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The binary in the folder of the test, as a user with a home there.
    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_finetuner"));
        command.args(arguments.split_whitespace()).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env_clear().env("HOME", self.path("home")).env("HF_HUB_OFFLINE", "1");
        command
    }

    pub(crate) fn run(&self, arguments: &str) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs what must work; gives its standard output.
    pub(crate) fn succeed(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments}: {output:?}\n{}", self.log());
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn client(&self) -> Client {
        self.client_with(&self.token)
    }

    pub(crate) fn client_with(&self, token: &str) -> Client {
        Client::new(Login { server: self.address.clone(), token: token.to_owned() })
    }

    /// A request as this key.
    pub(crate) fn send_as(
        &self,
        token: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.address));
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut answer = agent.run(request.body(body).unwrap()).unwrap();
        let headers = answer.headers().iter();
        let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        Answer { status: answer.status().as_u16(), headers, body: answer.body_mut().read_to_string().unwrap() }
    }

    pub(crate) fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.send_as(&self.token, method, path, &[], &body)
    }

    /// Uploads the training data; gives its id.
    pub(crate) fn upload(&self) -> String {
        self.client().upload(&self.path("train.csv"), &mut |_, _| {}).unwrap().id
    }

    /// Starts a run of `mini` with these fields besides.
    pub(crate) fn submit(&self, name: &str, fields: Value) -> Run {
        self.client().create_run(&new_run(&self.upload(), name, fields)).unwrap()
    }

    /// The keys of all objects whose key begins like this.
    pub(crate) fn objects(&self, prefix: &str) -> BTreeSet<String> {
        let keys = match &self.bucket {
            Some(bucket) => bucket.list(),
            None => files_below(&self.path("data/objects"), ""),
        };
        keys.into_iter().filter(|key| key.starts_with(prefix)).collect()
    }

    /// Puts an object there that no row knows.
    pub(crate) fn plant(&self, key: &str) {
        if let Some(bucket) = &self.bucket {
            return bucket.put(key);
        }
        let path = self.path("data/objects").join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    }

    /// The process ids of a run's workers that may be alive.
    pub(crate) fn workers(&self, run: &str) -> Vec<u32> {
        let attempts = std::fs::read_dir(self.path("data/runs").join(run).join("attempts"));
        let locks = attempts.into_iter().flatten().map(|entry| entry.unwrap().path().join("lock"));
        let held = locks.filter(|lock| std::fs::File::open(lock).is_ok_and(|file| file.try_lock_shared().is_err()));
        held.filter_map(|lock| std::fs::read_to_string(lock).ok()?.trim().parse().ok()).collect()
    }
}

impl Drop for Server {
    #[expect(clippy::print_stderr, reason = "what a failed test says beside its panic")]
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        // Workers outlive a server that was killed.
        let runs = std::fs::read_dir(self.path("data/runs")).into_iter().flatten();
        for run in runs.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
            for worker in self.workers(&run) {
                signal("-KILL", worker);
            }
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("the end of the server's log:");
            lines.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// A part of a bucket at the S3 endpoint that `FINETUNER_TEST_S3` names.
pub(crate) struct Bucket {
    endpoint: String,
    prefix: String,
}

impl Bucket {
    const NAME: &str = "finetuner-tests";

    /// `None` where the variable is not set: the test keeps its objects in a folder.
    pub(crate) fn new() -> Option<Self> {
        static SAID: Once = Once::new();
        let Ok(endpoint) = std::env::var("FINETUNER_TEST_S3") else {
            SAID.call_once(|| say("FINETUNER_TEST_S3 is not set: files and artifacts are tested in a folder only"));
            return None;
        };
        let bucket = Bucket { endpoint, prefix: ulid::Ulid::generate().to_string() };
        // It may be there already.
        let _ = ureq::put(format!("{}/{}", bucket.endpoint, Self::NAME)).send_empty();
        Some(bucket)
    }

    /// As the server's setting `storage`.
    pub(crate) fn address(&self) -> String {
        format!("s3://{}/{}", Self::NAME, self.prefix)
    }

    pub(crate) fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("AWS_ENDPOINT_URL", self.endpoint.clone()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_ACCESS_KEY_ID", "test".into()),
            ("AWS_SECRET_ACCESS_KEY", "test".into()),
        ]
    }

    fn list(&self) -> Vec<String> {
        let address = format!("{}/{}?list-type=2&prefix={}/", self.endpoint, Self::NAME, self.prefix);
        // The server of the tests fails where another test writes meanwhile; as every client of S3 this one asks again.
        let mut answer = wait(|| match ureq::get(&address).call() {
            Err(ureq::Error::StatusCode(500..)) => None,
            answer => Some(answer.unwrap()),
        });
        let text = answer.body_mut().read_to_string().unwrap();
        assert!(text.contains("<IsTruncated>false</IsTruncated>"), "{text}");
        let keys = text.split("<Key>").skip(1).map(|rest| rest.split("</Key>").next().unwrap());
        keys.map(|key| key.strip_prefix(&self.prefix).unwrap().trim_start_matches('/').to_owned()).collect()
    }

    fn put(&self, key: &str) {
        let address = format!("{}/{}/{}/{key}", self.endpoint, Self::NAME, self.prefix);
        ureq::put(address).send("x").unwrap();
    }
}

/// A schema of the PostgreSQL database that `FINETUNER_TEST_POSTGRES` names, removed with the test.
pub(crate) struct Schema {
    url: String,
    name: String,
}

impl Schema {
    /// `None` where the variable is not set: the test runs on SQLite.
    pub(crate) fn new() -> Option<Self> {
        static SAID: Once = Once::new();
        let Ok(url) = std::env::var("FINETUNER_TEST_POSTGRES") else {
            SAID.call_once(|| say("FINETUNER_TEST_POSTGRES is not set: the server is tested on SQLite only"));
            return None;
        };
        let name = format!("test_{}", ulid::Ulid::generate().to_string().to_lowercase());
        let schema = Schema { url, name };
        schema.run(&format!("CREATE SCHEMA {}", schema.name));
        Some(schema)
    }

    /// As the server's setting `database`.
    pub(crate) fn address(&self) -> String {
        let separator = if self.url.contains('?') { '&' } else { '?' };
        format!("{}{separator}options=-c%20search_path%3D{}", self.url, self.name)
    }

    /// Runs SQL in the schema; gives the rows, a line each.
    pub(crate) fn run(&self, sql: &str) -> String {
        let search = format!("SET search_path TO {}", self.name);
        let mut command = Command::new("psql");
        command.args([&self.url, "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", &search, "-c", sql]);
        let output = command.output().unwrap_or_else(|error| panic!("psql: {error}"));
        assert!(output.status.success(), "{sql}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Schema {
    /// Everything in the schema, as SQL.
    pub(crate) fn dump(&self) -> Vec<u8> {
        let output = Command::new("pg_dump").args([&self.url, "-n", &self.name]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }

    /// The schema as a dump says.
    pub(crate) fn restore(&self, dump: &[u8]) {
        self.run(&format!("SET client_min_messages = warning; DROP SCHEMA {} CASCADE", self.name));
        let mut psql = Command::new("psql");
        psql.args([&self.url, "-qX", "-v", "ON_ERROR_STOP=1"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut psql = psql.spawn().unwrap();
        psql.stdin.take().unwrap().write_all(dump).unwrap();
        assert!(psql.wait().unwrap().success());
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        let sql = format!("SET client_min_messages = warning; DROP SCHEMA {} CASCADE", self.name);
        let _ = Command::new("psql").args([&self.url, "-qX", "-c", &sql]).status();
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The error's code, after a look at its shape.
    pub(crate) fn code(&self) -> String {
        let body = self.json();
        let error = &body["error"];
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{self:?}");
        assert!(error["type"].is_string() && error.get("param").is_some(), "{self:?}");
        error["code"].as_str().unwrap().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str()).unwrap_or_default()
    }
}

/// A request for a run of `mini`, short unless `fields` say otherwise.
pub(crate) fn new_run(file: &str, name: &str, fields: Value) -> NewRun {
    // The last of three layers learns: a checkpoint takes 21 MB and not 207.
    let mut spec: Map<String, Value> = json!({
        "model": "mini", "train_data": file, "kind": "labelled", "epochs": 1, "batch_size": 16, "threads": 1,
        "learning_rate": 1e-4, "val_split": 0.2, "canary": false, "max_length": 8, "freeze": "embeddings,layers:0-1",
    })
    .as_object()
    .unwrap()
    .clone();
    spec.extend(fields.as_object().unwrap().clone());
    NewRun {
        spec,
        name: Some(name.to_owned()),
        experiment: None,
        description: String::new(),
        priority: 0,
        resources: Resources::default(),
    }
}

/// A labelled text; those of different numbers differ.
fn row(number: usize) -> String {
    let words = ["card", "loan", "train", "bread", "river", "music", "cloud", "tree"];
    let topic = words[number % words.len()];
    let mut row = String::new();
    let _ = writeln!(row, "{topic} {} {},{topic}", words[number / 8 % words.len()], number);
    row
}

/// Makes a key; gives its id and token.
pub(crate) fn key(server: &Server, owner: &str, scope: &str) -> (String, String) {
    let made = server.send("POST", "/v1/keys", &json!({"name": "test", "owner": owner, "scope": scope}));
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned())
}

/// Asks again until there is an answer.
pub(crate) fn wait<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < DEADLINE, "waited for too long");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn signal(signal: &str, process: u32) {
    // It may have ended by itself in the meantime.
    let _ = Command::new("kill").args([signal, &process.to_string()]).stderr(Stdio::null()).status();
}

/// Follows a run to its end: every event, which must have no gap and one final state, the last.
pub(crate) fn follow(client: &Client, run: &str) -> Vec<RunEvent> {
    let events: Vec<RunEvent> = client.events(run, 0).map(|event| event.unwrap()).collect();
    let numbers: Vec<i64> = events.iter().map(|event| event.sequence).collect();
    assert_eq!(numbers, (1..=events.len() as i64).collect::<Vec<_>>());
    let last = events.len() - 1;
    for (place, event) in events.iter().enumerate() {
        let is_final = matches!(&event.event, Event::State { state } if Status::from_name(state).unwrap().is_final());
        assert_eq!(is_final, place == last, "{event:?}");
    }
    events
}

/// Files in a folder and those below.
fn files_below(folder: &Path, prefix: &str) -> Vec<String> {
    let mut files = Vec::new();
    for name in names(folder) {
        let (path, key) = (folder.join(&name), format!("{prefix}{name}"));
        if path.is_dir() {
            files.extend(files_below(&path, &format!("{key}/")));
        } else {
            files.push(key);
        }
    }
    files
}

/// Tells whoever runs the tests, whether they fail or not: `eprintln!` is shown only where they fail.
pub(crate) fn say(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Names in a folder.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}
