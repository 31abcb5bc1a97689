//! The floor: a TCP forward that copies bytes and knows nothing of HTTP. One thread, one upstream connection per downstream connection.

use crate::epoll::{self, Epoll, Interest, Moved, Ready, Slab};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Bytes moved by one read, as much as the proxies compared with it use for bulk.
const BUFFER_BYTES: usize = 64 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a quiet forward looks whether it should stop.
const STOP_POLL: Duration = Duration::from_millis(100);
const LISTENER: u64 = u64::MAX;

/// Forwards every connection of `listener` to `upstream` until `stop` is set.
pub fn run(listener: &TcpListener, upstream: SocketAddr, stop: &AtomicBool) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut forward = Forward { epoll: Epoll::new()?, pairs: Slab::default(), buffer: vec![0; BUFFER_BYTES], upstream };
    forward.epoll.add(listener, LISTENER, Interest::Read)?;
    let mut ready = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        forward.epoll.wait(STOP_POLL, &mut ready)?;
        for event in &ready {
            match event.token {
                LISTENER => forward.accept(listener),
                _ => forward.serve(*event),
            }
        }
    }
    Ok(())
}

struct Forward {
    epoll: Epoll,
    pairs: Slab<Pair>,
    buffer: Vec<u8>,
    upstream: SocketAddr,
}

/// Two ends; `ends[side]` is read into `ends[1 - side]`.
struct Pair {
    ends: [End; 2],
}

struct End {
    socket: TcpStream,
    /// Bytes that this end's socket would not take yet. While there are any, the other end is not read.
    unsent: Vec<u8>,
    /// The peer will send no more.
    finished: bool,
    watched: Interest,
}

impl Forward {
    fn accept(&mut self, listener: &TcpListener) {
        let Ok((downstream, _)) = listener.accept() else {
            return;
        };
        let opened = epoll::prepare(&downstream).and_then(|()| epoll::connect(self.upstream, CONNECT_TIMEOUT));
        let upstream = match opened {
            Ok(upstream) => upstream,
            Err(error) => return eprintln!("forward: no connection to {}: {error}", self.upstream),
        };
        let end = |socket| End { socket, unsent: Vec::new(), finished: false, watched: Interest::Read };
        let index = self.pairs.insert(Pair { ends: [end(downstream), end(upstream)] });
        let Some(pair) = self.pairs.at(index) else {
            return;
        };
        let watched =
            (0..2).try_for_each(|side| self.epoll.add(&pair.ends[side].socket, token(index, side), Interest::Read));
        if watched.is_err() {
            self.pairs.remove(index);
        }
    }

    fn serve(&mut self, event: Ready) {
        let (index, side) = (event.token as usize / 2, event.token as usize % 2);
        let Some(pair) = self.pairs.at(index) else {
            return;
        };
        let alive = pair.serve(side, event, &mut self.buffer).and_then(|()| pair.watch(&self.epoll, index));
        if alive.is_err() || pair.finished() {
            self.pairs.remove(index);
        }
    }
}

impl Pair {
    fn serve(&mut self, side: usize, event: Ready, buffer: &mut [u8]) -> io::Result<()> {
        if event.writable {
            self.flush(side)?;
        }
        if event.readable && self.ends[1 - side].unsent.is_empty() && !self.ends[side].finished {
            return self.copy(side, buffer);
        }
        if event.readable || event.writable || !event.hung_up {
            Ok(())
        } else {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }

    /// One read, one write: the whole cost of a forward.
    fn copy(&mut self, side: usize, buffer: &mut [u8]) -> io::Result<()> {
        let count = match epoll::read(&self.ends[side].socket, buffer)? {
            Moved::Bytes(count) => count,
            Moved::Blocked => return Ok(()),
            Moved::Closed => {
                self.ends[side].finished = true;
                return self.pass_on_end(1 - side);
            }
        };
        let sink = &mut self.ends[1 - side];
        let sent = match epoll::write(&sink.socket, &buffer[..count])? {
            Moved::Bytes(sent) => sent,
            Moved::Blocked | Moved::Closed => 0,
        };
        sink.unsent.extend_from_slice(&buffer[sent..count]);
        Ok(())
    }

    fn flush(&mut self, side: usize) -> io::Result<()> {
        let end = &mut self.ends[side];
        if end.unsent.is_empty() {
            return Ok(());
        }
        if let Moved::Bytes(sent) = epoll::write(&end.socket, &end.unsent)? {
            end.unsent.drain(..sent);
        }
        self.pass_on_end(side)
    }

    /// Once the peer of `side` has finished and all its bytes are out, `side` learns of it.
    fn pass_on_end(&self, side: usize) -> io::Result<()> {
        let end = &self.ends[side];
        if self.ends[1 - side].finished && end.unsent.is_empty() {
            end.socket.shutdown(Shutdown::Write)
        } else {
            Ok(())
        }
    }

    fn finished(&self) -> bool {
        self.ends.iter().all(|end| end.finished && end.unsent.is_empty())
    }

    /// Tells epoll only what changed: in the usual case nothing does.
    fn watch(&mut self, epoll: &Epoll, index: usize) -> io::Result<()> {
        for side in 0..2 {
            let read = !self.ends[side].finished && self.ends[1 - side].unsent.is_empty();
            let interest = match (read, !self.ends[side].unsent.is_empty()) {
                (true, false) => Interest::Read,
                (false, true) => Interest::Write,
                (true, true) => Interest::Both,
                (false, false) => Interest::Nothing,
            };
            let end = &mut self.ends[side];
            epoll.change(&end.socket, token(index, side), end.watched, interest)?;
            end.watched = interest;
        }
        Ok(())
    }
}

fn token(index: usize, side: usize) -> u64 {
    (index * 2 + side) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    /// An upstream that sends back what it gets, in the end-of-stream order of the caller.
    fn echo(listener: TcpListener) {
        while let Ok((mut socket, _)) = listener.accept() {
            let mut bytes = Vec::new();
            if socket.read_to_end(&mut bytes).is_err() || bytes == b"stop" {
                return;
            }
            let _ = socket.write_all(&bytes);
        }
    }

    #[test]
    fn carries_more_than_the_socket_buffers_and_both_ends() {
        let upstream = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let (to, at) = (upstream.local_addr().expect("bound"), listener.local_addr().expect("bound"));
        let stop = AtomicBool::new(false);
        let sent: Vec<u8> = (0..16_u32 << 20).map(|i| (i % 251) as u8).collect();
        let mut got = Vec::new();
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| echo(upstream));
            scope.spawn(|| run(&listener, to, &stop).expect("the loop runs"));
            let outcome = round_trip(at, &sent, &mut got);
            let stopped = TcpStream::connect(to).and_then(|mut socket| socket.write_all(b"stop"));
            stop.store(true, Ordering::Relaxed);
            outcome.and(stopped)
        });
        assert!(outcome.is_ok() && got == sent, "{outcome:?}, {} of {} bytes", got.len(), sent.len());
    }

    fn round_trip(at: SocketAddr, sent: &[u8], got: &mut Vec<u8>) -> io::Result<()> {
        let mut client = TcpStream::connect(at)?;
        client.set_read_timeout(Some(Duration::from_secs(10)))?;
        client.write_all(sent)?;
        client.shutdown(Shutdown::Write)?;
        std::thread::sleep(Duration::from_millis(50));
        client.read_to_end(got).map(drop)
    }
}
