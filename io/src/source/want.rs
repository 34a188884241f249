//! What an operation wants of its descriptor: as a value for drivers, as a type for the operation itself.

use crate::readiness::{READ, WRITE};
use std::fmt;
use trefoil_runtime::OfDescriptor;

/// One of the two ways in which a descriptor is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read = 0,
    Write = 1,
}

impl Direction {
    /// Its flag in [`Readiness`](crate::readiness::Readiness), and its bit in `waiting`.
    pub const fn flag(self) -> u32 {
        1 << self as u32
    }
}

const _: () = assert!(Direction::Read.flag() == READ && Direction::Write.flag() == WRITE);

/// What an operation waits for: more than the direction for a driver whose kernel does the operation itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// Bytes to read.
    Bytes = OfDescriptor::Read as isize,
    /// Room to write.
    Room = OfDescriptor::Write as isize,
    /// A connection on a listener.
    Connection = OfDescriptor::Accept as isize,
    /// To be connected.
    Connected = OfDescriptor::Connect as isize,
}

// What `Want::direction` looks at.
const _: () =
    assert!(matches!(Want::Bytes.direction(), Direction::Read) && matches!(Want::Room.direction(), Direction::Write));
const _: () = assert!(matches!(Want::Connection.direction(), Direction::Read));
const _: () = assert!(matches!(Want::Connected.direction(), Direction::Write));

impl Want {
    /// In the lowest bit: every operation asks for it several times, and a jump for each costs more than the rest of the answer.
    pub const fn direction(self) -> Direction {
        if self as u32 & 1 == Direction::Read as u32 { Direction::Read } else { Direction::Write }
    }

    pub(super) fn of_descriptor(self) -> OfDescriptor {
        match self {
            Want::Bytes => OfDescriptor::Read,
            Want::Room => OfDescriptor::Write,
            Want::Connection => OfDescriptor::Accept,
            Want::Connected => OfDescriptor::Connect,
        }
    }

    /// The directions a driver had better watch from now on. Who connects will read soon.
    pub fn interest(self) -> u32 {
        match self {
            Want::Connected => READ | WRITE,
            _ => self.direction().flag(),
        }
    }
}

/// A [`Want`] as a type, by which an operation knows it where it is compiled: it is asked for the direction again and again.
pub(crate) trait Wants: fmt::Debug {
    const WANT: Want;
    const DIRECTION: Direction = Self::WANT.direction();
}

/// [`Want::Bytes`].
#[derive(Debug)]
pub(crate) struct ForBytes;

/// [`Want::Room`].
#[derive(Debug)]
pub(crate) struct ForRoom;

/// [`Want::Connection`].
#[derive(Debug)]
pub(crate) struct ForConnection;

/// [`Want::Connected`].
#[derive(Debug)]
pub(crate) struct ToBeConnected;

impl Wants for ForBytes {
    const WANT: Want = Want::Bytes;
}

impl Wants for ForRoom {
    const WANT: Want = Want::Room;
}

impl Wants for ForConnection {
    const WANT: Want = Want::Connection;
}

impl Wants for ToBeConnected {
    const WANT: Want = Want::Connected;
}
