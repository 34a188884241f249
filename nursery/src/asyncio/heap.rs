//! A binary heap whose ties come out as they do of Python's `heapq`, since programs find that order on CPython: equal times are not in
//! the order of their calls there, and a heap that is stable would run them in another one.

/// What is in a heap.
pub trait Before {
    /// Whether it comes out before the other.
    fn before(&self, other: &Self) -> bool;
}

#[derive(Debug)]
pub struct Heap<T> {
    items: Vec<T>,
}

impl<T> Default for Heap<T> {
    fn default() -> Self {
        Self { items: Vec::new() }
    }
}

impl<T: Before> Heap<T> {
    pub fn new() -> Self {
        Self { items: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn first(&self) -> Option<&T> {
        self.items.first()
    }

    pub fn push(&mut self, item: T) {
        self.items.push(item);
        self.rise(0, self.items.len() - 1);
    }

    pub fn pop(&mut self) -> Option<T> {
        if self.items.is_empty() {
            return None;
        }
        let item = self.items.swap_remove(0);
        if !self.items.is_empty() {
            self.sink(0);
        }
        Some(item)
    }

    /// Takes all items out, in the order of their places.
    pub fn drain(&mut self) -> Vec<T> {
        std::mem::take(&mut self.items)
    }

    /// Makes a heap of items in any order.
    pub fn rebuild(&mut self, items: Vec<T>) {
        self.items = items;
        for at in (0..self.items.len() / 2).rev() {
            self.sink(at);
        }
    }

    /// Towards the top, past what is later.
    fn rise(&mut self, top: usize, mut at: usize) {
        while at > top {
            let above = (at - 1) / 2;
            if !self.items[at].before(&self.items[above]) {
                break;
            }
            self.items.swap(at, above);
            at = above;
        }
    }

    /// Down to a leaf by way of the earlier of two, and from there up again: what decides over ties.
    fn sink(&mut self, top: usize) {
        let (mut at, len) = (top, self.items.len());
        while 2 * at + 1 < len {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            let next = if right < len && !self.items[left].before(&self.items[right]) { right } else { left };
            self.items.swap(at, next);
            at = next;
        }
        self.rise(top, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Item(u64, usize);

    impl Before for Item {
        fn before(&self, other: &Self) -> bool {
            self.0 < other.0
        }
    }

    /// What `heapq` of CPython 3.13 gives for ten pushes of `(n * 7) % 3`, compared by that alone.
    #[test]
    fn ties_come_out_as_of_heapq() {
        let mut heap = Heap::new();
        for n in 0..10 {
            heap.push(Item((n as u64 * 7) % 3, n));
        }
        let popped: Vec<usize> = std::iter::from_fn(|| heap.pop()).map(|item| item.1).collect();
        assert_eq!(popped, HEAPQ);
    }

    const HEAPQ: [usize; 10] = [0, 6, 3, 9, 4, 1, 7, 5, 2, 8];

    #[test]
    fn what_is_rebuilt_comes_out_in_order() {
        let mut heap = Heap::new();
        heap.rebuild((0..100).map(|n| Item((n * 37) % 101, n as usize)).collect());
        let popped: Vec<u64> = std::iter::from_fn(|| heap.pop()).map(|item| item.0).collect();
        assert!(popped.is_sorted() && popped.len() == 100);
    }
}
