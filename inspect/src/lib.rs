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
use std::fmt;
use std::time::Duration;

/// How many events are kept unless it is said otherwise: 7 MB.
const EVENTS: usize = 65_536;

/// A recording of the run on this thread, which goes on until it is [stopped](Self::stop) or dropped.
#[derive(Debug)]
#[must_use = "it records until it is dropped"]
pub struct Timeline {
    recording: Recording,
}

impl Timeline {
    /// Begins to record, and keeps the last 65,536 events (7 MB). That which is polled now is seen from now on, what else there is from its next turn
    /// on.
    ///
    /// # Panics
    /// Outside of a run, or while it is being recorded already. Runs of other threads may be recorded at the same time.
    ///
    /// # Examples
    /// See the [crate].
    #[track_caller]
    pub fn record() -> Self {
        Self::with_capacity(EVENTS)
    }

    /// The same, with the last `events` events. [`Trace::dropped`] says how many were lost.
    ///
    /// An event becomes a slice, more or less, and 100 to 250 bytes of JSON. Perfetto was seen to crash on a trace of 720,000 slices; so one of more
    /// than 500,000 is logged as a warning when it is written.
    ///
    /// # Panics
    /// As [`record`](Self::record).
    ///
    /// # Examples
    /// ```
    /// # trefoil_runtime::doc_run(async {
    /// let timeline = trefoil_inspect::Timeline::with_capacity(10);
    /// for _ in 0..100 {
    ///     trefoil_nursery::checkpoint().await?;
    /// }
    /// assert!(timeline.stop().dropped() > 100);
    /// # Ok::<(), trefoil_nursery::Cancelled>(()) }).unwrap();
    /// ```
    #[track_caller]
    pub fn with_capacity(events: usize) -> Self {
        Self { recording: trefoil_runtime::record(events) }
    }

    /// What was recorded. It can be taken out of the run, and to another thread, to be written there.
    ///
    /// # Examples
    /// See the [crate].
    pub fn stop(self) -> Trace {
        Trace::new(self.recording.take())
    }
}

/// What was recorded, to be written in one form or another.
pub struct Trace {
    spans: Spans,
}

/// How much there is, and not all of it: that may be megabytes.
impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spans { tasks, wakes, length, dropped, .. } = &self.spans;
        f.debug_struct("Trace")
            .field("length", &Duration::from_nanos(*length))
            .field("tasks", &tasks.len())
            .field("states", &tasks.iter().map(|task| task.states.len()).sum::<usize>())
            .field("scopes", &tasks.iter().map(|task| task.scopes.len()).sum::<usize>())
            .field("wakes", &wakes.len())
            .field("dropped", dropped)
            .finish()
    }
}

impl Trace {
    /// Of events that were recorded by [`trefoil_runtime::record`].
    ///
    /// # Examples
    /// ```
    /// # trefoil_runtime::doc_run(async {
    /// let recording = trefoil_runtime::record(1_000);
    /// trefoil_nursery::checkpoint().await?;
    /// let trace = trefoil_inspect::Trace::new(recording.take());
    /// assert_eq!(trace.dropped(), 0);
    /// # Ok::<(), trefoil_nursery::Cancelled>(()) }).unwrap();
    /// ```
    pub fn new(record: Record) -> Self {
        Self { spans: Spans::of(record) }
    }

    /// How many events came first and were dropped, since there were too many.
    ///
    /// # Examples
    /// See [`Timeline::with_capacity`].
    pub fn dropped(&self) -> u64 {
        self.spans.dropped
    }

    /// As a trace in the format of Chrome's viewer, which Perfetto opens: a thread for each task, with slices for what it does (`polled`, `ready`,
    /// or what it waits for); threads for what wakes and is no task (deadlines, the driver, other threads); asynchronous slices for scopes,
    /// arrows for wakes, marks for cancellations.
    ///
    /// # Examples
    /// ```
    /// # trefoil_runtime::doc_run(async {
    /// use std::time::Duration;
    /// use trefoil_inspect::Timeline;
    /// use trefoil_nursery::{Cancelled, nursery, sleep};
    ///
    /// let timeline = Timeline::record();
    /// nursery(async |n| -> Result<(), Cancelled> {
    ///     n.spawn_named("tea", sleep(Duration::from_millis(1)));
    ///     Ok(())
    /// })
    /// .await?;
    /// let json = timeline.stop().to_json();
    /// let events = json["traceEvents"].as_array().unwrap();
    /// assert!(events.iter().any(|event| event["args"]["woken by"] == "deadlines"));
    /// # Ok::<(), Cancelled>(()) }).unwrap();
    /// ```
    pub fn to_json(&self) -> serde_json::Value {
        chrome::Trace::of(&self.spans).to_value()
    }

    /// Writes the same, event by event: a trace of a million events is 150 MB of JSON, which need not be in memory all at once.
    ///
    /// # Errors
    /// Those of the writer. What was written until then is there.
    ///
    /// # Examples
    /// ```
    /// # trefoil_runtime::doc_run(async {
    /// use trefoil_inspect::Timeline;
    ///
    /// let trace = Timeline::record().stop();
    /// let mut json = Vec::new(); // or a file, in a `BufWriter`
    /// trace.write_json(&mut json)?;
    /// assert_eq!(serde_json::from_slice::<serde_json::Value>(&json)?, trace.to_json());
    /// # Ok::<(), std::io::Error>(()) }).unwrap();
    /// ```
    pub fn write_json(&self, mut to: impl std::io::Write) -> std::io::Result<()> {
        chrome::Trace::of(&self.spans).write(&mut to)
    }

    /// As one HTML page, which needs no other tool and no network. It shows of each task when it was polled, ready and waiting, for what,
    /// who woke it and whom it woke, and which scopes it was in; the key `?` lists what can be done. With a million events of ten thousand
    /// tasks it has 15 MB, and is there after a second or two.
    ///
    /// Names and texts are shown as what they are: they cannot become part of the page.
    ///
    /// # Examples
    /// ```
    /// # trefoil_runtime::doc_run(async {
    /// use trefoil_inspect::Timeline;
    /// use trefoil_nursery::{Cancelled, checkpoint, nursery};
    ///
    /// let timeline = Timeline::record();
    /// nursery(async |n| -> Result<(), Cancelled> {
    ///     n.spawn_named("</script><script>alert(1)", checkpoint());
    ///     Ok(())
    /// })
    /// .await?;
    /// let page = timeline.stop().to_html();
    /// assert!(!page.contains("<script>alert"));
    /// // std::fs::write("timeline.html", page)?;
    /// # Ok::<(), Cancelled>(()) }).unwrap();
    /// ```
    pub fn to_html(&self) -> String {
        page::page(&self.spans)
    }

    /// As a picture (SVG), of the first 60 tasks.
    ///
    /// # Examples
    /// ```
    /// # trefoil_runtime::doc_run(async {
    /// let picture = trefoil_inspect::Timeline::record().stop().to_svg();
    /// assert!(picture.starts_with("<svg "));
    /// # });
    /// ```
    pub fn to_svg(&self) -> String {
        picture::svg(&self.spans)
    }
}
