//! Names for what may be under way, for which part of which source.

use super::super::slots::{INDEX_BITS, Key};
use crate::source::{Direction, Shared};
use rustix::event::PollFlags;
use std::os::fd::RawFd;
use std::sync::Arc;

/// The key of the poll on the bell: of no part that there is.
pub(super) const BELL: Key = 3 << INDEX_BITS;

/// What of a source an operation is for: its key is that of the source, and this above the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Read,
    Write,
    /// The end of what can be read.
    End,
}

impl Part {
    pub(super) const ALL: [Self; 3] = [Self::Read, Self::Write, Self::End];

    pub(super) fn key(self, source: Key) -> Key {
        source | (self as Key) << INDEX_BITS
    }

    /// Of a key: the source, and this.
    pub(super) fn split(key: Key) -> (Key, Self) {
        let part = key >> INDEX_BITS & 3;
        (key & !(3 << INDEX_BITS), Self::ALL[part as usize])
    }
}

impl From<Direction> for Part {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Read => Part::Read,
            Direction::Write => Part::Write,
        }
    }
}

/// What may be under way for a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A look at readiness: then who waits asks the kernel. Once for room to write, as a rule; at each edge for something to read.
    Poll(Direction),
    /// Receiving, until told otherwise.
    Receive,
    /// Accepting, until told otherwise.
    Accept,
    /// A look at whether the end has come, once, beside a receive that has brought something.
    ///
    /// The receive alone misses an end that comes together with the last bytes: it takes both for one event, finds nothing left behind
    /// the bytes, and goes on waiting (a reset of TCP, any end of a UNIX socket; liburing#1549, Linux 6.18 at least). A poll
    /// of its own cannot take one for the other, and sees what is there already; an end that comes alone ends the receive. When it completes, the
    /// receive is stopped, and who waits asks the kernel; and from then on it is polled for, since what this has seen may also be an error that passes.
    End,
}

impl Kind {
    pub(super) fn part(self) -> Part {
        match self {
            Kind::Poll(direction) => direction.into(),
            Kind::Receive | Kind::Accept => Part::Read,
            Kind::End => Part::End,
        }
    }

    /// Whether its completions bring something.
    pub fn streams(self) -> bool {
        matches!(self, Kind::Receive | Kind::Accept)
    }
}

/// Of one part of a source. See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Under {
    Idle,
    Way(Kind),
    Stopping(Kind),
}

/// What accepts have brought since it was last looked where they write who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accepted {
    None,
    /// For this source: what is written there is about this descriptor.
    One(Key, RawFd),
    /// More, or something else than a connection: it may be about any of them.
    Unclear,
}

/// An attached source.
#[derive(Debug)]
pub(super) struct Entry {
    pub source: Arc<Shared>,
    pub under: [Under; 3],
    /// Room to write is polled for by edges: an error that does not pass would end every other poll at once.
    pub errs: bool,
    pub detached: bool,
}

impl Entry {
    pub fn under(&mut self, part: Part) -> &mut Under {
        &mut self.under[part as usize]
    }

    pub fn is_idle(&self) -> bool {
        self.under == [Under::Idle; 3]
    }
}

pub(super) fn bits(events: PollFlags) -> u32 {
    events.bits() as u32
}
