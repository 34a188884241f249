//! [`gather`]: several results, in the order of the arguments.

use super::awaitable::{Awaitable, Ensured};
use super::future::{AnyFuture, Future, Kind, Message};
use super::here;
use std::cell::Cell;
use std::collections::HashSet;
use std::panic::Location;
use std::rc::Rc;
use trefoil_runtime::{CancelAware, Cancelled};

/// One of those that are gathered, as the one that gathers with errors `E` sees it.
trait Child<E> {
    fn any(&self) -> Rc<dyn AnyFuture>;
    /// What tells it from others; `None` for one of which there is no other handle.
    fn key(&self) -> Option<*const ()>;
    fn done(&self) -> bool;
    fn cancelled(&self) -> bool;
    /// The error of one that failed.
    fn error(&self) -> Option<E>;
    fn on_done(&self, function: Box<dyn FnOnce()>);
}

impl<T: 'static, D: CancelAware + Into<E> + 'static, E> Child<E> for Ensured<T, D> {
    fn any(&self) -> Rc<dyn AnyFuture> {
        self.future.any()
    }

    fn key(&self) -> Option<*const ()> {
        (!self.new).then(|| self.future.key())
    }

    fn done(&self) -> bool {
        self.future.done()
    }

    fn cancelled(&self) -> bool {
        self.future.cancelled()
    }

    fn error(&self) -> Option<E> {
        if !self.future.failed_unseen() {
            return None;
        }
        self.outcome().err().map(Into::into)
    }

    fn on_done(&self, function: Box<dyn FnOnce()>) {
        self.future.on_done(here::running(), Box::new(move |_| function()));
    }
}

impl<E> Child<E> for Box<dyn Child<E>> {
    fn any(&self) -> Rc<dyn AnyFuture> {
        (**self).any()
    }

    fn key(&self) -> Option<*const ()> {
        (**self).key()
    }

    fn done(&self) -> bool {
        (**self).done()
    }

    fn cancelled(&self) -> bool {
        (**self).cancelled()
    }

    fn error(&self) -> Option<E> {
        (**self).error()
    }

    fn on_done(&self, function: Box<dyn FnOnce()>) {
        (**self).on_done(function);
    }
}

/// What those that are gathered share.
struct Gathering<C, E, K> {
    children: Vec<C>,
    /// How many of them are different ones (G3).
    different: usize,
    finished: Cell<usize>,
    cancel_requested: Cell<bool>,
    /// An error is a value (G8).
    settle: bool,
    /// Makes the result of those that are done.
    collect: K,
    _error: std::marker::PhantomData<fn() -> E>,
}

impl<C: Child<E>, E: CancelAware + 'static, K> Gathering<C, E, K> {
    /// A child is done.
    fn child_done<R>(&self, child: &C, outer: Option<&Future<R, E>>)
    where
        K: Fn(&[C]) -> R,
    {
        self.finished.set(self.finished.get() + 1);
        // G7: what fails now is not looked at here. So it is reported when the last handle of it goes (D-3).
        let Some(outer) = outer.filter(|outer| !outer.done()) else { return };
        if !self.settle {
            if child.cancelled() {
                // G9: it ends with that as with an error, and is not cancelled.
                _ = outer.finish(Err(Cancelled::delivered().into()));
                return;
            }
            if let Some(error) = child.error() {
                _ = outer.finish(Err(error));
                return;
            }
        }
        if self.finished.get() == self.different {
            let results = if self.cancel_requested.get() {
                // G11.
                Err(Cancelled::delivered().into())
            } else {
                Ok((self.collect)(&self.children))
            };
            _ = outer.finish(results);
        }
    }

    /// G10: whether one of them took it.
    fn cancel(&self, message: &Message) -> bool {
        let mut accepted = false;
        for child in &self.children {
            accepted |= child.any().cancel(message.clone());
        }
        if accepted {
            self.cancel_requested.set(true);
        }
        accepted
    }
}

fn start<C, R, E, K>(children: Vec<C>, settle: bool, collect: K, place: &'static Location<'static>) -> Future<R, E>
where
    C: Child<E> + 'static,
    K: Fn(&[C]) -> R + 'static,
    R: 'static,
    E: CancelAware + 'static,
{
    if children.is_empty() {
        // G4.
        let outer = Future::new(Kind::Plain, place);
        _ = outer.finish(Ok(collect(&children)));
        return outer;
    }
    let mut seen = HashSet::new();
    let first: Vec<usize> =
        (0..children.len()).filter(|at| children[*at].key().is_none_or(|key| seen.insert(key))).collect();
    let gathering = Rc::new(Gathering {
        children,
        different: first.len(),
        finished: Cell::new(0),
        cancel_requested: Cell::new(false),
        settle,
        collect,
        _error: std::marker::PhantomData,
    });
    let asked = gathering.clone();
    let outer: Future<R, E> = Future::new(
        Kind::Asks("several tasks or futures of asyncio", Box::new(move |message| asked.cancel(&message))),
        place,
    );
    let mut done = Vec::new();
    for at in first {
        let child = &gathering.children[at];
        if child.done() {
            done.push(at);
            continue;
        }
        let (gathering, told) = (gathering.clone(), outer.told());
        child.on_done(Box::new(move || {
            gathering.child_done(&gathering.children[at], told.call().as_ref());
        }));
    }
    // G18: where all are done there is no turn to wait for.
    for at in done {
        gathering.child_done(&gathering.children[at], Some(&outer));
    }
    outer
}

/// Waits for several at once: their results in the order of the arguments (G1). Async blocks become tasks.
///
/// The future that is returned need not be awaited for them to run. All are of one type; for different ones there is the macro
/// [`gather!`](macro@super::gather), and [`gather_settled`] gives all results where some are errors.
///
/// # Errors
/// The first error of one that fails or is cancelled (G5, G9), at once. The others are **not** cancelled (G6); their errors are reported when
/// nobody looks at them (D-3). To cancel them, use a [`TaskGroup`](super::task_group).
///
/// # Cancellation
/// All are cancelled (G10), also when the task that awaits is. That ends as soon as the first of them does (G12).
///
/// # Panics
/// Outside of a loop. Where one is given by value whose result another took.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(trefoil_nursery::asyncio::event_loop(async {
/// use std::time::Duration;
/// use trefoil_nursery::{Cancelled, asyncio};
/// let squares = asyncio::gather((0..4u64).map(|n| async move {
///     asyncio::sleep(Duration::from_millis(4 - n)).await?;
///     Ok::<_, Cancelled>(n * n)
/// }));
/// assert_eq!(squares.await?, [0, 1, 4, 9]);
/// # Ok::<(), Cancelled>(())
/// # })).unwrap();
/// ```
#[track_caller]
pub fn gather<I>(awaitables: I) -> Future<Vec<<I::Item as Awaitable>::Value>, <I::Item as Awaitable>::Error>
where
    I: IntoIterator,
    I::Item: Awaitable,
{
    let place = Location::caller();
    let children: Vec<_> = awaitables.into_iter().map(|awaitable| awaitable.ensure(place)).collect();
    let collect = |children: &[Ensured<_, _>]| children.iter().map(value).collect();
    start(children, false, collect, place)
}

/// What became of something that can be awaited.
type Settled<A> = Result<<A as Awaitable>::Value, <A as Awaitable>::Error>;

/// Waits for several at once, and gives what became of each: asyncio's `gather` with `return_exceptions` (G8).
///
/// # Errors
/// A cancellation, when it was cancelled and all have ended (G11).
///
/// # Cancellation
/// All are cancelled.
///
/// # Panics
/// As [`gather`].
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(trefoil_nursery::asyncio::event_loop(async {
/// use trefoil_nursery::asyncio;
/// use std::io;
/// let both = asyncio::gather_settled([1, 2].map(|n| async move {
///     if n == 1 { Ok(n) } else { Err(io::Error::other("two")) }
/// }));
/// let both = both.await?;
/// assert!(matches!(both[0], Ok(1)));
/// assert_eq!(both[1].as_ref().unwrap_err().to_string(), "two");
/// # Ok::<(), io::Error>(())
/// # })).unwrap();
/// ```
#[track_caller]
pub fn gather_settled<I>(awaitables: I) -> Future<Vec<Settled<I::Item>>, <I::Item as Awaitable>::Error>
where
    I: IntoIterator,
    I::Item: Awaitable,
{
    let place = Location::caller();
    let children: Vec<_> = awaitables.into_iter().map(|awaitable| awaitable.ensure(place)).collect();
    let collect = |children: &[Ensured<_, _>]| children.iter().map(Ensured::outcome).collect();
    start(children, true, collect, place)
}

/// Several of different types: what `gather!` takes.
#[doc(hidden)]
pub trait GatherTuple {
    type Values: 'static;
    type Error: CancelAware + 'static;
    fn gather(self, place: &'static Location<'static>) -> Future<Self::Values, Self::Error>;
}

macro_rules! gather_tuple {
    ($first:ident $($other:ident)*) => {
        impl<$first: Awaitable, $($other: Awaitable),*> GatherTuple for ($first, $($other,)*)
        where
            $($other::Error: Into<$first::Error>),*
        {
            type Values = ($first::Value, $($other::Value,)*);
            type Error = $first::Error;

            #[allow(non_snake_case)] // The types' names are those of the values, too.
            fn gather(self, place: &'static Location<'static>) -> Future<Self::Values, Self::Error> {
                let ($first, $($other,)*) = self;
                let ($first, $($other,)*) = ($first.ensure(place), $($other.ensure(place),)*);
                let children: Vec<Box<dyn Child<$first::Error>>> =
                    vec![Box::new($first.clone()), $(Box::new($other.clone())),*];
                let values = move |_: &[Box<dyn Child<$first::Error>>]| (value(&$first), $(value(&$other),)*);
                start(children, false, values, place)
            }
        }
    };
}

gather_tuple!(A);
gather_tuple!(A B);
gather_tuple!(A B C);
gather_tuple!(A B C D);
gather_tuple!(A B C D F);
gather_tuple!(A B C D F G);
gather_tuple!(A B C D F G H);
gather_tuple!(A B C D F G H I);
gather_tuple!(A B C D F G H I J);
gather_tuple!(A B C D F G H I J K);
gather_tuple!(A B C D F G H I J K L);
gather_tuple!(A B C D F G H I J K L M);

/// The value of a child that has one.
fn value<T: 'static, E: CancelAware + 'static>(child: &Ensured<T, E>) -> T {
    child.outcome().unwrap_or_else(|_| unreachable!("an error has ended it before"))
}

#[doc(hidden)]
#[track_caller]
pub fn gather_tuple<G: GatherTuple>(all: G) -> Future<G::Values, G::Error> {
    all.gather(Location::caller())
}

/// Waits for several of different types at once: up to twelve tasks, futures, or async blocks. Otherwise as [`gather`](fn@super::gather).
///
/// The error type is that of the first; those of the others turn into it.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(trefoil_nursery::asyncio::event_loop(async {
/// use trefoil_nursery::{Cancelled, asyncio};
/// let task = asyncio::create_task(async { Ok::<_, Cancelled>(7) });
/// let (number, text) = asyncio::gather!(task, async { Ok::<_, Cancelled>("seven") }).await?;
/// assert_eq!((number, text), (7, "seven"));
/// # Ok::<(), Cancelled>(())
/// # })).unwrap();
/// ```
#[doc(hidden)]
#[macro_export]
macro_rules! __asyncio_gather {
    ($($awaitable:expr),+ $(,)?) => {
        $crate::asyncio::gather_tuple(($($awaitable,)+))
    };
}
