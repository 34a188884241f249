//! Futures that go from task to task, and children that are started from elsewhere: who counts as waiting for what (N13), and where it
//! hangs in the tree.

use super::support::*;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use trefoil_nursery::*;

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + std::marker::Send + 'a>>;

fn waits(which: usize, ended: &AtomicUsize) -> Boxed<'_, ()> {
    let body = async {
        shield(sleep(HOUR)).await.unwrap();
        ended.fetch_add(1, SeqCst);
    };
    match which {
        0 => Box::pin(body),
        1 => Box::pin(async {
            let _ = move_on_after(HOUR * 2, async {
                body.await;
                Ok::<_, Cancelled>(())
            })
            .await;
        }),
        _ => Box::pin(async {
            let _ = nursery(async |n| -> Result<(), Cancelled> {
                n.spawn(async {
                    body.await;
                    Ok(())
                });
                Ok(())
            })
            .await;
        }),
    }
}

/// A shield that one child began and another one goes on with keeps the second alive when the nursery is cancelled, not the first.
#[test]
fn a_shield_goes_from_child_to_child() {
    for which in 0..3 {
        for in_body in [false, true] {
            let _watchdog = Watchdog::new();
            let ended = &AtomicUsize::new(0);
            let (tx, rx) = channel::<Boxed<'_, ()>>(1);
            run_virtual(nursery(async |n| -> Result<(), Cancelled> {
                n.spawn(async move {
                    let half = polls(waits(which, ended), 1).await.err().unwrap();
                    tx.send(half).await.map_err(|_| checkpoint_error())?;
                    // Nothing that the library knows of: cut when the nursery is cancelled.
                    never::<()>().await
                });
                let goes_on = async move {
                    let half = rx.recv().await?.unwrap();
                    half.await;
                    assert_eq!(ended.load(SeqCst), 1);
                    ended.fetch_add(1, SeqCst);
                    Ok(())
                };
                n.spawn(async move {
                    sleep(MS).await?;
                    n.cancel();
                    Ok(())
                });
                if in_body {
                    goes_on.await
                } else {
                    n.spawn(goes_on);
                    Ok(())
                }
            }))
            .unwrap();
            assert_eq!(ended.load(SeqCst), 2, "shape {which}");
        }
    }
}

fn checkpoint_error() -> Cancelled {
    unreachable!("the channel has room")
}

/// `start` through the handle, from a thread with a run of its own: the child is polled by one thread, and its caller by another.
#[test]
fn started_from_another_threads_run() {
    let _watchdog = Watchdog::new();
    let drops = Drops::new();
    for round in 0..if cfg!(miri) { 6 } else { 300 } {
        let drops = &drops;
        let _ = run(nursery(async |n| -> std::io::Result<()> {
            // The loop goes on beside the thread, which borrows the handle for as long as this child is polled: so it is polled in steps.
            n.spawn(async move {
                let left = thread::scope(|s| {
                    let thread = s.spawn(move || {
                        run(async move {
                            let probe = drops.probe();
                            let mut start = Box::pin(move_on_after(MS / 10, async move {
                                n.start(async move |started| {
                                    let _probe = probe;
                                    match round % 3 {
                                        0 => started.ready(1),
                                        1 => drop(started),
                                        _ => drop((move_on_after(MS, sleep_forever()).await, started)),
                                    }
                                    let _ = move_on_after(MS, sleep_forever()).await;
                                    Ok(())
                                })
                                .await
                            }));
                            // The child cannot run yet, since its thread waits for this one.
                            let _ = once(start.as_mut()).await;
                            sleep(MS / 5).await.unwrap();
                            let _ = once(start.as_mut()).await;
                            // Or it goes on in the run of the nursery.
                            (round % 2 == 1).then_some(start)
                        })
                    });
                    thread.join().unwrap()
                });
                if let Some(start) = left {
                    let _ = start.await;
                }
                Ok(())
            });
            Ok(())
        }));
    }
    drops.assert_all();
}

/// The same while both threads run.
#[test]
fn started_from_another_threads_run_while_the_nursery_runs() {
    let _watchdog = Watchdog::new();
    let drops = &Drops::new();
    for round in 0..if cfg!(miri) { 4 } else { 300 } {
        let (to, from) = std::sync::mpsc::channel::<Boxed<'static, ()>>();
        let other = thread::spawn(move || {
            run(async {
                for half in from {
                    // Polled here, where its caller is now.
                    let _ = move_on_after(MS, async {
                        half.await;
                        Ok::<_, Cancelled>(())
                    })
                    .await;
                }
            })
        });
        let gone = AtomicBool::new(false);
        let gone = &gone;
        let _ = run(nursery(async |n| -> std::io::Result<()> {
            let probe = drops.probe();
            let start: Boxed<'_, ()> = Box::pin(async move {
                let _gone = OnDrop(|| gone.store(true, SeqCst));
                let _ = n
                    .start(async move |started| {
                        let _probe = probe;
                        for _ in 0..3 {
                            sleep(MS / 20).await?;
                            let _ = move_on_after(MS / 50, sleep_forever()).await;
                        }
                        if round % 2 == 0 {
                            started.ready(());
                        }
                        sleep(MS / 10).await?;
                        Ok(())
                    })
                    .await;
            });
            // SAFETY: a lie about its life; the body waits until the other thread has dropped it.
            let start: Boxed<'static, ()> = unsafe { std::mem::transmute(start) };
            to.send(start).unwrap();
            while !gone.load(SeqCst) {
                let _ = move_on_after(MS / 50, sleep_forever()).await;
                if cfg!(miri) {
                    thread::yield_now();
                }
            }
            Ok(())
        }));
        drop(to);
        other.join().unwrap();
        drops.assert_all();
    }
}

/// The body of a placed scope is polled by a child, and goes on, or ends, after that child is gone. Its place is not below the nursery.
#[test]
fn placed_elsewhere_and_polled_by_a_child_that_is_gone() {
    for goes_on in [false, true] {
        run(async {
            // SAFETY: it is all one run.
            let root = unsafe { trefoil_runtime::Placed::here(std::panic::Location::caller()) };
            let placed = root.handle();
            let mut body = Box::pin(root.run(sleep_forever()));
            let ended = nursery(async |n| -> Result<(), Cancelled> {
                n.spawn(async {
                    assert!(once(body.as_mut()).await.is_pending());
                    Ok(())
                });
                Ok(())
            })
            .await;
            assert!(ended.is_ok());
            if goes_on {
                assert!(once(body.as_mut()).await.is_pending());
                placed.cancel(std::panic::Location::caller());
                assert_eq!(body.await, Some(Err(Cancelled::delivered())));
            }
        });
    }
}
