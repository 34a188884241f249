//! The handle of a nursery: how children are spawned into it, and how it is cancelled.

use super::child::{Name, NamedToNursery, ToNursery};
use super::state::State;
use super::{Invariant, Local, Parts, Shared};
use crate::join::Join;
use crate::service::Services;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use trefoil_runtime::{self as runtime, CancelAware, Ready, Scope, Source};

/// The handle of a nursery: copy it, pass it to functions and children. It cannot leave the nursery.
pub struct Nursery<'s, 'env: 's, E, M = Shared> {
    pub(super) state: *const State<E>,
    pub(super) _s: Invariant<'s>,
    pub(super) _env: Invariant<'env>,
    pub(super) _marker: PhantomData<fn(E) -> M>,
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

    /// Cancels everything in the nursery, body and children: each operation in it returns [`Cancelled`](trefoil_runtime::Cancelled). Returns at once; the
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

    /// [`spawn`](Self::spawn), with a name: for the [error](trefoil_runtime::ErrorGroup::failures) that it may end with, the [task
    /// tree](trefoil_runtime::tree), instruments and logs, and for who is cancelled because the child failed. Children without a name have no room for
    /// one, and pay nothing.
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
    /// Starts a child that need not be `Send`. Otherwise as for [`nursery`](crate::nursery()).
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
        // SAFETY: [BRAND].
        if runtime::locals_differ(unsafe { (*self.state).ready }) {
            return self.spawn_here_called(name, runtime::Inheriting::new(child), place);
        }
        self.spawn_here_called(name, child, place)
    }

    /// The one or the other.
    pub(crate) fn spawn_perhaps_named<B, T>(
        self,
        name: Option<Arc<str>>,
        child: B,
        place: &'static Location<'static>,
    ) -> Join<'s, T>
    where
        B: Future<Output = Result<T, E>> + 's,
    {
        match name {
            None => self.spawn_any(child, place),
            Some(name) => self.spawn_any_named(name, child, place),
        }
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
        // SAFETY: [BRAND].
        if runtime::locals_differ(unsafe { (*self.state).ready }) {
            let child: Pin<Box<dyn Future<Output = Result<T, E>> + 's>> = Box::pin(child);
            return self.spawn_here_called(name, runtime::Inheriting::new(child), place);
        }
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
        // SAFETY: as in `spawn_here`.
        Join::new(unsafe { Ready::spawn((*self.state).ready, child, to, place) })
    }
}
