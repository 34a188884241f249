//! Cancellation reaches our operations inside of combinators that know nothing of it: N13.

use futures::future::{self, FutureExt, join_all, pending, select_all};
use futures::stream::{FuturesUnordered, StreamExt};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use trefoil_nursery::{
    CancelScope, Cancelled, Event, channel, checkpoint, local_nursery, move_on_after, sleep, sleep_forever,
};
use trefoil_tests::{CANCELLED, Ended, Trace, ms, run_virtual};

/// One of our operations, by number, that would wait for ever.
pub async fn waits_for_ever(which: usize) -> Ended {
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
pub async fn cancelled_at_10<T>(body: impl Future<Output = Result<T, Cancelled>>) -> (Option<T>, u128) {
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
