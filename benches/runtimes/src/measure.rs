//! Clocks, samples, and the children that are the same on every runtime.

use crate::{Load, Metric};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

pub const HOUR: Duration = Duration::from_secs(3600);

/// Pins the calling thread, and those that it starts.
pub fn pin_to(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    if let Err(error) = sched_setaffinity(None, &cores) {
        // What is measured would be something else.
        eprintln!("cannot be pinned to core {core}: {error}");
        std::process::exit(2);
    }
}

/// The last core that this process may use.
pub fn last_core() -> usize {
    let cores = sched_getaffinity(None).expect("the cores of this process");
    (0..CpuSet::MAX_CPU).rev().find(|&core| cores.is_set(core)).unwrap_or(0)
}

fn clock(id: ClockId) -> Duration {
    let time = clock_gettime(id);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What this process has used of all cores.
pub fn process_cpu() -> Duration {
    clock(ClockId::ProcessCPUTime)
}

/// Bytes of this process that are in memory.
pub fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("statm");
    pages * rustix::param::page_size()
}

/// Batches of the same work, as many as time allows; what counts is the median. The first one warms up.
///
/// Measured in CPU time of the thread, so that what else runs on the machine does not count. With `--repeat`, as many as that asks for.
#[derive(Debug)]
pub struct Series {
    samples: Vec<f64>,
    clock: ClockId,
    /// What it costs to read the clock.
    reading: Duration,
    least: usize,
    until: Instant,
    repeat: Option<usize>,
}

impl Series {
    pub fn new(load: &Load) -> Self {
        Self::on(ClockId::ThreadCPUTime, load)
    }

    /// For work that waits for another thread.
    pub fn of_wall_time(load: &Load) -> Self {
        Self::on(ClockId::Monotonic, load)
    }

    /// For work that other threads do in part.
    pub fn of_process_cpu(load: &Load) -> Self {
        Self::on(ClockId::ProcessCPUTime, load)
    }

    fn on(id: ClockId, load: &Load) -> Self {
        let (least, milliseconds) = if load.quick { (4, 80) } else { (6, 200) };
        let mut readings: Vec<Duration> = (0..101)
            .map(|_| {
                let begin = clock(id);
                clock(id) - begin
            })
            .collect();
        readings.sort();
        Self {
            samples: Vec::new(),
            clock: id,
            reading: readings[readings.len() / 2],
            least,
            until: Instant::now() + Duration::from_millis(milliseconds),
            repeat: load.repeat,
        }
    }

    pub fn goes_on(&self) -> bool {
        match self.repeat {
            Some(repeat) => self.samples.len() < repeat,
            None => self.samples.len() < self.least || Instant::now() < self.until,
        }
    }

    pub fn begin(&self) -> Duration {
        clock(self.clock)
    }

    /// So many of them have been done since then.
    pub fn add(&mut self, begin: Duration, of: usize) {
        let took = clock(self.clock) - begin;
        self.samples.push(took.saturating_sub(self.reading).as_nanos() as f64 / of as f64);
    }

    /// Nanoseconds of one.
    pub fn median(&self) -> f64 {
        let mut samples = self.samples.get(1..).unwrap_or_default().to_vec();
        samples.sort_by(f64::total_cmp);
        samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
    }

    pub fn metrics(&self) -> Vec<Metric> {
        vec![("ns", self.median())]
    }
}

/// Wakes its task, and gives up one turn. The same on all runtimes.
#[derive(Debug, Default)]
pub struct Turn {
    taken: bool,
}

pub fn turn() -> Turn {
    Turn::default()
}

impl Future for Turn {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.taken {
            return Poll::Ready(());
        }
        self.taken = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

thread_local! {
    static ALIVE: Cell<usize> = const { Cell::new(0) };
    static LATE: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Counts the children of this thread that have begun, and not been dropped.
#[derive(Debug)]
pub struct Alive(());

impl Alive {
    pub fn begin() -> Self {
        ALIVE.set(ALIVE.get() + 1);
        Self(())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        ALIVE.set(ALIVE.get() - 1);
    }
}

pub fn alive() -> usize {
    ALIVE.get()
}

/// Instants in the course of a second that begins in half a second, and the CPU time so far. The same ones in every process.
#[derive(Debug)]
pub struct Timers {
    base: Instant,
    cpu: Duration,
    random: fastrand::Rng,
}

impl Timers {
    pub fn new() -> Self {
        Self {
            base: Instant::now() + Duration::from_millis(500),
            cpu: process_cpu(),
            random: fastrand::Rng::with_seed(7),
        }
    }

    pub fn next(&mut self) -> Instant {
        self.base + Duration::from_nanos(self.random.u64(..1_000_000_000))
    }

    /// What a child does that was to be woken then.
    pub fn woken(target: Instant) {
        LATE.set(LATE.get() + Instant::now().saturating_duration_since(target));
    }

    pub fn metrics(&self, of: usize) -> Vec<Metric> {
        let cpu = process_cpu() - self.cpu;
        vec![("cpu_ms", cpu.as_secs_f64() * 1e3), ("late_us", LATE.get().as_secs_f64() * 1e6 / of as f64)]
    }
}
