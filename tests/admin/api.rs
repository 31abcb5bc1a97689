//! The admin API: what it tells and changes, and whom it refuses.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::config::mcp;
use crate::support::gateway::{Gateway, Setup, ask_own, local};
use crate::support::mcp_client::McpClient;
use crate::support::mcp_server::McpServer;
use crate::support::wire::Peer;
use crate::support::{eventually, free_port};

const JSON: (&str, &str) = ("content-type", "application/json");

/// A gateway with two shards and its admin server.
fn served(config: &Value) -> (Gateway, SocketAddr) {
    let address = local(free_port());
    let setup = Setup::new(&config.to_string()).args(&["--shards", "2"]);
    (setup.env("ADMIN_ADDR", address.to_string()).start(), address)
}

#[track_caller]
fn get(address: SocketAddr, path: &str) -> Value {
    let response = ask_own(address, "GET", path, &[], "");
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    assert_eq!(
        (response.get("content-type"), response.get("cache-control")),
        (Some("application/json"), Some("no-store"))
    );
    serde_json::from_str(response.text()).expect("an answer is JSON")
}

#[test]
fn it_tells_what_runs() {
    let (server, port) = (McpServer::good("web"), free_port());
    let dead = json!({ "name": "dead", "mcp": { "host": format!("http://127.0.0.1:{}/mcp", free_port()) } });
    let config = mcp(port, json!({ "targets": [server.target("web"), dead] }));
    let (gateway, admin) = served(&config);
    let clients: Vec<McpClient> = (0..3).map(|_| McpClient::open(local(port))).collect();
    clients.iter().for_each(|client| drop(client.call("web__echo", json!({}))));
    let calls = get(admin, "/");
    for call in calls.as_array().expect("a list") {
        if call["method"] == "GET" && call["path"] != "/api/v1/audit" {
            get(admin, call["path"].as_str().expect("a path"));
        }
    }
    assert_eq!(ask_own(admin, "GET", "/api/v1/audit", &[], "").status, 404, "there is no audit log");
    let status = get(admin, "/api/v1/status");
    assert_eq!(
        (&status["state"], &status["shards"], &status["configVersion"]),
        (&json!("ready"), &json!(2), &json!(1))
    );
    assert_eq!(status["listeners"], json!([format!("127.0.0.1:{port}")]));
    let sessions = || -> i64 {
        let shards = get(admin, "/api/v1/shards");
        shards.as_array().expect("a list").iter().filter_map(|shard| shard["sessions"].as_i64()).sum()
    };
    assert_eq!(sessions(), 3);
    clients[0].end();
    eventually("the session is gone", || sessions() == 2);
    let targets = get(admin, "/api/v1/targets");
    let of = |name: &str| targets.as_array().unwrap().iter().find(|target| target["target"] == name).unwrap().clone();
    assert!(of("web")["up"].as_u64() >= Some(1) && of("web")["down"] == 0, "{targets}");
    assert!(of("dead")["down"].as_u64() >= Some(1) && of("dead")["up"] == 0, "{targets}");
    drop(gateway);
}

#[test]
fn the_configuration_is_the_one_in_use() {
    let (server, port) = (McpServer::good("web"), free_port());
    let mut config = mcp(port, json!({ "targets": [server.target("web")] }));
    let (gateway, admin) = served(&config);
    let dump = get(admin, "/config_dump");
    assert_eq!((&dump["version"], &dump["written"]["binds"]), (&json!(1), &config["binds"]));
    let target = |dump: &Value| dump["effective"]["mcp"][0]["targets"][0]["name"].clone();
    assert_eq!(target(&dump), "web");
    assert_eq!(dump["effective"]["mcp"][0]["pageSize"], 1000, "what was not written is told as well");
    // A bad file changes nothing.
    gateway.write_config("{");
    gateway.signal(libc::SIGHUP);
    eventually("it is refused", || gateway.stderr().contains("the configuration was not changed"));
    assert_eq!(get(admin, "/config_dump"), dump);
    config["binds"][0]["listeners"][0]["routes"][0]["backends"][0]["mcp"]["targets"][0]["name"] = json!("net");
    gateway.reload(&config.to_string());
    let dump = get(admin, "/config_dump");
    assert_eq!((&dump["version"], target(&dump)), (&json!(2), json!("net")));
    assert_eq!(dump["written"]["binds"], config["binds"]);
}

#[test]
fn the_log_says_more_when_asked() {
    let (server, port) = (McpServer::good("web"), free_port());
    let (gateway, admin) = served(&mcp(port, json!({ "targets": [server.target("web")] })));
    let set = |query: &str, body: &str| {
        let response = ask_own(admin, "POST", &format!("/logging{query}"), &[JSON], body);
        (response.status, serde_json::from_str::<Value>(response.text()).expect("an answer is JSON"))
    };
    assert_eq!(get(admin, "/logging"), json!({ "level": "info" }));
    assert_eq!(set("?level=debug", ""), (200, json!({ "level": "debug" })));
    gateway.signal(libc::SIGHUP);
    eventually("debug lines come", || gateway.stderr().contains("configuration is read again"));
    assert_eq!(set("", r#"{"level":"warn,agentlane::mcp=trace"}"#).1, json!({ "level": "warn,agentlane::mcp=trace" }));
    assert_eq!(set("?level=loud%3D%3D", "").0, 400);
    assert_eq!(set("", "").0, 400);
    assert_eq!(set("", "{").0, 400);
    assert_eq!(set("?reset", ""), (200, json!({ "level": "info" })));
}

#[test]
fn whom_it_refuses() {
    let port = free_port();
    let mut config = mcp(port, json!({ "targets": [] }));
    config["binds"][0]["listeners"][0]["routes"] = json!([{ "policies": { "directResponse": { "status": 200 } } }]);
    let (open, admin) = served(&config);
    let status = |method: &str, headers: &[(&str, &str)]| ask_own(admin, method, "/logging?reset", headers, "").status;
    assert_eq!(status("GET", &[]), 200);
    assert_eq!(status("GET", &[("host", "localhost")]), 200);
    assert_eq!(status("GET", &[("host", "evil.example")]), 403, "a name that was bound anew");
    assert_eq!(status("GET", &[("origin", "https://evil.example")]), 403, "a page");
    assert_eq!(status("POST", &[]), 415, "a form");
    assert_eq!(status("POST", &[JSON]), 200);
    assert_eq!(status("DELETE", &[JSON]), 405);
    // On a port of its own: a killed process's io_uring may hold its sockets for a moment longer than it lives.
    drop(open);
    config["binds"][0]["port"] = json!(free_port());
    config["config"] = json!({ "adminKey": "a key that is long enough" });
    let (locked, admin) = served(&config);
    let status = |key: &str| ask_own(admin, "GET", "/api/v1/status", &[("authorization", key)], "").status;
    assert_eq!(ask_own(admin, "GET", "/", &[], "").status, 401);
    assert_eq!(status("Bearer a key that is long enough"), 200);
    assert_eq!(status("Bearer a key that is long enougg"), 401);
    let refused = ask_own(admin, "GET", "/config_dump", &[], "");
    assert_eq!((refused.status, refused.get("www-authenticate")), (401, Some("Bearer")));
    assert!(!locked.stderr().contains("long enoug"), "{}", locked.stderr());
}

#[test]
fn what_it_told_of_the_audit_log_is_checked() {
    let (server, port) = (McpServer::good("web"), free_port());
    let setup = Setup::new("");
    let file = setup.folder().join("audit.jsonl");
    let mut config = mcp(port, json!({ "targets": [server.target("web")] }));
    config["config"] = json!({ "audit": { "file": file, "chain": true } });
    let admin = local(free_port());
    std::fs::write(setup.folder().join("agentlane.yaml"), config.to_string()).expect("written");
    let gateway = setup.args(&["--shards", "1"]).env("ADMIN_ADDR", admin.to_string()).start();
    let denied = || Peer::connect(local(port)).ask("POST", "/mcp", &[("origin", "https://evil.example")], "{}").status;
    (0..3).for_each(|_| assert_eq!(denied(), 403));
    eventually("the records are out", || get(admin, "/api/v1/audit")["heads"][0]["seq"] == 4);
    let heads = file.with_file_name("heads.json");
    std::fs::write(&heads, get(admin, "/api/v1/audit").to_string()).expect("written");
    gateway.signal(libc::SIGKILL);
    let path = |path: &std::path::Path| path.to_str().expect("a path in UTF-8").to_owned();
    let verify = || crate::support::gateway::run(&["audit", "verify", "--heads", &path(&heads), &path(&file)], &[]);
    assert_eq!(verify().code, Some(0), "{}", verify().stdout);
    let text = std::fs::read_to_string(&file).expect("a log");
    let cut: Vec<&str> = text.split_inclusive('\n').collect();
    std::fs::write(&file, cut[..3].concat()).expect("written");
    let ended = verify();
    assert!(
        ended.code == Some(1) && ended.stdout.contains("record 4, of which the gateway told, is not there"),
        "{}",
        ended.stdout
    );
}
