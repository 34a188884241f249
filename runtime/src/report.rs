//! Warnings and errors that must not be lost: through `tracing`, and to standard error where nobody listens there.
//!
//! A program that has installed no subscriber would be told of a blocked loop, of a deadlock beside other threads, or of an error that had
//! nowhere to go, in silence. So each such event looks for a subscriber first, and is written by one of our own if there is none. Somebody who wants
//! silence installs a subscriber that filters.

use crate::payload::discard;
use std::fmt::{self, Write as _};
use std::panic::catch_unwind;
use std::sync::OnceLock;
use tracing::dispatcher::{self, Dispatch};
use tracing::field::{Field, Visit};
use tracing::subscriber::NoSubscriber;
use tracing::{Event, Level, Metadata, Subscriber, span};

/// `tracing::error!`, of something that must not be lost.
#[doc(hidden)]
#[macro_export]
macro_rules! report_error {
    ($($event:tt)*) => { $crate::report::aloud(|| ::tracing::error!($($event)*)) };
}

/// `tracing::warn!`, of something that must not be lost.
#[doc(hidden)]
#[macro_export]
macro_rules! report_warn {
    ($($event:tt)*) => { $crate::report::aloud(|| ::tracing::warn!($($event)*)) };
}

/// Sends an event where somebody hears it.
#[cold]
pub fn aloud(event: impl FnOnce()) {
    static STANDARD_ERROR: OnceLock<Dispatch> = OnceLock::new();
    if dispatcher::get_default(|subscriber| subscriber.is::<NoSubscriber>()) {
        dispatcher::with_default(STANDARD_ERROR.get_or_init(|| Dispatch::new(StandardError)), event);
    } else {
        event();
    }
}

/// Writes each event to standard error.
struct StandardError;

impl Subscriber for StandardError {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line { message: String::new(), fields: String::new() };
        event.record(&mut line);
        let level = if *event.metadata().level() == Level::ERROR { "error" } else { "warning" };
        // By the macro, which a test's harness captures. It panics where nobody reads standard error any more: then nobody is there to be told.
        if let Err(payload) = catch_unwind(|| eprintln!("trefoil: {level}: {}{}", line.message, line.fields)) {
            discard(payload);
        }
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// The message of an event, and what comes with it.
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail; a `Debug` that does leaves what it has written.
        _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}
