//! How the loop passes the time in which nothing can run.

use super::Run;
use crate::blind::BLIND;
use crate::look::deadlock::SOON;
use crate::quiet::Next;
use crate::run_handle::Calls;
use crate::time::clock::{Moment, NEVER, nanos};
use crate::worker::check;
use std::future::Future;
use std::io;
use std::time::{Duration, Instant};

/// How often it looks whether it was notified before it looks at the clock and the driver: a microsecond or two.
const LOOKS: u32 = 32;

impl<F: Future> Run<'_, F> {
    /// Looks at the driver, and sleeps in it if nothing can run. Whether it set out to sleep.
    pub(super) fn wait(&mut self) -> bool {
        self.wait_until(None)
    }

    /// The same, where a cycle of tasks that wait for each other is to be looked at again when it will have stood for long enough.
    #[inline(always)]
    pub(super) fn wait_until(&mut self, due: Option<u64>) -> bool {
        let driver = &*self.worker.driver;
        if self.has_work() || self.look() {
            check(driver, driver.poll());
            return false;
        }
        let alarm = self.tree.set_alarm();
        if due.is_some() || self.worker.quiet.has_watchers() || self.tree.clock.is_virtual() {
            return self.rest(alarm, due);
        }
        if BLIND || alarm != NEVER {
            self.sleep(alarm, None);
        } else if self.tree.parker.prepare() {
            let begin = self.tree.clock.moment();
            match self.worker.park_in_flight() {
                Some(parked) => self.slept(begin, parked),
                None => {
                    self.worker.awake(self.tree);
                    return self.rest(alarm, None);
                }
            }
        }
        true
    }

    /// Sleeps, where there may be nothing that could end that, or where a run for tests has something else to do then.
    #[cold]
    fn rest(&mut self, alarm: u64, due: Option<u64>) -> bool {
        match self.worker.quiet.next(alarm, self.tree.clock.is_virtual(), || self.pending()) {
            Some((Next::Suspicious, _)) => self.suspicious(alarm),
            Some((next, after)) => self.quiet(next, after, alarm),
            None => self.sleep(alarm, due),
        }
        true
    }

    /// Sleeps in the driver, until a deadline at the latest.
    #[inline(always)]
    fn sleep(&self, alarm: u64, due: Option<u64>) {
        let timeout = (alarm != NEVER).then(|| {
            let alarm = self.worker.idle.rests_until(alarm);
            Duration::from_nanos(alarm.saturating_sub(self.tree.clock.now()))
        });
        let timeout = match due {
            // Not in a hurry.
            Some(due) => {
                let left = Duration::from_nanos(due.saturating_sub(self.tree.clock.now())).max(SOON * 10);
                Some(timeout.map_or(left, |timeout| timeout.min(left)))
            }
            None => timeout,
        };
        if self.tree.parker.prepare() {
            let begin = self.tree.clock.moment();
            self.slept(begin, self.worker.park(timeout));
        }
    }

    #[inline(always)]
    fn slept(&self, begin: Moment, parked: io::Result<()>) {
        self.worker.idle.slept(self.tree.parker.was_rung(), || self.tree.clock.since(begin));
        self.worker.awake(self.tree);
        check(&*self.worker.driver, parked);
    }

    /// Looks for what other threads send, or at the driver, instead of sleeping, for as long as that pays. Whether something came.
    #[inline(always)]
    fn look(&self) -> bool {
        // Apart, so that a turn that goes to sleep at once does not pay for what the other one needs (37 instructions).
        !self.worker.idle.sleeps_at_once() && !self.tree.clock.is_virtual() && self.look_for_a_while()
    }

    #[inline(never)]
    fn look_for_a_while(&self) -> bool {
        let idle = &self.worker.idle;
        let (for_threads, parker) = (idle.looks(), &self.tree.parker);
        let length = for_threads.max(idle.spin);
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
    pub(super) fn pending(&self) -> usize {
        self.worker.driver.in_flight() + self.worker.calls.get().map_or(0, Calls::handles)
    }
}
