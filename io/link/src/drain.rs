//! The end of a server's connections: a flag that answers look at, and wake-ups for those that wait for a request.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

/// Tells connections of one shard to finish: answers carry `connection: close`, idle connections end at once.
///
/// Clones share the flag. It is never taken back.
#[derive(Clone, Default)]
pub struct Drain(Rc<State>);

#[derive(Default)]
struct State {
    draining: Cell<bool>,
    waiting: RefCell<Waiting>,
}

/// Wakers by seat; a connection keeps its seat for life, so that waiting costs no allocation.
#[derive(Default)]
struct Waiting {
    seats: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Drain {
    /// A flag that is not set.
    pub fn new() -> Self {
        Drain::default()
    }

    /// Sets the flag and wakes every idle connection.
    pub fn start(&self) {
        self.0.draining.set(true);
        let wakers: Vec<Waker> = self.0.waiting.borrow_mut().seats.iter_mut().filter_map(Option::take).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Whether the flag is set.
    pub fn is_set(&self) -> bool {
        self.0.draining.get()
    }

    /// The connections that share this flag.
    pub fn connections(&self) -> usize {
        let waiting = self.0.waiting.borrow();
        waiting.seats.len() - waiting.free.len()
    }

    pub(crate) fn seat(&self) -> Seat {
        let mut waiting = self.0.waiting.borrow_mut();
        let index = waiting.free.pop().unwrap_or_else(|| {
            waiting.seats.push(None);
            waiting.seats.len() - 1
        });
        Seat { drain: self.clone(), index }
    }
}

/// One connection's place among those that a drain wakes.
pub(crate) struct Seat {
    drain: Drain,
    index: usize,
}

impl Seat {
    pub(crate) fn is_draining(&self) -> bool {
        self.drain.is_set()
    }

    pub(crate) fn wait(&self, cx: &Context<'_>) {
        let mut waiting = self.drain.0.waiting.borrow_mut();
        match &mut waiting.seats[self.index] {
            Some(waker) => waker.clone_from(cx.waker()),
            empty => *empty = Some(cx.waker().clone()),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut waiting = self.drain.0.waiting.borrow_mut();
        waiting.seats[self.index] = None;
        waiting.free.push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_used_again() {
        let drain = Drain::new();
        let first = drain.seat();
        let second = drain.seat();
        assert_eq!(drain.connections(), 2);
        drop(first);
        let third = drain.seat();
        assert_eq!((third.index, drain.connections()), (0, 2));
        second.wait(&Context::from_waker(Waker::noop()));
        drain.start();
        assert!(third.is_draining());
        assert!(drain.0.waiting.borrow().seats.iter().all(Option::is_none));
    }
}
