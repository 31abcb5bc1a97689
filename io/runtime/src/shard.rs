//! One executor on one thread: start, tasks, fairness, end. Knows nothing of sockets beyond shutting them down at the end.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::clock::Clock;
use crate::driver::{self, Driver};
use crate::local::{Event, Notify};
use crate::socket::Probe;
use crate::sys;

/// Task polls between two looks at the kernel, however busy the shard is.
const POLLS_PER_PASS: u32 = 4096;
/// Of these, polls of one task: one that wakes itself cannot have them all.
const POLLS_PER_TASK: u32 = 1024;
/// How long glommio is made to look away from its tasks. Its own yield does not leave the queue.
const GLOMMIO_PASS: Duration = Duration::from_micros(20);
/// Looks at the kernel that the sockets' last operations get at the end, and then the tasks that are left.
const PASSES_AT_END: usize = 4;

/// How one shard runs.
#[derive(Debug, Clone)]
pub struct ShardOptions {
    /// Name of the thread (the kernel keeps 15 bytes).
    pub name: String,
    /// The processor the thread is pinned to; None: wherever the kernel likes.
    pub cpu: Option<usize>,
    /// Entries of the submission ring, or of one epoll_wait; the drivers round it up to what they need (monoio: 256).
    pub ring_entries: u32,
    /// How long to look for work before sleeping. Only glommio can; monoio's two drivers sleep at once.
    pub spin: Duration,
}

impl Default for ShardOptions {
    fn default() -> Self {
        Self { name: "shard".into(), cpu: None, ring_entries: 1024, spin: Duration::ZERO }
    }
}

/// Makes the calling thread a shard and runs the future that `make` gives on it, until that ends.
///
/// `make` is called on the running shard. When its future ends, every socket that is still open is shut down, the tasks
/// that use them get their last results, and what is then left is dropped.
///
/// Errors: the thread is a shard already, cannot be pinned, or the driver cannot start.
pub fn block_on<F, T>(driver: Driver, options: &ShardOptions, make: impl FnOnce() -> F) -> io::Result<T>
where
    F: Future<Output = T>,
{
    if try_current().is_some() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "this thread is a shard already"));
    }
    if let Some(cpu) = options.cpu {
        sys::pin(cpu)?;
    }
    sys::name_thread(&options.name);
    let (clock, timer) = Clock::new()?;
    let events = [sys::event()?, sys::event()?];
    let pass = Pass::new(&events)?;
    let (tasks, phase) = (RefCell::default(), Cell::new(Phase::Running));
    let shard = Rc::new(Shard { driver, clock: Rc::new(clock), pass, tasks, phase });
    let _running = Running::start(shard.clone());
    match driver {
        Driver::Uring => driver::uring(options.ring_entries)?.block_on(run(shard, timer, events, make)),
        Driver::Epoll => driver::epoll(options.ring_entries)?.block_on(run(shard, timer, events, make)),
        Driver::Glommio => driver::glommio(options)?.run(run(shard, timer, events, make)),
    }
}

/// Starts a task on this shard; it runs on its own until it ends, and a panic in it ends it alone. Panics outside of
/// [`block_on`].
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    let shard = current();
    spawn_raw(shard.driver, Task { entry: Entry::new(shard.clone()), budgeted: Budgeted::new(shard, future) });
}

/// The driver of this shard; None outside of [`block_on`].
pub fn driver() -> Option<Driver> {
    try_current().map(|shard| shard.driver)
}

/// Lets every other task run and the kernel be asked for events before going on.
///
/// It never wakes itself: another task does it, after a look at the kernel. Panics outside of [`block_on`].
pub async fn yield_now() {
    let shard = current();
    let start = shard.pass.count.get();
    std::future::poll_fn(|cx| {
        if shard.pass.count.get() != start {
            return Poll::Ready(());
        }
        shard.pass.wait(Queue::Sated, cx.waker());
        Poll::Pending
    })
    .await;
}

/// What belongs to the thread while it is a shard.
pub(crate) struct Shard {
    pub(crate) driver: Driver,
    pub(crate) clock: Rc<Clock>,
    pass: Pass,
    tasks: RefCell<Tasks>,
    phase: Cell<Phase>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// Tasks end at their next poll.
    Ending,
    /// The shard's own tasks end too.
    Closed,
}

thread_local! {
    static SHARD: RefCell<Option<Rc<Shard>>> = const { RefCell::new(None) };
    /// Polls left before the next pass.
    static BUDGET: Cell<u32> = const { Cell::new(POLLS_PER_PASS) };
}

pub(crate) fn try_current() -> Option<Rc<Shard>> {
    SHARD.with_borrow(Clone::clone)
}

/// The shard of this thread. Its absence is a bug of the caller, not a condition to handle.
pub(crate) fn current() -> Rc<Shard> {
    match try_current() {
        Some(shard) => shard,
        None => panic!("not on a shard: only inside of block_on"),
    }
}

/// Marks the thread as a shard; the mark goes with it, also when the future panics.
struct Running;

impl Running {
    fn start(shard: Rc<Shard>) -> Self {
        BUDGET.set(POLLS_PER_PASS);
        SHARD.set(Some(shard));
        Self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        SHARD.set(None);
    }
}

async fn run<F, T>(shard: Rc<Shard>, timer: OwnedFd, events: [OwnedFd; 2], make: impl FnOnce() -> F) -> io::Result<T>
where
    F: Future<Output = T>,
{
    let (ticks_done, passes_done) = (Event::new(), Event::new());
    let [first, second] = events;
    spawn_raw(shard.driver, run_ticks(shard.clone(), Probe::new(timer, shard.driver)?, ticks_done.clone()));
    let probes = [Probe::new(first, shard.driver)?, Probe::new(second, shard.driver)?];
    spawn_raw(shard.driver, run_passes(shard.clone(), probes, passes_done.clone()));

    let output = Budgeted::new(shard.clone(), make()).await;

    // Operations in flight point into buffers: they must end before the ring goes away.
    shard.clock.shut_down_sockets();
    for _ in 0..PASSES_AT_END {
        yield_now().await;
    }
    // A task that waits for itself alone would be leaked, with all that it holds.
    shard.phase.set(Phase::Ending);
    let left = shard.tasks.take();
    left.wakers.into_iter().flatten().for_each(Waker::wake);
    for _ in 0..PASSES_AT_END {
        yield_now().await;
    }
    shard.phase.set(Phase::Closed);
    shard.clock.alarm();
    shard.pass.kick.notify_one();
    ticks_done.wait().await;
    passes_done.wait().await;
    Ok(output)
}

async fn run_ticks(shard: Rc<Shard>, timer: Probe, done: Event) {
    let mut fired = Vec::new();
    while shard.phase.get() != Phase::Closed {
        if let Err(error) = timer.readable().await {
            tracing::error!(%error, "shard timer failed");
            break;
        }
        shard.clock.tick(&mut fired);
    }
    done.set();
}

fn spawn_raw(driver: Driver, future: impl Future<Output = ()> + 'static) {
    match driver {
        Driver::Uring | Driver::Epoll => drop(monoio::spawn(future)),
        Driver::Glommio => drop(glommio::spawn_local(future).detach()),
    }
}

/// A look at the kernel that cannot be skipped.
///
/// monoio asks the kernel for completions only when its queue of tasks runs empty, and puts a task that wakes itself at
/// the head of that queue: such a task, or a stream of wake-ups from other threads, keeps tasks, timers and sockets
/// waiting for seconds; with DEFER_TASKRUN, for ever. So each task has its share of a budget of polls. Who has used up
/// the share, or meets the end of the budget, waits for the pass; then the queue runs empty, the kernel is asked, and
/// a task that takes no part in this wakes them again.
struct Pass {
    /// Wanted to run and found the budget spent: they are the first after the pass.
    deprived: RefCell<Vec<Waker>>,
    /// Had their share, or have yielded.
    sated: RefCell<Vec<Waker>>,
    count: Cell<u64>,
    kick: Notify,
    /// Second descriptors of the events behind the probes.
    raise: [OwnedFd; 2],
}

#[derive(Clone, Copy)]
enum Queue {
    Deprived,
    Sated,
}

impl Pass {
    fn new(events: &[OwnedFd; 2]) -> io::Result<Self> {
        let raise = [sys::duplicate(events[0].as_raw_fd())?, sys::duplicate(events[1].as_raw_fd())?];
        let (deprived, sated) = (RefCell::default(), RefCell::default());
        Ok(Self { deprived, sated, count: Cell::new(0), kick: Notify::new(), raise })
    }

    fn wait(&self, queue: Queue, waker: &Waker) {
        let queue = match queue {
            Queue::Deprived => &self.deprived,
            Queue::Sated => &self.sated,
        };
        queue.borrow_mut().push(waker.clone());
        self.kick.notify_one();
    }

    fn finish(&self) {
        self.count.set(self.count.get() + 1);
        BUDGET.set(POLLS_PER_PASS);
        let waiting = self.deprived.take().into_iter().chain(self.sated.take());
        waiting.for_each(Waker::wake);
    }
}

async fn run_passes(shard: Rc<Shard>, probes: [Probe; 2], done: Event) {
    while shard.phase.get() != Phase::Closed {
        shard.pass.kick.notified().await;
        if let Err(error) = through_kernel(&shard, &probes).await {
            tracing::error!(%error, "shard cannot reach its kernel queue");
        }
        shard.pass.finish();
    }
    done.set();
}

async fn through_kernel(shard: &Shard, probes: &[Probe; 2]) -> io::Result<()> {
    match shard.driver {
        // The queue of tasks has been left once: monoio polls epoll each time that it goes round.
        Driver::Epoll => Ok(()),
        Driver::Glommio => {
            glommio::timer::sleep(GLOMMIO_PASS).await;
            Ok(())
        }
        Driver::Uring => {
            // Both polls are queued together. The first may complete while it is being submitted, which monoio does
            // without running deferred work. Its completion proves that the second is armed in the kernel, and an armed
            // poll completes only through deferred work.
            let mut second = std::pin::pin!(probes[1].readable());
            let first = probes[0].readable();
            sys::raise_event(shard.pass.raise[0].as_raw_fd())?;
            let mut first = std::pin::pin!(first);
            let mut early = None;
            std::future::poll_fn(|cx| {
                if early.is_none()
                    && let Poll::Ready(result) = second.as_mut().poll(cx)
                {
                    early = Some(result);
                }
                first.as_mut().poll(cx)
            })
            .await?;
            sys::clear_event(shard.pass.raise[0].as_raw_fd());
            sys::raise_event(shard.pass.raise[1].as_raw_fd())?;
            match early {
                Some(result) => result?,
                None => second.await?,
            }
            sys::clear_event(shard.pass.raise[1].as_raw_fd());
            Ok(())
        }
    }
}

/// A task under the budget of [`Pass`]. Costs a few loads and stores per poll.
struct Budgeted<F> {
    shard: Rc<Shard>,
    /// The pass in which `polls` were counted.
    pass: u64,
    polls: u32,
    /// In a queue of the pass already: it is there once, however often it is woken.
    stalled: bool,
    future: F,
}

impl<F> Budgeted<F> {
    fn new(shard: Rc<Shard>, future: F) -> Self {
        Self { pass: shard.pass.count.get(), shard, polls: 0, stalled: false, future }
    }

    /// Takes one poll from the budget; false: wait for the pass.
    fn may_run(&mut self, waker: &Waker) -> bool {
        let pass = self.shard.pass.count.get();
        if self.pass != pass {
            (self.pass, self.polls, self.stalled) = (pass, 0, false);
        }
        let left = BUDGET.get();
        if left > 0 && self.polls < POLLS_PER_TASK {
            BUDGET.set(left - 1);
            self.polls += 1;
            return true;
        }
        if !self.stalled {
            self.stalled = true;
            let queue = if self.polls < POLLS_PER_TASK { Queue::Deprived } else { Queue::Sated };
            self.shard.pass.wait(queue, waker);
        }
        false
    }
}

impl<F: Future> Future for Budgeted<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: `future` is structurally pinned: it is never moved out, and Budgeted has no Drop. The others are Unpin.
        let this = unsafe { self.get_unchecked_mut() };
        if !this.may_run(cx.waker()) {
            return Poll::Pending;
        }
        // SAFETY: as above.
        unsafe { Pin::new_unchecked(&mut this.future) }.poll(cx)
    }
}

/// A spawned task. It ends with its future, or with the shard.
struct Task<F> {
    entry: Entry,
    budgeted: Budgeted<F>,
}

impl<F: Future<Output = ()>> Future for Task<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // SAFETY: `budgeted` is structurally pinned: it is never moved out, and Task has no Drop. `entry` is Unpin.
        let this = unsafe { self.get_unchecked_mut() };
        if this.entry.shard.phase.get() != Phase::Running {
            return Poll::Ready(());
        }
        this.entry.set(cx.waker());
        // SAFETY: as above.
        let task = unsafe { Pin::new_unchecked(&mut this.budgeted) };
        // A bug that one task trips over ends that task, not the shard with everybody else's. Nothing of the task is
        // used again: both drivers drop it when it is done.
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| task.poll(cx))).unwrap_or_else(|_| {
            tracing::error!("a task panicked and was ended");
            Poll::Ready(())
        })
    }
}

/// The wakers of the tasks that have not ended: for the end of the shard.
#[derive(Default)]
struct Tasks {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

/// A task's place in [`Tasks`].
struct Entry {
    shard: Rc<Shard>,
    index: Option<usize>,
}

impl Entry {
    fn new(shard: Rc<Shard>) -> Self {
        Self { shard, index: None }
    }

    /// A task has one waker for its whole life: the first poll enters it.
    fn set(&mut self, waker: &Waker) {
        if self.index.is_some() {
            return;
        }
        let tasks = &mut *self.shard.tasks.borrow_mut();
        let index = tasks.free.pop().unwrap_or_else(|| {
            tasks.wakers.push(None);
            tasks.wakers.len() - 1
        });
        tasks.wakers[index] = Some(waker.clone());
        self.index = Some(index);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let Some(index) = self.index else { return };
        let mut tasks = self.shard.tasks.borrow_mut();
        // At the end of the shard the list has been taken away.
        let waker = tasks.wakers.get_mut(index).and_then(Option::take);
        if waker.is_some() {
            tasks.free.push(index);
        }
        drop(tasks);
        drop(waker);
    }
}
