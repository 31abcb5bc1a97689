//! `agentlane connect`: a client on standard streams, remote servers of every transport.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::{Value, json};
use support::PATIENCE;
use support::config::mcp;
use support::gateway::{BINARY, Gateway, local, run};
use support::mcp_client::{each, message, text_of};
use support::mcp_server::{Act, McpServer, Offers, begin_events, event};
use support::modern_client::ModernClient;
use support::modern_server::ModernServer;
use support::sse_server::SseServer;
use support::{eventually, free_port};

/// A client's side of the process.
struct Client {
    process: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Client {
    #[track_caller]
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(BINARY);
        command.arg("connect").args(arguments).env_remove("AGENTLANE_LOG");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut process = command.spawn().expect("the binary");
        let output = BufReader::new(process.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Client { input: process.stdin.take(), process, lines }
    }

    /// An open session with a remote.
    #[track_caller]
    fn open(url: &str, revision: &str) -> Self {
        let mut client = Client::start(&[url]);
        let result = client.ask(0, "initialize", initialize_params(revision));
        assert_eq!(result["result"]["protocolVersion"], revision, "{result}");
        client.tell(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        client
    }

    #[track_caller]
    fn say(&mut self, line: &str) {
        let input = self.input.as_mut().expect("open");
        input.write_all(line.as_bytes()).and_then(|()| input.write_all(b"\n")).expect("it reads");
    }

    #[track_caller]
    fn tell(&mut self, message: &Value) {
        self.say(&message.to_string());
    }

    #[track_caller]
    fn message(&mut self) -> Value {
        let line = self.lines.recv_timeout(PATIENCE).expect("a line in time");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// The answer to a request; nothing else may come before it.
    #[track_caller]
    fn ask(&mut self, id: u64, method: &str, params: Value) -> Value {
        self.say(&message(id, method, params));
        let answer = self.message();
        assert_eq!(answer["id"], id, "{answer}");
        answer
    }

    #[track_caller]
    fn call(&mut self, tool: &str, arguments: Value) -> String {
        let answer = self.ask(1, "tools/call", json!({ "name": tool, "arguments": arguments }));
        assert!(answer.get("error").is_none(), "{answer}");
        text_of(&answer["result"])
    }

    /// Ends the input; gives the exit code and what was still said.
    #[track_caller]
    fn end(mut self) -> (Option<i32>, Vec<Value>) {
        drop(self.input.take());
        let code = self.wait();
        (code, self.lines.iter().map(|line| serde_json::from_str(&line).expect("a message")).collect())
    }

    #[track_caller]
    fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().expect("a child") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn initialize_params(revision: &str) -> Value {
    json!({
        "protocolVersion": revision,
        "capabilities": { "sampling": {}, "elicitation": {}, "roots": {} },
        "clientInfo": { "name": "test", "version": "1" },
    })
}

fn url(server: &McpServer) -> String {
    format!("http://{}/mcp", server.address)
}

fn said(text: &str) -> Value {
    json!({ "content": [{ "type": "text", "text": text }] })
}

#[test]
fn both_directions_over_two_streams() {
    let server = McpServer::scripted("web", |seen| match (seen.verb.as_str(), seen.tool()) {
        ("GET", _) => Act::Own(Box::new(|peer| {
            let changed = json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" });
            peer.send(begin_events() + &event(&changed));
            let _ = peer.rest();
        })),
        (_, "work") => {
            let id = seen.id().clone();
            Act::Own(Box::new(move |peer| {
                let ask = json!({ "jsonrpc": "2.0", "id": "ask", "method": "sampling/createMessage", "params": {} });
                let answer = json!({ "jsonrpc": "2.0", "id": id, "result": said("done") });
                // Broken over lines, as JSON may be.
                let pretty = format!("{answer:#}").replace('\n', "\ndata: ");
                let last = support::upstream::chunk(&format!("data: {pretty}\n\n"));
                peer.send(begin_events() + &event(&ask) + &last + "0\r\n\r\n");
            }))
        }
        _ => Act::Well,
    });
    let mut client = Client::open(&url(&server), "2025-11-25");
    assert_eq!(client.message()["method"], "notifications/tools/list_changed", "of the stream beside the calls");
    assert_eq!(client.call("echo", json!({ "a": "zażółć 🦀" })), "web: echo {\"a\":\"zażółć 🦀\"}");
    client.say(&message(7, "tools/call", json!({ "name": "work", "arguments": {} })));
    let asked = client.message();
    assert_eq!(asked["method"], "sampling/createMessage");
    let done = client.message();
    assert_eq!((&done["id"], text_of(&done["result"]).as_str()), (&json!(7), "done"));
    client.tell(&json!({ "jsonrpc": "2.0", "id": asked["id"], "result": { "text": "yes" } }));
    let answered = server.await_seen("the answer", |seen| seen.message["result"]["text"] == "yes");
    assert_eq!(answered.message["id"], "ask");
    let session = answered.session.expect("a session");
    assert_eq!(client.end(), (Some(0), vec![]));
    let ended = server.await_seen("the end", |seen| seen.verb == "DELETE");
    assert_eq!((ended.session, server.sessions()), (Some(session), 1));
}

#[test]
fn every_revision_and_both_transports() {
    let (web, old) = (McpServer::good("web"), SseServer::good("old"));
    for revision in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let mut client = Client::open(&url(&web), revision);
        assert_eq!(client.call("echo", json!({})), "web: echo {}", "{revision}");
        let mut client = Client::open(&format!("http://{}/sse", old.address), revision);
        assert_eq!(client.call("echo", json!({})), "old: echo {}", "{revision}");
        assert_eq!(client.end().0, Some(0));
    }
    eventually("no conversation is left", || old.ended() == old.conversations());
}

#[test]
fn a_remote_without_sessions() {
    let server = ModernServer::good("new");
    let url = format!("http://{}/mcp", server.address);
    for pinned in [&[][..], &["--protocol", "modern"]] {
        let mut client = Client::start(&[pinned, &[url.as_str()]].concat());
        let result = client.ask(0, "initialize", initialize_params("2025-06-18"));
        assert_eq!(result["result"]["protocolVersion"], "2025-06-18", "{result}");
        assert_eq!(client.call("echo", json!({})), "new: echo {}");
        assert_eq!(client.end().0, Some(0));
    }
    let tried = server.of("initialize").len();
    let mut client = Client::start(&["--protocol", "legacy", &url]);
    assert_eq!(client.ask(0, "initialize", initialize_params("2025-06-18"))["error"]["code"], -32603);
    assert!(server.of("initialize").len() > tried);
}

/// A request of 2026-07-28, of a client that can do everything.
fn modern(id: u64, method: &str, params: Value) -> String {
    let anywhere = local(1);
    ModernClient::new(anywhere).message(&json!(id), method, params).to_string()
}

#[test]
fn a_client_of_2026_07_28_before_a_remote_of_its_revision() {
    let tool = json!({ "name": "echo", "inputSchema": { "type": "object", "properties": {
        "region": { "type": "string", "x-mcp-header": "Region" },
    } } });
    let offers = Offers { tools: vec![tool], ..Offers::default() };
    let server = ModernServer::offering("new", offers, |seen| match seen.tool() {
        "steps" => {
            let token = &seen.message["params"]["_meta"]["progressToken"];
            let params = json!({ "progressToken": token, "progress": 1 });
            let progress = json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params });
            let mut result = said("done");
            result["resultType"] = "complete".into();
            Act::Events(vec![progress, json!({ "jsonrpc": "2.0", "id": seen.id(), "result": result })])
        }
        "forever" => Act::Own(Box::new(|peer| {
            peer.send(begin_events());
            assert_eq!(peer.rest().as_deref(), Some(&[][..]), "the client closes it");
        })),
        _ => Act::Well,
    });
    let mut client = Client::start(&[&format!("http://{}/mcp", server.address)]);
    let ask = |client: &mut Client, id: u64, method: &str, params: Value| {
        client.say(&modern(id, method, params));
        let answer = client.message();
        assert_eq!(answer["id"], id, "{answer}");
        answer["result"].clone()
    };
    let found = ask(&mut client, 1, "server/discover", json!({}));
    assert_eq!(found["supportedVersions"], json!(["2026-07-28"]), "{found}");
    let list = ask(&mut client, 2, "tools/list", json!({}));
    assert_eq!(each(&list["tools"], "name"), ["echo"], "{list}");
    let arguments = json!({ "region": "zażółć" });
    let called = ask(&mut client, 3, "tools/call", json!({ "name": "echo", "arguments": arguments }));
    assert_eq!(text_of(&called), format!("new: echo {arguments}"));
    let call = server.of("tools/call").pop().expect("a call");
    let header = |name: &str| call.request.head.get(name).map(str::to_owned);
    assert_eq!((header("mcp-method").as_deref(), header("mcp-name").as_deref()), (Some("tools/call"), Some("echo")));
    assert_eq!(header("mcp-param-region").as_deref(), Some("=?base64?emHFvMOzxYLEhw==?="), "known from the list");
    assert_eq!(call.session, None);

    let params = json!({ "name": "steps", "arguments": {}, "_meta": { "progressToken": "mine" } });
    client.say(&modern(4, "tools/call", params));
    assert_eq!(client.message()["params"]["progressToken"], "mine");
    assert_eq!(client.message()["id"], 4);

    client.say(&modern(5, "tools/call", json!({ "name": "forever", "arguments": {} })));
    server.await_seen("the call", |seen| seen.tool() == "forever");
    client.tell(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 5 } }));
    let unknown = ModernClient::new(local(1)).message(&json!(6), "no/such", json!({}));
    client.tell(&unknown);
    let answer = client.message();
    assert_eq!(
        (&answer["id"], &answer["error"]["code"]),
        (&json!(6), &json!(-32601)),
        "and nothing of the cancelled one"
    );
    assert_eq!(client.end(), (Some(0), vec![]));
}

/// A server with sessions whose tool `ask` asks the user for a colour and says it.
fn asking() -> McpServer {
    let told = Arc::new(Mutex::new(None::<Value>));
    McpServer::offering("web", Offers::tools(&["ask", "echo"]), move |seen| {
        if seen.message.get("method").is_none() && seen.verb == "POST" {
            *told.lock().expect("no panic in between") = Some(seen.message["result"]["content"].clone());
            return Act::Well;
        }
        if seen.tool() != "ask" {
            return Act::Well;
        }
        let (id, told) = (seen.id().clone(), told.clone());
        Act::Own(Box::new(move |peer| {
            let params = json!({ "message": "colour?", "requestedSchema": { "type": "object", "properties": {} } });
            let ask = json!({ "jsonrpc": "2.0", "id": "ask", "method": "elicitation/create", "params": params });
            peer.send(begin_events() + &event(&ask));
            let mut answer = None;
            eventually("the answer", || {
                answer = told.lock().expect("no panic in between").take();
                answer.is_some()
            });
            let answer = said(&answer.expect("there").to_string());
            peer.send(event(&json!({ "jsonrpc": "2.0", "id": id, "result": answer })) + "0\r\n\r\n");
        }))
    })
}

#[test]
fn a_client_of_2026_07_28_before_a_remote_with_sessions() {
    let server = asking();
    let mut client = Client::start(&[&url(&server)]);
    client.say(&modern(1, "tools/list", json!({})));
    let list = client.message();
    assert_eq!(each(&list["result"]["tools"], "name"), ["ask", "echo"], "{list}");
    client.say(&modern(2, "tools/call", json!({ "name": "echo", "arguments": {} })));
    assert_eq!(text_of(&client.message()["result"]), "web: echo {}");
    let ask = json!({ "name": "ask", "arguments": {} });
    client.say(&modern(4, "tools/call", ask.clone()));
    let asked = client.message()["result"].clone();
    assert_eq!(asked["resultType"], "input_required", "{asked}");
    let key =
        asked["inputRequests"].as_object().and_then(|requests| requests.keys().next()).expect("a question").clone();
    let mut retry = ask;
    retry["requestState"] = asked["requestState"].clone();
    retry["inputResponses"] = json!({ key: { "action": "accept", "content": { "colour": "red" } } });
    client.say(&modern(5, "tools/call", retry));
    let answered = client.message();
    assert_eq!((&answered["id"], text_of(&answered["result"]).as_str()), (&json!(5), "{\"colour\":\"red\"}"));
    client.say(&message(3, "tools/list", json!({})));
    assert_eq!(client.message()["error"]["code"], -32600, "without an envelope and without a session");
    assert_eq!(client.end().0, Some(0));
    let ended = server.seen().iter().filter(|seen| seen.verb == "DELETE").count();
    assert_eq!((ended, server.sessions() > 0), (server.sessions(), true), "what was opened for it is ended");
}

#[test]
fn a_gateway_at_the_other_end() {
    let web = McpServer::good("web");
    let port = free_port();
    let notes = json!({ "name": "notes", "stdio": { "cmd": BINARY, "args": ["demo-notes"] } });
    let gateway = Gateway::start(&mcp(port, json!({ "targets": [web.target("web"), notes] })).to_string());
    for path in ["mcp", "sse"] {
        let mut client = Client::open(&format!("http://{}/{path}", local(port)), "2025-06-18");
        let list = client.ask(1, "tools/list", json!({}));
        assert!(each(&list["result"]["tools"], "name").contains(&"notes__add_note"), "{list}");
        assert_eq!(client.call("web__echo", json!({})), "web: echo {}");
        assert_eq!(client.end().0, Some(0));
    }
    eventually("its sessions have ended", || gateway.metric("agentlane_mcp_sessions", "") == 0.0);
}

#[test]
fn requests_run_beside_each_other_and_can_be_cancelled() {
    let server = McpServer::scripted("web", |seen| match seen.tool() {
        "forever" => Act::Own(Box::new(|peer| {
            peer.send(begin_events());
            let _ = peer.rest();
        })),
        _ => Act::Well,
    });
    let mut client = Client::open(&url(&server), "2025-06-18");
    client.say(&message(5, "tools/call", json!({ "name": "forever" })));
    server.await_seen("the call", |seen| seen.tool() == "forever");
    for number in 0..20 {
        client.say(&message(100 + number, "tools/call", json!({ "name": "echo", "arguments": number })));
    }
    let mut ids: Vec<u64> = (0..20).map(|_| client.message()["id"].as_u64().expect("an id")).collect();
    ids.sort_unstable();
    assert_eq!(ids, (100..120).collect::<Vec<u64>>());
    client.tell(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 5 } }));
    server.await_seen("the cancellation", |seen| seen.method() == "notifications/cancelled");
    let cancelled = client.message();
    assert_eq!((&cancelled["id"], &cancelled["error"]["code"]), (&json!(5), &json!(-32800)));
}

#[test]
fn nothing_is_met_with_silence() {
    let gone = local(free_port());
    let mut client = Client::start(&[&format!("http://{gone}/mcp")]);
    let answer = client.ask(1, "initialize", initialize_params("2025-06-18"));
    assert_eq!(answer["error"]["code"], -32603, "{answer}");
    assert_eq!(client.ask(2, "tools/list", json!({}))["error"]["code"], -32600);
    assert_eq!(client.ask(3, "ping", json!({}))["result"], json!({}));
    for (line, code) in
        [("nonsense", -32700), ("{\"id\":4,\"jsonrpc\":\"1.0\"}", -32600), ("[]", -32600), ("\"x\"", -32600)]
    {
        client.say(line);
        let refused = client.message();
        assert_eq!(refused["error"]["code"], code, "{line}: {refused}");
        assert_eq!(refused.get("id"), line.contains("id").then_some(&json!(4)), "an unknown id is left out");
    }
    assert_eq!(client.end(), (Some(0), vec![]));

    let server = McpServer::scripted("web", |seen| match seen.tool() {
        "close" => Act::Close,
        _ => Act::Well,
    });
    let mut client = Client::open(&url(&server), "2025-06-18");
    let broken = client.ask(6, "tools/call", json!({ "name": "close" }));
    assert_eq!(broken["result"]["isError"], true, "{broken}");
    assert_eq!(client.call("echo", json!({})), "web: echo {}");
}

#[test]
fn a_whole_script_on_standard_input() {
    let server = McpServer::good("web");
    let mut client = Client::start(&[&url(&server)]);
    client.say(&message(1, "initialize", initialize_params("2025-03-26")));
    client.say(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }).to_string());
    client.say(&message(2, "tools/list", json!({})));
    client.say(&format!("[{},{}]", message(3, "ping", json!({})), message(4, "ping", json!({}))));
    let (code, mut messages) = client.end();
    assert_eq!((code, messages.len()), (Some(0), 3), "{messages:?}");
    assert_eq!(messages.remove(0)["id"], 1);
    let batch = messages.iter().find(|message| message.is_array()).expect("a batch is answered as one");
    assert_eq!(batch.as_array().map(Vec::len), Some(2));
    assert!(messages.iter().any(|message| message["id"] == 2));
    server.await_seen("the end", |seen| seen.verb == "DELETE");
}

#[test]
fn headers_go_along() {
    let server = McpServer::good("web");
    let arguments = ["--header", "Authorization: Bearer $HOME", "--header", "x-two:  a: b ", &url(&server)];
    let mut client = Client::start(&arguments);
    client.ask(1, "initialize", initialize_params("2025-06-18"));
    client.call("echo", json!({}));
    assert_eq!(client.end().0, Some(0));
    let seen = server.seen();
    assert!(seen.len() >= 3, "{}", seen.len());
    for one in seen {
        let header = |name| one.request.head.get(name).map(str::to_owned);
        assert_eq!(header("authorization").as_deref(), Some("Bearer $HOME"), "{}", one.method());
        assert_eq!(header("x-two").as_deref(), Some("a: b"));
    }
}

#[test]
fn a_signal_ends_it_like_the_end_of_its_input() {
    let server = McpServer::scripted("web", |seen| match seen.tool() {
        "forever" => Act::Silence,
        _ => Act::Well,
    });
    let mut client = Client::open(&url(&server), "2025-06-18");
    client.say(&message(5, "tools/call", json!({ "name": "forever" })));
    server.await_seen("the call", |seen| seen.tool() == "forever");
    let pid = i32::try_from(client.process.id()).expect("an id");
    // SAFETY: kill(2) has no memory effects; the child is not waited for yet.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
    assert_eq!(client.wait(), Some(0));
    server.await_seen("the end", |seen| seen.verb == "DELETE");
}

#[test]
fn wrong_command_lines_say_what_is_wrong() {
    let cases: [(&[&str], &str); 6] = [
        (&["connect", "--protocol", "1999-12-31", "http://a"], "auto"),
        (&["connect"], "required"),
        (&["connect", "nonsense://a"], "URL"),
        (&["connect", "--header", "nonsense", "http://a"], "Name: value"),
        (&["connect", "--header", "a b: c", "http://a"], "header"),
        (&["connect", "--header", "Host: c", "http://a"], "host"),
    ];
    for (arguments, wanted) in cases {
        let ended = run(arguments, &[]);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(ended.stderr.contains(wanted), "{arguments:?}: {}", ended.stderr);
    }
    assert!(run(&["connect", "--help"], &[]).stdout.contains("mcpServers"), "how a client is told");
}
