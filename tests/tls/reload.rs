//! Certificates that change while clients talk: no connection is dropped, and no handshake fails.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};
use serde_json::json;

use crate::support::gateway::{Gateway, Setup, local};
use crate::support::tls::{Authority, Pair, client};
use crate::support::{PATIENCE, eventually, free_port};
use crate::{bind, says};

type Client = StreamOwned<ClientConnection, TcpStream>;

fn connect(port: u16, config: &Arc<ClientConfig>) -> Client {
    let stream = TcpStream::connect(local(port)).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let connection = ClientConnection::new(config.clone(), "a.test".try_into().expect("a name"));
    StreamOwned::new(connection.expect("a connection"), stream)
}

/// One request; the connection stays.
fn ask(client: &mut Client) {
    client.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").expect("a request");
    let (mut got, mut byte) = (Vec::new(), [0]);
    while !got.ends_with(b"\r\n\r\nhello") {
        client.read_exact(&mut byte).expect("an answer");
        got.push(byte[0]);
    }
    assert!(got.starts_with(b"HTTP/1.1 200 OK\r\n"));
}

/// The certificate that a new connection is shown.
fn shown(port: u16, config: &Arc<ClientConfig>) -> Vec<u8> {
    let mut client = connect(port, config);
    ask(&mut client);
    client.conn.peer_certificates().expect("a certificate")[0].to_vec()
}

/// Clients that connect and ask without a pause until they are told to stop; a failed one fails the test.
struct Load {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(port: u16, config: &Arc<ClientConfig>) -> Self {
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let threads = (0..2).map(|_| {
            let (stop, asked, config) = (stop.clone(), asked.clone(), config.clone());
            std::thread::spawn(move || {
                let mut kept = connect(port, &config);
                while !stop.load(Ordering::Relaxed) {
                    ask(&mut kept);
                    let mut fresh = connect(port, &config);
                    ask(&mut fresh);
                    ask(&mut fresh);
                    asked.fetch_add(3, Ordering::Relaxed);
                }
                ask(&mut kept);
            })
        });
        let threads = threads.collect();
        Load { stop, asked, threads }
    }

    /// How often they have asked.
    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("every request is answered"));
        self.asked.load(Ordering::Relaxed)
    }
}

/// Puts a new certificate and key in the place of the old ones, as careful tools do.
fn renew(authority: &Authority, pair: &Pair) {
    let (cert, key) = authority.sign(&["a.test"], 2100);
    for (file, text) in [(&pair.key, key), (&pair.cert, cert)] {
        let next = file.with_extension("next");
        std::fs::write(&next, text).expect("a file");
        std::fs::rename(next, file).expect("a file in place");
    }
}

fn in_use(gateway: &Gateway) -> usize {
    gateway.stderr().matches("configuration is in use").count()
}

#[test]
fn a_certificate_is_renewed_under_load() {
    let authority = Authority::new();
    let pair = authority.issue(&["a.test"]);
    let port = free_port();
    let config = bind(port, json!([{ "tls": pair.listener(), "routes": says("hello") }]));
    let gateway = Setup::new(&config.to_string()).args(&["--shards", "2"]).start();
    let client = client(&authority.root(), None);
    let load = Load::start(port, &client);
    let mut known = vec![shown(port, &client)];
    for _ in 0..4 {
        renew(&authority, &pair);
        let mut last = Vec::new();
        eventually("a new certificate is shown", || {
            last = shown(port, &client);
            !known.contains(&last)
        });
        known.push(last);
    }
    // Asked for at once as well, without a change and without an effect.
    let before = in_use(&gateway);
    gateway.signal(libc::SIGHUP);
    eventually("the configuration is read again", || in_use(&gateway) > before);
    assert_eq!(Some(&shown(port, &client)), known.last());
    let asked = load.end();
    assert!(asked > 50, "{asked}");
    assert_eq!(gateway.metric("agentlane_tls_handshakes_total", "outcome=\"failed\""), 0.0);
}

#[test]
fn a_bad_certificate_changes_nothing_and_says_why() {
    let authority = Authority::new();
    let pair = authority.issue(&["a.test"]);
    let port = free_port();
    let config = bind(port, json!([{ "tls": pair.listener(), "routes": says("hello") }]));
    let gateway = Gateway::start(&config.to_string());
    let client = client(&authority.root(), None);
    let first = shown(port, &client);
    // Half of a renewal: a certificate that the key is not for.
    let (cert, _) = authority.sign(&["a.test"], 2100);
    std::fs::write(&pair.cert, cert).expect("a file");
    eventually("it is said why", || gateway.stderr().contains("tls.key: does not belong to the certificate"));
    assert_eq!(shown(port, &client), first);
    renew(&authority, &pair);
    eventually("the whole renewal is in use", || shown(port, &client) != first);
}

#[test]
fn tickets_outlive_a_reload_that_leaves_the_listener_as_it_is() {
    let authority = Authority::new();
    let pair = authority.issue(&["a.test"]);
    let port = free_port();
    let config = |text: &str| bind(port, json!([{ "tls": pair.listener(), "routes": says(text) }])).to_string();
    let gateway = Gateway::start(&config("hello"));
    let client = client(&authority.root(), None);
    shown(port, &client);
    let kind = || {
        let mut connection = connect(port, &client);
        ask(&mut connection);
        connection.conn.handshake_kind().expect("a handshake")
    };
    assert_eq!(kind(), HandshakeKind::Resumed);
    let mut other = bind(port, json!([{ "tls": pair.listener(), "routes": says("hello") }]));
    other["binds"]
        .as_array_mut()
        .expect("a list")
        .push(bind(free_port(), json!([{ "routes": says("more") }]))["binds"][0].clone());
    gateway.reload(&other.to_string());
    assert_eq!(kind(), HandshakeKind::Resumed);
    renew(&authority, &pair);
    eventually("another certificate begins other sessions", || kind() != HandshakeKind::Resumed);
}

#[test]
fn a_port_that_turns_to_tls_serves_no_plain_connection_on() {
    use crate::support::wire::Peer;
    let authority = Authority::new();
    let port = free_port();
    let gateway = Gateway::start(&bind(port, json!([{ "routes": says("hello") }])).to_string());
    let mut plain = Peer::connect(local(port));
    assert_eq!(plain.get("/").status, 200);
    let tls = authority.issue(&["a.test"]).listener();
    gateway.reload(&bind(port, json!([{ "tls": tls, "routes": says("hello") }])).to_string());
    assert_eq!(plain.get("/").status, 421);
    assert!(plain.closes());
    shown(port, &client(&authority.root(), None));
}
