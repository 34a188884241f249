//! Who holds what a wait wants, and what a report says of it.

use super::{busy, line, partial, quiet};
use trefoil::sync::{CapacityLimiter, Mutex, RwLock, Semaphore};
use trefoil::{Holder, checkpoint, nursery, sleep_forever};
use trefoil_tests::{Ended, deadlocks, run_virtual};

/// Everything that can be held: by whom, since where.
#[test]
fn n10_a_wait_names_who_holds_what_it_wants() {
    let base = line!();
    for report in deadlocks(quiet(), async || {
        let (rwlock, semaphore, limiter) = (RwLock::new(()), Semaphore::new(3), CapacityLimiter::new(1));
        let ended = nursery(async |n| -> Ended {
            n.spawn(async {
                let _readers = (rwlock.read().await?, rwlock.read().await?); // base + 5
                let _permits = semaphore.acquire(2).await?; // base + 6
                let _token = limiter.acquire().await?; // base + 7
                sleep_forever().await
            });
            checkpoint().await?;
            n.spawn(async { rwlock.write().await.map(drop) });
            n.spawn(async { semaphore.acquire(2).await.map(drop) });
            n.spawn(async { limiter.acquire().await.map(drop) });
            Ok(())
        })
        .await;
        ended.is_err()
    }) {
        let held = |at: u32| -> Vec<(u32, usize)> {
            let task = report.tasks().iter().find(|task| line(task.place()) == base + at).unwrap();
            let units = |holder: &Holder| (line(holder.place()) - base, if at == 12 { holder.units() } else { 1 });
            assert!(task.waits()[0].holders().iter().all(|holder| line(holder.task().place()) == base + 4));
            task.waits()[0].holders().iter().map(units).collect()
        };
        assert_eq!((held(11), held(12), held(13)), (vec![(5, 1), (5, 1)], vec![(6, 2)], vec![(7, 1)]), "{report}");
        assert!(report.to_string().contains(&format!("(2 acquired at holders.rs:{})", base + 6)), "{report}");
        assert_eq!(report.cycles().count(), 0);
    }
}

/// A holder is who got it last, also where it was handed over (R76); and nobody, when it was given back.
#[test]
fn n10_the_holder_changes_with_the_hand_over() {
    run_virtual(async || {
        let lock = Mutex::new(());
        let shown = || format!("{lock:?}");
        assert!(shown().contains("value: ()"), "{}", shown());
        let first = lock.lock().await.unwrap();
        assert!(shown().contains("holder: [the main task"), "{}", shown());
        nursery(async |n| -> Ended {
            n.spawn(async {
                let _second = lock.lock().await?;
                assert!(shown().contains("holder: [task"), "{}", shown());
                Ok(())
            });
            checkpoint().await?;
            assert!(shown().contains("waiting: 1"), "{}", shown());
            drop(first);
            Ok(())
        })
        .await
        .unwrap();
        assert!(shown().contains("value: ()"), "{}", shown());
    });
}

/// Nobody has what there is not.
#[test]
fn n10_who_wants_more_than_there_is_is_told() {
    let base = line!();
    for report in deadlocks(quiet(), async || {
        let (none, slots) = (CapacityLimiter::new(0), Semaphore::new(2));
        let ended = nursery(async |n| -> Ended {
            n.spawn(async { none.acquire().await.map(drop) }); // base + 4
            n.spawn(async { slots.acquire(3).await.map(drop) });
            Ok(())
        });
        ended.await.is_err()
    }) {
        let text = report.to_string();
        let none = ("a token of a limiter", ", of which there are none");
        let few = ("permits", ": 3 at once, of which there are 2 in all");
        for (line, (what, said)) in [(base + 4, none), (base + 5, few)] {
            let waits = format!("- task holders.rs:{line} waits for {what} at holders.rs:{line} since ");
            assert!(text.lines().any(|line| line.starts_with(&waits) && line.ends_with(said)), "{text}");
        }
    }
}

/// No line of the library is in a tree: who starts a child waits in a shield that stands where it was called.
#[test]
fn r68_who_starts_a_child_waits_where_it_called() {
    let base = line!();
    for report in deadlocks(quiet(), async || {
        let ended = nursery(async |n| -> std::io::Result<()> {
            n.start(async |_never: trefoil::Started<'_, ()>| Ok(sleep_forever().await?)).await // base + 3
        });
        ended.await.is_err()
    }) {
        let text = report.to_string();
        assert!(text.contains(&format!("shield holders.rs:{}\n", base + 3)) && !text.contains("start.rs"), "{text}");
    }
}

/// Whoever reads a report looks for the names that he gave.
#[test]
fn n10_a_holder_is_called_by_its_name() {
    let base = line!();
    for report in deadlocks(partial(), async || {
        let (left, right) = (Mutex::new(()), Semaphore::new(2));
        let ended = nursery(async |n| -> Ended {
            n.spawn(busy());
            n.spawn_named("writer", async {
                let _left = left.lock().await?;
                checkpoint().await?;
                right.acquire(1).await.map(drop)
            });
            n.spawn_named("reader", async {
                let _right = right.acquire(2).await?;
                checkpoint().await?;
                left.lock().await.map(drop)
            });
            Ok(())
        })
        .await;
        ended.is_err()
    }) {
        let text = report.to_string();
        let (a, b) =
            (format!("task `writer` (holders.rs:{})", base + 5), format!("task `reader` (holders.rs:{})", base + 10));
        for part in [
            format!("- {a} waits for permits at holders.rs:{} since", base + 8),
            format!("held by {b} (2 acquired at holders.rs:{})", base + 11),
            format!("held by {a} (acquired at holders.rs:{})", base + 6),
        ] {
            assert!(text.contains(&part), "{part:?} in {text}");
        }
        let cycle = [format!("cycle: {a} → {b} → {a}"), format!("cycle: {b} → {a} → {b}")];
        assert!(cycle.iter().any(|cycle| text.contains(cycle)), "{text}");
        let names: Vec<_> =
            report.tasks().iter().flat_map(|task| task.waits()).flat_map(|wait| wait.holder_names()).collect();
        assert!(names.contains(&Some("writer")) && names.contains(&Some("reader")), "{names:?}");
    }
}
