//! What is cancelled once, and where it goes meanwhile.

use std::panic::Location;
use std::task::{Context, Waker};
use trefoil_runtime::{Edge, checkpoint, doc_run, sleep_forever};

/// Cancelled in one run and told in another: it is told once there, too.
#[test]
fn cancelled_in_one_run_and_told_in_another() {
    let mut edge = Box::pin(Edge::new(Location::caller(), async {
        (sleep_forever().await.is_err(), checkpoint().await.is_err(), checkpoint().await.is_err())
    }));
    doc_run(async {
        assert!(edge.as_mut().poll_body(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(edge.scope().unwrap().cancel_once());
    });
    let told = doc_run(std::future::poll_fn(|cx| edge.as_mut().poll_body(cx)));
    assert_eq!(told, (true, false, false));
}
