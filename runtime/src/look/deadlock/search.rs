//! The search for tasks that wait for each other: when it is time to look, and what is new of what is found.
//!
//! **What the search costs** is bounded: in real time it takes one part in [`SHARE`] of the time. In virtual time nothing may depend on how fast the
//! machine is: each turn, and each wait that begins, pays for [`CREDIT`] steps, and a search waits until what the last one took is paid, if that was
//! more than [`SMALL`]. So a small graph is looked at in the instant in which its last edge closes, and many instants of a large one cost together what is
//! linear in their number.

use super::report::Deadlock;
use super::{GRACE, SOON};
use crate::context;
use crate::idle::Odd;
use crate::look::snapshot::{self, length};
use crate::look::wait_graph::Graph;
use crate::ready::look_on;
use crate::scope::Scope;
use crate::time::clock;
use crate::tree::Tree;
use crate::worker;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::time::{Duration, Instant};

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

/// What this thread has had of the processor. A search that had to wait for it took no more for that: by the clock on the wall, one of 3,000 tasks on a busy
/// machine would put off the next one for many seconds.
fn cpu_time() -> Duration {
    // Miri has no clock of a thread.
    let clock = if cfg!(miri) { rustix::time::ClockId::Monotonic } else { rustix::time::ClockId::ThreadCPUTime };
    Duration::try_from(rustix::time::clock_gettime(clock)).unwrap_or(Duration::ZERO)
}

/// Whether to look for tasks that wait for each other.
#[derive(Debug, Default)]
pub(crate) struct Suspicion {
    /// Somebody has begun to wait for what others hold.
    fresh: Cell<bool>,
    /// Somebody waits so.
    standing: Cell<bool>,
    looked: Cell<Option<Instant>>,
    /// Of the processor's time, the last search.
    took: Cell<Duration>,
    /// How many steps the last search took, what was paid for since, and how many all of them took.
    cost: Cell<usize>,
    credit: Cell<usize>,
    steps: Cell<usize>,
    /// When to look again, on the clock of the run: a cycle that stands has then stood for so long that something is to be said or done, or it was too soon
    /// to look when somebody began to wait.
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
        worker.idle.set(Odd::Cycles);
    });
    // A nursery in which nothing but its own children run gives the loop its turn.
    if let Some(tree) = context::tree() {
        tree.ask();
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
            let left = rest.saturating_sub(begin.duration_since(looked));
            if !left.is_zero() {
                if self.fresh.get() {
                    // Nothing else may wake the loop by then.
                    let again = clock::after(tree.clock.now(), left);
                    self.due.set(Some(self.due.get().map_or(again, |due| due.min(again))));
                }
                return None;
            }
        }
        self.fresh.set(false);
        self.put_off.set(None);
        let (patience, limit) = if is_virtual { (Duration::ZERO, STANDS_VIRTUAL) } else { (GRACE, STANDS_REAL) };
        let before = cpu_time();
        let found = self.search(tree, root, patience, limit, ends);
        self.took.set(cpu_time().saturating_sub(before));
        self.looked.set(Some(Instant::now()));
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
        let headline = match stands {
            true => format!(
                "deadlock (N10): some tasks wait for each other, and have for {}: nobody has ended that (a test that means it says so: `testing::Builder::cycles_end`)",
                length(limit)
            ),
            false => "deadlock (N10): some tasks wait for each other, and none of them can go on by itself (only others can end that: who cancels one of them, or has been handed what one of them had acquired)".to_string(),
        };
        let report = Deadlock::of(graph, &shown, false, headline, snapshot::view_under(&locked, &looking, root));
        Some(if stands { Found::Stands(report) } else { Found::New(report) })
    }
}
