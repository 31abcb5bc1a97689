//! What carries a connection's bytes: a socket as it is, or TLS on it. Chosen once for each connection; what is above asks no
//! further.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Instant;

use agentlane_runtime::{Parts, ReadHalf, Stream, WriteHalf};
use bytes::BytesMut;

use crate::buffer;
use crate::peek::{Peek, peek};
use crate::tls::{Session, TlsRead, TlsWrite};

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
        }
    }

    /// Waits until there is something to receive, holding no buffer. May be dropped.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Receiver::Plain(half) => half.readable().await,
            Receiver::Tls(half) => half.readable().await,
        }
    }

    /// What the connection holds, without waiting.
    pub(crate) fn peek(&self) -> Peek {
        match self {
            Receiver::Plain(half) => peek(half),
            Receiver::Tls(half) => half.peek(),
        }
    }

    /// Whether the peer is known to send nothing behind what was received.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Receiver::Plain(_) => false,
            Receiver::Tls(half) => half.is_over(),
        }
    }

    pub(crate) fn set_deadline(&self, at: Option<Instant>, how: Shutdown) {
        self.half().set_deadline(at, how);
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.half().peer_addr()
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.half().local_addr()
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

    fn half(&self) -> &ReadHalf {
        match self {
            Receiver::Plain(half) => half,
            Receiver::Tls(tls) => &tls.half,
        }
    }
}

impl AsRawFd for Receiver {
    fn as_raw_fd(&self) -> RawFd {
        self.half().as_raw_fd()
    }
}

/// The sending direction.
pub(crate) enum Sender {
    Plain(WriteHalf),
    Tls(TlsWrite),
}

impl Sender {
    /// Sends all parts in order. Must not be dropped before it ends.
    pub(crate) async fn send(&mut self, mut parts: Parts) -> io::Result<()> {
        match self {
            Sender::Plain(half) if parts.len() == 1 => half.send(parts.swap_remove(0)).await,
            Sender::Plain(half) => half.sendv(parts).await,
            Sender::Tls(half) => half.sendv(parts).await,
        }
    }

    /// Whether parts are gathered without a system call's help, so that joining them first would be a copy for nothing.
    pub(crate) fn gathers(&self) -> bool {
        matches!(self, Sender::Tls(_))
    }

    /// Ends the sending side. `whole`: what was sent is complete, which TLS tells the peer; otherwise it will see that it was
    /// cut.
    pub(crate) async fn end(&mut self, whole: bool) {
        if let Sender::Tls(half) = &mut *self {
            // A peer that has left, or does not read, cannot be told.
            let _ = half.close(whole).await;
        }
        // A socket that the peer has closed already is not connected any more; then there is nobody to tell.
        let _ = self.half().shutdown(Shutdown::Write);
    }

    /// Says goodbye where TLS asks for it, without waiting.
    pub(crate) fn leave(&mut self) {
        if let Sender::Tls(half) = self {
            half.close_now();
        }
    }

    pub(crate) fn set_deadline(&self, at: Option<Instant>, how: Shutdown) {
        self.half().set_deadline(at, how);
    }

    fn half(&self) -> &WriteHalf {
        match self {
            Sender::Plain(half) => half,
            Sender::Tls(tls) => &tls.half,
        }
    }
}
