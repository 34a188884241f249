//! Wakers that were taken out under a lock, to be woken after it.

use crate::payload::report_panic;
use std::mem::{self, ManuallyDrop};
use std::task::Waker;

const BESIDE: &str = "a panic of a waker beside another panic";

/// Wakers to be woken when the lock is released.
#[derive(Debug, Default)]
pub(crate) struct Wakers {
    /// Taken out at the end, and not dropped by the compiler as well: the end of a set in which nobody is to be woken, as most are, is one look.
    set: ManuallyDrop<Set>,
}

/// A set of each lock that is taken is made and looked at: so of one in which nobody is, one word is written.
#[derive(Debug, Default)]
enum Set {
    #[default]
    Nobody,
    One(Waker),
    Many(Vec<Waker>),
}

impl Wakers {
    #[inline]
    pub fn push(&mut self, waker: Option<Waker>) {
        let Some(waker) = waker else { return };
        match &*self.set {
            Set::Nobody => *self.set = Set::One(waker),
            _ => self.push_another(waker),
        }
    }

    /// Apart, so that what is left is small enough to be a part of each that has the lock.
    #[inline(never)]
    fn wake(&mut self) {
        match mem::take(&mut *self.set) {
            // Most wake one: without a set of them in memory.
            Set::One(waker) if !std::thread::panicking() => waker.wake(),
            set => wake_all(set),
        }
    }

    #[inline(never)]
    fn push_another(&mut self, waker: Waker) {
        let all = match mem::take(&mut *self.set) {
            Set::Nobody => vec![waker],
            Set::One(first) => vec![first, waker],
            Set::Many(mut all) => {
                all.push(waker);
                all
            }
        };
        *self.set = Set::Many(all);
    }
}

impl Drop for Wakers {
    #[inline(always)]
    fn drop(&mut self) {
        if !matches!(*self.set, Set::Nobody) {
            self.wake();
        }
    }
}

/// A waker that panics does not keep the others from being woken, and does not abort where a panic is under way.
#[cold]
#[inline(never)]
fn wake_all(set: Set) {
    let all = match set {
        Set::Nobody => Vec::new(),
        Set::One(waker) => vec![waker],
        Set::Many(all) => all,
    };
    let mut panicked = None;
    for waker in all {
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
