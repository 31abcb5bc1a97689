//! Upstream connections over TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use agentlane_link::client::{ClientConnection, ClientError, ClientErrorKind, ClientLimits, Pool, Progress, Spoken};
use agentlane_link::tls::{ClientTls, TlsError, Trust, Version};
use agentlane_runtime::Parts;
use agentlane_wire::h1::{Framing, Method, request_head};
use bytes::{Bytes, BytesMut};
use rustls::{HandshakeKind, ServerConfig};

use crate::certs::{Authority, TlsUpstream, VERSIONS, expect, head, send, upstream_peer};
use crate::{each_driver, part, shard};

fn message(method: &str, framing: Framing) -> Bytes {
    let mut head = BytesMut::new();
    request_head(&mut head, method, "/").header("host", "u").framing(framing).finish().unwrap();
    head.freeze()
}

async fn get(connection: &mut ClientConnection) -> Result<String, ClientError> {
    connection.send(Method::Get, message("GET", Framing::None), Parts::new()).await?;
    let answer = connection.response_head().await?;
    let body = connection.body_all(16 << 20).await?;
    Ok(format!("{} {}", answer.status, String::from_utf8_lossy(&body)))
}

/// A TLS upstream of `connections` connections, one after the other; gives what `handle` gave for each.
fn upstream<T: Send + 'static>(
    connections: usize,
    config: ServerConfig,
    handle: impl Fn(TlsUpstream, usize) -> T + Send + 'static,
) -> (SocketAddr, JoinHandle<Vec<T>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let config = Arc::new(config);
    let thread = std::thread::spawn(move || {
        let serve = |number| handle(upstream_peer(listener.accept().unwrap().0, &config), number);
        (0..connections).map(serve).collect()
    });
    (addr, thread)
}

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

#[test]
fn requests_go_out_and_connections_are_reused() {
    let authority = Authority::new();
    each_driver(|driver| {
        for version in VERSIONS {
            let config = authority.upstream_config(version, &authority.issue("up", &["up.test"]));
            let (addr, thread) = upstream(1, config, |mut peer, _| {
                for _ in 0..3 {
                    assert!(head(&mut peer).starts_with("GET / HTTP/1.1"));
                    send(&mut peer, ANSWER);
                }
                // The pool says goodbye when it is dropped.
                assert_eq!(peer.read(&mut [0]).unwrap(), 0);
            });
            let tls = authority.client("up.test", Trust::Verify, None);
            shard(driver, || async move {
                let pool = Pool::new(ClientLimits::default());
                for number in 0..3 {
                    let mut connection = pool.endpoint(addr, Some(&tls), Spoken::Http1).connection().await.unwrap();
                    assert_eq!(connection.is_reused(), number > 0);
                    assert_eq!(get(&mut connection).await.unwrap(), "200 hi");
                }
                pool.clear();
            });
            thread.join().unwrap();
        }
    });
}

#[test]
fn servers_are_trusted_as_far_as_was_asked() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let good = authority.issue("up", &["up.test"]);
    let strange = foreign.issue("up", &["up.test"]);
    let past = authority.issue_until("up", &["up.test"], 2001);
    let refused = |why| Err(ClientErrorKind::Handshake(TlsError::Certificate(why)));
    let cases = [
        (&good, "up.test", Trust::Verify, Ok(())),
        (&good, "other.test", Trust::Verify, refused("for another name")),
        (&good, "127.0.0.1", Trust::Verify, refused("for another name")),
        (&good, "other.test", Trust::AnyName, Ok(())),
        (&strange, "up.test", Trust::Verify, refused("issued by nobody that is trusted")),
        (&strange, "up.test", Trust::AnyName, refused("issued by nobody that is trusted")),
        (&strange, "up.test", Trust::Anything, Ok(())),
        (&past, "up.test", Trust::Verify, refused("expired")),
        (&past, "up.test", Trust::AnyName, refused("expired")),
        (&past, "other.test", Trust::Anything, Ok(())),
    ];
    each_driver(|driver| {
        for version in VERSIONS {
            for (issued, name, trust, expected) in &cases {
                let (addr, thread) = upstream(1, authority.upstream_config(version, issued), |mut peer, _| {
                    let mut head = [0; 3];
                    if peer.read_exact(&mut head).is_ok() {
                        let _ = peer.write_all(ANSWER.as_bytes());
                    }
                });
                let tls = authority.client(name, *trust, None);
                let outcome = shard(driver, || async move {
                    let pool = Pool::new(ClientLimits::default());
                    let connection = pool.endpoint(addr, Some(&tls), Spoken::Http1).connection().await;
                    let mut connection = connection.map_err(|error| {
                        assert_eq!(error.progress, Progress::NotSent);
                        error.kind
                    })?;
                    get(&mut connection).await.map(drop).map_err(|error| error.kind)
                });
                thread.join().unwrap();
                assert_eq!(outcome, *expected, "{name} {trust:?} {version:?}");
            }
        }
    });
}

#[test]
fn an_answer_until_the_close_needs_the_goodbye() {
    let authority = Authority::new();
    each_driver(|driver| {
        for goodbye in [true, false] {
            let config = authority.upstream_config(Version::Tls13, &authority.issue("up", &["up.test"]));
            let (addr, thread) = upstream(1, config, move |mut peer, _| {
                head(&mut peer);
                send(&mut peer, "HTTP/1.1 200 OK\r\n\r\nuntil close");
                if goodbye {
                    peer.conn.send_close_notify();
                    peer.conn.write_tls(&mut peer.sock).unwrap();
                }
            });
            let tls = authority.client("up.test", Trust::Verify, None);
            let outcome = shard(driver, || async move {
                let pool = Pool::new(ClientLimits::default());
                get(&mut pool.endpoint(addr, Some(&tls), Spoken::Http1).connection().await.unwrap()).await
            });
            thread.join().unwrap();
            match goodbye {
                true => assert_eq!(outcome.unwrap(), "200 until close"),
                false => {
                    let kind = outcome.unwrap_err().kind;
                    assert_eq!(kind, ClientErrorKind::Read(std::io::ErrorKind::UnexpectedEof));
                }
            }
        }
    });
}

#[test]
fn a_server_that_said_goodbye_is_not_asked_again() {
    let authority = Authority::new();
    each_driver(|driver| {
        let config = authority.upstream_config(Version::Tls13, &authority.issue("up", &["up.test"]));
        let (addr, thread) = upstream(2, config, |mut peer, number| {
            head(&mut peer);
            // In one write, so that the goodbye is known when the answer is.
            peer.conn.writer().write_all(ANSWER.as_bytes()).unwrap();
            peer.conn.send_close_notify();
            let mut records = Vec::new();
            while peer.conn.wants_write() {
                peer.conn.write_tls(&mut records).unwrap();
            }
            peer.sock.write_all(&records).unwrap();
            number
        });
        let tls = authority.client("up.test", Trust::Verify, None);
        shard(driver, || async move {
            let pool = Pool::new(ClientLimits::default());
            for _ in 0..2 {
                let mut connection = pool.endpoint(addr, Some(&tls), Spoken::Http1).connection().await.unwrap();
                assert!(!connection.is_reused());
                assert_eq!(get(&mut connection).await.unwrap(), "200 hi");
            }
        });
        thread.join().unwrap();
    });
}

#[test]
fn identities_are_never_mixed_and_sessions_are_resumed() {
    let authority = Authority::new();
    each_driver(|driver| {
        for version in VERSIONS {
            let mut config = authority.upstream_config(version, &authority.issue("up", &["up.test"]));
            config.ticketer = rustls::crypto::ring::Ticketer::new().unwrap();
            let (addr, thread) = upstream(3, config, |mut peer, _| {
                head(&mut peer);
                send(&mut peer, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi");
                peer.conn.handshake_kind().unwrap() == HandshakeKind::Resumed
            });
            let make = || authority.client("up.test", Trust::Verify, None);
            let (one, two): (ClientTls, ClientTls) = (make(), make());
            assert_ne!(one.id(), two.id());
            shard(driver, || async move {
                let pool = Pool::new(ClientLimits::default());
                let (one, two) =
                    (pool.endpoint(addr, Some(&one), Spoken::Http1), pool.endpoint(addr, Some(&two), Spoken::Http1));
                for endpoint in [&one, &two, &one] {
                    let mut connection = endpoint.connection().await.unwrap();
                    assert_eq!(get(&mut connection).await.unwrap(), "200 hi");
                }
            });
            assert_eq!(thread.join().unwrap(), [false, false, true], "{version:?}");
        }
    });
}

#[test]
fn connections_of_two_identities_or_without_tls_are_never_mixed() {
    let authority = Authority::new();
    each_driver(|driver| {
        let config = authority.upstream_config(Version::Tls13, &authority.issue("up", &["up.test"]));
        let (addr, thread) = upstream(3, config, |mut peer, number| {
            if number < 2 {
                head(&mut peer);
                send(&mut peer, ANSWER);
            }
            // Kept open, so that it could be taken for the other.
            peer
        });
        let make = || authority.client("up.test", Trust::Verify, None);
        let (one, two) = (make(), make());
        shard(driver, || async move {
            let pool = Pool::new(ClientLimits::default());
            for tls in [&one, &two] {
                let mut connection = pool.endpoint(addr, Some(tls), Spoken::Http1).connection().await.unwrap();
                assert!(!connection.is_reused());
                assert_eq!(get(&mut connection).await.unwrap(), "200 hi");
            }
            assert_eq!(pool.idle(), 2);
            let plain = pool.endpoint(addr, None, Spoken::Http1).connection().await.unwrap();
            assert!(!plain.is_reused());
        });
        thread.join().unwrap();
    });
}

#[test]
fn a_server_asks_who_we_are() {
    let authority = Authority::new();
    let ours = authority.issue("gateway", &["gateway.test"]);
    each_driver(|driver| {
        for version in VERSIONS {
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
                authority.roots(),
                Arc::new(rustls::crypto::ring::default_provider()),
            );
            let issued = authority.issue("up", &["up.test"]);
            let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
            let versions: &[_] = match version {
                Version::Tls12 => &[&rustls::version::TLS12],
                Version::Tls13 => &[&rustls::version::TLS13],
            };
            let config = builder
                .with_protocol_versions(versions)
                .unwrap()
                .with_client_cert_verifier(verifier.build().unwrap())
                .with_single_cert(issued.chain.clone(), issued.key.clone_key())
                .unwrap();
            let (addr, thread) = upstream(2, config, |mut peer, _| {
                let mut first = [0; 3];
                let asked = peer.read_exact(&mut first).is_ok();
                if asked {
                    head(&mut peer);
                    send(&mut peer, ANSWER);
                }
                asked
            });
            let with = authority.client("up.test", Trust::Verify, Some(&ours));
            let without = authority.client("up.test", Trust::Verify, None);
            shard(driver, || async move {
                let pool = Pool::new(ClientLimits::default());
                let mut connection = pool.endpoint(addr, Some(&with), Spoken::Http1).connection().await.unwrap();
                assert_eq!(get(&mut connection).await.unwrap(), "200 hi");
                drop(connection);
                // TLS 1.3 tells only after its handshake.
                let outcome = match pool.endpoint(addr, Some(&without), Spoken::Http1).connection().await {
                    Ok(mut connection) => get(&mut connection).await,
                    Err(error) => Err(error),
                };
                assert!(outcome.is_err());
            });
            assert_eq!(thread.join().unwrap(), [true, false], "{version:?}");
        }
    });
}

#[test]
fn a_server_that_stalls_in_the_handshake_is_given_up() {
    let authority = Authority::new();
    each_driver(|driver| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let tls = authority.client("up.test", Trust::Verify, None);
        let error = shard(driver, || async move {
            let limits = ClientLimits { connect_time: Duration::from_millis(200), ..ClientLimits::default() };
            Pool::new(limits).endpoint(addr, Some(&tls), Spoken::Http1).connection().await.err()
        });
        assert_eq!(error.map(|error| error.kind), Some(ClientErrorKind::ConnectTimeout));
        drop(listener);
    });
}

#[test]
fn a_large_upload_meets_a_large_answer() {
    const TOTAL: usize = 3 * 1024 * 1024;
    let authority = Authority::new();
    each_driver(|driver| {
        let config = authority.upstream_config(Version::Tls13, &authority.issue("up", &["up.test"]));
        let (addr, thread) = upstream(1, config, |mut peer, _| {
            head(&mut peer);
            let mut body = vec![0; TOTAL];
            peer.read_exact(&mut body).unwrap();
            send(&mut peer, format!("HTTP/1.1 200 OK\r\nContent-Length: {TOTAL}\r\n\r\n"));
            send(&mut peer, &body);
            expect(&mut peer, "");
            body
        });
        let tls = authority.client("up.test", Trust::Verify, None);
        let body: Bytes = (0..TOTAL).map(|index| (index / 5) as u8).collect::<Vec<u8>>().into();
        let sent = body.clone();
        shard(driver, || async move {
            let pool = Pool::new(ClientLimits::default());
            let mut connection = pool.endpoint(addr, Some(&tls), Spoken::Http1).connection().await.unwrap();
            let framing = Framing::Length(TOTAL as u64);
            // In many parts of odd sizes, several to a write.
            connection.start(Method::Post, message("POST", framing), framing).unwrap();
            let mut left = sent.clone();
            while !left.is_empty() {
                let parts: Parts =
                    [1, 700, 40_000, 3].iter().map(|&size| left.split_to(size.min(left.len()))).collect();
                connection.write(parts).await.unwrap();
            }
            connection.finish(part(Bytes::new())).await.unwrap();
            connection.response_head().await.unwrap();
            assert!(connection.body_all(TOTAL as u64).await.unwrap() == sent, "the bytes are not the same");
        });
        assert!(thread.join().unwrap() == [body.to_vec()]);
    });
}
