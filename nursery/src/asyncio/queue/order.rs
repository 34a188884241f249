//! Which item of a queue comes out.

use crate::asyncio::heap::{Before, Heap};
use sealed::Items;
use std::collections::VecDeque;

/// Which item of a [`Queue`](super::Queue) comes out. Of this library: [`Fifo`], [`Lifo`], [`Least`].
pub trait Order<T>: sealed::Sealed {
    #[doc(hidden)]
    type Items: sealed::Items<T>;
}

pub(super) mod sealed {
    pub trait Sealed {}

    pub trait Items<T>: Default {
        fn put(&mut self, item: T);
        fn get(&mut self) -> Option<T>;
        fn len(&self) -> usize;
    }
}

/// First in, first out: a [`Queue`](super::Queue).
#[derive(Clone, Copy, Debug)]
pub enum Fifo {}

/// Last in, first out: a [`LifoQueue`](super::LifoQueue).
#[derive(Clone, Copy, Debug)]
pub enum Lifo {}

/// The least first: a [`PriorityQueue`](super::PriorityQueue).
#[derive(Clone, Copy, Debug)]
pub enum Least {}

impl sealed::Sealed for Fifo {}
impl sealed::Sealed for Lifo {}
impl sealed::Sealed for Least {}

impl<T> Order<T> for Fifo {
    type Items = VecDeque<T>;
}

impl<T> Order<T> for Lifo {
    type Items = Vec<T>;
}

impl<T: Ord> Order<T> for Least {
    type Items = Heap<Ordered<T>>;
}

impl<T> Items<T> for VecDeque<T> {
    fn put(&mut self, item: T) {
        self.push_back(item);
    }

    fn get(&mut self) -> Option<T> {
        self.pop_front()
    }

    fn len(&self) -> usize {
        self.len()
    }
}

impl<T> Items<T> for Vec<T> {
    fn put(&mut self, item: T) {
        self.push(item);
    }

    fn get(&mut self) -> Option<T> {
        self.pop()
    }

    fn len(&self) -> usize {
        self.len()
    }
}

#[doc(hidden)]
#[derive(Debug)]
pub struct Ordered<T>(T);

impl<T: Ord> Before for Ordered<T> {
    fn before(&self, other: &Self) -> bool {
        self.0 < other.0
    }
}

impl<T: Ord> Items<T> for Heap<Ordered<T>> {
    fn put(&mut self, item: T) {
        self.push(Ordered(item));
    }

    fn get(&mut self) -> Option<T> {
        self.pop().map(|item| item.0)
    }

    fn len(&self) -> usize {
        self.len()
    }
}
