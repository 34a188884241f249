//! Busy, and getting nowhere.

use std::future::poll_fn;
use std::panic::Location;
use std::sync::mpsc;
use std::task::{Poll, Waker};
use std::thread;
use trefoil::sync::Mutex;
use trefoil::{Limits, channel, local_nursery, nursery, yield_now};
use trefoil_runtime::Options;
use trefoil_tests::{Ended, Log, ms};

/// What a program logs that spins for so many turns, if that is too much after 10,000.
fn logged(main: impl Future<Output = ()>) -> Vec<String> {
    let log = Log::default();
    let limits = Limits { turns: 10_000, time: ms(0) };
    let options = Options { virtual_time: true, livelock: Some(limits), ..Options::default() };
    let driver = std::rc::Rc::new(trefoil_runtime::ThreadDriver::new());
    trefoil_runtime::run(driver, options, Location::caller(), main);
    log.lines().clone()
}

/// Row 41: each gives way to the other, politely, for ever.
#[test]
fn n10_tasks_that_only_wake_each_other_are_a_livelock() {
    let base = line!();
    let turns = std::cell::Cell::new(0);
    let said = logged(async {
        let (left, right) = (Mutex::new(()), Mutex::new(()));
        local_nursery(async |n| -> Ended {
            let both = async |first: &Mutex<()>, second: &Mutex<()>| -> Ended {
                loop {
                    let one = first.try_lock();
                    yield_now().await;
                    // Both have one: neither has two.
                    if (one.is_ok() && second.try_lock().is_ok()) || turns.get() > 100_000 {
                        return Ok(());
                    }
                    turns.set(turns.get() + 1);
                    yield_now().await;
                    drop(one);
                    yield_now().await;
                }
            };
            n.spawn(both(&left, &right)); // base + 19
            n.spawn_named("polite", both(&right, &left)); // base + 20
            Ok(())
        })
        .await
        .unwrap();
    });
    let [report] = &said[..] else { panic!("once: {said:?}") };
    assert!(report.starts_with("livelock: "), "{report}");
    let who = [format!("livelock.rs:{}", base + 19), format!("`polite` (livelock.rs:{})", base + 20)];
    for who in who {
        let line = report.lines().find(|line| line.starts_with(&format!("- task {who} was polled"))).unwrap();
        assert!(line.contains("by itself"), "{report}");
    }
}

/// Who gives up its turn while others are served is none.
#[test]
fn n10_progress_is_no_livelock() {
    let said = logged(async {
        let (sender, receiver) = channel(1);
        nursery(async |n| -> Ended {
            n.spawn(async move {
                for i in 0..50_000 {
                    if sender.send(i).await.is_err() {
                        break;
                    }
                }
                Ok(())
            });
            n.spawn(async move {
                while receiver.recv().await?.is_some() {
                    yield_now().await;
                }
                Ok(())
            });
            Ok(())
        })
        .await
        .unwrap();
        // A computation that gives up its turn for less than that.
        for _ in 0..5_000 {
            yield_now().await;
        }
    });
    assert!(said.is_empty(), "{said:?}");
}

/// Nor is one that sleeps now and then, since somebody else wakes it.
#[test]
fn n10_a_loop_that_sleeps_in_between_is_no_livelock() {
    let said = logged(async {
        let (send, wakers) = mpsc::channel::<Waker>();
        let other = thread::spawn(move || {
            for waker in wakers {
                // The loop is asleep by then.
                thread::sleep(ms(20));
                waker.wake();
            }
        });
        for _ in 0..10 {
            for _ in 0..5_000 {
                yield_now().await;
            }
            // No wait that anybody here knows of, and so no progress.
            let mut asked = false;
            poll_fn(|cx| match std::mem::replace(&mut asked, true) {
                true => Poll::Ready(()),
                false => {
                    send.send(cx.waker().clone()).unwrap();
                    Poll::Pending
                }
            })
            .await;
        }
        drop(send);
        other.join().unwrap();
    });
    assert!(said.is_empty(), "{said:?}");
}
