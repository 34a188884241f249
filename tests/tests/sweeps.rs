//! The library's own operations under `cancel_sweep` and `drop_sweep`: stopped at each await, asleep and woken, and what must hold. R36, R77,
//! N1, N5, N6, N7. `every_await.rs` does the same on every driver; here each operation that need not wait is an await too, and
//! `TREFOIL_SEED` gives other orders.

use futures::{SinkExt, StreamExt};
use std::cell::{Cell, RefCell};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use trefoil_nursery::{
    CancelScope, Cancelled, Event, Items, SendError, Started, channel, checkpoint, first_success, generator, join,
    local_nursery, nursery, race, race_with, shield, sleep, sleep_forever, soft_cancelled, sync, until,
    until_soft_cancelled, with_cleanup,
};
use trefoil_testing::{Cut, cancel_sweep, drop_sweep};
use trefoil_tests::ms;

type Ended = Result<(), Cancelled>;

/// Both ways to stop it. In the ordinary order, it has that many awaits at least.
fn sweep(least: usize, scenario: impl AsyncFn(&Cut)) {
    for points in [cancel_sweep(&scenario), drop_sweep(&scenario)] {
        let last = points.last().expect("before it began").at;
        assert!(last >= least || std::env::var_os("TREFOIL_SEED").is_some(), "{points:#?}");
    }
}

#[test]
fn r36_items_received() {
    for capacity in [0, 1, 3] {
        sweep(2, async |cut| {
            let (tx, rx) = channel(capacity);
            let rest = rx.clone();
            let got = RefCell::new(Vec::new());
            let take = async |rx: trefoil_nursery::Receiver<u32>| -> Ended {
                while let Some(item) = rx.recv().await? {
                    got.borrow_mut().push(item);
                }
                Ok(())
            };
            local_nursery(async |n| -> Ended {
                n.spawn(async move {
                    for item in 0..6 {
                        tx.send(item).await.map_err(|_| Cancelled::delivered())?;
                        if item % 2 == 0 {
                            sleep(ms(1)).await?;
                        }
                    }
                    Ok(())
                });
                // Another receiver, so that a hand-off can go on to somebody.
                n.spawn(take(rx.clone()));
                cut.run(take(rx)).await.map(drop)
            })
            .await
            .unwrap();
            let mut got = got.into_inner();
            // What was handed to a receiver that was dropped when the other had gone, as it saw that nothing more would come.
            got.extend(std::iter::from_fn(|| rest.try_recv().ok()));
            got.sort();
            assert_eq!(got, [0, 1, 2, 3, 4, 5]);
        });
    }
}

#[test]
fn n6_items_sent() {
    for capacity in [0, 1, 3] {
        sweep(2, async |cut| {
            let (tx, rx) = channel(capacity);
            let (sent, back, got) = (Cell::new(0), Cell::new(0), RefCell::new(Vec::new()));
            local_nursery(async |n| -> Ended {
                let other = tx.clone();
                n.spawn(async move {
                    for _ in 0..3 {
                        other.send(100).await.map_err(|_| Cancelled::delivered())?;
                    }
                    Ok(())
                });
                n.spawn(async {
                    while let Some(item) = rx.recv().await? {
                        got.borrow_mut().push(item);
                        checkpoint().await?;
                    }
                    Ok(())
                });
                let sends = cut.run(async {
                    for item in 0..4 {
                        match tx.send(item).await {
                            Ok(()) => sent.set(sent.get() + 1),
                            Err(SendError::Cancelled(cancelled, item)) => {
                                back.set(back.get() + 1);
                                assert_eq!(item, sent.get());
                                return Err(cancelled);
                            }
                            Err(other) => unreachable!("{other:?}"),
                        }
                    }
                    Ok(())
                });
                sends.await?;
                drop(tx);
                Ok(())
            })
            .await
            .unwrap();
            let got = got.into_inner();
            assert_eq!(got.iter().filter(|&&item| item == 100).count(), 3);
            let mine: Vec<u32> = got.into_iter().filter(|&item| item != 100).collect();
            assert!(mine.iter().copied().eq(0..mine.len() as u32), "in order, once: {mine:?}");
            // What was told to have been sent was; a dropped one was told nothing about its last item.
            let sent = sent.get() as usize;
            assert!(mine.len() == sent || (mine.len() == sent + 1 && back.get() == 0), "{mine:?}, {sent}");
        });
    }
}

#[test]
fn r77_locks() {
    sweep(2, async |cut| {
        let (lock, log) = (sync::Mutex::new(0), RefCell::new(Vec::new()));
        let use_it = async |name: &'static str| -> Ended {
            for _ in 0..2 {
                let mut guard = lock.lock().await?;
                let before = *guard;
                checkpoint().await?;
                *guard = before + 1;
                log.borrow_mut().push(name);
            }
            Ok(())
        };
        local_nursery(async |n| -> Ended {
            n.spawn(use_it("a"));
            n.spawn(async { cut.run(use_it("cut")).await.map(drop) });
            n.spawn(use_it("b"));
            Ok(())
        })
        .await
        .unwrap();
        assert!(!lock.is_locked());
        let log = log.into_inner();
        assert_eq!(lock.into_inner(), log.len());
        assert_eq!(log.iter().filter(|&&name| name != "cut").count(), 4);
    });
}

#[test]
fn r77_permits() {
    sweep(2, async |cut| {
        let permits = sync::Semaphore::new(3);
        let done = Cell::new(0);
        let use_them = async |many: usize| -> Ended {
            for _ in 0..2 {
                let _held = permits.acquire(many).await?;
                sleep(ms(1)).await?;
                done.set(done.get() + 1);
            }
            Ok(())
        };
        local_nursery(async |n| -> Ended {
            n.spawn(use_them(2));
            n.spawn(async { cut.run(use_them(3)).await.map(drop) });
            n.spawn(use_them(1));
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(permits.available(), 3);
        assert!(done.get() >= 4);
    });
}

#[test]
fn r81_tokens() {
    sweep(1, async |cut| {
        let limiter = sync::CapacityLimiter::new(1);
        let use_one = async || -> Ended {
            let _token = limiter.acquire().await?;
            sleep(ms(1)).await
        };
        local_nursery(async |n| -> Ended {
            n.spawn(use_one());
            n.spawn(async { cut.run(use_one()).await.map(drop) });
            n.spawn(use_one());
            Ok(())
        })
        .await
        .unwrap();
        drop(limiter.try_acquire().expect("nobody has it"));
    });
}

/// A notification goes to somebody who is there to hear it.
#[test]
fn n1_notifications() {
    sweep(2, async |cut| {
        let (items, more) = (sync::Mutex::new(0), sync::Condition::new());
        let taken = Cell::new(0);
        let take = async || -> Ended {
            let mut guard = items.lock().await?;
            while *guard == 0 {
                let (again, ended) = more.wait(guard).await;
                guard = again;
                ended?;
            }
            *guard -= 1;
            taken.set(taken.get() + 1);
            Ok(())
        };
        local_nursery(async |n| -> Ended {
            n.spawn(async { cut.run(take()).await.map(drop) });
            n.spawn(take());
            sleep(ms(1)).await?;
            // One item: whoever is left takes it.
            let mut guard = items.lock().await?;
            *guard += 1;
            more.notify_one(&guard);
            drop(guard);
            sleep(ms(1)).await?;
            n.cancel();
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(taken.get(), 1);
    });
}

#[test]
fn r77_readers_and_writers() {
    for cut_writes in [false, true] {
        sweep(1, async |cut| {
            let (lock, readers) = (sync::RwLock::new(0), Cell::new(0));
            let read = async || -> Ended {
                let _guard = lock.read().await?;
                let _count = Count::new(&readers);
                sleep(ms(2)).await
            };
            let write = async || -> Ended {
                let mut guard = lock.write().await?;
                assert_eq!(readers.get(), 0);
                let before = *guard;
                sleep(ms(1)).await?;
                *guard = before + 1;
                Ok(())
            };
            local_nursery(async |n| -> Ended {
                n.spawn(read());
                n.spawn(async {
                    match cut_writes {
                        true => cut.run(write()).await.map(drop),
                        false => cut.run(read()).await.map(drop),
                    }
                });
                n.spawn(write());
                n.spawn(read());
                Ok(())
            })
            .await
            .unwrap();
            assert_eq!(readers.get(), 0);
            let written = *lock.try_write().expect("nobody has it");
            assert!(written == 1 || (cut_writes && written == 2), "{written}");
        });
    }
}

/// Who leaves a barrier does not count.
#[test]
fn r36_barriers() {
    sweep(1, async |cut| {
        let barrier = sync::Barrier::new(2);
        let through = Cell::new(0);
        let pass = async || -> Ended {
            barrier.wait().await?;
            through.set(through.get() + 1);
            Ok(())
        };
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                let passed = cut.run(pass()).await?.is_some();
                // In its place. If it was dropped when it had passed, and did not know, the other one is through.
                if !passed && through.get() == 0 {
                    trefoil_nursery::move_on_after(ms(10), pass()).await?;
                }
                Ok(())
            });
            n.spawn(async {
                sleep(ms(1)).await?;
                pass().await
            });
            Ok(())
        })
        .await
        .unwrap();
        assert!(through.get() >= 1);
    });
}

#[test]
fn r36_a_value_for_one() {
    sweep(1, async |cut| {
        let (tx, mut rx) = sync::oneshot();
        let mut got = None;
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                sleep(ms(1)).await?;
                let _ = tx.send(7);
                Ok(())
            });
            cut.run(async {
                got = rx.recv().await?;
                Ok::<_, Cancelled>(())
            })
            .await?;
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(got.or(rx.try_recv()), Some(7));
    });
}

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
        let (alive, ready) = (Cell::new(0), Cell::new(false));
        let stop = Event::new();
        local_nursery(async |n| -> io::Result<()> {
            let started = cut.run(n.start(async |started: Started<'_, u32>| -> io::Result<()> {
                let _count = Count::new(&alive);
                sleep(ms(1)).await?;
                ready.set(true);
                started.ready(7);
                Ok(stop.wait().await?)
            }));
            let started = started.await?;
            assert!(started.is_none_or(|value| value == 7));
            // Told that it was not started: it is gone, unless it became ready in that moment and nobody was there to be told.
            assert!(started.is_some() || ready.get() || alive.get() == 0);
            assert!(started.is_none() || alive.get() == 1);
            stop.set();
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(alive.get(), 0);
    });
}

struct Count<'a>(&'a Cell<usize>);

impl<'a> Count<'a> {
    fn new(cell: &'a Cell<usize>) -> Self {
        cell.set(cell.get() + 1);
        Self(cell)
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
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

/// R101: what was made and not looked at stays where it is.
#[test]
fn r101_items_that_are_made_on_demand() {
    sweep(2, async |cut| {
        let (made, got) = (Cell::new(0), RefCell::new(Vec::new()));
        generator(
            async |mut out| -> io::Result<()> {
                for item in 0..4 {
                    made.set(made.get() + 1);
                    if item % 2 == 0 {
                        sleep(ms(1)).await?;
                    }
                    out.send(item).await?;
                }
                Ok(())
            },
            async |mut items| -> io::Result<()> {
                let take = async |items: &mut Items<u32>| -> Ended {
                    while let Some(item) = items.next().await? {
                        got.borrow_mut().push(item);
                        assert_eq!(made.get(), got.borrow().len(), "nothing is made in advance");
                    }
                    Ok(())
                };
                cut.run(take(&mut items)).await?;
                Ok(take(&mut items).await?)
            },
        )
        .await
        .unwrap();
        assert_eq!(*got.borrow(), [0, 1, 2, 3]);
    });
}

/// A change that was not reported is still one.
#[test]
fn r36_changes() {
    sweep(1, async |cut| {
        let (tx, mut rx) = sync::watch(0);
        let seen = Cell::new(0);
        local_nursery(async |n| -> Ended {
            n.spawn(async move {
                sleep(ms(1)).await?;
                tx.set(7);
                sleep(ms(1)).await
            });
            let watch = async |rx: &mut sync::WatchReceiver<u32>| -> Ended {
                while seen.get() != 7 && rx.changed().await? {
                    seen.set(*rx.get());
                }
                Ok(())
            };
            cut.run(watch(&mut rx)).await?;
            watch(&mut rx).await
        })
        .await
        .unwrap();
        assert_eq!(seen.get(), 7);
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
fn r36_streams_and_sinks() {
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
