//! Waits of `asyncio` that begin in one task and go on in another, and groups that are left half way: nobody is left waiting, and no error is
//! lost.

use crate::asyncio_support::{Fault, Is, program, turn};
use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::Poll;
use trefoil::asyncio::{self, create_future, create_task, sleep, task_group};
use trefoil_tests::{ms, run_virtual};

type Wait = Pin<Box<dyn std::future::Future<Output = Is<()>>>>;

/// Polls a wait once.
async fn begin(wait: &mut Wait) {
    poll_fn(|cx| {
        assert!(wait.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

/// What is told to the exception handler from now on.
fn reports() -> Rc<RefCell<Vec<String>>> {
    let told = Rc::new(RefCell::new(Vec::new()));
    let tell = told.clone();
    asyncio::set_exception_handler(Some(Rc::new(move |unhandled: &asyncio::Unhandled<'_>| {
        tell.borrow_mut().push(format!("{:?}", unhandled.error));
    })));
    told
}

#[test]
fn aio_c03_a_wait_that_was_begun_by_another_task_is_cancelled_with_that_which_goes_on_with_it() {
    program(async |_| {
        let (_resolver, future) = create_future::<(), Fault>();
        let mut wait: Wait = Box::pin(async move { future.await });
        begin(&mut wait).await;
        let other = create_task(wait);
        turn().await?;
        assert!(other.cancel());
        assert_eq!(other.await, Err(Fault::Cancelled));
        // And not with that which began it.
        Ok(())
    });
}

#[test]
fn aio_c09_a_wait_that_was_begun_by_another_task_leaves_that_its_cancel() {
    program(async |_| {
        let (resolver, future) = create_future::<(), Fault>();
        let mut wait: Wait = Box::pin(async move { future.await });
        begin(&mut wait).await;
        let other = create_task(wait);
        turn().await?;
        asyncio::current_task().unwrap().cancel();
        resolver.set_result(()).unwrap();
        // It has its value, and this task is told at its next wait.
        let told = sleep(ms(1)).await.map_err(Fault::from);
        assert_eq!(told, Err(Fault::Cancelled));
        assert_eq!(other.await, Ok(()));
        Ok(())
    });
}

#[test]
fn aio_o10_d9_a_thread_is_waited_for_by_a_task_that_goes_on_with_a_wait_of_another() {
    run_virtual(async || {
        asyncio::event_loop(async {
            let ((begun, has_begun), (go, waits)) = (mpsc::channel(), mpsc::channel::<()>());
            let function = move || {
                begun.send(()).unwrap();
                waits.recv().unwrap();
                Ok::<_, Fault>(())
            };
            let mut wait: Wait = Box::pin(asyncio::to_thread(function));
            begin(&mut wait).await;
            has_begun.recv().unwrap();
            let other = create_task(async move {
                wait.await?;
                sleep(ms(1000)).await?;
                Ok::<_, Fault>(())
            });
            turn().await?;
            assert!(other.cancel());
            turn().await?;
            turn().await?;
            assert!(!other.done());
            go.send(()).unwrap();
            assert_eq!(other.await, Err(Fault::Cancelled));
            Ok::<_, Fault>(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn aio_k03_the_error_of_a_task_whose_group_was_left_half_way_is_reported() {
    program(async |_| {
        let told = reports();
        let mut group: Wait = Box::pin(async {
            task_group(async |group: asyncio::TaskGroup<Fault>| {
                group.create_task(async {
                    let _ = sleep(ms(1000)).await;
                    Err::<(), _>(Fault::Named("clean-up"))
                })?;
                sleep(ms(1000)).await?;
                Ok(())
            })
            .await?;
            Ok(())
        });
        begin(&mut group).await;
        turn().await?;
        drop(group);
        turn().await?;
        turn().await?;
        turn().await?;
        assert_eq!(*told.borrow(), [r#"Named("clean-up")"#]);
        Ok(())
    });
}

#[test]
fn aio_k05_errors_that_a_group_had_when_it_was_left_half_way_are_reported() {
    program(async |_| {
        let told = reports();
        let group = create_task(async {
            let mut group: Wait = Box::pin(async {
                task_group(async |group: asyncio::TaskGroup<Fault>| {
                    group.create_task(async { Err::<(), _>(Fault::Named("first")) })?;
                    group.create_task(async {
                        while sleep(ms(1000)).await.is_err() {}
                        Ok(())
                    })?;
                    let _ = sleep(ms(1000)).await;
                    Err::<(), _>(Fault::Named("body"))
                })
                .await?;
                Ok(())
            });
            for _ in 0..6 {
                begin(&mut group).await;
                // The group cancels this task.
                let _ = turn().await;
            }
            Ok::<_, Fault>(())
        });
        group.await?;
        assert_eq!(*told.borrow(), [r#"Named("first")"#, r#"Named("body")"#]);
        Ok(())
    });
}
