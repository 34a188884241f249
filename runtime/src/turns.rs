//! The loop: one thread, one queue, one driver. A turn is: expire deadlines, run what can run, look at the driver, or sleep in it
//! until the next deadline (R86).

mod quiet;
mod sleep;

use crate::context::{self, Entered, Frame};
use crate::driver::Driver;
use crate::look::deadlock::Deadlock;
use crate::look::instrument::{Instruments, Watch};
use crate::look::record::{self, Loop};
use crate::payload::{Payload, report_panic};
use crate::ready::{Above, Newborn, ReadyBox};
use crate::run_handle::Calls;
use crate::scope::Scope;
use crate::scope::cause::{Kind, Source};
use crate::tree::Tree;
use crate::worker::{Options, Worker};
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::ptr;
use std::rc::Rc;
use std::task::{Context, Poll, Wake, Waker};

/// Runs a future to its end on the calling thread, over `driver`.
///
/// # Panics
/// If a run is going on on this thread already, with the panic of `main`, and if the driver fails in a way that it cannot mend.
pub fn run<F: Future>(
    driver: Rc<dyn Driver>,
    options: Options,
    place: &'static Location<'static>,
    main: F,
) -> F::Output {
    run_instrumented(driver, options, Instruments::default(), place, main)
}

/// The same, with instruments from the begin.
///
/// # Panics
/// As [`run`], and with the report if the run is ended as a deadlock (N10).
pub fn run_instrumented<F: Future>(
    driver: Rc<dyn Driver>,
    options: Options,
    instruments: Instruments,
    place: &'static Location<'static>,
    main: F,
) -> F::Output {
    match try_run(driver, options, instruments, place, main) {
        Ok(output) => output,
        Err(deadlock) => panic!("{deadlock}"),
    }
}

/// The same; a run that is ended as a deadlock is an error, after everything in it was cancelled and dropped.
///
/// # Errors
/// [`Deadlock`], as [`Options::deadlock`] asks for it (N10).
///
/// # Panics
/// As [`run`]. A panic in the clean-up of a run that is ended as a deadlock is logged, and the report goes first.
pub fn try_run<F: Future>(
    driver: Rc<dyn Driver>,
    options: Options,
    instruments: Instruments,
    place: &'static Location<'static>,
    main: F,
) -> Result<F::Output, Deadlock> {
    assert!(
        context::tree().is_none(),
        "a run was started inside of a run, on the same thread: await the future instead, or start the run on a thread of its own"
    );
    let tree = Tree::lend();
    tree.clock.reset(options.virtual_time);
    tree.parker.attach(driver.unparker());
    tree.set_turn_time(tree.clock.now());
    context::set_newborn(Newborn::at(tree.turn_time()));
    let worker = Worker::new(tree, driver, instruments, &options);
    let root = pin!(Scope::new(Kind::Run, place));
    // SAFETY: pinned here, unlinked below, in `Run::drop`, before it goes away.
    let mut locked = unsafe { root.link(tree, ptr::null(), ptr::null(), || tree.clock.now()) };
    let ready = ReadyBox::new(Above::Worker(tree), place);
    // SAFETY: the queue is a field of what unlinks the scope when it is dropped.
    unsafe { root.set_children(ready.as_ptr()) };
    locked.set_run(root.as_ref().get_ref());
    drop(locked);
    let mut run = Run {
        tree,
        worker: &worker,
        root: root.as_ref(),
        ready,
        main: pin!(Some(main)),
        outcome: None,
        failed: None,
        deadlock: None,
        ending: false,
        hopeless: false,
        cycles_end: options.cycles_end,
    };
    run.turns();
    if let Some(payload) = run.failed.take() {
        // It outranks what main came to (N9).
        let output = run.outcome.replace(Err(payload));
        if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(output))) {
            report_panic(another, BESIDE);
        }
    }
    if let Some(deadlock) = run.deadlock.take() {
        return Err(end_deadlocked(run, deadlock));
    }
    match run.outcome.take().expect("the loop ends when main has") {
        Ok(output) => {
            drop(run);
            Ok(output)
        }
        Err(payload) => {
            // The first one is resumed.
            if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(run))) {
                report_panic(another, BESIDE);
            }
            resume_unwind(payload)
        }
    }
}

/// Drops what is left of a run that cannot go on. The report goes before a panic of its clean-up, such as that of an `unwrap` of what was
/// cancelled: it says why. The panic was printed by its hook, and is logged.
#[cold]
fn end_deadlocked<F: Future>(mut run: Run<'_, F>, mut deadlock: Deadlock) -> Deadlock {
    let mut first = None;
    match run.outcome.take() {
        Some(Err(payload)) => first = Some(payload),
        Some(Ok(output)) => {
            if size_of::<F::Output>() > 0 {
                // It has cleaned up, and may have something to say of that. There is room for one, and the report says so at its end.
                deadlock.drops_output(std::any::type_name::<F::Output>());
            }
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(output))) {
                first = Some(payload);
            }
        }
        None => {}
    }
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(run))) {
        keep_first(&mut first, payload);
    }
    if let Some(payload) = first {
        report_panic(payload, "a panic in the clean-up of a run that is in a deadlock");
    }
    deadlock
}

struct Run<'a, F: Future> {
    tree: &'static Tree,
    worker: &'a Worker,
    root: Pin<&'a Scope>,
    ready: ReadyBox,
    main: Pin<&'a mut Option<F>>,
    outcome: Option<Result<F::Output, Payload>>,
    /// A call from outside panicked (R89).
    failed: Option<Payload>,
    /// It cannot go on, and was cancelled for that (N10).
    deadlock: Option<Deadlock>,
    /// One of these: it is on its way to its end.
    ending: bool,
    /// Nor can its clean-up go on.
    hopeless: bool,
    cycles_end: bool,
}

impl<F: Future> Run<'_, F> {
    fn frame(&self) -> Frame {
        Frame {
            tree: Some(self.tree),
            worker: self.worker,
            scope: self.root.get_ref(),
            unopened: ptr::null(),
            task: ptr::null(),
            ready: ptr::null(),
        }
    }

    fn turns(&mut self) {
        let _entered = Entered::new(self.frame());
        self.tree.current.begins(&self.worker.blocks);
        let waker = Waker::from(std::sync::Arc::new(UnparkWorker(self.tree)));
        let mut cx = Context::from_waker(&waker);
        self.ready.tell_of_body(Watch::spawned);
        self.ready.tell_of_body(Watch::scheduled);
        loop {
            // What it says is seen in this turn. From here on, a notification says that there is more to do than what is polled just now.
            if self.tree.parker.is_notified() {
                self.awake();
            }
            self.run_calls();
            self.run_ready(&mut cx);
            if self.outcome.is_some() || (self.ending && (self.hopeless || self.ready.body_is_stuck())) {
                return self.tell_if_asked();
            }
            if self.wait() {
                self.worker.expire_after_sleep(self.tree);
            } else {
                self.worker.expire(self.tree);
            }
        }
    }

    /// Takes a notification, if there is one, and says that it is awake.
    fn awake(&self) {
        let _ = self.worker.awake(self.tree);
        self.tell_if_asked();
    }

    /// The loop is about to sleep. False if it was notified meanwhile.
    fn prepare(&self) -> bool {
        let prepared = self.tree.parker.prepare();
        if !prepared {
            self.tell_if_asked();
        }
        prepared
    }

    #[inline(always)]
    fn tell_if_asked(&self) {
        if self.tree.is_asked() {
            self.tell();
        }
    }

    /// The loop is asked for something: whether it is an error, or to be logged.
    #[cold]
    fn tell(&self) {
        // Otherwise in each turn that finds something to run. Before it sleeps it looks at that in any case.
        if !self.worker.suspicion.any() {
            self.tree.take_asked();
        }
        if let Some(error) = self.worker.blocked.as_ref().and_then(|blocked| blocked.error()) {
            panic!("{error}");
        }
        if let Some(report) = self.worker.livelock.report() {
            crate::report_warn!("{report}");
        }
    }

    /// Runs what other threads want run (R88).
    fn run_calls(&mut self) {
        if let Some(calls) = self.worker.calls.get()
            && calls.has_work()
        {
            self.worker.livelock.progress();
            let mut first = None;
            let told = record::in_loop(Loop::Calls);
            calls.run(|payload| keep_first(&mut first, payload));
            drop(told);
            if let Some(payload) = first {
                self.fail(payload);
            }
        }
    }

    /// A call panicked: the run is cancelled, as a nursery is by the panic of a child (N9), and ends with it when main has. A main that
    /// waits for nothing known is dropped (N13).
    #[cold]
    fn fail(&mut self, payload: Payload) {
        if self.failed.is_none() {
            self.cancel(Source::Shutdown);
        }
        self.ending = true;
        keep_first(&mut self.failed, payload);
    }

    /// The run comes to its end. A main that waits for nothing known is dropped (N13).
    #[cold]
    fn cancel(&mut self, source: Source) {
        self.root.cancel(source, self.root.place);
        self.ready.schedule_all();
    }

    /// The run cannot go on: it is cancelled, so that it cleans up; if that cannot go on either, the rest is dropped.
    #[cold]
    fn end(&mut self, deadlock: Deadlock) {
        match &mut self.deadlock {
            None => {
                self.deadlock = Some(deadlock);
                self.ending = true;
                self.worker.suspicion.end();
                self.cancel(Source::Deadlock);
            }
            Some(first) => {
                first.followed_by(deadlock);
                self.hopeless = true;
            }
        }
    }

    fn has_work(&self) -> bool {
        self.ready.has_work() || self.worker.calls.get().is_some_and(Calls::has_work)
    }

    fn run_ready(&mut self, cx: &mut Context<'_>) {
        let (main, outcome) = (&mut self.main, &mut self.outcome);
        self.ready.run(&self.root, cx, |cx| {
            if outcome.is_some() {
                return;
            }
            let Some(future) = main.as_mut().as_pin_mut() else { return };
            *outcome = match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
                Ok(Poll::Pending) => None,
                Ok(Poll::Ready(output)) => Some(Ok(output)),
                Err(payload) => Some(Err(payload)),
            };
        });
    }
}

const BESIDE: &str = "a panic beside the one that ends the run";

/// Of several panics the first is resumed.
fn keep_first(first: &mut Option<Payload>, payload: Payload) {
    match first {
        None => *first = Some(payload),
        Some(_) => report_panic(payload, BESIDE),
    }
}

impl<F: Future> Drop for Run<'_, F> {
    fn drop(&mut self) {
        // Also on the way out of a panic of the driver: nothing may be left that points to this frame.
        let entered = Entered::new(self.frame());
        // A panic of a waker ends a sleep, too: what follows is watched.
        let _ = self.worker.awake(self.tree);
        let main = catch_unwind(AssertUnwindSafe(|| self.main.set(None)));
        self.ready.set_body_done();
        self.ready.tell_of_body(Watch::exited);
        self.ready.close(&self.root);
        // What was accepted is run, and may use the driver (R89).
        let mut call = None;
        if let Some(calls) = self.worker.calls.get() {
            calls.close(|payload| keep_first(&mut call, payload));
        }
        // The driver is code of others, and so are the wakers of what is let go.
        let driver = catch_unwind(AssertUnwindSafe(|| self.worker.driver.shutdown()));
        let rest = catch_unwind(AssertUnwindSafe(|| {
            self.tree.lock().set_run(ptr::null());
            self.root.unlink();
        }));
        context::set_newborn(Newborn::NONE);
        self.tree.current.ends();
        // Before another thread may have it: who finds a tree in the context takes this thread for the one of its run.
        drop(entered);
        self.tree.give_back();
        // The others go before the first is resumed: a payload whose destructor panics must not do so in the middle of that.
        let mut first = None;
        for payload in [main.err(), call, driver.err(), rest.err()].into_iter().flatten() {
            keep_first(&mut first, payload);
        }
        match first {
            Some(payload) if std::thread::panicking() => report_panic(payload, BESIDE),
            Some(payload) => resume_unwind(payload),
            None => {}
        }
    }
}

struct UnparkWorker(&'static Tree);

impl Wake for UnparkWorker {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.parker.unpark();
    }

    fn wake_by_ref(self: &std::sync::Arc<Self>) {
        self.0.parker.unpark();
    }
}
