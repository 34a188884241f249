//! Code that swallows cancellations is ended (N13 b).

use super::combinators::waits_for_ever;
use futures::future::{self, pending};
use std::cell::Cell;
use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use trefoil_nursery::{
    CancelScope, Cancelled, Event, Started, checkpoint, local_nursery, local_with_cleanup, move_on_after, shield,
    shield_for, sleep, sleep_forever, unbounded, yield_now,
};
use trefoil_runtime::STRIKES;
use trefoil_tests::{CANCELLED, Ended, OnDrop, Trace, ms, poll_once, run_virtual};

/// Swallows the cancellation of an operation, by number, for ever. How often it was told.
async fn swallows(which: usize, told: &Cell<u32>, _guard: OnDrop<'_>) -> Ended {
    let event = Event::new();
    let (tx, rx) = unbounded::<u32>();
    loop {
        let ended = match which {
            0 => sleep_forever().await,
            1 => sleep(ms(1_000_000)).await,
            2 => checkpoint().await,
            3 => event.wait().await,
            4 => rx.recv().await.map(drop),
            5 => tx.send(1).await.map_err(|_| CANCELLED),
            // Scopes that the cancellation goes through.
            6 => move_on_after(ms(1_000_000), sleep_forever()).await.map(drop),
            // Clean-up in the middle of it, which hangs and is cut off by its own time limit.
            7 => {
                let ended = checkpoint().await;
                shield_for(ms(1), sleep_forever()).await?;
                ended
            }
            // The same with something foreign in it.
            8 => move_on_after(ms(1_000_000), pending::<Ended>()).await.map(drop),
            // Nurseries, which end at once, or when their child has; and with something foreign.
            9 => local_nursery(async |_| pending::<Ended>().await).await.map_err(Cancelled::from),
            10 => local_nursery(async |_| sleep_forever().await).await.map_err(Cancelled::from),
            11 => {
                let nursery = local_nursery(async |n| -> Ended {
                    n.spawn(sleep_forever());
                    Ok(())
                });
                nursery.await.map_err(Cancelled::from)
            }
            // The same, with children, or a body, that keep the cancellation to themselves: the nursery is fine.
            12 => {
                let nursery = local_nursery(async |n| -> Ended {
                    n.spawn(async {
                        let _ = sleep_forever().await;
                        Ok(())
                    });
                    n.spawn(async { Ok(()) });
                    Ok(())
                });
                nursery.await.unwrap();
                Err(CANCELLED)
            }
            _ => {
                local_nursery(async |_| {
                    let _ = sleep_forever().await;
                    Ok::<_, Cancelled>(())
                })
                .await
                .unwrap();
                Err(CANCELLED)
            }
        };
        if ended.is_err() {
            told.set(told.get() + 1);
        }
        if which == 5 && ended.is_ok() {
            yield_now().await;
        }
    }
}

const SWALLOWS: usize = 14;

#[test]
fn n13b_a_swallowing_child_is_ended_after_its_budget() {
    run_virtual(async || {
        for which in 0..SWALLOWS {
            let (told, dropped, cleaned) = (Cell::new(0), AtomicUsize::new(0), Cell::new(false));
            local_nursery(async |n| -> Ended {
                n.spawn(swallows(which, &told, OnDrop(&dropped)));
                n.spawn(async {
                    let slept = sleep_forever().await;
                    shield(sleep(ms(5))).await?;
                    cleaned.set(true);
                    slept
                });
                yield_now().await;
                n.cancel();
                Ok(())
            })
            .await
            .unwrap();
            assert_eq!((told.get(), dropped.load(Ordering::SeqCst)), (STRIKES, 1), "{which}");
            assert!(cleaned.get());
        }
    });
}

/// Begins to wait in a scope that swallows too much, so that it is told nothing more there, and is awaited outside.
async fn is_told_outside<T: Debug, E: Debug>(what: &str, waits: impl Future<Output = Result<T, E>>) {
    let mut waits = Box::pin(waits);
    let scope = CancelScope::new();
    let ended = scope.run(async {
        assert!(poll_once(waits.as_mut()).await.is_pending(), "{what}");
        scope.cancel();
        for _ in 0..STRIKES {
            checkpoint().await.unwrap_err();
        }
        waits.as_mut().await.map_err(|_| CANCELLED)
    });
    assert!(ended.await.unwrap().is_none(), "{what}: dropped where it waits");
    assert!(waits.await.is_err(), "{what}: it was cancelled");
}

/// What is told nothing more, since too much was swallowed around it, does not wait for ever where it is awaited outside.
#[test]
fn n13b_what_outlives_a_swallowing_scope_is_told_outside() {
    run_virtual(async || {
        for which in 0..8 {
            is_told_outside(&format!("{which}"), waits_for_ever(which)).await;
        }
        let inner = CancelScope::new();
        is_told_outside("a scope", inner.run(pending::<Ended>())).await;
        let cleaned = Cell::new(false);
        let block = local_with_cleanup(ms(10), async |c| -> io::Result<()> {
            c.defer(async {
                cleaned.set(true);
                Ok(())
            });
            Ok(sleep_forever().await?)
        });
        is_told_outside("a block with a clean-up", block).await;
        assert!(cleaned.get());
        local_nursery(async |n| -> io::Result<()> {
            let start = n.start(async |started: Started<'_, ()>| -> io::Result<()> {
                sleep_forever().await?;
                started.ready(());
                Ok(())
            });
            is_told_outside("a start", start).await;
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn n13b_a_swallowing_scope_and_body_are_ended_too() {
    run_virtual(async || {
        for which in 0..SWALLOWS {
            let (told, dropped) = (Cell::new(0), AtomicUsize::new(0));
            let scope = CancelScope::new();
            scope.cancel();
            let out = scope.run(swallows(which, &told, OnDrop(&dropped))).await;
            assert_eq!((out, told.get(), dropped.load(Ordering::SeqCst)), (Ok(None), STRIKES, 1), "{which}");
            // The code after it starts afresh.
            assert_eq!(move_on_after(ms(5), sleep_forever()).await, Ok(None));
        }
        for which in 0..SWALLOWS {
            let (told, dropped) = (Cell::new(0), AtomicUsize::new(0));
            let out = local_nursery(async |n| -> Ended {
                n.spawn(async move {
                    n.cancel();
                    Ok(())
                });
                swallows(which, &told, OnDrop(&dropped)).await
            });
            assert!(out.or_cancelled().await.unwrap().is_none());
            assert_eq!((told.get(), dropped.load(Ordering::SeqCst)), (STRIKES, 1), "{which}");
        }
    });
}

#[test]
fn n13b_a_thousand_time_limits_in_shielded_clean_up_are_not_swallowing() {
    run_virtual(async || {
        let t = Trace::new();
        let rounds = 3 * u64::from(STRIKES);
        let out = move_on_after(ms(1), async {
            let slept = sleep_forever().await;
            // Says goodbye to many peers, none of which answers.
            for _ in 0..rounds {
                assert_eq!(shield_for(ms(1), sleep_forever()).await, Ok(None));
            }
            shield(async {
                for _ in 0..rounds {
                    assert_eq!(move_on_after(ms(1), sleep_forever()).await, Ok(None));
                }
            })
            .await;
            t.note("clean-up", "complete");
            slept
        });
        assert_eq!(out.await, Ok(None));
        assert_eq!(t.lines(), [format!("{} clean-up complete", 1 + 2 * rounds)]);
    });
}

#[test]
fn n13b_nurseries_that_were_told_nothing_do_not_count() {
    run_virtual(async || {
        let scope = CancelScope::new();
        scope.cancel();
        let rounds = 3 * STRIKES;
        let out = scope.run(async {
            // A long computation, in pieces that run beside each other and never look for a cancellation.
            let done = Cell::new(0);
            for _ in 0..rounds {
                local_nursery(async |n| -> Ended {
                    n.spawn(async {
                        done.set(done.get() + 1);
                        Ok(())
                    });
                    Ok(())
                })
                .await
                .unwrap();
            }
            Ok::<_, Cancelled>(done.get())
        });
        assert_eq!(out.await, Ok(Some(rounds)));
    });
}

#[test]
fn n13b_in_the_middle_of_a_combinator_it_ends_when_the_others_have() {
    run_virtual(async || {
        let (t, told, dropped) = (Trace::new(), Cell::new(0), AtomicUsize::new(0));
        let scope = CancelScope::new();
        scope.cancel();
        let out = scope.run(async {
            let (_, slept) = future::join(swallows(2, &told, OnDrop(&dropped)), shield(sleep(ms(50)))).await;
            slept
        });
        assert_eq!((out.await, t.ms(), told.get(), dropped.load(Ordering::SeqCst)), (Ok(None), 50, STRIKES, 1));
    });
}
