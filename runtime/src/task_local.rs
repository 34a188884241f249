//! Task-locals: values that all code below a future sees, and that children inherit from who spawns them (R62).
//!
//! The values in force are an immutable list, newest first. The thread-local context points to its first node while a future in a
//! [`TaskLocal::scope`] is polled or dropped; the futures own the nodes. No key is in a list twice: setting one again copies what is above the
//! older value. So a list is as long as the program has task-locals, whatever is spawned from where.
//!
//! A child is polled where its nursery is, and sees what is in force there; of itself it holds nothing. Only where the spawner sees something
//! else is the child wrapped in a future that puts the spawner's list in force ([`inherited`]).
//!
//! - **\[CURRENT\]** of the context module: the list that is in force is owned by a future that is being polled or dropped further up on this
//!   thread's stack, which takes it back before it goes away.

use crate::context::{self, InForce};
use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A list of values: one, and those that were set before it.
pub(crate) struct Node {
    key: usize,
    value: Arc<dyn Any + Send + Sync>,
    rest: List,
}

type List = Option<Arc<Node>>;

fn same(a: &List, b: *const Node) -> bool {
    std::ptr::eq(a.as_ref().map_or(std::ptr::null(), Arc::as_ptr), b)
}

/// The list in force.
fn current() -> List {
    let list = context::locals();
    // SAFETY: [CURRENT]: it comes from an `Arc`, which is there.
    (!list.is_null()).then(|| unsafe {
        Arc::increment_strong_count(list);
        Arc::from_raw(list)
    })
}

/// The list without a key: nothing is copied where it has none.
fn without(list: &List, key: usize) -> List {
    let mut above = Vec::new();
    let mut at = list;
    while let Some(node) = at {
        if node.key == key {
            let push = |rest, node: &Arc<Node>| Some(Arc::new(Node { key: node.key, value: node.value.clone(), rest }));
            return above.into_iter().rev().fold(node.rest.clone(), push);
        }
        above.push(node);
        at = &node.rest;
    }
    list.clone()
}

/// A task-local that is not set where it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskLocalError {
    name: &'static str,
}

impl fmt::Display for TaskLocalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the task-local {} is not set here: it is set in what runs inside of its `scope`", self.name)
    }
}

impl std::error::Error for TaskLocalError {}

/// A value that a future, and every task below it, finds without being given it: a request's id, a user, a logger. Declared with
/// [`task_local!`](crate::task_local).
///
/// A task inherits from **who spawns it** (R62), not from where its nursery was opened: unlike its scope, which is that of the nursery. The
/// value is shared and not copied, so it is `Send + Sync`; it is dropped when the last future that has it is gone. For a value that changes,
/// use one with a lock or an atomic in it.
///
/// Where no value is set, neither a spawn nor a poll costs more than a load. A child whose values are not those of its nursery costs one
/// allocation more than others.
///
/// ```compile_fail,E0599
/// trefoil_runtime::task_local!(static SHARED: std::rc::Rc<u8>);
/// let _ = SHARED.scope(std::rc::Rc::new(1), async {});
/// ```
///
/// # Examples
/// ```
/// # trefoil_runtime::doc_run(async {
/// trefoil_runtime::task_local! {
///     /// The request that is worked on.
///     static REQUEST: u64;
/// }
///
/// async fn log(what: &str) -> String {
///     match REQUEST.try_with(|id| format!("[{id}] {what}")) {
///         Ok(line) => line,
///         Err(_) => what.to_string(),
///     }
/// }
///
/// assert_eq!(log("starts").await, "starts");
/// REQUEST
///     .scope(7, async {
///         assert_eq!(log("comes").await, "[7] comes");
///         assert_eq!(REQUEST.scope(8, log("nested")).await, "[8] nested");
///         assert_eq!(REQUEST.get(), 7);
///     })
///     .await;
/// # });
/// ```
pub struct TaskLocal<T: 'static> {
    name: &'static str,
    _value: std::marker::PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for TaskLocal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskLocal({})", self.name)
    }
}

impl<T: Send + Sync + 'static> TaskLocal<T> {
    #[doc(hidden)]
    pub const fn new(name: &'static str) -> Self {
        Self { name, _value: std::marker::PhantomData }
    }

    /// What the values of this task-local are found by: statics have addresses of their own.
    fn key(&'static self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Runs a future with a value: all code in it finds that, also in its `Drop`, and so do the children that are spawned in it.
    ///
    /// The value is set while the future is polled or dropped, and the one before is back afterwards, on panics too. Values of other
    /// task-locals stay as they are around it. It needs no run: it works on any executor.
    pub fn scope<F: Future>(&'static self, value: T, future: F) -> TaskLocalScope<F> {
        TaskLocalScope { future: Some(future), key: self.key(), value: Arc::new(value), lists: None }
    }

    /// Calls a function with a value: all code in it finds that, and so do the children that it spawns.
    ///
    /// # Examples
    /// ```
    /// trefoil_runtime::task_local!(static REQUEST: u64);
    /// assert_eq!(REQUEST.sync_scope(7, || REQUEST.get()), 7);
    /// ```
    pub fn sync_scope<R>(&'static self, value: T, f: impl FnOnce() -> R) -> R {
        let (key, rest) = (self.key(), without(&current(), self.key()));
        let list = Arc::new(Node { key, value: Arc::new(value), rest });
        // SAFETY: it is dropped after the guard.
        let _in_force = unsafe { InForce::new(Arc::as_ptr(&list)) };
        f()
    }

    /// Calls `f` with the value.
    ///
    /// # Errors
    /// [`TaskLocalError`] where it is not set.
    pub fn try_with<R>(&'static self, f: impl FnOnce(&T) -> R) -> Result<R, TaskLocalError> {
        let key = self.key();
        // SAFETY: [CURRENT]: nobody takes it back before `f` returns.
        let mut list = unsafe { context::locals().as_ref() };
        while let Some(node) = list {
            if node.key == key {
                let value = node.value.downcast_ref().expect("the values of a static are of its type");
                return Ok(f(value));
            }
            list = node.rest.as_deref();
        }
        Err(TaskLocalError { name: self.name })
    }

    /// Calls `f` with the value.
    ///
    /// # Panics
    /// Where it is not set.
    #[track_caller]
    pub fn with<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        let mut f = Some(f);
        match self.try_with(|value| (f.take().expect("it is called once"))(value)) {
            Ok(result) => result,
            Err(error) => panic!("{error}"),
        }
    }

    /// A clone of the value.
    ///
    /// # Panics
    /// Where it is not set.
    #[track_caller]
    pub fn get(&'static self) -> T
    where
        T: Clone,
    {
        self.with(T::clone)
    }
}

/// Declares task-locals: `static NAME: Type;`, as many as wanted, with attributes and visibility. See [`TaskLocal`](crate::TaskLocal).
///
/// There is no initial value: it is set by [`TaskLocal::scope`](crate::TaskLocal::scope).
///
/// # Examples
/// ```
/// trefoil_runtime::task_local! {
///     /// Who asks.
///     pub static USER: String;
///     static DEPTH: usize;
/// }
/// # assert!(USER.try_with(|_| ()).is_err() && DEPTH.try_with(|_| ()).is_err());
/// ```
#[macro_export]
macro_rules! task_local {
    ($($(#[$attribute:meta])* $visibility:vis static $name:ident: $value:ty);* $(;)?) => {$(
        $(#[$attribute])*
        $visibility static $name: $crate::TaskLocal<$value> = $crate::TaskLocal::new(stringify!($name));
    )*};
}

/// A future with a task-local: see [`TaskLocal::scope`].
#[must_use = "a future does nothing until it is awaited"]
pub struct TaskLocalScope<F> {
    future: Option<F>,
    key: usize,
    value: Arc<dyn Any + Send + Sync>,
    /// The list in force when it was polled last, and that with the value.
    lists: Option<(List, Arc<Node>)>,
}

impl<F> fmt::Debug for TaskLocalScope<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TaskLocalScope")
    }
}

impl<F> TaskLocalScope<F> {
    /// The list with the value, above what is in force here: a future that is moved belongs to where it is polled.
    fn list(lists: &mut Option<(List, Arc<Node>)>, key: usize, value: &Arc<dyn Any + Send + Sync>) -> *const Node {
        match lists {
            Some((around, list)) if same(around, context::locals()) => Arc::as_ptr(list),
            _ => {
                let around = current();
                let list = Arc::new(Node { key, value: value.clone(), rest: without(&around, key) });
                Arc::as_ptr(&lists.insert((around, list)).1)
            }
        }
    }
}

impl<F: Future> Future for TaskLocalScope<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: the future is pinned, and only set to `None`, in place; nothing else is.
        let this = unsafe { self.get_unchecked_mut() };
        let list = Self::list(&mut this.lists, this.key, &this.value);
        // SAFETY: as above.
        let mut future = unsafe { Pin::new_unchecked(&mut this.future) };
        // SAFETY: the list is in `lists`, which nobody touches before this returns.
        let _in_force = unsafe { InForce::new(list) };
        let output = std::task::ready!(future.as_mut().as_pin_mut().expect("polled after it was ready").poll(cx));
        future.set(None);
        Poll::Ready(output)
    }
}

impl<F> Drop for TaskLocalScope<F> {
    fn drop(&mut self) {
        if self.future.is_some() {
            let list = Self::list(&mut self.lists, self.key, &self.value);
            // SAFETY: as in `poll`.
            let _in_force = unsafe { InForce::new(list) };
            // SAFETY: pinned with this, and dropped in place.
            unsafe { Pin::new_unchecked(&mut self.future) }.set(None);
        }
    }
}

/// A future that keeps the task-locals of who made it, wherever it is polled.
#[derive(Debug)]
pub struct Inheriting<F: Unpin> {
    future: Option<F>,
    list: Inherited,
}

struct Inherited(List);

impl fmt::Debug for Inherited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inherited")
    }
}

impl Inherited {
    fn as_ptr(&self) -> *const Node {
        self.0.as_ref().map_or(std::ptr::null(), Arc::as_ptr)
    }
}

impl<F: Unpin> Inheriting<F> {
    /// With the task-locals that are in force here.
    pub fn new(future: F) -> Self {
        Self { future: Some(future), list: Inherited(current()) }
    }
}

impl<F: Future + Unpin> Future for Inheriting<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        // SAFETY: the list is `self`'s, and never changed.
        let _in_force = unsafe { InForce::new(this.list.as_ptr()) };
        let output = std::task::ready!(Pin::new(this.future.as_mut().expect("polled after it was ready")).poll(cx));
        this.future = None;
        Poll::Ready(output)
    }
}

impl<F: Unpin> Drop for Inheriting<F> {
    fn drop(&mut self) {
        // SAFETY: as in `poll`.
        let _in_force = unsafe { InForce::new(self.list.as_ptr()) };
        self.future = None;
    }
}
