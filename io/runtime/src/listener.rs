//! Listening sockets: one accept task each, which sheds when descriptors run out. Knows no limit on connections and no
//! protocol.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use crate::clock::{Clock, sleep};
use crate::driver::Driver;
use crate::join::{Either, race};
use crate::local::Event;
use crate::shard;
use crate::socket::{Probe, Socket};
use crate::stream::Stream;
use crate::sys;
use crate::watch::Slot;

/// First pause after descriptors or memory ran out; it doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_millis(50);
/// Connections taken, or closed while descriptors are short, before other tasks have their turn.
const ACCEPTS_IN_A_ROW: usize = 64;

/// How to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenOptions {
    /// Connections that the kernel holds before they are accepted; it caps the number at `net.core.somaxconn`.
    pub backlog: i32,
    /// SO_REUSEPORT: each shard listens for itself. Only for TCP.
    pub reuse_port: bool,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { backlog: 1024, reuse_port: true }
    }
}

/// A listening TCP or unix socket of this shard.
///
/// Accepting is readiness and then accept4(2), under every driver: an accept can be dropped without leaking a
/// descriptor, and close-on-exec is set by the call that makes the descriptor.
pub struct Listener {
    probe: Probe,
    driver: Driver,
    clock: Rc<Clock>,
    slot: Slot,
    /// Given up to take and close connections when there is no other descriptor.
    reserve: Cell<Option<OwnedFd>>,
}

impl Listener {
    /// Panics outside of [`block_on`](crate::block_on), as [`Listener::bind_unix`] does.
    pub fn bind_tcp(addr: SocketAddr, options: &ListenOptions) -> io::Result<Self> {
        Self::from_ready(sys::listen_tcp(addr, options.backlog, options.reuse_port)?)
    }

    /// Fails with AddrInUse when the path exists; removing it, before and after, is the caller's business.
    pub fn bind_unix(path: &Path, options: &ListenOptions) -> io::Result<Self> {
        Self::from_ready(sys::listen_unix(path, options.backlog)?)
    }

    /// Takes a listening socket made elsewhere, for example by a service manager.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        // O_NONBLOCK under every driver: accept4 follows readiness, and another process may have been faster.
        sys::set_nonblocking(fd.as_raw_fd(), true)?;
        Self::from_ready(fd)
    }

    fn from_ready(fd: OwnedFd) -> io::Result<Self> {
        let shard = shard::current();
        let probe = Probe::new(fd, shard.driver)?;
        let slot = shard.clock.register(probe.as_raw_fd());
        Ok(Self { probe, driver: shard.driver, clock: shard.clock.clone(), slot, reserve: Cell::new(open_reserve()) })
    }

    /// The address with the real port; fails for a unix socket.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        sys::local_addr(self.probe.as_raw_fd())
    }

    /// The next connection, with the peer's address (None for a unix socket). CLOEXEC and TCP_NODELAY are set. May be
    /// dropped.
    ///
    /// A lack of descriptors is reported at once, each time; [`Listener::serve`] handles it.
    pub async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        loop {
            if let Some(accepted) = self.try_accept()? {
                return Ok(accepted);
            }
            self.probe.readable().await?;
        }
    }

    /// Accepts until `stop`: the one accept task of this listener. `on` is called for each connection, and spawns.
    ///
    /// When descriptors or memory run out it pauses for 10 to 50 ms and closes what waits, so that clients see an end
    /// rather than silence. At the stop what the kernel has already taken is handed on, and then the socket is closed.
    pub async fn serve(self, stop: Stop, mut on: impl FnMut(Stream, Option<SocketAddr>)) {
        let mut backoff = BACKOFF_MIN;
        let mut in_a_row = 0;
        loop {
            if in_a_row >= ACCEPTS_IN_A_ROW {
                in_a_row = 0;
                shard::yield_now().await;
            }
            let error = match self.try_accept() {
                Ok(Some((stream, addr))) => {
                    backoff = BACKOFF_MIN;
                    in_a_row += 1;
                    on(stream, addr);
                    continue;
                }
                Ok(None) if stop.0.is_set() => return,
                Ok(None) => {
                    in_a_row = 0;
                    match race(self.probe.readable(), stop.0.wait()).await {
                        Either::Left(Err(error)) => error,
                        Either::Left(Ok(())) | Either::Right(()) => continue,
                    }
                }
                Err(error) => error,
            };
            if !is_shortage(&error) || stop.0.is_set() {
                // EINVAL is how the end of the shard, which shuts its listeners down, arrives here.
                if error.raw_os_error() != Some(libc::EINVAL) {
                    tracing::error!(%error, "listener failed");
                }
                return;
            }
            let shed = self.shed();
            tracing::warn!(%error, shed, pause_ms = backoff.as_millis() as u64, "cannot accept connections");
            sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// None: nobody waits.
    fn try_accept(&self) -> io::Result<Option<(Stream, Option<SocketAddr>)>> {
        loop {
            match sys::accept(self.probe.as_raw_fd(), self.driver == Driver::Epoll) {
                Ok((fd, addr)) => {
                    if addr.is_some() && sys::set_nodelay(fd.as_raw_fd()).is_err() {
                        // Reset by the peer while it waited.
                        continue;
                    }
                    let socket = Socket::adopt_ready(fd, self.driver)?;
                    return Ok(Some((Stream::new(socket, &self.clock), addr)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Closes connections that wait, on the descriptor kept for this. Gives their number.
    fn shed(&self) -> usize {
        drop(self.reserve.take());
        let taken = (0..ACCEPTS_IN_A_ROW).take_while(|_| sys::accept(self.probe.as_raw_fd(), true).is_ok()).count();
        self.reserve.set(open_reserve());
        taken
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.probe.as_raw_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.clock.release(self.slot);
    }
}

/// Ends [`Listener::serve`]; clones end the same ones. Stays on its shard.
#[derive(Clone, Default)]
pub struct Stop(Event);

impl Stop {
    pub fn new() -> Self {
        Self::default()
    }

    /// Every accept task that was given this, or will be, ends.
    pub fn stop(&self) {
        self.0.set();
    }

    pub fn is_stopped(&self) -> bool {
        self.0.is_set()
    }
}

fn open_reserve() -> Option<OwnedFd> {
    File::open("/dev/null").ok().map(OwnedFd::from)
}

/// Descriptors or memory are short, here or in the whole system: it will pass.
fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// Errors of one connection that accept(2) hands on, after which the next one can be asked for.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EINTR
                | libc::ECONNABORTED
                | libc::EPROTO
                | libc::EPERM
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
        )
    )
}
