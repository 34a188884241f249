//! The task tree as data and as text: which tasks there are, who waits for what, where, since when, until which deadline.
//!
//! Taken under the lock of the tree, from any thread, also while the loop is stuck in a task. Scopes and waits are found there; the tasks of
//! a nursery in the list of its children, which is its owner's and which whoever takes the snapshot [looks on](crate::look::onlook).

use crate::holders::Holding;
use crate::holdings::{self, Note};
use crate::ready::{Header, LookingOn, look_on};
use crate::reason::{Does, Reason};
use crate::scope::cause::{Cause, Kind, Named};
use crate::scope::{CANCEL_CALLED, SHIELD, SOFT, Scope};
use crate::time::clock;
use crate::tree::{Locked, Tree};
use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

/// How deep a snapshot follows nested scopes.
const DEEPEST: usize = 200;

/// A scope, as it was at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
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
    /// For how long the body of a nursery has been done, to a millisecond: what is left are children, which are awaited.
    pub awaited: Option<Duration>,
    /// The tasks in it: for a nursery, its body, if that is not done, and its children in the order of their birth; for another scope, the
    /// task that runs in it, if it waits in it.
    pub tasks: Vec<TaskView>,
    /// There was more below than a snapshot follows.
    pub cut_off: bool,
}

/// A task, as it was at one moment; or the part of it that is in a scope.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TaskView {
    /// Its name, if it was given one.
    pub name: Option<Arc<str>>,
    /// Where it was spawned; for the body of a nursery, where that was opened.
    pub place: &'static Location<'static>,
    /// Whether it is the body of the nursery (or the main task).
    pub body: bool,
    /// What it is doing.
    pub state: TaskState,
    /// How long ago it was spawned, to a millisecond.
    pub age: Duration,
    /// How often it was polled, modulo 2^32. A poll that is going on counts.
    pub polls: u32,
    /// The locks, permits and tokens that it has acquired and not given back. It may have given one away, to a task that has it now.
    /// Said once: in the view of its nursery or of the run, and not of the scopes that it is in.
    pub holds: Vec<HoldView>,
    /// What it waits for directly in this scope.
    pub waits: Vec<WaitView>,
    /// The scopes that it opened in this scope.
    pub scopes: Vec<ScopeView>,
}

/// What a task is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TaskState {
    /// It is being polled, or a child of it is.
    Running,
    /// It was spawned or woken, and has not been polled since.
    Ready,
    /// It waits for an operation of this library, or for children.
    Waiting,
    /// It waits for something that this library knows nothing of.
    Foreign,
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TaskState::Running => "is running",
            TaskState::Ready => "is ready",
            TaskState::Waiting => "waits",
            TaskState::Foreign => "waits for something foreign",
        })
    }
}

/// One wait, as it was at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WaitView {
    /// What for.
    pub reason: Reason,
    /// Where in the program.
    pub place: &'static Location<'static>,
    /// For how long it had been.
    pub since: Duration,
    /// What it waited for has come; but its task, which was woken for that, does not poll the future that waited. A lock that it was handed
    /// stays with it.
    pub unpolled: bool,
}

/// Of a task with such a wait; what that was for follows.
pub(crate) const UNPOLLED: &str = "does not poll a future that has got what it waited for:";

impl fmt::Display for WaitView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = short(self.place);
        match self.unpolled {
            true => write!(f, "{UNPOLLED} {} at {place}", self.reason),
            false => write!(f, "{} at {place} since {}", Does(self.reason), length(self.since)),
        }
    }
}

/// Something that a task holds, as it was at one moment.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct HoldView {
    /// What it is: a lock, or permits.
    pub held: Holding,
    /// Where it was acquired.
    pub place: &'static Location<'static>,
    /// How many permits; for a lock, 1.
    pub units: usize,
}

/// Takes the snapshot of a scope in a tree and everything below; `None` where `which` names none. `which` is called under the lock.
pub(crate) fn view(
    tree: &'static Tree,
    which: impl for<'a> FnOnce(&'a Locked<'static>) -> Option<&'a Scope>,
) -> Option<ScopeView> {
    // Ends after the lock is released: what was kept meanwhile is freed, and with it perhaps a waker, which is code of others.
    let looking = look_on();
    let locked = tree.lock();
    let scope = which(&locked)?;
    Some(view_under(&locked, &looking, scope))
}

/// The same for who has the lock, and looked on before that.
pub(crate) fn view_under(locked: &Locked<'_>, looking: &LookingOn, scope: &Scope) -> ScopeView {
    let mut held: HashMap<usize, Vec<HoldView>> = HashMap::new();
    for Note { held: what, task, place, units, .. } in holdings::all() {
        // For a lock the units say whether it is for writing.
        let units = if what == Holding::Lock { 1 } else { units };
        held.entry(task).or_default().push(HoldView { held: what, place, units });
    }
    for holds in held.values_mut() {
        holds.sort_by_key(|hold| (hold.place.file(), hold.place.line(), hold.place.column(), hold.units));
    }
    View { locked, looking, now: locked.clock_now(), held: &held }.below(scope, 0)
}

/// What is known of the moment.
struct View<'a> {
    locked: &'a Locked<'a>,
    looking: &'a LookingOn,
    now: u64,
    /// By the address of the task.
    held: &'a HashMap<usize, Vec<HoldView>>,
}

/// Who a task is, for a report.
pub(crate) struct Found {
    pub name: Option<Arc<str>>,
    pub place: &'static Location<'static>,
    pub body: bool,
    /// What it is the body or a child of.
    pub kind: Kind,
}

/// The task with this address in the run that has this tree, if there is one.
pub(crate) fn find(tree: &'static Tree, task: usize) -> Option<Found> {
    let looking = look_on();
    if !looking.may_walk() {
        return None;
    }
    let locked = tree.lock();
    let root: *const Scope = locked.run()?;
    let mut node = root;
    while !node.is_null() {
        // SAFETY: [LOCKED] of the tree.
        let scope = unsafe { &*node };
        if let Some(queue) = locked.queue(scope) {
            // SAFETY: [LOOKED]; the queue stays while its scope is linked, and that takes the lock.
            let found = unsafe { queue.tasks() }.find(|found| std::ptr::from_ref::<Header>(found).addr() == task);
            if let Some(found) = found {
                return Some(Found {
                    name: if found.is_body() { scope.who().name } else { found.name() },
                    place: found.place,
                    body: found.is_body(),
                    kind: scope.kind,
                });
            }
        }
        node = locked.after(node, root, true);
    }
    None
}

/// The tasks of a scope, as they are found.
struct Tasks<'a> {
    found: Vec<TaskView>,
    at: HashMap<*const Header, usize>,
    now: u64,
    current: *const Header,
    held: Option<&'a HashMap<usize, Vec<HoldView>>>,
}

impl Tasks<'_> {
    /// The task is there.
    fn add(&mut self, task: &Header) -> usize {
        let state = match () {
            () if std::ptr::eq(task, self.current) => TaskState::Running,
            () if task.is_scheduled() => TaskState::Ready,
            () if task.waits() > 0 => TaskState::Waiting,
            () => TaskState::Foreign,
        };
        self.at.insert(task, self.found.len());
        self.found.push(TaskView {
            name: task.name(),
            place: task.place,
            body: task.is_body(),
            state,
            age: task.age(self.now),
            // And the one that goes on.
            polls: task.polls().wrapping_add(u32::from(state == TaskState::Running)),
            holds: self.held.and_then(|held| held.get(&std::ptr::from_ref(task).addr())).cloned().unwrap_or_default(),
            waits: Vec::new(),
            scopes: Vec::new(),
        });
        self.found.len() - 1
    }

    /// Where a task is that a wait or a scope in `scope` names: as a rule it is known; else it is the one that runs there, or none that
    /// is left.
    fn of(&mut self, scope: &Scope, task: *const Header) -> &mut TaskView {
        let at = match self.at.get(&task) {
            Some(&at) => at,
            // SAFETY: [LOCKED] of the tree: a task that a linked wait or scope names is there.
            None => match unsafe { task.as_ref() } {
                Some(task) => self.add(task),
                None => {
                    self.at.insert(task, self.found.len());
                    self.found.push(TaskView {
                        name: None,
                        place: scope.place,
                        body: true,
                        state: TaskState::Waiting,
                        age: Duration::ZERO,
                        polls: 0,
                        holds: Vec::new(),
                        waits: Vec::new(),
                        scopes: Vec::new(),
                    });
                    self.found.len() - 1
                }
            },
        };
        &mut self.found[at]
    }
}

impl View<'_> {
    fn below(&self, scope: &Scope, depth: usize) -> ScopeView {
        let Self { locked, looking, now, held } = *self;
        let deadline = scope.deadline();
        let mut view = ScopeView {
            kind: scope.kind,
            name: scope.who().name,
            place: scope.place,
            deadline_in: (deadline != clock::NEVER).then(|| Duration::from_nanos(deadline.saturating_sub(now))),
            cancelled: scope.is_cancelled(),
            soft_cancelled: scope.has(SOFT),
            cause: scope.has(CANCEL_CALLED).then(|| locked.cause(scope)).flatten().map(|cause| Cause::clone(&cause)),
            shield: scope.has(SHIELD),
            children: locked.live_children(scope),
            awaited: None,
            tasks: Vec::new(),
            cut_off: depth >= DEEPEST,
        };
        if view.cut_off {
            return view;
        }
        // A task is in its nursery, or the run, and again in each scope that it is in: what it holds is said once.
        let held = (depth == 0 || scope.kind == Kind::Nursery).then_some(held);
        let mut tasks = Tasks { found: Vec::new(), at: HashMap::new(), now, current: locked.current(), held };
        // Where it may not walk, those that wait are there all the same.
        if let Some(queue) = locked.queue(scope).filter(|_| looking.may_walk()) {
            // SAFETY: [LOOKED], by `looking`; the queue stays while its scope is linked, and that takes the lock.
            for task in unsafe { queue.tasks() } {
                tasks.add(task);
            }
        }
        for wait in locked.waits(scope) {
            let since = Duration::from_nanos(now.saturating_sub(wait.since));
            let task = tasks.of(scope, wait.task);
            // Its age is not known so exactly.
            task.age = task.age.max(since);
            let unpolled = wait.come && matches!(task.state, TaskState::Waiting | TaskState::Foreign);
            task.waits.push(WaitView { reason: wait.reason, place: wait.place, since, unpolled });
        }
        for child in locked.children(scope) {
            // SAFETY: [LOCKED] of the tree.
            let child = unsafe { child.as_ref() };
            let below = self.below(child, depth + 1);
            let task = tasks.of(scope, child.task());
            if below.is_running() && task.state != TaskState::Running {
                task.state = TaskState::Running;
                task.polls = task.polls.wrapping_add(1);
            }
            task.scopes.push(below);
        }
        view.tasks = tasks.found;
        if view.kind == Kind::Nursery {
            view.awaited =
                locked.queue(scope).map(|queue| queue.body_age(now)).and_then(|(age, done)| done.then_some(age));
            // Those that came or went while this looked.
            view.children = view.children.max(view.tasks.iter().filter(|task| !task.body).count());
        }
        view
    }
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

    /// Whether a task in it is being polled.
    fn is_running(&self) -> bool {
        self.tasks.iter().any(|task| task.state == TaskState::Running)
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

    /// What makes two scopes look the same.
    fn key(&self, key: &mut String) {
        let _ =
            write!(key, "{:?}@{:?}{}{}[", self.kind, PlaceKey(self.place), self.cancelled, self.deadline_in.is_some());
        for task in &self.tasks {
            task.key(key);
        }
        key.push(']');
    }
}

/// A place, for comparison: there may be several copies of one.
struct PlaceKey<'a>(&'a Location<'a>);

impl fmt::Debug for PlaceKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.0.file(), self.0.line(), self.0.column())
    }
}

/// How many tasks that look the same, but for their names, are shown one by one.
const NAMED_ALIKE: usize = 4;

/// Puts together the tasks that look the same, in the order of the first of each.
fn fold(tasks: Vec<&TaskView>) -> Vec<Vec<&TaskView>> {
    let mut folded: Vec<Vec<&TaskView>> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for task in tasks {
        let mut key = String::new();
        task.key(&mut key);
        match known.get(&key) {
            Some(&at) => folded[at].push(task),
            None => {
                known.insert(key, folded.len());
                folded.push(vec![task]);
            }
        }
    }
    let one_by_one =
        |alike: &Vec<&TaskView>| alike.len() <= NAMED_ALIKE && alike.iter().any(|task| task.name.is_some());
    folded
        .into_iter()
        .flat_map(
            |alike| if one_by_one(&alike) { alike.into_iter().map(|task| vec![task]).collect() } else { vec![alike] },
        )
        .collect()
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
    /// What makes two tasks look the same: the places, not the times, the names or the descriptors.
    fn key(&self, key: &mut String) {
        let _ = write!(key, "{:?}{:?}", PlaceKey(self.place), self.state);
        for wait in &self.waits {
            let kind = std::mem::discriminant(&wait.reason);
            let _ = write!(key, ",{kind:?}@{:?}{}", PlaceKey(wait.place), wait.unpolled);
        }
        for hold in &self.holds {
            let _ = write!(key, "+{:?}{}@{:?}", hold.held, hold.units, PlaceKey(hold.place));
        }
        for scope in &self.scopes {
            scope.key(key);
        }
    }

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

/// Whether a text that names lines does not tell them from each other.
fn same_line(a: &Location<'_>, b: &Location<'_>) -> bool {
    (a.line(), a.file()) == (b.line(), b.file())
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
        let (one, many) = if hold.held == Holding::Lock { ("a lock", "locks") } else { ("a permit", "permits") };
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

/// A number with its thousands apart.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
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
                        "{first}{many}task {who} {} at {}{} since {}{holds} {}",
                        Does(wait.reason),
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
