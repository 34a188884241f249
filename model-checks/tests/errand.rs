//! What may block, done on another thread (`io/src/fs/errand.rs`, `Ticket` in `runtime/src/pool.rs`): its end, against the future that waits for it,
//! is cancelled, or leaves. The end is told once, what was told is true, and buffer, waker and count are given back once.

use std::cell::RefCell;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use trefoil_io::model::{Desk, Fetch, Kernel};
use trefoil_model_checks::{Drops, Run, Token, Woken, model};
use trefoil_runtime::model::{link, unlink};
use trefoil_runtime::{Kind, Scope};

type Polled = Poll<Result<u8, i32>>;

const DONE: Result<u8, i32> = Ok(b'f');
const CANCELLED: Result<u8, i32> = Err(125);
const OTHER: Result<u8, i32> = Err(0);

/// A task that waits for one, in a scope.
struct Task {
    run: Run,
    scope: Pin<Box<Scope>>,
    woken: Woken,
    fetch: RefCell<Option<Fetch<Token>>>,
    buffers: Drops,
}

impl Task {
    fn new() -> Self {
        let run = Run::new();
        let scope = Box::pin(Scope::new(Kind::Scope, Location::caller()));
        // SAFETY: it is pinned, and unlinked in `end`.
        unsafe { link(&scope, run.tree, None) };
        let buffers = Drops::new();
        let fetch = RefCell::new(Some(Fetch::new(buffers.token())));
        Self { run, scope, woken: Woken::new(), fetch, buffers }
    }

    /// The first poll.
    fn begin(&self, begin: impl FnOnce(&mut Fetch<Token>, &mut Context<'_>)) {
        let mut fetch = self.fetch.borrow_mut();
        let fetch = fetch.as_mut().expect("it is there");
        self.woken.poll(|cx| self.run.within(&self.scope, || begin(fetch, cx)));
    }

    /// One that waits already.
    fn waiting(begin: impl FnOnce(&mut Fetch<Token>, &mut Context<'_>)) -> Self {
        let task = Self::new();
        task.begin(begin);
        assert!(task.poll().is_pending());
        task
    }

    /// One that waits for a thread.
    fn waiting_for(desk: &Desk) -> Self {
        Self::waiting(|fetch, cx| fetch.begin(desk, cx))
    }

    /// One that waits for a ring.
    fn waiting_in(kernel: &Kernel) -> Self {
        Self::waiting(|fetch, cx| fetch.submit(kernel, cx))
    }

    fn poll_with(&self, cx: &mut Context<'_>) -> Polled {
        let mut fetch = self.fetch.borrow_mut();
        let polled = self.run.within(&self.scope, || fetch.as_mut().expect("it is there").poll(cx));
        polled.map_err(|error| error.raw_os_error().unwrap_or(0))
    }

    fn poll(&self) -> Polled {
        self.woken.poll(|cx| self.poll_with(cx))
    }

    /// Polls as long as it is woken.
    fn settle(&self, mut polled: Polled) -> Polled {
        self.woken.settle(|cx| {
            if polled.is_pending() {
                polled = self.poll_with(cx);
            }
        });
        polled
    }

    /// Polls if it was woken, twice at most: who finds the end claimed and not told yet is woken at once, again and again.
    fn turns(&self, mut polled: Polled) -> Polled {
        for _ in 0..2 {
            if polled.is_pending() && self.woken.take() {
                polled = self.woken.poll(|cx| self.poll_with(cx));
            }
        }
        polled
    }

    fn cancel(&self) {
        self.scope.cancel(trefoil_runtime::Source::Explicit, Location::caller());
    }

    /// Is cancelled, and polled if that woke it.
    fn cancel_and_poll(&self) -> Polled {
        self.cancel();
        self.turns(Poll::Pending)
    }

    /// The future leaves, wherever it is.
    fn leave(&self) {
        drop(self.fetch.borrow_mut().take());
    }

    /// What it was told; everything is given back.
    fn told(self, polled: Polled) -> Result<u8, i32> {
        let Poll::Ready(result) = self.settle(polled) else { panic!("the wake-up was lost") };
        self.end();
        result
    }

    fn end(self) {
        self.leave();
        unlink(&self.scope);
        assert!(self.buffers.all(), "a buffer was kept");
        assert_eq!(self.woken.wakers(), 0, "a waker was kept");
    }
}

/// A thread does it while its future begins to wait. Seen: whether the poll after that was the last.
#[test]
fn a_thread_does_it_while_the_wait_begins() {
    model("errand: work ‖ begin, poll").bound(3).check([false, true], |order| {
        let (task, desk) = (Task::new(), Desk::new());
        let (_, first) = order.race2(
            || desk.work(),
            || {
                task.begin(|fetch, cx| fetch.begin(&desk, cx));
                task.turns(task.poll())
            },
        );
        desk.work();
        assert_eq!(task.told(first), DONE);
        assert_eq!(desk.in_flight(), 0);
        first.is_ready()
    });
}

/// A cancel comes while a thread begins: it was done, and that is said; or it was not, and then no thread does it (R36, R102).
#[test]
fn r36_r102_a_thread_begins_while_it_is_cancelled() {
    model("errand: work ‖ cancel, polls").bound(3).check([(true, DONE), (false, CANCELLED)], |order| {
        let desk = Desk::new();
        let task = Task::waiting_for(&desk);
        let (did, polled) = order.race2(|| desk.work(), || task.cancel_and_poll());
        let did = did || desk.work();
        let result = task.told(polled);
        assert_eq!(desk.in_flight(), 0);
        (did, result)
    });
}

/// The same, with the cancel on a third thread.
#[test]
fn r36_a_thread_a_poll_and_a_cancel() {
    model("errand: work ‖ cancel ‖ poll").three().bound(2).check([(true, DONE), (false, CANCELLED)], |order| {
        let desk = Desk::new();
        let task = Task::waiting_for(&desk);
        let (did, (), polled) = order.race3(|| desk.work(), || task.cancel(), || task.turns(task.poll()));
        let polled = task.settle(polled);
        let did = did || desk.work();
        let result = task.told(polled);
        assert_eq!(desk.in_flight(), 0);
        (did, result)
    });
}

/// The future is dropped while a thread is at it, or begins (N5). Seen: whether it was done.
#[test]
fn n5_the_future_leaves_while_a_thread_does_it() {
    model("errand: work ‖ drop").check([false, true], |order| {
        let desk = Desk::new();
        let task = Task::waiting_for(&desk);
        let (did, ()) = order.race2(|| desk.work(), || task.leave());
        assert!(!desk.work(), "it was taken back, or done");
        task.end();
        assert_eq!(desk.in_flight(), 0);
        did
    });
}

/// It leaves in a scope that another thread cancels meanwhile. Seen: whether it was done.
#[test]
fn n5_a_thread_a_drop_and_a_cancel() {
    model("errand: work ‖ cancel ‖ drop").three().bound(2).check([false, true], |order| {
        let desk = Desk::new();
        let task = Task::waiting_for(&desk);
        let (did, (), ()) = order.race3(|| desk.work(), || task.cancel(), || task.leave());
        assert!(!desk.work(), "it was taken back, or done");
        task.end();
        assert_eq!(desk.in_flight(), 0);
        did
    });
}

/// No thread can be had (R108), and a cancel comes: who asked is told why, since nothing was begun when it was cancelled.
#[test]
fn r108_none_can_be_had_while_it_is_cancelled() {
    model("errand: refused ‖ cancel").check([Err(11), CANCELLED], |order| {
        let (desk, task) = (Desk::new(), Task::new());
        let (polled, ()) = order.race2(
            || {
                task.begin(|fetch, cx| fetch.refused(&desk, cx));
                task.turns(task.poll())
            },
            || task.cancel(),
        );
        let result = task.told(polled);
        assert_eq!(desk.in_flight(), 0);
        result
    });
}

/// A ring completes it on the thread of its run, while the future is cancelled on another: what is said is what the kernel said.
#[test]
fn n8_a_ring_completes_it_while_it_is_cancelled() {
    model("errand: complete ‖ cancel, polls").bound(3).check([DONE, CANCELLED], |order| {
        let kernel = Kernel::new();
        let task = Task::waiting_in(&kernel);
        let (_, polled) = order.race2(|| kernel.complete(true), || task.cancel_and_poll());
        let result = task.told(polled);
        assert_eq!(kernel.in_flight(), 0);
        result
    });
}

/// The same, and the kernel does not obey: it is done, and that is said.
#[test]
fn n8_a_ring_that_is_not_stopped_has_done_it() {
    model("errand: complete anyway ‖ cancel ‖ poll").three().bound(2).check([DONE], |order| {
        let kernel = Kernel::new();
        let task = Task::waiting_in(&kernel);
        let (_, (), polled) = order.race3(|| kernel.complete(false), || task.cancel(), || task.turns(task.poll()));
        let result = task.told(polled);
        assert_eq!(kernel.in_flight(), 0);
        result
    });
}

/// A ring is done with it while the future leaves. The buffer is the kernel's until then.
#[test]
fn n5_the_future_leaves_while_a_ring_completes_it() {
    model("errand: complete ‖ drop").check([0, 1], |order| {
        let kernel = Kernel::new();
        let task = Task::waiting_in(&kernel);
        let (_, freed) = order.race2(
            || kernel.complete(true),
            || {
                task.leave();
                task.buffers.count()
            },
        );
        task.end();
        assert_eq!(kernel.in_flight(), 0);
        freed
    });
}

/// The run where it was begun ends, and ends it, while the future waits in another, and is cancelled there or not.
#[test]
fn the_run_ends_while_it_is_cancelled_elsewhere() {
    model("errand: end of the run ‖ cancel, polls").bound(3).check([CANCELLED, OTHER], |order| {
        let kernel = Kernel::new();
        let task = Task::waiting_in(&kernel);
        let ((), polled) = order.race2(|| kernel.close(), || task.cancel_and_poll());
        let result = task.told(polled);
        assert_eq!(kernel.in_flight(), 0);
        result
    });
}
