//! The audit log: what is written, and what `agentlane audit verify` says of what was done to it.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::config::{mcp, one_listener};
use crate::support::gateway::{Ended, Folder, Gateway, Setup, local, run};
use crate::support::mcp_client::{McpClient, message};
use crate::support::mcp_server::McpServer;
use crate::support::modern_client::ModernClient;
use crate::support::tls::Authority;
use crate::support::wire::Peer;
use crate::support::{eventually, free_port};

const EVIL: (&str, &str) = ("origin", "https://evil.example");

/// A configuration with an audit log in `folder`, and the log's path.
fn audited(mut config: Value, folder: &Path, more: Value) -> (String, PathBuf) {
    let file = folder.join("audit.jsonl");
    config["config"] = json!({ "audit": { "file": file } });
    for (key, value) in more.as_object().expect("an object") {
        config["config"]["audit"][key] = value.clone();
    }
    (config.to_string(), file)
}

fn records(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("a record is JSON")).collect()
}

/// The records of one kind.
fn of(file: &Path, event: &str) -> Vec<Value> {
    records(file).into_iter().filter(|record| record["event"] == event).collect()
}

fn verify(args: &[&str], files: &[&Path]) -> Ended {
    let files = files.iter().map(|file| file.to_str().expect("a path in UTF-8"));
    run(&[&["audit", "verify"], args, &files.collect::<Vec<_>>()[..]].concat(), &[])
}

#[track_caller]
fn assert_broken(file: &Path, text: &str, line: usize, what: &str) {
    std::fs::write(file, text).expect("written");
    let ended = verify(&[], &[file]);
    assert_eq!(ended.code, Some(1), "{}{}", ended.stdout, ended.stderr);
    let expected = format!("broken: {}:{line}: {what}", file.display());
    assert!(ended.stdout.contains(&expected), "expected {expected:?}, got {:?}", ended.stdout);
}

fn denied(address: std::net::SocketAddr) {
    let response = Peer::connect(address).ask("POST", "/mcp", &[EVIL], "{}");
    assert_eq!(response.status, 403);
}

#[test]
fn denials_and_calls_are_recorded() {
    let (folder, server, port) = (Folder::new(), McpServer::good("web"), free_port());
    let config = mcp(port, json!({ "targets": [server.target("web"), server.target("two")] }));
    let (config, file) = audited(config, folder.path(), json!({ "calls": true, "chain": true }));
    let gateway = Setup::new(&config).args(&["--shards", "1"]).start();
    let client = McpClient::open_as(local(port), "Bearer mark-of-a-token");
    assert!(client.call("web__echo", json!({ "password": "mark-of-an-argument" })).contains("web"));
    client.ask("tools/list", json!({}));
    denied(local(port));
    ModernClient::new(local(port)).call("two__echo", json!({}));
    let ended = gateway.terminate();
    assert_eq!(ended.code, Some(0));
    let (calls, denials) = (of(&file, "call"), of(&file, "deny"));
    assert_eq!((calls.len(), denials.len()), (2, 1), "{:?}", records(&file));
    let call = &calls[0];
    for (key, expected) in [
        ("mcp_method", json!("tools/call")),
        ("mcp_target", json!("web")),
        ("mcp_item", json!("web__echo")),
        ("method", json!("POST")),
        ("path", json!("/mcp")),
        ("route", json!("route0")),
        ("listener", json!("listener0")),
        ("status", json!(200)),
        ("config", json!(1)),
    ] {
        assert_eq!(call[key], expected, "{key}: {call}");
    }
    assert!(call["result_bytes"].as_u64().is_some_and(|bytes| bytes > 10), "{call}");
    assert!(call["principal"].is_string() && call["session"].is_string() && call["remote"].is_string(), "{call}");
    assert_eq!(calls[1]["mcp_target"], "two");
    assert!(calls[1].get("principal").is_none(), "nobody in particular");
    assert_eq!((&denials[0]["denied"], &denials[0]["status"]), (&json!("origin_forbidden"), &json!(403)));
    let text = std::fs::read_to_string(&file).expect("a log");
    assert!(!text.contains("mark-of"), "{text}");
    let verified = verify(&[], &[&file]);
    assert_eq!(verified.code, Some(0), "{}", verified.stdout);
    assert!(verified.stdout.ends_with("whole: 5 records\n"), "{}", verified.stdout);
}

#[test]
fn what_was_done_to_a_log_is_named() {
    let (folder, server, port) = (Folder::new(), McpServer::good("web"), free_port());
    let config = mcp(port, json!({ "targets": [server.target("web")] }));
    let key = folder.path().join("audit.key");
    std::fs::write(&key, "a key that nobody else has\n").expect("written");
    let (config, file) = audited(config, folder.path(), json!({ "key": { "file": key } }));
    let gateway = Setup::new(&config).args(&["--shards", "1"]).start();
    (0..4).for_each(|_| denied(local(port)));
    gateway.terminate();
    let key = ["--key-file", key.to_str().expect("a path in UTF-8")];
    let verified = verify(&key, &[&file]);
    assert!(verified.code == Some(0) && verified.stdout.contains("whole: 6 records"), "{}", verified.stdout);
    assert_eq!(verify(&[], &[&file]).code, Some(1), "without the key nothing fits");
    let whole = std::fs::read_to_string(&file).expect("a log");
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let copy = folder.path().join("copy.jsonl");
    let check = |lines: &[&str], line: usize, what: &str| {
        std::fs::write(&copy, lines.concat()).expect("written");
        let ended = verify(&key, &[&copy]);
        let expected = format!("broken: {}:{line}: {what}", copy.display());
        assert!(ended.code == Some(1) && ended.stdout.contains(&expected), "{expected}: {}", ended.stdout);
    };
    let changed = lines[2].replace("403", "200");
    check(&[lines[0], lines[1], &changed, lines[3]], 3, "the record was changed");
    check(&[lines[0], lines[1], lines[3]], 3, "record 3 is missing before it");
    check(&[lines[0], lines[1], lines[3], lines[2]], 3, "record 3 is missing before it");
    check(&[lines[0], lines[1], lines[1]], 3, "the record is not in its place");
    check(&[lines[0], lines[1], lines[2].trim_end()], 3, "the last line is cut off");
    // The end that was cut off whole shows in the summary.
    std::fs::write(&copy, lines[..4].concat()).expect("written");
    let ended = verify(&key, &[&copy]);
    assert!(ended.code == Some(0) && ended.stdout.contains("the end was cut off"), "{}", ended.stdout);
}

#[test]
fn what_a_file_lost_before_a_restart_shows() {
    let (folder, server, port) = (Folder::new(), McpServer::good("web"), free_port());
    let config = mcp(port, json!({ "targets": [server.target("web")] }));
    let (config, file) = audited(config, folder.path(), json!({ "chain": true }));
    let lives = |cut: bool| {
        let mut gateway = Setup::new(&config).args(&["--shards", "4"]).start();
        denied(local(port));
        if cut {
            eventually("five records are out", || records(&file).len() == 5);
            gateway.signal(libc::SIGKILL);
            gateway.wait();
        } else {
            gateway.terminate();
        }
    };
    lives(true);
    lives(false);
    let verified = verify(&[], &[&file]);
    assert!(verified.code == Some(0) && verified.stdout.contains("whole: 14 records"), "{}", verified.stdout);
    let whole = std::fs::read_to_string(&file).expect("a log");
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let second = lines[5..].concat();
    assert_broken(&file, &(lines[..4].concat() + &second), 5, "the line that stood before this run's start is missing");
    // The records of a whole shard.
    let without: String = lines[5..].iter().filter(|line| !line.contains("\"shard\":2")).copied().collect();
    std::fs::write(&file, without).expect("written");
    let verified = verify(&[], &[&file]);
    assert!(verified.code == Some(1) && verified.stdout.contains("shard 2: no record of it"), "{}", verified.stdout);
}

#[test]
fn the_log_is_rotated_and_verified_over_its_parts() {
    let (folder, server, port) = (Folder::new(), McpServer::good("web"), free_port());
    let config = mcp(port, json!({ "targets": [server.target("web")] }));
    let (config, file) = audited(config, folder.path(), json!({ "chain": true }));
    let gateway = Setup::new(&config).args(&["--shards", "1"]).start();
    denied(local(port));
    eventually("the first record is out", || of(&file, "deny").len() == 1);
    let old = folder.path().join("audit.jsonl.1");
    std::fs::rename(&file, &old).expect("renamed");
    gateway.signal(libc::SIGUSR1);
    denied(local(port));
    eventually("the second record is in the new file", || of(&file, "deny").len() == 1);
    gateway.terminate();
    let verified = verify(&[], &[&old, &file]);
    assert!(verified.code == Some(0) && verified.stdout.contains("records 1 to 4\n"), "{}", verified.stdout);
    let alone = verify(&[], &[&file]);
    assert!(alone.code == Some(0) && alone.stdout.contains("in an earlier file"), "{}", alone.stdout);
    assert_eq!(verify(&[], &[&file, &old]).code, Some(1), "in the wrong order");
}

#[test]
fn nothing_is_served_that_could_not_be_recorded() {
    let (folder, port) = (Folder::new(), free_port());
    let routes = json!([{ "policies": { "directResponse": { "status": 200, "body": "served" } } }]);
    let (config, file) = audited(one_listener(port, routes), folder.path(), json!({ "whenBehind": "refuse" }));
    // Every write to it fails: no space is left.
    symlink("/dev/full", &file).expect("linked");
    let gateway = Setup::new(&config).args(&["--shards", "1"]).start();
    let status = || Peer::connect(local(port)).ask("GET", "/", &[], "").status;
    eventually("requests are refused", || status() == 503);
    assert!(gateway.stderr().contains("cannot write a log"), "{}", gateway.stderr());
    std::fs::remove_file(&file).expect("removed");
    eventually("requests are served again", || status() == 200);
    gateway.terminate();
    let ended = verify(&[], &[&file]);
    assert!(ended.code == Some(0) && ended.stdout.contains("not chained"), "{}", ended.stdout);
}

#[test]
fn clients_that_tls_refuses_are_recorded() {
    let (folder, authority, port) = (Folder::new(), Authority::new(), free_port());
    let mut tls = authority.issue(&["a.test"]).listener();
    tls["root"] = json!(authority.root());
    let listener = json!({ "hostname": "a.test", "protocol": "HTTPS", "tls": tls,
        "routes": [{ "policies": { "directResponse": { "status": 200 } } }] });
    let config = json!({ "binds": [{ "port": port, "address": "127.0.0.1", "listeners": [listener] }] });
    let (config, file) = audited(config, folder.path(), json!({}));
    let _gateway = Gateway::start(&config);
    for name in ["a.test", "b.test"] {
        let connect = format!("127.0.0.1:{port}");
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-connect", &connect, "-servername", name]).stdin(Stdio::null());
        assert!(openssl.output().is_ok(), "openssl runs");
    }
    eventually("both refusals are recorded", || of(&file, "deny").len() == 2);
    let rules: Vec<Value> = of(&file, "deny").iter().map(|record| record["rule"].clone()).collect();
    assert!(rules.contains(&json!("certificate of the peer: none was presented")), "{rules:?}");
    assert!(rules.contains(&json!("no listener for the server name")), "{rules:?}");
}

#[test]
fn messages_of_a_batch_are_recorded_each() {
    let (folder, server, port) = (Folder::new(), McpServer::good("web"), free_port());
    let config = mcp(port, json!({ "targets": [server.target("web")] }));
    let (config, file) = audited(config, folder.path(), json!({ "calls": true }));
    let gateway = Setup::new(&config).args(&["--shards", "1"]).start();
    let client = McpClient::open_in(local(port), "2025-03-26");
    let call = |id| message(id, "tools/call", json!({ "name": "echo", "arguments": {} }));
    let response = client.post(&format!("[{},{}]", call(1), call(2)));
    assert_eq!(response.status, 200);
    gateway.terminate();
    let items: Vec<Value> = of(&file, "call").iter().map(|record| record["mcp_item"].clone()).collect();
    assert_eq!(items, ["echo", "echo"]);
}
