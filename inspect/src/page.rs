//! The page: data, and a small program that draws it (`page.html`).

use crate::spans::{Span, Spans};
use serde_json::{Value, json};

fn list(spans: &[Span]) -> Vec<Value> {
    spans.iter().map(|span| json!([span.begin, span.end, span.text, span.cancelled])).collect()
}

pub fn page(spans: &Spans) -> String {
    let tasks: Vec<_> = spans
        .tasks
        .iter()
        .map(|task| {
            json!({
                "id": task.id, "label": task.label, "begin": task.begin, "end": task.end, "by": task.spawned_by,
                "polls": list(&task.polls), "waits": list(&task.waits), "scopes": list(&task.scopes),
            })
        })
        .collect();
    let wakes: Vec<_> = spans.wakes.iter().map(|wake| json!([wake.from, wake.at, wake.to, wake.polled_at])).collect();
    let data = json!({"length": spans.length, "dropped": spans.dropped, "tasks": tasks, "wakes": wakes}).to_string();
    // In a script, a text must not look like the end of it.
    include_str!("page.html").replace("/*DATA*/null", &data.replace('<', "\\u003c"))
}
