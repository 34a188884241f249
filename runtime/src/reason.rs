//! What an operation waits for, as people and programs are told.

use crate::look::snapshot::short;
use crate::park::Abort;
use std::fmt;
use std::panic::Location;
use std::ptr;

/// What an operation waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// For a time.
    Sleep,
    /// For ever, or until cancelled.
    Forever,
    /// For a child to finish.
    Join,
    /// For an event to be set.
    Event,
    /// For room in a channel.
    Send,
    /// For an item of a channel.
    Receive,
    /// For bytes of a descriptor.
    Read(i32),
    /// For room to write to a descriptor.
    Write(i32),
    /// For a connection on a listener.
    Accept(i32),
    /// For a connection to be established.
    Connect(i32),
    /// For a lock.
    Lock,
    /// For permits.
    Permits,
    /// For the body and the children of a nursery that it opened.
    Children,
    /// For a notification of a condition, with its lock.
    Condition,
    /// For others at a barrier.
    Barrier,
    /// For a child to say that it is ready.
    Start,
    /// For something of the application's own.
    Custom(&'static str),
    /// For the value of a oneshot.
    Oneshot,
    /// For the next value of a watch.
    Watch,
    /// For a token of a limiter.
    Token,
}

impl Reason {
    /// Whether it waits for what has one sender, which is made to be handed on: who has that is not known.
    pub(crate) fn hands_on(self) -> bool {
        matches!(self, Reason::Oneshot | Reason::Watch)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Sleep => f.write_str("sleep"),
            Reason::Forever => f.write_str("sleep for ever"),
            Reason::Join => f.write_str("a child to end"),
            Reason::Event => f.write_str("an event"),
            Reason::Send => f.write_str("room in a channel"),
            Reason::Receive => f.write_str("an item of a channel"),
            Reason::Oneshot => f.write_str("the value of a oneshot"),
            Reason::Watch => f.write_str("the next value of a watch"),
            Reason::Token => f.write_str("a token of a limiter"),
            Reason::Accept(fd) => write!(f, "accept on fd {fd}"),
            Reason::Connect(fd) => write!(f, "connect fd {fd}"),
            Reason::Read(fd) => write!(f, "read from fd {fd}"),
            Reason::Write(fd) => write!(f, "write to fd {fd}"),
            Reason::Lock => f.write_str("a lock"),
            Reason::Permits => f.write_str("permits"),
            Reason::Children => f.write_str("the children of a nursery"),
            Reason::Condition => f.write_str("a condition"),
            Reason::Barrier => f.write_str("others at a barrier"),
            Reason::Start => f.write_str("a child to be ready"),
            Reason::Custom(what) => f.write_str(what),
        }
    }
}

/// What a task does that waits for that, as a person reads it: "sleeps", "waits for a lock".
pub(crate) struct Does(pub Reason);

impl fmt::Display for Does {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Reason::Sleep => f.write_str("sleeps"),
            Reason::Forever => f.write_str("sleeps for ever"),
            Reason::Accept(fd) => write!(f, "waits to accept on fd {fd}"),
            Reason::Connect(fd) => write!(f, "waits to connect fd {fd}"),
            Reason::Read(fd) => write!(f, "waits to read from fd {fd}"),
            Reason::Write(fd) => write!(f, "waits to write to fd {fd}"),
            other => write!(f, "waits for {other}"),
        }
    }
}

/// Where that was made which a task waits for, behind its name: " (made at main.rs:3)". Nothing where that is not known.
pub(crate) struct Made(pub Option<&'static Location<'static>>);

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(made) => write!(f, " (made at {})", short(made)),
            None => Ok(()),
        }
    }
}

/// What an operation waits for that is one of a descriptor; which one that is, its [`Park`](crate::Park) knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
// The numbers are those of `Manner`, so that none is made of another where a wait begins. The lowest bit is that of who writes.
pub enum OfDescriptor {
    /// [`Reason::Read`].
    Read = 6,
    /// [`Reason::Write`].
    Write = 7,
    /// [`Reason::Accept`].
    Accept = 8,
    /// [`Reason::Connect`].
    Connect = 9,
}

/// Which [`Reason`] it is, which [`Abort`], and what follows the park, in one byte: a constant where a wait begins, and told apart when somebody looks.
#[derive(Clone, Copy)]
pub(crate) struct Manner(u8);

const REASON: u8 = 31;
const ABORT: u8 = 3 << 5;
const LASTING: u8 = 1 << 5;
const ASK: u8 = 2 << 5;
/// It ends at once, and the place is a number.
const NUMBERED: u8 = ABORT;
const KNOWN: u8 = 1 << 7;

impl Manner {
    /// Of what does not wait.
    pub const NONE: Self = Self(0);

    #[inline(always)]
    pub fn new(reason: Reason, abort: Abort, known: bool, numbered: bool) -> Self {
        // In the order of the variants: of one that is not a constant, it is the tag.
        let reason = match reason {
            Reason::Sleep => 0,
            Reason::Forever => 1,
            Reason::Join => 2,
            Reason::Event => 3,
            Reason::Send => 4,
            Reason::Receive => 5,
            Reason::Read(_) => 6,
            Reason::Write(_) => 7,
            Reason::Accept(_) => 8,
            Reason::Connect(_) => 9,
            Reason::Lock => 10,
            Reason::Permits => 11,
            Reason::Children => 12,
            Reason::Condition => 13,
            Reason::Barrier => 14,
            Reason::Start => 15,
            Reason::Custom(_) => 16,
            Reason::Oneshot => 17,
            Reason::Watch => 18,
            Reason::Token => 19,
        };
        let abort = match abort {
            Abort::AtOnce if numbered => NUMBERED,
            Abort::AtOnce => 0,
            _ if numbered => panic!("there is no room for what a cancel does to it"),
            Abort::Lasting => LASTING,
            Abort::Ask => ASK,
        };
        Self(reason | abort | if known { KNOWN } else { 0 })
    }

    /// Of a wait that a cancel ends at once, in a park that knows its descriptor.
    #[inline(always)]
    pub fn of_descriptor(what: OfDescriptor) -> Self {
        Self(what as u8)
    }

    #[inline(always)]
    pub fn abort(self) -> Abort {
        match self.0 & ABORT {
            LASTING => Abort::Lasting,
            ASK => Abort::Ask,
            _ => Abort::AtOnce,
        }
    }

    /// Whether the reason has something to say beside which it is.
    pub fn has_detail(self) -> bool {
        matches!(self.0 & REASON, 6..=9 | 16)
    }

    /// Whether the place is a number.
    #[inline(always)]
    pub fn has_numbered_place(self) -> bool {
        self.0 & ABORT == NUMBERED
    }

    /// Whether the park says who could end the wait.
    pub fn is_known(self) -> bool {
        self.0 & KNOWN != 0
    }

    pub fn reason(self, detail: Detail) -> Reason {
        let fd = detail.number.cast_signed();
        match self.0 & REASON {
            0 => Reason::Sleep,
            1 => Reason::Forever,
            2 => Reason::Join,
            3 => Reason::Event,
            4 => Reason::Send,
            5 => Reason::Receive,
            6 => Reason::Read(fd),
            7 => Reason::Write(fd),
            8 => Reason::Accept(fd),
            9 => Reason::Connect(fd),
            10 => Reason::Lock,
            11 => Reason::Permits,
            12 => Reason::Children,
            13 => Reason::Condition,
            14 => Reason::Barrier,
            15 => Reason::Start,
            17 => Reason::Oneshot,
            18 => Reason::Watch,
            19 => Reason::Token,
            _ => Reason::Custom(detail.text()),
        }
    }
}

/// What a [`Reason`] has to say beside which it is: the descriptor, or the text; or where that was made which is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Detail {
    /// Of a `&'static str`; or a `&'static Location`, if the number is [`MADE`].
    text: *const u8,
    /// The length of the text, or the descriptor.
    number: u32,
}

/// No text is so long.
const MADE: u32 = u32::MAX;

impl Detail {
    pub const NONE: Self = Self { text: ptr::null(), number: 0 };

    pub const fn made(place: &'static Location<'static>) -> Self {
        Self { text: ptr::from_ref(place).cast(), number: MADE }
    }

    /// The place that it was [made](Self::made) of.
    pub fn made_at(self) -> Option<&'static Location<'static>> {
        if self.number != MADE {
            return None;
        }
        // SAFETY: of the `&'static Location` that it was made of; where it is that of a descriptor, -1, it is null.
        unsafe { self.text.cast::<Location<'static>>().as_ref() }
    }

    pub const fn descriptor(fd: i32) -> Self {
        Self { text: std::ptr::null(), number: fd.cast_unsigned() }
    }

    /// Keeps what this one has to say. Nothing is written where there is nothing.
    #[inline(always)]
    pub fn note(&mut self, reason: Reason) {
        match reason {
            Reason::Accept(fd) | Reason::Connect(fd) | Reason::Read(fd) | Reason::Write(fd) => {
                *self = Self::descriptor(fd);
            }
            Reason::Custom(text) => {
                // Not of 4 GB.
                let length = u32::try_from(text.len()).ok().filter(|length| *length != MADE);
                *self = Self { text: text.as_ptr(), number: length.unwrap_or(0) };
            }
            _ => {}
        }
    }

    fn text(self) -> &'static str {
        if self.text.is_null() || self.number == MADE {
            return "";
        }
        // SAFETY: of the `&'static str` that it was made of: pointer and length, which are written together.
        unsafe { str::from_utf8_unchecked(std::slice::from_raw_parts(self.text, self.number as usize)) }
    }
}
