//! Nurseries: the only place where tasks come from, and where every one of them ends.
//!
//! A nursery is a future that polls a body and the children that were spawned into it, all inside the task that awaits it. That
//! is what lets children borrow the frame of the enclosing function: when the nursery is dropped, or ends, they are gone.
//!
//! - **\[BRAND\]** The handle carries the lifetime `'s`, for which the body was checked for *any* `'s`: so neither the handle nor a child
//!   or join handle that mentions `'s` can leave the body or outlive the nursery. The state that the handle points to is owned by
//!   the nursery's future and freed after body and children.
//! - **\[OWNER\]** `errors`, `payload` and `cut` are touched by the thread that polls or drops the nursery's future, only: children call
//!   [`Outcome`] from inside of their own poll or drop, which is the nursery's.

use crate::join::Join;
use crate::service::Services;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use trefoil_runtime::{
    self as runtime, CancelAware, Cancelled, Culprit, Entry, ErrorGroup, Kind, Origin, Outcome, Payload, Ready,
    ReadyBox, Scope, Source,
};

type Invariant<'a> = PhantomData<fn(&'a ()) -> &'a ()>;

/// Marks a nursery whose children are `Send`.
#[derive(Debug)]
pub struct Shared(());

/// Marks a nursery whose children need not be `Send`.
#[derive(Debug)]
pub struct Local(PhantomData<Rc<()>>);

/// Marks a nursery of this crate's own, all of whose children are made of what an `X` holds and of what its body holds: it is `Send` if
/// those are.
#[derive(Debug)]
pub struct Parts<X>(PhantomData<X>);

/// What the handle points to.
struct State<E> {
    scope: Scope,
    ready: *const Ready,
    errors: RefCell<Vec<E>>,
    payload: RefCell<Option<Payload>>,
    cut: Cell<bool>,
    /// The place in `errors` of one with a cancellation in it that came out of a task while nothing was cancelled: an ordinary error
    /// (N14). There is one at most, since it cancels the nursery.
    made_up: Cell<Option<usize>>,
    services: Services,
}

/// Who failed.
#[derive(Clone, Copy)]
struct Who<'a> {
    name: Option<&'a Arc<str>>,
    place: &'static Location<'static>,
    body: bool,
}

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            Some(name) => write!(f, "`{name}` ({})", self.place),
            None => self.place.fmt(f),
        }
    }
}

/// An error, as it describes itself.
struct Described<'a, E>(&'a E);

impl<E: CancelAware> fmt::Display for Described<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.describe(f)
    }
}

impl<E: CancelAware> State<E> {
    fn fail(&self, error: E, who: Who<'_>) {
        if !self.scope.is_cancelled() && error.has_cancelled() {
            self.made_up.set(Some(self.errors.borrow().len()));
        }
        let culprit = self.culprit(who, false, || Described(&error));
        // `RefCell`: no user code runs while it is borrowed.
        self.errors.borrow_mut().push(error);
        self.cancel(culprit);
    }

    /// Does not panic, whatever the payload or a waker does: it is called half way through an end.
    fn panicked(&self, payload: Payload, who: Who<'_>) {
        let culprit = self.culprit(who, true, || message(&payload));
        self.keep(payload, who);
        self.cancel(culprit);
    }

    fn keep(&self, payload: Payload, who: Who<'_>) {
        let first = self.payload.borrow().is_none();
        if first {
            *self.payload.borrow_mut() = Some(payload);
        } else {
            trefoil_runtime::report_error!(task = %who, "a task panicked while another panic waits for its nursery to end: {}", message(&payload));
            runtime::discard(payload);
        }
    }

    /// Who sets off the cancellation, with what it says; for the first only, since nobody asks about others. The text is code of others,
    /// and may panic.
    fn culprit<T: fmt::Display>(&self, who: Who<'_>, panicked: bool, text: impl FnOnce() -> T) -> Option<Culprit> {
        if self.scope.is_cancel_called() {
            return None;
        }
        let make = |text: fmt::Arguments<'_>| {
            let culprit = Culprit::new(who.name.cloned(), who.place, panicked, text);
            if who.body { culprit.body() } else { culprit }
        };
        Some(catch_unwind(AssertUnwindSafe(|| make(format_args!("{}", text())))).unwrap_or_else(|payload| {
            runtime::discard(payload);
            make(format_args!("(an error whose text panics)"))
        }))
    }

    fn cancel(&self, culprit: Option<Culprit>) {
        let Some(culprit) = culprit else { return };
        let who = Who { name: None, place: culprit.place, body: culprit.body };
        self.guarded(who, || self.scope.cancel_after(culprit));
    }

    /// Tells a service to stop.
    fn stop(&self, service: &Scope, place: &'static Location<'static>) {
        self.guarded(Who { name: None, place, body: true }, || service.cancel(Source::Service, place));
    }

    /// What waits in a scope that is cancelled is woken, perhaps by way of a foreign executor's waker, which panics.
    fn guarded(&self, who: Who<'_>, cancel: impl FnOnce()) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(cancel)) {
            self.keep(payload, who);
        }
    }
}

pub(crate) fn message(payload: &Payload) -> &str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(a payload that is not text)")
}

/// Where a child's outcome goes: to the state of its nursery, which is the home of the queue. So a child has no room for it.
struct ToNursery<E>(PhantomData<fn(E)>);

impl<E: CancelAware> ToNursery<E> {
    /// # Safety
    /// The child is one of a nursery of `E`, which calls this.
    unsafe fn state<'a>(from: Origin) -> &'a State<E> {
        // SAFETY: [BRAND]: the child is there, so the nursery is; [OWNER]. It has set itself as the home of its queue.
        unsafe { &*from.home.cast::<State<E>>() }
    }

    fn finish<T>(&self, output: Result<T, E>, name: Option<&Arc<str>>, from: Origin) -> Option<T> {
        match output {
            Ok(value) => Some(value),
            Err(error) => {
                // SAFETY: children with such an outcome are spawned into nurseries of `E` alone.
                unsafe { Self::state(from) }.fail(error, Who { name, place: from.place, body: false });
                None
            }
        }
    }

    fn panic(&self, payload: Payload, name: Option<&Arc<str>>, from: Origin) {
        // SAFETY: as above.
        unsafe { Self::state(from) }.panicked(payload, Who { name, place: from.place, body: false });
    }
}

impl<T, E: CancelAware> Outcome<Result<T, E>> for ToNursery<E> {
    type Value = T;

    fn finished(&self, output: Result<T, E>, from: Origin) -> Option<T> {
        self.finish(output, None, from)
    }

    fn panicked(&self, payload: Payload, from: Origin) {
        self.panic(payload, None, from);
    }

    fn cut(&self, from: Origin) {
        // SAFETY: as above.
        unsafe { Self::state(from) }.cut.set(true);
    }
}

/// What has a name, or can say one.
pub(crate) trait Name: Sync {
    fn name(&self) -> Arc<str>;
}

impl Name for Arc<str> {
    fn name(&self) -> Arc<str> {
        self.clone()
    }
}

/// The same for a child with a name.
struct NamedToNursery<E, N> {
    to: ToNursery<E>,
    name: N,
}

impl<T, E: CancelAware, N: Name> Outcome<Result<T, E>> for NamedToNursery<E, N> {
    type Value = T;

    fn finished(&self, output: Result<T, E>, from: Origin) -> Option<T> {
        let name = output.is_err().then(|| self.name.name());
        self.to.finish(output, name.as_ref(), from)
    }

    fn panicked(&self, payload: Payload, from: Origin) {
        self.to.panic(payload, Some(&self.name.name()), from);
    }

    fn cut(&self, from: Origin) {
        Outcome::<Result<T, E>>::cut(&self.to, from);
    }

    unsafe fn name(this: *const Self) -> Option<Arc<str>> {
        // SAFETY: it is there: the caller's word. The name is never changed, and it is `Sync`.
        Some(unsafe { &(*this).name }.name())
    }
}

/// The handle of a nursery: copy it, pass it to functions and children. It cannot leave the nursery.
pub struct Nursery<'s, 'env: 's, E, M = Shared> {
    state: *const State<E>,
    _s: Invariant<'s>,
    _env: Invariant<'env>,
    _marker: PhantomData<fn(E) -> M>,
}

impl<E, M> Clone for Nursery<'_, '_, E, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E, M> Copy for Nursery<'_, '_, E, M> {}

// SAFETY: through the handle go: spawning `Send` children, by way of the inbox where it is another thread (`Ready::spawn`), and the
// scope, which is `Sync`. Errors of type `E` come from children, which are polled by the owner.
unsafe impl<E: Send> Send for Nursery<'_, '_, E, Shared> {}
// SAFETY: as above; the handle is `Copy`.
unsafe impl<E: Send> Sync for Nursery<'_, '_, E, Shared> {}

// SAFETY: as above: its children are `Send`, if `X` and the body are, and the future that owns them all is not `Send` if the body is not.
unsafe impl<E: Send, X: Send> Send for Nursery<'_, '_, E, Parts<X>> {}
// SAFETY: as above.
unsafe impl<E: Send, X: Send> Sync for Nursery<'_, '_, E, Parts<X>> {}

impl<E, M> fmt::Debug for Nursery<'_, '_, E, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: [BRAND].
        let children = unsafe { &*(*self.state).ready }.live();
        let mut debug = f.debug_struct("Nursery");
        self.scope().describe(&mut debug);
        debug.field("children", &children).finish()
    }
}

impl<E, M> Nursery<'_, '_, E, M> {
    pub(crate) fn scope(&self) -> &Scope {
        // SAFETY: [BRAND].
        unsafe { &(*self.state).scope }
    }

    pub(crate) fn services(&self) -> &Services {
        // SAFETY: [BRAND]; the list is `Sync`.
        unsafe { &(*self.state).services }
    }

    /// Cancels everything in the nursery, body and children: each operation in it returns [`Cancelled`]. Returns at once; the
    /// nursery ends when all have (R8). Its [services](Nursery::service) are told when all others have ended.
    ///
    /// A body that returned a value keeps it: the nursery then ends with that (R66).
    #[track_caller]
    pub fn cancel(self) {
        self.scope().cancel(Source::Explicit, Location::caller());
    }

    /// Asks body and children to stop, and cancels the nursery after `grace`; see
    /// [`CancelScope::cancel_softly`](crate::CancelScope::cancel_softly).
    #[track_caller]
    pub fn cancel_softly(self, grace: Duration) {
        self.scope().cancel_softly(grace, Location::caller());
    }

    /// Whether the nursery was asked to stop itself, by [`cancel_softly`](Self::cancel_softly).
    pub fn soft_cancel_called(self) -> bool {
        self.scope().soft_cancel_called()
    }

    /// Whether the nursery was cancelled itself: by [`cancel`](Self::cancel), its deadline, or an error of a child.
    pub fn cancel_called(self) -> bool {
        self.scope().cancel_called(runtime::now_nanos)
    }

    /// Gives the nursery a deadline at which it is cancelled; `None` takes it away. At once, from any task (R48).
    pub fn set_deadline(self, deadline: Option<Instant>) {
        self.scope().set_deadline(deadline.map_or(runtime::NEVER, runtime::nanos));
    }

    /// The deadline, if there is one.
    pub fn deadline(self) -> Option<Instant> {
        runtime::instant(self.scope().deadline())
    }

    /// Raises or lowers a shield against cancellation from outside (R32, R33).
    pub fn set_shield(self, up: bool) {
        self.scope().set_shield(up);
    }

    /// Whether the shield is up.
    pub fn shield(self) -> bool {
        self.scope().shield()
    }
}

impl<'s, 'env, E: CancelAware> Nursery<'s, 'env, E, Shared> {
    /// Starts a child, which runs beside the body and its siblings, from the next turn on (R65).
    ///
    /// The child may borrow what lives outside of the nursery, without `'static` or `Arc`. Its value comes out of the handle; its
    /// error goes to the nursery, which is then cancelled and returns it (R58). A panic does the same (N9). Into a nursery that is
    /// cancelled a child may be spawned too: it runs up to its first operation (R63).
    ///
    /// # Panics
    /// Never. In a nursery that is being dropped the child is dropped at once (R64).
    ///
    /// # Examples
    /// ```
    /// # trefoil_nursery::doc_run(async {
    /// use trefoil_nursery::{nursery, Cancelled};
    /// let names = vec!["clover".to_string(), "ivy".to_string()];
    /// let total = nursery(async |n| -> Result<usize, Cancelled> {
    ///     let lengths: Vec<_> = names.iter().map(|name| n.spawn(async move { Ok(name.len()) })).collect();
    ///     let mut total = 0;
    ///     for length in lengths {
    ///         total += length.await?;
    ///     }
    ///     Ok(total)
    /// })
    /// .await;
    /// assert_eq!(total.unwrap(), 9);
    /// # });
    /// ```
    #[track_caller]
    pub fn spawn<B, T>(self, child: B) -> Join<'s, T>
    where
        B: Future<Output = Result<T, E>> + Send + 's,
        T: Send + 's,
    {
        self.spawn_any(child, Location::caller())
    }

    /// [`spawn`](Self::spawn), with a name: for the [task tree](trefoil_runtime::tree), instruments and logs, and for who is
    /// cancelled because the child failed. Children without a name have no room for one, and pay nothing.
    ///
    /// # Panics
    /// Never.
    ///
    /// # Examples
    /// ```
    /// # trefoil_nursery::doc_run(async {
    /// use trefoil_nursery::{nursery, sleep_forever, Cancelled};
    /// nursery(async |n| -> Result<(), Cancelled> {
    ///     for id in 0..3 {
    ///         n.spawn_named(format!("connection {id}"), sleep_forever());
    ///     }
    ///     trefoil_nursery::checkpoint().await?;
    ///     assert!(trefoil_runtime::tree().to_string().contains("task `connection 2`"));
    ///     n.cancel();
    ///     Ok(())
    /// })
    /// .await
    /// .unwrap();
    /// # });
    /// ```
    #[track_caller]
    pub fn spawn_named<B, T>(self, name: impl Into<Arc<str>>, child: B) -> Join<'s, T>
    where
        B: Future<Output = Result<T, E>> + Send + 's,
        T: Send + 's,
    {
        self.spawn_any_named(name.into(), child, Location::caller())
    }
}

impl<'s, 'env, E: CancelAware> Nursery<'s, 'env, E, Local> {
    /// Starts a child that need not be `Send`. Otherwise as for [`nursery`].
    #[track_caller]
    pub fn spawn<B, T>(self, child: B) -> Join<'s, T>
    where
        B: Future<Output = Result<T, E>> + 's,
        T: 's,
    {
        self.spawn_any(child, Location::caller())
    }

    /// Starts a child with a name that need not be `Send`.
    #[track_caller]
    pub fn spawn_named<B, T>(self, name: impl Into<Arc<str>>, child: B) -> Join<'s, T>
    where
        B: Future<Output = Result<T, E>> + 's,
        T: 's,
    {
        self.spawn_any_named(name.into(), child, Location::caller())
    }
}

impl<'s, E: CancelAware, M> Nursery<'s, '_, E, M> {
    /// The caller answers for `Send` where the marker asks for it. That `T: 's` follows from the child's bound.
    pub(crate) fn spawn_any<B, T>(self, child: B, place: &'static Location<'static>) -> Join<'s, T>
    where
        B: Future<Output = Result<T, E>> + 's,
    {
        // SAFETY: [BRAND].
        if runtime::locals_differ(unsafe { (*self.state).ready }) {
            return self.spawn_inheriting(child, place);
        }
        self.spawn_here(child, place)
    }

    /// R62. In a box: there is one kind of such children for each type of result, and not a second one of each child.
    #[cold]
    #[inline(never)]
    fn spawn_inheriting<B, T>(self, child: B, place: &'static Location<'static>) -> Join<'s, T>
    where
        B: Future<Output = Result<T, E>> + 's,
    {
        let child: Pin<Box<dyn Future<Output = Result<T, E>> + 's>> = Box::pin(child);
        self.spawn_here(runtime::Inheriting::new(child), place)
    }

    /// The child is one that lives as long as 's, as those of `spawn_any` do. (What is in a box there does, and cannot say so: the bound
    /// would be one on `E`.)
    #[inline]
    fn spawn_here<B, T>(self, child: B, place: &'static Location<'static>) -> Join<'s, T>
    where
        B: Future<Output = Result<T, E>>,
    {
        // SAFETY: [BRAND]: the queue is there. Child and value live as long as the nursery ('s), and its owner polls and drops them on
        // its thread; where that may be another thread than this, the caller has asked for `Send`.
        Join::new(unsafe { Ready::spawn((*self.state).ready, child, ToNursery(PhantomData), place) })
    }

    /// As [`spawn_any`](Self::spawn_any). In a box always, so that there are not two kinds of cell for each child.
    #[cold]
    pub(crate) fn spawn_any_named<B, T>(
        self,
        name: Arc<str>,
        child: B,
        place: &'static Location<'static>,
    ) -> Join<'s, T>
    where
        B: Future<Output = Result<T, E>> + 's,
    {
        let child: Pin<Box<dyn Future<Output = Result<T, E>> + 's>> = Box::pin(child);
        self.spawn_here_called(name, child, place)
    }

    /// As [`spawn_any`](Self::spawn_any), for what says its name when it is asked.
    pub(crate) fn spawn_any_called<B, T>(
        self,
        name: impl Name + 'static,
        child: B,
        place: &'static Location<'static>,
    ) -> Join<'s, T>
    where
        B: Future<Output = Result<T, E>> + 's,
    {
        self.spawn_here_called(name, child, place)
    }

    /// As [`spawn_here`](Self::spawn_here).
    fn spawn_here_called<B, T>(
        self,
        name: impl Name + 'static,
        child: B,
        place: &'static Location<'static>,
    ) -> Join<'s, T>
    where
        B: Future<Output = Result<T, E>>,
    {
        let to = NamedToNursery { to: ToNursery(PhantomData), name };
        // SAFETY: [BRAND]: the queue is there.
        let ready = unsafe { (*self.state).ready };
        if runtime::locals_differ(ready) {
            // SAFETY: as in `spawn_here`.
            return Join::new(unsafe { Ready::spawn(ready, runtime::Inheriting::new(Box::pin(child)), to, place) });
        }
        // SAFETY: as above.
        Join::new(unsafe { Ready::spawn(ready, child, to, place) })
    }
}

/// Opens a nursery around a body, and ends when the body and every child have ended.
///
/// The value is the body's. If the body or a child fails, the nursery is cancelled, everything in it is awaited, and all errors come
/// out as one [`ErrorGroup`]. The children are `Send`, and so is the future; see [`local_nursery`] for those that are not.
///
/// Children borrow what was declared before the nursery, not locals of the body:
///
/// ```compile_fail,E0373
/// # async fn f() -> Result<(), trefoil_nursery::ErrorGroup<trefoil_nursery::Cancelled>> {
/// trefoil_nursery::nursery(async |n| {
///     let local = 1;
///     n.spawn(async { Ok(local) });
///     Ok(())
/// }).await
/// # }
/// ```
/// The handle cannot escape:
/// ```compile_fail
/// # async fn f() -> Result<(), trefoil_nursery::ErrorGroup<trefoil_nursery::Cancelled>> {
/// let mut outside = None;
/// trefoil_nursery::nursery(async |n| {
///     outside = Some(n);
///     Ok(())
/// }).await
/// # }
/// ```
/// Children are `Send`:
/// ```compile_fail,E0277
/// # async fn f() -> Result<(), trefoil_nursery::ErrorGroup<trefoil_nursery::Cancelled>> {
/// let rc = std::rc::Rc::new(1);
/// trefoil_nursery::nursery(async |n| {
///     n.spawn(async { Ok(*rc) });
///     Ok(())
/// }).await
/// # }
/// ```
/// Two children cannot both have a unique borrow of one local:
/// ```compile_fail,E0499
/// # async fn f() -> Result<(), trefoil_nursery::ErrorGroup<trefoil_nursery::Cancelled>> {
/// let mut log = vec![];
/// trefoil_nursery::nursery(async |n| {
///     n.spawn(async { log.push(1); Ok(()) });
///     n.spawn(async { log.push(2); Ok(()) });
///     Ok(())
/// }).await
/// # }
/// ```
///
/// # Errors
/// Every error of the body and of the children, in the order in which they ended (R59). Where the nursery was cancelled by itself and
/// its body has no value because of that, a group that [is a cancellation](CancelAware::is_cancelled);
/// [`or_cancelled`](Open::or_cancelled) tells this case apart.
///
/// # Cancellation
/// Reaches body and children; the nursery ends when all of them have (R57). It is not itself a cancel point (R56).
///
/// # Panics
/// With the panic of the body or of a child, after the others have been cancelled and awaited (N9). Outside of a run.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::{nursery, sleep};
/// use std::time::Duration;
///
/// let (mut left, mut right) = (vec![], vec![]);
/// nursery(async |n| -> std::io::Result<()> {
///     n.spawn(async { left.push(1); Ok(()) });
///     n.spawn(async { sleep(Duration::from_millis(1)).await?; right.push(2); Ok(()) });
///     Ok(())
/// })
/// .await?;
/// left.append(&mut right);
/// assert_eq!(left, [1, 2]);
/// # Ok::<(), std::io::Error>(()) }).unwrap();
/// ```
#[track_caller]
pub fn nursery<'env, F, B, T, E>(body: F) -> Open<'env, B, E, Shared>
where
    F: for<'s> AsyncFnOnce(Nursery<'s, 'env, E>) -> Result<T, E>,
    F: FnOnce(Nursery<'env, 'env, E>) -> B,
    B: Future<Output = Result<T, E>>,
    E: CancelAware,
{
    Open::new(body, Location::caller())
}

/// Opens a nursery whose children need not be `Send`, and whose future is not. Otherwise as [`nursery`].
///
/// ```compile_fail,E0277
/// # fn need_send<T: Send>(_: T) {}
/// need_send(trefoil_nursery::local_nursery(async |_| Ok::<(), trefoil_nursery::Cancelled>(())));
/// ```
///
/// # Errors
/// As for [`nursery`].
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use std::{cell::Cell, rc::Rc};
/// use trefoil_nursery::{checkpoint, local_nursery, Cancelled};
/// let (step, total) = (Rc::new(5), Cell::new(0));
/// local_nursery(async |n| -> Result<(), Cancelled> {
///     for _ in 0..3 {
///         n.spawn(async { checkpoint().await?; total.set(total.get() + *step); Ok(()) });
///     }
///     Ok(())
/// })
/// .await
/// .unwrap();
/// assert_eq!(total.get(), 15);
/// # });
/// ```
#[track_caller]
pub fn local_nursery<'env, F, B, T, E>(body: F) -> Open<'env, B, E, Local>
where
    F: for<'s> AsyncFnOnce(Nursery<'s, 'env, E, Local>) -> Result<T, E>,
    F: FnOnce(Nursery<'env, 'env, E, Local>) -> B,
    B: Future<Output = Result<T, E>>,
    E: CancelAware,
{
    Open::new(body, Location::caller())
}

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
    /// How many turns on end there was work left.
    busy: u8,
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
            errors: RefCell::new(Vec::new()),
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
            busy: 0,
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
            return Poll::Pending;
        }
        assert!(!this.done, "a nursery was polled after it had ended");
        if !this.entry.is_linked() {
            // R56: a nursery whose body does not wait is a schedule point, too (N11). Given up before it begins, as for operations.
            ready!(runtime::poll_budget(cx));
        }
        this.entry.enter(cx);
        // SAFETY: the state is in a box that lives as long as this future.
        let state = unsafe { &*this.state.0.as_ptr() };
        let mut turns = runtime::TURNS;
        loop {
            if !state.scope.is_cancelled() {
                this.told = false;
            } else if !std::mem::replace(&mut this.told, true) {
                this.ready.schedule_all();
            }
            let (body, value, place) = (&mut this.body, &mut this.value, this.place);
            let who = Who { name: None, place, body: true };
            let mut body_done = false;
            this.ready.run_batch(&state.scope, cx, |cx| {
                // SAFETY: pinned with the nursery.
                let mut body = unsafe { Pin::new_unchecked(&mut *body) };
                let Some(future) = body.as_mut().as_pin_mut() else { return };
                match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
                    Ok(Poll::Pending) => return,
                    Ok(Poll::Ready(Ok(result))) => *value = Some(Ok(result)),
                    Ok(Poll::Ready(Err(error))) => state.fail(error, who),
                    Err(payload) => state.panicked(payload, who),
                }
                body_done = true;
                if let Err(payload) = catch_unwind(AssertUnwindSafe(|| body.set(None))) {
                    state.panicked(payload, who);
                }
            });
            if body_done {
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
                if !this.ready.has_work() {
                    this.busy = 0;
                    return Poll::Pending;
                }
                this.busy = this.busy.saturating_add(1);
                if this.busy > runtime::BUSY && this.ready.takes_turn(cx, &mut turns) {
                    continue;
                }
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !this.ready.has_work() {
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
                result.as_ref().err().into_iter().flat_map(ErrorGroup::iter).filter(|error| !error.is_cancelled())
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
        let mut errors = state.errors.take();
        if let Some(payload) = state.payload.take() {
            for error in errors {
                trefoil_runtime::report_error!(nursery = %state.scope.who(), "an error beside the panic that ends its nursery: {error:?}");
            }
            resume_unwind(payload);
        }
        if state.cut.get() {
            errors.push(Cancelled::delivered().into());
        }
        if absorbs {
            // R24, R27: this scope is the one that was cancelled.
            let mut kept = Vec::new();
            for (at, error) in errors.into_iter().enumerate() {
                if state.made_up.get() == Some(at) {
                    kept.push(error);
                    continue;
                }
                if error.has_cancelled() {
                    self.entry.caught();
                }
                kept.extend(error.without_cancelled());
            }
            errors = kept;
        } else {
            // One is enough to travel on.
            let mut seen = false;
            errors.retain(|error| !error.is_cancelled() || !std::mem::replace(&mut seen, true));
        }
        match ErrorGroup::new(errors) {
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
        if self.ready.live() > 0 {
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
        for error in state.errors.take() {
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
