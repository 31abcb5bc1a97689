//! A place for third-party futures that wake themselves. Knows nothing of what they do.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use crate::shard;

/// Runs a future that may wake itself while it is polled (h2 connections, sets of futures): such a wake becomes a
/// [`yield_now`](crate::yield_now), so that the shard's other tasks, timers and sockets come first.
///
/// Costs one allocation per call and a few uncontended atomics per poll: for a connection, not for an operation.
pub async fn fair<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let relay = Arc::new(Relay::default());
    let waker = Waker::from(relay.clone());
    loop {
        let mut woke_itself = false;
        let output = std::future::poll_fn(|cx| {
            relay.attach(cx.waker());
            let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
            woke_itself = relay.detach();
            match polled {
                Poll::Ready(output) => Poll::Ready(Some(output)),
                Poll::Pending if woke_itself => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        if let Some(output) = output {
            return output;
        }
        shard::yield_now().await;
    }
}

/// The waker of the inner future: passes a wake on, except during a poll, when it only takes note.
#[derive(Default)]
struct Relay {
    polling: AtomicBool,
    woken: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Relay {
    fn attach(&self, task: &Waker) {
        let mut known = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *known {
            Some(known) => known.clone_from(task),
            none => *none = Some(task.clone()),
        }
        drop(known);
        self.woken.store(false, Ordering::SeqCst);
        self.polling.store(true, Ordering::SeqCst);
    }

    /// Ends the poll; true when a wake came during it.
    fn detach(&self) -> bool {
        self.polling.store(false, Ordering::SeqCst);
        self.woken.swap(false, Ordering::SeqCst)
    }
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        // Read after the note is written: a poll that ends in between either sees the note or has ended before this.
        if self.polling.load(Ordering::SeqCst) {
            return;
        }
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}
