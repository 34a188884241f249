//! What a nursery knows of those who failed, and how it is cancelled for them.

use super::child::Name;
use crate::service::Services;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::Arc;
use trefoil_runtime::{self as runtime, CancelAware, Culprit, FailedBy, Failure, Payload, Ready, Scope, Source};

/// What the handle points to.
pub(super) struct State<E> {
    pub(super) scope: Scope,
    pub(super) ready: *const Ready,
    pub(super) errors: RefCell<Errors<E>>,
    pub(super) payload: RefCell<Option<Payload>>,
    pub(super) cut: Cell<bool>,
    /// The place in `errors` of one with a cancellation in it that came out of a task while nothing was cancelled: an ordinary error
    /// (N14). There is one at most, since it cancels the nursery.
    pub(super) made_up: Cell<Option<usize>>,
    pub(super) services: Services,
}

/// The errors of all tasks, in the order in which those ended.
pub(super) struct Errors<E> {
    pub(super) all: Vec<E>,
    pub(super) failed_by: AllFailedBy,
}

impl<E> Default for Errors<E> {
    fn default() -> Self {
        Self { all: Vec::new(), failed_by: AllFailedBy::default() }
    }
}

impl<E> Errors<E> {
    /// With what failed with each.
    pub(super) fn into_failures(self) -> impl Iterator<Item = Failure<E>> + use<E> {
        let Self { all, mut failed_by } = self;
        all.into_iter().enumerate().map(move |(at, error)| failed_by.with(at, error))
    }
}

/// What failed with which error. Not with those that only tell of a cancellation: of 100,000 children that are cancelled each returns such a one, which may take
/// no room at all.
#[derive(Default)]
pub(super) struct AllFailedBy(Vec<(usize, Option<FailedBy>)>);

impl AllFailedBy {
    /// With the error that comes to this place.
    #[cold]
    fn note(&mut self, at: usize, by: FailedBy) {
        self.0.push((at, Some(by)));
    }

    /// The error of this place, with what failed.
    pub(super) fn with<E>(&mut self, at: usize, error: E) -> Failure<E> {
        let noted = self.0.binary_search_by_key(&at, |(of, _)| *of).ok();
        Failure::new(error, noted.and_then(|noted| self.0[noted].1.take()))
    }
}

/// Who failed.
#[derive(Clone, Copy)]
pub(super) struct Who<'a> {
    pub(super) name: Option<&'a dyn Name>,
    pub(super) place: &'static Location<'static>,
    pub(super) body: bool,
}

impl Who<'_> {
    fn name(&self) -> Option<Arc<str>> {
        self.name.map(Name::name)
    }

    fn failed_by(&self) -> FailedBy {
        match self.body {
            true => FailedBy::Body(self.place),
            false => FailedBy::Task { name: self.name(), place: self.place },
        }
    }
}

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            Some(name) => write!(f, "`{}` ({})", name.name(), self.place),
            None => self.place.fmt(f),
        }
    }
}

/// An error, as it describes itself.
struct Described<'a, E>(&'a E);

impl<E: CancelAware> fmt::Display for Described<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.describe(f)
    }
}

impl<E: CancelAware> State<E> {
    pub(super) fn fail(&self, error: E, who: Who<'_>) {
        let is_cancelled = self.scope.is_cancelled();
        let is_told = is_cancelled && error.is_cancelled();
        if !is_cancelled && error.has_cancelled() {
            self.made_up.set(Some(self.errors.borrow().all.len()));
        }
        let culprit = self.culprit(who, false, || Described(&error));
        // `RefCell`: no user code runs while it is borrowed.
        let mut errors = self.errors.borrow_mut();
        if !is_told {
            let at = errors.all.len();
            errors.failed_by.note(at, who.failed_by());
        }
        errors.all.push(error);
        drop(errors);
        self.cancel(culprit);
    }

    /// Does not panic, whatever the payload or a waker does: it is called half way through an end.
    pub(super) fn panicked(&self, payload: Payload, who: Who<'_>) {
        let culprit = self.culprit(who, true, || message(&payload));
        self.keep(payload, who);
        self.cancel(culprit);
    }

    fn keep(&self, payload: Payload, who: Who<'_>) {
        let first = self.payload.borrow().is_none();
        if first {
            *self.payload.borrow_mut() = Some(payload);
        } else {
            trefoil_runtime::report_error!(task = %who, "a task panicked while another panic waits for its nursery to end: {}", message(&payload));
            runtime::discard(payload);
        }
    }

    /// Who sets off the cancellation, with what it says; for the first only, since nobody asks about others. The text is code of others,
    /// and may panic.
    fn culprit<T: fmt::Display>(&self, who: Who<'_>, panicked: bool, text: impl FnOnce() -> T) -> Option<Culprit> {
        if self.scope.is_cancel_called() {
            return None;
        }
        let make = |text: fmt::Arguments<'_>| {
            let culprit = Culprit::new(who.name(), who.place, panicked, text);
            if who.body { culprit.body() } else { culprit }
        };
        Some(catch_unwind(AssertUnwindSafe(|| make(format_args!("{}", text())))).unwrap_or_else(|payload| {
            runtime::discard(payload);
            make(format_args!("(an error whose text panics)"))
        }))
    }

    fn cancel(&self, culprit: Option<Culprit>) {
        let Some(culprit) = culprit else { return };
        let who = Who { name: None, place: culprit.place, body: culprit.body };
        self.guarded(who, || self.scope.cancel_after(culprit));
    }

    /// Tells a service to stop.
    pub(super) fn stop(&self, service: &Scope, place: &'static Location<'static>) {
        self.guarded(Who { name: None, place, body: true }, || service.cancel(Source::Service, place));
    }

    /// What waits in a scope that is cancelled is woken, perhaps by way of a foreign executor's waker, which panics.
    fn guarded(&self, who: Who<'_>, cancel: impl FnOnce()) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(cancel)) {
            self.keep(payload, who);
        }
    }
}

pub(crate) fn message(payload: &Payload) -> &str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(a payload that is not text)")
}
