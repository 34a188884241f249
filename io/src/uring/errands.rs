//! Operations that own what they use: see [`fs`](crate::fs::errand). A table of those that the kernel has.
//!
//! **\[HELD\]** An errand stays in the table, untouched, from before its entry is submitted until its last completion was popped; it is leaked
//! if that does not come. That is the promise of [`Errand::entry`].

use super::slots::{INDEX_BITS, Key, Slots};
use super::sys::{Cqe, Sqe};
use crate::fs::errand::Errand;
use rustix::io::Errno;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// In a key, above the bit of a cancel: it is that of an errand.
pub const ERRAND: Key = 8 << INDEX_BITS;

/// See the module.
pub struct Errands {
    table: Slots<Sent>,
    /// What is over, to be [finished](Finished::finish) when the core is no longer borrowed.
    finished: Vec<Finished>,
}

struct Sent {
    errand: Box<dyn Errand>,
    stopping: bool,
}

/// An errand that is over.
pub struct Finished(Box<dyn Errand>, io::Result<usize>);

impl Finished {
    /// Tells who waits. Runs code of others.
    pub fn finish(self) {
        self.0.done(self.1);
    }
}

impl fmt::Debug for Errands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Errands")
    }
}

impl Errands {
    pub const fn new() -> Self {
        Self { table: Slots::new(), finished: Vec::new() }
    }

    /// Takes it in: its entry is to be submitted now. Back if the ring cannot do it.
    pub fn begin(
        &mut self,
        errand: Box<dyn Errand>,
        can: impl FnOnce(&Sqe) -> bool,
    ) -> Result<(Key, Sqe), Box<dyn Errand>> {
        let key = self.table.insert(Sent { errand, stopping: false }) | ERRAND;
        let sent = self.table.get_mut(key).expect("just inserted");
        // SAFETY: [HELD]; it is not submitted if it is taken out again here.
        let entry = catch_unwind(AssertUnwindSafe(|| unsafe { sent.errand.entry(key) }));
        // A buffer is code of others. A thread is asked next, and tells of a panic.
        let entry = entry.unwrap_or_else(|payload| {
            trefoil_runtime::discard(payload);
            None
        });
        match entry.filter(can) {
            Some(entry) => Ok((key, entry)),
            None => Err(self.table.remove(key).expect("just inserted").errand),
        }
    }

    /// It is to end: whether a cancel is to be sent.
    pub fn stop(&mut self, key: Key) -> bool {
        self.table.get_mut(key).is_some_and(|sent| !std::mem::replace(&mut sent.stopping, true))
    }

    /// All are to end, for which cancels are to be sent.
    pub fn stop_all(&mut self) -> impl Iterator<Item = Key> {
        self.table.iter_mut().map(|(key, sent)| {
            sent.stopping = true;
            key | ERRAND
        })
    }

    pub fn is_stopping(&mut self, key: Key) -> bool {
        self.table.get_mut(key).is_some_and(|sent| sent.stopping)
    }

    /// The last completion for it was popped.
    pub fn over(&mut self, cqe: &Cqe) {
        let sent = self.table.remove(cqe.key());
        debug_assert!(sent.is_some(), "[HELD]: a completion for nobody: {cqe:?}");
        if let Some(sent) = sent {
            let result = match cqe.result() {
                // A worker thread of the kernel that was at it already is interrupted: that is how io_uring_enter(2) has it. Without a cancel of
                // ours it is an answer as any other.
                Err(Errno::INTR) if sent.stopping => Err(Errno::CANCELED),
                result => result,
            };
            let result = result.map(|n| n as usize).map_err(Errno::into);
            self.finished.push(Finished(sent.errand, result));
        }
    }

    /// Whether some are to be finished.
    pub fn has_finished(&self) -> bool {
        !self.finished.is_empty()
    }

    pub fn take_finished(&mut self) -> Vec<Finished> {
        std::mem::take(&mut self.finished)
    }

    /// The kernel has not let go of them, and will not be waited for.
    pub fn leak(&mut self) {
        self.table.drain().for_each(|(_, sent)| std::mem::forget(sent));
    }
}

#[cfg(all(test, not(trefoil_loom)))]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// Notes what it was told.
    struct Notes(Arc<Mutex<Vec<Option<i32>>>>);

    impl Errand for Notes {
        fn run(&mut self) -> io::Result<usize> {
            unreachable!("the ring has it")
        }
        unsafe fn entry(&mut self, key: Key) -> Option<Sqe> {
            Some(Sqe::nop(key))
        }
        fn done(self: Box<Self>, result: io::Result<usize>) {
            self.0.lock().unwrap().push(result.unwrap_err().raw_os_error());
        }
    }

    #[test]
    fn what_a_cancel_has_interrupted_is_cancelled() {
        let told = Arc::default();
        for stops in [true, false] {
            let mut errands = Errands::new();
            let (key, _) = errands.begin(Box::new(Notes(Arc::clone(&told))), |_| true).ok().expect("the ring can");
            if stops {
                assert!(errands.stop(key));
            }
            errands.over(&Cqe::new(key, Errno::INTR.raw_os_error().wrapping_neg(), 0));
            errands.take_finished().into_iter().for_each(Finished::finish);
        }
        assert_eq!(*told.lock().unwrap(), [Some(Errno::CANCELED.raw_os_error()), Some(Errno::INTR.raw_os_error())]);
    }
}
