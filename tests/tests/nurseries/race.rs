//! `race`, `race_with`, `first_success`, `join`, `until`: N7, and what they have from the nursery that they are: R18, R29, R58–R60, N5, N9,
//! N12–N15.

use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::future::{Future, pending, ready};
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use trefoil_nursery::{
    CancelAware, CancelScope, Cancelled, ErrorGroup, Event, channel, checkpoint, first_success, join, local_nursery,
    move_on_after, nursery, race, race_with, shield, sleep, sleep_forever, until, yield_now,
};
use trefoil_runtime::metrics;
use trefoil_tests::{OnDrop, Trace, cancel_at, drop_at, ms, panic_of, run_virtual};

const CANCELLED: Cancelled = Cancelled::delivered();

#[derive(Debug, PartialEq)]
enum Fault {
    Cancelled(Cancelled),
    No(u64),
}

impl From<Cancelled> for Fault {
    fn from(cancelled: Cancelled) -> Self {
        Fault::Cancelled(cancelled)
    }
}

impl CancelAware for Fault {
    fn is_cancelled(&self) -> bool {
        matches!(self, Fault::Cancelled(_))
    }
}

fn faults(group: ErrorGroup<Fault>) -> Vec<Fault> {
    group.into_vec()
}

async fn after(n: u64, result: Result<u64, u64>) -> Result<u64, Fault> {
    sleep(ms(n)).await?;
    result.map_err(Fault::No)
}

// ---- race ----------------------------------------------------------------------------------------------------------

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
fn n7_r58_an_error_wins_too() {
    run_virtual(async || {
        let trace = Trace::new();
        let group = race((after(9, Ok(1)), after(4, Err(2)))).await.unwrap_err();
        assert_eq!((faults(group), trace.ms()), (vec![Fault::No(2)], 4));
    });
}

#[test]
fn r60_n15_an_error_of_a_loser_is_not_hidden_by_the_value() {
    run_virtual(async || {
        let mut values = vec![];
        let group = race_with(
            (
                async {
                    let _ = sleep_forever().await;
                    Err(Fault::No(7))
                },
                after(4, Ok(1)),
                after(4, Ok(2)),
                after(9, Ok(3)),
            ),
            |value| values.push(value),
        )
        .await
        .unwrap_err();
        assert_eq!((faults(group), values), (vec![Fault::No(7)], vec![1, 2]));
    });
}

#[test]
fn n14_a_cancellation_that_nobody_caused_is_an_error() {
    run_virtual(async || {
        let (made_up, value) = (async { Err(Fault::Cancelled(CANCELLED)) }, async { Ok(1) });
        assert!(faults(race((made_up, value)).await.unwrap_err())[0].is_cancelled());
        // And one that a loser makes up after that is one of the race's own, and is absorbed.
        let (value, late) = (async { Ok(1) }, async { Err(Fault::Cancelled(CANCELLED)) });
        assert_eq!(race((value, late)).await.unwrap(), 1);
        // One branch that keeps an old one.
        let group = first_success((async { Err(Fault::Cancelled(CANCELLED)) }, after(1, Err(2)))).await.unwrap_err();
        assert_eq!(faults(group), [Fault::Cancelled(CANCELLED), Fault::No(2)]);
    });
}

#[test]
fn a_cancel_from_outside_ends_all_of_them() {
    run_virtual(async || {
        let trace = Trace::new();
        let ended = move_on_after(ms(10), async {
            let group = race((sleep(ms(50)), async {
                let _ = sleep_forever().await;
                shield(sleep(ms(5))).await
            }))
            .await;
            // R29: one has a value.
            assert_eq!(group.unwrap(), ());
            let all: Result<(), _> = race((sleep_forever(), sleep_forever())).await;
            let group = all.unwrap_err();
            assert_eq!((group.len(), group.is_cancelled()), (1, true));
            let group = race((sleep_forever(), async { Err(io::Error::other("no")).or(Err(CANCELLED)) })).await;
            Ok::<(), Cancelled>(group?)
        })
        .await;
        assert_eq!((ended, trace.ms()), (Ok(None), 15));

        let errors = move_on_after(ms(10), async {
            let failing = async {
                let _ = sleep_forever().await;
                Err(Fault::No(1))
            };
            race((failing, after(50, Ok(1)))).await
        })
        .await;
        assert_eq!(faults(errors.unwrap_err()), [Fault::No(1)], "R27: the scope outside took the cancellation out");
    });
}

#[test]
fn n9_a_panic_waits_for_the_others() {
    run_virtual(async || {
        let trace = Trace::new();
        let mut racing = Box::pin(race((
            async {
                let ended = sleep_forever().await;
                shield(sleep(ms(5))).await?;
                trace.note("loser", "is done");
                ended
            },
            async {
                sleep(ms(1)).await?;
                panic!("oops")
            },
        )));
        let polled = std::future::poll_fn(|cx| {
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| racing.as_mut().poll(cx))) {
                Ok(std::task::Poll::Pending) => std::task::Poll::Pending,
                Ok(std::task::Poll::Ready(_)) => panic!("it panics"),
                Err(payload) => std::task::Poll::Ready(payload),
            }
        })
        .await;
        assert_eq!(polled.downcast_ref::<&str>(), Some(&"oops"));
        assert_eq!(trace.lines(), ["6 loser is done"]);
        drop(racing);
    });
}

#[test]
fn n9_a_panic_in_a_destructor_or_in_the_function_for_losers() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in a destructor");
        }
    }
    let text = panic_of(|| {
        run_virtual(async || {
            let bomb = async {
                let _bomb = Bomb;
                sleep_forever().await
            };
            let _ = race((bomb, async { Ok(()) })).await;
        });
    });
    assert_eq!(text, "in a destructor");
    let text = panic_of(|| {
        run_virtual(async || {
            let finish = || async { Ok::<_, Cancelled>(()) };
            let _ = race_with((finish(), finish()), |()| panic!("in the function")).await;
        });
    });
    assert_eq!(text, "in the function");
    let text = panic_of(|| {
        run_virtual(async || {
            let finish = || async { Ok::<_, Cancelled>(()) };
            let _ = until([finish(), finish()], |_| panic!("in the predicate")).await;
        });
    });
    assert_eq!(text, "in the predicate");
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
fn n13_a_foreign_loser_is_dropped() {
    run_virtual(async || {
        let dropped = AtomicUsize::new(0);
        let foreign = async {
            let _guard = OnDrop(&dropped);
            pending::<()>().await;
            Ok(0)
        };
        assert_eq!(race((foreign, after(3, Ok(1)))).await.unwrap(), 1);
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
        let foreign = async { pending::<Result<u64, Fault>>().await };
        assert_eq!(first_success((foreign, after(3, Ok(1)))).await.unwrap(), 1);
    });
}

#[test]
fn n13_code_that_swallows_and_goes_on_is_ended() {
    run_virtual(async || {
        for which in 0..4 {
            let turns = Cell::new(0);
            let scope = CancelScope::new();
            scope.cancel();
            let ended = scope
                .run(async {
                    loop {
                        turns.set(turns.get() + 1);
                        assert!(turns.get() < 100_000);
                        match which {
                            0 => drop(race((sleep(ms(1)), checkpoint())).await),
                            1 => drop(first_success((sleep(ms(1)), checkpoint())).await),
                            2 => drop(join((sleep(ms(1)), checkpoint())).await),
                            _ => drop(until([sleep(ms(1)), sleep(ms(1))], |_| true).await),
                        }
                    }
                    #[allow(unreachable_code)]
                    Ok::<(), Cancelled>(())
                })
                .await;
            assert_eq!(ended, Ok(None), "{which}");
        }
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

// ---- first_success -------------------------------------------------------------------------------------------------

#[test]
fn first_success_is_not_ended_by_errors() {
    run_virtual(async || {
        let trace = Trace::new();
        let won = first_success((after(1, Err(1)), after(5, Ok(2)), after(3, Err(3)), after(9, Ok(4)))).await;
        assert_eq!((won.unwrap(), trace.ms()), (2, 5));
        let group = first_success([after(3, Err(1)), after(1, Err(2)), after(2, Err(3))]).await.unwrap_err();
        assert_eq!(faults(group), [Fault::No(2), Fault::No(3), Fault::No(1)], "in the order in which they came");
    });
}

#[test]
fn first_success_that_is_cancelled() {
    run_virtual(async || {
        let ended = move_on_after(ms(5), async {
            let group = first_success((after(1, Err(1)), after(10, Ok(2)), after(10, Ok(3)))).await.unwrap_err();
            assert_eq!(group.iter().collect::<Vec<_>>(), [&Fault::No(1), &Fault::Cancelled(CANCELLED)]);
            Err::<(), _>(group)
        });
        assert_eq!(faults(ended.await.unwrap_err()), [Fault::No(1)]);
        let ended = move_on_after(ms(5), first_success((after(10, Ok(1)), after(10, Ok(2))))).await;
        assert!(ended.unwrap().is_none());
        let late = async {
            let _ = sleep_forever().await;
            Ok(7)
        };
        let ended = move_on_after(ms(5), first_success((late, after(10, Ok(2))))).await;
        assert_eq!(ended.unwrap(), Some(7));
        // A foreign one is cut.
        let foreign = pending::<Result<u64, Fault>>();
        let ended = move_on_after(ms(5), first_success((foreign, pending()))).await;
        assert!(ended.unwrap().is_none());
    });
}

// ---- join and until ------------------------------------------------------------------------------------------------

#[test]
fn join_returns_values_of_several_types_in_place() {
    run_virtual(async || {
        let all = join((
            async { Ok::<_, Fault>("a") },
            after(5, Ok(2)),
            async { Ok(3.5) },
            async { Ok('d') },
            ready(Ok(5_u8)),
            ready(Ok(())),
            ready(Ok(Some(7))),
            ready(Ok([8; 8])),
        ));
        assert_eq!(all.await.unwrap(), ("a", 2, 3.5, 'd', 5, (), Some(7), [8; 8]));
        assert_eq!(join([after(3, Ok(1)), after(1, Ok(2)), after(2, Ok(3))]).await.unwrap(), [1, 2, 3]);
        let many: Vec<_> = (0..1000).map(|i| after(1000 - i, Ok(i))).collect();
        assert_eq!(join(many).await.unwrap(), (0..1000).collect::<Vec<_>>());
    });
}

#[test]
fn r58_r60_join_is_ended_by_the_first_error_and_returns_all() {
    run_virtual(async || {
        let trace = Trace::new();
        let dropped = AtomicUsize::new(0);
        let group = join((
            async {
                let _ = sleep_forever().await;
                Err::<(), _>(Fault::No(2))
            },
            after(4, Err(1)),
            after(90, Ok(3)),
            async { Ok(OnDrop(&dropped)) },
        ))
        .await
        .unwrap_err();
        assert_eq!((faults(group), trace.ms()), (vec![Fault::No(1), Fault::No(2)], 4));
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn r29_join_keeps_what_is_complete_when_it_is_cancelled() {
    run_virtual(async || {
        let scope = CancelScope::new();
        let ended = scope
            .run(join((async { Ok::<_, Cancelled>(1) }, async {
                sleep(ms(1)).await?;
                scope.cancel();
                Ok(2)
            })))
            .await;
        assert_eq!(ended.unwrap(), Some((1, 2)));
    });
}

#[test]
fn until_collects_in_order_of_completion_and_loses_nothing() {
    run_virtual(async || {
        let trace = Trace::new();
        let asked = RefCell::new(vec![]);
        let enough = |done: &[u64]| {
            asked.borrow_mut().push(done.to_vec());
            done.iter().sum::<u64>() >= 5
        };
        let got = until([after(9, Ok(9)), after(3, Ok(3)), after(1, Ok(1)), after(2, Ok(2)), after(3, Ok(4))], enough);
        // The last two end in one turn: the fourth is late, and kept.
        assert_eq!((got.await.unwrap(), trace.ms()), (vec![1, 2, 3, 4], 3));
        assert_eq!(asked.take(), [vec![1], vec![1, 2], vec![1, 2, 3]], "it is not asked again");
        assert_eq!(until([after(2, Ok(2)), after(1, Ok(1))], |_| false).await.unwrap(), [1, 2]);
        let group = until([after(2, Err(2)), after(1, Ok(1)), after(5, Ok(5))], |done| done.len() == 2).await;
        assert_eq!(faults(group.unwrap_err()), [Fault::No(2)]);
    });
}

#[test]
fn until_that_is_cancelled() {
    run_virtual(async || {
        let ended = move_on_after(ms(5), until([after(1, Ok(1)), after(9, Ok(9))], |done| done.len() == 2)).await;
        assert!(ended.unwrap().is_none());
        // Enough had come when the rest was still ending.
        let slow = async {
            let ended = sleep_forever().await;
            shield(sleep(ms(10))).await?;
            Err(ended.unwrap_err().into())
        };
        type Boxed<'a> = std::pin::Pin<Box<dyn Future<Output = Result<u64, Fault>> + 'a>>;
        let branches: [Boxed<'_>; 2] = [Box::pin(after(1, Ok(1))), Box::pin(slow)];
        let ended = move_on_after(ms(5), until(branches, |_| true)).await;
        assert_eq!(ended.unwrap(), Some(vec![1]));
    });
}

// ---- stopped at every await ----------------------------------------------------------------------------------------

async fn world(which: usize, alive: &AtomicUsize, ended: &AtomicUsize) -> Result<(), ErrorGroup<Cancelled>> {
    let work = async |n: u64| {
        alive.fetch_add(1, Ordering::SeqCst);
        let _alive = OnDrop(ended);
        for _ in 0..n {
            sleep(ms(1)).await?;
        }
        let told = sleep(ms(n)).await;
        shield(yield_now()).await;
        told.map(|()| n)
    };
    match which {
        0 => drop(race((work(3), work(2), work(5))).await?),
        1 => drop(first_success((work(3), work(2), work(5))).await?),
        2 => drop(join((work(3), work(2), work(5))).await?),
        _ => drop(until([work(3), work(2), work(5)], |done| done.len() > 1).await?),
    }
    Ok(())
}

#[test]
fn stopped_at_every_await_nothing_is_left() {
    run_virtual(async || {
        for which in 0..4 {
            for cancel in [false, true] {
                for k in 0.. {
                    assert!(k < 200);
                    let (alive, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
                    let before = metrics();
                    let complete = if cancel {
                        let (result, cancelled) = cancel_at(k, world(which, &alive, &ended)).await;
                        assert!(result.is_ok(), "only its own cancellation");
                        !cancelled
                    } else {
                        drop_at(k, world(which, &alive, &ended)).await.is_some()
                    };
                    assert_eq!(metrics(), before, "{which} {cancel} {k}");
                    assert_eq!(alive.into_inner(), ended.into_inner(), "awaited, or dropped: {which} {cancel} {k}");
                    if complete {
                        assert!(k > 3);
                        break;
                    }
                }
            }
        }
    });
}

#[test]
fn dropped_before_it_is_polled() {
    run_virtual(async || {
        let dropped = AtomicUsize::new(0);
        let guard = OnDrop(&dropped);
        drop(race((
            async move {
                let _guard = guard;
                Ok::<_, Cancelled>(())
            },
            async { Ok(()) },
        )));
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
    });
}

// ---- against a sequential model ------------------------------------------------------------------------------------

/// A branch: when it ends by itself, how, and what it does when it is told before.
#[derive(Clone, Copy, Debug)]
struct Branch {
    at: u64,
    ok: bool,
    /// Its clean-up.
    takes: u64,
    then: Then,
}

#[derive(Clone, Copy, Debug)]
enum Then {
    Cancelled,
    Value,
    Error,
}

fn branch() -> impl Strategy<Value = Branch> {
    let then = prop_oneof![3 => Just(Then::Cancelled), 1 => Just(Then::Value), 1 => Just(Then::Error)];
    (1..6_u64, prop::bool::weighted(0.7), 0..4_u64, then).prop_map(|(at, ok, takes, then)| Branch {
        at,
        ok,
        takes,
        then,
    })
}

#[derive(Clone, Copy, Debug)]
enum Policy {
    Race,
    FirstSuccess,
    Join,
    Until(usize),
}

async fn play(index: u64, branch: Branch) -> Result<u64, Fault> {
    match sleep(ms(branch.at)).await {
        Ok(()) if branch.ok => Ok(index),
        Ok(()) => Err(Fault::No(index)),
        Err(cancelled) => {
            if branch.takes > 0 {
                shield(sleep(ms(branch.takes))).await?;
            }
            match branch.then {
                Then::Cancelled => Err(cancelled.into()),
                Then::Value => Ok(100 + index),
                Then::Error => Err(Fault::No(100 + index)),
            }
        }
    }
}

/// What is to come out: values and errors, sorted where the order among those told is left open; and when.
#[derive(Debug, PartialEq)]
struct Seen {
    /// The result, where there is one value.
    won: Option<u64>,
    values: Vec<u64>,
    errors: Vec<u64>,
    ms: u64,
}

fn model(policy: Policy, branches: &[Branch]) -> Seen {
    let mut order: Vec<usize> = (0..branches.len()).collect();
    order.sort_by_key(|&i| branches[i].at); // stable: a tie goes to the first
    let mut stop = None;
    let (mut values, mut errors) = (vec![], vec![]);
    let mut end = 0;
    for i in order {
        let (branch, index) = (branches[i], i as u64);
        match stop {
            Some(at) if branch.at > at => {
                end = end.max(at + branch.takes);
                match branch.then {
                    Then::Cancelled => {}
                    Then::Value => values.push(100 + index),
                    Then::Error => errors.push(100 + index),
                }
                continue;
            }
            _ if branch.ok => values.push(index),
            _ => errors.push(index),
        }
        end = end.max(branch.at);
        let stops = match policy {
            Policy::Race => true,
            Policy::FirstSuccess => branch.ok,
            Policy::Join => !branch.ok,
            Policy::Until(n) => !branch.ok || values.len() >= n,
        };
        if stops && stop.is_none() {
            stop = Some(branch.at);
        }
    }
    let first = values.first().copied();
    values.sort_unstable();
    errors.sort_unstable();
    let (won, values, errors) = match policy {
        Policy::Race if errors.is_empty() => (first, values, errors),
        Policy::Race => (None, values, errors),
        Policy::FirstSuccess if first.is_some() => (first, vec![], vec![]),
        Policy::FirstSuccess => (None, vec![], errors),
        Policy::Join | Policy::Until(_) if errors.is_empty() => (None, values, errors),
        Policy::Join | Policy::Until(_) => (None, vec![], errors),
    };
    Seen { won, values, errors, ms: end }
}

async fn real(policy: Policy, branches: &[Branch]) -> Seen {
    let trace = Trace::new();
    let plays: Vec<_> = branches.iter().enumerate().map(|(i, &branch)| play(i as u64, branch)).collect();
    let (mut won, mut values) = (None, vec![]);
    let result = match policy {
        Policy::Race => {
            let result = race_with(plays, |value| values.push(value)).await;
            result.map(|value| {
                won = Some(value);
                values.push(value);
            })
        }
        Policy::FirstSuccess => first_success(plays).await.map(|value| won = Some(value)),
        Policy::Join => join(plays).await.map(|all| values = all),
        Policy::Until(n) => until(plays, |done| done.len() >= n).await.map(|all| values = all),
    };
    let mut errors: Vec<u64> = result
        .err()
        .into_iter()
        .flatten()
        .map(|error| match error {
            Fault::No(n) => n,
            Fault::Cancelled(_) => panic!("nobody cancelled it"),
        })
        .collect();
    values.sort_unstable();
    errors.sort_unstable();
    Seen { won, values, errors, ms: trace.ms() as u64 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn n7_against_a_sequential_model(branches in prop::collection::vec(branch(), 1..7), n in 1..4_usize) {
        run_virtual(async || {
            for policy in [Policy::Race, Policy::FirstSuccess, Policy::Join, Policy::Until(n)] {
                assert_eq!(real(policy, &branches).await, model(policy, &branches), "{policy:?}");
            }
        });
    }
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
