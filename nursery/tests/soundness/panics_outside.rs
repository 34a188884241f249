//! Panics in wakers of others, in main and in drivers: none may abort the process or lose the first payload.

use super::support::*;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;
use trefoil_nursery::*;
use trefoil_runtime::{Driver, Options, ThreadDriver, Unpark};

fn waker_that_panics(wakes: &Arc<AtomicUsize>) -> Waker {
    let wakes = wakes.clone();
    Hooks {
        wake: Some(Box::new(move || {
            wakes.fetch_add(1, SeqCst);
            panic_any("in a waker")
        })),
        ..Hooks::default()
    }
    .waker()
}

/// Waits with a waker that panics, inside of a child, at each kind of operation; then it is completed, cancelled, or dropped.
#[test]
fn wakers_panic_wherever_they_are_woken() {
    for operation in 0..7 {
        for end in 0..5 {
            let _watchdog = Watchdog::new();
            let (drops, wakes) = (Drops::new(), Arc::new(AtomicUsize::new(0)));
            let _ = catch_unwind(AssertUnwindSafe(|| {
                run_virtual(async {
                    let event = Event::new();
                    let (tx, rx) = channel::<Probe>(0);
                    let open = nursery(async |n| -> Result<(), Cancelled> {
                        let child = n.spawn(async {
                            let _probe = drops.probe();
                            yield_now().await;
                            yield_now().await;
                            Ok(drops.probe())
                        });
                        let (event, drops, tx, rx, wakes) = (&event, &drops, &tx, &rx, &wakes);
                        n.spawn(async move {
                            let _probe = drops.probe();
                            let mut waits: Pin<Box<dyn Future<Output = ()> + std::marker::Send>> = match operation {
                                0 => Box::pin(async {
                                    let _ = sleep(MS).await;
                                }),
                                1 => Box::pin(async {
                                    let _ = event.wait().await;
                                }),
                                2 => Box::pin(async {
                                    let _ = tx.send(drops.probe()).await;
                                }),
                                3 => Box::pin(async {
                                    let _ = rx.recv().await;
                                }),
                                4 => Box::pin(async {
                                    let _ = child.await;
                                }),
                                5 => Box::pin(async {
                                    let _ = move_on_after(MS, never::<()>()).await;
                                }),
                                _ => Box::pin(async {
                                    let _ = nursery(async |inner| -> Result<(), Cancelled> {
                                        inner.spawn(event.wait()).await
                                    })
                                    .await;
                                }),
                            };
                            let waker = waker_that_panics(wakes);
                            for _ in 0..2 {
                                // It may want to be polled again at once.
                                let _ = catch_unwind(AssertUnwindSafe(|| once_with(waits.as_mut(), &waker)));
                            }
                            yield_now().await;
                            yield_now().await;
                            yield_now().await;
                            drop(waits);
                            Ok(())
                        });
                        n.spawn(async move {
                            let _probe = drops.probe();
                            yield_now().await;
                            match end {
                                0 => n.cancel(),
                                1 => {
                                    event.set();
                                    let _ = tx.try_send(drops.probe());
                                    let _ = rx.try_recv();
                                }
                                2 => sleep(MS * 2).await?,
                                3 => panic_any("a sibling"),
                                _ => never().await?,
                            }
                            sleep(MS * 2).await
                        });
                        n.spawn(async {
                            let _probe = drops.probe();
                            sleep(MS * 3).await
                        });
                        Ok(())
                    });
                    drop(turns(Box::pin(open), 6).await);
                })
            }));
            // The item on its way out of a `try_recv` whose end panics is leaked by the compiler (rust-lang/rust#47949).
            let leaked = usize::from((operation, end) == (2, 1));
            assert_eq!(drops.count(), drops.made() - leaked, "operation {operation}, end {end}");
        }
    }
}

/// The waker of the task above panics when the inbox of a nursery wakes it, while that is being destroyed by a panic, or not.
#[test]
fn wakers_panic_while_a_nursery_is_dropped() {
    for k in 1..5 {
        let (drops, wakes) = (Drops::new(), Arc::new(AtomicUsize::new(0)));
        let slot = Mutex::new(None);
        let text = catch_unwind(AssertUnwindSafe(|| {
            run(async {
                let mut open = Box::pin(nursery(async |n| -> Result<(), Cancelled> {
                    let join = n.spawn(async {
                        let _probe = drops.probe();
                        let _panics = OnDrop(|| panic_any("a destructor"));
                        pend(&slot).await;
                        Ok(())
                    });
                    n.spawn(async {
                        let _probe = drops.probe();
                        let mut join = join;
                        // Registered in the first child, with a waker that panics.
                        let _ = catch_unwind(AssertUnwindSafe(|| {
                            once_with(Pin::new(&mut join), &waker_that_panics(&wakes))
                        }));
                        never::<()>().await
                    });
                    n.spawn(async {
                        let _probe = drops.probe();
                        // In the nursery's scope, which a panic cancels.
                        let mut waits = Box::pin(sleep(HOUR));
                        let _ =
                            catch_unwind(AssertUnwindSafe(|| once_with(waits.as_mut(), &waker_that_panics(&wakes))));
                        never::<()>().await
                    });
                    for _ in 0..3 {
                        n.spawn(async {
                            let _probe = drops.probe();
                            pend(&slot).await;
                            Ok(())
                        });
                    }
                    never().await
                }));
                let waker = waker_that_panics(&wakes);
                for _ in 0..k {
                    let _ = catch_unwind(AssertUnwindSafe(|| once_with(open.as_mut(), &waker)));
                }
                let dropped = catch_unwind(AssertUnwindSafe(|| drop(open)));
                let waker = slot.lock().unwrap().take();
                if let Some(waker) = waker {
                    waker.wake();
                }
                if let Err(payload) = dropped {
                    resume_unwind(payload);
                }
            })
        }));
        drops.assert_all();
        let _ = text;
    }
}

#[test]
fn several_wakers_panic_at_once_and_all_are_woken() {
    let wakes = Arc::new(AtomicUsize::new(0));
    let text = panic_of(|| {
        run(async {
            let event = Event::new();
            let mut waits: Vec<_> = (0..4).map(|_| Box::pin(event.wait())).collect();
            for wait in &mut waits {
                assert!(once_with(wait.as_mut(), &waker_that_panics(&wakes)).is_pending());
            }
            event.set();
        })
    });
    assert_eq!((text.as_str(), wakes.load(SeqCst)), ("in a waker", 4));
}

#[test]
fn a_waker_panics_when_it_is_cloned() {
    let waker = Hooks { clone: Some(Box::new(|| panic_any("in a clone"))), ..Hooks::default() }.waker();
    run_virtual(async {
        let event = Event::new();
        let (tx, rx) = channel::<u8>(0);
        let mut half = each_wait(&event, &tx, &rx);
        for half in &mut half {
            let polled = catch_unwind(AssertUnwindSafe(|| once_with(half.as_mut(), &waker)));
            assert!(polled.is_err());
        }
        drop(half);
        // Nothing is locked, and nothing is left.
        event.set();
        assert!(tx.try_send(1).is_err());
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
        let metrics = trefoil_runtime::metrics();
        assert_eq!((metrics.tasks, metrics.scopes, metrics.waits, metrics.timers), (0, 0, 0, 0));
    });
}

// ---- The run ---------------------------------------------------------------------------------------------------------------

#[test]
fn main_panics_and_so_does_its_destructor() {
    let drops = Drops::new();
    let bomb = PanicOnDrop("the second", drops.probe());
    let text = panic_of(|| {
        run(poll_fn(move |_| -> Poll<()> {
            let _ = &bomb;
            panic_any("the first")
        }))
    });
    assert_eq!(text, "the first");
    let bomb = PanicOnDrop("only", drops.probe());
    let text = panic_of(|| {
        run(poll_fn(move |_| {
            let _ = &bomb;
            Poll::Ready(())
        }))
    });
    assert_eq!(text, "only");
    drops.assert_all();
    run(checkpoint()).unwrap();
}

/// A driver that panics at one of its methods.
#[derive(Debug)]
struct Broken(ThreadDriver, &'static str);

impl Broken {
    fn at(&self, place: &'static str) {
        if self.1 == place {
            panic_any(place);
        }
    }
}

impl Driver for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }
    fn park(&self, timeout: Option<Duration>) -> std::io::Result<()> {
        self.at("park");
        if self.1 == "park with an error" {
            return Err(std::io::Error::other("broken"));
        }
        self.0.park(timeout)
    }
    fn poll(&self) -> std::io::Result<()> {
        self.at("poll");
        self.0.poll()
    }
    fn unparker(&self) -> Arc<dyn Unpark> {
        self.0.unparker()
    }
    fn in_flight(&self) -> usize {
        self.at("in_flight");
        1
    }
    fn shutdown(&self) {
        self.at("shutdown");
    }
}

/// The driver is code of others as well: whatever it does, no scope that outlives the run may point to its frame.
#[test]
fn drivers_panic() {
    for place in ["park", "park with an error", "poll", "in_flight", "shutdown"] {
        for virtual_time in [false, true] {
            let drops = Drops::new();
            let kept = Mutex::new(Vec::new());
            let result = catch_unwind(AssertUnwindSafe(|| {
                trefoil_runtime::run(
                    Rc::new(Broken(ThreadDriver::new(), place)),
                    Options { virtual_time, ..Options::default() },
                    std::panic::Location::caller(),
                    async {
                        let _probe = drops.probe();
                        for _ in 0..2 {
                            let half: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async {
                                let _ = move_on_after(HOUR, sleep(HOUR)).await;
                            });
                            let half = turns(half, 1).await.err().unwrap();
                            kept.lock().unwrap().push(half);
                        }
                        sleep(MS).await.unwrap();
                    },
                )
            }));
            // Whether it comes to the other methods depends on how long things take.
            assert!(result.is_err() || place != "shutdown");
            drops.assert_all();
            // What outlived the run looks for its parent.
            let mut kept = kept.into_inner().unwrap();
            let last = kept.pop().unwrap();
            drop(kept);
            run_virtual(last);
        }
    }
    run(checkpoint()).unwrap();
}

/// N5: a waker of a child is used up by its wake, also where the waker of who polls the nursery panics as it is told of that.
#[test]
fn a_waker_around_that_panics_leaks_no_child() {
    let (name, slot) = (Arc::<str>::from("child"), Mutex::new(None));
    run(async {
        let (name, slot) = (&name, &slot);
        let mut open = Box::pin(nursery(async |n| {
            n.spawn_named(name.clone(), async {
                pend(slot).await;
                Ok(())
            });
            never::<()>().await
        }));
        for _ in 0..2 {
            assert!(once_with(open.as_mut(), Waker::noop()).is_pending());
        }
        let wakes = Arc::new(AtomicUsize::new(0));
        let around = waker_that_panics(&wakes);
        assert!(
            once_with(open.as_mut(), &around).is_pending(),
            "nothing is left to do: it is registered, and not woken"
        );
        let of_child: Waker = slot.lock().unwrap().take().unwrap();
        assert!(catch_unwind(AssertUnwindSafe(|| of_child.wake())).is_err());
        assert_eq!(wakes.load(SeqCst), 1);
        drop(open);
    });
    assert_eq!(Arc::strong_count(&name), 1, "the child's memory has its name");
}
