//! Cancel scopes, deadlines and shields: functions that take a future, so that there is nothing to infer.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use trefoil_runtime::{self as runtime, CancelAware, Cause, DeadlineAware, Kind, NEVER, Scope, Scoped, TimedOut};

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

/// A future in a cancel scope; see [`CancelScope::run`] and [`move_on_after`].
#[must_use = "a scope does nothing until it is awaited"]
pub struct InScope<F> {
    scoped: Scoped<F>,
}

impl<F> InScope<F> {
    /// The same, with a name for the scope: for the [task tree](trefoil_runtime::tree), and for who is cancelled in it and asks
    /// [why](cancel_cause). A scope that has handles keeps the name that it was [made with](CancelScope::named).
    ///
    /// # Examples
    /// ```
    /// # trefoil_nursery::doc_run(async {
    /// use trefoil_nursery::{cancel_cause, move_on_after, sleep_forever, Cancelled};
    /// use std::time::Duration;
    /// move_on_after(Duration::from_millis(1), async {
    ///     let cancelled = sleep_forever().await;
    ///     let why = cancel_cause().unwrap().to_string();
    ///     assert!(why.starts_with("cancelled: the deadline of scope `lookup` ("), "{why}");
    ///     cancelled
    /// })
    /// .named("lookup")
    /// .await
    /// .unwrap();
    /// # });
    /// ```
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Self {
        self.scoped.set_name(name.into());
        self
    }
}

impl<F> fmt::Debug for InScope<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.scoped.fmt(f)
    }
}

#[cold]
fn log_cut(shield: &Location<'_>) {
    trefoil_runtime::report_warn!(%shield, "what a shield protected did not end within its limit, and was cancelled");
}

impl<T, E, F> Future for InScope<F>
where
    F: Future<Output = Result<T, E>>,
    E: CancelAware,
{
    type Output = Result<Option<T>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `scoped` is pinned with this.
        let mut scoped = unsafe { self.map_unchecked_mut(|this| &mut this.scoped) };
        let polled = scoped.as_mut().poll_caught(cx);
        if let Poll::Ready(Ok(None)) = polled
            && scoped.kind() == Kind::Shield
        {
            log_cut(scoped.place());
        }
        polled
    }
}

/// Runs a future for a length of time at most: `Ok(None)` if the time was over first.
///
/// The length counts from the first poll (R43). A body that is done returns its value, even if the time is over by then (R29).
///
/// # Errors
/// Those of the body. [`Cancelled`](crate::Cancelled) only if a scope further out is cancelled.
///
/// # Cancellation
/// When the time is over, the operation that the body waits for returns [`Cancelled`](crate::Cancelled), and the body is awaited.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::{move_on_after, sleep, Cancelled};
/// use std::time::Duration;
/// let slow = move_on_after(Duration::from_millis(1), async {
///     sleep(Duration::from_secs(3600)).await?;
///     Ok::<_, Cancelled>("done")
/// })
/// .await;
/// assert_eq!(slow, Ok(None));
/// # });
/// ```
#[track_caller]
pub fn move_on_after<T, E, F>(length: Duration, body: F) -> InScope<F>
where
    F: Future<Output = Result<T, E>>,
    E: CancelAware,
{
    InScope { scoped: Scoped::own(Kind::Scope, Location::caller(), Some(length), body) }
}

/// Runs a future until an instant at most: `Ok(None)` if that came first. Otherwise as [`move_on_after`].
///
/// # Errors
/// As for [`move_on_after`].
#[track_caller]
pub fn move_on_at<T, E, F>(deadline: Instant, body: F) -> InScope<F>
where
    F: Future<Output = Result<T, E>>,
    E: CancelAware,
{
    InScope { scoped: Scoped::until(Location::caller(), runtime::nanos(deadline), body) }
}

/// The future of [`fail_after`] and [`fail_at`].
#[derive(Debug)]
#[must_use = "a scope does nothing until it is awaited"]
pub struct OrTimedOut<F> {
    scope: InScope<F>,
}

impl<F> OrTimedOut<F> {
    /// The same, with a name for the scope; see [`InScope::named`].
    pub fn named(self, name: impl Into<Arc<str>>) -> Self {
        Self { scope: self.scope.named(name) }
    }
}

impl<T, E, F> Future for OrTimedOut<F>
where
    F: Future<Output = Result<T, E>>,
    E: DeadlineAware,
{
    type Output = Result<T, E::Failed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `scope` is pinned with this.
        let scope = unsafe { self.map_unchecked_mut(|this| &mut this.scope) };
        Poll::Ready(match ready!(scope.poll(cx)) {
            Ok(Some(value)) => Ok(value),
            Ok(None) => Err(TimedOut::new().into()),
            Err(error) => Err(error.into()),
        })
    }
}

/// Runs a future for a length of time at most, and fails with [`TimedOut`] if the time was over first.
///
/// # Errors
/// [`TimedOut`] if this deadline, and not one further out, ended the body (R30); otherwise those of the body. An `io::Error` made from it
/// has the kind `TimedOut`. Around an operation whose error is [`Cancelled`](crate::Cancelled), both are told apart by
/// [`CancelledOrTimedOut`](crate::CancelledOrTimedOut), which `?` turns into an `io::Error` or a boxed error.
///
/// # Cancellation
/// As for [`move_on_after`].
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::{fail_after, sleep};
/// use std::{io, time::Duration};
/// let slow = fail_after(Duration::from_millis(1), async {
///     sleep(Duration::from_secs(3600)).await?;
///     Ok::<_, io::Error>(())
/// })
/// .await;
/// assert_eq!(slow.unwrap_err().kind(), io::ErrorKind::TimedOut);
///
/// // One operation, in a function that returns an `io::Result`:
/// async fn wait() -> io::Result<()> {
///     fail_after(Duration::from_millis(1), sleep(Duration::from_secs(3600))).await?;
///     Ok(())
/// }
/// assert_eq!(wait().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
/// # });
/// ```
#[track_caller]
pub fn fail_after<T, E, F>(length: Duration, body: F) -> OrTimedOut<F>
where
    F: Future<Output = Result<T, E>>,
    E: DeadlineAware,
{
    OrTimedOut { scope: move_on_after(length, body) }
}

/// Runs a future until an instant at most, and fails with [`TimedOut`] if that came first. Otherwise as [`fail_after`].
///
/// # Errors
/// As for [`fail_after`].
#[track_caller]
pub fn fail_at<T, E, F>(deadline: Instant, body: F) -> OrTimedOut<F>
where
    F: Future<Output = Result<T, E>>,
    E: DeadlineAware,
{
    OrTimedOut { scope: move_on_at(deadline, body) }
}

/// The future of [`shield`].
#[must_use = "a shield does nothing until it is awaited"]
pub struct Shielded<F> {
    scoped: Scoped<F>,
}

impl<F> Shielded<F> {
    /// The same, with a name for the shield; see [`InScope::named`].
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Self {
        self.scoped.set_name(name.into());
        self
    }
}

impl<F> fmt::Debug for Shielded<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.scoped.fmt(f)
    }
}

impl<F: Future> Future for Shielded<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: `scoped` is pinned with this.
        let scoped = unsafe { self.map_unchecked_mut(|this| &mut this.scoped) };
        Poll::Ready(ready!(scoped.poll_body(cx)).expect("a shield without a handle is not cancelled itself"))
    }
}

/// Runs a future that cancellation from outside does not reach: for clean-up that has to wait.
///
/// It may take as long as it likes, and a cancelled program waits for it. Prefer [`shield_for`], which puts a limit.
///
/// # Cancellation
/// Not noticed inside. What is cancelled outside stays so: the next operation after the shield returns
/// [`Cancelled`](crate::Cancelled).
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::{move_on_after, shield, sleep, sleep_forever, Cancelled};
/// use std::time::Duration;
/// let mut said_goodbye = false;
/// move_on_after(Duration::from_millis(1), async {
///     let result = sleep_forever().await;
///     shield(async {
///         sleep(Duration::from_millis(1)).await.expect("not reached by the deadline outside");
///         said_goodbye = true;
///     })
///     .await;
///     result
/// })
/// .await
/// .unwrap();
/// assert!(said_goodbye);
/// # });
/// ```
#[track_caller]
pub fn shield<F: Future>(body: F) -> Shielded<F> {
    shield_at(body, Location::caller())
}

/// Runs a future that cancellation from outside does not reach, for a length of time at most: `Ok(None)` if the time was over first.
///
/// # Errors
/// Those of the body.
///
/// # Cancellation
/// Not noticed inside, but for the time limit (R32). A clean-up that is cut by its limit is a warning in the log, with its place.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::{shield_for, sleep_forever, Cancelled};
/// use std::time::Duration;
/// let hung = shield_for(Duration::from_millis(1), async { sleep_forever().await }).await;
/// assert_eq!(hung, Ok(None));
/// # });
/// ```
#[track_caller]
pub fn shield_for<T, E, F>(limit: Duration, body: F) -> InScope<F>
where
    F: Future<Output = Result<T, E>>,
    E: CancelAware,
{
    shield_for_at(limit, body, Location::caller())
}

/// [`shield`] on behalf of code at another place.
pub(crate) fn shield_at<F: Future>(body: F, place: &'static Location<'static>) -> Shielded<F> {
    Shielded { scoped: Scoped::own(Kind::Shield, place, None, body) }
}

/// [`shield_for`] on behalf of code at another place.
pub(crate) fn shield_for_at<F>(limit: Duration, body: F, place: &'static Location<'static>) -> InScope<F> {
    InScope { scoped: Scoped::own(Kind::Shield, place, Some(limit), body) }
}

/// Runs a future in a scope that is never cancelled itself, so that what is foreign in it is cut there and not further out: `None` then
/// (N13).
pub(crate) async fn in_own_scope<F: Future>(body: F, place: &'static Location<'static>) -> Option<F::Output> {
    let mut scoped = pin!(Scoped::own(Kind::Scope, place, None, body));
    poll_fn(|cx| scoped.as_mut().poll_body(cx)).await
}

/// Runs a future until somebody asks to stop, with [`CancelScope::cancel_softly`] on a scope around this: `Ok(None)` if that came first.
///
/// For what takes in new work: put it around each `accept` or `recv` of a loop, and not around the work. A soft cancel of which one was
/// not told because none was open is not lost: the next one that is entered is cancelled from the start.
///
/// # Errors
/// Those of the body. [`Cancelled`](crate::Cancelled) only if a scope further out is cancelled, softly by way of another
/// `until_soft_cancelled` further out, or hard (R24).
///
/// # Cancellation
/// As for [`move_on_after`]: the operation that the body waits for returns [`Cancelled`](crate::Cancelled), and had no effect; no
/// connection is accepted and lost. A [`shield`] between the scope that is asked to stop and this holds it off, as it holds off a
/// cancel (R32, R33).
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use std::time::Duration;
/// use trefoil_nursery::{channel, nursery, sleep, until_soft_cancelled, Cancelled};
/// let (sender, jobs) = channel(10);
/// let mut done = vec![];
/// nursery(async |n| -> Result<(), Cancelled> {
///     n.spawn(async move {
///         while let Some(job) = until_soft_cancelled(jobs.recv()).await?.flatten() {
///             sleep(Duration::from_millis(1)).await?; // to work on it
///             done.push(job);
///         }
///         done.push(0); // to say goodbye
///         assert_eq!(done, [7, 0]);
///         Ok(())
///     });
///     sender.try_send(7).unwrap();
///     sleep(Duration::from_micros(1)).await?;
///     n.cancel_softly(Duration::from_secs(60));
///     Ok(())
/// })
/// .await
/// .unwrap();
/// # });
/// ```
#[track_caller]
pub fn until_soft_cancelled<T, E, F>(body: F) -> InScope<F>
where
    F: Future<Output = Result<T, E>>,
    E: CancelAware,
{
    InScope { scoped: Scoped::polite(Location::caller(), body) }
}

/// Whether the code that asks was asked to stop: softly, by [`CancelScope::cancel_softly`] on a scope around it, or by a cancel. For
/// loops that end politely between two pieces of work; a `recv` or `accept` that waits is told by [`until_soft_cancelled`].
///
/// # Panics
/// Outside of a run.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::{soft_cancelled, sleep, CancelScope, Cancelled};
/// use std::time::Duration;
/// let scope = CancelScope::new();
/// let pages = scope
///     .run(async {
///         let mut pages = 0;
///         while !soft_cancelled() {
///             sleep(Duration::from_millis(1)).await?; // to print one
///             pages += 1;
///             if pages == 3 {
///                 scope.cancel_softly(Duration::from_secs(1));
///             }
///         }
///         Ok::<_, Cancelled>(pages)
///     })
///     .await;
/// assert_eq!(pages, Ok(Some(3)));
/// # });
/// ```
#[track_caller]
pub fn soft_cancelled() -> bool {
    runtime::soft_cancelled()
}

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
