//! The virtual clock: R51, R52. Its threshold, time by hand, and `wait_all_tasks_blocked` (R53, R54) are in the group `testing`.

use std::cell::RefCell;
use std::time::{Duration, Instant};
use trefoil_nursery::{
    CancelScope, Event, checkpoint, local_nursery, move_on_after, now, nursery, sleep, sleep_forever, sleep_until,
    yield_now,
};
use trefoil_tests::{Ended, Trace, ms, run_virtual};

#[test]
fn r51_time_stands_still_while_anything_can_run() {
    run_virtual(async || {
        let begin = now();
        for _ in 0..1000 {
            checkpoint().await.unwrap();
        }
        std::thread::sleep(ms(5));
        local_nursery(async |n| -> Ended {
            n.spawn(sleep(Duration::from_secs(1)));
            for _ in 0..1000 {
                yield_now().await;
                assert_eq!(now(), begin);
            }
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(now(), begin + Duration::from_secs(1));
    });
}

#[test]
fn r51_time_jumps_exactly_and_costs_nothing() {
    let real = Instant::now();
    run_virtual(async || {
        let begin = now();
        for length in [1, 1_000, 1_000_000_007, 3_600_000_000_000, 86_400_000_000_000] {
            let before = now();
            sleep(Duration::from_nanos(length)).await.unwrap();
            assert_eq!(now() - before, Duration::from_nanos(length));
        }
        assert!(now() - begin > Duration::from_secs(90_000));
    });
    assert!(real.elapsed() < Duration::from_secs(10));
}

#[test]
fn r51_a_scope_deadline_is_a_reason_to_jump_too() {
    run_virtual(async || {
        let begin = now();
        assert_eq!(move_on_after(ms(1234), Event::new().wait()).await, Ok(None));
        assert_eq!(now() - begin, ms(1234));
    });
}

/// Behaviour 38.
#[test]
fn r52_sleepers_wake_in_order_of_their_deadlines_at_exactly_them() {
    run_virtual(async || {
        let t = Trace::new();
        let woken = RefCell::new(Vec::new());
        let lengths: Vec<u64> = (0..200).map(|i| (i * 7919) % 1009).collect();
        nursery(async |_| -> Ended { Ok(()) }).await.unwrap();
        local_nursery(async |n| -> Ended {
            for &length in &lengths {
                let (t, woken) = (&t, &woken);
                n.spawn(async move {
                    sleep(ms(length)).await?;
                    woken.borrow_mut().push((t.ms() as u64, length));
                    Ok(())
                });
            }
            Ok(())
        })
        .await
        .unwrap();
        let mut sorted = lengths.clone();
        sorted.sort();
        assert_eq!(*woken.borrow(), sorted.iter().map(|&l| (l, l)).collect::<Vec<_>>());
    });
}

#[test]
fn r52_deadlines_of_sleeps_and_scopes_are_visited_in_one_order() {
    run_virtual(async || {
        let t = Trace::new();
        local_nursery(async |n| -> Ended {
            for at in [50, 10, 30] {
                let t = &t;
                n.spawn(async move {
                    sleep_until(t.at(at)).await?;
                    t.note("sleep", "");
                    Ok(())
                });
            }
            for at in [40, 20, 60] {
                let t = &t;
                n.spawn(async move {
                    let scope = CancelScope::new();
                    scope.set_deadline(Some(t.at(at)));
                    scope.run(sleep_forever()).await?;
                    t.note("scope", "");
                    Ok(())
                });
            }
            Ok(())
        })
        .await
        .unwrap();
        let order: Vec<_> = t.lines().iter().map(|l| l.trim().to_string()).collect();
        assert_eq!(order, ["10 sleep", "20 scope", "30 sleep", "40 scope", "50 sleep", "60 scope"]);
    });
}

/// The machine's time does not come in: a wake-up from another thread is served at the virtual time that it finds.
#[test]
fn r51_a_thread_wakes_a_run_that_waits_without_a_deadline() {
    run_virtual(async || {
        let begin = now();
        let event = std::sync::Arc::new(Event::new());
        let remote = event.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(ms(10));
            remote.set();
        });
        event.wait().await.unwrap();
        assert_eq!(now(), begin);
        thread.join().unwrap();
    });
}
