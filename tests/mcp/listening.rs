//! Who hears of changes: sessions over targets that speak 2026-07-28.

use serde_json::{Value, json};

use crate::support::listens::Listens;
use crate::support::mcp_client::{EventStream, McpClient};
use crate::support::mcp_server::{Offers, Seen};
use crate::support::modern_server::ModernServer;
use crate::{federation, gateway};

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
