//! Children of every shape, and ends of every kind, with the polls, wakes and drops counted.
#![allow(clippy::waker_clone_wake, clippy::redundant_async_block)]

mod support;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::marker::PhantomPinned;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Waker};
use support::*;
use trefoil_nursery::*;

// ---- Shapes ----------------------------------------------------------------------------------------------------------

/// `Unpin`, and registers nowhere: woken twice from outside.
struct Thing<const N: usize> {
    left: usize,
    probe: Probe,
    space: [u8; N],
    at: Cell<*const u8>,
}

// SAFETY: the pointer is compared only.
unsafe impl<const N: usize> std::marker::Send for Thing<N> {}

impl<const N: usize> Thing<N> {
    fn new(drops: &Drops) -> Self {
        Self { left: 2, probe: drops.probe(), space: [7; N], at: Cell::new(std::ptr::null()) }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Cancelled>> {
        self.probe.touch();
        let at: *const u8 = self.space.as_ptr();
        if !self.at.get().is_null() {
            assert_eq!(self.at.get(), at, "it was moved between two polls");
        }
        self.at.set(at);
        assert!(self.space.first().is_none_or(|&byte| byte == 7) && self.space.last().is_none_or(|&byte| byte == 7));
        if self.left == 0 {
            return Poll::Ready(Ok(N));
        }
        self.left -= 1;
        cx.waker().wake_by_ref();
        cx.waker().clone().wake();
        Poll::Pending
    }
}

struct UnpinThing<const N: usize>(Thing<N>);
impl<const N: usize> Future for UnpinThing<N> {
    type Output = Result<usize, Cancelled>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx)
    }
}

struct PinnedThing<const N: usize>(Thing<N>, PhantomPinned);
impl<const N: usize> Future for PinnedThing<N> {
    type Output = Result<usize, Cancelled>;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: nothing is moved.
        unsafe { self.get_unchecked_mut() }.0.poll(cx)
    }
}

#[repr(align(128))]
struct Aligned<const N: usize>(Thing<N>);
impl<const N: usize> Future for Aligned<N> {
    type Output = Result<usize, Cancelled>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        assert_eq!((&raw const *self).addr() % 128, 0);
        self.0.poll(cx)
    }
}

/// Of no size, with a destructor.
static ZST_DROPS: AtomicUsize = AtomicUsize::new(0);
static ZST_POLLS: AtomicUsize = AtomicUsize::new(0);
struct Nothing;
impl Future for Nothing {
    type Output = Result<usize, Cancelled>;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if ZST_POLLS.fetch_add(1, SeqCst) % 3 == 2 {
            return Poll::Ready(Ok(0));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
impl Drop for Nothing {
    fn drop(&mut self) {
        ZST_DROPS.fetch_add(1, SeqCst);
    }
}

/// A value that is aligned, large, and counted.
#[repr(align(128))]
#[derive(Debug)]
struct Value(#[allow(dead_code)] Probe, [u64; 1_000]);

const HUGE: usize = 64 * 1024;

#[test]
fn shapes_are_polled_in_place_and_dropped_once() {
    let drops = Drops::new();
    let zst = ZST_DROPS.load(SeqCst);
    for k in 0..8 {
        run(async {
            let open = nursery(async |n| -> Result<usize, Cancelled> {
                let joins = [
                    n.spawn(UnpinThing(Thing::<0>::new(&drops))),
                    n.spawn(UnpinThing(Thing::<1>::new(&drops))),
                    n.spawn(PinnedThing(Thing::<3>::new(&drops), PhantomPinned)),
                    n.spawn(Aligned(Thing::<200>::new(&drops))),
                    n.spawn(PinnedThing(Thing::<HUGE>::new(&drops), PhantomPinned)),
                    n.spawn(UnpinThing(Thing::<HUGE>::new(&drops))),
                    n.spawn(Nothing),
                    n.spawn(std::future::ready(Ok(5))),
                ];
                let value = n.spawn(async {
                    let value = Value(drops.probe(), [3; 1_000]);
                    checkpoint().await?;
                    Ok(value)
                });
                let mut sum = 0;
                for join in joins {
                    sum += join.await?;
                }
                let value = value.await?;
                assert_eq!((&raw const value).addr() % 128, 0);
                assert!(value.1.iter().all(|&x| x == 3));
                Ok(sum)
            });
            match turns(Box::pin(open), k).await {
                Ok(sum) => assert_eq!(sum.unwrap(), 1 + 3 + 200 + 2 * HUGE + 5),
                Err(half) => drop(half),
            }
        });
        drops.assert_all();
        assert_eq!(ZST_DROPS.load(SeqCst) - zst, if k == 0 { 0 } else { k });
    }
}

/// An `Unpin` child that is polled twice and torn down: an exclusive reference to it at each poll may not end what others hold.
#[test]
fn unpin_children_are_polled_and_torn_down() {
    let drops = Drops::new();
    for k in 1..5 {
        run(async {
            let data = vec![1];
            let open = nursery(async |n| -> Result<(), Cancelled> {
                let probe = drops.probe();
                let mut sleeping = Box::pin(sleep(HOUR));
                let data = &data;
                n.spawn(poll_fn(move |cx| {
                    probe.touch();
                    assert_eq!(data[0], 1);
                    cx.waker().wake_by_ref();
                    sleeping.as_mut().poll(cx)
                }));
                let mut scope = move_on_after(HOUR, Box::pin(sleep(HOUR)));
                n.spawn(poll_fn(move |cx| {
                    cx.waker().wake_by_ref();
                    Pin::new(&mut scope).poll(cx)
                }));
                never().await
            });
            drop(turns(Box::pin(open), k).await);
            drops.assert_all();
        });
    }
}

/// Futures of ours that are `Unpin` because their body is, moved between polls.
#[test]
fn unpin_scopes_move_between_turns() {
    run_virtual(async {
        let shared = CancelScope::new();
        let mut scope = move_on_after(HOUR, Box::pin(sleep_forever()));
        let mut outer = Box::pin(async { shared.run(Box::pin(sleep_forever())).await });
        assert!(once(Pin::new(&mut scope)).await.is_pending());
        assert!(once(outer.as_mut()).await.is_pending());
        let mut moved = [Some(scope), None, None];
        for i in [1, 2, 0, 2] {
            let from = moved.iter().position(Option::is_some).unwrap();
            let mut scope = moved[from].take().unwrap();
            assert!(once(Pin::new(&mut scope)).await.is_pending());
            // The tree is walked in between.
            assert!(trefoil_runtime::tree().to_string().contains("scope"));
            sleep(MS).await.unwrap();
            moved[i] = Some(scope);
        }
        let scope = moved.into_iter().flatten().next().unwrap();
        assert_eq!(scope.await.unwrap(), None);
        shared.cancel();
        assert_eq!(outer.await.unwrap(), None);

        let mut shielded = shield(Box::pin(sleep(HOUR)));
        assert!(once(Pin::new(&mut shielded)).await.is_pending());
        let mut shielded = Box::new(shielded);
        assert!(once(Pin::new(&mut *shielded)).await.is_pending());
        sleep(MS).await.unwrap();
        let mut timed = fail_after(MS, Box::pin(async { sleep_forever().await.map_err(std::io::Error::from) }));
        assert!(once(Pin::new(&mut timed)).await.is_pending());
        let timed = vec![timed];
        sleep(MS * 3).await.unwrap();
        for timed in timed {
            assert_eq!(timed.await.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
        }
        shielded.await.unwrap();
    });
}

/// A nursery that is `Unpin`, since its body is, is moved between polls.
#[test]
fn unpin_nurseries_move_between_turns() {
    let drops = Drops::new();
    run_virtual(async {
        let probe = drops.probe();
        let mut open = nursery(eager(|n| {
            n.spawn(async move {
                sleep(MS).await?;
                probe.touch();
                n.spawn(sleep(MS));
                Ok(())
            });
            std::future::ready(Ok(()))
        }));
        for _ in 0..4 {
            assert!(once(Pin::new(&mut open)).await.is_pending());
            let moved = Box::new(open);
            yield_now().await;
            open = *moved;
        }
        open.await.unwrap();
        drops.assert_all();
    });
}

/// A join handle is moved while it waits.
#[test]
fn join_handles_move_while_they_wait() {
    run_virtual(nursery(async |n| -> Result<(), Cancelled> {
        let mut join = n.spawn(async {
            sleep(HOUR).await?;
            Ok(7)
        });
        let mut boxes = Vec::new();
        for _ in 0..3 {
            assert!(once(Pin::new(&mut join)).await.is_pending());
            let moved = Box::new(join);
            assert!(trefoil_runtime::tree().to_string().contains("a child to end"));
            sleep(MS).await?;
            boxes.push(moved);
            join = *boxes.pop().unwrap();
        }
        assert_eq!(join.await?, 7);
        Ok(())
    }))
    .unwrap();
}

// ---- Polls and wakes, counted ----------------------------------------------------------------------------------------

#[test]
fn a_child_is_polled_once_for_any_number_of_wakes() {
    let polled = AtomicUsize::new(0);
    let slot = Mutex::new(None::<Waker>);
    run(nursery(async |n| -> Result<(), Cancelled> {
        n.spawn(poll_fn(|cx| {
            polled.fetch_add(1, SeqCst);
            drop(slot.lock().unwrap().replace(cx.waker().clone()));
            Poll::<Result<(), Cancelled>>::Pending
        }));
        checkpoint().await?;
        checkpoint().await?;
        assert_eq!(polled.load(SeqCst), 1, "spawned: one poll");
        let waker = slot.lock().unwrap().clone().unwrap();
        for _ in 0..10 {
            waker.wake_by_ref();
            waker.clone().wake();
        }
        checkpoint().await?;
        checkpoint().await?;
        checkpoint().await?;
        assert_eq!(polled.load(SeqCst), 2, "woken twenty times in a turn: one poll more");
        n.cancel();
        Ok(())
    }))
    .unwrap();
    assert_eq!(polled.load(SeqCst), 3, "cancelled: polled once to be told, then dropped");
}

#[test]
fn a_nursery_polled_by_a_foreign_executor_wakes_it() {
    run(async {
        let count = Count::new();
        let waker = Waker::from(count.clone());
        let slot = Mutex::new(None);
        let mut open = Box::pin(nursery(async |n| -> Result<(), Cancelled> {
            n.spawn(async {
                pend(&slot).await;
                Ok(())
            });
            Ok(())
        }));
        assert!(once_with(open.as_mut(), &waker).is_pending());
        let before = count.get();
        assert!(before > 0, "there is a child to be polled");
        assert!(once_with(open.as_mut(), &waker).is_pending());
        let before = count.get();
        slot.lock().unwrap().as_ref().unwrap().wake_by_ref();
        slot.lock().unwrap().as_ref().unwrap().wake_by_ref();
        assert_eq!(count.get(), before + 1);
        // Another waker from now on.
        let other = Count::new();
        assert!(once_with(open.as_mut(), &Waker::from(other.clone())).is_pending());
        slot.lock().unwrap().as_ref().unwrap().wake_by_ref();
        assert_eq!((count.get(), other.get()), (before + 1, 1));
    });
}

// ---- Outside of a run ------------------------------------------------------------------------------------------------

fn block_on<F: Future>(future: F) -> Poll<F::Output> {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..10 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return Poll::Ready(output);
        }
    }
    Poll::Pending
}

#[test]
fn outside_of_a_run_everything_panics_clearly() {
    let event = Event::new();
    let (tx, rx) = channel::<u8>(0);
    let texts = [
        panic_of(|| block_on(sleep(MS))),
        panic_of(|| block_on(sleep_forever())),
        panic_of(|| block_on(event.wait())),
        panic_of(|| block_on(tx.send(1))),
        panic_of(|| block_on(rx.recv())),
        panic_of(|| block_on(move_on_after(MS, std::future::ready(Ok::<_, Cancelled>(1))))),
        panic_of(|| block_on(CancelScope::new().run(std::future::ready(Ok::<_, Cancelled>(1))))),
        panic_of(|| block_on(shield(std::future::ready(1)))),
        panic_of(|| block_on(nursery(async |_| Ok::<_, Cancelled>(1)))),
        panic_of(|| block_on(local_nursery(async |_| Ok::<_, Cancelled>(1)))),
        panic_of(|| block_on(checkpoint())),
        panic_of(|| block_on(checkpoint_if_cancelled())),
        panic_of(effective_deadline),
        panic_of(cancel_cause),
        panic_of(trefoil_runtime::tree),
    ];
    for text in texts {
        assert!(text.contains("outside of a run"), "{text}");
    }
}

/// What had begun to wait in a run says so as well, and is not pending for ever.
#[test]
fn outside_of_a_run_what_was_begun_inside_panics_clearly() {
    let event = Event::new();
    let (tx, rx) = channel::<u8>(0);
    let half: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = vec![
        Box::pin(async {
            let _ = sleep(HOUR).await;
        }),
        Box::pin(async {
            let _ = event.wait().await;
        }),
        Box::pin(async {
            let _ = tx.send(1).await;
        }),
        Box::pin(async {
            let _ = rx.recv().await;
        }),
        Box::pin(async {
            let _ = move_on_after(HOUR, sleep(HOUR)).await;
        }),
        Box::pin(async {
            let _ = shield(sleep(HOUR)).await;
        }),
        Box::pin(async {
            let _ = nursery(async |n| -> Result<(), Cancelled> { n.spawn(sleep(HOUR)).await }).await;
        }),
    ];
    for half in half {
        let half = run(turns(half, 2)).err().unwrap_or_else(|| panic!("it was to wait"));
        let text = panic_of(|| block_on(half));
        assert!(text.contains("outside of a run"), "{text}");
    }
}

#[test]
fn handles_work_outside_of_a_run() {
    let scope = CancelScope::new();
    scope.set_deadline(Some(now() + HOUR));
    scope.set_shield(true);
    assert!(!scope.cancel_called());
    let ended = run(scope.run(async {
        scope.cancel();
        checkpoint().await
    }));
    assert_eq!(ended, Ok(None));
    scope.set_deadline(None);
    scope.set_shield(false);
    scope.cancel();
    assert!(scope.cancelled_caught() && scope.cause().is_some());
    let again = panic_of(|| run(scope.run(checkpoint())));
    assert!(again.contains("entered twice"), "{again}");
    let event = Event::new();
    event.set();
    run(event.wait()).unwrap();
    let (tx, rx) = channel(1);
    tx.try_send(1).unwrap();
    assert_eq!(rx.try_recv(), Ok(1));
}

#[test]
fn a_run_inside_of_a_run_panics_clearly() {
    let text = panic_of(|| run(async { run(checkpoint()) }));
    assert!(text.contains("inside of a run"), "{text}");
    run(checkpoint()).unwrap();
}

// ---- Spawning from destructors -----------------------------------------------------------------------------------------

/// Spawns when it is dropped, a child that does the same, some times over.
struct Respawn<'s, 'env> {
    n: Nursery<'s, 'env, Cancelled>,
    drops: &'env Drops,
    polled: &'env AtomicUsize,
    left: usize,
    _probe: Probe,
}

impl<'s, 'env> Respawn<'s, 'env> {
    fn new(n: Nursery<'s, 'env, Cancelled>, drops: &'env Drops, polled: &'env AtomicUsize, left: usize) -> Self {
        Self { n, drops, polled, left, _probe: drops.probe() }
    }
}

impl Drop for Respawn<'_, '_> {
    fn drop(&mut self) {
        if self.left > 0 {
            let next = Respawn::new(self.n, self.drops, self.polled, self.left - 1);
            let join = self.n.spawn(async move {
                next.polled.fetch_add(1, SeqCst);
                checkpoint().await?;
                drop(next);
                Ok(())
            });
            let _ = join.is_done();
        }
    }
}

#[test]
fn destructors_spawn_at_every_moment() {
    for k in 0..12 {
        for (body, child, cancel) in [(true, false, false), (false, true, false), (true, true, true)] {
            let (drops, polled) = (&Drops::new(), &AtomicUsize::new(0));
            let ended = run(async {
                let open = nursery(async |n| -> Result<(), Cancelled> {
                    let _body = body.then(|| Respawn::new(n, drops, polled, 3));
                    let probe = child.then(|| Respawn::new(n, drops, polled, 3));
                    n.spawn(async move {
                        let _probe = probe;
                        checkpoint().await?;
                        if cancel {
                            n.cancel();
                        }
                        checkpoint().await
                    });
                    checkpoint().await
                });
                turns(Box::pin(open), k).await.is_ok()
            });
            drops.assert_all();
            if ended && !cancel {
                assert_eq!(polled.load(SeqCst), if body { 3 } else { 0 } + if child { 3 } else { 0 });
            }
        }
    }
}

#[test]
fn destructors_spawn_into_an_outer_nursery() {
    let (drops, polled) = (&Drops::new(), &AtomicUsize::new(0));
    run(nursery(async |outer| -> Result<(), Cancelled> {
        for k in 0..4 {
            let open = nursery(async move |inner| -> Result<(), Cancelled> {
                let guard = Respawn::new(outer, drops, polled, 2);
                inner.spawn(async move {
                    let _guard = guard;
                    never::<()>().await
                });
                never().await
            });
            drop(turns(Box::pin(open), k).await);
        }
        Ok(())
    }))
    .unwrap();
    drops.assert_all();
    assert_eq!(polled.load(SeqCst), 2 * 3);
}

// ---- Values and join handles -----------------------------------------------------------------------------------------

#[test]
fn values_are_dropped_once_whatever_becomes_of_the_handle() {
    for fate in 0..9 {
        for early in [false, true] {
            let drops = Drops::new();
            let mut kept = 0;
            run(async {
                let open = nursery(async |n| -> Result<(), Cancelled> {
                    let mut join = n.spawn(async {
                        yield_now().await;
                        Ok(drops.probe())
                    });
                    if !early {
                        for _ in 0..4 {
                            yield_now().await;
                        }
                        assert!(join.is_done());
                    }
                    match fate {
                        0 => drop(join),
                        1 => drop(join.await?),
                        2 => {
                            let _ = once(Pin::new(&mut join)).await;
                            drop(join);
                        }
                        3 => {
                            let _ = once(Pin::new(&mut join)).await;
                            let taken = join.await;
                            assert_eq!(taken.is_err(), !early);
                        }
                        4 => drop(n.spawn(async move { join.await })),
                        5 => {
                            n.spawn(async move {
                                let _ = once(Pin::new(&mut join)).await;
                                n.spawn(async move {
                                    drop(join.await);
                                    Ok(())
                                });
                                Ok(())
                            });
                        }
                        6 => {
                            while !join.is_done() {
                                checkpoint().await?;
                            }
                            assert!(join.try_take().is_some() && join.try_take().is_none());
                            assert!(join.await.is_err());
                        }
                        7 => {
                            // Waits while the nursery is cancelled.
                            n.cancel();
                            drop(once(Pin::new(&mut join)).await);
                            drop(join.await);
                        }
                        _ => {
                            // As a forgotten one, whose value nobody can reach: it is leaked, not dropped too early.
                            forget(Box::pin(join));
                            kept = 1;
                        }
                    }
                    Ok(())
                });
                open.await.unwrap();
            });
            assert_eq!(drops.count(), drops.made() - kept, "fate {fate}, early {early}");
        }
    }
}

/// The same, where the nursery is dropped before.
#[test]
fn values_are_dropped_once_when_the_nursery_is_dropped() {
    for k in 0..6 {
        let drops = Drops::new();
        run(async {
            let open = nursery(async |n| -> Result<(), Cancelled> {
                let done = n.spawn(async { Ok(drops.probe()) });
                let mut waited_for = n.spawn(async {
                    let _probe = drops.probe();
                    never::<Probe>().await
                });
                let _ = once(Pin::new(&mut waited_for)).await;
                let in_a_sibling = n.spawn(async {
                    yield_now().await;
                    Ok(drops.probe())
                });
                n.spawn(async move {
                    let _ = in_a_sibling.await;
                    drop(waited_for.await);
                    Ok(())
                });
                // A handle as another child's value.
                let nested = n.spawn(async move { Ok(n.spawn(async { Ok(done) })) });
                let never_done = never::<()>().await;
                drop(nested);
                never_done
            });
            drop(turns(Box::pin(open), k).await);
        });
        drops.assert_all();
    }
}

#[test]
fn errors_are_dropped_once() {
    let drops = &Drops::new();
    for k in 0..8 {
        run(async {
            let open = nursery(async |n| -> Result<(), Failure> {
                for i in 0..3 {
                    n.spawn(async move {
                        for _ in 0..i {
                            yield_now().await;
                        }
                        Err::<(), _>(Failure::Own(drops.probe()))
                    });
                }
                Err(Failure::Own(drops.probe()))
            });
            match turns(Box::pin(open), k).await {
                Ok(ended) => assert_eq!(ended.unwrap_err().len(), 4),
                Err(half) => drop(half),
            }
        });
        drops.assert_all();
    }
}

/// Handles of children that wait for each other in a ring.
#[test]
fn children_hold_each_others_handles() {
    for k in 0..6 {
        let drops = Drops::new();
        run(async {
            let open = nursery(async |n| -> Result<(), Cancelled> {
                let (tx, rx) = unbounded::<Join<'_, Probe>>();
                let (probe, receiver) = (drops.probe(), rx.clone());
                let first = n.spawn(async move {
                    // Waits for itself, in the end.
                    let mine = receiver.recv().await?.unwrap();
                    let _ = mine.await?;
                    Ok(probe)
                });
                assert!(tx.try_send(first).is_ok());
                never().await
            });
            drop(turns(Box::pin(open), k).await);
        });
        drops.assert_all();
    }
}

// ---- Local children ----------------------------------------------------------------------------------------------------

#[test]
fn local_children_are_woken_from_elsewhere_and_stay() {
    let me = std::thread::current().id();
    let drops = Drops::new();
    run(async {
        for k in 0..6 {
            let slot = Mutex::new(None);
            let shared = Rc::new(Cell::new(0));
            let open = local_nursery(async |n| -> Result<(), Cancelled> {
                for _ in 0..2 {
                    let (probe, shared) = (drops.probe(), shared.clone());
                    let slot = &slot;
                    n.spawn(async move {
                        let _probe = probe;
                        let _here = OnDrop(|| assert_eq!(std::thread::current().id(), me));
                        let inside = shared.clone();
                        poll_fn(|cx| {
                            inside.set(inside.get() + 1);
                            drop(slot.lock().unwrap().replace(cx.waker().clone()));
                            if inside.get() > 3 { Poll::Ready(()) } else { Poll::Pending }
                        })
                        .await;
                        Ok(shared)
                    });
                }
                loop {
                    std::thread::scope(|s| {
                        s.spawn(|| {
                            let waker = slot.lock().unwrap().take();
                            if let Some(waker) = waker {
                                waker.wake();
                            }
                        });
                    });
                    checkpoint().await?;
                    if shared.get() > 6 {
                        n.cancel();
                    }
                }
            });
            drop(turns(Box::pin(open), k * 3).await);
            assert_eq!(Rc::strong_count(&shared), 1);
        }
    });
    drops.assert_all();
}
