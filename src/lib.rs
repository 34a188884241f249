//! Structured concurrency for Rust: nurseries, cancel scopes and deadlines, on an io_uring or epoll reactor.

pub use trefoil_nursery::*;
pub use trefoil_runtime::tree;

/// Stands in for the one of the io crate until that lands.
#[track_caller]
pub fn run<F: Future>(main: F) -> F::Output {
    trefoil_runtime::doc_run(main)
}
