//! How the graph is read from the tree.

use super::{Graph, Held, Node, Nursery, Target, Wait};
use crate::look::deadlock::Within;
use crate::look::holders::{self, Role, TaskRef, Thing};
use crate::park::On;
use crate::ready::Header;
use crate::scope::cause::Kind;
use crate::scope::{SHIELD, Scope};
use crate::sync::Ordering;
use crate::time::clock::NEVER;
use crate::tree::Locked;
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::panic::Location;
use std::time::Duration;

impl Graph {
    /// Everything below the root.
    pub fn of(locked: &Locked<'_>, root: &Scope, now: u64) -> Self {
        let mut graph =
            Self { nodes: Vec::new(), things: Vec::new(), by_header: HashMap::new(), elsewhere: 0, steps: 0 };
        let mut things: HashMap<NonZeroU64, Option<(usize, u32)>> = HashMap::new();
        let mut lasting: HashMap<*const Scope, bool> = HashMap::new();
        let mut wakers: HashMap<usize, usize> = HashMap::new();
        let (mut scope, mut queues) = (std::ptr::from_ref(root), HashMap::new());
        // Who stands in which line: thing, age of the ticket, node, and which of its waits.
        let mut lines: Vec<(usize, u32, usize, usize)> = Vec::new();
        let mut live = 0;
        while !scope.is_null() {
            // SAFETY: [LOCKED] of the tree.
            let here = unsafe { &*scope };
            graph.steps += 1;
            let outside =
                here.has(SHIELD) || lasting.get(&here.parent.load(Ordering::Relaxed).cast_const()) != Some(&false);
            let for_ever = outside && here.kind != Kind::Scope && here.deadline() == NEVER && !here.is_cancelled();
            lasting.insert(scope, for_ever);
            for (wait, on) in locked.waits_on(here) {
                let at = graph.node(wait.task, here.place);
                *wakers.entry(wait.task.addr()).or_default() += wait.wakers;
                let on = match on {
                    On::Child(0) => Target::Unknown,
                    On::Child(header) => Target::Child(header),
                    On::Thing(thing, wanted) => {
                        match *things.entry(thing.key()).or_insert_with(|| graph.thing(thing)) {
                            Some((known, joined)) => {
                                if let Some(ticket) = thing.ticket().filter(|_| !wait.come) {
                                    lines.push((known, joined.wrapping_sub(ticket), at, graph.nodes[at].waits.len()));
                                }
                                Target::Thing(known, wanted, None)
                            }
                            // It was forgotten, and what it waited for is gone.
                            None => Target::Unknown,
                        }
                    }
                };
                let (reason, place, made) = (wait.reason, wait.place, wait.made);
                let since = Duration::from_nanos(now.saturating_sub(wait.since));
                let (for_ever, come) = (for_ever && wait.for_ever, wait.come);
                graph.steps += 1;
                graph.nodes[at].waits.push(Wait { reason, place, made, since, for_ever, come, on });
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
                let (since, done) = locked.queue(here).map(|queue| queue.body_age(now)).unwrap_or_default();
                let children = locked.live_children(here);
                let open = children + usize::from(!done);
                let within = match (done, children) {
                    (true, _) => Within::Children,
                    (false, 0) => Within::Body,
                    (false, _) => Within::Both,
                };
                let (place, nodes) = (here.place, Vec::new());
                graph.nodes[at].nurseries.push(Nursery { queue, place, since, open, within, nodes });
                live += children;
            }
            scope = locked.after(scope, root, true);
        }
        // The oldest ticket first. None is newer than how many have joined: it was drawn before its wait was linked.
        lines.sort_unstable_by_key(|&(thing, age, ..)| (thing, u32::MAX - age));
        for (thing, _, at, wait) in lines {
            let Target::Thing(_, wanted, place) = &mut graph.nodes[at].waits[wait].on else { continue };
            *place = Some(graph.things[thing].line.len());
            graph.things[thing].line.push((at, *wanted));
        }
        for at in 0..graph.nodes.len() {
            // SAFETY: [LOCKED] of the tree: a task that a linked wait or scope names is there.
            let Some(task) = (unsafe { graph.nodes[at].header.as_ref() }) else { continue };
            if let Some((owner, nursery)) = queues.get(&task.queue().addr()) {
                graph.nodes[*owner].nurseries[*nursery].nodes.push(at);
            }
            let node = &mut graph.nodes[at];
            // How many children that are done hold on to the body's count is not known.
            node.foreign =
                !task.is_body() && task.wakers() > wakers.get(&node.header.addr()).copied().unwrap_or_default();
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
            graph.steps += holders.len();
            for holder in &*holders {
                let Some(at) = graph.holder(holder) else { continue };
                graph.things[thing].known.push(at);
                // One that has spawned since may have passed it on.
                if holder.spawned().is_some() && graph.nodes[at].spawned == holder.spawned() {
                    graph.things[thing].certain.push((at, holder.units()));
                }
            }
        }
        graph.count_handed();
        graph
    }

    /// What was handed to a future that is not polled is held by the task that ought to poll it.
    fn count_handed(&mut self) {
        for (at, node) in self.nodes.iter().enumerate() {
            for wait in node.waits.iter().filter(|wait| wait.come) {
                let Target::Thing(thing, units, _) = wait.on else { continue };
                let thing = &mut self.things[thing];
                if thing.is_end() {
                    continue;
                }
                thing.handed.push((at, wait.place));
                thing.out = thing.out.saturating_add(units);
                // Of the body of a nursery it is not known whether a waker of it is on its way. One that has spawned since it began to wait may
                // have passed the future on to the child, which polls it when it likes.
                if node.task.role == Role::Child && node.spawned == Some(0) {
                    thing.certain.push((at, units));
                }
            }
        }
    }

    /// Its place among the things, and how many have joined its line.
    fn thing(&mut self, thing: Thing) -> Option<(usize, u32)> {
        let holders::Held { held, holders, capacity, joined } = thing.look()?;
        let out = holders.iter().fold(0, |out: usize, holder| out.saturating_add(holder.units()));
        let (holders, known, certain) = (holders.into(), Vec::new(), Vec::new());
        let (handed, line) = (Vec::new(), Vec::new());
        self.things.push(Held { held, holders, capacity, out, known, certain, handed, line });
        Some((self.things.len() - 1, joined))
    }

    fn node(&mut self, header: *const Header, outside: &'static Location<'static>) -> usize {
        *self.by_header.entry(header.addr()).or_insert_with(|| {
            let at = header;
            // SAFETY: [LOCKED] of the tree: a task that a linked wait or scope names is there.
            let header = unsafe { header.as_ref() };
            let task = header.map_or(TaskRef { id: 0, role: Role::Outside, place: outside }, TaskRef::of);
            self.nodes.push(Node {
                header: at,
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
}
