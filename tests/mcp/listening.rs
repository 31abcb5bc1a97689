//! Who hears of changes: sessions over targets of 2026-07-28, and clients of that revision over targets of any.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::config::{mcp, to_backend};
use crate::support::gateway::{Gateway, Setup, local};
use crate::support::listens::{Listens, Pushes, SUBSCRIPTION_ID};
use crate::support::mcp_client::{EventStream, McpClient};
use crate::support::mcp_server::{Act, McpServer, Offers, Seen};
use crate::support::modern_client::ModernClient;
use crate::support::modern_server::ModernServer;
use crate::support::upstream::reply;
use crate::support::wire::Peer;
use crate::support::{eventually, free_port, resident_kib};
use crate::{federation, gateway, notes};

fn offers() -> Offers {
    Offers::resources(&["memo:x", "memo:y"])
}

/// A modern server whose listens grant changes of its tools and of every resource but `memo:secret`.
fn server(name: &str) -> (ModernServer, Listens) {
    let listens = Listens::default();
    let script = listens.clone();
    (ModernServer::offering(name, offers(), move |seen: &Seen| script.act(seen)), listens)
}

fn subscribe(client: &McpClient, uri: &str) -> Value {
    client.ask("resources/subscribe", json!({ "uri": uri }))
}

/// The next messages of a stream, as method and URI.
fn told(stream: &mut EventStream, count: usize) -> Vec<(String, String)> {
    let message = |stream: &mut EventStream| {
        let message = stream.message().expect("a message");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        assert!(message["params"].get("_meta").is_none(), "a session's stream has no subscription: {message}");
        (text(&message["method"]), text(&message["params"]["uri"]))
    };
    (0..count).map(|_| message(stream)).collect()
}

fn tools_changed() -> (String, String) {
    ("notifications/tools/list_changed".to_owned(), String::new())
}

fn updated(uri: &str) -> (String, String) {
    ("notifications/resources/updated".to_owned(), uri.to_owned())
}

#[test]
fn sessions_of_one_caller_share_a_modern_targets_stream() {
    let (server, listens) = server("new");
    let (_gateway, address) = gateway(json!({ "targets": [server.target("new")] }));
    let (first, second) = (McpClient::open(address), McpClient::open(address));
    let mut streams = [first.listen(None), second.listen(None)];
    let lists = listens.nth(0);
    assert_eq!(lists.filter(), &json!({ "toolsListChanged": true }));
    lists.tell("notifications/tools/list_changed", None);
    for stream in &mut streams {
        assert_eq!(told(stream, 1), [tools_changed()]);
    }
    // What one of them wants beside is asked for on a new stream, and the old one goes.
    assert_eq!(subscribe(&first, "memo:x")["result"], json!({}));
    let both = listens.nth(1);
    assert_eq!(both.filter(), &json!({ "toolsListChanged": true, "resourceSubscriptions": ["memo:x"] }));
    lists.await_closed();
    // What is asked for already is not asked for again.
    assert_eq!(subscribe(&second, "memo:x")["result"], json!({}));
    both.tell("notifications/resources/updated", Some("memo:x"));
    for stream in &mut streams {
        assert_eq!(told(stream, 1), [updated("memo:x")]);
    }
    // Whoever does not want it any more is not told, as long as others are.
    assert_eq!(first.result("resources/unsubscribe", json!({ "uri": "memo:x" })), json!({}));
    both.tell("notifications/resources/updated", Some("memo:x"));
    both.tell("notifications/tools/list_changed", None);
    assert_eq!(told(&mut streams[0], 1), [tools_changed()]);
    assert_eq!(told(&mut streams[1], 2), [updated("memo:x"), tools_changed()]);
    assert_eq!(listens.count(), 2);
    // With the last session goes the stream.
    assert_eq!((first.end().status, second.end().status), (200, 200));
    both.await_closed();
    assert_eq!(listens.count(), 2);
}

#[test]
fn callers_never_share_a_stream() {
    let (server, listens) = server("new");
    let (_gateway, address) = gateway(json!({ "targets": [server.target("new")] }));
    let alice = McpClient::open_as(address, "Bearer alice");
    let mut hers = alice.listen(None);
    let first = listens.nth(0);
    let bob = McpClient::open_as(address, "Bearer bob");
    let mut his = bob.listen(None);
    let second = listens.nth(1);
    first.tell("notifications/tools/list_changed", None);
    assert_eq!(told(&mut hers, 1), [tools_changed()]);
    assert_eq!(subscribe(&bob, "memo:x")["result"], json!({}));
    second.await_closed();
    listens.nth(2).tell("notifications/resources/updated", Some("memo:x"));
    assert_eq!(told(&mut his, 1), [updated("memo:x")], "nothing of hers came before");
}

#[test]
fn what_a_target_does_not_grant_is_refused() {
    let (server, listens) = server("new");
    let (_gateway, address) = gateway(json!({ "targets": [server.target("new")] }));
    let client = McpClient::open(address);
    listens.nth(0);
    assert_eq!(subscribe(&client, "memo:secret")["error"]["code"], -32602);
    assert_eq!(subscribe(&client, "memo:x")["result"], json!({}));
    // It is not asked for any more.
    let last = listens.nth(2);
    assert_eq!(last.filter()["resourceSubscriptions"], json!(["memo:x"]));
}

#[test]
fn marked_resources_of_a_federation_are_told_by_their_outward_names() {
    let ((one, first), (two, second)) = (server("one"), server("two"));
    let (_gateway, address) = federation(vec![one.target("one"), two.target("two")]);
    let client = McpClient::open(address);
    let mut stream = client.listen(None);
    client.result("resources/list", json!({}));
    for uri in ["memo:x", "x-two+memo:x"] {
        assert_eq!(subscribe(&client, uri)["result"], json!({}), "{uri}");
    }
    for (listens, outward) in [(&first, "memo:x"), (&second, "x-two+memo:x")] {
        let last = listens.nth(1);
        assert_eq!(last.filter()["resourceSubscriptions"], json!(["memo:x"]));
        last.tell("notifications/resources/updated", Some("memo:x"));
        assert_eq!(told(&mut stream, 1), [updated(outward)]);
    }
}

#[test]
fn a_broken_stream_is_opened_again_and_everything_counts_as_changed() {
    let (server, listens) = server("new");
    let (_gateway, address) = gateway(json!({ "targets": [server.target("new")] }));
    let client = McpClient::open(address);
    let mut stream = client.listen(None);
    assert_eq!(subscribe(&client, "memo:x")["result"], json!({}));
    listens.nth(1).cut();
    let again = listens.nth(2);
    assert_eq!(again.filter(), &json!({ "toolsListChanged": true, "resourceSubscriptions": ["memo:x"] }));
    assert_eq!(told(&mut stream, 2), [tools_changed(), updated("memo:x")]);
    again.tell("notifications/resources/updated", Some("memo:x"));
    assert_eq!(told(&mut stream, 1), [updated("memo:x")]);
    // An end in good order is no reason to stop listening either.
    again.end();
    assert_eq!(told(&mut stream, 2), [tools_changed(), updated("memo:x")]);
    assert_eq!(listens.nth(3).filter(), again.filter());
}

// Clients of 2026-07-28 from here on.

/// A listen of a modern client, whose acknowledgement has come.
struct Heard {
    stream: EventStream,
    id: Value,
    granted: Value,
}

impl Heard {
    #[track_caller]
    fn open(client: &ModernClient, id: Value, filter: Value) -> Self {
        let mut peer = Peer::connect(client.address);
        client.send_on(&mut peer, &client.message(&id, "subscriptions/listen", json!({ "notifications": filter })));
        let mut stream = EventStream::begin(peer);
        let message = stream.message().expect("an acknowledgement");
        assert_eq!(message["method"], "notifications/subscriptions/acknowledged", "{message}");
        assert_eq!(message["params"]["_meta"][SUBSCRIPTION_ID], id);
        Heard { stream, id, granted: message["params"]["notifications"].clone() }
    }

    /// The next changes.
    #[track_caller]
    fn told(&mut self, count: usize) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let messages = (0..count).map(|_| self.stream.message().expect("a message"));
        let changes = messages.map(|message| {
            assert_eq!(message["params"]["_meta"][SUBSCRIPTION_ID], self.id, "{message}");
            (text(&message["method"]), text(&message["params"]["uri"]))
        });
        changes.collect()
    }

    /// The end in good order.
    #[track_caller]
    fn ends(mut self) {
        let result = self.stream.message().expect("a result");
        assert_eq!(result["id"], self.id, "{result}");
        assert_eq!(result["result"]["resultType"], "complete");
        assert_eq!(result["result"]["_meta"][SUBSCRIPTION_ID], self.id);
        assert_eq!(self.stream.message(), None);
    }
}

/// Changes that come together come in any order.
fn sorted(mut changes: Vec<(String, String)>) -> Vec<(String, String)> {
    changes.sort();
    changes
}

/// A server with sessions that tells changes of its tools and of every resource but `memo:secret`.
fn old_server(name: &str) -> (McpServer, Pushes) {
    let pushes = Pushes::default();
    let script = pushes.clone();
    (McpServer::offering(name, offers(), move |seen: &Seen| script.act(seen)), pushes)
}

/// Lets a server be reached at another port as well, from now on.
fn forward(port: u16, to: SocketAddr) {
    let listener = TcpListener::bind(local(port)).expect("a free port");
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(to).expect("the server");
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (mut from, mut to) = (from.try_clone().expect("a clone"), to.try_clone().expect("a clone"));
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Both);
                });
            }
        }
    });
}

fn everything(uris: &[&str]) -> Value {
    json!({ "toolsListChanged": true, "promptsListChanged": true, "resourcesListChanged": true,
        "resourceSubscriptions": uris })
}

#[test]
fn modern_listens_share_one_stream_of_a_modern_target() {
    let (server, listens) = server("new");
    let (gateway, address) = gateway(json!({ "targets": [server.target("new")] }));
    let client = ModernClient::new(address);
    let mut first = Heard::open(&client, json!(7), everything(&["memo:x", "memo:secret"]));
    assert_eq!(first.granted, json!({ "toolsListChanged": true, "resourceSubscriptions": ["memo:x"] }));
    let mut second = Heard::open(&client, json!("7"), json!({ "toolsListChanged": true }));
    assert_eq!(second.granted, json!({ "toolsListChanged": true }));
    assert_eq!(Heard::open(&client, json!(8), json!({})).granted, json!({}), "nothing is a filter, too");
    assert_eq!(listens.count(), 1);
    let upstream = listens.nth(0);
    upstream.tell("notifications/resources/updated", Some("memo:x"));
    upstream.tell("notifications/tools/list_changed", None);
    assert_eq!(sorted(first.told(2)), [updated("memo:x"), tools_changed()]);
    assert_eq!(second.told(1), [tools_changed()], "a listen hears what it asked for");
    eventually("the one that was left counts no more", || gateway.metric("agentlane_mcp_listens", "") == 2.0);
    drop(first);
    drop(second);
    upstream.await_closed();
    eventually("nothing is left", || {
        ["listens", "feeds"].iter().all(|what| gateway.metric(&format!("agentlane_mcp_{what}"), "") == 0.0)
    });
}

#[test]
fn modern_listens_ride_on_one_session_with_an_older_target() {
    let (server, pushes) = old_server("old");
    let (gateway, address) = gateway(json!({ "targets": [server.target("old")] }));
    let client = ModernClient::new(address);
    let mut first = Heard::open(&client, json!(1), everything(&["memo:x", "memo:secret"]));
    assert_eq!(first.granted, json!({ "toolsListChanged": true, "resourceSubscriptions": ["memo:x"] }));
    let mut second = Heard::open(&client, json!(2), everything(&["memo:x", "memo:y"]));
    assert_eq!(second.granted["resourceSubscriptions"], json!(["memo:x", "memo:y"]));
    let subscribed = |method: &str| -> Vec<String> {
        let seen = server.seen().into_iter().filter(|seen| seen.method() == method);
        seen.map(|seen| seen.message["params"]["uri"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let mut asked = subscribed("resources/subscribe");
    asked.sort();
    assert_eq!(asked, ["memo:secret", "memo:x", "memo:y"], "each once, however many want it");
    let push = pushes.nth(0);
    // What nobody may answer is refused, and what is no change is dropped.
    push.send(json!({ "jsonrpc": "2.0", "id": "e", "method": "elicitation/create", "params": {} }));
    push.send(json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": "info", "data": 1 } }));
    push.tell("notifications/resources/updated", Some("memo:x"));
    push.tell("notifications/prompts/list_changed", None);
    push.tell("notifications/tools/list_changed", None);
    for heard in [&mut first, &mut second] {
        assert_eq!(sorted(heard.told(2)), [updated("memo:x"), tools_changed()]);
    }
    let refusal = server.await_seen("the refusal", |seen| seen.id() == "e");
    assert_eq!(refusal.message["error"]["code"], -32601);
    // `memo:x` stays as long as somebody wants it.
    drop(first);
    push.tell("notifications/resources/updated", Some("memo:x"));
    assert_eq!(second.told(1), [updated("memo:x")]);
    assert_eq!(subscribed("resources/unsubscribe"), [""; 0]);
    assert_eq!((pushes.count(), server.count("initialize")), (1, 1));
    drop(second);
    push.await_closed();
    server.await_seen("the end of the session", |seen| seen.verb == "DELETE");
    eventually("nothing is left", || gateway.metric("agentlane_mcp_feeds", "") == 0.0);
}

#[test]
fn what_a_call_changed_is_heard_though_its_session_alone_is_told() {
    let pushes = Pushes::default();
    let script = pushes.clone();
    let server = McpServer::offering("old", offers(), move |seen: &Seen| match seen.method() {
        // The stream that it comes on is the call's own.
        "tools/call" => Act::Events(vec![
            json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" }),
            json!({ "jsonrpc": "2.0", "id": seen.id(), "result": { "content": [] } }),
        ]),
        _ => script.act(seen),
    });
    let port = free_port();
    let config = mcp(port, json!({ "targets": [server.target("old")] }));
    let _gateway = Setup::new(&config.to_string()).args(&["--shards", "4"]).start();
    let client = ModernClient::new(local(port));
    // On whichever shards they and the call are.
    let mut heard: Vec<Heard> =
        (0..8).map(|id| Heard::open(&client, json!(id), json!({ "toolsListChanged": true }))).collect();
    let mut other =
        Heard::open(&client.clone().header("authorization", "Bearer other"), json!(1), everything(&["memo:x"]));
    client.call("echo", json!({}));
    heard.iter_mut().for_each(|heard| assert_eq!(heard.told(1), [tools_changed()]));
    // Another caller was not: it hears the next change first.
    pushes.tell("notifications/prompts/list_changed", None);
    pushes.tell("notifications/resources/updated", Some("memo:x"));
    assert_eq!(other.told(1), [updated("memo:x")]);
}

#[test]
fn what_is_listed_after_a_change_is_new() {
    let (server, listens) = server("new");
    let (_gateway, address) = gateway(json!({ "targets": [server.target("new")], "prefixMode": "always" }));
    let client = ModernClient::new(address);
    let mut heard = Heard::open(&client, json!(1), json!({ "toolsListChanged": true }));
    let list = || drop(client.result("tools/list", json!({})));
    list();
    list();
    let asked = || server.of("tools/list").len();
    assert_eq!(asked(), 1, "a list that its target lets be kept is kept");
    listens.nth(0).tell("notifications/tools/list_changed", None);
    assert_eq!(heard.told(1), [tools_changed()]);
    list();
    assert_eq!(asked(), 2);
}

#[test]
fn a_broken_stream_of_an_older_target_is_taken_up_again() {
    let (server, pushes) = old_server("old");
    let (_gateway, address) = gateway(json!({ "targets": [server.target("old")] }));
    let mut heard = Heard::open(&ModernClient::new(address), json!(1), everything(&["memo:x"]));
    let before = server.count("resources/subscribe");
    pushes.nth(0).cut();
    let again = pushes.nth(1);
    assert_eq!(sorted(heard.told(2)), [updated("memo:x"), tools_changed()], "something may have been missed");
    assert_eq!(server.count("resources/subscribe"), before + 1, "subscribed again");
    again.tell("notifications/resources/updated", Some("memo:x"));
    assert_eq!(heard.told(1), [updated("memo:x")]);
}

#[test]
fn a_session_that_an_older_target_forgot_is_opened_again() {
    let (server, pushes) = {
        let pushes = Pushes::default();
        let script = pushes.clone();
        let lost = AtomicBool::new(true);
        let server = McpServer::offering("old", offers(), move |seen: &Seen| {
            // The second time that the stream is asked for the session is gone.
            let again = seen.verb == "GET" && script.count() == 1;
            match again && lost.swap(false, Ordering::SeqCst) {
                true => Act::Bytes(reply(404, &[], "")),
                false => script.act(seen),
            }
        });
        (server, pushes)
    };
    let (_gateway, address) = gateway(json!({ "targets": [server.target("old")] }));
    let mut heard = Heard::open(&ModernClient::new(address), json!(1), everything(&["memo:x"]));
    pushes.nth(0).cut();
    let again = pushes.nth(1);
    assert_eq!(sorted(heard.told(2)), [updated("memo:x"), tools_changed()]);
    assert_eq!(server.count("initialize"), 2);
    again.tell("notifications/tools/list_changed", None);
    assert_eq!(heard.told(1), [tools_changed()]);
}

#[test]
fn a_target_that_tells_nothing_is_asked_once() {
    let silent = McpServer::offering("old", offers(), |_| Act::Well);
    let (_gateway, address) = gateway(json!({ "targets": [silent.target("old")] }));
    let client = ModernClient::new(address);
    let heard: Vec<Heard> = (0..5).map(|id| Heard::open(&client, json!(id), everything(&["memo:x"]))).collect();
    assert!(heard.iter().all(|heard| heard.granted == json!({})));
    let asked = silent.seen().iter().filter(|seen| seen.verb == "GET").count();
    assert_eq!((asked, silent.count("initialize"), silent.count("resources/subscribe")), (1, 1, 0));
}

#[test]
fn only_what_every_target_tells_is_acknowledged() {
    let ((old, pushes), (new, listens)) = (old_server("old"), server("new"));
    let quiet = McpServer::good("quiet");
    let uris = ["memo:x", "x-new+memo:x", "memo:unknown"];
    let granted = json!(["memo:x", "x-new+memo:x"]);
    let (_gateway, address) = federation(vec![old.target("old"), new.target("new")]);
    let client = ModernClient::new(address);
    client.result("resources/list", json!({}));
    let mut heard = Heard::open(&client, json!(1), everything(&uris));
    assert_eq!(heard.granted, json!({ "toolsListChanged": true, "resourceSubscriptions": granted }));
    pushes.tell("notifications/resources/updated", Some("memo:x"));
    assert_eq!(heard.told(1), [updated("memo:x")]);
    listens.nth(0).tell("notifications/resources/updated", Some("memo:x"));
    assert_eq!(heard.told(1), [updated("x-new+memo:x")]);
    pushes.tell("notifications/tools/list_changed", None);
    assert_eq!(heard.told(1), [tools_changed()]);
    // One more whose tools may change unheard.
    let (_gateway, address) = federation(vec![new.target("new"), quiet.target("quiet")]);
    let heard = Heard::open(&ModernClient::new(address), json!(1), everything(&["memo:x"]));
    assert_eq!(heard.granted, json!({ "resourceSubscriptions": ["memo:x"] }));
}

/// A server of both eras that tells changes in one of them alone, if in any.
fn half_mute(name: &str, told: Option<Pushes>) -> McpServer {
    McpServer::offering(name, offers(), move |seen: &Seen| {
        match (seen.request.head.get("mcp-protocol-version"), seen.method()) {
            (Some("2026-07-28"), "server/discover") => Act::Result(json!({
                "resultType": "complete", "supportedVersions": ["2026-07-28"], "ttlMs": 0, "cacheScope": "public",
                "capabilities": { "tools": { "listChanged": true }, "resources": { "subscribe": true } },
            })),
            (Some("2026-07-28"), _) => {
                Act::Bytes(crate::support::modern_server::error(404, seen.id(), -32601, "no listens", Value::Null))
            }
            _ => told.as_ref().map_or(Act::Well, |pushes| pushes.act(seen)),
        }
    })
}

#[test]
fn a_target_that_cannot_be_listened_to_is_heard_by_its_sessions_or_left_out() {
    let (new, listens) = server("new");
    let mute = half_mute("mute", None);
    let (gateway, address) = federation(vec![new.target("new"), mute.target("mute")]);
    let mut heard = Heard::open(&ModernClient::new(address), json!(1), everything(&["memo:x"]));
    assert_eq!(heard.granted["toolsListChanged"], true, "{}", gateway.stderr());
    listens.nth(0).tell("notifications/tools/list_changed", None);
    assert_eq!(heard.told(1), [tools_changed()]);
    drop(heard);
    let pushes = Pushes::default();
    let both = half_mute("both", Some(pushes.clone()));
    let (gateway, address) = federation(vec![new.target("new"), both.target("both")]);
    let client = ModernClient::new(address);
    let mut heard = Heard::open(&client, json!(2), json!({ "toolsListChanged": true }));
    assert_eq!(heard.granted, json!({ "toolsListChanged": true }), "{}", gateway.stderr());
    pushes.tell("notifications/tools/list_changed", None);
    assert_eq!(heard.told(1), [tools_changed()]);
    listens.nth(1).tell("notifications/tools/list_changed", None);
    assert_eq!(heard.told(1), [tools_changed()]);
    // With the listen goes the session.
    drop(heard);
    pushes.nth(0).await_closed();
    eventually("its end", || both.seen().iter().any(|seen| seen.verb == "DELETE"));
    // Alone as well.
    let (_gateway, address) = gateway_of(both.target("both"));
    let mut heard = Heard::open(&ModernClient::new(address), json!(3), everything(&["memo:x"]));
    assert_eq!(heard.granted, json!({ "toolsListChanged": true, "resourceSubscriptions": ["memo:x"] }));
    pushes.tell("notifications/resources/updated", Some("memo:x"));
    assert_eq!(heard.told(1), [updated("memo:x")]);
}

fn gateway_of(target: Value) -> (Gateway, SocketAddr) {
    gateway(json!({ "targets": [target] }))
}

#[test]
fn a_target_that_is_down_is_heard_when_it_comes() {
    let (new, listens) = server("new");
    let (late, later) = server("late");
    let port = free_port();
    let address = local(port);
    let targets = |host: &str| json!({ "name": "late", "mcp": { "host": host } });
    let down =
        json!({ "targets": [new.target("new"), targets(&format!("http://{address}/mcp"))], "deadline": "400ms" });
    let (_gateway, front) = gateway(down);
    let mut heard = Heard::open(&ModernClient::new(front), json!(1), everything(&[]));
    assert_eq!(heard.granted, json!({ "toolsListChanged": true }));
    listens.nth(0).tell("notifications/tools/list_changed", None);
    assert_eq!(heard.told(1), [tools_changed()]);
    // It comes up: its tools are new to whoever lists.
    forward(port, late.address);
    later.nth(0);
    assert_eq!(heard.told(1), [tools_changed()]);
    // Where nobody can be heard the client learns it.
    let nobody = json!({ "targets": [targets(&format!("http://{}/mcp", local(free_port())))], "deadline": "400ms" });
    let (_gateway, front) = gateway(nobody);
    let (status, error) =
        ModernClient::new(front).error("subscriptions/listen", json!({ "notifications": everything(&[]) }));
    assert_eq!((status, &error["code"]), (200, &json!(-32603)), "{error}");
}

#[test]
fn what_is_no_filter_is_refused() {
    let (server, listens) = server("new");
    let (_gateway, address) = gateway(json!({ "targets": [server.target("new")] }));
    let client = ModernClient::new(address);
    let many: Vec<String> = (0..300).map(|number| format!("memo:{number}")).collect();
    for params in [
        json!({}),
        json!({ "notifications": 7 }),
        json!({ "notifications": { "toolsListChanged": "yes" } }),
        json!({ "notifications": { "resourceSubscriptions": many } }),
    ] {
        let (status, error) = client.error("subscriptions/listen", params.clone());
        assert_eq!((status, &error["code"]), (200, &json!(-32602)), "{params}: {error}");
    }
    assert_eq!(listens.count(), 0);
}

#[test]
fn other_targets_are_told_as_changed_lists_and_the_end_as_an_end() {
    let ((one, first), (two, second)) = (server("one"), server("two"));
    let port = free_port();
    let config = |targets: &[Value]| mcp(port, json!({ "targets": targets, "prefixMode": "always" })).to_string();
    let gateway = Gateway::start(&config(&[one.target("one")]));
    let client = ModernClient::new(local(port));
    let mut lists = Heard::open(&client, json!("lists"), json!({ "toolsListChanged": true }));
    let resource = Heard::open(&client, json!("resource"), json!({ "resourceSubscriptions": ["memo:x"] }));
    assert_eq!(resource.granted, json!({ "resourceSubscriptions": ["memo:x"] }));
    // A reload that changes nothing here says nothing here.
    let patient = mcp(port, json!({ "targets": [one.target("one")], "prefixMode": "always", "deadline": "7s" }));
    gateway.reload(&patient.to_string());
    first.nth(0).tell("notifications/tools/list_changed", None);
    assert_eq!(lists.told(1), [tools_changed()]);
    gateway.reload(&config(&[one.target("one"), two.target("two")]));
    assert_eq!(lists.told(1), [tools_changed()]);
    second.nth(0).tell("notifications/tools/list_changed", None);
    assert_eq!(lists.told(1), [tools_changed()]);
    // A resource goes with its target.
    gateway.reload(&config(&[two.target("two")]));
    assert_eq!(lists.told(1), [tools_changed()]);
    resource.ends();
    // A listen ends with the gateway, in good order.
    let ended = std::thread::spawn(move || gateway.terminate());
    lists.ends();
    assert_eq!(ended.join().expect("no panic").code, Some(0));
}

#[test]
fn an_endpoint_that_is_gone_ends_its_listens() {
    let (one, _) = server("one");
    let port = free_port();
    let gateway = Gateway::start(&mcp(port, json!({ "targets": [one.target("one")] })).to_string());
    let heard = Heard::open(&ModernClient::new(local(port)), json!(1), everything(&[]));
    gateway.reload(&to_backend(port, one.address).to_string());
    heard.ends();
}

#[test]
fn a_listen_that_is_not_read_costs_no_memory() {
    let (server, listens) = server("new");
    let (gateway, address) = gateway(json!({ "targets": [server.target("new")] }));
    let client = ModernClient::new(address);
    let uris: Vec<String> = (0..50).map(|number| format!("memo:{number}-{}", "x".repeat(10_000))).collect();
    let filter = json!({ "toolsListChanged": true, "resourceSubscriptions": uris });
    let mut heard = Heard::open(&client, json!(1), json!({ "toolsListChanged": true }));
    let deaf = Heard::open(&client, json!(2), filter);
    let upstream = listens.nth(1);
    let before = resident_kib(gateway.pid());
    for round in 0..200 {
        uris.iter().for_each(|uri| upstream.tell("notifications/resources/updated", Some(uri)));
        if round % 20 == 0 {
            upstream.tell("notifications/tools/list_changed", None);
            assert_eq!(heard.told(1), [tools_changed()], "others hear as before");
        }
    }
    let growth = resident_kib(gateway.pid()).saturating_sub(before);
    assert!(growth < 8 * 1024, "{growth} KiB for a listen that is not read");
    drop(deaf);
}

#[test]
fn what_extensions_tell_passes_through() {
    let server = ModernServer::offering("new", offers(), |seen: &Seen| match seen.method() {
        "subscriptions/listen" => {
            let meta = json!({ SUBSCRIPTION_ID: seen.id() });
            let granted = &seen.message["params"]["notifications"];
            Act::Events(vec![
                json!({ "jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged",
                    "params": { "_meta": meta, "notifications": granted } }),
                json!({ "jsonrpc": "2.0", "method": "notifications/tasks",
                    "params": { "_meta": meta, "taskId": "t", "status": "working" } }),
                json!({ "jsonrpc": "2.0", "id": seen.id(), "result": { "resultType": "complete", "_meta": meta } }),
            ])
        }
        _ => Act::Well,
    });
    let (_gateway, address) = gateway(json!({ "targets": [server.target("new")] }));
    let filter = json!({ "toolsListChanged": true, "taskIds": ["t"] });
    let mut heard = Heard::open(&ModernClient::new(address), json!("mine"), filter.clone());
    assert_eq!(heard.granted, filter);
    assert_eq!(heard.told(1), [("notifications/tasks".to_owned(), String::new())]);
    heard.ends();
}

#[test]
fn children_are_heard_as_well() {
    let mut target = notes("notes");
    target["stdio"]["mode"] = "shared".into();
    let (_gateway, address) = gateway(json!({ "targets": [target] }));
    let client = ModernClient::new(address);
    let mut heard = Heard::open(&client, json!(1), everything(&["memo:x"]));
    assert_eq!(heard.granted, json!({ "resourcesListChanged": true }));
    client.call("add_note", json!({ "title": "a", "text": "b" }));
    assert_eq!(heard.told(1), [("notifications/resources/list_changed".to_owned(), String::new())]);
}
