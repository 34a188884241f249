//! How a park keeps where it waits: by an address, or in the two bytes that the time of its begin leaves, by a number. A million sleeping children have a million
//! of them.

use std::cell::Cell;
use std::panic::Location;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// See the module.
pub trait KeptPlace {
    /// Whether it is by a [`Number`].
    #[doc(hidden)]
    const IS_NUMBER: bool;
    /// With what the [core](super::Core) begins.
    #[doc(hidden)]
    fn new(place: &'static Location<'static>) -> (Self, BegunAt)
    where
        Self: Sized;
    /// By the owner of a park that is in no list.
    #[doc(hidden)]
    fn set(&self, begun: &Cell<BegunAt>, place: &'static Location<'static>);
    /// By the owner, or under the lock of the tree.
    #[doc(hidden)]
    fn get(&self, begun: &Cell<BegunAt>) -> &'static Location<'static>;
}

/// By its address.
#[derive(Debug)]
pub struct Address(Cell<&'static Location<'static>>);

/// By its number, which is in the [core](super::Core).
#[derive(Debug)]
pub struct Number;

impl KeptPlace for Address {
    const IS_NUMBER: bool = false;
    #[inline(always)]
    fn new(place: &'static Location<'static>) -> (Self, BegunAt) {
        (Self(Cell::new(place)), BegunAt(0))
    }
    #[inline(always)]
    fn set(&self, _: &Cell<BegunAt>, place: &'static Location<'static>) {
        self.0.set(place);
    }
    #[inline(always)]
    fn get(&self, _: &Cell<BegunAt>) -> &'static Location<'static> {
        self.0.get()
    }
}

impl KeptPlace for Number {
    const IS_NUMBER: bool = true;
    #[inline(always)]
    fn new(place: &'static Location<'static>) -> (Self, BegunAt) {
        (Self, BegunAt(number(place).into()))
    }
    #[inline(always)]
    fn set(&self, begun: &Cell<BegunAt>, place: &'static Location<'static>) {
        begun.set(BegunAt(number(place).into()));
    }
    #[inline(always)]
    fn get(&self, begun: &Cell<BegunAt>) -> &'static Location<'static> {
        begun.get().place()
    }
}

/// When a wait began, on the run's clock: nanoseconds; or, where it keeps the [`Number`] of its place, 48 bits of microseconds, and below them the number.
#[derive(Clone, Copy, Debug)]
pub struct BegunAt(u64);

const BITS: u32 = 16;
const MICRO: u64 = 1_000;

impl BegunAt {
    #[inline(always)]
    pub(super) fn at(nanos: u64) -> Self {
        Self(nanos)
    }

    #[inline(always)]
    pub(super) fn nanos(self) -> u64 {
        self.0
    }

    /// The same place, and this time.
    #[inline(never)]
    pub(super) fn with_number(self, nanos: u64) -> Self {
        Self(((nanos / MICRO) << BITS) | u64::from(self.0 as u16))
    }

    /// When it began, seen from a time up to four years after that: for who is a number of microseconds later, exactly; else to the microsecond.
    pub(super) fn nanos_beside_number(self, seen_from: u64) -> u64 {
        // As if it were of 48 bits, with a sign: it may seem to be later, where another thread looks.
        let ago = ((seen_from / MICRO) << BITS).wrapping_sub((self.0 >> BITS) << BITS).cast_signed() >> BITS;
        seen_from.saturating_add_signed(-ago * MICRO.cast_signed())
    }

    pub(super) fn place(self) -> &'static Location<'static> {
        place(self.0 as u16)
    }
}

/// The places that have a number, which is where they are here: by their address, or behind that if others are there. Those of one program lie close together.
/// Nothing is taken out.
static PLACES: [AtomicPtr<Location<'static>>; 1 << BITS] = [const { AtomicPtr::new(ptr::null_mut()) }; 1 << BITS];

/// How far behind its address a place may be. What finds no room has no number, so that it does not take long: there are more than enough.
const REACH: u16 = 64;

/// Of a place that has none. Nothing is put there.
const NO_NUMBER: u16 = 0;

#[inline(always)]
fn number(place: &'static Location<'static>) -> u16 {
    let first = (ptr::from_ref(place).addr() / align_of::<Location<'_>>()) as u16;
    // Relaxed: to be compared only.
    if ptr::eq(PLACES[usize::from(first)].load(Ordering::Relaxed), place) { first } else { number_behind(place, first) }
}

#[cold]
fn number_behind(place: &'static Location<'static>, first: u16) -> u16 {
    let all = (0..REACH).map(|step| first.wrapping_add(step));
    let is_here = |number: &u16| {
        let slot = &PLACES[usize::from(*number)];
        // First without a claim on the line, which all who wait read.
        let there = slot.load(Ordering::Relaxed);
        if !there.is_null() {
            return ptr::eq(there, place);
        }
        // Relaxed, also below: what is at the address was never written, and no other thread has to be ready for it to be read.
        match slot.compare_exchange(
            ptr::null_mut(),
            ptr::from_ref(place).cast_mut(),
            Ordering::Relaxed,
            Ordering::Relaxed,
        ) {
            Ok(_) => true,
            Err(other) => ptr::eq(other, place),
        }
    };
    all.filter(|number| *number != NO_NUMBER).find(is_here).unwrap_or(NO_NUMBER)
}

fn place(number: u16) -> &'static Location<'static> {
    let place = PLACES[usize::from(number)].load(Ordering::Relaxed);
    // SAFETY: null, or made of a `&'static Location`.
    unsafe { place.as_ref() }.unwrap_or(Location::caller())
}

#[cfg(all(test, not(trefoil_loom)))]
mod tests {
    use super::*;

    #[track_caller]
    fn here() -> &'static Location<'static> {
        Location::caller()
    }

    #[test]
    fn a_place_has_one_number_and_is_found_by_it() {
        let places = [here(), here(), here()];
        let numbers = places.map(number);
        assert_eq!(numbers, places.map(number));
        assert!(numbers.iter().all(|of| *of != NO_NUMBER));
        assert_eq!(numbers.map(place), places);
    }

    #[test]
    fn places_at_one_number_stand_behind_each_other() {
        let places = [here(), here(), here()];
        // As if it were theirs.
        let numbers = places.map(|place| number_behind(place, u16::MAX));
        assert_eq!(numbers.map(place), places);
        assert_eq!(numbers, places.map(|place| number_behind(place, u16::MAX)));
        assert!(numbers[0] != numbers[1] && numbers[1] != numbers[2] && numbers[0] != numbers[2]);
    }

    #[test]
    fn the_time_beside_a_number_is_exact_to_the_microsecond_for_years() {
        let year = 365 * 24 * 3_600 * 1_000_000_000;
        for began in [134, 5_000_134, 123_456_789_999, 7 * year, 9 * year, 400 * year] {
            let at = BegunAt(12).with_number(began);
            assert_eq!(at.0 as u16, 12);
            for ago in [0, 1_000, 3_200_000_000, 4 * year] {
                assert_eq!(at.nanos_beside_number(began + ago), began, "{began}, {ago} ago");
                assert!(at.nanos_beside_number(began + ago + 1).abs_diff(began) < MICRO);
            }
            let behind = began.saturating_sub(2_000);
            assert!(at.nanos_beside_number(behind).abs_diff(began) < MICRO, "another thread's clock is behind");
        }
    }
}
