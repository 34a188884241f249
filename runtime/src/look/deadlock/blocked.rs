//! A task that waits, in a report, and the words for what it waits for.

use crate::look::holders::{Called, Holder, Holding, TaskRef};
use crate::look::snapshot::{self, length, short};
use crate::reason::{Does, Made, Reason};
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

/// A task that waits, in a [`Deadlock`](crate::Deadlock).
#[derive(Clone, Debug)]
pub struct BlockedTask {
    task: TaskRef,
    name: Option<Arc<str>>,
    waits: Vec<BlockedWait>,
}

/// The names of holders that wait themselves, in the order of the holders.
pub(crate) type Names = Arc<[Option<Arc<str>>]>;

/// A child that is joined, and its name.
pub(crate) type Child = (TaskRef, Option<Arc<str>>);

/// A task that was handed something, for a future that it does not poll, and where that waits.
pub(crate) type Handed = (Child, &'static Location<'static>);

/// What of a nursery is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Within {
    Body,
    Both,
    Children,
}

/// More is wanted than there is, whoever has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TooMany {
    pub wanted: usize,
    pub capacity: usize,
}

/// Who stands in front in a line.
#[derive(Clone, Debug)]
pub(crate) struct Front {
    pub task: TaskRef,
    pub name: Option<Arc<str>>,
    /// Nothing else is waited for: what is wanted is there.
    pub alone: bool,
}

/// What a [`BlockedTask`] waits for.
#[derive(Clone, Debug)]
pub struct BlockedWait {
    reason: Reason,
    place: &'static Location<'static>,
    made: Option<&'static Location<'static>>,
    since: Duration,
    held: Option<Holding>,
    holders: Arc<[Holder]>,
    names: Names,
    front: Option<Front>,
    child: Option<Child>,
    unpolled: bool,
    handed: Arc<[Handed]>,
    too_many: Option<TooMany>,
    within: Within,
}

impl BlockedTask {
    pub(crate) fn new(task: TaskRef, name: Option<Arc<str>>, waits: Vec<BlockedWait>) -> Self {
        Self { task, name, waits }
    }

    /// Which one.
    pub fn task(&self) -> TaskRef {
        self.task
    }

    /// Its name, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Where it was spawned.
    pub fn place(&self) -> &'static Location<'static> {
        self.task.place
    }

    /// What it waits for.
    pub fn waits(&self) -> &[BlockedWait] {
        &self.waits
    }

    /// What makes two tasks look the same.
    pub(super) fn key(&self) -> String {
        let waits: Vec<String> = self.waits.iter().map(|wait| wait.text(false)).collect();
        format!("{self} {}", waits.join("; "))
    }
}

impl fmt::Display for BlockedTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Called(self.task, self.name()).fmt(f)
    }
}

impl BlockedWait {
    pub(crate) fn new(
        reason: Reason,
        place: &'static Location<'static>,
        since: Duration,
        held: Option<Holding>,
        holders: Arc<[Holder]>,
        names: Names,
        front: Option<Front>,
    ) -> Self {
        let (made, child, unpolled, handed, too_many, within) =
            (None, None, false, Arc::default(), None, Within::Children);
        Self { reason, place, made, since, held, holders, names, front, child, unpolled, handed, too_many, within }
    }

    /// It has got what it waited for, and is not polled; and who else has.
    pub(crate) fn with_handed(self, unpolled: bool, handed: Arc<[Handed]>) -> Self {
        Self { unpolled, handed, ..self }
    }

    /// It waits for what was made there, and nobody holds.
    pub(crate) fn of_made(self, made: Option<&'static Location<'static>>) -> Self {
        Self { made, ..self }
    }

    /// It waits for the end of this one.
    pub(crate) fn of_child(self, child: Option<Child>) -> Self {
        Self { child, ..self }
    }

    /// It waits for this part of a nursery.
    pub(crate) fn of_nursery(self, within: Within) -> Self {
        Self { within, ..self }
    }

    /// It wants more than there is.
    pub(crate) fn of_too_few(self, too_many: Option<TooMany>) -> Self {
        Self { too_many, ..self }
    }

    /// What for.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// Where in the program; of a child that is joined by way of a combinator, where it was spawned.
    pub fn place(&self) -> &'static Location<'static> {
        self.place
    }

    /// Where that was made which it waits for: an event, a condition or a barrier. `None` of anything else.
    pub fn made(&self) -> Option<&'static Location<'static>> {
        self.made
    }

    /// The child that is joined, if it is that and waits itself.
    pub fn child(&self) -> Option<TaskRef> {
        self.child.as_ref().map(|(child, _)| *child)
    }

    /// For how long it had been. For the children of a nursery it waits since the body was done; while that goes on, since it began.
    pub fn since(&self) -> Duration {
        self.since
    }

    /// What it waited for has come; but its task, which was woken for that, does not poll the future that waited. A lock that it was handed
    /// stays with it.
    pub fn is_unpolled(&self) -> bool {
        self.unpolled
    }

    /// Who held it.
    pub fn holders(&self) -> &[Holder] {
        &self.holders
    }

    /// The names of the [holders](Self::holders), in the same order, of those that have one and wait for something themselves.
    pub fn holder_names(&self) -> impl Iterator<Item = Option<&str>> {
        self.names.iter().map(Option::as_deref)
    }

    /// Who stands in front of it in the line, and has to be served first: one that wants more of the same, such as a writer before a reader, or
    /// three permits before one.
    pub fn in_line_behind(&self) -> Option<TaskRef> {
        self.front.as_ref().map(|front| front.task)
    }

    /// Whether somebody was handed what it waits for, for a future that is not polled.
    pub(super) fn has_handed(&self) -> bool {
        !self.handed.is_empty()
    }

    /// It receives, and somebody has a sender.
    pub(super) fn is_for_the_end(&self) -> bool {
        self.held == Some(Holding::Senders) && !self.reason.hands_on() && !self.holders.is_empty()
    }

    /// What a line of the report says.
    pub(super) fn text(&self, with_time: bool) -> String {
        if self.unpolled {
            let made = Made(self.made);
            return format!("{} {}{made} at {}", snapshot::UNPOLLED, self.reason, short(self.place));
        }
        let mut text = match &self.child {
            // Where it is awaited is not known: by way of a combinator.
            Some((child, name)) if child.place == self.place => {
                format!("waits for {} to end", Called(*child, name.as_deref()))
            }
            Some((child, name)) => {
                format!("waits for {} to end at {}", Called(*child, name.as_deref()), short(self.place))
            }
            None if self.reason == Reason::Children => {
                let part = match self.within {
                    Within::Body => "body",
                    Within::Both => "body and the children",
                    Within::Children => "children",
                };
                format!("waits for the {part} of a nursery at {}", short(self.place))
            }
            None => format!("{}{} at {}", Does(self.reason), Made(self.made), short(self.place)),
        };
        // Of a nursery it is known to a millisecond.
        if with_time && !(self.reason == Reason::Children && self.since.is_zero()) {
            text += &format!(" since {}", length(self.since));
        }
        match self.too_many {
            Some(TooMany { capacity: 0, .. }) => return text + ", of which there are none",
            Some(TooMany { wanted, capacity }) => {
                return text + &format!(": {wanted} at once, of which there are {capacity} in all");
            }
            None => {}
        }
        if let Some(Front { task, name, .. }) = &self.front {
            text += &format!(", in line behind {}", Called(*task, name.as_deref()));
        }
        let Some(held) = self.held else { return text };
        if self.front.as_ref().is_some_and(|front| front.alone || self.holders.is_empty()) {
            return text;
        }
        let named = self.holders.iter().zip(self.holder_names()).take(4);
        let mut holders: Vec<String> = named.map(|(holder, name)| describe(held, holder, name)).collect();
        let handed = self.handed.iter().take(4).map(|((task, name), place)| {
            format!("a future of {} that is not polled (waits at {})", Called(*task, name.as_deref()), short(place))
        });
        holders.extend(handed);
        if self.reason.hands_on() {
            // It is made to be handed on: who has it now is not known.
            return match holders.first() {
                None => text + ", whose sender is gone",
                Some(sender) => text + &format!(", whose sender, made by {sender}, is still there"),
            };
        }
        let listed = match self.holders.len() + self.handed.len() {
            0 => "nobody that is known".to_string(),
            1..=4 => holders.join(", "),
            more => format!("{}, and {} more", holders[..3].join(", "), more - 3),
        };
        text += match (held, self.holders.len()) {
            (Holding::Lock | Holding::Permits | Holding::Tokens, _) => ", held by ",
            (Holding::Senders, 0) => ", of which no sender is open",
            (Holding::Receivers, 0) => ", of which no receiver is open",
            // They may have been handed on: who has them now is not known.
            (Holding::Senders, 1) => return text + &format!(", whose sender, made by {listed}, is still there"),
            (Holding::Receivers, 1) => return text + &format!(", whose receiver, made by {listed}, is still there"),
            (Holding::Senders, _) => ", whose senders are still there, made by ",
            (Holding::Receivers, _) => ", whose receivers are still there, made by ",
        };
        if !(self.holders.is_empty() && held.is_end()) {
            text += &listed;
        }
        text
    }
}

fn describe(held: Holding, holder: &Holder, name: Option<&str>) -> String {
    let (task, place) = (Called(holder.task(), name), short(holder.place()));
    match held {
        Holding::Senders | Holding::Receivers => format!("{task} at {place}"),
        Holding::Permits | Holding::Tokens if holder.units() != 1 => {
            format!("{task} ({} acquired at {place})", holder.units())
        }
        Holding::Lock | Holding::Permits | Holding::Tokens => format!("{task} (acquired at {place})"),
    }
}
