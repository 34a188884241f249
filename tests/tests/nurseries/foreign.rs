//! Cancellation and futures that know nothing of this library (N13 a): it ends them.

use super::combinators::{cancelled_at_10, waits_for_ever};
use futures::future::{self, FutureExt, join_all, pending};
use futures::stream::{FuturesUnordered, StreamExt};
use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use trefoil_nursery::{
    CancelScope, Cancelled, checkpoint, local_nursery, move_on_after, nursery, shield, shield_for, sleep, sleep_forever,
};
use trefoil_tests::{CANCELLED, Ended, OnDrop, Trace, counted, ms, run_real, run_virtual};

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
