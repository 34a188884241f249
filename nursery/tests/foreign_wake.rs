//! Wake-ups, cancels and spawns from other threads, racing with the end of the nursery that they are for.
#![allow(clippy::waker_clone_wake, clippy::useless_vec)]

mod support;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use support::*;
use trefoil_nursery::*;

/// Threads that wake what they are sent.
fn wakers(threads: usize, by_ref: bool) -> (Vec<mpsc::Sender<Waker>>, Vec<thread::JoinHandle<()>>) {
    (0..threads)
        .map(|_| {
            let (tx, rx) = mpsc::channel::<Waker>();
            let thread = thread::spawn(move || {
                for waker in rx {
                    if by_ref {
                        waker.wake_by_ref();
                        drop(waker.clone());
                    } else {
                        waker.wake();
                    }
                }
            });
            (tx, thread)
        })
        .unzip()
}

/// Sends its waker to every thread at the first poll, and is ready after `polls`.
fn woken_by<'a>(
    threads: &'a [mpsc::Sender<Waker>],
    mut polls: usize,
) -> impl Future<Output = ()> + std::marker::Send + 'a {
    poll_fn(move |cx| {
        for thread in threads {
            thread.send(cx.waker().clone()).unwrap();
        }
        if polls == 0 {
            return Poll::Ready(());
        }
        polls -= 1;
        Poll::Pending
    })
}

fn races(by_ref: bool, f: impl AsyncFn(&[mpsc::Sender<Waker>], usize)) {
    let _watchdog = Watchdog::new();
    let (senders, threads) = wakers(2, by_ref);
    run(async {
        for round in 0..ROUNDS {
            f(&senders, round).await;
        }
    });
    drop(senders);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Keeps the owner of a nursery polling it, so that it finds what others have pushed at any moment.
async fn busy<F: Future>(future: F) -> F::Output {
    let mut future = Box::pin(future);
    poll_fn(|cx| {
        cx.waker().wake_by_ref();
        if cfg!(miri) {
            thread::yield_now();
        }
        future.as_mut().poll(cx)
    })
    .await
}

async fn ends(senders: &[mpsc::Sender<Waker>], round: usize) {
    let drops = Drops::new();
    let data = vec![1];
    busy(nursery(async |n| -> Result<(), Cancelled> {
        for polls in 0..3 {
            let probe = drops.probe();
            let (data, at) = (&data, (round + polls) % 3);
            n.spawn(async move {
                probe.touch();
                woken_by(senders, at).await;
                assert_eq!(data[0], 1);
                Ok(())
            });
        }
        woken_by(senders, round % 3).await;
        Ok(())
    }))
    .await
    .unwrap();
    drops.assert_all();
}

async fn is_dropped(senders: &[mpsc::Sender<Waker>], round: usize) {
    let drops = Drops::new();
    let open = nursery(async |n| -> Result<(), Cancelled> {
        for _ in 0..3 {
            let probe = drops.probe();
            n.spawn(async move {
                probe.touch();
                woken_by(senders, usize::MAX).await;
                Ok(())
            });
        }
        woken_by(senders, usize::MAX).await;
        Ok(())
    });
    drop(polls(Box::pin(open), 1 + round % 4).await);
    drops.assert_all();
}

/// The waker is the last thing that points to the child, and is used up by `wake`: what the wake still has to touch must not go.
#[test]
fn a_wake_is_the_last_that_its_nursery_sees() {
    let _watchdog = Watchdog::new();
    let (senders, threads) = wakers(1, false);
    run(async {
        for _ in 0..ROUNDS * 8 {
            let mut sent = false;
            let sender = &senders[0];
            busy(nursery(async |n| -> Result<(), Cancelled> {
                n.spawn(poll_fn(move |cx| {
                    if sent {
                        return Poll::Ready(Ok(()));
                    }
                    sent = true;
                    sender.send(cx.waker().clone()).unwrap();
                    Poll::Pending
                }));
                Ok(())
            }))
            .await
            .unwrap();
        }
    });
    drop(senders);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn wakes_race_with_the_end_of_a_nursery() {
    races(false, ends);
}

#[test]
fn wakes_by_reference_race_with_the_end_of_a_nursery() {
    races(true, ends);
}

#[test]
fn wakes_race_with_the_drop_of_a_nursery() {
    races(false, is_dropped);
}

#[test]
fn wakes_by_reference_race_with_the_drop_of_a_nursery() {
    races(true, is_dropped);
}

#[test]
fn wakes_race_with_the_end_of_a_run() {
    let _watchdog = Watchdog::new();
    let (senders, threads) = wakers(2, false);
    for round in 0..ROUNDS {
        run(async {
            busy(woken_by(&senders, round % 4)).await;
        });
    }
    drop(senders);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn wakes_race_with_nested_nurseries() {
    races(false, async |senders, round| {
        let ended = nursery(async |outer| -> Result<(), Cancelled> {
            outer.spawn(async move {
                nursery(async |inner| -> Result<(), Cancelled> {
                    inner.spawn(async move {
                        woken_by(senders, 1).await;
                        Ok(())
                    });
                    woken_by(senders, 1).await;
                    Ok(())
                })
                .await
                .map_err(Cancelled::from)
            });
            if round % 2 == 0 {
                outer.cancel();
            }
            Ok(())
        })
        .await;
        assert!(ended.is_ok(), "{ended:?}");
    });
}

/// A waker that outlives everything, and runs then.
#[test]
fn wakers_outlive_their_nursery_and_run() {
    let slots: Vec<Mutex<Option<Waker>>> = (0..4).map(|_| Mutex::new(None)).collect();
    let half = run(async {
        let data = vec![1];
        let open = nursery(async |n| -> Result<(), Cancelled> {
            n.spawn(async {
                assert_eq!(data[0], 1);
                pend(&slots[0]).await;
                Ok(())
            });
            n.spawn(async {
                let _ = nursery(async |inner| -> Result<(), Cancelled> {
                    inner.spawn(async {
                        pend(&slots[1]).await;
                        Ok(())
                    });
                    pend(&slots[2]).await;
                    Ok(())
                })
                .await;
                Ok(())
            });
            pend(&slots[3]).await;
            Ok(())
        });
        polls(Box::pin(open), 3).await.is_err()
    });
    assert!(half);
    let wakers: Vec<Waker> = slots.into_iter().map(|slot| slot.into_inner().unwrap().expect("it was polled")).collect();
    // In a run, outside, and from other threads.
    run(async {
        for waker in &wakers {
            waker.wake_by_ref();
            waker.clone().wake();
            let mut cx = Context::from_waker(waker);
            // As the waker of something else.
            assert!(Box::pin(sleep(HOUR)).as_mut().poll(&mut cx).is_pending());
        }
        checkpoint().await.unwrap();
    });
    thread::scope(|s| {
        for waker in &wakers {
            s.spawn(|| waker.clone().wake());
        }
    });
    let threads: Vec<_> = wakers.into_iter().map(|waker| thread::spawn(move || waker.wake())).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// The last waker of a child goes on another thread, after the child, the nursery and the run.
#[test]
fn the_last_waker_goes_elsewhere() {
    let (tx, rx) = mpsc::channel::<Waker>();
    let thread = thread::spawn(move || rx.into_iter().for_each(drop));
    for _ in 0..ROUNDS {
        run(nursery(async |n| -> Result<(), Cancelled> {
            for _ in 0..3 {
                n.spawn(async {
                    poll_fn(|cx| {
                        tx.send(cx.waker().clone()).unwrap();
                        Poll::Ready(())
                    })
                    .await;
                    Ok(())
                });
            }
            Ok(())
        }))
        .unwrap();
    }
    drop(tx);
    thread.join().unwrap();
}

/// A forgotten nursery is inert: what wakes it, or what it waited for, finds nothing to break.
#[test]
fn forgotten_nurseries_are_woken() {
    let slots: [Mutex<Option<Waker>>; 3] = Default::default();
    let event = Arc::new(Event::new());
    let (tx, rx) = channel::<u32>(0);
    run(async {
        {
            let frame = vec![1, 2, 3];
            let (event, rx) = (event.clone(), rx);
            let mut open = Box::pin(nursery(async |n| -> Result<(), Cancelled> {
                n.spawn::<_, ()>(async {
                    assert_eq!(frame.len(), 3);
                    pend(&slots[0]).await;
                    panic!("polled after it was forgotten: {frame:?}");
                });
                n.spawn::<_, ()>(async {
                    event.wait().await?;
                    panic!("polled after it was forgotten: {frame:?}");
                });
                n.spawn::<_, ()>(async {
                    sleep(MS).await?;
                    panic!("polled after it was forgotten: {frame:?}");
                });
                n.spawn::<_, ()>(async {
                    let _ = rx.recv().await;
                    panic!("polled after it was forgotten: {frame:?}");
                });
                n.spawn::<_, ()>(async {
                    let shielded = shield(async {
                        pend(&slots[1]).await;
                        Ok::<_, Cancelled>(())
                    });
                    let _ = move_on_after(MS, shielded).await;
                    panic!("polled after it was forgotten: {frame:?}");
                });
                pend(&slots[2]).await;
                panic!("polled after it was forgotten: {frame:?}");
            }));
            for _ in 0..3 {
                assert!(once(open.as_mut()).await.is_pending());
                yield_now().await;
            }
            forget(open);
        }
        let wake = || {
            for slot in &slots {
                slot.lock().unwrap().as_ref().unwrap().wake_by_ref();
            }
        };
        wake();
        checkpoint().await.unwrap();
        thread::scope(|s| s.spawn(wake).join().unwrap());
        event.set();
        let _ = tx.try_send(1);
        sleep(MS * 3).await.unwrap();
        drop(tx);
    });
    // The run is gone as well.
    for slot in slots {
        slot.into_inner().unwrap().unwrap().wake();
    }
    run(sleep(MS)).unwrap();
}

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

struct Reentrant(Mutex<Option<Waker>>);
impl Wake for Reentrant {
    fn wake(self: Arc<Self>) {
        let waker = self.0.lock().unwrap().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A combinator's own waker in between, as `FuturesUnordered` has, that is woken after its task is gone.
#[test]
fn wakers_of_a_combinator_in_between() {
    let late = Arc::new(Mutex::new(Vec::new()));
    run(nursery(async |n| -> Result<(), Cancelled> {
        for _ in 0..3 {
            let late = late.clone();
            n.spawn(async move {
                let mut inner = Box::pin(sleep(MS));
                poll_fn(|cx| {
                    let own = Arc::new(Reentrant(Mutex::new(Some(cx.waker().clone()))));
                    late.lock().unwrap().push(own.clone());
                    inner.as_mut().poll(&mut Context::from_waker(&Waker::from(own)))
                })
                .await
            });
        }
        Ok(())
    }))
    .unwrap();
    let late = std::mem::take(&mut *late.lock().unwrap());
    assert!(late.len() >= 6);
    for waker in late {
        waker.wake();
    }
}

/// Threads borrow the waker for the length of a poll: what they do to the count, while the owner's thread clones and drops, is not lost.
#[test]
fn threads_borrow_the_waker_of_a_poll() {
    let _watchdog = Watchdog::new();
    let drops = Drops::new();
    let rounds = if cfg!(miri) { 20 } else { 200_000 };
    run(nursery(async |n| -> Result<(), Cancelled> {
        for by_ref in [false, true] {
            let probe = drops.probe();
            n.spawn(async move {
                let mut first = true;
                poll_fn(|cx| {
                    probe.touch();
                    if !std::mem::take(&mut first) {
                        return Poll::Ready(Ok(()));
                    }
                    let (waker, start) = (cx.waker(), Barrier::new(2));
                    thread::scope(|threads| {
                        threads.spawn(|| {
                            start.wait();
                            for _ in 0..rounds {
                                if by_ref {
                                    waker.wake_by_ref();
                                }
                                drop(waker.clone());
                            }
                        });
                        start.wait();
                        for _ in 0..rounds {
                            drop(waker.clone());
                        }
                    });
                    waker.wake_by_ref();
                    Poll::Pending
                })
                .await
            });
        }
        Ok(())
    }))
    .unwrap();
    drops.assert_all();
}
