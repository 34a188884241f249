//! Timelines (`trefoil-inspect`): what is recorded of a run, and the forms it is written in.

use serde_json::Value;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use trefoil::net::{TcpListener, TcpStream};
use trefoil::{CancelScope, Cancelled, channel, checkpoint, move_on_after, nursery, sleep, sleep_forever, tree};
use trefoil_inspect::{Timeline, tree_to_json};
use trefoil_runtime::{Ended, Event, Reason, Record, Recording, What, WokenBy, record};
use trefoil_tests::{drop_at, ms, run_real, run_virtual};

/// Two that pass items on, one that is cancelled, one that is cut by a deadline.
async fn program() {
    let (sender, receiver) = channel(1);
    let (sender, receiver) = (&sender, &receiver);
    nursery(async |n| -> Result<(), Cancelled> {
        n.spawn_named("gives", async {
            for item in 0..3 {
                sender.send(item).await.map_err(|_| unreachable!("nobody cancels it")).unwrap();
            }
            Ok(())
        });
        n.spawn_named("takes", async {
            for _ in 0..3 {
                receiver.recv().await?;
                sleep(ms(1)).await?;
            }
            Ok(())
        });
        n.spawn_named("late", async { move_on_after(ms(2), sleep_forever()).named("two").await.map(drop) });
        let scope = CancelScope::named("stopped");
        let stopped = scope.clone();
        n.spawn_named("stops", async move { stopped.run(sleep_forever()).await.map(drop) });
        sleep(ms(1)).await?;
        scope.cancel();
        Ok(())
    })
    .named("all")
    .await
    .unwrap();
}

/// The trace is one that a viewer takes: time does not go back; each begin has an end in its thread, which has a name, and slices are not nested;
/// each `b` has an `e` with its number; each arrow begins and ends in a slice that is open then, later than it began. What there is of each phase.
fn check(trace: &Value) -> HashMap<String, usize> {
    let (mut counts, mut slices, mut named) = (HashMap::new(), HashMap::<u64, Vec<String>>::new(), HashSet::new());
    let (mut open, mut flows, mut ids) = (HashMap::new(), HashMap::new(), HashSet::new());
    let mut before = 0.0;
    for event in trace["traceEvents"].as_array().unwrap() {
        let phase = event["ph"].as_str().unwrap();
        *counts.entry(phase.to_string()).or_default() += 1;
        assert_eq!(event["pid"], 1, "{event}");
        let thread = event["tid"].as_u64();
        if phase == "M" {
            if event["name"] == "thread_name" {
                assert!(named.insert(thread.unwrap()), "{event}");
            }
            continue;
        }
        let thread = thread.unwrap();
        assert!(named.contains(&thread), "its thread has a name, said before: {event}");
        let at = event["ts"].as_f64().unwrap();
        assert!(at >= before, "{event}");
        before = at;
        let slices = slices.entry(thread).or_default();
        let scope = || event["id2"]["local"].as_str().unwrap().to_string();
        let text = |key: &str| event[key].as_str().unwrap().to_string();
        match phase {
            "B" => {
                assert!(slices.is_empty(), "what a task does is one thing after the other: {event}");
                slices.push(text("name"));
            }
            "E" => assert!(slices.pop().is_some(), "{event}"),
            "b" => assert!(open.insert(scope(), event["name"].clone()).is_none(), "{event}"),
            "e" => assert_eq!(open.remove(&scope()), Some(event["name"].clone()), "{event}"),
            "s" => {
                let from = slices.last().expect("an arrow begins in a slice");
                assert!(from == "polled" || from == "wakes", "{from}");
                assert!(ids.insert(event["id"].as_u64()), "{event}");
                assert!(flows.insert(event["id"].as_u64(), at).is_none(), "{event}");
            }
            "f" => {
                assert_eq!((slices.last().unwrap().as_str(), &event["bp"]), ("polled", &"e".into()), "{event}");
                assert!(flows.remove(&event["id"].as_u64()).unwrap() <= at, "{event}");
            }
            "i" => assert!(!text("name").is_empty()),
            other => panic!("{other}"),
        }
    }
    assert!(slices.values().all(Vec::is_empty) && open.is_empty() && flows.is_empty());
    counts
}

fn names(trace: &Value, phase: &str) -> Vec<String> {
    let of_phase = |event: &&Value| event["ph"] == phase;
    let events = trace["traceEvents"].as_array().unwrap().iter();
    events.filter(of_phase).map(|event| event["name"].as_str().unwrap().to_string()).collect()
}

#[test]
fn a_trace_is_whole_on_every_driver() {
    run_real(async || {
        let timeline = Timeline::record();
        program().await;
        let trace = timeline.stop();
        assert_eq!(trace.dropped(), 0);
        let json = serde_json::from_str(&trace.to_json().to_string()).unwrap();
        let counts = check(&json);
        assert_eq!(counts["B"], counts["E"]);
        assert_eq!(counts["s"], counts["f"]);
        let threads: Vec<_> = json["traceEvents"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|event| event["name"] == "thread_name")
            .map(|event| event["args"]["name"].as_str().unwrap().split(' ').next().unwrap().to_string())
            .collect();
        for task in ["gives", "takes", "late", "stops"] {
            assert_eq!(threads.iter().filter(|thread| *thread == task).count(), 1, "{threads:?}");
        }
        let (scopes, states) = (names(&json, "b"), names(&json, "B"));
        for what in ["nursery `all` (timeline.rs:", "scope `two` (", "scope `stopped` ("] {
            assert!(scopes.iter().any(|name| name.contains(what)), "{what}: {scopes:?}");
        }
        for what in ["polled", "ready", "sleep at ", "sleep for ever at ", "the children of nursery `all` (", "wakes"] {
            assert!(states.iter().any(|name| name.starts_with(what)), "{what}: {states:?}");
        }
        let marks = names(&json, "i");
        assert!(marks.iter().any(|why| why.starts_with("cancelled: the deadline of scope `two` (")), "{marks:?}");
        assert!(marks.iter().any(|why| why.starts_with("cancelled: scope `stopped` (")), "{marks:?}");
        assert!(counts["s"] >= 2, "the two of the channel wake each other: {counts:?}");

        let (page, picture) = (trace.to_html(), trace.to_svg());
        assert!(page.starts_with("<!doctype html>") && page.contains("\"gives\""));
        assert!(picture.starts_with("<svg ") && picture.trim_end().ends_with("</svg>") && picture.contains("takes ("));
    });
}

#[test]
fn a_ring_keeps_the_last_events_and_counts_the_others() {
    run_virtual(async || {
        let timeline = Timeline::with_capacity(20);
        program().await;
        program().await;
        let trace = timeline.stop();
        assert!(trace.dropped() > 20);
        check(&trace.to_json());
        assert!(trace.to_svg().contains(&format!("{} events dropped", trace.dropped())));
    });
}

/// Where one looks for it in Perfetto, too: in the name of the process.
#[test]
fn a_trace_says_how_much_of_the_run_is_missing() {
    run_virtual(async || {
        for (capacity, name) in [(1_000, "run".to_string()), (20, "run, without its first ".to_string())] {
            let timeline = Timeline::with_capacity(capacity);
            program().await;
            let trace = timeline.stop();
            let json = trace.to_json();
            let said = json["traceEvents"][0]["args"]["name"].as_str().unwrap();
            assert!(said.starts_with(&name), "{said}");
            assert_eq!(said != "run", trace.dropped() > 0, "{said}");
            assert!(trace.dropped() == 0 || said.contains(&format!(" {} events", trace.dropped())), "{said}");
        }
    });
}

/// Tasks that panic, that are dropped half way, and that a recording finds half way.
#[test]
fn what_ends_in_another_way_ends_in_the_trace_too() {
    run_virtual(async || {
        let before = CancelScope::new();
        nursery(async |n| -> Result<(), Cancelled> {
            n.spawn_named("before", before.run(sleep_forever()));
            checkpoint().await?;
            let timeline = Timeline::record();
            let dropped = nursery(async |n| -> Result<(), Cancelled> {
                n.spawn_named("dropped", sleep_forever());
                sleep_forever().await
            });
            assert!(drop_at(2, dropped).await.is_none());
            let panics = nursery(async |n| -> Result<(), Cancelled> {
                n.spawn_named("panics", async {
                    checkpoint().await?;
                    if true {
                        panic!("it does");
                    }
                    Ok(())
                });
                sleep_forever().await
            });
            futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(panics)).await.unwrap_err();
            before.cancel();
            checkpoint().await?;
            checkpoint().await?;
            let trace = timeline.stop();
            check(&trace.to_json());
            let svg = trace.to_svg();
            assert!(["before", "dropped", "panics"].iter().all(|task| svg.contains(&format!("{task} ("))), "{svg}");
            Ok(())
        })
        .await
        .unwrap();
    });
}

/// Who woke this task, each time.
fn who_woke(record: &Record, task: &str) -> Vec<WokenBy> {
    let of_task = |event: &&Event| event.task.name() == Some(task);
    let woken = record.events.iter().filter(of_task).filter_map(|event| match &event.what {
        What::Woken { by } => Some(by.clone()),
        _ => None,
    });
    woken.collect()
}

fn thread_named(by: &WokenBy, name: &str) -> bool {
    matches!(by, WokenBy::Thread(thread) if thread.name() == Some(name))
}

fn in_thread(name: &str, what: impl FnOnce() + Send + 'static) -> std::thread::JoinHandle<()> {
    std::thread::Builder::new().name(name.into()).spawn(what).unwrap()
}

/// A task by another, by a deadline, by another thread, by a call; and by itself.
#[test]
fn it_is_known_who_woke_a_task() {
    run_real(async || {
        let recording = record(10_000);
        let (far, near, called) =
            (Arc::new(trefoil::Event::new()), trefoil::Event::new(), Arc::new(trefoil::Event::new()));
        let (thread, call) = nursery(async |n| -> Result<_, Cancelled> {
            let far_too = far.clone();
            n.spawn_named("far", async move { far_too.wait().await });
            n.spawn_named("near", near.wait());
            let called_too = called.clone();
            n.spawn_named("called", async move { called_too.wait().await });
            n.spawn_named("sleeps", sleep(ms(1)));
            n.spawn_named("late", async { move_on_after(ms(1), sleep_forever()).await.map(drop) });
            n.spawn_named("itself", checkpoint());
            checkpoint().await?;
            near.set();
            let thread = in_thread("helper", move || far.set());
            let handle = trefoil::run_handle();
            let call = in_thread("caller", move || assert!(handle.run_soon(move || called.set()).is_ok()));
            Ok((thread, call))
        })
        .await
        .unwrap();
        thread.join().unwrap();
        call.join().unwrap();
        let record = recording.take();
        let last = |task| who_woke(&record, task).pop().unwrap();
        let main = record.events[0].task.id();
        assert!(thread_named(&last("far"), "helper"), "{:?}", last("far"));
        assert_eq!(last("near").task(), Some(main));
        assert!(matches!(last("called"), WokenBy::Call), "{:?}", last("called"));
        assert!(matches!(last("sleeps"), WokenBy::Deadline), "{:?}", last("sleeps"));
        assert!(matches!(last("late"), WokenBy::Deadline), "{:?}", last("late"));
        let itself = record.events.iter().find(|event| event.task.name() == Some("itself")).unwrap().task.id();
        assert_eq!(last("itself").task(), Some(itself));
        // And the arrows of the trace come from there.
        let trace = trefoil_inspect::Trace::new(record).to_json();
        check(&trace);
        let woken_by: Vec<_> =
            trace["traceEvents"].as_array().unwrap().iter().filter_map(|e| e["args"]["woken by"].as_str()).collect();
        for who in ["thread `helper`", "deadlines", "calls of run handles"] {
            assert!(woken_by.contains(&who), "{who}: {woken_by:?}");
        }
    });
}

/// What does not follow from the machine: no two deadlines are set at once, so none can be late for another.
async fn program_in_turn() {
    let (sender, receiver) = channel(1);
    let (done, gate) = (trefoil::Event::new(), trefoil::sync::Mutex::new(()));
    nursery(async |n| -> Result<(), Cancelled> {
        n.spawn_named("gives", async {
            for item in 0..3 {
                sender.send(item).await.map_err(|_| unreachable!("nobody cancels it")).unwrap();
            }
            done.wait().await
        });
        let takes = n.spawn_named("takes", async {
            for _ in 0..3 {
                receiver.recv().await?;
                sleep(ms(1)).await?;
            }
            Ok(())
        });
        takes.await?;
        move_on_after(
            ms(2),
            nursery(async |n| -> Result<(), Cancelled> {
                let _held = gate.lock().await?;
                for _ in 0..2 {
                    n.spawn_named("wants", async { gate.lock().await.map(drop) });
                }
                sleep_forever().await
            }),
        )
        .named("two")
        .await?;
        let scope = CancelScope::named("stopped");
        let stopped = scope.clone();
        let stops = n.spawn_named("stops", async move { stopped.run(sleep_forever()).await.map(drop) });
        checkpoint().await?;
        scope.cancel();
        stops.await?;
        let late = trefoil::fail_after(ms(1), sleep_forever()).await;
        assert!(late.is_err());
        done.set();
        Ok(())
    })
    .named("all")
    .await
    .unwrap();
}

/// Everything but the times, and the place where the run was started.
fn without_times(record: &Record) -> Vec<String> {
    let told = |event: &Event| {
        let what = match &event.what {
            What::WaitBegins { wait, reason, place, until } => {
                format!(
                    "wait {wait} for {reason} at {place} begins{}",
                    if until.is_some() { ", with an end" } else { "" }
                )
            }
            What::WaitEnds { wait, how } => format!("wait {wait} ends: {how}"),
            What::ScopeEntered { scope, info, deadline } => {
                format!(
                    "scope {scope}, {info}, is entered{}",
                    if deadline.is_some() { ", with a deadline" } else { "" }
                )
            }
            What::ScopeLeft { scope, cause } => {
                let cause = cause.as_ref().map(|cause| (cause.source, cause.place, cause.scope.to_string()));
                format!("scope {scope} is left, {cause:?}")
            }
            other => format!("{other:?}"),
        };
        format!("task {} {:?}: {what}", event.task.id(), event.task.name())
    };
    record.events.iter().map(told).collect()
}

/// The order of events is that of virtual time in real time, too, and on every driver.
#[test]
fn a_program_takes_the_same_turns_in_virtual_and_in_real_time() {
    let records = RefCell::new(Vec::new());
    let recorded = async || {
        let recording = record(10_000);
        program_in_turn().await;
        records.borrow_mut().push(without_times(&recording.take()));
    };
    run_virtual(recorded);
    let virtually = records.borrow().len();
    run_real(recorded);
    let records = records.take();
    assert!(virtually > 0 && records.len() > virtually);
    let first = &records[0];
    // It is no short one.
    assert!(first.len() > 100, "{first:#?}");
    for record in &records {
        let differs = first.iter().zip(record).position(|(virtually, really)| virtually != really);
        assert_eq!(differs, None, "{first:#?} {record:#?}");
        assert_eq!(first.len(), record.len());
    }
}

/// What the kernel has done, with the operation and the descriptor.
#[test]
fn the_driver_wakes_who_waits_for_a_descriptor() {
    run_real(async || {
        if trefoil::metrics().driver == "thread" {
            return; // without I/O
        }
        let recording = record(10_000);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        nursery(async |n| -> std::io::Result<()> {
            n.spawn_named("server", async {
                let (mut stream, _) = listener.accept().await?;
                stream.read(&mut [0; 10]).await.map(drop)
            });
            let mut stream = TcpStream::connect(address).await?;
            sleep(ms(2)).await?;
            stream.write_all(b"hello").await?;
            Ok(())
        })
        .await
        .unwrap();
        let record = recording.take();
        let by = who_woke(&record, "server");
        assert!(matches!(by.last(), Some(WokenBy::Driver)), "{by:?}");
        let trace = trefoil_inspect::Trace::new(record).to_json();
        check(&trace);
        let why = |event: &&Value| event["args"]["woken by"] == "the driver";
        let ended: Vec<_> = trace["traceEvents"]
            .as_array()
            .unwrap()
            .iter()
            .filter(why)
            .filter_map(|e| e["args"]["what ended"].as_str())
            .collect();
        assert!(ended.iter().any(|what| what.starts_with("read from fd ")), "{ended:?}");
    });
}

/// Two runs that are recorded at once, on two threads, and wake each other all the time: each sees its own tasks, and that it was the other thread.
#[test]
fn two_recordings_do_not_mix() {
    let (there, here) = (channel::<u32>(1), channel::<u32>(1));
    let play = |name: &'static str, sender: trefoil::Sender<u32>, receiver: trefoil::Receiver<u32>, begins: bool| {
        trefoil::run(async move {
            let recording = record(100_000);
            nursery(async |n| -> Result<(), Cancelled> {
                n.spawn_named(name, async {
                    if begins {
                        sender.send(0).await.ok();
                    }
                    while let Some(n) = receiver.recv().await? {
                        if n == 200 || sender.send(n + 1).await.is_err() {
                            break;
                        }
                    }
                    drop((sender, receiver));
                    Ok(())
                });
                Ok(())
            })
            .await
            .unwrap();
            recording.take()
        })
    };
    let ((to_there, at_there), (to_here, at_here)) = (there, here);
    let ping = std::thread::Builder::new()
        .name("ping thread".into())
        .spawn(move || play("ping", to_there, at_here, true))
        .unwrap();
    let pong = std::thread::Builder::new()
        .name("pong thread".into())
        .spawn(move || play("pong", to_here, at_there, false))
        .unwrap();
    for (task, other, record) in [("ping", "pong", ping.join().unwrap()), ("pong", "ping", pong.join().unwrap())] {
        assert!(record.events.iter().all(|event| event.task.name() != Some(other)), "{other} in the record of {task}");
        let by = who_woke(&record, task);
        let from_there = by.iter().filter(|by| thread_named(by, &format!("{other} thread"))).count();
        // Where the other was at work, an item is there without a wake.
        assert!(from_there > 0, "{task}: {by:?}");
        assert!(!by.iter().any(|by| thread_named(by, &format!("{task} thread"))), "{task}: {by:?}");
        check(&trefoil_inspect::Trace::new(record).to_json());
    }
}

/// So often a loop takes the lock of its tree on end, at least, that it is favoured there: only who is not favoured asks for a recording.
const A_WHILE: usize = 100;

/// Tasks that wait for an event each, which is set when they do; one after the other.
async fn waits_for_events(many: usize) {
    for _ in 0..many {
        let event = trefoil::Event::new();
        nursery(async |n| -> Result<(), Cancelled> {
            n.spawn_named("waits", event.wait());
            checkpoint().await?;
            event.set();
            Ok(())
        })
        .await
        .unwrap();
    }
}

/// The numbers of the waits for events that began, and of all waits that ended as they should.
fn event_waits(record: &Record) -> (Vec<u64>, HashSet<u64>) {
    let (mut begun, mut done) = (Vec::new(), HashSet::new());
    for event in &record.events {
        match &event.what {
            What::WaitBegins { wait, reason: Reason::Event, .. } => begun.push(*wait),
            What::WaitEnds { wait, how: Ended::Done } => assert!(done.insert(*wait), "once"),
            _ => {}
        }
    }
    (begun, done)
}

/// From inside of a poll, in a run that has gone on for a while without.
#[test]
fn a_recording_that_begins_late_shows_each_wait_from_then_on() {
    run_real(async || {
        for _ in 0..3 {
            waits_for_events(A_WHILE).await;
            let recording = record(100_000);
            waits_for_events(A_WHILE).await;
            let record = recording.take();
            let (begun, done) = event_waits(&record);
            assert_eq!(begun.len(), A_WHILE);
            assert!(begun.iter().all(|wait| done.contains(wait)));
            check(&trefoil_inspect::Trace::new(record).to_json());
        }
    });
}

/// A wait that began before it, or in the one before it, is not in a recording, nor its end; the next one is.
#[test]
fn a_recording_may_end_and_another_begin_in_the_middle_of_a_wait() {
    run_real(async || {
        waits_for_events(A_WHILE).await;
        let (event, next) = (trefoil::Event::new(), trefoil::Event::new());
        nursery(async |n| -> Result<(), Cancelled> {
            let first = record(1_000);
            n.spawn_named("waits", async {
                event.wait().await?;
                next.wait().await
            });
            n.spawn_named("aborted", async { move_on_after(ms(5), sleep_forever()).await.map(drop) });
            checkpoint().await?;
            checkpoint().await?;
            let (begun, done) = event_waits(&first.take());
            assert_eq!((begun.len(), done.len()), (1, 0));
            drop(first);
            event.set();
            // The end of the first one, and the begin of the next, are in none.
            checkpoint().await?;
            checkpoint().await?;
            let second = record(100_000);
            next.set();
            sleep(ms(10)).await?;
            waits_for_events(A_WHILE).await;
            let record = second.take();
            let (begun, _) = event_waits(&record);
            assert_eq!(begun.len(), A_WHILE);
            let mut known = HashSet::new();
            for event in &record.events {
                match &event.what {
                    What::WaitBegins { wait, .. } => assert!(known.insert(*wait)),
                    What::WaitEnds { wait, .. } => assert!(known.remove(wait), "its begin is not there: {event:?}"),
                    _ => {}
                }
            }
            assert!(known.is_empty());
            assert!(who_woke(&record, "waits").iter().any(|by| by.task().is_some()));
            check(&trefoil_inspect::Trace::new(record).to_json());
            Ok(())
        })
        .await
        .unwrap();
    });
}

/// It is begun by a call that another thread asks for, in no task; and who wakes tasks from other threads is known from the next turn on.
#[test]
fn a_recording_that_another_thread_asks_for() {
    thread_local! {
        static RECORDING: RefCell<Option<Recording>> = const { RefCell::new(None) };
    }
    run_real(async || {
        let (before, after) = (Arc::new(trefoil::Event::new()), Arc::new(trefoil::Event::new()));
        waits_for_events(A_WHILE).await;
        nursery(async |n| -> Result<(), Cancelled> {
            let (before_too, after_too) = (before.clone(), after.clone());
            n.spawn_named("far", async move {
                before_too.wait().await?;
                after_too.wait().await
            });
            checkpoint().await?;
            let handle = trefoil::run_handle();
            let begins = move || RECORDING.set(Some(record(10_000)));
            in_thread("caller", move || assert!(handle.run_soon(begins).is_ok())).join().unwrap();
            while RECORDING.with_borrow(Option::is_none) {
                sleep(ms(1)).await?;
            }
            checkpoint().await?;
            for event in [before, after] {
                in_thread("helper", move || event.set()).join().unwrap();
                sleep(ms(1)).await?;
            }
            Ok(())
        })
        .await
        .unwrap();
        let record = RECORDING.take().unwrap().take();
        let by = who_woke(&record, "far");
        assert_eq!(by.len(), 2, "{by:?}");
        assert!(by.iter().all(|by| thread_named(by, "helper")), "{by:?}");
        // Its second wait: the first had begun before.
        let (begun, done) = event_waits(&record);
        assert_eq!(begun.len(), 1);
        assert!(done.contains(&begun[0]));
    });
}

/// Who wakes from elsewhere finds an inbox that is watched, and is not, and is again: nothing is lost. And none of the threads is told of twice.
#[test]
fn no_wake_is_lost_while_recordings_come_and_go() {
    const ROUNDS: u32 = 2_000;
    let ((to_there, at_there), (to_here, at_here)) = (channel::<u32>(1), channel::<u32>(1));
    let pong = std::thread::spawn(move || {
        trefoil::run(async move {
            while let Some(n) = at_there.recv().await.unwrap() {
                to_here.send(n).await.unwrap();
            }
        });
    });
    trefoil::run(async move {
        let over = AtomicBool::new(false);
        let (mut recordings, mut seen) = (0, 0);
        nursery(async |n| -> Result<(), Cancelled> {
            n.spawn_named("ping", async {
                for n in 0..ROUNDS {
                    to_there.send(n).await.unwrap();
                    assert_eq!(at_here.recv().await?, Some(n));
                }
                drop(to_there);
                over.store(true, Relaxed);
                Ok(())
            });
            while !over.load(Relaxed) {
                let recording = record(1_000);
                sleep(ms(1)).await?;
                let by = who_woke(&recording.take(), "ping");
                seen += by.iter().filter(|by| matches!(by, WokenBy::Thread(_))).count();
                recordings += 1;
                drop(recording);
                sleep(ms(1)).await?;
            }
            Ok(())
        })
        .await
        .unwrap();
        assert!(recordings > 0 && seen > 0, "{seen} wakes in {recordings} recordings");
    });
    pong.join().unwrap();
}

/// Between two recordings nothing is recorded; and one at a time.
#[test]
fn a_recording_ends_when_it_is_dropped() {
    run_virtual(async || {
        let recording = record(100);
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(record(1)))).is_err());
        checkpoint().await.unwrap();
        checkpoint().await.unwrap();
        assert!(recording.take().events.iter().any(|event| matches!(event.what, What::PollBegins)));
        drop(recording);
        let recording = record(100);
        let events = recording.take().events;
        assert!(matches!(&events[..], [event] if matches!(event.what, What::PollBegins)), "its own poll: {events:?}");
    });
}

#[test]
fn the_task_tree_as_json() {
    run_virtual(async || {
        nursery(async |n| -> Result<(), Cancelled> {
            for _ in 0..3 {
                n.spawn_named("<\"sleeps\">", async { move_on_after(ms(1_000), sleep_forever()).await.map(drop) });
            }
            sleep(ms(10)).await?;
            let json: Value = serde_json::from_str(&tree_to_json(&tree()).to_string()).unwrap();
            let nursery = &json["tasks"][0]["scopes"][0];
            assert_eq!((&json["kind"], &nursery["kind"]), (&"run".into(), &"nursery".into()));
            assert_eq!((nursery["children"].as_u64(), nursery["tasks"].as_array().unwrap().len()), (Some(3), 4));
            let child = &nursery["tasks"][1];
            assert_eq!((&child["name"], &child["state"]), (&"<\"sleeps\">".into(), &"waiting".into()));
            let scope = &child["scopes"][0];
            assert_eq!(scope["deadline_in"].as_f64(), Some(0.99));
            let wait = &scope["tasks"][0]["waits"][0];
            assert_eq!((wait["reason"].as_str(), wait["since"].as_f64()), (Some("sleep for ever"), Some(0.01)));
            assert!(wait["place"].as_str().unwrap().contains("timeline.rs:"));
            n.cancel();
            Ok(())
        })
        .await
        .unwrap();
    });
}
