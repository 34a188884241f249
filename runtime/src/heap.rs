//! The deadlines of a run: a 4-ary heap whose entries can be found by a key, so that removing one is cheap.
//!
//! Exact order: by deadline, then scopes before sleepers, then by creation (R46, N2). Moving a deadline *later*
//! is left to the owner: it stores the new deadline beside the entry, and the heap puts the entry right when it surfaces.
//!
//! An entry that is removed stays as a dead one, until it surfaces or more than half of them are dead: then all those are swept out at once. So who
//! cancels 100,000 sleepers, one after the other, does not put the heap right 100,000 times (670 instructions for each, two thirds of a cancel).
//!
//! Where an entry is stands in a table of the heap's own, four bytes each, and not with its owner: with 100,000 deadlines, moving one up or down would touch
//! an owner in cold memory for each level (a fifth of the time that they take in all).
//!
//! A million sleepers have a million of entries, so these are short, and four that are compared with each other are a line of the cache: who is older is told by
//! 31 bits. When those are used up, once in two milliards of deadlines, the entries are numbered anew.

/// The owner of an entry.
pub trait Position: Copy {
    /// Its entry has that key from now on; [`NOWHERE`] when it has been removed.
    fn keyed(self, key: u32);
}

/// A key that stands for "not in the heap".
pub const NOWHERE: u32 = u32::MAX;

/// One deadline.
#[derive(Clone, Copy, Debug)]
pub struct Entry<P> {
    /// Nanoseconds on the run's clock.
    pub at: u64,
    /// Whose deadline it is.
    pub owner: P,
}

/// What is moved about.
#[derive(Clone, Copy, Debug)]
struct Node {
    at: u64,
    /// From the top: one bit for a sleeper; 31, how many were made before it; 32, its key, or [`NOWHERE`]: it is dead. One word, since parts of one would be
    /// waited for when it is copied just after it was made.
    rest: u64,
}

/// The bit of a sleeper.
const SLEEPER: u64 = 1 << 63;
/// One more was made.
const MADE: u64 = 1 << 32;
/// All that can be told apart.
const MOST: u32 = (SLEEPER / MADE - 1) as u32;
/// The bits of a key.
const KEY: u64 = MADE - 1;

/// So many dead ones are left alone.
const FEW: usize = 32;

impl Node {
    fn key(&self) -> u32 {
        (self.rest & KEY) as u32
    }

    fn is_dead(&self) -> bool {
        self.key() == NOWHERE
    }

    fn die(&mut self) {
        self.rest |= KEY;
    }

    /// The key counts for nothing: no two were made at once.
    fn rank(&self) -> (u64, u64) {
        (self.at, self.rest)
    }
}

/// The heap. See the module.
#[derive(Debug)]
pub struct Heap<P> {
    nodes: Vec<Node>,
    /// By key: the index of the node; in a key that is free, the next free one.
    places: Vec<u32>,
    /// By key.
    owners: Vec<P>,
    free: u32,
    /// How many nodes were made, since they were numbered anew.
    made: u32,
    /// How many nodes are dead.
    dead: usize,
}

impl<P: Position> Default for Heap<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Position> Heap<P> {
    /// An empty heap.
    pub const fn new() -> Self {
        Self { nodes: Vec::new(), places: Vec::new(), owners: Vec::new(), free: NOWHERE, made: 0, dead: 0 }
    }

    /// How many entries there are.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.nodes.len() - self.dead
    }

    /// The earliest entry, and its key.
    pub fn first(&mut self) -> Option<(u32, Entry<P>)> {
        self.clear_first();
        let node = self.nodes.first()?;
        let key = node.key();
        Some((key, Entry { at: node.at, owner: self.owners[key as usize] }))
    }

    /// The deadline of an entry.
    pub fn at(&self, key: u32) -> u64 {
        self.nodes[self.places[key as usize] as usize].at
    }

    /// Adds an entry, for a sleeper or for a scope; its owner is told the key.
    ///
    /// # Panics
    /// With more than 2^31 - 1 entries.
    pub fn insert(&mut self, entry: Entry<P>, sleeper: bool) {
        if self.made == MOST {
            self.number();
        }
        self.made += 1;
        let key = self.take_key(entry.owner);
        let rest = (u64::from(self.made) * MADE) | if sleeper { SLEEPER } else { 0 } | u64::from(key);
        let (index, node) = (self.nodes.len(), Node { at: entry.at, rest });
        self.nodes.push(node);
        entry.owner.keyed(key);
        self.up(index, node);
    }

    /// Removes an entry; its owner is told [`NOWHERE`].
    pub fn remove(&mut self, key: u32) {
        let index = self.places[key as usize] as usize;
        self.places[key as usize] = self.free;
        self.free = key;
        self.owners[key as usize].keyed(NOWHERE);
        self.nodes[index].die();
        self.dead += 1;
        // What was added last is often removed first, as a deadline around an operation is.
        while self.nodes.last().is_some_and(Node::is_dead) {
            self.nodes.pop();
            self.dead -= 1;
        }
        if self.dead > FEW && self.dead > self.nodes.len() / 2 {
            self.sweep();
        }
    }

    /// Takes out the first one while it is dead.
    fn clear_first(&mut self) {
        while self.nodes.first().is_some_and(Node::is_dead) {
            self.dead -= 1;
            if let Some(node) = self.nodes.pop()
                && !self.nodes.is_empty()
            {
                self.down(0, node);
            }
        }
    }

    /// Takes out all that are dead, and puts the others in order.
    #[cold]
    fn sweep(&mut self) {
        self.nodes.retain(|node| !node.is_dead());
        self.dead = 0;
        for (index, node) in self.nodes.iter().enumerate() {
            self.places[node.key() as usize] = index as u32;
        }
        for index in (0..self.nodes.len().div_ceil(4)).rev() {
            self.down(index, self.nodes[index]);
        }
    }

    /// Numbers the nodes anew, in the order in which they were made: so each is where it was.
    #[cold]
    fn number(&mut self) {
        let mut nodes: Vec<&mut Node> = self.nodes.iter_mut().collect();
        assert!(nodes.len() < MOST as usize, "too many deadlines in one run");
        nodes.sort_unstable_by_key(|node| node.rest & !SLEEPER);
        self.made = 0;
        for node in nodes {
            self.made += 1;
            node.rest = node.rest & (SLEEPER | KEY) | (u64::from(self.made) * MADE);
        }
    }

    /// Gives an entry another deadline, and puts it where it belongs.
    pub fn change(&mut self, key: u32, at: u64) {
        let index = self.places[key as usize] as usize;
        let node = Node { at, ..self.nodes[index] };
        self.settle(index, node);
    }

    fn take_key(&mut self, owner: P) -> u32 {
        let key = self.free;
        if key != NOWHERE {
            self.free = self.places[key as usize];
            self.owners[key as usize] = owner;
            return key;
        }
        let key = self.places.len();
        assert!(key < NOWHERE as usize, "too many deadlines in one run");
        self.places.push(0);
        self.owners.push(owner);
        key as u32
    }

    fn settle(&mut self, index: usize, node: Node) {
        if index > 0 && node.rank() < self.nodes[(index - 1) / 4].rank() {
            self.up(index, node)
        } else {
            self.down(index, node)
        }
    }

    fn put(&mut self, index: usize, node: Node) {
        self.nodes[index] = node;
        if !node.is_dead() {
            self.places[node.key() as usize] = index as u32;
        }
    }

    /// A node comes to `index`, or above it: by value, since one that was just written would be waited for.
    fn up(&mut self, mut index: usize, node: Node) {
        while index > 0 {
            let parent = (index - 1) / 4;
            if self.nodes[parent].rank() <= node.rank() {
                break;
            }
            self.put(index, self.nodes[parent]);
            index = parent;
        }
        self.put(index, node);
    }

    /// The same, or below it.
    fn down(&mut self, mut index: usize, node: Node) {
        loop {
            let first = 4 * index + 1;
            let Some(least) = (first..(first + 4).min(self.nodes.len())).min_by_key(|&child| self.nodes[child].rank())
            else {
                break;
            };
            if node.rank() <= self.nodes[least].rank() {
                break;
            }
            self.put(index, self.nodes[least]);
            index = least;
        }
        self.put(index, node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{cell::Cell, collections::BTreeMap};

    #[derive(Clone, Copy, Debug)]
    struct Owner<'a>(u64, &'a Cell<u32>);
    impl Position for Owner<'_> {
        fn keyed(self, key: u32) {
            self.1.set(key);
        }
    }

    proptest! {
        /// R46, N2: the heap agrees with a `BTreeMap` keyed by (deadline, sleeper, creation) under any mix of operations, also while it is numbered anew.
        #[test]
        fn agrees_with_a_btree_map(
            ops in prop::collection::vec((0..4u8, 0..40u64, any::<prop::sample::Index>(), any::<bool>()), 0..400),
            left in 0..400u32,
        ) {
            let places: Vec<Cell<u32>> = (0..ops.len()).map(|_| Cell::new(NOWHERE)).collect();
            let (mut heap, mut model) = (Heap::new(), BTreeMap::new());
            heap.made = MOST - left;
            let mut live: Vec<(u64, bool, u64)> = Vec::new();
            for (id, (op, at, pick, sleeper)) in ops.into_iter().enumerate() {
                match op {
                    0 | 1 => {
                        heap.insert(Entry { at, owner: Owner(id as u64, &places[id]) }, sleeper);
                        model.insert((at, sleeper, id as u64), id as u64);
                        live.push((at, sleeper, id as u64));
                    }
                    2 if !live.is_empty() => {
                        let key = live.swap_remove(pick.index(live.len()));
                        heap.remove(places[key.2 as usize].get());
                        prop_assert_eq!(places[key.2 as usize].get(), NOWHERE);
                        model.remove(&key);
                    }
                    3 if !live.is_empty() => {
                        let i = pick.index(live.len());
                        model.remove(&live[i]);
                        live[i].0 = at;
                        heap.change(places[live[i].2 as usize].get(), at);
                        model.insert(live[i], live[i].2);
                    }
                    _ => {}
                }
                prop_assert_eq!(heap.first().map(|(_, e)| e.owner.0), model.values().next().copied());
                for &(at, _, id) in &live {
                    prop_assert_eq!(heap.at(places[id as usize].get()), at);
                }
            }
            let mut order = Vec::new();
            while let Some((key, e)) = heap.first() {
                prop_assert_eq!(e.owner.1.get(), key);
                heap.remove(key);
                order.push(e.owner.0);
            }
            prop_assert!(heap.places.len() <= places.len(), "keys are used again");
            prop_assert_eq!(order, model.into_values().collect::<Vec<_>>());
        }
    }
}
