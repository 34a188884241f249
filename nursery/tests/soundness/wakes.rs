//! Wake-ups from other threads, racing with the end of the nursery that they are for; and wakers of combinators in between.
#![allow(clippy::waker_clone_wake, clippy::useless_vec)]

use super::support::*;
use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
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

/// Each poll brings another waker, of an executor that is woken through the last one only, while a thread completes the wait.
#[test]
fn a_wait_whose_waker_changes_races_with_who_completes_it() {
    struct Bell(thread::Thread, AtomicBool);
    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.1.store(true, SeqCst);
            self.0.unpark();
        }
    }
    let _watchdog = Watchdog::new();
    run(async {
        for round in 0..if cfg!(miri) { 20 } else { 2_000 } {
            let (tx, rx) = channel::<u8>(0);
            let sender = thread::spawn(move || {
                while tx.try_send(7).is_err() {
                    thread::yield_now();
                }
            });
            let (mut wait, mut polls) = (Box::pin(rx.recv()), 0);
            let received = loop {
                let bell = Arc::new(Bell(thread::current(), AtomicBool::new(false)));
                if let Poll::Ready(received) = once_with(wait.as_mut(), &Waker::from(bell.clone())) {
                    break received;
                }
                polls += 1;
                // From the last of a few polls on only where it is woken.
                while polls > round % 5 && !bell.1.load(SeqCst) {
                    thread::park();
                }
            };
            assert_eq!(received, Ok(Some(7)));
            sender.join().unwrap();
            // For the next turn's budget.
            checkpoint().await.unwrap();
        }
    });
}
