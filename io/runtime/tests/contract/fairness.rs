//! Tasks that want everything for themselves.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use agentlane_runtime::{
    Driver, ShardOptions, block_on, channel, driver as current_driver, fair, join_all, sleep, spawn, yield_now,
};
use bytes::Bytes;

use crate::support::{on_shard, options, promises, recv_exact, start_shard, tcp_pair};

promises! {
    defect_1_task_that_wakes_itself_starves_nobody, defect_1_flood_of_foreign_wakes_starves_no_socket,
    defect_1_yield_now_lets_timers_and_sockets_go_on, fair_gives_others_a_turn, fair_passes_foreign_wakes_on,
    join_all_keeps_the_order, tasks_can_spawn_tasks, a_thread_is_one_shard_at_a_time_and_can_be_one_again,
    cpu_and_name_are_set,
}

/// Wakes itself for ever, counting.
async fn spin(count: Rc<Cell<u64>>) {
    poll_fn(|cx| {
        count.set(count.get() + 1);
        cx.waker().wake_by_ref();
        Poll::<()>::Pending
    })
    .await;
}

/// A hundred round trips and three sleeps: must take no longer than on a shard that is merely busy.
async fn others_go_on() {
    let (mut near, mut far) = tcp_pair().await;
    let start = Instant::now();
    for _ in 0..100 {
        near.send(Bytes::from_static(b"ping")).await.unwrap();
        assert_eq!(recv_exact(&mut far, 4).await, "ping");
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?} for 100 messages", start.elapsed());
    for _ in 0..3 {
        let start = Instant::now();
        sleep(Duration::from_millis(30)).await;
        assert!(start.elapsed() < Duration::from_secs(1), "a sleep of 30 ms took {:?}", start.elapsed());
    }
}

fn defect_1_task_that_wakes_itself_starves_nobody(driver: Driver) {
    on_shard(driver, || async {
        let count = Rc::new(Cell::new(0));
        spawn(spin(count.clone()));
        spawn(spin(count.clone()));
        others_go_on().await;
        assert!(count.get() > 1000, "the greedy ones run too");
    });
}

fn defect_1_flood_of_foreign_wakes_starves_no_socket(driver: Driver) {
    let stop = Arc::new(AtomicBool::new(false));
    let received = Arc::new(AtomicU64::new(0));
    let (sender, receiver) = channel::bounded::<u64>(64);
    let flood = {
        let stop = stop.clone();
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let _ = sender.try_send(1);
            }
        })
    };
    let counter = received.clone();
    on_shard(driver, move || async move {
        spawn(async move {
            while receiver.recv().await.is_some() {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        others_go_on().await;
    });
    stop.store(true, Ordering::Relaxed);
    flood.join().unwrap();
    assert!(received.load(Ordering::Relaxed) > 0);
}

fn defect_1_yield_now_lets_timers_and_sockets_go_on(driver: Driver) {
    on_shard(driver, || async {
        let done = Rc::new(Cell::new(false));
        let watched = done.clone();
        spawn(async move {
            others_go_on().await;
            watched.set(true);
        });
        let start = Instant::now();
        while !done.get() {
            yield_now().await;
            assert!(start.elapsed() < Duration::from_secs(20));
        }
    });
}

fn fair_gives_others_a_turn(driver: Driver) {
    on_shard(driver, || async {
        let greedy = Rc::new(Cell::new(0));
        let other = Rc::new(Cell::new(0));
        spawn(fair(spin(greedy.clone())));
        let turns = other.clone();
        spawn(async move {
            loop {
                yield_now().await;
                turns.set(turns.get() + 1);
            }
        });
        sleep(Duration::from_millis(100)).await;
        let (greedy, other) = (greedy.get(), other.get());
        assert!(greedy > 10 && greedy < other * 3 + 10, "{greedy} turns against {other}");
    });
}

fn fair_passes_foreign_wakes_on(driver: Driver) {
    let (sender, receiver) = channel::bounded::<u32>(1);
    let feeder = std::thread::spawn(move || {
        for value in 0..50 {
            std::thread::sleep(Duration::from_millis(1));
            while sender.try_send(value).is_err() {
                std::thread::yield_now();
            }
        }
    });
    let sum = on_shard(driver, || async move {
        fair(async {
            let mut sum = 0;
            while let Some(value) = receiver.recv().await {
                sum += value;
            }
            sum
        })
        .await
    });
    feeder.join().unwrap();
    assert_eq!(sum, (0..50).sum());
}

fn join_all_keeps_the_order(driver: Driver) {
    on_shard(driver, || async {
        let waits = [200u64, 150, 180, 0].map(|ms| async move {
            sleep(Duration::from_millis(ms)).await;
            ms
        });
        let start = Instant::now();
        assert_eq!(join_all(waits).await, [200, 150, 180, 0]);
        assert!(start.elapsed() < Duration::from_millis(500), "at the same time");
        assert_eq!(join_all(Vec::<std::future::Ready<()>>::new()).await, []);
    });
}

fn tasks_can_spawn_tasks(driver: Driver) {
    on_shard(driver, move || async move {
        assert_eq!(current_driver(), Some(driver));
        let count = Rc::new(Cell::new(0));
        fn grow(depth: u32, count: Rc<Cell<u32>>) {
            count.set(count.get() + 1);
            if depth > 0 {
                for _ in 0..2 {
                    let count = count.clone();
                    spawn(async move { grow(depth - 1, count) });
                }
            }
        }
        grow(12, count.clone());
        while count.get() < (1 << 13) - 1 {
            yield_now().await;
        }
    });
}

fn a_thread_is_one_shard_at_a_time_and_can_be_one_again(driver: Driver) {
    assert_eq!(current_driver(), None);
    for round in 0..3 {
        let inner = block_on(driver, &options(), || async {
            block_on(driver, &options(), || async {}).map_err(|error| error.kind())
        });
        assert_eq!(inner.unwrap(), Err(std::io::ErrorKind::AlreadyExists), "{round}");
        assert_eq!(current_driver(), None);
    }
}

fn cpu_and_name_are_set(driver: Driver) {
    // On a thread of its own, which stays pinned.
    let shard = std::thread::spawn(move || {
        let options = ShardOptions { name: "agentlane-shard-0".into(), cpu: Some(0), ..options() };
        block_on(driver, &options, || async {
            let name = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
            (name, unsafe { libc::sched_getcpu() })
        })
    });
    let (name, cpu) = shard.join().unwrap().unwrap();
    assert_eq!((name.trim(), cpu), ("agentlane-shard", 0));
    let missing = ShardOptions { cpu: Some(usize::MAX), ..options() };
    assert!(block_on(driver, &missing, || async {}).is_err());
    start_shard(driver, || async {}).end();
}
