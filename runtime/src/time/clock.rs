//! The clock of a run: the machine's, or a virtual one that stands still while anything can run and then jumps.
//!
//! Times are `std::time::Instant` to users and, inside, nanoseconds since a moment shortly before the first use in the process,
//! so that a time fits in a word and compares in an instruction. `u64::MAX` is "never".

use crate::sync::{AtomicU64, Ordering};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// "Never", as a time.
pub const NEVER: u64 = u64::MAX;

/// When the process first asked.
struct Start {
    /// Time 0: a day before, where the machine has been up so long, so that instants somewhat in the past keep their order.
    epoch: Instant,
    at: Instant,
    ticks: u64,
}

fn start() -> &'static Start {
    static START: OnceLock<Start> = OnceLock::new();
    START.get_or_init(|| {
        // The clock and the counter at one moment: of a few looks, the one in which least came between.
        let look = || {
            let (before, at) = (ticks().unwrap_or(0), Instant::now());
            (ticks().unwrap_or(0).saturating_sub(before), before, at)
        };
        let (_, ticks, at) = (0..4).map(|_| look()).min().expect("there are four");
        Start { epoch: at.checked_sub(Duration::from_secs(86_400)).unwrap_or(at), at, ticks }
    })
}

fn epoch() -> Instant {
    start().epoch
}

/// The processor's counter, which costs a third of a look at the clock; `None` where there is none that counts at one rate.
#[inline]
fn ticks() -> Option<u64> {
    #[cfg(all(target_arch = "x86_64", not(miri), not(trefoil_loom)))]
    // SAFETY: every x86-64 has the instruction.
    return Some(unsafe { std::arch::x86_64::_rdtsc() });
    #[cfg(not(all(target_arch = "x86_64", not(miri), not(trefoil_loom))))]
    None
}

/// So few ticks are no time worth working out: some ten microseconds.
const FEW_TICKS: u64 = 1 << 15;

/// No less than [`FEW_TICKS`] last, on any processor whose counter counts once in a nanosecond or oftener.
const BETWEEN: u64 = 33_000;

/// Longer than [`FEW_TICKS`] last, on any processor whose counter counts a third of a time in a nanosecond or oftener.
pub(crate) const A_WHILE: u64 = 100_000;

/// How long so many ticks are, given how many there were in how many nanoseconds.
fn elapsed(ticks: u64, run: (u64, u64)) -> u64 {
    if ticks < FEW_TICKS {
        return 0;
    }
    let nanos = u128::from(ticks) * u128::from(run.1) / u128::from(run.0.max(1));
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

/// A moment, noted for less than it costs to look at the clock; when it was is worked out if somebody asks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Moment {
    At(u64),
    Ticks(u64),
}

/// An instant as nanoseconds. Before the epoch: 0.
pub fn nanos(instant: Instant) -> u64 {
    u64::try_from(instant.saturating_duration_since(epoch()).as_nanos()).unwrap_or(NEVER)
}

/// Nanoseconds as an instant; `None` for [`NEVER`].
pub fn instant(nanos: u64) -> Option<Instant> {
    if nanos == NEVER { None } else { epoch().checked_add(Duration::from_nanos(nanos)) }
}

/// A length of time in nanoseconds; [`NEVER`] where that is out of range.
#[inline]
pub(crate) fn length(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(NEVER)
}

/// A length of time after a time; [`NEVER`] where that is out of range.
pub fn after(now: u64, duration: Duration) -> u64 {
    now.saturating_add(length(duration))
}

/// In so many ticks after a look at the clock, the time is worked out by the counter: some milliseconds, in which a rate that is off by a
/// thousandth makes microseconds.
const NEAR: u64 = 1 << 22;

/// How many nanoseconds a tick is, times 2^32, given how many there were in how many nanoseconds; 0 where they were too few to say.
fn rate(run: (u64, u64)) -> u64 {
    let rate = (u128::from(run.1) << 32) / u128::from(run.0.max(1));
    if run.0 < NEAR || rate >> 34 != 0 { 0 } else { rate as u64 }
}

/// Real, or virtual where `virtual_now` is not 0.
#[derive(Debug)]
pub(crate) struct Clock {
    virtual_now: AtomicU64,
    /// The last look at the clock: the counter, the time, and the [`rate`] then. For the thread of the run alone.
    look: [AtomicU64; 3],
}

impl Clock {
    pub fn new() -> Self {
        Self { virtual_now: AtomicU64::new(0), look: [0; 3].map(AtomicU64::new) }
    }

    /// Starts anew, for a run.
    pub fn reset(&self, virtual_time: bool) {
        self.look[2].store(0, Ordering::Relaxed);
        // Not 0, which is real: the process may just have begun, on a machine that has.
        self.virtual_now.store(if virtual_time { nanos(Instant::now()).max(1) } else { 0 }, Ordering::Release);
    }

    pub fn is_virtual(&self) -> bool {
        self.virtual_now.load(Ordering::Acquire) != 0
    }

    pub fn now(&self) -> u64 {
        match self.virtual_now.load(Ordering::Acquire) {
            0 => nanos(Instant::now()),
            now => now,
        }
    }

    /// Now.
    #[inline]
    pub fn moment(&self) -> Moment {
        if self.is_virtual() { Moment::At(self.now()) } else { self.real_moment() }
    }

    /// The same in a run that goes by the machine's clock.
    #[inline(always)]
    pub fn real_moment(&self) -> Moment {
        ticks().map_or_else(|| Moment::At(self.now()), Moment::Ticks)
    }

    /// Now, as a moment and as a time, from which [`time_of`](Self::time_of) reckons for a while. On the thread of the run.
    pub fn look(&self) -> (Moment, u64) {
        // The counter first: if the thread has to wait in between, what is reckoned is late.
        let moment = self.moment();
        let now = self.now();
        if let Moment::Ticks(ticks) = moment {
            let start = start();
            let rate = rate((ticks.saturating_sub(start.ticks), now.saturating_sub(nanos(start.at))));
            // The thread had to wait in between: nothing is reckoned from this.
            let rate = if self.is_recent(moment) { rate } else { 0 };
            for (slot, value) in self.look.iter().zip([ticks, now, rate]) {
                slot.store(value, Ordering::Relaxed);
            }
        }
        (moment, now)
    }

    /// The same, reckoned from the last look; `None` where that is not near. Some 20 instructions instead of 230, and no look at the clock.
    /// It is behind by some tens of microseconds, so that it is never ahead of a look that comes later.
    #[inline(always)]
    pub fn look_near(&self) -> Option<(Moment, u64)> {
        // Virtual time has no rate.
        let ticks = ticks()?;
        let (now, at) = (self.reckon(ticks)?, self.look[1].load(Ordering::Relaxed));
        // By how much the rate may be off, and by how long the thread may have waited between the counter and the clock.
        let behind = ((now - at) >> 10) + BETWEEN;
        Some((Moment::Ticks(ticks), now.saturating_sub(behind).max(at)))
    }

    /// The time so many ticks after the last look; `None` where that is not near.
    #[inline]
    fn reckon(&self, ticks: u64) -> Option<u64> {
        let [then, at, rate] = [0, 1, 2].map(|of| self.look[of].load(Ordering::Relaxed));
        let since = ticks.wrapping_sub(then);
        (since < NEAR && rate != 0).then(|| at + ((since * rate) >> 32))
    }

    /// Whether less than [`A_WHILE`] has passed since a moment, for sure. False for virtual time, which others may move.
    #[inline]
    pub fn is_recent(&self, moment: Moment) -> bool {
        match moment {
            Moment::At(_) => false,
            Moment::Ticks(then) => ticks().is_some_and(|now| now.wrapping_sub(then) < FEW_TICKS),
        }
    }

    /// When a moment was: as [`time_of`](Self::time_of), without a look at the counter where that is known from the last look at the clock.
    #[inline]
    pub fn time_then(&self, moment: Moment, least: u64) -> u64 {
        if let Moment::Ticks(then) = moment
            && let Some(then) = self.reckon(then)
        {
            return then.max(least);
        }
        self.time_of(moment, least).0
    }

    /// When a moment was, and what time it is. Not before `least`, whatever became of the counter meanwhile (a machine that was moved, a
    /// processor on which it stops); and rather too late than too early.
    pub fn time_of(&self, moment: Moment, least: u64) -> (u64, u64) {
        // The counter first: if the thread has to wait in between, it is the clock that is late.
        let since = ticks();
        if let (Moment::Ticks(then), Some(since)) = (moment, since)
            && let (Some(then), Some(now)) = (self.reckon(then), self.reckon(since))
        {
            // Without a look at the clock: 20 ns.
            let now = now.max(least);
            return (then.clamp(least, now), now);
        }
        let now = self.now();
        match (moment, since) {
            (Moment::At(at), _) => (at, now),
            (Moment::Ticks(_), None) => (now, now),
            (Moment::Ticks(then), Some(since)) => {
                let start = start();
                let run = (since.saturating_sub(start.ticks), now.saturating_sub(nanos(start.at)));
                (now.saturating_sub(elapsed(since.saturating_sub(then), run)).clamp(least.min(now), now), now)
            }
        }
    }

    /// How long ago a moment was, by the machine's clock.
    pub fn since(&self, moment: Moment) -> Duration {
        let (at, now) = self.time_of(moment, 0);
        Duration::from_nanos(now - at)
    }

    /// Moves virtual time forward.
    pub fn jump(&self, to: u64) {
        self.virtual_now.fetch_max(to, Ordering::AcqRel);
    }
}

#[cfg(all(test, not(trefoil_loom)))]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_turned_into_time_by_the_rate_so_far() {
        // Three ticks a nanosecond, for ten seconds.
        let run = (30_000_000_000, 10_000_000_000);
        assert_eq!(elapsed(3_000_000, run), 1_000_000);
        assert_eq!(elapsed(30_000_000_000, run), 10_000_000_000);
        // Not worth it.
        assert_eq!(elapsed(FEW_TICKS - 1, run), 0);
        // Just begun.
        assert_eq!(elapsed(FEW_TICKS, (0, 0)), 0);
        assert_eq!(elapsed(u64::MAX, (1, u64::MAX)), u64::MAX);
    }

    #[test]
    fn a_time_near_a_look_is_reckoned_by_the_rate() {
        let clock = Clock::new();
        assert_eq!(clock.reckon(0), None);
        // Three ticks a nanosecond.
        for (slot, value) in clock.look.iter().zip([1_000, 50_000, rate((3 * NEAR, NEAR))]) {
            slot.store(value, Ordering::Relaxed);
        }
        assert!((50_999..=51_000).contains(&clock.reckon(4_000).unwrap()));
        assert_eq!(clock.reckon(1_000), Some(50_000));
        // Too far off, or before it.
        assert_eq!(clock.reckon(1_000 + NEAR), None);
        assert_eq!(clock.reckon(999), None);
        // Too few to say.
        assert_eq!(rate((NEAR - 1, NEAR)), 0);
        assert_eq!(rate((0, 0)), 0);
        assert_eq!(rate((u64::MAX, u64::MAX)), 1 << 32);
    }

    #[test]
    fn a_time_that_is_reckoned_is_never_ahead_of_a_look_that_comes_later() {
        let clock = Clock::new();
        assert!(clock.look_near().is_none(), "nobody has looked");
        std::thread::sleep(Duration::from_millis(5));
        for _ in 0..1000 {
            let (_, at) = clock.look();
            for _ in 0..10 {
                if let Some((_, near)) = clock.look_near() {
                    assert!(at <= near && near <= clock.now());
                }
            }
        }
        clock.reset(true);
        assert!(clock.look_near().is_none(), "others may move it");
    }

    #[test]
    fn a_moment_is_between_the_turn_and_now_whatever_the_counter_says() {
        let clock = Clock::new();
        let turn = clock.now();
        let moment = clock.moment();
        for moment in [moment, Moment::Ticks(0), Moment::Ticks(1), Moment::Ticks(u64::MAX)] {
            let (at, now) = clock.time_of(moment, turn);
            assert!((turn..=now).contains(&at), "{moment:?}");
        }
        assert_eq!(clock.time_of(Moment::At(3), turn).0, 3);
    }
}
