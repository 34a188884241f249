//! Cancellation and futures that know nothing of this library: it reaches our operations inside of their combinators, and it ends
//! them. N13.

use futures::future::{self, FutureExt, join_all, pending, select_all};
use futures::stream::{FuturesUnordered, StreamExt};
use std::cell::{Cell, RefCell};
use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use trefoil_nursery::{
    CancelScope, Cancelled, Event, Started, channel, checkpoint, local_nursery, local_with_cleanup, move_on_after,
    nursery, shield, shield_for, sleep, sleep_forever, unbounded, yield_now,
};
use trefoil_runtime::STRIKES;
use trefoil_tests::{OnDrop, Trace, counted, ms, poll_once, run_real, run_virtual};

type Ended = Result<(), Cancelled>;
const CANCELLED: Cancelled = Cancelled::delivered();

// ---- Our operations inside of foreign combinators --------------------------------------------------------------------

/// One of our operations, by number, that would wait for ever.
async fn waits_for_ever(which: usize) -> Ended {
    match which % 8 {
        0 => sleep_forever().await,
        1 => sleep(ms(1_000_000)).await,
        2 => Event::new().wait().await,
        3 => {
            let (_tx, rx) = channel::<()>(1);
            rx.recv().await.map(drop)
        }
        4 => {
            let (tx, _rx) = channel(0);
            tx.send(1).await.map_err(|_| CANCELLED)
        }
        5 => move_on_after(ms(1_000_000), sleep_forever()).await.map(drop),
        6 => {
            let nursery = local_nursery(async |n| -> Ended {
                n.spawn(sleep_forever());
                Ok(())
            });
            nursery.await.map_err(Cancelled::from)
        }
        _ => {
            let nursery = local_nursery(async |n| -> Ended {
                let join = n.spawn(async { sleep_forever().await.map(|()| 1) });
                join.await.map(drop)
            });
            nursery.await.map_err(Cancelled::from)
        }
    }
}

/// Runs a body in a scope that is cancelled at 10 ms from outside, and returns how the scope ended, at what time.
async fn cancelled_at_10<T>(body: impl Future<Output = Result<T, Cancelled>>) -> (Option<T>, u128) {
    let t = Trace::new();
    let scope = CancelScope::new();
    let out = RefCell::new(None);
    local_nursery(async |n| -> Ended {
        n.spawn(async {
            *out.borrow_mut() = Some((scope.run(body).await.expect("absorbed"), t.ms()));
            Ok(())
        });
        sleep(ms(10)).await?;
        scope.cancel();
        Ok(())
    })
    .await
    .unwrap();
    out.into_inner().unwrap()
}

#[test]
fn reaches_operations_inside_futures_unordered() {
    run_virtual(async || {
        let told = Cell::new(0);
        let body = async {
            let mut all: FuturesUnordered<_> = (0..80).map(waits_for_ever).collect();
            while let Some(ended) = all.next().await {
                assert_eq!(ended, Err(CANCELLED));
                told.set(told.get() + 1);
            }
            checkpoint().await
        };
        assert_eq!(cancelled_at_10(body).await, (None, 10));
        assert_eq!(told.get(), 80);
    });
}

#[test]
fn reaches_operations_inside_join_all() {
    run_virtual(async || {
        // Up to 30 it polls all; above it uses wakers of its own.
        for count in [1, 8, 30, 31, 64, 200] {
            let told = Cell::new(0);
            let body = async {
                let ended = join_all((0..count).map(waits_for_ever)).await;
                told.set(ended.iter().filter(|e| **e == Err(CANCELLED)).count());
                checkpoint().await
            };
            assert_eq!(cancelled_at_10(body).await, (None, 10));
            assert_eq!(told.get(), count);
        }
    });
}

#[test]
fn reaches_operations_inside_select() {
    run_virtual(async || {
        for which in 0..8 {
            let body = async {
                let mut ours = Box::pin(waits_for_ever(which).fuse());
                let mut never = pending::<()>();
                futures::select_biased! {
                    ended = ours => ended,
                    () = never.clone().fuse() => unreachable!(),
                    () = (&mut never).fuse() => unreachable!(),
                }
            };
            assert_eq!(cancelled_at_10(body).await, (None, 10), "{which}");
            let body = async {
                let mut ours = Box::pin(waits_for_ever(which).fuse());
                let mut other = Box::pin(waits_for_ever(which + 1).fuse());
                futures::select! {
                    ended = ours => ended,
                    ended = other => ended,
                }
            };
            assert_eq!(cancelled_at_10(body).await, (None, 10), "{which}");
        }
        let body = async { select_all((0..40).map(|i| Box::pin(waits_for_ever(i)))).await.0 };
        assert_eq!(cancelled_at_10(body).await, (None, 10));
    });
}

#[test]
fn reaches_operations_inside_buffered_streams_and_shared_futures() {
    run_virtual(async || {
        let body = async {
            let ends = futures::stream::iter(0..100).map(waits_for_ever).buffer_unordered(20).collect::<Vec<_>>().await;
            assert!(ends.iter().all(|e| *e == Err(CANCELLED)) && ends.len() == 100);
            checkpoint().await
        };
        assert_eq!(cancelled_at_10(body).await, (None, 10));
        let body = async {
            let shared = sleep_forever().shared();
            let (a, b) = future::join(shared.clone(), shared).await;
            assert_eq!((a, b), (Err(CANCELLED), Err(CANCELLED)));
            a
        };
        assert_eq!(cancelled_at_10(body).await, (None, 10));
    });
}

/// A deadline, a failing sibling and a lowered shield deliver as a `cancel` does.
#[test]
fn reaches_them_by_a_deadline_a_failure_and_a_lowered_shield() {
    run_virtual(async || {
        let body = || async {
            let all: Vec<Ended> = (0..40).map(waits_for_ever).collect::<FuturesUnordered<_>>().collect().await;
            assert!(all.iter().all(|e| *e == Err(CANCELLED)));
            checkpoint().await
        };
        let t = Trace::new();
        assert_eq!((move_on_after(ms(5), body()).await, t.ms()), (Ok(None), 5));
        let group = local_nursery(async |n| -> io::Result<()> {
            n.spawn(async { Ok(body().await?) });
            sleep(ms(5)).await?;
            Err(io::Error::other("x"))
        });
        assert_eq!((group.await.unwrap_err().len(), t.ms()), (1, 10));
        let (outer, inner) = (CancelScope::new(), CancelScope::new());
        inner.set_shield(true);
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                let out = outer.run(async { inner.run(body()).await }).await;
                assert_eq!(out, Ok(None));
                Ok(())
            });
            sleep(ms(5)).await?;
            outer.cancel();
            sleep(ms(5)).await?;
            inner.set_shield(false);
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(t.ms(), 20);
    });
}

// ---- N13 a: foreign futures end ------------------------------------------------------------------------------------

/// A foreign future, by number, that would wait for ever, and counts its drop.
async fn foreign(which: usize, dropped: &AtomicUsize) {
    let _guard = OnDrop(dropped);
    match which % 9 {
        0 => pending().await,
        1 => {
            let (_tx, mut rx) = tokio::sync::mpsc::channel::<()>(1);
            rx.recv().await;
        }
        2 => {
            let (_tx, rx) = tokio::sync::oneshot::channel::<()>();
            let _ = rx.await;
        }
        3 => {
            let (_tx, rx) = async_channel::bounded::<()>(1);
            let _ = rx.recv().await;
        }
        4 => {
            let (tx, _rx) = async_channel::bounded(1);
            tx.try_send(()).unwrap();
            let _ = tx.send(()).await;
        }
        5 => {
            let lock = tokio::sync::Mutex::new(());
            let _held = lock.lock().await;
            let _again = lock.lock().await;
        }
        6 => tokio::sync::Notify::new().notified().await,
        7 => {
            join_all((0..40).map(|_| pending::<()>())).await;
        }
        _ => {
            (0..3).map(|_| pending::<()>()).collect::<FuturesUnordered<_>>().collect::<Vec<_>>().await;
        }
    }
}
const FOREIGN: usize = 9;

/// Runs `place(foreign)` in a scope that is cancelled at 10 ms: it ends at 10 ms, and the foreign future was dropped once.
async fn ends_at_10<T: std::fmt::Debug>(what: &str, body: impl AsyncFn(usize, &AtomicUsize) -> Result<T, Cancelled>) {
    for which in 0..FOREIGN {
        let dropped = AtomicUsize::new(0);
        let (_, at) = cancelled_at_10(body(which, &dropped)).await;
        assert_eq!((at, dropped.load(Ordering::SeqCst)), (10, 1), "{what}, foreign future {which}");
    }
}

#[test]
fn n13a_in_a_scope() {
    run_virtual(async || {
        ends_at_10("a scope", async |which, dropped| {
            foreign(which, dropped).await;
            Ok(())
        })
        .await;
        ends_at_10("a nested scope", async |which, dropped| {
            let inner = CancelScope::new();
            let out = inner
                .run(async {
                    foreign(which, dropped).await;
                    Ok::<_, Cancelled>(())
                })
                .await;
            assert_eq!(out, Err(CANCELLED), "R24: the outer scope is responsible");
            assert!(!inner.cancelled_caught());
            out
        })
        .await;
        ends_at_10("a scope with a deadline far away", async |which, dropped| {
            move_on_after(ms(1_000_000), async {
                foreign(which, dropped).await;
                Ok::<_, Cancelled>(())
            })
            .await
        })
        .await;
    });
}

#[test]
fn n13a_by_its_own_deadline() {
    run_virtual(async || {
        for which in 0..FOREIGN {
            let (t, dropped) = (Trace::new(), AtomicUsize::new(0));
            let out = move_on_after(ms(7), async {
                foreign(which, &dropped).await;
                Ok::<_, Cancelled>(())
            });
            assert_eq!((out.await, t.ms(), dropped.load(Ordering::SeqCst)), (Ok(None), 7, 1));
            let out = shield_for(ms(7), async {
                foreign(which, &dropped).await;
                Ok::<_, Cancelled>(())
            });
            assert_eq!((out.await, t.ms(), dropped.load(Ordering::SeqCst)), (Ok(None), 14, 2));
        }
    });
}

#[test]
fn n13a_in_a_child_and_in_a_body() {
    run_virtual(async || {
        ends_at_10("a child", async |which, dropped| {
            let nursery = local_nursery(async |n| -> Ended {
                n.spawn(async move {
                    foreign(which, dropped).await;
                    Ok(())
                });
                Ok(())
            });
            let ended = nursery.await;
            assert!(ended.is_err(), "a cancellation goes on to the scope that is responsible");
            Ok(ended?)
        })
        .await;
        ends_at_10("a body", async |which, dropped| {
            let nursery = local_nursery(async |n| -> Ended {
                n.spawn(sleep_forever());
                foreign(which, dropped).await;
                Ok(())
            });
            Ok(nursery.await?)
        })
        .await;
        ends_at_10("a scope in a child", async |which, dropped| {
            let nursery = local_nursery(async |n| -> Ended {
                n.spawn(async move {
                    move_on_after(ms(1_000_000), async {
                        foreign(which, dropped).await;
                        Ok::<_, Cancelled>(())
                    })
                    .await?;
                    Ok(())
                });
                Ok(())
            });
            Ok(nursery.await?)
        })
        .await;
        ends_at_10("a child of a nested nursery", async |which, dropped| {
            let nursery = local_nursery(async |n| -> Ended {
                n.spawn(async move {
                    let inner = local_nursery(async |inner| -> Ended {
                        inner.spawn(async move {
                            foreign(which, dropped).await;
                            Ok(())
                        });
                        sleep_forever().await
                    });
                    Ok(inner.await?)
                });
                Ok(())
            });
            Ok(nursery.await?)
        })
        .await;
    });
}

#[test]
fn n13a_inside_of_foreign_combinators_beside_our_operations() {
    run_virtual(async || {
        ends_at_10("join", async |which, dropped| {
            let (_, slept) = future::join(foreign(which, dropped), sleep_forever()).await;
            slept
        })
        .await;
        ends_at_10("join_all of 40", async |which, dropped| {
            let others = (0..40).map(|i| waits_for_ever(i).map(drop).boxed_local());
            join_all(others.chain([foreign(which, dropped).boxed_local()])).await;
            Ok(())
        })
        .await;
        ends_at_10("FuturesUnordered in a child", async |which, dropped| {
            let nursery = local_nursery(async |n| -> Ended {
                n.spawn(async move {
                    let all: FuturesUnordered<_> = (0..5).map(|i| waits_for_ever(i).map(drop).boxed_local()).collect();
                    all.push(foreign(which, dropped).boxed_local());
                    all.collect::<Vec<_>>().await;
                    Ok(())
                });
                Ok(())
            });
            Ok(nursery.await?)
        })
        .await;
        ends_at_10("a scope inside of FuturesUnordered", async |which, dropped| {
            let scoped = async {
                let inner = move_on_after(ms(1_000_000), async {
                    foreign(which, dropped).await;
                    Ok::<_, Cancelled>(())
                });
                assert_eq!(inner.await, Err(CANCELLED));
            };
            let all: FuturesUnordered<_> =
                [scoped.boxed_local(), sleep_forever().map(drop).boxed_local()].into_iter().collect();
            all.collect::<Vec<_>>().await;
            checkpoint().await
        })
        .await;
    });
}

#[test]
fn n13a_by_a_failing_sibling() {
    run_virtual(async || {
        for which in 0..FOREIGN {
            let (t, dropped) = (Trace::new(), AtomicUsize::new(0));
            let group = local_nursery(async |n| -> io::Result<()> {
                n.spawn(async {
                    foreign(which, &dropped).await;
                    Ok(())
                });
                n.spawn(async {
                    sleep(ms(3)).await?;
                    Err::<(), _>(io::Error::other("x"))
                });
                foreign(which + 1, &dropped).await;
                Ok(())
            })
            .await
            .unwrap_err();
            // The cuts leave no error behind.
            assert_eq!((group.len(), t.ms(), dropped.load(Ordering::SeqCst)), (1, 3, 2));
        }
    });
}

/// With threads, on the machine's clock: a sender in another thread that never sends.
#[test]
fn n13a_a_receive_from_another_thread() {
    run_real(async || {
        let (tx, mut rx) = tokio::sync::mpsc::channel::<u8>(1);
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            tx.blocking_send(1).unwrap();
            while !stopped.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            drop(tx);
        });
        let got = AtomicUsize::new(0);
        let out = nursery(async |n| -> Ended {
            n.spawn(async {
                while rx.recv().await.is_some() {
                    got.fetch_add(1, Ordering::SeqCst);
                }
                Ok(())
            });
            // However late the thread comes; and then it waits again.
            while got.load(Ordering::SeqCst) == 0 {
                sleep(ms(1)).await?;
            }
            sleep(ms(5)).await?;
            n.cancel();
            Ok(())
        });
        out.await.unwrap();
        assert_eq!(got.load(Ordering::SeqCst), 1);
        stop.store(true, Ordering::SeqCst);
        thread.join().unwrap();
    });
}

/// A future that wakes itself at each of its first polls, as a cooperative one does, and is then ready.
struct WakesItself(usize);
impl Future for WakesItself {
    type Output = &'static str;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.0.checked_sub(1) {
            None => Poll::Ready("done"),
            Some(left) => {
                self.0 = left;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

#[test]
fn n13a_a_foreign_future_that_has_been_woken_again_is_not_cut() {
    run_virtual(async || {
        let scope = CancelScope::new();
        scope.cancel();
        let out = scope.run(async { Ok::<_, Cancelled>(WakesItself(20).await) }).await;
        assert_eq!(out, Ok(Some("done")));
        let out = local_nursery(async |n| -> Result<&str, Cancelled> {
            n.cancel();
            let child = n.spawn(async { Ok(WakesItself(20).await) });
            let body = WakesItself(30).await;
            let child = shield(child).await.expect("the child was not cut");
            Ok(if child == body { child } else { "?" })
        });
        assert_eq!(out.await.unwrap(), "done");
        // Inside of a combinator with wakers of its own.
        let scope = CancelScope::new();
        scope.cancel();
        let all = async { Ok::<_, Cancelled>(join_all((0..50).map(WakesItself)).await.len()) };
        assert_eq!(scope.run(all).await, Ok(Some(50)));
    });
}

#[test]
fn n13a_a_shield_is_never_cut() {
    run_virtual(async || {
        let t = Trace::new();
        let (tx, rx) = tokio::sync::oneshot::channel();
        let body = local_nursery(async |n| -> Ended {
            n.spawn(async {
                let slept = sleep_forever().await;
                // Clean-up that waits for somebody else's channel.
                let got = shield(rx).await;
                t.note("child", got.unwrap());
                slept
            });
            n.spawn(async {
                let slept = sleep_forever().await;
                shield(sleep(ms(40))).await?;
                tx.send("got it").unwrap();
                slept
            });
            sleep(ms(10)).await?;
            n.cancel();
            Ok(())
        });
        body.await.unwrap();
        assert_eq!(t.lines(), ["50 child got it"]);
    });
}

#[test]
fn n13a_a_nursery_that_waits_for_its_children_is_never_cut() {
    run_virtual(async || {
        let t = Trace::new();
        let out = move_on_after(ms(10), async {
            let outer = local_nursery(async |n| -> Ended {
                n.spawn(async {
                    let inner = local_nursery(async |inner| -> Ended {
                        inner.spawn(async {
                            let slept = sleep_forever().await;
                            shield(sleep(ms(30))).await?;
                            t.note("grandchild", "cleaned up");
                            slept
                        });
                        // The body is cut; the nursery waits for the child.
                        pending().await
                    });
                    let ended = inner.await;
                    t.note("child", "goes on");
                    Ok(ended?)
                });
                Ok(())
            });
            Ok::<_, Cancelled>(outer.await?)
        });
        assert_eq!(out.await, Ok(None));
        assert_eq!(t.lines(), ["40 grandchild cleaned up", "40 child goes on"]);
    });
}

#[test]
fn n13a_a_foreign_future_beside_a_shield_is_cut_when_the_shield_is_over() {
    run_virtual(async || {
        let (t, dropped) = (Trace::new(), AtomicUsize::new(0));
        let out = move_on_after(ms(10), async {
            let (_, slept) = future::join(foreign(1, &dropped), shield(sleep(ms(50)))).await;
            slept
        });
        assert_eq!((out.await, t.ms(), dropped.load(Ordering::SeqCst)), (Ok(None), 50, 1));
    });
}

#[test]
fn n13a_not_before_it_is_cancelled() {
    run_virtual(async || {
        let t = Trace::new();
        let (tx, rx) = async_channel::bounded(1);
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                while let Ok(i) = rx.recv().await {
                    t.note("child", i);
                }
                Ok(())
            });
            for i in 0..3 {
                sleep(ms(10)).await?;
                tx.send(i).await.unwrap();
            }
            drop(tx);
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(t.lines(), ["10 child 0", "20 child 1", "30 child 2"]);
    });
}

/// The destructors of what is cut run in its scope, and may spawn nothing that lives on.
#[test]
fn n13a_what_is_cut_was_polled_once_after_the_cancel() {
    run_virtual(async || {
        let (polls, scope) = (Cell::new(0), CancelScope::new());
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                let out = scope.run(counted(&polls, pending::<Ended>())).await;
                assert_eq!(out, Ok(None));
                Ok(())
            });
            sleep(ms(1)).await?;
            assert_eq!(polls.get(), 1);
            scope.cancel();
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(polls.get(), 2);
    });
}

// ---- N13 b: swallowing ends ----------------------------------------------------------------------------------------

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
