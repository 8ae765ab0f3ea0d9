//! The web page: where it lies and what it may load. What it does is tried in a browser (`crates/service/tests/browser`).

use serde_json::Value;

use super::support::Server;

#[test]
fn the_page_comes_from_here_alone_and_once() {
    let server = Server::start();
    let page = server.send_as("", "GET", "/", &[], &[]);
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    let plain =
        [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer"), ("cache-control", "no-cache")];
    for (name, value) in plain {
        assert_eq!(page.header(name), value);
    }
    let parts = |text: &str| -> Vec<String> {
        let quoted = text.split('"').skip(1).step_by(2);
        quoted.filter(|part| part.starts_with("/page/")).map(str::to_owned).collect()
    };
    let mut names = parts(&page.body);
    assert!(names.len() >= 4, "{names:?}");
    let mut place = 0;
    while place < names.len() {
        let name = names[place].clone();
        let answer = server.send_as("", "GET", &name, &[], &[]);
        assert_eq!((answer.status, answer.header("x-content-type-options")), (200, "nosniff"), "{name}");
        assert!(!answer.body.contains("innerHTML") && !answer.body.contains("eval("), "{name}");
        for other in ["https://", "http://", "@import", "url("] {
            let harmless = answer.body.replace("http://www.w3.org/2000/svg", "");
            assert!(!harmless.contains(other), "{name} names {other}");
        }
        let tag = answer.header("etag").to_owned();
        let again = server.send_as("", "GET", &name, &[("if-none-match", &tag)], &[]);
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{name}");
        // Modules that it imports are there, too.
        for part in answer.body.split("from \"./").skip(1) {
            let module = format!("/page/{}", part.split('"').next().unwrap());
            if !names.contains(&module) {
                names.push(module);
            }
        }
        place += 1;
    }
    assert!(names.len() >= 12, "{names:?}");
    assert_eq!(server.send("GET", "/page/../key.rs", &Value::Null).status, 404);
    assert_eq!(server.send("GET", "/page/none.js", &Value::Null).code(), "route_not_found");
}
