//! Wakers that were taken out under a lock, to be woken after it.

use std::task::Waker;

/// Wakers to be woken when the lock is released.
#[derive(Default)]
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
    fn drop(&mut self) {
        let Some(first) = self.first.take() else { return };
        if self.rest.is_empty() {
            return first.wake();
        }
        self.wake_all(first);
    }
}

impl Wakers {
    /// A waker that panics does not keep the others from being woken.
    #[cold]
    fn wake_all(&mut self, first: Waker) {
        let mut panicked = None;
        for waker in std::iter::once(first).chain(self.rest.drain(..)) {
            if let Err(payload) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| waker.wake())) {
                panicked.get_or_insert(payload);
            }
        }
        if let Some(payload) = panicked
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(payload);
        }
    }
}
