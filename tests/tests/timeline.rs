//! Timelines (`trefoil-inspect`): what is recorded of a run, and the forms it is written in.

use serde_json::Value;
use std::collections::HashMap;
use trefoil::{CancelScope, Cancelled, channel, checkpoint, move_on_after, nursery, sleep, sleep_forever, tree};
use trefoil_inspect::{Timeline, tree_to_json};
use trefoil_runtime::{What, record};
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

/// The trace is one that a viewer takes: time does not go back, each begin has an end in its thread, each `b` an `e` with its number, each
/// arrow a begin and an end within polls. What there is of each phase.
fn check(trace: &Value) -> HashMap<String, usize> {
    let (mut counts, mut depth) = (HashMap::new(), HashMap::<u64, i64>::new());
    let (mut open, mut flows) = (HashMap::new(), HashMap::new());
    let mut before = 0.0;
    for event in trace["traceEvents"].as_array().unwrap() {
        let phase = event["ph"].as_str().unwrap();
        *counts.entry(phase.to_string()).or_default() += 1;
        assert_eq!(event["pid"], 1, "{event}");
        let thread = event["tid"].as_u64().unwrap();
        if phase == "M" {
            continue;
        }
        let at = event["ts"].as_f64().unwrap();
        assert!(at >= before, "{event}");
        before = at;
        let key = || (event["cat"].as_str().unwrap().to_string(), event["id"].as_u64().unwrap());
        match phase {
            "B" => *depth.entry(thread).or_default() += 1,
            "E" => {
                let depth = depth.get_mut(&thread).unwrap();
                *depth -= 1;
                assert_eq!(*depth, 0, "polls of one task are not nested: {event}");
            }
            "b" => assert!(open.insert(key(), event["name"].clone()).is_none(), "{event}"),
            "e" => assert_eq!(open.remove(&key()), Some(event["name"].clone()), "{event}"),
            "s" => assert!(flows.insert(event["id"].as_u64(), at).is_none(), "{event}"),
            "f" => assert!(flows.remove(&event["id"].as_u64()).unwrap() <= at, "{event}"),
            "i" => assert!(!event["name"].as_str().unwrap().is_empty()),
            other => panic!("{other}"),
        }
    }
    assert!(depth.values().all(|depth| *depth == 0) && open.is_empty() && flows.is_empty());
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
        let begun = names(&json, "b");
        for what in
            ["nursery `all` (timeline.rs:", "scope `two` (", "scope `stopped` (", "sleep at ", "sleep for ever at "]
        {
            assert!(begun.iter().any(|name| name.contains(what)), "{what}: {begun:?}");
        }
        let marks = names(&json, "i");
        assert!(marks.iter().any(|why| why.starts_with("cancelled: the deadline of scope `two` (")), "{marks:?}");
        assert!(marks.iter().any(|why| why.starts_with("cancelled: scope `stopped` (")), "{marks:?}");
        assert!(counts["s"] >= 2, "the two of the channel wake each other: {counts:?}");

        let (page, picture) = (trace.to_html(), trace.to_svg());
        assert!(page.starts_with("<!doctype html>") && page.contains("gives (timeline.rs:"));
        assert!(!page.contains("/*DATA*/") && !page.contains("http:") || page.contains("http://www.w3.org/2000/svg"));
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
