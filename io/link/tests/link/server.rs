//! Server connections.

use std::time::{Duration, Instant};

use agentlane_link::server::{ConnError, Connection, ServerLimits};
use agentlane_runtime::{Parts, sleep};
use agentlane_wire::h1::H1Error;
use bytes::Bytes;

use crate::{Peer, Server, each_driver, part, shard, short};

/// Answers with method, path and body until the connection ends.
async fn echo(mut connection: Connection) {
    let error = loop {
        let head = match connection.head().await {
            Ok(Some(head)) => head,
            Ok(None) => return connection.close().await,
            Err(error) => break error,
        };
        let body = match connection.body_all(1000).await {
            Ok(body) => body,
            Err(error) => break error,
        };
        let text = format!("{} {} {}", head.method_str(), head.path(), String::from_utf8_lossy(&body));
        if connection.respond(200, |_| (), part(text)).await.is_err() {
            return;
        }
    };
    let _ = connection.refuse(&error).await;
    connection.close().await;
}

fn answer(text: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len())
}

fn closing(text: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}", text.len())
}

#[test]
fn keep_alive_and_pipelining() {
    each_driver(|driver| {
        let server = Server::start(driver, 1, ServerLimits::default(), echo);
        let mut peer = server.connect();
        for _ in 0..3 {
            peer.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
            peer.expect(answer("GET /a "));
        }
        peer.send(
            "POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi\
             POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nyo\r\n0\r\n\r\n\
             GET /d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /never HTTP/1.1\r\nHost: x\r\n\r\n",
        );
        peer.expect(answer("POST /b hi") + &answer("POST /c yo") + &closing("GET /d "));
        peer.expect_end();
        server.join();
    });
}

#[test]
fn a_request_in_single_bytes() {
    each_driver(|driver| {
        let server = Server::start(driver, 1, ServerLimits::default(), echo);
        let mut peer = server.connect();
        let request = b"\r\nPOST /slow HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: u\r\n\r\n";
        for byte in request.chunks(1) {
            peer.send(byte);
            std::thread::sleep(Duration::from_micros(200));
        }
        peer.expect(answer("POST /slow abcde"));
        drop(peer);
        server.join();
    });
}

#[test]
fn heads_have_no_bodies() {
    each_driver(|driver| {
        let server = Server::start(driver, 1, ServerLimits::default(), |mut connection: Connection| async move {
            for status in [200, 204, 304, 200] {
                assert!(connection.head().await.unwrap().is_some());
                connection.respond(status, |head| _ = head.header("a", "b"), part("four")).await.unwrap();
            }
            assert!(connection.head().await.unwrap().is_some());
            connection.start_stream(200, |_| ()).unwrap();
            connection.write_chunk(part("never seen")).await.unwrap();
            connection.finish().await.unwrap();
            assert!(connection.head().await.unwrap().is_none());
        });
        let mut peer = server.connect();
        peer.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
        peer.expect("HTTP/1.1 200 OK\r\na: b\r\ncontent-length: 4\r\n\r\n");
        peer.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        peer.expect("HTTP/1.1 204 No Content\r\na: b\r\n\r\n");
        peer.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        peer.expect("HTTP/1.1 304 Not Modified\r\na: b\r\ncontent-length: 4\r\n\r\n");
        peer.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        peer.expect("HTTP/1.1 200 OK\r\na: b\r\ncontent-length: 4\r\n\r\nfour");
        peer.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
        peer.expect("HTTP/1.1 200 OK\r\n\r\n");
        drop(peer);
        server.join();
    });
}

#[test]
fn expect_is_answered_when_the_body_is_wanted() {
    each_driver(|driver| {
        let server = Server::start(driver, 3, ServerLimits::default(), |mut connection: Connection| async move {
            while let Some(head) = connection.head().await.unwrap() {
                if head.path() == "/refuse" {
                    connection.respond(403, |_| (), Parts::new()).await.unwrap();
                    continue;
                }
                let body = connection.body_all(100).await.unwrap();
                connection.respond(200, |_| (), part(body)).await.unwrap();
            }
            connection.close().await;
        });
        let head = |path: &str| {
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        };
        let mut peer = server.connect();
        peer.send(head("/"));
        peer.expect("HTTP/1.1 100 Continue\r\n\r\n");
        peer.send("hi");
        peer.expect(answer("hi"));
        // A body that came along is not asked for.
        peer.send(head("/") + "yo");
        peer.expect(answer("yo"));
        drop(peer);
        // Refused without reading: nobody knows whether the body will come, so the connection ends.
        let mut peer = server.connect();
        peer.send(head("/refuse"));
        peer.expect("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        peer.expect_end();
        let mut peer = server.connect();
        peer.send("PUT / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
        std::thread::sleep(Duration::from_millis(50));
        peer.send("hi");
        peer.expect("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi");
        drop(peer);
        server.join();
    });
}

#[test]
fn faults_are_answered_and_end_the_connection() {
    each_driver(|driver| {
        let cases = [
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\nHost: x\n\n", 400),
            ("GET / HTTP/2.0\r\n\r\n", 505),
            ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
            ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n", 417),
            ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n", 413),
            ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400),
        ];
        let server = Server::start(driver, cases.len() + 3, ServerLimits::default(), echo);
        for (request, status) in cases {
            let mut peer = server.connect();
            peer.send(request);
            let head = peer.head();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {head}");
            assert!(head.contains("connection: close\r\n"), "{head}");
            peer.rest();
        }
        let mut peer = server.connect();
        peer.send(format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(20_000)));
        assert!(peer.head().starts_with("HTTP/1.1 414 "));
        peer.rest();
        let mut peer = server.connect();
        peer.send(format!("GET / HTTP/1.1\r\nHost: x\r\na: {}\r\n\r\n", "a".repeat(70_000)));
        assert!(peer.head().starts_with("HTTP/1.1 431 "));
        peer.rest();
        // 413 for chunks, beyond the limit only after some came.
        let mut peer = server.connect();
        peer.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        peer.send(format!("1f4\r\n{0}\r\n1f5\r\n{0}x\r\n", "a".repeat(500)));
        assert!(peer.head().starts_with("HTTP/1.1 413 "));
        peer.rest();
        server.join();
    });
}

#[test]
fn slow_heads_and_bodies_time_out() {
    each_driver(|driver| {
        let server = Server::start(driver, 3, short(), echo);
        let mut slow_head = server.connect();
        let mut slow_body = server.connect();
        let mut silent = server.connect();
        let start = Instant::now();
        slow_body.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe");
        // A byte now and then does not extend the time for a head.
        for byte in b"GET / HTTP/1.1\r\n".chunks(1) {
            slow_head.send(byte);
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(slow_head.head().starts_with("HTTP/1.1 408 "));
        assert!(slow_body.head().starts_with("HTTP/1.1 408 "));
        slow_head.rest();
        slow_body.rest();
        silent.expect_end();
        assert!(start.elapsed() < Duration::from_secs(5));
        server.join();
    });
}

#[test]
fn a_client_that_never_reads_costs_no_memory() {
    each_driver(|driver| {
        let server = Server::start(driver, 1, short(), |mut connection: Connection| async move {
            assert!(connection.head().await.unwrap().is_some());
            connection.start_stream(200, |_| ()).unwrap();
            let piece = Bytes::from(vec![b'x'; 64 * 1024]);
            let mut pieces = 0;
            let error = loop {
                match connection.write_chunk(part(piece.clone())).await {
                    Ok(()) => pieces += 1,
                    Err(error) => break error,
                }
                assert!(pieces < 1000, "64 MB taken from a client that reads nothing");
            };
            assert!(matches!(error, ConnError::WriteTimeout), "{error}");
            assert!(connection.head().await.unwrap().is_none());
        });
        let mut peer = server.connect();
        peer.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        server.join();
    });
}

#[test]
fn streams_in_chunks_or_until_the_close() {
    each_driver(|driver| {
        let server = Server::start(driver, 2, ServerLimits::default(), |mut connection: Connection| async move {
            while connection.head().await.unwrap().is_some() {
                connection.start_stream(200, |_| ()).unwrap();
                connection.flush().await.unwrap();
                connection
                    .write_chunk([Bytes::from("ab"), Bytes::new(), Bytes::from("c")].into_iter().collect())
                    .await
                    .unwrap();
                connection.write_chunk(Parts::new()).await.unwrap();
                connection.write_chunk(part("de")).await.unwrap();
                connection.finish().await.unwrap();
            }
            connection.close().await;
        });
        let mut peer = server.connect();
        peer.send("GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n");
        for _ in 0..2 {
            peer.expect("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
        }
        drop(peer);
        let mut peer = server.connect();
        peer.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        peer.expect("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabcde");
        peer.expect_end();
        server.join();
    });
}

#[test]
fn http_1_0_keeps_a_connection_on_request() {
    each_driver(|driver| {
        let server = Server::start(driver, 1, ServerLimits::default(), echo);
        let mut peer = server.connect();
        peer.send("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        peer.expect("HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: keep-alive\r\n\r\nGET /a ");
        peer.send("GET /b HTTP/1.0\r\n\r\n");
        peer.expect(closing("GET /b "));
        peer.expect_end();
        server.join();
    });
}

#[test]
fn an_unread_body_is_skipped_or_ends_the_connection() {
    each_driver(|driver| {
        let server = Server::start(driver, 3, ServerLimits::default(), |mut connection: Connection| async move {
            while connection.head().await.unwrap().is_some() {
                connection.respond(200, |_| (), Parts::new()).await.unwrap();
            }
            connection.close().await;
        });
        let mut peer = server.connect();
        peer.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n");
        peer.expect("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        peer.send("x".repeat(100_000) + "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        peer.expect("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        peer.send("5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n");
        peer.expect("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        drop(peer);
        let mut peer = server.connect();
        peer.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nx");
        peer.expect("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        peer.rest();
        // Chunks without end: the answer has gone out, the connection ends behind it.
        let mut peer = server.connect();
        peer.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n100000\r\n");
        peer.expect("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        peer.expect_end();
        server.join();
    });
}

#[test]
fn a_drain_ends_idle_connections_and_marks_answers() {
    each_driver(|driver| {
        let server = Server::start_draining(driver, 3, ServerLimits::default(), |mut connection, drain| async move {
            while let Some(head) = connection.head().await.unwrap() {
                if head.path() == "/drain" {
                    sleep(Duration::from_millis(50)).await;
                    drain.start();
                }
                connection.respond(200, |_| (), Parts::new()).await.unwrap();
            }
            connection.close().await;
        });
        let mut fresh = server.connect();
        let mut used = server.connect();
        for _ in 0..3 {
            used.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            used.expect("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
        let mut busy = server.connect();
        busy.send("GET /drain HTTP/1.1\r\nHost: x\r\n\r\n");
        busy.expect("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        busy.expect_end();
        fresh.expect_end();
        used.expect_end();
        server.join();
    });
}

#[test]
fn a_client_that_leaves_is_noticed() {
    each_driver(|driver| {
        let server = Server::start(driver, 1, ServerLimits::default(), |mut connection: Connection| async move {
            assert!(connection.head().await.unwrap().is_some());
            connection.start_stream(200, |_| ()).unwrap();
            connection.flush().await.unwrap();
            // Dropping the wait loses nothing.
            let early = agentlane_runtime::timeout(Duration::from_millis(50), connection.closed()).await;
            assert!(early.is_err());
            connection.write_chunk(part("still here")).await.unwrap();
            connection.closed().await;
        });
        let mut peer = server.connect();
        peer.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        peer.head();
        peer.expect("a\r\nstill here\r\n");
        drop(peer);
        server.join();
    });
}

#[test]
fn a_connection_moves_to_another_thread() {
    each_driver(|driver| {
        let server = Server::start(driver, 1, ServerLimits::default(), move |mut connection: Connection| async move {
            // The second request is the one that moves, with its body and a third behind it.
            connection.head().await.unwrap().unwrap();
            connection.respond(200, |_| (), part("here")).await.unwrap();
            let head = connection.head().await.unwrap().unwrap();
            assert_eq!(head.path(), "/move");
            let (fd, bytes) = connection.migrate(head).unwrap();
            std::thread::spawn(move || {
                shard(driver, || async move {
                    let drain = agentlane_link::Drain::new();
                    let limits = std::rc::Rc::new(ServerLimits::default());
                    echo(Connection::from_migrated(fd, bytes, limits, &drain).unwrap()).await;
                });
            });
        });
        let mut peer = server.connect();
        peer.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        peer.expect(answer("here"));
        peer.send("POST /move HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nhalf");
        server.join();
        peer.send("rest");
        peer.expect(answer("POST /move halfrest"));
        peer.send("GET /d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        peer.expect(closing("GET /d "));
        peer.expect_end();
    });
}

#[test]
fn a_request_that_was_begun_does_not_move() {
    each_driver(|driver| {
        let server = Server::start(driver, 1, ServerLimits::default(), move |mut connection: Connection| async move {
            let head = connection.head().await.unwrap().unwrap();
            connection.body_chunk().await.unwrap();
            assert!(connection.migrate(head).is_err());
        });
        let mut peer = server.connect();
        peer.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi");
        peer.rest();
        server.join();
    });
}

#[test]
fn a_body_that_breaks_off_is_an_error() {
    each_driver(|driver| {
        let server = Server::start(driver, 2, ServerLimits::default(), |mut connection: Connection| async move {
            match connection.head().await {
                Ok(Some(_)) => {
                    let error = connection.body_all(100).await.unwrap_err();
                    assert!(matches!(error, ConnError::Closed(_)), "{error}");
                }
                Ok(None) => panic!("a head was begun"),
                Err(error) => assert!(matches!(error, ConnError::Malformed(H1Error::Truncated)), "{error}"),
            }
        });
        let mut peer = server.connect();
        peer.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\nhi");
        drop(peer);
        let mut peer = server.connect();
        peer.send("POST / HT");
        drop(peer);
        server.join();
    });
}

#[test]
fn a_response_keeps_to_its_length() {
    each_driver(|driver| {
        let server = Server::start(driver, 2, ServerLimits::default(), |mut connection: Connection| async move {
            let head = connection.head().await.unwrap().unwrap();
            connection.start(200, agentlane_wire::h1::Framing::Length(4), |_| ()).unwrap();
            assert!(connection.start_stream(200, |_| ()).is_err());
            connection.write_chunk(part("abc")).await.unwrap();
            let result = if head.path() == "/more" {
                connection.write_chunk(part("de")).await
            } else {
                connection.finish().await
            };
            assert!(matches!(result, Err(ConnError::Response(_))));
            assert!(connection.head().await.unwrap().is_none());
        });
        for path in ["/more", "/less"] {
            let mut peer: Peer = server.connect();
            peer.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
            peer.head();
            assert_eq!(peer.rest(), "abc");
        }
        server.join();
    });
}
