//! `concurrencyLimit`: how many requests may be under way, at a route and at a backend.

use std::sync::{Arc, Condvar, Mutex};

use serde_json::json;

use crate::support::config::one_listener;
use crate::support::free_port;
use crate::support::gateway::{Gateway, local};
use crate::support::mcp_client::McpClient;
use crate::support::mcp_server::{Act, McpServer};
use crate::support::upstream::{Upstream, reply};
use crate::support::wire::{Peer, request};
use crate::{with_routes, with_routes_on};

/// Holds requests until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().expect("no panic in between") = true;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let open = self.0.0.lock().expect("no panic in between");
        drop(self.0.1.wait_while(open, |open| !*open).expect("no panic in between"));
    }
}

/// Opens on drop as well: an upstream's thread must not wait when a test fails.
impl Drop for Gate {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.open();
        }
    }
}

fn held(gate: &Gate) -> Upstream {
    let gate = gate.clone();
    Upstream::answering(move |_| {
        gate.wait();
        Some(reply(200, &[], "ok"))
    })
}

#[test]
fn a_route_serves_so_many_at_once() {
    let gate = Gate::default();
    let upstream = held(&gate);
    let (gateway, address) = with_routes_on(
        4,
        json!([{ "name": "held", "policies": { "concurrencyLimit": { "maxRequests": 3 } }, "backends": [{ "host": upstream.address.to_string() }] }]),
    );
    let mut waiting: Vec<Peer> = (0..3).map(|_| Peer::connect(address)).collect();
    waiting.iter_mut().for_each(|peer| peer.send(request("GET", "/", &[], b"")));
    upstream.await_requests(3);
    let mut peer = Peer::connect(address);
    let refused = peer.get("/");
    assert_eq!((refused.status, refused.text(), refused.get("retry-after")), (503, "overloaded", Some("1")));
    assert_eq!(upstream.requests().len(), 3, "it did not get there");
    gate.open();
    waiting.iter_mut().for_each(|peer| assert_eq!(peer.response("GET").status, 200));
    for _ in 0..10 {
        assert_eq!(peer.get("/").status, 200);
    }
    assert!(gateway.metric("agentlane_requests_refused_total", "reason=\"overloaded\"") >= 1.0);
}

#[test]
fn a_backend_counts_the_requests_of_all_routes() {
    let gate = Gate::default();
    let upstream = held(&gate);
    let port = free_port();
    let mut config = one_listener(
        port,
        json!([
            { "matches": [{ "path": { "pathPrefix": "/a" } }], "backends": [{ "backend": "shared" }] },
            { "matches": [{ "path": { "pathPrefix": "/b" } }], "backends": [{ "backend": "shared" }] },
        ]),
    );
    config["backends"] = json!([{ "name": "shared", "host": upstream.address.to_string(), "policies": { "concurrencyLimit": { "maxRequests": 1 } } }]);
    let _gateway = Gateway::start(&config.to_string());
    let mut first = Peer::connect(local(port));
    first.send(request("GET", "/a", &[], b""));
    upstream.await_requests(1);
    assert_eq!(Peer::connect(local(port)).get("/b").status, 503);
    gate.open();
    assert_eq!(first.response("GET").status, 200);
    assert_eq!(Peer::connect(local(port)).get("/b").status, 200);
}

#[test]
fn streams_of_mcp_sessions_take_no_place() {
    let gate = Gate::default();
    let server = McpServer::scripted("web", {
        let gate = gate.clone();
        move |seen| {
            if seen.method() == "tools/call" {
                gate.wait();
            }
            Act::Well
        }
    });
    let (_gateway, address) = with_routes(json!([{
        "policies": { "concurrencyLimit": { "maxRequests": 1 } },
        "backends": [{ "mcp": { "targets": [server.target("web")] } }],
    }]));
    let client = McpClient::open(address);
    let _stream = client.listen(None);
    assert!(client.result("tools/list", json!({}))["tools"].is_array());
    let call = r#"{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"echo","arguments":{}}}"#;
    std::thread::scope(|scope| {
        let call = scope.spawn(|| client.post(call).status);
        server.await_seen("the call", |seen| seen.method() == "tools/call");
        let refused = client.post(r#"{"jsonrpc":"2.0","id":10,"method":"ping"}"#);
        gate.open();
        assert_eq!((refused.status, &refused.json()["error"]["message"]), (503, &json!("too many requests at once")));
        assert_eq!(call.join().expect("a call"), 200);
    });
    assert_eq!(client.post(r#"{"jsonrpc":"2.0","id":11,"method":"ping"}"#).status, 200);
}
