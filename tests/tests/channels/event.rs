//! Events: R75, N3, and R18, R38 for them.

use std::cell::RefCell;
use std::sync::Arc;
use trefoil_nursery::{
    CancelScope, Event, checkpoint_if_cancelled, local_nursery, move_on_after, nursery, sleep, yield_now,
};
use trefoil_tests::{Ended, Trace, drop_at, ms, run_real, run_virtual};

fn waiting(event: &Event) -> usize {
    let text = format!("{event:?}");
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("{text}"))
}

#[test]
fn r75_set_is_idempotent_and_wakes_all() {
    run_virtual(async || {
        let (event, t) = (Event::new(), Trace::new());
        local_nursery(async |n| -> Ended {
            for name in ["a", "b", "c"] {
                let (event, t) = (&event, &t);
                n.spawn(async move {
                    event.wait().await?;
                    t.note(name, "goes on");
                    Ok(())
                });
            }
            sleep(ms(5)).await?;
            assert!(!event.is_set());
            assert_eq!(waiting(&event), 3);
            event.set();
            event.set();
            assert!(event.is_set());
            assert_eq!(waiting(&event), 0);
            Ok(())
        })
        .await
        .unwrap();
        event.set();
        assert_eq!(t.lines(), ["5 a goes on", "5 b goes on", "5 c goes on"]);
    });
}

#[test]
fn r75_wait_on_a_set_event_is_a_checkpoint() {
    run_virtual(async || {
        let event = Event::new();
        event.set();
        for _ in 0..3 {
            event.wait().await.unwrap();
        }
        let scope = CancelScope::new();
        scope.cancel();
        assert_eq!(scope.run(event.wait()).await, Ok(None));
    });
}

#[test]
fn n3_waiters_wake_in_the_order_in_which_they_came() {
    run_virtual(async || {
        let (event, order) = (Event::new(), RefCell::new(Vec::new()));
        local_nursery(async |n| -> Ended {
            for i in 0..20 {
                let (event, order) = (&event, &order);
                n.spawn(async move {
                    // They come in the order of a permutation.
                    sleep(ms(i * 7 % 20)).await?;
                    event.wait().await?;
                    order.borrow_mut().push(i * 7 % 20);
                    Ok(())
                });
            }
            sleep(ms(50)).await?;
            event.set();
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(*order.borrow(), (0..20).collect::<Vec<_>>());
    });
}

#[test]
fn n3_a_cancelled_waiter_in_the_middle_leaves_the_order() {
    run_virtual(async || {
        let (event, order) = (Event::new(), RefCell::new(Vec::new()));
        let scopes: Vec<CancelScope> = (0..5).map(|_| CancelScope::new()).collect();
        local_nursery(async |n| -> Ended {
            for (i, scope) in scopes.iter().enumerate() {
                let (event, order) = (&event, &order);
                n.spawn(async move {
                    let woken = scope.run(event.wait()).await?;
                    order.borrow_mut().push((i, woken.is_some()));
                    Ok(())
                });
            }
            yield_now().await;
            scopes[3].cancel();
            scopes[0].cancel();
            event.set();
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(*order.borrow(), [(3, false), (0, false), (1, true), (2, true), (4, true)]);
    });
}

#[test]
fn r75_an_event_set_from_another_thread() {
    run_real(async || {
        let event = Arc::new(Event::new());
        let remote = event.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(ms(5));
            remote.set();
        });
        nursery(async |n| -> Ended {
            for _ in 0..10 {
                n.spawn(event.wait());
            }
            Ok(())
        })
        .await
        .unwrap();
        thread.join().unwrap();
    });
}

#[test]
fn n5_a_dropped_wait_leaves_nothing_in_the_event() {
    run_virtual(async || {
        let event = Event::new();
        assert_eq!(drop_at(1, event.wait()).await, None);
        assert_eq!(waiting(&event), 0);
        assert_eq!(move_on_after(ms(1), event.wait()).await, Ok(None));
        assert_eq!(waiting(&event), 0);
        event.set();
        checkpoint_if_cancelled().await.unwrap();
        event.wait().await.unwrap();
    });
}
