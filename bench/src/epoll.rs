//! A thin epoll and the sockets it watches. It knows descriptors and tokens, not what travels on them.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Events taken from the kernel by one wait.
const EVENTS_MAX: usize = 256;

/// What a socket waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    Read,
    Write,
    Both,
    /// Nothing at all: the socket is not registered, so that its end cannot wake the loop again and again.
    Nothing,
}

/// A level-triggered epoll(7) instance. Closing a descriptor removes it.
pub struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

/// One readiness report.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    pub token: u64,
    pub readable: bool,
    pub writable: bool,
    /// Error, or both directions shut: nothing further will come.
    pub hung_up: bool,
}

impl Epoll {
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: no pointers; the result is checked before it is owned.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nothing else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Epoll { fd, events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX] })
    }

    pub fn add(&self, socket: &impl AsRawFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, socket, token, interest)
    }

    /// Registers, changes or removes, whatever leads from `from` to `to`; nothing if they are the same.
    pub fn change(&self, socket: &impl AsRawFd, token: u64, from: Interest, to: Interest) -> io::Result<()> {
        let operation = match (from, to) {
            _ if from == to => return Ok(()),
            (Interest::Nothing, _) => libc::EPOLL_CTL_ADD,
            (_, Interest::Nothing) => libc::EPOLL_CTL_DEL,
            _ => libc::EPOLL_CTL_MOD,
        };
        self.control(operation, socket, token, to)
    }

    /// Waits for at most `timeout` and puts what is ready into `ready`, replacing its content. An interrupted wait is an empty one.
    pub fn wait(&mut self, timeout: Duration, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the buffer holds EVENTS_MAX entries and lives through the call.
        let count =
            unsafe { libc::epoll_wait(self.fd.as_raw_fd(), self.events.as_mut_ptr(), EVENTS_MAX as i32, timeout_ms) };
        if count < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
        }
        ready.extend(self.events[..count as usize].iter().map(|event| {
            let flags = event.events as i32;
            Ready {
                token: event.u64,
                readable: flags & libc::EPOLLIN != 0,
                writable: flags & libc::EPOLLOUT != 0,
                hung_up: flags & (libc::EPOLLERR | libc::EPOLLHUP) != 0,
            }
        }));
        Ok(())
    }

    fn control(&self, operation: i32, socket: &impl AsRawFd, token: u64, interest: Interest) -> io::Result<()> {
        let flags = match interest {
            Interest::Read => libc::EPOLLIN,
            Interest::Write => libc::EPOLLOUT,
            Interest::Both => libc::EPOLLIN | libc::EPOLLOUT,
            Interest::Nothing => 0,
        };
        let mut event = libc::epoll_event { events: flags as u32, u64: token };
        // SAFETY: both descriptors are open for the duration of the borrows, and the event is a local.
        match unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), operation, socket.as_raw_fd(), &mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Connects and makes the socket ready for an event loop: non-blocking, without Nagle's delay.
pub fn connect(to: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&to, timeout)?;
    prepare(&socket)?;
    Ok(socket)
}

/// Makes an accepted socket ready for an event loop.
pub fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.set_nodelay(true)
}

/// How far one read or write came; "would block" is zero bytes, not an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    Bytes(usize),
    Blocked,
    Closed,
}

/// One read.
pub fn read(mut socket: &TcpStream, buffer: &mut [u8]) -> io::Result<Moved> {
    moved(io::Read::read(&mut socket, buffer))
}

/// One write.
pub fn write(mut socket: &TcpStream, bytes: &[u8]) -> io::Result<Moved> {
    moved(io::Write::write(&mut socket, bytes))
}

fn moved(result: io::Result<usize>) -> io::Result<Moved> {
    match result {
        Ok(0) => Ok(Moved::Closed),
        Ok(count) => Ok(Moved::Bytes(count)),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Ok(Moved::Blocked)
        }
        Err(error) => Err(error),
    }
}

/// Connections by small index. An index is reused after removal, so a stale event can reach a newcomer: it finds nothing to read and does no harm.
pub struct Slab<T> {
    slots: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub fn insert(&mut self, value: T) -> usize {
        match self.free.pop() {
            Some(index) => {
                self.slots[index] = Some(value);
                index
            }
            None => {
                self.slots.push(Some(value));
                self.slots.len() - 1
            }
        }
    }

    pub fn at(&mut self, index: usize) -> Option<&mut T> {
        self.slots.get_mut(index)?.as_mut()
    }

    pub fn remove(&mut self, index: usize) {
        if self.slots.get_mut(index).and_then(Option::take).is_some() {
            self.free.push(index);
        }
    }

    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_reused_and_a_double_removal_does_nothing() {
        let mut slab = Slab::default();
        let first = slab.insert("a");
        slab.insert("b");
        slab.remove(first);
        slab.remove(first);
        assert_eq!(slab.len(), 1);
        assert_eq!(slab.insert("c"), first);
        assert_eq!(slab.at(first), Some(&mut "c"));
        assert_eq!(slab.at(9), None);
    }
}
