//! Runs one workload on one runtime, pinned to a core, and prints what it took: `metric value`, a line each.
//!
//! Started by `trefoil-bench`, which knows what the metrics mean. By hand:
//!
//! ```sh
//! cargo run --release --manifest-path benches/runtimes/Cargo.toml -- spawn trefoil
//! ```
//! The jobs of `net` do I/O: `-- echo trefoil-epoll --size 64 --connections 1000 --depth 1`, `-- accept tokio`, `-- idle smol`.
//!
//! `--core N` pins to a core; workloads of two threads use the one before it too. `--size N` is the number of children, tasks or levels,
//! `--quick` takes a fifth of the time. `--repeat N` does N rounds of so many, times nothing, and prints nothing, for a tool that counts
//! instructions.

#[cfg_attr(not(feature = "peers"), allow(dead_code))]
mod cached;
mod measure;

mod floor;
#[cfg(feature = "peers")]
mod net;
mod trefoil;

#[cfg(feature = "peers")]
mod peers;

use lexopt::{Arg, Parser, ValueExt};
use std::error::Error;
use std::process::ExitCode;

/// The runtimes, in the order of the report.
const RUNTIMES: &[(&str, Run)] = &[
    ("trefoil", trefoil::run),
    ("trefoil-io_uring", trefoil::run_io_uring),
    ("trefoil-epoll", trefoil::run_epoll),
    #[cfg(feature = "peers")]
    ("tokio", peers::tokio::run),
    #[cfg(feature = "peers")]
    ("tokio-mt", peers::tokio::run_multi_thread),
    #[cfg(feature = "peers")]
    ("tokio-handles", peers::tokio_handles::run),
    #[cfg(feature = "peers")]
    ("smol", peers::smol::run),
    #[cfg(feature = "peers")]
    ("futures-unordered", peers::futures_unordered::run),
    #[cfg(feature = "peers")]
    ("futures-concurrency", peers::futures_concurrency::run),
    #[cfg(feature = "peers")]
    ("moro", peers::moro::run),
    #[cfg(feature = "peers")]
    ("monoio", peers::monoio::run),
    #[cfg(feature = "peers")]
    ("compio", peers::compio::run),
    #[cfg(feature = "peers")]
    ("glommio", peers::glommio::run),
    ("floor", floor::run),
];

/// Runs a workload; nothing if the runtime has nothing of the kind.
type Run = fn(Workload, &Load) -> Option<Vec<Metric>>;

/// A name and a number.
type Metric = (&'static str, f64);

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Workload {
    /// So many children that are ready at once, in one nursery; until all have ended.
    Spawn,
    /// The same, each wakes itself once.
    Yield,
    /// So many tasks that wake themselves; one turn of one.
    Turn,
    /// An item there and one back, over two channels with room for one, on one thread.
    Channel,
    /// The same between two futures in a combinator, which has a waker for each. To count instructions.
    ChannelCombined,
    /// The same between two threads, each with a loop of its own, on two cores.
    ChannelThreads,
    /// A deadline around what is ready.
    DeadlineReady,
    /// What a deadline adds to an operation that waits for a turn.
    DeadlineWaits,
    /// So many sleeping children, cancelled and awaited.
    CancelTold,
    /// So many sleeping children, dropped with their nursery.
    CancelDropped,
    /// So many sleeping children, each waits for a turn to clean up when it is cancelled.
    CancelCleanup,
    /// So many timers that run out in the course of a second.
    Timers,
    /// Memory of a sleeping child.
    Bytes,
    /// A task that wakes itself, so many nurseries deep; one turn.
    Nested,
    /// A message of so many bytes over a connection to a task of the same thread, and back. To count instructions.
    EchoTurn,
    /// A piece of a file that is in the page cache.
    CachedFile,
}

impl Workload {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "spawn" => Self::Spawn,
            "yield" => Self::Yield,
            "turn" => Self::Turn,
            "channel" => Self::Channel,
            "channel-combined" => Self::ChannelCombined,
            "channel-threads" => Self::ChannelThreads,
            "deadline-ready" => Self::DeadlineReady,
            "deadline-waits" => Self::DeadlineWaits,
            "cancel-told" => Self::CancelTold,
            "cancel-dropped" => Self::CancelDropped,
            "cancel-cleanup" => Self::CancelCleanup,
            "timers" => Self::Timers,
            "bytes" => Self::Bytes,
            "nested" => Self::Nested,
            "echo-turn" => Self::EchoTurn,
            "cached-file" => Self::CachedFile,
            _ => return None,
        })
    }
}

/// How much of it.
#[derive(Clone, Copy, Debug)]
struct Load {
    size: usize,
    core: usize,
    quick: bool,
    repeat: Option<usize>,
}

fn main() -> ExitCode {
    match arguments().and_then(|arguments| arguments.run()) {
        Ok(Some(metrics)) => metrics.iter().for_each(|(metric, value)| println!("{metric} {value}")),
        Ok(None) => println!("none"),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// What is asked for on the command line.
#[derive(Debug)]
struct Arguments {
    /// The workload, and on what.
    names: [String; 2],
    size: Option<usize>,
    #[cfg_attr(not(feature = "peers"), allow(dead_code))]
    connections: usize,
    #[cfg_attr(not(feature = "peers"), allow(dead_code))]
    depth: usize,
    #[cfg_attr(not(feature = "peers"), allow(dead_code))]
    without_buffers: bool,
    core: usize,
    quick: bool,
    repeat: Option<usize>,
}

impl Arguments {
    fn run(self) -> Result<Option<Vec<Metric>>, Box<dyn Error>> {
        let Self { names: [workload, on], size, core, quick, repeat, .. } = self;
        #[cfg(feature = "peers")]
        if let Some(job) = net::Job::named(&workload) {
            let load = net::Load {
                size: size.unwrap_or(64),
                connections: self.connections,
                depth: self.depth,
                core,
                quick,
                without_buffers: self.without_buffers,
            };
            return net::run(job, &on, &load);
        }
        let workload = Workload::named(&workload).ok_or_else(|| format!("no workload {workload}"))?;
        let (_, run) = RUNTIMES.iter().find(|(name, _)| *name == on).ok_or_else(|| format!("no runtime {on}"))?;
        measure::pin_to(core);
        Ok(run(workload, &Load { size: size.unwrap_or(1_000), core, quick, repeat }))
    }
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let (mut size, mut repeat, mut quick, mut without_buffers) = (None, None, false, false);
    let (mut connections, mut depth, mut core) = (64, 1, measure::last_core());
    let mut names = Vec::new();
    let mut parser = Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("core") => core = parser.value()?.parse()?,
            Arg::Long("size") => size = Some(parser.value()?.parse()?),
            Arg::Long("connections") => connections = parser.value()?.parse()?,
            Arg::Long("depth") => depth = parser.value()?.parse()?,
            Arg::Long("quick") => quick = true,
            Arg::Long("without-buffers") => without_buffers = true,
            Arg::Long("repeat") => repeat = Some(parser.value()?.parse()?),
            Arg::Value(name) => names.push(name.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    let names = names.try_into().map_err(|_| "a workload, and a runtime")?;
    Ok(Arguments { names, size, connections, depth, without_buffers, core, quick, repeat })
}
