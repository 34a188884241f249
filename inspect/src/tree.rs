//! The task tree as JSON.

use serde_json::{Value, json};
use std::panic::Location;
use std::time::Duration;
use trefoil_runtime::{HoldView, Holding, ScopeView, TaskState, TaskView, WaitView};

/// A [task tree](trefoil_runtime::tree) as JSON: nothing is folded, places are whole, times are in seconds.
///
/// # Examples
/// ```
/// # trefoil_runtime::doc_run(async {
/// let tree = trefoil_inspect::tree_to_json(&trefoil_runtime::tree());
/// assert_eq!(tree["kind"], "run");
/// assert_eq!(tree["tasks"][0]["state"], "running");
/// # });
/// ```
pub fn tree_to_json(tree: &ScopeView) -> Value {
    json!({
        "kind": tree.kind.to_string(),
        "name": tree.name.as_deref(),
        "place": place(tree.place),
        "deadline_in": tree.deadline_in.map(seconds),
        "cancelled": tree.cancelled,
        "soft_cancelled": tree.soft_cancelled,
        "cause": tree.cause.as_ref().map(ToString::to_string),
        "shield": tree.shield,
        "children": tree.children,
        "awaited": tree.awaited.map(seconds),
        "tasks": tree.tasks.iter().map(task).collect::<Vec<_>>(),
        "cut_off": tree.cut_off,
    })
}

fn task(task: &TaskView) -> Value {
    let state = match task.state {
        TaskState::Running => "running",
        TaskState::Ready => "ready",
        TaskState::Waiting => "waiting",
        TaskState::Foreign => "foreign",
        _ => "unknown",
    };
    json!({
        "name": task.name.as_deref(),
        "place": place(task.place),
        "body": task.body,
        "state": state,
        "age": seconds(task.age),
        "polls": task.polls,
        "holds": task.holds.iter().map(hold).collect::<Vec<_>>(),
        "waits": task.waits.iter().map(wait).collect::<Vec<_>>(),
        "scopes": task.scopes.iter().map(tree_to_json).collect::<Vec<_>>(),
    })
}

fn wait(wait: &WaitView) -> Value {
    json!({
        "reason": wait.reason.to_string(),
        "place": place(wait.place),
        "made": wait.made.map(place),
        "since": seconds(wait.since),
        "unpolled": wait.unpolled,
    })
}

fn hold(hold: &HoldView) -> Value {
    let what = match hold.held {
        Holding::Lock => "lock",
        Holding::Tokens => "tokens",
        _ => "permits",
    };
    json!({"what": what, "place": place(hold.place), "units": hold.units})
}

fn place(place: &Location<'_>) -> String {
    place.to_string()
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
