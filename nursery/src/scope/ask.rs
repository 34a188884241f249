//! What code asks about the scope that it is in.

use std::time::Instant;
use trefoil_runtime::{self as runtime, Cause};

/// What ends the code that asks: see [`effective_deadline`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EffectiveDeadline {
    /// The current scope is cancelled.
    Cancelled,
    /// A deadline, of this scope or of one around it.
    At(Instant),
    /// Nothing.
    Never,
}

/// The earliest deadline that applies to the code that asks, up to the first shield around it (R47).
///
/// # Panics
/// Outside of a run.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::{effective_deadline, move_on_after, Cancelled, EffectiveDeadline};
/// use std::time::Duration;
/// assert_eq!(effective_deadline(), EffectiveDeadline::Never);
/// move_on_after(Duration::from_secs(1), async {
///     assert!(matches!(effective_deadline(), EffectiveDeadline::At(_)));
///     Ok::<_, Cancelled>(())
/// })
/// .await
/// .unwrap();
/// # });
/// ```
pub fn effective_deadline() -> EffectiveDeadline {
    match runtime::current_effective_deadline() {
        (_, true) => EffectiveDeadline::Cancelled,
        (at, false) => runtime::instant(at).map_or(EffectiveDeadline::Never, EffectiveDeadline::At),
    }
}

/// Why the current scope is cancelled: who did it, to which scope, and where; `None` where it is not cancelled (R5).
///
/// For whoever receives a [`Cancelled`](crate::Cancelled), which is a value without a size and says nothing: ask in the scope where it came.
/// The answer is one line for a person: print it with `{}`. Its fields say the same to a program.
///
/// # Panics
/// Outside of a run.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use std::io;
/// use trefoil_nursery::{cancel_cause, nursery, sleep_forever};
/// let mut why = String::new();
/// let failed = nursery(async |n| -> io::Result<()> {
///     n.spawn_named("mirror", async { Err::<(), _>(io::Error::other("404")) });
///     let cancelled = sleep_forever().await;
///     why = cancel_cause().unwrap().to_string();
///     Ok(cancelled?)
/// })
/// .named("download")
/// .await;
/// assert!(failed.is_err());
/// // cancelled: nursery `download` (scope.rs:6), since its child `mirror` (scope.rs:7) failed: 404
/// assert!(why.starts_with("cancelled: nursery `download` (") && why.ends_with(") failed: 404"), "{why}");
/// # });
/// ```
#[track_caller]
pub fn cancel_cause() -> Option<Cause> {
    runtime::current_cause()
}
