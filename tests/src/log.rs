//! What this library says through `tracing`.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard};
use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Metadata, Subscriber, span};

/// Listens on this thread to warnings and errors, until the guard is dropped: each as a line, its message and then its fields.
#[must_use]
pub fn listen(hear: impl Fn(&str) + Send + Sync + 'static) -> DefaultGuard {
    tracing::subscriber::set_default(Ears(hear))
}

/// As [`listen`], on all threads of this process, for good. Once.
pub fn listen_everywhere(hear: impl Fn(&str) + Send + Sync + 'static) {
    tracing::subscriber::set_global_default(Ears(hear)).expect("nobody listens yet");
}

/// The lines that were heard, from its begin on until it is dropped.
#[derive(Debug)]
pub struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    _listens: DefaultGuard,
}

impl Default for Log {
    fn default() -> Self {
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let heard = lines.clone();
        Self { lines, _listens: listen(move |line| heard.lock().unwrap().push(line.into())) }
    }
}

impl Log {
    /// The lines, to be looked at or taken.
    pub fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap()
    }
}

struct Ears<F>(F);

impl<F: Fn(&str) + Send + Sync + 'static> Subscriber for Ears<F> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }
    fn event(&self, event: &Event<'_>) {
        let mut line = Line { message: String::new(), fields: String::new() };
        event.record(&mut line);
        (self.0)(&(line.message + &line.fields));
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, "; {name}={value:?}"),
        }
        .unwrap();
    }
}
