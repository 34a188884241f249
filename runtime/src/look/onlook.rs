//! How another thread walks the lists of tasks while their owner goes on changing them, and pays next to nothing for that.
//!
//! The list of a nursery's children is its owner's, who links and unlinks them without a lock. Somebody who looks on, to print the task tree
//! while the loop is stuck, may find a child that is unlinked and freed the next moment. So who looks on says so first, in one word
//! that whoever frees a task looks at:
//!
//! ```text
//!   owner                                who looks on
//!   unlinks the task from the list       lookers += 1
//!   ── light ──                          ── heavy ──
//!   lookers == 0 ? frees it              walks the list
//!               : leaves it in `kept`    lookers -= 1; the last one frees what is in `kept`
//! ```
//!
//! Either who frees sees that somebody looks on, and keeps the task; or its unlinking came before that of which the walk begins, and the
//! walk does not find the task. A task that is unlinked during a walk still names the one after it, which is kept as well.
//!
//! A loop that ends a child does not even look at that word. Who looks on takes the memory that it keeps for children out of its hand
//! ([`blocks`](crate::blocks)), which it looks at anyway when it gives a child back; and a loop that has none in hand asks.
//!
//! For that both sides need a full barrier between the two accesses. They are not even: there may be millions of tasks for one walk. So who
//! looks on has the kernel put the barrier into every running thread of the process (`membarrier(2)`), and the light one is for the
//! compiler alone. Where the kernel refuses, and under Miri, the word says so for ever, and the light one is a real one.
//!
//! - **\[LOOKED\]** Between [`Onlookers::look`] and the end of what it returns, no memory is freed of a task that was reachable from the list of
//!   its queue at any moment in between.

use crate::sync::barrier;
use crate::sync::{AtomicUsize, Mutex, Ordering, atomic::fence};

/// The kernel has no barrier for us: the light one must be a real one.
const EVEN: usize = 1;
const LOOKER: usize = 2;

/// Who looks on, and what is kept for them. `K` is what is freed later.
#[derive(Debug)]
pub struct Onlookers<K> {
    word: AtomicUsize,
    /// The kernel has had a barrier for us. Not one of loom's: in models there is none.
    promised: std::sync::atomic::AtomicBool,
    kept: Mutex<Vec<K>>,
}

impl<K> Onlookers<K> {
    /// Nobody looks on. Call [`prepare`](Self::prepare) before anything is retired.
    #[cfg(not(trefoil_loom))]
    pub const fn new() -> Self {
        Self {
            word: AtomicUsize::new(0),
            promised: std::sync::atomic::AtomicBool::new(false),
            kept: Mutex::new(Vec::new()),
        }
    }

    /// For the models: loom has no barrier that reaches other threads, but the real one.
    #[cfg(trefoil_loom)]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self {
            word: AtomicUsize::new(EVEN),
            promised: std::sync::atomic::AtomicBool::new(false),
            kept: Mutex::new(Vec::new()),
        }
    }

    /// Asks the kernel for its barrier. Again does nothing.
    pub fn prepare(&self) {
        self.prepared(barrier::register());
    }

    fn prepared(&self, has_barrier: bool) {
        if has_barrier {
            self.promised.store(true, Ordering::Release);
        } else {
            self.word.fetch_or(EVEN, Ordering::SeqCst);
        }
    }

    /// Whether something that was just unlinked has to be given to [`retire`](Self::retire) instead of being freed: one load.
    #[inline(always)]
    pub fn any(&self) -> bool {
        // So that the compiler does not move the load before the unlinking.
        #[cfg(not(trefoil_loom))]
        std::sync::atomic::compiler_fence(Ordering::SeqCst);
        self.word.load(Ordering::Relaxed) != 0
    }

    /// Keeps what somebody may look at, until nobody does. `Some`: nobody does, it is to be freed now.
    #[cold]
    pub fn retire(&self, what: K) -> Option<K> {
        fence(Ordering::SeqCst);
        if self.word.load(Ordering::Acquire) < LOOKER {
            return Some(what);
        }
        let mut kept = self.kept.lock();
        // The last who looks on takes all that is kept under the lock, after it has stopped.
        if self.word.load(Ordering::Acquire) < LOOKER {
            return Some(what);
        }
        kept.push(what);
        None
    }

    /// Looks on: \[LOOKED\] holds until the result is dropped, if that [may walk](Looking::may_walk). What was kept is given to `free` then.
    ///
    /// `tell` is called when the word says so, and before the barrier: who frees may look at another word instead, which that sets.
    pub fn look<F: FnMut(K)>(&self, tell: impl FnOnce(), free: F) -> Looking<'_, K, F> {
        let before = self.word.fetch_add(LOOKER, Ordering::SeqCst);
        tell();
        let reached = barrier::heavy();
        Looking { onlookers: self, free, may_walk: reached || self.is_even(before) }
    }

    /// Whether each light barrier since the first was a real one. Not where the kernel took its barrier back between two runs: who frees in the older one may
    /// not have seen yet that the word has changed.
    fn is_even(&self, word: usize) -> bool {
        word & EVEN != 0 && !self.promised.load(Ordering::Acquire)
    }
}

/// Somebody looks on. See [`Onlookers::look`].
pub struct Looking<'a, K, F: FnMut(K)> {
    onlookers: &'a Onlookers<K>,
    free: F,
    may_walk: bool,
}

impl<K, F: FnMut(K)> Looking<'_, K, F> {
    /// False where the kernel has refused its barrier although it was promised: a filter of system calls that came later. Who frees may
    /// not have seen then that somebody looks on.
    pub fn may_walk(&self) -> bool {
        self.may_walk
    }
}

impl<K, F: FnMut(K)> std::fmt::Debug for Looking<'_, K, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Looking")
    }
}

impl<K, F: FnMut(K)> Drop for Looking<'_, K, F> {
    fn drop(&mut self) {
        let mut kept = self.onlookers.kept.lock();
        let before = self.onlookers.word.fetch_sub(LOOKER, Ordering::SeqCst);
        let all = if before / LOOKER == 1 { std::mem::take(&mut *kept) } else { Vec::new() };
        drop(kept);
        all.into_iter().for_each(&mut self.free);
    }
}

#[cfg(all(test, not(trefoil_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_barrier_that_was_promised_and_taken_back_is_not_made_up_for_by_real_ones_later() {
        let never: Onlookers<()> = Onlookers::new();
        never.prepared(false);
        assert!(never.is_even(never.word.load(Ordering::Relaxed)));
        let taken_back: Onlookers<()> = Onlookers::new();
        taken_back.prepared(true);
        assert!(!taken_back.any());
        taken_back.prepared(false);
        assert!(taken_back.any(), "who frees from now on makes it a real one");
        assert!(!taken_back.is_even(taken_back.word.load(Ordering::Relaxed)));
    }
}
