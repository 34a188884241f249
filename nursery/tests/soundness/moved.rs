//! Futures that are polled in one place and go on, or are dropped, in another: another task, another scope, another thread's run, a
//! later run, or no run at all. Nothing here is how one should write programs; all of it compiles.
#![allow(clippy::type_complexity)]

use super::support::*;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Poll, Waker};
use std::thread;
use trefoil_nursery::*;

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + std::marker::Send + 'a>>;

/// One of everything that waits.
async fn program(data: &[u32], drops: &Drops) -> Result<u32, ErrorGroup<Cancelled>> {
    let (tx, rx) = channel::<Probe>(0);
    let event = Event::new();
    let _frame = drops.probe();
    nursery(async |n| -> Result<u32, Cancelled> {
        let probe = drops.probe();
        let slept = n.spawn(async move {
            probe.touch();
            sleep(MS).await?;
            Ok(data[0])
        });
        n.spawn(async {
            let _probe = drops.probe();
            for _ in 0..2 {
                if tx.send(drops.probe()).await.is_err() {
                    return Err(checkpoint().await.unwrap_err());
                }
                sleep(MS).await?;
            }
            event.set();
            Ok(())
        });
        let nested = n.spawn(async {
            let _probe = drops.probe();
            nursery(async |inner| -> Result<u32, Cancelled> {
                let _probe = drops.probe();
                let a = inner.spawn(async {
                    let _probe = drops.probe();
                    event.wait().await?;
                    Ok(data[1])
                });
                inner.spawn(async { shield(async { sleep(MS * 3).await }).await });
                a.await
            })
            .await
            .map_err(Cancelled::from)
        });
        let timed = n.spawn(async {
            let _probe = drops.probe();
            let scope = CancelScope::new();
            let inner = scope.run(async {
                let _probe = drops.probe();
                sleep_forever().await
            });
            let out = move_on_after(MS * 5, Box::pin(inner)).await?;
            Ok(if out.is_none() { data[2] } else { 0 })
        });
        rx.recv().await?.unwrap().touch();
        rx.recv().await?.unwrap().touch();
        Ok(slept.await? + nested.await? + timed.await?)
    })
    .await
}

const SUM: u32 = 111;

/// Calls `f` with the number of polls after which to stop, until the program has ended by itself.
fn at_every_await(f: impl Fn(Boxed<'_, Result<u32, ErrorGroup<Cancelled>>>)) {
    let _watchdog = Watchdog::new();
    let data = vec![1, 10, 100];
    for k in 0..1_000 {
        let drops = Drops::new();
        let half: Boxed<'_, Result<u32, ErrorGroup<Cancelled>>> = Box::pin(program(&data, &drops));
        let left = run_virtual(polls(half, k));
        match left {
            Ok(sum) => {
                assert_eq!(sum.unwrap(), SUM);
                drops.assert_all();
                assert!(k > 5, "the program was to wait more often than {k} times");
                return;
            }
            Err(half) => f(half),
        }
        drops.assert_all();
    }
    panic!("the program does not end");
}

#[test]
fn dropped_inside_of_its_run_at_every_await() {
    let _watchdog = Watchdog::new();
    let data = vec![1, 10, 100];
    for k in 0..1_000 {
        let drops = Drops::new();
        let ended = run_virtual(async {
            let ended = polls(Box::pin(program(&data, &drops)), k).await.is_ok();
            drops.assert_all();
            // What is left of the run works, and nothing is left in the tree.
            sleep(MS * 10).await.unwrap();
            let metrics = trefoil_runtime::metrics();
            assert_eq!((metrics.tasks, metrics.scopes, metrics.waits, metrics.timers), (0, 0, 0, 0));
            ended
        });
        if ended {
            return;
        }
    }
}

#[test]
fn dropped_outside_of_any_run_at_every_await() {
    at_every_await(|half| drop(half));
}

#[test]
fn dropped_in_another_run_at_every_await() {
    at_every_await(|half| run_virtual(async { drop(half) }));
}

#[test]
fn dropped_in_a_child_of_another_run_at_every_await() {
    at_every_await(|half| {
        run_virtual(async {
            nursery(async |n| -> Result<(), Cancelled> {
                n.spawn(async move {
                    checkpoint().await?;
                    drop(half);
                    Ok(())
                });
                Ok(())
            })
            .await
            .unwrap()
        })
    });
}

#[test]
fn dropped_on_another_thread_at_every_await() {
    at_every_await(|half| thread::scope(|s| s.spawn(|| drop(half)).join().unwrap()));
}

#[test]
fn continued_in_another_run_from_every_await() {
    at_every_await(|half| assert_eq!(run_virtual(half).unwrap(), SUM));
}

#[test]
fn continued_in_another_threads_run_from_every_await() {
    at_every_await(|half| assert_eq!(thread::scope(|s| s.spawn(|| run_virtual(half)).join().unwrap()).unwrap(), SUM));
}

#[test]
fn continued_in_a_child_of_another_run_from_every_await() {
    at_every_await(|half| {
        let sum = run_virtual(nursery(async |n| -> Result<u32, Cancelled> {
            let child = n.spawn(async move { half.await.map_err(Cancelled::from) });
            move_on_after(HOUR, child).await.map(Option::unwrap)
        }));
        assert_eq!(sum.unwrap(), SUM)
    });
}

#[test]
fn polled_in_a_new_run_each_time() {
    let _watchdog = Watchdog::new();
    let (data, drops) = (vec![1, 10, 100], Drops::new());
    let mut half: Boxed<'_, _> = Box::pin(program(&data, &drops));
    for _ in 0..10_000 {
        match run(async {
            let polled = polls(half, 1).await;
            sleep(MS / 10).await.unwrap();
            polled
        }) {
            Ok(sum) => {
                assert_eq!(sum.unwrap(), SUM);
                drops.assert_all();
                return;
            }
            Err(left) => half = left,
        }
    }
    panic!("it never ends");
}

#[test]
fn cancelled_in_another_run_at_every_await() {
    at_every_await(|half| {
        run_virtual(async {
            let scope = CancelScope::new();
            scope.cancel();
            let ended = scope.run(async { half.await.map_err(Cancelled::from) }).await;
            assert!(matches!(ended, Ok(None | Some(SUM))), "{ended:?}");
        })
    });
}

// ---- Out of a task that ends -----------------------------------------------------------------------------------------

/// Half polled futures that a child leaves behind, of each shape.
fn shapes<'a>() -> Vec<(&'static str, fn() -> Boxed<'a, ()>)> {
    vec![
        ("sleep", || {
            Box::pin(async {
                let _ = sleep(HOUR).await;
            })
        }),
        ("scope", || {
            Box::pin(async {
                let _ = move_on_after(HOUR, sleep(HOUR)).await;
            })
        }),
        ("scopes", || {
            Box::pin(async {
                let _ = move_on_after(HOUR, move_on_after(HOUR, async { shield(sleep(HOUR)).await })).await;
            })
        }),
        ("nursery", || {
            Box::pin(async {
                let _ = nursery(async |n| -> Result<(), Cancelled> {
                    n.spawn(sleep(HOUR));
                    n.spawn(async { move_on_after(HOUR, sleep(HOUR)).await });
                    sleep(HOUR).await
                })
                .await;
            })
        }),
    ]
}

/// What becomes of them.
fn fates() -> Vec<(&'static str, fn(Boxed<'static, ()>))> {
    vec![
        ("dropped outside", |half| drop(half)),
        ("dropped in a run", |half| run_virtual(async { drop(half) })),
        ("dropped on a thread", |half| thread::spawn(|| drop(half)).join().unwrap()),
        ("finished", |half| run_virtual(half)),
        ("finished in a cancelled scope", |half| {
            run_virtual(async {
                let scope = CancelScope::new();
                scope.cancel();
                let _ = scope
                    .run(async {
                        half.await;
                        checkpoint().await
                    })
                    .await;
            })
        }),
        ("polled and dropped", |half| {
            run_virtual(async {
                let left = polls(half, 1).await;
                checkpoint().await.unwrap();
                drop(left)
            })
        }),
    ]
}

fn for_each(f: impl Fn(Boxed<'static, ()>) -> Option<Boxed<'static, ()>>) {
    let _watchdog = Watchdog::new();
    for (_, shape) in shapes() {
        for (_, fate) in fates() {
            if let Some(half) = f(shape()) {
                fate(half);
            }
        }
    }
}

#[test]
fn left_behind_by_a_child_that_ends() {
    for_each(|half| {
        let (tx, rx) = unbounded();
        run_virtual(nursery(async |n| -> Result<(), Cancelled> {
            n.spawn(async move {
                let half = polls(half, 1).await.err().unwrap();
                assert!(tx.try_send(half).is_ok());
                Ok(())
            });
            Ok(())
        }))
        .unwrap();
        rx.try_recv().ok()
    });
}

#[test]
fn left_behind_by_a_child_that_had_it_in_a_scope() {
    for_each(|half| {
        let (tx, rx) = unbounded();
        run_virtual(nursery(async |n| -> Result<(), Cancelled> {
            n.spawn(async move {
                let half =
                    move_on_after(HOUR, async { Ok::<_, Cancelled>(polls(half, 1).await.err().unwrap()) }).await?;
                // The scope that it hangs in is gone; now the task goes.
                assert!(tx.try_send(half.unwrap()).is_ok());
                Ok(())
            });
            Ok(())
        }))
        .unwrap();
        rx.try_recv().ok()
    });
}

#[test]
fn left_behind_by_a_child_and_used_while_the_nursery_lives() {
    for_each(|half| {
        let (tx, rx) = unbounded();
        run_virtual(nursery(async |n| -> Result<(), Cancelled> {
            n.spawn(async move {
                let half = polls(half, 1).await.err().unwrap();
                assert!(tx.try_send(half).is_ok());
                Ok(())
            });
            let half = rx.recv().await?.unwrap();
            checkpoint().await?;
            let half = move_on_after(HOUR, async { Ok::<_, Cancelled>(polls(half, 1).await.err().unwrap()) }).await?;
            drop(half);
            Ok(())
        }))
        .unwrap();
        None
    });
}

#[test]
fn left_behind_by_the_body_of_a_nursery_that_is_dropped() {
    for_each(|half| {
        let kept = Mutex::new(None);
        run_virtual(async {
            let open = nursery(async |_| -> Result<(), Cancelled> {
                let half = polls(half, 1).await.err().unwrap();
                *kept.lock().unwrap() = Some(half);
                never::<()>().await
            });
            drop(polls(Box::pin(open), 1).await);
        });
        kept.into_inner().unwrap()
    });
}

#[test]
fn left_behind_by_the_body_of_a_nursery_that_ends() {
    for_each(|half| {
        run_virtual(nursery(async |_| -> Result<_, Cancelled> { Ok(polls(half, 1).await.err().unwrap()) })).ok()
    });
}

#[test]
fn left_behind_by_a_child_of_a_nursery_that_is_dropped_outside() {
    for_each(|half| {
        let kept = Mutex::new(None);
        let open = run_virtual(async {
            let open = nursery(async |n| -> Result<(), Cancelled> {
                n.spawn(async {
                    *kept.lock().unwrap() = Some(polls(half, 1).await.err().unwrap());
                    never::<()>().await
                });
                never::<()>().await
            });
            polls(Box::pin(open), 2).await
        });
        drop(open);
        kept.into_inner().unwrap()
    });
}

/// What was left behind counts as a wait of the child that began it, until it is polled elsewhere (then of who polls) or dropped.
#[test]
fn left_behind_by_a_child_that_is_cut() {
    for_each(|half| {
        let kept = Mutex::new(None);
        let kept = &kept;
        run_virtual(nursery(async |n| -> Result<(), Cancelled> {
            n.spawn(async {
                *kept.lock().unwrap() = Some(polls(half, 1).await.err().unwrap());
                never::<()>().await
            });
            checkpoint().await?;
            let half = kept.lock().unwrap().take().unwrap();
            let half = move_on_after(HOUR, async { Ok::<_, Cancelled>(polls(half, 1).await.err().unwrap()) }).await?;
            *kept.lock().unwrap() = half;
            n.cancel();
            Ok(())
        }))
        .unwrap();
        kept.lock().unwrap().take()
    });
}

#[test]
fn handed_on_from_child_to_child() {
    for_each(|half| {
        run_virtual(nursery(async |n| -> Result<_, Cancelled> {
            let mut half = half;
            for _ in 0..5 {
                let next = n.spawn(async move {
                    let half = polls(half, 1).await.err().unwrap();
                    checkpoint().await?;
                    Ok(half)
                });
                half = next.await?;
            }
            Ok(half)
        }))
        .ok()
    });
}

/// Its destructor waits for something, as that of a client that says goodbye might: polled once, and left to whoever finds it.
struct Goodbye<'a>(&'a Mutex<Vec<Boxed<'static, ()>>>);

impl Drop for Goodbye<'_> {
    fn drop(&mut self) {
        if !trefoil_runtime::in_run() {
            return;
        }
        for (_, shape) in shapes() {
            let mut half = shape();
            let _ = once_with(half.as_mut(), Waker::noop());
            self.0.lock().unwrap().push(half);
        }
        let _ = effective_deadline();
        let _ = trefoil_runtime::tree().to_string();
    }
}

#[test]
fn destructors_that_wait_at_every_await() {
    for fate in 0..6 {
        for k in 0..4 {
            let _watchdog = Watchdog::new();
            let kept = Mutex::new(Vec::new());
            let half = run_virtual(polls(
                Box::pin(nursery(async |n| -> Result<(), Cancelled> {
                    let _goodbye = Goodbye(&kept);
                    n.spawn(async {
                        let _goodbye = Goodbye(&kept);
                        checkpoint().await?;
                        let _ = move_on_after(MS, async {
                            let _goodbye = Goodbye(&kept);
                            sleep_forever().await
                        })
                        .await?;
                        never::<()>().await
                    });
                    sleep(HOUR).await
                })),
                k,
            ));
            match fate {
                0 => drop(half),
                1 => run_virtual(async { drop(half) }),
                2 => thread::scope(|s| s.spawn(|| run_virtual(async { drop(half) })).join().unwrap()),
                3 => {
                    let half = half.err().unwrap();
                    run_virtual(async {
                        let _ = polls(half, 1).await;
                    })
                }
                4 => run_virtual(async {
                    nursery(async |n| -> Result<(), Cancelled> {
                        n.spawn(async move {
                            drop(half);
                            Ok(())
                        });
                        Ok(())
                    })
                    .await
                    .unwrap()
                }),
                _ => run_virtual(async {
                    // The destructors' waits go while the run goes on.
                    drop(half);
                    kept.lock().unwrap().clear();
                    sleep(MS).await.unwrap();
                    let metrics = trefoil_runtime::metrics();
                    assert_eq!((metrics.scopes, metrics.waits, metrics.timers), (0, 0, 0));
                }),
            }
            let kept = kept.into_inner().unwrap();
            thread::spawn(|| drop(kept)).join().unwrap();
        }
    }
}

/// A closure that spawns before there is a body, and a nursery that is never polled.
#[test]
fn destructors_that_wait_in_a_nursery_that_was_never_polled() {
    let kept = Mutex::new(Vec::new());
    run_virtual(async {
        let kept = &kept;
        let goodbye = Goodbye(kept);
        drop(nursery(eager(|n| {
            n.spawn(async move {
                let _goodbye = goodbye;
                Ok(())
            });
            std::future::ready(Ok(()))
        })));
    });
    assert_eq!(kept.lock().unwrap().len(), shapes().len());
}

async fn step<'a>(half: Boxed<'a, ()>) -> Boxed<'a, ()> {
    move_on_after(HOUR * 2, async { Ok::<_, Cancelled>(polls(half, 1).await.err().unwrap()) }).await.unwrap().unwrap()
}

/// While one thread moves a nursery from run to run, another one changes its deadline.
#[test]
fn settings_change_while_a_nursery_moves() {
    let _watchdog = Watchdog::new();
    let scope = CancelScope::new();
    let scope = &scope;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let stop = &stop;
    thread::scope(|s| {
        s.spawn(move || {
            for i in 0.. {
                if stop.load(std::sync::atomic::Ordering::SeqCst) {
                    break;
                }
                scope.set_deadline((i % 2 == 0).then(|| std::time::Instant::now() + HOUR));
                scope.set_shield(i % 3 == 0);
                let _ = (scope.cause(), scope.deadline(), format!("{scope:?}"));
                if cfg!(miri) {
                    thread::yield_now();
                }
            }
        });
        let (a_tx, a_rx) = std::sync::mpsc::channel::<Boxed<'_, ()>>();
        let (b_tx, b_rx) = std::sync::mpsc::channel();
        a_tx.send(Box::pin(async {
            let _ = scope
                .run(async {
                    let mut n = 0;
                    poll_fn(|cx| {
                        n += 1;
                        cx.waker().wake_by_ref();
                        if n > 1_000_000 { Poll::Ready(()) } else { Poll::Pending }
                    })
                    .await;
                    sleep_forever().await
                })
                .await;
        }))
        .unwrap();
        let other = s.spawn(move || {
            run(async {
                for half in a_rx {
                    if b_tx.send(step(half).await).is_err() {
                        break;
                    }
                }
            })
        });
        run(async {
            for _ in 0..ROUNDS {
                let half = step(b_rx.recv().unwrap()).await;
                a_tx.send(half).unwrap();
            }
        });
        drop(a_tx);
        drop(b_rx.recv());
        drop(b_rx);
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        other.join().unwrap();
    });
}
