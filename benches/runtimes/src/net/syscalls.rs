//! Counts system calls with the kernel's tracepoint, which slows the server by a few percent: so not while time is measured.

use perf_event::events::Tracepoint;
use perf_event::{Builder, Counter};
use std::error::Error;
use std::fs;

/// What a process has called while something was done. None where it cannot be had: that takes root or `perf_event_paranoid` of -1, and
/// a mounted tracefs (`mount -t tracefs none /sys/kernel/tracing`).
pub fn of<T>(pid: u32, work: impl FnOnce() -> T) -> (T, Option<u64>) {
    let mut counters = counters(pid).ok();
    for counter in counters.iter_mut().flatten() {
        if counter.enable().is_err() {
            return (work(), None);
        }
    }
    let result = work();
    let count = counters.and_then(|mut counters| counters.iter_mut().map(|counter| counter.read().ok()).sum());
    (result, count)
}

/// One for each thread.
fn counters(pid: u32) -> Result<Vec<Counter>, Box<dyn Error>> {
    let id = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .iter()
        .find_map(|root| fs::read_to_string(format!("{root}/events/raw_syscalls/sys_enter/id")).ok());
    let id = id.ok_or("no tracefs")?.trim().parse()?;
    let mut counters = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?.file_name().to_string_lossy().parse()?;
        let mut builder = Builder::new(Tracepoint::with_id(id));
        builder.observe_pid(thread).any_cpu().include_kernel();
        counters.push(builder.build()?);
    }
    Ok(counters)
}
