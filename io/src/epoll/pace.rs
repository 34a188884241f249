//! How often a loop that always has something to run looks at the kernel, and at the clock to know.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// A look at the kernel costs as much as many turns: one is due so often.
const LOOK_AFTER: Duration = Duration::from_micros(50);

/// A look at the clock costs as much as a turn: while turns are short it is made in one of so many. A round trip over a channel takes 100 ns instead
/// of 150 by that.
const TURNS: u32 = 32;

#[derive(Debug)]
pub(super) struct Pace {
    /// When the kernel was looked at.
    looked: Cell<Instant>,
    /// When the clock was.
    at: Cell<Instant>,
    /// How many turns are passed over before it is looked at again.
    left: Cell<u32>,
    /// How many were, the last time, and the one in which it was looked at.
    turns: Cell<u32>,
}

impl Pace {
    pub fn new(now: Instant) -> Self {
        Self { looked: Cell::new(now), at: Cell::new(now), left: Cell::new(0), turns: Cell::new(1) }
    }

    /// Whether this turn goes by without a look at the clock.
    #[inline]
    pub fn passes_over(&self) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        left > 0
    }

    /// The clock was looked at: whether a look at the kernel is due.
    ///
    /// As many turns as took next to no time are followed by twice as many; one that took long, and a sleep, by one. So it is where turns become long all
    /// at once that a look comes late, by [`TURNS`] of them at most.
    pub fn is_due(&self, now: Instant) -> bool {
        let took = now - self.at.replace(now);
        let turns = match took {
            _ if took > LOOK_AFTER / 2 => 1,
            _ if took < LOOK_AFTER / 8 => (self.turns.get() * 2).min(TURNS),
            _ => self.turns.get(),
        };
        self.turns.set(turns);
        self.left.set(turns - 1);
        let due = now - self.looked.get() >= LOOK_AFTER;
        if due {
            self.looked.set(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many turns, each of that length: in which the clock was looked at, and in which the kernel.
    fn run(pace: &Pace, now: &mut Instant, turns: u32, each: Duration) -> (Vec<u32>, Vec<u32>) {
        let (mut clock, mut kernel) = (Vec::new(), Vec::new());
        for turn in 0..turns {
            *now += each;
            if !pace.passes_over() {
                clock.push(turn);
                if pace.is_due(*now) {
                    kernel.push(turn);
                }
            }
        }
        (clock, kernel)
    }

    #[test]
    fn r85_short_turns_rarely_look_at_the_clock_and_still_look_at_the_kernel_every_50_us() {
        let mut now = Instant::now();
        let pace = Pace::new(now);
        let (clock, kernel) = run(&pace, &mut now, 10_000, Duration::from_nanos(100));
        assert!(clock.windows(2).all(|two| two[1] - two[0] <= TURNS), "{clock:?}");
        assert!(clock.len() < 10_000 / 30, "{} looks at the clock", clock.len());
        // 1 ms: every 50 µs, or up to 32 turns later.
        assert!((18..=20).contains(&kernel.len()), "{kernel:?}");
    }

    #[test]
    fn r85_long_turns_look_at_the_kernel_in_each() {
        let mut now = Instant::now();
        let pace = Pace::new(now);
        let (_, kernel) = run(&pace, &mut now, 20, Duration::from_millis(1));
        assert_eq!(kernel, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn r85_turns_that_become_long_all_at_once_look_after_31_of_them_and_then_in_each() {
        for short in 1..200 {
            let mut now = Instant::now();
            let pace = Pace::new(now);
            run(&pace, &mut now, short, Duration::from_nanos(50));
            let (clock, kernel) = run(&pace, &mut now, 100, Duration::from_millis(5));
            assert!(kernel[0] < TURNS, "{kernel:?} after {short}");
            assert_eq!(clock, (kernel[0]..100).collect::<Vec<_>>(), "after {short}");
            assert_eq!(clock, kernel, "after {short}");
        }
    }
}
