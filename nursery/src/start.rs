//! `Nursery::start`: a child that says when it is ready, and belongs to who started it until then (R68–R73).

use crate::branches::cancelled_here;
use crate::join::Join;
use crate::nursery::{Local, Nursery, Shared};
use crate::scope::shield_at;
use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::panic::Location;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Poll, ready};
use trefoil_runtime::{CancelAware, Cancelled, Handed, Placed, Reason, Scope, Turn, Wait, WaitQueue, poll_cancelled};

/// A child ended without saying that it is ready (R69).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotStarted(());

impl fmt::Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the child ended without calling `Started::ready`")
    }
}

impl std::error::Error for NotStarted {}

impl From<NotStarted> for std::io::Error {
    fn from(error: NotStarted) -> Self {
        std::io::Error::other(error)
    }
}

struct State<V> {
    value: Option<V>,
    /// The child belongs to the nursery: its error does, too.
    handed_over: bool,
    /// The caller went away, and with it the scope that would absorb the cancellation of the child.
    abandoned: bool,
    ended: bool,
}

type Queue<V> = WaitQueue<State<V>, (), 1>;

/// What a child that was [started](Nursery::start) says that it is ready with.
pub struct Started<'s, V> {
    queue: Arc<Queue<V>>,
    child: Placed,
    nursery: *const Scope,
    _s: PhantomData<fn(&'s ()) -> &'s ()>,
}

// SAFETY: it is a shared queue, a handle of a scope, and the nursery's scope, which is `Sync` and outlives 's.
unsafe impl<V: Send> Send for Started<'_, V> {}
// SAFETY: as above.
unsafe impl<V: Send> Sync for Started<'_, V> {}

impl<V> fmt::Debug for Started<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Started")
    }
}

impl<V> Started<'_, V> {
    /// The child is ready: `start` returns the value, and the child, with everything below it, belongs to the nursery from now on
    /// (R71).
    ///
    /// If the caller of `start` has been cancelled by now, the child stays with it, and nothing is seen of this (R72).
    pub fn ready(self, value: V) {
        let mut state = self.queue.lock();
        state.value = Some(value);
        // SAFETY: [BRAND] of the nursery module: the child is there, so the nursery is.
        let Some(moved) = self.child.hand_over(unsafe { &*self.nursery }) else { return };
        state.handed_over = true;
        let _ = state.hand(0, None);
        drop(state);
        drop(moved);
    }
}

/// Tells `start` that the child is gone, however it went.
struct Ended<V> {
    queue: Arc<Queue<V>>,
}

impl<V> Drop for Ended<V> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.ended = true;
        let _ = state.hand(0, None);
    }
}

/// A `start` that is dropped half way: the child is cancelled, and left to the nursery.
struct Caller<'s, 'env, V, E: CancelAware + 's, M> {
    queue: Arc<Queue<V>>,
    child: Placed,
    nursery: Nursery<'s, 'env, E, M>,
    result: Arc<Mutex<Option<Result<(), E>>>>,
    name: Option<Arc<str>>,
    place: &'static Location<'static>,
    waits: bool,
}

impl<V, E: CancelAware, M> Drop for Caller<'_, '_, V, E, M> {
    fn drop(&mut self) {
        if !self.waits {
            return;
        }
        let mut state = self.queue.lock();
        if !state.handed_over && !state.ended {
            state.handed_over = true;
            state.abandoned = true;
            drop(state);
            self.child.cancel(self.place);
            drop(self.child.move_under(self.nursery.scope()));
            return;
        }
        drop(state);
        // N15: it failed, and nobody has looked. The nursery gets the error, by way of a child.
        let result = self.result.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(error) = result.and_then(Result::err).and_then(CancelAware::without_cancelled) {
            let mut error = OnItsWay { error: Some(error), place: self.place };
            drop::<Join<'_, ()>>(self.nursery.spawn_perhaps_named(
                self.name.take(),
                async move { error.error.take().map_or(Ok(()), Err) },
                self.place,
            ));
        }
    }
}

/// An error on its way to the nursery. One that is dropped does not come to look: then it is a line in the log (N15).
struct OnItsWay<E: fmt::Debug> {
    error: Option<E>,
    place: &'static Location<'static>,
}

impl<E: fmt::Debug> Drop for OnItsWay<E> {
    fn drop(&mut self) {
        if let Some(error) = &self.error {
            trefoil_runtime::report_error!(child = %self.place, "an error of a child whose nursery was dropped: {error:?}");
        }
    }
}

impl<'s, 'env, E: CancelAware + From<NotStarted>> Nursery<'s, 'env, E, Shared> {
    /// Starts a child and waits until it says that it is [ready](Started::ready): for a service that is of use only once it listens.
    ///
    /// Until then the child runs beneath the caller: the caller's cancellation and deadlines apply to it, and its error is the result
    /// here. From then on it is a child of the nursery like any other.
    ///
    /// # Errors
    /// That of the child, if it ended before it was ready (R68). [`NotStarted`] if it ended without one (R69).
    ///
    /// # Cancellation
    /// Cancels the child, and waits for it.
    ///
    /// # Examples
    /// ```
    /// # trefoil_nursery::doc_run(async {
    /// use trefoil_nursery::{nursery, sleep_forever};
    /// nursery(async |n| -> std::io::Result<()> {
    ///     let port = n
    ///         .start(async |started| {
    ///             started.ready(8080);
    ///             sleep_forever().await?; // serves
    ///             Ok(())
    ///         })
    ///         .await?;
    ///     assert_eq!(port, 8080);
    ///     n.cancel();
    ///     Ok(())
    /// })
    /// .await
    /// .unwrap();
    /// # });
    /// ```
    #[track_caller]
    pub fn start<V, F, B>(self, child: F) -> impl Future<Output = Result<V, E>> + use<'s, 'env, V, F, B, E>
    where
        F: FnOnce(Started<'s, V>) -> B,
        B: Future<Output = Result<(), E>> + Send + 's,
        V: Send + 's,
        E: Send + 's,
    {
        self.start_at(None, child, Location::caller())
    }

    /// [`start`](Self::start), with a name, as that of [`spawn_named`](Self::spawn_named).
    ///
    /// # Errors
    /// As of [`start`](Self::start).
    ///
    /// # Cancellation
    /// As of [`start`](Self::start).
    ///
    /// # Examples
    /// ```
    /// # trefoil_nursery::doc_run(async {
    /// use trefoil_nursery::{nursery, sleep_forever};
    /// nursery(async |n| -> std::io::Result<()> {
    ///     let serve = n.start_named("server", async |started| {
    ///         started.ready(8080);
    ///         Ok(sleep_forever().await?)
    ///     });
    ///     assert_eq!(serve.await?, 8080);
    ///     assert!(trefoil_runtime::tree().to_string().contains("task `server`"));
    ///     n.cancel();
    ///     Ok(())
    /// })
    /// .await
    /// .unwrap();
    /// # });
    /// ```
    #[track_caller]
    pub fn start_named<V, F, B, N>(
        self,
        name: N,
        child: F,
    ) -> impl Future<Output = Result<V, E>> + use<'s, 'env, V, F, B, N, E>
    where
        F: FnOnce(Started<'s, V>) -> B,
        B: Future<Output = Result<(), E>> + Send + 's,
        V: Send + 's,
        E: Send + 's,
        N: Into<Arc<str>>,
    {
        self.start_at(Some(name.into()), child, Location::caller())
    }
}

impl<'s, 'env, E: CancelAware + From<NotStarted>> Nursery<'s, 'env, E, Local> {
    /// Starts a child that need not be `Send`, and waits until it says that it is [ready](Started::ready). Otherwise as for
    /// [`nursery`](crate::nursery).
    ///
    /// # Errors
    /// That of the child, if it ended before it was ready (R68). [`NotStarted`] if it ended without one (R69).
    ///
    /// # Cancellation
    /// Cancels the child, and waits for it.
    #[track_caller]
    pub fn start<V, F, B>(self, child: F) -> impl Future<Output = Result<V, E>> + use<'s, 'env, V, F, B, E>
    where
        F: FnOnce(Started<'s, V>) -> B,
        B: Future<Output = Result<(), E>> + 's,
        V: 's,
        E: 's,
    {
        self.start_at(None, child, Location::caller())
    }

    /// Starts a child with a name that need not be `Send`, and waits until it says that it is [ready](Started::ready).
    ///
    /// # Errors
    /// As of [`start`](Self::start).
    ///
    /// # Cancellation
    /// As of [`start`](Self::start).
    #[track_caller]
    pub fn start_named<V, F, B, N>(
        self,
        name: N,
        child: F,
    ) -> impl Future<Output = Result<V, E>> + use<'s, 'env, V, F, B, N, E>
    where
        F: FnOnce(Started<'s, V>) -> B,
        B: Future<Output = Result<(), E>> + 's,
        V: 's,
        E: 's,
        N: Into<Arc<str>>,
    {
        self.start_at(Some(name.into()), child, Location::caller())
    }
}

impl<'s, E: CancelAware + From<NotStarted>, M> Nursery<'s, '_, E, M> {
    async fn start_at<V, F, B>(
        self,
        name: Option<Arc<str>>,
        child: F,
        place: &'static Location<'static>,
    ) -> Result<V, E>
    where
        F: FnOnce(Started<'s, V>) -> B,
        B: Future<Output = Result<(), E>> + 's,
        V: 's,
        E: 's,
    {
        let queue = Arc::new(Queue::new(State { value: None, handed_over: false, abandoned: false, ended: false }));
        let result = Arc::new(Mutex::new(None));
        let nursery: *const Scope = self.scope();
        let mut caller = {
            // SAFETY: the body is a part of the child, which is dropped before its cell is.
            let root = unsafe { Placed::here(place) };
            let handle = root.handle();
            let started = Started { queue: queue.clone(), child: handle.clone(), nursery, _s: PhantomData };
            let body = root.run(child(started));
            let (ended, shown) = (Ended { queue: queue.clone() }, result.clone());
            drop::<Join<'_, ()>>(self.spawn_perhaps_named(
                name.clone(),
                async move {
                    let result = body.await.unwrap_or_else(|| Err(Cancelled::delivered().into()));
                    let mut state = ended.queue.lock();
                    if state.abandoned {
                        // N5, R24: it was cancelled alone, so that is absorbed here; the nursery gets what went wrong beside.
                        drop(state);
                        return result.or_else(|error| error.without_cancelled().map_or(Ok(()), Err));
                    }
                    if state.handed_over {
                        return result;
                    }
                    state.ended = true;
                    *shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(result);
                    drop(state);
                    drop(ended);
                    Ok(())
                },
                place,
            ));
            Caller {
                queue: queue.clone(),
                child: handle,
                nursery: self,
                result: result.clone(),
                name,
                place,
                waits: true,
            }
        };
        // The cancellation of the caller arrives by way of the child (R68).
        let waited = shield_at(
            async {
                let mut waiter = pin!(queue.waiter());
                poll_fn(|cx| {
                    let polled = waiter.as_mut().poll(cx, Wait::new(Reason::Start).at(place), |state| {
                        if state.handed_over || state.ended { Turn::Ready(()) } else { Turn::Wait(0, None) }
                    });
                    Poll::Ready(match ready!(polled) {
                        Ok(Handed::Ready(()) | Handed::Handed(_)) => Ok(()),
                        Err((cancelled, _)) => Err(cancelled),
                    })
                })
                .await
            },
            place,
        )
        .await;
        waited?;
        caller.waits = false;
        let result = result.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        // Out of the lock: the value of a child that failed after it was ready (R72) is dropped here, which is user code.
        let (handed_over, value) = {
            let mut state = queue.lock();
            (state.handed_over, state.value.take())
        };
        let error: E = match (handed_over, value, result) {
            (true, Some(value), _) | (false, Some(value), Some(Ok(()))) => return Ok(value),
            (_, _, Some(Err(error))) => error,
            (_, None, Some(Ok(()))) => NotStarted(()).into(),
            // It panicked, or was destroyed: the nursery knows.
            (_, _, None) => Cancelled::delivered().into(),
        };
        // The child was told in the place of the caller. If that did not count, a loop that starts children in a cancelled scope, and
        // swallows what comes, would never end (N13 b).
        if error.has_cancelled() && cancelled_here() && poll_cancelled(place).is_pending() {
            if !error.is_cancelled() {
                trefoil_runtime::report_error!(child = %place, "an error of a child whose start is dropped: {error:?}");
            }
            // Who awaits it outside of the scope in which too much was swallowed is told: there it would be dropped by nobody.
            poll_fn(|_| poll_cancelled(place)).await;
        }
        Err(error)
    }
}
