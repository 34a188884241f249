//! What is counted: wakes and drops.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool as StdBool, AtomicUsize as Count, Ordering};
use std::task::{Context, Wake, Waker};
use trefoil_runtime::sync::AtomicBool;

/// A waker of the model's own, which remembers that it was woken.
#[derive(Clone, Debug)]
pub struct Woken(Arc<Flag>);

#[derive(Debug)]
struct Flag {
    woken: AtomicBool,
    times: Count,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.times.fetch_add(1, Ordering::Relaxed);
        self.woken.swap(true, Ordering::AcqRel);
    }
}

impl Woken {
    /// Not woken yet.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(Arc::new(Flag { woken: AtomicBool::new(false), times: Count::new(0) }))
    }

    /// One more waker. Not inlined: each place where it is may have a table of functions of its own, and with two of them it is not the same waker to who
    /// compares.
    #[inline(never)]
    pub fn waker(&self) -> Waker {
        self.0.clone().into()
    }

    /// Whether it was woken since this was last asked.
    pub fn take(&self) -> bool {
        self.0.woken.swap(false, Ordering::AcqRel)
    }

    /// How often it was woken.
    pub fn times(&self) -> usize {
        self.0.times.load(Ordering::Relaxed)
    }

    /// How many wakers there are.
    pub fn wakers(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }

    /// Calls `poll`, with this waker, as a task does: what woke it before is forgotten.
    pub fn poll<R>(&self, poll: impl FnOnce(&mut Context<'_>) -> R) -> R {
        self.take();
        poll(&mut Context::from_waker(&self.waker()))
    }

    /// Polls as long as it was woken.
    ///
    /// # Panics
    /// If there is no end to it.
    pub fn settle(&self, mut poll: impl FnMut(&mut Context<'_>)) {
        for _ in 0..20 {
            if !self.take() {
                return;
            }
            self.poll(&mut poll);
        }
        panic!("woken again and again");
    }
}

/// Counts values that come and go.
#[derive(Clone, Debug, Default)]
pub struct Drops(Arc<(Count, Count)>);

impl Drops {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A value that counts its drop, and fails where it is dropped twice.
    pub fn token(&self) -> Token {
        self.0.0.fetch_add(1, Ordering::Relaxed);
        Token { drops: self.clone(), gone: StdBool::new(false) }
    }

    /// How many were dropped.
    pub fn count(&self) -> usize {
        self.0.1.load(Ordering::Relaxed)
    }

    /// Whether all were dropped.
    pub fn all(&self) -> bool {
        self.0.0.load(Ordering::Relaxed) == self.count()
    }
}

/// See [`Drops::token`].
#[derive(Debug)]
pub struct Token {
    drops: Drops,
    gone: StdBool,
}

impl Drop for Token {
    fn drop(&mut self) {
        assert!(!self.gone.swap(true, Ordering::Relaxed), "dropped twice");
        self.drops.0.1.fetch_add(1, Ordering::Relaxed);
    }
}
