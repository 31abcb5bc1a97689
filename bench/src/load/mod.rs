//! The closed loop: a fixed number of connections, each with one request under way, on one event loop. It knows when an answer is complete;
//! what to ask, and whether an answer is right, is the work's.

pub mod caller;
pub mod http;
pub mod idle;
pub mod mcp;
pub mod never_read;

use crate::epoll::{self, Epoll, Interest, Moved, Ready};
use crate::message::{self, Message, Parsed};
use hdrhistogram::Histogram;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const BUFFER_BYTES: usize = 64 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer that takes longer is a failure, and its connection is opened anew.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often late answers and dead connections are looked for.
const TICK: Duration = Duration::from_millis(100);
/// Longest latency that the histogram tells apart, nanoseconds.
const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// What a load asks. A lane is one connection, numbered from 0.
pub trait Work {
    /// The next request of this lane, head and body.
    fn request(&mut self, lane: usize) -> &[u8];
    /// Whether `answer`, found in `bytes`, is the right one for this lane's last request.
    fn check(&mut self, lane: usize, answer: &Message, bytes: &[u8]) -> Result<(), Failure>;
}

/// Why a request did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be opened.
    Connect,
    /// The connection ended before the answer did.
    Closed,
    /// No answer within [`ANSWER_TIMEOUT`].
    Timeout,
    /// The bytes are not one HTTP answer.
    Framing,
    /// Another status than expected.
    Status,
    /// Body of another length, or without what it must contain.
    Content,
}

impl Failure {
    pub const ALL: [Failure; 6] =
        [Failure::Connect, Failure::Closed, Failure::Timeout, Failure::Framing, Failure::Status, Failure::Content];

    pub fn name(self) -> &'static str {
        match self {
            Failure::Connect => "connect",
            Failure::Closed => "closed",
            Failure::Timeout => "timeout",
            Failure::Framing => "framing",
            Failure::Status => "status",
            Failure::Content => "content",
        }
    }
}

/// What one run of the loop saw.
pub struct Tally {
    /// Requests with the right answer.
    pub requests: u64,
    failures: [u64; Failure::ALL.len()],
    /// Nanoseconds from the first byte sent to the last byte of the right answer.
    pub latency_ns: Histogram<u64>,
    pub elapsed: Duration,
}

impl Tally {
    fn new() -> io::Result<Tally> {
        let latency_ns = Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).map_err(io::Error::other)?;
        Ok(Tally { requests: 0, failures: [0; Failure::ALL.len()], latency_ns, elapsed: Duration::ZERO })
    }

    pub fn failures(&self) -> impl Iterator<Item = (Failure, u64)> {
        Failure::ALL.into_iter().zip(self.failures).filter(|(_, count)| *count > 0)
    }

    pub fn failed(&self) -> u64 {
        self.failures.iter().sum()
    }

    fn fail(&mut self, failure: Failure) {
        self.failures[failure as usize] += 1;
    }
}

/// Connections to one address, kept between runs with the requests that are under way.
pub struct ClosedLoop<W> {
    epoll: Epoll,
    to: SocketAddr,
    lanes: Vec<Lane>,
    work: W,
    buffer: Vec<u8>,
}

struct Lane {
    /// `None` after a failure to connect, until the next tick.
    socket: Option<TcpStream>,
    inbox: Vec<u8>,
    /// Looking at `inbox` is useless before it has this many bytes.
    at_least: usize,
    unsent: Vec<u8>,
    watched: Interest,
    /// When the request under way was begun.
    asked: Option<Instant>,
}

impl<W: Work> ClosedLoop<W> {
    /// Opens `lanes` connections.
    pub fn open(to: SocketAddr, lanes: usize, work: W) -> io::Result<ClosedLoop<W>> {
        let sockets = (0..lanes).map(|_| epoll::connect(to, CONNECT_TIMEOUT)).collect::<io::Result<Vec<_>>>()?;
        Self::over(to, sockets, work)
    }

    /// Takes over open connections, on which nothing is under way; `to` is where one that breaks is opened again.
    pub fn over(to: SocketAddr, sockets: Vec<TcpStream>, work: W) -> io::Result<ClosedLoop<W>> {
        let epoll = Epoll::new()?;
        let mut lanes = Vec::with_capacity(sockets.len());
        for (index, socket) in sockets.into_iter().enumerate() {
            epoll::prepare(&socket)?;
            epoll.add(&socket, index as u64, Interest::Read)?;
            lanes.push(Lane::new(Some(socket)));
        }
        Ok(ClosedLoop { epoll, to, lanes, work, buffer: vec![0; BUFFER_BYTES] })
    }

    /// Drives all lanes for `duration`. A request that is under way at the end is counted by the next run.
    pub fn run(&mut self, duration: Duration) -> io::Result<Tally> {
        let mut tally = Tally::new()?;
        let start = Instant::now();
        let mut next_tick = start + TICK;
        let mut ready = Vec::new();
        for index in 0..self.lanes.len() {
            if self.lanes[index].asked.is_none() {
                self.ask(index, &mut tally);
            }
        }
        loop {
            let now = Instant::now();
            if now >= start + duration {
                break;
            }
            if now >= next_tick {
                self.tick(now, &mut tally);
                next_tick = now + TICK;
            }
            // Rounded up to a millisecond by epoll's clock: never a busy wait.
            let patience = (start + duration - now).min(TICK).max(Duration::from_millis(1));
            self.epoll.wait(patience, &mut ready)?;
            ready.iter().for_each(|event| self.serve(*event, &mut tally));
        }
        tally.elapsed = start.elapsed();
        Ok(tally)
    }

    fn serve(&mut self, event: Ready, tally: &mut Tally) {
        let index = event.token as usize;
        if event.writable && self.send(index).is_err() {
            return self.reopen(index, Failure::Closed, tally);
        }
        if !event.readable && !event.hung_up {
            return;
        }
        let lane = &mut self.lanes[index];
        let Some(socket) = &lane.socket else { return };
        match epoll::read(socket, &mut self.buffer) {
            Ok(Moved::Bytes(count)) => lane.inbox.extend_from_slice(&self.buffer[..count]),
            Ok(Moved::Blocked) => return,
            Ok(Moved::Closed) | Err(_) => return self.reopen(index, Failure::Closed, tally),
        }
        if lane.inbox.len() >= lane.at_least {
            self.look(index, tally);
        }
    }

    /// Takes the answer, if it is complete, and asks again.
    fn look(&mut self, index: usize, tally: &mut Tally) {
        let lane = &mut self.lanes[index];
        let answer = match message::answer(&lane.inbox) {
            Ok(Parsed::Complete(answer)) if answer.total_bytes == lane.inbox.len() => answer,
            Ok(Parsed::Partial { at_least }) => {
                lane.at_least = at_least;
                return;
            }
            Ok(Parsed::Complete(_)) | Err(_) => return self.reopen(index, Failure::Framing, tally),
        };
        match self.work.check(index, &answer, &lane.inbox) {
            Ok(()) => {
                let latency = lane.asked.map_or(Duration::ZERO, |asked| asked.elapsed());
                tally.requests += 1;
                tally.latency_ns.saturating_record(latency.as_nanos().min(LATENCY_MAX_NS.into()) as u64);
            }
            Err(failure) => tally.fail(failure),
        }
        lane.inbox.clear();
        lane.at_least = 1;
        self.ask(index, tally);
    }

    fn ask(&mut self, index: usize, tally: &mut Tally) {
        let lane = &mut self.lanes[index];
        let Some(socket) = &lane.socket else { return };
        lane.asked = Some(Instant::now());
        let request = self.work.request(index);
        let sent = match epoll::write(socket, request) {
            Ok(Moved::Bytes(sent)) if sent == request.len() => return,
            Ok(Moved::Bytes(sent)) => sent,
            Ok(Moved::Blocked) => 0,
            Ok(Moved::Closed) | Err(_) => return self.reopen(index, Failure::Closed, tally),
        };
        lane.unsent.extend_from_slice(&request[sent..]);
        if lane.watch(&self.epoll, index).is_err() {
            self.reopen(index, Failure::Closed, tally);
        }
    }

    fn send(&mut self, index: usize) -> io::Result<()> {
        let lane = &mut self.lanes[index];
        let Some(socket) = &lane.socket else {
            return Ok(());
        };
        if !lane.unsent.is_empty()
            && let Moved::Bytes(sent) = epoll::write(socket, &lane.unsent)?
        {
            lane.unsent.drain(..sent);
        }
        lane.watch(&self.epoll, index)
    }

    fn tick(&mut self, now: Instant, tally: &mut Tally) {
        for index in 0..self.lanes.len() {
            let lane = &self.lanes[index];
            if lane.socket.is_none() {
                self.connect(index, tally);
            } else if lane.asked.is_some_and(|asked| now.saturating_duration_since(asked) > ANSWER_TIMEOUT) {
                self.reopen(index, Failure::Timeout, tally);
            }
        }
    }

    /// Closes the lane for a failure; the next tick opens it again, so that a dead peer is not hammered.
    fn reopen(&mut self, index: usize, failure: Failure, tally: &mut Tally) {
        tally.fail(failure);
        self.lanes[index] = Lane::new(None);
    }

    fn connect(&mut self, index: usize, tally: &mut Tally) {
        let opened = epoll::connect(self.to, CONNECT_TIMEOUT).and_then(|socket| {
            self.epoll.add(&socket, index as u64, Interest::Read)?;
            Ok(socket)
        });
        match opened {
            Ok(socket) => {
                self.lanes[index] = Lane::new(Some(socket));
                self.ask(index, tally);
            }
            Err(_) => tally.fail(Failure::Connect),
        }
    }
}

impl Lane {
    fn new(socket: Option<TcpStream>) -> Lane {
        Lane { socket, inbox: Vec::new(), at_least: 1, unsent: Vec::new(), watched: Interest::Read, asked: None }
    }

    fn watch(&mut self, epoll: &Epoll, index: usize) -> io::Result<()> {
        let Some(socket) = &self.socket else {
            return Ok(());
        };
        let interest = if self.unsent.is_empty() { Interest::Read } else { Interest::Both };
        epoll.change(socket, index as u64, self.watched, interest)?;
        self.watched = interest;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::http::Plain;
    use super::*;
    use crate::upstream::{self, Upstream};
    use std::net::TcpListener;

    fn run(to: SocketAddr, request_bytes: usize, answer_bytes: usize) -> Tally {
        let work = Plain::new(to, "/", request_bytes, answer_bytes);
        ClosedLoop::open(to, 4, work).and_then(|mut load| load.run(Duration::from_millis(200))).expect("the loop runs")
    }

    fn only_failure(tally: &Tally) -> Option<Failure> {
        let mut failures = tally.failures();
        let (first, _) = failures.next()?;
        failures.next().is_none().then_some(first)
    }

    #[test]
    fn right_answers_are_counted_and_timed() {
        let upstream = Upstream::start(upstream::plain::Plain::new(200), Duration::ZERO, None).expect("starts");
        let tally = run(upstream.address, 200, 200);
        assert!(tally.requests > 100, "{}", tally.requests);
        assert_eq!(tally.failed(), 0);
        assert_eq!(tally.latency_ns.len(), tally.requests);
    }

    #[test]
    fn bodies_beyond_the_socket_buffers() {
        let upstream = Upstream::start(upstream::plain::Plain::new(8 << 20), Duration::ZERO, None).expect("starts");
        let work = Plain::new(upstream.address, "/", 8 << 20, 8 << 20);
        let mut load = ClosedLoop::open(upstream.address, 1, work).expect("connects");
        let start = Instant::now();
        let mut requests = 0;
        while requests == 0 && start.elapsed() < Duration::from_secs(10) {
            let tally = load.run(Duration::from_millis(200)).expect("the loop runs");
            assert_eq!(tally.failed(), 0);
            requests += tally.requests;
        }
        assert!(requests > 0);
    }

    #[test]
    fn a_body_of_another_length_is_a_failure() {
        let upstream = Upstream::start(upstream::plain::Plain::new(100), Duration::ZERO, None).expect("starts");
        let tally = run(upstream.address, 200, 200);
        assert_eq!(tally.requests, 0);
        assert_eq!(only_failure(&tally), Some(Failure::Content));
    }

    #[test]
    fn a_peer_that_hangs_up_is_a_failure_and_not_hammered() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let to = listener.local_addr().expect("bound");
        let stop = std::sync::atomic::AtomicBool::new(false);
        let tally = std::thread::scope(|scope| {
            scope.spawn(|| {
                listener.incoming().take_while(|_| !stop.load(std::sync::atomic::Ordering::Relaxed)).for_each(drop)
            });
            let tally = run(to, 200, 200);
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            let _ = TcpStream::connect(to);
            tally
        });
        assert_eq!(only_failure(&tally), Some(Failure::Closed));
        assert!(tally.failed() < 100, "{}", tally.failed());
    }
}
