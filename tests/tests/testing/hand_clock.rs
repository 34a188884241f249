//! Time by hand, and the jumps of virtual time: R46, R51, R52.
//!
//! | rule | here |
//! | --- | --- |
//! | R53 (`rate`) | virtual time has no rate: it stands still or jumps |

use super::{HOUR, NONE, at_once};
use std::sync::Arc;
use trefoil_nursery::{Event, local_nursery, move_on_after, now, sleep, sleep_until};
use trefoil_testing::{Builder, Clock, wait_all_tasks_blocked};
use trefoil_tests::{Ended, Trace, ms, panic_of, run_real};

#[test]
fn r52_advance_visits_every_deadline_in_order() {
    at_once().autojump(None).run(async {
        let t = Trace::new();
        local_nursery(async |n| -> Ended {
            for at in [50, 10, 30, 70] {
                let t = &t;
                n.spawn(async move {
                    sleep_until(t.at(at)).await?;
                    t.note("sleep", at);
                    // What is set meanwhile is visited too.
                    sleep(ms(5)).await?;
                    t.note("again", at);
                    Ok(())
                });
            }
            let clock = Clock::current();
            clock.advance(ms(9)).await?;
            t.note("clock", "9");
            clock.advance(ms(51)).await?;
            t.note("clock", "60");
            clock.advance(ms(15)).await?;
            Ok(())
        })
        .await
        .unwrap();
        let lines = t.lines();
        assert_eq!(
            lines,
            [
                "9 clock 9",
                "10 sleep 10",
                "15 again 10",
                "30 sleep 30",
                "35 again 30",
                "50 sleep 50",
                "55 again 50",
                "60 clock 60",
                "70 sleep 70",
                "75 again 70"
            ]
        );
    });
}

/// R46: in order, but all at the time to which it jumped.
#[test]
fn r52_a_jump_goes_over_deadlines() {
    at_once().autojump(None).run(async {
        let t = Trace::new();
        local_nursery(async |n| -> Ended {
            for at in [20, 10] {
                let t = &t;
                n.spawn(async move {
                    sleep_until(t.at(at)).await?;
                    t.note("sleep", at);
                    Ok(())
                });
            }
            wait_all_tasks_blocked(NONE).await?;
            Clock::current().jump(ms(100));
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(t.lines(), ["100 sleep 10", "100 sleep 20"]);
    });
}

#[test]
fn r46_advance_is_cut_short_by_the_deadline_of_its_own_scope() {
    Builder::new().run(async {
        let begin = now();
        assert_eq!(move_on_after(ms(30), Clock::current().advance(HOUR)).await, Ok(None));
        assert_eq!(now() - begin, ms(30));
    });
}

/// While anything moves it by hand, it does not jump by itself as well.
#[test]
fn r51_advance_beside_the_jumps() {
    at_once().run(async {
        let begin = now();
        local_nursery(async |n| -> Ended {
            n.spawn(async move {
                sleep(HOUR).await?;
                assert_eq!(now() - begin, HOUR);
                Ok(())
            });
            Clock::current().advance(ms(10)).await?;
            assert_eq!(now() - begin, ms(10));
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(now() - begin, HOUR);
    });
}

/// A jump waits until nothing came for the threshold.
#[test]
fn r51_the_threshold_gives_threads_time() {
    Builder::new().autojump(Some(HOUR)).run(async {
        let begin = now();
        let event = Arc::new(Event::new());
        let remote = event.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(ms(5));
            remote.set();
        });
        assert_eq!(move_on_after(ms(1), event.wait()).await, Ok(Some(())));
        assert_eq!(now(), begin);
        thread.join().unwrap();
        // R53: it can be changed.
        Clock::current().set_autojump(Some(ms(1)));
        sleep(HOUR).await.unwrap();
        assert_eq!(now() - begin, HOUR);
    });
}

#[test]
fn a_clock_by_hand_needs_virtual_time() {
    let told = panic_of(|| run_real(async || _ = Clock::current()));
    assert!(told.contains("the machine's clock"), "{told}");
    let told = panic_of(|| _ = Clock::current());
    assert!(told.contains("this is no run"), "{told}");
}
