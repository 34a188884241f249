//! The loop: one thread, one queue, one driver. A turn is: expire deadlines, run what can run, look at the driver, or sleep in it
//! until the next deadline (R86).

use crate::blind::BLIND;
use crate::blocks::Blocks;
use crate::cause::{Kind, Source};
use crate::clock::{self, A_WHILE, Moment, NEVER, nanos};
use crate::context::{self, Entered, Frame};
use crate::deadlock::{self, Deadlock, Detection, Found, GRACE, SELDOM, SOON, Suspicion};
use crate::driver::Driver;
use crate::idle::Idle;
use crate::instrument::{Instruments, Watch};
use crate::livelock::{Limits, Livelock};
use crate::payload::{Payload, report_panic};
use crate::quiet::{Next, Quiet};
use crate::ready::{Above, ReadyBox};
use crate::record::{self, Loop};
use crate::run_handle::Calls;
use crate::schedule::{Order, Schedule};
use crate::scope::Scope;
use crate::threads;
use crate::tree::Tree;
use crate::watchdog::Watching;
use std::cell::{Cell, OnceCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::ptr;
use std::rc::Rc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// What the thread that runs a loop knows, beside the tree.
pub(crate) struct Worker {
    /// The memory of children that have ended.
    pub blocks: Blocks,
    pub driver: Rc<dyn Driver>,
    /// What is to be polled in another order than the ordinary one, for tests.
    pub schedule: Option<Schedule>,
    pub quiet: Quiet,
    pub idle: Idle,
    pub suspicion: Suspicion,
    pub livelock: Livelock,
    /// What other threads have it run; made with the first handle.
    pub calls: OnceCell<Calls>,
    /// The instruments; made with the first.
    pub watch: OnceCell<Watch>,
    /// Which operation was the first to be told of a cancellation since somebody looked. For tests.
    pub told: Cell<Option<&'static Location<'static>>>,
    /// Who looks whether a task holds it up, if somebody does.
    pub blocked: Option<Watching>,
    /// When the clock was read last.
    looked: Cell<Moment>,
    /// In this poll of an [`Edge`](crate::Edge) an operation was told of a cancellation that is over with that.
    pub told_once: Cell<bool>,
}

/// In how many turns of a busy loop without deadlines the clock is read once.
const CLOCK_EVERY: u32 = 32;

/// How often it looks whether it was notified before it looks at the clock and the driver: a microsecond or two.
const LOOKS: u32 = 32;

/// How a run is set up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Time stands still while anything can run, and then jumps to the next deadline.
    pub virtual_time: bool,
    /// After how much real time in which nothing could run virtual time jumps (R51): at once by default, and by hand alone with
    /// [`Duration::MAX`].
    pub autojump: Duration,
    /// In which order tasks are polled (N4).
    pub order: Order,
    /// When the run is ended since every task waits, no deadline is set and the driver has nothing in flight (N10).
    pub deadlock: Detection,
    /// Tasks that have waited for each other for a minute of virtual time, or ten seconds of real time, while others go on, end the run. In any case it is
    /// logged as a warning when it is found.
    pub cycles_end: bool,
    /// When a run that is busy and gets nowhere is reported, by a warning; `None`: never.
    pub livelock: Option<Limits>,
    /// For how long a loop with nothing to do looks at the driver, again and again, before it sleeps.
    pub spin: Duration,
    /// A task that runs for so long without yielding is named, in a warning. `None`: never.
    pub blocked_after: Option<Duration>,
    /// Such a task is an error: the run ends with a panic that names it, once it has yielded.
    pub blocked_is_error: bool,
}

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
    let worker = Worker {
        blocks: Blocks::new(),
        driver,
        schedule: Schedule::new(options.order),
        quiet: Quiet::new(&options),
        idle: Idle::new(options.spin),
        suspicion: Suspicion::default(),
        livelock: Livelock::new(options.livelock),
        calls: OnceCell::new(),
        watch: Watch::new(instruments).map_or_else(OnceCell::new, OnceCell::from),
        told: Cell::new(None),
        blocked: options
            .blocked_after
            .filter(|_| !BLIND)
            .map(|limit| Watching::new(tree, limit, options.blocked_is_error)),
        looked: Cell::new(Moment::At(0)),
        told_once: Cell::new(false),
    };
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
fn end_deadlocked<F: Future>(mut run: Run<'_, F>, deadlock: Deadlock) -> Deadlock {
    let mut first = None;
    match run.outcome.take() {
        Some(Err(payload)) => first = Some(payload),
        Some(Ok(output)) => {
            if size_of::<F::Output>() > 0 {
                // It has cleaned up, and may have something to say of that. The report goes first: there is room for one.
                let what = std::any::type_name::<F::Output>();
                crate::report_warn!(
                    "main returned after its run was ended as a deadlock: its output, of type {what}, is dropped"
                );
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
    /// Nor can its clean-up.
    hopeless: bool,
    cycles_end: bool,
}

impl Worker {
    /// Sleeps in the driver.
    fn park(&self, timeout: Option<Duration>) -> std::io::Result<()> {
        if let Some(blocked) = &self.blocked {
            blocked.sleeps();
        }
        self.blocks.rest();
        let parked = self.driver.park(timeout);
        if let Some(blocked) = &self.blocked {
            blocked.wakes();
        }
        parked
    }

    /// Applies the deadlines that are due (R45). A busy loop does not read the clock where none can be due, since that costs more than
    /// the rest of the turn: in most turns if there are no deadlines, and while the next one is further off than the time that has
    /// passed since it looked. A turn beside a deadline of a minute takes 30 ns instead of 75 by that.
    fn expire(&self, tree: &'static Tree, slept: bool) {
        tree.current.next_turn();
        let turn = tree.current.turn();
        if !BLIND {
            self.livelock.turn(turn, slept, tree);
        }
        let next = tree.next_look();
        if !slept {
            let skip = match next {
                NEVER => !turn.is_multiple_of(CLOCK_EVERY),
                _ => next > tree.turn_time().saturating_add(A_WHILE) && tree.clock.is_recent(self.looked.get()),
            };
            if skip {
                return;
            }
        }
        // Of a loop that sleeps between two messages, a look at the clock was a tenth of what it does for each. No deadline is near enough
        // to be met early by what is reckoned.
        let near = tree.clock.look_near().filter(|(_, now)| next > now.saturating_add(A_WHILE));
        let (moment, now) = near.unwrap_or_else(|| tree.clock.look());
        self.looked.set(moment);
        tree.set_turn_time(now);
        if slept || next <= now {
            let mut locked = tree.lock();
            locked.set_alarm(0);
            if locked.expire(now) > 0 {
                self.idle.expired(now);
                let _told = record::in_loop(Loop::Expires);
                drop(locked);
            }
        }
    }
}

/// What the loop does between two turns while something can run, on behalf of a nursery whose children are all that can: looks at the driver,
/// and applies deadlines. What is woken by it, anywhere, notifies the parker.
pub(crate) fn between_turns(frame: Frame, tree: &'static Tree) {
    // SAFETY: [CURRENT] of the context module.
    let Some(worker) = (unsafe { frame.worker.as_ref() }) else { return };
    // As the loop does it, in no task and no queue.
    let _entered = Entered::new(Frame { task: ptr::null(), ready: ptr::null(), ..frame });
    check(&*worker.driver, worker.driver.poll());
    worker.expire(tree, false);
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
        let waker = Waker::from(std::sync::Arc::new(UnparkWorker(self.tree)));
        let mut cx = Context::from_waker(&waker);
        self.ready.tell_of_body(Watch::spawned);
        self.ready.tell_of_body(Watch::scheduled);
        loop {
            // What it says is seen in this turn. From here on, a notification says that there is more to do than what is polled just now.
            if self.tree.parker.is_notified() {
                self.tree.parker.awake();
            }
            self.run_calls();
            self.run_ready(&mut cx);
            if !BLIND && let Some(error) = self.worker.blocked.as_ref().and_then(|blocked| blocked.error()) {
                panic!("{error}");
            }
            let ending = self.failed.is_some() || self.deadlock.is_some();
            if self.outcome.is_some() || self.hopeless || (ending && self.ready.body_is_stuck()) {
                return;
            }
            if !BLIND && self.worker.suspicion.any() {
                self.look_for_cycles();
            }
            let slept = self.wait();
            self.worker.expire(self.tree, slept);
            if !BLIND && let Some(report) = self.worker.livelock.report() {
                crate::report_warn!("{report}");
            }
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
                self.worker.suspicion.end();
                self.cancel(Source::Deadlock);
            }
            Some(first) => {
                first.followed_by(deadlock);
                self.hopeless = true;
            }
        }
    }

    /// The report of a run in which every task waits.
    fn report(&self, headline: String) -> Deadlock {
        let now = self.tree.clock.now();
        deadlock::report(self.tree, self.root.get_ref(), now, headline)
    }

    /// Looks for tasks that wait for each other (N10).
    #[cold]
    fn look_for_cycles(&mut self) {
        let sleeps = !self.has_work();
        if !sleeps && !self.tree.current.turn().is_multiple_of(CLOCK_EVERY) {
            return;
        }
        // Where nothing at all can go on the cycle is in the report of that, unless it has to be waited for.
        if !(sleeps && self.is_quiet() && self.worker.suspicion.puts_off()) {
            self.report_cycles();
        }
    }

    /// Whether nothing can come, unless another thread wakes a task.
    fn is_quiet(&self) -> bool {
        let alarm = self.tree.lock().next_deadline();
        let next = self.worker.quiet.next(alarm, self.tree.clock.is_virtual(), || self.pending());
        matches!(next, Some((Next::Deadlock | Next::Suspicious, _)))
    }

    fn report_cycles(&mut self) {
        match self.worker.suspicion.look(self.tree, self.root.get_ref()) {
            Some(Found::New(report)) => crate::report_warn!("{report}"),
            Some(Found::Stands(report)) if self.cycles_end && self.deadlock.is_none() => self.end(report),
            Some(Found::Stands(_)) | None => {}
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

    /// Looks at the driver, and sleeps in it if nothing can run. Whether it set out to sleep.
    fn wait(&mut self) -> bool {
        let driver = &*self.worker.driver;
        if self.has_work() || self.look() {
            check(driver, driver.poll());
            return false;
        }
        let mut locked = self.tree.lock();
        let alarm = locked.next_deadline();
        locked.set_alarm(alarm);
        drop(locked);
        let next = self.worker.quiet.next(alarm, self.tree.clock.is_virtual(), || self.pending());
        if let Some((Next::Suspicious, _)) = next {
            self.suspicious(alarm);
            return true;
        }
        if let Some((next, after)) = next {
            self.quiet(next, after, alarm);
            return true;
        }
        let timeout = (alarm != NEVER).then(|| {
            let alarm = self.worker.idle.rests_until(alarm);
            Duration::from_nanos(alarm.saturating_sub(self.tree.clock.now()))
        });
        let timeout = match self.worker.suspicion.due() {
            // To look at a cycle again that may have stood for long enough by then, but not in a hurry.
            Some(due) if self.cycles_end && self.deadlock.is_none() => {
                let left = Duration::from_nanos(due.saturating_sub(self.tree.clock.now())).max(SOON * 10);
                Some(timeout.map_or(left, |timeout| timeout.min(left)))
            }
            _ => timeout,
        };
        if self.tree.parker.prepare() {
            let begin = self.tree.clock.moment();
            let parked = self.worker.park(timeout);
            self.worker.idle.slept(self.tree.parker.was_rung(), || self.tree.clock.since(begin));
            self.tree.parker.awake();
            check(driver, parked);
        }
        true
    }

    /// Looks for what other threads send, or at the driver, instead of sleeping, for as long as that pays. Whether something came.
    fn look(&self) -> bool {
        let idle = &self.worker.idle;
        let (for_threads, parker) = (idle.looks(), &self.tree.parker);
        let length = for_threads.max(idle.spin);
        if length.is_zero() || self.tree.clock.is_virtual() {
            return false;
        }
        if parker.is_notified() {
            // Of the turn that has ended, as a rule: it says nothing.
            parker.awake();
            return true;
        }
        let driver = &*self.worker.driver;
        let looks_at_driver = !idle.spin.is_zero() || driver.in_flight() > 0;
        let begin = Instant::now();
        let until =
            nanos(begin).saturating_add(u64::try_from(length.as_nanos()).unwrap_or(NEVER)).min(self.tree.next_look());
        let found = loop {
            for _ in 0..LOOKS {
                if parker.is_notified() {
                    break;
                }
                std::hint::spin_loop();
            }
            if parker.is_notified() {
                parker.awake();
                break true;
            }
            if looks_at_driver {
                // Who asked for it pays for system calls, if it takes some; who looks for threads does not.
                check(driver, if idle.spin.is_zero() { driver.poll() } else { driver.poll_now() });
                if self.has_work() {
                    return true;
                }
            }
            if self.tree.clock.now() >= until {
                break false;
            }
        };
        let cut_short = until == self.tree.next_look();
        if !for_threads.is_zero() && (found || !cut_short) {
            idle.looked(found);
        }
        found
    }

    /// Who is going to wake the run for certain, or might be asked to by somebody who has a handle.
    fn pending(&self) -> usize {
        self.worker.driver.in_flight() + self.worker.calls.get().map_or(0, Calls::handles)
    }

    /// Every task waits, and only another thread can wake one, if there is one. Sleeps, and looks for threads from time to time. Returns if
    /// something can run, a deadline was set, or the run is to end.
    #[cold]
    fn suspicious(&mut self, alarm: u64) {
        let (driver, begin) = (self.worker.driver.clone(), Instant::now());
        let (mut look, mut said) = (SOON, false);
        loop {
            // What is in the kernel comes first; and whatever another thread did before it ended is seen after it was not there any more.
            if self.has_work() || self.tree.next_look() < alarm || self.pending() > 0 {
                return;
            }
            let left = look.saturating_sub(begin.elapsed());
            if !left.is_zero() {
                if !self.tree.parker.prepare() {
                    return;
                }
                let slept = Instant::now();
                let parked = driver.park(Some(left));
                self.worker.idle.slept(self.tree.parker.was_rung(), || slept.elapsed());
                self.tree.parker.awake();
                check(&*driver, parked);
                continue;
            }
            let others = threads::others();
            check(&*driver, driver.poll());
            if self.has_work() || self.tree.next_look() < alarm || self.pending() > 0 {
                return;
            }
            let passed = begin.elapsed();
            if others.as_ref().is_some_and(Vec::is_empty) {
                let text = every_task_waits(alarm, true);
                return self.end(self.report(text));
            }
            look = if passed < GRACE { GRACE } else { passed + passed.min(SELDOM) };
            if self.worker.suspicion.any() {
                self.report_cycles();
            }
            if passed >= GRACE && !std::mem::replace(&mut said, true) && self.deadlock.is_none() {
                // Code of others, after which everything is looked at again.
                let report = self.report(waits_for_threads(others));
                crate::report_warn!("{report}");
            }
        }
    }

    /// Lets real time pass in which nothing can run, and then does what comes next. Returns early if something can run, a real deadline
    /// is due, or the next deadline is another one.
    #[cold]
    fn quiet(&mut self, next: Next, after: Duration, alarm: u64) {
        let driver = &*self.worker.driver;
        let virtual_time = self.tree.clock.is_virtual();
        // What is due in the real world comes first, and the kernel may need a moment for what it has in hand.
        let after = match next {
            Next::Jump if driver.in_flight() > 0 => after.max(Duration::from_millis(1)),
            _ => after,
        };
        let begin = Instant::now();
        // Whoever is alone in its process need not wait for others.
        let mut asks = next == Next::Deadlock && after > SOON;
        let mut alone = false;
        check(driver, driver.poll());
        if alarm <= self.tree.clock.now() {
            // It is due, since somebody has moved the time by hand.
            return;
        }
        loop {
            // Or another thread has set an earlier deadline.
            if self.has_work() || self.tree.next_look() < alarm {
                return;
            }
            if asks && begin.elapsed() >= SOON {
                asks = false;
                alone = threads::others().is_some_and(|others| others.is_empty());
                // What another thread did before it ended is seen after it was not there any more.
                check(driver, driver.poll());
                if self.has_work() || self.tree.next_look() < alarm || self.pending() > 0 {
                    return;
                }
                if alone {
                    break;
                }
                if !BLIND && self.worker.suspicion.any() {
                    self.report_cycles();
                }
            }
            let mut left = if asks { SOON } else { after }.saturating_sub(begin.elapsed());
            if !virtual_time && alarm != NEVER {
                // Looked at first: a machine that was busy elsewhere may have let both pass.
                match alarm.saturating_sub(self.tree.clock.now()) {
                    0 => return,
                    sooner => left = left.min(Duration::from_nanos(sooner)),
                }
            }
            if left.is_zero() {
                break;
            }
            if !self.tree.parker.prepare() {
                return;
            }
            let parked = self.worker.park(Some(left));
            self.tree.parker.awake();
            check(driver, parked);
        }
        // Another thread may have moved the deadline that this was about, or taken it away.
        if self.tree.lock().next_deadline() != alarm {
            return;
        }
        match next {
            Next::Watchers(cushion) => {
                let _told = record::in_loop(Loop::Idles);
                self.worker.quiet.release(cushion);
            }
            Next::Jump => self.tree.clock.jump(alarm),
            Next::Deadlock => {
                let text = every_task_waits(alarm, alone);
                self.end(self.report(text));
            }
            Next::Suspicious => unreachable!("it is looked into elsewhere"),
        }
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

const NO_DEADLINE: &str = "no deadline is set";
const MOVED_BY_HAND: &str = "time is moved by hand, and nobody moves it";

/// The headline of the report of a run in which nothing can come; `alone`: there is no other thread.
fn every_task_waits(alarm: u64, alone: bool) -> String {
    let why = if alarm != NEVER { MOVED_BY_HAND } else { NO_DEADLINE };
    let nothing = match alone {
        true => "nothing is in flight, and no other thread is there that could wake one",
        false => "and nothing is in flight that could wake one",
    };
    format!("deadlock (N10): every task waits, {why}, {nothing}")
}

fn waits_for_threads(others: Option<Vec<String>>) -> String {
    let who = match others {
        None => "if there is one".to_string(),
        Some(names) if names.len() == 1 => format!("of which there is one: {}", names[0]),
        Some(names) => {
            let more = if names.len() > 4 { ", .." } else { "" };
            format!("of which there are {}: {}{more}", names.len(), names[..names.len().min(4)].join(", "))
        }
    };
    format!(
        "every task waits, no deadline is set, nothing is in flight: only another thread can wake a task, {who} (N10)"
    )
}

#[track_caller]
fn check(driver: &dyn Driver, result: std::io::Result<()>) {
    if let Err(error) = result {
        panic!("the {} driver cannot go on: {error}", driver.name());
    }
}

impl<F: Future> Drop for Run<'_, F> {
    fn drop(&mut self) {
        // Also on the way out of a panic of the driver: nothing may be left that points to this frame.
        let _entered = Entered::new(self.frame());
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

/// Calls `f` with the driver of the run on this thread, if there is one and it is a `D`.
pub fn with_driver<D: Driver, R>(f: impl FnOnce(&D) -> R) -> Option<R> {
    let worker = context::worker();
    if worker.is_null() {
        return None;
    }
    // SAFETY: [CURRENT] of the context module.
    let driver: &dyn std::any::Any = unsafe { &*(*worker).driver };
    driver.downcast_ref::<D>().map(f)
}

/// Where the driver of the run on this thread is in memory; null where there is none. To be compared only: that is a good deal cheaper than
/// [`with_driver`].
#[inline]
pub fn driver_address() -> *const () {
    let worker = context::worker();
    // SAFETY: [CURRENT] of the context module.
    if worker.is_null() { std::ptr::null() } else { std::ptr::from_ref(unsafe { &*(*worker).driver }).cast() }
}

/// Calls `f` with the worker of the run on this thread, if there is one.
pub(crate) fn with<R>(f: impl FnOnce(&Worker) -> R) -> Option<R> {
    // SAFETY: [CURRENT] of the context module.
    unsafe { context::worker().as_ref() }.map(f)
}

/// The name of the driver of the run on this thread, and how much it has in flight.
pub(crate) fn driver_state() -> (&'static str, usize) {
    let worker = context::worker();
    // SAFETY: [CURRENT] of the context module.
    unsafe { worker.as_ref() }.map_or(("none", 0), |worker| (worker.driver.name(), worker.driver.in_flight()))
}

/// Whether this thread is inside of a run.
pub fn in_run() -> bool {
    context::tree().is_some()
}

/// The time on the clock of the run; outside of a run, on the machine's.
pub fn now() -> u64 {
    context::tree().map_or_else(|| clock::nanos(std::time::Instant::now()), |tree| tree.clock.now())
}
