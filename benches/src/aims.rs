//! The workloads, and what this library wants to reach in each.

/// One line of the table.
#[derive(Debug)]
pub struct Row {
    /// How it is called on the command line.
    pub name: &'static str,
    /// What is measured, for people.
    pub title: &'static str,
    /// The workload of `runtimes/`, and how many children, tasks or levels.
    pub workload: &'static str,
    pub size: usize,
    /// The metrics of one process, with their units and aims.
    pub metrics: &'static [Metric],
}

/// A number that a row has; less is better.
#[derive(Debug)]
pub struct Metric {
    /// As the process prints it.
    pub name: &'static str,
    pub unit: &'static str,
    /// At most so much. None where no aim was set.
    pub aim: Option<f64>,
}

const fn ns(aim: f64) -> Metric {
    Metric { name: "ns", unit: "ns", aim: Some(aim) }
}

const NS: Metric = Metric { name: "ns", unit: "ns", aim: None };

/// In the order of the report.
pub const ROWS: &[Row] = &[
    Row {
        name: "spawn-1k",
        title: "spawn + join a ready child, 1,000 in one nursery",
        workload: "spawn",
        size: 1_000,
        metrics: &[ns(25.0)],
    },
    Row {
        name: "spawn-100k",
        title: "spawn + join a ready child, 100,000 in one nursery",
        workload: "spawn",
        size: 100_000,
        metrics: &[ns(30.0)],
    },
    Row {
        name: "yield-1k",
        title: "spawn + join a child that yields once, 1,000",
        workload: "yield",
        size: 1_000,
        metrics: &[ns(40.0)],
    },
    Row {
        name: "yield-100k",
        title: "spawn + join a child that yields once, 100,000",
        workload: "yield",
        size: 100_000,
        metrics: &[ns(60.0)],
    },
    Row {
        name: "turn",
        title: "one fair turn of a yielding task, 100 tasks",
        workload: "turn",
        size: 100,
        metrics: &[ns(12.0)],
    },
    Row {
        name: "channel",
        title: "round trip over bounded(1) channels, one thread",
        workload: "channel",
        size: 1,
        metrics: &[ns(80.0)],
    },
    Row {
        name: "channel-threads",
        title: "round trip over bounded(1) channels, two threads, a hot pair",
        workload: "channel-threads",
        size: 1,
        metrics: &[ns(4_000.0)],
    },
    Row {
        name: "deadline-ready",
        title: "deadline around a ready operation",
        workload: "deadline-ready",
        size: 1,
        metrics: &[ns(8.0)],
    },
    Row {
        name: "deadline-waits",
        title: "deadline set and removed around an operation that waits a turn, on top of it",
        workload: "deadline-waits",
        size: 1,
        metrics: &[ns(40.0)],
    },
    Row {
        name: "cancel-told",
        title: "cancel 100,000 sleeping children, each told and awaited",
        workload: "cancel-told",
        size: 100_000,
        metrics: &[ns(80.0)],
    },
    Row {
        name: "cancel-dropped",
        title: "cancel 100,000 sleeping children by dropping",
        workload: "cancel-dropped",
        size: 100_000,
        metrics: &[ns(35.0)],
    },
    Row {
        name: "cancel-cleanup",
        title: "cancel 10,000 sleeping children, each cleans up for a turn in a shield",
        workload: "cancel-cleanup",
        size: 10_000,
        metrics: &[NS],
    },
    Row {
        name: "timers",
        title: "100,000 timers in a second",
        workload: "timers",
        size: 100_000,
        metrics: &[
            Metric { name: "cpu_ms", unit: "ms of CPU", aim: Some(180.0) },
            Metric { name: "late_us", unit: "µs late on average", aim: Some(60.0) },
        ],
    },
    Row {
        name: "bytes-100k",
        title: "memory of a sleeping child, 100,000 of them",
        workload: "bytes",
        size: 100_000,
        metrics: &[Metric { name: "bytes", unit: "B", aim: None }],
    },
    Row {
        name: "bytes-1m",
        title: "memory of a sleeping child, 1,000,000 of them",
        workload: "bytes",
        size: 1_000_000,
        metrics: &[Metric { name: "bytes", unit: "B", aim: Some(160.0) }],
    },
    Row { name: "nested-1", title: "one turn of a task, 1 nursery deep", workload: "nested", size: 1, metrics: &[NS] },
    Row {
        name: "nested-4",
        title: "one turn of a task, 4 nurseries deep",
        workload: "nested",
        size: 4,
        metrics: &[NS],
    },
    Row {
        name: "nested-16",
        title: "one turn of a task, 16 nurseries deep",
        workload: "nested",
        size: 16,
        metrics: &[NS],
    },
];

/// This library, and what the work costs without a runtime, among the runtimes.
pub const OURS: &str = "trefoil";
/// What the work costs without a runtime.
pub const FLOOR: &str = "floor";

/// All of them, as `runtimes/` calls them. Ours first, then the peers, then the floor.
pub const RUNTIMES: &[&str] = &[
    OURS,
    "tokio",
    "tokio-handles",
    "smol",
    "futures-unordered",
    "futures-concurrency",
    "moro",
    "monoio",
    "compio",
    "glommio",
    FLOOR,
];
