//! The task tree as data and as text: who waits for what, where, since when, until which deadline.
//!
//! Taken under the lock of the tree, from any thread, also while the loop is stuck in a task. It shows every scope, and every task that
//! waits for something of ours; of the others (ready, running, or waiting for something foreign) it knows how many there are.

use crate::cause::{Cause, Kind, Named};
use crate::clock;
use crate::park::Reason;
use crate::ready::Header;
use crate::scope::{CANCEL_CALLED, SHIELD, SOFT, Scope};
use crate::tree::Locked;
use std::fmt::{self, Write as _};
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

/// How deep a snapshot follows nested scopes.
const DEEPEST: usize = 200;

/// A scope, as it was at one moment.
#[derive(Clone, Debug)]
pub struct ScopeView {
    /// What it is for.
    pub kind: Kind,
    /// Its name, if it was given one.
    pub name: Option<Arc<str>>,
    /// Where it was opened.
    pub place: &'static Location<'static>,
    /// What is left until its own deadline, if it has one; zero if that has passed.
    pub deadline_in: Option<Duration>,
    /// Whether operations in it are cancelled.
    pub cancelled: bool,
    /// Whether it was asked to stop, by a soft cancel of its own or from outside.
    pub soft_cancelled: bool,
    /// Who cancelled it, if it was cancelled itself.
    pub cause: Option<Cause>,
    /// Whether its shield is up.
    pub shield: bool,
    /// The children of a nursery that are not done; 0 for other scopes.
    pub children: usize,
    /// The tasks that wait in it, or in scopes of theirs in it: for a nursery, its body and children; else the one that runs in it.
    pub tasks: Vec<TaskView>,
    /// There was more below than a snapshot follows.
    pub cut_off: bool,
}

/// A task that waits, as it was at one moment.
#[derive(Clone, Debug)]
pub struct TaskView {
    /// Where it was spawned; for the body of a nursery, where that was opened.
    pub place: &'static Location<'static>,
    /// Whether it is the body of the nursery (or the main task).
    pub body: bool,
    /// What it waits for directly in this scope.
    pub waits: Vec<WaitView>,
    /// The scopes that it opened in this scope.
    pub scopes: Vec<ScopeView>,
}

/// One wait, as it was at one moment.
#[derive(Clone, Debug)]
pub struct WaitView {
    /// What for.
    pub reason: Reason,
    /// Where in the program.
    pub place: &'static Location<'static>,
    /// For how long it had been.
    pub since: Duration,
}

/// Takes the snapshot of a scope and everything below.
pub(crate) fn view(locked: &Locked<'_>, scope: &Scope, now: u64, depth: usize) -> ScopeView {
    let deadline = scope.deadline();
    let mut view = ScopeView {
        kind: scope.kind,
        name: scope.info().name,
        place: scope.place,
        deadline_in: (deadline != clock::NEVER).then(|| Duration::from_nanos(deadline.saturating_sub(now))),
        cancelled: scope.is_cancelled(),
        soft_cancelled: scope.has(SOFT),
        cause: scope.has(CANCEL_CALLED).then(|| locked.cause(scope)).flatten().map(|cause| Cause::clone(&cause)),
        shield: scope.has(SHIELD),
        children: locked.live_children(scope),
        tasks: Vec::new(),
        cut_off: depth >= DEEPEST,
    };
    if view.cut_off {
        return view;
    }
    let mut tasks: std::collections::HashMap<*const Header, usize> = std::collections::HashMap::new();
    let mut place_of = |task: *const Header, tasks_seen: &mut Vec<TaskView>| -> usize {
        *tasks.entry(task).or_insert_with(|| {
            // SAFETY: [LOCKED] of the tree: a task that a linked wait or scope names is there.
            let (place, body) =
                unsafe { task.as_ref() }.map_or((scope.place, true), |task| (task.place, task.is_body()));
            tasks_seen.push(TaskView { place, body, waits: Vec::new(), scopes: Vec::new() });
            tasks_seen.len() - 1
        })
    };
    for (task, wait, since) in locked.waits(scope) {
        let at = place_of(task, &mut view.tasks);
        let since = Duration::from_nanos(now.saturating_sub(since));
        view.tasks[at].waits.push(WaitView { reason: wait.reason, place: wait.place, since });
    }
    for child in locked.children(scope) {
        // SAFETY: [LOCKED] of the tree.
        let (task, child) = unsafe { (child.as_ref().task(), child.as_ref()) };
        let at = place_of(task, &mut view.tasks);
        let below = self::view(locked, child, now, depth + 1);
        view.tasks[at].scopes.push(below);
    }
    view
}

/// What a run has at one moment, in numbers. See [`metrics`](crate::metrics).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// The name of the driver.
    pub driver: &'static str,
    /// Children of nurseries that are not done.
    pub tasks: usize,
    /// Scopes and nurseries that are open, without that of the run itself.
    pub scopes: usize,
    /// Operations that wait.
    pub waits: usize,
    /// Deadlines and sleeps that are set.
    pub timers: usize,
    /// Operations that the kernel has, or descriptors that it watches for somebody who waits.
    pub in_flight: usize,
}

/// Counts what is in the subtree of a scope.
pub(crate) fn count(locked: &Locked<'_>, top: &Scope, driver: &'static str, in_flight: usize) -> Metrics {
    let mut metrics = Metrics { driver, tasks: 0, scopes: 0, waits: 0, timers: locked.timers(), in_flight };
    let mut node: *const Scope = top;
    while !node.is_null() {
        // SAFETY: [LOCKED] of the tree.
        let scope = unsafe { &*node };
        metrics.tasks += locked.live_children(scope);
        metrics.scopes += usize::from(scope.kind != Kind::Run);
        metrics.waits += locked.waits(scope).len();
        node = locked.after(node, top, true);
    }
    metrics
}

impl fmt::Display for ScopeView {
    /// A tree to read at a glance. Tasks that look the same are folded into one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write(&mut text, "", "")?;
        f.write_str(text.trim_end())
    }
}

pub(crate) fn short(place: &Location<'_>) -> String {
    let file = place.file().rsplit('/').next().unwrap_or_default();
    format!("{file}:{}", place.line())
}

pub(crate) fn length(d: Duration) -> String {
    match d.as_secs_f64() {
        s if s >= 100.0 => format!("{s:.0} s"),
        s if s >= 1.0 => format!("{s:.1} s"),
        s if s >= 0.001 => format!("{:.0} ms", s * 1e3),
        s => format!("{:.0} µs", s * 1e6),
    }
}

impl ScopeView {
    fn title(&self) -> String {
        let mut title = format!("{} {}", self.kind, Named(self.name.as_deref(), self.place));
        if self.kind == Kind::Nursery {
            let _ = write!(title, ", {} {}", self.children, if self.children == 1 { "child" } else { "children" });
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

    /// What follows below a scope: its body's waits and scopes in place, its children as branches.
    fn write(&self, out: &mut String, first: &str, rest: &str) -> fmt::Result {
        writeln!(out, "{first}{}", self.title())?;
        let mut lines: Vec<Line<'_>> = Vec::new();
        for task in self.tasks.iter().filter(|task| task.body || self.kind != Kind::Nursery) {
            lines.extend(task.waits.iter().map(Line::Wait));
            lines.extend(task.scopes.iter().map(Line::Scope));
        }
        let mut folded: Vec<(String, Vec<&TaskView>)> = Vec::new();
        let mut known: std::collections::HashMap<String, usize> = std::collections::HashMap::new();
        for task in self.tasks.iter().filter(|task| !task.body && self.kind == Kind::Nursery) {
            let key = task.key();
            match known.get(&key) {
                Some(&at) => folded[at].1.push(task),
                None => {
                    known.insert(key.clone(), folded.len());
                    folded.push((key, vec![task]));
                }
            }
        }
        lines.extend(folded.into_iter().map(|(_, alike)| Line::Tasks(alike)));
        if self.kind == Kind::Nursery {
            let waiting = self.tasks.iter().filter(|task| !task.body).count();
            if waiting < self.children {
                lines.push(Line::Others(self.children - waiting));
            }
        }
        if self.cut_off {
            lines.push(Line::Deeper);
        }
        let last = lines.len().saturating_sub(1);
        for (i, line) in lines.into_iter().enumerate() {
            let (branch, stem) = if i == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            line.write(out, &format!("{rest}{branch}"), &format!("{rest}{stem}"))?;
        }
        Ok(())
    }

    fn key(&self) -> String {
        let tasks: Vec<_> = self.tasks.iter().map(TaskView::key).collect();
        format!(
            "{:?}@{}{}{}[{}]",
            self.kind,
            short(self.place),
            self.cancelled,
            self.deadline_in.is_some(),
            tasks.join(",")
        )
    }
}

impl TaskView {
    /// What makes two tasks look the same: the places, not the times or the descriptors.
    fn key(&self) -> String {
        let waits: Vec<_> = self
            .waits
            .iter()
            .map(|wait| format!("{:?}@{}", std::mem::discriminant(&wait.reason), short(wait.place)))
            .collect();
        let scopes: Vec<_> = self.scopes.iter().map(ScopeView::key).collect();
        format!("{}:{}:{}", short(self.place), waits.join(","), scopes.join(","))
    }

    fn oldest(&self) -> Duration {
        let own = self.waits.iter().map(|wait| wait.since).max().unwrap_or_default();
        let below =
            self.scopes.iter().flat_map(|scope| scope.tasks.iter().map(TaskView::oldest)).max().unwrap_or_default();
        own.max(below)
    }
}

enum Line<'a> {
    Wait(&'a WaitView),
    Scope(&'a ScopeView),
    Tasks(Vec<&'a TaskView>),
    Others(usize),
    Deeper,
}

impl Line<'_> {
    fn write(&self, out: &mut String, first: &str, rest: &str) -> fmt::Result {
        match self {
            Line::Wait(wait) => {
                writeln!(out, "{first}waits for {} at {} since {}", wait.reason, short(wait.place), length(wait.since))
            }
            Line::Scope(scope) => scope.write(out, first, rest),
            Line::Others(count) => writeln!(out, "{first}{count} ready, running, or waiting for something foreign"),
            Line::Deeper => writeln!(out, "{first}… deeper"),
            Line::Tasks(alike) => {
                // Of those that look the same, the one that has waited longest.
                let task = alike.iter().max_by_key(|task| task.oldest()).expect("a fold has one at least");
                let many = if alike.len() > 1 { format!("{} × ", alike.len()) } else { String::new() };
                let like = if alike.len() > 1 { ", longest" } else { "" };
                match (&task.waits[..], &task.scopes[..]) {
                    ([wait], []) => writeln!(
                        out,
                        "{first}{many}task {} waits for {} at {}{like} since {}",
                        short(task.place),
                        wait.reason,
                        short(wait.place),
                        length(wait.since)
                    ),
                    (waits, scopes) => {
                        writeln!(
                            out,
                            "{first}{many}task {}{}",
                            short(task.place),
                            if many.is_empty() { "" } else { ", such as" }
                        )?;
                        let lines: Vec<_> =
                            waits.iter().map(Line::Wait).chain(scopes.iter().map(Line::Scope)).collect();
                        let last = lines.len().saturating_sub(1);
                        for (i, line) in lines.into_iter().enumerate() {
                            let (branch, stem) = if i == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
                            line.write(out, &format!("{rest}{branch}"), &format!("{rest}{stem}"))?;
                        }
                        Ok(())
                    }
                }
            }
        }
    }
}
