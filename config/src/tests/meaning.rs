//! What good documents mean.

use std::time::Duration;

use super::{env, good, printed, read};
use crate::*;

#[test]
fn both_shapes_mean_the_same() {
    let binds = good(
        "binds:
- port: 3000
  listeners:
  - name: default
    policies: {cors: {allowOrigins: [https://app.example]}}
    routes:
    - name: orders
      hostnames: [shop.example]
      matches: [{path: {pathPrefix: /orders}, method: GET}]
      policies: {timeout: {requestTimeout: 30s}}
      backends:
      - {backend: orders, weight: 3}
      - {host: 'Spare.internal:9000', policies: {requestHeaderModifier: {set: {X-Spare: 'yes'}}}}
    - name: agents
      matches: [{path: {exact: /agents}}]
      backends:
      - mcp: {targets: [{name: a, mcp: {host: 'http://a:3001/mcp'}}, {name: b, stdio: {cmd: b}}]}
- port: 8080
  listeners:
  - {name: api, hostname: api.example}
backends:
- {name: orders, host: 'orders.internal:9000', policies: {responseHeaderModifier: {remove: [server]}}}
",
    );
    let gateways = good(
        "gateways:
  default: {port: 3000, cors: {allowOrigins: [https://app.example]}}
  web: {port: 8080, listeners: [{name: api, hostname: api.example}]}
routes:
- name: orders
  hostnames: [shop.example]
  matches: [{path: {pathPrefix: /orders}, method: GET}]
  policies: {timeout: {requestTimeout: 30s}}
  backends:
  - {backend: orders, weight: 3}
  - {host: 'spare.internal:9000', policies: {requestHeaderModifier: {set: {x-spare: 'yes'}}}}
- name: agents
  gateways: default
  matches: [{path: {exact: /agents}}]
  backends:
  - mcp: {targets: [{name: a, mcp: {host: a, port: 3001, path: /mcp}}, {name: b, stdio: {cmd: b}}]}
backends:
- {name: orders, host: 'orders.internal:9000', policies: {responseHeaderModifier: {remove: [server]}}}
",
    );
    assert_eq!(binds, gateways);
    let route = &binds.binds[0].listeners[0].routes[0];
    assert_eq!(route.backends.iter().map(|each| each.weight).collect::<Vec<_>>(), [3, 1]);
    let removed = &route.backends[0].policies.response_headers.as_ref().unwrap().remove;
    assert_eq!(removed[0].as_str(), "server");
    let names: Vec<&str> = binds.backends.iter().map(|backend| backend.name.as_str()).collect();
    assert_eq!(names, ["orders", "http://spare.internal:9000", "3000/default/agents"]);
}

#[test]
fn a_route_attached_twice_is_there_twice_with_one_backend() {
    let document = good(
        "gateways:
  a: {port: 1000, listeners: [{name: x}, {hostname: y.example}]}
  b: {port: 2000}
routes:
- {gateways: [a, b, a/x], backends: [{mcp: {targets: [{name: t, stdio: {cmd: t}}]}}]}
",
    );
    let routes = document.binds.iter().flat_map(|bind| &bind.listeners).map(|listener| listener.routes.len());
    assert_eq!(routes.collect::<Vec<_>>(), [1, 1, 1]);
    assert_eq!(document.backends.len(), 1);
}

/// The published examples of the vocabulary have this shape; they must be read unchanged.
#[test]
fn the_vocabularys_own_shape_is_read_unchanged() {
    let document = good(
        r#"# yaml-language-server: $schema=https://example.com/schema/config
binds:
- port: 3000
  listeners:
  - name: default
    protocol: HTTP
    routes:
    - name: everything
      policies:
        cors:
          allowOrigins: ["*"]
          allowHeaders: [mcp-protocol-version, content-type, cache-control]
          exposeHeaders: ["Mcp-Session-Id"]
          maxAge: 100s
      backends:
      - mcp:
          statefulMode: stateful
          prefixMode: always
          failureMode: failClosed
          targets:
          - name: time
            stdio:
              cmd: uvx
              args: ["--with", "mcp<2", "mcp-server-time"]
          - name: everything
            stdio:
              cmd: npx
              args: ["@modelcontextprotocol/server-everything"]
              env: {DEBUG: "1"}
              clear_env: true
"#,
    );
    let BackendKind::Mcp(mcp) = &document.backends[0].kind else { panic!("not MCP") };
    assert_eq!((mcp.prefix, mcp.failure), (PrefixMode::Always, FailureMode::FailClosed));
    let Transport::Stdio(stdio) = &mcp.targets[1].transport else { panic!("not stdio") };
    assert!(stdio.clear_env);
    assert_eq!(stdio.env[0].1.expose(), "1");
    let cors = document.binds[0].listeners[0].routes[0].policies.cors.as_ref().unwrap();
    assert_eq!(cors.allow_origins, [AnyOr::Any]);
    assert_eq!(cors.max_age, Some(Duration::from_secs(100)));
}

#[test]
fn defaults() {
    let document = good("mcp: {port: 3000, targets: [{name: a_b-1, stdio: {cmd: x}}]}");
    assert_eq!(document.shards, Shards::default());
    assert_eq!(document.http, HttpLimits::default());
    assert_eq!(document.process, ProcessConfig::default());
    let bind = &document.binds[0];
    assert_eq!((bind.address, bind.port), (None, 3000));
    let listener = &bind.listeners[0];
    assert_eq!(
        (listener.name.as_str(), &listener.hostname, listener.protocol),
        ("mcp", &HostPattern::Any, Protocol::Http)
    );
    let route = &listener.routes[0];
    let paths: Vec<&PathMatch> = route.matches.iter().map(|each| &each.path).collect();
    assert_eq!(
        paths,
        ["/mcp", "/sse"].map(|path| PathMatch::Prefix(UrlPath(path.to_owned()))).iter().collect::<Vec<_>>()
    );
    let BackendKind::Mcp(mcp) = &document.backend(route.backends[0].backend).kind else { panic!("not MCP") };
    assert_eq!((mcp.prefix, mcp.failure), (PrefixMode::Conditional, FailureMode::FailOpen));
    assert_eq!((mcp.deadline, mcp.session_idle_timeout), (Duration::from_secs(10), Duration::from_secs(1800)));
    assert_eq!((mcp.page_size, mcp.dns_rebinding_protection), (1000, true));
    let Transport::Stdio(stdio) = &mcp.targets[0].transport else { panic!("not stdio") };
    assert_eq!((stdio.mode, &stdio.restart), (StdioMode::PerSession, &Restart::default()));
}

#[test]
fn children() {
    let document = good(
        "mcp:
  port: 3000
  targets:
  - name: a
    stdio:
      cmd: x
      warm: 2
      idleTimeout: 5m
      hungAfter: 30s
      network: deny
      limits: {memory: 1.5Gi, cpu: 0.5, files: 1024, processes: 64}
  - {name: b, stdio: {cmd: x, limits: {memory: 1048576, cpu: '2'}}}",
    );
    let BackendKind::Mcp(mcp) = &document.backends[0].kind else { panic!("not MCP") };
    let stdio = |at: usize| match &mcp.targets[at].transport {
        Transport::Stdio(stdio) => stdio.clone(),
        Transport::Http(_) | Transport::Sse(_) => panic!("not stdio"),
    };
    let first = stdio(0);
    assert_eq!((first.warm, first.network), (2, Network::Deny));
    assert_eq!((first.idle_timeout, first.hung_after), (Some(Duration::from_secs(300)), Duration::from_secs(30)));
    let limits = ChildLimits { memory: Some(3 << 29), cpu: Some(500), files: Some(1024), processes: Some(64) };
    assert_eq!(first.limits, limits);
    let second = stdio(1);
    assert_eq!((second.warm, second.network), (0, Network::Allow));
    assert_eq!((second.idle_timeout, second.hung_after), (None, Duration::from_secs(60)));
    assert_eq!(second.limits, ChildLimits { memory: Some(1 << 20), cpu: Some(2_000), files: None, processes: None });
}

#[test]
fn urls_of_targets() {
    let cases = [
        ("http://localhost:3001/mcp", ("localhost", 3001, "/mcp")),
        ("https://Host.Example/mcp", ("host.example", 443, "/mcp")),
        ("https://localhost:3001", ("localhost", 3001, "/")),
        ("http://Host.Example", ("host.example", 80, "/")),
        ("http://[::1]:8080/a/b?c=d", ("::1", 8080, "/a/b?c=d")),
        ("localhost:3001", ("localhost", 3001, "/")),
        ("http://10.0.0.1?x=1", ("10.0.0.1", 80, "/?x=1")),
    ];
    for (host, (name, port, path)) in cases {
        let document = good(&format!(
            "mcp: {{port: 3000, targets: [{{name: a, mcp: {{host: '{host}'}}}}, {{name: b, sse: {{host: '{host}'}}}}]}}"
        ));
        let BackendKind::Mcp(mcp) = &document.backends[0].kind else { panic!("not MCP") };
        let secure = host.starts_with("https");
        let expected = HttpTarget { host: name.to_owned(), port, path: path.to_owned(), secure };
        assert_eq!(mcp.targets[0].transport, Transport::Http(expected.clone()));
        assert_eq!(mcp.targets[1].transport, Transport::Sse(expected));
    }
    for host in
        ["ftp://a", "http://", "http://a:0/", "http://a b/", "http://u@a/", "http://a/#f", "http://a:x/", "unix:/a"]
    {
        let text = format!("mcp: {{port: 3000, targets: [{{name: a, mcp: {{host: '{host}'}}}}]}}");
        assert!(read(&text, false).is_err(), "{host}");
    }
}

#[test]
fn process_settings_and_the_environment_above_them() {
    let text = "config: {adminAddr: ':9000', statsAddr: 'localhost:9001', readinessAddr: off, session: {key: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=}, mcp: {sessionTtl: 1h}, logging: {level: [warn, agentlane=debug], accessLog: access.log}}
mcp: {port: 3000, targets: [{name: a, stdio: {cmd: x}}]}";
    let options = LoadOptions { lenient: false, env: &env };
    let process = parse(text, "/etc/agentlane/t.yaml", &options).unwrap().document.process;
    assert_eq!(process.admin, Endpoint::Tcp("0.0.0.0:9000".parse().unwrap()));
    assert_eq!(process.stats, Endpoint::Tcp("127.0.0.1:9001".parse().unwrap()));
    assert_eq!(process.readiness, Endpoint::Off);
    assert_eq!(process.session.unwrap().key.0, std::array::from_fn(|index| index as u8));
    assert_eq!(process.logging.level, "warn,agentlane=debug");
    assert_eq!(process.logging.access_log, AccessLog::File("/etc/agentlane/access.log".into()));

    let above = |name: &str| match name {
        "ADMIN_ADDR" => Some("off".to_owned()),
        "STATS_ADDR" => Some("[::1]:9".to_owned()),
        "READINESS_ADDR" => Some("127.0.0.1:10".to_owned()),
        "SESSION_KEY" => Some("ff".repeat(32)),
        _ => None,
    };
    let process = parse(text, "t.yaml", &LoadOptions { lenient: false, env: &above }).unwrap().document.process;
    assert_eq!((process.admin, process.stats), (Endpoint::Off, Endpoint::Tcp("[::1]:9".parse().unwrap())));
    assert_eq!(process.readiness, Endpoint::Tcp("127.0.0.1:10".parse().unwrap()));
    assert_eq!(process.session.unwrap().key.0, [255; 32]);
}

#[test]
fn shards() {
    let of = |written: &str| {
        good(&format!("shards: {written}\nmcp: {{port: 3000, targets: [{{name: a, stdio: {{cmd: x}}}}]}}")).shards
    };
    assert_eq!(of("4"), Shards { count: ShardCount::Exactly(4), ..Shards::default() });
    let listed = Shards { count: ShardCount::Exactly(2), cores: vec![3, 1], ..Shards::default() };
    assert_eq!(of("[{core: 3}, {core: 1}]"), listed);
    assert_eq!(of("{cores: [3, 1]}"), listed);
    let full = of("{count: 2, runtime: glommio, ringEntries: 64, spinUs: 7, poolSize: 0, sessionsMax: 9}");
    assert_eq!((full.runtime, full.ring_entries, full.spin), (Runtime::Glommio, 64, Duration::from_micros(7)));
    assert_eq!((full.pool_size, full.sessions_max), (0, 9));
}

#[test]
fn secrets_come_out_of_files_and_are_not_printed() {
    let folder = std::env::temp_dir().join(format!("agentlane-config-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("keys")).unwrap();
    std::fs::write(folder.join("keys/token"), "hunter2\n").unwrap();
    std::fs::write(folder.join("session.key"), "42".repeat(32)).unwrap();
    let path = folder.join("agentlane.yaml");
    let text = "config: {session: {key: {file: session.key}}}
mcp:
  port: 3000
  targets:
  - {name: a, stdio: {cmd: x, cwd: work, env: {TOKEN: {file: keys/token}, PLAIN: $SEARCH_TOKEN}}}
  - {name: b, mcp: {host: 'http://b/mcp'}, policies: {requestHeaderModifier: {set: {authorization: 'Bearer $SEARCH_TOKEN'}}}}
";
    std::fs::write(&path, text).unwrap();
    let loaded = load(&path, &LoadOptions { lenient: false, env: &env });
    std::fs::remove_dir_all(&folder).unwrap();
    let loaded = loaded.unwrap();
    assert_eq!(loaded.files, [path, folder.join("session.key"), folder.join("keys/token")]);
    let BackendKind::Mcp(mcp) = &loaded.document.backends[0].kind else { panic!("not MCP") };
    let Transport::Stdio(stdio) = &mcp.targets[0].transport else { panic!("not stdio") };
    assert_eq!(stdio.env[0].1.expose(), "hunter2");
    assert_eq!(stdio.cwd, Some(folder.join("work")));
    assert_eq!(mcp.targets[1].policies.request_headers.as_ref().unwrap().set[0].1.as_str(), "Bearer token-of-search");
    assert_eq!(loaded.document.process.session.as_ref().unwrap().key.0, [0x42; 32]);
    let shown = format!("{:?}", loaded.document);
    assert!(!shown.contains("hunter2") && !shown.contains("token-of-search") && !shown.contains("66, 66"), "{shown}");
}

#[test]
fn aliases_and_json_however_it_is_indented() {
    let document = good("binds: [{port: 3000, listeners: [{routes: [{backends: [&h {host: 'a:1'}, *h]}]}]}]");
    assert_eq!(document.binds[0].listeners[0].routes[0].backends.len(), 2);
    assert_eq!(document.backends.len(), 1);
    good(
        "{\n\t\"mcp\": {\n\t\t\"port\": 3000,\n\t\t\"targets\": [\n\t\t\t{\"name\": \"a\", \"stdio\": {\"cmd\": \"x\"}}\n\t\t]\n\t}\n}\n",
    );
    good(
        "{\n\"mcp\": {\n\"port\": 3000,\n\"targets\": [\n{\n\"name\": \"a\",\n\"stdio\": {\"cmd\": \"x\", \"args\": [\n\"y\"]}}]}}",
    );
}

#[test]
fn lenient_reading_leaves_out_and_says_so() {
    let loaded = read(
        "llm: {}
binds:
- port: 3000
  listeners:
  - name: plain
    routes:
    - {name: kept, policies: {delay: {}}, backends: [{host: 'a:1'}, {ai: {}}]}
    - {name: guarded, policies: {extAuthz: {}}, backends: [{host: 'a:1'}]}
    - {name: empty, backends: [{ai: {}}]}
  - {name: raw, hostname: a.example, protocol: TLS}
",
        true,
    )
    .unwrap();
    assert_eq!(
        printed(&loaded.warnings),
        [
            "1:1: llm: known, but not built in this version: ignored",
            "7:31: binds[0].listeners[0].routes[0].policies.delay: known, but not built in this version: ignored",
            "7:70: binds[0].listeners[0].routes[0].backends[1].ai: known, but not built in this version: left out",
            "8:34: binds[0].listeners[0].routes[1].policies.extAuthz: known, but not built in this version: what it protects is left out",
            "9:33: binds[0].listeners[0].routes[2].backends[0].ai: known, but not built in this version: left out",
            "10:48: binds[0].listeners[1].protocol: \"TLS\" is known, but not built in this version: left out",
        ]
    );
    let listeners = &loaded.document.binds[0].listeners;
    assert_eq!(listeners.len(), 1);
    let routes: Vec<_> = listeners[0].routes.iter().map(|route| (route.name.as_str(), route.backends.len())).collect();
    assert_eq!(routes, [("kept", 1), ("empty", 0)]);
    // A section that cannot be left out is a fault after all.
    let faults = read("config: {adminAddr: 'unix:/a'}\nmcp: {port: 3000, targets: [{name: a, stdio: {cmd: x}}]}", true)
        .unwrap_err();
    assert_eq!(printed(&faults), ["1:9: config: holds what is not built and cannot be left out"]);
}

#[test]
fn warnings() {
    let loaded = read(
        "backends: [{name: unused, host: 'a:1'}]
mcp: {port: 3000, targets: [{name: a, stdio: {cmd: x}}], policies: {cors: {allowOrigins: ['*'], allowCredentials: true}}}",
        false,
    )
    .unwrap();
    assert_eq!(
        printed(&loaded.warnings),
        [
            "1:19: backends[0].name: no route leads to this backend",
            "2:115: mcp.policies.cors.allowCredentials: with allowOrigins * every site may act as the user",
        ]
    );
}

#[test]
fn a_document_of_many_routes_is_read_quickly() {
    let mut text = "binds:\n- port: 3000\n  listeners:\n  - routes:\n".to_owned();
    for index in 0..2000 {
        text += &format!(
            "    - {{name: r{index}, matches: [{{path: {{pathPrefix: /r{index}}}}}], backends: [{{host: 'h{index}:80'}}]}}\n"
        );
    }
    assert_eq!(good(&text).binds[0].listeners[0].routes.len(), 2000);
}

#[test]
fn what_a_target_says_of_its_lists_comes_before_what_its_backend_says() {
    let document = good(
        "mcp:
  port: 3000
  nameLength: 128
  cache: {ttl: 30s, scope: public}
  targets:
  - {name: a, mcp: {host: 'http://a/mcp'}, cache: {ttl: off, staleFor: off}, onSessionLoss: end}
  - {name: b, stdio: {cmd: b}, cache: {scope: private, staleFor: 1h}}
  - {name: c, mcp: {host: 'http://c/mcp'}}
",
    );
    let BackendKind::Mcp(mcp) = &document.backends[0].kind else { panic!("{document:?}") };
    let seconds = |span: Duration| span.as_secs();
    let caches: Vec<_> = mcp
        .targets
        .iter()
        .map(|target| &target.cache)
        .map(|cache| (seconds(cache.fresh_for()), cache.is_public(), seconds(cache.stands_in_for())))
        .collect();
    assert_eq!(caches, [(0, true, 0), (30, false, 3600), (30, true, 300)]);
    assert_eq!(mcp.name_length, 128);
    let losses: Vec<_> = mcp.targets.iter().map(|target| target.session_loss).collect();
    assert_eq!(losses, [Some(SessionLoss::End), None, None]);
    let plain = good("mcp: {port: 3000, targets: [{name: a, stdio: {cmd: a}}]}");
    let BackendKind::Mcp(mcp) = &plain.backends[0].kind else { panic!("{plain:?}") };
    let cache = &mcp.targets[0].cache;
    assert_eq!((mcp.name_length, cache.fresh_for(), cache.is_public()), (64, Duration::ZERO, false));
    assert_eq!(cache.stands_in_for(), Duration::from_secs(300));
}
