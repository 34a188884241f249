//! What wakes a driver from another thread: an eventfd.

use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use trefoil_runtime::Unpark;

/// The eventfd that wakes a driver. Who waits for its edges need not read it: each ring is one, and the counter too large to fill.
///
/// While the driver dispatches, the loop still counts as asleep, so that every task it wakes would ring: a write, and an event that
/// ends the next sleep. The bell is muffled meanwhile. Nothing is missed: who rings has told the loop's
/// parker before, and the loop looks there, and at what can run, when the driver returns, which is after the muffle
/// has been taken off. Who comes later than that look finds the loop awake, and does not ring.
#[derive(Debug)]
pub(crate) struct Bell {
    eventfd: OwnedFd,
    muffled: AtomicBool,
}

impl Bell {
    /// One that is silent.
    pub fn new() -> io::Result<Self> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { eventfd, muffled: AtomicBool::new(false) })
    }

    /// Rings, muffled or not.
    pub fn ring(&self) {
        // It does not block; and a full counter is a bell that rings.
        let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
    }

    /// Forgets that it was rung.
    pub fn silence(&self) {
        let _ = rustix::io::read(&self.eventfd, &mut [0; 8]);
    }

    pub fn muffle(&self) -> Muffled<'_> {
        self.muffled.store(true, Ordering::Release);
        Muffled(self)
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

impl Unpark for Bell {
    fn unpark(&self) {
        if !self.muffled.load(Ordering::Acquire) {
            self.ring();
        }
    }
}

/// Until it is dropped.
pub(crate) struct Muffled<'a>(&'a Bell);

impl Drop for Muffled<'_> {
    fn drop(&mut self) {
        self.0.muffled.store(false, Ordering::Release);
    }
}
