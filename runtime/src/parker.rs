//! How a worker goes to sleep, and how any thread wakes it: one word, and the driver's own wake-up only when it really sleeps.
//!
//! ```text
//!            unpark                      prepare: do not sleep
//!   AWAKE ───────────▶ NOTIFIED ────────────────────────────────▶ AWAKE
//!     │ prepare: sleep                                              ▲
//!     └──────────────▶ PARKED ── unpark: + NOTIFIED, driver wake ───┤
//!                        └────── awake (timeout, I/O) ──────────────┘
//! ```
//! Both sides change the one word in one step, so their order is total: a wake-up is seen by `prepare`, or sees `PARKED`.
//!
//! So does the watchdog, which sleeps while every worker does: it adds `UNWATCHED` to `PARKED`, and to nothing else. The worker finds that
//! in the word that it changes anyway when it is [awake](Parker::awake), as it finds there whether another thread has woken it.
//!
//! What the thread of the worker tells itself, while it polls or dispatches, is no matter between threads: `here`, a plain flag, says that.

use crate::context;
use crate::driver::Unpark;
use crate::sync::{AtomicBool, AtomicU8, Mutex, Ordering};
use std::sync::Arc;

const AWAKE: u8 = 0;
const PARKED: u8 = 1;
const NOTIFIED: u8 = 2;
/// With `PARKED` alone, or with both: the watchdog sleeps, too.
const UNWATCHED: u8 = 4;

/// What was found in the word of a worker that is awake again.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Wakeup(u8);

impl Wakeup {
    /// It slept, and what ended that was no other thread; and the watchdog is awake.
    #[inline(always)]
    pub fn is_plain(self) -> bool {
        self.0 == PARKED
    }

    /// It slept, and another thread has ended that.
    pub fn by_thread(self) -> bool {
        self.0 & (PARKED | NOTIFIED) == PARKED | NOTIFIED
    }

    /// The watchdog sleeps, and is to be roused.
    pub fn is_unwatched(self) -> bool {
        self.0 & UNWATCHED != 0
    }
}

/// See the module.
pub struct Parker {
    state: AtomicU8,
    /// The worker was notified by its own thread. Written by that one alone.
    here: AtomicBool,
    driver: Mutex<Option<Arc<dyn Unpark>>>,
}

impl std::fmt::Debug for Parker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Parker")
    }
}

impl Parker {
    /// One without a driver.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { state: AtomicU8::new(AWAKE), here: AtomicBool::new(false), driver: Mutex::new(None) }
    }

    /// Gives it the driver to wake.
    pub fn attach(&self, driver: Arc<dyn Unpark>) {
        *self.driver.lock() = Some(driver);
        self.here.store(false, Ordering::Relaxed);
        self.state.swap(AWAKE, Ordering::AcqRel);
    }

    /// Takes the driver away at the end of the run.
    pub fn detach(&self) {
        let driver = self.driver.lock().take();
        drop(driver);
    }

    /// The worker is about to sleep. False if it was notified meanwhile and must look again instead.
    #[inline(always)]
    pub fn prepare(&self) -> bool {
        // No swap: the watchdog takes who is `PARKED` for asleep, and would sleep too.
        let parks = || self.state.compare_exchange(AWAKE, PARKED, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if self.here.load(Ordering::Relaxed) || !parks() {
            let _ = self.awake();
            return false;
        }
        true
    }

    /// The worker is awake again, or was not about to sleep; whatever was published before a notification is visible from here on.
    #[inline(always)]
    pub fn awake(&self) -> Wakeup {
        self.here.store(false, Ordering::Relaxed);
        Wakeup(self.state.swap(AWAKE, Ordering::AcqRel))
    }

    /// Whether a notification is there. Two loads.
    #[inline(always)]
    pub fn is_notified(&self) -> bool {
        self.here.load(Ordering::Relaxed) || self.state.load(Ordering::Relaxed) == NOTIFIED
    }

    /// The watchdog is about to sleep: whether the worker does, or is about to. If so it learns of that when it is awake.
    pub fn unwatch(&self) -> bool {
        match self.state.compare_exchange(PARKED, PARKED | UNWATCHED, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => true,
            // If that is not so any more, the worker has roused the watchdog, which has not seen it yet.
            Err(found) => found == PARKED | UNWATCHED,
        }
    }

    /// The watchdog is awake.
    pub fn watch(&self) {
        // Who is awake, or was notified, has found that it slept.
        let _ = self.state.compare_exchange(PARKED | UNWATCHED, PARKED, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Sees to it that the worker does not go to sleep, on its own thread: it is not asleep, even if the driver dispatches just now, and the loop looks at
    /// what can run when that returns.
    #[inline(always)]
    pub fn notify_here(&self) {
        self.here.store(true, Ordering::Relaxed);
    }

    /// Wakes the worker, if it sleeps; otherwise sees to it that it does not go to sleep. Any thread.
    pub fn unpark(&self) {
        if context::tree().is_some_and(|tree| std::ptr::eq(&raw const tree.parker, self)) {
            return self.notify_here();
        }
        // Once in each sleep.
        if self.state.fetch_or(NOTIFIED, Ordering::AcqRel) & (PARKED | NOTIFIED) == PARKED {
            let driver = self.driver.lock().clone();
            if let Some(driver) = driver {
                driver.unpark();
            }
        }
    }
}
