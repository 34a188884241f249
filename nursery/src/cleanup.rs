//! [`with_cleanup`]: clean-up that is said where it becomes necessary, and runs at the end, last first.
//!
//! The clean-ups are a stack of boxed futures that the future of the block owns, and that the handle points to weakly: a clean-up that
//! holds a handle, to defer more, does not keep itself alive. As with a nursery, the handle is branded with a lifetime, so that it
//! cannot leave the block.

use crate::branches::{cancelled_here, lock};
use crate::nursery::{Local, Shared, message};
use crate::scope::{in_own_scope, shield_for_at};
use crate::unseen::Unseen;
use std::fmt;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, Weak};
use std::task::Poll;
use std::time::Duration;
use trefoil_runtime::{self as runtime, CancelAware, Cancelled, ErrorGroup, FailedBy, Failure, Payload, TimedOut};

/// Whether clean-ups are `Send`.
pub trait Mode: Sealed {
    /// A clean-up.
    type Boxed<'s, E>: Future<Output = Result<(), E>> + Unpin;
}

#[doc(hidden)]
pub trait Sealed {}
impl Sealed for Shared {}
impl Sealed for Local {}

impl Mode for Shared {
    type Boxed<'s, E> = Pin<Box<dyn Future<Output = Result<(), E>> + Send + 's>>;
}

impl Mode for Local {
    type Boxed<'s, E> = Pin<Box<dyn Future<Output = Result<(), E>> + 's>>;
}

/// What is to be done at the end, with the place where that was said.
struct Stack<C> {
    clean_ups: Mutex<Vec<(C, &'static Location<'static>)>>,
}

impl<C> Stack<C> {
    fn pop(&self) -> Option<(C, &'static Location<'static>)> {
        lock(&self.clean_ups).pop()
    }
}

impl<C> Drop for Stack<C> {
    fn drop(&mut self) {
        // N12: nobody can run them any more.
        while let Some((clean_up, place)) = self.pop() {
            trefoil_runtime::report_warn!(clean_up = %place, "a clean-up is dropped and does not run, since what it belongs to was dropped; cancel that and await it instead");
            drop(clean_up);
        }
    }
}

/// The handle of a [`with_cleanup`]: clone it, pass it to functions, children and clean-ups. It cannot leave the block.
pub struct Cleanup<'s, 'env: 's, E, M: Mode = Shared> {
    stack: Weak<Stack<M::Boxed<'s, E>>>,
    _env: PhantomData<fn(&'env ()) -> &'env ()>,
}

impl<E, M: Mode> Clone for Cleanup<'_, '_, E, M> {
    fn clone(&self) -> Self {
        Self { stack: self.stack.clone(), _env: PhantomData }
    }
}

impl<E, M: Mode> fmt::Debug for Cleanup<'_, '_, E, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.stack.upgrade().map_or(0, |stack| lock(&stack.clean_ups).len());
        f.debug_struct("Cleanup").field("deferred", &waiting).finish()
    }
}

impl<'s, E> Cleanup<'s, '_, E, Shared> {
    /// Has a future run at the end of the block, before those that were deferred earlier. See [`with_cleanup`].
    #[track_caller]
    pub fn defer<F>(&self, clean_up: F)
    where
        F: Future<Output = Result<(), E>> + Send + 's,
    {
        self.push(Box::pin(clean_up), Location::caller());
    }
}

impl<'s, E> Cleanup<'s, '_, E, Local> {
    /// Has a future, which need not be `Send`, run at the end of the block, before those that were deferred earlier. See
    /// [`with_cleanup`].
    #[track_caller]
    pub fn defer<F>(&self, clean_up: F)
    where
        F: Future<Output = Result<(), E>> + 's,
    {
        self.push(Box::pin(clean_up), Location::caller());
    }
}

impl<'s, E, M: Mode> Cleanup<'s, '_, E, M> {
    fn push(&self, clean_up: M::Boxed<'s, E>, place: &'static Location<'static>) {
        match self.stack.upgrade() {
            Some(stack) => lock(&stack.clean_ups).push((clean_up, place)),
            // From a destructor, while the block is dropped.
            None => drop(Stack { clean_ups: Mutex::new(vec![(clean_up, place)]) }),
        }
    }
}

/// Runs a block that says what is to be cleaned up as it goes; at its end the clean-ups run, one after the other, last first.
///
/// They run however the block ends: with a value, with an error, cancelled, or with a panic. Each is shielded from cancellation from
/// outside, and has `limit` of time; one that takes longer is cancelled, and that is an error. A clean-up that fails does not keep the others
/// from running. It may defer more, which then runs next.
///
/// A clean-up may borrow what was declared before the block. What a clean-up and the block both use goes there, or in an `Arc`.
///
/// ```compile_fail,E0373
/// # use trefoil_nursery::with_cleanup;
/// # async fn f() {
/// let _ = with_cleanup(std::time::Duration::ZERO, async |c| {
///     let local = String::new();
///     c.defer(async { println!("{local}"); Ok(()) });
///     std::io::Result::Ok(())
/// }).await;
/// # }
/// ```
/// The handle cannot escape:
/// ```compile_fail
/// # use trefoil_nursery::with_cleanup;
/// # async fn f() {
/// let mut outside = None;
/// let _ = with_cleanup(std::time::Duration::ZERO, async |c| {
///     outside = Some(c);
///     std::io::Result::Ok(())
/// }).await;
/// # }
/// ```
///
/// # Errors
/// The error of the block, then those of clean-ups in the order in which they ran, with [`TimedOut`] for one that took too long. If there is one,
/// the value of the block is dropped: what could not be cleaned up is an error.
///
/// # Cancellation
/// Reaches the block, not the clean-ups. If all of them succeed, the result is that of the block. If the future is *dropped*, clean-ups do
/// not run (N12); that is logged.
///
/// # Panics
/// With the panic of the block, or else with the first one of a clean-up, after all clean-ups have run; errors beside it are logged
/// (N9). Outside of a run.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use std::{io, sync::Mutex, time::Duration};
/// use trefoil_nursery::{sleep, with_cleanup};
/// let log = Mutex::new(vec![]);
/// let failed = with_cleanup(Duration::from_secs(5), async |c| -> io::Result<()> {
///     log.lock().unwrap().push("create");
///     c.defer(async {
///         sleep(Duration::from_millis(1)).await?; // not cancelled, whatever happens
///         log.lock().unwrap().push("remove");
///         Ok(())
///     });
///     log.lock().unwrap().push("mount");
///     c.defer(async {
///         log.lock().unwrap().push("unmount");
///         Ok(())
///     });
///     Err(io::Error::other("disk full"))
/// })
/// .await;
/// assert_eq!(failed.unwrap_err().to_string(), "disk full");
/// assert_eq!(*log.lock().unwrap(), ["create", "mount", "unmount", "remove"]);
/// # });
/// ```
#[track_caller]
pub fn with_cleanup<'env, F, B, T, E>(
    limit: Duration,
    body: F,
) -> impl Future<Output = Result<T, ErrorGroup<E>>> + use<'env, F, B, T, E>
where
    F: for<'s> AsyncFnOnce(Cleanup<'s, 'env, E>) -> Result<T, E>,
    F: FnOnce(Cleanup<'env, 'env, E>) -> B,
    B: Future<Output = Result<T, E>>,
    E: CancelAware + From<TimedOut>,
{
    let stack = Arc::new(Stack { clean_ups: Mutex::new(Vec::new()) });
    let body = body(Cleanup { stack: Arc::downgrade(&stack), _env: PhantomData });
    run(stack, body, limit, Location::caller())
}

/// The same as [`with_cleanup`], for clean-ups that need not be `Send`; its future is not.
///
/// # Errors
/// As for [`with_cleanup`].
///
/// # Cancellation
/// As for [`with_cleanup`].
///
/// # Panics
/// As for [`with_cleanup`].
#[track_caller]
pub fn local_with_cleanup<'env, F, B, T, E>(
    limit: Duration,
    body: F,
) -> impl Future<Output = Result<T, ErrorGroup<E>>> + use<'env, F, B, T, E>
where
    F: for<'s> AsyncFnOnce(Cleanup<'s, 'env, E, Local>) -> Result<T, E>,
    F: FnOnce(Cleanup<'env, 'env, E, Local>) -> B,
    B: Future<Output = Result<T, E>>,
    E: CancelAware + From<TimedOut>,
{
    let stack = Arc::new(Stack { clean_ups: Mutex::new(Vec::new()) });
    let body = body(Cleanup { stack: Arc::downgrade(&stack), _env: PhantomData });
    run(stack, body, limit, Location::caller())
}

async fn run<C, B, T, E>(
    stack: Arc<Stack<C>>,
    body: B,
    limit: Duration,
    place: &'static Location<'static>,
) -> Result<T, ErrorGroup<E>>
where
    C: Future<Output = Result<(), E>>,
    B: Future<Output = Result<T, E>>,
    E: CancelAware + From<TimedOut>,
{
    let (mut unseen, mut value, mut cut) = (Unseen::new(place), None, false);
    // In a scope of its own: if it is dropped there because it cannot be told (N13), the clean-ups are not.
    let (output, panicked) = attempt(in_own_scope(body, place), place).await;
    match output {
        Some(Some(Ok(output))) => value = Some(output),
        Some(Some(Err(error))) => unseen.errors.push(Failure::of(error, || FailedBy::Body(place))),
        Some(None) => {
            cut = true;
            unseen.errors.push(Cancelled::delivered().into());
        }
        None => {}
    }
    keep(&mut unseen.payload, panicked, place);
    while let Some((clean_up, place)) = stack.pop() {
        let (output, panicked) = attempt(shield_for_at(limit, clean_up, place), place).await;
        match output {
            Some(Ok(Some(()))) | None => {}
            Some(Ok(None)) => unseen.errors.push(Failure::new(TimedOut::new().into(), FailedBy::CleanUp(place))),
            Some(Err(error)) => unseen.errors.push(Failure::of(error, || FailedBy::CleanUp(place))),
        }
        keep(&mut unseen.payload, panicked, place);
    }
    let (errors, payload) = unseen.take();
    if let Some(payload) = payload {
        // N9, N14: as in a nursery.
        for error in errors.iter().filter(|error| !(error.is_cancelled() && cancelled_here())) {
            trefoil_runtime::report_error!(block = %place, "an error beside the panic that ends its block: {error:?}");
        }
        resume_unwind(payload);
    }
    // What was cut did not count as told (N13 b).
    if cut && runtime::poll_cancelled(place).is_pending() {
        for error in errors.iter().filter(|error| !error.is_cancelled()) {
            trefoil_runtime::report_error!(block = %place, "an error of a block whose task is dropped: {error:?}");
        }
        // Who awaits it outside of the scope in which too much was swallowed is told: there it would be dropped by nobody.
        poll_fn(|_| runtime::poll_cancelled(place)).await;
    }
    match (ErrorGroup::from_failures(errors), value) {
        (None, Some(value)) => Ok(value),
        (Some(group), _) => Err(group),
        (None, None) => unreachable!("a block without a value has an error or a panic"),
    }
}

/// Keeps the first panic; one after it is logged.
fn keep(first: &mut Option<Payload>, panicked: Option<Payload>, place: &'static Location<'static>) {
    match panicked {
        Some(payload) if first.is_some() => {
            trefoil_runtime::report_error!(at = %place, "a panic while another panic waits for clean-ups: {}", message(&payload));
            runtime::discard(payload);
        }
        Some(payload) => *first = Some(payload),
        None => {}
    }
}

/// Runs a future to its end and drops it: its output, and what it or its destructor panicked with.
async fn attempt<F: Future>(future: F, place: &'static Location<'static>) -> (Option<F::Output>, Option<Payload>) {
    let mut future = pin!(Some(future));
    let polled = poll_fn(|cx| {
        let future = future.as_mut().as_pin_mut().expect("it is there until it is over");
        match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready((Some(output), None)),
            Err(payload) => Poll::Ready((None, Some(payload))),
        }
    })
    .await;
    let (output, mut payload) = polled;
    if let Err(dropped) = catch_unwind(AssertUnwindSafe(|| future.set(None))) {
        keep(&mut payload, Some(dropped), place);
    }
    (output, payload)
}
