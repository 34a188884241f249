//! Dropping unfinished futures: N5 (hand-offs are passed on) and N12 (a nursery that is dropped half way).

use futures::future::{FutureExt, join_all};
use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use trefoil_nursery::{
    CancelScope, Event, TryRecvError, channel, local_nursery, move_on_after, nursery, sleep, sleep_forever, unbounded,
    yield_now,
};
use trefoil_runtime::metrics;
use trefoil_tests::{Ended, OnDrop, Trace, begun, drop_at, ms, poll_once, run_virtual};

#[test]
fn n5_a_receive_that_was_handed_an_item_and_dropped_passes_it_on_to_the_next() {
    run_virtual(async || {
        let ((tx, rx), got) = (channel(0), Cell::new(None));
        let first = begun(rx.recv()).await;
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                got.set(rx.recv().await?);
                Ok(())
            });
            yield_now().await;
            tx.try_send(5).unwrap();
            drop(first);
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(got.get(), Some(5));
    });
}

#[test]
fn n5_or_back_to_the_front() {
    run_virtual(async || {
        let (tx, rx) = unbounded();
        let first = begun(rx.recv()).await;
        tx.try_send(1).unwrap();
        tx.try_send(2).unwrap();
        drop(first);
        assert_eq!([rx.try_recv(), rx.try_recv(), rx.try_recv()], [Ok(1), Ok(2), Err(TryRecvError::Empty)]);
        // Of a channel without a buffer too.
        let (tx, rx) = channel(0);
        let first = begun(rx.recv()).await;
        tx.try_send(1).unwrap();
        drop(first);
        assert_eq!([rx.try_recv(), rx.try_recv()], [Ok(1), Err(TryRecvError::Empty)]);
    });
}

/// R92 under N5: however many receives were handed an item and dropped, in whatever order, the items keep theirs.
#[test]
fn n5_items_of_several_dropped_receives_keep_their_order() {
    run_virtual(async || {
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
            let (tx, rx) = unbounded();
            let mut receives: Vec<_> = (0..3).map(|_| Some(Box::pin(rx.recv()))).collect();
            for receive in &mut receives {
                assert!(poll_once(receive.as_mut().unwrap().as_mut()).await.is_pending());
            }
            for item in 0..5 {
                tx.try_send(item).unwrap();
            }
            for i in order {
                receives[i] = None;
            }
            let got: Vec<_> = std::iter::from_fn(|| rx.try_recv().ok()).collect();
            assert_eq!(got, [0, 1, 2, 3, 4], "dropped in the order {order:?}");
        }
    });
}

#[test]
fn n5_a_select_that_drops_a_losing_receive_loses_nothing() {
    run_virtual(async || {
        let (tx, rx) = channel(0);
        let got = RefCell::new(Vec::new());
        local_nursery(async |n| -> Ended {
            n.spawn(async move {
                for i in 0..200u32 {
                    tx.send(i).await.unwrap();
                    if i % 3 == 0 {
                        sleep(ms(1)).await?;
                    }
                }
                Ok(())
            });
            loop {
                let mut tick = pin!(sleep(ms(1)).fuse());
                let mut receive = pin!(rx.recv().fuse());
                futures::select! {
                    _ = tick => {}
                    item = receive => match item? {
                        Some(item) => got.borrow_mut().push(item),
                        None => return Ok(()),
                    },
                }
            }
        })
        .await
        .unwrap();
        assert_eq!(*got.borrow(), (0..200).collect::<Vec<_>>());
    });
}

#[test]
fn n5_a_dropped_send_takes_its_item_with_it() {
    run_virtual(async || {
        let dropped = AtomicUsize::new(0);
        let (tx, rx) = channel(0);
        assert!(drop_at(1, tx.send(OnDrop(&dropped))).await.is_none());
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
        assert!(rx.try_recv().is_err());
        // One whose item was taken has happened: it is not taken back.
        let send = begun(tx.send(OnDrop(&dropped))).await;
        let item = rx.try_recv().unwrap();
        drop(send);
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
        drop(item);
        assert_eq!(dropped.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn n5_a_dropped_sleep_or_join_leaves_no_timer_and_no_wait() {
    run_virtual(async || {
        let event = Event::new();
        local_nursery(async |n| -> Ended {
            let mut join = n.spawn(async {
                sleep(ms(5)).await?;
                Ok(3)
            });
            yield_now().await;
            let before = metrics();
            assert!(drop_at(1, sleep(ms(100))).await.is_none());
            assert!(drop_at(1, sleep_forever()).await.is_none());
            assert!(drop_at(1, event.wait()).await.is_none());
            assert!(drop_at(1, &mut join).await.is_none());
            assert!(drop_at(1, move_on_after(ms(100), sleep_forever())).await.is_none());
            assert!(drop_at(1, join_all((0..50).map(|_| sleep(ms(100))))).await.is_none());
            // The join's handle lives, and waits as long as it lives; nothing else does.
            let now = metrics();
            assert_eq!((now.timers, now.scopes), (before.timers, before.scopes));
            assert!(now.waits <= before.waits + 1);
            // The child has gone on all the same, and can be joined again.
            assert_eq!(join.await?, 3);
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn n12_a_dropped_nursery_destroys_its_children_in_place() {
    run_virtual(async || {
        for polls in 0..4 {
            let (dropped, ran_on) = (AtomicUsize::new(0), Cell::new(false));
            let mut frame = vec![1, 2, 3];
            {
                let borrowed = &mut frame;
                let nursery = local_nursery(async |n| -> Ended {
                    let _guard = OnDrop(&dropped);
                    n.spawn(async {
                        let _guard = OnDrop(&dropped);
                        borrowed.push(4);
                        sleep_forever().await.inspect_err(|_| ran_on.set(true))
                    });
                    for _ in 0..3 {
                        n.spawn(async {
                            let _guard = OnDrop(&dropped);
                            let inner = local_nursery(async |inner| -> Ended {
                                inner.spawn(async {
                                    let _guard = OnDrop(&dropped);
                                    sleep_forever().await.inspect_err(|_| ran_on.set(true))
                                });
                                sleep_forever().await
                            });
                            Ok(inner.await?)
                        });
                    }
                    sleep_forever().await
                });
                assert!(drop_at(polls, nursery).await.is_none());
            }
            // 0: nothing has run; 1: the body; 2: the children and their bodies; 3: the grandchildren.
            assert_eq!(dropped.load(Ordering::SeqCst), [0, 1, 5, 8][polls], "after {polls} polls");
            assert!(!ran_on.get(), "they are not told");
            assert_eq!(frame.len(), if polls < 2 { 3 } else { 4 });
        }
    });
}

#[test]
fn n12_destructors_run_in_the_scope_of_the_nursery() {
    run_virtual(async || {
        struct Asks<'a>(&'a Cell<Option<trefoil_nursery::EffectiveDeadline>>);
        impl Drop for Asks<'_> {
            fn drop(&mut self) {
                self.0.set(Some(trefoil_nursery::effective_deadline()));
            }
        }
        let (t, seen) = (Trace::new(), Cell::new(None));
        let nursery = local_nursery(async |n| -> Ended {
            n.set_deadline(Some(t.at(77)));
            n.spawn(async {
                let _asks = Asks(&seen);
                sleep_forever().await
            });
            sleep_forever().await
        });
        assert!(drop_at(2, nursery).await.is_none());
        assert_eq!(seen.get(), Some(trefoil_nursery::EffectiveDeadline::At(t.at(77))));
    });
}

#[test]
fn n12_a_nursery_dropped_inside_of_a_foreign_select() {
    run_virtual(async || {
        let dropped = AtomicUsize::new(0);
        let mut nursery = Box::pin(
            nursery(async |n| -> Ended {
                for _ in 0..10 {
                    n.spawn(async {
                        let _guard = OnDrop(&dropped);
                        sleep_forever().await
                    });
                }
                Ok(())
            })
            .fuse(),
        );
        futures::select! {
            _ = nursery => unreachable!(),
            _ = pin!(sleep(ms(5)).fuse()) => {}
        }
        drop(nursery);
        assert_eq!(dropped.load(Ordering::SeqCst), 10);
    });
}

#[test]
fn n12_a_scope_that_is_dropped_half_way_is_out_of_the_tree() {
    run_virtual(async || {
        let (t, scope) = (Trace::new(), CancelScope::new());
        scope.set_deadline(Some(t.at(5)));
        assert!(drop_at(1, scope.run(sleep_forever())).await.is_none());
        assert_eq!(metrics().scopes, 0);
        assert_eq!(metrics().timers, 0);
        sleep(ms(20)).await.unwrap();
        assert!(!scope.cancelled_caught());
        scope.cancel();
    });
}
