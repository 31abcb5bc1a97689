//! Bounded channels between threads: shard to shard, and control (tokio) to shard. Knows no driver: wakers cross threads
//! under each of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::clock::sleep_until;
use crate::join::{Either, race};

/// A channel with many senders and one receiver. A capacity of 0 counts as 1.
pub fn bounded<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = flume::bounded(capacity.max(1));
    (Sender(sender), Receiver(receiver))
}

/// Why [`Sender::try_send`] gave the value back.
#[derive(Debug, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// No room.
    Full(T),
    /// The receiver is gone.
    Closed(T),
}

/// Why [`Sender::send_until`] gave the value back.
#[derive(Debug, PartialEq, Eq)]
pub enum SendError<T> {
    /// No room until the deadline.
    TimedOut(T),
    /// The receiver is gone.
    Closed(T),
}

/// A value on its way.
enum Parcel<T> {
    Here(T),
    /// Sent by somebody who waits for room with a deadline and may take it back.
    Shared(Arc<Mutex<Option<T>>>),
}

impl<T> Parcel<T> {
    fn open(self) -> Option<T> {
        match self {
            Parcel::Here(value) => Some(value),
            Parcel::Shared(value) => take(&value),
        }
    }
}

fn take<T>(shared: &Mutex<Option<T>>) -> Option<T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// The sending side of [`bounded`].
pub struct Sender<T>(flume::Sender<Parcel<T>>);

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Send> Sender<T> {
    /// Sends when there is room now. From any thread.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.0.try_send(Parcel::Here(value)).or_else(|error| match error {
            flume::TrySendError::Full(parcel) => parcel.open().map_or(Ok(()), |value| Err(TrySendError::Full(value))),
            flume::TrySendError::Disconnected(parcel) => {
                parcel.open().map_or(Ok(()), |value| Err(TrySendError::Closed(value)))
            }
        })
    }

    /// Waits for room until `deadline`. On a shard only: the wait is on its wheel.
    ///
    /// Every value is either received or given back, never both. Dropping the future drops a value that is not sent yet.
    pub async fn send_until(&self, value: T, deadline: Instant) -> Result<(), SendError<T>> {
        let value = match self.try_send(value) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(value)) => return Err(SendError::Closed(value)),
            Err(TrySendError::Full(value)) => value,
        };
        let shared = Arc::new(Mutex::new(Some(value)));
        let sending = self.0.send_async(Parcel::Shared(shared.clone()));
        let back = match race(sending, sleep_until(deadline)).await {
            Either::Left(Ok(())) => return Ok(()),
            Either::Left(Err(_)) => take(&shared).map(SendError::Closed),
            Either::Right(()) => take(&shared).map(SendError::TimedOut),
        };
        // Empty: the receiver took it at the last moment.
        back.map_or(Ok(()), Err)
    }

    /// Waits for room without a deadline. On a shard and in tokio alike. Gives the value back when the receiver is gone.
    pub async fn send(&self, value: T) -> Result<(), T> {
        self.0.send_async(Parcel::Here(value)).await.or_else(|error| error.into_inner().open().map_or(Ok(()), Err))
    }

    /// Values sent and not yet received: for metrics.
    pub fn depth(&self) -> usize {
        self.0.len()
    }

    /// True when the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.0.is_disconnected()
    }
}

/// The receiving side of [`bounded`].
pub struct Receiver<T>(flume::Receiver<Parcel<T>>);

impl<T: Send> Receiver<T> {
    /// The next value; None when every sender is gone and nothing is left. On a shard and in tokio alike. Dropping the
    /// future loses nothing.
    pub async fn recv(&self) -> Option<T> {
        loop {
            // A parcel that its sender took back is empty.
            if let Some(value) = self.0.recv_async().await.ok()?.open() {
                return Some(value);
            }
        }
    }

    /// The same on a thread of its own, which stands still meanwhile.
    pub fn recv_blocking(&self) -> Option<T> {
        loop {
            if let Some(value) = self.0.recv().ok()?.open() {
                return Some(value);
            }
        }
    }

    /// The next value when there is one now.
    pub fn try_recv(&self) -> Option<T> {
        self.0.try_iter().find_map(Parcel::open)
    }

    /// Values sent and not yet received: for metrics.
    pub fn depth(&self) -> usize {
        self.0.len()
    }
}
