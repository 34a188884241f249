//! What a report says of the graph.

use super::{Graph, Target};
use crate::look::deadlock::{BlockedTask, BlockedWait, Child, Front, Handed, Names, TooMany};
use crate::reason::Reason;
use std::collections::HashMap;
use std::sync::Arc;

impl Graph {
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
                        .of_made(wait.made)
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
