//! The command line and the configuration: what is checked and said, what starts, and what a reload changes and keeps.

mod support;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use serde_json::{Value, json};
use support::config::{mcp, one_listener, to_backend};
use support::gateway::{BINARY, Folder, Gateway, Setup, local, run};
use support::mcp_client::{McpClient, each};
use support::mcp_server::McpServer;
use support::tls::Authority;
use support::upstream::{Upstream, reply};
use support::wire::{Peer, request};
use support::{PATIENCE, children_of, eventually, free_port, resident_kib};

fn says(path: &str, text: &str) -> Value {
    json!({ "matches": [{ "path": { "exact": path } }], "policies": { "directResponse": { "status": 200, "body": text } } })
}

fn written(text: &str) -> (Folder, PathBuf) {
    let folder = Folder::new();
    let file = folder.path().join("agentlane.yaml");
    std::fs::write(&file, text).expect("a file");
    (folder, file)
}

fn check(text: &str, options: &[&str]) -> (support::gateway::Ended, String) {
    let (_folder, file) = written(text);
    let file = file.to_str().expect("a path in UTF-8");
    let args = [&["check"], options, &[file]].concat();
    (run(&args, &[]), file.to_owned())
}

// check and schema

const FAULTY: &str = "\
binds:
- port: 99999
  listenerz: []
- port: 3000
  listeners:
  - routes:
    - matches:
      - path: {regex: '['}
      backends:
      - host: nowhere
      - mcp:
          targets:
          - name: a__b
            stdio: {cmd: x}
";

#[test]
fn check_prints_every_fault_with_its_place() {
    let (ended, file) = check(FAULTY, &[]);
    assert_eq!(ended.code, Some(78), "{ended:?}");
    assert_eq!(ended.stdout, "");
    let expected = [
        "2:3: binds[0].listeners: missing",
        "2:9: binds[0].port: expected an integer from 1 to 65535, got 99999",
        "3:3: binds[0].listenerz: unknown key; did you mean listeners?",
        "8:23: binds[1].listeners[0].routes[0].matches[0].path.regex: not a regular expression",
        "10:15: binds[1].listeners[0].routes[0].backends[0].host: ",
        "13:19: binds[1].listeners[0].routes[0].backends[1].mcp.targets[0].name: ",
    ];
    for fault in expected {
        assert!(ended.stderr.contains(&format!("{file}:{fault}")), "{fault} is not in\n{}", ended.stderr);
    }
    assert_eq!(ended.stderr.lines().count(), expected.len() + 1, "{}", ended.stderr);
    assert!(ended.stderr.ends_with(&format!("{file}: 6 faults\n")));
    // The same faults in the same words keep it from starting.
    let started = Setup::new(FAULTY).run_to_end();
    assert_eq!(started.code, Some(78));
    assert!(expected.iter().all(|fault| started.stderr.contains(fault)), "{}", started.stderr);
}

#[test]
fn keys_that_are_not_built_are_faults_unless_lenient() {
    let text = json!({ "binds": [{ "port": 3000, "listeners": [{ "routes": [{
        "policies": { "directResponse": { "status": 200 }, "remoteRateLimit": {} },
    }] }] }], "llm": {} });
    let (ended, _) = check(&text.to_string(), &[]);
    assert_eq!(ended.code, Some(78));
    assert_eq!(ended.stderr.matches("known, but not built").count(), 2, "{}", ended.stderr);
    let (ended, file) = check(&text.to_string(), &["--lenient"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), &*format!("{file}: valid\n")), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("warning: ").count(), 2, "{}", ended.stderr);
    let (ended, _) = check("nonsense: 1\nbinds: []\n", &["--lenient"]);
    assert_eq!(ended.code, Some(78), "a key that nobody knows stays a fault");
    assert!(ended.stderr.contains("nonsense: unknown key"), "{}", ended.stderr);
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let missing = run(&["check", "/nonexistent/agentlane.yaml"], &[]);
    assert_eq!(missing.code, Some(78));
    assert!(missing.stderr.contains("/nonexistent/agentlane.yaml: cannot be read"), "{}", missing.stderr);
    for text in ["", "binds: [", "- a\n- b\n", "\0", "a: &x [*x]\n", "a: 1\na: 2\n"] {
        let (ended, file) = check(text, &[]);
        assert_eq!(ended.code, Some(78), "{text:?}: {ended:?}");
        assert!(ended.stderr.contains(&file), "{text:?}: {}", ended.stderr);
    }
}

#[test]
fn the_schema_is_the_committed_one() {
    let ended = run(&["schema"], &[]);
    let committed = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/schema.json"));
    assert_eq!(ended.code, Some(0));
    assert!(ended.stdout == committed.expect("config/schema.json"), "`agentlane schema` and config/schema.json differ");
}

/// What the examples need from the environment.
const ENVIRONMENT: [(&str, &str); 10] = [
    ("AGENTLANE_SESSION_KEY", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"),
    ("AGENTLANE_AUDIT_KEY", "a-key-of-more-than-sixteen-bytes"),
    ("AGENTLANE_ADMIN_KEY", "a-key-of-more-than-sixteen-bytes"),
    ("LOG_FOLDER", "/tmp"),
    ("SEARCH_HOST", "127.0.0.1"),
    ("SEARCH_TOKEN", "t"),
    ("TRACKER_TOKEN", "t"),
    ("PORT", "3000"),
    ("LEVEL", "info"),
    ("PROTECT", "true"),
];

/// The files that the example with TLS names.
fn certificates() -> Authority {
    let authority = Authority::new();
    for name in ["agents", "ops", "gateway"] {
        let (cert, key) = authority.sign(&["example.com"], 2100);
        std::fs::write(authority.folder().join(format!("{name}.pem")), cert).expect("a file");
        std::fs::write(authority.folder().join(format!("{name}.key")), key).expect("a file");
    }
    authority
}

fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples");
    let files = std::fs::read_dir(folder).expect("config/examples").map(|entry| entry.expect("an entry").path());
    let examples: Vec<PathBuf> =
        files.filter(|file| file.extension().is_some_and(|extension| extension == "yaml")).collect();
    assert!(examples.len() >= 7, "{examples:?}");
    examples
}

#[test]
fn every_example_is_valid_and_starts() {
    let authority = certificates();
    let certs = authority.folder().to_str().expect("a path in UTF-8");
    let environment = [&ENVIRONMENT[..], &[("CERTS", certs)]].concat();
    for example in examples() {
        let ended = run(&["check", example.to_str().expect("a path in UTF-8")], &environment);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", example.display());
        // On ports and in folders of this test's own; nothing else changes.
        let mut text = std::fs::read_to_string(&example).expect("an example");
        let mut ports = Vec::new();
        for port in ["3000", "8080"] {
            let own = free_port();
            if text.contains(&format!("- port: {port}\n"))
                || text.contains(&format!("  port: {port}\n"))
                || text.contains("$PORT")
            {
                ports.push(own);
            }
            text = text.replace(&format!("- port: {port}\n"), &format!("- port: {own}\n"));
            text = text.replace(&format!("  port: {port}\n"), &format!("  port: {own}\n"));
            text = text.replace("port: $PORT", &format!("port: {own}"));
        }
        let setup = Setup::new(&text).args(&["--shards", "1"]);
        // What stands beside an example.
        for name in ["tools.lock.json"].iter().filter(|name| text.contains(**name)) {
            std::fs::copy(example.with_file_name(name), setup.folder().join(name)).expect("a file beside the example");
        }
        let folder = setup.folder().to_str().expect("a path in UTF-8").to_owned();
        let setup =
            environment.iter().fold(setup, |setup, (name, value)| setup.env(name, *value)).env("LOG_FOLDER", folder);
        // The spares of an example would be started at once, and fetched from a registry.
        let gateway = setup.env("PATH", "/nonexistent").start();
        let first = ports.first().unwrap_or_else(|| panic!("{}: no port", example.display()));
        assert!(Peer::try_connect(local(*first)).is_ok(), "{}: nobody listens", example.display());
        assert_eq!(gateway.terminate().code, Some(0), "{}", example.display());
    }
}

// The command line

#[test]
fn a_wrong_command_line_is_2() {
    let wrong: [&[&str]; 9] = [
        &[],
        &["walk"],
        &["run"],
        &["run", "-f"],
        &["run", "-f", "a", "--demo"],
        &["run", "-f", "a", "--shards", "0"],
        &["run", "-f", "a", "--runtime", "tokio"],
        &["check"],
        &["--shards", "2"],
    ];
    for args in wrong {
        let ended = run(args, &[]);
        assert_eq!(ended.code, Some(2), "{args:?}: {ended:?}");
        assert!(!ended.stderr.is_empty(), "{args:?}");
    }
    for args in
        [&["--version"][..], &["-V"], &["--help"], &["run", "--help"], &["check", "--help"], &["schema", "--help"]]
    {
        let ended = run(args, &[]);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{args:?}");
        assert!(!ended.stdout.is_empty(), "{args:?}");
    }
    assert!(run(&["--version"], &[]).stdout.starts_with("agentlane "));
    assert!(run(&["--help"], &[]).stdout.contains("78"), "the exit codes are documented");
}

#[test]
fn a_port_in_use_is_69_and_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = taken.local_addr().expect("an address");
    let ended = Setup::new(&one_listener(address.port(), json!([says("/", "x")])).to_string()).run_to_end();
    assert_eq!(ended.code, Some(69), "{}", ended.stderr);
    assert!(ended.stderr.contains(&format!("cannot listen on {address}")), "{}", ended.stderr);
    for name in ["STATS_ADDR", "READINESS_ADDR", "ADMIN_ADDR"] {
        let config = one_listener(free_port(), json!([says("/", "x")]));
        let ended = Setup::new(&config.to_string()).env(name, address.to_string()).run_to_end();
        assert_eq!(ended.code, Some(69), "{name}: {}", ended.stderr);
        assert!(ended.stderr.contains(&address.to_string()), "{name}: {}", ended.stderr);
    }
    // Two gateways do not share a port either, though shards do.
    let port = free_port();
    let config = one_listener(port, json!([says("/", "x")])).to_string();
    let first = Gateway::start(&config);
    assert_eq!(Setup::new(&config).run_to_end().code, Some(69));
    assert_eq!(Peer::connect(local(port)).get("/").text(), "x");
    drop(first);
}

#[test]
fn the_command_line_stands_above_the_file() {
    // A port for each: a killed process's io_uring may hold its sockets for a moment longer than it lives.
    let start = |args: &[&str], driver: &str| {
        let port = free_port();
        let mut config = one_listener(port, json!([says("/", "x")]));
        config["shards"] = json!({ "count": 1, "runtime": "monoio" });
        let gateway = Setup::new(&config.to_string()).args(args).on(driver).start();
        assert_eq!(Peer::connect(local(port)).get("/").text(), "x");
        gateway
    };
    let plain = start(&[], "uring");
    eventually("the file counts", || {
        plain.stderr().contains("shards=1 driver=Uring") || plain.stderr().contains("shards=1 driver=Epoll")
    });
    let other = start(&["--shards", "3"], "glommio");
    eventually("the command line counts", || other.stderr().contains("shards=3 driver=Glommio"));
    assert!(other.metrics().contains("shard=\"2\""));
    let epoll = start(&[], "epoll");
    eventually("epoll is used", || epoll.stderr().contains("driver=Epoll"));
    let says_why = |line: &&str| line.contains("WARN") && line.contains("AGENTLANE_IO_URING");
    assert_eq!(epoll.stderr().lines().filter(says_why).count(), 1, "one line says it: {}", epoll.stderr());
}

// Reload

#[test]
fn a_changed_file_is_read_by_itself_and_on_sighup() {
    let port = free_port();
    let with = |routes: Value| one_listener(port, routes).to_string();
    let gateway = Gateway::start(&with(json!([says("/a", "a1")])));
    let ask = |path: &str| Peer::connect(local(port)).get(path);
    assert_eq!(ask("/a").text(), "a1");
    gateway.write_config(&with(json!([says("/a", "a2"), says("/b", "b")])));
    eventually("the new file is in use", || ask("/a").text() == "a2");
    assert_eq!(ask("/b").text(), "b");
    gateway.reload(&with(json!([says("/b", "b2")])));
    assert_eq!((ask("/a").status, ask("/b").text()), (404, "b2"), "a removed route is gone");
    // Written in place, as simple editors do.
    std::fs::write(gateway.folder().join("agentlane.yaml"), with(json!([says("/a", "a3")]))).expect("a file");
    eventually("a file written in place is in use", || ask("/a").status == 200);
    // SIGHUP without a change does no harm.
    gateway.reload(&with(json!([says("/a", "a3")])));
    assert_eq!(ask("/a").text(), "a3");
}

#[test]
fn a_bad_file_changes_nothing_and_says_why() {
    let port = free_port();
    let good = one_listener(port, json!([says("/a", "a")])).to_string();
    let gateway = Gateway::start(&good);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let busy = taken.local_addr().expect("an address");
    let two_binds = json!({ "binds": [
        { "port": port, "address": "127.0.0.1", "listeners": [{ "routes": [says("/a", "changed")] }] },
        { "port": busy.port(), "address": "127.0.0.1", "listeners": [{ "routes": [says("/a", "changed")] }] },
    ] });
    let busy = format!("cannot listen on {busy}");
    let bad = [
        ("binds: [", "agentlane.yaml:"),
        ("nonsense: 1\n", "agentlane.yaml:1:1: nonsense: unknown key"),
        ("", "agentlane.yaml"),
        (&two_binds.to_string(), &busy),
    ];
    for (number, (text, why)) in bad.iter().enumerate() {
        gateway.write_config(text);
        gateway.signal(libc::SIGHUP);
        let refusals = || gateway.stderr().matches("the configuration was not changed").count();
        eventually("the fault is told", || refusals() > number);
        assert!(gateway.stderr().contains(why), "{why} is not in\n{}", gateway.stderr());
        assert_eq!(Peer::connect(local(port)).get("/a").text(), "a");
        assert_eq!(gateway.readiness(), Some(200));
    }
    std::fs::remove_file(gateway.folder().join("agentlane.yaml")).expect("a file to remove");
    gateway.signal(libc::SIGHUP);
    eventually("the missing file is told", || gateway.stderr().contains("cannot be read"));
    assert_eq!(Peer::connect(local(port)).get("/a").text(), "a");
    gateway.reload(&one_listener(port, json!([says("/a", "mended")])).to_string());
    assert_eq!(Peer::connect(local(port)).get("/a").text(), "mended");
}

#[test]
fn connections_and_requests_outlive_a_reload() {
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let old = Upstream::http(move |request, peer| {
        if request.head.target() == "/slow" {
            let _ = gate.lock().expect("no panic in between").recv_timeout(PATIENCE);
        }
        peer.try_send(reply(200, &[], "old")).is_ok()
    });
    let new = Upstream::named("new");
    let port = free_port();
    let gateway = Gateway::start(&to_backend(port, old.address).to_string());
    let mut kept = Peer::connect(local(port));
    assert_eq!(kept.get("/").text(), "old");
    let mut slow = Peer::connect(local(port));
    slow.send(request("GET", "/slow", &[], b""));
    old.await_requests(2);
    gateway.reload(&to_backend(port, new.address).to_string());
    assert_eq!(kept.get("/").text(), "new", "the same connection, the new route");
    go.send(()).expect("the upstream waits");
    assert_eq!(slow.response("GET").text(), "old", "a request ends as it began");
    assert_eq!(slow.get("/").text(), "new");
}

#[test]
fn binds_open_and_close() {
    let (stays, goes, comes) = (free_port(), free_port(), free_port());
    let config = |ports: &[u16]| {
        let bind = |port: &u16| json!({ "port": port, "address": "127.0.0.1", "listeners": [{ "routes": [says("/", "ok")] }] });
        json!({ "binds": ports.iter().map(bind).collect::<Vec<_>>() }).to_string()
    };
    let gateway = Setup::new(&config(&[stays, goes])).args(&["--shards", "2"]).start();
    let mut kept = Peer::connect(local(stays));
    assert_eq!(kept.get("/").text(), "ok");
    assert!(Peer::try_connect(local(comes)).is_err());
    gateway.reload(&config(&[stays, comes]));
    for _ in 0..8 {
        assert_eq!(Peer::connect(local(comes)).get("/").text(), "ok", "on every shard");
    }
    eventually("the removed port is closed", || Peer::try_connect(local(goes)).is_err());
    assert_eq!(kept.get("/").text(), "ok");
    gateway.reload(&config(&[goes]));
    assert_eq!(Peer::connect(local(goes)).get("/").text(), "ok", "a port may come back");
    eventually("the others are closed", || [stays, comes].iter().all(|&port| Peer::try_connect(local(port)).is_err()));
}

#[test]
fn sessions_outlive_a_reload_and_hear_of_new_targets() {
    let server = McpServer::good("web");
    let added = McpServer::good("added");
    let port = free_port();
    let notes = json!({ "name": "notes", "stdio": { "cmd": BINARY, "args": ["demo-notes"] } });
    let config = |targets: Value| mcp(port, json!({ "targets": targets })).to_string();
    let gateway = Gateway::start(&config(json!([server.target("web"), notes])));
    let client = McpClient::open(local(port));
    client.call("notes__add_note", json!({ "text": "milk" }));
    let children = children_of(gateway.pid());
    let mut stream = client.listen(None);
    gateway.reload(&config(json!([server.target("web"), notes, added.target("added")])));
    let told: Vec<Value> = (0..3).map(|_| stream.message().expect("a notice")).collect();
    let told = json!(told);
    let methods = each(&told, "method");
    assert!(methods.contains(&"notifications/tools/list_changed"), "{methods:?}");
    let list = client.result("tools/list", json!({}));
    assert!(each(&list["tools"], "name").contains(&"added__echo"), "{list}");
    assert_eq!(client.call("added__echo", json!({})), "added: echo {}");
    assert!(client.call("notes__list_notes", json!({})).contains("milk"), "the child was not touched");
    assert_eq!((children_of(gateway.pid()), server.sessions()), (children, 1));
    gateway.reload(&config(json!([added.target("added"), server.target("web")])));
    server.await_seen("no end", |_| true);
    assert_eq!(client.call("web__echo", json!({})), "web: echo {}", "another place, the same target");
    assert_eq!(client.ask("tools/call", json!({ "name": "notes__list_notes" }))["error"]["code"], -32602);
    eventually("the removed target's child is gone", || children_of(gateway.pid()).is_empty());
    assert_eq!((server.sessions(), added.sessions()), (1, 1));
}

#[test]
fn two_hundred_reloads_under_load_lose_nothing() {
    let upstreams = [Upstream::named("one"), Upstream::named("two")];
    let server = McpServer::good("web");
    let port = free_port();
    let config = |number: usize| {
        let text = number.to_string();
        one_listener(port, json!([
            { "matches": [{ "path": { "exact": "/mcp" } }], "backends": [{ "mcp": { "targets": [server.target("web")] } }] },
            says("/version", &text),
            { "backends": [{ "host": upstreams[number % 2].address.to_string() }] },
        ]))
        .to_string()
    };
    let gateway = Setup::new(&config(0)).args(&["--shards", "2"]).start();
    let done = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let (done, served) = (done.clone(), served.clone());
            std::thread::spawn(move || {
                let mut peer = Peer::connect(local(port));
                while !done.load(Ordering::Relaxed) {
                    if client % 2 == 0 {
                        peer = Peer::connect(local(port));
                    }
                    let response = peer.ask("POST", "/x", &[], "body");
                    assert!(response.status == 200 && ["one", "two"].contains(&response.text()), "{response:?}");
                    served.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(1));
                }
            })
        })
        .collect();
    let session = McpClient::open(local(port));
    let calls = std::thread::spawn({
        let (done, session) = (done.clone(), session.clone());
        move || {
            while !done.load(Ordering::Relaxed) {
                assert_eq!(session.call("echo", json!({})), "web: echo {}");
            }
        }
    });
    (1..=20).for_each(|number| gateway.reload(&config(number)));
    let warm = resident_kib(gateway.pid());
    (21..=200).for_each(|number| gateway.reload(&config(number)));
    let growth = resident_kib(gateway.pid()).saturating_sub(warm);
    done.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().expect("every request was served"));
    calls.join().expect("every call was served");
    assert_eq!(Peer::connect(local(port)).get("/version").text(), "200");
    assert!(served.load(Ordering::Relaxed) > 200);
    assert!(growth < 8 * 1024, "{growth} KiB more after 180 reloads");
    assert_eq!(server.sessions(), 1);
}
