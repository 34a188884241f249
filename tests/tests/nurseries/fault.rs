//! The errors of these tests, and a step that may fail.

use trefoil_nursery::{CancelAware, Cancelled, ErrorGroup, NotStarted, SendError, TimedOut, sleep};
use trefoil_tests::ms;

/// What fails here: cancelled, as the library says it, with a number, or all of that together.
#[derive(Debug, PartialEq)]
pub enum Fault {
    Cancelled(Cancelled),
    NotStarted,
    TimedOut(TimedOut),
    No(u64),
    Group(Vec<Fault>),
}

impl From<Cancelled> for Fault {
    fn from(cancelled: Cancelled) -> Self {
        Fault::Cancelled(cancelled)
    }
}

impl From<NotStarted> for Fault {
    fn from(_: NotStarted) -> Self {
        Fault::NotStarted
    }
}

impl From<TimedOut> for Fault {
    fn from(timed_out: TimedOut) -> Self {
        Fault::TimedOut(timed_out)
    }
}

impl<T> From<SendError<T>> for Fault {
    fn from(error: SendError<T>) -> Self {
        match error {
            SendError::Cancelled(cancelled, _) => Fault::Cancelled(cancelled),
            other => panic!("{other:?}"),
        }
    }
}

impl From<ErrorGroup<Fault>> for Fault {
    fn from(group: ErrorGroup<Fault>) -> Self {
        Fault::Group(group.into_vec())
    }
}

impl CancelAware for Fault {
    fn is_cancelled(&self) -> bool {
        match self {
            Fault::Cancelled(_) => true,
            Fault::NotStarted | Fault::TimedOut(_) | Fault::No(_) => false,
            Fault::Group(all) => all.iter().all(CancelAware::is_cancelled),
        }
    }

    fn without_cancelled(self) -> Option<Self> {
        match self {
            Fault::Cancelled(_) => None,
            Fault::Group(all) => {
                let left: Vec<_> = all.into_iter().filter_map(CancelAware::without_cancelled).collect();
                if left.is_empty() { None } else { Some(Fault::Group(left)) }
            }
            other => Some(other),
        }
    }
}

/// Ends so many milliseconds later, with a value or a [`Fault::No`].
pub async fn after(n: u64, result: Result<u64, u64>) -> Result<u64, Fault> {
    sleep(ms(n)).await?;
    result.map_err(Fault::No)
}
