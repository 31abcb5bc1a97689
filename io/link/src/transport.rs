//! What carries a connection's bytes: a socket as it is, TLS on it, or one stream of HTTP/2. Chosen once for each connection; what is above asks no
//! further.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Instant;

use agentlane_runtime::{Parts, ReadHalf, Stream, WriteHalf};
use bytes::BytesMut;

use crate::buffer;
use crate::h2::{StreamReader, StreamWriter};
use crate::peek::{Peek, peek};
use crate::tls::{ALPN_HTTP2, Session, TlsRead, TlsWrite};

/// A connected socket, with TLS on it or without.
pub struct Transport {
    stream: Stream,
    tls: Option<Box<Session>>,
}

/// A transport on its way to another shard.
pub struct Detached {
    fd: OwnedFd,
    tls: Option<Box<Session>>,
}

impl From<Stream> for Transport {
    fn from(stream: Stream) -> Self {
        Transport { stream, tls: None }
    }
}

impl Transport {
    pub(crate) fn secured(stream: Stream, session: Session) -> Self {
        Transport { stream, tls: Some(Box::new(session)) }
    }

    /// Takes it off this shard, at a message boundary and with nothing in flight. The keys of TLS travel along.
    pub fn detach(self) -> io::Result<Detached> {
        Ok(Detached { fd: self.stream.detach()?, tls: self.tls })
    }

    /// Takes one over that another shard gave up.
    pub fn attach(detached: Detached) -> io::Result<Self> {
        Ok(Transport { stream: Stream::from_fd(detached.fd)?, tls: detached.tls })
    }

    /// This side's address; an error for a unix socket.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// Whether TLS is spoken on it.
    pub(crate) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether the two sides have agreed on HTTP/2 (RFC 9113, 3.2).
    pub(crate) fn has_agreed_on_http2(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.connection().alpn_protocol() == Some(ALPN_HTTP2))
    }

    /// Where it comes from and goes to, as far as the socket tells.
    pub(crate) fn addresses(&self) -> Addresses {
        Addresses { local: self.stream.local_addr().ok(), peer: self.stream.peer_addr().ok() }
    }

    pub(crate) fn into_split(self) -> (Receiver, Sender) {
        match self.tls {
            None => {
                let (read, write) = self.stream.into_split();
                (Receiver::Plain(read), Sender::Plain(write))
            }
            Some(session) => {
                let (read, write) = crate::tls::split(self.stream, session);
                (Receiver::Tls(read), Sender::Tls(write))
            }
        }
    }
}

/// The two ends of a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) local: Option<SocketAddr>,
    pub(crate) peer: Option<SocketAddr>,
}

/// What one recv gave.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Received {
    /// Bytes for the connection; 0 at its end.
    pub(crate) count: usize,
    /// Bytes from the socket,
    pub(crate) raw: usize,
    /// and how many there was room for.
    pub(crate) room: usize,
}

/// The receiving direction.
pub(crate) enum Receiver {
    Plain(ReadHalf),
    Tls(TlsRead),
    Stream(StreamReader),
}

impl Receiver {
    /// Appends what comes to `buf`, with room for about `size` bytes. Must not be dropped before it ends.
    pub(crate) async fn recv(&mut self, buf: BytesMut, size: usize) -> (io::Result<Received>, BytesMut) {
        match self {
            Receiver::Plain(half) => {
                let buf = buffer::with_room(buf, size);
                let room = buf.capacity() - buf.len();
                let (result, buf) = half.recv(buf).await;
                (result.map(|count| Received { count, raw: count, room }), buf)
            }
            Receiver::Tls(half) => half.recv(buf, size).await,
            Receiver::Stream(stream) => stream.recv(buf).await,
        }
    }

    /// Waits until there is something to receive, holding no buffer. May be dropped.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Receiver::Plain(half) => half.readable().await,
            Receiver::Tls(half) => half.readable().await,
            // Waited for only between messages, and a stream has one.
            Receiver::Stream(_) => Ok(()),
        }
    }

    /// What the connection holds, without waiting.
    pub(crate) fn peek(&self) -> Peek {
        match self {
            Receiver::Plain(half) => peek(half),
            Receiver::Tls(half) => half.peek(),
            Receiver::Stream(_) => Peek::Silent,
        }
    }

    /// Whether the peer is known to send nothing behind what was received.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Receiver::Plain(_) => false,
            Receiver::Tls(half) => half.is_over(),
            Receiver::Stream(_) => false,
        }
    }

    pub(crate) fn set_deadline(&self, at: Option<Instant>, how: Shutdown) {
        match self {
            Receiver::Plain(half) => half.set_deadline(at, how),
            Receiver::Tls(tls) => tls.half.set_deadline(at, how),
            Receiver::Stream(stream) => stream.set_deadline(at),
        }
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Receiver::Plain(half) => half.peer_addr(),
            Receiver::Tls(tls) => tls.half.peer_addr(),
            Receiver::Stream(stream) => stream.peer_addr(),
        }
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Receiver::Plain(half) => half.local_addr(),
            Receiver::Tls(tls) => tls.half.local_addr(),
            Receiver::Stream(stream) => stream.local_addr(),
        }
    }

    /// Neither TLS nor a stream.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self, Receiver::Plain(_))
    }

    /// One stream of HTTP/2, which other streams share the connection with.
    pub(crate) fn stream(&self) -> Option<&StreamReader> {
        match self {
            Receiver::Stream(stream) => Some(stream),
            Receiver::Plain(_) | Receiver::Tls(_) => None,
        }
    }

    /// The whole transport again.
    pub(crate) fn reunite(self, other: Sender) -> io::Result<Transport> {
        match (self, other) {
            (Receiver::Plain(read), Sender::Plain(write)) => match read.reunite(write) {
                Ok(stream) => Ok(stream.into()),
                Err(_) => Err(io::Error::other("halves of two sockets")),
            },
            (Receiver::Tls(read), Sender::Tls(write)) => {
                let (stream, session) = read.reunite(write)?;
                Ok(Transport { stream, tls: Some(session) })
            }
            _ => Err(io::Error::other("halves of two kinds")),
        }
    }
}

impl AsRawFd for Receiver {
    /// -1 for a stream: its socket is others' too.
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Receiver::Plain(half) => half.as_raw_fd(),
            Receiver::Tls(tls) => tls.half.as_raw_fd(),
            Receiver::Stream(_) => -1,
        }
    }
}

/// The sending direction.
pub(crate) enum Sender {
    Plain(WriteHalf),
    Tls(TlsWrite),
    Stream(StreamWriter),
}

impl Sender {
    /// Sends all parts in order. `last`: a message ends with them, which a stream tells its peer; the first part that it is
    /// given is a head. Must not be dropped before it ends.
    pub(crate) async fn send(&mut self, mut parts: Parts, last: bool) -> io::Result<()> {
        match self {
            Sender::Stream(stream) => stream.send(parts, last).await,
            Sender::Plain(half) if parts.len() == 1 => half.send(parts.swap_remove(0)).await,
            Sender::Plain(half) => half.sendv(parts).await,
            Sender::Tls(half) => half.sendv(parts).await,
        }
    }

    /// Whether parts are gathered without a system call's help, so that joining them first would be a copy for nothing.
    pub(crate) fn gathers(&self) -> bool {
        matches!(self, Sender::Tls(_) | Sender::Stream(_))
    }

    /// Whether it is told the end of a message even where no byte comes with it.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self, Sender::Stream(_))
    }

    /// Ends the sending side. `whole`: what was sent is complete, which TLS tells the peer; otherwise it will see that it was
    /// cut.
    pub(crate) async fn end(&mut self, whole: bool) {
        // A peer that has left, or does not read, cannot be told. Neither can one whose socket is not connected any more.
        let _ = match &mut *self {
            Sender::Plain(half) => half.shutdown(Shutdown::Write),
            Sender::Tls(tls) => {
                let _ = tls.close(whole).await;
                tls.half.shutdown(Shutdown::Write)
            }
            Sender::Stream(stream) => return stream.end(whole),
        };
    }

    /// Says goodbye where TLS asks for it, without waiting.
    pub(crate) fn leave(&mut self) {
        if let Sender::Tls(half) = self {
            half.close_now();
        }
    }

    pub(crate) fn set_deadline(&self, at: Option<Instant>, how: Shutdown) {
        match self {
            Sender::Plain(half) => half.set_deadline(at, how),
            Sender::Tls(tls) => tls.half.set_deadline(at, how),
            Sender::Stream(stream) => stream.set_deadline(at),
        }
    }
}
