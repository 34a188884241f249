//! What the loop does before it sleeps: it may look for a while first, and it does not get up for each of many deadlines.
//!
//! **Looking** ([`Idle::looks`]). To sleep and be woken by another thread takes 20 µs and more; the answer of a thread that is awake is there in a fraction of one.
//! So a loop that was woken by another thread soon after it had gone to sleep, time and again, looks for [`LOOK`] first: two threads that
//! hand each other items do so in 0.5 µs instead of 49 (`channel-threads` of the benchmarks, 8483f67 on an AMD EPYC, there and back; others sleep). Where it looks in vain it does so less often, half as often each time:
//! what is wasted stays a small part. `Builder::spin` has it look always, at the driver too.
//!
//! **Resting** ([`Idle::rests_until`]). Where deadlines are dense, which is where several were due together, the loop sleeps for [`REST`] and takes the next ones together: 100,000 sleeps
//! that end within a second cost a fifth of the processor's time. A deadline that is alone is not late by that.
//!
//! Why it does not simply sleep, as nearly always, is in one word ([`Odd`]), which is all that it looks at then.

use std::cell::Cell;
use std::time::Duration;

/// How long the loop looks for what another thread may be about to send: about what it costs that thread to be woken itself.
const LOOK: Duration = Duration::from_micros(40);

/// A sleep that another thread ended so soon would have been better spent looking.
const SHORT: Duration = Duration::from_micros(100);

/// So many short sleeps in a row, at first, before it looks.
const NEEDED: u32 = 3;

/// In nanoseconds, from when deadlines were due to when the next ones are looked at, with what the kernel adds to a sleep. In a row of dense ones each is late by
/// the half of it, and some 10 µs.
const REST: u64 = 80_000;

/// Why a loop that has nothing to run may have something else to do than to sleep. A bit each.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(crate) enum Odd {
    /// It may look for a while.
    Looks = 1,
    /// Time is virtual: it may jump.
    Virtual = 2,
    /// There have been tasks that wait for all others to be blocked.
    Watchers = 4,
    /// There may be tasks that wait for each other.
    Cycles = 8,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Idle {
    /// How long to look in any case, at the driver too.
    pub spin: Duration,
    /// Short sleeps, or looks that were not in vain, in a row.
    short: Cell<u32>,
    /// How many it takes.
    needed: Cell<u32>,
    /// How long it rests, in nanoseconds.
    rest: u64,
    rested: Cell<u64>,
    /// Bits of [`Odd`].
    odd: Cell<u8>,
}

impl Idle {
    /// `slack` is that of the driver.
    pub fn new(spin: Duration, slack: Duration) -> Self {
        let rest = REST.saturating_sub(u64::try_from(slack.as_nanos()).unwrap_or(u64::MAX));
        let odd = Cell::new(if spin.is_zero() { 0 } else { Odd::Looks as u8 });
        Self { spin, short: Cell::new(0), needed: Cell::new(NEEDED), rest, rested: Cell::new(0), odd }
    }

    /// Whether there is nothing to do but to sleep.
    #[inline(always)]
    pub fn is_plain(&self) -> bool {
        self.odd.get() == 0
    }

    /// Whether that may be a reason for something else.
    pub fn has(&self, odd: Odd) -> bool {
        self.odd.get() & odd as u8 != 0
    }

    /// It may be.
    pub fn set(&self, odd: Odd) {
        self.odd.set(self.odd.get() | odd as u8);
    }

    /// It is not.
    pub fn unset(&self, odd: Odd) {
        self.odd.set(self.odd.get() & !(odd as u8));
    }

    /// For how long to look at what other threads send before going to sleep.
    #[inline]
    pub fn looks(&self) -> Duration {
        if cfg!(not(trefoil_loom)) && self.short.get() >= self.needed.get() { LOOK } else { Duration::ZERO }
    }

    /// Whether it looks at all.
    pub fn looks_first(&self) -> bool {
        let looks = !self.looks().is_zero() || !self.spin.is_zero();
        if !looks {
            self.unset(Odd::Looks);
        }
        looks
    }

    /// It looked: whether something came.
    pub fn looked(&self, found: bool) {
        if found {
            self.needed.set(NEEDED);
        } else {
            self.short.set(0);
            self.needed.set(self.needed.get().saturating_mul(2).min(1 << 20));
        }
    }

    /// It slept, and no other thread has woken it.
    #[inline(always)]
    pub fn slept(&self) {
        self.short.set(0);
    }

    /// It slept until another thread woke it.
    pub fn slept_until_woken(&self, for_how_long: Duration) {
        if for_how_long < SHORT {
            self.short.set(self.short.get().saturating_add(1));
            if !self.looks().is_zero() {
                self.set(Odd::Looks);
            }
        } else {
            self.short.set(0);
        }
    }

    /// So many deadlines were due now.
    pub fn expired(&self, now: u64, how_many: usize) {
        if how_many > 1 {
            self.rested.set(now.saturating_add(self.rest));
        }
    }

    /// When to get up for a deadline.
    pub fn rests_until(&self, deadline: u64) -> u64 {
        deadline.max(self.rested.get())
    }
}

#[cfg(all(test, not(trefoil_loom)))]
mod tests {
    use super::*;

    fn short_sleeps(idle: &Idle, n: u32) {
        for _ in 0..n {
            idle.slept_until_woken(Duration::from_micros(20));
        }
    }

    #[test]
    fn who_may_look_is_no_plain_sleeper_until_it_has_been_found_not_to() {
        let idle = Idle::new(Duration::ZERO, Duration::ZERO);
        assert!(idle.is_plain());
        short_sleeps(&idle, NEEDED - 1);
        assert!(!idle.looks_first() && idle.is_plain());
        short_sleeps(&idle, 1);
        assert!(!idle.is_plain() && idle.looks_first());
        idle.set(Odd::Cycles);
        idle.slept();
        assert!(!idle.looks_first() && !idle.is_plain() && idle.has(Odd::Cycles));
        idle.unset(Odd::Cycles);
        assert!(idle.is_plain());
        let spins = Idle::new(Duration::from_micros(1), Duration::ZERO);
        spins.slept();
        assert!(spins.looks_first() && !spins.is_plain(), "it always does");
    }

    #[test]
    fn it_looks_after_short_sleeps_and_seldom_where_that_was_in_vain() {
        let idle = Idle::new(Duration::ZERO, Duration::ZERO);
        assert_eq!(idle.looks(), Duration::ZERO);
        short_sleeps(&idle, NEEDED);
        assert_eq!(idle.looks(), LOOK);
        idle.looked(true);
        assert_eq!(idle.looks(), LOOK, "it goes on for as long as something comes");
        for vain in 1..10 {
            idle.looked(false);
            short_sleeps(&idle, (NEEDED << vain) - 1);
            assert_eq!(idle.looks(), Duration::ZERO);
            short_sleeps(&idle, 1);
            assert_eq!(idle.looks(), LOOK);
        }
        idle.slept();
        assert_eq!(idle.looks(), Duration::ZERO, "the kernel is not to be waited for like that");
        short_sleeps(&idle, if cfg!(miri) { NEEDED << 10 } else { u32::MAX >> 8 });
        idle.slept_until_woken(SHORT);
        assert_eq!(idle.looks(), Duration::ZERO);
    }

    #[test]
    fn a_deadline_that_is_alone_is_not_late() {
        let idle = Idle::new(Duration::ZERO, Duration::ZERO);
        assert_eq!(idle.rests_until(5), 5);
        idle.expired(1_000, 1);
        assert_eq!(idle.rests_until(1_001), 1_001, "one was before it, as where a task sleeps again and again");
        idle.expired(1_000, 2);
        assert_eq!(idle.rests_until(1_001), 1_000 + REST);
        assert_eq!(idle.rests_until(1_000 + REST + 1), 1_000 + REST + 1);
        // What the kernel adds is part of it.
        for (slack, rest) in [(50_000, REST - 50_000), (REST, 0), (u64::MAX, 0)] {
            let idle = Idle::new(Duration::ZERO, Duration::from_nanos(slack));
            idle.expired(1_000, 2);
            assert_eq!(idle.rests_until(1_001), (1_000 + rest).max(1_001));
        }
    }
}
