//! Cancels, spawns, joins and items from other threads, racing with the end of the nursery.

use super::support::*;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, RwLock, mpsc};
use std::task::Poll;
use std::thread;
use trefoil_nursery::*;

#[test]
fn cancels_from_other_threads_race_with_everything() {
    let _watchdog = Watchdog::new();
    let (tx, rx) = mpsc::channel::<CancelScope>();
    let thread = thread::spawn(move || {
        for scope in rx {
            scope.set_deadline(Some(now()));
            scope.set_shield(true);
            scope.set_shield(false);
            scope.cancel();
            let _ = (scope.cause(), scope.cancelled_caught(), scope.cancel_called());
        }
    });
    run(async {
        for round in 0..ROUNDS {
            let scope = CancelScope::new();
            let (sender, event) = (tx.clone(), Event::new());
            let remote = scope.clone();
            let ended = scope
                .run(async {
                    nursery(async |n| -> Result<(), Cancelled> {
                        n.spawn(sleep_forever());
                        n.spawn(event.wait());
                        n.spawn(async { move_on_after(HOUR, never::<()>()).await.map(drop) });
                        sender.send(remote).unwrap();
                        if round % 2 == 0 {
                            event.set();
                        }
                        if round % 3 == 0 {
                            n.cancel();
                        }
                        Ok(())
                    })
                    .await
                    .map_err(Cancelled::from)
                })
                .await;
            assert!(ended.is_ok(), "{ended:?}");
        }
    });
    drop(tx);
    thread.join().unwrap();
}

#[test]
fn threads_spawn_through_the_handle() {
    let _watchdog = Watchdog::new();
    let drops = Drops::new();
    let (started, rounds) = (AtomicUsize::new(0), if cfg!(miri) { 3 } else { 50 });
    {
        let (drops, started) = (&drops, &started);
        run(async {
            for round in 0..rounds {
                let ended = nursery(async |n| -> Result<usize, Cancelled> {
                    let sum = n.spawn(async move {
                        let joins: Vec<_> = thread::scope(|s| {
                            let threads: Vec<_> = (0..3)
                                .map(|i| {
                                    s.spawn(move || {
                                        let probe = drops.probe();
                                        let child = n.spawn(async move {
                                            probe.touch();
                                            started.fetch_add(1, SeqCst);
                                            checkpoint().await?;
                                            Ok(i)
                                        });
                                        // Nobody waits for these.
                                        drop(n.spawn(sleep(MS / 100)));
                                        n.spawn(async { Ok(()) });
                                        if i == 2 && round % 3 == 2 {
                                            n.cancel();
                                        }
                                        child
                                    })
                                })
                                .collect();
                            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
                        });
                        let mut sum = 0;
                        for join in joins {
                            sum += join.await?;
                        }
                        Ok(sum)
                    });
                    sum.await
                })
                .or_cancelled()
                .await;
                assert!(matches!(ended, Ok(None | Some(3))), "{ended:?}");
                drops.assert_all();
            }
        });
    }
    assert_eq!(started.into_inner(), 3 * rounds);
}

/// A thread spawns while the nursery goes down around the child that waits for the thread.
#[test]
fn threads_spawn_while_the_nursery_is_dropped() {
    let _watchdog = Watchdog::new();
    let drops = &Drops::new();
    run(async {
        for k in 1..if cfg!(miri) { 3 } else { 200 } {
            let open = nursery(async |n| -> Result<(), Cancelled> {
                n.spawn(async move {
                    // When it is dropped, a thread goes on spawning.
                    let _late = OnDrop(|| {
                        thread::scope(|s| {
                            s.spawn(|| {
                                for _ in 0..3 {
                                    let probe = drops.probe();
                                    let child = n.spawn(async move {
                                        probe.touch();
                                        never::<()>().await
                                    });
                                    assert!(!child.is_done() || child.is_done());
                                }
                                n.cancel();
                            });
                        });
                    });
                    never::<()>().await
                });
                never().await
            });
            drop(polls(Box::pin(open), 1 + k % 2).await);
            drops.assert_all();
        }
    });
}

/// Values and wake-ups of a join handle that is awaited by another thread's run.
#[test]
fn joins_are_awaited_by_another_threads_run() {
    let _watchdog = Watchdog::new();
    let drops = Drops::new();
    for round in 0..ROUNDS / 4 {
        let go = AtomicBool::new(false);
        run(async {
            nursery(async |n| -> Result<(), Cancelled> {
                let child = n.spawn(async {
                    while round % 2 == 0 && !go.load(SeqCst) {
                        checkpoint().await?;
                    }
                    Ok(drops.probe())
                });
                let child = Mutex::new(Some(child));
                let (child, go, drops) = (&child, &go, &drops);
                // The thread outlives no borrow: the child waits for it, without blocking the loop.
                let done = &AtomicBool::new(false);
                thread::scope(|s| {
                    s.spawn(move || {
                        let mut child = child.lock().unwrap().take().unwrap();
                        run(async {
                            assert!(once(Pin::new(&mut child)).await.is_pending());
                            match round % 4 {
                                0 => {}
                                1 => drop(child.try_take()),
                                2 => drop(once(Pin::new(&mut child)).await),
                                _ => drop(child),
                            }
                        });
                        go.store(true, SeqCst);
                        done.store(true, SeqCst);
                    });
                });
                assert!(done.load(SeqCst));
                let _ = drops;
                Ok(())
            })
            .await
            .unwrap();
        });
        drops.assert_all();
    }
}

/// A child finishes while another thread drops, polls or takes from its handle.
#[test]
fn join_handles_race_with_the_end_of_their_child() {
    let _watchdog = Watchdog::new();
    type Handle = Join<'static, Probe>;
    let drops = Drops::new();
    let (tx, rx) = mpsc::channel::<(Handle, Drops)>();
    let thread = thread::spawn(move || {
        run(async {
            for (i, (mut join, _)) in rx.into_iter().enumerate() {
                match i % 4 {
                    0 => drop(join),
                    1 => drop(join.await),
                    2 => {
                        drop(once(Pin::new(&mut join)).await);
                        drop(join)
                    }
                    _ => {
                        while !join.is_done() {
                            thread::yield_now();
                        }
                        let mut moved = Box::new(join);
                        drop(moved.try_take());
                        assert!(moved.try_take().is_none());
                    }
                }
            }
        })
    });
    run(async {
        for _ in 0..ROUNDS {
            nursery(async |n| -> Result<(), Cancelled> {
                let join = n.spawn(async {
                    yield_now().await;
                    Ok(drops.probe())
                });
                // SAFETY: a lie about the lifetime; what the handle reaches is counted, and the value is 'static.
                let join: Handle = unsafe { std::mem::transmute(join) };
                tx.send((join, drops.clone())).unwrap();
                Ok(())
            })
            .await
            .unwrap();
        }
    });
    drop(tx);
    thread.join().unwrap();
    drops.assert_all();
}

/// Items and events that cross threads, with half of the waits given up.
#[test]
fn channels_between_threads_lose_and_double_nothing() {
    let _watchdog = Watchdog::new();
    let drops = Drops::new();
    let rounds = if cfg!(miri) { 12 } else { 1_000 };
    for capacity in [0, 1, 3] {
        let (tx, rx) = channel::<Probe>(capacity);
        let received = AtomicUsize::new(0);
        let given_up = AtomicUsize::new(0);
        thread::scope(|s| {
            for t in 0..2 {
                let (tx, rx) = (tx.clone(), rx.clone());
                let (drops, received, given_up) = (&drops, &received, &given_up);
                s.spawn(move || {
                    run(async {
                        for i in 0..rounds {
                            let mut send = Box::pin(tx.send(drops.probe()));
                            if (i + t) % 3 == 0 {
                                if once(send.as_mut()).await.is_pending() {
                                    given_up.fetch_add(1, SeqCst);
                                }
                            } else if move_on_after(MS, async { send.await.map_err(std::io::Error::from) })
                                .await
                                .is_err()
                            {
                                return;
                            }
                        }
                    })
                });
                s.spawn(move || {
                    run(async {
                        loop {
                            let mut recv = Box::pin(rx.recv());
                            let polled = once(recv.as_mut()).await;
                            let item = match polled {
                                Poll::Ready(item) => item,
                                Poll::Pending if t == 0 => {
                                    yield_now().await;
                                    continue;
                                }
                                Poll::Pending => recv.await,
                            };
                            match item.unwrap() {
                                Some(_) => received.fetch_add(1, SeqCst),
                                None => return,
                            };
                        }
                    })
                });
            }
            drop((tx, rx));
        });
        drops.assert_all();
        assert!(received.into_inner() > 0);
        let _ = given_up;
    }
}

/// Where a sleep keeps its end depends on whether the tree has it, which the loop and other threads change at any moment.
#[test]
fn a_sleep_is_looked_at_by_another_thread_while_it_ends() {
    let _watchdog = Watchdog::new();
    run(async {
        for round in 0..ROUNDS {
            let scope = CancelScope::new();
            let length = if round % 2 == 0 { std::time::Duration::from_millis(1) } else { HOUR };
            let sleep = RwLock::new(Box::pin(sleep(length)));
            let (looked_at, remote, (begun, begins)) = (Arc::new(sleep), scope.clone(), mpsc::channel());
            let sleep = looked_at.clone();
            let thread = thread::spawn(move || {
                begins.recv().unwrap();
                for look in 0..10 {
                    let sleep = looked_at.read().unwrap();
                    let text = format!("{sleep:?}");
                    assert!(text.contains("begun: true") && !text.contains("for ever"), "{text}");
                    if look == 3 && round % 2 == 1 {
                        remote.cancel();
                    }
                }
            });
            let ended = scope
                .run(std::future::poll_fn(|cx| {
                    let polled = sleep.write().unwrap().as_mut().poll(cx);
                    let _ = begun.send(());
                    polled
                }))
                .await;
            assert!(ended.is_ok(), "{ended:?}");
            thread.join().unwrap();
        }
    });
}

/// A deadline that another thread sets is the only one there is, or comes before the one that the loop sleeps for: nothing else ends the round.
#[test]
fn deadlines_from_other_threads_end_the_sleep_of_a_run() {
    let _watchdog = Watchdog::new();
    let (tx, rx) = mpsc::channel::<CancelScope>();
    let thread = thread::spawn(move || {
        for (round, scope) in rx.into_iter().enumerate() {
            // Before the loop sleeps, while it is about to, and when it does.
            (0..round % 50 * 100).for_each(|_| std::hint::spin_loop());
            scope.set_deadline(Some(now() + std::time::Duration::from_micros(round as u64 % 3 * 20)));
        }
    });
    run(async {
        for round in 0..ROUNDS {
            let scope = CancelScope::new();
            tx.send(scope.clone()).unwrap();
            let other = if round % 4 < 2 { HOUR } else { std::time::Duration::MAX };
            let ended = scope.run(sleep(other)).await;
            assert!(ended.is_ok() && scope.cancelled_caught(), "{ended:?}");
        }
    });
    drop(tx);
    thread.join().unwrap();
}
