//! One list out of many: names, resource URIs, and pages.

use serde_json::{Value, json};

use crate::support::mcp_client::{McpClient, each};
use crate::support::mcp_server::{Act, McpServer, Offers, Seen};
use crate::{federation, gateway, tool_names};

#[test]
fn names_with_underscores_find_their_way() {
    let tools = Offers::tools(&["get_item", "_hidden", "a__b", "__x", "end_"]);
    let names = ["my_target", "my-target", "target2", "a_b_c"];
    let servers: Vec<McpServer> =
        names.iter().map(|name| McpServer::offering(name, tools.clone(), |_| Act::Well)).collect();
    let (_gateway, address) =
        federation(names.iter().zip(&servers).map(|(name, server)| server.target(name)).collect());
    let client = McpClient::open(address);
    let list = client.result("tools/list", json!({}));
    let listed: Vec<String> = tool_names(&list).into_iter().map(str::to_owned).collect();
    assert_eq!(listed.len(), 20);
    for (name, outward) in names
        .iter()
        .flat_map(|name| ["get_item", "_hidden", "a__b", "__x", "end_"].map(|tool| (name, format!("{name}__{tool}"))))
    {
        assert!(listed.contains(&outward), "{outward} is not in {listed:?}");
        let own = outward.strip_prefix(&format!("{name}__")).expect("a prefix");
        assert_eq!(client.call(&outward, json!({ "k": 1 })), format!("{name}: {own} {{\"k\":1}}"));
    }
}

#[test]
fn prefix_modes_mean_what_they_say() {
    let one = McpServer::offering("one", Offers::tools(&["echo", "mine"]), |_| Act::Well);
    let two = McpServer::offering("two", Offers::tools(&["echo", "yours"]), |_| Act::Well);
    let listed = |targets: Value, mode: &str| {
        let (gateway, address) = gateway(json!({ "targets": targets, "prefixMode": mode }));
        let client = McpClient::open(address);
        let list = client.result("tools/list", json!({}));
        (gateway, client, tool_names(&list).join(" "))
    };
    let both = json!([one.target("one"), two.target("two")]);
    let single = json!([one.target("one")]);
    assert_eq!(listed(single.clone(), "conditional").2, "echo mine");
    assert_eq!(listed(both.clone(), "conditional").2, "one__echo one__mine two__echo two__yours");
    let (_gateway, client, names) = listed(single.clone(), "always");
    assert_eq!(names, "one__echo one__mine");
    assert_eq!(client.call("one__mine", json!({})), "one: mine {}");
    let (_gateway, client, names) = listed(both, "never");
    assert_eq!(names, "echo mine yours", "of two equal names the first target's is served");
    assert_eq!(client.call("echo", json!({})), "one: echo {}");
    assert_eq!(client.call("yours", json!({})), "two: yours {}");
    assert_eq!(client.ask("tools/call", json!({ "name": "nobodys" }))["error"]["code"], -32602);
}

#[test]
fn a_tool_is_found_without_prefix_before_anybody_has_listed() {
    let one = McpServer::offering("one", Offers::tools(&["mine"]), |_| Act::Well);
    let two = McpServer::offering("two", Offers::tools(&["yours"]), |_| Act::Well);
    let (_gateway, address) =
        gateway(json!({ "targets": [one.target("one"), two.target("two")], "prefixMode": "never" }));
    assert_eq!(McpClient::open(address).call("yours", json!({})), "two: yours {}");
}

#[test]
fn equal_resource_uris_are_both_readable() {
    let one = McpServer::offering("one", Offers::resources(&["memo:x", "memo:one", "ui://app/x"]), |_| Act::Well);
    let two = McpServer::offering("two_b", Offers::resources(&["memo:x", "memo:two", "ui://app/x"]), |_| Act::Well);
    let (_gateway, address) = federation(vec![one.target("one"), two.target("two_b")]);
    let client = McpClient::open(address);
    let list = client.result("resources/list", json!({}));
    let uris: Vec<&str> = each(&list["resources"], "uri");
    assert_eq!(uris.len(), 6, "{uris:?}");
    let mut unique = uris.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), 6, "{uris:?}");
    assert!(
        ["memo:x", "memo:one", "memo:two", "ui://app/x"].iter().all(|uri| uris.contains(uri)),
        "usable as they are: {uris:?}"
    );
    let owners = ["one", "one", "one", "two_b", "two_b", "two_b"];
    let owns = ["memo:x", "memo:one", "ui://app/x", "memo:x", "memo:two", "ui://app/x"];
    for ((uri, owner), own) in uris.iter().zip(owners).zip(owns) {
        let read = client.result("resources/read", json!({ "uri": uri }));
        assert_eq!(read["contents"][0]["text"], format!("{owner} has {own}"), "{uri}");
        assert_eq!(read["contents"][0]["uri"], *uri, "the answer is about what was asked");
    }
    // Another client may read before it has listed.
    let other = McpClient::open(address);
    assert_eq!(
        other.result("resources/read", json!({ "uri": "memo:two" }))["contents"][0]["text"],
        "two_b has memo:two"
    );
    let unknown = other.ask("resources/read", json!({ "uri": "memo:nobodys" }));
    assert_eq!((&unknown["error"]["code"], &unknown["error"]["data"]["uri"]), (&json!(-32002), &json!("memo:nobodys")));
}

#[test]
fn pages_walk_over_everything_once_in_a_stable_order() {
    // Each target has pages of its own, of another size.
    let paged = |name: &'static str, count: usize, size: usize| {
        McpServer::scripted(name, move |seen| match seen.method() {
            "tools/list" => {
                let from = seen.message["params"]["cursor"]
                    .as_str()
                    .map_or(0, |cursor| cursor.parse().expect("a cursor of ours"));
                let to = count.min(from + size);
                let tools: Vec<Value> =
                    (from..to).map(|n| json!({ "name": format!("t{n}"), "inputSchema": {} })).collect();
                let mut result = json!({ "tools": tools });
                if to < count {
                    result["nextCursor"] = to.to_string().into();
                }
                Act::Result(result)
            }
            _ => Act::Well,
        })
    };
    let (one, two, three) = (paged("one", 7, 2), paged("two", 0, 1), paged("three", 6, 4));
    let targets = json!([one.target("one"), two.target("two"), three.target("three")]);
    let (_gateway, address) = gateway(json!({ "targets": targets, "pageSize": 3 }));
    let client = McpClient::open(address);
    let walk = || {
        let (mut names, mut cursors, mut params) = (Vec::new(), Vec::new(), json!({}));
        loop {
            let page = client.result("tools/list", params);
            let listed = tool_names(&page);
            assert!(listed.len() <= 3, "{listed:?}");
            names.extend(listed.into_iter().map(str::to_owned));
            let Some(cursor) = page.get("nextCursor") else { return (names, cursors) };
            assert_eq!(tool_names(&page).len(), 3, "only the last page may be short");
            cursors.push(cursor.as_str().expect("a string").to_owned());
            params = json!({ "cursor": cursor });
        }
    };
    let (names, cursors) = walk();
    let expected: Vec<String> =
        (0..7).map(|n| format!("one__t{n}")).chain((0..6).map(|n| format!("three__t{n}"))).collect();
    assert_eq!(names, expected);
    assert_eq!(cursors.len(), 4);
    assert_eq!(walk().0, expected);
    let page = client.result("tools/list", json!({ "cursor": cursors[1] }));
    assert_eq!(tool_names(&page), ["one__t6", "three__t0", "three__t1"], "a cursor may be used again");
    let mut tampered = cursors[0].clone().into_bytes();
    let middle = tampered.len() / 2;
    tampered[middle] = if tampered[middle] == b'A' { b'B' } else { b'A' };
    let tampered = String::from_utf8(tampered).expect("ASCII");
    for cursor in [tampered.as_str(), "", "3", &cursors[0][1..], client.session.as_str()] {
        assert_eq!(client.ask("tools/list", json!({ "cursor": cursor }))["error"]["code"], -32602, "{cursor:?}");
    }
    assert_eq!(
        client.ask("resources/list", json!({ "cursor": cursors[0] }))["error"]["code"].as_i64().map(|code| code < 0),
        Some(true)
    );
}

#[test]
fn names_over_the_limit_are_shortened_and_lead_home() {
    let long = format!("{}_end", "long_".repeat(20));
    let other = format!("{}_end2", "long_".repeat(20));
    let umlauts = "ü".repeat(70);
    let own = [long.as_str(), other.as_str(), umlauts.as_str(), "short"];
    let offers = Offers { prompts: own.iter().map(|name| json!({ "name": name })).collect(), ..Offers::tools(&own) };
    let script = |seen: &Seen| match seen.method() {
        "prompts/get" => {
            let text = format!("prompt {}", seen.tool());
            Act::Result(json!({ "messages": [{ "role": "user", "content": { "type": "text", "text": text } }] }))
        }
        "completion/complete" => {
            Act::Result(json!({ "completion": { "values": [seen.message["params"]["ref"]["name"]] } }))
        }
        "initialize" => {
            let result = json!({
                "protocolVersion": "2025-11-25",
                "capabilities": { "tools": {}, "prompts": {}, "completions": {} },
                "serverInfo": { "name": "x", "version": "1" },
            });
            Act::Result(result)
        }
        _ => Act::Well,
    };
    let (one, two) = (McpServer::offering("one", offers.clone(), script), McpServer::offering("two", offers, script));
    let targets = json!([one.target("one"), two.target("two")]);
    let start =
        |mode: &str, length: u32| gateway(json!({ "targets": targets, "prefixMode": mode, "nameLength": length }));
    let listed = |client: &McpClient, kind: &str| -> Vec<String> {
        let list = client.result(&format!("{kind}/list"), json!({}));
        each(&list[kind], "name").into_iter().map(str::to_owned).collect()
    };
    let (_gateway, address) = start("conditional", 64);
    let client = McpClient::open(address);
    let tools = listed(&client, "tools");
    assert_eq!(tools.len(), 8);
    assert!(tools.iter().all(|name| name.chars().count() <= 64), "{tools:?}");
    assert_eq!(listed(&client, "prompts"), tools, "prompts alike");
    let homes: Vec<(&str, &str)> = ["one", "two"].iter().flat_map(|target| own.map(|name| (*target, name))).collect();
    for (outward, (target, name)) in tools.iter().zip(&homes) {
        assert!(outward.starts_with(&format!("{target}__")), "{outward}");
        assert_eq!(client.call(outward, json!({})), format!("{target}: {name} {{}}"));
        let prompt = client.result("prompts/get", json!({ "name": outward }));
        assert_eq!(prompt["messages"][0]["content"]["text"], format!("prompt {name}"));
        let reference =
            json!({ "ref": { "type": "ref/prompt", "name": outward }, "argument": { "name": "a", "value": "" } });
        assert_eq!(client.result("completion/complete", reference)["completion"]["values"], json!([name]));
    }
    assert_eq!(tools[3], "one__short");
    // A gateway that has never listed knows them as well, and gives the same names.
    let (_second, address) = start("conditional", 64);
    let cold = McpClient::open(address);
    assert_eq!(cold.call(&tools[4], json!({})), format!("two: {long} {{}}"));
    assert_eq!(
        cold.result("prompts/get", json!({ "name": tools[2] }))["messages"][0]["content"]["text"],
        format!("prompt {umlauts}")
    );
    assert_eq!(listed(&cold, "tools"), tools);
    let nobody = format!("{}_aaaaaaaa", &tools[0][..55]);
    assert_eq!(cold.call(&nobody, json!({})), format!("one: {} {{}}", &nobody[5..]), "a name that only looks like one");
    // Without prefixes, and with room.
    let (_third, address) = start("never", 64);
    let bare = McpClient::open(address);
    let names = listed(&bare, "tools");
    assert_eq!((names.len(), names[3].as_str()), (4, "short"));
    assert_eq!(bare.call(&names[0], json!({})), format!("one: {long} {{}}"));
    let (_fourth, address) = start("conditional", 256);
    assert_eq!(listed(&McpClient::open(address), "tools")[0], format!("one__{long}"));
}

#[test]
fn one_target_keeps_its_own_names_however_long() {
    let long = "x".repeat(100);
    let server = McpServer::offering("web", Offers::tools(&[&long]), |_| Act::Well);
    for cache in [json!({}), json!({ "ttl": "1h" })] {
        let (_gateway, address) = gateway(json!({ "targets": [server.target("web")], "cache": cache }));
        let client = McpClient::open(address);
        assert_eq!(tool_names(&client.result("tools/list", json!({}))), [long.as_str()]);
        assert_eq!(client.call(&long, json!({})), format!("web: {long} {{}}"));
    }
}
