//! A full barrier between two threads of which one side costs nothing: for pairs of which one is done millions of times for each of the other.
//!
//! One thread writes A and reads B, the other writes B and reads A, and one of them at least has to see what the other wrote. That takes a full
//! barrier on both sides, between the write and the read. Here the frequent side has the [`light`] one, which is for the compiler alone,
//! and the rare side the [`heavy`] one, for which the kernel puts a barrier into every thread of the process that is running
//! (`membarrier(2)`): wherever that falls in the other's program, it stands between its write and its read, or before both, or after.
//!
//! Whoever wants the light one asks whether there is a heavy one first ([`register`]). Loom has none: in the models both are real ones.

/// Asks the kernel for its barrier; whether it has one. Again does nothing.
pub(crate) fn register() -> bool {
    imp::register()
}

/// The side that costs nothing.
#[inline(always)]
pub(crate) fn light() {
    #[cfg(not(trefoil_loom))]
    std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
    #[cfg(trefoil_loom)]
    crate::sync::atomic::fence(crate::sync::Ordering::SeqCst);
}

/// The other side. Whether it has reached the other threads: false where the kernel has none, and where it has taken it back, as a filter of
/// system calls that came later does.
pub(crate) fn heavy() -> bool {
    crate::sync::atomic::fence(crate::sync::Ordering::SeqCst);
    imp::heavy()
}

#[cfg(all(target_os = "linux", not(miri), not(trefoil_loom)))]
mod imp {
    use rustix::thread::{MembarrierCommand, membarrier};
    use std::sync::atomic::{AtomicBool, Ordering};

    /// It was refused once: whoever is told so asks again at each lock that it takes, and a system call each time costs more than the lock.
    static REFUSED: AtomicBool = AtomicBool::new(false);

    pub fn register() -> bool {
        if REFUSED.load(Ordering::Relaxed) {
            return false;
        }
        let registered = membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok();
        if !registered {
            REFUSED.store(true, Ordering::Relaxed);
        }
        registered
    }

    pub fn heavy() -> bool {
        // A process that was restored from a checkpoint may have to register again.
        let reached = || membarrier(MembarrierCommand::PrivateExpedited).is_ok();
        let reached = reached() || (register() && reached());
        if !reached {
            REFUSED.store(true, Ordering::Relaxed);
        }
        reached
    }
}

#[cfg(any(not(target_os = "linux"), miri, trefoil_loom))]
mod imp {
    pub fn register() -> bool {
        false
    }

    pub fn heavy() -> bool {
        false
    }
}
