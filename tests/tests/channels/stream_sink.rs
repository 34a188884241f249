//! Channels and generators as `Stream` and `Sink`: no item is lost and none comes twice, whoever is cancelled or dropped. R1, R18, R36, R92,
//! R94–R97, N5, N6, N13.

use futures::future::FutureExt;
use futures::stream::{self, FusedStream, FuturesUnordered, Stream, StreamExt, TryStreamExt};
use futures::{Sink, SinkExt};
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use trefoil_nursery::{
    CancelScope, Cancelled, Receiver, SendError, Sender, channel, checkpoint, generator, local_nursery, move_on_after,
    nursery, sleep, sleep_forever, yield_now,
};
use trefoil_runtime::STRIKES;
use trefoil_tests::{CANCELLED, OnDrop, at_every_await, ms, poll_once, run_virtual, stop};

fn filled(items: std::ops::Range<u32>) -> Receiver<u32> {
    let (sender, receiver) = channel(100);
    items.for_each(|i| sender.try_send(i).unwrap());
    receiver
}

#[test]
fn r94_a_stream_ends_when_the_senders_are_gone() {
    run_virtual(async || {
        let receiver = filled(0..5);
        let mut items = pin!(receiver.stream());
        assert_eq!(items.try_next().await, Ok(Some(0)));
        assert!(!items.is_terminated());
        let rest: Vec<_> = items.as_mut().try_collect().await.unwrap();
        assert_eq!((rest, items.is_terminated()), (vec![1, 2, 3, 4], true));
        assert_eq!(items.next().await, None, "for ever");
        // With the receiver in it.
        let all: Vec<_> = filled(0..3).into_stream().map(Result::unwrap).collect().await;
        assert_eq!(all, [0, 1, 2]);
        // A receiver that is closed under it.
        let (sender, receiver) = channel(1);
        sender.send(1).await.unwrap();
        let other = receiver.clone();
        let mut items = pin!(receiver.stream());
        assert!(items.next().now_or_never().is_some());
        assert_eq!(poll_once(items.next().boxed_local().as_mut()).await, Poll::Pending);
        receiver.close();
        assert_eq!(items.next().await, None);
        drop((sender, other));
    });
}

#[test]
fn r1_a_cancellation_is_an_item_while_the_scope_is_cancelled() {
    run_virtual(async || {
        let receiver = filled(0..2);
        let mut items = pin!(receiver.stream());
        let scope = CancelScope::new();
        scope.cancel();
        let within = scope
            .run(async {
                assert_eq!(items.next().await, Some(Err(CANCELLED)), "R37: though there is an item");
                assert_eq!(items.next().await, Some(Err(CANCELLED)));
                Ok::<_, Cancelled>(())
            })
            .await;
        assert_eq!(within, Ok(Some(())));
        assert_eq!(items.next().await, Some(Ok(0)), "and outside of it, it goes on");
        // One that waits.
        let (sender, receiver) = channel::<u32>(1);
        let mut items = pin!(receiver.stream());
        assert_eq!(move_on_after(ms(5), items.try_next()).await, Ok(None));
        sender.send(7).await.unwrap();
        assert_eq!(items.next().await, Some(Ok(7)));
    });
}

#[test]
fn n13_a_combinator_that_goes_on_after_a_cancellation_is_ended() {
    run_virtual(async || {
        let (_sender, receiver) = channel::<u32>(1);
        let ended = move_on_after(ms(5), async {
            // Collects errors, for ever.
            Ok::<_, Cancelled>(receiver.stream().collect::<Vec<_>>().await)
        })
        .await;
        assert_eq!(ended, Ok(None));
    });
}

#[test]
fn n5_what_was_handed_to_a_stream_that_is_dropped_goes_to_the_next() {
    run_virtual(async || {
        for owned in [false, true] {
            let (sender, receiver) = channel(0);
            let second = receiver.clone();
            let kept = receiver.clone();
            {
                type Boxed<'a> = Pin<Box<dyn Stream<Item = Result<u32, Cancelled>> + 'a>>;
                let mut items: Boxed<'_> =
                    if owned { Box::pin(receiver.clone().into_stream()) } else { Box::pin(receiver.stream()) };
                // A `next` that is given up leaves the stream waiting, and it is handed the item.
                assert_eq!(poll_once(items.next().boxed_local().as_mut()).await, Poll::Pending);
                sender.send(1).await.unwrap();
                assert!(second.try_recv().is_err());
            }
            assert_eq!(second.recv().await, Ok(Some(1)), "owned: {owned}");
            // A stream that is polled again has it.
            let mut items = pin!(receiver.stream());
            assert_eq!(poll_once(items.next().boxed_local().as_mut()).await, Poll::Pending);
            sender.send(2).await.unwrap();
            yield_now().await;
            assert_eq!(items.next().await, Some(Ok(2)));
            assert_eq!(kept.statistics().waiting_to_receive, 0);
        }
    });
}

#[test]
fn a_stream_is_polled_in_one_scope_and_goes_on_in_another() {
    run_virtual(async || {
        let (sender, receiver) = channel(1);
        let mut items = pin!(receiver.stream());
        // The wait begins in a scope that ends before it.
        let value = move_on_after(ms(50), async {
            assert_eq!(poll_once(items.next().boxed_local().as_mut()).await, Poll::Pending);
            Ok::<_, Cancelled>(3)
        })
        .await;
        assert_eq!(value, Ok(Some(3)));
        local_nursery(async |n| -> io::Result<()> {
            n.spawn(async { Ok(sender.send(1).await?) });
            assert_eq!(items.next().await, Some(Ok(1)));
            Ok(())
        })
        .await
        .unwrap();
        // And in one that is cancelled while nobody polls it: that is over, and no cancellation of who polls it now (N14).
        let scope = CancelScope::new();
        scope
            .run(async {
                assert_eq!(poll_once(items.next().boxed_local().as_mut()).await, Poll::Pending);
                scope.cancel();
                Ok::<_, Cancelled>(())
            })
            .await
            .unwrap();
        sender.send(2).await.unwrap();
        assert_eq!(items.next().await, Some(Ok(2)));
    });
}

#[test]
fn streams_in_foreign_combinators() {
    run_virtual(async || {
        let (left, right) = (filled(0..5), filled(10..15));
        let mut all: Vec<_> = stream::select(left.into_stream(), right.into_stream()).try_collect().await.unwrap();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]);
        let receiver = filled(0..10);
        let sum = receiver.stream().try_fold(0, async |sum, i| {
            checkpoint().await?;
            Ok(sum + i)
        });
        assert_eq!(sum.await, Ok(45));
        let doubled: Vec<_> = filled(0..4).into_stream().map(async |i| i.map(|i| i * 2)).buffered(2).collect().await;
        assert_eq!(doubled, [Ok(0), Ok(2), Ok(4), Ok(6)]);
        // A cancel reaches it in there.
        let (_sender, receiver) = channel::<u32>(1);
        let waits: FuturesUnordered<_> =
            (0..3).map(|_| async { receiver.stream().boxed_local().next().await }).collect();
        let ended = move_on_after(ms(5), async { Ok::<_, Cancelled>(waits.collect::<Vec<_>>().await) }).await;
        assert_eq!(ended, Ok(Some(vec![Some(Err(CANCELLED)); 3])));
    });
}

// ---- Sink ----------------------------------------------------------------------------------------------------------

#[test]
fn a_sink_sends_in_order_and_closes_the_sender() {
    run_virtual(async || {
        for capacity in [0, 1, 3] {
            let (sender, receiver) = channel(capacity);
            local_nursery(async |n| -> io::Result<()> {
                n.spawn(async {
                    let mut sink = pin!(sender.sink());
                    sink.send(0).await?;
                    sink.feed(1).await?;
                    sink.send_all(&mut stream::iter(2..6).map(Ok)).await?;
                    sink.close().await?;
                    sink.close().await?;
                    assert_eq!(sink.send(9).await, Err(SendError::HandleClosed(9)));
                    Ok(())
                });
                let all: Vec<u32> = receiver.stream().try_collect().await?;
                assert_eq!(all, [0, 1, 2, 3, 4, 5]);
                Ok(())
            })
            .await
            .unwrap();
            assert!(sender.is_closed());
        }
    });
}

#[test]
fn n6_what_was_not_sent_is_in_the_error() {
    run_virtual(async || {
        let (sender, receiver) = channel(1);
        let mut sink = pin!(sender.clone().into_sink());
        sink.send(1).await.unwrap();
        let sent = move_on_after(ms(5), async { Ok::<_, Cancelled>(sink.send(2).await) }).await;
        assert_eq!(sent, Ok(Some(Err(SendError::Cancelled(CANCELLED, 2)))));
        // It is usable as before.
        sink.feed(3).await.unwrap();
        let flushed = move_on_after(ms(5), async { Ok::<_, Cancelled>(sink.feed(4).await) }).await;
        assert_eq!(flushed, Ok(Some(Err(SendError::Cancelled(CANCELLED, 3)))), "the one before is in its way");
        let scope = CancelScope::new();
        scope.cancel();
        let sent = scope.run(async { Ok::<_, Cancelled>(sink.send(5).await) }).await;
        assert_eq!(sent, Ok(Some(Err(SendError::Cancelled(CANCELLED, 5)))), "R37");
        assert_eq!(receiver.try_recv(), Ok(1));
        drop(receiver);
        assert_eq!(sink.send(6).await, Err(SendError::Closed(6)));
        assert_eq!(sink.close().await, Ok(()));
    });
}

#[test]
fn a_sink_that_is_dropped_drops_what_was_not_flushed() {
    run_virtual(async || {
        let dropped = AtomicUsize::new(0);
        let (sender, receiver) = channel(1);
        {
            let mut sink = pin!(sender.sink());
            sink.feed(OnDrop(&dropped)).await.unwrap();
            assert_eq!(dropped.load(Ordering::SeqCst), 0);
        }
        assert_eq!((dropped.load(Ordering::SeqCst), receiver.len()), (1, 0));
        // One that waits for room, too.
        sender.send(OnDrop(&dropped)).await.unwrap();
        {
            let mut sink = pin!(sender.sink());
            assert!(poll_once(sink.send(OnDrop(&dropped)).boxed_local().as_mut()).await.is_pending());
            assert_eq!(receiver.statistics().waiting_to_send, 1);
        }
        assert_eq!((dropped.load(Ordering::SeqCst), receiver.statistics().waiting_to_send), (2, 0));
        // The sink is the sender: the last one that goes ends the channel.
        let sink = sender.into_sink();
        drop(sink);
        assert!(receiver.recv().await.unwrap().is_some());
        assert!(receiver.recv().await.unwrap().is_none());
    });
}

#[test]
fn forward_from_a_generator_to_a_channel() {
    run_virtual(async || {
        let (sender, receiver) = channel(0);
        local_nursery(async |n| -> io::Result<()> {
            n.spawn(generator(
                async |mut out| {
                    for i in 0..5 {
                        sleep(ms(1)).await?;
                        out.send(i).await?;
                    }
                    Ok(())
                },
                async |items| {
                    let items = items.into_stream().map_err(io::Error::from);
                    items.forward(sender.into_sink().sink_map_err(io::Error::from)).await
                },
            ));
            assert_eq!(receiver.stream().try_collect::<Vec<_>>().await?, [0, 1, 2, 3, 4]);
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn they_are_send_if_the_items_are() {
    fn send<T: Send>(value: T) -> T {
        value
    }
    run_virtual(async || {
        let text = String::from("borrowed");
        let (sender, receiver) = channel(1);
        nursery(async |n| -> io::Result<()> {
            let (sender, receiver, text) = (&sender, &receiver, &text);
            n.spawn(async move {
                let mut sink = Box::pin(send(sender.sink()));
                for _ in 0..3 {
                    sink.send(text.as_str()).await?;
                }
                Ok(sink.close().await?)
            });
            let all: Vec<&str> = send(receiver.stream()).try_collect().await?;
            assert_eq!(all, ["borrowed"; 3]);
            Ok(())
        })
        .await
        .unwrap();
        let (sender, receiver) = channel(3);
        let mut sink = pin!(sender.sink());
        sink.send(Rc::new(1)).await.unwrap();
        sink.close().await.unwrap();
        assert_eq!(receiver.into_stream().try_collect::<Vec<_>>().await.unwrap(), [Rc::new(1)]);
    });
}

fn is_object(_: &dyn Stream<Item = Result<u32, Cancelled>>, _: &dyn Sink<u32, Error = SendError<u32>>) {}

#[test]
fn they_are_object_safe_and_inert_when_not_polled() {
    let (sender, receiver) = channel(1);
    is_object(&receiver.stream(), &sender.sink());
}

async fn world(made: &AtomicUsize, dropped: &AtomicUsize) -> Result<(), trefoil_nursery::ErrorGroup<io::Error>> {
    let (sender, receiver): (Sender<OnDrop<'_>>, _) = channel(1);
    local_nursery(async |n| {
        n.spawn(async {
            let mut sink = pin!(sender.into_sink());
            for _ in 0..5 {
                made.fetch_add(1, Ordering::SeqCst);
                sink.send(OnDrop(dropped)).await?;
            }
            Ok(())
        });
        let mut items = pin!(receiver.into_stream());
        while items.try_next().await?.is_some() {
            sleep(ms(1)).await?;
        }
        Ok(())
    })
    .await
}

#[test]
fn stopped_at_every_await_nothing_is_left() {
    run_virtual(async || {
        let stops = at_every_await(async |how, k| {
            let (made, dropped) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let end = stop(how, k, world(&made, &dropped)).await;
            assert_eq!(made.into_inner(), dropped.into_inner(), "{how:?} at {k}");
            end.is_complete()
        })
        .await;
        assert!(stops.iter().all(|&n| n > 4), "{stops:?}");
    });
}

// ---- against a sequential model ------------------------------------------------------------------------------------

#[derive(Clone, Debug)]
enum Op {
    Feed,
    Flush,
    /// Polls the stream once: where there is no item, it waits from then on, and nobody looks.
    Next,
    /// Drops the stream and makes another.
    Renew,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    /// One thread, one sink, one stream, operations polled once: what comes out is what went in, in order; what a sink that was full had
    /// was not lost either.
    #[test]
    fn r92_n5_items_come_once_and_in_order(
        capacity in 0..3_usize,
        ops in prop::collection::vec(prop_oneof![
            Just(Op::Feed), Just(Op::Flush), Just(Op::Next), Just(Op::Renew)
        ], 0..40),
    ) {
        run_virtual(async || {
            let (sender, receiver) = channel(capacity);
            let mut sink = pin!(sender.sink());
            let mut items = Box::pin(receiver.stream());
            let (mut sent, got) = (VecDeque::new(), RefCell::new(vec![]));
            let mut next = 0;
            for op in &ops {
                match op {
                    Op::Feed => {
                        // As `feed`: ready, then the item; which is in the sink from then on.
                        let ready = std::future::poll_fn(|cx| Poll::Ready(sink.as_mut().poll_ready(cx))).await;
                        if let Poll::Ready(ready) = ready {
                            ready.unwrap();
                            sink.as_mut().start_send(next).unwrap();
                            sent.push_back(next);
                            next += 1;
                        }
                    }
                    Op::Flush => {
                        let flushed = std::future::poll_fn(|cx| Poll::Ready(sink.as_mut().poll_flush(cx))).await;
                        if let Poll::Ready(flushed) = flushed {
                            flushed.unwrap();
                        }
                    }
                    Op::Next => {
                        let polled = std::future::poll_fn(|cx| Poll::Ready(items.as_mut().poll_next(cx))).await;
                        if let Poll::Ready(item) = polled {
                            got.borrow_mut().push(item.unwrap().unwrap());
                        }
                    }
                    Op::Renew => items = Box::pin(receiver.stream()),
                }
            }
            // The rest.
            local_nursery(async |n| -> io::Result<()> {
                n.spawn(async { Ok(sink.close().await?) });
                while let Some(item) = items.try_next().await? {
                    got.borrow_mut().push(item);
                }
                Ok(())
            })
            .await
            .unwrap();
            assert_eq!(got.take(), Vec::from(sent));
        });
    }
}

/// N14: a step that was begun in a scope which was then cancelled, and left without a look at it, is no cancellation of who polls next.
/// More often than code may swallow cancellations (N13 b).
#[test]
fn n14_a_cancellation_of_a_scope_that_was_left_is_no_item() {
    run_virtual(async || {
        let (sender, receiver) = channel(1);
        let mut items = pin!(receiver.stream());
        for i in 0..2 * STRIKES {
            let ended = move_on_after(ms(1), async {
                assert_eq!(poll_once(items.next().boxed_local().as_mut()).await, Poll::Pending);
                sleep_forever().await
            });
            assert_eq!(ended.await, Ok(None));
            sender.try_send(i).unwrap();
            assert_eq!(items.next().await, Some(Ok(i)));
        }
    });
}

#[test]
fn n14_a_cancellation_of_a_scope_that_was_left_does_not_end_a_send() {
    run_virtual(async || {
        let (sender, receiver) = channel(1);
        let mut sink = pin!(sender.sink());
        for i in 0..2 * STRIKES {
            sink.send(i).await.unwrap();
            let ended = move_on_after(ms(1), async {
                sink.as_mut().start_send(i + 1).unwrap();
                assert_eq!(poll_once(sink.flush().boxed_local().as_mut()).await, Poll::Pending);
                sleep_forever().await
            });
            assert_eq!(ended.await, Ok(None));
            assert_eq!(receiver.try_recv(), Ok(i));
            sink.flush().await.unwrap();
            assert_eq!(receiver.try_recv(), Ok(i + 1));
        }
    });
}

/// The same for a wait by itself: there it is told, since it was one operation; but it is no strike where nothing is cancelled.
#[test]
fn n13_what_was_told_too_late_does_not_count() {
    run_virtual(async || {
        let (sender, receiver) = channel(1);
        for i in 0..2 * STRIKES {
            let mut waits = Box::pin(receiver.recv());
            let ended = move_on_after(ms(1), async {
                assert_eq!(poll_once(waits.as_mut()).await, Poll::Pending);
                sleep_forever().await
            });
            assert_eq!(ended.await, Ok(None));
            sender.try_send(i).unwrap();
            assert_eq!(waits.await, Err(CANCELLED), "R17");
            assert_eq!(receiver.recv().await, Ok(Some(i)));
        }
    });
}
