//! What the loop does when nothing can come by itself: it makes sure of that, and then lets virtual time jump, or ends the run (N10).

use super::Run;
use crate::blind::BLIND;
use crate::look::deadlock::{self, Deadlock, Found, GRACE, SELDOM, SOON};
use crate::look::record::{self, Loop};
use crate::look::threads;
use crate::quiet::Next;
use crate::time::clock::NEVER;
use crate::worker::{CLOCK_EVERY, check};
use std::future::Future;
use std::time::{Duration, Instant};

impl<F: Future> Run<'_, F> {
    /// The report of a run in which every task waits.
    fn report(&self, headline: String) -> Deadlock {
        let now = self.tree.clock.now();
        deadlock::report(self.tree, self.root.get_ref(), now, headline)
    }

    /// Looks for tasks that wait for each other (N10).
    #[cold]
    pub(super) fn look_for_cycles(&mut self) {
        let sleeps = !self.has_work();
        if !sleeps && !self.tree.current.turn().is_multiple_of(CLOCK_EVERY) {
            return;
        }
        // Where nothing at all can go on the cycle is in the report of that, unless it has to be waited for.
        if !(sleeps && self.is_quiet() && self.worker.suspicion.puts_off()) {
            self.report_cycles(true);
        }
    }

    /// Whether nothing can come, unless another thread wakes a task.
    fn is_quiet(&self) -> bool {
        let alarm = self.tree.lock().next_deadline();
        let next = self.worker.quiet.next(alarm, self.tree.clock.is_virtual(), || self.pending());
        matches!(next, Some((Next::Deadlock | Next::Suspicious, _)))
    }

    /// Looks for them, and says what is new, if it `says` so.
    fn report_cycles(&mut self, says: bool) {
        match self.worker.suspicion.look(self.tree, self.root.get_ref(), self.cycles_end) {
            Some(Found::New(report)) if says => crate::report_warn!("{report}"),
            Some(Found::New(_)) => {}
            Some(Found::Stands(report)) if self.cycles_end && self.deadlock.is_none() => self.end(report),
            Some(Found::Stands(_)) | None => {}
        }
    }

    /// Every task waits, and only another thread can wake one, if there is one. Sleeps, and looks for threads from time to time. Returns if
    /// something can run, a deadline was set, or the run is to end.
    #[cold]
    pub(super) fn suspicious(&mut self, alarm: u64) {
        let (driver, begin) = (self.worker.driver.share(), Instant::now());
        let (mut look, mut said) = (SOON, false);
        loop {
            // What is in the kernel comes first; and whatever another thread did before it ended is seen after it was not there any more.
            if self.has_work() || self.tree.next_look() < alarm || self.pending() > 0 {
                return;
            }
            let left = look.saturating_sub(begin.elapsed());
            if !left.is_zero() {
                if !self.prepare() {
                    return;
                }
                let slept = self.tree.clock.moment();
                let parked = driver.park(Some(left));
                self.slept(slept);
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
            let says = passed >= GRACE && !said && self.deadlock.is_none();
            if self.worker.suspicion.any() {
                // They are in the report of the whole, too.
                self.report_cycles(!says);
            }
            if says {
                said = true;
                // Code of others, after which everything is looked at again.
                let report = self.report(waits_for_threads(others));
                crate::report_warn!("{report}");
            }
        }
    }

    /// Lets real time pass in which nothing can run, and then does what comes next. Returns early if something can run, a real deadline
    /// is due, or the next deadline is another one.
    #[cold]
    pub(super) fn quiet(&mut self, next: Next, after: Duration, alarm: u64) {
        let driver = &*self.worker.driver;
        let virtual_time = self.tree.clock.is_virtual();
        // What is due in the real world comes first, and the kernel may need a moment for what it has in hand.
        let after = match next {
            Next::Jump if driver.in_flight() > 0 => after.max(Duration::from_millis(1)),
            _ => after,
        };
        let begin = Instant::now();
        // Whoever is alone in its process need not wait for others. They may end meanwhile: it is looked at again when twice the time has passed.
        let mut asks = (next == Next::Deadlock && after > SOON).then_some(SOON);
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
            if let Some(at) = asks.filter(|at| begin.elapsed() >= *at) {
                asks = Some(at * 2).filter(|next| *next < after);
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
                    // Code of others may be told: everything is looked at again after that.
                    self.report_cycles(true);
                    continue;
                }
            }
            let mut left = asks.unwrap_or(after).saturating_sub(begin.elapsed());
            if !virtual_time && alarm != NEVER {
                // Looked at first: a machine that was busy elsewhere may have let both pass.
                match alarm.saturating_sub(self.tree.clock.now()) {
                    0 => return,
                    sooner => left = left.min(Duration::from_nanos(sooner)),
                }
            }
            if left.is_zero() {
                match asks {
                    // It is late for that: a machine that was busy elsewhere.
                    Some(_) => continue,
                    None => break,
                }
            }
            if !self.prepare() {
                return;
            }
            let parked = self.worker.park(Some(left));
            self.awake();
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
