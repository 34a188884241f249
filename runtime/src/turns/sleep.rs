//! How the loop passes the time in which nothing can run.

use super::Run;
use crate::blind::BLIND;
use crate::driver::is_nothing_in_flight;
use crate::idle::Odd;
use crate::look::deadlock::SOON;
use crate::look::watchdog;
use crate::parker::Wakeup;
use crate::quiet::Next;
use crate::run_handle::Calls;
use crate::time::clock::{Moment, NEVER, nanos};
use crate::worker::{cannot_go_on, check};
use std::future::Future;
use std::io;
use std::time::{Duration, Instant};

/// How often it looks whether it was notified before it looks at the clock and the driver: a microsecond or two.
const LOOKS: u32 = 32;

impl<F: Future> Run<'_, F> {
    /// Looks at the driver, and sleeps in it if nothing can run. Whether it set out to sleep.
    #[inline(always)]
    pub(super) fn wait(&mut self) -> bool {
        if self.has_work() {
            self.pass();
            if self.tree.is_asked() {
                self.tell_and_look();
            }
            return false;
        }
        if !self.worker.idle.is_plain() {
            return self.wait_oddly();
        }
        let alarm = self.tree.set_alarm();
        self.sleep_plainly(alarm);
        true
    }

    fn pass(&self) {
        let driver = &*self.worker.driver;
        check(driver, driver.poll());
    }

    #[cold]
    fn tell_and_look(&mut self) {
        self.tell();
        if self.worker.suspicion.any() {
            self.look_for_cycles();
        }
    }

    /// Where there may be something to do before it sleeps, or instead. Apart, so that others do not pay for it.
    #[inline(never)]
    fn wait_oddly(&mut self) -> bool {
        let mut due = None;
        if !BLIND && self.worker.idle.has(Odd::Cycles) {
            if self.worker.suspicion.any() {
                self.look_for_cycles();
                // When a cycle that stands will have stood for long enough.
                due = self.worker.suspicion.due().filter(|_| self.deadlock.is_none());
            } else {
                self.worker.idle.unset(Odd::Cycles);
            }
        }
        // Code of others may have been told, or the run cancelled.
        if self.has_work() || self.look() {
            self.pass();
            self.tell_if_asked();
            return false;
        }
        let alarm = self.tree.set_alarm();
        if due.is_some() || self.worker.idle.has(Odd::Watchers) || self.tree.clock.is_virtual() {
            self.rest(alarm, due);
        } else {
            self.sleep_plainly(alarm);
        }
        true
    }

    /// Sleeps, where there is nothing odd; but where no deadline is set, not if nothing is in flight either.
    #[inline(always)]
    fn sleep_plainly(&mut self, alarm: u64) {
        if alarm != NEVER {
            self.sleep(alarm, None);
        } else if self.prepare() {
            let begin = self.tree.clock.real_moment();
            match self.worker.park_in_flight() {
                Ok(()) => self.slept(begin),
                Err(error) => self.did_not_sleep(&error),
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn did_not_sleep(&mut self, error: &io::Error) {
        self.awake();
        if !is_nothing_in_flight(error) {
            cannot_go_on(&*self.worker.driver, error);
        }
        self.rest(NEVER, None);
    }

    /// Sleeps, where there may be nothing that could end that, or where a run for tests has something else to do then.
    #[cold]
    fn rest(&mut self, alarm: u64, due: Option<u64>) {
        match self.worker.quiet.next(alarm, self.tree.clock.is_virtual(), || self.pending()) {
            Some((Next::Suspicious, _)) => self.suspicious(alarm),
            Some((next, after)) => self.quiet(next, after, alarm),
            None => self.sleep(alarm, due),
        }
    }

    /// Sleeps in the driver, until a deadline at the latest.
    #[inline(never)]
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
        if self.prepare() {
            let begin = self.tree.clock.moment();
            let parked = self.worker.park(timeout);
            self.slept(begin);
            check(&*self.worker.driver, parked);
        }
    }

    #[inline(always)]
    pub(super) fn slept(&self, begin: Moment) {
        let wakeup = self.tree.parker.awake();
        if wakeup.is_plain() {
            self.worker.idle.slept();
        } else {
            self.was_woken(wakeup, begin);
        }
    }

    /// By another thread, or while the watchdog slept as well.
    #[inline(never)]
    fn was_woken(&self, wakeup: Wakeup, begin: Moment) {
        if !BLIND && wakeup.is_unwatched() {
            watchdog::rouse();
        }
        if wakeup.by_thread() {
            self.worker.idle.slept_until_woken(self.tree.clock.since(begin));
            self.tell_if_asked();
        } else {
            self.worker.idle.slept();
        }
    }

    /// Looks for what other threads send, or at the driver, instead of sleeping, for as long as that pays. Whether something came.
    fn look(&self) -> bool {
        self.worker.idle.looks_first() && !self.tree.clock.is_virtual() && self.look_for_a_while()
    }

    fn look_for_a_while(&self) -> bool {
        let idle = &self.worker.idle;
        let (for_threads, parker) = (idle.looks(), &self.tree.parker);
        let length = for_threads.max(idle.spin);
        if parker.is_notified() {
            // Of the turn that has ended, as a rule: it says nothing.
            let _ = parker.awake();
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
                let _ = parker.awake();
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
