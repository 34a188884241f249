//! `Nursery::start`: R68–R73.
//!
//! | rule | here |
//! | --- | --- |
//! | R70 | `Started::ready` takes the handle by value: twice does not compile |
//! | R73 ("a closed nursery") | the handle cannot be used where its nursery has ended |
//! | R74 | there is no name for the nursery that a child is going to have |

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use trefoil_nursery::sync::Mutex;
use trefoil_nursery::{
    CancelAware, CancelScope, Cancelled, EffectiveDeadline, ErrorGroup, NotStarted, Started, checkpoint,
    effective_deadline, local_nursery, move_on_after, nursery, shield, sleep, sleep_forever, yield_now,
};
use trefoil_runtime::STRIKES;
use trefoil_tests::{OnDrop, Trace, drop_at, ms, panic_of, poll_once, run_real, run_virtual};

/// What fails here.
#[derive(Debug, PartialEq)]
enum Failure {
    Cancelled,
    NotStarted,
    Number(u32),
    Group(Vec<Failure>),
}

impl From<Cancelled> for Failure {
    fn from(_: Cancelled) -> Self {
        Failure::Cancelled
    }
}

impl From<NotStarted> for Failure {
    fn from(_: NotStarted) -> Self {
        Failure::NotStarted
    }
}

impl From<ErrorGroup<Failure>> for Failure {
    fn from(group: ErrorGroup<Failure>) -> Self {
        Failure::Group(group.into_vec())
    }
}

impl CancelAware for Failure {
    fn is_cancelled(&self) -> bool {
        match self {
            Failure::Cancelled => true,
            Failure::NotStarted | Failure::Number(_) => false,
            Failure::Group(all) => all.iter().all(CancelAware::is_cancelled),
        }
    }

    fn without_cancelled(self) -> Option<Self> {
        match self {
            Failure::Cancelled => None,
            Failure::Group(all) => {
                let left: Vec<_> = all.into_iter().filter_map(CancelAware::without_cancelled).collect();
                if left.is_empty() { None } else { Some(Failure::Group(left)) }
            }
            other => Some(other),
        }
    }
}

type Ended = Result<(), Failure>;

#[test]
fn r68_the_value_comes_out_and_the_child_goes_on() {
    run_virtual(async || {
        let t = Trace::new();
        local_nursery(async |n| -> Ended {
            let value = n
                .start(async |started| {
                    sleep(ms(3)).await?;
                    started.ready("value");
                    t.note("child", "is ready");
                    sleep(ms(4)).await?;
                    t.note("child", "ends");
                    Ok(())
                })
                .await?;
            t.note("body", value);
            Ok(())
        })
        .await
        .unwrap();
        t.note("nursery", "ends");
        assert_eq!(t.lines(), ["3 child is ready", "3 body value", "7 child ends", "7 nursery ends"]);
    });
}

#[test]
fn r68_an_error_before_it_is_ready_is_the_callers_alone() {
    run_virtual(async || {
        let t = Trace::new();
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                sleep(ms(9)).await?;
                t.note("sibling", "is not disturbed");
                Ok(())
            });
            let out = n
                .start(async |_: Started<'_, ()>| {
                    sleep(ms(2)).await?;
                    Err(Failure::Number(1))
                })
                .await;
            // Not in a group.
            assert_eq!(out, Err(Failure::Number(1)));
            assert!(!n.cancel_called());
            t.note("body", "goes on");
            checkpoint().await?;
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(t.lines(), ["2 body goes on", "9 sibling is not disturbed"]);
    });
}

#[test]
fn r68_a_group_comes_out_as_that_group() {
    run_virtual(async || {
        local_nursery(async |n| -> Ended {
            let out = n
                .start(async |_: Started<'_, ()>| {
                    local_nursery(async |inner| -> Ended {
                        for i in 1..3 {
                            inner.spawn(async move { Err::<(), _>(Failure::Number(i)) });
                        }
                        Ok(())
                    })
                    .await?;
                    Ok(())
                })
                .await;
            assert_eq!(out, Err(Failure::Group(vec![Failure::Number(1), Failure::Number(2)])));
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn r68_until_it_is_ready_the_callers_cancellation_and_deadlines_are_the_childs() {
    run_virtual(async || {
        let t = Trace::new();
        local_nursery(async |n| -> Ended {
            let out = move_on_after(ms(5), async {
                n.start(async |_: Started<'_, ()>| {
                    assert_eq!(effective_deadline(), EffectiveDeadline::At(t.at(5)));
                    let out = sleep_forever().await;
                    t.note("child", format_args!("{out:?}"));
                    // `start` waits for its clean-up.
                    shield(sleep(ms(3))).await?;
                    t.note("child", "ends");
                    Ok(out?)
                })
                .await
            })
            .await;
            t.note("body", format_args!("{out:?}"));
            assert!(!n.cancel_called());
            Ok(checkpoint().await?)
        })
        .await
        .unwrap();
        assert_eq!(t.lines(), ["5 child Err(Cancelled)", "8 child ends", "8 body Ok(None)"]);
    });
}

#[test]
fn r68_until_it_is_ready_the_nurserys_cancellation_is_not_the_childs() {
    run_virtual(async || {
        let t = Trace::new();
        local_nursery(async |n| -> Ended {
            shield(async {
                n.cancel();
                let out = n
                    .start(async |_: Started<'_, ()>| {
                        sleep(ms(2)).await?;
                        t.note("child", "is not cancelled");
                        Err(Failure::Number(1))
                    })
                    .await;
                assert_eq!(out, Err(Failure::Number(1)));
            })
            .await;
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(t.lines(), ["2 child is not cancelled"]);
    });
}

#[test]
fn r69_ending_without_being_ready_is_an_error() {
    run_virtual(async || {
        local_nursery(async |n| -> Ended {
            assert_eq!(n.start(async |_: Started<'_, u8>| Ok(())).await, Err(Failure::NotStarted));
            // Also where it gave its handle away; one that comes too late is not heard.
            let kept = Cell::new(None);
            let out = n
                .start(|started: Started<'_, u8>| {
                    kept.set(Some(started));
                    async { Ok(()) }
                })
                .await;
            assert_eq!(out, Err(Failure::NotStarted));
            kept.take().unwrap().ready(1);
            assert!(!n.cancel_called());
            Ok(())
        })
        .await
        .unwrap();
    });
    let error: std::io::Error = {
        let out = Cell::new(None);
        run_virtual(async || {
            local_nursery(async |n| -> std::io::Result<()> {
                out.set(n.start(async |_: Started<'_, u8>| Ok(())).await.err());
                Ok(())
            })
            .await
            .unwrap();
        });
        out.take().unwrap()
    };
    assert_eq!(error.to_string(), "the child ended without calling `Started::ready`");
}

#[test]
fn r70_ready_takes_the_handle_by_value() {
    let _once: fn(Started<'static, u8>, u8) = Started::ready;
}

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
                    Ok::<_, Failure>(sleep_forever().await?)
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
                Err(Failure::Number(1))
            })
            .await?;
            let out = sleep_forever().await;
            t.note("body", format_args!("{out:?}"));
            Ok(out?)
        })
        .await;
        assert_eq!(ended.unwrap_err().into_vec(), [Failure::Number(1)]);
        assert_eq!(t.lines(), ["2 body Err(Cancelled)"]);
    });
    // Also in the same step: `start` has its value by then.
    run_virtual(async || {
        let ended = local_nursery(async |n| -> Ended {
            let out = n
                .start(async |started| {
                    started.ready(5);
                    Err(Failure::Number(1))
                })
                .await;
            assert_eq!(out, Ok(5));
            Ok(())
        })
        .await;
        assert_eq!(ended.unwrap_err().into_vec(), [Failure::Number(1)]);
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
                            Err(Failure::Number(1))
                        })
                        .await;
                    // Its error is raised here.
                    assert_eq!(out, Err(Failure::Number(1)));
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
                    assert_eq!(out, Err(Failure::Cancelled));
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
                    Ok::<_, Failure>(checkpoint().await?)
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
fn r73_a_cancelled_nursery_takes_the_child_and_cancels_it() {
    run_virtual(async || {
        let t = Trace::new();
        local_nursery(async |n| -> Ended {
            shield(async {
                n.cancel();
                let out = n
                    .start(async |started| {
                        sleep(ms(2)).await?;
                        started.ready(5);
                        let out = sleep_forever().await;
                        t.note("child", format_args!("{out:?}"));
                        Ok(out?)
                    })
                    .await;
                assert_eq!(out, Ok(5));
                t.note("body", "started");
            })
            .await;
            Ok(())
        })
        .await
        .unwrap();
        let mut lines = t.lines();
        lines.sort();
        assert_eq!(lines, ["2 body started", "2 child Err(Cancelled)"]);
    });
}

#[test]
fn r73_a_pending_start_keeps_the_nursery_open() {
    run_virtual(async || {
        let (t, dropped) = (Trace::new(), AtomicUsize::new(0));
        local_nursery(async |n| -> Ended {
            // The caller gives up (N5), and the body ends at once: the child is cancelled, and the nursery waits for it.
            let start = n.start(async |started: Started<'_, ()>| {
                let _mark = OnDrop(&dropped);
                let out = sleep_forever().await;
                t.note("child", format_args!("{out:?}"));
                shield(sleep(ms(6))).await?;
                started.ready(());
                t.note("child", "ends");
                Ok(out?)
            });
            let mut start = Box::pin(start);
            assert!(poll_once(start.as_mut()).await.is_pending());
            sleep(ms(2)).await?;
            drop(start);
            t.note("body", "ends");
            Ok(())
        })
        .await
        .unwrap();
        t.note("nursery", "ends");
        assert_eq!(t.of("child"), ["2 child Err(Cancelled)", "8 child ends"]);
        assert_eq!(t.of("nursery"), ["8 nursery ends"]);
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
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
            let mut start = Box::pin(n.start(async |_: Started<'_, ()>| {
                failed.set(true);
                Err(Failure::Number(1))
            }));
            assert!(poll_once(start.as_mut()).await.is_pending());
            yield_now().await;
            assert!(failed.get() && !n.cancel_called());
            drop(start);
            Ok(sleep_forever().await?)
        })
        .await;
        assert_eq!(ended.unwrap_err().into_vec(), [Failure::Number(1)]);
    });
    // What goes wrong after the drop, too.
    run_virtual(async || {
        let ended = local_nursery(async |n| -> Ended {
            let start = n.start(async |_: Started<'_, ()>| {
                sleep_forever().await.unwrap_err();
                Err(Failure::Number(2))
            });
            assert!(drop_at(1, start).await.is_none());
            Ok(sleep_forever().await?)
        })
        .await;
        assert_eq!(ended.unwrap_err().into_vec(), [Failure::Number(2)]);
    });
}

#[test]
fn n9_a_panic_before_it_is_ready_is_the_nurserys() {
    let text = panic_of(|| {
        run_virtual(async || {
            let _ = local_nursery(async |n| -> Ended {
                let out = n.start(async |_: Started<'_, ()>| -> Ended { panic!("in the child") }).await;
                assert_eq!(out, Err(Failure::Cancelled));
                Ok(())
            })
            .await;
        });
    });
    assert_eq!(text, "in the child");
}

#[test]
fn r58_a_failing_sibling_cancels_a_start_by_way_of_its_caller() {
    run_virtual(async || {
        let t = Trace::new();
        let ended = local_nursery(async |n| -> Ended {
            n.spawn(async {
                sleep(ms(3)).await?;
                Err::<(), _>(Failure::Number(1))
            });
            let out = n
                .start(async |_: Started<'_, ()>| {
                    let out = sleep_forever().await;
                    t.note("child", format_args!("{out:?}"));
                    Ok(out?)
                })
                .await;
            t.note("body", format_args!("{out:?}"));
            out
        })
        .await;
        assert_eq!(ended.unwrap_err().into_vec(), [Failure::Number(1)]);
        assert_eq!(t.lines(), ["3 child Err(Cancelled)", "3 body Err(Cancelled)"]);
    });
}

#[test]
fn many_starts_at_once_and_starts_in_starts() {
    run_virtual(async || {
        let order = Cell::new(0);
        local_nursery(async |n| -> Ended {
            let starts: Vec<_> = (0..20u64)
                .map(|i| {
                    let order = &order;
                    n.start(async move |started| {
                        // One more within, into the same nursery, which is ready first.
                        let inner = n
                            .start(async move |started| {
                                sleep(ms(20 - i)).await?;
                                started.ready(i * 2);
                                Ok(sleep(ms(100)).await?)
                            })
                            .await?;
                        order.set(order.get() + 1);
                        started.ready(inner + 1);
                        Ok(())
                    })
                })
                .collect();
            let values = futures::future::try_join_all(starts).await?;
            assert_eq!(values, (0..20).map(|i| i * 2 + 1).collect::<Vec<_>>());
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(order.get(), 20);
    });
}

#[test]
fn starts_on_the_machines_clock_with_send_children() {
    fn send<T: Send>(future: T) -> T {
        future
    }
    run_real(async || {
        let total = Mutex::new(0);
        send(nursery(async |n| -> Ended {
            for i in 1..=10u32 {
                let total = &total;
                let value = send(n.start(move |started| {
                    send(async move {
                        let mut guard = total.lock().await?;
                        yield_now().await;
                        *guard += i;
                        started.ready(*guard);
                        Ok(())
                    })
                }))
                .await?;
                assert_eq!(value, (1..=i).sum());
            }
            Ok(())
        }))
        .await
        .unwrap();
        assert_eq!(total.into_inner(), 55);
    });
}

#[test]
fn a_start_does_nothing_until_it_is_awaited() {
    run_virtual(async || {
        let (called, began) = (Cell::new(false), Cell::new(false));
        local_nursery(async |n| -> Ended {
            let mut start = Box::pin(n.start(|started| {
                called.set(true);
                let began = &began;
                async move {
                    began.set(true);
                    started.ready(());
                    Ok(())
                }
            }));
            yield_now().await;
            assert!(!called.get());
            // The child begins in a turn of its own (R65).
            assert!(poll_once(start.as_mut()).await.is_pending());
            assert!(called.get() && !began.get());
            start.await
        })
        .await
        .unwrap();
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
                local_nursery(async |n| -> Result<(), Failure> {
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
