//! The watchdog: one thread of the process that names a task, or a call of a run handle, which holds up its loop.
//!
//! A loop notes which task it polls, by a store that it makes for the task itself anyway, and counts its turns. The watchdog looks at both twice within the limit, and more often
//! where it finds the same again: a task that it finds again and again in the same turn has not yielded meanwhile. It finds out who that is in the task tree,
//! as whoever [looks on](crate::look::onlook) does; of what the loop has noted it follows no pointer.
//!
//! While every loop sleeps, and has done so since the last look, there is nothing to see, and the watchdog sleeps as well, until a loop is
//! awake again ([`Doze`]). It says so in the word of each [`Parker`], which a loop that is awake again changes in one step: so either the loop
//! finds that the watchdog sleeps, or the watchdog that the loop does not.
//!
//! Reports are made by the watchdog's thread, under no lock.

use crate::look::snapshot::{self, length, short};
use crate::parker::Parker;
use crate::scope::cause::{Kind, Named};
use crate::sync::{AtomicBool, Condvar, Mutex, Ordering};
use crate::tree::Tree;
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// How often the watchdog looks within the limit.
///
/// Not more often than it has to: its timer is one of the core on which it slept, which is that of the loop where the process has only that. A core that goes idle
/// with a timer ahead is woken later (here, on a virtual machine; by a timer of 50 ms hardly): a single connection that echoes took 1.08 and 1.09 times as long as
/// with a raw loop (epoll, io_uring) when it looked ten times, and takes 1.01 and 1.02 without a watchdog; a process that does nothing but sleep for 10 ms again and
/// again, beside the raw loop, makes that take 1.06 (medians of 15 to 21 pairs, on a quiet machine).
const LOOKS: u32 = 2;

/// The same while a task has been found in the same turn twice.
const CLOSER_LOOKS: u32 = 10;

/// Where the watchdog sleeps while all loops do.
#[derive(Debug)]
pub struct Doze {
    dozing: Mutex<Dozing>,
    wakes: Condvar,
}

#[derive(Debug)]
struct Dozing {
    sleeps: bool,
    /// A loop is awake: it does not sleep, or not for longer.
    roused: bool,
}

impl Doze {
    /// It is awake.
    #[cfg(not(trefoil_loom))]
    pub const fn new() -> Self {
        Self { dozing: Mutex::new(Dozing { sleeps: false, roused: false }), wakes: Condvar::new() }
    }

    /// It is awake.
    #[cfg(trefoil_loom)]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { dozing: Mutex::new(Dozing { sleeps: false, roused: false }), wakes: Condvar::new() }
    }

    /// To be called by a loop that is awake and was [unwatched](crate::parker::Wakeup::is_unwatched), or has just begun.
    #[cold]
    pub fn rouse(&self) {
        let mut dozing = self.dozing.lock();
        dozing.roused = true;
        let sleeps = dozing.sleeps;
        drop(dozing);
        if sleeps {
            self.wakes.notify_one();
        }
    }

    /// Sleeps until one of these loops is awake, unless one is: for the watchdog. Whether it slept.
    ///
    /// Word that was left by a loop which was awake for a moment, before, makes it a sleep that ends at once.
    pub fn sleep<'a>(&self, loops: impl Iterator<Item = &'a Parker> + Clone) -> bool {
        let all_asleep = loops.clone().all(Parker::unwatch);
        if all_asleep {
            let mut dozing = self.dozing.lock();
            dozing.sleeps = true;
            while !dozing.roused {
                dozing = self.wakes.wait(dozing).unwrap_or_else(std::sync::PoisonError::into_inner);
            }
            *dozing = Dozing { sleeps: false, roused: false };
        }
        // One is enough.
        loops.for_each(Parker::watch);
        all_asleep
    }
}

#[cfg(not(trefoil_loom))]
static DOZE: Doze = Doze::new();
#[cfg(not(trefoil_loom))]
static WATCHED: Mutex<Vec<Arc<Watched>>> = Mutex::new(Vec::new());
// Loom's are not made by constants. No model runs a loop, which would use them.
#[cfg(trefoil_loom)]
static DOZE: std::sync::LazyLock<Doze> = std::sync::LazyLock::new(Doze::new);
#[cfg(trefoil_loom)]
static WATCHED: std::sync::LazyLock<Mutex<Vec<Arc<Watched>>>> = std::sync::LazyLock::new(|| Mutex::new(Vec::new()));

/// A loop is awake again, which the watchdog does not see since it sleeps.
#[cold]
pub(crate) fn rouse() {
    DOZE.rouse();
}

/// A run that is watched.
#[derive(Debug)]
pub(crate) struct Watched {
    tree: &'static Tree,
    limit: Duration,
    /// What was seen last. Of the watchdog, and of the loop at its end.
    seen: Mutex<Option<Seen>>,
    /// There is something to be told to the loop, which makes it an error. Written under the lock of `seen`, which is left as it is until then.
    told: AtomicBool,
    is_error: bool,
}

/// A task that was found in a turn.
#[derive(Clone, Debug)]
struct Seen {
    /// For comparison alone.
    task: usize,
    turn: u32,
    since: Instant,
    /// It was found there again.
    again: bool,
    /// Who it is, once that was reported.
    who: Option<String>,
}

/// What is to be said, under no lock.
enum Report {
    Blocked(String, Duration),
    Over(String, Duration),
}

/// How a call is named, in front of where it was asked for.
const CALL: &str = "a call of a run handle, asked for at ";

impl Report {
    fn make(self) {
        match self {
            Report::Blocked(call, held) if call.starts_with(CALL) => crate::report_warn!(
                call,
                "a call has held up its loop for {}: it blocks its thread, or computes for too long",
                length(held)
            ),
            Report::Over(call, held) if call.starts_with(CALL) => {
                crate::report_warn!(call, "a call that held up its loop has returned, after {}", length(held))
            }
            Report::Blocked(task, held) => crate::report_warn!(
                task,
                "a task has held up its loop for {} without yielding: it blocks its thread, or computes for too long",
                length(held)
            ),
            Report::Over(task, held) => {
                crate::report_warn!(task, "a task that held up its loop has yielded, after {}", length(held))
            }
        }
    }
}

impl Watched {
    /// Until the next look.
    fn interval(&self) -> Duration {
        let looks = if self.seen.lock().as_ref().is_some_and(|seen| seen.again) { CLOSER_LOOKS } else { LOOKS };
        (self.limit / looks).clamp(Duration::from_millis(1), Duration::from_secs(1))
    }

    /// Looks what the loop does.
    fn look(&self, now: Instant) -> Option<Report> {
        let (task, turn) = (self.tree.current.busy_with(), self.tree.current.turn());
        let mut seen = self.seen.lock();
        match &mut *seen {
            Some(before) if task != 0 && (before.task, before.turn) == (task, turn) => {
                before.again = true;
                let held = now.saturating_duration_since(before.since);
                if held < self.limit || before.who.is_some() {
                    return None;
                }
                drop(seen);
                let who = self.who(task)?;
                let mut seen = self.seen.lock();
                // It may have ended meanwhile: then it is told with the total at the next look.
                let before = seen.as_mut()?;
                before.who = Some(who.clone());
                if self.is_error {
                    self.told.store(true, Ordering::Release);
                    self.tree.ask();
                }
                Some(Report::Blocked(who, held))
            }
            // The loop has not come to that yet: it is to find whom it fails for.
            _ if self.told.load(Ordering::Relaxed) => None,
            _ => {
                let new = (task != 0).then_some(Seen { task, turn, since: now, again: false, who: None });
                let before = std::mem::replace(&mut *seen, new)?;
                Some(Report::Over(before.who?, now.saturating_duration_since(before.since)))
            }
        }
    }

    /// The task with this address, or the call with this number, if it is still there and the loop is at it.
    fn who(&self, task: usize) -> Option<String> {
        if task & 1 != 0 {
            let place = self.tree.current.call()?;
            return (self.tree.current.busy_with() == task).then(|| format!("{CALL}{}", short(place)));
        }
        let who = snapshot::find(self.tree, task)?;
        (self.tree.current.get().addr() == task).then(|| {
            let named = Named(who.name.as_deref(), who.place);
            match who.kind {
                Kind::Run => format!("the main task {named}"),
                kind if who.body => format!("the body of {kind} {named}"),
                _ => format!("task {named}"),
            }
        })
    }

    /// What the loop has to fail with, if it is to.
    pub fn error(&self) -> Option<String> {
        if self.told.load(Ordering::Relaxed) { self.take_error() } else { None }
    }

    #[cold]
    fn take_error(&self) -> Option<String> {
        let mut seen = self.seen.lock();
        self.told.store(false, Ordering::Relaxed);
        let seen = seen.take()?;
        let who = seen.who?;
        let what = if who.starts_with(CALL) { "call" } else { "task" };
        let (held, limit) = (length(seen.since.elapsed()), length(self.limit));
        Some(format!("a {what} held up its loop for {held}, where {limit} are allowed: {who}"))
    }
}

/// Watches a run until it is dropped.
#[derive(Debug)]
pub(crate) struct Watching(Arc<Watched>);

impl std::ops::Deref for Watching {
    type Target = Watched;
    fn deref(&self) -> &Watched {
        &self.0
    }
}

impl Watching {
    /// Begins to watch a run, with the thread that does it if there is none yet.
    pub fn new(tree: &'static Tree, limit: Duration, is_error: bool) -> Self {
        let watched = Arc::new(Watched { tree, limit, seen: Mutex::new(None), told: AtomicBool::new(false), is_error });
        WATCHED.lock().push(watched.clone());
        // Its limit may be shorter than those that the watchdog rests for.
        if let Some(watchdog) = started() {
            watchdog.unpark();
        }
        DOZE.rouse();
        Self(watched)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        WATCHED.lock().retain(|watched| !Arc::ptr_eq(watched, &self.0));
        let seen = self.0.seen.lock().take();
        if let Some(Seen { who: Some(who), since, .. }) = seen {
            Report::Over(who, since.elapsed()).make();
        }
    }
}

/// The watchdog's thread, if there could be one.
fn started() -> Option<&'static Thread> {
    static STARTED: OnceLock<Option<Thread>> = OnceLock::new();
    let mut failed = None;
    let started = STARTED.get_or_init(|| {
        let spawned = std::thread::Builder::new().name("trefoil-watchdog".into()).spawn(watch);
        spawned.map(|handle| handle.thread().clone()).map_err(|error| failed = Some(error)).ok()
    });
    // Out here: a subscriber is code of others, which may begin a run, and come here again.
    if let Some(error) = failed {
        crate::report_warn!(%error, "there is no thread for the watchdog: nobody says which task holds up its loop");
    }
    started.as_ref()
}

fn watch() {
    let _wakes_nobody = crate::look::threads::ServiceThread::here();
    // The turns of all loops at the last look.
    let mut before = 0_u32;
    loop {
        let all = WATCHED.lock().clone();
        for watched in &all {
            if let Some(report) = watched.look(Instant::now()) {
                // A subscriber is code of others. Were its panic the watchdog's end, nobody would hear of the next task.
                if let Err(payload) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| report.make())) {
                    crate::payload::discard(payload);
                }
            }
        }
        // A loop that sleeps at this moment, and has run since the last look, will be awake again in a moment: to be roused takes it a
        // system call, and a turn of this thread on its core, in front of whatever has woken it. One connection that echoes took 3.006 system
        // calls for a message by that on epoll and 2.008 on io_uring; it takes 3.003 and 2.002.
        let turns = all.iter().fold(0_u32, |sum, watched| sum.wrapping_add(watched.tree.current.turn()));
        let rests = std::mem::replace(&mut before, turns) == turns;
        // Who has begun to be watched since rouses it.
        let slept = rests && DOZE.sleep(all.iter().map(|watched| &watched.tree.parker));
        // Among those that are watched now: that one may have a shorter limit than the others.
        let interval = WATCHED.lock().iter().map(|watched| watched.interval()).min();
        if !slept || interval.is_some() {
            std::thread::park_timeout(interval.unwrap_or(Duration::from_millis(1)));
        }
    }
}

#[cfg(all(test, not(trefoil_loom)))]
mod tests {
    use super::started;
    use tracing::{Event, Metadata, Subscriber, span};

    /// Begins a run where it is told something, as far as the watchdog is concerned.
    struct Begins(std::sync::mpsc::Sender<bool>);

    impl Subscriber for Begins {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn event(&self, _: &Event<'_>) {
            self.0.send(started().is_some()).unwrap();
        }
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    #[test]
    #[cfg_attr(miri, ignore = "it has no other processes")]
    fn who_is_told_that_there_is_no_watchdog_may_begin_a_run() {
        if !crate::no_threads::is_here("look::watchdog::tests::who_is_told_that_there_is_no_watchdog_may_begin_a_run") {
            return;
        }
        let (told, hears) = std::sync::mpsc::channel();
        tracing::subscriber::with_default(Begins(told), || assert!(started().is_none()));
        assert_eq!(hears.iter().collect::<Vec<_>>(), [false], "once");
    }
}
