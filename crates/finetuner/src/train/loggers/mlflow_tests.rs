//! The client against a local HTTP server that stands in for MLflow.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::*;

/// `METHOD path` and the body of every request.
type Requests = Arc<Mutex<Vec<(String, Value)>>>;

fn start_server(status: u16) -> (String, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let requests = Requests::default();
    let log = requests.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = serve(stream, status, &log); // a client that leaves is no concern of the server
        }
    });
    (address, requests)
}

/// Answers the requests of one connection.
fn serve(stream: TcpStream, status: u16, log: &Requests) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let (mut first, mut length) = (String::new(), 0);
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) =
                line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            {
                length = value.trim().parse().unwrap_or_else(|_| panic!("{name}"));
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let request = first.trim_end_matches(" HTTP/1.1\r\n").replace("/api/2.0/mlflow/", "");
        let (status, answer) = match request.as_str() {
            _ if status != 200 => (status, json!({"message": "no"})),
            "GET experiments/get-by-name?experiment_name=new" => {
                (404, json!({"error_code": "RESOURCE_DOES_NOT_EXIST"}))
            }
            path if path.starts_with("GET experiments/") => (200, json!({"experiment": {"experiment_id": "0"}})),
            "POST experiments/create" => (200, json!({"experiment_id": "7"})),
            "POST runs/create" => (200, json!({"run": {"info": {"run_id": "abc"}}})),
            _ => (200, json!({})),
        };
        log.lock().unwrap().push((request, serde_json::from_slice(&body).unwrap_or_default()));
        let answer = answer.to_string();
        write!(&stream, "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{answer}", answer.len())?;
    }
}

fn logger(server: &str, experiment: Option<&str>) -> MlflowLogger {
    let experiment_name = experiment.map(str::to_owned);
    MlflowLogger { tracking_uri: Some(server.into()), experiment_name, ..Default::default() }
}

#[test]
fn a_run_is_made_told_and_ended() {
    let (server, requests) = start_server(200);
    let spec = RunSpec { epochs: 3, ..RunSpec::default() };
    let mut run = Mlflow::start(&logger(&server, Some("new")), &spec, Path::new("runs/first")).unwrap();
    run.metric("train_loss", 1, 0.5).unwrap();
    run.metric("a:b_mrr", 2, f64::NAN).unwrap();
    run.state("finished").unwrap();

    let requests = requests.lock().unwrap();
    let paths: Vec<&str> = requests.iter().map(|(path, _)| path.as_str()).collect();
    let expected = [
        "GET experiments/get-by-name?experiment_name=new",
        "POST experiments/create",
        "POST runs/create",
        "POST runs/log-batch",
        "POST runs/log-batch",
        "POST runs/update",
    ];
    assert_eq!(paths, expected);
    assert_eq!(requests[1].1, json!({"name": "new"}));
    assert_eq!((&requests[2].1["experiment_id"], &requests[2].1["run_name"]), (&json!("7"), &json!("first")));
    let parameters = requests[3].1["params"].as_array().unwrap();
    assert!(parameters.contains(&json!({"key": "epochs", "value": "3"})), "{parameters:?}");
    assert!(!parameters.iter().any(|parameter| parameter["key"] == "miner"), "what is not given is not told");
    let metrics = &requests[4].1["metrics"];
    assert_eq!(
        (&metrics[0]["key"], &metrics[0]["value"], &metrics[0]["step"]),
        (&json!("train_loss"), &json!(0.5), &json!(1))
    );
    assert_eq!((&metrics[1]["key"], &metrics[1]["value"]), (&json!("a_b_mrr"), &json!("NaN")));
    assert_eq!((&requests[5].1["run_id"], &requests[5].1["status"]), (&json!("abc"), &json!("FINISHED")));
}

#[test]
fn a_server_that_is_not_there_or_refuses_is_named() {
    let start =
        |logger: &MlflowLogger| Mlflow::start(logger, &RunSpec::default(), Path::new("run")).unwrap_err().to_string();
    let (server, _) = start_server(401);
    assert!(start(&logger(&server, None)).contains("answers 401; set MLFLOW_TRACKING_USERNAME"));
    let (server, _) = start_server(500);
    assert!(start(&logger(&server, None)).contains("at `experiments/get-by-name`: answers 500 no"));
    assert!(start(&logger("file:mlruns", None)).contains("`mlflow server` starts one"));
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(
        start(&logger(&format!("http://{free}"), None)).starts_with("`callbacks`: MLflowLogger: `http://127.0.0.1:")
    );
}

#[test]
fn user_and_password_are_sent_in_base64() {
    assert_eq!(basic("Aladdin:open sesame"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    assert_eq!(basic("a:b"), "Basic YTpi");
    assert_eq!(basic("ab:c"), "Basic YWI6Yw==");
}
