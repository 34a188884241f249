//! `Nursery::start`, until the child is ready: R68–R70, R73; and as any child: R58, N9.
//!
//! | rule | here |
//! | --- | --- |
//! | R70 | `Started::ready` takes the handle by value: twice does not compile |
//! | R73 ("a closed nursery") | the handle cannot be used where its nursery has ended |
//! | R74 | there is no name for the nursery that a child is going to have |

use super::fault::Fault;
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use trefoil_nursery::sync::Mutex;
use trefoil_nursery::{
    EffectiveDeadline, Started, checkpoint, effective_deadline, local_nursery, move_on_after, nursery, shield, sleep,
    sleep_forever, yield_now,
};
use trefoil_tests::{CANCELLED, OnDrop, Trace, begun, ms, panic_of, poll_once, run_real, run_virtual};

type Ended = Result<(), Fault>;

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
                    Err(Fault::No(1))
                })
                .await;
            // Not in a group.
            assert_eq!(out, Err(Fault::No(1)));
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
                            inner.spawn(async move { Err::<(), _>(Fault::No(i)) });
                        }
                        Ok(())
                    })
                    .await?;
                    Ok(())
                })
                .await;
            assert_eq!(out, Err(Fault::Group(vec![Fault::No(1), Fault::No(2)])));
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
                        Err(Fault::No(1))
                    })
                    .await;
                assert_eq!(out, Err(Fault::No(1)));
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
            assert_eq!(n.start(async |_: Started<'_, u8>| Ok(())).await, Err(Fault::NotStarted));
            // Also where it gave its handle away; one that comes too late is not heard.
            let kept = Cell::new(None);
            let out = n
                .start(|started: Started<'_, u8>| {
                    kept.set(Some(started));
                    async { Ok(()) }
                })
                .await;
            assert_eq!(out, Err(Fault::NotStarted));
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
            let start = begun(start).await;
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
fn n9_a_panic_before_it_is_ready_is_the_nurserys() {
    let text = panic_of(|| {
        run_virtual(async || {
            let _ = local_nursery(async |n| -> Ended {
                let out = n.start(async |_: Started<'_, ()>| -> Ended { panic!("in the child") }).await;
                assert_eq!(out, Err(Fault::Cancelled(CANCELLED)));
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
                Err::<(), _>(Fault::No(1))
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
        assert_eq!(ended.unwrap_err().into_vec(), [Fault::No(1)]);
        assert_eq!(t.lines(), ["3 child Err(Cancelled)", "3 body Err(Cancelled(Cancelled))"]);
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
