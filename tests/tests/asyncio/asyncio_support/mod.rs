//! What the tests of `asyncio` share: an error with a name, a log with times, and programs under virtual time.

#![allow(dead_code)] // Not every file of tests uses all of it.

use std::cell::RefCell;
use std::future::Future as StdFuture;
use std::rc::Rc;
use std::time::Instant;
use trefoil::asyncio::{Abandoned, GroupClosed, Task, create_task, event_loop, sleep};
use trefoil::{CancelAware, Cancelled, CancelledOrTimedOut, ErrorGroup, TimedOut, now};
use trefoil_tests::{ms, run_virtual};

/// What goes wrong in a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    Cancelled,
    TimedOut,
    Abandoned,
    Closed(GroupClosed),
    Named(&'static str),
    Group(Vec<Fault>),
}

impl CancelAware for Fault {
    fn is_cancelled(&self) -> bool {
        *self == Fault::Cancelled
    }

    fn to_copy(&self) -> Option<Self> {
        Some(self.clone())
    }
}

impl From<Cancelled> for Fault {
    fn from(_: Cancelled) -> Self {
        Fault::Cancelled
    }
}

impl From<TimedOut> for Fault {
    fn from(_: TimedOut) -> Self {
        Fault::TimedOut
    }
}

impl From<CancelledOrTimedOut> for Fault {
    fn from(error: CancelledOrTimedOut) -> Self {
        match error {
            CancelledOrTimedOut::Cancelled(_) => Fault::Cancelled,
            CancelledOrTimedOut::TimedOut(_) => Fault::TimedOut,
        }
    }
}

impl From<Abandoned> for Fault {
    fn from(_: Abandoned) -> Self {
        Fault::Abandoned
    }
}

impl From<GroupClosed> for Fault {
    fn from(closed: GroupClosed) -> Self {
        Fault::Closed(closed)
    }
}

impl From<ErrorGroup<Fault>> for Fault {
    fn from(group: ErrorGroup<Fault>) -> Self {
        if group.is_cancelled() { Fault::Cancelled } else { Fault::Group(group.into_vec()) }
    }
}

pub type Is<T> = Result<T, Fault>;

/// Who did what, and when: `"5 a woke"`.
#[derive(Clone)]
pub struct Log {
    begin: Instant,
    lines: Rc<RefCell<Vec<String>>>,
}

impl Log {
    pub fn note(&self, what: impl std::fmt::Display) {
        let line = format!("{} {what}", self.ms());
        self.lines.borrow_mut().push(line);
    }

    pub fn ms(&self) -> u128 {
        (now() - self.begin).as_millis()
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.borrow().clone()
    }

    /// Compares, and forgets.
    #[track_caller]
    pub fn expect<const N: usize>(&self, lines: [&str; N]) {
        assert_eq!(self.lines.take(), lines);
    }
}

/// Runs a program of asyncio under virtual time.
pub fn program(main: impl AsyncFn(Log) -> Is<()> + Clone + 'static) {
    run_virtual(async || {
        let main = main.clone();
        let log = Log { begin: now(), lines: Rc::default() };
        let ended = event_loop(async move { main(log).await }).await;
        assert_eq!(ended, Ok(()));
    });
}

/// Runs a program of asyncio under virtual time, for what it returns.
pub fn outcome<T: 'static>(main: impl AsyncFn(Log) -> Is<T> + Clone + 'static) -> Is<T> {
    run_virtual(async || {
        let main = main.clone();
        let log = Log { begin: now(), lines: Rc::default() };
        event_loop(async move { main(log).await }).await
    })
}

/// A value after a time.
pub async fn after<T>(time: u64, value: T) -> Is<T> {
    sleep(ms(time)).await?;
    Ok(value)
}

/// An error after a time.
pub async fn fails(time: u64, name: &'static str) -> Is<&'static str> {
    sleep(ms(time)).await?;
    Err(Fault::Named(name))
}

/// One that swallows a cancel, and then takes so long to end with what it is given.
pub async fn cleans_up<T>(log: Log, name: &'static str, time: u64, outcome: Is<T>) -> Is<T> {
    let told = sleep(ms(1_000_000)).await;
    assert!(told.is_err());
    log.note(format!("{name} told"));
    sleep(ms(time)).await?;
    log.note(format!("{name} ends"));
    outcome
}

pub fn task<T: 'static>(body: impl StdFuture<Output = Is<T>> + 'static) -> Task<T, Fault> {
    create_task(body)
}

/// Gives up the turn.
pub async fn turn() -> Is<()> {
    Ok(sleep(ms(0)).await?)
}

/// Gives up so many.
pub async fn turns(n: usize) -> Is<()> {
    for _ in 0..n {
        turn().await?;
    }
    Ok(())
}
