//! What wakes a driver from another thread: an eventfd.

use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use trefoil_runtime::Unpark;

/// The eventfd that wakes a driver. Who waits for its edges need not read it: each ring is one, and the counter too large to fill.
#[derive(Debug)]
pub(crate) struct Bell {
    eventfd: OwnedFd,
}

impl Bell {
    /// One that is silent.
    pub fn new() -> io::Result<Self> {
        Ok(Self { eventfd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
    }

    /// Rings.
    pub fn ring(&self) {
        // It does not block; and a full counter is a bell that rings.
        let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
    }

    /// Forgets that it was rung.
    pub fn silence(&self) {
        let _ = rustix::io::read(&self.eventfd, &mut [0; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

impl Unpark for Bell {
    fn unpark(&self) {
        self.ring();
    }
}
