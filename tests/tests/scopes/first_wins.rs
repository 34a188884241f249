//! Of the result and the cancel of an operation the first wins: R18, R19, R39, for each kind of wait.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use trefoil_nursery::{
    CancelScope, Cancelled, Event, SendError, TryRecvError, channel, checkpoint, checkpoint_if_cancelled,
    local_nursery, sleep_until, unbounded, yield_now,
};
use trefoil_tests::{CANCELLED, Ended, Trace, run_virtual};

/// Lets a child wait in a scope, does something in the turn after, and returns what the child got, and what it gets at its next
/// checkpoint.
async fn race<T>(operation: impl Future<Output = T>, scope: &CancelScope, act: impl FnOnce()) -> (T, Ended) {
    let got = RefCell::new(None);
    local_nursery(async |n| -> Ended {
        n.spawn(async {
            scope
                .run(async {
                    let value = operation.await;
                    let next = checkpoint_if_cancelled().await;
                    *got.borrow_mut() = Some((value, next));
                    Ok::<_, Cancelled>(())
                })
                .await?;
            Ok(())
        });
        yield_now().await;
        act();
        Ok(())
    })
    .await
    .unwrap();
    got.into_inner().expect("the child ended")
}

#[test]
fn r18_the_result_wins_event() {
    run_virtual(async || {
        let (event, scope) = (Event::new(), CancelScope::new());
        let got = race(event.wait(), &scope, || {
            event.set();
            scope.cancel();
        });
        assert_eq!(got.await, (Ok(()), Err(CANCELLED)));
    });
}

#[test]
fn r18_the_result_wins_receiver() {
    run_virtual(async || {
        let ((tx, rx), scope) = (channel(1), CancelScope::new());
        let got = race(rx.recv(), &scope, || {
            tx.try_send(5).unwrap();
            scope.cancel();
        });
        assert_eq!(got.await, (Ok(Some(5)), Err(CANCELLED)));
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
    });
}

#[test]
fn r18_the_result_wins_rendezvous_sender() {
    run_virtual(async || {
        let ((tx, rx), scope) = (channel(0), CancelScope::new());
        let got = race(tx.send(5), &scope, || {
            assert_eq!(rx.try_recv(), Ok(5));
            scope.cancel();
        });
        assert_eq!(got.await, (Ok(()), Err(CANCELLED)));
    });
}

#[test]
fn r18_the_result_wins_sleep() {
    run_virtual(async || {
        let (scope, t) = (CancelScope::new(), Trace::new());
        local_nursery(async |n| -> Ended {
            // Both are woken at 5; the first then cancels the second.
            n.spawn(async {
                sleep_until(t.at(5)).await?;
                scope.cancel();
                Ok(())
            });
            n.spawn(async {
                let out = scope
                    .run(async {
                        sleep_until(t.at(5)).await?;
                        t.note("second", "slept");
                        checkpoint().await
                    })
                    .await;
                assert_eq!(out, Ok(None));
                Ok(())
            });
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(t.lines(), ["5 second slept"]);
    });
}

#[test]
fn r18_the_result_wins_join() {
    run_virtual(async || {
        let (scope, t) = (CancelScope::new(), Trace::new());
        local_nursery(async |n| -> Ended {
            let join = n.spawn(async {
                sleep_until(t.at(5)).await?;
                Ok(9)
            });
            // Runs right after the child, in the same turn.
            n.spawn(async {
                sleep_until(t.at(5)).await?;
                scope.cancel();
                Ok(())
            });
            let out = scope
                .run(async {
                    let nine = join.await?;
                    assert_eq!(checkpoint_if_cancelled().await, Err(CANCELLED));
                    Ok::<_, Cancelled>(nine)
                })
                .await;
            assert_eq!(out, Ok(Some(9)));
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn r19_the_cancel_wins_event() {
    run_virtual(async || {
        let (event, scope) = (Event::new(), CancelScope::new());
        let got = race(event.wait(), &scope, || {
            scope.cancel();
            event.set();
        });
        assert_eq!(got.await, (Err(CANCELLED), Err(CANCELLED)));
    });
}

#[test]
fn r19_the_cancel_wins_receiver_and_the_item_stays() {
    run_virtual(async || {
        let ((tx, rx), scope) = (channel(1), CancelScope::new());
        let got = race(rx.recv(), &scope, || {
            scope.cancel();
            tx.try_send(5).unwrap();
        });
        assert_eq!(got.await, (Err(CANCELLED), Err(CANCELLED)));
        assert_eq!(rx.try_recv(), Ok(5));
    });
}

#[test]
fn r19_the_cancel_wins_receiver_and_the_item_goes_to_somebody_else() {
    run_virtual(async || {
        let ((tx, rx), scope, other) = (channel(0), CancelScope::new(), Cell::new(None));
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                assert_eq!(scope.run(rx.recv()).await, Ok(None));
                Ok(())
            });
            n.spawn(async {
                other.set(rx.recv().await?);
                Ok(())
            });
            yield_now().await;
            scope.cancel();
            tx.try_send(5).unwrap();
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(other.get(), Some(5));
    });
}

#[test]
fn r19_the_cancel_wins_sender_and_keeps_its_item() {
    run_virtual(async || {
        let ((tx, rx), scope) = (channel(0), CancelScope::new());
        let got = race(tx.send(5), &scope, || {
            scope.cancel();
            assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
        });
        // N6.
        assert_eq!(got.await, (Err(SendError::Cancelled(CANCELLED, 5)), Err(CANCELLED)));
    });
}

/// R39: the turn that a spent budget costs is given up *before* the operation, so a cancel then finds it undone (R36); and a cancel
/// that comes with the success does not take it back.
#[test]
fn r39_a_success_does_not_turn_into_cancelled() {
    run_virtual(async || {
        let scope = CancelScope::new();
        let (tx, rx) = unbounded();
        let sent = Cell::new(0u32);
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                let out = scope
                    .run(async {
                        for i in 0..10_000 {
                            match tx.send(i).await {
                                Ok(()) => sent.set(sent.get() + 1),
                                Err(SendError::Cancelled(cancelled, item)) => {
                                    assert_eq!(item, sent.get());
                                    return Err(cancelled);
                                }
                                Err(other) => panic!("{other:?}"),
                            }
                        }
                        Ok(())
                    })
                    .await;
                assert_eq!(out, Ok(None));
                Ok(())
            });
            yield_now().await;
            scope.cancel();
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(sent.get(), trefoil_runtime::BUDGET);
        assert_eq!(rx.len(), sent.get() as usize);
    });
    run_virtual(async || {
        // The item that is sent lets the receiver cancel the sender, in the next turn of either.
        let scope = CancelScope::new();
        let (tx, rx) = channel(1);
        let out = scope
            .run(async {
                tx.send(1).await?;
                assert_eq!(rx.try_recv(), Ok(1));
                scope.cancel();
                Ok::<_, io::Error>("sent")
            })
            .await;
        assert_eq!(out.unwrap(), Some("sent"));
    });
}
