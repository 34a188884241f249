//! Children of every shape and size, polled in place and dropped once; and unpin futures, which move.
#![allow(clippy::waker_clone_wake)]

use super::support::*;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::marker::PhantomPinned;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};
use trefoil_nursery::*;

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
