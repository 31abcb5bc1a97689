//! Exchanges through this hop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use agentlane_link::client::{ClientLimits, Pool, Spoken};
use agentlane_link::proxy::{Forward, ForwardError, Forwarded, forward};
use agentlane_link::server::{Connection, ServerLimits};
use agentlane_runtime::{Driver, Parts};
use agentlane_wire::h1::{Framing, HeadWriter, RequestHead, ResponseHead, request_head};

use crate::{Server, each_driver, short, upstream};

/// One exchange as the gateway does it: end-to-end headers only, both ways.
async fn pass(
    down: &mut Connection,
    pool: &Pool,
    addr: SocketAddr,
    head: &RequestHead,
) -> Result<Forwarded, ForwardError> {
    let options = Forward {
        method: head.method,
        is_repeatable: head.method.is_idempotent(),
        response_due: None,
        body_idle: None,
        ends_by: None,
    };
    let request = |dst: &mut bytes::BytesMut, framing: Framing| {
        request_head(dst, head.method_str(), head.path_and_query())
            .forward(&head.headers, |_| false)
            .framing(framing)
            .finish()
    };
    let endpoint = pool.endpoint(addr, None, Spoken::Http1);
    let response = |answer: &ResponseHead, out: &mut HeadWriter<'_>| {
        out.forward(&answer.headers, |_| false);
    };
    forward(down, &endpoint, options, head.framing, request, response, &mut ()).await
}

fn gateway(driver: Driver, connections: usize, limits: ServerLimits, addr: SocketAddr) -> Server {
    Server::start(driver, connections, limits, move |mut down: Connection| async move {
        let pool = Pool::new(ClientLimits::default());
        while let Ok(Some(head)) = down.head().await {
            match pass(&mut down, &pool, addr, &head).await {
                Ok(_) => {}
                Err(error) if down.has_responded() => {
                    println!("{error}");
                    return;
                }
                Err(ForwardError::Upstream(error)) => {
                    down.respond(error.status(), |_| (), Parts::new()).await.unwrap();
                }
                Err(ForwardError::Downstream(error)) => {
                    let _ = down.refuse(&error).await;
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        down.close().await;
    })
}

#[test]
fn small_exchanges_over_one_connection_each() {
    each_driver(|driver| {
        let (addr, thread) = upstream(1, |mut peer, _| {
            for _ in 0..3 {
                assert_eq!(
                    peer.head(),
                    "POST /a?b HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nAuthorization: t\r\ncontent-length: 5\r\n\r\n"
                );
                peer.expect("hello");
                peer.send(
                    "HTTP/1.1 201 Created\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=9\r\nETag: z\r\n\
                     Content-Length: 2\r\n\r\nok",
                );
            }
            assert_eq!(peer.head(), "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 123\r\n\r\n");
            peer.expect_end();
        });
        let server = gateway(driver, 1, ServerLimits::default(), addr);
        let mut peer = server.connect();
        for body in [
            "Content-Length: 5\r\n\r\nhello",
            "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            "Content-Length: 5\r\n\r\nhello",
        ] {
            peer.send(format!(
                "POST /a?b HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, foo, authorization\r\nFoo: hop\r\nX-A: 1\r\nTE: trailers\r\n\
                 Authorization: t\r\n{body}"
            ));
            peer.expect("HTTP/1.1 201 Created\r\nETag: z\r\ncontent-length: 2\r\n\r\nok");
        }
        peer.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
        peer.expect("HTTP/1.1 200 OK\r\ncontent-length: 123\r\n\r\n");
        drop(peer);
        server.join();
        thread.join().unwrap();
    });
}

/// Bytes whose place can be told from their value.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[test]
fn large_bodies_pass_both_ways_at_once() {
    const LEN: usize = 8 << 20;
    each_driver(|driver| {
        let (addr, thread) = upstream(1, |mut peer, _| {
            assert!(peer.head().contains("transfer-encoding: chunked"));
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            // Echoes the chunks as they come, so that neither side is ahead of the other by more than the buffers.
            loop {
                let line = peer.read_until("\r\n");
                let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
                let mut chunk = vec![0; size + 2];
                let mut got = 0;
                while got < chunk.len() {
                    got += peer.read(&mut chunk[got..]);
                }
                peer.send(&line);
                peer.send(&chunk);
                if size == 0 {
                    break;
                }
            }
            peer.expect_end();
        });
        let server = gateway(driver, 1, ServerLimits::default(), addr);
        let mut peer = server.connect();
        let mut sender = crate::Peer::new(peer.0.try_clone().unwrap());
        let body = pattern(LEN);
        let expected = body.clone();
        let sending = std::thread::spawn(move || {
            sender.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
            for (number, piece) in body.chunks(99_991).enumerate() {
                sender.send(format!("{:x}\r\n", piece.len()));
                sender.send(piece);
                sender.send("\r\n");
                if number % 16 == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            sender.send("0\r\n\r\n");
        });
        peer.head();
        let mut got = Vec::new();
        loop {
            let line = peer.read_until("\r\n");
            let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
            let start = got.len();
            got.resize(start + size, 0);
            let mut at = start;
            while at < got.len() {
                let count = peer.read(&mut got[at..]);
                assert!(count > 0);
                at += count;
            }
            peer.expect("\r\n");
            if size == 0 {
                break;
            }
        }
        sending.join().unwrap();
        assert!(got == expected, "bytes differ");
        drop(peer);
        server.join();
        thread.join().unwrap();
    });
}

#[test]
fn a_client_that_never_reads_holds_the_upstream_back() {
    each_driver(|driver| {
        let written = Arc::new(AtomicU64::new(0));
        let count = written.clone();
        let (addr, thread) = upstream(1, move |mut peer, _| {
            peer.head();
            peer.send("HTTP/1.1 200 OK\r\n\r\n");
            let piece = vec![b'x'; 64 * 1024];
            while std::io::Write::write_all(&mut peer.0, &piece).is_ok() {
                count.fetch_add(piece.len() as u64, Ordering::Relaxed);
                if count.load(Ordering::Relaxed) > 256 << 20 {
                    return;
                }
            }
        });
        let server = gateway(driver, 1, short(), addr);
        let mut peer = server.connect();
        peer.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        server.join();
        thread.join().unwrap();
        // What the kernel buffers of four sockets hold, and nothing that grows with the body.
        let written = written.load(Ordering::Relaxed);
        assert!(written < 32 << 20, "{written} bytes taken from the upstream");
    });
}

#[test]
fn events_pass_as_they_come() {
    each_driver(|driver| {
        let (addr, thread) = upstream(1, |mut peer, _| {
            peer.head();
            peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
            for number in 0..5 {
                std::thread::sleep(Duration::from_millis(20));
                peer.send(format!("data: {number}\n\n"));
            }
        });
        let server = gateway(driver, 2, ServerLimits::default(), addr);
        let mut peer = server.connect();
        peer.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        peer.expect("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
        for number in 0..5 {
            peer.expect(format!("9\r\ndata: {number}\n\n\r\n"));
        }
        peer.expect("0\r\n\r\n");
        thread.join().unwrap();
        // The upstream is gone: a clean 502 on the same connection.
        peer.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        peer.expect("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n");
        drop(peer);
        server.connect();
        server.join();
    });
}

#[test]
fn a_client_that_leaves_a_silent_stream_ends_it_upstream() {
    each_driver(|driver| {
        let (addr, thread) = upstream(2, |mut peer, _| {
            peer.head();
            peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: a\n\n");
            // Silent from now on: only the end of the connection is awaited.
            peer.rest();
        });
        let server = gateway(driver, 2, ServerLimits::default(), addr);
        // One request that came at once, one whose body was streamed.
        for pause in [0, 50] {
            let mut peer = server.connect();
            peer.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nh");
            std::thread::sleep(Duration::from_millis(pause));
            peer.send("i");
            peer.head();
            peer.expect("9\r\ndata: a\n\n\r\n");
            drop(peer);
        }
        thread.join().unwrap();
        server.join();
    });
}

#[test]
fn an_old_client_gets_the_body_until_the_close() {
    each_driver(|driver| {
        let (addr, thread) = upstream(1, |mut peer, _| {
            peer.head();
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n1\r\n!\r\n0\r\n\r\n");
            peer.expect_end();
        });
        let server = gateway(driver, 1, ServerLimits::default(), addr);
        let mut peer = server.connect();
        peer.send("GET / HTTP/1.0\r\n\r\n");
        peer.expect("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhi!");
        peer.expect_end();
        server.join();
        thread.join().unwrap();
    });
}

#[test]
fn an_answer_that_breaks_off_is_not_completed() {
    each_driver(|driver| {
        let (addr, thread) = upstream(2, |mut peer, number| {
            peer.head();
            peer.send(
                [
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
                    "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi",
                ][number],
            );
        });
        let server = gateway(driver, 2, ServerLimits::default(), addr);
        for expected in ["2\r\nhi\r\n", "hi"] {
            let mut peer = server.connect();
            peer.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            peer.head();
            assert_eq!(peer.rest(), expected);
        }
        server.join();
        thread.join().unwrap();
    });
}

#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    each_driver(|driver| {
        let (addr, thread) = upstream(1, |mut peer, _| {
            peer.head();
            peer.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
            std::thread::sleep(Duration::from_millis(100));
        });
        let server = gateway(driver, 1, short(), addr);
        let mut peer = server.connect();
        peer.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\nstart");
        let start = Instant::now();
        peer.expect("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n");
        let rest = peer.rest();
        assert!(rest.ends_with("\r\nno"), "{rest:?}");
        assert!(start.elapsed() < Duration::from_secs(5));
        server.join();
        thread.join().unwrap();
    });
}

#[test]
fn only_a_repeatable_request_is_sent_twice() {
    each_driver(|driver| {
        // Serves one request a connection, and promises more.
        let (addr, thread) = upstream(3, |mut peer, number| {
            peer.head();
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}"));
        });
        let server = gateway(driver, 1, ServerLimits::default(), addr);
        let mut peer = server.connect();
        let answers = [("GET", "0"), ("GET", "1"), ("POST", ""), ("PUT", "2")];
        for (method, answer) in answers {
            peer.send(format!("{method} / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"));
            if answer.is_empty() {
                peer.expect("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n");
            } else {
                peer.expect(format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{answer}"));
            }
            std::thread::sleep(Duration::from_millis(30));
        }
        drop(peer);
        server.join();
        thread.join().unwrap();
    });
}

#[test]
fn a_request_body_that_breaks_off_ends_both_sides() {
    each_driver(|driver| {
        let (addr, thread) = upstream(2, |mut peer, _| {
            peer.head();
            assert!(!peer.rest().contains("0\r\n\r\n"));
        });
        let server = gateway(driver, 2, ServerLimits::default(), addr);
        let mut peer = server.connect();
        peer.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe");
        std::thread::sleep(Duration::from_millis(50));
        drop(peer);
        let mut peer = server.connect();
        peer.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello");
        std::thread::sleep(Duration::from_millis(50));
        peer.send("X\r\n0\r\n\r\n");
        assert!(peer.head().starts_with("HTTP/1.1 400 "));
        server.join();
        thread.join().unwrap();
    });
}

#[test]
fn expect_is_answered_by_this_hop() {
    each_driver(|driver| {
        let (addr, thread) = upstream(1, |mut peer, _| {
            assert_eq!(peer.head(), "PUT / HTTP/1.1\r\nHost: x\r\ncontent-length: 2\r\n\r\n");
            peer.expect("hi");
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        });
        let server = gateway(driver, 1, ServerLimits::default(), addr);
        let mut peer = server.connect();
        peer.send("PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
        peer.expect("HTTP/1.1 100 Continue\r\n\r\n");
        peer.send("hi");
        peer.expect("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        drop(peer);
        server.join();
        thread.join().unwrap();
    });
}
