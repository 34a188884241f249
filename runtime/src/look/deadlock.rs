//! Programs that cannot go on (N10): when a run looks for that, what it finds, and how it says so.
//!
//! **All tasks wait.** Nothing can run, no deadline is set, the driver has nothing in flight, nobody has a [`RunHandle`](crate::RunHandle). Then
//! only another thread could wake a task, by way of an `Arc<Event>`, a sender, a guard, a scope, or a waker that it has; and what it has
//! cannot be seen from here. So the criterion is whether there is another thread ([`Detection::Proven`]):
//!
//! | other threads | |
//! | --- | --- |
//! | none | nobody can wake a task, whatever it waits for: the run ends with a [`Deadlock`] |
//! | some, or it cannot be found out | the run goes on; after [`GRACE`], once per spell, the report is logged as a warning. It looks again from time to time: the last thread may have ended |
//!
//! Who knows that no thread will come says so with [`Detection::After`].
//!
//! **Some tasks wait for each other**, while others go on. That is looked for when a task begins to wait for what others hold, before the run
//! sleeps; a cycle is what [`Graph::stuck`](super::wait_graph::Graph::stuck) cannot refute. Those in it cannot go on by themselves.
//! But while others go on, one of them may end it in a way that cannot be seen from here: it has a nursery around them, and cancels it; it was handed
//! a guard by its holder, or a future that waits for one, through some memory that both know, or a channel; it adds permits to a semaphore that had a
//! fixed number. Nobody can tell whether it will. So a cycle is said to be what it is, tasks that cannot go on by themselves, and that is logged as a
//! warning, once for each, when it has stood for [`GRACE`]: who was handed a guard has done with it by then, as a rule. In virtual time, which passes in no
//! time where nobody does anything, it is logged in the instant in which its last edge closes. And in a run for tests, where
//! [`Options::cycles_end`](crate::Options::cycles_end) is set, the run is ended only when a cycle has stood for [`STANDS_VIRTUAL`](search::STANDS_VIRTUAL) or [`STANDS_REAL`](search::STANDS_REAL).
//!
//! **What nobody polls.** What is handed over belongs to the one it was handed to, also if that is a future which was polled once and is not polled
//! since (futurelock). Its wait is over, and its task was woken and polled after that: so the task holds it, without a guard to say so. Who completes a
//! wait has the waker until that is woken; so a wake that is on its way counts as a waker that somebody has. Of the body of a nursery the wakers cannot
//! be counted, so there it is said of a run in which all tasks wait, and not while others go on.
//!
//! In the folder: [`blocked`], a task that waits, and what for; [`report`], all of them; [`search`], for those that wait for each other; [`sources`],
//! what can still wake a run.

mod blocked;
mod report;
mod search;
mod sources;

pub use blocked::{BlockedTask, BlockedWait};
pub(crate) use blocked::{Child, Front, Handed, Names, TooMany, Within};
pub use report::Deadlock;
pub(crate) use report::{Advice, report};
pub(crate) use search::{Found, Suspicion, ends, suspect};
pub use sources::WakeSources;

use std::time::Duration;

/// How long nothing could run before a run looks whether that is a deadlock. So that one that other threads wake all the time does not look
/// each time.
pub(crate) const SOON: Duration = Duration::from_millis(5);

/// How long nothing could run before it is said that only another thread can go on with it; and for how long tasks have waited for each other in real
/// time before it is said that only others can end that.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// The longest time between two looks, of a run that waits for other threads.
pub(crate) const SELDOM: Duration = Duration::from_secs(60);

/// When a run in which every task waits is ended as a deadlock (N10).
///
/// Every task waits: no one can run, no deadline is set, no operation is in flight, and nobody has a [`RunHandle`](crate::RunHandle).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Detection {
    /// Never.
    #[default]
    Off,
    /// When it is certain: the process has no other thread that could wake a task. Within some 10 ms.
    ///
    /// While there are other threads nothing is ended, since each of them may have a sender, an event, a guard, a scope or a waker of this
    /// run. After a second a warning is logged with the same report.
    Proven,
    /// After so much real time, whatever other threads there are: for programs in which no other thread wakes a task, such as tests. Where there
    /// is none, as soon as `Proven`.
    After(Duration),
}
