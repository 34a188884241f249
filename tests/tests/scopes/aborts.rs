//! How a cancel ends an operation that waits: at once, or by asking who has it, or when it moves into a cancelled scope. R15–R19, R22.
//!
//! | rule | here |
//! | --- | --- |
//! | R20, R21 | in `shield.rs` |
//! | R23 (an abort function that returns nonsense) | `Abort` is an enum: unrepresentable |

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};
use trefoil_nursery::{
    CancelScope, Cancelled, Event, channel, local_nursery, move_on_after, shield, sleep, sleep_forever, yield_now,
};
use trefoil_runtime::{Abort, Park, Reason, Wait, metrics};
use trefoil_tests::{CANCELLED, Ended, Trace, ms, poll_once, run_virtual};

#[test]
fn r15_every_wait_in_the_subtree_is_aborted_inside_cancel() {
    run_virtual(async || {
        let (event, (tx, rx)) = (Event::new(), channel::<u8>(0));
        let (scope, tellings) = (CancelScope::new(), Cell::new(0));
        let told = || tellings.set(tellings.get() + 1);
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                let out = scope
                    .run(async {
                        local_nursery(async |inner| -> Ended {
                            inner.spawn(async { event.wait().await.inspect_err(|_| told()) });
                            inner.spawn(async { rx.recv().await.map(drop).inspect_err(|_| told()) });
                            inner.spawn(async { sleep(ms(9)).await.inspect_err(|_| told()) });
                            inner.spawn(async {
                                move_on_after(ms(99), sleep_forever()).await.map(drop).inspect_err(|_| told())
                            });
                            inner.spawn(async { shield(sleep(ms(1))).await });
                            Ok(())
                        })
                        .await?;
                        Ok::<_, Cancelled>(())
                    })
                    .await;
                assert_eq!(out, Ok(None));
                Ok(())
            });
            for _ in 0..2 {
                yield_now().await;
            }
            let before = metrics();
            scope.cancel();
            let after = metrics();
            // The one under the shield still waits. Nobody has run yet.
            assert_eq!((before.waits, after.waits, tellings.get()), (5, 1, 0));
            // Only the deadline of the inner scope and the shielded sleep are left of three timers.
            assert_eq!((before.timers, after.timers), (3, 2));
            // R19: they cannot be woken any more.
            event.set();
            assert!(tx.try_send(1).is_err());
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(tellings.get(), 4);
    });
}

/// A waker that counts, and passes on.
struct CountWakes(Waker, Arc<AtomicUsize>);

impl Wake for CountWakes {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.wake_by_ref();
    }
}

/// An operation that a cancel cannot end, but only ask its owner to (Trio's FAILED abort): one that the kernel has.
struct InKernel {
    park: Pin<Rc<Park>>,
    began: bool,
    wakes: Arc<AtomicUsize>,
    asked: Rc<Cell<bool>>,
    /// What the owner says when the kernel has let go: `None` that it was cancelled.
    result: Rc<Cell<Option<u32>>>,
}

impl InKernel {
    fn new() -> Self {
        Self {
            park: Rc::pin(Park::new()),
            began: false,
            wakes: Arc::default(),
            asked: Rc::default(),
            result: Rc::default(),
        }
    }
}

impl Future for InKernel {
    type Output = Result<u32, Cancelled>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let waker = Waker::from(Arc::new(CountWakes(cx.waker().clone(), self.wakes.clone())));
        let mut cx = Context::from_waker(&waker);
        if !self.began {
            self.began = true;
            let wait = Wait { abort: Abort::Ask, ..Wait::new(Reason::Custom("the kernel")) };
            // SAFETY: this future is the park's only owner.
            unsafe { self.park.as_ref().begin(&mut cx, wait) }.expect("not cancelled when it begins");
            return Poll::Pending;
        }
        if self.park.cancel_asked() {
            self.asked.set(true);
        }
        // SAFETY: as above.
        ready!(unsafe { self.park.as_ref().poll(&mut cx) }).expect("such a wait is not aborted");
        Poll::Ready(self.result.get().ok_or(CANCELLED))
    }
}

/// R16, R17 and behaviour 28: asked once although cancelled twice and un-shielded in between; then it completes, or raises, as its
/// owner says, also when the scope is shielded meanwhile.
#[test]
fn r16_r17_an_abort_that_failed_is_asked_once_and_completed_by_its_owner() {
    for answer in [None, Some(7)] {
        for shielded_meanwhile in [false, true] {
            run_virtual(async || {
                let (outer, inner) = (CancelScope::new(), CancelScope::new());
                let operation = InKernel::new();
                let park = operation.park.clone();
                let (wakes, asked, result) =
                    (operation.wakes.clone(), operation.asked.clone(), operation.result.clone());
                local_nursery(async |n| -> Ended {
                    n.spawn(async {
                        let out = outer.run(async { inner.run(operation).await }).await;
                        match (answer, shielded_meanwhile) {
                            (Some(value), _) => assert_eq!(out, Ok(Some(Some(value)))),
                            // R24: the outer one is responsible; the shielded inner one was never cancelled itself.
                            (None, _) => assert_eq!(out, Ok(None)),
                        }
                        Ok(())
                    });
                    yield_now().await;
                    assert_eq!(wakes.load(Ordering::SeqCst), 0);
                    outer.cancel();
                    assert_eq!(wakes.load(Ordering::SeqCst), 1, "inside of `cancel`");
                    assert!(!asked.get());
                    yield_now().await;
                    assert!(asked.get());
                    outer.cancel();
                    inner.set_shield(true);
                    inner.set_shield(false);
                    yield_now().await;
                    inner.set_shield(shielded_meanwhile);
                    sleep(ms(5)).await?;
                    assert_eq!(wakes.load(Ordering::SeqCst), 1, "once per block");
                    // N13: an operation that waits for the kernel is not cut.
                    assert_eq!(metrics().waits, 1);
                    result.set(answer);
                    assert!(park.complete().wake());
                    Ok(())
                })
                .await
                .unwrap();
                assert_eq!(wakes.load(Ordering::SeqCst), 2);
                assert_eq!(outer.cancelled_caught(), answer.is_none());
                assert!(!inner.cancelled_caught());
            });
        }
    }
}

/// Behaviour 29: for a bare park. R18 one way, R19 the other.
#[test]
fn r18_r19_of_completing_and_cancelling_a_park_the_first_wins() {
    for complete_first in [true, false] {
        run_virtual(async || {
            let park = Rc::pin(Park::new());
            let scope = CancelScope::new();
            local_nursery(async |n| -> Ended {
                n.spawn(async {
                    let mut began = false;
                    let out = scope
                        .run(poll_fn(|cx| {
                            // SAFETY: this future is the park's only owner.
                            unsafe {
                                if !std::mem::replace(&mut began, true) {
                                    park.as_ref().begin(cx, Wait::new(Reason::Custom("test"))).unwrap();
                                    return Poll::Pending;
                                }
                                park.as_ref().poll(cx)
                            }
                        }))
                        .await;
                    assert_eq!(out, if complete_first { Ok(Some(())) } else { Ok(None) });
                    Ok(())
                });
                yield_now().await;
                if complete_first {
                    assert!(park.complete().wake());
                    assert!(!park.complete().wake(), "once");
                    scope.cancel();
                } else {
                    scope.cancel();
                    assert!(!park.complete().wake());
                }
                Ok(())
            })
            .await
            .unwrap();
        });
    }
}

#[test]
fn r22_an_operation_that_moves_into_a_cancelled_scope_is_aborted() {
    run_virtual(async || {
        let event = Event::new();
        let mut wait = pin!(event.wait());
        let mut sleep = pin!(sleep_forever());
        // They begin in the scope of the run.
        assert!(poll_once(wait.as_mut()).await.is_pending());
        assert!(poll_once(sleep.as_mut()).await.is_pending());
        let scope = CancelScope::new();
        scope.cancel();
        let out = scope
            .run(async {
                assert_eq!(poll_once(wait.as_mut()).await, Poll::Ready(Err(CANCELLED)));
                sleep.await
            })
            .await;
        assert_eq!(out, Ok(None));
    });
}

#[test]
fn r22_a_scope_that_moves_into_a_cancelled_scope_is_cancelled_with_all_below() {
    run_virtual(async || {
        let t = Trace::new();
        let inner = CancelScope::new();
        let mut half = Box::pin(inner.run(async {
            local_nursery(async |n| -> Ended {
                n.spawn(async {
                    let slept = sleep_forever().await;
                    t.note("child", slept.is_err());
                    slept
                });
                Ok(())
            })
            .await?;
            Ok::<_, Cancelled>(())
        }));
        for _ in 0..3 {
            assert!(poll_once(half.as_mut()).await.is_pending());
        }
        let outer = CancelScope::new();
        outer.cancel();
        assert_eq!(outer.run(half).await, Ok(None));
        assert_eq!(t.lines(), ["0 child true"]);
        assert!(outer.cancelled_caught() && !inner.cancelled_caught() && !inner.cancel_called());
    });
}

#[test]
fn r22_a_scope_that_moves_out_of_its_scope_is_not_reached_by_a_cancel_of_that_any_more() {
    run_virtual(async || {
        let t = Trace::new();
        let (old, inner) = (CancelScope::new(), CancelScope::new());
        inner.set_deadline(Some(t.at(50)));
        let mut half = Box::pin(inner.run(async { sleep(ms(100)).await }));
        old.run(async {
            assert!(poll_once(half.as_mut()).await.is_pending());
            Ok::<_, Cancelled>(())
        })
        .await
        .unwrap();
        old.cancel();
        // Its own deadline has come along.
        assert_eq!((half.await, t.ms()), (Ok(None), 50));
        assert!(inner.cancelled_caught() && !old.cancelled_caught());
    });
}
