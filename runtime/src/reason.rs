//! What an operation waits for, as people and programs are told.

use crate::park::Abort;
use std::fmt;

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
    /// For a connection on a listener.
    Accept(i32),
    /// For a connection to be established.
    Connect(i32),
    /// For bytes of a descriptor.
    Read(i32),
    /// For room to write to a descriptor.
    Write(i32),
    /// For a lock.
    Lock,
    /// For permits or tokens.
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

/// A [`Reason`] and an [`Abort`] in two words instead of four: most of what a sleeping child takes is its park.
#[derive(Clone, Copy)]
pub(crate) struct Manner {
    /// The text of a custom reason.
    text: *const u8,
    /// Its length, or the descriptor.
    number: u32,
    reason: u8,
    pub abort: Abort,
}

impl Manner {
    /// Of what does not wait.
    pub const NONE: Self = Self { text: std::ptr::null(), number: 0, reason: 1, abort: Abort::AtOnce };

    pub fn new(reason: Reason, abort: Abort) -> Self {
        let (code, number, text) = match reason {
            Reason::Sleep => (0, 0, ""),
            Reason::Forever => (1, 0, ""),
            Reason::Join => (2, 0, ""),
            Reason::Event => (3, 0, ""),
            Reason::Send => (4, 0, ""),
            Reason::Receive => (5, 0, ""),
            Reason::Accept(fd) => (6, fd.cast_unsigned(), ""),
            Reason::Connect(fd) => (7, fd.cast_unsigned(), ""),
            Reason::Read(fd) => (8, fd.cast_unsigned(), ""),
            Reason::Write(fd) => (9, fd.cast_unsigned(), ""),
            Reason::Lock => (10, 0, ""),
            Reason::Permits => (11, 0, ""),
            Reason::Condition => (12, 0, ""),
            Reason::Barrier => (13, 0, ""),
            Reason::Start => (14, 0, ""),
            Reason::Children => (15, 0, ""),
            Reason::Custom(text) => match u32::try_from(text.len()) {
                Ok(length) => (16, length, text),
                Err(_) => (16, 0, ""), // 4 GB of reason
            },
        };
        Self { text: text.as_ptr(), number, reason: code, abort }
    }

    pub fn reason(&self) -> Reason {
        let fd = self.number.cast_signed();
        match self.reason {
            0 => Reason::Sleep,
            1 => Reason::Forever,
            2 => Reason::Join,
            3 => Reason::Event,
            4 => Reason::Send,
            5 => Reason::Receive,
            6 => Reason::Accept(fd),
            7 => Reason::Connect(fd),
            8 => Reason::Read(fd),
            9 => Reason::Write(fd),
            10 => Reason::Lock,
            11 => Reason::Permits,
            12 => Reason::Condition,
            13 => Reason::Barrier,
            14 => Reason::Start,
            15 => Reason::Children,
            // SAFETY: of the `&'static str` that it was made of: pointer and length.
            _ => Reason::Custom(unsafe {
                str::from_utf8_unchecked(std::slice::from_raw_parts(self.text, self.number as usize))
            }),
        }
    }
}
