//! Cancel at every await, drop at every await: each public operation in a small world, stopped at its first, second, … poll, and
//! what must hold afterwards. R36, R37, N5, N12.

use futures::future::{FutureExt, join_all};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use trefoil_nursery::{
    CancelScope, Cancelled, Event, SendError, channel, checkpoint, checkpoint_if_cancelled, fail_after, local_nursery,
    move_on_after, nursery, shield, shield_for, sleep, sleep_until, yield_now,
};
use trefoil_tests::{CANCELLED, End, Ended, How, OnDrop, at_every_await, ms, run_virtual, stop};

#[test]
fn time() {
    run_virtual(async || {
        let stops = at_every_await(async |how, k| {
            let done = Cell::new(0);
            let end = stop(how, k, async {
                sleep(ms(10)).await?;
                done.set(1);
                sleep_until(trefoil_nursery::now() + ms(5)).await?;
                done.set(2);
                sleep(ms(0)).await?;
                done.set(3);
                checkpoint().await?;
                done.set(4);
                checkpoint_if_cancelled().await?;
                done.set(5);
                Ok::<_, Cancelled>(())
            })
            .await;
            assert_eq!(done.get() == 5, end != End::Stopped);
            end.is_complete()
        });
        assert!(stops.await.iter().all(|&n| n >= 5));
    });
}

#[test]
fn receive() {
    for capacity in [0, 1, 2, 10] {
        run_virtual(async || {
            let stops = at_every_await(async |how, k| {
                let (tx, rx) = channel(capacity);
                let got = RefCell::new(Vec::new());
                let mut end = false;
                local_nursery(async |n| -> Ended {
                    n.spawn(async move {
                        for i in 0..5u32 {
                            tx.send(i).await.map_err(|_| CANCELLED)?;
                            if i % 2 == 0 {
                                sleep(ms(1)).await?;
                            }
                        }
                        Ok(())
                    });
                    let stopped = stop(how, k, async {
                        while let Some(i) = rx.recv().await? {
                            got.borrow_mut().push(i);
                        }
                        Ok::<_, Cancelled>(())
                    });
                    end = stopped.await.is_complete();
                    // Whatever it did not get is still there, in order.
                    while let Some(i) = rx.recv().await? {
                        got.borrow_mut().push(i);
                    }
                    Ok(())
                })
                .await
                .unwrap();
                assert_eq!(*got.borrow(), [0, 1, 2, 3, 4], "{how:?} at {k}, capacity {capacity}");
                end
            })
            .await;
            assert!(stops.iter().all(|&n| n >= 3), "{stops:?}");
        });
    }
}

#[test]
fn send() {
    for capacity in [0, 1, 2] {
        run_virtual(async || {
            let stops = at_every_await(async |how, k| {
                let (tx, rx) = channel(capacity);
                let (sent, back, got) = (Cell::new(0), Cell::new(None), RefCell::new(Vec::new()));
                let mut end = false;
                local_nursery(async |n| -> Ended {
                    n.spawn(async {
                        while let Some(i) = rx.recv().await? {
                            got.borrow_mut().push(i);
                            if i % 2 == 0 {
                                sleep(ms(1)).await?;
                            }
                        }
                        Ok(())
                    });
                    let stopped = stop(how, k, async {
                        for i in 0..6u32 {
                            match tx.send(i).await {
                                Ok(()) => sent.set(i + 1),
                                Err(SendError::Cancelled(cancelled, item)) => {
                                    back.set(Some(item));
                                    return Err(cancelled);
                                }
                                Err(other) => unreachable!("{other:?}"),
                            }
                        }
                        Ok(())
                    });
                    end = stopped.await.is_complete();
                    drop(tx);
                    Ok(())
                })
                .await
                .unwrap();
                let (sent, got) = (sent.get(), got.into_inner());
                assert_eq!(got, (0..got.len() as u32).collect::<Vec<_>>());
                match how {
                    // R36, N6: exactly what was reported was sent, and the next one came back.
                    How::Cancel => {
                        assert_eq!(got.len() as u32, sent);
                        assert!(end || sent == 6 || back.get() == Some(sent));
                    }
                    // Nobody was there to be told about the last one.
                    How::Drop => assert!((sent..=sent + 1).contains(&(got.len() as u32))),
                }
                end
            })
            .await;
            assert!(stops.iter().all(|&n| n >= 3), "{stops:?}");
        });
    }
}

#[test]
fn event_and_join() {
    run_virtual(async || {
        let stops = at_every_await(async |how, k| {
            let (event, ran) = (Event::new(), Cell::new(0));
            let mut end = false;
            local_nursery(async |n| -> Ended {
                let mut join = n.spawn(async {
                    sleep(ms(2)).await?;
                    event.set();
                    sleep(ms(2)).await?;
                    ran.set(ran.get() + 1);
                    Ok(7)
                });
                let stopped = stop(how, k, async {
                    event.wait().await?;
                    let seven = (&mut join).await?;
                    Ok::<_, Cancelled>(seven)
                });
                let stopped = stopped.await;
                end = stopped.is_complete();
                // The child is not stopped, and its value is there for who joins again.
                event.wait().await?;
                if stopped == End::Stopped {
                    assert_eq!(join.await?, 7);
                } else {
                    assert!(matches!(stopped, End::Complete(7) | End::Late(7)));
                }
                Ok(())
            })
            .await
            .unwrap();
            assert_eq!(ran.get(), 1);
            end
        })
        .await;
        assert!(stops.iter().all(|&n| n >= 2), "{stops:?}");
    });
}

/// The same world for a nursery and a local nursery, awaited plainly and with `or_cancelled`.
macro_rules! nursery_world {
    ($name:ident, $open:ident, $await:ident) => {
        #[test]
        fn $name() {
            run_virtual(async || {
                let stops = at_every_await(async |how, k| {
                    let (begun, dropped, cleaned) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
                    let (begun, dropped, cleaned) = (&begun, &dropped, &cleaned);
                    let child = |length: u64| async move {
                        begun.fetch_add(1, Ordering::SeqCst);
                        let _guard = OnDrop(dropped);
                        for _ in 0..2 {
                            if let Err(cancelled) = sleep(ms(length)).await {
                                shield(sleep(ms(3))).await?;
                                cleaned.fetch_add(1, Ordering::SeqCst);
                                return Err(cancelled);
                            }
                        }
                        Ok(length)
                    };
                    let end = stop(how, k, async {
                        let open = $open(async |n| -> Result<u64, Cancelled> {
                            let joins: Vec<_> = (1..4).map(|i| n.spawn(child(i))).collect();
                            n.spawn(async move {
                                let inner = $open(async |inner| -> Ended {
                                    inner.spawn(child(5));
                                    Ok(())
                                });
                                Ok(inner.await?)
                            });
                            let mut sum = 0;
                            for join in joins {
                                sum += join.await?;
                            }
                            checkpoint().await?;
                            Ok(sum)
                        });
                        $await(open).await
                    })
                    .await;
                    let [begun, dropped, cleaned] = [begun, dropped, cleaned].map(|n| n.load(Ordering::SeqCst));
                    // Nobody outlives the nursery.
                    assert_eq!(begun, dropped, "{how:?} at {k}");
                    match (&end, how) {
                        (End::Complete(6), _) => assert_eq!((begun, cleaned), (4, 0)),
                        // Dropped: without clean-up. Cancelled: each was told, and cleaned up.
                        (End::Stopped, How::Drop) => assert_eq!(cleaned, 0),
                        (End::Stopped | End::Late(6), How::Cancel) => assert!(cleaned <= begun),
                        other => panic!("{other:?}"),
                    }
                    end.is_complete()
                })
                .await;
                assert!(stops.iter().all(|&n| n >= 8), "{stops:?}");
            });
        }
    };
}

async fn plain<T, E: Into<Cancelled>>(open: impl Future<Output = Result<T, E>>) -> Result<T, Cancelled> {
    open.await.map_err(Into::into)
}

nursery_world!(a_nursery, nursery, plain);
nursery_world!(a_local_nursery, local_nursery, plain);

#[test]
fn scopes_and_shields() {
    run_virtual(async || {
        let stops = at_every_await(async |how, k| {
            let (shielded, steps) = (Cell::new(0), Cell::new(0));
            let end = stop(how, k, async {
                let step = |n: u32| steps.set(steps.get() + n);
                move_on_after(ms(1000), async {
                    sleep(ms(1)).await?;
                    step(1);
                    CancelScope::new()
                        .run(async {
                            sleep(ms(1)).await?;
                            step(1);
                            shield(async {
                                shielded.set(1);
                                sleep(ms(5)).await.expect("shielded");
                                yield_now().await;
                                sleep(ms(5)).await.expect("shielded");
                                shielded.set(2);
                            })
                            .await;
                            shield_for(ms(100), sleep(ms(1))).await
                        })
                        .await?;
                    step(1);
                    Ok::<_, Cancelled>(())
                })
                .await?;
                let out: io::Result<()> = fail_after(ms(50), async { Ok::<_, io::Error>(sleep(ms(10)).await?) }).await;
                match out {
                    Ok(()) => step(1),
                    Err(error) => {
                        assert_ne!(error.kind(), io::ErrorKind::TimedOut);
                        return Err(CANCELLED);
                    }
                }
                Ok(steps.get())
            })
            .await;
            if how == How::Cancel {
                assert_ne!(shielded.get(), 1, "a cancel does not get into a shield");
            }
            assert!(matches!(end, End::Complete(4) | End::Late(4) | End::Stopped));
            end.is_complete()
        })
        .await;
        assert!(stops.iter().all(|&n| n >= 5), "{stops:?}");
    });
}

#[test]
fn inside_of_foreign_combinators() {
    run_virtual(async || {
        let stops = at_every_await(async |how, k| {
            let event = Event::new();
            let end = stop(how, k, async {
                let all = (0..40u64).map(|i| {
                    let event = &event;
                    async move {
                        sleep(ms(i % 4)).await?;
                        if i == 39 {
                            event.set();
                        }
                        event.wait().await?;
                        move_on_after(ms(2), sleep(ms(i % 4))).await.map(|out| out.is_some())
                    }
                    .boxed_local()
                });
                let all: Result<Vec<bool>, Cancelled> = join_all(all).await.into_iter().collect();
                Ok::<_, Cancelled>(all?.into_iter().filter(|in_time| *in_time).count())
            })
            .await;
            // 0 and 1 ms are in time; 2 ms equals the deadline, which wins (R46).
            assert!(matches!(end, End::Complete(20) | End::Stopped), "{end:?}");
            end.is_complete()
        })
        .await;
        assert!(stops.iter().all(|&n| n >= 5), "{stops:?}");
    });
}
