//! Nurseries, and what is made of them: children, starts, races, joins, clean-ups, services and soft cancels. R36, R71, N5, N7.

use super::{Counted, sweep};
use std::cell::{Cell, RefCell};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use trefoil_nursery::{
    CancelScope, Cancelled, Event, Started, channel, checkpoint, first_success, join, local_nursery, nursery, race,
    race_with, shield, sleep, sleep_forever, soft_cancelled, until, until_soft_cancelled, with_cleanup,
};
use trefoil_testing::{Cut, cancel_sweep, drop_sweep};
use trefoil_tests::{Ended, ms};

#[test]
fn r36_the_value_of_a_child() {
    sweep(1, async |cut| {
        let mut got = None;
        local_nursery(async |n| -> Ended {
            let mut join = n.spawn(async {
                sleep(ms(1)).await?;
                Ok(7)
            });
            cut.run(async {
                got = Some((&mut join).await?);
                Ok::<_, Cancelled>(())
            })
            .await?;
            if got.is_none() {
                got = Some(join.await?);
            }
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(got, Some(7));
    });
}

/// R68, R71: stopped before it is ready, the child is gone with the call; after, it is the nursery's.
#[test]
fn r71_children_that_start() {
    sweep(1, async |cut| {
        let (alive, ready) = (AtomicUsize::new(0), Cell::new(false));
        let stop = Event::new();
        local_nursery(async |n| -> io::Result<()> {
            let started = cut.run(n.start(async |started: Started<'_, u32>| -> io::Result<()> {
                let _count = Counted::new(&alive);
                sleep(ms(1)).await?;
                ready.set(true);
                started.ready(7);
                Ok(stop.wait().await?)
            }));
            let started = started.await?;
            assert!(started.is_none_or(|value| value == 7));
            // Told that it was not started: it is gone, unless it became ready in that moment and nobody was there to be told.
            assert!(started.is_some() || ready.get() || alive.load(Ordering::Relaxed) == 0);
            assert!(started.is_none() || alive.load(Ordering::Relaxed) == 1);
            stop.set();
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(alive.load(Ordering::Relaxed), 0);
    });
}

/// N7: what a loser had is not lost.
#[test]
fn n7_races_for_items() {
    sweep(1, async |cut| {
        let (left_tx, left) = channel(1);
        let (right_tx, right) = channel(1);
        let got = RefCell::new(Vec::new());
        local_nursery(async |n| -> Ended {
            n.spawn(async move {
                for item in 0..6 {
                    let tx = if item % 2 == 0 { &left_tx } else { &right_tx };
                    tx.send(item).await.map_err(|_| Cancelled::delivered())?;
                    if item % 3 == 0 {
                        sleep(ms(1)).await?;
                    }
                }
                Ok(())
            });
            cut.run(async {
                loop {
                    let one = async |rx: &trefoil_nursery::Receiver<u32>| {
                        let item = rx.recv().await?;
                        got.borrow_mut().extend(item); // at once: it is nobody else's from here
                        Ok::<_, Cancelled>(item)
                    };
                    if race_with((one(&left), one(&right)), drop).await.map_err(|group| group.into_first())?.is_none() {
                        return Ok::<_, Cancelled>(());
                    }
                }
            })
            .await?;
            // What is left, in any order.
            for rx in [&left, &right] {
                n.spawn(async {
                    while let Some(item) = rx.recv().await? {
                        got.borrow_mut().push(item);
                    }
                    Ok(())
                });
            }
            Ok(())
        })
        .await
        .unwrap();
        let mut got = got.into_inner();
        got.sort();
        assert_eq!(got, [0, 1, 2, 3, 4, 5]);
    });
}

/// Told to stop, it cleans up, whatever it was doing. (A dropped one does not: N12.)
#[test]
fn clean_ups() {
    let points = cancel_sweep(async |cut| {
        let (done, opened) = (std::sync::atomic::AtomicUsize::new(0), std::sync::atomic::AtomicUsize::new(0));
        let (done, opened) = (&done, &opened);
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        cut.run(with_cleanup(Duration::from_secs(60), async |c| -> io::Result<()> {
            for _ in 0..2 {
                sleep(ms(1)).await?;
                opened.fetch_add(1, relaxed);
                c.defer(async move {
                    sleep(ms(1)).await?;
                    done.fetch_add(1, relaxed);
                    Ok(())
                });
            }
            Ok(checkpoint().await?)
        }))
        .await
        .unwrap();
        assert_eq!(done.load(relaxed), opened.load(relaxed));
    });
    assert!(points.len() > 6, "{points:#?}");
}

#[test]
fn n7_races_and_joins() {
    sweep(2, async |cut| {
        let (alive, cleaned) = (AtomicUsize::new(0), Cell::new(0));
        let (tx, rx) = channel(4);
        for _ in 0..4 {
            assert!(tx.try_send(Counted::new(&alive)).is_ok());
        }
        let slow = async |length| -> Result<Counted<'_>, io::Error> {
            let slept = sleep(ms(length)).await;
            if slept.is_err() {
                // Losers clean up, and are awaited.
                shield(sleep(ms(1))).await?;
                cleaned.set(cleaned.get() + 1);
            }
            slept?;
            Ok(rx.recv().await?.unwrap())
        };
        let mut kept = vec![];
        let begun = cleaned.get();
        let ended = cut
            .run(async {
                kept.push(race((slow(1), slow(5))).await?);
                assert_eq!(cleaned.get(), begun + 1);
                let mut losers = vec![];
                let won = race_with([slow(1), slow(1)], |loser| losers.push(loser)).await?;
                kept.push(won);
                kept.append(&mut losers);
                let both = join((slow(1), async { checkpoint().await.map_err(io::Error::from) })).await;
                kept.push(both?.0);
                first_success((async { Err(io::Error::other("down")) }, async {
                    checkpoint().await.map_err(io::Error::from)
                }))
                .await?;
                let enough = until([1, 2, 3].map(|n| async move { Ok::<_, io::Error>(sleep(ms(n)).await?) }), |done| {
                    done.len() == 2
                });
                assert_eq!(enough.await?.len(), 2);
                Ok::<_, io::Error>(())
            })
            .await;
        // Nothing fails but the alternative that is down, where there was no time to try the other.
        assert!(ended.is_ok() || ended.unwrap_err().to_string() == "down");
        // Every item is with one of us, or dropped by the one that had it: none is in between.
        let left = std::iter::from_fn(|| rx.try_recv().ok()).count();
        assert_eq!(alive.load(Ordering::Relaxed), kept.len());
        assert!(left + kept.len() <= 4);
        drop(kept);
        assert_eq!(alive.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn services_stop_last() {
    let scenario = |cancels: bool| {
        async move |cut: &Cut| {
            let log = RefCell::new(vec![]);
            let _ = cut
                .run(async {
                    local_nursery(async |n| -> Ended {
                        for name in ["first", "second"] {
                            let log = &log;
                            n.service(async move {
                                log.borrow_mut().push(format!("{name} up"));
                                let slept = sleep_forever().await;
                                shield(sleep(ms(1))).await?;
                                log.borrow_mut().push(format!("{name} down"));
                                slept
                            });
                        }
                        checkpoint().await?;
                        n.spawn(async {
                            let slept = sleep(ms(2)).await;
                            shield(sleep(ms(1))).await?;
                            log.borrow_mut().push("child down".into());
                            slept
                        });
                        sleep(ms(1)).await
                    })
                    .await
                    .map_err(Cancelled::from)
                })
                .await
                .unwrap();
            let log = log.into_inner();
            let at = |what: &str| log.iter().position(|line| line == what);
            if cancels {
                // Whatever came up went down, in the reverse order, after the child.
                for name in ["first", "second"] {
                    assert_eq!(at(&format!("{name} up")).is_some(), at(&format!("{name} down")).is_some(), "{log:?}");
                }
                if let (Some(first), Some(second)) = (at("first down"), at("second down")) {
                    assert!(second < first && at("child down").is_none_or(|child| child < second), "{log:?}");
                }
            }
        }
    };
    assert!(cancel_sweep(scenario(true)).last().unwrap().at >= 3);
    assert!(drop_sweep(scenario(false)).last().unwrap().at >= 3);
}

#[test]
fn soft_cancels() {
    sweep(2, async |cut| {
        let (tx, rx) = channel(4);
        let scope = CancelScope::new();
        let mut taken = vec![];
        nursery(async |n| -> Ended {
            n.spawn(async {
                for i in 0..4 {
                    sleep(ms(1)).await?;
                    tx.try_send(i).unwrap();
                }
                scope.cancel_softly(ms(100));
                Ok(())
            });
            cut.run(scope.run(async {
                while let Some(Some(item)) = until_soft_cancelled(rx.recv()).await? {
                    taken.push(item);
                    sleep(ms(1)).await?;
                }
                assert!(soft_cancelled());
                Ok::<_, Cancelled>(())
            }))
            .await?;
            Ok(())
        })
        .await
        .unwrap();
        taken.extend(std::iter::from_fn(|| rx.try_recv().ok()));
        assert_eq!(taken, [0, 1, 2, 3]);
    });
}

#[test]
fn n5_wait_for_an_event_in_a_nursery_in_a_nursery() {
    sweep(1, async |cut| {
        let (event, woken) = (Event::new(), Cell::new(0));
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                event.wait().await?;
                woken.set(woken.get() + 1);
                Ok(())
            });
            n.spawn(async {
                sleep(ms(1)).await?;
                event.set();
                Ok(())
            });
            cut.run(async {
                local_nursery(async |inner| -> Ended {
                    inner.spawn(event.wait());
                    event.wait().await
                })
                .await
                .map_err(Cancelled::from)
            })
            .await?;
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(woken.get(), 1);
    });
}
