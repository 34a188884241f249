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
//! - **\[WHOM\]** The waker is taken, and set, by: the owner in `IDLE`, or once the outcome is published; the owner, or a cancel, that set
//!   `BUSY`; who set `CLAIMED`: one at a time (\[TURNS\] of [`Whom`](ready::Whom)). Who finds `BUSY` leaves the wake-up to who set it. The task is changed by the owner
//!   alone, while the park is in no list; and read (\[READ\]) by the owner, and under the lock while it is in one. Then that task is there, or the
//!   park says that it is gone.
//! - **\[LOCKED\]** `links` is touched under the lock of the tree that `tree` names; by the owner without it, while the park is in no list. A linked park is unlinked before it is dropped,
//!   and it cannot move since it is pinned: so the pointers in a scope's list are valid under the lock.
//! - **\[TAIL\]** A [`Core`] is the first field of a [`Park`], and the pointer in the list is good for the whole of that. What follows the core is said
//!   by its `manner`: nothing, if that says that the place is a number; else the place, and a [`Known`], if it says so; else a [`Named`], if its reason is one that
//!   has more to say. All of them, the manner and the time are written by the owner while the park is in no list, and read under the lock while it is in one.
//!
//! There are as many parks as there are waits, and most of what a sleeping child takes is its park. So a wait of which nothing is to be told but that it
//! sleeps has no tail, and what is told is not put together when it begins, but when somebody looks.
mod core;
mod place;
mod tail;

pub(crate) use self::core::Core;
use self::place::KeptPlace;
pub use self::tail::{Bare, Known, Named, Tail};
use crate::blind::BLIND;
use crate::context;
use crate::look::holders::Thing;
use crate::ready;
pub use crate::reason::Reason;
use crate::reason::{Manner, OfDescriptor};
use crate::scope::cancelled::Cancelled;
use crate::sync::UnsafeCell;
use std::fmt;
use std::mem::offset_of;
use std::panic::Location;
use std::pin::Pin;
use std::ptr;
use std::task::{Context, Poll, Waker};

/// What a cancel does to a wait (Trio's abort function, R15–R17, as a value).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    /// The wait ends at once, with no effect.
    AtOnce,
    /// The same, but for a cancel that is told once ([`Scope::cancel_once`](crate::Scope::cancel_once)): that passes it over.
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

// One word each for the task with its waker, the scope, the time with the place, and the two neighbours; and one for all
// the rest. A million sleeping children have a million of them.
#[cfg(all(target_pointer_width = "64", not(trefoil_loom)))]
const _: () = assert!(size_of::<Park<Bare>>() <= 48);

/// The one blocking primitive. See the module.
#[repr(C)]
pub struct Park<T: Tail = Named> {
    core: Core,
    /// Where it waits.
    place: T::Place,
    tail: UnsafeCell<T>,
}

// What the manner says is found by any of these types: [TAIL].
const _: () = assert!(offset_of!(Park<Named>, core) == 0 && offset_of!(Park<Known>, core) == 0);
const _: () = assert!(offset_of!(Park<Named>, place) == offset_of!(Park<Known>, place));

// SAFETY: [OWNER] and [TAIL] say who touches the place and the tail; that is plain data, whose pointers are to what is never freed, or compared only.
unsafe impl<T: Tail> Send for Park<T> {}
// SAFETY: as above.
unsafe impl<T: Tail> Sync for Park<T> {}

impl<T: Tail> fmt::Debug for Park<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Park({})", self.core.state_name())
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

    /// The same for waits that are all for this descriptor: it is not written down again for each of them.
    pub fn on_descriptor(fd: i32) -> Self {
        Self::with_tail(Location::caller(), Named::of_descriptor(fd))
    }

    /// As [`begin`](Self::begin), of a wait for the descriptor that this was [made with](Self::on_descriptor), which a cancel ends at once.
    ///
    /// # Errors
    /// In a cancelled scope: nothing was begun.
    ///
    /// # Safety
    /// \[OWNER\].
    ///
    /// # Panics
    /// Outside of a run, and where a wait is going on already.
    #[inline(always)]
    pub unsafe fn begin_on_descriptor(
        self: Pin<&Self>,
        cx: &mut Context<'_>,
        what: OfDescriptor,
        place: &'static Location<'static>,
    ) -> Result<(), Cancelled> {
        assert!(!self.is_active(), "a Park waits for one thing at a time");
        self.put_place(place);
        let manner =
            if BLIND { Manner::new(Reason::Forever, Abort::AtOnce, false, false) } else { Manner::of_descriptor(what) };
        // SAFETY: the caller's word; [TAIL]: a `Named`, as the manner says.
        unsafe { Core::begin(self.core(), cx, manner, u64::MAX) }
    }
}

impl<T: Tail> Park<T> {
    /// One that waits for nothing yet, made at `place`.
    #[inline(always)]
    pub(crate) fn new_at(place: &'static Location<'static>) -> Self {
        Self::with_tail(place, T::NEW)
    }

    /// The same, with what is to be told of its first wait.
    #[inline(always)]
    pub(crate) fn with_tail(place: &'static Location<'static>, tail: T) -> Self {
        let (place, begun) = T::Place::new(place);
        Self { core: Core::new(begun), place, tail: UnsafeCell::new(tail) }
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
        self.place.get(&self.core.begun)
    }

    /// \[OWNER\]: it is not active.
    #[inline(always)]
    fn put_place(&self, place: &'static Location<'static>) {
        if !BLIND {
            self.place.set(&self.core.begun, place);
        }
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
        let place = wait.place;
        // SAFETY: the caller's word.
        unsafe { self.begin_with(cx, wait, Ahead::NONE, |_| self.put_place(place)) }
    }

    // Inlined, so that what is known of a wait by its type is a constant.
    #[inline(always)]
    unsafe fn begin_with(
        self: Pin<&Self>,
        cx: &mut Context<'_>,
        wait: Wait,
        ahead: Ahead,
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
        const { assert!(!(T::KNOWN && T::Place::IS_NUMBER), "what is known follows the place") };
        let manner = Manner::new(reason, wait.abort, T::KNOWN, T::Place::IS_NUMBER);
        // SAFETY: the caller's word; [TAIL].
        unsafe {
            match ahead.0 {
                None => Core::begin(self.core(), cx, manner, wait.until),
                Some(waker) => Core::begin_holding(self.core(), cx, manner, wait.until, waker),
            }
        }
    }

    /// Where it will wait next, if that is not where it was made.
    ///
    /// # Safety
    /// \[OWNER\].
    ///
    /// # Panics
    /// Where a wait is going on.
    pub(crate) unsafe fn set_place(&self, place: &'static Location<'static>) {
        assert!(!self.is_active(), "a Park waits for one thing at a time");
        self.put_place(place);
    }

    /// Looks whether the wait is over: `Ok` completed, `Err` cancelled. Keeps the waker up to date otherwise.
    ///
    /// A wait that is polled in another scope or task than before belongs to that one from now on.
    ///
    /// # Safety
    /// \[OWNER\].
    pub unsafe fn poll(self: Pin<&Self>, cx: &mut Context<'_>) -> Poll<Result<(), Cancelled>> {
        // SAFETY: the caller's word; [TAIL].
        unsafe { Core::poll(self.core(), cx, context::open_frame) }
    }

    /// The same for a wait that was begun as [`Abort::Lasting`].
    ///
    /// # Safety
    /// \[OWNER\].
    pub(crate) unsafe fn poll_lasting(self: Pin<&Self>, cx: &mut Context<'_>) -> Poll<Result<(), Cancelled>> {
        // SAFETY: the caller's word; [TAIL].
        unsafe { Core::poll(self.core(), cx, context::guest_frame) }
    }

    /// When the wait ends by itself; where none is going on, what was [kept](Self::keep) there, or when the last one was to end. `u64::MAX` in one that is new.
    pub(crate) fn until(&self) -> u64 {
        self.core.until_locked()
    }

    /// Keeps a word in the place of a wait's end, for as long as none is going on.
    ///
    /// # Safety
    /// \[OWNER\]. No wait is going on.
    pub(crate) unsafe fn keep(&self, word: u64) {
        // SAFETY: the caller's word.
        unsafe { self.core.set_until(word) }
    }

    /// Whether a cancel has asked the owner of this wait to end it ([`Abort::Ask`]).
    pub fn cancel_asked(&self) -> bool {
        self.core.cancel_asked()
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
    /// As if it were made now, at this place and with that.
    ///
    /// # Safety
    /// \[OWNER\].
    ///
    /// # Panics
    /// Where a wait is going on.
    pub(crate) unsafe fn make_anew(&self, place: &'static Location<'static>, known: Known) {
        // SAFETY: the caller's word.
        unsafe { self.set_place(place) };
        // SAFETY: [OWNER], [TAIL]: it is in no list.
        self.tail.with_mut(|tail| unsafe { *tail = known });
    }

    /// Begins to wait at the place and for what it was made with.
    ///
    /// # Safety
    /// \[OWNER\].
    #[inline(always)]
    pub(crate) unsafe fn begin_as_made(
        self: Pin<&Self>,
        cx: &mut Context<'_>,
        wait: Wait,
        ahead: Ahead,
    ) -> Result<(), Cancelled> {
        // SAFETY: the caller's word.
        unsafe { self.begin_with(cx, wait, ahead, |_| {}) }
    }

    /// Begins to wait for the end of the child whose header has this address; at the place where it was [made](Park::new_at), or that was
    /// [set](Park::set_place).
    #[inline(always)]
    pub(crate) unsafe fn begin_for_child(
        self: Pin<&Self>,
        cx: &mut Context<'_>,
        wait: Wait,
        ahead: Ahead,
        child: usize,
    ) -> Result<(), Cancelled> {
        // SAFETY: the caller's word.
        unsafe { self.begin_with(cx, wait, ahead, |known| known.wait_for_child(child)) }
    }
}

/// The waker of a foreign executor, cloned ahead of a wait that is begun under a lock: its `clone` is code of others, which may come back for that lock.
pub(crate) struct Ahead(Option<Waker>);

impl Ahead {
    /// Of a wait that is begun under no lock.
    pub const NONE: Self = Self(None);

    /// Of who polls. Nothing for a waker of ours.
    #[inline(always)]
    pub fn of(cx: &Context<'_>) -> Self {
        if ready::is_ours(cx.waker()) && !context::opens_foreign() { Self::NONE } else { Self::cloned(cx) }
    }

    #[cold]
    #[inline(never)]
    fn cloned(cx: &Context<'_>) -> Self {
        if context::opens_foreign() {
            let _ = context::open_frame();
        }
        Self((!ready::is_ours(cx.waker())).then(|| cx.waker().clone()))
    }
}
