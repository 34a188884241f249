//! Outside of a run, and in a run inside of another.

use super::support::*;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use trefoil_nursery::*;

fn block_on<F: Future>(future: F) -> Poll<F::Output> {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..10 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return Poll::Ready(output);
        }
    }
    Poll::Pending
}

#[test]
fn outside_of_a_run_everything_panics_clearly() {
    let event = Event::new();
    let (tx, rx) = channel::<u8>(0);
    let texts = [
        panic_of(|| block_on(sleep(MS))),
        panic_of(|| block_on(sleep_forever())),
        panic_of(|| block_on(event.wait())),
        panic_of(|| block_on(tx.send(1))),
        panic_of(|| block_on(rx.recv())),
        panic_of(|| block_on(move_on_after(MS, std::future::ready(Ok::<_, Cancelled>(1))))),
        panic_of(|| block_on(CancelScope::new().run(std::future::ready(Ok::<_, Cancelled>(1))))),
        panic_of(|| block_on(shield(std::future::ready(1)))),
        panic_of(|| block_on(nursery(async |_| Ok::<_, Cancelled>(1)))),
        panic_of(|| block_on(local_nursery(async |_| Ok::<_, Cancelled>(1)))),
        panic_of(|| block_on(checkpoint())),
        panic_of(|| block_on(checkpoint_if_cancelled())),
        panic_of(effective_deadline),
        panic_of(cancel_cause),
        panic_of(trefoil_runtime::tree),
    ];
    for text in &texts {
        assert!(text.contains("outside of a run"), "{text}");
    }
    for text in &texts[..5] {
        assert!(text.contains("at ") && text.contains("outside.rs:"), "an operation says where it is: {text}");
    }
}

/// What had begun to wait in a run says so as well, and is not pending for ever.
#[test]
fn outside_of_a_run_what_was_begun_inside_panics_clearly() {
    let event = Event::new();
    let (tx, rx) = channel::<u8>(0);
    let half = each_wait(&event, &tx, &rx);
    for half in half {
        let half = run(turns(half, 2)).err().unwrap_or_else(|| panic!("it was to wait"));
        let text = panic_of(|| block_on(half));
        assert!(text.contains("outside of a run"), "{text}");
    }
}

#[test]
fn handles_work_outside_of_a_run() {
    let scope = CancelScope::new();
    scope.set_deadline(Some(now() + HOUR));
    scope.set_shield(true);
    assert!(!scope.cancel_called());
    let ended = run(scope.run(async {
        scope.cancel();
        checkpoint().await
    }));
    assert_eq!(ended, Ok(None));
    scope.set_deadline(None);
    scope.set_shield(false);
    scope.cancel();
    assert!(scope.cancelled_caught() && scope.cause().is_some());
    let again = panic_of(|| run(scope.run(checkpoint())));
    assert!(again.contains("entered twice"), "{again}");
    let event = Event::new();
    event.set();
    run(event.wait()).unwrap();
    let (tx, rx) = channel(1);
    tx.try_send(1).unwrap();
    assert_eq!(rx.try_recv(), Ok(1));
}

#[test]
fn a_run_inside_of_a_run_panics_clearly() {
    let text = panic_of(|| run(async { run(checkpoint()) }));
    assert!(text.contains("inside of a run"), "{text}");
    run(checkpoint()).unwrap();
}
