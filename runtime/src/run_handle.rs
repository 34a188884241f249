//! Entry from outside: any thread has a closure run on the loop of a run (R88, R89).
//!
//! A call is a node in an [`Inbox`]. The loop takes them out and runs a slice of them in each turn, in the order in which they came. At
//! the end of the run the inbox is closed: what is in it is run, and everything after is refused. The inbox decides which of the two
//! it is for each call, so no call is accepted and then forgotten.
//!
//! ```text
//!   RunHandle::run_soon ──▶ inbox ──▶ Calls::run, in each turn ──▶ the closure runs
//!            │                └────── Calls::close, at the end ──▶ the closure runs
//!            └── refused ──▶ RunFinished, with the closure
//! ```
//!
//! A [`Coalesced`] call is one node that comes and goes, with a word that says whether it is `pending`. Whoever finds it pending returns
//! at once, and so relies on the thread that has set the word and may not have pushed yet. Hence the `gate`: a thread that is inside of it
//! keeps the inbox open, the word is set inside only, and the run waits at its end for those inside, which are at it for a few instructions.
//!
//! Invariants, which the `SAFETY` comments name:
//! - **\[NODE\]** A call in the inbox is kept alive by what was pushed with it: its box, or a reference of its signal. Who takes it
//!   out, or is refused, gets that back.
//! - **\[PENDING\]** The right to push the node of a signal is that of who has changed `pending` to true. It is changed back when the node
//!   is out of every list.
//! - **\[LOOP\]** A call is run by the thread of the run, one after the other.

use crate::context;
use crate::payload::Payload;
use crate::sync::inbox::{Inbox, Linked, Pushed};
use crate::sync::{self, Arc, AtomicBool, AtomicPtr, AtomicUsize, Ordering, UnsafeCell};
use crate::tree::Tree;
use crate::worker;
use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::ptr;

/// How many calls are run in one turn: what comes faster waits for tasks, deadlines and I/O to have theirs.
const SLICE: usize = 256;

/// The gate: this bit, and above it how many threads are inside.
const CLOSED: usize = 1;
const INSIDE: usize = 2;

/// A call, as the queue sees it: the first field of what has the closure.
struct Call {
    link: AtomicPtr<Call>,
    /// Takes back what keeps the call alive, and runs the closure. \[LOOP\]
    run: unsafe fn(*const Call),
    /// Where it was asked for.
    place: &'static Location<'static>,
}

// SAFETY: `link` is the field that only the list that holds the call uses.
unsafe impl Linked for Call {
    fn link(&self) -> &AtomicPtr<Call> {
        &self.link
    }
}

impl Call {
    fn new(run: unsafe fn(*const Call), place: &'static Location<'static>) -> Self {
        Self { link: AtomicPtr::new(ptr::null_mut()), run, place }
    }
}

struct Queue {
    inbox: Inbox<Call>,
    gate: AtomicUsize,
    /// How many handles there are.
    handles: AtomicUsize,
    tree: &'static Tree,
}

/// Inside of the gate.
struct Inside<'a>(&'a AtomicUsize);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(INSIDE, Ordering::Release);
    }
}

impl Queue {
    /// None if the run has ended.
    fn enter(&self) -> Option<Inside<'_>> {
        let before = self.gate.fetch_add(INSIDE, Ordering::Acquire);
        let inside = Inside(&self.gate);
        (before & CLOSED == 0).then_some(inside)
    }

    /// Whether it was accepted.
    ///
    /// # Safety
    /// \[NODE\], and the caller may push it.
    unsafe fn push(&self, call: *const Call) -> bool {
        // SAFETY: the caller's word.
        match unsafe { self.inbox.push(call) } {
            // The tree may be that of another run by now, if this one has ended meanwhile: it wakes up for nothing.
            Pushed::First => self.tree.parker.unpark(),
            Pushed::Behind => {}
            Pushed::Refused => return false,
            Pushed::Watched => unreachable!("nobody watches calls"),
        }
        true
    }
}

// ---- The run's side ------------------------------------------------------------------------------------------------

/// The calls of a run. Owned by its loop.
pub struct Calls {
    queue: Arc<Queue>,
    /// Taken out of the inbox, and not run yet.
    taken: Cell<*const Call>,
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Calls")
    }
}

impl Calls {
    /// None yet, for the run that has this tree.
    pub fn new(tree: &'static Tree) -> Self {
        let (gate, handles) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { queue: Arc::new(Queue { inbox: Inbox::new(), gate, handles, tree }), taken: Cell::new(ptr::null()) }
    }

    /// One more handle.
    pub fn handle(&self) -> RunHandle {
        RunHandle::new(self.queue.clone())
    }

    /// How many handles there are.
    pub fn handles(&self) -> usize {
        self.queue.handles.load(Ordering::Acquire)
    }

    /// Whether there is a call to run.
    pub fn has_work(&self) -> bool {
        !self.taken.get().is_null() || !self.queue.inbox.is_empty()
    }

    /// Runs a slice of those that were there before, in order.
    pub fn run(&self, mut panicked: impl FnMut(Payload)) {
        if self.taken.get().is_null() {
            self.taken.set(self.queue.inbox.take());
        }
        for _ in 0..SLICE {
            if !self.run_first(&mut panicked) {
                return;
            }
        }
    }

    /// Refuses all further calls, and runs those that were accepted, in order.
    pub fn close(&self, mut panicked: impl FnMut(Payload)) {
        self.queue.gate.fetch_or(CLOSED, Ordering::AcqRel);
        while self.queue.gate.load(Ordering::Acquire) != CLOSED {
            sync::spin();
        }
        let rest = self.queue.inbox.close();
        while self.run_first(&mut panicked) {}
        self.taken.set(rest);
        while self.run_first(&mut panicked) {}
    }

    fn run_first(&self, panicked: &mut impl FnMut(Payload)) -> bool {
        let call = self.taken.get();
        if call.is_null() {
            return false;
        }
        // SAFETY: [NODE]: it is out of the inbox, and ours.
        let (next, run, place) = unsafe { ((*call).link.load(Ordering::Relaxed), (*call).run, (*call).place) };
        self.taken.set(next);
        let current = &self.queue.tree.current;
        // So that it is named if it holds up the loop.
        current.set_call(Some(place));
        // SAFETY: [NODE], and [LOOP].
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| unsafe { run(call) })) {
            panicked(payload);
        }
        current.set_call(None);
        true
    }
}

impl Drop for Calls {
    /// The run has closed it, unless its first handle was made by what the run dropped last.
    fn drop(&mut self) {
        self.close(crate::payload::discard);
    }
}

// ---- Everybody's side ----------------------------------------------------------------------------------------------

/// A handle of a run, by which any thread has closures run on its loop. See [`run_handle`].
pub struct RunHandle {
    queue: Arc<Queue>,
}

impl fmt::Debug for RunHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunHandle")
    }
}

impl Clone for RunHandle {
    fn clone(&self) -> Self {
        Self::new(self.queue.clone())
    }
}

impl Drop for RunHandle {
    fn drop(&mut self) {
        if self.queue.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Nobody can call any more: a run in which every task waits may be in a deadlock now (N10).
            self.queue.tree.parker.unpark();
        }
    }
}

#[repr(C)]
struct Once<F> {
    call: Call,
    f: F,
}

impl<F: FnOnce()> Once<F> {
    unsafe fn run(call: *const Call) {
        // SAFETY: [NODE]: it was a box of this type.
        let Once { f, .. } = *unsafe { Box::from_raw(call.cast::<Self>().cast_mut()) };
        f();
    }
}

impl RunHandle {
    fn new(queue: Arc<Queue>) -> Self {
        queue.handles.fetch_add(1, Ordering::Relaxed);
        Self { queue }
    }

    /// Has a closure run on the loop of the run, soon: in one of its next turns, in the order of the calls (R88). From any thread, which
    /// does not wait.
    ///
    /// A call that was accepted is run before the run ends, also if its main future is done already (R89). In each turn at most 256 are
    /// run, and then tasks and I/O have their turn; one that calls itself again is run again in a later turn.
    ///
    /// The closure runs outside of every task, in the outermost scope: it may set an event, send with `try_send`,
    /// cancel, or spawn by a handle of a nursery. It must not block: one that does is named, as a task is, with the place of this call. If it panics, the run is cancelled, its main future is awaited, and
    /// the panic comes out of the run; later calls are run all the same.
    ///
    /// # Errors
    /// [`RunFinished`], with the closure, if the run has ended.
    ///
    /// # Examples
    /// ```
    /// # trefoil_runtime::doc_run(async {
    /// use std::sync::atomic::{AtomicU32, Ordering};
    /// use trefoil_runtime::{RunHandle, checkpoint, run_handle};
    ///
    /// static CALLS: AtomicU32 = AtomicU32::new(0);
    ///
    /// let handle: RunHandle = run_handle();
    /// let thread = std::thread::spawn(move || handle.run_soon(|| _ = CALLS.fetch_add(1, Ordering::Relaxed)).is_ok());
    /// while CALLS.load(Ordering::Relaxed) == 0 {
    ///     checkpoint().await?;
    /// }
    /// assert!(thread.join().unwrap());
    /// # Ok::<(), trefoil_runtime::Cancelled>(()) }).unwrap();
    /// ```
    #[track_caller]
    pub fn run_soon<F: FnOnce() + Send + 'static>(&self, f: F) -> Result<(), RunFinished<F>> {
        let once = Box::into_raw(Box::new(Once { call: Call::new(Once::<F>::run, Location::caller()), f }));
        // SAFETY: [NODE]: the box goes with it.
        if unsafe { self.queue.push(once.cast_const().cast()) } {
            return Ok(());
        }
        // SAFETY: [NODE]: it was refused.
        let Once { f, .. } = *unsafe { Box::from_raw(once) };
        Err(RunFinished(f))
    }

    /// A call that can be made again and again, of which at most one is pending (R88): for "something has changed, look".
    ///
    /// # Examples
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU32, Ordering};
    /// use trefoil_runtime::{checkpoint, run_handle};
    ///
    /// # trefoil_runtime::doc_run(async {
    /// let looks = Arc::new(AtomicU32::new(0));
    /// let counted = looks.clone();
    /// let look = run_handle().coalesced(move || _ = counted.fetch_add(1, Ordering::Relaxed));
    /// for _ in 0..1_000 {
    ///     look.fire().unwrap();
    /// }
    /// checkpoint().await?;
    /// assert_eq!(looks.load(Ordering::Relaxed), 1);
    /// # Ok::<(), trefoil_runtime::Cancelled>(()) }).unwrap();
    /// ```
    #[track_caller]
    pub fn coalesced<F: FnMut() + Send + 'static>(&self, f: F) -> Coalesced<F> {
        let (call, pending) = (Call::new(Signal::<F>::run, Location::caller()), AtomicBool::new(false));
        Coalesced { signal: Arc::new(Signal { call, pending, f: UnsafeCell::new(f) }), handle: self.clone() }
    }
}

#[repr(C)]
struct Signal<F> {
    call: Call,
    pending: AtomicBool,
    f: UnsafeCell<F>,
}

// SAFETY: the closure is called by one thread ([LOOP]) and dropped with the last reference; the rest is made to be shared.
unsafe impl<F: Send> Send for Signal<F> {}
// SAFETY: as above: nothing is done with the closure through `&Signal` but by the loop.
unsafe impl<F: Send> Sync for Signal<F> {}

impl<F: FnMut()> Signal<F> {
    unsafe fn run(call: *const Call) {
        // SAFETY: [NODE]: the reference that was pushed.
        let signal = unsafe { Arc::from_raw(call.cast::<Self>()) };
        // Before the call: who fires from here on may have something new for it to see. [PENDING]: it is out of the list.
        signal.pending.swap(false, Ordering::AcqRel);
        // SAFETY: [LOOP].
        signal.f.with_mut(|f| unsafe { (*f)() });
    }
}

/// A call of which at most one is pending. See [`RunHandle::coalesced`].
pub struct Coalesced<F> {
    signal: Arc<Signal<F>>,
    handle: RunHandle,
}

impl<F> fmt::Debug for Coalesced<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Coalesced")
    }
}

impl<F> Clone for Coalesced<F> {
    fn clone(&self) -> Self {
        Self { signal: self.signal.clone(), handle: self.handle.clone() }
    }
}

impl<F: FnMut() + Send + 'static> Coalesced<F> {
    /// Has the closure run soon, as [`RunHandle::run_soon`] does; nothing more if it is pending already.
    ///
    /// The closure begins after this call does, and sees what was written before. It is dropped with the last clone of this, wherever
    /// that is, or by the run after the last call.
    ///
    /// # Errors
    /// [`RunFinished`] if the run has ended.
    ///
    /// # Examples
    /// ```
    /// # trefoil_runtime::doc_run(async {
    /// let look = trefoil_runtime::run_handle().coalesced(|| println!("something has changed"));
    /// let clone = look.clone();
    /// std::thread::spawn(move || _ = clone.fire());
    /// look.fire().unwrap();
    /// # });
    /// ```
    pub fn fire(&self) -> Result<(), RunFinished> {
        let pending = &self.signal.pending;
        // A write of the same value, so that the call that is pending sees what happened before this.
        if pending.compare_exchange(true, true, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            return Ok(());
        }
        let queue = &self.handle.queue;
        let Some(_inside) = queue.enter() else { return Err(RunFinished(())) };
        if !pending.swap(true, Ordering::AcqRel) {
            let call = Arc::into_raw(self.signal.clone());
            // SAFETY: [PENDING], [NODE].
            let pushed = unsafe { queue.push(call.cast()) };
            assert!(pushed, "the inbox stays open while somebody is inside of the gate");
        }
        Ok(())
    }
}

/// The run has ended: a call was refused. With the closure, if there was one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RunFinished<F = ()>(pub F);

impl<F> fmt::Debug for RunFinished<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunFinished")
    }
}

impl<F> fmt::Display for RunFinished<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the run has ended, and the call was refused")
    }
}

impl<F> std::error::Error for RunFinished<F> {}

/// A handle of the run on this thread, for other threads, signal handlers and foreign event loops.
///
/// While there is one, a run in which every task waits is not reported as a deadlock (N10): somebody may still call.
///
/// # Panics
/// Outside of a run.
///
/// # Examples
/// ```
/// # trefoil_runtime::doc_run(async {
/// let handle = trefoil_runtime::run_handle();
/// handle.run_soon(|| println!("in the next turn")).unwrap();
/// # });
/// ```
#[track_caller]
pub fn run_handle() -> RunHandle {
    let tree = context::tree();
    worker::with(|worker| tree.map(|tree| worker.calls.get_or_init(|| Calls::new(tree)).handle()))
        .flatten()
        .unwrap_or_else(|| context::outside("`run_handle`"))
}
