//! Futurelock: a future that has got what others wait for, and that nobody polls.

use super::{begin, busy, cycle, line, partial, quiet};
use futures::future::{Either, select};
use std::pin::pin;
use std::time::Duration;
use trefoil::sync::{Mutex, Semaphore};
use trefoil::{Event, nursery, sleep};
use trefoil_tests::{Ended, deadlocks, ms, run};

/// A lock is handed over to who has waited longest (R76), also to a future that was polled once and lies about since.
#[test]
fn n10_a_lock_that_a_future_has_which_nobody_polls_is_found() {
    let base = line!();
    for report in deadlocks(quiet(), async || {
        let lock = Mutex::new(());
        let guard = lock.lock().await.unwrap();
        let mut lies_about = pin!(lock.lock()); // base + 4
        begin(lies_about.as_mut()).await;
        drop(guard);
        lock.lock().await.is_err() // base + 7
    }) {
        assert_eq!(cycle(&report), [base + 1], "{report}");
        let [task] = report.tasks() else { panic!("{report}") };
        let waits: Vec<_> = task.waits().iter().map(|wait| (line(wait.place()), wait.is_unpolled())).collect();
        assert_eq!(waits, [(base + 4, true), (base + 7, false)]);
        let (text, main) = (report.to_string(), format!("the main task (unpolled.rs:{})", base + 1));
        for part in [
            format!(
                "- {main} does not poll a future that has got what it waited for: a lock at unpolled.rs:{}; ",
                base + 4
            ),
            format!("held by a future of {main} that is not polled (waits at unpolled.rs:{})\n", base + 4),
            "\nfuturelock: poll such a future to its end, or drop it, before its task waits for anything else\n".into(),
            format!("├─ does not poll a future that has got what it waited for: a lock at unpolled.rs:{}\n", base + 4),
        ] {
            assert!(text.contains(&part), "{part:?} in {text}");
        }
        let json = trefoil_inspect::tree_to_json(report.tree());
        assert_eq!(json["tasks"][0]["waits"][0]["unpolled"], true, "{json}");
    }
}

/// The same while others go on: who has had enough of waiting for a lock, and wants it again while the first future is still there.
#[test]
fn n10_a_future_that_nobody_polls_is_in_a_cycle() {
    for report in deadlocks(partial(), async || {
        let (lock, slots) = (Mutex::new(()), Semaphore::new(2));
        let ended = nursery(async |n| -> Ended {
            n.spawn(busy());
            n.spawn(async {
                let _both = (lock.lock().await?, slots.acquire(1).await?);
                sleep(ms(50)).await
            });
            n.spawn_named("one", async {
                sleep(ms(1)).await?;
                let mut lies_about = pin!(lock.lock());
                begin(lies_about.as_mut()).await;
                lock.lock().await.map(drop)
            });
            n.spawn_named("two", async {
                sleep(ms(1)).await?;
                let mut lies_about = pin!(slots.acquire(2));
                begin(lies_about.as_mut()).await;
                slots.acquire(1).await.map(drop)
            });
            // Futurelock: it has the lock in its own hands, in a future that has slept enough since.
            n.spawn_named("three", async {
                let own = Mutex::new(());
                let mut work = pin!(async {
                    let _guard = own.lock().await?;
                    sleep(ms(2)).await
                });
                assert!(matches!(select(&mut work, pin!(sleep(ms(1)))).await, Either::Right(_)));
                own.lock().await.map(drop)
            });
            // It waits for them, and is in no cycle.
            n.spawn(async { lock.lock().await.map(drop) });
            Ok(())
        });
        ended.await.is_err()
    }) {
        let mut cycles: Vec<_> = report.cycles().map(|cycle| cycle[0].name().unwrap().to_string()).collect();
        cycles.sort();
        assert_eq!(cycles, ["one", "three", "two"], "{report}");
        assert!(report.cycles().all(|cycle| cycle.len() == 1), "{report}");
    }
}

/// What a future has got that is polled late, by a task that something else wakes, is no deadlock.
#[test]
fn n10_a_future_that_is_polled_again_is_no_cycle() {
    run(partial(), async || {
        let (lock, later) = (Mutex::new(()), Event::new());
        nursery(async |n| -> Ended {
            n.spawn(async {
                let _guard = lock.lock().await?;
                sleep(ms(50)).await
            });
            n.spawn(async {
                let mut lies_about = pin!(lock.lock());
                begin(lies_about.as_mut()).await;
                later.wait().await?;
                lies_about.await.map(drop)
            });
            n.spawn(async { lock.lock().await.map(drop) });
            sleep(Duration::from_secs(300)).await?;
            later.set();
            Ok(())
        })
        .await
        .unwrap();
    });
}
