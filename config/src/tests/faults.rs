//! What bad documents are told, word for word.

use super::{env, printed, read};
use crate::{FaultKind, LoadOptions, load, parse};

#[track_caller]
fn bad(text: &str, expected: &[&str]) {
    match read(text, false) {
        Ok(_) => panic!("no fault in:\n{text}"),
        Err(faults) => assert_eq!(printed(&faults), expected, "in:\n{text}"),
    }
}

/// A document around one listener's routes; they begin on line 2.
#[track_caller]
fn bad_routes(routes: &str, expected: &[&str]) {
    bad(&format!("binds: [{{port: 3000, listeners: [{{routes: [\n{routes}\n]}}]}}]"), expected);
}

#[track_caller]
fn bad_targets(targets: &str, expected: &[&str]) {
    bad(&format!("mcp:\n  port: 3000\n  targets:\n{targets}"), expected);
}

#[test]
fn a_fault_says_file_line_column_field_and_what_was_expected() {
    let faults = read("binds:\n- port: abc\n  listeners: []\n", false).unwrap_err();
    assert_eq!(faults[0].to_string(), "t.yaml:2:9: binds[0].port: expected an integer from 1 to 65535, got \"abc\"");
    assert_eq!((faults[0].line, faults[0].column, faults[0].kind), (2, 9, FaultKind::Invalid));
}

#[test]
fn json_is_read_with_the_same_places() {
    bad(
        "{\"binds\": [{\"port\": 3000,\n  \"listeners\": [{\"routes\": [{\"backends\": [{\"host\": \"a:1\", \"weight\": -1}]}]}], \"prt\": 1}]}",
        &[
            "2:69: binds[0].listeners[0].routes[0].backends[0].weight: expected an integer from 0 to 1000000, got -1",
            "2:79: binds[0].prt: unknown key; did you mean port?",
        ],
    );
}

#[test]
fn broken_text() {
    let cases = [
        ("", "1:1: the document is empty"),
        ("# nothing\n", "1:1: the document is empty"),
        ("- a", "1:1: expected a mapping, got a list"),
        ("mcp:\n\tport: 1", "2:2: mcp: tabs disallowed within this context (block indentation)"),
        ("binds: &a [*a]", "1:12: binds[0]: an alias to a node that has not ended"),
        ("x: 1\n---\ny: 2", "2:1: a second document; one file holds one document"),
        ("binds: !foo []", "1:8: binds: tags other than !!str are not supported"),
        ("? [a]\n: b", "1:3: a key must be a scalar"),
        ("<<: {a: b}", "1:1: merge keys (<<) are not supported"),
        ("a: [1, 2\nb: 3", "2:2: a[1]: illegal placement of ':' indicator"),
    ];
    for (text, expected) in cases {
        bad(text, &[expected]);
    }
}

#[test]
fn limits_of_the_text() {
    let deep = format!("a: {}{}", "[".repeat(100), "]".repeat(100));
    bad(&deep, &["1:67: nested deeper than 64 levels"]);
    let block = (0..100).fold(String::new(), |text, depth| text + &" ".repeat(depth) + "a:\n");
    bad(&block, &["65:65: nested deeper than 64 levels"]);
    // Each level holds the one before ten times over.
    let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..12 {
        let alias = format!("*a{}", level - 1);
        laughs += &format!("a{level}: &a{level} [{}]\n", vec![alias; 10].join(", "));
    }
    let faults = read(&laughs, false).unwrap_err();
    assert_eq!((faults.len(), faults[0].kind), (1, FaultKind::Limit), "{faults:?}");
    assert_eq!(faults[0].message, "more than 250000 nodes, aliases expanded");
    let long = format!("a: &a \"{}\"\nb: [{}]", "x".repeat(1 << 20), vec!["*a"; 100].join(", "));
    let faults = read(&long, false).unwrap_err();
    assert_eq!(faults[0].message, "more than 16777216 bytes, aliases expanded");
    let faults = read(&"#".repeat((4 << 20) + 1), false).unwrap_err();
    assert_eq!(
        (faults[0].kind, faults[0].message.as_str()),
        (FaultKind::Limit, "the document is longer than 4194304 bytes")
    );
}

#[test]
fn every_fault_is_told_at_once() {
    bad(
        "shards: {count: 3, cores: [1, 1], ringEntries: 1000}
config:
  adminAddr: nowhere
  session: {key: secret}
  logging: {level: [info, foo], format: xml, accessLog: [], filter: x}
  connectionTerminationDeadline: 5
llm: {models: []}
mcp: {port: 3000, gateways: a, targets: [{name: a, stdio: {cmd: x, clear_env: true, clearEnv: true, mode: both}}]}
mcp: {}
",
        &[
            "1:27: shards.cores: a core is there twice; each shard has one of its own",
            "1:27: shards.cores: 2 cores for 3 shards; each shard has one",
            "1:48: shards.ringEntries: expected a power of two, got 1000",
            "3:14: config.adminAddr: expected an address like 127.0.0.1:15000, localhost:15000 or :15000, or off, got \"nowhere\"",
            "4:18: config.session.key: expected 32 bytes as 64 hexadecimal digits or as base64, got something else",
            "5:27: config.logging.level[1]: expected a level (error, warn, info, debug, trace, off) or module=level, got \"foo\"",
            "5:41: config.logging.format: expected one of text, json, got \"xml\"",
            "5:57: config.logging.accessLog: expected true, false or a path, got a list",
            "5:61: config.logging.filter: known, but not built in this version",
            "6:34: config.connectionTerminationDeadline: expected a duration above zero, like 500ms, 5m or 1h30m, got 5",
            "7:1: llm: known, but not built in this version",
            "8:7: mcp.port: cannot stand beside gateways; the gateways have the ports",
            "8:85: mcp.targets[0].stdio.clearEnv: means the same as clear_env, which is there already",
            "8:107: mcp.targets[0].stdio.mode: expected one of shared, perSession, got \"both\"",
            "9:1: mcp: the key \"mcp\" is there twice",
        ],
    );
}

#[test]
fn targets() {
    bad_targets(
        r#"  - {name: a_, stdio: {cmd: x}}
  - {name: b__c, stdio: {cmd: x}}
  - {name: a.b, stdio: {cmd: x}}
  - {name: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, stdio: {cmd: x}}
  - {name: both, stdio: {cmd: x}, mcp: {host: http://a/mcp}}
  - {name: none}
  - {name: openapi, openapi: {host: http://a}}
  - {name: tls, mcp: {host: ftp://a/mcp}}
  - {name: half, mcp: {host: a, port: 80}}
  - {name: ref, mcp: {backend: a}}
  - {name: ok, stdio: {cmd: x}}
  - {name: ok, stdio: {cmd: y}}
  - {name: pol, stdio: {cmd: x}, policies: {}}
  - {name: r, stdio: {cmd: x, restart: {backoffMin: 2m}}}
  - {name: true, stdio: {cmd: ""}}
  - {name: l, stdio: {cmd: x, warm: 257, limits: {memory: 10k, cpu: none, files: 7, disk: 1}}}
  - {name: s, sse: {host: http://a/sse}, protocol: modern}
"#,
        &[
            "4:12: mcp.targets[0].name: a target's name has no '_' at its ends and no '__': two of them part the target's name from the tool's",
            "5:12: mcp.targets[1].name: a target's name has no '_' at its ends and no '__': two of them part the target's name from the tool's",
            "6:12: mcp.targets[2].name: a target's name holds letters, digits, '-' and '_' only, not '.': it becomes part of tool names, in which clients refuse anything else",
            "7:12: mcp.targets[3].name: a target's name has at most 32 characters, this one has 33: clients refuse tool names over 64 characters, and the name is put before the tool's",
            "8:35: mcp.targets[4].mcp: cannot stand beside stdio; only one of them may be given",
            "9:5: mcp.targets[5]: expected one of the keys mcp, sse, stdio",
            "10:21: mcp.targets[6].openapi: known, but not built in this version",
            "11:29: mcp.targets[7].mcp.host: expected a URL, like http://localhost:3001/mcp, got \"ftp://a/mcp\"",
            "12:23: mcp.targets[8].mcp.path: missing beside port; write both, or a whole URL in host",
            "13:23: mcp.targets[9].mcp.backend: known, but not built in this version",
            "15:5: mcp.targets[11]: a second target with the name \"ok\"",
            "16:34: mcp.targets[12].policies: a stdio target has no connection that policies could act on",
            "17:53: mcp.targets[13].stdio.restart: backoffMin is longer than backoffMax",
            "18:12: mcp.targets[14].name: expected a name, got true; quote it to make it a string",
            "18:31: mcp.targets[14].stdio.cmd: expected the name of a program, got \"\"",
            "19:37: mcp.targets[15].stdio.warm: expected an integer from 0 to 256, got 257",
            "19:59: mcp.targets[15].stdio.limits.memory: expected an amount of at least 1Mi, like 512Mi, 2G or 1073741824, got \"10k\"",
            "19:69: mcp.targets[15].stdio.limits.cpu: expected a number of processors from 0.01 to 1024, like 2 or 0.5, got \"none\"",
            "19:82: mcp.targets[15].stdio.limits.files: expected an integer from 8 to 1048576, got 7",
            "19:85: mcp.targets[15].stdio.limits.disk: unknown key",
            "20:42: mcp.targets[16].protocol: 2026-07-28 is not spoken over the transport of 2024-11-05",
        ],
    );
}

#[test]
fn header_changes() {
    bad_targets(
        "  - name: a\n    mcp: {host: http://a/mcp}\n    policies: {requestHeaderModifier: {set: {Host: x, \"a b\": y, x: \"a\\nb\", X: again}, remove: [content-length]}}\n",
        &[
            "6:46: mcp.targets[0].policies.requestHeaderModifier.set.Host: expected a header other than host, which urlRewrite.authority changes, got \"Host\"",
            "6:55: mcp.targets[0].policies.requestHeaderModifier.set.a b: expected a header name, got \"a b\"",
            "6:68: mcp.targets[0].policies.requestHeaderModifier.set.x: expected a header value without control characters or spaces at its ends, got something else",
            "6:96: mcp.targets[0].policies.requestHeaderModifier.remove[0]: expected a header that does not belong to the connection, got \"content-length\"",
        ],
    );
}

#[test]
fn matches() {
    bad_routes(
        "{name: r, hostnames: ['*.x', a/b], backends: [{host: 'a:1'}], matches: [
{path: {pathPrefix: nope}, method: get, headers: [{name: 'a b', value: {exact: x}}, {name: ':method', value: {regex: '('}}]},
{path: {exact: /a, pathPrefix: /b}, query: [{value: {exact: 5}}]},
{path: /x},
{path: {regex: '(?i)[z-a]'}},
{path: {exacct: /x}}]}",
        &[
            "2:30: binds[0].listeners[0].routes[0].hostnames[1]: expected a host name without a port, or a wildcard like *.example.com, got \"a/b\"",
            "3:21: binds[0].listeners[0].routes[0].matches[0].path.pathPrefix: expected a path that begins with '/' and has no '?', '#' or spaces, got \"nope\"",
            "3:36: binds[0].listeners[0].routes[0].matches[0].method: expected the method in capitals (GET), got \"get\"",
            "3:58: binds[0].listeners[0].routes[0].matches[0].headers[0].name: expected a header name, got \"a b\"",
            "3:92: binds[0].listeners[0].routes[0].matches[0].headers[1].name: a pseudo header is known, but not built in this version",
            "3:118: binds[0].listeners[0].routes[0].matches[0].headers[1].value.regex: not a regular expression: unclosed group",
            "4:20: binds[0].listeners[0].routes[0].matches[1].path.pathPrefix: cannot stand beside exact; only one of them may be given",
            "4:45: binds[0].listeners[0].routes[0].matches[1].query[0].name: missing",
            "4:61: binds[0].listeners[0].routes[0].matches[1].query[0].value.exact: expected a string, got 5; quote it to make it a string",
            "5:8: binds[0].listeners[0].routes[0].matches[2].path: expected a mapping, got \"/x\"",
            "6:16: binds[0].listeners[0].routes[0].matches[3].path.regex: not a regular expression: invalid character class range, the start must be <= the end",
            "7:8: binds[0].listeners[0].routes[0].matches[4].path: expected one of the keys exact, pathPrefix, regex",
            "7:9: binds[0].listeners[0].routes[0].matches[4].path.exacct: unknown key; did you mean exact?",
        ],
    );
}

#[test]
fn policies() {
    bad_routes(
        "{backends: [{host: 'a:1'}], policies: {
  timeout: {requestTimeout: 0s}, extAuthz: {}, requestMirror: {}, corss: {},
  directResponse: {status: 99, headers: {a: request.path}},
  requestRedirect: {status: 200, authority: sometimes, scheme: ftp},
  urlRewrite: {authority: {port: 99999}, path: {full: x}},
  cors: {allowOrigins: [example.com, 'https://*.example.com', 'https://a/'], allowMethods: [get], maxAge: 5}}},
{policies: {directResponse: {status: 204, body: hi}, requestRedirect: {}}},
{policies: {directResponse: {conditional: []}}},
{policies: {urlRewrite: {path: {prefix: /}}}, matches: [{path: {regex: /a}}], backends: [{host: 'a:1'}]}",
        &[
            "3:29: binds[0].listeners[0].routes[0].policies.timeout.requestTimeout: expected a duration above zero, like 500ms, 5m or 1h30m, got \"0s\"",
            "3:34: binds[0].listeners[0].routes[0].policies.extAuthz: known, but not built in this version",
            "3:48: binds[0].listeners[0].routes[0].policies.requestMirror: known, but not built in this version",
            "3:67: binds[0].listeners[0].routes[0].policies.corss: unknown key; did you mean cors?",
            "4:28: binds[0].listeners[0].routes[0].policies.directResponse.status: expected an integer from 200 to 599, got 99",
            "4:45: binds[0].listeners[0].routes[0].policies.directResponse.headers.a: an expression other than a string literal (like '\"text/plain\"') is known, but not built in this version",
            "5:29: binds[0].listeners[0].routes[0].policies.requestRedirect.status: expected 301, 302, 303, 307 or 308, got 200",
            "5:45: binds[0].listeners[0].routes[0].policies.requestRedirect.authority: expected auto, none, or a mapping with one of the keys full, host, port, got \"sometimes\"",
            "5:64: binds[0].listeners[0].routes[0].policies.requestRedirect.scheme: expected one of http, https, got \"ftp\"",
            "6:34: binds[0].listeners[0].routes[0].policies.urlRewrite.authority.port: expected an integer from 1 to 65535, got 99999",
            "6:55: binds[0].listeners[0].routes[0].policies.urlRewrite.path.full: expected a path that begins with '/' and has no '?', '#' or spaces, got \"x\"",
            "7:25: binds[0].listeners[0].routes[0].policies.cors.allowOrigins[0]: expected * or an origin, like https://example.com or http://localhost:6274, got \"example.com\"",
            "7:38: binds[0].listeners[0].routes[0].policies.cors.allowOrigins[1]: a wildcard inside an origin is known, but not built in this version",
            "7:63: binds[0].listeners[0].routes[0].policies.cors.allowOrigins[2]: expected * or an origin, like https://example.com or http://localhost:6274, got \"https://a/\"",
            "7:93: binds[0].listeners[0].routes[0].policies.cors.allowMethods[0]: expected the method in capitals (GET), got \"get\"",
            "7:107: binds[0].listeners[0].routes[0].policies.cors.maxAge: expected a duration above zero, like 500ms, 5m or 1h30m, got 5",
            "8:13: binds[0].listeners[0].routes[1].policies.directResponse: cannot stand beside requestRedirect; both answer the request",
            "8:49: binds[0].listeners[0].routes[1].policies.directResponse.body: an answer with status 204 has no body",
            "9:30: binds[0].listeners[0].routes[2].policies.directResponse.conditional: known, but not built in this version",
            "10:12: binds[0].listeners[0].routes[3].policies.urlRewrite.path: a prefix is replaced, but a match of this route is a regex, which has none",
        ],
    );
}

#[test]
fn backends_and_references() {
    bad(
        "binds:
- port: 3000
  listeners:
  - routes:
    - backends: [{host: 'a:1', weight: 0}, {host: 'b:1', weight: 0}]
    - {name: q}
    - {name: q, backends: [{backend: orderz}, {backend: broken}]}
    - backends: [{host: nohost}, {ai: {}}, {host: 'a:1', backend: b}, {}]
  - {hostname: '*', name: x}
  - {hostname: a.b, name: x}
- {port: 3000, listeners: []}
- {port: 15020, listeners: [{routes: [{backends: [{mcp: {targets: [{name: a, stdio: {cmd: x}}]}}, {host: 'b:1'}]}]}]}
- {port: 3001, listeners: [{protocol: HTTPS, tls: {}}, {protocol: QUIC}]}
backends:
- {name: orders, host: 'orders:80'}
- {name: orders, host: 'orders:80'}
- {name: broken, host: nohost}
",
        &[
            "5:17: binds[0].listeners[0].routes[0].backends: every weight is zero",
            "6:7: binds[0].listeners[0].routes[1]: a route needs a backend, a requestRedirect or a directResponse",
            "7:14: binds[0].listeners[0].routes[2].name: a second route with the name \"q\" on the listener \"listener0\"",
            "7:38: binds[0].listeners[0].routes[2].backends[0].backend: no backend has the name \"orderz\"; did you mean orders?",
            "8:25: binds[0].listeners[0].routes[3].backends[0].host: expected a host and a port, like example.com:8080, got \"nohost\"",
            "8:35: binds[0].listeners[0].routes[3].backends[1].ai: known, but not built in this version",
            "8:58: binds[0].listeners[0].routes[3].backends[2].backend: cannot stand beside host; only one of them may be given",
            "8:71: binds[0].listeners[0].routes[3].backends[3]: expected one of the keys host, backend, mcp",
            "9:16: binds[0].listeners[1].hostname: serves every host of the port, as binds[0].listeners[0] does; give one of them a hostname",
            "10:27: binds[0].listeners[2].name: a second listener with the name \"x\"",
            "11:10: binds[1].port: port 3000 is listened on already, at binds[0].port",
            "11:27: binds[1].listeners: a bind needs a listener",
            "12:10: binds[2].port: port 15020 is the one of config.statsAddr (0.0.0.0:15020)",
            "12:51: binds[2].listeners[0].routes[0].backends[0]: an MCP backend stands alone in its route; federate several servers by its targets",
            "13:51: binds[3].listeners[0].tls.cert: missing",
            "13:51: binds[3].listeners[0].tls.key: missing",
            "13:67: binds[3].listeners[1].protocol: expected one of HTTP, HTTPS, got \"QUIC\"",
            "16:10: backends[1].name: a second backend with the name \"orders\"",
            "17:24: backends[2].host: expected a host and a port, like example.com:8080, got \"nohost\"",
        ],
    );
}

#[test]
fn gateways() {
    bad(
        "gateways:
  web: {port: 80, cors: {}, listeners: [{name: a}, {name: a, hostname: x.y}]}
  s: {port: 443, tls: {}}
routes:
- {gateways: wbe, backends: [{host: 'a:1'}]}
- {gateways: web/b, backends: [{host: 'a:1'}]}
- {gateways: s, backends: [{host: 'a:1'}]}
- {gateways: [web/, 5], backends: [{host: 'a:1'}]}
- {backends: [{host: 'a:1', weight: 0}]}
mcp:
  targets: []
",
        &[
            "2:19: gateways.web.cors: cannot stand beside listeners; write it in each of them",
            "2:59: gateways.web.listeners[1].name: a second listener with the name \"a\"",
            "3:23: gateways.s.tls.cert: missing",
            "3:23: gateways.s.tls.key: missing",
            "5:14: routes[0].gateways: no gateway has the name \"wbe\"; did you mean web?",
            "6:14: routes[1].gateways: the gateway \"web\" has no listener with the name \"b\"",
            "8:15: routes[3].gateways[0]: expected the name of a gateway, or gateway/listener, got \"web/\"",
            "8:21: routes[3].gateways[1]: expected the name of a gateway, or gateway/listener, got 5",
            "9:3: routes[4]: no gateway has the name \"default\"; name one with gateways",
            "9:14: routes[4].backends: every weight is zero",
            "11:3: mcp: needs a port, or gateways to be served by",
            "11:3: mcp: an MCP backend needs a target",
        ],
    );
}

#[test]
fn variables_and_quotes() {
    bad(
        "mcp: {port: '3000', targets: [{name: a, stdio: {cmd: $X}}, {name: y, stdio: {cmd: '${X', env: {A: 5}}}, {name: z, mcp: {host: $LOG_FOLDER}}]}",
        &[
            "1:13: mcp.port: expected an integer from 1 to 65535, got \"3000\"",
            "1:54: mcp.targets[0].stdio.cmd: the variable X is not set",
            "1:83: mcp.targets[1].stdio.cmd: a variable begins with ${ and has no }",
            "1:99: mcp.targets[1].stdio.env.A: expected a string, or a mapping with the key file, got 5; quote it to make it a string",
            "1:127: mcp.targets[2].mcp.host: expected a URL, like http://localhost:3001/mcp, got \"$LOG_FOLDER\"",
        ],
    );
}

#[test]
fn what_is_not_built_is_a_kind_of_its_own() {
    let text = "mcp: {port: 3000, targets: [{name: a, stdio: {cmd: x}}], lokc: 1}\nllm: {}\n";
    let kinds: Vec<_> = read(text, false).unwrap_err().iter().map(|fault| fault.kind).collect();
    assert_eq!(kinds, [FaultKind::UnknownKey, FaultKind::NotBuilt]);
    // Lenient reading forgives the second only.
    let kinds: Vec<_> = read(text, true).unwrap_err().iter().map(|fault| fault.kind).collect();
    assert_eq!(kinds, [FaultKind::UnknownKey]);
}

#[test]
fn nothing_to_listen_on() {
    bad("config: {}", &["1:1: nothing to listen on; write binds, gateways or mcp"]);
}

#[test]
fn faults_of_the_environment() {
    let env = |name: &str| match name {
        "STATS_ADDR" => Some("here".to_owned()),
        "SESSION_KEY" => Some("hush".to_owned()),
        _ => None,
    };
    let text = "mcp: {port: 3000, targets: [{name: a, stdio: {cmd: x}}]}";
    let faults = parse(text, "t.yaml", &LoadOptions { lenient: false, env: &env }).unwrap_err();
    assert_eq!(
        printed(&faults),
        [
            "environment: STATS_ADDR: expected an address like 127.0.0.1:15000, localhost:15000 or :15000, or off, got \"here\"",
            "environment: SESSION_KEY: expected 32 bytes as 64 hexadecimal digits or as base64, got something else",
        ]
    );
}

#[test]
fn files_that_cannot_be_read() {
    let options = LoadOptions { lenient: false, env: &env };
    let faults = load("/nonexistent/a.yaml".as_ref(), &options).unwrap_err();
    assert_eq!(printed(&faults), ["/nonexistent/a.yaml: cannot be read: No such file or directory (os error 2)"]);
    let text = "mcp: {port: 3000, targets: [{name: a, stdio: {cmd: x, env: {K: {file: k}}}}]}";
    let faults = parse(text, "/nonexistent/t.yaml", &options).unwrap_err();
    assert_eq!(
        printed(&faults),
        [
            "/nonexistent/t.yaml:1:71: mcp.targets[0].stdio.env.K.file: cannot read /nonexistent/k: No such file or directory (os error 2)"
        ]
    );
}

#[test]
fn no_fault_repeats_a_secret() {
    let text = "config: {session: {key: hunter2-hunter2}}\nmcp: {port: 3000, targets: [{name: a, mcp: {host: 'http://a'}, policies: {requestHeaderModifier: {set: {authorization: \"hunter2\\n\"}}}}]}";
    let faults = read(text, false).unwrap_err();
    assert_eq!(faults.len(), 2);
    assert!(!format!("{faults:?}").contains("hunter2"), "{faults:?}");
}

#[test]
fn wrong_words_about_lists_and_sessions() {
    bad(
        "mcp:
  port: 3000
  nameLength: 20
  cache: {ttl: 0s, scope: shared, until: 1m}
  targets:
  - {name: a, mcp: {host: 'http://a/mcp'}, onSessionLoss: ignore}
  - {name: b, stdio: {cmd: b}, onSessionLoss: end}
",
        &[
            "3:15: mcp.nameLength: expected an integer from 48 to 1024, got 20",
            "4:16: mcp.cache.ttl: expected a duration above zero, like 500ms, 5m or 1h30m, or off, got \"0s\"",
            "4:27: mcp.cache.scope: expected one of private, public, got \"shared\"",
            "4:35: mcp.cache.until: unknown key",
            "6:59: mcp.targets[0].onSessionLoss: expected one of reopen, end, got \"ignore\"",
            "7:32: mcp.targets[1].onSessionLoss: only a target over streamable HTTP has a session that it could forget",
        ],
    );
}

#[test]
fn wrong_words_about_the_lock() {
    bad(
        "lock: {mode: panic, riskMax: 101}
mcp:
  port: 3000
  targets:
  - {name: a, mcp: {host: 'http://a/mcp'}, lock: hide}
",
        &[
            "1:14: lock.mode: expected one of warn, quarantine, block, got \"panic\"",
            "1:30: lock.riskMax: expected an integer from 0 to 100, got 101",
            "5:50: mcp.targets[0].lock: expected one of off, warn, quarantine, block, got \"hide\"",
        ],
    );
    bad(
        "lock: {mode: block}\nmcp: {port: 3000, targets: [{name: a, stdio: {cmd: a}}]}",
        &["1:8: lock.mode: without `file` there is nothing that could differ"],
    );
}

#[test]
fn rules_say_where_they_are_wrong() {
    let rules = |policy: &str, rules: &str| {
        format!("{{policies: {{{policy}: {{rules: [{rules}]}}}}, backends: [{{host: 'a:1'}}]}}")
    };
    let at = |policy: &str| format!("binds[0].listeners[0].routes[0].policies.{policy}.rules[0]");
    for (rule, policy, expected) in [
        ("jwt.sub is good", "authorization", "2:45: PATH: not an expression: unexpected is"),
        ("user == 'a'", "authorization", "2:37: PATH: unknown variable user"),
        ("mcp.tool.name == 'a'", "authorization", "2:37: PATH: unknown variable mcp.tool.name"),
        (
            "\"jwt.sub == 'a' && response.code == 1\"",
            "authorization",
            "2:37: PATH: response.code is known, but not built in this version (at character 19)",
        ),
        (
            "{deny: 'true ||'}",
            "mcpAuthorization",
            "2:47: PATH.deny: not an expression: unexpected end (at character 8)",
        ),
        (
            "{block: 'true'}",
            "mcpAuthorization",
            "2:41: PATH: expected an expression, or one of the keys allow, deny and require with one, got the key \"block\"",
        ),
        (
            "{allow: 'true', deny: 'true'}",
            "mcpAuthorization",
            "2:40: PATH: expected an expression, or one of the keys allow, deny and require with one, got a mapping",
        ),
        ("true", "mcpAuthorization", "2:40: PATH: expected an expression, as a string, got true"),
        ("\"jwt.sub.matches('(')\"", "mcpAuthorization", "2:40: PATH: not a pattern: unclosed group (at character 17)"),
    ] {
        bad_routes(&rules(policy, rule), &[&expected.replace("PATH", &at(policy))]);
    }
}
