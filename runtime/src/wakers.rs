//! Wakers that were taken out under a lock, to be woken after it.

use crate::payload::report_panic;
use std::task::Waker;

const BESIDE: &str = "a panic of a waker beside another panic";

/// Wakers to be woken when the lock is released.
#[derive(Debug, Default)]
pub(crate) struct Wakers {
    first: Option<Waker>,
    rest: Vec<Waker>,
}

impl Wakers {
    pub fn push(&mut self, waker: Option<Waker>) {
        let Some(waker) = waker else { return };
        if self.first.is_none() { self.first = Some(waker) } else { self.rest.push(waker) }
    }
}

impl Drop for Wakers {
    #[inline]
    fn drop(&mut self) {
        if let Some(first) = self.first.take() {
            if self.rest.capacity() == 0 && !std::thread::panicking() {
                return first.wake();
            }
            self.wake_all(first);
        }
    }
}

impl Wakers {
    /// A waker that panics does not keep the others from being woken, and does not abort where a panic is under way.
    #[cold]
    fn wake_all(&mut self, first: Waker) {
        let mut panicked = None;
        for waker in std::iter::once(first).chain(self.rest.drain(..)) {
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
}
