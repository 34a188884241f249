//! The task tree as data and as text: which tasks there are, who waits for what, where, since when, until which deadline.
//!
//! Taken under the lock of the tree, from any thread, also while the loop is stuck in a task. Scopes and waits are found there; the tasks of
//! a nursery in the list of its children, which is its owner's and which whoever takes the snapshot [looks on](crate::look::onlook).
//!
//! In the folder: [`take`] walks the tree and [`find`] looks for one task; [`text`] writes the tree, in which [`fold`] has put together what looks
//! the same, with [`words`]; [`count`] tells numbers only.

mod count;
mod find;
mod fold;
mod take;
mod text;
mod words;

pub use count::Metrics;
pub(crate) use count::count;
pub(crate) use find::find;
pub(crate) use take::{view, view_under};
pub(crate) use words::{length, short};

use crate::look::holders::Holding;
use crate::reason::{Does, Made, Reason};
use crate::scope::cause::{Cause, Kind};
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

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
    /// Where that was made which it waits for: an event, a condition or a barrier. `None` of anything else.
    pub made: Option<&'static Location<'static>>,
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
            true => write!(f, "{UNPOLLED} {}{} at {place}", self.reason, Made(self.made)),
            false => write!(f, "{}{} at {place} since {}", Does(self.reason), Made(self.made), length(self.since)),
        }
    }
}

/// Something that a task holds, as it was at one moment.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct HoldView {
    /// What it is: a lock, permits, or tokens.
    pub held: Holding,
    /// Where it was acquired.
    pub place: &'static Location<'static>,
    /// How many permits or tokens; for a lock, 1.
    pub units: usize,
}
