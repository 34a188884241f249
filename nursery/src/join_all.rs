//! [`join`] and [`until`]: of several futures, all are wanted, or enough of them.

use crate::branches::{Alternatives, Branches, cancelled_here, into_inner, lock, run};
use crate::nursery::Open;
use std::future::Future;
use std::panic::Location;
use std::sync::Mutex;
use trefoil_runtime::{CancelAware, Cancelled, ErrorGroup, Source};

/// Runs futures side by side, for all of their values.
///
/// The values come as the futures were given: a tuple for a tuple, an array for an array, a `Vec` for a `Vec`. It is a
/// [`nursery`](crate::nursery) with these children; the first error cancels the others.
///
/// # Errors
/// Every error, in the order in which the futures ended, as for [`nursery`](crate::nursery); each is that of a task with the name `branch 1`, `branch 2`
/// and so on ([`failures`](trefoil_runtime::ErrorGroup::failures)). The values of the others are dropped.
///
/// # Cancellation
/// Reaches all of them, and this ends when they have.
///
/// # Panics
/// With the panic of one of them, after the others were cancelled and awaited (N9). Outside of a run.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::{checkpoint, join};
/// let name = String::from("clover");
/// let (length, upper) = join((
///     async { checkpoint().await?; Ok(name.len()) },
///     async { Ok(name.to_uppercase()) },
/// ))
/// .await?;
/// assert_eq!((length, upper.as_str()), (6, "CLOVER"));
///
/// let squares = join((1..4).map(|i| async move { Ok(i * i) }).collect::<Vec<_>>()).await?;
/// assert_eq!(squares, [1, 4, 9]);
/// # Ok::<(), std::io::Error>(()) }).unwrap();
/// ```
#[doc(alias("try_join", "join_all", "gather"))]
#[track_caller]
pub fn join<B: Branches>(branches: B) -> impl Future<Output = Result<B::Values, ErrorGroup<B::Error>>> + use<B> {
    let place = Location::caller();
    async move {
        // The values are in the cells of the children, which outlive the nursery.
        let joins = Open::new(move |nursery| async move { Ok(branches.start(nursery, place)) }, place).await?;
        B::values(joins).ok_or_else(|| Cancelled::delivered().into())
    }
}

/// Runs futures side by side and collects their values, in the order in which they come, until that is enough: `enough` is asked after
/// each. Then the rest is cancelled and awaited.
///
/// All values, if it never is. A future that finished before its cancellation reached it is in the result as well: nothing that was
/// done is thrown away.
///
/// # Errors
/// Every error, in the order in which the futures ended: the first cancels the others, as for [`join`]. The values are dropped.
///
/// # Cancellation
/// Reaches all of them, and this ends when they have. If there were enough values before, they are the result.
///
/// # Panics
/// With the panic of one of them or of `enough`, after the others were cancelled and awaited (N9). Outside of a run.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::{sleep, until, Cancelled};
/// use std::time::Duration;
/// let replica = |n: u64| async move {
///     sleep(Duration::from_millis(n * 10)).await?;
///     Ok::<_, Cancelled>(n)
/// };
/// let quorum = until([replica(300), replica(0), replica(1)], |done| done.len() == 2).await.unwrap();
/// assert_eq!(quorum, [0, 1]);
/// # });
/// ```
#[track_caller]
pub fn until<A: Alternatives, P: FnMut(&[A::Value]) -> bool>(
    alternatives: A,
    enough: P,
) -> impl Future<Output = Result<Vec<A::Value>, ErrorGroup<A::Error>>> + use<A, P> {
    until_at(alternatives, enough, Location::caller())
}

async fn until_at<A: Alternatives>(
    alternatives: A,
    enough: impl FnMut(&[A::Value]) -> bool,
    place: &'static Location<'static>,
) -> Result<Vec<A::Value>, ErrorGroup<A::Error>> {
    let count = alternatives.count();
    let board = Mutex::new((Vec::new(), Some(enough)));
    let ended = run(alternatives, place, |nursery, _, result| {
        let value = result?;
        let mut locked = lock(&board);
        locked.0.push(value);
        if let Some(mut enough) = locked.1.take() {
            // Code of others: not under the lock.
            let values = std::mem::take(&mut locked.0);
            drop(locked);
            let stop = enough(&values);
            let mut locked = lock(&board);
            locked.0 = values;
            if !stop {
                locked.1 = Some(enough);
                return Ok(());
            }
            drop(locked);
            nursery.scope().cancel(Source::Enough, place);
        }
        Ok(())
    })
    .await;
    let (values, enough) = into_inner(board);
    match ended {
        // R29, N14: see `race`.
        Err(group) if enough.is_some() || !(group.is_cancelled() && cancelled_here()) => Err(group),
        // They were cancelled from outside, and a shield came up before they had ended (R25).
        Ok(()) if enough.is_some() && values.len() < count => Err(Cancelled::delivered().into()),
        _ => Ok(values),
    }
}
