//! TLS servers behind the gateway: MCP targets and plain backends, trusted as far as the configuration says.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::config::{mcp, one_listener};
use crate::support::gateway::{BINARY, Gateway, Setup, local};
use crate::support::mcp_client::{McpClient, initialize, message};
use crate::support::mcp_server::McpServer;
use crate::support::tls::{Authority, Pair, front};
use crate::support::upstream::{Upstream, reply};
use crate::support::wire::Peer;
use crate::support::{eventually, free_port};

/// A gateway whose only target is at this address.
fn gateway(upstream: SocketAddr, policy: Option<Value>, env: Option<(&str, &str)>) -> (Gateway, SocketAddr) {
    let port = free_port();
    let mut target = json!({ "name": "web", "mcp": { "host": format!("https://{upstream}/mcp") } });
    if let Some(policy) = policy {
        target["policies"] = json!({ "backendTLS": policy });
    }
    let config = mcp(port, json!({ "targets": [target], "failureMode": "failClosed" }));
    let setup = Setup::new(&config.to_string()).args(&["--shards", "1"]);
    let setup = env.into_iter().fold(setup, |setup, (name, value)| setup.env(name, value));
    (setup.start(), local(port))
}

#[test]
fn targets_are_trusted_as_far_as_the_configuration_says() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let good = authority.issue(&["up.test"]);
    let by_address = authority.issue(&["127.0.0.1"]);
    let expired = authority.issue_expired(&["up.test"]);
    let strange = foreign.issue(&["up.test"]);
    let root = authority.root();
    let accepted: &[(&Pair, Value)] = &[
        (&good, json!({ "root": root, "hostname": "up.test" })),
        (&by_address, json!({ "root": root })),
        (&good, json!({ "root": root, "hostname": "other.test", "insecureHost": true })),
        (&good, json!({ "insecure": true })),
        (&strange, json!({ "insecure": true })),
        (&expired, json!({ "insecure": true })),
    ];
    for (pair, policy) in accepted {
        let server = McpServer::good("web");
        let (_gateway, address) = gateway(front(server.address, pair, None), Some(policy.clone()), None);
        let client = McpClient::open(address);
        assert_eq!(client.call("echo", json!({ "a": 1 })), "web: echo {\"a\":1}", "{policy}");
    }
    let refused: &[(&Pair, Option<Value>, &str)] = &[
        (&good, None, "issued by nobody that is trusted"),
        (&strange, Some(json!({ "root": root, "hostname": "up.test" })), "issued by nobody that is trusted"),
        (&strange, Some(json!({ "root": root, "insecureHost": true })), "issued by nobody that is trusted"),
        (&expired, Some(json!({ "root": root, "hostname": "up.test" })), "expired"),
        (&good, Some(json!({ "root": root, "hostname": "other.test" })), "for another name"),
        (&good, Some(json!({ "root": root })), "for another name"),
    ];
    for (pair, policy, why) in refused {
        let server = McpServer::good("web");
        let (gateway, address) = gateway(front(server.address, pair, None), policy.clone(), None);
        let response = initialize(address, "2025-11-25");
        let failed = response.status != 200 || response.text().contains("\"error\"");
        assert!(failed, "{policy:?}: {} {}", response.status, response.text());
        let words = format!("certificate of the peer: {why}");
        eventually(&format!("{policy:?}: {words}"), || gateway.stderr().contains(&words));
        assert_eq!(server.seen().len(), 0, "nothing was said to a server that is not trusted");
    }
}

#[test]
fn the_roots_of_the_system_are_the_default() {
    let authority = Authority::new();
    let server = McpServer::good("web");
    let upstream = front(server.address, &authority.issue(&["127.0.0.1"]), None);
    let root = authority.root();
    let system = root.to_str().expect("a path in UTF-8");
    let (_gateway, address) = gateway(upstream, None, Some(("SSL_CERT_FILE", system)));
    assert_eq!(McpClient::open(address).call("echo", json!({})), "web: echo {}");
}

#[test]
fn a_target_that_asks_knows_the_gateway_by_its_certificate() {
    let authority = Authority::new();
    let server = McpServer::good("web");
    let root = authority.root();
    let upstream = front(server.address, &authority.issue(&["127.0.0.1"]), Some(&root));
    let ours = authority.issue(&["gateway.test"]);
    let policy = json!({ "root": root, "cert": ours.cert, "key": ours.key });
    let (_gateway, address) = gateway(upstream, Some(policy), None);
    assert_eq!(McpClient::open(address).call("echo", json!({})), "web: echo {}");
    let (_gateway, address) = gateway(upstream, Some(json!({ "root": root })), None);
    let response = initialize(address, "2025-11-25");
    assert!(response.status != 200 || response.text().contains("\"error\""), "{}", response.text());
}

#[test]
fn a_policy_of_the_backend_is_that_of_every_target_without_one() {
    let authority = Authority::new();
    let servers = [McpServer::good("one"), McpServer::good("two")];
    let root = authority.root();
    let fronts = [
        front(servers[0].address, &authority.issue(&["127.0.0.1"]), None),
        front(servers[1].address, &Authority::new().issue(&["two.test"]), None),
    ];
    let targets = json!([
        { "name": "one", "mcp": { "host": format!("https://{}/mcp", fronts[0]) } },
        { "name": "two", "mcp": { "host": format!("https://{}/mcp", fronts[1]) },
          "policies": { "backendTLS": { "insecure": true } } },
    ]);
    let port = free_port();
    let backend = json!({ "mcp": { "targets": targets }, "policies": { "backendTLS": { "root": root } } });
    let _gateway = Gateway::start(&one_listener(port, json!([{ "backends": [backend] }])).to_string());
    let client = McpClient::open(local(port));
    assert_eq!(client.call("one__echo", json!({})), "one: echo {}");
    assert_eq!(client.call("two__echo", json!({})), "two: echo {}");
}

#[test]
fn plain_backends_speak_tls_where_the_policy_says_so() {
    let authority = Authority::new();
    let upstream = Upstream::answering(|request| {
        Some(reply(200, &[], format!("{} {}", request.head.get("host").unwrap_or_default(), request.body.len())))
    });
    let secured = front(upstream.address, &authority.issue(&["up.test"]), None);
    let start = |policy: Value| {
        let port = free_port();
        let backend = json!({ "host": secured.to_string(), "policies": { "backendTLS": policy } });
        (Gateway::start(&one_listener(port, json!([{ "backends": [backend] }])).to_string()), local(port))
    };
    let (_gateway, address) = start(json!({ "root": authority.root(), "hostname": "up.test" }));
    let mut peer = Peer::connect(address);
    for length in [0, 10, 1_000_000] {
        let answer = peer.ask("POST", "/", &[], vec![b'x'; length]);
        assert_eq!((answer.status, answer.text()), (200, format!("localhost {length}").as_str()));
    }
    assert_eq!(upstream.connections(), 1, "one connection serves all");
    let (_gateway, address) = start(json!({ "root": authority.root() }));
    assert_eq!(Peer::connect(address).get("/").status, 502);
}

#[test]
fn sessions_stay_over_a_reload_and_begin_anew_when_the_trust_changes() {
    let authority = Authority::new();
    let server = McpServer::good("web");
    let upstream = front(server.address, &authority.issue(&["127.0.0.1"]), None);
    let port = free_port();
    let config = |policy: Value, more: u64| {
        let target = json!({ "name": "web", "mcp": { "host": format!("https://{upstream}/mcp") }, "policies": { "backendTLS": policy } });
        mcp(port, json!({ "targets": [target], "pageSize": more })).to_string()
    };
    let root = json!({ "root": authority.root() });
    let gateway = Gateway::start(&config(root.clone(), 100));
    let client = McpClient::open(local(port));
    client.call("echo", json!({}));
    gateway.reload(&config(root, 101));
    client.call("echo", json!({}));
    assert_eq!(server.sessions(), 1, "the same target, the same session behind");
    gateway.reload(&config(json!({ "insecure": true }), 101));
    client.call("echo", json!({}));
    assert_eq!(server.sessions(), 2, "another trust is another target");
}

#[test]
fn connect_speaks_tls_to_its_remote() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let server = McpServer::good("web");
    let remote = front(server.address, &authority.issue(&["127.0.0.1"]), None);
    let url = format!("https://{remote}/mcp");
    let ask = |root: std::path::PathBuf| {
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
        let line = message(1, "initialize", params) + "\n";
        let root = format!("SSL_CERT_FILE={}", root.display());
        crate::run("env", &[&root, BINARY, "connect", &url], &line)
    };
    let said = ask(authority.root());
    assert!(said.stdout.contains("\"serverInfo\""), "{said:?}");
    let said = ask(foreign.root());
    assert!(said.stdout.contains("\"error\"") && said.stderr.contains("issued by nobody that is trusted"), "{said:?}");
}
