//! What a connection that has nothing to do takes of the server's memory. The kernel's part is not in it.

use super::process::{Process, many_files};
use super::{Load, echo};
use crate::Metric;
use std::error::Error;
use std::thread::sleep;
use std::time::Duration;

pub fn run(server: &str, load: &Load) -> Result<Vec<Metric>, Box<dyn Error>> {
    const FIRST: usize = 100;
    if many_files()? < (load.connections + FIRST + 100) as u64 {
        return Err(format!("`ulimit -n` is too low for {} connections", load.connections).into());
    }
    let process = Process::start(server, load)?;
    let mut streams = Vec::new();
    let mut open = |count| -> Result<usize, Box<dyn Error>> {
        for _ in 0..count {
            let mut stream = process.connect()?;
            echo::check(&mut stream, streams.len(), load.size)?;
            streams.push(stream);
        }
        sleep(Duration::from_millis(50));
        process.resident()
    };
    // What the first ones take once and for all does not count.
    let before = open(FIRST)?;
    let after = open(load.connections)?;
    Ok(vec![("bytes", after.saturating_sub(before) as f64 / load.connections as f64)])
}
