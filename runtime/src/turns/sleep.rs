//! How the loop passes the time in which nothing can run.

use super::Run;
use crate::clock::{NEVER, nanos};
use crate::deadlock::SOON;
use crate::quiet::Next;
use crate::run_handle::Calls;
use crate::worker::check;
use std::future::Future;
use std::time::{Duration, Instant};

/// How often it looks whether it was notified before it looks at the clock and the driver: a microsecond or two.
const LOOKS: u32 = 32;

impl<F: Future> Run<'_, F> {
    /// Looks at the driver, and sleeps in it if nothing can run. Whether it set out to sleep.
    pub(super) fn wait(&mut self) -> bool {
        let driver = &*self.worker.driver;
        if self.has_work() || self.look() {
            check(driver, driver.poll());
            return false;
        }
        let alarm = self.tree.set_alarm();
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
            Some(due) if self.deadlock.is_none() => {
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
    pub(super) fn pending(&self) -> usize {
        self.worker.driver.in_flight() + self.worker.calls.get().map_or(0, Calls::handles)
    }
}
