//! A scope with a relative deadline is made when something in it waits, opens a scope, or asks about it (R43). Nobody can tell: whatever
//! happens in the first poll of its body, in whatever order, goes as if it had been there from the start.

use futures::future::{self, FutureExt, join, poll_immediate};
use futures::stream::{FuturesUnordered, StreamExt};
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use trefoil_nursery::{
    CancelScope, Cancelled, EffectiveDeadline, Event, channel, checkpoint, checkpoint_if_cancelled, effective_deadline,
    local_nursery, move_on_after, nursery, shield, shield_for, sleep, sleep_forever, yield_now,
};
use trefoil_runtime::metrics;
use trefoil_tests::{CANCELLED, Ended, OnDrop, Trace, ms, run_real, run_virtual};

#[test]
fn r43_what_is_done_at_once_leaves_nothing() {
    run_virtual(async || {
        let (tx, rx) = channel(1);
        for _ in 0..3 {
            let out = move_on_after(ms(5), async {
                tx.send(1).await.unwrap();
                move_on_after(ms(1), async { rx.recv().await }).await
            });
            assert_eq!(out.await, Ok(Some(Some(Some(1)))));
        }
        assert_eq!((metrics().scopes, metrics().timers), (0, 0));
    });
}

#[test]
fn r43_a_future_that_waited_before_it_came_into_the_scope_is_cancelled_by_its_deadline() {
    run_virtual(async || {
        let t = Trace::new();
        let (_tx, rx) = channel::<()>(1);
        let event = Event::new();
        for which in 0..4 {
            let mut waits = pin!(async {
                match which {
                    0 => sleep_forever().await,
                    1 => rx.recv().await.map(drop),
                    2 => event.wait().await,
                    _ => move_on_after(
                        ms(1_000),
                        local_nursery(async |n| -> Ended {
                            n.spawn(sleep_forever());
                            Ok(())
                        })
                        .map(|ended| ended.map_err(Cancelled::from)),
                    )
                    .await
                    .map(drop),
                }
            });
            assert!(poll_immediate(&mut waits).await.is_none());
            assert_eq!(move_on_after(ms(5), waits.as_mut()).await, Ok(None), "{which}");
        }
        assert_eq!(t.ms(), 20);
    });
}

#[test]
fn r43_an_inner_one_that_waits_opens_those_around_it_in_order() {
    run_virtual(async || {
        let t = Trace::new();
        let out = move_on_after(ms(30), async {
            let inner = move_on_after(ms(20), async {
                // Two side by side, both polled for the first time in one poll of what is around them.
                let (a, b) = join(move_on_after(ms(2), sleep_forever()), move_on_after(ms(1), sleep_forever())).await;
                assert_eq!((a, b, t.ms()), (Ok(None), Ok(None), 2));
                // That one is there by now: what is around this is not the same as at the first poll.
                assert_eq!(move_on_after(ms(1), sleep_forever()).await, Ok(None));
                sleep_forever().await
            });
            assert_eq!((inner.await, t.ms()), (Ok(None), 20));
            sleep_forever().await
        });
        assert_eq!((out.await, t.ms()), (Ok(None), 30));
    });
}

#[test]
fn r43_what_comes_after_an_inner_one_in_the_same_poll_is_in_the_outer_one() {
    run_virtual(async || {
        let t = Trace::new();
        let out = move_on_after(ms(10), async {
            // Opens both, in the first poll; and ends in that same poll.
            let opened = move_on_after(ms(1), async {
                assert_eq!(effective_deadline(), EffectiveDeadline::At(t.at(1)));
                Ok::<_, Cancelled>(metrics().scopes)
            });
            assert_eq!(opened.await, Ok(Some(2)));
            assert_eq!((effective_deadline(), metrics().scopes), (EffectiveDeadline::At(t.at(10)), 1));
            sleep_forever().await
        });
        assert_eq!((out.await, t.ms()), (Ok(None), 10));
    });
}

#[test]
fn r24_a_cancel_from_around_it_reaches_a_body_that_is_polled_for_the_first_time() {
    run_virtual(async || {
        let scope = CancelScope::new();
        let out = scope
            .run(async {
                let inner = move_on_after(ms(5), async {
                    checkpoint_if_cancelled().await?;
                    scope.cancel();
                    assert_eq!(checkpoint_if_cancelled().await, Err(Cancelled::delivered()));
                    assert_eq!(effective_deadline(), EffectiveDeadline::Cancelled);
                    // Not beyond a shield, which is opened here.
                    shield(sleep(ms(1))).await?;
                    assert_eq!(shield_for(ms(1), sleep_forever()).await, Ok(None));
                    checkpoint().await
                });
                // It is not the inner scope's to absorb (R24).
                assert_eq!(inner.await, Err(Cancelled::delivered()));
                Err::<(), _>(Cancelled::delivered())
            })
            .await;
        assert_eq!((out, scope.cancelled_caught()), (Ok(None), true));
    });
}

#[test]
fn n13a_a_foreign_future_in_its_first_poll_is_ended_by_the_deadline_and_by_a_cancel_from_before() {
    run_virtual(async || {
        let (t, dropped) = (Trace::new(), AtomicUsize::new(0));
        let foreign = async {
            let _guard = OnDrop(&dropped);
            future::pending::<Ended>().await
        };
        assert_eq!((move_on_after(ms(5), foreign).await, t.ms()), (Ok(None), 5));
        let scope = CancelScope::new();
        scope.cancel();
        let out = scope.run(move_on_after(ms(5), async {
            let _guard = OnDrop(&dropped);
            future::pending::<Ended>().await
        }));
        assert_eq!((out.await, t.ms(), dropped.load(Ordering::SeqCst)), (Ok(None), 5, 2));
    });
}

/// Whoever opens a scope that is cancelled from the start is not woken for that.
#[test]
fn n13a_a_body_that_opens_new_scopes_in_a_cancelled_one_at_each_poll_is_ended() {
    run_virtual(async || {
        let polls = Cell::new(0);
        let opens = poll_fn(|cx| {
            polls.set(polls.get() + 1);
            assert!(polls.get() < 100, "it wakes itself again and again");
            for after in [ms(5), ms(0), Duration::MAX] {
                let ended = pin!(move_on_after(after, future::pending::<Ended>())).poll(cx);
                assert_eq!(ended, Poll::Ready(Err(CANCELLED)), "it waits for nothing");
            }
            Poll::<Ended>::Pending
        });
        let scope = CancelScope::new();
        scope.cancel();
        assert_eq!(scope.run(opens).await, Ok(None));
        assert_eq!(polls.get(), 1);
    });
}

/// What a foreign waker does when it is woken, it would do while the scope that is being opened is nowhere yet.
#[test]
fn n13a_a_waker_that_looks_at_the_scope_is_not_woken_while_that_is_opened() {
    struct Looks(AtomicUsize);
    impl Wake for Looks {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
            effective_deadline();
        }
    }
    run_virtual(async || {
        let looks = Arc::new(Looks(AtomicUsize::new(0)));
        let waker = Waker::from(looks.clone());
        let mut cx = Context::from_waker(&waker);
        let scope = CancelScope::new();
        scope.cancel();
        let body = async {
            let mut waits = pin!(move_on_after(ms(5), async {
                assert_eq!((effective_deadline(), metrics().scopes), (EffectiveDeadline::Cancelled, 2));
                future::pending::<Ended>().await
            }));
            assert_eq!(waits.as_mut().poll(&mut cx), Poll::Ready(Err(CANCELLED)));
            assert_eq!(metrics().scopes, 1);
            Ok::<_, Cancelled>(())
        };
        assert_eq!(scope.run(body).await, Ok(Some(())));
        let mut due = pin!(move_on_after(ms(0), future::pending::<Ended>()));
        assert_eq!(due.as_mut().poll(&mut cx), Poll::Ready(Ok(None)));
        assert_eq!((looks.0.load(Ordering::Relaxed), Arc::strong_count(&looks)), (0, 2), "woken, and kept");
    });
}

/// R15: the cancel comes while it is polled for the first time, and wakes the task around it, which does not poll it again for that.
/// Its scope is opened in one that is cancelled: nobody wakes it for that, and it is ended in that poll.
#[test]
fn n13a_a_foreign_future_in_a_scope_that_was_cancelled_before_is_polled_once() {
    run_virtual(async || {
        for shielded in [false, true] {
            let (scope, polls) = (CancelScope::new(), Cell::new(0));
            let body = future::poll_fn(|_| {
                polls.set(polls.get() + 1);
                Poll::<Ended>::Pending
            });
            scope.cancel();
            let ended = scope
                .run(async { if shielded { shield_for(ms(3), body).await } else { move_on_after(ms(5), body).await } });
            assert_eq!(ended.await, Ok(shielded.then_some(None)));
            assert_eq!(polls.get(), 1 + usize::from(shielded), "under the shield its own deadline ends it");
        }
    });
}

#[test]
fn n13a_a_foreign_future_in_a_foreign_combinator_that_cancels_the_scope_around_it() {
    run_virtual(async || {
        let (t, scope, dropped) = (Trace::new(), CancelScope::new(), AtomicUsize::new(0));
        let out = scope.run(async {
            let mut all = FuturesUnordered::new();
            all.push(move_on_after(ms(5), async {
                let _guard = OnDrop(&dropped);
                scope.cancel();
                future::pending::<Ended>().await
            }));
            all.next().await.unwrap().map(drop)
        });
        assert_eq!((out.await, t.ms(), dropped.load(Ordering::SeqCst)), (Ok(None), 0, 1));
    });
}

/// The task is scheduled already, on behalf of another future in it.
#[test]
fn n13a_a_foreign_future_in_a_foreign_combinator_beside_one_that_goes_on() {
    run_virtual(async || {
        let (t, dropped) = (Trace::new(), AtomicUsize::new(0));
        for inner in [Some(CancelScope::new()), None] {
            let inner = &inner;
            let mut all = FuturesUnordered::new();
            for foreign in [false, true] {
                let dropped = &dropped;
                let body = async move {
                    let _guard = OnDrop(dropped);
                    if foreign {
                        future::pending::<Ended>().await?;
                    }
                    yield_now().await;
                    Ok(())
                };
                all.push(match inner {
                    Some(inner) if foreign => inner.run(body).boxed_local(),
                    _ => move_on_after(ms(5), body).boxed_local(),
                });
            }
            let out = CancelScope::new();
            out.cancel();
            let out = out.run(async {
                let mut ended = vec![];
                while let Some(one) = all.next().await {
                    ended.push(one);
                }
                Ok::<_, Cancelled>(ended)
            });
            assert_eq!(out.await, Ok(Some(vec![Ok(Some(())), Err(Cancelled::delivered())])));
        }
        assert_eq!((t.ms(), dropped.load(Ordering::SeqCst)), (0, 4));
    });
}

#[test]
fn r43_inside_of_foreign_combinators_with_wakers_of_their_own() {
    run_virtual(async || {
        let t = Trace::new();
        let (tx, rx) = channel::<u64>(4);
        let mut all = FuturesUnordered::new();
        for length in [3, 1, 2] {
            let rx = rx.clone();
            all.push(
                move_on_after(ms(length), async move { rx.recv().await }).map(move |out| (length, out)).boxed_local(),
            );
        }
        tx.send(7).await.unwrap();
        let mut ended = vec![];
        while let Some((length, out)) = all.next().await {
            ended.push((length, out.unwrap().map(Option::unwrap), t.ms()));
        }
        // The first takes what is there; the others have nothing to wait for.
        assert_eq!(ended, [(3, Some(7), 0), (1, None, 1), (2, None, 2)]);
    });
}

#[test]
fn r43_a_panic_in_the_first_poll_leaves_nothing_whether_it_was_opened_or_not() {
    run_virtual(async || {
        for waits in [false, true] {
            let body = async {
                let mut event = pin!(async { Event::new().wait().await });
                if waits {
                    assert!(poll_immediate(&mut event).await.is_none());
                }
                if !waits || metrics().waits == 1 {
                    panic!("on purpose");
                }
                Ok::<(), Cancelled>(())
            };
            let caught = AssertUnwindSafe(move_on_after(ms(5), move_on_after(ms(3), body))).catch_unwind().await;
            assert_eq!(*caught.unwrap_err().downcast::<&str>().unwrap(), "on purpose");
            assert_eq!((metrics().scopes, metrics().waits, metrics().timers), (0, 0, 0));
            // The context is as it was.
            assert_eq!(effective_deadline(), EffectiveDeadline::Never);
        }
    });
}

#[test]
fn r57_children_of_a_nursery_outside_are_not_in_it() {
    run_virtual(async || {
        let (t, done) = (Trace::new(), Cell::new(false));
        local_nursery(async |n| -> Ended {
            let out = move_on_after(ms(1), async {
                n.spawn(async {
                    sleep(ms(5)).await?;
                    done.set(true);
                    Ok(())
                });
                local_nursery(async |inner| -> Ended {
                    inner.spawn(sleep_forever());
                    Ok(())
                })
                .await
                .map_err(Cancelled::from)
            });
            assert_eq!((out.await, t.ms()), (Ok(None), 1));
            Ok(())
        })
        .await
        .unwrap();
        assert!(done.get());
    });
}

#[test]
fn r43_dropped_half_way_after_its_first_poll() {
    run_virtual(async || {
        let dropped = AtomicUsize::new(0);
        {
            let mut scope = pin!(move_on_after(ms(5), async {
                let _guard = OnDrop(&dropped);
                yield_now().await;
                sleep_forever().await
            }));
            assert!(poll_immediate(&mut scope).await.is_none());
            assert_eq!((metrics().scopes, metrics().timers), (1, 1));
        }
        assert_eq!((metrics().scopes, metrics().timers, dropped.load(Ordering::SeqCst)), (0, 0, 1));
    });
}

#[test]
fn r15_a_cancel_from_another_thread_during_the_first_poll() {
    run_real(async || {
        let scope = CancelScope::new();
        let out = scope
            .run(move_on_after(ms(60_000), async {
                let remote = scope.clone();
                std::thread::spawn(move || remote.cancel()).join().unwrap();
                assert_eq!(sleep_forever().await, Err(Cancelled::delivered()));
                nursery(async |_| sleep_forever().await).await.map_err(Cancelled::from)
            }))
            .await;
        assert_eq!(out, Ok(None));
    });
}
