//! Wakers that were taken out under a lock, to be woken after it.

use crate::payload::report_panic;
use std::mem::ManuallyDrop;
use std::task::Waker;

const BESIDE: &str = "a panic of a waker beside another panic";

/// Wakers to be woken when the lock is released.
#[derive(Debug, Default)]
pub(crate) struct Wakers {
    first: ManuallyDrop<Option<Waker>>,
    /// Empty, and without memory, while there is no first. Not dropped by the compiler, so that the end of a set in which nobody is to be woken,
    /// as most are, is one look at `first`: it took 32 instructions, twice for each wait.
    rest: ManuallyDrop<Vec<Waker>>,
}

impl Wakers {
    #[inline]
    pub fn push(&mut self, waker: Option<Waker>) {
        let Some(waker) = waker else { return };
        if self.first.is_none() { *self.first = Some(waker) } else { self.rest.push(waker) }
    }
}

impl Drop for Wakers {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(first) = self.first.take() {
            if self.rest.capacity() == 0 {
                return wake(first);
            }
            wake_all(first, std::mem::take(&mut *self.rest));
        }
    }
}

/// Most wake one: without a set of them in memory.
#[inline]
fn wake(waker: Waker) {
    if std::thread::panicking() {
        return wake_all(waker, Vec::new());
    }
    waker.wake();
}

/// A waker that panics does not keep the others from being woken, and does not abort where a panic is under way.
#[cold]
#[inline(never)]
fn wake_all(first: Waker, rest: Vec<Waker>) {
    let mut panicked = None;
    for waker in std::iter::once(first).chain(rest) {
        if let Err(payload) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| waker.wake())) {
            match panicked {
                None => panicked = Some(payload),
                Some(_) => report_panic(payload, BESIDE),
            }
        }
    }
    match panicked {
        Some(payload) if std::thread::panicking() => report_panic(payload, BESIDE),
        Some(payload) => std::panic::resume_unwind(payload),
        None => {}
    }
}
