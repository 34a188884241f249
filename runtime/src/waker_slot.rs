//! A place for one waker that its owner sets and any thread wakes, without a lock: how a nursery's inbox reaches the task
//! above it.
//!
//! ```text
//!           register                       done, nobody came
//!   IDLE ─────────────▶ REGISTERING ───────────────────────────▶ IDLE
//!    │                       │ wake                                ▲
//!    │ wake                  ▼                                     │
//!    ▼                  REGISTERING|WAKING ── done: wake it here ──┤
//!   WAKING ────────────────── takes the waker, then wakes it ──────┘
//! ```
//!
//! - **\[SLOT\]** The waker is touched only by who moved the state from `IDLE`: to `REGISTERING` (the owner) or to `WAKING` (one of
//!   the wakers). Whoever finds the other at work leaves a bit, and the other sees it when it is done.

use crate::sync::{AtomicU8, Ordering, UnsafeCell};
use std::task::Waker;

const IDLE: u8 = 0;
const REGISTERING: u8 = 1;
const WAKING: u8 = 2;

/// See the module.
#[derive(Debug)]
pub struct WakerSlot {
    state: AtomicU8,
    waker: UnsafeCell<Option<Waker>>,
}

// SAFETY: [SLOT] gives one thread at a time access to the waker, which is itself `Send + Sync`.
unsafe impl Send for WakerSlot {}
// SAFETY: as above.
unsafe impl Sync for WakerSlot {}

impl WakerSlot {
    /// An empty one.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { state: AtomicU8::new(IDLE), waker: UnsafeCell::new(None) }
    }

    /// Sets the waker that the next [`wake`](Self::wake) wakes. One thread at a time calls this: the owner.
    ///
    /// Whatever was published before a `wake` that comes too early for this waker is seen by the owner, if it looks after
    /// this returns.
    pub fn register(&self, waker: &Waker) {
        match self.state.compare_exchange(IDLE, REGISTERING, Ordering::Acquire, Ordering::Acquire) {
            Ok(_) => {
                let old = self.waker.with_mut(|slot| {
                    // SAFETY: [SLOT]: we moved the state to REGISTERING.
                    let slot = unsafe { &mut *slot };
                    match slot {
                        Some(set) if set.will_wake(waker) => None,
                        _ => slot.replace(waker.clone()),
                    }
                });
                if self.state.compare_exchange(REGISTERING, IDLE, Ordering::AcqRel, Ordering::Acquire).is_err() {
                    // A wake came meanwhile and left it to us.
                    // SAFETY: [SLOT]: REGISTERING is still ours.
                    let taken = self.waker.with_mut(|slot| unsafe { &mut *slot }.take());
                    self.state.swap(IDLE, Ordering::AcqRel);
                    if let Some(taken) = taken {
                        taken.wake();
                    }
                }
                drop(old);
            }
            // A wake is under way with the waker set before: it may miss the new one, so the owner is polled again.
            Err(_) => waker.wake_by_ref(),
        }
    }

    /// Wakes the waker, if one is set, and takes it out. Any thread.
    pub fn wake(&self) {
        if self.state.fetch_or(WAKING, Ordering::AcqRel) == IDLE {
            // SAFETY: [SLOT]: we moved the state from IDLE to WAKING.
            let taken = self.waker.with_mut(|slot| unsafe { &mut *slot }.take());
            self.state.fetch_and(!WAKING, Ordering::Release);
            if let Some(taken) = taken {
                taken.wake();
            }
        }
    }
}
