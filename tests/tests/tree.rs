//! The task tree as a program sees it (`trefoil::tree`).

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::Poll;
use std::time::{Duration, Instant};
use trefoil::sync::{Barrier, CapacityLimiter, Condition, Mutex, RwLock, Semaphore};
use trefoil::{
    CancelScope, Cancelled, Event, Holding, Kind, Reason, ScopeView, channel, checkpoint, local_nursery, move_on_after,
    nursery, sleep, sleep_forever, tree, trees,
};
use trefoil_tests::{ms, run_real, run_virtual};

/// The only task in a scope that has a scope in it, and that.
fn below(scope: &ScopeView) -> Vec<&ScopeView> {
    scope.tasks.iter().flat_map(|task| &task.scopes).collect()
}

/// What a task in this scope or below waits for, with the line.
fn waits(scope: &ScopeView) -> Vec<(Reason, u32)> {
    let mut all: Vec<_> =
        scope.tasks.iter().flat_map(|task| &task.waits).map(|wait| (wait.reason, wait.place.line())).collect();
    for scope in below(scope) {
        all.extend(waits(scope));
    }
    all
}

#[test]
fn the_futures_of_a_race_or_a_join_are_told_apart_by_number() {
    // How many branches there are, from the first on.
    let seen = || {
        let text = tree().to_string();
        (1..).take_while(|n| text.contains(&format!("task `branch {n}` ("))).count()
    };
    run_virtual(async || {
        let look = || async {
            checkpoint().await?;
            Ok::<_, Cancelled>(seen())
        };
        let wait = || async { sleep_forever().await.map(|()| 0) };
        assert_eq!(trefoil::race((wait(), look(), wait())).await.unwrap(), 3);
        assert_eq!(trefoil::first_success([look()]).await.unwrap(), 1);
        assert_eq!(trefoil::join((look(), look())).await.unwrap().0, 2);
        assert_eq!(trefoil::join([look(), look(), look()]).await.unwrap()[0], 3);
        assert_eq!(trefoil::join(vec![look(), look()]).await.unwrap()[0], 2);
        assert_eq!(seen(), 0);
    });
}

/// Case 10: main, nested nurseries, and a child that `start` has not handed over yet: it is beneath its caller (R68), and then beneath the
/// nursery (R71).
#[test]
fn r68_r71_the_task_tree_from_the_root() {
    run_virtual(async || {
        let (go, line) = (Event::new(), std::cell::Cell::new(0));
        let (go, line) = (&go, &line);
        local_nursery(async |outer| -> io::Result<()> {
            outer.spawn(async {
                nursery(async |inner| -> io::Result<()> {
                    inner.spawn(async { Ok(sleep_forever().await?) });
                    Ok(sleep_forever().await?)
                })
                .await?;
                Ok(())
            });
            outer.spawn(async move {
                outer
                    .start(async |started| {
                        go.wait().await?;
                        started.ready(());
                        line.set(line!() + 1);
                        sleep_forever().await?;
                        Ok(())
                    })
                    .await
            });
            checkpoint().await?;
            checkpoint().await?;

            let root = tree();
            assert_eq!((root.kind, root.cancelled, root.cut_off), (Kind::Run, false, false));
            let [outer_view] = below(&root)[..] else { panic!("{root}") };
            assert_eq!(
                (outer_view.kind, outer_view.children),
                (Kind::Nursery, 3),
                "the child that is being started keeps it open"
            );
            let inner_view = below(outer_view).into_iter().find(|scope| scope.kind == Kind::Nursery).unwrap();
            assert_eq!(inner_view.children, 1);
            assert_eq!(waits(inner_view).len(), 2, "body and child: {root}");
            let starting = below(outer_view).into_iter().find(|scope| scope.kind == Kind::Scope).unwrap();
            assert!(waits(starting).iter().any(|(reason, _)| *reason == Reason::Event), "beneath its caller: {root}");

            go.set();
            checkpoint().await?;
            checkpoint().await?;
            let root = tree();
            let [outer_view] = below(&root)[..] else { panic!("{root}") };
            assert_eq!(outer_view.children, 2, "the caller is over: {root}");
            assert!(waits(outer_view).iter().any(|(_, at)| *at == line.get()), "beneath the nursery: {root}");
            outer.cancel();
            Ok(())
        })
        .await
        .unwrap();
    });
}

/// The text of a tree below the root, without what differs from driver to driver: lines are relative to `line`, `@3` is three below it.
fn text(tree: &ScopeView, line: u32) -> String {
    let text = tree.to_string();
    let (_, below) = text.split_once('\n').expect("something is below the run");
    let mut out = String::new();
    let mut pieces = below.split("tree.rs:");
    out.push_str(pieces.next().unwrap());
    for piece in pieces {
        let end = piece.find(|c: char| !c.is_ascii_digit()).unwrap_or(piece.len());
        let at = piece[..end].parse::<u32>().unwrap().wrapping_sub(line);
        out.push_str(&format!("@{at}{}", &piece[end..]));
    }
    out
}

/// Pends for good on nothing that the library knows of, but for a cancel, by which it is dropped.
async fn foreign() -> Result<(), Cancelled> {
    poll_fn(|_| Poll::Pending).await
}

#[test]
fn the_text_says_of_each_task_what_it_does() {
    run_virtual(async || {
        let (go, asked, seen) = (Event::new(), Event::new(), Cell::new(String::new()));
        let (go, asked, seen) = (&go, &asked, &seen);
        let line = line!();
        let ended = local_nursery(async |n| -> Result<(), Cancelled> {
            n.spawn_named("waits", async { go.wait().await });
            n.spawn(foreign());
            n.spawn_named("asks", async move {
                asked.wait().await?;
                go.set();
                n.spawn(async { Ok(()) });
                seen.set(text(&tree(), line));
                n.cancel();
                Ok(())
            });
            n.spawn(async {
                move_on_after(ms(60_000), CancelScope::new().run(sleep_forever())).named("minute").await?;
                Ok(())
            });
            sleep(ms(1_500)).await?;
            asked.set();
            sleep_forever().await
        })
        .named("main")
        .await;
        assert!(ended.is_err());
        assert_eq!(
            seen.take(),
            "\
└─ nursery `main` (@1), 5 children
   ├─ sleeps for ever at @18 since 0 µs
   ├─ task `waits` (@2) is ready [1.5 s old, 1 poll]
   ├─ task @3 waits for something foreign [1.5 s old, 1 poll]
   ├─ task `asks` (@4) is running [1.5 s old, 2 polls]
   ├─ task @12 [1.5 s old, 1 poll]
   │  └─ scope `minute` (@13), deadline in 58.5 s
   │     └─ scope @13
   │        └─ sleeps for ever at @13 since 1.5 s
   └─ task @7 is ready [0 µs old, 0 polls]"
        );
    });
}

/// Which event, condition or barrier it is: the text, the data and the JSON say where it was made. Tasks that differ in that are two lines.
#[test]
fn the_tree_says_where_that_was_made_which_nobody_holds() {
    run_virtual(async || {
        let line = line!();
        let (a, b) = (
            Event::new(), // 2
            Event::default(),
        );
        let (lock, more) = (Mutex::new(()), Condition::new());
        let barrier = Barrier::new(2);
        nursery(async |n| -> Result<(), Cancelled> {
            for event in [&a, &b, &a] {
                n.spawn(async { event.wait().await }); // 9
            }
            n.spawn(async {
                let guard = lock.lock().await?;
                more.wait(guard).await.1 // 13
            });
            n.spawn(async { barrier.wait().await.map(drop) }); // 15
            sleep(ms(1_500)).await?;
            let tree = tree();
            let made: Vec<_> = below(&tree)[0]
                .tasks
                .iter()
                .flat_map(|task| &task.waits)
                .map(|wait| wait.made.map(|made| made.line() - line))
                .collect();
            assert_eq!(made, [Some(2), Some(3), Some(2), Some(5), Some(6)], "{tree}");
            let json = trefoil_inspect::tree_to_json(&tree);
            let wait = &json["tasks"][0]["scopes"][0]["tasks"][1]["waits"][0];
            assert!(wait["made"].as_str().unwrap().ends_with(&format!("tree.rs:{}:13", line + 2)), "{json}");
            assert_eq!(
                text(&tree, line),
                "\
└─ nursery @7, 5 children
   ├─ is running
   ├─ 2 × task @9 waits for an event (made at @2) at @9, longest since 1.5 s [1.5 s old, 1 poll]
   ├─ task @9 waits for an event (made at @3) at @9 since 1.5 s [1.5 s old, 1 poll]
   ├─ task @11 waits for a condition (made at @5) at @13 since 1.5 s [1.5 s old, 1 poll]
   └─ task @15 waits for others at a barrier (made at @6) at @15 since 1.5 s [1.5 s old, 1 poll]"
            );
            n.cancel();
            Ok(())
        })
        .await
        .unwrap();
    });
}

/// Each poll counts, also one that is going on, and one of what waits inside a combinator. Tasks that differ in that alone are one line.
#[test]
fn the_tree_counts_the_polls_of_each_task() {
    run_virtual(async || {
        let line = line!();
        nursery(async |n| -> Result<(), Cancelled> {
            for turns in 0..5 {
                n.spawn(async move {
                    for _ in 0..turns {
                        checkpoint().await?;
                    }
                    sleep_forever().await
                });
            }
            sleep(ms(1_000)).await?;
            let tree = tree();
            let [nursery] = below(&tree)[..] else { panic!("{tree}") };
            let polls: Vec<u32> = nursery.tasks.iter().filter(|task| !task.body).map(|task| task.polls).collect();
            assert_eq!(polls, [1, 2, 3, 4, 5]);
            assert_eq!(nursery.tasks.iter().find(|task| task.body).map(|task| task.polls), Some(2));
            let text = text(&tree, line);
            assert!(text.contains("5 × task @3 sleeps for ever") && text.ends_with(" old, 1 to 5 polls]"), "{text}");
            n.cancel();
            Ok(())
        })
        .await
        .unwrap();
    });
}

/// Of a task that is in several scopes, and of a child in one of its own.
#[test]
fn the_tree_shows_what_a_task_holds_once() {
    run_virtual(async || {
        let (lock, other) = (Mutex::new(()), Mutex::new(()));
        let _own = lock.lock().await.unwrap();
        let shown = move_on_after(ms(9_000), async {
            nursery(async |n| -> Result<(), Cancelled> {
                n.spawn(async {
                    let _other = other.lock().await?;
                    move_on_after(ms(9_000), sleep_forever()).await.map(drop)
                });
                sleep(ms(1)).await?;
                let tree = tree();
                assert_eq!(tree.to_string().matches("holds a lock").count(), 2, "{tree}");
                assert_eq!((tree.tasks[0].holds.len(), tree.tasks[0].scopes[0].tasks[0].holds.len()), (1, 0));
                n.cancel();
                Ok(())
            })
            .await
        });
        assert!(shown.await.unwrap().is_some());
    });
}

/// Locks, permits and tokens, wanted by others or not: as data, and in the text, where the equal ones are one line. What was given back, is.
#[test]
fn the_tree_shows_what_each_task_holds() {
    run_virtual(async || {
        let line = line!();
        let (lock, shared, permits) = (Mutex::new(()), RwLock::new(()), Semaphore::new(9));
        let tokens = CapacityLimiter::new(3);
        let _own = lock.lock().await.unwrap(); // 3
        nursery(async |n| -> Result<(), Cancelled> {
            let _inner = tokens.acquire().await?; // 5
            n.spawn_named("asks", async {
                let given_back = permits.acquire(1).await?;
                drop((given_back, shared.write().await?));
                move_on_after(ms(9_000), lock.lock()).await.map(drop) // 9
            });
            for _ in 0..2 {
                n.spawn(async {
                    let _all = (shared.read().await?, permits.acquire(3).await?, tokens.try_acquire().unwrap()); // 13
                    let _more = (permits.acquire(1).await?, shared.read().await?); // 14
                    sleep_forever().await
                });
            }
            sleep(ms(1_500)).await?;
            let tree = tree();
            let own: Vec<_> = tree.tasks[0].holds.iter().map(|hold| (hold.held, hold.place.line() - line)).collect();
            assert_eq!(own, [(Holding::Lock, 3)]);
            let json = trefoil_inspect::tree_to_json(&tree);
            let hold = &json["tasks"][0]["holds"][0];
            assert_eq!((&hold["what"], &hold["units"]), (&"lock".into(), &1.into()), "{json}");
            assert!(hold["place"].as_str().unwrap().ends_with(&format!("tree.rs:{}:25", line + 3)), "{json}");
            assert_eq!(json["tasks"][0]["scopes"][0]["tasks"][1]["polls"], 1, "{json}");
            assert!(tree.tasks[0].age.abs_diff(ms(1_500)) < ms(10), "that of the main task, too: {json}");
            let [nursery] = below(&tree)[..] else { panic!("{tree}") };
            let of_each: Vec<Vec<_>> = nursery
                .tasks
                .iter()
                .map(|task| task.holds.iter().map(|hold| (hold.held, hold.units, hold.place.line() - line)).collect())
                .collect();
            let (lock, permits, tokens) = (Holding::Lock, Holding::Permits, Holding::Tokens);
            let readers = vec![(lock, 1, 13), (permits, 3, 13), (tokens, 1, 13), (permits, 1, 14), (lock, 1, 14)];
            assert_eq!(of_each, [vec![(tokens, 1, 5)], vec![], readers.clone(), readers], "{tree}");
            let text = text(&tree, line);
            assert_eq!(
                text,
                "\
├─ holds a lock (@3)
└─ nursery @4, 3 children
   ├─ holds a token (@5)
   ├─ is running
   ├─ task `asks` (@6) [1.5 s old, 1 poll]
   │  └─ scope @9, deadline in 7.5 s
   │     └─ waits for a lock at @9 since 1.5 s
   └─ 2 × task @12 sleeps for ever at @15, longest since 1.5 s, holds a lock (@13), 3 permits (@13), a token (@13), a permit (@14) and 1 more [1.5 s old, 1 poll]"
            );
            n.cancel();
            Ok(())
        })
        .await
        .unwrap();
    });
}

/// From its own queue, and from another one, where it is not the queue that knows the time.
#[test]
fn a_child_is_as_old_as_the_turn_in_which_it_was_spawned() {
    run_virtual(async || {
        nursery(async |n| -> Result<(), Cancelled> {
            n.spawn(sleep_forever());
            sleep(ms(1_000)).await?;
            n.spawn(sleep_forever());
            sleep(ms(300)).await?;
            n.spawn(async move {
                let elsewhere = nursery(async |_| -> Result<(), Cancelled> {
                    n.spawn(sleep_forever());
                    Ok(())
                });
                elsewhere.await.unwrap();
                sleep_forever().await
            });
            sleep(ms(200)).await?;
            let tree = tree();
            let [nursery] = below(&tree)[..] else { panic!("{tree}") };
            let about = |age: Duration| (age.as_millis() + 5) / 100;
            let ages: Vec<_> =
                nursery.tasks.iter().filter(|task| !task.body).map(|task| (about(task.age), task.polls)).collect();
            assert_eq!(ages, [(15, 1), (5, 1), (2, 1), (2, 1)], "{tree}");
            n.cancel();
            Ok(())
        })
        .await
        .unwrap();
    });
}

/// A guard that was forgotten is held as long as its task lives, and its lock; another task that gets the address of one that has ended holds
/// nothing.
#[test]
fn what_a_task_held_that_has_ended_is_not_held_by_the_next() {
    run_virtual(async || {
        let lock = Mutex::new(());
        for _ in 0..3 {
            local_nursery(async |n| -> Result<(), Cancelled> {
                n.spawn(async {
                    if let Ok(guard) = lock.try_lock() {
                        std::mem::forget(guard);
                        assert!(tree().to_string().contains("holds a lock"));
                    } else {
                        assert!(!tree().to_string().contains("holds a lock"), "{}", tree());
                    }
                    Ok(())
                });
                Ok(())
            })
            .await
            .unwrap();
        }
        drop(lock);
        let lock = Mutex::new(());
        std::mem::forget(lock.try_lock().unwrap());
        assert!(tree().to_string().contains("holds a lock"));
        drop(lock);
        assert!(!tree().to_string().contains("holds a lock"));
    });
}

#[test]
fn ten_thousand_tasks_are_a_few_lines() {
    run_virtual(async || {
        let line = line!();
        nursery(async |n| -> Result<(), Cancelled> {
            for id in 0..10_000 {
                n.spawn_named(format!("client {id}"), async move {
                    if id >= 9_998 { sleep(ms(5_000)).await } else { sleep_forever().await }
                });
            }
            sleep(ms(2_000)).await?;
            let begin = Instant::now();
            let tree = tree();
            let taken = begin.elapsed();
            let text = text(&tree, line);
            println!("10,000 tasks: the tree takes {taken:?}, its text {:?}", begin.elapsed() - taken);
            assert_eq!(
                text,
                "\
└─ nursery @1, 10,000 children
   ├─ is running
   ├─ 9,998 × task `client 9997` (@3) sleeps for ever at @4, longest since 2.0 s [2.0 s old, 1 poll]
   ├─ task `client 9998` (@3) sleeps at @4 since 2.0 s [2.0 s old, 1 poll]
   └─ task `client 9999` (@3) sleeps at @4 since 2.0 s [2.0 s old, 1 poll]"
            );
            n.cancel();
            Ok(())
        })
        .await
        .unwrap();
    });
}

/// The loop is stuck in a child: another thread takes the tree, and sees who is running.
#[test]
fn another_thread_takes_the_tree_while_the_loop_is_stuck() {
    run_real(async || {
        let (stuck, look) = mpsc::channel::<u32>();
        let looker = std::thread::spawn(move || {
            let line = look.recv().unwrap();
            let trees = trees();
            let of_this = trees.iter().map(|tree| tree.to_string()).find(|text| text.contains("`stuck here`"));
            (of_this.expect("the run is in it"), line)
        });
        let at_it = &looker;
        nursery(async |n| -> Result<(), Cancelled> {
            n.spawn_named("ready", async { Ok(()) });
            n.spawn_named("stuck here", async move {
                stuck.send(line!()).unwrap();
                while !at_it.is_finished() {
                    std::thread::yield_now();
                }
                Ok(())
            });
            n.spawn_named("not polled yet", async { Ok(()) });
            Ok(())
        })
        .await
        .unwrap();
        let (seen, line) = looker.join().unwrap();
        let stuck = format!("task `stuck here` (tree.rs:{}) is running", line - 1);
        assert!(seen.contains(&stuck), "{seen}");
        assert!(seen.contains(&format!("task `not polled yet` (tree.rs:{}) is ready", line + 6)), "{seen}");
        assert!(!seen.contains("task `ready`"), "it has ended: {seen}");
    });
}

/// Tasks come and go while others look on, in two runs at once.
#[test]
fn others_look_on_while_tasks_come_and_go() {
    let (turns, tasks) = if cfg!(miri) { (3, 5) } else { (300, 200) };
    let (over, looks) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    for tree in trees() {
                        assert!(tree.to_string().starts_with("run "));
                    }
                    looks.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let runs: Vec<_> = (0..2)
            .map(|run| {
                threads.spawn(move || {
                    trefoil_runtime::run(
                        std::rc::Rc::new(trefoil_runtime::ThreadDriver::new()),
                        trefoil_runtime::Options::default(),
                        std::panic::Location::caller(),
                        churn(turns, tasks, run),
                    );
                })
            })
            .collect();
        let ended: Vec<_> = runs.into_iter().map(|run| run.join()).collect();
        over.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok));
    });
    assert!(looks.into_inner() > 0);
}

/// Children that end at once, later, by a cancel and by a drop, with wakers and handles that outlive them.
async fn churn(turns: usize, tasks: usize, run: usize) {
    for turn in 0..turns {
        let (sender, receiver) = channel(2);
        let ended = trefoil_tests::drop_at(
            1 + turn % 7,
            nursery(async |n| -> Result<(), Cancelled> {
                let mut joins = vec![];
                for task in 0..tasks {
                    let sender = &sender;
                    joins.push(n.spawn_named(format!("{run}.{task}"), async move {
                        match task % 5 {
                            0 => Ok(()),
                            1 => checkpoint().await,
                            2 => sender.send(Box::new(task)).await.or(Ok(())),
                            3 => CancelScope::new().run(sleep_forever()).await.map(drop),
                            _ => {
                                n.spawn(async { checkpoint().await });
                                checkpoint().await?;
                                foreign().await
                            }
                        }
                    }));
                }
                for _ in 0..tasks / 8 {
                    let _ = receiver.recv().await?;
                }
                n.cancel();
                drop(joins);
                Ok(())
            }),
        )
        .await;
        drop(ended);
    }
}

/// `SIGQUIT`, in a process of its own, while its loop is stuck in a task; and its ordinary life goes on.
#[test]
fn a_signal_prints_the_trees_while_the_loop_is_stuck() {
    const STUCK: &str = "TREFOIL_TEST_STUCK";
    if std::env::var_os(STUCK).is_some() {
        trefoil::run(async {
            nursery(async |n| -> Result<(), Cancelled> {
                n.spawn_named("endless", async {
                    println!("stuck");
                    while std::env::var_os(STUCK).is_some() {
                        std::thread::sleep(ms(1));
                    }
                    Ok(())
                });
                sleep_forever().await
            })
            .await
            .unwrap();
        });
    }
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_signal_prints_the_trees_while_the_loop_is_stuck", "--nocapture"])
        .envs([(STUCK, "1"), ("TREFOIL_DUMP", "sigquit")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(out.any(|line| line.ends_with("stuck")));
    let mut err = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    for _ in 0..2 {
        assert!(Command::new("kill").args(["-QUIT", &child.id().to_string()]).status().unwrap().success());
        assert!(err.any(|line| line.starts_with("trefoil: 1 run in process ")));
        let line = err.find(|line| line.contains("task `endless`")).unwrap();
        assert!(line.contains("(tree.rs:") && line.contains(" is running ["), "{line}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
