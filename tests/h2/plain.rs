//! Plain HTTP: the same routes, policies, limits and records as over HTTP/1.1.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::config::{one_listener, to_backend};
use crate::support::gateway::{Gateway, local};
use crate::support::upstream::{Upstream, reply};
use crate::support::wire::Peer;
use crate::support::{eventually, free_port};
use crate::tunnel::to_http2;

/// What curl prints, with the status and the version behind the body.
fn curl(port: u16, args: &[&str]) -> String {
    let url = format!("http://127.0.0.1:{port}");
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "15", "--http2-prior-knowledge", "-w", " %{http_code} %{http_version}"]);
    let targets = args.iter().map(|arg| if arg.starts_with('/') { format!("{url}{arg}") } else { (*arg).to_owned() });
    let output = command.args(targets).output().expect("curl is needed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn behind(upstream: &Upstream, http: Value) -> (Gateway, u16) {
    let port = free_port();
    let mut config = to_backend(port, upstream.address);
    config["frontendPolicies"] = json!({ "http": http });
    (Gateway::start(&config.to_string()), port)
}

/// An upstream that says what it was sent.
fn echo() -> Upstream {
    Upstream::answering(|request| {
        let cookie = request.head.all("cookie").join("|");
        let text = format!("{} cookie={cookie} bytes={}", request.head.start_line, request.body.len());
        Some(reply(200, &[("connection", "x-hop"), ("x-hop", "1"), ("keep-alive", "timeout=5")], text))
    })
}

#[test]
fn requests_are_what_they_are_over_http_1() {
    let upstream = echo();
    let (gateway, port) = behind(&upstream, json!({}));
    assert_eq!(curl(port, &["/x?y=1"]), "GET /x?y=1 HTTP/1.1 cookie= bytes=0 200 2");
    assert_eq!(curl(port, &["/", "-H", "cookie: a=1; b=2"]), "GET / HTTP/1.1 cookie=a=1; b=2 bytes=0 200 2");
    assert_eq!(curl(port, &["/", "-d", "hello"]), "POST / HTTP/1.1 cookie= bytes=5 200 2");
    let head = curl(port, &["-i", "/"]);
    assert!(!head.contains("x-hop") && !head.contains("keep-alive"), "{head}");
    assert_eq!(curl(port, &["-I", "-o", "/dev/null", "/"]).trim(), "200 2");
    assert!(upstream.requests().iter().all(|request| request.head.get("host") == Some(&format!("127.0.0.1:{port}"))));
    eventually("the record says the protocol", || gateway.stdout().contains("protocol=HTTP/2 method=GET path=/x "));
}

#[test]
fn bodies_stream_both_ways_and_have_limits() {
    let upstream = Upstream::answering(|request| Some(reply(200, &[], request.body.clone())));
    let (_gateway, port) = behind(&upstream, json!({ "maxBodyBytes": 3_000_000 }));
    let address = to_http2(local(port));
    let body = "0123456789abcdef".repeat(125_000);
    let mut peer = Peer::connect(address);
    let echoed = peer.ask("POST", "/", &[], &body);
    assert!(echoed.status == 200 && echoed.body == body.as_bytes(), "{} bytes", echoed.body.len());
    // Of unknown length.
    let mut peer = Peer::connect(address);
    peer.send("POST / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n");
    (0..40).for_each(|_| peer.send(format!("8000\r\n{}\r\n", "x".repeat(0x8000))));
    peer.send("0\r\n\r\n");
    let echoed = peer.response("POST");
    assert_eq!((echoed.status, echoed.body.len()), (200, 40 * 0x8000));
    assert_eq!(upstream.last().body.len(), 40 * 0x8000);
    let refused = Peer::connect(address).ask("POST", "/", &[], "x".repeat(3_000_001));
    assert_eq!(refused.status, 413);
}

#[test]
fn what_no_request_is() {
    let upstream = echo();
    let (_gateway, port) = behind(&upstream, json!({ "maxHeaderBytes": 4096, "http1MaxHeaders": 20 }));
    let long = format!("x: {}", "y".repeat(5000));
    let many: Vec<String> = (0..25).flat_map(|number| ["-H".to_owned(), format!("x-{number}: 1")]).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).chain(["/"]).collect();
    assert!(curl(port, &["/", "-H", &long]).ends_with(" 431 2"));
    assert!(curl(port, &many).ends_with(" 431 2"));
    assert!(curl(port, &[&format!("/{}", "y".repeat(4090))]).contains(" 4"), "414 or 431");
    assert!(upstream.requests().is_empty());
}

#[test]
fn policies_answer_as_well() {
    let port = free_port();
    let routes = json!([
        { "matches": [{ "path": { "exact": "/moved" } }],
          "policies": { "requestRedirect": { "path": { "full": "/there" }, "status": 302 } } },
        { "matches": [{ "path": { "exact": "/said" } }], "policies": {
            "cors": { "allowOrigins": ["https://a.example"] }, "directResponse": { "status": 201, "body": "done" } } },
    ]);
    let _gateway = Gateway::start(&one_listener(port, routes).to_string());
    assert!(curl(port, &["-i", "/moved"]).to_lowercase().contains("location: http://127.0.0.1"));
    assert_eq!(curl(port, &["/said"]), "done 201 2");
    let marked = curl(port, &["-i", "/said", "-H", "origin: https://a.example"]);
    assert!(marked.contains("access-control-allow-origin: https://a.example"), "{marked}");
    assert_eq!(curl(port, &["/nowhere"]), " 404 2");
}

#[test]
fn many_at_once_on_one_connection() {
    // Nobody is answered before all have asked.
    let gate = std::sync::Arc::new(std::sync::Barrier::new(40));
    let upstream = Upstream::answering(move |request| {
        gate.wait();
        Some(reply(200, &[], request.head.target()))
    });
    let (gateway, port) = behind(&upstream, json!({}));
    let address = to_http2(local(port));
    let ask =
        |number: usize| std::thread::spawn(move || Peer::connect(address).get(&format!("/{number}")).text().to_owned());
    let asked: Vec<_> = (0..40).map(ask).collect();
    for (number, asked) in asked.into_iter().enumerate() {
        assert_eq!(asked.join().expect("an answer"), format!("/{number}"));
    }
    assert_eq!(gateway.metric("agentlane_downstream_connections_total", ""), 1.0);
}
