//! Waits of `asyncio` as the core sees them: in the report of a program that cannot go on (N10), in the tree, and under scopes of the core
//! that are cancelled around them (N13).

use crate::asyncio_support::{Fault, Is, program, task, turn, turns};
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use trefoil::asyncio::{
    self, Condition, Event, Lock, Queue, Semaphore, Task, TaskBuilder, create_future, event_loop, gather, sleep,
    task_group,
};
use trefoil::{
    CancelScope, Cancelled, Deadlock, Detection, Reason, channel, fail_after, local_nursery, move_on_after, tree,
};
use trefoil_runtime::Options;
use trefoil_tests::{deadlocks, ms, run_virtual};

/// The report of a loop of asyncio that cannot go on, on each driver.
fn reports(main: impl AsyncFn() -> Is<()> + Clone + 'static) -> Vec<Deadlock> {
    let options = Options { deadlock: Detection::After(ms(1)), ..Options::default() };
    let found = deadlocks(options, async || {
        let main = main.clone();
        event_loop(async move { main().await }).await
    });
    assert!(!found.is_empty());
    found
}

fn line(place: &Location<'_>) -> u32 {
    assert!(place.file().ends_with("asyncio_waits.rs"), "{place}");
    place.line()
}

/// What the task of that name waits for, and where.
#[track_caller]
fn waits(report: &Deadlock, name: &str) -> (Reason, u32) {
    let named = report.tasks().iter().find(|task| task.name() == Some(name));
    let task = named.unwrap_or_else(|| panic!("there is no {name} in: {report}"));
    let [wait] = task.waits() else { panic!("{task:?}") };
    (wait.reason(), line(wait.place()))
}

fn named<T: 'static>(name: &str, body: impl Future<Output = Is<T>> + 'static) -> Task<T, Fault> {
    TaskBuilder::new().name(name).create_task(body)
}

#[test]
fn n10_l4_two_locks_crossed() {
    let base = line!();
    for report in reports(async || {
        let (left, right) = (Rc::new(Lock::new()), Rc::new(Lock::new()));
        let (first, second) = (left.clone(), right.clone());
        let one = named("one", async move {
            let _first = first.acquire().await?;
            turn().await?;
            drop(second.acquire().await?); // base + 7
            Ok(())
        });
        let two = named("two", async move {
            let _right = right.acquire().await?;
            turn().await?;
            drop(left.acquire().await?); // base + 13
            Ok(())
        });
        gather([one, two]).await.map(drop)
    }) {
        assert_eq!(waits(&report, "one"), (Reason::Lock, base + 7), "{report}");
        assert_eq!(waits(&report, "two"), (Reason::Lock, base + 13), "{report}");
        assert!(report.to_string().contains("several tasks or futures of asyncio"), "{report}");
    }
}

#[test]
fn n10_q14_a_queue_whose_producers_are_gone() {
    let base = line!();
    for report in reports(async || {
        let queue = Rc::new(Queue::new(1));
        let puts = queue.clone();
        named("producer", async move { puts.put(1).await.map_err(|_| Fault::Cancelled) });
        let gets = named("consumer", async move {
            loop {
                queue.get().await.map_err(|_| Fault::Cancelled)?; // base + 7
            }
        });
        gets.await
    }) {
        assert_eq!(waits(&report, "consumer"), (Reason::Custom("an item of a queue"), base + 7), "{report}");
    }
}

#[test]
fn n10_tasks_that_await_each_other() {
    for report in reports(async || {
        let slot: Rc<std::cell::RefCell<Option<Task<(), Fault>>>> = Rc::default();
        let other = slot.clone();
        let one = named("one", async move {
            let other = other.borrow().clone().unwrap();
            other.await
        });
        let first = one.clone();
        let two = named("two", async move { first.await });
        *slot.borrow_mut() = Some(two);
        one.await
    }) {
        let cycles: Vec<_> = report.cycles().collect();
        assert_eq!(cycles.len(), 1, "{report}");
        let mut names: Vec<_> = cycles[0].iter().filter_map(|task| task.name()).collect();
        names.sort_unstable();
        assert_eq!(names, ["one", "two"], "{report}");
        assert_eq!(waits(&report, "two").0, Reason::Join);
    }
}

#[test]
fn n10_every_wait_has_its_reason_in_the_tree() {
    program(async |_| {
        let base = line!();
        let (lock, event, permits) = (Lock::new(), Event::new(), Semaphore::new(0));
        let condition = Condition::default();
        let _held = lock.acquire().await?;
        let (_resolver, future) = create_future::<(), Fault>();
        let all = local_nursery(async |n| -> Result<(), Fault> {
            n.spawn(async { Ok(lock.acquire().await.map(drop)?) });
            n.spawn(async { Ok(event.wait().await?) });
            n.spawn(async { Ok(permits.acquire().await.map(drop)?) });
            n.spawn(async { Ok(condition.acquire().await?.wait().await.1?) });
            n.spawn(async { Ok(sleep(ms(5)).await?) });
            n.spawn(async { (&future).await });
            turns(2).await?;
            let tree = tree().to_string();
            for reason in [Reason::Lock, Reason::Permits, Reason::Custom("a future of asyncio")] {
                assert!(tree.contains(&format!("waits for {reason} at asyncio_waits.rs")), "{reason}: {tree}");
            }
            for (reason, made) in [(Reason::Event, base + 1), (Reason::Condition, base + 2)] {
                let waits = format!("waits for {reason} (made at asyncio_waits.rs:{made}) at asyncio_waits.rs");
                assert!(tree.contains(&waits), "{reason}: {tree}");
            }
            assert!(tree.contains("sleeps at asyncio_waits.rs"), "{tree}");
            n.cancel();
            Ok(())
        })
        .await;
        assert!(all.is_ok(), "{all:?}");
        Ok(())
    });
}

#[test]
fn n13_a_scope_of_the_core_tells_waits_of_asyncio() {
    program(async |log| {
        let (told, event) = (Rc::new(std::cell::Cell::new(0)), Rc::new(Event::new()));
        let count = told.clone();
        let slow = task({
            let event = event.clone();
            async move { Ok(event.wait().await?) }
        });
        let awaited = slow.clone();
        let late = move_on_after(ms(5), async {
            let ended = awaited.await;
            count.set(count.get() + 1);
            // Each wait of a cancelled scope is told, as those of the core are (R1).
            assert!(sleep(ms(1)).await.is_err() && turn().await.is_ok());
            count.set(count.get() + 1);
            ended
        })
        .await?;
        assert!(late.is_none());
        assert_eq!((told.get(), log.ms()), (2, 5));
        // The task that was awaited is another's, and goes on; nobody has cancelled us.
        assert_eq!((slow.done(), asyncio::current_task().unwrap().cancelling()), (false, 0));
        event.set();
        slow.await?;
        assert_eq!(fail_after(ms(5), async { Ok::<_, Fault>(sleep(ms(9)).await?) }).await, Err(Fault::TimedOut));
        Ok(())
    });
}

#[test]
fn n13_l8_k12_what_must_end_first_does_so_in_a_cancelled_scope() {
    program(async |log| {
        let condition = Rc::new(Condition::new());
        let holder = condition.clone();
        let cancelled = move_on_after(ms(5), async {
            let guard = condition.acquire().await?;
            task(async move {
                let _held = holder.acquire().await?;
                Ok(sleep(ms(20)).await?)
            });
            let (_held, ended) = guard.wait().await;
            log.note("has the lock again");
            Ok::<_, Fault>(ended?)
        })
        .await?;
        assert!(cancelled.is_none() && !condition.locked());
        let slow = log.clone();
        let left = move_on_after(ms(5), async {
            let ended = task_group(async |group| {
                group.create_task(crate::asyncio_support::cleans_up(slow, "child", 3, Ok(())))?;
                Ok::<_, Fault>(())
            })
            .await;
            log.note("the group has ended");
            ended.map_err(Fault::from)
        })
        .await?;
        assert!(left.is_none());
        log.expect(["20 has the lock again", "25 child told", "28 child ends", "28 the group has ended"]);
        Ok(())
    });
}

#[test]
fn c03_c04_a_cancel_is_told_once_where_waits_of_both_kinds_go_on_at_once() {
    program(async |_| {
        let (sender, receiver) = channel::<u8>(1);
        let both = task(async move {
            let event = Event::new();
            let mut ended = Vec::new();
            {
                let (mut core, mut waits) = (pin!(receiver.recv()), pin!(event.wait()));
                let (mut core_done, mut waits_done) = (false, false);
                poll_fn(|cx| {
                    if !core_done && let Poll::Ready(end) = core.as_mut().poll(cx) {
                        core_done = true;
                        ended.push(end.is_err());
                    }
                    if !waits_done && let Poll::Ready(end) = waits.as_mut().poll(cx) {
                        waits_done = true;
                        ended.push(end.is_err());
                    }
                    if core_done && waits_done { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
            }
            // C8: it may wait again.
            sleep(ms(1)).await?;
            trefoil::sleep(ms(1)).await?;
            Ok(ended)
        });
        sleep(ms(1)).await?;
        both.cancel();
        assert_eq!(both.await, Ok(vec![true, true]));
        drop(sender);
        Ok(())
    });
}

#[test]
fn n13_a_cancel_for_good_that_comes_while_one_is_told_once_is_not_lost() {
    program(async |_| {
        let scope = CancelScope::new();
        let (cancels, never) = (scope.clone(), Rc::new(Event::new()));
        let waits = task(async move {
            let mut told = 0;
            let in_scope = scope.run(async {
                // A wait of each kind: the cancel of the task is for both, and ends the core's first.
                let slow = never.clone();
                let shielded = asyncio::shield(async move { Ok::<_, Fault>(slow.wait().await?) });
                let (first, second) = {
                    let (mut core, mut waits) = (pin!(trefoil::sleep_forever()), pin!(shielded.into_future()));
                    let mut ends = (None, None);
                    poll_fn(|cx| {
                        if ends.0.is_none()
                            && let Poll::Ready(end) = core.as_mut().poll(cx)
                        {
                            ends.0 = Some(end.is_err());
                        }
                        if ends.1.is_none()
                            && let Poll::Ready(end) = waits.as_mut().poll(cx)
                        {
                            ends.1 = Some(end.is_err());
                        }
                        if let (Some(a), Some(b)) = ends { Poll::Ready((a, b)) } else { Poll::Pending }
                    })
                    .await
                };
                assert!(first && second);
                told += 1;
                never.wait().await
            });
            let ended = in_scope.await;
            assert!(ended.is_ok_and(|ended| ended.is_none()));
            assert_eq!(told, 1);
            Ok(())
        });
        sleep(ms(1)).await?;
        waits.cancel();
        cancels.cancel();
        waits.await
    });
}

#[test]
fn n13_a_loop_in_a_cancelled_scope_that_swallows_each_cancellation_ends() {
    run_virtual(async || {
        let ended = event_loop(async {
            let late = move_on_after(ms(1), async {
                let lock = Lock::new();
                let _held = lock.acquire().await?;
                loop {
                    let _ = lock.acquire().await;
                }
                #[allow(unreachable_code)]
                Ok::<(), Cancelled>(())
            });
            late.await
        })
        .await;
        assert_eq!(ended, Ok(None));
    });
}
