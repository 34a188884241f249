//! Connect, one message, close: some at a time.

use super::process::Process;
use super::{Load, echo};
use crate::Metric;
use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

pub fn run(server: &str, load: &Load) -> Result<Vec<Metric>, Box<dyn Error>> {
    let process = Process::start(server, load)?;
    echo::check(&mut process.connect()?, 1, load.size)?;
    let [warm_up, length, counted] = super::lengths(load);
    connections(&process, load, warm_up)?;
    let (cpu, waited, begin) = (process.cpu()?, process.waited()?, Instant::now());
    let count = connections(&process, load, length)? as f64;
    let (cpu, waited, took) = (process.cpu()? - cpu, process.waited()? - waited, begin.elapsed());
    let mut metrics = vec![
        ("cpu_us", cpu.as_secs_f64() * 1e6 / count),
        ("rate", count / took.as_secs_f64()),
        ("waited", waited.as_secs_f64() / took.as_secs_f64()),
    ];
    let (count, calls) = process.syscalls(|| connections(&process, load, counted));
    if let Some(calls) = calls {
        metrics.push(("syscalls", calls as f64 / count? as f64));
    }
    Ok(metrics)
}

/// How many there were in that time.
fn connections(process: &Process, load: &Load, length: Duration) -> Result<u64, Box<dyn Error>> {
    let message = vec![7; load.size];
    let mut buffer = vec![0; load.size];
    let (mut count, begin) = (0, Instant::now());
    while begin.elapsed() < length {
        let mut streams = Vec::new();
        for _ in 0..load.connections {
            let mut stream = process.connect()?;
            stream.write_all(&message)?;
            // From here on it spins: to wake a client that sleeps would be the server's work.
            stream.set_nonblocking(true)?;
            streams.push(stream);
        }
        for stream in &mut streams {
            let mut read = 0;
            while read < load.size {
                match stream.read(&mut buffer[read..]) {
                    Ok(0) => return Err("the server has closed a connection".into()),
                    Ok(more) => read += more,
                    Err(error) if error.kind() == ErrorKind::WouldBlock && begin.elapsed() < length * 10 => {}
                    Err(error) => return Err(error.into()),
                }
            }
            count += 1;
        }
    }
    Ok(count)
}
