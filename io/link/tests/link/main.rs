//! Connections over real sockets, under every driver that this machine has. The peers are plain blocking threads.

mod certs;
mod client;
mod proxy;
mod server;
mod tls;
mod tls_client;

use std::future::Future;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use agentlane_link::Drain;
use agentlane_link::server::{Connection, ServerLimits};
use agentlane_runtime::local::Notify;
use agentlane_runtime::{Driver, ListenOptions, Listener, Parts, RuntimeChoice, ShardOptions, block_on, select, spawn};
use bytes::Bytes;

/// How long a peer waits before the test fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `test` under each driver that works here.
fn each_driver(test: impl Fn(Driver)) {
    let mut drivers = vec![Driver::Epoll];
    drivers
        .extend(select(RuntimeChoice::Monoio, 1, 256).ok().map(|found| found.driver).filter(|d| *d != Driver::Epoll));
    drivers.extend(select(RuntimeChoice::Glommio, 1, 256).ok().map(|found| found.driver));
    for driver in drivers {
        println!("driver: {driver}");
        test(driver);
    }
}

fn options() -> ShardOptions {
    ShardOptions { name: "test".into(), ring_entries: 256, ..ShardOptions::default() }
}

/// Runs one future as a shard of this thread.
fn shard<F: Future<Output = T>, T>(driver: Driver, make: impl FnOnce() -> F) -> T {
    block_on(driver, &options(), make).expect("driver starts")
}

/// A server shard on its own thread: `handle` gets each of the first `connections` connections; the thread ends when all
/// are handled.
struct Server {
    addr: SocketAddr,
    thread: JoinHandle<()>,
}

impl Server {
    fn start<H, F>(driver: Driver, connections: usize, limits: ServerLimits, handle: H) -> Server
    where
        H: Fn(Connection) -> F + Send + 'static,
        F: Future<Output = ()> + 'static,
    {
        Self::start_draining(driver, connections, limits, move |connection, _| handle(connection))
    }

    fn start_draining<H, F>(driver: Driver, connections: usize, limits: ServerLimits, handle: H) -> Server
    where
        H: Fn(Connection, Drain) -> F + Send + 'static,
        F: Future<Output = ()> + 'static,
    {
        let (told, addr) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            shard(driver, || async move {
                let any = "127.0.0.1:0".parse().unwrap();
                let listener = Listener::bind_tcp(any, &ListenOptions::default()).unwrap();
                told.send(listener.local_addr().unwrap()).unwrap();
                let (limits, drain, done) = (Rc::new(limits), Drain::new(), Notify::new());
                let left = Rc::new(std::cell::Cell::new(connections));
                for _ in 0..connections {
                    let (stream, _) = listener.accept().await.unwrap();
                    let handled = handle(Connection::new(stream, limits.clone(), &drain), drain.clone());
                    let (left, done) = (left.clone(), done.clone());
                    spawn(async move {
                        handled.await;
                        left.set(left.get() - 1);
                        done.notify_one();
                    });
                }
                while left.get() > 0 {
                    done.notified().await;
                }
            });
        });
        Server { addr: addr.recv_timeout(PATIENCE).unwrap(), thread }
    }

    fn connect(&self) -> Peer {
        Peer::connect(self.addr)
    }

    fn join(self) {
        self.thread.join().unwrap();
    }
}

/// The other end of a connection, blocking.
struct Peer(TcpStream);

impl Peer {
    fn connect(addr: SocketAddr) -> Peer {
        Peer::new(TcpStream::connect(addr).unwrap())
    }

    fn new(stream: TcpStream) -> Peer {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Peer(stream)
    }

    fn send(&mut self, text: impl AsRef<[u8]>) {
        self.0.write_all(text.as_ref()).unwrap();
    }

    /// Reads something; 0 at the end or after a reset.
    #[track_caller]
    fn read(&mut self, buf: &mut [u8]) -> usize {
        loop {
            match self.0.read(buf) {
                Ok(count) => return count,
                // The ring that `select` tried may still interrupt this thread once.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return 0,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Reads exactly what is expected.
    #[track_caller]
    fn expect(&mut self, text: impl AsRef<[u8]>) {
        let text = text.as_ref();
        let mut got = vec![0; text.len()];
        let mut len = 0;
        while len < got.len() {
            match self.read(&mut got[len..]) {
                0 => break,
                count => len += count,
            }
        }
        assert_eq!(String::from_utf8_lossy(&got[..len]), String::from_utf8_lossy(text));
    }

    /// Reads up to and with `mark`, byte by byte.
    #[track_caller]
    fn read_until(&mut self, mark: &str) -> String {
        let mut text = Vec::new();
        let mut byte = [0];
        while !text.ends_with(mark.as_bytes()) {
            assert_eq!(self.read(&mut byte), 1, "ended after {:?}", String::from_utf8_lossy(&text));
            text.push(byte[0]);
        }
        String::from_utf8(text).unwrap()
    }

    /// Reads a head.
    #[track_caller]
    fn head(&mut self) -> String {
        self.read_until("\r\n\r\n")
    }

    /// Reads to the end of the stream; a reset counts as one.
    fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let mut piece = [0; 65536];
        loop {
            match self.read(&mut piece) {
                0 => return String::from_utf8_lossy(&rest).into_owned(),
                count => rest.extend_from_slice(&piece[..count]),
            }
        }
    }

    #[track_caller]
    fn expect_end(&mut self) {
        assert_eq!(self.rest(), "");
    }
}

/// An upstream: `handle` gets each of the first `connections` connections with its number, one after the other.
fn upstream(connections: usize, handle: impl Fn(Peer, usize) + Send + 'static) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        for number in 0..connections {
            handle(Peer::new(listener.accept().unwrap().0), number);
        }
    });
    (addr, thread)
}

fn part(text: impl Into<Bytes>) -> Parts {
    [text.into()].into_iter().collect()
}

/// Limits short enough to be reached in a test.
fn short() -> ServerLimits {
    ServerLimits {
        idle: Duration::from_millis(300),
        head_time: Duration::from_millis(300),
        body_time: Duration::from_millis(300),
        write_time: Duration::from_millis(300),
        linger: Duration::from_millis(300),
        ..ServerLimits::default()
    }
}
