//! Bytes through sockets.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Duration;

use agentlane_runtime::{Driver, Either, Listener, Parts, Stream, join_all, race, sleep, spawn, timeout};
use bytes::{Bytes, BytesMut};

use crate::support::{listen, on_shard, pattern, promises, recv, recv_exact, start_shard, tcp_pair};

promises! {
    echo, recv_appends, recv_without_room_is_refused, big_transfer_with_slow_reader, vectored_write_in_parts, half_close,
    halves_work_at_the_same_time_and_reunite, shutdown_ends_recv_in_flight, send_to_closed_peer_fails,
    defect_2_readable_can_be_dropped_and_loses_no_byte, defect_2_dropped_recv_is_noticed,
    defect_6_detach_moves_between_threads_and_drivers, defect_6_detach_right_after_dropped_readable,
    defect_8_nonblocking_mode_is_set_as_the_driver_needs, defect_9_connect_takes_addresses_and_reports_refusal,
    unix_sockets, child_stdio_over_socketpair, end_of_shard_ends_its_connections,
}

fn echo(driver: Driver) {
    on_shard(driver, || async {
        let (mut near, mut far) = tcp_pair().await;
        assert_eq!(near.peer_addr().unwrap(), far.local_addr().unwrap());
        for len in [1, 200, 4096] {
            let sent = pattern(len);
            near.send(sent.clone()).await.unwrap();
            assert_eq!(recv_exact(&mut far, len).await, sent);
            far.sendv(Parts::from_iter([sent.clone()])).await.unwrap();
            assert_eq!(recv_exact(&mut near, len).await, sent);
        }
        near.send(Bytes::new()).await.unwrap();
        near.sendv(Parts::new()).await.unwrap();
        drop(near);
        assert_eq!(recv(&mut far).await.unwrap(), "");
        assert_eq!(recv(&mut far).await.unwrap(), "");
    });
}

fn recv_appends(driver: Driver) {
    on_shard(driver, || async {
        let (mut near, mut far) = tcp_pair().await;
        near.send(Bytes::from_static(b"world")).await.unwrap();
        let mut buf = BytesMut::with_capacity(64);
        buf.extend_from_slice(b"hello ");
        let start = buf.as_ptr();
        let (result, buf) = far.recv(buf).await;
        assert_eq!((result.unwrap(), &buf[..]), (5, &b"hello world"[..]));
        assert_eq!(buf.as_ptr(), start, "in place");
    });
}

fn recv_without_room_is_refused(driver: Driver) {
    on_shard(driver, || async {
        let (_near, mut far) = tcp_pair().await;
        let (result, _) = far.recv(BytesMut::new()).await;
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    });
}

fn big_transfer_with_slow_reader(driver: Driver) {
    on_shard(driver, || async {
        const LEN: usize = 24 << 20;
        let (mut near, mut far) = tcp_pair().await;
        let (done, mut sent) = agentlane_runtime::local::oneshot::channel();
        spawn(async move {
            near.send(pattern(LEN)).await.unwrap();
            let _ = done.send(());
        });
        sleep(Duration::from_millis(100)).await;
        assert_eq!(sent.try_recv(), None, "the sender waits for the reader");
        let expected = pattern(LEN);
        let mut at = 0;
        while at < LEN {
            let bytes = recv(&mut far).await.unwrap();
            assert!(expected[at..].starts_with(&bytes), "at {at}");
            at += bytes.len();
            if at % (4 << 20) < bytes.len() {
                sleep(Duration::from_millis(15)).await;
            }
        }
        sent.await.unwrap();
    });
}

fn vectored_write_in_parts(driver: Driver) {
    on_shard(driver, || async {
        // Far more than a socket buffer holds, in parts that end anywhere, some empty, more than IOV_MAX of them.
        let whole = pattern(12 << 20);
        let mut parts = Parts::new();
        let mut at = 0;
        let mut len = 1;
        while at < whole.len() {
            let end = (at + len).min(whole.len());
            parts.push(whole.slice(at..end));
            parts.push(Bytes::new());
            at = end;
            len = len * 7 % 9973 + 1;
        }
        assert!(parts.len() > 3000, "{}", parts.len());
        let (mut near, mut far) = tcp_pair().await;
        spawn(async move { near.sendv(parts).await.unwrap() });
        sleep(Duration::from_millis(50)).await;
        assert!(recv_exact(&mut far, whole.len()).await == whole);
        assert_eq!(recv(&mut far).await.unwrap(), "");
    });
}

fn half_close(driver: Driver) {
    on_shard(driver, || async {
        let (mut near, mut far) = tcp_pair().await;
        near.send(Bytes::from_static(b"question")).await.unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        assert_eq!(recv_exact(&mut far, 8).await, "question");
        assert_eq!(recv(&mut far).await.unwrap(), "");
        far.send(Bytes::from_static(b"answer")).await.unwrap();
        assert_eq!(recv_exact(&mut near, 6).await, "answer");
        assert_eq!(near.send(Bytes::from_static(b"x")).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let error = near.sendv(Parts::from_iter([Bytes::from_static(b"x")])).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    });
}

fn halves_work_at_the_same_time_and_reunite(driver: Driver) {
    on_shard(driver, || async {
        const LEN: usize = 8 << 20;
        let (near, far) = tcp_pair().await;
        let ends = [near, far].map(|stream| async {
            let (mut reader, mut writer) = stream.into_split();
            let (done, written) = agentlane_runtime::local::oneshot::channel();
            spawn(async move {
                writer.send(pattern(LEN)).await.unwrap();
                let _ = done.send(writer);
            });
            let mut buf = BytesMut::new();
            while buf.len() < LEN {
                buf.reserve(64 * 1024);
                let (result, back) = reader.recv(buf).await;
                buf = back;
                assert_ne!(result.unwrap(), 0);
            }
            assert!(buf == pattern(LEN));
            reader.reunite(written.await.unwrap()).expect("halves of one stream")
        });
        let mut ends = join_all(ends).await.into_iter();
        let (near, mut far) = (ends.next().unwrap(), ends.next().unwrap());
        let (reader, _writer) = near.into_split();
        let (other_reader, other_writer) = tcp_pair().await.0.into_split();
        assert!(reader.reunite(other_writer).is_err());
        drop(other_reader);
        drop(_writer);
        assert_eq!(recv(&mut far).await.unwrap(), "", "both halves gone: closed");
    });
}

fn shutdown_ends_recv_in_flight(driver: Driver) {
    on_shard(driver, || async {
        let (near, _far) = tcp_pair().await;
        let (mut reader, writer) = near.into_split();
        spawn(async move {
            sleep(Duration::from_millis(30)).await;
            writer.shutdown(Shutdown::Both).unwrap();
        });
        let (result, _) = reader.recv(BytesMut::with_capacity(10)).await;
        assert_eq!(result.unwrap(), 0);
    });
}

fn send_to_closed_peer_fails(driver: Driver) {
    on_shard(driver, || async {
        let (mut near, far) = tcp_pair().await;
        drop(far);
        let error = loop {
            if let Err(error) = near.send(Bytes::from_static(b"anybody?")).await {
                break error;
            }
        };
        assert!(matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset), "{error}");
    });
}

fn defect_2_readable_can_be_dropped_and_loses_no_byte(driver: Driver) {
    on_shard(driver, || async {
        const LEN: usize = 300_000;
        let (mut near, mut far) = tcp_pair().await;
        spawn(async move {
            let whole = pattern(LEN);
            for (index, chunk) in whole.chunks(1000).enumerate() {
                near.send(whole.slice_ref(chunk)).await.unwrap();
                if index % 10 == 0 {
                    sleep(Duration::from_millis(1)).await;
                }
            }
        });
        let mut got = BytesMut::new();
        let mut dropped = 0;
        while got.len() < LEN {
            // The right side is ready at once, so every wait for readiness is dropped in flight.
            match race(far.readable(), agentlane_runtime::yield_now()).await {
                Either::Left(result) => result.unwrap(),
                Either::Right(()) => dropped += 1,
            }
            if far_has_bytes(&far) {
                got.reserve(1000);
                let (result, back) = far.recv(got).await;
                got = back;
                assert_ne!(result.unwrap(), 0);
            }
        }
        assert!(got == pattern(LEN));
        assert!(dropped > 0);
        assert_eq!(timeout(Duration::from_secs(5), far.readable()).await.unwrap().map_err(|e| e.kind()), Ok(()));
        assert_eq!(recv(&mut far).await.unwrap(), "", "an end is readable");
    });
}

fn far_has_bytes(stream: &Stream) -> bool {
    let mut entry = libc::pollfd { fd: stream.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    unsafe { libc::poll(&raw mut entry, 1, 0) > 0 }
}

fn defect_2_dropped_recv_is_noticed(driver: Driver) {
    on_shard(driver, || async {
        let (mut near, mut far) = tcp_pair().await;
        let waiting = timeout(Duration::from_millis(20), far.recv(BytesMut::with_capacity(100))).await;
        assert!(waiting.is_err());
        near.send(Bytes::from_static(b"lost?")).await.unwrap();
        let (result, _) = far.recv(BytesMut::with_capacity(100)).await;
        assert!(result.unwrap_err().to_string().contains("dropped in flight"));
        far.send(Bytes::from_static(b"the other direction goes on")).await.unwrap();
        assert_eq!(recv_exact(&mut near, 27).await, "the other direction goes on");
        assert!(far.detach().is_err());
    });
}

fn defect_6_detach_moves_between_threads_and_drivers(driver: Driver) {
    for target in [Driver::Uring, Driver::Epoll, Driver::Glommio] {
        let (sender, receiver) = agentlane_runtime::channel::bounded::<OwnedFd>(4);
        let owner = start_shard(target, move || async move {
            let mut stream = Stream::from_fd(receiver.recv().await.unwrap()).unwrap();
            assert_eq!(recv_exact(&mut stream, 6).await, "second");
            stream.send(Bytes::from_static(b"from the new owner")).await.unwrap();
            receiver.recv().await.is_none()
        });
        on_shard(driver, move || async move {
            let (mut near, mut far) = tcp_pair().await;
            near.send(Bytes::from_static(b"first")).await.unwrap();
            assert_eq!(recv_exact(&mut far, 5).await, "first");
            sender.try_send(far.detach().unwrap()).unwrap();
            near.send(Bytes::from_static(b"second")).await.unwrap();
            assert_eq!(recv_exact(&mut near, 18).await, "from the new owner");
            drop(sender);
            assert_eq!(recv(&mut near).await.unwrap(), "");
        });
        assert!(owner.end());
    }
}

fn defect_6_detach_right_after_dropped_readable(driver: Driver) {
    on_shard(driver, || async {
        let (mut near, far) = tcp_pair().await;
        assert!(timeout(Duration::from_millis(15), far.readable()).await.is_err());
        let mut far = Stream::from_fd(far.detach().unwrap()).unwrap();
        near.send(Bytes::from_static(b"still there")).await.unwrap();
        assert_eq!(recv_exact(&mut far, 11).await, "still there");
        drop(far);
        assert_eq!(recv(&mut near).await.unwrap(), "", "the descriptor that was given up is closed");
    });
}

fn defect_8_nonblocking_mode_is_set_as_the_driver_needs(driver: Driver) {
    on_shard(driver, move || async move {
        let is_nonblocking = |fd: i32| unsafe { libc::fcntl(fd, libc::F_GETFL) } & libc::O_NONBLOCK != 0;
        for given in [true, false] {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            ours.set_nonblocking(given).unwrap();
            let mut stream = Stream::from_fd(ours.into()).unwrap();
            assert_eq!(is_nonblocking(stream.as_raw_fd()), driver == Driver::Epoll);
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                io::Write::write_all(&mut &theirs, b"late").unwrap();
            });
            assert_eq!(recv(&mut stream).await.unwrap(), "late", "a recv that has to wait");
        }
        let (near, far) = tcp_pair().await;
        assert_eq!(is_nonblocking(near.as_raw_fd()), driver == Driver::Epoll);
        assert_eq!(is_nonblocking(far.as_raw_fd()), driver == Driver::Epoll);
        for given in [true, false] {
            let std_listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            std_listener.set_nonblocking(given).unwrap();
            let addr = std_listener.local_addr().unwrap();
            let listener = Listener::from_fd(std_listener.into()).unwrap();
            let client = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                std::net::TcpStream::connect(addr).unwrap()
            });
            listener.accept().await.expect("an accept that has to wait");
            client.join().unwrap();
        }
    });
}

fn defect_9_connect_takes_addresses_and_reports_refusal(driver: Driver) {
    on_shard(driver, || async {
        let (listener, addr) = listen();
        drop(listener);
        sleep(Duration::from_millis(20)).await;
        assert_eq!(Stream::connect(addr).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let missing = std::env::temp_dir().join("agentlane-no-such-socket");
        assert_eq!(Stream::connect_unix(&missing).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    });
}

fn unix_sockets(driver: Driver) {
    on_shard(driver, move || async move {
        let path = std::env::temp_dir().join(format!("agentlane-{}-{driver:?}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        // Also defect 5: with SO_REUSEPORT, which is the default for TCP, this bind would fail.
        let listener = Listener::bind_unix(&path, &Default::default()).unwrap();
        assert_eq!(
            Listener::bind_unix(&path, &Default::default()).map(drop).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        let mut near = Stream::connect_unix(&path).await.unwrap();
        let (mut far, addr) = listener.accept().await.unwrap();
        assert_eq!(addr, None);
        assert!(near.peer_addr().is_err());
        let sent = pattern(2 << 20);
        spawn(async move { near.sendv(Parts::from_iter([sent.slice(..5), sent.slice(5..)])).await.unwrap() });
        assert!(recv_exact(&mut far, 2 << 20).await == pattern(2 << 20));
        assert_eq!(recv(&mut far).await.unwrap(), "");
        std::fs::remove_file(&path).unwrap();
    });
}

fn child_stdio_over_socketpair(driver: Driver) {
    on_shard(driver, || async {
        let (stream, theirs) = Stream::pair().unwrap();
        let stdin = theirs.try_clone().unwrap();
        let mut child = Command::new("cat")
            .stdin(Stdio::from(stdin))
            .stdout(Stdio::from(theirs))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (mut reader, mut writer) = stream.into_split();
        spawn(async move {
            writer.send(pattern(1 << 20)).await.unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut buf = BytesMut::new();
        loop {
            buf.reserve(64 * 1024);
            let (result, back) = reader.recv(buf).await;
            buf = back;
            if result.unwrap() == 0 {
                break;
            }
        }
        assert!(buf == pattern(1 << 20));
        assert!(child.wait().unwrap().success());
    });
}

fn end_of_shard_ends_its_connections(driver: Driver) {
    let (client, idle, addr) = on_shard(driver, || async {
        let (listener, addr) = listen();
        let client = std::net::TcpStream::connect(addr).unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let idle = std::net::TcpStream::connect(addr).unwrap();
        let (idle_stream, _) = listener.accept().await.unwrap();
        spawn(async move {
            let _ = recv(&mut stream).await;
        });
        spawn(async move {
            let _ = idle_stream.readable().await;
        });
        spawn(listener.serve(Default::default(), |_, _| ()));
        sleep(Duration::from_millis(20)).await;
        (client, idle, addr)
    });
    for mut socket in [&client, &idle] {
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(io::Read::read(&mut socket, &mut [0; 10]).unwrap(), 0);
    }
    assert!(std::net::TcpStream::connect(addr).is_err(), "nobody listens any more");
}
