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
//! - **\[TAIL\]** A [`Core`] is the first field of a [`Park`], and the pointer in the list is good for the whole of that. What follows the core is said
//!   by its `manner`: a [`Known`], if that says so; else a [`Named`], if its reason is one that has more to say. The tail and the manner are written by the owner
//!   while the park is in no list, and read under the lock while it is in one.
//!
//! There are as many parks as there are waits, and most of what a sleeping child takes is its park. So a wait of which nothing is to be told but that it
//! sleeps has no tail, and what is told is not put together when it begins, but when somebody looks.

use crate::blind::BLIND;
use crate::cancelled::Cancelled;
use crate::context;
use crate::heap::NOWHERE;
use crate::holders::Thing;
use crate::ready::{self, Header};
pub use crate::reason::Reason;
use crate::reason::{Detail, Manner};
use crate::record::{self, Ended};
use crate::scope::Scope;
use crate::sync::{AtomicPtr, AtomicU8, Ordering, UnsafeCell};
use crate::tree::{Tree, TreeId};
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomPinned;
use std::panic::Location;
use std::pin::Pin;
use std::ptr;
use std::task::{Context, Poll, Waker};

const WAITING: u8 = 1;
const BUSY: u8 = 2;
const DONE: u8 = 4;
const ABORTED: u8 = 8;
/// A cancel was requested of an operation that only its owner can end ([`Abort::Ask`]).
const ASKED: u8 = 16;
/// Somebody is about to publish the outcome, and has the waker.
const CLAIMED: u8 = 32;
/// Idle, with the waker of the wait that is about to begin.
const PREPARED: u8 = 64;

/// It was polled with another waker than that of the task itself: a combinator's.
const OTHER: u8 = 128;

const IDLE: u8 = 0;
const OVER: u8 = DONE | ABORTED;

/// For who records, of a wait that is over.
fn ended(state: u8) -> Ended {
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
    Thing(Thing, usize),
}

impl On {
    pub const UNKNOWN: Self = Self::Child(0);
}

/// Links into the scope's list, and since when it is there. \[LOCKED\].
pub(crate) struct Links {
    pub prev: *const Core,
    pub next: *const Core,
    pub since: u64,
}

/// What the tree has of a park, whatever that waits for.
pub(crate) struct Core {
    state: AtomicU8,
    /// [TAIL].
    manner: Cell<Manner>,
    /// In which tree it is, or was. [OWNER].
    tree: Cell<TreeId>,
    /// Place in the heap of deadlines; [LOCKED].
    pub(crate) index: Cell<u32>,
    waker: UnsafeCell<Option<Waker>>,
    /// In whose list it is; null while it is in none. Written under the lock, read by the owner without it.
    pub(crate) scope: AtomicPtr<Scope>,
    /// The task that waits. As `scope`.
    pub(crate) task: AtomicPtr<Header>,
    /// Where it waits. Written by the owner, under the lock.
    place: Cell<&'static Location<'static>>,
    pub(crate) links: UnsafeCell<Links>,
    _pinned: PhantomPinned,
}

// Two words for the waker, since it may be that of a combinator; one each for the scope, the task, the place, the time, and the two neighbours; one for all
// the rest. A million sleeping children have a million of them.
#[cfg(all(target_pointer_width = "64", not(trefoil_loom)))]
const _: () = assert!(size_of::<Park<Bare>>() <= 72);

/// The one blocking primitive. See the module.
#[repr(C)]
pub struct Park<T: Tail = Named> {
    core: Core,
    tail: UnsafeCell<T>,
}

/// What a park has beside what the tree needs of it: \[TAIL\].
pub trait Tail {
    /// That of a park that has not waited.
    #[doc(hidden)]
    const NEW: Self;
    /// Whether it says who could end the wait.
    #[doc(hidden)]
    const KNOWN: bool;
    /// Keeps what the reason has to say.
    #[doc(hidden)]
    fn note(&mut self, reason: Reason);
}

/// No tail: of a sleep.
#[derive(Debug)]
pub struct Bare;

/// What the reason has to say.
#[derive(Debug)]
pub struct Named(Detail);

/// What the reason has to say, and who could end the wait: an [`On`], as it comes, which is told apart when somebody looks.
#[derive(Debug)]
pub struct Known {
    thing: Option<Thing>,
    /// Of the thing, so many units; where there is none, the child.
    number: usize,
    detail: Detail,
}

impl Tail for Bare {
    const NEW: Self = Self;
    const KNOWN: bool = false;
    #[inline(always)]
    fn note(&mut self, reason: Reason) {
        // [TAIL]. Of a constant, nothing is left of this.
        assert!(matches!(reason, Reason::Sleep | Reason::Forever), "there is no room for what this reason has to say");
    }
}

impl Tail for Named {
    const NEW: Self = Self(Detail::NONE);
    const KNOWN: bool = false;
    #[inline(always)]
    fn note(&mut self, reason: Reason) {
        self.0.note(reason);
    }
}

impl Tail for Known {
    const NEW: Self = Self { thing: None, number: 0, detail: Detail::NONE };
    const KNOWN: bool = true;
    #[inline(always)]
    fn note(&mut self, reason: Reason) {
        self.detail.note(reason);
    }
}

// SAFETY: [OWNER], [WAKER], [LOCKED] and [TAIL] say who touches each field that is not atomic.
unsafe impl Send for Core {}
// SAFETY: as above; the owner's methods are `unsafe` or reached through what owns the park.
unsafe impl Sync for Core {}
// SAFETY: as above; the tail is plain data, whose pointers are to what is never freed, or compared only.
unsafe impl<T: Tail> Send for Park<T> {}
// SAFETY: as above.
unsafe impl<T: Tail> Sync for Park<T> {}

impl<T: Tail> fmt::Debug for Park<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.core.state.load(Ordering::Relaxed);
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
}

impl<T: Tail> Park<T> {
    /// One that waits for nothing yet, made at `place`.
    #[inline(always)]
    pub(crate) fn new_at(place: &'static Location<'static>) -> Self {
        Self { core: Core::new(place), tail: UnsafeCell::new(T::NEW) }
    }

    /// The part that all have in common, by a pointer that is good for the whole: \[TAIL\].
    #[inline(always)]
    fn core(self: Pin<&Self>) -> *const Core {
        ptr::from_ref(self.get_ref()).cast()
    }

    /// The same for who completes it.
    pub(crate) fn as_core(&self) -> &Core {
        &self.core
    }

    /// Where it was made, or waited last. For the owner, or under the lock of the tree it is linked in.
    pub(crate) fn place(&self) -> &'static Location<'static> {
        self.core.place()
    }

    /// Whether a wait was begun and its outcome not yet taken with [`poll`](Self::poll).
    #[inline]
    pub fn is_active(&self) -> bool {
        self.core.is_active()
    }

    /// Whether a wait was begun that is neither completed nor cancelled.
    #[inline]
    pub(crate) fn is_waiting(&self) -> bool {
        self.core.is_waiting()
    }

    /// Clones the waker of a foreign executor ahead of a [`begin`](Self::begin) that is called under a lock: its `clone` is code of others,
    /// which may come back for that lock. Nothing to do for a waker of ours.
    ///
    /// # Safety
    /// \[OWNER\].
    pub unsafe fn prepare(&self, cx: &Context<'_>) {
        // SAFETY: the caller's word.
        unsafe { self.core.prepare(cx) }
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
    #[inline(always)]
    pub unsafe fn begin(self: Pin<&Self>, cx: &mut Context<'_>, wait: Wait) -> Result<(), Cancelled> {
        // SAFETY: the caller's word.
        unsafe { self.begin_with(cx, wait, |_| {}) }
    }

    // Inlined, so that what is known of a wait by its type is a constant.
    #[inline(always)]
    unsafe fn begin_with(
        self: Pin<&Self>,
        cx: &mut Context<'_>,
        wait: Wait,
        note: impl FnOnce(&mut T),
    ) -> Result<(), Cancelled> {
        assert!(!self.is_active(), "a Park waits for one thing at a time");
        if !BLIND {
            self.tail.with_mut(|tail| {
                // SAFETY: [OWNER], [TAIL]: it is in no list.
                let tail = unsafe { &mut *tail };
                tail.note(wait.reason);
                note(tail);
            });
        }
        let reason = if BLIND { Reason::Forever } else { wait.reason };
        let manner = Manner::new(reason, wait.abort, T::KNOWN);
        // SAFETY: the caller's word; [TAIL].
        unsafe { Core::begin(self.core(), cx, manner, wait.place, wait.until) }
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
        // SAFETY: the caller's word; [TAIL].
        unsafe { Core::poll(self.core(), cx, until, context::open_frame) }
    }

    /// The same for a wait that was begun as [`Abort::Lasting`].
    ///
    /// # Safety
    /// \[OWNER\].
    pub(crate) unsafe fn poll_lasting(self: Pin<&Self>, cx: &mut Context<'_>) -> Poll<Result<(), Cancelled>> {
        // SAFETY: the caller's word; [TAIL].
        unsafe { Core::poll(self.core(), cx, u64::MAX, context::guest_frame) }
    }

    /// Whether a cancel has asked the owner of this wait to end it ([`Abort::Ask`]).
    pub fn cancel_asked(&self) -> bool {
        self.core.state.load(Ordering::Acquire) & ASKED != 0
    }

    /// Gives up the wait, whatever its state: whether it had been completed.
    ///
    /// Call it when nobody can find this park any more to complete it, and before it goes away; not under a lock that code of
    /// others may want: it drops the waker.
    ///
    /// # Safety
    /// \[OWNER\].
    pub unsafe fn end(&self) -> bool {
        // SAFETY: the caller's word.
        unsafe { self.core.end() }
    }

    /// Completes the wait, unless it was cancelled or completed before. Any thread; R18 and R19 are decided here.
    #[inline]
    pub fn complete(&self) -> Completed {
        self.core.complete()
    }
}

impl Park<Known> {
    /// Begins to wait for so many units of something, if it has a name.
    #[inline(always)]
    pub(crate) unsafe fn begin_for(
        self: Pin<&Self>,
        cx: &mut Context<'_>,
        wait: Wait,
        thing: Option<Thing>,
        units: usize,
    ) -> Result<(), Cancelled> {
        // SAFETY: the caller's word.
        unsafe { self.begin_with(cx, wait, |known| (known.thing, known.number) = (thing, units)) }
    }

    /// Begins to wait for the end of the child whose header has this address, if it is not 0.
    #[inline(always)]
    pub(crate) unsafe fn begin_for_child(
        self: Pin<&Self>,
        cx: &mut Context<'_>,
        wait: Wait,
        child: usize,
    ) -> Result<(), Cancelled> {
        // SAFETY: the caller's word.
        unsafe { self.begin_with(cx, wait, |known| (known.thing, known.number) = (None, child)) }
    }
}

/// Whether a park that is idle has to be [prepared](Park::prepare) before a wait is begun under a lock.
#[inline]
pub(crate) fn needs_prepare(cx: &Context<'_>) -> bool {
    !ready::is_ours(cx.waker()) || context::opens_foreign()
}

impl Core {
    #[inline(always)]
    fn new(place: &'static Location<'static>) -> Self {
        Self {
            state: AtomicU8::new(IDLE),
            manner: Cell::new(Manner::NONE),
            tree: Cell::new(TreeId::NONE),
            index: Cell::new(NOWHERE),
            waker: UnsafeCell::new(None),
            scope: AtomicPtr::new(ptr::null_mut()),
            task: AtomicPtr::new(ptr::null_mut()),
            place: Cell::new(place),
            links: UnsafeCell::new(Links { prev: ptr::null(), next: ptr::null(), since: 0 }),
            _pinned: PhantomPinned,
        }
    }

    /// Where it was made, or waited last. For the owner, or under the lock of the tree it is linked in.
    pub(crate) fn place(&self) -> &'static Location<'static> {
        self.place.get()
    }

    /// What a cancel does to it. As [`place`](Self::place).
    #[inline]
    pub(crate) fn abort_kind(&self) -> Abort {
        self.manner.get().abort()
    }

    /// What it waits for.
    ///
    /// # Safety
    /// \[TAIL\]: it was found in a list, under the lock.
    pub(crate) unsafe fn reason(this: *const Self) -> Reason {
        // SAFETY: the caller's word.
        unsafe {
            let manner = (*this).manner.get();
            let detail = match manner {
                _ if !manner.has_detail() => Detail::NONE,
                _ if manner.is_known() => (*this.cast::<Park<Known>>()).tail.with(|known| (*known).detail),
                _ => (*this.cast::<Park<Named>>()).tail.with(|named| (*named).0),
            };
            manner.reason(detail)
        }
    }

    /// Who could end the wait, where that is known.
    ///
    /// # Safety
    /// \[TAIL\]: it was found in a list, under the lock.
    pub(crate) unsafe fn on(this: *const Self) -> On {
        // SAFETY: the caller's word.
        unsafe {
            if !(*this).manner.get().is_known() {
                return On::UNKNOWN;
            }
            (*this.cast::<Park<Known>>()).tail.with(|known| match (*known).thing {
                Some(thing) => On::Thing(thing, (*known).number),
                None => On::Child((*known).number),
            })
        }
    }

    #[inline]
    fn is_active(&self) -> bool {
        self.state.load(Ordering::Acquire) & (WAITING | OVER) != 0
    }

    /// Whether it holds a waker of its task, and nothing in between, such as a combinator, does so for it.
    pub(crate) fn wakes_its_task(&self) -> bool {
        self.state.load(Ordering::Acquire) & OTHER == 0
    }

    #[inline]
    pub(crate) fn is_waiting(&self) -> bool {
        self.state.load(Ordering::Acquire) & (WAITING | OVER | CLAIMED) == WAITING
    }

    /// Whether what it waited for has come, and its owner has not looked since.
    pub(crate) fn has_come(&self) -> bool {
        self.state.load(Ordering::Acquire) & DONE != 0
    }

    unsafe fn prepare(&self, cx: &Context<'_>) {
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

    /// \[OWNER\]: it is not active. What it is told of the wait comes in registers: a struct would be written and read again.
    unsafe fn begin(
        this: *const Self,
        cx: &mut Context<'_>,
        manner: Manner,
        place: &'static Location<'static>,
        until: u64,
    ) -> Result<(), Cancelled> {
        // SAFETY: the caller's word.
        let park = unsafe { &*this };
        let abort = manner.abort();
        let frame = if abort == Abort::Lasting { context::guest_frame() } else { context::open_frame() };
        let Some(tree) = frame.tree else { context::outside("an operation of trefoil") };
        if park.state.load(Ordering::Relaxed) & PREPARED == 0 {
            let waker = cx.waker().clone();
            // SAFETY: [WAKER]: IDLE, and the caller is the owner.
            let old = park.waker.with_mut(|slot| unsafe { &mut *slot }.replace(waker));
            drop(old);
        }
        let mut locked = tree.lock();
        // SAFETY: [CURRENT] of the context module.
        let scope = unsafe { &*frame.scope };
        if scope.is_cancelled() && (abort != Abort::Lasting || locked.is_cancelled_for_good(scope)) {
            park.state.store(IDLE, Ordering::Relaxed);
            return Err(Cancelled::delivered());
        }
        park.tree.set(tree.id());
        // [TAIL]: it is in no list.
        park.manner.set(manner);
        if !BLIND {
            park.place.set(place);
            // SAFETY: [LOCKED].
            park.links.with_mut(|links| unsafe { (*links).since = locked.now() });
        }
        let other = if ready::is_of(cx.waker(), frame.task) { 0 } else { OTHER };
        park.state.store(WAITING | other, Ordering::Release);
        // SAFETY: [LOCKED]; the owner's pointer is for the whole of the park.
        unsafe { locked.link_park(this, frame.scope, frame.task, until) };
        record::wait_begins(this, until);
        Ok(())
    }

    /// \[OWNER\].
    unsafe fn poll(
        this: *const Self,
        cx: &mut Context<'_>,
        until: u64,
        frame: impl FnOnce() -> context::Frame,
    ) -> Poll<Result<(), Cancelled>> {
        // SAFETY: the caller's word.
        let park = unsafe { &*this };
        let mut state = park.state.load(Ordering::Acquire);
        if state & OVER == 0 {
            debug_assert!(state & WAITING != 0, "polled a Park that waits for nothing");
            let frame = frame();
            let Some(tree) = frame.tree else { context::outside("an operation of trefoil") };
            if !ptr::eq(park.scope.load(Ordering::Relaxed), frame.scope)
                || !ptr::eq(park.task.load(Ordering::Relaxed), frame.task)
            {
                // SAFETY: as above.
                unsafe { Self::adopt(this, tree, frame.scope, frame.task, until) };
            }
            state = park.refresh(cx);
            if state & OVER == 0 {
                return Poll::Pending;
            }
        }
        // SAFETY: as above.
        unsafe { park.end() };
        Poll::Ready(if state & DONE != 0 { Ok(()) } else { Err(Cancelled::delivered()) })
    }

    unsafe fn end(&self) -> bool {
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

    #[inline]
    pub(crate) fn complete(&self) -> Completed {
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

    fn settle(&self, outcome: u8) -> Completed {
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
    fn refresh(&self, cx: &mut Context<'_>) -> u8 {
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

    /// Moves a wait that goes on into the scope that polls it. \[OWNER\].
    #[cold]
    unsafe fn adopt(this: *const Self, tree: &'static Tree, scope: *const Scope, task: *const Header, until: u64) {
        // SAFETY: the caller's word.
        let park = unsafe { &*this };
        park.unlink();
        let mut locked = tree.lock();
        park.tree.set(tree.id());
        if park.state.load(Ordering::Acquire) & OVER != 0 {
            return;
        }
        // SAFETY: [LOCKED]; the owner's pointer is for the whole of the park.
        unsafe { locked.link_park(this, scope, task, until) };
        // SAFETY: [CURRENT] of the context module.
        if unsafe { &*scope }.is_cancelled() {
            locked.cancel_park(park);
        }
    }

    #[inline(always)]
    fn unlink(&self) {
        // Acquire: who has taken it out of the list is done with it.
        if !self.scope.load(Ordering::Acquire).is_null() {
            let mut locked = self.tree.get().tree().lock();
            // Looked at again, under the lock: an abort may have done it.
            if !self.scope.load(Ordering::Relaxed).is_null() {
                locked.unlink_park(self);
            }
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.unlink();
        if self.is_active() {
            record::wait_ends(self, || Ended::Dropped);
        }
    }
}
