//! A child that is ready is the nursery's, and one whose `start` is dropped or cancelled is what it was: R71, R72, N5, N13, N15.

use super::fault::Fault;
use std::cell::Cell;
use trefoil_nursery::{
    CancelScope, Cancelled, EffectiveDeadline, Started, checkpoint, effective_deadline, local_nursery, move_on_after,
    shield, sleep, sleep_forever, yield_now,
};
use trefoil_runtime::STRIKES;
use trefoil_tests::{CANCELLED, Trace, drop_at, ms, poll_once, run_virtual};

type Ended = Result<(), Fault>;

#[test]
fn r71_once_ready_the_callers_cancellation_reaches_nothing_of_it() {
    run_virtual(async || {
        let (t, scope) = (Trace::new(), CancelScope::new());
        scope.set_deadline(Some(t.at(10)));
        local_nursery(async |n| -> Ended {
            let out = scope
                .run(async {
                    n.start(async |started| {
                        // A scope, a nursery and a task of its own, from before.
                        let inner = move_on_after(ms(50), async {
                            local_nursery(async |below| -> Ended {
                                below.spawn(async {
                                    sleep(ms(20)).await?;
                                    t.note("below", "ends");
                                    Ok(())
                                });
                                sleep(ms(1)).await?;
                                assert_eq!(effective_deadline(), EffectiveDeadline::At(t.at(10)));
                                started.ready(());
                                assert_eq!(effective_deadline(), EffectiveDeadline::At(t.at(50)));
                                sleep(ms(15)).await?;
                                t.note("child", "ends");
                                Ok(())
                            })
                            .await
                        });
                        assert!(inner.await?.is_some());
                        Ok(())
                    })
                    .await?;
                    t.note("body", "started");
                    scope.cancel();
                    Ok::<_, Fault>(sleep_forever().await?)
                })
                .await;
            assert_eq!(out, Ok(None));
            t.note("body", "cancelled");
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(t.lines(), ["1 body started", "1 body cancelled", "16 child ends", "20 below ends"]);
    });

    // The scope around the caller has a deadline that the child had, and has no more.
    run_virtual(async || {
        let t = Trace::new();
        local_nursery(async |n| -> Ended {
            move_on_after(ms(10), async {
                n.start(async |started| {
                    started.ready(());
                    assert_eq!(effective_deadline(), EffectiveDeadline::Never);
                    sleep(ms(30)).await?;
                    t.note("child", "ends");
                    Ok(())
                })
                .await
            })
            .await?;
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(t.lines(), ["30 child ends"]);
    });
}

#[test]
fn r71_once_ready_the_nurserys_cancellation_reaches_all_of_it() {
    run_virtual(async || {
        let t = Trace::new();
        local_nursery(async |n| -> Ended {
            shield(async {
                n.start(async |started| {
                    local_nursery(async |below| -> Ended {
                        below.spawn(async {
                            let out = sleep_forever().await;
                            t.note("below", format_args!("{out:?}"));
                            Ok(out?)
                        });
                        checkpoint().await?;
                        started.ready(());
                        let out = sleep_forever().await;
                        t.note("child", format_args!("{out:?}"));
                        Ok(out?)
                    })
                    .await?;
                    Ok(())
                })
                .await
            })
            .await?;
            sleep(ms(4)).await?;
            n.cancel();
            Ok(())
        })
        .await
        .unwrap();
        let mut lines = t.lines();
        lines.sort();
        assert_eq!(lines, ["4 below Err(Cancelled)", "4 child Err(Cancelled)"]);
    });
}

#[test]
fn r71_once_ready_its_error_is_the_nurserys() {
    run_virtual(async || {
        let t = Trace::new();
        let ended = local_nursery(async |n| -> Ended {
            n.start(async |started| {
                started.ready(());
                sleep(ms(2)).await?;
                Err(Fault::No(1))
            })
            .await?;
            let out = sleep_forever().await;
            t.note("body", format_args!("{out:?}"));
            Ok(out?)
        })
        .await;
        assert_eq!(ended.unwrap_err().into_vec(), [Fault::No(1)]);
        assert_eq!(t.lines(), ["2 body Err(Cancelled)"]);
    });
    // Also in the same step: `start` has its value by then.
    run_virtual(async || {
        let ended = local_nursery(async |n| -> Ended {
            let out = n
                .start(async |started| {
                    started.ready(5);
                    Err(Fault::No(1))
                })
                .await;
            assert_eq!(out, Ok(5));
            Ok(())
        })
        .await;
        assert_eq!(ended.unwrap_err().into_vec(), [Fault::No(1)]);
    });
}

#[test]
fn r72_ready_under_a_cancelled_caller_moves_nothing() {
    run_virtual(async || {
        let (t, scope) = (Trace::new(), CancelScope::new());
        local_nursery(async |n| -> Ended {
            scope.cancel();
            let out = scope
                .run(async {
                    let out = n
                        .start(async |started| {
                            started.ready(7);
                            assert_eq!(effective_deadline(), EffectiveDeadline::Cancelled);
                            let out = sleep_forever().await;
                            t.note("child", format_args!("{out:?}"));
                            Err(Fault::No(1))
                        })
                        .await;
                    // Its error is raised here.
                    assert_eq!(out, Err(Fault::No(1)));
                    // One that ends cleanly, without an operation: its value.
                    let out = n
                        .start(async |started| {
                            started.ready(8);
                            Ok(())
                        })
                        .await;
                    assert_eq!(out, Ok(8));
                    // One that never was ready.
                    let out = n.start(async |_: Started<'_, u8>| Ok(checkpoint().await?)).await;
                    assert_eq!(out, Err(Fault::Cancelled(CANCELLED)));
                    out.map(|_| ())
                })
                .await;
            assert_eq!(out, Ok(None));
            assert!(!n.cancel_called());
            Ok(checkpoint().await?)
        })
        .await
        .unwrap();
        assert_eq!(t.lines(), ["0 child Err(Cancelled)"]);
    });
}

#[test]
fn r72_ready_wins_over_a_cancel_that_comes_after_it_in_the_same_step() {
    run_virtual(async || {
        let (t, scope) = (Trace::new(), CancelScope::new());
        local_nursery(async |n| -> Ended {
            let out = scope
                .run(async {
                    let out = n
                        .start(async |started| {
                            checkpoint().await?;
                            started.ready(7);
                            scope.cancel();
                            sleep(ms(5)).await?;
                            t.note("child", "ends");
                            Ok(())
                        })
                        .await;
                    assert_eq!(out, Ok(7));
                    Ok::<_, Fault>(checkpoint().await?)
                })
                .await;
            assert_eq!(out, Ok(None));
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(t.lines(), ["5 child ends"]);
    });
    // And the other way round it loses.
    run_virtual(async || {
        let scope = CancelScope::new();
        local_nursery(async |n| -> Ended {
            let out = scope
                .run(async {
                    n.start(async |started| {
                        checkpoint().await?;
                        scope.cancel();
                        started.ready(7);
                        Ok(checkpoint().await?)
                    })
                    .await
                })
                .await;
            assert_eq!(out, Ok(None));
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn n5_a_start_that_is_dropped_at_any_of_its_polls_cancels_the_child_or_has_handed_it_over() {
    for k in 0..6 {
        run_virtual(async || {
            let (began, ended, ready) = (Cell::new(0), Cell::new(0), Cell::new(false));
            local_nursery(async |n| -> Ended {
                let start = n.start(async |started| {
                    began.set(began.get() + 1);
                    let out: Result<(), Cancelled> = async {
                        checkpoint().await?;
                        checkpoint().await?;
                        started.ready(());
                        ready.set(true);
                        sleep(ms(1)).await
                    }
                    .await;
                    ended.set(ended.get() + 1);
                    // Before it is ready it is told, after that it is the nursery's.
                    assert_eq!(out.is_ok(), ready.get(), "{k}");
                    Ok(out?)
                });
                drop_at(k, start).await;
                Ok(())
            })
            .await
            .unwrap();
            assert_eq!(began.get(), ended.get(), "{k}");
            assert!(k != 0 || began.get() == 0, "not polled, not begun");
        });
    }
}

#[test]
fn n15_an_error_that_a_dropped_start_has_not_seen_is_the_nurserys() {
    run_virtual(async || {
        let failed = Cell::new(false);
        let ended = local_nursery(async |n| -> Ended {
            let mut start = Box::pin(n.start_named("early", async |_: Started<'_, ()>| {
                failed.set(true);
                Err(Fault::No(1))
            }));
            assert!(poll_once(start.as_mut()).await.is_pending());
            yield_now().await;
            assert!(failed.get() && !n.cancel_called());
            drop(start);
            Ok(sleep_forever().await?)
        })
        .await;
        let group = ended.unwrap_err();
        assert_eq!(group.failures()[0].by.as_ref().and_then(|by| by.name()), Some("early"));
        assert_eq!(group.into_vec(), [Fault::No(1)]);
    });
    // What goes wrong after the drop, too.
    run_virtual(async || {
        let ended = local_nursery(async |n| -> Ended {
            let start = n.start_named("late", async |_: Started<'_, ()>| {
                sleep_forever().await.unwrap_err();
                Err(Fault::No(2))
            });
            assert!(drop_at(1, start).await.is_none());
            Ok(sleep_forever().await?)
        })
        .await;
        let group = ended.unwrap_err();
        assert_eq!(group.failures()[0].by.as_ref().and_then(|by| by.name()), Some("late"));
        assert_eq!(group.into_vec(), [Fault::No(2)]);
    });
}

/// N13 (b): the child is told in the place of the caller, which swallows that and goes on.
#[test]
fn n13_a_loop_of_starts_that_swallows_a_cancellation_ends() {
    run_virtual(async || {
        for foreign in [false, true] {
            let starts = Cell::new(0);
            let ended = move_on_after(
                ms(1),
                local_nursery(async |n| -> Result<(), Fault> {
                    loop {
                        starts.set(starts.get() + 1);
                        assert!(starts.get() <= 2 * STRIKES, "it would go on for ever");
                        let _ = n
                            .start(async |started: Started<'_, ()>| {
                                if foreign {
                                    std::future::pending::<()>().await;
                                }
                                sleep_forever().await?;
                                started.ready(());
                                Ok(())
                            })
                            .await;
                    }
                }),
            );
            assert_eq!(ended.await.unwrap(), None);
            assert!(starts.get() > STRIKES);
        }
    });
}
