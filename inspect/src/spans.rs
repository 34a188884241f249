//! The events put together: for each task its life from state to state, its scopes, and who woke whom. All forms are made of this.

use std::collections::HashMap;
use std::panic::Location;
use trefoil_runtime::{Ended, Event, Kind, Record, TaskInfo, What, WokenBy};

/// Nanoseconds since the begin of the recording.
pub type Time = u64;

/// One text of [`Texts`].
pub type Text = u32;

/// Each text once: a run says the same all the time.
#[derive(Debug, Default)]
pub struct Texts {
    all: Vec<String>,
    known: HashMap<String, Text>,
}

/// The empty text, and the text of a future that is not of this library.
pub const NOTHING: Text = 0;
const FOREIGN: &str = "something that is not of trefoil";

impl Texts {
    fn new() -> Self {
        let mut this = Self::default();
        this.of(String::new());
        this
    }

    fn of(&mut self, text: String) -> Text {
        if let Some(known) = self.known.get(&text) {
            return *known;
        }
        let number = Text::try_from(self.all.len()).expect("fewer than 2^32 texts");
        self.known.insert(text.clone(), number);
        self.all.push(text);
        number
    }

    pub fn all(&self) -> &[String] {
        &self.all
    }

    pub fn get(&self, text: Text) -> &str {
        &self.all[text as usize]
    }
}

/// What a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It is being polled.
    Polled,
    /// It can run, and has not been polled yet.
    Ready,
    /// It waits, and nobody has woken it.
    Waits,
}

/// A state of a task, from begin to end.
#[derive(Debug)]
pub struct State {
    pub doing: Doing,
    pub begin: Time,
    pub end: Time,
    /// The numbers of the events at both ends: what comes first at one time.
    pub order: (u64, u64),
    /// What it waits for; for a poll, what had been waited for and ended in it.
    pub text: Text,
    /// When what it waits for ends by itself, if that is a deadline.
    pub due: Option<Time>,
    /// A wait ended since it was cancelled: in this poll, or after this wait.
    pub cancelled: bool,
    /// For a poll, which of [`Spans::wakes`] it is due to.
    pub wake: Option<usize>,
}

/// A scope that was entered and left.
#[derive(Debug)]
pub struct Scope {
    pub number: u64,
    pub begin: Time,
    pub end: Time,
    pub order: (u64, u64),
    open: bool,
    nursery: bool,
    pub text: Text,
    /// Why it was cancelled, if it was.
    pub cause: Option<Text>,
    /// When it would have ended by itself, as was said when it was entered.
    pub deadline: Option<Time>,
    /// Scopes of a task that overlap have different ones.
    pub lane: usize,
}

/// A task.
#[derive(Debug)]
pub struct Task {
    pub id: u64,
    pub label: String,
    pub place: String,
    /// Its first and its last event.
    pub begin: Time,
    pub end: Time,
    /// Whether its end was seen.
    pub exited: bool,
    pub spawned_by: Option<From>,
    /// One after the other, without overlaps.
    pub states: Vec<State>,
    pub scopes: Vec<Scope>,
}

/// Where a wake came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// An index of [`Spans::tasks`].
    Task(usize),
    /// An index of [`Spans::sources`].
    Source(usize),
}

/// A wake, and the poll that it led to.
#[derive(Debug)]
pub struct Wake {
    pub from: From,
    pub at: Time,
    pub order: u64,
    /// An index of [`Spans::tasks`], and of the states of that.
    pub to: usize,
    pub poll: usize,
}

#[derive(Debug)]
pub struct Spans {
    /// In the order in which they were seen first.
    pub tasks: Vec<Task>,
    pub wakes: Vec<Wake>,
    /// Who wakes and is no task: the driver, deadlines, other threads.
    pub sources: Vec<String>,
    pub texts: Texts,
    pub length: Time,
    pub dropped: u64,
}

pub fn place(place: &Location<'_>) -> String {
    format!("{}:{}", place.file().rsplit('/').next().unwrap_or_default(), place.line())
}

/// A length of time, as a person reads it.
pub fn length(nanos: u64) -> String {
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{:.1} µs", nanos as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", nanos as f64 / 1e6),
        _ => format!("{:.2} s", nanos as f64 / 1e9),
    }
}

/// A wait that goes on.
struct Waiting {
    number: u64,
    text: String,
    began: Time,
    due: Option<Time>,
}

/// What is known of a task while its events are gone through.
#[derive(Default)]
struct Now {
    waits: Vec<Waiting>,
    /// Who woke it, if it was not polled since.
    woken: Option<(Option<From>, Time, u64)>,
    /// What ended in the poll that goes on.
    ended: Vec<String>,
}

struct Reader {
    spans: Spans,
    now: Vec<Now>,
    known: HashMap<u64, usize>,
    sources: HashMap<String, usize>,
    began: u64,
}

impl Spans {
    pub fn of(record: Record) -> Self {
        let (began, end) = record.span;
        let spans = Self {
            tasks: Vec::new(),
            wakes: Vec::new(),
            sources: Vec::new(),
            texts: Texts::new(),
            length: end.saturating_sub(began),
            dropped: record.dropped,
        };
        let mut reader = Reader { spans, now: Vec::new(), known: HashMap::new(), sources: HashMap::new(), began };
        for (order, event) in (0..).zip(record.events) {
            reader.read(event, order);
        }
        reader.end()
    }

    /// Whether this task was being polled at the event with this number.
    pub fn is_polled(&self, task: usize, order: u64) -> bool {
        let states = &self.tasks[task].states;
        let after = states.partition_point(|state| state.order.0 <= order);
        after.checked_sub(1).is_some_and(|at| states[at].doing == Doing::Polled && order <= states[at].order.1)
    }
}

impl Reader {
    fn at(&self, time: u64) -> Time {
        time.saturating_sub(self.began)
    }

    fn index(&mut self, task: &TaskInfo, at: Time) -> usize {
        *self.known.entry(task.id()).or_insert_with(|| {
            self.now.push(Now::default());
            self.spans.tasks.push(Task {
                id: task.id(),
                label: task.name().map_or_else(|| format!("task {}", task.id()), Into::into),
                place: place(task.place()),
                begin: at,
                end: at,
                exited: false,
                spawned_by: None,
                states: Vec::new(),
                scopes: Vec::new(),
            });
            self.spans.tasks.len() - 1
        })
    }

    fn from(&mut self, by: &WokenBy) -> Option<From> {
        let source = match by {
            // One of which nothing was seen has no row that an arrow could come from.
            WokenBy::Task(id) => return self.known.get(id).map(|index| From::Task(*index)),
            WokenBy::Unknown => return None,
            WokenBy::Deadline => "deadlines".to_string(),
            WokenBy::Driver => "the driver".to_string(),
            WokenBy::Call => "calls of run handles".to_string(),
            WokenBy::Idle => "the loop at rest".to_string(),
            other => other.to_string(),
        };
        let next = self.spans.sources.len();
        Some(From::Source(*self.sources.entry(source).or_insert_with_key(|source| {
            self.spans.sources.push(source.clone());
            next
        })))
    }

    fn read(&mut self, event: Event, order: u64) {
        let at = self.at(event.at);
        self.spans.length = self.spans.length.max(at);
        let index = self.index(&event.task, at);
        self.spans.tasks[index].end = at;
        match event.what {
            What::Spawned { by } => self.spans.tasks[index].spawned_by = self.from(&by),
            What::Woken { by } => {
                self.now[index].woken = Some((self.from(&by), at, order));
                // One that is woken in its poll is ready when that ends.
                if self.poll(index).is_none() {
                    self.enter(index, Doing::Ready, NOTHING, at, order);
                }
            }
            What::PollBegins => {
                self.enter(index, Doing::Polled, NOTHING, at, order);
                self.now[index].ended.clear();
                if let Some((Some(from), woken_at, woken_order)) = self.now[index].woken.take() {
                    let states = &mut self.spans.tasks[index].states;
                    let poll = states.len() - 1;
                    states[poll].wake = Some(self.spans.wakes.len());
                    self.spans.wakes.push(Wake { from, at: woken_at, order: woken_order, to: index, poll });
                }
            }
            What::PollEnds { over: true } => self.leave(index, at, order),
            What::PollEnds { .. } => {
                let now = &self.now[index];
                let (doing, text) = if now.woken.is_some() {
                    (Doing::Ready, String::new())
                } else if now.waits.is_empty() {
                    (Doing::Waits, self.waits_for_children(index))
                } else {
                    let texts: Vec<_> = now.waits.iter().map(|wait| wait.text.as_str()).collect();
                    (Doing::Waits, some_of(&texts, " or "))
                };
                let text = self.spans.texts.of(text);
                let due = now.waits.iter().filter_map(|wait| wait.due).min();
                self.enter(index, doing, text, at, order);
                if let Some(state) = self.spans.tasks[index].states.last_mut() {
                    state.due = due;
                }
            }
            What::Exited => {
                self.leave(index, at, order);
                self.now[index] = Now::default();
                let task = &mut self.spans.tasks[index];
                task.exited = true;
                for scope in task.scopes.iter_mut().filter(|scope| scope.open) {
                    (scope.end, scope.order.1, scope.open) = (at, order, false);
                }
            }
            What::WaitBegins { wait, reason, place: whence, until } => {
                let due = until.map(|until| self.at(until));
                let text = format!("{reason} at {}", place(whence));
                self.now[index].waits.push(Waiting { number: wait, text, began: at, due });
            }
            What::WaitEnds { wait, how } => self.wait_ends(index, wait, how, at),
            What::ScopeEntered { scope, info, deadline } => {
                let text = self.spans.texts.of(info.to_string());
                let deadline = deadline.map(|at| self.at(at));
                let scopes = &mut self.spans.tasks[index].scopes;
                let lane = (0..).find(|lane| !scopes.iter().rev().take(100).any(|one| one.open && one.lane == *lane));
                scopes.push(Scope {
                    number: scope,
                    begin: at,
                    end: at,
                    order: (order, OPEN),
                    open: true,
                    nursery: info.kind == Kind::Nursery,
                    text,
                    cause: None,
                    deadline,
                    lane: lane.unwrap_or_default(),
                });
            }
            What::ScopeLeft { scope, cause } => {
                let cause = cause.map(|cause| self.spans.texts.of(cause.to_string()));
                let scopes = &mut self.spans.tasks[index].scopes;
                if let Some(scope) = scopes.iter_mut().rev().find(|one| one.number == scope && one.open) {
                    (scope.end, scope.order.1, scope.open, scope.cause) = (at, order, false, cause);
                }
            }
            // Kinds of events that this does not know.
            _ => {}
        }
    }

    /// The poll of this task that goes on.
    fn poll(&self, index: usize) -> Option<usize> {
        let states = &self.spans.tasks[index].states;
        let last = states.last().filter(|state| state.doing == Doing::Polled && state.order.1 == OPEN);
        last.map(|_| states.len() - 1)
    }

    /// What it waits for if no operation of it does: what goes on in its innermost nursery.
    fn waits_for_children(&self, index: usize) -> String {
        let scopes = self.spans.tasks[index].scopes.iter().rev().take(100);
        match scopes.filter(|scope| scope.open).find(|scope| scope.nursery) {
            Some(nursery) => format!("the children of {}", self.spans.texts.get(nursery.text)),
            None => FOREIGN.to_string(),
        }
    }

    fn wait_ends(&mut self, index: usize, wait: u64, how: Ended, at: Time) {
        let poll = self.poll(index);
        let now = &mut self.now[index];
        let Some(found) = now.waits.iter().position(|one| one.number == wait) else { return };
        let Waiting { text, began, .. } = now.waits.remove(found);
        now.ended.push(format!("{text}: {how} after {}", length(at.saturating_sub(began))));
        let Some(poll) = poll else { return };
        let texts: Vec<_> = now.ended.iter().map(String::as_str).collect();
        let states = &mut self.spans.tasks[index].states;
        states[poll].text = self.spans.texts.of(some_of(&texts, "; "));
        if how == Ended::Cancelled {
            states[poll].cancelled = true;
            // The wait before it, if there was one: between them it was ready.
            let before = states[..poll].iter_mut().rev().take(2).find(|state| state.doing == Doing::Waits);
            if let Some(before) = before.filter(|before| before.end >= began) {
                before.cancelled = true;
            }
        }
    }

    fn enter(&mut self, index: usize, doing: Doing, text: Text, at: Time, order: u64) {
        self.leave(index, at, order);
        self.spans.tasks[index].states.push(State {
            doing,
            begin: at,
            end: at,
            order: (order, OPEN),
            text,
            due: None,
            cancelled: false,
            wake: None,
        });
    }

    fn leave(&mut self, index: usize, at: Time, order: u64) {
        if let Some(state) = self.spans.tasks[index].states.last_mut().filter(|state| state.order.1 == OPEN) {
            (state.end, state.order.1) = (at, order);
        }
    }

    /// What goes on when the recording ends does so up to its end.
    fn end(mut self) -> Spans {
        let length = self.spans.length;
        for task in &mut self.spans.tasks {
            if !task.exited {
                task.end = length;
            }
            for state in task.states.iter_mut().filter(|state| state.order.1 == OPEN) {
                state.end = length;
            }
            for scope in task.scopes.iter_mut().filter(|scope| scope.open) {
                scope.end = length;
            }
        }
        self.spans
    }
}

/// The order of an end that was not seen: after everything.
pub const OPEN: u64 = u64::MAX;

/// Those that a person reads.
fn some_of(texts: &[&str], between: &str) -> String {
    const MOST: usize = 4;
    let mut text = texts[..texts.len().min(MOST)].join(between);
    if texts.len() > MOST {
        text += &format!("{between}{} more", texts.len() - MOST);
    }
    text
}
