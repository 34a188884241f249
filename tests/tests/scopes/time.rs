//! Sleeping, under both clocks: R38, R43, R48.

use std::cell::Cell;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};
use trefoil_nursery::{
    CancelScope, Cancelled, checkpoint, local_nursery, move_on_after, now, sleep, sleep_forever, sleep_until, yield_now,
};
use trefoil_runtime::STRIKES;
use trefoil_tests::{Ended, Trace, counted, ms, poll_once, run_real, run_virtual};

#[test]
fn r38_a_sleep_of_zero_gives_up_the_turn_once() {
    run_virtual(async || {
        for which in 0..3 {
            let t = Trace::new();
            let polls = Cell::new(0);
            local_nursery(async |n| -> Ended {
                n.spawn(async {
                    t.note("sibling", "runs");
                    Ok(())
                });
                let sleep = match which {
                    0 => sleep(Duration::ZERO),
                    1 => sleep_until(now()),
                    _ => sleep_until(now() - ms(5)),
                };
                counted(&polls, sleep).await?;
                t.note("body", "slept");
                Ok(())
            })
            .await
            .unwrap();
            assert_eq!((t.lines(), polls.get()), (vec!["0 sibling runs".into(), "0 body slept".into()], 2));
        }
    });
}

#[test]
fn a_sleep_is_polled_twice() {
    run_virtual(async || {
        let polls = Cell::new(0);
        counted(&polls, sleep(ms(10))).await.unwrap();
        assert_eq!(polls.get(), 2);
    });
}

/// R43 for sleeps: the length counts from the first poll.
#[test]
fn r43_a_sleep_is_measured_from_its_first_poll() {
    run_virtual(async || {
        let t = Trace::new();
        let later = sleep(ms(10));
        sleep(ms(100)).await.unwrap();
        later.await.unwrap();
        assert_eq!(t.ms(), 110);
    });
}

#[test]
fn a_sleep_that_is_not_polled_in_time_is_over_when_it_is() {
    run_virtual(async || {
        let t = Trace::new();
        let mut early = pin!(sleep(ms(5)));
        assert!(poll_once(early.as_mut()).await.is_pending());
        sleep(ms(50)).await.unwrap();
        assert_eq!(poll_once(early.as_mut()).await, Poll::Ready(Ok(())));
        assert_eq!(t.ms(), 50);
    });
}

/// Its end goes with it, whether it is taken out of the scope that it began in, or that scope goes away; and it says so all the time.
#[test]
fn a_sleep_that_goes_on_in_another_scope_ends_when_it_was_to_end() {
    let left = |sleep: &dyn std::fmt::Debug| {
        let text = format!("{sleep:?}");
        text.split_once("left: ")
            .expect("it says so")
            .1
            .split_once(", begun: ")
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
    };
    let says = |left: &str, begun: bool| Some((left.to_owned(), format!("{begun} }}")));
    run_virtual(async || {
        for leaves in [false, true] {
            let t = Trace::new();
            let mut moved = Box::pin(sleep(ms(10)));
            assert_eq!(left(&moved), says("10ms", false));
            let scope = CancelScope::new();
            let first = async {
                assert!(poll_once(moved.as_mut()).await.is_pending());
                sleep(ms(3)).await
            };
            assert_eq!(scope.run(first).await, Ok(Some(())));
            assert_eq!(left(&moved), says("7ms", true));
            if !leaves {
                // Polled in one that stays meanwhile.
                assert_eq!(move_on_after(ms(2), moved.as_mut()).await, Ok(None));
                assert_eq!((t.ms(), left(&moved)), (5, says("5ms", true)));
                continue;
            }
            assert_eq!(moved.as_mut().await, Ok(()));
            assert_eq!((t.ms(), left(&moved)), (10, says("0ns", true)));
        }
    });
}

#[test]
fn sleep_forever_sleeps_until_it_is_cancelled() {
    run_virtual(async || {
        let t = Trace::new();
        let years = Duration::from_secs(3600 * 24 * 365);
        assert_eq!(move_on_after(years, sleep_forever()).await, Ok(None));
        assert_eq!(now() - t.at(0), years);
    });
}

#[test]
fn real_time_a_sleep_is_never_too_short_and_not_much_too_long() {
    run_real(async || {
        let begin = Instant::now();
        for length in [1, 3, 10] {
            let before = Instant::now();
            sleep(ms(length)).await.unwrap();
            assert!(before.elapsed() >= ms(length));
        }
        assert!(begin.elapsed() < Duration::from_secs(5));
        let until = now() + ms(5);
        sleep_until(until).await.unwrap();
        assert!(now() >= until && Instant::now() >= until);
    });
}

#[test]
fn real_time_deadlines_expire_while_others_are_busy() {
    run_real(async || {
        let busy = Cell::new(0u64);
        let scope = CancelScope::new();
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                let out = scope
                    .run(async {
                        loop {
                            trefoil_nursery::checkpoint().await?;
                            busy.set(busy.get() + 1);
                        }
                        #[allow(unreachable_code)]
                        Ok::<(), Cancelled>(())
                    })
                    .await;
                assert_eq!(out, Ok(None));
                Ok(())
            });
            sleep(ms(5)).await?;
            scope.cancel();
            yield_now().await;
            Ok(())
        })
        .await
        .unwrap();
        assert!(busy.get() > 10);
    });
}

#[test]
fn real_time_a_deadline_ends_a_busy_loop_of_checkpoints() {
    run_real(async || {
        let begin = Instant::now();
        let out = move_on_after(ms(5), async {
            loop {
                trefoil_nursery::checkpoint().await?;
            }
            #[allow(unreachable_code)]
            Ok::<(), Cancelled>(())
        });
        assert_eq!(out.await, Ok(None));
        assert!(begin.elapsed() >= ms(5));
    });
}

/// N13 (b): a sleep that was aborted in a scope which had swallowed too much is awaited outside of it: it does not say that the time is over.
#[test]
fn n13b_an_aborted_sleep_that_is_awaited_outside_is_not_over() {
    run_virtual(async || {
        for forever in [false, true] {
            let mut sleep = Box::pin(if forever { sleep_forever() } else { sleep(ms(5)) });
            let scope = CancelScope::new();
            let ended = scope.run(async {
                assert!(poll_once(sleep.as_mut()).await.is_pending());
                scope.cancel();
                for _ in 0..STRIKES {
                    checkpoint().await.unwrap_err();
                }
                // One too many: it is told nothing more, and is dropped here.
                sleep.as_mut().await
            });
            assert_eq!(ended.await, Ok(None));
            assert!(sleep.await.is_err(), "it was aborted, at its beginning");
        }
    });
}
