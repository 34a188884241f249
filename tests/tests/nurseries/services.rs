//! Services: children that stop last, in the reverse order of their start. With R57–R66 and N9, N12, N13 as for any child.

use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use trefoil_nursery::{
    CancelAware, CancelScope, Cancelled, Event, Local, Nursery, channel, checkpoint, local_nursery, move_on_after,
    nursery, shield, sleep, sleep_forever, until_soft_cancelled, yield_now,
};
use trefoil_runtime::metrics;
use trefoil_tests::{OnDrop, Trace, cancel_at, drop_at, ms, run_real, run_virtual};

type Ended = Result<(), Cancelled>;

/// Serves until it is told to stop, and cleans up for so long.
async fn serve(trace: &Trace, name: &'static str, clean_up: u64) -> Ended {
    let ended = sleep_forever().await;
    trace.note(name, "is told");
    shield(sleep(ms(clean_up))).await?;
    trace.note(name, "is done");
    ended
}

#[test]
fn services_stop_when_all_else_has_ended_last_first_and_one_by_one() {
    run_virtual(async || {
        let trace = Trace::new();
        let value = local_nursery(async |n| -> Result<u32, Cancelled> {
            n.service(serve(&trace, "pool", 10));
            n.service(serve(&trace, "cache", 10));
            n.spawn(async {
                sleep(ms(20)).await?;
                trace.note("child", "ends");
                Ok(())
            });
            n.service(serve(&trace, "log", 10));
            sleep(ms(5)).await?;
            trace.note("body", "ends");
            Ok(7)
        })
        .await;
        assert_eq!(value.unwrap(), 7);
        assert_eq!(
            trace.lines(),
            [
                "5 body ends",
                "20 child ends",
                "20 log is told",
                "30 log is done",
                "30 cache is told",
                "40 cache is done",
                "40 pool is told",
                "50 pool is done",
            ]
        );
    });
}

#[test]
fn a_cancel_reaches_services_last() {
    run_virtual(async || {
        for outside in [false, true] {
            let trace = Trace::new();
            let scope = CancelScope::new();
            let ended = scope
                .run(async {
                    local_nursery(async |n| -> Ended {
                        n.service(serve(&trace, "pool", 5));
                        n.service(serve(&trace, "log", 5));
                        n.spawn(async {
                            let ended = sleep_forever().await;
                            trace.note("child", "is told");
                            shield(sleep(ms(10))).await?;
                            trace.note("child", "is done");
                            ended
                        });
                        sleep(ms(1)).await?;
                        if outside {
                            scope.cancel()
                        } else {
                            n.cancel()
                        }
                        Ok(())
                    })
                    .await?;
                    Ok::<_, Cancelled>(())
                })
                .await;
            assert_eq!(ended, Ok(if outside { None } else { Some(()) }));
            assert_eq!(
                trace.lines(),
                [
                    "1 child is told",
                    "11 child is done",
                    "11 log is told",
                    "16 log is done",
                    "16 pool is told",
                    "21 pool is done",
                ],
                "cancelled outside: {outside}"
            );
        }
    });
}

#[test]
fn a_soft_cancel_does_not_reach_services() {
    run_virtual(async || {
        let trace = Trace::new();
        let scope = CancelScope::new();
        let ended = scope
            .run(async {
                local_nursery(async |n| -> Ended {
                    n.service(async {
                        let ended = until_soft_cancelled(sleep_forever()).await;
                        trace.note("service", format!("{ended:?}"));
                        Ok(())
                    });
                    n.spawn(async {
                        let ended = until_soft_cancelled(sleep_forever()).await;
                        sleep(ms(5)).await?;
                        trace.note("child", format!("{ended:?}"));
                        Ok(())
                    });
                    sleep(ms(1)).await?;
                    scope.cancel_softly(ms(100));
                    Ok(())
                })
                .await
            })
            .await;
        assert_eq!(ended.unwrap(), Some(()));
        assert_eq!(trace.lines(), ["6 child Ok(None)", "6 service Err(Cancelled)"]);
    });
}

#[test]
fn a_service_is_in_the_task_tree_at_the_place_of_its_start() {
    run_virtual(async || {
        local_nursery(async |n| -> Ended {
            n.service(sleep_forever());
            let line = line!() - 1;
            checkpoint().await?;
            let tree = trefoil_runtime::tree().to_string();
            assert!(tree.contains(&format!("services.rs:{line}")) && tree.contains("shield"), "{tree}");
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn a_cancelled_child_can_still_use_a_service() {
    run_virtual(async || {
        let written = RefCell::new(vec![]);
        let (log, lines) = channel(1);
        move_on_after(ms(5), async {
            local_nursery(async |n| -> io::Result<()> {
                n.service(async {
                    while let Some(line) = lines.recv().await? {
                        written.borrow_mut().push(line);
                    }
                    Ok(())
                });
                for i in 0..3 {
                    let log = &log;
                    n.spawn(async move {
                        let ended = sleep_forever().await;
                        shield(log.send(format!("{i} says goodbye"))).await?;
                        Ok(ended?)
                    });
                }
                Ok(sleep_forever().await?)
            })
            .await
        })
        .await
        .unwrap();
        assert_eq!(written.take(), ["0 says goodbye", "1 says goodbye", "2 says goodbye"]);
    });
}

#[test]
fn r58_an_error_of_a_service_cancels_the_nursery_and_the_others_stop_in_order() {
    run_virtual(async || {
        let trace = Trace::new();
        let group = local_nursery(async |n| -> io::Result<()> {
            n.service(async { Ok(serve(&trace, "pool", 5).await?) });
            n.service(async {
                sleep(ms(3)).await?;
                Err(io::Error::other("disk full"))
            });
            n.service(async { Ok(serve(&trace, "log", 5).await?) });
            n.spawn(async { Ok(serve(&trace, "child", 2).await?) });
            Ok(sleep_forever().await?)
        })
        .await
        .unwrap_err();
        assert_eq!((group.len(), group.to_string().as_str()), (1, "disk full"));
        assert_eq!(
            trace.lines(),
            [
                "3 child is told",
                "5 child is done",
                "5 log is told",
                "10 log is done",
                "10 pool is told",
                "15 pool is done"
            ]
        );
    });
}

#[test]
fn r60_an_error_of_a_service_that_stops_is_kept_and_the_next_stops_all_the_same() {
    run_virtual(async || {
        let trace = Trace::new();
        let group = local_nursery(async |n| -> io::Result<u32> {
            n.service(async {
                let _ = sleep_forever().await;
                Err(io::Error::other("first"))
            });
            n.service(async {
                let _ = serve(&trace, "second", 5).await;
                Err(io::Error::other("second"))
            });
            Ok(7)
        })
        .await
        .unwrap_err();
        assert_eq!((group.to_string().as_str(), trace.ms()), ("second (and 1 more: first)", 5));
    });
}

#[test]
fn n9_a_panic_of_a_service_waits_for_the_others() {
    run_virtual(async || {
        for stopping in [false, true] {
            let trace = Trace::new();
            let mut opened = Box::pin(local_nursery(async |n| -> Ended {
                n.service(serve(&trace, "pool", 5));
                n.service(async {
                    if stopping {
                        let _ = sleep_forever().await;
                    } else {
                        sleep(ms(1)).await?;
                    }
                    panic!("oops")
                });
                n.service(serve(&trace, "log", 5));
                if stopping { Ok(()) } else { sleep_forever().await }
            }));
            let payload = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| opened.as_mut().poll(cx))) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(_)) => panic!("it is to panic"),
                Err(payload) => Poll::Ready(payload),
            })
            .await;
            assert_eq!(payload.downcast_ref::<&str>(), Some(&"oops"));
            let told = if stopping { 0 } else { 1 };
            let lines = [
                (told, "log is told"),
                (told + 5, "log is done"),
                (told + 5, "pool is told"),
                (told + 10, "pool is done"),
            ];
            assert_eq!(trace.lines(), lines.map(|(ms, what)| format!("{ms} {what}")));
        }
    });
}

#[test]
fn a_service_may_end_early_and_be_awaited() {
    run_virtual(async || {
        let trace = Trace::new();
        local_nursery(async |n| -> Ended {
            n.service(serve(&trace, "pool", 5));
            let brief = n.service(async { sleep(ms(3)).await });
            let stopped = n.service(sleep_forever());
            brief.await?;
            assert_eq!(trace.ms(), 3);
            n.spawn(async {
                // To be told to stop is how a service ends, not a failure of it.
                move_on_after(ms(1), stopped).await?;
                Ok(())
            });
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(trace.lines(), ["4 pool is told", "9 pool is done"]);
    });
}

#[test]
fn services_are_started_by_children_and_by_services() {
    run_virtual(async || {
        let trace = Trace::new();
        local_nursery(async |n| -> Ended {
            let trace = &trace;
            n.spawn(async move {
                sleep(ms(1)).await?;
                n.service(serve(trace, "of a child", 1));
                sleep(ms(1)).await
            });
            n.service(async move {
                n.service(serve(trace, "of a service", 1));
                serve(trace, "service", 1).await
            });
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(
            trace.lines(),
            [
                "2 of a child is told",
                "3 of a child is done",
                "3 of a service is told",
                "4 of a service is done",
                "4 service is told",
                "5 service is done",
            ]
        );
    });
}

#[test]
fn a_service_that_stops_may_start_children_and_services() {
    run_virtual(async || {
        let trace = Trace::new();
        local_nursery(async |n| -> Ended {
            let trace = &trace;
            n.service(serve(trace, "first", 1));
            n.service(async move {
                let ended = sleep_forever().await;
                // Ordinary children, again: services wait for them.
                n.spawn(async move {
                    sleep(ms(5)).await?;
                    trace.note("child", "ends");
                    Ok(())
                });
                n.service(serve(trace, "late", 1));
                shield(sleep(ms(1))).await?;
                trace.note("second", "is done");
                ended
            });
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(
            trace.lines(),
            [
                "1 second is done",
                "5 child ends",
                "5 late is told",
                "6 late is done",
                "6 first is told",
                "7 first is done",
            ]
        );
    });
}

#[test]
fn a_service_that_is_started_while_another_stops_is_told_when_that_has_ended() {
    run_virtual(async || {
        let trace = Trace::new();
        local_nursery(async |n| -> Ended {
            let trace = &trace;
            n.service(serve(trace, "first", 1));
            n.service(async move {
                let ended = sleep_forever().await;
                n.service(serve(trace, "late", 1));
                shield(sleep(ms(5))).await?;
                trace.note("second", "is done");
                ended
            });
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(
            trace.lines(),
            ["5 second is done", "5 late is told", "6 late is done", "6 first is told", "7 first is done"]
        );
    });
}

#[test]
fn a_child_that_is_on_its_way_into_the_nursery_counts() {
    run_virtual(async || {
        let (trace, spawned) = (Trace::new(), Cell::new(false));
        local_nursery(async |n| -> Ended {
            let (trace, spawned) = (&trace, &spawned);
            n.service(async move {
                // From a nursery within, a spawn goes by way of the inbox.
                let within = local_nursery(async |m| -> Ended {
                    m.spawn(async move {
                        for _ in 0..3 {
                            checkpoint().await?;
                        }
                        spawned.set(true);
                        n.spawn(async move {
                            sleep(ms(5)).await?;
                            trace.note("child", "ends");
                            Ok(())
                        });
                        Ok(())
                    });
                    serve(trace, "service", 1).await
                });
                Ok(within.await?)
            });
            // It ends in the same turn, after that.
            n.spawn(async move {
                while !spawned.get() {
                    checkpoint().await?;
                }
                Ok(())
            });
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(trace.lines(), ["5 child ends", "5 service is told", "6 service is done"]);
    });
}

#[test]
fn r63_into_a_cancelled_nursery_too() {
    run_virtual(async || {
        let trace = Trace::new();
        local_nursery(async |n| -> Ended {
            n.cancel();
            n.service(serve(&trace, "service", 1));
            shield(sleep(ms(5))).await?;
            trace.note("body", "ends");
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(trace.lines(), ["5 body ends", "5 service is told", "6 service is done"]);
    });
}

#[test]
fn busy_services_are_told_as_well() {
    run_virtual(async || {
        let (turns, mut stopped) = (Cell::new(0), 0);
        local_nursery(async |n| -> Ended {
            for _ in 0..3 {
                // Each of them can always run: by itself, and by way of a nursery of its own.
                n.service(async {
                    loop {
                        turns.set(turns.get() + 1);
                        checkpoint().await?;
                    }
                });
                n.service(async {
                    let spin = local_nursery(async |n| -> Ended {
                        n.spawn::<_, ()>(async {
                            loop {
                                checkpoint().await?;
                            }
                        });
                        loop {
                            yield_now().await;
                            checkpoint().await?;
                        }
                    });
                    Ok(spin.await?)
                });
            }
            n.service(async {
                stopped += 1;
                Ok(())
            });
            // Virtual time stands still while something can run.
            for _ in 0..100 {
                checkpoint().await?;
            }
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(stopped, 1);
        assert!(turns.get() > 300);
        // Two that talk to each other all the time, from nurseries within.
        let (ping, from_ping) = channel(0);
        let (pong, from_pong) = channel(0);
        local_nursery(async |n| -> io::Result<()> {
            let (ping, pong, from_ping, from_pong) = (&ping, &pong, &from_ping, &from_pong);
            n.service(async move {
                let within = local_nursery(async |n| -> io::Result<()> {
                    n.spawn::<_, ()>(async move {
                        loop {
                            ping.send(()).await?;
                            from_pong.recv().await?;
                        }
                    });
                    Ok(())
                });
                Ok(within.await?)
            });
            n.service(async move {
                let within = local_nursery(async |n| -> io::Result<()> {
                    n.spawn::<_, ()>(async move {
                        loop {
                            from_ping.recv().await?;
                            pong.send(()).await?;
                        }
                    });
                    Ok(())
                });
                Ok(within.await?)
            });
            for _ in 0..100 {
                checkpoint().await?;
            }
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn n13_a_service_that_cannot_be_told_is_dropped_and_the_next_stops() {
    run_virtual(async || {
        let trace = Trace::new();
        let dropped = AtomicUsize::new(0);
        local_nursery(async |n| -> Ended {
            n.service(serve(&trace, "first", 1));
            n.service(async {
                let _guard = OnDrop(&dropped);
                pending::<()>().await;
                Ok(())
            });
            n.service(async {
                loop {
                    let _ = sleep(ms(1)).await;
                }
            });
            sleep(ms(5)).await?;
            n.cancel();
            sleep(ms(5)).await
        })
        .await
        .ok();
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
        assert_eq!(trace.lines(), ["5 first is told", "6 first is done"]);
    });
}

#[test]
fn n13_a_foreign_service_is_not_cut_before_it_is_told() {
    run_virtual(async || {
        let trace = Trace::new();
        let (tx, rx) = tokio::sync::oneshot::channel();
        local_nursery(async |n| -> Ended {
            n.service(async {
                let value = rx.await;
                trace.note("service", format!("{value:?}"));
                Ok(())
            });
            n.spawn(async {
                let ended = sleep_forever().await;
                shield(sleep(ms(5))).await?;
                tx.send(1).unwrap();
                yield_now().await;
                ended
            });
            n.cancel();
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(trace.lines(), ["5 service Ok(1)"]);
    });
}

#[test]
fn n12_dropped_services_are_destroyed_with_the_rest() {
    run_virtual(async || {
        let dropped = AtomicUsize::new(0);
        for k in 0..3 {
            dropped.store(0, Ordering::SeqCst);
            let before = metrics();
            let opened = local_nursery(async |n| -> Ended {
                for _ in 0..3 {
                    let guard = OnDrop(&dropped);
                    n.service(async {
                        let _guard = guard;
                        sleep_forever().await
                    });
                }
                sleep_forever().await
            });
            assert!(drop_at(k, opened).await.is_none());
            assert_eq!((dropped.load(Ordering::SeqCst), metrics()), (if k == 0 { 0 } else { 3 }, before), "{k}");
        }
    });
}

#[test]
fn nested_nurseries_with_services_stop_from_the_inside() {
    run_virtual(async || {
        let trace = Trace::new();
        local_nursery(async |n| -> Ended {
            n.service(serve(&trace, "outer", 2));
            local_nursery(async |m| -> Ended {
                m.service(serve(&trace, "inner", 2));
                n.service(serve(&trace, "outer, later", 2));
                Ok(())
            })
            .await?;
            trace.note("body", "ends");
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(
            trace.lines(),
            [
                "0 inner is told",
                "2 inner is done",
                "2 body ends",
                "2 outer, later is told",
                "4 outer, later is done",
                "4 outer is told",
                "6 outer is done",
            ]
        );
    });
}

#[test]
fn they_borrow_and_the_nursery_stays_send() {
    fn send<T: Send>(future: T) -> T {
        future
    }
    async fn all(lines: &mut Vec<u32>) -> io::Result<()> {
        let (log, received) = channel(4);
        nursery(async |n| -> io::Result<()> {
            n.service(async {
                while let Some(line) = received.recv().await? {
                    lines.push(line);
                }
                Ok(())
            });
            for i in 0..3 {
                log.send(i).await?;
            }
            log.close();
            Ok(())
        })
        .await?;
        Ok(())
    }
    run_virtual(async || {
        let mut lines = vec![];
        send(all(&mut lines)).await.unwrap();
        assert_eq!(lines.len(), 3);
        // Local ones need not be.
        let (rc, sum) = (Rc::new(2), Cell::new(0));
        local_nursery(async |n: Nursery<'_, '_, Cancelled, Local>| {
            let (rc, sum) = (rc.clone(), &sum);
            n.service(async move {
                sum.set(sum.get() + *rc);
                sleep_forever().await
            });
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!((sum.get(), Rc::strong_count(&rc)), (2, 1));
    });
}

#[test]
fn started_from_another_thread() {
    run_real(async || {
        let (stopped, asked) = (AtomicUsize::new(0), Event::new());
        nursery(async |n| -> Ended {
            let (stopped, asked) = (&stopped, &asked);
            std::thread::scope(|threads| {
                for _ in 0..4 {
                    threads.spawn(move || {
                        for _ in 0..10 {
                            n.service(async move {
                                let ended = sleep_forever().await;
                                stopped.fetch_add(1, Ordering::SeqCst);
                                ended
                            });
                            n.spawn(async move { asked.wait().await });
                        }
                    });
                }
            });
            checkpoint().await?;
            asked.set();
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(stopped.into_inner(), 40);
    });
}

async fn world(stopped: &RefCell<Vec<u32>>, running: &Cell<u32>) -> Ended {
    let serve = async |i: u32, n: u64| {
        sleep(ms(1)).await?;
        running.set(running.get() + 1);
        let ended = sleep_forever().await;
        let _ = shield(sleep(ms(n))).await;
        running.set(running.get() - 1);
        stopped.borrow_mut().push(i);
        ended
    };
    local_nursery(async |n| {
        n.service(serve(1, 1));
        n.service(serve(2, 0));
        n.spawn(async {
            sleep(ms(3)).await?;
            checkpoint().await
        });
        sleep(ms(2)).await?;
        n.service(serve(3, 2));
        sleep(ms(2)).await
    })
    .await?;
    Ok(())
}

#[test]
fn stopped_at_every_await_nothing_is_left_and_the_order_stays() {
    run_virtual(async || {
        for cancel in [false, true] {
            for k in 0.. {
                let (stopped, running) = (RefCell::new(vec![]), Cell::new(0));
                let before = metrics();
                let complete = if cancel {
                    let (result, cancelled) = cancel_at(k, world(&stopped, &running)).await;
                    assert!(result.is_ok());
                    assert_eq!(running.get(), 0);
                    let stopped = stopped.take();
                    assert!(stopped.is_sorted_by(|a, b| a > b), "{stopped:?} at {k}");
                    !cancelled
                } else {
                    drop_at(k, world(&stopped, &running)).await.is_some()
                };
                assert_eq!(metrics(), before, "{cancel} {k}");
                if complete {
                    assert!(k > 4, "{k}");
                    break;
                }
            }
        }
    });
}

// ---- against a sequential model ------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug)]
struct Plan {
    /// When it is started, by the body.
    at: u64,
    service: bool,
    /// When a child ends, or a service ends by itself, after its start; `None` is never, for a service.
    lives: Option<u64>,
    /// What a service takes to stop, and a child that is cancelled.
    stops: u64,
}

fn plan() -> impl Strategy<Value = Plan> {
    (0..6_u64, any::<bool>(), prop::option::of(1..20_u64), 0..6_u64).prop_map(|(at, service, lives, stops)| Plan {
        at: 2 * at,
        service,
        lives: if service { lives } else { lives.or(Some(30)) },
        stops,
    })
}

/// When each ended, and when all did. All times are odd or even so that a cancel never coincides with an end.
fn model(plans: &[Plan], cancel: Option<u64>) -> (Vec<Option<u64>>, u64) {
    let started = |plan: &Plan| cancel.is_none_or(|cancel| plan.at < cancel);
    let mut ends: Vec<Option<u64>> = vec![None; plans.len()];
    let mut ordinary = cancel.unwrap_or(20).min(20);
    for (plan, end) in plans.iter().zip(&mut ends).filter(|(plan, _)| started(plan) && !plan.service) {
        let natural = 4 * plan.lives.unwrap() + plan.at;
        *end = Some(match cancel {
            Some(cancel) if cancel < natural => cancel + plan.stops,
            _ => natural,
        });
        ordinary = ordinary.max(end.unwrap());
    }
    let mut now = ordinary;
    let mut order: Vec<usize> = (0..plans.len()).filter(|&i| started(&plans[i]) && plans[i].service).collect();
    order.sort_by_key(|&i| plans[i].at);
    for i in order.into_iter().rev() {
        let natural = plans[i].lives.map(|lives| plans[i].at + 4 * lives);
        ends[i] = Some(match natural {
            // One that ends when it would be told has ended (R18).
            Some(natural) if natural <= now => natural,
            _ => {
                now += plans[i].stops;
                now
            }
        });
    }
    (ends, now)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]
    #[test]
    fn against_a_sequential_model(plans in prop::collection::vec(plan(), 0..7), cancel in prop::option::of(0..12_u64)) {
        let cancel = cancel.map(|at| 2 * at + 1);
        let mut plans = plans;
        plans.sort_by_key(|plan| plan.at);
        run_virtual(async || {
            let trace = Trace::new();
            let ends = RefCell::new(vec![None; plans.len()]);
            let ended = move_on_after(ms(cancel.unwrap_or(10_000)), async {
                local_nursery(async |n| -> Ended {
                    for (i, plan) in plans.iter().enumerate() {
                        trefoil_nursery::sleep_until(trace.at(plan.at)).await?;
                        let (ends, trace) = (&ends, &trace);
                        let run = async move {
                            let ended = match plan.lives {
                                Some(lives) => trefoil_nursery::sleep_until(trace.at(plan.at + 4 * lives)).await,
                                None => sleep_forever().await,
                            };
                            if ended.is_err() && plan.stops > 0 {
                                shield(sleep(ms(plan.stops))).await?;
                            }
                            ends.borrow_mut()[i] = Some(trace.ms() as u64);
                            ended
                        };
                        if plan.service { n.service(run) } else { n.spawn(run) };
                    }
                    trefoil_nursery::sleep_until(trace.at(20)).await
                })
                .await
            })
            .await;
            assert!(ended.as_ref().is_ok_and(|value| value.is_some() || cancel.is_some()), "{ended:?}");
            assert_eq!((ends.take(), trace.ms() as u64), model(&plans, cancel));
        });
    }
}

#[test]
fn an_error_type_of_its_own() {
    #[derive(Debug)]
    struct Fault(Option<Cancelled>);
    impl From<Cancelled> for Fault {
        fn from(cancelled: Cancelled) -> Self {
            Fault(Some(cancelled))
        }
    }
    impl CancelAware for Fault {
        fn is_cancelled(&self) -> bool {
            self.0.is_some()
        }
    }
    run_virtual(async || {
        let group = local_nursery(async |n| {
            n.service(async { Ok(sleep_forever().await?) });
            n.service(async { Err(Fault(None)) });
            Ok::<(), Fault>(())
        })
        .await
        .unwrap_err();
        assert_eq!(group.len(), 1);
    });
}

/// Whatever the order in which they are polled first: in the reverse order of their start.
#[test]
fn services_stop_in_the_reverse_order_of_their_start_under_every_seed() {
    trefoil_testing::seeds(0..50, async || {
        let order = RefCell::new(vec![]);
        local_nursery(async |n| -> Ended {
            for i in 0..4 {
                let order = &order;
                n.service(async move {
                    let ended = sleep_forever().await;
                    order.borrow_mut().push(i);
                    ended
                });
            }
            sleep(ms(1)).await
        })
        .await
        .unwrap();
        assert_eq!(*order.borrow(), [3, 2, 1, 0]);
    });
}

/// The first comes by the inbox of the nursery, which it takes in after the second, that is pushed to its queue.
#[test]
fn a_service_that_was_started_from_a_nursery_further_in_keeps_its_place() {
    run_virtual(async || {
        let trace = &Trace::new();
        local_nursery(async |n| -> Ended {
            n.spawn(async move {
                local_nursery(async |_| -> Ended {
                    trace.note("first", "starts");
                    n.service(serve(trace, "first", 0));
                    Ok(())
                })
                .await
                .unwrap();
                Ok(())
            });
            n.spawn(async move {
                trace.note("second", "starts");
                n.service(serve(trace, "second", 0));
                Ok(())
            });
            sleep(ms(1)).await
        })
        .await
        .unwrap();
        assert_eq!(
            trace.lines(),
            [
                "0 first starts",
                "0 second starts",
                "1 second is told",
                "1 second is done",
                "1 first is told",
                "1 first is done"
            ]
        );
    });
}
