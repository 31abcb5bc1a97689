//! Channels and signals between tasks of one shard: plain cells, no atomics. Knows no driver.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Why [`Sender::try_send`] gave the value back.
#[derive(Debug, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// No room.
    Full(T),
    /// The receiver is gone.
    Closed(T),
}

/// A bounded channel with many senders and one receiver. A capacity of 0 counts as 1.
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let channel = Rc::new(Channel {
        queue: RefCell::default(),
        capacity: capacity.max(1),
        senders: Cell::new(1),
        receiver_gone: Cell::new(false),
        receiver: Cell::new(None),
        waiting_senders: RefCell::default(),
    });
    (Sender(channel.clone()), Receiver(channel))
}

struct Channel<T> {
    queue: RefCell<VecDeque<T>>,
    capacity: usize,
    senders: Cell<usize>,
    receiver_gone: Cell<bool>,
    receiver: Cell<Option<Waker>>,
    waiting_senders: RefCell<Vec<Waker>>,
}

impl<T> Channel<T> {
    fn wake_receiver(&self) {
        if let Some(waker) = self.receiver.take() {
            waker.wake();
        }
    }

    fn wake_senders(&self) {
        let waiting = self.waiting_senders.take();
        waiting.into_iter().for_each(Waker::wake);
    }

    fn pop(&self) -> Option<T> {
        let value = self.queue.borrow_mut().pop_front();
        if value.is_some() {
            self.wake_senders();
        }
        value
    }
}

/// The sending side of [`bounded`].
pub struct Sender<T>(Rc<Channel<T>>);

impl<T> Sender<T> {
    /// Sends when there is room now.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        if self.0.receiver_gone.get() {
            return Err(TrySendError::Closed(value));
        }
        if self.0.queue.borrow().len() >= self.0.capacity {
            return Err(TrySendError::Full(value));
        }
        self.0.queue.borrow_mut().push_back(value);
        self.0.wake_receiver();
        Ok(())
    }

    /// Waits for room. Gives the value back when the receiver is gone; dropping the future drops the value unsent.
    pub async fn send(&self, value: T) -> Result<(), T> {
        let mut unsent = Some(value);
        poll_fn(|cx| {
            let Some(value) = unsent.take() else { return Poll::Ready(Ok(())) };
            match self.try_send(value) {
                Ok(()) => Poll::Ready(Ok(())),
                Err(TrySendError::Closed(value)) => Poll::Ready(Err(value)),
                Err(TrySendError::Full(value)) => {
                    unsent = Some(value);
                    remember(&mut self.0.waiting_senders.borrow_mut(), cx.waker());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// True when the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.0.receiver_gone.get()
    }

    /// Values sent and not yet received.
    pub fn depth(&self) -> usize {
        self.0.queue.borrow().len()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.set(self.0.senders.get() + 1);
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.senders.set(self.0.senders.get() - 1);
        if self.0.senders.get() == 0 {
            self.0.wake_receiver();
        }
    }
}

/// The receiving side of [`bounded`].
pub struct Receiver<T>(Rc<Channel<T>>);

impl<T> Receiver<T> {
    /// The next value; None when every sender is gone and nothing is left. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<T> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// [`Receiver::recv`] for hand-written futures.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(value) = self.0.pop() {
            return Poll::Ready(Some(value));
        }
        if self.0.senders.get() == 0 {
            return Poll::Ready(None);
        }
        self.0.receiver.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// The next value when there is one now.
    pub fn try_recv(&mut self) -> Option<T> {
        self.0.pop()
    }

    /// Values sent and not yet received.
    pub fn depth(&self) -> usize {
        self.0.queue.borrow().len()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.0.receiver_gone.set(true);
        let left = self.0.queue.take();
        self.0.wake_senders();
        drop(left);
    }
}

/// One value, once.
pub mod oneshot {
    use super::{Cell, Context, Future, Pin, Poll, Rc, Waker, poll_fn};

    /// The two ends of a new channel.
    pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let slot = Rc::new(Slot {
            value: Cell::new(None),
            sender_gone: Cell::new(false),
            receiver_gone: Cell::new(false),
            receiver: Cell::new(None),
            sender: Cell::new(None),
        });
        (Sender(slot.clone()), Receiver(slot))
    }

    struct Slot<T> {
        value: Cell<Option<T>>,
        sender_gone: Cell<bool>,
        receiver_gone: Cell<bool>,
        receiver: Cell<Option<Waker>>,
        sender: Cell<Option<Waker>>,
    }

    fn wake(waker: &Cell<Option<Waker>>) {
        if let Some(waker) = waker.take() {
            waker.wake();
        }
    }

    /// Sends the value, or tells by its end that there is none.
    pub struct Sender<T>(Rc<Slot<T>>);

    impl<T> Sender<T> {
        /// Gives the value back when the receiver is gone.
        pub fn send(self, value: T) -> Result<(), T> {
            if self.0.receiver_gone.get() {
                return Err(value);
            }
            // Dropping self wakes the receiver.
            self.0.value.set(Some(value));
            Ok(())
        }

        /// True when the receiver is gone.
        pub fn is_closed(&self) -> bool {
            self.0.receiver_gone.get()
        }

        /// Waits until the receiver is gone: nobody wants the value any more. Dropping the future loses nothing.
        pub async fn closed(&mut self) {
            poll_fn(|cx| {
                if self.0.receiver_gone.get() {
                    return Poll::Ready(());
                }
                self.0.sender.set(Some(cx.waker().clone()));
                Poll::Pending
            })
            .await;
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            self.0.sender_gone.set(true);
            wake(&self.0.receiver);
        }
    }

    /// A future: the value, or None when the sender went away without one. May be polled by reference and dropped.
    pub struct Receiver<T>(Rc<Slot<T>>);

    impl<T> Receiver<T> {
        /// The value when it is there.
        pub fn try_recv(&mut self) -> Option<T> {
            self.0.value.take()
        }
    }

    impl<T> Future for Receiver<T> {
        type Output = Option<T>;

        fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
            if let Some(value) = self.0.value.take() {
                return Poll::Ready(Some(value));
            }
            if self.0.sender_gone.get() {
                return Poll::Ready(None);
            }
            self.0.receiver.set(Some(cx.waker().clone()));
            Poll::Pending
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            self.0.receiver_gone.set(true);
            drop(self.0.value.take());
            wake(&self.0.sender);
        }
    }
}

/// Wakes waiting tasks. A notification that meets nobody is kept, once. Clones are the same signal.
#[derive(Clone, Default)]
pub struct Notify(Rc<NotifyState>);

#[derive(Default)]
struct NotifyState {
    permit: Cell<bool>,
    /// Counts [`Notify::notify_all`]: everybody who waited before goes on.
    round: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Notify {
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets one waiting task go on, or the next one that comes.
    pub fn notify_one(&self) {
        self.0.permit.set(true);
        self.wake();
    }

    /// Lets every task go on that waits now, and keeps nothing.
    pub fn notify_all(&self) {
        self.0.round.set(self.0.round.get() + 1);
        self.wake();
    }

    /// Waits for a notification. Dropping the future loses none.
    pub async fn notified(&self) {
        let round = self.0.round.get();
        poll_fn(|cx| {
            if self.0.round.get() != round || self.0.permit.replace(false) {
                return Poll::Ready(());
            }
            remember(&mut self.0.waiting.borrow_mut(), cx.waker());
            Poll::Pending
        })
        .await;
    }

    /// All are woken and look for themselves: one that was dropped in between cannot swallow the notification.
    fn wake(&self) {
        let waiting = self.0.waiting.take();
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// A flag that is set once and stays set: who waits goes on, and so does who comes later. Clones are the same flag.
#[derive(Clone, Default)]
pub struct Event(Rc<EventState>);

#[derive(Default)]
struct EventState {
    set: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Event {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn set(&self) {
        self.0.set.set(true);
        let waiting = self.0.waiting.take();
        waiting.into_iter().for_each(Waker::wake);
    }

    pub fn is_set(&self) -> bool {
        self.0.set.get()
    }

    /// Waits until the flag is set. Dropping the future loses nothing.
    pub async fn wait(&self) {
        poll_fn(|cx| {
            if self.0.set.get() {
                return Poll::Ready(());
            }
            remember(&mut self.0.waiting.borrow_mut(), cx.waker());
            Poll::Pending
        })
        .await;
    }
}

/// Adds a waker unless its task is in the list: a task that is polled often for other reasons does not make it grow.
fn remember(waiting: &mut Vec<Waker>, waker: &Waker) {
    if !waiting.iter().any(|known| known.will_wake(waker)) {
        waiting.push(waker.clone());
    }
}
