//! One socket's deadline, kept for its two directions. Knows sockets only by `set_deadline`.

use std::cell::Cell;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Instant;

/// The runtime has one deadline a socket; the earlier of reading and writing is in force.
#[derive(Clone)]
pub(crate) struct Deadlines(Rc<Due>);

struct Due {
    read: Cell<Option<Instant>>,
    write: Cell<Option<Instant>>,
    /// What an overdue read shuts down: a server may still say why.
    read_ends: Shutdown,
    /// Each direction has one of its own.
    separate: bool,
}

impl Deadlines {
    pub(crate) fn new(read_ends: Shutdown) -> Self {
        Deadlines(Rc::new(Due { read: Cell::new(None), write: Cell::new(None), read_ends, separate: false }))
    }

    /// For a stream of HTTP/2, whose directions end by themselves.
    pub(crate) fn separate() -> Self {
        let (read, write) = (Cell::new(None), Cell::new(None));
        Deadlines(Rc::new(Due { read, write, read_ends: Shutdown::Both, separate: true }))
    }

    /// Notes a read's deadline and gives what is to be set on the socket.
    pub(crate) fn read(&self, due: Option<Instant>) -> (Option<Instant>, Shutdown) {
        self.0.read.set(due);
        if self.0.separate { (due, Shutdown::Read) } else { self.effective() }
    }

    /// Notes a write's deadline and gives what is to be set on the socket.
    pub(crate) fn write(&self, due: Option<Instant>) -> (Option<Instant>, Shutdown) {
        self.0.write.set(due);
        if self.0.separate { (due, Shutdown::Write) } else { self.effective() }
    }

    fn effective(&self) -> (Option<Instant>, Shutdown) {
        match (self.0.read.get(), self.0.write.get()) {
            (Some(read), Some(write)) if read < write => (Some(read), self.0.read_ends),
            (Some(read), None) => (Some(read), self.0.read_ends),
            (_, write) => (write, Shutdown::Both),
        }
    }
}
