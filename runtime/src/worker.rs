//! What the thread that runs a loop knows, and how it looks at the clock and sleeps. The loop itself is in [`turns`](crate::turns).

mod options;

pub use self::options::Options;
use crate::blind::BLIND;
use crate::blocks::Blocks;
use crate::context;
use crate::driver::{Driver, OwnDriver};
use crate::idle::{Idle, Odd};
use crate::look::deadlock::Suspicion;
use crate::look::instrument::{Instruments, Watch};
use crate::look::livelock::Livelock;
use crate::look::record::{self, Loop};
use crate::look::watchdog::{self, Watching};
use crate::parker::Wakeup;
use crate::quiet::Quiet;
use crate::ready::Newborn;
use crate::run_handle::Calls;
use crate::schedule::Schedule;
use crate::time::clock::{self, A_WHILE, Moment, NEVER};
use crate::tree::Tree;
use std::cell::{Cell, OnceCell};
use std::panic::Location;
use std::rc::Rc;
use std::time::Duration;

/// What the thread that runs a loop knows, beside the tree.
pub(crate) struct Worker {
    /// The memory of children that have ended.
    pub blocks: Blocks,
    pub driver: OwnDriver,
    /// What is to be polled in another order than the ordinary one, for tests.
    pub schedule: Option<Schedule>,
    pub quiet: Quiet,
    pub idle: Idle,
    pub suspicion: Suspicion,
    pub livelock: Livelock,
    /// What other threads have it run; made with the first handle.
    pub calls: OnceCell<Calls>,
    /// The instruments; made with the first.
    watch: OnceCell<Watch>,
    /// There are instruments, or have been, or there is another order.
    special: Cell<bool>,
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
pub(crate) const CLOCK_EVERY: u32 = 32;

impl Worker {
    pub fn new(tree: &'static Tree, driver: Rc<dyn Driver>, instruments: Instruments, options: &Options) -> Self {
        let (schedule, watch) = (Schedule::new(options.order), Watch::new(instruments));
        let special = Cell::new(schedule.is_some() || watch.is_some());
        let idle = Idle::new(options.spin, driver.slack());
        if options.virtual_time {
            idle.set(Odd::Virtual);
        }
        Self {
            blocks: Blocks::new(),
            driver: OwnDriver::new(driver),
            schedule,
            quiet: Quiet::new(options),
            idle,
            suspicion: Suspicion::default(),
            livelock: Livelock::new(options.livelock),
            calls: OnceCell::new(),
            special,
            watch: watch.map_or_else(OnceCell::new, OnceCell::from),
            told: Cell::new(None),
            blocked: options
                .blocked_after
                .filter(|_| !BLIND)
                .map(|limit| Watching::new(tree, limit, options.blocked_is_error)),
            looked: Cell::new(Moment::At(0)),
            told_once: Cell::new(false),
        }
    }

    /// Whether tasks are polled in another way than the ordinary: in another order, or so that instruments see it.
    #[inline(always)]
    pub fn polls_specially(&self) -> bool {
        self.special.get()
    }

    /// The instruments, if there ever were some.
    pub fn watch(&self) -> Option<&Watch> {
        self.watch.get()
    }

    /// Room for instruments.
    pub fn make_watch(&self) -> &Watch {
        self.special.set(true);
        self.watch.get_or_init(Watch::default)
    }

    /// Sleeps in the driver.
    pub fn park(&self, timeout: Option<Duration>) -> std::io::Result<()> {
        self.blocks.rest(timeout);
        self.driver.park(timeout)
    }

    /// The same without a timeout, if something is in flight there; an error of its own if nothing is.
    #[inline(always)]
    pub fn park_in_flight(&self) -> std::io::Result<()> {
        self.blocks.rest(None);
        self.driver.park_in_flight()
    }

    /// It is awake again.
    #[inline(always)]
    pub fn awake(&self, tree: &Tree) -> Wakeup {
        let wakeup = tree.parker.awake();
        if !BLIND && wakeup.is_unwatched() {
            watchdog::rouse();
        }
        wakeup
    }

    /// What the loop does between two turns while something can run, on behalf of a nursery whose children are all that can: looks at the driver,
    /// and applies deadlines. What is woken by it, anywhere, notifies the parker. To be called as the loop does it, in no task and no queue.
    pub fn between_turns(&self, tree: &'static Tree) {
        check(&*self.driver, self.driver.poll());
        self.expire(tree);
    }

    /// Applies the deadlines that are due (R45). A busy loop does not read the clock where none can be due, since that costs more than
    /// the rest of the turn: in most turns if there are no deadlines, and while the next one is further off than the time that has
    /// passed since it looked. A turn beside a deadline of a minute takes 30 ns instead of 75 by that.
    #[inline(always)]
    pub fn expire(&self, tree: &'static Tree) {
        tree.current.next_turn(false);
        if tree.next_look() != NEVER || tree.current.turn().is_multiple_of(CLOCK_EVERY) {
            self.look_in_time(tree);
        }
    }

    #[inline(never)]
    fn look_in_time(&self, tree: &'static Tree) {
        let next = tree.next_look();
        let far = next != NEVER && next > tree.turn_time().saturating_add(A_WHILE);
        if far && tree.clock.is_recent(self.looked.get()) {
            return;
        }
        if !BLIND {
            self.livelock.turn(tree);
        }
        self.look_at_clock(tree);
    }

    /// The same after a sleep.
    #[inline(always)]
    pub fn expire_after_sleep(&self, tree: &'static Tree) {
        tree.current.next_turn(true);
        self.look_at_clock(tree);
    }

    /// Of a loop that sleeps between two messages, a look at the clock was a tenth of what it does for each. So the time is reckoned, where no deadline is
    /// near enough to be met early by that.
    #[inline(always)]
    fn look_at_clock(&self, tree: &'static Tree) {
        match tree.clock.look_near().filter(|(_, now)| tree.next_look() > now.saturating_add(A_WHILE)) {
            Some((moment, now)) => {
                self.looked.set(moment);
                tree.set_turn_time(now);
            }
            None => self.expire_now(tree),
        }
    }

    #[inline(never)]
    fn expire_now(&self, tree: &'static Tree) {
        let (moment, now) = tree.clock.look();
        self.looked.set(moment);
        tree.set_turn_time(now);
        if !BLIND {
            context::set_newborn(Newborn::at(now));
        }
        if tree.next_look() <= now {
            let mut locked = tree.lock();
            let expired = locked.expire(now);
            if expired > 0 {
                self.idle.expired(now, expired);
                let _told = record::in_loop(Loop::Expires);
                drop(locked);
            }
        }
    }
}

#[track_caller]
#[inline(always)]
pub(crate) fn check(driver: &dyn Driver, result: std::io::Result<()>) {
    if let Err(error) = result {
        cannot_go_on(driver, &error);
    }
}

#[track_caller]
#[cold]
pub(crate) fn cannot_go_on(driver: &dyn Driver, error: &std::io::Error) -> ! {
    panic!("the {} driver cannot go on: {error}", driver.name());
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
    if worker.is_null() { std::ptr::null() } else { unsafe { (*worker).driver.address() } }
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
