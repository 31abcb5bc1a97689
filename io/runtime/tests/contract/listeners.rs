//! Accepting.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use agentlane_runtime::{Driver, Listener, Stop, Stream, sleep, spawn, timeout};
use bytes::Bytes;

use crate::support::{listen, on_shard, own_process, promises, recv, recv_exact};

promises! {
    accept_gives_address_and_nodelay, defect_3_dropped_accept_leaks_nothing, defect_4_children_inherit_no_socket,
    defect_5_unix_listener_binds, serve_until_stop, stop_hands_on_what_waits, two_listeners_share_a_port,
    a_flood_of_connections_leaves_turns_to_others, emfile_backs_off_and_sheds,
}

fn accept_gives_address_and_nodelay(driver: Driver) {
    on_shard(driver, || async {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let listener = Listener::bind_tcp(any.parse().unwrap(), &Default::default()).unwrap();
            let addr = listener.local_addr().unwrap();
            assert_ne!(addr.port(), 0);
            let near = Stream::connect(addr).await.unwrap();
            let (far, from) = listener.accept().await.unwrap();
            assert_eq!(from, near.local_addr().ok());
            assert_eq!(far.peer_addr().ok(), from);
            for stream in [&near, &far] {
                let (mut on, mut len) = (0i32, 4);
                let value = (&raw mut on).cast();
                unsafe {
                    libc::getsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, value, &raw mut len)
                };
                assert_ne!(on, 0);
            }
        }
    });
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn defect_3_dropped_accept_leaks_nothing(driver: Driver) {
    on_shard(driver, || async {
        let (listener, addr) = listen();
        for _ in 0..50 {
            assert!(timeout(Duration::from_millis(1), listener.accept()).await.is_err());
        }
        let mut near = Stream::connect(addr).await.unwrap();
        let (mut far, _) = listener.accept().await.expect("the connection was not taken by a dropped accept");
        far.send(Bytes::from_static(b"hello")).await.unwrap();
        assert_eq!(recv_exact(&mut near, 5).await, "hello");
        assert!(open_descriptors() < 400);
    });
}

fn defect_4_children_inherit_no_socket(driver: Driver) {
    on_shard(driver, || async {
        let (listener, addr) = listen();
        let near = Stream::connect(addr).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        let (pair, theirs) = Stream::pair().unwrap();
        let moved = near.detach().unwrap();
        let output = Command::new("sh").args(["-c", "ls -l /proc/self/fd"]).stdin(Stdio::null()).output().unwrap();
        let inherited = String::from_utf8(output.stdout).unwrap();
        assert!(inherited.contains("pipe:"), "{inherited}");
        for kind in ["socket:", "io_uring", "eventfd", "timerfd", "eventpoll"] {
            assert!(!inherited.contains(kind), "{inherited}");
        }
        drop((far, pair, theirs, moved, listener));
    });
}

fn defect_5_unix_listener_binds(driver: Driver) {
    on_shard(driver, move || async move {
        let path = std::env::temp_dir().join(format!("agentlane-listen-{}-{driver:?}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = Listener::bind_unix(&path, &Default::default()).unwrap();
        let stop = Stop::new();
        spawn(listener.serve(stop.clone(), |mut stream, addr| {
            assert_eq!(addr, None);
            spawn(async move { stream.send(Bytes::from_static(b"unix")).await.unwrap() });
        }));
        for _ in 0..20 {
            let mut stream = Stream::connect_unix(&path).await.unwrap();
            assert_eq!(recv_exact(&mut stream, 4).await, "unix");
        }
        stop.stop();
        sleep(Duration::from_millis(20)).await;
        assert_eq!(Stream::connect_unix(&path).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        std::fs::remove_file(&path).unwrap();
        let too_long = std::path::PathBuf::from("x".repeat(200));
        assert!(Listener::bind_unix(&too_long, &Default::default()).is_err());
    });
}

fn serve_until_stop(driver: Driver) {
    on_shard(driver, || async {
        let (listener, addr) = listen();
        let (stop, served) = (Stop::new(), Rc::new(Cell::new(0)));
        let (count, ended) = (served.clone(), agentlane_runtime::local::Event::new());
        let (handle, end) = (stop.clone(), ended.clone());
        spawn(async move {
            listener
                .serve(handle, move |mut stream, _| {
                    count.set(count.get() + 1);
                    spawn(async move {
                        let bytes = recv(&mut stream).await.unwrap();
                        stream.send(bytes).await.unwrap();
                    });
                })
                .await;
            end.set();
        });
        let mut held = Stream::connect(addr).await.unwrap();
        for _ in 0..100 {
            let mut stream = Stream::connect(addr).await.unwrap();
            stream.send(Bytes::from_static(b"hi")).await.unwrap();
            assert_eq!(recv_exact(&mut stream, 2).await, "hi");
        }
        stop.stop();
        timeout(Duration::from_secs(5), ended.wait()).await.expect("serve ends");
        assert!(stop.is_stopped());
        sleep(Duration::from_millis(20)).await;
        assert_eq!(Stream::connect(addr).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        held.send(Bytes::from_static(b"held")).await.unwrap();
        assert_eq!(recv_exact(&mut held, 4).await, "held", "connections outlive their listener");
        assert_eq!(served.get(), 101);
        drop(Listener::bind_tcp(addr, &Default::default()).expect("the port is free again"));
    });
}

fn stop_hands_on_what_waits(driver: Driver) {
    on_shard(driver, || async {
        let (listener, addr) = listen();
        // Connected by the kernel, not accepted yet.
        let clients: Vec<TcpStream> = (0..10).map(|_| TcpStream::connect(addr).unwrap()).collect();
        let (stop, served) = (Stop::new(), Rc::new(Cell::new(0)));
        stop.stop();
        let count = served.clone();
        listener.serve(stop, move |_, _| count.set(count.get() + 1)).await;
        assert_eq!(served.get(), clients.len());
    });
}

fn two_listeners_share_a_port(driver: Driver) {
    on_shard(driver, || async {
        let (first, addr) = listen();
        let second = Listener::bind_tcp(addr, &Default::default()).unwrap();
        let alone = agentlane_runtime::ListenOptions { reuse_port: false, ..Default::default() };
        let refused = Listener::bind_tcp(addr, &alone).map(drop);
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let served = Rc::new([Cell::new(0), Cell::new(0)]);
        for (index, listener) in [first, second].into_iter().enumerate() {
            let served = served.clone();
            spawn(listener.serve(Stop::new(), move |_, _| served[index].set(served[index].get() + 1)));
        }
        let mut held = Vec::new();
        for _ in 0..64 {
            held.push(Stream::connect(addr).await.unwrap());
        }
        sleep(Duration::from_millis(50)).await;
        assert_eq!(served[0].get() + served[1].get(), 64);
        assert!(served.iter().all(|count| count.get() > 0), "{served:?}");
    });
}

fn a_flood_of_connections_leaves_turns_to_others(driver: Driver) {
    let flood = on_shard(driver, || async {
        let (listener, addr) = listen();
        let accepted = Rc::new(Cell::new(0));
        let count = accepted.clone();
        spawn(listener.serve(Stop::new(), move |_, _| count.set(count.get() + 1)));
        let flood = std::thread::spawn(move || {
            let end = Instant::now() + Duration::from_millis(300);
            while Instant::now() < end {
                let _ = TcpStream::connect(addr);
            }
        });
        for _ in 0..5 {
            let start = Instant::now();
            sleep(Duration::from_millis(20)).await;
            assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        }
        assert!(accepted.get() > 10);
        flood
    });
    flood.join().unwrap();
}

/// Set in the process that runs out of descriptors.
const SHORT: &str = "AGENTLANE_TEST_SHORT_OF_DESCRIPTORS";

fn emfile_backs_off_and_sheds(driver: Driver) {
    if std::env::var_os(SHORT).is_some() {
        return run_short_of_descriptors(driver);
    }
    let name = format!("listeners::{}::emfile_backs_off_and_sheds", format!("{driver:?}").to_lowercase());
    let mut child = own_process(&name, SHORT, "1").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let addr = lines.find_map(|line| line.unwrap().split_once("listening on ")?.1.parse().ok()).expect("an address");

    let clients: Vec<TcpStream> = (0..80).map(|_| connect(addr)).collect();
    let answered: Vec<bool> = clients.iter().map(is_answered).collect();
    let shed = answered.iter().filter(|answered| !**answered).count();
    assert!(shed > 0 && shed < answered.len(), "{shed} of {} were closed", answered.len());

    // The shortage lasts: the process must neither spin nor die.
    std::thread::sleep(Duration::from_millis(500));
    drop(clients);
    std::thread::sleep(Duration::from_millis(100));
    let mut after = connect(addr);
    assert!(is_answered(&after), "descriptors are back, so is the service");
    after.write_all(b"end").unwrap();
    let report = lines.find_map(|line| line.unwrap().split_once("cpu ms ")?.1.parse::<u64>().ok()).expect("a report");
    assert!(report < 400, "{report} ms of CPU");
    assert!(child.wait().unwrap().success());
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// A client that is left waiting panics here.
fn is_answered(mut stream: &TcpStream) -> bool {
    match stream.read(&mut [0; 2]) {
        Ok(count) => count == 2,
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => false,
        Err(error) => panic!("neither an answer nor an end: {error}"),
    }
}

fn run_short_of_descriptors(driver: Driver) {
    on_shard(driver, || async {
        let (listener, addr) = listen();
        let limit = libc::rlimit { rlim_cur: open_descriptors() as u64 + 20, rlim_max: 4096 };
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
        println!("listening on {addr}");
        let stop = Stop::new();
        let handle = stop.clone();
        listener
            .serve(stop, move |mut stream, _| {
                let stop = handle.clone();
                spawn(async move {
                    stream.send(Bytes::from_static(b"ok")).await.unwrap();
                    if recv(&mut stream).await.is_ok_and(|bytes| bytes == "end") {
                        stop.stop();
                    }
                });
            })
            .await;
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) }, 0);
        let ms = |time: libc::timeval| time.tv_sec as u64 * 1000 + time.tv_usec as u64 / 1000;
        println!("cpu ms {}", ms(usage.ru_utime) + ms(usage.ru_stime));
    });
}
