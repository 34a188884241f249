//! The report: all tasks that cannot go on, the cycles among them, what to do about these, and the task tree.

use super::blocked::{BlockedTask, BlockedWait};
use crate::look::snapshot::{self, ScopeView, short};
use crate::look::wait_graph::Graph;
use crate::ready::look_on;
use crate::scope::Scope;
use crate::tree::Tree;
use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::panic::Location;

/// How many tasks a report lists.
const LISTED: usize = 20;

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

impl Deadlock {
    /// What a graph says of these cycles, and of `all` its tasks or only of those in them.
    pub(super) fn of(graph: Graph, cycles: &[Vec<usize>], all: bool, headline: String, tree: ScopeView) -> Self {
        let cycles: Vec<_> = cycles.iter().map(|cycle| Cycle::new(&graph, cycle)).collect();
        let elsewhere = if all { graph.elsewhere } else { 0 };
        let (tasks, places) = graph.tasks(|at| all || cycles.iter().any(|cycle| cycle.tasks.contains(&at)));
        let cycles = cycles.into_iter().map(|cycle| cycle.at(&places)).collect();
        let (headline, tasks, tree) = (headline.into(), tasks.into(), Box::new(tree));
        Self { headline, tasks, cycles, elsewhere, tree, dropped: Box::default(), output: None }
    }

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

    fn waits(&self) -> impl Iterator<Item = &BlockedWait> {
        self.tasks.iter().flat_map(BlockedTask::waits)
    }

    /// The whole task tree at that moment.
    pub fn tree(&self) -> &ScopeView {
        &self.tree
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
        // Of several that wait for each other's items, the end is not what is missing.
        if self.cycles.iter().all(|cycle| cycle.plain || cycle.tasks.len() == 1)
            && self.waits().any(BlockedWait::is_for_the_end)
        {
            writeln!(
                f,
                "end of a channel: it comes when the last sender is dropped or closed; one that was cloned for others, or is lent to them, is a sender too"
            )?;
        }
        match self.elsewhere {
            0 => {}
            1 => writeln!(f, "- one more task waits for something foreign, or can run")?,
            more => writeln!(f, "- {more} more tasks wait for something foreign, or can run")?,
        }
        if self.waits().any(BlockedWait::has_handed) {
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
                let what = without_paths(what);
                write!(f, "\nmain returned when it was cancelled for this: its output, of type {what}, was dropped")
            }
            None => Ok(()),
        }
    }
}

/// The name of a type as people write it: `Option<String>`.
fn without_paths(name: &str) -> String {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let last = |path: &str| path.rsplit("::").next().unwrap_or_default().to_owned();
    name.split_inclusive(|c| !is_path(c)).map(last).collect()
}

/// A line for each, but for those that look the same, which are one.
fn lines_of(tasks: &[BlockedTask]) -> Vec<String> {
    let mut lines: Vec<(String, &BlockedTask, usize)> = Vec::new();
    let mut known = HashMap::new();
    for task in tasks.iter().filter(|task| !task.waits().is_empty()) {
        let at = *known.entry(task.key()).or_insert_with(|| {
            let waits: Vec<String> = task.waits().iter().map(|wait| wait.text(true)).collect();
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
    let cycles = graph.cycles(|_| true);
    Deadlock::of(graph, &cycles, true, headline, snapshot::view_under(locked, &looking, root))
}
