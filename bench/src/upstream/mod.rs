//! A fake upstream on an event loop of its own: it must cost far less than any proxy in front of it. It frames HTTP; what to answer is the service's.

pub mod mcp;
pub mod plain;

use crate::cpu;
use crate::epoll::{self, Epoll, Interest, Moved, Slab};
use crate::message::{self, Message, Parsed};
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const BUFFER_BYTES: usize = 64 << 10;
/// Longest request taken, bytes.
const REQUEST_BYTES_MAX: usize = 64 << 20;
/// How often a quiet upstream looks whether it should stop.
const STOP_POLL: Duration = Duration::from_millis(100);
const LISTENER: u64 = u64::MAX;

/// What an upstream says.
pub trait Service: Send {
    /// Appends the whole answer, head and body, to `out`. `bytes` is the buffer that `request` was found in; `body` is the request's content.
    fn answer(&mut self, request: &Message, bytes: &[u8], body: &[u8], out: &mut Vec<u8>);
}

/// A fake upstream on a thread of its own; dropping it stops the thread.
pub struct Upstream {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Upstream {
    /// Listens on a free port of 127.0.0.1. Each answer waits for `latency`. With `cpu` the thread is pinned there.
    pub fn start(service: impl Service + 'static, latency: Duration, cpu: Option<usize>) -> io::Result<Upstream> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("upstream".into()).spawn(move || {
            let pinned = cpu.map_or(Ok(()), cpu::pin_current);
            if let Err(error) = pinned.and_then(|()| run(&listener, service, latency, &stopped)) {
                eprintln!("upstream {address}: {error}");
            }
        })?;
        Ok(Upstream { address, stop, thread: Some(thread) })
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Serves `listener` in the calling thread until `stop` is set.
pub fn run(listener: &TcpListener, service: impl Service, latency: Duration, stop: &AtomicBool) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut server = Server {
        epoll: Epoll::new()?,
        service,
        latency,
        connections: Slab::default(),
        delayed: VecDeque::new(),
        serial: 0,
        buffer: vec![0; BUFFER_BYTES],
        scratch: Vec::new(),
    };
    server.epoll.add(listener, LISTENER, Interest::Read)?;
    let mut ready = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        server.epoll.wait(server.patience(), &mut ready)?;
        for event in &ready {
            match event.token {
                LISTENER => server.accept(listener),
                token => server.serve(token as usize, event.readable || event.hung_up),
            }
        }
        server.release();
    }
    Ok(())
}

struct Server<S> {
    epoll: Epoll,
    service: S,
    latency: Duration,
    connections: Slab<Connection>,
    /// Answers that wait; the latency is the same for all, so the queue is in order of time.
    delayed: VecDeque<Delayed>,
    serial: u64,
    buffer: Vec<u8>,
    scratch: Vec<u8>,
}

struct Connection {
    socket: TcpStream,
    /// Tells this connection from a later one in the same slot.
    serial: u64,
    inbox: Vec<u8>,
    /// Looking at `inbox` is useless before it has this many bytes.
    at_least: usize,
    outbox: Vec<u8>,
    blocked: bool,
}

struct Delayed {
    due: Instant,
    index: usize,
    serial: u64,
    answer: Vec<u8>,
}

impl<S: Service> Server<S> {
    fn patience(&self) -> Duration {
        match self.delayed.front() {
            Some(first) => first.due.saturating_duration_since(Instant::now()).min(STOP_POLL),
            None => STOP_POLL,
        }
    }

    fn accept(&mut self, listener: &TcpListener) {
        let Ok((socket, _)) = listener.accept() else {
            return;
        };
        if epoll::prepare(&socket).is_err() {
            return;
        }
        self.serial += 1;
        let connection = Connection {
            socket,
            serial: self.serial,
            inbox: Vec::new(),
            at_least: 1,
            outbox: Vec::new(),
            blocked: false,
        };
        let index = self.connections.insert(connection);
        let Some(connection) = self.connections.at(index) else {
            return;
        };
        if self.epoll.add(&connection.socket, index as u64, Interest::Read).is_err() {
            self.connections.remove(index);
        }
    }

    fn serve(&mut self, index: usize, readable: bool) {
        let Some(connection) = self.connections.at(index) else {
            return;
        };
        if connection.blocked {
            return self.send(index);
        }
        if !readable {
            return;
        }
        match epoll::read(&connection.socket, &mut self.buffer) {
            Ok(Moved::Bytes(count)) if connection.inbox.len() + count <= REQUEST_BYTES_MAX => {
                connection.inbox.extend_from_slice(&self.buffer[..count])
            }
            Ok(Moved::Blocked) => return,
            _ => return self.connections.remove(index),
        }
        if connection.inbox.len() >= connection.at_least {
            self.answer_all(index);
        }
    }

    fn answer_all(&mut self, index: usize) {
        let Some(connection) = self.connections.at(index) else {
            return;
        };
        let mut consumed = 0;
        loop {
            let bytes = &connection.inbox[consumed..];
            match message::request(bytes) {
                Ok(Parsed::Complete(request)) => {
                    let body = request.body(bytes, &mut self.scratch);
                    if self.latency.is_zero() {
                        self.service.answer(&request, bytes, body, &mut connection.outbox);
                    } else {
                        let mut answer = Vec::new();
                        self.service.answer(&request, bytes, body, &mut answer);
                        self.delayed.push_back(Delayed {
                            due: Instant::now() + self.latency,
                            index,
                            serial: connection.serial,
                            answer,
                        });
                    }
                    consumed += request.total_bytes;
                }
                Ok(Parsed::Partial { at_least }) => {
                    connection.at_least = at_least;
                    break;
                }
                Err(malformed) => {
                    eprintln!("upstream: malformed request: {}", malformed.0);
                    return self.connections.remove(index);
                }
            }
        }
        connection.inbox.drain(..consumed);
        self.send(index);
    }

    fn release(&mut self) {
        if self.delayed.is_empty() {
            return;
        }
        let now = Instant::now();
        while self.delayed.front().is_some_and(|first| first.due <= now) {
            let Some(Delayed { index, serial, answer, .. }) = self.delayed.pop_front() else {
                return;
            };
            let Some(connection) = self.connections.at(index).filter(|connection| connection.serial == serial) else {
                continue;
            };
            connection.outbox.extend_from_slice(&answer);
            self.send(index);
        }
    }

    /// Sends what it can; while anything is left, nothing more is read from this peer.
    fn send(&mut self, index: usize) {
        let Some(connection) = self.connections.at(index) else {
            return;
        };
        if connection.outbox.is_empty() {
            return;
        }
        match epoll::write(&connection.socket, &connection.outbox) {
            Ok(Moved::Bytes(count)) if count == connection.outbox.len() => connection.outbox.clear(),
            Ok(Moved::Bytes(count)) => drop(connection.outbox.drain(..count)),
            Ok(Moved::Blocked) => {}
            Ok(Moved::Closed) | Err(_) => return self.connections.remove(index),
        }
        let blocked = !connection.outbox.is_empty();
        if blocked != connection.blocked {
            connection.blocked = blocked;
            let (from, to) =
                if blocked { (Interest::Read, Interest::Write) } else { (Interest::Write, Interest::Read) };
            if self.epoll.change(&connection.socket, index as u64, from, to).is_err() {
                self.connections.remove(index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::plain::Plain;
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn pipelined_requests_are_answered_in_order_after_the_latency() {
        let upstream = Upstream::start(Plain::new(10), Duration::from_millis(20), None).expect("starts");
        let mut client = TcpStream::connect(upstream.address).expect("listens");
        let start = Instant::now();
        client
            .write_all(b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}GET / HTTP/1.1\r\n\r\nPOST / HT")
            .expect("taken");
        let mut got = Vec::new();
        let mut found = 0;
        while found < 2 {
            let mut buffer = [0; 1024];
            let count = client.read(&mut buffer).expect("an answer");
            assert_ne!(count, 0, "closed early");
            got.extend_from_slice(&buffer[..count]);
            while let Ok(Parsed::Complete(answer)) = message::answer(&got) {
                assert_eq!(answer.status(), 200);
                got.drain(..answer.total_bytes);
                found += 1;
            }
        }
        assert!(start.elapsed() >= Duration::from_millis(20));
        assert!(got.is_empty());
    }

    #[test]
    fn a_reader_that_stalls_gets_everything_later() {
        const BODY_BYTES: usize = 8 << 20;
        let upstream = Upstream::start(Plain::new(BODY_BYTES), Duration::ZERO, None).expect("starts");
        let mut client = TcpStream::connect(upstream.address).expect("listens");
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("taken");
        std::thread::sleep(Duration::from_millis(100));
        let mut got = Vec::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match message::answer(&got) {
                Ok(Parsed::Complete(answer)) => {
                    return assert_eq!(answer.total_bytes - answer.head_bytes, BODY_BYTES);
                }
                Ok(Parsed::Partial { .. }) => {}
                Err(malformed) => panic!("{malformed:?}"),
            }
            let count = client.read(&mut buffer).expect("an answer");
            assert_ne!(count, 0, "closed early");
            got.extend_from_slice(&buffer[..count]);
        }
    }
}
