//! What is a checkpoint, and what one does: R10–R13, R37, R38, with a table of all operations.
//!
//! | rule | here |
//! | --- | --- |
//! | R14 | in `deadline.rs` |
//! | R40 | not to be tested |

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Waker};
use trefoil_nursery::{
    CancelScope, Cancelled, Event, SendError, TryRecvError, channel, checkpoint, checkpoint_if_cancelled, fail_after,
    local_nursery, move_on_after, now, shield, shield_for, sleep, sleep_until, sync, unbounded, yield_now,
};
use trefoil_tests::{CANCELLED, Ended, Trace, counted, ms, panic_of, run_virtual};

#[test]
fn r10_nothing_is_interrupted_between_checkpoints() {
    run_virtual(async || {
        let steps = Cell::new(0);
        let scope = CancelScope::new();
        let out = scope
            .run(async {
                scope.cancel();
                for _ in 0..10 {
                    // None of these is a checkpoint.
                    yield_now().await;
                    shield(async {}).await;
                    std::future::ready(()).await;
                    scope.cancel();
                    steps.set(steps.get() + 1);
                }
                Ok::<_, Cancelled>("completed")
            })
            .await;
        assert_eq!((out, steps.get()), (Ok(Some("completed")), 10));
        assert!(!scope.cancelled_caught());
    });
}

type Operation<'a> = (&'static str, Box<dyn Fn() -> Pin<Box<dyn Future<Output = Ended>>> + 'a>);

macro_rules! operations {
    ($($name:literal => $body:expr),* $(,)?) => {
        vec![$(($name, Box::new(move || Box::pin($body) as Pin<Box<dyn Future<Output = Ended>>>) as _)),*]
    };
}

/// Every public operation that is a checkpoint, in a state in which it need not wait.
fn checkpoints() -> Vec<Operation<'static>> {
    operations! {
        "checkpoint" => checkpoint(),
        "checkpoint_if_cancelled" => checkpoint_if_cancelled(),
        "sleep(0)" => sleep(ms(0)),
        "sleep" => sleep(ms(1)),
        "sleep_until now" => sleep_until(now()),
        "sleep_until the past" => async { sleep_until(now() - ms(1)).await },
        "event that is set" => async { let e = Event::new(); e.set(); e.wait().await },
        "send with room" => async {
            let (tx, rx) = channel(1);
            let sent = tx.send(1).await;
            // R37: not attempted.
            match sent {
                Ok(()) => assert_eq!(rx.try_recv(), Ok(1)),
                Err(_) => assert_eq!(rx.try_recv(), Err(TryRecvError::Empty)),
            }
            sent.map_err(|_| CANCELLED)
        },
        "unbounded send" => async {
            let (tx, rx) = unbounded();
            let sent = tx.send(1).await;
            assert_eq!(rx.len(), usize::from(sent.is_ok()));
            sent.map_err(|_| CANCELLED)
        },
        "receive of an item" => async {
            let (tx, rx) = channel(1);
            tx.try_send(1).unwrap();
            let got = rx.recv().await;
            assert_eq!(rx.len(), usize::from(got.is_err()));
            got.map(|got| assert_eq!(got, Some(1)))
        },
        "receive of the end" => async {
            let (tx, rx) = channel::<()>(1);
            drop(tx);
            rx.recv().await.map(|got| assert_eq!(got, None))
        },
        "mutex that is free" => async {
            let mutex = sync::Mutex::new(());
            let ended = mutex.lock().await.map(drop);
            assert!(!mutex.is_locked());
            ended
        },
        "rwlock to read" => async { sync::RwLock::new(()).read().await.map(drop) },
        "rwlock to write" => async { sync::RwLock::new(()).write().await.map(drop) },
        "semaphore with a permit" => async {
            let semaphore = sync::Semaphore::new(1);
            let got = semaphore.acquire(1).await;
            assert_eq!(semaphore.available(), usize::from(got.is_err()));
            got.map(drop)
        },
        "limiter with a token" => async { sync::CapacityLimiter::new(1).acquire().await.map(drop) },
        "barrier of one" => async { sync::Barrier::new(1).wait().await.map(|leads| assert!(leads)) },
        "oneshot that was sent" => async {
            let (tx, mut rx) = sync::oneshot();
            tx.send(5).unwrap();
            let got = rx.recv().await;
            assert_eq!(rx.try_recv(), got.is_err().then_some(5));
            got.map(drop)
        },
        "watch that has changed" => async {
            let (tx, mut rx) = sync::watch(1);
            tx.set(2);
            rx.changed().await.map(|changed| assert!(changed))
        },
        "join of a done child" => async {
            local_nursery(async |n| -> Ended {
                let join = n.spawn(async { Ok(5) });
                while !join.is_done() {
                    yield_now().await;
                }
                join.await.map(|five| assert_eq!(five, 5))
            })
            .await
            .map_err(Cancelled::from)
        },
    }
}

/// What is awaited and is not a checkpoint.
fn not_checkpoints() -> Vec<Operation<'static>> {
    operations! {
        "yield_now" => async { yield_now().await; Ok(()) },
        "shield of nothing" => async { shield(async {}).await; Ok(()) },
        "shield_for of nothing" => async { shield_for(ms(1), async { Ok::<_, Cancelled>(()) }).await.map(|_| ()) },
        "scope of nothing" => async { CancelScope::new().run(async { Ok::<_, Cancelled>(()) }).await.map(|_| ()) },
        "move_on_after of nothing" => async { move_on_after(ms(1), async { Ok::<_, Cancelled>(()) }).await.map(|_| ()) },
        "fail_after of nothing" => async { fail_after(ms(1), async { Ok::<_, io::Error>(()) }).await.unwrap(); Ok(()) },
        "nursery of nothing" => async { local_nursery(async |_| Ok::<_, Cancelled>(())).await.unwrap(); Ok(()) },
    }
}

#[test]
fn r10_r38_every_operation_of_the_table_in_a_scope_that_is_not_cancelled() {
    run_virtual(async || {
        for (name, operation) in checkpoints().iter().chain(&not_checkpoints()) {
            let scope = CancelScope::new();
            assert_eq!(scope.run(operation()).await, Ok(Some(())), "{name}");
        }
    });
}

#[test]
fn r10_r37_r38_every_checkpoint_of_the_table_raises_in_a_cancelled_scope() {
    run_virtual(async || {
        for (name, operation) in &checkpoints() {
            let scope = CancelScope::new();
            scope.cancel();
            assert_eq!(scope.run(operation()).await, Ok(None), "{name}");
            assert!(scope.cancelled_caught(), "{name}");
        }
        for (name, operation) in &not_checkpoints() {
            let scope = CancelScope::new();
            scope.cancel();
            assert_eq!(scope.run(operation()).await, Ok(Some(())), "{name}");
        }
    });
}

#[test]
fn r32_no_operation_of_the_table_raises_under_a_shield() {
    run_virtual(async || {
        for (name, operation) in checkpoints().iter().chain(&not_checkpoints()) {
            let scope = CancelScope::new();
            scope.cancel();
            assert_eq!(scope.run(shield(operation())).await, Ok(Some(())), "{name}");
        }
    });
}

#[test]
fn r11_checkpoint_yields_first_and_then_looks() {
    run_virtual(async || {
        // A sibling cancels in the turn that the checkpoint gives up.
        let scope = CancelScope::new();
        local_nursery(async |n| -> Ended {
            let out = scope.run(async {
                n.spawn(async {
                    scope.cancel();
                    Ok(())
                });
                checkpoint().await
            });
            assert_eq!(out.await, Ok(None));
            Ok(())
        })
        .await
        .unwrap();
        // A deadline that expires in that pass is seen too (R45): not effective before, effective after.
        let scope = CancelScope::new();
        let out = scope
            .run(async {
                scope.set_deadline(Some(now()));
                checkpoint_if_cancelled().await.expect("R14: the loop has not looked");
                checkpoint().await
            })
            .await;
        assert_eq!(out, Ok(None));
    });
}

#[test]
fn r12_raising_also_schedules() {
    run_virtual(async || {
        for which in ["checkpoint", "checkpoint_if_cancelled"] {
            let t = Trace::new();
            local_nursery(async |n| -> Ended {
                let scope = CancelScope::new();
                scope.cancel();
                n.spawn(async {
                    t.note("sibling", "runs");
                    Ok(())
                });
                scope
                    .run(async {
                        let raised = match which {
                            "checkpoint" => checkpoint().await,
                            _ => checkpoint_if_cancelled().await,
                        };
                        t.note("body", "raised");
                        raised
                    })
                    .await?;
                Ok(())
            })
            .await
            .unwrap();
            assert_eq!(t.lines(), ["0 sibling runs", "0 body raised"], "{which}");
        }
    });
}

#[test]
fn r13_checkpoint_if_cancelled_does_nothing_where_there_is_none() {
    run_virtual(async || {
        let polls = Cell::new(0);
        counted(&polls, async {
            for _ in 0..1000 {
                checkpoint_if_cancelled().await?;
            }
            Ok::<_, Cancelled>(())
        })
        .await
        .unwrap();
        assert_eq!(polls.get(), 1);
        // Neither under a shield.
        let scope = CancelScope::new();
        scope.cancel();
        let polls = Cell::new(0);
        scope
            .run(shield(counted(&polls, async {
                for _ in 0..1000 {
                    checkpoint_if_cancelled().await?;
                }
                Ok::<_, Cancelled>(())
            })))
            .await
            .unwrap();
        assert_eq!(polls.get(), 1);
    });
}

#[test]
fn r37_cancelled_before_the_start_is_not_attempted() {
    run_virtual(async || {
        let scope = CancelScope::new();
        scope.cancel();
        let ((tx, rx), (full_tx, full_rx)) = (channel(1), channel(1));
        full_tx.try_send(1).unwrap();
        scope
            .run(async {
                // There is room, and there is an item: each could complete at once.
                assert_eq!(tx.send(5).await, Err(SendError::Cancelled(CANCELLED, 5)));
                assert_eq!(full_rx.recv().await, Err(CANCELLED));
                Ok::<_, Cancelled>(())
            })
            .await
            .unwrap();
        assert_eq!((rx.len(), full_rx.len()), (0, 1));
        // Not even where all receivers are gone: cancelled comes first.
        drop(rx);
        let scope = CancelScope::new();
        scope.cancel();
        assert_eq!(
            scope.run(async { Ok::<_, Cancelled>(tx.send(6).await) }).await,
            Ok(Some(Err(SendError::Cancelled(CANCELLED, 6))))
        );
    });
}

#[test]
fn outside_of_a_run_an_operation_says_so() {
    let message = panic_of(|| {
        let mut sleep = pin!(sleep(ms(1)));
        let _ = sleep.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    });
    assert!(message.contains("outside of a run"), "{message}");
    let message = panic_of(|| {
        let mut scope = pin!(move_on_after(ms(1), async { Ok::<_, Cancelled>(()) }));
        let _ = scope.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    });
    assert!(message.contains("run"), "{message}");
}
