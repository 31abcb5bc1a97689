//! The shard's clock: a cheap `now`, coarse timers, and the tick that fires them and the sockets' deadlines.
//!
//! One timerfd per shard is armed for the next thing that is due and for nothing else: an idle shard does not tick.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::join::{Either, race};
use crate::watch::{Slot, Watch};
use crate::wheel::{Key, Wheel};
use crate::{shard, sys};

/// Timers fire at the first multiple of this after their time.
const TICK: Duration = Duration::from_millis(10);
const TICK_NS: u64 = TICK.as_nanos() as u64;
/// At most one sweep of the deadlines in this many ticks.
const SWEEP_PAUSE_TICKS: u32 = 4;

/// The time limit passed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

impl std::fmt::Display for Elapsed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("time limit passed")
    }
}

impl std::error::Error for Elapsed {}

/// The present, from the kernel's coarse clock: up to one kernel tick (1-10 ms) behind, never ahead, a few nanoseconds to
/// read even where the machine's precise clock needs a system call. Good for deadlines, not for measuring latency.
pub fn now() -> Instant {
    static BASE: OnceLock<(Instant, u64)> = OnceLock::new();
    let (instant, base_ns) = *BASE.get_or_init(|| (Instant::now(), sys::clock_ns(libc::CLOCK_MONOTONIC)));
    let coarse_ns = sys::clock_ns(libc::CLOCK_MONOTONIC_COARSE);
    if coarse_ns >= base_ns {
        return instant + Duration::from_nanos(coarse_ns - base_ns);
    }
    instant.checked_sub(Duration::from_nanos(base_ns - coarse_ns)).unwrap_or(instant)
}

/// Waits at least `duration`, and at most about 10 ms longer on a shard that has time.
///
/// Dropping the future cancels it, in O(1). Panics outside of [`block_on`](crate::block_on).
pub async fn sleep(duration: Duration) {
    match Instant::now().checked_add(duration) {
        Some(at) => sleep_until(at).await,
        // Further away than the clock can say: never.
        None => std::future::pending().await,
    }
}

/// Waits until `at`; see [`sleep`].
pub async fn sleep_until(at: Instant) {
    if at <= Instant::now() {
        return;
    }
    let clock = shard::current().clock.clone();
    Sleep { due: clock.tick_after(at), clock, key: None }.await;
}

/// Runs `future` for at most `duration`, then drops it.
///
/// Only for futures that lose nothing when dropped: channels, timers, `readable`. Never a recv or a send: their deadline
/// is [`Stream::set_deadline`](crate::Stream::set_deadline).
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    match race(future, sleep(duration)).await {
        Either::Left(output) => Ok(output),
        Either::Right(()) => Err(Elapsed),
    }
}

/// One per shard.
pub(crate) struct Clock {
    epoch: Instant,
    wheel: RefCell<Wheel>,
    watch: RefCell<Watch>,
    timer: OwnedFd,
    /// The tick that the timer is armed for; `u64::MAX`: it is not.
    armed: Cell<u64>,
}

impl Clock {
    /// Also gives the descriptor whose readiness means that [`Clock::tick`] is due.
    pub(crate) fn new() -> io::Result<(Self, OwnedFd)> {
        let timer = sys::timer()?;
        let readiness = sys::duplicate(timer.as_raw_fd())?;
        let clock = Self {
            epoch: Instant::now(),
            wheel: RefCell::new(Wheel::new()),
            watch: RefCell::new(Watch::new()),
            timer,
            armed: Cell::new(u64::MAX),
        };
        Ok((clock, readiness))
    }

    /// Fires what is due and arms the timer for what comes next.
    pub(crate) fn tick(&self, fired: &mut Vec<Waker>) {
        let now = self.tick_before(Instant::now());
        self.wheel.borrow_mut().advance(now, fired);
        self.watch.borrow_mut().sweep(now, SWEEP_PAUSE_TICKS);
        // Wakers run foreign code, which may set timers: no borrow is held here.
        for waker in fired.drain(..) {
            waker.wake();
        }
        let wheel = self.wheel.borrow().next_due().unwrap_or(u64::MAX);
        let watch = self.watch.borrow().next_due().unwrap_or(u64::MAX);
        self.arm(wheel.min(watch));
    }

    /// Makes the timer fire at once: the ticking task has to look.
    pub(crate) fn alarm(&self) {
        self.arm(0);
    }

    pub(crate) fn register(&self, fd: RawFd) -> Slot {
        self.watch.borrow_mut().register(fd)
    }

    pub(crate) fn release(&self, slot: Slot) {
        self.watch.borrow_mut().release(slot);
    }

    pub(crate) fn set_deadline(&self, slot: Slot, at: Option<Instant>, how: Shutdown) {
        let due = at.map(|at| self.tick_after(at));
        let earlier = self.watch.borrow_mut().set(slot, due, how);
        if let (true, Some(due)) = (earlier, due) {
            self.arm_before(due);
        }
    }

    pub(crate) fn expired(&self, slot: Slot) -> Option<Shutdown> {
        self.watch.borrow().expired(slot)
    }

    pub(crate) fn shut_down_sockets(&self) {
        self.watch.borrow_mut().end();
    }

    fn arm_before(&self, tick: u64) {
        if tick < self.armed.get() {
            self.arm(tick);
        }
    }

    fn arm(&self, tick: u64) {
        self.armed.set(tick);
        let delay = (tick != u64::MAX).then(|| self.time_of(tick).saturating_duration_since(Instant::now()));
        // The arguments are valid and the descriptor is ours: the call has no other way to fail.
        let armed = sys::arm_timer(self.timer.as_raw_fd(), delay);
        debug_assert!(armed.is_ok(), "{armed:?}");
    }

    fn time_of(&self, tick: u64) -> Instant {
        let since = Duration::from_millis(tick.saturating_mul(TICK.as_millis() as u64));
        self.epoch.checked_add(since).unwrap_or(self.epoch)
    }

    fn tick_before(&self, at: Instant) -> u64 {
        self.since_epoch_ns(at) / TICK_NS
    }

    fn tick_after(&self, at: Instant) -> u64 {
        self.since_epoch_ns(at).div_ceil(TICK_NS)
    }

    /// Enough for 584 years; further away is as good as never.
    fn since_epoch_ns(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.epoch);
        since.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(since.subsec_nanos()))
    }
}

struct Sleep {
    clock: Rc<Clock>,
    due: u64,
    key: Option<Key>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let Some(key) = this.key else {
            this.key = Some(this.clock.wheel.borrow_mut().insert(this.due, cx.waker().clone()));
            this.clock.arm_before(this.due);
            return Poll::Pending;
        };
        if this.clock.wheel.borrow_mut().has_fired(key, cx.waker()) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.clock.wheel.borrow_mut().remove(key);
        }
    }
}
