//! The deadlines of a run: a 4-ary heap of entries that know their place in it, so that removing one is cheap.
//!
//! Exact order: by deadline, then by `order` (scopes before sleepers, then by creation: R46, N2). Each entry's owner keeps the
//! entry's index ([`Position::moved`] is told of every change), so that removal needs no search. Moving a deadline *later*
//! is left to the owner: it stores the new deadline beside the entry, and the heap puts the entry right when it surfaces.

/// The owner of an entry: told where its entry is.
pub trait Position: Copy {
    /// The entry is at `index` now.
    fn moved(self, index: u32);
}

/// An index that stands for "not in the heap".
pub const NOWHERE: u32 = u32::MAX;

/// One deadline.
#[derive(Clone, Copy, Debug)]
pub struct Entry<P> {
    /// Nanoseconds on the run's clock.
    pub at: u64,
    /// Breaks ties.
    pub order: u64,
    /// Whose deadline it is.
    pub owner: P,
}

impl<P> Entry<P> {
    fn key(&self) -> (u64, u64) {
        (self.at, self.order)
    }
}

/// The heap. See the module.
#[derive(Debug)]
pub struct Heap<P> {
    entries: Vec<Entry<P>>,
}

impl<P: Position> Default for Heap<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Position> Heap<P> {
    /// An empty heap.
    pub const fn new() -> Self {
        Self { entries: Vec::new() }
    }

    /// How many entries there are.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The earliest entry.
    pub fn first(&self) -> Option<&Entry<P>> {
        self.entries.first()
    }

    /// The entry at `index`.
    pub fn get(&self, index: u32) -> &Entry<P> {
        &self.entries[index as usize]
    }

    /// Adds an entry.
    ///
    /// # Panics
    /// With more than `u32::MAX - 1` entries.
    pub fn insert(&mut self, entry: Entry<P>) {
        let index = self.entries.len();
        assert!(index < NOWHERE as usize, "too many deadlines in one run");
        self.entries.push(entry);
        self.up(index);
    }

    /// Removes the entry at `index`; its owner is told [`NOWHERE`].
    pub fn remove(&mut self, index: u32) -> Entry<P> {
        let index = index as usize;
        let gone = self.entries.swap_remove(index);
        gone.owner.moved(NOWHERE);
        if index < self.entries.len() {
            self.settle(index);
        }
        gone
    }

    /// Gives the entry at `index` another deadline, and puts it where it belongs.
    pub fn change(&mut self, index: u32, at: u64) {
        self.entries[index as usize].at = at;
        self.settle(index as usize);
    }

    fn settle(&mut self, index: usize) {
        if index > 0 && self.entries[index].key() < self.entries[(index - 1) / 4].key() {
            self.up(index)
        } else {
            self.down(index)
        }
    }

    fn up(&mut self, mut index: usize) {
        while index > 0 {
            let parent = (index - 1) / 4;
            if self.entries[parent].key() <= self.entries[index].key() {
                break;
            }
            self.entries.swap(parent, index);
            self.entries[index].owner.moved(index as u32);
            index = parent;
        }
        self.entries[index].owner.moved(index as u32);
    }

    fn down(&mut self, mut index: usize) {
        loop {
            let first = 4 * index + 1;
            let Some(least) =
                (first..(first + 4).min(self.entries.len())).min_by_key(|&child| self.entries[child].key())
            else {
                break;
            };
            if self.entries[index].key() <= self.entries[least].key() {
                break;
            }
            self.entries.swap(least, index);
            self.entries[index].owner.moved(index as u32);
            index = least;
        }
        self.entries[index].owner.moved(index as u32);
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
        fn moved(self, index: u32) {
            self.1.set(index);
        }
    }

    proptest! {
        /// R46, N2: the heap agrees with a `BTreeMap` keyed by (deadline, creation) under any mix of operations.
        #[test]
        fn agrees_with_a_btree_map(ops in prop::collection::vec((0..4u8, 0..40u64, any::<prop::sample::Index>()), 0..400)) {
            let places: Vec<Cell<u32>> = (0..ops.len()).map(|_| Cell::new(NOWHERE)).collect();
            let (mut heap, mut model) = (Heap::new(), BTreeMap::new());
            let mut live: Vec<(u64, u64)> = Vec::new();
            for (id, (op, at, pick)) in ops.into_iter().enumerate() {
                match op {
                    0 | 1 => {
                        heap.insert(Entry { at, order: id as u64, owner: Owner(id as u64, &places[id]) });
                        model.insert((at, id as u64), id as u64);
                        live.push((at, id as u64));
                    }
                    2 if !live.is_empty() => {
                        let key = live.swap_remove(pick.index(live.len()));
                        heap.remove(places[key.1 as usize].get());
                        prop_assert_eq!(places[key.1 as usize].get(), NOWHERE);
                        model.remove(&key);
                    }
                    3 if !live.is_empty() => {
                        let i = pick.index(live.len());
                        model.remove(&live[i]);
                        live[i].0 = at;
                        heap.change(places[live[i].1 as usize].get(), at);
                        model.insert(live[i], live[i].1);
                    }
                    _ => {}
                }
                prop_assert_eq!(heap.first().map(|e| e.owner.0), model.values().next().copied());
                for &(at, id) in &live {
                    prop_assert_eq!(heap.get(places[id as usize].get()).at, at);
                }
            }
            let mut order = Vec::new();
            while let Some(e) = heap.first() {
                let (owner, index) = (e.owner, e.owner.1.get());
                prop_assert_eq!(index, 0);
                heap.remove(0);
                order.push(owner.0);
            }
            prop_assert_eq!(order, model.into_values().collect::<Vec<_>>());
        }
    }
}
