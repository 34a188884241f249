//! N10: how the report of a deadlock puts what it has found, and what it says of what can be done about it.

use super::{crossed, quiet};
use trefoil::sync::{Mutex, oneshot};
use trefoil::{Cancelled, Reason, channel, checkpoint, nursery, sleep_forever};
use trefoil_tests::{Ended, Log, deadlocks, panic_of};

fn at(line: u32) -> String {
    format!("texts.rs:{line}")
}

const ORDER: &str = "lock order: ";
const TWICE: &str = "taken twice: ";
const ACROSS: &str = "held across a wait: ";
const END: &str = "end of a channel: ";

/// Which advice is given.
fn advice(text: &str) -> Vec<&'static str> {
    [ORDER, TWICE, ACROSS, END].into_iter().filter(|advice| text.lines().any(|line| line.starts_with(advice))).collect()
}

/// Who sends is expected to have the sender by now, and who made it is not: that is said, and no more.
#[test]
fn n10_who_waits_for_a_oneshot_is_told_where_its_sender_was_made() {
    let base = line!();
    for report in deadlocks(quiet(), async || {
        let (requests, inbox) = channel(1);
        let ended = nursery(async |n| -> Ended {
            n.spawn_named("asks", async move {
                let (answer, mut answered) = oneshot::<u8>(); // base + 5
                requests.try_send(answer).unwrap();
                answered.recv().await.map(drop) // base + 7
            });
            n.spawn_named("answers", async move {
                let _answer = inbox.recv().await?;
                sleep_forever().await
            });
            Ok(())
        });
        ended.await.is_err()
    }) {
        let text = report.to_string();
        let asks = format!("task `asks` ({})", at(base + 4));
        let line = text.lines().find(|line| line.starts_with(&format!("- {asks}"))).unwrap();
        assert!(line.contains(&format!("waits for the value of a oneshot at {} since", at(base + 7))), "{line}");
        assert!(line.ends_with(&format!("whose sender, made by {asks} at {}, is still there", at(base + 5))), "{line}");
        // It does not wait for itself.
        assert!(!text.contains("cycle:") && report.cycles().count() == 0, "{text}");
        let waits = report.tasks().iter().flat_map(|task| task.waits()).find(|wait| wait.reason() == Reason::Oneshot);
        assert_eq!(waits.unwrap().holders().len(), 1);
    }
}

/// The mistake that everybody makes once: the sender that was cloned, or lent, for those who send is one more.
#[test]
fn n10_who_waits_for_the_end_of_a_channel_is_told_when_it_comes() {
    for lent in [false, true] {
        for report in deadlocks(quiet(), async || {
            let (sender, receiver) = channel(1);
            let ended = nursery(async |n| -> Ended {
                for item in 0..3 {
                    let own = sender.clone();
                    let sender = &sender;
                    n.spawn(async move {
                        let sent = if lent { sender.send(item).await } else { own.send(item).await };
                        sent.expect("it is received");
                        Ok(())
                    });
                }
                while receiver.recv().await?.is_some() {}
                Ok(())
            });
            ended.await.is_err()
        }) {
            assert_eq!(advice(&report.to_string()), [END], "{report}");
        }
    }
    // All are gone: that is its end, and what is waited for is something else.
    for report in deadlocks(quiet(), async || {
        let (sender, receiver) = channel::<u8>(1);
        drop(sender);
        assert_eq!(receiver.recv().await, Ok(None));
        sleep_forever().await.is_err()
    }) {
        assert_eq!(advice(&report.to_string()), [""; 0], "{report}");
    }
    // Two that wait for each other's items.
    for report in deadlocks(quiet(), async || {
        let (here, there) = (channel(1), channel(1));
        let ended = nursery(async |n| -> Ended {
            for (give, take) in [(&here.0, &there.1), (&there.0, &here.1)] {
                n.spawn(async move {
                    let (sender, receiver) = channel::<u8>(1);
                    give.try_send(receiver).unwrap();
                    let received = take.recv().await?.expect("the other one gives it").recv().await.map(drop);
                    drop(sender);
                    received
                });
            }
            Ok(())
        });
        ended.await.is_err()
    }) {
        assert_eq!((report.cycles().count(), advice(&report.to_string())), (1, vec![]), "{report}");
    }
}

/// Two tasks that have each made the sender that the other one waits for, and spawned nobody whom they could have given it to.
#[test]
fn n10_senders_of_oneshots_are_edges_of_a_cycle() {
    for report in deadlocks(quiet(), async || {
        let (here, there) = (channel(1), channel(1));
        let ended = nursery(async |n| -> Ended {
            for (give, take) in [(&here.0, &there.1), (&there.0, &here.1)] {
                n.spawn(async move {
                    let (_sender, receiver) = oneshot::<u8>();
                    give.try_send(receiver).unwrap();
                    take.recv().await?.expect("the other one gives it").recv().await.map(drop)
                });
            }
            Ok(())
        });
        ended.await.is_err()
    }) {
        let text = report.to_string();
        assert_eq!(report.cycles().map(|cycle| cycle.len()).collect::<Vec<_>>(), [2], "{text}");
        assert!(text.contains("\ncycle: task "), "{text}");
        assert_eq!(advice(&text), [""; 0], "{text}");
    }
}

/// An end that was made before a task was spawned may be that one's by now: there is no cycle to be told of.
#[test]
fn n10_an_end_of_a_channel_that_may_have_been_handed_on_is_no_edge() {
    for report in deadlocks(quiet(), async || {
        let ended = nursery(async |n| -> Ended {
            n.spawn_named("parent", async {
                let (sender, receiver) = channel::<u8>(1);
                nursery(async |inner| -> Ended {
                    inner.spawn_named("child", async move {
                        let _sender = sender;
                        sleep_forever().await
                    });
                    receiver.recv().await.map(drop)
                })
                .await
                .map_err(|_| Cancelled::delivered())
            });
            Ok(())
        });
        ended.await.is_err()
    }) {
        assert!(!report.to_string().contains("cycle:"), "{report}");
    }
}

/// Who waits at the end of a nursery is told what of it is not done.
#[test]
fn n10_the_body_of_a_nursery_is_told_from_its_children() {
    for (body, child, part) in [(true, false, "body"), (true, true, "body and the children"), (false, true, "children")]
    {
        let base = line!();
        for report in deadlocks(quiet(), async || {
            let ended = nursery(async |n| -> Ended {
                // base + 2
                if child {
                    n.spawn(sleep_forever());
                }
                if body { sleep_forever().await } else { Ok(()) }
            });
            ended.await.is_err()
        }) {
            let text = report.to_string();
            let waits = format!("waits for the {part} of a nursery at {}", at(base + 2));
            assert!(text.lines().any(|line| line.starts_with("- the main task") && line.contains(&waits)), "{text}");
        }
    }
}

#[test]
fn n10_who_crosses_locks_is_told_of_their_order() {
    for report in deadlocks(quiet(), async || {
        let (left, right) = (Mutex::new(()), Mutex::new(()));
        let ended = nursery(async |n| -> Ended {
            n.spawn(crossed(&left, &right));
            n.spawn(crossed(&right, &left));
            Ok(())
        });
        ended.await.is_err()
    }) {
        assert_eq!(advice(&report.to_string()), [ORDER], "{report}");
    }
}

#[test]
fn n10_who_takes_a_lock_twice_is_told() {
    for in_body in [false, true] {
        for report in deadlocks(quiet(), async || {
            let lock = Mutex::new(());
            let _guard = lock.lock().await.unwrap();
            if in_body {
                nursery(async |_| -> Ended { lock.lock().await.map(drop) }).await.is_err()
            } else {
                lock.lock().await.is_err()
            }
        }) {
            assert_eq!(advice(&report.to_string()), [TWICE], "{report}");
        }
    }
}

#[test]
fn n10_who_holds_a_lock_while_it_waits_for_a_task_that_wants_it_is_told() {
    for joins in [false, true] {
        for report in deadlocks(quiet(), async || {
            let lock = Mutex::new(());
            let lock = &lock;
            let _guard = lock.lock().await.unwrap();
            let ended = nursery(async |n| -> Ended {
                let child = n.spawn(async move { lock.lock().await.map(drop) });
                if joins {
                    let _ = child.await;
                }
                Ok(())
            });
            ended.await.is_err()
        }) {
            assert_eq!(advice(&report.to_string()), [ACROSS], "{report}");
        }
    }
}

/// What main returns when it is cancelled has no room beside the report, and does not stand in front of it either.
#[test]
fn n10_what_main_returned_is_said_at_the_end_of_the_report() {
    let log = Log::default();
    for report in deadlocks(quiet(), async || sleep_forever().await) {
        let text = report.to_string();
        let (first, last) = (text.lines().next().unwrap(), text.lines().last().unwrap());
        assert!(first.starts_with("deadlock (N10): every task waits"), "{text}");
        assert!(last.starts_with("main returned when it was cancelled for this: its output, of type "), "{text}");
    }
    for report in deadlocks(quiet(), async || assert!(sleep_forever().await.is_err())) {
        assert_eq!(report.dropped_output(), None);
        assert!(!report.to_string().contains("main returned"), "{report}");
    }
    // Nor does what the harness makes of a test.
    let report = panic_of(|| trefoil::testing::seeds([0], async || assert!(sleep_forever().await.is_err())));
    assert!(report.starts_with("deadlock (N10)") && !report.contains("main returned"), "{report}");
    assert_eq!(*log.lines(), [""; 0]);
}

/// The branches of a combinator are one task. Where it waits for several things, the line of the cycle says which of the waits are in it.
#[test]
fn n10_the_branches_of_a_task_in_a_cycle_are_told_by_their_places() {
    let base = line!();
    for report in deadlocks(quiet(), async || {
        let (left, right) = (Mutex::new(()), Mutex::new(()));
        let one = async {
            let _left = left.lock().await?;
            checkpoint().await?;
            right.lock().await.map(drop) // base + 6
        };
        let other = async {
            let _right = right.lock().await?;
            checkpoint().await?;
            left.lock().await.map(drop) // base + 11
        };
        futures::join!(one, other, sleep_forever()).0.is_err()
    }) {
        let text = report.to_string();
        let cycle = text.lines().find(|line| line.starts_with("cycle: ")).unwrap();
        let main = format!("the main task ({})", at(base + 1));
        assert_eq!(cycle, format!("cycle: {main} at {} and {} → {main}", at(base + 6), at(base + 11)), "{text}");
        assert_eq!(advice(&text), [ORDER], "{text}");
    }
}

/// An `io::Error` has no room for why it is a cancellation. Who unwraps it is told by what follows.
#[test]
fn n10_who_unwraps_a_cancelled_io_error_is_told_of_the_deadlock() {
    let log = Log::default();
    let runs = deadlocks(quiet(), async || {
        let slept: std::io::Result<()> = sleep_forever().await.map_err(std::io::Error::from);
        slept.unwrap();
    });
    let said = log.lines().clone();
    assert_eq!(said.len(), runs.len(), "{said:?}");
    for line in said {
        assert!(line.contains("a panic in the clean-up of a run that is in a deadlock"), "{line}");
        assert!(line.contains("Operation canceled"), "{line}");
    }
}
