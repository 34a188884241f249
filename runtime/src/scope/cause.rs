//! Why a scope was cancelled (R5): who, where, when; by how much a deadline was missed; whose error set it off.
//!
//! It is made once, by the cancel that comes first, and shared by all who ask. So a scope holds a pointer that is null as long as all is
//! well, and [`Cancelled`](crate::Cancelled) carries nothing.

use crate::look::snapshot::{length, short};
use std::fmt::{self, Write as _};
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

/// What kind of thing cancelled a scope (R5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A call of `cancel`.
    Explicit,
    /// The deadline passed.
    Deadline,
    /// A child of the nursery failed or panicked, or its body did.
    Nursery,
    /// The run is being shut down.
    Shutdown,
    /// The run is in a deadlock (N10), and ends with the report of that.
    Deadlock,
    /// A call of `cancel_softly`, whose time has not run out.
    Soft,
    /// What was wanted is there: another future of a race has won, or the consumer of a generator has ended.
    Enough,
    /// It is a service, and those that may rely on it have ended.
    Service,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::Explicit => "cancelled",
            Source::Deadline => "deadline passed",
            Source::Nursery => "a child failed",
            Source::Shutdown => "shut down",
            Source::Deadlock => "deadlock",
            Source::Soft => "asked to stop",
            Source::Enough => "no longer needed",
            Source::Service => "told to stop as the last",
        })
    }
}

/// What a scope is for, in the task tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The whole run.
    Run,
    /// A nursery.
    Nursery,
    /// A cancel scope, perhaps with a deadline.
    Scope,
    /// A shield.
    Shield,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Run => "run",
            Kind::Nursery => "nursery",
            Kind::Scope => "scope",
            Kind::Shield => "shield",
        })
    }
}

/// Which scope it is: printed as `` scope `fetch` (main.rs:10) ``.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ScopeInfo {
    /// What it is for.
    pub kind: Kind,
    /// Its name, if it was given one.
    pub name: Option<Arc<str>>,
    /// Where it was opened.
    pub place: &'static Location<'static>,
}

impl fmt::Display for ScopeInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, Named(self.name.as_deref(), self.place))
    }
}

/// Who has a name and a place, as a person reads it: `` `fetch` (main.rs:10) ``, or without a name `main.rs:10`.
pub(crate) struct Named<'a>(pub Option<&'a str>, pub &'a Location<'a>);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, "`{name}` ({})", short(self.1)),
            None => f.write_str(&short(self.1)),
        }
    }
}

/// Whose failure cancelled a nursery.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Culprit {
    /// The name of the child, if it was given one.
    pub name: Option<Arc<str>>,
    /// Where it was spawned; for the body, where the nursery was opened.
    pub place: &'static Location<'static>,
    /// Whether it is the body of the nursery.
    pub body: bool,
    /// Whether it panicked; otherwise it returned an error.
    pub panicked: bool,
    /// The text of the error, or of the panic: the begin of it, if it is long.
    pub text: Arc<str>,
}

/// How much of an error's text is kept.
const LONGEST: usize = 200;

/// Gives up when the text is long enough: an error may have a whole document in its text.
struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let left = LONGEST - self.0.len().min(LONGEST);
        if more.len() <= left {
            self.0.push_str(more);
            return Ok(());
        }
        let end = (0..=left).rev().find(|&end| more.is_char_boundary(end)).unwrap_or(0);
        self.0.push_str(&more[..end]);
        self.0.push('…');
        Err(fmt::Error)
    }
}

impl Culprit {
    /// A child that failed or panicked, with what it says. The text is code of others: call it under no lock.
    pub fn new(
        name: Option<Arc<str>>,
        place: &'static Location<'static>,
        panicked: bool,
        text: fmt::Arguments<'_>,
    ) -> Self {
        let mut bounded = Bounded(String::new());
        let _ = bounded.write_fmt(text);
        Self { name, place, body: false, panicked, text: bounded.0.into() }
    }

    /// The same, as the body of the nursery.
    pub fn body(self) -> Self {
        Self { body: true, ..self }
    }
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let did = if self.panicked { "panicked" } else { "failed" };
        match self.body {
            true => write!(f, "its body {did}")?,
            false => write!(f, "its child {} {did}", Named(self.name.as_deref(), self.place))?,
        }
        if self.text.is_empty() { Ok(()) } else { write!(f, ": {}", self.text) }
    }
}

/// Who cancelled, where, when, and what for. It is printed as one line for a person:
///
/// ```text
/// cancelled: the deadline of scope `fetch` (main.rs:10) passed, noticed 1.2 ms late
/// cancelled: scope main.rs:10, by a call at main.rs:31
/// cancelled: nursery main.rs:10, since its child `reader` (main.rs:12) failed: connection refused
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Cause {
    /// What kind of thing cancelled the scope.
    pub source: Source,
    /// The place of the `cancel` call; for a deadline, of the scope that had it, or of the soft cancel before it; for a nursery, of who failed.
    pub place: &'static Location<'static>,
    /// When: nanoseconds on the run's clock.
    pub at: u64,
    /// The scope that was cancelled: the one that was asked about, or one around it.
    pub scope: ScopeInfo,
    /// For a deadline, by how much it had been missed when the loop noticed it.
    pub late: Option<Duration>,
    /// For a nursery, who failed, and with what.
    pub culprit: Option<Culprit>,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scope = &self.scope;
        match self.source {
            Source::Deadline => {
                write!(f, "cancelled: the deadline of {scope} passed")?;
                if let Some(late) = self.late.filter(|late| !late.is_zero()) {
                    write!(f, ", noticed {} late", length(late))?;
                }
                if self.place != scope.place {
                    write!(f, "; it was asked to stop by a call at {}", short(self.place))?;
                }
                Ok(())
            }
            Source::Explicit => write!(f, "cancelled: {scope}, by a call at {}", short(self.place)),
            Source::Soft => write!(f, "asked to stop: {scope}, by a call at {}", short(self.place)),
            Source::Nursery => match &self.culprit {
                Some(culprit) => write!(f, "cancelled: {scope}, since {culprit}"),
                None => write!(f, "cancelled: {scope}, since one in it failed ({})", short(self.place)),
            },
            Source::Enough => write!(f, "cancelled: {scope}, since it has what it wanted"),
            Source::Service => write!(f, "cancelled: the service in {scope}, since nobody is left who relies on it"),
            Source::Shutdown => write!(f, "cancelled: {scope} is being shut down"),
            Source::Deadlock => write!(f, "cancelled: {scope} is in a deadlock, and ends with a report of it (N10)"),
        }
    }
}

/// What a cancel is for, before it is known whether it is the first.
pub(crate) struct Why {
    pub source: Source,
    pub place: &'static Location<'static>,
    pub culprit: Option<Culprit>,
}

impl Why {
    pub fn new(source: Source, place: &'static Location<'static>) -> Self {
        Self { source, place, culprit: None }
    }
}
