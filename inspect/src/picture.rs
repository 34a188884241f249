//! The picture: a row for each task, bars for its waits and scopes, marks for its polls, lines for wakes.

use crate::spans::{Span, Spans};
use std::fmt::Write as _;

const LABELS: f64 = 190.0;
const WIDTH: f64 = 700.0;
const ROW: f64 = 30.0;
const TOP: f64 = 26.0;
/// Of more tasks the rest is only counted.
const ROWS: usize = 60;

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A length of time, as a person reads it.
pub fn length(nanos: u64) -> String {
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{:.1} µs", nanos as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", nanos as f64 / 1e6),
        _ => format!("{:.2} s", nanos as f64 / 1e9),
    }
}

pub fn svg(spans: &Spans) -> String {
    let shown = &spans.tasks[..spans.tasks.len().min(ROWS)];
    let height = TOP + ROW * shown.len() as f64 + 24.0;
    let scale = WIDTH / spans.length.max(1) as f64;
    let x = |at: u64| LABELS + at as f64 * scale;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <style>.t{{fill:#223}}.s{{fill:#dbe4f0}}.c{{fill:#f3cfcf}}.w{{fill:#9db7d9}}.x{{fill:#d98c8c}}.p{{fill:#1f4e8c}}.k{{stroke:#c77d0a;fill:none}}.g{{stroke:#ccd}}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        LABELS + WIDTH + 20.0
    );
    for tick in 0..=5 {
        let at = spans.length * tick / 5;
        let _ = writeln!(
            out,
            "<line class=\"g\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{1}\" y2=\"{2}\"/><text class=\"t\" x=\"{0:.1}\" y=\"14\" text-anchor=\"middle\">{3}</text>",
            x(at),
            TOP - 6.0,
            height - 20.0,
            length(at)
        );
    }
    let bar = |out: &mut String, span: &Span, top: f64, height: f64, class: &str, least: f64| {
        let title = match &span.cancelled {
            Some(why) => format!("{} ({why})", span.text),
            None => span.text.clone(),
        };
        let _ = writeln!(
            out,
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{height}\"><title>{}: {}</title></rect>",
            x(span.begin),
            ((span.end - span.begin) as f64 * scale).max(least),
            escape(if title.is_empty() { "poll" } else { &title }),
            length(span.end - span.begin)
        );
    };
    for (row, task) in shown.iter().enumerate() {
        let top = TOP + ROW * row as f64;
        let _ = writeln!(
            out,
            "<text class=\"t\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LABELS - 8.0,
            top + 16.0,
            escape(&task.label)
        );
        for scope in &task.scopes {
            bar(&mut out, scope, top + 2.0, 24.0, if scope.cancelled.is_some() { "c" } else { "s" }, 1.0);
        }
        for wait in &task.waits {
            bar(&mut out, wait, top + 10.0, 8.0, if wait.cancelled.is_some() { "x" } else { "w" }, 1.0);
        }
        for poll in &task.polls {
            bar(&mut out, poll, top + 6.0, 16.0, "p", 1.5);
        }
    }
    let row = |id: u64| shown.iter().position(|task| task.id == id).map(|row| TOP + ROW * row as f64 + 14.0);
    for wake in &spans.wakes {
        if let (Some(from), Some(to)) = (row(wake.from), row(wake.to)) {
            let _ = writeln!(
                out,
                "<path class=\"k\" d=\"M{:.1} {from:.1}L{:.1} {to:.1}\"/><circle cx=\"{1:.1}\" cy=\"{to:.1}\" r=\"2\" fill=\"#c77d0a\"/>",
                x(wake.at),
                x(wake.polled_at)
            );
        }
    }
    let mut rest = String::from("dark: polls · blue: waits · pale: scopes · red: cancelled · orange: who wakes whom");
    if spans.tasks.len() > ROWS {
        let _ = write!(rest, " · {} more tasks", spans.tasks.len() - ROWS);
    }
    if spans.dropped > 0 {
        let _ = write!(rest, " · {} events dropped", spans.dropped);
    }
    let _ = write!(out, "<text class=\"t\" x=\"8\" y=\"{:.1}\">{rest}</text>\n</svg>\n", height - 6.0);
    out
}
