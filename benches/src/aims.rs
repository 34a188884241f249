//! The workloads, and what this library wants to reach in each.

/// One line of the table.
#[derive(Debug)]
pub struct Row {
    /// How it is called on the command line.
    pub name: &'static str,
    /// What is measured, for people.
    pub title: &'static str,
    /// The workload of `runtimes/`, and its options.
    pub args: &'static [&'static str],
    pub field: &'static Field,
    /// The metrics of one process, with their units and aims.
    pub metrics: &'static [Metric],
}

/// Who runs a row.
#[derive(Debug)]
pub struct Field {
    /// As `runtimes/` calls them. Ours first, then the peers, then the floors.
    pub runtimes: &'static [&'static str],
    /// Ours, with what the work costs without a runtime.
    pub ours: &'static [Ours],
    /// A run of this one goes just before each run, and they are compared: machines have slow phases.
    pub pair: Option<&'static str>,
}

#[derive(Debug)]
pub struct Ours {
    pub name: &'static str,
    pub floor: &'static str,
}

impl Field {
    pub fn is_peer(&self, runtime: &str) -> bool {
        self.pair != Some(runtime) && !self.ours.iter().any(|ours| [ours.name, ours.floor].contains(&runtime))
    }
}

/// A number that a row has; less is better.
#[derive(Debug)]
pub struct Metric {
    /// As the process prints it; or, where `of` says of which metric it is the ratio to the pair, our name for that.
    pub name: &'static str,
    pub of: Option<&'static str>,
    pub unit: &'static str,
    /// For each of ours. None where no aim was set.
    pub aims: &'static [Option<Aim>],
}

impl Metric {
    pub fn aim(&self, ours: usize) -> Option<Aim> {
        self.aims.get(ours).copied().flatten()
    }
}

/// What is to be reached. It was set on one machine, in its nanoseconds, beside what the peers took there; on another one what can be told is
/// whether we stand beside them as we were to do.
#[derive(Clone, Copy, Debug)]
pub struct Aim {
    /// At most so much.
    pub at_most: f64,
    /// What the best of the peers that run this took on the machine on which that was set (`peers_measured.md`). None where the number is a ratio
    /// already.
    pub beside: Option<f64>,
}

impl Aim {
    /// The same as a part of what the best peer takes.
    pub fn of_peer(&self) -> Option<f64> {
        self.beside.map(|peer| self.at_most / peer)
    }
}

/// Work in one process.
pub const STRUCTURE: Field = Field {
    runtimes: &[
        "trefoil",
        "tokio",
        "tokio-mt",
        "tokio-handles",
        "smol",
        "futures-unordered",
        "futures-concurrency",
        "moro",
        "monoio",
        "compio",
        "glommio",
        "floor",
    ],
    ours: &[Ours { name: "trefoil", floor: "floor" }],
    pair: None,
};

const SERVERS: &[&str] = &[
    "trefoil-io_uring",
    "trefoil-epoll",
    "tokio",
    "tokio-mt",
    "smol",
    "monoio",
    "compio",
    "compio-tuned",
    "glommio",
    "raw-io_uring",
    "raw-epoll",
];

const OURS: &[Ours] =
    &[Ours { name: "trefoil-io_uring", floor: "raw-io_uring" }, Ours { name: "trefoil-epoll", floor: "raw-epoll" }];

/// A server in a process of its own, under load.
pub const SERVED: Field = Field { runtimes: SERVERS, ours: OURS, pair: Some("raw-epoll") };

/// Who has files.
pub const FILES: Field = Field {
    runtimes: &["trefoil-io_uring", "trefoil-epoll", "tokio", "smol", "monoio", "compio", "glommio", "floor"],
    ours: &[Ours { name: "trefoil-io_uring", floor: "floor" }, Ours { name: "trefoil-epoll", floor: "floor" }],
    pair: None,
};

/// The same where nothing depends on the phase of the machine.
pub const HELD: Field = Field { runtimes: SERVERS, ours: OURS, pair: None };

/// Servers that look for a while before they sleep, against the raw loop that sleeps at once.
pub const SPINNING: Field = Field {
    runtimes: &["trefoil-io_uring-spin", "trefoil-epoll-spin", "glommio-spin", "raw-epoll-spin", "raw-epoll"],
    ours: &[
        Ours { name: "trefoil-io_uring-spin", floor: "raw-epoll-spin" },
        Ours { name: "trefoil-epoll-spin", floor: "raw-epoll-spin" },
    ],
    pair: Some("raw-epoll"),
};

/// Of what depends on the machine.
const fn beside(at_most: f64, peer: f64) -> Option<Aim> {
    Some(Aim { at_most, beside: Some(peer) })
}

/// Of a ratio to what was measured just before.
const fn ratio(at_most: f64) -> Option<Aim> {
    Some(Aim { at_most, beside: None })
}

const fn metric(name: &'static str, unit: &'static str, aims: &'static [Option<Aim>]) -> Metric {
    Metric { name, of: None, unit, aims }
}

const NS: Metric = metric("ns", "ns", &[]);

const fn paired(name: &'static str, of: &'static str, unit: &'static str, aims: &'static [Option<Aim>]) -> Metric {
    Metric { name, of: Some(of), unit, aims }
}

const CPU: Metric = metric("cpu_us", "µs of server CPU each", &[]);
const P50: Metric = metric("p50_us", "µs, median latency", &[]);
const P99: Metric = metric("p99_us", "µs, p99", &[]);
const P999: Metric = metric("p999_us", "µs, p99.9", &[]);
const P99_RATIO: Metric = paired("p99", "p99_us", "p99 latency × raw epoll", &[ratio(1.1), ratio(1.1)]);
const SYSCALLS: Metric = metric("syscalls", "system calls each", &[]);

const ECHO: &[Metric] = &[
    paired("cpu", "cpu_us", "server CPU × raw epoll", &[ratio(1.0), ratio(1.02)]),
    CPU,
    P50,
    P99_RATIO,
    P99,
    P999,
    SYSCALLS,
];

/// In the order of the report.
pub const ROWS: &[Row] = &[
    Row {
        name: "spawn-1k",
        title: "spawn + join a ready child, 1,000 in one nursery",
        args: &["spawn", "--size", "1000"],
        field: &STRUCTURE,
        metrics: &[metric("ns", "ns", &[beside(25.0, 30.0)])],
    },
    Row {
        name: "spawn-100k",
        title: "spawn + join a ready child, 100,000 in one nursery",
        args: &["spawn", "--size", "100000"],
        field: &STRUCTURE,
        metrics: &[metric("ns", "ns", &[beside(30.0, 32.0)])],
    },
    Row {
        name: "yield-1k",
        title: "spawn + join a child that yields once, 1,000",
        args: &["yield", "--size", "1000"],
        field: &STRUCTURE,
        metrics: &[metric("ns", "ns", &[beside(40.0, 47.0)])],
    },
    Row {
        name: "yield-100k",
        title: "spawn + join a child that yields once, 100,000",
        args: &["yield", "--size", "100000"],
        field: &STRUCTURE,
        metrics: &[metric("ns", "ns", &[beside(60.0, 79.0)])],
    },
    Row {
        name: "turn",
        title: "one fair turn of a yielding task, 100 tasks",
        args: &["turn", "--size", "100"],
        field: &STRUCTURE,
        metrics: &[metric("ns", "ns", &[beside(12.0, 15.7)])],
    },
    Row {
        name: "channel",
        title: "round trip over bounded(1) channels, one thread",
        args: &["channel", "--size", "1"],
        field: &STRUCTURE,
        metrics: &[metric("ns", "ns", &[beside(80.0, 116.0)])],
    },
    Row {
        name: "channel-threads",
        title: "round trip over bounded(1) channels, two threads, a hot pair",
        args: &["channel-threads", "--size", "1"],
        field: &STRUCTURE,
        metrics: &[metric("ns", "ns", &[beside(4_000.0, 41_000.0)])],
    },
    Row {
        name: "deadline-ready",
        title: "deadline around a ready operation",
        args: &["deadline-ready", "--size", "1"],
        field: &STRUCTURE,
        metrics: &[metric("ns", "ns", &[beside(8.0, 11.0)])],
    },
    Row {
        name: "deadline-waits",
        title: "deadline set and removed around an operation that waits a turn, on top of it",
        args: &["deadline-waits", "--size", "1"],
        field: &STRUCTURE,
        metrics: &[metric("ns", "ns", &[beside(40.0, 76.0)])],
    },
    Row {
        name: "cancel-told",
        title: "cancel 100,000 sleeping children, each told and awaited",
        args: &["cancel-told", "--size", "100000"],
        field: &STRUCTURE,
        metrics: &[metric("ns", "ns", &[beside(80.0, 167.0)])],
    },
    Row {
        name: "cancel-dropped",
        title: "cancel 100,000 sleeping children by dropping",
        args: &["cancel-dropped", "--size", "100000"],
        field: &STRUCTURE,
        metrics: &[metric("ns", "ns", &[beside(35.0, 35.0)])],
    },
    Row {
        name: "cancel-cleanup",
        title: "cancel 10,000 sleeping children, each cleans up for a turn in a shield",
        args: &["cancel-cleanup", "--size", "10000"],
        field: &STRUCTURE,
        metrics: &[NS],
    },
    Row {
        name: "timers",
        title: "100,000 timers in a second",
        args: &["timers", "--size", "100000"],
        field: &STRUCTURE,
        metrics: &[
            metric("cpu_ms", "ms of CPU", &[beside(180.0, 141.0)]),
            metric("late_us", "µs late on average", &[beside(60.0, 14.0)]),
        ],
    },
    Row {
        name: "bytes-100k",
        title: "memory of a sleeping child, 100,000 of them",
        args: &["bytes", "--size", "100000"],
        field: &STRUCTURE,
        metrics: &[metric("bytes", "B", &[None])],
    },
    Row {
        name: "bytes-1m",
        title: "memory of a sleeping child, 1,000,000 of them",
        args: &["bytes", "--size", "1000000"],
        field: &STRUCTURE,
        metrics: &[metric("bytes", "B", &[beside(160.0, 208.0)])],
    },
    Row {
        name: "nested-1",
        title: "one turn of a task, 1 nursery deep",
        args: &["nested", "--size", "1"],
        field: &STRUCTURE,
        metrics: &[NS],
    },
    Row {
        name: "nested-4",
        title: "one turn of a task, 4 nurseries deep",
        args: &["nested", "--size", "4"],
        field: &STRUCTURE,
        metrics: &[NS],
    },
    Row {
        name: "nested-16",
        title: "one turn of a task, 16 nurseries deep",
        args: &["nested", "--size", "16"],
        field: &STRUCTURE,
        metrics: &[NS],
    },
    Row {
        name: "cached-file",
        title: "a file in the page cache, read in pieces of 64 KiB: one piece",
        args: &["cached-file", "--size", "1"],
        field: &FILES,
        metrics: &[metric("ns", "ns", &[beside(5_000.0, 5_800.0), beside(5_000.0, 5_800.0)])],
    },
    Row {
        name: "echo",
        title: "TCP echo, 64 B, 64 connections",
        args: &["echo", "--size", "64", "--connections", "64"],
        field: &SERVED,
        metrics: ECHO,
    },
    Row {
        name: "echo-1000",
        title: "TCP echo, 64 B, 1,000 connections",
        args: &["echo", "--size", "64", "--connections", "1000"],
        field: &SERVED,
        metrics: ECHO,
    },
    Row {
        name: "echo-4k",
        title: "TCP echo, 4 KiB, 64 connections",
        args: &["echo", "--size", "4096", "--connections", "64"],
        field: &SERVED,
        metrics: ECHO,
    },
    Row {
        name: "echo-64k",
        title: "TCP echo, 64 KiB, 64 connections",
        args: &["echo", "--size", "65536", "--connections", "64"],
        field: &SERVED,
        metrics: ECHO,
    },
    Row {
        name: "echo-pipelined",
        title: "TCP echo, 64 B, 64 connections, 16 messages under way on each",
        args: &["echo", "--size", "64", "--connections", "64", "--depth", "16"],
        field: &SERVED,
        metrics: ECHO,
    },
    Row {
        name: "latency",
        title: "TCP echo, 64 B, one connection",
        args: &["echo", "--size", "64", "--connections", "1"],
        field: &SERVED,
        metrics: &[
            paired("p50", "p50_us", "median latency × raw epoll", &[ratio(1.0), ratio(1.0)]),
            P50,
            P99_RATIO,
            P99,
            P999,
            paired("cpu", "cpu_us", "server CPU × raw epoll", &[]),
            CPU,
            SYSCALLS,
        ],
    },
    Row {
        name: "latency-spin",
        title: "TCP echo, 64 B, one connection, to a server that looks for a while before it sleeps",
        args: &["echo", "--size", "64", "--connections", "1"],
        field: &SPINNING,
        metrics: &[
            paired("p50", "p50_us", "median latency × raw epoll", &[ratio(0.6), ratio(0.6)]),
            P50,
            paired("p99", "p99_us", "p99 latency × raw epoll", &[]),
            P99,
            P999,
        ],
    },
    Row {
        name: "accept",
        title: "accept, one message, close",
        args: &["accept", "--size", "64", "--connections", "32"],
        field: &SERVED,
        metrics: &[paired("cpu", "cpu_us", "server CPU × raw epoll", &[ratio(0.93), None]), CPU, SYSCALLS],
    },
    Row {
        name: "idle",
        title: "memory of an idle connection with its buffer of 4 KiB, 10,000 of them",
        args: &["idle", "--size", "64", "--connections", "10000"],
        field: &HELD,
        metrics: &[metric("bytes", "B", &[])],
    },
    Row {
        name: "idle-without-buffer",
        title: "memory of an idle connection that holds no buffer while it is idle, 10,000 of them",
        args: &["idle", "--size", "64", "--connections", "10000", "--without-buffers"],
        field: &HELD,
        metrics: &[metric("bytes", "B", &[beside(600.0, 1_020.0), beside(600.0, 1_020.0)])],
    },
];
