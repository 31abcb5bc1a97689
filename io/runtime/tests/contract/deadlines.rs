//! Deadlines of sockets and of connects.

use std::io::ErrorKind;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use agentlane_runtime::{Driver, Parts, Stream, now, sleep};
use bytes::{Bytes, BytesMut};

use crate::support::{listen, on_shard, pattern, promises, recv, recv_exact, tcp_pair};

promises! {
    recv_in_flight_times_out, deadline_for_reading_leaves_writing, send_in_flight_times_out,
    deadline_can_be_moved_and_taken_back, deadline_that_has_passed, bytes_before_the_deadline_are_received,
    unix_socket_times_out, halves_share_the_deadline, connect_times_out, deadline_never_hits_a_reused_descriptor,
    setting_deadlines_is_cheap,
}

/// Late by this at most: one tick, the pause between sweeps, and what a busy test machine adds.
const LATE: Duration = Duration::from_millis(1000);

fn assert_between(since: Instant, at_least: u64) {
    let passed = since.elapsed();
    let at_least = Duration::from_millis(at_least);
    // The coarse clock that the deadline was taken from may be one kernel tick behind.
    assert!(passed + Duration::from_millis(10) >= at_least && passed < at_least + LATE, "{passed:?}, not {at_least:?}");
}

fn recv_in_flight_times_out(driver: Driver) {
    on_shard(driver, || async {
        let (mut near, _far) = tcp_pair().await;
        let start = Instant::now();
        near.set_deadline(Some(now() + Duration::from_millis(60)), Shutdown::Both);
        assert_eq!(recv(&mut near).await.unwrap_err().kind(), ErrorKind::TimedOut);
        assert_between(start, 60);
        assert_eq!(recv(&mut near).await.unwrap_err().kind(), ErrorKind::TimedOut, "and later too");
        assert_eq!(near.send(Bytes::from_static(b"x")).await.unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(near.readable().await.unwrap_err().kind(), ErrorKind::TimedOut);
    });
}

fn deadline_for_reading_leaves_writing(driver: Driver) {
    on_shard(driver, || async {
        let (mut near, mut far) = tcp_pair().await;
        near.set_deadline(Some(now() + Duration::from_millis(30)), Shutdown::Read);
        assert_eq!(recv(&mut near).await.unwrap_err().kind(), ErrorKind::TimedOut);
        near.send(Bytes::from_static(b"408")).await.unwrap();
        near.sendv(Parts::from_iter([Bytes::from_static(b" too late")])).await.unwrap();
        assert_eq!(recv_exact(&mut far, 12).await, "408 too late");
    });
}

fn send_in_flight_times_out(driver: Driver) {
    on_shard(driver, || async {
        for vectored in [false, true] {
            let (mut near, _never_reads) = tcp_pair().await;
            let start = Instant::now();
            near.set_deadline(Some(now() + Duration::from_millis(80)), Shutdown::Both);
            let bytes = pattern(32 << 20);
            let sent = match vectored {
                false => near.send(bytes).await,
                true => near.sendv(Parts::from_iter([bytes.slice(..9), bytes.slice(9..)])).await,
            };
            assert_eq!(sent.unwrap_err().kind(), ErrorKind::TimedOut);
            assert_between(start, 80);
        }
    });
}

fn deadline_can_be_moved_and_taken_back(driver: Driver) {
    on_shard(driver, || async {
        let (mut near, mut far) = tcp_pair().await;
        let start = Instant::now();
        for _ in 0..6 {
            near.set_deadline(Some(now() + Duration::from_millis(500)), Shutdown::Both);
            sleep(Duration::from_millis(100)).await;
        }
        near.set_deadline(None, Shutdown::Both);
        sleep(Duration::from_millis(600)).await;
        far.send(Bytes::from_static(b"open")).await.unwrap();
        assert_eq!(recv_exact(&mut near, 4).await, "open");
        near.set_deadline(Some(start + Duration::from_secs(3600)), Shutdown::Both);
        let earlier = Instant::now();
        near.set_deadline(Some(now() + Duration::from_millis(40)), Shutdown::Both);
        assert_eq!(recv(&mut near).await.unwrap_err().kind(), ErrorKind::TimedOut);
        assert_between(earlier, 40);
    });
}

fn deadline_that_has_passed(driver: Driver) {
    on_shard(driver, || async {
        let (mut near, _far) = tcp_pair().await;
        let start = Instant::now();
        near.set_deadline(start.checked_sub(Duration::from_secs(1)), Shutdown::Both);
        assert_eq!(recv(&mut near).await.unwrap_err().kind(), ErrorKind::TimedOut);
        assert_between(start, 0);
    });
}

fn bytes_before_the_deadline_are_received(driver: Driver) {
    on_shard(driver, || async {
        let (mut near, mut far) = tcp_pair().await;
        near.set_deadline(Some(now() + Duration::from_secs(5)), Shutdown::Both);
        far.send(Bytes::from_static(b"in time")).await.unwrap();
        assert_eq!(recv_exact(&mut near, 7).await, "in time");
        drop(far);
        assert_eq!(recv(&mut near).await.unwrap(), "", "the peer's end is not a timeout");
    });
}

fn unix_socket_times_out(driver: Driver) {
    on_shard(driver, || async {
        let (mut stream, _theirs) = Stream::pair().unwrap();
        stream.set_deadline(Some(now() + Duration::from_millis(40)), Shutdown::Read);
        assert_eq!(recv(&mut stream).await.unwrap_err().kind(), ErrorKind::TimedOut);
        let (mut stream, _theirs) = Stream::pair().unwrap();
        stream.set_deadline(Some(now() + Duration::from_millis(40)), Shutdown::Both);
        assert_eq!(stream.send(pattern(8 << 20)).await.unwrap_err().kind(), ErrorKind::TimedOut);
    });
}

fn halves_share_the_deadline(driver: Driver) {
    on_shard(driver, || async {
        let (near, _far) = tcp_pair().await;
        let (mut reader, writer) = near.into_split();
        writer.set_deadline(Some(now() + Duration::from_millis(30)), Shutdown::Read);
        let (result, _) = reader.recv(BytesMut::with_capacity(1)).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::TimedOut);
    });
}

fn connect_times_out(driver: Driver) {
    on_shard(driver, || async {
        let addr = full_listener();
        let start = Instant::now();
        let error = Stream::connect_until(addr.1, start + Duration::from_millis(80)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_between(start, 80);
        let (_listener, addr) = listen();
        Stream::connect_until(addr, Instant::now() + Duration::from_secs(5)).await.expect("in time");
    });
}

/// An address whose backlog is full: the kernel drops every further SYN.
fn full_listener() -> (Vec<std::net::TcpStream>, SocketAddr, std::net::TcpListener) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // A second listen(2) sets the backlog anew.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let addr = listener.local_addr().unwrap();
    let fillers = std::iter::from_fn(|| std::net::TcpStream::connect_timeout(&addr, Duration::from_millis(50)).ok());
    (fillers.take(64).collect(), addr, listener)
}

fn deadline_never_hits_a_reused_descriptor(driver: Driver) {
    on_shard(driver, || async {
        for _ in 0..20 {
            let (near, _) = tcp_pair().await;
            near.set_deadline(Some(now() + Duration::from_millis(40)), Shutdown::Both);
            let detached = near.as_raw_fd() % 2 == 0;
            if detached {
                drop(near.detach().unwrap());
            } else {
                drop(near);
            }
            let (mut fresh, mut far) = tcp_pair().await;
            sleep(Duration::from_millis(100)).await;
            far.send(Bytes::from_static(b"fresh")).await.unwrap();
            assert_eq!(recv_exact(&mut fresh, 5).await, "fresh");
        }
    });
}

fn setting_deadlines_is_cheap(driver: Driver) {
    on_shard(driver, || async {
        let (mut near, _far) = tcp_pair().await;
        let start = Instant::now();
        for index in 0..10_000u64 {
            near.set_deadline(Some(start + Duration::from_millis(10_000 + index)), Shutdown::Both);
        }
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        let start = Instant::now();
        near.set_deadline(Some(start + Duration::from_millis(50)), Shutdown::Both);
        assert_eq!(recv(&mut near).await.unwrap_err().kind(), ErrorKind::TimedOut);
        assert_between(start, 50);
    });
}
