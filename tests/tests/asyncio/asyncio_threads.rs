//! `asyncio`: blocking functions on threads, and calls from other threads (O10 to O12, R4, behaviours 52, 54 and 55).

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;
use trefoil::Cancelled;
use trefoil::asyncio::{
    self, OnCancel, RemoteError, create_task, event_loop, get_running_loop, run_coroutine_threadsafe, run_in_executor,
    sleep, to_thread,
};
use trefoil_tests::{ms, run_real};

const SECOND: Duration = Duration::from_secs(1);

/// Waits, without a clock that matters, until something is so.
async fn until(what: impl Fn() -> bool) {
    while !what() {
        sleep(ms(1)).await.unwrap();
    }
}

#[test]
fn aio_to_thread_gives_what_the_function_returned() {
    run_real(async || {
        event_loop(async {
            let here = thread::current().id();
            let there = to_thread(|| Ok::<_, Cancelled>(thread::current().id())).await?;
            assert_ne!(here, there);
            let failed = to_thread(|| Err::<(), _>(io::Error::other("clover"))).await;
            assert_eq!(failed.unwrap_err().to_string(), "clover");
            Ok::<_, Cancelled>(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn aio_functions_on_threads_run_side_by_side_and_more_than_there_are_threads() {
    run_real(async || {
        event_loop(async {
            let (one, two) = (mpsc::channel(), mpsc::channel());
            let (to_two, from_two) = (one.0, two.1);
            let first = run_in_executor(OnCancel::Wait, move || {
                to_two.send(1).unwrap();
                Ok::<_, Cancelled>(from_two.recv().unwrap())
            });
            let second = run_in_executor(OnCancel::Wait, move || {
                two.0.send(2).unwrap();
                Ok::<_, Cancelled>(one.1.recv().unwrap())
            });
            assert_eq!((first.await?, second.await?), (2, 1));
            let many: Vec<_> =
                (0..200).map(|n| run_in_executor(OnCancel::Wait, move || Ok::<_, Cancelled>(n))).collect();
            let mut sum = 0;
            for one in many {
                sum += one.await?;
            }
            assert_eq!(sum, 199 * 200 / 2);
            Ok::<_, Cancelled>(())
        })
        .await
        .unwrap();
    });
}

/// A function that waits on its thread until it is let go, and whether it has begun and ended.
struct Gate {
    begun: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    go: mpsc::Sender<()>,
}

fn gate() -> (Gate, impl FnOnce() -> Result<&'static str, Cancelled> + Send + 'static) {
    let (go, wait) = mpsc::channel();
    let gate = Gate { begun: Arc::default(), ended: Arc::default(), go };
    let (begun, ended) = (gate.begun.clone(), gate.ended.clone());
    let function = move || {
        begun.store(true, Ordering::SeqCst);
        _ = wait.recv();
        ended.store(true, Ordering::SeqCst);
        Ok("done")
    };
    (gate, function)
}

#[test]
fn aio_o10_b55_d9_a_cancelled_to_thread_waits_for_its_thread_and_the_cancel_comes_next() {
    run_real(async || {
        event_loop(async {
            let (gate, function) = gate();
            let task = create_task(async move {
                let value = to_thread(function).await;
                let next = sleep(SECOND * 3600).await;
                Ok::<_, Cancelled>((value, next))
            });
            until(|| gate.begun.load(Ordering::SeqCst)).await;
            assert!(task.cancel());
            for _ in 0..20 {
                sleep(Duration::ZERO).await?;
            }
            assert!(!task.done(), "it waits");
            gate.go.send(()).unwrap();
            assert_eq!(task.await?, (Ok("done"), Err(cancelled())));
            assert!(gate.ended.load(Ordering::SeqCst));
            Ok::<_, Cancelled>(())
        })
        .await
        .unwrap();
    });
}

fn cancelled() -> Cancelled {
    Cancelled::delivered()
}

#[test]
fn aio_o10_b55_an_abandoned_function_runs_on_and_the_end_of_the_loop_waits_for_it() {
    run_real(async || {
        let (gate, function) = gate();
        let ended = gate.ended.clone();
        event_loop(async move {
            let future = run_in_executor(OnCancel::Abandon, function);
            until(|| gate.begun.load(Ordering::SeqCst)).await;
            let task = create_task(async move { future.await });
            sleep(Duration::ZERO).await?;
            task.cancel();
            assert!((&task).await.is_err() && task.cancelled());
            assert!(!gate.ended.load(Ordering::SeqCst));
            gate.go.send(()).unwrap();
            Ok::<_, Cancelled>(())
        })
        .await
        .unwrap();
        assert!(ended.load(Ordering::SeqCst), "R4: the loop has waited");
    });
}

#[test]
fn aio_a_function_that_no_thread_has_begun_is_not_begun_after_a_cancel() {
    run_real(async || {
        event_loop(async {
            // As many as there can be threads at most, so that the last one has none.
            let blocked: Vec<_> = (0..32).map(|_| gate()).collect();
            let (gates, functions): (Vec<_>, Vec<_>) = blocked.into_iter().unzip();
            let futures: Vec<_> = functions.into_iter().map(|f| run_in_executor(OnCancel::Wait, f)).collect();
            let (last, function) = gate();
            let future = run_in_executor(OnCancel::Wait, function);
            assert!(future.cancel() && future.cancelled());
            assert!(!future.cancel());
            for gate in &gates {
                gate.go.send(()).unwrap();
            }
            for future in futures {
                assert_eq!(future.await, Ok("done"));
            }
            assert!(!last.begun.load(Ordering::SeqCst));
            Ok::<_, Cancelled>(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn aio_b52_r4_the_end_of_the_loop_waits_for_threads_only_so_long() {
    run_real(async || {
        let (gate, function) = gate();
        let begun = gate.begun.clone();
        event_loop(async move {
            asyncio::set_executor_timeout(ms(5));
            let future = run_in_executor(OnCancel::Wait, function);
            until(|| begun.load(Ordering::SeqCst)).await;
            drop(future);
            Ok::<_, Cancelled>(())
        })
        .await
        .unwrap();
        assert!(!gate.ended.load(Ordering::SeqCst));
        gate.go.send(()).unwrap();
        // The thread still holds the run, and lets go of it.
        while !gate.ended.load(Ordering::SeqCst) {
            thread::yield_now();
        }
    });
}

trefoil::task_local! {
    static REQUEST: u32;
}

#[test]
fn aio_o11_a_function_on_a_thread_finds_the_task_locals_of_its_caller() {
    run_real(async || {
        event_loop(async {
            let there = REQUEST.scope(7, to_thread(|| Ok::<_, Cancelled>(REQUEST.get()))).await?;
            assert_eq!(there, 7);
            let none = to_thread(|| Ok::<_, Cancelled>(REQUEST.try_with(|_| ()).is_err())).await?;
            assert!(none, "and the thread keeps none");
            Ok::<_, Cancelled>(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn aio_a_panic_on_a_thread_ends_the_loop() {
    run_real(async || {
        let main = event_loop(async {
            to_thread(|| -> Result<(), Cancelled> { panic!("on a thread") }).await?;
            Ok::<_, Cancelled>(())
        });
        let mut main = Box::pin(main);
        let caught = std::future::poll_fn(|cx| {
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| main.as_mut().poll(cx))) {
                Ok(polled) => polled.map(|_| None),
                Err(payload) => std::task::Poll::Ready(Some(payload)),
            }
        })
        .await;
        assert_eq!(*caught.unwrap().downcast_ref::<&str>().unwrap(), "on a thread");
    });
}

#[test]
fn aio_o12_a_task_from_another_thread_gives_its_result() {
    run_real(async || {
        event_loop(async {
            let handle = get_running_loop();
            let sum = to_thread(move || {
                // What it holds is not `Send`.
                let body = || async {
                    let cell = Rc::new(RefCell::new(40));
                    sleep(ms(1)).await?;
                    *cell.borrow_mut() += 2;
                    Ok::<_, Cancelled>(*cell.borrow())
                };
                let task = run_coroutine_threadsafe(body, &handle).unwrap();
                let sum = task.result(None).unwrap();
                assert_eq!(task.result(None), Err(RemoteError::Taken));
                assert!(task.done() && !task.cancelled() && !task.cancel());
                sum
            })
            .await?;
            assert_eq!(sum, 42);
            Ok::<_, Cancelled>(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn aio_o12_cancelling_from_another_thread_cancels_the_task() {
    run_real(async || {
        event_loop(async {
            let handle = get_running_loop();
            let ((begun, has_begun), (told, was_told)) = (mpsc::channel(), mpsc::channel());
            to_thread(move || {
                let body = || async move {
                    begun.send(()).unwrap();
                    let waited = sleep(SECOND * 3600).await;
                    told.send(waited).unwrap();
                    waited
                };
                let task = run_coroutine_threadsafe(body, &handle).unwrap();
                // One that is cancelled before it has begun is never polled.
                has_begun.recv().unwrap();
                assert_eq!(task.result(ms(5)), Err(RemoteError::TimedOut));
                assert!(!task.done());
                assert!(task.cancel() && task.cancelled() && !task.cancel());
                assert_eq!(task.result(None), Ok(Err(cancelled())));
                assert_eq!(was_told.recv().unwrap(), Err(cancelled()));
                Ok::<_, Cancelled>(())
            })
            .await
        })
        .await
        .unwrap();
    });
}

#[test]
fn aio_o12_a_task_that_is_cancelled_in_the_loop_is_so_on_the_other_thread() {
    run_real(async || {
        event_loop(async {
            let handle = get_running_loop();
            let waits = run_in_executor(OnCancel::Wait, move || {
                let task = run_coroutine_threadsafe(|| sleep(SECOND * 3600), &handle).unwrap();
                let result = task.result(None);
                assert!(task.done());
                assert_eq!(result, Ok(Err(cancelled())));
                Ok::<_, Cancelled>(())
            });
            until(|| asyncio::all_tasks().len() == 2).await;
            let me = asyncio::current_task().unwrap();
            for task in asyncio::all_tasks() {
                if task != me {
                    task.cancel();
                }
            }
            waits.await
        })
        .await
        .unwrap();
    });
}

#[test]
fn aio_b54_calls_from_threads_come_in_order_and_each_that_is_accepted_is_made() {
    run_real(async || {
        let made: Arc<AtomicUsize> = Arc::default();
        let count = made.clone();
        let (handles, threads) = mpsc::channel();
        let accepted: usize = {
            event_loop(async move {
                let handle = get_running_loop();
                for _ in 0..4 {
                    let (handle, made) = (handle.clone(), count.clone());
                    let thread = thread::spawn(move || {
                        let mut accepted = 0;
                        // Until it is closed, which happens under way.
                        loop {
                            let made = made.clone();
                            match handle.call_soon_threadsafe(move || _ = made.fetch_add(1, Ordering::SeqCst)) {
                                Ok(()) => accepted += 1,
                                Err(_) => return accepted,
                            }
                            thread::yield_now();
                        }
                    });
                    handles.send(thread).unwrap();
                }
                drop(handle);
                until(|| count.load(Ordering::SeqCst) > 200).await;
                Ok::<_, Cancelled>(())
            })
            .await
            .unwrap();
            threads.iter().map(|thread| thread.join().unwrap()).sum()
        };
        assert_eq!(made.load(Ordering::SeqCst), accepted);
    });
}

#[test]
fn aio_b54_the_calls_of_one_thread_are_first_in_first_out() {
    run_real(async || {
        event_loop(async {
            let handle = get_running_loop();
            let (tell, told) = mpsc::channel();
            to_thread(move || {
                for n in 0..100 {
                    let tell = tell.clone();
                    handle.call_soon_threadsafe(move || tell.send(n).unwrap()).unwrap();
                }
                Ok::<_, Cancelled>(())
            })
            .await?;
            let mut seen = Vec::new();
            while seen.len() < 100 {
                seen.extend(told.try_iter());
                sleep(Duration::ZERO).await?;
            }
            assert!(seen.is_sorted());
            Ok::<_, Cancelled>(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn aio_b54_o07_after_the_end_of_the_loop_calls_are_refused_and_what_waits_is_told() {
    run_real(async || {
        let handle = event_loop(async { Ok::<_, Cancelled>(get_running_loop()) }).await.unwrap();
        assert!(handle.is_closed());
        assert!(handle.call_soon_threadsafe(|| unreachable!()).is_err());
        assert!(run_coroutine_threadsafe(|| sleep(SECOND), &handle).is_err());
    });
}
