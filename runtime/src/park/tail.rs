//! What a park has beside what the tree needs of it: what is to be told of the wait.

use super::On;
use super::place::{Address, KeptPlace, Number};
use crate::blind::BLIND;
use crate::look::holders::Thing;
use crate::reason::{Detail, Reason};
use std::panic::Location;

/// What a park has beside what the tree needs of it: \[TAIL\].
pub trait Tail {
    /// That of a park that has not waited.
    #[doc(hidden)]
    const NEW: Self;
    /// How its park keeps the place.
    #[doc(hidden)]
    type Place: KeptPlace;
    /// Whether it says who could end the wait.
    #[doc(hidden)]
    const KNOWN: bool;
    /// Keeps what the reason has to say.
    #[doc(hidden)]
    fn note(&mut self, reason: Reason);
}

/// No tail: of a sleep.
#[derive(Debug)]
pub struct Bare;

/// What the reason has to say.
#[derive(Debug)]
pub struct Named(Detail);

/// What the reason has to say, and who could end the wait: an [`On`], as it comes, which is told apart when somebody looks.
#[derive(Debug)]
pub struct Known {
    thing: Option<Thing>,
    /// Of the thing, so many units; where there is none, the child.
    number: usize,
    detail: Detail,
}

impl Named {
    /// Of waits that are all for this descriptor.
    pub(super) const fn of_descriptor(fd: i32) -> Self {
        Self(Detail::descriptor(fd))
    }

    pub(super) fn detail(&self) -> Detail {
        self.0
    }
}

impl Known {
    /// So many units of something, if it has a name.
    #[inline(always)]
    pub(crate) fn of(thing: Option<Thing>, units: usize) -> Self {
        if BLIND { Self::NEW } else { Self { thing, number: units, detail: Detail::NONE } }
    }

    /// The child whose header has this address.
    #[inline(always)]
    pub(crate) fn of_child(child: usize) -> Self {
        if BLIND { Self::NEW } else { Self { number: child, ..Self::NEW } }
    }

    /// The same of one that has noted its reason, which stays.
    #[inline(always)]
    pub(super) fn wait_for_child(&mut self, child: usize) {
        (self.thing, self.number) = (None, child);
    }

    /// Something that nobody holds, and that was made there.
    #[inline(always)]
    pub(crate) fn made(place: &'static Location<'static>) -> Self {
        if BLIND { Self::NEW } else { Self { thing: None, number: 0, detail: Detail::made(place) } }
    }

    pub(super) fn on(&self) -> On {
        match self.thing {
            Some(thing) => On::Thing(thing, self.number),
            None => On::Child(self.number),
        }
    }

    pub(super) fn detail(&self) -> Detail {
        self.detail
    }
}

impl Tail for Bare {
    type Place = Number;
    const NEW: Self = Self;
    const KNOWN: bool = false;
    #[inline(always)]
    fn note(&mut self, reason: Reason) {
        // [TAIL]. Of a constant, nothing is left of this.
        assert!(matches!(reason, Reason::Sleep | Reason::Forever), "there is no room for what this reason has to say");
    }
}

impl Tail for Named {
    type Place = Address;
    const NEW: Self = Self(Detail::NONE);
    const KNOWN: bool = false;
    #[inline(always)]
    fn note(&mut self, reason: Reason) {
        self.0.note(reason);
    }
}

impl Tail for Known {
    type Place = Address;
    const NEW: Self = Self { thing: None, number: 0, detail: Detail::NONE };
    const KNOWN: bool = true;
    #[inline(always)]
    fn note(&mut self, reason: Reason) {
        self.detail.note(reason);
    }
}
