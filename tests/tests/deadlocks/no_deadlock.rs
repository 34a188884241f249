//! What looks like a deadlock and is none: it ends by itself, was passed on, or others end it.

use super::{begin, partial};
use futures::future::{Either, join_all, select};
use futures::stream::{FuturesUnordered, StreamExt, iter};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use trefoil::sync::{Mutex, Semaphore};
use trefoil::{
    Cancelled, Detection, Event, channel, checkpoint, local_nursery, move_on_after, nursery, sleep, wake_sources,
};
use trefoil_runtime::Options;
use trefoil_tests::{Ended, Log, ms, run, run_real, run_virtual};

/// Threads that have something of the run: in a process with other threads nothing is ended unless the program has said that it may be.
#[test]
fn n10_what_a_thread_wakes_is_no_deadlock() {
    let proven = Options { deadlock: Detection::Proven, ..Options::default() };
    for kind in 0..4 {
        trefoil_tests::run(proven, async || {
            let event = Arc::new(Event::new());
            let (sender, receiver) = channel(1);
            let lock = Arc::new(Mutex::new(()));
            let held = lock.clone();
            let (remote, (locked, is_locked)) = (event.clone(), std::sync::mpsc::channel());
            let mut foreign = None;
            let waker = std::future::poll_fn(|cx| std::task::Poll::Ready(cx.waker().clone())).await;
            let woken = Arc::new(std::sync::atomic::AtomicBool::new(false));
            let wake = woken.clone();
            let thread = std::thread::spawn(move || {
                let guard = (kind == 2).then(|| held.try_lock().unwrap());
                locked.send(()).unwrap();
                // Longer than it takes to suspect.
                std::thread::sleep(ms(30));
                match kind {
                    0 => remote.set(),
                    1 => sender.try_send(()).unwrap(),
                    2 => drop(guard),
                    _ => {
                        wake.store(true, SeqCst);
                        waker.wake();
                    }
                }
            });
            is_locked.recv().unwrap();
            match kind {
                0 => event.wait().await.unwrap(),
                1 => drop(receiver.recv().await.unwrap()),
                2 => drop(lock.lock().await.unwrap()),
                _ => {
                    std::future::poll_fn(|_| {
                        if woken.load(SeqCst) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
                    })
                    .await;
                    foreign = Some(());
                }
            }
            assert_eq!(foreign.is_some(), kind == 3);
            thread.join().unwrap();
        });
    }
}

/// Why it is none.
#[test]
fn n10_what_can_still_come_is_listed() {
    run_real(async || {
        let handle = trefoil::run_handle();
        let ((end, ended), (tell, told)) = (std::sync::mpsc::channel::<()>(), std::sync::mpsc::channel());
        let thread = std::thread::Builder::new().name("clover".into()).spawn(move || {
            tell.send(()).unwrap();
            ended.recv().unwrap_err();
        });
        told.recv().unwrap();
        let sources = nursery(async |n| -> Result<_, Cancelled> {
            n.spawn(sleep(ms(1)));
            checkpoint().await?;
            Ok(wake_sources())
        });
        let sources = sources.await.unwrap();
        assert_eq!((sources.timers, sources.in_flight, sources.handles), (1, 0, 1));
        assert!(sources.threads.as_ref().unwrap().iter().any(|name| name == "clover"), "{sources:?}");
        assert!(sources.to_string().starts_with("1 timer, 1 run handle, "), "{sources}");
        drop((handle, end));
        thread.unwrap().join().unwrap();
    });
}

/// Everything here ends well.
#[test]
fn n10_what_ends_by_itself_is_no_cycle() {
    run_virtual(async || {
        let (left, right, two) = (Mutex::new(()), Mutex::new(()), Semaphore::new(2));
        nursery(async |n| -> Ended {
            // A wait with a deadline.
            n.spawn(async {
                let _left = left.lock().await?;
                sleep(ms(1)).await?;
                assert!(move_on_after(ms(10), right.lock()).await?.is_none());
                Ok(())
            });
            n.spawn(async {
                let _right = right.lock().await?;
                sleep(ms(1)).await?;
                left.lock().await.map(drop)
            });
            // Permits that were passed on to children.
            n.spawn(async {
                nursery(async |inner| -> Ended {
                    for _ in 0..10 {
                        let permit = two.acquire(1).await?;
                        inner.spawn(async move {
                            sleep(ms(3)).await?;
                            drop(permit);
                            Ok(())
                        });
                    }
                    Ok(())
                })
                .await
                .map_err(|_| Cancelled::delivered())
            });
            Ok(())
        })
        .await
        .unwrap();

        // Two branches of one task, in which the one that holds goes on.
        let lock = Mutex::new(());
        let hold = async {
            let _guard = lock.lock().await?;
            sleep(ms(5)).await
        };
        let wait = async { lock.lock().await.map(drop) };
        let (held, waited) = futures::join!(hold, wait);
        held.and(waited).unwrap();

        // Three permits, of which one that is missing is held by who goes on.
        let three = Semaphore::new(3);
        nursery(async |n| -> Ended {
            n.spawn(async {
                let _permit = three.acquire(1).await?;
                sleep(ms(5)).await
            });
            for _ in 0..1 {
                n.spawn(async {
                    let _permit = three.acquire(1).await?;
                    checkpoint().await?;
                    three.acquire(2).await.map(drop)
                });
            }
            Ok(())
        })
        .await
        .unwrap();
    });
    // A thread that adds permits, to a semaphore that is used so.
    run_real(async || {
        let permits = Arc::new(Semaphore::new(0));
        permits.add(1);
        let more = permits.clone();
        let one = permits.acquire(1).await.unwrap();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(ms(5));
            more.add(1);
        });
        drop(permits.acquire(1).await.unwrap());
        drop(one);
        thread.join().unwrap();
    });
}

/// So does who waits for what a child, or the body of a nursery, was given: a guard, or a future that waits for one (`kind`). Not a warning comes.
#[test]
fn n10_what_was_passed_on_is_no_cycle() {
    for kind in 0..4 {
        run(partial(), async || {
            let (log, lock) = (Log::default(), Mutex::new(()));
            let late = || sleep(Duration::from_secs(100));
            let ended = nursery(async |n| -> Ended {
                let lock = &lock;
                n.spawn(async {
                    let guard = lock.lock().await?;
                    sleep(ms(1)).await?;
                    // It goes to who has waited longest, also where that is not polled.
                    drop(guard);
                    late().await
                });
                n.spawn(async move {
                    let mut waits = None;
                    let mut guard = None;
                    if kind < 2 {
                        let mut future = Box::pin(lock.lock());
                        begin(future.as_mut()).await;
                        waits = Some(future);
                    } else {
                        guard = Some(lock.lock().await?);
                    }
                    let give_back = async move {
                        late().await?;
                        drop(guard);
                        if let Some(waits) = waits {
                            drop(waits.await?);
                        }
                        Ok(())
                    };
                    match kind {
                        0 => {
                            n.spawn(give_back);
                            lock.lock().await.map(drop)
                        }
                        1 | 2 => nursery(async |inner| -> Ended {
                            inner.spawn(give_back);
                            lock.lock().await.map(drop)
                        })
                        .await
                        .map_err(|_| Cancelled::delivered()),
                        _ => nursery(async move |inner| -> Ended {
                            inner.spawn(async { lock.lock().await.map(drop) });
                            give_back.await
                        })
                        .await
                        .map_err(|_| Cancelled::delivered()),
                    }
                });
                Ok(())
            });
            ended.await.unwrap();
            assert_eq!(*log.lines(), [""; 0], "kind {kind}");
        });
    }
}

/// Combinators of others poll what they have when they like: also a future that was handed a lock meanwhile.
#[test]
fn n10_combinators_over_locks_are_no_cycle() {
    run(partial(), async || {
        let (log, lock, other) = (Log::default(), Mutex::new(()), Mutex::new(()));
        let (tx, rx) = channel::<u32>(4);
        let (lock, other) = (&lock, &other);
        let slow = async |time| -> Ended {
            let _guard = other.lock().await?;
            sleep(time).await
        };
        let quick = async || -> Ended {
            let _guard = lock.lock().await?;
            sleep(ms(10)).await
        };
        nursery(async |n| -> Ended {
            n.spawn(async move {
                for number in 0..20 {
                    if tx.send(number).await.is_err() {
                        break;
                    }
                    sleep(Duration::from_secs(20)).await?;
                }
                Ok(())
            });
            for _ in 0..3 {
                n.spawn(async move {
                    for _ in 0..10 {
                        quick().await?;
                        slow(ms(3000)).await?;
                    }
                    Ok(())
                });
            }
            // `select!` in a loop, over a future that is kept.
            n.spawn(async move {
                for _ in 0..5 {
                    let mut wanted = pin!(lock.lock());
                    while let Either::Right((received, _)) = select(&mut wanted, pin!(rx.recv())).await {
                        if received.is_err() {
                            return Ok(());
                        }
                        slow(ms(2000)).await?;
                    }
                }
                Ok(())
            });
            n.spawn(async move {
                let mut all: FuturesUnordered<_> = (0..10).map(|_| quick()).collect();
                while let Some(ended) = all.next().await {
                    ended.and(slow(ms(1000)).await)?;
                }
                Ok(())
            });
            n.spawn(async move {
                let mut some = iter(0..10).map(|_| quick()).buffer_unordered(4);
                while let Some(ended) = some.next().await {
                    ended.and(slow(ms(1000)).await)?;
                }
                Ok(())
            });
            n.spawn(async move { join_all((0..40).map(|_| quick())).await.into_iter().collect::<Ended>() });
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(*log.lines(), [""; 0]);
    });
}

/// What ends it cannot be seen before, and it is no failure in a test: a guard that was handed over in memory, permits that are added for the first
/// time, a nursery that is cancelled.
#[test]
fn n10_what_is_ended_by_others_is_no_failure() {
    for kind in 0..3 {
        let begin = std::cell::Cell::new(None);
        run(partial(), async || {
            let (left, right, permits) = (Mutex::new(()), Mutex::new(()), Semaphore::new(1));
            let handed = std::cell::RefCell::new(None);
            begin.set(Some(trefoil::now()));
            let ended = local_nursery(async |n| -> Ended {
                n.spawn(async {
                    let guard = left.lock().await?;
                    let _permit = permits.acquire(1).await?;
                    if kind == 0 {
                        *handed.borrow_mut() = Some(guard);
                    } else if kind == 2 {
                        std::mem::forget(guard);
                    }
                    checkpoint().await?;
                    right.lock().await.map(drop)
                });
                n.spawn(async {
                    let _right = right.lock().await?;
                    checkpoint().await?;
                    if kind == 1 { permits.acquire(1).await.map(drop) } else { left.lock().await.map(drop) }
                });
                sleep(ms(50_000)).await?;
                match kind {
                    0 => drop(handed.borrow_mut().take()),
                    1 => permits.add(1),
                    _ => n.cancel(),
                }
                Ok(())
            })
            .await;
            ended.unwrap();
            assert_eq!(trefoil::now() - begin.get().unwrap(), ms(50_000), "others have ended it");
        });
    }
}

/// A task whose waits are woken by way of a combinator: what it waits for beside them is not mistaken for one of them.
#[test]
fn n10_a_foreign_future_beside_a_combinator_ends_the_wait() {
    run(partial(), async || {
        let (held, left, right) = (Mutex::new(()), Mutex::new(()), Mutex::new(()));
        let (tell, told) = futures::channel::oneshot::channel();
        nursery(async |n| -> Ended {
            n.spawn(async {
                let _left = left.lock().await?;
                let _right = right.lock().await?;
                sleep(ms(2)).await?;
                held.lock().await.map(drop)
            });
            n.spawn(async {
                let _held = held.lock().await?;
                sleep(ms(1)).await?;
                let mut both: futures::stream::FuturesUnordered<_> = [left.lock(), right.lock()].into_iter().collect();
                futures::future::select(futures::StreamExt::next(&mut both), told).await;
                Ok(())
            });
            sleep(ms(50)).await?;
            tell.send(()).unwrap();
            Ok(())
        })
        .await
        .unwrap();
    });
}
