//! Memory channels: R92–R95, R98, N6, and R36 for them.
//!
//! | rule | here |
//! | --- | --- |
//! | R93 ("own handle closed") | closing a handle is dropping it: a closed one cannot be used |
//! | R96, R97 | the same; clones go on: `r96_*` |
//! | R100, R101 | later |

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use trefoil_nursery::{
    CancelAware, CancelScope, Cancelled, SendError, Sender, TryRecvError, TrySendError, channel, checkpoint,
    local_nursery, move_on_after, nursery, sleep, unbounded, yield_now,
};
use trefoil_tests::{CANCELLED, Ended, OnDrop, Trace, ms, run_real, run_virtual};

async fn send_all(tx: &Sender<u32>, items: impl IntoIterator<Item = u32>) -> Ended {
    for item in items {
        tx.send(item).await.map_err(|_| CANCELLED)?;
    }
    Ok(())
}

#[test]
fn r92_items_come_out_in_order() {
    for capacity in [0, 1, 3, usize::MAX] {
        run_virtual(async || {
            let (tx, rx) = channel(capacity);
            let mut got = Vec::new();
            local_nursery(async |n| -> Ended {
                n.spawn(async move { send_all(&tx, 0..50).await });
                while let Some(item) = rx.recv().await? {
                    got.push(item);
                }
                Ok(())
            })
            .await
            .unwrap();
            assert_eq!(got, (0..50).collect::<Vec<_>>(), "{capacity}");
        });
    }
}

#[test]
fn r92_receivers_are_served_in_the_order_in_which_they_came() {
    run_virtual(async || {
        let ((tx, rx), got) = (channel(0), RefCell::new(Vec::new()));
        local_nursery(async |n| -> Ended {
            for i in 0..4 {
                let (rx, got) = (&rx, &got);
                n.spawn(async move {
                    let item = rx.recv().await?;
                    got.borrow_mut().push((i, item));
                    Ok(())
                });
            }
            yield_now().await;
            for item in 10..14 {
                tx.try_send(item).unwrap();
            }
            // A woken receiver owns its item: nobody else gets it in between.
            assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(*got.borrow(), [(0, Some(10)), (1, Some(11)), (2, Some(12)), (3, Some(13))]);
    });
}

#[test]
fn r92_a_freed_place_belongs_to_the_oldest_blocked_sender() {
    run_virtual(async || {
        let ((tx, rx), t) = (channel(1), Trace::new());
        tx.try_send(0).unwrap();
        local_nursery(async |n| -> Ended {
            for i in 1..4 {
                let (tx, t) = (&tx, &t);
                n.spawn(async move {
                    tx.send(i).await.unwrap();
                    t.note("sent", i);
                    Ok(())
                });
            }
            yield_now().await;
            assert_eq!(rx.recv().await?, Some(0));
            // Nobody barges: the place went to the first of them at once.
            assert_eq!(tx.try_send(9), Err(TrySendError::Full(9)));
            assert_eq!(rx.len(), 1);
            for i in 1..4 {
                assert_eq!(rx.recv().await?, Some(i));
            }
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(t.lines(), ["0 sent 1", "0 sent 2", "0 sent 3"]);
    });
}

#[test]
fn r92_a_sender_does_not_overtake_those_that_wait() {
    run_virtual(async || {
        let (tx, rx) = channel(0);
        let got = RefCell::new(Vec::new());
        local_nursery(async |n| -> Ended {
            for i in 0..3 {
                let tx = &tx;
                n.spawn(async move { send_all(tx, [i, i + 10]).await });
            }
            yield_now().await;
            for _ in 0..6 {
                let item = rx.recv().await?.unwrap();
                got.borrow_mut().push(item);
                yield_now().await;
            }
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(*got.borrow(), [0, 1, 2, 10, 11, 12]);
    });
}

#[test]
fn r93_the_order_of_checks_of_a_send() {
    run_virtual(async || {
        // No receivers comes before room.
        let (tx, rx) = channel(5);
        drop(rx);
        assert_eq!(tx.send(1).await, Err(SendError::Closed(1)));
        assert_eq!(tx.try_send(2), Err(TrySendError::Closed(2)));
        assert!(tx.is_closed());
        // A receiver that waits comes before the buffer.
        let ((tx, rx), got) = (channel(5), Cell::new(None));
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                got.set(rx.recv().await?);
                Ok(())
            });
            yield_now().await;
            tx.send(3).await.unwrap();
            assert_eq!(tx.len(), 0);
            tx.send(4).await.unwrap();
            assert_eq!(tx.len(), 1);
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(got.get(), Some(3));
        // Then the buffer, then a wait.
        let (tx, _rx) = channel(1);
        tx.try_send(1).unwrap();
        assert_eq!(tx.try_send(2), Err(TrySendError::Full(2)));
        let (tx, _rx) = channel(0);
        assert_eq!(tx.try_send(2), Err(TrySendError::Full(2)));
    });
}

#[test]
fn r93_the_order_of_checks_of_a_receive() {
    run_virtual(async || {
        // The buffer and blocked senders come before the end.
        let (tx, rx) = channel(1);
        tx.try_send(1).unwrap();
        drop(tx);
        assert_eq!(rx.recv().await, Ok(Some(1)));
        assert_eq!(rx.recv().await, Ok(None));
        assert_eq!(rx.try_recv(), Err(TryRecvError::Closed));
        // The buffer comes before blocked senders.
        let (tx, rx) = channel(1);
        local_nursery(async |n| -> Ended {
            n.spawn(async move { send_all(&tx, [1, 2, 3]).await });
            yield_now().await;
            for i in 1..4 {
                assert_eq!(rx.recv().await?, Some(i));
            }
            assert_eq!(rx.recv().await?, None);
            Ok(())
        })
        .await
        .unwrap();
        let (_tx, rx) = channel::<()>(1);
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
    });
}

#[test]
fn r94_after_the_last_sender_receivers_drain_and_then_get_the_end_for_ever() {
    run_virtual(async || {
        let (tx, rx) = unbounded();
        let tx2 = tx.clone();
        tx.send(1).await.unwrap();
        drop(tx);
        tx2.send(2).await.unwrap();
        drop(tx2);
        assert_eq!((rx.recv().await, rx.recv().await), (Ok(Some(1)), Ok(Some(2))));
        for _ in 0..5 {
            assert_eq!(rx.recv().await, Ok(None));
        }
    });
}

#[test]
fn r94_blocked_receivers_get_the_end() {
    run_virtual(async || {
        let ((tx, rx), ended) = (channel::<u8>(1), Cell::new(0));
        let tx2 = tx.clone();
        local_nursery(async |n| -> Ended {
            for _ in 0..3 {
                n.spawn(async {
                    assert_eq!(rx.recv().await?, None);
                    ended.set(ended.get() + 1);
                    Ok(())
                });
            }
            yield_now().await;
            drop(tx);
            yield_now().await;
            assert_eq!(ended.get(), 0);
            drop(tx2);
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(ended.get(), 3);
    });
}

#[test]
fn r95_after_the_last_receiver_the_buffer_is_discarded_and_sends_fail() {
    run_virtual(async || {
        let dropped = AtomicUsize::new(0);
        let (tx, rx) = channel(2);
        tx.send(OnDrop(&dropped)).await.unwrap();
        tx.send(OnDrop(&dropped)).await.unwrap();
        local_nursery(async |n| -> Ended {
            for _ in 0..2 {
                n.spawn(async {
                    // Blocked, and given back (N6).
                    let Err(SendError::Closed(item)) = tx.send(OnDrop(&dropped)).await else { panic!("closed") };
                    assert_eq!(dropped.load(Ordering::SeqCst), 2);
                    std::mem::forget(item);
                    Ok(())
                });
            }
            yield_now().await;
            let rx2 = rx.clone();
            drop(rx);
            yield_now().await;
            assert_eq!(dropped.load(Ordering::SeqCst), 0);
            drop(rx2);
            assert_eq!(dropped.load(Ordering::SeqCst), 2, "at once");
            Ok(())
        })
        .await
        .unwrap();
        let Err(SendError::Closed(item)) = tx.send(OnDrop(&dropped)).await else { panic!("closed") };
        std::mem::forget(item);
        assert_eq!(dropped.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn r96_closing_a_clone_disturbs_nobody() {
    run_virtual(async || {
        let (tx, rx) = channel(0);
        local_nursery(async |n| -> Ended {
            let (tx2, rx2) = (tx.clone(), rx.clone());
            n.spawn(async move { send_all(&tx, [1, 2]).await });
            yield_now().await;
            drop(tx2);
            drop(rx2);
            assert_eq!((rx.recv().await?, rx.recv().await?, rx.recv().await?), (Some(1), Some(2), None));
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn r98_a_rendezvous_send_whose_item_was_taken_has_succeeded() {
    run_virtual(async || {
        let ((tx, rx), scope) = (channel(0), CancelScope::new());
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                let out = scope
                    .run(async {
                        assert_eq!(tx.send(1).await, Ok(()));
                        assert_eq!(tx.send(2).await, Err(SendError::Cancelled(CANCELLED, 2)));
                        checkpoint().await
                    })
                    .await;
                assert_eq!(out, Ok(None));
                Ok(())
            });
            yield_now().await;
            assert_eq!(rx.recv().await?, Some(1));
            scope.cancel();
            yield_now().await;
            // The cancelled one left nothing.
            assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn r98_a_cancelled_sender_in_the_middle_leaves_the_others_in_order() {
    run_virtual(async || {
        let (tx, rx) = channel(0);
        let scopes: Vec<CancelScope> = (0..5).map(|_| CancelScope::new()).collect();
        local_nursery(async |n| -> Ended {
            for (i, scope) in scopes.iter().enumerate() {
                let tx = tx.clone();
                n.spawn(async move {
                    scope.run(async { tx.send(i).await.map_err(|_| CANCELLED) }).await?;
                    Ok(())
                });
            }
            yield_now().await;
            scopes[0].cancel();
            scopes[3].cancel();
            assert_eq!([rx.recv().await?, rx.recv().await?, rx.recv().await?], [Some(1), Some(2), Some(4)]);
            assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
            Ok(())
        })
        .await
        .unwrap();
        drop(tx);
    });
}

#[test]
fn n6_a_cancelled_or_refused_send_gives_its_item_back() {
    run_virtual(async || {
        let (tx, rx) = channel(1);
        tx.try_send("first".to_string()).unwrap();
        let scope = CancelScope::new();
        scope.set_deadline(Some(trefoil_nursery::now() + ms(5)));
        let out = scope.run(async { Ok::<_, Cancelled>(tx.send("second".to_string()).await) }).await;
        let error = out.unwrap().unwrap().unwrap_err();
        assert!(matches!(error, SendError::Cancelled(..)));
        assert_eq!(error.into_inner(), "second");
        assert_eq!(tx.try_send("third".into()).unwrap_err().into_inner(), "third");
        drop(rx);
        assert_eq!(tx.send("fourth".into()).await.unwrap_err().into_inner(), "fourth");
        // As an `io::Error` it is a cancellation, or a broken pipe; in a box, a cancellation too.
        let error: io::Error = SendError::Cancelled(CANCELLED, 1).into();
        assert!(error.is_cancelled());
        let error: io::Error = SendError::Closed(1).into();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        let error: Box<dyn std::error::Error + Send + Sync> = SendError::Cancelled(CANCELLED, 1).into();
        assert!(error.is_cancelled());
    });
}

/// Behaviour 48, in a small: many producers, many consumers, random cancels of both; every item that was sent is received once.
#[test]
fn r92_r98_every_item_exactly_once_under_cancels() {
    for capacity in [0, 1, 4] {
        run_virtual(async || {
            let (tx, rx) = channel(capacity);
            let (sent, got) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
            let mut seed = 12345u64;
            let mut random = move |n: u64| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                seed % n
            };
            local_nursery(async |n| -> Ended {
                for p in 0..8u64 {
                    let (tx, sent, limit) = (tx.clone(), &sent, random(40));
                    n.spawn(async move {
                        for i in 0..50 {
                            let item = p * 1000 + i;
                            let out =
                                move_on_after(ms(limit % 7 + 1), async { Ok::<_, Cancelled>(tx.send(item).await) });
                            match out.await? {
                                Some(Ok(())) => sent.borrow_mut().push(item),
                                Some(Err(SendError::Cancelled(_, back))) => assert_eq!(back, item),
                                other => panic!("{other:?}"),
                            }
                        }
                        Ok(())
                    });
                }
                drop(tx);
                for c in 0..8u64 {
                    let (rx, got, limit) = (rx.clone(), &got, random(5));
                    n.spawn(async move {
                        loop {
                            match move_on_after(ms(limit + 1), rx.recv()).await? {
                                Some(Some(item)) => got.borrow_mut().push(item),
                                Some(None) => return Ok(()),
                                None => sleep(ms(c % 3 + 1)).await?,
                            }
                        }
                    });
                }
                Ok(())
            })
            .await
            .unwrap();
            let (mut sent, mut got) = (sent.into_inner(), got.into_inner());
            sent.sort();
            got.sort();
            assert_eq!(sent, got);
            assert!(sent.len() > 8, "{} of 400 were sent", sent.len());
        });
    }
}

#[test]
fn a_channel_between_threads() {
    run_real(async || {
        let (tx, rx) = channel(2);
        let thread = std::thread::spawn(move || {
            trefoil_io::run(async {
                for i in 0..1000u32 {
                    tx.send(i).await.unwrap();
                }
            });
        });
        let mut sum = 0;
        nursery(async |_| -> Ended {
            while let Some(i) = rx.recv().await? {
                sum += i;
            }
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(sum, 499_500);
        thread.join().unwrap();
    });
}

/// N13 (b), N6: a send that was aborted in a scope which had swallowed too much is polled outside of it: it says so, with its item.
#[test]
fn n13b_an_aborted_send_that_is_awaited_outside_gives_its_item_back() {
    run_virtual(async || {
        let (tx, rx) = channel(1);
        tx.send(1).await.unwrap();
        let mut send = Box::pin(tx.send(2));
        let scope = CancelScope::new();
        let ended = scope.run(async {
            let first = poll_fn(|cx| Poll::Ready(send.as_mut().poll(cx))).await;
            assert!(first.is_pending());
            scope.cancel();
            for _ in 0..1_000 {
                checkpoint().await.unwrap_err();
            }
            // One too many: it is told nothing more, and is dropped here.
            send.as_mut().await.map_err(|_| CANCELLED)
        });
        assert_eq!(ended.await, Ok(None));
        let SendError::Cancelled(_, item) = send.await.unwrap_err() else { panic!("it was aborted") };
        assert_eq!((item, rx.recv().await, rx.try_recv()), (2, Ok(Some(1)), Err(TryRecvError::Empty)));
    });
}
