//! Cancel scopes, deadlines and shields: functions that take a future, so that there is nothing to infer.
//!
//! Here is the scope that has a handle. In the folder: the future that runs in a scope (`in_scope`), time limits (`limit`), shields (`shield`), soft
//! cancels (`soft`), and what code asks about the scope that it is in (`ask`).

mod ask;
mod in_scope;
mod limit;
mod shield;
mod soft;

pub use ask::{EffectiveDeadline, cancel_cause, effective_deadline};
pub use in_scope::InScope;
pub(crate) use in_scope::in_own_scope;
pub use limit::{OrTimedOut, fail_after, fail_at, move_on_after, move_on_at};
pub use shield::{Shielded, shield, shield_for};
pub(crate) use shield::{shield_at, shield_for_at};
pub use soft::{soft_cancelled, until_soft_cancelled};

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};
use trefoil_runtime::{self as runtime, CancelAware, Cause, Kind, NEVER, Scope, Scoped};

/// A handle of a cancel scope: clone it, send it to other threads; cancel, set a deadline, raise a shield, at any time.
///
/// A scope is for one use: [`run`](Self::run) a future in it. Settings made before apply from the start (R6), settings made after it
/// was left have no effect.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::{sleep_forever, CancelScope};
/// let scope = CancelScope::new();
/// let remote = scope.clone();
/// std::thread::spawn(move || remote.cancel());
/// let ended = scope.run(async { sleep_forever().await }).await;
/// assert_eq!(ended, Ok(None));
/// assert!(scope.cancelled_caught());
/// # });
/// ```
#[doc(alias("CancellationToken", "AbortHandle"))]
#[derive(Clone)]
pub struct CancelScope {
    scope: Arc<Scope>,
}

impl fmt::Debug for CancelScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("CancelScope");
        self.scope.describe(&mut debug);
        debug.finish()
    }
}

impl Default for CancelScope {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

impl CancelScope {
    /// A scope that nothing runs in yet, without a deadline or a shield.
    #[track_caller]
    pub fn new() -> Self {
        Self::at(Location::caller())
    }

    /// A scope with a name: for the [task tree](trefoil_runtime::tree), and for who is cancelled in it and asks why.
    ///
    /// # Examples
    /// ```
    /// # trefoil_nursery::doc_run(async {
    /// use trefoil_nursery::{cancel_cause, CancelScope, Cancelled};
    /// let scope = CancelScope::named("upload");
    /// scope.cancel();
    /// scope
    ///     .run(async {
    ///         let why = cancel_cause().unwrap().to_string();
    ///         assert!(why.starts_with("cancelled: scope `upload` ("), "{why}");
    ///         Ok::<_, Cancelled>(())
    ///     })
    ///     .await
    ///     .unwrap();
    /// # });
    /// ```
    #[track_caller]
    pub fn named(name: impl Into<Arc<str>>) -> Self {
        let scope = Scope::new(Kind::Scope, Location::caller());
        // SAFETY: nobody else has it yet.
        unsafe { scope.set_name(name.into()) };
        Self { scope: Arc::new(scope) }
    }

    /// One that code at another place opens.
    pub(crate) fn at(place: &'static Location<'static>) -> Self {
        Self { scope: Arc::new(Scope::new(Kind::Scope, place)) }
    }

    /// The scope itself.
    pub(crate) fn shared(&self) -> Arc<Scope> {
        self.scope.clone()
    }

    /// Cancels the scope: every operation in it returns [`Cancelled`](crate::Cancelled) from now on, and those that wait are
    /// ended before this returns (R15). Any thread, any time; again does nothing, and nothing takes it back (R3, R4).
    #[track_caller]
    pub fn cancel(&self) {
        self.scope.cancel(runtime::Source::Explicit, Location::caller());
    }

    /// Asks what runs in the scope to stop, and cancels it after `grace`: the [`until_soft_cancelled`] in it end now, all else goes on until
    /// then. Any thread, any time.
    ///
    /// The grace counts from this call, and is a deadline like any: an earlier one stays, and
    /// [`set_deadline`](Self::set_deadline) moves it. So a second soft cancel can shorten the grace and not lengthen it. None at all is a
    /// plain [`cancel`](Self::cancel). [`Duration::MAX`] never cancels. Nothing takes the request back (R3).
    ///
    /// # Examples
    /// ```
    /// # trefoil_nursery::doc_run(async {
    /// use trefoil_nursery::{sleep, until_soft_cancelled, CancelScope, Cancelled};
    /// use std::time::Duration;
    /// let serving = CancelScope::new();
    /// let remote = serving.clone();
    /// std::thread::spawn(move || remote.cancel_softly(Duration::from_secs(60)));
    /// let served = serving
    ///     .run(async {
    ///         let mut served = 0;
    ///         while let Some(()) = until_soft_cancelled(sleep(Duration::from_millis(1))).await? {
    ///             sleep(Duration::from_millis(1)).await?; // what is in hand is finished
    ///             served += 1;
    ///         }
    ///         Ok::<_, Cancelled>(served)
    ///     })
    ///     .await
    ///     .unwrap();
    /// assert!(served.is_some() && serving.soft_cancel_called() && !serving.cancel_called());
    /// # });
    /// ```
    #[track_caller]
    pub fn cancel_softly(&self, grace: Duration) {
        self.scope.cancel_softly(grace, Location::caller());
    }

    /// Whether this scope was asked to stop itself, by [`cancel_softly`](Self::cancel_softly).
    pub fn soft_cancel_called(&self) -> bool {
        self.scope.soft_cancel_called()
    }

    /// Moves the deadline at which the scope is cancelled, at once (R48); `None` takes it away.
    pub fn set_deadline(&self, deadline: Option<Instant>) {
        self.scope.set_deadline(deadline.map_or(NEVER, runtime::nanos));
    }

    /// The deadline of this scope alone; see [`effective_deadline`] for what applies in it.
    pub fn deadline(&self) -> Option<Instant> {
        runtime::instant(self.scope.deadline())
    }

    /// Raises or lowers the shield against cancellation from outside. Lowered, a cancellation that waits outside is
    /// delivered at once (R33).
    pub fn set_shield(&self, up: bool) {
        self.scope.set_shield(up);
    }

    /// Whether the shield is up.
    pub fn shield(&self) -> bool {
        self.scope.shield()
    }

    /// Whether this scope was cancelled itself, by [`cancel`](Self::cancel) or its deadline. Notices a deadline that has just passed
    /// (R14).
    pub fn cancel_called(&self) -> bool {
        self.scope.cancel_called(runtime::now_nanos)
    }

    /// Whether the scope absorbed a cancellation when it was left (R26).
    pub fn cancelled_caught(&self) -> bool {
        self.scope.cancelled_caught()
    }

    /// Who cancelled the scope, or the one around it that it inherits from, and where (R5).
    pub fn cause(&self) -> Option<Cause> {
        self.scope.cause()
    }

    /// Runs a future in the scope: `Ok(None)` if the scope was cancelled, and that ended the future.
    ///
    /// # Errors
    /// Those of the body. [`Cancelled`](crate::Cancelled) only if a scope further out is cancelled (R24).
    ///
    /// # Cancellation
    /// The body is told at its next operation, and is awaited. A body that waits for nothing that this library knows of is dropped
    /// (N13).
    ///
    /// # Panics
    /// When it is awaited while the scope is or was in use (R7), and outside of a run.
    pub fn run<T, E, F>(&self, body: F) -> InScope<F>
    where
        F: Future<Output = Result<T, E>>,
        E: CancelAware,
    {
        InScope { scoped: Scoped::shared(self.scope.clone(), body) }
    }
}
