//! Whom who waits for.

use super::{Graph, Held, Target, Wait};
use crate::look::holders::Holder;

impl Graph {
    /// The node that got it, if that is there.
    pub(super) fn holder(&self, holder: &Holder) -> Option<usize> {
        self.by_header.get(&holder.task().id).copied().filter(|_| holder.is_alive())
    }

    /// For each thing and place in its line, how many units those want at most that are not behind it.
    pub(super) fn most_wanted(&self, among: impl Fn(usize) -> bool) -> Vec<Vec<usize>> {
        let most = |thing: &Held| {
            let wanted = thing.line.iter().map(|&(at, wanted)| if among(at) { wanted } else { 0 });
            wanted.scan(0, |most, wanted| Some(std::mem::replace(most, wanted.max(*most)).max(wanted))).collect()
        };
        self.things.iter().map(most).collect()
    }

    /// The first one in front of it in the line that wants more. Where those in front want as much or less, it waits for what it waits for as well
    /// as they do, and they are not what it waits for.
    pub(super) fn in_front(&self, on: &Target, most: &[Vec<usize>]) -> Option<usize> {
        let Target::Thing(thing, wanted, Some(place)) = *on else { return None };
        let at = most[thing].partition_point(|most| *most <= wanted);
        (at < place).then(|| self.things[thing].line[at].0)
    }

    /// Whether what it wants is there, and only its place in the line keeps it waiting.
    pub(super) fn is_enough(&self, on: &Target) -> bool {
        let Target::Thing(thing, wanted, Some(1..)) = *on else { return false };
        let Held { capacity, out, .. } = &self.things[thing];
        capacity.is_some_and(|capacity| capacity.saturating_sub(*out) >= wanted)
    }

    /// Those of one of its waits.
    pub(super) fn edges_of(&self, at: usize, wait: &Wait, most: &[Vec<usize>], edges: &mut Vec<usize>) {
        match &wait.on {
            _ if wait.come => {}
            Target::Unknown => {}
            Target::Child(header) => edges.extend(self.by_header.get(header)),
            Target::Thing(thing, ..) => {
                let hands_on = wait.reason.hands_on();
                if !self.is_enough(&wait.on) {
                    edges.extend(self.things[*thing].in_hand().filter(|next| !hands_on || *next != at));
                    edges.extend(self.things[*thing].handed.iter().map(|(at, _)| *at));
                }
                edges.extend(self.in_front(&wait.on, most));
            }
        }
    }

    pub(super) fn edges(
        &self,
        at: usize,
        among: &impl Fn(usize) -> bool,
        most: &[Vec<usize>],
    ) -> std::vec::IntoIter<usize> {
        let node = &self.nodes[at];
        let mut edges = Vec::new();
        node.waits.iter().for_each(|wait| self.edges_of(at, wait, most, &mut edges));
        edges.extend(node.nurseries.iter().flat_map(|nursery| &nursery.nodes));
        edges.retain(|at| among(*at));
        edges.into_iter()
    }
}
