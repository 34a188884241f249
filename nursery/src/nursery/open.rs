//! The future of a nursery: it polls body and children, and settles what they have come to.

use super::handle::Nursery;
use super::state::{State, Who, message};
use super::{Invariant, Parts, Shared};
use crate::service::Services;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use trefoil_runtime::{self as runtime, CancelAware, Cancelled, Entry, ErrorGroup, Failure, Kind, ReadyBox, Scope};

/// Owns the state that handles and children point to.
struct StateBox<E>(NonNull<State<E>>);

impl<E> StateBox<E> {
    fn get(&self) -> &State<E> {
        // SAFETY: allocated in `new`, freed in `drop`.
        unsafe { self.0.as_ref() }
    }
}

impl<E> Drop for StateBox<E> {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`; [BRAND]: no handle and no child is left.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// The scope of the state, for the [`Entry`], which is dropped before the state.
struct ScopeOf<E>(NonNull<State<E>>);

impl<E> Deref for ScopeOf<E> {
    type Target = Scope;
    fn deref(&self) -> &Scope {
        // SAFETY: the entry is a field before the state's.
        unsafe { &self.0.as_ref().scope }
    }
}

/// The future of a nursery: `Result<T, ErrorGroup<E>>`.
#[must_use = "a nursery does nothing until it is awaited"]
pub struct Open<'env, B, E: CancelAware, M = Shared>
where
    B: Future,
{
    // The order of the fields is that of their end, should `drop` below unwind.
    body: Option<B>,
    value: Option<B::Output>,
    entry: Entry<ScopeOf<E>>,
    ready: ReadyBox,
    state: StateBox<E>,
    place: &'static Location<'static>,
    /// Everybody has been scheduled since the scope was cancelled.
    told: bool,
    done: bool,
    /// It has ended, and does not say so: the task around it has swallowed too many cancellations (N13 b).
    mute: bool,
    _env: Invariant<'env>,
    _marker: PhantomData<M>,
}

// SAFETY: everything that the future owns goes with it: the body, its value, the errors, and the children, which are `Send` by the
// bounds of `spawn`, as are their values. Wakers reach the queue by ways made for other threads.
unsafe impl<B: Future<Output = Result<T, E>> + Send, T: Send, E: CancelAware + Send> Send for Open<'_, B, E, Shared> {}

// SAFETY: as above; the children are made of `X` and of what the body holds, by the word of who names the marker.
unsafe impl<B: Future<Output = Result<T, E>> + Send, T: Send, E: CancelAware + Send, X: Send> Send
    for Open<'_, B, E, Parts<X>>
{
}

impl<B: Future, E: CancelAware, M> fmt::Debug for Open<'_, B, E, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nursery")
            .field("place", &format_args!("{}", self.place))
            .field("children", &self.ready.live())
            .field("scope", self.entry.scope())
            .finish()
    }
}

impl<'env, B, T, E, M> Open<'env, B, E, M>
where
    B: Future<Output = Result<T, E>>,
    E: CancelAware,
{
    /// A body whose handle is not branded: it must not leave the body, nor the children.
    pub(crate) fn new<F>(body: F, place: &'static Location<'static>) -> Self
    where
        F: FnOnce(Nursery<'env, 'env, E, M>) -> B,
    {
        let mut ready = ReadyBox::nested(place);
        let state = Box::new(State {
            scope: Scope::new(Kind::Nursery, place),
            ready: ready.as_ptr(),
            errors: RefCell::default(),
            payload: RefCell::new(None),
            cut: Cell::new(false),
            made_up: Cell::new(None),
            services: Services::new(),
        });
        // SAFETY: a box is not null.
        let state = StateBox(unsafe { NonNull::new_unchecked(Box::into_raw(state)) });
        ready.set_home(state.0.as_ptr().cast());
        // SAFETY: the entry is dropped, and the scope left with it, before the queue.
        unsafe { state.get().scope.set_children(ready.as_ptr()) };
        // SAFETY: the state is in a box, and dropped after the entry.
        let entry = unsafe { Entry::new(ScopeOf(state.0)) };
        let handle = Nursery { state: state.0.as_ptr(), _s: PhantomData, _env: PhantomData, _marker: PhantomData };
        let mut open = Self {
            body: None,
            value: None,
            entry,
            ready,
            state,
            place,
            told: false,
            done: false,
            mute: false,
            _env: PhantomData,
            _marker: PhantomData,
        };
        // A closure that is not `async` may have spawned when it panics: then all of this is dropped in order.
        open.body = Some(body(handle));
        open
    }

    /// The same nursery, with a name: for the [task tree](trefoil_runtime::tree), and for who is cancelled in it.
    ///
    /// # Examples
    /// ```
    /// # trefoil_nursery::doc_run(async {
    /// use trefoil_nursery::{nursery, Cancelled};
    /// let tree = nursery(async |_| Ok::<_, Cancelled>(trefoil_runtime::tree().to_string())).named("server").await;
    /// assert!(tree.unwrap().contains("nursery `server`"));
    /// # });
    /// ```
    pub fn named(self, name: impl Into<Arc<str>>) -> Self {
        // SAFETY: the nursery is ours, and so it is not being entered. One that is entered already keeps its name.
        unsafe { self.state.get().scope.set_name(name.into()) };
        self
    }

    /// The same nursery, with its own cancellation told apart: `Ok(None)` where it was cancelled, absorbed that, and its body has no
    /// value because of it.
    ///
    /// # Examples
    /// ```
    /// # trefoil_nursery::doc_run(async {
    /// use trefoil_nursery::{nursery, sleep_forever, Cancelled};
    /// let ended = nursery(async |n| -> Result<(), Cancelled> {
    ///     n.spawn(async move { n.cancel(); Ok(()) });
    ///     sleep_forever().await
    /// })
    /// .or_cancelled()
    /// .await;
    /// assert!(ended.unwrap().is_none());
    /// # });
    /// ```
    pub fn or_cancelled(self) -> OrCancelled<Self> {
        OrCancelled { open: self }
    }

    fn poll_end(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Option<T>, ErrorGroup<E>>> {
        // SAFETY: `body` is pinned and only polled and set to `None` in place; nothing else is.
        let this = unsafe { self.get_unchecked_mut() };
        if this.mute {
            // Who polls it next, outside of the scope in which too much was swallowed, is told: there it would be dropped by nobody.
            let cancelled = ready!(runtime::poll_cancelled(this.place));
            this.mute = false;
            return Poll::Ready(Err(cancelled.into()));
        }
        assert!(!this.done, "a nursery was polled after it had ended");
        if !this.entry.is_linked() {
            // R56: a nursery whose body does not wait is a schedule point, too (N11). Given up before it begins, as for operations.
            ready!(runtime::poll_budget(cx));
        }
        this.entry.enter(cx);
        // SAFETY: the state is in a box that lives as long as this future.
        let state = unsafe { &*this.state.0.as_ptr() };
        loop {
            if !state.scope.is_cancelled() {
                this.told = false;
            } else if !std::mem::replace(&mut this.told, true) {
                this.ready.schedule_all();
            }
            let (body, value, place, told) = (&mut this.body, &mut this.value, this.place, this.told);
            let who = || Who { name: None, place, body: true };
            let body_done = Cell::new(false);
            let poll_body = |cx: &mut Context<'_>| {
                // SAFETY: pinned with the nursery.
                let mut body = unsafe { Pin::new_unchecked(&mut *body) };
                let Some(future) = body.as_mut().as_pin_mut() else { return };
                match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
                    Ok(Poll::Pending) => return,
                    Ok(Poll::Ready(Ok(result))) => *value = Some(Ok(result)),
                    Ok(Poll::Ready(Err(error))) => state.fail(error, who()),
                    Err(payload) => state.panicked(payload, who()),
                }
                body_done.set(true);
                if let Err(payload) = catch_unwind(AssertUnwindSafe(|| body.set(None))) {
                    state.panicked(payload, who());
                }
            };
            // Whether there is nothing for us to do between two turns: below, and above.
            let settled = |ready: &ReadyBox| told && (ready.body_done() || !ready.body_is_stuck());
            let goes_on = |ready: &ReadyBox| {
                let stops_services = state.services.any() && ready.body_done();
                !body_done.get() && !stops_services && (!state.scope.is_cancelled() || settled(ready))
            };
            let more = this.ready.run_turns(&state.scope, cx, poll_body, goes_on);
            if body_done.get() {
                this.ready.set_body_done();
            } else if state.scope.is_cancelled() && !this.ready.body_done() && this.told && this.ready.body_is_stuck() {
                this.cut_body();
            }
            if !(this.ready.body_done() && this.ready.live() == 0) {
                if this.ready.body_done()
                    && state.services.any()
                    && let Some(scope) = state.services.stop_next(this.ready.live_now())
                {
                    state.stop(&scope, place);
                }
                if more {
                    cx.waker().wake_by_ref();
                }
                return Poll::Pending;
            }
            if !more {
                break;
            }
            // What is left in the queue are late wakes of those that are done.
        }
        this.done = true;
        this.ready.close(&state.scope);
        let absorbs = this.entry.leave();
        let result = this.settle(absorbs);
        // A cancellation that was told in here and is not absorbed is one more that the task around is told, also where children keep it
        // to themselves. If only its own operations counted, a loop that opens nurseries in a cancelled scope would never end (N13 b).
        let told = this.ready.was_told() || result.as_ref().is_err_and(CancelAware::has_cancelled);
        if !absorbs && told && state.scope.is_cancelled() && runtime::poll_cancelled(this.place).is_pending() {
            for error in
                result.as_ref().err().into_iter().flat_map(ErrorGroup::failures).filter(|error| !error.is_cancelled())
            {
                trefoil_runtime::report_error!(nursery = %state.scope.who(), "an error of a nursery whose task is dropped: {error:?}");
            }
            this.mute = true;
            return Poll::Pending;
        }
        Poll::Ready(result)
    }

    /// N13 (a), for the body.
    #[cold]
    fn cut_body(&mut self) {
        let state = self.state.get();
        tracing::debug!(nursery = %state.scope.who(), "the body of a cancelled nursery pended on nothing known, and was dropped (N13)");
        state.cut.set(true);
        // SAFETY: the body is pinned with the nursery.
        let mut body = unsafe { Pin::new_unchecked(&mut self.body) };
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| body.set(None))) {
            state.panicked(payload, Who { name: None, place: self.place, body: true });
        }
        self.ready.set_body_done();
    }

    fn settle(&mut self, absorbs: bool) -> Result<Option<T>, ErrorGroup<E>> {
        let state = self.state.get();
        let errors = state.errors.take();
        if let Some(payload) = state.payload.take() {
            // N9. That the others were cancelled for it is no error, unless somebody made it up (N14).
            let is_error =
                |(at, error): &(usize, Failure<E>)| !error.is_cancelled() || state.made_up.get() == Some(*at);
            for (_, error) in errors.into_failures().enumerate().filter(is_error) {
                trefoil_runtime::report_error!(nursery = %state.scope.who(), "an error beside the panic that ends its nursery: {error:?}");
            }
            resume_unwind(payload);
        }
        let (mut failed_by, mut kept, mut seen) = (errors.failed_by, Vec::new(), false);
        let cut = state.cut.get().then(|| E::from(Cancelled::delivered()));
        for (at, error) in errors.all.into_iter().chain(cut).enumerate() {
            let kept_of = if !absorbs {
                // One cancellation is enough to travel on.
                (!error.is_cancelled() || !std::mem::replace(&mut seen, true)).then_some(error)
            } else if state.made_up.get() == Some(at) {
                Some(error)
            } else {
                // R24, R27: this scope is the one that was cancelled.
                if error.has_cancelled() {
                    self.entry.caught();
                }
                error.without_cancelled()
            };
            kept.extend(kept_of.map(|error| failed_by.with(at, error)));
        }
        match ErrorGroup::from_failures(kept) {
            Some(group) => Err(group),
            None => Ok(self.value.take().and_then(Result::ok)),
        }
    }
}

impl<'env, B, T, E, M> Future for Open<'env, B, E, M>
where
    B: Future<Output = Result<T, E>>,
    E: CancelAware,
{
    type Output = Result<T, ErrorGroup<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(self.poll_end(cx)) {
            Ok(Some(value)) => Ok(value),
            Ok(None) => Err(Cancelled::delivered().into()),
            Err(group) => Err(group),
        })
    }
}

impl<B: Future, E: CancelAware, M> Drop for Open<'_, B, E, M> {
    /// N12: the emergency brake. Body and children are destroyed in place, before the frame they borrow from.
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let state = self.state.get();
        // Of a run that is in a deadlock the report shows them.
        if self.ready.live() > 0 && !trefoil_runtime::ends_as_deadlock() {
            trefoil_runtime::report_warn!(
                nursery = %state.scope.who(),
                children = self.ready.live(),
                "a nursery was dropped with live children, which are destroyed without clean-up; cancel it and await it instead"
            );
        }
        // SAFETY: the body is pinned, and dropped in place.
        let mut body = unsafe { Pin::new_unchecked(&mut self.body) };
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| body.set(None))) {
            state.panicked(payload, Who { name: None, place: self.place, body: true });
        }
        self.ready.close(&state.scope);
        for error in state.errors.take().into_failures() {
            if !error.is_cancelled() {
                trefoil_runtime::report_error!(nursery = %state.scope.who(), "an error of a nursery that was dropped: {error:?}");
            }
        }
        self.entry.leave();
        if let Some(payload) = state.payload.take() {
            if std::thread::panicking() {
                trefoil_runtime::report_error!(nursery = %state.scope.who(), "a panic in a nursery dropped by another panic: {}", message(&payload));
                runtime::discard(payload);
            } else {
                resume_unwind(payload);
            }
        }
    }
}

/// The future of [`Open::or_cancelled`].
#[must_use = "a nursery does nothing until it is awaited"]
#[derive(Debug)]
pub struct OrCancelled<N> {
    open: N,
}

impl<'env, B, T, E, M> Future for OrCancelled<Open<'env, B, E, M>>
where
    B: Future<Output = Result<T, E>>,
    E: CancelAware,
{
    type Output = Result<Option<T>, ErrorGroup<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `open` is pinned with this.
        unsafe { self.map_unchecked_mut(|this| &mut this.open) }.poll_end(cx)
    }
}
