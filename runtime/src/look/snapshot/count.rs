//! A run in numbers.

use crate::scope::Scope;
use crate::scope::cause::Kind;
use crate::tree::Locked;

/// What a run has at one moment, in numbers. See [`metrics`](crate::metrics).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// The name of the driver.
    pub driver: &'static str,
    /// Children of nurseries that are not done.
    pub tasks: usize,
    /// Scopes and nurseries that are open, without that of the run itself.
    pub scopes: usize,
    /// Operations that wait.
    pub waits: usize,
    /// Deadlines and sleeps that are set.
    pub timers: usize,
    /// Operations that the kernel has, or descriptors that it watches for somebody who waits.
    pub in_flight: usize,
}

/// Counts what is in the subtree of a scope.
pub(crate) fn count(locked: &Locked<'_>, top: &Scope, driver: &'static str, in_flight: usize) -> Metrics {
    let mut metrics = Metrics { driver, tasks: 0, scopes: 0, waits: 0, timers: locked.timers(), in_flight };
    let mut node: *const Scope = top;
    while !node.is_null() {
        // SAFETY: [LOCKED] of the tree.
        let scope = unsafe { &*node };
        metrics.tasks += locked.live_children(scope);
        metrics.scopes += usize::from(scope.kind != Kind::Run);
        metrics.waits += locked.waits(scope).len();
        node = locked.after(node, top, true);
    }
    metrics
}
