//! Cancellation as a state, and its delivery: R1–R6, R8–R13, R15–R19, R22, R37–R39.
//!
//! | rule | here |
//! | --- | --- |
//! | R7 | a second `run` of a scope panics: `r7_*` |
//! | R14 | in `deadline.rs` |
//! | R20, R21 | in `shield.rs` |
//! | R23 (an abort function that returns nonsense) | `Abort` is an enum: unrepresentable |
//! | R8, "keeps the scope open for ever" | N13 b wins: in `foreign.rs` |
//! | R40 | not to be tested |

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};
use trefoil_nursery::{
    CancelScope, Cancelled, EffectiveDeadline, Event, SendError, Source, TryRecvError, cancel_cause, channel,
    checkpoint, checkpoint_if_cancelled, effective_deadline, fail_after, local_nursery, move_on_after, now, shield,
    shield_for, sleep, sleep_forever, sleep_until, sync, unbounded, yield_now,
};
use trefoil_runtime::{Abort, Park, Reason, Wait, metrics};
use trefoil_tests::{Trace, counted, ms, panic_of, poll_once, run_real, run_virtual};

type Ended = Result<(), Cancelled>;
const CANCELLED: Cancelled = Cancelled::delivered();

fn is_effective() -> bool {
    effective_deadline() == EffectiveDeadline::Cancelled
}

// ---- The state -----------------------------------------------------------------------------------------------------

#[test]
fn r1_each_of_five_checkpoints_in_a_cancelled_scope_raises() {
    run_virtual(async || {
        let scope = CancelScope::new();
        let raised = Cell::new(0);
        let out = scope
            .run(async {
                scope.cancel();
                for _ in 0..5 {
                    raised.set(raised.get() + usize::from(checkpoint().await == Err(CANCELLED)));
                    raised.set(raised.get() + usize::from(sleep(ms(1)).await == Err(CANCELLED)));
                    raised.set(raised.get() + usize::from(Event::new().wait().await == Err(CANCELLED)));
                }
                checkpoint().await
            })
            .await;
        assert_eq!((out, raised.get()), (Ok(None), 15));
    });
}

/// R2: which of three nested scopes is effective, for each of them that is cancelled and each that is shielded.
#[test]
fn r2_the_effective_state_over_three_levels() {
    for cancelled in 0..3 {
        for shields in 0..8u32 {
            run_virtual(async || {
                let scopes: [CancelScope; 3] = std::array::from_fn(|_| CancelScope::new());
                for (i, scope) in scopes.iter().enumerate() {
                    scope.set_shield(shields & (1 << i) != 0);
                }
                let seen: [Cell<bool>; 3] = std::array::from_fn(|_| Cell::new(false));
                scopes[0]
                    .run(async {
                        scopes[1]
                            .run(async {
                                scopes[2]
                                    .run(async {
                                        scopes[cancelled].cancel();
                                        seen[2].set(is_effective());
                                        Ok::<_, Cancelled>(())
                                    })
                                    .await?;
                                seen[1].set(is_effective());
                                Ok::<_, Cancelled>(())
                            })
                            .await?;
                        seen[0].set(is_effective());
                        Ok::<_, Cancelled>(())
                    })
                    .await
                    .unwrap();
                for (level, seen) in seen.iter().enumerate() {
                    let shielded = (cancelled + 1..=level).any(|i| shields & (1 << i) != 0);
                    let expected = level >= cancelled && !shielded;
                    assert_eq!(seen.get(), expected, "cancelled {cancelled}, shields {shields:03b}, {level}");
                }
            });
        }
    }
}

#[test]
fn r3_a_cancelled_scope_is_never_uncancelled() {
    run_virtual(async || {
        let scope = CancelScope::new();
        let out = scope
            .run(async {
                scope.cancel();
                scope.set_deadline(None);
                assert_eq!(checkpoint().await, Err(CANCELLED));
                scope.set_deadline(Some(now() + ms(1000)));
                assert_eq!(checkpoint().await, Err(CANCELLED));
                scope.set_shield(true);
                assert_eq!(checkpoint().await, Err(CANCELLED));
                scope.set_shield(false);
                assert!(scope.cancel_called() && is_effective());
                checkpoint().await
            })
            .await;
        assert_eq!(out, Ok(None));
    });
}

#[test]
fn r3_a_deadline_that_has_cancelled_does_not_come_back_to_life() {
    run_virtual(async || {
        let t = Trace::new();
        let scope = CancelScope::new();
        scope.set_deadline(Some(t.at(5)));
        scope
            .run(async {
                assert_eq!(sleep_forever().await, Err(CANCELLED));
                scope.set_deadline(Some(t.at(500)));
                assert_eq!(sleep_forever().await, Err(CANCELLED));
                assert_eq!(t.ms(), 5);
                Ok::<_, Cancelled>(())
            })
            .await
            .unwrap();
    });
}

#[test]
fn r4_the_first_reason_stays() {
    run_virtual(async || {
        let t = Trace::new();
        let scope = CancelScope::new();
        scope
            .run(async {
                scope.cancel();
                let first = line!() - 1;
                let cause = scope.cause().unwrap();
                assert_eq!((cause.source, cause.place.line()), (Source::Explicit, first));
                assert!(cause.place.file().ends_with("cancel.rs"));
                scope.cancel();
                scope.set_deadline(Some(t.at(1)));
                shield(sleep(ms(2))).await?;
                let cause = scope.cause().unwrap();
                assert_eq!((cause.source, cause.place.line()), (Source::Explicit, first));
                Ok::<_, Cancelled>(())
            })
            .await
            .unwrap();

        let scope = CancelScope::new();
        let made = line!() - 1;
        scope.set_deadline(Some(t.at(10)));
        scope
            .run(async {
                assert_eq!(sleep_forever().await, Err(CANCELLED));
                scope.cancel();
                let cause = scope.cause().unwrap();
                assert_eq!((cause.source, cause.place.line()), (Source::Deadline, made));
                Ok::<_, Cancelled>(())
            })
            .await
            .unwrap();
    });
}

#[test]
fn r5_a_scope_reports_the_source_of_the_one_it_inherits_from() {
    // Explicit.
    run_virtual(async || {
        let (outer, inner) = (CancelScope::new(), CancelScope::new());
        assert!(outer.cause().is_none() && inner.cause().is_none());
        let out = outer
            .run(async {
                inner
                    .run(async {
                        assert!(cancel_cause().is_none() && inner.cause().is_none());
                        outer.cancel();
                        let line = line!() - 1;
                        for cause in [inner.cause(), outer.cause(), cancel_cause()] {
                            let cause = cause.unwrap();
                            assert_eq!((cause.source, cause.place.line()), (Source::Explicit, line));
                        }
                        assert!(!inner.cancel_called());
                        checkpoint().await
                    })
                    .await
            })
            .await;
        assert_eq!(out, Ok(None));
        // Also when they have been left.
        assert_eq!(outer.cause().unwrap().source, Source::Explicit);
        assert_eq!(inner.cause().unwrap().source, Source::Explicit);
    });
    // Deadline.
    run_virtual(async || {
        let inner = CancelScope::new();
        move_on_after(ms(3), async {
            inner
                .run(async {
                    let slept = sleep_forever().await;
                    assert_eq!(inner.cause().unwrap().source, Source::Deadline);
                    slept
                })
                .await
        })
        .await
        .unwrap();
    });
    // Nursery.
    run_virtual(async || {
        let inner = CancelScope::new();
        local_nursery(async |n| -> io::Result<()> {
            n.spawn(async { Err::<(), _>(io::Error::other("x")) });
            inner
                .run(async {
                    let slept = sleep_forever().await;
                    assert_eq!(inner.cause().unwrap().source, Source::Nursery);
                    slept
                })
                .await?;
            Ok(())
        })
        .await
        .unwrap_err();
    });
}

#[test]
fn r5_a_shield_hides_the_cause_and_lowered_shows_it() {
    run_virtual(async || {
        let (outer, inner) = (CancelScope::new(), CancelScope::new());
        let out = outer
            .run(async {
                outer.cancel();
                inner
                    .run(async {
                        inner.set_shield(true);
                        assert!(inner.cause().is_none() && cancel_cause().is_none());
                        inner.set_shield(false);
                        assert_eq!(inner.cause().unwrap().source, Source::Explicit);
                        assert_eq!(cancel_cause().unwrap().source, Source::Explicit);
                        checkpoint().await
                    })
                    .await
            })
            .await;
        assert_eq!(out, Ok(None));
    });
}

#[test]
fn r6_a_scope_cancelled_before_it_is_entered_runs_to_its_first_checkpoint() {
    run_virtual(async || {
        let scope = CancelScope::new();
        scope.cancel();
        assert!(scope.cancel_called());
        let ran = Cell::new(false);
        let out = scope
            .run(async {
                ran.set(true);
                assert!(is_effective());
                checkpoint().await
            })
            .await;
        assert_eq!((out, ran.get(), scope.cancelled_caught()), (Ok(None), true, true));
        assert_eq!(scope.cause().unwrap().source, Source::Explicit);
    });
}

#[test]
fn r6_settings_made_before_the_entry_apply() {
    run_virtual(async || {
        let t = Trace::new();
        let (outer, scope) = (CancelScope::new(), CancelScope::new());
        scope.set_shield(true);
        scope.set_deadline(Some(t.at(30)));
        assert_eq!((scope.shield(), scope.deadline()), (true, Some(t.at(30))));
        let out = outer
            .run(async {
                outer.cancel();
                scope
                    .run(async {
                        sleep(ms(10)).await?;
                        t.note("body", "shielded");
                        sleep(ms(100)).await
                    })
                    .await
            })
            .await;
        assert_eq!(out, Ok(Some(None)));
        assert_eq!((t.lines(), t.ms()), (vec!["10 body shielded".to_string()], 30));
    });
}

#[test]
fn r6_cancelling_after_the_exit_changes_the_flag_only() {
    run_virtual(async || {
        let (outer, scope) = (CancelScope::new(), CancelScope::new());
        let out = outer
            .run(async {
                let value = scope.run(async { Ok::<_, Cancelled>(1) }).await?;
                scope.cancel();
                scope.set_shield(true);
                scope.set_deadline(Some(now()));
                checkpoint().await?;
                Ok::<_, Cancelled>(value)
            })
            .await;
        assert_eq!(out, Ok(Some(Some(1))));
        assert!(scope.cancel_called() && !scope.cancelled_caught());
    });
}

#[test]
fn r7_a_scope_is_entered_once() {
    let again = panic_of(|| {
        run_virtual(async || {
            let scope = CancelScope::new();
            scope.run(async { Ok::<_, Cancelled>(()) }).await.unwrap();
            scope.run(async { Ok::<_, Cancelled>(()) }).await.unwrap();
        })
    });
    assert!(again.contains("entered twice"), "{again}");
    let nested = panic_of(|| {
        run_virtual(async || {
            let scope = CancelScope::new();
            scope
                .run(async {
                    scope.run(async { Ok::<_, Cancelled>(()) }).await?;
                    Ok::<_, Cancelled>(())
                })
                .await
                .unwrap();
        })
    });
    assert!(nested.contains("entered twice"), "{nested}");
}

#[test]
fn r8_cancel_requests_and_the_exit_waits() {
    run_virtual(async || {
        let t = Trace::new();
        let scope = CancelScope::new();
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                let out = scope
                    .run(async {
                        let slept = sleep_forever().await;
                        shield(sleep(ms(25))).await?;
                        t.note("scope", "cleaned up");
                        slept
                    })
                    .await;
                t.note("scope", "left");
                assert_eq!(out, Ok(None));
                Ok(())
            });
            sleep(ms(5)).await?;
            scope.cancel();
            t.note("body", "cancelled");
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(t.lines(), ["5 body cancelled", "30 scope cleaned up", "30 scope left"]);
    });
}

/// R9: a thousand scopes, each in the one before, on the stack of a test.
#[test]
fn r9_a_thousand_nested_scopes() {
    fn nest<'a>(scopes: &'a [CancelScope], t: &'a Trace) -> Pin<Box<dyn Future<Output = Ended> + 'a>> {
        Box::pin(async move {
            match scopes {
                [] => {
                    let slept = sleep_forever().await;
                    t.note("leaf", slept.is_err());
                    slept
                }
                [scope, inner @ ..] => scope.run(nest(inner, t)).await.map(|_| ()),
            }
        })
    }
    run_virtual(async || {
        let t = Trace::new();
        let scopes: Vec<CancelScope> = (0..1000).map(|_| CancelScope::new()).collect();
        local_nursery(async |n| -> Ended {
            n.spawn(nest(&scopes, &t));
            sleep(ms(1)).await?;
            assert_eq!(metrics().scopes, 1001);
            scopes[0].cancel();
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(t.lines(), ["1 leaf true"]);
        let flags: Vec<_> = scopes.iter().map(|s| (s.cancel_called(), s.cancelled_caught())).collect();
        assert_eq!(flags[0], (true, true));
        assert!(flags[1..].iter().all(|&flags| flags == (false, false)));
    });
}

// ---- Delivery ------------------------------------------------------------------------------------------------------

#[test]
fn r10_nothing_is_interrupted_between_checkpoints() {
    run_virtual(async || {
        let steps = Cell::new(0);
        let scope = CancelScope::new();
        let out = scope
            .run(async {
                scope.cancel();
                for _ in 0..10 {
                    // None of these is a checkpoint.
                    yield_now().await;
                    shield(async {}).await;
                    std::future::ready(()).await;
                    scope.cancel();
                    steps.set(steps.get() + 1);
                }
                Ok::<_, Cancelled>("completed")
            })
            .await;
        assert_eq!((out, steps.get()), (Ok(Some("completed")), 10));
        assert!(!scope.cancelled_caught());
    });
}

type Operation<'a> = (&'static str, Box<dyn Fn() -> Pin<Box<dyn Future<Output = Ended>>> + 'a>);

macro_rules! operations {
    ($($name:literal => $body:expr),* $(,)?) => {
        vec![$(($name, Box::new(move || Box::pin($body) as Pin<Box<dyn Future<Output = Ended>>>) as _)),*]
    };
}

/// Every public operation that is a checkpoint, in a state in which it need not wait.
fn checkpoints() -> Vec<Operation<'static>> {
    operations! {
        "checkpoint" => checkpoint(),
        "checkpoint_if_cancelled" => checkpoint_if_cancelled(),
        "sleep(0)" => sleep(ms(0)),
        "sleep" => sleep(ms(1)),
        "sleep_until now" => sleep_until(now()),
        "sleep_until the past" => async { sleep_until(now() - ms(1)).await },
        "event that is set" => async { let e = Event::new(); e.set(); e.wait().await },
        "send with room" => async {
            let (tx, rx) = channel(1);
            let sent = tx.send(1).await;
            // R37: not attempted.
            match sent {
                Ok(()) => assert_eq!(rx.try_recv(), Ok(1)),
                Err(_) => assert_eq!(rx.try_recv(), Err(TryRecvError::Empty)),
            }
            sent.map_err(|_| CANCELLED)
        },
        "unbounded send" => async {
            let (tx, rx) = unbounded();
            let sent = tx.send(1).await;
            assert_eq!(rx.len(), usize::from(sent.is_ok()));
            sent.map_err(|_| CANCELLED)
        },
        "receive of an item" => async {
            let (tx, rx) = channel(1);
            tx.try_send(1).unwrap();
            let got = rx.recv().await;
            assert_eq!(rx.len(), usize::from(got.is_err()));
            got.map(|got| assert_eq!(got, Some(1)))
        },
        "receive of the end" => async {
            let (tx, rx) = channel::<()>(1);
            drop(tx);
            rx.recv().await.map(|got| assert_eq!(got, None))
        },
        "mutex that is free" => async {
            let mutex = sync::Mutex::new(());
            let ended = mutex.lock().await.map(drop);
            assert!(!mutex.is_locked());
            ended
        },
        "rwlock to read" => async { sync::RwLock::new(()).read().await.map(drop) },
        "rwlock to write" => async { sync::RwLock::new(()).write().await.map(drop) },
        "semaphore with a permit" => async {
            let semaphore = sync::Semaphore::new(1);
            let got = semaphore.acquire(1).await;
            assert_eq!(semaphore.available(), usize::from(got.is_err()));
            got.map(drop)
        },
        "limiter with a token" => async { sync::CapacityLimiter::new(1).acquire().await.map(drop) },
        "barrier of one" => async { sync::Barrier::new(1).wait().await.map(|leads| assert!(leads)) },
        "oneshot that was sent" => async {
            let (tx, mut rx) = sync::oneshot();
            tx.send(5).unwrap();
            let got = rx.recv().await;
            assert_eq!(rx.try_recv(), got.is_err().then_some(5));
            got.map(drop)
        },
        "watch that has changed" => async {
            let (tx, mut rx) = sync::watch(1);
            tx.set(2);
            rx.changed().await.map(|changed| assert!(changed))
        },
        "join of a done child" => async {
            local_nursery(async |n| -> Ended {
                let join = n.spawn(async { Ok(5) });
                while !join.is_done() {
                    yield_now().await;
                }
                join.await.map(|five| assert_eq!(five, 5))
            })
            .await
            .map_err(Cancelled::from)
        },
    }
}

/// What is awaited and is not a checkpoint.
fn not_checkpoints() -> Vec<Operation<'static>> {
    operations! {
        "yield_now" => async { yield_now().await; Ok(()) },
        "shield of nothing" => async { shield(async {}).await; Ok(()) },
        "shield_for of nothing" => async { shield_for(ms(1), async { Ok::<_, Cancelled>(()) }).await.map(|_| ()) },
        "scope of nothing" => async { CancelScope::new().run(async { Ok::<_, Cancelled>(()) }).await.map(|_| ()) },
        "move_on_after of nothing" => async { move_on_after(ms(1), async { Ok::<_, Cancelled>(()) }).await.map(|_| ()) },
        "fail_after of nothing" => async { fail_after(ms(1), async { Ok::<_, io::Error>(()) }).await.unwrap(); Ok(()) },
        "nursery of nothing" => async { local_nursery(async |_| Ok::<_, Cancelled>(())).await.unwrap(); Ok(()) },
    }
}

#[test]
fn r10_r38_every_operation_of_the_table_in_a_scope_that_is_not_cancelled() {
    run_virtual(async || {
        for (name, operation) in checkpoints().iter().chain(&not_checkpoints()) {
            let scope = CancelScope::new();
            assert_eq!(scope.run(operation()).await, Ok(Some(())), "{name}");
        }
    });
}

#[test]
fn r10_r37_r38_every_checkpoint_of_the_table_raises_in_a_cancelled_scope() {
    run_virtual(async || {
        for (name, operation) in &checkpoints() {
            let scope = CancelScope::new();
            scope.cancel();
            assert_eq!(scope.run(operation()).await, Ok(None), "{name}");
            assert!(scope.cancelled_caught(), "{name}");
        }
        for (name, operation) in &not_checkpoints() {
            let scope = CancelScope::new();
            scope.cancel();
            assert_eq!(scope.run(operation()).await, Ok(Some(())), "{name}");
        }
    });
}

#[test]
fn r32_no_operation_of_the_table_raises_under_a_shield() {
    run_virtual(async || {
        for (name, operation) in checkpoints().iter().chain(&not_checkpoints()) {
            let scope = CancelScope::new();
            scope.cancel();
            assert_eq!(scope.run(shield(operation())).await, Ok(Some(())), "{name}");
        }
    });
}

#[test]
fn r11_checkpoint_yields_first_and_then_looks() {
    run_virtual(async || {
        // A sibling cancels in the turn that the checkpoint gives up.
        let scope = CancelScope::new();
        local_nursery(async |n| -> Ended {
            let out = scope.run(async {
                n.spawn(async {
                    scope.cancel();
                    Ok(())
                });
                checkpoint().await
            });
            assert_eq!(out.await, Ok(None));
            Ok(())
        })
        .await
        .unwrap();
        // A deadline that expires in that pass is seen too (R45): not effective before, effective after.
        let scope = CancelScope::new();
        let out = scope
            .run(async {
                scope.set_deadline(Some(now()));
                checkpoint_if_cancelled().await.expect("R14: the loop has not looked");
                checkpoint().await
            })
            .await;
        assert_eq!(out, Ok(None));
    });
}

#[test]
fn r12_raising_also_schedules() {
    run_virtual(async || {
        for which in ["checkpoint", "checkpoint_if_cancelled"] {
            let t = Trace::new();
            local_nursery(async |n| -> Ended {
                let scope = CancelScope::new();
                scope.cancel();
                n.spawn(async {
                    t.note("sibling", "runs");
                    Ok(())
                });
                scope
                    .run(async {
                        let raised = match which {
                            "checkpoint" => checkpoint().await,
                            _ => checkpoint_if_cancelled().await,
                        };
                        t.note("body", "raised");
                        raised
                    })
                    .await?;
                Ok(())
            })
            .await
            .unwrap();
            assert_eq!(t.lines(), ["0 sibling runs", "0 body raised"], "{which}");
        }
    });
}

#[test]
fn r13_checkpoint_if_cancelled_does_nothing_where_there_is_none() {
    run_virtual(async || {
        let polls = Cell::new(0);
        counted(&polls, async {
            for _ in 0..1000 {
                checkpoint_if_cancelled().await?;
            }
            Ok::<_, Cancelled>(())
        })
        .await
        .unwrap();
        assert_eq!(polls.get(), 1);
        // Neither under a shield.
        let scope = CancelScope::new();
        scope.cancel();
        let polls = Cell::new(0);
        scope
            .run(shield(counted(&polls, async {
                for _ in 0..1000 {
                    checkpoint_if_cancelled().await?;
                }
                Ok::<_, Cancelled>(())
            })))
            .await
            .unwrap();
        assert_eq!(polls.get(), 1);
    });
}

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

/// Lets a child wait in a scope, does something in the turn after, and returns what the child got, and what it gets at its next
/// checkpoint.
async fn race<T>(operation: impl Future<Output = T>, scope: &CancelScope, act: impl FnOnce()) -> (T, Ended) {
    let got = RefCell::new(None);
    local_nursery(async |n| -> Ended {
        n.spawn(async {
            scope
                .run(async {
                    let value = operation.await;
                    let next = checkpoint_if_cancelled().await;
                    *got.borrow_mut() = Some((value, next));
                    Ok::<_, Cancelled>(())
                })
                .await?;
            Ok(())
        });
        yield_now().await;
        act();
        Ok(())
    })
    .await
    .unwrap();
    got.into_inner().expect("the child ended")
}

#[test]
fn r18_the_result_wins_event() {
    run_virtual(async || {
        let (event, scope) = (Event::new(), CancelScope::new());
        let got = race(event.wait(), &scope, || {
            event.set();
            scope.cancel();
        });
        assert_eq!(got.await, (Ok(()), Err(CANCELLED)));
    });
}

#[test]
fn r18_the_result_wins_receiver() {
    run_virtual(async || {
        let ((tx, rx), scope) = (channel(1), CancelScope::new());
        let got = race(rx.recv(), &scope, || {
            tx.try_send(5).unwrap();
            scope.cancel();
        });
        assert_eq!(got.await, (Ok(Some(5)), Err(CANCELLED)));
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
    });
}

#[test]
fn r18_the_result_wins_rendezvous_sender() {
    run_virtual(async || {
        let ((tx, rx), scope) = (channel(0), CancelScope::new());
        let got = race(tx.send(5), &scope, || {
            assert_eq!(rx.try_recv(), Ok(5));
            scope.cancel();
        });
        assert_eq!(got.await, (Ok(()), Err(CANCELLED)));
    });
}

#[test]
fn r18_the_result_wins_sleep() {
    run_virtual(async || {
        let (scope, t) = (CancelScope::new(), Trace::new());
        local_nursery(async |n| -> Ended {
            // Both are woken at 5; the first then cancels the second.
            n.spawn(async {
                sleep_until(t.at(5)).await?;
                scope.cancel();
                Ok(())
            });
            n.spawn(async {
                let out = scope
                    .run(async {
                        sleep_until(t.at(5)).await?;
                        t.note("second", "slept");
                        checkpoint().await
                    })
                    .await;
                assert_eq!(out, Ok(None));
                Ok(())
            });
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(t.lines(), ["5 second slept"]);
    });
}

#[test]
fn r18_the_result_wins_join() {
    run_virtual(async || {
        let (scope, t) = (CancelScope::new(), Trace::new());
        local_nursery(async |n| -> Ended {
            let join = n.spawn(async {
                sleep_until(t.at(5)).await?;
                Ok(9)
            });
            // Runs right after the child, in the same turn.
            n.spawn(async {
                sleep_until(t.at(5)).await?;
                scope.cancel();
                Ok(())
            });
            let out = scope
                .run(async {
                    let nine = join.await?;
                    assert_eq!(checkpoint_if_cancelled().await, Err(CANCELLED));
                    Ok::<_, Cancelled>(nine)
                })
                .await;
            assert_eq!(out, Ok(Some(9)));
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn r19_the_cancel_wins_event() {
    run_virtual(async || {
        let (event, scope) = (Event::new(), CancelScope::new());
        let got = race(event.wait(), &scope, || {
            scope.cancel();
            event.set();
        });
        assert_eq!(got.await, (Err(CANCELLED), Err(CANCELLED)));
    });
}

#[test]
fn r19_the_cancel_wins_receiver_and_the_item_stays() {
    run_virtual(async || {
        let ((tx, rx), scope) = (channel(1), CancelScope::new());
        let got = race(rx.recv(), &scope, || {
            scope.cancel();
            tx.try_send(5).unwrap();
        });
        assert_eq!(got.await, (Err(CANCELLED), Err(CANCELLED)));
        assert_eq!(rx.try_recv(), Ok(5));
    });
}

#[test]
fn r19_the_cancel_wins_receiver_and_the_item_goes_to_somebody_else() {
    run_virtual(async || {
        let ((tx, rx), scope, other) = (channel(0), CancelScope::new(), Cell::new(None));
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                assert_eq!(scope.run(rx.recv()).await, Ok(None));
                Ok(())
            });
            n.spawn(async {
                other.set(rx.recv().await?);
                Ok(())
            });
            yield_now().await;
            scope.cancel();
            tx.try_send(5).unwrap();
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(other.get(), Some(5));
    });
}

#[test]
fn r19_the_cancel_wins_sender_and_keeps_its_item() {
    run_virtual(async || {
        let ((tx, rx), scope) = (channel(0), CancelScope::new());
        let got = race(tx.send(5), &scope, || {
            scope.cancel();
            assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
        });
        // N6.
        assert_eq!(got.await, (Err(SendError::Cancelled(CANCELLED, 5)), Err(CANCELLED)));
    });
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

#[test]
fn r37_cancelled_before_the_start_is_not_attempted() {
    run_virtual(async || {
        let scope = CancelScope::new();
        scope.cancel();
        let ((tx, rx), (full_tx, full_rx)) = (channel(1), channel(1));
        full_tx.try_send(1).unwrap();
        scope
            .run(async {
                // There is room, and there is an item: each could complete at once.
                assert_eq!(tx.send(5).await, Err(SendError::Cancelled(CANCELLED, 5)));
                assert_eq!(full_rx.recv().await, Err(CANCELLED));
                Ok::<_, Cancelled>(())
            })
            .await
            .unwrap();
        assert_eq!((rx.len(), full_rx.len()), (0, 1));
        // Not even where all receivers are gone: cancelled comes first.
        drop(rx);
        let scope = CancelScope::new();
        scope.cancel();
        assert_eq!(
            scope.run(async { Ok::<_, Cancelled>(tx.send(6).await) }).await,
            Ok(Some(Err(SendError::Cancelled(CANCELLED, 6))))
        );
    });
}

/// R39: the turn that a spent budget costs is given up *before* the operation, so a cancel then finds it undone (R36); and a cancel
/// that comes with the success does not take it back.
#[test]
fn r39_a_success_does_not_turn_into_cancelled() {
    run_virtual(async || {
        let scope = CancelScope::new();
        let (tx, rx) = unbounded();
        let sent = Cell::new(0u32);
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                let out = scope
                    .run(async {
                        for i in 0..10_000 {
                            match tx.send(i).await {
                                Ok(()) => sent.set(sent.get() + 1),
                                Err(SendError::Cancelled(cancelled, item)) => {
                                    assert_eq!(item, sent.get());
                                    return Err(cancelled);
                                }
                                Err(other) => panic!("{other:?}"),
                            }
                        }
                        Ok(())
                    })
                    .await;
                assert_eq!(out, Ok(None));
                Ok(())
            });
            yield_now().await;
            scope.cancel();
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(sent.get(), trefoil_runtime::BUDGET);
        assert_eq!(rx.len(), sent.get() as usize);
    });
    run_virtual(async || {
        // The item that is sent lets the receiver cancel the sender, in the next turn of either.
        let scope = CancelScope::new();
        let (tx, rx) = channel(1);
        let out = scope
            .run(async {
                tx.send(1).await?;
                assert_eq!(rx.try_recv(), Ok(1));
                scope.cancel();
                Ok::<_, io::Error>("sent")
            })
            .await;
        assert_eq!(out.unwrap(), Some("sent"));
    });
}

#[test]
fn a_scope_is_cancelled_from_another_thread() {
    run_real(async || {
        let scope = CancelScope::new();
        let remote = scope.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(ms(5));
            remote.cancel();
        });
        assert_eq!(scope.run(sleep_forever()).await, Ok(None));
        thread.join().unwrap();
        assert!(scope.cancelled_caught());
    });
}

#[test]
fn a_deadline_is_set_from_another_thread_while_the_loop_sleeps() {
    run_real(async || {
        let scope = CancelScope::new();
        scope.set_deadline(Some(now() + ms(60_000)));
        let remote = scope.clone();
        let begin = now();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(ms(5));
            remote.set_deadline(Some(std::time::Instant::now() + ms(5)));
        });
        assert_eq!(scope.run(sleep_forever()).await, Ok(None));
        assert!((ms(10)..ms(30_000)).contains(&(now() - begin)));
        thread.join().unwrap();
    });
}

#[test]
fn outside_of_a_run_an_operation_says_so() {
    let message = panic_of(|| {
        let mut sleep = pin!(sleep(ms(1)));
        let _ = sleep.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    });
    assert!(message.contains("outside of a run"), "{message}");
    let message = panic_of(|| {
        let mut scope = pin!(move_on_after(ms(1), async { Ok::<_, Cancelled>(()) }));
        let _ = scope.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    });
    assert!(message.contains("run"), "{message}");
}
