//! The order in which a run polls what can run, where it is not the ordinary one: for tests. An ordinary run has no [`Schedule`], and pays
//! one branch for each batch of a queue.

use crate::context::BUDGET;
use std::cell::Cell;

/// In which order the tasks that can run are polled (N4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// First in, first out.
    #[default]
    Fifo,
    /// Each batch of each queue in an order that follows from this seed, and from nothing else (R87); and now and then an operation that
    /// need not wait gives up its turn early, as it may (N11).
    Shuffled(u64),
    /// First in, first out; and an operation that need not wait gives up its turn if its task has done one before in this turn. So each
    /// operation but the first of a turn is an await that a test can see.
    EachTurn,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Schedule {
    shuffled: bool,
    random: Cell<u64>,
}

impl Schedule {
    /// None for the ordinary order.
    pub fn new(order: Order) -> Option<Self> {
        match order {
            Order::Fifo => None,
            Order::Shuffled(seed) => Some(Self { shuffled: true, random: Cell::new(seed) }),
            Order::EachTurn => Some(Self { shuffled: false, random: Cell::new(0) }),
        }
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014): nine lines instead of a dependency of every program.
    fn random(&self) -> u64 {
        self.random.set(self.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15));
        let mut z = self.random.get();
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&self, n: usize) -> usize {
        // The high half of the product: a bias of n in 2^64.
        ((u128::from(self.random()) * n as u128) >> 64) as usize
    }

    /// Puts the tasks of a batch in order (Fisher and Yates).
    pub fn arrange<T>(&self, batch: &mut [T]) {
        if self.shuffled {
            for last in (1..batch.len()).rev() {
                batch.swap(last, self.below(last + 1));
            }
        }
    }

    /// How many operations that need not wait each task of a batch may do.
    pub fn budget(&self) -> u32 {
        if !self.shuffled {
            return 1;
        }
        match self.below(16) {
            few @ 0..8 => 1 + few as u32,
            _ => BUDGET,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    #[cfg_attr(miri, ignore = "no pointers, and minutes")]
    fn every_order_comes_about_as_often() {
        let schedule = Schedule::new(Order::Shuffled(7)).unwrap();
        let mut seen = HashMap::new();
        for _ in 0..24_000 {
            let mut batch = [0, 1, 2, 3];
            schedule.arrange(&mut batch);
            *seen.entry(batch).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 24);
        assert!(seen.values().all(|n| (800..1200).contains(n)), "{seen:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_orders() {
        let orders = |seed| {
            let schedule = Schedule::new(Order::Shuffled(seed)).unwrap();
            let mut batch: Vec<u32> = (0..100).collect();
            schedule.arrange(&mut batch);
            (batch, schedule.budget())
        };
        assert_eq!(orders(1), orders(1));
        assert_ne!(orders(1), orders(2));
    }
}
