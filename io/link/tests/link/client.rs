//! Client connections and the pool.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use agentlane_link::client::{ClientConnection, ClientError, ClientErrorKind, ClientLimits, Pool, Progress, Spoken};
use agentlane_runtime::{Parts, join_all, sleep, spawn};
use agentlane_wire::h1::{Framing, H1Error, Method, request_head};
use bytes::{Bytes, BytesMut};

use crate::{each_driver, part, shard, upstream};

fn head(method: &str, framing: Framing) -> Bytes {
    let mut head = BytesMut::new();
    request_head(&mut head, method, "/").header("host", "u").framing(framing).finish().unwrap();
    head.freeze()
}

async fn get(connection: &mut ClientConnection) -> Result<String, ClientError> {
    connection.send(Method::Get, head("GET", Framing::None), Parts::new()).await?;
    let answer = connection.response_head().await?;
    let body = connection.body_all(1 << 20).await?;
    Ok(format!("{} {}", answer.status, String::from_utf8_lossy(&body)))
}

async fn get_from(pool: &Pool, addr: SocketAddr) -> Result<String, ClientError> {
    get(&mut pool.connection(addr).await?).await
}

fn pool() -> Pool {
    Pool::new(ClientLimits::default())
}

/// Runs `client` against an upstream that answers the first request of its only connection with `answer`, then closes.
#[track_caller]
fn check_answer(answer: &'static str, expected: Result<&str, (ClientErrorKind, Progress)>) {
    each_driver(|driver| {
        let (addr, thread) = upstream(1, move |mut peer, _| {
            peer.head();
            peer.send(answer);
        });
        let got = shard(driver, || async move { get_from(&pool(), addr).await });
        thread.join().unwrap();
        let got = got.as_ref().map(String::as_str).map_err(|error| (error.kind, error.progress));
        assert_eq!(got, expected, "{answer:?}");
    });
}

#[test]
fn responses_of_every_framing() {
    check_answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", Ok("200 hi"));
    check_answer(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n1\r\n!\r\n0\r\nA: b\r\n\r\n",
        Ok("200 hi!"),
    );
    check_answer("HTTP/1.1 200 OK\r\n\r\nuntil close", Ok("200 until close"));
    check_answer("HTTP/1.0 404 No\r\nContent-Length: 0\r\n\r\n", Ok("404 "));
    check_answer("HTTP/1.1 204 No Content\r\n\r\n", Ok("204 "));
    check_answer(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        Ok("200 "),
    );
}

#[test]
fn responses_that_are_refused() {
    let answered = |kind| Err((kind, Progress::Answered));
    check_answer("", Err((ClientErrorKind::Closed, Progress::Unanswered { reused: false })));
    check_answer("HTTP/1.1 200 OK\r\nContent-Le", answered(ClientErrorKind::Closed));
    check_answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", answered(ClientErrorKind::Closed));
    check_answer(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        answered(ClientErrorKind::Closed),
    );
    check_answer("HTTP/1.1 101 Switching Protocols\r\n\r\n", answered(ClientErrorKind::UnexpectedUpgrade));
    check_answer("SSH-2.0-x\r\n", answered(ClientErrorKind::Malformed(H1Error::StatusLine)));
    check_answer(
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        answered(ClientErrorKind::Malformed(H1Error::LengthWithTransferEncoding)),
    );
    check_answer(
        "HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n",
        answered(ClientErrorKind::Malformed(H1Error::BodyTooLarge)),
    );
    check_answer(
        const {
            "HTTP/1.1 102 \r\n\r\nHTTP/1.1 102 \r\n\r\nHTTP/1.1 102 \r\n\r\nHTTP/1.1 102 \r\n\r\nHTTP/1.1 102 \r\n\r\n\
                 HTTP/1.1 102 \r\n\r\nHTTP/1.1 102 \r\n\r\nHTTP/1.1 102 \r\n\r\nHTTP/1.1 102 \r\n\r\nHTTP/1.1 102 \r\n\r\n"
        },
        answered(ClientErrorKind::TooManyInterim),
    );
}

#[test]
fn a_sound_connection_is_used_again() {
    each_driver(|driver| {
        let (addr, thread) = upstream(1, |mut peer, _| {
            for number in 0..5 {
                peer.head();
                peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}"));
            }
            peer.head();
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nX: HEAD has no body\r\n\r\n");
            peer.expect_end();
        });
        shard(driver, || async move {
            let pool = pool();
            for number in 0..5 {
                assert_eq!(get_from(&pool, addr).await.unwrap(), format!("200 {number}"));
                assert_eq!((pool.open(), pool.idle()), (1, 1));
            }
            // After the trust has run out, the connection is looked at and found alive.
            sleep(Duration::from_millis(700)).await;
            let mut connection = pool.connection(addr).await.unwrap();
            assert!(connection.is_reused());
            connection.send(Method::Head, head("HEAD", Framing::None), Parts::new()).await.unwrap();
            assert_eq!(connection.response_head().await.unwrap().declared_length(), Some(1000));
            assert_eq!(connection.chunk().await.unwrap(), None);
            drop(connection);
            assert_eq!(pool.idle(), 1);
            pool.clear();
            assert_eq!((pool.open(), pool.idle()), (0, 0));
        });
        thread.join().unwrap();
    });
}

#[test]
fn a_doubtful_connection_is_not_used_again() {
    let doubts = [
        ("a byte too many", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi!"),
        ("a second response", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
        ("connection: close", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"),
        ("HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
        ("204 with a body", "HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\n"),
        ("no length", "HTTP/1.1 200 OK\r\n\r\n"),
    ];
    each_driver(|driver| {
        let (addr, thread) = upstream(doubts.len(), move |mut peer, number| {
            peer.head();
            peer.send(doubts[number].1);
        });
        shard(driver, || async move {
            let pool = pool();
            for (name, _) in doubts {
                let mut connection = pool.connection(addr).await.unwrap();
                assert!(!connection.is_reused(), "{name}");
                get(&mut connection).await.unwrap();
                drop(connection);
                assert_eq!((pool.open(), pool.idle()), (0, 0), "{name}");
            }
        });
        thread.join().unwrap();
    });
}

#[test]
fn an_unread_response_is_not_pooled() {
    each_driver(|driver| {
        let (addr, thread) = upstream(1, |mut peer, _| {
            peer.head();
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhi");
            peer.rest();
        });
        shard(driver, || async move {
            let pool = pool();
            let mut connection = pool.connection(addr).await.unwrap();
            connection.send(Method::Get, head("GET", Framing::None), Parts::new()).await.unwrap();
            connection.response_head().await.unwrap();
            assert_eq!(connection.chunk().await.unwrap().unwrap(), "hi");
            drop(connection);
            assert_eq!(pool.open(), 0);
        });
        thread.join().unwrap();
    });
}

/// All of the answer is there when somebody ends the exchange: it is read, and the connection is not kept.
#[test]
fn a_connection_that_was_cut_is_not_pooled() {
    each_driver(|driver| {
        let (addr, thread) = upstream(1, |mut peer, _| {
            peer.head();
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
            peer.rest();
        });
        shard(driver, || async move {
            let pool = pool();
            let mut connection = pool.connection(addr).await.unwrap();
            connection.send(Method::Get, head("GET", Framing::None), Parts::new()).await.unwrap();
            connection.response_head().await.unwrap();
            connection.cut().unwrap().end();
            assert_eq!(connection.body_all(16).await.unwrap(), "hi");
            drop(connection);
            assert_eq!(pool.open(), 0);
        });
        thread.join().unwrap();
    });
}

#[test]
fn a_stale_connection_says_that_nothing_was_answered() {
    each_driver(|driver| {
        let (addr, thread) = upstream(2, |mut peer, _| {
            peer.head();
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            // Closes although it promised to stay.
        });
        shard(driver, || async move {
            let pool = pool();
            get_from(&pool, addr).await.unwrap();
            sleep(Duration::from_millis(100)).await;
            let error = get_from(&pool, addr).await.unwrap_err();
            assert_eq!(error.progress, Progress::Unanswered { reused: true });
            assert!(error.may_retry(true) && !error.may_retry(false), "{error}");
            let mut fresh = pool.endpoint(addr, None, Spoken::Http1).new_connection().await.unwrap();
            get(&mut fresh).await.unwrap();
            drop(fresh);
            // After a while a stale connection is found out before it is used, or swept away.
            sleep(Duration::from_millis(700)).await;
            let error = pool.connection(addr).await.err().unwrap();
            assert_eq!(error.kind, ClientErrorKind::Connect(std::io::ErrorKind::ConnectionRefused));
            assert_eq!((pool.open(), pool.idle()), (0, 0));
        });
        thread.join().unwrap();
    });
}

#[test]
fn idle_connections_end() {
    each_driver(|driver| {
        let (addr, thread) = upstream(2, |mut peer, number| {
            peer.head();
            let hint = if number == 0 { "" } else { "Keep-Alive: timeout=1, max=5\r\n" };
            peer.send(format!("HTTP/1.1 200 OK\r\n{hint}Content-Length: 0\r\n\r\n"));
            peer.expect_end();
        });
        shard(driver, || async move {
            for idle in [Duration::from_millis(200), Duration::from_secs(60)] {
                let pool = Pool::new(ClientLimits { idle, ..ClientLimits::default() });
                get_from(&pool, addr).await.unwrap();
                assert_eq!(pool.open(), 1);
                sleep(Duration::from_millis(1300)).await;
                assert_eq!(pool.open(), 0);
            }
        });
        thread.join().unwrap();
    });
}

#[test]
fn connections_are_bounded_and_waited_for() {
    each_driver(|driver| {
        let (addr, thread) = upstream(1, |mut peer, _| {
            for _ in 0..3 {
                peer.head();
                std::thread::sleep(Duration::from_millis(50));
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
            peer.expect_end();
        });
        shard(driver, || async move {
            let limits = ClientLimits {
                connections_max: 1,
                waiting_max: 2,
                wait_time: Duration::from_millis(500),
                ..ClientLimits::default()
            };
            let pool = Pool::new(limits);
            let results = join_all((0..4).map(|_| get_from(&pool, addr))).await;
            let full = results.iter().filter(|result| {
                result.as_ref().is_err_and(|error| error.kind == ClientErrorKind::QueueFull && error.status() == 503)
            });
            assert_eq!(full.count(), 1);
            assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3);
            assert_eq!((pool.open(), pool.idle()), (1, 1));

            let held = pool.connection(addr).await.unwrap();
            let start = Instant::now();
            let error = pool.connection(addr).await.err().unwrap();
            assert_eq!((error.kind, error.progress), (ClientErrorKind::QueueTimeout, Progress::NotSent));
            assert!(start.elapsed() >= Duration::from_millis(500));
            // A wait that was given up does not swallow the place.
            drop(held);
            assert_eq!(pool.open(), 0);
        });
        thread.join().unwrap();
    });
}

#[test]
fn a_closed_connection_makes_room_for_who_waits() {
    each_driver(|driver| {
        let (addr, thread) = upstream(2, |mut peer, _| {
            peer.head();
            peer.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        });
        shard(driver, || async move {
            let pool = Rc::new(Pool::new(ClientLimits { connections_max: 1, ..ClientLimits::default() }));
            let (other, done) = (pool.clone(), agentlane_runtime::local::Event::new());
            let set = done.clone();
            let mut first = pool.connection(addr).await.unwrap();
            spawn(async move {
                assert_eq!(get_from(&other, addr).await.unwrap(), "200 ");
                set.set();
            });
            get(&mut first).await.unwrap();
            drop(first);
            done.wait().await;
            assert_eq!(pool.open(), 0);
        });
        thread.join().unwrap();
    });
}

#[test]
fn an_early_answer_is_read_while_the_request_is_still_sent() {
    each_driver(|driver| {
        let (addr, thread) = upstream(1, |mut peer, _| {
            peer.head();
            peer.send("HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig");
        });
        shard(driver, || async move {
            let mut connection = pool().connection(addr).await.unwrap();
            let body = Bytes::from(vec![b'x'; 16 << 20]);
            let framing = Framing::Length(body.len() as u64);
            connection.send(Method::Post, head("POST", framing), part(body)).await.unwrap();
            let answer = connection.response_head().await.unwrap();
            assert_eq!(answer.status, 413);
            assert_eq!(connection.body_all(10).await.unwrap(), "big");
        });
        thread.join().unwrap();
    });
}

#[test]
fn requests_stream() {
    each_driver(|driver| {
        let (addr, thread) = upstream(1, |mut peer, _| {
            assert!(peer.head().contains("transfer-encoding: chunked"));
            peer.expect("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            assert!(peer.head().contains("content-length: 4"));
            peer.expect("abcd");
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            peer.head();
        });
        shard(driver, || async move {
            let pool = pool();
            let mut up = pool.connection(addr).await.unwrap();
            up.start(Method::Post, head("POST", Framing::Chunked), Framing::Chunked).unwrap();
            up.write(part("abc")).await.unwrap();
            up.write(Parts::new()).await.unwrap();
            up.finish(part("de")).await.unwrap();
            assert_eq!(up.response_head().await.unwrap().status, 200);
            assert_eq!(up.chunk().await.unwrap(), None);
            drop(up);
            let mut up = pool.connection(addr).await.unwrap();
            assert!(up.is_reused());
            up.start(Method::Post, head("POST", Framing::Length(4)), Framing::Length(4)).unwrap();
            up.write(part("ab")).await.unwrap();
            up.finish(part("cd")).await.unwrap();
            up.response_head().await.unwrap();
            assert_eq!(up.chunk().await.unwrap(), None);
            drop(up);
            // A request that is not finished never goes back.
            let mut up = pool.connection(addr).await.unwrap();
            up.start(Method::Post, head("POST", Framing::Length(4)), Framing::Length(4)).unwrap();
            up.write(part("ab")).await.unwrap();
            assert!(matches!(up.write(part("cde")).await.unwrap_err().kind, ClientErrorKind::Request(_)));
            drop(up);
            assert_eq!(pool.open(), 0);
        });
        thread.join().unwrap();
    });
}

#[test]
fn slow_servers_time_out() {
    each_driver(|driver| {
        let (addr, thread) = upstream(3, |mut peer, number| {
            peer.head();
            match number {
                0 => {}
                1 => peer.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi"),
                _ => peer.send("HTTP/1.1 200 OK\r\nX"),
            }
            peer.rest();
        });
        shard(driver, || async move {
            let pool = Pool::new(ClientLimits {
                response_time: Duration::from_millis(100),
                body_idle: Some(Duration::from_millis(100)),
                ..ClientLimits::default()
            });
            for kind in
                [ClientErrorKind::ResponseTimeout, ClientErrorKind::BodyTimeout, ClientErrorKind::ResponseTimeout]
            {
                let error = get_from(&pool, addr).await.unwrap_err();
                assert_eq!((error.kind, error.status()), (kind, 504));
                assert!(!error.may_retry(true));
            }
        });
        thread.join().unwrap();
    });
}
