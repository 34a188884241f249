//! What a program of `asyncio` may do to its loop: values that panic when they are dropped, loops that are dropped half way, circles of
//! handles, drops that spawn. Nothing leaks, hangs, or is lost.

use crate::asyncio_support::{Fault, Is, after, program, task, turn};
use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use trefoil::Cancelled;
use trefoil::asyncio::{self, Future, create_future, create_task, current_task, event_loop, gather, shield, sleep};
use trefoil_tests::{ms, panic_of, run_virtual};

/// Panics when it is dropped, unless the thread does already.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("a drop panicked");
        }
    }
}

#[test]
fn aio_c10_a_value_that_is_lost_and_panics_as_it_is_dropped_ends_the_loop() {
    let panic = panic_of(|| {
        _ = run_virtual(async || {
            event_loop(async {
                let task = create_task(async {
                    current_task().unwrap().cancel();
                    Ok::<_, Cancelled>(Rc::new(Bomb))
                });
                let _ = sleep(ms(1)).await;
                assert!(task.cancelled());
                sleep(ms(1000)).await
            })
            .await
        });
    });
    assert!(panic.contains("a drop panicked"), "{panic}");
}

#[test]
fn aio_eg1_an_eager_body_that_panics_as_it_is_dropped_ends_the_loop() {
    let panic = panic_of(|| {
        _ = run_virtual(async || {
            event_loop(async {
                let bomb = Bomb;
                let task = asyncio::TaskBuilder::new().eager_start(true).create_task(async move {
                    let _bomb = &bomb;
                    Ok::<_, Cancelled>(())
                });
                assert!(task.done());
                sleep(ms(1000)).await
            })
            .await
        });
    });
    assert!(panic.contains("a drop panicked"), "{panic}");
}

#[test]
fn a_result_that_was_set_goes_with_its_future() {
    program(async |_| {
        let value = Rc::new(());
        let (resolver, future) = create_future::<_, Fault>();
        resolver.set_result(value.clone()).unwrap();
        drop(future);
        assert_eq!(Rc::strong_count(&value), 1);

        let (resolver, future) = create_future::<_, Fault>();
        future.cancel();
        drop(resolver.set_result(value.clone()).unwrap_err());
        drop(future);
        assert_eq!(Rc::strong_count(&value), 1);
        Ok(())
    });
}

fn keeps_until_done<T>(future: &Future<T, Fault>, keeps: Rc<()>) {
    future.add_done_callback(move |_| drop(keeps));
}

/// Polls a loop some times, and drops it.
fn half_way(polls: usize, main: impl std::future::Future<Output = Is<()>> + 'static) {
    let mut event_loop = pin!(event_loop(main));
    for _ in 0..polls {
        match event_loop.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => {}
            Poll::Ready(_) => return,
        }
    }
}

#[test]
fn a_loop_that_is_dropped_half_way_leaves_nothing_behind() {
    run_virtual(async || {
        for polls in 0..8 {
            let witness = Rc::new(());
            let mine = witness.clone();
            half_way(polls, async move {
                let (resolver, never) = create_future::<(), Fault>();
                let inner = gather([task(after(5, mine.clone())), task(after(9, mine.clone()))]);
                let other = inner.clone();
                let outer = gather([shield(inner)]);
                let third = gather([outer.clone()]);
                keeps_until_done(&outer, mine.clone());
                keeps_until_done(&third, mine.clone());
                keeps_until_done(&other, mine.clone());
                asyncio::call_later(ms(50), {
                    let mine = mine.clone();
                    move || drop(mine)
                });
                let waits = task({
                    let (mine, never) = (mine.clone(), never.clone());
                    async move {
                        let _mine = mine;
                        never.await
                    }
                });
                turn().await?;
                let _held = (resolver, mine, outer, other);
                waits.await?;
                third.await.map(drop)
            });
            assert_eq!(Rc::strong_count(&witness), 1, "{polls} polls");
        }
    });
}

/// Spawns when it is dropped.
struct Spawns(Rc<Cell<u32>>);

impl Drop for Spawns {
    fn drop(&mut self) {
        let ran = self.0.clone();
        let spawned = create_task(async move {
            ran.set(ran.get() + 1);
            Ok::<_, Cancelled>(())
        });
        asyncio::call_soon(|| {});
        drop(asyncio::call_later(ms(1), || {}));
        drop(spawned);
    }
}

#[test]
fn r2_what_is_spawned_by_a_drop_while_the_loop_closes_is_cancelled_or_dropped() {
    run_virtual(async || {
        let ran = Rc::new(Cell::new(0));
        for polls in 1..6 {
            let spawns = Spawns(ran.clone());
            half_way(polls, async move {
                let _spawns = spawns;
                Ok(sleep(ms(1000)).await?)
            });
        }
        // The loop ends by itself, and the drop comes while what is left over is cancelled: C6, it does not run a line.
        let spawns = Spawns(ran.clone());
        event_loop(async move {
            create_task(async move {
                let _spawns = spawns;
                sleep(ms(1000)).await
            });
            sleep(ms(1)).await
        })
        .await
        .unwrap();
        assert_eq!(ran.get(), 0);
    });
}

#[test]
fn a_loop_inside_of_a_nursery_inside_of_a_loop() {
    program(async |log| {
        let sum = trefoil::local_nursery(async |n| {
            let one = n.spawn(async {
                event_loop(async {
                    let tasks = gather([1, 2].map(|n| after(n, n)));
                    assert_eq!(asyncio::all_tasks().len(), 3);
                    Ok::<_, Fault>(tasks.await?.iter().sum::<u64>())
                })
                .await
            });
            assert_eq!(asyncio::all_tasks().len(), 1);
            sleep(ms(1)).await?;
            one.await.map_err(Fault::from)
        })
        .await;
        assert!(matches!(sum, Ok(3)), "{sum:?}");
        log.note("done");
        Ok(())
    });
}

#[test]
fn a_future_of_a_loop_that_is_gone_can_be_asked_and_cancelled() {
    run_virtual(async || {
        let kept = Rc::new(Cell::new(None));
        let give = kept.clone();
        half_way(3, async move {
            let task = task(after(5, 1));
            give.set(Some((gather([task.clone()]).clone_sum(), task)));
            Ok(sleep(ms(1000)).await?)
        });
        let (sum, task) = kept.take().unwrap();
        assert!(task.cancelled() && !task.cancel());
        // Nobody is left who could end it (D-5).
        assert!(sum.cancelled(), "{sum:?}");
    });
}

trait Sum {
    fn clone_sum(&self) -> Future<u64, Fault>;
}

impl Sum for Future<Vec<u64>, Fault> {
    /// A shield of it, whose result nobody takes.
    fn clone_sum(&self) -> Future<u64, Fault> {
        let all = self.clone();
        asyncio::ensure_future(async move { Ok(all.await?.iter().sum()) })
    }
}

#[test]
fn a_task_that_drops_its_own_handle_and_forgets_a_wait() {
    program(async |_| {
        let never = create_future::<(), Fault>();
        let waits = task({
            let never = never.1.clone();
            async move {
                // Pending once, and forgotten: the future keeps a waker of this task.
                let mut wait = Box::pin(std::future::IntoFuture::into_future(never));
                std::future::poll_fn(|cx| {
                    assert!(wait.as_mut().poll(cx).is_pending());
                    Poll::Ready(())
                })
                .await;
                std::mem::forget(wait);
                turn().await
            }
        });
        waits.await?;
        never.0.set_result(()).unwrap();
        turn().await
    });
}
