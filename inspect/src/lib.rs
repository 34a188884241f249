//! Timelines: what happened in a run, as a trace for Perfetto or Chrome's viewer, as a page that needs neither, and as a picture. And the
//! task tree as JSON.
//!
//! ```
//! # trefoil_runtime::doc_run(async {
//! use std::time::Duration;
//! use trefoil_inspect::Timeline;
//! use trefoil_nursery::{Cancelled, nursery, sleep};
//!
//! let timeline = Timeline::record();
//! nursery(async |n| -> Result<(), Cancelled> {
//!     n.spawn_named("tea", sleep(Duration::from_millis(3)));
//!     n.spawn_named("toast", sleep(Duration::from_millis(2)));
//!     Ok(())
//! })
//! .named("breakfast")
//! .await?;
//! let trace = timeline.stop();
//! assert!(trace.to_json().to_string().contains("breakfast")); // open it in Perfetto,
//! assert!(trace.to_html().contains("toast")); // or this in any browser
//! # Ok::<(), Cancelled>(()) }).unwrap();
//! ```
//!
//! Users of `trefoil` find this as `trefoil::inspect`, with the feature `inspect`.

mod chrome;
mod page;
mod picture;
mod spans;
mod tree;

pub use tree::tree_to_json;
#[doc(no_inline)]
pub use trefoil_runtime::{Ended, Event, Record, Recording, What, WokenBy, record};

use spans::Spans;

/// How many events are kept unless it is said otherwise: 10 MB or so.
const EVENTS: usize = 65_536;

/// A recording of the run on this thread, which goes on until it is [stopped](Self::stop) or dropped.
#[derive(Debug)]
#[must_use = "it records until it is dropped"]
pub struct Timeline {
    recording: Recording,
}

impl Timeline {
    /// Begins to record, and keeps the last 65,536 events.
    ///
    /// # Panics
    /// Outside of a run, or while it is being recorded already.
    #[track_caller]
    pub fn record() -> Self {
        Self::with_capacity(EVENTS)
    }

    /// The same, with the last `events` events.
    ///
    /// # Panics
    /// As [`record`](Self::record).
    #[track_caller]
    pub fn with_capacity(events: usize) -> Self {
        Self { recording: trefoil_runtime::record(events) }
    }

    /// What was recorded.
    pub fn stop(self) -> Trace {
        Trace::new(self.recording.take())
    }
}

/// What was recorded, to be written in one form or another.
#[derive(Debug)]
pub struct Trace {
    spans: Spans,
}

impl Trace {
    /// Of events that were recorded by [`trefoil_runtime::record`].
    pub fn new(record: Record) -> Self {
        Self { spans: Spans::of(record) }
    }

    /// How many events came first and were dropped, since there were too many.
    pub fn dropped(&self) -> u64 {
        self.spans.dropped
    }

    /// As a trace in the format of Chrome's viewer, which Perfetto opens: a process for the run, a thread for each task; slices for polls,
    /// asynchronous ones for waits and scopes, arrows for wakes, marks for cancellations.
    pub fn to_json(&self) -> serde_json::Value {
        chrome::trace(&self.spans)
    }

    /// As one HTML page, which needs no other tool and no network: zoom with the wheel, pan by dragging, hover, search.
    pub fn to_html(&self) -> String {
        page::page(&self.spans)
    }

    /// As a picture (SVG).
    pub fn to_svg(&self) -> String {
        picture::svg(&self.spans)
    }
}
