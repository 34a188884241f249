//! A place for one waker that its owner sets and any thread wakes, without a lock: how a nursery's inbox reaches the task
//! above it.
//!
//! ```text
//!               register                     done, nobody came
//!   IDLE or SET ─────────▶ REGISTERING ─────────────────────────▶ SET
//!        │                      │ wake
//!        │ wake                 ▼
//!        ▼              REGISTERING|WAKING ── done: wake it here ─▶ IDLE
//!     WAKING ────────────── takes the waker, then wakes it ───────▶ IDLE
//!        └──── ours: notes whose it is, or clones it; then wakes ──▶ SET
//! ```
//!
//! - **\[SLOT\]** The waker is touched only by who moved the state from `IDLE` or `SET`: to `REGISTERING` (the owner) or to `WAKING` (one of
//!   the wakers). Whoever finds the other at work leaves a bit, and the other sees it when it is done.
//! - **\[OWNER\]** `register` is called by one thread at a time, which alone touches `key`.
//!
//! `SET` says that a waker is here. While it is, the owner need not take hold of the slot to find out whether it is the same one. A wake leaves
//! it there (and wakes a clone) if it is that of a task of ours, whose clone is known to be a count: the nursery is polled again with the same
//! one, as a rule, and has nothing to register then. Of the body of the run on this thread no clone is needed: it stays.

use crate::ready::{self, BodyHere};
use crate::sync::{AtomicU8, Ordering, UnsafeCell};
use std::cell::Cell;
use std::ptr;
use std::task::{RawWakerVTable, Waker};

const IDLE: u8 = 0;
const REGISTERING: u8 = 1;
const WAKING: u8 = 2;
const SET: u8 = 4;

/// What tells two wakers apart.
type Key = (*const (), *const ());

/// See the module.
#[derive(Debug)]
pub struct WakerSlot {
    state: AtomicU8,
    waker: UnsafeCell<Option<Waker>>,
    /// Of the waker that was registered last. For comparison only.
    key: Cell<Key>,
}

// SAFETY: [SLOT] gives one thread at a time access to the waker, which is itself `Send + Sync`; [OWNER] for the key, whose pointers are
// never followed.
unsafe impl Send for WakerSlot {}
// SAFETY: as above.
unsafe impl Sync for WakerSlot {}

impl WakerSlot {
    /// An empty one.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { state: AtomicU8::new(IDLE), waker: UnsafeCell::new(None), key: Cell::new((ptr::null(), ptr::null())) }
    }

    /// Sets the waker that the next [`wake`](Self::wake) wakes. One thread at a time calls this: the owner.
    ///
    /// Whatever was published before a `wake` that comes too early for this waker is seen by the owner, if it looks after
    /// this returns; or the waker that is still set is the same one, and that `wake` wakes it.
    #[inline]
    pub fn register(&self, waker: &Waker) {
        let key = (waker.data(), ptr::from_ref(waker.vtable()).cast());
        let state = self.state.load(Ordering::Acquire);
        if state != SET || self.key.get() != key {
            self.register_new(waker, key, state);
        }
    }

    /// Apart from the look whether it is the same one, as it is in most turns of a nursery.
    #[inline(never)]
    fn register_new(&self, waker: &Waker, key: Key, mut state: u8) {
        // Before the slot is taken hold of: the clone of a foreign executor may do anything, and panic.
        let mut new = Some(waker.clone());
        loop {
            if state & WAKING != 0 {
                // A wake is under way with the waker set before: it may miss the new one, so the owner is polled again.
                return waker.wake_by_ref();
            }
            match self.state.compare_exchange_weak(state, REGISTERING, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(now) => state = now,
            }
        }
        // SAFETY: [SLOT]: we moved the state to REGISTERING.
        self.waker.with_mut(|slot| std::mem::swap(unsafe { &mut *slot }, &mut new));
        self.key.set(key);
        if self.state.compare_exchange(REGISTERING, SET, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // A wake came meanwhile and left it to us.
            // SAFETY: [SLOT]: REGISTERING is still ours.
            let taken = self.waker.with_mut(|slot| unsafe { &mut *slot }.take());
            self.state.swap(IDLE, Ordering::AcqRel);
            if let Some(taken) = taken {
                taken.wake();
            }
        }
        // The one before goes outside of the slot: it may be the last reference of a foreign task.
        drop(new);
    }

    /// Whether this waker is set. For the owner.
    pub(crate) fn is_for(&self, data: *const (), vtable: &'static RawWakerVTable) -> bool {
        self.state.load(Ordering::Acquire) == SET && self.key.get() == (data, ptr::from_ref(vtable).cast())
    }

    /// Wakes the waker, if one is set. Any thread.
    pub fn wake(&self) {
        if self.state.fetch_or(WAKING, Ordering::AcqRel) & (REGISTERING | WAKING) == 0 {
            // SAFETY: [SLOT]: we moved the state to WAKING.
            let (body, waker, after) = self.waker.with_mut(|slot| match unsafe { &mut *slot } {
                // To take it out, and to register the next time, takes two read-modify-writes and some 20 instructions more.
                Some(ours) if ready::is_ours(ours) => match BodyHere::of(ours) {
                    // For the nursery that is right below it, as those of servers: two less, and 35 instructions, in each turn that begins in the driver.
                    Some(body) => (Some(body), None, SET),
                    None => (None, Some(ours.clone()), SET),
                },
                other => (None, other.take(), IDLE),
            });
            self.state.swap(after, Ordering::AcqRel);
            if let Some(body) = body {
                body.wake();
            }
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}
