//! Who waits for whom, as it is at one moment, read under the lock of the tree; and what follows from it.
//!
//! A node is a task, or the body of a nursery. It waits for another one that holds what it wants, or that stands in front of it in a line and wants
//! more; for a child that it joins; or for the body and the children of a nursery that it has opened. Two questions are asked:
//!
//! - *Whom does who wait for?* For the report of a run in which nothing moves. Every edge counts, but for some to who made an end of a channel:
//!   ends are made to be handed on. So there is none to a task that has spawned another one since, and from who waits for a oneshot or a watch none to itself.
//! - *Who waits for ever?* For tasks that wait for each other while others go on ([`Graph::stuck`]). Here an edge counts that nothing which is
//!   known refutes.
//!
//! In the folder: [`read`] makes the graph; [`edges`] tells whom who waits for; [`cycles`] and [`stuck`] answer; [`told`] is what a report says of it.

mod cycles;
mod edges;
mod read;
mod stuck;
mod told;

use crate::look::deadlock::Within;
use crate::look::holders::{Holder, Holding, TaskRef};
use crate::ready::Header;
use crate::reason::Reason;
use std::collections::HashMap;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

struct Wait {
    reason: Reason,
    place: &'static Location<'static>,
    made: Option<&'static Location<'static>>,
    since: Duration,
    /// No deadline ends it, and no scope around it is for being cancelled by hand.
    for_ever: bool,
    /// What it waited for has come, and its future was not polled since.
    come: bool,
    on: Target,
}

enum Target {
    Unknown,
    /// The header of a child.
    Child(usize),
    /// Something that others hold, by its place among the things; how many units of it; and where in its line.
    Thing(usize, usize, Option<usize>),
}

/// What tasks wait for and others hold. One for all who wait for it: there may be many of these and of those.
struct Held {
    held: Holding,
    holders: Arc<[Holder]>,
    /// How many units there are, if that is known for good.
    capacity: Option<usize>,
    /// How many of them are out.
    out: usize,
    /// The nodes of the holders, as far as they are there.
    known: Vec<usize>,
    /// Those of them that still have what they got, for all that is known, and how many units.
    certain: Vec<(usize, usize)>,
    /// Futures that were handed units, and were not polled since: their nodes, and where they wait.
    handed: Vec<(usize, &'static Location<'static>)>,
    /// Those that wait in line, the first first: their nodes, and how many units they want. Nobody passes one in front.
    line: Vec<(usize, usize)>,
}

struct Node {
    /// To be followed under the lock under which it was read. Null if it is no task.
    header: *const Header,
    task: TaskRef,
    name: Option<Arc<str>>,
    waits: Vec<Wait>,
    nurseries: Vec<Nursery>,
    scheduled: bool,
    spawned: Option<u16>,
    /// Somebody whom we do not know has a waker of it.
    foreign: bool,
}

struct Nursery {
    queue: usize,
    place: &'static Location<'static>,
    /// For how long its body has been done, or else since when it is open.
    since: Duration,
    /// How many are in it that are not done: children, and the body.
    open: usize,
    /// What of it is not done.
    within: Within,
    nodes: Vec<usize>,
}

impl Held {
    /// Whether it is the other side of a channel.
    fn is_end(&self) -> bool {
        self.held.is_end()
    }

    /// The nodes of those that have it, as far as that can be told.
    fn in_hand(&self) -> impl Iterator<Item = usize> {
        let (known, certain) = if self.is_end() { (&[][..], &self.certain[..]) } else { (&self.known[..], &[][..]) };
        known.iter().copied().chain(certain.iter().map(|(at, _)| *at))
    }

    /// How many units those have that keep what they have.
    fn gone(&self, keeps: &[bool]) -> usize {
        let keep = self.certain.iter().filter(|(at, _)| keeps[*at]);
        keep.fold(0, |gone, (_, units)| gone.saturating_add(*units))
    }
}

/// See the module.
pub(crate) struct Graph {
    nodes: Vec<Node>,
    things: Vec<Held>,
    by_header: HashMap<usize, usize>,
    /// Children, and bodies, of which nothing of ours waits: they run, or wait for something foreign.
    pub elsewhere: usize,
    /// What it has cost: how many scopes, waits and holders were looked at.
    pub steps: usize,
}

impl Graph {
    /// The number of a task.
    pub fn id(&self, at: usize) -> usize {
        self.nodes[at].task.id
    }
}
