//! The coarse wheel.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use agentlane_runtime::{Driver, Elapsed, now, race, sleep, sleep_until, spawn, timeout};

use crate::support::{on_shard, promises};

promises! {
    defect_7_sleeps_are_never_early_and_at_most_a_tick_late, order_of_expiry, cancelled_timers_do_not_fire,
    ten_thousand_timers, timeout_gives_output_or_elapsed, coarse_clock_keeps_up, an_idle_shard_costs_nothing,
}

/// A tick, and the way through the kernel, on a machine that has time.
const LATE: Duration = Duration::from_millis(14);
/// Tries in which a busy test machine must have had time once.
const TRIES: usize = 8;

fn defect_7_sleeps_are_never_early_and_at_most_a_tick_late(driver: Driver) {
    on_shard(driver, || async {
        for ms in [0, 1, 5, 10, 11, 25, 99, 250] {
            let wanted = Duration::from_millis(ms);
            let mut best = Duration::MAX;
            for _ in 0..TRIES {
                let start = Instant::now();
                sleep(wanted).await;
                let passed = start.elapsed();
                assert!(passed >= wanted, "{passed:?} for {wanted:?}");
                best = best.min(passed - wanted);
                if best < LATE {
                    break;
                }
            }
            assert!(best < LATE, "always late, at best by {best:?} for {wanted:?}");
        }
        sleep_until(Instant::now()).await;
    });
}

fn order_of_expiry(driver: Driver) {
    on_shard(driver, || async {
        let order = Rc::new(RefCell::new(Vec::new()));
        for ms in [120u64, 40, 80, 200, 160] {
            let order = order.clone();
            spawn(async move {
                sleep(Duration::from_millis(ms)).await;
                order.borrow_mut().push(ms);
            });
        }
        sleep(Duration::from_millis(300)).await;
        assert_eq!(*order.borrow(), [40, 80, 120, 160, 200]);
    });
}

fn cancelled_timers_do_not_fire(driver: Driver) {
    on_shard(driver, || async {
        let start = Instant::now();
        for _ in 0..1000 {
            race(agentlane_runtime::yield_now(), sleep(Duration::from_secs(3600))).await;
        }
        race(sleep(Duration::from_millis(30)), sleep(Duration::from_secs(3600))).await;
        assert!(start.elapsed() < Duration::from_secs(5));
    });
}

fn ten_thousand_timers(driver: Driver) {
    on_shard(driver, || async {
        let fired = Rc::new(Cell::new(0));
        let worst = Rc::new(Cell::new(Duration::ZERO));
        for index in 0..10_000u64 {
            let (fired, worst) = (fired.clone(), worst.clone());
            spawn(async move {
                let due = Instant::now() + Duration::from_millis(200 + index % 300);
                sleep_until(due).await;
                worst.set(worst.get().max(due.elapsed()));
                fired.set(fired.get() + 1);
            });
        }
        let start = Instant::now();
        while fired.get() < 10_000 {
            assert!(start.elapsed() < Duration::from_secs(20), "{} fired", fired.get());
            sleep(Duration::from_millis(20)).await;
        }
        assert!(worst.get() < Duration::from_secs(3), "{:?} late", worst.get());
    });
}

fn timeout_gives_output_or_elapsed(driver: Driver) {
    on_shard(driver, || async {
        assert_eq!(timeout(Duration::from_secs(5), async { 7 }).await, Ok(7));
        assert_eq!(timeout(Duration::from_millis(20), std::future::pending::<()>()).await, Err(Elapsed));
        assert_eq!(timeout(Duration::MAX, async { 7 }).await, Ok(7));
    });
}

fn coarse_clock_keeps_up(driver: Driver) {
    on_shard(driver, || async {
        for _ in 0..20 {
            let (before, coarse) = (Instant::now(), now());
            assert!(coarse <= Instant::now(), "never ahead");
            assert!(before.saturating_duration_since(coarse) <= Duration::from_millis(11));
            sleep(Duration::from_millis(7)).await;
        }
    });
}

fn an_idle_shard_costs_nothing(driver: Driver) {
    on_shard(driver, || async {
        // A timer of the future and a deadline that was taken back must not make the shard tick.
        spawn(sleep(Duration::from_secs(3600)));
        sleep(Duration::from_millis(50)).await;
        let (wakeups, cpu) = usage();
        sleep(Duration::from_millis(1500)).await;
        let (wakeups, cpu) = (usage().0 - wakeups, usage().1 - cpu);
        assert!(wakeups < 40, "{wakeups} wake-ups in 1.5 s");
        assert!(cpu < Duration::from_millis(30), "{cpu:?} of CPU in 1.5 s");
    });
}

/// Voluntary context switches and CPU time of this thread.
fn usage() -> (i64, Duration) {
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) }, 0);
    let time = |t: libc::timeval| Duration::from_micros(t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64);
    (usage.ru_nvcsw, time(usage.ru_utime) + time(usage.ru_stime))
}
