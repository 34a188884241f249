//! The one blocking primitive. Every operation that waits, waits here; and here is the one race of the whole library between
//! completing an operation and cancelling it.
//!
//! A [`Park`] belongs to one operation (or, for sockets, to one direction of one). Its owner begins a wait, which links it into
//! the current scope with a reason and a place; then either somebody completes it, from any thread, or the scope aborts it when
//! it is cancelled. The first wins (R18, R19), for good, and takes the waker.
//!
//! ```text
//!          begin            claim            take the waker ── DONE ──── poll: Ready(Ok)  ──▶ IDLE
//!   IDLE ────────▶ WAITING ───────▶ CLAIMED ─────────────────┤
//!    ▲               │  ▲                                     ABORTED ─ poll: Ready(Err) ──▶ IDLE
//!    │ end, drop     ▼  │ poll with another waker
//!    └─────────── WAITING|BUSY ── claimed meanwhile: DONE or ABORTED at once; the owner sees it
//! ```
//!
//! Publishing the outcome is the last thing that who completes or aborts does with the park: from then on the owner may begin
//! another wait with it, or free it.
//!
//! Invariants, which the `SAFETY` comments name:
//! - **\[OWNER\]** `begin`, `poll`, `end` and `drop` are called by one thread at a time: the one that polls the operation.
//! - **\[WAKER\]** The waker is touched by: the owner in `IDLE`, or once the outcome is published; the owner, or a cancel, that set
//!   `BUSY`; who set `CLAIMED`. Who finds `BUSY` leaves the wake-up to who set it.
//! - **\[LOCKED\]** `links` is touched under the lock of the tree that `tree` names. A linked park is unlinked before it is dropped,
//!   and it cannot move since it is pinned: so the pointers in a scope's list are valid under the lock.

use crate::blind::BLIND;
use crate::cancelled::Cancelled;
use crate::context;
use crate::heap::NOWHERE;
use crate::holders::Thing;
use crate::ready::{self, Header};
use crate::reason::Manner;
pub use crate::reason::Reason;
use crate::record::{self, Ended};
use crate::scope::Scope;
use crate::sync::{AtomicPtr, AtomicU32, Ordering, UnsafeCell};
use crate::tree::Tree;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomPinned;
use std::panic::Location;
use std::pin::Pin;
use std::ptr;
use std::task::{Context, Poll, Waker};

const WAITING: u32 = 1;
const BUSY: u32 = 2;
const DONE: u32 = 4;
const ABORTED: u32 = 8;
/// A cancel was requested of an operation that only its owner can end ([`Abort::Ask`]).
const ASKED: u32 = 16;
/// Somebody is about to publish the outcome, and has the waker.
const CLAIMED: u32 = 32;
/// Idle, with the waker of the wait that is about to begin.
const PREPARED: u32 = 64;

/// It was polled with another waker than that of the task itself: a combinator's.
const OTHER: u32 = 128;

const IDLE: u32 = 0;
const OVER: u32 = DONE | ABORTED;

/// For who records, of a wait that is over.
fn ended(state: u32) -> Ended {
    match state & OVER {
        0 => Ended::Dropped,
        DONE if state & ASKED == 0 => Ended::Done,
        // Also where a cancel has asked the owner to complete it.
        _ => Ended::Cancelled,
    }
}

/// What a cancel does to a wait (Trio's abort function, R15–R17, as a value).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    /// The wait ends at once, with no effect.
    AtOnce,
    /// The same, but for a cancel that is told once ([`Scope::cancel_once`]): that passes it over.
    Lasting,
    /// Only the owner can end it: it is polled, finds [`Park::cancel_asked`], and completes the wait when the other side (the
    /// kernel) has let go.
    Ask,
}

/// How, why and where an operation waits.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// What for.
    pub reason: Reason,
    /// Where in the program.
    pub place: &'static Location<'static>,
    /// What a cancel does to it.
    pub abort: Abort,
    /// When it ends by itself: nanoseconds on the run's clock, `u64::MAX` for never.
    pub until: u64,
}

impl Wait {
    /// A wait that ends when somebody completes it, or at once when it is cancelled.
    #[track_caller]
    pub fn new(reason: Reason) -> Self {
        Self { reason, place: Location::caller(), abort: Abort::AtOnce, until: u64::MAX }
    }

    /// The same, waiting at `place`.
    pub fn at(self, place: &'static Location<'static>) -> Self {
        Self { place, ..self }
    }
}

/// What a wait is for, where that is known: who could end it (N10).
#[derive(Clone, Copy, Debug)]
pub(crate) enum On {
    /// The end of the child whose header has this address, if it is not 0. To be compared only.
    Child(usize),
    /// So many units of something that others hold.
    Thing(Thing, u32),
}

impl On {
    pub const UNKNOWN: Self = Self::Child(0);
}

/// Links into the scope's list, and what the wait is. \[LOCKED\].
pub(crate) struct Links {
    pub prev: *const Park,
    pub next: *const Park,
    pub since: u64,
    manner: Manner,
}

impl Links {
    pub(crate) fn reason(&self) -> Reason {
        self.manner.reason()
    }

    pub(crate) fn abort(&self) -> Abort {
        self.manner.abort
    }
}

/// The one blocking primitive. See the module.
pub struct Park {
    state: AtomicU32,
    /// Place in the heap of deadlines; [LOCKED].
    pub(crate) index: Cell<u32>,
    waker: UnsafeCell<Option<Waker>>,
    /// In whose list it is; null while it is in none. Written under the lock, read by the owner without it.
    pub(crate) scope: AtomicPtr<Scope>,
    /// The task that waits. As `scope`.
    pub(crate) task: AtomicPtr<Header>,
    tree: Cell<Option<&'static Tree>>,
    /// Where it waits. Written by the owner, under the lock.
    place: Cell<&'static Location<'static>>,
    pub(crate) links: UnsafeCell<Links>,
    /// [OWNER] while it is in no list; read under the lock while it is in one.
    pub(crate) on: UnsafeCell<On>,
    _pinned: PhantomPinned,
}

// SAFETY: [OWNER], [WAKER] and [LOCKED] say who touches each field that is not atomic.
unsafe impl Send for Park {}
// SAFETY: as above; the owner's methods are `unsafe` or reached through what owns the park.
unsafe impl Sync for Park {}

impl fmt::Debug for Park {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.load(Ordering::Relaxed);
        let name = match state {
            s if s & DONE != 0 => "done",
            s if s & ABORTED != 0 => "aborted",
            s if s & WAITING != 0 => "waiting",
            _ => "idle",
        };
        write!(f, "Park({name})")
    }
}

impl Default for Park {
    fn default() -> Self {
        Self::new()
    }
}

/// What became of [`Park::complete`].
#[derive(Debug)]
#[must_use = "the waker has to be woken, outside of any lock"]
pub enum Completed {
    /// The wait was completed. Wake the waker, if one is here, outside of any lock.
    Won(Option<Waker>),
    /// There was no wait, or it was completed or cancelled before.
    Lost,
}

impl Completed {
    /// Wakes the owner; whether the wait was completed by this call.
    pub fn wake(self) -> bool {
        match self {
            Completed::Won(waker) => {
                if let Some(waker) = waker {
                    waker.wake();
                }
                true
            }
            Completed::Lost => false,
        }
    }
}

impl Park {
    /// One that waits for nothing yet.
    pub fn new() -> Self {
        Self::new_at(Location::caller())
    }

    /// The same, made at `place`.
    pub(crate) fn new_at(place: &'static Location<'static>) -> Self {
        Self {
            state: AtomicU32::new(IDLE),
            index: Cell::new(NOWHERE),
            waker: UnsafeCell::new(None),
            scope: AtomicPtr::new(ptr::null_mut()),
            task: AtomicPtr::new(ptr::null_mut()),
            tree: Cell::new(None),
            place: Cell::new(place),
            links: UnsafeCell::new(Links { prev: ptr::null(), next: ptr::null(), since: 0, manner: Manner::NONE }),
            on: UnsafeCell::new(On::UNKNOWN),
            _pinned: PhantomPinned,
        }
    }

    /// Where it was made, or waited last. For the owner, or under the lock of the tree it is linked in.
    pub(crate) fn place(&self) -> &'static Location<'static> {
        self.place.get()
    }

    /// Whether a wait was begun and its outcome not yet taken with [`poll`](Self::poll).
    pub fn is_active(&self) -> bool {
        self.state.load(Ordering::Acquire) & (WAITING | OVER) != 0
    }

    /// Whether it holds a waker of its task, and nothing in between, such as a combinator, does so for it.
    pub(crate) fn wakes_its_task(&self) -> bool {
        self.state.load(Ordering::Acquire) & OTHER == 0
    }

    /// Whether a wait was begun that is neither completed nor cancelled.
    pub(crate) fn is_waiting(&self) -> bool {
        self.state.load(Ordering::Acquire) & (WAITING | OVER | CLAIMED) == WAITING
    }

    /// Whether a park that is idle has to be [prepared](Self::prepare) before a wait is begun under a lock.
    #[inline]
    pub(crate) fn needs_prepare(cx: &Context<'_>) -> bool {
        !ready::is_ours(cx.waker()) || context::opens_foreign()
    }

    /// Clones the waker of a foreign executor ahead of a [`begin`](Self::begin) that is called under a lock: its `clone` is code of others,
    /// which may come back for that lock. Nothing to do for a waker of ours.
    ///
    /// # Safety
    /// \[OWNER\].
    pub unsafe fn prepare(&self, cx: &Context<'_>) {
        if self.is_active() {
            return;
        }
        if context::opens_foreign() {
            let _ = context::open_frame();
        }
        if ready::is_ours(cx.waker()) {
            if self.state.load(Ordering::Relaxed) & PREPARED != 0 {
                // One that was prepared, and not used, is of who polled before. It is dropped here, and not under the lock.
                self.state.store(IDLE, Ordering::Relaxed);
                // SAFETY: [WAKER]: IDLE, and the caller is the owner.
                drop(self.waker.with_mut(|slot| unsafe { &mut *slot }.take()));
            }
            return;
        }
        let waker = cx.waker().clone();
        // SAFETY: [WAKER]: IDLE, and the caller is the owner.
        let old = self.waker.with_mut(|slot| unsafe { &mut *slot }.replace(waker));
        self.state.store(IDLE | PREPARED, Ordering::Relaxed);
        drop(old);
    }

    /// Begins to wait, in the current scope. Call it before anybody can find this park to complete it.
    ///
    /// `Err` in a cancelled scope: nothing was begun. The waker stays until [`end`](Self::end).
    ///
    /// # Safety
    /// \[OWNER\].
    ///
    /// # Panics
    /// Outside of a run, and where a wait is going on already.
    pub unsafe fn begin(self: Pin<&Self>, cx: &mut Context<'_>, wait: Wait) -> Result<(), Cancelled> {
        // SAFETY: the caller's word.
        unsafe { self.begin_on(cx, wait, On::UNKNOWN) }
    }

    /// The same, for something of which it is known who could end the wait.
    pub(crate) unsafe fn begin_on(self: Pin<&Self>, cx: &mut Context<'_>, wait: Wait, on: On) -> Result<(), Cancelled> {
        let frame = if wait.abort == Abort::Lasting { context::guest_frame() } else { context::open_frame() };
        let Some(tree) = frame.tree else { context::outside("an operation of trefoil") };
        assert!(!self.is_active(), "a Park waits for one thing at a time");
        if self.state.load(Ordering::Relaxed) & PREPARED == 0 {
            let waker = cx.waker().clone();
            // SAFETY: [WAKER]: IDLE, and the caller is the owner.
            let old = self.waker.with_mut(|slot| unsafe { &mut *slot }.replace(waker));
            drop(old);
        }
        self.state.store(IDLE, Ordering::Relaxed);
        let mut locked = tree.lock();
        // SAFETY: [CURRENT] of the context module.
        let scope = unsafe { &*frame.scope };
        if scope.is_cancelled() && (wait.abort != Abort::Lasting || locked.is_cancelled_for_good(scope)) {
            return Err(Cancelled::delivered());
        }
        self.tree.set(Some(tree));
        // SAFETY: [OWNER]; it is in no list.
        self.on.with_mut(|known| unsafe {
            if !BLIND {
                *known = on;
            }
        });
        self.links.with_mut(|links| {
            // SAFETY: [LOCKED].
            let links = unsafe { &mut *links };
            links.manner = Manner::new(if BLIND { Reason::Forever } else { wait.reason }, wait.abort);
            if !BLIND {
                links.since = locked.now();
            }
        });
        if !BLIND {
            self.place.set(wait.place);
        }
        let other = if ready::is_of(cx.waker(), frame.task) { 0 } else { OTHER };
        self.state.store(WAITING | other, Ordering::Release);
        locked.link_park(&self, frame.scope, frame.task, wait.until);
        record::wait_begins(&self, &wait);
        Ok(())
    }

    /// Looks whether the wait is over: `Ok` completed, `Err` cancelled. Keeps the waker up to date otherwise.
    ///
    /// A wait that is polled in another scope or task than before belongs to that one from now on. One that ends by itself is polled with
    /// [`poll_until`](Self::poll_until).
    ///
    /// # Safety
    /// \[OWNER\].
    pub unsafe fn poll(self: Pin<&Self>, cx: &mut Context<'_>) -> Poll<Result<(), Cancelled>> {
        // SAFETY: the caller's word.
        unsafe { self.poll_until(cx, u64::MAX) }
    }

    /// The same for a wait that was begun with this `until`: where it belongs elsewhere from now on, that is what it ends at there.
    ///
    /// # Safety
    /// \[OWNER\].
    pub unsafe fn poll_until(self: Pin<&Self>, cx: &mut Context<'_>, until: u64) -> Poll<Result<(), Cancelled>> {
        // SAFETY: the caller's word.
        unsafe { self.poll_in(cx, until, context::open_frame) }
    }

    /// The same for a wait that was begun as [`Abort::Lasting`].
    ///
    /// # Safety
    /// \[OWNER\].
    pub(crate) unsafe fn poll_lasting(self: Pin<&Self>, cx: &mut Context<'_>) -> Poll<Result<(), Cancelled>> {
        // SAFETY: the caller's word.
        unsafe { self.poll_in(cx, u64::MAX, context::guest_frame) }
    }

    unsafe fn poll_in(
        self: Pin<&Self>,
        cx: &mut Context<'_>,
        until: u64,
        frame: impl FnOnce() -> context::Frame,
    ) -> Poll<Result<(), Cancelled>> {
        let mut state = self.state.load(Ordering::Acquire);
        if state & OVER == 0 {
            debug_assert!(state & WAITING != 0, "polled a Park that waits for nothing");
            let frame = frame();
            let Some(tree) = frame.tree else { context::outside("an operation of trefoil") };
            if !ptr::eq(self.scope.load(Ordering::Relaxed), frame.scope)
                || !ptr::eq(self.task.load(Ordering::Relaxed), frame.task)
            {
                self.adopt(tree, frame.scope, frame.task, until);
            }
            state = self.refresh(cx);
            if state & OVER == 0 {
                return Poll::Pending;
            }
        }
        // SAFETY: [OWNER].
        unsafe { self.end() };
        Poll::Ready(if state & DONE != 0 { Ok(()) } else { Err(Cancelled::delivered()) })
    }

    /// Whether a cancel has asked the owner of this wait to end it ([`Abort::Ask`]).
    pub fn cancel_asked(&self) -> bool {
        self.state.load(Ordering::Acquire) & ASKED != 0
    }

    /// Gives up the wait, whatever its state: whether it had been completed.
    ///
    /// Call it when nobody can find this park any more to complete it, and before it goes away; not under a lock that code of
    /// others may want: it drops the waker.
    ///
    /// # Safety
    /// \[OWNER\].
    pub unsafe fn end(&self) -> bool {
        self.unlink();
        let state = self.state.load(Ordering::Acquire);
        debug_assert!(state & (CLAIMED | OVER) != CLAIMED, "ended a Park that can still be found");
        self.state.store(IDLE, Ordering::Relaxed);
        record::wait_ends(self, || ended(state));
        // SAFETY: [WAKER]: the outcome is published, or there will be none.
        let waker = self.waker.with_mut(|slot| unsafe { &mut *slot }.take());
        drop(waker);
        state & DONE != 0
    }

    /// Completes the wait, unless it was cancelled or completed before. Any thread; R18 and R19 are decided here.
    pub fn complete(&self) -> Completed {
        self.settle(DONE)
    }

    /// The cancel's side. Under the lock of the tree.
    pub(crate) fn abort(&self) -> Completed {
        self.settle(ABORTED)
    }

    /// The cancel's side for [`Abort::Ask`]: the waker of an owner that has not been asked before.
    pub(crate) fn ask(&self) -> Option<Waker> {
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            if state & (OVER | CLAIMED | ASKED) != 0 || state & WAITING == 0 {
                return None;
            }
            let busy = state | ASKED | BUSY;
            match self.state.compare_exchange_weak(state, busy, Ordering::AcqRel, Ordering::Relaxed) {
                // The owner is at it and sees ASKED when it is done.
                Ok(before) if before & BUSY != 0 => return None,
                Ok(_) => break,
                Err(now) => state = now,
            }
        }
        // SAFETY: [WAKER]: we set BUSY.
        let waker = self.waker.with_mut(|slot| unsafe { &mut *slot }.take());
        self.state.fetch_and(!BUSY, Ordering::AcqRel);
        waker
    }

    /// Takes the waker of a wait that has lost its place, so that it is polled and finds another one. Under the lock of the tree.
    pub(crate) fn nudge(&self) -> Option<Waker> {
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            // Whoever else is at it wakes the owner, or is the owner.
            if state & (OVER | CLAIMED | BUSY) != 0 || state & WAITING == 0 {
                return None;
            }
            match self.state.compare_exchange_weak(state, state | BUSY, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => state = now,
            }
        }
        // SAFETY: [WAKER]: we set BUSY.
        let waker = self.waker.with_mut(|slot| unsafe { &mut *slot }.take());
        self.state.fetch_and(!BUSY, Ordering::AcqRel);
        waker
    }

    fn settle(&self, outcome: u32) -> Completed {
        let mut state = self.state.load(Ordering::Relaxed);
        let claimed = loop {
            if state & (OVER | CLAIMED) != 0 || state & WAITING == 0 {
                return Completed::Lost;
            }
            let busy = state & BUSY != 0;
            let next = state | if busy { outcome } else { CLAIMED };
            // Release: what the completer handed over is there for the owner; Acquire: the waker that it registered.
            match self.state.compare_exchange_weak(state, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) if busy => return Completed::Won(None),
                Ok(_) => break next,
                Err(now) => state = now,
            }
        };
        // SAFETY: [WAKER]: we set CLAIMED.
        let waker = self.waker.with_mut(|slot| unsafe { &mut *slot }.take());
        // A plain store: nobody else writes the word of a park that is claimed.
        self.state.store(claimed | outcome, Ordering::Release);
        Completed::Won(waker)
    }

    /// Registers the waker of a wait that goes on. Returns the state then.
    fn refresh(&self, cx: &mut Context<'_>) -> u32 {
        // Before the waker is taken hold of: the clone of a foreign executor may do anything, and panic.
        let new = cx.waker().clone();
        let other = if ready::is_of(&new, context::task()) { 0 } else { OTHER };
        let before = loop {
            let state = self.state.load(Ordering::Acquire);
            if state & OVER != 0 {
                return state;
            }
            if state & (BUSY | CLAIMED) != 0 {
                // Another thread has the waker set before, and is about to wake it: come back in the next turn.
                new.wake();
                return state;
            }
            let busy = state | BUSY | other;
            if self.state.compare_exchange_weak(state, busy, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                break state;
            }
        };
        // SAFETY: [WAKER]: we set BUSY.
        let old = self.waker.with_mut(|slot| unsafe { &mut *slot }.replace(new));
        let state = self.state.fetch_and(!BUSY, Ordering::AcqRel);
        drop(old);
        if state & !before & ASKED != 0 {
            // A cancel asked meanwhile, and left the wake-up to us.
            cx.waker().wake_by_ref();
        }
        state
    }

    /// Moves a wait that goes on into the scope that polls it.
    #[cold]
    fn adopt(self: Pin<&Self>, tree: &'static Tree, scope: *const Scope, task: *const Header, until: u64) {
        self.unlink();
        let mut locked = tree.lock();
        self.tree.set(Some(tree));
        if self.state.load(Ordering::Acquire) & OVER != 0 {
            return;
        }
        locked.link_park(&self, scope, task, until);
        // SAFETY: [CURRENT] of the context module.
        if unsafe { &*scope }.is_cancelled() {
            locked.cancel_park(&self);
        }
    }

    fn unlink(&self) {
        // Acquire: who has taken it out of the list is done with it.
        if !self.scope.load(Ordering::Acquire).is_null()
            && let Some(tree) = self.tree.get()
        {
            let mut locked = tree.lock();
            // Looked at again, under the lock: an abort may have done it.
            if !self.scope.load(Ordering::Relaxed).is_null() {
                locked.unlink_park(self);
            }
        }
    }
}

impl Drop for Park {
    fn drop(&mut self) {
        self.unlink();
        if self.is_active() {
            record::wait_ends(self, || Ended::Dropped);
        }
    }
}
