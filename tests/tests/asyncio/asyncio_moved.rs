//! Waits of `asyncio` that begin in one task and go on in another, and groups that are left half way: nobody is left waiting, and no error is
//! lost.

use crate::asyncio_support::{Fault, Is, program, turn};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::Poll;
use trefoil::asyncio::{self, create_future, create_task, sleep};
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
