//! What listeners accept and refuse, by the tools that everybody has.

use std::net::TcpStream;

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, Setup, local};
use crate::support::tls::Authority;
use crate::support::wire::Peer;
use crate::support::{eventually, free_port};
use crate::{bind, curl, run, says};

fn path(path: std::path::PathBuf) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}

/// One listener for `a.test` with these settings beside its certificate.
fn gateway(authority: &Authority, more: Value) -> (Gateway, u16) {
    let port = free_port();
    let mut tls = authority.issue(&["a.test"]).listener();
    for (key, value) in more.as_object().expect("an object") {
        tls[key] = value.clone();
    }
    let config = bind(port, json!([{ "name": "a", "hostname": "a.test", "tls": tls, "routes": says("hello") }]));
    (Gateway::start(&config.to_string()), port)
}

#[test]
fn versions_and_suites_are_what_is_configured() {
    let authority = Authority::new();
    let (aes256, aes128) = ("ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256");
    let settings = [
        json!({}),
        json!({ "minTLSVersion": "TLS_V1_3" }),
        json!({ "maxTLSVersion": "TLS_V1_2" }),
        json!({ "cipherSuites": ["TLS_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"] }),
    ];
    // What a client offers, and for each setting what comes of it.
    let table: [(&[&str], [Option<&str>; 4]); 8] = [
        (&["-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"], [None; 4]),
        (&["-tls1_2", "-cipher", "AES128-SHA:AES256-SHA:ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"], [None; 4]),
        (&["-tls1_2", "-cipher", aes256], [Some("TLSv1.2"), None, Some("TLSv1.2"), Some("TLSv1.2")]),
        (&["-tls1_2", "-cipher", aes128], [Some("TLSv1.2"), None, Some("TLSv1.2"), None]),
        (&["-tls1_2"], [Some("TLSv1.2"), None, Some("TLSv1.2"), Some(aes256)]),
        (&["-tls1_3"], [Some("TLSv1.3"), Some("TLSv1.3"), None, Some("TLS_AES_128_GCM_SHA256")]),
        (
            &["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"],
            [Some("CHACHA20"), Some("CHACHA20"), None, None],
        ),
        (&[], [Some("TLSv1.3"), Some("TLSv1.3"), Some("TLSv1.2"), Some("TLSv1.3")]),
    ];
    for (column, more) in settings.into_iter().enumerate() {
        let (_gateway, port) = gateway(&authority, more.clone());
        let connect = format!("127.0.0.1:{port}");
        for (offer, outcomes) in &table {
            let args = ["s_client", "-connect", &connect, "-servername", "a.test", "-brief"];
            let said = run("openssl", &[&args[..], offer].concat(), "");
            let told = said.stdout.clone() + &said.stderr;
            let established = told.contains("CONNECTION ESTABLISHED");
            match outcomes[column] {
                Some(words) => assert!(established && told.contains(words), "{more} {offer:?}: {told}"),
                None => assert!(!established && said.code != Some(0), "{more} {offer:?}: {told}"),
            }
        }
    }
}

#[test]
fn renegotiation_is_refused() {
    let authority = Authority::new();
    let (_gateway, port) = gateway(&authority, json!({}));
    let connect = format!("127.0.0.1:{port}");
    let said = run("openssl", &["s_client", "-connect", &connect, "-servername", "a.test", "-tls1_2"], "R\n");
    assert!(said.stderr.contains("no renegotiation"), "{said:?}");
}

#[test]
fn a_session_is_resumed_on_any_shard() {
    let authority = Authority::new();
    let port = free_port();
    let tls = authority.issue(&["a.test"]).listener();
    let config = bind(port, json!([{ "tls": tls, "routes": says("hello") }]));
    let gateway = Setup::new(&config.to_string()).args(&["--shards", "4"]).start();
    let kept = path(gateway.folder().join("session"));
    let connect = format!("127.0.0.1:{port}");
    let ask = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    let common = ["s_client", "-connect", &connect, "-servername", "a.test", "-ign_eof"];
    for version in ["-tls1_2", "-tls1_3"] {
        let first = run("openssl", &[&common[..], &[version, "-sess_out", &kept]].concat(), ask);
        assert!(first.stdout.contains("hello") && first.stdout.contains("New, TLSv1"), "{first:?}");
        for _ in 0..8 {
            let again = run("openssl", &[&common[..], &[version, "-sess_in", &kept]].concat(), ask);
            assert!(again.stdout.contains("hello") && again.stdout.contains("Reused, TLSv1"), "{version} {again:?}");
        }
    }
}

#[test]
fn the_server_name_chooses_the_listener_and_its_certificate() {
    let authority = Authority::new();
    let port = free_port();
    let listener = |name: &str, hostname: &str| {
        let names = [hostname];
        json!({ "name": name, "hostname": hostname, "tls": authority.issue(&names).listener(), "routes": says(name) })
    };
    let config = bind(port, json!([listener("a", "a.test"), listener("wild", "*.wild.test")]));
    let gateway = Gateway::start(&config.to_string());
    let root = path(authority.root());
    let resolve = |name: &str| format!("{name}:{port}:127.0.0.1");
    let url = |name: &str| format!("https://{name}:{port}/");
    let get = |name: &str, more: &[&str]| {
        curl(&[&["--cacert", &root, "--resolve", &resolve(name), &url(name)], more].concat())
    };
    // Verified against the certificate of its own listener.
    assert_eq!(get("a.test", &[]).stdout, "a200");
    assert_eq!(get("x.wild.test", &[]).stdout, "wild200");
    // A name that nobody serves, and no name: an alert, and no certificate of somebody else's.
    let unknown = get("other.test", &["-k"]);
    assert!(unknown.code == Some(35) && unknown.stderr.contains("unrecognized name"), "{unknown:?}");
    let unnamed = get("127.0.0.1", &["-k"]);
    assert!(unnamed.code == Some(35) && unnamed.stderr.contains("unrecognized name"), "{unnamed:?}");
    // A request for the other listener does not belong on this connection; one for nobody has no route.
    assert_eq!(get("a.test", &["-H", "host: x.wild.test"]).stdout, "421");
    assert_eq!(get("a.test", &["-H", "host: nobody.test"]).stdout, "404");
    // The client chooses between HTTP/2 and HTTP/1.1 by what it offers; there is nothing else.
    for (offer, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        assert_eq!(
            get("a.test", &[offer, "-w", "%{http_code} HTTP/%{http_version}"]).stdout,
            format!("a200 HTTP/{version}")
        );
    }
    let connect = format!("127.0.0.1:{port}");
    let spdy = run("openssl", &["s_client", "-connect", &connect, "-servername", "a.test", "-alpn", "spdy/3"], "");
    assert!(spdy.stderr.contains("no application protocol"), "{spdy:?}");
    eventually("the handshakes are counted", || {
        gateway.metric("agentlane_tls_handshakes_total", "outcome=\"failed\"") == 3.0
    });
    assert!(gateway.metric("agentlane_tls_handshakes_total", "outcome=\"ok\"") >= 5.0);
}

#[test]
fn a_client_without_a_name_gets_the_listener_of_every_host_or_of_the_address() {
    let authority = Authority::new();
    let (one, two) = (free_port(), free_port());
    let tls = authority.issue(&["127.0.0.1"]).listener();
    let listener = |hostname: &str| json!([{ "hostname": hostname, "tls": tls, "routes": says("hello") }]);
    let mut config = bind(one, listener("*"));
    config["binds"].as_array_mut().expect("a list").push(bind(two, listener("127.0.0.1"))["binds"][0].clone());
    let _gateway = Gateway::start(&config.to_string());
    let root = path(authority.root());
    for port in [one, two] {
        let url = format!("https://127.0.0.1:{port}/");
        assert_eq!(curl(&["--cacert", &root, &url]).stdout, "hello200");
    }
}

#[test]
fn plain_http_is_not_spoken_where_tls_is() {
    let authority = Authority::new();
    let (gateway, port) = gateway(&authority, json!({}));
    let mut peer = Peer::connect(local(port));
    peer.send("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n");
    assert_eq!(peer.rest().expect("an end").first(), Some(&21), "an alert");
    eventually("the handshake is counted", || {
        gateway.metric("agentlane_tls_handshakes_total", "outcome=\"failed\"") == 1.0
    });
}

#[test]
fn clients_are_asked_for_a_certificate() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let (gateway, port) = gateway(&authority, json!({ "root": authority.root() }));
    let root = path(authority.root());
    let resolve = format!("a.test:{port}:127.0.0.1");
    let url = format!("https://a.test:{port}/");
    let get = |identity: Option<&crate::support::tls::Pair>| {
        let files = identity.map(|pair| (path(pair.cert.clone()), path(pair.key.clone())));
        // By HTTP/1.1: with HTTP/2 curl goes on writing, and then tells of a broken pipe in place of the alert behind it.
        let mut args = vec!["--http1.1", "--cacert", &root, "--resolve", &resolve, &url];
        if let Some((cert, key)) = &files {
            args.extend(["--cert", cert, "--key", key]);
        }
        curl(&args)
    };
    assert_eq!(get(Some(&authority.issue(&["agent-7.test"]))).stdout, "hello200");
    eventually("the record names the client", || gateway.stdout().contains("CN=agent-7.test"));
    for refused in [None, Some(foreign.issue(&["agent.test"])), Some(authority.issue_expired(&["agent.test"]))] {
        let said = get(refused.as_ref());
        assert_eq!(said.stdout, "000", "{said:?}");
        assert!(said.stderr.contains("alert"), "{said:?}");
    }
}

#[test]
fn clients_that_never_speak_do_not_shut_others_out() {
    let authority = Authority::new();
    let (_gateway, port) = gateway(&authority, json!({}));
    let root = path(authority.root());
    let resolve = format!("a.test:{port}:127.0.0.1");
    let url = format!("https://a.test:{port}/");
    // More than a shard shakes hands with at once.
    let silent: Vec<TcpStream> = (0..1_200).map(|_| TcpStream::connect(local(port)).expect("a connection")).collect();
    assert_eq!(curl(&["--cacert", &root, "--resolve", &resolve, &url]).stdout, "hello200");
    // The oldest have made room.
    let mut first = Peer::new(silent.into_iter().next().expect("one"));
    assert!(first.closes());
}

#[test]
fn a_redirect_stays_with_tls() {
    let authority = Authority::new();
    let port = free_port();
    let tls = authority.issue(&["a.test"]).listener();
    let routes = json!([{ "policies": { "requestRedirect": { "path": { "full": "/there" } } } }]);
    let _gateway = Gateway::start(&bind(port, json!([{ "tls": tls, "routes": routes }])).to_string());
    let root = path(authority.root());
    let resolve = format!("a.test:{port}:127.0.0.1");
    let url = format!("https://a.test:{port}/here");
    let said = curl(&["--cacert", &root, "--resolve", &resolve, "-D", "-", &url]);
    assert!(said.stdout.contains(&format!("location: https://a.test:{port}/there")), "{said:?}");
}

#[test]
fn a_bad_file_is_a_fault_with_its_place() {
    let authority = Authority::new();
    let (one, other) = (authority.issue(&["a.test"]), authority.issue(&["a.test"]));
    let tls = json!({ "cert": one.cert, "key": other.key });
    let ended = Setup::new(&bind(free_port(), json!([{ "tls": tls, "routes": says("") }])).to_string()).run_to_end();
    assert_ne!(ended.code, Some(0));
    assert!(
        ended.stderr.contains("binds[0].listeners[0].tls.key: does not belong to the certificate"),
        "{}",
        ended.stderr
    );
}
