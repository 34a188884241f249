//! Locks, semaphores and the like: made of `trefoil_runtime::WaitQueue` alone. First come, first served, with hand-off: a release
//! gives what it frees to the oldest waiter before that one runs (R76), so nobody barges and nobody starves; and a waiter that is
//! cancelled or dropped passes on what it was given (R77, N5).

mod barrier;
mod condition;
mod limiter;
mod mutex;
mod oneshot;
mod rwlock;
mod semaphore;
mod watch;

pub use barrier::{Barrier, WaitBarrier};
pub use condition::Condition;
pub use limiter::{AcquireToken, CapacityLimiter, LimiterStatistics, Token};
pub use mutex::{Lock, Mutex, MutexGuard};
pub use oneshot::{OneshotReceiver, OneshotSender, oneshot};
pub use rwlock::{ReadGuard, ReadLock, RwLock, WriteGuard, WriteLock};
pub use semaphore::{Acquire, Permits, Semaphore};
pub use watch::{WatchReceiver, WatchRef, WatchSender, watch};

use std::fmt;
use trefoil_runtime::Holder;

/// It could not be had at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WouldBlock(());

impl WouldBlock {
    const fn new() -> Self {
        Self(())
    }
}

impl fmt::Display for WouldBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it could not be had without waiting")
    }
}

impl std::error::Error for WouldBlock {}

impl From<WouldBlock> for std::io::Error {
    fn from(error: WouldBlock) -> Self {
        std::io::Error::new(std::io::ErrorKind::WouldBlock, error)
    }
}

/// Who holds something, for a `Debug` output: `[task main.rs:7 (main.rs:9)]`.
struct Listed(Vec<Holder>);

impl fmt::Debug for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line =
            |holder: &Holder| format!("{} at {}:{}", holder.task(), holder.place().file(), holder.place().line());
        f.debug_list().entries(self.0.iter().map(|holder| Text(line(holder)))).finish()
    }
}

/// Text that is shown as it is.
struct Text(String);

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
