//! [`race`] and [`first_success`]: of several futures, one is enough (N7).

use crate::branches::{Alternatives, cancelled_here, into_inner, lock, run};
use crate::unseen::Unseen;
use std::future::Future;
use std::panic::Location;
use std::sync::Mutex;
use trefoil_runtime::{CancelAware, Cancelled, ErrorGroup, Failure, Source};

/// Runs futures side by side; the first to finish wins. The others are cancelled *and awaited* before this returns (N7).
///
/// They begin in the order of the arguments, so that of several that are ready at once the first wins. Those that wait go on in the order in which
/// what they wait for comes; a tie there (one event, equal deadlines) goes to the first, too.
///
/// A loser may have finished before its cancellation reached it: its value is dropped. So of two receives from channels an item may be lost: to keep
/// it, in a loop that elsewhere is a `select!`, use [`race_with`].
///
/// # Errors
/// Every error that is not a cancellation: of the winner, if what it finished with is one, and of losers that fail while they are awaited.
/// So an error is never hidden by a value. The errors are in the order in which the futures ended; each is that of a task with the name `branch 1`,
/// `branch 2` and so on ([`failures`](trefoil_runtime::ErrorGroup::failures)).
///
/// # Cancellation
/// Reaches all of them, and the race ends when they have. If one has a value all the same, that is the result.
///
/// # Panics
/// With the panic of one of them, after the others were cancelled and awaited (N9). If there are none to run. Outside of a run.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::{race, sleep, Cancelled};
/// use std::time::Duration;
/// let mirrors = ["far", "near"];
/// let first = race([(0, 3600), (1, 1)].map(|(mirror, seconds)| {
///     let name = mirrors[mirror]; // borrows
///     async move {
///         sleep(Duration::from_millis(seconds)).await?;
///         Ok::<_, Cancelled>(name)
///     }
/// }))
/// .await
/// .unwrap();
/// assert_eq!(first, "near");
/// # });
/// ```
/// The future is `Send` if those in it are:
/// ```compile_fail,E0277
/// # use trefoil_nursery::{checkpoint, race, Cancelled};
/// # fn need_send<T: Send>(_: T) {}
/// let rc = std::rc::Rc::new(1);
/// need_send(race((async { checkpoint().await?; Ok::<_, Cancelled>(*rc) }, async { Ok(2) })));
/// ```
#[doc(alias("select"))]
#[track_caller]
pub fn race<A: Alternatives>(alternatives: A) -> impl Future<Output = Result<A::Value, ErrorGroup<A::Error>>> + use<A> {
    race_at(alternatives, drop, Location::caller())
}

/// The same as [`race`], with what is to be done with values that lose: a connection that was made in the same moment as the one that
/// won is perhaps worth keeping.
///
/// The function is called when all have ended, with each value that is not the result, in the order in which they came. If the race returns
/// errors, that is every value there is.
///
/// # Errors
/// As for [`race`].
///
/// # Cancellation
/// As for [`race`].
///
/// # Panics
/// As for [`race`]; the function is not called then.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::{race_with, Cancelled};
/// let connect = |n: u32| async move { Ok::<_, Cancelled>(n) }; // both at once
/// let mut spare = vec![];
/// let first = race_with((connect(1), connect(2)), |n| spare.push(n)).await;
/// assert_eq!((first.unwrap(), spare), (1, vec![2]));
/// # });
/// ```
#[track_caller]
pub fn race_with<A: Alternatives, L: FnMut(A::Value)>(
    alternatives: A,
    losers: L,
) -> impl Future<Output = Result<A::Value, ErrorGroup<A::Error>>> + use<A, L> {
    race_at(alternatives, losers, Location::caller())
}

async fn race_at<A: Alternatives>(
    alternatives: A,
    losers: impl FnMut(A::Value),
    place: &'static Location<'static>,
) -> Result<A::Value, ErrorGroup<A::Error>> {
    assert!(alternatives.count() > 0, "a race of nobody");
    let finished = Mutex::new(Vec::new());
    let ended = run(alternatives, place, |nursery, _, result| {
        lock(&finished).push(result?);
        nursery.scope().cancel(Source::Enough, place);
        Ok(())
    })
    .await;
    let mut finished = into_inner(finished).into_iter();
    let result = match ended {
        // R29: nothing went wrong but that losers, or all, were cancelled from outside. Where nobody did that, it is an error (N14).
        Err(group) if !(group.is_cancelled() && cancelled_here()) => Err(group),
        Err(group) => finished.next().ok_or(group),
        // Nobody has finished: they were cancelled from outside, and a shield came up before they had ended (R25).
        Ok(()) => finished.next().ok_or_else(|| Cancelled::delivered().into()),
    };
    finished.for_each(losers);
    result
}

/// Runs futures side by side; the first to succeed wins. The others are cancelled and awaited before this returns (N7).
///
/// As [`race`], but an error is not the end while others still try: it counts only if none succeeds. So the errors of those that failed,
/// before the winner or after, are dropped with a line in the log (`tracing`, level debug): that is what this is for.
///
/// # Errors
/// All of them, in the order in which they came, if none succeeds.
///
/// # Cancellation
/// Reaches all of them, and this ends when they have. If one has a value all the same, that is the result.
///
/// # Panics
/// With the panic of one of them, after the others were cancelled and awaited (N9). If there are none to run. Outside of a run.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use std::io;
/// use trefoil_nursery::{checkpoint, first_success};
/// let attempt = |n: u32| async move {
///     checkpoint().await?;
///     if n < 3 { Err(io::Error::other(format!("{n} is down"))) } else { Ok(n) }
/// };
/// assert_eq!(first_success((attempt(1), attempt(2), attempt(3))).await.unwrap(), 3);
/// let errors = first_success((attempt(1), attempt(2))).await.unwrap_err();
/// assert_eq!(errors.to_string(), "1 is down (and 1 more: 2 is down)");
/// # });
/// ```
#[track_caller]
pub fn first_success<A: Alternatives>(
    alternatives: A,
) -> impl Future<Output = Result<A::Value, ErrorGroup<A::Error>>> + use<A> {
    first_success_at(alternatives, Location::caller())
}

async fn first_success_at<A: Alternatives>(
    alternatives: A,
    place: &'static Location<'static>,
) -> Result<A::Value, ErrorGroup<A::Error>> {
    assert!(alternatives.count() > 0, "a choice among nobody");
    let finished = Mutex::new((None, Unseen::new(place)));
    let ended = run(alternatives, place, |nursery, branch, result| {
        // Whether it is a cancellation is code of others, as is the destructor of a value: it runs without the lock.
        let result = result.map_err(|error| Failure::of(error, || branch.failed_by(place)));
        let mut board = lock(&finished);
        match result {
            Ok(value) if board.0.is_none() => {
                board.0 = Some(value);
                drop(board);
                nursery.scope().cancel(Source::Enough, place);
            }
            Ok(late) => {
                drop(board);
                drop(late);
            }
            Err(failure) => board.1.errors.push(failure),
        }
        Ok(())
    })
    .await;
    let (value, mut unseen) = into_inner(finished);
    let (mut errors, _) = unseen.take();
    if let Some(value) = value {
        for error in errors.iter().filter(|error| !error.is_cancelled()) {
            tracing::debug!(choice = %place, "an alternative failed beside one that succeeded: {error:?}");
        }
        return Ok(value);
    }
    // Those that were cut (N13).
    errors.extend(ended.err().into_iter().flat_map(ErrorGroup::into_failures));
    if cancelled_here() {
        // One is enough to travel on.
        let mut seen = false;
        errors.retain(|error| !error.is_cancelled() || !std::mem::replace(&mut seen, true));
    }
    Err(ErrorGroup::from_failures(errors).expect("all have ended, and none has succeeded"))
}
