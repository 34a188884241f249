//! The page: data, and a small program that draws it (`page/`).

use crate::spans::{Doing, From, Spans, Task};
use serde_json::{Value, json};

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// In one number: tasks from 0 on, the others below.
fn code(from: From) -> i64 {
    match from {
        From::Task(index) => index as i64,
        From::Source(index) => -1 - index as i64,
    }
}

/// Numbers in rows of the same length, one after the other: a million states as objects would take the browser ten times as long.
fn task(task: &Task) -> Value {
    let (mut states, mut scopes) = (Vec::<u64>::new(), Vec::<u64>::new());
    let mut at = 0;
    for state in &task.states {
        let doing = match state.doing {
            Doing::Polled => 0,
            Doing::Ready => 1,
            Doing::Waits => 2,
        };
        let doing = doing + if state.cancelled { 4 } else { 0 };
        let (gap, long) = (state.begin.saturating_sub(at), state.end.saturating_sub(state.begin));
        at = state.begin + long;
        // What is not there is 0, and the others are one more than they are.
        let wake = state.wake.map_or(0, |wake| wake as u64 + 1);
        let due =
            state.due.filter(|_| state.doing == Doing::Waits).map_or(0, |due| due.saturating_sub(state.begin) + 1);
        states.extend([doing, gap, long, state.text.into(), wake, due]);
    }
    for scope in &task.scopes {
        let cause = scope.cause.map_or(0, |cause| u64::from(cause) + 1);
        let deadline = scope.deadline.map_or(0, |at| at.saturating_add(1));
        let long = scope.end.saturating_sub(scope.begin);
        scopes.extend([scope.begin, long, scope.text.into(), cause, deadline, scope.lane as u64]);
    }
    json!({
        "i": task.id, "n": task.label, "p": task.place, "b": task.begin, "e": task.end, "x": task.exited,
        "by": task.spawned_by.map(code), "s": states, "c": scopes,
    })
}

fn data(spans: &Spans) -> Value {
    let wakes: Vec<_> = spans
        .wakes
        .iter()
        .flat_map(|wake| [code(wake.from), wake.at as i64, wake.to as i64, wake.poll as i64])
        .collect();
    json!({
        "length": spans.length, "dropped": spans.dropped, "texts": spans.texts.all(), "sources": spans.sources,
        "tasks": spans.tasks.iter().map(task).collect::<Vec<_>>(), "wakes": wakes,
    })
}

pub fn page(spans: &Spans) -> String {
    // In a script, a text must not look like the end of it, nor like the begin of a comment.
    let data = data(spans).to_string().replace('<', "\\u003c");
    let mut page = String::with_capacity(PAGE.len() + STYLE.len() + SCRIPT.len() + data.len());
    let mut rest = PAGE;
    for (mark, text) in [("{STYLE}", STYLE), ("{DATA}", &data), ("{SCRIPT}", SCRIPT)] {
        let (before, after) = rest.split_once(mark).expect("the page has its marks, in this order");
        page.push_str(before);
        page.push_str(text);
        rest = after;
    }
    page + rest
}
