//! The library's own operations under `cancel_sweep` and `drop_sweep`: stopped at each await, asleep and woken, and what must hold. R36, R77,
//! N1, N5, N6, N7. `every_await.rs` does the same on every driver; here each operation that need not wait is an await too, and
//! `TREFOIL_SEED` gives other orders.

mod random_programs;
mod swept_channels;
mod swept_locks;
mod swept_nurseries;

use std::sync::atomic::{AtomicUsize, Ordering};
use trefoil_testing::{Cut, cancel_sweep, drop_sweep};

/// Both ways to stop it. In the ordinary order, it has that many awaits at least.
fn sweep(least: usize, scenario: impl AsyncFn(&Cut)) {
    for points in [cancel_sweep(&scenario), drop_sweep(&scenario)] {
        let last = points.last().expect("before it began").at;
        assert!(last >= least || std::env::var_os("TREFOIL_SEED").is_some(), "{points:#?}");
    }
}

/// What can be lost or doubled.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
