//! Operations that are stopped at each of their awaits: N5, R36.

use crate::{cancel_at, drop_at};
use std::fmt::Debug;
use std::future::Future;
use trefoil_nursery::CancelAware;
use trefoil_runtime::metrics;

/// How an operation is stopped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum How {
    /// It is dropped.
    Drop,
    /// It is cancelled.
    Cancel,
}

/// What became of an operation that was to be stopped.
#[derive(Debug, PartialEq)]
pub enum End<T> {
    /// It was not stopped.
    Complete(T),
    /// It was stopped, and completed all the same.
    Late(T),
    /// It was stopped.
    Stopped,
}

impl<T> End<T> {
    /// Whether it was not stopped.
    pub fn is_complete(&self) -> bool {
        matches!(self, End::Complete(_))
    }
}

/// Stops an operation when it was pending for the `k`-th time (from 1); with 0 before it begins. It must not fail otherwise.
pub async fn stop<T, E: CancelAware + Debug>(
    how: How,
    k: usize,
    operation: impl Future<Output = Result<T, E>>,
) -> End<T> {
    match how {
        How::Drop => match drop_at(k, operation).await {
            Some(value) => End::Complete(value.expect("nobody cancels")),
            None => End::Stopped,
        },
        How::Cancel => match cancel_at(k, operation).await {
            (Ok(Some(value)), false) => End::Complete(value),
            (Ok(Some(value)), true) => End::Late(value),
            (Ok(None), true) => End::Stopped,
            (Err(error), _) => panic!("it was the scope's own cancellation: {error:?}"),
            (Ok(None), false) => panic!("it was the scope's own cancellation"),
        },
    }
}

/// Runs a world for `k` = 0, 1, … until its operation completes by itself; how often it was stopped. The world is given how to stop and
/// when, and says whether the operation completed. Nothing may be left when it has ended.
pub async fn stops(how: How, world: impl AsyncFn(How, usize) -> bool) -> usize {
    for k in 0..1000 {
        let before = metrics();
        let complete = world(how, k).await;
        assert_eq!(metrics(), before, "left over: {how:?} at {k}");
        if complete {
            return k;
        }
    }
    panic!("it never completes");
}

/// As [`stops`], in both ways.
pub async fn at_every_await(world: impl AsyncFn(How, usize) -> bool) -> [usize; 2] {
    [stops(How::Drop, &world).await, stops(How::Cancel, &world).await]
}
