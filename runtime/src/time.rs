//! Sleeping, yielding, checkpoints: the operations that need nothing but the loop. In the folder are the [`clock`] of a run and its deadlines,
//! which are in a [`wheel`].

pub(crate) mod clock;
pub(crate) mod wheel;

use self::clock::NEVER;
use crate::context;
use crate::park::{Bare, Park, Wait};
use crate::reason::Reason;
use crate::scope::cancelled::Cancelled;
use crate::worker;
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// The time on the clock of this run: the machine's, or virtual time in tests.
///
/// # Examples
/// ```
/// # trefoil_runtime::doc_run(async {
/// let before = trefoil_runtime::now();
/// trefoil_runtime::sleep(std::time::Duration::from_millis(2)).await.unwrap();
/// assert!(trefoil_runtime::now() - before >= std::time::Duration::from_millis(2));
/// # });
/// ```
pub fn now() -> Instant {
    clock::instant(worker::now()).expect("now is not never")
}

/// Sleeps for a length of time: never less, as the clock of the run counts it.
///
/// A checkpoint, also for a length of zero (R38). One of 146 years or more has no end.
///
/// # Errors
/// [`Cancelled`] if the scope is cancelled before the time is over.
///
/// # Cancellation
/// Wakes at once. A deadline of a scope that equals the end of the sleep wins (R46).
///
/// # Examples
/// ```
/// # trefoil_runtime::doc_run(async {
/// trefoil_runtime::sleep(std::time::Duration::from_millis(1)).await?;
/// # Ok::<(), trefoil_runtime::Cancelled>(()) }).unwrap();
/// ```
#[track_caller]
pub fn sleep(duration: Duration) -> Sleep {
    Sleep::new(Until::after(duration), Location::caller())
}

/// Sleeps until an instant; one in the past is a checkpoint. Otherwise as [`sleep`].
///
/// # Errors
/// [`Cancelled`] if the scope is cancelled before.
///
/// # Examples
/// ```
/// # trefoil_runtime::doc_run(async {
/// use std::time::Duration;
/// let end = trefoil_runtime::now() + Duration::from_millis(2);
/// trefoil_runtime::sleep_until(end).await?;
/// assert!(trefoil_runtime::now() >= end);
/// # Ok::<(), trefoil_runtime::Cancelled>(()) }).unwrap();
/// ```
#[doc(alias("interval"))]
#[track_caller]
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep::new(Until::at(clock::nanos(deadline)), Location::caller())
}

/// Sleeps until the scope is cancelled.
///
/// # Errors
/// Always [`Cancelled`].
///
/// # Examples
/// ```
/// # trefoil_runtime::doc_run(async {
/// use std::{future::Future, task::{Context, Poll, Waker}};
/// let mut forever = Box::pin(trefoil_runtime::sleep_forever());
/// assert!(forever.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
/// # });
/// ```
#[track_caller]
pub fn sleep_forever() -> Sleep {
    Sleep::new(Until::at(NEVER), Location::caller())
}

/// [`sleep_forever`] on behalf of code at another place.
#[doc(hidden)]
pub fn sleep_forever_at(place: &'static Location<'static>) -> Sleep {
    Sleep::new(Until::at(NEVER), place)
}

/// When a sleep ends, and whether it has begun, in one word, which is kept in its park while that does not wait: a length of time or a time, in nanoseconds,
/// with two bits above. What does not fit, which is more than a century, is never. One that has begun ends at a time: then the bit of a length says that it was
/// aborted, and that this was not told yet.
#[derive(Clone, Copy)]
struct Until(u64);

const AFTER: u64 = 1 << 62;
const BEGUN: u64 = 1 << 63;
const LONGEST: u64 = AFTER - 1;

impl Until {
    fn after(length: Duration) -> Self {
        Self(AFTER | u64::try_from(length.as_nanos()).unwrap_or(NEVER).min(LONGEST))
    }

    fn at(time: u64) -> Self {
        Self(time.min(LONGEST))
    }

    /// It ends at this time, which was worked out when it began.
    fn begun_until(time: u64) -> Self {
        Self(BEGUN | time.min(LONGEST))
    }

    /// The time, seen from `now`.
    fn time(self, now: u64) -> u64 {
        match self.0 & LONGEST {
            LONGEST => NEVER,
            length if self.0 & (AFTER | BEGUN) == AFTER => now.saturating_add(length),
            time => time,
        }
    }

    fn begun(self) -> bool {
        self.0 & BEGUN != 0
    }

    fn aborted(self) -> bool {
        self.0 & (AFTER | BEGUN) == AFTER | BEGUN
    }
}

/// The future of [`sleep`], [`sleep_until`] and [`sleep_forever`].
#[must_use = "a sleep does nothing until it is awaited"]
pub struct Sleep {
    /// It knows the place, and when the sleep ends.
    park: Park<Bare>,
}

impl Sleep {
    fn new(until: Until, place: &'static Location<'static>) -> Self {
        let park = Park::new_at(place);
        // SAFETY: [OWNER] of the park: nobody else has it.
        unsafe { park.keep(until.0) };
        Self { park }
    }

    fn until(&self) -> Until {
        if self.park.is_active() { Until::begun_until(self.park.until()) } else { Until(self.park.until()) }
    }

    /// The end of a sleep that was aborted. Who has heard too many is not told (N13 b); who polls it next, outside, is.
    #[cold]
    fn poll_aborted(park: &Park<Bare>, until: Until) -> Poll<Result<(), Cancelled>> {
        // SAFETY: [OWNER] of the park: the caller has `&mut Sleep`; no wait is going on.
        unsafe { park.keep(until.0 | AFTER) };
        let cancelled = ready!(context::poll_cancelled(park.place()));
        // SAFETY: as above.
        unsafe { park.keep(until.0 & !AFTER) };
        Poll::Ready(Err(cancelled))
    }
}

impl std::fmt::Debug for Sleep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (now, until, mut debug) = (crate::worker::now(), self.until(), f.debug_struct("Sleep"));
        debug.field("at", &format_args!("{}", crate::look::snapshot::short(self.park.place())));
        match until.time(now) {
            NEVER => debug.field("left", &format_args!("for ever")),
            time => debug.field("left", &Duration::from_nanos(time.saturating_sub(now))),
        };
        debug.field("begun", &until.begun()).finish()
    }
}

impl Future for Sleep {
    type Output = Result<(), Cancelled>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `park` is pinned with the future. [OWNER] of the park, here and below: `&mut self`.
        let park = unsafe { Pin::new_unchecked(&self.get_unchecked_mut().park) };
        if park.is_active() {
            // SAFETY: as above.
            let ended = ready!(unsafe { park.poll(cx) });
            let until = Until::begun_until(park.until());
            if ended.is_err() {
                return Self::poll_aborted(&park, until);
            }
            // SAFETY: as above; the wait is over.
            unsafe { park.keep(until.0) };
            return Poll::Ready(Ok(()));
        }
        let (until, place) = (Until(park.until()), park.place());
        if until.aborted() {
            return Self::poll_aborted(&park, until);
        }
        ready!(context::poll_checkpoint_if_cancelled(place))?;
        if until.begun() {
            // A sleep that was over already: this was its turn.
            return Poll::Ready(Ok(()));
        }
        // Without a look at the clock where it has no end.
        let forever = until.time(0) == NEVER;
        let now = if forever { 0 } else { worker::now() };
        let (at, reason) = (until.time(now), if forever { Reason::Forever } else { Reason::Sleep });
        let until = Until::begun_until(at);
        // SAFETY: as above; no wait is going on.
        unsafe { park.keep(until.0) };
        if at <= now {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // SAFETY: as above.
        match unsafe { park.begin(cx, Wait { until: at, ..Wait::new(reason).at(place) }) } {
            Ok(()) => Poll::Pending,
            Err(_) => {
                // It has kept the waker.
                // SAFETY: as above.
                unsafe { park.end() };
                Self::poll_aborted(&park, until)
            }
        }
    }
}

/// Gives up the turn, and looks for a cancellation: first the one, then the other (R11).
///
/// Put it in long computations, so that others can run and a cancel is heard.
///
/// # Errors
/// [`Cancelled`] if the scope is cancelled by then.
///
/// # Examples
/// ```
/// # trefoil_runtime::doc_run(async {
/// for piece in 0..10 {
///     let _ = piece * piece; // a long computation
///     trefoil_runtime::checkpoint().await?;
/// }
/// # Ok::<(), trefoil_runtime::Cancelled>(()) }).unwrap();
/// ```
#[track_caller]
pub fn checkpoint() -> impl Future<Output = Result<(), Cancelled>> + Send + Sync {
    let place = Location::caller();
    let mut yielded = false;
    poll_fn(move |cx| {
        if !yielded {
            yielded = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        context::poll_checkpoint_if_cancelled(place)
    })
}

/// Looks for a cancellation without giving up the turn: does nothing where there is none (R13).
///
/// # Errors
/// [`Cancelled`] in a cancelled scope, after others had their turn (R12).
#[track_caller]
pub fn checkpoint_if_cancelled() -> impl Future<Output = Result<(), Cancelled>> + Send + Sync {
    let place = Location::caller();
    let mut yielded = false;
    poll_fn(move |cx| {
        if !yielded && context::is_cancelled() {
            yielded = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        context::poll_checkpoint_if_cancelled(place)
    })
}

/// Gives up the turn, and nothing else: not a cancel point.
///
/// # Cancellation
/// It does not notice one. See [`checkpoint`].
pub fn yield_now() -> impl Future<Output = ()> + Send + Sync {
    let mut yielded = false;
    poll_fn(move |cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}
