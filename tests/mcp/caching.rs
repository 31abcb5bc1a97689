//! Lists that are kept: how often targets are asked, who gets whose, what makes a list old, and what stands in for one that
//! does not come.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use serde_json::{Value, json};

use crate::support::config::mcp;
use crate::support::gateway::{Gateway, Setup, local};
use crate::support::listens::{Listens, Pushes};
use crate::support::mcp_client::{ACCEPT, McpClient, answer_of, each, message};
use crate::support::mcp_server::{Act, McpServer, Offers, Seen, begin_events, event};
use crate::support::modern_client::ModernClient;
use crate::support::modern_server::ModernServer;
use crate::support::wire::{Peer, request};
use crate::support::{PATIENCE, eventually, free_port};
use crate::{gateway, missing, notes, tool_names};

/// A server whose list names how often it was asked: `asked1`, `asked2`, ...
fn counting(name: &'static str) -> McpServer {
    with_counted_lists(name, json!({}))
}

/// The same, with more members in each result.
fn with_counted_lists(name: &'static str, members: Value) -> McpServer {
    let asked = AtomicUsize::new(0);
    McpServer::scripted(name, move |seen| match seen.method() {
        "tools/list" => {
            let mut result = members.clone();
            result["tools"] = json!([tool(&format!("asked{}", asked.fetch_add(1, Ordering::SeqCst) + 1))]);
            Act::Result(result)
        }
        _ => Act::Well,
    })
}

fn tool(name: &str) -> Value {
    json!({ "name": name, "inputSchema": { "type": "object" } })
}

fn tools(client: &McpClient) -> Value {
    client.result("tools/list", json!({}))
}

fn names(client: &McpClient) -> String {
    tool_names(&tools(client)).join(" ")
}

/// What a list says of one target.
fn status<'a>(list: &'a Value, target: &str) -> &'a str {
    list["_meta"]["dev.agentlane/targets"][target]["status"].as_str().unwrap_or("unsaid")
}

/// A session of a client with these credentials and capabilities.
fn client_with(address: SocketAddr, authorization: &str, capabilities: Value) -> McpClient {
    let params = json!({
        "protocolVersion": "2025-11-25",
        "capabilities": capabilities,
        "clientInfo": { "name": "test", "version": "1" },
    });
    let headers = [("accept", ACCEPT), ("content-type", "application/json"), ("authorization", authorization)];
    let response = Peer::connect(address).ask("POST", "/mcp", &headers, message(0, "initialize", params));
    let session = response.get("mcp-session-id").expect("a session id").to_owned();
    let initialized = answer_of(&response)["result"].clone();
    let authorization = Some(authorization.to_owned());
    McpClient { address, session, revision: "2025-11-25".to_owned(), authorization, initialized }
}

/// Lets tasks of the test's server wait for the test.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, std::sync::Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().expect("no panic in between") = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let closed = self.0.0.lock().expect("no panic in between");
        drop(self.0.1.wait_timeout_while(closed, PATIENCE, |open| !*open).expect("no panic in between"));
    }
}

#[test]
fn a_thousand_clients_cost_a_target_one_list() {
    let offered: Vec<String> = (0..500).map(|number| format!("tool{number}")).collect();
    let offered: Vec<&str> = offered.iter().map(String::as_str).collect();
    let alone = McpServer::offering("alone", Offers::tools(&offered), |_| Act::Well);
    let (one, two) = (McpServer::offering("one", Offers::tools(&offered), |_| Act::Well), McpServer::good("two"));
    let cache = json!({ "ttl": "1h" });
    let (_first, single) = gateway(json!({ "targets": [alone.target("alone")], "cache": cache }));
    let (_second, federated) = gateway(json!({ "targets": [one.target("one"), two.target("two")], "cache": cache }));
    for (address, clients, listed) in [(single, 1_000, 500), (federated, 1_000, 501)] {
        let threads: Vec<_> = (0..20)
            .map(|_| {
                std::thread::spawn(move || {
                    for _ in 0..clients / 20 {
                        let client = McpClient::open(address);
                        assert_eq!(tool_names(&tools(&client)).len(), listed);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("a client"));
    }
    for server in [&alone, &one, &two] {
        assert_eq!(server.sessions(), 1_000);
        assert_eq!(server.count("tools/list"), 1, "one list for all of them");
    }
}

#[test]
fn lists_that_are_not_kept_are_asked_for_each_time() {
    let (one, two) = (counting("one"), counting("two"));
    let targets =
        json!([one.target("one"), { "name": "two", "mcp": two.target("two")["mcp"], "cache": { "ttl": "1h" } }]);
    let (_gateway, address) = gateway(json!({ "targets": targets }));
    let (client, other) = (McpClient::open(address), McpClient::open(address));
    assert_eq!(names(&client), "one__asked1 two__asked1");
    assert_eq!(names(&client), "one__asked2 two__asked1", "a target may say otherwise than its backend");
    assert_eq!(names(&other), "one__asked3 two__asked1");
}

#[test]
fn requests_that_meet_wait_for_one_list() {
    let gate = Gate::default();
    let server = McpServer::scripted("slow", {
        let gate = gate.clone();
        move |seen| {
            if seen.method() == "tools/list" {
                gate.pass();
            }
            Act::Well
        }
    });
    let (_gateway, address) =
        gateway(json!({ "targets": [server.target("slow")], "prefixMode": "always", "cache": { "ttl": "1h" } }));
    let clients: Vec<McpClient> = (0..10).map(|_| McpClient::open(address)).collect();
    let mut peers: Vec<Peer> = clients
        .iter()
        .map(|client| {
            let mut peer = Peer::connect(address);
            peer.send(request("POST", "/mcp", &client.headers(), message(1, "tools/list", json!({})).as_bytes()));
            // What was sent before this is being served.
            client.result("ping", json!({}));
            peer
        })
        .collect();
    server.await_seen("the list", |seen| seen.method() == "tools/list");
    gate.open();
    for peer in &mut peers {
        assert_eq!(tool_names(&answer_of(&peer.response("POST"))["result"]), ["slow__echo"]);
    }
    assert_eq!(server.count("tools/list"), 1);
}

#[test]
fn a_kept_list_gets_old() {
    let server = counting("web");
    let (_gateway, address) = gateway(json!({ "targets": [server.target("web")], "cache": { "ttl": "50ms" } }));
    let client = McpClient::open(address);
    assert_eq!(names(&client), "asked1");
    eventually("the list was asked for again", || names(&client) != "asked1");
}

#[test]
fn nobody_gets_the_list_of_another_identity() {
    let all = json!({ "sampling": {}, "roots": {} });
    let none = json!({});
    let shared = |cache: Value| {
        let server = counting("web");
        let (gateway, address) = gateway(json!({ "targets": [server.target("web")], "cache": cache }));
        let asked = [("a", &all), ("b", &all), ("a", &all), ("b", &all), ("a", &none), ("b", &none)]
            .map(|(who, abilities)| names(&client_with(address, who, abilities.clone())));
        drop(gateway);
        asked
    };
    let private = shared(json!({ "ttl": "1h" }));
    assert_eq!(private, ["asked1", "asked2", "asked1", "asked2", "asked3", "asked4"]);
    let public = shared(json!({ "ttl": "1h", "scope": "public" }));
    assert_eq!(public, ["asked1", "asked1", "asked1", "asked1", "asked2", "asked2"], "servers see what clients can do");
}

#[test]
fn a_target_that_says_how_long_a_list_is_good_is_believed() {
    let hour = 3_600_000;
    let public = with_counted_lists("public", json!({ "ttlMs": hour, "cacheScope": "public" }));
    let private = with_counted_lists("private", json!({ "ttlMs": hour, "cacheScope": "private" }));
    let never = with_counted_lists("never", json!({ "ttlMs": 0, "cacheScope": "public" }));
    let targets = json!([public.target("public"), private.target("private"), never.target("never")]);
    let (_gateway, address) = gateway(json!({ "targets": targets, "cache": { "ttl": "1h" } }));
    let (one, other) = (client_with(address, "a", json!({})), client_with(address, "b", json!({ "roots": {} })));
    assert_eq!(names(&one), "public__asked1 private__asked1 never__asked1");
    assert_eq!(names(&other), "public__asked1 private__asked2 never__asked2");
    assert_eq!(names(&one), "public__asked1 private__asked1 never__asked3");
    assert!(tools(&one).get("ttlMs").is_none(), "a client with a session knows no hints");
}

#[test]
fn a_change_that_the_target_tells_of_makes_its_list_old() {
    let (push, pushed) = mpsc::channel::<()>();
    let pushed = Mutex::new(Some(pushed));
    let asked = AtomicUsize::new(0);
    let server = McpServer::scripted("web", move |seen| match (seen.verb.as_str(), seen.method()) {
        ("GET", _) => {
            // The first session's; others have none.
            let Some(pushed) = pushed.lock().expect("no panic in between").take() else { return Act::Well };
            Act::Own(Box::new(move |peer| {
                peer.send(begin_events());
                while pushed.recv_timeout(PATIENCE).is_ok() {
                    peer.send(event(&json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" })));
                }
            }))
        }
        (_, "tools/list") => {
            Act::Result(json!({ "tools": [tool(&format!("asked{}", asked.fetch_add(1, Ordering::SeqCst) + 1))] }))
        }
        _ => Act::Well,
    });
    let other = counting("other");
    let targets = json!([server.target("web"), other.target("other")]);
    let (_gateway, address) = gateway(json!({ "targets": targets, "cache": { "ttl": "1h" } }));
    let client = McpClient::open(address);
    let unaware = McpClient::open(address);
    assert_eq!(names(&client), "web__asked1 other__asked1");
    assert_eq!(names(&unaware), "web__asked1 other__asked1");
    let mut stream = client.listen(None);
    push.send(()).expect("the server listens");
    assert_eq!(stream.message().expect("a message")["method"], "notifications/tools/list_changed");
    assert_eq!(names(&client), "web__asked2 other__asked1", "what is told of is there");
    assert_eq!(names(&unaware), "web__asked2 other__asked1");
    drop(push);
}

#[test]
fn another_configuration_of_a_target_is_another_target() {
    let (one, two) = (counting("one"), counting("two"));
    let port = free_port();
    let config = |header: &str, page_size: u32| {
        let mut changed = two.target("two");
        changed["policies"] = json!({ "requestHeaderModifier": { "set": { "x-version": header } } });
        let targets = json!([one.target("one"), changed]);
        mcp(port, json!({ "targets": targets, "cache": { "ttl": "1h" }, "pageSize": page_size })).to_string()
    };
    let gateway = Gateway::start(&config("1", 1_000));
    let client = McpClient::open(local(port));
    assert_eq!(names(&client), "one__asked1 two__asked1");
    gateway.reload(&config("2", 1_000));
    assert_eq!(names(&client), "one__asked1 two__asked2");
    gateway.reload(&config("2", 1));
    let page = tools(&client);
    assert_eq!(tool_names(&page), ["one__asked1"], "what is made of kept lists follows the configuration");
    let rest = client.result("tools/list", json!({ "cursor": page["nextCursor"] }));
    assert_eq!(tool_names(&rest), ["two__asked2"]);
}

/// A server that answers its first list, and later ones as `then` says.
fn once_well(name: &'static str, then: impl Fn() -> Act + Send + Sync + 'static) -> McpServer {
    let asked = AtomicBool::new(false);
    McpServer::scripted(name, move |seen| match seen.method() {
        "tools/list" if asked.swap(true, Ordering::SeqCst) => then(),
        _ => Act::Well,
    })
}

#[test]
fn the_last_good_list_stands_in_for_one_that_does_not_come() {
    let good = McpServer::good("good");
    let silent = once_well("silent", || Act::Silence);
    let error = once_well("error", || Act::Error(-32603, "no list today"));
    let strict = once_well("strict", || Act::Close);
    let mut without = strict.target("strict");
    without["cache"] = json!({ "staleFor": "off" });
    let targets = json!([silent.target("silent"), good.target("good"), error.target("error"), without]);
    let (_gateway, address) = gateway(json!({ "targets": targets, "deadline": "400ms" }));
    let client = McpClient::open(address);
    let first = tools(&client);
    assert_eq!(tool_names(&first), ["silent__echo", "good__echo", "error__echo", "strict__echo"]);
    assert!(first.get("_meta").is_none(), "all are well: {first}");
    let second = tools(&client);
    assert_eq!(tool_names(&second), ["silent__echo", "good__echo", "error__echo"], "in the same order");
    let statuses = ["silent", "good", "error", "strict"].map(|target| status(&second, target));
    assert_eq!(statuses, ["stale", "ok", "stale", "missing"]);
    assert_eq!(missing(&second), ["strict"]);
    let reason = &second["_meta"]["dev.agentlane/targets"]["silent"]["reason"];
    assert_eq!(reason, "target did not answer in time");
    // Who comes later gets it as well, but for another identity.
    assert_eq!(status(&tools(&McpClient::open(address)), "error"), "stale");
    let stranger = tools(&client_with(address, "a stranger", json!({})));
    assert_eq!((tool_names(&stranger), status(&stranger, "error")), (vec!["good__echo"], "missing"));
}

#[test]
fn fail_closed_takes_no_old_list() {
    let (good, error) = (McpServer::good("good"), once_well("error", || Act::Error(-32603, "no list today")));
    let targets = json!([good.target("good"), error.target("error")]);
    let (_gateway, address) = gateway(json!({ "targets": targets, "failureMode": "failClosed" }));
    let client = McpClient::open(address);
    assert_eq!(names(&client), "good__echo error__echo");
    assert!(client.ask("tools/list", json!({}))["error"]["code"].is_i64());
}

#[test]
fn a_list_that_comes_late_is_told_of_when_it_is_another() {
    let gate = Gate::default();
    let late = |name: &'static str, gate: Gate| {
        McpServer::scripted(name, move |seen: &Seen| {
            if seen.method() == "tools/list" {
                gate.pass();
            }
            Act::Well
        })
    };
    let (good, late) = (McpServer::good("good"), late("late", gate.clone()));
    let targets = json!([late.target("late"), good.target("good")]);
    let (_gateway, address) = gateway(json!({ "targets": targets, "deadline": "2s", "cache": { "ttl": "1h" } }));
    let client = McpClient::open(address);
    let mut stream = client.listen(None);
    let first = tools(&client);
    assert_eq!((tool_names(&first), missing(&first)), (vec!["good__echo"], vec!["late"]));
    gate.open();
    assert_eq!(stream.message().expect("a message")["method"], "notifications/tools/list_changed");
    assert_eq!(names(&client), "late__echo good__echo");
    assert_eq!(late.count("tools/list"), 1, "it was waited for, not asked again");
}

/// A server with a stream for each session, on which the test tells of changes; its list names the version.
struct Versioned {
    server: McpServer,
    version: Arc<AtomicUsize>,
    streams: Arc<Mutex<HashMap<String, mpsc::Sender<()>>>>,
}

impl Versioned {
    fn new() -> Self {
        let version = Arc::new(AtomicUsize::new(0));
        let streams: Arc<Mutex<HashMap<String, mpsc::Sender<()>>>> = Arc::default();
        let server = McpServer::scripted("web", {
            let (version, streams) = (version.clone(), streams.clone());
            move |seen| match (seen.verb.as_str(), seen.method()) {
                ("GET", _) => {
                    let (tell, told) = mpsc::channel();
                    let session = seen.session.clone().expect("a session");
                    streams.lock().expect("no panic in between").insert(session, tell);
                    Act::Own(Box::new(move |peer| {
                        peer.send(begin_events());
                        while told.recv().is_ok() {
                            peer.send(event(
                                &json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" }),
                            ));
                        }
                    }))
                }
                (_, "tools/list") => {
                    Act::Result(json!({ "tools": [tool(&format!("v{}", version.load(Ordering::SeqCst)))] }))
                }
                (_, "tools/call") => {
                    let session = seen.session.clone().unwrap_or_default();
                    Act::Result(json!({ "content": [{ "type": "text", "text": session }] }))
                }
                _ => Act::Well,
            }
        });
        Versioned { server, version, streams }
    }

    /// Changes the list and tells one session of it.
    fn change(&self, session: &str) {
        self.version.fetch_add(1, Ordering::SeqCst);
        let streams = self.streams.lock().expect("no panic in between");
        streams[session].send(()).expect("the stream is open");
    }
}

fn on_four_shards(server: &McpServer) -> (Gateway, SocketAddr, Vec<McpClient>) {
    let port = free_port();
    let target = json!({ "targets": [server.target("web")], "cache": { "ttl": "1h" }, "prefixMode": "always" });
    let gateway = Setup::new(&mcp(port, target).to_string()).args(&["--shards", "4"]).start();
    let mut clients = Vec::new();
    let owning =
        || (0..4).filter(|n| gateway.metric("agentlane_mcp_sessions", &format!("shard=\"{n}\"")) > 0.0).count();
    while clients.len() < 8 || owning() < 4 {
        clients.push(McpClient::open(local(port)));
        assert!(clients.len() < 200, "the kernel leaves a shard out");
    }
    (gateway, local(port), clients)
}

#[test]
fn one_list_serves_every_shard() {
    let server = McpServer::good("web");
    let (_gateway, address, clients) = on_four_shards(&server);
    let threads: Vec<_> = clients
        .into_iter()
        .chain((0..60).map(|_| McpClient::open(address)))
        .map(|client| std::thread::spawn(move || assert_eq!(names(&client), "web__echo")))
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("a client"));
    assert_eq!(server.count("tools/list"), 1, "one list for all shards");
}

#[test]
fn who_is_told_of_a_change_sees_it_whatever_other_shards_have() {
    let versioned = Versioned::new();
    let (_gateway, address, clients) = on_four_shards(&versioned.server);
    let upstream: Vec<String> = clients.iter().map(|client| client.call("web__whoami", json!({}))).collect();
    // Others ask all the time, so that lists are on their way while they change. In sessions of their own: who has the
    // newest list is not told of it.
    let stop = Arc::new(AtomicBool::new(false));
    let others: Vec<_> = (0..4)
        .map(|_| McpClient::open(address))
        .map(|client| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    names(&client);
                }
            })
        })
        .collect();
    let mut streams: Vec<_> = clients.iter().map(|client| client.listen(None)).collect();
    for round in 1..=40 {
        let which = round % clients.len();
        versioned.change(&upstream[which]);
        assert_eq!(streams[which].message().expect("a message")["method"], "notifications/tools/list_changed");
        assert_eq!(names(&clients[which]), format!("web__v{round}"));
    }
    stop.store(true, Ordering::SeqCst);
    others.into_iter().for_each(|thread| thread.join().expect("a client"));
    eventually("every shard has heard of the last change", || clients.iter().all(|client| names(client) == "web__v40"));
}

#[test]
fn clients_of_both_eras_share_what_a_modern_target_says_is_for_all() {
    let item = json!({ "name": "x", "title": "X", "icons": [], "inputSchema": { "type": "object" } });
    let offers = Offers { tools: vec![item.clone()], ..Offers::default() };
    let new = ModernServer::offering("new", offers, |_| Act::Well);
    let old = counting("old");
    let mut kept = old.target("old");
    kept["cache"] = json!({ "ttl": "30s" });
    let (_gateway, address) = gateway(json!({ "targets": [new.target("new"), kept] }));
    let modern = ModernClient::new(address);
    let list = modern.result("tools/list", json!({}));
    assert_eq!(each(&list["tools"], "name"), ["new__x", "old__asked1"]);
    assert_eq!(list["cacheScope"], "private", "the old one's lists are its callers' own");
    let ttl = list["ttlMs"].as_u64().expect("a number");
    assert!(ttl > 0 && ttl <= 30_000, "the shorter of both: {ttl}");
    // Another caller: the old target is asked for it, the new one is not.
    let other = ModernClient::new(address).header("authorization", "other");
    assert_eq!(each(&other.result("tools/list", json!({}))["tools"], "name"), ["new__x", "old__asked2"]);
    // And clients with sessions, each in its revision.
    for (revision, icons) in [("2025-11-25", true), ("2025-03-26", false), ("2025-11-25", true)] {
        let listed = tools(&McpClient::open_in(address, revision));
        assert_eq!(listed["tools"][0]["name"], "new__x");
        assert_eq!(listed["tools"][0].get("icons").is_some(), icons, "{revision}: {listed}");
        assert!(listed.get("ttlMs").is_none(), "{listed}");
    }
    assert_eq!(new.of("tools/list").len(), 1);
}

#[test]
fn what_is_degraded_is_not_to_be_kept() {
    let (good, bad) = (ModernServer::good("good"), once_well("bad", || Act::Error(-32603, "no list today")));
    let mut without = bad.target("bad");
    without["cache"] = json!({ "ttl": "off" });
    let targets = json!([good.target("good"), without]);
    let (_gateway, address) = gateway(json!({ "targets": targets, "cache": { "ttl": "1h" } }));
    let modern = ModernClient::new(address);
    for status in ["unsaid", "stale"] {
        let list = modern.result("tools/list", json!({}));
        assert_eq!((&list["ttlMs"], self::status(&list, "bad")), (&json!(0), status), "{list}");
    }
}

#[test]
fn what_a_modern_target_tells_its_listeners_makes_its_list_old() {
    let listens = Listens::default();
    let script = listens.clone();
    let server = ModernServer::offering("new", Offers::tools(&["echo"]), move |seen: &Seen| script.act(seen));
    let (_gateway, address) = gateway(json!({ "targets": [server.target("new"), notes("notes")] }));
    let client = McpClient::open(address);
    let mut stream = client.listen(None);
    let told = listens.nth(0);
    let modern = ModernClient::new(address);
    let both = || (tools(&client), modern.result("tools/list", json!({})));
    both();
    both();
    assert_eq!(server.of("tools/list").len(), 1, "one for the clients of both eras");
    told.tell("notifications/tools/list_changed", None);
    assert_eq!(stream.message().expect("a message")["method"], "notifications/tools/list_changed");
    both();
    assert_eq!(server.of("tools/list").len(), 2, "one more for both");
}

#[test]
fn a_change_that_a_client_does_not_see_is_not_told() {
    let (pushes, version) = (Pushes::default(), Arc::new(AtomicUsize::new(0)));
    let server = McpServer::scripted("old", {
        let (pushes, version) = (pushes.clone(), version.clone());
        move |seen| match seen.method() {
            "tools/list" => Act::Result(json!({ "tools": [tool(&format!("v{}", version.load(Ordering::SeqCst)))] })),
            _ => pushes.act(seen),
        }
    });
    let other = McpServer::good("other");
    let targets = json!([server.target("old"), other.target("other")]);
    let (_gateway, address) = gateway(json!({ "targets": targets, "cache": { "ttl": "1h" } }));
    let (client, blind) = (McpClient::open(address), McpClient::open(address));
    assert_eq!(names(&client), "old__v0 other__echo");
    let (mut stream, mut blind_stream) = (client.listen(None), blind.listen(None));
    let push = pushes.nth(0);
    // Nothing is different, and the client knows it all.
    pushes.nth(1);
    pushes.tell("notifications/tools/list_changed", None);
    assert_eq!(
        blind_stream.message().expect("a message")["method"],
        "notifications/tools/list_changed",
        "who has seen no list cannot have the newest"
    );
    eventually("the list was looked at", || server.count("tools/list") >= 2);
    push.tell("notifications/resources/list_changed", None);
    version.store(1, Ordering::SeqCst);
    push.tell("notifications/tools/list_changed", None);
    let told: Vec<Value> = (0..2).map(|_| stream.message().expect("a message")["method"].clone()).collect();
    assert_eq!(told, ["notifications/resources/list_changed", "notifications/tools/list_changed"]);
    assert_eq!(names(&client), "old__v1 other__echo");
    // And back, which is another list than the one that it has.
    version.store(0, Ordering::SeqCst);
    push.tell("notifications/tools/list_changed", None);
    assert_eq!(stream.message().expect("a message")["method"], "notifications/tools/list_changed");
    assert_eq!(names(&client), "old__v0 other__echo");
}
