//! What a run does that is ended: it cleans up, says why, and once, and names what cannot clean up.

use super::{crossed, quiet};
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use trefoil::sync::Mutex;
use trefoil::{Event, Reason, Source, cancel_cause, move_on_after, nursery, shield, sleep, sleep_forever};
use trefoil_tests::{Ended, Log, OnDrop, deadlocks, ms};

/// Where nothing else goes on, the report of the run has the cycle in it: it is not told twice.
#[test]
fn n10_a_run_that_ends_says_so_once() {
    let log = Log::default();
    let runs = deadlocks(quiet(), async || {
        let (left, right) = (Mutex::new(()), Mutex::new(()));
        let ended = nursery(async |n| -> Ended {
            n.spawn(crossed(&left, &right));
            n.spawn(crossed(&right, &left));
            Ok(())
        });
        ended.await.unwrap_err();
    });
    assert!(runs.iter().all(|report| report.cycles().count() == 1));
    assert!(!log.lines().iter().any(|line| line.contains("deadlock (N10)")), "{:?}", log.lines());
}

/// It is cancelled, and cleans up.
#[test]
fn n10_a_run_that_is_ended_cleans_up_first() {
    let cleaned = AtomicUsize::new(0);
    let runs = deadlocks(quiet(), async || {
        nursery(async |n| -> Ended {
            n.spawn(async {
                assert!(sleep_forever().await.is_err());
                // Clean-up that takes time.
                shield(sleep(ms(1))).await.unwrap();
                cleaned.fetch_add(1, SeqCst);
                Ok(())
            });
            Ok(())
        })
        .await
        .unwrap_err();
    });
    assert_eq!(cleaned.into_inner(), runs.len());
}

/// Who unwraps what it was told then panics before the run has ended: the text of that says what the cause is.
#[test]
fn n10_a_cancellation_by_the_end_says_so() {
    let said = std::sync::Mutex::new(Vec::new());
    let runs = deadlocks(quiet(), async || {
        let cancelled = move_on_after(Duration::ZERO, async {
            let cancelled = sleep_forever().await.unwrap_err();
            let texts = (format!("{cancelled:?}"), cancelled.to_string());
            assert_eq!(texts, ("Cancelled".into(), "cancelled: the scope around this operation was cancelled".into()));
            Err::<(), _>(cancelled)
        });
        assert_eq!(cancelled.await, Ok(None));
        let cancelled = sleep_forever().await.unwrap_err();
        let cause = cancel_cause().unwrap();
        assert_eq!(cause.source, Source::Deadlock);
        said.lock().unwrap().push([format!("{cancelled:?}"), cancelled.to_string(), cause.to_string()]);
    });
    let said = said.into_inner().unwrap();
    assert_eq!(said.len(), runs.len());
    for [debug, display, cause] in said {
        let why = "the run is in a deadlock, and ends with a report of who waits for what (N10)";
        assert_eq!((debug, display), (format!("Cancelled ({why})"), format!("cancelled: {why}")));
        assert!(
            cause.starts_with("cancelled: run ")
                && cause.ends_with("is in a deadlock, and ends with a report of it (N10)")
        );
    }
}

/// What main returns then has no room beside the report. That it is dropped is said.
#[test]
fn n10_what_main_returns_after_that_is_not_dropped_in_silence() {
    for report in deadlocks(quiet(), async || sleep_forever().await.map_err(|_| "half a file is left")) {
        let text = report.to_string();
        let last = text.lines().last().unwrap();
        assert!(last.ends_with("its output, of type Result<(), &str>, was dropped"), "{text}");
        assert_eq!(report.dropped_output(), Some("core::result::Result<(), &str>"));
    }
}

/// What cannot be told is dropped (N13); what is shielded for ever, too; and a clean-up that panics hides no report.
#[test]
fn n10_clean_up_that_cannot_go_on_is_cut_short() {
    let dropped = AtomicUsize::new(0);
    for kind in 0..3 {
        let runs = deadlocks(quiet(), async || {
            let _guard = OnDrop(&dropped);
            match kind {
                0 => pending().await,
                1 => drop(shield(sleep_forever()).await),
                _ => sleep_forever().await.unwrap(),
            }
        });
        assert_eq!(dropped.swap(0, SeqCst), runs.len());
    }
}

/// What cannot even clean up stands at the end of the report, and nothing is said before that.
#[test]
fn n10_what_cannot_clean_up_is_named_at_the_end() {
    let (base, log) = (line!(), Log::default());
    for report in deadlocks(quiet(), async || {
        let closed = Event::new();
        let ended = nursery(async |n| -> Ended {
            n.spawn_named("cleans", async {
                let cancelled = sleep_forever().await;
                shield(closed.wait()).await.unwrap(); // base + 6
                cancelled
            });
            Ok(())
        });
        let _ = ended.await;
    }) {
        assert_eq!(
            report
                .tasks()
                .iter()
                .map(|task| task.waits()[0].reason())
                .filter(|reason| *reason == Reason::Forever)
                .count(),
            1
        );
        let named = report.dropped().iter().find_map(|task| Some((task.name()?, task.waits()[0].reason())));
        assert_eq!(named, Some(("cleans", Reason::Event)), "{report}");
        let text = report.to_string();
        let (before, after) =
            text.split_once("\nwhat could not end after it was cancelled, and was dropped:\n").unwrap();
        let waits = format!(
            "- task `cleans` (ended_runs.rs:{}) waits for an event (made at ended_runs.rs:{}) at ended_runs.rs:{} since ",
            base + 4,
            base + 2,
            base + 6
        );
        assert!(after.lines().any(|line| line.starts_with(&waits)) && !before.contains(&waits), "{text}");
    }
    assert!(!log.lines().iter().any(|line| line.contains("live children")), "{:?}", log.lines());
}
