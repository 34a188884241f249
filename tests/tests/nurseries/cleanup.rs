//! `with_cleanup`: clean-ups run last first, shielded and for a limited time, whether the block returns, fails, is cancelled or panics.
//! R27, R32, R60, N9, N12, N13, N15.

use super::fault::Fault;
use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;
use trefoil_nursery::{
    CancelAware, CancelScope, Cancelled, Cleanup, TimedOut, checkpoint, local_nursery, local_with_cleanup,
    move_on_after, nursery, race, sleep, sleep_forever, with_cleanup,
};
use trefoil_tests::{How, OnDrop, Trace, drop_at, ms, run_virtual, stop, stops};

const LIMIT: Duration = ms(100);

/// Awaits a future and catches its panic.
async fn caught<F: Future>(future: F) -> Result<F::Output, String> {
    let mut future = Box::pin(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(polled) => polled.map(Ok),
        Err(payload) => Poll::Ready(Err(payload.downcast_ref::<&str>().map_or("no text", |text| text).to_string())),
    })
    .await
}

#[test]
fn clean_ups_run_last_first_and_one_after_the_other() {
    run_virtual(async || {
        let trace = Trace::new();
        let value = with_cleanup(LIMIT, async |c| -> Result<u32, Fault> {
            for i in 1..4 {
                let trace = &trace;
                c.defer(async move {
                    trace.note("c", format!("{i} begins"));
                    sleep(ms(10)).await?;
                    trace.note("c", format!("{i} ends"));
                    Ok(())
                });
            }
            assert_eq!(format!("{c:?}"), "Cleanup { deferred: 3 }");
            sleep(ms(1)).await?;
            Ok(7)
        })
        .await;
        assert_eq!(value.unwrap(), 7);
        assert_eq!(
            trace.lines(),
            ["1 c 3 begins", "11 c 3 ends", "11 c 2 begins", "21 c 2 ends", "21 c 1 begins", "31 c 1 ends"]
        );
    });
}

#[test]
fn n15_the_errors_of_block_and_clean_ups_come_out_in_order() {
    run_virtual(async || {
        let group = with_cleanup(LIMIT, async |c| -> Result<(), Fault> {
            c.defer(async { Err(Fault::No(3)) });
            c.defer(async { Ok(()) });
            c.defer(async { Err(Fault::No(2)) });
            Err(Fault::No(1))
        })
        .await;
        assert_eq!(group.unwrap_err().into_vec(), [Fault::No(1), Fault::No(2), Fault::No(3)]);
        let group = with_cleanup(LIMIT, async |c| {
            c.defer(async { Err(Fault::No(2)) });
            Ok("a value that could not be cleaned up after")
        })
        .await;
        assert_eq!(group.unwrap_err().into_vec(), [Fault::No(2)]);
    });
}

#[test]
fn r32_a_cancel_from_outside_does_not_reach_clean_ups() {
    run_virtual(async || {
        let trace = Trace::new();
        let ended = move_on_after(ms(5), async {
            let ended = with_cleanup(LIMIT, async |c| -> Result<(), Fault> {
                c.defer(async {
                    sleep(ms(10)).await?;
                    trace.note("c", "is done");
                    Ok(())
                });
                Ok(sleep_forever().await?)
            })
            .await;
            assert!(ended.as_ref().is_err_and(CancelAware::is_cancelled));
            assert!(checkpoint().await.is_err(), "and outside of them it is cancelled as before");
            ended
        })
        .await;
        assert_eq!((ended.unwrap(), trace.lines()), (None, vec!["15 c is done".into()]));
        // A value that came first is kept.
        let scope = CancelScope::new();
        let ended = scope
            .run(with_cleanup(LIMIT, async |c| -> Result<u32, Fault> {
                c.defer(async { Ok(sleep(ms(10)).await?) });
                scope.cancel();
                Ok(3)
            }))
            .await;
        assert_eq!(ended.unwrap(), Some(3));
    });
}

#[test]
fn r27_r60_the_scope_outside_takes_the_cancellation_and_leaves_the_errors() {
    run_virtual(async || {
        let ended = move_on_after(ms(5), async {
            let ended = with_cleanup(LIMIT, async |c| -> Result<(), Fault> {
                c.defer(async { Err(Fault::No(1)) });
                Ok(sleep_forever().await?)
            })
            .await;
            assert_eq!(ended.as_ref().unwrap_err().len(), 2);
            ended
        })
        .await;
        assert_eq!(ended.unwrap_err().into_vec(), [Fault::No(1)]);
    });
}

#[test]
fn a_clean_up_that_takes_too_long_is_cancelled_and_reported() {
    run_virtual(async || {
        let trace = Trace::new();
        let group = with_cleanup(ms(10), async |c| -> Result<(), Fault> {
            c.defer(async {
                trace.note("last", "runs");
                Ok(())
            });
            c.defer(async { Ok(sleep_forever().await?) });
            c.defer(async {
                // It is told, and can still end in order; then that is how it ended (R29).
                let _ = sleep_forever().await;
                Ok(())
            });
            c.defer(async {
                let _ = sleep_forever().await;
                Err(Fault::No(1))
            });
            // N13: it cannot be told.
            c.defer(async {
                pending::<()>().await;
                Ok(())
            });
            Ok(())
        })
        .await;
        let errors = group.unwrap_err().into_vec();
        let late = || Fault::TimedOut(TimedOut::new());
        assert_eq!(errors, [late(), Fault::No(1), late()]);
        assert_eq!(trace.lines(), ["40 last runs"]);
        let slow: io::Result<()> = with_cleanup(ms(10), async |c| {
            c.defer(async { Ok(sleep_forever().await?) });
            Ok(())
        })
        .await
        .map_err(io::Error::from);
        assert_eq!(slow.unwrap_err().kind(), io::ErrorKind::TimedOut);
    });
}

#[test]
fn a_clean_up_defers_more_and_that_runs_next() {
    run_virtual(async || {
        let order = RefCell::new(vec![]);
        local_with_cleanup(LIMIT, async |c| -> Result<(), Fault> {
            c.defer(async {
                order.borrow_mut().push(1);
                Ok(())
            });
            let (more, order) = (c.clone(), &order);
            c.defer(async move {
                order.borrow_mut().push(2);
                let again = more.clone();
                more.defer(async move {
                    order.borrow_mut().push(3);
                    again.defer(async {
                        order.borrow_mut().push(4);
                        Ok(())
                    });
                    Ok(())
                });
                checkpoint().await?;
                Ok(())
            });
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(order.take(), [2, 3, 4, 1]);
    });
}

#[test]
fn children_of_a_nursery_in_the_block_defer_too() {
    async fn open<'s, 'env>(c: &Cleanup<'s, 'env, Fault>, closed: &'s Mutex<Vec<u64>>, n: u64) -> Result<(), Fault> {
        sleep(ms(n)).await?;
        c.defer(async move {
            closed.lock().unwrap().push(n);
            Ok(())
        });
        Ok(())
    }
    run_virtual(async || {
        let closed = Mutex::new(vec![]);
        with_cleanup(LIMIT, async |c| -> Result<(), Fault> {
            let (c, closed) = (&c, &closed);
            let opened = nursery(async |n| {
                for i in [3, 1, 2] {
                    n.spawn(async move { open(c, closed, i).await });
                }
                Ok(())
            });
            opened.await.map_err(trefoil_nursery::ErrorGroup::into_first)
        })
        .await
        .unwrap();
        assert_eq!(closed.into_inner().unwrap(), [3, 2, 1]);
    });
}

#[test]
fn n9_clean_ups_run_on_a_panic_of_the_block() {
    run_virtual(async || {
        let trace = Trace::new();
        let text = caught(with_cleanup(LIMIT, async |c| -> Result<(), Fault> {
            c.defer(async {
                sleep(ms(5)).await?;
                trace.note("c", "is done");
                Err(Fault::No(1)) // logged
            });
            checkpoint().await?;
            panic!("oops")
        }))
        .await;
        assert_eq!(text.unwrap_err(), "oops");
        assert_eq!(trace.lines(), ["5 c is done"]);
    });
}

#[test]
fn n9_clean_ups_run_on_a_panic_of_another_one_and_the_first_panic_comes_out() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in a destructor");
        }
    }
    run_virtual(async || {
        let ran = Cell::new(0);
        for which in 0..3 {
            ran.set(0);
            let text = caught(local_with_cleanup(LIMIT, async |c| -> Result<(), Fault> {
                c.defer(async {
                    ran.set(ran.get() + 1);
                    Ok(())
                });
                c.defer(async { panic!("second") });
                c.defer(async {
                    if which == 1 {
                        panic!("first");
                    }
                    Ok(())
                });
                let _bomb = (which == 2).then(|| Bomb);
                checkpoint().await?;
                Err(Fault::No(1))
            }))
            .await;
            assert_eq!(text.unwrap_err(), ["second", "first", "in a destructor"][which]);
            assert_eq!(ran.get(), 1);
        }
    });
}

#[test]
fn n13_a_block_that_cannot_be_told_is_dropped_and_clean_ups_run() {
    run_virtual(async || {
        let trace = Trace::new();
        let dropped = AtomicUsize::new(0);
        let ended = move_on_after(
            ms(5),
            with_cleanup(LIMIT, async |c| -> Result<(), Fault> {
                let _guard = OnDrop(&dropped);
                c.defer(async {
                    assert_eq!(dropped.load(Ordering::SeqCst), 1, "the block is gone by now");
                    sleep(ms(5)).await?;
                    trace.note("c", "is done");
                    Ok(())
                });
                pending::<()>().await;
                Ok(())
            }),
        )
        .await;
        assert_eq!((ended.unwrap(), trace.lines()), (None, vec!["10 c is done".into()]));
    });
}

#[test]
fn n13_a_block_that_swallows_is_ended_and_clean_ups_run() {
    run_virtual(async || {
        let ran = AtomicUsize::new(0);
        let ended = move_on_after(ms(5), async {
            loop {
                let _ = with_cleanup(LIMIT, async |c| -> Result<(), Fault> {
                    c.defer(async {
                        sleep(ms(1)).await?;
                        ran.fetch_add(1, Ordering::SeqCst);
                        Ok(())
                    });
                    loop {
                        let _ = sleep(ms(1)).await;
                    }
                })
                .await;
            }
            #[allow(unreachable_code)]
            Ok::<(), Cancelled>(())
        })
        .await;
        assert_eq!((ended, ran.load(Ordering::SeqCst)), (Ok(None), 1));
    });
}

#[test]
fn n12_clean_ups_do_not_run_when_all_is_dropped() {
    run_virtual(async || {
        let (ran, dropped) = (AtomicUsize::new(0), AtomicUsize::new(0));
        for k in 0..2 {
            dropped.store(0, Ordering::SeqCst);
            let ended = drop_at(
                k,
                with_cleanup(LIMIT, async |c| -> Result<(), Fault> {
                    struct Late<'s, 'env>(Cleanup<'s, 'env, Fault>);
                    impl Drop for Late<'_, '_> {
                        fn drop(&mut self) {
                            self.0.defer(async { unreachable!() });
                        }
                    }
                    for _ in 0..3 {
                        let (guard, c2) = (OnDrop(&dropped), c.clone());
                        let ran = &ran;
                        c.defer(async move {
                            let _guard = (guard, c2);
                            ran.fetch_add(1, Ordering::SeqCst);
                            Ok(sleep(ms(1)).await?)
                        });
                    }
                    let _late = Late(c);
                    Ok(sleep_forever().await?)
                }),
            );
            assert!(ended.await.is_none());
            assert_eq!((dropped.load(Ordering::SeqCst), ran.load(Ordering::SeqCst)), (3 * k, 0));
        }
    });
}

#[test]
fn a_loser_of_a_race_cleans_up_before_the_race_ends() {
    run_virtual(async || {
        let trace = Trace::new();
        let slow = async {
            let slow = with_cleanup(LIMIT, async |c| -> Result<u32, Fault> {
                c.defer(async {
                    sleep(ms(10)).await?;
                    trace.note("c", "is done");
                    Ok(())
                });
                sleep_forever().await?;
                Ok(0)
            });
            slow.await.map_err(trefoil_nursery::ErrorGroup::into_first)
        };
        let fast = async {
            sleep(ms(1)).await?;
            Ok(1)
        };
        assert_eq!(race((slow, fast)).await.unwrap(), 1);
        assert_eq!(trace.lines(), ["11 c is done"]);
    });
}

#[test]
fn they_borrow_and_are_send_if_the_block_is() {
    fn send<T: Send>(future: T) -> T {
        future
    }
    async fn block(names: &[String], log: &Mutex<Vec<String>>) -> io::Result<usize> {
        let length = with_cleanup(LIMIT, async |c| {
            for name in names {
                c.defer(async move {
                    checkpoint().await?;
                    log.lock().unwrap().push(name.clone());
                    Ok(())
                });
            }
            checkpoint().await?;
            Ok::<_, io::Error>(names.len())
        })
        .await?;
        Ok(length)
    }
    let names = ["a".to_string(), "b".to_string()];
    run_virtual(async || {
        let log = Mutex::new(vec![]);
        assert_eq!(send(block(&names, &log)).await.unwrap(), 2);
        let in_child: io::Result<usize> =
            nursery(async |n| Ok(n.spawn(async { block(&names, &log).await }).await?)).await.map_err(io::Error::from);
        assert_eq!(in_child.unwrap(), 2);
        assert_eq!(log.into_inner().unwrap(), ["b", "a", "b", "a"]);
        // Not Send.
        let (rc, sum) = (Rc::new(5), Cell::new(0));
        local_with_cleanup(LIMIT, async |c| -> io::Result<()> {
            let rc = rc.clone();
            c.defer(async {
                sum.set(sum.get() + *rc);
                drop(rc);
                Ok(())
            });
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!((sum.get(), Rc::strong_count(&rc)), (5, 1));
        // Nested, in a nursery of local children.
        local_nursery(async |n| -> io::Result<()> {
            n.spawn(async { block(&names, &Mutex::new(vec![])).await.map(|_| ()) });
            Ok(())
        })
        .await
        .unwrap();
    });
}

/// Acquires and releases three things, one in the other.
async fn world(held: &AtomicUsize) -> Result<(), trefoil_nursery::ErrorGroup<Fault>> {
    with_cleanup(LIMIT, async |c| {
        for i in 0..3 {
            checkpoint().await?;
            held.fetch_add(1, Ordering::SeqCst);
            c.defer(async move {
                sleep(ms(i)).await?;
                checkpoint().await?;
                held.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            });
            sleep(ms(1)).await?;
        }
        with_cleanup(LIMIT, async |c| {
            held.fetch_add(1, Ordering::SeqCst);
            c.defer(async {
                held.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            });
            Ok(checkpoint().await?)
        })
        .await
        .map_err(trefoil_nursery::ErrorGroup::into_first)
    })
    .await
}

#[test]
fn cancelled_at_every_await_everything_is_released() {
    run_virtual(async || {
        let stops = stops(How::Cancel, async |how, k| {
            let held = AtomicUsize::new(0);
            let end = stop(how, k, world(&held)).await;
            assert_eq!(held.into_inner(), 0, "cancelled at {k}");
            end.is_complete()
        });
        assert!(stops.await > 10);
    });
}

#[test]
fn dropped_at_every_await_nothing_is_left() {
    run_virtual(async || {
        let stops = stops(How::Drop, async |how, k| stop(how, k, world(&AtomicUsize::new(0))).await.is_complete());
        assert!(stops.await > 10);
    });
}

// ---- against a sequential model ------------------------------------------------------------------------------------

/// A clean-up: how long it takes, whether it fails, and those that it defers first.
#[derive(Clone, Debug)]
struct Plan {
    takes: u64,
    fails: bool,
    more: Vec<Plan>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let leaf = (0..30_u64, prop::bool::weighted(0.3)).prop_map(|(takes, fails)| Plan { takes, fails, more: vec![] });
    leaf.prop_recursive(3, 12, 3, |inner| {
        (0..30_u64, prop::bool::weighted(0.3), prop::collection::vec(inner, 0..3))
            .prop_map(|(takes, fails, more)| Plan { takes, fails, more })
    })
}

type Log = RefCell<Vec<(u64, u64)>>;

fn defer<'s>(c: &Cleanup<'s, '_, Fault, trefoil_nursery::Local>, plan: &'s Plan, trace: &'s Trace, log: &'s Log) {
    let more = c.clone();
    c.defer(async move {
        for plan in &plan.more {
            defer(&more, plan, trace, log);
        }
        sleep(ms(plan.takes)).await?;
        log.borrow_mut().push((trace.ms() as u64, plan.takes));
        if plan.fails { Err(Fault::No(plan.takes)) } else { Ok(()) }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn against_a_sequential_model(plans in prop::collection::vec(plan(), 0..5), limit in 5..25_u64, cancel: bool) {
        // The model: a stack, and a clock.
        let (mut now, mut log, mut errors) = (3, vec![], vec![]);
        let mut stack: Vec<&Plan> = plans.iter().collect();
        while let Some(plan) = stack.pop() {
            stack.extend(&plan.more);
            // R46: a deadline at the end of the sleep wins.
            if plan.takes >= limit {
                now += limit;
                errors.push(Fault::TimedOut(TimedOut::new()));
                continue;
            }
            now += plan.takes;
            log.push((now, plan.takes));
            if plan.fails {
                errors.push(Fault::No(plan.takes));
            }
        }
        run_virtual(async || {
            let (trace, seen) = (Trace::new(), Log::default());
            let block = local_with_cleanup(ms(limit), async |c| {
                for plan in &plans {
                    defer(&c, plan, &trace, &seen);
                }
                sleep(ms(if cancel { 1000 } else { 3 })).await?;
                Ok(())
            });
            let ended = move_on_after(ms(if cancel { 3 } else { 10_000 }), block).await;
            assert_eq!(seen.take(), log);
            assert_eq!(trace.ms(), u128::from(now));
            match ended {
                Err(group) => assert_eq!(group.into_vec(), errors),
                Ok(value) => assert_eq!((value.is_none(), &errors), (cancel, &vec![])),
            }
        });
    }
}
