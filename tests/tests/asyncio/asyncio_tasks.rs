//! `asyncio`: tasks, futures, their cancellation, and the loop. The rules are those of asyncio (C, R, O): `aio_c06_..` pins C6.

use crate::asyncio_support::{Fault, Is, Log, after, cleans_up, fails, outcome, program, task, turn, turns};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use trefoil::asyncio::{
    EventLoop, InvalidState, Task, TaskBuilder, all_tasks, call_at, call_later, call_soon, create_future, current_task,
    event_loop, gather, sleep,
};
use trefoil::{CancelAware, Cancelled, now, task_local};
use trefoil_tests::{ms, run_virtual};

#[test]
fn aio_a_loop_runs_main_and_leaves_nothing() {
    run_virtual(async || {
        let begin = now();
        let value = event_loop(async { task(after(5, 7)).await }).await;
        assert_eq!((value, now() - begin), (Ok(7), ms(5)));
    });
}

// Cancellation

#[test]
fn aio_c01_c02_c20_a_request_is_counted_and_one_that_is_done_refuses() {
    program(async |log| {
        let swallows = task(cleans_up(log.clone(), "a", 1, Ok(7)));
        turn().await?;
        assert!(swallows.cancel() && swallows.cancel());
        assert_eq!((swallows.cancelling(), (&swallows).await), (2, Ok(7)));
        assert!(!swallows.cancel());
        assert_eq!((swallows.cancelling(), swallows.cancelled()), (2, false));
        Ok(())
    });
}

#[test]
fn aio_c03_c05_what_a_task_waits_for_is_cancelled_with_it_for_all_who_wait() {
    program(async |_| {
        let (resolver, future) = create_future::<u8, Fault>();
        let waits = || {
            let future = future.clone();
            task(async move { (&future).await })
        };
        let (one, other) = (waits(), waits());
        turn().await?;
        one.cancel();
        assert!(future.cancelled() && resolver.is_cancelled());
        assert_eq!((one.await, other.await), (Err(Fault::Cancelled), Err(Fault::Cancelled)));
        Ok(())
    });
}

#[test]
fn aio_c04_a_task_that_is_awaited_is_asked_and_may_swallow_it() {
    program(async |log| {
        let inner = task(cleans_up(log.clone(), "inner", 1, Ok("inner")));
        let outer = task({
            let inner = inner.clone();
            async move { inner.await }
        });
        sleep(ms(1)).await?;
        outer.cancel();
        assert_eq!(((&outer).await, outer.cancelling(), outer.cancelled()), (Ok("inner"), 1, false));
        assert_eq!(inner.cancelling(), 1);
        Ok(())
    });
}

#[test]
fn aio_c06_a_task_cancelled_before_its_first_step_does_not_run() {
    program(async |_| {
        let task = task(async { unreachable!() as Is<()> });
        assert!(task.cancel());
        assert!((&task).await.is_err() && task.cancelled());
        Ok(())
    });
}

#[test]
fn aio_c07_c08_c15_two_before_it_is_told_are_one_and_one_after_interrupts_the_clean_up() {
    program(async |log| {
        let cleans = task({
            let log = log.clone();
            async move {
                log.note(format!("{:?}", sleep(ms(100)).await));
                log.note(format!("{:?}", sleep(ms(2)).await));
                log.note(format!("{:?}", sleep(ms(100)).await));
                Is::Ok(())
            }
        });
        sleep(ms(1)).await?;
        cleans.cancel();
        cleans.cancel_with("now");
        assert_eq!(cleans.handle().cancel_message().as_deref(), Some("now"));
        sleep(ms(5)).await?;
        cleans.cancel();
        cleans.await?;
        log.expect(["1 Err(Cancelled)", "3 Ok(())", "6 Err(Cancelled)"]);
        Ok(())
    });
}

#[test]
fn aio_c10_a_task_that_cancels_itself_and_returns_is_cancelled() {
    program(async |_| {
        let cancels = task(async {
            current_task().unwrap().cancel();
            Ok(1)
        });
        assert!((&cancels).await.is_err() && cancels.cancelled());
        Ok(())
    });
}

#[test]
fn aio_c11_an_error_outranks_a_cancel_that_was_not_told() {
    program(async |_| {
        let cancels = task(async {
            current_task().unwrap().cancel();
            Err::<(), _>(Fault::Named("no"))
        });
        assert_eq!((&cancels).await, Err(Fault::Named("no")));
        assert!(!cancels.cancelled());
        Ok(())
    });
}

#[test]
fn aio_c12_a_task_that_ends_with_a_cancellation_is_cancelled_whoever_made_it() {
    program(async |_| {
        let makes = task(async { Err::<(), _>(Fault::Cancelled) });
        assert!((&makes).await.is_err() && makes.cancelled());
        assert_eq!(makes.cancelling(), 0);
        Ok(())
    });
}

#[test]
fn aio_c13_a_request_that_is_taken_back_leaves_no_trace() {
    program(async |_| {
        let cancels = task(async {
            let this = current_task().unwrap();
            this.cancel();
            this.cancel();
            assert_eq!((this.uncancel(), this.uncancel(), this.uncancel()), (1, 0, 0));
            turn().await?;
            Ok(1)
        });
        assert_eq!(cancels.await, Ok(1));
        Ok(())
    });
}

#[test]
fn aio_c17_a_plain_future_is_cancelled_at_once_and_for_good() {
    program(async |_| {
        let (resolver, future) = create_future::<u8, Fault>();
        assert!(future.cancel() && future.cancelled() && !future.cancel());
        assert_eq!(resolver.set_result(1), Err(1));
        assert_eq!(future.await, Err(Fault::Cancelled));
        Ok(())
    });
}

#[test]
fn aio_c18_a_chain_unwinds_from_the_inside_a_turn_each() {
    program(async |log| {
        let mut last = task(after(100, ()));
        let mut tasks = vec![last.clone()];
        for n in 0..4 {
            let (inner, log) = (last, log.clone());
            last = task(async move {
                let ended = (&inner).await;
                log.note(n);
                ended
            });
            tasks.push(last.clone());
        }
        sleep(ms(1)).await?;
        last.cancel();
        for done in 0..5 {
            turn().await?;
            assert_eq!(tasks.iter().filter(|task| task.done()).count(), done + 1);
        }
        log.expect(["1 0", "1 1", "1 2", "1 3"]);
        Ok(())
    });
}

#[test]
#[should_panic(expected = "awaits itself")]
fn aio_c19_a_task_that_awaits_itself_is_a_bug() {
    program(async |_| {
        let slot = Rc::new(RefCell::new(None::<Task<(), Fault>>));
        let itself = task({
            let slot = slot.clone();
            async move {
                let this = slot.take().unwrap();
                this.await
            }
        });
        slot.replace(Some(itself.clone()));
        itself.await
    });
}

#[test]
fn aio_several_waits_of_one_task_are_all_told() {
    program(async |_| {
        let both = task(async {
            let (one, other) = futures::join!(sleep(ms(100)), trefoil::sleep(ms(100)));
            assert!(one.is_err() && other.is_err());
            sleep(ms(1)).await?;
            trefoil::sleep(ms(1)).await?;
            Is::Ok(())
        });
        sleep(ms(1)).await?;
        both.cancel();
        both.await
    });
}

#[test]
fn aio_a_wait_that_is_dropped_is_forgotten() {
    program(async |_| {
        let slow = task(after(50, ()));
        let selects = task({
            let slow = slow.clone();
            async move {
                let mut wait = Box::pin(std::future::IntoFuture::into_future(&slow));
                assert!(futures::poll!(&mut wait).is_pending());
                drop(wait);
                sleep(ms(1)).await?;
                Is::Ok(())
            }
        });
        turns(2).await?;
        selects.cancel();
        assert_eq!((selects.await, slow.cancelling()), (Err(Fault::Cancelled), 0));
        Ok(())
    });
}

// Futures

#[test]
fn aio_d5_a_future_whose_resolver_is_gone_ends_the_wait() {
    program(async |_| {
        let (resolver, future) = create_future::<u8, Fault>();
        let waits = task({
            let future = future.clone();
            async move { future.await }
        });
        turns(2).await?;
        drop(resolver);
        assert_eq!(waits.await, Err(Fault::Abandoned));
        Ok(())
    });
}

#[test]
fn aio_futures_tell_their_state() {
    program(async |_| {
        let (resolver, future) = create_future::<String, Fault>();
        assert_eq!((future.done(), future.result()), (false, Err(InvalidState::NotDone)));
        let called = Rc::new(Cell::new(0));
        let note = |n: i32| {
            let called = called.clone();
            move |future: trefoil::asyncio::Future<String, Fault>| {
                assert!(future.done());
                called.set(called.get() * 10 + n);
            }
        };
        future.add_done_callback(note(1));
        let removed = future.add_done_callback(note(2));
        future.add_done_callback(note(3));
        assert!(future.remove_done_callback(removed) && !future.remove_done_callback(removed));
        resolver.set_result("here".into()).unwrap();
        assert_eq!(called.get(), 0);
        turn().await?;
        assert_eq!(called.get(), 13);
        future.add_done_callback(note(4));
        turn().await?;
        assert_eq!(called.get(), 134);
        assert_eq!(future.look(|result| result.as_ref().map(String::len).ok()), Ok(Some(4)));
        assert_eq!(future.take(), Ok(Ok("here".into())));
        assert_eq!(future.take(), Err(InvalidState::Taken));
        Ok(())
    });
}

// The loop

#[test]
fn aio_o01_o02_callbacks_are_first_in_first_out_and_follow_ups_come_in_the_next_turn() {
    program(async |log| {
        let note = |what: &'static str| {
            let log = log.clone();
            move || log.note(what)
        };
        call_later(Duration::ZERO, note("timer"));
        let (a, a2) = (note("a"), note("a2"));
        call_soon(move || {
            a();
            call_soon(a2);
        });
        call_soon(note("b"));
        sleep(ms(1)).await?;
        log.expect(["0 a", "0 b", "0 timer", "0 a2"]);
        Ok(())
    });
}

#[test]
fn aio_o02_a_timer_that_is_due_waits_for_the_next_turn_also_if_others_are_run_now() {
    program(async |log| {
        let inner = log.clone();
        call_later(ms(1), move || {
            inner.note("first");
            let (zero, soon) = (inner.clone(), inner.clone());
            call_later(Duration::ZERO, move || zero.note("zero"));
            call_soon(move || soon.note("soon"));
        });
        let second = log.clone();
        call_later(ms(1), move || second.note("second"));
        sleep(ms(2)).await?;
        log.expect(["1 first", "1 second", "1 soon", "1 zero"]);
        Ok(())
    });
}

#[test]
fn aio_o02_past_times_sort_by_time() {
    program(async |log| {
        let note = |what: &'static str| {
            let log = log.clone();
            move || log.note(what)
        };
        call_at(now(), note("now"));
        call_at(now() - ms(1), note("before"));
        call_at(now() - ms(2), note("long before"));
        turns(3).await?;
        log.expect(["0 long before", "0 before", "0 now"]);
        Ok(())
    });
}

#[test]
fn aio_o08_cancelled_calls_are_not_made_and_many_of_them_are_no_burden() {
    program(async |log| {
        let called = Rc::new(Cell::new(0));
        let dropped = Rc::new(());
        let calls: Vec<_> = (0..1000)
            .map(|n| {
                let (called, dropped) = (called.clone(), dropped.clone());
                call_later(ms(1 + n % 10), move || {
                    called.set(called.get() + 1);
                    drop(dropped);
                })
            })
            .collect();
        let soon = call_soon(|| unreachable!());
        soon.cancel();
        for (n, call) in calls.iter().enumerate() {
            if n % 100 != 0 {
                call.cancel();
                assert!(call.cancelled());
            }
        }
        assert_eq!(Rc::strong_count(&dropped), 11);
        sleep(ms(20)).await?;
        assert_eq!((called.get(), Rc::strong_count(&dropped), log.ms()), (10, 1, 20));
        Ok(())
    });
}

#[test]
fn aio_r02_r03_what_is_left_over_is_cancelled_once_and_awaited() {
    let left = Rc::new(RefCell::new(None::<Log>));
    let seen = left.clone();
    let ended = outcome(async move |log| {
        seen.replace(Some(log.clone()));
        drop(task(cleans_up(log.clone(), "a", 5, Err::<(), _>(Fault::Named("reported")))));
        drop(task({
            let log = log.clone();
            async move {
                assert!(sleep(ms(1000)).await.is_err());
                // One that is made while the loop ends is told as well.
                drop(task(cleans_up(log, "late", 1, Is::Ok(()))));
                Is::Ok(())
            }
        }));
        turn().await?;
        Ok("main")
    });
    assert_eq!(ended, Ok("main"));
    let lines = left.take().unwrap().lines();
    assert!(lines.contains(&"5 a ends".to_string()) && lines[0] == "0 a told", "{lines:?}");
}

#[test]
#[should_panic(expected = "a callback's")]
fn aio_o04_a_panic_of_a_callback_ends_the_loop_when_all_have_ended() {
    let ended = outcome(async |log| {
        call_soon(|| panic!("a callback's"));
        let told = cleans_up(log, "main", 5, Is::Ok(())).await;
        assert!(told.is_ok());
        told
    });
    unreachable!("{ended:?}");
}

#[test]
fn aio_r06_context_variables_are_those_of_who_creates() {
    task_local!(static WHO: &'static str);
    program(async |_| {
        assert!(WHO.try_with(|_| ()).is_err());
        let seen = Rc::new(RefCell::new(Vec::new()));
        let note = |what: &'static str| {
            let seen = seen.clone();
            move || seen.borrow_mut().push((what, WHO.try_with(|who| *who).ok()))
        };
        let (later, soon, done, inner) = (note("later"), note("soon"), note("done"), note("task"));
        WHO.scope("a", async move {
            call_later(ms(1), later);
            call_soon(soon);
            let child = task(async move {
                inner();
                turn().await?;
                Ok(WHO.get())
            });
            child.add_done_callback(move |_| done());
            assert_eq!(child.await, Ok("a"));
            Is::Ok(())
        })
        .await?;
        sleep(ms(5)).await?;
        let all = Some("a");
        assert_eq!(*seen.borrow(), [("soon", all), ("task", all), ("done", all), ("later", all)]);
        Ok(())
    });
}

#[test]
fn aio_tasks_have_names_and_are_counted() {
    program(async |_| {
        assert_eq!(&*current_task().unwrap().name(), "Task-1");
        let named = TaskBuilder::new().name("named").create_task(after(1, ()));
        let plain = task(after(1, ()));
        assert_eq!((&*named.name(), &*plain.name()), ("named", "Task-3"));
        plain.set_name("other");
        let names: Vec<_> = all_tasks().iter().map(|task| task.name().to_string()).collect();
        assert_eq!(names, ["Task-1", "named", "other"]);
        assert_eq!(plain.handle(), all_tasks()[2]);
        gather([named, plain]).await?;
        assert_eq!(all_tasks().len(), 1);
        call_soon(|| assert!(current_task().is_none()));
        turn().await
    });
}

// Eager start

#[test]
fn aio_eg01_eg02_eg05_the_first_step_is_made_at_once_in_a_task_of_its_own() {
    program(async |_| {
        let main = current_task();
        let eager = TaskBuilder::new().eager_start(true).create_task(async move {
            assert!(current_task() != main && all_tasks().contains(&current_task().unwrap()));
            Is::Ok(1)
        });
        assert!(eager.done() && current_task() != Some(eager.handle()));
        assert_eq!((eager.await, all_tasks().len()), (Ok(1), 1));
        Ok(())
    });
}

#[test]
fn aio_eg03_one_that_waits_goes_on_as_any() {
    program(async |log| {
        let eager = |time: u64| {
            let log = log.clone();
            TaskBuilder::new().eager_start(true).create_task(async move {
                log.note("begins");
                sleep(ms(time)).await?;
                trefoil::sleep(ms(1)).await?;
                log.note("ends");
                Is::Ok(())
            })
        };
        let (one, two, cancelled) = (eager(0), eager(3), eager(5));
        log.note("created");
        cancelled.cancel();
        assert_eq!((one.await, two.await, cancelled.await), (Ok(()), Ok(()), Err(Fault::Cancelled)));
        log.expect(["0 begins", "0 begins", "0 begins", "0 created", "1 ends", "4 ends"]);
        Ok(())
    });
}

#[test]
fn aio_eg04_errors_are_stored() {
    program(async |_| {
        let eager = TaskBuilder::new().eager_start(true).create_task(async { Err::<(), _>(Fault::Named("no")) });
        assert_eq!(eager.await, Err(Fault::Named("no")));
        Ok(())
    });
}

// More than one turn's worth

#[test]
fn aio_many_tasks_at_once() {
    program(async |_| {
        let all = gather((0..5000).map(|n| async move {
            turns(2).await?;
            Is::Ok(n)
        }));
        assert!(all.await?.into_iter().eq(0..5000));
        Ok(())
    });
}

#[test]
fn aio_a_loop_that_is_dropped_takes_its_tasks_along() {
    run_virtual(async || {
        let dropped = Rc::new(());
        {
            let held = dropped.clone();
            let mut half = Box::pin(event_loop(async move {
                let inner = held.clone();
                drop(task(async move {
                    let _inner = inner;
                    after(100, ()).await
                }));
                let _held = held;
                call_later(ms(100), || ());
                after(100, ()).await
            }));
            for _ in 0..5 {
                assert!(futures::poll!(&mut half).is_pending());
                trefoil::yield_now().await;
            }
        }
        assert_eq!(Rc::strong_count(&dropped), 1);
        let ended = event_loop(fails(1, "another")).await;
        assert!(ended.is_err_and(|error: Fault| !error.is_cancelled()));
        let _: Result<(), Cancelled> = event_loop(sleep(ms(1))).await;
    });
}

#[test]
fn aio_r06_a_loop_runs_several_mains_and_keeps_what_they_leave() {
    run_virtual(async || {
        let mut several = EventLoop::new();
        let ticks = Rc::new(Cell::new(0));
        let seen = ticks.clone();
        let left = several.run_until_complete(async move {
            Is::Ok(task(async move {
                loop {
                    after(10, ()).await?;
                    seen.set(seen.get() + 1);
                }
                #[allow(unreachable_code)]
                Is::Ok(())
            }))
        });
        let left = left.await.unwrap();
        assert_eq!(several.run_until_complete(after(25, "b")).await, Ok("b"));
        assert_eq!((ticks.get(), left.done()), (2, false));
        // Time that passes between two runs counts.
        trefoil::sleep(ms(100)).await.unwrap();
        assert_eq!(ticks.get(), 2);
        assert_eq!(several.run_until_complete(fails(1, "c")).await, Err(Fault::Named("c")));
        assert_eq!(ticks.get(), 3);
        several.close().await;
        assert!(left.cancelled());
        EventLoop::new().close().await;
    });
}

#[test]
fn aio_d3_an_error_that_nobody_looked_at_is_reported_once_with_name_and_place() {
    let reports = trefoil_tests::Log::default();
    run_virtual(async || {
        reports.lines().clear();
        event_loop(async {
            let seen = task(fails(1, "seen"));
            let dropped = TaskBuilder::new().name("lonely").create_task(fails(2, "lost"));
            // Of two errors a gather gives the first (G7).
            assert!(gather([&seen, &dropped]).await.is_err());
            drop((seen, dropped));
            sleep(ms(5)).await?;
            Is::Ok(())
        })
        .await
        .unwrap();
        let reports = reports.lines();
        assert_eq!(reports.len(), 1, "{reports:?}");
        assert!(
            reports[0].contains("lonely") && reports[0].contains("lost") && reports[0].contains("asyncio_tasks.rs")
        );
    });
}

#[test]
fn aio_o05_a_handler_is_told_of_errors_that_nobody_looks_at_and_may_panic() {
    use trefoil::asyncio::{Unhandled, exception_handler, set_exception_handler};
    program(async |_| {
        assert!(exception_handler().is_none());
        let told = Rc::new(RefCell::new(Vec::new()));
        let tell = told.clone();
        set_exception_handler(Some(Rc::new(move |unhandled: &Unhandled<'_>| {
            let name = unhandled.task.as_ref().map(|task| task.name().to_string());
            tell.borrow_mut().push((name, format!("{:?}", unhandled.error)));
            assert!(tell.borrow().len() < 2, "a broken handler");
        })));
        drop(TaskBuilder::new().name("unseen").create_task(fails(1, "one")));
        drop(task(fails(2, "two")));
        let seen = task(fails(3, "three"));
        assert!(seen.await.is_err());
        let told = told.take();
        assert_eq!(told[0], (Some("unseen".into()), "Named(\"one\")".into()));
        assert_eq!((told.len(), told[1].1.as_str()), (2, "Named(\"two\")"));
        Ok(())
    });
}
