//! [`Branches`] and [`Alternatives`]: the futures that [`join`](crate::join) and [`race`](crate::race) run side by side, as children of a
//! nursery of their own. So what is true of a nursery is true of them: each is a task, an error cancels and awaits the others, a panic
//! waits for them, and a foreign future in them is dropped when it cannot be told (N13).
//!
//! The nursery is made of the futures that are given and of nothing else, so it is `Send` if they are ([`Parts`]): one function serves
//! both kinds.

use crate::join::Join;
use crate::nursery::{Name, Nursery, Open, Parts};
use std::cell::Cell;
use std::future::Future;
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use trefoil_runtime::{CancelAware, FailedBy, RawJoin};

/// Futures that each have a value of their own: a tuple of 2 to 8, an array, or a `Vec`. See [`join`](crate::join).
///
/// The outputs are `Result`s with one type of error. Collect an iterator of futures into a `Vec`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a set of futures to join",
    note = "`join` takes one argument: a tuple of 2 to 8 futures of `Result`s with one type of error, `join((a, b))`, or an array or a `Vec` of them"
)]
pub trait Branches: Sized + Sealed {
    /// Their values: a tuple, an array, a `Vec`, as they are.
    type Values;
    /// Their error.
    type Error: CancelAware;
    /// Without a lifetime, or else the compiler cannot see that what holds them is `Send`.
    #[doc(hidden)]
    type Joins;

    #[doc(hidden)]
    fn start<'s>(
        self,
        nursery: Nursery<'s, 's, Self::Error, Parts<Self>>,
        place: &'static Location<'static>,
    ) -> Self::Joins
    where
        Self: 's;

    /// `None` if one has no value. When the nursery has ended.
    #[doc(hidden)]
    fn values(joins: Self::Joins) -> Option<Self::Values>;
}

/// Futures of which one is enough, so that their outputs are of one type: a tuple of 2 to 8, an array, or a `Vec`. See
/// [`race`](crate::race).
///
/// Collect an iterator of futures into a `Vec`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a set of futures of which one is enough",
    note = "`race` and `first_success` take one argument: a tuple of 2 to 8 futures of one type of `Result`, `race((a, b))`, or an array or a `Vec` of them"
)]
pub trait Alternatives: Sized + Sealed {
    /// The value of each.
    type Value;
    /// The error of each.
    type Error: CancelAware;

    #[doc(hidden)]
    fn count(&self) -> usize;

    #[doc(hidden)]
    fn start<'s, J>(self, crew: Crew<'s, Self, J>)
    where
        Self: 's,
        J: Judge<'s, Self>;
}

/// Which of several futures that were given at one place: the first is 1, also of an array. It is the name of its task.
#[derive(Clone, Copy, Debug)]
pub struct Branch(usize);

/// Numbers them.
struct Numbers(Cell<usize>);

impl Numbers {
    fn new() -> Self {
        Self(Cell::new(0))
    }

    fn next(&self) -> Branch {
        self.0.set(self.0.get() + 1);
        Branch(self.0.get())
    }
}

impl Branch {
    /// It, as what failed.
    pub(crate) fn failed_by(self, place: &'static Location<'static>) -> FailedBy {
        FailedBy::Task { name: Some(self.name()), place }
    }
}

impl Name for Branch {
    fn name(&self) -> Arc<str> {
        format!("branch {}", self.0).into()
    }
}

/// What becomes of the output of one of the alternatives: an error that it returns is the nursery's.
pub trait Judge<'s, A: Alternatives>:
    Fn(Nursery<'s, 's, A::Error, Parts<A>>, Branch, Result<A::Value, A::Error>) -> Result<(), A::Error> + Copy + 's
{
}

impl<'s, A: Alternatives, J> Judge<'s, A> for J where
    J: Fn(Nursery<'s, 's, A::Error, Parts<A>>, Branch, Result<A::Value, A::Error>) -> Result<(), A::Error> + Copy + 's
{
}

/// Starts alternatives.
#[allow(missing_debug_implementations)]
pub struct Crew<'s, A: Alternatives, J> {
    nursery: Nursery<'s, 's, A::Error, Parts<A>>,
    judge: J,
    place: &'static Location<'static>,
    numbers: Numbers,
}

impl<'s, A: Alternatives, J: Judge<'s, A>> Crew<'s, A, J> {
    fn spawn<F: Future<Output = Result<A::Value, A::Error>> + 's>(&self, future: F)
    where
        A: 's,
    {
        let (nursery, judge) = (self.nursery, self.judge);
        let branch = self.numbers.next();
        let child = async move { judge(nursery, branch, future.await) };
        drop::<Join<'s, ()>>(nursery.spawn_any_called(branch, child, self.place));
    }
}

/// Runs alternatives, each as a child of one nursery, and ends when all have.
pub(crate) fn run<'s, A, J>(
    alternatives: A,
    place: &'static Location<'static>,
    judge: J,
) -> Open<'s, impl Future<Output = Result<(), A::Error>>, A::Error, Parts<A>>
where
    A: Alternatives + 's,
    J: Judge<'s, A>,
{
    Open::new(
        move |nursery| async move {
            alternatives.start(Crew { nursery, judge, place, numbers: Numbers::new() });
            Ok(())
        },
        place,
    )
}

/// Whether the code that asks is in a cancelled scope, or was just told of a cancellation that is over with that.
pub(crate) fn cancelled_here() -> bool {
    trefoil_runtime::current_cause().is_some() || trefoil_runtime::told_once()
}

/// A lock that nobody contends for: all branches are polled by one thread. It makes what they share `Send`.
pub(crate) fn lock<T>(board: &Mutex<T>) -> MutexGuard<'_, T> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn into_inner<T>(board: Mutex<T>) -> T {
    board.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[doc(hidden)]
pub trait Sealed {}

impl<F> Sealed for Vec<F> {}
impl<F, const N: usize> Sealed for [F; N] {}

impl<T, E, F> Branches for Vec<F>
where
    F: Future<Output = Result<T, E>>,
    E: CancelAware,
{
    type Values = Vec<T>;
    type Error = E;
    type Joins = Vec<RawJoin<T>>;

    fn start<'s>(self, nursery: Nursery<'s, 's, E, Parts<Self>>, place: &'static Location<'static>) -> Vec<RawJoin<T>>
    where
        Self: 's,
    {
        let numbers = Numbers::new();
        self.into_iter().map(|branch| nursery.spawn_any_called(numbers.next(), branch, place).into_raw()).collect()
    }

    fn values(joins: Vec<RawJoin<T>>) -> Option<Vec<T>> {
        joins.into_iter().map(|mut join| join.take()).collect()
    }
}

impl<T, E, F, const N: usize> Branches for [F; N]
where
    F: Future<Output = Result<T, E>>,
    E: CancelAware,
{
    type Values = [T; N];
    type Error = E;
    type Joins = [RawJoin<T>; N];

    fn start<'s>(self, nursery: Nursery<'s, 's, E, Parts<Self>>, place: &'static Location<'static>) -> [RawJoin<T>; N]
    where
        Self: 's,
    {
        let numbers = Numbers::new();
        self.map(|branch| nursery.spawn_any_called(numbers.next(), branch, place).into_raw())
    }

    fn values(joins: [RawJoin<T>; N]) -> Option<[T; N]> {
        let values: Option<Vec<T>> = joins.into_iter().map(|mut join| join.take()).collect();
        values?.try_into().ok()
    }
}

impl<T, E, F> Alternatives for Vec<F>
where
    F: Future<Output = Result<T, E>>,
    E: CancelAware,
{
    type Value = T;
    type Error = E;

    fn count(&self) -> usize {
        self.len()
    }

    fn start<'s, J>(self, crew: Crew<'s, Self, J>)
    where
        Self: 's,
        J: Judge<'s, Self>,
    {
        self.into_iter().for_each(|alternative| crew.spawn(alternative));
    }
}

impl<T, E, F, const N: usize> Alternatives for [F; N]
where
    F: Future<Output = Result<T, E>>,
    E: CancelAware,
{
    type Value = T;
    type Error = E;

    fn count(&self) -> usize {
        N
    }

    fn start<'s, J>(self, crew: Crew<'s, Self, J>)
    where
        Self: 's,
        J: Judge<'s, Self>,
    {
        self.into_iter().for_each(|alternative| crew.spawn(alternative));
    }
}

macro_rules! tuples {
    ($(($($name:ident $value:ident),+) $count:literal)+) => {$(
        impl<$($name),+> Sealed for ($($name,)+) {}

        #[allow(non_snake_case)]
        impl<Error, $($name, $value),+> Branches for ($($name,)+)
        where
            Error: CancelAware,
            $($name: Future<Output = Result<$value, Error>>,)+
        {
            type Values = ($($value,)+);
            type Error = Error;
            type Joins = ($(RawJoin<$value>,)+);

            fn start<'s>(
                self,
                nursery: Nursery<'s, 's, Error, Parts<Self>>,
                place: &'static Location<'static>,
            ) -> Self::Joins
            where
                Self: 's,
            {
                let ($($name,)+) = self;
                let numbers = Numbers::new();
                ($(nursery.spawn_any_called(numbers.next(), $name, place).into_raw(),)+)
            }

            fn values(joins: Self::Joins) -> Option<Self::Values> {
                let ($(mut $name,)+) = joins;
                Some(($($name.take()?,)+))
            }
        }

        #[allow(non_snake_case)]
        impl<Value, Error, $($name),+> Alternatives for ($($name,)+)
        where
            Error: CancelAware,
            $($name: Future<Output = Result<Value, Error>>,)+
        {
            type Value = Value;
            type Error = Error;

            fn count(&self) -> usize {
                $count
            }

            fn start<'s, J>(self, crew: Crew<'s, Self, J>)
            where
                Self: 's,
                J: Judge<'s, Self>,
            {
                let ($($name,)+) = self;
                $(crew.spawn($name);)+
            }
        }
    )+};
}

tuples! {
    (A TA, B TB) 2
    (A TA, B TB, C TC) 3
    (A TA, B TB, C TC, D TD) 4
    (A TA, B TB, C TC, D TD, F TF) 5
    (A TA, B TB, C TC, D TD, F TF, G TG) 6
    (A TA, B TB, C TC, D TD, F TF, G TG, H TH) 7
    (A TA, B TB, C TC, D TD, F TF, G TG, H TH, I TI) 8
}
