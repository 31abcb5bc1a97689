//! The deadlines of a shard's sockets, in one dense table. Knows ticks and descriptors; the clock says when to sweep.
//!
//! A recv or send in flight must never be dropped (bytes would be lost), so a deadline ends it from outside: the sweep
//! shuts the socket down, the operation completes, and its caller learns that time was up. Setting a deadline is two
//! stores: no allocation, no system call, no list.

use std::net::Shutdown;
use std::os::fd::RawFd;

use crate::sys;

/// No deadline.
const NEVER: u32 = u32::MAX;

struct Socket {
    fd: RawFd,
    how: Shutdown,
    /// What the sweep has shut down already.
    expired: Option<Shutdown>,
}

/// A socket's place in the table; it belongs to the socket from its making to just before its close, so that a descriptor
/// the kernel hands out again can never be met by an old deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(u32);

pub(crate) struct Watch {
    /// Ticks, apart from the rest: a sweep of 100,000 sockets reads 400 KB in order.
    due: Vec<u32>,
    sockets: Vec<Option<Socket>>,
    free: Vec<u32>,
    /// No deadline is earlier. It may lie before the real one: then one sweep finds nothing.
    earliest: u32,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self { due: Vec::new(), sockets: Vec::new(), free: Vec::new(), earliest: NEVER }
    }

    pub(crate) fn register(&mut self, fd: RawFd) -> Slot {
        let socket = Some(Socket { fd, how: Shutdown::Both, expired: None });
        if let Some(index) = self.free.pop() {
            self.due[index as usize] = NEVER;
            self.sockets[index as usize] = socket;
            return Slot(index);
        }
        self.due.push(NEVER);
        self.sockets.push(socket);
        Slot((self.due.len() - 1) as u32)
    }

    pub(crate) fn release(&mut self, slot: Slot) {
        self.due[slot.0 as usize] = NEVER;
        self.sockets[slot.0 as usize] = None;
        self.free.push(slot.0);
    }

    /// Sets or takes back a deadline. True: it is now the earliest, so the clock must be told.
    pub(crate) fn set(&mut self, slot: Slot, due: Option<u64>, how: Shutdown) -> bool {
        let Some(due) = due else {
            self.due[slot.0 as usize] = NEVER;
            return false;
        };
        let due = u32::try_from(due).unwrap_or(NEVER - 1).min(NEVER - 1);
        self.due[slot.0 as usize] = due;
        if let Some(socket) = &mut self.sockets[slot.0 as usize] {
            socket.how = how;
        }
        let earlier = due < self.earliest;
        self.earliest = self.earliest.min(due);
        earlier
    }

    /// What the sweep has done to the socket; None: its time is not up.
    pub(crate) fn expired(&self, slot: Slot) -> Option<Shutdown> {
        self.sockets[slot.0 as usize].as_ref().and_then(|socket| socket.expired)
    }

    /// The tick before which no sweep is needed.
    pub(crate) fn next_due(&self) -> Option<u64> {
        (self.earliest != NEVER).then_some(u64::from(self.earliest))
    }

    /// Shuts down every socket whose deadline is at or before `now`. The next sweep comes `pause` ticks later at the
    /// earliest, which bounds the cost of many sockets with deadlines close together.
    pub(crate) fn sweep(&mut self, now: u64, pause: u32) {
        let now = u32::try_from(now).unwrap_or(NEVER - 1);
        if self.earliest > now {
            return;
        }
        let mut earliest = NEVER;
        for (index, due) in self.due.iter_mut().enumerate() {
            if *due > now {
                earliest = earliest.min(*due);
                continue;
            }
            *due = NEVER;
            if let Some(socket) = &mut self.sockets[index] {
                socket.expire(socket.how);
            }
        }
        self.earliest = if earliest == NEVER { NEVER } else { earliest.max(now.saturating_add(pause)) };
    }

    /// Shuts every socket down: the end of the shard.
    pub(crate) fn end(&mut self) {
        for socket in self.sockets.iter_mut().flatten() {
            // A socket that is not connected any more needs no shutdown.
            let _ = sys::shutdown(socket.fd, Shutdown::Both);
        }
    }
}

impl Socket {
    fn expire(&mut self, how: Shutdown) {
        // A socket that the peer has reset already reports that instead; the deadline holds all the same.
        let _ = sys::shutdown(self.fd, how);
        self.expired = match self.expired {
            Some(before) if before != how => Some(Shutdown::Both),
            _ => Some(how),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    const PAUSE: u32 = 4;

    fn sockets(count: usize) -> Vec<(UnixStream, UnixStream)> {
        (0..count).map(|_| UnixStream::pair().expect("pair")).collect()
    }

    #[test]
    fn sweeps_shut_down_what_is_due_and_nothing_else() {
        let sockets = sockets(30);
        let mut watch = Watch::new();
        let slots: Vec<Slot> = sockets.iter().map(|(socket, _)| watch.register(socket.as_raw_fd())).collect();
        for (due, slot) in (100..).zip(&slots) {
            assert_eq!(watch.set(*slot, Some(due), Shutdown::Both), due == 100);
        }
        assert!(!watch.set(slots[3], None, Shutdown::Both));
        assert_eq!(watch.next_due(), Some(100));
        watch.sweep(99, PAUSE);
        assert!(slots.iter().all(|slot| watch.expired(*slot).is_none()));
        watch.sweep(109, PAUSE);
        for (index, (slot, (socket, _))) in slots.iter().zip(&sockets).enumerate() {
            let due = index < 10 && index != 3;
            assert_eq!(watch.expired(*slot).is_some(), due, "{index}");
            socket.set_nonblocking(true).expect("nonblocking");
            assert_eq!(matches!((&mut &*socket).read(&mut [0]), Ok(0)), due, "{index}");
        }
        assert_eq!(watch.next_due(), Some(113), "the next sweep pauses");
        watch.sweep(1000, PAUSE);
        assert_eq!(watch.next_due(), None, "nothing left: nobody wakes up");
    }

    #[test]
    fn a_place_that_is_given_back_forgets_its_deadline() {
        let sockets = sockets(2);
        let mut watch = Watch::new();
        let first = watch.register(sockets[0].0.as_raw_fd());
        watch.set(first, Some(10), Shutdown::Both);
        watch.release(first);
        let second = watch.register(sockets[1].0.as_raw_fd());
        assert_eq!(first, second, "the same place");
        watch.sweep(100, PAUSE);
        assert_eq!(watch.expired(second), None);
        assert_eq!(watch.next_due(), None);
    }

    #[test]
    fn both_directions_can_expire_one_after_the_other() {
        let sockets = sockets(1);
        let mut watch = Watch::new();
        let slot = watch.register(sockets[0].0.as_raw_fd());
        watch.set(slot, Some(1), Shutdown::Read);
        watch.sweep(1, PAUSE);
        assert_eq!(watch.expired(slot), Some(Shutdown::Read));
        watch.set(slot, Some(2), Shutdown::Write);
        watch.sweep(10, PAUSE);
        assert_eq!(watch.expired(slot), Some(Shutdown::Both));
        watch.set(slot, Some(u64::MAX), Shutdown::Both);
        assert_eq!(watch.next_due(), Some(u64::from(u32::MAX) - 1), "far away, and still a deadline");
    }
}
