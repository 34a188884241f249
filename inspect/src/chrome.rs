//! The trace event format of Chrome's viewer, which Perfetto opens as well.

use crate::spans::{Span, Spans, Task};
use serde_json::{Value, json};

const RUN: u64 = 1;

/// Microseconds, as the format has them.
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1_000.0
}

/// An event, with the time by which it is put in order. Of events at one time the ends come first, but for that of the same thing.
struct At(u64, Value);

pub fn trace(spans: &Spans) -> Value {
    let mut events = Vec::new();
    for task in &spans.tasks {
        for poll in &task.polls {
            events.push(At(
                poll.begin,
                json!({"ph": "B", "name": "poll", "cat": "poll", "pid": RUN, "tid": task.id, "ts": micros(poll.begin)}),
            ));
            events.push(At(poll.end, json!({"ph": "E", "pid": RUN, "tid": task.id, "ts": micros(poll.end)})));
        }
        for (category, all) in [("wait", &task.waits), ("scope", &task.scopes)] {
            all.iter().for_each(|span| lasting(&mut events, task, category, span));
        }
    }
    for (id, wake) in spans.wakes.iter().enumerate() {
        let flow = |phase: &str, task: u64, at: u64| json!({"ph": phase, "name": "wake", "cat": "wake", "id": id, "pid": RUN, "tid": task, "ts": micros(at), "bp": "e"});
        events.push(At(wake.at, flow("s", wake.from, wake.at)));
        events.push(At(wake.polled_at, flow("f", wake.to, wake.polled_at)));
    }
    // In the order of time; at one time in that in which they were made, since an end comes after its begin.
    events.sort_by_key(|At(at, _)| *at);
    let mut all =
        vec![json!({"ph": "M", "name": "process_name", "pid": RUN, "tid": 0, "args": {"name": "trefoil run"}})];
    for (order, task) in spans.tasks.iter().enumerate() {
        all.push(json!({"ph": "M", "name": "thread_name", "pid": RUN, "tid": task.id, "args": {"name": task.label}}));
        all.push(
            json!({"ph": "M", "name": "thread_sort_index", "pid": RUN, "tid": task.id, "args": {"sort_index": order}}),
        );
    }
    all.extend(events.into_iter().map(|At(_, event)| event));
    json!({"traceEvents": all, "displayTimeUnit": "ns", "otherData": {"dropped": spans.dropped}})
}

/// A wait or a scope: it may overlap others of its task in any way.
fn lasting(events: &mut Vec<At>, task: &Task, category: &str, span: &Span) {
    let event = |phase: &str, at: u64, args: Value| {
        At(
            at,
            json!({"ph": phase, "cat": category, "name": span.text, "id": span.id, "pid": RUN, "tid": task.id, "ts": micros(at), "args": args}),
        )
    };
    events.push(event("b", span.begin, json!({"task": task.label})));
    if let Some(why) = &span.cancelled {
        let name = if category == "scope" { why.as_str() } else { "cancelled" };
        events.push(At(span.end, json!({"ph": "i", "s": "t", "name": name, "cat": "cancel", "pid": RUN, "tid": task.id, "ts": micros(span.end)})));
    }
    events.push(event("e", span.end, json!({"cancelled": span.cancelled})));
}
