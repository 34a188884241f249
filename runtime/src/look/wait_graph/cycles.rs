//! Tasks that wait for each other in a circle, and what is to be said of one.

use super::{Graph, Target, Wait};
use crate::look::deadlock::Advice;
use crate::look::holders::Role;
use std::collections::HashSet;
use std::panic::Location;
use std::time::Duration;

/// How many cycles a report shows.
const CYCLES: usize = 8;

impl Graph {
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

    /// Of each task of a cycle that waits for several things at once, as in a `select!` of another crate: where it waits for the next one.
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
}
