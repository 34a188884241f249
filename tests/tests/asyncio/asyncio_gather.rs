//! `asyncio::gather`, `wait`, `as_completed` and `shield`, by their rules (G, W, A, S).

use crate::asyncio_support::{Fault, Is, after, cleans_up, fails, outcome, program, task, turn, turns};
use std::cell::Cell;
use std::rc::Rc;
use trefoil::asyncio::{When, as_completed, create_future, gather, gather_settled, shield, sleep, wait};
use trefoil_tests::ms;

#[test]
fn aio_g01_results_are_in_the_order_of_the_arguments() {
    program(async |log| {
        let all = gather([after(3, "a"), after(1, "b"), after(2, "c")]).await?;
        assert_eq!((all, log.ms()), (vec!["a", "b", "c"], 3));
        Ok(())
    });
}

#[test]
fn aio_g01_different_types_come_as_a_tuple() {
    program(async |log| {
        let ready = task(after(0, 'x'));
        let all = gather!(after(3, "a"), after(1, 5), &ready, ready.clone()).await?;
        assert_eq!((all, log.ms()), (("a", 5, 'x', 'x'), 3));
        let failed = gather!(after(3, 1), fails(2, "no")).await;
        assert_eq!((failed, log.ms()), (Err(Fault::Named("no")), 5));
        Ok(())
    });
}

#[test]
fn aio_g03_one_that_is_given_twice_counts_once() {
    program(async |_| {
        let one = task(after(1, 1));
        assert_eq!(gather([&one, &one, &one]).await?, [1, 1, 1]);
        Ok(())
    });
}

#[test]
fn aio_g04_of_none_there_is_nothing_to_wait_for() {
    program(async |_| {
        let none = gather(Vec::<trefoil::asyncio::Task<u8, Fault>>::new());
        assert!(none.done());
        assert!(none.await?.is_empty());
        Ok(())
    });
}

#[test]
fn aio_g05_g06_the_first_error_comes_at_once_and_the_others_go_on() {
    program(async |log| {
        let (slow, quick) = (task(after(5, "slow")), task(fails(2, "quick")));
        assert_eq!(gather([&slow, &quick]).await, Err(Fault::Named("quick")));
        assert_eq!(log.ms(), 2);
        assert_eq!((slow.await?, log.ms()), ("slow", 5));
        Ok(())
    });
}

#[test]
fn aio_g07_d3_a_later_error_is_not_looked_at_and_is_still_there() {
    program(async |_| {
        let (late, early) = (task(fails(2, "late")), task(fails(1, "early")));
        assert_eq!(gather([&early, &late]).await, Err(Fault::Named("early")));
        sleep(ms(5)).await?;
        assert_eq!(late.await, Err(Fault::Named("late")));
        Ok(())
    });
}

#[test]
fn aio_g08_errors_can_be_values_and_so_can_a_cancelled_child() {
    program(async |_| {
        let cancelled = task(after(5, "never"));
        let all = gather_settled([task(fails(1, "no")), task(after(2, "yes")), cancelled.clone()]);
        turn().await?;
        cancelled.cancel();
        assert_eq!(all.await?, [Err(Fault::Named("no")), Ok("yes"), Err(Fault::Cancelled)]);
        Ok(())
    });
}

#[test]
fn aio_g09_a_cancelled_child_is_an_error_and_does_not_cancel_the_gather() {
    program(async |_| {
        let (one, other) = (task(after(5, 1)), task(after(6, 2)));
        let all = gather([&one, &other]);
        turn().await?;
        one.cancel();
        assert_eq!((&all).await, Err(Fault::Cancelled));
        assert!(all.done() && !all.cancelled() && !other.done());
        Ok(())
    });
}

#[test]
fn aio_g10_a_cancel_of_the_task_that_awaits_reaches_all_children() {
    program(async |_| {
        let children = [task(after(5, 1)), task(after(6, 2))];
        let waits = task({
            let children = children.clone();
            async move { gather(&children).await }
        });
        turns(2).await?;
        assert!(waits.cancel());
        assert_eq!((&waits).await, Err(Fault::Cancelled));
        assert!(waits.cancelled() && children.iter().all(|child| child.cancelled()));
        Ok(())
    });
}

#[test]
fn aio_g11_a_cancelled_gather_of_settled_ones_ends_when_all_have() {
    program(async |log| {
        let all =
            gather_settled([task(cleans_up(log.clone(), "a", 3, Ok(1))), task(cleans_up(log.clone(), "b", 1, Ok(2)))]);
        sleep(ms(1)).await?;
        assert!(all.cancel());
        assert_eq!(all.await, Err(Fault::Cancelled));
        log.expect(["1 a told", "1 b told", "2 b ends", "4 a ends"]);
        Ok(())
    });
}

#[test]
fn aio_g12_a_cancelled_gather_ends_with_the_first_child_that_is_cancelled() {
    program(async |log| {
        let slow = task(cleans_up(log.clone(), "slow", 3, Ok(1)));
        let all = gather([slow.clone(), task(after(9, 2))]);
        sleep(ms(1)).await?;
        all.cancel();
        assert_eq!((all.await, log.ms()), (Err(Fault::Cancelled), 1));
        assert_eq!((slow.await, log.ms()), (Ok(1), 4));
        Ok(())
    });
}

#[test]
fn aio_g13_an_error_of_a_clean_up_takes_the_place_of_the_cancellation() {
    program(async |log| {
        let all = gather([task(cleans_up(log.clone(), "a", 0, Err::<(), _>(Fault::Named("worse"))))]);
        sleep(ms(1)).await?;
        all.cancel();
        assert_eq!(all.await, Err(Fault::Named("worse")));
        Ok(())
    });
}

#[test]
fn aio_g14_a_gather_that_is_done_cannot_be_cancelled() {
    program(async |_| {
        let (failed, goes_on) = (task(fails(1, "no")), task(after(3, "yes")));
        let all = gather([&failed, &goes_on]);
        assert!((&all).await.is_err());
        assert!(!all.cancel());
        assert_eq!(goes_on.await?, "yes");
        Ok(())
    });
}

#[test]
fn aio_g15_a_child_of_two_is_cancelled_for_both() {
    program(async |_| {
        let shared = task(after(5, 1));
        let (one, other) = (gather([&shared]), gather([&shared]));
        turn().await?;
        one.cancel();
        assert_eq!((other.await, one.await), (Err(Fault::Cancelled), Err(Fault::Cancelled)));
        Ok(())
    });
}

#[test]
fn aio_g16_a_cancel_in_the_turn_of_the_result_is_delivered() {
    program(async |_| {
        let (resolver, future) = create_future::<u8, Fault>();
        let waits = task({
            let future = future.clone();
            async move { (&future).await }
        });
        turns(2).await?;
        resolver.set_result(7).unwrap();
        waits.cancel();
        assert_eq!(waits.await, Err(Fault::Cancelled));
        assert_eq!(future.result(), Ok(Ok(7)));
        Ok(())
    });
}

#[test]
fn aio_g18_where_all_are_done_it_is_done_at_once() {
    program(async |_| {
        let one = task(after(0, 1));
        turns(3).await?;
        let all = gather([one]);
        assert!(all.done());
        Ok(())
    });
}

#[test]
#[should_panic(expected = "nothing to wait for")]
fn aio_w01_there_must_be_something_to_wait_for() {
    let nothing = outcome(async |_| {
        let none: [trefoil::asyncio::Task<u8, Fault>; 0] = [];
        Ok(wait(none, When::AllCompleted, None).await?.done.len())
    });
    unreachable!("{nothing:?}");
}

#[test]
fn aio_w02_w03_all_are_waited_for_once_and_errors_stay_in_them() {
    program(async |log| {
        let (a, b) = (task(fails(1, "a")), task(after(3, "b")));
        let waited = wait([&a, &b, &a], When::AllCompleted, None).await?;
        assert_eq!((waited.done.len(), waited.pending.len(), log.ms()), (2, 0, 3));
        assert_eq!(a.await, Err(Fault::Named("a")));
        Ok(())
    });
}

#[test]
fn aio_w04_several_may_be_done_with_the_first() {
    program(async |log| {
        let tasks = [task(after(1, 1)), task(after(1, 2)), task(after(5, 3))];
        let waited = wait(&tasks, When::FirstCompleted, None).await?;
        assert_eq!((waited.done.len(), waited.pending.len(), log.ms()), (2, 1, 1));
        Ok(())
    });
}

#[test]
fn aio_w05_one_that_was_cancelled_is_no_exception() {
    program(async |log| {
        let tasks = [task(after(9, "cancelled")), task(fails(3, "no")), task(after(9, "late"))];
        turn().await?;
        tasks[0].cancel();
        let waited = wait(&tasks, When::FirstException, None).await?;
        assert_eq!((waited.done.len(), waited.pending.len(), log.ms()), (2, 1, 3));
        assert_eq!(tasks[1].result(), Ok(Err(Fault::Named("no"))));
        Ok(())
    });
}

#[test]
fn aio_w06_w07_a_timeout_cancels_nothing_and_without_time_a_turn_is_left() {
    program(async |log| {
        let tasks = [task(after(0, 1)), task(after(9, 2))];
        let waited = wait(&tasks, When::AllCompleted, ms(3)).await?;
        assert_eq!((waited.done.len(), waited.pending.len(), log.ms()), (1, 1, 3));
        assert_eq!(tasks[1].cancelling(), 0);
        let quick = [task(async { Is::Ok(1) })];
        let waited = wait(&quick, When::AllCompleted, ms(0)).await?;
        assert_eq!(waited.done.len(), 1);
        Ok(())
    });
}

#[test]
fn aio_w08_where_all_are_done_it_gives_up_the_turn() {
    program(async |log| {
        let done = task(async { Is::Ok(1) });
        turns(2).await?;
        let other = task({
            let log = log.clone();
            async move {
                log.note("other");
                Ok(())
            }
        });
        _ = wait([done], When::AllCompleted, None).await?;
        log.note("waited");
        log.expect(["0 other", "0 waited"]);
        other.await
    });
}

#[test]
fn aio_w09_w10_a_cancelled_wait_leaves_them_alone() {
    program(async |_| {
        let goes_on = task(after(5, 1));
        let waits = task({
            let goes_on = goes_on.clone();
            async move { Ok(wait([goes_on], When::AllCompleted, ms(100)).await?.done.len()) }
        });
        turns(2).await?;
        waits.cancel();
        assert_eq!(waits.await, Err(Fault::Cancelled));
        assert_eq!(goes_on.await?, 1);
        Ok(())
    });
}

#[test]
fn aio_a01_a07_results_come_in_order_and_an_error_ends_nothing() {
    program(async |log| {
        let mut results = as_completed([task(after(3, "c")), task(fails(2, "b")), task(after(1, "a"))], None);
        assert_eq!(results.len(), 3);
        assert_eq!(results.next().await, Some(Ok("a")));
        assert_eq!(results.next().await, Some(Err(Fault::Named("b"))));
        assert_eq!(results.next().await, Some(Ok("c")));
        assert_eq!((results.next().await, log.ms()), (None, 3));
        Ok(())
    });
}

#[test]
fn aio_a01_it_is_a_stream() {
    program(async |_| {
        use futures::StreamExt;
        let results: Vec<_> = as_completed([2, 1].map(|n| after(n, n)), None).collect().await;
        assert_eq!(results, [Ok(1), Ok(2)]);
        Ok(())
    });
}

#[test]
fn aio_a03_the_futures_that_were_given_come_out() {
    program(async |_| {
        let tasks = [task(after(2, 2)), task(after(1, 1))];
        let mut done = as_completed(&tasks, None);
        assert!(done.next_done().await.unwrap()?.is(&tasks[1]));
        assert!(done.next_done().await.unwrap()?.is(&tasks[0]));
        Ok(())
    });
}

#[test]
fn aio_a04_after_the_timeout_each_one_that_is_left_is_late_and_goes_on() {
    program(async |log| {
        let slow = [task(after(5, 1)), task(after(6, 2))];
        let mut results = as_completed([slow[0].clone(), slow[1].clone(), task(after(1, 0))], ms(3));
        assert_eq!(results.next().await, Some(Ok(0)));
        assert_eq!(results.next().await, Some(Err(Fault::TimedOut)));
        assert_eq!(results.next().await, Some(Err(Fault::TimedOut)));
        assert_eq!((results.next().await, log.ms()), (None, 3));
        let [one, other] = slow;
        assert_eq!((one.await, other.await), (Ok(1), Ok(2)));
        Ok(())
    });
}

#[test]
fn aio_a05_a06_who_leaves_early_leaves_the_rest_running() {
    program(async |_| {
        let slow = task(after(5, 1));
        let mut results = as_completed([&slow, &slow, &task(after(1, 0))], ms(50));
        assert_eq!(results.len(), 2);
        assert_eq!(results.next().await, Some(Ok(0)));
        drop(results);
        assert_eq!(slow.await?, 1);
        Ok(())
    });
}

#[test]
fn aio_a08_a_cancel_of_the_consumer_does_not_cancel_them() {
    program(async |_| {
        let slow = task(after(5, 1));
        let consumer = task({
            let slow = slow.clone();
            async move {
                let mut results = as_completed([slow], None);
                assert_eq!(results.next().await, Some(Err(Fault::Cancelled)));
                assert!(results.is_empty());
                Ok(())
            }
        });
        turns(2).await?;
        consumer.cancel();
        consumer.await?;
        assert_eq!(slow.await?, 1);
        Ok(())
    });
}

#[test]
fn aio_s01_what_is_shielded_goes_on() {
    program(async |log| {
        let inner = task(after(5, "inner"));
        let waits = task({
            let inner = inner.clone();
            async move { shield(inner).await }
        });
        turns(2).await?;
        waits.cancel();
        assert_eq!((waits.await, log.ms()), (Err(Fault::Cancelled), 0));
        assert_eq!((inner.await, log.ms()), (Ok("inner"), 5));
        Ok(())
    });
}

#[test]
fn aio_s02_a_cancel_of_the_inner_one_cancels_the_shield() {
    program(async |_| {
        let inner = task(after(5, 1));
        let outer = shield(&inner);
        turn().await?;
        inner.cancel();
        assert_eq!((&outer).await, Err(Fault::Cancelled));
        assert!(outer.cancelled());
        Ok(())
    });
}

#[test]
fn aio_s03_s04_results_and_errors_come_through() {
    program(async |_| {
        assert_eq!(shield(after(1, 1)).await, Ok(1));
        assert_eq!(shield(fails(1, "no")).await, Err(Fault::Named("no")));
        let done = task(after(0, 1));
        turns(3).await?;
        let outer = shield(&done);
        assert!(outer.done());
        assert_eq!((outer.await, done.await), (Ok(1), Ok(1)));
        Ok(())
    });
}

#[test]
fn aio_s05_an_error_after_the_cancel_has_an_owner_still() {
    program(async |_| {
        let inner = task(fails(3, "late"));
        let outer = shield(inner.clone());
        turn().await?;
        outer.cancel();
        assert!(outer.cancelled() && !inner.done());
        sleep(ms(5)).await?;
        assert_eq!(inner.await, Err(Fault::Named("late")));
        Ok(())
    });
}

#[test]
fn aio_s07_the_end_of_the_loop_cancels_it_directly() {
    let told = Rc::new(Cell::new(false));
    let note = told.clone();
    let ended = outcome(async move |_| {
        let note = note.clone();
        drop(shield(async move {
            note.set(sleep(ms(1000)).await.is_err());
            Is::Ok(())
        }));
        turn().await
    });
    assert_eq!((ended, told.get()), (Ok(()), true));
}
