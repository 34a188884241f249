//! Polls and wakes, counted; and children that stay on their thread.
#![allow(clippy::waker_clone_wake)]

use super::support::*;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use trefoil_nursery::*;
use trefoil_runtime::{Abort, Park, Reason, Wait};

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

/// The child's memory, in which its name is, stays as long as its wakers do, and no longer: whoever wakes it, and how.
#[test]
fn a_wake_uses_up_the_waker_that_it_is_given_and_no_other() {
    for by_ref in [false, true] {
        let (name, slot) = (Arc::<str>::from("child"), Mutex::new(None));
        let mut kept = None;
        run(nursery(async |n| -> Result<(), Cancelled> {
            n.spawn_named(name.clone(), async {
                pend(&slot).await;
                Ok(())
            });
            checkpoint().await?;
            checkpoint().await?;
            let waker = slot.lock().unwrap().take().unwrap();
            let given = waker.clone();
            let wake = move || if by_ref { given.wake_by_ref() } else { given.wake() };
            std::thread::spawn(wake).join().unwrap();
            // Not dropped where one was used up for another: it would be freed twice.
            kept = Some(ManuallyDrop::new(waker));
            checkpoint().await?;
            checkpoint().await?;
            let again = slot.lock().unwrap().take();
            assert!(again.is_some(), "it was polled");
            drop(again);
            n.cancel();
            Ok(())
        }))
        .unwrap();
        // Of the poll in which it was told.
        let told = slot.lock().unwrap().take();
        drop(told);
        assert_eq!(Arc::strong_count(&name), 2, "{by_ref}");
        drop(kept.map(ManuallyDrop::into_inner));
        assert_eq!(Arc::strong_count(&name), 1, "{by_ref}");
    }
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

/// Counts its clones, wakes and drops, the last one of which is that of the waker itself.
fn counted() -> (Waker, impl Fn() -> [usize; 3]) {
    let counts: [Arc<AtomicUsize>; 3] = Default::default();
    let hook = |at: usize| -> Option<Hook> {
        let count = counts[at].clone();
        Some(Box::new(move || {
            count.fetch_add(1, SeqCst);
        }))
    };
    let hooks = Hooks { clone: hook(0), wake: hook(1), drop: hook(2), ..Hooks::default() };
    (hooks.waker(), move || counts.clone().map(|count| count.load(SeqCst)))
}

#[test]
fn a_waker_of_others_is_cloned_once_for_a_wait_however_often_that_is_polled() {
    run_virtual(async {
        let (one, one_counts) = counted();
        let (other, other_counts) = counted();
        let event = Event::new();
        let mut wait = Box::pin(event.wait());
        for _ in 0..3 {
            assert!(once_with(wait.as_mut(), &one).is_pending());
        }
        assert_eq!(one_counts(), [1, 0, 0]);
        for _ in 0..3 {
            assert!(once_with(wait.as_mut(), &other).is_pending());
        }
        assert_eq!((one_counts(), other_counts()), ([1, 0, 1], [1, 0, 0]), "the first one is given back");
        event.set();
        assert_eq!((one_counts(), other_counts()), ([1, 0, 1], [1, 1, 0]), "the second one is woken, and used up");
        assert!(once_with(wait.as_mut(), &one).is_ready());
        assert_eq!(one_counts(), [1, 0, 1], "what is over needs no waker");
    });
}

#[test]
fn a_waker_of_others_is_given_back_by_a_wait_that_is_dropped_or_cancelled() {
    run_virtual(async {
        let (waker, counts) = counted();
        let (tx, rx) = channel::<u8>(0);
        for operation in 0..4 {
            let before = counts();
            let scope = CancelScope::new();
            let mut wait: Pin<Box<dyn Future<Output = ()>>> = match operation {
                0 => Box::pin(async { _ = sleep(HOUR).await }),
                1 => Box::pin(async { _ = rx.recv().await }),
                2 => Box::pin(async { _ = tx.send(1).await }),
                _ => Box::pin(async { _ = scope.run(sleep(HOUR)).await }),
            };
            assert!(once_with(wait.as_mut(), &waker).is_pending());
            drop(wait);
            let [cloned, woken, dropped] = counts();
            assert_eq!(woken, before[1], "operation {operation}");
            assert!(cloned > before[0] && cloned - before[0] == dropped - before[2], "operation {operation}");
        }
    });
}

/// Its clone is code of others, also where a wait is polled with it that has another one.
#[test]
fn a_wait_keeps_its_waker_where_the_clone_of_the_next_one_panics() {
    let panics = Hooks { clone: Some(Box::new(|| panic_any("in a clone"))), ..Hooks::default() }.waker();
    run_virtual(async {
        let (waker, counts) = counted();
        let event = Event::new();
        let mut wait = Box::pin(event.wait());
        assert!(once_with(wait.as_mut(), &waker).is_pending());
        assert!(catch_unwind(AssertUnwindSafe(|| once_with(wait.as_mut(), &panics))).is_err());
        assert_eq!(counts(), [1, 0, 0]);
        event.set();
        assert_eq!(counts(), [1, 1, 0]);
        assert!(once_with(wait.as_mut(), &waker).is_ready());
    });
}

/// A wait that could not begin, since the clone of its waker cancelled the scope, keeps none.
#[test]
fn a_waker_of_others_is_given_back_by_a_wait_that_did_not_begin() {
    run_virtual(async {
        let counts: [Arc<AtomicUsize>; 2] = Default::default();
        let scope = CancelScope::new();
        let (cancel, cloned, dropped) = (scope.clone(), counts[0].clone(), counts[1].clone());
        let hooks = Hooks {
            clone: Some(Box::new(move || {
                cloned.fetch_add(1, SeqCst);
                cancel.cancel();
            })),
            drop: Some(Box::new(move || {
                dropped.fetch_add(1, SeqCst);
            })),
            ..Hooks::default()
        };
        let (waker, mut slept) = (hooks.waker(), Box::pin(sleep(HOUR)));
        let polled = poll_fn(|_| Poll::Ready(Ok::<_, Cancelled>(once_with(slept.as_mut(), &waker).is_ready())));
        assert_eq!(scope.run(polled).await, Ok(Some(true)), "it is cancelled at once");
        assert_eq!(counts.map(|count| count.load(SeqCst)), [1, 1]);
    });
}

/// While the clone of the next waker, or the drop of the one before, is at it, the wait is completed.
#[test]
fn a_wait_that_is_completed_while_its_waker_changes_is_not_lost() {
    for by_clone in [false, true] {
        run_virtual(async move {
            let event = Arc::new(Event::new());
            let set = event.clone();
            let sets = move || set.set();
            let (counting, counts) = counted();
            let (first, second) = match by_clone {
                true => (counting, Hooks { clone: Some(Box::new(sets)), ..Hooks::default() }.waker()),
                false => (Hooks { drop: Some(Box::new(sets)), ..Hooks::default() }.waker(), counting),
            };
            let mut wait = Box::pin(event.wait());
            assert!(once_with(wait.as_mut(), &first).is_pending());
            let ready = once_with(wait.as_mut(), &second).is_ready();
            assert!(ready || counts()[1] == 1, "{by_clone}");
            assert!(ready || once_with(wait.as_mut(), Waker::noop()).is_ready());
        });
    }
}

/// The same of a wait that only its owner can end: it is asked by the clone of the next waker, so the one before is there to be woken.
#[test]
fn a_cancel_that_asks_while_the_waker_changes_wakes_the_next_one() {
    run_virtual(async {
        let (scope, wakes) = (CancelScope::new(), Arc::new(AtomicUsize::new(0)));
        let (cancel, woken) = (scope.clone(), wakes.clone());
        let (first, counts) = counted();
        let hooks = Hooks {
            clone: Some(Box::new(move || {
                cancel.cancel();
            })),
            wake: Some(Box::new(move || {
                woken.fetch_add(1, SeqCst);
            })),
            ..Hooks::default()
        };
        let (second, park) = (hooks.waker(), Box::pin(Park::new()));
        let asked = poll_fn(|_| {
            let wait = Wait { abort: Abort::Ask, ..Wait::new(Reason::Sleep) };
            // SAFETY: nobody else has the park.
            unsafe {
                assert_eq!(park.as_ref().begin(&mut Context::from_waker(&first), wait), Ok(()));
                assert!(park.as_ref().poll(&mut Context::from_waker(&second)).is_pending());
                assert!(park.cancel_asked());
                assert!(!park.end(), "it was not completed");
            }
            Poll::Ready(Ok::<_, Cancelled>(()))
        });
        assert_eq!(scope.run(asked).await, Ok(Some(())));
        assert_eq!((counts()[1], wakes.load(SeqCst)), (1, 1), "both are woken: who polls next sees that it was asked");
    });
}
