//! Resources that are kept: how often targets are asked, who gets whose, and what makes one old.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::gateway;
use crate::support::config::mcp;
use crate::support::gateway::{Setup, local};
use crate::support::listens::Listens;
use crate::support::mcp_client::{McpClient, answer_of};
use crate::support::mcp_server::{Act, McpServer, Offers, Seen};
use crate::support::modern_client::ModernClient;
use crate::support::modern_server::{ModernServer, input_required};
use crate::support::wire::Peer;
use crate::support::{eventually, free_port};

/// A server whose resources say how often they were read: `1`, `2`, ... Those of `a:private` are private, of `a:never`
/// hold for no time, and `a:asks` needs an answer first.
fn counting(before: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> ModernServer {
    let uris = ["a:public", "a:other", "a:private", "a:never", "a:asks"];
    let resources = uris.iter().map(|uri| json!({ "uri": uri, "name": uri })).collect();
    let offers = Offers { resources, ..Offers::default() };
    let asked = AtomicUsize::new(0);
    ModernServer::offering("new", offers, move |seen| {
        let act = before(seen);
        if !matches!(act, Act::Well) || seen.method() != "resources/read" {
            return act;
        }
        let params = &seen.message["params"];
        let uri = params["uri"].as_str().unwrap_or_default();
        if uri == "a:asks" && params.get("inputResponses").is_none() {
            return input_required(json!({ "k": { "method": "roots/list" } }), None);
        }
        let scope = if uri == "a:private" { "private" } else { "public" };
        let ttl = if uri == "a:never" { 0 } else { 3_600_000 };
        let text = (asked.fetch_add(1, Ordering::SeqCst) + 1).to_string();
        let contents = json!([{ "uri": uri, "text": text }]);
        Act::Result(json!({ "contents": contents, "ttlMs": ttl, "cacheScope": scope }))
    })
}

/// Before it, and a server that has no resources.
fn federation(server: &ModernServer) -> (crate::support::gateway::Gateway, SocketAddr, McpServer) {
    let other = McpServer::good("plain");
    let (gateway, address) = gateway(json!({ "targets": [server.target("new"), other.target("plain")] }));
    (gateway, address, other)
}

fn result(client: &ModernClient, uri: &str) -> Value {
    client.result("resources/read", json!({ "uri": uri }))
}

fn read(client: &ModernClient, uri: &str) -> String {
    result(client, uri)["contents"][0]["text"].as_str().expect("a text").to_owned()
}

#[test]
fn a_resource_is_read_once_for_as_long_as_its_server_says() {
    let server = counting(|_| Act::Well);
    let (_gateway, address, _other) = federation(&server);
    let client = ModernClient::new(address);
    let stranger = client.clone().header("authorization", "Bearer other");
    assert_eq!(read(&client, "a:public"), "1");
    let again = result(&client, "a:public");
    assert_eq!((&again["contents"][0]["text"], &again["cacheScope"]), (&json!("1"), &json!("public")));
    assert_eq!(again["resultType"], "complete");
    let left = again["ttlMs"].as_u64().expect("a time");
    assert!(left > 3_500_000 && left <= 3_600_000, "what is left of it: {left}");
    eventually("less is left as time passes", || result(&client, "a:public")["ttlMs"].as_u64() < Some(left));
    assert_eq!(read(&stranger, "a:public"), "1");
    let asked =
        |uri: &str| server.of("resources/read").iter().filter(|seen| seen.message["params"]["uri"] == uri).count();
    assert_eq!(asked("a:public"), 1);
    // Private ones are their caller's, and of clients that can do the same.
    let mine = read(&client, "a:private");
    assert_eq!(read(&client, "a:private"), mine);
    assert_eq!(result(&client, "a:private")["cacheScope"], "private");
    assert_ne!(read(&stranger, "a:private"), mine);
    assert_ne!(read(&client.clone().with(json!({ "roots": {} })), "a:private"), mine);
    assert_eq!(asked("a:private"), 3);
    for _ in 0..2 {
        read(&client, "a:never");
    }
    assert_eq!(asked("a:never"), 2);
    // What else is in the request may matter.
    let more = json!({ "uri": "a:public", "range": "1-2" });
    assert_eq!(client.result("resources/read", more)["contents"][0]["text"].as_str(), Some("7"));
}

#[test]
fn what_an_answer_of_the_client_made_is_not_kept() {
    let server = counting(|_| Act::Well);
    let (_gateway, address, _other) = federation(&server);
    let client = ModernClient::new(address).with(json!({ "roots": {} }));
    for round in 1..=2 {
        assert_eq!(result(&client, "a:asks")["resultType"], "input_required");
        let retry = json!({ "uri": "a:asks", "inputResponses": { "k": { "roots": [] } } });
        let answer = client.result("resources/read", retry);
        assert_eq!(answer["contents"][0]["text"], round.to_string());
    }
    assert_eq!(server.of("resources/read").len(), 4);
}

#[test]
fn clients_of_both_eras_share_a_resource() {
    let server = counting(|_| Act::Well);
    let (_gateway, address, _other) = federation(&server);
    let legacy = McpClient::open(address);
    let first = legacy.result("resources/read", json!({ "uri": "a:public" }));
    assert_eq!(first["contents"][0]["text"], "1");
    for key in ["ttlMs", "cacheScope", "resultType"] {
        assert!(first.get(key).is_none(), "{key} is not known there");
    }
    assert_eq!(legacy.result("resources/read", json!({ "uri": "a:public" })), first, "the same once more");
    assert_eq!(read(&ModernClient::new(address), "a:public"), "1");
}

#[test]
fn reads_that_meet_wait_for_one() {
    let (began, begins) = std::sync::mpsc::channel();
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new((began, gate));
    let server = counting(move |seen| {
        if seen.method() == "resources/read" && seen.message["params"]["uri"] == "a:other" {
            let gate = gate.lock().expect("no panic in between");
            let _ = gate.0.send(());
            let _ = gate.1.recv();
        }
        Act::Well
    });
    let (_gateway, address, _other) = federation(&server);
    let client = ModernClient::new(address);
    read(&client, "a:public");
    let ask = |peer: &mut Peer| {
        client.send_on(peer, &client.message(&json!(1), "resources/read", json!({ "uri": "a:other" })));
    };
    let mut first = Peer::connect(address);
    ask(&mut first);
    begins.recv().expect("the server was asked");
    let mut others: Vec<Peer> = (0..8).map(|_| Peer::connect(address)).collect();
    others.iter_mut().for_each(ask);
    // What was sent before this is being served.
    read(&client, "a:public");
    drop(go);
    for peer in others.iter_mut().chain([&mut first]) {
        assert_eq!(answer_of(&peer.response("POST"))["result"]["contents"][0]["text"], "2");
    }
    assert_eq!(server.of("resources/read").len(), 2);
}

#[test]
fn a_changed_resource_is_read_anew() {
    let listens = Listens::default();
    let server = counting({
        let listens = listens.clone();
        move |seen| listens.act(seen)
    });
    let other = McpServer::good("plain");
    let port = free_port();
    let backend = json!({ "targets": [server.target("new"), other.target("plain")] });
    let _gateway = Setup::new(&mcp(port, backend).to_string()).args(&["--shards", "4"]).start();
    let client = ModernClient::new(local(port));
    let wanted = json!({ "notifications": { "resourceSubscriptions": ["a:public"] } });
    let mut stream = client.stream(9, "subscriptions/listen", wanted);
    assert_eq!(stream.message().expect("a message")["method"], "notifications/subscriptions/acknowledged");
    // Every shard may have kept one by then.
    let seen: Vec<String> = (0..32).map(|_| read(&client, "a:public")).collect();
    assert!(server.of("resources/read").len() <= 4, "one for each shard: {seen:?}");
    let newest = server.of("resources/read").len();
    listens.nth(0).tell("notifications/resources/updated", Some("a:public"));
    assert_eq!(stream.message().expect("a message")["params"]["uri"], "a:public");
    eventually("every shard has heard of it", || {
        (0..16).all(|_| read(&client, "a:public").parse::<usize>().expect("a number") > newest)
    });
    // Others are as good as before.
    let kept: Vec<String> = (0..32).map(|_| read(&client, "a:other")).collect();
    let asked = server.of("resources/read").len();
    listens.nth(0).tell("notifications/resources/updated", Some("a:public"));
    stream.message().expect("a message");
    (0..32).for_each(|round| assert!(kept.contains(&read(&client, "a:other")), "{round}"));
    let others = |seen: &Seen| seen.message["params"]["uri"] == "a:other";
    assert!(server.of("resources/read").iter().filter(|seen| others(seen)).count() <= 4, "{asked}");
}

#[test]
fn one_server_alone_is_asked_each_time() {
    let server = counting(|_| Act::Well);
    let (_gateway, address) = gateway(json!({ "targets": [server.target("new")] }));
    let client = ModernClient::new(address);
    assert_eq!([read(&client, "a:public"), read(&client, "a:public")], ["1", "2"], "it is passed through");
    let (_gateway, address) = gateway(json!({ "targets": [server.target("new")], "cache": { "ttl": "1h" } }));
    let client = ModernClient::new(address);
    assert_eq!([read(&client, "a:public"), read(&client, "a:public")], ["3", "3"], "unless something is kept");
}
