//! `generator` (R101): a producer that runs on demand and never beside the consumer's handling, and what it has from the nursery that it
//! is: R29, R36, R58, N5, N6, N9, N13, N14.

use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use trefoil_nursery::{
    CancelAware, CancelScope, Cancelled, ErrorGroup, Event, Items, SendError, Yielder, checkpoint, generator,
    local_nursery, move_on_after, nursery, race, shield, sleep, sleep_forever, yield_now,
};
use trefoil_runtime::metrics;
use trefoil_tests::{OnDrop, Trace, cancel_at, drop_at, ms, run_virtual};

#[derive(Debug, PartialEq)]
enum Fault {
    Cancelled(Cancelled),
    No(u64),
    Group(Vec<Fault>),
}

impl From<Cancelled> for Fault {
    fn from(cancelled: Cancelled) -> Self {
        Fault::Cancelled(cancelled)
    }
}

impl<T> From<SendError<T>> for Fault {
    fn from(error: SendError<T>) -> Self {
        match error {
            SendError::Cancelled(cancelled, _) => Fault::Cancelled(cancelled),
            other => panic!("{other:?}"),
        }
    }
}

impl From<ErrorGroup<Fault>> for Fault {
    fn from(group: ErrorGroup<Fault>) -> Self {
        Fault::Group(group.into_vec())
    }
}

impl CancelAware for Fault {
    fn is_cancelled(&self) -> bool {
        matches!(self, Fault::Cancelled(_))
    }
}

async fn count(mut out: Yielder<u64>, to: u64) -> Result<(), Fault> {
    for i in 0..to {
        out.send(i).await?;
    }
    Ok(())
}

async fn collect(mut items: Items<u64>) -> Result<Vec<u64>, Fault> {
    let mut all = vec![];
    while let Some(item) = items.next().await? {
        all.push(item);
    }
    assert_eq!(items.next().await, Ok(None), "for ever");
    Ok(all)
}

#[test]
fn all_items_come_in_order_and_then_the_end() {
    run_virtual(async || {
        for to in [0, 1, 2, 1000] {
            let all = generator(|out| count(out, to), collect).await;
            assert_eq!(all.unwrap(), (0..to).collect::<Vec<_>>());
        }
    });
}

#[test]
fn r101_the_producer_runs_on_demand_and_never_beside_the_consumer() {
    run_virtual(async || {
        let trace = Trace::new();
        generator(
            async |mut out| {
                for i in 0..3 {
                    trace.note("p", format!("makes {i}"));
                    sleep(ms(5)).await?;
                    trace.note("p", format!("has {i}"));
                    out.send(i).await?;
                }
                trace.note("p", "ends");
                Ok(())
            },
            async |mut items| {
                trace.note("c", "prepares");
                sleep(ms(10)).await?;
                while let Some(i) = items.next().await? {
                    trace.note("c", format!("handles {i}"));
                    sleep(ms(10)).await?;
                    trace.note("c", format!("is done with {i}"));
                }
                Ok::<_, Fault>(())
            },
        )
        .await
        .unwrap();
        assert_eq!(
            trace.lines(),
            [
                "0 c prepares",
                "10 p makes 0",
                "15 p has 0",
                "15 c handles 0",
                "25 c is done with 0",
                "25 p makes 1",
                "30 p has 1",
                "30 c handles 1",
                "40 c is done with 1",
                "40 p makes 2",
                "45 p has 2",
                "45 c handles 2",
                "55 c is done with 2",
                "55 p ends",
            ]
        );
    });
}

#[test]
fn r101_a_producer_that_is_not_asked_does_not_begin() {
    run_virtual(async || {
        let value = generator(
            |_: Yielder<u64>| -> std::future::Ready<Result<(), Fault>> { unreachable!() },
            async |_items| {
                sleep(ms(5)).await?;
                Ok(7)
            },
        )
        .await;
        assert_eq!(value, Ok(7));
        // Nor where it was cancelled before.
        let scope = CancelScope::new();
        scope.cancel();
        let value = scope
            .run(generator(
                |_: Yielder<u64>| -> std::future::Ready<Result<(), Fault>> { unreachable!() },
                async |mut items| Ok(items.next().await.is_err()),
            ))
            .await;
        assert_eq!(value, Ok(Some(true)), "R29: the consumer had a value all the same");
    });
}

#[test]
fn r101_leaving_the_block_cancels_the_producer_and_awaits_it() {
    run_virtual(async || {
        let trace = Trace::new();
        let value = generator(
            async |mut out| {
                out.send(1).await?;
                trace.note("p", "goes on");
                let ended = out.send(2).await;
                assert!(matches!(ended, Err(SendError::Cancelled(_, 2))), "N6: {ended:?}");
                shield(sleep(ms(10))).await?;
                trace.note("p", "is done");
                Ok(ended?)
            },
            async |mut items| Ok::<_, Fault>(items.next().await?.unwrap()),
        )
        .await;
        assert_eq!(value, Ok(1));
        assert_eq!(trace.lines(), ["0 p goes on", "10 p is done"]);
    });
}

#[test]
fn r101_a_single_error_is_bare_and_several_are_a_group() {
    run_virtual(async || {
        let fails = |at: u64| {
            async move |mut out: Yielder<u64>| {
                for i in 0..at {
                    out.send(i).await?;
                }
                Err(Fault::No(1))
            }
        };
        // The producer fails: while it is asked, so nothing of the consumer is interrupted but its wait.
        let seen = RefCell::new(vec![]);
        let error = generator(fails(2), async |mut items| {
            loop {
                match items.next().await {
                    Ok(item) => seen.borrow_mut().push(item),
                    Err(cancelled) => return Err::<(), _>(cancelled.into()),
                }
            }
        })
        .await;
        assert_eq!((error.unwrap_err(), seen.take()), (Fault::No(1), vec![Some(0), Some(1)]));
        // A consumer that takes no notice has no say.
        let error = generator(fails(0), async |mut items| Ok(items.next().await.is_err())).await;
        assert_eq!(error.unwrap_err(), Fault::No(1));
        // Nor one that cannot be told.
        let error = generator(fails(0), async |mut items| Ok(shield(items.next()).await?)).await;
        assert_eq!(error.unwrap_err(), Fault::No(1));
        // The consumer fails.
        let error = generator(
            |out| count(out, 5),
            async |mut items| {
                items.next().await?;
                Err::<(), _>(Fault::No(2))
            },
        )
        .await;
        assert_eq!(error.unwrap_err(), Fault::No(2));
        // Both do.
        let error = generator(
            async |mut out| {
                out.send(1).await?;
                Err(Fault::No(1))
            },
            async |mut items| {
                items.next().await?;
                Err::<(), _>(Fault::No(2))
            },
        )
        .await;
        assert_eq!(error.unwrap_err(), Fault::Group(vec![Fault::No(2), Fault::No(1)]));
        // A clean-up of the producer fails.
        let error = generator(fails(1), async |mut items| {
            items.next().await?;
            Ok("left early")
        })
        .await;
        assert_eq!(error.unwrap_err(), Fault::No(1));
        // A group of the user's own stays one.
        let own = || Fault::Group(vec![Fault::No(3)]);
        let error = generator(|out| count(out, 1), async |_| Err::<(), _>(own())).await;
        assert_eq!(error.unwrap_err(), own());
    });
}

#[test]
fn r101_scopes_around_a_send_do_not_reach_the_consumer() {
    run_virtual(async || {
        let trace = Trace::new();
        let sum = generator(
            async |mut out| {
                out.send(1).await?;
                // Time runs while the consumer handles the item, and is over when this goes on.
                let timed = move_on_after(ms(5), async {
                    out.send(2).await?;
                    Ok::<_, Fault>(out.send(3).await?)
                })
                .await?;
                assert_eq!(timed, None);
                let scope = CancelScope::new();
                scope.cancel();
                scope.run(async { Ok::<_, Fault>(out.send(99).await?) }).await?;
                local_nursery(async |n| {
                    n.spawn(async { Ok::<_, Fault>(out.send(4).await?) });
                    Ok(())
                })
                .await
                .map_err(ErrorGroup::into_first)?;
                Ok(())
            },
            async |mut items| {
                let mut sum = 0;
                while let Some(i) = items.next().await? {
                    trace.note("c", i);
                    sleep(ms(10)).await?;
                    sum += i;
                }
                sleep(ms(1)).await?;
                Ok::<_, Fault>(sum)
            },
        )
        .await;
        assert_eq!(sum, Ok(7));
        assert_eq!(trace.lines(), ["0 c 1", "10 c 2", "20 c 4"]);
    });
}

#[test]
fn r36_a_next_that_is_cancelled_loses_no_item() {
    run_virtual(async || {
        let slowly = async |mut out: Yielder<u64>| {
            for i in 0..5 {
                sleep(ms(10)).await?;
                out.send(i).await?;
            }
            Ok::<_, Fault>(())
        };
        for patience in 1..25 {
            let all = generator(slowly, async |mut items| {
                let mut all = vec![];
                loop {
                    match move_on_after(ms(patience), items.next()).await? {
                        Some(Some(item)) => all.push(item),
                        Some(None) => return Ok(all),
                        None => {}
                    }
                }
            })
            .await;
            assert_eq!(all.unwrap(), [0, 1, 2, 3, 4], "{patience}");
        }
    });
}

#[test]
fn n5_a_next_that_is_dropped_loses_no_item() {
    run_virtual(async || {
        for k in 0..4 {
            let all = generator(
                async |mut out: Yielder<u64>| {
                    for i in 0..5 {
                        yield_now().await;
                        out.send(i).await?;
                    }
                    Ok(())
                },
                async |mut items| {
                    let mut all = vec![];
                    loop {
                        if drop_at(k, items.next()).await.is_some_and(|next| {
                            let item = next.unwrap();
                            all.extend(item);
                            item.is_none()
                        }) {
                            return Ok::<_, Fault>(all);
                        }
                        if k == 0 {
                            return Ok(vec![0, 1, 2, 3, 4]);
                        }
                        checkpoint().await?;
                    }
                },
            )
            .await;
            assert_eq!(all.unwrap(), [0, 1, 2, 3, 4], "{k}");
        }
    });
}

#[test]
fn a_cancel_from_outside_reaches_the_consumer_first() {
    run_virtual(async || {
        let log = RefCell::new(vec![]);
        let scope = CancelScope::new();
        let ended = scope
            .run(async {
                generator(
                    async |mut out| {
                        out.send(1).await?;
                        let ended = checkpoint().await;
                        log.borrow_mut().push("producer");
                        Ok(ended?)
                    },
                    async |mut items| {
                        items.next().await?;
                        scope.cancel();
                        let ended = checkpoint().await;
                        log.borrow_mut().push("consumer");
                        Ok::<_, Fault>(ended?)
                    },
                )
                .await
            })
            .await;
        assert_eq!(ended, Ok(None));
        assert_eq!(log.take(), ["consumer", "producer"]);
        // Both wait.
        let ended = move_on_after(
            ms(5),
            generator(
                async |_: Yielder<u64>| Ok(sleep_forever().await?),
                async |mut items| Ok::<_, Fault>(items.next().await?),
            ),
        );
        assert_eq!(ended.await, Ok(None));
    });
}

#[test]
fn n9_a_panic_of_either_waits_for_the_other() {
    async fn caught<F: Future>(future: F) -> String {
        let mut future = Box::pin(future);
        poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(_)) => panic!("it is to panic"),
            Err(payload) => Poll::Ready(payload.downcast_ref::<&str>().unwrap().to_string()),
        })
        .await
    }
    run_virtual(async || {
        let trace = Trace::new();
        let text = caught(generator(
            async |mut out| {
                out.send(1).await?;
                panic!("the producer")
            },
            async |mut items: Items<u64>| {
                items.next().await?;
                let ended = items.next().await;
                shield(sleep(ms(5))).await?;
                trace.note("c", "is done");
                Ok::<_, Fault>(ended?)
            },
        ));
        assert_eq!((text.await.as_str(), trace.lines()), ("the producer", vec!["5 c is done".into()]));
        let text = caught(generator(
            async |mut out| {
                out.send(1).await?;
                shield(sleep(ms(5))).await?;
                trace.note("p", "is done");
                Ok(())
            },
            async |mut items: Items<u64>| -> Result<(), Fault> {
                items.next().await?;
                panic!("the consumer")
            },
        ));
        assert_eq!((text.await.as_str(), trace.of("p")), ("the consumer", vec!["10 p is done".into()]));
    });
}

#[test]
fn n13_a_producer_or_consumer_that_cannot_be_told_is_dropped() {
    run_virtual(async || {
        let dropped = AtomicUsize::new(0);
        let value = generator(
            async |mut out| {
                out.send(1).await?;
                let _guard = OnDrop(&dropped);
                pending::<()>().await;
                Ok(())
            },
            async |mut items| {
                items.next().await?;
                move_on_after(ms(1), items.next()).await?;
                Ok::<_, Fault>(5)
            },
        )
        .await;
        assert_eq!((value, dropped.load(Ordering::SeqCst)), (Ok(5), 1));
        let error = generator(
            async |_: Yielder<u64>| Err(Fault::No(1)),
            async |mut items| {
                let _ = items.next().await;
                let _guard = OnDrop(&dropped);
                pending::<()>().await;
                Ok(())
            },
        )
        .await;
        assert_eq!((error, dropped.load(Ordering::SeqCst)), (Err(Fault::No(1)), 2));
        // A loop that swallows.
        let ended = move_on_after(ms(1), async {
            sleep_forever().await.unwrap_err();
            loop {
                let _ = generator(|out| count(out, 3), async |mut items| Ok(items.next().await.is_ok())).await;
            }
            #[allow(unreachable_code)]
            Ok::<(), Cancelled>(())
        });
        assert_eq!(ended.await, Ok(None));
    });
}

#[test]
fn n14_a_cancellation_that_nobody_caused_is_an_error() {
    run_virtual(async || {
        let made_up = || Fault::Cancelled(Cancelled::delivered());
        let error = generator(async |_: Yielder<u64>| Err(made_up()), collect).await;
        assert_eq!(error.unwrap_err(), made_up());
    });
}

#[test]
fn a_generator_within_a_generator() {
    run_virtual(async || {
        // In the handling of the other's items.
        let pairs = generator(
            |out| count(out, 3),
            async |mut outer| {
                let mut pairs = vec![];
                while let Some(i) = outer.next().await? {
                    let pairs = &mut pairs;
                    generator(
                        |out| count(out, 2),
                        async move |mut inner: Items<u64>| {
                            while let Some(j) = inner.next().await? {
                                pairs.push((i, j));
                            }
                            Ok::<_, Fault>(())
                        },
                    )
                    .await?;
                }
                Ok::<_, Fault>(pairs)
            },
        )
        .await;
        assert_eq!(pairs.unwrap(), [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]);
        // As the source of the other.
        let squares = generator(
            async |mut out| {
                let out = &mut out;
                generator(
                    |out| count(out, 4),
                    async move |mut items: Items<u64>| {
                        while let Some(i) = items.next().await? {
                            out.send(i * i).await?;
                        }
                        Ok(())
                    },
                )
                .await
            },
            collect,
        )
        .await;
        assert_eq!(squares.unwrap(), [0, 1, 4, 9]);
        // And in a race.
        let slow = generator(async |_: Yielder<u64>| Ok(sleep_forever().await?), collect);
        let fast = generator(|out| count(out, 3), collect);
        assert_eq!(race((slow, fast)).await.unwrap(), [0, 1, 2]);
    });
}

#[test]
fn handles_that_are_carried_out_are_of_no_use_and_do_no_harm() {
    run_virtual(async || {
        let (kept_out, kept_items) = (RefCell::new(None), RefCell::new(None));
        generator(
            async |mut out| {
                out.send(1).await?;
                *kept_out.borrow_mut() = Some(out);
                Ok(())
            },
            async |mut items| {
                assert_eq!(items.next().await?, Some(1));
                assert_eq!(items.next().await?, None);
                *kept_items.borrow_mut() = Some(items);
                Ok::<_, Fault>(())
            },
        )
        .await
        .unwrap();
        assert_eq!(kept_out.take().unwrap().send(2).await, Err(SendError::Closed(2)));
        assert_eq!(kept_items.take().unwrap().next().await, Ok(None));
    });
}

#[test]
fn items_borrow_and_it_is_send_if_its_parts_are() {
    fn send<T: Send>(future: T) -> T {
        future
    }
    async fn longest(text: &str) -> io::Result<&str> {
        generator(
            async |mut out| {
                for word in text.split(' ') {
                    checkpoint().await?;
                    out.send(word).await?;
                }
                Ok(())
            },
            async |mut words| {
                let mut longest = "";
                while let Some(word) = words.next().await? {
                    if word.len() > longest.len() {
                        longest = word;
                    }
                }
                Ok::<_, io::Error>(longest)
            },
        )
        .await
    }
    let text = String::from("one three five");
    run_virtual(async || {
        assert_eq!(send(longest(&text)).await.unwrap(), "three");
        let in_child: io::Result<usize> =
            nursery(async |n| Ok(n.spawn(async { longest(&text).await }).await?.len())).await.map_err(io::Error::from);
        assert_eq!(in_child.unwrap(), 5);
        // Not Send, neither the items nor the rest.
        let (step, calls) = (Rc::new(2), Cell::new(0));
        let sum = generator(
            async |mut out| {
                for i in 0..3 {
                    calls.set(calls.get() + 1);
                    out.send(Rc::new(i * *step)).await?;
                }
                Ok(())
            },
            async |mut items| {
                let mut sum = 0;
                while let Some(item) = items.next().await? {
                    sum += *item;
                }
                Ok::<_, Fault>(sum)
            },
        );
        assert_eq!((sum.await, calls.get()), (Ok(6), 3));
    });
}

async fn world(made: &AtomicUsize, dropped: &AtomicUsize) -> Result<usize, Fault> {
    generator(
        async |mut out| {
            for _ in 0..4 {
                sleep(ms(1)).await?;
                made.fetch_add(1, Ordering::SeqCst);
                out.send(OnDrop(dropped)).await?;
                checkpoint().await?;
            }
            Ok(())
        },
        async |mut items| {
            let mut kept = vec![];
            while let Some(item) = items.next().await? {
                sleep(ms(1)).await?;
                kept.push(item);
            }
            Ok(kept.len())
        },
    )
    .await
}

#[test]
fn stopped_at_every_await_nothing_is_left() {
    run_virtual(async || {
        for cancel in [false, true] {
            for k in 0.. {
                let (made, dropped) = (AtomicUsize::new(0), AtomicUsize::new(0));
                let before = metrics();
                let complete = if cancel {
                    let (result, cancelled) = cancel_at(k, world(&made, &dropped)).await;
                    assert!(result.is_ok());
                    !cancelled
                } else {
                    drop_at(k, world(&made, &dropped)).await.is_some()
                };
                assert_eq!(metrics(), before, "{cancel} {k}");
                assert_eq!(made.into_inner(), dropped.into_inner(), "every item is dropped once: {cancel} {k}");
                if complete {
                    assert!(k > 8, "{k}");
                    break;
                }
            }
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    /// The model is a loop: make an item, handle it; with a timeout around each `next`, and an end of the consumer after some items.
    #[test]
    fn r101_against_a_sequential_model(
        makes in prop::collection::vec(0..9_u64, 0..6),
        handles in prop::collection::vec(0..9_u64, 6),
        takes in 0..7_usize,
    ) {
        let (mut now, mut model) = (0, vec![]);
        for (i, make) in makes.iter().enumerate().take(takes) {
            model.push((now, i, "begins"));
            now += make;
            model.push((now, i, "is made"));
            now += handles[i];
            model.push((now, i, "is handled"));
        }
        run_virtual(async || {
            let (trace, seen) = (Trace::new(), RefCell::new(vec![]));
            let note = |i: usize, what| seen.borrow_mut().push((trace.ms() as u64, i, what));
            let got = generator(
                async |mut out| {
                    for (i, make) in makes.iter().enumerate() {
                        note(i, "begins");
                        sleep(ms(*make)).await?;
                        note(i, "is made");
                        let sent = out.send(i).await;
                        if sent.is_err() || checkpoint().await.is_err() {
                            return Ok(());
                        }
                    }
                    Ok(())
                },
                async |mut items| {
                    let mut got = 0;
                    while got < takes && let Some(i) = items.next().await? {
                        sleep(ms(handles[i])).await?;
                        note(i, "is handled");
                        got += 1;
                    }
                    Ok::<_, Fault>(got)
                },
            )
            .await;
            assert_eq!(got, Ok(takes.min(makes.len())));
            assert_eq!(seen.take(), model);
        });
    }
}

#[test]
fn the_task_tree_says_who_waits_for_whom() {
    run_virtual(async || {
        generator(
            async |mut out| {
                assert!(trefoil_runtime::tree().to_string().contains("waits for an item of a generator"));
                Ok(out.send(1).await?)
            },
            async |mut items| {
                items.next().await?;
                assert!(trefoil_runtime::tree().to_string().contains("waits for the next item to be asked for"));
                Ok::<_, Fault>(())
            },
        )
        .await
        .unwrap();
    });
}

#[test]
fn a_producer_may_wait_for_what_the_consumer_does() {
    run_virtual(async || {
        let handled = Event::new();
        let value = generator(
            async |mut out| {
                out.send(1).await?;
                handled.wait().await?;
                Ok(out.send(2).await?)
            },
            async |mut items| {
                let first = items.next().await?;
                handled.set();
                Ok::<_, Fault>((first, items.next().await?))
            },
        );
        assert_eq!(value.await, Ok((Some(1), Some(2))));
    });
}
