//! What can still wake a run in which every task waits.

use std::fmt;

/// What can still wake a run in which every task waits. See [`wake_sources`](crate::wake_sources).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WakeSources {
    /// Deadlines and sleeps that are set.
    pub timers: usize,
    /// Operations that the kernel has, or descriptors that it watches for somebody who waits.
    pub in_flight: usize,
    /// [`RunHandle`](crate::RunHandle)s.
    pub handles: usize,
    /// The names of the other threads of the process, of which any may hold something; `None` where they cannot be found out.
    pub threads: Option<Vec<String>>,
}

impl fmt::Display for WakeSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let many = |count: usize, what: &str| match count {
            0 => None,
            1 => Some(format!("1 {what}")),
            more => Some(format!("{more} {what}s")),
        };
        let threads = match &self.threads {
            None => Some("other threads, perhaps".to_string()),
            Some(names) => many(names.len(), "other thread").map(|text| format!("{text} ({})", names.join(", "))),
        };
        let (timers, in_flight) = (many(self.timers, "timer"), many(self.in_flight, "operation"));
        let all: Vec<String> =
            [timers, in_flight.map(|text| text + " in flight"), many(self.handles, "run handle"), threads]
                .into_iter()
                .flatten()
                .collect();
        if all.is_empty() { f.write_str("nothing") } else { f.write_str(&all.join(", ")) }
    }
}
