//! Who waits for whom, as it is at one moment, read under the lock of the tree; and what follows from it.
//!
//! A node is a task, or the body of a nursery. It waits for another one that holds what it wants, for a child that it joins, or for the body
//! and the children of a nursery that it has opened. Two questions are asked:
//!
//! - *Whom does who wait for?* For the report of a run in which nothing moves. Every edge counts.
//! - *Who waits for ever?* For tasks that wait for each other while others go on ([`Graph::stuck`]). Here each edge has to be certain.

use crate::cause::Kind;
use crate::clock::NEVER;
use crate::deadlock::{BlockedTask, BlockedWait, Names};
use crate::holders::{self, Holder, Holding, Role, TaskRef, Thing};
use crate::park::On;
use crate::ready::Header;
use crate::reason::Reason;
use crate::scope::{SHIELD, Scope};
use crate::sync::Ordering;
use crate::tree::Locked;
use std::collections::HashMap;
use std::panic::Location;
use std::sync::Arc;
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
    /// Something that others hold, by its place among the things, and how many units of it.
    Thing(usize, usize),
}

/// What tasks wait for and others hold. One for all who wait for it: there may be many of these and of those.
struct Held {
    held: Holding,
    holders: Arc<[Holder]>,
    /// How many units there are, if that is known for good.
    capacity: Option<usize>,
    /// The nodes of the holders, as far as they are there.
    known: Vec<usize>,
    /// Those of them that still have what they got, for certain, and how many units.
    certain: Vec<(usize, usize)>,
}

struct Node {
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
    nodes: Vec<usize>,
}

impl Held {
    /// How many units those have that are stuck.
    fn gone(&self, stuck: &[bool]) -> usize {
        let stuck = self.certain.iter().filter(|(at, _)| stuck[*at]);
        stuck.fold(0, |gone, (_, units)| gone.saturating_add(*units))
    }
}

/// See the module.
pub(crate) struct Graph {
    nodes: Vec<Node>,
    things: Vec<Held>,
    by_header: HashMap<usize, usize>,
    /// Children, and bodies, of which nothing of ours waits: they run, or wait for something foreign.
    pub elsewhere: usize,
}

impl Graph {
    /// Everything below the root.
    pub fn of(locked: &Locked<'_>, root: &Scope, now: u64) -> Self {
        let mut graph = Self { nodes: Vec::new(), things: Vec::new(), by_header: HashMap::new(), elsewhere: 0 };
        let mut things: HashMap<(usize, u32), Option<usize>> = HashMap::new();
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
                *wakers.entry(wait.task.addr()).or_default() += usize::from(wait.has_waker);
                let on = match on {
                    On::Child(0) => Target::Unknown,
                    On::Child(header) => Target::Child(header),
                    On::Thing(thing, wanted) => {
                        match *things.entry(thing.key()).or_insert_with(|| graph.thing(thing)) {
                            Some(thing) => Target::Thing(thing, wanted as usize),
                            // It was forgotten, and what it waited for is gone.
                            None => Target::Unknown,
                        }
                    }
                };
                let (reason, place) = (wait.reason, wait.place);
                let since = Duration::from_nanos(now.saturating_sub(wait.since));
                let for_ever = for_ever && wait.for_ever;
                graph.nodes[at].waits.push(Wait { reason, place, since, for_ever, on });
            }
            if here.kind != Kind::Run {
                *wakers.entry(here.task().addr()).or_default() += usize::from(locked.has_waker(here));
            }
            let queue = here.ready.load(Ordering::Relaxed).addr();
            if queue != 0 && here.kind == Kind::Nursery {
                let at = graph.node(here.task(), here.place);
                // Its queue has one, to be told when something arrives from elsewhere. The loop, which asks, is the owner of what is linked here.
                let has_waker = locked.queue(here).is_some_and(|queue| queue.is_polled_by(here.task()));
                *wakers.entry(here.task().addr()).or_default() += usize::from(has_waker);
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
        for thing in 0..graph.things.len() {
            let holders = graph.things[thing].holders.clone();
            for holder in &*holders {
                let Some(at) = graph.holder(holder) else { continue };
                graph.things[thing].known.push(at);
                // One that has spawned since may have passed it on.
                if holder.spawned().is_some() && graph.nodes[at].spawned == holder.spawned() {
                    graph.things[thing].certain.push((at, holder.units()));
                }
            }
        }
        graph
    }

    fn thing(&mut self, thing: Thing) -> Option<usize> {
        let holders::Held { held, holders, capacity } = thing.look()?;
        let holders = holders.into();
        self.things.push(Held { held, holders, capacity, known: Vec::new(), certain: Vec::new() });
        Some(self.things.len() - 1)
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
            .any(|wait| matches!(wait.on, Target::Thing(thing, _) if self.things[thing].capacity.is_some()))
    }

    /// Those of whom it is certain that they wait for ever, whatever all others do, unless a nursery around them is cancelled. What can be
    /// refuted is taken out, until nothing is left that can be: each waits for others that are left.
    pub fn stuck(&self) -> Vec<bool> {
        let mut stuck: Vec<bool> = self
            .nodes
            .iter()
            .map(|node| !node.scheduled && !node.foreign && node.waits.iter().all(|wait| wait.for_ever))
            .collect();
        // How many units of each thing those have that are stuck; who waits for it; what each node holds; who else waits for a node.
        let mut gone: Vec<usize> = self.things.iter().map(|thing| thing.gone(&stuck)).collect();
        let mut wanting: Vec<Vec<usize>> = vec![Vec::new(); self.things.len()];
        let mut holding: Vec<Vec<(usize, usize)>> = vec![Vec::new(); self.nodes.len()];
        let mut waiting: Vec<Vec<usize>> = vec![Vec::new(); self.nodes.len()];
        for (at, thing) in self.things.iter().enumerate() {
            thing.certain.iter().for_each(|&(holder, units)| holding[holder].push((at, units)));
        }
        for (at, node) in self.nodes.iter().enumerate() {
            for wait in &node.waits {
                match wait.on {
                    Target::Unknown => {}
                    Target::Child(header) => {
                        if let Some(&child) = self.by_header.get(&header) {
                            waiting[child].push(at);
                        }
                    }
                    Target::Thing(thing, _) => wanting[thing].push(at),
                }
            }
            let inside = node.nurseries.iter().flat_map(|nursery| &nursery.nodes);
            inside.for_each(|&inside| waiting[inside].push(at));
        }
        // Each is looked at again when one that it waits for is taken out, and not in rounds: a chain may be as long as there are tasks.
        let mut look: Vec<usize> = (0..self.nodes.len()).collect();
        let mut left: Vec<usize> = Vec::new();
        loop {
            while let Some(at) = look.pop() {
                if stuck[at] && !self.is_stuck(&self.nodes[at], &stuck, &gone) {
                    stuck[at] = false;
                    left.push(at);
                }
            }
            let Some(at) = left.pop() else { return stuck };
            look.extend(&waiting[at]);
            for &(thing, units) in &holding[at] {
                gone[thing] = gone[thing].saturating_sub(units);
                wanting[thing].retain(|waits| stuck[*waits]);
                look.extend(&wanting[thing]);
            }
        }
    }

    fn is_stuck(&self, node: &Node, stuck: &[bool], gone: &[usize]) -> bool {
        let is = |at: Option<&usize>| at.is_some_and(|at| stuck[*at]);
        // A task that waits for two things at once goes on with either.
        (node.waits.len() + node.nurseries.len() > 0)
            && node.nurseries.iter().all(|nursery| nursery.nodes.iter().any(|at| stuck[*at]))
            && node.waits.iter().all(|wait| match wait.on {
                Target::Unknown => false,
                Target::Child(header) => is(self.by_header.get(&header)),
                Target::Thing(thing, wanted) => {
                    self.things[thing].capacity.is_some_and(|capacity| capacity.saturating_sub(gone[thing]) < wanted)
                }
            })
    }

    /// The node that got it, if that is there.
    fn holder(&self, holder: &Holder) -> Option<usize> {
        self.by_header.get(&holder.task().id).copied().filter(|_| holder.is_alive())
    }

    fn edges<'a>(&'a self, node: &'a Node, among: impl Fn(usize) -> bool + 'a) -> impl Iterator<Item = usize> + 'a {
        let waits = node.waits.iter().flat_map(|wait| -> Vec<usize> {
            match &wait.on {
                Target::Unknown => Vec::new(),
                Target::Child(header) => self.by_header.get(header).copied().into_iter().collect(),
                Target::Thing(thing, _) => self.things[*thing].known.clone(),
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
        let name = |holder| self.nodes[self.holder(holder)?].name.clone();
        let names: Vec<Names> = self.things.iter().map(|thing| thing.holders.iter().map(name).collect()).collect();
        let things = self.things;
        for (at, node) in self.nodes.into_iter().enumerate().filter(|(at, _)| shown(*at)) {
            places.insert(at, tasks.len());
            let mut waits: Vec<BlockedWait> = node
                .waits
                .into_iter()
                .map(|wait| {
                    let (held, holders, names) = match wait.on {
                        Target::Thing(thing, _) => {
                            (Some(things[thing].held), things[thing].holders.clone(), names[thing].clone())
                        }
                        Target::Unknown | Target::Child(_) => (None, Arc::default(), Arc::default()),
                    };
                    BlockedWait::new(wait.reason, wait.place, Some(wait.since), held, holders, names)
                })
                .collect();
            waits.extend(node.nurseries.into_iter().filter(|nursery| nursery.queue != 0).map(|nursery| {
                BlockedWait::new(Reason::Children, nursery.place, None, None, Arc::default(), Arc::default())
            }));
            tasks.push(BlockedTask::new(node.task, node.name, waits));
        }
        (tasks, places)
    }
}
