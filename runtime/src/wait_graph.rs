//! Who waits for whom, as it is at one moment, read under the lock of the tree; and what follows from it.
//!
//! A node is a task, or the body of a nursery. It waits for another one that holds what it wants, for a child that it joins, or for the body
//! and the children of a nursery that it has opened. Two questions are asked:
//!
//! - *Whom does who wait for?* For the report of a run in which nothing moves. Every edge counts.
//! - *Who waits for ever?* For tasks that wait for each other while others go on ([`Graph::stuck`]). Here each edge has to be certain.

use crate::cause::Kind;
use crate::clock::NEVER;
use crate::deadlock::{BlockedTask, BlockedWait};
use crate::holders::{Held, Holder, Holding, Role, TaskRef};
use crate::park::{On, Reason};
use crate::ready::Header;
use crate::scope::{SHIELD, Scope, WAKER_SET};
use crate::sync::Ordering;
use crate::tree::Locked;
use std::collections::HashMap;
use std::panic::Location;
use std::time::Duration;

/// How many cycles a report shows.
const CYCLES: usize = 8;

struct Wait {
    reason: Reason,
    place: &'static Location<'static>,
    since: Duration,
    /// No deadline ends it, and no scope around it is for being cancelled by hand.
    for_ever: bool,
    on: Target,
}

enum Target {
    Unknown,
    /// The header of a child.
    Child(usize),
    Thing {
        held: Holding,
        holders: Vec<Holder>,
        /// How many units there are, if that is known for good.
        capacity: Option<usize>,
        wanted: usize,
    },
}

struct Node {
    task: TaskRef,
    name: Option<std::sync::Arc<str>>,
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
    nodes: Vec<usize>,
}

/// See the module.
pub(crate) struct Graph {
    nodes: Vec<Node>,
    by_header: HashMap<usize, usize>,
    /// Children, and bodies, of which nothing of ours waits: they run, or wait for something foreign.
    pub elsewhere: usize,
}

impl Graph {
    /// Everything below the root.
    pub fn of(locked: &Locked<'_>, root: &Scope, now: u64) -> Self {
        let mut graph = Self { nodes: Vec::new(), by_header: HashMap::new(), elsewhere: 0 };
        let mut lasting: HashMap<*const Scope, bool> = HashMap::new();
        let mut wakers: HashMap<usize, usize> = HashMap::new();
        let (mut scope, mut queues) = (std::ptr::from_ref(root), HashMap::new());
        let mut live = 0;
        while !scope.is_null() {
            // SAFETY: [LOCKED] of the tree.
            let here = unsafe { &*scope };
            let outside =
                here.has(SHIELD) || lasting.get(&here.parent.load(Ordering::Relaxed).cast_const()) != Some(&false);
            let for_ever = outside && here.kind != Kind::Scope && here.deadline() == NEVER && !here.is_cancelled();
            lasting.insert(scope, for_ever);
            for (wait, on) in locked.waits_on(here) {
                let at = graph.node(wait.task, here.place);
                *wakers.entry(wait.task.addr()).or_default() += 1;
                let on = match on {
                    On::Child(0) => Target::Unknown,
                    On::Child(header) => Target::Child(header),
                    On::Thing(thing, wanted) => match thing.look() {
                        Some(Held { held, holders, capacity }) => {
                            Target::Thing { held, holders, capacity, wanted: wanted as usize }
                        }
                        // It was forgotten, and what it waited for is gone.
                        None => Target::Unknown,
                    },
                };
                let (reason, place) = (wait.reason, wait.place);
                let since = Duration::from_nanos(now.saturating_sub(wait.since));
                let for_ever = for_ever && wait.for_ever;
                graph.nodes[at].waits.push(Wait { reason, place, since, for_ever, on });
            }
            if here.kind != Kind::Run {
                *wakers.entry(here.task().addr()).or_default() += usize::from(here.has(WAKER_SET));
            }
            let queue = here.ready.load(Ordering::Relaxed).addr();
            if queue != 0 && here.kind == Kind::Nursery {
                let at = graph.node(here.task(), here.place);
                // Its queue has one, to be told when something arrives from elsewhere.
                *wakers.entry(here.task().addr()).or_default() += 1;
                queues.insert(queue, (at, graph.nodes[at].nurseries.len()));
                graph.nodes[at].nurseries.push(Nursery { queue, place: here.place, nodes: Vec::new() });
                live += locked.live_children(here);
            }
            scope = locked.after(scope, root, true);
        }
        let headers: Vec<(usize, usize)> = graph.by_header.iter().map(|(header, at)| (*header, *at)).collect();
        for (header, at) in headers {
            if header == 0 {
                continue;
            }
            // SAFETY: [LOCKED] of the tree: a task that a linked wait or scope names is there.
            let task = unsafe { &*(header as *const Header) };
            if let Some((owner, nursery)) = queues.get(&task.queue().addr()) {
                graph.nodes[*owner].nurseries[*nursery].nodes.push(at);
            }
            let node = &mut graph.nodes[at];
            // How many children that are done hold on to the body's count is not known.
            node.foreign = !task.is_body() && task.wakers() > wakers.get(&header).copied().unwrap_or_default();
        }
        let children = graph.nodes.iter().filter(|node| node.task.role == Role::Child).count();
        graph.elsewhere = live.saturating_sub(children);
        for node in &mut graph.nodes {
            for nursery in &mut node.nurseries {
                nursery.nodes.sort_unstable();
            }
        }
        graph
    }

    fn node(&mut self, header: *const Header, outside: &'static Location<'static>) -> usize {
        *self.by_header.entry(header.addr()).or_insert_with(|| {
            // SAFETY: [LOCKED] of the tree: a task that a linked wait or scope names is there.
            let header = unsafe { header.as_ref() };
            let task = header.map_or(TaskRef { id: 0, role: Role::Outside, place: outside }, TaskRef::of);
            self.nodes.push(Node {
                task,
                name: header.and_then(Header::name),
                waits: Vec::new(),
                nurseries: Vec::new(),
                scheduled: header.is_some_and(Header::is_scheduled),
                spawned: header.and_then(Header::spawned),
                // One that is no task may be anything.
                foreign: header.is_none(),
            });
            self.nodes.len() - 1
        })
    }

    /// Whether somebody waits for what others hold, and may be found to do so for ever.
    pub fn contended(&self) -> bool {
        self.nodes
            .iter()
            .flat_map(|node| &node.waits)
            .any(|wait| matches!(wait.on, Target::Thing { capacity: Some(_), .. }))
    }

    /// Those of whom it is certain that they wait for ever, whatever all others do, unless a nursery around them is cancelled. What can be
    /// refuted is taken out, until nothing is left that can be: each waits for others that are left.
    pub fn stuck(&self) -> Vec<bool> {
        let mut stuck: Vec<bool> = self
            .nodes
            .iter()
            .map(|node| !node.scheduled && !node.foreign && node.waits.iter().all(|wait| wait.for_ever))
            .collect();
        loop {
            let mut changed = false;
            for (at, node) in self.nodes.iter().enumerate() {
                if stuck[at] && !self.is_stuck(node, &stuck) {
                    stuck[at] = false;
                    changed = true;
                }
            }
            if !changed {
                return stuck;
            }
        }
    }

    fn is_stuck(&self, node: &Node, stuck: &[bool]) -> bool {
        let is = |at: Option<&usize>| at.is_some_and(|at| stuck[*at]);
        // A task that waits for two things at once goes on with either.
        (node.waits.len() + node.nurseries.len() > 0)
            && node.nurseries.iter().all(|nursery| nursery.nodes.iter().any(|at| stuck[*at]))
            && node.waits.iter().all(|wait| match &wait.on {
                Target::Unknown => false,
                Target::Child(header) => is(self.by_header.get(header)),
                Target::Thing { capacity: None, .. } => false,
                Target::Thing { capacity: Some(capacity), holders, wanted, .. } => {
                    let gone: usize = holders
                        .iter()
                        // One that has spawned since may have passed it on.
                        .filter(|holder| self.holds(holder).is_some_and(|at| stuck[at]))
                        .map(Holder::units)
                        .fold(0, usize::saturating_add);
                    capacity.saturating_sub(gone) < *wanted
                }
            })
    }

    /// The node that got it, if that is there.
    fn holder(&self, holder: &Holder) -> Option<usize> {
        self.by_header.get(&holder.task().id).copied().filter(|_| holder.is_alive())
    }

    /// The node that still has what it got, for certain.
    fn holds(&self, holder: &Holder) -> Option<usize> {
        let at = self.holder(holder)?;
        (holder.spawned().is_some() && self.nodes[at].spawned == holder.spawned()).then_some(at)
    }

    fn edges<'a>(&'a self, node: &'a Node, among: impl Fn(usize) -> bool + 'a) -> impl Iterator<Item = usize> + 'a {
        let waits = node.waits.iter().flat_map(|wait| -> Vec<usize> {
            match &wait.on {
                Target::Unknown => Vec::new(),
                Target::Child(header) => self.by_header.get(header).copied().into_iter().collect(),
                Target::Thing { holders, .. } => holders.iter().filter_map(|holder| self.holder(holder)).collect(),
            }
        });
        let nurseries = node.nurseries.iter().flat_map(|nursery| nursery.nodes.iter().copied());
        waits.chain(nurseries).filter(move |at| among(*at))
    }

    /// Cycles among some nodes: those that a walk through all of them closes.
    pub fn cycles(&self, among: impl Fn(usize) -> bool) -> Vec<Vec<usize>> {
        const FRESH: usize = usize::MAX;
        const OVER: usize = usize::MAX - 1;
        // For a node on the path, where.
        let mut state = vec![FRESH; self.nodes.len()];
        let mut found = Vec::new();
        for start in (0..self.nodes.len()).filter(|at| among(*at)) {
            if state[start] != FRESH {
                continue;
            }
            let mut path = vec![(start, self.edges(&self.nodes[start], &among).collect::<Vec<_>>().into_iter())];
            state[start] = 0;
            while let Some((at, edges)) = path.last_mut() {
                match edges.next() {
                    None => {
                        state[*at] = OVER;
                        path.pop();
                    }
                    Some(next) if state[next] == FRESH => {
                        state[next] = path.len();
                        path.push((next, self.edges(&self.nodes[next], &among).collect::<Vec<_>>().into_iter()));
                    }
                    Some(next) if state[next] != OVER => {
                        let cycle: Vec<usize> = path[state[next]..].iter().map(|(at, _)| *at).collect();
                        if !found.contains(&cycle) {
                            found.push(cycle);
                        }
                        if found.len() == CYCLES {
                            return found;
                        }
                    }
                    Some(_) => {}
                }
            }
        }
        found
    }

    /// The numbers of the tasks of a cycle.
    pub fn ids(&self, cycle: &[usize]) -> Vec<usize> {
        let mut ids: Vec<usize> = cycle.iter().map(|at| self.nodes[*at].task.id).collect();
        ids.sort_unstable();
        ids
    }

    /// What a report says of the nodes; of those only that are in `shown`.
    pub fn tasks(self, shown: impl Fn(usize) -> bool) -> (Vec<BlockedTask>, HashMap<usize, usize>) {
        let (mut tasks, mut places) = (Vec::new(), HashMap::new());
        for (at, node) in self.nodes.into_iter().enumerate().filter(|(at, _)| shown(*at)) {
            places.insert(at, tasks.len());
            let mut waits: Vec<BlockedWait> = node
                .waits
                .into_iter()
                .map(|wait| {
                    let (held, holders) = match wait.on {
                        Target::Thing { held, holders, .. } => (Some(held), holders),
                        Target::Unknown | Target::Child(_) => (None, Vec::new()),
                    };
                    BlockedWait::new(wait.reason, wait.place, Some(wait.since), held, holders)
                })
                .collect();
            waits.extend(
                node.nurseries
                    .into_iter()
                    .filter(|nursery| nursery.queue != 0)
                    .map(|nursery| BlockedWait::new(Reason::Children, nursery.place, None, None, Vec::new())),
            );
            tasks.push(BlockedTask::new(node.task, node.name, waits));
        }
        (tasks, places)
    }
}
