//! What the loom models share: a runner that counts and compares, threads that race, wakers and values that are counted, and an
//! allocator that finds what is used after it was freed.
//!
//! How a model is made. It sets something up, lets two or three closures race ([`Order::race2`], [`Order::race3`]), then polls
//! whatever was woken until nothing is ([`Woken::settle`]), and looks at the end: what should be over is, each value was
//! dropped once, each count of references is back where it began. It returns what it saw; all that was seen over all
//! executions must be exactly what was expected.
//!
//! **Orders.** Loom 0.7 remembers one last access per atomic, so a thread that loads a word before it stores to it hides the load
//! that another thread did before: loom then never tries the store first. Which thread comes first in the first execution decides
//! what is hidden. Hence each model runs once for every rotation of its threads, which puts every pair in both orders.
//!
//! **Memory.** Loom sees the accesses to its own atomics and cells, but not that they were freed. [`Poison`] is the allocator of every
//! model: what is freed is overwritten and kept back for a while. A loom object there has an index that no execution has, so
//! that its next access fails the model; a plain write is found when the block is let go.

#![cfg(trefoil_loom)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{RefCell, UnsafeCell};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::marker::{PhantomData, PhantomPinned};
use std::panic::{Location, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool as StdBool, AtomicUsize as Count, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use trefoil_runtime::model::{Tree, free_tree, link, unlink};
use trefoil_runtime::sync::{AtomicBool, UnsafeCell as UnsafeLoomCell};
use trefoil_runtime::{Kind, Origin, Outcome, Payload, RawJoin, Ready, ReadyBox, Scope, Source};

// ---- The runner ----------------------------------------------------------------------------------------------------

/// A model to be run.
#[derive(Debug)]
pub struct Model {
    name: &'static str,
    threads: usize,
    bound: Option<usize>,
    least: usize,
}

/// A model of two racing threads, explored without a bound.
pub fn model(name: &'static str) -> Model {
    Model { name, threads: 2, bound: None, least: 3 }
}

impl Model {
    /// Three threads race.
    pub fn three(self) -> Self {
        Self { threads: 3, ..self }
    }

    /// At most so many preemptions. `LOOM_MAX_PREEMPTIONS` overrides it (`none`: unbounded).
    pub fn bound(self, preemptions: usize) -> Self {
        Self { bound: Some(preemptions), ..self }
    }

    /// Runs it, once for each order of its threads, and compares all that it returned with `expected`.
    ///
    /// # Panics
    /// If an order has hardly any executions, or the outcomes are not those expected.
    pub fn check<O>(self, expected: impl IntoIterator<Item = O>, execution: impl Fn(Order) -> O + Send + Sync + 'static)
    where
        O: Ord + Debug + Send + 'static,
    {
        let began = Instant::now();
        let execution = Arc::new(execution);
        let outcomes = Arc::new(Mutex::new(BTreeSet::new()));
        let mut executions = Vec::new();
        for first in 0..self.threads {
            let count = Arc::new(Count::new(0));
            let (execution, counted, seen) = (execution.clone(), count.clone(), outcomes.clone());
            let mut builder = loom::model::Builder::new();
            builder.max_branches = 10_000;
            builder.preemption_bound = match std::env::var("LOOM_MAX_PREEMPTIONS") {
                Ok(bound) => bound.parse().ok(),
                Err(_) => self.bound,
            };
            builder.check(move || {
                counted.fetch_add(1, Ordering::Relaxed);
                let outcome = execution(Order { first });
                seen.lock().unwrap().insert(outcome);
            });
            executions.push(count.load(Ordering::Relaxed));
        }
        let outcomes = outcomes.lock().unwrap();
        println!(
            "{}: {executions:?} executions in {:.2?}, {} outcomes: {outcomes:?}",
            self.name,
            began.elapsed(),
            outcomes.len()
        );
        assert!(executions.iter().all(|&count| count >= self.least), "loom explored next to nothing: {executions:?}");
        assert_eq!(*outcomes, expected.into_iter().collect::<BTreeSet<_>>(), "the outcomes seen, and those expected");
    }
}

/// Which thread goes first in the first execution.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    first: usize,
}

impl Order {
    /// Runs both at once, one of them on this thread, to their end.
    pub fn race2<A, B>(self, a: impl FnOnce() -> A, b: impl FnOnce() -> B) -> (A, B) {
        let (mut got_a, mut got_b) = (None, None);
        self.run(vec![Box::new(|| got_a = Some(a())), Box::new(|| got_b = Some(b()))]);
        (got_a.unwrap(), got_b.unwrap())
    }

    /// Runs three at once, one of them on this thread, to their end.
    pub fn race3<A, B, C>(self, a: impl FnOnce() -> A, b: impl FnOnce() -> B, c: impl FnOnce() -> C) -> (A, B, C) {
        let (mut got_a, mut got_b, mut got_c) = (None, None, None);
        self.run(vec![Box::new(|| got_a = Some(a())), Box::new(|| got_b = Some(b())), Box::new(|| got_c = Some(c()))]);
        (got_a.unwrap(), got_b.unwrap(), got_c.unwrap())
    }

    fn run(self, mut threads: Vec<Box<dyn FnOnce() + '_>>) {
        threads.rotate_left(self.first);
        let mut threads = threads.into_iter();
        let here = threads.next().expect("a race has threads");
        let others: Vec<_> = threads
            .map(|thread| {
                // SAFETY: all are joined below. If one panics, the whole execution is over and nothing runs on.
                let thread: Box<dyn FnOnce() + 'static> = unsafe { std::mem::transmute(thread) };
                loom::thread::spawn(thread)
            })
            .collect();
        here();
        for other in others {
            other.join().unwrap();
        }
    }
}

// ---- What is counted -----------------------------------------------------------------------------------------------

/// A waker of the model's own, which remembers that it was woken.
#[derive(Clone, Debug)]
pub struct Woken(Arc<Flag>);

#[derive(Debug)]
struct Flag {
    woken: AtomicBool,
    times: Count,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.times.fetch_add(1, Ordering::Relaxed);
        self.woken.swap(true, Ordering::AcqRel);
    }
}

impl Woken {
    /// Not woken yet.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(Arc::new(Flag { woken: AtomicBool::new(false), times: Count::new(0) }))
    }

    /// One more waker.
    pub fn waker(&self) -> Waker {
        self.0.clone().into()
    }

    /// Whether it was woken since this was last asked.
    pub fn take(&self) -> bool {
        self.0.woken.swap(false, Ordering::AcqRel)
    }

    /// How often it was woken.
    pub fn times(&self) -> usize {
        self.0.times.load(Ordering::Relaxed)
    }

    /// How many wakers there are.
    pub fn wakers(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }

    /// Calls `poll`, with this waker, as a task does: what woke it before is forgotten.
    pub fn poll<R>(&self, poll: impl FnOnce(&mut Context<'_>) -> R) -> R {
        self.take();
        poll(&mut Context::from_waker(&self.waker()))
    }

    /// Polls as long as it was woken.
    ///
    /// # Panics
    /// If there is no end to it.
    pub fn settle(&self, mut poll: impl FnMut(&mut Context<'_>)) {
        for _ in 0..20 {
            if !self.take() {
                return;
            }
            self.poll(&mut poll);
        }
        panic!("woken again and again");
    }
}

/// Counts values that come and go.
#[derive(Clone, Debug, Default)]
pub struct Drops(Arc<(Count, Count)>);

impl Drops {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A value that counts its drop, and fails where it is dropped twice.
    pub fn token(&self) -> Token {
        self.0.0.fetch_add(1, Ordering::Relaxed);
        Token { drops: self.clone(), gone: StdBool::new(false) }
    }

    /// How many were dropped.
    pub fn count(&self) -> usize {
        self.0.1.load(Ordering::Relaxed)
    }

    /// Whether all were dropped.
    pub fn all(&self) -> bool {
        self.0.0.load(Ordering::Relaxed) == self.count()
    }
}

/// See [`Drops::token`].
#[derive(Debug)]
pub struct Token {
    drops: Drops,
    gone: StdBool,
}

impl Drop for Token {
    fn drop(&mut self) {
        assert!(!self.gone.swap(true, Ordering::Relaxed), "dropped twice");
        self.drops.0.1.fetch_add(1, Ordering::Relaxed);
    }
}

/// A tree that ends with the execution. It comes first in a model, so that it goes last.
#[derive(Debug)]
pub struct Run {
    /// The tree.
    pub tree: &'static Tree,
}

impl Run {
    /// A tree, and nothing in it.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { tree: Tree::leaked() }
    }

    /// Calls `f` in a scope of this tree.
    pub fn within<R>(&self, scope: &Scope, f: impl FnOnce() -> R) -> R {
        trefoil_runtime::model::within(self.tree, scope, f)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: the execution is over, and whatever used it went before.
            unsafe { free_tree(self.tree) }
        }
    }
}

/// An operation in a scope of its own, which one thread polls and any thread cancels. It is freed as soon as it is over.
pub struct Task<'a, F: Future> {
    future: RefCell<Option<Pin<Box<F>>>>,
    /// Its scope.
    pub scope: Pin<Box<Scope>>,
    /// Its waker.
    pub woken: Woken,
    run: &'a Run,
}

impl<F: Future> Debug for Task<'_, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Task")
    }
}

impl<'a, F: Future> Task<'a, F> {
    /// One that has not begun.
    pub fn new(run: &'a Run, future: F) -> Self {
        let scope = Box::pin(Scope::new(Kind::Scope, Location::caller()));
        // SAFETY: it is pinned, and unlinked in `end`.
        unsafe { link(&scope, run.tree, None) };
        Self { future: RefCell::new(Some(Box::pin(future))), scope, woken: Woken::new(), run }
    }

    /// One that waits.
    pub fn waiting(run: &'a Run, future: F) -> Self {
        let this = Self::new(run, future);
        assert!(this.poll().is_pending());
        this
    }

    fn poll_with(&self, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut future = self.future.borrow_mut();
        let polled = self.run.within(&self.scope, || future.as_mut().expect("it is not over").as_mut().poll(cx));
        if polled.is_ready() {
            *future = None;
        }
        polled
    }

    /// Polls it once.
    pub fn poll(&self) -> Poll<F::Output> {
        self.woken.poll(|cx| self.poll_with(cx))
    }

    /// Polls it as long as it is woken, after a poll that came to this.
    pub fn settle(&self, polled: Poll<F::Output>) -> Poll<F::Output> {
        let mut polled = polled;
        self.woken.settle(|cx| {
            if polled.is_pending() {
                polled = self.poll_with(cx);
            }
        });
        polled
    }

    /// What it comes to.
    ///
    /// # Panics
    /// If it was not woken: a wake-up was lost.
    pub fn end_of(&self, polled: Poll<F::Output>) -> F::Output {
        match self.settle(polled) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("a wake-up was lost"),
        }
    }

    /// Cancels its scope.
    pub fn cancel(&self) {
        self.scope.cancel(Source::Explicit, Location::caller());
    }

    /// Drops the operation where it is.
    pub fn give_up(&self) {
        drop(self.future.borrow_mut().take());
    }

    /// The end of it and of its scope.
    ///
    /// # Panics
    /// If somebody kept its waker.
    pub fn end(self) {
        self.give_up();
        unlink(&self.scope);
        assert_eq!(self.woken.wakers(), 0, "a waker was kept");
    }
}

// ---- Children ------------------------------------------------------------------------------------------------------

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

// ---- The allocator -------------------------------------------------------------------------------------------------

/// Overwrites what is freed, keeps it back for a while, and then looks whether somebody wrote to it.
#[derive(Debug)]
pub struct Poison {
    lock: StdBool,
    kept: UnsafeCell<Kept>,
}

struct Kept {
    blocks: [(*mut u8, Layout); KEPT],
    next: usize,
}

const KEPT: usize = 1 << 14;
const LARGEST: usize = 1 << 10;
const POISON: u8 = 0xDB;

// SAFETY: `kept` is used under the lock.
unsafe impl Sync for Poison {}

impl Poison {
    const fn new() -> Self {
        let none = (std::ptr::null_mut(), Layout::new::<u8>());
        Self { lock: StdBool::new(false), kept: UnsafeCell::new(Kept { blocks: [none; KEPT], next: 0 }) }
    }
}

#[global_allocator]
static ALLOCATOR: Poison = Poison::new();

// SAFETY: blocks come from and go to the system's allocator, with their own layouts, once.
unsafe impl GlobalAlloc for Poison {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's word.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if layout.size() > LARGEST {
            // SAFETY: the caller's word.
            return unsafe { System.dealloc(block, layout) };
        }
        // SAFETY: the block is ours now, and that which comes out was kept since it was freed.
        unsafe {
            block.write_bytes(POISON, layout.size());
            while self.lock.swap(true, Ordering::Acquire) {
                std::hint::spin_loop();
            }
            let kept = &mut *self.kept.get();
            let (old, old_layout) = std::mem::replace(&mut kept.blocks[kept.next], (block, layout));
            kept.next = (kept.next + 1) % KEPT;
            self.lock.store(false, Ordering::Release);
            if !old.is_null() {
                if std::slice::from_raw_parts(old, old_layout.size()).iter().any(|&byte| byte != POISON) {
                    eprintln!("a block of {} bytes was written to after it was freed", old_layout.size());
                    std::process::abort();
                }
                System.dealloc(old, old_layout);
            }
        }
    }
}
