//! A connected socket of this shard: TCP, unix, or one end of a socketpair. Owned buffers, completions, deadlines. Knows
//! nothing of the bytes.

use std::cell::Cell;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use smallvec::SmallVec;

use crate::clock::{Clock, sleep, sleep_until};
use crate::join::{Either, race};
use crate::socket::{Gather, Socket};
use crate::watch::Slot;
use crate::{shard, sys};

/// What one [`Stream::sendv`] takes: for a spliced message head, new part, tail.
pub type Parts = SmallVec<[Bytes; 6]>;

/// Pause between two tries to connect to a unix socket whose backlog is full.
const UNIX_BACKLOG_PAUSE: Duration = Duration::from_millis(10);
/// Tries before such a connect fails.
const UNIX_BACKLOG_TRIES: usize = 100;

/// A connected stream socket.
///
/// An operation is never dropped before it has ended: a dropped recv may have taken bytes that nobody will see. A stream
/// to which that happened refuses to go on in that direction. To end an operation use [`Stream::set_deadline`] or
/// [`Stream::shutdown`]. Only [`Stream::readable`] may be dropped.
pub struct Stream(Rc<Connection>);

impl Stream {
    /// Connects to an address; names are the control thread's business. TCP_NODELAY is set.
    pub async fn connect(addr: SocketAddr) -> io::Result<Self> {
        let shard = shard::current();
        let socket = Socket::connect(addr, shard.driver).await?;
        sys::set_nodelay(socket.as_raw_fd())?;
        Ok(Self::new(socket, &shard.clock))
    }

    /// [`Stream::connect`], with [`io::ErrorKind::TimedOut`] at `deadline`.
    pub async fn connect_until(addr: SocketAddr, deadline: Instant) -> io::Result<Self> {
        match race(Self::connect(addr), sleep_until(deadline)).await {
            Either::Left(result) => result,
            Either::Right(()) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Connects to a unix socket; [`io::ErrorKind::WouldBlock`] when its backlog stays full for a second.
    pub async fn connect_unix(path: &Path) -> io::Result<Self> {
        for _ in 1..UNIX_BACKLOG_TRIES {
            match sys::connect_unix(path) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(UNIX_BACKLOG_PAUSE).await,
                result => return Self::from_fd(result?),
            }
        }
        Self::from_fd(sys::connect_unix(path)?)
    }

    /// Takes a connected stream socket of any family, wherever it comes from, and sets O_NONBLOCK as this driver needs it.
    /// Panics outside of [`block_on`](crate::block_on).
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let shard = shard::current();
        Ok(Self::new(Socket::adopt(fd, shard.driver)?, &shard.clock))
    }

    /// A connected pair of unix sockets: one end for this shard, the other (blocking, closed on exec) for a child's stdio
    /// or another shard.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = sys::pair()?;
        Ok((Self::from_fd(ours)?, theirs))
    }

    pub(crate) fn new(socket: Socket, clock: &Rc<Clock>) -> Self {
        let slot = clock.register(socket.as_raw_fd());
        let (reading, writing) = (Cell::new(Flight::None), Cell::new(Flight::None));
        Self(Rc::new(Connection { socket, clock: clock.clone(), slot, reading, writing }))
    }

    /// See [`ReadHalf::recv`].
    pub async fn recv(&mut self, buf: BytesMut) -> (io::Result<usize>, BytesMut) {
        self.0.recv(buf).await
    }

    /// See [`WriteHalf::send`].
    pub async fn send(&mut self, buf: Bytes) -> io::Result<()> {
        self.0.send(buf).await
    }

    /// See [`WriteHalf::sendv`].
    pub async fn sendv(&mut self, parts: Parts) -> io::Result<()> {
        self.0.sendv(parts).await
    }

    /// Two halves for two tasks. The socket is closed when both are gone; to end one direction only, shut it down.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        (ReadHalf(self.0.clone()), WriteHalf(self.0))
    }

    /// Takes the socket off this shard: for another shard's [`Stream::from_fd`], whatever its driver.
    ///
    /// Only at a message boundary: what was received and not used must travel along. Fails, and closes the socket, when an
    /// operation was dropped in flight.
    pub fn detach(self) -> io::Result<OwnedFd> {
        self.0.check(&self.0.reading)?;
        self.0.check(&self.0.writing)?;
        // Not the descriptor itself: a dropped `readable` may hold it for a moment longer. The socket lives on in the
        // second one; the first is closed when the last operation has let go.
        sys::duplicate(self.as_raw_fd())
    }
}

/// The receiving half of a [`Stream`].
pub struct ReadHalf(Rc<Connection>);

impl ReadHalf {
    /// Waits for bytes and appends them to `buf`, into its spare capacity, which must not be zero (InvalidInput). Gives
    /// their number and the buffer; 0 is the end.
    ///
    /// Must not be dropped before it ends. After a deadline for this direction: [`io::ErrorKind::TimedOut`].
    pub async fn recv(&mut self, buf: BytesMut) -> (io::Result<usize>, BytesMut) {
        self.0.recv(buf).await
    }

    /// The whole stream again; both halves back when they are not of one stream.
    pub fn reunite(self, other: WriteHalf) -> Result<Stream, (ReadHalf, WriteHalf)> {
        if !Rc::ptr_eq(&self.0, &other.0) {
            return Err((self, other));
        }
        Ok(Stream(self.0))
    }
}

/// The sending half of a [`Stream`].
pub struct WriteHalf(Rc<Connection>);

impl WriteHalf {
    /// Sends all of `buf`.
    ///
    /// Must not be dropped before it ends. After a deadline for this direction: [`io::ErrorKind::TimedOut`].
    pub async fn send(&mut self, buf: Bytes) -> io::Result<()> {
        self.0.send(buf).await
    }

    /// Sends all parts in their order, as one write when the socket takes it. The rest is as in [`WriteHalf::send`].
    pub async fn sendv(&mut self, parts: Parts) -> io::Result<()> {
        self.0.sendv(parts).await
    }
}

/// What a stream and its halves have in common.
macro_rules! shared_methods {
    ($type:ty) => {
        impl $type {
            /// Waits until there is something to receive: bytes, the end, or an error. Holds no buffer and may be dropped.
            ///
            /// At most one recv or readable of a socket at a time, over both halves.
            pub async fn readable(&self) -> io::Result<()> {
                self.0.readable().await
            }

            /// Ends one direction or both, at once; an operation in flight there completes.
            pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
                sys::shutdown(self.as_raw_fd(), how)
            }

            /// From `at` on the socket is shut down in direction `how`: what is in flight there completes, and it and every
            /// later recv or send in that direction reports [`io::ErrorKind::TimedOut`]. None takes the deadline back, if
            /// it has not passed. A socket has one deadline; it comes up to 50 ms late, never early.
            ///
            /// Costs two stores. `how` is Read for a client that may still be told why, and Both for a server.
            pub fn set_deadline(&self, at: Option<Instant>, how: Shutdown) {
                self.0.clock.set_deadline(self.0.slot, at, how);
            }

            /// Fails for a unix socket.
            pub fn peer_addr(&self) -> io::Result<SocketAddr> {
                sys::peer_addr(self.as_raw_fd())
            }

            /// Fails for a unix socket.
            pub fn local_addr(&self) -> io::Result<SocketAddr> {
                sys::local_addr(self.as_raw_fd())
            }
        }

        impl AsRawFd for $type {
            fn as_raw_fd(&self) -> RawFd {
                self.0.socket.as_raw_fd()
            }
        }

        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($type)).field("fd", &self.as_raw_fd()).finish()
            }
        }
    };
}

shared_methods!(Stream);
shared_methods!(ReadHalf);
shared_methods!(WriteHalf);

struct Connection {
    socket: Socket,
    clock: Rc<Clock>,
    slot: Slot,
    reading: Cell<Flight>,
    writing: Cell<Flight>,
}

impl Connection {
    async fn recv(&self, buf: BytesMut) -> (io::Result<usize>, BytesMut) {
        if buf.capacity() == buf.len() {
            return (Err(io::Error::new(io::ErrorKind::InvalidInput, "no room to receive into")), buf);
        }
        if let Err(error) = self.may_start(&self.reading, Shutdown::Read) {
            return (Err(error), buf);
        }
        let flight = InFlight::start(&self.reading);
        let (result, buf) = self.socket.recv(buf).await;
        flight.land();
        match result {
            Ok(0) | Err(_) if self.is_expired(Shutdown::Read) => (Err(io::ErrorKind::TimedOut.into()), buf),
            result => (result, buf),
        }
    }

    async fn send(&self, mut buf: Bytes) -> io::Result<()> {
        self.may_start(&self.writing, Shutdown::Write)?;
        let flight = InFlight::start(&self.writing);
        while !buf.is_empty() {
            let (result, rest) = self.socket.send_some(buf).await;
            buf = rest;
            match self.sent(result) {
                Ok(count) => buf.advance(count),
                Err(error) => {
                    flight.land();
                    return Err(error);
                }
            }
        }
        flight.land();
        Ok(())
    }

    async fn sendv(&self, parts: Parts) -> io::Result<()> {
        self.may_start(&self.writing, Shutdown::Write)?;
        let flight = InFlight::start(&self.writing);
        let mut gather = Gather::new(parts);
        while !gather.is_empty() {
            let (result, rest) = self.socket.send_gathered(gather).await;
            gather = rest;
            match self.sent(result) {
                Ok(count) => gather.advance(count),
                Err(error) => {
                    flight.land();
                    return Err(error);
                }
            }
        }
        flight.land();
        Ok(())
    }

    async fn readable(&self) -> io::Result<()> {
        self.may_start(&self.reading, Shutdown::Read)?;
        self.socket.readable().await
    }

    /// The outcome of one write of at least one byte.
    fn sent(&self, result: io::Result<usize>) -> io::Result<usize> {
        match result {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Err(_) if self.is_expired(Shutdown::Write) => Err(io::ErrorKind::TimedOut.into()),
            result => result,
        }
    }

    fn may_start(&self, direction: &Cell<Flight>, side: Shutdown) -> io::Result<()> {
        self.check(direction)?;
        if self.is_expired(side) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    fn check(&self, direction: &Cell<Flight>) -> io::Result<()> {
        match direction.get() {
            Flight::None => Ok(()),
            Flight::Running => Err(io::Error::new(io::ErrorKind::ResourceBusy, "an operation is in flight")),
            Flight::Lost => Err(io::Error::other("an operation was dropped in flight")),
        }
    }

    fn is_expired(&self, side: Shutdown) -> bool {
        self.clock.expired(self.slot).is_some_and(|how| how == Shutdown::Both || how == side)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Before the descriptor is closed: the number may be another socket's a moment later.
        self.clock.release(self.slot);
    }
}

/// What one direction of a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flight {
    None,
    Running,
    /// An operation was dropped; how many bytes it has moved is not known.
    Lost,
}

/// Notes that an operation runs, and that it was lost unless it lands.
struct InFlight<'a>(&'a Cell<Flight>);

impl<'a> InFlight<'a> {
    fn start(direction: &'a Cell<Flight>) -> Self {
        direction.set(Flight::Running);
        Self(direction)
    }

    fn land(self) {
        self.0.set(Flight::None);
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if self.0.get() == Flight::Running {
            self.0.set(Flight::Lost);
        }
    }
}
