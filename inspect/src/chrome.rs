//! The trace event format of Chrome's viewer, which Perfetto opens as well.
//!
//! The run is a process, each task a thread of it. A thread has one slice after the other, for what its task does: polled, ready, waits. An
//! arrow leads from the poll in which a wake happened to the poll that came of it. Who wakes and is no task has a thread of its own. Scopes may
//! overlap in any way, and are asynchronous slices.

use crate::spans::{Doing, From, NOTHING, Spans, State, Task, Time, length};
use serde_json::{Map, Value, json};

const RUN: u64 = 1;

/// Microseconds, as the format has them.
fn micros(nanos: Time) -> f64 {
    nanos as f64 / 1_000.0
}

/// An event, and what it is put in order by: the number of what it was made of, and its place among those that were made of the same. Slices
/// end before others begin, arrows come to slices that have begun, and marks, which are slices too, come after arrows.
struct At(u64, u8, Value);

const END: u8 = 0;
const BEGIN: u8 = 1;
const ARROW: u8 = 2;
const AFTER: u8 = 3;

struct Writer<'a> {
    spans: &'a Spans,
    /// The thread of the first that is no task.
    sources: u64,
    events: Vec<At>,
}

pub fn trace(spans: &Spans) -> Value {
    let sources = spans.tasks.iter().map(|task| task.id).max().unwrap_or_default() + 1;
    let mut writer = Writer { spans, sources, events: Vec::new() };
    for task in &spans.tasks {
        task.states.iter().for_each(|state| writer.state(task, state));
        writer.scopes(task);
    }
    writer.wakes();
    let mut events = writer.events;
    events.sort_by_key(|At(order, rank, _)| (*order, *rank));
    let mut all = vec![json!({"ph": "M", "name": "process_name", "pid": RUN, "args": {"name": "run"}})];
    let sources = (sources..).zip(&spans.sources).map(|(thread, name)| (thread, name.clone()));
    let tasks = spans.tasks.iter().map(|task| (task.id, named(task)));
    for (order, (thread, name)) in sources.chain(tasks).enumerate() {
        all.push(json!({"ph": "M", "name": "thread_name", "pid": RUN, "tid": thread, "args": {"name": name}}));
        all.push(
            json!({"ph": "M", "name": "thread_sort_index", "pid": RUN, "tid": thread, "args": {"sort_index": order}}),
        );
    }
    all.extend(events.into_iter().map(|At(.., event)| event));
    json!({"traceEvents": all, "displayTimeUnit": "ns", "otherData": {"dropped": spans.dropped}})
}

fn named(task: &Task) -> String {
    format!("{} ({})", task.label, task.place)
}

impl Writer<'_> {
    fn push(&mut self, order: u64, rank: u8, event: Value) {
        self.events.push(At(order, rank, event));
    }

    fn slice(&mut self, thread: u64, (begin, end): (Time, Time), order: (u64, u64), what: Value) {
        let mut event = what;
        event["ph"] = "B".into();
        event["pid"] = RUN.into();
        event["tid"] = thread.into();
        event["ts"] = micros(begin).into();
        self.push(order.0, BEGIN, event);
        let rank = if order.0 == order.1 { AFTER } else { END };
        self.push(order.1, rank, json!({"ph": "E", "pid": RUN, "tid": thread, "ts": micros(end)}));
    }

    fn state(&mut self, task: &Task, state: &State) {
        let text = self.spans.texts.get(state.text);
        let mut args = Map::new();
        // The colours are those that Chrome's viewer has for what threads do.
        let (name, category, colour) = match state.doing {
            Doing::Polled => ("polled", "poll", "thread_state_running"),
            Doing::Ready => ("ready", "ready", "thread_state_runnable"),
            Doing::Waits => (text, "wait", if state.cancelled { "terrible" } else { "thread_state_sleeping" }),
        };
        if state.doing == Doing::Polled && state.text != NOTHING {
            args.insert("what ended".into(), text.into());
        }
        if let Some(wake) = state.wake.map(|wake| &self.spans.wakes[wake]) {
            args.insert("woken by".into(), self.whence(wake.from).into());
            args.insert("ready for".into(), length(state.begin.saturating_sub(wake.at)).into());
        }
        if state.cancelled {
            args.insert("cancelled".into(), true.into());
            let mark = json!({"ph": "i", "s": "t", "name": "cancelled", "cat": "cancel", "pid": RUN, "tid": task.id, "ts": micros(state.begin)});
            if state.doing == Doing::Polled {
                self.push(state.order.0, AFTER, mark);
            }
        }
        let what = json!({"name": name, "cat": category, "cname": colour, "args": args});
        self.slice(task.id, (state.begin, state.end), state.order, what);
    }

    fn scopes(&mut self, task: &Task) {
        for scope in &task.scopes {
            let text = self.spans.texts.get(scope.text);
            let cause = scope.cause.map(|cause| self.spans.texts.get(cause));
            let deadline = scope.deadline.map(|at| length(at.saturating_sub(scope.begin)));
            let event = |phase: &str, at: Time, args: Value| json!({"ph": phase, "cat": "scope", "name": text, "id2": {"local": scope.number.to_string()}, "pid": RUN, "tid": task.id, "ts": micros(at), "args": args});
            let args = json!({"task": named(task), "deadline": deadline});
            let begin = event("b", scope.begin, args);
            let end = event("e", scope.end, json!({"cause": cause}));
            self.push(scope.order.0, BEGIN, begin);
            self.push(scope.order.1, END, end);
            if let Some(cause) = cause {
                let mark = json!({"ph": "i", "s": "t", "name": cause, "cat": "cancel", "pid": RUN, "tid": task.id, "ts": micros(scope.end)});
                self.push(scope.order.1, END, mark);
            }
        }
    }

    fn whence(&self, from: From) -> String {
        match from {
            From::Task(index) => named(&self.spans.tasks[index]),
            From::Source(index) => self.spans.sources[index].clone(),
        }
    }

    fn wakes(&mut self) {
        for (id, wake) in self.spans.wakes.iter().enumerate() {
            let woken = &self.spans.tasks[wake.to];
            let poll = &woken.states[wake.poll];
            let thread = match wake.from {
                From::Task(index) => {
                    let task = &self.spans.tasks[index];
                    // Its begin was dropped: there is nothing for the arrow to come from.
                    if index == wake.to || !self.spans.is_polled(index, wake.order) {
                        continue;
                    }
                    task.id
                }
                From::Source(index) => {
                    let thread = self.sources + index as u64;
                    let what = json!({"name": format!("wakes {}", woken.label), "cat": "wake"});
                    self.slice(thread, (wake.at, wake.at), (wake.order, wake.order), what);
                    thread
                }
            };
            let flow = |phase: &str, thread: u64, at: Time| json!({"ph": phase, "name": "wake", "cat": "wake", "id": id, "pid": RUN, "tid": thread, "ts": micros(at), "bp": "e"});
            let (begin, end) = (flow("s", thread, wake.at), flow("f", woken.id, poll.begin));
            self.push(wake.order, ARROW, begin);
            self.push(poll.order.0, ARROW, end);
        }
    }
}
