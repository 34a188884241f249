//! Services that fail, panic, are busy, do not stop or are dropped: R58, R60, N9, N12, N13.

use super::services::serve;
use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use trefoil_nursery::{channel, checkpoint, local_nursery, shield, sleep, sleep_forever, yield_now};
use trefoil_runtime::metrics;
use trefoil_tests::{Ended, OnDrop, Trace, drop_at, ms, run_virtual};

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
