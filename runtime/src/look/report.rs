//! Warnings and errors that must not be lost: through `tracing`, and to standard error where nobody listens there.
//!
//! A program that has installed no subscriber would be told of a blocked loop, of a deadlock beside other threads, or of an error that had
//! nowhere to go, in silence. So each such event is written there if there is no subscriber. Somebody who wants silence installs one that filters.
//!
//! The line is not written by a subscriber of our own: as soon as there has been one in a process, for however short a time, `tracing` counts as
//! used, and sends nothing to the crate `log` any more.

use crate::payload::discard;
use std::fmt::{self, Write as _};
use std::panic::catch_unwind;
use tracing::dispatcher;
use tracing::subscriber::NoSubscriber;

/// `tracing::error!`, of something that must not be lost.
#[doc(hidden)]
#[macro_export]
macro_rules! report_error {
    ($($event:tt)*) => {{
        ::tracing::error!($($event)*);
        $crate::report_line!("error"; $($event)*);
    }};
}

/// `tracing::warn!`, of something that must not be lost.
#[doc(hidden)]
#[macro_export]
macro_rules! report_warn {
    ($($event:tt)*) => {{
        ::tracing::warn!($($event)*);
        $crate::report_line!("warning"; $($event)*);
    }};
}

/// The same event, as a line for standard error if nobody has heard it.
#[doc(hidden)]
#[macro_export]
macro_rules! report_line {
    ($level:literal; $($event:tt)*) => {
        if $crate::report::nobody_listens() {
            let mut line = $crate::report::Line::default();
            $crate::report_line!(@ line; $($event)*);
            line.write($level);
        }
    };
    (@ $line:ident; $name:ident = % $value:expr, $($rest:tt)+) => {
        $line.field(stringify!($name), format_args!("{}", $value));
        $crate::report_line!(@ $line; $($rest)+);
    };
    (@ $line:ident; $name:ident = ? $value:expr, $($rest:tt)+) => {
        $line.field(stringify!($name), format_args!("{:?}", $value));
        $crate::report_line!(@ $line; $($rest)+);
    };
    (@ $line:ident; $name:ident = $value:expr, $($rest:tt)+) => {
        $line.field(stringify!($name), format_args!("{:?}", $value));
        $crate::report_line!(@ $line; $($rest)+);
    };
    (@ $line:ident; $(%)? $name:ident, $($rest:tt)+) => {
        $line.field(stringify!($name), format_args!("{}", $name));
        $crate::report_line!(@ $line; $($rest)+);
    };
    (@ $line:ident; $($message:tt)+) => {
        $line.message(format_args!($($message)+));
    };
}

/// Whether an event of `tracing` would be lost on this thread.
#[cold]
pub fn nobody_listens() -> bool {
    dispatcher::get_default(|subscriber| subscriber.is::<NoSubscriber>())
}

/// The message of an event, and what comes with it.
#[derive(Debug, Default)]
pub struct Line {
    message: String,
    fields: String,
}

impl Line {
    /// What the event says.
    pub fn message(&mut self, text: fmt::Arguments<'_>) {
        // Writing to a string does not fail; a `Debug` that does leaves what it has written.
        _ = self.message.write_fmt(text);
    }

    /// What it is about.
    pub fn field(&mut self, name: &str, value: fmt::Arguments<'_>) {
        _ = write!(self.fields, " {name}={value}");
    }

    /// Writes it to standard error.
    pub fn write(&self, level: &str) {
        // By the macro, which a test's harness captures. It panics where nobody reads standard error any more: then nobody is there to be told.
        if let Err(payload) = catch_unwind(|| eprintln!("trefoil: {level}: {}{}", self.message, self.fields)) {
            discard(payload);
        }
    }
}
