//! Operations that were begun and wait.

use std::future::Future;
use std::pin::Pin;
use trefoil_nursery::Cancelled;
use trefoil_tests::{begun, poll_once};

pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, Cancelled>> + 'a>>;

/// Begins operations one after the other; each of them waits.
pub async fn begin<'a, T, F: Future<Output = Result<T, Cancelled>> + 'a>(operations: Vec<F>) -> Vec<Boxed<'a, T>> {
    let mut all: Vec<Boxed<'a, T>> = Vec::new();
    for operation in operations {
        all.push(begun(operation).await);
    }
    all
}

/// An operation that has been served.
pub async fn served<T>(mut operation: Boxed<'_, T>) -> T {
    match poll_once(operation.as_mut()).await {
        std::task::Poll::Ready(result) => result.expect("nobody cancels"),
        std::task::Poll::Pending => panic!("it still waits"),
    }
}
