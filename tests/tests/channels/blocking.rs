//! The blocking operations of plain threads: `send_blocking`, `recv_blocking`, `wait_blocking`, and those with a limit.

use std::collections::BTreeSet;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;
use trefoil_nursery::sync::oneshot;
use trefoil_nursery::{Cancelled, Event, SendError, TimedOut, channel, checkpoint, nursery, sleep};
use trefoil_tests::{ms, panic_of, run_real, run_virtual};

/// Longer than a test may take.
const LONG: Duration = Duration::from_secs(3600);

#[test]
fn a_run_and_a_thread_talk_over_channels() {
    for capacity in [0, 1, 10] {
        run_real(async || {
            let (to_thread, requests) = channel(capacity);
            let (answers, from_thread) = channel(capacity);
            let thread = thread::spawn(move || {
                let mut count = 0;
                while let Some(request) = requests.recv_blocking() {
                    answers.send_blocking(request * 2).unwrap();
                    count += 1;
                }
                count
            });
            for i in 0..100 {
                to_thread.send(i).await.unwrap();
                assert_eq!(from_thread.recv().await, Ok(Some(i * 2)));
            }
            drop(to_thread);
            assert_eq!(from_thread.recv().await, Ok(None));
            assert_eq!(thread.join().unwrap(), 100);
        });
    }
}

/// R92: each item once, and in order from each sender.
#[test]
fn many_threads_and_tasks_send_and_receive_each_item_once() {
    const EACH: usize = 500;
    for capacity in [0, 3] {
        run_real(async || {
            let (sender, receiver) = channel(capacity);
            let seen = Mutex::new(Vec::new());
            let threads: Vec<_> = (0..3)
                .map(|who| {
                    let sender = sender.clone();
                    thread::spawn(move || (0..EACH).try_for_each(|i| sender.send_blocking((who, i))).unwrap())
                })
                .collect();
            let consumers: Vec<_> = (0..2)
                .map(|_| {
                    let receiver = receiver.clone();
                    thread::spawn(move || std::iter::from_fn(|| receiver.recv_blocking()).collect::<Vec<_>>())
                })
                .collect();
            nursery(async |n| -> Result<(), Cancelled> {
                n.spawn(async move {
                    for i in 0..EACH {
                        sender.send((3, i)).await.unwrap();
                    }
                    Ok(())
                });
                n.spawn(async {
                    while let Some(item) = receiver.recv().await? {
                        seen.lock().unwrap().push(item);
                    }
                    Ok(())
                });
                Ok(())
            })
            .await
            .unwrap();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            let mut all = vec![seen.into_inner().unwrap()];
            all.extend(consumers.into_iter().map(|thread| thread.join().unwrap()));
            for of_one in &all {
                for who in 0..4 {
                    assert!(of_one.iter().filter(|(w, _)| *w == who).is_sorted());
                }
            }
            let items: Vec<_> = all.into_iter().flatten().collect();
            assert_eq!(items.len(), 4 * EACH);
            assert_eq!(items.into_iter().collect::<BTreeSet<_>>().len(), 4 * EACH);
        });
    }
}

/// R94: what the run has goes with it.
#[test]
fn a_thread_that_waits_hears_that_the_run_has_ended() {
    let (sender, receiver) = channel::<i32>(1);
    let (one, mut other) = oneshot::<i32>();
    let full = channel(1);
    full.0.try_send(1).unwrap();
    let (full_sender, full_receiver) = full;
    let threads = [
        thread::spawn(move || assert_eq!(receiver.recv_blocking(), None)),
        thread::spawn(move || assert_eq!(other.recv_blocking(), None)),
        thread::spawn(move || assert_eq!(full_sender.send_blocking(2), Err(SendError::Closed(2)))),
    ];
    trefoil_runtime::doc_run(async move {
        sleep(ms(10)).await.unwrap(); // let them wait, as a rule
        let _held = (sender, one, full_receiver);
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// R96, from another thread.
#[test]
fn closing_the_handle_ends_the_wait_through_it() {
    let (sender, receiver) = channel::<i32>(0);
    let (sender, receiver) = (Arc::new(sender), Arc::new(receiver));
    let (closes, waits) = (receiver.clone(), receiver.clone());
    let thread = thread::spawn(move || waits.recv_blocking());
    while sender.statistics().waiting_to_receive == 0 {
        thread::yield_now();
    }
    closes.close();
    assert_eq!(thread.join().unwrap(), None);
    assert_eq!(receiver.recv_blocking(), None);

    let (sender, _receiver) = channel::<i32>(0);
    let sender = Arc::new(sender);
    let waits = sender.clone();
    let thread = thread::spawn(move || waits.send_blocking(5));
    while sender.statistics().waiting_to_send == 0 {
        thread::yield_now();
    }
    sender.close();
    assert_eq!(thread.join().unwrap(), Err(SendError::HandleClosed(5)));
    assert_eq!(sender.send_blocking(6), Err(SendError::HandleClosed(6)));
}

#[test]
fn threads_alone_need_no_run() {
    let (sender, receiver) = channel(0);
    let thread = thread::spawn(move || (0..100).try_for_each(|i| sender.send_blocking(i)).unwrap());
    assert!(std::iter::from_fn(|| receiver.recv_blocking()).eq(0..100));
    thread.join().unwrap();

    let (ready, barrier) = (Event::new(), Barrier::new(4));
    thread::scope(|threads| {
        for _ in 0..3 {
            threads.spawn(|| {
                barrier.wait();
                ready.wait_blocking();
                assert!(ready.is_set());
            });
        }
        barrier.wait();
        ready.set();
    });
    ready.wait_blocking();
}

#[test]
fn a_limit_ends_the_wait_and_loses_nothing() {
    let (sender, receiver) = channel(1);
    assert_eq!(receiver.recv_blocking_timeout(ms(1)), Err(TimedOut::new()));
    assert_eq!(receiver.recv_blocking_timeout(Duration::ZERO), Err(TimedOut::new()));
    sender.try_send(1).unwrap();
    assert_eq!(receiver.recv_blocking_timeout(Duration::ZERO), Ok(Some(1)));
    drop(sender);
    assert_eq!(receiver.recv_blocking_timeout(LONG), Ok(None));

    let event = Event::new();
    assert_eq!(event.wait_blocking_timeout(ms(1)), Err(TimedOut::new()));
    event.set();
    assert_eq!(event.wait_blocking_timeout(Duration::ZERO), Ok(()));

    let (sender, mut receiver) = oneshot();
    assert_eq!(receiver.recv_blocking_timeout(ms(1)), Err(TimedOut::new()));
    sender.send(1).unwrap();
    assert_eq!(receiver.recv_blocking_timeout(Duration::ZERO), Ok(Some(1)));
    assert_eq!((receiver.recv_blocking_timeout(LONG), receiver.recv_blocking()), (Ok(None), None));
}

/// R18, N5: an item that comes together with the end of the limit is received or stays.
#[test]
fn with_short_limits_each_item_still_comes_once() {
    const ALL: usize = 2_000;
    let (sender, receiver) = channel(0);
    let thread = thread::spawn(move || (0..ALL).try_for_each(|i| sender.send_blocking(i)).unwrap());
    let mut next = 0;
    loop {
        match receiver.recv_blocking_timeout(Duration::from_micros(next as u64 % 20)) {
            Ok(Some(item)) => {
                assert_eq!(item, next);
                next += 1;
            }
            Ok(None) => break,
            Err(TimedOut { .. }) => {}
        }
    }
    assert_eq!(next, ALL);
    thread.join().unwrap();
}

#[test]
fn inside_of_a_run_it_is_an_error_that_says_what_to_await() {
    let panics = Mutex::new(Vec::new());
    run_virtual(async || {
        // Also where it would not have to wait: what works now and blocks tomorrow is worse.
        let (sender, receiver) = channel(1);
        let (one, mut other) = oneshot();
        let event = Event::new();
        event.set();
        sender.try_send(1).unwrap();
        one.send(1).unwrap();
        *panics.lock().unwrap() = vec![
            (panic_of(|| _ = sender.send_blocking(2)), "`Sender::send_blocking`", "await `Sender::send`"),
            (panic_of(|| _ = receiver.recv_blocking()), "`Receiver::recv_blocking`", "await `Receiver::recv`"),
            (
                panic_of(|| _ = receiver.recv_blocking_timeout(LONG)),
                "`Receiver::recv_blocking_timeout`",
                "await `Receiver::recv`",
            ),
            (panic_of(|| event.wait_blocking()), "`Event::wait_blocking`", "await `Event::wait`"),
            (
                panic_of(|| _ = event.wait_blocking_timeout(LONG)),
                "`Event::wait_blocking_timeout`",
                "await `Event::wait`",
            ),
            (
                panic_of(|| _ = other.recv_blocking()),
                "`OneshotReceiver::recv_blocking`",
                "await `OneshotReceiver::recv`",
            ),
            (
                panic_of(|| _ = other.recv_blocking_timeout(LONG)),
                "`OneshotReceiver::recv_blocking_timeout`",
                "await `OneshotReceiver::recv`",
            ),
        ];
        // Nothing was done.
        assert_eq!((receiver.recv().await, other.recv().await), (Ok(Some(1)), Ok(Some(1))));
        checkpoint().await.unwrap();
    });
    for (message, called, awaited) in panics.into_inner().unwrap() {
        assert!(message.contains(called) && message.contains(awaited), "{message}");
    }
}
