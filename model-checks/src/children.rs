//! Children: a nursery's queue, and futures that loom watches.

use crate::{Drops, Token, Woken};
use std::fmt::Debug;
use std::marker::{PhantomData, PhantomPinned};
use std::panic::{Location, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use trefoil_runtime::sync::UnsafeCell as UnsafeLoomCell;
use trefoil_runtime::{Kind, Origin, Outcome, Payload, RawJoin, Ready, ReadyBox, Scope};

/// A nursery's queue with one waker above it, and what the children of a model do. No tree is needed where none of them waits
/// for anything of ours.
pub struct Nest<'env> {
    /// The scope that the children run in. It is not linked.
    pub scope: Pin<Box<Scope>>,
    /// The queue; gone when it was torn down.
    pub queue: Option<ReadyBox>,
    /// Who polls it.
    pub above: Woken,
    /// The memory of the children: what was spawned, and what was freed.
    pub cells: Drops,
    /// The futures.
    pub futures: Drops,
    /// The values.
    pub values: Drops,
    _env: PhantomData<fn(&'env ()) -> &'env ()>,
}

impl Debug for Nest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Nest")
    }
}

/// The value of a child.
#[derive(Debug)]
pub struct Value {
    /// What it says.
    pub says: u32,
    _token: Token,
}

/// The outcome of a child of a [`Nest`]. It lives as long as the memory of the child.
#[derive(Debug)]
pub struct Hatched {
    values: Drops,
    _cell: Token,
}

impl Outcome<u32> for Hatched {
    type Value = Value;

    fn finished(&self, says: u32, _: Origin) -> Option<Value> {
        Some(Value { says, _token: self.values.token() })
    }

    fn panicked(&self, payload: Payload, _: Origin) {
        resume_unwind(payload);
    }

    fn cut(&self, _: Origin) {
        panic!("no child of a model is stuck");
    }
}

/// A child: a function that is polled, in a future that is watched. Loom fails the model where two threads touch it at once.
pub struct Child<F> {
    poll: F,
    touched: UnsafeLoomCell<u32>,
    _token: Token,
    _pinned: PhantomPinned,
}

impl<F: FnMut(&mut Context<'_>) -> Poll<u32>> Future for Child<F> {
    type Output = u32;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<u32> {
        // SAFETY: nothing is moved out.
        let this = unsafe { self.get_unchecked_mut() };
        // SAFETY: loom fails the model if somebody else is at it.
        this.touched.with_mut(|touched| unsafe { *touched += 1 });
        (this.poll)(cx)
    }
}

impl<F> Drop for Child<F> {
    fn drop(&mut self) {
        // SAFETY: as above.
        self.touched.with_mut(|touched| unsafe { *touched += 1 });
    }
}

impl<'env> Nest<'env> {
    /// An empty one, whose body is done.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let place = Location::caller();
        let mut queue = ReadyBox::nested(place);
        let scope = Box::pin(Scope::new(Kind::Nursery, place));
        let above = Woken::new();
        queue.set_body_done();
        above.poll(|cx| queue.run(&scope, cx, |_| {}));
        let (cells, futures, values) = (Drops::new(), Drops::new(), Drops::new());
        Self { scope, queue: Some(queue), above, cells, futures, values, _env: PhantomData }
    }

    /// Spawns a child, from wherever this is called.
    pub fn spawn(&self, poll: impl FnMut(&mut Context<'_>) -> Poll<u32> + 'env) -> RawJoin<Value> {
        self.spawner().spawn(poll)
    }

    /// For spawning on another thread, while this one has the nest.
    pub fn spawner(&self) -> Spawner<'env> {
        let ready = self.queue.as_ref().unwrap().as_ptr();
        let (cells, futures, values) = (self.cells.clone(), self.futures.clone(), self.values.clone());
        Spawner { ready, cells, futures, values, _env: PhantomData }
    }

    /// One turn.
    pub fn run(&mut self) {
        let queue = self.queue.as_mut().unwrap();
        self.above.poll(|cx| queue.run(&self.scope, cx, |_| {}));
    }

    /// Turns, as long as something woke who polls this.
    pub fn settle(&mut self) {
        let queue = self.queue.as_mut().unwrap();
        self.above.settle(|cx| queue.run(&self.scope, cx, |_| {}));
        assert!(!queue.has_work(), "there is work, and nobody was told");
    }

    /// How many children are not done.
    pub fn live(&self) -> usize {
        self.queue.as_ref().unwrap().live()
    }

    /// One turn, in which all children that are left end, and the end of the nursery.
    ///
    /// # Panics
    /// If one is left.
    pub fn finish(&mut self) {
        self.run();
        assert_eq!(self.live(), 0);
        self.tear_down();
    }

    /// The end of the nursery, orderly or not: no future is left afterwards.
    pub fn tear_down(&mut self) {
        let mut queue = self.queue.take().unwrap();
        queue.close(&self.scope);
        assert!(self.futures.all());
        drop(queue);
    }

    /// To be called when every waker and every handle is gone.
    ///
    /// # Panics
    /// If anything is left.
    pub fn assert_gone(&self) {
        assert!(self.queue.is_none());
        assert!(self.futures.all() && self.values.all(), "something was not dropped");
        assert!(self.cells.all(), "a child leaked");
        assert_eq!(self.above.wakers(), 0, "the queue leaked");
    }
}

/// See [`Nest::spawner`].
#[derive(Debug)]
pub struct Spawner<'env> {
    ready: *const Ready,
    cells: Drops,
    futures: Drops,
    values: Drops,
    _env: PhantomData<fn(&'env ()) -> &'env ()>,
}

impl<'env> Spawner<'env> {
    /// Spawns a child.
    pub fn spawn(&self, poll: impl FnMut(&mut Context<'_>) -> Poll<u32> + 'env) -> RawJoin<Value> {
        let outcome = Hatched { values: self.values.clone(), _cell: self.cells.token() };
        let future =
            Child { poll, touched: UnsafeLoomCell::new(0), _token: self.futures.token(), _pinned: PhantomPinned };
        // SAFETY: the models keep the queue while they spawn, and what the children borrow until it is closed.
        unsafe { Ready::spawn(self.ready, future, outcome, Location::caller()) }
    }
}
