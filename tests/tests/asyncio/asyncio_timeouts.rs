//! `asyncio::timeout`, `timeout_at` and `wait_for`, by their rules (T, F).

use crate::asyncio_support::{Fault, Is, after, cleans_up, fails, program, task, turn, turns};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use trefoil::asyncio::{
    NotActive, TaskGroup, Timeout, create_future, current_task, shield, sleep, task_group, timeout, timeout_at,
    wait_for,
};
use trefoil::now;
use trefoil_tests::ms;

#[test]
fn aio_t02_t03_at_the_deadline_the_task_is_cancelled_once_and_it_times_out() {
    program(async |log| {
        let seen = Rc::new(RefCell::new(None));
        let keep = seen.clone();
        let late = timeout(ms(3), async move |timeout: Timeout| {
            *keep.borrow_mut() = Some(timeout.clone());
            assert!(!timeout.expired());
            assert_eq!(sleep(ms(100)).await.map_err(Fault::from), Err(Fault::Cancelled));
            assert!(timeout.expired());
            sleep(ms(2)).await?;
            Err::<(), _>(Fault::Cancelled)
        })
        .await;
        assert_eq!((late, log.ms()), (Err(Fault::TimedOut), 5));
        assert!(seen.take().unwrap().expired());
        assert_eq!(current_task().unwrap().cancelling(), 0);
        Ok(())
    });
}

#[test]
fn aio_t04_another_cancel_goes_on_out() {
    program(async |_| {
        let waits = task(timeout(ms(3), async |_| {
            if sleep(ms(100)).await.is_err() {
                sleep(ms(5)).await?;
            }
            Is::Ok(())
        }));
        sleep(ms(4)).await?;
        waits.cancel();
        assert_eq!((&waits).await, Err(Fault::Cancelled));
        assert!(waits.cancelled());
        assert_eq!(waits.cancelling(), 1);
        Ok(())
    });
}

#[test]
fn aio_t05_another_error_comes_through() {
    program(async |_| {
        let late = timeout(ms(1), async |_| {
            _ = sleep(ms(100)).await;
            Err::<(), _>(Fault::Named("worse"))
        });
        assert_eq!(late.await, Err(Fault::Named("worse")));
        assert_eq!(current_task().unwrap().cancelling(), 0);
        Ok(())
    });
}

#[test]
fn aio_t06_what_is_swallowed_is_swallowed() {
    program(async |_| {
        let late = timeout(ms(1), async |timeout: Timeout| {
            _ = sleep(ms(100)).await;
            Is::Ok(timeout)
        });
        assert!(late.await?.expired());
        assert_eq!(current_task().unwrap().cancelling(), 0);
        turn().await
    });
}

#[test]
fn aio_t07_a_cancel_before_the_deadline_is_none_of_it() {
    program(async |_| {
        let waits = task(timeout(ms(10), async |_| after(100, ()).await));
        sleep(ms(1)).await?;
        waits.cancel();
        assert_eq!(waits.await, Err(Fault::Cancelled));
        Ok(())
    });
}

#[test]
fn aio_t08_of_two_the_earlier_one_expires_and_of_equal_ones_the_outer() {
    program(async |log| {
        let outer = timeout(ms(1), async |_| timeout(ms(5), async |_| after(100, ()).await).await).await;
        assert_eq!((outer, log.ms()), (Err(Fault::TimedOut), 1));
        let inner = timeout(ms(5), async |_| {
            let inner = timeout(ms(1), async |_| after(100, ()).await).await;
            assert_eq!(inner, Err(Fault::TimedOut));
            Is::Ok("outer went on")
        });
        assert_eq!(inner.await, Ok("outer went on"));
        let when = now() + ms(3);
        let both = timeout_at(when, async |outer: Timeout| {
            let seen = RefCell::new(None);
            let inner = timeout_at(when, async |inner: Timeout| {
                seen.replace(Some(inner));
                after(100, ()).await
            });
            assert_eq!(inner.await, Err(Fault::Cancelled));
            assert!(outer.expired() && seen.take().unwrap().expired());
            Err::<(), _>(Fault::Cancelled)
        });
        assert_eq!(both.await, Err(Fault::TimedOut));
        Ok(())
    });
}

#[test]
fn aio_t09_it_is_moved_while_it_is_active_and_not_after() {
    program(async |log| {
        let timed = timeout(ms(1), async |timeout: Timeout| {
            timeout.reschedule(now() + ms(5)).unwrap();
            assert_eq!(timeout.when(), Some(now() + ms(5)));
            sleep(ms(3)).await?;
            timeout.reschedule(None).unwrap();
            sleep(ms(10)).await?;
            Is::Ok(timeout)
        });
        let timed = timed.await?;
        assert_eq!((log.ms(), timed.expired()), (13, false));
        assert_eq!(timed.reschedule(None), Err(NotActive::Finished));
        let expired = timeout(ms(1), async |timeout: Timeout| {
            _ = sleep(ms(100)).await;
            assert_eq!(timeout.reschedule(None), Err(NotActive::Expired));
            Is::Ok(timeout)
        });
        assert_eq!(expired.await?.reschedule(None), Err(NotActive::Expired));
        Ok(())
    });
}

#[test]
fn aio_t11_one_that_is_past_expires_at_the_next_turn_and_not_in_code_that_does_not_wait() {
    program(async |_| {
        assert_eq!(timeout(ms(0), async |_| turn().await).await, Err(Fault::TimedOut));
        let past = timeout_at(now() - ms(5), async |_| turn().await);
        assert_eq!(past.await, Err(Fault::TimedOut));
        assert_eq!(timeout(ms(0), async |_| Is::Ok(1)).await, Ok(1));
        turn().await
    });
}

#[test]
fn aio_t13_none_never_expires() {
    program(async |log| {
        assert_eq!(timeout(None, async |_| after(1000, log.ms()).await).await, Ok(0));
        Ok(())
    });
}

#[test]
fn aio_t15_a_cancel_from_before_is_not_of_the_timeout() {
    program(async |_| {
        let waits = task(async {
            current_task().unwrap().cancel();
            let ended = timeout(ms(5), async |_| after(100, ()).await).await;
            assert_eq!(ended, Err(Fault::Cancelled));
            Is::Ok("went on")
        });
        assert_eq!(waits.await, Ok("went on"));
        Ok(())
    });
}

#[test]
fn aio_t16_nothing_comes_after_it() {
    program(async |_| {
        timeout(ms(2), async |_| after(1, ()).await).await?;
        drop(Box::pin(timeout(ms(2), async |_| after(1, ()).await)));
        // One that is dropped half way.
        let mut half = Box::pin(timeout(ms(2), async |_| after(100, ()).await));
        let polled = futures::poll!(&mut half);
        assert!(polled.is_pending());
        drop(half);
        after(10, ()).await
    });
}

#[test]
#[should_panic(expected = "is for a task")]
fn aio_t01_it_is_for_a_task() {
    program(async |_| {
        let mut outside = Some(Box::pin(timeout(ms(1), async |_| Is::Ok(()))));
        trefoil::asyncio::call_soon(move || {
            use futures::FutureExt;
            _ = outside.take().unwrap().now_or_never();
        });
        after(1, ()).await
    });
}

#[test]
fn aio_f01_without_a_time_it_waits() {
    program(async |log| {
        assert_eq!((wait_for(after(100, 1), None).await, log.ms()), (Ok(1), 100));
        Ok(())
    });
}

#[test]
fn aio_f02_without_any_time_nothing_is_begun_and_what_is_done_is_there() {
    program(async |_| {
        let begun = Rc::new(Cell::new(false));
        let note = begun.clone();
        let never = wait_for(
            async move {
                note.set(true);
                Is::Ok(())
            },
            ms(0),
        );
        assert_eq!((never.await, begun.get()), (Err(Fault::TimedOut), false));
        let done = task(async { Is::Ok(1) });
        turns(2).await?;
        assert_eq!(wait_for(done, ms(0)).await, Ok(1));
        let runs = task(after(5, 1));
        assert_eq!(wait_for(&runs, ms(0)).await, Err(Fault::TimedOut));
        assert!(runs.cancelled());
        Ok(())
    });
}

#[test]
fn aio_f03_async_code_runs_in_the_task_that_calls() {
    program(async |_| {
        let this = current_task();
        wait_for(
            async move {
                assert_eq!(current_task(), this);
                Is::Ok(())
            },
            ms(5),
        )
        .await
    });
}

#[test]
fn aio_f04_what_is_cancelled_is_awaited_to_its_end() {
    program(async |log| {
        let slow = task(cleans_up(log.clone(), "slow", 5, Err::<(), _>(Fault::Cancelled)));
        assert_eq!((wait_for(slow, ms(2)).await, log.ms()), (Err(Fault::TimedOut), 7));
        log.expect(["2 slow told", "7 slow ends"]);
        Ok(())
    });
}

#[test]
fn aio_f05_f06_what_it_makes_of_the_cancel_comes_out() {
    program(async |log| {
        let value = task(cleans_up(log.clone(), "a", 1, Ok("value")));
        assert_eq!(wait_for(value, ms(2)).await, Ok("value"));
        let worse = task(cleans_up(log.clone(), "b", 1, Err::<(), _>(Fault::Named("worse"))));
        assert_eq!(wait_for(worse, ms(2)).await, Err(Fault::Named("worse")));
        assert_eq!(current_task().unwrap().cancelling(), 0);
        Ok(())
    });
}

#[test]
fn aio_f07_f12_cancels_of_the_caller_reach_it() {
    program(async |log| {
        let inner = task(cleans_up(log.clone(), "inner", 50, Is::Ok(())));
        let caller = task({
            let inner = inner.clone();
            async move { wait_for(inner, ms(3)).await }
        });
        // The timeout tells it at 3, and the caller's cancel interrupts its clean-up at 5 (F12).
        sleep(ms(5)).await?;
        caller.cancel();
        assert_eq!((caller.await, log.ms()), (Err(Fault::Cancelled), 5));
        assert!(inner.cancelled());
        Ok(())
    });
}

#[test]
fn aio_f08_a_cancel_in_the_turn_of_the_end_leaves_the_result_in_the_task() {
    program(async |_| {
        let (resolver, future) = create_future::<u8, Fault>();
        let caller = task({
            let future = future.clone();
            async move { wait_for(&future, ms(9)).await }
        });
        turns(2).await?;
        resolver.set_result(1).unwrap();
        caller.cancel();
        assert_eq!((caller.await, future.result()), (Err(Fault::Cancelled), Ok(Ok(1))));
        Ok(())
    });
}

#[test]
fn aio_f10_f11_a_shield_keeps_it_and_without_one_it_is_cancelled_for_all() {
    program(async |log| {
        let kept = task(after(5, "kept"));
        assert_eq!(wait_for(shield(&kept), ms(1)).await, Err(Fault::TimedOut));
        assert_eq!((kept.await, log.ms()), (Ok("kept"), 5));
        let (resolver, future) = create_future::<u8, Fault>();
        let other = task({
            let future = future.clone();
            async move { future.await }
        });
        assert_eq!(wait_for(&future, ms(1)).await, Err(Fault::TimedOut));
        assert_eq!((other.await, resolver.is_cancelled()), (Err(Fault::Cancelled), true));
        assert_eq!(resolver.set_result(1), Err(1));
        Ok(())
    });
}

#[test]
fn aio_k19_a_child_that_fails_while_a_timeout_cancels_its_group_is_what_comes_out() {
    program(async |_| {
        let ended = timeout(ms(1), async |_| {
            let ended = task_group(async |group: TaskGroup<Fault>| {
                group.create_task(async {
                    _ = sleep(ms(100)).await;
                    fails(0, "no").await
                })?;
                after(100, ()).await
            });
            Ok::<(), Fault>(ended.await?)
        });
        assert_eq!(ended.await, Err(Fault::Group(vec![Fault::Named("no")])));
        Ok(())
    });
}
