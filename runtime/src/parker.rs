//! How a worker goes to sleep, and how any thread wakes it: one word, and the driver's own wake-up only when it really sleeps.
//!
//! ```text
//!            unpark                      prepare: do not sleep
//!   AWAKE ───────────▶ NOTIFIED ───────────────────────────────▶ AWAKE
//!     │ prepare: sleep                                             ▲
//!     └──────────────▶ PARKED ── unpark: NOTIFIED + driver wake ───┤
//!                        └────── awake (timeout, I/O) ─────────────┘
//! ```
//! Both sides change the one word in one step, so their order is total: a wake-up is seen by `prepare`, or sees `PARKED`.
//!
//! What the thread of the worker tells itself, while it polls or dispatches, is no matter between threads: `here`, a plain flag, says that.

use crate::context;
use crate::driver::Unpark;
use crate::sync::{AtomicBool, AtomicU8, Mutex, Ordering};
use std::sync::Arc;

const AWAKE: u8 = 0;
const PARKED: u8 = 1;
const NOTIFIED: u8 = 2;

/// See the module.
pub struct Parker {
    state: AtomicU8,
    /// The worker was notified by its own thread. Written by that one alone.
    here: AtomicBool,
    /// Another thread woke the driver since somebody looked.
    rung: AtomicBool,
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
        Self {
            state: AtomicU8::new(AWAKE),
            here: AtomicBool::new(false),
            rung: AtomicBool::new(false),
            driver: Mutex::new(None),
        }
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
    pub fn prepare(&self) -> bool {
        // No swap: the watchdog takes who is `PARKED` for asleep, and would sleep too.
        let parks = || self.state.compare_exchange(AWAKE, PARKED, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if self.here.load(Ordering::Relaxed) || !parks() {
            self.awake();
            return false;
        }
        true
    }

    /// The worker is awake again; whatever was published before a notification is visible from here on.
    pub fn awake(&self) {
        self.here.store(false, Ordering::Relaxed);
        self.state.swap(AWAKE, Ordering::AcqRel);
    }

    /// Whether a notification is there. Two loads.
    pub fn is_notified(&self) -> bool {
        self.here.load(Ordering::Relaxed) || self.state.load(Ordering::Relaxed) == NOTIFIED
    }

    /// Whether the worker sleeps, or is about to.
    pub fn is_parked(&self) -> bool {
        self.state.load(Ordering::Relaxed) == PARKED
    }

    /// Whether another thread has woken the driver since the last call.
    pub fn was_rung(&self) -> bool {
        self.rung.load(Ordering::Relaxed) && self.rung.swap(false, Ordering::Relaxed)
    }

    /// Wakes the worker, if it sleeps; otherwise sees to it that it does not go to sleep. Any thread.
    pub fn unpark(&self) {
        if context::tree().is_some_and(|tree| std::ptr::eq(&raw const tree.parker, self)) {
            // It is not asleep, even if the driver dispatches just now, and the loop looks at what can run when that returns.
            return self.here.store(true, Ordering::Relaxed);
        }
        if self.state.swap(NOTIFIED, Ordering::AcqRel) == PARKED {
            let driver = self.driver.lock().clone();
            self.rung.store(true, Ordering::Relaxed);
            if let Some(driver) = driver {
                driver.unpark();
            }
        }
    }
}
