//! `cancel_sweep` and `drop_sweep` find what is planted, and say where: R36, N5, N10.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use trefoil_nursery::{Cancelled, Event, channel, checkpoint, local_nursery, nursery, sleep};
use trefoil_runtime::Reason;
use trefoil_testing::{Moment, cancel_sweep, drop_sweep};
use trefoil_tests::{Ended, ms, panic_of};

#[test]
fn r36_n5_a_sweep_finds_an_item_lost_at_a_turn_given_up() {
    let line = Cell::new(0);
    let scenario = async |cut: &trefoil_testing::Cut| {
        let (tx, rx) = channel(3);
        let got = RefCell::new(Vec::new());
        for i in 0..3 {
            tx.try_send(i).unwrap();
        }
        let ended = cut.run(async {
            for _ in 0..3 {
                let item = rx.recv().await?.unwrap();
                if item == 1 {
                    // Planted: who is stopped here loses it.
                    line.set(line!() + 1);
                    checkpoint().await?;
                }
                got.borrow_mut().push(item);
            }
            Ok::<_, Cancelled>(())
        });
        ended.await.unwrap();
        let mut got = got.into_inner();
        got.extend(std::iter::from_fn(|| rx.try_recv().ok()));
        assert_eq!(got, [0, 1, 2]);
    };
    let cancelled = panic_of(|| drop(cancel_sweep(scenario)));
    let dropped = panic_of(|| drop(drop_sweep(scenario)));
    let place = format!("at tests/tests/testing/sweep_finds.rs:{}:", line.get());
    for (found, what) in [
        (cancelled, format!("was cancelled asleep in await 2, and told {place}")),
        (dropped, format!("was dropped asleep in await 2, before the operation {place}")),
    ] {
        assert!(found.contains(&what) && found.contains("[0, 2]"), "{found}");
    }
}

#[test]
fn n5_a_sweep_finds_an_item_lost_in_a_wait() {
    for (sweep, done) in [(true, "cancelled"), (false, "dropped")] {
        let line = Cell::new(0);
        let scenario = async |cut: &trefoil_testing::Cut| {
            let (tx, rx) = channel(1);
            let got = RefCell::new(Vec::new());
            local_nursery(async |n| -> Ended {
                n.spawn(async move { tx.send(7).await.map_err(|_| Cancelled::delivered()) });
                cut.run(async {
                    let item = rx.recv().await?;
                    line.set(line!() + 1);
                    sleep(ms(3)).await?; // planted
                    got.borrow_mut().push(item.unwrap());
                    Ok::<_, Cancelled>(())
                })
                .await?;
                while let Some(item) = rx.recv().await? {
                    got.borrow_mut().push(item);
                }
                Ok(())
            })
            .await
            .unwrap();
            assert_eq!(got.into_inner(), [7]);
        };
        let found = panic_of(|| drop(if sweep { cancel_sweep(scenario) } else { drop_sweep(scenario) }));
        let place = format!("at tests/tests/testing/sweep_finds.rs:{}:", line.get());
        match sweep {
            // Already where it has the item in hand and has not looked (R18), it is told at the sleep.
            true => assert!(found.contains("woken from await 1") && found.contains(&format!("told {place}"))),
            false => assert!(found.contains("asleep in await 2") && found.contains(&format!("for sleep {place}"))),
        }
        assert!(found.contains(&format!("was {done}")) && found.contains("[]"), "{found}");
    }
}

/// A hand-off that forgets that whom it hands to may be gone before it looks.
#[test]
fn n5_a_sweep_finds_an_item_lost_between_its_hand_over_and_the_look() {
    let found = panic_of(|| {
        drop_sweep(async |cut| {
            let queue = RefCell::new(VecDeque::from([7]));
            let (handed, come) = (Cell::new(None), Event::new());
            let (got, over) = (Cell::new(None), Event::new());
            local_nursery(async |n| -> Ended {
                n.spawn(async {
                    sleep(ms(1)).await?;
                    if !over.is_set() {
                        handed.set(queue.borrow_mut().pop_front()); // planted: it belongs to nobody now
                        come.set();
                    }
                    Ok(())
                });
                cut.run(async {
                    come.wait().await?;
                    got.set(handed.take());
                    Ok::<_, Cancelled>(())
                })
                .await?;
                over.set();
                Ok(())
            })
            .await
            .unwrap();
            assert!(got.get().is_some() || queue.borrow().len() == 1, "the item is gone");
        });
    });
    assert!(found.contains("was dropped woken from await 1"), "{found}");
    assert!(
        found.contains("for an event at tests/tests/testing/sweep_finds.rs") && found.contains("the item is gone"),
        "{found}"
    );
}

/// What is lost may be a wake-up: then somebody waits for ever.
#[test]
fn n10_a_sweep_reports_who_waits_for_what_was_lost() {
    let found = panic_of(|| {
        cancel_sweep(async |cut| {
            let done = Event::new();
            local_nursery(async |n| -> Ended {
                n.spawn(async { done.wait().await });
                cut.run(async {
                    checkpoint().await?;
                    done.set(); // planted: not when it is cancelled
                    Ok::<_, Cancelled>(())
                })
                .await?;
                Ok(())
            })
            .await
            .unwrap();
        });
    });
    assert!(found.contains("was cancelled before it began"), "{found}");
    assert!(found.contains("deadlock (N10)") && found.contains("waits for an event"), "{found}");
}

#[test]
fn r36_a_sweep_goes_through_all_awaits() {
    let scenario = async |cut: &trefoil_testing::Cut| -> Ended {
        let (tx, rx) = channel(0);
        let (mut sent, mut got) = (0, Vec::new());
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                while let Some(item) = rx.recv().await? {
                    got.push(item);
                }
                Ok(())
            });
            cut.run(async {
                for i in 0..3 {
                    tx.send(i).await.map_err(|_| Cancelled::delivered())?;
                    sent += 1;
                    sleep(ms(1)).await?;
                }
                Ok::<_, Cancelled>(())
            })
            .await?;
            drop(tx);
            Ok(())
        })
        .await?;
        assert!(got.len() == sent || (cut.reached() && got.len() == sent + 1));
        Ok(())
    };
    for points in [cancel_sweep(scenario), drop_sweep(scenario)] {
        assert_eq!((points[0].at, points[0].moment), (0, Moment::Woken));
        assert!(points.len() >= 7, "{points:?}");
        let sleeps = points.iter().filter(|p| p.waits.iter().any(|w| w.reason == Reason::Sleep));
        assert_eq!(sleeps.count(), 6, "three sleeps, asleep and woken");
    }
}

/// `Cut` is for children that are `Send`, too.
#[test]
fn a_sweep_of_a_child() {
    let points = cancel_sweep(async |cut| {
        nursery(async |n| -> Ended {
            n.spawn(async { cut.run(sleep(ms(1))).await.map(drop) });
            Ok(())
        })
        .await
        .unwrap();
    });
    assert_eq!(points.len(), 3);
}

#[test]
fn a_sweep_wants_one_operation() {
    let none = panic_of(|| drop(cancel_sweep(async |_| {})));
    assert!(none.contains("never runs an operation"), "{none}");
    let two = panic_of(|| {
        drop(cancel_sweep(async |cut| {
            for _ in 0..2 {
                cut.run(checkpoint()).await.unwrap();
            }
        }));
    });
    assert!(two.contains("one operation that is stopped"), "{two}");
}

#[test]
fn a_sweep_sees_what_is_left_over() {
    let left = panic_of(|| {
        drop(cancel_sweep(async |cut| {
            cut.run(checkpoint()).await.unwrap();
            // A wait that is kept, and never ended.
            let mut wait = Box::pin(Box::leak(Box::new(Event::new())).wait());
            assert!(trefoil_tests::poll_once(wait.as_mut()).await.is_pending());
            std::mem::forget(wait);
        }));
    });
    assert!(left.contains("left over (tasks, scopes, waits, timers)") && left.contains("(0, 0, 1, 0)"), "{left}");
}
