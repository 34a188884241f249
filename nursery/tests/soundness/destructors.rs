//! Destructors that spawn, and the drops of values, errors and handles, counted.
#![allow(clippy::redundant_async_block)]

use super::support::{Failure, *};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use trefoil_nursery::*;

/// Spawns when it is dropped, a child that does the same, some times over.
struct Respawn<'s, 'env> {
    n: Nursery<'s, 'env, Cancelled>,
    drops: &'env Drops,
    polled: &'env AtomicUsize,
    left: usize,
    _probe: Probe,
}

impl<'s, 'env> Respawn<'s, 'env> {
    fn new(n: Nursery<'s, 'env, Cancelled>, drops: &'env Drops, polled: &'env AtomicUsize, left: usize) -> Self {
        Self { n, drops, polled, left, _probe: drops.probe() }
    }
}

impl Drop for Respawn<'_, '_> {
    fn drop(&mut self) {
        if self.left > 0 {
            let next = Respawn::new(self.n, self.drops, self.polled, self.left - 1);
            let join = self.n.spawn(async move {
                next.polled.fetch_add(1, SeqCst);
                checkpoint().await?;
                drop(next);
                Ok(())
            });
            let _ = join.is_done();
        }
    }
}

#[test]
fn destructors_spawn_at_every_moment() {
    for k in 0..12 {
        for (body, child, cancel) in [(true, false, false), (false, true, false), (true, true, true)] {
            let (drops, polled) = (&Drops::new(), &AtomicUsize::new(0));
            let ended = run(async {
                let open = nursery(async |n| -> Result<(), Cancelled> {
                    let _body = body.then(|| Respawn::new(n, drops, polled, 3));
                    let probe = child.then(|| Respawn::new(n, drops, polled, 3));
                    n.spawn(async move {
                        let _probe = probe;
                        checkpoint().await?;
                        if cancel {
                            n.cancel();
                        }
                        checkpoint().await
                    });
                    checkpoint().await
                });
                turns(Box::pin(open), k).await.is_ok()
            });
            drops.assert_all();
            if ended && !cancel {
                assert_eq!(polled.load(SeqCst), if body { 3 } else { 0 } + if child { 3 } else { 0 });
            }
        }
    }
}

#[test]
fn destructors_spawn_into_an_outer_nursery() {
    let (drops, polled) = (&Drops::new(), &AtomicUsize::new(0));
    run(nursery(async |outer| -> Result<(), Cancelled> {
        for k in 0..4 {
            let open = nursery(async move |inner| -> Result<(), Cancelled> {
                let guard = Respawn::new(outer, drops, polled, 2);
                inner.spawn(async move {
                    let _guard = guard;
                    never::<()>().await
                });
                never().await
            });
            drop(turns(Box::pin(open), k).await);
        }
        Ok(())
    }))
    .unwrap();
    drops.assert_all();
    assert_eq!(polled.load(SeqCst), 2 * 3);
}

#[test]
fn values_are_dropped_once_whatever_becomes_of_the_handle() {
    for fate in 0..9 {
        for early in [false, true] {
            let drops = Drops::new();
            let mut kept = 0;
            run(async {
                let open = nursery(async |n| -> Result<(), Cancelled> {
                    let mut join = n.spawn(async {
                        yield_now().await;
                        Ok(drops.probe())
                    });
                    if !early {
                        for _ in 0..4 {
                            yield_now().await;
                        }
                        assert!(join.is_done());
                    }
                    match fate {
                        0 => drop(join),
                        1 => drop(join.await?),
                        2 => {
                            let _ = once(Pin::new(&mut join)).await;
                            drop(join);
                        }
                        3 => {
                            let _ = once(Pin::new(&mut join)).await;
                            let taken = join.await;
                            assert_eq!(taken.is_err(), !early);
                        }
                        4 => drop(n.spawn(async move { join.await })),
                        5 => {
                            n.spawn(async move {
                                let _ = once(Pin::new(&mut join)).await;
                                n.spawn(async move {
                                    drop(join.await);
                                    Ok(())
                                });
                                Ok(())
                            });
                        }
                        6 => {
                            while !join.is_done() {
                                checkpoint().await?;
                            }
                            assert!(join.try_take().is_some() && join.try_take().is_none());
                            assert!(join.await.is_err());
                        }
                        7 => {
                            // Waits while the nursery is cancelled.
                            n.cancel();
                            drop(once(Pin::new(&mut join)).await);
                            drop(join.await);
                        }
                        _ => {
                            // As a forgotten one, whose value nobody can reach: it is leaked, not dropped too early.
                            forget(Box::pin(join));
                            kept = 1;
                        }
                    }
                    Ok(())
                });
                open.await.unwrap();
            });
            assert_eq!(drops.count(), drops.made() - kept, "fate {fate}, early {early}");
        }
    }
}

/// The same, where the nursery is dropped before.
#[test]
fn values_are_dropped_once_when_the_nursery_is_dropped() {
    for k in 0..6 {
        let drops = Drops::new();
        run(async {
            let open = nursery(async |n| -> Result<(), Cancelled> {
                let done = n.spawn(async { Ok(drops.probe()) });
                let mut waited_for = n.spawn(async {
                    let _probe = drops.probe();
                    never::<Probe>().await
                });
                let _ = once(Pin::new(&mut waited_for)).await;
                let in_a_sibling = n.spawn(async {
                    yield_now().await;
                    Ok(drops.probe())
                });
                n.spawn(async move {
                    let _ = in_a_sibling.await;
                    drop(waited_for.await);
                    Ok(())
                });
                // A handle as another child's value.
                let nested = n.spawn(async move { Ok(n.spawn(async { Ok(done) })) });
                let never_done = never::<()>().await;
                drop(nested);
                never_done
            });
            drop(turns(Box::pin(open), k).await);
        });
        drops.assert_all();
    }
}

#[test]
fn errors_are_dropped_once() {
    let drops = &Drops::new();
    for k in 0..8 {
        run(async {
            let open = nursery(async |n| -> Result<(), Failure> {
                for i in 0..3 {
                    n.spawn(async move {
                        for _ in 0..i {
                            yield_now().await;
                        }
                        Err::<(), _>(Failure::Own(drops.probe()))
                    });
                }
                Err(Failure::Own(drops.probe()))
            });
            match turns(Box::pin(open), k).await {
                Ok(ended) => assert_eq!(ended.unwrap_err().len(), 4),
                Err(half) => drop(half),
            }
        });
        drops.assert_all();
    }
}

/// Handles of children that wait for each other in a ring.
#[test]
fn children_hold_each_others_handles() {
    for k in 0..6 {
        let drops = Drops::new();
        run(async {
            let open = nursery(async |n| -> Result<(), Cancelled> {
                let (tx, rx) = unbounded::<Join<'_, Probe>>();
                let (probe, receiver) = (drops.probe(), rx.clone());
                let first = n.spawn(async move {
                    // Waits for itself, in the end.
                    let mine = receiver.recv().await?.unwrap();
                    let _ = mine.await?;
                    Ok(probe)
                });
                assert!(tx.try_send(first).is_ok());
                never().await
            });
            drop(turns(Box::pin(open), k).await);
        });
        drops.assert_all();
    }
}
