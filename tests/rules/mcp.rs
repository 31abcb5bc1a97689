//! `mcpAuthorization`: what is listed is what may be used, whatever the prefixes, the revision and the shard.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::config;
use crate::support::free_port;
use crate::support::gateway::{Gateway, Setup, local};
use crate::support::listens::Listens;
use crate::support::mcp_client::{McpClient, each};
use crate::support::mcp_server::{Act, McpServer, Offers, Seen};
use crate::support::modern_client::ModernClient;
use crate::support::modern_server::ModernServer;
use crate::support::sse_client::SseClient;

const ADMIN: &str = "Bearer admin";
const GUEST: &str = "Bearer guest";

/// Guests may read; of prompts only `summary`, of resources only what is public. Nobody drops.
fn rules() -> Value {
    json!({ "rules": [
        "request.headers.authorization == 'Bearer admin'",
        "mcp.tool.name in ['read', 'list'] && mcp.tool.target != 'vault'",
        "mcp.prompt.name == 'summary'",
        { "allow": "mcp.resource.name.startsWith('file:///public/')" },
        { "deny": "mcp.tool.name == 'drop'" },
    ] })
}

fn offers() -> Offers {
    let named = |name: &str| json!({ "name": name });
    let resource = |uri: &str| json!({ "uri": uri, "name": uri });
    Offers {
        resources: vec![resource("file:///public/a"), resource("file:///secret/b")],
        prompts: vec![named("summary"), named("persona")],
        ..Offers::tools(&["read", "write", "drop", "list"])
    }
}

/// Prompts and completions, which the plain script has not.
fn script(seen: &Seen) -> Act {
    match seen.method() {
        "prompts/get" => Act::Result(json!({ "messages": [] })),
        "completion/complete" => Act::Result(json!({ "completion": { "values": ["x"] } })),
        "resources/subscribe" | "resources/unsubscribe" => Act::Result(json!({})),
        _ => Act::Well,
    }
}

fn server(name: &str) -> McpServer {
    McpServer::offering(name, offers(), script)
}

fn start(route: Value, backend: Value, shards: &str) -> (Gateway, SocketAddr) {
    let port = free_port();
    let text = config(port, json!({}), route, backend);
    (Setup::new(&text).args(&["--shards", shards]).start(), local(port))
}

/// Every name and URI of the lists.
fn listed(result: impl Fn(&str) -> Value) -> BTreeSet<String> {
    let kinds = [("tools", "name"), ("prompts", "name"), ("resources", "uri")];
    kinds
        .into_iter()
        .flat_map(|(kind, key)| {
            let list = result(&format!("{kind}/list"));
            each(&list[kind], key).into_iter().map(|name| format!("{kind} {name}")).collect::<Vec<_>>()
        })
        .collect()
}

/// The request that uses a thing of [`listed`].
fn using(thing: &str) -> (&'static str, Value) {
    match thing.split_once(' ') {
        Some(("tools", name)) => ("tools/call", json!({ "name": name, "arguments": {} })),
        Some(("prompts", name)) => ("prompts/get", json!({ "name": name })),
        Some((_, uri)) => ("resources/read", json!({ "uri": uri })),
        None => panic!("no thing: {thing}"),
    }
}

/// What of `all` can really be used; the rest must look unknown.
fn usable(all: &BTreeSet<String>, ask: impl Fn(&str, Value) -> Value) -> BTreeSet<String> {
    let works = |thing: &&String| {
        let (method, params) = using(thing);
        let answer = ask(method, params);
        let code = &answer["error"]["code"];
        if !code.is_null() {
            assert!(code == -32602 || code == -32002, "{thing}: {answer}");
            let text = answer["error"]["message"].as_str().unwrap_or_default();
            assert!(text.starts_with("unknown "), "{thing}: {answer}");
        }
        code.is_null()
    };
    all.iter().filter(works).cloned().collect()
}

fn names(things: &BTreeSet<String>) -> Vec<&str> {
    things.iter().map(String::as_str).collect()
}

/// Asks as both callers, in both eras, and gives what guests see.
fn check(address: SocketAddr, all: &BTreeSet<String>) -> BTreeSet<String> {
    let mut seen_by_guests = Vec::new();
    for caller in [ADMIN, GUEST] {
        let client = McpClient::open_as(address, caller);
        let old = listed(|method| client.result(method, json!({})));
        assert_eq!(old, usable(all, |method, params| client.ask(method, params)), "{caller}, with a session");
        let modern = ModernClient::new(address).header("authorization", caller);
        let new = listed(|method| modern.result(method, json!({})));
        let used = usable(all, |method, params| {
            let response = modern.post(method, params);
            crate::support::mcp_client::answer_of(&response)
        });
        assert_eq!(new, used, "{caller}, without sessions");
        assert_eq!(old, new, "{caller}");
        if caller == GUEST {
            seen_by_guests.push(old);
        } else {
            assert!(old.len() > 5 && !old.iter().any(|thing| thing.ends_with("drop")), "{old:?}");
        }
    }
    seen_by_guests.remove(0)
}

fn everything(targets: &Value, mode: &str) -> BTreeSet<String> {
    let (_gateway, address) = start(json!({}), json!({ "targets": targets, "prefixMode": mode }), "1");
    let client = McpClient::open(address);
    listed(|method| client.result(method, json!({})))
}

#[test]
fn what_is_listed_can_be_used_and_nothing_else() {
    let (shop, vault) = (server("shop"), server("vault"));
    let one = json!([shop.target("shop")]);
    let two = json!([shop.target("shop"), vault.target("vault")]);
    for (targets, mode, shards) in [
        (&one, "conditional", "1"),
        (&one, "always", "1"),
        (&two, "conditional", "1"),
        (&two, "conditional", "4"),
        (&two, "never", "1"),
    ] {
        let all = everything(targets, mode);
        let backend = json!({ "targets": targets, "prefixMode": mode });
        let (_gateway, address) = start(json!({ "mcpAuthorization": rules() }), backend, shards);
        let guests = check(address, &all);
        let prefix = if mode == "always" || (mode == "conditional" && targets == &two) { "shop__" } else { "" };
        // The second server's copy of a resource has a URI that says whose it is, and its own name behind that.
        let mut expected = vec![format!("prompts {prefix}summary"), "resources file:///public/a".to_owned()];
        expected.extend([format!("tools {prefix}list"), format!("tools {prefix}read")]);
        if targets == &two {
            expected.push("resources file-vault+file:///public/a".to_owned());
            if mode == "conditional" {
                expected.push("prompts vault__summary".to_owned());
            }
        }
        let expected: BTreeSet<String> = expected.into_iter().collect();
        let marked = |thing: &str| thing.starts_with("resources") && thing.contains("vault");
        let (marked, plain): (BTreeSet<String>, _) = guests.iter().cloned().partition(|thing| marked(thing));
        assert_eq!(marked.len(), usize::from(targets == &two), "{guests:?}");
        let plain: BTreeSet<String> = plain;
        let expected: BTreeSet<String> = expected.into_iter().filter(|thing| !thing.contains("vault+")).collect();
        assert_eq!(names(&plain), names(&expected), "{mode}, {shards} shards");
    }
}

#[test]
fn a_refused_call_does_not_reach_its_target() {
    let server = server("one");
    let backend = json!({ "targets": [server.target("one")] });
    let (_gateway, address) = start(json!({ "mcpAuthorization": rules() }), backend, "1");
    let client = McpClient::open_as(address, GUEST);
    assert_eq!(client.ask("tools/call", json!({ "name": "write" }))["error"]["message"], "unknown tool");
    assert_eq!(client.ask("tools/call", json!({ "name": "nobodys" }))["error"]["message"], "unknown tool");
    assert_eq!(client.ask("resources/subscribe", json!({ "uri": "file:///secret/b" }))["error"]["code"], -32002);
    let reference =
        |name: &str| json!({ "ref": { "type": "ref/prompt", "name": name }, "argument": { "name": "a", "value": "" } });
    assert_eq!(client.ask("completion/complete", reference("persona"))["error"]["message"], "unknown prompt");
    let both = json!({ "ref": { "type": "ref/resource", "name": "summary", "uri": "file:///secret/b" }, "argument": { "name": "a", "value": "" } });
    assert_eq!(client.ask("completion/complete", both)["error"]["message"], "unknown resource");
    for method in ["tools/call", "resources/subscribe", "completion/complete"] {
        assert_eq!(server.count(method), 0, "{method}");
    }
    // A repeated member is read by some as the first, by others as the last.
    let twice = r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"summary","name":"persona"},"argument":{"name":"a","value":""}}}"#;
    assert!(client.post(twice).text().contains("unknown prompt"));
    assert_eq!(client.result("completion/complete", reference("summary"))["completion"]["values"], json!(["x"]));
    assert_eq!(client.result("resources/subscribe", json!({ "uri": "file:///public/a" })), json!({}));
    assert_eq!((server.count("completion/complete"), server.count("resources/subscribe")), (1, 1));
}

#[test]
fn kept_lists_are_shown_to_each_as_they_may_be() {
    let server = server("one");
    let mut target = server.target("one");
    target["cache"] = json!({ "ttl": "1m", "scope": "public" });
    let (_gateway, address) = start(json!({ "mcpAuthorization": rules() }), json!({ "targets": [target] }), "1");
    for _ in 0..3 {
        let admin = McpClient::open_as(address, ADMIN).result("tools/list", json!({}));
        assert_eq!(each(&admin["tools"], "name"), ["read", "write", "list"]);
        let guest = McpClient::open_as(address, GUEST).result("tools/list", json!({}));
        assert_eq!(each(&guest["tools"], "name"), ["read", "list"]);
    }
    assert_eq!(server.count("tools/list"), 1, "the list itself is kept once");
    let modern = ModernClient::new(address).header("authorization", GUEST);
    let list = modern.result("tools/list", json!({}));
    assert_eq!((&list["cacheScope"], each(&list["tools"], "name")), (&json!("private"), vec!["read", "list"]));
}

#[test]
fn rules_that_are_the_same_for_all_leave_lists_public() {
    // It says itself that its lists are for everybody.
    let server = ModernServer::offering("one", offers(), |_| Act::Well);
    let rules = json!({ "rules": [{ "deny": "mcp.tool.name == 'drop'" }] });
    let (_gateway, address) =
        start(json!({ "mcpAuthorization": rules }), json!({ "targets": [server.target("one")] }), "1");
    let list = ModernClient::new(address).result("tools/list", json!({}));
    assert_eq!((&list["cacheScope"], each(&list["tools"], "name")), (&json!("public"), vec!["read", "write", "list"]));
    let prompts = ModernClient::new(address).result("prompts/list", json!({}));
    assert_eq!(prompts["prompts"].as_array().map(Vec::len), Some(2), "a rule about tools says nothing of prompts");
}

#[test]
fn what_is_read_under_rules_about_the_caller_is_told_to_be_its_own() {
    let reads = |seen: &Seen| match seen.method() {
        "resources/read" => {
            let contents = json!([{ "uri": seen.message["params"]["uri"], "text": "x" }]);
            Act::Result(json!({ "contents": contents, "ttlMs": 3_600_000, "cacheScope": "public" }))
        }
        _ => Act::Well,
    };
    let (one, two) = (ModernServer::offering("one", offers(), reads), server("two"));
    let alone = json!([one.target("one")]);
    let both = json!([one.target("one"), two.target("two")]);
    let of_all = json!({ "rules": ["mcp.resource.name.startsWith('file:///public/')"] });
    for (targets, rules, scope) in [
        (&alone, rules(), "private"),
        (&both, rules(), "private"),
        (&alone, of_all.clone(), "public"),
        (&both, of_all, "public"),
    ] {
        let (_gateway, address) = start(json!({ "mcpAuthorization": rules }), json!({ "targets": targets }), "1");
        let client = ModernClient::new(address).header("authorization", GUEST);
        // The second is a kept one, where there are several targets.
        for _ in 0..2 {
            let result = client.result("resources/read", json!({ "uri": "file:///public/a" }));
            assert_eq!(result["cacheScope"], scope, "{targets} {result}");
        }
    }
}

#[test]
fn targets_without_sessions_are_ruled_alike() {
    let (one, two) = (ModernServer::offering("one", offers(), |_| Act::Well), server("two"));
    for targets in [json!([one.target("one")]), json!([one.target("one"), two.target("two")])] {
        let prefix = if targets.as_array().map(Vec::len) == Some(2) { "one__" } else { "" };
        let (_gateway, address) = start(json!({ "mcpAuthorization": rules() }), json!({ "targets": targets }), "1");
        let modern = ModernClient::new(address).header("authorization", GUEST);
        let list = modern.result("tools/list", json!({}));
        let mine: Vec<&str> =
            each(&list["tools"], "name").into_iter().filter(|name| name.starts_with(prefix)).collect();
        assert!(mine.contains(&format!("{prefix}read").as_str()), "{mine:?}");
        assert!(!mine.contains(&format!("{prefix}write").as_str()), "{mine:?}");
        let (status, error) = modern.error("tools/call", json!({ "name": format!("{prefix}write"), "arguments": {} }));
        assert_eq!((status, &error["code"], &error["message"]), (200, &json!(-32602), &json!("unknown tool")));
        modern.call(&format!("{prefix}read"), json!({}));
        let old = McpClient::open_as(address, GUEST);
        let refused = old.ask("tools/call", json!({ "name": format!("{prefix}write") }));
        assert_eq!(refused["error"]["message"], "unknown tool");
        old.call(&format!("{prefix}read"), json!({}));
    }
    assert!(one.seen().iter().all(|seen| seen.tool() != "write"), "nothing refused came through");
}

#[test]
fn a_header_that_disagrees_with_the_body_is_refused_before_rules() {
    let server = server("one");
    let backend = json!({ "targets": [server.target("one")] });
    let (_gateway, address) = start(json!({ "mcpAuthorization": rules() }), backend, "1");
    let client = ModernClient::new(address).header("authorization", GUEST);
    for (said, really) in [("read", "write"), ("write", "read")] {
        let message = client.message(&json!(1), "tools/call", json!({ "name": really, "arguments": {} }));
        let headers: Vec<(String, String)> = client
            .headers_of(&message)
            .into_iter()
            .map(|(name, value)| if name == "mcp-name" { (name, said.to_owned()) } else { (name, value) })
            .collect();
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut peer = crate::support::wire::Peer::connect(address);
        let answer = peer.ask("POST", "/mcp", &headers, message.to_string());
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (400, &json!(-32020)), "{said} {really}");
    }
    assert_eq!(server.count("tools/call"), 0);
}

#[test]
fn listens_are_acknowledged_for_what_may_be_read() {
    let listens = Listens::default();
    let server = ModernServer::offering("one", offers(), move |seen| listens.act(seen));
    let backend = json!({ "targets": [server.target("one")] });
    let (_gateway, address) = start(json!({ "mcpAuthorization": rules() }), backend, "1");
    let granted = |caller: &str| {
        let client = ModernClient::new(address).header("authorization", caller);
        let uris = json!(["file:///public/a", "file:///secret/b"]);
        let wanted = json!({ "notifications": { "resourceSubscriptions": uris } });
        let acknowledged = client.stream(1, "subscriptions/listen", wanted).message().expect("an acknowledgement");
        acknowledged["params"]["notifications"]["resourceSubscriptions"].clone()
    };
    assert_eq!(granted(GUEST), json!(["file:///public/a"]));
    assert_eq!(granted(ADMIN), json!(["file:///public/a", "file:///secret/b"]));
}

#[test]
fn clients_of_2024_are_ruled_alike() {
    let server = server("one");
    let port = free_port();
    let rules = json!({ "mcpAuthorization": { "rules": ["mcp.tool.name == 'read' && request.method == 'POST'"] } });
    let text = config(port, json!({}), rules, json!({ "targets": [server.target("one")] }));
    let _gateway = Gateway::start(&text);
    let mut client = SseClient::open(local(port));
    let list = client.result("tools/list", json!({}));
    assert_eq!(each(&list["tools"], "name"), ["read"]);
    assert_eq!(client.ask(7, "tools/call", json!({ "name": "write" }))["error"]["message"], "unknown tool");
    assert_eq!(client.result("tools/call", json!({ "name": "read" }))["content"][0]["text"], "one: read null");
}

#[test]
fn a_route_and_its_backend_must_both_agree_and_a_reload_counts_at_once() {
    let server = server("one");
    let port = free_port();
    let text = |tool: &str| {
        let rules = |rule: String| json!({ "mcpAuthorization": { "rules": [rule] } });
        let backend = json!({ "mcp": { "targets": [server.target("one")] }, "policies": rules(format!("mcp.tool.name in ['write', '{tool}']")) });
        let route = json!({ "policies": rules("mcp.tool.name in ['read', 'list']".to_owned()), "backends": [backend] });
        crate::support::config::one_listener(port, json!([route])).to_string()
    };
    let gateway = Gateway::start(&text("read"));
    let client = McpClient::open(local(port));
    let tools = || client.result("tools/list", json!({}))["tools"].clone();
    assert_eq!(each(&tools(), "name"), ["read"]);
    assert_eq!(client.ask("tools/call", json!({ "name": "write" }))["error"]["message"], "unknown tool");
    gateway.reload(&text("list"));
    assert_eq!(each(&tools(), "name"), ["list"], "of the same session");
    assert_eq!(client.ask("tools/call", json!({ "name": "read" }))["error"]["message"], "unknown tool");
}

#[test]
fn pages_are_of_what_is_shown() {
    let names: Vec<String> =
        (0..40).map(|number| format!("{}{number}", if number % 4 == 0 { "yes" } else { "no" })).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let server = McpServer::offering("one", Offers::tools(&names), |_| Act::Well);
    let rules = json!({ "mcpAuthorization": { "rules": ["mcp.tool.name.startsWith('yes')"] } });
    let (_gateway, address) = start(rules, json!({ "targets": [server.target("one")], "pageSize": 4 }), "1");
    let client = McpClient::open(address);
    let (mut seen, mut cursor, mut pages) = (Vec::new(), json!(null), 0);
    loop {
        let params = if cursor.is_null() { json!({}) } else { json!({ "cursor": cursor }) };
        let page = client.result("tools/list", params);
        seen.extend(each(&page["tools"], "name").into_iter().map(str::to_owned));
        pages += 1;
        cursor = page["nextCursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!((seen.len(), pages), (10, 3), "{seen:?}");
    assert!(seen.iter().all(|name| name.starts_with("yes")));
}
