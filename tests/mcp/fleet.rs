//! Stdio children as a fleet: spares, idle ones, hung ones, hogs, and what each may use.

use serde_json::{Value, json};

use crate::gateway;
use crate::support::gateway::Gateway;
use crate::support::mcp_client::{McpClient, text_of};
use crate::support::stdio_server::target;
use crate::support::{children_of, eventually, exists};

const MODES: [&str; 2] = ["perSession", "shared"];

#[track_caller]
fn pid_of(client: &McpClient, tool: &str) -> u32 {
    client.call(tool, json!({})).parse().expect("a process id")
}

/// The text of a call that must fail, as a model reads it.
#[track_caller]
fn failure(client: &McpClient, tool: &str) -> String {
    let result = client.result("tools/call", json!({ "name": tool, "arguments": {} }));
    assert_eq!(result["isError"], true, "{result}");
    text_of(&result)
}

fn alone(stdio: Value) -> (Gateway, McpClient) {
    let (gateway, address) = gateway(json!({ "targets": [target("one", stdio)] }));
    let client = McpClient::open(address);
    (gateway, client)
}

fn kill(pid: u32) {
    // SAFETY: kill(2) has no memory effects; the gateway reaps its child only after its end.
    assert_eq!(unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) }, 0);
}

#[test]
fn a_hung_child_is_replaced() {
    for mode in MODES {
        let (gateway, client) = alone(json!({ "mode": mode, "hungAfter": "400ms" }));
        let hung = pid_of(&client, "pid");
        let told = failure(&client, "hang");
        assert!(told.contains("Whether the call had an effect is unknown"), "{told}");
        eventually("the log says so", || gateway.stderr().contains("a child owes answers"));
        assert_ne!(pid_of(&client, "pid"), hung, "{mode}: the next call has another child");
        eventually("the hung child is gone", || !exists(hung));
        assert_eq!(children_of(gateway.pid()).len(), 1);
    }
}

#[test]
fn a_long_call_is_no_hung_child() {
    // An error is an answer as well.
    for ping in ["answer", "refuse"] {
        let (_gateway, client) = alone(json!({ "hungAfter": "200ms", "env": { "PING": ping } }));
        let before = pid_of(&client, "pid");
        assert_eq!(client.call("long", json!({})), "after 3 pings");
        assert_eq!(pid_of(&client, "pid"), before, "{ping}");
    }
}

#[test]
fn an_idle_child_is_ended_and_started_again() {
    for mode in MODES {
        let (gateway, client) = alone(json!({ "mode": mode, "idleTimeout": "300ms" }));
        let mut last = 0;
        // More often than a child may crash without a pause.
        for _ in 0..4 {
            let pid = pid_of(&client, "pid");
            assert_ne!(pid, last);
            last = pid;
            eventually("the idle child is gone", || children_of(gateway.pid()).is_empty());
        }
        let list = client.result("tools/list", json!({}));
        assert_eq!(list["tools"][0]["name"], "pid", "{mode}: {list}");
        assert!([200, 204].contains(&client.end().status));
        eventually("nothing is left", || children_of(gateway.pid()).is_empty());
    }
}

#[test]
fn a_child_with_a_subscription_is_not_idle() {
    let resource = json!({ "RESOURCES": json!({ "uri": "memo:x", "name": "x" }).to_string() });
    let held = target("held", json!({ "idleTimeout": "200ms", "env": resource }));
    let free = target("free", json!({ "idleTimeout": "200ms" }));
    let (gateway, address) = gateway(json!({ "targets": [held, free] }));
    let client = McpClient::open(address);
    client.result("resources/subscribe", json!({ "uri": "memo:x" }));
    let held = pid_of(&client, "held__pid");
    for _ in 0..4 {
        let free = pid_of(&client, "free__pid");
        eventually("the other child is gone", || !exists(free));
    }
    assert!(exists(held), "{}", gateway.stderr());
    client.result("resources/unsubscribe", json!({ "uri": "memo:x" }));
    eventually("nobody holds it any more", || children_of(gateway.pid()).is_empty());
}

#[test]
fn spares_are_ready_before_anybody_comes() {
    let (gateway, address) = gateway(json!({ "targets": [target("one", json!({ "warm": 2 }))] }));
    eventually("two spares", || children_of(gateway.pid()).len() == 2);
    let spares = children_of(gateway.pid());
    let client = McpClient::open(address);
    let used = pid_of(&client, "pid");
    assert!(spares.contains(&used), "{used} of {spares:?}");
    eventually("another spare", || children_of(gateway.pid()).len() == 3);
    kill(used);
    eventually("it is gone", || !exists(used));
    assert!(spares.contains(&pid_of(&client, "pid")), "the other spare takes its place");
    let children = children_of(gateway.pid());
    let ended = gateway.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(children.iter().all(|&child| !exists(child)), "an orphan is left");
}

#[test]
fn a_killed_child_costs_no_pause() {
    for mode in MODES {
        let (_gateway, client) =
            alone(json!({ "mode": mode, "restart": { "backoffMin": "60s", "backoffMax": "60s" } }));
        let killed = pid_of(&client, "pid");
        kill(killed);
        eventually("it is gone", || !exists(killed));
        assert_ne!(pid_of(&client, "pid"), killed, "{mode}");
    }
}

#[test]
fn a_hog_takes_only_itself_down() {
    let hog = target("hog", json!({ "limits": { "memory": "64Mi", "files": 64, "cpu": 1 } }));
    let (gateway, address) = gateway(json!({ "targets": [hog, target("calm", json!({}))] }));
    let client = McpClient::open(address);
    let (first, calm) = (pid_of(&client, "hog__pid"), pid_of(&client, "calm__pid"));
    assert!(failure(&client, "hog__hog").contains("hog"));
    assert_ne!(pid_of(&client, "hog__pid"), first);
    assert_eq!(pid_of(&client, "calm__pid"), calm);
    assert_eq!(gateway.stderr().matches("limits of children are held by").count(), 1, "{}", gateway.stderr());
}

#[test]
fn the_network_can_be_denied() {
    let open = target("open", json!({}));
    let denied = target("denied", json!({ "network": "deny" }));
    let (gateway, address) = gateway(json!({ "targets": [open, denied] }));
    let client = McpClient::open(address);
    assert_ne!(client.call("open__nets", json!({})), "", "the host's interfaces");
    let result = client.result("tools/call", json!({ "name": "denied__nets", "arguments": {} }));
    match result["isError"] == true {
        false => assert_eq!(text_of(&result), "1", "loopback alone"),
        true => assert!(gateway.stderr().contains("network: deny cannot be held"), "{}", gateway.stderr()),
    }
}

#[test]
fn standard_error_names_the_call() {
    let (gateway, client) = alone(json!({ "mode": "shared" }));
    assert_eq!(client.call("stderr", json!({})), "done");
    eventually("the line", || gateway.stderr().contains("stderr: working hard"));
    let log = gateway.stderr();
    let line = log.lines().find(|line| line.contains("working hard")).expect("the line");
    assert!(
        line.contains("target=\"one\"") && line.contains("method=\"tools/call\"") && line.contains("id=1"),
        "{line}"
    );
    // The access log calls the session by the same name.
    let after = |text: &str| Some(text.split_once("session=")?.1.split_ascii_whitespace().next()?.to_owned());
    let named = after(line).expect("a session");
    eventually("the record", || gateway.stdout().contains(&format!("session={named}")));
}
