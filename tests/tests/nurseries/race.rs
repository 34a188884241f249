//! `race` and `race_with`: the first wins, and the others are cancelled and awaited. N7, R18, and what they may be made of.

use super::fault::{Fault, after};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use trefoil_nursery::{
    CancelAware, CancelScope, Cancelled, ErrorGroup, Event, channel, checkpoint, first_success, join, local_nursery,
    move_on_after, nursery, race, race_with, shield, sleep, sleep_forever, until, yield_now,
};
use trefoil_tests::{OnDrop, Trace, ms, panic_of, run_virtual};

#[test]
fn n7_the_losers_are_cancelled_and_awaited() {
    run_virtual(async || {
        let trace = Trace::new();
        let won = race((
            async {
                let ended = sleep(ms(100)).await;
                trace.note("slow", "is told");
                shield(sleep(ms(20))).await?;
                trace.note("slow", "is done");
                ended.map(|()| "slow")
            },
            async {
                sleep(ms(5)).await?;
                Ok("fast")
            },
            async {
                sleep_forever().await?;
                Ok::<_, Cancelled>("never")
            },
        ))
        .await;
        assert_eq!(won.unwrap(), "fast");
        assert_eq!(trace.lines(), ["5 slow is told", "25 slow is done"]);
        assert_eq!(trace.ms(), 25);
    });
}

#[test]
fn n7_of_those_that_are_ready_at_once_the_first_wins() {
    run_virtual(async || {
        for _ in 0..2 {
            let polls = RefCell::new(vec![]);
            let at_once = async |n: u32| {
                polls.borrow_mut().push(n);
                Ok::<_, Cancelled>(n)
            };
            assert_eq!(race((at_once(1), at_once(2), at_once(3))).await.unwrap(), 1);
            assert_eq!(race([at_once(1), at_once(2)]).await.unwrap(), 1);
            assert_eq!(race(vec![at_once(1), at_once(2)]).await.unwrap(), 1);
            assert_eq!(polls.take(), [1, 2, 3, 1, 2, 1, 2], "in the order of the arguments");
        }
    });
}

#[test]
fn n7_a_tie_of_deadlines_or_at_one_event_goes_to_the_first() {
    run_virtual(async || {
        assert_eq!(race([after(7, Ok(1)), after(7, Ok(2)), after(7, Ok(3))]).await.unwrap(), 1);
        let event = Event::new();
        local_nursery(async |n| -> Result<(), Cancelled> {
            n.spawn(async {
                sleep(ms(1)).await?;
                event.set();
                Ok(())
            });
            let wait = async |n: u32| event.wait().await.map(|()| n);
            assert_eq!(race((wait(1), wait(2))).await?, 1);
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn n7_what_came_first_wins_whatever_the_order() {
    run_virtual(async || {
        let (left, right) = (Event::new(), Event::new());
        local_nursery(async |n| -> Result<(), Cancelled> {
            n.spawn(async {
                sleep(ms(1)).await?;
                right.set();
                left.set();
                Ok(())
            });
            let mut late = vec![];
            let first = race_with(
                (async { left.wait().await.map(|()| "left") }, async { right.wait().await.map(|()| "right") }),
                |value| late.push(value),
            );
            // Both had happened (R18).
            assert_eq!((first.await?, late), ("right", vec!["left"]));
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn n7_a_second_value_is_dropped_once_or_handed_over() {
    run_virtual(async || {
        let dropped = AtomicUsize::new(0);
        let finish = async |n| {
            sleep(ms(3)).await?;
            Ok::<_, Cancelled>((n, OnDrop(&dropped)))
        };
        let won = race((finish(1), finish(2))).await.unwrap();
        assert_eq!((won.0, dropped.load(Ordering::SeqCst)), (1, 1));
        drop(won);

        let mut late = vec![];
        let won = race_with([finish(1), finish(2), finish(3)], |value| late.push(value)).await.unwrap();
        assert_eq!((won.0, late.iter().map(|value| value.0).collect::<Vec<_>>()), (1, vec![2, 3]));
        assert_eq!(dropped.load(Ordering::SeqCst), 2);
        drop((won, late));
        assert_eq!(dropped.load(Ordering::SeqCst), 5);
    });
}

#[test]
fn n7_no_item_is_lost_by_a_race_of_receives() {
    run_virtual(async || {
        let (left, from_left) = channel(4);
        let (right, from_right) = channel(4);
        let got = RefCell::new(vec![]);
        local_nursery(async |n| -> io::Result<()> {
            n.spawn(async {
                for i in 0..20 {
                    (if i % 3 == 0 { &left } else { &right }).send(i).await?;
                    if i % 2 == 0 {
                        (if i % 4 == 0 { &left } else { &right }).send(100 + i).await?;
                    }
                    yield_now().await;
                }
                left.close();
                right.close();
                Ok(())
            });
            let mut open = true;
            while open {
                let receive =
                    async |receiver: &trefoil_nursery::Receiver<i32>| Ok::<_, Cancelled>(receiver.recv().await?);
                let mut late = vec![];
                let first = race_with((receive(&from_left), receive(&from_right)), |item| late.push(item))
                    .await
                    .map_err(Cancelled::from)?;
                for item in [first].into_iter().chain(late) {
                    match item {
                        Some(item) => got.borrow_mut().push(item),
                        None => open = false,
                    }
                }
            }
            for rest in [&from_left, &from_right] {
                while let Some(item) = rest.recv().await? {
                    got.borrow_mut().push(item);
                }
            }
            Ok(())
        })
        .await
        .unwrap();
        let mut got = got.take();
        got.sort_unstable();
        let mut sent: Vec<_> = (0..20).chain((0..20).step_by(2).map(|i| 100 + i)).collect();
        sent.sort_unstable();
        assert_eq!(got, sent);
    });
}

#[test]
fn nobody_to_run() {
    let nobody = || Vec::<std::future::Ready<Result<u32, Cancelled>>>::new();
    assert_eq!(panic_of(|| run_virtual(async || drop(race(nobody()).await))), "a race of nobody");
    assert_eq!(panic_of(|| run_virtual(async || drop(first_success(nobody()).await))), "a choice among nobody");
    run_virtual(async || {
        assert_eq!(join(nobody()).await.unwrap(), []);
        assert_eq!(until(nobody(), |_| false).await.unwrap(), []);
    });
}

#[test]
fn nested_races_and_races_of_nurseries() {
    run_virtual(async || {
        let trace = Trace::new();
        let never = Event::new();
        let inner = race((after(20, Ok(1)), after(10, Ok(2))));
        let outer = race((
            async { inner.await.map_err(ErrorGroup::into_first) },
            async {
                let opened = local_nursery(async |n| {
                    for _ in 0..10 {
                        n.spawn(async { Ok::<_, Fault>(never.wait().await?) });
                    }
                    Ok(3)
                });
                opened.await.map_err(ErrorGroup::into_first)
            },
            async {
                let all = join((after(1, Ok(1)), after(30, Ok(2)))).await.map_err(ErrorGroup::into_first)?;
                Ok(all.0)
            },
        ));
        assert_eq!((outer.await.unwrap(), trace.ms()), (2, 10));
    });
}

#[test]
fn a_race_of_join_handles_ends_the_waits_and_not_the_children() {
    run_virtual(async || {
        let trace = Trace::new();
        local_nursery(async |n| -> Result<(), Cancelled> {
            let child = async |at, name| {
                sleep(ms(at)).await?;
                trace.note(name, "ends");
                Ok(name)
            };
            let (slow, fast) = (n.spawn(child(9, "slow")), n.spawn(child(3, "fast")));
            assert_eq!(race((slow, fast)).await?, "fast");
            trace.note("race", "ends");
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(trace.lines(), ["3 fast ends", "3 race ends", "9 slow ends"]);
    });
}

#[test]
fn outside_of_a_run() {
    let text = panic_of(|| {
        let mut future = Box::pin(race((async { Ok::<_, Cancelled>(1) }, async { Ok(2) })));
        let _ = future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    });
    assert!(text.contains("outside of a run"), "{text}");
}

#[test]
fn the_winner_may_be_in_a_scope_of_its_own() {
    run_virtual(async || {
        let timed = move_on_after(ms(5), after(50, Ok(1)));
        let won = race((async { timed.await.map(|value| value.unwrap_or(99)) }, after(10, Ok(2)))).await;
        assert_eq!(won.unwrap(), 99);
    });
}

#[test]
fn they_borrow_and_are_send_if_what_they_run_is() {
    fn send<T: Send>(future: T) -> T {
        future
    }
    async fn read(text: &str) -> io::Result<usize> {
        checkpoint().await?;
        Ok(text.len())
    }
    async fn all(texts: &[String], log: &mut Vec<usize>) -> io::Result<usize> {
        let first = race((read(&texts[0]), read(&texts[1]))).await?;
        let more = race_with([read(&texts[0]), read(&texts[1])], |late| log.push(late)).await?;
        let any = first_success(texts.iter().map(|text| read(text)).collect::<Vec<_>>()).await?;
        let (a, b) = join((read(&texts[0]), async { Ok(texts.len()) })).await?;
        let [c, d] = join([read(&texts[0]), read(&texts[1])]).await?;
        let e = until([read(&texts[0]), read(&texts[1])], |done| done.len() > 1).await?;
        Ok(first + more + any + a + b + c + d + e.len())
    }
    let texts = ["one".to_string(), "three".to_string()];
    run_virtual(async || {
        let mut log = vec![];
        let boxed: std::pin::Pin<Box<dyn Future<Output = io::Result<usize>> + Send + '_>> =
            Box::pin(send(all(&texts, &mut log)));
        assert_eq!(boxed.await.unwrap(), 3 + 3 + 3 + 3 + 2 + 3 + 5 + 2);
        assert_eq!(log, [], "the second was told in time");
        // In a child that must be Send.
        let in_child = nursery(async |n| n.spawn(async { all(&texts, &mut log).await }).await.map_err(io::Error::from));
        assert_eq!(in_child.await.unwrap(), 24);
        // And neither Send nor 'static.
        let (step, total) = (Rc::new(5), Cell::new(0));
        let add = async || {
            checkpoint().await?;
            total.set(total.get() + *step);
            Ok::<_, Cancelled>(Rc::new(1))
        };
        assert_eq!(race((add(), add())).await.map(|one| *one).unwrap(), 1);
        join((add(), add())).await.unwrap();
        assert_eq!(total.get(), 15);
    });
}

#[allow(dead_code)]
fn what_is_moved_in_comes_out(owned: String) -> impl Future<Output = Result<String, ErrorGroup<Cancelled>>> {
    race((async move { Ok(owned) }, async { Ok(String::new()) }))
}

/// R25: who absorbs is decided at the exit. All were cancelled from outside; then a shield came up, so that it is the race itself which absorbs
/// that, and it has no value.
#[test]
fn r25_a_shield_that_comes_up_before_the_losers_have_ended_leaves_no_value() {
    async fn shielded_late<T>(
        what: impl AsyncFnOnce(&CancelScope, &CancelScope) -> Result<T, ErrorGroup<Cancelled>>,
    ) -> bool {
        let (outer, inner) = (CancelScope::new(), CancelScope::new());
        let ended = outer.run(inner.run(async {
            let error = what(&outer, &inner).await.err().expect("there is no value");
            assert!(error.is_cancelled());
            checkpoint().await // not cancelled any more
        }));
        ended.await == Ok(Some(Some(())))
    }
    async fn raises(inner: &CancelScope) -> Result<u32, Cancelled> {
        let ended = sleep_forever().await;
        shield(sleep(ms(5))).await?;
        inner.set_shield(true);
        ended.map(|()| 1)
    }
    async fn cancels(outer: &CancelScope) -> Result<u32, Cancelled> {
        outer.cancel();
        sleep_forever().await.map(|()| 2)
    }
    run_virtual(async || {
        assert!(shielded_late(async |outer, inner| race((raises(inner), cancels(outer))).await).await);
        assert!(shielded_late(async |outer, inner| first_success((raises(inner), cancels(outer))).await).await);
        assert!(shielded_late(async |outer, inner| join((raises(inner), cancels(outer))).await).await);
        assert!(shielded_late(async |outer, inner| until((raises(inner), cancels(outer)), |_| false).await).await);
    });
}
