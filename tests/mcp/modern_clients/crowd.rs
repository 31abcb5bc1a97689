//! Calls that wait for their clients, over four shards: found from everywhere, and nothing of them stays.

use serde_json::{Value, json};

use super::{asking_server, elicitation, nothing_waits};
use crate::support::config::mcp;
use crate::support::gateway::{Setup, local};
use crate::support::mcp_client::{answer_of, text_of};
use crate::support::mcp_server::{Act, McpServer, begin_events, event};
use crate::support::modern_client::ModernClient;
use crate::support::wire::Peer;
use crate::support::{eventually, free_port};

/// Four shards: questions come from whichever the first request reached, and answers reach whichever they like.
#[test]
fn retries_find_the_shard_that_waits() {
    let server = asking_server("old", vec![elicitation(5, "name?")]);
    let port = free_port();
    let config = mcp(port, json!({ "targets": [server.target("old")] })).to_string();
    let gateway = Setup::new(&config).args(&["--shards", "4"]).start();
    let client = ModernClient::new(local(port));
    let mut busy = Peer::connect(local(port));
    for round in 0..24 {
        let params = json!({ "name": "ask", "arguments": { "round": round } });
        let asked = client.result("tools/call", params.clone());
        let key = asked["inputRequests"].as_object().expect("requests").keys().next().expect("one").clone();
        let mut retry = params;
        retry["requestState"] = asked["requestState"].clone();
        retry["inputResponses"] = json!({ key: { "action": "accept", "content": { "round": round } } });
        // In turn over a connection that has served others, and over new ones.
        let message = client.message(&json!("again"), "tools/call", retry);
        let response = match round % 2 {
            0 => client.post_on(&mut busy, &message),
            _ => client.post_on(&mut Peer::connect(local(port)), &message),
        };
        let answer = answer_of(&response);
        assert_eq!(answer["id"], "again", "{answer}");
        let told: Value = serde_json::from_str(&text_of(&answer["result"])).expect("the answers");
        assert_eq!(told, json!([{ "action": "accept", "content": { "round": round } }]));
    }
    assert!(gateway.metric("agentlane_requests_forwarded_total", "") > 0.0, "some had to travel");
    nothing_waits(&gateway);
}

/// A client that leaves while its retry is served by another shard is noticed there.
#[test]
fn a_client_that_leaves_a_forwarded_retry_cancels() {
    let server = McpServer::scripted("old", |seen| match (seen.tool(), seen.message["id"].clone()) {
        ("ask", id) => Act::Own(Box::new(move |peer| {
            peer.send(begin_events());
            peer.send(event(&elicitation(5, &id.to_string())));
            let _ = peer.rest();
        })),
        _ => Act::Well,
    });
    let port = free_port();
    let config = mcp(port, json!({ "targets": [server.target("old")] })).to_string();
    let gateway = Setup::new(&config).args(&["--shards", "4"]).start();
    let client = ModernClient::new(local(port));
    let mut left = 0;
    while gateway.metric("agentlane_requests_forwarded_total", "") < 1.0 {
        let params = json!({ "name": "ask" });
        let asked = client.result("tools/call", params.clone());
        let key = asked["inputRequests"].as_object().expect("requests").keys().next().expect("one").clone();
        let mut retry = params;
        retry["requestState"] = asked["requestState"].clone();
        retry["inputResponses"] = json!({ key: { "action": "decline" } });
        let answers = || server.seen().iter().filter(|seen| seen.message["result"]["action"] == "decline").count();
        let mut peer = Peer::connect(local(port));
        client.send_on(&mut peer, &client.message(&json!(2), "tools/call", retry));
        eventually("the target is answered", || answers() == left + 1);
        drop(peer);
        left += 1;
        eventually("the call is cancelled", || server.count("notifications/cancelled") == left);
        assert!(left < 100, "the kernel leaves a shard out");
    }
    eventually("no session is left", || gateway.metric("agentlane_mcp_leases", "") == 0.0);
}

/// Many clients at once that answer, decline, leave at every stage or never come back, over four shards: each that stays gets
/// its own answer, and nothing is left behind.
#[test]
fn a_crowd_leaves_nothing_behind() {
    let server = asking_server("old", vec![elicitation(5, "name?")]);
    let port = free_port();
    let backend = json!({ "targets": [server.target("old")], "inputTimeout": "1s", "sessionIdleTimeout": "1s" });
    let gateway = Setup::new(&mcp(port, backend).to_string()).args(&["--shards", "4"]).start();
    std::thread::scope(|scope| {
        for number in 0..6 {
            scope.spawn(move || {
                let client = ModernClient::new(local(port)).header("authorization", &format!("Bearer {}", number % 3));
                for round in 0..10 {
                    one_of_a_crowd(&client, &format!("{number}-{round}"), round % 5);
                }
            });
        }
    });
    nothing_waits(&gateway);
    eventually("every session has ended", || gateway.metric("agentlane_mcp_leases", "") == 0.0);
    let deleted = || {
        let gone = server.seen().into_iter().filter(|seen| seen.verb == "DELETE").filter_map(|seen| seen.session);
        gone.collect::<std::collections::HashSet<_>>().len()
    };
    eventually("the target is told of every end", || deleted() == server.sessions());
    let ended = gateway.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
}

fn one_of_a_crowd(client: &ModernClient, who: &str, fate: usize) {
    let params = json!({ "name": "ask", "arguments": { "who": who } });
    let mut peer = Peer::connect(client.address);
    client.send_on(&mut peer, &client.message(&json!(who), "tools/call", params.clone()));
    if fate == 0 {
        // Gone before anything was asked, or just then.
        return;
    }
    let asked = answer_of(&peer.response("POST"))["result"].clone();
    if fate == 1 {
        return;
    }
    let key = asked["inputRequests"].as_object().expect("requests").keys().next().expect("one").clone();
    let mut retry = params;
    retry["requestState"] = asked["requestState"].clone();
    let answer = json!({ "action": "accept", "content": { "who": who } });
    if fate != 2 {
        retry["inputResponses"] = json!({ key.clone(): answer });
    }
    let mut peer = Peer::connect(client.address);
    client.send_on(&mut peer, &client.message(&json!(who), "tools/call", retry.clone()));
    if fate == 3 {
        return;
    }
    let mut result = answer_of(&peer.response("POST"))["result"].clone();
    if fate == 2 {
        retry["requestState"] = result["requestState"].clone();
        retry["inputResponses"] = json!({ key: answer });
        result = client.call_with(retry);
    }
    assert_eq!(text_of(&result), json!([{ "action": "accept", "content": { "who": who } }]).to_string());
}
