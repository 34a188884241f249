//! The walk through the tree that makes a snapshot.

use super::{HoldView, ScopeView, TaskState, TaskView, WaitView};
use crate::look::holders::Holding;
use crate::look::holdings::{self, Note};
use crate::ready::{Header, LookingOn, look_on};
use crate::scope::cause::{Cause, Kind};
use crate::scope::{CANCEL_CALLED, SHIELD, SOFT, Scope};
use crate::time::clock;
use crate::tree::{Locked, Tree};
use std::collections::HashMap;
use std::time::Duration;

/// How deep a snapshot follows nested scopes.
const DEEPEST: usize = 200;

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
            task.waits.push(WaitView { reason: wait.reason, place: wait.place, made: wait.made, since, unpolled });
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

impl ScopeView {
    /// Whether a task in it is being polled.
    fn is_running(&self) -> bool {
        self.tasks.iter().any(|task| task.state == TaskState::Running)
    }
}
