//! Sweeps: a scenario, run again and again, one part of which is stopped at its first await, at its second, and so on.

use crate::run::{Builder, Verdict};
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use trefoil_nursery::{CancelAware, CancelScope};
use trefoil_runtime::{Reason, ScopeView, metrics, probe};

/// How many awaits a sweep follows.
const MOST: usize = 10_000;

/// When, around an await, the operation is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// It has just begun to wait.
    Asleep,
    /// It was woken, perhaps because it has what it waited for, and has not looked yet. With the await 0: it has not begun.
    Woken,
}

/// Where an operation was stopped.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Point {
    /// The how many-th await, from 1; 0 is before it began.
    pub at: usize,
    /// When.
    pub moment: Moment,
    /// What it waited for there. Empty where it had only given up its turn, and where it waited for something foreign.
    pub waits: Vec<Await>,
    /// The operation that was the first to be told, where it was cancelled and noticed; for a dropped one, in the message of a failure, the
    /// one that would have been.
    pub told: Option<&'static Location<'static>>,
}

/// What an operation waited for, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Await {
    /// What for.
    pub reason: Reason,
    /// Where in the program.
    pub place: &'static Location<'static>,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.at, self.moment) {
            (0, _) => f.write_str("before it began")?,
            (at, Moment::Asleep) => write!(f, "asleep in await {at}")?,
            (at, Moment::Woken) => write!(f, "woken from await {at}")?,
        }
        for (i, Await { reason, place }) in self.waits.iter().enumerate() {
            write!(f, "{} for {reason} at {place}", if i == 0 { "," } else { " and" })?;
        }
        match self.told {
            Some(place) => write!(f, ", and told at {place}"),
            None => Ok(()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Cancel,
    Drop,
}

/// What stops the operation, once, in one run of a scenario. See [`cancel_sweep`].
#[derive(Debug)]
pub struct Cut {
    how: How,
    at: usize,
    moment: Moment,
    used: AtomicBool,
    reached: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    waits: Vec<Await>,
    told: Option<&'static Location<'static>>,
}

impl Cut {
    fn new(how: How, at: usize, moment: Moment) -> Self {
        let (used, reached) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { how, at, moment, used, reached, seen: Mutex::default() }
    }

    /// Runs the operation that is to be stopped, once in each scenario: `Ok(None)` if that stopped it.
    ///
    /// # Errors
    /// Those of the operation.
    ///
    /// # Panics
    /// If it is called twice.
    #[track_caller]
    pub fn run<T, E, F>(&self, operation: F) -> impl Future<Output = Result<Option<T>, E>>
    where
        F: Future<Output = Result<T, E>>,
        E: CancelAware,
    {
        assert!(!self.used.swap(true, Relaxed), "a scenario has one operation that is stopped");
        let scope = CancelScope::new();
        let mut polls = 0;
        let mut operation = Box::pin(operation);
        let watched = poll_fn(move |cx| {
            let polled = operation.as_mut().poll(cx);
            if polled.is_pending() && !self.reached() {
                let mut waits = Vec::new();
                collect(&probe::subtree(), &mut waits);
                self.seen().waits = waits;
            }
            polled
        });
        let mut running: Option<Pin<Box<_>>> = Some(Box::pin(scope.run(watched)));
        poll_fn(move |cx| {
            if self.at == polls && self.moment == Moment::Woken && self.stop(&scope) {
                running = None;
                return Poll::Ready(Ok(None));
            }
            let running_now = running.as_mut().expect("polled after it was ready").as_mut();
            let (polled, told) = probe::told(|| running_now.poll(cx));
            if self.reached() {
                let mut seen = self.seen();
                seen.told = seen.told.or(told);
            }
            if polled.is_ready() {
                running = None;
                return polled;
            }
            polls += 1;
            if self.at == polls && self.moment == Moment::Asleep && self.stop(&scope) {
                running = None;
                return Poll::Ready(Ok(None));
            }
            Poll::Pending
        })
    }

    /// Whether the operation was stopped, or was about to end when it was: a cancelled one may have succeeded (R18).
    pub fn reached(&self) -> bool {
        self.reached.load(Relaxed)
    }

    /// Whether it is to be dropped.
    fn stop(&self, scope: &CancelScope) -> bool {
        if !self.reached.swap(true, Relaxed) && self.how == How::Cancel {
            scope.cancel();
        }
        self.how == How::Drop
    }

    fn point(&self) -> Point {
        let seen = self.seen();
        Point { at: self.at, moment: self.moment, waits: seen.waits.clone(), told: seen.told }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn collect(scope: &ScopeView, waits: &mut Vec<Await>) {
    for task in &scope.tasks {
        waits.extend(task.waits.iter().map(|wait| Await { reason: wait.reason, place: wait.place }));
        for below in &task.scopes {
            collect(below, waits);
        }
    }
}

/// Cancels an operation at each of its awaits, one after the other, and looks each time whether what must hold does.
///
/// The scenario is run again and again, each time in a fresh run as that of [`run`](crate::run). It sets up its world, runs the operation
/// under test with [`Cut::run`], and asserts what must hold whatever became of it: that no item was lost, no permit kept, nothing
/// sent twice (R36). The first time, the operation is cancelled before it begins; then when it has begun to wait for the first time; then
/// when it was woken from there and has not looked yet, which is when things get lost; and so on, until it ends before it comes to that.
///
/// Operations that need not wait give up their turn, all but the first in a turn, so that each is an await that can be stopped. After each
/// scenario, nothing may be left over: no task, scope, wait or timer. A task that waits for ever for what was lost is a deadlock, and
/// reported as such. `TREFOIL_SEED` puts all of it in another order; see [`run`](crate::run).
///
/// Returns where it was stopped.
///
/// # Panics
/// If a scenario fails, saying where the operation was cancelled; if it never calls [`Cut::run`]; and if it does not end within 10,000
/// awaits.
///
/// # Examples
/// ```
/// use trefoil_nursery::{Cancelled, channel};
/// use trefoil_testing::cancel_sweep;
///
/// let points = cancel_sweep(async |cut| {
///     let (tx, rx) = channel(2);
///     tx.try_send(1).unwrap();
///     tx.try_send(2).unwrap();
///     let mut got = Vec::new();
///     cut.run(async {
///         got.push(rx.recv().await?);
///         got.push(rx.recv().await?);
///         Ok::<_, Cancelled>(())
///     })
///     .await
///     .unwrap();
///     // Whatever became of it: what it did not get is still there.
///     while let Ok(item) = rx.try_recv() {
///         got.push(Some(item));
///     }
///     assert_eq!(got, [Some(1), Some(2)]);
/// });
/// assert_eq!(points.len(), 3); // before it began; and around the second `recv`
/// ```
#[track_caller]
pub fn cancel_sweep<T: Verdict>(scenario: impl AsyncFnMut(&Cut) -> T) -> Vec<Point> {
    sweep(How::Cancel, Location::caller(), scenario)
}

/// Drops an operation at each of its awaits, as a foreign `select!` would, one after the other; otherwise as [`cancel_sweep`]. A dropped
/// operation counts as cancelled (N5).
///
/// # Panics
/// As [`cancel_sweep`].
///
/// # Examples
/// ```
/// use trefoil_nursery::{Cancelled, sync::Semaphore};
/// use trefoil_testing::drop_sweep;
///
/// drop_sweep(async |cut| {
///     let permits = Semaphore::new(1);
///     cut.run(async {
///         let _permit = permits.acquire(1).await?;
///         trefoil_nursery::checkpoint().await
///     })
///     .await
///     .unwrap();
///     assert_eq!(permits.available(), 1);
/// });
/// ```
#[track_caller]
pub fn drop_sweep<T: Verdict>(scenario: impl AsyncFnMut(&Cut) -> T) -> Vec<Point> {
    sweep(How::Drop, Location::caller(), scenario)
}

#[track_caller]
fn sweep<T: Verdict>(
    how: How,
    place: &'static Location<'static>,
    mut scenario: impl AsyncFnMut(&Cut) -> T,
) -> Vec<Point> {
    let mut points = Vec::new();
    for at in 0..=MOST {
        for moment in [Moment::Asleep, Moment::Woken] {
            if (at, moment) == (0, Moment::Asleep) {
                continue;
            }
            let cut = Cut::new(how, at, moment);
            if let Err(payload) = attempt(&mut scenario, &cut) {
                if how == How::Drop && cut.reached() && cut.seen().waits.is_empty() {
                    // It had given up its turn, and only the operation itself knows where: a cancel in the same place has it told.
                    let again = Cut::new(How::Cancel, at, moment);
                    let _ = attempt(&mut scenario, &again);
                    cut.seen().told = again.seen().told;
                }
                fail(how, place, &cut, payload);
            }
            assert!(cut.used.load(Relaxed), "the scenario at {place} never runs an operation with `Cut::run`");
            if cut.reached() {
                points.push(cut.point());
            } else if moment == Moment::Asleep {
                return points;
            }
        }
    }
    panic!("the operation at {place} does not end within {MOST} awaits");
}

/// One run of a scenario.
fn attempt<T: Verdict>(
    scenario: &mut impl AsyncFnMut(&Cut) -> T,
    cut: &Cut,
) -> Result<(), Box<dyn std::any::Any + Send>> {
    let failure = catch_unwind(AssertUnwindSafe(|| {
        Builder::new().each_turn().run(async {
            let failure = scenario(cut).await.failure();
            if failure.is_none() {
                let left = metrics();
                let left = (left.tasks, left.scopes, left.waits, left.timers);
                assert_eq!(left, (0, 0, 0, 0), "left over (tasks, scopes, waits, timers)");
            }
            failure
        })
    }))?;
    failure.map_or(Ok(()), |failure| Err(Box::new(failure)))
}

#[track_caller]
fn fail(how: How, place: &'static Location<'static>, cut: &Cut, payload: Box<dyn std::any::Any + Send>) -> ! {
    let text = match (payload.downcast_ref::<String>(), payload.downcast_ref::<&str>()) {
        (Some(text), _) => text.as_str(),
        (_, Some(text)) => text,
        _ => resume_unwind(payload),
    };
    let done = match (cut.reached(), how) {
        (true, How::Cancel) => format!("when its operation was cancelled {}", cut.point()),
        (true, How::Drop) => {
            let mut point = cut.point();
            let next = point.told.take().map(|place| format!(", before the operation at {place}"));
            format!("when its operation was dropped {point}{}", next.unwrap_or_default())
        }
        (false, _) => "when its operation was not stopped at all".to_string(),
    };
    panic!("the scenario at {place} failed {done}:\n{text}")
}
