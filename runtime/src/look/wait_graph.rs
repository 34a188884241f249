//! Who waits for whom, as it is at one moment, read under the lock of the tree; and what follows from it.
//!
//! A node is a task, or the body of a nursery. It waits for another one that holds what it wants, or that stands in front of it in a line and wants
//! more; for a child that it joins; or for the body and the children of a nursery that it has opened. Two questions are asked:
//!
//! - *Whom does who wait for?* For the report of a run in which nothing moves. Every edge counts, but for some to who made an end of a channel:
//!   ends are made to be handed on. So there is none to a task that has spawned another one since, and from who waits for a oneshot none to itself.
//! - *Who waits for ever?* For tasks that wait for each other while others go on ([`Graph::stuck`]). Here an edge counts that nothing which is
//!   known refutes.

use crate::holders::{self, Holder, Holding, Role, TaskRef, Thing};
use crate::look::deadlock::{Advice, BlockedTask, BlockedWait, Child, Front, Handed, Names, TooMany, Within};
use crate::park::On;
use crate::ready::Header;
use crate::reason::Reason;
use crate::scope::cause::Kind;
use crate::scope::{SHIELD, Scope};
use crate::sync::Ordering;
use crate::time::clock::NEVER;
use crate::tree::Locked;
use std::collections::{HashMap, HashSet};
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
        matches!(self.held, Holding::Senders | Holding::Receivers)
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
    /// Everything below the root.
    pub fn of(locked: &Locked<'_>, root: &Scope, now: u64) -> Self {
        let mut graph =
            Self { nodes: Vec::new(), things: Vec::new(), by_header: HashMap::new(), elsewhere: 0, steps: 0 };
        let mut things: HashMap<(usize, u32), Option<(usize, u32)>> = HashMap::new();
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
                let (reason, place) = (wait.reason, wait.place);
                let since = Duration::from_nanos(now.saturating_sub(wait.since));
                let (for_ever, come) = (for_ever && wait.for_ever, wait.come);
                graph.steps += 1;
                graph.nodes[at].waits.push(Wait { reason, place, since, for_ever, come, on });
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
                if !matches!(thing.held, Holding::Lock | Holding::Permits) {
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
            .any(|wait| matches!(wait.on, Target::Thing(thing, ..) if self.things[thing].capacity.is_some()))
    }

    /// Those that wait for ever, unless what cannot be seen ends that: a nursery around them is cancelled, one of them has given away what it got,
    /// or units are added for the first time. What can be refuted is taken out, until nothing is left that can be: each waits for others that
    /// are left.
    pub fn stuck(&self) -> Vec<bool> {
        let mut stuck: Vec<bool> = self
            .nodes
            .iter()
            .map(|node| !node.scheduled && !node.foreign && node.waits.iter().all(|wait| wait.for_ever))
            .collect();
        // How many units of each thing those have that are stuck; the first in its line that is; who waits for it; what each node holds; in
        // which lines it stands; who else waits for a node.
        let (owner, mut keeps) = self.keeps(&stuck);
        let mut gone: Vec<usize> = self.things.iter().map(|thing| thing.gone(&keeps)).collect();
        let first = |thing: &Held, from: usize, stuck: &[bool]| {
            thing.line[from..].iter().position(|(at, _)| stuck[*at]).map_or(thing.line.len(), |more| from + more)
        };
        let mut heads: Vec<usize> = self.things.iter().map(|thing| first(thing, 0, &stuck)).collect();
        let mut standing: Vec<Vec<(usize, usize)>> = vec![Vec::new(); self.nodes.len()];
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
                    Target::Thing(thing, _, place) => {
                        wanting[thing].push(at);
                        standing[at].extend(place.map(|place| (thing, place)));
                    }
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
                if stuck[at] && !self.is_stuck(&self.nodes[at], &stuck, &gone, &heads) {
                    stuck[at] = false;
                    left.push(at);
                }
            }
            let Some(at) = left.pop() else { return stuck };
            look.extend(&waiting[at]);
            for &(thing, place) in &standing[at] {
                // Of those behind it only the one that is the first now has nobody in front any more.
                if heads[thing] == place {
                    heads[thing] = first(&self.things[thing], place, &stuck);
                    look.extend(self.things[thing].line.get(heads[thing]).map(|(at, _)| *at));
                }
            }
            // It goes on, and so may what those have around whom it is.
            let mut free = Some(at);
            while let Some(at) = free.filter(|at| std::mem::take(&mut keeps[*at])) {
                for &(thing, units) in &holding[at] {
                    gone[thing] = gone[thing].saturating_sub(units);
                    wanting[thing].retain(|waits| stuck[*waits]);
                    look.extend(&wanting[thing]);
                }
                free = owner[at];
            }
        }
    }

    /// In whose nursery each is; and who keeps what it has, as far as nothing else is known: who is stuck, with all that is in its nurseries. The
    /// body of a nursery, and its children, may have been given what the task around them had got before.
    fn keeps(&self, stuck: &[bool]) -> (Vec<Option<usize>>, Vec<bool>) {
        let mut owner = vec![None; self.nodes.len()];
        let mut keeps = stuck.to_vec();
        for (at, node) in self.nodes.iter().enumerate() {
            for nursery in &node.nurseries {
                nursery.nodes.iter().for_each(|inside| owner[*inside] = Some(at));
                keeps[at] &= nursery.nodes.len() >= nursery.open;
            }
        }
        for at in (0..keeps.len()).filter(|at| !keeps[*at]).collect::<Vec<_>>() {
            let mut around = owner[at];
            while let Some(at) = around.filter(|at| std::mem::take(&mut keeps[*at])) {
                around = owner[at];
            }
        }
        (owner, keeps)
    }

    fn is_stuck(&self, node: &Node, stuck: &[bool], gone: &[usize], heads: &[usize]) -> bool {
        let is = |at: Option<&usize>| at.is_some_and(|at| stuck[*at]);
        // A task that waits for two things at once goes on with either.
        (node.waits.iter().any(|wait| !wait.come) || !node.nurseries.is_empty())
            && node.nurseries.iter().all(|nursery| nursery.nodes.iter().any(|at| stuck[*at]))
            && node.waits.iter().all(|wait| match wait.on {
                // It was woken for that, and polled since: it does not look.
                _ if wait.come && node.task.role == Role::Child => true,
                _ if wait.come => false,
                Target::Unknown => false,
                Target::Child(header) => is(self.by_header.get(&header)),
                Target::Thing(thing, wanted, place) => {
                    self.things[thing].capacity.is_some_and(|capacity| capacity.saturating_sub(gone[thing]) < wanted)
                        || place.is_some_and(|place| heads[thing] < place)
                }
            })
    }

    /// The node that got it, if that is there.
    fn holder(&self, holder: &Holder) -> Option<usize> {
        self.by_header.get(&holder.task().id).copied().filter(|_| holder.is_alive())
    }

    /// For each thing and place in its line, how many units those want at most that are not behind it.
    fn most_wanted(&self, among: impl Fn(usize) -> bool) -> Vec<Vec<usize>> {
        let most = |thing: &Held| {
            let wanted = thing.line.iter().map(|&(at, wanted)| if among(at) { wanted } else { 0 });
            wanted.scan(0, |most, wanted| Some(std::mem::replace(most, wanted.max(*most)).max(wanted))).collect()
        };
        self.things.iter().map(most).collect()
    }

    /// The first one in front of it in the line that wants more. Where those in front want as much or less, it waits for what it waits for as well
    /// as they do, and they are not what it waits for.
    fn in_front(&self, on: &Target, most: &[Vec<usize>]) -> Option<usize> {
        let Target::Thing(thing, wanted, Some(place)) = *on else { return None };
        let at = most[thing].partition_point(|most| *most <= wanted);
        (at < place).then(|| self.things[thing].line[at].0)
    }

    /// Whether what it wants is there, and only its place in the line keeps it waiting.
    fn is_enough(&self, on: &Target) -> bool {
        let Target::Thing(thing, wanted, Some(1..)) = *on else { return false };
        let Held { capacity, out, .. } = &self.things[thing];
        capacity.is_some_and(|capacity| capacity.saturating_sub(*out) >= wanted)
    }

    /// Those of one of its waits.
    fn edges_of(&self, at: usize, wait: &Wait, most: &[Vec<usize>], edges: &mut Vec<usize>) {
        match &wait.on {
            _ if wait.come => {}
            Target::Unknown => {}
            Target::Child(header) => edges.extend(self.by_header.get(header)),
            Target::Thing(thing, ..) => {
                let hands_on = wait.reason == Reason::Oneshot;
                if !self.is_enough(&wait.on) {
                    edges.extend(self.things[*thing].in_hand().filter(|next| !hands_on || *next != at));
                    edges.extend(self.things[*thing].handed.iter().map(|(at, _)| *at));
                }
                edges.extend(self.in_front(&wait.on, most));
            }
        }
    }

    /// Of each task of a cycle that waits for several things at once, as the branches of a `join` do: where it waits for the next one.
    pub fn branches(&self, cycle: &[usize]) -> Vec<Vec<&'static Location<'static>>> {
        let most = self.most_wanted(|at| cycle.contains(&at));
        let next = cycle.iter().skip(1).chain(cycle.first());
        let leads = |from: usize, wait: &Wait, to: usize| {
            let mut edges = Vec::new();
            self.edges_of(from, wait, &most, &mut edges);
            edges.contains(&to)
        };
        let of = |from: usize, to: usize| {
            let waits = self.nodes[from].waits.iter().filter(|_| self.nodes[from].waits.len() > 1);
            let mut places: Vec<_> = waits.filter(|wait| leads(from, wait, to)).map(|wait| wait.place).collect();
            places.sort_by_key(|place| (place.file(), place.line(), place.column()));
            places.dedup();
            places
        };
        cycle.iter().zip(next).map(|(from, to)| of(*from, *to)).collect()
    }

    fn edges(&self, at: usize, among: &impl Fn(usize) -> bool, most: &[Vec<usize>]) -> std::vec::IntoIter<usize> {
        let node = &self.nodes[at];
        let mut edges = Vec::new();
        node.waits.iter().for_each(|wait| self.edges_of(at, wait, most, &mut edges));
        edges.extend(node.nurseries.iter().flat_map(|nursery| &nursery.nodes));
        edges.retain(|at| among(*at));
        edges.into_iter()
    }

    /// Cycles among some nodes: those that a walk through all of them closes.
    pub fn cycles(&self, among: impl Fn(usize) -> bool) -> Vec<Vec<usize>> {
        const FRESH: usize = usize::MAX;
        const OVER: usize = usize::MAX - 1;
        // For a node on the path, where.
        let mut state = vec![FRESH; self.nodes.len()];
        let most = self.most_wanted(&among);
        let mut found = Vec::new();
        for start in (0..self.nodes.len()).filter(|at| among(*at)) {
            if state[start] != FRESH {
                continue;
            }
            let mut path = vec![(start, self.edges(start, &among, &most))];
            state[start] = 0;
            while let Some((at, edges)) = path.last_mut() {
                match edges.next() {
                    None => {
                        state[*at] = OVER;
                        path.pop();
                    }
                    Some(next) if state[next] == FRESH => {
                        state[next] = path.len();
                        path.push((next, self.edges(next, &among, &most)));
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

    /// Whether a cycle says no more than the lines of its tasks do: it is one task that waits for what it has itself in the body of a nursery, or for
    /// a channel of which it has made the other end; or
    /// tasks that wait for what is in their nurseries, but for one, which waits for an end of a channel that one of them has made. Whoever made it
    /// may have lent it to others.
    pub fn is_plain(&self, cycle: &[usize]) -> bool {
        let is_body = |at: usize| self.nodes[at].task.role == Role::Body;
        let opened = |opener: usize, inside: usize| {
            self.nodes[opener].nurseries.iter().any(|nursery| nursery.nodes.contains(&inside))
        };
        let one = cycle.iter().filter(|at| !is_body(**at)).count() <= 1
            && cycle.iter().filter(|at| is_body(**at)).all(|body| cycle.iter().any(|at| opened(*at, *body)));
        let is_end = |wait: &Wait| match wait.on {
            Target::Thing(thing, ..) => self.things[thing].is_end(),
            Target::Unknown | Target::Child(_) => false,
        };
        let next = cycle.iter().skip(1).chain(cycle.first());
        let mut others = cycle.iter().zip(next).filter(|&(from, to)| !opened(*from, *to)).map(|(from, _)| *from);
        let lent = match (others.next(), others.next()) {
            (Some(only), None) => self.nodes[only].waits.iter().all(is_end),
            _ => false,
        };
        match cycle {
            [own] => self.nodes[*own].waits.iter().all(is_end),
            _ => one || lent,
        }
    }

    /// What who reads of a cycle can do about it.
    pub fn advice(&self, cycle: &[usize]) -> Option<Advice> {
        let most = self.most_wanted(|at| cycle.contains(&at));
        let next = cycle.iter().skip(1).chain(cycle.first());
        let (mut locks, mut tasks, mut wanted) = (0, 0, HashSet::new());
        for (&from, &to) in cycle.iter().zip(next) {
            let (mut by_lock, mut by_task) = (false, false);
            for wait in self.nodes[from].waits.iter().filter(|wait| !wait.come) {
                match wait.on {
                    Target::Thing(thing, ..) if !self.things[thing].is_end() => {
                        // Of a future that was handed a lock the report has another word.
                        if self.things[thing].known.contains(&to) || self.in_front(&wait.on, &most) == Some(to) {
                            by_lock = true;
                            wanted.insert(thing);
                        }
                    }
                    Target::Child(header) => by_task |= self.by_header.get(&header) == Some(&to),
                    Target::Thing(..) | Target::Unknown => {}
                }
            }
            let is_inside = self.nodes[from].nurseries.iter().any(|nursery| nursery.nodes.contains(&to));
            by_task |= is_inside;
            match (by_lock, by_task) {
                (true, _) => locks += 1,
                // The body is a part of its task.
                (false, true) if is_inside && self.nodes[to].task.role == Role::Body => {}
                (false, true) => tasks += 1,
                (false, false) => return None,
            }
        }
        match (locks, tasks) {
            (0, _) => None,
            // Two branches of it may want what the other one has.
            (1, 0) if wanted.len() == 1 => Some(Advice::Twice),
            (_, 0) => Some(Advice::Order),
            _ => Some(Advice::Across),
        }
    }

    /// For how long all of a cycle have waited.
    pub fn stands(&self, cycle: &[usize]) -> Duration {
        cycle.iter().flat_map(|at| &self.nodes[*at].waits).map(|wait| wait.since).min().unwrap_or_default()
    }

    /// The number of a task.
    pub fn id(&self, at: usize) -> usize {
        self.nodes[at].task.id
    }

    /// What a report says of the nodes; of those only that are in `shown`.
    pub fn tasks(self, shown: impl Fn(usize) -> bool) -> (Vec<BlockedTask>, HashMap<usize, usize>) {
        let (mut tasks, mut places) = (Vec::new(), HashMap::new());
        let name = |holder| self.nodes[self.holder(holder)?].name.clone();
        let most = self.most_wanted(&shown);
        let fronts: HashMap<(usize, usize), Front> = (self.nodes.iter().enumerate())
            .filter(|(at, _)| shown(*at))
            .flat_map(|(at, node)| node.waits.iter().enumerate().map(move |(number, wait)| (at, number, wait)))
            .filter_map(|(at, number, wait)| {
                let front = &self.nodes[self.in_front(&wait.on, &most)?];
                let (task, name, alone) = (front.task, front.name.clone(), self.is_enough(&wait.on));
                Some(((at, number), Front { task, name, alone }))
            })
            .collect();
        let called = |at: usize| (self.nodes[at].task, self.nodes[at].name.clone());
        let handed: Vec<Arc<[Handed]>> = (self.things.iter())
            .map(|thing| thing.handed.iter().map(|&(at, place)| (called(at), place)).collect())
            .collect();
        let names: Vec<Names> = self.things.iter().map(|thing| thing.holders.iter().map(name).collect()).collect();
        let children: HashMap<usize, Child> = (self.nodes.iter())
            .flat_map(|node| &node.waits)
            .filter_map(|wait| if let Target::Child(header) = wait.on { Some(header) } else { None })
            .filter_map(|header| Some((header, called(*self.by_header.get(&header)?))))
            .collect();
        let things = self.things;
        for (at, node) in self.nodes.into_iter().enumerate().filter(|(at, _)| shown(*at)) {
            places.insert(at, tasks.len());
            let mut waits: Vec<BlockedWait> = node
                .waits
                .into_iter()
                .enumerate()
                .map(|(number, wait)| {
                    let child = if let Target::Child(header) = wait.on { children.get(&header).cloned() } else { None };
                    let (held, holders, names) = match wait.on {
                        Target::Thing(thing, ..) => {
                            (Some(things[thing].held), things[thing].holders.clone(), names[thing].clone())
                        }
                        Target::Unknown | Target::Child(_) => (None, Arc::default(), Arc::default()),
                    };
                    let front = fronts.get(&(at, number)).cloned();
                    let too_many = match wait.on {
                        Target::Thing(thing, wanted, _) => {
                            let capacity = things[thing].capacity.filter(|capacity| *capacity < wanted);
                            capacity.map(|capacity| TooMany { wanted, capacity })
                        }
                        Target::Unknown | Target::Child(_) => None,
                    };
                    let handed = match wait.on {
                        Target::Thing(thing, ..) => handed[thing].clone(),
                        Target::Unknown | Target::Child(_) => Arc::default(),
                    };
                    BlockedWait::new(wait.reason, wait.place, wait.since, held, holders, names, front)
                        .of_child(child)
                        .with_handed(wait.come, handed)
                        .of_too_few(too_many)
                })
                .collect();
            waits.extend(node.nurseries.into_iter().filter(|nursery| nursery.queue != 0).map(|nursery| {
                BlockedWait::new(
                    Reason::Children,
                    nursery.place,
                    nursery.since,
                    None,
                    Arc::default(),
                    Arc::default(),
                    None,
                )
                .of_nursery(nursery.within)
            }));
            tasks.push(BlockedTask::new(node.task, node.name, waits));
        }
        (tasks, places)
    }
}
