//! The picture: a row for each task, bars for what it does and for its scopes, lines for wakes. For paper: nothing in it moves.

use crate::spans::{Doing, From, NOTHING, Spans, Time, length};
use std::fmt::Write as _;

const LABELS: f64 = 190.0;
const WIDTH: f64 = 700.0;
const ROW: f64 = 30.0;
const TOP: f64 = 26.0;
/// Of more tasks the rest is only counted.
const ROWS: usize = 60;

/// A text, as it may be in XML: that has no control characters, not even by number, and a name may be made of anything.
fn escape(text: &str) -> String {
    let is_not_xml = |c: char| c < ' ' && !"\t\n\r".contains(c) || "\u{FFFE}\u{FFFF}".contains(c);
    let text = text.replace(is_not_xml, "\u{FFFD}");
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

pub fn svg(spans: &Spans) -> String {
    let shown = &spans.tasks[..spans.tasks.len().min(ROWS)];
    let height = TOP + ROW * shown.len() as f64 + 24.0;
    let scale = WIDTH / spans.length.max(1) as f64;
    let x = |at: u64| LABELS + at as f64 * scale;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <style>.t{{fill:#223}}.s{{fill:#dbe4f0}}.c{{fill:#f3cfcf}}.w{{fill:#9db7d9}}.x{{fill:#d98c8c}}.p{{fill:#1f4e8c}}.r{{fill:#e8a317}}.k{{stroke:#c77d0a;fill:none}}.g{{stroke:#ccd}}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        LABELS + WIDTH + 30.0
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
    let bar = |out: &mut String, (begin, end): (Time, Time), top: f64, height: f64, class: &str, text: &str| {
        let _ = writeln!(
            out,
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{height}\"><title>{}: {}</title></rect>",
            x(begin),
            ((end - begin) as f64 * scale).max(1.5),
            escape(text),
            length(end - begin)
        );
    };
    for (row, task) in shown.iter().enumerate() {
        let top = TOP + ROW * row as f64;
        let _ = writeln!(
            out,
            "<text class=\"t\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{} ({})</text>",
            LABELS - 8.0,
            top + 16.0,
            escape(&task.label),
            escape(&task.place)
        );
        for scope in &task.scopes {
            let text = scope.cause.unwrap_or(scope.text);
            let class = if scope.cause.is_some() { "c" } else { "s" };
            bar(&mut out, (scope.begin, scope.end), top + 2.0, 24.0, class, spans.texts.get(text));
        }
        // Polls last: they are the shortest, and what it is about.
        for doing in [Doing::Waits, Doing::Ready, Doing::Polled] {
            for state in task.states.iter().filter(|state| state.doing == doing) {
                let (inset, class, text) = match doing {
                    Doing::Waits if state.cancelled => (10.0, "x", spans.texts.get(state.text)),
                    Doing::Waits => (10.0, "w", spans.texts.get(state.text)),
                    Doing::Ready => (8.0, "r", "ready"),
                    Doing::Polled if state.text == NOTHING => (6.0, "p", "polled"),
                    Doing::Polled => (6.0, "p", spans.texts.get(state.text)),
                };
                bar(&mut out, (state.begin, state.end), top + inset, 28.0 - 2.0 * inset, class, text);
            }
        }
    }
    let row = |index: usize| (index < shown.len()).then_some(TOP + ROW * index as f64 + 14.0);
    for wake in &spans.wakes {
        let From::Task(by) = wake.from else { continue };
        if by != wake.to
            && let (Some(from), Some(to)) = (row(by), row(wake.to))
        {
            let polled_at = spans.tasks[wake.to].states[wake.poll].begin;
            let _ = writeln!(
                out,
                "<path class=\"k\" d=\"M{:.1} {from:.1}L{:.1} {to:.1}\"/><circle cx=\"{1:.1}\" cy=\"{to:.1}\" r=\"2\" fill=\"#c77d0a\"/>",
                x(wake.at),
                x(polled_at)
            );
        }
    }
    let mut rest = String::from(
        "dark: polled · yellow: ready · blue: waits · pale: scopes · red: cancelled · orange: who wakes whom",
    );
    if spans.tasks.len() > ROWS {
        let _ = write!(rest, " · {} more tasks", spans.tasks.len() - ROWS);
    }
    if spans.dropped > 0 {
        let _ = write!(rest, " · {} events dropped", spans.dropped);
    }
    let _ = write!(out, "<text class=\"t\" x=\"8\" y=\"{:.1}\">{rest}</text>\n</svg>\n", height - 6.0);
    out
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn whatever_a_name_is_made_of_the_picture_is_xml() {
        assert_eq!(
            escape("\u{1b}[31m<a>&\"\0\u{FFFF}\t\u{e9}"),
            "\u{FFFD}[31m&lt;a&gt;&amp;&quot;\u{FFFD}\u{FFFD}\t\u{e9}"
        );
    }
}
