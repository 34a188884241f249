//! Each public operation that waits, in a small world with rivals, cancelled and dropped at each of its awaits: what it takes is balanced
//! afterwards, and the others get on (R36, R37, R77, N1, N5, N7). Time, channels, events, joins and scopes are in `every_await.rs`, streams
//! in `streams.rs`, TCP in `io/tests/cancel.rs`.

use futures::{SinkExt, StreamExt};
use std::cell::{Cell, RefCell};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use trefoil_nursery::sync::{Barrier, CapacityLimiter, Condition, Mutex, RwLock, Semaphore, oneshot, watch};
use trefoil_nursery::{
    CancelScope, Cancelled, Event, channel, checkpoint, first_success, generator, join, local_nursery,
    local_with_cleanup, nursery, race, race_with, shield, sleep, sleep_forever, soft_cancelled, until,
    until_soft_cancelled,
};
use trefoil_testing::{Cut, cancel_sweep, drop_sweep};

type Ended = Result<(), Cancelled>;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Both sweeps. The operation has to have `awaits` of them at least, or else the sweep has seen nothing.
#[track_caller]
fn sweep(awaits: usize, scenario: impl AsyncFn(&Cut)) {
    for points in [cancel_sweep(&scenario), drop_sweep(&scenario)] {
        let last = points.last().map_or(0, |point| point.at);
        assert!(last >= awaits, "{last} awaits only");
    }
}

/// What can be lost or doubled.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn r77_mutex() {
    sweep(3, async |cut| {
        let log = Mutex::new(vec![]);
        local_nursery(async |n| -> Ended {
            for who in 1..=2 {
                let log = &log;
                n.spawn(async move {
                    for _ in 0..2 {
                        let mut held = log.lock().await?;
                        sleep(ms(2)).await?;
                        held.push(who);
                    }
                    Ok(())
                });
            }
            cut.run(async {
                for _ in 0..2 {
                    let mut held = log.lock().await?;
                    checkpoint().await?;
                    held.push(0);
                }
                Ok::<_, Cancelled>(())
            })
            .await?;
            Ok(())
        })
        .await
        .unwrap();
        assert!(!log.is_locked());
        let log = log.into_inner();
        assert_eq!([1, 2].map(|who| log.iter().filter(|&&by| by == who).count()), [2, 2], "{log:?}");
    });
}

#[test]
fn r77_rwlock() {
    sweep(3, async |cut| {
        let (cell, rounds) = (RwLock::new(0), Cell::new(0));
        local_nursery(async |n| -> Ended {
            for wait in [1, 2] {
                let (cell, rounds) = (&cell, &rounds);
                n.spawn(async move {
                    for _ in 0..2 {
                        *cell.write().await? += 1;
                        let read = cell.read().await?;
                        sleep(ms(wait)).await?;
                        assert!(*read >= 1);
                        rounds.set(rounds.get() + 1);
                    }
                    Ok(())
                });
            }
            cut.run(async {
                for _ in 0..2 {
                    drop(cell.read().await?);
                    let mut write = cell.write().await?;
                    sleep(ms(1)).await?;
                    *write += 0;
                }
                Ok::<_, Cancelled>(())
            })
            .await?;
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!((*cell.try_write().unwrap(), rounds.get()), (4, 4));
    });
}

#[test]
fn r77_semaphore() {
    sweep(2, async |cut| {
        let (permits, rounds) = (Semaphore::new(3), Cell::new(0));
        local_nursery(async |n| -> Ended {
            for many in [1, 2, 3] {
                let (permits, rounds) = (&permits, &rounds);
                n.spawn(async move {
                    for _ in 0..2 {
                        let held = permits.acquire(many).await?;
                        sleep(ms(1)).await?;
                        assert_eq!(held.count(), many);
                        rounds.set(rounds.get() + 1);
                    }
                    Ok(())
                });
            }
            cut.run(async {
                for many in [2, 3] {
                    let _held = permits.acquire(many).await?;
                    sleep(ms(1)).await?;
                }
                Ok::<_, Cancelled>(())
            })
            .await?;
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!((permits.available(), rounds.get()), (3, 6));
    });
}

#[test]
fn r81_capacity_limiter() {
    sweep(1, async |cut| {
        let (limiter, rounds) = (CapacityLimiter::new(1), Cell::new(0));
        local_nursery(async |n| -> Ended {
            for _ in 0..2 {
                n.spawn(async {
                    for _ in 0..2 {
                        let _token = limiter.acquire().await?;
                        sleep(ms(1)).await?;
                        rounds.set(rounds.get() + 1);
                    }
                    Ok(())
                });
            }
            n.spawn(async {
                sleep(ms(2)).await?;
                limiter.set_total(0);
                sleep(ms(2)).await?;
                limiter.set_total(2);
                Ok(())
            });
            cut.run(async {
                let _token = limiter.acquire().await?;
                sleep(ms(3)).await
            })
            .await?;
            Ok(())
        })
        .await
        .unwrap();
        let statistics = limiter.statistics();
        assert_eq!((statistics.borrowed, statistics.waiting, rounds.get()), (0, 0, 4));
    });
}

#[test]
fn n1_condition() {
    sweep(2, async |cut| {
        let (condition, work, done) = (Condition::new(), Mutex::new(0), Cell::new(0));
        local_nursery(async |n| -> Ended {
            // Two pieces of work for this one, one by one, each with one notification: none is lost to who is gone.
            n.spawn(async {
                for _ in 0..2 {
                    let mut left = work.lock().await?;
                    while *left == 0 {
                        let (held, waited) = condition.wait(left).await;
                        left = held;
                        waited?;
                    }
                    *left -= 1;
                    done.set(done.get() + 1);
                }
                Ok(())
            });
            n.spawn(async {
                for _ in 0..3 {
                    sleep(ms(2)).await?;
                    let mut left = work.lock().await?;
                    *left += 1;
                    condition.notify_one(&left);
                }
                Ok(())
            });
            cut.run(async {
                let mut left = work.lock().await?;
                while *left == 0 {
                    let (held, waited) = condition.wait(left).await;
                    left = held;
                    waited?;
                }
                // With the lock, and the work: from here on it does it.
                *left -= 1;
                done.set(done.get() + 1);
                drop(left);
                sleep(ms(1)).await
            })
            .await?;
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(done.get() + work.into_inner(), 3);
        assert!(done.get() >= 2);
    });
}

#[test]
fn r36_barrier() {
    sweep(1, async |cut| {
        let (barrier, leaders, passed) = (Barrier::new(2), Cell::new(0_usize), Cell::new(0_usize));
        let pass = async || -> Ended {
            let leads = barrier.wait().await?;
            leaders.set(leaders.get() + usize::from(leads));
            passed.set(passed.get() + 1);
            Ok(())
        };
        local_nursery(async |n| -> Ended {
            let mut came = false;
            n.spawn(async {
                sleep(ms(1)).await?;
                pass().await
            });
            let one = cut
                .run(async {
                    pass().await?;
                    came = true;
                    sleep(ms(1)).await
                })
                .await;
            one?;
            // One that was stopped has not come, and somebody else has to; unless it was dropped when the barrier had opened for it.
            if !came && passed.get() == 0 {
                pass().await?;
            }
            Ok(())
        })
        .await
        .unwrap();
        assert!((1..=2).contains(&passed.get()), "{}", passed.get());
        assert!(leaders.get() <= 1);
    });
}

#[test]
fn r36_oneshot_and_watch() {
    sweep(2, async |cut| {
        let alive = AtomicUsize::new(0);
        let (tx, mut rx) = oneshot();
        let (set, mut seen) = watch(0);
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                sleep(ms(2)).await?;
                assert!(tx.send(Counted::new(&alive)).is_ok());
                set.set(1);
                sleep(ms(2)).await?;
                set.set(2);
                drop(set);
                Ok(())
            });
            let mut got = None;
            let latest = Cell::new(0);
            cut.run(async {
                got = rx.recv().await?;
                while seen.changed().await? {
                    let now = *seen.get();
                    assert!(now > latest.get());
                    latest.set(now);
                }
                Ok::<_, Cancelled>(())
            })
            .await?;
            // What it did not get is still there; what changed while it looked away is told now.
            if got.is_none() {
                got = rx.recv().await?;
            }
            assert!(got.is_some());
            assert_eq!(alive.load(Ordering::Relaxed), 1);
            while seen.changed().await? {}
            assert_eq!(*seen.get(), 2);
            Ok(())
        })
        .await
        .unwrap();
        drop(rx);
        assert_eq!(alive.load(Ordering::Relaxed), 0);
    });
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
fn n12_clean_ups() {
    let run = |cancels: bool| {
        async move |cut: &Cut| {
            let (open, begun) = (Cell::new(0), Cell::new(0));
            let out = cut
                .run(async {
                    local_with_cleanup(ms(100), async |c| -> io::Result<()> {
                        for _ in 0..2 {
                            checkpoint().await?;
                            open.set(open.get() + 1);
                            begun.set(begun.get() + 1);
                            c.defer(async {
                                sleep(ms(1)).await?;
                                open.set(open.get() - 1);
                                Ok(())
                            });
                        }
                        sleep(ms(1)).await?;
                        Ok(())
                    })
                    .await
                    .map_err(io::Error::from)
                })
                .await;
            assert!(out.is_ok(), "{out:?}");
            // A cancel runs them all; a drop cannot (N12).
            assert!(!cancels || open.get() == 0, "{} of {}", open.get(), begun.get());
        }
    };
    assert!(cancel_sweep(run(true)).last().unwrap().at >= 5);
    assert!(drop_sweep(run(false)).last().unwrap().at >= 5);
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
fn r101_generator_and_streams() {
    sweep(3, async |cut| {
        let alive = AtomicUsize::new(0);
        let (made, handled) = (Cell::new(0), Cell::new(0));
        cut.run(generator(
            async |mut out| {
                for _ in 0..3 {
                    sleep(ms(1)).await?;
                    made.set(made.get() + 1);
                    out.send(Counted::new(&alive)).await?;
                }
                Ok(())
            },
            async |mut items| -> io::Result<()> {
                while let Some(item) = items.next().await? {
                    // On demand: nothing is made in advance.
                    assert_eq!(made.get(), handled.get() + 1);
                    sleep(ms(1)).await?;
                    handled.set(handled.get() + 1);
                    drop(item);
                }
                Ok(())
            },
        ))
        .await
        .unwrap();
        assert_eq!(alive.load(Ordering::Relaxed), 0);
    });
    sweep(2, async |cut| {
        let alive = AtomicUsize::new(0);
        let (tx, rx) = channel(1);
        let (tx2, rx2) = channel(1);
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                for _ in 0..3 {
                    tx.send(Counted::new(&alive)).await.map_err(|_| Cancelled::delivered())?;
                }
                drop(tx);
                Ok(())
            });
            let mut here = vec![];
            n.spawn(async {
                // What comes out at the other end.
                let mut stream = std::pin::pin!(rx2.stream());
                let mut arrived = 0;
                while let Some(item) = stream.next().await {
                    drop(item?);
                    arrived += 1;
                }
                assert!(arrived <= 3);
                Ok(())
            });
            let forwarded = cut
                .run(async {
                    let mut sink = std::pin::pin!(tx2.clone().into_sink());
                    let mut stream = std::pin::pin!(rx.stream());
                    while let Some(item) = stream.next().await {
                        sink.send(item.map_err(io::Error::from)?).await.map_err(io::Error::from)?;
                    }
                    sink.close().await.map_err(io::Error::from)
                })
                .await;
            forwarded.unwrap();
            drop(tx2);
            while let Some(item) = rx.recv().await? {
                here.push(item);
            }
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(alive.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn r72_start() {
    sweep(1, async |cut| {
        let (up, down) = (Cell::new(0), Cell::new(0));
        local_nursery(async |n| -> io::Result<()> {
            let started = cut
                .run(async {
                    n.start(async |started| {
                        sleep(ms(1)).await?;
                        up.set(up.get() + 1);
                        started.ready(7);
                        let slept = sleep(ms(5)).await;
                        down.set(down.get() + 1);
                        Ok(slept?)
                    })
                    .await
                })
                .await?;
            assert!(started.is_none_or(|value| value == 7));
            Ok(())
        })
        .await
        .unwrap();
        // Started or not, it has ended with the nursery, and in its own way.
        assert_eq!(up.get(), down.get());
    });
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
