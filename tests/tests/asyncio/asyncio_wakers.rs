//! What code of others may do while a future of `asyncio` is done or looked at: a waker may panic, and a look may take. The rest are told, and
//! nothing is lost.

use crate::asyncio_support::{Fault, program, turn};
use std::cell::Cell;
use std::future::Future as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Wake, Waker};
use trefoil::asyncio::{self, create_future, create_task, sleep};
use trefoil_tests::{ms, panic_of, run_real, run_virtual};

/// A waker of a combinator whose wake panics.
struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker panicked");
    }
}

#[test]
fn a_waker_that_panics_keeps_nobody_from_being_told_that_a_future_is_done() {
    program(async |_| {
        let (resolver, future) = create_future::<(), Fault>();
        let mut wait = Box::pin((&future).into_future());
        let waker = Waker::from(Arc::new(Panics));
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let called = Rc::new(Cell::new(false));
        let call = called.clone();
        future.add_done_callback(move |_| call.set(true));
        let other = create_task({
            let future = future.clone();
            async move { (&future).await }
        });
        turn().await?;
        assert!(catch_unwind(AssertUnwindSafe(|| resolver.set_result(()))).is_err());
        turn().await?;
        assert!(called.get());
        assert_eq!(other.await, Ok(()));
        Ok(())
    });
}

#[test]
fn aio_c01_a_waker_that_panics_in_a_cancel_leaves_the_task_to_be_cancelled_again() {
    program(async |_| {
        let (_resolver, future) = create_future::<(), Fault>();
        let waker = Waker::from(Arc::new(Panics));
        let task = create_task(async move {
            let mut wait = Box::pin((&future).into_future());
            assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            sleep(ms(1000)).await?;
            Ok::<_, Fault>(())
        });
        turn().await?;
        assert!(catch_unwind(AssertUnwindSafe(|| task.cancel())).is_err());
        task.cancel();
        assert_eq!(task.await, Err(Fault::Cancelled));
        Ok(())
    });
}

#[test]
fn a_waker_that_panics_when_a_task_ends_ends_its_loop() {
    let panic = panic_of(|| {
        _ = run_virtual(async || {
            asyncio::event_loop(async {
                let task = create_task(async {
                    turn().await?;
                    Ok::<_, Fault>(())
                });
                let mut wait = Box::pin((&task).into_future());
                let waker = Waker::from(Arc::new(Panics));
                assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
                sleep(ms(1000)).await?;
                Ok::<_, Fault>(())
            })
            .await
        });
    });
    assert!(panic.contains("a waker panicked"), "{panic}");
}

#[test]
fn a_result_that_is_taken_while_somebody_looks_at_it_is_not_lost() {
    program(async |_| {
        let (resolver, future) = create_future::<_, Fault>();
        resolver.set_result(Rc::new(7)).unwrap();
        let inside = future.look(|_| future.take()).unwrap();
        assert!(inside.is_err());
        assert_eq!(future.take(), Ok(Ok(Rc::new(7))));
        Ok(())
    });
}

/// A loop whose tasks clean up, with a wait, while it ends with a panic of a waker.
fn ends_in_order(real: bool, main: impl AsyncFn() -> Result<(), Fault> + Clone + 'static) {
    let cleaned_up = Arc::new(AtomicU32::new(0));
    let clean_up = cleaned_up.clone();
    let panic = panic_of(move || {
        let program = async || {
            let (main, clean_up) = (main.clone(), clean_up.clone());
            asyncio::event_loop(async move {
                let others = [(); 2].map(|()| {
                    let clean_up = clean_up.clone();
                    create_task(async move {
                        let _ = sleep(ms(1_000_000)).await;
                        sleep(ms(1)).await?;
                        clean_up.fetch_add(1, Ordering::Relaxed);
                        Ok::<_, Fault>(())
                    })
                });
                turn().await?;
                main().await?;
                drop(others);
                Ok::<_, Fault>(())
            })
            .await
        };
        _ = if real { run_real(program) } else { run_virtual(program) };
    });
    assert_eq!(panic, "a waker panicked");
    assert_eq!(cleaned_up.load(Ordering::Relaxed), 2);
}

#[test]
fn aio_o10_a_waker_that_panics_when_a_thread_is_done_ends_its_loop_in_order() {
    ends_in_order(true, async || {
        let future = asyncio::run_in_executor(asyncio::OnCancel::Wait, || Ok::<_, Fault>(()));
        let mut wait = Box::pin((&future).into_future());
        let waker = Waker::from(Arc::new(Panics));
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        sleep(ms(1_000_000)).await?;
        Ok(())
    });
}

#[test]
fn aio_r02_a_waker_that_panics_when_what_is_left_over_is_cancelled_ends_its_loop_in_order() {
    ends_in_order(false, async || {
        let (resolver, future) = create_future::<(), Fault>();
        create_task(async move {
            let _resolver = resolver;
            let mut wait = Box::pin((&future).into_future());
            let waker = Waker::from(Arc::new(Panics));
            assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            let _ = sleep(ms(1_000_000)).await;
            Ok::<_, Fault>(())
        });
        turn().await?;
        Ok(())
    });
}
