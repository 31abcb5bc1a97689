//! Messages on their way to a client that takes all of them one after the other: whoever has one to say waits for room, and
//! a client that takes nothing is noticed by whoever writes. It does not know where they go.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use agentlane_runtime::local::Notify;
use bytes::Bytes;

use super::responder::Gone;
use crate::limits::{OUTBOX_BYTES_MAX, OUTBOX_MESSAGES_MAX};

/// The queue of one client. Dropped or closed, nobody waits for it any more.
#[derive(Default)]
pub struct Outbox {
    messages: RefCell<VecDeque<Bytes>>,
    bytes: Cell<usize>,
    closed: Cell<bool>,
    /// There is something to take, or there will never be.
    pub changed: Notify,
    room: Notify,
}

impl Outbox {
    /// Adds a message when there is room for it: a large one alone is room enough.
    pub async fn push(&self, message: Bytes) -> Result<(), Gone> {
        while !self.closed.get() && self.is_full() {
            self.room.notified().await;
        }
        if self.closed.get() {
            return Err(Gone);
        }
        self.bytes.set(self.bytes.get() + message.len());
        self.messages.borrow_mut().push_back(message);
        self.changed.notify_all();
        Ok(())
    }

    /// The oldest message.
    pub fn pop(&self) -> Option<Bytes> {
        let message = self.messages.borrow_mut().pop_front()?;
        self.bytes.set(self.bytes.get() - message.len());
        self.room.notify_all();
        Some(message)
    }

    /// Takes no more; what is in it can still be taken.
    pub fn close(&self) {
        self.closed.set(true);
        self.changed.notify_all();
        self.room.notify_all();
    }

    /// Resolves when it takes no more. May be dropped.
    pub async fn closed(&self) {
        while !self.closed.get() {
            self.changed.notified().await;
        }
    }

    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    fn is_full(&self) -> bool {
        self.messages.borrow().len() >= OUTBOX_MESSAGES_MAX || self.bytes.get() >= OUTBOX_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll(push: std::pin::Pin<&mut impl Future<Output = Result<(), Gone>>>) -> Poll<Result<(), Gone>> {
        push.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn who_finds_it_full_waits_for_room() {
        let outbox = Outbox::default();
        let large = Bytes::from(vec![b'x'; 2 * OUTBOX_BYTES_MAX]);
        assert_eq!(poll(pin!(outbox.push(large.clone()))), Poll::Ready(Ok(())), "a large one passes");
        let mut next = pin!(outbox.push(Bytes::from_static(b"next")));
        assert_eq!(poll(next.as_mut()), Poll::Pending);
        assert_eq!(outbox.pop(), Some(large));
        assert_eq!(poll(next.as_mut()), Poll::Ready(Ok(())));
        for _ in 1..OUTBOX_MESSAGES_MAX {
            assert_eq!(poll(pin!(outbox.push(Bytes::new()))), Poll::Ready(Ok(())));
        }
        let mut last = pin!(outbox.push(Bytes::new()));
        assert_eq!(poll(last.as_mut()), Poll::Pending);
        outbox.close();
        assert_eq!(poll(last.as_mut()), Poll::Ready(Err(Gone)), "the end frees whoever waits");
        assert_eq!(outbox.pop(), Some(Bytes::from_static(b"next")), "what was said is heard");
    }
}
