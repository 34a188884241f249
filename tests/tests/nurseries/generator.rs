//! `generator` (R101): a producer that runs on demand and never beside the consumer's handling.

use super::fault::Fault;
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use trefoil_nursery::{
    CancelScope, ErrorGroup, Event, Items, SendError, Yielder, checkpoint, generator, local_nursery, move_on_after,
    nursery, race, shield, sleep, sleep_forever,
};
use trefoil_tests::{Trace, ms, run_virtual};

pub async fn count(mut out: Yielder<u64>, to: u64) -> Result<(), Fault> {
    for i in 0..to {
        out.send(i).await?;
    }
    Ok(())
}

pub async fn collect(mut items: Items<u64>) -> Result<Vec<u64>, Fault> {
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
