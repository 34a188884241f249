//! All tasks wait: for each other, or for somebody who will not come. Which tasks are the lines of a cycle, and where it goes through a body.

use super::{cycle, line, quiet};
use std::time::Duration;
use trefoil::sync::{Mutex, oneshot};
use trefoil::{
    Cancelled, Join, Reason, Role, channel, checkpoint, local_nursery, move_on_after, nursery, sleep, sleep_forever,
};
use trefoil_runtime::Options;
use trefoil_tests::{Ended, deadlocks, ms};

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
            format!("task cycles.rs:{a} → task cycles.rs:{b} → task cycles.rs:{a}"),
            format!("waits for a lock at cycles.rs:{} since", base + 7),
            format!("held by task cycles.rs:{b} (acquired at cycles.rs:{})", base + 10),
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
        assert!(text.contains(&format!("whose sender, made by the main task (cycles.rs:{})", base + 1)), "{text}");
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
            let waits =
                format!("- task cycles.rs:{task} waits for task cycles.rs:{child} to end at cycles.rs:{at} since ");
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
            let waits = format!("- task cycles.rs:{task} waits for task cycles.rs:{child} to end since ");
            assert!(text.contains(&waits), "{text}");
        }
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
        let main = format!("the main task (cycles.rs:{})", base + 2);
        let lines: Vec<_> = text.lines().skip(1).collect();
        assert_eq!(
            lines[..2],
            [
                format!(
                    "- the body of nursery cycles.rs:{} waits for an item of a channel at cycles.rs:{} since 2.0 s, whose sender, made by {main} at cycles.rs:{}, is still there",
                    base + 5,
                    base + 7,
                    base + 3
                ),
                format!("- {main} waits for the body of a nursery at cycles.rs:{} since 2.0 s", base + 5),
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
            "whose receiver, made by the main task (cycles.rs:{}) at cycles.rs:{}, is still there",
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
