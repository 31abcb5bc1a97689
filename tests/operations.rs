//! Running it: readiness and drain, metrics, access records, what systemd sees.

mod support;

use std::collections::{HashMap, HashSet};
use std::os::unix::net::UnixDatagram;
use std::sync::{Mutex, mpsc};

use serde_json::{Value, json};
use support::config::{mcp, one_listener, to_backend};
use support::gateway::{BINARY, Gateway, Setup, local};
use support::mcp_client::{ACCEPT, McpClient};
use support::mcp_server::{Act, McpServer};
use support::upstream::{Upstream, reply};
use support::wire::{Peer, request};
use support::{PATIENCE, children_of, eventually, exists, free_port};

/// An upstream that answers when it is told to.
fn gated() -> (Upstream, mpsc::Sender<()>) {
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let upstream = Upstream::http(move |_, peer| {
        let _ = gate.lock().expect("no panic in between").recv_timeout(PATIENCE);
        peer.try_send(reply(200, &[], "done")).is_ok()
    });
    (upstream, go)
}

// Drain

#[test]
fn sigterm_lets_requests_finish_and_takes_no_more() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let (upstream, go) = gated();
        let port = free_port();
        let mut gateway = Setup::new(&to_backend(port, upstream.address).to_string()).args(&["--shards", "2"]).start();
        let mut idle = Peer::connect(local(port));
        go.send(()).expect("an upstream");
        assert_eq!(idle.get("/").text(), "done");
        let mut silent = Peer::connect(local(port));
        let mut busy = Peer::connect(local(port));
        busy.send(request("POST", "/", &[], b"body"));
        upstream.await_requests(2);
        gateway.signal(signal);
        eventually("it says that it is draining", || gateway.readiness() == Some(503));
        eventually("new connections are refused", || Peer::try_connect(local(port)).is_err());
        assert!(idle.closes() && silent.closes(), "idle connections are closed");
        go.send(()).expect("an upstream");
        let response = busy.response("POST");
        assert_eq!((response.status, response.text()), (200, "done"));
        assert!(busy.closes());
        assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.stderr());
    }
}

#[test]
fn a_drain_ends_at_its_deadline() {
    let (upstream, _go) = gated();
    let port = free_port();
    let mut config = to_backend(port, upstream.address);
    config["config"] = json!({ "connectionTerminationDeadline": "300ms" });
    let gateway = Gateway::start(&config.to_string());
    let mut busy = Peer::connect(local(port));
    busy.send(request("GET", "/", &[], b""));
    upstream.await_requests(1);
    let ended = gateway.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("cut off"), "{}", ended.stderr);
    assert!(busy.rest().is_some(), "the connection is closed");
}

#[test]
fn a_drain_lets_calls_finish_and_ends_streams_and_children() {
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(Some(gate));
    let server = McpServer::scripted("web", move |seen| {
        if seen.tool() == "slow"
            && let Some(gate) = gate.lock().expect("no panic in between").take()
        {
            let _ = gate.recv_timeout(PATIENCE);
        }
        Act::Well
    });
    let notes = json!({ "name": "notes", "stdio": { "cmd": BINARY, "args": ["demo-notes"] } });
    let port = free_port();
    let mut gateway = Gateway::start(&mcp(port, json!({ "targets": [server.target("web"), notes] })).to_string());
    let client = McpClient::open(local(port));
    let mut stream = client.listen(None);
    client.call("notes__list_notes", json!({}));
    let children = children_of(gateway.pid());
    assert_eq!(children.len(), 1);
    let idle = McpClient::open(local(port));
    let mut idle_stream = idle.listen(None);
    let call = std::thread::spawn({
        let client = client.clone();
        move || client.call("web__slow", json!({}))
    });
    server.await_seen("the call", |seen| seen.tool() == "slow");
    gateway.signal(libc::SIGTERM);
    assert_eq!(idle_stream.message(), None, "streams end");
    go.send(()).expect("the server waits");
    assert_eq!(call.join().expect("the call is answered"), "web: slow {}");
    assert_eq!(stream.message(), None);
    assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.stderr());
    assert!(children.iter().all(|&child| !exists(child)), "an orphan is left");
    let ended: HashSet<_> =
        server.seen().into_iter().filter(|seen| seen.verb == "DELETE").map(|seen| seen.session).collect();
    assert_eq!(ended.len(), 2, "sessions behind are ended");
}

#[test]
fn systemd_is_told() {
    let port = free_port();
    let setup =
        Setup::new(&one_listener(port, json!([{ "policies": { "directResponse": { "status": 200 } } }])).to_string());
    let path = setup.folder().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let gateway = setup.env("NOTIFY_SOCKET", path.to_str().expect("a path in UTF-8")).start();
    let read = || {
        let mut text = [0; 256];
        let length = socket.recv(&mut text).expect("a message");
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    assert_eq!(read(), "READY=1");
    gateway.signal(libc::SIGTERM);
    assert_eq!(read(), "STOPPING=1");
}

// Metrics

/// Checks the text format (Prometheus 0.0.4) and gives the samples by family.
fn parse_metrics(text: &str) -> HashMap<String, Vec<(String, f64)>> {
    let mut types = HashMap::new();
    let mut helped = HashSet::new();
    let mut seen = HashSet::new();
    let mut families: HashMap<String, Vec<(String, f64)>> = HashMap::new();
    assert!(text.ends_with('\n'), "the last line ends");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            assert!(!help.is_empty() && helped.insert(name.to_owned()), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}: twice");
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("not a sample: {line}"));
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("not a number: {line}"));
            assert!(seen.insert(series.to_owned()), "{series}: twice");
            let (name, labels) = series
                .split_once('{')
                .map_or((series, ""), |(name, labels)| (name, labels.strip_suffix('}').expect("an end")));
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end).filter(|base| types.contains_key(*base)));
            let family = family.unwrap_or(name);
            let kind = types.get(family).unwrap_or_else(|| panic!("{line}: no type before it"));
            assert!(kind != "counter" || (value >= 0.0 && family.ends_with("_total")), "{line}");
            assert!(
                family.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'),
                "{line}"
            );
            families.entry(name.to_owned()).or_default().push((labels.to_owned(), value));
        }
    }
    assert!(helped.iter().all(|name| types.contains_key(name)));
    families
}

#[test]
fn metrics_tell_of_every_shard() {
    let server = McpServer::good("web");
    let dead = json!({ "name": "dead", "mcp": { "host": format!("http://127.0.0.1:{}/mcp", free_port()) } });
    let upstream = Upstream::named("ok");
    let port = free_port();
    let config = one_listener(
        port,
        json!([
            { "name": "tools", "matches": [{ "path": { "exact": "/mcp" } }], "backends": [{ "mcp": { "targets": [server.target("web"), dead] } }] },
            { "name": "plain", "backends": [{ "host": upstream.address.to_string() }] },
        ]),
    );
    let gateway = Setup::new(&config.to_string()).args(&["--shards", "2"]).start();
    for _ in 0..20 {
        assert_eq!(Peer::connect(local(port)).ask("POST", "/", &[], "12345").status, 200);
    }
    let client = McpClient::open(local(port));
    client.call("web__echo", json!({}));
    eventually("all is counted", || gateway.metric("agentlane_requests_total", "route=\"plain\"") == 20.0);
    let metrics = parse_metrics(&gateway.metrics());
    let sum = |family: &str, having: &str| -> f64 {
        let samples = metrics.get(family).unwrap_or_else(|| panic!("no {family}"));
        let having: Vec<&str> = having.split(',').collect();
        let fits = |labels: &str| having.iter().all(|label| labels.contains(label));
        samples.iter().filter(|(labels, _)| fits(labels)).map(|(_, value)| value).sum()
    };
    let plain = "route=\"plain\"";
    assert_eq!(sum("agentlane_requests_total", "route=\"plain\",status=\"2xx\""), 20.0);
    assert_eq!(sum("agentlane_request_duration_seconds_count", plain), 20.0);
    assert_eq!(sum("agentlane_request_bytes_total", plain), 100.0);
    assert_eq!(sum("agentlane_response_bytes_total", plain), 40.0);
    assert_eq!(sum("agentlane_mcp_sessions", ""), 1.0);
    assert_eq!(sum("agentlane_mcp_sessions_total", ""), 1.0);
    assert_eq!(
        (sum("agentlane_mcp_target_up", "target=\"web\""), sum("agentlane_mcp_target_up", "target=\"dead\"")),
        (1.0, 0.0)
    );
    assert_eq!(sum("agentlane_mcp_requests_total", "method=\"tools/call\",outcome=\"ok\""), 1.0);
    for family in [
        "agentlane_requests_total",
        "agentlane_request_duration_seconds_count",
        "agentlane_mcp_sessions",
        "agentlane_downstream_connections",
    ] {
        for shard in ["shard=\"0\"", "shard=\"1\""] {
            assert!(metrics[family].iter().any(|(labels, _)| labels.contains(shard)), "{family} has no {shard}");
        }
    }
    // Buckets add up.
    let buckets = &metrics["agentlane_request_duration_seconds_bucket"];
    let of = |shard: &str| -> Vec<f64> {
        buckets
            .iter()
            .filter(|(labels, _)| labels.contains(shard) && labels.contains(plain))
            .map(|(_, value)| *value)
            .collect()
    };
    let (zero, one) = (of("shard=\"0\""), of("shard=\"1\""));
    assert!([&zero, &one].iter().all(|buckets| buckets.is_sorted() && !buckets.is_empty()));
    assert_eq!(
        zero.last().copied().unwrap_or_default() + one.last().copied().unwrap_or_default(),
        20.0,
        "+Inf holds all"
    );
    client.end();
    eventually("the session is gone", || gateway.metric("agentlane_mcp_sessions", "") == 0.0);
}

// Access records

/// One request of every kind; gives their paths in the order of asking.
fn ask_everything(port: u16, client: &McpClient) -> Vec<&'static str> {
    let mut peer = Peer::connect(local(port));
    assert_eq!(peer.ask("POST", "/plain?secret=1", &[], "12345").status, 200);
    assert_eq!(peer.get("/none").status, 404);
    assert_eq!(peer.get("/moved").status, 302);
    assert_eq!(peer.get("/down").status, 502);
    assert_eq!(peer.ask("HEAD", "/plain", &[], "").status, 200);
    assert_eq!(peer.ask("PUT", "/mcp", &[], "x").status, 405);
    assert_eq!(client.call("web__echo", json!({ "secret": 1 })), "web: echo {\"secret\":1}");
    client.result("tools/list", json!({}));
    let stream = client.listen(None);
    assert_eq!(client.end().status, 200);
    drop(stream);
    vec!["/plain", "/none", "/moved", "/down", "/plain", "/mcp"]
}

fn log_config(port: u16, logging: Value, server: &McpServer, upstream: &Upstream) -> String {
    let down = free_port();
    let mut config = one_listener(
        port,
        json!([
            { "name": "tools", "matches": [{ "path": { "exact": "/mcp" } }], "backends": [{ "mcp": { "prefixMode": "always", "targets": [server.target("web")] } }] },
            { "name": "moved", "matches": [{ "path": { "exact": "/moved" } }], "policies": { "requestRedirect": { "path": { "full": "/" } } } },
            { "name": "down", "matches": [{ "path": { "exact": "/down" } }], "backends": [{ "host": format!("127.0.0.1:{down}") }] },
            { "name": "plain", "matches": [{ "path": { "exact": "/plain" } }], "backends": [{ "host": upstream.address.to_string() }] },
        ]),
    );
    config["config"] = json!({ "logging": logging });
    config.to_string()
}

/// Requests of `ask_everything`, the opening of the session included.
const ASKED: usize = 12;

#[test]
fn json_records_one_for_each_request() {
    let (server, upstream) = (McpServer::good("web"), Upstream::named("ok"));
    let port = free_port();
    let gateway = Gateway::start(&log_config(port, json!({ "format": "json" }), &server, &upstream));
    let client = McpClient::open(local(port));
    ask_everything(port, &client);
    eventually("all records are written", || gateway.stdout().lines().count() >= ASKED);
    let ended = gateway.terminate();
    let records: Vec<Value> =
        ended.stdout.lines().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect();
    assert_eq!(records.len(), ASKED, "{}", ended.stdout);
    for record in &records {
        for key in ["time", "shard", "remote", "method", "path", "status", "duration_ms", "bytes_in", "bytes_out"] {
            assert!(record.get(key).is_some(), "{key} is not in {record}");
        }
    }
    let find = |key: &str, value: Value| records.iter().filter(|record| record[key] == value).collect::<Vec<_>>();
    let plain = find("path", json!("/plain"));
    assert_eq!(plain.len(), 2);
    assert_eq!(
        (&plain[0]["status"], &plain[0]["bytes_in"], &plain[0]["bytes_out"]),
        (&json!(200), &json!(5), &json!(2))
    );
    assert_eq!((&plain[0]["route"], &plain[0]["backend"]), (&json!("plain"), &json!(upstream.address.to_string())));
    let none = find("path", json!("/none"));
    assert_eq!((&none[0]["status"], &none[0]["fault"]), (&json!(404), &json!("no_route")));
    assert_eq!(find("path", json!("/moved"))[0]["status"], 302);
    let down = find("path", json!("/down"));
    assert!(down[0]["status"] == 502 && down[0]["fault"].is_string(), "{}", down[0]);
    let call = find("mcp_method", json!("tools/call"));
    assert_eq!(call.len(), 1);
    assert_eq!(
        (&call[0]["mcp_target"], &call[0]["mcp_tool"], &call[0]["status"]),
        (&json!("web"), &json!("web__echo"), &json!(200))
    );
    let session = call[0]["session"].as_str().expect("the session's fingerprint");
    assert!(!client.session.contains(session), "never the id itself");
    assert_eq!(find("session", json!(session)).len(), 6, "initialize to DELETE");
    assert_eq!(find("mcp_method", json!("initialize")).len(), 1);
    assert!(!ended.stdout.contains("secret"), "neither queries nor arguments");
}

#[test]
fn text_records_go_to_a_file_that_can_be_rotated() {
    let (server, upstream) = (McpServer::good("web"), Upstream::named("ok"));
    let port = free_port();
    let gateway = Gateway::start(&log_config(port, json!({ "accessLog": "access.log" }), &server, &upstream));
    let client = McpClient::open(local(port));
    let paths = ask_everything(port, &client);
    let (file, rotated) = (gateway.folder().join("access.log"), gateway.folder().join("access.log.1"));
    let lines = |path: &std::path::Path| -> Vec<String> {
        std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
    };
    eventually("all records are written", || lines(&file).len() >= ASKED);
    let records = lines(&file);
    assert_eq!(records.len(), ASKED, "{records:#?}");
    let field = |record: &str, key: &str| {
        record
            .split(' ')
            .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
            .map(|value| value.trim_matches('"').to_owned())
    };
    let of_the_connection: Vec<String> =
        records.iter().filter_map(|record| field(record, "path")).filter(|path| path != "/mcp").collect();
    assert_eq!(of_the_connection, paths[..5]);
    assert!(
        records.iter().all(|record| record.starts_with("time=") && field(record, "status").is_some()),
        "{records:#?}"
    );
    std::fs::rename(&file, &rotated).expect("a rotation");
    gateway.signal(libc::SIGUSR1);
    let mut asked = 0;
    eventually("records go to the new file", || {
        assert_eq!(Peer::connect(local(port)).get("/none").status, 404);
        asked += 1;
        !lines(&file).is_empty()
    });
    eventually("none is lost at the change", || lines(&rotated).len() + lines(&file).len() == ASKED + asked);
    let ended = gateway.terminate();
    assert_eq!(ended.stdout, "", "nothing goes to the standard output");
}

#[test]
fn records_can_be_left_out() {
    let (server, upstream) = (McpServer::good("web"), Upstream::named("ok"));
    let port = free_port();
    let gateway = Gateway::start(&log_config(port, json!({ "accessLog": false }), &server, &upstream));
    assert_eq!(Peer::connect(local(port)).get("/plain").status, 200);
    assert_eq!(gateway.terminate().stdout, "");
}

#[test]
fn a_request_that_breaks_http_has_its_record_as_well() {
    let upstream = Upstream::named("ok");
    let port = free_port();
    let gateway = Gateway::start(&to_backend(port, upstream.address).to_string());
    for bytes in [
        "nonsense\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n",
    ] {
        let mut peer = Peer::connect(local(port));
        peer.send(bytes);
        assert_eq!(peer.response("GET").status, 400);
    }
    // A connection that only looked is none.
    drop(Peer::connect(local(port)));
    let ended = gateway.terminate();
    assert_eq!(ended.stdout.matches("status=400").count(), 3, "{}", ended.stdout);
    assert_eq!(ended.stdout.lines().count(), 3, "{}", ended.stdout);
}

#[test]
fn nothing_a_client_sends_can_forge_a_record() {
    let upstream = Upstream::named("ok");
    for format in ["text", "json"] {
        let port = free_port();
        let mut config = to_backend(port, upstream.address);
        config["config"] = json!({ "logging": { "format": format } });
        let gateway = Gateway::start(&config.to_string());
        let target = "/a\"b\\c{}=status=200%0A";
        let mut peer = Peer::connect(local(port));
        let status = peer.ask("GET", target, &[("accept", ACCEPT)], "").status;
        let ended = gateway.terminate();
        let lines: Vec<&str> = ended.stdout.lines().collect();
        assert!(lines.len() <= 1 && [200, 400].contains(&status), "{lines:?}");
        if format == "json" && status == 200 {
            let record: Value = serde_json::from_str(lines[0]).expect("whole JSON");
            assert_eq!(record["path"], target);
        }
    }
}
