//! Channels between threads, and between tasks.

use std::rc::Rc;
use std::time::{Duration, Instant};

use agentlane_runtime::channel::{self, SendError, TrySendError};
use agentlane_runtime::local::{self, Event, Notify, oneshot};
use agentlane_runtime::{Driver, sleep, spawn, timeout};

use crate::support::{on_shard, promises, start_shard};

promises! {
    full_and_closed, send_until_waits_times_out_and_gives_back, four_shards_talk, wakes_a_sleeping_shard,
    with_tokio_both_ways, end_of_shard_drops_its_tasks, value_is_received_or_given_back_never_both, dropped_recv_loses_nothing,
    local_channel, local_oneshot, local_notify_and_event,
}

fn full_and_closed(driver: Driver) {
    on_shard(driver, || async {
        let (sender, receiver) = channel::bounded(2);
        assert_eq!(sender.try_send(1), Ok(()));
        assert_eq!(sender.try_send(2), Ok(()));
        assert_eq!(sender.try_send(3), Err(TrySendError::Full(3)));
        assert_eq!((sender.depth(), receiver.depth()), (2, 2));
        assert_eq!(receiver.recv().await, Some(1));
        assert_eq!(receiver.try_recv(), Some(2));
        assert_eq!(receiver.try_recv(), None);
        let other = sender.clone();
        drop(sender);
        other.try_send(4).unwrap();
        drop(other);
        assert_eq!(receiver.recv().await, Some(4));
        assert_eq!(receiver.recv().await, None);
        let (sender, receiver) = channel::bounded(1);
        drop(receiver);
        assert!(sender.is_closed());
        assert_eq!(sender.try_send(1), Err(TrySendError::Closed(1)));
        assert_eq!(sender.send(1).await, Err(1));
        assert_eq!(sender.send_until(1, Instant::now()).await, Err(SendError::Closed(1)));
    });
}

fn send_until_waits_times_out_and_gives_back(driver: Driver) {
    on_shard(driver, || async {
        let (sender, receiver) = channel::bounded(1);
        sender.try_send("first").unwrap();
        let start = Instant::now();
        let sent = sender.send_until("second", start + Duration::from_millis(50)).await;
        assert_eq!(sent, Err(SendError::TimedOut("second")));
        assert!(start.elapsed() >= Duration::from_millis(50) && start.elapsed() < Duration::from_secs(2));
        let other = sender.clone();
        spawn(async move { other.send_until("third", Instant::now() + Duration::from_secs(9)).await.unwrap() });
        sleep(Duration::from_millis(20)).await;
        assert_eq!(receiver.recv().await, Some("first"));
        assert_eq!(receiver.recv().await, Some("third"), "what was given back is not there");
        sender.try_send("fourth").unwrap();
        spawn(async move {
            sleep(Duration::from_millis(30)).await;
            drop(receiver);
        });
        let sent = sender.send_until("fifth", Instant::now() + Duration::from_secs(9)).await;
        assert_eq!(sent, Err(SendError::Closed("fifth")));
    });
}

fn four_shards_talk(driver: Driver) {
    const EACH: u64 = 2000;
    // A ring of small channels: everybody sends to everybody's neighbour, full channels included.
    let ends: Vec<_> = (0..4).map(|_| channel::bounded::<u64>(8)).collect();
    let senders: Vec<_> = ends.iter().map(|(sender, _)| sender.clone()).collect();
    let shards: Vec<_> = ends
        .into_iter()
        .enumerate()
        .map(|(index, (own, receiver))| {
            drop(own);
            let next = senders[(index + 1) % 4].clone();
            start_shard(driver, move || async move {
                let (done, sent) = oneshot::channel();
                spawn(async move {
                    for value in 0..EACH {
                        let deadline = Instant::now() + Duration::from_secs(30);
                        next.send_until(value, deadline).await.unwrap();
                    }
                    let _ = done.send(());
                });
                let mut sum = 0;
                while let Some(value) = receiver.recv().await {
                    sum += value;
                }
                sent.await.expect("all sent");
                sum
            })
        })
        .collect();
    drop(senders);
    for shard in shards {
        assert_eq!(shard.end(), EACH * (EACH - 1) / 2);
    }
}

fn wakes_a_sleeping_shard(driver: Driver) {
    let (ping, pings) = channel::bounded::<Instant>(1);
    let (pong, pongs) = channel::bounded::<Duration>(1);
    let shard = start_shard(driver, move || async move {
        while let Some(sent) = pings.recv().await {
            pong.send(sent.elapsed()).await.unwrap();
        }
    });
    let mut latencies: Vec<Duration> = on_shard(driver, || async move {
        let mut latencies = Vec::new();
        for _ in 0..50 {
            sleep(Duration::from_millis(5)).await;
            ping.try_send(Instant::now()).unwrap();
            latencies.push(pongs.recv().await.unwrap());
        }
        latencies
    });
    shard.end();
    latencies.sort();
    assert!(latencies[25] < Duration::from_millis(50), "half take longer than {:?}", latencies[25]);
}

fn end_of_shard_drops_its_tasks(driver: Driver) {
    let (sender, receiver) = channel::bounded::<u32>(1);
    let (full, _kept) = channel::bounded::<u32>(1);
    full.try_send(0).unwrap();
    on_shard(driver, move || async move {
        let held = sender.clone();
        spawn(async move {
            std::future::pending::<()>().await;
            drop(held);
        });
        let held = sender.clone();
        spawn(async move {
            let _ = full.send(1).await;
            drop(held);
        });
        let held = sender.clone();
        spawn(async move {
            sleep(Duration::from_secs(3600)).await;
            drop(held);
        });
        sleep(Duration::from_millis(10)).await;
        drop(sender);
    });
    let control = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let end = control.block_on(async { tokio::time::timeout(Duration::from_secs(5), receiver.recv()).await });
    assert_eq!(end.expect("every sender is gone"), None);
}

fn with_tokio_both_ways(driver: Driver) {
    let (to_shard, at_shard) = channel::bounded::<u32>(4);
    let (to_control, at_control) = channel::bounded::<u32>(4);
    let shard = start_shard(driver, move || async move {
        while let Some(value) = at_shard.recv().await {
            to_control.send(value * 2).await.unwrap();
        }
    });
    let control = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let sum = control.block_on(async move {
        let feeder = async move {
            for value in 0..500 {
                to_shard.send(value).await.unwrap();
                if value % 100 == 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        };
        let reader = async move {
            let mut sum = 0;
            while let Some(value) = at_control.recv().await {
                sum += value;
            }
            sum
        };
        agentlane_runtime::join_all([
            Box::pin(async move {
                feeder.await;
                0u32
            }) as std::pin::Pin<Box<dyn Future<Output = u32>>>,
            Box::pin(reader),
        ])
        .await
        .into_iter()
        .sum::<u32>()
    });
    shard.end();
    assert_eq!(sum, (0..500u32).map(|value| value * 2).sum());
}

fn value_is_received_or_given_back_never_both(driver: Driver) {
    let (sender, receiver) = channel::bounded::<u32>(1);
    let slow = std::thread::spawn(move || {
        let mut got = Vec::new();
        while !receiver_is_done(&receiver, &mut got) {
            std::thread::sleep(Duration::from_millis(3));
        }
        got
    });
    let given_back = on_shard(driver, || async move {
        let mut given_back = Vec::new();
        for value in 0..100 {
            // The deadline falls into the receiver's rhythm: some are in time, some are not.
            match sender.send_until(value, Instant::now() + Duration::from_micros(u64::from(value) * 50)).await {
                Ok(()) => {}
                Err(SendError::TimedOut(value)) => given_back.push(value),
                Err(SendError::Closed(_)) => panic!("closed"),
            }
        }
        sender.send(u32::MAX).await.unwrap();
        given_back
    });
    let mut all = slow.join().unwrap();
    all.extend(given_back);
    all.sort_unstable();
    assert_eq!(all, (0..100).collect::<Vec<_>>());
}

fn receiver_is_done(receiver: &channel::Receiver<u32>, got: &mut Vec<u32>) -> bool {
    match receiver.try_recv() {
        Some(u32::MAX) => true,
        Some(value) => {
            got.push(value);
            false
        }
        None => false,
    }
}

fn dropped_recv_loses_nothing(driver: Driver) {
    let (sender, receiver) = channel::bounded::<u32>(4);
    let feeder = std::thread::spawn(move || {
        for value in 0..300 {
            while sender.try_send(value).is_err() {
                std::thread::yield_now();
            }
            if value % 20 == 0 {
                std::thread::sleep(Duration::from_millis(12));
            }
        }
    });
    on_shard(driver, || async move {
        let mut expected = 0;
        while expected < 300 {
            if let Ok(value) = timeout(Duration::from_millis(1), receiver.recv()).await {
                assert_eq!(value, Some(expected));
                expected += 1;
            }
        }
    });
    feeder.join().unwrap();
}

fn local_channel(driver: Driver) {
    on_shard(driver, || async {
        let (sender, mut receiver) = local::bounded(2);
        let other = sender.clone();
        spawn(async move {
            for value in 0..100 {
                other.send(Rc::new(value)).await.unwrap();
            }
        });
        for value in 0..100 {
            assert_eq!(receiver.recv().await.as_deref(), Some(&value));
            assert!(receiver.depth() <= 2);
        }
        sender.try_send(Rc::new(1)).unwrap();
        sender.try_send(Rc::new(2)).unwrap();
        assert_eq!(sender.try_send(Rc::new(3)), Err(local::TrySendError::Full(Rc::new(3))));
        assert_eq!(sender.depth(), 2);
        assert_eq!(receiver.try_recv().as_deref(), Some(&1));
        let waiting = sender.clone();
        let (done, ended) = oneshot::channel();
        spawn(async move {
            waiting.send(Rc::new(4)).await.unwrap();
            let refused = waiting.send(Rc::new(5)).await;
            let _ = done.send(refused);
        });
        sleep(Duration::from_millis(10)).await;
        drop(receiver);
        assert_eq!(ended.await, Some(Err(Rc::new(5))));
        assert!(sender.is_closed());
        let (sender, mut receiver) = local::bounded::<u8>(1);
        spawn(async move { drop(sender) });
        assert_eq!(receiver.recv().await, None);
    });
}

fn local_oneshot(driver: Driver) {
    on_shard(driver, || async {
        let (sender, receiver) = oneshot::channel();
        spawn(async move {
            sleep(Duration::from_millis(10)).await;
            sender.send(5).unwrap();
        });
        assert_eq!(receiver.await, Some(5));
        let (sender, receiver) = oneshot::channel::<u8>();
        spawn(async move { drop(sender) });
        assert_eq!(receiver.await, None);
        let (mut sender, mut receiver) = oneshot::channel::<u8>();
        assert!(timeout(Duration::from_millis(5), &mut receiver).await.is_err());
        assert!(timeout(Duration::from_millis(5), sender.closed()).await.is_err());
        drop(receiver);
        sender.closed().await;
        assert!(sender.is_closed());
        assert_eq!(sender.send(1), Err(1));
    });
}

fn local_notify_and_event(driver: Driver) {
    on_shard(driver, || async {
        let notify = Notify::new();
        notify.notify_one();
        notify.notify_one();
        notify.notified().await;
        assert!(timeout(Duration::from_millis(5), notify.notified()).await.is_err(), "kept once");
        let count = Rc::new(std::cell::Cell::new(0));
        for _ in 0..5 {
            let (notify, count) = (notify.clone(), count.clone());
            spawn(async move {
                notify.notified().await;
                count.set(count.get() + 1);
            });
        }
        sleep(Duration::from_millis(10)).await;
        notify.notify_one();
        sleep(Duration::from_millis(10)).await;
        assert_eq!(count.get(), 1);
        notify.notify_all();
        sleep(Duration::from_millis(10)).await;
        assert_eq!(count.get(), 5);
        let event = Event::new();
        let setter = event.clone();
        spawn(async move {
            sleep(Duration::from_millis(10)).await;
            setter.set();
        });
        assert!(!event.is_set());
        event.wait().await;
        event.wait().await;
        assert!(event.is_set());
    });
}
