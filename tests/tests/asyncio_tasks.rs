//! `asyncio`: tasks, futures, their cancellation, and the loop. The rules are those of asyncio (C, R, O): `aio_c06_..` pins C6.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use trefoil::asyncio::{self, create_task, current_task, event_loop, sleep};
use trefoil::{Cancelled, now};
use trefoil_tests::{ms, run_virtual};

type Log = Rc<RefCell<Vec<String>>>;

fn note(log: &Log, what: impl Into<String>) {
    log.borrow_mut().push(what.into());
}

#[test]
fn aio_a_loop_runs_main_and_leaves_nothing() {
    run_virtual(async || {
        let begin = now();
        let value = event_loop(async {
            let task = create_task(async {
                sleep(ms(5)).await?;
                Ok::<_, Cancelled>(7)
            });
            task.await
        })
        .await;
        assert_eq!((value, now() - begin), (Ok(7), ms(5)));
    });
}

#[test]
fn aio_o01_callbacks_are_first_in_first_out_and_follow_ups_come_in_the_next_turn() {
    run_virtual(async || {
        let log = Log::default();
        let l = log.clone();
        event_loop(async move {
            let (a, b, t) = (l.clone(), l.clone(), l.clone());
            asyncio::call_later(Duration::ZERO, move || note(&t, "timer"));
            asyncio::call_soon(move || {
                note(&a, "a");
                let follow_up = a.clone();
                asyncio::call_soon(move || note(&follow_up, "a2"));
            });
            asyncio::call_soon(move || note(&b, "b"));
            sleep(ms(1)).await
        })
        .await
        .unwrap();
        assert_eq!(*log.borrow(), ["a", "b", "timer", "a2"]);
    });
}

#[test]
fn aio_c06_a_task_cancelled_before_its_first_step_does_not_run() {
    run_virtual(async || {
        event_loop(async {
            let task = create_task(async { unreachable!() as Result<(), Cancelled> });
            assert!(task.cancel());
            assert!((&task).await.is_err() && task.cancelled());
            assert!(!task.cancel());
            Ok::<_, Cancelled>(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn aio_c08_a_cancel_is_delivered_once() {
    run_virtual(async || {
        event_loop(async {
            let task = create_task(async {
                assert!(sleep(ms(10)).await.is_err());
                sleep(ms(10)).await?;
                Ok::<_, Cancelled>("went on")
            });
            sleep(ms(1)).await?;
            task.cancel();
            assert_eq!((&task).await, Ok("went on"));
            assert_eq!(task.cancelling(), 1);
            Ok::<_, Cancelled>(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn aio_c10_a_task_that_cancels_itself_and_returns_is_cancelled() {
    run_virtual(async || {
        event_loop(async {
            let task = create_task(async {
                current_task().unwrap().cancel();
                Ok::<_, Cancelled>(1)
            });
            assert!((&task).await.is_err() && task.cancelled());
            Ok::<_, Cancelled>(())
        })
        .await
        .unwrap();
    });
}
