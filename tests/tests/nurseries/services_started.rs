//! Services that are started by others than the body, or late: by children, by services, while another stops, from another thread.

use super::services::serve;
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use trefoil_nursery::{Event, checkpoint, local_nursery, nursery, shield, sleep, sleep_forever};
use trefoil_tests::{Ended, Trace, ms, run_real, run_virtual};

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
