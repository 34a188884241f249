//! How a generator ends: by errors, cancels, drops and panics, at every await, and against a sequential model. R29, R36, R58, N5, N6, N9, N13, N14.

use super::fault::Fault;
use super::generator::{collect, count};
use proptest::prelude::*;
use std::cell::RefCell;
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use trefoil_nursery::{
    CancelScope, Cancelled, Items, Yielder, checkpoint, generator, move_on_after, shield, sleep, sleep_forever,
    yield_now,
};
use trefoil_tests::{OnDrop, Trace, at_every_await, drop_at, ms, run_virtual, stop};

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
        let stops = at_every_await(async |how, k| {
            let (made, dropped) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let end = stop(how, k, world(&made, &dropped)).await;
            assert_eq!(made.into_inner(), dropped.into_inner(), "every item is dropped once: {how:?} at {k}");
            end.is_complete()
        })
        .await;
        assert!(stops.iter().all(|&n| n > 8), "{stops:?}");
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
