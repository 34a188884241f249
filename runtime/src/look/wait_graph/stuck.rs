//! Who waits for ever, as far as nothing that is known refutes it.

use super::{Graph, Held, Node, Target};
use crate::look::holders::Role;

impl Graph {
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
}
