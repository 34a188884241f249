//! What is known of a descriptor without asking the kernel, and the lock of whatever else its driver and its owner share: one word.
//!
//! ```text
//!   63            8  7       6          0
//!   ┌──────────────┬────────┬────────────┐
//!   │ tick         │ LOCKED │ flags      │
//!   └──────────────┴────────┴────────────┘
//! ```
//!
//! A flag that is set means "perhaps: ask". The driver sets it and moves the tick with each event. Who was told by the kernel
//! that nothing is left clears it, but only if the tick is still the one from before that question: an event in between
//! is about something newer than the answer. So no tick may come twice: in 56 bits there is room for an event in each nanosecond of two years.
//!
//! An event sets a flag and looks who waits for it, and who begins to wait looks at the flags: each takes the lock and touches the word with one
//! read-modify-write, and gives the lock back by a store, which shows the word as it is then. With a mutex beside the word it was three for an
//! event and two for a wait. In a run of its own a source is used by one thread; others that meet it here wait for some ten instructions.
//!
//! - **\[WORD\]** While `LOCKED` is set nobody writes the word but who has set it.
//! - **\[VALUE\]** The value is touched by who has set `LOCKED`, until that is unset.

use std::fmt;
use std::ops::{Deref, DerefMut};
use trefoil_runtime::sync::{AtomicU64, Ordering, UnsafeCell, spin};

/// Reading (or accepting) is worth a try.
pub(crate) const READ: u32 = 1;
/// Writing is worth a try.
pub(crate) const WRITE: u32 = 2;
/// A short read does not mean that the socket is drained: its end, an error or urgent data came with or behind the bytes, and no
/// edge will tell of it again. Stays.
pub(crate) const SHORT_READ_LIES: u32 = 4;
/// Something was received ahead of the reader, and waits in the source: look there first.
pub(crate) const INBOUND: u32 = 8;

const LOCKED: u64 = 0x80;
const BELOW_TICK: u64 = 0xff;
const TICK: u64 = 0x100;

/// So often who finds the lock taken looks again before it sleeps in between: the thread that has it may not be running.
const PATIENCE: u32 = 100;

/// See the module.
pub(crate) struct Readiness<T> {
    word: AtomicU64,
    value: UnsafeCell<T>,
}

// SAFETY: the value passes between threads under the lock ([VALUE]). `Sync`, too: a guard may be shared.
unsafe impl<T: Send + Sync> Sync for Readiness<T> {}

impl<T> fmt::Debug for Readiness<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Readiness").field(&self.look()).finish()
    }
}

/// The word at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen(u64);

impl Seen {
    #[inline]
    pub fn has(self, flags: u32) -> bool {
        self.0 & u64::from(flags) != 0
    }

    /// Whether nothing happened in between.
    #[inline]
    fn is_as_of(self, other: Self) -> bool {
        (self.0 ^ other.0) & !BELOW_TICK == 0
    }

    /// After an event.
    fn with(self, flags: u32) -> Self {
        Self((self.0 | u64::from(flags)).wrapping_add(TICK))
    }

    /// After an answer to a question that was asked after `seen`. The other direction may have cleared its flag meanwhile: that is no event.
    fn without(self, flags: u32, seen: Self) -> Self {
        if self.is_as_of(seen) { Self(self.0 & !u64::from(flags)) } else { self }
    }
}

impl<T> Readiness<T> {
    /// Nobody has asked yet.
    pub fn new(value: T) -> Self {
        Self { word: AtomicU64::new(u64::from(READ | WRITE)), value: UnsafeCell::new(value) }
    }

    #[inline]
    pub fn look(&self) -> Seen {
        Seen(self.word.load(Ordering::Acquire) & !LOCKED)
    }

    /// The kernel had no more for `flags`, asked after `seen`. Not for who has the lock.
    #[inline]
    pub fn clear(&self, seen: Seen, flags: u32) {
        let word = self.look();
        let next = word.without(flags, seen);
        if word.0 != next.0 && !self.change(word, next.0) {
            self.lock().clear(seen, flags);
        }
    }

    /// Takes the lock.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        let word = self.look();
        if self.change(word, word.0 | LOCKED) { Guard { of: self, word } } else { self.lock_later() }
    }

    /// Something happened: takes the lock, and says so at once.
    #[inline]
    pub fn lock_and_set(&self, flags: u32) -> Guard<'_, T> {
        let word = self.look();
        let next = word.with(flags);
        if self.change(word, next.0 | LOCKED) {
            return Guard { of: self, word: next };
        }
        let mut guard = self.lock_later();
        guard.set(flags);
        guard
    }

    /// Writes the word, if it is still this one and the lock is free.
    #[inline]
    fn change(&self, from: Seen, to: u64) -> bool {
        self.word.compare_exchange(from.0, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Another thread has it, or the word has changed.
    #[cold]
    fn lock_later(&self) -> Guard<'_, T> {
        let mut looks = 0;
        loop {
            let word = self.look();
            if self.change(word, word.0 | LOCKED) {
                return Guard { of: self, word };
            }
            looks += 1;
            if cfg!(trefoil_loom) || looks < PATIENCE {
                spin();
            } else {
                std::thread::sleep(std::time::Duration::from_micros(50));
            }
        }
    }
}

/// As of when the kernel has said, to one who did not wait then, that nothing is left. Noted by that one alone, in a plain store, and looked at by it
/// before it asks again: so the word need not be changed until it waits. Where several accept from one listener each looks at it, and none notes it.
#[derive(Debug)]
pub(crate) struct Drained(std::sync::atomic::AtomicU64);

impl Drained {
    /// It has said nothing: a tick that is never reached.
    pub fn new() -> Self {
        Self(std::sync::atomic::AtomicU64::new(u64::MAX))
    }

    /// Nothing is left, asked after `seen`.
    #[inline]
    pub fn note(&self, seen: Seen) {
        self.0.store(seen.0, Ordering::Relaxed);
    }

    /// Whether nothing happened since.
    #[inline]
    pub fn is_still(&self, seen: Seen) -> bool {
        seen.is_as_of(Seen(self.0.load(Ordering::Relaxed)))
    }
}

/// The lock, taken: what it guards, and the word as it will be when this is dropped.
pub(crate) struct Guard<'a, T> {
    of: &'a Readiness<T>,
    word: Seen,
}

impl<T> fmt::Debug for Guard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guard").field(&self.word).finish()
    }
}

impl<T> Guard<'_, T> {
    #[inline]
    pub fn look(&self) -> Seen {
        self.word
    }

    /// Something happened.
    #[inline]
    pub fn set(&mut self, flags: u32) {
        self.word = self.word.with(flags);
    }

    /// As [`Readiness::clear`].
    #[inline]
    pub fn clear(&mut self, seen: Seen, flags: u32) {
        self.word = self.word.without(flags, seen);
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: [VALUE].
        self.of.value.with(|value| unsafe { &*value })
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: [VALUE].
        self.of.value.with_mut(|value| unsafe { &mut *value })
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // [WORD]: nobody else has written it. Release: what was done under the lock.
        self.of.word.store(self.word.0, Ordering::Release);
    }
}

#[cfg(all(test, not(trefoil_loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_event_between_question_and_answer_is_kept() {
        let readiness = Readiness::new(());
        let seen = readiness.look();
        drop(readiness.lock_and_set(READ));
        readiness.clear(seen, READ);
        assert!(readiness.look().has(READ));
        readiness.clear(readiness.look(), READ);
        assert!(!readiness.look().has(READ));
        assert!(readiness.look().has(WRITE));
    }

    #[test]
    fn what_was_drained_is_until_something_happens() {
        let (readiness, drained) = (Readiness::new(()), Drained::new());
        assert!(!drained.is_still(readiness.look()));
        drained.note(readiness.look());
        readiness.clear(readiness.look(), WRITE);
        assert!(drained.is_still(readiness.look()));
        drop(readiness.lock_and_set(WRITE));
        assert!(!drained.is_still(readiness.look()));
    }

    #[test]
    fn the_other_direction_is_no_event() {
        let readiness = Readiness::new(());
        let seen = readiness.look();
        readiness.clear(seen, WRITE);
        readiness.clear(seen, READ);
        assert!(!readiness.look().has(READ | WRITE));
    }

    #[test]
    fn the_tick_wraps_without_touching_the_flags() {
        let readiness = Readiness { word: AtomicU64::new(!BELOW_TICK | u64::from(WRITE)), value: UnsafeCell::new(()) };
        drop(readiness.lock_and_set(READ));
        assert_eq!(readiness.look().0, u64::from(READ | WRITE));
    }

    #[test]
    fn what_is_done_under_the_lock_is_seen_when_it_is_free() {
        let readiness = Readiness::new(0);
        let seen = readiness.look();
        let mut guard = readiness.lock();
        guard.clear(seen, READ);
        *guard += 1;
        assert!(readiness.look().has(READ) && !guard.look().has(READ));
        drop(guard);
        assert!(!readiness.look().has(READ));
        assert_eq!(*readiness.lock_and_set(READ), 1);
        assert!(readiness.look().has(READ));
    }

    #[test]
    fn one_at_a_time_has_the_lock() {
        let many = if cfg!(miri) { 20 } else { 100_000 };
        let readiness = Readiness::new((0, 0));
        let count = || {
            for i in 0..many {
                let seen = readiness.look();
                let mut both = if i % 2 == 0 { readiness.lock() } else { readiness.lock_and_set(READ) };
                assert_eq!(both.0, both.1);
                both.0 += 1;
                std::hint::black_box(&mut both.0);
                both.1 += 1;
                drop(both);
                readiness.clear(seen, READ);
            }
        };
        std::thread::scope(|s| {
            s.spawn(count);
            s.spawn(count);
        });
        assert_eq!(*readiness.lock(), (2 * many, 2 * many));
    }
}
