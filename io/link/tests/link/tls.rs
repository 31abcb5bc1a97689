//! Server connections over TLS.

use std::future::Future;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use agentlane_link::server::{ConnError, Connection, ServerLimits};
use agentlane_link::tls::{AltName, Secured, ServerTls, TlsError, Version, accept};
use agentlane_link::{Detached, Drain};
use agentlane_runtime::local::Notify;
use agentlane_runtime::{Driver, ListenOptions, Listener, now, spawn};
use agentlane_wire::h1::Framing;
use bytes::Bytes;
use rustls::{ClientConnection, HandshakeKind};

use crate::certs::{Authority, TlsPeer, VERSIONS, expect, head, peer, send, socket};
use crate::{PATIENCE, each_driver, part, shard, short};

const BOTH: (Version, Version) = (Version::Tls12, Version::Tls13);

/// A TLS server on a shard of its own; the thread gives the outcome of each handshake, and ends when all are handled.
struct TlsServer {
    addr: SocketAddr,
    thread: JoinHandle<Vec<Result<&'static str, TlsError>>>,
}

impl TlsServer {
    fn start<H, F>(driver: Driver, connections: usize, tls: ServerTls, limits: ServerLimits, handle: H) -> TlsServer
    where
        H: Fn(Secured<()>, Rc<ServerLimits>, Drain) -> F + Send + Clone + 'static,
        F: Future<Output = ()> + 'static,
    {
        let (told, addr) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let outcomes = Arc::new(Mutex::new(Vec::new()));
            shard(driver, || {
                let outcomes = outcomes.clone();
                async move {
                    let listener =
                        Listener::bind_tcp("127.0.0.1:0".parse().unwrap(), &ListenOptions::default()).unwrap();
                    told.send(listener.local_addr().unwrap()).unwrap();
                    let (limits, drain, done) = (Rc::new(limits), Drain::new(), Notify::new());
                    for _ in 0..connections {
                        let (stream, _) = listener.accept().await.unwrap();
                        let (tls, handle, outcomes) = (tls.clone(), handle.clone(), outcomes.clone());
                        let (limits, drain, done) = (limits.clone(), drain.clone(), done.clone());
                        spawn(async move {
                            let due = now() + limits.head_time;
                            let choose = |name: Option<&str>| (name == Some("localhost")).then_some((tls, ()));
                            let secured = accept(stream, Some(due), choose).await;
                            let outcome = secured.as_ref().map(|secured| secured.version).map_err(|error| *error);
                            if let Ok(secured) = secured {
                                handle(secured, limits, drain).await;
                            }
                            outcomes.lock().unwrap().push(outcome);
                            done.notify_one();
                        });
                    }
                    while outcomes.lock().unwrap().len() < connections {
                        done.notified().await;
                    }
                }
            });
            Arc::try_unwrap(outcomes).unwrap().into_inner().unwrap()
        });
        TlsServer { addr: addr.recv_timeout(PATIENCE).unwrap(), thread }
    }

    fn join(self) -> Vec<Result<&'static str, TlsError>> {
        self.thread.join().unwrap()
    }
}

/// Answers with path and body until the connection ends.
async fn echo(secured: Secured<()>, limits: Rc<ServerLimits>, drain: Drain) {
    serve(Connection::new(secured.transport, limits, &drain)).await;
}

async fn serve(mut connection: Connection) {
    while let Ok(Some(head)) = connection.head().await {
        let Ok(body) = connection.body_all(100_000).await else { break };
        let text = format!("{} {}", head.path(), String::from_utf8_lossy(&body));
        if connection.respond(200, |_| (), part(text)).await.is_err() {
            break;
        }
    }
    connection.close().await;
}

fn answer(text: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len())
}

fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Reads to the end; whether the server said that it was the end.
fn ends_properly(peer: &mut TlsPeer) -> bool {
    let mut rest = Vec::new();
    match peer.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "{error}");
            false
        }
    }
}

#[test]
fn requests_are_answered_in_both_versions_and_the_end_is_told() {
    let authority = Authority::new();
    each_driver(|driver| {
        let server = TlsServer::start(driver, 2, authority.server(BOTH, &[]), ServerLimits::default(), echo);
        for version in VERSIONS {
            let mut peer = peer(server.addr, &Arc::new(authority.peer_config(version, None)));
            for body in ["", "one", &"x".repeat(50_000)] {
                send(&mut peer, post("/a", body));
                expect(&mut peer, &answer(&format!("/a {body}")));
            }
            // Two at once, and the end behind them.
            send(&mut peer, post("/b", "") + "GET /c HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            expect(&mut peer, &answer("/b "));
            assert!(head(&mut peer).contains("connection: close"));
            expect(&mut peer, "/c ");
            assert!(ends_properly(&mut peer));
        }
        assert_eq!(server.join(), [Ok("TLSv1.2"), Ok("TLSv1.3")]);
    });
}

#[test]
fn a_handshake_and_a_request_in_single_bytes() {
    let authority = Authority::new();
    each_driver(|driver| {
        let server = TlsServer::start(driver, 2, authority.server(BOTH, &[]), ServerLimits::default(), echo);
        for version in VERSIONS {
            let config = Arc::new(authority.peer_config(version, None));
            let mut client = ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
            let mut socket = socket(TcpStream::connect(server.addr).unwrap());
            let request = post("/slow", "body");
            let mut sent = false;
            let mut answered = Vec::new();
            while answered.len() < answer("/slow body").len() {
                if !client.is_handshaking() && !sent {
                    client.writer().write_all(request.as_bytes()).unwrap();
                    sent = true;
                }
                let mut records = Vec::new();
                while client.wants_write() {
                    client.write_tls(&mut records).unwrap();
                }
                records.chunks(1).for_each(|byte| socket.write_all(byte).unwrap());
                if !records.is_empty() && client.is_handshaking() || sent {
                    while client.read_tls(&mut socket).is_err_and(|error| error.kind() == ErrorKind::Interrupted) {}
                    client.process_new_packets().unwrap();
                    let _ = client.reader().read_to_end(&mut answered);
                }
            }
            assert_eq!(String::from_utf8(answered).unwrap(), answer("/slow body"));
        }
        server.join();
    });
}

#[test]
fn what_ends_without_a_goodbye_was_cut() {
    let authority = Authority::new();
    each_driver(|driver| {
        for goodbye in [false, true] {
            let (told, outcome) = mpsc::channel();
            let told = Arc::new(Mutex::new(told));
            let handle = move |secured: Secured<()>, limits, drain| {
                let told = told.clone();
                async move {
                    let mut connection = Connection::new(secured.transport, limits, &drain);
                    assert!(connection.head().await.unwrap().is_some());
                    let error = connection.body_all(1000).await.unwrap_err();
                    told.lock().unwrap().send(format!("{error}")).unwrap();
                }
            };
            let server = TlsServer::start(driver, 1, authority.server(BOTH, &[]), ServerLimits::default(), handle);
            let mut peer = peer(server.addr, &Arc::new(authority.peer_config(Version::Tls13, None)));
            send(&mut peer, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf");
            if goodbye {
                peer.conn.send_close_notify();
                peer.conn.write_tls(&mut peer.sock).unwrap();
            }
            peer.sock.shutdown(Shutdown::Write).unwrap();
            // A body by length is cut either way: by the end of the socket, or by the end that was told.
            let error = outcome.recv_timeout(PATIENCE).unwrap();
            assert!(error.contains("went away"), "{error}");
            server.join();
        }
    });
}

#[test]
fn a_cut_answer_is_seen_to_be_cut() {
    let authority = Authority::new();
    each_driver(|driver| {
        let handle = |secured: Secured<()>, limits, drain| async move {
            let mut connection = Connection::new(secured.transport, limits, &drain);
            assert!(connection.head().await.unwrap().is_some());
            // HTTP/1.0: the end of the body is the end of the connection.
            connection.start(200, Framing::UntilClose, |_| ()).unwrap();
            connection.write_chunk(part("a part")).await.unwrap();
            connection.close().await;
        };
        let server = TlsServer::start(driver, 1, authority.server(BOTH, &[]), short(), handle);
        let mut peer = peer(server.addr, &Arc::new(authority.peer_config(Version::Tls13, None)));
        send(&mut peer, "GET / HTTP/1.0\r\n\r\n");
        head(&mut peer);
        expect(&mut peer, "a part");
        assert!(!ends_properly(&mut peer));
        server.join();
    });
}

#[test]
fn large_bodies_both_ways_at_once() {
    const TOTAL: usize = 6 * 1024 * 1024;
    let authority = Authority::new();
    each_driver(|driver| {
        let handle = |secured: Secured<()>, limits, drain| async move {
            let mut connection = Connection::new(secured.transport, limits, &drain);
            assert!(connection.head().await.unwrap().is_some());
            connection.start(200, Framing::Length(TOTAL as u64), |_| ()).unwrap();
            let (body, writer) = connection.duplex().await.unwrap();
            while let Some(piece) = body.chunk().await.unwrap() {
                writer.write(part(piece)).await.unwrap();
            }
            writer.finish(part(Bytes::new())).await.unwrap();
            connection.close().await;
        };
        let server = TlsServer::start(driver, 1, authority.server(BOTH, &[]), ServerLimits::default(), handle);
        let config = Arc::new(authority.peer_config(Version::Tls13, None));
        let mut client = ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
        let mut socket = socket(TcpStream::connect(server.addr).unwrap());
        while client.is_handshaking() {
            client.complete_io(&mut socket).unwrap();
        }
        // The reader begins only when the writer cannot go on: what is in between is in the kernel, and nowhere else.
        let body: Vec<u8> = (0..TOTAL).map(|index| (index / 7) as u8).collect();
        let head = format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {TOTAL}\r\n\r\n");
        let message = [head.as_bytes(), &body].concat();
        socket.set_nonblocking(true).unwrap();
        let (mut sent, mut got, deadline) = (0, Vec::new(), Instant::now() + 3 * PATIENCE);
        while !got.ends_with(&body[TOTAL - 4096..]) || got.len() < TOTAL {
            assert!(Instant::now() < deadline, "sent {sent}, got {}", got.len());
            if sent < message.len() {
                sent += client.writer().write(&message[sent..]).unwrap();
            }
            let blocked =
                |error: &std::io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted);
            let mut full = false;
            while client.wants_write() && !full {
                full = client.write_tls(&mut socket).err().as_ref().is_some_and(blocked);
            }
            if full || sent == message.len() {
                match client.read_tls(&mut socket) {
                    Err(error) if blocked(&error) => std::thread::yield_now(),
                    outcome => assert!(outcome.unwrap() > 0),
                }
                client.process_new_packets().unwrap();
                let _ = client.reader().read_to_end(&mut got);
            }
        }
        assert!(got.ends_with(&body), "the bytes are not the same");
        drop(socket);
        server.join();
    });
}

#[test]
fn a_handshake_has_its_time() {
    let authority = Authority::new();
    each_driver(|driver| {
        let server = TlsServer::start(driver, 2, authority.server(BOTH, &[]), short(), echo);
        let began = Instant::now();
        let silent = TcpStream::connect(server.addr).unwrap();
        let mut slow = TcpStream::connect(server.addr).unwrap();
        slow.write_all(&[22, 3, 1]).unwrap();
        assert_eq!(server.join(), [Err(TlsError::Timeout), Err(TlsError::Timeout)]);
        assert!(began.elapsed() >= Duration::from_millis(300) && began.elapsed() < PATIENCE);
        drop((silent, slow));
    });
}

#[test]
fn sessions_are_resumed_and_only_where_they_began() {
    let authority = Authority::new();
    each_driver(|driver| {
        for version in VERSIONS {
            let config = Arc::new(authority.peer_config(version, None));
            let mut kinds = Vec::new();
            for tls in [authority.server(BOTH, &[]), authority.server(BOTH, &[])] {
                let server = TlsServer::start(driver, 2, tls, ServerLimits::default(), echo);
                for _ in 0..2 {
                    let mut peer = peer(server.addr, &config);
                    send(&mut peer, post("/", ""));
                    expect(&mut peer, &answer("/ "));
                    kinds.push(peer.conn.handshake_kind().unwrap());
                }
                server.join();
            }
            let full = |kind: &HandshakeKind| *kind != HandshakeKind::Resumed;
            assert_eq!(kinds.iter().map(full).collect::<Vec<_>>(), [true, false, true, false], "{version:?}");
        }
    });
}

#[test]
fn what_is_refused_is_refused_with_an_alert() {
    let authority = Authority::new();
    each_driver(|driver| {
        let server = TlsServer::start(driver, 4, authority.server(BOTH, &[]), ServerLimits::default(), echo);
        // No TLS.
        let mut plain = socket(TcpStream::connect(server.addr).unwrap());
        plain.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut alert = Vec::new();
        let _ = plain.read_to_end(&mut alert);
        assert_eq!(alert.first(), Some(&21), "{alert:?}");
        // Another name, no name, another protocol.
        let config = authority.peer_config(Version::Tls13, None);
        let mut other_protocol = config.clone();
        other_protocol.alpn_protocols = vec![b"spdy/3".to_vec()];
        let cases = [
            ("elsewhere.test", config.clone(), "Unrecognis"),
            ("127.0.0.1", config, "Unrecognis"),
            ("localhost", other_protocol, "NoApplicationProtocol"),
        ];
        for (name, config, alert) in cases {
            let mut client = ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
            let mut socket = socket(TcpStream::connect(server.addr).unwrap());
            let error = client.complete_io(&mut socket).expect_err("refused").to_string();
            assert!(error.contains(alert), "{name}: {error}");
        }
        let outcomes = server.join();
        assert!(outcomes.iter().all(Result::is_err), "{outcomes:?}");
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Err(TlsError::UnknownName)).count(), 2);
    });
}

#[test]
fn clients_are_known_by_their_certificates() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    each_driver(|driver| {
        for version in VERSIONS {
            let tls = authority.server(BOTH, std::slice::from_ref(&authority.root));
            let (told, identities) = mpsc::channel();
            let told = Arc::new(Mutex::new(told));
            let handle = move |secured: Secured<()>, limits: Rc<ServerLimits>, drain| {
                told.lock().unwrap().send(secured.identity.clone()).unwrap();
                echo(secured, limits, drain)
            };
            let server = TlsServer::start(driver, 5, tls, ServerLimits::default(), handle);
            let known = authority.issue("agent 7", &["agent.test", "10.0.0.7"]);
            let config = Arc::new(authority.peer_config(version, Some(&known)));
            // Twice: a session that is resumed keeps who began it.
            for resumed in [false, true] {
                let mut peer = peer(server.addr, &config);
                send(&mut peer, post("/", ""));
                expect(&mut peer, &answer("/ "));
                assert_eq!(peer.conn.handshake_kind() == Some(HandshakeKind::Resumed), resumed);
                let identity = identities.recv_timeout(PATIENCE).unwrap().expect("an identity");
                assert!(identity.subject.contains("CN=agent 7"), "{}", identity.subject);
                let names = [AltName::Dns("agent.test".into()), AltName::Ip([10, 0, 0, 7].into())];
                assert_eq!(identity.alt_names, names);
                let digest = ring::digest::digest(&ring::digest::SHA256, &known.chain[0]);
                assert_eq!(&identity.fingerprint[..], digest.as_ref());
            }
            let refused = [
                None,
                Some(foreign.issue("stranger", &["agent.test"])),
                Some(authority.issue_until("past", &["agent.test"], 2001)),
            ];
            for identity in &refused {
                let mut peer = peer(server.addr, &Arc::new(authority.peer_config(version, identity.as_ref())));
                let outcome = peer.write_all(post("/", "").as_bytes()).and_then(|()| peer.read_exact(&mut [0]));
                assert!(outcome.is_err());
            }
            let outcomes = server.join();
            assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 2, "{outcomes:?}");
        }
    });
}

#[test]
fn a_client_that_says_goodbye_is_gone() {
    let authority = Authority::new();
    each_driver(|driver| {
        for version in VERSIONS {
            let handle = |secured: Secured<()>, limits, drain| async move {
                let mut connection = Connection::new(secured.transport, limits, &drain);
                assert!(connection.head().await.unwrap().is_some());
                connection.start_stream(200, |_| ()).unwrap();
                connection.flush().await.unwrap();
                connection.closed().await;
            };
            let server = TlsServer::start(driver, 1, authority.server(BOTH, &[]), ServerLimits::default(), handle);
            let mut peer = peer(server.addr, &Arc::new(authority.peer_config(version, None)));
            send(&mut peer, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
            head(&mut peer);
            peer.conn.send_close_notify();
            peer.conn.write_tls(&mut peer.sock).unwrap();
            // The socket stays open: the goodbye alone is enough.
            server.join();
        }
    });
}

#[test]
fn a_connection_moves_to_another_shard_with_its_keys() {
    let authority = Authority::new();
    each_driver(|driver| {
        for version in VERSIONS {
            let (moved, arrives) = mpsc::channel::<(Detached, Bytes)>();
            let moved = Arc::new(Mutex::new(moved));
            let handle = move |secured: Secured<()>, limits, drain| {
                let moved = moved.clone();
                async move {
                    let mut connection = Connection::new(secured.transport, limits, &drain);
                    assert!(connection.head().await.unwrap().is_some());
                    connection.respond(200, |_| (), part("here")).await.unwrap();
                    let head = connection.head().await.unwrap().unwrap();
                    moved.lock().unwrap().send(connection.migrate(head).unwrap()).unwrap();
                }
            };
            let server = TlsServer::start(driver, 1, authority.server(BOTH, &[]), ServerLimits::default(), handle);
            let other = std::thread::spawn(move || {
                let (socket, bytes) = arrives.recv_timeout(PATIENCE).unwrap();
                shard(driver, || async move {
                    let limits = Rc::new(ServerLimits::default());
                    serve(Connection::from_migrated(socket, bytes, limits, &Drain::new()).unwrap()).await;
                });
            });
            let mut peer = peer(server.addr, &Arc::new(authority.peer_config(version, None)));
            send(&mut peer, post("/", ""));
            expect(&mut peer, &answer("here"));
            for body in ["with a body", "and again"] {
                send(&mut peer, post("/there", body));
                expect(&mut peer, &answer(&format!("/there {body}")));
            }
            peer.conn.send_close_notify();
            peer.conn.write_tls(&mut peer.sock).unwrap();
            assert!(ends_properly(&mut peer));
            server.join();
            other.join().unwrap();
        }
    });
}

#[test]
fn a_record_that_does_not_decrypt_ends_the_connection() {
    let authority = Authority::new();
    each_driver(|driver| {
        let (told, outcome) = mpsc::channel();
        let told = Arc::new(Mutex::new(told));
        let handle = move |secured: Secured<()>, limits, drain| {
            let told = told.clone();
            async move {
                let mut connection = Connection::new(secured.transport, limits, &drain);
                assert!(connection.head().await.unwrap().is_some());
                let outcome = connection.body_all(100).await;
                told.lock().unwrap().send(matches!(outcome, Err(ConnError::Closed(ErrorKind::InvalidData)))).unwrap();
                connection.close().await;
            }
        };
        let server = TlsServer::start(driver, 1, authority.server(BOTH, &[]), short(), handle);
        let mut peer = peer(server.addr, &Arc::new(authority.peer_config(Version::Tls13, None)));
        send(&mut peer, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf");
        peer.sock
            .write_all(&[23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20])
            .unwrap();
        assert!(outcome.recv_timeout(PATIENCE).unwrap());
        let error = peer.read_to_end(&mut Vec::new()).expect_err("an alert").to_string();
        assert!(error.contains("BadRecordMac"), "{error}");
        server.join();
    });
}
