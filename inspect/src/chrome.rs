//! The trace event format of Chrome's viewer, which Perfetto opens as well.
//!
//! The run is a process, each task a thread of it. A thread has one slice after the other, for what its task does: polled, ready, waits. An
//! arrow leads from the poll in which a wake happened to the poll that came of it. Who wakes and is no task has a thread of its own. Scopes may
//! overlap in any way, and are asynchronous slices.
//!
//! Perfetto 52 and the viewer of `chrome://tracing` open it without a warning, and show the same slices, arrows and scopes. Perfetto 25, of
//! 2022, leaves the scopes out.

use crate::spans::{Doing, From, NOTHING, Scope, Spans, State, Task, Time, length};
use serde_json::{Map, Value, json};
use std::io::{self, Write};

const RUN: u64 = 1;

/// Microseconds, as the format has them.
fn micros(nanos: Time) -> f64 {
    nanos as f64 / 1_000.0
}

/// What an event tells of. It is made when it is written: there are as many as were recorded, and more.
#[derive(Clone, Copy)]
enum Of<'a> {
    Begin(&'a Task, &'a State),
    End(&'a Task, &'a State),
    Cancelled(&'a Task, &'a State),
    Enter(&'a Task, &'a Scope),
    Leave(&'a Task, &'a Scope),
    Cause(&'a Task, &'a Scope),
    /// By number: of what is no task, that it wakes; and of all, both ends of the arrow.
    Wakes(usize),
    Woke(usize),
    ArrowBegins(usize),
    ArrowEnds(usize),
}

/// What it is put in order by: the number of what it was made of, and its place among those that were made of the same. Slices end before others
/// begin, arrows come to slices that have begun, and marks, which are slices too, come after arrows.
#[derive(Clone, Copy)]
struct At<'a>(u64, u8, Of<'a>);

const END: u8 = 0;
const BEGIN: u8 = 1;
const ARROW: u8 = 2;
const MARK: u8 = 3;
const END_AT_ONCE: u8 = 4;

pub struct Trace<'a> {
    spans: &'a Spans,
    /// The thread of the first that is no task.
    sources: u64,
    events: Vec<At<'a>>,
}

/// How many slices Perfetto shows without trouble. It was seen to crash on 720,000, of some 175 MB.
const SHOWN: usize = 500_000;

fn too_many(slices: usize) -> Option<String> {
    (slices > SHOWN).then(|| {
        format!(
            "a timeline of {slices} slices is written: Perfetto was seen to crash on 720,000 (fewer are recorded by a smaller `Timeline::with_capacity`)"
        )
    })
}

fn named(task: &Task) -> String {
    format!("{} ({})", task.label, task.place)
}

impl<'a> Trace<'a> {
    pub fn of(spans: &'a Spans) -> Self {
        let sources = spans.tasks.iter().map(|task| task.id).max().unwrap_or_default() + 1;
        let mut events = Vec::new();
        for task in &spans.tasks {
            for state in &task.states {
                events.push(At(state.order.0, BEGIN, Of::Begin(task, state)));
                events.push(At(state.order.1, END, Of::End(task, state)));
                if state.cancelled && state.doing == Doing::Polled {
                    events.push(At(state.order.0, MARK, Of::Cancelled(task, state)));
                }
            }
            for scope in &task.scopes {
                events.push(At(scope.order.0, BEGIN, Of::Enter(task, scope)));
                events.push(At(scope.order.1, END, Of::Leave(task, scope)));
                if scope.cause.is_some() {
                    events.push(At(scope.order.1, END, Of::Cause(task, scope)));
                }
            }
        }
        for (id, wake) in spans.wakes.iter().enumerate() {
            match wake.from {
                // Its begin was dropped, and there is nothing for the arrow to come from; or it wakes itself.
                From::Task(index) if index == wake.to || !spans.is_polled(index, wake.order) => continue,
                From::Task(_) => {}
                From::Source(_) => {
                    events.push(At(wake.order, BEGIN, Of::Wakes(id)));
                    events.push(At(wake.order, END_AT_ONCE, Of::Woke(id)));
                }
            }
            events.push(At(wake.order, ARROW, Of::ArrowBegins(id)));
            let poll = &spans.tasks[wake.to].states[wake.poll];
            events.push(At(poll.order.0, ARROW, Of::ArrowEnds(id)));
        }
        events.sort_by_key(|At(order, rank, _)| (*order, *rank));
        Self { spans, sources, events }
    }

    /// The events, those that name the threads first.
    fn values(&self) -> impl Iterator<Item = Value> {
        // Where the viewer shows it: what is in `otherData` nobody sees.
        let name = match self.spans.dropped {
            0 => "run".to_string(),
            1 => "run, from its second event on: the first was dropped".to_string(),
            dropped => format!("run, without its first {dropped} events, which were dropped"),
        };
        let run = json!({"ph": "M", "name": "process_name", "pid": RUN, "args": {"name": name}});
        let sources = (self.sources..).zip(&self.spans.sources).map(|(thread, name)| (thread, name.clone()));
        let tasks = self.spans.tasks.iter().map(|task| (task.id, named(task)));
        let names = sources.chain(tasks).enumerate().flat_map(|(order, (thread, name))| {
            let meta =
                |what: &str, args: Value| json!({"ph": "M", "name": what, "pid": RUN, "tid": thread, "args": args});
            [meta("thread_name", json!({"name": name})), meta("thread_sort_index", json!({"sort_index": order}))]
        });
        std::iter::once(run).chain(names).chain(self.events.iter().map(|At(.., of)| self.value(*of)))
    }

    pub fn to_value(&self) -> Value {
        let events: Vec<_> = self.values().collect();
        json!({"displayTimeUnit": "ns", "otherData": {"dropped": self.spans.dropped}, "traceEvents": events})
    }

    /// The same, event by event.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let slices = self.events.iter().filter(|At(_, rank, _)| *rank == BEGIN).count();
        if let Some(warning) = too_many(slices) {
            trefoil_runtime::report_warn!("{warning}");
        }
        let dropped = self.spans.dropped;
        write!(to, "{{\"displayTimeUnit\":\"ns\",\"otherData\":{{\"dropped\":{dropped}}},\"traceEvents\":[")?;
        for (number, event) in self.values().enumerate() {
            to.write_all(if number == 0 { b"\n" } else { b",\n" })?;
            serde_json::to_writer(&mut *to, &event)?;
        }
        to.write_all(b"\n]}\n")
    }

    fn value(&self, of: Of<'_>) -> Value {
        let end = |thread: u64, at: Time| json!({"ph": "E", "pid": RUN, "tid": thread, "ts": micros(at)});
        let mark = |task: &Task, at: Time, text: &str| json!({"ph": "i", "s": "t", "name": text, "cat": "cancel", "pid": RUN, "tid": task.id, "ts": micros(at)});
        let text = |text| self.spans.texts.get(text);
        match of {
            Of::Begin(task, state) => self.begin(task, state),
            Of::End(task, state) => end(task.id, state.end),
            Of::Cancelled(task, state) => mark(task, state.begin, "cancelled"),
            Of::Enter(task, scope) => {
                let deadline = scope.deadline.map(|at| length(at.saturating_sub(scope.begin)));
                self.scope("b", task, scope, scope.begin, json!({"task": named(task), "deadline": deadline}))
            }
            Of::Leave(task, scope) => self.scope("e", task, scope, scope.end, json!({"cause": scope.cause.map(text)})),
            Of::Cause(task, scope) => mark(task, scope.end, scope.cause.map_or("cancelled", text)),
            Of::Wakes(id) => {
                let wake = &self.spans.wakes[id];
                let args = json!({"task": named(&self.spans.tasks[wake.to])});
                json!({"ph": "B", "name": "wakes", "cat": "wake", "pid": RUN, "tid": self.thread(wake.from), "ts": micros(wake.at), "args": args})
            }
            Of::Woke(id) => end(self.thread(self.spans.wakes[id].from), self.spans.wakes[id].at),
            Of::ArrowBegins(id) => self.arrow("s", id, self.thread(self.spans.wakes[id].from), self.spans.wakes[id].at),
            Of::ArrowEnds(id) => {
                let wake = &self.spans.wakes[id];
                let task = &self.spans.tasks[wake.to];
                self.arrow("f", id, task.id, task.states[wake.poll].begin)
            }
        }
    }

    fn begin(&self, task: &Task, state: &State) -> Value {
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
        if let (Doing::Waits, Some(due)) = (state.doing, state.due) {
            args.insert("due after".into(), length(due.saturating_sub(state.begin)).into());
        }
        if state.cancelled {
            args.insert("cancelled".into(), true.into());
        }
        json!({"ph": "B", "name": name, "cat": category, "cname": colour, "pid": RUN, "tid": task.id, "ts": micros(state.begin), "args": args})
    }

    fn scope(&self, phase: &str, task: &Task, scope: &Scope, at: Time, args: Value) -> Value {
        // A number that counts in this process only: otherwise Perfetto shows it outside of all.
        let id = json!({"local": scope.number.to_string()});
        let name = self.spans.texts.get(scope.text);
        json!({"ph": phase, "cat": "scope", "name": name, "id2": id, "pid": RUN, "tid": task.id, "ts": micros(at), "args": args})
    }

    fn arrow(&self, phase: &str, id: usize, thread: u64, at: Time) -> Value {
        json!({"ph": phase, "name": "wake", "cat": "wake", "id": id, "pid": RUN, "tid": thread, "ts": micros(at), "bp": "e"})
    }

    fn thread(&self, from: From) -> u64 {
        match from {
            From::Task(index) => self.spans.tasks[index].id,
            From::Source(index) => self.sources + index as u64,
        }
    }

    fn whence(&self, from: From) -> String {
        match from {
            From::Task(index) => named(&self.spans.tasks[index]),
            From::Source(index) => self.spans.sources[index].clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{SHOWN, too_many};

    #[test]
    fn a_trace_that_is_too_large_for_perfetto_is_told_of() {
        assert_eq!(too_many(SHOWN), None);
        assert!(too_many(SHOWN + 1).unwrap().starts_with("a timeline of 500001 slices is written"));
    }
}
