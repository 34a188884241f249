//! Handles of memory channels: R93–R97, R99, R100, and N5, N6 where a handle is closed. What has to do with items is in `channel.rs`.
//!
//! | rule | here |
//! | --- | --- |
//! | R97 ("`aclose()` is a checkpoint") | there is `close`, which does not wait |
//! | R97 ("cloning a closed handle is an error") | the clone of a closed handle is closed |
//! | R100 ("peak") | not counted |
//! | R101 | a nursery and a channel do the same; there is nothing of its own |

use futures::future::FutureExt;
use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use trefoil_nursery::{
    CancelScope, Cancelled, ChannelStatistics, SendError, TryRecvError, TrySendError, channel, local_nursery, sleep,
    unbounded, yield_now,
};
use trefoil_tests::{CANCELLED, Ended, OnDrop, Trace, begun, ms, poll_once, run_virtual};

#[test]
fn r93_of_a_send_the_own_handle_comes_first() {
    run_virtual(async || {
        let (tx, rx) = channel(1);
        let other = tx.clone();
        tx.close();
        // Before room, and before a receiver that waits.
        assert_eq!(tx.send(1).await, Err(SendError::HandleClosed(1)));
        let mut receiving = begun(rx.recv()).await;
        assert_eq!(tx.try_send(2), Err(TrySendError::HandleClosed(2)));
        assert!(poll_once(receiving.as_mut()).await.is_pending());
        drop(receiving);
        // Before that there are no receivers.
        rx.close();
        assert_eq!(tx.send(3).await, Err(SendError::HandleClosed(3)));
        assert_eq!(tx.try_send(4), Err(TrySendError::HandleClosed(4)));
        assert_eq!(other.send(5).await, Err(SendError::Closed(5)));
        assert_eq!(other.try_send(6), Err(TrySendError::Closed(6)));
        assert!(tx.is_closed() && other.is_closed());
    });
}

#[test]
fn r93_of_a_receive_the_own_handle_comes_first() {
    run_virtual(async || {
        let (tx, rx) = channel(1);
        let other = rx.clone();
        tx.try_send(1).unwrap();
        rx.close();
        // Before what is in the buffer.
        assert_eq!((rx.recv().await, rx.try_recv()), (Ok(None), Err(TryRecvError::HandleClosed)));
        assert!(rx.is_closed() && !other.is_closed());
        tx.close();
        assert_eq!(rx.try_recv(), Err(TryRecvError::HandleClosed));
        assert_eq!((other.recv().await, other.try_recv()), (Ok(Some(1)), Err(TryRecvError::Closed)));
    });
}

#[test]
fn r37_in_a_cancelled_scope_cancellation_comes_before_everything() {
    run_virtual(async || {
        let ((tx, rx), scope) = (channel(1), CancelScope::new());
        tx.close();
        rx.close();
        scope.cancel();
        let out = scope
            .run(async {
                assert_eq!(tx.send(1).await, Err(SendError::Cancelled(CANCELLED, 1)));
                assert_eq!(rx.recv().await, Err(CANCELLED));
                Err::<(), _>(CANCELLED)
            })
            .await;
        assert_eq!(out, Ok(None));
    });
}

#[test]
fn r94_closing_the_last_sender_ends_the_channel_behind_what_is_in_it() {
    run_virtual(async || {
        let (tx, rx) = unbounded();
        let other = tx.clone();
        tx.try_send(1).unwrap();
        tx.close();
        other.try_send(2).unwrap();
        other.close();
        assert_eq!(
            [rx.recv().await, rx.recv().await, rx.recv().await, rx.recv().await],
            [Ok(Some(1)), Ok(Some(2)), Ok(None), Ok(None)]
        );
        assert_eq!(rx.try_recv(), Err(TryRecvError::Closed));
    });
}

#[test]
fn r95_closing_the_last_receiver_drops_what_is_in_it_and_breaks_the_sends() {
    run_virtual(async || {
        let dropped = AtomicUsize::new(0);
        let (tx, rx) = channel(1);
        let other = rx.clone();
        assert!(tx.try_send(OnDrop(&dropped)).is_ok());
        let mut sending = begun(tx.send(OnDrop(&dropped))).await;
        rx.close();
        yield_now().await;
        assert!(poll_once(sending.as_mut()).await.is_pending());
        assert_eq!(dropped.load(Ordering::SeqCst), 0);
        other.close();
        assert_eq!(dropped.load(Ordering::SeqCst), 1, "at once");
        // N6: what was not sent comes back.
        let Err(SendError::Closed(item)) = sending.await else { panic!("broken") };
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
        drop(item);
        assert_eq!(tx.len(), 0);
    });
}

/// Found by the comparison with Trio.
#[test]
fn r95_a_send_that_was_broken_stays_so_when_its_handle_is_closed_before_it_looks() {
    run_virtual(async || {
        let (tx, rx) = channel(0);
        let sending = begun(tx.send(1)).await;
        rx.close();
        tx.close();
        assert_eq!(sending.await, Err(SendError::Closed(1)));
        // And the other way round.
        let (tx, rx) = channel(0);
        let sending = begun(tx.send(1)).await;
        tx.close();
        rx.close();
        assert_eq!(sending.await, Err(SendError::HandleClosed(1)));
    });
}

#[test]
fn r95_n5_an_item_of_a_dropped_receive_goes_where_the_buffer_went() {
    run_virtual(async || {
        let dropped = AtomicUsize::new(0);
        let (tx, rx) = channel(1);
        let receiving = begun(rx.recv()).await;
        assert!(tx.try_send(OnDrop(&dropped)).is_ok());
        rx.close();
        assert_eq!(dropped.load(Ordering::SeqCst), 0, "it has been received");
        drop(receiving);
        assert_eq!((dropped.load(Ordering::SeqCst), tx.len()), (1, 0));
    });
    // One that is looked at is returned, closed or not (R18).
    run_virtual(async || {
        let (tx, rx) = channel(1);
        let receiving = begun(rx.recv()).await;
        tx.try_send(5).unwrap();
        rx.close();
        assert_eq!(receiving.await, Ok(Some(5)));
    });
}

#[test]
fn r96_closing_a_sender_ends_the_sends_through_it_alone() {
    run_virtual(async || {
        let ((tx, rx), t) = (channel(0), Trace::new());
        let other = tx.clone();
        local_nursery(async |n| -> Ended {
            for (name, tx, item) in [("a", &tx, 1), ("b", &other, 2), ("c", &tx, 3)] {
                let t = &t;
                n.spawn(async move {
                    t.note(name, format_args!("{:?}", tx.send(item).await.map_err(|e| (e, e.into_inner()))));
                    Ok(())
                });
            }
            sleep(ms(1)).await?;
            tx.close();
            sleep(ms(1)).await?;
            assert_eq!(rx.recv().await?, Some(2));
            assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
            other.close();
            assert_eq!(rx.recv().await?, None);
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(t.lines(), ["1 a Err((HandleClosed(..), 1))", "1 c Err((HandleClosed(..), 3))", "2 b Ok(())"]);
    });
}

#[test]
fn r96_closing_a_receiver_ends_the_receives_through_it_alone() {
    run_virtual(async || {
        let ((tx, rx), t) = (channel(0), Trace::new());
        let other = rx.clone();
        local_nursery(async |n| -> Ended {
            for (name, rx) in [("a", &rx), ("b", &other), ("c", &rx)] {
                let t = &t;
                n.spawn(async move {
                    let out = rx.recv().await?;
                    t.note(name, format_args!("{out:?} {}", rx.is_closed()));
                    Ok(())
                });
            }
            sleep(ms(1)).await?;
            rx.close();
            sleep(ms(1)).await?;
            tx.send(5).await.unwrap();
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(t.lines(), ["1 a None true", "1 c None true", "2 b Some(5) false"]);
    });
}

#[test]
fn r97_close_is_idempotent_and_not_a_checkpoint() {
    run_virtual(async || {
        let ((tx, rx), scope) = (channel::<u8>(1), CancelScope::new());
        let (tx2, rx2) = (tx.clone(), rx.clone());
        scope.cancel();
        let out = scope
            .run(async {
                for _ in 0..3 {
                    tx.close();
                    rx.close();
                }
                Ok::<_, Cancelled>("not interrupted")
            })
            .await;
        assert_eq!(out, Ok(Some("not interrupted")));
        let statistics = tx.statistics();
        assert_eq!((statistics.senders, statistics.receivers), (1, 1));
        // A drop of what was closed does not close again.
        drop((tx, rx));
        assert_eq!(tx2.statistics(), rx2.statistics());
        assert_eq!((tx2.statistics().senders, tx2.statistics().receivers), (1, 1));
        tx2.try_send(1).unwrap();
        assert_eq!(rx2.try_recv(), Ok(1));
    });
}

#[test]
fn r97_the_clone_of_a_closed_handle_is_closed() {
    run_virtual(async || {
        let (tx, rx) = channel(1);
        let (open_tx, open_rx) = (tx.clone(), rx.clone());
        tx.close();
        rx.close();
        let (tx, rx) = (tx.clone(), rx.clone());
        assert_eq!(tx.try_send(1), Err(TrySendError::HandleClosed(1)));
        assert_eq!(rx.try_recv(), Err(TryRecvError::HandleClosed));
        assert!(rx.is_closed());
        drop((tx, rx));
        assert_eq!(open_tx.statistics().senders, 1);
        open_tx.try_send(2).unwrap();
        assert_eq!(open_rx.try_recv(), Ok(2));
        let error: io::Error = SendError::HandleClosed(1).into();
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
    });
}

#[test]
fn r99_after_a_hand_over_both_sides_go_on_in_the_next_turn() {
    run_virtual(async || {
        let ((tx, rx), order) = (channel(0), RefCell::new(Vec::new()));
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                tx.send(1).await.unwrap();
                order.borrow_mut().push("sent");
                Ok(())
            });
            yield_now().await;
            assert_eq!(rx.recv().now_or_never(), Some(Ok(Some(1))));
            order.borrow_mut().push("received");
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(*order.borrow(), ["received", "sent"]);
    });
}

#[test]
fn r100_statistics_are_exact() {
    run_virtual(async || {
        let (tx, rx) = channel(2);
        let is = |buffered, senders, receivers, waiting_to_send, waiting_to_receive| {
            let expected =
                ChannelStatistics { buffered, capacity: 2, senders, receivers, waiting_to_send, waiting_to_receive };
            assert_eq!(tx.statistics(), expected);
            assert_eq!(rx.statistics(), expected);
        };
        is(0, 1, 1, 0, 0);
        let (tx2, rx2) = (tx.clone(), rx.clone());
        is(0, 2, 2, 0, 0);
        tx.try_send(0).unwrap();
        is(1, 2, 2, 0, 0);
        tx.try_send(1).unwrap();
        let scope = CancelScope::new();
        let mut cancelled = Box::pin(scope.run(async { Ok::<_, Cancelled>(tx.send(2).await) }));
        let mut sending = Box::pin(tx2.send(3));
        assert!(poll_once(cancelled.as_mut()).await.is_pending());
        assert!(poll_once(sending.as_mut()).await.is_pending());
        is(2, 2, 2, 2, 0);
        // One that was cancelled does not wait, though it has not looked.
        scope.cancel();
        is(2, 2, 2, 1, 0);
        drop(cancelled);
        assert_eq!(rx.try_recv(), Ok(0));
        is(2, 2, 2, 0, 0);
        drop(sending);
        assert_eq!((rx.try_recv(), rx.try_recv()), (Ok(1), Ok(3)));
        let (mut one, mut two) = (Box::pin(rx.recv()), Box::pin(rx2.recv()));
        assert!(poll_once(one.as_mut()).await.is_pending());
        assert!(poll_once(two.as_mut()).await.is_pending());
        is(0, 2, 2, 0, 2);
        tx.try_send(4).unwrap();
        // It is handed over, not in the buffer.
        is(0, 2, 2, 0, 1);
        // N5: to the other one.
        drop(one);
        is(0, 2, 2, 0, 0);
        // Back to the front.
        drop(two);
        is(1, 2, 2, 0, 0);
        drop(tx2);
        rx2.close();
        is(1, 1, 1, 0, 0);
        rx.close();
        is(0, 1, 0, 0, 0);
        let text = format!("{tx:?}");
        assert_eq!(
            text,
            "Sender { closed: false, items: 0, capacity: 2, senders: 1, receivers: 0, waiting_to_send: 0, waiting_to_receive: 0 }"
        );
        assert_eq!(unbounded::<u8>().0.statistics().capacity, usize::MAX);
    });
}
