//! Panics at every place where code of others runs: none may abort the process, lose the first payload, or leave a task or a borrow behind.

use super::support::*;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use trefoil_nursery::*;

#[test]
fn a_child_panics_in_its_poll() {
    let drops = Drops::new();
    for when in 0..3 {
        let siblings = AtomicUsize::new(0);
        let text = panic_of(|| {
            run_virtual(nursery(async |n| -> Result<(), Cancelled> {
                n.spawn(async {
                    // N9: told, and awaited.
                    let _probe = drops.probe();
                    let cancelled = sleep_forever().await;
                    shield(sleep(MS)).await?;
                    siblings.fetch_add(1, SeqCst);
                    cancelled
                });
                n.spawn(async {
                    let _probe = drops.probe();
                    for _ in 0..when {
                        checkpoint().await?;
                    }
                    panic_any("the first");
                    #[allow(unreachable_code)]
                    Ok(())
                });
                let ended = sleep_forever().await;
                siblings.fetch_add(1, SeqCst);
                ended
            }))
        });
        assert_eq!((text.as_str(), siblings.load(SeqCst)), ("the first", 2));
        drops.assert_all();
    }
}

#[test]
fn the_body_panics_with_children_alive() {
    let drops = Drops::new();
    let siblings = AtomicUsize::new(0);
    let text = panic_of(|| {
        run_virtual(nursery(async |n| -> Result<(), Cancelled> {
            for _ in 0..3 {
                n.spawn(async {
                    let _probe = drops.probe();
                    let cancelled = sleep_forever().await;
                    shield(sleep(MS)).await?;
                    siblings.fetch_add(1, SeqCst);
                    cancelled
                });
            }
            n.spawn(async {
                let _ = sleep_forever().await;
                panic_any("the second");
                #[allow(unreachable_code)]
                Ok(())
            });
            checkpoint().await?;
            panic_any("the first")
        }))
    });
    assert_eq!((text.as_str(), siblings.load(SeqCst)), ("the first", 3));
    drops.assert_all();
}

#[test]
fn the_closure_panics_before_there_is_a_body() {
    let drops = Drops::new();
    let text = panic_of(|| {
        run(async {
            nursery(eager(|n| {
                let probe = drops.probe();
                n.spawn(async move {
                    probe.touch();
                    Ok(())
                });
                panic_any("in the closure")
            }))
            .await
        })
    });
    assert_eq!(text, "in the closure");
    drops.assert_all();
}

#[test]
fn destructors_panic_when_a_child_or_body_ends() {
    for of_body in [false, true] {
        let drops = Drops::new();
        let text = panic_of(|| {
            run(nursery(async |n| -> Result<(), Cancelled> {
                let bomb = PanicOnDrop("in a destructor", drops.probe());
                let (mut here, mut there) = (None, None);
                *if of_body { &mut here } else { &mut there } = Some(bomb);
                let probe = drops.probe();
                n.spawn(async move {
                    let _probe = probe;
                    sleep_forever().await
                });
                let mut polls = 0;
                n.spawn(poll_fn(move |_| {
                    polls += 1;
                    let _ = &there;
                    Poll::Ready(Ok(polls))
                }));
                checkpoint().await?;
                drop(here);
                Ok(())
            }))
        });
        assert_eq!(text, "in a destructor");
        drops.assert_all();
    }
}

/// A child that panics, and then its destructor does; several do.
#[test]
fn the_first_of_many_panics_is_resumed() {
    let drops = Drops::new();
    let text = panic_of(|| {
        run(nursery(async |n| -> Result<(), Cancelled> {
            for i in 0..4 {
                let bomb = PanicOnDrop(["drop 0", "drop 1", "drop 2", "drop 3"][i], drops.probe());
                n.spawn(poll_fn(move |_| -> Poll<Result<(), Cancelled>> {
                    let _ = &bomb;
                    panic_any(["poll 0", "poll 1", "poll 2", "poll 3"][i])
                }));
            }
            Ok(())
        }))
    });
    assert_eq!(text, "poll 0");
    drops.assert_all();
}

#[test]
fn destructors_panic_while_the_nursery_is_dropped() {
    for k in 0..4 {
        let drops = Drops::new();
        let text = panic_of(|| {
            run(async {
                let bomb = PanicOnDrop("of the body", drops.probe());
                let open = nursery(async |n| -> Result<(), Cancelled> {
                    let _bomb = bomb;
                    for i in 0..3 {
                        let bomb = PanicOnDrop(["child 0", "child 1", "child 2"][i], drops.probe());
                        let probe = drops.probe();
                        n.spawn(async move {
                            let _probe = probe;
                            let _bomb = bomb;
                            never::<()>().await
                        });
                    }
                    never().await
                });
                let half = turns(Box::pin(open), k).await.err().unwrap();
                drop(half);
            })
        });
        // The body goes first.
        assert_eq!(text, "of the body");
        drops.assert_all();
    }
}

#[test]
fn destructors_panic_while_a_panic_drops_the_nursery() {
    for k in 0..4 {
        let drops = Drops::new();
        let text = panic_of(|| {
            run(async {
                let open = nursery(async |n| -> Result<(), Cancelled> {
                    for _ in 0..3 {
                        let bomb = PanicOnDrop("in teardown", drops.probe());
                        n.spawn(async move {
                            let _bomb = bomb;
                            never::<()>().await
                        });
                    }
                    never().await
                });
                let _half = turns(Box::pin(open), k).await;
                panic_any("the first");
            })
        });
        assert_eq!(text, "the first");
        drops.assert_all();
    }
}

#[test]
fn destructors_panic_in_nested_nurseries_that_are_dropped() {
    let drops = Drops::new();
    let text = panic_of(|| {
        run(async {
            let open = nursery(async |outer| -> Result<(), Cancelled> {
                for _ in 0..2 {
                    outer.spawn(async {
                        nursery(async |inner| -> Result<(), Cancelled> {
                            for _ in 0..2 {
                                inner.spawn(async {
                                    let _bomb = PanicOnDrop("deep", drops.probe());
                                    move_on_after(HOUR, async {
                                        let _probe = drops.probe();
                                        never::<()>().await
                                    })
                                    .await
                                });
                            }
                            never().await
                        })
                        .await
                        .map_err(Cancelled::from)
                    });
                }
                never().await
            });
            drop(turns(Box::pin(open), 4).await);
        })
    });
    assert_eq!(text, "deep");
    assert_eq!(drops.made(), 8);
    drops.assert_all();
}

/// A value that panics when it is dropped, by the library or by its handle.
#[test]
fn values_panic_when_they_are_dropped() {
    for handle in 0..3 {
        let drops = Drops::new();
        let text = panic_of(|| {
            run(nursery(async |n| -> Result<(), Cancelled> {
                let join = n.spawn(async { Ok(PanicOnDrop("a value", drops.probe())) });
                n.spawn(async {
                    let _probe = drops.probe();
                    sleep_forever().await
                });
                match handle {
                    0 => drop(join),
                    1 => {
                        checkpoint().await?;
                        drop(join);
                    }
                    _ => {
                        drop(join.await?);
                    }
                }
                sleep_forever().await
            }))
        });
        assert_eq!(text, "a value");
        drops.assert_all();
    }
}

/// The payload itself panics when it is dropped: the first is resumed, the others are gone without a trace.
#[test]
fn payloads_panic_when_they_are_dropped() {
    for k in 0..5 {
        let drops = Drops::new();
        let payload = catch_unwind(AssertUnwindSafe(|| {
            run(async {
                let slot = Mutex::new(None);
                let open = nursery(async |n| -> Result<(), Cancelled> {
                    for _ in 0..4 {
                        n.spawn(async {
                            let _probe = drops.probe();
                            let _on_drop = OnDrop(|| panic_any(Bomb("a payload")));
                            pend(&slot).await;
                            Ok(())
                        });
                        let probe = drops.probe();
                        n.spawn(poll_fn(move |_| {
                            probe.touch();
                            if k == 4 { panic_any(Bomb("a payload")) } else { Poll::<Result<(), Cancelled>>::Pending }
                        }));
                    }
                    never().await
                });
                let mut open = Box::pin(open);
                for _ in 0..k {
                    let _ = once(open.as_mut()).await;
                }
                drop(open);
                // Were a child left over, this would find its queue gone.
                if let Some(waker) = slot.lock().unwrap().take() {
                    waker.wake();
                }
            })
        }));
        drops.assert_all();
        if let Err(payload) = payload {
            let payload = payload.downcast::<Bomb>().expect("the first is passed on as it was");
            std::mem::forget(payload);
        } else {
            assert!(k < 2, "{k}");
        }
    }
}

#[test]
fn errors_panic_when_they_are_dropped_or_shown() {
    #[derive(Clone)]
    struct Loud(Arc<AtomicUsize>, bool);
    impl std::fmt::Debug for Loud {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic_any("shown")
        }
    }
    impl Drop for Loud {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
            if self.1 && !std::thread::panicking() {
                panic_any("dropped")
            }
        }
    }
    impl From<Cancelled> for Loud {
        fn from(_: Cancelled) -> Self {
            Loud(Arc::default(), false)
        }
    }
    impl CancelAware for Loud {
        fn is_cancelled(&self) -> bool {
            false
        }
    }
    for k in 0..4 {
        let (drops, errors) = (Drops::new(), Arc::new(AtomicUsize::new(0)));
        let _ = catch_unwind(AssertUnwindSafe(|| {
            run(async {
                let open = nursery(async |n| -> Result<(), Loud> {
                    for _ in 0..3 {
                        n.spawn(async { Err::<(), _>(Loud(errors.clone(), true)) });
                        n.spawn(async {
                            let _probe = drops.probe();
                            std::future::pending::<()>().await;
                            Ok(())
                        });
                        n.spawn(async {
                            let _probe = drops.probe();
                            shield(std::future::pending::<()>()).await;
                            Ok(())
                        });
                    }
                    never().await?;
                    Ok(())
                });
                drop(turns(Box::pin(open), k).await);
            })
        }));
        drops.assert_all();
    }
}
