//! The events put together: for each task its polls, waits and scopes from begin to end, and who woke whom. All forms are made of this.

use std::collections::HashMap;
use trefoil_runtime::{Event, Record, TaskInfo, What};

/// Nanoseconds since the begin of the recording.
pub type Time = u64;

/// Something that lasts.
#[derive(Debug)]
pub struct Span {
    pub begin: Time,
    pub end: Time,
    /// It went on when the recording ended, or its end was not seen.
    pub open: bool,
    /// Its number, for waits and scopes.
    pub id: u64,
    pub text: String,
    /// Why it was cancelled, or that it was.
    pub cancelled: Option<String>,
}

/// A task.
#[derive(Debug)]
pub struct Task {
    pub id: u64,
    pub label: String,
    /// Its first and its last event.
    pub begin: Time,
    pub end: Time,
    pub spawned_by: Option<u64>,
    pub polls: Vec<Span>,
    pub waits: Vec<Span>,
    pub scopes: Vec<Span>,
}

/// A task woke another one: in a poll of its own, before a poll of the other.
#[derive(Debug)]
pub struct Wake {
    pub from: u64,
    pub at: Time,
    pub to: u64,
    pub polled_at: Time,
}

#[derive(Debug)]
pub struct Spans {
    /// In the order in which they were seen first.
    pub tasks: Vec<Task>,
    pub wakes: Vec<Wake>,
    pub length: Time,
    pub dropped: u64,
}

pub fn place(place: &std::panic::Location<'_>) -> String {
    format!("{}:{}", place.file().rsplit('/').next().unwrap_or_default(), place.line())
}

fn label(task: &TaskInfo) -> String {
    match task.name() {
        Some(name) => format!("{name} ({})", place(task.place())),
        None => format!("task {} ({})", task.id(), place(task.place())),
    }
}

impl Spans {
    pub fn of(record: Record) -> Self {
        let (begin, end) = record.span;
        let mut spans =
            Self { tasks: Vec::new(), wakes: Vec::new(), length: end.saturating_sub(begin), dropped: record.dropped };
        let mut known = HashMap::new();
        // Who woke a task that has not been polled since.
        let mut woken: HashMap<u64, (u64, Time)> = HashMap::new();
        for Event { at, task, what, .. } in record.events {
            let at = at.saturating_sub(begin);
            spans.length = spans.length.max(at);
            let index = *known.entry(task.id()).or_insert_with(|| {
                spans.tasks.push(Task {
                    id: task.id(),
                    label: label(&task),
                    begin: at,
                    end: at,
                    spawned_by: None,
                    polls: Vec::new(),
                    waits: Vec::new(),
                    scopes: Vec::new(),
                });
                spans.tasks.len() - 1
            });
            let this = &mut spans.tasks[index];
            this.end = at;
            let open = |id, text| Span { begin: at, end: at, open: true, id, text, cancelled: None };
            match what {
                What::Spawned { by } => this.spawned_by = by.task(),
                What::Woken { by } => {
                    if let Some(by) = by.task().filter(|by| *by != task.id()) {
                        woken.insert(task.id(), (by, at));
                    }
                }
                What::PollBegins => {
                    this.polls.push(open(0, String::new()));
                    if let Some((from, woken_at)) = woken.remove(&task.id()) {
                        spans.wakes.push(Wake { from, at: woken_at, to: task.id(), polled_at: at });
                    }
                }
                What::PollEnds => close(&mut this.polls, 0, at, None),
                What::WaitBegins { wait, reason, place: at_place, .. } => {
                    this.waits.push(open(wait, format!("{reason} at {}", place(at_place))));
                }
                What::WaitEnds { wait, cancelled, .. } => {
                    close(&mut this.waits, wait, at, cancelled.then(|| "cancelled".into()));
                }
                What::ScopeEntered { scope, info, .. } => this.scopes.push(open(scope, info.to_string())),
                What::ScopeLeft { scope, cause, .. } => {
                    close(&mut this.scopes, scope, at, cause.map(|cause| cause.to_string()));
                }
                What::Exited => {
                    for span in
                        this.polls.iter_mut().chain(&mut this.waits).chain(&mut this.scopes).filter(|span| span.open)
                    {
                        (span.end, span.open) = (at, false);
                    }
                }
                // Kinds of events that this does not know.
                _ => {}
            }
        }
        let length = spans.length;
        for task in &mut spans.tasks {
            for span in task.polls.iter_mut().chain(&mut task.waits).chain(&mut task.scopes).filter(|span| span.open) {
                span.end = length;
                task.end = length;
            }
        }
        // Their begin was dropped: there is nothing for the arrow to come from.
        let polled_at = |tasks: &[Task], id: u64, at: Time| {
            known
                .get(&id)
                .is_some_and(|index: &usize| tasks[*index].polls.iter().any(|poll| poll.begin <= at && at <= poll.end))
        };
        let tasks = std::mem::take(&mut spans.tasks);
        spans.wakes.retain(|wake| polled_at(&tasks, wake.from, wake.at));
        spans.tasks = tasks;
        spans
    }
}

/// Ends the one with this number that began last. An end whose begin was dropped is left out.
fn close(spans: &mut [Span], id: u64, at: Time, cancelled: Option<String>) {
    if let Some(span) = spans.iter_mut().rev().find(|span| span.id == id && span.open) {
        (span.end, span.open, span.cancelled) = (at, false, cancelled);
    }
}
