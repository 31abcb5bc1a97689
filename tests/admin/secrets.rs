//! No secret comes out: every key that may hold one is given a mark, the log is at its most talkative, and the mark is looked
//! for in all that the gateway says.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::gateway::{Ended, Folder, Setup, ask_own, local, run};
use crate::support::mcp_client::{ACCEPT, McpClient};
use crate::support::mcp_server::McpServer;
use crate::support::modern_client::ModernClient;
use crate::support::wire::Peer;
use crate::support::{eventually, free_port};

/// In every secret.
const MARK: &str = "mark0of0a0secret";

/// `{"alg":"ES256"}`
const HEAD: &str = "eyJhbGciOiJFUzI1NiJ9";

/// A secret of its own, with the mark.
fn secret(what: &str) -> String {
    format!("{MARK}-{what}-0123456789")
}

/// An issuer's public key (RFC 7517, appendix A.1), of which nobody here has the other half.
fn public_key() -> Value {
    json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "1",
        "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM" })
}

#[track_caller]
fn assert_clean(what: &str, text: &str) {
    let found: Vec<&str> = text.lines().filter(|line| line.contains(MARK)).collect();
    assert!(found.is_empty(), "{what} tells a secret:\n{}", found.join("\n"));
}

/// Every key of the vocabulary that is built and may hold a secret, in all the ways in which secrets are written.
fn config(port: u16, folder: &std::path::Path, web: &McpServer) -> Value {
    let (admin_key, audit_key) = (folder.join("admin.key"), folder.join("audit.key"));
    std::fs::write(&admin_key, secret("admin-key")).expect("written");
    std::fs::write(&audit_key, secret("audit-key")).expect("written");
    let mut target = web.target("web");
    let headers = json!({ "set": { "authorization": format!("Bearer {}", secret("target-header")) },
        "add": { "x-tenant": "$A_SECRET" } });
    target["policies"] = json!({ "requestHeaderModifier": headers });
    let mut dead = json!({ "name": "dead", "mcp": { "host": format!("http://127.0.0.1:{}/mcp", free_port()) } });
    dead["policies"] = json!({ "requestHeaderModifier": { "set": { "x-api-key": secret("dead-target-header") } } });
    let child = json!({ "name": "child", "stdio": { "cmd": "/nonexistent/server",
        "args": ["--token", secret("argument"), format!("--api-key={}", secret("flag"))],
        "env": { "TOKEN": secret("child-environment"), "OTHER": "$A_SECRET" } } });
    dead["policies"]["backendAuth"] = json!({ "key": "$A_SECRET" });
    let htpasswd = format!("alice:{}\n", bcrypt::hash(secret("password"), 4).expect("a hash"));
    let routes = json!([
        { "name": "keyed", "matches": [{ "path": { "exact": "/keyed" },
            "headers": [{ "name": "x-api-key", "value": { "exact": secret("matched-header") } }] }],
          "policies": { "requestHeaderModifier": { "set": { "x-key": secret("route-header") } } },
          "backends": [{ "host": format!("127.0.0.1:{}", free_port()) }] },
        { "name": "token", "matches": [{ "path": { "exact": "/token" } }], "policies": { "jwtAuth": { "mode": "strict",
            "issuer": "https://issuer.test", "audiences": ["here"], "jwks": json!({ "keys": [public_key()] }).to_string() } },
          "backends": [{ "host": format!("127.0.0.1:{}", free_port()) }] },
        { "name": "known", "matches": [{ "path": { "exact": "/known" } }],
          "policies": { "apiKey": { "mode": "strict", "keys": [{ "key": secret("api-key") }] },
            "backendAuth": { "key": secret("route-credential") } },
          "backends": [{ "host": web.target("web")["mcp"]["host"].as_str().expect("a URL")
            .trim_start_matches("http://").trim_end_matches("/mcp") }] },
        { "name": "user", "matches": [{ "path": { "exact": "/user" } }], "policies": {
            "basicAuth": { "mode": "strict", "htpasswd": htpasswd } },
          "backends": [{ "host": format!("127.0.0.1:{}", free_port()) }] },
        { "name": "mcp", "backends": [{ "mcp": { "targets": [target, dead, child] },
            "policies": { "requestHeaderModifier": { "set": { "cookie": secret("backend-header") } } } }] },
    ]);
    json!({
        "config": {
            "session": { "key": "$SEAL" },
            "adminKey": { "file": admin_key },
            "audit": { "file": folder.join("audit.jsonl"), "calls": true, "key": { "file": audit_key } },
            "logging": { "level": "trace" },
        },
        "binds": [{ "port": port, "address": "127.0.0.1", "listeners": [{ "routes": routes }] }],
    })
}

/// Requests that succeed and requests that fail, with secrets in all that a client may send.
fn traffic(address: SocketAddr) {
    let credential = format!("Bearer {}", secret("client-token"));
    let client = McpClient::open_as(address, &credential);
    client.call("web__echo", json!({ "password": secret("tool-argument") }));
    client.ask("tools/call", json!({ "name": "child__x", "arguments": { "password": secret("tool-argument") } }));
    client.ask("resources/read", json!({ "uri": "none://x" }));
    client.ask("tools/list", json!({}));
    let more = [("cookie", secret("cookie")), ("x-api-key", secret("client-key")), ("x-other", secret("any-header"))];
    let more: Vec<(&str, &str)> = more.iter().map(|(name, value)| (*name, value.as_str())).collect();
    client.post_with(&format!("{{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"{}", secret("broken-json")), &more);
    ModernClient::new(address)
        .header("authorization", &credential)
        .call("web__echo", json!({ "p": secret("argument") }));
    let ask = |method: &str, target: &str, headers: &[(&str, &str)]| {
        let _ = Peer::connect(address).ask(method, target, headers, "").status;
    };
    let query = format!("/mcp?token={}", secret("query"));
    ask("GET", &query, &[("accept", ACCEPT), ("authorization", &credential)]);
    ask("POST", &query, &[("origin", "https://evil.example"), ("authorization", &credential)]);
    ask("POST", "/mcp", &[("mcp-session-id", &secret("session-id")), ("accept", ACCEPT)]);
    ask("GET", "/keyed", &[("x-api-key", &secret("matched-header"))]);
    ask("GET", "/keyed", &[("x-api-key", &secret("wrong-header"))]);
    // Each way to authenticate, with a right credential where there is one, and with wrong ones.
    let token = format!("Bearer {HEAD}.{}.{}", STANDARD.encode(format!("{{\"sub\":\"{MARK}\"}}")), secret("signature"));
    let basic = |password: &str| format!("Basic {}", STANDARD.encode(format!("alice:{password}")));
    for (path, credential, works) in [
        ("/token", token, false),
        ("/token", format!("Bearer {}", secret("no-token")), false),
        ("/known", format!("Bearer {}", secret("api-key")), true),
        ("/known", format!("Bearer {}", secret("wrong-api-key")), false),
        ("/user", basic(&secret("password")), true),
        ("/user", basic(&secret("wrong-password")), false),
    ] {
        let answer = Peer::connect(address).ask("GET", path, &[("authorization", &credential)], "");
        assert_eq!(answer.status != 401, works, "{path}: {}", answer.status);
        assert_clean("an answer", &format!("{:?} {}", answer.head, answer.text()));
    }
    // What is no HTTP at all.
    let mut peer = Peer::connect(address);
    peer.send(format!("GET / HTTP/1.1\r\nhost: a\r\nauthorization {}\r\n\r\n", secret("broken-head")));
    assert_eq!(peer.response("GET").status, 400);
    client.end();
}

#[test]
fn no_secret_is_told_at_any_level() {
    let (files, web, port, admin) = (Folder::new(), McpServer::good("web"), free_port(), local(free_port()));
    let config = config(port, files.path(), &web);
    let setup = Setup::new(&config.to_string()).args(&["--shards", "2"]).env("AGENTLANE_LOG", "trace");
    let setup = setup.env("A_SECRET", secret("variable")).env("SEAL", "5ea1".repeat(16));
    let gateway = setup.env("ADMIN_ADDR", admin.to_string()).start();
    traffic(local(port));
    let key = format!("Bearer {}", secret("admin-key"));
    let wrong = format!("Bearer {}", secret("wrong-admin-key"));
    let mut answers = vec![ask_own(admin, "GET", "/config_dump", &[("authorization", &wrong)], "")];
    let index = ask_own(admin, "GET", "/", &[("authorization", &key)], "");
    assert_eq!(index.status, 200);
    let calls: Value = serde_json::from_str(index.text()).expect("JSON");
    for call in calls.as_array().expect("a list") {
        let (method, path) = (call["method"].as_str().expect("a method"), call["path"].as_str().expect("a path"));
        let headers = [("authorization", key.as_str()), ("content-type", "application/json")];
        let body = if method == "POST" { "{\"level\":\"trace\"}" } else { "" };
        answers.push(ask_own(admin, method, path, &headers, body));
    }
    for answer in &answers {
        assert_clean("the admin API", answer.text());
        assert!(!answer.text().contains("5ea15ea1"), "the session key is told");
    }
    assert_clean("/metrics", &gateway.metrics());
    // A file in which secrets stand where they do not belong.
    let mut bad = config.clone();
    bad["config"]["logging"]["level"] = json!("$A_SECRET");
    bad["config"]["session"]["key"] = json!(secret("session-key"));
    bad["config"]["adminAddr"] = json!("$A_SECRET");
    bad["config"]["adminKey"] = json!({ "file": "/nonexistent" });
    bad["binds"][0]["port"] = json!("$A_SECRET");
    for (place, keys) in [
        (1, json!({ "jwtAuth": { "jwks": secret("no-keys") } })),
        (2, json!({ "apiKey": { "keys": [{ "keyHash": secret("no-hash") }] } })),
        (3, json!({ "basicAuth": { "htpasswd": format!("alice:{}", secret("no-hash")) } })),
    ] {
        bad["binds"][0]["listeners"][0]["routes"][place]["policies"] = keys;
    }
    gateway.write_config(&bad.to_string());
    gateway.signal(libc::SIGHUP);
    eventually("it is refused", || gateway.stderr().contains("the configuration was not changed"));
    let bad_file = files.path().join("bad.yaml");
    std::fs::write(&bad_file, bad.to_string()).expect("written");
    let Ended { code, stdout, stderr } =
        run(&["check", bad_file.to_str().expect("a path in UTF-8")], &[("A_SECRET", &secret("variable"))]);
    assert_eq!(code, Some(78));
    assert_clean("check", &(stdout + &stderr));
    let ended = gateway.terminate();
    assert!(ended.stderr.contains("DEBUG"), "the log is at its most talkative");
    assert_clean("the log", &ended.stderr);
    assert_clean("the access log", &ended.stdout);
    let audit = std::fs::read_to_string(files.path().join("audit.jsonl")).expect("an audit log");
    assert!(audit.contains("web__echo"));
    assert_clean("the audit log", &audit);
    assert!(!(ended.stderr + &ended.stdout + &audit).contains("5ea15ea1"), "the session key is told");
}
