//! The task tree as text.

use super::fold::fold;
use super::words::{grouped, length, same_line, short};
use super::{HoldView, ScopeView, TaskState, TaskView, WaitView};
use crate::look::holders::Holding;
use crate::reason::{Does, Made};
use crate::scope::cause::{Kind, Named};
use std::fmt::{self, Write as _};
use std::time::Duration;

impl fmt::Display for ScopeView {
    /// A tree to read at a glance. Tasks that look the same are folded into one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write(&mut text, "", "")?;
        f.write_str(text.trim_end())
    }
}

impl ScopeView {
    fn title(&self) -> String {
        let mut title = format!("{} {}", self.kind, Named(self.name.as_deref(), self.place));
        if self.kind == Kind::Nursery {
            let _ =
                write!(title, ", {} {}", grouped(self.children), if self.children == 1 { "child" } else { "children" });
        }
        if let Some(awaited) = self.awaited {
            title.push_str(", awaited");
            // Less than what it is known to.
            if !awaited.is_zero() {
                let _ = write!(title, " since {}", length(awaited));
            }
        }
        if let Some(left) = self.deadline_in {
            let _ = write!(title, ", deadline in {}", length(left));
        }
        if self.shield && self.kind != Kind::Shield {
            title.push_str(", shielded");
        }
        match (&self.cause, self.cancelled) {
            (Some(cause), _) => {
                let _ = write!(title, ", cancelled ({} at {})", cause.source, short(cause.place));
            }
            (None, true) => title.push_str(", cancelled from outside"),
            (None, false) if self.soft_cancelled => title.push_str(", asked to stop"),
            (None, false) => {}
        }
        title
    }

    /// Whether its tasks are children, which are branches of their own.
    fn is_nursery(&self) -> bool {
        self.kind == Kind::Nursery
    }

    /// What follows below a scope: its body's waits and scopes in place, its children as branches.
    fn write(&self, out: &mut String, first: &str, rest: &str) -> fmt::Result {
        writeln!(out, "{first}{}", self.title())?;
        let mut lines: Vec<Line<'_>> = Vec::new();
        for task in self.tasks.iter().filter(|task| task.body || !self.is_nursery()) {
            if !task.holds.is_empty() {
                lines.push(Line::Holds(&task.holds));
            }
            // What the body does is told by what is below it.
            if task.waits.is_empty() && task.scopes.is_empty() {
                lines.push(Line::Body(task.state));
            }
            lines.extend(task.waits.iter().map(Line::Wait));
            lines.extend(task.scopes.iter().map(Line::Scope));
        }
        let children: Vec<_> = self.tasks.iter().filter(|task| !task.body && self.is_nursery()).collect();
        let seen = children.len();
        lines.extend(fold(children).into_iter().map(Line::Tasks));
        if self.is_nursery() && seen < self.children {
            lines.push(Line::Others(self.children - seen));
        }
        if self.cut_off {
            lines.push(Line::Deeper);
        }
        write_lines(lines, out, rest)
    }
}

fn write_lines(lines: Vec<Line<'_>>, out: &mut String, rest: &str) -> fmt::Result {
    let last = lines.len().saturating_sub(1);
    for (i, line) in lines.into_iter().enumerate() {
        let (branch, stem) = if i == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        line.write(out, &format!("{rest}{branch}"), &format!("{rest}{stem}"))?;
    }
    Ok(())
}

impl TaskView {
    /// For how long it has waited.
    fn oldest(&self) -> Duration {
        let own = self.waits.iter().map(|wait| wait.since).max().unwrap_or_default();
        let below =
            self.scopes.iter().flat_map(|scope| scope.tasks.iter().map(TaskView::oldest)).max().unwrap_or_default();
        own.max(below)
    }
}

/// How old a task is, and how often it was polled; for several that look the same, from the fewest polls to the most.
fn life(task: &TaskView, alike: &[&TaskView]) -> String {
    let polls = alike.iter().map(|task| task.polls as usize);
    let (least, most) = (polls.clone().min().unwrap_or_default(), polls.max().unwrap_or_default());
    let polls = match (least, most) {
        (1, 1) => "1 poll".to_string(),
        (_, most) if least == most => format!("{} polls", grouped(most)),
        _ => format!("{} to {} polls", grouped(least), grouped(most)),
    };
    format!("[{} old, {polls}]", length(task.age))
}

/// How many different things a line names that a task holds.
const HELD: usize = 4;

/// What a task holds, in words: what was got at the same place is put together.
fn listed(holds: &[HoldView]) -> String {
    let mut groups: Vec<(HoldView, usize)> = Vec::new();
    for hold in holds {
        match groups.iter_mut().find(|(of, _)| of.held == hold.held && same_line(of.place, hold.place)) {
            Some((_, units)) => *units += hold.units,
            None => groups.push((*hold, hold.units)),
        }
    }
    let text = |(hold, units): &(HoldView, usize)| {
        let (one, many) = match hold.held {
            Holding::Lock => ("a lock", "locks"),
            Holding::Tokens => ("a token", "tokens"),
            _ => ("a permit", "permits"),
        };
        let what = if *units == 1 { one.to_string() } else { format!("{} {many}", grouped(*units)) };
        format!("{what} ({})", short(hold.place))
    };
    let mut all: Vec<String> = groups.iter().take(HELD).map(text).collect();
    if groups.len() > HELD {
        all.push(format!("{} more", groups.len() - HELD));
    }
    match all.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, first)) => format!("{} and {last}", first.join(", ")),
        None => String::new(),
    }
}

enum Line<'a> {
    Body(TaskState),
    Wait(&'a WaitView),
    Holds(&'a [HoldView]),
    Scope(&'a ScopeView),
    Tasks(Vec<&'a TaskView>),
    Others(usize),
    Deeper,
}

impl Line<'_> {
    fn write(&self, out: &mut String, first: &str, rest: &str) -> fmt::Result {
        match self {
            // It waits elsewhere in the tree, or its wait has ended just now.
            Line::Body(TaskState::Waiting) => writeln!(out, "{first}waits"),
            Line::Body(state) => writeln!(out, "{first}{state}"),
            Line::Wait(wait) => writeln!(out, "{first}{wait}"),
            Line::Holds(holds) => writeln!(out, "{first}holds {}", listed(holds)),
            Line::Scope(scope) => scope.write(out, first, rest),
            Line::Others(count) => writeln!(out, "{first}{} that have just been spawned", grouped(*count)),
            Line::Deeper => writeln!(out, "{first}… deeper"),
            Line::Tasks(alike) => {
                // Of those that look the same, the one that has waited longest.
                let task = alike.iter().max_by_key(|task| (task.oldest(), task.age)).expect("a fold has one at least");
                let who = Named(task.name.as_deref(), task.place);
                let fold = alike.len() > 1;
                let many = if fold { format!("{} × ", grouped(alike.len())) } else { String::new() };
                // What a task that is ready had waited for has come.
                let waits = if task.state == TaskState::Ready { &[] } else { &task.waits[..] };
                let holds =
                    if task.holds.is_empty() { String::new() } else { format!(", holds {}", listed(&task.holds)) };
                match (waits, &task.scopes[..]) {
                    ([wait], []) if !wait.unpolled => writeln!(
                        out,
                        "{first}{many}task {who} {}{} at {}{} since {}{holds} {}",
                        Does(wait.reason),
                        Made(wait.made),
                        short(wait.place),
                        if fold { ", longest" } else { "" },
                        length(wait.since),
                        life(task, alike),
                    ),
                    ([], []) => {
                        // Of a child that is being started the waits are beneath who starts it (R68).
                        let what = if task.state == TaskState::Waiting {
                            "waits elsewhere".into()
                        } else {
                            task.state.to_string()
                        };
                        writeln!(out, "{first}{many}task {who} {what}{holds} {}", life(task, alike))
                    }
                    (waits, scopes) => {
                        let such = if fold { ", such as" } else { "" };
                        writeln!(out, "{first}{many}task {who}{such}{holds} {}", life(task, alike))?;
                        let lines = waits.iter().map(Line::Wait).chain(scopes.iter().map(Line::Scope)).collect();
                        write_lines(lines, out, rest)
                    }
                }
            }
        }
    }
}
