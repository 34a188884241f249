//! Programs that run and get nowhere: turn after turn tasks are polled and wake each other, and nothing comes of it.
//!
//! A turn that is followed by a sleep of the loop is no such turn. Progress is: a wait or a scope that begins (who waits again has been
//! served), a task that begins or ends, a call by a [`RunHandle`](crate::RunHandle). Where there was none for [`Limits::turns`] turns in
//! a row, and for [`Limits::time`], tasks are watched for some thousand turns more, by an instrument like any other, to see who wakes
//! whom; and then it is logged as a warning, once until there is progress again.
//!
//! So the ordinary path pays for one counter under a lock that it has anyway. What it does not see is a loop that
//! moves items with `try_` operations alone, and yields in between: that looks the same as one in which nothing moves.

use crate::look::instrument::{Instrument, InstrumentHandle, TaskInfo, add_instrument};
use crate::look::snapshot::length;
use crate::scope::cause::Named;
use crate::tree::{SLEPT, Tree};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// In how many turns it is looked once; and so many are watched.
const LOOK: u64 = 4096;

/// How many tasks a report lists.
const LISTED: usize = 20;

/// How long a run may be busy without progress before that is logged as a livelock.
///
/// Both have to be exceeded. A computation that yields now and then takes longer for a turn than one that spins: a million turns in five
/// seconds are 5 µs each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// So many turns in a row, without a sleep of the loop.
    pub turns: u64,
    /// So much real time.
    pub time: Duration,
}

impl Default for Limits {
    /// A million turns, and 5 seconds.
    fn default() -> Self {
        Self { turns: 1_000_000, time: Duration::from_secs(5) }
    }
}

/// What a run knows of its own progress.
#[derive(Default)]
pub(crate) struct Livelock {
    limits: Option<Limits>,
    /// How many turns there were without a sleep, at the last look, and without progress.
    busy: Cell<u64>,
    /// What the loop had [counted](crate::tree::Current::turns) by then.
    looked: Cell<u64>,
    since: Cell<Option<Instant>>,
    activity: Cell<u64>,
    watched: RefCell<Option<(Rc<Recorder>, InstrumentHandle)>>,
    said: Cell<bool>,
    report: Cell<Option<String>>,
}

impl Livelock {
    pub fn new(limits: Option<Limits>) -> Self {
        Self { limits, ..Self::default() }
    }

    /// What is to be logged. The loop does that, in no task.
    pub fn report(&self) -> Option<String> {
        if self.said.get() { self.report.take() } else { None }
    }

    /// A turn before which the loop did not sleep. Called for some of them: those in which the clock is read.
    #[inline]
    pub fn turn(&self, tree: &'static Tree) {
        if tree.current.turns().wrapping_sub(self.looked.get()) % SLEPT >= LOOK {
            self.look(tree);
        }
    }

    /// Something has moved.
    #[cold]
    pub fn progress(&self) {
        self.since.set(None);
        self.said.set(false);
        let watched = self.watched.take();
        if let Some((_, handle)) = watched {
            handle.remove();
        }
    }

    #[cold]
    fn look(&self, tree: &'static Tree) {
        let turns = tree.current.turns();
        let passed = turns.wrapping_sub(self.looked.replace(turns));
        let Some(limits) = self.limits else { return };
        let activity = tree.lock().activity();
        let moved = self.watched.borrow().as_ref().is_some_and(|(seen, _)| seen.moved.get());
        // The loop slept in between: it was looked again after fewer turns than would make one.
        let slept = passed >= SLEPT;
        if activity != self.activity.replace(activity) || moved || slept {
            self.busy.set(0);
            return self.progress();
        }
        let busy = self.busy.get() + passed;
        self.busy.set(busy);
        let Some(since) = self.since.get() else { return self.since.set(Some(Instant::now())) };
        let passed = since.elapsed();
        if self.said.get() || busy < limits.turns || passed < limits.time {
            return;
        }
        let watched = self.watched.take();
        let Some((seen, handle)) = watched else {
            let recorder = Rc::new(Recorder::default());
            let handle = add_instrument(recorder.clone());
            *self.watched.borrow_mut() = Some((recorder, handle));
            return;
        };
        handle.remove();
        self.said.set(true);
        self.report.set(Some(seen.report(busy, passed)));
        tree.ask();
    }
}

/// Sees who wakes whom.
#[derive(Default)]
struct Recorder {
    /// A task has begun or ended.
    moved: Cell<bool>,
    running: RefCell<Vec<TaskInfo>>,
    tasks: RefCell<BTreeMap<u64, Seen>>,
}

struct Seen {
    task: TaskInfo,
    polls: u64,
    /// By which task, with where that was spawned, and how often.
    wakes: BTreeMap<Option<u64>, u64>,
}

impl Recorder {
    fn with(&self, task: &TaskInfo, f: impl FnOnce(&mut Seen)) {
        let mut tasks = self.tasks.borrow_mut();
        f(tasks.entry(task.id()).or_insert_with(|| Seen { task: task.clone(), polls: 0, wakes: BTreeMap::new() }));
    }

    fn report(&self, turns: u64, passed: Duration) -> String {
        let tasks = self.tasks.borrow();
        let name = |id: u64| {
            let named = |seen: &Seen| format!("task {}", Named(seen.task.name(), seen.task.place()));
            tasks.get(&id).map_or_else(|| "another task".to_string(), named)
        };
        let mut text = format!(
            "livelock: {turns} turns in {} without progress: tasks are polled, and no wait, no task and no operation begins or ends",
            length(passed)
        );
        let mut all: Vec<_> = tasks.iter().filter(|(_, seen)| seen.polls > 0).collect();
        all.sort_by_key(|(id, seen)| (std::cmp::Reverse(seen.polls), **id));
        for (id, seen) in all.iter().take(LISTED) {
            let _ = write!(text, "\n- {} was polled {} times in {LOOK} turns", name(**id), seen.polls);
            for (by, count) in &seen.wakes {
                let by = match by {
                    Some(by) if by == *id => "itself".to_string(),
                    Some(by) => name(*by),
                    None => "code outside of every task".to_string(),
                };
                let _ = write!(text, ", woken {count} times by {by}");
            }
        }
        if all.len() > LISTED {
            let _ = write!(text, "\n- … and {} more", all.len() - LISTED);
        }
        text
    }
}

impl Instrument for Recorder {
    fn spawned(&self, _: &TaskInfo) {
        self.moved.set(true);
    }

    fn exited(&self, _: &TaskInfo) {
        self.moved.set(true);
    }

    fn scheduled(&self, task: &TaskInfo) {
        let by = self.running.borrow().last().map(TaskInfo::id);
        self.with(task, |seen| *seen.wakes.entry(by).or_default() += 1);
    }

    fn before_poll(&self, task: &TaskInfo) {
        self.running.borrow_mut().push(task.clone());
        self.with(task, |seen| seen.polls += 1);
    }

    fn after_poll(&self, _: &TaskInfo) {
        self.running.borrow_mut().pop();
    }
}
