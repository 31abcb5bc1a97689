//! Shards for tests, with a time limit, and the table macro.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use agentlane_runtime::{Driver, ListenOptions, Listener, ShardOptions, Stream, block_on};
use bytes::{Bytes, BytesMut};

/// A promise that takes longer than this hangs.
const LIMIT: Duration = Duration::from_secs(40);

/// `promises! { a, b }`: the functions `a(Driver)` and `b(Driver)` as tests `uring::a`, `epoll::a`, `glommio::a`, ...
macro_rules! promises {
    ($($name:ident),* $(,)?) => {
        mod uring { $(#[test] fn $name() { super::$name(agentlane_runtime::Driver::Uring); })* }
        mod epoll { $(#[test] fn $name() { super::$name(agentlane_runtime::Driver::Epoll); })* }
        mod glommio { $(#[test] fn $name() { super::$name(agentlane_runtime::Driver::Glommio); })* }
    };
}
pub(crate) use promises;

pub fn options() -> ShardOptions {
    ShardOptions { name: "test".into(), cpu: None, ring_entries: 128, spin: Duration::ZERO }
}

/// Runs a shard on a thread of its own to the end of its future.
pub fn on_shard<F, T>(driver: Driver, make: impl FnOnce() -> F + Send + 'static) -> T
where
    F: Future<Output = T>,
    T: Send + 'static,
{
    start_shard(driver, make).end()
}

pub struct RunningShard<T> {
    result: mpsc::Receiver<T>,
    thread: thread::JoinHandle<()>,
}

pub fn start_shard<F, T>(driver: Driver, make: impl FnOnce() -> F + Send + 'static) -> RunningShard<T>
where
    F: Future<Output = T>,
    T: Send + 'static,
{
    let (sender, result) = mpsc::channel();
    let thread = thread::spawn(move || {
        let output = block_on(driver, &options(), make);
        let output = output.unwrap_or_else(|error| panic!("THIS HOST CANNOT RUN {driver}: {error}"));
        let _ = sender.send(output);
    });
    RunningShard { result, thread }
}

impl<T> RunningShard<T> {
    pub fn end(self) -> T {
        match self.result.recv_timeout(LIMIT) {
            Ok(output) => {
                self.thread.join().expect("the thread has ended well");
                output
            }
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("hangs"),
            Err(mpsc::RecvTimeoutError::Disconnected) => match self.thread.join() {
                Err(panic) => std::panic::resume_unwind(panic),
                Ok(()) => panic!("ended without a result"),
            },
        }
    }
}

pub fn listen() -> (Listener, SocketAddr) {
    let listener = Listener::bind_tcp(([127, 0, 0, 1], 0).into(), &ListenOptions::default()).expect("bind");
    let addr = listener.local_addr().expect("local_addr");
    (listener, addr)
}

/// A connection over TCP, both ends on this shard.
pub async fn tcp_pair() -> (Stream, Stream) {
    let (listener, addr) = listen();
    let near = Stream::connect(addr).await.expect("connect");
    let (far, from) = listener.accept().await.expect("accept");
    assert_eq!(from, near.local_addr().ok());
    (near, far)
}

pub async fn recv(stream: &mut Stream) -> std::io::Result<Bytes> {
    let (result, buf) = stream.recv(BytesMut::with_capacity(16 * 1024)).await;
    assert_eq!(result.as_ref().map_or(0, |n| *n), buf.len());
    result.map(|_| buf.freeze())
}

pub async fn recv_exact(stream: &mut Stream, len: usize) -> Bytes {
    let mut buf = BytesMut::new();
    while buf.len() < len {
        buf.reserve(len - buf.len());
        let (result, back) = stream.recv(buf).await;
        buf = back;
        assert_ne!(result.expect("recv"), 0, "end after {} of {len} bytes", buf.len());
    }
    assert_eq!(buf.len(), len);
    buf.freeze()
}

/// Bytes whose place can be told from their value.
pub fn pattern(len: usize) -> Bytes {
    let block: Vec<u8> = (0..=250).collect();
    let mut bytes = block.repeat(len / block.len() + 1);
    bytes.truncate(len);
    bytes.into()
}

/// This test again, in a process of its own, with `variable` set.
pub fn own_process(test: &str, variable: &str, value: &str) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().expect("own path"));
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(variable, value);
    command
}
