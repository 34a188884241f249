//! How a worker goes to sleep, and how any thread wakes it: one word, and the driver's own wake-up only when it really sleeps.
//!
//! ```text
//!            unpark                      prepare: do not sleep
//!   AWAKE ───────────▶ NOTIFIED ───────────────────────────────▶ AWAKE
//!     │ prepare: sleep                                             ▲
//!     └──────────────▶ PARKED ── unpark: NOTIFIED + driver wake ───┤
//!                        └────── awake (timeout, I/O) ─────────────┘
//! ```
//! Both sides swap the one word, so their order is total: a wake-up is seen by `prepare`, or sees `PARKED`.

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
        Self { state: AtomicU8::new(AWAKE), rung: AtomicBool::new(false), driver: Mutex::new(None) }
    }

    /// Gives it the driver to wake.
    pub fn attach(&self, driver: Arc<dyn Unpark>) {
        *self.driver.lock() = Some(driver);
        self.state.swap(AWAKE, Ordering::AcqRel);
    }

    /// Takes the driver away at the end of the run.
    pub fn detach(&self) {
        let driver = self.driver.lock().take();
        drop(driver);
    }

    /// The worker is about to sleep. False if it was notified meanwhile and must look again instead.
    pub fn prepare(&self) -> bool {
        if self.state.swap(PARKED, Ordering::AcqRel) == NOTIFIED {
            self.awake();
            return false;
        }
        true
    }

    /// The worker is awake again; whatever was published before a notification is visible from here on.
    pub fn awake(&self) {
        self.state.swap(AWAKE, Ordering::AcqRel);
    }

    /// Whether a notification is there. One load.
    pub fn is_notified(&self) -> bool {
        self.state.load(Ordering::Relaxed) == NOTIFIED
    }

    /// Whether another thread has woken the driver since the last call.
    pub fn was_rung(&self) -> bool {
        self.rung.load(Ordering::Relaxed) && self.rung.swap(false, Ordering::Relaxed)
    }

    /// Wakes the worker, if it sleeps; otherwise sees to it that it does not go to sleep. Any thread.
    pub fn unpark(&self) {
        if self.state.swap(NOTIFIED, Ordering::AcqRel) == PARKED {
            if context::tree().is_some_and(|tree| std::ptr::eq(&raw const tree.parker, self)) {
                // The driver dispatches: it is not asleep, and the loop looks at what can run when it returns. To ring would be a
                // system call, and an event that ends the next sleep.
                return;
            }
            let driver = self.driver.lock().clone();
            self.rung.store(true, Ordering::Relaxed);
            if let Some(driver) = driver {
                driver.unpark();
            }
        }
    }
}
