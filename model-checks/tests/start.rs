//! `Nursery::start` (`nursery/src/start.rs`, `runtime/src/scope/placed.rs`), whose caller is cancelled from another thread while the child says that
//! it is ready: the child goes to the nursery, unharmed, or ends with the caller (R71, R72).

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;

use trefoil_model_checks::{Run, Task, model};
use trefoil_nursery::{CancelScope, Event, Started, nursery};

/// The child waits for something, and beside that says that it is ready. Seen: whether it was handed over.
#[test]
fn r72_ready_and_cancel_the_caller() {
    model("start: ready ‖ cancel the caller").bound(3).check([false, true], |order| {
        let run = Run::new();
        let (caller, event) = (CancelScope::new(), Event::new());
        let child = async |started: Started<'_, u32>| {
            let (mut started, mut waits) = (Some(started), pin!(event.wait()));
            poll_fn(|cx| {
                let polled = waits.as_mut().poll(cx);
                if let Some(started) = started.take() {
                    started.ready(5);
                }
                polled
            })
            .await
            .map_err(io::Error::from)
        };
        // The first poll spawns the child, the second one polls it.
        let task = Task::waiting(
            &run,
            nursery(async |n| -> io::Result<bool> {
                let got = caller.run(n.start(child)).await?;
                assert!(got.is_none_or(|value| value == 5));
                Ok(got.is_some())
            }),
        );
        let (polled, ()) = order.race2(|| task.poll(), || caller.cancel());
        let polled = task.settle(polled);
        let handed_over = match polled {
            // The nursery waits for the child, which waits for the event.
            Poll::Pending => {
                event.set();
                assert!(task.end_of(Poll::Pending).expect("nobody fails"));
                true
            }
            Poll::Ready(got) => {
                assert!(!got.expect("the caller's cancellation is the caller's"));
                false
            }
        };
        task.end();
        handed_over
    });
}
