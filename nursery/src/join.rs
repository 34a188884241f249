//! [`Join`]: the handle of a child.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use trefoil_runtime::{Cancelled, ChildKey, RawJoin, awaited_at, directory};

/// The directory of this crate's sources.
const HERE: &str = directory(file!());

/// A child of a nursery, to be awaited for its value. Dropping it neither cancels nor detaches the child: the nursery has it.
///
/// # Errors
/// [`Cancelled`] if the child has no value, because it was cancelled, failed or panicked (the error or panic is the nursery's, which is
/// cancelled), or if the scope that awaits is cancelled.
///
/// # Cancellation
/// Ends the wait, not the child.
#[doc(alias("JoinHandle"))]
pub struct Join<'s, T> {
    raw: RawJoin<T>,
    _s: PhantomData<fn(&'s ()) -> &'s ()>,
}

impl<T> Join<'_, T> {
    pub(crate) fn new(raw: RawJoin<T>) -> Self {
        Self { raw, _s: PhantomData }
    }

    /// What names the child in waits for it.
    pub(crate) fn key(&self) -> ChildKey {
        ChildKey::of(&self.raw)
    }

    /// Without the brand: to take the value out after the nursery has ended.
    pub(crate) fn into_raw(self) -> RawJoin<T> {
        self.raw
    }

    /// Whether the child has ended.
    pub fn is_done(&self) -> bool {
        self.raw.is_done()
    }

    /// The value of a child that has ended, once; `None` otherwise.
    ///
    /// # Examples
    /// ```
    /// # trefoil_nursery::doc_run(async {
    /// use trefoil_nursery::{checkpoint, nursery, Cancelled};
    /// nursery(async |n| -> Result<(), Cancelled> {
    ///     let mut child = n.spawn(async { Ok(7) });
    ///     assert_eq!(child.try_take(), None);
    ///     checkpoint().await?;
    ///     assert_eq!(child.try_take(), Some(7));
    ///     Ok(())
    /// })
    /// .await
    /// .unwrap();
    /// # });
    /// ```
    pub fn try_take(&mut self) -> Option<T> {
        self.raw.take()
    }
}

impl<T> Unpin for Join<'_, T> {}

impl<T> fmt::Debug for Join<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.raw.fmt(f)
    }
}

impl<T> Future for Join<'_, T> {
    type Output = Result<T, Cancelled>;

    /// The caller is the place of the `.await`, in the code that the compiler makes of it.
    #[track_caller]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = Location::caller();
        let place = move |spawned| awaited_at(polled, HERE).unwrap_or(spawned);
        Poll::Ready(match ready!(self.raw.poll(cx, place)) {
            Ok(Some(value)) => Ok(value),
            Ok(None) => Err(Cancelled::delivered()),
            Err(cancelled) => Err(cancelled),
        })
    }
}
