//! The clock of a run: the machine's, or a virtual one that stands still while anything can run and then jumps.
//!
//! Times are `std::time::Instant` to users and, inside, nanoseconds since a moment shortly before the first use in the process,
//! so that a time fits in a word and compares in an instruction. `u64::MAX` is "never".

use crate::sync::{AtomicU64, Ordering};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// "Never", as a time.
pub const NEVER: u64 = u64::MAX;

fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    // A day before, where the machine has been up so long: instants somewhat in the past keep their order.
    *EPOCH.get_or_init(|| {
        let now = Instant::now();
        now.checked_sub(Duration::from_secs(86_400)).unwrap_or(now)
    })
}

/// An instant as nanoseconds. Before the epoch: 0.
pub fn nanos(instant: Instant) -> u64 {
    u64::try_from(instant.saturating_duration_since(epoch()).as_nanos()).unwrap_or(NEVER)
}

/// Nanoseconds as an instant; `None` for [`NEVER`].
pub fn instant(nanos: u64) -> Option<Instant> {
    if nanos == NEVER { None } else { epoch().checked_add(Duration::from_nanos(nanos)) }
}

/// A length of time after a time; [`NEVER`] where that is out of range.
pub fn after(now: u64, duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).ok().and_then(|d| now.checked_add(d)).unwrap_or(NEVER)
}

/// Real, or virtual where `virtual_now` is not 0.
#[derive(Debug)]
pub(crate) struct Clock {
    virtual_now: AtomicU64,
}

impl Clock {
    pub fn new() -> Self {
        Self { virtual_now: AtomicU64::new(0) }
    }

    /// Starts anew, for a run.
    pub fn reset(&self, virtual_time: bool) {
        self.virtual_now.store(if virtual_time { nanos(Instant::now()) } else { 0 }, Ordering::Release);
    }

    pub fn is_virtual(&self) -> bool {
        self.virtual_now.load(Ordering::Acquire) != 0
    }

    pub fn now(&self) -> u64 {
        match self.virtual_now.load(Ordering::Acquire) {
            0 => nanos(Instant::now()),
            now => now,
        }
    }

    /// Moves virtual time forward.
    pub fn jump(&self, to: u64) {
        self.virtual_now.fetch_max(to, Ordering::AcqRel);
    }
}
