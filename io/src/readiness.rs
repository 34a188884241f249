//! What is known of a descriptor without asking the kernel: one word, written by the driver and by who has just asked.
//!
//! ```text
//!   31            8 7          0
//!   ┌──────────────┬────────────┐
//!   │ tick         │ flags      │
//!   └──────────────┴────────────┘
//! ```
//!
//! A flag that is set means "perhaps: ask". The driver sets it and moves the tick with each event. Who was told by the kernel
//! that nothing is left clears it, but only if the tick is still the one from before that question: an event in between
//! is about something newer than the answer.

use trefoil_runtime::sync::{AtomicU32, Ordering};

/// Reading (or accepting) is worth a try.
pub(crate) const READ: u32 = 1;
/// Writing is worth a try.
pub(crate) const WRITE: u32 = 2;
/// A short read does not mean that the socket is drained: its end, an error or urgent data came with or behind the bytes, and no
/// edge will tell of it again. Stays.
pub(crate) const SHORT_READ_LIES: u32 = 4;
/// Something was received ahead of the reader, and waits in the source: look there first.
pub(crate) const INBOUND: u32 = 8;

const FLAGS: u32 = 0xff;
const TICK: u32 = 0x100;

/// See the module.
#[derive(Debug)]
pub(crate) struct Readiness(AtomicU32);

/// The word at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen(u32);

impl Seen {
    pub fn has(self, flags: u32) -> bool {
        self.0 & flags != 0
    }
}

impl Readiness {
    /// Nobody has asked yet.
    pub fn new() -> Self {
        Self(AtomicU32::new(READ | WRITE))
    }

    pub fn look(&self) -> Seen {
        Seen(self.0.load(Ordering::Acquire))
    }

    /// Something happened.
    pub fn set(&self, flags: u32) {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let next = (word | flags).wrapping_add(TICK);
            match self.0.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// The kernel had no more for `flags`, asked after `seen`.
    pub fn clear(&self, seen: Seen, flags: u32) {
        let mut word = self.0.load(Ordering::Relaxed);
        // The other direction may have cleared its flag meanwhile: that is no event.
        while word & !FLAGS == seen.0 & !FLAGS {
            match self.0.compare_exchange_weak(word, word & !flags, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }
}

#[cfg(all(test, not(trefoil_loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_event_between_question_and_answer_is_kept() {
        let readiness = Readiness::new();
        let seen = readiness.look();
        readiness.set(READ);
        readiness.clear(seen, READ);
        assert!(readiness.look().has(READ));
        readiness.clear(readiness.look(), READ);
        assert!(!readiness.look().has(READ));
        assert!(readiness.look().has(WRITE));
    }

    #[test]
    fn the_other_direction_is_no_event() {
        let readiness = Readiness::new();
        let seen = readiness.look();
        readiness.clear(seen, WRITE);
        readiness.clear(seen, READ);
        assert!(!readiness.look().has(READ | WRITE));
    }

    #[test]
    fn the_tick_wraps_without_touching_the_flags() {
        let readiness = Readiness(AtomicU32::new(!FLAGS | WRITE));
        readiness.set(READ);
        assert_eq!(readiness.look().0, READ | WRITE);
    }
}
