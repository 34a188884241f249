//! Cancellation as a state: R1–R9, and from other threads.
//!
//! | rule | here |
//! | --- | --- |
//! | R7 | a second `run` of a scope panics: `r7_*` |
//! | R8, "keeps the scope open for ever" | N13 b wins: in `swallowing.rs` |

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use trefoil_nursery::{
    CancelScope, Cancelled, EffectiveDeadline, Event, Source, cancel_cause, checkpoint, effective_deadline,
    local_nursery, move_on_after, now, shield, sleep, sleep_forever,
};
use trefoil_runtime::metrics;
use trefoil_tests::{CANCELLED, Ended, Trace, ms, panic_of, run_real, run_virtual};

fn is_effective() -> bool {
    effective_deadline() == EffectiveDeadline::Cancelled
}

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
