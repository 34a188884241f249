//! [`as_completed`]: results in the order in which they come.

use super::awaitable::{Awaitable, Ensured};
use super::event_loop::call_at;
use super::future::Future;
use super::here;
use super::sleep::OnDrop;
use super::waiting::Waiting;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::{Future as StdFuture, poll_fn};
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use trefoil_runtime::{self as runtime, CancelAware, Cancelled, DeadlineAware, Reason, TimedOut};

/// By place, with the number of its callback.
type Todo<T, E> = BTreeMap<usize, (Ensured<T, E>, u64)>;

struct Shared<T: 'static, E: CancelAware + 'static> {
    /// Those that have not come, and their callbacks, in order.
    todo: RefCell<Todo<T, E>>,
    /// Those that have; `None` for one whose time was over.
    came: RefCell<VecDeque<Option<Ensured<T, E>>>>,
    getters: RefCell<VecDeque<Future<(), Cancelled>>>,
    timer: RefCell<Option<OnDrop>>,
}

impl<T: 'static, E: CancelAware + 'static> Shared<T, E> {
    fn put(&self, item: Option<Ensured<T, E>>) {
        self.came.borrow_mut().push_back(item);
        self.wake_next();
    }

    fn wake_next(&self) {
        loop {
            let Some(getter) = self.getters.borrow_mut().pop_front() else { return };
            if getter.finish(Ok(())).is_ok() {
                return;
            }
        }
    }

    fn done(&self, at: usize) {
        // A timeout was here first.
        let Some((done, _)) = self.todo.borrow_mut().remove(&at) else { return };
        self.put(Some(done));
        if self.todo.borrow().is_empty() {
            drop(self.timer.take());
        }
    }

    fn time_is_over(&self) {
        for (ensured, callback) in self.todo.take().into_values() {
            ensured.future.any().remove(callback);
            self.put(None);
        }
    }
}

/// Results in the order in which they come: see [`as_completed`].
///
/// [`next`](Self::next) gives them one by one. With the feature `futures` it is a `Stream`, too.
#[must_use = "nothing comes out of it until it is asked"]
pub struct AsCompleted<T: 'static, E: CancelAware + 'static> {
    shared: Rc<Shared<T, E>>,
    left: usize,
    /// One is being waited for.
    begun: bool,
    getter: Option<(Future<(), Cancelled>, Waiting<(), Cancelled>)>,
    /// Where it was asked last, or made.
    place: &'static Location<'static>,
}

impl<T: 'static, E: CancelAware + 'static> fmt::Debug for AsCompleted<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompleted").field("left", &self.len()).finish_non_exhaustive()
    }
}

impl<T: 'static, E: CancelAware + 'static> Drop for AsCompleted<T, E> {
    /// Those that have not come go on (A5).
    fn drop(&mut self) {
        for (ensured, callback) in self.shared.todo.take().into_values() {
            ensured.future.any().remove(callback);
        }
        drop(self.shared.timer.take());
    }
}

impl<T: 'static, E: DeadlineAware + 'static> AsCompleted<T, E> {
    /// The next result; `None` after the last one.
    ///
    /// # Errors
    /// In it: those of the one that came (A7), [`TimedOut`] for each one that did not come in time (A4), and a cancellation where the
    /// task that asks is cancelled.
    ///
    /// # Cancellation
    /// Those that are awaited go on (A8).
    #[track_caller]
    #[expect(clippy::should_implement_trait, reason = "that of a stream, as others have it")]
    pub fn next(&mut self) -> impl StdFuture<Output = Option<Result<T, E::Failed>>> {
        self.place = Location::caller();
        poll_fn(|cx| self.poll_next_result(cx))
    }

    /// The future of the next one that is done: the very one that was given (A3); `None` after the last one.
    ///
    /// # Errors
    /// [`TimedOut`](crate::CancelledOrTimedOut) for each one that did not come in time, and a cancellation.
    #[track_caller]
    pub fn next_done(&mut self) -> impl StdFuture<Output = Option<Result<Future<T, E>, crate::CancelledOrTimedOut>>> {
        self.place = Location::caller();
        async { poll_fn(|cx| self.poll_done(cx)).await.map(|done| done.map(|ensured| ensured.future)) }
    }

    fn poll_next_result(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, E::Failed>>> {
        Poll::Ready(ready!(self.poll_done(cx)).map(|done| match done {
            Ok(ensured) => ensured.outcome().map_err(Into::into),
            Err(crate::CancelledOrTimedOut::TimedOut(late)) => Err(late.into()),
            Err(crate::CancelledOrTimedOut::Cancelled(cancelled)) => Err(E::from(cancelled).into()),
        }))
    }

    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Ensured<T, E>, crate::CancelledOrTimedOut>>> {
        if !self.begun {
            if self.left == 0 {
                return Poll::Ready(None);
            }
            self.left -= 1;
            self.begun = true;
        }
        let got = ready!(self.poll_get(cx));
        self.begun = false;
        Poll::Ready(Some(match got {
            Ok(Some(done)) => Ok(done),
            Ok(None) => Err(TimedOut::new().into()),
            Err(cancelled) => Err(cancelled.into()),
        }))
    }
}

impl<T: 'static, E: CancelAware + 'static> AsCompleted<T, E> {
    /// How many results are left.
    pub fn len(&self) -> usize {
        self.left + usize::from(self.begun)
    }

    /// Whether no result is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes one that has come, or waits for it, as `Queue.get` does.
    fn poll_get(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Ensured<T, E>>, Cancelled>> {
        loop {
            if let Some((getter, wait)) = &mut self.getter {
                let ended = ready!(Pin::new(wait).poll(cx));
                let getter = getter.clone();
                self.getter = None;
                if let Err(cancelled) = ended {
                    getter.cancel();
                    self.shared.getters.borrow_mut().retain(|other| !other.is(&getter));
                    if !self.shared.came.borrow().is_empty() && !getter.cancelled() {
                        self.shared.wake_next();
                    }
                    return Poll::Ready(Err(cancelled));
                }
            }
            if let Some(item) = self.shared.came.borrow_mut().pop_front() {
                return Poll::Ready(Ok(item));
            }
            let getter = Future::pending(Reason::Custom("the next of several tasks or futures of asyncio"));
            self.shared.getters.borrow_mut().push_back(getter.clone());
            let wait = getter.wait_at(self.place);
            self.getter = Some((getter, wait));
        }
    }
}

#[cfg(feature = "futures")]
impl<T: 'static, E: DeadlineAware + 'static> futures_core::Stream for AsCompleted<T, E> {
    type Item = Result<T, E::Failed>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_next_result(cx)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

/// Starts several at once, and gives their results in the order in which they come (A1), each one once (A6).
///
/// With a timeout, those that have not come by then give [`TimedOut`] each, and go on (A4). When this is dropped before its end, the
/// rest go on (A5).
///
/// # Panics
/// Outside of a loop.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(trefoil_nursery::asyncio::event_loop(async {
/// use std::{io, time::Duration};
/// use trefoil_nursery::asyncio;
/// let sleeps = [3, 1, 2].map(|n| async move {
///     asyncio::sleep(Duration::from_millis(5 * n)).await?;
///     Ok::<_, io::Error>(n)
/// });
/// let mut results = asyncio::as_completed(sleeps, None);
/// let mut order = Vec::new();
/// while let Some(n) = results.next().await {
///     order.push(n?);
/// }
/// assert_eq!(order, [1, 2, 3]);
/// # Ok::<(), io::Error>(())
/// # })).unwrap();
/// ```
#[track_caller]
pub fn as_completed<I>(
    awaitables: I,
    timeout: impl Into<Option<Duration>>,
) -> AsCompleted<<I::Item as Awaitable>::Value, <I::Item as Awaitable>::Error>
where
    I: IntoIterator,
    I::Item: Awaitable,
{
    let (place, timeout) = (Location::caller(), timeout.into());
    let event_loop = here::running();
    let mut seen = std::collections::HashSet::new();
    let all: Vec<_> = awaitables
        .into_iter()
        .map(|awaitable| awaitable.ensure(place))
        .filter(|ensured| ensured.new || seen.insert(ensured.future.key()))
        .collect();
    let left = all.len();
    let shared = Rc::new(Shared {
        todo: RefCell::new(BTreeMap::new()),
        came: RefCell::new(VecDeque::new()),
        getters: RefCell::new(VecDeque::new()),
        timer: RefCell::new(None),
    });
    for (at, ensured) in all.into_iter().enumerate() {
        let told = Rc::downgrade(&shared);
        let callback = ensured.future.on_done(
            event_loop.clone(),
            Box::new(move |_| {
                if let Some(shared) = told.upgrade() {
                    shared.done(at);
                }
            }),
        );
        shared.todo.borrow_mut().insert(at, (ensured, callback));
    }
    if let Some(timeout) = timeout
        && left > 0
    {
        let told = Rc::downgrade(&shared);
        let when = runtime::after(runtime::now_nanos(), timeout);
        let expire = Box::new(move || {
            if let Some(shared) = told.upgrade() {
                shared.time_is_over();
            }
        });
        *shared.timer.borrow_mut() = Some(OnDrop(call_at(&event_loop, when, expire)));
    }
    AsCompleted { shared, left, begun: false, getter: None, place }
}
