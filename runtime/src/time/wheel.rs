//! The deadlines of a run: a wheel of lists for those that are far off, and a heap for the few that are near.
//!
//! Exact order: by deadline, then scopes before sleepers, then by creation (R46, N2). Moving a deadline *later*
//! is left to the owner: it stores the new deadline beside the entry, and the wheel puts the entry right when it surfaces.
//!
//! An entry stands in a table, by its key, and never moves there; one of the lists, or the heap, has its key. Which list says where the deadline first
//! differs from `reached`: the digit of six bits, and what it is. So what is in a list is earlier than what is in any list of a higher digit, or of a higher
//! value of the same one. When the time comes to a list, it is distributed over those of lower digits, and what is due goes to the heap.
//! Each entry is looked at three or four times in all, whatever their number: in a heap of 100,000, to take one out was to move nine. And most are removed
//! before the time comes to them.
//!
//! The order of creation is that of the lists: deadlines that are equal are in one list, or all of them in the heap, and lists are distributed in their order.
//!
//! The newest entry that has an order of its own, as a scope's has, stands in no list until the next one comes or somebody asks for the first: most are removed
//! before that, as a deadline around an operation is. That spares 100 instructions of 155.
//!
//! An entry that is removed stays as a dead one, unless it was added last to its list, until it surfaces or more than half of them are dead: then all those are
//! swept out at once. So nobody has to know where in a list it is. A million sleepers have a million of entries, so these are short: 20 bytes.

use crate::prefetch::prefetch;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::mem;
use std::num::NonZeroU32;

/// The owner of an entry.
pub trait Owner: Copy {
    /// Its entry has that key from now on; `None` when it has been removed.
    fn keyed(self, key: Option<Key>);

    /// Its place among those with the same deadline; [`SLEEPER`] for one that comes after all that have a place, in the order in which they were inserted.
    fn order(self) -> u64;

    /// Its deadline is due soon, together with others: its memory may be fetched.
    fn prefetch(self) {}

    /// The same, when that has come: what it leads to.
    fn prefetch_neighbours(self) {}
}

/// Which entry it is: its place in the table, and one more, so that none at all is 0: of a wait that begins most words are 0,
/// and stored together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(NonZeroU32);

impl Key {
    /// That of a place.
    ///
    /// # Panics
    /// With more than 2^32 - 1 entries.
    #[inline(always)]
    fn at(place: usize) -> Self {
        Self(
            NonZeroU32::new(u32::try_from(place + 1).expect("too many deadlines in one run"))
                .expect("it is more than 0"),
        )
    }

    #[inline(always)]
    fn place(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// The order of what has none.
pub const SLEEPER: u64 = 1 << 63;

/// One deadline.
#[derive(Clone, Copy, Debug)]
pub struct Entry<P> {
    /// Nanoseconds on the run's clock.
    pub at: u64,
    /// Whose deadline it is.
    pub owner: P,
}

/// What stands in the table.
#[derive(Clone, Copy)]
struct Slot<P> {
    /// Of a free one, the key of the next free one, or 0.
    at: u64,
    /// `None`: it is dead, or free.
    owner: Option<P>,
}

/// What stands in a free one.
fn link(next: Option<Key>) -> u64 {
    next.map_or(0, |next| u64::from(next.0.get()))
}

/// What the heap has of an entry.
#[derive(Debug, PartialEq, Eq)]
struct Near {
    at: u64,
    order: u64,
    key: Key,
}

impl Ord for Near {
    /// The earliest is the greatest, since that is what the heap gives first. The key counts for nothing.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl PartialOrd for Near {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Of a digit. A tree is made on the stack, and that of a model is small.
const BITS: usize = if cfg!(trefoil_loom) { 4 } else { 6 };
/// The values of a digit.
const VALUES: usize = 1 << BITS;
/// The digits of a time.
const DIGITS: usize = 64_usize.div_ceil(BITS);

/// So many dead ones are left alone.
const FEW: usize = 32;
/// Of a list that is distributed so many entries are fetched ahead of the one that is looked at: they are anywhere in the table. One that is looked through is
/// fetched whole, if it has more.
const AHEAD: usize = 8;
/// In a list of so many, or fewer, the first is looked for; and its memory is kept.
const SHORT: usize = 64;
/// The memory of more is given back when it is not used.
const MANY: usize = 4096;

/// The wheel. See the module.
pub struct Wheel<P> {
    /// By key.
    slots: Vec<Slot<P>>,
    free: Option<Key>,
    /// What is not later than this is in `near`; what is later, in a list.
    reached: u64,
    /// The last time that was given: `reached` may be later.
    now: u64,
    /// The key of the newest one, while that stands in no list.
    newest: Option<Key>,
    /// The first one, while it is known and in a list, and its deadline; else `None` and 0. A loop that sleeps often asks each time.
    first: (Option<Key>, u64),
    near: BinaryHeap<Near>,
    near_dead: usize,
    /// How many sleepers came into `near`.
    sleepers: u64,
    /// By digit, and its value: keys, the oldest first. In a box, since a tree is moved while it is made, on a stack that may be small.
    lists: Box<[Vec<Key>]>,
    /// Which of them are not empty.
    used: [u64; DIGITS],
    /// Which of `used` are not 0.
    digits: u16,
    far: usize,
    far_dead: usize,
}

impl<P> std::fmt::Debug for Wheel<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (near, far) = (self.near.len() - self.near_dead, self.far - self.far_dead);
        f.debug_struct("Wheel").field("near", &near).field("far", &far).finish_non_exhaustive()
    }
}

impl<P: Owner> Wheel<P> {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: None,
            reached: 0,
            now: 0,
            newest: None,
            first: (None, 0),
            near: BinaryHeap::new(),
            near_dead: 0,
            sleepers: 0,
            lists: (0..DIGITS * VALUES).map(|_| Vec::new()).collect(),
            used: [0; DIGITS],
            digits: 0,
            far: 0,
            far_dead: 0,
        }
    }

    /// How many entries there are.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        usize::from(self.newest.is_some()) + self.near.len() - self.near_dead + self.far - self.far_dead
    }

    /// The deadline of an entry.
    pub fn at(&self, key: Key) -> u64 {
        self.slots[key.place()].at
    }

    /// The earliest entry, and its key. `now` is the time, so that what is due is taken together.
    pub fn first(&mut self, now: u64) -> Option<(Key, Entry<P>)> {
        if self.newest.is_some() {
            self.place_newest();
        }
        self.now = now;
        self.reach(now);
        loop {
            while let Some(near) = self.near.peek() {
                let (key, at) = (near.key, near.at);
                if let Some(owner) = self.slots[key.place()].owner {
                    return Some((key, Entry { at, owner }));
                }
                self.near.pop();
                self.near_dead -= 1;
                self.release(key);
            }
            if let (Some(key), at) = self.first
                && let Some(owner) = self.slots[key.place()].owner
            {
                return Some((key, Entry { at, owner }));
            }
            if self.near.capacity() > MANY {
                self.near = BinaryHeap::new();
            }
            let Some((digit, value)) = self.first_list() else {
                if self.slots.capacity() > MANY {
                    // Nobody has a key.
                    (self.slots, self.free) = (Vec::new(), None);
                }
                return None;
            };
            match self.first_of(digit, value) {
                // Too many to look through each time.
                Some((_, first)) if self.lists[digit * VALUES + value].len() > SHORT => self.reach(first.at),
                Some((key, first)) => {
                    self.first = (Some(key), first.at);
                    return Some((key, first));
                }
                None => self.distribute(digit, value),
            }
        }
    }

    /// Adds an entry; its owner is told the key.
    ///
    /// # Panics
    /// With more than 2^32 - 1 entries.
    #[inline(always)]
    pub fn insert(&mut self, entry: Entry<P>) {
        let slot = Slot { at: entry.at, owner: Some(entry.owner) };
        let key = match self.free {
            Some(key) => {
                let free = mem::replace(&mut self.slots[key.place()], slot);
                self.free = NonZeroU32::new(free.at as u32).map(Key);
                key
            }
            None => {
                let key = Key::at(self.slots.len());
                self.slots.push(slot);
                key
            }
        };
        entry.owner.keyed(Some(key));
        if entry.owner.order() == SLEEPER {
            return self.place(key, entry);
        }
        if self.newest.is_some() {
            self.place_newest();
        }
        self.newest = Some(key);
    }

    /// Removes an entry; its owner is told `None`.
    #[inline(always)]
    pub fn remove(&mut self, key: Key) {
        let slot = &mut self.slots[key.place()];
        let at = slot.at;
        if let Some(owner) = slot.owner.take() {
            owner.keyed(None);
        }
        if self.newest == Some(key) {
            self.newest = None;
            self.release(key);
        } else {
            self.remove_placed(key, at);
        }
    }

    /// It is dead; it stood at that time.
    #[inline(never)]
    fn remove_placed(&mut self, key: Key, at: u64) {
        if self.first.0 == Some(key) {
            self.first = (None, 0);
        }
        if at <= self.reached {
            self.near_dead += 1;
            if self.near_dead > FEW && self.near_dead > self.near.len() / 2 {
                self.sweep_near();
            }
            return;
        }
        let (digit, value) = self.list_of(at);
        let list = &mut self.lists[digit * VALUES + value];
        // What was added last is often removed first, as a deadline around an operation is.
        if list.last() == Some(&key) {
            list.pop();
            self.far -= 1;
            self.release(key);
            self.pop_dead(digit, value);
            return;
        }
        self.far_dead += 1;
        if self.far_dead > FEW && self.far_dead > self.far / 2 {
            self.sweep_far();
        }
    }

    /// Gives an entry another deadline.
    pub fn change(&mut self, key: Key, at: u64) {
        if let Some(owner) = self.slots[key.place()].owner {
            self.remove(key);
            self.insert(Entry { at, owner });
        }
    }

    /// Puts the newest entry where it belongs.
    #[inline(never)]
    fn place_newest(&mut self) {
        if let Some(key) = self.newest.take()
            && let Slot { at, owner: Some(owner) } = self.slots[key.place()]
        {
            self.place(key, Entry { at, owner });
        }
    }

    /// Puts an entry where it belongs that has been nowhere yet.
    #[inline(always)]
    fn place(&mut self, key: Key, entry: Entry<P>) {
        if self.reached > self.now && self.digits == 0 && self.near.is_empty() {
            self.reached = self.now;
        }
        if entry.at <= self.first.1 {
            self.first = (None, 0);
        }
        self.put(key, entry);
    }

    fn release(&mut self, key: Key) {
        self.slots[key.place()].at = link(self.free);
        self.free = Some(key);
    }

    /// The digit in which a time after `reached` differs from that, and its value.
    #[inline(always)]
    fn list_of(&self, at: u64) -> (usize, usize) {
        // It differs: the 1 is for the compiler.
        let digit = ((at ^ self.reached) | 1).ilog2() as usize / BITS;
        (digit, (at >> (digit * BITS)) as usize % VALUES)
    }

    /// The list that comes first in time.
    fn first_list(&self) -> Option<(usize, usize)> {
        (self.digits != 0).then(|| {
            let digit = self.digits.trailing_zeros() as usize;
            (digit, self.used[digit].trailing_zeros() as usize)
        })
    }

    /// Puts an entry where it belongs.
    #[inline(always)]
    fn put(&mut self, key: Key, entry: Entry<P>) {
        if entry.at <= self.reached {
            return self.put_near(key, entry);
        }
        let (digit, value) = self.list_of(entry.at);
        self.lists[digit * VALUES + value].push(key);
        self.used[digit] |= 1 << value;
        self.digits |= 1 << digit;
        self.far += 1;
    }

    fn put_near(&mut self, key: Key, entry: Entry<P>) {
        let mut order = entry.owner.order();
        if order == SLEEPER {
            self.sleepers += 1;
            order += self.sleepers;
        }
        self.near.push(Near { at: entry.at, order, key });
    }

    fn mark_empty(&mut self, digit: usize, value: usize) {
        self.used[digit] &= !(1 << value);
        if self.used[digit] == 0 {
            self.digits &= !(1 << digit);
        }
    }

    /// Takes the newest ones of a list out while they are dead.
    #[inline(always)]
    fn pop_dead(&mut self, digit: usize, value: usize) {
        while let Some(&key) = self.lists[digit * VALUES + value].last() {
            if self.slots[key.place()].owner.is_some() {
                return;
            }
            self.lists[digit * VALUES + value].pop();
            self.far -= 1;
            self.far_dead -= 1;
            self.release(key);
        }
        if self.lists[digit * VALUES + value].capacity() > SHORT {
            self.lists[digit * VALUES + value] = Vec::new();
        }
        self.mark_empty(digit, value);
    }

    #[inline(always)]
    fn prefetch_slot(&self, key: Option<&Key>) {
        if let Some(&key) = key {
            prefetch(self.slots.as_ptr().wrapping_add(key.place()));
        }
    }

    /// What those are about to need that are due now, or some of them. Of one that is alone nothing can be fetched ahead.
    pub fn prefetch_near(&self) {
        if self.near.len() < 2 {
            return;
        }
        for near in self.near.iter().take(FEW) {
            if let Some(owner) = self.slots[near.key.place()].owner {
                owner.prefetch_neighbours();
            }
        }
    }

    /// The first entry of a list, if one is alive.
    fn first_of(&self, digit: usize, value: usize) -> Option<(Key, Entry<P>)> {
        let list = &self.lists[digit * VALUES + value];
        if list.len() > AHEAD {
            list.iter().for_each(|key| self.prefetch_slot(Some(key)));
        }
        let alive = list.iter().filter_map(|&key| {
            let Slot { at, owner } = self.slots[key.place()];
            owner.map(|owner| (key, Entry { at, owner }))
        });
        // Of sleepers, the oldest: the first that is found.
        alive.reduce(|first, next| match next.1.at.cmp(&first.1.at) {
            Ordering::Less => next,
            Ordering::Equal if next.1.owner.order() < first.1.owner.order() => next,
            _ => first,
        })
    }

    /// It is that time: what is due goes to the heap, and nothing that is left stands in a list that begins before.
    fn reach(&mut self, time: u64) {
        if time <= self.reached {
            return;
        }
        self.reached = time;
        while let Some((digit, value)) = self.first_list() {
            // All of a list have this digit in common, and the higher ones.
            let oldest = self.lists[digit * VALUES + value][0];
            if self.slots[oldest.place()].at >> (digit * BITS) > time >> (digit * BITS) {
                return;
            }
            self.distribute(digit, value);
        }
    }

    /// Puts the entries of a list where they belong, in their order; those that are dead are taken out.
    fn distribute(&mut self, digit: usize, value: usize) {
        let mut list = mem::take(&mut self.lists[digit * VALUES + value]);
        self.mark_empty(digit, value);
        self.far -= list.len();
        for (place, &key) in list.iter().enumerate() {
            self.prefetch_slot(list.get(place + AHEAD));
            let Slot { at, owner } = self.slots[key.place()];
            match owner {
                Some(owner) => {
                    if at <= self.reached {
                        owner.prefetch();
                    }
                    self.put(key, Entry { at, owner });
                }
                None => {
                    self.far_dead -= 1;
                    self.release(key);
                }
            }
        }
        if list.capacity() <= SHORT && self.lists[digit * VALUES + value].is_empty() {
            list.clear();
            self.lists[digit * VALUES + value] = list;
        }
    }

    #[cold]
    fn sweep_far(&mut self) {
        for digit in 0..DIGITS {
            let mut used = self.used[digit];
            while used != 0 {
                // Into the same list again.
                self.distribute(digit, used.trailing_zeros() as usize);
                used &= used - 1;
            }
        }
    }

    #[cold]
    fn sweep_near(&mut self) {
        let (slots, free) = (&mut self.slots, &mut self.free);
        self.near.retain(|near| {
            let slot = &mut slots[near.key.place()];
            if slot.owner.is_none() {
                slot.at = link(*free);
                *free = Some(near.key);
            }
            slot.owner.is_some()
        });
        self.near_dead = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{cell::Cell, collections::BTreeMap};

    #[derive(Clone, Copy, Debug)]
    struct Timer<'a> {
        id: usize,
        sleeper: bool,
        key: &'a Cell<Option<Key>>,
    }

    impl Owner for Timer<'_> {
        fn keyed(self, key: Option<Key>) {
            self.key.set(key);
        }
        fn order(self) -> u64 {
            if self.sleeper { SLEEPER } else { self.id as u64 }
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Op {
        Insert {
            at: u64,
            sleeper: bool,
        },
        Remove(prop::sample::Index),
        RemoveLast,
        Change(prop::sample::Index, u64),
        Look,
        /// The time goes on, to that of the first entry at most by so much, as it may while the loop is busy.
        Expire(u64),
    }

    /// Many that are equal, and some in each list.
    fn time() -> impl Strategy<Value = u64> {
        prop_oneof![
            4 => 0..8_u64,
            4 => (0..40_u64, prop::sample::select(vec![5, 6, 11, 12, 30, 57])).prop_map(|(at, by)| at << by),
            1 => any::<u64>(),
            1 => Just(u64::MAX - 1),
        ]
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            10 => (time(), any::<bool>()).prop_map(|(at, sleeper)| Op::Insert { at, sleeper }),
            3 => any::<prop::sample::Index>().prop_map(Op::Remove),
            1 => Just(Op::RemoveLast),
            2 => (any::<prop::sample::Index>(), time()).prop_map(|(which, at)| Op::Change(which, at)),
            1 => Just(Op::Look),
            1 => time().prop_map(Op::Expire),
        ]
    }

    fn first(wheel: &mut Wheel<Timer<'_>>, now: u64) -> Option<(u64, bool, usize)> {
        wheel.first(now).map(|(key, entry)| {
            assert_eq!(entry.owner.key.get(), Some(key));
            (entry.at, entry.owner.sleeper, entry.owner.id)
        })
    }

    proptest! {
        /// R46, N2: the wheel agrees with a `BTreeMap` keyed by (deadline, sleeper, creation) under any mix of operations.
        #[test]
        fn agrees_with_a_btree_map(ops in prop::collection::vec(op(), 0..if cfg!(miri) { 60 } else { 600 })) {
            let keys: Vec<Cell<Option<Key>>> = (0..ops.len()).map(|_| Cell::new(None)).collect();
            let (mut wheel, mut model, mut now) = (Wheel::new(), BTreeMap::new(), 0);
            let mut most = 0;
            for (id, op) in ops.into_iter().enumerate() {
                let nth = |model: &BTreeMap<(u64, bool, usize), ()>, which: prop::sample::Index| {
                    model.keys().nth(which.index(model.len().max(1))).copied()
                };
                match op {
                    Op::Insert { at, sleeper } => {
                        wheel.insert(Entry { at, owner: Timer { id, sleeper, key: &keys[id] } });
                        model.insert((at, sleeper, id), ());
                    }
                    Op::Remove(which) => {
                        if let Some(entry) = nth(&model, which) {
                            wheel.remove(keys[entry.2].get().unwrap());
                            prop_assert_eq!(keys[entry.2].get(), None);
                            model.remove(&entry);
                        }
                    }
                    Op::RemoveLast => {
                        if let Some(entry) = model.keys().max_by_key(|entry| entry.2).copied() {
                            wheel.remove(keys[entry.2].get().unwrap());
                            model.remove(&entry);
                        }
                    }
                    Op::Change(which, at) => {
                        // Sleepers keep theirs.
                        if let Some(entry) = nth(&model, which).filter(|entry| !entry.1) {
                            wheel.change(keys[entry.2].get().unwrap(), at);
                            model.remove(&entry);
                            model.insert((at, entry.1, entry.2), ());
                        }
                    }
                    Op::Look => prop_assert_eq!(first(&mut wheel, now), model.keys().next().copied()),
                    Op::Expire(by) => {
                        if let Some(next) = model.keys().next() {
                            now = now.max(next.0).saturating_add(by);
                        }
                        while let Some(entry) = model.keys().next().copied().filter(|entry| entry.0 <= now) {
                            prop_assert_eq!(first(&mut wheel, now), Some(entry));
                            wheel.remove(keys[entry.2].get().unwrap());
                            model.remove(&entry);
                        }
                    }
                }
                most = most.max(model.len());
                prop_assert_eq!(wheel.len(), model.len());
                prop_assert!(wheel.slots.len() <= 2 * most + 2 * (FEW + 1), "keys are used again");
                for &(at, _, id) in model.keys() {
                    prop_assert_eq!(wheel.at(keys[id].get().unwrap()), at);
                }
            }
            while let Some(entry) = model.keys().next().copied() {
                prop_assert_eq!(first(&mut wheel, now), Some(entry));
                wheel.remove(keys[entry.2].get().unwrap());
                model.remove(&entry);
            }
            prop_assert_eq!(first(&mut wheel, now), None);
            prop_assert_eq!((wheel.near_dead, wheel.far, wheel.far_dead, wheel.digits), (0, 0, 0, 0));
        }
    }

    /// However they go: by their time, the newest first, or the oldest. Then it is used again.
    #[test]
    fn what_many_took_is_given_back_when_none_is_left() {
        const N: usize = if cfg!(miri) { MANY + 500 } else { 20_000 };
        let keys: Vec<Cell<Option<Key>>> = (0..N).map(|_| Cell::new(None)).collect();
        let mut wheel = Wheel::new();
        let mut now = 1;
        for round in 0..6 {
            let at = |id: usize| now + 1000 + if round % 2 == 0 { 0 } else { (id as u64) << 20 };
            for (id, key) in keys.iter().enumerate() {
                wheel.insert(Entry { at: at(id), owner: Timer { id, sleeper: true, key } });
            }
            let last = at(N - 1);
            match round / 2 {
                0 => {
                    let mut ended = 0;
                    while let Some((key, _)) = wheel.first(last) {
                        wheel.remove(key);
                        ended += 1;
                    }
                    assert_eq!(ended, N);
                    now = last;
                }
                1 => keys.iter().rev().for_each(|key| wheel.remove(key.get().unwrap())),
                _ => keys.iter().for_each(|key| wheel.remove(key.get().unwrap())),
            }
            assert!(wheel.first(now).is_none());
            let lists: usize = wheel.lists.iter().map(Vec::capacity).sum();
            let capacities = (wheel.slots.capacity(), wheel.near.capacity(), lists);
            assert!(
                capacities.0 <= MANY && capacities.1 <= MANY && capacities.2 <= MANY,
                "{capacities:?} in round {round}"
            );
        }
    }
}
