//! Programs that cannot go on (N10): when a run looks for that, what it finds, and how it says so.
//!
//! **All tasks wait.** Nothing can run, no deadline is set, the driver has nothing in flight, nobody has a [`RunHandle`](crate::RunHandle). Then
//! only another thread could wake a task, by way of an `Arc<Event>`, a sender, a guard, a scope, or a waker that it has; and what it has
//! cannot be seen from here. So the criterion is whether there is another thread ([`Detection::Proven`]):
//!
//! | other threads | |
//! | --- | --- |
//! | none | nobody can wake a task, whatever it waits for: the run ends with a [`Deadlock`] |
//! | some, or it cannot be found out | the run goes on; after [`GRACE`], once per spell, the report is logged as a warning. It looks again from time to time: the last thread may have ended |
//!
//! Who knows that no thread will come says so with [`Detection::After`].
//!
//! **Some tasks wait for each other**, while others go on. That is looked for when a task begins to wait for what others hold, before the run
//! sleeps; a cycle is what [`Graph::stuck`] cannot refute. Those in it cannot go on by themselves.
//! But while others go on, one of them may end it in a way that cannot be seen from here: it has a nursery around them, and cancels it; it was handed
//! a guard by its holder, or a future that waits for one, through some memory that both know, or a channel; it adds permits to a semaphore that had a
//! fixed number. Nobody can tell whether it will. So a cycle is said to be what it is, tasks that cannot go on by themselves, and that is logged as a
//! warning, once for each, when it has stood for [`GRACE`]: who was handed a guard has done with it by then, as a rule. In virtual time, which passes in no
//! time where nobody does anything, it is logged in the instant in which its last edge closes. And in a run for tests, where
//! [`Options::cycles_end`](crate::Options::cycles_end) is set, the run is ended only when a cycle has stood for [`STANDS_VIRTUAL`] or [`STANDS_REAL`].
//!
//! **What nobody polls.** What is handed over belongs to the one it was handed to, also if that is a future which was polled once and is not polled
//! since (futurelock). Its wait is over, and its task was woken and polled after that: so the task holds it, without a guard to say so. Who completes a
//! wait has the waker until that is woken; so a wake that is on its way counts as a waker that somebody has. Of the body of a nursery the wakers cannot
//! be counted, so there it is said of a run in which all tasks wait, and not while others go on.
//!
//! **What the search costs** is bounded: in real time it takes one part in [`SHARE`] of the time. In virtual time nothing may depend on how fast the
//! machine is: each turn, and each wait that begins, pays for [`CREDIT`] steps, and a search waits until what the last one took is paid, if that was
//! more than [`SMALL`]. So a small graph is looked at in the instant in which its last edge closes, and many instants of a large one cost together what is
//! linear in their number.

use crate::context;
use crate::holders::{Called, Holder, Holding, TaskRef};
use crate::look::snapshot::{self, ScopeView, length, short};
use crate::look::wait_graph::Graph;
use crate::ready::look_on;
use crate::reason::{Does, Reason};
use crate::scope::Scope;
use crate::time::clock;
use crate::tree::Tree;
use crate::worker;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long nothing could run before a run looks whether that is a deadlock. So that one that other threads wake all the time does not look
/// each time.
pub(crate) const SOON: Duration = Duration::from_millis(5);

/// How long nothing could run before it is said that only another thread can go on with it; and for how long tasks have waited for each other in real
/// time before it is said that only others can end that.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// The longest time between two looks, of a run that waits for other threads.
pub(crate) const SELDOM: Duration = Duration::from_secs(60);

/// After how long those that wait for what others hold are looked at again.
const AGAIN: Duration = Duration::from_secs(1);

/// Of the time of a busy run, the searches for cycles take one part in so many.
const SHARE: u32 = 50;

/// How long tasks have to wait for each other in virtual time, and others let them, until that ends a run for tests.
const STANDS_VIRTUAL: Duration = Duration::from_secs(60);

/// The same in real time.
const STANDS_REAL: Duration = Duration::from_secs(10);

/// For how many steps of a search a turn pays in virtual time, and a wait that begins.
const CREDIT: usize = 16;

/// What takes no more steps than that is not counted.
const SMALL: usize = 256;

/// How many tasks a report lists.
const LISTED: usize = 20;

/// When a run in which every task waits is ended as a deadlock (N10).
///
/// Every task waits: no one can run, no deadline is set, no operation is in flight, and nobody has a [`RunHandle`](crate::RunHandle).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Detection {
    /// Never.
    #[default]
    Off,
    /// When it is certain: the process has no other thread that could wake a task. Within some 10 ms.
    ///
    /// While there are other threads nothing is ended, since each of them may have a sender, an event, a guard, a scope or a waker of this
    /// run. After a second a warning is logged with the same report.
    Proven,
    /// After so much real time, whatever other threads there are: for programs in which no other thread wakes a task, such as tests. Where there
    /// is none, as soon as `Proven`.
    After(Duration),
}

/// A run, or some tasks of it, cannot go on: who waits for what, where, since when, and who holds it (N10).
///
/// Its `Display` output is the report.
#[derive(Clone)]
pub struct Deadlock {
    headline: Box<str>,
    tasks: Box<[BlockedTask]>,
    cycles: Vec<Cycle>,
    elsewhere: usize,
    tree: Box<ScopeView>,
    /// Those that waited in a shield, or wait again since the run was cancelled: they were dropped.
    dropped: Box<[BlockedTask]>,
    /// The type of what main returned after its run was cancelled.
    output: Option<&'static str>,
}

/// Tasks that wait for each other.
#[derive(Clone, Debug)]
struct Cycle {
    /// By their places in the report.
    tasks: Vec<usize>,
    /// A line of its own would say nothing: who holds what is wanted is said anyway.
    plain: bool,
    advice: Option<Advice>,
    /// For each of them where it waits for the next one, if it waits for something else, too.
    branches: Vec<Vec<&'static Location<'static>>>,
}

/// What who reads of a cycle can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Tasks have locks that others of them want.
    Order,
    /// A task wants what it has.
    Twice,
    /// A task waits for another one that wants what it has.
    Across,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Advice::Order => {
                "lock order: take these in the same order everywhere, or give back the one before you wait for the other"
            }
            Advice::Twice => "taken twice: let a task give back what it has before it waits for the same again",
            Advice::Across => {
                "held across a wait: let a task give back what another one wants before it waits for that one to end"
            }
        })
    }
}

impl Cycle {
    fn new(graph: &Graph, cycle: &[usize]) -> Self {
        Self {
            tasks: cycle.to_vec(),
            plain: graph.is_plain(cycle),
            advice: graph.advice(cycle),
            branches: graph.branches(cycle),
        }
    }

    /// The same, by where the nodes of the graph are in the report.
    fn at(mut self, places: &HashMap<usize, usize>) -> Self {
        self.tasks.iter_mut().for_each(|at| *at = places[at]);
        self
    }
}

/// A task that waits, in a [`Deadlock`].
#[derive(Clone, Debug)]
pub struct BlockedTask {
    task: TaskRef,
    name: Option<Arc<str>>,
    waits: Vec<BlockedWait>,
}

/// The names of holders that wait themselves, in the order of the holders.
pub(crate) type Names = Arc<[Option<Arc<str>>]>;

/// A child that is joined, and its name.
pub(crate) type Child = (TaskRef, Option<Arc<str>>);

/// A task that was handed something, for a future that it does not poll, and where that waits.
pub(crate) type Handed = (Child, &'static Location<'static>);

/// What of a nursery is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Within {
    Body,
    Both,
    Children,
}

/// More is wanted than there is, whoever has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TooMany {
    pub wanted: usize,
    pub capacity: usize,
}

/// Who stands in front in a line.
#[derive(Clone, Debug)]
pub(crate) struct Front {
    pub task: TaskRef,
    pub name: Option<Arc<str>>,
    /// Nothing else is waited for: what is wanted is there.
    pub alone: bool,
}

/// What a [`BlockedTask`] waits for.
#[derive(Clone, Debug)]
pub struct BlockedWait {
    reason: Reason,
    place: &'static Location<'static>,
    since: Duration,
    held: Option<Holding>,
    holders: Arc<[Holder]>,
    names: Names,
    front: Option<Front>,
    child: Option<Child>,
    unpolled: bool,
    handed: Arc<[Handed]>,
    too_many: Option<TooMany>,
    within: Within,
}

impl Deadlock {
    /// The tasks that wait. The body of a nursery is listed by itself.
    pub fn tasks(&self) -> &[BlockedTask] {
        &self.tasks
    }

    /// Tasks that wait for each other, in a circle: each for the next one, and the last for the first.
    pub fn cycles(&self) -> impl Iterator<Item = Vec<&BlockedTask>> {
        self.cycles.iter().map(|cycle| cycle.tasks.iter().map(|at| &self.tasks[*at]).collect())
    }

    /// The tasks that could not even clean up: after everything was cancelled they waited in a shield, and for ever, and were dropped there. Empty
    /// where the clean-up ended.
    pub fn dropped(&self) -> &[BlockedTask] {
        &self.dropped
    }

    /// The type of what main returned when it had cleaned up, unless that is empty: there is room for the report or for that, and it was dropped.
    pub fn dropped_output(&self) -> Option<&'static str> {
        self.output
    }

    /// Main returned something of this type, which is dropped.
    pub(crate) fn drops_output(&mut self, what: &'static str) {
        self.output = Some(what);
    }

    /// The run was cancelled, and this came after that.
    pub(crate) fn followed_by(&mut self, next: Deadlock) {
        self.dropped = next.tasks;
    }

    /// The whole task tree at that moment.
    pub fn tree(&self) -> &ScopeView {
        &self.tree
    }
}

impl BlockedTask {
    pub(crate) fn new(task: TaskRef, name: Option<Arc<str>>, waits: Vec<BlockedWait>) -> Self {
        Self { task, name, waits }
    }

    /// Which one.
    pub fn task(&self) -> TaskRef {
        self.task
    }

    /// Its name, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Where it was spawned.
    pub fn place(&self) -> &'static Location<'static> {
        self.task.place
    }

    /// What it waits for.
    pub fn waits(&self) -> &[BlockedWait] {
        &self.waits
    }

    fn key(&self) -> String {
        let waits: Vec<String> = self.waits.iter().map(|wait| wait.text(false)).collect();
        format!("{self} {}", waits.join("; "))
    }
}

impl fmt::Display for BlockedTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Called(self.task, self.name()).fmt(f)
    }
}

impl BlockedWait {
    pub(crate) fn new(
        reason: Reason,
        place: &'static Location<'static>,
        since: Duration,
        held: Option<Holding>,
        holders: Arc<[Holder]>,
        names: Names,
        front: Option<Front>,
    ) -> Self {
        let (child, unpolled, handed, too_many, within) = (None, false, Arc::default(), None, Within::Children);
        Self { reason, place, since, held, holders, names, front, child, unpolled, handed, too_many, within }
    }

    /// It has got what it waited for, and is not polled; and who else has.
    pub(crate) fn with_handed(self, unpolled: bool, handed: Arc<[Handed]>) -> Self {
        Self { unpolled, handed, ..self }
    }

    /// It waits for the end of this one.
    pub(crate) fn of_child(self, child: Option<Child>) -> Self {
        Self { child, ..self }
    }

    /// It waits for this part of a nursery.
    pub(crate) fn of_nursery(self, within: Within) -> Self {
        Self { within, ..self }
    }

    /// It wants more than there is.
    pub(crate) fn of_too_few(self, too_many: Option<TooMany>) -> Self {
        Self { too_many, ..self }
    }

    /// What for.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// Where in the program; of a child that is joined by way of a combinator, where it was spawned.
    pub fn place(&self) -> &'static Location<'static> {
        self.place
    }

    /// The child that is joined, if it is that and waits itself.
    pub fn child(&self) -> Option<TaskRef> {
        self.child.as_ref().map(|(child, _)| *child)
    }

    /// For how long it had been. For the children of a nursery it waits since the body was done; while that goes on, since it began.
    pub fn since(&self) -> Duration {
        self.since
    }

    /// What it waited for has come; but its task, which was woken for that, does not poll the future that waited. A lock that it was handed
    /// stays with it.
    pub fn is_unpolled(&self) -> bool {
        self.unpolled
    }

    /// Who held it.
    pub fn holders(&self) -> &[Holder] {
        &self.holders
    }

    /// The names of the [holders](Self::holders), in the same order, of those that have one and wait for something themselves.
    pub fn holder_names(&self) -> impl Iterator<Item = Option<&str>> {
        self.names.iter().map(Option::as_deref)
    }

    /// Who stands in front of it in the line, and has to be served first: one that wants more of the same, such as a writer before a reader, or
    /// three permits before one.
    pub fn in_line_behind(&self) -> Option<TaskRef> {
        self.front.as_ref().map(|front| front.task)
    }

    fn text(&self, with_time: bool) -> String {
        if self.unpolled {
            return format!("{} {} at {}", snapshot::UNPOLLED, self.reason, short(self.place));
        }
        let mut text = match &self.child {
            // Where it is awaited is not known: by way of a combinator.
            Some((child, name)) if child.place == self.place => {
                format!("waits for {} to end", Called(*child, name.as_deref()))
            }
            Some((child, name)) => {
                format!("waits for {} to end at {}", Called(*child, name.as_deref()), short(self.place))
            }
            None if self.reason == Reason::Children => {
                let part = match self.within {
                    Within::Body => "body",
                    Within::Both => "body and the children",
                    Within::Children => "children",
                };
                format!("waits for the {part} of a nursery at {}", short(self.place))
            }
            None => format!("{} at {}", Does(self.reason), short(self.place)),
        };
        // Of a nursery it is known to a millisecond.
        if with_time && !(self.reason == Reason::Children && self.since.is_zero()) {
            text += &format!(" since {}", length(self.since));
        }
        match self.too_many {
            Some(TooMany { capacity: 0, .. }) => return text + ", of which there are none",
            Some(TooMany { wanted, capacity }) => {
                return text + &format!(": {wanted} at once, of which there are {capacity} in all");
            }
            None => {}
        }
        if let Some(Front { task, name, .. }) = &self.front {
            text += &format!(", in line behind {}", Called(*task, name.as_deref()));
        }
        let Some(held) = self.held else { return text };
        if self.front.as_ref().is_some_and(|front| front.alone || self.holders.is_empty()) {
            return text;
        }
        let named = self.holders.iter().zip(self.holder_names()).take(4);
        let mut holders: Vec<String> = named.map(|(holder, name)| describe(held, holder, name)).collect();
        let handed = self.handed.iter().take(4).map(|((task, name), place)| {
            format!("a future of {} that is not polled (waits at {})", Called(*task, name.as_deref()), short(place))
        });
        holders.extend(handed);
        if self.reason == Reason::Oneshot {
            // It is made to be handed on: who has it now is not known.
            return match self.holders.first() {
                None => text + ", whose sender is gone",
                Some(sender) => {
                    let maker = Called(sender.task(), self.names.first().and_then(Option::as_deref));
                    text + &format!(", whose sender, made by {maker} at {}, is still there", short(sender.place()))
                }
            };
        }
        let listed = match self.holders.len() + self.handed.len() {
            0 => "nobody that is known".to_string(),
            1..=4 => holders.join(", "),
            more => format!("{}, and {} more", holders[..3].join(", "), more - 3),
        };
        text += match (held, self.holders.len()) {
            (Holding::Lock | Holding::Permits, _) => ", held by ",
            (Holding::Senders, 0) => ", of which no sender is open",
            (Holding::Receivers, 0) => ", of which no receiver is open",
            (Holding::Senders, 1) => ", whose sender is that of ",
            (Holding::Receivers, 1) => ", whose receiver is that of ",
            (Holding::Senders, _) => ", whose senders are those of ",
            (Holding::Receivers, _) => ", whose receivers are those of ",
        };
        if !(self.holders.is_empty() && matches!(held, Holding::Senders | Holding::Receivers)) {
            text += &listed;
        }
        text
    }
}

fn describe(held: Holding, holder: &Holder, name: Option<&str>) -> String {
    let (task, place) = (Called(holder.task(), name), short(holder.place()));
    match held {
        Holding::Senders | Holding::Receivers => format!("{task} (made at {place})"),
        Holding::Permits if holder.units() != 1 => format!("{task} ({} acquired at {place})", holder.units()),
        Holding::Lock | Holding::Permits => format!("{task} (acquired at {place})"),
    }
}

impl fmt::Display for Deadlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.headline)?;
        for Cycle { tasks, branches, .. } in self.cycles.iter().filter(|cycle| !cycle.plain) {
            let named = |(at, branches): (&usize, &Vec<&'static Location<'static>>)| {
                let places: Vec<String> = branches.iter().map(|place| short(place).to_string()).collect();
                let which = if places.is_empty() { String::new() } else { format!(" at {}", places.join(" and ")) };
                format!("{}{which}", self.tasks[*at])
            };
            let mut names: Vec<String> = tasks.iter().zip(branches).map(named).collect();
            names.extend(tasks.first().map(|at| self.tasks[*at].to_string()));
            writeln!(f, "cycle: {}", names.join(" → "))?;
        }
        for line in lines_of(&self.tasks) {
            writeln!(f, "{line}")?;
        }
        let advised = |advice| self.cycles.iter().any(|cycle| cycle.advice == Some(advice));
        for advice in [Advice::Order, Advice::Twice, Advice::Across].into_iter().filter(|advice| advised(*advice)) {
            writeln!(f, "{advice}")?;
        }
        match self.elsewhere {
            0 => {}
            1 => writeln!(f, "- one more task waits for something foreign, or can run")?,
            more => writeln!(f, "- {more} more tasks wait for something foreign, or can run")?,
        }
        if self.tasks.iter().flat_map(|task| &task.waits).any(|wait| !wait.handed.is_empty()) {
            writeln!(
                f,
                "futurelock: poll such a future to its end, or drop it, before its task waits for anything else"
            )?;
        }
        write!(f, "{}", self.tree)?;
        if !self.dropped.is_empty() {
            write!(f, "\nwhat could not end after it was cancelled, and was dropped:")?;
            for line in lines_of(&self.dropped) {
                write!(f, "\n{line}")?;
            }
        }
        match self.output {
            Some(what) => {
                write!(f, "\nmain returned when it was cancelled for this: its output, of type {what}, was dropped")
            }
            None => Ok(()),
        }
    }
}

/// A line for each, but for those that look the same, which are one.
fn lines_of(tasks: &[BlockedTask]) -> Vec<String> {
    let mut lines: Vec<(String, &BlockedTask, usize)> = Vec::new();
    let mut known = HashMap::new();
    for task in tasks.iter().filter(|task| !task.waits.is_empty()) {
        let at = *known.entry(task.key()).or_insert_with(|| {
            let waits: Vec<String> = task.waits.iter().map(|wait| wait.text(true)).collect();
            lines.push((waits.join("; "), task, 0));
            lines.len() - 1
        });
        lines[at].2 += 1;
    }
    let text = |(waits, task, count): &(String, &BlockedTask, usize)| {
        let many = if *count > 1 { format!("{count} × ") } else { String::new() };
        format!("- {many}{task} {waits}")
    };
    let mut texts: Vec<String> = lines.iter().take(LISTED).map(text).collect();
    if lines.len() > LISTED {
        texts.push(format!("- … and {} more", lines.len() - LISTED));
    }
    texts
}

impl fmt::Debug for Deadlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deadlock")
            .field("headline", &self.headline)
            .field("tasks", &self.tasks)
            .field("cycles", &self.cycles)
            .finish_non_exhaustive()
    }
}

impl Error for Deadlock {}

/// The report of a run in which nothing moves.
pub(crate) fn report(tree: &'static Tree, root: &Scope, now: u64, headline: String) -> Deadlock {
    let looking = look_on();
    let locked = &tree.lock();
    let graph = Graph::of(locked, root, now);
    let cycles: Vec<_> = graph.cycles(|_| true).iter().map(|cycle| Cycle::new(&graph, cycle)).collect();
    let elsewhere = graph.elsewhere;
    let (tasks, places) = graph.tasks(|_| true);
    let cycles = cycles.into_iter().map(|cycle| cycle.at(&places)).collect();
    let tree = Box::new(snapshot::view_under(locked, &looking, root));
    let (headline, tasks) = (headline.into(), tasks.into());
    Deadlock { headline, tasks, cycles, elsewhere, tree, dropped: Box::default(), output: None }
}

/// What can still wake a run in which every task waits. See [`wake_sources`](crate::wake_sources).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WakeSources {
    /// Deadlines and sleeps that are set.
    pub timers: usize,
    /// Operations that the kernel has, or descriptors that it watches for somebody who waits.
    pub in_flight: usize,
    /// [`RunHandle`](crate::RunHandle)s.
    pub handles: usize,
    /// The names of the other threads of the process, of which any may hold something; `None` where they cannot be found out.
    pub threads: Option<Vec<String>>,
}

impl fmt::Display for WakeSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let many = |count: usize, what: &str| match count {
            0 => None,
            1 => Some(format!("1 {what}")),
            more => Some(format!("{more} {what}s")),
        };
        let threads = match &self.threads {
            None => Some("other threads, perhaps".to_string()),
            Some(names) => many(names.len(), "other thread").map(|text| format!("{text} ({})", names.join(", "))),
        };
        let (timers, in_flight) = (many(self.timers, "timer"), many(self.in_flight, "operation"));
        let all: Vec<String> =
            [timers, in_flight.map(|text| text + " in flight"), many(self.handles, "run handle"), threads]
                .into_iter()
                .flatten()
                .collect();
        if all.is_empty() { f.write_str("nothing") } else { f.write_str(&all.join(", ")) }
    }
}

// ---- Some wait for each other --------------------------------------------------------------------------------------

/// Whether to look for tasks that wait for each other.
#[derive(Debug, Default)]
pub(crate) struct Suspicion {
    /// Somebody has begun to wait for what others hold.
    fresh: Cell<bool>,
    /// Somebody waits so.
    standing: Cell<bool>,
    looked: Cell<Option<Instant>>,
    took: Cell<Duration>,
    /// How many steps the last search took, what was paid for since, and how many all of them took.
    cost: Cell<usize>,
    credit: Cell<usize>,
    steps: Cell<usize>,
    /// When to look again, on the clock of the run, since a cycle that stands has then stood for so long that something is to be said or done.
    due: Cell<Option<u64>>,
    /// The tasks that could not go on when it looked last.
    reported: RefCell<HashSet<usize>>,
    /// The run is cancelled since it is in a deadlock.
    ends: Cell<bool>,
    /// Since when it was not looked since a report of the whole run is about to come.
    put_off: Cell<Option<Instant>>,
}

/// What a search has found.
pub(crate) enum Found {
    /// A cycle that has not been reported yet.
    New(Deadlock),
    /// One that has stood for so long that it ends a run for tests.
    Stands(Deadlock),
}

/// A task of the run on this thread begins to wait for what others hold.
pub(crate) fn suspect() {
    // SAFETY: [CURRENT] of the context module.
    if let Some(task) = unsafe { context::task().as_ref() } {
        // The children that it spawns from now on are counted: one of them may get the future that waits.
        task.holds();
    }
    worker::with(|worker| {
        worker.suspicion.fresh.set(true);
        worker.suspicion.pay();
    });
    // A nursery in which nothing but its own children run gives the loop its turn.
    if let Some(tree) = context::tree() {
        tree.ask();
        tree.parker.unpark();
    }
}

/// Whether the run on this thread is cancelled since it is in a deadlock.
pub(crate) fn ends() -> bool {
    worker::with(|worker| worker.suspicion.ends.get()).unwrap_or(false)
}

impl Suspicion {
    /// The run is cancelled since it is in a deadlock.
    pub fn end(&self) {
        self.ends.set(true);
    }

    /// Nothing can come but from another thread, so that a report of the whole run is about to: whether to wait for that. It does not come to
    /// a run that other threads wake all the time.
    pub fn puts_off(&self) -> bool {
        let now = Instant::now();
        let since = self.put_off.get().unwrap_or(now);
        self.put_off.set(Some(since));
        now - since < 2 * SOON
    }

    /// Whether it may be time to look.
    pub fn any(&self) -> bool {
        self.fresh.get() || self.standing.get()
    }

    /// How many steps all searches took.
    pub fn steps(&self) -> usize {
        self.steps.get()
    }

    /// When to look again.
    pub fn due(&self) -> Option<u64> {
        self.due.get()
    }

    fn pay(&self) {
        self.credit.set(self.credit.get().saturating_add(CREDIT));
    }

    /// Looks, unless it has looked too much already. A cycle `ends` a run for tests.
    #[cold]
    pub fn look(&self, tree: &'static Tree, root: &Scope, ends: bool) -> Option<Found> {
        let is_virtual = tree.clock.is_virtual();
        if is_virtual {
            self.pay();
            if self.cost.get() > SMALL && self.credit.get() < self.cost.get() {
                return None;
            }
        }
        let begin = Instant::now();
        if let Some(looked) = self.looked.get()
            && !is_virtual
        {
            let is_due = self.due.get().is_some_and(|due| due <= tree.clock.now());
            let rest = if self.fresh.get() || is_due { self.took.get() * SHARE } else { AGAIN };
            if begin.duration_since(looked) < rest {
                return None;
            }
        }
        self.fresh.set(false);
        self.put_off.set(None);
        let (patience, limit) = if is_virtual { (Duration::ZERO, STANDS_VIRTUAL) } else { (GRACE, STANDS_REAL) };
        let found = self.search(tree, root, patience, limit, ends);
        let end = Instant::now();
        self.looked.set(Some(end));
        self.took.set(end - begin);
        found
    }

    /// What has stood for `patience` is to be told of, and what has for `limit` is the end, where it `ends`.
    fn search(
        &self,
        tree: &'static Tree,
        root: &Scope,
        patience: Duration,
        limit: Duration,
        ends: bool,
    ) -> Option<Found> {
        let looking = look_on();
        let locked = tree.lock();
        let now = tree.clock.now();
        let graph = Graph::of(&locked, root, now);
        self.cost.set(graph.steps);
        self.credit.set(0);
        self.steps.set(self.steps.get().saturating_add(graph.steps));
        let stuck = graph.stuck();
        let cycles = graph.cycles(|at| stuck[at]);
        // They are stuck by the cycles that were reported then. That others are seen among them later, when somebody has left a line that they
        // stand in, is nothing new.
        let mut told: HashSet<usize> = (0..stuck.len()).filter(|at| stuck[*at]).map(|at| graph.id(at)).collect();
        let before = self.reported.take();
        let is_new = |cycle: &[usize]| !cycle.iter().all(|at| before.contains(&graph.id(*at)));
        let mut due: Option<Duration> = None;
        for cycle in &cycles {
            let stood = graph.stands(cycle);
            let tells = is_new(cycle) && stood < patience;
            if tells {
                cycle
                    .iter()
                    .map(|at| graph.id(*at))
                    .filter(|id| !before.contains(id))
                    .for_each(|id| _ = told.remove(&id));
            }
            let next =
                [(tells, patience), (ends, limit)].into_iter().filter(|(is, _)| *is).map(|(_, at)| at - stood.min(at));
            due = due.into_iter().chain(next).min();
        }
        // Those that wait for each other's end, and for nothing that is held, are looked at again, too.
        self.standing.set(graph.contended() || due.is_some());
        self.due.set(due.map(|left| clock::after(now, left)));
        let stands = ends && cycles.iter().any(|cycle| graph.stands(cycle) >= limit);
        let shown: Vec<_> = cycles
            .into_iter()
            .filter(|cycle| match stands {
                true => graph.stands(cycle) >= limit,
                false => is_new(cycle) && graph.stands(cycle) >= patience,
            })
            .collect();
        // Also who is in another cycle, of which nothing is told yet.
        told.extend(shown.iter().flatten().map(|at| graph.id(*at)));
        self.reported.replace(told);
        if shown.is_empty() {
            return None;
        }
        let shown: Vec<_> = shown.iter().map(|cycle| Cycle::new(&graph, cycle)).collect();
        let (tasks, places) = graph.tasks(|at| shown.iter().any(|cycle| cycle.tasks.contains(&at)));
        let cycles = shown.into_iter().map(|cycle| cycle.at(&places)).collect();
        let headline = match stands {
            true => format!(
                "deadlock (N10): some tasks wait for each other, and have for {}: nobody has ended that (a test that means it says so: `testing::Builder::cycles_end`)",
                length(limit)
            ),
            false => "deadlock (N10): some tasks wait for each other, and none of them can go on by itself (only others can end that: who cancels one of them, or has been handed what one of them had acquired)".to_string(),
        };
        let tree = Box::new(snapshot::view_under(&locked, &looking, root));
        let (headline, tasks) = (headline.into(), tasks.into());
        let report = Deadlock { headline, tasks, cycles, elsewhere: 0, tree, dropped: Box::default(), output: None };
        Some(if stands { Found::Stands(report) } else { Found::New(report) })
    }
}
