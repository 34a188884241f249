//! Waits of the core inside of a task of `asyncio`: `Task.cancel` ends them, once (C3, C8, D-1).

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::task::Poll;
use trefoil::asyncio::{
    Lock, Semaphore, Task, TaskBuilder, create_task, current_task, event_loop, sleep, task_group, timeout,
};
use trefoil::{CancelScope, Cancelled, Event, channel, local_nursery, move_on_after, shield};
use trefoil_runtime::Options;
use trefoil_tests::{Ended, deadlocks, ms, run_virtual};

/// Runs a program of asyncio.
fn program(main: impl AsyncFn() -> Ended + Clone + 'static) {
    run_virtual(async || {
        let main = main.clone();
        event_loop(async move { main().await }).await.unwrap();
    });
}

/// Lets a task begin to wait.
async fn begun<T: 'static>(task: &Task<T>) -> Ended {
    sleep(ms(1)).await?;
    assert!(!task.done());
    Ok(())
}

#[test]
fn aio_c03_a_cancel_ends_a_wait_of_the_core() {
    program(async || {
        let task = create_task(async { trefoil::sleep_forever().await });
        begun(&task).await?;
        assert!(task.cancel());
        assert!((&task).await.is_err() && task.cancelled());
        Ok(())
    });
}

#[test]
fn aio_c08_after_that_the_task_may_wait_again_in_the_same_step() {
    program(async || {
        let task = create_task(async {
            assert!(trefoil::sleep(ms(100)).await.is_err());
            trefoil::sleep(ms(1)).await?;
            trefoil::checkpoint().await?;
            assert!(move_on_after(ms(1), trefoil::sleep(ms(5))).await?.is_none());
            sleep(ms(1)).await?;
            Ok::<_, Cancelled>("cleaned up")
        });
        begun(&task).await?;
        task.cancel();
        assert_eq!((&task).await, Ok("cleaned up"));
        assert_eq!(task.cancelling(), 1);
        Ok(())
    });
}

#[test]
fn aio_c08_a_task_may_swallow_any_number_of_cancels() {
    program(async || {
        let count = Rc::new(Cell::new(0));
        let swallows = create_task({
            let count = count.clone();
            async move {
                while count.get() < 2500 {
                    if trefoil::sleep_forever().await.is_err() {
                        count.set(count.get() + 1);
                    }
                }
                Ok::<_, Cancelled>(())
            }
        });
        begun(&swallows).await?;
        while !swallows.done() {
            swallows.cancel();
            sleep(ms(0)).await?;
        }
        assert_eq!(count.get(), 2500);
        swallows.await
    });
}

#[test]
fn aio_c06_a_cancel_before_the_wait_is_delivered_at_it() {
    program(async || {
        let task = create_task(async {
            current_task().unwrap().cancel();
            let late = trefoil::sleep(ms(50)).await;
            assert!(late.is_err());
            trefoil::sleep(ms(50)).await?;
            Ok::<_, Cancelled>(1)
        });
        assert_eq!(task.await?, 1);
        Ok(())
    });
}

#[test]
fn aio_c13_a_cancel_that_is_taken_back_is_not_delivered() {
    program(async || {
        let task = create_task(async {
            // A scope of the core is there already.
            trefoil::sleep(ms(1)).await?;
            let this = current_task().unwrap();
            this.cancel();
            assert_eq!(this.uncancel(), 0);
            trefoil::sleep(ms(1)).await?;
            sleep(ms(1)).await
        });
        task.await
    });
}

#[test]
fn aio_d1_a_value_that_is_there_is_delivered_and_the_cancel_is_told_to_the_next_wait() {
    program(async || {
        let (sender, receiver) = channel::<u8>(1);
        let task = create_task(async move {
            let receiver = receiver;
            let value = receiver.recv().await;
            assert_eq!(value, Ok(Some(7)));
            assert!(trefoil::sleep(ms(1)).await.is_err());
            trefoil::sleep(ms(1)).await?;
            Ok::<_, Cancelled>(())
        });
        begun(&task).await?;
        sender.try_send(7).unwrap();
        task.cancel();
        task.await
    });
}

#[test]
fn aio_d1_the_next_wait_may_be_one_of_asyncio() {
    program(async || {
        let event = Rc::new(Event::new());
        let task = create_task({
            let event = event.clone();
            async move {
                event.wait().await?;
                assert!(sleep(ms(1)).await.is_err());
                sleep(ms(1)).await?;
                Ok::<_, Cancelled>(())
            }
        });
        begun(&task).await?;
        event.set();
        task.cancel();
        task.await
    });
}

#[test]
fn aio_c03_scopes_of_the_core_in_between_do_not_absorb_it() {
    program(async || {
        let task = create_task(async {
            let scope = CancelScope::new();
            let ended = scope.run(move_on_after(ms(1000), trefoil::sleep_forever())).await;
            assert!(ended.is_err() && !scope.cancelled_caught() && !scope.cancel_called());
            trefoil::sleep(ms(1)).await?;
            Ok::<_, Cancelled>(())
        });
        begun(&task).await?;
        task.cancel();
        task.await
    });
}

#[test]
fn aio_c03_a_nursery_of_the_core_ends_with_it() {
    program(async || {
        let ended = Rc::new(Cell::new(0));
        let task = create_task({
            let ended = ended.clone();
            async move {
                let group = local_nursery(async |n| -> Ended {
                    for _ in 0..3 {
                        n.spawn(async {
                            let told = trefoil::sleep_forever().await;
                            ended.set(ended.get() + 1);
                            told
                        });
                    }
                    trefoil::sleep_forever().await
                })
                .await;
                assert!(group.is_err());
                trefoil::sleep(ms(1)).await
            }
        });
        begun(&task).await?;
        task.cancel();
        (&task).await?;
        assert_eq!(ended.get(), 3);
        Ok(())
    });
}

#[test]
fn aio_c03_a_shield_of_the_core_holds_it_off_and_it_is_told_after() {
    program(async || {
        let task = create_task(async {
            assert_eq!(shield(trefoil::sleep(ms(10))).await, Ok(()));
            assert!(trefoil::sleep(ms(10)).await.is_err());
            Ok::<_, Cancelled>("shielded")
        });
        begun(&task).await?;
        task.cancel();
        assert_eq!(task.await?, "shielded");
        Ok(())
    });
}

#[test]
fn aio_n13_a_task_that_waits_for_nothing_known_is_dropped_when_it_is_cancelled() {
    program(async || {
        let dropped = Rc::new(Cell::new(false));
        struct Sets(Rc<Cell<bool>>);
        impl Drop for Sets {
            fn drop(&mut self) {
                self.0.set(true);
            }
        }
        for core_first in [false, true] {
            dropped.set(false);
            let sets = Sets(dropped.clone());
            let task = create_task(async move {
                let _sets = sets;
                if core_first {
                    trefoil::sleep(ms(0)).await?;
                    trefoil::sleep(ms(0)).await?;
                    move_on_after(ms(0), trefoil::sleep_forever()).await?;
                }
                pending::<Ended>().await
            });
            begun(&task).await?;
            task.cancel();
            assert!((&task).await.is_err() && task.cancelled() && dropped.get());
        }
        Ok(())
    });
}

#[test]
fn aio_n13_one_that_was_woken_is_not() {
    program(async || {
        let task = create_task(async {
            for _ in 0..10 {
                // A foreign yield.
                let mut first = true;
                poll_fn(|cx| {
                    cx.waker().wake_by_ref();
                    if std::mem::take(&mut first) { Poll::Pending } else { Poll::Ready(()) }
                })
                .await;
            }
            Ok::<_, Cancelled>("yields")
        });
        sleep(ms(0)).await?;
        task.cancel();
        // C10: it did not wait any more.
        assert!((&task).await.is_err());
        Ok(())
    });
}

#[test]
fn aio_t02_a_timeout_ends_a_wait_of_the_core() {
    program(async || {
        let late = timeout(ms(5), async |_| trefoil::sleep_forever().await).await;
        assert!(matches!(late, Err(trefoil::CancelledOrTimedOut::TimedOut(_))));
        trefoil::sleep(ms(1)).await
    });
}

#[test]
fn aio_k03_a_failing_sibling_ends_a_wait_of_the_core() {
    run_virtual(async || {
        event_loop(async {
            let ended = task_group(async |group: trefoil::asyncio::TaskGroup<std::io::Error>| {
                group.create_task(async { Ok(trefoil::sleep_forever().await?) })?;
                group.create_task(async {
                    trefoil::sleep(ms(1)).await?;
                    Err::<(), _>(std::io::Error::other("no"))
                })?;
                trefoil::sleep_forever().await?;
                Ok(())
            })
            .await;
            assert_eq!(ended.unwrap_err().len(), 1);
            trefoil::sleep(ms(1)).await
        })
        .await
        .unwrap();
    });
}

#[test]
fn aio_r05_a_cancel_of_the_scope_around_the_loop_cancels_main_once() {
    run_virtual(async || {
        let ended = move_on_after(
            ms(5),
            event_loop(async {
                assert!(trefoil::sleep_forever().await.is_err());
                trefoil::sleep(ms(1)).await?;
                sleep(ms(1)).await?;
                Err::<(), _>(Cancelled::delivered())
            }),
        )
        .await;
        assert_eq!(ended, Ok(None));
    });
}

// ---- What the core says of asyncio's tasks -------------------------------------------------------------------------

/// N10: two locks, in different order. The core knows who holds them, and calls tasks as asyncio does.
#[test]
fn n10_locks_of_asyncio_name_their_holders() {
    let options = Options { virtual_time: true, cycles_end: true, ..Options::default() };
    for report in deadlocks(options, async || {
        event_loop(async {
            let locks = Rc::new((Lock::new(), Semaphore::new(1)));
            let (one, two) = (locks.clone(), locks.clone());
            let first = create_task(async move {
                let _left = one.0.acquire().await?;
                sleep(ms(1)).await?;
                one.1.acquire().await.map(drop)
            });
            let second = TaskBuilder::new().name("right first").create_task(async move {
                let _right = two.1.acquire().await?;
                sleep(ms(2)).await?;
                two.0.acquire().await.map(drop)
            });
            while !first.done() {
                sleep(ms(100)).await?;
            }
            second.await
        })
        .await
        .is_err()
    }) {
        let text = report.to_string();
        let [cycle] = &report.cycles().collect::<Vec<_>>()[..] else { panic!("{text}") };
        let names: Vec<_> = cycle.iter().map(|task| task.name().unwrap()).collect();
        assert!(names.contains(&"Task-2") && names.contains(&"right first"), "{text}");
        let (first, second) = (text.find("task `Task-2` ("), text.find("held by task `right first` ("));
        assert!(first.is_some() && second.is_some(), "{text}");
        assert!(text.contains("holds a lock (") && text.contains("holds a permit ("), "{text}");
    }
}

/// As in Python another task may release: where one has, or a guard was forgotten for that, it is nobody's fault that a task waits.
#[test]
fn n10_what_others_release_is_no_cycle() {
    program(async || {
        let lock = Rc::new(Lock::new());
        let own = lock.clone();
        let waits = create_task(async move {
            own.acquire().await?.forget();
            own.acquire().await.map(drop)
        });
        sleep(ms(100_000)).await?;
        lock.release().unwrap();
        waits.await
    });
}
