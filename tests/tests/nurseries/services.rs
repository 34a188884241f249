//! Services: children that stop last, in the reverse order of their start. With R57–R66 as for any child.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use trefoil_nursery::{
    CancelAware, CancelScope, Cancelled, Local, Nursery, channel, checkpoint, local_nursery, move_on_after, nursery,
    shield, sleep, sleep_forever, until_soft_cancelled,
};
use trefoil_tests::{Ended, Trace, ms, run_virtual};

/// Serves until it is told to stop, and cleans up for so long.
pub async fn serve(trace: &Trace, name: &'static str, clean_up: u64) -> Ended {
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
