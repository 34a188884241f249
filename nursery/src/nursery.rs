//! Nurseries: the only place where tasks come from, and where every one of them ends.
//!
//! A nursery is a future that polls a body and the children that were spawned into it, all inside the task that awaits it. That
//! is what lets children borrow the frame of the enclosing function: when the nursery is dropped, or ends, they are gone.
//!
//! - **\[BRAND\]** The handle carries the lifetime `'s`, for which the body was checked for *any* `'s`: so neither the handle nor a child
//!   or join handle that mentions `'s` can leave the body or outlive the nursery. The state that the handle points to is owned by
//!   the nursery's future and freed after body and children.
//! - **\[OWNER\]** `errors`, `payload` and `cut` are touched by the thread that polls or drops the nursery's future, only: children call
//!   [`Outcome`](trefoil_runtime::Outcome) from inside of their own poll or drop, which is the nursery's.

mod child;
mod handle;
mod open;
mod state;

pub(crate) use child::Name;
pub use handle::Nursery;
pub use open::{Open, OrCancelled};
pub(crate) use state::message;

use std::future::Future;
use std::marker::PhantomData;
use std::panic::Location;
use std::rc::Rc;
use trefoil_runtime::CancelAware;

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

/// Opens a nursery around a body, and ends when the body and every child have ended.
///
/// The value is the body's. If the body or a child fails, the nursery is cancelled, everything in it is awaited, and all errors come
/// out as one [`ErrorGroup`](trefoil_runtime::ErrorGroup). The children are `Send`, and so is the future; see [`local_nursery`] for those that are not.
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
#[doc(alias("JoinSet", "TaskTracker", "TaskGroup", "spawn"))]
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
#[doc(alias("LocalSet", "spawn_local"))]
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
