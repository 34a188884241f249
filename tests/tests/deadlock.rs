//! N10: programs that cannot go on, and how they say so. What depends on there being no other thread in the process is in `deadlock_alone.rs`.

use futures::future::{Either, join_all, select};
use futures::stream::{FuturesUnordered, StreamExt, iter};
use std::future::{pending, poll_fn};
use std::panic::Location;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Poll;
use std::time::Duration;
use trefoil::sync::{CapacityLimiter, Mutex, RwLock, Semaphore, oneshot};
use trefoil::{
    Builder, Cancelled, Deadlock, Detection, DriverKind, Event, Holder, Join, Limits, Reason, Role, RunError, Source,
    cancel_cause, channel, checkpoint, local_nursery, move_on_after, nursery, shield, sleep, sleep_forever,
    wake_sources, yield_now,
};
use trefoil_runtime::Options;
use trefoil_tests::{Log, OnDrop, deadlocks, ms, run, run_real, run_virtual};

type Ended = Result<(), Cancelled>;

/// A run that is ended when nothing moves. No other thread has to do with it.
fn quiet() -> Options {
    Options { deadlock: Detection::After(ms(1)), ..Options::default() }
}

/// The line of a place, if it is in this file.
fn line(place: &Location<'_>) -> u32 {
    assert!(place.file().ends_with("deadlock.rs"), "{place}");
    place.line()
}

/// The lines of the tasks of the only cycle, from the smallest.
fn cycle(report: &Deadlock) -> Vec<u32> {
    let cycles: Vec<_> = report.cycles().collect();
    assert_eq!(cycles.len(), 1, "{report}");
    let mut lines: Vec<u32> = cycles[0].iter().map(|task| line(task.place())).collect();
    let first = (0..lines.len()).min_by_key(|at| lines[*at]).unwrap();
    lines.rotate_left(first);
    lines
}

// ---- The three classics --------------------------------------------------------------------------------------------

/// Rows 16 and 17 of the list of silent failures: two locks, in different order.
#[test]
fn n10_two_locks_crossed() {
    let base = line!();
    for report in deadlocks(quiet(), async || {
        let (left, right) = (Mutex::new(()), Mutex::new(()));
        let ended = nursery(async |n| -> Ended {
            n.spawn(async {
                let _left = left.lock().await?; // base + 5
                checkpoint().await?;
                right.lock().await.map(drop) // base + 7
            });
            n.spawn(async {
                let _right = right.lock().await?; // base + 10
                checkpoint().await?;
                left.lock().await.map(drop) // base + 12
            });
            Ok(())
        })
        .await;
        ended.map_err(|error| error.to_string())
    }) {
        assert_eq!(cycle(&report), [base + 4, base + 9], "{report}");
        for (task, waits, held) in
            [(base + 4, base + 7, (base + 9, base + 10)), (base + 9, base + 12, (base + 4, base + 5))]
        {
            let task = report.tasks().iter().find(|found| line(found.place()) == task).unwrap();
            assert_eq!(task.task().role(), Role::Child);
            let [wait] = task.waits() else { panic!("{task:?}") };
            assert_eq!((wait.reason(), line(wait.place())), (Reason::Lock, waits));
            let [holder] = wait.holders() else { panic!("{wait:?}") };
            assert_eq!((line(holder.task().place()), line(holder.place())), held);
        }
        let text = report.to_string();
        let (a, b) = (base + 4, base + 9);
        for part in [
            "deadlock (N10): every task waits".to_string(),
            format!("task deadlock.rs:{a} → task deadlock.rs:{b} → task deadlock.rs:{a}"),
            format!("waits for a lock at deadlock.rs:{} since", base + 7),
            format!("held by task deadlock.rs:{b} (acquired at deadlock.rs:{})", base + 10),
        ] {
            assert!(text.contains(&part), "{part:?} in {text}");
        }
    }
}

/// Row 19: the receiver has a sender in its own hands, so the end never comes.
#[test]
fn n10_a_sender_that_is_gone_from_view_is_named() {
    let base = line!();
    for report in deadlocks(quiet(), async || {
        let (sender, receiver) = channel::<u8>(1); // base + 2
        let more = sender.clone(); // base + 3
        drop(sender);
        let received = receiver.recv().await; // base + 5
        drop(more);
        received.is_err()
    }) {
        let [task] = report.tasks() else { panic!("{report}") };
        assert_eq!(task.task().role(), Role::Main);
        let [wait] = task.waits() else { panic!("{report}") };
        assert_eq!((wait.reason(), line(wait.place())), (Reason::Receive, base + 5));
        assert_eq!(wait.holders().iter().map(|end| line(end.place())).collect::<Vec<_>>(), [base + 3], "{report}");
        assert_eq!(cycle(&report).len(), 1, "the main task has it itself: {report}");
        let text = report.to_string();
        assert!(text.contains(&format!("whose sender is that of the main task (deadlock.rs:{})", base + 1)), "{text}");
    }
}

/// Row 18: each waits for the value of the other.
#[test]
fn n10_tasks_that_await_each_other() {
    let base = line!();
    for report in deadlocks(quiet(), async || {
        let ended = local_nursery(async |n| -> Ended {
            let (give_one, mut take_one) = oneshot::<Join<'_, ()>>();
            let (give_two, mut take_two) = oneshot::<Join<'_, ()>>();
            let one = n.spawn(async move {
                let two = take_one.recv().await?.unwrap();
                two.await // base + 7
            });
            let two = n.spawn(async move {
                let one = take_two.recv().await?.unwrap();
                one.await // base + 11
            });
            assert!(give_one.send(two).is_ok() && give_two.send(one).is_ok());
            Ok(())
        })
        .await;
        ended.is_err()
    }) {
        assert_eq!(cycle(&report), [base + 5, base + 9], "{report}");
        let children: Vec<_> = report.tasks().iter().filter(|task| task.task().role() == Role::Child).collect();
        assert!(children.iter().all(|task| matches!(task.waits(), [wait] if wait.reason() == Reason::Join)));
        let [one, two] = children[..] else { panic!("{report}") };
        assert_eq!((one.waits()[0].child(), two.waits()[0].child()), (Some(two.task()), Some(one.task())));
        assert_eq!([line(one.waits()[0].place()), line(two.waits()[0].place())], [base + 7, base + 11], "{report}");
        let text = report.to_string();
        for (task, child, at) in [(base + 5, base + 9, base + 7), (base + 9, base + 5, base + 11)] {
            let waits = format!(
                "- task deadlock.rs:{task} waits for task deadlock.rs:{child} to end at deadlock.rs:{at} since "
            );
            assert!(text.contains(&waits), "{text}");
        }
    }
}

/// By way of a combinator, ours or the standard library's, it is not known where: then it is not said.
#[test]
fn n10_a_handle_that_a_combinator_polls_says_nothing_of_where() {
    let base = line!();
    for report in deadlocks(quiet(), async || {
        let ended = nursery(async |n| -> Ended {
            let child = n.spawn(sleep_forever()); // base + 3
            let other = n.spawn(sleep_forever());
            n.spawn(async { move_on_after(Duration::MAX, child).await.map(drop) });
            n.spawn(Box::pin(other));
            Ok(())
        })
        .await;
        ended.is_err()
    }) {
        let text = report.to_string();
        for (task, child) in [(base + 5, base + 3), (base + 6, base + 4)] {
            let waits = format!("- task deadlock.rs:{task} waits for task deadlock.rs:{child} to end since ");
            assert!(text.contains(&waits), "{text}");
        }
    }
}

// ---- Who holds it --------------------------------------------------------------------------------------------------

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
        assert!(report.to_string().contains(&format!("(2 acquired at deadlock.rs:{})", base + 6)), "{report}");
        assert_eq!(report.cycles().count(), 0);
    }
}

/// The body of a nursery is a part of the task that opened it. That this one waits for its body is no news; who has what the body wants is.
#[test]
fn n10_a_task_and_the_body_of_its_nursery_are_no_line_of_a_cycle() {
    let base = line!();
    let options = Options { virtual_time: true, ..quiet() };
    for report in deadlocks(options, async || {
        let (sender, receiver) = channel::<u8>(1); // base + 3
        sleep(ms(1_000)).await.unwrap();
        let ended = nursery(async |n| -> Ended {
            n.spawn(sleep(ms(2_000)));
            receiver.recv().await.map(drop) // base + 7
        });
        let ended = ended.await; // base + 5
        drop(sender);
        ended.is_err()
    }) {
        assert_eq!(report.cycles().map(|cycle| cycle.len()).collect::<Vec<_>>(), [2], "as data it is there: {report}");
        let text = report.to_string();
        let main = format!("the main task (deadlock.rs:{})", base + 2);
        let lines: Vec<_> = text.lines().skip(1).collect();
        assert_eq!(
            lines[..2],
            [
                format!(
                    "- the body of nursery deadlock.rs:{} waits for an item of a channel at deadlock.rs:{} since 2.0 s, whose sender is that of {main} (made at deadlock.rs:{})",
                    base + 5,
                    base + 7,
                    base + 3
                ),
                format!("- {main} waits for the children of a nursery at deadlock.rs:{} since 2.0 s", base + 5),
            ],
            "{text}"
        );
    }
}

/// Who made the ends of a channel, and waits for those that it has lent them to, is in no line of a cycle either.
#[test]
fn n10_who_lent_its_channels_is_no_line_of_a_cycle() {
    let base = line!();
    for report in deadlocks(quiet(), async || {
        let ((to_left, left), (to_right, right)) = (channel::<u8>(0), channel::<u8>(0)); // base + 2
        let ended = nursery(async |n| -> Ended {
            n.spawn(async {
                to_right.send(1).await.map_err(|_| Cancelled::delivered())?;
                left.recv().await.map(drop)
            });
            n.spawn(async {
                to_left.send(1).await.map_err(|_| Cancelled::delivered())?;
                right.recv().await.map(drop)
            });
            Ok(())
        });
        ended.await.is_err()
    }) {
        let text = report.to_string();
        assert!(!text.contains("cycle:"), "{text}");
        let made = format!(
            "whose receiver is that of the main task (deadlock.rs:{}) (made at deadlock.rs:{})",
            base + 1,
            base + 2
        );
        assert_eq!(text.matches(&made).count(), 2, "{text}");
    }
}

/// But the body of a nursery of another task is somebody else.
#[test]
fn n10_a_task_and_the_body_of_another_are_a_cycle() {
    for report in deadlocks(quiet(), async || {
        let (left, right) = (Mutex::new(()), Mutex::new(()));
        let ended = nursery(async |n| -> Ended {
            n.spawn(async {
                let _left = left.lock().await?;
                checkpoint().await?;
                right.lock().await.map(drop)
            });
            let _right = right.lock().await?;
            checkpoint().await?;
            left.lock().await.map(drop)
        });
        ended.await.is_err()
    }) {
        let text = report.to_string();
        let cycle = text.lines().find(|line| line.starts_with("cycle: "));
        assert!(cycle.is_some_and(|cycle| cycle.contains("the body of nursery")), "{text}");
    }
}

/// How long the children of a nursery are awaited counts from the end of its body.
#[test]
fn n10_children_are_awaited_since_the_body_was_done() {
    let options = Options { virtual_time: true, ..quiet() };
    for report in deadlocks(options, async || {
        let ended = nursery(async |n| -> Ended {
            n.spawn(async {
                sleep(ms(5_000)).await?;
                sleep_forever().await
            });
            sleep(ms(3_000)).await
        });
        ended.await.is_err()
    }) {
        let main = report.tasks().iter().find(|task| task.task().role() == Role::Main).unwrap();
        let [wait] = main.waits() else { panic!("{report}") };
        assert!(wait.reason() == Reason::Children && wait.since().abs_diff(ms(2_000)) < ms(3), "{report}");
        let nursery = &report.tree().tasks[0].scopes[0];
        assert!(nursery.awaited.unwrap().abs_diff(ms(2_000)) < ms(3), "{report}");
        assert!(nursery.to_string().contains(", 1 child, awaited since 2.0 s\n"), "{nursery}");
        let json = trefoil_inspect::tree_to_json(report.tree());
        assert!((json["tasks"][0]["scopes"][0]["awaited"].as_f64().unwrap() - 2.0).abs() < 0.003, "{json}");
    }
}

async fn crossed(left: &Mutex<()>, right: &Mutex<()>) -> Ended {
    let _left = left.lock().await?;
    checkpoint().await?;
    right.lock().await.map(drop)
}

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

/// But one that another thread wakes again and again never gets to such a report.
#[test]
fn n10_a_cycle_is_told_of_in_a_run_that_a_thread_keeps_going() {
    for kind in [DriverKind::Epoll, DriverKind::IoUring] {
        let log = Log::default();
        let (sender, receiver) = channel::<()>(1);
        let stop = Arc::new(AtomicUsize::new(0));
        let stopped = stop.clone();
        let feeder = std::thread::spawn(move || {
            while stopped.load(SeqCst) == 0 && sender.send_blocking(()).is_ok() {
                std::thread::sleep(ms(1));
            }
        });
        Builder::new().driver(kind).run(async {
            let (left, right) = (Mutex::new(()), Mutex::new(()));
            let ended = nursery(async |n| -> Ended {
                n.spawn(crossed(&left, &right));
                n.spawn(crossed(&right, &left));
                while !log.lines().iter().any(|line| line.starts_with("deadlock (N10): some tasks wait for each other"))
                {
                    receiver.recv().await?;
                }
                n.cancel();
                Ok(())
            });
            ended.await.unwrap();
        });
        stop.store(1, SeqCst);
        drop(receiver);
        feeder.join().unwrap();
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

/// A lock is handed over to who has waited longest (R76), also to a future that was polled once and lies about since.
#[test]
fn n10_a_lock_that_a_future_has_which_nobody_polls_is_found() {
    let base = line!();
    for report in deadlocks(quiet(), async || {
        let lock = Mutex::new(());
        let guard = lock.lock().await.unwrap();
        let mut lies_about = pin!(lock.lock()); // base + 4
        poll_once(lies_about.as_mut()).await;
        drop(guard);
        lock.lock().await.is_err() // base + 7
    }) {
        assert_eq!(cycle(&report), [base + 1], "{report}");
        let [task] = report.tasks() else { panic!("{report}") };
        let waits: Vec<_> = task.waits().iter().map(|wait| (line(wait.place()), wait.is_unpolled())).collect();
        assert_eq!(waits, [(base + 4, true), (base + 7, false)]);
        let (text, main) = (report.to_string(), format!("the main task (deadlock.rs:{})", base + 1));
        for part in [
            format!(
                "- {main} does not poll a future that has got what it waited for: a lock at deadlock.rs:{}; ",
                base + 4
            ),
            format!("held by a future of {main} that is not polled (waits at deadlock.rs:{})\n", base + 4),
            "\nfuturelock: poll such a future to its end, or drop it, before its task waits for anything else\n".into(),
            format!("├─ does not poll a future that has got what it waited for: a lock at deadlock.rs:{}\n", base + 4),
        ] {
            assert!(text.contains(&part), "{part:?} in {text}");
        }
        let json = trefoil_inspect::tree_to_json(report.tree());
        assert_eq!(json["tasks"][0]["waits"][0]["unpolled"], true, "{json}");
    }
}

async fn poll_once(mut future: Pin<&mut impl Future>) {
    poll_fn(|cx| {
        assert!(future.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
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
                poll_once(lies_about.as_mut()).await;
                lock.lock().await.map(drop)
            });
            n.spawn_named("two", async {
                sleep(ms(1)).await?;
                let mut lies_about = pin!(slots.acquire(2));
                poll_once(lies_about.as_mut()).await;
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
                poll_once(lies_about.as_mut()).await;
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

// ---- What a run does that is ended ---------------------------------------------------------------------------------

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
    let log = Log::default();
    let runs = deadlocks(quiet(), async || sleep_forever().await.map_err(|_| "half a file is left"));
    let said: Vec<_> = log.lines().drain(..).filter(|text| text.contains("main returned")).collect();
    assert_eq!(said.len(), runs.len(), "{said:?}");
    assert!(said[0].contains("its output, of type core::result::Result<(), &str>, is dropped"), "{said:?}");
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
        let waits =
            format!("- task `cleans` (deadlock.rs:{}) waits for an event at deadlock.rs:{} since ", base + 4, base + 6);
        assert!(after.lines().any(|line| line.starts_with(&waits)) && !before.contains(&waits), "{text}");
    }
    assert!(!log.lines().iter().any(|line| line.contains("live children")), "{:?}", log.lines());
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
        let [none, few] = [", of which there are none", ": 3 at once, of which there are 2 in all"];
        for (line, said) in [(base + 4, none), (base + 5, few)] {
            let waits = format!("- task deadlock.rs:{line} waits for permits at deadlock.rs:{line} since ");
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
        assert!(text.contains(&format!("shield deadlock.rs:{}\n", base + 3)) && !text.contains("start.rs"), "{text}");
    }
}

// ---- What is none --------------------------------------------------------------------------------------------------

/// Threads that have something of the run: in a process with other threads nothing is ended unless the program has said that it may be.
#[test]
fn n10_what_a_thread_wakes_is_no_deadlock() {
    let proven = Options { deadlock: Detection::Proven, ..Options::default() };
    for kind in 0..4 {
        trefoil_tests::run(proven, async || {
            let event = Arc::new(Event::new());
            let (sender, receiver) = channel(1);
            let lock = Arc::new(Mutex::new(()));
            let held = lock.clone();
            let (remote, (locked, is_locked)) = (event.clone(), std::sync::mpsc::channel());
            let mut foreign = None;
            let waker = std::future::poll_fn(|cx| std::task::Poll::Ready(cx.waker().clone())).await;
            let woken = Arc::new(std::sync::atomic::AtomicBool::new(false));
            let wake = woken.clone();
            let thread = std::thread::spawn(move || {
                let guard = (kind == 2).then(|| held.try_lock().unwrap());
                locked.send(()).unwrap();
                // Longer than it takes to suspect.
                std::thread::sleep(ms(30));
                match kind {
                    0 => remote.set(),
                    1 => sender.try_send(()).unwrap(),
                    2 => drop(guard),
                    _ => {
                        wake.store(true, SeqCst);
                        waker.wake();
                    }
                }
            });
            is_locked.recv().unwrap();
            match kind {
                0 => event.wait().await.unwrap(),
                1 => drop(receiver.recv().await.unwrap()),
                2 => drop(lock.lock().await.unwrap()),
                _ => {
                    std::future::poll_fn(|_| {
                        if woken.load(SeqCst) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
                    })
                    .await;
                    foreign = Some(());
                }
            }
            assert_eq!(foreign.is_some(), kind == 3);
            thread.join().unwrap();
        });
    }
}

/// Why it is none.
#[test]
fn n10_what_can_still_come_is_listed() {
    run_real(async || {
        let handle = trefoil::run_handle();
        let ((end, ended), (tell, told)) = (std::sync::mpsc::channel::<()>(), std::sync::mpsc::channel());
        let thread = std::thread::Builder::new().name("clover".into()).spawn(move || {
            tell.send(()).unwrap();
            ended.recv().unwrap_err();
        });
        told.recv().unwrap();
        let sources = nursery(async |n| -> Result<_, Cancelled> {
            n.spawn(sleep(ms(1)));
            checkpoint().await?;
            Ok(wake_sources())
        });
        let sources = sources.await.unwrap();
        assert_eq!((sources.timers, sources.in_flight, sources.handles), (1, 0, 1));
        assert!(sources.threads.as_ref().unwrap().iter().any(|name| name == "clover"), "{sources:?}");
        assert!(sources.to_string().starts_with("1 timer, 1 run handle, "), "{sources}");
        drop((handle, end));
        thread.unwrap().join().unwrap();
    });
}

// ---- Some wait for each other, while others go on ------------------------------------------------------------------

/// Cycles that stand for a minute end the run; a deadline is always set, so that nothing is quiet for good.
fn partial() -> Options {
    Options { virtual_time: true, cycles_end: true, ..Options::default() }
}

async fn busy() -> Ended {
    loop {
        sleep(ms(100)).await?;
    }
}

#[test]
fn n10_a_cycle_is_found_while_others_go_on() {
    let base = line!();
    for report in deadlocks(partial(), async || {
        let (left, right) = (Mutex::new(()), RwLock::new(()));
        let ended = nursery(async |n| -> Ended {
            n.spawn(busy());
            n.spawn(async {
                let _left = left.lock().await?;
                checkpoint().await?;
                right.write().await.map(drop)
            });
            n.spawn(async {
                let _right = right.read().await?;
                sleep(ms(50)).await?;
                left.lock().await.map(drop)
            });
            Ok(())
        })
        .await;
        ended.is_err()
    }) {
        assert_eq!(cycle(&report), [base + 5, base + 10], "{report}");
        assert_eq!(report.tasks().len(), 2, "{report}");
        assert!(report.to_string().starts_with("deadlock (N10): some tasks wait for each other"), "{report}");
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
            (format!("task `writer` (deadlock.rs:{})", base + 5), format!("task `reader` (deadlock.rs:{})", base + 10));
        for part in [
            format!("- {a} waits for permits at deadlock.rs:{} since", base + 8),
            format!("held by {b} (2 acquired at deadlock.rs:{})", base + 11),
            format!("held by {a} (acquired at deadlock.rs:{})", base + 6),
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

/// Row 23: the shortest cycle.
#[test]
fn n10_a_lock_taken_again_by_its_holder_is_a_cycle() {
    let base = line!();
    for report in deadlocks(partial(), async || {
        let lock = Mutex::new(());
        let ended = nursery(async |n| -> Ended {
            n.spawn(busy());
            n.spawn(async {
                let _guard = lock.lock().await?;
                lock.lock().await.map(drop)
            });
            Ok(())
        })
        .await;
        ended.is_err()
    }) {
        assert_eq!(cycle(&report), [base + 5], "{report}");
    }
}

/// By way of a nursery: who has the lock waits for a child that wants it.
#[test]
fn n10_a_nursery_that_waits_for_a_child_is_an_edge() {
    for report in deadlocks(partial(), async || {
        let lock = Mutex::new(());
        let ended = nursery(async |n| -> Ended {
            n.spawn(busy());
            n.spawn(async {
                let _guard = lock.lock().await?;
                let inner = nursery(async |n| -> Ended {
                    n.spawn(async { lock.lock().await.map(drop) });
                    Ok(())
                });
                inner.await.map_err(|_| Cancelled::delivered())
            });
            Ok(())
        })
        .await;
        ended.is_err()
    }) {
        assert_eq!(cycle(&report).len(), 2, "{report}");
    }
}

/// Everything here ends well.
#[test]
fn n10_what_ends_by_itself_is_no_cycle() {
    run_virtual(async || {
        let (left, right, two) = (Mutex::new(()), Mutex::new(()), Semaphore::new(2));
        nursery(async |n| -> Ended {
            // A wait with a deadline.
            n.spawn(async {
                let _left = left.lock().await?;
                sleep(ms(1)).await?;
                assert!(move_on_after(ms(10), right.lock()).await?.is_none());
                Ok(())
            });
            n.spawn(async {
                let _right = right.lock().await?;
                sleep(ms(1)).await?;
                left.lock().await.map(drop)
            });
            // Permits that were passed on to children.
            n.spawn(async {
                nursery(async |inner| -> Ended {
                    for _ in 0..10 {
                        let permit = two.acquire(1).await?;
                        inner.spawn(async move {
                            sleep(ms(3)).await?;
                            drop(permit);
                            Ok(())
                        });
                    }
                    Ok(())
                })
                .await
                .map_err(|_| Cancelled::delivered())
            });
            Ok(())
        })
        .await
        .unwrap();

        // Two branches of one task, in which the one that holds goes on.
        let lock = Mutex::new(());
        let hold = async {
            let _guard = lock.lock().await?;
            sleep(ms(5)).await
        };
        let wait = async { lock.lock().await.map(drop) };
        let (held, waited) = futures::join!(hold, wait);
        held.and(waited).unwrap();

        // Three permits, of which one that is missing is held by who goes on.
        let three = Semaphore::new(3);
        nursery(async |n| -> Ended {
            n.spawn(async {
                let _permit = three.acquire(1).await?;
                sleep(ms(5)).await
            });
            for _ in 0..1 {
                n.spawn(async {
                    let _permit = three.acquire(1).await?;
                    checkpoint().await?;
                    three.acquire(2).await.map(drop)
                });
            }
            Ok(())
        })
        .await
        .unwrap();
    });
    // A thread that adds permits, to a semaphore that is used so.
    run_real(async || {
        let permits = Arc::new(Semaphore::new(0));
        permits.add(1);
        let more = permits.clone();
        let one = permits.acquire(1).await.unwrap();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(ms(5));
            more.add(1);
        });
        drop(permits.acquire(1).await.unwrap());
        drop(one);
        thread.join().unwrap();
    });
}

/// So does who waits for what a child, or the body of a nursery, was given: a guard, or a future that waits for one (`kind`). Not a warning comes.
#[test]
fn n10_what_was_passed_on_is_no_cycle() {
    for kind in 0..4 {
        run(partial(), async || {
            let (log, lock) = (Log::default(), Mutex::new(()));
            let late = || sleep(Duration::from_secs(100));
            let ended = nursery(async |n| -> Ended {
                let lock = &lock;
                n.spawn(async {
                    let guard = lock.lock().await?;
                    sleep(ms(1)).await?;
                    // It goes to who has waited longest, also where that is not polled.
                    drop(guard);
                    late().await
                });
                n.spawn(async move {
                    let mut waits = None;
                    let mut guard = None;
                    if kind < 2 {
                        let mut future = Box::pin(lock.lock());
                        poll_once(future.as_mut()).await;
                        waits = Some(future);
                    } else {
                        guard = Some(lock.lock().await?);
                    }
                    let give_back = async move {
                        late().await?;
                        drop(guard);
                        if let Some(waits) = waits {
                            drop(waits.await?);
                        }
                        Ok(())
                    };
                    match kind {
                        0 => {
                            n.spawn(give_back);
                            lock.lock().await.map(drop)
                        }
                        1 | 2 => nursery(async |inner| -> Ended {
                            inner.spawn(give_back);
                            lock.lock().await.map(drop)
                        })
                        .await
                        .map_err(|_| Cancelled::delivered()),
                        _ => nursery(async move |inner| -> Ended {
                            inner.spawn(async { lock.lock().await.map(drop) });
                            give_back.await
                        })
                        .await
                        .map_err(|_| Cancelled::delivered()),
                    }
                });
                Ok(())
            });
            ended.await.unwrap();
            assert_eq!(*log.lines(), [""; 0], "kind {kind}");
        });
    }
}

/// Combinators of others poll what they have when they like: also a future that was handed a lock meanwhile.
#[test]
fn n10_combinators_over_locks_are_no_cycle() {
    run(partial(), async || {
        let (log, lock, other) = (Log::default(), Mutex::new(()), Mutex::new(()));
        let (tx, rx) = channel::<u32>(4);
        let (lock, other) = (&lock, &other);
        let slow = async |time| -> Ended {
            let _guard = other.lock().await?;
            sleep(time).await
        };
        let quick = async || -> Ended {
            let _guard = lock.lock().await?;
            sleep(ms(10)).await
        };
        nursery(async |n| -> Ended {
            n.spawn(async move {
                for number in 0..20 {
                    if tx.send(number).await.is_err() {
                        break;
                    }
                    sleep(Duration::from_secs(20)).await?;
                }
                Ok(())
            });
            for _ in 0..3 {
                n.spawn(async move {
                    for _ in 0..10 {
                        quick().await?;
                        slow(ms(3000)).await?;
                    }
                    Ok(())
                });
            }
            // `select!` in a loop, over a future that is kept.
            n.spawn(async move {
                for _ in 0..5 {
                    let mut wanted = pin!(lock.lock());
                    while let Either::Right((received, _)) = select(&mut wanted, pin!(rx.recv())).await {
                        if received.is_err() {
                            return Ok(());
                        }
                        slow(ms(2000)).await?;
                    }
                }
                Ok(())
            });
            n.spawn(async move {
                let mut all: FuturesUnordered<_> = (0..10).map(|_| quick()).collect();
                while let Some(ended) = all.next().await {
                    ended.and(slow(ms(1000)).await)?;
                }
                Ok(())
            });
            n.spawn(async move {
                let mut some = iter(0..10).map(|_| quick()).buffer_unordered(4);
                while let Some(ended) = some.next().await {
                    ended.and(slow(ms(1000)).await)?;
                }
                Ok(())
            });
            n.spawn(async move { join_all((0..40).map(|_| quick())).await.into_iter().collect::<Ended>() });
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(*log.lines(), [""; 0]);
    });
}

/// What ends it cannot be seen before, and it is no failure in a test: a guard that was handed over in memory, permits that are added for the first
/// time, a nursery that is cancelled.
#[test]
fn n10_what_is_ended_by_others_is_no_failure() {
    for kind in 0..3 {
        let begin = std::cell::Cell::new(None);
        run(partial(), async || {
            let (left, right, permits) = (Mutex::new(()), Mutex::new(()), Semaphore::new(1));
            let handed = std::cell::RefCell::new(None);
            begin.set(Some(trefoil::now()));
            let ended = local_nursery(async |n| -> Ended {
                n.spawn(async {
                    let guard = left.lock().await?;
                    let _permit = permits.acquire(1).await?;
                    if kind == 0 {
                        *handed.borrow_mut() = Some(guard);
                    } else if kind == 2 {
                        std::mem::forget(guard);
                    }
                    checkpoint().await?;
                    right.lock().await.map(drop)
                });
                n.spawn(async {
                    let _right = right.lock().await?;
                    checkpoint().await?;
                    if kind == 1 { permits.acquire(1).await.map(drop) } else { left.lock().await.map(drop) }
                });
                sleep(ms(50_000)).await?;
                match kind {
                    0 => drop(handed.borrow_mut().take()),
                    1 => permits.add(1),
                    _ => n.cancel(),
                }
                Ok(())
            })
            .await;
            ended.unwrap();
            assert_eq!(trefoil::now() - begin.get().unwrap(), ms(50_000), "others have ended it");
        });
    }
}

/// While it stands it is a warning, once, from the instant on in which its last edge closes.
#[test]
fn n10_a_cycle_is_a_warning_at_once_and_a_failure_after_a_minute() {
    let log = Log::default();
    for report in deadlocks(partial(), async || {
        let lock = Mutex::new(());
        let begin = trefoil::now();
        log.lines().clear();
        let ended = local_nursery(async |n| -> Ended {
            n.spawn(async {
                let _guard = lock.lock().await?;
                sleep(ms(325)).await?;
                lock.lock().await.map(drop)
            });
            let mut seen = Vec::new();
            while sleep(ms(50)).await.is_ok() {
                seen.push(log.lines().len());
            }
            // One after 325 ms, and no more; the end after a minute since then.
            assert_eq!(seen.iter().filter(|said| **said == 0).count(), 6);
            assert_eq!(seen.last(), Some(&1));
            assert_eq!(trefoil::now() - begin, ms(60_350));
            let warning = log.lines()[0].clone();
            let begin = "deadlock (N10): some tasks wait for each other, and none of them can go on";
            assert!(warning.starts_with(begin), "{warning}");
            Ok(())
        })
        .await;
        ended.is_err()
    }) {
        assert_eq!(cycle(&report).len(), 1, "{report}");
        let text = report.to_string();
        assert!(text.starts_with("deadlock (N10): some tasks wait for each other, and have for 60.0 s"), "{text}");
    }
}

/// In real time it is ten seconds, and the run looks again by then though nothing else would wake it for an hour. Each driver in a thread of its own.
#[test]
fn n10_in_real_time_a_cycle_that_stands_ends_a_run_that_sleeps() {
    std::thread::scope(|threads| {
        for kind in [DriverKind::Epoll, DriverKind::IoUring] {
            threads.spawn(move || {
                let begin = std::time::Instant::now();
                let builder = Builder::new().driver(kind).cycles_end(true).deadlock(Detection::Off);
                if builder.clone().try_run(async {}).is_err() {
                    return println!("skipped on {kind:?}");
                }
                let ended = builder.try_run(async {
                    let lock = Mutex::new(());
                    local_nursery(async |n| -> Ended {
                        n.spawn(sleep(ms(3_600_000)));
                        let _guard = lock.lock().await?;
                        lock.lock().await.map(drop)
                    })
                    .await
                });
                let Err(RunError::Deadlock(report)) = ended else { panic!("it was to end with a report") };
                assert!(begin.elapsed() >= ms(10_000));
                assert_eq!(report.cycles().count(), 1, "{report}");
                assert!(report.to_string().contains("and have for 10.0 s"), "{report}");
            });
        }
    });
}

/// R80: who wants one permit waits behind who wants two. A reader waits behind a writer that waits.
#[test]
fn n10_a_place_in_a_line_is_an_edge() {
    let base = line!();
    for report in deadlocks(partial(), async || {
        let lock = RwLock::new(());
        let ended = nursery(async |n| -> Ended {
            n.spawn(busy());
            n.spawn_named("reads twice", async {
                let _first = lock.read().await?;
                sleep(ms(2)).await?;
                lock.read().await.map(drop) // base + 8
            });
            n.spawn_named("writes", async {
                sleep(ms(1)).await?;
                lock.write().await.map(drop) // base + 12
            });
            Ok(())
        })
        .await;
        ended.is_err()
    }) {
        assert_eq!(cycle(&report), [base + 5, base + 10], "{report}");
        let reader = report.tasks().iter().find(|task| task.name() == Some("reads twice")).unwrap();
        let writer = report.tasks().iter().find(|task| task.name() == Some("writes")).unwrap();
        assert_eq!(reader.waits()[0].in_line_behind(), Some(writer.task()));
        assert_eq!(writer.waits()[0].in_line_behind(), None);
        let text = report.to_string();
        let behind = format!("in line behind task `writes` (deadlock.rs:{})", base + 10);
        assert!(
            text.contains(&format!("waits for a lock at deadlock.rs:{}", base + 8)) && text.contains(&behind),
            "{text}"
        );
    }
    // A permit is there, and who wants it holds what the one in front waits for.
    for report in deadlocks(partial(), async || {
        let (permits, lock) = (Semaphore::new(3), Mutex::new(()));
        let ended = nursery(async |n| -> Ended {
            n.spawn(busy());
            n.spawn(async {
                let _two = permits.acquire(2).await?;
                sleep(ms(1)).await?;
                lock.lock().await.map(drop)
            });
            n.spawn(async {
                let _lock = lock.lock().await?;
                sleep(ms(3)).await?;
                permits.acquire(1).await.map(drop)
            });
            n.spawn(async {
                sleep(ms(2)).await?;
                permits.acquire(3).await.map(drop)
            });
            Ok(())
        })
        .await;
        ended.is_err()
    }) {
        assert_eq!(report.cycles().next().unwrap().len(), 3, "{report}");
    }
}

/// A task whose waits are woken by way of a combinator: what it waits for beside them is not mistaken for one of them.
#[test]
fn n10_a_foreign_future_beside_a_combinator_ends_the_wait() {
    run(partial(), async || {
        let (held, left, right) = (Mutex::new(()), Mutex::new(()), Mutex::new(()));
        let (tell, told) = futures::channel::oneshot::channel();
        nursery(async |n| -> Ended {
            n.spawn(async {
                let _left = left.lock().await?;
                let _right = right.lock().await?;
                sleep(ms(2)).await?;
                held.lock().await.map(drop)
            });
            n.spawn(async {
                let _held = held.lock().await?;
                sleep(ms(1)).await?;
                let mut both: futures::stream::FuturesUnordered<_> = [left.lock(), right.lock()].into_iter().collect();
                futures::future::select(futures::StreamExt::next(&mut both), told).await;
                Ok(())
            });
            sleep(ms(50)).await?;
            tell.send(()).unwrap();
            Ok(())
        })
        .await
        .unwrap();
    });
}

// ---- Busy, and getting nowhere -------------------------------------------------------------------------------------

/// What a program logs that spins for so many turns, if that is too much after 10,000.
fn logged(main: impl Future<Output = ()>) -> Vec<String> {
    let log = Log::default();
    let limits = Limits { turns: 10_000, time: ms(0) };
    let options = Options { virtual_time: true, livelock: Some(limits), ..Options::default() };
    let driver = std::rc::Rc::new(trefoil_runtime::ThreadDriver::new());
    trefoil_runtime::run(driver, options, Location::caller(), main);
    log.lines().clone()
}

/// Row 41: each gives way to the other, politely, for ever.
#[test]
fn n10_tasks_that_only_wake_each_other_are_a_livelock() {
    let base = line!();
    let turns = std::cell::Cell::new(0);
    let said = logged(async {
        let (left, right) = (Mutex::new(()), Mutex::new(()));
        local_nursery(async |n| -> Ended {
            let both = async |first: &Mutex<()>, second: &Mutex<()>| -> Ended {
                loop {
                    let one = first.try_lock();
                    yield_now().await;
                    // Both have one: neither has two.
                    if (one.is_ok() && second.try_lock().is_ok()) || turns.get() > 100_000 {
                        return Ok(());
                    }
                    turns.set(turns.get() + 1);
                    yield_now().await;
                    drop(one);
                    yield_now().await;
                }
            };
            n.spawn(both(&left, &right)); // base + 19
            n.spawn_named("polite", both(&right, &left)); // base + 20
            Ok(())
        })
        .await
        .unwrap();
    });
    let [report] = &said[..] else { panic!("once: {said:?}") };
    assert!(report.starts_with("livelock: "), "{report}");
    let who = [format!("deadlock.rs:{}", base + 19), format!("`polite` (deadlock.rs:{})", base + 20)];
    for who in who {
        let line = report.lines().find(|line| line.starts_with(&format!("- task {who} was polled"))).unwrap();
        assert!(line.contains("by itself"), "{report}");
    }
}

/// Who gives up its turn while others are served is none.
#[test]
fn n10_progress_is_no_livelock() {
    let said = logged(async {
        let (sender, receiver) = channel(1);
        nursery(async |n| -> Ended {
            n.spawn(async move {
                for i in 0..50_000 {
                    if sender.send(i).await.is_err() {
                        break;
                    }
                }
                Ok(())
            });
            n.spawn(async move {
                while receiver.recv().await?.is_some() {
                    yield_now().await;
                }
                Ok(())
            });
            Ok(())
        })
        .await
        .unwrap();
        // A computation that gives up its turn for less than that.
        for _ in 0..5_000 {
            yield_now().await;
        }
    });
    assert!(said.is_empty(), "{said:?}");
}
