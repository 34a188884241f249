//! Soft cancels: asking to stop, with a grace period. What opted in with `until_soft_cancelled` ends, the rest goes on until the grace is
//! over. `scope_model.rs` has random programs of them.

use std::time::Duration;
use trefoil_nursery::{
    CancelScope, Cancelled, Source, cancel_cause, channel, checkpoint, effective_deadline, local_nursery,
    move_on_after, now, nursery, shield, sleep, sleep_forever, soft_cancelled, until_soft_cancelled, yield_now,
};
use trefoil_nursery::{EffectiveDeadline, ErrorGroup};
use trefoil_tests::{Trace, cancel_at, ms, run_real, run_virtual};

#[test]
fn a_soft_cancel_ends_who_opted_in_at_once_and_the_rest_after_the_grace() {
    run_virtual(async || {
        let trace = Trace::new();
        let scope = CancelScope::new();
        let ended = scope
            .run(local_nursery(async |n| -> Result<(), Cancelled> {
                n.spawn(async {
                    assert_eq!(until_soft_cancelled(sleep_forever()).await, Ok(None));
                    trace.note("polite", "stops");
                    sleep(ms(3)).await?;
                    trace.note("polite", "has cleaned up");
                    Ok(())
                });
                n.spawn(async {
                    sleep(ms(14)).await?;
                    trace.note("worker", "is done");
                    Ok(())
                });
                n.spawn(async {
                    let ended = sleep_forever().await;
                    trace.note("deaf", "is cut");
                    ended
                });
                sleep(ms(10)).await?;
                scope.cancel_softly(ms(5)); // base
                assert!(!scope.cancel_called() && scope.soft_cancel_called());
                Ok(())
            }))
            .await;
        let base = line!() - 5;
        let lines = ["10 polite stops", "13 polite has cleaned up", "14 worker is done", "15 deaf is cut"];
        assert_eq!(trace.lines(), lines);
        // R24: the deadline of `scope` ended it.
        assert!(ended.unwrap().is_none() && scope.cancelled_caught());
        let cause = scope.cause().unwrap();
        assert_eq!((cause.source, cause.place.line()), (Source::Deadline, base));
        // Nobody has set a deadline: it is said where it comes from.
        let text = cause.to_string();
        assert!(
            text.contains("the deadline of scope")
                && text.ends_with(&format!("; it was asked to stop by a call at soft.rs:{base}")),
            "{text}"
        );
    });
}

/// R36: what the operation in it waits for happened, or it did not.
#[test]
fn a_loop_that_takes_work_ends_and_loses_none() {
    run_virtual(async || {
        let (sender, receiver) = channel(10);
        let mut done = Vec::new();
        nursery(async |n| -> Result<(), Cancelled> {
            n.spawn(async {
                while let Some(job) = until_soft_cancelled(receiver.recv()).await?.flatten() {
                    sleep(ms(2)).await?;
                    done.push(job);
                }
                Ok(())
            });
            for job in 0..6 {
                sender.try_send(job).unwrap();
            }
            sleep(ms(5)).await?;
            n.cancel_softly(ms(100));
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(done, [0, 1, 2]);
        assert_eq!(receiver.len(), 3);
    });
}

#[test]
fn who_comes_later_is_told_at_the_entry() {
    run_virtual(async || {
        let scope = CancelScope::new();
        let ended = scope
            .run(async {
                scope.cancel_softly(ms(10));
                // R6: the body runs up to the first operation.
                let mut ran = false;
                let body = async {
                    ran = true;
                    checkpoint().await
                };
                assert_eq!(until_soft_cancelled(body).await, Ok(None));
                assert!(ran);
                // R29: one that is done returns its value.
                assert_eq!(until_soft_cancelled(async { Ok::<_, Cancelled>(7) }).await, Ok(Some(7)));
                // In a child, in a nursery opened later, too.
                nursery(async |n| -> Result<(), Cancelled> {
                    n.spawn(async {
                        assert_eq!(until_soft_cancelled(sleep_forever()).await, Ok(None));
                        Ok(())
                    });
                    Ok(())
                })
                .await
                .unwrap();
                checkpoint().await
            })
            .await;
        assert_eq!(ended, Ok(Some(())));
    });
}

/// R6.
#[test]
fn a_scope_softly_cancelled_before_it_is_entered_counts_the_grace_from_the_call() {
    run_virtual(async || {
        let begin = now();
        let scope = CancelScope::new();
        scope.cancel_softly(ms(10));
        sleep(ms(4)).await.unwrap();
        let ended = scope
            .run(async {
                assert!(soft_cancelled());
                assert_eq!(until_soft_cancelled(sleep_forever()).await, Ok(None));
                assert_eq!(effective_deadline(), EffectiveDeadline::At(begin + ms(10)));
                assert_eq!(scope.cause().unwrap().source, Source::Soft);
                sleep_forever().await
            })
            .await;
        assert_eq!((ended, now() - begin), (Ok(None), ms(10)));
    });
}

/// As any soft cancel does: what is below is looked at, and a deadline that has passed there is noticed (R14).
#[test]
fn r14_a_soft_cancel_of_a_cancelled_scope_reaches_those_below_it() {
    for grace in [ms(0), ms(5)] {
        run_virtual(async || {
            let (outer, stale) = (CancelScope::new(), CancelScope::new());
            outer.cancel();
            stale.set_shield(true);
            _ = outer
                .run(stale.run(async {
                    stale.set_deadline(Some(now()));
                    assert!(matches!(effective_deadline(), EffectiveDeadline::At(_)), "nobody has looked");
                    outer.cancel_softly(grace);
                    assert_eq!(effective_deadline(), EffectiveDeadline::Cancelled, "{grace:?}");
                    Ok::<_, Cancelled>(())
                }))
                .await;
        });
    }
}

#[test]
fn a_second_soft_cancel_shortens_and_never_lengthens() {
    run_virtual(async || {
        for (second, ends) in [(ms(2), ms(3)), (ms(50), ms(10)), (Duration::ZERO, ms(1)), (Duration::MAX, ms(10))] {
            let begin = now();
            let scope = CancelScope::new();
            let ended = scope
                .run(async {
                    scope.cancel_softly(ms(10));
                    sleep(ms(1)).await?;
                    scope.cancel_softly(second);
                    sleep_forever().await
                })
                .await;
            assert_eq!((ended, now() - begin), (Ok(None), ends), "{second:?}");
        }
    });
}

#[test]
fn an_earlier_deadline_stays_and_a_deadline_set_later_replaces_the_grace() {
    run_virtual(async || {
        let begin = now();
        let ended = move_on_after(ms(3), async {
            let scope = CancelScope::new();
            scope.set_deadline(Some(now() + ms(2)));
            let ended = scope
                .run(async {
                    scope.cancel_softly(ms(10));
                    sleep_forever().await
                })
                .await;
            assert_eq!((ended, now() - begin), (Ok(None), ms(2)));
            let scope = CancelScope::new();
            scope
                .run(async {
                    scope.cancel_softly(ms(1));
                    scope.set_deadline(None); // R48
                    sleep_forever().await
                })
                .await
        })
        .await;
        assert_eq!((ended, now() - begin), (Ok(None), ms(3)));
    });
}

#[test]
fn no_grace_is_a_cancel_at_once() {
    run_virtual(async || {
        let scope = CancelScope::new();
        let ended = scope
            .run(async {
                scope.cancel_softly(Duration::ZERO);
                assert!(scope.cancel_called() && scope.soft_cancel_called() && soft_cancelled());
                checkpoint().await
            })
            .await;
        assert_eq!((ended, scope.cause().unwrap().source), (Ok(None), Source::Explicit));
    });
}

#[test]
fn a_hard_cancel_is_heard_as_a_soft_one_too() {
    run_virtual(async || {
        let scope = CancelScope::new();
        let ended = scope
            .run(async {
                assert!(!soft_cancelled());
                scope.cancel();
                assert!(soft_cancelled() && !scope.soft_cancel_called());
                // R24: the outer one is cancelled, so it goes on outward.
                assert!(until_soft_cancelled(sleep_forever()).await.is_err());
                sleep_forever().await
            })
            .await;
        assert_eq!(ended, Ok(None));
    });
}

/// R24: cancelled hard meanwhile, the outer scope is the one that absorbs.
#[test]
fn a_cancel_that_turns_hard_before_the_polite_scope_is_left_goes_on_outward() {
    run_virtual(async || {
        let scope = CancelScope::new();
        let ended = scope
            .run(async {
                scope.cancel_softly(ms(1));
                let ended = until_soft_cancelled(async {
                    let told = sleep_forever().await;
                    shield(async { sleep(ms(5)).await.unwrap() }).await;
                    told
                })
                .await;
                assert!(ended.is_err());
                ended.map(drop)
            })
            .await;
        assert_eq!(ended, Ok(None));
        assert!(scope.cancelled_caught());
    });
}

/// R24.
#[test]
fn of_nested_polite_scopes_the_outermost_absorbs() {
    run_virtual(async || {
        nursery(async |n| -> Result<(), Cancelled> {
            n.spawn(async {
                let outer = until_soft_cancelled(async {
                    let inner = until_soft_cancelled(sleep_forever()).await;
                    assert!(inner.is_err());
                    inner.map(drop)
                })
                .await;
                assert_eq!(outer, Ok(None));
                checkpoint().await
            });
            yield_now().await;
            n.cancel_softly(ms(1));
            Ok(())
        })
        .await
        .unwrap();
    });
}

/// R32, R33: as a hard cancel.
#[test]
fn a_shield_holds_it_off_until_it_is_lowered() {
    run_virtual(async || {
        let trace = Trace::new();
        let shielded = CancelScope::new();
        shielded.set_shield(true);
        local_nursery(async |n| -> Result<(), Cancelled> {
            n.spawn(shielded.run(async {
                assert_eq!(until_soft_cancelled(sleep_forever()).await, Ok(None));
                trace.note("polite", "stops");
                assert!(soft_cancelled());
                shielded.set_shield(true);
                assert!(!soft_cancelled()); // for those to come it is taken back
                assert_eq!(until_soft_cancelled(sleep(ms(1))).await, Ok(Some(())));
                Ok(())
            }));
            n.spawn(async {
                sleep(ms(5)).await?;
                shielded.set_shield(false);
                Ok(())
            });
            sleep(ms(1)).await?;
            n.cancel_softly(ms(100));
            assert!(soft_cancelled());
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(trace.lines(), ["5 polite stops"]);
    });
}

/// R32: its own, and that of scopes inside.
#[test]
fn a_shield_does_not_hold_off_the_soft_cancel_of_its_own_scope() {
    run_virtual(async || {
        let scope = CancelScope::new();
        scope.set_shield(true);
        let ended = scope
            .run(async {
                scope.cancel_softly(ms(10));
                assert_eq!(until_soft_cancelled(sleep_forever()).await, Ok(None));
                Ok::<_, Cancelled>(())
            })
            .await;
        assert_eq!(ended, Ok(Some(())));
    });
}

/// R62: a child belongs to the nursery that it was spawned into.
#[test]
fn it_goes_down_the_tree_and_not_to_children_spawned_outward() {
    run_virtual(async || {
        let scope = CancelScope::new();
        local_nursery(async |n| -> Result<(), Cancelled> {
            let inner = async {
                n.spawn(async {
                    assert_eq!(until_soft_cancelled(sleep(ms(2))).await, Ok(Some(())));
                    Ok(())
                });
                scope.cancel_softly(ms(1));
                until_soft_cancelled(sleep_forever()).await
            };
            assert_eq!(scope.run(inner).await, Ok(Some(None)));
            assert!(!soft_cancelled());
            Ok(())
        })
        .await
        .unwrap();
    });
}

/// R5.
#[test]
fn the_cause_names_who_asked_and_then_who_cut() {
    run_virtual(async || {
        let (outer, inner) = (CancelScope::new(), CancelScope::new());
        let ended = outer
            .run(inner.run(async {
                inner.cancel_softly(ms(50));
                let asked = line!() - 1;
                let seen = until_soft_cancelled(async {
                    let told = sleep_forever().await;
                    let cause = cancel_cause().unwrap();
                    assert_eq!((cause.source, cause.place.line()), (Source::Soft, asked));
                    told
                });
                assert_eq!(seen.await, Ok(None));
                assert!(cancel_cause().is_none()); // not cancelled here
                outer.cancel();
                assert_eq!(cancel_cause().unwrap().source, Source::Explicit);
                assert_eq!(inner.cause().unwrap().place.line(), line!() - 2);
                checkpoint().await
            }))
            .await;
        assert_eq!(ended, Ok(None));
        assert_eq!(inner.cause().unwrap().source, Source::Explicit);
    });
}

/// R15, from a thread without a run.
#[test]
fn it_comes_from_any_thread() {
    run_real(async || {
        let scope = CancelScope::new();
        let remote = scope.clone();
        let thread = std::thread::spawn(move || remote.cancel_softly(Duration::from_secs(3600)));
        let ended = scope.run(async { until_soft_cancelled(sleep_forever()).await }).await;
        assert_eq!(ended, Ok(Some(None)));
        thread.join().unwrap();
    });
}

/// R71: a child of `start` that becomes the nursery's hears the nursery's soft cancel, and not the caller's any more.
#[test]
fn a_child_that_start_hands_over_hears_the_nursery_and_not_the_caller() {
    for nursery_stops in [true, false] {
        run_virtual(async || {
            let trace = Trace::new();
            let caller = CancelScope::new();
            let result: Result<(), ErrorGroup<std::io::Error>> = local_nursery(async |n| {
                let started = caller
                    .run(async {
                        let service = n.start(async |started| {
                            started.ready(());
                            let ended = until_soft_cancelled(sleep(ms(20))).await?;
                            trace.note("service", if ended.is_some() { "ends" } else { "stops" });
                            Ok(())
                        });
                        service.await?;
                        if !nursery_stops {
                            caller.cancel_softly(ms(50));
                        }
                        Ok::<_, std::io::Error>(())
                    })
                    .await?;
                assert_eq!(started, Some(()));
                sleep(ms(5)).await?;
                if nursery_stops {
                    n.cancel_softly(ms(50));
                }
                Ok(())
            })
            .await;
            result.unwrap();
            assert_eq!(trace.lines(), [if nursery_stops { "5 service stops" } else { "20 service ends" }]);
        });
    }
}

/// R68: before that it is the caller's.
#[test]
fn a_child_that_start_has_not_handed_over_hears_the_caller() {
    run_virtual(async || {
        let caller = CancelScope::new();
        let result: Result<(), ErrorGroup<std::io::Error>> = local_nursery(async |n| {
            let started = caller
                .run(async {
                    caller.cancel_softly(ms(50));
                    n.start(async |started| {
                        assert!(soft_cancelled());
                        assert!(until_soft_cancelled(sleep_forever()).await?.is_none());
                        started.ready(7);
                        // Told once is told for good only while it is under the caller.
                        assert!(!soft_cancelled());
                        Ok(())
                    })
                    .await
                })
                .await?;
            assert_eq!(started, Some(7));
            Ok(())
        })
        .await;
        result.unwrap();
    });
}

/// A future that is moved half way belongs to the scope that polls it.
#[test]
fn a_polite_scope_that_is_moved_hears_the_scope_that_polls_it() {
    run_virtual(async || {
        let (first, second) = (CancelScope::new(), CancelScope::new());
        let mut moved = Box::pin(until_soft_cancelled(sleep_forever()));
        let polled = first.run(async {
            assert!(trefoil_tests::poll_once(moved.as_mut()).await.is_pending());
            Ok::<_, Cancelled>(())
        });
        polled.await.unwrap();
        let ended = second
            .run(async {
                assert!(trefoil_tests::poll_once(moved.as_mut()).await.is_pending());
                first.cancel_softly(ms(1));
                assert!(trefoil_tests::poll_once(moved.as_mut()).await.is_pending());
                second.cancel_softly(ms(1));
                moved.as_mut().await
            })
            .await;
        assert_eq!(ended, Ok(Some(None)));

        // Out of a scope that was asked to stop, and has been told, into one that was not.
        let scope = CancelScope::new();
        let mut moved = Box::pin(until_soft_cancelled(async {
            shield(sleep(ms(1))).await?;
            sleep(ms(1)).await
        }));
        let polled = scope.run(async {
            assert!(trefoil_tests::poll_once(moved.as_mut()).await.is_pending());
            scope.cancel_softly(ms(1));
            Ok::<_, Cancelled>(())
        });
        polled.await.unwrap();
        assert_eq!(moved.await, Ok(Some(())));
    });
}

/// N13 (a): a body that waits for nothing we know is dropped, in a polite scope only.
#[test]
fn a_foreign_wait_in_a_polite_scope_is_dropped() {
    run_virtual(async || {
        let foreign = || async {
            std::future::pending::<()>().await;
            Ok::<_, Cancelled>(())
        };
        let begin = now();
        let scope = CancelScope::new();
        let ended = scope
            .run(nursery(async |n| -> Result<(), Cancelled> {
                n.spawn(async {
                    assert_eq!(until_soft_cancelled(foreign()).await, Ok(None));
                    assert_eq!(now(), begin);
                    Ok(())
                });
                n.spawn(foreign());
                yield_now().await;
                scope.cancel_softly(ms(7));
                Ok(())
            }))
            .await;
        assert!(ended.unwrap().is_none());
        assert_eq!(now() - begin, ms(7));
    });
}

/// R9, and R2 at every depth.
#[test]
fn it_reaches_through_a_thousand_scopes() {
    run_virtual(async || {
        let scope = CancelScope::new();
        let body: std::pin::Pin<Box<dyn Future<Output = Result<Option<()>, Cancelled>>>> =
            Box::pin(until_soft_cancelled(sleep_forever()));
        let deep = (0..1000).fold(body, |inner, _| {
            Box::pin(async { Ok(CancelScope::new().run(inner).await?.expect("not cancelled itself")) })
        });
        let ended = local_nursery(async |n| -> Result<Option<()>, Cancelled> {
            let inside = n.spawn(async { Ok(scope.run(deep).await?.expect("not cancelled itself")) });
            yield_now().await;
            scope.cancel_softly(ms(1));
            inside.await
        })
        .await;
        assert_eq!(ended.unwrap(), None);
    });
}

/// A cancel at every await of a program that stops politely.
#[test]
fn cancelled_hard_at_every_await_it_ends_and_leaves_nothing() {
    run_virtual(async || {
        for k in 0.. {
            let program = async {
                let scope = CancelScope::new();
                scope
                    .run(async {
                        until_soft_cancelled(sleep(ms(1))).await?;
                        scope.cancel_softly(ms(5));
                        assert_eq!(until_soft_cancelled(sleep(ms(1))).await?, None);
                        sleep(ms(1)).await?;
                        sleep(ms(1)).await
                    })
                    .await
            };
            let (ended, cancelled) = cancel_at(k, program).await;
            match ended {
                Ok(Some(Some(()))) => assert!(!cancelled),
                other => assert_eq!(other, Ok(None)),
            }
            if !cancelled {
                assert!(k > 2);
                return;
            }
        }
    });
}

/// The task tree says it.
#[test]
fn the_task_tree_shows_who_was_asked_to_stop() {
    run_virtual(async || {
        local_nursery(async |n| -> Result<(), Cancelled> {
            n.spawn(sleep(ms(1)));
            yield_now().await;
            n.cancel_softly(Duration::MAX);
            let text = trefoil_runtime::tree().to_string();
            assert!(text.contains("1 child, asked to stop"), "{text}");
            Ok(())
        })
        .await
        .unwrap();
    });
}
